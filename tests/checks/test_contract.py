"""How a contract is run: unknown expectations, empty frames, missing columns, many partitions at once, Dagster's view."""

import json
import socket
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import polars as pl
import pytest
import yaml

from sigma_assets.checks.contract import (
    CheckOutcome,
    check_results,
    check_specs,
    failed_errors,
    validate,
    validate_range,
)
from sigma_assets.checks.semantic import facts
from sigma_core import columns as c
from sigma_core.contracts import (
    Contract,
    ContractError,
    bundled_path,
    load_contract,
    load_contracts,
    read_contract,
)
from tests.checks.valid_artifacts import DAY, ITEMS, VALID, events, refused


def contract_of(*expectations: dict[str, Any], columns: tuple[str, ...] = ("x", "y")) -> Contract:
    """One table `t` with Int64 columns; row count >= 1 is always in it."""
    rows = {
        "type": "expect_table_row_count_to_be_between",
        "kwargs": {"min_value": 1},
        "meta": {"id": "rows"},
    }
    return Contract.model_validate(
        {
            "name": "t",
            "owner": "team:test",
            "description": "a test",
            "freshness": {"text": "never", "hours": 1},
            "tables": {
                "t": {
                    "description": "a test",
                    "key": ["x"],
                    "columns": [{"name": n, "type": "Int64", "description": n} for n in columns],
                    "expectations": [{"severity": "critical", **e} for e in (rows, *expectations)],
                }
            },
        }
    )


def between(column: str, low: float, high: float, **more: Any) -> dict[str, Any]:
    kwargs = {"column": column, "min_value": low, "max_value": high, **more}
    return {"type": "expect_column_values_to_be_between", "kwargs": kwargs, "meta": {"id": f"{column}_range"}}


def ids(outcomes: list[CheckOutcome]) -> list[str]:
    return [o.id for o in outcomes if not o.passed]


# ------------------------------------------------------------------------------------------ one frame
def test_an_unknown_expectation_raises_and_is_not_dropped() -> None:
    typo = {"type": "expect_column_values_to_be_nice", "kwargs": {"column": "x"}, "meta": {"id": "nice"}}
    with pytest.raises(ContractError, match=r"nice \(expect_column_values_to_be_nice\)"):
        validate(contract_of(typo), {"t": pl.DataFrame({"x": [1], "y": [2]})})


def test_an_empty_frame_fails() -> None:
    empty = pl.DataFrame(schema={"x": pl.Int64, "y": pl.Int64})
    assert ids(validate(contract_of(between("x", 0, 9)), {"t": empty})) == ["t.rows"]


@pytest.mark.parametrize("name", sorted(load_contracts()))
def test_every_table_of_every_contract_notices_an_empty_frame(name: str) -> None:
    for table in load_contract(name).tables.values():
        assert any(
            e.type == "expect_table_row_count_to_be_between" and e.kwargs["min_value"] >= 1
            for e in table.expectations
        )


def test_a_missing_column_is_an_error_that_names_it() -> None:
    broken = {o.id: o for o in validate(contract_of(between("y", 0, 9)), {"t": pl.DataFrame({"x": [1]})})}
    assert [o.id for o in failed_errors(broken.values())] == ["t.columns", "t.y_range"]
    assert "column y is missing" in broken["t.columns"].description


def test_a_wrong_type_is_an_error_that_names_both() -> None:
    frame = pl.DataFrame({"x": [1], "y": ["one"]})
    (columns,) = (o for o in validate(contract_of(), {"t": frame}) if o.id == "t.columns")
    assert not columns.passed
    assert columns.details["wrong_types"] == {"y": {"needed": "Int64", "arrived": "String"}}


def test_a_missing_table_is_an_error_and_an_unknown_one_a_mistake() -> None:
    assert ids(validate(contract_of(), {})) == ["t.columns"]
    with pytest.raises(ValueError, match=r"arrived also .'u'."):
        validate(contract_of(), {"u": pl.DataFrame()})


