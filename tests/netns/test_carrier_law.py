"""The law of the carrier after a thousand random flips, against what can be read without a daemon.

``shows = enabled and the partner exists and nobody else has set the partner down and the partner
offers``: whatever has happened before, in whatever order, and also to a daemon that was killed.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product
from typing import Final

from .carrier import Container
from .lab import Lab
from .service import Daemon

SEEDS: Final = 20
FLIPS: Final = 50
PATIENCE: Final = 2.0
"""Seconds until the law must hold; half of the times it is to take a twentieth of that."""
REST: Final = 0.02
"""Seconds for which it must hold then."""


class Hand(StrEnum):
    """What somebody has done to an end of ours last, if that still counts."""

    NONE = "none"
    DOWN = "down"
    UP = "up"


@dataclass
class Wire:
    """A link of the file, and every history that would explain what is seen of it.

    Two things done at once have no order: then whoever sets an end down cannot know whether it
    was up. What was done alone has one explanation.
    """

    ends: tuple[Container, ...]
    enabled: bool = True
    hands: set[tuple[Hand, ...]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.hands = {(Hand.NONE,) * len(self.ends)}

    def __str__(self) -> str:
        a, b = self.ends[0].end, self.ends[-1].end
        return f"  {a}: {{to: {b}, enabled: {json.dumps(self.enabled)}}}\n"

    def law(self, hands: tuple[Hand, ...]) -> list[bool]:
        """Which ends show a carrier. The partner of the only end of a loopback is itself."""
        if len(self.ends) == 1:
            return [self.enabled]
        ways = zip(reversed(self.ends), reversed(hands), strict=True)
        return [self.enabled and hand is not Hand.DOWN and end.far.up for end, hand in ways]

    def touch(self, number: int, up: bool, alone: bool) -> None:
        """Somebody sets an end of ours up or down."""
        was = self.ends[number].host.up
        self.ends[number].host.set(up=up)
        self.hands = {
            (*hands[:number], new, *hands[number + 1 :])
            for hands in self.hands
            for new in _after(hands[number], was, up, alone)
        }

    def forget(self) -> None:
        """The law may have said "shown" for a moment: that ends what somebody has set up."""
        self.hands = {
            each
            for hands in self.hands
            for each in product(*({x, Hand.NONE} if x is Hand.UP else {x} for x in hands))
        }

    def explained(self) -> set[tuple[Hand, ...]]:
        """The histories by which the ends are as they are; none if the law is broken."""
        seen = [end.host.up for end in self.ends]
        found = set()
        for hands in self.hands:
            law = self.law(hands)
            wanted = {Hand.NONE: law, Hand.DOWN: [False, False], Hand.UP: [True, True]}
            if [wanted[hand][n] for n, hand in enumerate(hands)] == seen:
                past = (hand is Hand.UP and shown for hand, shown in zip(hands, law, strict=True))
                found.add(tuple(Hand.NONE if x else y for x, y in zip(past, hands, strict=True)))
        return found


def _after(hand: Hand, was: bool, up: bool, alone: bool) -> set[Hand]:
    if not alone:
        return {hand, Hand.NONE, Hand.UP if up else Hand.DOWN}
    if was == up:
        return {hand}  # the kernel tells nobody
    if up:
        return {Hand.NONE} if hand is Hand.DOWN else {Hand.UP}  # he gives back what he took
    return {Hand.NONE, Hand.DOWN} if hand is Hand.UP else {Hand.DOWN}


@dataclass
class Flips:
    """Random changes of some wires; what they are depends on the seed alone."""

    wires: list[Wire]
    running: Daemon
    random: random.Random
    took: list[float]
    count: int = 0
    story: list[str] = field(default_factory=list)

    def burst(self) -> None:
        """One thing, or several without a pause."""
        number = self.random.choice((1, 1, 1, 2, 3, 6))
        for n in range(number):
            self._flip(alone=n == 0)
        self._rest(number)

    def crash(self) -> None:
        """The daemon is killed, maybe at work; the world goes on, and it is started."""
        at_work, later = self.random.choice((0, 2, 4)), self.random.randrange(4)
        for n in range(at_work):
            self._flip(alone=n == 0)
        time.sleep(self.random.random() * 0.005)
        self.running.kill()
        self.story.append(f"crash after {at_work}, then {later}:")
        for _ in range(later):
            self._flip(alone=not at_work)
        self.running.start()
        self._rest(at_work + later)

    def _flip(self, alone: bool) -> None:
        self.count += 1
        kinds: list[Callable[[bool], str]] = [self._far, self._operator, self._plug]
        self.story.append(self.random.choices(kinds, (5, 2, 2))[0](alone))

    def _far(self, _: bool) -> str:
        end = self.random.choice(self.random.choice(self.wires).ends)
        end.far.set(up=not end.far.up)
        return f"eth0 behind {end.end} {'up' if end.far.up else 'down'}"

    def _operator(self, alone: bool) -> str:
        wire = self.random.choice(self.wires)
        number = self.random.randrange(len(wire.ends))
        up = self.random.random() < 0.5
        wire.touch(number, up, alone)
        return f"{wire.ends[number].end} set {'up' if up else 'down'}"

    def _plug(self, _: bool) -> str:
        wire = self.random.choice(self.wires)
        wire.enabled = not wire.enabled
        self.running.write("links:\n" + "".join(map(str, self.wires)))
        return str(wire).strip()

    def _rest(self, number: int) -> None:
        if number > 1:
            for wire in self.wires:
                wire.forget()
        begin = time.monotonic()
        while problems := list(self._problems()):
            assert time.monotonic() - begin < PATIENCE, self._told(problems)
            time.sleep(0.001)
        self.took.append(time.monotonic() - begin)
        time.sleep(REST)
        for _ in range(2):
            self.running.ask("status")  # who answers has dealt with what was told before
        problems = list(self._problems())
        assert not problems, self._told([f"after {REST} s:", *problems])
        for wire in self.wires:
            wire.hands = wire.explained()

    def _problems(self) -> Iterator[str]:
        for wire in self.wires:
            if not wire.explained():
                ends = [(x.end, f"up {x.host.up}", f"far up {x.far.up}") for x in wire.ends]
                yield f"{str(wire).strip()}: {ends}, by hand {wire.hands}"
            for end in wire.ends:
                if end.far.carrier != (end.far.up and end.host.up):
                    yield f"{end.end}: the far end has carrier {end.far.carrier}"

    def _told(self, problems: list[str]) -> str:
        log = self.running.text().splitlines()[-30:]
        return "\n".join([*problems, "", *self.story[-15:], "", *log])


def test_a_thousand_flips_end_in_the_law(lab: Lab, daemon: Callable[..., Daemon]) -> None:
    ends = [Container(lab, f"v{number}") for number in range(7)]
    wires = [Wire(tuple(ends[n : n + 2])) for n in (0, 2, 4)] + [Wire((ends[6],))]
    running = daemon("links:\n" + "".join(map(str, wires)))
    took: list[float] = []
    for seed in range(SEEDS):
        running.forget_log()
        flips = Flips(wires, running, random.Random(seed), took)
        try:
            while flips.count < FLIPS:
                flips.crash() if flips.random.random() < 0.06 else flips.burst()
            for each in ends:
                link = json.loads(each.station.ip("-j", "link", "show", "eth0"))[0]
                assert ("LOWER_UP" in link["flags"]) == each.far.carrier
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, flip {flips.count}: {error}") from None
        running.assert_no_traceback()
    middle, late, last = statistics.median(took), statistics.quantiles(took, n=20)[-1], max(took)
    print(f"{len(took)} times at rest, after {middle:.4f} s, 95 % in {late:.4f}, all in {last:.4f}")
    assert statistics.median(took) < PATIENCE / 20
