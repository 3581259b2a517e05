"""Which way each part of the heads pulls, and how hard, at a state of zeros: there every gain is what it starts with."""

import math

import pytest
import torch

from sigma_core.config import ModelConfig
from sigma_core.data.item_activity import NUM_ACTIVITY_STATS
from sigma_core.instruction.collate import NUM_STATS
from sigma_core.model.heads import DECAYED_STAT, Focus, ItemScores, Memory, PrefixScores, best_match, fit_of
from sigma_core.model.sigma import ModelShape, SigmaModel

CODES, HIDDEN, ITEM = 3, 16, 3
STATE = torch.zeros(1, 1, HIDDEN)
NO_PATH = torch.zeros(1, 1, 0, dtype=torch.long)
GATE = 2.5  # how `SigmaModel.copy_gate` starts


def model(*, pointer: bool) -> SigmaModel:
    torch.manual_seed(0)
    config = ModelConfig(
        hidden_dim=HIDDEN, num_layers=1, num_heads=2, item_dim=ITEM, fusion_hidden=12, pointer=pointer
    )
    return SigmaModel(config, ModelShape(2, 4, 0, 2, CODES, lexical_dim=7, match_dim=2)).eval()


def history(*items: tuple[tuple[int, int], float], bought: tuple[float, ...] = ()) -> Memory:
    """Items by prefix and match with `words`; item j has the vector of axis j and is bought `bought[j]` times (once)."""
    size = len(items)
    stats = torch.zeros(1, size, NUM_STATS + NUM_ACTIVITY_STATS)
    stats[0, :, DECAYED_STAT] = torch.tensor(bought or (1.0,) * size).log()
    match = torch.tensor([[[match, 0.0] for _, match in items]]).reshape(1, size, 2)
    everywhere = torch.ones(1, size, dtype=torch.bool)
    codes = torch.tensor([[prefix for prefix, _ in items]], dtype=torch.long).reshape(1, size, 2)
    row = torch.arange(size)[None]
    return Memory(
        torch.zeros(1, size, HIDDEN), torch.eye(ITEM)[None, :size], match, stats, codes, row, everywhere, everywhere
    )  # fmt: skip


NOBODY = history()


def words(low: float = 0.0, high: float = 1.0) -> Focus:
    """A request whose match with a text is the text's first number, in a catalogue of this range."""
    return Focus(
        torch.tensor([[[[1.0, 0.0]]]]), torch.ones(1, 1, 1, dtype=torch.bool), torch.eye(ITEM)[None, :1],
        torch.tensor([[[low, high]]]),
    )  # fmt: skip


def fit(match: float) -> float:
    return fit_of(torch.tensor([match]), torch.tensor([0.0, 1.0])).item()


def odds(scores: PrefixScores, over: int = 1) -> float:
    """Log odds of code 0 over another."""
    log_prob = scores.log_prob_BQK[0, 0]
    return (log_prob[0] - log_prob[over]).item()


@torch.inference_mode()
def asked(made: SigmaModel, memory: Memory = NOBODY, **more: object) -> PrefixScores:
    return made.prefix_scores(STATE, memory, 0, NO_PATH, **more)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------ what is generated
def test_a_code_under_which_more_is_sold_is_likelier_by_its_log() -> None:
    made = model(pointer=False)
    sold = torch.zeros(1, CODES, NUM_ACTIVITY_STATS)
    sold[0, :, 0] = torch.tensor([7.0, 3.0, 0.0]).log1p()
    assert odds(asked(made, prefix_BKS=sold)) - odds(asked(made)) == pytest.approx(math.log(2), abs=1e-5)


def test_a_code_under_which_the_user_bought_more_is_likelier_by_half_its_log() -> None:
    made = model(pointer=False)
    mine = history(((0, 0), 0.0), ((1, 0), 0.0), bought=(3.0, 1.0))
    assert odds(asked(made, mine)) - odds(asked(made)) == pytest.approx(0.5 * math.log(4 / 2), abs=1e-5)
    assert odds(asked(made, mine), over=2) - odds(asked(made), over=2) == pytest.approx(
        0.5 * math.log(4), abs=1e-5
    )


def test_a_code_that_matches_the_words_better_is_likelier_by_match_and_fit() -> None:
    made = model(pointer=False)
    made.prefix_match.copy_(torch.tensor([[0.95, 0.0], [0.85, 0.0], [0.0, 0.0]]))
    expected = 15 * (0.95 - 0.85) + fit(0.95) - fit(0.85)
    assert expected > 2.0
    assert odds(asked(made, focus=words())) - odds(asked(made)) == pytest.approx(expected, abs=1e-4)


# --------------------------------------------------------------------------------------------- what is copied
def test_at_first_twelve_of_thirteen_parts_are_copied_where_there_is_a_history() -> None:
    """sigma(2.5) = .924 copied; without history all is generated."""
    found = asked(model(pointer=True), history(((0, 0), 0.0)))
    assert found.copied_BQJ.sum().item() == pytest.approx(1 / (1 + math.exp(-GATE)), abs=1e-5)
    assert (found.copied_BQJ.sum() + found.generated_BQK.sum()).item() == pytest.approx(1.0, abs=1e-5)
    alone = asked(model(pointer=True))
    assert alone.generated_BQK.sum().item() == pytest.approx(1.0, abs=1e-5)


