"""What the numbered frames of a link test say: how many arrived, and where they stop. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Final

from xconnectd.diagnostics.finding import Finding, Level, Stops

_DOCTOR: Final = "xconnectd doctor"


@dataclass(frozen=True, slots=True)
class Lengths:
    """What became of the test frames of one size (bytes, with the Ethernet header).

    ``arrived`` are those that came whole, each counted once; ``reordered`` those of them that
    came behind a later one.
    """

    size: int
    sent: int
    arrived: int = 0
    corrupted: int = 0
    duplicated: int = 0
    reordered: int = 0

    @property
    def is_perfect(self) -> bool:
        return self == Lengths(self.size, self.sent, self.sent)


@dataclass(frozen=True, slots=True)
class Way:
    """One direction of a test: what was sent, and what was counted on the way meanwhile.

    ``source`` and ``target`` are its ends as the file calls them, ``inlet`` and ``outlet`` our
    interfaces for them. ``reached`` are frames that came in by ``inlet``, ``counted`` those that
    our program handed on there and ``no_entry`` those that it dropped for want of an entry;
    ``not_sent`` are those that ``outlet`` could not send, ``impaired`` those that the file's
    ``impair`` dropped before it. Other traffic counts, too. ``error`` is
    what the kernel said to the sender. ``redirected`` are frames sent beside them as a tc redirect
    sends them, None if none were. ``closed``: the link leads the other way only, so nothing is to
    arrive; ``one_way`` are frames that our program dropped for that. ``counted_by`` is the other
    host that counted what arrived and what it dropped (``dropped_there``), empty where the frames
    themselves were received.
    """

    source: str
    target: str
    inlet: str
    outlet: str
    lengths: Sequence[Lengths]
    error: str = ""
    reached: int = 0
    counted: int = 0
    no_entry: int = 0
    not_sent: int = 0
    impaired: int = 0
    redirected: Lengths | None = None
    closed: bool = False
    one_way: int = 0
    counted_by: str = ""
    dropped_there: int = 0

    @property
    def is_perfect(self) -> bool:
        if self.closed:
            return not self.crossed
        return all(each.is_perfect for each in self.lengths)

    @property
    def sent(self) -> int:
        return sum(each.sent for each in self.lengths)

    @property
    def whole(self) -> int:
        return sum(each.arrived for each in self.lengths)

    @property
    def crossed(self) -> int:
        """Frames of the test that came through, in whatever shape."""
        lengths = (*self.lengths, *((self.redirected,) if self.redirected else ()))
        return sum(each.arrived + each.corrupted + each.duplicated for each in lengths)

    @property
    def lost(self) -> int:
        return sum(max(0, each.sent - each.arrived) for each in self.lengths)


def cause(findings: Sequence[Finding], ways: Sequence[Way]) -> Finding | None:
    """Why frames of a test did not arrive, or would not; None for a good link.

    What the walk found explains it, in the order of what got lost: if short frames arrived it
    is about length. Else the counters tell where they were last seen.
    """
    spoilt = [way for way in ways if not way.is_perfect]
    if leak := next((way for way in spoilt if way.closed), None):
        text = f"{leak.source} → {leak.target}: {leak.crossed} frames cross a link that is one way"
        return Finding(Level.FAIL, "one way", text, _DOCTOR, Stops.SOME)
    if not spoilt:
        order = [] if ways else [Stops.ALL]
    elif all(map(_lost_only_long, spoilt)):
        order = [Stops.LONG, Stops.SOME, Stops.ALL]
    else:
        order = [Stops.ALL, Stops.SOME]
    for stops in order:
        if found := next((each for each in findings if each.stops is stops), None):
            return found
    if spoilt:
        return where_they_stop(spoilt[0])
    return next((each for each in findings if each.level is Level.FAIL), None)


def of_redirected(ways: Sequence[Way]) -> Iterator[Finding]:
    """Ways that only frames with the mark of a tc redirect do not get through.

    On their way out of the far end its own tc sees them, which may well want to stop them.
    """
    for way in ways:
        sent = way.redirected
        if sent is None or sent.arrived == sent.sent or way.closed or not way.is_perfect:
            continue
        lost = sent.sent - sent.arrived
        what = f"{way.source} → {way.target}: {lost} of {sent.sent} frames that tc redirected"
        if way.reached < way.sent + lost:
            text = f"{what} do not get from its far end to {way.inlet}"
            yield Finding(Level.WARN, "redirected", text, _DOCTOR)
        else:
            text = f"{what} do not cross"
            yield Finding(Level.FAIL, "redirected", text, _DOCTOR, Stops.SOME)


def _lost_only_long(way: Way) -> bool:
    """Whether up to some size all frames arrived, and beyond it none."""
    arrived = [each.arrived for each in sorted(way.lengths, key=lambda each: each.size)]
    whole = [each.is_perfect for each in sorted(way.lengths, key=lambda each: each.size)]
    first = whole.index(False)
    return first > 0 and not any(arrived[first:])


def where_they_stop(way: Way) -> Finding:
    """By the counters, for losses that nothing in the walk explains."""
    if not way.lost:
        text = f"{way.source} → {way.target}: frames arrive altered, twice or out of order"
        return Finding(Level.FAIL, "damage", text, "xconnectd status", Stops.SOME)
    look = _DOCTOR
    if way.error:
        check, where = "sender", f"the far end of {way.inlet} could not send: {way.error}"
    elif way.reached < way.lost:
        check, where = "far end", f"they do not get from its far end to {way.inlet}"
    elif way.no_entry >= way.lost:
        check, where = "entry", f"our program on {way.inlet} has no entry and drops them"
    elif way.counted < way.lost:
        check, where = "program", f"our program on {way.inlet} does not see them"
    elif way.not_sent >= way.lost:
        check, where = "target", f"{way.outlet} cannot pass them to its far end"
        look = f"ip -s link show dev {quote(way.outlet)}"
    elif way.impaired >= way.lost:
        check, where = "impair", f"they are dropped on their way to {way.outlet}, as impair says"
        look = "xconnectd status -v"
    elif way.counted_by and way.dropped_there >= way.lost:
        check, where = "other host", f"they reach {way.counted_by}, which drops them"
        look = f"xconnectd status -v  # on {way.counted_by}"
    elif way.counted_by:
        check, where = "other host", f"they leave by {way.outlet} and do not reach {way.counted_by}"
        look = f"xconnectd doctor  # and on {way.counted_by}"
    else:
        check, where = "beyond", f"they leave by {way.outlet} and are lost behind it"
        look = f"tc -s qdisc show dev {quote(way.outlet)}"
    lost = f"{way.lost} of {way.sent} frames lost{_by_length(way)}"
    text = f"{way.source} → {way.target}: {lost}: {where}"
    return Finding(Level.FAIL, check, text, look, Stops.SOME)


def _by_length(way: Way) -> str:
    if not any(each.sent for each in way.lengths) or not _lost_only_long(way):
        return ""
    fits = max(each.size for each in way.lengths if each.is_perfect)
    return f" (all longer than {fits} bytes)"
