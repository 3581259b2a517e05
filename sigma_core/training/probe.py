"""The probe: users that training never sees, on whom a model is judged before it is published.

Holds the split, the loss there, the validity of its beams and APF's calibration. Its answers feed the checkpoint contracts.
Source: our choice (architecture: checkpoints have contracts too; design decision 7 for the calibration).
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sigma_core.artifacts import digest_bytes
from sigma_core.instruction.collate import Request
from sigma_core.training.batches import TrainingSet, sample_steps

if TYPE_CHECKING:
    from torch import Tensor

    from sigma_core.config import SigmaConfig
    from sigma_core.generation.recommender import Recommendation, Recommender, Searched
    from sigma_core.training.batches import StepInputs
    from sigma_core.training.sft import Trainer

PROBE_SHARE = 16  # one user in so many
PROBE_STEPS = 4  # batches
BEAM_STEPS = 4
MAX_PROBE_USERS = 160


SHARPENINGS = (0.3, 0.5, 0.7, 1.0, 1.5, 2.25)  # tried on the probe: tau_APF is tau_train over one of these
CATALOG_WEIGHTS = (0.0, 0.1, 0.25, 0.5, 1.0)  # of the catalogue-wide score in step 3, tried after them


class Probe(NamedTuple):
    """What the probe found."""

    loss: float
    beams_valid: float  # share of beams that name existing prefixes
    typical_sigma: float
    sharpening: float  # the one of `SHARPENINGS` with the most targets among the first 20
    catalog_weight: (
        float  # the one of `CATALOG_WEIGHTS`, likewise, one for all tasks; 0 where nothing is gained
    )


def split_probe(data: TrainingSet) -> tuple[TrainingSet, TrainingSet]:
    """Training users and probe users, by hash of the user id: nobody is in both, on any day.

    When the data is too small for that, both are the whole data, and the same object.
    """
    held = [digest_bytes(u.context.user_id.encode())[0] == "0" for u in data.users]
    train = [u for u, h in zip(data.users, held, strict=True) if not h]
    probe = [u for u, h in zip(data.users, held, strict=True) if h][-MAX_PROBE_USERS:]
    if not train or not probe:
        return data, data
    return TrainingSet(train, data.dropped_targets, data.counts), TrainingSet(probe, 0, data.counts)


def probe_loss(trainer: "Trainer", probe: TrainingSet, prefixes_NP: np.ndarray, seed: int) -> float:
    """Mean loss of the trainer's model on the probe users' batches. The model stays in eval mode."""
    import torch

    trainer.model.eval()
    with torch.inference_mode():
        steps = sample_steps(probe, prefixes_NP, trainer.config.training, PROBE_STEPS, seed)
        return float(np.mean([trainer.losses(inputs)["loss"].item() for inputs in steps]))


def probe_figures(found: Probe, base_loss: float, *, is_held_out: bool) -> dict[str, Any]:
    """What a run says of its probe: `base_loss` is the loss there before training, `is_held_out` whether nobody of it was trained
    on.
    """
    return {
        "beams_valid": found.beams_valid,
        "probe_loss": found.loss,
        "base_loss": base_loss,
        "sharpening": found.sharpening,
        "probe_is_held_out": is_held_out,
    }


def run_probe(trainer: "Trainer", probe: TrainingSet, prefixes_NP: np.ndarray, seed: int) -> Probe:
    """Loss, beam validity, typical sigma, best sharpening and best catalogue weight of the trainer's model on the probe users.

    The model stays in eval mode.
    """
    import torch

    from sigma_core.generation.fusion import typical

    loss = probe_loss(trainer, probe, prefixes_NP, seed)
    with torch.inference_mode():
        asked = list(_ask_all(trainer, probe, prefixes_NP, seed))
        sharpening, weight = _calibrated(trainer.config, asked)
    valid = [_valid_share(one, prefixes_NP) for one in asked]
    sigma = typical(torch.cat([one.sigma_R for one in asked])).item()
    return Probe(loss, float(np.mean(valid)), sigma, sharpening, weight)


class _Asked(NamedTuple):
    """One batch of the probe after step 1, and who answers it; `place` is where each item row stands there."""

    recommender: "Recommender"
    place: np.ndarray
    inputs: "StepInputs"
    searched: "Searched"
    eligible_RN: "Tensor"
    sigma_R: "Tensor"


def _ask_all(
    trainer: "Trainer", probe: TrainingSet, prefixes_NP: np.ndarray, seed: int
) -> "Iterator[_Asked]":
    """The probe's batches, each over the item table of its fold."""
    tables: dict[int, tuple[Recommender, np.ndarray]] = {}
    for inputs in sample_steps(probe, prefixes_NP, trainer.config.training, BEAM_STEPS, seed):
        if inputs.fold not in tables:
            tables[inputs.fold] = _recommender(trainer, inputs.fold)
        yield _ask(trainer, *tables[inputs.fold], inputs)


