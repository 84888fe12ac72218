"""The reconciler on the fake kernel: steps that fail, crashes, news, retries, and what it logs."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import NoReturn

import pytest
from builders import FOREIGN, XDP, link, wiring
from driven import Clock, Keeper, set_clock
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from kernel import OLDER, Crash, Kernel, Step, crash, peace, refuse, refuse_verb
from worlds import (
    ACCIDENTS,
    Accident,
    Port,
    accidents,
    assert_as_evaluated,
    build,
    ports,
    wirings,
)

from xconnectd.errors import DataplaneError
from xconnectd.model import Filter, Link, Mode, MovedEnd, Scope, Wiring, Xdp
from xconnectd.netlink.monitor import Event
from xconnectd.reconcile import link_state, retry

LAWS = settings(
    max_examples=40,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return set_clock(monkeypatch)


def lab() -> Kernel:
    """Two veths, a NIC with a down tap, a found clsact with somebody's filter, spare ends."""
    kernel = Kernel()
    for name in ("v0", "v1", "v2", "v3"):
        kernel.add(name)
    kernel.add("nic0", "nic")
    kernel.add("tap0", "bare tap", up=False)
    somebody = Filter("bpf", 49152, 1, FOREIGN, "somebody")
    kernel.alter("v1", qdisc="clsact", egress=(somebody,))
    kernel.news.clear()
    return kernel


FIRST = wiring("v0:v1", "nic0:tap0")
SECOND = wiring("v0:v2", link("v1", "v3", mode=Mode.TC), link("nic0", "tap0", enabled=False))
STORIES = {
    "connect": (Wiring(), FIRST),
    "rewire": (FIRST, SECOND),
    "back again": (SECOND, FIRST),
    "change modes": (FIRST, wiring(link("v0", "v1", mode=Mode.TC), "nic0:tap0")),
    "and back": (wiring(link("v0", "v1", mode=Mode.TC), "nic0:tap0"), FIRST),
    "disconnect": (FIRST, wiring("nic0:tap0")),
    "plug": (Wiring(), wiring("v0:v0", "v1:v2")),
}


def told(before: Wiring) -> Keeper:
    return Keeper(lab()).start(before)


def number_of_steps(before: Wiring, after: Wiring) -> int:
    keeper = told(before)
    keeper.kernel.trouble = peace
    keeper.take(after)
    return len(keeper.kernel.steps)


EVERY_STEP = [
    pytest.param(*story, number, id=f"{name}-{number}")
    for name, story in STORIES.items()
    for number in range(number_of_steps(*story))
]


def assert_all_or_nothing(keeper: Keeper) -> None:
    seen = keeper.reconciler.look()
    assert_as_evaluated(keeper.kernel, seen.evaluations, seen.observed)


def link_of(keeper: Keeper, ifindex: int) -> str | None:
    name = keeper.kernel.devices[ifindex].name
    one = next(
        (each for each in keeper.reconciler.wiring.links if name in each.id.split(":")), None
    )
    return one.id if one else None


def works(state: str) -> bool:
    return state in ("connected", "disabled")


# --------------------------------------------------------------------------- a step fails


@pytest.mark.parametrize(("before", "after", "number"), EVERY_STEP)
def test_one_failing_step_costs_one_link_and_nothing_of_it_is_left(
    before: Wiring, after: Wiring, number: int, clock: Clock
) -> None:
    keeper = told(before)
    keeper.kernel.trouble = refuse(number)
    keeper.take(after)
    broken = link_of(keeper, keeper.kernel.steps[number].ifindex)
    states = keeper.states()
    assert {each for each, state in states.items() if not works(state)} == {broken} - {None}
    assert_all_or_nothing(keeper)

    keeper.kernel.trouble = peace
    clock.forward(1.01)
    keeper.retry()
    assert all(map(works, keeper.states().values()))
    assert_all_or_nothing(keeper)


@pytest.mark.parametrize(("before", "after", "number"), EVERY_STEP)
def test_one_failing_step_does_not_lose_what_was_found(
    before: Wiring, after: Wiring, number: int, clock: Clock
) -> None:
    found = lab().snapshot()
    keeper = told(before)
    keeper.kernel.trouble = refuse(number)
    keeper.take(after)
    keeper.kernel.trouble = peace
    clock.forward(1.01)
    keeper.retry()
    assert keeper.reconciler.detach("signal") == []
    assert keeper.kernel.snapshot() == found
    assert not keeper.book.records()


def test_steps_of_the_undoing_may_fail_too(clock: Clock) -> None:
    """Step by step: one fails, and another soon after it, which undoes or does something else."""
    found = lab().snapshot()
    for number in range(number_of_steps(*STORIES["connect"])):
        for later in range(number + 1, number + 12):
            keeper = told(Wiring())
            keeper.kernel.trouble = refuse(number, later)
            keeper.take(FIRST)
            keeper.kernel.trouble = peace
            assert_all_or_nothing(keeper)
            clock.forward(10)
            keeper.retry()
            assert all(map(works, keeper.states().values())), (number, later)
            assert keeper.reconciler.detach("signal") == []
            assert keeper.kernel.snapshot() == found, (number, later)


@pytest.mark.parametrize("verb", ["detach", "set mtu", "set clsact", "set addr_gen_mode"])
def test_what_cannot_be_put_back_now_is_not_forgotten(verb: str) -> None:
    """The record is the only way back: it stays until the interface is as found."""
    found = lab().snapshot()
    keeper = told(FIRST)
    keeper.kernel.trouble = refuse_verb(verb, keeper.kernel.index("v0"))
    keeper.take(wiring("nic0:tap0"))
    assert "detach.failed" in keeper.events()
    assert keeper.kernel.index("v0") in keeper.book.records()
    keeper.kernel.trouble = peace
    keeper.reconciler.run(None, "signal")
    assert keeper.reconciler.detach("signal") == []
    assert keeper.kernel.snapshot() == found


@pytest.mark.parametrize("verb", ["detach", "set mtu", "set clsact"])
def test_a_release_that_failed_can_be_repeated(verb: str) -> None:
    found = lab().snapshot()
    keeper = told(FIRST)
    keeper.kernel.trouble = refuse_verb(verb, keeper.kernel.index("v0"))
    assert keeper.reconciler.detach("signal")
    keeper.kernel.trouble = peace
    assert keeper.reconciler.detach("signal") == []
    assert keeper.kernel.snapshot() == found


def test_an_end_without_a_link_that_would_not_come_off_is_tried_again(clock: Clock) -> None:
    keeper = told(FIRST)
    keeper.kernel.trouble = refuse_verb("detach", keeper.kernel.index("v0"))
    keeper.take(wiring("nic0:tap0"))
    keeper.settle()
    keeper.kernel.trouble = peace
    clock.forward(61)
    keeper.retry()
    keeper.tick()
    assert keeper.kernel.untouched("v0")


# --------------------------------------------------------------------------- back-off


def stubborn() -> Keeper:
    kernel = lab()
    kernel.trouble = refuse_verb("attach", kernel.index("v1"))
    return Keeper(kernel).start(FIRST)


def test_the_kernels_own_words_are_the_reason() -> None:
    keeper = stubborn()
    failed = keeper.reconciler.statuses["v0:v1"]
    assert "attach" in failed.reason
    assert "EIO" in failed.reason
    assert failed.retry is not None


def test_a_link_that_fails_again_waits_twice_as_long_up_to_a_minute(clock: Clock) -> None:
    keeper = stubborn()
    waits = []
    for _ in range(9):
        due = keeper.reconciler.next_retry()
        assert due is not None
        waits.append(due - clock.now)
        clock.now = due
        keeper.retry()
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_nothing_is_tried_before_it_is_due(clock: Clock) -> None:
    keeper = stubborn()
    keeper.kernel.trouble = peace
    clock.forward(0.9)
    keeper.retry()
    keeper.reconciler.run(None, "netlink")
    assert keeper.state("v0:v1") == "failed"
    assert keeper.kernel.steps == []


def test_its_own_undoing_is_no_reason_to_try_again() -> None:
    kernel = lab()
    kernel.trouble = refuse_verb("attach", kernel.index("v1"))
    keeper = Keeper(kernel)
    keeper.take(FIRST)
    kernel.steps.clear()
    keeper.settle()
    kernel.alter("v0")  # news without a change
    keeper.settle()
    assert kernel.steps == []


def test_an_end_that_changed_is_a_reason_to_try_again() -> None:
    keeper = stubborn()
    keeper.kernel.trouble = peace
    keeper.kernel.alter("v1", mtu=1400)
    keeper.settle()
    assert keeper.state("v0:v1") == "connected"


def test_an_edited_link_is_tried_at_once() -> None:
    keeper = stubborn()
    keeper.kernel.trouble = peace
    keeper.take(wiring(link("v0", "v1", description="again"), "nic0:tap0"))
    assert keeper.state("v0:v1") == "connected"


