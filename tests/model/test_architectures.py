"""Tiny checkpoints of many architectures: read right where they can be, refused early and clearly where they cannot."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sigma_core.config import GroundingConfig, ModelConfig
from sigma_core.grounding import text_backbone as tb
from sigma_core.grounding.text_network import network_of
from sigma_core.grounding.train import untrained_encoder
from sigma_core.model.backbone import build_backbone
from sigma_core.model.words import words_of
from sigma_core.pretrained import PretrainedError, find_pretrained
from sigma_core.pretrained_checks import check_backbone, check_text_model
from tests.model.tiny_llm import save_tiny_llm, save_tiny_model
from tests.model_world import assert_batch_is_as_each_alone, tiny_user, tiny_world

FULL = {"layer_types": ["full_attention"] * 2}
TREE_READERS: dict[str, dict[str, Any]] = {
    "Qwen2ForCausalLM": {},  # biases in its attention
    "GemmaForCausalLM": {"head_dim": 8},  # scales its words
    "Gemma3ForCausalLM": {"head_dim": 8, **FULL},
    "MistralForCausalLM": {"sliding_window": None},
    "Olmo2ForCausalLM": {},
    "GraniteForCausalLM": {"embedding_multiplier": 12.0, "attention_multiplier": 0.5},
    "SmolLM3ForCausalLM": {"no_rope_layers": [1, 0]},
}
TEXT_READERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Gemma2ForCausalLM": ("last", {"head_dim": 8, "sliding_window": 4}),  # caps its scores, so it has no sdpa
    "BertForMaskedLM": ("mean", {}),  # its weights have a prefix, as those of bert-base-uncased
    "MPNetModel": ("mean", {"pad_token_id": 1}),  # no sdpa; all-mpnet-base-v2
    "XLMRobertaForMaskedLM": ("mean", {"pad_token_id": 1}),  # no pooler in its files; multilingual e5
    "ModernBertModel": ("mean", {"local_attention": 4, "global_attn_every_n_layers": 2}),
    "Qwen3ForCausalLM": ("last", {"head_dim": 8}),
}
TEXTS = ["soda", "red tea", "fresh bread cheese of the apple", "milk"]


def load_model(name: str) -> object:
    return find_pretrained(name).load()


def grounding(folder: Path, **options: Any) -> GroundingConfig:
    given = {"text_dim": 8, "pad_buckets": (4, 8), "lora_targets": ("q_proj",), **options}
    return GroundingConfig(backbone=str(folder), **given)


@pytest.mark.parametrize("name", sorted(TREE_READERS))
def test_a_decoder_reads_its_own_words_and_answers_a_batch_as_each_alone(tmp_path: Path, name: str) -> None:
    folder = save_tiny_model(tmp_path / "llm", name, **TREE_READERS[name])
    check_backbone(ModelConfig(backbone=str(folder)))
    world = tiny_world(2, backbone=str(folder))
    backbone, ids = world.model.backbone, torch.tensor([[3, 4, 5, 6]])
    with torch.inference_mode():
        told = backbone(inputs_embeds=words_of(world.model).vectors()[ids]).last_hidden_state
        torch.testing.assert_close(told, backbone(input_ids=ids).last_hidden_state)
    users = [tiny_user("a", 1, 1, 1), tiny_user("b", 2, 3, 6)]
    assert_batch_is_as_each_alone(world, users, [["x y", "soda"], ["tea"]])


@pytest.mark.parametrize("name", sorted(TEXT_READERS))
def test_a_text_model_gives_the_vectors_that_transformers_gives(tmp_path: Path, name: str) -> None:
    from transformers import AutoModel

    pooling, shape = TEXT_READERS[name]
    folder = save_tiny_model(tmp_path / "m", name, **shape)
    made = untrained_encoder(grounding(folder))
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), tb.make_tokenizer(made.tokenizer_files, 8)
    for text, row in zip(TEXTS, made.encode(TEXTS), strict=True):
        with torch.inference_mode():
            states = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
        wanted = states[-1] if pooling == "last" else states.mean(dim=0)
        np.testing.assert_allclose(row, torch.nn.functional.normalize(wanted, dim=0), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "shape", "why"),
    [
        ("T5Model", {}, "encoder-decoder"),
        ("Phi3ForCausalLM", {}, "no layers named"),
        ("GPT2LMHeadModel", {}, "not rotary"),
        ("Gemma2ForCausalLM", {"head_dim": 8}, "sliding_attention"),
        ("EuroBertModel", {}, "no keys and values"),
    ],
)
def test_a_backbone_that_cannot_work_is_refused_before_any_weights_are_read(
    tmp_path: Path, name: str, shape: dict[str, Any], why: str
) -> None:
    folder = save_tiny_model(tmp_path / "m", name, **shape)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(PretrainedError, match=why):
        check_backbone(ModelConfig(backbone=str(folder)))


def test_settings_of_grounding_that_the_model_cannot_follow_are_refused_before_any_weights_are_read(
    tmp_path: Path,
) -> None:
    folder = save_tiny_model(tmp_path / "m", "XLMRobertaModel", pad_token_id=1, max_position_embeddings=20)
    (folder / "model.safetensors").write_bytes(b"")
    fits = {"lora_targets": ("query",), "pad_buckets": (18,)}  # two of its 20 positions are not for tokens
    check_text_model(grounding(folder, **fits))
    wrong = {"pad_buckets": (19,), "lora_targets": ("c_attn",), "text_dim": 25, "lora_layers": 3}
    for key, value in wrong.items():
        with pytest.raises(ValueError, match=rf"grounding\.{key}"):
            check_text_model(grounding(folder, **{**fits, key: value}))
    for name in ("T5Model", "ViTModel"):
        with pytest.raises(PretrainedError, match=r"needed an encoder|no text model\."):
            check_text_model(grounding(save_tiny_model(tmp_path / name, name)))


def test_a_tokenizer_that_is_missing_or_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_llm(tmp_path / "llm")
    file = folder / "tokenizer.json"
    values = json.loads(file.read_text())
    values["model"]["vocab"]["more"] = 400
    file.write_text(json.dumps(values))
    with pytest.raises(PretrainedError, match="gives token 400, the model has embeddings of 34"):
        check_text_model(grounding(folder))
    file.unlink()
    (folder / "tokenizer_config.json").unlink()
    other = folder.rename(tmp_path / "without")  # tokenizers are remembered by folder
    with pytest.raises(PretrainedError, match=r"needed its tokenizer\.json"):
        untrained_encoder(grounding(other))


def test_cls_pooling_is_read_from_the_folder_or_set(tmp_path: Path) -> None:
    """bge and arctic were trained with the state of their first token."""
    folder = save_tiny_model(tmp_path / "bge", "BertModel")
    mean = untrained_encoder(grounding(folder))
    (folder / "1_Pooling").mkdir()
    told = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(told))
    cls = untrained_encoder(grounding(folder))
    assert cls.digest() == untrained_encoder(grounding(folder, pooling="cls")).digest() != mean.digest()
    assert untrained_encoder(grounding(folder, pooling="mean")).digest() != cls.digest()
    with torch.inference_mode():
        ids = torch.tensor([tb.make_tokenizer(cls.tokenizer_files, 8).encode("red tea").ids])
        first = cls.model(input_ids=ids).last_hidden_state[0, 0]
    np.testing.assert_allclose(
        cls.encode(["red tea"])[0], torch.nn.functional.normalize(first, dim=0), atol=1e-5
    )


def test_lora_goes_into_gpt2s_flipped_layers(tmp_path: Path) -> None:
    from sigma_core.pretrained import merge_lora

    model = tb.open_backbone(str(save_tiny_llm(tmp_path / "gpt2", "gpt2"))).model
    before = model.h[1].attn.c_attn.weight.clone()
    start = "base_model.model.h.1.attn.c_attn.lora_"
    low, high = np.ones((1, 24), np.float32), np.arange(72, dtype=np.float32)[:, None]
    merge_lora(
        model, {f"{start}A.weight": low, f"{start}B.weight": high}, {"lora_alpha": 2, "r": 1}
    )  # in 24, out 72
    torch.testing.assert_close(
        model.h[1].attn.c_attn.weight - before, 2 * torch.arange(72.0).expand(24, 72), atol=1e-4, rtol=1e-4
    )


def test_an_encoder_decoder_is_no_text_model(tmp_path: Path) -> None:
    model = find_pretrained(str(save_tiny_model(tmp_path / "t5", "T5Model"))).load()
    with pytest.raises(tb.BackboneError, match="encoder-decoder"):
        network_of(model)


# ------------------------------------------------------------------------------------- files
def test_missing_weights_are_refused_not_made_up(tmp_path: Path) -> None:
    folder = save_tiny_llm(tmp_path / "llm")
    weights = load_file(folder / "model.safetensors")
    upper = {name for name in weights if "layers.1" in name}
    save_file(
        {n: t for n, t in weights.items() if n not in upper}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(PretrainedError, match=rf"no weights for {len(upper)} tensors"):
        build_backbone(ModelConfig(backbone=str(folder)))
    with pytest.raises(PretrainedError, match=r"no weights for .* would be random"):
        find_pretrained(str(folder)).load_chat()


def test_damaged_and_foreign_files_are_told_apart(tmp_path: Path) -> None:
    folder = save_tiny_llm(tmp_path / "llm")
    config, weights = folder / "config.json", folder / "model.safetensors"
    whole, plain = weights.read_bytes(), json.loads(config.read_text())

    def arrives(match: str, load: bool = False, **values: Any) -> None:
        config.write_text(json.dumps({**plain, **values}))
        moved = folder.rename(
            tmp_path / f"as{len(list(tmp_path.iterdir()))}"
        )  # configurations are remembered
        with pytest.raises(PretrainedError, match=match):
            (load_model if load else find_pretrained)(str(moved))
        moved.rename(folder)

    arrives("quantised with 'gptq'", quantization_config={"quant_method": "gptq", "bits": 4})
    own = {"AutoConfig": "mine.C", "AutoModel": "mine.M"}
    (folder / "mine.py").write_text("raise SystemExit('never')")
    arrives("its own code .* never run", load=True, model_type="mine", auto_map=own)
    arrives("of no architecture that can be read", load=True, model_type="qwen99")
    arrives("other shapes than its config", load=True, intermediate_size=44)
    weights.write_bytes(whole[: len(whole) // 2])
    arrives("cannot be loaded", load=True)
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    weights.rename(folder / "model-1-of-2.safetensors")
    torch.save({}, folder / "pytorch_model.bin")
    arrives("neither model.safetensors nor model.safetensors.index.json")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    arrives("lacks 1 of 2 files of weights, such as model-2-of-2")
    (folder / "adapter_config.json").write_text("{}")
    arrives("holds an adapter")


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    for name in ("./models/qwen3", "~/qwen3", str(tmp_path / "no")):
        with pytest.raises(PretrainedError, match="there is no such folder"):
            find_pretrained(name)
    with pytest.raises(PretrainedError, match=r"Did you mean qwen3-0\.6b"):
        find_pretrained("Qwen3-0.6")
    with pytest.raises(PretrainedError, match="hf download some/one --revision abc"):
        find_pretrained("some/one@abc")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(PretrainedError, match="is a file; needed the transformers folder"):
        find_pretrained(str(tmp_path / "model.safetensors"))
