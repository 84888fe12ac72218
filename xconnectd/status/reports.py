"""Reports for commands: the daemon's own, or of a look at the kernel.

A daemon that hears of all that happens has looked after each of it, and is asked alone: one more
look would show nothing newer, and takes longer than all else with thousands of links. The kernel is
looked at where no daemon answers, where it does not hear of all, and for a file or a host that is
named.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeGuard

from xconnectd.config import identity
from xconnectd.status import daemons_report
from xconnectd.status.document import StatusDocument

_SAMPLE: Final = 0.1
"""Seconds over which a rate is taken."""


def report(file: Path | None) -> StatusDocument:
    """What ``status --json`` prints, without rates.

    ``file`` is the daemon's if it is None, else it is read, and compared with the kernel.

    Raises:
        NoDaemonError: the kernel may not be read, and no daemon answers.
        HiddenError: the pins cannot be seen from here, and no daemon answers.
    """
    told = daemons_report.ask()
    if file is None and _is_enough(told):
        return told
    from xconnectd.status import collector  # 0.1 s that only a look costs

    return collector.report(file, told)


def sampled(file: Path | None, links: Sequence[str] = ()) -> StatusDocument:
    """A report with rates: the counters are read twice, all else once.

    Who cannot read counters is told of two reports. Raises as ``report``.
    """
    before = daemons_report.ask_counted() if file is None else None
    if before is not None:
        since = time.monotonic()
        time.sleep(_SAMPLE)
        if _is_enough(told := daemons_report.ask()):
            return told.only(links).rated(before, time.monotonic() - since)
    from xconnectd.status import collector

    if found := collector.sampled(file, links, _SAMPLE):
        return found
    looks = Looks(file, links)
    time.sleep(_SAMPLE)
    return looks()


def _is_enough(told: StatusDocument | None) -> TypeGuard[StatusDocument]:
    """Whether it is of a daemon that hears of all that happens: no other tells differences.

    Another part of its file than its host's it does not know.
    """
    asked = os.environ.get(identity.VARIABLE)
    return (
        told is not None
        and told.differences is not None
        and (not asked or told.host in ("", asked))
    )


class Looks:
    """Reports, each with the rates since the one before; of ``links`` alone if any is named."""

    def __init__(self, file: Path | None, links: Sequence[str] = ()) -> None:
        self._file = file
        self._links = links
        self._before, self._since = report(file), time.monotonic()

    def __call__(self) -> StatusDocument:
        """Raises XconnectError if there is no link of a name."""
        found, now = report(self._file).only(self._links), time.monotonic()
        rated = found.since(self._before, now - self._since)
        self._before, self._since = found, now
        return rated
