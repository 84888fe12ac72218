"""The reconciler on the fake kernel: steps that fail, crashes, news, retries, and what it logs."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from builders import FOREIGN, XDP, link, wiring
from driven import Clock, Keeper, set_clock
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from kernel import OLDER, Crash, Kernel, Step, crash, no_trouble, refuse, refuse_verb
from worlds import ACCIDENTS, Accident, Port, accidents, assert_as_evaluated, build, ports, wirings

from xconnectd.model import Carrier, Filter, Link, Mode, Scope, Wiring, Xdp
from xconnectd.monitor_address import MonitorAddress
from xconnectd.netlink.monitor import Event
from xconnectd.reconcile import link_state, retry
from xconnectd.reconcile.observer import Index

LAWS = settings(
    max_examples=40,
    phases=set(Phase) - {Phase.target, Phase.explain},
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return set_clock(monkeypatch)


def lab() -> Kernel:
    """Two veths, a NIC with a down tap, a found clsact with somebody's filter, spare ends."""
    kernel = Kernel("v0", "v1", "v2", "v3")
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
    keeper.kernel.trouble = no_trouble
    keeper.take(after)
    return len(keeper.kernel.steps)


EVERY_STEP = [
    pytest.param(*story, number, id=f"{name}-{number}")
    for name, story in STORIES.items()
    for number in range(number_of_steps(*story))
]


def link_of(keeper: Keeper, ifindex: int) -> str | None:
    name = keeper.kernel.devices[ifindex].name
    links = (each.id for each in keeper.reconciler.wiring.links)
    return next((each for each in links if name in each.split(":")), None)


def works(state: str) -> bool:
    return state in ("connected", "disabled")


# --------------------------------------------------------------------------- a step fails


def assert_as_found_one_day(keeper: Keeper) -> None:
    assert keeper.reconciler.detach("signal") == []
    assert keeper.kernel.snapshot() == lab().snapshot()
    assert not keeper.book.records


@pytest.mark.parametrize(("before", "after", "number"), EVERY_STEP)
def test_one_failing_step_of_any(before: Wiring, after: Wiring, number: int, clock: Clock) -> None:
    keeper = told(before)
    keeper.kernel.trouble = refuse(number)
    keeper.take(after)
    refused = keeper.kernel.steps[number]
    broken = {link_of(keeper, refused.ifindex)} - {None}
    states = keeper.states()
    failed = {each for each, state in states.items() if not works(state)}
    if refused.verb in ("count", "hold"):  # of many, each is recorded alone then
        assert failed <= broken
    else:
        assert failed == broken
    assert_as_evaluated(keeper)
    keeper.kernel.trouble = no_trouble
    clock.forward(1.01)
    keeper.retry()
    assert all(map(works, keeper.states().values()))
    assert_as_evaluated(keeper)
    assert_as_found_one_day(keeper)


@pytest.mark.parametrize("verb", ["detach", "set mtu", "set clsact", "set addr_gen_mode"])
def test_what_cannot_be_put_back_now_is_not_forgotten(verb: str, clock: Clock) -> None:
    """The record is the only way back: it stays until the interface is as found."""
    keeper = told(FIRST)
    kernel = keeper.kernel
    kernel.trouble = refuse_verb(verb, kernel.index("v0"))
    keeper.take(wiring("nic0:tap0"))
    assert "detach.failed" in keeper.events()
    assert kernel.index("v0") in keeper.book.records
    (problem,) = keeper.reconciler.detach("signal")
    assert verb in problem
    kernel.trouble = no_trouble
    keeper.settle()
    clock.forward(61)
    keeper.retry()
    keeper.tick()
    assert kernel.untouched("v0")
    assert_as_found_one_day(keeper)


# --------------------------------------------------------------------------- back-off


def stubborn() -> Keeper:
    kernel = lab()
    kernel.trouble = refuse_verb("attach", kernel.index("v1"))
    return Keeper(kernel).start(FIRST)


def test_a_link_that_fails_again_waits_twice_as_long_up_to_a_minute(clock: Clock) -> None:
    """For days: a float overflows when it has been doubled 1,024 times."""
    keeper = stubborn()
    waits = []
    for _ in range(1100):
        due = keeper.reconciler.next_retry()
        assert due is not None
        waits.append(due - clock.now)
        clock.now = due
        keeper.retry()
    assert waits == [1, 2, 4, 8, 16, 32, *[60] * 1094]
    failed = keeper.reconciler.statuses["v0:v1"]
    assert "attach" in failed.reason
    assert "EIO" in failed.reason
    assert keeper.events().count("link.failed") == 1
    keeper.take(wiring("nic0:tap0"))
    assert keeper.reconciler.next_retry() is None


