"""Multi-task SFT: trains the whole small model (`SigmaBase`) on shards, and the step both trainings share.

Holds the loss of one step and the loop. Batches are `batches.py`, the adapter of a day `lora.py`, artifacts
`checkpoint.py`. Source: paper, multi-task supervised fine-tuning; the set-valued target (every distinct item of the next
week answers) is our choice: the objective then matches the question the evaluation asks.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sigma_core.instruction.collate import Collator
from sigma_core.training.batches import StepInputs, TrainingSet, build_training_set, sample_steps

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sigma_core.config import SigmaConfig
    from sigma_core.grounding.encoder import GroundedEncoder
    from sigma_core.instruction.shards import SftShard
    from sigma_core.model.fusion import ItemStreams
    from sigma_core.model.heads import ItemTensors, Memory
    from sigma_core.model.losses import Copied
    from sigma_core.model.sigma import SigmaModel
    from sigma_core.tokenization.codebooks import Codebooks
    from sigma_core.tokenization.item_features import ItemFeatures
    from sigma_core.tracking import Tracker
    from sigma_core.training.checkpoint import SigmaBase

Progress = Callable[[int, int, str], None]


class Trainer:
    """One model, one item table, one loss. Frozen inputs are moved to the device once."""

    def __init__(
        self,
        model: "SigmaModel",
        features: "ItemFeatures",
        focus: Mapping[str, np.ndarray],
        collator: Collator,
        lexical: "Tensor",
        config: "SigmaConfig",
        counts_UNA: np.ndarray,
    ) -> None:
        import torch

        from sigma_core.model.heads import activity_tensors
        from sigma_core.model.losses import PrefixGroups
        from sigma_core.model.sigma import item_streams

        self.model, self.config, self.collator, self.focus = model, config, collator, focus
        self.device = torch.device(config.runtime.device)
        self.lexical = lexical.to(self.device)
        self.streams: ItemStreams = item_streams(features, self.device)
        self.match_NT = torch.as_tensor(features.match(), device=self.device)
        self.prefixes = torch.as_tensor(features.prefix.astype(np.int64), device=self.device)
        self.activity = activity_tensors(
            counts_UNA, features.prefix[:, 0], model.shape.codebook_size, self.device
        )
        _, group = np.unique(features.prefix, axis=0, return_inverse=True)
        self.group_of = torch.as_tensor(group.reshape(-1), device=self.device)
        self.groups: PrefixGroups = PrefixGroups.build(self.group_of)
        first = np.zeros(int(group.max()) + 1, dtype=np.int64)
        first[group.reshape(-1)] = np.arange(len(group))
        self.group_number = {tuple(features.prefix[row].tolist()): i for i, row in enumerate(first)}
        self.tokens = 0
        self.padding: list[float] = []

    def sharpness(self, prefix_probability_RK: "Tensor") -> "Tensor":
        """APF's sigma/tau of each request, tau such that the batch's typical one is 1/tau_train: vectors are trained at the
        sharpness they will be ranked with (our choice).
        """
        from sigma_core.generation.fusion import apf_sharpness, beam_sigma, typical

        generation, tau = self.config.generation, self.model.config.temperature
        sigma = beam_sigma(prefix_probability_RK, generation.sigma_top, generation.sigma_floor)
        return apf_sharpness(sigma, typical(sigma) * tau, typical(sigma), generation.sharpness_range)

    def focus_vectors(self, texts: Sequence[str]) -> "Tensor":
        """Match vectors (F, T) of a batch's focus texts."""
        import torch

        width = self.match_NT.shape[1]
        rows = [self.focus[t] for t in texts] or np.zeros((0, width), dtype=np.float32)
        return torch.as_tensor(np.asarray(rows, dtype=np.float32), device=self.device)

    def item_tensors(self) -> "ItemTensors":
        """The item table under the model's present fusion."""
        from sigma_core.model.heads import ItemTensors

        return ItemTensors(self.model.fusion(self.streams), self.match_NT, self.prefixes)

    def _matches(self, text_MVT: "Tensor", valid_MV: "Tensor", group_M: "Tensor") -> "Tensor":
        """Cosine (M, G) of each item of a leaf's group with the aspect of the request nearest to it."""
        import torch

        from sigma_core.model.losses import group_products

        aspects = [
            group_products(text_MVT[:, aspect], group_M, self.match_NT, self.groups).masked_fill(
                ~valid_MV[:, aspect, None], -2.0
            )
            for aspect in range(valid_MV.shape[1])
        ]
        return torch.stack(aspects).amax(dim=0)

    def losses(self, inputs: StepInputs) -> dict[str, "Tensor"]:
        """The step's losses by name: `ntp`, `id`, `catalog`, and their weighted sum `loss`."""
        import torch

        from sigma_core.model.heads import Slots, fit_of
        from sigma_core.model.losses import catalog_nll, group_products, in_prefix_info_nce, prefix_nll
        from sigma_core.model.sigma import TensorBatch

        model, weights = self.model, self.config.training
        tree = self.collator(inputs.users, inputs.requests)
        self.tokens += int(tree.valid_BL.sum())
        self.padding.append(tree.padding_share)
        batch = TensorBatch(tree, self.focus_vectors(tree.focus_texts), self.device)
        items = self.item_tensors()
        states = model.read(batch, items.vectors_NE, self.lexical)
        day = torch.as_tensor(inputs.days, device=self.device)
        memory = model.memory(batch, items, self.activity.item_UNS, day)

        user = batch.request_user_R
        slots = Slots(user, len(states))
        request_T = torch.as_tensor(inputs.target_request, device=self.device)
        item_T = torch.as_tensor(inputs.target_item, device=self.device)
        weight_T = torch.as_tensor(inputs.target_weight, device=self.device, dtype=torch.float32)
        start_RD = states[user, batch.request_start_R]
        start = slots.pad(start_RD)
        none = start.new_zeros(*start.shape[:2], 0, dtype=torch.long)
        focus = model.focus(batch, batch.request_focus_RV, slots, start_RD)
        scores = model.prefix_scores(start, memory, 0, none, focus, self.activity.prefix_UKS[day])
        log_probs = slots.flat(scores.log_prob_BQK)
        ntp = prefix_nll(log_probs, request_T, self.prefixes[item_T, 0], weight_T)

        leaf_request = batch.leaf_request_M
        leaf_user = user[leaf_request]
        leaf_slots = Slots(leaf_user, len(states))
        path_MP = batch.leaf_prefix_MP
        path = leaf_slots.pad(path_MP)
        leaf_focus = model.focus(
            batch, batch.request_focus_RV[leaf_request], leaf_slots, start_RD[leaf_request]
        )
        every = torch.arange(len(leaf_user), device=self.device)
        log_prob_M = log_probs[leaf_request, path_MP[:, 0]]
        copied_MJ = slots.flat(scores.copied_BQJ)[leaf_request]
        rest_M = slots.flat(scores.generated_BQK)[leaf_request, path_MP[:, 0]]
        for level in range(1, self.prefixes.shape[1]):
            state = leaf_slots.pad(states[leaf_user, batch.leaf_positions_MP1[:, level - 1]])
            scores = model.prefix_scores(state, memory, level, path, leaf_focus)
            deeper = leaf_slots.flat(scores.log_prob_BQK)
            ntp = ntp + prefix_nll(deeper, every, path_MP[:, level], torch.ones_like(every).float())
            log_prob_M, copied_MJ = deeper[every, path_MP[:, level]], leaf_slots.flat(scores.copied_BQJ)
            rest_M = leaf_slots.flat(scores.generated_BQK)[every, path_MP[:, level]]
        state = leaf_slots.pad(states[leaf_user, batch.leaf_positions_MP1[:, -1]])
        ranking = model.item_scores(state, memory, path, leaf_focus)
        query = leaf_slots.flat(ranking.query_BQE)
        leaf_T = torch.as_tensor(inputs.leaf_target_leaf, device=self.device)
        leaf_item_T = torch.as_tensor(inputs.leaf_target_item, device=self.device)
        group_M = torch.as_tensor([self.group_number[tuple(p)] for p in path_MP.tolist()], device=self.device)
        sharpness = self.sharpness(log_probs.detach().exp())[leaf_request]
        logits = group_products(query * sharpness[:, None], group_M, items.vectors_NE, self.groups)
        if leaf_focus is not None:
            match = self._matches(
                leaf_slots.flat(leaf_focus.text_BQVT), leaf_slots.flat(leaf_focus.valid_BQV), group_M
            )
            low, high = leaf_slots.flat(leaf_focus.range_BQ2).unbind(dim=-1)
            logits = logits + leaf_slots.flat(ranking.focus_BQ)[:, None] * match
            logits = logits + leaf_slots.flat(ranking.fit_BQ)[:, None] * fit_of(
                match, low[:, None], high[:, None]
            )
        statistics = self.activity.item_UNS[day[leaf_user][:, None], self.groups.members_CG[group_M]]
        logits = logits + (statistics @ leaf_slots.flat(ranking.activity_BQS)[..., None]).squeeze(-1)
        copied = _copied(memory, leaf_user, path_MP, copied_MJ, rest_M, log_prob_M, leaf_T, leaf_item_T)
        ident = in_prefix_info_nce(logits, group_M, self.groups, leaf_T, leaf_item_T, copied)
        total = weights.weight_ntp * ntp + weights.weight_id * ident
        out = {"ntp": ntp, "id": ident}
        if weights.weight_catalog > 0:
            few = leaf_T < weights.catalog_leaves
            out["catalog"] = catalog_nll(
                query[: weights.catalog_leaves],
                items.vectors_NE,
                leaf_T[few],
                leaf_item_T[few],
                model.config.temperature,
            )
            total = total + weights.weight_catalog * out["catalog"]
        out["loss"] = total
        return out


