"""What other hosts say of the links to them, for the daemon.

It says what they are to be told and is woken by a descriptor when there is something to act on.
Whatever is received and sent is a thread's (``keepalive_thread``), which begins with the first link
to another host: before that nothing of it is imported or opened.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from xconnectd.events import Event, Logger
from xconnectd.model import Announcement, Heard

if TYPE_CHECKING:
    from xconnectd.tunnels.keepalive_thread import KeepaliveThread


class OtherHosts:
    """The other hosts, as this one knows them. All methods are the daemon's thread's."""

    def __init__(self, counts: Callable[[int], tuple[int, int]], log: Logger) -> None:
        """``counts`` tells how many frames that came in by an ifindex were handed on and dropped.

        Another thread calls it, until ``close``.
        """
        self._counts = counts
        self._log = log
        self._news = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._changed: set[str] = set()
        self._told: dict[str, Announcement] = {}
        self._alive: dict[str, bool] = {}
        self._trouble = ""
        self._thread: KeepaliveThread | None = None

    def want(self, announcements: Iterable[Announcement], key: str) -> None:
        """Replaces what other hosts are told of links.

        By a tunnel that is in there no longer they are told that this daemon was stopped, which
        takes 10 ms.
        """
        self._told = {each.end: each for each in announcements}
        self._alive = {end: alive for end, alive in self._alive.items() if end in self._told}
        if self._thread is None:
            if not self._told:
                return
            from xconnectd.tunnels.keepalive_thread import KeepaliveThread

            self._thread = KeepaliveThread(self._counts, self._note)
        self._thread.want(self._told.values(), key)

    def heard(self, end: str) -> Heard:
        """What is known of an end on another host; nothing of one that is not wanted."""
        return self._thread.heard(end) if self._thread else Heard()

    def fileno(self) -> int:
        """Readable when there is something to act on, until ``drain``."""
        return self._news

    def drain(self) -> frozenset[str]:
        """The ends on other hosts of which that is so. The log is told what comes and goes."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._news)
        with self._lock:
            changed, self._changed = frozenset(self._changed & self._told.keys()), set()
        if self._thread and self._thread.trouble != self._trouble:
            self._trouble = self._thread.trouble
            if self._trouble:
                self._log.warning(Event.TUNNELS_UNHEARD, reason=self._trouble)
        for end in sorted(changed) if not self._trouble else ():
            self._report(self._told[end], self.heard(end))
        return changed

    def _report(self, told: Announcement, heard: Heard) -> None:
        if heard.alive is None or self._alive.get(told.end) is heard.alive:
            return
        self._alive[told.end] = heard.alive
        facts = {"link": told.link, "host": told.end.partition("/")[0]}
        if heard.alive:
            self._log.info(Event.TUNNEL_UP, **facts)
        else:
            self._log.warning(Event.TUNNEL_DOWN, **facts, reason=heard.reason)

    def _note(self, changed: Iterable[str]) -> None:
        """Of the other thread."""
        with self._lock:
            self._changed.update(changed)
            if self._news >= 0:
                os.eventfd_write(self._news, 1)

    def close(self) -> None:
        """Says nothing: the wires that are kept are to stay."""
        if self._thread:
            self._thread.close()
        with self._lock:
            os.close(self._news)
            self._news = -1