Story = Callable[[Keeper], object]


def after(seconds: float) -> Story:
    return lambda keeper: (keeper.clock.forward(seconds), keeper.retry())


TRIED = {
    "its own undoing": (Keeper.settle, False),
    "news without a change": (lambda it: (it.kernel.alter("v0"), it.settle()), False),
    "a pass over everything": (lambda it: it.reconciler.run(None, "netlink"), False),
    "not yet due": (after(0.9), False),
    "due": (after(1.01), True),
    "an end that changed": (lambda it: (it.kernel.alter("v1", mtu=1400), it.settle()), True),
    "an edited link": (lambda it: it.take(wiring(link("v0", "v1", description="x"))), True),
    "somebody asks": (lambda it: (it.reconciler.hurry(), it.retry()), True),
}


@pytest.mark.parametrize(("story", "is_reason"), TRIED.values(), ids=TRIED)
def test_what_is_a_reason_to_try_again(story: Story, *, is_reason: bool) -> None:
    keeper = stubborn()
    keeper.kernel.trouble = no_trouble
    story(keeper)
    assert keeper.state("v0:v1") == ("connected" if is_reason else "failed")
    assert bool(keeper.kernel.steps) == is_reason


# --------------------------------------------------------------------------- native XDP refused


def nics(kernel: Kernel) -> Wiring:
    kernel.add("nic1", "nic")
    kernel.trouble = refuse_verb("attach", kernel.index("nic1"), errno.ERANGE)
    return wiring("nic0:nic1")


def test_what_a_driver_refuses_natively_goes_by_tc_until_another_mtu() -> None:
    """Nothing native is left then; a start, a tick or a change elsewhere is no reason to ask."""
    kernel = lab()
    keeper = Keeper(kernel).start(nics(kernel))
    standing = keeper.reconciler.statuses["nic0:nic1"]
    assert (standing.state, standing.mode) == ("connected", Mode.TC)
    assert "ERANGE" in standing.mode_reason
    assert "at MTU 1500" in standing.mode_reason
    assert not kernel.devmap
    assert not any(kernel.get(name).xdp for name in ("nic0", "nic1"))
    assert keeper.settle() <= 2
    assert_as_evaluated(keeper)
    kernel.trouble = kernel.trouble  # counts anew
    keeper = keeper.restart()
    keeper.take(wiring("nic0:nic1", "v0:v1"))
    assert Step("attach", kernel.index("nic1")) not in kernel.steps
    kernel.trouble = no_trouble
    kernel.alter("nic1", mtu=1400)
    keeper.settle()
    standing = keeper.reconciler.statuses["nic0:nic1"]
    assert (standing.state, standing.mode) == ("connected", Mode.NATIVE)
    assert {xdp.mode for name in ("nic0", "nic1") for xdp in kernel.get(name).xdp} == {"native"}
    kernel = lab()
    nics(kernel)
    keeper = Keeper(kernel).start(wiring(link("nic0", "nic1", mode=Mode.NATIVE)))
    standing = keeper.reconciler.statuses["nic0:nic1"]
    assert (standing.state, standing.mode) == ("failed", Mode.NATIVE), "who asks gets no other"
    assert "ERANGE" in standing.reason
    assert_as_evaluated(keeper)


# --------------------------------------------------------------------------- crashes


@pytest.mark.parametrize(("before", "after", "number"), EVERY_STEP)
def test_a_start_after_any_crash_mends_all(before: Wiring, after: Wiring, number: int) -> None:
    keeper = told(before)
    keeper.kernel.trouble = crash(number)
    with pytest.raises(Crash):
        keeper.take(after)
    keeper.kernel.trouble = no_trouble
    keeper = keeper.restart()
    assert all(map(works, keeper.states().values())), keeper.states()
    assert_as_evaluated(keeper)
    assert keeper.reconciler.look().actions == ()
    assert_as_found_one_day(keeper)


