"""All links in one line: for the unit's status, and for who made a daemon read its files. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from operator import attrgetter
from typing import Final

from xconnectd.config.source import FileState, Reading
from xconnectd.formatting import counted, printable
from xconnectd.model import State
from xconnectd.reconcile.link_state import LinkStatus

_STATE: Final = attrgetter("state")


def headline(reading: Reading, statuses: Collection[LinkStatus]) -> str:
    """One line for the unit's status: a file that is refused or missing comes before all links."""
    wrong = [file for file in reading.files if file.state != "loaded"]
    parts = [_what_is_wrong(file) for file in wrong[:1]]
    if len(wrong) > 1:
        parts.append(f"{counted(len(wrong) - 1, 'more file')} not taken")
    return printable("; ".join([*parts, summary(statuses)]))


def _what_is_wrong(file: FileState) -> str:
    if not file.problems:
        return f"{file.path} is {file.state}"
    first, *more = file.problems
    return f"{file.state}: {first}" + (f" and {counted(len(more), 'more problem')}" if more else "")


def summary(statuses: Collection[LinkStatus]) -> str:
    """One line: ``3 links: 2 connected, 1 waiting for tap3``. What failed comes first."""
    by_state = Counter(map(_STATE, statuses))  # without a loop of our own: there may be thousands
    parts = []
    for state in sorted(State, key=State.FAILED.__ne__):
        if number := by_state[state]:
            only = next(each for each in statuses if each.state is state) if number == 1 else None
            parts.append(f"{number} {state}{_why_in_short(only) if only else ''}")
    count = counted(len(statuses), "link")
    return f"{count}: {', '.join(parts)}" if parts else count


def _why_in_short(status: LinkStatus) -> str:
    if status.state is State.WAITING:
        missing = (end.name for end in (status.a, status.b) if end.ifindex is None)
        return f" for {' and '.join(dict.fromkeys(missing))}"
    return f" ({status.reason})" if status.reason else ""
