"""The state of every link in words and as JSON, from a verdict and one look at the kernel. Pure."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from xconnectd import losses
from xconnectd.errors import XconnectError
from xconnectd.files import FileState, Reading
from xconnectd.model import (
    Counters,
    Departed,
    End,
    Endpoint,
    Far,
    Interface,
    Link,
    Mode,
    Observed,
    Setting,
    State,
)
from xconnectd.printable import printable
from xconnectd.quantities import counted
from xconnectd.verdict import Verdict


class LinkStatus(NamedTuple):
    """A link's state and the reason for it.

    ``retry`` is when a failed one is tried again, in seconds since the epoch.
    """

    link: Link
    state: State
    reason: str
    mode: Mode
    mode_reason: str
    warnings: tuple[str, ...]
    a: End
    b: End
    retry: float | None = None
    hint: str = ""
    """What may be meant; no part of the reason, which stays the same when the hint is gone."""

    @property
    def told(self) -> str:
        """The reason, and the hint."""
        return f"{self.reason}; {self.hint}" if self.hint else self.reason

    @property
    def is_loose(self) -> bool:
        """Whether an end is there that runs nothing of ours."""
        return any(end.ifindex is not None and not end.attached for end in (self.a, self.b))


def assess(verdict: Verdict, observed: Observed) -> LinkStatus:
    """What the kernel makes of a link now."""
    link = verdict.link
    a = _end(link.a, verdict.a, verdict, observed)
    b = _end(link.b, verdict.b, verdict, observed)
    state, reason = _state(verdict, (a, b), observed)
    return LinkStatus(
        link,
        state,
        reason,
        verdict.mode,
        verdict.mode_reason,
        verdict.warnings,
        a,
        b,
        hint=verdict.hint,
    )


def failed(status: LinkStatus, reason: str, retry: float | None) -> LinkStatus:
    """The same link with the reason that only the daemon knew."""
    return status._replace(state=State.FAILED, reason=reason, retry=retry)


def _state(verdict: Verdict, ends: tuple[End, End], observed: Observed) -> tuple[State, str]:
    if verdict.refusal:
        return State.FAILED, verdict.refusal
    if verdict.waiting and verdict.link.enabled:
        return State.WAITING, verdict.waiting
    if gap := next(_gaps(verdict, ends, observed), ""):
        return State.FAILED, gap
    if not verdict.link.enabled:
        return State.DISABLED, "enabled: false"
    if why := next(filter(None, map(_why_down, ends)), ""):
        return State.DOWN, why
    return State.CONNECTED, ""


def _gaps(verdict: Verdict, ends: tuple[End, End], observed: Observed) -> Iterator[str]:
    """What the kernel lacks of this link, in words."""
    for end in ends:
        if end.ifindex is not None and not end.attached:
            yield f"not in the kernel: no program of ours on {end.name}"
    if verdict.a is None or verdict.b is None:
        return
    maps = [observed.peers] if verdict.mode is Mode.TC else [observed.entries, observed.peers]
    for here, there in ((verdict.a, verdict.b), (verdict.b, verdict.a)):
        wanted = there.ifindex if verdict.link.enabled else None
        found = {entries.get(here.ifindex) for entries in maps}
        if wanted is None and found != {None}:
            yield f"not in the kernel: {here.name} still leads somewhere"
        elif found != {wanted}:
            yield f"not in the kernel: {here.name} does not lead to {there.name}"


def _why_down(end: End) -> str:
    if not end.up:
        return f"{end.name} is administratively down"
    if not end.carrier:
        far = ": its far end is down" if end.far_up is False else ""
        return f"{end.name} has no carrier{far}"
    return ""


def _end(
    endpoint: Endpoint, interface: Interface | None, verdict: Verdict, observed: Observed
) -> End:
    if interface is None:
        return End(endpoint.name)
    far = interface.far
    return End(
        name=endpoint.name,
        ifindex=interface.ifindex,
        attached=_is_attached(interface, verdict, observed),
        up=interface.up,
        carrier=interface.carrier,
        mtu=_own_mtu(interface.ifindex, interface.mtu, observed),
        far_mtu=_far_mtu(far, observed) if far else None,
        far_up=far.up if far else None,
        far_name=far.name if far else "",
        far_nsid=far.nsid if far else None,
    )


def _far_mtu(far: Far, observed: Observed) -> int | None:
    """It may be an end of another link, if it is in this namespace."""
    return _own_mtu(far.ifindex, far.mtu, observed) if far.nsid is None else far.mtu


def _own_mtu(ifindex: int, mtu: int | None, observed: Observed) -> int | None:
    """Without the headroom that a link gives it."""
    record = observed.records.get(ifindex)
    raised = record.changes.get(Setting.MTU) if record else None
    return raised.found if raised and raised.ours == mtu else mtu


def _is_attached(interface: Interface, verdict: Verdict, observed: Observed) -> bool:
    """An end that is only held may have another mode than its link will have."""
    ours = observed.programs.ours
    xdp = {xdp.mode for xdp in interface.xdp if xdp.program in ours}
    filtered = any(filter_.program in ours for filter_ in interface.ingress)
    if not verdict.stands:
        return bool(xdp) or filtered
    return filtered and (verdict.mode is Mode.TC or str(verdict.mode) in xdp)


def headline(reading: Reading, statuses: Collection[LinkStatus]) -> str:
    """One line for the unit's status: a file that is refused or missing comes before all links."""
    wrong = [file for file in reading.files if file.state != "loaded"]
    told = [_what_is_wrong(file) for file in wrong[:1]]
    if len(wrong) > 1:
        told.append(f"{counted(len(wrong) - 1, 'more file')} not taken")
    return printable("; ".join([*told, summary(statuses)]))


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
    departed: Iterable[Departed],
    untold: str = "",
) -> dict[str, Any]:
    """The whole of ``status --json``; ``untold`` is why losses at the redirect are not counted.

    ``unseen`` is for who cannot see the kernel's part, and why.
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
        "departed": [
            {"interface": gone.record.name, "ifindex": gone.record.ifindex, "remedy": gone.remedy}
            for gone in departed
            if gone.runs_ours
        ],
        "untold": untold,
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
        "reason": status.told,
        "retry_in_s": retry,
        "mode": str(status.mode),
        "mode_reason": status.mode_reason,
        "warnings": list(status.warnings),
        "description": status.link.description,
        "labels": dict(status.link.labels),
        "enabled": status.link.enabled,
        "a": _end_as_json(status.a, status.b, counters),
        "b": _end_as_json(status.b, status.a, counters),
        "drops": losses.explained(status.a, status.b, counters, enabled=status.link.enabled),
    }


def _end_as_json(end: End, other: End, counters: Mapping[int, Counters]) -> dict[str, Any]:
    counted, there = losses.of(end, counters), losses.of(other, counters)
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
        "dropped": losses.counted(counted, there),
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
