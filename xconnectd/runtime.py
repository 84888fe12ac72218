"""The parts put together, for the daemon, for the Python API and for commands that only look."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Final, Self

from xconnectd import underlay
from xconnectd.control.lock import Instance, running_pid
from xconnectd.dataplane.nothing_pinned import NothingPinned
from xconnectd.dataplane.programs import Dataplane, describe
from xconnectd.errors import DataplaneError, XconnectError, is_full
from xconnectd.events import Event, Logger, Trigger, logger
from xconnectd.model import Counters, Heard, Programs, Setting
from xconnectd.netlink.changes import Changes
from xconnectd.netlink.host_use import HostUse
from xconnectd.netlink.interfaces import Interfaces
from xconnectd.netlink.transport import Route
from xconnectd.network_managers import network_managers
from xconnectd.nodes.finder import Nodes
from xconnectd.paths import directory, pins
from xconnectd.reconcile.reconciler import Reconciler
from xconnectd.state import stale
from xconnectd.state.store import Ledger, make_directory
from xconnectd.tunnels.other_hosts import OtherHosts
from xconnectd.tunnels.told_by_daemon import ToldByDaemon

_ENGINES_AT_START: Final = 2.0
"""Seconds that container engines may take for their first answer when a daemon starts.

Wires that an earlier one left would be taken apart for as long as their ends are unknown.
"""
_ENGINES_AT_LOOK: Final = 1.0
"""The same for a command that only looks."""


class Engine:
    """Everything that works on this network namespace. A context manager.

    Attributes:
        reconciler: looks, plans and applies.
        ledger: what was found, on disk.
        interfaces: looks at single ones.
        port: of the socket over which they are changed.
        nodes: where the nodes of the wiring are.
        tunnels: what the other sides of tunnels say.
        told: for who only looks, what the daemon said of these, by the texts of ends there; to be
            filled in.
        host_use: what they are used for; to be given the events by who receives them.
        instance: the hold on the namespace; None for one that only looks.
        alive: called again and again within what may take seconds, and to be called in between.
        unseen: why no maps of ours can be read from here; empty if they are.
    """

    def __init__(
        self,
        parts: ExitStack,
        dataplane: Dataplane | None,
        ledger: Ledger,
        instance: Instance | None,
        log: Logger,
        *,
        alive: Callable[[], None] = lambda: None,
        unseen: str = "",
    ) -> None:
        """``parts`` closes what is handed in; taken over as soon as nothing can fail any more."""
        route = parts.enter_context(closing(Route(alive)))
        self.port = route.port
        self.interfaces = Interfaces(route)
        self.host_use = HostUse(route, self.interfaces)
        timeout = _ENGINES_AT_START if instance else _ENGINES_AT_LOOK
        nodes = Nodes(follow=instance is not None, timeout=timeout)
        self.nodes = parts.enter_context(closing(nodes))
        self.told: dict[str, Heard] = {}
        self.tunnels = parts.enter_context(closing(self._other_hosts(dataplane, instance, log)))
        self.alive = alive
        self._dataplane = dataplane
        self._log = log
        self._unpinned = ""
        self.instance = instance
        self.ledger = ledger
        self.reconciler = Reconciler(
            self.interfaces,
            self.host_use,
            Changes(route, self.host_use),
            dataplane or parts.enter_context(closing(NothingPinned())),
            ledger,
            nodes=self.nodes,
            tunnels=self.tunnels,
            way_to=underlay.way_to,
            log=log,
            describe=describe,
            suspects=network_managers,
        )
        self.unseen = "" if dataplane else unseen
        self._parts = parts.pop_all()

    def _other_hosts(
        self, dataplane: Dataplane | None, instance: Instance | None, log: Logger
    ) -> OtherHosts | ToldByDaemon:
        """Only a daemon listens to them itself."""
        if dataplane and instance:
            return OtherHosts(dataplane.counts(), log)
        return ToldByDaemon(self.told)

    @classmethod
    def take(cls, log: Logger | None = None, alive: Callable[[], None] = lambda: None) -> Self:
        """Takes hold of the namespace, and loads the programs or adopts those that are there.

        Raises:
            BusyError: a daemon holds it.
            DataplaneError, PrivilegeError: the BPF part cannot be loaded.
            OSError: the state directory cannot be used; that it is full is logged.
        """
        log = log or logger()
        with ExitStack() as parts:
            instance = parts.enter_context(closing(_hold()))
            ledger = Ledger(pinned=partial(_pinned, pins()))
            if ledger.unjudged:
                log.warning(
                    Event.STATE_UNJUDGED,
                    interfaces=ledger.unjudged,
                    reason="recorded in another boot, as far as can be told: what was changed on"
                    " these is not restored",
                )
            stale.sweep(ledger.path.parent, pins().parent, ledger.path.name)
            plane = Dataplane.open(pins(), kept=ledger.path / "code")
            dataplane = parts.enter_context(closing(plane))
            _note_start(ledger, dataplane, log)
            engine = cls(parts, dataplane, ledger, instance, log, alive=alive)
        event = Event.PROGRAM_ADOPTED if dataplane.adopted else Event.PROGRAM_LOADED
        log.info(event, program=dataplane.programs.xdp, pins=str(pins()))
        if dataplane.drop_stats_unavailable:
            log.info(Event.DROP_STATS_UNAVAILABLE, reason=dataplane.drop_stats_unavailable)
        if dataplane.guard_unavailable:
            log.info(Event.GUARD_UNAVAILABLE, reason=dataplane.guard_unavailable)
        return engine

    @classmethod
    def take_what_is_there(cls, log: Logger | None = None) -> Self:
        """As ``take``, but loads nothing: for detaching what an earlier daemon left."""
        with ExitStack() as parts:
            there = [place for place in (pins(), directory()) if place.exists()]
            instance = parts.enter_context(closing(Instance(*there)))
            dataplane, unseen = _open_if_there(parts, pins())
            ledger = Ledger(pinned=partial(_pinned, pins()))
            return cls(parts, dataplane, ledger, instance, log or logger(), unseen=unseen)

    def detach(self, trigger: Trigger) -> list[str]:
        """Detaches every end; returns what could not be put back.

        Then nothing is left in the kernel or on the disk but the records of ends that have left
        for other namespaces: once they are back, they are put back.
        """
        problems = self.reconciler.detach(trigger)
        if not problems:
            self.remove()
        return problems

    @classmethod
    def watch(cls, log: Logger | None = None) -> Self:
        """Only looks: at what is pinned, or at a kernel without anything of ours.

        Raises:
            PrivilegeError: the maps may not be read.
        """
        with ExitStack() as parts:
            place = daemons_pins() or pins()
            dataplane, unseen = _open_if_there(parts, place)
            ledger = Ledger(pinned=partial(_pinned, place))
            return cls(parts, dataplane, ledger, None, log or logger(), unseen=unseen)

    @property
    def programs(self) -> Programs:
        return self._dataplane.programs if self._dataplane else Programs()

    def counters(self) -> Mapping[int, Counters]:
        """By ifindex, with what the interfaces themselves count."""
        return {key: each for some in self.counters_in_parts() for key, each in some.items()}

    def counters_in_parts(self) -> Iterator[dict[int, Counters]]:
        """The same, of some ends at a time, which takes some milliseconds; some parts are empty."""
        if not self._dataplane:
            return
        not_sent: dict[int, int] = {}
        for some in self.interfaces.statistics_in_parts():
            not_sent |= {ifindex: each.not_sent for ifindex, each in some.items() if each.not_sent}
            yield {}
        for counted in self._dataplane.counters_in_parts():
            for ifindex in counted.keys() & not_sent.keys():
                counted[ifindex] = counted[ifindex]._replace(untransmitted=not_sent[ifindex])
            yield counted | self._impaired(counted)

    def crossed_in_parts(self) -> Iterator[dict[int, Counters]]:
        """Only ``frames`` and ``bytes`` of it, for rates: in a third of the time."""
        return self._dataplane.crossed_in_parts() if self._dataplane else iter(())

    def _impaired(self, counted: Mapping[int, Counters]) -> dict[int, Counters]:
        """Those of the ends with a queue of ours, with what that dropped."""
        records = self.ledger.records
        ends = [i for i in counted if i in records and Setting.ROOT_QDISC in records[i].changes]
        roots = self.interfaces.roots(ends) if ends else {}
        return {
            ifindex: counted[ifindex]._replace(
                impaired_loss=root.losses, impaired_queue=root.overflows
            )
            for ifindex, root in roots.items()
        }

    @property
    def drop_stats_unavailable(self) -> str:
        """Why frames lost at the redirect are not counted; empty if they are."""
        return self._dataplane.drop_stats_unavailable if self._dataplane else ""

    @property
    def guard_unavailable(self) -> str:
        """Why nothing stands between the ends and the host's stack; empty if something does."""
        return self._dataplane.guard_unavailable if self._dataplane else ""

    def program(self, number: int) -> int | None:
        """A descriptor of one of our programs, by kernel id; None where it cannot be had."""
        return self._dataplane.fd_of(number) if self._dataplane else None

    def keep_pinned(self) -> None:
        """Puts back pins that somebody removed; to be called each second.

        Without them all goes on until this process ends, and nothing could be adopted after it.
        """
        if self._dataplane is None or self._dataplane.is_pinned():
            self._unpinned = ""
            return
        outcome = "they are pinned again"
        try:
            Dataplane.prepare(pins())
            if self.instance:
                self.instance.hold(pins())
            self._dataplane.pin_again()
        except (XconnectError, OSError) as error:
            outcome = (
                f"they cannot be pinned again, so no other start will adopt the wires: {error}"
            )
        if outcome != self._unpinned:
            reason = f"our pins in {pins()} were removed; {outcome}"
            self._log.warning(Event.PINS_LOST, reason=reason)
        self._unpinned = outcome

    def remove(self) -> None:
        """Takes the pins away, and the records unless they are needed; once every end is detached.

        What has left works with maps of which nobody knows any more: they stay empty.
        """
        Dataplane.discard(pins())
        if not self.ledger.is_needed():
            self.ledger.remove()

    def close(self) -> None:
        self._parts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _hold() -> Instance:
    """The hold on all that is written. A state directory that cannot be made nobody writes to."""
    Dataplane.prepare(pins())
    places = [pins()]
    with suppress(OSError):
        places.append(make_directory())
    return Instance(*places)


