"""Search by words: nearest by cosine, one item of a text group, errors that name what exists, no orchestrator imported."""

import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sigma_assets.cli import main
from sigma_core import columns as c
from sigma_core.artifacts import ArtifactStore, write_json
from sigma_core.grounding.embed import ItemEmbeddings, embed_items
from sigma_core.serving.runtime import RequestError
from sigma_core.serving.search import LoadedSearch, load_search
from tests.grounding.test_text_network import encoder as tiny_encoder
from tests.instruction.small_world import CUT, small_catalog
from tests.model.tiny_llm import save_tiny_llm
from tests.no_lexical import MeaningAlone
from tests.toy_world import root_values

DAY = CUT.isoformat()
WORDS = ("red", "green", "tea")


class WordEncoder(MeaningAlone):
    """A direction a word; a text is the unit sum of its words."""

    text_dim = len(WORDS)

    def encode(self, texts: list[str], progress: object = None) -> np.ndarray:
        rows = np.array([[word in text.split() for word in WORDS] for text in texts], dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def digest(self) -> str:
        return "words"


def toy_search() -> LoadedSearch:
    texts = {"a": "red tea", "b": "green tea", "c": "red", "d": "red", "e": "green"}

    class Catalog:
        frame = pl.DataFrame(
            {c.ITEM_ID: list(texts), c.TITLE: list(texts.values()), c.TEXT_GROUP: list(texts.values())}
        )

    vectors = WordEncoder().encode(list(texts.values()))
    embeddings = ItemEmbeddings(list(texts), list(texts), vectors, "words")
    return LoadedSearch(date(2024, 1, 1), WordEncoder(), embeddings, Catalog())  # type: ignore[arg-type]


def test_the_nearest_items_by_hand() -> None:
    """cos(red, red) = 1, cos(red, red tea) = 1/sqrt 2, cos(red, green ...) = 0; c and d share a text: c is listed."""
    rows = toy_search().search(" red ", 4)
    assert [(row[c.RANK], row[c.ITEM_ID]) for row in rows] == [(1, "c"), (2, "a"), (3, "b"), (4, "e")]
    assert [row[c.SCORE] for row in rows] == pytest.approx([1, 0.5**0.5, 0, 0], abs=1e-6)
    assert rows[0][c.TITLE] == "red"
    assert len(toy_search().search("green", 1)) == 1


def test_what_cannot_be_searched_is_said() -> None:
    with pytest.raises(RequestError, match="--top-n 0"):
        toy_search().search("red", 0)
    with pytest.raises(RequestError, match="search text is empty"):
        toy_search().search("  ")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with an encoder, a catalog and item vectors, and nothing else."""
    folder = tmp_path_factory.mktemp("search")
    made = tiny_encoder(save_tiny_llm(folder / "llm"))
    store = ArtifactStore(folder / "root")
    store.write("grounded_encoder", f"{DAY[:7]}-01", made)
    store.write("item_catalog", DAY, small_catalog())
    frame = small_catalog().frame
    vectors, _ = embed_items(frame[c.ITEM_ID].to_list(), frame[c.TEXT].to_list(), made)
    store.write("item_embeddings", DAY, vectors)
    write_json(folder / "root" / "root.json", root_values("toy", ("runtime.threads=1",)))
    return folder / "root"


def test_the_command_prints_json_of_the_day(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["search", "milk", "--root", str(root), "--top-n", "3", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0
    assert [row[c.RANK] for row in rows] == [1, 2, 3]
    assert {row[c.ITEM_ID] for row in rows} < set(small_catalog().frame[c.ITEM_ID])
    assert rows == load_search(root).search("milk", 3)


def test_days_and_roots_that_are_not_there_are_named(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, needle in (
        (["--root", str(tmp_path)], "holds no item vectors yet"),
        (["--root", str(root), "--as-of", "2024-01-01"], DAY),
        (["--root", str(root), "--as-of", "soon"], "not a date"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["search", "milk", *arguments])
        err = capsys.readouterr().err
        assert ended.value.code == 1
        assert err.count("\n") == 1
        assert err.startswith("error: ")
        assert needle in err


def test_vectors_of_another_encoder_are_refused(root: Path, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    for asset, key, cls in (
        ("item_embeddings", DAY, ItemEmbeddings),
        ("item_catalog", DAY, type(small_catalog())),
    ):
        store.write(asset, key, ArtifactStore(root).read(cls, asset, key))  # type: ignore[arg-type]
    store.write("grounded_encoder", f"{DAY[:7]}-01", tiny_encoder(save_tiny_llm(tmp_path / "other", seed=3)))
    write_json(tmp_path / "root.json", root_values())
    with pytest.raises(RequestError, match="by another encoder"):
        load_search(tmp_path)


def test_searching_imports_no_orchestrator(root: Path) -> None:
    code = (
        "import sys; from sigma_assets.cli import main\n"
        "try: main(['search', 'milk', '--root', sys.argv[1], '--json'])\n"
        "except SystemExit as ended: assert not ended.code\n"
        "print(sorted({'dagster', 'peft', 'great_expectations', 'wandb', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