@LAWS
@given(
    all_ports=ports,
    here=wirings,
    there=wirings,
    numbers=st.sets(st.integers(0, 60), min_size=1, max_size=3),
    late=st.integers(0, 60),
    dies=st.booleans(),
)
def test_a_crash_or_failures_anywhere_in_any_rewiring_leave_whole_links_and_a_way_back(
    all_ports: tuple[Port, ...],
    here: Wiring,
    there: Wiring,
    numbers: set[int],
    late: int,
    *,
    dies: bool,
) -> None:
    """Steps of the undoing may fail, too; after a crash on the way out the next end finishes it."""
    kernel = build(all_ports)
    found = kernel.snapshot()
    keeper = Keeper(kernel).start(here)
    kernel.trouble = crash(min(numbers)) if dies else refuse(*numbers)
    with suppress(Crash):
        keeper.take(there)
    kernel.trouble = no_trouble
    keeper = keeper.restart() if dies else keeper
    assert_as_evaluated(keeper)
    kernel.trouble = crash(late)
    with suppress(Crash):
        keeper.reconciler.detach("signal")
    kernel.trouble = no_trouble
    keeper = Keeper(kernel, keeper.book)
    assert keeper.reconciler.detach("signal") == []
    assert (kernel.snapshot(), keeper.book.records) == (found, {})


def blind_start(keeper: Keeper) -> Keeper:
    """As the daemon does without a good file: what stands is what is wanted."""
    blind = Keeper(keeper.kernel, keeper.book)
    return blind.start(wiring(*blind.reconciler.found()))


@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.GENERIC, Mode.TC])
def test_a_start_changes_nothing_of_what_stands_also_without_a_good_file(mode: Mode) -> None:
    """Without one a disabled link stays so, and of an end that is held no wire is made."""
    off, held = link("v3", "tap0", mode=mode, enabled=False), link("v2", "v9", mode=mode)
    wanted = wiring(link("v0", "v1", mode=mode), off, link("nic0", "nic0", enabled=False), held)
    keeper = told(wanted)
    kernel, before = keeper.kernel, keeper.kernel.snapshot()
    kernel.trouble = no_trouble
    keeper = keeper.restart()
    blind = blind_start(keeper)
    states = {"v0:v1": "connected", off.id: "disabled", "nic0:nic0": "disabled"}
    assert blind.states() == {**states, "v2:v2": "disabled"}
    blind.take(wanted)
    assert (blind.states(), kernel.steps) == ({**states, "v2:v9": "waiting"}, [])
    assert kernel.snapshot() == before
    blind = blind_start(keeper)
    kernel.add("v9")
    blind.settle()
    assert kernel.is_held("v2")
    assert kernel.untouched("v9")
    blind.take(wiring(replace(off, enabled=True), held))
    assert kernel.wired("v2", "v9")
    assert kernel.wired("v3", "tap0")
    assert kernel.untouched("v0")
    assert kernel.untouched("nic0")


def test_a_start_without_a_good_file_holds_the_ends_of_a_half_wire() -> None:
    keeper = told(FIRST)
    keeper.kernel.lose_entry("v0")
    blind = blind_start(keeper)
    assert keeper.kernel.black_holes() == {"v0", "v1"}
    blind.take(FIRST)
    assert keeper.kernel.wired("v0", "v1")


@pytest.mark.parametrize("case", ["pinned", "known by the ledger", "freed"])
def test_an_older_program_is_replaced_at_the_start(case: str) -> None:
    """One that is pinned no more is ours by the ledger; one that is freed is taken off first."""
    keeper = told(FIRST)
    kernel = keeper.kernel
    kernel.load_older("v0")
    if case == "known by the ledger":
        keeper.book.know_programs(frozenset((92,)))
        kernel.alter("v0", xdp=(Xdp("generic", 92),))
    elif case == "freed":
        kernel.opened.discard(OLDER)
    keeper = keeper.restart()
    assert keeper.state("v0:v1") == "connected"
    assert [xdp.program for xdp in kernel.get("v0").xdp] == [XDP]


# --------------------------------------------------------------------------- news


