"""The speed verbs on tiny sizes: both sides do the same work, keys are there, sums are right. Nothing is timed."""

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from sigma_core import columns as c
from sigma_core.artifacts import ArtifactStore
from sigma_core.benchmarks.four_token_beam import (
    FIRST_CODE,
    PEER_CODEBOOK,
    OwnFourTokenBeam,
    PeerBeam,
    causal_network,
    four_token_prompts,
)
from sigma_core.benchmarks.generation import GenerationSettings, next_purchases, run_generation
from sigma_core.benchmarks.generation_world import generation_world
from sigma_core.benchmarks.page import page_of, shown, shown_cell
from sigma_core.benchmarks.record import benchmark_record
from sigma_core.benchmarks.scaling import exponent, multiplied
from sigma_core.benchmarks.shards import compare, loop_inputs, plain_examples
from sigma_core.benchmarks.subset_search import (
    TOP,
    SubsetSearchSettings,
    _FlatPerPrefix,
    _ivf,
    _torch_sides,
    run_subset_search,
)
from sigma_core.benchmarks.timing import Timing, alternate
from sigma_core.benchmarks.training import right_padded
from sigma_core.data.events import InteractionEvents
from sigma_core.generation.subset_search import PrefixRanges
from sigma_core.instruction.collate import Request
from sigma_core.instruction.examples import build_examples
from sigma_core.training.batches import StepInputs
from tests.instruction.small_world import CONFIG, CUT, small_catalog, small_events, small_profiles
from tests.model_world import tiny_user, tiny_world

ITEMS = 60


@pytest.fixture(scope="module")
def network():
    return causal_network("mini", 0)


@pytest.fixture(scope="module")
def world():
    made = generation_world(ITEMS, 5, 3, num_prefixes=4)
    codes = made.codes_N4.copy()
    codes[:, :2] %= 3  # prefixes that several items share
    return made.__class__(made.recommender, made.users, codes, made.words)


def test_our_four_token_beam_scores_items_as_whole_passes_do(network, world):
    """Wide beams are exhaustive: the list is that of every item's own sequence, one forward pass each."""
    own = OwnFourTokenBeam(network, world.codes_N4)
    prompts = four_token_prompts(world.users, world.codes_N4, world.words)
    lists = own.rank(prompts, 2 * ITEMS, ITEMS)
    codes = torch.as_tensor(world.codes_N4)
    for prompt, ranked in zip(prompts, lists, strict=True):
        tokens = codes + FIRST_CODE + torch.arange(4) * PEER_CODEBOOK
        with torch.inference_mode():
            logits = network(torch.cat((prompt.expand(ITEMS, -1), tokens[:, :3]), dim=1)).logits[:, -4:]
        score = torch.zeros(ITEMS)
        for level in range(4):
            first = FIRST_CODE + level * PEER_CODEBOOK
            same = (codes[:, None, :level] == codes[None, :, :level]).all(dim=-1)
            legal = torch.zeros(ITEMS, PEER_CODEBOOK).index_add_(1, codes[:, level], same.float()) > 0
            mine = (
                logits[:, level, first : first + PEER_CODEBOOK]
                .masked_fill(~legal, -torch.inf)
                .log_softmax(-1)
            )
            score += mine.gather(1, codes[:, level, None]).squeeze(1)
        assert sorted(ranked) == list(range(ITEMS))
        assert score[ranked].diff().max() < 1e-3


def test_a_list_longer_than_the_catalog_holds_every_item_once(network, world):
    prompts = four_token_prompts(world.users, world.codes_N4, world.words)
    lists = OwnFourTokenBeam(network, world.codes_N4).rank(prompts, 2 * ITEMS, 2 * ITEMS)
    assert all(sorted(items) == list(range(ITEMS)) for items in lists)


def test_peers_return_distinct_items_of_the_catalog(network, world):
    peers = PeerBeam(network, world.codes_N4, most_rows=16)
    lists = peers.rank(four_token_prompts(world.users, world.codes_N4, world.words), 8, 5)
    assert all(len(set(items)) == 5 and set(items) <= set(range(ITEMS)) for items in lists)


