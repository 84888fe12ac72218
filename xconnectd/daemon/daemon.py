"""The life cycle: one thread waits for files, kernel, clients, signals and time.

It runs passes one at a time. All other threads only wake it.
"""

from __future__ import annotations

import gc
import os
import selectors
import sys
import time
from collections.abc import Iterable
from enum import StrEnum
from functools import partial
from operator import attrgetter, methodcaller
from pathlib import Path
from typing import Any, Final, Self

from xconnectd.config.identity import Identity
from xconnectd.config.source import Files, Reading
from xconnectd.config.watcher import ConfigWatch
from xconnectd.control import server
from xconnectd.daemon import systemd
from xconnectd.daemon.clock import Clock, Timer
from xconnectd.daemon.config_files import ConfigFiles
from xconnectd.daemon.exporter import Exporter, Facts
from xconnectd.daemon.memory import Spare
from xconnectd.daemon.passing import PassingImpairments
from xconnectd.daemon.ports import Feed, KernelEvents, MakeWatch, Runtime, Source
from xconnectd.daemon.requests import Requests
from xconnectd.daemon.signals import Signals, Wakeup
from xconnectd.daemon.trial import Trial
from xconnectd.errors import is_full
from xconnectd.events import Event, Logger, Publisher, Trigger
from xconnectd.model import Scope, State
from xconnectd.monitor_address import MonitorAddress
from xconnectd.mounts import Disk
from xconnectd.netlink import monitor
from xconnectd.netlink.far_monitor import FarEvents
from xconnectd.netlink.monitor import Events, OverrunError
from xconnectd.netlink.own_addresses import own_addresses
from xconnectd.qemu.guest_links import GuestLinks
from xconnectd.status.summary import headline

_SWITCH: Final = 0.0005
"""Seconds that watchdog's threads may keep the interpreter while a save waits to be acted on."""

_ALLOCATIONS: Final = 50_000
"""Objects made, less those dropped, between two collections: a file of some thousand links."""

_LEFTOVERS: Final = 1_000
"""As many are worth a collection when there is time: some 50 µs."""

_TICK: Final = 1.0
"""Seconds between looks at what sends no event: map entries, and a file behind a bind mount."""


class OnExit(StrEnum):
    """What becomes of the wires when the daemon is told to stop."""

    DETACH = "detach"
    KEEP = "keep"


# Without a loop of our own: asked in every step.
_DUE: Final = attrgetter("due")
_IS_DUE: Final = methodcaller("is_due")