@LAWS
@given(all_ports=ports, wanted=wirings, mishaps=accidents(at_most=6), burst=st.booleans())
@example(
    all_ports=(Port("veth", True, 1500, ""),) * 8,
    wanted=wiring("e0:e1"),
    mishaps=[Accident("deleted", "e0")],
    burst=False,
)
@example(
    all_ports=(Port("veth", False, 1400, ""),) * 8,
    wanted=wiring(link("e0", "e0"), link("e2", "e2", enabled=False)),
    mishaps=[
        Accident("deleted", "e0"),
        Accident("given a missing one's altname", "e2"),
        Accident("deleted", "e0"),
    ],
    burst=False,
)
def test_a_narrow_look_finds_what_a_full_one_would(
    all_ports: tuple[Port, ...],
    wanted: Wiring,
    mishaps: list[Accident],
    clock: Clock,
    *,
    burst: bool,
) -> None:
    """One by one or in a burst. A failed link that nobody holds may take until its next try."""
    keeper = Keeper(build(all_ports)).start(wanted)
    for left, accident in enumerate(mishaps, 1 - len(mishaps)):
        accident.strike(keeper.kernel)
        if burst and left:
            continue
        keeper.settle()
        keeper.tick()
        clock.forward(61)
        keeper.retry()
        keeper.settle()
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
    """Nor is all read for one, or another link touched, but where a renewal calls for it."""
    keeper = four("e2:e3", "e4:e5", one)
    kernel, dumps = keeper.kernel, keeper.kernel.dumps
    kernel.trouble = no_trouble
    strike(accident, "e0")(keeper)
    needs_all = {"moved away", "rid of its entry", "left with an older program"}
    assert accident in needs_all or kernel.dumps == dumps
    others = {kernel.index("e2"), kernel.index("e3")}
    assert accident == "moved away" or others.isdisjoint(step.ifindex for step in kernel.steps)
    assert_nothing_is_missed(keeper)


def assert_nothing_is_missed(keeper: Keeper) -> None:
    assert keeper.reconciler.look().actions == ()
    assert keeper.states() == states_seen(keeper)
    assert not keeper.reconciler.has_drifted()
    assert_as_evaluated(keeper)


def states_seen(keeper: Keeper) -> dict[str, str]:
    """What a full look finds now."""
    seen = keeper.reconciler.look()
    judged = ((each, link_state.assess(each, seen.observed)) for each in seen.evaluations)
    return {evaluation.link.id: str(found.state) for evaluation, found in judged}


def test_what_forwards_nothing_gets_the_new_programs_too() -> None:
    """A disabled link has no entry in an older map, which would call for a full pass."""
    keeper = four(link("e0", "e0", enabled=False), link("e1", "e1", enabled=False))
    strike("moved away", "e0")(keeper)
    assert keeper.reconciler.look().actions == ()


@LAWS
@given(all_ports=ports, here=wirings, there=wirings)
def test_edits_need_no_full_look(all_ports: tuple[Port, ...], here: Wiring, there: Wiring) -> None:
    keeper = Keeper(build(all_ports)).start(here)
    dumps = keeper.kernel.dumps
    keeper.take(there)
    assert keeper.kernel.dumps == dumps
    states = keeper.states()
    keeper.reconciler.run(None, "signal")
    assert keeper.states() == states
    assert keeper.reconciler.look().actions == ()


@LAWS
@given(series=st.lists(wirings, min_size=2, max_size=6))
def test_what_is_known_of_links_after_some_edits_is_what_a_new_daemon_would_know(
    series: list[Wiring],
) -> None:
    """Links that stay are the same objects, as when a few lines of a file are edited."""
    monitor = MonitorAddress.parse("qmp:/run/m.sock#net0")
    seen: dict[Link, Link] = {}
    keeper = Keeper(Kernel())
    for each in series:
        links = [replace(x, monitors=((x.a.name, monitor),) * x.one_way) for x in each.links]
        links = [seen.setdefault(x, x) for x in links]
        keeper.reconciler.want(Wiring(tuple(links)))
        known, new = keeper.reconciler._index, Index(Wiring(tuple(links)))
        assert known.by_name == new.by_name
        assert known.ids == new.ids
        assert known.in_order(reversed(links)) == links
        assert keeper.reconciler.monitored == {x for x in links if x.one_way}


def four(*wanted: Link | str) -> Keeper:
    kernel = Kernel("e0", "e1", "e2", "e3")
    return Keeper(kernel).start(wiring(*wanted))


def test_a_start_that_adopts_asks_for_all_interfaces_once() -> None:
    keeper = four("e0:e1", "e2:e3")
    keeper.kernel.dumps, keeper.kernel.trouble = 0, no_trouble
    keeper.restart()
    assert (keeper.kernel.dumps, keeper.kernel.steps) == (1, [])


def test_news_of_some_among_many_are_no_dump() -> None:
    """Of ends that come up the kernel tells a hundred a second, for minutes (linkwatch)."""
    names = [f"v{number}" for number in range(310)]
    kernel = Kernel(*names)
    keeper = Keeper(kernel).start(wiring(*(f"{name}:{name}" for name in names)))
    dumps = kernel.dumps
    for name in names[:110]:
        kernel.alter(name, up=False)
    keeper.settle()
    assert kernel.dumps == dumps
    assert [*keeper.states().values()].count("down") == 110


