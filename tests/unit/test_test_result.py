"""What the counted frames of a link test say, and which finding explains them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from builders import link

from xconnectd.diagnostics import link_test, test_across, test_result
from xconnectd.diagnostics.facts import LinkFacts
from xconnectd.diagnostics.finding import Finding, Level, Stops
from xconnectd.diagnostics.test_frames import Series
from xconnectd.diagnostics.test_result import Lengths, Way
from xconnectd.model import Counters, Interface, Observed, Statistics
from xconnectd.reconcile.evaluate import Evaluation


def finding(check: str, stops: Stops, level: Level = Level.FAIL) -> Finding:
    return Finding(level, check, check, stops=stops)


ALL, LONG, SOME, OFFLOADED, HARMLESS = (
    finding("all", Stops.ALL),
    finding("long", Stops.LONG, Level.WARN),
    finding("some", Stops.SOME, Level.WARN),
    finding("offloaded", Stops.OFFLOADED),
    finding("harmless", Stops.NOTHING, Level.WARN),
)
GOOD = Way("leaf:eth1", "b", "a", "b", (Lengths(60, 2, 2), Lengths(1514, 2, 2)))
CUT = Way(
    "leaf:eth1",
    "b",
    "a",
    "b",
    (Lengths(60, 2, 2), Lengths(1514, 2, 0)),
    reached=4,
    counted=4,
    not_sent=2,
)
GAP = Way("leaf:eth1", "b", "a", "b", (Lengths(60, 2, 2), Lengths(512, 2, 0), Lengths(1514, 2, 2)))
DEAD = Way("leaf:eth1", "b", "a", "b", (Lengths(60, 2), Lengths(1514, 2)))
CLOSED = replace(DEAD, closed=True, redirected=Lengths(60, 2))
HOLED = Way(
    "leaf:eth1", "b", "a", "b", (Lengths(60, 2, 1), Lengths(1514, 2, 2)), reached=4, counted=4
)


@pytest.mark.parametrize(
    ("findings", "ways", "check"),
    [
        ([HARMLESS, LONG, SOME], [GOOD], None),
        ([HARMLESS, OFFLOADED], [GOOD], "offloaded"),
        ([SOME, LONG], [CUT, GOOD], "long"),
        ([SOME], [CUT], "some"),
        ([LONG, SOME, ALL], [DEAD], "all"),
        ([LONG, SOME], [GOOD, DEAD], "some"),
        ([LONG], [DEAD], "far end"),
        ([HARMLESS], [CUT], "target"),
        ([LONG], [HOLED], "beyond"),
        ([LONG], [GAP], "far end"),
        ([HARMLESS], [GOOD, CLOSED], None),
        ([ALL], [GOOD, replace(CLOSED, lengths=GOOD.lengths)], "one way"),
        ([], [GOOD, replace(CLOSED, redirected=Lengths(60, 2, 1))], "one way"),
        ([SOME, ALL], [], "all"),
        ([SOME, LONG], [], None),
        ([], [], None),
    ],
)
def test_the_cause_of_losses(findings: list[Finding], ways: list[Way], check: str | None) -> None:
    found = test_result.cause(findings, ways)
    assert (found and found.check) == check


SEEN: list[tuple[str, dict[str, Any]]] = [
    ("sender", {"error": "Network is down"}),
    ("far end", {}),
    ("entry", {"reached": 4, "no_entry": 4}),
    ("program", {"reached": 4}),
    ("target", {"reached": 4, "counted": 4, "not_sent": 4}),
    ("impair", {"reached": 4, "counted": 4, "impaired": 4}),
    ("beyond", {"reached": 4, "counted": 4}),
    ("other host", {"reached": 4, "counted": 4, "counted_by": "h2"}),
    ("other host", {"reached": 4, "counted": 4, "counted_by": "h2", "dropped_there": 4}),
]


@pytest.mark.parametrize(("check", "counted"), SEEN)
def test_counters_tell_where_frames_were_last_seen(check: str, counted: dict[str, Any]) -> None:
    found = test_result.where_they_stop(replace(DEAD, **counted))
    assert found.check == check
    assert "4 of 4 frames lost" in found.text


def test_frames_that_are_not_lost_but_harmed_and_lengths_that_decide() -> None:
    harmed = test_result.cause([], [replace(GOOD, lengths=(Lengths(60, 2, 2, duplicated=1),))])
    assert harmed is not None
    assert harmed.check == "damage"
    assert "(all longer than 60 bytes)" in test_result.where_they_stop(CUT).text
    assert "longer" not in test_result.where_they_stop(HOLED).text


@pytest.mark.parametrize(
    ("arrived", "reached", "level", "words"),
    [
        (2, 6, None, ""),
        (0, 6, Level.FAIL, "2 of 2 frames that tc redirected do not cross"),
        (0, 4, Level.WARN, "2 of 2 frames that tc redirected do not get from its far end to a"),
    ],
)
def test_what_tc_redirected(arrived: int, reached: int, level: Level | None, words: str) -> None:
    """What the far end's own tc stops is no fault of the wire."""
    way = replace(GOOD, reached=reached, redirected=Lengths(60, 2, arrived))
    found = [(each.level, each.text) for each in test_result.of_redirected((way,))]
    assert found == ([(level, f"leaf:eth1 → b: {words}")] if level else [])
    for silent in (CLOSED, replace(DEAD, redirected=Lengths(60, 2))):
        assert list(test_result.of_redirected((silent,))) == []


