"""Multi-task SFT: trains the whole small model (`SigmaBase`) on shards, and the step both trainings share.

Holds the loss of one step. The loop is `loop.py`, batches are `batches.py`, the adapter of a day `lora.py`, artifacts
`checkpoint.py`. Source: paper, multi-task supervised fine-tuning; the set-valued target (every distinct item of the next
week answers) is our choice: the objective then matches the question the evaluation asks.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sigma_core.devices import training_device
from sigma_core.grounding.cross_fitting import EVERYONE
from sigma_core.instruction.collate import Collator
from sigma_core.training.batches import StepInputs, TrainingSet, build_training_set
from sigma_core.training.dense import dense_loss
from sigma_core.training.item_text import check_item_text, item_text_loss
from sigma_core.training.loop import run_steps
from sigma_core.training.step_parts import Leaves, ReadStep, Starts, copied_shares, fold_streams

if TYPE_CHECKING:
    from torch import Tensor

    from sigma_core.config import SigmaConfig
    from sigma_core.grounding.encoder import GroundedEncoder
    from sigma_core.instruction.shards import SftShard
    from sigma_core.model.fusion import ItemStreams
    from sigma_core.model.heads import Focus, ItemScores, ItemTensors, Slots
    from sigma_core.model.sigma import SigmaModel
    from sigma_core.tokenization.codebooks import Codebooks
    from sigma_core.tokenization.item_features import ItemFeatures
    from sigma_core.tracking import Progress, Tracker
    from sigma_core.training.checkpoint import SigmaBase


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

        self.model, self.config, self.collator, self.focus = model, config, collator, focus
        self.device = training_device(config.runtime)
        self.texts = features.texts
        self.lexical = lexical.to(self.device)
        self.streams: dict[int, ItemStreams] = fold_streams(features, self.device)
        self.match_NT = torch.as_tensor(features.match(), device=self.device)
        self.prefixes = torch.as_tensor(features.prefix.astype(np.int64), device=self.device)
        self.activity = activity_tensors(
            counts_UNA, features.prefix[:, 0], model.shape.codebook_size, self.device
        )
        sold_N = torch.expm1(self.activity.item_UNS[..., 0]).mean(dim=0) + 1.0
        self.chance_N = sold_N / sold_N.sum()  # of an item to be drawn as a negative: by popularity
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

    def item_tensors(self, fold: int = EVERYONE) -> "ItemTensors":
        """The item table under the model's present fusion, as the users outside a fold make it."""
        from sigma_core.model.heads import ItemTensors

        return ItemTensors(self.model.fusion(self.streams[fold]), self.match_NT, self.prefixes)

    def _matches(self, text_MVT: "Tensor", valid_MV: "Tensor", group_M: "Tensor") -> "Tensor":
        """Cosine (M, G) of each item of a leaf's group with the aspect of the request nearest to it."""
        import torch

        from sigma_core.model.losses import each_group_products

        found = each_group_products(text_MVT.unbind(1), group_M, self.match_NT, self.groups)
        aspects = [one.masked_fill(~valid_MV[:, aspect, None], -2.0) for aspect, one in enumerate(found)]
        return torch.stack(aspects).amax(dim=0)

    def group_logits(
        self,
        step: ReadStep,
        ranking: "ItemScores",
        user_M: "Tensor",
        slots: "Slots",
        group_M: "Tensor",
        sharpness_M: "Tensor | float",
        focus: "Focus | None" = None,
    ) -> "Tensor":
        """Logits (M, G) of all items of each state's prefix group: cosine times sharpness, match with the words, prior."""
        import torch

        from sigma_core.model.heads import fit_of
        from sigma_core.model.losses import group_products

        sharpness = torch.as_tensor(sharpness_M, device=self.device).expand(len(user_M))
        query = slots.flat(ranking.query_BQE) * sharpness[:, None]
        logits = group_products(query, group_M, step.items.vectors_NE, self.groups)
        if focus is not None:
            match = self._matches(slots.flat(focus.text_BQVT), slots.flat(focus.valid_BQV), group_M)
            fits = fit_of(match, slots.flat(focus.range_BQ2))
            logits = logits + slots.flat(ranking.focus_BQ)[:, None] * match
            logits = logits + slots.flat(ranking.fit_BQ)[:, None] * fits
        statistics = self.activity.item_UNS[step.day_B[user_M][:, None], self.groups.members_CG[group_M]]
        return logits + (statistics @ slots.flat(ranking.activity_BQS)[..., None]).squeeze(-1)

    def losses(self, inputs: StepInputs) -> dict[str, "Tensor"]:
        """The step's losses by name: `ntp`, `id`, then `catalog`, `item_text` and `dense` where they have a weight, and
        `loss`, the weighted sum.
        """
        weights = self.config.training
        step = self._read(inputs)
        starts = self._starts(step)
        leaves, deeper_nll = self._leaves(step, starts)
        ntp = sum(deeper_nll, self._first_level_nll(inputs, starts))
        query_ME, ident = self._in_prefix_loss(inputs, step, starts, leaves)
        total = weights.weight_ntp * ntp + weights.weight_id * ident
        out = {"ntp": ntp, "id": ident}
        if weights.weight_catalog > 0:
            out["catalog"] = self._catalog_loss(inputs, step, query_ME)
            total = total + weights.weight_catalog * out["catalog"]
        if weights.weight_item_text > 0:
            out["item_text"] = item_text_loss(self, step, inputs.leaf_target_item)
            total = total + weights.weight_item_text * out["item_text"]
        if weights.weight_dense > 0:
            out["dense"] = dense_loss(self, step)
            total = total + weights.weight_dense * out["dense"]
        out["loss"] = total
        return out

    def _read(self, inputs: StepInputs) -> ReadStep:
        """Lays the batch out and reads it; counts its tokens and its padding."""
        import torch

        from sigma_core.model.sigma import TensorBatch

        tree = self.collator(inputs.users, inputs.requests)
        self.tokens += int(tree.valid_BL.sum())
        self.padding.append(tree.padding_share)
        batch = TensorBatch(tree, self.focus_vectors(tree.focus_texts), self.device)
        items = self.item_tensors(inputs.fold)
        dtype = getattr(torch, self.config.training.dtype)
        states = self.model.read(batch, items.vectors_NE, self.lexical, dtype=dtype)
        day = torch.as_tensor(inputs.days, device=self.device)
        memory = self.model.memory(batch, items, self.activity.item_UNS, day)
        return ReadStep(batch, items, states, memory, day)

    def _starts(self, step: ReadStep) -> Starts:
        """The first level of the prefix, asked of the state at each request's <|start|>."""
        import torch

        from sigma_core.model.heads import Slots

        model, batch, memory, states, day = self.model, step.batch, step.memory, step.states_BLD, step.day_B
        user = batch.request_user_R
        slots = Slots(user, len(states))
        start_RD = states[user, batch.request_start_R]
        start = slots.pad(start_RD)
        none = start.new_zeros(*start.shape[:2], 0, dtype=torch.long)
        focus = model.focus(batch, batch.request_focus_RV, slots, start_RD)
        scores = model.prefix_scores(start, memory, 0, none, focus, self.activity.prefix_UKS[day])
        found = scores.log_prob_BQK, scores.copied_BQJ, scores.generated_BQK
        return Starts(start_RD, *(slots.flat(part) for part in found))

    def _first_level_nll(self, inputs: StepInputs, starts: Starts) -> "Tensor":
        """L_NTP of the first level: all targets of a request answer it, and it weighs by the root of their number."""
        import torch

        from sigma_core.model.losses import prefix_nll

        request_T = torch.as_tensor(inputs.target_request, device=self.device)
        item_T = torch.as_tensor(inputs.target_item, device=self.device)
        weight_T = torch.as_tensor(inputs.target_weight, device=self.device, dtype=torch.float32)
        return prefix_nll(starts.log_prob_RK, request_T, self.prefixes[item_T, 0], weight_T)

    def _leaves(self, step: ReadStep, starts: Starts) -> tuple[Leaves, list["Tensor"]]:
        """The prefix of each leaf, its probability and what of it is copied; and L_NTP of each level after the first."""
        import torch

        from sigma_core.model.heads import Slots
        from sigma_core.model.losses import prefix_nll

        model, batch, memory, states = self.model, step.batch, step.memory, step.states_BLD
        leaf_request = batch.leaf_request_M
        leaf_user = batch.request_user_R[leaf_request]
        leaf_slots = Slots(leaf_user, len(states))
        path_MP = batch.leaf_prefix_MP
        path = leaf_slots.pad(path_MP)
        leaf_focus = model.focus(
            batch, batch.request_focus_RV[leaf_request], leaf_slots, starts.state_RD[leaf_request]
        )
        every = torch.arange(len(leaf_user), device=self.device)
        log_prob_M = starts.log_prob_RK[leaf_request, path_MP[:, 0]]
        copied_MJ = starts.copied_RJ[leaf_request]
        rest_M = starts.generated_RK[leaf_request, path_MP[:, 0]]
        nll: list[torch.Tensor] = []
        for level in range(1, self.prefixes.shape[1]):
            state = leaf_slots.pad(states[leaf_user, batch.leaf_positions_MP1[:, level - 1]])
            scores = model.prefix_scores(state, memory, level, path, leaf_focus)
            deeper = leaf_slots.flat(scores.log_prob_BQK)
            nll.append(prefix_nll(deeper, every, path_MP[:, level], torch.ones_like(every).float()))
            log_prob_M, copied_MJ = deeper[every, path_MP[:, level]], leaf_slots.flat(scores.copied_BQJ)
            rest_M = leaf_slots.flat(scores.generated_BQK)[every, path_MP[:, level]]
        return Leaves(leaf_user, leaf_slots, path_MP, leaf_focus, log_prob_M, copied_MJ, rest_M), nll

    def _in_prefix_loss(
        self, inputs: StepInputs, step: ReadStep, starts: Starts, leaves: Leaves
    ) -> tuple["Tensor", "Tensor"]:
        """The leaves' queries h (M, E) at <q>, and L_InfoNCE of their targets.

        Sigma is that of the first codes, also where prefixes are longer; generation takes it of whole prefixes.
        """
        import torch

        from sigma_core.model.losses import in_prefix_info_nce

        batch, leaf_slots, leaf_focus = step.batch, leaves.slots, leaves.focus
        path = leaf_slots.pad(leaves.path_MP)
        state = leaf_slots.pad(step.states_BLD[leaves.user_M, batch.leaf_positions_MP1[:, -1]])
        ranking = self.model.item_scores(state, step.memory, path, leaf_focus)
        leaf_T = torch.as_tensor(inputs.leaf_target_leaf, device=self.device)
        leaf_item_T = torch.as_tensor(inputs.leaf_target_item, device=self.device)
        group_M = self.groups_of(leaves.path_MP)
        sharpness = self.sharpness(starts.log_prob_RK.detach().exp())[batch.leaf_request_M]
        if self.model.training and (share := self.config.training.vector_dropout) > 0:
            kept = torch.rand(len(sharpness)) >= share  # on the CPU: the same leaves on every device
            sharpness = sharpness * kept.to(self.device)
        logits = self.group_logits(step, ranking, leaves.user_M, leaf_slots, group_M, sharpness, leaf_focus)
        copied = copied_shares(step.memory, leaves, leaf_T, leaf_item_T)
        ident = in_prefix_info_nce(logits, group_M, self.groups, leaf_T, leaf_item_T, copied)
        return leaf_slots.flat(ranking.query_BQE), ident

    def _catalog_loss(self, inputs: StepInputs, step: ReadStep, query_ME: "Tensor") -> "Tensor":
        """The catalogue-wide item loss of the first leaves: users are drawn, so the first of them are a fair sample."""
        import torch

        from sigma_core.model.losses import catalog_nll, sampled_catalog_nll

        most = self.config.training.catalog_leaves
        leaf_T = torch.as_tensor(inputs.leaf_target_leaf, device=self.device)
        item_T = torch.as_tensor(inputs.leaf_target_item, device=self.device)
        few = leaf_T < most
        tau, negatives = self.model.config.temperature, self.config.training.catalog_negatives
        given = query_ME[:most], step.items.vectors_NE, leaf_T[few], item_T[few], tau
        if negatives is None:
            return catalog_nll(*given)
        drawn_S = torch.multinomial(self.chance_N, negatives, replacement=True)
        return sampled_catalog_nll(*given, drawn_S, self.chance_N)

    def groups_of(self, path_MP: "Tensor") -> "Tensor":
        """Number of the group of each whole prefix (M,)."""
        import torch

        numbers = [self.group_number[tuple(path)] for path in path_MP.tolist()]
        return torch.as_tensor(numbers, dtype=torch.long, device=self.device)


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

    The model is on `runtime.device` from here on.

    Raises:
        ConfigError: torch has no such device here.
        ValueError: no example is left to train on, or items shall be put into words and cannot.
    """
    from sigma_core.model.words import words_of

    if not data.users:
        raise ValueError(
            "the shards hold no example whose target is in the item table, so there is nothing to train on. "
            "Check sft_shards of the training window and the refit's catalog."
        )
    check_item_text(config, features.texts)
    model.to(training_device(config.runtime))
    words = words_of(model)
    focus = focus_table(sorted({*data.focus_texts, *probe.focus_texts}), encoder)
    collator = Collator(
        words,
        features.prefix.astype(np.int64),
        model.shape.codebook_size,
        config.instruction.prompt_favorites,
    )
    return Trainer(model, features, focus, collator, words.vectors(), config, data.counts)


def train_base(
    shards: Sequence["SftShard"],
    features: "ItemFeatures",
    codebooks: "Codebooks",
    encoder: "GroundedEncoder",
    config: "SigmaConfig",
    tracker: "Tracker",
    progress: "Progress",
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
    from sigma_core.training.probe import probe_figures, probe_loss, run_probe, split_probe

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
    trained = base_parameters(model, config).keys()
    data, probe_data = split_probe(build_training_set(shards, features.item_ids, features.folded))
    trainer = make_trainer(model, features, data, probe_data, encoder, config)
    parameters = {
        n: p for n, p in model.named_parameters() if n in trained
    }  # those that moved with the model
    before = probe_loss(trainer, probe_data, features.prefix, config.runtime.seed)
    settings = config.training
    figures = run_steps(
        trainer, data, features.prefix, parameters, steps=settings.base_steps,
        peak=settings.base_learning_rate, seed=config.runtime.seed, tracker=tracker, progress=progress, label="sigma_base",
    )  # fmt: skip
    after = run_probe(trainer, probe_data, features.prefix, config.runtime.seed)
    figures |= {
        "base_compatible": codebooks.encoder_digest == encoder.digest(),
        **probe_figures(after, before, is_held_out=probe_data is not data),
    }
    return SigmaBase(
        **base_artifact_parts(model, config),
        bound_to=compatibility(codebooks, encoder),
        apf_temperature=after.typical_sigma * config.model.temperature / after.sharpening,
        typical_sigma=after.typical_sigma,
        catalog_weight=after.catalog_weight,
        figures=figures,
        model=config.model.model_dump(mode="json"),
        shape=shape._asdict(),
    )