def test_a_link_that_left_the_file_is_not_retried() -> None:
    keeper = stubborn()
    keeper.take(wiring("nic0:tap0"))
    assert keeper.reconciler.next_retry() is None


# --------------------------------------------------------------------------- native XDP refused


def nics(kernel: Kernel) -> Wiring:
    kernel.add("nic1", "nic")
    kernel.trouble = refuse_verb("attach", kernel.index("nic1"), errno.ERANGE)
    return wiring("nic0:nic1")


def test_what_a_driver_refuses_natively_goes_by_tc_at_once() -> None:
    """Nothing native is left on either end, and the words are the reason for the mode."""
    kernel = lab()
    keeper = Keeper(kernel).start(nics(kernel))
    standing = keeper.reconciler.statuses["nic0:nic1"]
    assert (standing.state, standing.mode) == ("connected", Mode.TC)
    assert "ERANGE" in standing.mode_reason
    assert "at MTU 1500" in standing.mode_reason
    assert not kernel.devmap
    assert not any(kernel.get(name).xdp for name in ("nic0", "nic1"))
    assert keeper.settle() <= 2
    assert_all_or_nothing(keeper)


def test_a_driver_that_refused_is_asked_again_at_another_mtu() -> None:
    """And not before that: a start, a tick or a change elsewhere is no reason."""
    kernel = lab()
    keeper = Keeper(kernel).start(nics(kernel))
    keeper.settle()
    kernel.trouble = kernel.trouble  # counts anew
    keeper = keeper.restart()
    keeper.take(wiring("nic0:nic1", "v0:v1"))
    assert Step("attach", kernel.index("nic1")) not in kernel.steps
    kernel.trouble = peace
    kernel.alter("nic1", mtu=1400)
    keeper.settle()
    standing = keeper.reconciler.statuses["nic0:nic1"]
    assert (standing.state, standing.mode) == ("connected", Mode.NATIVE)
    assert {xdp.mode for name in ("nic0", "nic1") for xdp in kernel.get(name).xdp} == {"native"}


def test_native_mode_that_was_asked_for_is_no_other_when_it_is_refused() -> None:
    kernel = lab()
    nics(kernel)
    keeper = Keeper(kernel).start(wiring(link("nic0", "nic1", mode=Mode.NATIVE)))
    standing = keeper.reconciler.statuses["nic0:nic1"]
    assert (standing.state, standing.mode) == ("failed", Mode.NATIVE)
    assert "ERANGE" in standing.reason
    assert_all_or_nothing(keeper)


# --------------------------------------------------------------------------- crashes


@pytest.mark.parametrize(("before", "after", "number"), EVERY_STEP)
def test_after_a_crash_at_any_step_the_next_start_mends_everything(
    before: Wiring, after: Wiring, number: int
) -> None:
    found = lab().snapshot()
    keeper = told(before)
    keeper.kernel.trouble = crash(number)
    with pytest.raises(Crash):
        keeper.take(after)
    keeper.kernel.trouble = peace

    keeper = keeper.restart()
    assert all(map(works, keeper.states().values())), keeper.states()
    assert_all_or_nothing(keeper)
    assert keeper.reconciler.look().actions == ()
    assert keeper.reconciler.detach("signal") == []
    assert keeper.kernel.snapshot() == found
    assert not keeper.book.records()


@pytest.mark.parametrize("number", range(40))
def test_after_a_crash_on_the_way_out_the_next_end_finishes_it(number: int) -> None:
    found = lab().snapshot()
    keeper = told(FIRST)
    keeper.kernel.trouble = crash(number)
    try:
        keeper.reconciler.detach("signal")
    except Crash:
        keeper = Keeper(keeper.kernel, keeper.book)
    keeper.kernel.trouble = peace
    assert keeper.reconciler.detach("signal") == []
    assert keeper.kernel.snapshot() == found


@LAWS
@given(all_ports=ports, here=wirings, there=wirings, number=st.integers(0, 60))
def test_a_crash_anywhere_in_any_rewiring_leaves_a_way_back(
    all_ports: tuple[Port, ...], here: Wiring, there: Wiring, number: int
) -> None:
    kernel = build(all_ports)
    found = kernel.snapshot()
    keeper = Keeper(kernel).start(here)
    kernel.trouble = crash(number)
    with suppress(Crash):
        keeper.take(there)
    kernel.trouble = peace
    keeper = keeper.restart()
    assert_all_or_nothing(keeper)
    assert keeper.reconciler.detach("signal") == []
    assert kernel.snapshot() == found


@LAWS
@given(all_ports=ports, here=wirings, there=wirings, number=st.integers(0, 60))
def test_a_failure_anywhere_in_any_rewiring_leaves_whole_links(
    all_ports: tuple[Port, ...], here: Wiring, there: Wiring, number: int
) -> None:
    kernel = build(all_ports)
    found = kernel.snapshot()
    keeper = Keeper(kernel).start(here)
    kernel.trouble = refuse(number)
    keeper.take(there)
    kernel.trouble = peace
    assert_all_or_nothing(keeper)
    assert keeper.reconciler.detach("signal") == []
    assert kernel.snapshot() == found


def test_an_adopting_start_changes_nothing() -> None:
    keeper = told(FIRST)
    keeper.kernel.trouble = peace
    before = keeper.kernel.snapshot()
    keeper = keeper.restart()
    assert keeper.kernel.steps == []
    assert keeper.kernel.snapshot() == before


def blind_start(keeper: Keeper) -> Keeper:
    """As the daemon does without a good file: what stands is what is wanted."""
    blind = Keeper(keeper.kernel, keeper.book)
    return blind.start(wiring(*blind.reconciler.found()))


@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.GENERIC, Mode.TC])
def test_a_start_without_a_good_file_leaves_what_stands(mode: Mode) -> None:
    wanted = wiring(link("v0", "v1", mode=mode), "nic0:tap0", "v2:v2")
    keeper = told(wanted)
    before = keeper.kernel.snapshot()
    blind = blind_start(keeper)
    assert keeper.kernel.snapshot() == before
    blind.take(wanted)
    assert keeper.kernel.snapshot() == before
    assert set(blind.states().values()) == {"connected"}


@pytest.mark.parametrize("mode", [Mode.GENERIC, Mode.TC])
def test_a_start_without_a_good_file_keeps_a_disabled_link_disabled(mode: Mode) -> None:
    off = link("v0", "v1", mode=mode, enabled=False)
    keeper = told(wiring(off, link("v2", "v2", mode=mode, enabled=False)))
    before = keeper.kernel.snapshot()
    blind = blind_start(keeper)
    assert keeper.kernel.snapshot() == before
    assert blind.states() == {"v0:v1": "disabled", "v2:v2": "disabled"}
    blind.take(wiring(replace(off, enabled=True)))
    assert blind.states() == {"v0:v1": "connected"}
    assert keeper.kernel.untouched("v2")


def test_a_start_without_a_good_file_holds_the_ends_of_a_half_wire() -> None:
    keeper = told(FIRST)
    keeper.kernel.lose_entry("v0")
    blind = blind_start(keeper)
    assert keeper.kernel.black_holes() == {"v0", "v1"}
    blind.take(FIRST)
    assert keeper.kernel.wired("v0", "v1")


@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.TC])
def test_a_start_without_a_good_file_keeps_what_is_held(mode: Mode) -> None:
    """And makes no wire of it, whatever comes."""
    wanted = wiring(link("v0", "v9", mode=mode), "nic0:tap0")
    keeper = told(wanted)
    before = keeper.kernel.snapshot()
    blind = blind_start(keeper)
    assert keeper.kernel.snapshot() == before
    assert blind.states() == {"nic0:tap0": "connected", "v0:v0": "disabled"}
    keeper.kernel.add("v9")
    blind.settle()
    assert keeper.kernel.is_held("v0")
    assert keeper.kernel.untouched("v9")
    blind.take(wanted)
    assert keeper.kernel.wired("v0", "v9")


def test_an_older_program_is_replaced_at_the_start() -> None:
    keeper = told(FIRST)
    for name in ("v0", "v1"):
        keeper.kernel.load_older(name)
    keeper = keeper.restart()
    assert [xdp.program for xdp in keeper.kernel.get("v0").xdp] == [XDP]


def test_a_program_whose_pin_is_lost_is_ours_by_the_ledger() -> None:
    keeper = told(FIRST)
    unpinned = 92
    keeper.book.know_programs(frozenset((unpinned,)))
    keeper.kernel.alter("v0", xdp=(Xdp("generic", unpinned),))
    keeper = keeper.restart()
    assert keeper.state("v0:v1") == "connected"
    assert [xdp.program for xdp in keeper.kernel.get("v0").xdp] == [XDP]


