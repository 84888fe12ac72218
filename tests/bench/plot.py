"""A plot of what was measured: pure, from series to SVG.

It is written by hand: dots with whiskers against a line at 1 are forty lines of SVG, which a
charting library of this size (pygal) does not draw, and the one that does (matplotlib) is thirty
times the size of the daemon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree as ET

from .growth_panel import GrowthPanel
from .paper import (
    BARE,
    BLUE,
    BOLD,
    FAINT,
    GREY,
    LIGHT_BLUE,
    LINE,
    OURS,
    RIGHT,
    dot,
    line,
    number,
    text,
)
from .render import YARDSTICKS, heading
from .rounds import Series, Spread

_LABEL, _SCALE, _VALUE = 225, 220, 55
_WIDTH: Final = _LABEL + _SCALE + _VALUE
_GAP: Final = 24
_COLUMNS: Final = 2
_COLOURS: Final = {f"{OURS} ": BLUE, f"{BARE} ": LIGHT_BLUE, "xdp-xconnect": "#d9822b"}


@dataclass(frozen=True, slots=True)
class _Panel:
    """One series on paper; with a ``reference`` its rows are ratios."""

    title: str
    rows: dict[str, Spread]
    reference: float | None

    @classmethod
    def of(cls, series: Series) -> _Panel:
        """Against mirred if that was measured too, else as it is."""
        yardstick = YARDSTICKS[0]
        ratios = {name: series.ratio(name, yardstick) for name in series.values}
        rows = {name: ratio for name, ratio in ratios.items() if ratio}
        if not rows:
            absolute = {name: series.spread(name) for name in series.values}
            return cls(heading(series), absolute, None)
        way = "more" if series.more_is_better else "less"
        title = f"{series.title}, ratio to {yardstick} ({way} is better)"
        return cls(title, {name: row for name, row in rows.items() if name != yardstick}, 1.0)

    @property
    def top(self) -> float:
        """Where the scale ends. What lies beyond is cut, so that one outlier flattens nothing."""
        quartiles = max(row.high for row in self.rows.values())
        furthest = min(1.25 * quartiles, max(row.most for row in self.rows.values()))
        if self.reference:
            return max(1.25 * self.reference, min(furthest, 3 * self.reference))
        return furthest or 1.0

    @property
    def height(self) -> int:
        return LINE * (len(self.rows) + 1)

    def draw(self, at: ET.Element) -> None:
        text(at, 0, 12, self.title, BOLD)

        def scale(value: float) -> float:
            return _LABEL + _SCALE * min(max(value / self.top, 0), 1)

        others = GREY if self.reference else BLUE  # without contenders all rows are ours
        for value in (0.0, self.reference) if self.reference else (0.0,):
            line(at, (scale(value), scale(value)), (LINE, self.height), FAINT, 1)
        for position, (name, row) in enumerate(self.rows.items(), start=1):
            y = LINE * position + LINE / 2
            colour = next((_COLOURS[key] for key in _COLOURS if key in name), others)
            text(at, _LABEL - 8, y + 4, name, RIGHT)
            line(at, (scale(row.least), scale(row.most)), (y, y), colour, 1)
            line(at, (scale(row.low), scale(row.high)), (y, y), colour, 5)
            dot(at, scale(row.median), y, colour)
            text(at, _WIDTH, y + 4, number(row.median), RIGHT)


def plot(series: Sequence[Series]) -> str:
    """SVG: a dot for the median, a bar for the quartiles, a line for all; and how costs grow."""
    panels = [GrowthPanel.of(one) if one.sizes else _Panel.of(one) for one in series]
    heights = [0] * _COLUMNS
    root = ET.Element("svg", xmlns="http://www.w3.org/2000/svg")
    ET.SubElement(root, "rect", width="100%", height="100%", fill="white")
    for panel in panels:
        column = heights.index(min(heights))
        place = f"translate({_GAP + column * (_WIDTH + _GAP)} {_GAP + heights[column]})"
        panel.draw(ET.SubElement(root, "g", transform=place))
        heights[column] += panel.height + _GAP
    width, height = _COLUMNS * (_WIDTH + _GAP) + _GAP, max(heights) + _GAP
    root.attrib |= {"viewBox": f"0 0 {width} {height}", "font-family": "sans-serif"}
    root.attrib |= {"width": str(width), "height": str(height), "font-size": "12"}
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"
