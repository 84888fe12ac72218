"""The life cycle: one thread waits for files, kernel, clients, signals and time.

It runs passes one at a time. Watchdog's thread only rings the bell.
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

from xconnectd.config.mounts import Disk
from xconnectd.config.source import Files, Reading
from xconnectd.config.watcher import ConfigWatch
from xconnectd.control import server
from xconnectd.control.protocol import Answer, Draft, Request
from xconnectd.control.server import Client
from xconnectd.daemon import systemd
from xconnectd.daemon.exporter import Exporter
from xconnectd.errors import XconnectError, is_full
from xconnectd.events import Event, Logger, Tap
from xconnectd.model import Scope, State, Wiring
from xconnectd.netlink.monitor import Events, OverrunError
from xconnectd.runtime import Engine
from xconnectd.status import document

_SWITCH: Final = 0.0005
"""Seconds that watchdog's threads may keep the interpreter while a save waits to be acted on."""

_ALLOCATIONS: Final = 50_000
"""Objects made, less those dropped, between two collections: a file of some thousand links."""

_LEFTOVERS: Final = 1_000
"""As many are worth a collection when there is time: some 50 µs."""

_TICK: Final = 1.0
"""Seconds between looks at what sends no event: map entries, and a file behind a bind mount."""

SIGNALS: Final = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)

_TIME_TO_WRITE: Final = 10.0


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
        with suppress(BlockingIOError):  # full: it rings already
            os.write(self._write, b"\0")

    def silence(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._read, 4096):
                pass

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


class _Trial(NamedTuple):
    """A wiring that is being tried, for as long as its client (None: gone) and its time last."""

    client: Client | None
    wiring: Wiring
    deadline: float
    is_kept: bool = False
    """Its file is being put in place."""
    edited: bool = False
    """Somebody else changed a file meanwhile."""

    def as_json(self) -> dict[str, Any]:
        left = max(0.0, self.deadline - time.monotonic())
        return {"hash": self.wiring.hash, "ends_in_s": round(left, 1), "edited": self.edited}


@dataclass(slots=True)
class _Past:
    """What the daemon knows of its own past, for ``status``."""

    started: float = field(default_factory=time.monotonic)
    last_reload: float | None = None
    last_load: float | None = None
    last_error: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "running": True,
            "answers": True,
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self.started, 1),
            "last_reload": self.last_reload and round(self.last_reload, 3),
            "last_load": self.last_load and round(self.last_load, 3),
            "last_error": self.last_error,
        }


