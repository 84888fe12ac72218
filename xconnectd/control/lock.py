"""One daemon per network namespace: it holds the directories that it writes, and has a name.

What decides are locks, flock(2), on the directories of the pins and of the records, which only
their owner can open: whoever could take our programs for its own finds one of them taken, in
whatever container or mount namespace it is. A process that shares neither directory takes our
programs for somebody else's, and its links fail over them.

Who it is tells the status socket, or for who may not use that an abstract unix socket. Such names
are scoped to the network namespace, also between host and container (unix(7)), but any user can
take one: it only ever tells of a process that is root's and may change interfaces.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from xconnectd import capabilities
from xconnectd.control import unix_sockets
from xconnectd.control.unix_sockets import Peer
from xconnectd.errors import BusyError
from xconnectd.paths import directory

_NAME: Final = "\0xconnectd"
_BACKLOG: Final = 4096
"""Who asks hangs up at once: nothing is to be read or sent."""
_INTRODUCTION: Final = 0.5
"""Seconds within which another daemon that has just begun can be asked for its pid."""


class Instance:
    """Holds ``directories`` for this process until ``close`` or its end, made if they are missing.

    Raises:
        BusyError: a daemon holds one of them, or says that it works in this namespace.
        OSError: one of them cannot be made, or belongs to somebody who is not root.
    """

    def __init__(self, *directories: Path) -> None:
        if (pid := running_pid()) is not None:
            raise BusyError(pid)
        self._held: dict[Path, int] = {}
        self._name: socket.socket | None = None
        with ExitStack() as undo:
            undo.callback(self.close)
            for each in directories:
                self.hold(each)
            self.introduce()
            undo.pop_all()

    def introduce(self) -> None:
        """Takes the name if it is free, and lets those go who have asked by it since.

        To be called each second. What fails costs others our pid, and nothing else.
        """
        if self._name is None:
            self._name = _named()
            return
        with suppress(OSError):  # nobody asks, or there is no descriptor to answer with
            for _ in range(_BACKLOG):
                self._name.accept()[0].close()

    def hold(self, place: Path) -> None:
        """Also one that was removed and made anew. Raises as the beginning does."""
        held = self._held.get(place)
        if held is None or not _is_at(held, place):
            self._held[place] = _hold(place)
            if held is not None:
                os.close(held)

    def close(self) -> None:
        if self._name:
            self._name.close()
        for place, held in self._held.items():
            _let_go(place, held)
        self._held.clear()


def _named() -> socket.socket | None:
    name = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        name.bind(_NAME)
        name.listen(_BACKLOG)
    except OSError:  # somebody else has it, who is no daemon
        name.close()
        return None
    return name


def _hold(place: Path) -> int:
    """A descriptor that locks the directory."""
    while True:
        place.mkdir(mode=0o711, exist_ok=True)
        held = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _demand_ours(held, place)
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(held)
            raise BusyError(_who_has_begun()) from error
        except OSError:
            os.close(held)
            raise
        if _is_at(held, place):
            return held
        os.close(held)  # who held it before us has removed it at its end


def _demand_ours(held: int, place: Path) -> None:
    """In a BPF filesystem that anybody may write to, anybody may have made it."""
    owner = os.fstat(held).st_uid
    if owner not in (0, os.geteuid()):
        text = f"belongs to uid {owner}, not to root: remove it"
        raise PermissionError(errno.EPERM, text, str(place))


def _let_go(place: Path, held: int) -> None:
    """A directory in which nothing came to be goes along."""
    with suppress(OSError):
        if _is_at(held, place):
            place.rmdir()
    os.close(held)


def _is_at(held: int, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(held), place.lstat())
    except FileNotFoundError:
        return False


def _who_has_begun() -> int:
    deadline = time.monotonic() + _INTRODUCTION
    while (pid := running_pid()) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return pid or 0


# --------------------------------------------------------------------------- who it is


def running_pid() -> int | None:
    """The pid of this namespace's daemon as seen from here; None when none runs, or none is known.

    0 where it is in a pid namespace that cannot be seen from here.
    """
    if listener := _listener_at(str(directory() / unix_sockets.STATUS)):
        return listener.pid  # only the daemon can make a socket there
    listener = _listener_at(_NAME)
    return listener.pid if listener and _is_daemon(listener) else None


def _listener_at(address: str) -> Peer | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(1.0)
        try:
            asking.connect(address)
        except OSError:
            return None
        return unix_sockets.peer(asking)


def _is_daemon(process: Peer) -> bool:
    """Whether it may do what a daemon does: nobody else is to be named, or killed, as one."""
    if process.uid not in (0, os.geteuid()):
        return False
    try:
        return "CAP_NET_ADMIN" in capabilities.effective(str(process.pid))
    except OSError:
        return False
