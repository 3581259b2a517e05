"""The record says how its results were made, and survives a round trip through JSON."""

import json
import re

import polars as pl
import pytest

from sigma_core import __version__
from sigma_core.artifacts import ArtifactError, ArtifactStore, TableArtifact
from sigma_core.benchmarks.record import artifact_digests, benchmark_record, save_record, text_table


def test_a_record_holds_results_beside_what_is_needed_to_repeat_them(tmp_path):
    record = benchmark_record(
        "toy", {"ratio": 2.5}, settings={"k": 20}, data={"events": "abc"}, seeds=[0, 1], seconds=3.21
    )
    save_record(tmp_path / "deep" / "toy.json", record)
    back = json.loads((tmp_path / "deep" / "toy.json").read_text())
    assert back["ratio"] == 2.5
    made = back["benchmark"]
    assert (made["verb"], made["settings"], made["data"], made["seeds"]) == (
        "toy", {"k": 20}, {"events": "abc"}, [0, 1],
    )  # fmt: skip
    assert made["versions"]["torch"]
    assert made["versions"]["sigma"] == __version__
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?|", made["versions"].get("sigma_commit", ""))
    assert made["machine"]["cpu_count"] >= 1
    assert made["seconds"] == 3.2


def test_results_cannot_hide_how_they_were_made():
    with pytest.raises(ValueError, match="benchmark"):
        benchmark_record("toy", {"benchmark": 1}, settings={}, data={}, seeds=[], seconds=0)


def test_what_was_read_is_named_by_digest(tmp_path):
    day = pl.DataFrame({"n": [1]})
    for key, frame in (("a", day), ("b", day), ("c", day.head(0))):
        ArtifactStore(tmp_path).write("toys", key, TableArtifact(frame))
    one = artifact_digests(tmp_path, {"toys": ["a"]})
    assert one == {"toys/a": TableArtifact(day).digest()}
    two, other = (artifact_digests(tmp_path, {"toys": keys}) for keys in (["a", "b"], ["a", "c"]))
    assert list(two) == list(other) == ["toys, 2 partitions"]
    assert two != other
    with pytest.raises(ArtifactError):
        artifact_digests(tmp_path, {"toys": ["d"]})


def test_a_table_is_aligned_and_rounds():
    assert text_table(["model", "recall"], [["sigma", 0.12345], ["ease", None]]) == (
        "model  recall\nsigma  0.1235\nease        -\n"
    )
