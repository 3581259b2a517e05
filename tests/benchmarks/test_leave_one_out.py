"""Leave-one-out: splits, ranks and baselines by hand, and every model on a toy world it must learn."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from sigma_core.benchmarks.leave_one_out import counting, models
from sigma_core.benchmarks.leave_one_out.data import Sequences, Split, load_sequences
from sigma_core.benchmarks.leave_one_out.features import principal, together_vectors
from sigma_core.benchmarks.leave_one_out.losses import catalog_cross_entropy
from sigma_core.benchmarks.leave_one_out.models import Lab
from sigma_core.benchmarks.leave_one_out.networks import CatalogModel, SemanticIdModel
from sigma_core.benchmarks.leave_one_out.ranks import Ranks, differences, gains, metric_values, target_ranks
from sigma_core.benchmarks.leave_one_out.run import MODELS, TARGETS, run, table
from sigma_core.benchmarks.leave_one_out.sequence import ByteDropout, Trunk, batches, make_batch
from sigma_core.benchmarks.leave_one_out.settings import BeamSearch, Profile, Sigma, Training, TrunkShape
from sigma_core.benchmarks.leave_one_out.sigma_network import SigmaNetwork
from sigma_core.benchmarks.leave_one_out.trainer import fit

NUM_ITEMS = 24


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path):
    """Item i is always followed by i + 1, around a ring of 24; 60 users of 5 to 7 items."""
    where = tmp_path / "ring"
    where.mkdir()
    lines = [
        " ".join([f"u{user}", *(f"i{(user * 7 + k) % NUM_ITEMS}" for k in range(5 + user % 3))])
        for user in range(60)
    ]
    (where / "sequences.txt").write_text("\n".join(lines) + "\n")
    (where / "items.jsonl").write_text(
        "".join(
            f'{{"item_id": "i{i}", "title": "thing number {i}", "categories": ["c{i % 4}"]}}\n'
            for i in range(NUM_ITEMS)
        )
    )
    return where


@pytest.fixture
def profile():
    base = Profile()
    return base.model_copy(
        update={
            "training": base.training.model_copy(
                update={"positions_at_once": 60, "max_epochs": 8, "learning_rate": 1e-2}
            ),
            "trunk": base.trunk.model_copy(update={"width": 16, "blocks": 1, "drop": 0.0, "input_drop": 0.0}),
            "features": base.features.model_copy(
                update={"text_dim": 8, "category_dim": 4, "together_dim": 8}
            ),
            "sigma": base.sigma.model_copy(update={"num_prefixes": 4, "sigma_top": 3}),
            "beam_search": base.beam_search.model_copy(
                update={"codebook_size": 4, "num_levels": 3, "width": 12}
            ),
        }
    )


@pytest.fixture
def no_encoder(monkeypatch):
    """Texts get random vectors: MiniLM has its own tests."""
    monkeypatch.setattr(
        "sigma_core.benchmarks.leave_one_out.models.text_vectors",
        lambda data, cache: np.random.default_rng(5).normal(size=(data.num_items, 12)).astype(np.float32),
    )


# ------------------------------------------------------------------------------------------- data
def test_the_last_item_tests_and_the_one_before_validates(folder):
    data = load_sequences(folder)
    assert data.rows[0].tolist() == [0, 1, 2, 3, 4]
    assert data.train("strict")[0].tolist() == [0, 1, 2]
    assert data.train("refit")[0].tolist() == [0, 1, 2, 3]
    assert (data.validation().histories[0].tolist(), data.validation().targets[0]) == ([0, 1, 2], 3)
    assert (data.test().histories[0].tolist(), data.test().targets[0]) == ([0, 1, 2, 3], 4)


@pytest.mark.parametrize(
    ("line", "message"), [("u0 i0 i1", "has 2 items; needed 3"), ("u0 i0 i1 nope i2", "items.jsonl lacks")]
)
def test_a_broken_line_is_named(folder, line, message):
    (folder / "sequences.txt").write_text(line + "\n")
    with pytest.raises(ValueError, match=f"line 1.*{message}"):
        load_sequences(folder)


def test_a_folder_without_the_files_says_what_is_needed(tmp_path):
    with pytest.raises(ValueError, match=r"needed sequences\.txt"):
        load_sequences(tmp_path)


# ------------------------------------------------------------------------------------------ ranks
def test_ranks_count_what_is_higher_and_half_of_what_is_equal():
    scores = np.array([[9.0, 5.0, 5.0, 7.0, 1.0]], np.float32)  # target 1; history holds item 0
    found = target_ranks(lambda histories: scores, Split([np.array([0])], np.array([1])))
    assert found.unfiltered[0] == 1 + 2 + 1 / 2  # 9 and 7 above, one other 5
    assert found.filtered[0] == 1 + 1 + 1 / 2  # 9 is in the history


def test_constant_scores_have_the_middle_rank():
    found = target_ranks(lambda h: np.zeros((len(h), 11), np.float32), Split([np.array([3])], np.array([0])))
    assert found.unfiltered[0] == (1 + 11) / 2
    assert found.filtered[0] == (1 + 10) / 2


def test_a_target_of_the_history_cannot_be_recommended_once_that_is_filtered():
    scores = np.array([[9.0, 5.0]], np.float32)
    found = target_ranks(lambda h: scores, Split([np.array([0])], np.array([0])))
    assert (found.filtered[0], found.unfiltered[0]) == (np.inf, 1.0)


def test_metrics_are_their_formulas():
    ranks = np.array([1.0, 2.0, 10.0, 10.5, np.inf])
    assert gains(ranks, "recall@10").tolist() == [1, 1, 1, 0, 0]
    assert gains(ranks, "ndcg@5") == pytest.approx([1, 1 / np.log2(3), 0, 0, 0])
    assert metric_values(Ranks(ranks, ranks))["recall@5_unfiltered"] == 2 / 5


def test_a_model_is_no_better_than_itself_and_better_than_a_worse_one():
    good, bad = np.full(200, 1.0), np.where(np.arange(200) < 100, 1.0, 50.0)
    same = differences([[Ranks(good, good)]], [[Ranks(good, good)]], ["recall@10"])[0]
    assert (same["difference"], same["p"]) == (0, 1)
    better = differences([[Ranks(good, good)]], [[Ranks(bad, bad)]], ["recall@10"])[0]
    assert better["difference"] == 0.5
    assert better["low"] > 0.4
    assert better["p"] < 1e-6


# ------------------------------------------------------------------------------------ counting
def test_item_knn_is_cosine_over_users():
    found = counting.item_knn([np.array([0, 1]), np.array([0, 2])], 4, neighbors=10)
    assert counting.linear(found, 1.0)([np.array([1])])[0] == pytest.approx([1 / np.sqrt(2), 0, 0, 0])
    assert counting.linear(found, 0.5)([np.array([1, 3])])[0] == pytest.approx([0.5 / np.sqrt(2), 0, 0, 0])


def test_ease_is_its_closed_form():
    sequences = [np.array([0, 1]), np.array([0, 1, 2]), np.array([2, 3])]
    x = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1]], float)
    inverse = np.linalg.inv(x.T @ x + 2.0 * np.eye(4))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    score = counting.linear(counting.ease(sequences, 4, l2=2.0), 1.0)
    assert score([np.array([0]), np.array([2, 3])]) == pytest.approx(
        np.stack([weights[0], weights[2] + weights[3]]), abs=1e-5
    )


# ---------------------------------------------------------------------------------------- parts
def test_the_catalogue_loss_and_its_gradients_are_those_of_autograd():
    torch.manual_seed(0)
    query = torch.randn(300, 5, dtype=torch.float64, requires_grad=True)
    items = torch.randn(1500, 5, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 1500, (300,))
    got = torch.autograd.grad(
        catalog_cross_entropy(query, items, torch.arange(300), target) * 3, (query, items)
    )
    loss = torch.nn.functional.cross_entropy(query @ items.T, target)
    wanted = torch.autograd.grad(loss * 3, (query, items))
    assert catalog_cross_entropy(query, items, torch.arange(300), target).item() == pytest.approx(loss.item())
    assert all(torch.allclose(a, b) for a, b in zip(got, wanted, strict=True))


def test_a_state_reads_nothing_after_it_and_no_padding():
    torch.manual_seed(0)
    trunk = Trunk(8, blocks=2, heads=2, drop=0.0, max_length=10)
    for block in trunk.blocks:
        torch.nn.init.normal_(block.by_distance)
    x = torch.randn(1, 6, 8)
    changed = x.clone()
    changed[:, 4:] = 0
    assert torch.allclose(trunk(x)[:, :4], trunk(changed)[:, :4])
    assert torch.allclose(trunk(x)[:, :4], trunk(x[:, :4]), atol=1e-6)


def test_byte_dropout_keeps_the_mean_and_is_off_in_evaluation():
    torch.manual_seed(0)
    drop = ByteDropout(0.25)
    out = drop(torch.ones(40_001))
    assert sorted(out.unique().tolist()) == pytest.approx([0, 4 / 3])
    assert out.mean().item() == pytest.approx(1, abs=0.02)
    assert drop.eval()(out) is out


def test_batches_hold_every_sequence_once():
    sequences = [np.arange(n) for n in (1, 9, 2, 2, 5, 3, 9, 1)]
    seen = []
    for numbers, batch in batches(sequences, 10, np.random.default_rng(0)):
        assert batch.items_BL.numel() <= 10
        for row, number in enumerate(numbers):
            assert batch.items_BL[row][batch.real_BL[row]].tolist() == sequences[number].tolist()
        seen += numbers.tolist()
    assert sorted(seen) == list(range(8))
    assert make_batch(sequences[:2]).last_columns().tolist() == [0, 8]


@pytest.mark.parametrize("cosine", [False, True])
def test_a_stream_of_sigma_is_a_catalogue_model_and_the_weighed_steps(cosine):
    torch.manual_seed(0)
    shape = TrunkShape(width=8, blocks=1, drop=0.0, input_drop=0.0)
    batch = make_batch([np.array([0, 4, 2]), np.array([5, 1, 8, 3])])
    alone = CatalogModel(2 * torch.randn(9, 8), shape, 50, cosine=cosine)
    network = SigmaNetwork(
        [torch.zeros(9, 8)],
        torch.arange(9) % 3,
        shape,
        Sigma(num_prefixes=3, sigma_top=3),
        50,
        cosine=[cosine],
    )
    network.streams[0].tower.load_state_dict(alone.tower.state_dict())
    loss = {}
    for weight in (0.0, 0.5, 1.0):
        network.settings = Sigma(num_prefixes=3, sigma_top=3, steps_weight=weight)
        loss[weight] = network.loss(batch).item()
    assert loss[0.0] == pytest.approx(alone.loss(batch).item(), rel=1e-5)
    assert loss[1.0] - loss[0.0] == pytest.approx(2 * (loss[0.5] - loss[0.0]), rel=1e-4)
    assert loss[1.0] - loss[0.0] > 1.0  # a prefix of three and an item of three: about 2 log 3 untrained
    assert torch.allclose(network.scores(batch), alone.scores(batch), atol=1e-5)


def test_beams_wider_than_the_tree_give_every_item_its_probability():
    torch.manual_seed(0)
    codes = torch.tensor([[0, 0], [0, 1], [1, 0], [2, 1], [2, 2]])  # a node of one child beside nodes of two
    network = SemanticIdModel(codes, TrunkShape(width=8, blocks=1), BeamSearch(width=50), 50).eval()
    scores = network.scores(make_batch([np.array([0, 4, 2])]))
    assert scores.exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert scores.min() > -20


def test_items_of_the_same_sequences_are_near():
    sequences = [np.array([0, 1, 2])] * 5 + [np.array([3, 4, 5])] * 5
    vectors = together_vectors(sequences, 7, 2, seed=0)
    assert vectors[0] @ vectors[2] > 0.9
    assert abs(vectors[0] @ vectors[4]) < 0.1
    assert not vectors[6].any()  # nobody has it


def test_principal_components_beyond_the_rank_are_zero():
    found = principal(np.array([[1.0, 1], [-1, -1], [2, 2]], np.float32), 4)
    assert found.shape == (3, 4)
    assert np.abs(found[:, 1:]).max() < 1e-6


# ------------------------------------------------------------------------------------------ runs
def test_every_model_beats_popularity_on_a_ring(folder, profile, no_encoder, tmp_path):
    record = run(folder, seeds=[0], protocols=["strict"], profile=profile, keep=tmp_path / "kept")
    values = {model: record["models"][model]["strict"]["ndcg@5"][0] for model in MODELS}
    assert set(values) == set(MODELS)
    learned = ("sigma", "sasrec_ce", "ensrec", "gr_sid", "gr_id")
    assert all(values[model] > 1.5 * values["popularity"] for model in learned), values
    assert values["sigma"] > 0.8
    assert "sigma" in table(record)

    told = []
    again = run(
        folder, seeds=[0], protocols=["strict"], profile=profile, keep=tmp_path / "kept", report=told.append
    )
    assert again["models"] == record["models"]
    assert told == []  # everything was kept


def test_sigma_is_the_mean_of_its_streams_each_with_its_own_epochs(folder, profile, no_encoder):
    lab = Lab(load_sequences(folder), profile)
    whole = models._joined(lab, "strict", 0)
    parts = [models._fitted(f"sigma_{name}", lab, "strict", 0) for name in ("id", "text", "fused")]
    batch = make_batch([np.array([0, 4, 2]), np.array([5, 1])])
    with torch.no_grad():
        mean = torch.stack([part.scores(batch) for part in parts]).mean(dim=0)
        torch.testing.assert_close(whole.scores(batch), torch.log_softmax(mean, dim=1))
    epochs = [lab.epochs(f"sigma_{name}", None, 0) for name in ("id", "text", "fused")]
    assert all(1 <= epoch <= profile.training.max_epochs for epoch in epochs)


def test_refit_takes_the_epochs_of_strict_and_one_item_more(folder, profile, no_encoder):
    told = []
    record = run(
        folder,
        seeds=[0, 1],
        models=["gr_id", "popularity"],
        protocols=["refit"],
        profile=profile,
        report=told.append,
    )
    epochs = [sum(f"gr_id, {p}, seed 0: epoch" in line for line in told) for p in ("strict", "refit")]
    assert 0 < epochs[1] <= epochs[0]  # the best of the epochs that strict tried
    assert len(record["models"]["gr_id"]["refit"]["recall@10"]) == 2
    popular = record["models"]["popularity"]["refit"]["recall@10"]
    assert popular[0] == popular[1]
    low, high = record["intervals"]["gr_id"]["refit"]["recall@10"]
    assert low <= np.mean(record["models"]["gr_id"]["refit"]["recall@10"]) <= high


def with_other_items(data, place, seed):
    """The data with another item than its own at `place` of every user's sequence, and everything else the same."""
    shift = np.random.default_rng(seed).integers(1, data.num_items, len(data.rows))
    rows = [row.copy() for row in data.rows]
    for row, step in zip(rows, shift, strict=True):
        row[place] = (row[place] + step) % data.num_items
    return Sequences(data.name, data.item_ids, data.titles, data.categories, rows)