# --------------------------------------------------------------------------- news


@LAWS
@given(all_ports=ports, wanted=wirings, mishaps=accidents(at_most=6))
@example(
    all_ports=(Port("veth", True, 1500, ""),) * 8,
    wanted=wiring("e0:e1"),
    mishaps=[Accident("deleted", "e0")],
)
def test_a_narrow_look_finds_what_a_full_one_would(
    all_ports: tuple[Port, ...], wanted: Wiring, mishaps: list[Accident], clock: Clock
) -> None:
    """A failed link that nobody holds may take until its next try."""
    keeper = Keeper(build(all_ports)).start(wanted)
    for accident in mishaps:
        accident.strike(keeper.kernel)
        keeper.settle()
        keeper.tick()
        clock.forward(61)
        keeper.retry()
        keeper.settle()
        assert keeper.reconciler.look().actions == (), accident
        fresh = Keeper(keeper.kernel, keeper.book)
        fresh.reconciler.want(wanted)
        assert fresh.reconciler.look().actions == (), accident
        assert_nothing_is_missed(keeper)


KINDS = {
    "generic": link("e0", "e1"),
    "tc": link("e0", "e1", mode=Mode.TC),
    "disabled": link("e0", "e1", enabled=False),
    "plug": link("e0", "e0"),
}


@pytest.mark.parametrize("accident", sorted(ACCIDENTS))
@pytest.mark.parametrize("one", KINDS.values(), ids=KINDS)
def test_a_narrow_look_misses_no_accident(one: Link, accident: str) -> None:
    kernel = Kernel()
    for name in ("e0", "e1", "e2", "e3"):
        kernel.add(name)
    keeper = Keeper(kernel).start(wiring(one, "e2:e3", "e4:e5"))
    Accident(accident, "e0").strike(kernel)
    keeper.settle()
    if "entry" in accident:
        keeper.tick()
    assert_nothing_is_missed(keeper)


def assert_nothing_is_missed(keeper: Keeper) -> None:
    assert keeper.reconciler.look().actions == ()
    assert keeper.states() == states_seen(keeper)
    assert not keeper.reconciler.has_drifted()
    assert_all_or_nothing(keeper)


def states_seen(keeper: Keeper) -> dict[str, str]:
    """What a full look finds now."""
    seen = keeper.reconciler.look()
    judged = ((each, link_state.assess(each, seen.observed)) for each in seen.evaluations)
    return {evaluation.link.id: str(found.state) for evaluation, found in judged}


@LAWS
@given(all_ports=ports, wanted=wirings, mishaps=accidents(at_most=5))
def test_a_burst_of_news_is_as_good_as_one_by_one(
    all_ports: tuple[Port, ...], wanted: Wiring, mishaps: list[Accident]
) -> None:
    keeper = Keeper(build(all_ports)).start(wanted)
    for accident in mishaps:
        accident.strike(keeper.kernel)
    keeper.settle()
    keeper.tick()
    assert keeper.reconciler.look().actions == ()
    assert_all_or_nothing(keeper)


def test_what_forwards_nothing_gets_the_new_programs_too() -> None:
    """A disabled link has no entry in an older map, which would call for a full pass."""
    kernel = Kernel()
    for name in ("e0", "e1"):
        kernel.add(name)
    off = (link("e0", "e0", enabled=False), link("e1", "e1", enabled=False))
    keeper = Keeper(kernel).start(wiring(*off))
    Accident("moved away", "e0").strike(kernel)
    keeper.settle()
    keeper.tick()
    assert keeper.reconciler.look().actions == ()


@LAWS
@given(all_ports=ports, here=wirings, there=wirings)
def test_a_changed_file_needs_no_full_look(
    all_ports: tuple[Port, ...], here: Wiring, there: Wiring
) -> None:
    keeper = Keeper(build(all_ports)).start(here)
    dumps = keeper.kernel.dumps
    keeper.take(there)
    assert keeper.kernel.dumps == dumps
    states = keeper.states()
    keeper.reconciler.run(None, "signal")
    assert keeper.states() == states
    assert keeper.reconciler.look().actions == ()


@pytest.mark.parametrize(
    "accident",
    ["deleted", "recreated", "renamed", "given a foreign program", "set down"],
)
def test_news_are_handled_without_a_dump(accident: str) -> None:
    kernel = Kernel()
    for name in ("e0", "e1", "e2", "e3"):
        kernel.add(name)
    keeper = Keeper(kernel).start(wiring("e0:e1", "e2:e3"))
    dumps = kernel.dumps
    Accident(accident, "e0").strike(kernel)
    keeper.settle()
    keeper.tick()
    assert kernel.dumps == dumps, "the sweep of the map saw a drift that was none"


def test_a_link_stands_or_falls_alone() -> None:
    """What happens to one link leaves the entries, programs and counters of all others alone."""
    kernel = Kernel()
    for name in ("e0", "e1", "e2", "e3"):
        kernel.add(name)
    keeper = Keeper(kernel).start(wiring("e0:e1", "e2:e3"))
    kernel.trouble = peace
    for accident in ("given a foreign program", "rid of its program", "recreated", "deleted"):
        Accident(accident, "e0").strike(kernel)
        keeper.settle()
    others = {kernel.index("e2"), kernel.index("e3")}
    assert others.isdisjoint(step.ifindex for step in kernel.steps)


def during(kernel: Kernel, happens: Callable[[], object]) -> None:
    """It happens at the first step of the next pass that takes any."""

    def trouble(number: int, _step: Step) -> None:
        if number == 0:
            happens()

    kernel.trouble = trouble


def passes(keeper: Keeper) -> int:
    return keeper.reconciler.tally.count


def test_what_a_pass_itself_changed_needs_no_other_pass() -> None:
    keeper = told(FIRST)
    before = passes(keeper)
    keeper.take(SECOND)
    assert keeper.settle() == 0
    assert passes(keeper) == before + 1


def test_what_happens_to_another_link_during_a_pass_is_another_pass() -> None:
    keeper = told(wiring("v0:v1", "nic0:tap0"))
    before = passes(keeper)
    keeper.events()
    during(keeper.kernel, lambda: keeper.kernel.alter("nic0", promiscuous=False))
    keeper.take(wiring("v0:v2", "nic0:tap0"))
    assert keeper.kernel.get("nic0").promiscuous
    assert passes(keeper) == before + 2
    assert [(each["event"], each["link"]) for each in keeper.log if "link" in each] == [
        ("link.rewired", "v0:v2"),
        ("drift.repaired", "nic0:tap0"),
    ]


def test_what_happens_after_the_last_look_is_another_pass() -> None:
    keeper = told(wiring("v0:v1"))
    update = keeper.book.set_moved_netns

    def at_the_end(moved: tuple[MovedEnd, ...]) -> None:
        update(moved)
        keeper.book.set_moved_netns = update  # type: ignore[method-assign]
        keeper.kernel.alter("v0", mtu=1300)

    keeper.book.set_moved_netns = at_the_end  # type: ignore[method-assign]
    keeper.take(wiring("v0:v2"))
    assert keeper.kernel.get("v0").mtu == 1300
    assert keeper.settle() == 1
    assert_nothing_is_missed(keeper)


def test_a_link_that_loses_its_altname_during_the_pass_of_another_is_looked_at() -> None:
    kernel = lab()
    kernel.alter("v2", altnames=("alt",))
    keeper = Keeper(kernel).start(wiring("v0:v1", "alt:v3"))
    during(kernel, lambda: kernel.alter("v2", altnames=()))
    keeper.take(wiring("v0:v0", "alt:v3"))
    keeper.settle()
    assert keeper.states() == {"v0:v0": "connected", "alt:v3": "waiting"}
    assert_nothing_is_missed(keeper)


def test_a_link_that_lost_its_altname_before_the_pass_of_another_is_looked_at() -> None:
    """The news comes in the pass that wires the end to that other one."""
    kernel = lab()
    kernel.alter("v2", altnames=("alt",))
    keeper = Keeper(kernel).start(wiring("v0:v1", "alt:alt"))

    def at_the_first_look() -> None:
        kernel.meanwhile = lambda: None
        kernel.alter("v2", altnames=())

    kernel.meanwhile = at_the_first_look
    keeper.take(wiring("v0:v2", "alt:alt"))
    assert keeper.states() == {"v0:v2": "connected", "alt:alt": "waiting"}
    assert_nothing_is_missed(keeper)


def test_an_end_that_leaves_during_a_pass_is_cut_off_in_it() -> None:
    keeper = told(wiring("v0:v1", "v2:v3"))
    kernel = keeper.kernel
    number = kernel.index("v2")
    during(kernel, lambda: moved_on(keeper, "v2", number))
    keeper.take(wiring("v0:nic0", "v2:v3"))
    assert kernel.leads_from(number, 4) is None
    assert "interface.moved_netns" in keeper.events()
    keeper.settle()
    assert_nothing_is_missed(keeper)


