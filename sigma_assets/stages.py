"""The walk as a table: one row an asset, with what it reads, what it holds and which settings it depends on.

`assets/` holds the bodies, `periods.py` says which partitions a window selects. Everything that must agree about the
graph (Dagster's definitions, the planner, the IO manager, lineage, freshness) reads this table and nothing else.
Knows no Dagster. Source: architecture.md, "One walk from event to recommendation".
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any, Final

from sigma_assets.periods import WINDOWS, Cadence
from sigma_core import versions
from sigma_core.artifacts import digest_json
from sigma_core.config import SigmaConfig


@dataclass(frozen=True)
class Read:
    """One input of a stage: the asset and the window (a key of `periods.SELECT`) that picks its partitions."""

    asset: str
    window: str

    @property
    def is_window(self) -> bool:
        """True when the input is a `Window` of many partitions."""
        return self.window in WINDOWS


@dataclass(frozen=True)
class Stage:
    """One asset.

    Attributes:
        name: asset key.
        group: the stage of the paper it belongs to; also the module under `assets/`.
        cadence: a partition a day or a month.
        artifact: `module:Class` of its value, imported only when it is read or made.
        reads: parameter name -> input.
        settings: patterns of `section.key` that its result depends on; `!` takes some out again.
        version: raise it when the code's result changes, and everything made before is stale.
        source_parts: parts of the source that it reads itself (`binding.SOURCE_PARTS`).
        master_lag_days: how many days before its partition the product master is that it reads.
        keep: readers of many days share one loaded copy within a process.
        share_written: the next steps of its day read it, and get the value that was written.
        kinds: what Dagster's UI shows as technology.
        pool: concurrency pool of its runs.
        runs: stages whose code it runs itself: their versions and settings are part of its own.
        generates: it holds lists, or what is said of them: `GENERATION_VERSION` is part of its version.
        on_demand: neither a day nor automation asks for it, and it is never late; a person does.
    """

    name: str
    group: str
    cadence: Cadence
    artifact: str
    reads: dict[str, Read]
    settings: tuple[str, ...] = ()
    version: str = "1"
    source_parts: tuple[str, ...] = ()
    master_lag_days: int = 0
    keep: bool = False
    share_written: bool = False
    kinds: frozenset[str] = frozenset({"parquet"})
    pool: str | None = None
    runs: tuple[str, ...] = ()
    generates: bool = False
    on_demand: bool = False

    def artifact_type(self) -> type[Any]:
        """The class of its value; imports the module."""
        module, _, name = self.artifact.partition(":")
        cls: type[Any] = getattr(import_module(module), name)
        return cls

    def code_version(self, config: SigmaConfig) -> str:
        """Digest of the stage's version (and that of generation), of the settings it depends on, and of the stages it runs."""
        values = {key: value for key, value in _flat(config) if _selected(key, self.settings)}
        runs = {"runs": versions_of(self.runs, config)} if self.runs else {}
        lists = {"generation": versions.GENERATION_VERSION} if self.generates else {}
        return digest_json({"version": self.version, "settings": values, **runs, **lists})[:12]


def versions_of(names: tuple[str, ...], config: SigmaConfig) -> dict[str, str]:
    """Code version of each of the stages under these settings, by name."""
    return {name: STAGES[name].code_version(config) for name in names}


def _flat(config: SigmaConfig) -> list[tuple[str, Any]]:
    sections = config.model_dump(mode="json")
    return [
        (f"{section}.{key}", value)
        for section, values in sections.items()
        if isinstance(values, dict)
        for key, value in values.items()
    ]


def _selected(key: str, patterns: tuple[str, ...]) -> bool:
    kept = any(fnmatchcase(key, p) for p in patterns if not p.startswith("!"))
    return kept and not any(fnmatchcase(key, p[1:]) for p in patterns if p.startswith("!"))


ABLATED: Final = (
    "grounded_encoder",
    "refit_item_embeddings",
    "codebooks",
    "item_embeddings",
    "sigma_base",
    "lora_checkpoint",
    "item_index",
    "eval_report",
)
"""Stages whose code and settings an arm of the ablation is made and judged by."""

TRAINING: Final = "training"
"""The pool of everything that trains: its limit in dagster.yaml is 1, so two trainings never run together."""

_EVENTS_UNTIL_TODAY: Final = {
    "history": Read("interaction_history", "months_before"),
    "recent": Read("interaction_events", "recent_days"),
}
_REFIT_CATALOG: Final = Read("item_catalog", "refit_cut")
_SHARD: Final = "sigma_core.instruction.shards:SftShard"
_EMBEDDINGS: Final = "sigma_core.grounding.embed:ItemEmbeddings"
_TENSORS: Final = frozenset({"parquet", "safetensors"})
_TORCH: Final = frozenset({"pytorch", "huggingface"})

_TABLE: Final = (
    # ------------------------------------------------------------------------------------ sources
    Stage(
        name="interaction_events", group="sources", cadence="day", reads={}, source_parts=("events",),
        artifact="sigma_core.data.events:InteractionEvents",
    ),
    Stage(
        name="interaction_history", group="sources", cadence="month", keep=True,
        artifact="sigma_core.data.events:InteractionEvents",
        reads={"days": Read("interaction_events", "days_of_month")},
    ),
    Stage(
        name="item_catalog", group="sources", cadence="day", reads=_EVENTS_UNTIL_TODAY, source_parts=("products",), share_written=True,
        artifact="sigma_core.data.catalog:ItemCatalog", settings=("data.*", "!data.horizon_days", "!data.country"),
    ),
    Stage(
        name="user_profiles", group="sources", cadence="day", reads=_EVENTS_UNTIL_TODAY, source_parts=("users",),
        artifact="sigma_core.data.users:UserProfiles",
    ),
    # ---------------------------------------------------------------------------- (a) grounding
    Stage(
        name="item_id_embeddings", group="grounding", cadence="month", source_parts=("id_vectors",), keep=True,
        artifact="sigma_core.grounding.id_embeddings:ItemIdEmbeddings",
        reads={"history": Read("interaction_history", "id_months")},
        settings=("grounding.id_*", "promotion.refit_holdout_days", "runtime.seed"), kinds=_TENSORS,
    ),
    Stage(
        name="relevance_pairs", group="grounding", cadence="month", version="2",
        artifact="sigma_core.grounding.relevance_pairs:RelevancePairs",
        reads={"history": Read("interaction_history", "id_months"), "catalog": _REFIT_CATALOG},
        settings=("grounding.*", "data.country", "promotion.refit_holdout_days", "runtime.seed"), source_parts=("image_vectors",),
    ),
    Stage(
        name="grounded_encoder", group="grounding", cadence="month", version="4", keep=True, pool=TRAINING,
        artifact="sigma_core.grounding.encoder:GroundedEncoder",
        reads={
            "pairs": Read("relevance_pairs", "same_month"),
            "id_embeddings": Read("item_id_embeddings", "same_month"),
            "catalog": _REFIT_CATALOG,
        },
        settings=("grounding.*", "runtime.seed"), kinds=_TORCH,
    ),
    Stage(
        name="refit_item_embeddings", group="grounding", cadence="month", version="2", artifact=_EMBEDDINGS, keep=True,
        reads={"catalog": _REFIT_CATALOG, "encoder": Read("grounded_encoder", "same_month")}, kinds=_TENSORS,
    ),
    # ------------------------------------------------------------------------- (b) tokenization
    Stage(
        name="codebooks", group="tokenization", cadence="month", version="2", keep=True,
        artifact="sigma_core.tokenization.codebooks:Codebooks",
        reads={
            "embeddings": Read("refit_item_embeddings", "same_month"),
            "id_embeddings": Read("item_id_embeddings", "same_month"),
            "catalog": _REFIT_CATALOG,
        },
        settings=("tokenization.*", "runtime.seed"), kinds=frozenset({"faiss", "safetensors"}),
    ),
    Stage(
        name="item_embeddings", group="tokenization", cadence="day", version="2", artifact=_EMBEDDINGS, share_written=True,
        reads={"catalog": Read("item_catalog", "same_day"), "encoder": Read("grounded_encoder", "own_month")},
        kinds=_TENSORS,
    ),
    Stage(
        name="semantic_id_map", group="tokenization", cadence="day", share_written=True,
        artifact="sigma_core.tokenization.semantic_ids:SemanticIdMap",
        reads={
            "catalog": Read("item_catalog", "same_day"),
            "embeddings": Read("item_embeddings", "same_day"),
            "codebooks": Read("codebooks", "own_month"),
            "encoder": Read("grounded_encoder", "own_month"),
        },
    ),
    # -------------------------------------------------------------------------- (c) instruction
    Stage(
        name="sft_shards", group="instruction", cadence="day", version="3", artifact=_SHARD,
        reads={
            **_EVENTS_UNTIL_TODAY,
            "catalog": Read("item_catalog", "cut_day"),
            "profiles": Read("user_profiles", "cut_day"),
        },
        settings=("data.*", "instruction.*", "!instruction.shard_stride_days", "runtime.seed"),
        source_parts=("products", "offers"), master_lag_days=1, kinds=frozenset({"parquet", "jinja"}),
    ),
    # ----------------------------------------------------------------------------- (c) training
    Stage(
        name="sigma_base", group="training", cadence="month", version="8", pool=TRAINING, keep=True,
        artifact="sigma_core.training.checkpoint:SigmaBase",
        reads={
            "shards": Read("sft_shards", "base_shards"),
            "embeddings": Read("refit_item_embeddings", "same_month"),
            "id_embeddings": Read("item_id_embeddings", "same_month"),
            "codebooks": Read("codebooks", "same_month"),
            "encoder": Read("grounded_encoder", "same_month"),
            "catalog": _REFIT_CATALOG,
        },
        settings=("model.*", "training.*", "!training.lora_*", "instruction.max_*", "instruction.prompt_*",
                  "generation.s*", "generation.apf_temperature", "runtime.seed"),
        source_parts=("image_vectors",), kinds=_TORCH,
    ),
    Stage(
        name="lora_checkpoint", group="training", cadence="day", version="7", pool=TRAINING,
        artifact="sigma_core.training.checkpoint:LoraCheckpoint",
        reads={
            "base": Read("sigma_base", "own_month"),
            "shards": Read("sft_shards", "lora_shards"),
            "catalog": Read("item_catalog", "day_before"),
            "embeddings": Read("refit_item_embeddings", "own_month"),
            "id_embeddings": Read("item_id_embeddings", "own_month"),
            "codebooks": Read("codebooks", "own_month"),
            "encoder": Read("grounded_encoder", "own_month"),
        },
        settings=("model.*", "training.*", "!training.base_*", "instruction.max_*", "instruction.prompt_*", "generation.s*",
                  "generation.apf_temperature", "runtime.seed"),
        source_parts=("image_vectors",), kinds=_TORCH | {"peft"},
    ),
    # -------------------------------------------------------------------------------- promotion
    Stage(
        name="promoted_model", group="promotion", cadence="day",
        artifact="sigma_core.serving.promoted:PromotedModel",
        reads={
            "base": Read("sigma_base", "own_month"),
            "checkpoint": Read("lora_checkpoint", "same_day"),
            "shards": Read("sft_shards", "lora_shards"),
            "catalog": Read("item_catalog", "day_before"),
            "id_embeddings": Read("item_id_embeddings", "own_month"),
            "codebooks": Read("codebooks", "own_month"),
            "encoder": Read("grounded_encoder", "own_month"),
        },
        settings=("promotion.*", "!promotion.refit_holdout_days", "generation.*"), source_parts=("image_vectors",),
        kinds=frozenset({"json", "peft"}),
    ),
    # ------------------------------------------------------------------------------ (d) serving
    Stage(
        name="item_index", group="serving", cadence="day", version="3", share_written=True,
        artifact="sigma_core.serving.item_index:ItemIndex",
        reads={
            "base": Read("sigma_base", "own_month"),
            "checkpoint": Read("lora_checkpoint", "same_day"),
            "semantic_ids": Read("semantic_id_map", "same_day"),
            "embeddings": Read("item_embeddings", "same_day"),
            "id_embeddings": Read("item_id_embeddings", "own_month"),
        },
        source_parts=("image_vectors",), kinds=_TENSORS,
    ),
    Stage(
        name="user_to_item_index", group="serving", cadence="day", version="6", generates=True,
        artifact="sigma_core.serving.user_to_item:UserToItemIndex", source_parts=("offers",),
        reads={
            "base": Read("sigma_base", "own_month"),
            "promoted": Read("promoted_model", "same_day"),
            "index": Read("item_index", "same_day"),
            "catalog": Read("item_catalog", "same_day"),
            "profiles": Read("user_profiles", "same_day"),
            "encoder": Read("grounded_encoder", "own_month"),
            **_EVENTS_UNTIL_TODAY,
        },
        settings=("generation.*", "serving.*", "instruction.*", "!instruction.shard_stride_days",
                  "!instruction.users_per_shard", "data.country", "data.horizon_days", "data.catalog_window_days",
                  "runtime.seed"),
    ),
    # ------------------------------------------------------------------------------- evaluation
    Stage(
        name="eval_report", group="evaluation", cadence="day", version="7", generates=True,
        artifact="sigma_core.evaluation.report:EvalReport",
        reads={
            "base": Read("sigma_base", "own_month"),
            "checkpoint": Read("lora_checkpoint", "same_day"),
            "index": Read("item_index", "same_day"),
            "catalog": Read("item_catalog", "same_day"),
            "profiles": Read("user_profiles", "same_day"),
            "encoder": Read("grounded_encoder", "own_month"),
            "history": Read("interaction_history", "months_before"),
            "recent": Read("interaction_events", "recent_and_next_days"),
        },
        settings=("data.*", "generation.*", "evaluation.*", "instruction.*", "runtime.seed"), source_parts=("products", "offers"),
        kinds=frozenset({"json", "markdown"}),
    ),
    Stage(
        name="ablation_report", group="evaluation", cadence="month", version="2", on_demand=True, pool=TRAINING,
        artifact="sigma_core.benchmarks.ablation_artifact:AblationReport",
        reads={
            "encoder": Read("grounded_encoder", "same_month"),
            "refit_embeddings": Read("refit_item_embeddings", "same_month"),
            "embeddings": Read("item_embeddings", "first_day"),
            "codebooks": Read("codebooks", "same_month"),
            "pairs": Read("relevance_pairs", "same_month"),
            "id_embeddings": Read("item_id_embeddings", "same_month"),
            "catalogs": Read("item_catalog", "first_catalogs"),
            "profiles": Read("user_profiles", "first_day"),
            "shards": Read("sft_shards", "first_shards"),
            "history": Read("interaction_history", "all_months_before"),
            "recent": Read("interaction_events", "first_days"),
        },
        settings=("ablation.*", "runtime.seed"), runs=ABLATED, source_parts=("products", "offers", "image_vectors"),
        kinds=_TORCH | {"json", "markdown"},
    ),
)  # fmt: skip

STAGES: Final[dict[str, Stage]] = {stage.name: stage for stage in _TABLE}
ORDER: Final[dict[str, int]] = {name: position for position, name in enumerate(STAGES)}
SOURCES: Final = tuple(name for name, stage in STAGES.items() if stage.group == "sources")
GROUPS: Final = tuple(dict.fromkeys(stage.group for stage in _TABLE))
