"""The thread that exchanges keepalives with other hosts, by a packet socket, as ``peers`` says."""

from __future__ import annotations

import errno
import os
import secrets
import select
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from math import ceil
from typing import Final

from xconnectd.model import Announcement, Heard
from xconnectd.tunnels.packet_socket import PacketSocket
from xconnectd.tunnels.peers import Counts, Outgoing, Peers

_FINAL_COPIES: Final = 3
"""Of what is sent at last by a tunnel that is left."""
_BETWEEN: Final = 0.005
"""Seconds between two of them: what loses one frame may lose the next."""
_RETRY: Final = 1.0
"""Seconds until a socket is asked for again."""
_END: Final = 0.3
"""Seconds that the end of the thread is waited for."""
_UNHEARD: Final = {
    errno.EPERM: (
        "without CAP_NET_RAW the daemon cannot hear other hosts, so no link to one is connected:"
        " give it that capability (systemd/30-hosts.conf)"
    ),
    errno.EAFNOSUPPORT: (
        "without packet sockets the daemon cannot hear other hosts, so no link to one is connected:"
        " let it have them (RestrictAddressFamilies=AF_PACKET of systemd/30-hosts.conf)"
    ),
}
"""Why a packet socket is refused; to a unit without its address family whatever else it may."""


class KeepaliveThread:
    """Begins at once. Safe to be used by several threads.

    Where nobody can be heard, nothing is alive: a wire of which nobody knows whether it leads
    anywhere would lose frames in silence.

    Attributes:
        trouble: why nobody is heard; empty if others are.
    """

    def __init__(self, counts: Counts, note: Callable[[Iterable[str]], None]) -> None:
        """``note`` is called by the thread with the ends of which there is news."""
        self.trouble = ""
        self._note = note
        self._peers = Peers(secrets.randbits(64) or 1, counts)
        self._ends: list[str] = []
        self._socket: PacketSocket | None = None
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.RLock()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="tunnels", daemon=True)
        self._thread.start()

    def want(self, announcements: Iterable[Announcement], key: str) -> None:
        """Replaces what is to be said; returns when the last was said by tunnels that are left."""
        told = tuple(announcements)
        with self._lock:
            last = self._peers.want(told, key, time.monotonic())
            self._ends = [each.end for each in told]
            trouble = self.trouble
        if trouble:
            self._note(self._ends)
        os.eventfd_write(self._wakeup, 1)
        for repeated in range(_FINAL_COPIES if last else 0):
            time.sleep(_BETWEEN if repeated else 0)
            last = [each for each in last if self._send(each)]

    def heard(self, end: str) -> Heard:
        with self._lock:
            if self.trouble and end in self._ends:
                return Heard(alive=False, reason=self.trouble)
            return self._peers.heard(end)

    def close(self) -> None:
        self._over = True
        os.eventfd_write(self._wakeup, 1)
        self._thread.join(_END)
        if not self._thread.is_alive():
            os.close(self._wakeup)

    # ------------------------------------------------------------------ of the thread

    def _run(self) -> None:
        while not self._over:
            try:
                with closing(PacketSocket()) as self._socket:
                    self._set_trouble("")
                    self._exchange(self._socket)
            except Exception as error:  # noqa: BLE001 (a thread has nobody to pass it on to)
                self._set_trouble(_in_words(error))
                self._wait(self._poller(), _RETRY)

    def _set_trouble(self, trouble: str) -> None:
        with self._lock:
            changed = trouble != self.trouble
            self.trouble = trouble
        if changed:
            self._note(self._ends)

    def _exchange(self, packets: PacketSocket) -> None:
        poller = self._poller()
        poller.register(packets, select.POLLIN)
        while not self._over:
            with self._lock:
                due = self._peers.due
            self._wait(poller, due - time.monotonic())
            arrived = packets.drain()
            with self._lock:
                now = time.monotonic()
                for ifindex, frame in arrived:
                    self._peers.receive(ifindex, frame, now)
                outgoing = self._peers.outgoing(now)
                changed = self._peers.changed()
            for each in outgoing:
                self._send(each)
            if changed:
                self._note(changed)

    def _poller(self) -> select.poll:
        poller = select.poll()
        poller.register(self._wakeup, select.POLLIN)
        return poller

    def _wait(self, poller: select.poll, seconds: float) -> None:
        """Not less: what is looked at a moment early is not due yet."""
        poller.poll(None if seconds == float("inf") else ceil(max(0.0, seconds) * 1000))
        with suppress(BlockingIOError):
            os.eventfd_read(self._wakeup)

    def _send(self, each: Outgoing) -> bool:
        """Whether it went out; if not, the reason is that of the host's silence."""
        why = ""
        try:
            if self._socket:
                self._socket.send(each.ifindex, each.frame)
        except OSError as error:
            why = error.strerror or str(error)
        self._peers.not_sent(each.ifindex, why)
        return not why


def _in_words(error: Exception) -> str:
    if not isinstance(error, OSError):
        return f"other hosts cannot be heard: {error!r}"
    return _UNHEARD.get(error.errno or 0, f"other hosts cannot be heard: {error.strerror}")
