"""Continuing from kept states changes no answer, whatever was kept; and only what is new is read."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sigma_core.generation import recommender
from sigma_core.generation.recommender import Ask
from sigma_core.generation.session_states import Room, TrunkStates, _causal
from sigma_core.instruction.collate import Prompt, Request, UserContext
from sigma_core.model.decoder import Onward, read_onwards
from sigma_core.serving.session_cache import SessionCache
from tests.model_world import TinyWorld, tiny_user, tiny_world

ASKS = [Ask(Request("x y")), Ask(Request("soda please", "soda"))]


def grown(user: UserContext, rows: list[int], seed: int = 5) -> UserContext:
    """The user after a session that took these items one by one."""
    stats = np.random.default_rng(seed).uniform(0, 5, (len(rows), 4)).astype(np.float32)
    told = user.prompt or Prompt(
        user.favorite_rows, user.favorite_stats, user.recent_rows[::-1], user.recent_stats[::-1]
    )
    told = told._replace(
        recent_rows=np.concatenate((told.recent_rows, np.array(rows, dtype=np.int64))),
        recent_stats=np.concatenate((told.recent_stats, stats)),
    )
    return replace(user, prompt=told)


def same(world: TinyWorld, users: list[UserContext]) -> tuple[list[int], list[int]]:
    """Compares both ways for all users at once; tokens and kept tokens of each."""
    asks = [ASKS] * len(users)
    kept = world.recommender.sessions
    world.recommender.sessions = None
    want = world.recommender.rank(users, asks, world.focus, 9)
    world.recommender.sessions = kept
    eligible = world.recommender._eligible([ask for mine in asks for ask in mine])
    found = world.recommender.beam(users, [[a.request for a in mine] for mine in asks], world.focus, eligible)
    got = world.recommender.answer(found, eligible, 9)
    for mine, other in zip(got, want, strict=True):
        assert [r.row for r in mine] == [r.row for r in other]
        assert [r.score for r in mine] == pytest.approx([r.score for r in other], rel=1e-4, abs=1e-6)
    assert found.tokens_B is not None
    assert found.kept_B is not None
    return found.tokens_B.tolist(), found.kept_B.tolist()


@pytest.fixture
def world() -> TinyWorld:
    world = tiny_world(2)
    world.recommender.sessions = SessionCache("m", 8)
    return world


def test_a_new_event_costs_its_own_tokens(world: TinyWorld) -> None:
    user = tiny_user("a", 1, 2, 3)
    (size,), (kept,) = same(world, [user])
    assert kept == 0
    assert same(world, [user]) == ([size], [size])
    # two codes of the prefix and the item's vector
    assert same(world, [grown(user, [7])]) == ([size + 3], [size])
    assert same(world, [grown(user, [7, 7, 3])])[1] == [size + 3]


def test_users_of_one_batch_continue_from_different_places(world: TinyWorld) -> None:
    users = [
        tiny_user("a", 1, 1, 1),
        tiny_user("b", 2, 3, 6),
        tiny_user("c", 3, 0, 0),
        tiny_user("", 4, 2, 2),
    ]
    same(world, users[:1])
    tokens, kept = same(world, users)
    assert [bool(k) for k in kept] == [True, False, False, False]
    tokens, kept = same(world, [grown(users[0], [5]), *users[1:]])
    assert [t - k for t, k in zip(tokens, kept, strict=True)] == [
        3,
        0,
        tokens[2],
        tokens[3],
    ]  # c has no history


def test_a_long_kept_history_beside_a_short_new_one(world: TinyWorld) -> None:
    """The longest row reads least: its padding must not stand for its last token, which is a <|start|>."""
    long, short = tiny_user("long", 1, 4, 8), tiny_user("short", 2, 1, 1)
    same(world, [long])
    tokens, kept = same(world, [long, short])
    assert (tokens[0] > tokens[1], kept) == (True, [tokens[0], 0])


def test_a_changed_history_is_used_only_as_far_as_it_fits(world: TinyWorld) -> None:
    user = tiny_user("a", 1, 3, 3)
    (size,), _ = same(world, [user])
    stats = user.recent_stats.copy()
    stats[0, 0] += 1  # the newest purchase, the prompt's last token
    assert same(world, [replace(user, recent_stats=stats)])[1] == [size - 1]
    assert same(world, [replace(user, profile_text="zzz forty")])[1] == [1]


@given(st.lists(st.lists(st.integers(0, 22), max_size=3), min_size=1, max_size=4), st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_any_session_equals_full_recomputation(steps: list[list[int]], recents: int) -> None:
    world = tiny_world(1)
    world.recommender.sessions = SessionCache("m", 8)
    user, other = tiny_user("a", 1, recents, 3), tiny_user("b", 2, 2, 1)
    taken: list[int] = []
    for step in steps:
        taken += step
        same(world, [grown(user, taken, seed=len(taken)) if taken else user, other])


@pytest.mark.parametrize(
    ("steps", "recents"), [([[9, 1], [0, 6], [10, 13, 22]], 0), ([[0]], 0), ([[5, 6, 19], [4]], 2)]
)
def test_sessions_whose_prefixes_are_copied_all_but_whole(steps: list[list[int]], recents: int) -> None:
    """What the pointer leaves is 1e-7 here: taken as one minus its shares it was rounding, and lists depended on it."""
    test_any_session_equals_full_recomputation.hypothesis.inner_test(steps, recents)


def test_states_of_nobody_fit_nothing() -> None:
    nothing = np.zeros((0, 5), dtype=np.int32), np.zeros((0, 4), dtype=np.float32)
    states = TrunkStates(*nothing, np.zeros((1, 1, 0, 2)), np.zeros((1, 1, 0, 2)))
    assert states.fits(*nothing) == 0


@pytest.mark.parametrize("family", ["Qwen3", "Qwen2", "Llama"])
def test_tokens_read_onwards_see_what_they_saw_in_one_go(family: str) -> None:
    """Two users of a decoder with grouped heads: the last tokens behind the first ones, against the transformers model."""
    import transformers

    torch.manual_seed(4)
    made = getattr(transformers, f"{family}Config")(
        vocab_size=8, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=4,
    )  # fmt: skip
    model = getattr(transformers, f"{family}Model")(made).eval()
    embeds = torch.randn(2, 9, 16)
    with torch.inference_mode():
        cache = transformers.DynamicCache(config=made)
        want = model(inputs_embeds=embeds, past_key_values=cache, use_cache=True).last_hidden_state
        pasts, users = (6, 2), []
        for row, past in enumerate(pasts):
            room = torch.zeros(2, 3, 2, 12, 4)
            for layer, there in enumerate(cache.layers):
                room[0, layer, :, :past] = there.keys[row, :, :past]
                room[1, layer, :, :past] = there.values[row, :, :past]
            size = 9 - past
            users.append(Onward(room, past, size, _causal(size), torch.tensor([0, size - 1])))
        new = torch.cat([embeds[row, past:] for row, past in enumerate(pasts)])
        position = torch.cat([torch.arange(past, 9) for past in pasts])
        got, fresh = read_onwards(model, new, position, users)
    torch.testing.assert_close(got, want[[0, 0, 1, 1], [6, 8, 2, 8]], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fresh[0, 1, :, :3], cache.layers[1].keys[0, :, 6:], atol=1e-5, rtol=1e-5)
    assert torch.equal(users[1].room[1, 2, :, 2:9], fresh[1, 2, :, 3:]), "and they lie behind the past now"


def test_a_room_is_written_by_one_reading_at_a_time_and_never_where_it_was_published() -> None:
    room = Room(1, 1, 5, 2)
    assert room.both.shape[3] == 32
    assert not room.claim(0, 9), "whoever made it writes"
    room.used = 5
    room.release()
    assert not room.claim(4, 9), "position 4 was published"
    assert not room.claim(5, 33), "there is no room"
    assert room.claim(5, 32)
    assert not room.claim(5, 9)


def test_older_states_of_a_user_stay_as_they_were_while_newer_ones_grow(world: TinyWorld) -> None:
    """Two futures of one history, read from the same kept states: the second finds the room taken and copies."""
    user = tiny_user("a", 1, 2, 3)
    same(world, [user])
    cache = world.recommender.sessions
    old = cache.get("a")
    keys = old.keys_GHTW.copy()
    (size,), (kept,) = same(world, [grown(user, [7])])
    new = cache.get("a")
    assert (kept, new.room is old.room) == (size - 3, True), "the new event went behind the old ones"
    cache.put("a", old)
    assert same(world, [grown(user, [9])])[1] == [kept]
    assert cache.get("a").room is not old.room
    assert (old.keys_GHTW == keys).all()
    assert (new.keys_GHTW[:, :, :kept] == keys).all()


def test_a_decoder_of_an_unknown_family_is_read_whole(
    world: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommender, "is_known", lambda backbone: False)
    tokens, kept = same(world, [tiny_user("a", 1, 2, 3)])
    assert (tokens, kept) == ([0], [0])
    assert len(world.recommender.sessions) == 0
