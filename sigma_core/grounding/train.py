"""Training of the grounded encoder: relevance pairs in, `GroundedEncoder` out.

The order of the work and its figures: the pool's texts go through the frozen layers once; the projection, started from
principal directions, is trained alone (nearly free); then projection and LoRA on the top layers together. The loop itself is
in `trainer.py`. Source: paper section on grounding; everything about cost is our choice.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from sigma_core.config import GroundingConfig
from sigma_core.grounding import text_backbone as tb
from sigma_core.grounding.encoder import GroundedEncoder
from sigma_core.grounding.id_embeddings import ItemIdEmbeddings
from sigma_core.grounding.pair_plan import PairPlan, plan_pairs
from sigma_core.grounding.projection import principal_projection, project
from sigma_core.grounding.relevance_pairs import RelevancePairs
from sigma_core.grounding.retrieval import held_out_recall
from sigma_core.grounding.text_pool import TextPool, pooled_states, run_frozen_layers
from sigma_core.tracking import NullTracker, Progress, Tracker, no_progress

if TYPE_CHECKING:
    from torch import Tensor
    from transformers.models.bert.modeling_bert import BertModel

    from sigma_core.data.catalog import ItemCatalog


def train_grounded_encoder(
    pairs: RelevancePairs,
    catalog: "ItemCatalog",
    id_embeddings: ItemIdEmbeddings,
    config: GroundingConfig,
    seed: int,
    tracker: Tracker | None = None,
    progress: Progress = no_progress,
) -> GroundedEncoder:
    """The encoder trained on `pairs`, with held-out recall per view before and after in its summary.

    Same inputs, config and seed: same digest. Global torch state is left as it was.

    Raises:
        BackboneError: the backbone is not on this machine.
        ValueError: no usable pair, or more LoRA layers than the backbone has.
    """
    import torch

    from sigma_core.grounding.trainer import Trainer

    model, files = _load_backbone(config)
    id_rows = {item: row for row, item in enumerate(id_embeddings.item_ids)}
    plan = plan_pairs(pairs.frame, catalog.frame, id_rows, config, seed)
    tracker = tracker or NullTracker()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pool = _frozen_pool(model, files, plan, config, progress)
        base = _vectors(model, pool, config)
        head = principal_projection(base[torch.from_numpy(plan.item_texts)], config.text_dim)
        recall = {"before": held_out_recall(plan, project(head, base))}
        trainer = Trainer(plan, id_embeddings.factors, config, seed, tracker, progress)
        trainer.run_head(head, base)
        recall["after_head"] = held_out_recall(plan, project(head, base))
        model, adapter = trainer.run_lora(model, head, pool)
        recall["after"] = held_out_recall(plan, project(head, _vectors(model, pool, config)))
    tracker.table(
        "grounding/held_out_recall", [{"when": when, **by_view} for when, by_view in recall.items()]
    )
    return GroundedEncoder(
        model,
        files,
        head.weight.detach().numpy(),
        head.bias.detach().numpy(),
        pad_buckets=config.pad_buckets,
        adapter=adapter,
        figures={**trainer.figures(), **_recall_figures(plan, recall)},
    )


def _load_backbone(config: GroundingConfig) -> tuple["BertModel", dict[str, str]]:
    directory = tb.backbone_directory(config.backbone)
    model = tb.load_model(directory)
    if config.lora_layers > len(model.encoder.layer):
        raise ValueError(
            f"grounding.lora_layers is {config.lora_layers}, the backbone has {len(model.encoder.layer)} layers."
        )
    return model, tb.read_tokenizer_files(directory)


def _frozen_pool(
    model: "BertModel", files: dict[str, str], plan: PairPlan, config: GroundingConfig, progress: Progress
) -> TextPool:
    return run_frozen_layers(
        model,
        files,
        plan.texts,
        num_top=config.lora_layers,
        pad_buckets=config.pad_buckets,
        progress=progress,
    )


def _vectors(model: "BertModel", pool: TextPool, config: GroundingConfig) -> "Tensor":
    # float32 [texts, H]: all texts of the pool after the top layers as they are now
    return pooled_states(pool, list(model.encoder.layer)[-config.lora_layers :], np.arange(len(pool.bucket)))


def _recall_figures(plan: PairPlan, recall: dict[str, dict[str, float | None]]) -> dict[str, Any]:
    return {
        **{f"recall@20_{when}": by_view for when, by_view in recall.items()},
        "held_out_pairs": {view: len(rows) for view, rows in plan.held_out.items()},
        "retrieval_candidates": int(plan.item_texts.sum()),
    }
