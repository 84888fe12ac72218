"""All links in one line: for the unit's status, and for who made a daemon read its files. Pure."""

from __future__ import annotations

from collections.abc import Collection

from xconnectd.config.source import FileState, Reading
from xconnectd.formatting import counted, printable
from xconnectd.model import State
from xconnectd.reconcile.link_state import LinkStatus


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
    by_state: dict[State, list[LinkStatus]] = {}
    for each in statuses:
        by_state.setdefault(each.state, []).append(each)
    parts = []
    for state in sorted(State, key=State.FAILED.__ne__):
        if found := by_state.get(state):
            why = _why_in_short(found[0]) if len(found) == 1 else ""
            parts.append(f"{len(found)} {state}{why}")
    count = counted(len(statuses), "link")
    return f"{count}: {', '.join(parts)}" if parts else count


def _why_in_short(status: LinkStatus) -> str:
    if status.state is State.WAITING:
        missing = (end.name for end in (status.a, status.b) if end.ifindex is None)
        return f" for {' and '.join(dict.fromkeys(missing))}"
    return f" ({status.reason})" if status.reason else ""