@pytest.mark.parametrize("model", MODELS)
def test_no_model_has_seen_what_it_is_asked_for(model, folder, profile, no_encoder, monkeypatch):
    """Another test item changes no score; another validation item none of `strict`, fusion weights aside, which it may choose."""
    short = profile.model_copy(update={"training": profile.training.model_copy(update={"max_epochs": 1})})
    data = load_sequences(folder)

    def scores(given, protocol, histories):
        return MODELS[model](Lab(given, short), protocol, 0)(histories)

    known = data.test().histories
    for protocol in ("strict", "refit"):
        changed = with_other_items(data, -1, seed=1)
        assert np.array_equal(scores(data, protocol, known), scores(changed, protocol, known)), protocol

    chosen = {"ensrec_3": "0.5 0.5", "item_knn": "50 0.7", "ease": "20.0 0.7"}
    monkeypatch.setattr(Lab, "chosen", lambda lab, name, seed, candidates: chosen.get(name, "0.5"))
    known, changed = data.validation().histories, with_other_items(data, -2, seed=2)
    assert np.array_equal(scores(data, "strict", known), scores(changed, "strict", known))
    assert not np.array_equal(
        scores(data, "refit", known), scores(changed, "refit", known)
    )  # it is trained on


def test_the_goals_stand_beside_what_was_reached(folder, profile, no_encoder):
    record = run(folder, seeds=[0], models=["sasrec_ce", "popularity"], protocols=["refit"], profile=profile)
    assert set(record["targets"]) == {"sasrec_ce.refit.recall@10", "sasrec_ce.refit.ndcg@10"}
    recall = record["targets"]["sasrec_ce.refit.recall@10"]
    assert recall["needed_on_beauty"] == TARGETS["sasrec_ce"]["refit"]["recall@10"] == 0.085
    assert recall["value"] == record["models"]["sasrec_ce"]["refit"]["recall@10"][0]
    assert recall["reached"] == (recall["value"] >= 0.085)


