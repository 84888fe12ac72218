"""What one container engine knows of some containers, kept up to date by a thread.

The engine is asked once for all of them, and then tells what happens: an event is a reason to ask
again for that one container, not an answer. While the engine is away, what it said last is kept.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from errno import ECONNRESET
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from xconnectd.lazy_imports import late
from xconnectd.nodes import containers, namespace_files
from xconnectd.nodes.containers import Container

if TYPE_CHECKING:
    from xconnectd.nodes.engine_http import Connection

_FIRST_RETRY: Final = 0.05
_LAST_RETRY: Final = 5.0
_CHEAP_RETRY: Final = 0.5
"""Seconds; the last one for as long as nobody listens, which costs next to nothing to find out."""
_END: Final = 0.3
"""Seconds that the end of the thread is waited for."""

_EVENTS: Final = ("start", "rename", *containers.ENDS)
"""A pause changes no namespace, and a restart is an end and a start."""
_RESTART_WATCH: Final = 3.0
"""Seconds after its end in which a container is looked for that was started again."""
_LOOK: Final = 0.02
"""Seconds between two looks; more if the engine takes longer to answer."""
_OVERLAP: Final = 2
"""Seconds of the past that are told again: an engine may say that it listens before it does."""


class Address(NamedTuple):
    """Where an engine listens: the first of ``sockets`` that there is.

    ``refusal`` is in words why it is not asked.
    """

    name: str
    sockets: tuple[str, ...] = ()
    refusal: str = ""

    @property
    def socket(self) -> str:
        """The one that there is; otherwise where it would be."""
        there = (each for each in self.sockets if os.path.exists(each))  # noqa: PTH110 (often)
        return next(there, self.sockets[0])


def addresses(environment: Mapping[str, str] = os.environ) -> tuple[Address, ...]:
    """Docker's and Podman's, as their own clients take them from the environment."""
    return (
        _address(
            "Docker", "DOCKER_HOST", ("/run/docker.sock", "/var/run/docker.sock"), environment
        ),
        _address("Podman", "CONTAINER_HOST", ("/run/podman/podman.sock",), environment),
    )


def _address(
    name: str, variable: str, sockets: tuple[str, ...], environment: Mapping[str, str]
) -> Address:
    host = environment.get(variable, "")
    if not host:
        return Address(name, sockets)
    if host.startswith("unix:///"):
        return Address(name, (host.removeprefix("unix://"),))
    return Address(name, refusal=f"{name} is not asked ({variable} is no unix:///PATH)")


class Told(NamedTuple):
    """What an engine said last. ``containers``, by name, are those of ``asked`` that run.

    ``problem`` is in words why that may be of yesterday; ``here``: whether there is an engine.
    """

    containers: Mapping[str, Container] = MappingProxyType({})
    asked: frozenset[str] = frozenset()
    problem: str = ""
    here: bool = True


class Engine:
    """An engine that is asked for containers. ``told`` is replaced as a whole, by its threads."""

    def __init__(
        self,
        address: Address,
        wanted: frozenset[str],
        wake: Callable[[], object],
        *,
        follow: bool = True,
    ) -> None:
        """``wake`` is called, by a thread, when ``told`` is another.

        Without ``follow`` the engine is asked once.
        """
        with late("ssl"):  # http.client would import it, 4 MB
            from xconnectd.nodes.engine_http import Connection
        self.address = address
        self.told = Told(problem=f"{address.name} has not answered yet")
        self._connect = Connection
        self._wanted = wanted
        self._wake = wake
        self._follows = follow
        self._over = False
        self._failures = 0
        self._answered = threading.Event()
        self._again = threading.Event()
        self._lock = threading.Lock()
        self._stream: Connection | None = None
        self._ended: dict[str, tuple[Container, float]] = {}
        """Containers that have ended before the engine said so, and until when to look out."""
        self._restart_watch: threading.Thread | None = None
        self._thread = threading.Thread(target=self._run, name=address.name, daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------ of the daemon's thread

    def want(self, names: frozenset[str]) -> None:
        """Replaces what is asked for."""
        if names != self._wanted:
            self._wanted = names
            self._interrupt()

    def wait(self, seconds: float) -> None:
        """For its first answer, or for the knowledge that there is none."""
        self._answered.wait(max(0.0, seconds))

    def watch_for_restart(self, ended: Container) -> None:
        """Looks by itself, for a while, whether a container that has ended was started again.

        Podman tells of a start up to half a second late (decision 20).
        """
        with self._lock:
            if not self._follows or self._ended.get(ended.name, (None,))[0] == ended:
                return
            self._ended[ended.name] = ended, time.monotonic() + _RESTART_WATCH
            if self._restart_watch is None:
                self._restart_watch = threading.Thread(target=self._look_for_ended, daemon=True)
                self._restart_watch.start()

    def close(self) -> None:
        self._over = True
        self._interrupt()
        for thread in (self._thread, self._restart_watch):
            if thread:
                thread.join(_END)

    def _interrupt(self) -> None:
        """Has the thread look at what is wanted, whatever it waits for."""
        self._again.set()
        with self._lock, suppress(OSError):
            if self._stream:
                self._stream.hang_up()

    # ------------------------------------------------------------------ of its own

    def _run(self) -> None:
        while True:
            self._again.clear()
            if self._over:
                return
            pause = self._attempt()
            self._answered.set()
            if not self._follows:
                return
            self._again.wait(pause)

    def _attempt(self) -> float:
        """Follows the engine as long as that goes well; returns after how long to try again."""
        path, started = self.address.socket, time.monotonic()
        try:
            self._follow(path) if self._follows else self._ask_for_all(path)
        except FileNotFoundError:
            if not (self.told.asked and self.told.here):
                self._tell(lambda _: Told(asked=self._wanted, here=False))
                return _CHEAP_RETRY
            words, longest = f"there is no {path}", _CHEAP_RETRY
        except ConnectionRefusedError as error:
            words, longest = f"{path}: {error.strerror}", _CHEAP_RETRY
        except OSError as error:
            words, longest = f"{path}: {error.strerror or 'it took too long'}", _LAST_RETRY
        except Exception:  # noqa: BLE001 (whatever it says, the wires are not to suffer)
            words, longest = f"{path}: its answer cannot be understood", _LAST_RETRY
        else:
            return 0.0
        problem = f"{self.address.name} does not answer: {words}"
        self._tell(lambda told: told._replace(problem=problem))
        if time.monotonic() - started > _LAST_RETRY:
            self._failures = 0
        self._failures += 1
        return min(longest, _FIRST_RETRY * 2.0 ** min(self._failures, 16))

    def _follow(self, path: str) -> None:
        """Listens first and asks then, so that nothing is missed. Returns when interrupted."""
        with self._connect(path) as connection:
            lines = connection.lines(_events_since(time.time() - _OVERLAP))
            with self._lock:
                self._stream = connection
            try:
                self._ask_for_all(path)
                if self._again.is_set():
                    return
                for line in lines:
                    self._take_event(path, line)
            finally:
                with self._lock:
                    self._stream = None
        if not self._again.is_set():
            raise ConnectionResetError(ECONNRESET, "it has hung up")

    def _ask_for_all(self, path: str) -> None:
        wanted = self._wanted
        with self._connect(path) as connection:
            found = _by_name(connection, wanted)
        self._tell(lambda _: Told(found, wanted))
        self._answered.set()

    def _take_event(self, path: str, line: bytes) -> None:
        """Asks for the container of an event, if it is wanted, or was until now.

        Docker answers for one that starts when it has started. So that others need not wait for
        that, nobody is asked whether one has ended if its process tells.
        """
        change, told = containers.change(line), self.told
        if change is None:
            return
        known = next((each for each in told.containers.values() if each.id == change.id), None)
        if change.ends and (known is None or known.start is not None):
            if known and namespace_files.start_of_process(known.pid) != known.start:
                self._replace(known.id, None)
        elif known or change.name in told.asked:
            with self._connect(path) as connection:
                now = _inspect(connection, change.id)
            self._replace(change.id, now)

    def _replace(self, container: str, now: Container | None) -> None:
        """What is known of the container with this id."""

        def replaced(told: Told) -> Told:
            left = {name: one for name, one in told.containers.items() if one.id != container}
            if now and now.name in told.asked:
                left[now.name] = now
            return told._replace(containers=MappingProxyType(left))

        self._tell(replaced)

    def _tell(self, change: Callable[[Told], Told]) -> None:
        with self._lock:
            before, self.told = self.told, change(self.told)
        if self.told != before:
            self._wake()

    # ------------------------------------------------------------------ watching for restarts

    def _look_for_ended(self) -> None:
        while names := self._names_of_ended():
            started = time.monotonic()
            with suppress(Exception), self._connect(self.address.socket) as connection:
                for name, one in _by_name(connection, names).items():
                    if one != self._ended[name][0]:
                        self._replace(one.id, one)
            time.sleep(max(_LOOK, time.monotonic() - started))

    def _names_of_ended(self) -> frozenset[str]:
        """Those to look for; with none of them the thread ends."""
        now = time.monotonic()
        with self._lock:
            names = frozenset(
                name
                for name, (ended, until) in self._ended.items()
                if now < until and self.told.containers.get(name) in (None, ended)
            )
            if not names or self._over:
                self._restart_watch = None
        return names if not self._over else frozenset()


def _by_name(connection: Connection, names: frozenset[str]) -> Mapping[str, Container]:
    """Those of them that run."""
    running = containers.running(connection.answer("/containers/json?all=true") or b"")
    found = [_inspect(connection, running[name]) for name in names & running.keys()]
    return MappingProxyType({each.name: each for each in found if each})


def _inspect(connection: Connection, container: str) -> Container | None:
    """None if it does not run. Podman tells of an end before it knows of it itself."""
    answer = connection.answer(f"/containers/{container}/json")
    found = containers.inspected(answer) if answer is not None else None
    if found is None or not connection.counts_alike:
        return found
    start = namespace_files.start_of_process(found.pid)
    return found._replace(start=start) if start is not None else None


def _events_since(seconds: float) -> str:
    filters = json.dumps({"type": ["container"], "event": _EVENTS})
    return f"/events?since={seconds:.3f}&filters={quote(filters)}"
