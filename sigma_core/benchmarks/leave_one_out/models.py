"""Every model of the benchmark by name: how it is fitted under a protocol, and the scores it ranks by.

`Lab` fits networks and keeps them beside the results, so that a stopped run goes on where it was. What a model may choose -
epochs, fusion weights - it chooses on the validation item under `strict`; `refit` takes the choices over and trains on one item
more. Our choice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np

from sigma_core.artifacts import digest_json, read_json, write_json
from sigma_core.benchmarks.leave_one_out import counting
from sigma_core.benchmarks.leave_one_out.data import IntArray, Protocol, Sequences
from sigma_core.benchmarks.leave_one_out.features import (
    FloatArray,
    category_matrix,
    principal,
    text_vectors,
    together_vectors,
)
from sigma_core.benchmarks.leave_one_out.ranks import Score, ScoreBlock, gains, target_ranks
from sigma_core.benchmarks.leave_one_out.settings import Profile

CRITERION: Final = "ndcg@10"
Build = Callable[[Protocol], Any]  # a network, its item vectors started from what the protocol lets it see
_NETWORK: Final = ("training", "trunk", "features")
SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {  # of the profile, by what reads them
    "popularity": (),
    "item_knn": ("counting",),
    "ease": ("counting",),
    "sasrec_ce": ("training", "trunk"),
    "text": _NETWORK,
    "ensrec": _NETWORK,
    "gr_id": _NETWORK,
    "ensrec_3": _NETWORK,
    "gr_sid": (*_NETWORK, "sigma", "beam_search"),
    **dict.fromkeys(("sigma", "sigma_id", "sigma_text", "sigma_fused"), (*_NETWORK, "sigma")),
    "sigma_three_steps": (*_NETWORK, "sigma"),
}
_TOWERS: Final = ("sigma_id", "sigma_text", "sigma_fused")
PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "ensrec": ("sasrec_ce", "text"),
    "ensrec_3": ("sasrec_ce", "text", "gr_id"),
    **dict.fromkeys(("sigma", "sigma_three_steps"), _TOWERS),
    **dict.fromkeys(_TOWERS, ("sigma_network",)),
    **dict.fromkeys(("sasrec_ce", "text", "gr_id", "gr_sid", "sigma_network"), ("networks",)),
    **dict.fromkeys(("item_knn", "ease", "popularity"), ("counting",)),
}
"""What a model is made of: other models, SIGMA's network (`build.sigma`), and the code that all networks (trunk, loss, trainer,
starting vectors) or all counts share.
"""
VERSIONS: Final[Mapping[str, int]] = {"gr_id": 2, "ensrec_3": 2, "sigma": 2, "sigma_three_steps": 2}
"""1 where nothing stands. Raise it when the code of a model, or of a part in `PARTS`, changes what comes out: what was kept of it
and of all that is made of it is not read.
"""


def code_versions(name: str) -> dict[str, int]:
    """Versions of a model and of everything in it, by name."""
    found = {name: VERSIONS.get(name, 1)}
    for part in PARTS.get(name, ()):
        found |= code_versions(part)
    return found


def silent(line: str) -> None:
    """Report nothing."""
    del line


@dataclass
class Lab:
    """What models are made from, and where fitted networks are kept.

    Attributes:
        data: sequences and items.
        profile: every setting.
        folder: keeps vectors, networks and choices; None keeps them in memory only.
        report: told a line whenever something moved on.
    """

    data: Sequences
    profile: Profile
    folder: Path | None = None
    report: Callable[[str], None] = silent
    _kept: dict[str, Any] = field(default_factory=dict)

    def key(self, name: str, *parts: object) -> str:
        """Address of what the model `name` made from this data, by this code, with the sections of the profile it reads."""
        own = self.profile.model_dump(include=set(SECTIONS[name]))
        return digest_json([code_versions(name), self.data.digest, own, name, [str(part) for part in parts]])

    def remember(self, name: str, make: Callable[[], Any]) -> Any:
        """The value of `make`, made once in this process."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def texts(self) -> FloatArray:
        """MiniLM vectors of the titles, [N, 384]."""
        found: FloatArray = self.remember("texts", lambda: self._texts())
        return found

    def _texts(self) -> FloatArray:
        self.report("encoding the titles with MiniLM")
        return text_vectors(self.data, self.folder)

    def content(self) -> FloatArray:
        """Principal components of texts and of category labels, side by side."""
        sizes = self.profile.features

        def make() -> FloatArray:
            parts = [
                principal(self.texts(), sizes.text_dim),
                principal(category_matrix(self.data), sizes.category_dim),
            ]
            return np.concatenate(parts, axis=1)

        found: FloatArray = self.remember("content", make)
        return found

    def together(self, protocol: Protocol) -> FloatArray:
        """Co-occurrence vectors of the protocol's training sequences."""
        width = self.profile.features.together_dim
        found: FloatArray = self.remember(
            f"together-{protocol}",
            lambda: together_vectors(self.data.train(protocol), self.data.num_items, width, seed=0),
        )
        return found

    def network(self, name: str, build: Build, protocol: Protocol, seed: int) -> Any:
        """A fitted network: under `strict` stopped on validation, under `refit` trained as long on one item more."""
        found = self.remember(f"{name}-{protocol}-{seed}", lambda: self._network(name, build, protocol, seed))
        return found[0]

    def epochs(self, name: str, build: Build, seed: int) -> int:
        """The epochs that validation chose."""
        self.network(name, build, "strict", seed)
        return int(self._kept[f"{name}-strict-{seed}"][1])

    def _network(self, name: str, build: Build, protocol: Protocol, seed: int) -> tuple[Any, int]:
        import torch
        from safetensors.torch import load_file, save_file

        from sigma_core.benchmarks.leave_one_out.checkpoint import drop_checkpoint
        from sigma_core.benchmarks.leave_one_out.trainer import fit

        path = None
        if self.folder is not None:
            path = (
                self.folder
                / f"network-{name}-{protocol}-{seed}-{self.key(name, protocol, seed)[:12]}.safetensors"
            )
            if path.exists() and path.with_suffix(".json").exists():
                with torch.random.fork_rng(devices=[]):
                    network = build(protocol).eval()
                network.load_state_dict(load_file(path))
                return network, int(read_json(path.with_suffix(".json"))["epochs"])
        told = f"{name}, {protocol}, seed {seed}"
        unfinished = None if path is None else path.with_name(f"unfinished-{path.stem}.json")
        fitted = fit(
            partial(build, protocol),
            self.data.train(protocol),
            self.profile.training,
            seed=seed,
            epochs=None if protocol == "strict" else self.epochs(name, build, seed),
            validation=self.data.validation() if protocol == "strict" else None,
            report=lambda line: self.report(f"{told}: {line}"),
            checkpoint=unfinished,
        )
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({k: v.contiguous() for k, v in fitted.network.state_dict().items()}, path)
            write_json(path.with_suffix(".json"), {"epochs": fitted.epochs, "validation": fitted.history})
        if unfinished is not None:
            drop_checkpoint(unfinished)
        return fitted.network, fitted.epochs

    def chosen(self, name: str, seed: int, candidates: Callable[[], Mapping[str, Score]]) -> str:
        """The candidate with the best validation NDCG@10; asked once, then kept."""
        path = (
            None
            if self.folder is None
            else self.folder / f"choice-{name}-{seed}-{self.key(name, seed)[:12]}.json"
        )
        if path is not None and path.exists():
            return str(read_json(path)["chosen"])
        split = self.data.validation().sample(self.profile.training.validation_users)
        found = {}
        for label, score in candidates().items():
            ranks = target_ranks(score, split).filtered
            found[label] = {metric: float(gains(ranks, metric).mean()) for metric in ("recall@10", CRITERION)}
            self.report(f"{name}, seed {seed}, {label}: validation {found[label]}")
        best = max(found, key=lambda label: found[label][CRITERION])
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"chosen": best, "validation": found})
        return best


