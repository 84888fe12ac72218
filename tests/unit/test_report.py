"""Which event a change is, from the states before and after. The names are an interface."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import pytest
from builders import link, status

from xconnectd.model import End, Interface, Mode, Rewrite, State
from xconnectd.reconcile import transitions
from xconnectd.reconcile.actions import Action, Attach, Hold, Point, Unlearn
from xconnectd.reconcile.link_state import LinkStatus
from xconnectd.reconcile.transitions import Repeats, Report

UP = status()
DOWN = status(State.DOWN, reason="a is administratively down")
WAITING = status(State.WAITING, numbers=(5, None), reason="b does not exist")
LOOSE = WAITING._replace(a=End("a", ifindex=5))
FAILED = status(State.FAILED, reason="attach: EBUSY")
DISABLED = status(State.DISABLED, reason="enabled: false")
WARNED = UP._replace(warnings=("a: it has the address 192.0.2.1/24",))
ONE_WAY = UP._replace(link=link("a", "b", one_way=True))
TURNED = status(a="b", b="a", numbers=(6, 5))._replace(link=link("b", "a", one_way=True))
SWAPPED = UP._replace(link=link("a", "b", rewrite=Rewrite.SWAP_MACS))
TO_C = status(b="c", numbers=(5, 7))
A = Interface(5, "a")
ACTION = Point("a:b", A, "wired", Mode.GENERIC, 6)


def changes(
    was: LinkStatus | None,
    now: LinkStatus | None,
    *,
    gone: Sequence[LinkStatus] = (),
    done: Sequence[Action] = (),
    trigger: str = "netlink",
) -> list[Report]:
    before = {each.link.id: each for each in (was, *gone) if each}
    return list(transitions.changes(before, [now] if now else [], gone, done, trigger))


def events(told: Sequence[Report]) -> list[str]:
    return [str(each.event) for each in told]


# How a link stood, how it stands now, which links are gone with it: the events.
TRANSITIONS: dict[str, tuple[LinkStatus | None, LinkStatus | None, list[LinkStatus], list[str]]] = {
    "first seen connected": (None, UP, [], ["link.connected"]),
    "first seen down": (None, DOWN, [], ["link.down"]),
    "first seen waiting": (None, WAITING, [], ["link.waiting"]),
    "first seen failed": (None, FAILED, [], ["link.failed"]),
    "first seen disabled": (None, DISABLED, [], ["link.disabled"]),
    "first seen with a warning": (None, WARNED, [], ["link.connected", "link.warning"]),
    "no change": (UP, UP, [], []),
    "still failed": (FAILED, FAILED, [], []),
    "still waiting": (WAITING, WAITING, [], []),
    "failed for another reason": (FAILED, FAILED._replace(reason="EPERM"), [], ["link.failed"]),
    "goes down": (UP, DOWN, [], ["link.down"]),
    "comes up": (DOWN, UP, [], ["link.up"]),
    "up with another end": (status(State.DOWN, numbers=(5, 9)), UP, [], ["link.connected"]),
    "an end gone": (UP, WAITING, [], ["link.waiting"]),
    "an end back": (WAITING, UP, [], ["link.connected"]),
    "an end made anew": (UP, status(numbers=(5, 9)), [], ["link.connected"]),
    "mended": (FAILED, UP, [], ["link.connected"]),
    "disabled": (UP, DISABLED, [], ["link.disabled"]),
    "enabled": (DISABLED, UP, [], ["link.connected"]),
    "turned round": (UP, status(a="b", b="a", numbers=(6, 5)), [], []),
    "another mode": (UP, status(mode=Mode.TC), [], ["link.rewired"]),
    "one way": (UP, ONE_WAY, [], ["link.rewired"]),
    "the other way": (ONE_WAY, TURNED, [], ["link.rewired"]),
    "with its MACs swapped": (UP, SWAPPED, [], ["link.rewired"]),
    "a new warning": (UP, WARNED, [], ["link.warning"]),
    "a known warning": (WARNED, WARNED, [], []),
    "a warning less": (WARNED, UP, [], []),
    "left the file": (None, None, [UP], ["link.disconnected"]),
    "moved": (None, TO_C, [UP], ["link.rewired"]),
    "moved to an end that is down": (None, TO_C._replace(state=State.DOWN), [UP],
                                     ["link.rewired", "link.down"]),
    "a move that failed": (None, TO_C._replace(state=State.FAILED), [UP],
                           ["link.failed", "link.disconnected"]),
    "moved from one that never stood": (None, TO_C, [FAILED],
                                        ["link.connected", "link.disconnected"]),
}  # fmt: skip


@pytest.mark.parametrize(("was", "now", "gone", "names"), TRANSITIONS.values(), ids=TRANSITIONS)
def test_one_event_per_change(
    was: LinkStatus | None, now: LinkStatus | None, gone: list[LinkStatus], names: list[str]
) -> None:
    assert events(changes(was, now, gone=gone)) == names


REASONS: list[tuple[list[Report], str, dict[str, object]]] = [
    (changes(None, None, gone=[UP]), "INFO", {"link": "a:b", "reason": "no longer in the file"}),
    (changes(None, TO_C, gone=[UP]), "INFO", {"link": "a:c", "was": "a:b"}),
    (changes(UP, status(mode=Mode.TC)), "INFO", {"reason": "mode generic → tc: because tc"}),
    (changes(UP, ONE_WAY), "INFO", {"reason": "one way: a → b"}),
    (changes(ONE_WAY, UP), "INFO", {"reason": "both ways"}),
    (changes(None, WAITING), "INFO", {"a_ifindex": 5, "b_ifindex": None, "reason": WAITING.reason}),
    (changes(None, UP), "INFO", {"a": "a", "b": "b", "mode": "generic", "reason": UP.mode_reason}),
    (changes(UP, DOWN), "INFO", {"reason": DOWN.reason}),
    (changes(UP, FAILED), "WARNING", {"reason": "attach: EBUSY"}),
    (changes(UP, WARNED), "WARNING", {"reason": "a: it has the address 192.0.2.1/24"}),
]


@pytest.mark.parametrize(("told", "level", "fields"), REASONS)
def test_what_an_event_says(told: list[Report], level: str, fields: dict[str, object]) -> None:
    (event,) = told
    assert event.fields.items() >= fields.items()
    assert logging.getLevelName(event.level) == level


NEWER = Attach("a:b", A, "", Mode.GENERIC, 91)
RECORDED = Hold("a:b", A, "", None)  # type: ignore[arg-type]
REPAIRS: dict[str, tuple[LinkStatus, LinkStatus, Action, str, bool]] = {
    "put back": (UP, UP, ACTION, "netlink", True),
    "put on again": (UP, UP, replace(NEWER, replacing=0), "netlink", True),
    "an end that is held again": (WAITING, WAITING, ACTION, "netlink", True),
    "an end that is held first": (LOOSE, WAITING, ACTION, "netlink", False),
    "what was undone in the same pass": (FAILED, FAILED, ACTION, "netlink", False),
    "an end that is not held in the end": (LOOSE, LOOSE, ACTION, "netlink", False),
    "a newer program": (UP, UP, NEWER, "netlink", False),
    "a record": (UP, UP, RECORDED, "netlink", False),
    "done for another link": (UP, UP, replace(ACTION, link="c:d"), "netlink", False),
    "done for no link": (UP, UP, replace(ACTION, link=""), "netlink", False),
    **{f"by {it}": (UP, UP, ACTION, it, False) for it in ("config", "signal", "start", "retry")},
}


@pytest.mark.parametrize(
    ("was", "now", "action", "trigger", "is_repair"), REPAIRS.values(), ids=REPAIRS
)
def test_what_is_a_repair(
    was: LinkStatus, now: LinkStatus, action: Action, trigger: str, is_repair: bool
) -> None:
    told = changes(was, now, done=[action], trigger=trigger)
    assert events(told) == ["drift.repaired"] * is_repair
    assert all(each.level == logging.WARNING for each in told)


def test_a_repair_names_what_was_done_once() -> None:
    """What a router taught is told when it is removed."""
    again = replace(NEWER, interface=Interface(6, "b"), replacing=0)
    (event,) = changes(UP, UP, done=[ACTION, ACTION, again])
    assert event.fields["reason"] == "point generic a, attach generic b"
    (event,) = changes(UP, UP, done=[Unlearn("a:b", A, "learnt: fd00::1/64")])
    assert event.event == "interface.ra_removed"
    names = {"link": "a:b", "interface": "a", "ifindex": 5}
    assert event.fields == {**names, "reason": "learnt: fd00::1/64"}


def flapping(repeats: Repeats, times: int, now: float = 0.0) -> list[Report]:
    """What is told at once of a link that goes down and up so often at this time."""
    flaps = [change for _ in range(times) for change in (*changes(UP, DOWN), *changes(DOWN, UP))]
    return [told for change in flaps for told in repeats.note(change, now)]


def after_flapping() -> Repeats:
    repeats = Repeats()
    assert len(flapping(repeats, 50)) == 20
    return repeats


def test_a_few_changes_are_told_as_they_come_and_many_are_summed_up_in_the_last() -> None:
    repeats = Repeats()
    assert events(flapping(repeats, 2)) == ["link.down", "link.up"] * 2
    assert list(repeats.due(60)) == []
    repeats = after_flapping()
    assert list(repeats.note(*changes(UP, DOWN), 4.0)) == []
    assert list(repeats.due(9.9)) == []
    (told,) = repeats.due(10)
    assert (told.event, told.fields["count"], told.fields["seconds"]) == ("link.down", 81, 10)
    assert told.fields["reason"] == "a is administratively down"
    assert list(repeats.due(60)) == []
    assert len(flapping(repeats, 50, 200.0)) == 20, "after a quiet minute it begins anew"
    repeats = Repeats()
    hour = (
        len(flapping(repeats, 3, second)) + len([*repeats.due(second)]) for second in range(3600)
    )
    assert 300 < sum(hour) < 900


def test_other_links_and_other_kinds_are_told_at_once() -> None:
    repeats = after_flapping()
    for change in (*changes(None, status(a="c", b="d")), *changes(UP, UP, done=[ACTION])):
        assert list(repeats.note(change, 0)) == [change]


@pytest.mark.parametrize("rest", [lambda it: it.of("a:b", 3), lambda it: it.rest(3)])
def test_before_somebodys_own_change_and_at_the_end_nothing_is_kept_back(rest: object) -> None:
    repeats = after_flapping()
    (told,) = rest(repeats)  # type: ignore[operator]
    assert (told.event, told.fields["count"], told.fields["seconds"]) == ("link.up", 80, 3)
    assert list(repeats.of("a:b", 3)) == list(repeats.rest(3)) == []
