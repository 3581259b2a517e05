"""`sigma contracts docs`: the contracts and their latest results as pages that open offline.

One page a published table and an index, plain HTML with one style sheet beside them: nothing is loaded from elsewhere, no
script runs. (Great Expectations' own data docs fetch their styles from CDNs.) Reads; writes only into its folder. Our choice.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from sigma_assets.binding import read_binding
from sigma_assets.stages import GROUPS, STAGES
from sigma_core.contracts import Contract, Expectation, load_contracts

STYLE: Final = "style.css"
NEWEST: Final = 7  # partitions shown on a table's page
CHECKS: Final = ("contract", "contract_warnings", "drift")
_HISTORY: Final = 100  # evaluations of a check that are looked through
_SEVERITY: Final = {"critical": "blocks", "warning": "warns", "info": "tells"}


@dataclass(frozen=True)
class Result:
    """The newest evaluation of a check on a partition."""

    check: str
    passed: bool
    severity: str  # ERROR or WARN
    said: str
    failed: tuple[Mapping[str, Any], ...]
    at: str


Results = dict[str, dict[str, list[Result]]]
"""asset -> partition -> results, newest partition first."""


def build_docs(out: Path, root: Path | None = None) -> int:
    """Write the pages into `out` (made when missing), with the latest results of `root` if one is given. Number of pages.

    Raises:
        RootError, DamagedError: see `read_binding`; nothing is written.
    """
    if root:
        read_binding(root)
    out.mkdir(parents=True, exist_ok=True)
    contracts = load_contracts()
    results = latest_results(root, list(contracts)) if root else {}
    (out / STYLE).write_text(files("sigma_assets").joinpath("contract_docs.css").read_text())
    for name, contract in contracts.items():
        (out / f"{name}.html").write_text(_page(name, _body(contract, results.get(name, {}))))
    (out / "index.html").write_text(_page("Data contracts", _index(contracts, results, root)))
    return len(contracts) + 1


def latest_results(root: Path, assets: Sequence[str]) -> Results:
    """The newest evaluations by Dagster's records, of the newest partitions of each asset."""
    import dagster as dg

    from sigma_assets.instance import open_instance
    from sigma_core.artifacts import ArtifactStore

    store, found = ArtifactStore(root), Results()
    with open_instance(root) as instance:
        for asset in assets:
            marked = {path.stem for path in (root / ".failed" / asset).glob("*.json")}
            keys = sorted({*store.partitions(asset), *marked}, reverse=True)[:NEWEST]
            found[asset] = {key: [] for key in keys}
            for name in CHECKS:
                history = instance.event_log_storage.get_asset_check_execution_history(
                    dg.AssetCheckKey(dg.AssetKey(asset), name), limit=_HISTORY
                )  # newest first
                seen: set[str] = set()
                for record in history:
                    key = str(record.partition)
                    if key in seen or key not in found[asset] or not _is_evaluated(record.event):
                        continue
                    seen.add(key)
                    found[asset][key].append(_as_result(record.event))
    return found


def _is_evaluated(event: Any) -> bool:
    """False for a check that was planned and never came to its end."""
    kind = event.dagster_event.event_type_value if event and event.dagster_event else ""
    return str(kind) == "ASSET_CHECK_EVALUATION"


def _as_result(event: Any) -> Result:
    evaluation = event.dagster_event.asset_check_evaluation_data
    failed = evaluation.metadata.get("failed")
    outcomes = getattr(failed, "data", None) or getattr(failed, "value", None) or []
    return Result(
        evaluation.check_name,
        evaluation.passed,
        evaluation.severity.value,
        evaluation.description or "",
        tuple(outcomes),
        datetime.fromtimestamp(event.timestamp, UTC).strftime("%Y-%m-%d %H:%M"),
    )


# ------------------------------------------------------------------------------------------- pages
def _page(title: str, body: str) -> str:
    back = "" if title == "Data contracts" else '<a class="back" href="index.html">All contracts</a>'
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{_e(title)} - SIGMA data contracts</title><link rel="stylesheet" href="{STYLE}"></head>\n'
        f"<body><main>{back}<h1>{_e(title)}</h1>\n{body}\n<footer>Made {made}.</footer></main></body></html>\n"
    )


