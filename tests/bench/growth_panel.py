"""How a cost grows, on paper: both scales are logarithmic, so a cost that is n^x is a line."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self
from xml.etree import ElementTree as ET

from .paper import (
    BARE,
    BLUE,
    BOLD,
    FAINT,
    LIGHT_BLUE,
    LINE,
    OURS,
    RIGHT,
    dot,
    line,
    number,
    text,
)
from .rounds import Series, curves, exponent

_LEFT, _RIGHT, _TOP, _BOTTOM = 55, 275, LINE + 8, 168
"""Of the plot within the panel, in pixels; what the curves are is beside it."""
_COLOURS: Final = {OURS: BLUE, BARE: LIGHT_BLUE}
_OTHERS: Final = (BLUE, "#d9822b", "#8250df", "#1a7f37", "#bf3989")


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where a value is, in pixels."""

    least: float
    most: float
    begin: float
    end: float

    @classmethod
    def of(cls, values: Iterable[float], begin: float, end: float) -> Self:
        """Of whole powers of ten."""
        logarithms = [math.log10(value) for value in values]
        least = math.floor(min(logarithms))
        return cls(least, max(math.ceil(max(logarithms)), least + 1), begin, end)

    def at(self, value: float) -> float:
        share = (math.log10(value) - self.least) / (self.most - self.least)
        return self.begin + share * (self.end - self.begin)

    def powers(self) -> list[float]:
        return [10.0**power for power in range(int(self.least), int(self.most) + 1)]


@dataclass(frozen=True, slots=True)
class GrowthPanel:
    """One series; a cost of 0 has no place among logarithms."""

    title: str
    curves: dict[str, dict[int, float]]

    @classmethod
    def of(cls, series: Series) -> Self:
        above = {
            name: {links: cost for links, cost in sorted(curve.items()) if cost > 0}
            for name, curve in curves(series).items()
        }
        shown = {name: curve for name, curve in above.items() if curve}
        return cls(f"{series.title}, {series.unit}{'' if shown else ': 0'}", shown)

    @property
    def height(self) -> int:
        return _BOTTOM + 2 * LINE if self.curves else 2 * LINE

    def draw(self, at: ET.Element) -> None:
        text(at, 0, 12, self.title, BOLD)
        if not self.curves:
            return
        sizes = {links for curve in self.curves.values() for links in curve}
        costs = [cost for curve in self.curves.values() for cost in curve.values()]
        across, up = _Scale.of(sizes, _LEFT, _RIGHT), _Scale.of(costs, _BOTTOM, _TOP)
        for power in up.powers():
            line(at, (_LEFT, _RIGHT), (up.at(power), up.at(power)), FAINT, 1)
            text(at, _LEFT - 6, up.at(power) + 4, f"{power:g}", RIGHT)
        for links in sizes:
            line(at, (across.at(links), across.at(links)), (_TOP, _BOTTOM), FAINT, 1)
            place = {"text-anchor": "middle"}
            text(at, across.at(links), _BOTTOM + LINE - 3, f"{links:,}", place)
        colours = iter(_OTHERS)
        largest_first = sorted(
            self.curves, key=lambda name: -self.curves[name][max(self.curves[name])]
        )
        for row, name in enumerate(largest_first):
            colour = _COLOURS.get(name) or next(colours)
            self._curve(at, name, across, up, colour)
            y = _TOP + LINE * row + LINE / 2
            dot(at, _RIGHT + 14, y, colour)
            text(at, _RIGHT + 24, y + 4, self._words(name), {})

    def _curve(self, at: ET.Element, name: str, across: _Scale, up: _Scale, colour: str) -> None:
        points = [(across.at(links), up.at(cost)) for links, cost in self.curves[name].items()]
        for x, y in points:
            dot(at, x, y, colour)
        for (x, y), (to_x, to_y) in pairwise(points):
            line(at, (x, to_x), (y, to_y), colour, 2)

    def _words(self, name: str) -> str:
        """With the largest size's cost."""
        curve = self.curves[name]
        grows = exponent(curve)
        return f"{name} {number([*curve.values()][-1])}" + (
            "" if grows is None else f", n^{grows:.2f}"
        )
