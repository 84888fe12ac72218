"""The live test of a link: numbered frames from far end to far end, through both directions.

A generic veth takes as ingress only what its far end sends, so the frames have to start there: the
sockets are made inside the far ends' namespaces (by a command; the daemon never goes there). They
send past the far end's queueing discipline: it is the wire that is tested. Some frames are sent
beside them as the far end's tc would redirect them, which the kernel spares generic XDP.

Where that cannot be done the counters are watched for a while instead. To another host frames go
in one direction, from here; its daemon counts what arrives.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

from xconnectd.dataplane.redirecting_sender import RedirectingSender
from xconnectd.diagnostics import (
    config_checks,
    link_checks,
    test_across,
    test_frames,
    test_result,
)
from xconnectd.diagnostics.facts import LinkFacts
from xconnectd.diagnostics.finding import Finding
from xconnectd.diagnostics.link_facts import LinkGatherer
from xconnectd.diagnostics.packet_socket import PacketSocket, now
from xconnectd.diagnostics.test_across import Exchange
from xconnectd.diagnostics.test_frames import Count, Series
from xconnectd.diagnostics.test_outcome import WATCHED, Outcome
from xconnectd.diagnostics.test_result import Lengths, Way
from xconnectd.errors import PrivilegeError, XconnectError
from xconnectd.model import Counters, Endpoint, Heard, Interface, Rewrite, Statistics
from xconnectd.netlink import netns
from xconnectd.netlink.interfaces import Interfaces
from xconnectd.netlink.netns import Namespace
from xconnectd.reconcile.evaluate import Evaluation
from xconnectd.runtime import Engine
from xconnectd.status import collector, document

_PACE: Final = 0.001
"""Seconds between two frames."""
_TIMEOUT: Final = 0.5
"""Seconds for the last of them to arrive."""
_GRACE: Final = 0.05
"""Seconds for what arrives twice."""
_NOBODY: Final = bytes.fromhex("02007863ffff")
"""A MAC that nobody has, for who is behind an end on another host."""

_Counted = tuple[Mapping[int, Counters], Mapping[int, Statistics]]


class UntestableError(XconnectError):
    """Frames cannot be sent through this link; says why."""


class _FarEnd(NamedTuple):
    """``redirect`` sends a frame as a tc redirect does, None where that cannot be done."""

    socket: PacketSocket
    redirect: Callable[[bytes], None] | None


@dataclass(slots=True)
class _Lane:
    """One direction: what is sent where, and what comes; nothing is to where it is ``closed``."""

    source: Interface
    target: Interface
    sender: PacketSocket
    receiver: PacketSocket
    sizes: Sequence[int]
    count: Count
    redirected: Count
    redirect: Callable[[bytes], None] | None
    closed: bool
    error: str = ""

    def send(self, size: int) -> None:
        frame = self.count.next(size, now())
        try:
            self.sender.send(frame)
        except OSError as error:
            self.error = self.error or f"{error.strerror} ({size} bytes)"

    def send_redirected(self) -> None:
        """What the kernel refuses has been sent and does not arrive."""
        if self.redirect:
            with suppress(OSError):
                self.redirect(self.redirected.next(test_frames.SHORTEST, now()))

    def receive(self) -> None:
        for frame, when in self.receiver.drain():
            self.count.arrived(frame, when)
            self.redirected.arrived(frame, when)

    @property
    def is_complete(self) -> bool:
        return self.closed or (self.count.is_complete and self.redirected.is_complete)

    def result(self, counted: Way) -> Way:
        lengths, redirected = self.count.lengths(), self.redirected.lengths()
        marked = redirected[0] if redirected else None
        return replace(counted, lengths=lengths, error=self.error, redirected=marked)


# --------------------------------------------------------------------------- a test


class Tester:
    """Tests links. ``counters`` are those of our programs, ``interfaces`` tells the kernel's."""

    def __init__(
        self,
        interfaces: Interfaces,
        counters: Callable[[], Mapping[int, Counters]],
        known: Mapping[int, Namespace],
        heard: Callable[[], Mapping[str, Heard]],
    ) -> None:
        """``heard`` tells what daemons of other hosts said, by the texts of the ends there."""
        self._heard = heard
        self._interfaces = interfaces
        self._counters = counters
        self._known = known

    def test(self, facts: LinkFacts, rounds: int) -> Outcome:
        """``rounds`` is how many frames of each size go each way."""
        link, findings = facts.evaluation.link.id, link_checks.of_link(facts)
        try:
            if there := facts.evaluation.link.tunnel_end:
                return Outcome(link, (self._across(facts, there, rounds),), findings)
            with self._lanes(facts) as lanes:
                counted = self._watch(facts, lambda: _exchange(lanes, rounds))
        except UntestableError as error:
            ways = self._watch(facts, lambda: time.sleep(WATCHED)) if facts.ways else ()
            return Outcome(link, tuple(ways), findings, str(error))
        ways = [lane.result(way) for lane, way in zip(lanes, counted, strict=True)]
        findings = (*findings, *test_result.of_redirected(ways))
        delays = {facts.called(lane.source): lane.count.delays for lane in lanes}
        return Outcome(link, tuple(ways), findings, delays=delays)

    def _across(self, facts: LinkFacts, there: Endpoint, rounds: int) -> Way:
        """The way to another host."""
        if not facts.ways:
            raise UntestableError(facts.evaluation.waiting or "an end is missing")
        source, target = next(way for way in facts.ways if facts.is_tunnel(way[1]))
        dropped = self._next_message(there).dropped or 0
        lengths: list[Lengths] = []
        with self._socket(source, facts) as sender:
            far = facts.far[source.ifindex].interface
            mac = bytes.fromhex(far.mac.replace(":", ""))
            exchange = Exchange(
                sender,
                Series(os.urandom(8), 0, mac, _NOBODY),
                here=lambda: self._counters().get(source.ifindex, Counters()).frames,
                there=lambda: self._listen_to(there).frames or 0,
            )
            sizes = test_frames.sizes(far.mtu, far.mtu)
            ways = self._watch(facts, lambda: lengths.extend(exchange.run(sizes, rounds)))
        return replace(
            next(way for way in ways if way.outlet == target.name),
            lengths=lengths,
            error=exchange.error,
            counted_by=there.host,
            dropped_there=(self._listen_to(there).dropped or 0) - dropped,
        )

    def _next_message(self, there: Endpoint) -> Heard:
        """What the daemon there says next: what it has counted until now is in it."""
        known = self._listen_to(there).received
        deadline = time.monotonic() + test_across.TIMEOUT
        while time.monotonic() < deadline:
            time.sleep(test_across.LOOK)
            heard = self._listen_to(there)
            if heard.received > known:
                return heard
        raise UntestableError(f"the daemon on {there.host} says nothing")

    def _listen_to(self, there: Endpoint) -> Heard:
        """What its daemon has told, a count with it."""
        if not there.host:
            raise UntestableError(f"{there} is not ours: nobody tells what arrives there")
        heard = self._heard().get(there.text, Heard())
        if heard.alive is None:
            raise UntestableError(f"no daemon here listens to {there.host}, which counts there")
        if not heard.alive or heard.frames is None:
            why = heard.reason or "its daemon has told no count"
            raise UntestableError(f"nobody counts on {there.host}: {why}")
        return heard

    @contextmanager
    def _lanes(self, facts: LinkFacts) -> Iterator[list[_Lane]]:
        if not facts.ways:
            raise UntestableError(facts.evaluation.waiting or "an end is missing")
        run = os.urandom(8)
        with ExitStack() as stack:
            far = {
                end.ifindex: _FarEnd(
                    stack.enter_context(self._socket(end, facts)), self._redirect(end, facts, stack)
                )
                for end in facts.evaluation.ends
            }
            yield [_lane(facts, ends, far, run, way) for way, ends in enumerate(facts.ways)]

    def _redirect(
        self, end: Interface, facts: LinkFacts, stack: ExitStack
    ) -> Callable[[bytes], None] | None:
        """What sends by the far end of ``end`` as a tc redirect does, until ``stack`` unwinds."""
        far = facts.far[end.ifindex].interface
        place = self._place(end)
        try:
            sender = stack.enter_context(RedirectingSender(far.ifindex))
        except (XconnectError, OSError):
            return None
        return lambda frame: netns.inside(place, lambda: sender.send(frame))

    def _place(self, end: Interface) -> Namespace | None:
        """Where the far end of ``end`` is; None for here."""
        if end.far is None or end.far.nsid is None:
            return None
        place = self._known.get(end.far.nsid)
        if place is None:
            raise UntestableError(f"the namespace of the far end of {end.name} cannot be found")
        return place

    def _socket(self, end: Interface, facts: LinkFacts) -> PacketSocket:
        """A socket on the far end of ``end``."""
        far = facts.far.get(end.ifindex)
        if end.far is None:
            kind = end.variant or end.kind or "NIC"
            raise UntestableError(f"{end.name} is a {kind}: nothing can be sent from its far end")
        if far is None:
            raise UntestableError(f"the far end of {end.name} cannot be read")
        if facts.observed.ours_on(far.interface).runs:
            raise UntestableError(f"{far.of(end)} is an end of a link too")
        place = self._place(end)
        try:
            return netns.inside(place, lambda: PacketSocket(far.interface.name))
        except OSError as error:
            why = error.strerror or str(error)
            raise UntestableError(f"no socket on the far end of {end.name}: {why}") from error

    def _watch(self, facts: LinkFacts, work: Callable[[], None]) -> list[Way]:
        """What was counted on every way meanwhile, without lengths."""
        before = self._count()
        work()
        after = self._count()
        return [
            replace(_difference(way, facts, before, after), closed=facts.is_closed(way[0]))
            for way in facts.ways
        ]

    def _count(self) -> _Counted:
        return self._counters(), self._interfaces.statistics()


