"""The statistics of the benchmark, and what becomes of them on paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.bench import plot as plots
from tests.bench.growth_panel import GrowthPanel
from tests.bench.paper import number
from tests.bench.plot import plot
from tests.bench.render import comparison, table
from tests.bench.results import Run, kept
from tests.bench.rounds import Series, Spread, among, curves, exponent, interleave, orders

SVG = "{http://www.w3.org/2000/svg}"
# A machine that is half as fast in every other round: the wires keep their ratios all the same.
SPEEDS = Series(
    "Bulk TCP",
    "Gbit/s",
    {"xconnectd tc": [9.0, 4.5, 9.0, 4.5], "bare tc": [10.0, 5.0, 10.0, 5.0],
     "bare tc, more": [9.9, 4.95, 9.9, 4.95],
     "bridge": [6.0, 3.0, 6.0, 3.0], "mirred": [10.0, 5.0, 10.0, 5.0]},
    more_is_better=True,
)  # fmt: skip
STARTS = Series("Start", "ms", {"2 links": [200.0, 210.0, 900.0], "1,000 links": [1234.5]})

# A process that starts in 0.2 s, and then twice n^1.5; the kernel's part is linear.
GROWTH = Series(
    "Growth: up",
    "s",
    {among("xconnectd", 2): [0.21, 0.19], among("bare", 2): [0.01, 0.01],
     among("xconnectd", 100): [1.0], among("bare", 100): [0.5],
     among("xconnectd", 10_000): [1000.0], among("bare", 10_000): [50.0]},
    sizes=(2, 100, 10_000),
    cause="find_it is a list",
)  # fmt: skip

RUN = Run.of(["xconnectd 1", "2 CPUs, Fast(R) One", "Linux 6.18.44 x86_64", "9 rounds"])


def test_values_of_a_round_stay_together_whatever_the_order() -> None:
    """Every name has its turn in every round and no fixed place."""
    names = list("abcde")
    found = list(orders(names, 50))
    assert all(sorted(order) == names for order in found)
    assert {order[0] for order in found} == set(names)
    assert found == list(orders(names, 50))
    assert found != list(orders(names, 50, seed=2))

    def sample(name: str, number: int) -> Mapping[str, float]:
        return {"speed": ord(name) + number, **({"extra": 1.0} if name == "b" else {})}

    figures = interleave(["a", "b"], 3, sample)
    assert figures["speed"] == {"a": [97, 98, 99], "b": [98, 99, 100]}
    assert figures["extra"] == {"b": [1, 1, 1]}, "a name without a figure is left out of it"


def test_a_spread_and_numbers_of_three_digits() -> None:
    assert Spread.of([5.0]) == Spread(5, 5, 5, 5, 5, 1)
    assert Spread.of([3.0, 1.0]) == Spread(2, 1.5, 2.5, 1, 3, 2)
    assert Spread.of([9.0, 1.0, 2.0, 4.0, 3.0]) == Spread(3, 2, 4, 1, 9, 5)
    texts = {0: "0", 0.04567: "0.0457", 0.5: "0.500", 1.234: "1.23", 54.3: "54.3", 1e4: "10,000"}
    assert {value: number(value) for value in texts} == texts


def test_a_ratio_is_the_median_of_ratios_and_not_the_ratio_of_medians() -> None:
    series = Series("", "", {"ours": [1.0, 20.0, 30.0], "theirs": [2.0, 10.0, 60.0]})
    assert series.ratio("ours", "theirs") == Spread(0.5, 0.5, 1.25, 0.5, 2.0, 3)
    assert SPEEDS.ratio("xconnectd tc", "mirred") == Spread(0.9, 0.9, 0.9, 0.9, 0.9, 4)
    assert SPEEDS.ratio("xconnectd tc", "absent") is None
    dead = Series("", "", {"a": [1.0], "b": [0.0]}).ratio("a", "b")
    assert dead is not None
    assert dead.median == math.inf
    assert Series("", "", {"a": [0.0], "b": [0.0]}).ratio("a", "b") is None


def test_a_cost_grows_by_a_power_of_the_links_between_the_largest_sizes() -> None:
    found = curves(GROWTH)
    assert found["xconnectd"] == {2: 0.2, 100: 1.0, 10_000: 1000.0}
    assert exponent(found["xconnectd"]) == pytest.approx(1.5)
    assert exponent(found["bare"]) == pytest.approx(1.0)
    assert exponent({2: 1.0}) is None
    assert exponent({2: 1.0, 200: 0.0}) is None, "frames that are not lost"
    assert curves(STARTS) == {}


def test_the_table_shows_growth_beside_the_kernels_and_what_is_worse_than_linear() -> None:
    text = table(RUN.with_series([GROWTH], RUN.facts))
    lines = text[text.index("## Growth: up, s") :].splitlines()
    assert lines[2] == "|  | 2 links | 100 links | 10,000 links | grows by |"
    ours = "0.200 (0.195 to 0.205) | 1.00 (1.00 to 1.00) | 1,000 (1,000 to 1,000)"
    assert lines[4] == f"| xconnectd | {ours} | n^1.50 |"
    assert lines[5].endswith("| 50.0 (50.0 to 50.0) | n^1.00 |")
    assert lines[6].startswith("| ratio | 20.0 (19.5 to 20.5) | 2.00 (2.00 to 2.00) | 20.0 (")
    assert lines[-1] == "Worse than linear: xconnectd; find_it is a list."
    unknown = table(RUN.with_series([replace(GROWTH, cause="")], RUN.facts))
    assert "Worse than linear: xconnectd; it is not known why." in unknown


def test_growth_is_a_line_where_both_scales_are_logarithmic() -> None:
    """And what costs nothing has no place there."""
    lost = Series("Growth: lost", "frames", {among("xconnectd", 2): [0.0]}, sizes=(2,))
    root = ET.fromstring(plot([GROWTH, lost, STARTS]))
    words = [one.text for one in root.iter(f"{SVG}text")]
    assert {"xconnectd 1,000, n^1.50", "bare 50.0, n^1.00", "Growth: lost, frames: 0"} <= {*words}
    rising = [each for each in root.iter(f"{SVG}line") if each.attrib["stroke-width"] == "2"]
    (flat, ours), (_, bare) = (_slopes(rising, colour) for colour in ("#1f6feb", "#79b8ff"))
    assert round(ours / bare, 2) == 1.5
    assert flat < ours
    for each in rising:
        assert (
            0 < float(each.attrib["y2"]) < float(each.attrib["y1"]) < GrowthPanel.of(GROWTH).height
        )


def _slopes(lines: Sequence[ET.Element], colour: str) -> list[float]:
    """Upwards, of a curve's pieces."""
    ends = [
        [float(each.attrib[name]) for name in ("x1", "x2", "y1", "y2")]
        for each in lines
        if each.attrib["stroke"] == colour
    ]
    return [(y1 - y2) / (x2 - x1) for x1, x2, y1, y2 in ends]


