"""What goes over the wire: requests, answers and their limits, with the examples OpenAPI shows. No logic.

Every text is bounded, numbers are finite, unknown keys are refused, the first wrong entry ends the reading of its list (a body
can hold 100,000 of them). Our choice.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from sigma_core.instruction.tasks import told_tasks

MAX_HISTORY: Final = 500
MAX_BATCH: Final = 32
MAX_N: Final = 100
MAX_EXPLAINED: Final = 24  # prefixes an explanation shows

Id = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Words = Annotated[str, StringConstraints(strip_whitespace=True, max_length=300)]
ServedBy = Literal["model", "u2i", "popularity"]


class Wire(BaseModel):
    """Base of requests: an unknown key is an error, so is NaN."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class HistoryEvent(Wire):
    """One purchase of an inline history."""

    item_id: Id
    days_ago: int = Field(0, ge=0, le=3650, description="whole days before now")
    count: int = Field(1, ge=1, le=1000, description="how often that day")


class Filters(Wire):
    """Which items may be returned. Several values of one field are alternatives; fields add up.

    `only` and `without` take words: "dairy", a category, a type, a brand. Words of query and instruction like "nothing from dairy"
    or "under $5" become the same filters.
    """

    departments: list[Words] = Field([], max_length=50, fail_fast=True)
    categories: list[Words] = Field([], max_length=50, fail_fast=True)
    brands: list[Words] = Field([], max_length=50, fail_fast=True)
    price_bands: list[Words] = Field([], max_length=10, fail_fast=True)
    only: list[Words] = Field(
        [], max_length=20, description="words of which an item must fit one", fail_fast=True
    )
    without: list[Words] = Field([], max_length=20, description="words that no item may fit", fail_fast=True)
    min_price: float | None = Field(None, ge=0, le=1e9, description="of the typical unit price, included")
    max_price: float | None = Field(
        None, ge=0, le=1e9, description="included; an item without a known price does not pass a bound"
    )
    only_items: list[Id] | None = Field(
        None, max_length=20_000, description="ids in stock: all that may be returned", fail_fast=True
    )
    exclude_items: list[Id] = Field([], max_length=1000, fail_fast=True)
    only_new: bool = Field(False, description="items launched in the last weeks only")
    owned: Literal["task", "keep", "hide_items", "hide_texts"] = Field(
        "task",
        description="items bought before: as the task says, kept, left out, or left out with their likes",
    )


class Steps(Wire):
    """Settings of the three generation steps; none means the model's own."""

    num_prefixes: int | None = Field(None, ge=1, le=256, description="K, prefixes searched")
    prefix_mass: float | None = Field(
        None, gt=0, le=1, description="search prefixes until they hold this probability, at most K"
    )
    items_per_prefix: int | None = Field(None, ge=1, le=200, description="M, items kept under a prefix")
    temperature: float = Field(
        1.0, ge=0.05, le=20, description="times the calibrated temperature; more is flatter"
    )


class RecommendRequest(Wire):
    """Whom to recommend what. Without a user and without history it is a cold request, and is answered too."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": "1", "query": "ice cream", "n": 5},
                {"user_id": "1", "task": "discover", "filters": {"departments": ["grocery"]}},
                {
                    "profile": "aged 35 to 44, two adults and kids",
                    "history": [{"item_id": "1082185", "days_ago": 2}, {"item_id": "877391", "days_ago": 9}],
                    "instruction": "Halloween is coming, what could we need?",
                    "explain": True,
                },
                {},
            ]
        }
    )

    user_id: Id | None = Field(None, description="a known user; an unknown one is answered as a cold one")
    profile: Annotated[str, StringConstraints(max_length=500)] | None = Field(
        None, description="inline profile in words, instead of user_id"
    )
    history: list[HistoryEvent] | None = Field(
        None, max_length=MAX_HISTORY, description="inline history, instead of user_id", fail_fast=True
    )
    task: Words | None = Field(None, description=told_tasks())
    query: Words | None = Field(None, description="what the user types")
    category: Words | None = Field(None, description="a category of the catalog")
    instruction: Words | None = Field(None, description="free words, used word for word")
    filters: Filters = Filters()
    n: int = Field(10, ge=1, le=MAX_N)
    explain: bool = Field(False, description="show the three steps behind the list")
    steps: Steps = Steps()
    deadline_ms: int | None = Field(
        None, ge=1, le=30_000, description="budget; past it the answer is a prepared list"
    )

    @model_validator(mode="after")
    def _one_kind_of_user(self) -> "RecommendRequest":
        if self.user_id is not None and (self.profile is not None or self.history is not None):
            raise ValueError("give user_id, or profile and history, not both")
        return self


class BatchRequest(Wire):
    """Several requests, answered in one go."""

    requests: list[RecommendRequest] = Field(min_length=1, max_length=MAX_BATCH, fail_fast=True)


class EventIn(Wire):
    """Something a user did. What no event can be is refused by itself, with a reason."""

    user_id: Id
    item_id: Id
    event_time: Annotated[str, StringConstraints(max_length=40)] = Field(
        description="ISO 8601; with an offset it is taken as UTC"
    )
    event_type: Literal["purchase", "view", "rating"] = "purchase"
    session_id: Annotated[str, StringConstraints(max_length=128)] | None = None
    quantity: float | None = None


class EventsRequest(Wire):
    """Events in any order. Sending them again changes nothing."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"events": [{"user_id": "1", "item_id": "1082185", "event_time": "2017-10-24T09:30:00"}]}
            ]
        }
    )

    events: list[EventIn] = Field(min_length=1, max_length=500, fail_fast=True)


