"""What a pass changed, as log events, from the states before and after. Pure.

One per change; of changes that come too often, one for many.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from xconnectd.events import Event, Trigger
from xconnectd.model import End, State
from xconnectd.reconcile.actions import (
    Action,
    Attach,
    Unlearn,
    in_words,
    is_of_admin_state,
    is_record,
)
from xconnectd.reconcile.link_state import LinkStatus

_WORKS = (State.CONNECTED, State.DOWN)
_STANDS = (*_WORKS, State.DISABLED)
_WARNINGS = (Event.LINK_FAILED, Event.LINK_WARNING, Event.DRIFT_REPAIRED)
_STATELESS = (Event.LINK_WARNING, Event.DRIFT_REPAIRED)
_OF_CARRIER = (Event.CARRIER_HIDDEN, Event.CARRIER_SHOWN)

_AT_ONCE: Final = 20
_ANOTHER_IN: Final = 6.0
"""So many events of a link are logged at once, and one more each so many seconds."""

_TOGETHER: Final = 10.0
"""Seconds for which those that are more are gathered."""


class Report(NamedTuple):
    """An event and its fields; ``level`` is one of ``logging``."""

    event: Event
    fields: Mapping[str, Any]

    @property
    def level(self) -> int:
        return logging.WARNING if self.event in _WARNINGS else logging.INFO


@dataclass(slots=True)
class _Series:
    """``left`` may be logged at once as of ``counted``; ``count`` others with ``last``."""

    counted: float
    left: float = _AT_ONCE
    last: Report | None = None
    count: int = 0
    since: float = 0.0

    def refill(self, now: float) -> None:
        self.left = min(_AT_ONCE, self.left + (now - self.counted) / _ANOTHER_IN)
        self.counted = now


class Repeats:
    """Sums up what a link does again and again, as when a container sets its end up and down.

    The last event of each kind is logged in the end, so the state is known. ``now`` is a time in
    seconds.
    """

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], _Series] = {}

    def note(self, change: Report, now: float) -> Iterator[Report]:
        """What is to be logged at once: the change itself, unless there were too many."""
        kind = str(change.event) if change.event in _STATELESS else "state"
        if change.event in _OF_CARRIER:
            kind = f"carrier of {change.fields['interface']}"
        key = (str(change.fields["link"]), kind)
        series = self._series.setdefault(key, _Series(now))
        series.refill(now)
        if series.count == 0 and series.left >= 1:
            series.left -= 1
            yield change
            return
        if series.count == 0:
            series.since = now
        series.last = change
        series.count += 1

    def of(self, link: str, now: float) -> Iterator[Report]:
        """What is to be logged before somebody's own change of this link."""
        for key in [key for key in self._series if key[0] == link]:
            yield from _summed_up(self._series.pop(key), now)

    def due(self, now: float) -> Iterator[Report]:
        """What was gathered for long enough."""
        for key, series in [*self._series.items()]:
            if series.count and now - series.since >= _TOGETHER:
                yield from _summed_up(series, now)
                series.left -= 1
            series.refill(now)
            if not series.count and series.left == _AT_ONCE:
                del self._series[key]

    def rest(self, now: float) -> Iterator[Report]:
        """All that is left to tell at the end."""
        for series in self._series.values():
            yield from _summed_up(series, now)


def _summed_up(series: _Series, now: float) -> Iterator[Report]:
    if series.last:
        more = {"count": series.count, "seconds": round(now - series.since, 1)}
        yield series.last._replace(fields={**series.last.fields, **more})
    series.last, series.count = None, 0


def changes(
    before: Mapping[str, LinkStatus],
    after: Collection[LinkStatus],
    gone: Iterable[LinkStatus],
    done: Iterable[Action],
    trigger: Trigger,
) -> Iterator[Report]:
    """``gone`` are links no longer in the file, ``done`` the actions that were carried out."""
    gone, done = list(gone), list(done)
    for action in done:
        if isinstance(action, Unlearn):
            yield Report(Event.RA_REMOVED, _of_router(action))
    repairs = _repairs(done) if trigger == Trigger.NETLINK else {}
    moved: set[str] = set()
    for now in after:
        was = before.get(now.link.id)
        source = None if was else _moved_from(now, gone)
        if source and now.state in _WORKS:
            moved.add(source.link.id)
        yield from _of_link(was, now, source, repairs.get(now.link.id, []))
    for old in gone:
        if old.link.id not in moved:
            reason = "no longer in the file"
            yield Report(Event.LINK_DISCONNECTED, _fields(old) | {"reason": reason})


