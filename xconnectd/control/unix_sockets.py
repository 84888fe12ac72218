"""Unix sockets to be asked by: never open to more people than they are meant for."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import socket
import stat
import struct
from pathlib import Path
from typing import Final, NamedTuple

CONTROL: Final = "control.sock"
STATUS: Final = "status.sock"
"""Names in the state directory: for root alone, and for who may look."""

GROUP: Final = "xconnectd"
"""Its members may look, where it exists."""

_LONGEST: Final = 107
"""Bytes of a path that a socket can have: unix(7)."""


def listen_at(path: Path, mode: int, group: str = "") -> socket.socket:
    """A listening socket that never blocks, with these permissions from its first moment.

    Raises:
        OSError: it cannot be made there; EADDRINUSE if ``path`` exists.
    """
    if len(os.fsencode(path)) > _LONGEST:
        text = f"a socket's path has {_LONGEST} bytes at most"
        raise OSError(errno.ENAMETOOLONG, text, str(path))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        before = os.umask(0o777)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        if group:
            with contextlib.suppress(KeyError, PermissionError):
                os.chown(path, -1, grp.getgrnam(group).gr_gid)
        path.chmod(mode)
        listener.listen(16)
    except OSError:
        listener.close()
        raise
    return listener


class Peer(NamedTuple):
    """The process at the other end, as it was when it connected or began to listen: unix(7)."""

    pid: int
    uid: int


def peer(connection: socket.socket) -> Peer:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, _ = struct.unpack("=iII", raw)
    return Peer(pid, uid)


def clear(path: Path) -> None:
    """Takes away a socket that nobody listens at any more: a daemon that was killed left it.

    Raises:
        OSError: something else stands there (EEXIST), or it cannot be removed.
    """
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise OSError(errno.EEXIST, "there is something else than a socket", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asking:
        if asking.connect_ex(str(path)) == errno.ECONNREFUSED:
            path.unlink()
