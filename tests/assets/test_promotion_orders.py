"""Orders by hand: the newest counts, what was taken back stays barred until it is promoted, and a broken line is no order."""

import errno
from pathlib import Path

import pytest

from sigma_assets.promotion_orders import ORDERS, barred, decision_lineage, give_order, order_for, orders
from sigma_core.artifacts import ArtifactError
from tests.assets.roots import small_world

D = "2024-10-28"


def test_nothing_is_ordered_in_a_new_root(tmp_path: Path) -> None:
    assert (orders(tmp_path), order_for(tmp_path, D), barred(tmp_path)) == ([], None, {})


def test_the_newest_order_of_a_day_counts(tmp_path: Path) -> None:
    give_order(tmp_path, "promote", D, (D, "new"), "", "looks right")
    give_order(tmp_path, "rollback", D, ("2024-10-27", "old"), "new", "soap")
    give_order(tmp_path, "promote", "2024-10-29", ("2024-10-29", "newer"), "", "better")
    order = order_for(tmp_path, D)
    assert order is not None
    assert (order.kind, order.checkpoint, order.model_day) == ("rollback", "old", "2024-10-27")
    assert [one.kind for one in orders(tmp_path)] == ["promote", "rollback", "promote"]


def test_what_was_taken_back_is_barred_until_somebody_promotes_it(tmp_path: Path) -> None:
    give_order(tmp_path, "rollback", D, ("2024-10-27", "old"), "new", "soap")
    assert barred(tmp_path) == {"new": "soap"}
    give_order(tmp_path, "promote", D, (D, "new"), "", "was the catalog")
    assert barred(tmp_path) == {}


def test_a_broken_line_stops_every_promotion(tmp_path: Path) -> None:
    give_order(tmp_path, "rollback", D, ("2024-10-27", "old"), "new", "soap")
    with (tmp_path / ORDERS).open("a") as file:
        file.write('{"kind": "rollb')
    with pytest.raises(ArtifactError, match="line 2 is no order"):
        orders(tmp_path)


def test_an_order_and_the_adapter_compared_with_are_part_of_the_lineage(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    assert decision_lineage(world, D) == {}
    give_order(world.root, "promote", D, (D, "new"), "", "looks right")
    first = decision_lineage(world, D)
    assert list(first) == ["order/promotions"]
    give_order(world.root, "promote", D, (D, "new"), "", "again")
    assert decision_lineage(world, D) != first
    assert decision_lineage(world, "2024-10-29") == {}


def test_a_last_line_without_its_end_does_not_swallow_the_next_order(tmp_path: Path) -> None:
    give_order(tmp_path, "promote", D, (D, "one"), "", "good")
    (tmp_path / ORDERS).write_bytes((tmp_path / ORDERS).read_bytes().rstrip())  # an editor
    give_order(tmp_path, "promote", D, (D, "two"), "", "good")
    assert [one.checkpoint for one in orders(tmp_path)] == ["one", "two"]


def test_an_order_that_the_disk_refused_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give_order(tmp_path, "promote", D, (D, "one"), "", "good")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=rf"No space left on device: .*{ORDERS}"):
        give_order(tmp_path, "promote", D, (D, "two"), "", "good")
    assert [one.checkpoint for one in orders(tmp_path)] == ["one"]
