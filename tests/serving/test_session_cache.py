"""What stays in memory, what goes to disk, and what a new model leaves behind."""

from pathlib import Path

import numpy as np

from sigma_core.generation.session_states import TrunkStates
from sigma_core.serving.session_cache import MIB, SessionCache

QUARTER = MIB // 4


def states(mark: float, size: int = QUARTER) -> TrunkStates:
    """Exactly `size` bytes."""
    tokens, stats = np.zeros((2, 5), np.int32), np.zeros((2, 4), np.float32)
    keys = np.full((1, 1, 2, (size - tokens.nbytes - stats.nbytes) // 16), mark, np.float32)
    return TrunkStates(tokens, stats, keys, keys + 1)


def test_the_least_recently_used_leaves_first() -> None:
    cache = SessionCache("m", 0.75)
    for n, user in enumerate("abc"):
        cache.put(user, states(n))
    assert cache.get("a") is not None
    cache.put("d", states(9))
    assert [user for user in "abcd" if cache.get(user)] == ["a", "c", "d"]
    assert cache.nbytes <= 0.75 * MIB
    cache.put("a", states(5, QUARTER // 2))  # in place of the former one
    assert cache.nbytes == 2 * states(0).nbytes + states(0, QUARTER // 2).nbytes


def test_what_leaves_memory_is_read_back_from_disk(tmp_path: Path) -> None:
    cache = SessionCache("m", 0.25, tmp_path, 1)
    cache.put("a/../a", states(3))
    cache.put("b", states(4))
    assert len(cache) == 1
    back = cache.get("a/../a")
    assert back is not None
    for part, want in zip(back, states(3), strict=True):
        np.testing.assert_array_equal(part, want)
    assert SessionCache("m", 0.25, tmp_path, 1).get("a/../a") is not None  # another process, the same model
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".safetensors"}


def test_the_disk_has_a_budget_too(tmp_path: Path) -> None:
    cache = SessionCache("m", 0.25, tmp_path, 0.6)
    for n, user in enumerate("abcde"):
        cache.put(user, states(n))
    assert [user for user in "abcde" if cache.get(user)] == ["c", "d", "e"]
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) <= 0.6 * MIB


def test_newer_states_replace_spilled_ones(tmp_path: Path) -> None:
    cache = SessionCache("m", 0.25, tmp_path, 1)
    for user, mark in (("a", 1), ("b", 2), ("a", 3), ("b", 4)):
        cache.put(user, states(mark))
    found = cache.get("a")
    assert found is not None
    assert found.keys_GHTW.flat[0] == 3


def test_a_promoted_model_forgets_everything(tmp_path: Path) -> None:
    old = SessionCache("m", 0.25, tmp_path, 1)
    old.put("a", states(1))
    old.put("b", states(2))
    new = SessionCache("n", 0.25, tmp_path, 1)
    assert new.get("a") is None
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_broken_file_costs_a_recomputation_only(tmp_path: Path) -> None:
    cache = SessionCache("m", 0.25, tmp_path, 1)
    cache.put("a", states(1))
    cache.put("b", states(2))
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(b"no tensors")
    assert cache.get("a") is None
    assert not path.exists()


def test_states_larger_than_the_budget_are_not_kept() -> None:
    cache = SessionCache("m", 0.1)
    cache.put("a", states(1))
    assert len(cache) == cache.nbytes == 0
