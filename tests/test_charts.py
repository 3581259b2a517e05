"""Drawings of the pages: where points land, what cannot be drawn, and that texts are escaped."""

import re

from sigma_core.benchmarks.page_sections import sections_of
from sigma_core.charts import Axis, Line, Mark, chart


def points_of(svg: str) -> list[list[tuple[float, float]]]:
    found = re.findall(r'<polyline points="([^"]*)"', svg)
    return [[tuple(map(float, pair.split(","))) for pair in line.split()] for line in found]


def test_on_logarithmic_axes_a_power_is_a_straight_line() -> None:
    svg = chart(
        [Line("square", [(1, 1), (10, 100), (100, 10_000)])], Axis("x", "log"), Axis("y", "log"), title="t"
    )
    ((first, middle, last),) = points_of(svg)
    assert abs(first[0] + last[0] - 2 * middle[0]) < 0.3
    assert abs(first[1] + last[1] - 2 * middle[1]) < 0.3
    assert first[1] > last[1], "larger is higher up"


def test_what_a_logarithm_cannot_show_is_left_out_and_nothing_is_no_drawing() -> None:
    log = Axis("p", "log"), Axis("o", "log")
    assert [
        len(line) for line in points_of(chart([Line("a", [(1, 0), (2, 1), (3, 2)])], *log, title="t"))
    ] == [2]
    assert chart([Line("a", [(0, 0)])], *log, title="t") == ""
    assert chart([Line("g", [(1, 1)], guide=True)], *log, title="t") == ""


def test_names_are_text() -> None:
    svg = chart([Line("<us>", [(0, 0), (1, 1)])], Axis("a&b"), Axis("y"), title='"t"')
    assert "&lt;us&gt;" in svg
    assert "a&amp;b" in svg
    assert "<us>" not in svg


def test_on_axes_of_roots_a_quarter_stands_half_way() -> None:
    svg = chart([Line("", [(0, 0), (0.25, 0.25), (1, 1)])], Axis("x", "root"), Axis("y", "root"), title="t")
    ((first, middle, last),) = points_of(svg)
    assert abs(first[0] + last[0] - 2 * middle[0]) < 0.3
    assert abs(first[1] + last[1] - 2 * middle[1]) < 0.3
    assert all(f">{tick}</text>" in svg for tick in ("0", "0.02", "0.1", "0.2", "0.5", "1"))


def test_ticks_have_two_digits_and_an_axis_may_leave_zero_out() -> None:
    marks = [Mark("a", (0.000945, 8.57), 0), Mark("<b>", (0.170611, 11.99), 1, filled=False)]
    svg = chart([], Axis("x"), Axis("y", from_zero=False), title="t", marks=marks)
    ticks = re.findall(r"<text [^>]*>([\d.]+)</text>", svg)
    assert ticks == ["0", "0.05", "0.1", "0.15", "0.2", "8", "9", "10", "11", "12"]
    assert "<title>&lt;b&gt;: 0.1706, 11.99</title>" in svg


def test_marks_differ_in_shape_and_colour_and_a_key_is_the_mark() -> None:
    keys = [Mark("", (0, 0), number).key() for number in range(8)]
    shapes = {re.search(r' d="([^"]*)"', key).group(1) for key in keys}  # type: ignore[union-attr]
    colors = {re.search(r'stroke="([^"]*)"', key).group(1) for key in keys}  # type: ignore[union-attr]
    assert (len(shapes), len(colors)) == (8, 8)
    assert 'fill="none"' in Mark("", (0, 0), 1, filled=False).key()


def test_a_curve_at_the_diagonal_lies_on_it() -> None:
    curve = [{"predicted": p, "observed": p, "count": 1} for p in (0.1, 0.2, 0.4)]
    record = {"benchmark": {"verb": "diagnosis"}, "reliability": curve, "expected_calibration_error": 0.0}
    (section,) = sections_of(record)
    diagonal, drawn = points_of(section.svg)[:2]
    slope = (diagonal[1][1] - diagonal[0][1]) / (diagonal[1][0] - diagonal[0][0])
    assert all(abs(y - diagonal[0][1] - slope * (x - diagonal[0][0])) < 0.3 for x, y in drawn)


def test_a_verb_without_a_section_has_none() -> None:
    assert sections_of({"benchmark": {"verb": "toy"}}) == []
    assert sections_of({}) == []


def test_a_difference_has_a_colour_only_where_the_corrected_p_value_agrees() -> None:
    def cell(p: float, underpowered: bool = False) -> str:
        found = {"mean": -0.04, "low": -0.07, "high": -0.01, "p": p}
        task = {
            "targets": 9,
            "underpowered": underpowered,
            "strongest": None,
            "models": {"sigma": {}, "x": {}},
            "differences": {"x": {"recall@20": found}},
        }
        record = {
            "benchmark": {"verb": "backtest"},
            "dates": {},
            "pooled": {"all": {"dates": [], "tasks": {"t": task}}},
        }
        sections = sections_of(record)
        return next(one for one in sections if "minus every opponent" in one.title).grid[0][1].tone

    assert [cell(0.01), cell(0.07), cell(0.01, True)] == ["bad", "", ""]


def test_too_few_targets_have_no_colour_ties_are_both_best_and_order_is_that_of_the_tables() -> None:
    """Two arms against SIGMA, both worse beyond the interval; season has too few targets to say so."""
    cell = {"recall@20": {"mean": 0.5, "low": 0.4, "high": 0.6}}
    worse = {"recall@20": {"mean": 0.2, "low": 0.1, "high": 0.3, "p": 0.001}}
    both = {"season": cell, "query": cell}
    record = {
        "benchmark": {"verb": "ablation"}, "arms": {"gr_id": both, "sigma": both},
        "titles": {"gr_id": "", "sigma": ""}, "compared_with": {"gr_id": "sigma", "sigma": "sigma"},
        "differences": {"gr_id": {"season": worse, "query": worse}}, "ratios": {}, "frontier": {}, "training": {},
        "tasks": {"season": {"underpowered": True}, "query": {"underpowered": False}},
    }  # fmt: skip
    values, differences = sections_of(record)[:2]
    assert list(values.header) == ["arm", "query", "season*"]
    assert [row[0].text for row in values.grid] == ["sigma", "gr_id"]
    assert {cell.tone for row in values.grid for cell in row[1:]} == {"best"}
    assert [cell.tone for cell in differences.grid[0][1:]] == ["bad", ""]
