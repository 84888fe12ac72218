"""The socket at which metrics are served, and the threads that talk HTTP with who connects.

A thread accepts, and one for each client answers, so that idle and slow clients keep nobody
waiting. Their number and their time are bounded; who is one too many is hung up on at once. HTTP is
Python's own WSGI server, and the answers are the metrics library's. To be imported by a daemon
that serves metrics and by nobody else.
"""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from xconnectd.daemon import metrics
from xconnectd.errors import XconnectError
from xconnectd.status.document import StatusDocument

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

MOST_CLIENTS: Final = 64
"""Each costs a descriptor and a thread."""
_TIMEOUT: Final = 10.0
"""Seconds for all of a request and its answer."""
_MOST_ANSWERS: Final = 8
"""Answers in memory at once, for those who do not read theirs: one is 3 MB with 2,000 links."""
_REST: Final = 1.0
"""Seconds between two looks at who has used up their time, and after an accept that failed."""
_JOIN: Final = 5.0

Tell = Callable[[str, str], None]
"""Called by any thread with a kind of trouble, and what it is."""


class MetricsServer(ThreadingMixIn, WSGIServer):
    """Serves at ``listener``, which it closes in the end, from the constructor until ``stop``."""

    daemon_threads = True
    block_on_close = False
    timeout = _REST

    def __init__(
        self, listener: socket.socket, look: Callable[[], StatusDocument], tell: Tell
    ) -> None:
        super().__init__(("", 0), _Exchange, bind_and_activate=False)
        self.socket.close()  # one that was not asked for
        self.socket = listener
        self.server_name, self.server_port = "", 0
        self.setup_environ()
        self.set_app(self._answer)
        self._metrics = metrics.application(look)
        self._tell = tell
        self._answers = threading.Semaphore(_MOST_ANSWERS)
        self._since: dict[Any, float] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Ends at once, in the middle of answers too."""
        self._end.set()
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._thread.join(_JOIN)
        self._hang_up_on_all_since(time.monotonic())
        self.server_close()

    # ------------------------------------------------------------------ who connects

    def _run(self) -> None:
        while not self._end.is_set():
            self.handle_request()
            self._hang_up_on_all_since(time.monotonic() - _TIMEOUT)

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            connection, address = self.socket.accept()
        except OSError:  # most likely out of descriptors: the next one would fail as well
            self._end.wait(_REST)
            raise
        connection.setblocking(True)
        return connection, address or ("", 0)  # who comes by a unix socket has none

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._since) >= MOST_CLIENTS:
            super().shutdown_request(request)
            return
        self._since[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._since.pop(request, None)
        super().shutdown_request(request)

    def _hang_up_on_all_since(self, when: float) -> None:
        """Whatever their threads wait for comes to its end by it."""
        for request, since in list(self._since.items()):
            if since <= when:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        """A client that hung up, or a thread that could not be had: nobody else is concerned."""

    # ------------------------------------------------------------------ what is answered

    def _answer(self, environ: WSGIEnvironment, start: StartResponse) -> Iterator[bytes]:
        """A generator, so that an answer counts until it is sent."""
        with self._answers:
            status, headers, body = self._document(environ)
            start(status, [*headers, ("Content-Length", str(len(body)))])
            yield b"" if environ["REQUEST_METHOD"] == "HEAD" else body

    def _document(self, environ: WSGIEnvironment) -> tuple[str, list[tuple[str, str]], bytes]:
        accept = environ.get("HTTP_ACCEPT", "")
        if not metrics.is_understood(accept):
            self._tell("accept", f"the Accept header of a client is odd: {accept[:80]!r}")
            return _plain("400 Bad Request", "the Accept header is not understood")
        head: list[Any] = []

        def begin(*status_and_headers: Any) -> Callable[[bytes], None]:
            head[:] = status_and_headers
            return head.append  # to write to, as WSGI demands; nobody does

        as_get = {"REQUEST_METHOD": "GET"} if environ["REQUEST_METHOD"] == "HEAD" else {}
        try:
            body = b"".join(self._metrics(environ | as_get, begin))
        except (XconnectError, OSError) as error:  # the kernel refused a look
            return _plain("503 Service Unavailable", str(error))
        except Exception as error:  # noqa: BLE001 (a thread has nobody to pass it on to)
            self._tell(type(error).__name__, f"an answer failed: {error!r}")
            return _plain("500 Internal Server Error", "the daemon's log says why")
        return head[0], head[1], body


def _plain(status: str, text: str) -> tuple[str, list[tuple[str, str]], bytes]:
    return status, [("Content-Type", "text/plain; charset=utf-8")], f"{text}\n".encode()


class _Exchange(WSGIRequestHandler):
    """One client. Silent: what there is to tell is told once, by the server."""

    def log_message(self, *_: Any, **__: Any) -> None:
        return

    def get_stderr(self) -> io.StringIO:
        return io.StringIO()