class Daemon:
    """Keeps the kernel in agreement with the files until it is told to stop.

    Attributes:
        signals: what it was told by signals.
    """

    def __init__(
        self,
        runtime: Runtime,
        source: Source,
        watch: MakeWatch,
        events: KernelEvents,
        log: Logger,
        *,
        publisher: Publisher,
        sockets: Path | None = None,
        on_exit: OnExit = OnExit.DETACH,
        clock: Clock = time,
        selector: selectors.BaseSelector | None = None,
        wakeup: Wakeup | None = None,
        far_events: Feed | None = None,
        guests: GuestLinks | None = None,
    ) -> None:
        """Clients reach it by sockets in the directory ``sockets`` (None: no client does).

        Without ``far_events`` the far ends of veths that we set down are looked at each second;
        without ``guests`` no virtual machine is told of its carrier.

        Raises:
            OSError: the sockets cannot be made.
        """
        self._runtime = runtime
        self._reconciler = runtime.reconciler
        self._reconciler.receive = self._receive
        self._events = events
        self._feeds: tuple[Feed, ...] = (events, far_events) if far_events else (events,)
        self._guests = guests
        self._reconciler.monitor_errors = self._monitor_errors
        self._lost_events = False
        self._log = log
        self._on_exit = on_exit
        self._clock = clock
        self._selector = selector or selectors.DefaultSelector()
        self._wakeup = wakeup or Wakeup()
        self._tick = Timer(clock)
        self._status_line = ""
        self._told_of: tuple[Reading | None, int] = (None, 0)
        self._spare = Spare()
        self.signals = Signals()
        self._files = ConfigFiles(source, watch, runtime, log, clock=clock, wake=self._wakeup.wake)
        self._trial = Trial(runtime, self._files, log, clock)
        self._passing = PassingImpairments(runtime, log, clock)
        self._exporter = Exporter(self._look, self._wakeup.wake, log)
        self._requests = Requests(
            runtime,
            self._files,
            self._trial,
            self._passing,
            clock,
            reload=self._read_again,
            catch_up=self._catch_up,
            metrics=self._exporter.told,
        )
        self._server = self._serve_clients(sockets)
        publisher.subscribers = (self._requests.note, self._server.publish)

    @classmethod
    def of_process(
        cls, path: Path, runtime: Runtime, log: Logger, publisher: Publisher, *, on_exit: OnExit
    ) -> Self:
        """One that reads the files at ``path`` and takes this process's signals.

        Raises:
            OSError: its sockets, or that of netlink, cannot be made.
        """
        wakeup = Wakeup()
        events = Events(own=runtime.port)
        far_events = None
        try:
            far_events = FarEvents(runtime.reconciler.far_ends, runtime.reconciler.awaited)
        except PermissionError:
            log.warning(
                Event.CARRIER_UNWATCHED,
                reason="without CAP_NET_BROADCAST the kernel does not tell what happens in other"
                " namespaces: that a far end comes up is seen late, by looking at a few each"
                " second; give the daemon that capability",
            )
        runtime.host_use.track_stacked()
        disk = Disk()
        try:
            runtime.ledger.set_config(path)
        except OSError as error:  # then commands are told no file
            if not is_full(error):
                raise
        daemon = cls(
            runtime,
            Files(path, disk, identity=Identity(own_addresses)),
            partial(ConfigWatch, path, disk=disk),
            events,
            log,
            publisher=publisher,
            sockets=runtime.ledger.path,
            on_exit=on_exit,
            wakeup=wakeup,
            far_events=far_events,
            guests=GuestLinks(),
        )
        wakeup.on_signals()
        daemon.signals.catch()
        return daemon

    def _serve_clients(self, place: Path | None) -> server.Server:
        """On a full disk there is no room for sockets either, and no reason not to start."""
        serve = partial(
            server.Server,
            selector=self._selector,
            answer=self._requests.answer,
            gone=self._trial.client_gone,
        )
        try:
            return serve(place)
        except OSError as error:
            if not is_full(error) and place is not None and place.exists():
                raise
            self._log.warning(
                Event.STATE_UNWRITABLE, reason=f"commands cannot reach the daemon: {error}"
            )
            return serve(None)

    def _look(self) -> Facts:
        """For metrics."""
        return self._requests.facts()

    # ------------------------------------------------------------------ life

    def run(self) -> None:
        """From the first pass until it is told to stop."""
        self.start()
        sys.setswitchinterval(_SWITCH)
        gc.freeze()  # a collection need not walk through all modules again and again,
        gc.set_threshold(_ALLOCATIONS)  # nor come in the middle of reading a file
        gc.enable()
        while not self.signals.stopping:
            self.step()

    def start(self) -> None:
        """With good files, they are made true. What no good file speaks of goes on as it is."""
        started = self._clock.monotonic()
        self._passing.end_overdue()
        self._files.start()
        self._reconciler.resync(Trigger.START)
        self._log.info(
            Event.DAEMON_READY,
            pid=os.getpid(),
            config_hash=self._reconciler.wiring.hash,
            **self._counts(),
            duration_ms=round((self._clock.monotonic() - started) * 1000, 1),
        )
        self._tell_manager(READY=1)
        self._spare.give_back(self._reconciler.tally.count, at_once=True)
        for feed in self._feeds:
            self._selector.register(feed, selectors.EVENT_READ, self._on_events)
        if self._guests:
            self._selector.register(self._guests, selectors.EVENT_READ, self._on_guests)
        self._selector.register(self._runtime.nodes, selectors.EVENT_READ, self._on_nodes)
        self._selector.register(self._runtime.tunnels, selectors.EVENT_READ, self._on_tunnels)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._wakeup.clear)

    def step(self) -> None:
        """One turn of the loop: waits until something comes or is due, and deals with it."""
        self._exporter.follow(self._reconciler.wiring.metrics)
        self._events.follow_routes(bool(self._reconciler.loose))
        if self._guests and (self._reconciler.monitored or self._guests.wanted):
            self._guests.set(self._reconciler.guest_carriers())
        self._tick.set_in(_TICK)
        for key, _ in self._selector.select(self._timeout()):
            key.data()
        if self.signals.take_reload():
            self._read_again()
        self._on_files()
        self._on_time()
        self._exporter.answer()

    def stop(self) -> bool:
        """Stops watching and detaches from all ends, if that is what the end is to do.

        Returns False if something could not be put back; the log has said what.
        """
        systemd.notify(STOPPING=1)
        self._files.stop()
        self._exporter.close()
        self._reconciler.tell_repeated(at_once=True)
        on_exit = OnExit.KEEP if systemd.is_restarting() else self._on_exit
        if self._guests and on_exit is OnExit.DETACH:
            self._guests.set({})
        problems = self._reconciler.detach(Trigger.SIGNAL) if on_exit is OnExit.DETACH else []
        if self._guests:
            self._guests.close()
        self._log.info(
            Event.DAEMON_STOPPED, wires=str(on_exit), problems=problems, trigger=Trigger.SIGNAL
        )
        self._server.close()
        if on_exit is OnExit.DETACH and not problems:
            self._runtime.remove()
        for feed in self._feeds:
            feed.close()
        self._wakeup.close()
        return not problems

    # ------------------------------------------------------------------ what is due

    def _timeout(self) -> float:
        """Seconds until the next thing that is due."""
        if self._is_behind:
            return 0.0
        tried = self._trial.tried
        files = tried.deadline if tried else self._files.changed.due
        passing = self._passing.due if self._runtime.ledger.passing else None
        news: Iterable[float | None] = map(_DUE, self._feeds)
        due = (self._tick.due, files, self._reconciler.next_retry(), passing, *news)
        return max(0.0, min([each for each in due if each is not None]) - self._clock.monotonic())

    def _on_time(self) -> None:
        if self.signals.stopping:
            return
        if self._trial.tried:
            self._trial.check()
        if self._runtime.ledger.passing:
            self._passing.check()
        if self._is_behind or any(map(_IS_DUE, self._feeds)):
            self._on_events()
        if due := self._reconciler.due():
            self._reconciler.run(due, Trigger.RETRY)
        if self._tick.expired():
            self._on_tick()

    def _on_tick(self) -> None:
        self._runtime.alive()
        if self._runtime.instance:
            self._runtime.instance.introduce()
        self._server.tick()
        self._runtime.keep_pinned()
        self._files.check()
        self._reconciler.tell_repeated()
        self._on_nodes()
        if self._reconciler.has_drifted():
            self._reconciler.run(None, Trigger.NETLINK)
        elif scope := self._reconciler.disturbed():
            self._reconciler.run(scope, Trigger.NETLINK)
        self._reconciler.follow_ways()
        self._tell_manager()
        if gc.get_count()[0] > _LEFTOVERS:  # a refused file leaves a cycle or two behind
            gc.collect(1)
        self._spare.give_back(self._reconciler.tally.count)

    # ------------------------------------------------------------------ files

    def _on_files(self) -> None:
        """A change while a wiring is being tried waits for the end of the try."""
        if self._trial.tried:
            if self._files.changed.due is not None:
                self._trial.file_changed()
        elif not self.signals.stopping and (scope := self._files.read_if_due()):
            self._reconciler.run(scope, Trigger.CONFIG)

    def _read_again(self) -> None:
        """Takes the files as they are now, ends a try, and does all that can be done."""
        systemd.notify(
            RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        )
        self._trial.forget("the files are read again")
        self._files.read_again()
        self._reconciler.hurry()
        self._reconciler.run(None, Trigger.SIGNAL)
        self._tell_manager(READY=1)

    # ------------------------------------------------------------------ the kernel

    def _monitor_errors(self) -> dict[MonitorAddress, str]:
        outcomes = self._guests.outcomes() if self._guests else {}
        return {address: each.error for address, each in outcomes.items() if each.error}

    def _on_guests(self) -> None:
        """A monitor did what it was told, or did not: that is a warning of its link."""
        if self._guests:
            self._guests.drain()
        if links := self._reconciler.monitored:
            self._reconciler.run(Scope(links), Trigger.NETLINK)

    def _receive(self) -> list[monitor.Event]:
        """What the kernel has told and nobody has read; a pass asks before it looks again."""
        try:
            events = []
            for feed in self._feeds:
                events += feed.drain()
        except OverrunError:
            self._lost_events = True
            return []
        for event in events:
            self._runtime.host_use.update_stacked(event)
        return events

    def _on_nodes(self) -> None:
        if changed := self._runtime.nodes.drain():
            self._reconciler.handle_nodes(changed)

    def _on_tunnels(self) -> None:
        if changed := self._runtime.tunnels.drain():
            self._reconciler.handle_tunnels(changed)

    def _on_events(self) -> None:
        self._reconciler.handle(self._receive())
        if self._lost_events:
            self._lost_events = False
            self._log.warning(
                Event.EVENTS_LOST, reason="too many kernel events at once; all is read again"
            )
            self._reconciler.resync(Trigger.NETLINK)

    def _catch_up(self) -> bool:
        """Takes what the kernel tells by now, and repairs maps.

        Returns False where it does not tell of far ends: then what is known of these may be old.
        """
        self._on_events()
        if self._reconciler.has_drifted():
            self._reconciler.run(None, Trigger.NETLINK)
        return len(self._feeds) > 1

    @property
    def _is_behind(self) -> bool:
        """Whether a pass has received events that it did not look after."""
        return self._lost_events or self._reconciler.has_unseen

    # ------------------------------------------------------------------ systemd

    def _tell_manager(self, **more: int) -> None:
        """All links are gone through only where a pass or a file may have changed something."""
        of = self._files.reading, self._reconciler.tally.count
        before, self._told_of = self._told_of, of
        if of[0] is before[0] and of[1] == before[1] and not more:
            return
        text = headline(self._files.reading, self._reconciler.statuses.values())
        if text != self._status_line or more:
            self._status_line = text
            systemd.notify(STATUS=text, **more)

    def _counts(self) -> dict[str, Any]:
        states = [each.state for each in self._reconciler.statuses.values()]
        return {"links": len(states), "connected": states.count(State.CONNECTED)}
