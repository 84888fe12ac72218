"""When a link that failed is tried again, and how long one that flaps is held off.

A link flaps when somebody else keeps changing what is repaired. In a hold-off its settings are
left alone; its programs and entries are not.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final, NamedTuple

from xconnectd.model import Interface, Link, Observed, State
from xconnectd.reconcile.evaluate import Refused
from xconnectd.reconcile.link_state import LinkStatus

LONGEST_WAIT: Final = 60.0
"""Seconds; the waits double from one second up to this."""

_MOST_DOUBLINGS: Final = 6

FLAPPING_REPAIRS: Final = 5
FLAPPING_WINDOW: Final = 10.0
"""More repairs of one link than that many in that many seconds: it flaps."""


class _Failed(NamedTuple):
    """How often in a row, when it is due (``time.monotonic``), and why.

    ``refused`` by the kernel (None: by our own rules, which are asked again on every look);
    then ``ends`` is what its ends were like, and another look is worth an earlier try.
    """

    times: int
    due: float
    reason: str
    refused: Refused | None
    ends: tuple[Interface, ...] = ()


@dataclass(slots=True)
class _Flapping:
    """When the link was repaired lately, and its hold-off ends (``time.monotonic``; 0: none).

    ``times`` is how many hold-offs there were.
    """

    repairs: deque[float] = field(default_factory=deque)
    held_off_until: float = 0.0
    times: int = 0


# Without loops of our own: asked in every step.
_DUE: Final = attrgetter("due")
_HELD_OFF_UNTIL: Final = attrgetter("held_off_until")


class BackOff:
    """What a reconciler remembers of links that give trouble.

    Attributes:
        failed: those that failed, by their ids.
    """

    def __init__(self) -> None:
        self.failed: dict[str, _Failed] = {}
        self._flapping: dict[str, _Flapping] = {}
        self._stuck: dict[int, _Failed] = {}

    # ------------------------------------------------------------------ ends that stay on

    def is_stuck(self, ifindex: int, reason: str) -> bool:
        """Notes an end without a link that could not be put back; True if that is news."""
        held = self._stuck.get(ifindex)
        times = held.times + 1 if held else 1
        self._stuck[ifindex] = _Failed(times, _in(times), reason, Refused(reason))
        return held is None or held.reason != reason

    def came_off(self, looked_at: Collection[int] | None, still: Collection[int]) -> None:
        """Of these ends (all if None) only those in ``still`` are stuck now."""
        for ifindex in [*self._stuck]:
            if ifindex not in still and (looked_at is None or ifindex in looked_at):
                del self._stuck[ifindex]

    def stuck(self) -> list[str]:
        """Why ends without a link could not be put back."""
        return [held.reason for held in self._stuck.values()]

    # ------------------------------------------------------------------ failures

    def note(self, now: LinkStatus, observed: Observed, refused: Refused | None) -> None:
        """How a link stands after a pass; ``refused`` if the kernel refused a step in it."""
        held = self.failed.get(now.link.id)
        if now.state is not State.FAILED:
            self.failed.pop(now.link.id, None)
        elif refused or held is None or held.reason != now.reason or _is_due(held):
            times = held.times + 1 if held else 1
            if held and held.reason == now.reason:
                refused = refused or held.refused
            self.failed[now.link.id] = _Failed(
                times, _in(times), now.reason, refused, _ends(now.link, observed)
            )

    def forget(self, links: Iterable[str]) -> None:
        """These links are asked for anew, or no more."""
        for link in links:
            self.failed.pop(link, None)
            self._flapping.pop(link, None)

    def still_failed(self, links: Iterable[Link], observed: Observed) -> dict[str, Refused]:
        """Links that the kernel refused and that are not to be tried now.

        Undoing one makes events too, so an event alone is no reason to try again: the ends must
        look different from when they were left.
        """
        return {
            link.id: held.refused
            for link in links
            if (held := self.failed.get(link.id))
            and held.refused
            and not _is_due(held)
            and held.ends == _ends(link, observed)
        }

    def hurry(self) -> None:
        """All that failed is due now: somebody asks for it."""
        now = time.monotonic()
        self.failed = {link: held._replace(due=now) for link, held in self.failed.items()}
        self._stuck = {end: held._replace(due=now) for end, held in self._stuck.items()}
        for each in self._flapping.values():
            each.held_off_until = 0.0

    def next_due(self) -> float | None:
        """When the next failed link is due, or the next hold-off over (``time.monotonic``)."""
        failed = map(_DUE, (*self.failed.values(), *self._stuck.values()))
        held_off = filter(None, map(_HELD_OFF_UNTIL, self._flapping.values()))
        return min((*failed, *held_off), default=None)

    def due(self) -> tuple[AbstractSet[str], AbstractSet[int]]:
        """What is to be looked at again: links that failed or were held off, and stuck ends."""
        now, next_due = time.monotonic(), self.next_due()
        if next_due is None or now < next_due:
            return frozenset(), frozenset()
        over = {link for link, each in self._flapping.items() if 0 < each.held_off_until <= now}
        for link in over:
            self._flapping[link].held_off_until = 0.0
        failed = {link for link, held in self.failed.items() if held.due <= now}
        return over | failed, {end for end, held in self._stuck.items() if held.due <= now}

    def retry_of(self, link: str) -> float | None:
        """When a failed link is due, in seconds since the epoch."""
        held = self.failed.get(link)
        return _wall_clock(held.due) if held else None

    # ------------------------------------------------------------------ flapping

    def is_held_off(self, link: str) -> bool:
        """Whether its settings are left alone for now, since somebody keeps changing them."""
        flapping = self._flapping.get(link)
        return flapping is not None and time.monotonic() < flapping.held_off_until

    def repaired(self, link: str) -> float | None:
        """Counts a repair; if it was one too many, the seconds that settings are left alone."""
        now = time.monotonic()
        flapping = self._flapping.setdefault(link, _Flapping())
        flapping.repairs.append(now)
        while flapping.repairs and flapping.repairs[0] < now - FLAPPING_WINDOW:
            flapping.repairs.popleft()
        if len(flapping.repairs) <= FLAPPING_REPAIRS:
            return None
        flapping.repairs.clear()
        flapping.times += 1
        wait = min(FLAPPING_WINDOW * _doubled(flapping.times), LONGEST_WAIT)
        flapping.held_off_until = now + wait
        return wait


def _in(times: int) -> float:
    return time.monotonic() + min(_doubled(times), LONGEST_WAIT)


def _doubled(times: int) -> float:
    """1.0 the first time; bounded, since a float overflows after 1,024 times: within a day."""
    return 2.0 ** min(times - 1, _MOST_DOUBLINGS)


def _is_due(held: _Failed) -> bool:
    return time.monotonic() >= held.due


def _ends(link: Link, observed: Observed) -> tuple[Interface, ...]:
    return tuple(filter(None, map(observed.find, link.ends)))


def _wall_clock(monotonic: float) -> float:
    return time.time() + monotonic - time.monotonic()