def test_a_flood_of_news_is_one_dump_and_what_makes_none_is_found_in_turn() -> None:
    """Programs of ends that are down are looked at, a few in each tick."""
    names = [f"v{number}" for number in range(110)]
    kernel = Kernel(*names)
    keeper = Keeper(kernel).start(wiring(*(f"{name}:{name}" for name in names)))
    dumps = kernel.dumps
    for name in names:
        kernel.alter(name, up=False)
    keeper.settle()
    assert kernel.dumps > dumps
    assert set(keeper.states().values()) == {"down"}
    kernel.unload("v7")
    kernel.load_foreign("v38")
    kernel.news.clear()
    for _ in range(7):
        keeper.tick()
    assert keeper.state("v7:v7") == "down"
    assert [xdp.program for xdp in kernel.get("v7").xdp] == [XDP]
    assert keeper.state("v38:v38") == "failed"


def during(kernel: Kernel, happens: Callable[[], object]) -> None:
    """It happens at the first step of the next pass that takes any."""

    def trouble(number: int, _step: Step) -> None:
        if number == 0:
            happens()

    kernel.trouble = trouble


def test_what_happens_to_another_link_during_a_pass_is_another_pass() -> None:
    """What the pass itself changed is none."""
    keeper = told(FIRST)
    before = keeper.reconciler.tally.count
    keeper.take(SECOND)
    assert (keeper.settle(), keeper.reconciler.tally.count) == (0, before + 1)
    keeper.take(FIRST)
    keeper.events()
    during(keeper.kernel, lambda: keeper.kernel.alter("nic0", promiscuous=False))
    keeper.take(wiring("v0:v2", "nic0:tap0"))
    assert keeper.kernel.get("nic0").promiscuous
    assert keeper.reconciler.tally.count == before + 4
    assert [(each["event"], each["link"]) for each in keeper.log if "link" in each] == [
        ("link.rewired", "v0:v2"),
        ("drift.repaired", "nic0:tap0"),
    ]


def test_what_happens_after_the_last_look_is_another_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = told(wiring("v0:v1"))
    assess = link_state.assess

    def at_the_end(*seen: Any) -> link_state.LinkStatus:
        monkeypatch.setattr(link_state, "assess", assess)
        keeper.kernel.alter("v0", mtu=1300)
        return assess(*seen)

    monkeypatch.setattr(link_state, "assess", at_the_end)
    keeper.take(wiring("v0:v2"))
    assert keeper.kernel.get("v0").mtu == 1300
    assert keeper.settle() == 1
    assert_nothing_is_missed(keeper)


@pytest.mark.parametrize(("before", "after"), [("v3", "v0:v0"), ("alt", "v0:v2")])
@pytest.mark.parametrize("looked", [False, True])
def test_a_lost_altname_is_noticed_around_a_pass(before: str, after: str, looked: bool) -> None:
    """Before its first look, of which the news comes in the pass, or in the middle of it."""
    kernel = lab()
    kernel.alter("v2", altnames=("alt",))
    other = f"alt:{before}"
    keeper = Keeper(kernel).start(wiring("v0:v1", other))

    def lose() -> None:
        kernel.meanwhile = lambda: None
        kernel.alter("v2", altnames=())

    if looked:
        during(kernel, lose)
    else:
        kernel.meanwhile = lose
    keeper.take(wiring(after, other))
    keeper.settle()
    assert keeper.states() == {after: "connected", other: "waiting"}
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


Harm = Callable[[Kernel, int], object]
OVER: dict[str, Harm] = {
    "the MTU": lambda kernel, number: kernel.alter("v0", mtu=1300 + number),
    "clsact": lambda kernel, _: kernel.drop_filters("v0"),
    "the program": lambda kernel, _: kernel.unload("v0"),
}


def flap(harm: Harm = OVER["the MTU"]) -> Keeper:
    """Somebody undoes what we do, again and again, until the link is held off."""
    keeper = told(FIRST)
    for number in range(retry.FLAPPING_REPAIRS + 1):
        harm(keeper.kernel, number)
        keeper.settle()
    assert keeper.events().count("drift.flapping") == 1
    return keeper


def test_what_is_left_undone_is_known_until_it_is_done() -> None:
    """A pass over other links does not change it."""
    keeper = told(FIRST)
    assert keeper.reconciler.undone == ()
    keeper = flap()
    keeper.kernel.alter("v0", mtu=1350)
    keeper.settle()
    for others in ("v2:v3", "v3:v3"):
        assert {each.interface.name for each in keeper.reconciler.undone} == {"v0"}
        keeper.take(wiring("v0:v1", others))
    keeper.reconciler.run(None, "signal")
    assert keeper.reconciler.undone == ()