Model = Callable[[Lab, Protocol, int], Score]


def _popularity(lab: Lab, protocol: Protocol, seed: int) -> Score:
    del seed
    return counting.popularity(lab.data.train(protocol), lab.data.num_items)


def _item_knn(lab: Lab, protocol: Protocol, seed: int) -> Score:
    return _counted("item_knn", lab.profile.counting.knn_neighbors, _knn_of, lab, protocol, seed)


def _ease(lab: Lab, protocol: Protocol, seed: int) -> Score:
    return _counted("ease", lab.profile.counting.ease_l2, _ease_of, lab, protocol, seed)


def _knn_of(lab: Lab, protocol: Protocol, neighbors: Any) -> Any:
    return counting.item_knn(lab.data.train(protocol), lab.data.num_items, neighbors=neighbors)


def _ease_of(lab: Lab, protocol: Protocol, l2: Any) -> Any:
    return counting.ease(lab.data.train(protocol), lab.data.num_items, l2=l2)


def _counted(
    name: str, numbers: Sequence[Any], fit: Callable[..., Any], lab: Lab, protocol: Protocol, seed: int
) -> Score:
    """Item-to-item weights with the number and the decay that validation chose, fitted on what the protocol shows."""
    choices = {
        f"{number} {decay}": (number, decay) for number in numbers for decay in lab.profile.counting.decay
    }
    held: dict[tuple[Protocol, Any], Any] = {}  # one at a time: N x N numbers each

    def weights(which: Protocol, number: Any) -> Any:
        if (which, number) not in held:
            held.clear()
            held[which, number] = fit(lab, which, number)
        return held[which, number]

    def under(which: Protocol, label: str, histories: Sequence[IntArray]) -> ScoreBlock:
        number, decay = choices[label]
        return counting.linear(weights(which, number), decay)(histories)

    chosen = lab.chosen(name, seed, lambda: {label: partial(under, "strict", label) for label in choices})
    return partial(under, protocol, chosen)


