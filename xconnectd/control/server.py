"""The daemon's side of the control channel: who may ask, how much, and for how long."""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final

from xconnectd.control import unix_sockets
from xconnectd.control.protocol import CONTROL, STATUS, Answer, Pieces, Request

_LONGEST_REQUEST: Final = 32 << 20
"""Bytes, from root: a wiring that is to be tried."""

_LONGEST_QUESTION: Final = 1 << 10
"""Bytes, from who may only look."""

_BACKLOG: Final = 1 << 20
"""Bytes that a reader of events may lag behind before it is dropped."""

_AT_ONCE: Final = 0.002
"""Seconds that an answer is made at a stretch; whatever else there is to do comes in between."""

_MOST_CLIENTS: Final = 64
"""At each of the two sockets: each costs a descriptor."""

_KEPT_FOR_ROOT: Final = 16
"""Of those that may look."""

_MOST_OF_ONE: Final = 16
"""Of one user who is not root."""

_IDLE: Final = 30.0
"""Seconds that who may only look may sit there without asking or reading."""


class Client:
    """One connection on the daemon's side. Never blocks: what cannot be sent yet is kept."""

    def __init__(self, connection: socket.socket, *, privileged: bool) -> None:
        connection.setblocking(False)
        self.privileged = privileged
        self.wants_events = False
        self.uid = unix_sockets.peer(connection).uid
        self.last_move = time.monotonic()
        """When something was last received or sent."""
        self._socket = connection
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._unmade: Iterator[str] | None = None
        """The rest of an answer, behind what is outgoing."""

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def is_owed(self) -> bool:
        """Whether something is still to be sent, or a request to be answered."""
        return self._is_sending or self._has_line()

    @property
    def _is_sending(self) -> bool:
        return bool(self._outgoing) or self._unmade is not None

    def is_idle_since(self, when: float) -> bool:
        """A listener is not; nor is who may do, who may be thinking a try over."""
        listens = self.wants_events and not self._is_sending
        return not (self.privileged or listens) and self.last_move < when

    def _has_line(self) -> bool:
        return b"\n" in self._incoming

    def request(self) -> Request | None:
        """The next one; None if it has not arrived whole, or an answer is still to be sent.

        Raises:
            OSError: the other side has gone, or sends a line without an end.
            ValueError: it sent what is no request.
        """
        self._flush()
        if self._is_sending:
            return None
        if not self._has_line():
            self._receive()
        if not self._has_line():
            return None
        line, _, self._incoming = self._incoming.partition(b"\n")
        try:
            request = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError("not understood: a line is one JSON document") from error
        if isinstance(request, dict):
            return request
        raise ValueError('not understood: a request is a JSON object, as {"do": "status"}')

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionError("closed")
            self._incoming += data
            self.last_move = time.monotonic()
        longest = _LONGEST_REQUEST if self.privileged else _LONGEST_QUESTION
        if len(self._incoming) > longest and not self._has_line():
            raise ConnectionError("too long a request")

    def send(self, answer: Mapping[str, Any] | Pieces) -> None:
        """Sends one document, now or as soon as the other side reads.

        One in pieces is made as it is read.

        Raises:
            OSError: the other side has gone, or does not read.
        """
        if len(self._outgoing) > _BACKLOG:
            raise ConnectionError("it does not read")
        if isinstance(answer, Mapping):
            before = "".join(self._unmade or ())
            self._outgoing += f"{before}{json.dumps(answer, default=str)}\n".encode()
            self._unmade = None
        else:
            self._unmade = chain(answer, "\n")
        self._flush()

    def _flush(self) -> None:
        end = time.monotonic() + _AT_ONCE
        with contextlib.suppress(BlockingIOError):
            while self._is_sending:
                if not self._outgoing and self._unmade:
                    self._make_more(self._unmade)
                while self._outgoing:
                    sent = self._socket.send(self._outgoing, socket.MSG_NOSIGNAL)
                    del self._outgoing[:sent]
                    self.last_move = time.monotonic()
                if self._unmade and time.monotonic() > end:
                    return

    def _make_more(self, pieces: Iterator[str]) -> None:
        if (piece := next(pieces, None)) is None:
            self._unmade = None
        else:
            self._outgoing += piece.encode()

    def close(self) -> None:
        self._socket.close()


