"""Text models of every kind under the encoder: decoders read their last token whatever the padding, others their mean."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sigma_core.artifacts import ArtifactError
from sigma_core.config import GroundingConfig
from sigma_core.grounding import text_backbone as tb
from sigma_core.grounding.encoder import Adapter, GroundedEncoder
from sigma_core.grounding.text_network import BertNetwork, DecoderNetwork, WholeNetwork, last_pool, network_of
from sigma_core.grounding.train import train_grounded_encoder, untrained_encoder
from sigma_core.model.words import minilm_folder
from tests.grounding.test_train import Catalog, world
from tests.grounding.tiny_bert import write_tiny_bert
from tests.model.tiny_llm import FAMILIES, WHOLE_FAMILIES, save_tiny_llm

TEXTS = ["soda", "red tea", "fresh bread cheese of the apple", "milk", "milk", "green apple juice"]


@pytest.fixture(params=sorted(FAMILIES | WHOLE_FAMILIES))
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save_tiny_llm(tmp_path / "llm", request.param)


def encoder(folder: Path, **options: str) -> GroundedEncoder:
    return untrained_encoder(GroundingConfig(backbone=str(folder), pad_buckets=(4, 8), **options))  # type: ignore[arg-type]


def test_last_pooling_finds_the_last_own_token_on_either_side() -> None:
    states = torch.arange(8.0).view(2, 4, 1).expand(2, 4, 2) + 1
    right = torch.tensor([[True, True, False, False], [True, True, True, True]])
    left = torch.tensor([[False, False, True, True], [False, False, False, True]])
    picked = torch.stack([states[0, 1], states[1, 3]])
    torch.testing.assert_close(last_pool(states, right), torch.nn.functional.normalize(picked, dim=1))
    picked = torch.stack([states[0, 3], states[1, 3]])
    torch.testing.assert_close(last_pool(states, left), torch.nn.functional.normalize(picked, dim=1))


def test_a_decoder_gives_the_same_vectors_padded_left_or_right_or_not_at_all(folder: Path) -> None:
    right, left = encoder(folder), encoder(folder, padding_side="left")
    rows = right.encode(TEXTS)
    np.testing.assert_allclose(left.encode(TEXTS), rows, atol=1e-5)
    tokenizer = tb.make_tokenizer(right.tokenizer_files, 8)
    for text, row in zip(TEXTS, rows, strict=True):
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.inference_mode():
            state = right.model(input_ids=ids).last_hidden_state[0, -1]
        np.testing.assert_allclose(torch.nn.functional.normalize(state, dim=0).numpy(), row, atol=1e-5)
    assert left.digest() != right.digest()


def test_a_row_of_a_decoder_depends_on_its_text_alone_bit_by_bit(folder: Path) -> None:
    made = encoder(folder)
    whole = dict(zip(TEXTS, made.encode(TEXTS), strict=True))
    for text in TEXTS:
        assert (made.encode([text])[0] == whole[text]).all()


def test_kinds_and_poolings(tmp_path: Path) -> None:
    from transformers import DistilBertConfig, DistilBertModel

    llm = tb.open_backbone(str(save_tiny_llm(tmp_path / "llm"))).model
    bert = tb.open_backbone(str(write_tiny_bert(tmp_path / "bert"))).model
    other = DistilBertModel(
        DistilBertConfig(vocab_size=40, dim=16, n_layers=2, n_heads=2, hidden_dim=16)
    ).eval()
    kinds = [(llm, DecoderNetwork, "last"), (bert, BertNetwork, "mean"), (other, WholeNetwork, "mean")]
    for model, kind, pooling in kinds:
        network = network_of(model)
        assert (type(network), network.pooling) == (kind, pooling)
    assert network_of(llm, "mean").pooling == "mean"
    ids, mask = torch.tensor([[3, 4, 0], [5, 6, 7]]), torch.tensor([[True, True, False], [True, True, True]])
    whole = network_of(other)
    with torch.inference_mode():
        got = whole.pool(whole.run(whole.layers, whole.embed(ids), mask), mask)
        alone = other(input_ids=ids[:1, :2]).last_hidden_state.mean(dim=1)
    torch.testing.assert_close(got[:1], torch.nn.functional.normalize(alone, dim=1), atol=1e-5, rtol=1e-5)
    with pytest.raises(tb.BackboneError, match="same vectors padded left and right"):
        network_of(bert, padding_side="left")
    with pytest.raises(tb.BackboneError, match="arrived a 'distilbert' model"):
        network_of(other, padding_side="left")


@pytest.mark.parametrize("family", sorted(WHOLE_FAMILIES))
def test_a_decoder_that_layers_alone_would_get_wrong_is_run_whole_and_pooled_at_its_last_token(
    tmp_path: Path, family: str
) -> None:
    model = tb.open_backbone(str(save_tiny_llm(tmp_path / "llm", family))).model
    network = network_of(model)
    assert (type(network), network.pooling) == (WholeNetwork, "last")
    assert network_of(model, "mean").pooling == "mean"
    made = encoder(tmp_path / "llm")
    assert made.digest() == encoder(tmp_path / "llm", pooling="last").digest()
    assert made.digest() != encoder(tmp_path / "llm", pooling="mean").digest()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> GroundingConfig:
    folder = save_tiny_llm(tmp_path_factory.mktemp("llm"), words=" ".join(Catalog.frame["text"].to_list()))
    return GroundingConfig(
        backbone=str(folder), text_dim=8, pad_buckets=(8, 12), lora_layers=1, lora_rank=2, lora_alpha=6,
        lora_targets=("q_proj", "v_proj", "down_proj"), train_steps=12, head_steps=40, batch_size=24, learning_rate=2e-2,
        head_learning_rate=2e-2, view_weights={"collaborative": 0.7, "search": 0.3}, holdout_share=0.1,
    )  # fmt: skip


def test_a_decoder_is_trained_and_comes_back_bit_by_bit_without_its_weights(
    config: GroundingConfig, tmp_path: Path
) -> None:
    trained = train_grounded_encoder(*world(), config, seed=4)
    figures = trained.summary()
    assert figures["lora_contrastive_last"] < figures["head_contrastive_first"]
    layers = {name.split("layers.")[1].split(".")[0] for name in trained.adapter.tensors}
    assert layers == {"1"}  # the top one of two
    trained.save(tmp_path)
    assert not list(tmp_path.glob("model/*.safetensors"))
    again = GroundedEncoder.load(tmp_path)
    texts = Catalog.frame["text"].to_list()
    assert again.digest() == trained.digest()
    assert (again.encode(texts) == trained.encode(texts)).all()
    assert not np.allclose(untrained_encoder(config).encode(texts) @ again.weight.T, again.encode(texts))


def test_an_encoder_refuses_other_weights_under_the_same_name(tmp_path: Path) -> None:
    folder = save_tiny_llm(tmp_path / "llm", seed=0)
    opened = tb.open_backbone(str(folder))
    made = GroundedEncoder(
        opened.model, opened.files, np.eye(24), np.zeros(24), pad_buckets=(8,), adapter=Adapter({}, {}), source=opened.source
    )  # fmt: skip
    (tmp_path / "saved").mkdir()
    made.save(tmp_path / "saved")
    save_tiny_llm(folder, seed=1)
    with pytest.raises(ArtifactError, match="materialize grounded_encoder again"):
        GroundedEncoder.load(tmp_path / "saved")


def test_targets_that_the_backbone_lacks_are_named(config: GroundingConfig) -> None:
    with pytest.raises(ValueError, match=r"lora_targets names \['query'\].*'q_proj'"):
        train_grounded_encoder(*world(), config.model_copy(update={"lora_targets": ("query",)}), seed=4)


def test_a_model_that_is_only_run_whole_is_trained_too(config: GroundingConfig, tmp_path: Path) -> None:
    from transformers import DistilBertConfig, DistilBertModel

    folder = save_tiny_llm(tmp_path / "llm")
    DistilBertModel(
        DistilBertConfig(vocab_size=40, dim=16, n_layers=2, n_heads=2, hidden_dim=16)
    ).save_pretrained(folder)
    update = {"backbone": str(folder), "lora_targets": ("q_lin", "v_lin"), "train_steps": 3}
    trained = train_grounded_encoder(*world(), config.model_copy(update=update), seed=4)
    assert {name.split("layer.")[1].split(".")[0] for name in trained.adapter.tensors} == {"0", "1"}
    (tmp_path / "saved").mkdir()
    trained.save(tmp_path / "saved")
    again = GroundedEncoder.load(tmp_path / "saved")
    assert (again.encode(TEXTS) == trained.encode(TEXTS)).all()


def test_special_tokens_of_a_text_are_letters_and_the_models_own_stay() -> None:
    tokenizer = tb.make_tokenizer(tb.read_tokenizer_files(minilm_folder()), 32)
    first, *typed, last = tokenizer.encode("[MASK] [SEP] hello").ids
    assert (first, last) == (101, 102)  # [CLS], [SEP]
    assert typed[-1] == 7592
    assert not {100, 101, 102, 103} & set(typed)
