"""Line charts as inline SVG for the benchmark pages: straight or logarithmic axes, a diagonal, a legend. No script, no font of its own.

Holds drawing only; what is drawn comes from `page_sections.py`. Every text is escaped. Our choice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

Point = tuple[float, float]
COLORS: Final = (
    "#c0392b",
    "#2471a3",
    "#1e8449",
    "#b9770e",
    "#7d3c98",
    "#148f77",
    "#5d6d7e",
    "#d35400",
    "#1f3a93",
)
DASHES: Final = ("", "7 4", "2 3")  # the second and third round of the colours
HEIGHT: Final = 420
LEFT, RIGHT, TOP, BOTTOM = 74, 24, 14, 52
LEGEND_LINE: Final = 19
LETTER: Final = 6.6  # width of a letter of the legend, about


@dataclass(frozen=True)
class Line:
    """Points in order of x under a name; a `guide` is drawn thin and grey, without marks."""

    name: str
    points: Sequence[Point]
    guide: bool = False


@dataclass(frozen=True)
class Axis:
    """What an axis says; a logarithmic one leaves out what is not above 0. `ticks` are chosen when there are none."""

    label: str
    log: bool = False
    ticks: tuple[float, ...] = ()


class _Scale:
    """From values to pixels along one axis."""

    def __init__(self, axis: Axis, values: Sequence[float], start: float, end: float) -> None:
        low, high = min(values), max(values)
        self.log = axis.log
        self.ticks = axis.ticks or (_powers(low, high) if axis.log else _steps(low, high))
        low, high = min(low, *self.ticks), max(high, *self.ticks)
        self.low, self.high = self._at(low), self._at(high)
        margin = 0.03 * ((self.high - self.low) or 1.0)
        self.low, self.high = self.low - (margin if axis.log else 0.0), self.high + margin
        self.start, self.end = start, end

    def _at(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def __call__(self, value: float) -> float:
        share = (self._at(value) - self.low) / ((self.high - self.low) or 1.0)
        return round(self.start + share * (self.end - self.start), 1)


def line_chart(lines: Sequence[Line], x: Axis, y: Axis, *, title: str, width: int = 640) -> str:
    """An `<svg>` of the lines with a legend at the right; "" when no line has a point that can be drawn."""
    kept = [Line(line.name, _drawable(line.points, x, y), line.guide) for line in lines]
    kept = [line for line in kept if line.points]
    if not any(not line.guide for line in kept):
        return ""
    across = [px for line in kept for px, _ in line.points]
    up = [py for line in kept for _, py in line.points]
    named = [line for line in kept if line.name]
    legend = 40 + LETTER * max((len(line.name) for line in named), default=0)
    height = max(HEIGHT, TOP + BOTTOM + LEGEND_LINE * len(named))
    at_x = _Scale(x, across, LEFT, width - RIGHT)
    at_y = _Scale(y, up, height - BOTTOM, TOP)
    parts = _axes(at_x, at_y, x, y, width, height)
    number = 0
    for line in kept:
        color = "#97a3b0" if line.guide else COLORS[number % len(COLORS)]
        dash = "4 4" if line.guide else DASHES[number // len(COLORS) % len(DASHES)]
        number += not line.guide
        path = " ".join(f"{at_x(px)},{at_y(py)}" for px, py in line.points)
        stroke = f'stroke="{color}" stroke-width="{1.2 if line.guide else 2}" stroke-dasharray="{dash}"'
        parts.append(f'<polyline points="{path}" fill="none" {stroke}/>')
        if not line.guide:
            parts += [
                f'<circle cx="{at_x(px)}" cy="{at_y(py)}" r="3.6" fill="{color}"/>' for px, py in line.points
            ]
        if line.name:
            row = TOP + 8 + LEGEND_LINE * named.index(line)
            parts.append(f'<line x1="{width}" x2="{width + 24}" y1="{row}" y2="{row}" {stroke}/>')
            parts.append(f'<text x="{width + 30}" y="{row + 4}">{escape(line.name)}</text>')
    total = round(width + legend) if named else width
    return (
        f'<svg role="img" aria-label="{escape(title, quote=True)}" viewBox="0 0 {total} {height}" '
        f'width="{total}" height="{height}">{"".join(parts)}</svg>'
    )


def _drawable(points: Sequence[Point], x: Axis, y: Axis) -> list[Point]:
    return [(px, py) for px, py in points if (px > 0 or not x.log) and (py > 0 or not y.log)]


def _axes(at_x: _Scale, at_y: _Scale, x: Axis, y: Axis, width: int, height: int) -> list[str]:
    bottom, right = height - BOTTOM, width - RIGHT
    parts = []
    for tick in at_x.ticks:
        parts.append(f'<line class="grid" x1="{at_x(tick)}" x2="{at_x(tick)}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{at_x(tick)}" y="{bottom + 18}" text-anchor="middle">{_tick(tick)}</text>')
    for tick in at_y.ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{at_y(tick)}" y2="{at_y(tick)}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at_y(tick) + 4}" text-anchor="end">{_tick(tick)}</text>')
    middle, side = (LEFT + right) / 2, (TOP + bottom) / 2
    parts.append(f'<text x="{middle}" y="{height - 10}" text-anchor="middle">{escape(x.label)}</text>')
    parts.append(
        f'<text x="16" y="{side}" text-anchor="middle" transform="rotate(-90 16 {side})">{escape(y.label)}</text>'
    )
    return parts


def _powers(low: float, high: float) -> tuple[float, ...]:
    """The powers of ten from below the least value to above the largest."""
    return tuple(10.0**n for n in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1))


def _steps(low: float, high: float) -> tuple[float, ...]:
    """About five round steps that cover the values, and zero."""
    low, high = min(0.0, low), max(0.0, high)
    raw = (high - low or 1.0) / 5
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw)
    return tuple(step * n for n in range(math.floor(low / step), math.ceil(high / step) + 1))


def _tick(value: float) -> str:
    return f"{value:.3g}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.0e}"