def _difference(
    ends: tuple[Interface, Interface], facts: LinkFacts, before: _Counted, after: _Counted
) -> Way:
    source, target = ends
    (ours, theirs), (ours_now, theirs_now) = before, after
    here, there, gone = source.ifindex, target.ifindex, Statistics()
    was, now = ours.get(here, Counters()), ours_now.get(here, Counters())
    return Way(
        facts.called(source),
        facts.called(target),
        source.name,
        target.name,
        (),
        reached=theirs_now.get(here, gone).received - theirs.get(here, gone).received,
        counted=now.frames - was.frames,
        no_entry=now.no_entry - was.no_entry,
        one_way=now.one_way - was.one_way,
        not_sent=theirs_now.get(there, gone).not_sent - theirs.get(there, gone).not_sent,
        impaired=_impaired(now, ours_now.get(there)) - _impaired(was, ours.get(there)),
    )


def _impaired(here: Counters, there: Counters | None) -> int:
    """Frames that impairments have dropped on the way from one end to the other."""
    queue = there.impaired_loss + there.impaired_queue if there else 0
    return here.filtered + queue


def _series(facts: LinkFacts, run: bytes, way: int, source: Interface, target: Interface) -> Series:
    here, there = (facts.far[end.ifindex].interface for end in (source, target))
    source_mac, target_mac = (bytes.fromhex(far.mac.replace(":", "")) for far in (here, there))
    swapped = facts.evaluation.link.rewrite is Rewrite.SWAP_MACS
    return Series(run, way, source_mac, target_mac, swapped)


