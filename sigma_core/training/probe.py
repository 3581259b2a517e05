"""The probe: users that training never sees, on whom a model is judged before it is published.

Holds the split, the loss there, the validity of its beams and APF's calibration. Its answers feed the checkpoint contracts.
Source: our choice (architecture: checkpoints have contracts too; design decision 7 for the calibration).
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sigma_core.artifacts import digest_bytes
from sigma_core.training.batches import TrainingSet, sample_steps

if TYPE_CHECKING:
    from torch import Tensor

    from sigma_core.generation.prefix_beam import Beams
    from sigma_core.training.batches import StepInputs
    from sigma_core.training.sft import Trainer

PROBE_SHARE = 16  # one user in so many
PROBE_STEPS = 4  # batches; beams are searched on the first two
BEAM_STEPS = 2
MAX_PROBE_USERS = 160


class Probe(NamedTuple):
    """What the probe found."""

    loss: float
    beams_valid: float  # share of beams that name existing prefixes
    typical_sigma: float


def split_probe(data: TrainingSet) -> tuple[TrainingSet, TrainingSet]:
    """Training users and probe users, by hash of the user id: nobody is in both, on any day.

    When the data is too small for that, both are the whole data.
    """
    held = [digest_bytes(u.context.user_id.encode())[0] == "0" for u in data.users]
    train = [u for u, h in zip(data.users, held, strict=True) if not h]
    probe = [u for u, h in zip(data.users, held, strict=True) if h][-MAX_PROBE_USERS:]
    if not train or not probe:
        return data, data
    return TrainingSet(train, data.dropped_targets), TrainingSet(probe, 0)


def run_probe(trainer: "Trainer", probe: TrainingSet, prefixes_NP: np.ndarray, seed: int) -> Probe:
    """Loss, beam validity and the typical sigma of the trainer's model on the probe users. The model stays in eval mode."""
    import torch

    from sigma_core.generation.fusion import beam_sigma, typical

    trainer.model.eval()
    losses: list[float] = []
    sigmas: list[Tensor] = []
    valid: list[float] = []
    existing = {tuple(row) for row in np.unique(prefixes_NP, axis=0).tolist()}
    generation = trainer.config.generation
    with torch.inference_mode():
        for inputs in sample_steps(probe, prefixes_NP, trainer.config.training, PROBE_STEPS, seed):
            losses.append(trainer.losses(inputs)["loss"].item())
            if len(sigmas) == BEAM_STEPS:
                continue
            beams = _beams(trainer, inputs)
            sigmas.append(beam_sigma(beams.log_prob_RK.exp(), generation.sigma_top, generation.sigma_floor))
            found = beams.prefix_RKP[beams.log_prob_RK > float("-inf")].tolist()
            valid.append(float(np.mean([tuple(p) in existing for p in found])))
    return Probe(float(np.mean(losses)), float(np.mean(valid)), typical(torch.cat(sigmas)).item())


def _beams(trainer: "Trainer", inputs: "StepInputs") -> "Beams":
    import torch

    from sigma_core.generation.recommender import ItemTable, Recommender
    from sigma_core.instruction.collate import Request

    items = trainer.model.fusion(trainer.streams)
    order = torch.argsort(trainer.group_of, stable=True)
    table = ItemTable(items[order], trainer.prefixes[order])
    collator = type(trainer.collator)(
        trainer.collator.words, table.prefixes_NP.cpu().numpy(), trainer.collator.codebook_size
    )
    recommender = Recommender(trainer.model, table, collator, trainer.lexical, trainer.config.generation, 1.0)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    users = [context.with_rows(place.cpu().numpy()) for context in inputs.users]
    requests = [[Request(r.instruction, r.focus) for r in mine] for mine in inputs.requests]
    eligible = torch.ones(sum(map(len, requests)), len(order), dtype=torch.bool, device=order.device)
    return recommender.beam(users, requests, trainer.focus, eligible)
