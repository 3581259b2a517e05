"""The sections of the config: frozen pydantic classes, one a stage, unknown keys refused.

A setting is written once, with its bounds and what it means; those of serving are in `config_serving.py`, the ablation's in
`config_ablation.py`. `config.py` puts them together and reads them from profiles, files and the command line. No I/O.
Dimensions, temperatures and weights that the paper leaves open say "our choice" in PAPER.md.
"""

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Section(BaseModel):
    """Base of every section: immutable, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RuntimeConfig(Section):
    """Machine settings. Trainings repeat bit by bit with the same number of threads, all else with any."""

    threads: int = Field(2, ge=1, description="CPU threads of torch, faiss and BLAS; 1 on a busy machine")
    device: str = Field(
        "cpu",
        description="torch device of trainings, embedding and answers: cpu, cuda, or one of several (cuda:1)",
    )
    seed: int = Field(17, description="seed of every random choice")
    deterministic: bool = Field(
        True, description="trainings repeat bit by bit, with more than one thread too"
    )

    @field_validator("device")
    @classmethod
    def _possible(cls, device: str) -> str:
        if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
            raise ValueError(
                "needed cpu, cuda, or one of several like cuda:1; others (mps, xpu) are not wired"
            )
        return device


class DataConfig(Section):
    """What the catalog of a day holds, what its targets are (tasks.md)."""

    country: str = Field("US", description="country whose holidays count (library `holidays`)")
    catalog_window_days: int = Field(
        56, ge=1, description="an item stays in the catalog this long after its sales"
    )
    min_buyers: int = Field(2, ge=1, description="distinct users an item needs within the window")
    launch_days: int = Field(28, ge=1, description="an item is new for this long after its first sale")
    left_censored_days: int = Field(
        90, ge=0, description="first sales this early in the data are no launches"
    )
    horizon_days: int = Field(7, ge=1, description="length of a target window")
    tail_share: float = Field(0.2, gt=0, lt=1, description="share of 56-day volume that makes the long tail")
    min_category_items: int = Field(50, ge=1, description="a category needs this many items to be asked for")

    @field_validator("country")
    @classmethod
    def _with_holidays(cls, country: str) -> str:
        from sigma_core.data.calendar import check_country  # costs time, and the default needs no check

        check_country(country)
        return country


class GroundingConfig(Section):
    """Stage (a): item ID teacher, relevance pairs, grounded text encoder."""

    id_dim: int = Field(64, ge=2, description="width of v_ID")
    id_window_days: int = Field(92, ge=7, description="days before the refit that the ID teacher sees")
    id_iterations: int = Field(15, ge=1, description="ALS iterations")
    id_regularization: float = Field(0.05, ge=0, description="ALS regularization")
    id_alpha: float = Field(10.0, gt=0, description="ALS confidence per event")
    id_min_users: int = Field(2, ge=1, description="distinct users an item needs in the window to get a v_ID")
    id_folds: int = Field(4, ge=0, description="folds of users, each trained on v_ID of others; 0, 1: off")
    backbone: str = Field(
        "minilm",
        min_length=1,
        description="minilm, smollm2-135m, qwen3-0.6b, a transformers folder, or a Hub id in the local cache",
    )
    pooling: Literal["auto", "mean", "last", "cls"] = Field(
        "auto",
        description="of token states; auto: what the folder's 1_Pooling says, else last token for decoder LLMs, mean for encoders",
    )
    padding_side: Literal["right", "left"] = Field(
        "right", description="left for decoder LLMs only, checked at load; same vectors"
    )
    text_dim: int = Field(128, ge=2, description="width of v_text, after the down-projection")
    lexical_dim: int = Field(
        512, ge=0, description="width of the hashed words that requests are also matched by; 0: meaning alone"
    )
    lexical_weight: float = Field(
        0.5,
        ge=0,
        description="weight of the cosine of words beside that of meaning (1); a request decides how much of it",
    )
    pad_buckets: tuple[int, ...] = Field(
        (8, 12, 16, 20, 22, 24, 26, 28, 32), description="fixed pad lengths of encoded texts, in tokens"
    )
    lora_rank: int = Field(8, ge=1, description="rank of the encoder's LoRA")
    lora_alpha: int = Field(16, ge=1, description="its scale is alpha over rank")
    lora_targets: tuple[str, ...] = Field(
        ("query", "value"), description="linear layers of the backbone that get LoRA"
    )
    lora_layers: int = Field(
        2, ge=1, description="LoRA on this many top layers; the layers below are run once"
    )
    train_steps: int = Field(24, ge=1, description="steps of LoRA and projection; 2.9 CPU seconds each")
    batch_size: int = Field(128, ge=2, description="pairs a step; every other pair is a negative")
    cached_texts: int | None = Field(
        None,
        ge=1,
        description="texts that hold a graph at a time (gradient caching); none: all of a step. Same gradients",
    )
    learning_rate: float = Field(1e-3, gt=0, description="of LoRA")
    head_learning_rate: float = Field(
        3e-4, gt=0, description="of the projection; more forgets what words mean"
    )
    temperature_text: float = Field(0.05, gt=0, description="tau of P_text")
    temperature_id: float = Field(0.10, gt=0, description="tau of P_ID")
    kd_weight: float = Field(0.5, ge=0, description="weight of L_KD beside L_CL")
    view_weights: dict[str, float] = Field(
        {"collaborative": 0.35, "search": 0.4, "knowledge": 0.25, "visual": 0.2},
        description="share of each view in a batch, among the views that have pairs (visual needs image vectors)",
    )
    annotator: Literal["off", "endpoint", "local"] = Field(
        "off",
        description="LLM that adds phrases to the knowledge view; endpoint: OpenAI-compatible, local: transformers",
    )
    annotator_model: str = Field(
        "", description="model of the annotator: the endpoint's name, a folder, a Hub id"
    )
    annotator_url: str = Field(
        "https://api.openai.com/v1", description="endpoint; its key: SIGMA_ANNOTATOR_API_KEY"
    )
    annotator_budget: int = Field(300, ge=0, description="questions a refit asks at most; answers are cached")
    annotator_phrases: int = Field(6, ge=1, description="phrases kept of an answer")
    annotator_max_tokens: int = Field(200, ge=1, description="longest answer")
    pairs_per_view: int = Field(20_000, ge=1, description="most pairs kept of a view")
    max_texts: int = Field(
        2000, ge=2, description="distinct texts a training uses; each runs once through all layers"
    )
    head_steps: int = Field(200, ge=0, description="steps of the down-projection alone, before LoRA")
    holdout_share: float = Field(
        0.05, ge=0, lt=1, description="relevance pairs kept out of training, to measure it"
    )

    @field_validator("backbone")
    @classmethod
    def _reads_texts(cls, backbone: str) -> str:
        if backbone.strip() in ("", "mini"):
            raise ValueError("needed a pre-trained model, such as minilm or a transformers folder")
        return backbone


class TokenizationConfig(Section):
    """Stage (b): residual codebooks and the prefix that is used."""

    num_levels: int = Field(4, ge=1, le=8, description="codes of a full semantic ID")
    codebook_size: int = Field(
        1024,
        ge=2,
        description="entries per level; many small prefix groups let step 1 rank favourites exactly",
    )
    prefix_length: int = Field(1, ge=1, le=4, description="codes that become tokens (SID1ID = 1)")
    keep_numbering: bool = Field(
        True,
        description="a refit renumbers its codes so that items keep the previous month's where clusters allow",
    )
    beam: int = Field(4, ge=1, description="beam of the residual quantizer's encoder")
    max_group_ratio: float = Field(4.0, gt=1, description="largest prefix group over the mean one, at most")
    collaborative_weight: float = Field(
        0.0, ge=0, description="share of v_ID in the space level 0 is clustered in"
    )


class InstructionConfig(Section):
    """Stage (c), data side: contexts, tasks, shards."""

    shard_stride_days: int = Field(3, ge=1, description="a shard is built every so many days")
    users_per_shard: int = Field(320, ge=1, description="users a shard holds, chosen by hash of user and day")
    max_recent: int = Field(16, ge=1, description="most recent purchases in a prompt")
    max_favorites: int = Field(
        512, ge=1, description="favourites kept, by decayed count; the pointer reads them"
    )
    prompt_favorites: int = Field(48, ge=1, description="the first of them, which are tokens of the prompt")
    favorite_half_life_days: float = Field(
        120.0, gt=0, description="decay of the count that orders favourites"
    )
    max_requests_per_task: int = Field(
        3, ge=1, description="query and category requests a user and cut, at most"
    )
    max_targets: int = Field(40, ge=1, description="targets kept of one example, by hash")


class ModelConfig(Section):
    """Stage (c), model side: backbone, fusion, heads."""

    backbone: str = Field(
        "mini",
        min_length=1,
        description="mini, smollm2-135m, qwen3-0.6b, qwen3-4b, a transformers decoder folder, or a Hub id in the local cache",
    )
    hidden_dim: int = Field(128, ge=8, description="width of the mini backbone")
    num_layers: int = Field(2, ge=1, description="layers of the mini backbone")
    num_heads: int = Field(4, ge=1, description="attention heads of the mini backbone")
    item_dim: int = Field(64, ge=2, description="width of v~, the fused unique item vector")
    fusion_hidden: int = Field(128, ge=2, description="hidden width of the fusion")
    modality_dropout: float = Field(
        0.15, ge=0, lt=1, description="chance that v_ID or v_img is hidden in training"
    )
    temperature: float = Field(0.2, gt=0, description="tau of L_InfoNCE in training")
    pointer: bool = Field(True, description="heads may copy from the history; off: an ablation")
    words: bool = Field(
        True, description="heads compare a request's words with prefixes and items; off: an ablation"
    )
    affinity: bool = Field(
        True, description="heads know how much the user bought under each prefix; off: an ablation"
    )
    prior: bool = Field(True, description="heads know how much is bought; off: an ablation")
    item_vectors: bool = Field(
        True, description="items enter and are ranked with v~; off: by their prefix alone, an ablation"
    )
    free_items: bool = Field(False, description="v~ has a free part per item; on: an ablation")

    @field_validator("backbone")
    @classmethod
    def _is_decoder(cls, backbone: str) -> str:
        if backbone.strip() in ("", "minilm"):
            raise ValueError(
                "needed a decoder: mini, smollm2-135m, qwen3-0.6b, qwen3-4b, a folder, or a Hub id"
            )
        return backbone


class TrainingConfig(Section):
    """Optimization of `sigma_base` and of the day's LoRA adapter."""

    base_window_days: int = Field(92, ge=1, le=99, description="days of shards before the month")
    base_steps: int = Field(400, ge=1, description="steps of the month's base")
    base_learning_rate: float = Field(2e-3, gt=0, description="peak, of the base")
    gain_learning_rate_ratio: float = Field(
        10.0, gt=0, description="gains (single numbers that scale a whole head) learn this much faster"
    )
    lora_window_days: int = Field(21, ge=1, le=99, description="days of shards before the day")
    lora_steps: int = Field(40, ge=1, description="steps of the day's adapter")
    lora_learning_rate: float = Field(1e-3, gt=0, description="peak, of the adapter")
    lora_rank: int = Field(8, ge=1, description="rank of LoRA on the backbone")
    lora_alpha: int = Field(16, ge=1, description="its scale is alpha over rank")
    contexts_per_batch: int = Field(16, ge=1, description="users a step; a user's tasks share one history")
    bucket_steps: int = Field(
        1,
        ge=1,
        description="what so many steps drew is cut into batches of like length, for less padding; 1: as drawn",
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of the backbone's products in training (autocast); weights, heads and losses are float32",
    )
    branches_per_context: int = Field(5, ge=1, description="requests of a user in one step")
    targets_per_branch: int = Field(6, ge=1, description="target prefixes of a request in one step")
    weight_ntp: float = Field(1.0, ge=0, description="of L_NTP")
    weight_id: float = Field(1.0, ge=0, description="of the in-prefix L_InfoNCE")
    weight_catalog: float = Field(0.2, ge=0, description="of the catalogue-wide item loss")
    weight_dense: float = Field(
        0.0, ge=0, description="of dense supervision: each recent purchase predicts the new ones after it"
    )
    weight_item_text: float = Field(
        0.0,
        ge=0,
        description="of item to text: an LLM backbone says an item's words, given prefix and vector; mini cannot",
    )
    item_texts: int = Field(16, ge=1, description="items of a step whose words that loss reads")
    vector_dropout: float = Field(
        0.3, ge=0, lt=1, description="chance that a leaf ranks items by counts and words alone, to learn to"
    )
    catalog_leaves: int = Field(96, ge=1, description="leaves of a step that the catalogue-wide loss reads")
    catalog_negatives: int | None = Field(
        None, ge=1, description="items drawn for that loss, with logQ correction; none: all items, exactly"
    )
    alignment_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="of a step's users: words to items without a history, on top of the others",
    )
    warmup_share: float = Field(0.1, ge=0, lt=1, description="of the steps; then cosine decay")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW")
    grad_clip: float = Field(1.0, gt=0, description="largest gradient norm")
    task_weights: dict[str, float] = Field(
        {
            "just_for_you": 3.0,
            "query": 1.5,
            "category": 1.0,
            "longtail": 1.0,
            "discover": 1.0,
            "season": 1.0,
            "holiday": 1.5,
            "trending": 0.5,
            "campaign": 0.5,
        },
        description="relative share of a task among the requests trained on",
    )


