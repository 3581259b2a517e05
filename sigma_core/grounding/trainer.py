"""The training loop of the grounded encoder: draw pairs, vectors of their distinct texts, two losses, one step.

Both phases share it - the projection alone, then projection and LoRA - and differ only in where a text's vector comes from.
The only module of this package that imports peft. Source: paper section on grounding (losses); batches, masks and the two
phases are our choice.
"""

# Shape legend: B pairs of a batch, D text width.

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from sigma_core.config import GroundingConfig
from sigma_core.grounding.encoder import Adapter
from sigma_core.grounding.gradient_cache import backward
from sigma_core.grounding.losses import info_nce_rows, similarity_kl
from sigma_core.grounding.pair_plan import PairPlan
from sigma_core.grounding.text_network import TextNetwork
from sigma_core.grounding.text_pool import TextPool, pooled_states
from sigma_core.pretrained import merge_lora
from sigma_core.pretrained_checks import check_targets
from sigma_core.tracking import Progress, Tracker

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Linear, Parameter
    from torch.optim import Optimizer

_WARMUP: Final = 0.1  # share of the steps in which the learning rate rises
_LOG_EVERY: Final = 10
_HEAD, _LORA = "head", "lora"


class PairBatch(NamedTuple):
    """B pairs as int64 [B] positions: texts in the pool, rows of v_ID (-1 where there is none), number of the view."""

    anchor: np.ndarray
    positive: np.ndarray
    anchor_id: np.ndarray
    positive_id: np.ndarray
    view: np.ndarray


