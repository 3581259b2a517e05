"""The arms of the ablation, as a table: what each changes of SIGMA, in settings, tokens, grounding, words or inputs.

An arm is a row here; training and asking it is `sigma_assets/benchmarks/`, judging it `arm_scores.py`. Our own additions to the
heads (pointer, words, prior, affinity) stay in every arm but their own, so that an arm differs from SIGMA in one thing. Source: paper,
offline results (the first five), issue 3 and tasks.md (the rest).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from sigma_core.config import SigmaConfig
from sigma_core.instruction.tasks import TASKS

SIGMA: Final = "sigma"
OPEN: Final = "open"
Words = Literal["own", "open", "wrong", "absent", "plain", "unseen"]
WHOLE_CATALOG: Final = 0  # a prefix length: every item under one prefix
FULL_ID: Final = -1  # a prefix length: all codes that the codebooks have


@dataclass(frozen=True)
class Arm:
    """One row.

    Attributes:
        name: on the command line and in the report.
        title: what it is, in words.
        settings: settings that differ from SIGMA's, by section.
        prefix: prefix length instead of the root's; `WHOLE_CATALOG` and `FULL_ID` are special.
        raw_text: items are described by the text encoder as it comes, without grounding.
        no_view: the relevance pairs of this view are left out.
        no_kd: grounding without distillation from v_ID.
        no_folds: trained on v_ID of everyone's purchases, those it shall predict included.
        task: trained on this task alone, and judged on it alone.
        reads: it trains nothing and asks SIGMA's model otherwise: in other words, with less input, or with other settings of
            `generation`.
        words: how requests are worded.
        without: an input that requests lack.
        constant_sigma: step 3 with a constant in the place of APF's sigma, tuned on validation users.
        reference: the arm that it is compared with.
    """

    name: str
    title: str
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    prefix: int | None = None
    raw_text: bool = False
    no_view: str = ""
    no_kd: bool = False
    no_folds: bool = False
    task: str = ""
    reads: bool = False
    words: Words = "own"
    without: Literal["", "history", "profile"] = ""
    constant_sigma: bool = False
    reference: str = SIGMA

    @property
    def grounding(self) -> str:
        """Name of the grounding it needs; "" for the root's own."""
        if self.raw_text:
            return "raw_text"
        return "no_kd" if self.no_kd else f"no_{self.no_view}" if self.no_view else ""

    def lacks(self, config: SigmaConfig) -> str:
        """The first of its settings that this release does not have, as `section.key`; "" when all exist."""
        known = config.model_dump()
        missing = (f"{s}.{k}" for s, values in self.settings.items() for k in values if k not in known[s])
        return next(missing, "")


def _model(name: str, title: str, **values: Any) -> Arm:
    return Arm(name, title, {"model": values})


def _training(name: str, title: str, **values: Any) -> Arm:
    return Arm(name, title, {"training": values})


def _asked(name: str, title: str, words: Words, reference: str = OPEN) -> Arm:
    return Arm(name, title, reads=True, words=words, reference=reference)


_TABLE: Final = (
    Arm(SIGMA, "SIGMA: prefix and unique vector, in and out"),
    Arm(
        "gr_sid", "GR (SID): four-token semantic IDs alone, beams over all four", prefix=FULL_ID,
        settings={"model": {"item_vectors": False}, "training": {"weight_catalog": 0.0}},
    ),
    Arm("gr_id", "GR (ID): unique vectors alone, over the whole catalog", prefix=WHOLE_CATALOG),
    Arm("no_grounding", "without grounding: the frozen text embedding", raw_text=True),
    Arm("no_apf", "without APF: trained and ranked with a constant, tuned", {"generation": {"sharpness_range": 1.0}}),
    Arm("no_kd", "grounding without distillation from v_ID", no_kd=True),
    Arm("no_folds", "trained on v_ID that knows the answers (ours: on that of other users)", no_folds=True),
    *(Arm(f"no_{view}", f"grounding without the {view} view", no_view=view)
      for view in ("collaborative", "search", "knowledge", "visual")),
    *(Arm(f"only_{task}", f"specialist: {task} alone, as many of its examples", task=task) for task in TASKS),
    Arm("prefix_2", "prefix length 2", prefix=2),
    _model("free_items", "v~ with a free part per item", free_items=True),
    _model("no_pointer", "heads that copy nothing from the history (ours)", pointer=False),
    _model("no_words", "heads that do not compare words with items (ours)", words=False),
    _model("no_prior", "heads that do not know what is bought (ours)", prior=False),
    _model("no_affinity", "heads that do not know what the user buys of a prefix (ours)", affinity=False),
    _model(
        "paper_heads", "without pointer, words, prior and affinity: the paper's heads",
        pointer=False, words=False, prior=False, affinity=False,
    ),
    _training("no_catalog_loss", "without the catalogue-wide loss", weight_catalog=0.0),
    _training("dense", "with dense supervision of history positions", weight_dense=0.1),
    Arm(
        "catalog_fusion", "SIGMA ranked with the catalogue-wide score fused into step 3", {"generation": {"catalog_fusion": True}},
        reads=True,
    ),
    Arm("constant_sigma", "SIGMA ranked with a constant sigma, tuned on validation users", reads=True, constant_sigma=True),
    Arm("no_history", "SIGMA asked without the history", reads=True, without="history"),
    Arm("no_profile", "SIGMA asked without the profile", reads=True, without="profile"),
    _asked(OPEN, "SIGMA, right wording, no task's history filter", "open", SIGMA),
    _asked("wrong_words", "another task's wording", "wrong"),
    _asked("absent_words", "no instruction at all", "absent"),
    _asked("plain_words", "the just-for-you wording", "plain"),
    _asked("unseen_words", "a wording never trained on", "unseen"),
)  # fmt: skip

ARMS: Final[dict[str, Arm]] = {arm.name: arm for arm in _TABLE}
HEADLINE: Final = (SIGMA, "gr_sid", "gr_id", "no_grounding", "no_apf")
PAPER_RATIOS: Final = {"gr_sid": 1.63, "gr_id": 1.15, "no_grounding": 1.30, "no_apf": 1.14}
"""SIGMA over each arm at HR@20 in the paper, on its private data."""


def chosen_arms(names: Sequence[str]) -> list[Arm]:
    """The arms of these names, in the table's order, each with the arm it is compared with; `all` and `headline` are groups.

    Raises:
        ValueError: an unknown name; the message lists all.
    """
    groups = {"all": tuple(ARMS), "headline": HEADLINE}
    wanted = {arm for name in names for arm in groups.get(name, (name,))}
    if unknown := sorted(wanted - ARMS.keys()):
        raise ValueError(f"unknown arms {unknown}; there are all, headline, {', '.join(ARMS)}.")
    wanted |= {ARMS[name].reference for name in wanted} | {SIGMA}
    return [arm for name, arm in ARMS.items() if name in wanted]
