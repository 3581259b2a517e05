"""Real backbones: the same trees, caches and answers as mini; found offline; refused where they cannot work."""

from pathlib import Path

import pytest
import torch

from sigma_core.config import ConfigError, ModelConfig, profile_config
from sigma_core.instruction.collate import Request
from sigma_core.model.backbone import build_backbone, fit_to_words
from sigma_core.model.sigma import TensorBatch
from sigma_core.model.words import words_of
from sigma_core.pretrained import PretrainedError, find_pretrained
from tests.model.tiny_llm import FAMILIES, WORDS, save_tiny_llm
from tests.model_world import TinyWorld, tiny_user, tiny_world


@pytest.fixture(params=["mini", *FAMILIES])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> TinyWorld:
    name = request.param
    return tiny_world(2, backbone=name if name == "mini" else str(save_tiny_llm(tmp_path / name, name)))


def states_of(world: TinyWorld, requests: list[Request]) -> tuple[TensorBatch, torch.Tensor]:
    tree = world.collator([tiny_user("u", 4)], [requests])
    batch = TensorBatch(tree, torch.zeros(0, 8), torch.device("cpu"))
    return batch, world.model.read(batch, world.table.vectors_NE, world.recommender.lexical)


def test_a_branch_reads_the_same_alone_and_beside_another(world: TinyWorld) -> None:
    with torch.inference_mode():
        both, states = states_of(world, [Request("x y"), Request("q", leaves=((1, 2),))])
        alone, single = states_of(world, [Request("q", leaves=((1, 2),))])
    one, two = alone.request_start_R[0], both.request_start_R[1]
    torch.testing.assert_close(states[0, two], single[0, one], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        states[0, both.leaf_positions_MP1[0]], single[0, alone.leaf_positions_MP1[0]], atol=1e-5, rtol=1e-4
    )


def test_the_cached_beam_builds_the_queries_of_a_full_pass(world: TinyWorld) -> None:
    user, eligible = tiny_user("u", 4), torch.ones(1, len(world.table.vectors_NE), dtype=torch.bool)
    with torch.inference_mode():
        beams = world.recommender.beam([user], [[Request("x y")]], world.focus, eligible)
        leaves = tuple(tuple(p) for p in beams.prefix_RKP[0].tolist())
        batch, states = states_of(world, [Request("x y", leaves=leaves)])
        memory = world.model.memory(batch, states, world.table.vectors_NE, world.table.prefixes_NP)
        at_query = states[:, batch.leaf_positions_MP1[:, -1]]
        query = world.model.item_query(at_query, memory, batch.leaf_prefix_MP[None])
    assert len(leaves) == 3
    torch.testing.assert_close(query, beams.query_RKE, atol=1e-4, rtol=1e-3)


def test_words_are_the_backbones_own(tmp_path: Path) -> None:
    folder = save_tiny_llm(tmp_path / "llm")
    world = tiny_world(backbone=str(folder))
    words = words_of(world.model)
    assert words.ids("red soda zzz").tolist() == [
        WORDS.index("red"),
        WORDS.index("soda"),
        WORDS.index("[UNK]"),
    ]
    torch.testing.assert_close(
        words.vectors(), world.model.backbone.get_input_embeddings().weight, atol=0, rtol=0
    )
    assert isinstance(world.model.word_project, torch.nn.Identity)  # words enter unchanged
    assert not any(p.requires_grad for p in world.model.backbone.parameters())


def test_new_tokens_start_with_the_size_of_the_words(tmp_path: Path) -> None:
    world = tiny_world(backbone=str(save_tiny_llm(tmp_path / "llm")))
    model, words = world.model, words_of(world.model)
    with torch.no_grad():
        model.prefix_tokens.centroids.normal_()
    fit_to_words(model, words)
    size = words.vectors().pow(2).mean().sqrt()
    tokens = model.prefix_tokens.project(model.prefix_tokens.centroids)
    torch.testing.assert_close(tokens.pow(2).mean().sqrt(), size)
    torch.testing.assert_close(
        model.specials[3], words.vectors()[WORDS.index("task")]
    )  # TASK is described by the one word "task"


def test_loading_leaves_the_random_state_alone(tmp_path: Path) -> None:
    folder = save_tiny_llm(tmp_path / "llm")
    torch.manual_seed(3)
    expected = torch.randn(2)
    torch.manual_seed(3)
    build_backbone(ModelConfig(backbone=str(folder)))
    torch.testing.assert_close(torch.randn(2), expected, atol=0, rtol=0)


def test_the_digest_follows_the_weights_not_the_place(tmp_path: Path) -> None:
    first, again, other = (
        find_pretrained(str(save_tiny_llm(tmp_path / name, seed=seed))).digest()
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again != other


def test_a_missing_model_names_the_command_that_gets_it(tmp_path: Path) -> None:
    with pytest.raises(PretrainedError, match="hf download nobody/nothing"):
        find_pretrained("nobody/nothing")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(PretrainedError, match=r"lacks config.json or \*.safetensors"):
        find_pretrained(str(tmp_path))
    with pytest.raises(ConfigError, match=r"model.backbone"):
        profile_config("toy", {"model": {"backbone": ""}})


def test_what_cannot_read_token_trees_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel, MistralConfig, MistralModel

    small = {
        "vocab_size": 9,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    BertModel(BertConfig(**small)).save_pretrained(tmp_path / "bert")
    with pytest.raises(PretrainedError, match="positions are not rotary"):
        build_backbone(ModelConfig(backbone=str(tmp_path / "bert")))
    MistralModel(MistralConfig(**small, num_key_value_heads=2, sliding_window=4)).save_pretrained(
        tmp_path / "mistral"
    )
    with pytest.raises(PretrainedError, match="full attention"):
        build_backbone(ModelConfig(backbone=str(tmp_path / "mistral")))
