from pathlib import Path

import pytest

from sigma_core.serving.http.security import (
    KeyRing,
    RateLimit,
    SecurityError,
    check_binding,
    is_loopback,
)

FIRST, SECOND = "first-key-of-enough-length", "second-key-of-enough-length"


@pytest.mark.parametrize(("host", "loops"), [
    ("127.0.0.1", True), ("localhost", True), ("[::1]", True), ("127.8.8.8", True), ("0.0.0.0", False), ("::", False),
    ("10.0.0.4", False), ("example.org", False), ("", False), ("localhost.example.org", False),
])  # fmt: skip
def test_only_loopback_is_loopback(host: str, loops: bool) -> None:
    assert is_loopback(host) == loops


def test_listening_beyond_this_machine_needs_a_key() -> None:
    check_binding("127.0.0.1", KeyRing())
    check_binding("0.0.0.0", KeyRing((FIRST,)))
    with pytest.raises(SecurityError, match="SIGMA_API_KEYS"):
        check_binding("0.0.0.0", KeyRing())


def test_several_keys_are_accepted_and_named_apart() -> None:
    ring = KeyRing((FIRST, SECOND))
    names = {ring.check(FIRST), ring.check(SECOND)}
    assert len(names) == 2
    assert None not in names
    assert all(FIRST not in str(name) for name in names)
    assert ring.check("") is ring.check(FIRST[:-1]) is ring.check("\ud800") is None


def test_a_short_key_is_refused() -> None:
    with pytest.raises(SecurityError, match="16 or more"):
        KeyRing(("short",))


def test_keys_rotate_by_file_while_the_server_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sigma_core.serving.http.security._LOOK_AGAIN_S", 0.0)
    file = tmp_path / "keys"
    file.write_text(f"# old\n{FIRST}\n\n")
    ring = KeyRing(file=file)
    assert ring.check(FIRST)
    assert not ring.check(SECOND)
    fresh = tmp_path / "fresh"
    fresh.write_text(f"{FIRST}\n{SECOND}\n")
    fresh.replace(file)
    assert ring.check(FIRST)
    assert ring.check(SECOND)
    file.write_text(f"{SECOND}\n")
    assert not ring.check(FIRST)
    file.unlink()
    assert ring.check(SECOND), "a vanished file locks nobody out"
    file.write_text("# all revoked\n")
    assert not ring.check(SECOND)
    assert ring, "a ring with a file never counts as no keys at all"


def test_a_file_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SecurityError, match="nowhere"):
        KeyRing(file=tmp_path / "nowhere")


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGMA_API_KEYS", f" {FIRST}, {SECOND},")
    assert KeyRing.from_environment().check(SECOND)


def test_a_bucket_refills_with_time_and_callers_do_not_share_it() -> None:
    now = [0.0]
    limit = RateLimit(per_minute=60, burst=2, clock=lambda: now[0])
    assert [limit.take("a"), limit.take("a")] == [0, 0]
    assert limit.take("a") == pytest.approx(1.0)
    assert limit.take("b") == 0
    now[0] = 0.5
    assert limit.take("a") == pytest.approx(0.5)
    now[0] = 1.5
    assert limit.take("a") == 0


def test_a_key_file_that_is_not_taken_over_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A key that was meant to be gone is still accepted: somebody has to know."""
    monkeypatch.setattr("sigma_core.serving.http.security._LOOK_AGAIN_S", 0.0)
    (tmp_path / "keys").write_text(FIRST)
    ring = KeyRing(file=tmp_path / "keys")
    (tmp_path / "keys").write_text("short")
    assert ring.check(FIRST)
    assert ring.check(FIRST)
    assert [record.message.count("cannot be taken over") for record in caplog.records] == [1]
    assert FIRST not in caplog.text
