"""What trains and answers, walked on a device that is pretended: nothing lies on the wrong side, and answers are the CPU's.

A tensor that stayed on the CPU, a numpy conversion without `.cpu()`, and what CUDA refuses while trainings shall repeat bit by bit
fail here by name (`device`). Errors about a device that is not there stand in `tests/test_devices.py`. Run by
`test_pretended_device.py` in a process of its own: a device of torch stays for as long as its process lives.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from sigma_core.config import profile_config
from sigma_core.generation.explain import explain, nearest_history, with_settings
from sigma_core.generation.recommender import Ask, ItemTable, Recommendation, Recommender
from sigma_core.grounding.encoder import GroundedEncoder
from sigma_core.grounding.train import train_grounded_encoder
from sigma_core.instruction.collate import Request
from sigma_core.model.heads import Activity, ItemTensors
from sigma_core.repeatable import repeatable
from sigma_core.serving.engine import Engine
from sigma_core.serving.http.schemas import RecommendRequest
from sigma_core.serving.item_index import build_item_index
from sigma_core.serving.live import LiveDay
from sigma_core.serving.runtime import Wish
from sigma_core.serving.session_cache import SessionCache
from sigma_core.tracking import NullTracker, no_progress
from sigma_core.training import probe
from sigma_core.training.checkpoint import LoraCheckpoint, SigmaBase
from sigma_core.training.lora import train_lora
from sigma_core.training.sft import train_base
from tests.grounding.test_train import world as grounding_world
from tests.grounding.tiny_bert import write_tiny_bert
from tests.instruction.small_world import small_catalog
from tests.model.tiny_llm import save_tiny_llm
from tests.model_world import TinyWorld, tiny_user, tiny_world
from tests.pretended.device import NAME, CrossingError, PretendTensor, on_device
from tests.serving.live_world import live_day
from tests.serving.test_beam_memory import ITEMS, USERS, lists
from tests.training.small_training import HashEncoder, small_features, small_shards, training_config


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def moved(part: Any) -> Any:
    """A named tuple of tensors, on the device."""
    return type(part)(*(tensor.to(NAME) for tensor in part))


def device_twin(world: TinyWorld) -> Recommender:
    """The world's recommender with everything on the device. The model itself moves: ask the world first."""
    old, items = world.recommender, world.table
    assert items.text_group_N is not None
    table = ItemTable(
        cast(ItemTensors, moved(items.tensors)),
        cast(Activity, moved(items.activity)),
        items.text_group_N.to(NAME),
    )
    return Recommender(
        world.model.to(NAME), table, world.collator, old.lexical.to(NAME), old.config,
        old.apf_temperature, old.typical_sigma,
    )  # fmt: skip


def told(answers: Sequence[Sequence[Recommendation]]) -> list[list[tuple[int, float]]]:
    return [[(found.row, round(found.score, 3)) for found in one] for one in answers]


# ------------------------------------------------------------------------------------ the device
def test_the_device_refuses_what_a_gpu_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    there, here = torch.arange(3.0, device=NAME), torch.arange(3.0)
    assert isinstance(there, PretendTensor)
    assert torch.equal((there[torch.tensor([0, 2])] + torch.tensor(1.0)).cpu(), torch.tensor([1.0, 3.0]))
    for wrong in (
        lambda: there + here, lambda: here[torch.arange(2, device=NAME)], lambda: torch.cat((here, there)),
        lambda: here.add_(there), lambda: there.numpy(), lambda: np.asarray(there),
    ):  # fmt: skip
        with pytest.raises(CrossingError):
            wrong()
    with repeatable(True):
        for unrepeatable in (
            lambda: there.cumsum(0),
            lambda: there[None].median(dim=1),
            lambda: there[None] @ there,
        ):
            with pytest.raises(CrossingError):
                unrepeatable()


