"""A table and a plot of what was measured: pure, from series to text.

The plot is written by hand: dots with whiskers against a line at 1 are forty lines of SVG, which
a charting library of this size (pygal) does not draw, and the one that does (matplotlib) is
thirty times the size of the daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree as ET

from .results import Run
from .rounds import Series, Spread

YARDSTICKS: Final = ("mirred", "bridge")
_OURS: Final = "xconnectd "
_LIMIT: Final = "bare "

_READING: Final = """\
Every contender has its turn in every round, in shuffled order. A ratio is taken within a round; the
median of all rounds is shown, with its quartiles in brackets. Ratios travel to other machines,
absolute figures do not. `bare` is a redirect by a program of the same kind that does nothing else:
no counters, no egress drop; with `both hooks` it has a filter on the way out, too, that lets all
pass: what is below that is ours, what is above it the kernel's. Of a rewire it is the very requests
and map writes of xconnectd's own, played back to back by a loop that waits for the same save and
does nothing else (`with looks`: and the questions that xconnectd asks first)."""


# ---------------------------------------------------------------------- table


def table(run: Run) -> str:
    """A page of one run, in Markdown."""
    head = f"# Benchmark\n\nMade by `sudo make bench`: {'; '.join(run.facts)}.\n\n{_READING}\n"
    plotted = f"![the same as a plot]({run.name}.svg)\n"
    return "\n".join([head, plotted, *(_section(one, run) for one in run.series)])


def comparison(runs: Sequence[Run]) -> str:
    """A page with a column for each machine: what ratios there are, else medians."""
    pages = "".join(f"- [{each.name}]({each.name}.md): {'; '.join(each.facts)}\n" for each in runs)
    head = f"# Benchmarks side by side\n\nMade by `sudo make bench`, a run a machine.\n\n{pages}"
    titles = dict.fromkeys(one.title for run in runs for one in run.series)
    return "\n".join([head, *(_side_by_side(title, runs) for title in titles)])


def _side_by_side(title: str, runs: Sequence[Run]) -> str:
    found = {run.name: one for run in runs for one in run.series if one.title == title}
    first = next(iter(found.values()))
    against = YARDSTICKS[0] if YARDSTICKS[0] in first.values else ""
    rows = dict.fromkeys(name for one in found.values() for name in one.values if name != against)
    ratio = f", ratio to {against}" if against else f", {first.unit}"
    lines = [["", *found], ["---", *["---:"] * len(found)]]
    lines += [[name, *(_cell(one, name, against) for one in found.values())] for name in rows]
    body = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    way = " (more is better)" if first.more_is_better else ""
    return f"## {title}{ratio}{way}\n\n{body}"


def _cell(series: Series, name: str, against: str) -> str:
    if against:
        return _ratio(series.ratio(name, against))
    if name not in series.values:
        return ""
    spread = series.spread(name)
    return f"{number(spread.median)} ({_range(spread.low, spread.high)})"


_Column = Callable[[str], str]


def _section(series: Series, run: Run) -> str:
    columns = dict(_columns(series))
    rows = [[name, *(cell(name) for cell in columns.values())] for name in series.values]
    lines = [["", *columns], ["---", *["---:"] * len(columns)], *rows]
    body = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    other = f"Of another run: {run.parts[series.title]}.\n\n" if series.title in run.parts else ""
    return f"## {_heading(series)}\n\n{other}{body}"


def _heading(series: Series) -> str:
    return f"{series.title}, {series.unit}{' (more is better)' if series.more_is_better else ''}"


def _columns(series: Series) -> Iterator[tuple[str, _Column]]:
    yield "median", lambda name: number(series.spread(name).median)
    yield "quartiles", lambda name: _range(series.spread(name).low, series.spread(name).high)
    yield "all", lambda name: _range(series.spread(name).least, series.spread(name).most)
    for other in YARDSTICKS:
        if other in series.values:
            yield f"to {other}", lambda name, other=other: _ratio(series.ratio(name, other))  # type: ignore[misc]
    if any(series.ratio(name, _limit(name)) for name in series.values):
        yield "to bare", lambda name: _ratio(series.ratio(name, _limit(name)), digits=3)


def _limit(name: str) -> str:
    """The bare redirect that a wire is measured by; empty for another's."""
    limit = name.partition(", ")[0].replace(_OURS, _LIMIT)
    return limit if limit != name else ""


