"""The daemon's local control channel: two unix sockets, one JSON document a line.

``control`` is for root alone: try a wiring, reload. ``status`` may only look, and is open to the
group ``xconnectd`` where that group exists. A connection is a lease: a wiring that is being tried
lasts as long as the connection that asked for it, so a client that dies takes it back.

Requests: ``{"do": "ping"}``, ``{"do": "status"}``, ``{"do": "events"}``, ``{"do": "reload"}``,
``{"do": "try", "text": …, "path": …, "as": …, "timeout": seconds}``, ``{"do": "hold"}``,
``{"do": "keep"}``.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import selectors
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from xconnectd import sockets
from xconnectd.errors import XconnectError
from xconnectd.instance import running_pid
from xconnectd.ledger import directory

CONTROL: Final = sockets.CONTROL
STATUS: Final = sockets.STATUS

_LONGEST_REQUEST: Final = 32 << 20
_LONGEST_QUESTION: Final = 1 << 10
_BACKLOG: Final = 1 << 20
"""Bytes that a reader of events may lag behind before it is dropped."""
_MOST_CLIENTS: Final = 64
"""At each of the two sockets: each costs a descriptor."""
_KEPT_FOR_ROOT: Final = 16
"""Of those that may look."""
_MOST_OF_ONE: Final = 16
"""Of one user who is not root."""
_IDLE: Final = 30.0
"""Seconds that who may only look may sit there without asking or reading."""

LONGEST_TRY: Final = 3600
"""Seconds."""
PATIENCE: Final = 4.0
"""Seconds that a daemon may take to answer before it counts as hung."""

Request = dict[str, Any]
Answer = dict[str, Any]


class Draft(NamedTuple):
    """What ``try`` is asked with: a file's name and text, and for how many seconds.

    ``instead`` is the name of the file that it replaces; empty for the one of its own name.
    """

    name: str
    text: bytes
    seconds: float
    instead: str = ""

    @classmethod
    def of(cls, request: Request) -> Self:
        """Raises ValueError: something is missing or odd."""
        match request:
            case {"path": str(name), "text": str(text), "timeout": int() | float() as seconds}:
                if not 0 < seconds < math.inf:  # NaN is not either
                    raise ValueError(f"nothing can be tried for {seconds} s")
                instead = request.get("as", "")
                if isinstance(instead, str):
                    return cls(name, text.encode(), min(seconds, LONGEST_TRY), instead)
        raise ValueError("`path`, `text` and `as` take texts, `timeout` takes seconds")


class Client:
    """One connection on the daemon's side. Never blocks: what cannot be sent yet is kept."""

    def __init__(self, connection: socket.socket, *, privileged: bool) -> None:
        connection.setblocking(False)
        self.privileged = privileged
        self.wants_events = False
        self.uid = sockets.peer(connection).uid
        self.last_move = time.monotonic()
        """When something was last received or sent."""
        self._socket = connection
        self._incoming = bytearray()
        self._outgoing = bytearray()

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def is_owed(self) -> bool:
        """Whether something is still to be sent, or a request to be answered."""
        return bool(self._outgoing) or self._has_line()

    def is_idle_since(self, when: float) -> bool:
        """A listener is not; nor is who may do, who may be thinking a try over."""
        listens = self.wants_events and not self._outgoing
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
        if self._outgoing:
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

    def send(self, answer: Mapping[str, Any]) -> None:
        """Sends one document, now or as soon as the other side reads.

        Raises:
            OSError: the other side has gone, or does not read.
        """
        if len(self._outgoing) > _BACKLOG:
            raise ConnectionError("it does not read")
        self._outgoing += json.dumps(answer, default=str).encode() + b"\n"
        self._flush()

    def _flush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._outgoing:
                sent = self._socket.send(self._outgoing, socket.MSG_NOSIGNAL)
                del self._outgoing[:sent]
                self.last_move = time.monotonic()

    def close(self) -> None:
        self._socket.close()