def test_what_cannot_be_evaluated_is_an_error_even_as_a_warning() -> None:
    text = {
        "type": "expect_column_values_to_match_regex",
        "kwargs": {"column": "y", "regex": "("},  # not a regular expression
        "severity": "warning",
        "meta": {"id": "pattern"},
    }
    frame = pl.DataFrame({"x": [1], "y": [1]})
    (outcome,) = failed_errors(validate(contract_of(text), {"t": frame}))
    assert outcome.id == "t.pattern"
    assert "could not be checked" in outcome.description


def test_a_failure_shows_counts_and_the_key_of_an_example() -> None:
    frame = pl.DataFrame({"x": [1, 2, 3], "y": [5, 50, 60]})
    (outcome,) = failed_errors(validate(contract_of(between("y", 0, 9)), {"t": frame}))
    assert outcome.details["unexpected_count"] == 2
    assert outcome.details["examples"] == [{"x": 2, "y": 50}, {"x": 3, "y": 60}]
    assert "2 of 3 rows" in outcome.description
    json.dumps(asdict(outcome))


def test_validation_opens_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> NoReturn:
        raise AssertionError(f"a connection was opened: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    value, inputs = VALID["interaction_events"]()
    assert (
        ids(validate(load_contract("interaction_events"), facts("interaction_events", value, **inputs))) == []
    )


# ------------------------------------------------------------------------------------ many partitions
def a_week() -> tuple[list[date], pl.DataFrame]:
    """Seven days of four lines each; the fourth day is closed."""
    days = [DAY + timedelta(days=i) for i in range(7)]
    return days, pl.concat([events(day, 10 * i) for i, day in enumerate(days) if i != 3])


def range_and_single(frame: pl.DataFrame, days: list[date]) -> None:
    """`validate_range` says of every day what `validate` says of it alone."""
    contract = load_contract("interaction_events")
    value = SimpleNamespace(frame=frame, quarantine=refused(days[0], 1))
    together = validate_range(
        contract, facts("interaction_events", value, days=days, known_items=ITEMS), c.EVENT_DATE, days
    )
    assert list(together) == [str(day) for day in days]
    for day in days:
        part = SimpleNamespace(
            frame=frame.filter(pl.col(c.EVENT_DATE) == day),
            quarantine=refused(day, 1 if day == days[0] else 0),
        )
        alone = validate(contract, facts("interaction_events", part, days=[day], known_items=ITEMS))
        assert {(o.id, o.passed, o.severity) for o in together[str(day)]} == {
            (o.id, o.passed, o.severity) for o in alone
        }


def test_many_clean_days_at_once_are_judged_like_each_alone() -> None:
    days, frame = a_week()
    range_and_single(frame, days)


def test_one_bad_day_among_many_is_the_only_one_that_fails() -> None:
    days, frame = a_week()
    bad = frame.with_columns(
        pl.when(pl.col(c.EVENT_DATE) == days[5]).then(-1.0).otherwise(c.QUANTITY).alias(c.QUANTITY)
    )
    range_and_single(bad, days)
    value = SimpleNamespace(frame=bad, quarantine=None)
    found = validate_range(
        load_contract("interaction_events"),
        facts("interaction_events", value, days=days, known_items=ITEMS),
        c.EVENT_DATE,
        days,
    )
    assert [day for day, outcomes in found.items() if failed_errors(outcomes)] == [str(days[5])]


def test_in_a_range_mostly_and_uniqueness_mean_the_partition() -> None:
    # y > 9 in 1 of 10 rows overall (mostly .8 holds), but in 1 of 2 rows of partition 5; x = 1 is in two partitions.
    frame = pl.DataFrame(
        {
            "x": [1, 1, 2, 3, 4, 5, 6, 7, 8, 9],
            "y": [99, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            "p": [5] + [4] + [5] + [4] * 7,
        }
    )
    unique = {
        "type": "expect_column_values_to_be_unique",
        "kwargs": {"column": "x"},
        "meta": {"id": "x_unique"},
    }
    found = validate_range(contract_of(between("y", 0, 9, mostly=0.8), unique), frame, "p", [4, 5])
    assert {key: ids(outcomes) for key, outcomes in found.items()} == {"4": [], "5": ["t.y_range"]}


def test_an_expectation_on_the_whole_frame_is_judged_per_partition() -> None:
    mean = {
        "type": "expect_column_mean_to_be_between",
        "kwargs": {"column": "y", "max_value": 1},
        "meta": {"id": "mean"},
    }
    frame = pl.DataFrame({"x": [1, 2], "y": [0, 2], "p": ["a", "b"]})  # mean 1 together, 0 and 2 apart
    found = validate_range(contract_of(mean), frame, "p", ["a", "b"])
    assert {key: ids(outcomes) for key, outcomes in found.items()} == {"a": [], "b": ["t.mean"]}


def test_rows_of_a_partition_that_nobody_asked_for_are_refused() -> None:
    frame = pl.DataFrame({"x": [1], "y": [1], "p": ["b"]})
    with pytest.raises(ValueError, match="rows of 1 partitions nobody asked for"):
        validate_range(contract_of(), frame, "p", ["a"])


# --------------------------------------------------------------------------------------- the YAML form
def test_an_expectation_on_an_undeclared_column_is_refused() -> None:
    with pytest.raises(ValueError, match=r"undeclared columns: .'z'."):
        contract_of(between("z", 0, 1))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"nmae": "x"}, "nmae"),
        ({"name": "other"}, "a contract's file bears its name"),
        ({"owner": "me"}, "owner"),
    ],
)
def test_a_misspelt_contract_file_is_refused(tmp_path: Path, edit: dict[str, str], message: str) -> None:
    values = yaml.safe_load((bundled_path("data_contracts") / "user_profiles.yaml").read_text()) | edit
    path = tmp_path / "user_profiles.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ContractError, match=message):
        read_contract(path)


