"""Drawings of the benchmark pages: where points land, what cannot be drawn, and that texts are escaped."""

import re

from sigma_core.benchmarks.charts import Axis, Line, line_chart
from sigma_core.benchmarks.page_sections import sections_of


def points_of(svg: str) -> list[list[tuple[float, float]]]:
    found = re.findall(r'<polyline points="([^"]*)"', svg)
    return [[tuple(map(float, pair.split(","))) for pair in line.split()] for line in found]


def test_on_logarithmic_axes_a_power_is_a_straight_line() -> None:
    svg = line_chart(
        [Line("square", [(1, 1), (10, 100), (100, 10_000)])], Axis("x", True), Axis("y", True), title="t"
    )
    ((first, middle, last),) = points_of(svg)
    assert abs(first[0] + last[0] - 2 * middle[0]) < 0.3
    assert abs(first[1] + last[1] - 2 * middle[1]) < 0.3
    assert first[1] > last[1], "larger is higher up"


def test_what_a_logarithm_cannot_show_is_left_out_and_nothing_is_no_drawing() -> None:
    log = Axis("p", True), Axis("o", True)
    assert [
        len(line) for line in points_of(line_chart([Line("a", [(1, 0), (2, 1), (3, 2)])], *log, title="t"))
    ] == [2]
    assert line_chart([Line("a", [(0, 0)])], *log, title="t") == ""
    assert line_chart([Line("g", [(1, 1)], guide=True)], *log, title="t") == ""


def test_names_are_text() -> None:
    svg = line_chart([Line("<us>", [(0, 0), (1, 1)])], Axis("a&b"), Axis("y"), title='"t"')
    assert "&lt;us&gt;" in svg
    assert "a&amp;b" in svg
    assert "<us>" not in svg


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
