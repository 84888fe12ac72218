"""A capture of links from its start to its end: which ends are tapped, and what is written.

Follows the ends by name: one that goes and comes back is tapped again. Writes to a file descriptor
that it is handed, in the form that it is handed, and says on its way what somebody should know.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterable
from typing import Final

from xconnectd.capture.forms import Account, Accounts, Form, Way
from xconnectd.capture.tap import Capture, Frame
from xconnectd.netlink.monitor import Events, OverrunError

_LATENCY: Final = 0.05
"""Seconds that a frame may wait to be read, unless so many come that the kernel wakes us."""
_CLOCKS_MAY_DIFFER: Final = 1_000_000
"""Nanoseconds by which the wall clock may be set or drift before it is read anew."""
_STATISTICS_EVERY: Final = 1.0
"""Seconds between two notes in the file while frames are lost."""


Filter = Callable[[bytes, int], bool]
"""Whether a frame is kept, by what was captured of it and its length in bytes."""
Place = tuple[int, int | None]
"""Where to tap an end: its ifindex, and for native XDP a descriptor of our program."""


class Recording:
    """``place`` tells where the end of a name is now; None while there is none of that name.

    ``filter_`` says which frames are kept, ``count`` how many (0: any number). ``output`` is a file
    descriptor, ``reader`` that of a pipe behind it, ``say`` gets what happens on the way, in words.
    """

    def __init__(
        self,
        capture: Capture,
        ways: Iterable[Way],
        form: Form,
        *,
        output: int,
        reader: int | None = None,
        place: Callable[[str], Place | None],
        say: Callable[[str], None],
        filter_: Filter | None = None,
        count: int = 0,
    ) -> None:
        self._capture = capture
        self._ways = tuple(ways)
        self._form = form
        self._output = output
        self._pipes = {output, output if reader is None else reader}
        self._place = place
        self._say = say
        self._filter = filter_
        self._left = count or None
        self._places: dict[int, Place | None] = {}
        self._wall = _wall()
        self._start = time.time_ns()
        self._noted = time.monotonic()
        self._over = False
        self.accounts: Accounts = {way.end: Account() for way in self._ways}

    def stop(self) -> None:
        """To be called from a signal handler, say: the frames that came by then are still kept."""
        self._over = True

    def run(self) -> bool:
        """Until ``stop`` or the last frame wanted; False if the reader of a pipe closed it first.

        Raises DataplaneError, PrivilegeError, OSError.
        """
        with contextlib.suppress(BrokenPipeError), contextlib.closing(Events()) as events:
            self._write(self._form.begin())
            self._follow()
            waiting = select.poll()
            waiting.register(self._capture, select.POLLIN)
            waiting.register(events, select.POLLIN)
            for pipe in self._pipes:
                waiting.register(pipe, 0)  # tells all the same when a reader has gone
            while not self._over:
                ready = {fd for fd, _ in waiting.poll(_LATENCY * 1000)}
                if not self._pipes.isdisjoint(ready):
                    return False
                if events.fileno() in ready or events.is_due():
                    self._receive(events)
                self._take()
            self._end()
            return True
        return False

    def _end(self) -> None:
        """Nothing is counted any more when what is left is read, so that it adds up."""
        for way in self._ways:
            self._capture.detach(way.end)
        self._take()
        self._count()
        self._write(self._form.counts(self.accounts, self._start, time.time_ns()))

    # ------------------------------------------------------------------ ends

    def _receive(self, events: Events) -> None:
        with contextlib.suppress(OverrunError):  # what was lost does not matter: we look
            events.drain()
        self._follow()

    def _follow(self) -> None:
        for way in self._ways:
            place = self._place(way.name)
            known = self._places.get(way.end, ())
            if place == known:
                continue
            self._places[way.end] = place
            if place is None:
                self._capture.detach(way.end)
                self._say(f"{way.name} does not exist; waiting for it")
                continue
            self._capture.attach(way.end, *place)
            if known != ():
                self._say(f"{way.name} is there again or has changed: capturing it")

    # ------------------------------------------------------------------ frames

    def _take(self) -> None:
        frames = [frame for frame in self._capture.read() if self._wanted(frame)]
        if frames:
            self._write(self._form.frames(frames, self._clock()))
        self._note_losses()

    def _wanted(self, frame: Frame) -> bool:
        if self._left == 0:
            return False
        account = self.accounts[frame.end]
        if self._filter and not self._filter(frame.data, frame.length):
            account.filtered_out += 1
            return False
        account.kept += 1
        if self._left is not None:
            self._left -= 1
            self._over = self._left == 0
        return True

    def _clock(self) -> int:
        """Steady, so that frames stay in order, unless somebody sets the clock."""
        now = _wall()
        if abs(now - self._wall) > _CLOCKS_MAY_DIFFER:
            self._wall = now
        return self._wall

    # ------------------------------------------------------------------ losses

    def _count(self) -> bool:
        """Whether more was lost since the last time."""
        before = self._lost()
        for way in self._ways:
            self.accounts[way.end].tally = self._capture.tally(way.end)
        return self._lost() > before

    def _lost(self) -> int:
        return sum(account.tally.lost for account in self.accounts.values())

    def _note_losses(self) -> None:
        """Into the file, for who looks at it while it grows or finds it cut short."""
        now = time.monotonic()
        if now - self._noted > _STATISTICS_EVERY:
            self._noted = now
            if self._count():
                self._write(self._form.counts(self.accounts, self._start, time.time_ns()))

    def _write(self, data: bytes) -> None:
        write_all(self._output, data)


def write_all(output: int, data: bytes) -> None:
    """To a file descriptor, however little of it a pipe takes at a time."""
    view = memoryview(data)
    while view:
        view = view[os.write(output, view) :]


def _wall() -> int:
    """What the wall clock is ahead of the steady one, in ns.

    The closest of three looks: between one clock and the other we may lose the processor.
    """

    def look() -> tuple[int, int]:
        before, now, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        return after - before, now - before

    return min(look() for _ in range(3))[1]