def test_an_asset_without_a_contract_names_those_that_have_one() -> None:
    with pytest.raises(
        ContractError, match="'nothing' has no contract; there are ablation_report, codebooks"
    ):
        load_contract("nothing")


# --------------------------------------------------------------------------------------------- Dagster
def test_specs_and_results_agree_and_only_errors_block() -> None:
    pytest.importorskip("dagster")
    contract = load_contract("lora_checkpoint")
    specs = {spec.name: spec.blocking for spec in check_specs(contract)}
    assert specs == {"contract": True, "contract_warnings": False}
    value, inputs = VALID["lora_checkpoint"]()
    inputs["probe_loss"] = 2.6
    results = check_results(contract, validate(contract, facts("lora_checkpoint", value, **inputs)))
    assert [(r.check_name, r.passed, r.severity.value) for r in results] == [
        ("contract", True, "ERROR"),
        ("contract_warnings", False, "WARN"),
    ]


def test_an_asset_that_breaks_its_contract_writes_nothing() -> None:
    dg = pytest.importorskip("dagster")
    contract = load_contract("user_profiles")
    store: list[str] = []

    class Store(dg.IOManager):
        def handle_output(self, context: Any, obj: Any) -> None:
            store.append("written")

        def load_input(self, context: Any) -> NoReturn:
            raise AssertionError("nobody reads")

    def user_profiles(fail: bool) -> Any:
        @dg.asset(name="user_profiles", check_specs=check_specs(contract))
        def asset() -> Any:
            value, inputs = VALID["user_profiles"]()
            inputs["day"] = date(2000, 1, 1) if fail else DAY
            outcomes = validate(contract, facts("user_profiles", value, **inputs))
            if failed_errors(outcomes):
                yield from check_results(contract, outcomes)
                raise dg.Failure("contract failed; nothing written", allow_retries=False)
            yield dg.Output(value)
            yield from check_results(contract, outcomes)

        return asset

    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.materialize(
            [user_profiles(True)], resources={"io_manager": Store()}, instance=instance, raise_on_error=False
        )
        assert not run.success
        assert store == []
        assert [e.check_name for e in run.get_asset_check_evaluations() if not e.passed] == ["contract"]
        assert run.asset_materializations_for_node("user_profiles") == []
        run = dg.materialize([user_profiles(False)], resources={"io_manager": Store()}, instance=instance)
        assert run.success
        assert store == ["written"]
