"""The state of every link in words and as JSON, from its evaluation and one look. Pure."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from xconnectd.config.source import FileState, Reading
from xconnectd.errors import XconnectError
from xconnectd.formatting import counted, printable
from xconnectd.model import (
    Counters,
    End,
    MovedEnd,
    State,
)
from xconnectd.reconcile.link_state import LinkStatus
from xconnectd.status import drop_reasons


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


# --------------------------------------------------------------------------- JSON


def document(
    daemon: Mapping[str, Any],
    reading: Reading,
    path: Path,
    *,
    statuses: Iterable[LinkStatus],
    counters: Mapping[int, Counters],
    moved_netns: Iterable[MovedEnd],
    drop_stats_unavailable: str = "",
    guard_unavailable: str = "",
) -> dict[str, Any]:
    """The whole of ``status --json``.

    ``drop_stats_unavailable`` is why losses at the redirect are not counted, ``guard_unavailable``
    why what gets past every hook is not kept from the host; ``unseen`` is for who cannot see the
    kernel's part, and why.
    """
    return {
        "daemon": dict(daemon),
        "config": {
            "path": str(path),
            "state": reading.state,
            "hash": reading.wiring.hash,
            "problems": [str(problem) for problem in reading.problems],
            "files": [file.as_json() for file in reading.files],
        },
        "links": [as_json(each, counters) for each in statuses],
        "moved_netns": [
            {"interface": gone.record.name, "ifindex": gone.record.ifindex, "remedy": gone.remedy}
            for gone in moved_netns
            if gone.runs_ours
        ],
        "drop_stats_unavailable": drop_stats_unavailable,
        "guard_unavailable": guard_unavailable,
        "unseen": "",
    }


def with_rates(before: dict[str, Any], now: dict[str, Any], seconds: float) -> dict[str, Any]:
    """A later document, with what came in by every end since an earlier one, per second."""
    known = {link["link"]: link for link in before["links"]}
    links = [
        {**link, **{end: _with_rate(known[link["link"]][end], link[end], seconds) for end in "ab"}}
        if link["link"] in known
        else link
        for link in now["links"]
    ]
    return now | {"links": links}


def _with_rate(before: dict[str, Any], now: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Counters begin anew with an end; a rate below nothing would be no rate."""
    frames = max(0, now["frames"] - before["frames"]) / seconds
    bits = max(0, now["bytes"] - before["bytes"]) * 8 / seconds
    return now | {"frames_per_s": round(frames, 1), "bits_per_s": round(bits)}


def as_json(status: LinkStatus, counters: Mapping[int, Counters]) -> dict[str, Any]:
    """The stable keys of ``status --json``; more may come, none goes."""
    retry = None if status.retry is None else round(max(0.0, status.retry - time.time()), 1)
    return {
        "link": status.link.id,
        "state": str(status.state),
        "reason": status.full_reason,
        "retry_in_s": retry,
        "mode": str(status.mode),
        "mode_reason": status.mode_reason,
        "warnings": list(status.warnings),
        "description": status.link.description,
        "labels": dict(status.link.labels),
        "enabled": status.link.enabled,
        "a": _end_as_json(status.a, status.b, counters),
        "b": _end_as_json(status.b, status.a, counters),
        "drops": drop_reasons.explained(status.a, status.b, counters, enabled=status.link.enabled),
    }


def _end_as_json(end: End, other: End, counters: Mapping[int, Counters]) -> dict[str, Any]:
    counted, there = drop_reasons.of(end, counters), drop_reasons.of(other, counters)
    return {
        "name": end.name,
        "ifindex": end.ifindex,
        "attached": end.attached,
        "up": end.up,
        "carrier": end.carrier,
        "mtu": end.mtu,
        "far_mtu": end.far_mtu,
        "far_name": end.far_name or None,
        "far_nsid": end.far_nsid,
        "frames": counted.frames,
        "bytes": counted.bytes,
        "frames_per_s": None,
        "bits_per_s": None,
        "last_frame_age_s": _age(counted.last),
        "dropped": drop_reasons.counted(counted, there),
        "passed_to_host": counted.passed_to_host,
    }


def _age(last: int) -> float | None:
    return round(max(0, time.monotonic_ns() - last) / 1e9, 3) if last else None


# --------------------------------------------------------------------------- names


def names(link: Mapping[str, Any]) -> tuple[str, ...]:
    """What a user may call a link of the document."""
    return spellings(link["link"], link["a"]["name"], link["b"]["name"])


def spellings(link: str, a: str, b: str) -> tuple[str, ...]:
    """Its id, both its ends in either order, either end."""
    return link, f"{a}:{b}", f"{b}:{a}", a, b


def only(report: dict[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    """The report of the links that are called so; of all if no name is given.

    Raises XconnectError: no link is called by one of them.
    """
    if not wanted:
        return report
    known = {each["link"]: names(each) for each in report["links"]}
    called = set(chain.from_iterable(known.values()))
    if unknown := [name for name in wanted if name not in called]:
        path = report["config"]["path"]
        raise XconnectError("\n".join(no_such_link(name, path, known) for name in unknown))
    links = [each for each in report["links"] if not set(wanted).isdisjoint(names(each))]
    kept = {each["link"] for each in links}
    differences = [each for each in report.get("differences", ()) if each["link"] in kept]
    return report | {"links": links, "differences": differences}


def no_such_link(name: str, file: str, links: Mapping[str, Sequence[str]]) -> str:
    """What to say of a name that no link has: one line, however many links there are.

    ``links`` is what they may be called, by their ids.
    """
    from difflib import get_close_matches  # 5 ms that only a typo should cost

    owner = {spelling: link for link, spellings in links.items() for spelling in spellings}
    close = dict.fromkeys(owner[found] for found in get_close_matches(name, owner, n=5))
    meant = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"no link {name} in {file}, which has {counted(len(links), 'link')}{meant}"


def not_connected(report: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, str]:
    """The enabled links (or the named ones) that are not connected, each with the reason."""
    links = report["links"]
    missing = {}
    for name in wanted:
        if not any(name in names(each) for each in links):
            missing[name] = "no such link in the file"
    for each in links:
        asked = (not wanted and each["enabled"]) or any(name in names(each) for name in wanted)
        if asked and each["state"] != "connected":
            missing[each["link"]] = f"{each['state']}: {each['reason']}"
    config = report["config"]
    if config["state"] != "loaded" and (missing or not wanted):
        missing.setdefault(config["path"], "\n".join((config["state"], *config["problems"])))
    return missing