def _range(low: float, high: float) -> str:
    return f"{number(low)} to {number(high)}"


def _ratio(ratio: Spread | None, digits: int = 2) -> str:
    if ratio is None:
        return ""
    median, low, high = (
        f"{value:.{digits}f}" if value < 10 else number(value)
        for value in (ratio.median, ratio.low, ratio.high)
    )
    return f"{median} ({low} to {high})"


def number(value: float) -> str:
    """Three digits that say something, and never an exponent."""
    for bound, digits in ((0.00005, 0), (0.1, 4), (1, 3), (10, 2), (100, 1)):
        if abs(value) < bound:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"


# ---------------------------------------------------------------------- plot

_LABEL, _SCALE, _VALUE = 225, 220, 55
_WIDTH: Final = _LABEL + _SCALE + _VALUE
_LINE: Final = 18
_GAP: Final = 24
_COLUMNS: Final = 2
_BLUE: Final = "#1f6feb"
_GREY: Final = "#6e7781"
_COLOURS: Final = {_OURS: _BLUE, _LIMIT: "#79b8ff", "xdp-xconnect": "#d9822b"}
_INK: Final = "#24292f"
_RIGHT: Final = {"text-anchor": "end"}


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
            return cls(_heading(series), absolute, None)
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
        return _LINE * (len(self.rows) + 1) + _GAP


def plot(series: Sequence[Series]) -> str:
    """SVG: a dot for the median, a bar for the quartiles, a line for all."""
    panels = [_Panel.of(one) for one in series]
    heights = [0] * _COLUMNS
    root = ET.Element("svg", xmlns="http://www.w3.org/2000/svg")
    ET.SubElement(root, "rect", width="100%", height="100%", fill="white")
    for panel in panels:
        column = heights.index(min(heights))
        place = f"translate({_GAP + column * (_WIDTH + _GAP)} {_GAP + heights[column]})"
        _draw(panel, ET.SubElement(root, "g", transform=place))
        heights[column] += panel.height
    width, height = _COLUMNS * (_WIDTH + _GAP) + _GAP, max(heights) + _GAP
    root.attrib |= {"viewBox": f"0 0 {width} {height}", "font-family": "sans-serif"}
    root.attrib |= {"width": str(width), "height": str(height), "font-size": "12"}
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _draw(panel: _Panel, at: ET.Element) -> None:
    _text(at, 0, 12, panel.title, {"font-weight": "bold"})

    def scale(value: float) -> float:
        return _LABEL + _SCALE * min(max(value / panel.top, 0), 1)

    bottom = panel.height - _GAP
    others = _GREY if panel.reference else _BLUE  # without contenders all rows are ours
    for value in (0.0, panel.reference) if panel.reference else (0.0,):
        _line(at, (scale(value), scale(value)), (_LINE, bottom), "#d0d7de", 1)
    for position, (name, row) in enumerate(panel.rows.items(), start=1):
        y = _LINE * position + _LINE / 2
        colour = next((_COLOURS[key] for key in _COLOURS if key in name), others)
        _text(at, _LABEL - 8, y + 4, name, _RIGHT)
        _line(at, (scale(row.least), scale(row.most)), (y, y), colour, 1)
        _line(at, (scale(row.low), scale(row.high)), (y, y), colour, 5)
        x = f"{scale(row.median):.1f}"
        ET.SubElement(at, "circle", cx=x, cy=f"{y:.1f}", r="4", fill=colour)
        _text(at, _WIDTH, y + 4, number(row.median), _RIGHT)


def _text(at: ET.Element, x: float, y: float, words: str, style: dict[str, str]) -> None:
    place = {"x": f"{x:g}", "y": f"{y:g}", "fill": _INK}
    ET.SubElement(at, "text", place | style).text = words


def _line(
    at: ET.Element, x: tuple[float, float], y: tuple[float, float], colour: str, width: int
) -> None:
    ends = {"x1": x[0], "x2": x[1], "y1": y[0], "y2": y[1]}
    place = {name: f"{value:.1f}" for name, value in ends.items()}
    ET.SubElement(at, "line", place | {"stroke": colour, "stroke-width": str(width)})