@pytest.mark.parametrize("harm", OVER.values(), ids=OVER)
def test_in_a_hold_off_frames_are_forwarded(harm: Harm) -> None:
    keeper = flap(harm)
    for number in range(3):
        harm(keeper.kernel, 20 + number)
        keeper.settle()
        assert keeper.kernel.wired("v0", "v1"), number
        assert keeper.state("v0:v1") == "connected"
    assert "link.failed" not in keeper.events()


@pytest.mark.parametrize(
    "end", [after(61), lambda keeper: keeper.reconciler.run(None, "signal")], ids=["over", "asked"]
)
def test_in_a_hold_off_settings_are_left_alone_and_afterwards_ours_again(end: Story) -> None:
    """Those of a new end are made whole."""
    keeper = flap()
    kernel = keeper.kernel
    kernel.alter("v0", mtu=1350)
    kernel.delete("v1")
    kernel.add("v1", up=False)
    keeper.settle()
    assert keeper.state("v0:v1") == "connected"
    assert kernel.index("v1") in keeper.book.records
    assert (kernel.get("v0").mtu, kernel.get("v1").mtu) == (1350, 65535)
    end(keeper)
    assert kernel.get("v0").mtu == 65535
    keeper.take(Wiring())
    assert kernel.get("v0").mtu == 1350


def test_in_a_hold_off_an_end_that_is_set_down_for_its_far_end_is_set_up_again() -> None:
    """What was changed without a record would be taken for an operator's."""
    keeper = flap()
    for up in (False, True):
        far = keeper.kernel.get("v1").far
        assert far, "it is a veth"
        keeper.kernel.alter("v1", far=far._replace(up=up))
        keeper.settle()
        assert keeper.kernel.get("v0").up is up
    assert keeper.state("v0:v1") == "connected"


# --------------------------------------------------------------------------- ends that are held


WAITING = wiring("v0:v9", "tap0:tap9")


def test_an_end_that_waits_is_held_and_wired_by_its_entry_alone() -> None:
    """Of a wire whose partner comes again, that is; what was set for it is kept meanwhile."""
    keeper = told(FIRST)
    kernel = keeper.kernel
    before = kernel.get("v0")
    strike("deleted", "v1")(keeper)
    assert (keeper.state("v0:v1"), kernel.is_held("v0")) == ("waiting", True)
    assert kernel.get("v0") == before._replace(up=False), "no carrier is shown"
    keeper.events()
    for accident in ("rid of its program", "rid of clsact"):
        strike(accident)(keeper)
        assert (kernel.is_held("v0"), keeper.events()) == (True, ["drift.repaired"])
        assert kernel.get("v0") == before._replace(up=False)
    kernel.add("v1")
    kernel.trouble = no_trouble
    keeper.settle()
    assert kernel.wired("v0", "v1")
    steps = {each.verb for each in kernel.steps if each.ifindex == kernel.index("v0")}
    assert steps == {"point", "steer", "hold", "count", "set up"}


def test_an_end_found_down_is_set_up_with_its_link_and_not_before() -> None:
    """One that is set down while it is held stays down."""
    keeper = told(wiring(link("v0", "v9", carrier=Carrier.INDEPENDENT), "tap0:tap9"))
    kernel = keeper.kernel
    assert kernel.is_held("tap0")
    assert not kernel.get("tap0").up
    strike("set down")(keeper)
    keeper = keeper.restart()
    kernel.add("tap9")
    kernel.add("v9")
    keeper.settle()
    assert kernel.get("tap0").up
    assert keeper.state("v0:v9") == "down"
    strike("deleted", "tap9")(keeper)
    assert kernel.get("tap0").up, "its partner may be back at once"
    keeper.take(Wiring())
    assert not kernel.get("tap0").up


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("use", ["address", "master"])
def test_an_end_that_is_held_is_detached_when_the_host_uses_it(use: str, enabled: bool) -> None:
    """Nothing crosses it, so there is nothing to keep running; a lock-out there would be."""
    keeper = told(wiring(link("v0", "v9", enabled=enabled), "tap0:tap9"))
    kernel = keeper.kernel
    if use == "address":
        kernel.addressed[kernel.index("v0")] = ("it has the address 192.0.2.1/24",)
        kernel.news.append(Event(kernel.index("v0")))
    else:
        kernel.alter("v0", master=3, master_kind="bridge")
    keeper.settle()
    assert kernel.untouched("v0")
    assert keeper.state("v0:v9") == ("waiting" if enabled else "disabled")
    (warning,) = keeper.reconciler.statuses["v0:v9"].warnings
    assert "left to the host" in warning
    kernel.addressed.clear()
    kernel.alter("v0", master=0, master_kind="")
    keeper.settle()
    assert kernel.is_held("v0")


