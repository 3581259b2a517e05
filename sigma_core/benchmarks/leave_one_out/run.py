"""`sigma benchmark leave-one-out`: protocols, seeds, kept results, table. It knows models by name only.

Two protocols side by side. `strict`: trained on all but the last two items of each user; epochs and weights chosen on the item
before the last. `refit`: the same choices, trained on all but the last. Both are tested on the last item, ranked among all items,
the items of the history filtered (and once more unfiltered). Figures of the two differ by more than most models do. Our choice.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from sigma_core.artifacts import read_json, write_json
from sigma_core.benchmarks.leave_one_out.data import PROTOCOLS, Protocol, load_sequences
from sigma_core.benchmarks.leave_one_out.models import MODELS, SEEDLESS, Lab, silent
from sigma_core.benchmarks.leave_one_out.ranks import (
    METRICS,
    Ranks,
    differences,
    metric_values,
    target_ranks,
)
from sigma_core.benchmarks.leave_one_out.settings import Profile
from sigma_core.benchmarks.record import Stopwatch, benchmark_record, text_table
from sigma_core.evaluation.significance import holm

VERB: Final = "leave-one-out"
TARGETS: Final[Mapping[str, Mapping[str, Mapping[str, float]]]] = {  # what a model is to reach on Beauty
    "sigma": {
        "strict": {"recall@10": 0.0809, "ndcg@10": 0.0464},
        "refit": {"recall@10": 0.0980, "ndcg@10": 0.0565},
    },
    "sasrec_ce": {
        "refit": {"recall@10": 0.085, "ndcg@10": 0.050}
    },  # below it, the harness is not to be trusted
}
LEFT: Final = ("sigma", "sigma_three_steps")  # what is compared with every other model
TEXT_SOURCE: Final = "titles of items.jsonl through all-MiniLM-L6-v2; category labels as indicator features"


def run(
    folder: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    models: Sequence[str] = tuple(MODELS),
    protocols: Sequence[Protocol] = PROTOCOLS,
    profile: Profile | None = None,
    keep: Path | None = None,
    report: Callable[[str], None] = silent,
) -> dict[str, Any]:
    """The record of the benchmark on `folder`.

    With `keep`, results and networks stay in that folder and the same call goes on where it was stopped; results of other
    data, settings or code versions are not read.

    Raises:
        ValueError: an unknown model or protocol, no seed, or data that cannot be read.
    """
    import torch

    _check(models, protocols, seeds)
    watch = Stopwatch()
    lab = Lab(load_sequences(folder), profile or Profile(), keep, report)
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    ranks: dict[str, dict[str, list[Ranks]]] = {}
    for seed in seeds:
        for model in models:
            for protocol in protocols:
                facts, found = _result(lab, model, protocol, seed)
                results.setdefault(model, {}).setdefault(protocol, []).append(facts)
                ranks.setdefault(model, {}).setdefault(protocol, []).append(found)
    by_seed = {
        model: {protocol: _per_seed(facts) for protocol, facts in by_protocol.items()}
        for model, by_protocol in results.items()
    }
    intervals = _intervals(ranks)
    return benchmark_record(
        VERB,
        {
            "dataset": _dataset(lab),
            "protocol": _protocol_facts(),
            "settings": lab.profile.model_dump(),
            "models": by_seed,
            "intervals": intervals,
            "accuracy": _accuracy(by_seed, intervals),
            "comparisons": _comparisons(ranks),
            "targets": _targets(results),
            "seconds": {
                model: {p: [one["seconds"] for one in facts] for p, facts in by_protocol.items()}
                for model, by_protocol in results.items()
            },
        },
        settings=lab.profile.model_dump() | {"threads": torch.get_num_threads()},
        data={lab.data.name: lab.data.digest},
        seeds=seeds,
        seconds=watch.seconds(),
    )


def table(record: Mapping[str, Any]) -> str:
    """Mean over seeds by model and protocol, history filtered, with 95 % intervals of recall@10 and ndcg@10."""
    rows = []
    for model, by_protocol in record["models"].items():
        for protocol, values in by_protocol.items():
            low_high = record["intervals"][model][protocol]
            means = [float(np.mean(values[metric])) for metric in METRICS]
            spans = ["{:.4f}-{:.4f}".format(*low_high[metric]) for metric in ("recall@10", "ndcg@10")]
            rows.append([model, protocol, *means, *spans, round(sum(record["seconds"][model][protocol]))])
    rows.sort(key=lambda row: (row[1], -row[METRICS.index("ndcg@10") + 2]))
    header = ["model", "protocol", *METRICS, "recall@10 95%", "ndcg@10 95%", "seconds"]
    return text_table(header, rows) + "".join(
        f"{one['left']} - {one['right']}, {one['protocol']}, {one['metric']}: {one['difference']:+.4f} "
        f"[{one['low']:+.4f}, {one['high']:+.4f}], p {one['p']:.2g}, Holm-corrected {one['p_holm']:.2g}\n"
        for one in record["comparisons"]
    )


def _check(models: Sequence[str], protocols: Sequence[str], seeds: Sequence[int]) -> None:
    for kind, asked, known in (("model", models, tuple(MODELS)), ("protocol", protocols, PROTOCOLS)):
        unknown = sorted(set(asked) - set(known))
        if unknown or not asked:
            raise ValueError(f"unknown {kind} {', '.join(unknown) or '(none)'}; known: {', '.join(known)}.")
    if not seeds:
        raise ValueError("no seed arrived; needed at least one, such as --seeds 0.")


def _result(lab: Lab, model: str, protocol: Protocol, seed: int) -> tuple[dict[str, Any], Ranks]:
    """Figures and ranks of one model, from the folder where they are there already."""
    asked = 0 if model in SEEDLESS else seed
    kept = lab.remember(
        f"result-{model}-{protocol}-{asked}", lambda: _kept_or_made(lab, model, protocol, asked)
    )
    facts, ranks = kept
    return facts, ranks


def _kept_or_made(lab: Lab, model: str, protocol: Protocol, seed: int) -> tuple[dict[str, Any], Ranks]:
    from safetensors.numpy import load_file, save_file

    stem = f"{model}-{protocol}-{seed}-{lab.key(model, 'result', protocol, seed)[:12]}"
    path = None if lab.folder is None else lab.folder / f"{stem}.json"
    if path is not None and path.exists():
        arrays = load_file(path.with_suffix(".safetensors"))
        return read_json(path), Ranks(arrays["filtered"], arrays["unfiltered"])
    lab.report(f"{model}, {protocol}, seed {seed}: start")
    start = time.perf_counter()
    ranks = target_ranks(MODELS[model](lab, protocol, seed), lab.data.test())
    facts = {**metric_values(ranks), "seconds": round(time.perf_counter() - start, 1)}
    lab.report(
        f"{model}, {protocol}, seed {seed}: recall@10 {facts['recall@10']:.4f}, ndcg@10 {facts['ndcg@10']:.4f}, "
        f"{facts['seconds']:.0f} s"
    )
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(
            {"filtered": ranks.filtered, "unfiltered": ranks.unfiltered}, path.with_suffix(".safetensors")
        )
        write_json(path, facts)
    return facts, ranks


def _per_seed(facts: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    return {name: [one[name] for one in facts] for name in facts[0] if name != "seconds"}


def _dataset(lab: Lab) -> dict[str, Any]:
    return {
        "name": lab.data.name,
        "users": len(lab.data.rows),
        "items": lab.data.num_items,
        "interactions": int(sum(len(row) for row in lab.data.rows)),
        "text": TEXT_SOURCE,
    }


def _protocol_facts() -> dict[str, str]:
    return {
        "split": "last item tests, the one before validates; order as in the file",
        "strict": "trained on all but the last two items; epochs and weights chosen on validation",
        "refit": "the same choices, trained on all but the last item",
        "ranking": "among all items; history filtered, beside it unfiltered; ties at mid-rank",
        "intervals": "95 %, users drawn with replacement, metrics averaged over seeds",
        "p_holm": "p corrected over the pairs of models of one protocol and metric",
    }


def _intervals(
    ranks: Mapping[str, Mapping[str, Sequence[Ranks]]],
) -> dict[str, dict[str, dict[str, list[float]]]]:
    asked = [
        (model, protocol, metric) for model, one in ranks.items() for protocol in one for metric in METRICS
    ]
    found = differences(
        [ranks[m][p] for m, p, _ in asked], [None] * len(asked), [metric for *_, metric in asked]
    )
    out: dict[str, dict[str, dict[str, list[float]]]] = {}
    for (model, protocol, metric), one in zip(asked, found, strict=True):
        out.setdefault(model, {}).setdefault(protocol, {})[metric] = [one["low"], one["high"]]
    return out


def _accuracy(by_seed: Mapping[str, Any], intervals: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a model and protocol for the page, best first: means over seeds, recall@10 with its interval."""
    rows = []
    for model, by_protocol in by_seed.items():
        for protocol, values in by_protocol.items():
            mean = {name: float(np.mean(each)) for name, each in values.items()}
            low, high = intervals[model][protocol]["recall@10"]
            row = {
                "protocol": protocol,
                "model": model,
                "recall@10": mean["recall@10"],
                "low": low,
                "high": high,
            }
            more = ("ndcg@10", "recall@5", "ndcg@5", "recall@10_unfiltered")
            rows.append(row | {name: mean[name] for name in more})
    return sorted(rows, key=lambda row: (row["protocol"], -row["recall@10"]))


