"""What clients may ask of the daemon, and what it tells them of itself."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from xconnectd import underlay
from xconnectd.control.protocol import Answer, Pieces, Request
from xconnectd.control.server import Client
from xconnectd.daemon.clock import Clock
from xconnectd.daemon.config_files import ConfigFiles
from xconnectd.daemon.passing import PassingImpairments
from xconnectd.daemon.ports import Runtime
from xconnectd.daemon.trial import Trial
from xconnectd.errors import XconnectError
from xconnectd.model import Counters, State
from xconnectd.status import builder
from xconnectd.status.document import Daemon, Link, Metrics, Passes, StatusDocument
from xconnectd.status.summary import summary


class Requests:
    """Answers one request at a time, in the daemon's thread."""

    def __init__(
        self,
        runtime: Runtime,
        files: ConfigFiles,
        trial: Trial,
        passing: PassingImpairments,
        clock: Clock,
        *,
        reload: Callable[[], None],
        catch_up: Callable[[], bool],
        metrics: Callable[[], Metrics | None],
    ) -> None:
        """``reload`` reads all files again; ``metrics`` says how these are served.

        ``catch_up`` has the links looked at of which there is news, and says whether the kernel
        tells of all that can happen to them.
        """
        self._runtime = runtime
        self._reconciler = runtime.reconciler
        self._files = files
        self._trial = trial
        self._passing = passing
        self._clock = clock
        self._reload = reload
        self._catch_up = catch_up
        self._metrics = metrics
        self._started = clock.monotonic()
        self._last_error = ""

    def answer(self, client: Client, request: Request) -> Answer | Pieces:
        do = request.get("do")
        if do == "ping":
            return {"ok": True}
        if do == "status":
            return self._status()
        if do == "counters":
            return self._counted()
        if do == "events":
            client.wants_events = True
            return {"ok": True}
        if not client.privileged:
            return {"ok": False, "error": "this socket is read-only: use control.sock"}
        match do:
            case "reload":
                self._reload()
                return self._outcome()
            case "try":
                answer = self._trial.start(client, request)
                return self._outcome() | answer if answer["ok"] else answer
            case "impair":
                return self._passing.answer(request)
            case "hold":
                return self._trial.hold(client)
            case "keep":
                return self._trial.keep(client)
        return {"ok": False, "error": f"no such request: {do}"}

    def note(self, event: Mapping[str, Any]) -> None:
        """Of what is logged, the last error or warning is told in ``status``."""
        if event.get("level") in ("error", "warning"):
            self._last_error = f"{event['event']}: {event.get('reason', '')}".rstrip(": ")

    def _status(self) -> Answer | Pieces:
        try:
            hears_all = self._catch_up()
            told, links = self._told(), self._links()
        except (XconnectError, OSError) as error:  # a look that was refused: no reason to end
            return _refused(error)
        if hears_all:
            told = told._replace(differences=builder.differences(self._reconciler.undone))
        return _in_pieces(
            self._runtime.counters_in_parts(), lambda counters: told.in_pieces(links(counters))
        )

    def _counted(self) -> Pieces:
        """Frames and bytes that came in by each end, for rates."""

        def text(counters: Mapping[int, Counters]) -> Iterator[str]:
            counted = {ifindex: (each.frames, each.bytes) for ifindex, each in counters.items()}
            yield json.dumps({"ok": True, "counted": counted})

        return _in_pieces(self._runtime.crossed_in_parts(), text)

    def facts(self) -> Callable[[], StatusDocument]:
        """What this thread alone may look at; any thread can make a report of it, by a call.

        Raises:
            XconnectError, OSError: the kernel refused a look.
        """
        told, links, counters = self._told(), self._links(), self._runtime.counters()
        return lambda: told._replace(links=tuple(links(counters)))

    def _told(self) -> StatusDocument:
        """All but the links."""
        return builder.without_links(
            self._self_report(),
            self._files.reading,
            self._files.source.path,
            drop_stats_unavailable=self._runtime.drop_stats_unavailable,
            guard_unavailable=self._runtime.guard_unavailable,
            moved_netns=self._reconciler.moved_netns(),
        )

    def _links(self) -> Callable[[Mapping[int, Counters]], Iterator[Link]]:
        """The links as they are now, to be made with counters that are yet to be read."""
        statuses = tuple(self._reconciler.statuses.values())
        far = [end for each in statuses if (end := each.link.tunnel_end)]
        return partial(
            builder.links,
            statuses,
            heard={end.text: self._runtime.tunnels.heard(end.text) for end in far if end.host},
            mtus=underlay.mtus(end.tunnel.remote for end in far if end.tunnel),
        )

    def _self_report(self) -> Daemon:
        """What the daemon knows of itself, and no look at the kernel could tell."""
        files, tally = self._files, self._reconciler.tally
        return Daemon(
            running=True,
            answers=True,
            pid=os.getpid(),
            uptime_s=round(self._clock.monotonic() - self._started, 1),
            last_reload=files.last_reload and round(files.last_reload, 3),
            last_load=files.last_load and round(files.last_load, 3),
            last_error=self._last_error,
            repairs=tally.repairs,
            passes=Passes(tally.count, round(tally.seconds, 6), tally.at_most()),
            starts=self._runtime.ledger.starts(),
            metrics=self._metrics(),
            trial=self._trial.told(),
        )

    def _outcome(self) -> Answer:
        reading, statuses = self._files.reading, self._reconciler.statuses
        return {
            "ok": reading.state == "loaded",
            "problems": [str(problem) for problem in reading.problems],
            "summary": summary(statuses.values()),
            "waiting": [
                f"{link} waits: {each.full_reason}"
                for link, each in statuses.items()
                if each.state is State.WAITING
            ],
        }


def _in_pieces(
    parts: Iterable[Mapping[int, Counters]], text: Callable[[Mapping[int, Counters]], Pieces]
) -> Pieces:
    """A text with counters in it, of which some are read at a time."""
    counters: dict[int, Counters] = {}
    try:
        for some in parts:
            counters |= some
            yield ""
    except (XconnectError, OSError) as error:
        yield json.dumps(_refused(error))
        return
    yield from text(counters)


def _refused(error: Exception) -> Answer:
    return {"ok": False, "error": str(error)}
