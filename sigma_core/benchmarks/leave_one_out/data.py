"""The benchmark's data: user sequences and item texts, cut by leave-one-out. No model, no metric.

A folder holds `sequences.txt` (a line a user: user id, then item ids in order) and `items.jsonl` (item_id, title, categories).
The last item of a user tests, the one before it validates. Our choice of form; the split is the field's.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from sigma_core.artifacts import digest_json

IntArray = npt.NDArray[np.int64]
Protocol = Literal["strict", "refit"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("strict", "refit")
LEAST_LENGTH: Final = 3  # something to read, the validation item, the test item


@dataclass(frozen=True)
class Sequences:
    """Users' items in order, as rows of `item_ids`.

    Attributes:
        name: the folder's name.
        item_ids: N ids in the file's order.
        titles: their texts.
        categories: their category labels.
        rows: item rows of each user, oldest first.
    """

    name: str
    item_ids: list[str]
    titles: list[str]
    categories: list[list[str]]
    rows: list[IntArray]

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.item_ids)

    @cached_property
    def digest(self) -> str:
        """Digest of items, texts and sequences."""
        return digest_json([self.item_ids, self.titles, self.categories, [row.tolist() for row in self.rows]])

    def train(self, protocol: Protocol) -> list[IntArray]:
        """What a model of the protocol may learn from: `strict` all but the last two items of a user, `refit` all but the last."""
        held_out = 2 if protocol == "strict" else 1
        return [row[:-held_out] for row in self.rows]

    def validation(self) -> "Split":
        """Histories up to the validation item, and that item."""
        return Split([row[:-2] for row in self.rows], np.array([row[-2] for row in self.rows]))

    def test(self) -> "Split":
        """Histories up to the test item (the validation item included), and the test item."""
        return Split([row[:-1] for row in self.rows], np.array([row[-1] for row in self.rows]))


@dataclass(frozen=True)
class Split:
    """A question for each user: the item after `histories[u]`; `targets` int64 [users] answers it."""

    histories: list[IntArray]
    targets: IntArray

    def sample(self, number: int) -> "Split":
        """At most `number` of the users, always the same ones."""
        users = np.random.default_rng(0).permutation(len(self.targets))[:number]
        return Split([self.histories[u] for u in users], self.targets[users])


def load_sequences(folder: Path) -> Sequences:
    """Read the folder.

    Raises:
        ValueError: a file is missing, an item is unknown or comes twice, or a user has fewer than three items; the message
            names the line.
    """
    for name in ("sequences.txt", "items.jsonl"):
        if not (folder / name).is_file():
            raise ValueError(
                f"{folder} has no {name}; needed sequences.txt (user, then item ids in order) and items.jsonl (item_id, title, "
                "categories). `sigma benchmark sequences --source SOURCE --path DIR --out FOLDER` makes such a folder; BENCHMARKS.md "
                "says where public data is."
            )
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines() if line.strip()]
    ids = [str(item["item_id"]) for item in items]
    row_of = {item_id: row for row, item_id in enumerate(ids)}
    if len(row_of) != len(ids):
        raise ValueError(
            f"{folder / 'items.jsonl'}: {len(ids) - len(row_of)} item ids come twice; needed one line an item."
        )
    rows = [
        _rows_of(line, row_of, f"{folder / 'sequences.txt'}, line {number}")
        for number, line in enumerate((folder / "sequences.txt").read_text().splitlines(), start=1)
        if line.strip()
    ]
    if not rows:
        raise ValueError(f"{folder / 'sequences.txt'} holds no user.")
    return Sequences(
        folder.resolve().name,
        ids,
        [str(item.get("title") or "") for item in items],
        [[str(label) for label in item.get("categories") or ()] for item in items],
        rows,
    )


def _rows_of(line: str, row_of: dict[str, int], where: str) -> IntArray:
    user, *items = line.split()
    unknown = [item for item in items if item not in row_of]
    if unknown:
        raise ValueError(
            f"{where}: user {user} has {len(unknown)} items that items.jsonl lacks (first: {unknown[0]})."
        )
    if len(items) < LEAST_LENGTH:
        raise ValueError(
            f"{where}: user {user} has {len(items)} items; needed {LEAST_LENGTH} (one to read, one to validate, one to test). "
            "Drop such users first."
        )
    return np.array([row_of[item] for item in items], np.int64)
