"""structlog set-up and the names of all events, which users may rely on."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from functools import partial, partialmethod
from typing import Any, TextIO

from xconnectd.event_line import event_line
from xconnectd.lazy_imports import late, without
from xconnectd.terminal import paint

with late("asyncio"), without("rich"):
    import structlog


class Event(StrEnum):
    """One event per change; the names are an interface (docs/commands.md)."""

    CONFIG_LOADED = "config.loaded"
    CONFIG_REJECTED = "config.rejected"
    CONFIG_WARNING = "config.warning"
    CONFIG_UNREACHABLE = "config.unreachable"
    CONFIG_DEFERRED = "config.deferred"
    CONFIG_UNWATCHED = "config.unwatched"
    CONFIG_WATCHED = "config.watched"
    TRY_STARTED = "try.started"
    TRY_KEPT = "try.kept"
    TRY_REVERTED = "try.reverted"
    PROGRAM_LOADED = "program.loaded"
    PROGRAM_ADOPTED = "program.adopted"
    PINS_LOST = "pins.lost"
    DROP_STATS_UNAVAILABLE = "drop_stats.unavailable"
    GUARD_UNAVAILABLE = "guard.unavailable"
    LINK_CONNECTED = "link.connected"
    LINK_REWIRED = "link.rewired"
    LINK_DISCONNECTED = "link.disconnected"
    LINK_WAITING = "link.waiting"
    LINK_FAILED = "link.failed"
    LINK_DISABLED = "link.disabled"
    LINK_DOWN = "link.down"
    LINK_UP = "link.up"
    LINK_WARNING = "link.warning"
    IMPAIR_STARTED = "impair.started"
    IMPAIR_ENDED = "impair.ended"
    CARRIER_HIDDEN = "carrier.hidden"
    CARRIER_SHOWN = "carrier.shown"
    CARRIER_UNWATCHED = "carrier.unwatched"
    NODE_APPEARED = "node.appeared"
    NODE_GONE = "node.gone"
    TUNNEL_UP = "tunnel.up"
    TUNNEL_DOWN = "tunnel.down"
    TUNNELS_UNHEARD = "tunnels.unheard"
    MOVED_NETNS = "interface.moved_netns"
    RENEWAL_FAILED = "renewal.failed"
    RA_REMOVED = "interface.ra_removed"
    DETACH_FAILED = "detach.failed"
    DRIFT_REPAIRED = "drift.repaired"
    DRIFT_FLAPPING = "drift.flapping"
    METRICS_SERVED = "metrics.served"
    METRICS_FAILED = "metrics.failed"
    METRICS_REFUSED = "metrics.refused"
    METRICS_STOPPED = "metrics.stopped"
    STATE_UNWRITABLE = "state.unwritable"
    STATE_UNJUDGED = "state.unjudged"
    EVENTS_LOST = "events.lost"
    PASS_DONE = "pass.done"  # noqa: S105 (no password)
    DAEMON_READY = "daemon.ready"
    DAEMON_STOPPED = "daemon.stopped"


class Trigger(StrEnum):
    """What a pass was run for, in the field ``trigger``; an interface too."""

    START = "start"
    CONFIG = "config"
    TRY = "try"
    IMPAIR = "impair"
    SIGNAL = "signal"
    COMMAND = "command"
    NETLINK = "netlink"
    UNDERLAY = "underlay"
    RETRY = "retry"


Logger = structlog.typing.FilteringBoundLogger


class Publisher:
    """Hands every event to ``subscribers`` as well, whatever level is logged."""

    def __init__(self) -> None:
        self.subscribers: tuple[Callable[[Mapping[str, Any]], None], ...] = ()

    def __call__(self, _logger: Any, _method: str, event: Any) -> Any:
        for publish in self.subscribers:
            publish(dict(event))
        return event


class _Threshold:
    """Drops what is below the level that is to be logged."""

    def __init__(self, level: int) -> None:
        self._level = level

    def __call__(self, _logger: Any, method: str, event: Any) -> Any:
        if logging.getLevelNamesMapping()[method.upper()] < self._level:
            raise structlog.DropEvent
        return event


class _Writer:
    """Writes lines to ``stream``, as far as that goes.

    A full disk or a pipe that nobody reads any more costs the line, not the wires. To the journal
    each line begins with its priority: sd-daemon(3).
    """

    def __init__(self, stream: TextIO, *, journal: bool) -> None:
        self._stream = stream
        self._journal = journal

    def _write(self, priority: int, text: str) -> None:
        before = f"<{priority}>" if self._journal else ""
        with suppress(OSError):
            self._stream.write(before + text.replace("\n", f"\n{before}") + "\n")
            self._stream.flush()

    debug = partialmethod(_write, 7)
    info = partialmethod(_write, 6)
    warning = partialmethod(_write, 4)
    error = partialmethod(_write, 3)
    critical = partialmethod(_write, 2)


def setup(
    form: str | None = None,
    level: str = "info",
    *,
    stream: TextIO | None = None,
    publisher: Publisher | None = None,
    journal: bool = False,
) -> Logger:
    """Logs to stderr: ``console`` on a terminal, ``json`` elsewhere, unless ``form`` says.

    ``journal``: that is where the stream leads.
    """
    stream = stream or sys.stderr
    threshold = logging.getLevelNamesMapping()[level.upper()]
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *((publisher,) if publisher else ()),
        _Threshold(threshold),
    ]
    if (form or ("console" if stream.isatty() else "json")) == "json":
        processors += [
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(default=str),
        ]
    else:
        processors += [structlog.processors.format_exc_info, _line_for(stream)]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(min(threshold, logging.INFO)),
        logger_factory=lambda *_: _Writer(stream, journal=journal),
    )
    return logger().bind()  # else each event would make a logger and a writer


def _line_for(stream: TextIO) -> Callable[[Any, str, Any], str]:
    def line(_logger: Any, _method: str, event: Any) -> str:
        return event_line(event, partial(paint, stream=stream))

    return line


def of_application() -> Logger:
    """For a library: as the program logs that uses it, else only warnings, and to stderr."""
    return logger() if structlog.is_configured() else setup(level="warning")


def logger() -> Logger:
    log: Logger = structlog.get_logger()
    return log
