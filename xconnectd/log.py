"""structlog set-up and the names of all events, which users may rely on."""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from typing import Any, TextIO

import structlog


class Event(StrEnum):
    """One event per change; the names are an interface (see the README)."""

    CONFIG_LOADED = "config.loaded"
    CONFIG_REJECTED = "config.rejected"
    PROGRAM_LOADED = "program.loaded"
    PROGRAM_ADOPTED = "program.adopted"
    LINK_CONNECTED = "link.connected"
    LINK_REWIRED = "link.rewired"
    LINK_DISCONNECTED = "link.disconnected"
    LINK_WAITING = "link.waiting"
    LINK_FAILED = "link.failed"
    LINK_DISABLED = "link.disabled"
    LINK_DOWN = "link.down"
    LINK_UP = "link.up"
    LINK_WARNING = "link.warning"
    END_DEPARTED = "end.departed"
    RELEASE_FAILED = "release.failed"
    DRIFT_REPAIRED = "drift.repaired"
    EVENTS_LOST = "events.lost"
    PASS_DONE = "pass.done"
    PASS_FAILED = "pass.failed"
    DAEMON_READY = "daemon.ready"
    DAEMON_STOPPED = "daemon.stopped"


Logger = structlog.typing.FilteringBoundLogger


def setup(form: str | None = None, level: str = "info", stream: TextIO | None = None) -> Logger:
    """Logs to stderr: ``console`` on a terminal, ``json`` elsewhere, unless ``form`` says."""
    stream = stream or sys.stderr
    form = form or ("console" if stream.isatty() else "json")
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if form == "json":
        processors += [
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(default=str),
        ]
    else:
        processors.append(structlog.dev.ConsoleRenderer(colors=stream.isatty()))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(stream),
    )
    return logger()


def logger() -> Logger:
    log: Logger = structlog.get_logger()
    return log