def _network_score(name: str, lab: Lab, protocol: Protocol, seed: int) -> Score:
    from sigma_core.benchmarks.leave_one_out.trainer import scorer

    return scorer(_fitted(name, lab, protocol, seed), lab.profile.training.max_length)


def _fitted(name: str, lab: Lab, protocol: Protocol, seed: int) -> Any:
    from sigma_core.benchmarks.leave_one_out import build

    return lab.network(name, partial(build.NETWORKS[name], lab), protocol, seed)


def _joined(lab: Lab, protocol: Protocol, seed: int) -> Any:
    """SIGMA of its streams, each fitted and stopped by itself: they share nothing but the prefixes, so the sum of their losses
    would train them the same and only stop them together.
    """
    import torch

    from sigma_core.benchmarks.leave_one_out import build

    parts = [_fitted(f"sigma_{name}", lab, protocol, seed) for name in build.STREAMS]
    with torch.random.fork_rng(devices=[]):
        network = build.sigma(lab, protocol)
    for place, part in enumerate(parts):
        network.streams[place].load_state_dict(part.streams[0].state_dict())
    return network.eval()


def _ensrec(lab: Lab, protocol: Protocol, seed: int) -> Score:
    """log P of an ID model (the SASRec of the table) plus `weight` x log P of a text model trained apart."""

    def candidates(under: Protocol) -> dict[str, Score]:
        parts = [_network_score(name, lab, under, seed) for name in ("sasrec_ce", "text")]
        return {str(weight): partial(_weighted_sum, parts, weight) for weight in ENSEMBLE_WEIGHTS}

    return candidates(protocol)[lab.chosen("ensrec", seed, lambda: candidates("strict"))]


def _ensrec_3(lab: Lab, protocol: Protocol, seed: int) -> Score:
    """EnsRec with as many towers as SIGMA has: the fused vectors of GR (ID) beside the ID and the text model."""

    def candidates(under: Protocol) -> dict[str, Score]:
        parts = [_network_score(name, lab, under, seed) for name in ("sasrec_ce", "text", "gr_id")]
        weights = product(ENSEMBLE_WEIGHTS, ENSEMBLE_WEIGHTS)
        return {f"{text} {fused}": partial(_weighted_sum, parts, text, fused) for text, fused in weights}

    return candidates(protocol)[lab.chosen("ensrec_3", seed, lambda: candidates("strict"))]


def _weighted_sum(parts: Sequence[Score], *given: Any) -> ScoreBlock:
    """The first part's scores plus those of the others, each times its weight; the histories come last."""
    *weights, histories = given
    total = parts[0](histories)
    for part, weight in zip(parts[1:], weights, strict=True):
        total = total + np.float32(weight) * part(histories)
    return total


def _sigma(lab: Lab, protocol: Protocol, seed: int) -> Score:
    """The three steps and the catalogue-wide score, weighed as validation chose."""
    from sigma_core.benchmarks.leave_one_out.sigma_network import FUSION_WEIGHTS

    def candidates(under: Protocol) -> dict[str, Score]:
        return {str(weight): _sigma_at(weight, lab, under, seed) for weight in FUSION_WEIGHTS}

    return candidates(protocol)[lab.chosen("sigma", seed, lambda: candidates("strict"))]


def _sigma_at(weight: float, lab: Lab, protocol: Protocol, seed: int) -> Score:
    """The same network at one weight of the catalogue-wide score; at 0 the three steps rank alone, as on a large catalog."""
    from sigma_core.benchmarks.leave_one_out.sequence import make_batch
    from sigma_core.benchmarks.leave_one_out.trainer import scorer

    network = _joined(lab, protocol, seed)
    longest = lab.profile.training.max_length
    some = lab.data.validation().sample(CALIBRATION_USERS).histories
    network.calibrate(make_batch([history[-longest:] for history in some]))
    return scorer(_Ranked(network, weight), longest)


@dataclass(frozen=True)
class _Ranked:
    """SIGMA's network at one weight of the catalogue-wide score."""

    network: Any
    weight: float

    def scores(self, batch: Any) -> Any:
        return self.network.ranked(batch, self.weight)


CALIBRATION_USERS: Final = 256  # their histories say what sigma a typical request has
ENSEMBLE_WEIGHTS: Final = (0.5, 1.0, 2.0)  # of the text model's scores
MODELS: Final[Mapping[str, Model]] = {
    "sigma": _sigma,
    "sigma_three_steps": partial(_sigma_at, 0.0),
    "sasrec_ce": partial(_network_score, "sasrec_ce"),
    "ensrec": _ensrec,
    "ensrec_3": _ensrec_3,
    "ease": _ease,
    "gr_sid": partial(_network_score, "gr_sid"),
    "gr_id": partial(_network_score, "gr_id"),
    "item_knn": _item_knn,
    "popularity": _popularity,
}
SEEDLESS: Final = frozenset(
    {"ease", "item_knn", "popularity"}
)  # nothing random: one result stands for every seed