class Trainer:
    """Runs the phases on one plan.

    Args:
        plan: what is trained on.
        factors: float32 [items with v_ID, width], the frozen teacher.
        config: sizes, rates, weights.
        seed: of the order of pairs.
        tracker: gets the losses.
        progress: hears of every step.
    """

    def __init__(
        self,
        plan: PairPlan,
        factors: np.ndarray,
        config: GroundingConfig,
        seed: int,
        tracker: Tracker,
        progress: Progress,
    ) -> None:
        import torch

        self._plan, self._config, self._seed = plan, config, seed
        self._tracker, self._progress = tracker, progress
        nobody = np.zeros((1, factors.shape[1]), dtype=np.float32)  # what row -1 reads; always masked
        self._factors = torch.from_numpy(np.concatenate([factors, nobody]))
        self._losses: dict[str, list[float]] = {}
        self._adapter_parameters = 0
        self._views = [view for view, rows in plan.train.items() if len(rows)]
        self._steps_before = 0  # of the phases that are over: a tracker's steps only ever rise
        self._by_view: dict[str, list[float]] = {}  # the contrastive loss of a step's pairs of a view

    def run_head(self, head: "Linear", base: "Tensor") -> None:
        """Train the projection on `base` (float [texts, H]), the untouched backbone's vectors of the pool."""
        import torch

        groups = [_group(head.parameters(), self._config.head_learning_rate)]
        self._run(
            _HEAD,
            self._config.head_steps,
            torch.optim.AdamW(groups),
            lambda texts: head(base[torch.from_numpy(texts)]),
        )

    def run_lora(
        self, network: TextNetwork, num_top: int, head: "Linear", pool: TextPool, *, is_merged: bool = True
    ) -> Adapter:
        """Train LoRA of the `num_top` last layers together with the projection; the adapter.

        `network` ends with the adapter merged into its weights: by peft, or (where an encoder refers to the weights by
        digest, `is_merged` False) as loading will merge it, so that trained and loaded encoder agree bit by bit.

        Raises:
            ValueError: no linear layer there has a name of `grounding.lora_targets`.
        """
        import torch
        from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

        config, depth, model = self._config, len(network.layers), network.model
        check_targets(network.layers[-num_top:], config.lora_targets)
        pattern = network.layers_pattern
        wanted = LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            target_modules=list(config.lora_targets),
            layers_to_transform=list(range(depth - num_top, depth)) if pattern else None,
            layers_pattern=pattern,
        )
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # peft 0.21 asks transformers by a name that is going away
            warnings.filterwarnings("ignore", "fan_in_fan_out")  # it finds out about GPT-2's layers itself
            adapted = get_peft_model(model, wanted).eval()  # no dropout: so few steps should not be noisy
        trainable = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
        self._adapter_parameters = sum(parameter.numel() for parameter in trainable)
        groups = [
            _group(trainable, config.learning_rate),
            _group(head.parameters(), config.head_learning_rate),
        ]
        self._run(
            _LORA,
            config.train_steps,
            torch.optim.AdamW(groups),
            lambda texts: head(pooled_states(pool, network, num_top, texts, grad=torch.is_grad_enabled())),
        )
        # save_embedding_layers: left to itself peft looks the base model up on the Hub
        state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
        tensors = {name: tensor.detach().cpu().numpy().copy() for name, tensor in state.items()}
        adapter = Adapter(_adapter_config(wanted, config.backbone), tensors)
        whole = adapted.merge_and_unload() if is_merged else adapted.unload()
        if not is_merged:
            device = next(whole.parameters()).device
            merge_lora(whole.cpu(), adapter.tensors, adapter.config)  # where loading does it
            whole.to(device)
        network.model = whole.eval().requires_grad_(False)
        return adapter

    def figures(self) -> dict[str, Any]:
        """What training used, and the mean losses of the first and the last tenth of each phase."""
        all_pairs = sum(map(len, self._plan.train.values())) or 1
        out: dict[str, Any] = {
            "texts": len(self._plan.texts),
            "pairs_in": self._plan.num_pairs,
            "train_pairs": {view: len(rows) for view, rows in self._plan.train.items()},
            "train_share": {view: round(len(rows) / all_pairs, 4) for view, rows in self._plan.train.items()},
            "adapter_parameters": self._adapter_parameters,
        }
        for name, values in sorted(self._losses.items()):
            tenth = max(len(values) // 10, 1)
            out[f"{name}_first"] = round(float(np.mean(values[:tenth])), 4)
            out[f"{name}_last"] = round(float(np.mean(values[-tenth:])), 4)
        for when, part in (("first", slice(0, 10)), ("last", slice(-10, None))):
            out[f"contrastive_by_view_{when}"] = {
                view: round(float(np.mean(values[part])), 4) for view, values in sorted(self._by_view.items())
            }
        return out

    def _run(
        self, phase: str, steps: int, optimizer: "Optimizer", states_of: Callable[[np.ndarray], "Tensor"]
    ) -> None:
        import torch
        from torch import Tensor

        rise = max(int(_WARMUP * steps), 1)
        for step, batch in enumerate(self._batches(phase, steps)):
            texts, where = np.unique(np.concatenate([batch.anchor, batch.positive]), return_inverse=True)
            for group in optimizer.param_groups:
                group["lr"] = group["full_lr"] * min((step + 1) / rise, (steps - step) / max(steps - rise, 1))
            optimizer.zero_grad(set_to_none=True)
            found: dict[str, float] = {}

            def loss_of(
                vectors: Tensor,
                batch: PairBatch = batch,
                where: np.ndarray = where,
                found: dict[str, float] = found,
            ) -> Tensor:
                anchor_BD, positive_BD = vectors[torch.from_numpy(where)].chunk(2)
                contrastive, distilled = self._loss(batch, anchor_BD, positive_BD)
                found.update(contrastive=float(contrastive.detach()), distilled=float(distilled.detach()))
                return contrastive + self._config.kd_weight * distilled

            backward(
                lambda texts: torch.nn.functional.normalize(states_of(texts), dim=1),
                texts, loss_of, self._config.cached_texts if phase == _LORA else None,
            )  # fmt: skip
            optimizer.step()
            self._report(phase, step, steps, found, optimizer.param_groups[0]["lr"])
        self._steps_before += steps

    def _loss(
        self, batch: PairBatch, anchor_BD: "Tensor", positive_BD: "Tensor"
    ) -> tuple["Tensor", "Tensor"]:
        import torch

        config, device = self._config, anchor_BD.device
        factors = self._factors = self._factors.to(device)
        a_B1, p_1B = batch.anchor[:, None], batch.positive[None, :]
        no_negative_BB = (batch.positive[:, None] == p_1B) | self._plan.is_known(a_B1, p_1B)
        rows_B = info_nce_rows(
            anchor_BD, positive_BD, config.temperature_text, torch.from_numpy(~no_negative_BB).to(device)
        )
        contrastive = rows_B.mean()
        for number, view in enumerate(self._views):
            if (batch.view == number).any():
                mine = rows_B.detach()[torch.from_numpy(batch.view == number)]
                self._by_view.setdefault(view, []).append(float(mine.mean()))
        distilled = similarity_kl(
            anchor_BD,
            positive_BD,
            factors[torch.from_numpy(batch.anchor_id)],
            factors[torch.from_numpy(batch.positive_id)],
            has_anchor_id_B=torch.from_numpy(batch.anchor_id >= 0).to(device),
            has_positive_id_B=torch.from_numpy(batch.positive_id >= 0).to(device),
            temperature_text=config.temperature_text,
            temperature_id=config.temperature_id,
        )
        return contrastive, distilled

    def _report(self, phase: str, step: int, steps: int, losses: dict[str, float], rate: float) -> None:
        for name, value in losses.items():
            self._losses.setdefault(f"{phase}_{name}", []).append(value)
        self._progress(step + 1, steps, f"{phase} steps, L_CL {losses['contrastive']:.3f}")
        if step % _LOG_EVERY == 0 or step + 1 == steps:
            curves = {f"grounding/{phase}_{name}": value for name, value in losses.items()}
            self._tracker.log({**curves, f"grounding/{phase}_learning_rate": rate}, self._steps_before + step)

    def _batches(self, phase: str, steps: int) -> Iterator[PairBatch]:
        # Views by their shares, each walked through in a new random order every time it is used up.
        rng = np.random.default_rng([self._seed, len(phase), int(phase == _LORA)])
        train = {view: self._plan.train[view] for view in self._views}
        shares = {view: self._config.view_weights.get(view, 0.0) for view in train}
        total = sum(shares.values()) or 1.0
        counts = {
            view: max(round(self._config.batch_size * share / total), 1) for view, share in shares.items()
        }
        queue = {view: np.zeros(0, dtype=np.int64) for view in train}
        for _ in range(steps):
            parts = []
            for view, rows in train.items():
                while len(queue[view]) < counts[view]:
                    queue[view] = np.concatenate([queue[view], rng.permutation(len(rows))])
                at, queue[view] = queue[view][: counts[view]], queue[view][counts[view] :]
                own = np.full(len(at), self._views.index(view))
                parts.append(
                    [rows.anchor[at], rows.positive[at], rows.anchor_id[at], rows.positive_id[at], own]
                )
            yield PairBatch(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _group(parameters: Iterable["Parameter"], learning_rate: float) -> dict[str, Any]:
    return {"params": list(parameters), "lr": learning_rate, "full_lr": learning_rate, "weight_decay": 0.0}


def _adapter_config(wanted: Any, backbone: str) -> dict[str, Any]:
    values: dict[str, Any] = wanted.to_dict()
    values["target_modules"] = sorted(
        values["target_modules"]
    )  # PEFT keeps a set: its order differs from run to run
    values["base_model_name_or_path"] = (
        "sentence-transformers/all-MiniLM-L6-v2" if backbone == "minilm" else backbone
    )
    values["inference_mode"] = True
    values.pop("peft_version", None)
    return values
