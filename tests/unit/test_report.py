"""Which event a change is, from the states before and after. The names are an interface."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from builders import status

from xconnectd.model import End, Interface, Mode, State
from xconnectd.reconcile import transitions
from xconnectd.reconcile.actions import Action, Attach, Point
from xconnectd.reconcile.link_state import LinkStatus

UP = status()
DOWN = status(State.DOWN, reason="a is administratively down")
WAITING = status(State.WAITING, numbers=(5, None), reason="b does not exist")
LOOSE = WAITING._replace(a=End("a", 5))
FAILED = status(State.FAILED, reason="attach: EBUSY")
DISABLED = status(State.DISABLED, reason="enabled: false")
ACTION = Point("a:b", Interface(5, "a"), "wired", Mode.GENERIC, 6)


def changes(
    was: LinkStatus | None,
    now: LinkStatus | None,
    *,
    gone: Sequence[LinkStatus] = (),
    done: Sequence[Action] = (),
    trigger: str = "netlink",
) -> list[transitions.Report]:
    before = {was.link.id: was} if was else {}
    before |= {each.link.id: each for each in gone}
    return list(transitions.changes(before, [now] if now else [], gone, done, trigger))


TRANSITIONS = {
    "first seen connected": (None, UP, ["link.connected"]),
    "first seen down": (None, DOWN, ["link.down"]),
    "first seen waiting": (None, WAITING, ["link.waiting"]),
    "first seen failed": (None, FAILED, ["link.failed"]),
    "first seen disabled": (None, DISABLED, ["link.disabled"]),
    "no change": (UP, UP, []),
    "still failed": (FAILED, FAILED, []),
    "still waiting": (WAITING, WAITING, []),
    "failed for another reason": (FAILED, FAILED._replace(reason="EPERM"), ["link.failed"]),
    "goes down": (UP, DOWN, ["link.down"]),
    "comes up": (DOWN, UP, ["link.up"]),
    "down with another end": (status(State.DOWN, numbers=(5, 9)), UP, ["link.connected"]),
    "an end gone": (UP, WAITING, ["link.waiting"]),
    "an end back": (WAITING, UP, ["link.connected"]),
    "an end made anew": (UP, status(numbers=(5, 9)), ["link.connected"]),
    "mended": (FAILED, UP, ["link.connected"]),
    "disabled": (UP, DISABLED, ["link.disabled"]),
    "enabled": (DISABLED, UP, ["link.connected"]),
    "turned round": (UP, status(a="b", b="a", numbers=(6, 5)), []),
}


@pytest.mark.parametrize(("was", "now", "events"), TRANSITIONS.values(), ids=TRANSITIONS)
def test_one_event_per_change(was: LinkStatus | None, now: LinkStatus, events: list[str]) -> None:
    assert [str(each.event) for each in changes(was, now)] == events


def test_an_end_that_is_held_again_is_a_repair_and_one_that_is_held_first_is_none() -> None:
    (event,) = changes(WAITING, WAITING, done=[ACTION])
    assert event.event == "drift.repaired"
    assert changes(LOOSE, WAITING, done=[ACTION]) == []
    assert changes(FAILED, FAILED, done=[ACTION]) == []


def test_a_link_that_left_the_file() -> None:
    (event,) = changes(None, None, gone=[UP])
    assert event.event == "link.disconnected"
    assert event.fields["link"] == "a:b"
    assert event.fields["reason"] == "no longer in the file"


def test_a_wire_that_moved_is_rewired_and_says_from_where() -> None:
    (event,) = changes(None, status(b="c", numbers=(5, 7)), gone=[UP])
    assert event.event == "link.rewired"
    assert (event.fields["link"], event.fields["was"]) == ("a:c", "a:b")


def test_a_wire_that_moved_to_an_end_that_is_down_says_both() -> None:
    moved = status(State.DOWN, b="c", reason="c has no carrier")
    events = [each.event for each in changes(None, moved, gone=[UP])]
    assert events == ["link.rewired", "link.down"]


def test_a_move_that_failed_is_a_wire_less() -> None:
    moved = status(State.FAILED, b="c", reason="EBUSY")
    events = [each.event for each in changes(None, moved, gone=[UP])]
    assert events == ["link.failed", "link.disconnected"]


def test_a_link_that_never_stood_is_nobodys_donor() -> None:
    events = [each.event for each in changes(None, status(b="c"), gone=[FAILED])]
    assert events == ["link.connected", "link.disconnected"]


def test_a_change_of_mode_is_a_rewiring_with_the_reason() -> None:
    (event,) = changes(UP, status(mode=Mode.TC), done=[ACTION])
    assert event.event == "link.rewired"
    assert event.fields["reason"] == "mode generic → tc: because tc"


def test_drift_is_what_was_put_back_without_any_change_of_state() -> None:
    again = Attach("a:b", Interface(6, "b"), "", Mode.GENERIC, 0)
    (event,) = changes(UP, UP, done=[ACTION, ACTION, again])
    assert event.event == "drift.repaired"
    assert event.fields["reason"] == "point generic a, attach generic b"


@pytest.mark.parametrize("now", [LOOSE, FAILED])
def test_what_was_done_and_undone_in_one_pass_is_no_repair(now: LinkStatus) -> None:
    assert changes(now, now, done=[ACTION]) == []


@pytest.mark.parametrize("trigger", ["config", "signal", "start", "retry"])
def test_what_the_file_changes_is_no_drift(trigger: str) -> None:
    assert changes(UP, UP, done=[ACTION], trigger=trigger) == []


def test_what_is_done_for_others_is_not_this_links_drift() -> None:
    assert changes(UP, UP, done=[replace(ACTION, link="c:d"), replace(ACTION, link="")]) == []


def test_a_warning_is_logged_when_it_is_new() -> None:
    warned = UP._replace(warnings=("a: it carries 192.0.2.1/24",))
    (event,) = changes(UP, warned)
    assert (event.event, event.level) == ("link.warning", logging.WARNING)
    assert "192.0.2.1" in event.fields["reason"]
    assert changes(warned, warned) == []
    assert changes(warned, UP) == []
    assert [each.event for each in changes(None, warned)] == ["link.connected", "link.warning"]


FIELDS = {"link", "a", "b", "a_ifindex", "b_ifindex", "mode", "reason"}


@pytest.mark.parametrize(
    ("was", "now", "level"),
    [(None, UP, logging.INFO), (UP, FAILED, logging.WARNING), (UP, DOWN, logging.INFO)],
)
def test_fields_and_levels(was: LinkStatus | None, now: LinkStatus, level: int) -> None:
    (event,) = changes(was, now)
    assert event.level == level
    assert event.fields.keys() >= FIELDS
    assert event.fields["reason"] == (now.reason or now.mode_reason)


def test_missing_ends_have_no_number() -> None:
    (event,) = changes(None, WAITING)
    fields: dict[str, Any] = dict(event.fields)
    assert (fields["a_ifindex"], fields["b_ifindex"]) == (5, None)


# --------------------------------------------------------------------------- repeats


def flapping(
    repeats: transitions.Repeats, times: int, now: float = 0.0
) -> list[transitions.Report]:
    """What is told at once of a link that goes down and up so often at this time."""
    flaps = [change for _ in range(times) for change in (*changes(UP, DOWN), *changes(DOWN, UP))]
    return [told for change in flaps for told in repeats.note(change, now)]


def test_a_few_changes_are_told_as_they_come() -> None:
    repeats = transitions.Repeats()
    assert [each.event for each in flapping(repeats, 2)] == ["link.down", "link.up"] * 2
    assert list(repeats.due(60)) == []


def test_many_changes_are_summed_up_in_the_last_of_them() -> None:
    repeats = transitions.Repeats()
    assert len(flapping(repeats, 50)) == 20
    assert list(repeats.note(*changes(UP, DOWN), 4.0)) == []
    assert list(repeats.due(9.9)) == []
    (told,) = repeats.due(10)
    assert (told.event, told.fields["count"], told.fields["seconds"]) == ("link.down", 81, 10)
    assert told.fields["reason"] == "a is administratively down"
    assert list(repeats.due(60)) == []


def test_a_day_of_flapping_is_some_thousand_lines() -> None:
    repeats = transitions.Repeats()
    lines = 0
    for second in range(86_400):
        lines += len(flapping(repeats, 3, second)) + len(list(repeats.due(second)))
    assert lines < 20_000


def test_other_links_and_other_kinds_are_told_at_once() -> None:
    repeats = transitions.Repeats()
    flapping(repeats, 50)
    (other,) = changes(None, status(a="c", b="d"))
    (repaired,) = changes(UP, UP, done=[ACTION])
    assert list(repeats.note(other, 0)) == [other]
    assert list(repeats.note(repaired, 0)) == [repaired]


def test_before_somebodys_own_change_the_rest_is_told() -> None:
    repeats = transitions.Repeats()
    flapping(repeats, 50)
    (told,) = repeats.of("a:b", 2)
    assert (told.event, told.fields["count"]) == ("link.up", 80)
    assert list(repeats.of("a:b", 2)) == list(repeats.rest(2)) == []


def test_after_a_quiet_minute_changes_are_told_at_once_again() -> None:
    repeats = transitions.Repeats()
    flapping(repeats, 50)
    list(repeats.due(10))
    assert len(flapping(repeats, 50, 200.0)) == 20


def test_at_the_end_nothing_is_kept_back() -> None:
    repeats = transitions.Repeats()
    flapping(repeats, 50)
    (told,) = repeats.rest(3)
    assert (told.event, told.fields["count"], told.fields["seconds"]) == ("link.up", 80, 3)