def test_all_is_read_again_when_news_were_lost_during_a_pass() -> None:
    keeper = told(FIRST)
    kernel = keeper.kernel

    def overrun() -> None:
        kernel.alter("tap0", up=False)
        kernel.news.clear()
        keeper.news.is_overrun = True

    during(kernel, overrun)
    keeper.take(wiring("v0:v2", "nic0:tap0"))
    assert "events.lost" in keeper.events()
    assert keeper.state("nic0:tap0") == "down"


# --------------------------------------------------------------------------- flapping


def flap(what: Callable[[Kernel, int], None]) -> Keeper:
    """Somebody undoes what we do, again and again, until the link is held off."""
    keeper = told(FIRST)
    for number in range(retry.FLAPPING_REPAIRS + 1):
        what(keeper.kernel, number)
        keeper.settle()
    assert keeper.events().count("drift.flapping") == 1
    return keeper


def over_the_mtu(kernel: Kernel, number: int) -> None:
    kernel.alter("v0", mtu=1300 + number)


def over_clsact(kernel: Kernel, _number: int) -> None:
    kernel.drop_filters("v0")


def over_the_program(kernel: Kernel, _number: int) -> None:
    kernel.unload("v0")


@pytest.mark.parametrize("what", [over_the_mtu, over_clsact, over_the_program])
def test_in_a_hold_off_frames_are_forwarded(what: Callable[[Kernel, int], None]) -> None:
    keeper = flap(what)
    for number in range(3):
        what(keeper.kernel, 20 + number)
        keeper.settle()
        assert keeper.kernel.wired("v0", "v1"), number
        assert keeper.state("v0:v1") == "connected"
    assert "link.failed" not in keeper.events()


def test_in_a_hold_off_settings_are_left_alone_and_afterwards_ours_again(clock: Clock) -> None:
    keeper = flap(over_the_mtu)
    over_the_mtu(keeper.kernel, 50)
    keeper.settle()
    assert keeper.kernel.get("v0").mtu == 1350
    clock.forward(61)
    keeper.retry()
    assert keeper.kernel.get("v0").mtu == 65535
    keeper.take(Wiring())
    assert keeper.kernel.get("v0").mtu == 1350


def test_in_a_hold_off_a_new_end_is_made_whole() -> None:
    keeper = flap(over_the_mtu)
    kernel = keeper.kernel
    kernel.delete("v1")
    kernel.add("v1", up=False)
    keeper.settle()
    assert keeper.state("v0:v1") == "connected"
    assert kernel.index("v1") in keeper.book.records()
    assert kernel.get("v1").mtu == 65535


# --------------------------------------------------------------------------- ends that leave


def test_an_end_that_leaves_is_told_and_its_number_is_free() -> None:
    keeper = told(FIRST)
    kernel = keeper.kernel
    number = kernel.index("v0")
    kernel.send_away("v0", nsid=3)
    keeper.settle()
    assert number not in kernel.devmap
    assert keeper.state("v0:v1") == "waiting"
    (gone,) = keeper.book.moved_netns()
    assert (gone.record.ifindex, gone.nsid, gone.namespace) == (number, 3, "box3")
    assert "interface.moved_netns" in keeper.events()

    kernel.add("v0", ifindex=number)
    keeper.settle()
    assert keeper.state("v0:v1") == "connected"


def moved_on(keeper: Keeper, name: str, number: int) -> None:
    """From the namespace 3 to 4, whose owner chooses the number there."""
    kernel = keeper.kernel
    there = kernel.send_away(name, nsid=3)
    device = kernel.elsewhere_[3].pop(there)
    kernel.elsewhere_[4] = {number: device._replace(ifindex=number)}


@pytest.mark.parametrize("dead", [True, False])
def test_a_program_that_left_forwards_nothing_whatever_number_it_gets(dead: bool) -> None:
    keeper = told(wiring("v0:v1", "v2:v3"))
    kernel = keeper.kernel
    number = kernel.index("v2")
    moved_on(keeper, "v0", number)
    assert kernel.leads_from(number, 4) == "v3", "it is not reported yet"
    if dead:
        kernel.news.clear()
        keeper = keeper.restart()
    keeper.settle()
    assert "drift.repaired" not in keeper.events(), "v2 and v3 have a new program"
    assert kernel.leads_from(number, 4) is None
    assert kernel.wired("v2", "v3")
    keeper.take(wiring("v2:v3", "v1:nic0"))
    keeper.reconciler.run(None, "signal")
    assert kernel.leads_from(number, 4) is None
    assert kernel.wired("v2", "v3")
    assert kernel.wired("v1", "nic0")


@pytest.mark.parametrize("mode", [Mode.GENERIC, Mode.TC])
def test_the_number_of_an_end_that_left_leads_nowhere_before_anything_else_is_done(
    mode: Mode,
) -> None:
    keeper = told(wiring(link("v0", "v1", mode=mode)))
    kernel = keeper.kernel
    number = kernel.index("v0")
    kernel.send_away("v0", nsid=3)
    done = []

    def look(_number: int, step: Step) -> None:
        if step not in (Step("unpoint", number), Step("unsteer", number)):
            done.append(step)
            for entries in (kernel.devmap, *kernel.older_maps.values(), kernel.peer_map):
                assert number not in entries, step

    kernel.trouble = look
    keeper.settle()
    assert done


def test_an_end_that_is_back_and_leaves_again_within_a_pass_is_as_found_one_day() -> None:
    keeper = told(FIRST)
    kernel = keeper.kernel
    found, number = lab().get("v0"), kernel.index("v0")
    kernel.bring_back(kernel.send_away("v0"), ifindex=number)
    late = []

    def leave(_number: int, step: Step) -> None:
        if step == Step("set up", number):
            late.append(kernel.send_away("v0", nsid=3))
            late.append(kernel.news.pop())

    kernel.trouble = leave
    keeper.settle()
    there, report = late
    kernel.news.append(report)
    keeper.settle()
    kernel.bring_back(there, nsid=3)
    keeper.settle()
    keeper.take(Wiring())
    now = kernel.get("v0")
    assert (now.mtu, now.addr_gen_mode, now.xdp) == (found.mtu, found.addr_gen_mode, ())


def test_what_left_forwards_nothing_though_an_end_cannot_be_put_back() -> None:
    keeper = told(wiring("v0:v1", "v2:v3", "nic0:tap0"))
    kernel = keeper.kernel
    kernel.trouble = refuse_verb("set promiscuous", kernel.index("nic0"))
    keeper.take(wiring("v0:v1", "v2:v3"))
    kernel.send_away("v0", nsid=3)
    keeper.settle()
    assert kernel.older_maps
    assert not kernel.older_forward()


def test_an_end_without_a_link_that_could_not_be_put_back_and_is_deleted_is_forgotten() -> None:
    keeper = told(FIRST)
    kernel = keeper.kernel
    number = kernel.index("nic0")
    kernel.trouble = refuse_verb("set promiscuous", number)
    keeper.take(wiring("v0:v1"))
    assert number in keeper.book.records()
    kernel.delete("nic0")
    keeper.settle()
    assert number not in keeper.book.records()


def test_older_programs_that_forward_are_replaced_by_whatever_pass_comes_next() -> None:
    keeper = told(wiring("v0:v1", "v2:v3"))
    kernel = keeper.kernel
    kernel.renew()  # and no more: the pass that was to follow was cut short
    keeper.take(wiring("v0:v1", "v2:nic0"))
    assert not kernel.older_forward()
    assert {xdp.program for xdp in kernel.get("v0").xdp} == {kernel.xdp}
    assert kernel.wired("v0", "v1")


def test_a_burst_of_moves_renews_the_programs_once() -> None:
    keeper = told(wiring("v0:v1", "v2:tap0", "v3:nic0"))
    kernel = keeper.kernel
    kernel.trouble = peace
    for name in ("v0", "v1", "v2"):
        kernel.send_away(name, nsid=3)
    keeper.settle()
    assert [step.verb for step in kernel.steps].count("renew") == 1
    assert kernel.wired("v3", "nic0")
    assert "drift.repaired" not in keeper.events()


def test_an_end_that_is_deleted_or_left_without_our_program_renews_nothing() -> None:
    keeper = told(wiring("v0:v1", "v2:v3"))
    kernel = keeper.kernel
    kernel.trouble = peace
    kernel.delete("v0")
    kernel.unload("v2")
    kernel.send_away("v2", nsid=3)
    keeper.settle()
    assert "renew" not in [step.verb for step in kernel.steps]