class Server:
    """Both sockets and everyone connected to them, for the daemon's selector."""

    def __init__(
        self,
        directory: Path | None,
        selector: selectors.BaseSelector,
        answer: Callable[[Client, Request], Answer | Pieces],
        gone: Callable[[Client], None],
    ) -> None:
        """``answer`` replies to a request, ``gone`` is called when one ends; both may raise.

        Raises:
            OSError: the sockets cannot be made in ``directory``.
        """
        self._selector = selector
        self._answer = answer
        self._gone = gone
        self._clients: set[Client] = set()
        self._resting: list[tuple[socket.socket, bool]] = []
        self._listeners: dict[Path, socket.socket] = {}
        if directory is not None:  # else nobody is served
            self._listen(directory / CONTROL, 0o600, privileged=True)
            self._listen(directory / STATUS, 0o660, privileged=False)

    def _listen(self, path: Path, mode: int, *, privileged: bool) -> None:
        path.unlink(missing_ok=True)
        listener = unix_sockets.listen_at(path, mode, "" if privileged else unix_sockets.GROUP)
        self._open(listener, privileged)
        self._listeners[path] = listener

    def _open(self, listener: socket.socket, privileged: bool) -> None:
        self._selector.register(
            listener, selectors.EVENT_READ, lambda: self._accept(listener, privileged)
        )

    def tick(self) -> None:
        """Lets who is idle go, and opens what was shut. To be called each second."""
        late = time.monotonic() - _IDLE
        for client in [client for client in self._clients if client.is_idle_since(late)]:
            self._drop(client)
        while self._resting:
            self._open(*self._resting.pop())

    def close(self) -> None:
        for path, listener in self._listeners.items():
            path.unlink(missing_ok=True)
            listener.close()
        for client in self._clients:
            client.close()

    def _accept(self, listener: socket.socket, privileged: bool) -> None:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:  # whoever it was has gone
            return
        except OSError:  # out of descriptors, and so would the next accept be
            self._selector.unregister(listener)
            self._resting.append((listener, privileged))
            return
        client = Client(connection, privileged=privileged)
        if not self._has_room_for(client):
            client.close()
            return
        self._clients.add(client)
        self._selector.register(client, selectors.EVENT_READ, lambda: self._serve(client))

    def _has_room_for(self, new: Client) -> bool:
        """Who may only look must not keep out who may do, nor one user all others."""
        there = [each.uid for each in self._clients if each.privileged is new.privileged]
        if new.uid == 0:
            return len(there) < _MOST_CLIENTS
        return len(there) < _MOST_CLIENTS - _KEPT_FOR_ROOT and there.count(new.uid) < _MOST_OF_ONE

    def _serve(self, client: Client) -> None:
        """One request at a time: who asks much at once, or does not read, delays nobody else."""
        if client not in self._clients:  # dropped since the selector named it
            return
        try:
            request = client.request()
        except OSError:
            self._drop(client)
            return
        except ValueError as error:
            self._send(client, {"ok": False, "error": str(error)})
            return
        if request is None:
            self._await(client)
        else:
            self._send(client, self._answer(client, request))

    def _send(self, client: Client, document: Mapping[str, Any] | Pieces) -> None:
        try:
            client.send(document)
        except OSError:
            self._drop(client)
        else:
            self._await(client)

    def _await(self, client: Client) -> None:
        """That it reads, as long as it is owed something; then its next request."""
        events = selectors.EVENT_WRITE if client.is_owed else selectors.EVENT_READ
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
            self._send(client, event)