class RefusedEvent(BaseModel):
    """An event that was not taken."""

    position: int
    reason: str


class EventsAnswer(BaseModel):
    """What became of the events. They are stored durably when this arrives; lists follow within seconds."""

    accepted: int
    known: int = Field(description="were here before")
    refused: list[RefusedEvent]


# ------------------------------------------------------------------------------------------ answers
class Item(BaseModel):
    """An item of the catalog."""

    item_id: str
    title: str
    category: str | None
    department: str | None
    brand: str | None
    price_band: str | None
    is_new: bool


class RankedItem(Item):
    """An item of a list. Probabilities are there when the model made the list."""

    rank: int
    score: float = Field(
        description="P(item | request) from the model; share of sales from popularity; cosine from search"
    )
    prefix: list[int] | None = None
    prefix_probability: float | None = Field(None, description="step 1: P(prefix | request)")
    item_probability: float | None = Field(
        None,
        description="step 2: P(item | request, prefix); none too in a prepared list with generation.catalog_fusion",
    )
    owned: bool = Field(False, description="bought before")


class ExplainedItem(BaseModel):
    """An item under its prefix."""

    item_id: str
    title: str
    item_probability: float
    score: float
    nearest_history: str | None = Field(
        None, description="title of the nearest item of the history, itself left out"
    )
    nearest_cosine: float | None = None


class ExplainedPrefix(BaseModel):
    """A searched prefix: step 1's probability, and step 2's distribution inside it."""

    prefix: list[int]
    label: str = Field(description="what most of its items are")
    probability: float
    num_items: int
    items: list[ExplainedItem]


class Explained(BaseModel):
    """The three steps behind a list."""

    sigma: float = Field(description="spread of the top prefix probabilities")
    sharpness: float = Field(description="sigma / tau: what cosines inside a prefix are multiplied by")
    num_prefixes: int
    items_per_prefix: int
    temperature: float
    prefix_mass: float = Field(description="probability at which the search of prefixes stops")
    covered: float = Field(description="probability of all searched prefixes together")
    prefixes: list[ExplainedPrefix]


class TakenFor(BaseModel):
    """What free words without a task were taken for."""

    task: str = Field(description='the nearest task; "query" for any request that names a thing')
    confidence: float = Field(description="probability that it is that task, by the text encoder")
    followed: bool = Field(
        description="whether its preset answers; else just_for_you does, and the words still reach the model"
    )


class Answer(BaseModel):
    """A ranked list, and which machinery made it."""

    served_by: ServedBy = Field(
        description="model; u2i: the user's prepared list, and popular items where it is too short; popularity"
    )
    user_known: bool
    task: str
    instruction: str = Field(description="the words the model read")
    focus: str = Field(description="what the request was understood to be about")
    understood: list[str] = Field([], description="constraints read out of the words, used as filters")
    taken_for: TakenFor | None = Field(None, description="of an instruction without a task")
    day: str
    model: str
    milliseconds: float
    items: list[RankedItem]
    prompt_tokens: int | None = Field(None, description="tokens of profile and history")
    cached_tokens: int | None = Field(None, description="of them, how many the session cache had already")
    explanation: Explained | None = None
    note: str = Field(
        "", description="why a list is short or not the model's; a price in the words that filters nothing"
    )


class BatchAnswer(BaseModel):
    """Answers in the order of the requests."""

    answers: list[Answer]


class ItemList(BaseModel):
    """Items without a user: search, similar items."""

    day: str
    items: list[RankedItem]


class ShownEvent(BaseModel):
    """An item of a user's history as a card."""

    item_id: str
    title: str
    category: str | None
    days_ago: int
    count: int


class UserCard(BaseModel):
    """What is known of a user."""

    user_id: str
    profile: str
    recent: list[ShownEvent]
    favorites: list[ShownEvent]


class UserList(BaseModel):
    """Some users."""

    total: int
    user_ids: list[str]


class About(BaseModel):
    """What this server answers from, and what a request may say."""

    day: str
    model: str
    num_items: int
    num_users: int
    tasks: dict[str, str]
    u2i_tasks: list[str]
    departments: list[str]
    categories: list[str]
    brands: list[str]
    price_bands: list[str]
    num_prefixes: int
    items_per_prefix: int
    season: str
    holiday: str
    deadline_ms: int
    takes_events: bool


class Problem(BaseModel):
    """Every error has this form."""

    code: str
    message: str
    request_id: str


ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Problem, "description": "not JSON, or a host this server does not answer to"},
    401: {"model": Problem, "description": "no valid API key"},
    404: {"model": Problem, "description": "no such item, list or page"},
    409: {"model": Problem, "description": "this server stays with one day and takes no events"},
    413: {"model": Problem, "description": "the body is too large"},
    422: {"model": Problem, "description": "the request breaks a rule; the message says which"},
    429: {"model": Problem, "description": "too many requests for this key"},
}
