"""The daemon on the fake kernel, one turn of its loop at a time; tests set what time it is."""

from __future__ import annotations

import json
import logging
import math
import select
import selectors
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
from kernel import Book, Kernel, Nodes, Tunnels
from structlog.testing import LogCapture

from xconnectd import paths
from xconnectd.config.identity import Identity
from xconnectd.config.source import Files, FileState, Reading
from xconnectd.daemon.daemon import Daemon, OnExit
from xconnectd.daemon.ports import Source
from xconnectd.daemon.signals import Wakeup
from xconnectd.events import Logger, Publisher
from xconnectd.model import Counters, Link, Wiring
from xconnectd.netlink.monitor import Event, OverrunError
from xconnectd.reconcile import netns_moves, reconciler, retry
from xconnectd.reconcile.executor import Executor
from xconnectd.reconcile.netns_moves import NetnsMoves
from xconnectd.reconcile.reconciler import Reconciler


class Clock:
    """Stands in for the module ``time``."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now + 1_700_000_000

    def forward(self, seconds: float) -> None:
        self.now += seconds


def set_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """One for the daemon and its reconciler, for a fixture of the tests that turn it."""
    clock = Clock()
    for module in (netns_moves, reconciler, retry):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(Keeper, "clock", clock)
    return clock


def nothing(*_: object) -> None:
    """Stands in for what there is nothing to do for here."""


class OneFile:
    """A file that says ``wiring``, without a disk."""

    path = Path("wires.yaml")

    def __init__(self) -> None:
        self.wiring = Wiring()

    def read(self) -> Reading:
        return Reading(self.wiring, (FileState(self.path, "loaded", self.wiring),))

    def read_first(self, _found: Callable[[], Iterable[Link]]) -> Reading:
        return self.read()

    close = nothing


class Watch:
    """Tells of a change when a test says so."""

    def __init__(self, changed: Callable[[float], None]) -> None:
        self.changed = changed
        self.problem = self.orphan = ""

    start = stop = check = nothing


class News:
    """The feed of the kernel's news.

    Attributes:
        due: when there is more of it, though nothing can be read.
        follows_routes: whether it is told of routes.
        room: for so much of it at a time.
    """

    due: float | None = None
    room: float = math.inf
    follows_routes = False

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.is_overrun = False

    def fileno(self) -> int:
        return -1

    def is_ready(self) -> bool:
        return bool(self._kernel.news) or self.is_overrun

    def drain(self) -> list[Event]:
        if self.is_overrun or len(self._kernel.news) > self.room:
            self.is_overrun = False
            self._kernel.news.clear()
            raise OverrunError
        news, self._kernel.news = self._kernel.news, []
        return news

    def follow_routes(self, wanted: bool) -> None:
        self.follows_routes = wanted

    is_due = close = nothing


class Quiet(News):
    """What is told of the far ends of veths: nothing, so all is as it was."""

    def __init__(self) -> None:
        self.is_overrun = False

    def is_ready(self) -> bool:
        return False

    def drain(self) -> list[Event]:
        return []


class Flag(Wakeup):
    """A wakeup without a pipe."""

    def __init__(self) -> None:
        self._is_set = False

    def is_ready(self) -> bool:
        return self._is_set

    def wake(self) -> None:
        self._is_set = True

    def clear(self) -> None:
        self._is_set = False

    close = nothing


class Selector(selectors.BaseSelector):
    """Waits in the time of tests, for as long as they say.

    Attributes:
        timeout: for how many seconds it was last to wait at most.
        wait: for how many it does.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.wait = 0.0
        self._keys: dict[Any, selectors.SelectorKey] = {}
        self.timeout: float | None = None

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        self._keys[fileobj] = key = selectors.SelectorKey(fileobj, -1, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.timeout = timeout
        self._clock.forward(self.wait)
        return [(key, key.events) for key in self._keys.values() if _is_ready(key)]

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


def _is_ready(key: selectors.SelectorKey) -> bool:
    """A socket is asked of the real kernel, all others say it themselves."""
    if isinstance(key.fileobj, News | Flag | Nodes | Tunnels):
        return key.fileobj.is_ready()
    wanted = [key.fileobj]
    return any(select.select(wanted, wanted if key.events & selectors.EVENT_WRITE else [], [], 0))


class Runtime:
    """What ``runtime.Engine`` puts together, around the fake kernel."""

    instance = None
    drop_stats_unavailable = guard_unavailable = ""

    def __init__(self, kernel: Kernel, book: Book, log: Logger) -> None:
        self.host_use = kernel
        self.ledger = book
        self.nodes = Nodes(kernel)
        self.tunnels = Tunnels()
        self.reconciler = Reconciler(
            *(kernel, kernel, kernel, kernel, book),
            nodes=self.nodes,
            tunnels=self.tunnels,
            way_to=kernel.way_to,
            log=log,
        )
        self.is_removed = False
        self.times_pinned = 0

    alive = nothing

    def keep_pinned(self) -> None:
        self.times_pinned += 1

    def counters(self) -> Mapping[int, Counters]:
        return {}

    def counters_in_parts(self) -> Iterator[Mapping[int, Counters]]:
        yield self.counters()

    crossed_in_parts = counters_in_parts

    def remove(self) -> None:
        self.is_removed = True


class Keeper:
    """A daemon that keeps the fake kernel in agreement with its file.

    Attributes:
        clock: its time; a test that turns it has one of its own by ``set_clock``.
        executor, netns_moves: parts of a pass, for tests that go through one step by step.
    """

    clock = Clock()

    def __init__(
        self,
        kernel: Kernel,
        book: Book | None = None,
        *,
        source: Source | None = None,
        sockets: Path | None = None,
        on_exit: OnExit = OnExit.DETACH,
        hears_far_ends: bool = True,
    ) -> None:
        self.kernel = kernel
        self.book = book or Book(kernel)
        self._capture = LogCapture()
        publisher = Publisher()
        log = structlog.wrap_logger(
            None,
            processors=[structlog.processors.add_log_level, publisher, self._capture],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        )
        self.runtime = Runtime(kernel, self.book, log)
        self.reconciler = self.runtime.reconciler
        kernel.awaited = self.reconciler.awaited
        self.executor = Executor(kernel, kernel, self.book)
        self.netns_moves = NetnsMoves(kernel, kernel, self.book, log)
        self._file = OneFile()
        self.news = News(kernel)
        self.selector = Selector(self.clock)
        self.daemon = Daemon(
            self.runtime,
            source or self._file,
            self._watch_by,
            self.news,
            log,
            publisher=publisher,
            sockets=sockets,
            on_exit=on_exit,
            clock=self.clock,
            selector=self.selector,
            wakeup=Flag(),
            far_events=Quiet() if hears_far_ends else None,
        )

    def _watch_by(self, changed: Callable[[float], None]) -> Watch:
        self.watch = Watch(changed)
        return self.watch

    @property
    def log(self) -> list[Mapping[str, Any]]:
        return list(self._capture.entries)

    def events(self) -> list[str]:
        """The names of all events since the last call."""
        names = [str(entry["event"]) for entry in self._capture.entries]
        self._capture.entries.clear()
        return names

    # ------------------------------------------------------------------ what happens to it

    def start(self, wanted: Wiring | None = None) -> Keeper:
        """The first pass; what it made of the kernel is no news any more."""
        self._file.wiring = wanted or Wiring()
        self.daemon.start()
        self.kernel.news.clear()
        return self

    def step(self, seconds: float = 0.0) -> None:
        """One turn of the loop, in which it waits for so long."""
        self.selector.wait = seconds
        self.daemon.step()

    def take(self, wanted: Wiring) -> None:
        """The file is changed."""
        self._file.wiring = wanted
        self.watch.changed(0.0)
        self.step()

    def settle(self) -> int:
        """Reacts to news until there is none; returns how often it took."""
        for times in range(12):
            passes = self.reconciler.tally.count
            self.step()
            if self.reconciler.tally.count == passes:
                return times
        raise AssertionError("its own changes make it change ever more")

    def tick(self) -> None:
        self.step(1.0)

    def retry(self) -> None:
        self.step()

    def restart(self) -> Keeper:
        """A new daemon on the same kernel and ledger, with the same file."""
        return Keeper(self.kernel, self.book).start(self.reconciler.wiring)

    # ------------------------------------------------------------------ how its links are

    def state(self, link_id: str) -> str:
        return str(self.reconciler.statuses[link_id].state)

    def states(self) -> dict[str, str]:
        return {link_id: self.state(link_id) for link_id in self.reconciler.statuses}


# --------------------------------------------------------------------------- with files and clients

FIRST, DRAFT, OTHER = (f"links: {{v0: {name}}}\n" for name in ("v1", "v2", "v3"))
BAD = "links: [\n"


class Site:
    """A daemon with a file of its own, or with a directory of ``files`` by their names.

    It serves its clients in the state directory that is set, where commands look for it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        text: str | None = FIRST,
        files: Mapping[str, str] | None = None,
        on_exit: OnExit = OnExit.DETACH,
        hears_far_ends: bool = True,
    ) -> None:
        self.kernel = Kernel()
        for number in range(6):
            self.kernel.add(f"v{number}")
        self.kernel.news.clear()
        self.file = directory / ("wires.yaml" if files is None else "wires.d")
        if files is not None:
            self.file.mkdir()
        elif text is not None:
            self.file.write_text(text)
        for name, each in (files or {}).items():
            (self.file / name).write_text(each)
        self.sockets = paths.directory()
        self.sockets.mkdir(parents=True, exist_ok=True)
        self._options = {"on_exit": on_exit, "hears_far_ends": hears_far_ends}
        self.addresses: set[str] = set()
        """Of this machine."""
        self.keeper = self._keeper(Book(self.kernel))

    def _keeper(self, book: Book) -> Keeper:
        source = Files(self.file, identity=Identity(lambda: self.addresses))
        return Keeper(
            self.kernel, book, source=source, sockets=self.sockets, **self._options
        ).start()

    def restart(self) -> None:
        """As after a crash: nothing was put back, and the clients are gone."""
        self.keeper.daemon._server.close()
        self.keeper = self._keeper(self.keeper.book)

    def save(self, text: str, name: str = "") -> None:
        """The file, or that one of the directory; it is read when this returns."""
        (self.file / name).write_text(text)
        self.changed()

    def remove(self, name: str = "") -> None:
        (self.file / name).unlink()
        self.changed()

    def changed(self) -> None:
        self.keeper.watch.changed(0.0)
        self.keeper.step()

    def partner(self, name: str = "v0") -> str | None:
        return self.kernel.leads(name)

    def files(self) -> dict[str, str]:
        """The state of each, by its name."""
        reading = self.keeper.daemon._files.reading
        return {file.path.name: file.state for file in reading.files}

    def connect(self, name: str = "control.sock") -> Peer:
        return Peer(self, self.sockets / name)


class Peer:
    """A client of the daemon."""

    def __init__(self, site: Site, path: Path) -> None:
        self._site = site
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(5)
        self._socket.connect(str(path))
        site.keeper.step()  # accepts

    def send(self, do: object, **more: Any) -> None:
        self._socket.sendall(json.dumps({"do": do, **more}).encode() + b"\n")

    def ask(self, do: object, **more: Any) -> dict[str, Any]:
        self.send(do, **more)
        told = b""
        while not told.endswith(b"\n"):
            self._site.keeper.step()
            with suppress(BlockingIOError):
                told += self._socket.recv(1 << 16, socket.MSG_DONTWAIT)
        answer: dict[str, Any] = json.loads(told)
        return answer

    def start_trial(
        self, text: str = DRAFT, seconds: float = 30, name: str = "draft.yaml", **more: Any
    ) -> dict[str, Any]:
        return self.ask("try", path=name, text=text, timeout=seconds, **more)

    def close(self) -> None:
        self._socket.close()