class Daemon:
    """Keeps the kernel in agreement with the files at ``path`` until it is told to stop."""

    def __init__(
        self,
        path: Path,
        engine: Engine,
        log: Logger,
        tap: Tap,
        *,
        on_exit: OnExit = OnExit.DETACH,
    ) -> None:
        self._engine = engine
        self._reconciler = engine.reconciler
        self._log = log
        self._on_exit = on_exit
        self._bell = Bell()
        self._events = Events()
        engine.links.follow()
        self._disk = Disk()
        self._watch = ConfigWatch(path, self._file_changed, self._disk)
        self._files = Files(path, self._disk)
        self._reading = Reading(self._reconciler.wiring, ())
        self._reload = _Alarm()
        self._trial: _Trial | None = None
        self._past = _Past()
        self._told = ""
        self._orphan = ""
        self._unwatched = ""
        self._signals: list[int] = []
        self._stopping = False
        self._selector = selectors.DefaultSelector()
        self._catch_signals()
        self._server = self._serve_clients(path)
        self._exporter = Exporter(self._facts, self._bell.ring, log)
        tap.publish = self._publish

    def _serve_clients(self, path: Path) -> server.Server:
        """On a full disk there is no room for sockets either, and no reason not to start."""
        place = self._engine.ledger.path
        try:
            self._engine.ledger.set_config(path)
        except OSError as error:  # then commands are told no file
            if not is_full(error):
                raise
        try:
            return server.Server(place, self._selector, self._answer, self._client_gone)
        except OSError as error:
            if not is_full(error) and place.exists():
                raise
            self._log.warning(Event.STATE_UNWRITABLE, reason=f"no command reaches me: {error}")
            return server.Server(None, self._selector, self._answer, self._client_gone)

    # ------------------------------------------------------------------ life

    def run(self) -> None:
        """From the first pass until it is told to stop."""
        started = time.monotonic()
        self._watch.start()
        self._first_pass()
        sys.setswitchinterval(_SWITCH)
        gc.freeze()  # a collection need not walk through all modules again and again,
        gc.set_threshold(_ALLOCATIONS)  # nor come in the middle of reading a file
        gc.enable()
        self._log.info(
            Event.DAEMON_READY,
            pid=os.getpid(),
            config_hash=self._reconciler.wiring.hash,
            **self._counts(),
            duration_ms=round((time.monotonic() - started) * 1000, 1),
        )
        self._tell_manager(READY=1)
        self._serve()

    def stop(self) -> bool:
        """Stops watching and lets go of the wires, if that is what the end is to do.

        Returns False if something could not be put back; the log has said what.
        """
        systemd.notify(STOPPING=1)
        self._watch.stop()
        self._disk.close()
        self._exporter.close()
        self._reconciler.tell_repeated(at_once=True)
        on_exit = OnExit.KEEP if systemd.is_restarting() else self._on_exit
        problems = self._reconciler.detach("signal") if on_exit is OnExit.DETACH else []
        self._log.info(
            Event.DAEMON_STOPPED, wires=str(on_exit), problems=problems, trigger="signal"
        )
        self._server.close()
        if on_exit is OnExit.DETACH and not problems:
            self._engine.remove()
        self._events.close()
        self._bell.close()
        return not problems

    def _first_pass(self) -> None:
        """With good files, they are made true. What no good file speaks of goes on as it is."""
        self._take(self._files.read_first(self._reconciler.found), again=True)
        self._reconciler.resync("start")

    def _serve(self) -> None:
        self._selector.register(self._events, selectors.EVENT_READ, self._on_events)
        self._selector.register(self._bell, selectors.EVENT_READ, self._bell.silence)
        tick = _Alarm()
        while not self._stopping:
            self._exporter.follow(self._reconciler.wiring.metrics)
            self._events.follow_routes(self._reconciler.loose)
            tick.set_in(_TICK)
            for key, _ in self._selector.select(self._patience(tick)):
                key.data()
            self._on_signals()
            self._on_files()
            self._on_time(tick)
            self._exporter.answer()

    def _patience(self, tick: _Alarm) -> float:
        """Seconds until the next thing that is due."""
        files = self._trial.deadline if self._trial else self._reload.due
        alarms = (tick.due, files, self._reconciler.next_retry(), self._events.due)
        return max(0.0, min(due for due in alarms if due is not None) - time.monotonic())

    def _on_time(self, tick: _Alarm) -> None:
        if self._stopping:
            return
        self._mind_trial()
        if self._events.is_due():
            self._on_events()
        if due := self._reconciler.due():
            self._reconciler.run(due, "retry")
        if tick.take():
            self._on_tick()

    def _on_tick(self) -> None:
        self._engine.alive()
        if self._engine.instance:
            self._engine.instance.introduce()
        self._server.tick()
        self._engine.keep_pinned()
        self._watch.check()
        self._say_if_orphaned()
        self._say_if_unwatched()
        self._reconciler.tell_repeated()
        if self._reconciler.has_drifted():
            self._reconciler.run(None, "netlink")
        elif scope := self._reconciler.disturbed():
            self._reconciler.run(scope, "netlink")
        self._tell_manager()
        if gc.get_count()[0] > _LEFTOVERS:  # a refused file leaves a cycle or two behind
            gc.collect(1)

    def _tell_manager(self, **more: int) -> None:
        text = document.headline(self._reading, self._reconciler.statuses.values())
        if text != self._told or more:
            self._told = text
            systemd.notify(STATUS=text, **more)

    def _counts(self) -> dict[str, Any]:
        states = [each.state for each in self._reconciler.statuses.values()]
        return {"links": len(states), "connected": states.count(State.CONNECTED)}

    # ------------------------------------------------------------------ signals

    def _catch_signals(self) -> None:
        signal.set_wakeup_fd(self._bell.handle, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGHUP:
            if self._stopping:
                os._exit(1)  # the second one: whoever sends it does not want to wait
            self._stopping = True
        self._signals.append(number)

    def _on_signals(self) -> None:
        signals, self._signals = self._signals, []
        if signal.SIGHUP in signals and not self._stopping:
            self._read_again()

    def _read_again(self) -> None:
        """Takes the files as they are now, ends a try, and does all that can be done."""
        systemd.notify(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(1) // 1000)
        if self._trial:
            self._trial = None
            self._log.warning(Event.TRY_REVERTED, reason="the files are read again")
        self._take(self._files.read(), again=True)
        self._reconciler.hurry()
        self._reconciler.run(None, "signal")
        self._tell_manager(READY=1)

    # ------------------------------------------------------------------ files

    def _file_changed(self, settle: float) -> None:
        """Called by the watcher's thread."""
        self._reload.set_in(settle)
        self._bell.ring()

    def _on_files(self) -> None:
        """A change while a wiring is being tried waits for the end of the try."""
        if self._trial:
            self._say_if_deferred(self._trial)
            return
        if self._stopping or not self._reload.take():
            return
        if scope := self._take(self._files.read()):
            self._reconciler.run(scope, "config")

    def _say_if_deferred(self, trial: _Trial) -> None:
        if self._reload.due is not None and not trial.is_kept and not trial.edited:
            self._trial = trial._replace(edited=True)
            self._log.warning(
                Event.CONFIG_DEFERRED,
                path=str(self._files.path),
                reason="a wiring is being tried; the files are read when that ends",
            )

    def _take(self, reading: Reading, *, again: bool = False) -> Scope:
        """Wants what the files say, and tells of what is new in them."""
        before, self._reading = self._reading, reading
        known = {file.path: file for file in before.files}
        for file in reading.files:
            was = known.get(file.path)
            if file.problems and (again or was is None or was.problems != file.problems):
                self._log.error(
                    Event.CONFIG_UNREACHABLE if file.unreachable else Event.CONFIG_REJECTED,
                    path=str(file.path),
                    problems=[str(problem) for problem in file.problems],
                    reason="its last good links stay",
                )
        if reading.wiring == self._reconciler.wiring and not again:
            if before.state != "loaded" and reading.state == "loaded":
                self._tell_loaded(reading)
            return Scope()
        scope = self._reconciler.want(reading.wiring)
        self._past.last_reload = time.time()
        if reading.state == "loaded" or scope:
            self._tell_loaded(reading)
        return scope

    def _tell_loaded(self, reading: Reading) -> None:
        self._past.last_load = time.time()
        self._log.info(
            Event.CONFIG_LOADED,
            path=str(self._files.path),
            config_hash=reading.wiring.hash,
            links=len(reading.wiring.links),
        )
        for warning in reading.wiring.warnings:
            self._log.warning(Event.CONFIG_WARNING, config_hash=reading.wiring.hash, reason=warning)

    def _say_if_orphaned(self) -> None:
        orphan = self._watch.orphan
        if orphan and orphan != self._orphan:
            self._log.error(
                Event.CONFIG_UNREACHABLE,
                path=orphan,
                reason="the file was replaced behind a bind mount of the single file; what is"
                " written outside will never be seen here: mount its directory instead",
            )
        self._orphan = orphan

    def _say_if_unwatched(self) -> None:
        problem = self._watch.problem
        if problem and problem != self._unwatched:
            self._log.warning(
                Event.CONFIG_UNWATCHED,
                path=str(self._files.path),
                reason=f"{problem}; meanwhile a change is found within two seconds",
            )
        elif self._unwatched and not problem:
            self._log.info(Event.CONFIG_WATCHED, path=str(self._files.path))
        self._unwatched = problem

    # ------------------------------------------------------------------ the kernel

    def _on_events(self) -> None:
        try:
            events = self._events.drain()
        except OverrunError:
            self._log.warning(Event.EVENTS_LOST, reason="too many at once; all is read again")
            self._engine.links.follow()
            self._reconciler.resync("netlink")
            return
        for event in events:
            self._engine.links.heard(event)
        self._reconciler.handle(events)

    # ------------------------------------------------------------------ clients

    def _answer(self, client: Client, request: Request) -> Answer:
        do = request.get("do")
        if do == "ping":
            return {"ok": True}
        if do == "status":
            return self._status()
        if do == "events":
            client.wants_events = True
            return {"ok": True}
        if not client.privileged:
            return {"ok": False, "error": "this socket may only look"}
        match do:
            case "reload":
                self._read_again()
                return self._outcome()
            case "try":
                return self._try(client, request)
            case "hold":
                return self._hold(client)
            case "keep":
                return self._keep(client)
        return {"ok": False, "error": f"no such request: {do}"}

    def _status(self) -> Answer:
        try:
            return self._facts()()
        except (XconnectError, OSError) as error:  # a look that was refused: no reason to end
            return {"ok": False, "error": str(error)}

    def _facts(self) -> Callable[[], Answer]:
        """What this thread alone may look at; any thread can make a report of it, by a call."""
        return partial(
            document.document,
            self._self_report(),
            self._reading,
            self._files.path,
            statuses=tuple(self._reconciler.statuses.values()),
            counters=self._engine.counters(),
            drop_stats_unavailable=self._engine.drop_stats_unavailable,
            guard_unavailable=self._engine.guard_unavailable,
            moved_netns=self._engine.ledger.moved_netns(),
        )

    def _self_report(self) -> dict[str, Any]:
        """What the daemon knows of itself, and no look at the kernel could tell."""
        return {
            **self._past.as_json(),
            **self._reconciler.tally.as_json(),
            "starts": dict(self._engine.ledger.starts()),
            "metrics": self._exporter.as_json(),
            "try": self._trial and self._trial.as_json(),
        }

    def _outcome(self) -> Answer:
        return {
            "ok": self._reading.state == "loaded",
            "problems": [str(problem) for problem in self._reading.problems],
            "summary": document.summary(self._reconciler.statuses.values()),
            "waiting": [
                f"{link} waits: {each.told}"
                for link, each in self._reconciler.statuses.items()
                if each.state is State.WAITING
            ],
        }

    def _client_gone(self, client: Client) -> None:
        """Heard also in the middle of a pass, whose events this client was to be told."""
        if self._trial and self._trial.client is client:
            self._trial = self._trial._replace(client=None)

    def _publish(self, event: Mapping[str, Any]) -> None:
        if event.get("level") in ("error", "warning"):
            self._past.last_error = f"{event['event']}: {event.get('reason', '')}".rstrip(": ")
        self._server.publish(event)

    # ------------------------------------------------------------------ try

    def _try(self, client: Client, request: Request) -> Answer:
        try:
            draft = Draft.of(request)
        except ValueError as error:
            return {"ok": False, "error": f"not understood: {error}"}
        if self._trial:
            return {"ok": False, "error": "another wiring is being tried"}
        place, reading = self._files.imagine(draft.name, draft.text, draft.instead)
        if reading.problems:
            return {"ok": False, "refused": [tuple(each) for each in reading.problems]}
        wiring, seconds = reading.wiring, draft.seconds
        self._trial = _Trial(client, wiring, time.monotonic() + seconds)
        self._log.info(Event.TRY_STARTED, config_hash=wiring.hash, seconds=seconds)
        if scope := self._reconciler.want(wiring):
            self._reconciler.run(scope, "try")
        return self._outcome() | {"ok": True, "place": str(place)}

    def _hold(self, client: Client) -> Answer:
        """The client is about to put the file in place: time enough for that."""
        if self._trial is None or self._trial.client is not client:
            return {"ok": False, "error": "too late, it was taken back"}
        deadline = time.monotonic() + _TIME_TO_WRITE
        self._trial = self._trial._replace(deadline=deadline, is_kept=True)
        return {"ok": True}

    def _keep(self, client: Client) -> Answer:
        """What was tried stands in the file's place now; from here on the file wins."""
        if self._trial is None or self._trial.client is not client:
            return {"ok": False, "error": "too late, it was taken back"}
        tried, self._trial = self._trial.wiring, None
        if scope := self._take(self._files.read(), again=True):
            self._reconciler.run(scope, "config")
        self._log.info(Event.TRY_KEPT, config_hash=self._reconciler.wiring.hash)
        kept = self._reconciler.wiring.links == tried.links
        return {"ok": kept, "error": "" if kept else "the file is not what was tried"}

    def _mind_trial(self) -> None:
        """Whoever did not confirm it has hung up, or has not by now: it comes to the same."""
        if self._trial and (self._trial.client is None or time.monotonic() >= self._trial.deadline):
            self._revert("not confirmed")

    def _revert(self, reason: str) -> None:
        """Back to what the files say now."""
        self._trial = None
        self._log.warning(Event.TRY_REVERTED, reason=reason)
        if scope := self._take(self._files.read(), again=True):
            self._reconciler.run(scope, "config")