def _lane(
    facts: LinkFacts,
    ends: tuple[Interface, Interface],
    far: Mapping[int, _FarEnd],
    run: bytes,
    way: int,
) -> _Lane:
    source, target = ends
    here, there = (facts.far[end.ifindex].interface.mtu for end in ends)
    plain, redirected = (
        Count(_series(facts, run, number, source, target))
        for number in (way, way + len(facts.ways))
    )
    sender, receiver = far[source.ifindex], far[target.ifindex]
    sizes = test_frames.sizes(here, there)
    return _Lane(
        *(source, target, sender.socket, receiver.socket, sizes, plain),
        redirected,
        sender.redirect,
        facts.is_closed(source),
    )


def _exchange(lanes: Sequence[_Lane], rounds: int) -> None:
    """Sends everything, one frame a millisecond, and waits until it has come or will not."""
    for _ in range(rounds):
        for lane in lanes:
            for size in lane.sizes:
                lane.send(size)
                time.sleep(_PACE)
                _receive(lanes)
            lane.send_redirected()
    deadline = time.monotonic() + _TIMEOUT
    while time.monotonic() < deadline and not all(lane.is_complete for lane in lanes):
        time.sleep(_PACE)
        _receive(lanes)
    time.sleep(_GRACE)
    _receive(lanes)


def _receive(lanes: Sequence[_Lane]) -> None:
    for lane in lanes:
        lane.receive()


# --------------------------------------------------------------------------- by name


def test(name: str, file: Path | None, rounds: int) -> tuple[Outcome, tuple[Finding, ...]]:
    """Tests the link that a user calls so; with it comes what is wrong with the file.

    Raises UntestableError for who may not look at links.
    """
    try:
        engine = Engine.watch()
    except (PrivilegeError, PermissionError) as error:
        raise UntestableError("only root can test a link: sudo xconnectd test") from error
    with engine:
        look = collector.look(engine, file)
        path = str(look.files.path)
        problems = tuple(config_checks.of_problems(map(str, look.reading.problems), path))
        known = {each.link.id: _names(each) for each in look.seen.evaluations}
        for evaluation in look.seen.evaluations:
            if name in known[evaluation.link.id]:
                facts = LinkGatherer(engine, look)
                tester = Tester(
                    engine.interfaces, engine.counters, facts.namespaces, collector.heard
                )
                return tester.test(facts.gather(evaluation, enter=True), rounds), problems
        text = document.no_such_link(name, path, known)
        absent = config_checks.of_absent_link(name, path, text)
        return Outcome(name, (), (absent,), "there is no such link"), problems


def _names(evaluation: Evaluation) -> tuple[str, ...]:
    """What a user may call the link."""
    link, here = evaluation.link, (end.name for end in evaluation.ends)
    return document.spellings(link.id, link.a.text, link.b.text, *here)
