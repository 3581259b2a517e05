"""A broken `root.json` is named, and so is what to do; a root is made of more than that file, and the rest stays."""

import json
from pathlib import Path
from typing import Any

import pytest

from sigma_assets.binding import bind
from sigma_assets.cli import main
from sigma_core.artifacts import DamagedError, read_json, write_artifact
from sigma_core.root_file import ROOT_FILE, RootError, read_binding
from sigma_core.serving.http.server import http_config
from sigma_core.serving.promoted import POINTER, Pointer
from sigma_core.serving.runtime import RequestError
from tests.assets.roots import small_request, small_world
from tests.instruction.small_world import small_catalog
from tests.toy_world import root_values


def broken(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / ROOT_FILE).write_text(text)
    return folder


WRONG = {
    "{": "is not valid JSON",
    "[]": "is no JSON object",
    '{"schema_version": 1}': "lacks source, path, profile",
    json.dumps(root_values() | {"settings": "runtime.threads=1"}): "settings is wrong",
    json.dumps(root_values() | {"start": "soon"}): "start is wrong",
    json.dumps(root_values() | {"parts": {}}): "parts lacks products",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_broken_root_file_costs_no_artifact(text: str, tmp_path: Path) -> None:
    with pytest.raises(DamagedError) as refused:
        read_binding(broken(tmp_path, text))
    said = str(refused.value)
    assert f"{tmp_path / ROOT_FILE}" in said
    assert WRONG[text] in said
    assert "delete" not in said
    assert "Put root.json back" in said


def test_what_the_advice_says_gives_the_same_binding(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    (world.root / ROOT_FILE).rename(tmp_path / "moved_away")
    assert bind(world.root, small_request(tmp_path / "data"))[0] == world.binding


def test_a_lost_root_file_is_no_empty_root(tmp_path: Path) -> None:
    with pytest.raises(RootError, match="holds no artifacts yet"):
        read_binding(tmp_path)
    write_artifact(small_catalog(), tmp_path / "item_catalog" / "2024-10-20")
    with pytest.raises(DamagedError, match=r"root\.json is missing; the artifacts"):
        read_binding(tmp_path)


VERBS: tuple[tuple[str, ...], ...] = (
    ("config",), ("promotions",), ("serve",), ("materialize", "--as-of", "2024-10-20"), ("contracts", "docs"),
    ("evaluate", "--as-of", "2024-10-20", "--json", "r.json"), ("search", "milk"),
)  # fmt: skip


@pytest.mark.parametrize("arguments", VERBS, ids=lambda arguments: arguments[0])
def test_every_verb_refuses_a_root_of_another_release_or_a_broken_one(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    newer = json.dumps(root_values() | {"schema_version": 9})
    for text, needle in ((newer, "root schema 9, this release reads 1"), ("[]", "is no JSON object")):
        root = broken(tmp_path / "root", text)
        for asset in ("item_embeddings", "user_to_item_index"):
            write_artifact(small_catalog(), root / asset / "2024-10-20")
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--root", str(root)])
        err = capsys.readouterr().err
        assert ended.value.code == 1
        assert needle in err
        assert err.count("\n") == 1


def test_serve_says_what_is_broken(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is not valid JSON"):
        http_config(broken(tmp_path, "{"), ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "lacks as_of, model"),
        ("[]", "no JSON object"),
        (
            json.dumps(dict.fromkeys(("as_of", "since", "outcome", "reason"), "") | {"model": {}}),
            r"model\.day",
        ),
    ],
)
def test_a_broken_pointer_is_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / POINTER).write_text(text)
    with pytest.raises(DamagedError, match=rf"{POINTER}.*{said}"):
        Pointer.read(tmp_path)


def test_only_artifacts_are_made_again_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "item_catalog" / "2024-10-20"
    write_artifact(small_catalog(), folder)
    for path, said in (
        (folder / "part" / "meta.json", rf"delete {folder} and materialize again"),
        (
            tmp_path / ".failed" / "item_catalog" / "2024-10-20.json",
            "delete it and run the same command again",
        ),
    ):
        path.parent.mkdir(parents=True)
        path.write_text("{")
        with pytest.raises(DamagedError, match=said):
            read_json(path)