class Server:
    """Both sockets and everyone connected to them, for the daemon's selector."""

    def __init__(
        self,
        directory: Path | None,
        selector: selectors.BaseSelector,
        answer: Callable[[Client, Request], Answer],
        gone: Callable[[Client], None],
    ) -> None:
        """``answer`` replies to a request, ``gone`` hears of an end; what they raise is not caught.

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
        listener = sockets.listen_at(path, mode, "" if privileged else sockets.GROUP)
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

    def _send(self, client: Client, document: Mapping[str, Any]) -> None:
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


# --------------------------------------------------------------------------- the client's side


class NoDaemonError(XconnectError):
    """Nobody answers on the control channel."""


class Connection:
    """To the daemon of this network namespace; ``name`` is CONTROL or STATUS. A context manager.

    ``timeout`` is how many seconds an answer may take, None if any; one that is stopped is not
    asked, and one that hangs has PATIENCE seconds.

    Raises:
        NoDaemonError: no daemon answers, or this user may not ask it.
    """

    def __init__(self, name: str, timeout: float | None = 60.0) -> None:
        path = directory() / name
        self._pid = running_pid()
        if is_stopped(self._pid):
            raise NoDaemonError(self._silence())
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise NoDaemonError(self._why_not(path, error)) from error
        self._file = self._socket.makefile("rb")
        if timeout is None or timeout > PATIENCE:
            try:
                self._wait_for_a_sign(timeout)
            except NoDaemonError:
                self.close()
                raise

    def _wait_for_a_sign(self, timeout: float | None) -> None:
        """As long as the daemon works on something else, but not while it does nothing."""
        self.send("ping")
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        spent = _processor_time(self._pid)
        while not select.select([self._socket], [], [], PATIENCE)[0]:
            before, spent = spent, _processor_time(self._pid)
            if spent == before or time.monotonic() > deadline:
                raise NoDaemonError(self._silence())
        self.read()

    def _silence(self) -> str:
        if is_stopped(self._pid):
            return f"the daemon, pid {self._pid}, is stopped: kill -CONT {self._pid}"
        return f"the daemon, pid {self._pid}, does not answer: xconnectd doctor"

    def _why_not(self, path: Path, error: OSError) -> str:
        """A socket that a killed daemon left behind forbids as one that is listened to."""
        pid = self._pid
        if pid is None:
            way_out = "; root sees the wires: sudo xconnectd status" if os.geteuid() else ""
            return f"no daemon runs in this network namespace{way_out}"
        if not isinstance(error, PermissionError):
            return f"the daemon{f', pid {pid},' if pid else ''} does not answer at {path}"
        if path.name == CONTROL:
            return f"{path}: only root may: sudo xconnectd …"
        return f"{path}: only root and group {sockets.GROUP} may ask"

    def ask(self, do: str, **details: Any) -> Answer:
        self.send(do, **details)
        return self.read()

    def status(self) -> Answer:
        """Its report.

        Raises:
            NoDaemonError: it does not answer, or the kernel refused it a look.
        """
        report = self.ask("status")
        if error := report.get("error"):
            raise NoDaemonError(f"the daemon cannot look: {error}")
        return report

    def send(self, do: str, **details: Any) -> None:
        try:
            self._socket.sendall(json.dumps({"do": do, **details}).encode() + b"\n")
        except OSError as error:
            raise NoDaemonError("the daemon has gone") from error

    def read(self) -> Answer:
        try:
            line = self._file.readline()
        except OSError as error:
            raise NoDaemonError(self._silence()) from error
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


def _stat(pid: int | None) -> list[str]:
    """The fields of /proc/PID/stat from the state on (proc(5)); empty where it cannot be seen."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _processor_time(pid: int | None) -> int:
    """In ticks."""
    return sum(map(int, _stat(pid)[11:13]))


def is_stopped(pid: int | None) -> bool:
    """By a signal or a debugger."""
    return _stat(pid)[:1] in (["T"], ["t"])