def copied(mine: float, best_prefix: float) -> float:
    """What is copied of a history that matches the words `mine`, where the best prefix matches them `best_prefix`."""
    made = model(pointer=True)
    made.prefix_match[0, 0] = best_prefix
    return asked(made, history(((1, 0), mine), ((2, 0), mine - 0.3)), focus=words()).copied_BQJ.sum().item()


def test_a_history_that_matches_better_than_the_catalogue_is_copied_more() -> None:
    assert copied(0.9, 0.6) == pytest.approx(1 / (1 + math.exp(-(GATE + 15 * 0.3))), abs=1e-5)
    assert copied(0.5, 0.5) == pytest.approx(1 / (1 + math.exp(-GATE)), abs=1e-5)
    assert copied(0.2, 0.6) == pytest.approx(1 / (1 + math.exp(-(GATE - 15 * 0.4))), abs=1e-5)


def test_the_best_match_of_a_history_is_its_nearest_item_less_the_nearest_prefix() -> None:
    match_of_items, match_of_prefixes = torch.tensor([[[0.1, 0.7, 0.9]]]), torch.tensor([[[0.4, 0.2]]])
    memory = history(((0, 0), 0.0), ((1, 0), 0.0), ((2, 0), 0.0))
    memory = memory._replace(valid_BJ=torch.tensor([[True, True, False]]))  # the nearest is padding
    assert best_match(match_of_items, match_of_prefixes, memory).item() == pytest.approx(0.7 - 0.4)
    assert best_match(match_of_items[..., :0], match_of_prefixes, NOBODY).tolist() == [[[0.0]]]


def shares(memory: Memory, **more: object) -> float:
    """How many times as much the first item of the history is copied as the second."""
    found = asked(model(pointer=True), memory, **more).copied_BQJ[0, 0]
    return (found[0] / found[1]).item()


def test_of_the_history_what_was_bought_more_and_what_the_words_mean_is_copied_more() -> None:
    more_often = history(((0, 0), 0.0), ((1, 0), 0.0), bought=(2.0, 1.0))
    assert shares(more_often) == pytest.approx(2**1.2, rel=1e-4)
    nearer = history(((0, 0), 0.95), ((1, 0), 0.85))
    assert shares(nearer, focus=words()) == pytest.approx(
        math.exp(15 * 0.1 + fit(0.95) - fit(0.85)), rel=1e-3
    )


def test_deeper_only_items_that_go_on_from_the_chosen_codes_are_copied() -> None:
    memory = history(((0, 1), 0.0), ((0, 2), 0.0), ((1, 2), 0.0))
    path = torch.tensor([[[0]]])
    with torch.inference_mode():
        found = model(pointer=True).prefix_scores(STATE, memory, 1, path)
    whole = 1 / (1 + math.exp(-GATE))
    assert found.copied_BQJ[0, 0].tolist() == pytest.approx([whole / 2, whole / 2, 0.0], abs=1e-5)
    by_code = found.log_prob_BQK.exp() - found.generated_BQK
    assert by_code[0, 0].tolist() == pytest.approx([0.0, whole / 2, whole / 2], abs=1e-5)


# --------------------------------------------------------------------------------------- items under a prefix
@torch.inference_mode()
def ranking(memory: Memory, prefix: tuple[int, int], focus: Focus | None = None) -> ItemScores:
    return model(pointer=True).item_scores(STATE, memory, torch.tensor([[prefix]]), focus)


def test_under_a_prefix_the_query_points_at_what_the_user_bought_there() -> None:
    """Item 0 stands under the prefix and item 1 does not: e^8 times its weight; both codes must agree."""
    memory = history(((0, 1), 0.0), ((1, 2), 0.0))
    query = ranking(memory, (0, 1)).query_BQE[0, 0]
    assert query[0] > 0
    assert (query[0] / query[1]).item() == pytest.approx(math.exp(8), rel=1e-3)
    query = ranking(memory, (1, 2)).query_BQE[0, 0]
    assert (query[1] / query[0]).item() == pytest.approx(math.exp(8), rel=1e-3)
    elsewhere = ranking(memory, (0, 2)).query_BQE[0, 0]
    assert elsewhere[0].item() == pytest.approx(elsewhere[1].item())


def test_items_are_ranked_towards_the_words_by_match_and_fit_and_by_what_is_sold() -> None:
    found = ranking(NOBODY, (0, 0), words())
    assert found.query_BQE[0, 0].tolist() == pytest.approx([1.0, 0.0, 0.0])  # v~ of the words
    assert (found.focus_BQ.item(), found.fit_BQ.item()) == (10.0, 1.0)
    assert found.activity_BQS[0, 0].tolist() == [1.0, 0.0, 0.0, 0.0]
    silent = ranking(NOBODY, (0, 0))
    assert (silent.focus_BQ.item(), silent.fit_BQ.item()) == (0.0, 0.0)
