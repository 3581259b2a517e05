"""Batches: contexts and requests become token trees in which a user's requests share one history.

One row of a batch is one user:  trunk = profile words, favourites, recent purchases (oldest first);  then a branch a
request = instruction words, focus vector, <|start|>;  then a leaf a target or beam = prefix tokens, <q>.  A token sees the
trunk, its own branch and its own leaf, so one forward pass serves all of a user's requests (our choice: it is what makes two
CPU cores enough). What changes least stands first: a new purchase is appended to the trunk, whose cached keys and values
stay what they were. Holds the layout and the mask only; embeddings belong to `model/sigma.py`, templates to `tasks.py`.

Source: paper, multi-task SFT: profile, history as (<a> v~) pairs, instruction, <|end|><|start|> <a_target> <q>.

Shape legend: B users, L positions, J history items, R requests, M leaves, P prefix length, S statistics, V aspects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final, NamedTuple, Protocol

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.instruction.aspects import aspects_of

# special tokens, rows of one small table
USER, RECENT, FAVORITES, TASK, START, QUERY = range(6)
NUM_SPECIALS = 6
# roles of an item vector in a prompt
ROLE_RECENT, ROLE_FAVORITE, ROLE_FOCUS = range(3)
NUM_ROLES = 3
NUM_STATS = 4  # logs of: 1 + count, 1 + age in days, small + slowly decayed count, small + fast decayed count
SMALL_COUNT = 0.05


class WordsLike(Protocol):
    """Whatever turns a text into token ids."""

    def ids(self, text: str) -> np.ndarray:
        """Token ids, int64."""


class Prompt(NamedTuple):
    """The history items a prompt tells, when they are not simply those of the context: what a session's checkpoint held,
    and what came since. Statistics are those of the moment the tokens were written, so a newer event changes none of them.
    """

    favorite_rows: np.ndarray  # int64, strongest first
    favorite_stats: np.ndarray  # float32 (J, 4)
    recent_rows: np.ndarray  # int64, oldest first; an item may stand here twice
    recent_stats: np.ndarray  # float32 (J, 4)


@dataclass(frozen=True)
class UserContext:
    """A user's profile and history, items as rows of the item table. The heads read `recent_*` and `favorite_*`; the prompt
    tells them too, unless `prompt` is given.
    """

    user_id: str
    profile_text: str
    recent_rows: np.ndarray  # int64, newest first
    recent_stats: np.ndarray  # float32 (J, 4): count, age in days, slowly decayed count, fast decayed count
    favorite_rows: np.ndarray  # int64, strongest first
    favorite_stats: np.ndarray  # float32 (J, 4)
    prompt: Prompt | None = None

    def told(
        self, most_favorites: int
    ) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Rows (J,) and log statistics (J, S) of the prompt's favourites, then of its recents, oldest first."""
        own = self.prompt or Prompt(
            self.favorite_rows, self.favorite_stats, self.recent_rows[::-1], self.recent_stats[::-1]
        )
        favorites = own.favorite_rows[:most_favorites], _logs(own.favorite_stats[:most_favorites])
        return favorites, (own.recent_rows, _logs(own.recent_stats))

    def history(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows (J,), roles (J,) and statistics (J, S) of recents, then all favourites."""
        rows = np.concatenate((self.recent_rows, self.favorite_rows)).astype(np.int64)
        roles = np.repeat((ROLE_RECENT, ROLE_FAVORITE), (len(self.recent_rows), len(self.favorite_rows)))
        return rows, roles, _logs(np.concatenate((self.recent_stats, self.favorite_stats)))

    def with_rows(self, new_row: np.ndarray) -> "UserContext":
        """The same user over a table whose row r stands at `new_row[r]`."""
        told = self.prompt
        if told is not None:
            told = told._replace(
                favorite_rows=new_row[told.favorite_rows], recent_rows=new_row[told.recent_rows]
            )
        recent, favorite = new_row[self.recent_rows], new_row[self.favorite_rows]
        return replace(self, recent_rows=recent, favorite_rows=favorite, prompt=told)


_SHIFT_S: Final = np.array([1.0, 1.0, SMALL_COUNT, SMALL_COUNT], dtype=np.float32)


def _logs(raw_JS: np.ndarray) -> np.ndarray:
    return np.log(raw_JS + _SHIFT_S).astype(np.float32, copy=False)


@dataclass(frozen=True)
class Request:
    """One thing asked of the model: words, what they are about, and (in training) what answers it."""

    instruction: str
    focus: str = ""
    leaves: tuple[tuple[int, ...], ...] = ()  # prefixes to feed after <|start|>


def encode_contexts(frame: pl.DataFrame, item_rows: Mapping[str, int]) -> list[UserContext]:
    """Contexts with item ids replaced by rows of the item table; items it does not hold are left out."""
    recent = (c.RECENT_ITEMS, c.RECENT_COUNTS, c.RECENT_AGES, c.RECENT_DECAYED, c.RECENT_DECAYED_FAST)
    favorite = (
        c.FAVORITE_ITEMS,
        c.FAVORITE_COUNTS,
        c.FAVORITE_AGES,
        c.FAVORITE_DECAYED,
        c.FAVORITE_DECAYED_FAST,
    )
    said = frame.select(c.USER_ID, c.PROFILE_TEXT).iter_rows()
    lists = (_kept(frame, columns, item_rows) for columns in (recent, favorite))
    return [
        UserContext(user, profile, *first, *second)
        for (user, profile), first, second in zip(said, *lists, strict=True)
    ]


def _kept(
    frame: pl.DataFrame, columns: Sequence[str], item_rows: Mapping[str, int]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows (int64) and statistics (float32, (J, S)) of the items that are known, for each user: lists of `columns`, items
    first.
    """
    items, *stats = frame.select(pl.col(name).explode(empty_as_null=False) for name in columns).get_columns()
    row_X = np.array([item_rows.get(item, -1) for item in items.to_list()], dtype=np.int64)
    stats_XS = np.column_stack([one.to_numpy().astype(np.float64) for one in stats]).astype(np.float32)
    user_X = np.repeat(np.arange(frame.height), frame[columns[0]].list.len().to_numpy())
    known_X = row_X >= 0
    ends = np.cumsum(np.bincount(user_X[known_X], minlength=frame.height))
    row_X, stats_XS = row_X[known_X], stats_XS[known_X]
    bounds = pairwise([0, *ends.tolist()])
    return [(row_X[begin:end], stats_XS[begin:end]) for begin, end in bounds]


@dataclass
class TreeBatch:
    """Arrays of one batch; -1 marks "nothing of that kind here". Positions of padding have `valid` False."""

    word_BL: np.ndarray
    special_BL: np.ndarray
    prefix_BL: np.ndarray  # level * codebook_size + code
    item_BL: np.ndarray  # row of the item table
    focus_BL: np.ndarray  # row of `focus_texts`
    role_BL: np.ndarray
    stats_BLS: np.ndarray
    position_BL: np.ndarray
    branch_BL: np.ndarray  # 0 = trunk
    leaf_BL: np.ndarray  # 0 = not in a leaf
    valid_BL: np.ndarray
    memory_valid_BJ: np.ndarray  # which history items the heads may copy; each distinct item once
    memory_row_BJ: np.ndarray
    memory_role_BJ: np.ndarray
    memory_stats_BJS: np.ndarray
    request_user_R: np.ndarray
    request_start_R: np.ndarray  # position of <|start|>
    request_focus_RV: np.ndarray  # rows of `focus_texts` of each aspect; -1 pads
    leaf_request_M: np.ndarray
    leaf_positions_MP1: np.ndarray  # positions of the prefix tokens, then of <q>
    leaf_prefix_MP: np.ndarray
    focus_texts: list[str] = field(default_factory=list)

    @property
    def padding_share(self) -> float:
        """Share of positions that hold no token."""
        return float(1.0 - self.valid_BL.mean())


class _History(NamedTuple):
    """A user's history items and which the heads may copy; and where the prompt's item tokens stand in the row."""

    rows: np.ndarray
    roles: np.ndarray
    stats: np.ndarray
    copyable: np.ndarray
    told_at: np.ndarray
    told_stats: np.ndarray


class _Row:
    """Grows the token columns of one user: pieces, written into the batch's arrays when its width is known."""

    def __init__(self) -> None:
        self.pieces: list[tuple[str, int, int, np.ndarray | int]] = []
        self.length = 0

    def add(self, size: int, **given: np.ndarray | int) -> int:
        """Append `size` tokens; columns not given are -1 (branch and leaf 0). Returns the first one's position."""
        start = self.length
        self.length += size
        self.pieces += [(name, start, self.length, value) for name, value in given.items()]
        return start


class Collator:
    """Builds tree batches.

    `words` turns text into ids; `prefixes_NP` are the item table's prefixes; so many favourites become tokens, while
    the heads may copy from all of them.
    """

    def __init__(
        self, words: WordsLike, prefixes_NP: np.ndarray, codebook_size: int, prompt_favorites: int
    ) -> None:
        self.words = words
        self.prompt_favorites = prompt_favorites
        self.prefixes = prefixes_NP
        self.codebook_size = codebook_size

    def __call__(self, users: Sequence[UserContext], requests: Sequence[Sequence[Request]]) -> TreeBatch:
        """One row a user, its requests as branches. Requests are numbered user by user, leaves request by request."""
        focus_index: dict[str, int] = {}
        rows = [_Row() for _ in users]
        memory: list[_History] = []
        request_meta: list[tuple[int, int]] = []
        request_focus: list[list[int]] = []
        leaf_meta: list[tuple[int, list[int], tuple[int, ...]]] = []
        for user, (context, asked) in enumerate(zip(users, requests, strict=True)):
            row = rows[user]
            memory.append(self._trunk(row, context))
            trunk = row.length
            for branch, request in enumerate(asked, start=1):
                aspects = aspects_of(request.focus)
                focus = [focus_index.setdefault(aspect, len(focus_index)) for aspect in aspects]
                start, end = self._branch(row, request, branch, trunk, focus)
                request_meta.append((user, start))
                request_focus.append(focus)
                for leaf, prefix in enumerate(request.leaves, start=1):
                    at = self._leaf(row, prefix, branch, leaf, end)
                    leaf_meta.append((len(request_meta) - 1, at, prefix))
        return self._pad(rows, memory, request_meta, request_focus, leaf_meta, list(focus_index))

    def length(self, user: UserContext, requests: Sequence[Request]) -> int:
        """Tokens of the user's row in a batch, padding left out."""
        return int(self([user], [requests]).valid_BL.shape[1])

    def _trunk(self, row: _Row, context: UserContext) -> "_History":
        row.add(1, special=USER)
        ids = self.words.ids(context.profile_text)
        row.add(len(ids), word=ids)
        favorites, recents = context.told(self.prompt_favorites)
        at: list[np.ndarray] = []
        for role, special, mine in (
            (ROLE_FAVORITE, FAVORITES, favorites[0]),
            (ROLE_RECENT, RECENT, recents[0]),
        ):
            row.add(1, special=special)
            width = self.prefixes.shape[1] + 1
            prefix, item, roles = np.full((3, len(mine), width), -1, dtype=np.int64)
            prefix[:, :-1] = self.prefixes[mine] + np.arange(width - 1) * self.codebook_size
            item[:, -1], roles[:, -1] = mine, role
            start = row.add(prefix.size, prefix=prefix.ravel(), item=item.ravel(), role=roles.ravel())
            at.append(start + np.arange(len(mine)) * width + width - 1)
        row.pieces.append(("position", 0, row.length, np.arange(row.length)))
        items, roles, stats = context.history()
        twice = np.zeros(len(items), dtype=bool)
        favorite_rows = set(context.favorite_rows.tolist())
        recent_rows = (
            context.recent_rows.tolist()
        )  # an item that stands among the favourites too counts there
        twice[: len(recent_rows)] = [item_row in favorite_rows for item_row in recent_rows]
        told_stats = np.concatenate((favorites[1], recents[1]))
        return _History(items, roles, stats, ~twice, np.concatenate(at), told_stats)

    def _branch(
        self, row: _Row, request: Request, branch: int, offset: int, focus: list[int]
    ) -> tuple[int, int]:
        ids = self.words.ids(request.instruction)
        at = offset
        row.add(1, special=TASK, position=at, branch=branch)
        row.add(len(ids), word=ids, position=np.arange(at + 1, at + 1 + len(ids)), branch=branch)
        at += 1 + len(ids)
        if focus:
            where = np.arange(at, at + len(focus))
            row.add(len(focus), focus=np.asarray(focus), role=ROLE_FOCUS, position=where, branch=branch)
            at += len(focus)
        start = row.add(1, special=START, position=at, branch=branch)
        return start, at + 1

    def _leaf(self, row: _Row, prefix: tuple[int, ...], branch: int, leaf: int, at: int) -> list[int]:
        tokens = np.asarray(prefix) + np.arange(len(prefix)) * self.codebook_size
        first = row.add(
            len(prefix), prefix=tokens, position=np.arange(at, at + len(prefix)), branch=branch, leaf=leaf
        )
        query = row.add(1, special=QUERY, position=at + len(prefix), branch=branch, leaf=leaf)
        return [*range(first, first + len(prefix)), query]

    def _pad(
        self,
        rows: list[_Row],
        memory: list[_History],
        requests: list[tuple[int, int]],
        request_focus: list[list[int]],
        leaves: list[tuple[int, list[int], tuple[int, ...]]],
        focus_texts: list[str],
    ) -> TreeBatch:
        size, length = len(rows), max(row.length for row in rows)
        columns = {}
        for name in ("word", "special", "prefix", "item", "focus", "role", "position", "branch", "leaf"):
            fill = 0 if name in ("branch", "leaf", "position") else -1
            columns[f"{name}_BL"] = np.full((size, length), fill, dtype=np.int64)
        for index, row in enumerate(rows):
            for name, first, last, value in row.pieces:
                columns[f"{name}_BL"][index, first:last] = value
        width = max((len(m.rows) for m in memory), default=0)
        copyable = np.zeros((size, width), dtype=bool)
        item, role = (np.full((size, width), -1, dtype=np.int64) for _ in range(2))
        stats = np.zeros((size, width, NUM_STATS), dtype=np.float32)
        full = np.zeros((size, length, NUM_STATS), dtype=np.float32)
        for index, history in enumerate(memory):
            n = len(history.rows)
            copyable[index, :n], role[index, :n] = history.copyable, history.roles
            item[index, :n], stats[index, :n] = history.rows, history.stats
            full[index, history.told_at] = history.told_stats
        meta = np.asarray(requests, dtype=np.int64).reshape(-1, 2)
        focus = np.full((len(requests), max(map(len, request_focus), default=0)), -1, dtype=np.int64)
        for index, aspects in enumerate(request_focus):
            focus[index, : len(aspects)] = aspects
        depth = self.prefixes.shape[1]
        return TreeBatch(
            **columns,
            stats_BLS=full,
            valid_BL=np.arange(length)[None] < np.asarray([row.length for row in rows])[:, None],
            memory_valid_BJ=copyable,
            memory_row_BJ=item,
            memory_role_BJ=role,
            memory_stats_BJS=stats,
            request_user_R=meta[:, 0],
            request_start_R=meta[:, 1],
            request_focus_RV=focus,
            leaf_request_M=np.asarray([m[0] for m in leaves], dtype=np.int64),
            leaf_positions_MP1=np.asarray([m[1] for m in leaves], dtype=np.int64).reshape(-1, depth + 1),
            leaf_prefix_MP=np.asarray([m[2] for m in leaves], dtype=np.int64).reshape(-1, depth),
            focus_texts=focus_texts,
        )