@pytest.mark.parametrize("wanted", [WAITING, FIRST])
def test_what_a_router_taught_the_host_is_removed_when_the_end_is_taken(wanted: Wiring) -> None:
    """Once, and told; nothing is taught there from then on. One behind a NIC is the host's own."""
    kernel = lab()
    kernel.advertise("v0")
    kernel.advertise("nic0")
    keeper = Keeper(kernel).start(wanted)
    (told,) = (each for each in keeper.log if each["event"] == "interface.ra_removed")
    assert (told["interface"], told["ifindex"]) == ("v0", kernel.index("v0"))
    assert "the default route uses it" in told["reason"]
    keeper.events()
    strike("met by a router")(keeper)
    assert (kernel.taught.keys(), keeper.events()) == ({kernel.index("nic0")}, [])
    assert kernel.untouched("nic0")
    assert wanted is WAITING or keeper.state("nic0:tap0") == "failed"


def test_an_address_that_goes_frees_the_end_at_once() -> None:
    """Its number is in no record then, and the news carries no name; its partner is held."""
    kernel = lab()
    kernel.addressed[kernel.index("v1")] = ("it has the address 192.0.2.1/24",)
    keeper = Keeper(kernel).start(FIRST)
    assert (keeper.state("v0:v1"), keeper.reconciler.loose) == ("failed", {"v0:v1"})
    assert (kernel.is_held("v0"), kernel.untouched("v1")) == (True, True)
    kernel.addressed.clear()
    kernel.news.append(Event(kernel.index("v1")))
    keeper.settle()
    assert (keeper.state("v0:v1"), keeper.reconciler.loose) == ("connected", set())


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
    kernel.trouble = no_trouble
    keeper.settle()
    assert kernel.steps == []
    clock.forward(1.01)
    keeper.retry()
    assert (keeper.state("v0:v9"), kernel.is_held("v0")) == ("waiting", True)


# --------------------------------------------------------------------------- what is logged


def strike(accident: str, name: str = "v0") -> Story:
    def story(keeper: Keeper) -> None:
        Accident(accident, name).strike(keeper.kernel)
        keeper.settle()
        keeper.tick()

    return story


def in_turn(*stories: Story) -> Story:
    return lambda keeper: [story(keeper) for story in stories]


def file(*links: str) -> Story:
    return lambda keeper: keeper.take(wiring(*links))


LOGGED = {
    "a link more": (file("v0:v1", "nic0:tap0", "v2:v3"), ["link.connected"]),
    "a link less": (file("nic0:tap0"), ["link.disconnected"]),
    "a link moved": (file("v0:v2", "nic0:tap0"), ["link.rewired"]),
    "nothing": (file("v1:v0", "tap0:nic0"), []),
    "an end gone": (strike("deleted"), ["link.waiting", "carrier.hidden"]),
    "an end made anew": (strike("recreated"), ["link.connected"]),
    "set down": (strike("set down"), ["link.down", "carrier.hidden"]),
    "set down and up": (
        in_turn(strike("set down"), strike("set up")),
        ["link.down", "carrier.hidden", "link.up", "carrier.shown"],
    ),
    "a program gone": (strike("rid of its program"), ["drift.repaired"]),
    "an entry gone": (strike("rid of its entry"), ["drift.repaired"]),
    "clsact gone": (strike("rid of clsact"), ["drift.repaired"]),
    "an MTU": (strike("given another MTU"), ["drift.repaired"]),
    "a program in the way": (strike("given a foreign program"), ["link.failed", "carrier.hidden"]),
    "a port": (strike("made a port"), ["link.warning"]),
    "a tap that got offloads": (strike("given offloads", "tap0"), []),
}


@pytest.mark.parametrize(("story", "events"), LOGGED.values(), ids=LOGGED)
def test_one_event_per_change(story: Story, events: list[str]) -> None:
    keeper = told(FIRST)
    first, second = (each for each in keeper.log if "link" in each)
    assert (first["event"], second["event"]) == ("link.connected", "link.connected")
    assert (first["trigger"], first["log_level"]) == ("start", "info")
    assert (first["config_hash"], first["duration_ms"] >= 0) == (FIRST.hash, True)
    keeper.events()
    story(keeper)
    found = [name for name in keeper.events() if not name.startswith(("config.", "daemon."))]
    assert found == events