def test_generation_measures_every_side_and_names_its_ratios():
    settings = GenerationSettings(
        catalogs=(80,), batches=(1, 2), prefixes=(20,), history=4, rounds=1, threads=1, clock="cpu"
    )
    found = run_generation(settings)
    sides = {"ours", "peers", "own_beam", "own_beam_short", "floor", "transformers_read"}
    assert {row["side"] for row in found["rows"]} == sides
    assert all(row["requests_per_second"] > 0 for row in found["rows"])
    assert {"ratio_batch_1", "ratio_batch_2", "ratio_own_beam_batch_2", "over_floor_batch_2"} <= found.keys()


def test_subset_search_sides_find_the_same_items():
    """Six pairs over 20 prefixes of about 25 items: every side's best 20 are those of a plain product with the prefix's rows."""
    rng = np.random.default_rng(0)
    prefix = np.sort(rng.integers(0, 20, 500))
    table = torch.nn.functional.normalize(
        torch.randn(500, 8, generator=torch.Generator().manual_seed(0)), dim=1
    )
    ranges = PrefixRanges.of_sorted(torch.as_tensor(prefix)[:, None])
    start, length = ranges.start_Q.numpy(), ranges.length_Q.numpy()
    pairs, query = np.array([7, 3, 19, 3, 0, 12]), table[rng.choice(500, 6, replace=False)]
    plain = [
        set((start[g] + np.argsort(-(table[start[g] : start[g] + length[g]] @ q).numpy())[:TOP]).tolist())
        for g, q in zip(pairs, query, strict=True)
    ]
    for side, search in _torch_sides(query, torch.as_tensor(pairs), table, ranges).items():
        value, slot = search()
        rows = start[pairs][:, None] + slot.numpy()
        found = [set(row[score > -2].tolist()) for row, score in zip(rows, value.numpy(), strict=True)]
        assert found == plain, side
    flat = _FlatPerPrefix(table.numpy(), start.tolist(), length.tolist())
    by_prefix = flat.search(
        query.numpy(), pairs
    )  # a part a prefix, ascending; pairs of one prefix in their order
    slots = np.concatenate([slot for _, slot in by_prefix])
    order = np.argsort(pairs, kind="stable")
    found = {n: set((start[pairs[n]] + row[row >= 0]).tolist()) for n, row in zip(order, slots, strict=True)}
    assert [found[n] for n in range(6)] == plain
    search, _ = _ivf(table.numpy(), np.repeat(np.arange(len(length)), length), len(length))
    assert [set(row[row >= 0].tolist()) for row in search(query.numpy(), pairs)[1]] == plain


def test_subset_search_measures_every_side():
    found = run_subset_search(
        SubsetSearchSettings(
            (500,), group_size=25, batches=(1, 2), prefixes=3, rounds=1, threads=1, clock="cpu"
        )
    )
    assert {row["side"] for row in found["rows"]} == {
        "product", "torch_slices", "torch_gathered", "faiss_flat_per_prefix", "faiss_ivf",
    }  # fmt: skip
    assert set(found["fastest"]) == {"500_batch_1", "500_batch_2"}


def test_the_python_loop_writes_the_examples_of_the_builder():
    args = (small_events(), small_catalog(), small_profiles())
    built = build_examples(CUT, *args, CONFIG, split="train")
    _, plain = plain_examples(CUT, loop_inputs(*args, CUT, CONFIG), CONFIG)
    assert plain
    compare(built.examples, plain, CONFIG)
    with pytest.raises(RuntimeError, match="the builder made"):
        compare(built.examples, plain[1:], CONFIG)


def test_a_right_padded_batch_holds_a_row_for_every_leaf():
    world = tiny_world()
    users = [tiny_user("a", 1), tiny_user("b", 2)]
    requests = [
        [Request("x y", leaves=((1,), (2,))), Request("z", leaves=((0,),))],
        [Request("w", leaves=((3,),))],
    ]
    none = np.zeros(0, dtype=np.int64)
    inputs = StepInputs(users, none, requests, none, none, none, none, none)
    parts = right_padded(world.collator, inputs, 3, np.random.default_rng(0))
    assert [len(part.valid_BL) for part in parts] == [3, 1]
    leaves = sorted(int(leaf) for part in parts for leaf in part.leaf_prefix_MP[:, 0])
    assert leaves == [0, 1, 2, 3]
    tree = world.collator(users, requests)
    assert tree.valid_BL.sum() < sum(part.valid_BL.sum() for part in parts)


