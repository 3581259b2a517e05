"""Every contract is kept by a valid artifact and broken by a corrupted one, by the expectation that is there for it."""

from collections.abc import Callable
from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from sigma_assets.checks.contract import CheckOutcome, validate
from sigma_assets.checks.semantic import FACTS, facts
from sigma_core import columns as c
from sigma_core.config import TokenizationConfig
from sigma_core.contracts import contract_names, load_contract
from tests.checks.valid_artifacts import CUT, DAY, VALID, Case

Corruption = Callable[[Any, dict[str, Any]], Any]


def outcomes(asset: str, case: Case) -> list[CheckOutcome]:
    value, inputs = case
    return validate(load_contract(asset), facts(asset, value, **inputs))


def set_first(column: str, new: Any, frame: str = "frame") -> Corruption:
    """The first row's `column` becomes `new`."""

    def corrupt(value: Any, inputs: dict[str, Any]) -> None:
        table: pl.DataFrame = getattr(value, frame)
        changed = pl.Series([new, *table[column].to_list()[1:]], dtype=table.schema[column])
        setattr(value, frame, table.with_columns(changed.alias(column)))

    return corrupt


def undated(rows: int, day: date | None = None) -> Corruption:
    """So many refused rows without a time, or with one that no day of the data has."""
    found = pl.DataFrame({c.EVENT_DATE: [day] * rows}, schema={c.EVENT_DATE: pl.Date})
    return change("quarantine", lambda table: pl.concat([table, found], how="diagonal_relaxed"))


def repeat_first(frame: str = "frame") -> Corruption:
    """The first row stands there twice."""

    def corrupt(value: Any, inputs: dict[str, Any]) -> None:
        table: pl.DataFrame = getattr(value, frame)
        setattr(value, frame, pl.concat([table, table.head(1)]))

    return corrupt


def change(name: str, edit: Callable[[Any], Any]) -> Corruption:
    """Attribute `name` becomes `edit` of it."""
    return lambda value, inputs: setattr(value, name, edit(getattr(value, name)))


def given(**inputs_changed: Any) -> Corruption:
    """Other inputs than the valid ones."""
    return lambda value, inputs: inputs.update(inputs_changed)


