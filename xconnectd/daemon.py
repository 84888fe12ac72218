"""The life cycle: one thread that waits for the file, the kernel, signals and time, and runs
passes one at a time. Watchdog's thread only rings the bell."""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Any, Final

from xconnectd import config, netlink
from xconnectd.errors import ConfigError
from xconnectd.engine import Engine
from xconnectd.log import Event, Logger
from xconnectd.model import State
from xconnectd.netlink import Events, Overrun
from xconnectd.observe import Scope
from xconnectd.watch import ConfigWatch

_TICK: Final = 1.0
"""Seconds between looks at what sends no event: map entries, and a file behind a bind mount."""


class OnExit(StrEnum):
    """What becomes of the wires when the daemon is told to stop."""

    DETACH = "detach"
    KEEP = "keep"


class Bell:
    """Wakes the main thread from any thread or signal handler."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._read

    @property
    def handle(self) -> int:
        return self._write

    def ring(self) -> None:
        try:
            os.write(self._write, b"\0")
        except BlockingIOError:  # full: it rings already
            return

    def silence(self) -> None:
        try:
            while os.read(self._read, 4096):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


@dataclass(slots=True)
class _Alarm:
    """When something is due (``time.monotonic``), None for never."""

    due: float | None = None

    def set_in(self, seconds: float) -> None:
        """Sets it, or moves it nearer; an alarm is never put off by a later wish."""
        due = time.monotonic() + seconds
        self.due = due if self.due is None else min(self.due, due)

    def take(self) -> bool:
        if self.due is None or time.monotonic() < self.due:
            return False
        self.due = None
        return True


class Daemon:
    """Keeps the kernel in agreement with the file at ``path`` until it is told to stop."""

    def __init__(
        self,
        path: Path,
        engine: Engine,
        log: Logger,
        *,
        on_exit: OnExit = OnExit.DETACH,
    ) -> None:
        self._path = path
        self._engine = engine
        self._reconciler = engine.reconciler
        self._log = log
        self._on_exit = on_exit
        self._bell = Bell()
        self._events = Events()
        self._watch = ConfigWatch(path, self._file_changed)
        self._reload = _Alarm()
        self._refused = ""
        self._signals: list[int] = []
        self._stopping = False

    # ------------------------------------------------------------------ life

    def run(self) -> None:
        """From the first pass to the last; returns when it was told to stop."""
        started = time.monotonic()
        self._engine.ledger.set_config(self._path)
        self._catch_signals()
        self._watch.start()
        self._first_pass()
        self._log.info(
            Event.DAEMON_READY,
            pid=os.getpid(),
            config_hash=self._reconciler.wiring.hash,
            **self._counts(),
            duration_ms=round((time.monotonic() - started) * 1000, 1),
        )
        self._serve()

    def stop(self) -> bool:
        """Stops watching and lets go of the wires, if that is what the end is to do.

        Returns False if something could not be put back; the log has said what.
        """
        self._watch.stop()
        problems: list[str] = []
        if self._on_exit is OnExit.DETACH:
            problems = self._reconciler.release()
            if not problems:
                self._engine.remove()
        self._log.info(
            Event.DAEMON_STOPPED, wires=str(self._on_exit), problems=problems, trigger="signal"
        )
        self._events.close()
        self._bell.close()
        return not problems

    def _first_pass(self) -> None:
        """With a good file, that is made true. Without, what stands in the kernel goes on."""
        if self._read_file() is None:
            self._reconciler.adopt()
        self._reconciler.find_departed()
        self._reconciler.run(None, "start")

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._events, selectors.EVENT_READ, self._on_events)
            selector.register(self._bell, selectors.EVENT_READ, self._bell.silence)
            if instance := self._engine.instance:
                selector.register(instance, selectors.EVENT_READ, instance.answer)
            tick = _Alarm()
            while not self._stopping:
                tick.set_in(_TICK)
                for key, _ in selector.select(self._patience(tick)):
                    handle: Callable[[], None] = key.data
                    handle()
                self._on_signals()
                if self._reload.take():
                    self._on_file("config")
                if (due := self._reconciler.due()) and not self._stopping:
                    self._reconciler.run(due, "retry")
                if tick.take():
                    self._on_tick()

    def _patience(self, tick: _Alarm) -> float:
        """Seconds until the next thing that is due."""
        alarms = (tick.due, self._reload.due, self._reconciler.next_retry())
        return max(0.0, min(due for due in alarms if due is not None) - time.monotonic())

    # ------------------------------------------------------------------ signals

    def _catch_signals(self) -> None:
        signal.set_wakeup_fd(self._bell.handle, warn_on_full_buffer=False)
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGHUP:
            if self._stopping:
                os._exit(1)  # the second one: whoever sends it does not want to wait
            self._stopping = True
        self._signals.append(number)

    def _on_signals(self) -> None:
        signals, self._signals = self._signals, []
        if signal.SIGHUP in signals and not self._stopping:
            self._read_file(again=True)
            self._reconciler.run(None, "signal")

    # ------------------------------------------------------------------ the file

    def _file_changed(self, settle: float) -> None:
        """Called by the watcher's thread."""
        self._reload.set_in(settle)
        self._bell.ring()

    def _on_file(self, trigger: str) -> None:
        scope = self._read_file()
        if scope:
            self._reconciler.run(scope, trigger)

    def _read_file(self, *, again: bool = False) -> Scope | None:
        """Takes the file if it is good; None if it is not, and then nothing changes."""
        try:
            wiring = config.load(self._path)
        except ConfigError as error:
            self._reject(error, again)
            return None
        self._refused = ""
        if wiring.hash == self._reconciler.wiring.hash and not again:
            return Scope()
        for warning in wiring.warnings:
            self._log.warning(Event.CONFIG_LOADED, config_hash=wiring.hash, reason=warning)
        scope = self._reconciler.want(wiring)
        self._log.info(
            Event.CONFIG_LOADED,
            path=str(self._path),
            config_hash=wiring.hash,
            links=len(wiring.links),
        )
        return scope

    def _reject(self, error: ConfigError, again: bool) -> None:
        if str(error) == self._refused and not again:
            return
        self._refused = str(error)
        self._log.error(
            Event.CONFIG_REJECTED,
            path=str(self._path),
            problems=[str(problem) for problem in error.problems],
            reason="the last good wiring stays",
        )

    # ------------------------------------------------------------------ the kernel

    def _on_events(self) -> None:
        try:
            events = self._events.drain()
        except Overrun:
            self._log.warning(Event.EVENTS_LOST, reason="too many at once; all is read again")
            self._reconciler.run(None, "netlink")
            return
        scope = self._scope_of(events)
        if scope:
            self._reconciler.run(scope, "netlink")

    def _scope_of(self, events: Iterable[netlink.Event]) -> Scope:
        names: set[str] = set()
        ifindexes: set[int] = set()
        for event in events:
            own = (event.name, *event.altnames)
            if event.gone and self._reconciler.holds(event.ifindex):
                self._reconciler.depart(event.ifindex, event.nsid, event.new_ifindex)
            if self._reconciler.concerns(event.ifindex, own):
                ifindexes.add(event.ifindex)
                names.update(own)
        return Scope(frozenset(names - {""}), frozenset(ifindexes))

    def _on_tick(self) -> None:
        self._watch.check()
        if self._reconciler.has_drifted():
            self._reconciler.run(None, "netlink")

    def _counts(self) -> dict[str, Any]:
        states = [each.state for each in self._reconciler.statuses.values()]
        return {"links": len(states), "connected": states.count(State.CONNECTED)}
