"""A loaded day in a notebook: people it does not know, and what it refuses before any search."""

import difflib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from sigma_core import columns as c
from sigma_core.artifacts import ArtifactStore
from sigma_core.serving import runtime
from sigma_core.serving.http.schemas import RecommendRequest
from sigma_core.serving.live import LiveDay
from sigma_core.serving.runtime import MAX_NEAR, RequestError, Wish, load_recommender
from tests.serving.live_world import ITEMS, live_day


@pytest.fixture(scope="module")
def live() -> LiveDay:
    made = live_day()
    made.loaded.engine.focus = made.focus  # type: ignore[method-assign, assignment]
    return made


def served(live: LiveDay, **wish: Any) -> list[str]:
    """The list of the API."""
    found = live.answer([live.prepare(RecommendRequest(n=8, **wish))])[0]
    return [ITEMS[one.row] for one in found.ranked]


def listed(live: LiveDay, *user: str, **wish: Any) -> list[str]:
    return [row[c.ITEM_ID] for row in live.loaded.recommend(*user, top_n=8, **wish)]


def test_someone_new_gets_the_list_that_the_api_gives(live: LiveDay) -> None:
    assert listed(live) == served(live)
    assert listed(live, profile="two adults") == served(live, profile="two adults")
    past = [{"item_id": "i07", "days_ago": 1, "count": 3}, {"item_id": "i02"}, {"item_id": "unheard of"}]
    told = {"profile": "two adults", "history": [("i07", 1, 3), "i02", ("unheard of",)]}
    assert listed(live, **told) == served(live, profile="two adults", history=past)
    assert listed(live, **told) != listed(live)
    assert not {"i02", "i03", "i06", "i07"} & set(listed(live, task="discover", **told))
    assert listed(live, "u0") == served(live, user_id="u0")


def test_both_kinds_of_user_and_what_is_no_event_are_refused(live: LiveDay) -> None:
    with pytest.raises(RequestError, match="not both"):
        live.loaded.recommend("u0", history=[])
    for wrong in (7, ("i07", -1), ("i07", 1, 0), ("i07", 1, 1, 1), (7,), ("i07", "today")):
        with pytest.raises(RequestError, match="is no event; needed an item id"):
            live.loaded.recommend(history=[wrong])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"top_n": 0}, "--top-n 0: needed at least 1"),
        ({"num_prefixes": 0}, "--num-prefixes 0: needed at least 1"),
        ({"items_per_prefix": -2}, "--items-per-prefix -2: needed at least 1"),
        ({"prefix_mass": 0.0}, "--prefix-mass 0.0: needed more than 0"),
        ({"prefix_mass": 1.5}, "--prefix-mass 1.5: needed more than 0 and at most 1"),
        ({"temperature": 0.0}, "--temperature 0.0: needed more than 0"),
        ({"temperature": float("nan")}, "--temperature nan: needed more than 0"),
    ],
)
def test_settings_that_make_no_list_are_refused(live: LiveDay, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        live.loaded.answer("u0", Wish(**settings))


def test_an_unknown_user_is_compared_with_few_and_told_what_to_do(
    live: LiveDay, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def close(word: str, options: list[str], n: int) -> list[str]:
        compared.append(len(options))
        return near(word, options, n=n)

    near = difflib.get_close_matches
    monkeypatch.setattr(difflib, "get_close_matches", close)
    ids = [f"user{n:05}" for n in range(5000)]
    many = SimpleNamespace(contexts=pl.DataFrame({c.USER_ID: ids}))
    loaded = replace(live.loaded, lists=many)  # type: ignore[arg-type]
    with pytest.raises(
        RequestError, match=r"'user04321x' is not known on .*; 5000 users are, for example user04321,"
    ) as told:
        loaded.recommend("user04321x")
    assert compared == [MAX_NEAR]
    assert "profile and history instead of user_id" in str(told.value)
    with pytest.raises(RequestError, match="for example user00000, user00001, user00002"):
        loaded.recommend("nobody")


def test_a_catalog_newer_than_its_index_is_refused_before_a_model_is_built(
    live: LiveDay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalog of the day was written anew without two items, the index not yet."""

    def read(store: ArtifactStore, kind: type, asset: str, day: str) -> Any:
        frame = live.loaded.catalog.frame
        held = {"item_catalog": SimpleNamespace(frame=frame[2:]), "item_index": live.engine.index}
        return held.get(asset)

    monkeypatch.setattr(ArtifactStore, "read", read)
    monkeypatch.setattr(runtime, "pick_day", lambda store, as_of: "2024-10-28")
    monkeypatch.setattr(
        runtime, "read_binding", lambda root: SimpleNamespace(config=lambda: live.engine.config)
    )
    with pytest.raises(
        RequestError, match=r"half published .* 2 items that its item_catalog lacks, .* i00, i01"
    ):
        load_recommender(tmp_path)
