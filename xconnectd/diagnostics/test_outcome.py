"""What a link test found, for people and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from xconnectd.diagnostics import test_frames, test_result
from xconnectd.diagnostics.finding import Finding
from xconnectd.diagnostics.test_result import Way
from xconnectd.formatting import printable

WATCHED: Final = 1.0
"""Seconds for which the counters are watched where no frames can be sent."""

_LATENCY: Final = "from send() at one far end until the kernel has it at the other"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a test found. ``untested`` says why no frames were sent, empty if they were."""

    link: str
    ways: tuple[Way, ...]
    findings: tuple[Finding, ...]
    untested: str = ""
    delays: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def cause(self) -> Finding | None:
        return test_result.cause(self.findings, () if self.untested else self.ways)

    def as_json(self) -> dict[str, Any]:
        return {
            "link": self.link,
            "ok": self.cause is None,
            "cause": None if self.cause is None else self.cause.as_json(),
            "live": not self.untested,
            "untested": self.untested,
            "latency": _LATENCY,
            "ways": [_way_as_json(way, self.delays.get(way.source, ())) for way in self.ways],
            "findings": [each.as_json() for each in self.findings],
        }

    def lines(self) -> Iterator[str]:
        """For people: the result first, then what was seen."""
        cause = self.cause
        if cause is None:
            yield f"{self.link}: good" + (", as far as can be seen" if self.untested else "")
        else:
            yield f"{self.link}: {printable(cause.text)}"
            yield f"    fix: {printable(cause.remedy)}"
        if self.untested:
            yield printable(f"no frames sent: {self.untested}")
        elif any(self.delays.values()):
            yield f"latency: {_LATENCY}"
        for way in self.ways:
            yield from self._way_lines(way)
        for finding in self.findings:
            if finding != cause:
                yield from finding.lines()

    def _way_lines(self, way: Way) -> Iterator[str]:
        name = f"{way.source} → {way.target}"
        if self.untested:
            yield (
                f"{name}, in {WATCHED:g} s: {way.counted} frames forwarded, {way.no_entry} without"
                f" an entry, {way.not_sent} not sent by {way.outlet}"
            )
            return
        if way.closed:
            yield f"{name}: closed (one_way): {way.crossed} of {way.sent} frames crossed"
            return
        spread = test_frames.spread(self.delays.get(way.source, ()))
        took = (
            ""
            if spread is None
            else ", µs min/median/max: " + "/".join(f"{1e6 * each:.0f}" for each in spread)
        )
        by = _redirected_in_words(way)
        if way.counted_by:
            by = f", counted by {way.counted_by}; for the other direction run this there"
        yield f"{name}: {way.whole} of {way.sent} frames{took}{by}"
        for each in way.lengths:
            if way.whole and not each.is_perfect:
                yield (
                    f"    {each.size} bytes: {each.arrived} of {each.sent}, {each.corrupted}"
                    f" corrupted, {each.duplicated} twice, {each.reordered} out of order"
                )


def _redirected_in_words(way: Way) -> str:
    if way.redirected is None:
        return "; none redirected by tc"
    return f"; {way.redirected.arrived} of {way.redirected.sent} redirected by tc"


def _way_as_json(way: Way, delays: Sequence[float]) -> dict[str, Any]:
    spread = test_frames.spread(delays)
    names = ("min", "median", "max")
    micro = None if spread is None else [round(delay * 1e6, 1) for delay in spread]
    return {
        "from": way.source,
        "to": way.target,
        "closed": way.closed,
        "sent": way.sent,
        "arrived": way.whole,
        "corrupted": sum(each.corrupted for each in way.lengths),
        "duplicated": sum(each.duplicated for each in way.lengths),
        "reordered": sum(each.reordered for each in way.lengths),
        "counted_by": way.counted_by,
        "error": way.error,
        "latency_us": None if micro is None else dict(zip(names, micro, strict=True)),
        "counted": {
            "received": way.reached,
            "forwarded": way.counted,
            "no_entry": way.no_entry,
            "one_way": way.one_way,
            "not_sent": way.not_sent,
        },
        "sizes": [asdict(each) for each in way.lengths],
        "redirected": way.redirected and asdict(way.redirected),
    }