# --------------------------------------------------------------------------------------- training
@pytest.fixture(autouse=True)
def short_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"PROBE_STEPS": 1, "BEAM_STEPS": 1, "SHARPENINGS": (1.0,), "CATALOG_WEIGHTS": (0.0, 0.5)}
    for name, value in few.items():
        monkeypatch.setattr(probe, name, value)


def trained(backbone: str, device: bool, **training: Any) -> tuple[SigmaBase, LoraCheckpoint]:
    config = training_config(
        backbone, base_steps=1, lora_steps=1, contexts_per_batch=2, branches_per_context=2, **training
    )
    features, codebooks = small_features(2)
    wanted = on_device(config) if device else config
    given = (list(small_shards()), features, codebooks, HashEncoder(), wanted, NullTracker(), no_progress)
    with repeatable(True):
        base = train_base(*given)  # type: ignore[arg-type]
        return base, train_lora(base, *given)  # type: ignore[arg-type]


def near(one: SigmaBase | LoraCheckpoint, other: SigmaBase | LoraCheckpoint, close: float) -> None:
    """The same tensors up to rounding, and the same losses."""
    assert one.tensors.keys() == other.tensors.keys()
    for name, array in one.tensors.items():
        np.testing.assert_allclose(array, other.tensors[name], atol=close, err_msg=name)
    assert one.figures["loss_last"] == pytest.approx(other.figures["loss_last"], rel=1e-3)
    assert one.figures["probe_loss"] == pytest.approx(other.figures["probe_loss"], rel=1e-2)


def test_base_adapter_and_probe_of_the_mini_backbone_are_trained_there_as_on_the_cpu() -> None:
    here, there = trained("mini", device=False), trained("mini", device=True)
    for one, other in zip(here, there, strict=True):
        near(one, other, close=2e-3)  # AdamW makes a step of rounding where a gradient is all but zero


def test_every_loss_of_an_llm_is_computed_there_in_bfloat16_too(tmp_path: Path) -> None:
    settings = {
        "weight_dense": 0.1, "weight_item_text": 0.5, "catalog_negatives": 4, "vector_dropout": 0.2,
        "alignment_share": 0.25, "dtype": "bfloat16",
    }  # fmt: skip
    base, lora = trained(str(save_tiny_llm(tmp_path / "qwen3")), device=True, **settings)
    assert {"catalog_last", "dense_last", "item_text_last"} <= base.figures.keys()
    assert all(np.isfinite(array).all() for array in (base.tensors | lora.tensors).values())
    for artifact, name in ((base, "base"), (lora, "lora")):
        (tmp_path / name).mkdir()
        artifact.save(tmp_path / name)
        assert type(artifact).load(tmp_path / name).digest() == artifact.digest()


# ---------------------------------------------------------------------------------------- answers
ASKS = [
    [Ask(Request("soda please", "soda")), Ask(Request("anything"), np.array([0, 1, 5]))],
    [Ask(Request("tea now", "tea"), np.arange(12))],
]
PEOPLE = [tiny_user("a", 1), tiny_user("b", 2, recents=4)]


