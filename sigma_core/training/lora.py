"""The day's LoRA adapter: low-rank corrections of the backbone, and the heads, trained on the last weeks' shards.

The base stays frozen, so do fusion and prefix tokens: vectors and tokens mean the same all month. peft comes in with
`adapters.py` and is nowhere on the way to a recommendation. Source: paper, multi-task SFT; two speeds of training are our choice.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sigma_core.training.adapters import adapter_config, adapter_tensors, attach_adapter
from sigma_core.training.batches import build_training_set
from sigma_core.training.checkpoint import LoraCheckpoint, SigmaBase, compatibility, is_head
from sigma_core.training.loop import run_steps
from sigma_core.training.probe import probe_figures, probe_loss, run_probe, split_probe
from sigma_core.training.sft import make_trainer

if TYPE_CHECKING:
    from sigma_core.config import SigmaConfig
    from sigma_core.grounding.encoder import GroundedEncoder
    from sigma_core.instruction.shards import SftShard
    from sigma_core.tokenization.codebooks import Codebooks
    from sigma_core.tokenization.item_features import ItemFeatures
    from sigma_core.tracking import Progress, Tracker


def train_lora(
    base: SigmaBase,
    shards: Sequence["SftShard"],
    features: "ItemFeatures",
    codebooks: "Codebooks",
    encoder: "GroundedEncoder",
    config: "SigmaConfig",
    tracker: "Tracker",
    progress: "Progress",
) -> LoraCheckpoint:
    """The checkpoint of a day, with its loss on held-out users beside the base's.

    Raises:
        ArtifactError: the base belongs to another encoder or other codebooks.
        ValueError: the shards hold no usable example.
    """
    import torch

    bound = compatibility(codebooks, encoder)
    base.check_bound(bound, "this month")
    torch.set_num_threads(config.runtime.threads)
    torch.manual_seed(config.runtime.seed + 1)
    data, probe_data = split_probe(build_training_set(shards, features.item_ids, features.folded))
    trainer = make_trainer(base.build(), features, data, probe_data, encoder, config)
    before = probe_loss(trainer, probe_data, features.prefix, config.runtime.seed)
    settings = config.training
    attach_adapter(trainer.model, config)
    parameters = freeze_all_but_adapter(trainer.model)
    figures = run_steps(
        trainer, data, features.prefix, parameters, steps=settings.lora_steps, peak=settings.lora_learning_rate,
        seed=config.runtime.seed + 1, tracker=tracker, progress=progress, label="lora_checkpoint",
    )  # fmt: skip
    after = run_probe(trainer, probe_data, features.prefix, config.runtime.seed)
    figures |= {
        "base_compatible": True,
        **probe_figures(after, before, is_held_out=probe_data is not data),
    }
    heads = {n: p.detach().cpu().numpy().copy() for n, p in trainer.model.named_parameters() if is_head(n)}
    return LoraCheckpoint(
        tensors={**adapter_tensors(trainer.model), **dict(sorted(heads.items()))},
        bound_to=bound,
        apf_temperature=after.typical_sigma * config.model.temperature / after.sharpening,
        typical_sigma=after.typical_sigma,
        catalog_weight=after.catalog_weight,
        figures=figures,
        base_digest=base.digest(),
        adapter_config=adapter_config(config),
    )


def freeze_all_but_adapter(model: Any) -> dict[str, Any]:
    """Only LoRA factors and heads keep gradients; returns them by name."""
    chosen = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name or is_head(name))
        if parameter.requires_grad:
            chosen[name] = parameter
    return chosen
