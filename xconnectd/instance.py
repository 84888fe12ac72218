"""One daemon per network namespace: an abstract unix socket is the lock, and tells the pid.

Abstract names are scoped to the network namespace, so a daemon in a ``--network host``
container and one on the host meet on it too (unix(7)).
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Final

from xconnectd.errors import BusyError

_NAME: Final = "\0xconnectd"


class Instance:
    """Holds the namespace for this process until ``close`` or its end.

    Raises:
        BusyError: another daemon holds it.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.bind(_NAME)
        except OSError as error:
            self._socket.close()
            if error.errno == errno.EADDRINUSE:
                raise BusyError(running_pid() or 0) from error
            raise
        self._socket.listen(8)

    def fileno(self) -> int:
        return self._socket.fileno()

    def answer(self) -> None:
        """Somebody asked who is there: the connection itself has told."""
        try:
            connection, _ = self._socket.accept()
        except BlockingIOError:
            return
        connection.close()

    def close(self) -> None:
        self._socket.close()


def running_pid() -> int | None:
    """The pid of this namespace's daemon as seen from here; None when none runs."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(1.0)
        try:
            asking.connect(_NAME)
        except OSError:
            return None
        credentials = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid: int = struct.unpack("=3i", credentials)[0]
    return pid
