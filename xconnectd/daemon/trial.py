"""A wiring that is tried: for as long as its client and its time last, then back to the files."""

from __future__ import annotations

from typing import Final, NamedTuple

from xconnectd.control.protocol import Answer, Draft, Request
from xconnectd.control.server import Client
from xconnectd.daemon.clock import Clock
from xconnectd.daemon.config_files import ConfigFiles
from xconnectd.daemon.ports import Runtime
from xconnectd.events import Event, Logger, Trigger
from xconnectd.model import Wiring
from xconnectd.status import document

_TIME_TO_WRITE: Final = 10.0
"""Seconds that a client has to put the file in place."""

_TOO_LATE: Final = "too late, it was reverted"


class Tried(NamedTuple):
    """What is being tried, by whom (None: gone), and until when (``monotonic``)."""

    client: Client | None
    wiring: Wiring
    deadline: float
    being_written: bool = False
    """Its file is being put in place."""
    edited: bool = False
    """Somebody else changed a file meanwhile."""


class Trial:
    """One wiring at a time. While one is tried, changed files are not read.

    Attributes:
        tried: what is being tried, None while nothing is.
    """

    def __init__(self, runtime: Runtime, files: ConfigFiles, log: Logger, clock: Clock) -> None:
        self._reconciler = runtime.reconciler
        self._files = files
        self._log = log
        self._clock = clock
        self.tried: Tried | None = None

    def told(self) -> document.Trial | None:
        """For ``status``; None while nothing is tried."""
        if self.tried is None:
            return None
        left = max(0.0, self.tried.deadline - self._clock.monotonic())
        return document.Trial(self.tried.wiring.hash, round(left, 1), self.tried.edited)

    # ------------------------------------------------------------------ asked by its client

    def start(self, client: Client, request: Request) -> Answer:
        """Connects what the draft says; with the place where its file would stand."""
        try:
            draft = Draft.of(request)
        except ValueError as error:
            return {"ok": False, "error": f"not understood: {error}"}
        if self.tried:
            return {"ok": False, "error": "another wiring is being tried"}
        place, reading = self._files.source.imagine(draft.name, draft.text, draft.instead)
        if reading.problems:
            return {"ok": False, "refused": [tuple(each) for each in reading.problems]}
        wiring, seconds = reading.wiring, draft.seconds
        self.tried = Tried(client, wiring, self._clock.monotonic() + seconds)
        self._log.info(Event.TRY_STARTED, config_hash=wiring.hash, seconds=seconds)
        if scope := self._reconciler.want(wiring):
            self._reconciler.run(scope, Trigger.TRY)
        return {"ok": True, "place": str(place)}

    def hold(self, client: Client) -> Answer:
        """The client is about to put the file in place: time enough for that."""
        if self.tried is None or self.tried.client is not client:
            return {"ok": False, "error": _TOO_LATE}
        deadline = self._clock.monotonic() + _TIME_TO_WRITE
        self.tried = self.tried._replace(deadline=deadline, being_written=True)
        return {"ok": True}

    def keep(self, client: Client) -> Answer:
        """What was tried stands in the file's place now; from here on the file wins."""
        if self.tried is None or self.tried.client is not client:
            return {"ok": False, "error": _TOO_LATE}
        tried, self.tried = self.tried.wiring, None
        if scope := self._files.read_again():
            self._reconciler.run(scope, Trigger.CONFIG)
        self._log.info(Event.TRY_KEPT, config_hash=self._reconciler.wiring.hash)
        kept = self._reconciler.wiring.links == tried.links
        return {"ok": kept, "error": "" if kept else "the file is not what was tried"}

    # ------------------------------------------------------------------ what ends it

    def client_gone(self, client: Client) -> None:
        """Called also in the middle of a pass, whose events this client was to be told."""
        if self.tried and self.tried.client is client:
            self.tried = self.tried._replace(client=None)

    def check(self) -> None:
        """Back to what the files say now, if nobody confirmed it in time or its client is gone."""
        tried = self.tried
        if tried and (tried.client is None or self._clock.monotonic() >= tried.deadline):
            self.forget("not confirmed")
            if scope := self._files.read_again():
                self._reconciler.run(scope, Trigger.CONFIG)

    def forget(self, reason: str) -> None:
        """Ends it, for who reads the files next."""
        if self.tried:
            self.tried = None
            self._log.warning(Event.TRY_REVERTED, reason=reason)

    def file_changed(self) -> None:
        """A file was changed meanwhile: told once, unless it is the one to be kept."""
        if self.tried and not self.tried.being_written and not self.tried.edited:
            self.tried = self.tried._replace(edited=True)
            self._log.warning(
                Event.CONFIG_DEFERRED,
                path=str(self._files.source.path),
                reason="a wiring is being tried; the files are read when that ends",
            )
