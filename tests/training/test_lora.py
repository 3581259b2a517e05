"""Adapter and base: what is frozen, that merging equals peft, that loading is bit-identical, that strangers are refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sigma_core.artifacts import ArtifactError
from sigma_core.config import profile_config
from sigma_core.pretrained_checks import LORA_TARGETS
from sigma_core.training.checkpoint import LoraCheckpoint, SigmaBase, is_head, tensors_of
from sigma_core.training.lora import adapter_config, freeze_all_but_adapter
from tests.model_world import tiny_world

CONFIG = profile_config("toy", {"training": {"lora_rank": 2, "lora_alpha": 6}})


def tiny_base() -> SigmaBase:
    model = tiny_world().model
    return SigmaBase(
        tensors=tensors_of(model), bound_to="here", apf_temperature=0.01, typical_sigma=0.02, model=model.config.model_dump(mode="json"),
        shape=model.shape._asdict(), figures={"steps": 1},
    )  # fmt: skip


def trained_checkpoint(base: SigmaBase) -> tuple[LoraCheckpoint, torch.nn.Module]:
    """A checkpoint with random adapter weights, and peft's own model with the same ones."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    torch.manual_seed(0)
    model = base.build()
    wrapped = get_peft_model(model.backbone, LoraConfig(r=2, lora_alpha=6, target_modules=list(LORA_TARGETS)))
    model.backbone = wrapped
    with torch.no_grad():
        for parameter in freeze_all_but_adapter(model).values():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    adapter = {n: t.detach().numpy().copy() for n, t in get_peft_model_state_dict(wrapped).items()}
    heads = {n: p.detach().numpy().copy() for n, p in model.named_parameters() if is_head(n)}
    return (
        LoraCheckpoint(
            tensors=adapter | heads, bound_to="here", apf_temperature=0.02, typical_sigma=0.02, base_digest=base.digest(),
            adapter_config=adapter_config(CONFIG), figures={"steps": 2},
        ),
        model,
    )  # fmt: skip


def test_only_adapter_and_heads_are_trained() -> None:
    base = tiny_base()
    _, model = trained_checkpoint(base)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any("lora_A" in name for name in trained)
    assert all("lora_" in name or is_head(name) for name in trained)
    assert not any(name.startswith(("fusion", "prefix_tokens", "item_project")) for name in trained)


def test_our_merge_equals_what_peft_computes() -> None:
    base = tiny_base()
    checkpoint, with_peft = trained_checkpoint(base)
    merged = checkpoint.build(base)
    x = torch.randn(2, 5, 16)
    with torch.inference_mode():
        expected = with_peft.eval().backbone(inputs_embeds=x).last_hidden_state
        torch.testing.assert_close(
            merged.backbone(inputs_embeds=x).last_hidden_state, expected, atol=1e-5, rtol=1e-5
        )


def test_peft_itself_can_open_the_adapter_directory(tmp_path: Path) -> None:
    from peft import PeftModel

    base = tiny_base()
    checkpoint, with_peft = trained_checkpoint(base)
    checkpoint.save(tmp_path)
    opened = PeftModel.from_pretrained(base.build().backbone, str(tmp_path / "adapter"))
    x = torch.randn(1, 4, 16)
    with torch.inference_mode():
        expected = with_peft.eval().backbone(inputs_embeds=x).last_hidden_state
        torch.testing.assert_close(
            opened.eval()(inputs_embeds=x).last_hidden_state, expected, atol=1e-6, rtol=1e-5
        )


def test_artifacts_survive_the_disk_bit_by_bit(tmp_path: Path) -> None:
    base = tiny_base()
    checkpoint, _ = trained_checkpoint(base)
    without = checkpoint.digest()
    checkpoint.catalog_weight = 0.25
    assert checkpoint.digest() != without
    for number, artifact in enumerate((base, checkpoint)):
        folder = tmp_path / str(number)
        folder.mkdir()
        artifact.save(folder)
        again = type(artifact).load(folder)
        assert again.digest() == artifact.digest()
        assert again.catalog_weight == artifact.catalog_weight
        assert all(np.array_equal(again.tensors[name], array) for name, array in artifact.tensors.items())


def test_a_checkpoint_refuses_another_base_and_other_codebooks() -> None:
    base = tiny_base()
    checkpoint, _ = trained_checkpoint(base)
    other = tiny_base()
    other.tensors["specials"] = other.tensors["specials"] + 1
    with pytest.raises(ArtifactError, match="Materialize lora_checkpoint"):
        checkpoint.build(other)
    with pytest.raises(ArtifactError, match="encoder and codebooks"):
        checkpoint.check_bound("elsewhere", "item_index")
