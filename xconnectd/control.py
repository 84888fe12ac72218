"""The daemon's local control channel: two unix sockets, one JSON document a line.

``control`` is for root alone: try a wiring, reload. ``status`` may only look, and is open to the
group ``xconnectd`` where that group exists. A connection is a lease: a wiring that is being tried
lasts as long as the connection that asked for it, so a client that dies takes it back.

Requests: ``{"do": "status"}``, ``{"do": "events"}``, ``{"do": "reload"}``,
``{"do": "try", "text": …, "path": …, "timeout": seconds}``, ``{"do": "hold"}``, ``{"do": "keep"}``.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

from xconnectd import sockets
from xconnectd.errors import XconnectError
from xconnectd.ledger import directory

CONTROL: Final = "control.sock"
STATUS: Final = "status.sock"

_LONGEST_REQUEST: Final = 32 << 20
_LONGEST_QUESTION: Final = 1 << 10
_BACKLOG: Final = 1 << 20
"""Bytes a slow reader of events may lag behind before it is dropped."""
_MOST_CLIENTS: Final = 64

Answer = dict[str, Any]


class Client:
    """One connection on the daemon's side. Never blocks: what cannot be sent yet is kept."""

    def __init__(self, connection: socket.socket, *, privileged: bool) -> None:
        connection.setblocking(False)
        self.privileged = privileged
        self.wants_events = False
        self._socket = connection
        self._incoming = b""
        self._outgoing = b""

    def fileno(self) -> int:
        return self._socket.fileno()

    def requests(self) -> Iterator[dict[str, Any]]:
        """What has arrived whole.

        Raises:
            ConnectionError: the other side has gone, or talks nonsense.
        """
        data = self._receive()
        self._incoming += data
        *lines, self._incoming = self._incoming.split(b"\n")
        if len(self._incoming) > (_LONGEST_REQUEST if self.privileged else _LONGEST_QUESTION):
            raise ConnectionError("too long a request")
        for line in lines:
            try:
                request = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ConnectionError("not JSON") from error
            if isinstance(request, dict):
                yield request

    def _receive(self) -> bytes:
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return b""
        if not data:
            raise ConnectionError("closed")
        return data

    def send(self, answer: Mapping[str, Any]) -> None:
        """Sends one document, now or as soon as the other side reads.

        Raises:
            ConnectionError: the other side has gone, or does not read.
        """
        if self.wants_events and len(self._outgoing) > _BACKLOG:
            raise ConnectionError("it does not read")
        self._outgoing += json.dumps(answer, default=str).encode() + b"\n"
        self.flush()

    @property
    def has_more(self) -> bool:
        """Whether something is still to be sent."""
        return bool(self._outgoing)

    def flush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._outgoing:
                sent = self._socket.send(self._outgoing, socket.MSG_NOSIGNAL)
                self._outgoing = self._outgoing[sent:]

    def close(self) -> None:
        self._socket.close()


class Server:
    """Both sockets and everyone connected to them, for the daemon's selector."""

    def __init__(
        self,
        directory: Path,
        selector: selectors.BaseSelector,
        answer: Callable[[Client, dict[str, Any]], Answer | None],
        gone: Callable[[Client], None],
    ) -> None:
        """``answer`` replies to a request (None: later or never), ``gone`` hears of an end.

        Raises:
            OSError: the sockets cannot be made in ``directory``.
        """
        self._selector = selector
        self._answer = answer
        self._gone = gone
        self._clients: set[Client] = set()
        self._listeners = {
            directory / CONTROL: self._listen(directory / CONTROL, 0o600, privileged=True),
            directory / STATUS: self._listen(directory / STATUS, 0o660, privileged=False),
        }

    def _listen(self, path: Path, mode: int, *, privileged: bool) -> socket.socket:
        path.unlink(missing_ok=True)
        listener = sockets.listen_at(path, mode, "" if privileged else sockets.GROUP)
        self._selector.register(
            listener, selectors.EVENT_READ, lambda: self._accept(listener, privileged)
        )
        return listener

    def close(self) -> None:
        for path, listener in self._listeners.items():
            path.unlink(missing_ok=True)
            listener.close()
        for client in self._clients:
            client.close()

    def _accept(self, listener: socket.socket, privileged: bool) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            if not privileged and self._onlookers() >= _MOST_CLIENTS:
                connection.close()
                return
            client = Client(connection, privileged=privileged)
            self._clients.add(client)
            self._selector.register(client, selectors.EVENT_READ, lambda: self._serve(client))

    def _onlookers(self) -> int:
        """Who may only look must not keep out who may do."""
        return sum(not client.privileged for client in self._clients)

    def _serve(self, client: Client) -> None:
        try:
            client.flush()
            for request in client.requests():
                if reply := self._reply(client, request):
                    client.send(reply)
            self._await(client)
        except OSError:
            self._drop(client)

    def _reply(self, client: Client, request: dict[str, Any]) -> Answer | None:
        try:
            return self._answer(client, request)
        except (AttributeError, LookupError, TypeError, ValueError) as error:  # odd contents
            return {"ok": False, "error": f"not understood: {error!r}"}

    def _await(self, client: Client) -> None:
        """Its requests, and if something is left to be sent, that it reads."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.has_more else 0)
        self._selector.modify(client, events, lambda: self._serve(client))

    def _drop(self, client: Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            self._selector.unregister(client)
            client.close()
            self._gone(client)

    def publish(self, event: Mapping[str, Any]) -> None:
        """Sends an event to everyone who listens."""
        for client in [client for client in self._clients if client.wants_events]:
            try:
                client.send(event)
                self._await(client)
            except OSError:
                self._drop(client)


# --------------------------------------------------------------------------- the client's side


class NoDaemonError(XconnectError):
    """Nobody answers on the control channel."""


class Connection:
    """To the daemon of this network namespace; ``name`` is CONTROL or STATUS. A context manager.

    ``timeout`` is how many seconds an answer may take, None if any.

    Raises:
        NoDaemonError: no daemon answers, or this user may not ask it.
    """

    def __init__(self, name: str, timeout: float | None = 60.0) -> None:
        path = directory() / name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
        except PermissionError as error:
            raise NoDaemonError(f"{path}: only root and group {sockets.GROUP} may ask") from error
        except OSError as error:
            raise NoDaemonError("no daemon runs in this network namespace") from error
        self._file = self._socket.makefile("rb")

    def ask(self, do: str, **details: Any) -> Answer:
        self.send(do, **details)
        return self.read()

    def send(self, do: str, **details: Any) -> None:
        try:
            self._socket.sendall(json.dumps({"do": do, **details}).encode() + b"\n")
        except OSError as error:
            raise NoDaemonError("the daemon has gone") from error

    def read(self) -> Answer:
        try:
            line = self._file.readline()
        except OSError as error:
            raise NoDaemonError("the daemon does not answer") from error
        if not line:
            raise NoDaemonError("the daemon has gone")
        answer: Answer = json.loads(line)
        return answer

    def fileno(self) -> int:
        return self._socket.fileno()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()
