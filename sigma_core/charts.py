"""Charts as inline SVG for the pages of reports and benchmarks: lines and single marks, three kinds of axes, a legend. No script.

Holds drawing only; what is drawn comes from `benchmarks/page_sections.py` and `evaluation/report_drawings.py`. Every text is
escaped. Our choice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final, Literal

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
APART: Final = 0.12  # ticks of roots keep that share of the axis between them
LETTER: Final = 6.6  # width of a letter of the legend, about
GRID: Final = "#dfe5ec"
MARKS: Final = (  # around 0,0
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",
    "M-4.5 -4.5h9v9h-9z",
    "M0 -5.8l5.4 9.6h-10.8z",
    "M0 -6.2l5.4 6.2l-5.4 6.2l-5.4 -6.2z",
    "M0 5.8l5.4 -9.6h-10.8z",
    "M-1.9 -5.5h3.8v3.6h3.6v3.8h-3.6v3.6h-3.8v-3.6h-3.6v-3.8h3.6z",
    "M-2.8 -5h5.6l2.9 5l-2.9 5h-5.6l-2.9 -5z",
    "M-5.2 -3.2l2 -2l3.2 3.2l3.2 -3.2l2 2l-3.2 3.2l3.2 3.2l-2 2l-3.2 -3.2l-3.2 3.2l-2 -2l3.2 -3.2z",
)


@dataclass(frozen=True)
class Line:
    """Points in order of x under a name; a `guide` is drawn thin and grey, without marks."""

    name: str
    points: Sequence[Point]
    guide: bool = False


@dataclass(frozen=True)
class Axis:
    """What an axis says; a logarithmic one leaves out what is not above 0, one of roots starts there.

    A linear one holds zero unless `from_zero` is False. `ticks` are chosen when there are none.
    """

    label: str
    kind: Literal["linear", "root", "log"] = "linear"
    ticks: tuple[float, ...] = ()
    from_zero: bool = True


@dataclass(frozen=True)
class Mark:
    """One point of a shape and colour of its own, both by `number`; what lies below shows through."""

    name: str
    point: Point
    number: int
    filled: bool = True

    def drawn(self, x: float, y: float) -> str:
        """The mark with its middle there, as SVG; the name and the values show when it is pointed at."""
        return f'<g transform="translate({x} {y})">{_told(self.name, self.point)}{self._shape()}</g>'

    def _shape(self) -> str:
        color = COLORS[self.number % len(COLORS)]
        fill = color if self.filled else "none"
        return (
            f'<path d="{MARKS[self.number % len(MARKS)]}" fill="{fill}" fill-opacity=".7" '
            f'stroke="{color}" stroke-width="1.6" pointer-events="all"/>'
        )

    def key(self) -> str:
        """The mark alone as an `<svg>`, for a legend."""
        return f'<svg viewBox="-8 -8 16 16" width="16" height="16">{self._shape()}</svg>'


class _Scale:
    """From values to pixels along one axis."""

    def __init__(self, axis: Axis, values: Sequence[float], start: float, end: float) -> None:
        low, high = min(values), max(values)
        self.kind = axis.kind
        self.ticks = axis.ticks or _ticks(axis, low, high)
        low, high = min(low, *self.ticks), max(high, *self.ticks)
        self.low, self.high = self._at(low), self._at(high)
        margin = 0.03 * ((self.high - self.low) or 1.0)
        starts_at_zero = axis.kind == "root" or (axis.kind == "linear" and axis.from_zero)
        self.low, self.high = self.low - (0.0 if starts_at_zero else margin), self.high + margin
        self.start, self.end = start, end

    def _at(self, value: float) -> float:
        if self.kind == "log":
            return math.log10(value)
        return math.sqrt(max(value, 0.0)) if self.kind == "root" else value

    def __call__(self, value: float) -> float:
        share = (self._at(value) - self.low) / ((self.high - self.low) or 1.0)
        return round(self.start + share * (self.end - self.start), 1)


def chart(
    lines: Sequence[Line],
    x: Axis,
    y: Axis,
    *,
    title: str,
    marks: Sequence[Mark] = (),
    width: int = 640,
    height: int = HEIGHT,
) -> str:
    """An `<svg>` of the lines with a legend at the right, and of the marks, the last on top; "" when nothing can be drawn.

    Marks have no legend here (`Mark.key`). It grows higher where the legend needs it.
    """
    kept = [Line(line.name, _drawable(line.points, x, y), line.guide) for line in lines]
    kept = [line for line in kept if line.points]
    if not marks and not any(not line.guide for line in kept):
        return ""
    points = [point for line in kept for point in line.points] + [mark.point for mark in marks]
    across, up = [px for px, _ in points], [py for _, py in points]
    named = [line for line in kept if line.name]
    legend = 40 + LETTER * max((len(line.name) for line in named), default=0)
    height = max(height, TOP + BOTTOM + LEGEND_LINE * len(named))
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
                f'<circle cx="{at_x(px)}" cy="{at_y(py)}" r="3.6" fill="{color}">{_told(line.name, (px, py))}</circle>'
                for px, py in line.points
            ]
        if line.name:
            row = TOP + 8 + LEGEND_LINE * named.index(line)
            parts.append(f'<line x1="{width}" x2="{width + 24}" y1="{row}" y2="{row}" {stroke}/>')
            parts.append(f'<text x="{width + 30}" y="{row + 4}">{escape(line.name)}</text>')
    parts += [mark.drawn(at_x(mark.point[0]), at_y(mark.point[1])) for mark in marks]
    total = round(width + legend) if named else width
    return (
        f'<svg role="img" aria-label="{escape(title, quote=True)}" viewBox="0 0 {total} {height}" '
        f'width="{total}" height="{height}" font-size="12.5" fill="#1d2733">{"".join(parts)}</svg>'
    )


def _drawable(points: Sequence[Point], x: Axis, y: Axis) -> list[Point]:
    return [(px, py) for px, py in points if (px > 0 or x.kind != "log") and (py > 0 or y.kind != "log")]


def _told(name: str, point: Point) -> str:
    """What a point says when it is pointed at."""
    return f"<title>{escape(f'{name}: ' if name else '')}{point[0]:.4g}, {point[1]:.4g}</title>"


def _axes(at_x: _Scale, at_y: _Scale, x: Axis, y: Axis, width: int, height: int) -> list[str]:
    bottom, right = height - BOTTOM, width - RIGHT
    parts = []
    for tick in at_x.ticks:
        parts.append(f'<line stroke="{GRID}" x1="{at_x(tick)}" x2="{at_x(tick)}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{at_x(tick)}" y="{bottom + 18}" text-anchor="middle">{_tick(tick)}</text>')
    for tick in at_y.ticks:
        parts.append(f'<line stroke="{GRID}" x1="{LEFT}" x2="{right}" y1="{at_y(tick)}" y2="{at_y(tick)}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at_y(tick) + 4}" text-anchor="end">{_tick(tick)}</text>')
    middle, side = (LEFT + right) / 2, (TOP + bottom) / 2
    parts.append(f'<text x="{middle}" y="{height - 10}" text-anchor="middle">{escape(x.label)}</text>')
    parts.append(
        f'<text x="16" y="{side}" text-anchor="middle" transform="rotate(-90 16 {side})">{escape(y.label)}</text>'
    )
    return parts


def _ticks(axis: Axis, low: float, high: float) -> tuple[float, ...]:
    if axis.kind == "log":
        return _powers(low, high)
    if axis.kind == "root":
        return _roots(high)
    return _steps(min(0.0, low), max(0.0, high)) if axis.from_zero else _steps(low, high)


def _powers(low: float, high: float) -> tuple[float, ...]:
    """The powers of ten from below the least value to above the largest."""
    return tuple(10.0**n for n in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1))


def _roots(high: float) -> tuple[float, ...]:
    """0 and those of 1, 2, 5, 10 ... up to the largest value whose roots stand apart; 0 to 1 when all is 0."""
    high = high if high > 0 else 1.0
    top = math.floor(math.log10(high))
    rounds = [factor * 10.0 ** (top - n) for n in range(4) for factor in (5, 2, 1)]
    kept: list[float] = []
    for value in rounds:
        if value <= high and all(math.sqrt(one) - math.sqrt(value) > APART * math.sqrt(high) for one in kept):
            kept.append(value)
    return (0.0, *(value for value in reversed(kept) if math.sqrt(value / high) > APART))


def _steps(low: float, high: float) -> tuple[float, ...]:
    """About five round steps that cover the values."""
    raw = (high - low or abs(high) or 1.0) / 5
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw)
    return tuple(step * n for n in range(math.floor(low / step), math.ceil(high / step) + 1))


def _tick(value: float) -> str:
    return f"{value:.3g}" if value == 0 or 1e-4 <= abs(value) < 1e5 else f"{value:.0e}"
