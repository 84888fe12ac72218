"""Impairments that a command put on links for a while, in place of what the file says of them.

They are on disk, so they outlast a restart and a crash, and end when they are due.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from xconnectd import impairment, pcap_filter
from xconnectd.config import impairments
from xconnectd.control.protocol import LONGEST_IMPAIRMENT, Answer, Request
from xconnectd.daemon.clock import Clock
from xconnectd.daemon.ports import Runtime
from xconnectd.errors import ConfigError
from xconnectd.events import Event, Logger, Trigger
from xconnectd.impairment import Impairment, Passing
from xconnectd.model import Link, Mode, State
from xconnectd.status.document import no_such_link, spellings


class PassingImpairments:
    """Takes what is asked for, and ends it in time."""

    def __init__(self, runtime: Runtime, log: Logger, clock: Clock) -> None:
        self._reconciler = runtime.reconciler
        self._ledger = runtime.ledger
        self._log = log
        self._clock = clock

    @property
    def due(self) -> float | None:
        """When the next one ends (``monotonic``)."""
        ends = [each.until for each in self._ledger.passing.values() if each.until is not None]
        return min(ends) - self._clock.time() + self._clock.monotonic() if ends else None

    def answer(self, request: Request) -> Answer:
        """``link``, ``direction`` (or none for both), and ``words`` with ``seconds``, or none."""
        match request:
            case {"link": str(name), "direction": str(direction), "words": list(words)}:
                seconds = request.get("seconds")
            case _:
                return _refused("not understood: `link`, `direction` and `words` are needed")
        link = self._find(name)
        if link is None:
            links = {
                each.id: spellings(each.id, each.a.name, each.b.name)
                for each in self._reconciler.wiring.links
            }
            return _refused(no_such_link(name, "the wiring", links))
        meant = _ends(link, direction)
        ends = tuple(end for end in meant if not _host_beyond(link, end))
        other_half = [
            f"{_arrow(link, end)}: by the same command on {beyond}, where frames leave"
            for end in meant
            if (beyond := _host_beyond(link, end))
        ]
        if not ends:
            return _refused("; ".join(other_half))
        if not words:
            return _with(other_half, self._clear(link, ends))
        try:
            one = impairments.read_words(map(str, words), pcap_filter.fault)
        except ConfigError as error:
            return _refused("\n".join(each.text for each in error.problems))
        if link.mode in (Mode.GENERIC, Mode.NATIVE):
            return _refused(f"{link.id} has mode: {link.mode}, in which frames go past every queue")
        if seconds is not None and not 0 < float(seconds) <= LONGEST_IMPAIRMENT:
            return _refused(f"nothing is impaired for {seconds} s")
        return _with(other_half, self._start(link, dict.fromkeys(ends, one), seconds))

    def check(self) -> None:
        """Ends those whose time is over, and those of links that are in no file any more."""
        self.end_overdue()
        gone = self._ledger.passing.keys() - {link.id for link in self._reconciler.wiring.links}
        for link in sorted(gone):
            self._end(link, "the link is in no file any more")

    def end_overdue(self) -> None:
        now = self._clock.time()
        for link, each in [*self._ledger.passing.items()]:
            if each.until is not None and each.until <= now:
                self._end(link, "its time is over")

    def _find(self, name: str) -> Link | None:
        for link in self._reconciler.wiring.links:
            if name in spellings(link.id, link.a.name, link.b.name):
                return link
        return None

    def _start(self, link: Link, ways: Mapping[str, Impairment], seconds: float | None) -> Answer:
        before = self._ledger.passing.get(link.id)
        until = None if seconds is None else self._clock.time() + seconds
        all_ways = {**(before.ways if before else {}), **ways}
        was = self._reconciler.statuses.get(link.id)
        self._set(link.id, Passing(all_ways, until))
        now = self._reconciler.statuses[link.id]
        if now.state is State.FAILED and not (was and was.state is State.FAILED):
            self._set(link.id, before)
            return _refused(f"{now.full_reason}; the link is as it was")
        lines = [f"{_arrow(link, end)}: {_in_words(one)}" for end, one in ways.items()]
        self._log.info(
            Event.IMPAIR_STARTED,
            link=link.id,
            a=link.a.name,
            b=link.b.name,
            reason="; ".join(lines),
            seconds=seconds,
        )
        return {"ok": True, "lines": lines, "state": str(now.state)}

    def _clear(self, link: Link, ends: Iterable[str]) -> Answer:
        before = self._ledger.passing.get(link.id)
        left = {end: one for end, one in (before.ways if before else {}).items() if end not in ends}
        if before is None or left == before.ways:
            return {"ok": True, "lines": [f"{link.id} is as the file says"]}
        if left:
            self._set(link.id, before._replace(ways=left))
        else:
            self._end(link.id, "cleared")
        return {"ok": True, "lines": [f"{_arrow(link, end)}: as the file says" for end in ends]}

    def _end(self, link: str, reason: str) -> None:
        self._set(link, None)
        self._log.info(Event.IMPAIR_ENDED, link=link, reason=reason)

    def _set(self, link: str, passing: Passing | None) -> None:
        """On disk before it is done: a crash leaves nothing that nobody ends."""
        others = {name: each for name, each in self._ledger.passing.items() if name != link}
        self._ledger.set_passing({**others, link: passing} if passing else others)
        if scope := self._reconciler.want(self._reconciler.wiring):
            self._reconciler.run(scope, Trigger.IMPAIR)


def _ends(link: Link, direction: str) -> tuple[str, ...]:
    """Where the frames come in that are meant."""
    names = tuple(end.name for end in link.ends)
    return {"forward": names[:1], "reverse": names[-1:]}.get(direction, names)


def _host_beyond(link: Link, end: str) -> str:
    """The other host by whose end leaves what comes in by ``end``; empty where that is here."""
    other = link.b if end == link.a.name else link.a
    return other.host if other.tunnel else ""


def _arrow(link: Link, end: str) -> str:
    other = link.b.name if end == link.a.name else link.a.name
    return f"{end} → {other}"


def _in_words(one: Impairment) -> str:
    return impairment.in_words(impairment.as_written(one)) or "unimpaired"


def _with(lines: list[str], answer: Answer) -> Answer:
    return {**answer, "lines": [*answer["lines"], *lines]} if answer["ok"] else answer


def _refused(why: str) -> Answer:
    return {"ok": False, "error": why}
