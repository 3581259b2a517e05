import json
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from sigma_assets.abtest import Replayed, analyse_log, simulate_replay
from sigma_assets.cli import main
from sigma_assets.definitions import build_definitions
from sigma_assets.instance import open_instance
from sigma_assets.stages import STAGES
from sigma_core import columns as c
from sigma_core.artifacts import ArtifactStore
from sigma_core.data.catalog import ItemCatalog
from sigma_core.instruction.tasks import TASKS
from tests.e2e.slice import COMMAND, DAY, ENVIRONMENT, digests, sigma

pytestmark = pytest.mark.e2e
KEYS = {"rank", "item_id", "title", "score", "prefix", "prefix_probability"}


def test_everything_a_day_needs_is_made_and_named(made: tuple[Path, str]) -> None:
    root, printed = made
    store = ArtifactStore(root)
    for name, stage in STAGES.items():
        if name in ("eval_report", "ablation_report"):
            continue
        assert store.partitions(name), name
        newest = DAY if stage.cadence == "day" else DAY.replace(day=1)
        assert max(store.partitions(name)) <= newest.isoformat(), "nothing after the day"
        assert any(
            line.startswith(name) and line.rstrip().endswith("made") for line in printed.splitlines()
        ), name
    assert not [*root.glob("*/.*.tmp"), *root.glob(".failed/*/*")]


def test_every_manifest_says_what_it_was_made_from(made: tuple[Path, str]) -> None:
    root, _ = made
    store = ArtifactStore(root)
    manifest = store.manifest("lora_checkpoint", DAY.isoformat())
    assert f"sigma_base/{DAY.replace(day=1)}" in manifest["lineage"]
    assert f"item_catalog/{DAY.replace(day=27)}" in manifest["lineage"]
    assert all(
        key.partition("/")[2] < DAY.isoformat()
        for key in manifest["lineage"]
        if key.startswith("sft_shards/")
    )
    base = store.manifest("sigma_base", DAY.replace(day=1).isoformat())
    assert all(
        key.partition("/")[2] < "2024-10-01" for key in base["lineage"] if key.startswith("sft_shards/")
    )


def test_dagster_sees_no_step_stale_and_no_check_failed(made: tuple[Path, str]) -> None:
    root, _ = made
    store, graph = ArtifactStore(root), build_definitions(root=root).resolve_asset_graph()
    with open_instance(root) as instance:
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        for name in STAGES:
            for key in store.partitions(name)[-3:]:
                causes = [cause.reason for cause in resolver.get_stale_causes(dg.AssetKey(name), key)]
                assert not causes, (name, key)
        assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.SUCCESS}


def test_a_second_call_makes_nothing_and_loads_no_model_library(made: tuple[Path, str]) -> None:
    root, _ = made
    before = {path: path.stat().st_mtime_ns for path in root.glob("*/*/manifest.json")}
    code = (
        "import sys; from sigma_assets.cli import main\n"
        f"try: main(['materialize', '--root', {str(root)!r}, '--as-of', '{DAY}'])\n"
        "except SystemExit as ended: assert not ended.code\n"
        "print(sorted({'torch', 'great_expectations', 'transformers', 'wandb'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT
    )
    *table, modules = done.stdout.splitlines()
    assert modules == "[]"
    assert before == {path: path.stat().st_mtime_ns for path in root.glob("*/*/manifest.json")}
    rows = [line for line in table if line.split(" ")[0] in STAGES]
    assert len(rows) == len(STAGES) - 2
    assert all(row.rstrip().endswith("fresh") for row in rows)


def recommended(
    root: Path, capsys: pytest.CaptureFixture[str], *asked: str, code: int = 0
) -> tuple[str, str]:
    """What `sigma recommend` prints in this process; it must end with `code`."""
    with pytest.raises(SystemExit) as ended:
        main(["recommend", "--root", str(root), "--top-n", "5", "--json", *asked])
    assert ended.value.code == code
    captured = capsys.readouterr()
    return captured.out, captured.err


@pytest.mark.parametrize(
    "asked",
    [
        (),
        ("--task", "holiday"),
        ("--query", "ice cream"),
        ("--category", "coffee"),
        ("--instruction", "surprise me with something new"),
        ("--task", "campaign"),
        ("--task", "trending"),
    ],
)
def test_recommendations_are_json_of_distinct_items_of_the_day(
    made: tuple[Path, str], capsys: pytest.CaptureFixture[str], asked: tuple[str, ...]
) -> None:
    root, _ = made
    rows = json.loads(recommended(root, capsys, "--user", "user003", *asked)[0])
    known = set(ArtifactStore(root).read(ItemCatalog, "item_catalog", DAY.isoformat()).frame[c.ITEM_ID])
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    assert all(set(row) == KEYS for row in rows)
    assert len({row["item_id"] for row in rows} & known) == 5


