"""Training of the grounded encoder: relevance pairs in, `GroundedEncoder` out.

The order of the work and its figures: the pool's texts go through the frozen layers once; the projection, started from
principal directions, is trained alone (nearly free); then projection and LoRA on the top layers together. The loop itself is
in `trainer.py`. Source: paper section on grounding; everything about cost is our choice.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sigma_core import columns as c
from sigma_core.config import GroundingConfig
from sigma_core.grounding import text_backbone as tb
from sigma_core.grounding.encoder import Adapter, GroundedEncoder
from sigma_core.grounding.id_embeddings import ItemIdEmbeddings
from sigma_core.grounding.lexical import LexicalHash
from sigma_core.grounding.pair_plan import PairPlan, plan_pairs
from sigma_core.grounding.projection import principal_projection, project
from sigma_core.grounding.relevance_pairs import RelevancePairs
from sigma_core.grounding.retrieval import OTHER_CUTOFFS, held_out_recall
from sigma_core.grounding.text_network import TextNetwork, network_of
from sigma_core.grounding.text_pool import pooled_states, run_frozen_layers
from sigma_core.pretrained_checks import check_depth, check_length, check_targets, check_width
from sigma_core.tracking import NullTracker, Progress, Tracker, no_progress

if TYPE_CHECKING:
    import polars as pl
    import torch

    from sigma_core.data.catalog import ItemCatalog


def train_grounded_encoder(
    pairs: RelevancePairs,
    catalog: "ItemCatalog",
    id_embeddings: ItemIdEmbeddings,
    config: GroundingConfig,
    seed: int,
    tracker: Tracker | None = None,
    progress: Progress = no_progress,
    answers: "pl.DataFrame | None" = None,
    device: "torch.device | str" = "cpu",
) -> GroundedEncoder:
    """The encoder trained on `pairs`, with held-out recall per view in its summary: of the frozen backbone's
    whole vectors, before training (the same cut to `text_dim`), after the projection alone, and after all.

    `answers` are what texts stand for beside the pairs (`relevance_pairs.text_answers`): masked among the negatives.
    Same inputs, config, seed and device: same digest. It is trained on `device` and returned on the CPU. Global torch state is left
    as it was.

    Raises:
        BackboneError: the backbone is not on this machine.
        ValueError: no usable pair, or more LoRA layers, other linear layers or a greater width than the backbone has.
    """
    import torch

    from sigma_core.grounding.trainer import Trainer

    opened = tb.open_backbone(config.backbone)
    opened.model.to(device)
    network, pooling = _network(opened, config)
    num_top = _num_top(network, config)
    check_targets(network.layers[-num_top:], config.lora_targets)
    check_width(config.text_dim, network.width)
    id_rows = {item: row for row, item in enumerate(id_embeddings.item_ids)}
    plan = plan_pairs(pairs.frame, catalog.frame, id_rows, config, seed, answers)
    tracker = tracker or NullTracker()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pool = run_frozen_layers(
            network, opened.files, plan.texts, num_top=num_top, pad_buckets=config.pad_buckets,
            padding_side=config.padding_side, progress=progress,
        )  # fmt: skip
        every = np.arange(len(pool.bucket))
        base = pooled_states(pool, network, num_top, every)
        head = principal_projection(base[torch.from_numpy(plan.item_texts)], config.text_dim)
        frozen = base.cpu().numpy()
        recall = {"frozen": held_out_recall(plan, frozen)}
        recall["before"] = held_out_recall(plan, project(head, base))
        trainer = Trainer(plan, id_embeddings.factors, config, seed, tracker, progress)
        trainer.run_head(head, base)
        recall["after_head"] = held_out_recall(plan, project(head, base))
        adapter = trainer.run_lora(network, num_top, head, pool, is_merged=opened.source is None)
        trained = project(head, pooled_states(pool, network, num_top, every))
        recall["after"] = held_out_recall(plan, trained)
        others = {
            f"recall@{cutoff}_{when}": held_out_recall(plan, vectors, cutoff)
            for cutoff in OTHER_CUTOFFS
            for when, vectors in (("frozen", frozen), ("after", trained))
        }
    tracker.table(
        "grounding/held_out_recall", [{"when": when, **by_view} for when, by_view in recall.items()]
    )
    return GroundedEncoder(
        network.model.cpu(),
        opened.files,
        head.weight.detach().cpu().numpy(),
        head.bias.detach().cpu().numpy(),
        pad_buckets=config.pad_buckets,
        adapter=adapter,
        source=opened.source,
        pooling=pooling,
        padding_side=config.padding_side,
        lexical=LexicalHash.fit(catalog.frame[c.TEXT].to_list(), config.lexical_dim, config.lexical_weight),
        figures={**trainer.figures(), **_recall_figures(plan, recall), **others},
    )


def untrained_encoder(config: GroundingConfig, texts: Sequence[str] = ()) -> GroundedEncoder:
    """The backbone as it comes, without down-projection: what anyone who downloads it has. With the `texts` of a catalog it
    matches words as the trained one does, so that only the vectors differ.
    """
    opened = tb.open_backbone(config.backbone)
    network, pooling = _network(opened, config)
    width = network.width
    return GroundedEncoder(
        opened.model,
        opened.files,
        np.eye(width, dtype=np.float32),
        np.zeros(width, np.float32),
        pad_buckets=config.pad_buckets,
        adapter=Adapter({}, {}),
        source=opened.source,
        pooling=pooling,
        padding_side=config.padding_side,
        lexical=LexicalHash.fit(texts, config.lexical_dim, config.lexical_weight) if texts else None,
    )


def _network(opened: tb.OpenBackbone, config: GroundingConfig) -> tuple[TextNetwork, str]:
    """The network, and the setting that gives its pooling: where `grounding.pooling` is auto and the model's folder says
    that it was trained with another than our guess, that one.
    """
    check_length(opened.model, config)
    pooling: str = config.pooling
    network = network_of(opened.model, pooling, config.padding_side)
    if pooling == "auto" and opened.pooling not in (None, network.pooling):
        assert opened.pooling is not None
        network, pooling = network_of(opened.model, opened.pooling, config.padding_side), opened.pooling
    return network, pooling


def _num_top(network: TextNetwork, config: GroundingConfig) -> int:
    if network.layers_pattern is None:
        return 1  # run whole
    check_depth(config.lora_layers, len(network.layers))
    return config.lora_layers


def _recall_figures(plan: PairPlan, recall: dict[str, dict[str, float | None]]) -> dict[str, Any]:
    return {
        **{f"recall@20_{when}": by_view for when, by_view in recall.items()},
        "retrieval_gain": _gains(recall["before"], recall["after"]),
        "held_out_pairs": {view: len(rows) for view, rows in plan.held_out.items()},
        "retrieval_candidates": int(plan.item_texts.sum()),
    }


def _gains(before: dict[str, float | None], after: dict[str, float | None]) -> dict[str, float | None]:
    """Recall@20 after training less before, by view; None where no pair was held out."""
    both = {view: (value, after.get(view)) for view, value in before.items()}
    return {v: None if a is None or b is None else round(b - a, 4) for v, (a, b) in both.items()}
