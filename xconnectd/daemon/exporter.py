"""Where metrics are served: a socket that follows the file, with a server behind it.

What the server's threads tell they ask of the daemon's loop, since netlink and the maps are not
for two threads. Nothing is kept from one request to the next.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, TypeVar

from xconnectd.control import unix_sockets
from xconnectd.errors import XconnectError
from xconnectd.events import Event, Logger
from xconnectd.model import Listen
from xconnectd.status.document import Metrics, StatusDocument

if TYPE_CHECKING:
    from concurrent.futures import Future

    from xconnectd.daemon.metrics_server import MetricsServer

_T = TypeVar("_T")

Facts = Callable[[], StatusDocument]
"""What the daemon found, ready to be made a report by any thread."""

_LOOK: Final = 10.0
"""Seconds that the daemon's loop may take to look."""
_RETRY: Final = 5.0
"""Seconds between attempts to listen where it was not possible."""


class Exporter:
    """Serves metrics where it is told to. All its methods are for the daemon's own thread."""

    def __init__(self, look: Callable[[], Facts], wake: Callable[[], None], log: Logger) -> None:
        """``look`` is for the daemon's thread; ``wake``, from any, has ``answer`` called soon."""
        self._look = look
        self._wake = wake
        self._log = log
        self._asked: SimpleQueue[Future[Facts]] = SimpleQueue()
        self._wanted: Listen | None = None
        self._server: MetricsServer | None = None
        self._path: _Path | None = None
        self._troubles: SimpleQueue[str] = SimpleQueue()
        self._told: set[str] = set()
        self._problem = ""
        self._due = 0.0

    def follow(self, wanted: Listen | None) -> None:
        """Serves there from now on (None: nowhere), or as soon as that is possible.

        To be called again and again: it costs nothing while all is well.
        """
        if wanted != self._wanted:
            self.close()
            self._wanted, self._problem, self._due = wanted, "", 0.0
        if self._server and not self._server.is_alive():
            self.close()
            self._fail("its thread has ended")
        if wanted and not self._server and time.monotonic() >= self._due:
            self._open(wanted)

    def answer(self) -> None:
        """Tells everybody who has asked by now, and the log what the server's threads have met."""
        if self._server is None:
            return
        for reason in _taken(self._troubles):
            self._log.warning(Event.METRICS_REFUSED, listen=str(self._wanted), reason=reason)
        asked = [each for each in _taken(self._asked) if each.set_running_or_notify_cancel()]
        if not asked:
            return
        try:
            facts = self._look()
        except (XconnectError, OSError) as error:  # the kernel refused a look
            for each in asked:
                each.set_exception(error)
        else:
            for each in asked:
                each.set_result(facts)

    def told(self) -> Metrics | None:
        """For ``status``; None when nothing is to be served."""
        return Metrics(str(self._wanted), self._problem) if self._wanted else None

    def close(self) -> None:
        """Serves nowhere any more. Those who wait for an answer get none."""
        server, self._server = self._server, None
        if server:
            server.stop()
            for question in _taken(self._asked):
                question.cancel()
            if self._path:
                self._path.remove()
            self._log.info(Event.METRICS_STOPPED, listen=str(self._wanted))

    def _open(self, wanted: Listen) -> None:
        try:
            from xconnectd.daemon.metrics_server import MetricsServer

            listener = _listener(wanted)
            self._path = _Path(wanted.path) if wanted.path else None
            self._server = MetricsServer(listener, self._ask, self._tell)
        except OSError as error:
            self._fail(_in_words(error, wanted))
        except ImportError as error:
            self._fail(f"{error.name} is not installed: pip install prometheus-client")
        else:
            self._problem = ""
            self._told.clear()
            self._log.info(Event.METRICS_SERVED, listen=str(wanted))

    def _fail(self, reason: str) -> None:
        """Says so once, and tries again: what is in the way may go, and the wires need none."""
        if reason != self._problem:
            self._log.warning(
                Event.METRICS_FAILED,
                listen=str(self._wanted),
                reason=f"{reason}; tried again every {_RETRY:g} s",
            )
        self._problem = reason
        self._due = time.monotonic() + _RETRY

    # ------------------------------------------------------------------ called by any thread

    def _ask(self) -> StatusDocument:
        """Raises what the look raised; TimeoutError if the loop has no time."""
        from concurrent.futures import CancelledError, Future  # 1 ms that only metrics should cost

        question: Future[Facts] = Future()
        self._asked.put(question)
        self._wake()
        try:
            return question.result(_LOOK)()
        except CancelledError as error:
            raise ConnectionAbortedError("no longer served") from error

    def _tell(self, kind: str, reason: str) -> None:
        """Once a kind, so that nobody fills the log by asking oddly."""
        if kind not in self._told:
            self._told.add(kind)
            self._troubles.put(f"{reason}; further ones are not logged")
            self._wake()


def _taken(queue: SimpleQueue[_T]) -> Iterator[_T]:
    """What is in it now."""
    with suppress(Empty):
        while True:
            yield queue.get_nowait()


def _in_words(error: OSError, wanted: Listen) -> str:
    why = error.strerror or str(error)
    if error.errno == errno.EACCES and 0 < wanted.port < 1024:
        return f"{why}: a port below 1024 takes CAP_NET_BIND_SERVICE"
    return why


# --------------------------------------------------------------------------- the socket


def _listener(listen: Listen) -> socket.socket:
    if listen.path:
        unix_sockets.clear(Path(listen.path))
        return unix_sockets.listen_at(Path(listen.path), 0o660, unix_sockets.GROUP)
    family = socket.AF_INET6 if ":" in listen.address else socket.AF_INET
    return socket.create_server((listen.address, listen.port), family=family)


class _Path:
    """The name of a socket that we made, to be removed unless it is another's by now."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._made = _identity(path)

    def remove(self) -> None:
        with suppress(OSError):
            if _identity(self._path) == self._made:
                Path(self._path).unlink()


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino
