"""Step 1 kept beside the lists: what is used again, what is searched anew, and that lists stay what they would have been."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sigma_core.config import profile_config
from sigma_core.generation.recommender import ItemTable, Recommendation, Recommender
from sigma_core.instruction.collate import Collator, Request, UserContext
from sigma_core.model.heads import ItemTensors, activity_tensors
from sigma_core.serving.beam_memory import KEEP_FILES, BeamMemory
from sigma_core.serving.user_to_item import _lists
from sigma_core.tracking import no_progress
from tests.model_world import CODES, FakeWords, TinyWorld, tiny_user, tiny_world

CONFIG = profile_config(
    "toy",
    {"serving": {"u2i_top_n": 30, "batch_users": 2}, "generation": {"collapse_text_groups": False}},
)
REQUESTS = [Request("pick anything"), Request("something rare")]
NUM = 23
ITEMS = [f"i{n:02}" for n in range(NUM)]
USERS = [tiny_user("u0", 0), tiny_user("u1", 1, recents=4), tiny_user("u2", 2, recents=0, favorites=0)]


def counts_of(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rng.integers(0, CODES, (NUM, 1))  # as tiny_world draws them
    return rng.integers(0, 9, (1, NUM, 4)).astype(np.float32)


def over(
    world: TinyWorld, vectors: torch.Tensor, text: torch.Tensor, prefixes: torch.Tensor, counts: np.ndarray
) -> Recommender:
    """The world's model over another item table."""
    table = ItemTable(
        ItemTensors(vectors, text, prefixes),
        activity_tensors(counts, prefixes[:, 0].numpy(), CODES, torch.device("cpu")),
    )
    collator = Collator(FakeWords(), prefixes.numpy(), CODES, prompt_favorites=4)
    old = world.recommender
    return Recommender(world.model, table, collator, old.lexical, old.config, 0.02, 0.05)


def lists(
    recommender: Recommender, items: Sequence[str], users: Sequence[UserContext], path: Path, model: str = "m"
) -> tuple[list[list[Recommendation]], BeamMemory]:
    """What `build_user_to_item_index` does with an engine over these items, two users a batch."""
    memory = BeamMemory(path, recommender, items, users, REQUESTS, model)
    engine = SimpleNamespace(
        config=CONFIG, recommender=recommender, index=SimpleNamespace(item_ids=list(items))
    )
    out = _lists(engine, memory, users, REQUESTS, no_progress)  # type: ignore[arg-type]
    memory.save()
    return [one for at in range(len(users)) for one in out[at]], memory


def shown(answers: Sequence[Sequence[Recommendation]], items: Sequence[str]) -> list[list[tuple[str, float]]]:
    return [[(items[r.row], round(r.score, 5)) for r in one] for one in answers]


def test_a_second_run_searches_nobody_and_answers_bit_by_bit_the_same(tmp_path: Path) -> None:
    world = tiny_world()
    first, memory = lists(world.recommender, ITEMS, USERS, tmp_path / "a.safetensors")
    assert (memory.searched, memory.remembered) == (3, 0)
    again, memory = lists(world.recommender, ITEMS, USERS, tmp_path / "a.safetensors")
    assert (memory.searched, memory.remembered) == (0, 3)
    assert again == first


