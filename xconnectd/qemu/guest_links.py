"""The carrier that the guests of virtual machines see, as the daemon wants it, in a thread.

The daemon says what it wants and is woken by a descriptor when there is something to tell. All
waiting for monitors is the thread's, which exists while there are any (decision 17).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Final

from xconnectd.lazy_imports import late, without
from xconnectd.monitor_address import MonitorAddress
from xconnectd.qemu.outcome import DEFAULT_PACE, Outcome, Pace

_PUT_BACK: Final = 0.6
"""Seconds of ``close`` in which links are put back."""
_END: Final = 0.4

_Wanted = Mapping[MonitorAddress, bool]


class GuestLinks:
    """What guests are to see of their links. Safe to be used by several threads.

    ``wanted`` is what was last asked for.

    No method waits for a monitor but ``close``, and none raises for what a monitor does.
    """

    def __init__(self, pace: Pace = DEFAULT_PACE) -> None:
        self._pace = pace
        self._news = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.RLock()
        self.wanted: _Wanted = {}
        self._outcomes: dict[MonitorAddress, Outcome] = {}
        self._thread: threading.Thread | None = None
        self._post: Callable[[_Wanted], object] | None = None
        """Hands to the thread what is wanted; None before it has begun, which it does with that."""
        self._at_once = False

    def fileno(self) -> int:
        """Readable when an outcome changed, until ``drain``."""
        return self._news

    def drain(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._news)

    def set(self, wanted: _Wanted) -> None:
        """Replaces all that was wanted: by address, whether the guest is to see a carrier.

        An address that is new is set at once. One that is not there any more is set on again if
        it was off, as a machine starts; one whose monitor does not answer then is forgotten.
        """
        with self._lock:
            if wanted == self.wanted:
                return
            self.wanted = dict(wanted)
            for address in self._outcomes.keys() - self.wanted.keys():
                del self._outcomes[address]
            if self._post is not None:
                self._post(self.wanted)
            elif self.wanted and self._thread is None:
                self._start()

    def outcomes(self) -> Mapping[MonitorAddress, Outcome]:
        """What came of the last attempt, by address; one that is missing was not tried yet."""
        with self._lock:
            return MappingProxyType(dict(self._outcomes))

    def close(self) -> None:
        """Ends the thread within a second. What is wanted is left as it is.

        After ``set({})`` most of this second is for what is to be put back.
        """
        with self._lock:
            thread = self._thread
            self._at_once = bool(self.wanted)
        if thread is not None:
            thread.join(_PUT_BACK)
            self._at_once = True
            thread.join(_END)
        with self._lock:
            os.close(self._news)
            self._news = -1

    # ------------------------------------------------------------------ of the thread

    def _start(self) -> None:
        """Imports what only the thread needs: 15 ms, and only once.

        Not in the thread, since another one may be importing ``ssl`` then.
        """
        try:
            # asyncio does without encryption if it must, and that is 4 MB of 6.
            with without("ssl"):
                import asyncio  # noqa: F401
            with late("ssl"):
                from xconnectd.qemu import machines
        except ImportError as error:
            self._fail(error)
        else:
            self._thread = threading.Thread(
                target=self._run, args=(machines.run, self.wanted), name="monitors", daemon=True
            )
            self._thread.start()

    def _run(self, run: Callable[..., None], first: _Wanted) -> None:
        try:
            run(partial(self._begin, first), self._tell, self._is_over, self._pace)
        except Exception as error:  # noqa: BLE001 (a thread has nobody to pass it on to)
            self._fail(error)

    def _begin(self, first: _Wanted, post: Callable[[_Wanted], object]) -> None:
        """What was wanted first counts, even if nothing is any more: it may have to be put back."""
        with self._lock:
            self._post = post
            post(first)
            post(self.wanted)

    def _tell(self, address: MonitorAddress, outcome: Outcome) -> None:
        with self._lock:
            if address in self.wanted and self._outcomes.get(address) != outcome:
                self._outcomes[address] = outcome
                self._wake()

    def _is_over(self, idle: bool) -> bool:
        """Whether the thread is to end; if so, ``set`` begins another one."""
        with self._lock:
            if over := self._at_once or (idle and not self.wanted):
                self._thread = self._post = None
            return over

    def _fail(self, error: Exception) -> None:
        reason = f"monitors cannot be talked with: {error!r}"
        with self._lock:
            self._thread = self._post = None
            self._outcomes = {each: Outcome(on, reason) for each, on in self.wanted.items()}
            self._wake()

    def _wake(self) -> None:
        if self._news >= 0:
            os.eventfd_write(self._news, 1)
