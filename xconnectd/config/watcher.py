"""The config file changed: one call per event that may matter, and a look of its own.

Sole importer of watchdog. Knows when to read the file again, never what is in it. inotify tells of
a save within a millisecond; ``check`` finds what it cannot: a directory that was replaced, a dead
thread, an edit behind a bind mount.
"""
# ruff: noqa: PTH118
# Paths are text here: ``check`` runs each second, and Path objects would take most of its time.

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Final, TypeVar

from xconnectd.config import signature
from xconnectd.config.signature import Signature, Step
from xconnectd.lazy_imports import late, without_init
from xconnectd.mounts import Disk

with without_init("watchdog.observers"), late("ctypes.util"):
    from watchdog.observers.inotify_c import (
        CallbackId,
        InotifyEvent,
        InotifyFD,
        Mask,
        WatchDescriptor,
    )
    from watchdog.observers.inotify_c import InotifyConstants as Inotify

_Answer = TypeVar("_Answer")

SETTLED: Final = 0.0
"""A save is complete: one close after writing, or one rename into place."""
UNSETTLED: Final = 0.2
"""What happened may be the first half of a save."""

_EVENTS: Final = Mask(
    Inotify.IN_CLOSE_WRITE
    | Inotify.IN_MOVED_TO
    | Inotify.IN_MOVED_FROM
    | Inotify.IN_CREATE
    | Inotify.IN_DELETE
    | Inotify.IN_ONLYDIR
)
"""Asked of the kernel, so that reading the file never wakes us. Not ``modify``: it comes before
every ``close``, only to delay it; who writes and does not close is found by ``check``."""

_ONLY: Final = CallbackId(1)
"""Of each directory's callbacks there is one."""

_LIMITS: Final = {
    errno.EMFILE: "fs.inotify.max_user_instances",
    errno.ENOSPC: "fs.inotify.max_user_watches",
}
"""Sysctls that say how much of inotify a user may have, by what is raised when all is taken."""

_UNREACHABLE: Final[Signature] = (-1,)
"""The signature of what does not answer: it is another one when that answers again."""


class ConfigWatch:
    """Watches ``path``, or if that is a directory every ``*.yaml`` in it.

    Make it before the first read of the file: it tells of changes since.

    ``changed(settle)`` is called from a thread of watchdog's, or of whoever calls ``check``;
    ``settle`` is how many seconds of quiet to wait for before the file is worth reading.

    It listens to watchdog's reader itself: an observer hands each event on through two more
    threads, which takes as long as a rewire, and holds a rename back to look for its other half.
    """

    def __init__(
        self, path: Path, changed: Callable[[float], None], disk: Disk | None = None
    ) -> None:
        self._path = str(Path.cwd() / path)  # without a dot: /x/. and /x are one watch
        self._changed = changed
        self._disk = disk or Disk()
        self._known = self._pending = self._signature()
        self._route: tuple[Step, ...] = ()
        self._names: frozenset[str] = frozenset()
        self._reader: InotifyFD | None = None
        self._directory_gone = False
        self.problem = ""
        """Why inotify cannot be used, and the way out; ``check`` finds each change, but later."""

    def start(self) -> None:
        self._arm(self._find_route())

    def stop(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.stop()
            with suppress(RuntimeError):  # it was never started
                reader.join()

    def check(self) -> None:
        """Once a second: repair the watch, and find a change without an event."""
        route = self._find_route()
        if route != self._route or not self._is_alive():
            self.stop()
            self._arm(route)
        now = self._signature()
        if now != self._known and now == self._pending:
            self._tell(now, SETTLED)
        self._pending = now

    @property
    def orphan(self) -> str:
        """The path that leads to a file without a name; empty if none does.

        So does a bind mount of a single file once that file was replaced outside: whatever is
        written there from now on will never be seen here.
        """
        return next(
            (path for path in self._files() if self._ask(signature.is_orphan, path, False)), ""
        )

    def _ask(self, look: Callable[[str], _Answer], path: str, otherwise: _Answer) -> _Answer:
        """What a look at a path tells, or this if it tells nothing: nobody answers, say."""
        try:
            return self._disk.ask(look, path)
        except OSError:
            return otherwise

    def _files(self) -> list[str]:
        """The path itself, and with a directory also the files in it that count."""
        names = self._ask(signature.names, self._path, None)
        inside = (os.path.join(self._path, name) for name in names or ())
        return [self._path, *(each for each in inside if _is_one_of(each, self._path))]

    def _signature(self) -> Signature:
        """What differs after any change of the files."""
        signatures = (self._ask(signature.signature, path, _UNREACHABLE) for path in self._files())
        return tuple(chain.from_iterable(signatures))

    def _find_route(self) -> tuple[Step, ...]:
        """What does not answer is not listened to either: to ask for that would hang."""
        nowhere: tuple[Step, ...] = ()
        routes = (self._ask(signature.route, path, nowhere) for path in self._files())
        return tuple(dict.fromkeys(chain.from_iterable(routes)))

    def event_at(self, path: str, *, whole: bool) -> None:
        """Something happened to ``path``; ``whole`` if that may well be the end of a save."""
        if self._matters(path):
            now = self._signature()
            self._tell(now, SETTLED if now and whole else UNSETTLED)

    def overflowed(self) -> None:
        """Something happened to one of the directories, or to anything in them."""
        self._tell(self._signature(), UNSETTLED)

    def _matters(self, path: str) -> bool:
        """Also a file that is new in the directory of files."""
        return path in self._names or _is_one_of(path, self._path)

    def _tell(self, now: Signature, settle: float) -> None:
        # Noted before the file is read: what is written later differs from it.
        self._known = now
        self._changed(settle)

    def _arm(self, route: tuple[Step, ...]) -> None:
        self._route = route
        self._names = frozenset(os.path.join(step.directory, step.name) for step in route)
        try:
            self._reader = self._read({step.directory for step in route})
            self.problem = ""
        except OSError as error:  # out of inotify instances or watches, or the directory is gone
            self.problem = _in_words(error)
        now = self._signature()
        if now != self._known:
            self._tell(now, UNSETTLED)

    def _read(self, directories: set[str]) -> InotifyFD:
        reader = InotifyFD()
        reader.start()  # one that never ran would keep its descriptors
        self._directory_gone = False
        try:
            for directory in directories:
                callback = _Callback(self, directory)
                reader.add_callback(os.fsencode(directory), _EVENTS, callback, _ONLY)
        except OSError:
            reader.stop()
            raise
        return reader

    def directory_gone(self) -> None:
        """One of the directories is gone; another one of its name has to be listened to anew."""
        self._directory_gone = True

    def _is_alive(self) -> bool:
        return self._reader is not None and self._reader.is_alive() and not self._directory_gone


class _Callback:
    """What watchdog's reader calls, from its thread, for one directory."""

    def __init__(self, watch: ConfigWatch, directory: str) -> None:
        self._watch = watch
        self._directory = directory

    def on_event(self, event: InotifyEvent) -> None:
        path = os.path.join(self._directory, os.fsdecode(event.name))
        self._watch.event_at(path, whole=event.is_close_write or event.is_moved_to)

    def on_watch_deleted(self, _descriptor: WatchDescriptor) -> None:
        self._watch.directory_gone()

    def on_queue_overflow(self) -> None:
        self._watch.overflowed()


def _in_words(error: OSError) -> str:
    limit = _LIMITS.get(error.errno or 0)
    hint = f": raise {limit}" if limit else ""
    return f"{error.strerror or error}{hint}"


def _is_one_of(path: str, directory: str) -> bool:
    head, name = os.path.split(path)
    return head == directory and signature.counts(name)