def _repairs(done: Iterable[Action]) -> dict[str, list[Action]]:
    """By link; a pass for any other reason than the kernel's news repairs nothing.

    A record is no repair, nor is a newer program of ours in an older one's place, nor what an end
    shows: that follows its partner.
    """
    repairs: dict[str, list[Action]] = {}
    for action in done:
        is_upkeep = is_record(action) or (isinstance(action, Attach) and action.replacing)
        if not (is_upkeep or isinstance(action, Unlearn) or is_of_admin_state(action)):
            repairs.setdefault(action.link, []).append(action)
    return repairs


def _moved_from(now: LinkStatus, gone: Iterable[LinkStatus]) -> LinkStatus | None:
    """The wire that was moved: a link gone in this pass that shares an end with this one."""
    ends = {now.link.a, now.link.b}
    for old in gone:
        if old.state in _WORKS and ends & {old.link.a, old.link.b}:
            return old
    return None


def _of_link(
    was: LinkStatus | None,
    now: LinkStatus,
    source: LinkStatus | None,
    repairs: list[Action],
) -> Iterator[Report]:
    fields = _fields(now)
    if was is None and source and now.state in _WORKS:
        yield Report(Event.LINK_REWIRED, fields | {"was": source.link.id})
        if now.state is State.DOWN:
            yield Report(Event.LINK_DOWN, fields)
    elif event := _transition(was, now):
        yield Report(event, fields)
    elif was and was.mode != now.mode and now.state in _WORKS:
        reason = f"mode {was.mode} → {now.mode}: {now.mode_reason}"
        yield Report(Event.LINK_REWIRED, fields | {"reason": reason})
    elif (
        was
        and was.link is not now.link
        and was.link.manner != now.link.manner
        and now.state in _WORKS
    ):
        yield Report(Event.LINK_REWIRED, fields | {"reason": now.link.manner})
    elif was and repairs and _is_repaired(was, now):
        yield Report(Event.DRIFT_REPAIRED, fields | {"reason": in_words(repairs)})
    before = {end.name: end for end in (was.a, was.b)} if was else {}
    for end in dict.fromkeys((now.a, now.b)):
        if event := _carrier_event(before.get(end.name), end):
            reason = end.hidden or end.carrier_reason or "there is a carrier behind the other end"
            told = {"interface": end.name, "ifindex": end.ifindex, "reason": reason}
            yield Report(event, fields | told)
    known = was.warnings if was else ()
    for warning in now.warnings:
        if warning not in known:
            yield Report(Event.LINK_WARNING, fields | {"reason": warning})


def _transition(was: LinkStatus | None, now: LinkStatus) -> Event | None:
    """The event of a change of state; None where nothing a user sees has changed."""
    if was and (was.state, was.reason) == (now.state, now.reason) and _same_ends(was, now):
        return None
    match now.state:
        case State.CONNECTED:
            came_up = was and was.state is State.DOWN and _same_ends(was, now)
            return Event.LINK_UP if came_up else Event.LINK_CONNECTED
        case State.WAITING:
            return Event.LINK_WAITING
        case State.DOWN:
            return Event.LINK_DOWN
        case State.DISABLED:
            return Event.LINK_DISABLED
        case State.FAILED:
            return Event.LINK_FAILED


def _carrier_event(was: End | None, now: End) -> Event | None:
    """What an operator sets down or up himself is told by the state of the link."""
    was_hidden = was is not None and was.ifindex == now.ifindex and bool(was.hidden)
    if bool(now.hidden) == was_hidden:
        return None
    if now.hidden:
        return Event.CARRIER_HIDDEN
    return Event.CARRIER_SHOWN if now.shows_carrier else None


def _is_repaired(was: LinkStatus, now: LinkStatus) -> bool:
    """An end of a link that waits may have become ours to hold: that is no repair."""
    before, held = ({end.name for end in (each.a, each.b) if end.attached} for each in (was, now))
    return now.state in _STANDS or (now.state is State.WAITING and bool(held) and held <= before)


def _same_ends(was: LinkStatus, now: LinkStatus) -> bool:
    return {was.a.ifindex, was.b.ifindex} == {now.a.ifindex, now.b.ifindex}


def _of_router(action: Unlearn) -> dict[str, Any]:
    end = action.interface
    names = {"link": action.link, "interface": end.name, "ifindex": end.ifindex}
    return {**names, "reason": action.reason}


def _fields(status: LinkStatus) -> dict[str, Any]:
    return {
        "link": status.link.id,
        "a": status.a.name,
        "b": status.b.name,
        "a_ifindex": status.a.ifindex,
        "b_ifindex": status.b.ifindex,
        "mode": str(status.mode),
        "reason": status.full_reason or status.mode_reason,
    }
