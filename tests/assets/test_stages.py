import ast
import inspect
from dataclasses import replace

import pytest

from sigma_assets.definitions import MODULES
from sigma_assets.stages import GROUPS, ORDER, STAGES, Stage
from sigma_core.config import PROFILES, AblationConfig, SigmaConfig, profile_config
from sigma_core.contracts import contract_names

DEMO = profile_config("demo")


def changed(setting: str) -> set[str]:
    """Stages whose code version another value of the setting changes, without what runs other stages' code."""
    section, key = setting.split(".")
    value = getattr(getattr(DEMO, section), key)
    other = DEMO.model_copy(update={section: getattr(DEMO, section).model_copy(update={key: value + 1})})
    return {
        name
        for name, stage in STAGES.items()
        if not stage.runs and stage.code_version(DEMO) != stage.code_version(other)
    }


def test_what_runs_other_stages_changes_with_them_and_with_its_own_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage, dearer = STAGES["ablation_report"], DEMO.model_copy(update={"ablation": AblationConfig(steps=7)})
    before = stage.code_version(DEMO)
    assert stage.code_version(dearer) != before
    monkeypatch.setitem(STAGES, "user_to_item_index", replace(STAGES["user_to_item_index"], version="next"))
    assert stage.code_version(DEMO) == before
    monkeypatch.setitem(STAGES, "lora_checkpoint", replace(STAGES["lora_checkpoint"], version="next"))
    assert stage.code_version(DEMO) != before


def test_generation_of_another_version_makes_lists_and_their_judgement_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = {name: stage.code_version(DEMO) for name, stage in STAGES.items()}
    monkeypatch.setattr("sigma_core.versions.GENERATION_VERSION", "next")
    stale = {name for name, stage in STAGES.items() if stage.code_version(DEMO) != before[name]}
    assert stale == {"user_to_item_index", "eval_report", "ablation_report"}


def test_a_setting_concerns_exactly_the_stages_that_read_it() -> None:
    assert changed("training.lora_steps") == {"lora_checkpoint"}
    assert changed("training.base_steps") == {"sigma_base"}
    assert changed("tokenization.codebook_size") == {"codebooks"}
    assert changed("grounding.id_iterations") == {"item_id_embeddings", "relevance_pairs", "grounded_encoder"}
    assert changed("evaluation.bootstrap_samples") == {"eval_report"}


def test_threads_concern_nobody_and_the_seed_everyone_who_draws() -> None:
    assert changed("runtime.threads") == set()
    assert {"grounded_encoder", "codebooks", "sft_shards", "sigma_base", "lora_checkpoint"} <= changed(
        "runtime.seed"
    )


def test_every_setting_that_changes_a_result_belongs_to_some_stage() -> None:
    free = {"runtime.threads", "runtime.device", "runtime.deterministic", "instruction.shard_stride_days"}
    windows = {"training.base_window_days", "training.lora_window_days"}
    for section, values in DEMO.model_dump(mode="json").items():
        if section in ("http", "nearline"):
            continue  # how answers are sent and kept current changes no artifact
        for key in values if isinstance(values, dict) else ():
            name = f"{section}.{key}"
            owned = any(name in _settings(stage, DEMO) for stage in STAGES.values())
            assert owned or name in free | windows, f"no stage depends on {name}"


def _settings(stage: Stage, config: SigmaConfig) -> set[str]:
    from sigma_assets.stages import _flat, _selected

    return {key for key, _ in _flat(config) if _selected(key, stage.settings)}


@pytest.mark.parametrize("name", STAGES)
def test_a_body_takes_what_the_table_says(name: str) -> None:
    stage = STAGES[name]
    body = getattr(MODULES[stage.group], name)
    assert set(inspect.signature(body).parameters) - {"context", "sigma", "config"} == set(stage.reads)
    code = ast.parse(inspect.getsource(body)).body[0]
    assert isinstance(code, ast.FunctionDef)
    docstring, *moves = code.body
    assert inspect.getdoc(body)
    assert (moves[-1].end_lineno or 0) - (docstring.end_lineno or 0) <= 24, "four moves, no more"


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_reads_earlier_stages_only_and_has_a_contract(name: str) -> None:
    assert all(ORDER[read.asset] < ORDER[name] for read in STAGES[name].reads.values())
    assert name in contract_names()


def test_the_walk_of_the_architecture_is_there() -> None:
    assert GROUPS == (
        "sources",
        "grounding",
        "tokenization",
        "instruction",
        "training",
        "promotion",
        "serving",
        "evaluation",
    )
    reads = {name: {read.asset for read in stage.reads.values()} for name, stage in STAGES.items()}
    assert reads["codebooks"] >= {"refit_item_embeddings"}
    assert reads["semantic_id_map"] >= {"item_embeddings", "codebooks", "item_catalog"}
    assert reads["lora_checkpoint"] >= {
        "sigma_base",
        "sft_shards",
        "item_catalog",
        "grounded_encoder",
        "codebooks",
    }
    assert "item_embeddings" not in reads["lora_checkpoint"]
    assert "promoted_model" in reads["user_to_item_index"]
    assert "lora_checkpoint" not in reads["user_to_item_index"]
    assert reads["item_index"] >= {"lora_checkpoint", "semantic_id_map", "item_embeddings"}
    assert all(profile in PROFILES for profile in ("demo", "toy", "standard"))