@pytest.mark.parametrize("seen", [True, False])
def test_programs_that_cannot_be_renewed_are_told_and_tried_again(clock: Clock, seen: bool) -> None:
    """Also if no look from here reaches the namespace where the end is."""
    keeper = told(wiring("v0:v1", "v2:v3"))
    kernel = keeper.kernel
    number = kernel.index("v2")
    kernel.trouble = lambda _, step: DataplaneError("load", "no") if step.verb == "renew" else None
    moved_on(keeper, "v0", number)
    hidden = {} if seen else {4: kernel.elsewhere_.pop(4)}
    for _ in range(2):
        keeper.settle()
        keeper.reconciler.run(None, "signal")
    assert keeper.events().count("renewal.failed") == 1
    assert kernel.wired("v2", "v3")
    kernel.trouble = peace
    clock.forward(11)
    keeper.take(wiring("v2:v3"))
    kernel.elsewhere_ |= hidden
    assert kernel.leads_from(number, 4) is None
    keeper.reconciler.run(None, "signal")
    assert len(keeper.book.moved_netns()) == seen


def _crashes_of_a_move() -> int:
    """How many steps it takes."""
    keeper = told(wiring("v0:v1", "v2:v3"))
    keeper.kernel.trouble = peace
    moved_on(keeper, "v0", keeper.kernel.index("v2"))
    keeper.settle()
    return len(keeper.kernel.steps)


@pytest.mark.parametrize("at", range(_crashes_of_a_move()))
def test_a_crash_at_any_step_of_a_move_is_mended_by_the_next_start(at: int) -> None:
    keeper = told(wiring("v0:v1", "v2:v3"))
    kernel = keeper.kernel
    number = kernel.index("v2")
    moved_on(keeper, "v0", number)
    kernel.trouble = crash(at)
    with pytest.raises(Crash):
        keeper.settle()
    kernel.trouble = peace
    keeper = keeper.restart()
    assert kernel.leads_from(number, 4) is None
    assert kernel.wired("v2", "v3")
    assert_all_or_nothing(keeper)


@pytest.mark.parametrize("dead", [True, False])
def test_two_ends_with_one_mac_that_leave_are_two(dead: bool) -> None:
    """As VLANs of one NIC are; each is put back as it was found when it is back."""
    kernel = Kernel()
    for name, mtu in (("v0", 1400), ("v1", 1500), ("v2", 1450), ("v3", 1500)):
        kernel.add(name, mtu=mtu)
    mac = kernel.get("v0").mac
    kernel.alter("v2", mac=mac)
    keeper = Keeper(kernel).start(wiring("v0:v1", "v2:v3"))
    away = {name: kernel.send_away(name, nsid=3) for name in ("v0", "v2")}
    if dead:
        kernel.news.clear()
        keeper = keeper.restart()
    keeper.settle()
    assert {gone.record.name for gone in keeper.book.moved_netns()} == {"v0", "v2"}
    for name in ("v2", "v0"):
        kernel.bring_back(away[name], nsid=3)
        keeper.settle()
    assert keeper.states() == {"v0:v1": "connected", "v2:v3": "connected"}
    keeper.take(Wiring())
    assert [kernel.get(name).mtu for name in ("v0", "v2")] == [1400, 1450]


def test_an_end_is_known_when_it_is_back_under_another_name() -> None:
    """Named anew where it was, so that no link speaks of it."""
    keeper = told(FIRST)
    kernel = keeper.kernel
    there = kernel.send_away("v0", nsid=3)
    keeper.settle()
    moved = kernel.elsewhere_[3]
    moved[there] = moved[there]._replace(name="stranger")
    back = kernel.bring_back(there, nsid=3)
    keeper.settle()
    assert kernel.devices[back].xdp == ()
    assert kernel.devices[back].mtu == 1500
    assert keeper.book.moved_netns() == ()
    assert back not in keeper.book.records()


def test_a_report_that_comes_late_is_taken() -> None:
    """The kernel says first that the end is down, takes it out, waits, and only then where to."""
    keeper = told(FIRST)
    kernel = keeper.kernel
    number = kernel.index("v0")
    kernel.send_away("v0", nsid=3)
    report = kernel.news.pop()
    kernel.news.append(Event(number, "v0"))
    keeper.settle()
    kernel.news.append(report)
    keeper.settle()
    (gone,) = keeper.book.moved_netns()
    assert gone.record.ifindex == number
    assert gone.record.changes["mtu"].found == 1500


def test_a_report_is_awaited_also_when_all_is_looked_at_meanwhile() -> None:
    keeper = told(FIRST)
    kernel = keeper.kernel
    number = kernel.index("v0")
    kernel.send_away("v0", nsid=3)
    report = kernel.news.pop()
    kernel.news.append(Event(number, "v0"))
    keeper.settle()
    keeper.reconciler.run(None, "signal")
    kernel.news.append(report)
    keeper.settle()
    assert [gone.record.ifindex for gone in keeper.book.moved_netns()] == [number]


@pytest.mark.parametrize("late", [True, False])
def test_a_report_is_awaited_once(late: bool) -> None:
    """The number may be another device's by now."""
    keeper = told(FIRST)
    number = keeper.kernel.index("v0")
    keeper.kernel.delete("v0")
    report = keeper.kernel.news[-1]
    if late:
        keeper.kernel.news[-1] = Event(number, "v0")
        keeper.settle()
        keeper.kernel.news.append(report)
    keeper.settle()
    assert not keeper.netns_moves.awaits(number)


def back_again(*, same_number: bool) -> Keeper:
    keeper = told(FIRST)
    number = keeper.kernel.index("v0")
    there = keeper.kernel.send_away("v0")
    keeper.settle()
    keeper.kernel.bring_back(there, ifindex=number if same_number else None)
    keeper.settle()
    return keeper


@pytest.mark.parametrize("same_number", [True, False])
def test_an_end_that_is_back_in_the_pass_that_finds_it_missing_is_as_found_one_day(
    same_number: bool,
) -> None:
    keeper = told(FIRST)
    kernel = keeper.kernel
    found, number = lab().get("v0"), kernel.index("v0")
    there = kernel.send_away("v0")
    report = kernel.news.pop()

    def returns(_number: int, step: Step) -> None:
        if step == Step("forget", number):
            kernel.trouble = peace
            kernel.bring_back(there, ifindex=number if same_number else None)

    kernel.trouble = returns
    kernel.news[:] = [Event(number, "v0")]
    keeper.settle()
    kernel.news.insert(0, report)
    keeper.settle()
    assert keeper.state("v0:v1") == "connected"
    keeper.take(Wiring())
    now = kernel.get("v0")
    assert (now.mtu, now.addr_gen_mode, now.xdp) == (found.mtu, found.addr_gen_mode, ())


def test_an_end_that_is_back_before_its_move_is_reported_is_as_found_one_day() -> None:
    keeper = told(FIRST)
    kernel = keeper.kernel
    found, number = lab().get("v0"), kernel.index("v0")
    there = kernel.send_away("v0")
    report = kernel.news.pop()
    kernel.news.append(Event(number, "v0"))
    keeper.settle()
    kernel.bring_back(there)
    kernel.news.insert(0, report)
    keeper.settle()
    keeper.take(Wiring())
    now = kernel.get("v0")
    assert (now.mtu, now.addr_gen_mode, now.xdp) == (found.mtu, found.addr_gen_mode, ())


@pytest.mark.parametrize("name", ["v0", "stranger"])
def test_an_end_whose_number_is_taken_before_any_look_is_as_found_one_day(name: str) -> None:
    """By another device, which is an end too or none; both are told of when it is all over."""
    keeper = told(FIRST)
    kernel = keeper.kernel
    found, number = lab().get("v0"), kernel.index("v0")
    there = kernel.send_away("v0", nsid=3)
    kernel.add(name, ifindex=number)
    late = [*kernel.news]
    kernel.news.clear()
    keeper.reconciler.run(None, "signal")
    kernel.news += late
    keeper.settle()
    (gone,) = keeper.book.moved_netns()
    assert (gone.record.name, gone.record.mac, gone.nsid) == ("v0", found.mac, 3)
    kernel.delete(name)
    kernel.bring_back(there, nsid=3)
    keeper.settle()
    keeper.take(Wiring())
    now = kernel.get("v0")
    assert (now.mtu, now.addr_gen_mode, now.xdp) == (found.mtu, found.addr_gen_mode, ())


def test_an_end_that_comes_back_is_known_though_a_pass_comes_before_its_news() -> None:
    keeper = told(FIRST)
    kernel = keeper.kernel
    found = lab().get("v0")
    there = kernel.send_away("v0")
    keeper.settle()
    keeper.take(wiring("v2:v3"))
    kernel.bring_back(there)
    keeper.take(wiring("v2:v2"))
    keeper.settle()
    now = kernel.get("v0")
    assert (now.mtu, now.addr_gen_mode, now.xdp) == (found.mtu, found.addr_gen_mode, ())


