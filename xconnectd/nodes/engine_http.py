"""HTTP over the unix socket of a container engine: two kinds of GET and a stream of events.

Imports ``http.client``, so it is imported by whoever needs it when he does (decision 20).
"""

from __future__ import annotations

import http.client
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from xconnectd.nodes.containers import GarbledError

_TIMEOUT: Final = 5.0
"""Seconds for each piece of an answer; an engine may be busy with hundreds of containers."""
_LARGEST: Final = 8 << 20
"""Bytes of an answer: some 2,000 for each container."""
_LONGEST: Final = 1 << 20
"""Bytes of an event, which has all labels of a container in it."""
_PEER: Final = struct.Struct("=iII")


class Connection(http.client.HTTPConnection):
    """Connected to an engine, again for each request if that hangs up after one.

    ``counts_alike``: whether the numbers of processes that it tells are ours, too.
    """

    def __init__(self, path: str) -> None:
        """Raises OSError if nobody listens there, or only for others."""
        super().__init__("localhost", timeout=_TIMEOUT)
        self._path = path
        self.connect()
        self.counts_alike = _is_in_our_pid_namespace(self._socket)

    def connect(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_TIMEOUT)
        try:
            self._socket.connect(self._path)
        except OSError:
            self._socket.close()
            raise
        self.sock = self._socket

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._socket.close()

    def answer(self, target: str) -> bytes | None:
        """To a GET; None for what does not exist.

        Raises:
            OSError, HTTPException, ValueError, GarbledError: there is none, or a bad one.
        """
        self.request("GET", target)
        response = self.getresponse()
        text = response.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise GarbledError(f"more than {_LARGEST} bytes")
        if response.status == http.client.NOT_FOUND:
            return None
        _require_success(response)
        return text

    def lines(self, target: str) -> Iterator[bytes]:
        """Of an answer that goes on until ``hang_up`` or the engine's end; parts of very long ones.

        It has begun when the first is asked for. Raises as ``answer``.
        """
        self.request("GET", target)
        response = self.getresponse()
        _require_success(response)
        self._socket.settimeout(None)
        return self._lines(response)

    def _lines(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        while line := response.readline(_LONGEST):
            yield line

    def hang_up(self) -> None:
        """Ends whatever is waited for. By any thread."""
        self._socket.shutdown(socket.SHUT_RDWR)


def _is_in_our_pid_namespace(connected: socket.socket) -> bool:
    """Whether the listener (unix(7)) is, and so, most likely, is the engine.

    It is if it can be seen from here, and has no other number inside (NSpid, proc(5)).
    """
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    pid = _PEER.unpack(raw)[0]
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    numbers = status.partition("\nNSpid:")[2].partition("\n")[0].split()
    return numbers == [str(pid)]


def _require_success(response: http.client.HTTPResponse) -> None:
    if response.status != http.client.OK:
        raise GarbledError(f"status {response.status}")
