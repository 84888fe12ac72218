"""What impairs the frames of a link, as queueing disciplines of the ends that they leave by. Pure.

A frame that leaves by an end meets the filter of `drop` first, then loss, delay and all else that
netem does, then the rate: docs/decisions/0021.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from shlex import quote
from typing import Final

from xconnectd.impairment import Impairment, Impairments, Passing
from xconnectd.model import Interface, Link, Record, Setting
from xconnectd.shape import NO_RATE, SECOND, Netem, Shape, ticks

_EVERYTHING: Final = 2**32 - 1
_LONGER_THAN_MTU: Final = 22
"""Bytes of a frame beside its payload: the Ethernet header and two VLAN tags."""

_FAST: Final = 100 * 10**6 // 8
_SLACK: Final = 1_000_000
"""From so many bytes per second on, so many nanoseconds that a timer of the kernel may be late and
nothing of the rate is lost for it."""
_LEAST_FRAMES: Final = 2
"""In a bucket: one that goes, and one that a late timer would lose."""

_LONGEST_WAIT: Final = SECOND // 10
_LEAST_QUEUE: Final = 50
"""Frames may wait for the rate for so many nanoseconds beyond the delay, and at least so many."""
_FRAMES_PER_S: Final = 1_000_000
"""That may be on their way through a delay: small ones at 1 Gbit/s, full ones at 12."""
_MOST_DELAYED: Final = 200_000
"""Frames, some 500 MB of the kernel's memory."""
_LEAST_DELAYED: Final = 1000


def overridden(links: Iterable[Link], passing: Mapping[str, Passing]) -> tuple[Link, ...]:
    """The links with what commands have put on some of them for now, by their ids."""
    return tuple(
        _overridden(link, passing[link.id]) if link.id in passing else link for link in links
    )


def _overridden(link: Link, passing: Passing) -> Link:
    impair, ways = link.impair or Impairments(), passing.ways
    given = [way for way, end in (("forward", link.a), ("reverse", link.b)) if end.name in ways]
    found = Impairments(
        ways.get(link.a.name, impair.forward),
        ways.get(link.b.name, impair.reverse),
        passing=tuple(given),
        until=passing.until,
    )
    return replace(link, impair=found if found.forward or found.reverse else None)


def shapes(
    impair: Impairments, a: Interface, b: Interface, records: Mapping[int, Record]
) -> dict[int, Shape]:
    """By ifindex, what the queue of each end that frames leave by is to do; none where nothing is.

    Forward they leave by ``b``.
    """
    if impair.as_found:
        return {end.ifindex: end.root.shape for end in (a, b) if end.root and end.root.shape}
    ways = ((a, impair.reverse), (b, impair.forward))
    return {
        end.ifindex: shape(one, _mtu(end, records.get(end.ifindex)))
        for end, one in ways
        if one.replaces_queue
    }


def _mtu(end: Interface, record: Record | None) -> int:
    """What an end has in tc mode: one that was raised for generic mode is put back."""
    change = record.changes.get(Setting.MTU) if record else None
    return change.found if change and change.ours == end.mtu else end.mtu


def drop(impair: Impairments, *, forward: bool) -> str | None:
    """The filter of what goes that way, empty for none; None: whatever stands there."""
    if impair.as_found:
        return None
    return (impair.forward if forward else impair.reverse).drop


def refusal(ends: Iterable[Interface], shaped: Mapping[int, Shape]) -> str:
    """Why the queue of an end is not ours to replace; empty if they all are."""
    for end in ends:
        if end.ifindex in shaped and end.root and end.root.is_foreign:
            return (
                f"{end.name} has a queueing discipline of its own at the root, {end.root},"
                f" which is left alone; remove it: tc qdisc del dev {quote(end.name)} root"
            )
    return ""


def limit(one: Impairment) -> int:
    """Frames of 1,500 bytes that may wait: what is said, or what rate and delay need."""
    if one.limit:
        return one.limit
    if not one.rate:
        return _delayed(one)
    waiting = one.rate * (one.delay + one.jitter + _LONGEST_WAIT) // (8 * 1500 * SECOND)
    return max(_LEAST_QUEUE, waiting)


def shape(one: Impairment, mtu: int) -> Shape:
    """What does all of it but ``drop``; ``mtu`` is the device's."""
    frame = mtu + _LONGER_THAN_MTU
    rate = (one.rate + 7) // 8 if one.rate else NO_RATE
    burst = max(_LEAST_FRAMES * frame, rate * _SLACK // SECOND if rate >= _FAST else 0)
    if one.loses_all:
        return Shape(rate, ticks(rate, burst), frame, None, is_hole=True, frame=frame, burst=burst)
    queue = min(limit(one) * frame, _EVERYTHING)
    netem = _netem(one, queue if one.rate else 0)
    return Shape(rate, ticks(rate, burst), queue, netem, frame=frame, burst=burst)


def _netem(one: Impairment, queue: int) -> Netem | None:
    if not one.needs_netem:
        return None
    gilbert = None
    if one.burst:
        ends = 1 / one.burst
        gilbert = (_share(one.loss * ends / (1 - one.loss)), _share(ends))
    return Netem(
        one.delay,
        one.jitter,
        one.distribution,
        0 if gilbert else _share(one.loss),
        gilbert,
        _share(one.corrupt),
        _share(one.duplicate),
        _share(one.reorder),
        one.limit or _delayed(one),
        one.seed,
        queue,
    )


def _delayed(one: Impairment) -> int:
    """Frames on their way through the delay; with a rate more may come in than go on."""
    frames = _FRAMES_PER_S * (one.delay + one.jitter) // SECOND
    return min(max(_LEAST_DELAYED, frames), _MOST_DELAYED)


def _share(share: float) -> int:
    return round(share * _EVERYTHING)