def test_the_table_compares_each_wire_with_its_yardsticks() -> None:
    """And a hopeless one leaves it legible."""
    text = table(RUN.with_series([SPEEDS, STARTS], RUN.facts))
    assert "2 CPUs, Fast(R) One; Linux 6.18.44 x86_64" in text
    assert "(2-cpus-fast-one-linux-6.18.44.svg)" in text
    assert "## Bulk TCP, Gbit/s (more is better)" in text
    rows = {line.split(" | ")[0].lstrip("| "): line for line in text.splitlines()}
    ours = "| xconnectd tc | 6.75 | 4.50 to 9.00 | 4.50 to 9.00 |"
    quartiles = "0.90 (0.90 to 0.90) | 1.50 (1.50 to 1.50) | 0.900 (0.900 to 0.900) |"
    assert rows["xconnectd tc"] == f"{ours} {quartiles}"
    assert rows["bare tc, more"].endswith(" | 0.990 (0.990 to 0.990) |")
    assert rows["bare tc"].endswith(" |  |"), "the limit has none"
    assert rows["mirred"].endswith("| 1.00 (1.00 to 1.00) | 1.67 (1.67 to 1.67) |  |")
    assert rows["2 links"] == "| 2 links | 210 | 205 to 555 | 200 to 900 |"
    assert rows["1,000 links"].startswith("| 1,000 links | 1,234 |")
    rewires = Series("Rewire", "ms", {"xconnectd 2, up": [3.0], "bare 2, up": [1.5]})
    assert "| 2.000 (2.000 to 2.000) |" in table(RUN.with_series([rewires], RUN.facts))
    cost = Series("Cost", "s", {"peer": [15_000.0], "mirred": [0.1]})
    wide = table(RUN.with_series([cost], RUN.facts))
    assert "| peer | 15,000 | 15,000 to 15,000 | 15,000 to 15,000 | 150,000 (" in wide


def test_the_plot_shows_ratios_where_there_is_a_yardstick() -> None:
    """And draws nothing beside its scale."""
    root = ET.fromstring(plot([SPEEDS, STARTS]))
    words = [one.text for one in root.iter(f"{SVG}text")]
    assert "Bulk TCP, ratio to mirred (more is better)" in words
    assert "Start, ms" in words
    assert "mirred" not in words, "its ratio to itself says nothing"
    assert words[words.index("xconnectd tc") + 1] == "0.900"
    assert words[words.index("2 links") + 1] == "210"
    assert len(list(root.iter(f"{SVG}circle"))) == 4 + 2
    wild = Series("Wild", "ms", {"a": [1.0, 1.0, 1.0, 1e6], "b": [-1.0, 0.0, 0.0, 0.0]})
    lines = list(ET.fromstring(plot([wild, SPEEDS])).iter(f"{SVG}line"))
    assert lines
    for line in lines:
        left, right = float(line.attrib["x1"]), float(line.attrib["x2"])
        assert plots._LABEL <= left <= right <= plots._LABEL + plots._SCALE


def test_a_run_is_kept_whole_and_a_part_of_it_is_replaced(tmp_path: Path) -> None:
    first, again = (Series("Start", "ms", {"2 links": [value]}) for value in (100.0, 120.0))
    run = RUN.with_series([first, SPEEDS, GROWTH], RUN.facts)
    run.write(tmp_path)
    assert kept(tmp_path) == [run]
    changed = run.with_series([again], ["xconnectd 2"])
    assert changed.series == (again, SPEEDS, GROWTH)
    assert "Of another run: xconnectd 2." in table(changed)
    assert changed.with_series([first], RUN.facts) == run


def test_machines_stand_side_by_side() -> None:
    """By their ratios where there is a yardstick; one that lacks a series has no column there."""
    slow = Run.of(["xconnectd 1", "8 CPUs", "Linux 5.10"]).with_series([SPEEDS], ())
    text = comparison([RUN.with_series([SPEEDS, STARTS], RUN.facts), slow])
    assert "[8-cpus-linux-5.10](8-cpus-linux-5.10.md): xconnectd 1; 8 CPUs; Linux 5.10" in text
    speeds, starts = text.split("\n## ")[1:]
    assert speeds.startswith("Bulk TCP, ratio to mirred (more is better)")
    ratio = "0.90 (0.90 to 0.90)"
    assert f"| xconnectd tc | {ratio} | {ratio} |" in speeds
    assert "| 2 links | 210 (205 to 555) |" in starts
