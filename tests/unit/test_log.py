"""The log where it cannot be written."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import pytest
import structlog

from xconnectd import events
from xconnectd.daemon import systemd
from xconnectd.events import Event, Publisher


def pipe_that_nobody_reads() -> TextIO:
    read, write = os.pipe()
    os.close(read)
    return os.fdopen(write, "w")


@pytest.fixture(autouse=True)
def _own_logger() -> Iterator[None]:
    yield
    structlog.reset_defaults()


LEVELS = ("debug", "info", "warning", "error")


@pytest.mark.parametrize("make", [partial(Path("/dev/full").open, "w"), pipe_that_nobody_reads])
@pytest.mark.parametrize("form", ["console", "json"])
def test_a_log_that_cannot_be_written_ends_nothing(make: Callable[[], TextIO], form: str) -> None:
    told: list[Mapping[str, Any]] = []
    publisher = Publisher()
    publisher.subscribers = (told.append,)
    with suppress(OSError), make() as stream:
        logger = events.setup(form, stream=stream, publisher=publisher)
        for level in LEVELS:
            getattr(logger, level)(Event.LINK_DOWN, reason=level)
    assert [each["reason"] for each in told] == ["info", "warning", "error"]


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize("ours", [True, False])
def test_the_journal_gets_a_priority_with_every_line(
    form: str, ours: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody else: what a service starts inherits the variable, whatever it writes to."""
    path = tmp_path / "stream"
    with path.open("w") as stream:
        there = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{there.st_dev}:{there.st_ino + (not ours)}")
        logger = events.setup(form, "debug", stream=stream, journal=systemd.is_journal(stream))
        for level in LEVELS:
            getattr(logger, level)(Event.LINK_DOWN, reason=level)
        logger.error(Event.LINK_FAILED, exc_info=KeyError("x"))
    priorities = [line[:3] for line in path.read_text().splitlines()]
    if ours:
        assert priorities[:4] == ["<7>", "<6>", "<4>", "<3>"]
        assert set(priorities[4:]) == {"<3>"}, "every line of it"
    else:
        assert not any(each.startswith("<") for each in priorities)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_terminal_colours(no_color: str, coloured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    stream = _Terminal()
    events.setup(stream=stream).warning(Event.LINK_DOWN, reason="so")
    told = stream.getvalue()
    assert ("link.down" in told, told.rstrip().endswith("so")) == (True, True)
    assert ("\x1b[" in told) is coloured
