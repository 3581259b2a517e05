"""The null tracker is a tracker, and says nothing."""

import pytest

from sigma_core.tracking import NullTracker, Tracker, no_progress


def test_the_null_tracker_takes_everything_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    tracker = NullTracker()
    tracker.log({"loss": 1.0}, step=3)
    tracker.table("rows", [{"a": 1}])
    tracker.close()
    no_progress(1, 2, "half")
    assert isinstance(tracker, Tracker)
    assert capfd.readouterr() == ("", "")
