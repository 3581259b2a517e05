"""Leave-one-out: what is compared with what, how often chance may win, and which code a kept result is of."""

import numpy as np
import pytest

from sigma_core.benchmarks.leave_one_out import models
from sigma_core.benchmarks.leave_one_out.models import MODELS, PARTS, SECTIONS, VERSIONS, code_versions
from sigma_core.benchmarks.leave_one_out.ranks import Ranks
from sigma_core.benchmarks.leave_one_out.run import _comparisons


def ranks(hits: int) -> dict[str, list[Ranks]]:
    """Ranks of 200 users, of whom the first `hits` have their item first."""
    found = np.where(np.arange(200) < hits, 1.0, 50.0)
    return {"strict": [Ranks(found, found)]}


def test_sigma_and_its_three_steps_are_each_compared_with_every_other_model() -> None:
    found = _comparisons(
        {"sigma": ranks(60), "sigma_three_steps": ranks(50), "ease": ranks(50), "gr_id": ranks(10)}
    )
    recall = {(one["left"], one["right"]): one for one in found if one["metric"] == "recall@10"}
    assert list(recall) == [
        ("sigma", "sigma_three_steps"),
        ("sigma", "ease"),
        ("sigma", "gr_id"),
        ("sigma_three_steps", "ease"),
        ("sigma_three_steps", "gr_id"),
    ]
    assert recall["sigma_three_steps", "gr_id"]["difference"] == pytest.approx(0.2)
    assert recall["sigma_three_steps", "ease"]["p"] == recall["sigma_three_steps", "ease"]["p_holm"] == 1
    best = min(recall.values(), key=lambda one: one["p"])
    assert best["p_holm"] == pytest.approx(5 * best["p"])
    assert {one["left"] for one in _comparisons({"sigma_three_steps": ranks(9), "ease": ranks(5)})} == {
        "sigma_three_steps"
    }


@pytest.mark.parametrize(
    ("raised", "stale"),
    [
        ("text", {"text", "ensrec", "ensrec_3"}),
        ("gr_id", {"gr_id", "ensrec_3"}),
        ("sigma_text", {"sigma_text", "sigma", "sigma_three_steps"}),
        ("sigma_network", {"sigma_id", "sigma_text", "sigma_fused", "sigma", "sigma_three_steps"}),
        ("networks", set(SECTIONS) - {"popularity", "item_knn", "ease"}),
        ("counting", {"popularity", "item_knn", "ease"}),
    ],
)
def test_a_raised_version_makes_all_that_holds_the_part_again(
    raised: str, stale: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: code_versions(name) for name in SECTIONS}
    monkeypatch.setattr(models, "VERSIONS", {**VERSIONS, raised: VERSIONS.get(raised, 1) + 1})
    assert {name for name in SECTIONS if code_versions(name) != before[name]} == stale
    assert set(MODELS) <= set(PARTS)


def test_the_address_of_what_is_kept_holds_the_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    from sigma_core.benchmarks.leave_one_out.data import Sequences
    from sigma_core.benchmarks.leave_one_out.settings import Profile

    data = Sequences("x", ["a", "b"], ["a", "b"], [[], []], [np.array([0, 1, 0])])
    lab = models.Lab(data, Profile())
    before = lab.key("ensrec", "result")
    monkeypatch.setattr(models, "VERSIONS", {**VERSIONS, "text": 2})
    assert lab.key("ensrec", "result") != before
