"""A table of what was measured: pure, from series to text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from .paper import BARE, OURS, number
from .results import Run
from .rounds import Series, Spread, among, curves, exponent

YARDSTICKS: Final = ("mirred", "bridge")
_OURS: Final = f"{OURS} "
_LIMIT: Final = f"{BARE} "

_LINEAR: Final = 1.1
"""An exponent up to which a cost grows like the links: one run differs from the next by a fifth."""

_MAKING: Final = """\
Made by `sudo make bench`, a run a machine. `python -m tests.bench --only NAME --output docs/bench`
measures one part anew and leaves the others as they are; `growth` takes some ten minutes of an idle
machine. Two checkouts are compared by `python -m tests.bench.beside OTHER`: both have their turn
with the same interfaces."""

_READING: Final = """\
Every contender has its turn in every round, in shuffled order. A ratio is taken within a round; the
median of all rounds is shown, with its quartiles in brackets. Ratios travel to other machines,
absolute figures do not. `bare` is a redirect by a program of the same kind that does nothing else:
no counters, no egress drop; with `both hooks` it has a filter on the way out, too, that lets all
pass: what is below that is ours, what is above it the kernel's. Of a rewire it is the very requests
and map writes of xconnectd's own, played back to back by a loop that waits for the same save and
does nothing else (`with looks`: and the questions that xconnectd asks first).

`Growth:` says what becomes of a cost as the number of links grows. `n^x` is how it grows between
the two largest sizes: with few links a cost is that of a process which starts. On a plot both
scales are logarithmic, so such a cost is a straight line. `bare` is what the kernel itself takes
for the same ends: a loop that puts clsact, two filters, a generic XDP program and an entry on each,
many in one send, and nothing else; for `adopted`, the questions what is there, asked once and not
read; for `down`, all of that taken off; for `status`, all links, their counters and entries read
once; for a rewire, the same on one end and off another, of a link beside the daemon's: the two take
turns, as what it costs depends on all that was made before. What is above it is ours. Walls are of
an idle machine, or they are no figures; processor time may be compared all the same. Memory is of
the daemon alone."""


def table(run: Run) -> str:
    """A page of one run, in Markdown."""
    head = f"# Benchmark\n\nMade by `sudo make bench`: {'; '.join(run.facts)}.\n\n{_READING}\n"
    plotted = f"![the same as a plot]({run.name}.svg)\n"
    return "\n".join([head, plotted, *(_section(one, run) for one in run.series)])


def comparison(runs: Sequence[Run]) -> str:
    """A page with a column for each machine: what ratios there are, else medians."""
    pages = "".join(f"- [{each.name}]({each.name}.md): {'; '.join(each.facts)}\n" for each in runs)
    made = f"# Benchmarks side by side\n\n{_MAKING}\n\n{pages}"
    titles = dict.fromkeys(one.title for run in runs for one in run.series)
    return "\n".join([made, f"{_READING}\n", *(_side_by_side(title, runs) for title in titles)])


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
    lines = _growth_lines(series) if series.sizes else _lines(series)
    body = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    other = f"Of another run: {run.parts[series.title]}.\n\n" if series.title in run.parts else ""
    return f"## {heading(series)}\n\n{other}{body}{_worse_than_linear(series)}"


def _lines(series: Series) -> list[list[str]]:
    columns = dict(_columns(series))
    rows = [[name, *(cell(name) for cell in columns.values())] for name in series.values]
    return [["", *columns], ["---", *["---:"] * len(columns)], *rows]


def _growth_lines(series: Series) -> list[list[str]]:
    """A column for each number of links, and one for how the cost grows."""
    sizes = series.sizes
    found = curves(series)
    head = ["", *(f"{links:,} links" for links in sizes), "grows by"]
    rows = []
    for name, curve in found.items():
        cells = (_cell(series, among(name, links), "") for links in sizes)
        grows = exponent(curve)
        rows.append([name, *cells, "" if grows is None else f"n^{grows:.2f}"])
    if {OURS, BARE} <= found.keys():
        names = ((among(OURS, links), among(BARE, links)) for links in sizes)
        rows.append(["ratio", *(_ratio(series.ratio(*pair)) for pair in names), ""])
    return [head, ["---", *["---:"] * (len(sizes) + 1)], *rows]


def _worse_than_linear(series: Series) -> str:
    """What grows faster than the links between the two largest sizes, and why."""
    found = {name: exponent(curve) for name, curve in curves(series).items()}
    worse = [name for name, grows in found.items() if grows and grows > _LINEAR]
    if not worse:
        return ""
    return f"\nWorse than linear: {', '.join(worse)}; {series.cause or 'it is not known why'}.\n"


def heading(series: Series) -> str:
    return f"{series.title}, {series.unit}{' (more is better)' if series.more_is_better else ''}"


def _columns(series: Series) -> Iterator[tuple[str, _Column]]:
    yield "median", lambda name: number(series.spread(name).median)
    yield "quartiles", lambda name: _range(series.spread(name).low, series.spread(name).high)
    yield "all", lambda name: _range(series.spread(name).least, series.spread(name).most)
    for other in YARDSTICKS:
        if other in series.values:
            yield f"to {other}", lambda name, other=other: _ratio(series.ratio(name, other))  # type: ignore[misc]
    if any(series.ratio(name, _limit(name, series)) for name in series.values):
        yield "to bare", lambda name: _ratio(series.ratio(name, _limit(name, series)), digits=3)


def _limit(name: str, series: Series) -> str:
    """What it is measured by: the bare one with the same words behind it, or with none."""
    same = name.replace(_OURS, _LIMIT)
    limit = same if same in series.values and same != name else same.partition(", ")[0]
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