def _ask(trainer: "Trainer", recommender: "Recommender", place: np.ndarray, inputs: "StepInputs") -> _Asked:
    """Step 1 for all requests of a batch, nothing filtered."""
    import torch

    from sigma_core.generation.fusion import beam_sigma

    generation = trainer.config.generation
    requests = [[Request(r.instruction, r.focus) for r in mine] for mine in inputs.requests]
    eligible = torch.ones(sum(map(len, requests)), len(place), dtype=torch.bool, device=trainer.device)
    users = [context.with_rows(place) for context in inputs.users]
    days = torch.as_tensor(inputs.days, device=trainer.device)
    searched = recommender.beam(users, requests, trainer.focus, eligible, days)
    sigma = beam_sigma(searched.beams.log_prob_RK.exp(), generation.sigma_top, generation.sigma_floor)
    return _Asked(recommender, place, inputs, searched, eligible, sigma)


def _calibrated(config: "SigmaConfig", asked: Sequence[_Asked]) -> tuple[float, float]:
    """The sharpening with the most targets among the first 20 in all batches, then the catalogue weight with the most: the same
    numbers for every task. Equal ones: the smaller.

    A model whose training has no catalogue-wide loss gets weight 0.
    """
    from sigma_core.generation.fusion import typical

    def hits(sharpening: float, weight: float) -> int:
        found = 0
        for one in asked:
            recommender = one.recommender
            recommender.catalog_weight = weight
            recommender.typical_sigma = typical(one.sigma_R).item()
            recommender.apf_temperature = recommender.typical_sigma * config.model.temperature / sharpening
            found += _hits(recommender.answer(one.searched, one.eligible_RN, 20), one.inputs, one.place)
        return found

    sharpening = max(SHARPENINGS, key=lambda value: (hits(value, 0.0), -value))
    weights = CATALOG_WEIGHTS if config.training.weight_catalog > 0 and config.model.item_vectors else (0.0,)
    return sharpening, max(weights, key=lambda value: (hits(sharpening, value), -value))


def beams_valid(trainer: "Trainer", probe: TrainingSet, prefixes_NP: np.ndarray, seed: int) -> float:
    """Share of the beams of one batch of probe users that name existing prefixes; 0 when no beam has a probability.

    The first of the batches that `run_probe` looks at. The model must be in eval mode.
    """
    import torch

    (inputs,) = sample_steps(probe, prefixes_NP, trainer.config.training, 1, seed)
    with torch.inference_mode():
        return _valid_share(_ask(trainer, *_recommender(trainer, inputs.fold), inputs), prefixes_NP)


def _valid_share(one: _Asked, prefixes_NP: np.ndarray) -> float:
    existing = {tuple(row) for row in np.unique(prefixes_NP, axis=0).tolist()}
    beams = one.searched.beams
    found = beams.prefix_RKP[beams.log_prob_RK > float("-inf")].tolist()
    return float(np.mean([tuple(prefix) in existing for prefix in found])) if found else 0.0


def _hits(lists: "list[list[Recommendation]]", inputs: "StepInputs", place: np.ndarray) -> int:
    """Targets among the listed rows."""
    shown = {(number, found.row) for number, ranked in enumerate(lists) for found in ranked}
    targets = zip(inputs.target_request.tolist(), place[inputs.target_item].tolist(), strict=True)
    return sum(pair in shown for pair in targets)


def _recommender(trainer: "Trainer", fold: int) -> "tuple[Recommender, np.ndarray]":
    """The trainer's model over the items as a fold trains on them, sorted by prefix, and where each item row stands there."""
    import torch

    from sigma_core.generation.recommender import ItemTable, Recommender
    from sigma_core.model.heads import ItemTensors

    order = torch.argsort(trainer.group_of, stable=True)
    items = ItemTensors(*(part[order] for part in trainer.item_tensors(fold)))
    activity = trainer.activity._replace(item_UNS=trainer.activity.item_UNS[:, order])
    table = ItemTable(items, activity)
    collator = type(trainer.collator)(
        trainer.collator.words,
        table.tensors.prefixes_NP.cpu().numpy(),
        trainer.collator.codebook_size,
        trainer.collator.prompt_favorites,
    )
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    recommender = Recommender(
        trainer.model, table, collator, trainer.lexical, trainer.config.generation, 1.0, 1.0
    )
    return recommender, place.cpu().numpy()