def first_nan(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.copy()
    vectors[0, 0] = np.nan
    return vectors


def nan_fold(out_of_fold: Any) -> SimpleNamespace:
    return SimpleNamespace(vectors_FNW=np.full_like(out_of_fold.vectors_FNW, np.nan))


def nan_tensor(value: Any, inputs: dict[str, Any]) -> None:
    value["lora_a"] = np.full((2, 3), np.nan, np.float32)


def without_model(value: Any, inputs: dict[str, Any]) -> None:
    del value["tasks"]["query"]["models"]["item_knn"]


def pointing(**values: Any) -> Corruption:
    """The pointer says something else."""
    return lambda value, inputs: vars(value.pointer).update(values)


def nan_metric(value: Any, inputs: dict[str, Any]) -> None:
    value["tasks"]["query"]["models"]["sigma"]["recall@20"] = float("nan")


def with_(**values: Any) -> Callable[[Any], Any]:
    """The same thing with other attributes."""
    return lambda value: SimpleNamespace(**{**vars(value), **values})


another_adapter = with_(digest=lambda: "another")
on_another_base = with_(base_digest="another")
for_other_prefixes = with_(bound_to="elsewhere")
with_nan = with_(tensors={"lora_a": np.full((2, 3), np.nan, np.float32)})


def recall_of_sigma(**figures: float) -> Corruption:
    """SIGMA's recall on one task becomes something else."""

    def corrupt(value: Any, inputs: dict[str, Any]) -> None:
        value["arms"]["sigma"]["query"] = {
            "recall@20": {**value["arms"]["sigma"]["query"]["recall@20"], **figures}
        }

    return corrupt


CORRUPTED: list[tuple[str, str, Corruption]] = [
    ("interaction_events", "interaction_events.source_row_unique", repeat_first()),
    ("interaction_events", "interaction_events.item_in_master", given(known_items=["a", "b"])),
    ("interaction_events", "interaction_events.lines_of_this_day", given(days=[CUT])),
    ("interaction_events", "interaction_events.quantity_positive", set_first(c.QUANTITY, -1.0)),
    ("interaction_events", "interaction_events.user_id_known", set_first(c.USER_ID, None)),
    ("interaction_events", "day.most_times_usable", undated(1)),
    ("interaction_events", "day.most_times_usable", undated(1, date(2204, 1, 3))),
    ("interaction_history", "interaction_history.lines_of_this_month", given(last=CUT)),
    ("interaction_history", "interaction_history.line_once", repeat_first()),
    ("item_catalog", "item_catalog.item_id_unique", repeat_first()),
    ("item_catalog", "item_catalog.no_future_launch", set_first(c.LAUNCHED_ON, DAY + timedelta(days=1))),
    ("item_catalog", "item_catalog.windows_nest_28_14", set_first(c.NUM_EVENTS_14D, 99)),
    ("user_profiles", "user_profiles.no_future_customer", set_first(c.FIRST_SEEN, DAY + timedelta(days=1))),
    ("user_profiles", "user_profiles.user_id_unique", repeat_first()),
    ("relevance_pairs", "relevance_pairs.positive_in_catalog", given(item_ids=["a"])),
    ("relevance_pairs", "relevance_pairs.no_self_pair", set_first(c.POSITIVE_ITEM_ID, "a")),
    ("item_id_embeddings", "item_id_embeddings.vectors_finite", change("vectors", first_nan)),
    ("item_id_embeddings", "item_id_embeddings.vectors_finite", change("out_of_fold", nan_fold)),
    ("item_id_embeddings", "item_id_embeddings.norm_plausible", change("vectors", np.zeros_like)),
    ("grounded_encoder", "probe.texts_told_apart", given(probe_texts=["tea", "ham", "egg"])),
    ("refit_item_embeddings", "coverage.catalog_covered", given(item_ids=list("abcdefg"))),
    ("refit_item_embeddings", "refit_item_embeddings.vectors_unit", change("vectors", lambda v: v * 1.1)),
    ("item_embeddings", "item_embeddings.vectors_finite", change("vectors", first_nan)),
    ("item_embeddings", "item_embeddings.item_in_catalog", given(item_ids=list("abcde"))),
    ("codebooks", "items.codes_in_range", change("codes", lambda codes: codes + 1)),
    ("codebooks", "health.refit_covered", given(item_ids=list("abcdef"))),
    ("codebooks", "health.groups_not_collapsed", change("codes", np.zeros_like)),
    ("codebooks", "health.codes_say_something", change("health", lambda _: {"explained": -0.1})),
    ("semantic_id_map", "semantic_id_map.codes_in_range", set_first(c.CODES, [0, 2])),
    ("semantic_id_map", "semantic_id_map.codes_pinned", set_first(c.CODES, [0, 1])),
    ("semantic_id_map", "semantic_id_map.prefix_leads_codes", set_first(c.PREFIX, [1])),
    ("semantic_id_map", "health.catalog_covered", given(item_ids=list("abcdefg"))),
    ("sft_shards", "examples.targets_known", set_first(c.TARGETS, ["nowhere"], "examples")),
    ("sft_shards", "examples.targets_in_window", set_first(c.TARGETS, ["d"], "examples")),
    ("sft_shards", "examples.window_after_cut", set_first(c.TARGET_END, CUT, "examples")),
    ("sft_shards", "contexts.nothing_after_cut", set_first(c.RECENT_AGES, [-1, 3], "contexts")),
    ("sft_shards", "contexts.recent_in_catalog", set_first(c.RECENT_ITEMS, ["a", "nowhere"], "contexts")),
    ("sft_shards", "activity.activity_in_catalog", set_first(c.ITEM_ID, "nowhere", "activity")),
    ("sft_shards", "activity.activity_once", repeat_first("activity")),
    ("sft_shards", "activity.activity_windows_nest", set_first(c.NUM_EVENTS_14D, 99, "activity")),
    ("sft_shards", "activity.activity_not_negative", set_first(c.NUM_EVENTS_14D, -1, "activity")),
    ("sigma_base", "sigma_base.weights_finite", nan_tensor),
    ("sigma_base", "sigma_base.loss_not_worse", given(probe_loss=float("nan"))),
    ("lora_checkpoint", "lora_checkpoint.beams_valid", given(beams_valid=0.99)),
    ("lora_checkpoint", "lora_checkpoint.base_compatible", given(base_compatible=False)),
    ("promoted_model", "promoted_model.something_serves", pointing(outcome="refused")),
    ("promoted_model", "promoted_model.no_later_day", pointing(since=str(DAY + timedelta(days=1)))),
    ("promoted_model", "promoted_model.of_the_day", given(day=str(CUT))),
    ("promoted_model", "promoted_model.what_it_names", change("checkpoint", another_adapter)),
    ("promoted_model", "promoted_model.fits_base", change("checkpoint", on_another_base)),
    ("promoted_model", "promoted_model.fits_prefixes", change("checkpoint", for_other_prefixes)),
    ("promoted_model", "promoted_model.weights_finite", change("checkpoint", with_nan)),
    ("item_index", "layout.offsets_right", change("offsets", lambda offsets: offsets + [0, 1, 0])),
    ("item_index", "layout.rows_sorted", change("prefixes", lambda prefixes: prefixes[::-1])),
    ("user_to_item_index", "user_to_item_index.best_first", set_first(c.SCORE, 0.1)),
    ("user_to_item_index", "user_to_item_index.item_in_index", set_first(c.ITEM_ID, "nowhere")),
    ("eval_report", "report.all_baselines", without_model),
    ("eval_report", "report.no_nan", nan_metric),
    ("ablation_report", "report.all_arms", lambda value, inputs: value["arms"].pop("gr_id")),
    ("ablation_report", "report.no_nan", recall_of_sigma(low=float("nan"))),
    ("ablation_report", "arms.recall_is_a_share", recall_of_sigma(mean=1.2)),
    ("ablation_report", "arms.interval_in_order", recall_of_sigma(low=0.4)),
]


@pytest.mark.parametrize("asset", sorted(VALID))
def test_a_valid_artifact_keeps_its_contract(asset: str) -> None:
    broken = [o.description for o in outcomes(asset, VALID[asset]()) if not o.passed]
    assert broken == []


@pytest.mark.parametrize(
    ("asset", "expected", "corrupt"), CORRUPTED, ids=[f"{a}-{e}" for a, e, _ in CORRUPTED]
)
def test_a_corrupted_artifact_breaks_the_expectation_made_for_it(
    asset: str, expected: str, corrupt: Corruption
) -> None:
    value, inputs = VALID[asset]()
    corrupt(value, inputs)
    failed = {o.id: o for o in outcomes(asset, (value, inputs)) if not o.passed}
    assert expected in failed, sorted(failed)
    assert failed[expected].severity == "ERROR"
    assert failed[expected].asset == asset


def test_every_contract_has_facts_a_valid_and_a_corrupted_artifact() -> None:
    assert set(contract_names()) == set(FACTS) == set(VALID) == {asset for asset, _, _ in CORRUPTED}


def test_a_warning_does_not_forbid_writing() -> None:
    value, inputs = VALID["lora_checkpoint"]()
    inputs["probe_loss"] = 2.6  # above the base's 2.5, below 1.1 times it
    failed = [(o.id, o.severity) for o in outcomes("lora_checkpoint", (value, inputs)) if not o.passed]
    assert failed == [("lora_checkpoint.loss_better", "WARN")]


@pytest.mark.parametrize(
    ("figure", "value", "expected"),
    [
        ("prefix_changed_share", 0.61, "refit_drift"),
        ("prefix_purity", 0.2, "groups_are_pure"),
        ("explained", 0.4, "codes_say_much"),
        ("distinct_collision_rate", 0.6, "addresses_distinct"),
    ],
)
def test_poor_codebooks_warn(figure: str, value: float, expected: str) -> None:
    books, inputs = VALID["codebooks"]()
    books.health = {figure: value}
    failed = [(o.id, o.severity) for o in outcomes("codebooks", (books, inputs)) if not o.passed]
    assert failed == [(f"health.{expected}", "WARN")]


def test_an_info_expectation_passes_and_tells() -> None:
    value, inputs = VALID["eval_report"]()
    value["tasks"]["holiday"]["underpowered"] = True
    told = {o.id: o for o in outcomes("eval_report", (value, inputs))}["tasks.tasks_have_power"]
    assert told.passed
    assert told.details["met"] is False


def test_facts_of_an_unknown_asset_name_what_exists() -> None:
    with pytest.raises(ValueError, match=r"no facts for asset 'nothing'.*codebooks"):
        facts("nothing", None)


def test_the_bound_of_the_largest_group_is_that_of_the_fit() -> None:
    rules = load_contract("codebooks").tables["health"].expectations
    (bound,) = (rule.kwargs["max_value"] for rule in rules if rule.meta.id == "groups_balanced")
    assert bound == TokenizationConfig().max_group_ratio