class GenerationConfig(Section):
    """Stage (d): the three steps."""

    num_prefixes: int = Field(64, ge=1, description="K, prefixes searched")
    prefix_mass: float = Field(
        1.0,
        gt=0,
        le=1,
        description="search prefixes until they hold this probability, at most K; 1: K, fixed",
    )
    items_per_prefix: int = Field(20, ge=1, description="M, items kept under each prefix")
    sigma_top: int = Field(8, ge=2, description="K_sigma: APF's sigma is that of so many top beam scores")
    sigma_floor: float = Field(1e-3, gt=0, description="lower bound of sigma")
    sharpness_range: float = Field(
        2.0,
        ge=1,
        description="sigma/tau stays within that of a typical sigma divided and multiplied by this; 1 turns APF off",
    )
    apf_temperature: float | None = Field(
        None, description="tau of APF; none: calibrated on held-out users with the checkpoint"
    )
    catalog_fusion: bool = Field(
        False,
        description="step 3 also weighs how well an item fits among the whole catalog, by the checkpoint's weight; off: pure APF",
    )
    collapse_text_groups: bool = Field(
        True, description="a list shown to a person holds one item of a text group"
    )


class EvaluationConfig(Section):
    """How a day is judged."""

    sample_users: int | None = Field(None, description="users judged, chosen by hash; none = all")
    lift_users: int | None = Field(None, description="users the instruction lift is measured on; none = all")
    max_requests_per_task: int | None = Field(
        None, description="query and category requests a user; none = all"
    )
    bootstrap_samples: int = Field(1000, ge=100, description="household resamples of an interval")
    min_targets: int = Field(200, ge=1, description="a task below this is underpowered")
    min_users: int = Field(100, ge=1, description="a task below this is underpowered")


