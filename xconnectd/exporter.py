"""Where metrics are served: a socket, and a thread that talks HTTP with whoever connects.

The thread runs asyncio, so clients that are idle or slow cost a socket each until their time is
over, and nobody waits for them. HTTP is the business of the metrics library, which gets each
request when it has arrived whole. The library's own server would not do: it takes a thread for
each client, as many as come and for as long as they stay, and knows no unix socket. Serving in
the daemon's loop would not do either: to write down 2,000 links takes longer than to rewire one.

What the thread tells it asks of the daemon's loop, since netlink and the maps are not for two
threads. Nothing is kept from one request to the next.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from xconnectd import sockets
from xconnectd.errors import XconnectError
from xconnectd.lean import late
from xconnectd.log import Event, Logger
from xconnectd.model import Listen

with late("asyncio"):
    import asyncio

if TYPE_CHECKING:
    from xconnectd.metrics import Page

Facts = Callable[[], Mapping[str, Any]]
"""What the daemon found, ready to be made a report by any thread."""

_LONGEST_REQUEST: Final = 8 << 10
_PATIENCE: Final = 10.0
"""Seconds for all of a request and its answer."""
_MOST_CLIENTS: Final = 128
_MOST_ANSWERS: Final = 8
"""Answers in memory at once, for those who do not read theirs: one is 3 MB with 2,000 links."""
_RETRY: Final = 5.0
"""Seconds between attempts to listen where it was not possible."""
_JOIN: Final = 5.0


class Exporter:
    """Serves metrics where it is told to. All its methods are for the daemon's own thread."""

    def __init__(self, look: Callable[[], Facts], ring: Callable[[], None], log: Logger) -> None:
        """``look`` is for the daemon's thread; ``ring``, from any, has ``answer`` called soon."""
        self._look = look
        self._ring = ring
        self._log = log
        self._asked: SimpleQueue[Future[Facts]] = SimpleQueue()
        self._wanted: Listen | None = None
        self._server: _Server | None = None
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
        """Tells everybody who has asked by now."""
        asked = list(self._take_questions())
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

    def as_json(self) -> dict[str, Any] | None:
        """For ``status``; None when nothing is to be served."""
        if self._wanted is None:
            return None
        return {"listen": str(self._wanted), "problem": self._problem}

    def close(self) -> None:
        """Serves nowhere any more. Those who wait for an answer get none."""
        server, self._server = self._server, None
        if server:
            server.close()
            self._log.info(Event.METRICS_STOPPED, listen=str(self._wanted))

    def _open(self, wanted: Listen) -> None:
        try:
            self._server = _Server(wanted, self._ask)
        except OSError as error:
            self._fail(_in_words(error, wanted))
        except ImportError as error:
            self._fail(f"{error.name} is not installed: pip install prometheus-client")
        else:
            self._problem = ""
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

    def _ask(self) -> Future[Facts]:
        """Called by the server's thread."""
        question: Future[Facts] = Future()
        self._asked.put(question)
        self._ring()
        return question

    def _take_questions(self) -> list[Future[Facts]]:
        asked = []
        with suppress(Empty):
            while True:
                asked.append(self._asked.get_nowait())
        return [each for each in asked if each.set_running_or_notify_cancel()]


def _in_words(error: OSError, wanted: Listen) -> str:
    why = error.strerror or str(error)
    if error.errno == errno.EACCES and 0 < wanted.port < 1024:
        return f"{why}: a port below 1024 takes CAP_NET_BIND_SERVICE"
    return why


# --------------------------------------------------------------------------- the thread


class _Server:
    """One socket and its thread, from the constructor until ``close``.

    Raises:
        OSError: nothing can listen there.
        ImportError: the metrics library is missing.
    """

    def __init__(self, listen: Listen, ask: Callable[[], Future[Facts]]) -> None:
        from xconnectd.metrics import Page

        self._ask = ask
        self._page: Page = Page()
        self._listener = _listener(listen)
        self._path = _Path(listen.path) if listen.path else None
        self._clients = 0
        self._answers = asyncio.Semaphore(_MOST_ANSWERS)
        self._end = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        with suppress(RuntimeError):  # its loop has ended by itself
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_JOIN)
        self._listener.close()
        if self._path:
            self._path.remove()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._meet, sock=self._listener, limit=_LONGEST_REQUEST)
        await self._end.wait()
        server.close()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client. Nothing that it does or fails to do goes further than this."""
        self._clients += 1
        try:
            if self._clients <= _MOST_CLIENTS:
                async with asyncio.timeout(_PATIENCE):
                    await self._talk(reader, writer)
        except (OSError, EOFError, asyncio.LimitOverrunError, XconnectError):
            pass  # TimeoutError is an OSError
        finally:
            self._clients -= 1
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        writer.transport.set_write_buffer_limits(0)  # drained is sent
        async with self._answers:
            facts = await asyncio.wrap_future(self._ask())
            writer.write(self._page.answer(request, facts()))
            await writer.drain()


def _listener(listen: Listen) -> socket.socket:
    if listen.path:
        sockets.clear(Path(listen.path))
        return sockets.listen_at(Path(listen.path), 0o660, sockets.GROUP)
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