def _copied(
    memory: "Memory",
    user_M: "Tensor",
    path_MP: "Tensor",
    copied_MJ: "Tensor",
    rest_M: "Tensor",
    log_prob_M: "Tensor",
    leaf_T: "Tensor",
    item_T: "Tensor",
) -> "Copied":
    """What the pointer leaves of each leaf's prefix, and its share of each target item."""
    from sigma_core.model.losses import Copied

    whole_M = log_prob_M.exp()
    share_MJ = copied_MJ / whole_M[:, None]
    inside = (memory.prefix_BJP[user_M] == path_MP[:, None]).all(dim=-1)
    same = memory.row_BJ[user_M][leaf_T] == item_T[:, None]
    return Copied(rest_M / whole_M, (share_MJ[leaf_T] * (same & inside[leaf_T])).sum(dim=1))


def learning_rate(step: int, steps: int, peak: float, warmup_share: float) -> float:
    """Linear warm-up, then cosine decay to a twentieth of the peak."""
    warmup = max(1, int(steps * warmup_share))
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def run_steps(
    trainer: Trainer,
    data: TrainingSet,
    prefixes_NP: np.ndarray,
    names: Mapping[str, "torch.nn.Parameter"],
    *,
    steps: int,
    peak: float,
    seed: int,
    tracker: "Tracker",
    progress: Progress,
    label: str,
) -> dict[str, Any]:
    """Train the named parameters for `steps`; returns the figures of the run (first and last losses, tokens, padding share).

    Raises:
        FloatingPointError: a loss is not finite; nothing of the run should be kept.
    """
    import torch

    config = trainer.config.training
    gains = [parameter for name, parameter in names.items() if name.endswith(".gain")]
    parameters = [parameter for name, parameter in names.items() if not name.endswith(".gain")]
    optimizer = torch.optim.AdamW(
        [
            {"params": parameters, "ratio": 1.0},
            {"params": gains, "ratio": config.gain_learning_rate_ratio, "weight_decay": 0.0},
        ],
        lr=peak,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.98),
    )
    history: list[dict[str, float]] = []
    began = time.perf_counter()
    trainer.model.train()
    for step, inputs in enumerate(sample_steps(data, prefixes_NP, config, steps, seed)):
        rate = learning_rate(step, steps, peak, config.warmup_share)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["ratio"]
        losses = trainer.losses(inputs)
        if not torch.isfinite(losses["loss"]):
            raise FloatingPointError(
                f"{label}: loss is {losses['loss'].item()} at step {step}; lower the learning rate."
            )
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_([*parameters, *gains], config.grad_clip)
        optimizer.step()
        values = {name: value.item() for name, value in losses.items()}
        history.append(values)
        work = {
            "tokens_per_second": trainer.tokens / max(time.perf_counter() - began, 1e-9),
            "padding_share": trainer.padding[-1],
        }
        tracker.log({**values, "learning_rate": rate, **work}, step=step)
        progress(step + 1, steps, f"{label} loss {values['loss']:.3f}")
    trainer.model.eval()
    seconds = time.perf_counter() - began
    tenth = max(1, steps // 10)
    figures: dict[str, Any] = {"steps": steps, "seconds": round(seconds, 1)}
    for name in history[0]:
        figures[f"{name}_first"] = float(np.mean([h[name] for h in history[:tenth]]))
        figures[f"{name}_last"] = float(np.mean([h[name] for h in history[-tenth:]]))
    figures["tokens_per_second"] = round(trainer.tokens / max(seconds, 1e-9))
    figures["padding_share"] = round(float(np.mean(trainer.padding)), 4)
    figures["users"] = len(data.users)
    figures["dropped_targets"] = data.dropped_targets
    return figures


def focus_table(texts: Sequence[str], encoder: "GroundedEncoder") -> dict[str, np.ndarray]:
    """Match vector of each text."""
    if not texts:
        return {}
    return dict(zip(texts, encoder.match_vectors(list(texts)), strict=True))


def make_trainer(
    model: "SigmaModel",
    features: "ItemFeatures",
    data: TrainingSet,
    probe: TrainingSet,
    encoder: "GroundedEncoder",
    config: "SigmaConfig",
) -> Trainer:
    """A trainer over the item table, with every focus text of both sets grounded.

    Raises:
        ValueError: no example is left to train on.
    """
    from sigma_core.model.words import words_of

    if not data.users:
        raise ValueError(
            "the shards hold no example whose target is in the item table, so there is nothing to train on. "
            "Check sft_shards of the training window and the refit's catalog."
        )
    words = words_of(model)
    focus = focus_table(sorted({*data.focus_texts, *probe.focus_texts}), encoder)
    collator = Collator(
        words,
        features.prefix.astype(np.int64),
        model.shape.codebook_size,
        config.instruction.prompt_favorites,
    )
    return Trainer(
        model.to(config.runtime.device), features, focus, collator, words.vectors(), config, data.counts
    )


def train_base(
    shards: Sequence["SftShard"],
    features: "ItemFeatures",
    codebooks: "Codebooks",
    encoder: "GroundedEncoder",
    config: "SigmaConfig",
    tracker: "Tracker",
    progress: Progress,
) -> "SigmaBase":
    """The month's model, trained from scratch; equal inputs and seed give equal weights on one machine.

    Raises:
        ValueError: the shards hold no usable example.
        FloatingPointError: the loss left the finite numbers.
    """
    import torch

    from sigma_core.model.backbone import fit_to_words, lexical_width
    from sigma_core.model.sigma import ModelShape, SigmaModel, item_keys
    from sigma_core.model.words import words_of
    from sigma_core.tokenization.item_features import prefix_match
    from sigma_core.training.adapters import base_artifact_parts, base_parameters
    from sigma_core.training.checkpoint import SigmaBase, compatibility
    from sigma_core.training.probe import probe_loss, run_probe, split_probe

    torch.set_num_threads(config.runtime.threads)
    torch.manual_seed(config.runtime.seed)
    shape = ModelShape(
        text_dim=features.text.shape[1],
        id_dim=features.id.shape[1],
        image_dim=0 if features.image is None else features.image.shape[1],
        prefix_length=features.prefix.shape[1],
        codebook_size=codebooks.codebook_size,
        lexical_dim=lexical_width(config.model),
        match_dim=features.text.shape[1] + features.lexical.shape[1],
        free_items=len(features.item_ids) if config.model.free_items else 0,
    )
    model = SigmaModel(config.model, shape)
    model.fusion.set_free_items(item_keys(features.item_ids))
    model.prefix_tokens.centroids.copy_(torch.from_numpy(codebooks.codebooks[: shape.prefix_length]))
    model.prefix_match.copy_(torch.from_numpy(prefix_match(features, codebooks.codebooks[0])))
    fit_to_words(model, words_of(model))
    parameters = base_parameters(model, config)
    data, probe_data = split_probe(build_training_set(shards, features.item_ids))
    trainer = make_trainer(model, features, data, probe_data, encoder, config)
    before = probe_loss(trainer, probe_data, features.prefix, config.runtime.seed)
    settings = config.training
    figures = run_steps(
        trainer, data, features.prefix, parameters, steps=settings.base_steps,
        peak=settings.base_learning_rate, seed=config.runtime.seed, tracker=tracker, progress=progress, label="sigma_base",
    )  # fmt: skip
    after = run_probe(trainer, probe_data, features.prefix, config.runtime.seed)
    figures |= {
        "base_compatible": codebooks.encoder_digest == encoder.digest(),
        "beams_valid": after.beams_valid,
        "probe_loss": after.loss,
        "base_loss": before,
        "sharpening": after.sharpening,
    }
    return SigmaBase(
        **base_artifact_parts(model, config),
        bound_to=compatibility(codebooks, encoder),
        apf_temperature=after.typical_sigma * config.model.temperature / after.sharpening,
        typical_sigma=after.typical_sigma,
        figures=figures,
        model=config.model.model_dump(mode="json"),
        shape=shape._asdict(),
    )