class PromotionConfig(Section):
    """When a new adapter is promoted (`evaluation/promotion.py`): margins, factors and guardrails."""

    margin_share: float = Field(
        0.05, ge=0, description="loss of recall@20 that does not matter, as a share of the promoted model's"
    )
    margin_floor: float = Field(0.005, ge=0, description="the margin is never smaller than this much recall")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the upper bound of the loss, one-sided")
    bootstrap_samples: int = Field(1000, ge=100, description="household resamples of that bound")
    sample_households: int | None = Field(
        200, ge=1, description="households compared on, chosen by hash; none = all"
    )
    max_requests_per_task: int | None = Field(2, ge=1, description="query and category requests a household")
    min_targets: int = Field(200, ge=1, description="a task below this is underpowered and does not block")
    min_households: int = Field(100, ge=1, description="a task below this is underpowered too")
    probe_loss_factor: float = Field(
        1.05, gt=0, description="an adapter's probe loss may be at most this times the base's"
    )
    guardrail_households: int = Field(64, ge=1, description="households that guardrails are measured on")
    min_coverage: float = Field(
        0.05, ge=0, le=1, description="distinct items listed, over the most there could be, at least"
    )
    coverage_ratio: float = Field(0.8, ge=0, description="and at least this times the promoted model's")
    cold_ratio: float = Field(
        0.5, ge=0, description="share of new items listed, at least this times the promoted model's"
    )
    cold_slack: float = Field(0.002, ge=0, description="less this, for few new items are listed at all")
    max_latency_ms: float = Field(
        2000.0, gt=0, description="median CPU time of one household's answer, at most"
    )
    refit_holdout_days: int = Field(
        7,
        ge=0,
        le=27,
        description="a refit leaves out the last days before its month and is judged on them; 0 = on none",
    )