def _index(contracts: Mapping[str, Contract], results: Results, root: Path | None) -> str:
    told = (
        f"What every published table promises, and how the newest partitions of <code>{_e(str(root))}</code> kept it."
        if results
        else "What every published table promises. With <code>--root</code> of a materialized root its results are here too."
    )
    parts = [f'<p class="lead">{told}</p>']
    for group in GROUPS:
        rows = [
            _index_row(contracts[name], results.get(name, {}))
            for name, stage in STAGES.items()
            if stage.group == group and name in contracts
        ]
        head = "<tr><th>Table</th><th>What it holds</th><th>Owner</th><th>Due</th><th>Rules</th><th>Newest</th></tr>"
        parts.append(
            f'<h2>{_e(group.capitalize())}</h2><div class="wide" tabindex="0"><table class="index">{head}{"".join(rows)}</table></div>'
        )
    return "\n".join(parts)


def _index_row(contract: Contract, results: Mapping[str, Sequence[Result]]) -> str:
    rules = sum(len(table.expectations) for table in contract.tables.values())
    newest = next(iter(results), None)
    state = (
        f"{_badge(results[newest])} <small>{newest}</small>"
        if newest
        else '<span class="badge none">no data</span>'
    )
    first = contract.description.split(". ")[0].rstrip(".") + "."
    return (
        f'<tr><td><a href="{contract.name}.html">{_e(contract.name)}</a></td><td>{_e(first)}</td>'
        f"<td>{_e(contract.owner.removeprefix('team:'))}</td><td>{_e(contract.freshness.text)}</td>"
        f'<td class="number">{rules}</td><td class="state">{state}</td></tr>'
    )


def _body(contract: Contract, results: Mapping[str, Sequence[Result]]) -> str:
    parts = [
        f'<p class="lead">{_e(contract.description)}</p>',
        f"<dl><dt>Owner</dt><dd>{_e(contract.owner.removeprefix('team:'))}</dd><dt>Due</dt>"
        f"<dd>{_e(contract.freshness.text)} (within {contract.freshness.hours:.0f} h)</dd></dl>",
    ]
    if results:
        parts.append("<h2>Latest results</h2>" + _results(results))
    for name, table in contract.tables.items():
        columns = "".join(
            f"<tr><td><code>{_e(column.name)}</code></td><td>{_e(column.type)}</td><td>{_e(column.description)}"
            f"{' <small>computed for the check</small>' if column.computed else ''}</td></tr>"
            for column in table.columns
        )
        rules = "".join(_rule(one) for one in table.expectations)
        parts.append(
            f"<h2>{_e(name)}</h2><p>{_e(table.description)} Key: <code>{_e(', '.join(table.key))}</code>.</p>"
            f'<h3>Rules</h3><div class="wide" tabindex="0"><table><tr><th>Rule</th><th>Broken</th><th>Expectation</th></tr>{rules}</table></div>'
            f'<h3>Columns</h3><div class="wide" tabindex="0"><table><tr><th>Column</th><th>Type</th><th>Meaning</th></tr>{columns}</table></div>'
        )
    return "\n".join(parts)


def _rule(rule: Expectation) -> str:
    kwargs = ", ".join(f"{key}={value}" for key, value in rule.kwargs.items())
    kind = _SEVERITY[rule.severity]
    return (
        f"<tr><td>{_e(rule.meta.why or rule.meta.id)}</td><td><span class='badge {kind}'>{kind}</span></td>"
        f"<td><code>{_e(rule.type.removeprefix('expect_'))}</code> <small>{_e(kwargs)}</small></td></tr>"
    )


def _results(results: Mapping[str, Sequence[Result]]) -> str:
    rows = []
    for partition, found in results.items():
        for one in sorted(found, key=lambda result: result.check):
            examples = "".join(
                f"<li>{_e(str(outcome.get('description', '')))}</li>" for outcome in one.failed
            )
            more = f"<ul>{examples}</ul>" if examples else f" {_e(one.said)}"
            rows.append(
                f"<tr><td>{partition}</td><td>{_e(one.check.replace('_', ' '))}</td><td>{_badge([one])}</td>"
                f"<td>{more}</td><td><small>{one.at}</small></td></tr>"
            )
        if not found:
            rows.append(
                f'<tr><td>{partition}</td><td colspan="4"><small>no record of its checks</small></td></tr>'
            )
    head = "<tr><th>Partition</th><th>Check</th><th>Result</th><th>What it found</th><th>UTC</th></tr>"
    return f'<div class="wide" tabindex="0"><table>{head}{"".join(rows)}</table></div>'


def _badge(results: Sequence[Result]) -> str:
    if not results:
        return '<span class="badge none">no record</span>'
    if any(not one.passed and one.severity == "ERROR" for one in results):
        return '<span class="badge failed">failed</span>'
    if any(not one.passed for one in results):
        return '<span class="badge warned">warned</span>'
    return '<span class="badge passed">kept</span>'


def _e(text: str) -> str:
    return html.escape(text, quote=True)
