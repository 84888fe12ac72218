"""Rounds, pairs and what is said of them: pure, so that it is tested without a kernel.

A machine that others use is faster in one minute than in the next. So every contender has its
turn in every round, in an order that no contender owes its place to, and two of them are compared
round by round: the median of the ratios, and never the ratio of the medians.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

SEED: Final = 1


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured. Times are in seconds."""

    rounds: int = 11
    bulk: int = 2
    """One TCP run."""
    flood: float = 0.3
    """One run of small frames. There are ``floods`` rounds of them: short neighbours are alike."""
    pings: int = 2000
    rewires: int = 25
    sizes: tuple[int, ...] = (2, 200, 2000)
    """Numbers of links between which rewiring is measured."""
    grown: tuple[int, ...] = (2, 200, 2000, 10_000)
    """Numbers of links between which it is seen how costs grow."""
    lives: int = 5
    """So often few links are started; the most of ``grown`` once."""
    settled: float = 20.0
    """From ``ready`` to the beginning of an idle window that is as long."""
    changes: int = 100
    """Of a carrier, each way, in a round."""
    storm: float = 3.0
    """One run of an end that flaps all the time."""
    starts: int = 9
    crowd: int = 1000
    """The larger number of links that are started and left idle; the smaller is 2."""
    idle: float = 24.0

    @property
    def floods(self) -> int:
        return 3 * self.rounds


QUICK: Final = Effort(
    rounds=2,
    bulk=1,
    flood=0.2,
    pings=200,
    rewires=3,
    sizes=(2, 20),
    grown=(2, 20),
    lives=2,
    settled=3.0,
    changes=20,
    storm=1.0,
    starts=2,
    crowd=50,
    idle=3.0,
)


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some values, and how far they lie around it."""

    median: float
    low: float
    """The first quartile; ``high`` is the third."""
    high: float
    least: float
    most: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Quartiles are taken inclusively: of three values they lie half-way to the outer ones."""
        ordered = sorted(values)
        low, median, high = _quartiles(ordered)
        return cls(median, low, high, ordered[0], ordered[-1], len(ordered))


def _quartiles(ordered: Sequence[float]) -> tuple[float, float, float]:
    if len(ordered) == 1:
        return ordered[0], ordered[0], ordered[0]
    low, median, high = statistics.quantiles(ordered, n=4, method="inclusive")
    return low, median, high


@dataclass(frozen=True, slots=True)
class Series:
    """What was measured of each name; the n-th values of all names are of one round."""

    title: str
    unit: str
    values: Mapping[str, Sequence[float]]
    more_is_better: bool = False
    sizes: tuple[int, ...] = ()
    """Numbers of links, if it is about how a cost grows; the names are those of ``among`` then."""
    cause: str = ""
    """Why it grows faster than the links, where that is known."""

    def spread(self, name: str) -> Spread:
        return Spread.of(self.values[name])

    def ratio(self, name: str, yardstick: str) -> Spread | None:
        """Of the ratios in each round; None if one of the two was not measured, or both are 0."""
        ours, theirs = self.values.get(name, ()), self.values.get(yardstick, ())
        if not (ours and theirs and any((*ours, *theirs))):
            return None
        pairs = zip(ours, theirs, strict=True)
        return Spread.of([one / other if other else math.inf for one, other in pairs])


def among(contender: str, links: int) -> str:
    """The name of what was measured of a contender with so many links."""
    return f"{contender} {links:,} links"


def curves(series: Series) -> dict[str, dict[int, float]]:
    """Of each contender the median for each number of links."""
    found: dict[str, dict[int, float]] = {}
    for links in series.sizes:
        for name in series.values:
            contender = name.removesuffix(among("", links))
            if contender != name:
                found.setdefault(contender, {})[links] = series.spread(name).median
    return found


def exponent(curve: Mapping[int, float]) -> float | None:
    """x, if the cost grows by n^x between the two largest sizes; None where that says nothing.

    With few links a cost is that of a process which starts, whatever their number.
    """
    largest = sorted(curve.items())[-2:]
    if len(largest) < 2 or any(cost <= 0 for _, cost in largest):
        return None
    (few, before), (many, after) = largest
    return math.log(after / before) / math.log(many / few)


def orders(names: Sequence[str], rounds: int, seed: int = SEED) -> Iterator[list[str]]:
    """For each round all names, shuffled; the same seed gives the same orders."""
    shuffle = random.Random(seed)
    for _ in range(rounds):
        yield shuffle.sample(names, len(names))


Sample = Callable[[str, int], Mapping[str, float]]
"""Measures a name in a round (they count from 0) and returns one or more figures."""


def interleave(
    names: Sequence[str], rounds: int, sample: Sample, seed: int = SEED
) -> dict[str, dict[str, list[float]]]:
    """Every name once in every round: for each figure the values of the names that have it."""
    figures: dict[str, dict[str, list[float]]] = {}
    for number, order in enumerate(orders(names, rounds, seed)):
        for name in order:
            for figure, value in sample(name, number).items():
                by_name = figures.setdefault(figure, {name: [] for name in names})
                by_name[name].append(value)
    return {
        figure: {name: values for name, values in by_name.items() if values}
        for figure, by_name in figures.items()
    }
