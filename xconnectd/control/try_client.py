"""The client's side of ``xconnectd try``: a wiring on a lease.

The daemon takes the wiring back as soon as the connection ends, however it ends. What is kept is
put in the file's place by this process, whole, before the daemon is told: the file on disk is
never half of anything, and from then on it is the file that counts.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Self

from xconnectd.config import reader, writer
from xconnectd.control.client import Connection
from xconnectd.control.protocol import CONTROL
from xconnectd.errors import ConfigError, Problem, XconnectError


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

    def __init__(self, file: Path, content: reader.Content) -> None:
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
        writer.replace(self.place, self._data)
        self._demand("keep")

    def _demand(self, request: str) -> None:
        answer = self._connection.ask(request)
        if not answer["ok"]:
            raise TrialError(answer["error"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
