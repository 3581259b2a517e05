"""Token trees and batch sampling: what stands where, who sees whom, which targets a step holds."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sigma_core.config import profile_config
from sigma_core.instruction.collate import (
    FAVORITES,
    QUERY,
    RECENT,
    START,
    TASK,
    USER,
    Collator,
    Request,
    UserContext,
)
from sigma_core.model.sigma import TensorBatch, tree_mask
from sigma_core.training.batches import TrainingRequest, TrainingSet, TrainingUser, sample_steps
from tests.model_world import FakeWords

PREFIXES = np.array([[0], [0], [1], [2]])


def user() -> UserContext:
    stats = np.array([[2, 3, 1, 1]], dtype=np.float32)
    return UserContext("u", "old", np.array([2]), stats, np.array([0]), stats)


def tree():  # type: ignore[no-untyped-def]
    asked = [Request("go", "", ((1,), (2,))), Request("up to", "tea", ())]
    return Collator(FakeWords(), PREFIXES, codebook_size=4, prompt_favorites=2)([user()], [asked])


def test_a_history_item_is_a_prefix_token_and_then_its_vector() -> None:
    batch = tree()
    at = int(np.flatnonzero(batch.item_BL[0] == 2)[0])
    assert batch.prefix_BL[0, at - 1] == 1  # item 2 has prefix 1
    assert (batch.item_BL[0] == 0).sum() == 1
    assert batch.memory_row_BJ[0].tolist() == [2, 0]


def test_the_trunk_is_profile_then_favourites_then_recents_oldest_first() -> None:
    stats = np.array([[2, 3, 1, 1]] * 2, dtype=np.float32)
    context = UserContext("u", "old", np.array([2, 1]), stats, np.array([0, 3]), stats)
    collator = Collator(FakeWords(), PREFIXES, codebook_size=4, prompt_favorites=1)
    batch = collator([context], [[Request("go")]])
    specials, items = batch.special_BL[0], batch.item_BL[0]
    assert items[items >= 0].tolist() == [0, 1, 2]  # of two favourites one is told; 2 is the newest purchase
    assert specials[specials >= 0].tolist() == [USER, FAVORITES, RECENT, TASK, START]
    assert batch.position_BL[0].tolist() == list(range(len(items)))
    assert batch.memory_row_BJ[0].tolist() == [2, 1, 0, 3]


def test_a_newer_purchase_changes_nothing_before_it() -> None:
    stats = np.array([[2, 3, 1, 1], [5, 0, 2, 1]], dtype=np.float32)
    collator = Collator(FakeWords(), PREFIXES, codebook_size=4, prompt_favorites=1)
    before = UserContext("u", "old", np.array([2]), stats[:1], np.array([0]), stats[:1])
    after = UserContext("u", "old", np.array([3, 2]), stats[::-1], np.array([0]), stats[:1])
    old, new = (collator([context], [[Request("go")]]) for context in (before, after))
    trunk = int((old.branch_BL[0] == 0).sum())
    assert int((new.branch_BL[0] == 0).sum()) == trunk + 2  # its prefix token and its vector
    for name in ("word_BL", "special_BL", "prefix_BL", "item_BL", "role_BL", "position_BL", "stats_BLS"):
        np.testing.assert_array_equal(getattr(new, name)[0, :trunk], getattr(old, name)[0, :trunk])


def test_a_request_ends_at_the_start_token_and_a_leaf_at_the_query_token_after_its_prefix() -> None:
    batch = tree()
    assert batch.special_BL[0, batch.request_start_R].tolist() == [START, START]
    prefix_at, query_at = batch.leaf_positions_MP1.T
    assert batch.special_BL[0, query_at].tolist() == [QUERY, QUERY]
    assert batch.prefix_BL[0, prefix_at].tolist() == [1, 2]
    assert (query_at == prefix_at + 1).all()


def test_each_level_of_a_prefix_has_tokens_of_its_own() -> None:
    """Four codes a level: code 3 of the second level is token 4 + 3, in the history and in a leaf."""
    prefixes = np.array([[0, 1], [0, 3], [1, 3], [2, 0]])
    asked = [Request("go", "", ((1, 3), (2, 0)))]
    batch = Collator(FakeWords(), prefixes, codebook_size=4, prompt_favorites=2)([user()], [asked])
    at = int(np.flatnonzero(batch.item_BL[0] == 2)[0])
    assert batch.prefix_BL[0, at - 2 : at + 1].tolist() == [1, 4 + 3, -1]
    *codes_at, query_at = batch.leaf_positions_MP1.T
    assert [batch.prefix_BL[0, one].tolist() for one in codes_at] == [[1, 2], [4 + 3, 4 + 0]]
    assert batch.special_BL[0, query_at].tolist() == [QUERY, QUERY]
    start = batch.position_BL[0, batch.request_start_R[0]]
    assert batch.position_BL[0, batch.leaf_positions_MP1].tolist() == [[start + 1, start + 2, start + 3]] * 2


def test_branches_and_leaves_continue_the_positions_of_what_they_see() -> None:
    batch = tree()
    trunk = int((batch.branch_BL[0] == 0).sum())
    first = np.flatnonzero(batch.branch_BL[0] == 1)[0]
    second = np.flatnonzero(batch.branch_BL[0] == 2)[0]
    assert batch.position_BL[0, first] == batch.position_BL[0, second] == trunk
    start = batch.position_BL[0, batch.request_start_R[0]]
    assert batch.position_BL[0, batch.leaf_positions_MP1].tolist() == [[start + 1, start + 2]] * 2


def test_a_token_sees_trunk_own_branch_and_own_leaf_only() -> None:
    batch = tree()
    mask = tree_mask(TensorBatch(batch, torch.zeros(1, 8), torch.device("cpu")))[0, 0] == 0
    branch, leaf = batch.branch_BL[0], batch.leaf_BL[0]
    for at in range(len(branch)):
        for seen in np.flatnonzero(mask[at].numpy()):
            assert seen <= at
            assert branch[seen] in (0, branch[at])
            assert leaf[seen] in (0, leaf[at])
    query = int(batch.leaf_positions_MP1[1, -1])
    assert bool(mask[query, batch.request_start_R[0]])
    assert not bool(mask[query, batch.leaf_positions_MP1[0, 0]])


def test_an_item_among_recents_and_favourites_is_copied_once() -> None:
    stats = np.ones((1, 4), dtype=np.float32)
    twice = UserContext("u", "", np.array([3]), stats, np.array([3]), stats)
    batch = Collator(FakeWords(), PREFIXES, 4, 2)([twice], [[Request("x")]])
    assert batch.memory_valid_BJ[0].tolist() == [False, True]


def test_steps_repeat_with_the_seed_and_hold_every_target_of_a_leaf() -> None:
    requests = (
        TrainingRequest("just_for_you", "a", "", np.array([0, 1, 3])),
        TrainingRequest("query", "b", "tea", np.array([2])),
    )
    data = TrainingSet([TrainingUser(user(), requests)], 0, np.zeros((1, 4, 4), dtype=np.float32))
    config = profile_config("toy", {"training": {"contexts_per_batch": 2}}).training
    one, two = (list(sample_steps(data, PREFIXES, config, 3, seed=5)) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        assert a.requests == b.requests
        assert a.target_item.tolist() == b.target_item.tolist()
    step = one[0]
    leaves = [(p, r.instruction) for mine in step.requests for r in mine for p in r.leaves]
    held = [
        (*leaves[leaf], step.leaf_target_item[step.leaf_target_leaf == leaf].tolist())
        for leaf in range(len(leaves))
    ]
    # items 0 and 1 share a prefix; both users of the step are this one
    assert sorted(held) == [((0,), "a", [0, 1])] * 2 + [((1,), "b", [2])] * 2 + [((2,), "a", [3])] * 2
    assert data.focus_texts == ["tea"]


def test_alignment_adds_users_without_history_and_is_off_by_default() -> None:
    requests = (
        TrainingRequest("just_for_you", "a", "", np.array([0, 1, 3])),
        TrainingRequest("query", "b", "tea", np.array([2])),
    )
    data = TrainingSet([TrainingUser(user(), requests)], 0, np.zeros((1, 4, 4), dtype=np.float32))
    base = {"contexts_per_batch": 2}
    off, on = (
        list(
            sample_steps(data, PREFIXES, profile_config("toy", {"training": base | more}).training, 3, seed=5)
        )
        for more in ({}, {"alignment_share": 0.5})
    )
    assert [len(step.users) for step in off] == [2, 2, 2]
    for step in on:
        assert [len(u.recent_rows) for u in step.users] == [1, 1, 0]
        assert step.users[-1].profile_text == ""
        assert [r.focus for r in step.requests[-1]] == ["tea"]  # words ask, nobody in particular
        assert step.target_item[step.target_request == max(step.target_request)].tolist() == [2]
    assert on[0].requests[:2] == off[0].requests


def test_bucketed_steps_hold_what_was_drawn_by_length() -> None:
    """Six users of one to six favourites, two a step: shuffled as drawn, neighbours together where bucketed."""

    def of_length(n: int) -> TrainingUser:
        stats = np.ones((n, 4), dtype=np.float32)
        rows = np.zeros(n, dtype=np.int64)
        context = UserContext(f"u{n}", "", rows[:0], stats[:0], rows, stats)
        return TrainingUser(context, (TrainingRequest("just_for_you", "a", "", np.array([1])),))

    def drawn(steps: int, length_of: Any = None) -> list[list[int]]:
        config = profile_config("toy", {"training": {"contexts_per_batch": 2, "bucket_steps": 3}}).training
        found = sample_steps(data, PREFIXES, config, steps, 1, length_of)
        return [[len(u.favorite_rows) for u in step.users] for step in found]

    data = TrainingSet([of_length(n) for n in range(1, 7)], 0, np.zeros((1, 4, 4), dtype=np.float32))
    collator = Collator(FakeWords(), PREFIXES, codebook_size=4, prompt_favorites=9)
    bucketed = drawn(31, collator.length)
    assert len(bucketed) == 31  # a bucket may be left unfinished
    for start in range(0, 30, 3):
        assert sorted(sorted(step) for step in bucketed[start : start + 3]) == [[1, 2], [3, 4], [5, 6]]
    assert {tuple(step) for step in bucketed[:30]} >= {
        (1, 2),
        (2, 1),
    }  # the first of a batch may be its longest
    assert sorted(n for step in drawn(3) for n in step) == [1, 2, 3, 4, 5, 6]
    few, many = ([collator.length(u.context, [Request("a")]) for u in data.users][n] for n in (0, 5))
    assert many - few == 5 * 2  # a prefix token and a vector each


def test_a_batch_is_of_one_fold_and_an_epoch_of_everyone() -> None:
    """Eight users of two folds and of none, two a step: four steps hold each once, whatever the order."""

    def of_fold(number: int) -> TrainingUser:
        requests = (TrainingRequest("just_for_you", "a", "", np.array([1])),)
        return TrainingUser(replace(user(), user_id=str(number)), requests, fold=(-1, 0, 0, 1)[number % 4])

    config = profile_config(
        "toy", {"training": {"contexts_per_batch": 2, "branches_per_context": 1}}
    ).training
    people = [of_fold(n) for n in range(8)]
    data = TrainingSet(people, 0, np.zeros((1, 4, 4), dtype=np.float32))
    steps = list(sample_steps(data, PREFIXES, config, 4, seed=3))
    assert sorted(context.user_id for step in steps for context in step.users) == [str(n) for n in range(8)]
    for step in steps:
        assert {people[int(context.user_id)].fold for context in step.users} == {step.fold}