def test_each_number_is_counted_at_the_end_it_is_of() -> None:
    """What came in at the source, what did not get out at the target."""
    before = {5: Counters(frames=1)}, {5: Statistics(received=1), 6: Statistics(not_sent=1)}
    after = (
        {
            5: Counters(frames=4, no_entry=2, one_way=8, filtered=7, impaired_loss=99),
            6: Counters(frames=99, no_entry=99, filtered=99, impaired_loss=10, impaired_queue=20),
        },
        {5: Statistics(received=7, not_sent=90), 6: Statistics(received=90, not_sent=5)},
    )
    ends = Interface(5, "va"), Interface(6, "vb")
    facts = LinkFacts(Evaluation(link("leaf:eth1", "spine:eth1"), *ends), Observed())
    way = link_test._difference(ends, facts, before, after)
    names = "leaf:eth1", "spine:eth1", "va", "vb"
    counted = {"counted": 3, "no_entry": 2, "one_way": 8, "impaired": 37}
    assert way == Way(*names, (), reached=6, not_sent=4, **counted)


class Tunnel:
    """Frames that are sent into it are counted here, and there if they are not too long."""

    def __init__(self, longest: int) -> None:
        self.here = self.there = 100
        self._longest = longest

    def send(self, frame: bytes) -> None:
        if len(frame) > 9000:
            raise OSError(90, "Message too long")
        self.here += 1
        self.there += len(frame) <= self._longest


def test_frames_to_another_host_are_counted_there_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_across, "TIMEOUT", 0.1)
    tunnel, series = Tunnel(longest=1500), Series(b"12345678", 0, b"\x02" * 6, b"\x04" * 6)
    exchange = test_across.Exchange(
        *(tunnel, series),  # type: ignore[arg-type]
        here=lambda: tunnel.here,
        there=lambda: tunnel.there,
    )
    assert exchange.run((60, 1500), 3) == (Lengths(60, 3, 3), Lengths(1500, 3, 3))
    assert tunnel.here == 106, "where nothing is lost they are sent once"
    found = exchange.run((60, 1514, 9014), 3)
    assert found == (Lengths(60, 3, 3), Lengths(1514, 3, 0), Lengths(9014, 3, 0))
    assert exchange.error == "Message too long (9014 bytes)"


@pytest.mark.parametrize(
    ("left", "came", "arrived"),
    [(20, 20, 20), (20, 25, 20), (30, 30, 20), (30, 28, 18), (20, 7, 7), (30, 5, 0), (0, 0, 0)],
)
def test_other_frames_are_no_test_frames(left: int, came: int, arrived: int) -> None:
    """Of 20 that were sent: ``left`` counts them and others, so ``came`` does, too."""
    assert test_across.arrived(20, left, came) == arrived
