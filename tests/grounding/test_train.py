"""Claims about the training of the encoder, on a random BERT and a world of two themes."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from sigma_core import columns as c
from sigma_core.config import GroundingConfig
from sigma_core.grounding import text_backbone as tb
from sigma_core.grounding.encoder import GroundedEncoder
from sigma_core.grounding.id_embeddings import ItemIdEmbeddings
from sigma_core.grounding.relevance_pairs import RelevancePairs
from sigma_core.grounding.train import train_grounded_encoder
from sigma_core.grounding.views.base import PAIR_SCHEMA
from sigma_core.tracking import NullTracker
from tests.grounding.tiny_bert import write_tiny_bert

DRINKS = ["soda", "cola", "milk", "soda premium", "cola budget", "milk private brand"]
SWEETS = ["candy", "chocolate", "ice cream", "candy premium", "chocolate budget", "ice cream vanilla"]


class Catalog:
    """Stands in for ItemCatalog: only its frame is read."""

    frame = pl.DataFrame(
        {c.ITEM_ID: [f"i{n:02d}" for n in range(12)], c.TEXT: [f"{text} , 8 oz" for text in DRINKS + SWEETS]}
    )


def world() -> tuple[RelevancePairs, Catalog, ItemIdEmbeddings]:
    rows = []
    for theme, query in ((range(6), "halloween"), (range(6, 12), "christmas")):
        for n in theme:
            rows.append(("search", query, None, f"i{n:02d}", 1.0, True))
            rows += [
                ("collaborative", Catalog.frame[c.TEXT][n], f"i{n:02d}", f"i{m:02d}", 1.0, False)
                for m in theme
                if m != n
            ]
    pairs = RelevancePairs(pl.DataFrame(rows, schema=PAIR_SCHEMA, orient="row"))
    factors = np.repeat(np.eye(2, 3), 6, axis=0) + 0.1 * np.random.default_rng(1).normal(size=(12, 3))
    return pairs, Catalog(), ItemIdEmbeddings([f"i{n:02d}" for n in range(12)], factors)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> GroundingConfig:
    folder = write_tiny_bert(tmp_path_factory.mktemp("bert"))
    return GroundingConfig(
        backbone=str(folder),
        text_dim=8,
        pad_buckets=(8, 12),
        lora_layers=1,
        lora_rank=2,
        train_steps=12,
        head_steps=40,
        batch_size=24,
        learning_rate=2e-2,
        head_learning_rate=2e-2,
        view_weights={"collaborative": 0.7, "search": 0.3},
        holdout_share=0.1,
    )


@pytest.fixture(scope="module")
def trained(config: GroundingConfig) -> GroundedEncoder:
    return train_grounded_encoder(*world(), config, seed=4)


def test_themes_draw_together(config: GroundingConfig, trained: GroundedEncoder) -> None:
    def gap(encoder: GroundedEncoder) -> float:
        rows = encoder.encode(Catalog.frame[c.TEXT].to_list())
        cosine = rows @ rows.T
        inside = (cosine[:6, :6].sum() - 6 + cosine[6:, 6:].sum() - 6) / 60
        return float(inside - cosine[:6, 6:].mean())

    untrained = train_grounded_encoder(
        *world(),
        config.model_copy(
            update={"head_steps": 0, "train_steps": 1, "learning_rate": 1e-9, "head_learning_rate": 1e-9}
        ),
        seed=4,
    )
    assert gap(trained) > gap(untrained) + 0.1
    figures = trained.summary()
    assert figures["lora_contrastive_last"] < figures["head_contrastive_first"]
    views = {"collaborative", "search"}
    assert set(figures["recall@20_before"]) == set(figures["recall@20_after"]) == views
    assert all(
        set(figures[f"recall@{n}_{when}"]) == views for n in (5, 20, 100) for when in ("frozen", "after")
    )
    assert figures["recall@100_frozen"]["collaborative"] == 1.0  # of 12 items
    gain = figures["recall@20_after"]["collaborative"] - figures["recall@20_before"]["collaborative"]
    assert figures["retrieval_gain"]["collaborative"] == pytest.approx(gain, abs=1e-4)
    assert sum(figures["train_share"].values()) == pytest.approx(1.0, abs=1e-3)
    first, last = figures["contrastive_by_view_first"], figures["contrastive_by_view_last"]
    assert set(first) == set(last) == views
    assert last["collaborative"] < first["collaborative"]


def test_the_same_seed_gives_the_same_digest_and_leaves_torch_alone(
    config: GroundingConfig, trained: GroundedEncoder
) -> None:
    torch.manual_seed(123)
    state = torch.get_rng_state()
    again = train_grounded_encoder(*world(), config, seed=4, tracker=NullTracker())
    assert torch.equal(torch.get_rng_state(), state)
    assert again.digest() == trained.digest()
    assert again.summary() == trained.summary()
    assert train_grounded_encoder(*world(), config, seed=5).digest() != trained.digest()


def test_only_the_top_layers_attention_was_touched(config: GroundingConfig, trained: GroundedEncoder) -> None:
    base = tb.load_model(Path(config.backbone)).state_dict()
    changed = {
        name for name, tensor in trained.model.state_dict().items() if not torch.equal(tensor, base[name])
    }
    assert changed == {f"encoder.layer.2.attention.self.{part}.weight" for part in ("query", "value")}
    assert set(trained.model.state_dict()) == set(base)
    assert all("encoder.layer.2.attention.self." in name for name in trained.adapter.tensors)


def test_the_adapter_folder_opens_with_peft_and_gives_the_merged_model(
    config: GroundingConfig, trained: GroundedEncoder, tmp_path: Path
) -> None:
    from peft import PeftModel

    trained.save(tmp_path)
    adapted = PeftModel.from_pretrained(
        tb.load_model(Path(config.backbone)), str(tmp_path / "adapter")
    ).eval()
    ids = torch.tensor([[2, 5, 9, 3]])
    with torch.inference_mode():
        want = adapted(input_ids=ids).last_hidden_state
        got = trained.model(input_ids=ids).last_hidden_state
    assert torch.allclose(want, got, atol=1e-5)
    assert trained.adapter.config["target_modules"] == ["query", "value"]


def test_progress_and_tracker_hear_of_every_phase(config: GroundingConfig) -> None:
    heard: list[tuple[int, int, str]] = []
    logged: list[str] = []

    class Recorder(NullTracker):
        def log(self, metrics, step=None) -> None:
            logged.extend(metrics)

    train_grounded_encoder(*world(), config, 4, Recorder(), lambda *step: heard.append(step))
    texts = {text.split(",")[0] for _, _, text in heard}
    assert {"head steps", "lora steps", "batches of texts through the frozen layers"} <= texts
    assert all(1 <= done <= total for done, total, _ in heard)
    assert {"grounding/lora_contrastive", "grounding/lora_distilled", "grounding/head_contrastive"} <= set(
        logged
    )


def test_without_the_teacher_only_the_contrastive_loss_trains(config: GroundingConfig) -> None:
    pairs, catalog, _ = world()
    nobody = ItemIdEmbeddings([], np.zeros((0, 3)))
    figures = train_grounded_encoder(pairs, catalog, nobody, config, seed=4).summary()
    assert figures["lora_distilled_last"] == 0
    assert figures["lora_contrastive_last"] < figures["head_contrastive_first"]


def test_impossible_settings_are_refused(config: GroundingConfig) -> None:
    with pytest.raises(ValueError, match="the backbone has 3 layers"):
        train_grounded_encoder(*world(), config.model_copy(update={"lora_layers": 4}), seed=4)
    with pytest.raises(ValueError, match=r"text_dim is 64, the backbone's width only 32"):
        train_grounded_encoder(*world(), config.model_copy(update={"text_dim": 64}), seed=4)