@pytest.mark.parametrize("same_number", [True, False])
def test_an_end_that_comes_back_is_wired_again(same_number: bool) -> None:
    keeper = back_again(same_number=same_number)
    assert keeper.kernel.wired("v0", "v1")
    assert keeper.book.moved_netns() == ()
    assert_all_or_nothing(keeper)


@pytest.mark.parametrize("same_number", [True, False])
def test_an_end_that_comes_back_is_set_up(same_number: bool) -> None:
    """The kernel set it down on its way, not an operator."""
    assert back_again(same_number=same_number).state("v0:v1") == "connected"


@pytest.mark.parametrize("same_number", [True, False])
def test_an_end_that_comes_back_is_put_back_as_found_one_day(same_number: bool) -> None:
    found = lab().get("v0")
    keeper = back_again(same_number=same_number)
    keeper.take(Wiring())
    now = keeper.kernel.get("v0")
    assert (now.mtu, now.addr_gen_mode, now.xdp) == (found.mtu, found.addr_gen_mode, ())


def moved_and_unreported() -> tuple[Keeper, int, int]:
    """One that saw v0 vanish and was not told where to; the numbers of v0 here and there."""
    keeper = told(FIRST)
    kernel = keeper.kernel
    number = kernel.index("v0")
    there = kernel.send_away("v0", nsid=3)
    kernel.news[:] = [Event(number, "v0")]
    keeper.settle()
    return keeper, number, there


@pytest.mark.parametrize("back", [None, "another number", "the same number"])
def test_a_report_that_a_crash_lost_is_made_up_for_by_the_start(back: str | None) -> None:
    """The end was noted as missing and its record forgotten; it may have come back since."""
    found = lab().get("v0")
    keeper, number, there = moved_and_unreported()
    kernel = keeper.kernel
    assert number not in keeper.book.records()
    if back:
        kernel.bring_back(there, nsid=3, ifindex=number if back == "the same number" else None)
    keeper = keeper.restart()
    assert [gone.record.ifindex for gone in keeper.book.moved_netns()] == [number] * (not back)
    assert keeper.state("v0:v1") == ("connected" if back else "waiting")
    if back:
        keeper.take(Wiring())
        now = kernel.get("v0")
        assert (now.mtu, now.addr_gen_mode, now.xdp) == (found.mtu, found.addr_gen_mode, ())


def test_a_link_that_has_failed_for_days_is_still_tried_each_minute(clock: Clock) -> None:
    keeper = told(wiring("v0:v1"))
    keeper.kernel.load_foreign("v0", program=FOREIGN)
    keeper.settle()
    for _ in range(1100):
        clock.forward(61)
        keeper.retry()
    assert keeper.state("v0:v1") == "failed"
    due = keeper.reconciler.next_retry()
    assert due is not None
    assert 59 < due - clock.now <= 60


def test_of_two_that_are_back_with_one_mac_one_is_taken_up() -> None:
    keeper, _, there = moved_and_unreported()
    kernel = keeper.kernel
    back = kernel.devices[kernel.bring_back(there, nsid=3)]
    kernel.add("twin")
    kernel.alter("twin", mac=back.mac, xdp=back.xdp)
    keeper.reconciler.run(None, "signal")
    assert keeper.state("v0:v1") == "connected"


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("step", ["namespace_name", "set_moved_netns", "set_unreported"])
def test_a_crash_while_a_report_is_taken_does_not_forget_it(step: str, late: bool) -> None:
    keeper = told(FIRST)
    kernel = keeper.kernel
    number = kernel.index("v0")
    kernel.send_away("v0", nsid=3)
    if late:
        report = kernel.news.pop()
        kernel.news.append(Event(number, "v0"))
        keeper.settle()
        kernel.news.append(report)
    crashing = kernel if step == "namespace_name" else keeper.book
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crashing, step, _crash)
        with pytest.raises(Crash):
            keeper.settle()
    keeper = keeper.restart()
    (gone,) = keeper.book.moved_netns()
    assert (gone.record.ifindex, gone.nsid) == (number, 3)


def test_an_end_that_goes_on_to_a_third_namespace_is_followed(clock: Clock) -> None:
    keeper = told(FIRST)
    kernel = keeper.kernel
    there = kernel.send_away("v0", nsid=3)
    keeper.settle()
    kernel.elsewhere_[4] = {99: kernel.elsewhere_[3].pop(there)._replace(ifindex=99)}
    keeper.reconciler.run(None, "signal")
    (gone,) = keeper.book.moved_netns()
    assert (gone.nsid, gone.new_ifindex) == (4, 99)
    del kernel.elsewhere_[4][99]
    keeper.reconciler.run(None, "signal")
    assert keeper.book.moved_netns() == (gone,), "it may be on its way"
    clock.forward(6)
    keeper.reconciler.run(None, "signal")
    assert keeper.book.moved_netns() == ()


def test_a_full_disk_does_not_forget_an_end_that_comes_and_goes() -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    keeper = told(FIRST)
    kernel = keeper.kernel
    there = kernel.send_away("v0", nsid=3)
    keeper.settle()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeper.book, "hold", full)
        kernel.bring_back(there, nsid=3)
        keeper.settle()
        assert keeper.state("v0:v1") != "connected"
    kernel.alter("v0", carrier=True)
    keeper.retry()
    keeper.reconciler.run(None, "signal")
    assert keeper.state("v0:v1") == "connected"
    assert keeper.book.moved_netns() == ()


