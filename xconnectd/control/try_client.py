"""The client's side of ``xconnectd try``: a wiring on a lease.

The daemon takes the wiring back as soon as the connection ends, however it ends. What is kept is
put in the file's place by this process, whole, before the daemon is told: the file on disk is
never half of anything, and from then on it is the file that counts.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from xconnectd.config import reader
from xconnectd.control.client import Connection
from xconnectd.control.protocol import CONTROL
from xconnectd.errors import ConfigError, Problem, XconnectError

_DIRECTORY_REFUSES: Final = (errno.EBUSY, errno.EROFS, errno.EACCES, errno.EPERM)
"""The first where the file is a mount of its own, as in a container, the others where its
directory may not be written."""

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class TrialError(XconnectError):
    """The daemon did not take the wiring, or has taken it back already."""


class Trial:
    """A file that is being tried from ``start`` until the ``with`` block ends.

    Attributes:
        place: where it stands if it is kept.
        summary: what became of the links.
        waiting: a line for each link an end of which does not exist.

    Raises:
        ConfigError: the file is refused.
        NoDaemonError: no daemon runs.
    """

    place: Path
    summary: str
    waiting: list[str]

    def __init__(self, file: Path) -> None:
        content = reader.read(str(file))
        reader.parsed(content, file)  # no daemon is needed to refuse it
        self._file = file
        self._data = content.data
        self._deadline = 0.0
        self._connection = Connection(CONTROL, timeout=10.0)

    def start(self, timeout: float, instead: str = "") -> None:
        """Applies it, for so many seconds; it replaces the file called ``instead``, if not its own.

        Raises:
            ConfigError: the daemon refuses it.
            TrialError: another one is being tried.
        """
        self._deadline = time.monotonic() + timeout
        details = {"path": str(self._file.absolute()), "text": self._data.decode()}
        if instead:
            details["as"] = instead
        answer = self._connection.ask("try", timeout=timeout, **details)
        if not answer["ok"]:
            if refused := answer.get("refused"):
                raise ConfigError([Problem(*fields) for fields in refused])
            raise TrialError(answer["error"])
        self.place = Path(answer["place"])
        self.summary = answer["summary"]
        self.waiting = answer.get("waiting", [])

    @property
    def timeout(self) -> float:
        """Seconds until the daemon takes it back."""
        return max(0.0, self._deadline - time.monotonic())

    def keep(self) -> None:
        """Puts what was tried in the file's place and ends the trial.

        Raises:
            OSError: it cannot be written there; the daemon takes the wiring back.
            TrialError: it was too late.
        """
        self._demand("hold")
        _replace(self.place, self._data)
        self._demand("keep")

    def _demand(self, request: str) -> None:
        answer = self._connection.ask(request)
        if not answer["ok"]:
            raise TrialError(answer["error"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def _replace(path: Path, data: bytes) -> None:
    """By a rename, or in place where nothing but the file itself may be changed."""
    place, directory = reader.pinned(path)  # a link to the file stays a link
    try:
        _rename_over(place, data)
    except OSError as error:
        if error.errno not in _DIRECTORY_REFUSES:
            raise
        flags = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(place, flags), "wb") as file:  # noqa: PTH123 (a descriptor)
            file.write(data)
    finally:
        os.close(directory)


def _rename_over(path: Path, data: bytes) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    mode = 0o600 if path.exists() else 0o666  # at no moment open to more people than the file is
    try:
        scratch.unlink(missing_ok=True)
        with os.fdopen(os.open(scratch, _NEW, mode), "wb") as file:
            file.write(data)
            if path.exists():
                _inherit(file.fileno(), path.stat())
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the new name with no content
        scratch.rename(path)
    except OSError:
        with suppress(OSError):
            scratch.unlink()
        raise


def _inherit(descriptor: int, was: os.stat_result) -> None:
    """Whoever may edit the file, and nobody else, may edit it afterwards."""
    with suppress(PermissionError):  # a container without CAP_CHOWN
        os.fchown(descriptor, was.st_uid, was.st_gid)
    os.fchmod(descriptor, was.st_mode & 0o7777)