def test_what_may_be_meant_is_known_until_it_is_gone() -> None:
    """Also after the news of what our own steps did."""
    kernel = lab()
    kernel.add("x5-eth1")
    keeper = Keeper(kernel).start(wiring("v0:x5-eth1"))
    keeper.take(wiring("v0:x5-eht1"))
    for meant in ("did you mean x5-eth1?", ""):
        kernel.alter("v0")
        keeper.settle()
        assert keeper.reconciler.statuses["v0:x5-eht1"].hint == meant
        if meant:
            kernel.delete("x5-eth1")


def test_an_operators_down_is_not_undone_not_even_by_a_repair() -> None:
    keeper = told(FIRST)
    strike("set down")(keeper)
    strike("rid of its program")(keeper)
    assert (keeper.state("v0:v1"), keeper.kernel.wired("v0", "v1")) == ("down", True)


def test_a_foreign_program_is_never_touched() -> None:
    keeper = told(FIRST)
    strike("given a foreign program")(keeper)
    assert [xdp.program for xdp in keeper.kernel.get("v0").xdp] == [FOREIGN]
    assert f"id {FOREIGN}" in keeper.reconciler.statuses["v0:v1"].reason
    assert keeper.kernel.is_held("v1")
    strike("rid of its program")(keeper)
    assert keeper.state("v0:v1") == "connected"


@pytest.mark.parametrize("one", [link("x", "x"), link("x", "v1", enabled=False)])
def test_an_altname_that_is_taken_off_is_noticed_and_a_new_name_is_no_drift(one: Link) -> None:
    """No entry leads from the end to another one, and no name to the link."""
    kernel = lab()
    kernel.alter("v0", altnames=("x",))
    keeper = Keeper(kernel).start(wiring(one))
    keeper.events()
    kernel.alter("v0", name="v9")
    keeper.settle()
    assert (keeper.state(one.id), keeper.events()) == (
        "connected" if one.enabled else "disabled",
        [],
    )
    kernel.alter("v0", name="v0", altnames=()) if kernel.has("v0") else kernel.alter(
        "v9", altnames=()
    )
    keeper.settle()
    assert keeper.states() == {one.id: "waiting" if one.enabled else "disabled"}
    assert kernel.untouched("v9")


def test_the_order_of_the_file_counts_also_when_nothing_else_changes() -> None:
    """Of two links with one interface the later one fails; a full look agrees with a narrow one."""
    kernel = lab()
    kernel.alter("v0", altnames=("uplink",))
    keeper = Keeper(kernel).start(wiring("v0:v1", "uplink:v2"))
    assert keeper.states() == {"v0:v1": "connected", "uplink:v2": "failed"}
    keeper.take(wiring("uplink:v2", "v0:v1"))
    assert_nothing_is_missed(keeper)


def test_named_ends_are_detached_with_their_partners_alone() -> None:
    keeper = told(FIRST)
    detaching = Keeper(keeper.kernel, keeper.book)
    assert detaching.reconciler.detach("command", ["v1"]) == []
    assert keeper.kernel.untouched("v0")
    assert keeper.kernel.wired("nic0", "tap0")


def test_a_look_changes_nothing_and_a_native_link_listens_to_drivers() -> None:
    keeper = told(FIRST)
    keeper.kernel.trouble = no_trouble
    keeper.kernel.add("nic1", "nic")
    keeper.reconciler.want(wanted := wiring("v0:v1", "nic0:nic1"))
    assert keeper.reconciler.look().actions
    assert (keeper.kernel.steps, keeper.kernel.listens) == ([], False)
    keeper.take(wanted)
    assert keeper.kernel.listens


@pytest.mark.parametrize("mode", [Mode.GENERIC, Mode.TC])
@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_a_foreign_filter_is_never_replaced_and_its_clsact_stays(
    mode: Mode, direction: str
) -> None:
    """In our own place, or beside ours."""
    kernel = lab()
    somebody = Filter("bpf", 1, 1, FOREIGN, "somebody")
    kernel.alter("v0", qdisc="clsact", **{direction: (somebody,)})
    keeper = Keeper(kernel).start(wiring(link("v0", "v1", mode=mode), "v2:v3"))
    assert somebody in getattr(kernel.get("v0"), direction)
    somebody = somebody._replace(priority=49152)
    kernel.alter("v2", egress=(*kernel.get("v2").egress, somebody))
    keeper.take(Wiring())
    now = kernel.get("v2")
    assert (now.qdisc, now.ingress, now.egress) == ("clsact", (), (somebody,))


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