class Traveller:
    """A device that is moved to another namespace and back, in steps between the daemon's looks."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        self._kernel = kernel
        self._name = name
        self._number = kernel.index(name)
        self._there: int | None = None

    def go(self) -> None:
        """Sets out for where it is not; on its way it is listed nowhere."""
        kernel, there = self._kernel, self._there
        kernel.arrive()
        if there is None:
            self._there = kernel.send_away(self._name, arrives=False)
        else:
            kernel.bring_back(there, ifindex=self._number, arrives=False)
            self._there = None

    def come_home(self) -> None:
        if self._there is not None:
            self.go()
        self._kernel.arrive()


def test_a_report_that_comes_in_a_pass_over_others_is_awaited_no_more() -> None:
    keeper = told(wiring("v0:v1", "v2:v3"))
    kernel, moves = keeper.kernel, keeper.netns_moves
    others = keeper.reconciler.look(Scope(frozenset((link("v0", "v1"),)))).observed
    kernel.send_away("v2")
    report = kernel.news.pop()
    moves.note(report.ifindex, report.mac, report.nsid, report.new_ifindex)
    moves.settle(others)
    moves.note_missing(keeper.reconciler.look().observed)
    assert keeper.book.unreported() == ()
    assert [gone.record.name for gone in keeper.book.moved_netns()] == ["v2"]


@LAWS
@given(
    moves=st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from(("v0", "v2", None))), min_size=2, max_size=12
    ),
    stops=st.booleans(),
)
@example(
    moves=[(0, "v2"), (0, "v0"), (4, "v2"), (5, "v0"), (0, "v0"), (7, "v2"), (0, "v2")], stops=False
)
@example(
    moves=[(0, "v2"), (0, "v0"), (1, "v0"), (5, "v2"), (1, "v0"), (4, "v2"), (0, "v2")],
    stops=False,
)
def test_ends_that_come_and_go_between_any_two_looks_are_as_found_one_day(
    moves: list[tuple[int, str | None]], *, stops: bool
) -> None:
    """After so many looks that device sets out; None: the one that is on its way arrives.

    The daemon may be told to stop meanwhile, and is started again.
    """
    wanted = wiring("v0:v1", "v2:v3")
    keeper = told(wanted)
    kernel, found = keeper.kernel, lab()
    travellers = {name: Traveller(kernel, name) for name in ("v0", "v2")}
    plan = iter([(-1, None), *moves])
    looks, due = 0, next(plan)

    def meanwhile() -> None:
        nonlocal looks, due
        looks -= 1
        while looks < 0 and due:
            traveller = travellers.get(due[1] or "")
            traveller.go() if traveller else kernel.arrive()
            due = next(plan, None)
            looks = due[0] if due else 0

    kernel.meanwhile = meanwhile
    if stops:
        keeper.reconciler.detach("signal")
        keeper = Keeper(kernel, keeper.book).start(wanted)
    while due:
        kernel.news.append(Event(kernel.index("v1"), "v1"))
        keeper.settle()
    for traveller in travellers.values():
        traveller.come_home()
        keeper.settle()
    keeper.clock.forward(retry.LONGEST_WAIT)  # one was away for just one step on it
    keeper.settle()
    assert set(keeper.states().values()) == {"connected"}
    keeper.take(Wiring())
    for name in ("v0", "v1", "v2", "v3"):
        now, then = kernel.get(name), found.get(name)
        assert (now.mtu, now.addr_gen_mode, now.xdp) == (then.mtu, then.addr_gen_mode, ()), name


def _crash(*_: object) -> NoReturn:
    raise Crash


def test_an_end_that_left_while_no_daemon_ran_is_found_at_the_start() -> None:
    keeper = told(FIRST)
    keeper.kernel.send_away("v0", nsid=4)
    keeper = keeper.restart()
    assert [gone.nsid for gone in keeper.book.moved_netns()] == [4]
    assert keeper.state("v0:v1") == "waiting"
    assert keeper.kernel.is_held("v1")


# --------------------------------------------------------------------------- ends that are held


WAITING = wiring("v0:v9", "tap0:tap9")


def test_an_end_that_waits_is_held_and_wired_by_its_entry_alone() -> None:
    """Of a wire whose partner comes again, that is; what was set for it is kept meanwhile."""
    keeper = told(FIRST)
    kernel = keeper.kernel
    before = kernel.get("v0")
    Accident("deleted", "v1").strike(kernel)
    keeper.settle()
    assert (keeper.state("v0:v1"), kernel.is_held("v0")) == ("waiting", True)
    assert kernel.get("v0") == before
    kernel.add("v1")
    kernel.trouble = peace
    keeper.settle()
    assert kernel.wired("v0", "v1")
    steps = {each.verb for each in kernel.steps if each.ifindex == kernel.index("v0")}
    assert steps == {"point", "steer"}


def test_an_end_found_down_is_set_up_with_its_link_and_not_before() -> None:
    keeper = told(WAITING)
    kernel = keeper.kernel
    assert kernel.is_held("tap0")
    assert not kernel.get("tap0").up
    keeper = keeper.restart()
    kernel.add("tap9")
    keeper.settle()
    assert kernel.get("tap0").up
    Accident("deleted", "tap9").strike(kernel)
    keeper.settle()
    assert kernel.get("tap0").up, "its partner may be back at once"
    keeper.take(Wiring())
    assert not kernel.get("tap0").up


def test_an_end_that_is_set_down_while_it_is_held_stays_down() -> None:
    keeper = told(WAITING)
    strike("set down")(keeper)
    keeper.kernel.add("v9")
    keeper.settle()
    assert keeper.state("v0:v9") == "down"


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("use", ["address", "master"])
def test_an_end_that_is_held_is_detached_when_the_host_uses_it(use: str, enabled: bool) -> None:
    """Nothing crosses it, so there is nothing to keep running; a lock-out there would be."""
    keeper = told(wiring(link("v0", "v9", enabled=enabled), "tap0:tap9"))
    kernel = keeper.kernel
    if use == "address":
        kernel.addressed[kernel.index("v0")] = ("it carries 192.0.2.1/24",)
        kernel.news.append(Event(kernel.index("v0")))
    else:
        kernel.alter("v0", master=3, master_kind="bridge")
    keeper.settle()
    assert kernel.untouched("v0")
    assert keeper.state("v0:v9") == ("waiting" if enabled else "disabled")
    (warning,) = keeper.reconciler.statuses["v0:v9"].warnings
    assert "not held" in warning
    kernel.addressed.clear()
    kernel.alter("v0", master=0, master_kind="")
    keeper.settle()
    assert kernel.is_held("v0")


@pytest.mark.parametrize("wanted", [WAITING, FIRST])
def test_what_a_router_taught_the_host_is_removed_when_the_end_is_taken(wanted: Wiring) -> None:
    """Once, and told; nothing is taught there from then on."""
    kernel = lab()
    kernel.advertise("v0")
    keeper = Keeper(kernel).start(wanted)
    (told,) = (each for each in keeper.log if each["event"] == "interface.ra_removed")
    assert (told["interface"], told["ifindex"]) == ("v0", kernel.index("v0"))
    assert "the default route leads over it" in told["reason"]
    keeper.events()
    strike("met by a router")(keeper)
    assert (kernel.taught, keeper.events()) == ({}, [])


def test_a_router_behind_a_nic_is_the_hosts_own() -> None:
    kernel = lab()
    kernel.advertise("nic0")
    keeper = Keeper(kernel).start(FIRST)
    assert keeper.state("nic0:tap0") == "failed"
    assert kernel.untouched("nic0")
    assert kernel.taught


def test_an_address_that_goes_frees_the_end_at_once() -> None:
    """Its number is in no record then, and the news carries no name."""
    kernel = lab()
    kernel.addressed[kernel.index("v0")] = ("it carries 192.0.2.1/24",)
    keeper = Keeper(kernel).start(FIRST)
    assert (keeper.state("v0:v1"), keeper.reconciler.loose) == ("failed", True)
    kernel.addressed.clear()
    kernel.news.append(Event(kernel.index("v0")))
    keeper.settle()
    assert (keeper.state("v0:v1"), keeper.reconciler.loose) == ("connected", False)


def test_an_end_whose_partner_is_in_use_is_held() -> None:
    kernel = lab()
    kernel.addressed[kernel.index("v1")] = ("it carries 192.0.2.1/24",)
    keeper = Keeper(kernel).start(FIRST)
    assert keeper.state("v0:v1") == "failed"
    assert kernel.is_held("v0")
    assert kernel.untouched("v1")


def test_a_partner_that_wants_another_mode_leaves_no_moment_without_a_program() -> None:
    keeper = told(WAITING)
    kernel = keeper.kernel
    heard: list[str] = []

    def listens(_number: int, _step: Step) -> None:
        if kernel.leads("v0") == "the host's stack":
            heard.append("v0")

    kernel.add("v9", "bare tap")
    kernel.trouble = listens
    keeper.settle()
    assert kernel.wired("v0", "v9")
    assert (kernel.get("v0").xdp, heard) == ((), [])


def test_what_the_kernel_does_not_let_us_hold_is_as_found_and_tried_again(clock: Clock) -> None:
    kernel = lab()
    kernel.trouble = refuse_verb("attach", kernel.index("v0"))
    keeper = Keeper(kernel).start(WAITING)
    assert keeper.state("v0:v9") == "failed"
    assert "attach" in keeper.reconciler.statuses["v0:v9"].reason
    assert kernel.untouched("v0")
    keeper.settle()
    kernel.trouble = peace
    keeper.settle()
    assert kernel.steps == []
    clock.forward(1.01)
    keeper.retry()
    assert (keeper.state("v0:v9"), kernel.is_held("v0")) == ("waiting", True)


@pytest.mark.parametrize("accident", ["rid of its program", "rid of clsact"])
def test_what_is_taken_off_a_held_end_is_drift(accident: str) -> None:
    keeper = told(WAITING)
    before = keeper.kernel.get("v0")
    keeper.events()
    strike(accident)(keeper)
    assert keeper.kernel.is_held("v0")
    assert keeper.kernel.get("v0") == before
    assert keeper.events() == ["drift.repaired"]


# --------------------------------------------------------------------------- what is logged


Story = Callable[[Keeper], None]


def strike(accident: str, name: str = "v0") -> Story:
    def story(keeper: Keeper) -> None:
        Accident(accident, name).strike(keeper.kernel)
        keeper.settle()
        keeper.tick()

    return story


def file(*links: str) -> Story:
    return lambda keeper: keeper.take(wiring(*links))


LOGGED = {
    "a link more": (file("v0:v1", "nic0:tap0", "v2:v3"), ["link.connected"]),
    "a link less": (file("nic0:tap0"), ["link.disconnected"]),
    "a link moved": (file("v0:v2", "nic0:tap0"), ["link.rewired"]),
    "nothing": (file("v1:v0", "tap0:nic0"), []),
    "an end gone": (strike("deleted"), ["link.waiting"]),
    "an end made anew": (strike("recreated"), ["link.connected"]),
    "set down": (strike("set down"), ["link.down"]),
    "a program gone": (strike("rid of its program"), ["drift.repaired"]),
    "an entry gone": (strike("rid of its entry"), ["drift.repaired"]),
    "clsact gone": (strike("rid of clsact"), ["drift.repaired"]),
    "an MTU": (strike("given another MTU"), ["drift.repaired"]),
    "a program in the way": (strike("given a foreign program"), ["link.failed"]),
    "a port": (strike("made a port"), ["link.warning"]),
    "a tap that got offloads": (strike("given offloads", "tap0"), []),
}


@pytest.mark.parametrize(("story", "events"), LOGGED.values(), ids=LOGGED)
def test_one_event_per_change(story: Story, events: list[str]) -> None:
    keeper = told(FIRST)
    assert of_links(keeper) == ["link.connected", "link.connected"]
    story(keeper)
    assert of_links(keeper) == events


def of_links(keeper: Keeper) -> list[str]:
    return [name for name in keeper.events() if not name.startswith(("config.", "daemon."))]


def test_down_and_up_again() -> None:
    keeper = told(FIRST)
    keeper.events()
    strike("set down")(keeper)
    strike("set up")(keeper)
    assert keeper.events() == ["link.down", "link.up"]


def test_a_failed_link_is_logged_once_however_often_it_is_tried(clock: Clock) -> None:
    keeper = stubborn()
    for _ in range(5):
        clock.forward(61)
        keeper.retry()
    assert keeper.events().count("link.failed") == 1
    keeper.kernel.trouble = peace
    clock.forward(61)
    keeper.retry()
    assert keeper.events() == ["link.connected"]


def test_the_fields_of_an_event() -> None:
    keeper = told(FIRST)
    (entry,) = (each for each in keeper.log if each.get("link") == "v0:v1")
    assert (entry["a"], entry["b"], entry["trigger"]) == ("v0", "v1", "start")
    assert entry["a_ifindex"] == keeper.kernel.index("v0")
    assert entry["b_ifindex"] == keeper.kernel.index("v1")
    assert entry["mode"] == "generic"
    assert "veth" in entry["reason"]
    assert entry["config_hash"] == FIRST.hash
    assert entry["duration_ms"] >= 0
    assert entry["log_level"] == "info"


def test_what_happens_to_a_program_of_an_end_that_is_down_is_found_without_news() -> None:
    """By looking at a few of them in each tick, in turn."""
    kernel = Kernel()
    names = [f"v{number}" for number in range(40)]
    for name in names:
        kernel.add(name)
    keeper = Keeper(kernel).start(wiring(*(f"{name}:{name}" for name in names)))
    for name in names:
        kernel.alter(name, up=False)
    keeper.settle()
    kernel.unload("v7")
    kernel.load_foreign("v38")
    kernel.news.clear()
    for _ in range(3):
        keeper.tick()
    assert keeper.state("v7:v7") == "down"
    assert [xdp.program for xdp in kernel.get("v7").xdp] == [XDP]
    assert keeper.state("v38:v38") == "failed"


def test_an_operators_down_is_not_undone() -> None:
    keeper = told(FIRST)
    strike("set down")(keeper)
    assert not keeper.kernel.get("v0").up
    assert keeper.state("v0:v1") == "down"


def test_an_operators_down_is_not_undone_by_a_repair() -> None:
    keeper = told(FIRST)
    strike("set down")(keeper)
    strike("rid of its program")(keeper)
    assert keeper.kernel.wired("v0", "v1")
    assert not keeper.kernel.get("v0").up


@pytest.mark.parametrize("one", [link("x", "x"), link("x", "v1", enabled=False)])
def test_an_altname_that_is_taken_off_is_noticed(one: Link) -> None:
    """No entry leads from the end to another one, and no name to the link."""
    kernel = lab()
    kernel.alter("v0", altnames=("x",))
    keeper = Keeper(kernel).start(wiring(one))
    kernel.alter("v0", altnames=())
    keeper.settle()
    assert keeper.states() == {one.id: "waiting" if one.enabled else "disabled"}
    assert kernel.untouched("v0")


def test_a_new_name_of_an_end_is_no_drift() -> None:
    kernel = lab()
    kernel.alter("v0", altnames=("uplink",))
    keeper = Keeper(kernel).start(wiring("uplink:v1"))
    keeper.events()
    kernel.alter("v0", name="v9")
    keeper.settle()
    assert keeper.state("uplink:v1") == "connected"
    assert keeper.events() == []


def test_the_order_of_the_file_counts_also_when_nothing_else_changes() -> None:
    """Of two links with one interface the later one fails; a full look agrees with a narrow one."""
    kernel = lab()
    kernel.alter("v0", altnames=("uplink",))
    keeper = Keeper(kernel).start(wiring("v0:v1", "uplink:v2"))
    assert keeper.states() == {"v0:v1": "connected", "uplink:v2": "failed"}
    keeper.take(wiring("uplink:v2", "v0:v1"))
    states = keeper.states()
    keeper.reconciler.run(None, "signal")
    assert keeper.states() == states


def test_a_foreign_program_is_never_touched() -> None:
    keeper = told(FIRST)
    strike("given a foreign program")(keeper)
    assert [xdp.program for xdp in keeper.kernel.get("v0").xdp] == [FOREIGN]
    assert f"id {FOREIGN}" in keeper.reconciler.statuses["v0:v1"].reason
    assert keeper.kernel.is_held("v1")
    strike("rid of its program")(keeper)
    assert keeper.state("v0:v1") == "connected"


@pytest.mark.parametrize("mode", [Mode.GENERIC, Mode.TC])
@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_a_foreign_filter_in_our_own_place_is_never_replaced(mode: Mode, direction: str) -> None:
    kernel = lab()
    somebody = Filter("bpf", 1, 1, FOREIGN, "somebody")
    kernel.alter("v0", qdisc="clsact", **{direction: (somebody,)})
    Keeper(kernel).start(wiring(link("v0", "v1", mode=mode)))
    assert somebody in getattr(kernel.get("v0"), direction)


def test_a_closing_daemon_names_what_it_could_not_do() -> None:
    keeper = told(FIRST)
    keeper.kernel.trouble = refuse_verb("detach", keeper.kernel.index("v0"))
    (problem,) = keeper.reconciler.detach("signal")
    assert "detach" in problem


def test_named_ends_are_detached_with_their_partners_alone() -> None:
    keeper = told(FIRST)
    detaching = Keeper(keeper.kernel, keeper.book)
    assert detaching.reconciler.detach("command", ["v1"]) == []
    assert keeper.kernel.untouched("v0")
    assert keeper.kernel.wired("nic0", "tap0")


def test_named_ends_are_detached_alone_also_after_one_has_left() -> None:
    keeper = told(wiring("v0:v1", "v2:v3"))
    kernel = keeper.kernel
    kernel.send_away("v0", nsid=3)
    for each in kernel.news:
        if each.gone:
            keeper.netns_moves.note(each.ifindex, each.mac, each.nsid, each.new_ifindex)
    detaching = Keeper(kernel, keeper.book)
    assert detaching.reconciler.detach("command", ["v1"]) == []
    assert kernel.untouched("v1")
    assert kernel.wired("v2", "v3")


def test_a_look_changes_nothing() -> None:
    keeper = told(FIRST)
    keeper.kernel.trouble = peace
    keeper.reconciler.want(SECOND)
    assert keeper.reconciler.look().actions
    assert keeper.kernel.steps == []


def test_a_clsact_with_somebody_elses_filter_stays() -> None:
    keeper = told(FIRST)
    kernel = keeper.kernel
    somebody = Filter("bpf", 49152, 1, FOREIGN, "somebody")
    kernel.alter("v0", egress=(*kernel.get("v0").egress, somebody))
    keeper.take(Wiring())
    now = kernel.get("v0")
    assert (now.qdisc, now.ingress, now.egress) == ("clsact", (), (somebody,))


def test_drivers_are_listened_to_from_the_first_native_link_on() -> None:
    keeper = told(FIRST)
    keeper.kernel.add("nic1", "nic")
    assert not keeper.kernel.listens
    keeper.take(wiring("v0:v1", "nic0:nic1"))
    assert keeper.kernel.listens


def test_an_older_program_that_cannot_be_named_is_taken_off_first() -> None:
    keeper = told(FIRST)
    keeper.kernel.load_older("v0")
    keeper.kernel.opened.discard(OLDER)
    keeper = keeper.restart()
    assert [xdp.program for xdp in keeper.kernel.get("v0").xdp] == [XDP]


@pytest.mark.parametrize("after", [Wiring(), FIRST], ids=["detached", "attached anew"])
def test_a_foreign_program_that_comes_between_look_and_action_stays(after: Wiring) -> None:
    """Over the last user of an older program of ours: that is freed and can be named no more."""
    keeper = told(FIRST)
    kernel = keeper.kernel
    kernel.load_older("v0")
    kernel.opened.discard(OLDER)
    kernel.alter("v0", mtu=1500)  # something to be done before it is attached anew

    def force(_number: int, _step: Step) -> None:
        if any(xdp.program == OLDER for xdp in kernel.get("v0").xdp):
            kernel.alter("v0", xdp=(Xdp("generic", FOREIGN),))

    kernel.trouble = force
    keeper.reconciler.want(after)
    keeper.reconciler.run(None, "config")
    assert [xdp.program for xdp in kernel.get("v0").xdp] == [FOREIGN]


def test_scopes_add_up() -> None:
    links = frozenset((link("a", "b"),))
    assert Scope(links) | Scope(ifindexes=frozenset((5,))) == Scope(links, frozenset((5,)))
    assert not Scope()
