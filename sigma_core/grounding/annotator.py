"""The optional knowledge annotator: asks a language model what shoppers call for when a product group is what they need.

Off by default. One question a product group, the best-selling first, within a budget of questions a refit; answers are kept by
the hash of model and question, so a rerun asks nothing. Phrases of the test half never come through. Holds no model
(`chat.py`) and no pairs (`views/knowledge.py`). Source: paper, grounding (world knowledge); all else is our choice.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import jinja2
import polars as pl

from sigma_core import columns as c
from sigma_core.artifacts import digest_json, read_json, write_json
from sigma_core.config import GroundingConfig
from sigma_core.grounding.chat import Chat
from sigma_core.tracking import Progress, no_progress

PROMPT: Final = Path(__file__).with_name("annotation_prompt.jinja")
EXAMPLES: Final = 3
MAX_WORDS: Final = 4
MAX_CHARACTERS: Final = 40
_PHRASE: Final = re.compile(r"[a-z0-9][a-z0-9 '&-]*")


@dataclass(frozen=True)
class Annotations:
    """Phrases and the items that answer them, as an LLM sees it.

    Attributes:
        items: phrase -> sorted item ids.
        figures: groups, asked, cached, unusable answers, groups over the budget, phrases dropped as test phrases.
    """

    items: dict[str, list[str]] = field(default_factory=dict)
    figures: dict[str, int] = field(default_factory=dict)


def annotate(
    items: pl.DataFrame,
    chat: Chat,
    config: GroundingConfig,
    cache: Path,
    never: Collection[str],
    progress: Progress = no_progress,
) -> Annotations:
    """Annotations of the product groups (item types) of a catalog's frame `items`.

    Args:
        items: the catalog.
        chat: whom to ask.
        config: `annotator_budget` questions at most, `annotator_phrases` phrases a group.
        cache: folder of answers; each is written as soon as it is there.
        never: phrases that training may not see (the test half), in any case.
        progress: hears of every question.

    Raises:
        ChatError: the model did not answer. What was answered stays in the cache.
    """
    cache.mkdir(parents=True, exist_ok=True)
    groups = _groups(items)
    figures = dict.fromkeys(("groups", "asked", "cached", "unusable", "over_budget", "test_phrases"), 0)
    figures["groups"] = len(groups)
    forbidden = {phrase.lower() for phrase in never}
    found: dict[str, set[str]] = {}
    for number, (subject, category, examples, ids) in enumerate(groups, start=1):
        question = _prompt().render(
            subject=subject, category=category, examples=examples, num_phrases=config.annotator_phrases
        )
        kept = cache / f"{digest_json([chat.name, question])}.json"
        if not kept.exists() and figures["asked"] >= config.annotator_budget:
            figures["over_budget"] += 1
            continue
        figures["cached" if kept.exists() else "asked"] += 1
        if not kept.exists():
            write_json(kept, {"model": chat.name, "subject": subject, "answer": chat.ask(question)})
            progress(number, len(groups), "product groups annotated")
        phrases = phrases_of(read_json(kept)["answer"], config.annotator_phrases)
        figures["unusable"] += not phrases
        for phrase in phrases:
            if phrase in forbidden:
                figures["test_phrases"] += 1
            elif phrase != subject.lower():
                found.setdefault(phrase, set()).update(ids)
    return Annotations({phrase: sorted(found[phrase]) for phrase in sorted(found)}, figures)


def phrases_of(answer: str, most: int) -> list[str]:
    """At most `most` distinct phrases of an answer's JSON, lower-case, one to four plain words; none where there is no JSON."""
    answer = answer.rpartition("</think>")[2]  # a model may think aloud first
    start, end = answer.find("{"), answer.rfind("}")
    try:
        listed: Any = json.loads(answer[start : end + 1])["phrases"] if 0 <= start < end else []
    except (ValueError, KeyError, TypeError):
        listed = []
    out: list[str] = []
    for entry in listed if isinstance(listed, list) else []:
        phrase = " ".join(str(entry).lower().split())
        is_plain = len(phrase) <= MAX_CHARACTERS and len(phrase.split()) <= MAX_WORDS
        if is_plain and _PHRASE.fullmatch(phrase) and phrase not in out:
            out.append(phrase)
    return out[:most]


def _groups(items: pl.DataFrame) -> list[tuple[str, str | None, list[str], list[str]]]:
    # Item type, its category, titles of its best sellers, its item ids; best-selling groups first.
    by_sales = items.filter(pl.col(c.ITEM_TYPE).str.len_chars() > 0).sort(
        c.NUM_EVENTS_56D, c.ITEM_ID, descending=[True, False]
    )
    return list(
        by_sales.group_by(c.ITEM_TYPE, c.CATEGORY, maintain_order=True)
        .agg(
            pl.col(c.TEXT).unique(maintain_order=True).head(EXAMPLES).alias("examples"),
            pl.col(c.ITEM_ID),
            pl.col(c.NUM_EVENTS_56D).sum().alias("sales"),
        )
        .sort("sales", c.ITEM_TYPE, c.CATEGORY, descending=[True, False, False])
        .select(c.ITEM_TYPE, c.CATEGORY, "examples", c.ITEM_ID)
        .iter_rows()
    )


@lru_cache(maxsize=1)
def _prompt() -> jinja2.Template:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 plain text
    return environment.from_string(PROMPT.read_text().strip())
