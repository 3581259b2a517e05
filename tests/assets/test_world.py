import shutil
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

from sigma_assets.binding import Request, RootError, bind, read_binding, save
from sigma_assets.pretrained_weights import weight_parts, weights_changed
from sigma_assets.stages import STAGES
from sigma_assets.world import World, options_digest
from sigma_core import columns as c
from sigma_core.artifacts import write_json
from sigma_core.config import ConfigError, load_config
from sigma_core.data.events import InteractionEvents
from sigma_core.pretrained import find_pretrained
from tests.assets.roots import small_request, small_world
from tests.model.tiny_llm import save_tiny_llm
from tests.toy_world import small_source, write_tabular


def test_a_root_knows_its_source_dates_and_settings(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    again = World.open(world.root)
    assert again.binding == world.binding
    assert (again.span.start.isoformat(), again.span.end.isoformat()) == ("2024-09-09", "2024-10-23")
    assert again.config.data.left_censored_days == 14
    assert again.config.profile == "toy"


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"source": "movielens"}, ("tabular", "movielens")),
        ({"profile": "demo"}, ("toy", "demo")),
        ({"path": Path("/elsewhere")}, ("data", "/elsewhere")),
    ],
)
def test_a_root_refuses_another_source_path_or_profile_naming_both(
    tmp_path: Path, change: dict[str, object], names: tuple[str, str]
) -> None:
    world = small_world(tmp_path)
    with pytest.raises(RootError) as refused:
        bind(world.root, replace(small_request(tmp_path / "data"), **change))  # type: ignore[arg-type]
    assert all(name in str(refused.value) for name in names)


def test_settings_are_kept_and_single_ones_may_change(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    assert bind(world.root, Request()) == (world.binding, [])
    binding, notes = bind(world.root, Request(settings=("training.lora_steps=9",)))
    assert binding.config().training.lora_steps == 9
    assert binding.config().data.left_censored_days == 14
    assert "training.lora_steps=9" in notes[0]
    default, _ = bind(world.root, Request(settings=("training.lora_steps=6",)))  # the toy profile's own value
    assert default == world.binding


def test_a_new_root_of_own_data_says_whose_holidays_it_takes(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    wanted = small_request(tmp_path / "data")
    _, (told,) = bind(tmp_path / "new", wanted)
    assert "holidays and seasons are those of US" in told
    assert bind(tmp_path / "other", replace(wanted, settings=("data.country=DE",)))[1] == []
    assert bind(world.root, Request())[1] == [], "once"


def test_changed_weights_of_a_pretrained_model_make_what_was_trained_on_them_stale(tmp_path: Path) -> None:
    world, llm = small_world(tmp_path), save_tiny_llm(tmp_path / "llm")
    setting = f"model.backbone={llm}"
    first, _ = bind(world.root, Request(settings=(setting,)))
    trained = first.parts["backbone/model"]
    assert trained == find_pretrained(str(llm)).digest()
    folder = tmp_path / "artifact"
    folder.mkdir()
    write_json(folder / "meta.json", {"backbone_digest": trained})
    assert bind(world.root, Request()) == (first, [])
    assert not weights_changed(first.parts, "sigma_base", folder)
    save_tiny_llm(llm, seed=1)
    now, _ = bind(world.root, Request())
    assert weights_changed(now.parts, "sigma_base", folder)
    assert not weights_changed(now.parts, "grounded_encoder", folder)
    llm.rename(tmp_path / "away")  # what is not there now stays as it was known
    assert bind(world.root, Request())[0] == now
    assert bind(world.root, Request(settings=("model.backbone=mini",)))[0].parts == world.binding.parts


def test_a_bert_is_inside_its_encoder_and_no_part_of_the_root(tmp_path: Path) -> None:
    bert = shutil.copytree(find_pretrained("minilm").folder, tmp_path / "bert")
    assert weight_parts(load_config("toy", None, (f"grounding.backbone={bert}",)), {}) == {}


def test_an_artifact_without_its_meta_file_is_left_to_its_reader(tmp_path: Path) -> None:
    parts = {"backbone/model": "known"}
    assert not weights_changed(parts, "sigma_base", tmp_path)
    (tmp_path / "meta.json").write_text("[]")
    assert not weights_changed(parts, "sigma_base", tmp_path)


def test_a_backbone_that_does_not_fit_is_refused_before_a_root_is_made(tmp_path: Path) -> None:
    request = small_request(
        write_tabular(small_source(num_users=20, num_items=40, days=45), tmp_path / "data")
    )
    gpt2 = save_tiny_llm(tmp_path / "gpt2", "gpt2")
    for setting, why in (
        (f"model.backbone={gpt2}", "not rotary"),
        (f"grounding.backbone={gpt2}", r"grounding\.text_dim is 32, the backbone's width only 24"),
        ("grounding.annotator=endpoint", "annotator_model|SIGMA_ANNOTATOR_API_KEY"),
    ):
        asked = replace(request, settings=(*request.settings, setting))
        with pytest.raises(ConfigError, match=why):
            bind(tmp_path / "other", asked)
    assert not (tmp_path / "other").exists()


def test_a_config_file_replaces_the_roots_settings(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    (tmp_path / "mine.yaml").write_text("training: {lora_steps: 5}\n")
    binding, _ = bind(world.root, Request(config_file=tmp_path / "mine.yaml"))
    assert binding.settings == ("training.lora_steps=5",)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("training.lora_stepz=1", r"training\.lora_stepz: unknown setting; did you mean lora_steps"),
        ("traning.lora_steps=1", r"traning: unknown section; did you mean training"),
        ("runtime.zzz=1", r"runtime\.zzz: unknown setting; there are "),
        ("training.lora_steps=many", r"training\.lora_steps: Input should be a valid integer"),
        ("runtime.device=tpu", r"runtime\.device: needed cpu, cuda"),
        ("runtime.device=cuda:9999", r"runtime\.device: .*CUDA"),
        ("data.country=ZZ", r"data\.country: country 'ZZ' is unknown"),
        ("data.country=NO", r"data\.country: needed text, in quotes"),
        ("serving.u2i_tasks=[foo]", r"serving\.u2i_tasks: foo: lists made ahead can be for just_for_you, "),
        ("model.backbone=nosuch", r"model\.backbone: model 'nosuch' is neither a folder .*nor in"),
        ("model.backbone=minilm", r"model\.backbone: needed a decoder"),
        ("grounding.backbone=nosuch", r"grounding\.backbone: model 'nosuch' is neither"),
        ("grounding.backbone=mini", r"grounding\.backbone: needed a pre-trained model"),
        ("grounding.lora_targets=q_proj", r"needed a list: --set 'grounding\.lora_targets=\[a, b\]'"),
        ("runtime=3", r"needed section\.key=value"),
        ("grounding.lora_targets=[a", r"--set 'grounding\.lora_targets=\[a': the value is no YAML"),
        ("ablation.arms=[no_kdd]", r"ablation\.arms: unknown arms \['no_kdd'\]; there are all, headline"),
    ],
)
def test_a_wrong_setting_binds_nothing(setting: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        bind(tmp_path / "root", Request(settings=(setting,)))
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[1,2", "is no YAML: .*write sections like `sigma config`"),
        (b"\xff\xfe\x00\x01", "is no YAML: .*write sections like"),
        (b"- runtime", "holds a list; write sections"),
        (b"runtime: 3", "setting runtime: needed a section with its settings below it"),
        (b"runtime: {threads: 0}", "setting runtime.threads: "),
    ],
)
def test_a_wrong_config_file_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=f"--config {tmp_path}/mine.yaml.*{said}"):
        load_config("toy", tmp_path / "mine.yaml")
    with pytest.raises(ConfigError, match=f"--config {tmp_path} cannot be read"):
        load_config("toy", tmp_path)