def test_constraints_and_settings_of_a_request(
    made: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    root, _ = made
    asked = (
        "--instruction",
        "a treat, nothing from coffee, under $9",
        "--category-out",
        "diapers",
        "--hide-owned",
    )
    out, err = recommended(root, capsys, "--user", "user003", *asked, "--prefix-mass", "0.9", "--explain")
    answer = json.loads(out)
    assert answer["understood"] == ["nothing from coffee", "price at most 8.99"]
    said = [f"understood as a filter: {line}" for line in answer["understood"]]
    assert [line for line in err.splitlines() if not line.startswith("taken for: ")] == said
    assert answer["instruction"] == "a treat"
    day = ArtifactStore(root).read(ItemCatalog, "item_catalog", DAY.isoformat()).frame
    category = dict(day.select(c.ITEM_ID, c.CATEGORY).iter_rows())
    assert answer["rows"]
    assert not {"coffee", "diapers"} & {category[row["item_id"]] for row in answer["rows"]}
    why = answer["explanation"]
    assert len(why["items"]) == len(answer["rows"])
    assert all(item["nearest_history"] for item in why["items"])
    assert why["sigma"] > 0


def test_from_the_shell_stdout_is_json_only(made: tuple[Path, str]) -> None:
    done = sigma("recommend", "--root", str(made[0]), "--user", "user003", "--json")
    assert len(json.loads(done.stdout)) == 10
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("asked", "needle"),
    [
        (("--user", "nobody"), "user000"),
        (("--user", "user003", "--task", "everything"), "just_for_you"),
        (("--user", "user003", "--as-of", "2024-10-02"), DAY.isoformat()),
        (("--user", "user003", "--task", "query"), "query"),
        (("--user", "user004", "--task", "campaign"), "no offer"),
        (("--user", "user003", "--category-out", "motor oil"), "motor oil"),
        (("--user", "user003", "--max-price", "0.01"), "no item passes"),
    ],
)
def test_a_request_that_cannot_be_answered_names_what_exists(
    made: tuple[Path, str], capsys: pytest.CaptureFixture[str], asked: tuple[str, ...], needle: str
) -> None:
    out, err = recommended(made[0], capsys, *asked, code=1)
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert needle in err


def test_a_day_is_judged_on_the_days_after_it(made: tuple[Path, str], tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(made[0], root)
    arguments = (
        "evaluate",
        "--root",
        str(root),
        "--as-of",
        DAY.isoformat(),
        "--json",
        str(tmp_path / "report.json"),
    )
    sigma(*arguments)
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["as_of"], report["horizon_days"]) == (DAY.isoformat(), 7)
    assert set(report["tasks"]) == set(TASKS)
    for name, task in report["tasks"].items():
        assert {"sigma", "popularity", "personal_frequency", "personal_decayed", "item_knn"} <= set(
            task["models"]
        )
        assert (task["instruction_lift"] is None) == (name == "just_for_you")
    assert report["catalog"]["targets"] > 0
    assert report["calibration"]["lists"] == report["tasks"]["just_for_you"]["num_households"]
    assert report["examples"]
    with open_instance(root) as instance:
        made_event = instance.get_latest_materialization_event(dg.AssetKey("eval_report"))
    assert made_event is not None
    assert made_event.asset_materialization is not None
    page = Path(str(made_event.asset_materialization.metadata["page"].value))
    assert "Examples" in page.read_text()
    store = ArtifactStore(root)
    assert report["data"] == store.manifest("eval_report", DAY.isoformat())["lineage"]
    assert store.partitions("interaction_events")[-1] == "2024-11-04"
    assert max(store.manifest("eval_report", DAY.isoformat())["lineage"]) < "user_profiles/2024-10-29"
    written = (root / "eval_report" / DAY.isoformat() / "manifest.json").stat().st_mtime_ns
    sigma(*arguments)
    assert (root / "eval_report" / DAY.isoformat() / "manifest.json").stat().st_mtime_ns == written
    early = sigma(*arguments[:-2], "--json", str(tmp_path / "r.json"), "--horizon-days", "30", code=1)
    assert "the source ends 2024-11-07" in early.stderr
    _a_replay_of_a_policy_against_itself_finds_no_difference(root, tmp_path)


def _a_replay_of_a_policy_against_itself_finds_no_difference(root: Path, folder: Path) -> None:
    asked = Replayed(str(root), f"{root}@{DAY}", "replay", "just_for_you", 10, 0.5, 0.05)
    said = simulate_replay(asked, folder / "log", folder / "abtest.json")
    assert said.startswith("A REPLAY of held-out purchases, not an online result.")
    report = json.loads((folder / "abtest.json").read_text())
    assert report["abtest"]["replay"]
    assert not report["sample_ratio"]["assigned"]["mismatch"]
    assert report["users"]["control"]["exposed"] > 0
    assert {"hit_rate", "conversion", "categories_taken", "categories_shown"} <= set(report["metrics"])
    for name, metric in report["metrics"].items():
        assert metric["p"] is None or metric["p"] > 0.001, name
        assert metric["required_users"] is None or metric["required_users"] > 0
    analyse_log(folder / "log", 0.5, 0.05, folder / "again.json")
    again = json.loads((folder / "again.json").read_text())
    assert not again["abtest"]["replay"]
    assert again["metrics"] == report["metrics"]


def test_another_setting_remakes_only_what_depends_on_it(made: tuple[Path, str], tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(made[0], root)
    before = digests(root)
    done = sigma(
        "materialize", "--root", str(root), "--as-of", DAY.isoformat(), "--set", "serving.u2i_top_n=7"
    )
    after = digests(root)
    assert {key for key in after if after[key] != before[key]} == {f"user_to_item_index/{DAY}"}
    assert "serving.u2i_top_n=7" in done.stderr
    assert "1 of" in done.stdout
    again = subprocess.run(
        [*COMMAND, "materialize", "--root", str(root), "--as-of", str(DAY)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=True,
    )
    assert "0 of" in again.stdout  # the root remembers the setting