def _note_start(ledger: Ledger, dataplane: Dataplane, log: Logger) -> None:
    """A full disk is no reason to leave the wires alone, a lost count is none at all."""
    dataplane.keep_code()
    problem = None
    try:
        ledger.know_programs(dataplane.programs.ours)
    except OSError as error:
        if not is_full(error):
            raise
        problem = error
    try:
        ledger.note_start("adopted" if dataplane.adopted else "loaded")
    except OSError as error:
        problem = error
    if problem:
        reason = f"{problem}: existing links go on, new ones fail until it can be written"
        log.warning(Event.STATE_UNWRITABLE, reason=reason)


def daemons_pins() -> Path | None:
    """The pins as the daemon sees them, which may have a mount namespace of its own.

    None if none runs, it sees none, or it may not be looked at.
    """
    own, pid = pins(), running_pid()
    if not pid:
        return None
    there = Path(f"/proc/{pid}/root", *own.parts[1:])
    with suppress(OSError):
        if there.exists():
            return own if own.exists() and own.samefile(there) else there
    return None


def _pinned(place: Path) -> frozenset[int]:
    """The ids of our programs that are pinned there."""
    with ExitStack() as parts:
        dataplane, _ = _open_if_there(parts, place)
        return dataplane.programs.ours if dataplane else frozenset()


def _open_if_there(parts: ExitStack, place: Path) -> tuple[Dataplane | None, str]:
    """What is pinned there, or why there is nothing to be had."""
    if not place.exists():
        return None, f"there is no {place} here"
    try:
        return parts.enter_context(closing(Dataplane.open(place, build=False))), ""
    except DataplaneError as error:
        return None, error.reason