def test_multiplied_data_share_no_user_and_no_item():
    frame = pl.DataFrame({c.USER_ID: ["u", "v"], c.ITEM_ID: ["i", None], c.SOURCE_ROW: [0, 1]})
    out = multiplied(frame, c.USER_ID, 3)
    assert out[c.USER_ID].n_unique() == 6
    assert out[c.ITEM_ID].null_count() == 3
    assert out[c.SOURCE_ROW].to_list() == list(range(6))


def test_the_exponent_is_the_slope():
    assert exponent([1, 3, 10], [2.0, 6.0, 20.0]) == pytest.approx(1.0)
    assert exponent([1, 3, 10], [5, 45, 500]) == pytest.approx(2.0)


def test_sides_are_called_in_turn_and_rare_ones_less():
    calls: list[str] = []
    timings = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, rare={"b": 1})
    assert calls == ["a", "b", "a", "b", "a", "a"]  # the first of each warms up and is not counted
    assert (len(timings["a"].seconds), len(timings["b"].seconds)) == (3, 1)
    assert Timing((1.0, 2.0, 9.0), None).p50 == 2.0
    assert Timing((1.0, 2.0, 9.0), None).p95 == 9.0


def test_a_page_holds_the_record_and_nothing_from_elsewhere():
    record = benchmark_record(
        "toy",
        {"ratio": 35.25, "rows": [{"side": "<us>", "ms": 2.0}, {"side": "them", "ms": 4.0}], "more": {"a": [1, 2]}},
        settings={"k": 20}, data={"events": "abc"}, seeds=[0], seconds=1.0,
    )  # fmt: skip
    page = page_of(record)
    assert "35.2" in page
    assert "&lt;us&gt;" in page
    assert "<us>" not in page
    assert "width:50.0%" in page
    assert "http" not in page
    assert "<script" not in page
    values = (None, 12345, 0.12345, 12.345, "x", 0.0, 3e-9)
    assert [shown(v) for v in values] == ["-", "12,345", "0.1235", "12.3", "x", "0.0000", "3e-09"]


def test_a_page_draws_intervals_on_one_scale_with_zero() -> None:
    """From -1 to 3 of one and 0 to 1 of another: zero stands at a quarter of the width, the first fills it."""
    rows = [
        {"task": "a", "difference": 1.0, "low": -1.0, "high": 3.0},
        {"task": "b", "difference": 0.5, "low": 0.0, "high": 1.0},
    ]
    page = page_of({"differences": rows})
    assert page.count("left:25.0%") == 3  # zero twice, and the low end of the second
    assert "left:0.0%;width:100.0%" in page
    assert "left:25.0%;width:25.0%" in page
    by_name = [
        dict(sorted(row.items())) for row in rows
    ]  # as the record's file has them: high stands before low
    assert page_of({"differences": by_name}).count("left:25.0%") == 3
    assert "left:37.5%" in page_of({"differences": by_name})  # the middle of the second, not its high end
    assert 'class="interval"' not in page_of({"plain": [{"low": 1.0, "high": 2.0}], "rows": [{"a": 1.0}]})


def test_a_page_shows_p_values_signs_and_verdicts_as_the_report_does() -> None:
    rows = [{"task": "a", "p": 1e-9, "verdict": "above", "difference": 0.1, "low": 0.05, "high": 0.2}]
    page = page_of({"rows": rows, "note": "said", "none": None})
    for part in (
        "<td>&lt;.0001</td>",
        '<td class="text above">above</td>',
        "<td>+0.1000</td>",
        "<dd>said</dd>",
    ):
        assert part in page
    assert [shown_cell(p, "p") for p in (0.0, 1, 0.05)] == ["<.0001", "1.0000", "0.0500"]


def test_what_a_user_only_looked_at_is_no_purchase(tmp_path: Path) -> None:
    """Two events on the day after: a purchase of the first item, a view of the second."""
    day = date(2024, 3, 1)
    first, second = small_events().unique(c.ITEM_ID, maintain_order=True)[c.ITEM_ID].to_list()[:2]
    events = (
        small_events()
        .head(2)
        .with_columns(
            pl.lit("u").alias(c.USER_ID),
            pl.Series(c.ITEM_ID, [first, second]),
            pl.Series(c.EVENT_TYPE, ["purchase", "view"]),
        )
    )
    ArtifactStore(tmp_path).write("interaction_events", "2024-03-02", InteractionEvents(events))
    assert next_purchases(tmp_path, day, 7, {first: 3, second: 4}) == {"u": {3}}