def test_a_root_goes_on_when_the_model_it_is_bound_to_is_gone(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    save(world.root, replace(world.binding, settings=("model.backbone=moved_away",)))
    assert bind(world.root, Request())[0].settings == ('model.backbone="moved_away"',)


def test_changed_data_are_noted_and_read_again(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    write_tabular(small_source(num_users=20, num_items=40, days=50), tmp_path / "data")
    binding, notes = bind(world.root, Request())
    assert "changed" in notes[0]
    assert binding.end > world.binding.end


def test_a_source_that_only_grew_concerns_its_events_alone(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    events = tmp_path / "data" / "events.parquet"
    rows = pl.read_parquet(events)
    pl.concat(
        [rows, rows.head(1).with_columns(pl.lit(datetime(2024, 10, 24)).alias(c.EVENT_TIME))]
    ).write_parquet(events)
    grown = World(world.root, bind(world.root, Request())[0])
    assert grown.binding.end == date(2024, 10, 24)

    def changed(day: str) -> set[str]:
        return {n for n, s in STAGES.items() if grown.source_lineage(s, day) != world.source_lineage(s, day)}

    assert changed("2024-10-24") == {"interaction_events"}
    assert changed("2024-10-23") == set()


def test_an_empty_root_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RootError, match="sigma materialize"):
        read_binding(tmp_path)


def test_why_a_partition_is_stale(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    stage, month = STAGES["interaction_history"], "2024-09-01"
    empty = InteractionEvents(_no_events())

    def write(**extra: object) -> None:
        world.store.write(
            stage.name,
            month,
            empty,
            lineage=world.lineage(stage, month),
            extra={"code_version": world.code_versions[stage.name], "options": "", **extra},
        )

    assert world.why_stale(stage, month) == "missing"
    write()
    assert world.why_stale(stage, month) is None
    assert world.why_stale(stage, month, options_digest({"sample": 3})) == "options changed"
    world.mark_failure(stage.name, month, "a check")
    assert "failed" in str(world.why_stale(stage, month))
    world.clear_failure(stage.name, month)
    world.store.write("interaction_events", "2024-09-10", empty)
    assert world.why_stale(stage, month) == "an input changed"
    write()
    assert world.why_stale(stage, month) is None
    world.mark_failure("interaction_events", "2024-09-10", "a check")  # a failed input counts as absent
    assert world.why_stale(stage, month) == "an input changed"
    write(code_version="other")
    assert world.why_stale(stage, month) == "settings or code changed"


def _no_events() -> pl.DataFrame:
    return pl.DataFrame(schema=InteractionEvents.schema)


def test_options_left_out_are_no_options() -> None:
    assert options_digest({"a": None}) == options_digest(None) == ""
    assert options_digest({"a": 1}) != options_digest({"a": 2})
