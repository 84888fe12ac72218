"""What ``status --json`` tells, as text for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from xconnectd.formatting import bit_rate, counted, duration, number, printable
from xconnectd.status import drop_reasons

Report = Mapping[str, Any]


def lines(report: Report) -> Iterator[str]:
    """The daemon and its file, then every link, then what else is to be known."""
    return map(printable, _lines(report))


def _lines(report: Report) -> Iterator[str]:
    yield from _daemon(report["daemon"], report["config"])
    yield ""
    for each in report["links"]:
        yield from _link(each)
    if report.get("unseen"):  # an older daemon tells of no such thing
        yield f"note: as the daemon tells it; {report['unseen']}"
    if report["drop_stats_unavailable"]:
        yield f"note: {report['drop_stats_unavailable']}"
    if report.get("guard_unavailable"):  # an older daemon has none
        yield f"note: {report['guard_unavailable']}"
    for gone in report["moved_netns"]:
        yield f"left with our program: {gone['interface']}; {gone['remedy']}"
    if differences := report.get("differences"):
        yield ""
        count = counted(len(differences), "difference")
        yield f"{count} between file and kernel (see xconnectd plan)"


def _daemon(daemon: Report, file: Report) -> Iterator[str]:
    yield f"daemon: {_in_words(daemon)}"
    yield f"file:   {file['path']}: {file['state']} {file['hash']}".rstrip()
    for problem in file["problems"]:
        yield f"        {problem}"
    if trial := daemon.get("try"):
        yield f"try:    {trial['hash']} is tried, and taken back unless it is confirmed"
        if trial.get("edited"):
            yield "        a file was changed meanwhile; it is read when the try ends"
    if metrics := daemon.get("metrics"):
        problem = f": not yet: {metrics['problem']}" if metrics["problem"] else ""
        yield f"metrics: {metrics['listen']}{problem}"


def _in_words(daemon: Report) -> str:
    if not daemon["running"]:
        return "not running"
    if not daemon["answers"]:
        return f"pid {daemon['pid']} does not answer (see xconnectd doctor)"
    return f"running, pid {daemon['pid']}"


def _link(link: Report) -> Iterator[str]:
    a, b = link["a"], link["b"]
    yield f"{a['name']} — {b['name']}  {link['state']}  {link['mode']}"
    if link["description"]:
        yield f"    {link['description']}"
    if link["reason"]:
        yield f"    {link['reason']}"
    if link["retry_in_s"] is not None:
        yield f"    tried again in {duration(link['retry_in_s'])}"
    if link["mode_reason"]:
        yield f"    {link['mode']}: {link['mode_reason']}"
    yield f"    {_way(a, b)}"
    if a["name"] != b["name"]:
        yield f"    {_way(b, a)}"
    for lost in link["drops"]:
        way_out = f" ({lost['remedy']})" if lost["remedy"] else ""
        frames = counted(lost["frames"], "frame")
        yield f"    lost {lost['from']} → {lost['to']}: {frames}, {lost['text']}{way_out}"
    for end in (a,) if a["name"] == b["name"] else (a, b):
        if frames := end.get("passed_to_host"):
            text, remedy = drop_reasons.passed(end["name"], frames, link["mode"])
            yield f"    error: {text} ({remedy})"
    for warning in link["warnings"]:
        yield f"    warning: {warning}"


def _way(end: Report, other: Report) -> str:
    return (
        f"{end['name']} → {other['name']}: {counted(end['frames'], 'frame')},"
        f" {end['bytes']} bytes, {_rate(end)};"
        f" kept from the wire: {end['dropped']['host_egress']} of this host"
    )


def _rate(end: Report) -> str:
    if end["frames_per_s"] is None:
        return "no rate yet"
    return f"{number(end['frames_per_s'])} frames/s, {bit_rate(end['bits_per_s'])}"