@pytest.mark.parametrize("changed", ["model", "requests", "sigma_top", "broken", "code"])
def test_another_model_or_a_broken_file_is_never_used(
    tmp_path: Path, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, path = tiny_world(), tmp_path / "a.safetensors"
    lists(world.recommender, ITEMS, USERS, path)
    if changed == "requests":
        monkeypatch.setattr("tests.serving.test_beam_memory.REQUESTS", [Request("pick"), Request("other")])
    if changed == "code":
        monkeypatch.setattr("sigma_core.versions.GENERATION_VERSION", "next")
    if changed == "broken":
        path.write_bytes(path.read_bytes()[:100])
    if changed == "sigma_top":  # decides how many beams step 1 keeps
        top = world.recommender.config.sigma_top + 1
        world.recommender.config = world.recommender.config.model_copy(update={"sigma_top": top})
    _, memory = lists(world.recommender, ITEMS, USERS, path, "n" if changed == "model" else "m")
    assert memory.searched == 3


def with_new_item(world: TinyWorld, row: int) -> tuple[Recommender, list[str]]:
    """An item nobody has bought, put first under the prefix of item `row`."""
    tensors = world.table.tensors
    at = int((tensors.prefixes_NP[:, 0] == tensors.prefixes_NP[row, 0]).nonzero()[0])
    vector = torch.nn.functional.normalize(torch.randn(1, tensors.vectors_NE.shape[1]), dim=-1)
    parts = [
        torch.cat((old[:at], new, old[at:]))
        for old, new in (
            (tensors.vectors_NE, vector),
            (tensors.text_NT, tensors.text_NT[:1]),
            (tensors.prefixes_NP, tensors.prefixes_NP[row : row + 1]),
        )
    ]
    counts = np.insert(counts_of(), at, 0.0, axis=1)
    return over(world, parts[0], parts[1], parts[2], counts), [*ITEMS[:at], "new", *ITEMS[at:]]


def moved(users: Sequence[UserContext], items: Sequence[str]) -> list[UserContext]:
    rows = np.array([items.index(item) if item in items else -1 for item in ITEMS])
    return [user.with_rows(rows) for user in users]


def test_a_new_item_is_recommended_at_once_without_any_search_and_as_if_all_had_been_searched(
    tmp_path: Path,
) -> None:
    world = tiny_world()
    first, _ = lists(world.recommender, ITEMS, USERS, tmp_path / "a.safetensors")
    recommender, items = with_new_item(world, first[0][0].row)
    users = moved(USERS, items)
    kept, memory = lists(recommender, items, users, tmp_path / "a.safetensors")
    assert (memory.searched, memory.remembered) == (0, 3)
    fresh, _ = lists(recommender, items, users, tmp_path / "b.safetensors")
    assert shown(kept, items) == shown(fresh, items)
    assert "new" in {item for one in shown(kept, items) for item, _ in one}


def test_only_users_whose_own_items_changed_are_searched_again(tmp_path: Path) -> None:
    world, path = tiny_world(), tmp_path / "a.safetensors"
    lists(world.recommender, ITEMS, USERS, path)
    mine = set(USERS[0].recent_rows) | set(USERS[0].favorite_rows)
    theirs = set(USERS[1].recent_rows) | set(USERS[1].favorite_rows)
    row = int(min(mine - theirs))
    tensors = world.table.tensors
    vectors = tensors.vectors_NE.clone()
    vectors[row] = -vectors[row]  # renamed
    recommender = over(world, vectors, tensors.text_NT, tensors.prefixes_NP, counts_of())
    found, memory = lists(recommender, ITEMS, USERS, path)
    assert (memory.searched, memory.remembered) == (1, 2)
    assert shown(found, ITEMS) == shown(
        lists(recommender, ITEMS, USERS, tmp_path / "b.safetensors")[0], ITEMS
    )
    _, memory = lists(recommender, ITEMS, USERS, path)
    assert (memory.searched, memory.remembered) == (0, 3), "the file holds kept and new ones"


def test_a_delisted_item_vanishes_and_a_large_shift_of_sales_searches_everybody(tmp_path: Path) -> None:
    world, path = tiny_world(), tmp_path / "a.safetensors"
    lists(world.recommender, ITEMS, USERS, path)
    owned = {int(row) for user in USERS for row in (*user.recent_rows, *user.favorite_rows)}
    gone = min(set(range(NUM)) - owned)
    kept_rows = [row for row in range(NUM) if row != gone]
    tensors, items = world.table.tensors, [ITEMS[row] for row in kept_rows]
    parts = [part[kept_rows] for part in tensors]
    quiet, sold = counts_of(), counts_of()
    quiet[:, gone] = 0.0
    for counts, searched in ((sold, 3), (quiet, 0)):
        before = over(world, *tensors, counts)
        lists(before, ITEMS, USERS, path := tmp_path / f"{searched}.safetensors")
        recommender = over(world, parts[0], parts[1], parts[2], np.delete(counts, gone, axis=1))
        found, memory = lists(recommender, items, moved(USERS, items), path)
        assert memory.searched == searched
        assert ITEMS[gone] not in {item for one in shown(found, items) for item, _ in one}


def test_an_item_under_a_prefix_that_was_empty_searches_everybody(tmp_path: Path) -> None:
    world, path = tiny_world(), tmp_path / "a.safetensors"
    tensors = world.table.tensors
    last = int(tensors.prefixes_NP[-1, 0])
    rows = (tensors.prefixes_NP[:, 0] != last).nonzero().squeeze(1)
    users = [tiny_user("u3", 3, num_items=int(rows[-1]))]
    counts = counts_of()
    before = over(world, *(part[rows] for part in tensors), counts[:, rows.numpy()])
    lists(before, [ITEMS[r] for r in rows.tolist()], users, path)
    counts[:, rows[-1] + 1 :] = 0.0
    _, memory = lists(over(world, *tensors, counts), ITEMS, users, path)
    assert memory.searched == 1


def test_only_the_newest_files_stay(tmp_path: Path) -> None:
    world = tiny_world()
    for day in range(KEEP_FILES + 2):
        lists(world.recommender, ITEMS, USERS[:1], tmp_path / f"2024-10-0{day}.safetensors")
    assert sorted(path.name[9] for path in tmp_path.iterdir()) == ["2", "3", "4"]