def _comparisons(ranks: Mapping[str, Mapping[str, Sequence[Ranks]]]) -> list[dict[str, Any]]:
    """SIGMA, then its three steps alone, minus every other model, paired by user; the two beside each other once.

    `p_holm`: p, Holm-corrected over the pairs of models of its protocol and metric.
    """
    asked = [
        {"left": left, "right": right, "protocol": protocol, "metric": metric}
        for left in LEFT
        for protocol in ranks.get(left, {})
        for right in ranks
        if right not in (left, "sigma")
        for metric in ("recall@10", "ndcg@10")
    ]
    found = differences(
        [ranks[one["left"]][one["protocol"]] for one in asked],
        [ranks[one["right"]][one["protocol"]] for one in asked],
        [one["metric"] for one in asked],
    )
    out: list[dict[str, Any]] = [{**one, **values} for one, values in zip(asked, found, strict=True)]
    families: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in out:
        families.setdefault((one["protocol"], one["metric"]), []).append(one)
    for family in families.values():
        corrected = holm({f"{one['left']}|{one['right']}": one["p"] for one in family})
        for one, p in zip(family, corrected.values(), strict=True):
            one["p_holm"] = p
    return out


def _targets(results: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> dict[str, Any]:
    """Each goal that was measured: needed, found, reached; SIGMA's as `refit.recall@10`, others' behind the model's name."""
    out: dict[str, Any] = {}
    for model, by_protocol in TARGETS.items():
        for protocol, facts in results.get(model, {}).items():
            for metric, needed in by_protocol.get(protocol, {}).items():
                value = float(np.mean([one[metric] for one in facts]))
                name = f"{protocol}.{metric}" if model == "sigma" else f"{model}.{protocol}.{metric}"
                out[name] = {
                    "needed_on_beauty": needed,
                    "value": value,
                    "reached": value >= needed,
                }
    return out
