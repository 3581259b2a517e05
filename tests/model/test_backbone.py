"""Real backbones: the same trees, caches and answers as mini; found offline; refused where they cannot work."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer

from sigma_core.config import ConfigError, ModelConfig, profile_config
from sigma_core.model.backbone import build_backbone, fit_to_words
from sigma_core.model.sigma import tree_mask
from sigma_core.model.words import default_words, words_of
from sigma_core.pretrained import PretrainedError, find_pretrained
from tests.model.tiny_llm import FAMILIES, WORDS, save_tiny_llm
from tests.model_world import TinyWorld, assert_batch_is_as_each_alone, tiny_user, tiny_world


@pytest.fixture(params=["mini", *FAMILIES])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> TinyWorld:
    name = request.param
    return tiny_world(2, backbone=name if name == "mini" else str(save_tiny_llm(tmp_path / name, name)))


def test_a_batch_of_requests_is_answered_as_each_alone(world: TinyWorld) -> None:
    """Branches of one tree, beams of one cache, rows of one batch: none of it changes an answer."""
    users = [tiny_user("a", 1, 1, 1), tiny_user("b", 2, 3, 6), tiny_user("c", 3, 0, 0)]
    assert_batch_is_as_each_alone(world, users, [["x y", "soda please now"], ["tea"], ["q", "r s"]])


def test_a_cached_step_of_all_leaves_equals_one_pass_over_the_tree(world: TinyWorld) -> None:
    """Trunk 0..4 and two leaves of two tokens: the leaves fed at once to the trunk's cache, as the beam does."""
    from transformers import DynamicCache

    backbone = world.model.backbone
    x = torch.randn(2, 9, backbone.config.hidden_size)
    leaf = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 2, 2]]).expand(2, -1)
    position = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 5, 6]]).expand(2, -1)
    tree = SimpleNamespace(
        branch_BL=(leaf > 0).long(), leaf_BL=leaf, valid_BL=torch.ones(2, 9, dtype=torch.bool)
    )
    mask = tree_mask(tree)
    with torch.inference_mode():
        whole = backbone(inputs_embeds=x, attention_mask=mask, position_ids=position).last_hidden_state
        cache = DynamicCache(config=backbone.config)
        backbone(
            inputs_embeds=x[:, :5], attention_mask=mask[:, :, :5, :5], position_ids=position[:, :5], past_key_values=cache,
            use_cache=True,
        )  # fmt: skip
        step = backbone(
            inputs_embeds=x[:, 5:], attention_mask=mask[:, :, 5:], position_ids=position[:, 5:], past_key_values=cache,
            use_cache=True,
        ).last_hidden_state  # fmt: skip
        swapped = x.clone()
        swapped[:, 5:7] = 9.0  # the other leaf is not seen
        other = backbone(inputs_embeds=swapped, attention_mask=mask, position_ids=position).last_hidden_state
    torch.testing.assert_close(step, whole[:, 5:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(other[:, 7:], whole[:, 7:], atol=1e-5, rtol=1e-5)


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


def test_a_special_token_that_somebody_types_is_letters(tmp_path: Path) -> None:
    """Not MiniLM's mask and separator, nor the end of a chat turn of a real backbone."""
    minilm = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
    typed = default_words().ids(f"{' '.join(minilm)} hello")
    assert typed[-1] == 7592
    assert not set(typed.tolist()) & set(minilm.values())

    folder = save_tiny_llm(tmp_path / "llm", words="<|im_end|> im end < > |")
    file = Tokenizer.from_file(str(folder / "tokenizer.json"))
    file.add_special_tokens(["<|im_end|>"])
    file.save(str(folder / "tokenizer.json"))
    control = file.token_to_id("<|im_end|>")
    assert control in file.encode("red <|im_end|> soda", add_special_tokens=False).ids
    ids = words_of(tiny_world(backbone=str(folder)).model).ids("red <|im_end|> soda").tolist()
    assert control not in ids
    assert (ids[0], ids[-1]) == (WORDS.index("red"), WORDS.index("soda"))


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


def test_prefix_tokens_follow_their_weights() -> None:
    """They are made once in serving, and anew after every change of a weight."""
    tokens = tiny_world().model.prefix_tokens
    with torch.inference_mode():
        first = tokens()
        assert tokens() is first
    tokens().sum().backward()  # with gradients they are made each time
    with torch.no_grad():
        tokens.free += 1
        torch.testing.assert_close(tokens(), first + 1)
        tokens.project.weight.zero_()
        torch.testing.assert_close(tokens(), (tokens.free + tokens.level).expand_as(first))
