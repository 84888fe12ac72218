"""The log where it cannot be written."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import pytest
import structlog

from xconnectd import log
from xconnectd.log import Event, Tap


def full_disk() -> TextIO:
    return Path("/dev/full").open("w")


def pipe_that_nobody_reads() -> TextIO:
    read, write = os.pipe()
    os.close(read)
    return os.fdopen(write, "w")


@pytest.mark.parametrize("make", [full_disk, pipe_that_nobody_reads])
@pytest.mark.parametrize("form", ["console", "json"])
def test_a_log_that_cannot_be_written_ends_nothing(make: Callable[[], TextIO], form: str) -> None:
    told: list[Mapping[str, Any]] = []
    tap = Tap()
    tap.publish = told.append
    stream = make()
    try:
        logger = log.setup(form, stream=stream, tap=tap)
        for level in ("debug", "info", "warning", "error"):
            getattr(logger, level)(Event.LINK_DOWN, reason=level)
    finally:
        structlog.reset_defaults()
        with suppress(OSError):
            stream.close()
    assert [each["reason"] for each in told] == ["info", "warning", "error"]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colours_on_a_terminal_unless_they_are_refused(
    no_color: str, coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    stream = _Terminal()
    try:
        log.setup(stream=stream).warning(Event.LINK_DOWN, reason="so")
    finally:
        structlog.reset_defaults()
    assert "link.down" in stream.getvalue()
    assert ("\x1b[" in stream.getvalue()) is coloured