def test_what_is_unknown_is_refused(folder):
    with pytest.raises(ValueError, match="unknown model bert4rec"):
        run(folder, models=["bert4rec"])
    with pytest.raises(ValueError, match="unknown protocol loose"):
        run(folder, protocols=["loose"])  # type: ignore[list-item]


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path):
    sequences = [np.arange(n) % 9 for n in (4, 5, 6, 7)] * 3
    training = Training(positions_at_once=20, learning_rate=1e-2)

    def weights(stops):
        for epochs in stops:
            fitted = fit(
                lambda: CatalogModel(torch.randn(9, 8), TrunkShape(width=8, blocks=1), 50, cosine=True),
                sequences,
                training,
                seed=3,
                epochs=epochs,
                report=lambda line: None,
                checkpoint=tmp_path / f"{stops}.json",
            )
        return fitted.network.state_dict()

    whole, stopped = weights([4]), weights([1, 2, 4])
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


# ------------------------------------------------------------------------------------- real data
@pytest.mark.parametrize("inside", ["", "amazon-beauty"])
def test_the_public_folder_is_found_by_its_own_name_or_the_one_above(tmp_path, monkeypatch, inside):
    (tmp_path / inside).mkdir(exist_ok=True)
    (tmp_path / inside / "sequences.txt").touch()
    monkeypatch.setenv("SIGMA_BENCHMARK_DATA", str(tmp_path))
    assert beauty() == tmp_path / inside


def test_the_public_folder_is_the_set_the_field_measures_on():
    data = load_sequences(beauty())
    assert (len(data.rows), data.num_items, sum(map(len, data.rows))) == (22_363, 12_101, 198_502)
    assert all(
        len(set(row.tolist())) == len(row) for row in data.rows
    )  # no repeats: filtering removes no target


def beauty():
    """The folder of Amazon Beauty, or a skip that says where it was looked for."""
    places = [os.environ.get("SIGMA_BENCHMARK_DATA"), Path(__file__).parents[2].parent / "shared" / "data"]
    tried = [folder for place in places if place for folder in (Path(place) / "amazon-beauty", Path(place))]
    found = next((place for place in tried if (place / "sequences.txt").is_file()), None)
    if found is None:
        pytest.skip(
            f"no sequences.txt in {', '.join(map(str, tried))}; set SIGMA_BENCHMARK_DATA to the folder that holds it, or the one above"
        )
    return found