@pytest.mark.parametrize(("family", "prefix_length"), [("mini", 2), ("qwen3", 1), ("other", 2)])
def test_lists_made_there_are_those_of_the_cpu(
    family: str, prefix_length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = "mini" if family == "mini" else str(save_tiny_llm(tmp_path / "llm"))
    if family == "other":  # a decoder whose layers are not known runs by transformers' cache
        monkeypatch.setattr("sigma_core.generation.recommender.is_known", lambda _: False)
    world = tiny_world(prefix_length, backbone=backbone, prefix_mass=0.8)
    world.recommender.catalog_weight = 0.25
    want = told(world.recommender.rank(PEOPLE, ASKS, world.focus, 6, collapse=True))
    twin = device_twin(world)
    twin.catalog_weight = 0.25
    assert told(twin.rank(PEOPLE, ASKS, world.focus, 6, collapse=True)) == want
    fewer = with_settings(twin, num_prefixes=2, items_per_prefix=3, temperature=1.5)
    with torch.inference_mode():
        found, eligible = fewer.search(PEOPLE, ASKS, world.focus)
        assert len(explain(fewer, found, eligible)) == 3
    assert nearest_history(twin, [1, 2], [3, 4]).keys() == {1, 2}


def test_step_one_is_kept_and_used_again_there(tmp_path: Path) -> None:
    world = tiny_world()
    want, _ = lists(world.recommender, ITEMS, USERS, tmp_path / "cpu.safetensors")
    twin = device_twin(world)
    first, _ = lists(twin, ITEMS, USERS, tmp_path / "beams.safetensors")
    again, memory = lists(twin, ITEMS, USERS, tmp_path / "beams.safetensors")
    assert told(first) == told(want)
    assert again == first
    assert memory.searched == 0


def served(live: LiveDay) -> list[Any]:
    """Lists of the API and of a notebook, with the steps behind them."""
    live.loaded.engine.focus = live.focus  # type: ignore[method-assign, assignment]
    asked = [{"query": "soda", "explain": True}, {"filters": {"categories": ["coffee"]}}, {"user_id": "u0"}]
    found = live.answer([live.prepare(RecommendRequest(n=5, **one)) for one in asked])
    rows = live.loaded.answer(None, Wish(query="soda", explain=True)).rows
    return [told([one.ranked]) for one in found] + [
        [(row["item_id"], round(row["score"], 3)) for row in rows]
    ]


def test_a_served_day_answers_there_and_keeps_no_states_of_users() -> None:
    live = live_day()
    live.engine.recommender = device_twin(tiny_world(1, 23))
    live.open_session(SessionCache("model-1", 1.0))
    assert served(live) == served(live_day())
    assert live.sessions is not None
    assert len(live.sessions) == 0


def test_an_engine_loads_artifacts_to_the_device_of_the_settings() -> None:
    base, lora = trained("mini", device=False)
    features, _ = small_features(2)
    catalog, index = small_catalog(), build_item_index(base, lora, features)
    encoder = cast(GroundedEncoder, HashEncoder())
    config = training_config("mini")
    engines = [Engine(base, lora, index, catalog, encoder, c) for c in (config, on_device(config))]
    assert [engine.recommender.device.type for engine in engines] == ["cpu", NAME]
    people = [tiny_user("a", 3, num_items=len(index.item_ids))]
    answers = [engine.rank(people, [[Ask(Request("soda", "soda"))]], 5, collapse=True) for engine in engines]
    assert told(answers[0]) == told(answers[1])


# -------------------------------------------------------------------------------------- grounding
@pytest.mark.parametrize("cached", [None, 8])
def test_the_encoder_is_trained_there_and_comes_back_to_the_cpu(cached: int | None, tmp_path: Path) -> None:
    settings = {
        "backbone": str(write_tiny_bert(tmp_path)), "text_dim": 8, "pad_buckets": (8, 12), "lora_layers": 1,
        "lora_rank": 2, "train_steps": 3, "head_steps": 4, "batch_size": 12, "holdout_share": 0.1,
        "view_weights": {"collaborative": 0.7, "search": 0.3}, "cached_texts": cached,
    }  # fmt: skip
    config = profile_config("toy", {"grounding": settings}).grounding
    with repeatable(True):
        here, there = (
            train_grounded_encoder(*grounding_world(), config, seed=4, device=device)  # type: ignore[arg-type]
            for device in ("cpu", NAME)
        )
    texts = ["cola , 8 oz", "tea", "dark chocolate"]
    want = here.encode(texts)
    np.testing.assert_allclose(there.encode(texts), want, atol=1e-4)
    digest = here.digest()
    np.testing.assert_allclose(here.to(NAME).encode(texts), want, atol=1e-6)
    here._digest = None
    assert here.digest() == digest, "wherever the model lies"
    (tmp_path / "saved").mkdir()
    here.save(tmp_path / "saved")
    assert GroundedEncoder.load(tmp_path / "saved").digest() == digest
