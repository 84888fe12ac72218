"""Ends that are moved to another namespace, with our program on them, and come back."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import NoReturn

import pytest
from builders import link, wiring
from driven import Clock, Keeper, set_clock
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kernel import Crash, Kernel, Step, crash, no_trouble, refuse_verb
from worlds import assert_as_evaluated

from xconnectd.errors import DataplaneError
from xconnectd.model import Mode, Scope, Wiring
from xconnectd.netlink.monitor import Event
from xconnectd.reconcile import retry

TWO = wiring("v0:v1", "v2:v3")
ONE = wiring("v0:v1")


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return set_clock(monkeypatch)


def lab() -> Kernel:
    kernel = Kernel("v0", "v1", "v2", "v3")
    kernel.add("nic0", "nic")
    kernel.add("tap0", "bare tap")
    kernel.news.clear()
    return kernel


def told(wanted: Wiring = ONE) -> Keeper:
    return Keeper(lab()).start(wanted)


def pass_over_all(keeper: Keeper) -> None:
    keeper.reconciler.run(None, "signal")


def assert_as_found_one_day(keeper: Keeper, *names: str | int) -> None:
    """Of interfaces by their names or numbers, each a veth that nothing was done to."""
    keeper.take(Wiring())
    for (now,) in map(keeper.kernel.find, names or ("v0",)):
        assert (now.mtu, now.addr_gen_mode, now.xdp) == (1500, 0, ()), now.name
    assert keeper.book.moved_netns == ()
    assert not keeper.book.records


# --------------------------------------------------------------------------- away


@pytest.mark.parametrize("heard", [True, False])
def test_an_end_that_leaves_is_told_and_its_number_is_free(*, heard: bool) -> None:
    """Also if no daemon ran meanwhile."""
    keeper = told()
    kernel = keeper.kernel
    number = kernel.index("v0")
    kernel.send_away("v0", nsid=3)
    if heard:
        keeper.settle()
    else:
        kernel.news.clear()
        keeper = keeper.restart()
    assert number not in kernel.devmap | kernel.peer_map
    assert (keeper.state("v0:v1"), kernel.is_held("v1")) == ("waiting", True)
    (gone,) = keeper.book.moved_netns
    assert (gone.record.ifindex, gone.nsid, gone.namespace) == (number, 3, "box3")
    assert "interface.moved_netns" in keeper.events()
    kernel.add("v0", ifindex=number)
    keeper.settle()
    assert keeper.state("v0:v1") == "connected"


def test_an_end_that_left_is_told_while_it_runs_a_program_that_nothing_here_runs_any_more() -> None:
    keeper = told(TWO)
    keeper.kernel.send_away("v0", nsid=3)
    keeper.settle()
    pass_over_all(keeper)
    (gone,) = keeper.reconciler.moved_netns()
    assert gone.program not in keeper.kernel.programs.ours
    assert gone.runs_ours


def moved_on(keeper: Keeper, name: str, number: int) -> None:
    """From the namespace 3 to 4, whose owner chooses the number there."""
    kernel = keeper.kernel
    there = kernel.send_away(name, nsid=3)
    device = kernel.elsewhere_[3].pop(there)
    kernel.elsewhere_[4] = {number: device._replace(ifindex=number)}


@pytest.mark.parametrize("dead", [True, False])
def test_a_program_that_left_forwards_nothing_whatever_number_it_gets(dead: bool) -> None:
    keeper = told(TWO)
    kernel = keeper.kernel
    number = kernel.index("v2")
    moved_on(keeper, "v0", number)
    assert kernel.leads_from(number, 4) == "v3", "it is not reported yet"
    if dead:
        kernel.news.clear()
        keeper = keeper.restart()
    keeper.settle()
    assert "drift.repaired" not in keeper.events(), "v2 and v3 have a new program"
    for wanted in (TWO, wiring("v2:v3", "v1:nic0")):
        keeper.take(wanted)
        pass_over_all(keeper)
        assert kernel.leads_from(number, 4) is None
        assert kernel.wired("v2", "v3")
    assert kernel.wired("v1", "nic0")
    kernel.renew()  # and no more: the pass that was to follow was cut short
    keeper.take(wiring("v2:v3", "v1:tap0"))
    assert not kernel.older_forward()
    assert {xdp.program for xdp in kernel.get("v2").xdp} == {kernel.xdp}
    assert kernel.wired("v2", "v3")


def test_a_start_that_misses_an_end_renews_the_programs_before_it_changes_anything() -> None:
    keeper = told(TWO)
    kernel = keeper.kernel
    kernel.send_away("v0", nsid=3)
    kernel.news.clear()
    kernel.trouble = no_trouble
    keeper.restart()
    verbs = [step.verb for step in kernel.steps]
    assert (verbs[0], verbs.count("renew")) == ("renew", 1)


def test_an_end_that_leaves_during_a_pass_is_cut_off_in_it() -> None:
    keeper = told(TWO)
    kernel = keeper.kernel
    number = kernel.index("v2")

    def leaves(step: int, _step: Step) -> None:
        if step == 0:
            moved_on(keeper, "v2", number)

    kernel.trouble = leaves
    keeper.take(wiring("v0:nic0", "v2:v3"))
    assert kernel.leads_from(number, 4) is None
    assert "interface.moved_netns" in keeper.events()
    keeper.settle()
    assert keeper.reconciler.look().actions == ()
    assert_as_evaluated(keeper)


def test_what_left_forwards_nothing_though_an_end_cannot_be_put_back() -> None:
    """That is forgotten when it is deleted."""
    keeper = told(wiring("v0:v1", "v2:v3", "nic0:tap0"))
    kernel = keeper.kernel
    number = kernel.index("nic0")
    kernel.trouble = refuse_verb("set promiscuous", number)
    keeper.take(wiring("v0:v1", "v2:v3"))
    kernel.send_away("v0", nsid=3)
    keeper.settle()
    assert (bool(kernel.older_maps), kernel.older_forward()) == (True, False)
    assert number in keeper.book.records
    kernel.delete("nic0")
    keeper.settle()
    assert number not in keeper.book.records


def test_a_burst_of_moves_renews_the_programs_once() -> None:
    """One that is deleted or leaves without our program calls for nothing."""
    keeper = told(wiring("v0:v1", "v2:tap0", "v3:nic0"))
    kernel = keeper.kernel
    kernel.trouble = no_trouble
    kernel.delete("tap0")
    kernel.unload("v2")
    kernel.send_away("v2", nsid=3)
    keeper.settle()
    assert "renew" not in [step.verb for step in kernel.steps]
    keeper.events()
    kernel.add("v4")
    keeper.take(wiring("v0:v1", "v4:v4", "v3:nic0"))
    for name in ("v0", "v1", "v4"):
        kernel.send_away(name, nsid=3)
    keeper.settle()
    assert [step.verb for step in kernel.steps].count("renew") == 1
    assert kernel.wired("v3", "nic0")
    assert "drift.repaired" not in keeper.events()


@pytest.mark.parametrize("seen", [True, False])
def test_programs_that_cannot_be_renewed_are_told_and_tried_again(clock: Clock, seen: bool) -> None:
    """Also if no look from here reaches the namespace where the end is."""
    keeper = told(TWO)
    kernel = keeper.kernel
    number = kernel.index("v2")
    kernel.trouble = lambda _, step: DataplaneError("load", "no") if step.verb == "renew" else None
    moved_on(keeper, "v0", number)
    hidden = {} if seen else {4: kernel.elsewhere_.pop(4)}
    for _ in range(2):
        keeper.settle()
        pass_over_all(keeper)
    assert keeper.events().count("renewal.failed") == 1
    assert kernel.wired("v2", "v3")
    kernel.trouble = no_trouble
    clock.forward(11)
    keeper.take(wiring("v2:v3"))
    kernel.elsewhere_ |= hidden
    assert kernel.leads_from(number, 4) is None
    pass_over_all(keeper)
    assert len(keeper.book.moved_netns) == seen


def test_a_crash_at_any_step_of_a_move_is_mended_by_the_next_start() -> None:
    at, crashed = 0, True
    while crashed:
        keeper = told(TWO)
        kernel = keeper.kernel
        number = kernel.index("v2")
        moved_on(keeper, "v0", number)
        kernel.trouble = crash(at)
        try:
            keeper.settle()
            crashed = False
        except Crash:
            kernel.trouble = no_trouble
            keeper = keeper.restart()
        assert kernel.leads_from(number, 4) is None
        assert kernel.wired("v2", "v3")
        assert_as_evaluated(keeper)
        at += 1
    assert at > 10


def test_an_end_that_goes_on_to_a_third_namespace_is_followed(clock: Clock) -> None:
    keeper = told()
    kernel = keeper.kernel
    there = kernel.send_away("v0", nsid=3)
    keeper.settle()
    kernel.elsewhere_[4] = {99: kernel.elsewhere_[3].pop(there)._replace(ifindex=99)}
    pass_over_all(keeper)
    (gone,) = keeper.book.moved_netns
    assert (gone.nsid, gone.new_ifindex) == (4, 99)
    del kernel.elsewhere_[4][99]
    pass_over_all(keeper)
    assert keeper.book.moved_netns == (gone,), "it may be on its way"
    clock.forward(6)
    pass_over_all(keeper)
    assert keeper.book.moved_netns == ()


def test_named_ends_are_detached_alone_also_after_one_has_left() -> None:
    keeper = told(TWO)
    kernel = keeper.kernel
    kernel.send_away("v0", nsid=3)
    for each in kernel.news:
        if each.gone:
            keeper.netns_moves.note(each.ifindex, each.mac, each.nsid, each.new_ifindex)
    assert Keeper(kernel, keeper.book).reconciler.detach("command", ["v1"]) == []
    assert kernel.untouched("v1")
    assert kernel.wired("v2", "v3")


# --------------------------------------------------------------------------- reports


def vanished(keeper: Keeper) -> Event:
    """v0 has left; of that only the news that it is down has come. Returns what is still to come.

    The kernel takes a device out first, waits for its readers, and only then says where it went.
    """
    kernel = keeper.kernel
    number = kernel.index("v0")
    kernel.send_away("v0", nsid=3)
    report = kernel.news.pop()
    kernel.news[:] = [Event(number, "v0")]
    keeper.settle()
    assert number not in keeper.book.records
    return report


@pytest.mark.parametrize("meanwhile", [lambda _: None, pass_over_all])
def test_a_report_that_comes_late_is_taken(meanwhile: Callable[[Keeper], None]) -> None:
    keeper = told()
    report = vanished(keeper)
    meanwhile(keeper)
    keeper.kernel.news.append(report)
    keeper.settle()
    (gone,) = keeper.book.moved_netns
    assert (gone.record.ifindex, gone.nsid) == (report.ifindex, 3)
    assert gone.record.changes["mtu"].found == 1500


@pytest.mark.parametrize("late", [True, False])
def test_a_report_is_awaited_once(late: bool) -> None:
    """The number may be another device's by now."""
    keeper = told()
    kernel = keeper.kernel
    number = kernel.index("v0")
    kernel.delete("v0")
    report = kernel.news[-1]
    if late:
        kernel.news[-1] = Event(number, "v0")
        keeper.settle()
        kernel.news.append(report)
    keeper.settle()
    assert not keeper.netns_moves.awaits(number)


def test_a_report_that_comes_in_a_pass_over_others_is_awaited_no_more() -> None:
    keeper = told(TWO)
    kernel, moves = keeper.kernel, keeper.netns_moves
    others = keeper.reconciler.look(Scope(frozenset((link("v0", "v1"),)))).observed
    kernel.send_away("v2")
    report = kernel.news.pop()
    moves.note(report.ifindex, report.mac, report.nsid, report.new_ifindex)
    moves.settle(others)
    moves.note_missing(keeper.reconciler.look().observed)
    assert keeper.book.unreported == ()
    assert [gone.record.name for gone in keeper.book.moved_netns] == ["v2"]


@pytest.mark.parametrize("back", [None, "another number", "the same number"])
def test_a_report_that_a_crash_lost_is_made_up_for_by_the_start(back: str | None) -> None:
    """The end was noted as missing and its record forgotten; it may have come back since."""
    keeper = told()
    report = vanished(keeper)
    if back:
        same = report.ifindex if back == "the same number" else None
        keeper.kernel.bring_back(report.new_ifindex or 0, nsid=3, ifindex=same)
    keeper = keeper.restart()
    known = [gone.record.ifindex for gone in keeper.book.moved_netns]
    assert known == [report.ifindex] * (not back)
    assert keeper.state("v0:v1") == ("connected" if back else "waiting")
    if back:
        assert_as_found_one_day(keeper)


def stopped_dead(*_: object) -> NoReturn:
    raise Crash


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("step", ["namespace_name", "set_moved_netns", "set_unreported"])
def test_a_crash_while_a_report_is_taken_does_not_forget_it(step: str, late: bool) -> None:
    keeper = told()
    kernel = keeper.kernel
    number = kernel.index("v0")
    if late:
        report = vanished(keeper)
        kernel.news.append(report)
    else:
        kernel.send_away("v0", nsid=3)
    crashing = kernel if step == "namespace_name" else keeper.book
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crashing, step, stopped_dead)
        with pytest.raises(Crash):
            keeper.settle()
    keeper = keeper.restart()
    (gone,) = keeper.book.moved_netns
    assert (gone.record.ifindex, gone.nsid) == (number, 3)


# --------------------------------------------------------------------------- and back


def comes_late(keeper: Keeper, same: int | None) -> None:
    """Of what is back its move is told last."""
    report = vanished(keeper)
    keeper.kernel.bring_back(report.new_ifindex or 0, 3, same)
    keeper.kernel.news.insert(0, report)


def is_known(keeper: Keeper, same: int | None) -> None:
    there = keeper.kernel.send_away("v0", nsid=3)
    keeper.settle()
    keeper.kernel.bring_back(there, 3, same)


def has_no_link_meanwhile(keeper: Keeper, same: int | None) -> None:
    """And a pass comes before the news of its return."""
    there = keeper.kernel.send_away("v0", nsid=3)
    keeper.settle()
    keeper.take(wiring("v2:v3"))
    keeper.kernel.bring_back(there, 3, same)
    keeper.take(ONE)


def is_back_at_once(keeper: Keeper, same: int | None) -> None:
    """In the pass that finds it missing."""
    kernel = keeper.kernel
    number = kernel.index("v0")
    there = kernel.send_away("v0", nsid=3)
    report = kernel.news.pop()

    def returns(_number: int, step: Step) -> None:
        if step == Step("forget", number):
            kernel.trouble = no_trouble
            kernel.bring_back(there, 3, same)

    kernel.trouble = returns
    kernel.news[:] = [Event(number, "v0")]
    keeper.settle()
    kernel.news.insert(0, report)


def cannot_be_recorded(keeper: Keeper, same: int | None) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeper.book, "hold", full)
        is_known(keeper, same)
        keeper.settle()
        assert keeper.state("v0:v1") != "connected"
    keeper.kernel.alter("v0", carrier=True)
    keeper.retry()
    pass_over_all(keeper)


WAYS_BACK = [comes_late, is_known, has_no_link_meanwhile, is_back_at_once, cannot_be_recorded]


@pytest.mark.parametrize("same_number", [True, False])
@pytest.mark.parametrize("comes_back", WAYS_BACK)
def test_an_end_that_comes_back_is_wired_again_and_as_found_one_day(
    comes_back: Callable[[Keeper, int | None], None], *, same_number: bool
) -> None:
    """It is set up, too: the kernel set it down on its way, not an operator."""
    keeper = told()
    comes_back(keeper, keeper.kernel.index("v0") if same_number else None)
    keeper.settle()
    assert keeper.kernel.wired("v0", "v1")
    assert keeper.state("v0:v1") == "connected"
    assert keeper.book.moved_netns == ()
    assert_as_evaluated(keeper)
    assert_as_found_one_day(keeper)


def test_a_held_end_that_is_back_before_its_move_is_reported_is_counted_again() -> None:
    """It was found down, and so it is back: nothing about it is to be recorded anew."""
    kernel = Kernel()
    kernel.add("v0", up=False)
    keeper = Keeper(kernel).start(wiring(link("v0", "v0", enabled=False)))
    kernel.bring_back(kernel.send_away("v0"))
    keeper.settle()
    assert kernel.is_held("v0")


def test_an_end_that_is_back_and_leaves_again_within_a_pass() -> None:
    keeper = told()
    kernel = keeper.kernel
    number = kernel.index("v0")
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
    assert_as_found_one_day(keeper)


@pytest.mark.parametrize("name", ["v0", "stranger"])
def test_an_end_whose_number_is_taken_before_any_look(name: str) -> None:
    """By another device, which is an end too or none; both are told of when it is all over."""
    keeper = told()
    kernel = keeper.kernel
    mac, number = kernel.get("v0").mac, kernel.index("v0")
    there = kernel.send_away("v0", nsid=3)
    kernel.add(name, ifindex=number)
    late = [*kernel.news]
    kernel.news.clear()
    pass_over_all(keeper)
    kernel.news += late
    keeper.settle()
    (gone,) = keeper.book.moved_netns
    assert (gone.record.name, gone.record.mac, gone.nsid) == ("v0", mac, 3)
    kernel.delete(name)
    kernel.bring_back(there, nsid=3)
    keeper.settle()
    assert_as_found_one_day(keeper)


@pytest.mark.parametrize("taken", [False, True])
def test_an_end_is_known_when_it_is_back_under_another_name(taken: bool) -> None:
    """Named anew where it was, so that no link speaks of it.

    What is of another kind is another device whatever its MAC and name, as a VLAN is that stands
    on a NIC of ours.
    """
    keeper = told()
    kernel = keeper.kernel
    there = vanished(keeper).new_ifindex or 0
    device = kernel.elsewhere_[3][there] = kernel.elsewhere_[3][there]._replace(name="stranger")
    if taken:
        kernel.add("v0", "nic", mac=device.mac, xdp=device.xdp)
    back = kernel.bring_back(there, nsid=3)
    pass_over_all(keeper)
    assert back not in keeper.book.records
    assert_as_found_one_day(keeper, back)


@pytest.mark.parametrize("dead", [True, False])
def test_two_ends_with_one_mac_that_leave_are_two(dead: bool) -> None:
    """As VLANs of one NIC are; each is put back as it was found when it is back."""
    kernel = lab()
    kernel.alter("v0", mtu=1400)
    kernel.alter("v2", mtu=1450, mac=kernel.get("v0").mac)
    keeper = Keeper(kernel).start(TWO)
    away = {name: kernel.send_away(name, nsid=3) for name in ("v0", "v2")}
    if dead:
        kernel.news.clear()
        keeper = keeper.restart()
    keeper.settle()
    assert {gone.record.name for gone in keeper.book.moved_netns} == {"v0", "v2"}
    for name in ("v2", "v0"):
        kernel.bring_back(away[name], nsid=3)
        keeper.settle()
    assert keeper.states() == {"v0:v1": "connected", "v2:v3": "connected"}
    keeper.take(Wiring())
    assert [kernel.get(name).mtu for name in ("v0", "v2")] == [1400, 1450]


def test_of_two_that_are_back_with_one_mac_one_is_taken_up() -> None:
    keeper = told()
    kernel = keeper.kernel
    back = kernel.devices[kernel.bring_back(vanished(keeper).new_ifindex or 0, nsid=3)]
    kernel.add("twin", mac=back.mac, xdp=back.xdp)
    pass_over_all(keeper)
    assert keeper.state("v0:v1") == "connected"
    assert_as_found_one_day(keeper)


class Traveller:
    """A device that is moved to another namespace and back, in steps between the daemon's looks."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        self._kernel, self._name, self._number = kernel, name, kernel.index(name)
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


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    moves=[(0, "v2"), (0, "v0"), (1, "v0"), (5, "v2"), (1, "v0"), (4, "v2"), (0, "v2")], stops=False
)
def test_ends_that_come_and_go(moves: list[tuple[int, str | None]], *, stops: bool) -> None:
    """After so many looks that device sets out; None: the one that is on its way arrives.

    The daemon may be told to stop meanwhile, and is started again.
    """
    keeper = told(TWO)
    kernel = keeper.kernel
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
        keeper = Keeper(kernel, keeper.book).start(TWO)
    while due:
        kernel.news.append(Event(kernel.index("v1"), "v1"))
        keeper.settle()
    for traveller in travellers.values():
        traveller.come_home()
        keeper.settle()
    keeper.clock.forward(retry.LONGEST_WAIT)  # one was away for just one step on it
    keeper.settle()
    assert set(keeper.states().values()) == {"connected"}
    assert_as_found_one_day(keeper, "v0", "v1", "v2", "v3")


# --------------------------------------------------------------------------- before any pass


@pytest.mark.parametrize("mode", [Mode.GENERIC, Mode.TC])
@pytest.mark.parametrize("told_by", ["note", "settle"])
def test_the_number_of_an_end_that_left_leads_nowhere_at_once(mode: Mode, told_by: str) -> None:
    """Another device may have it the next moment, and is not wired by it."""
    keeper = told(wiring(link("v0", "v1", mode=mode)))
    kernel = keeper.kernel
    number = kernel.index("v0")
    assert number in {**kernel.devmap, **kernel.peer_map}
    kernel.send_away("v0", nsid=3)
    done = []

    def look(_number: int, step: Step) -> None:
        if step not in (Step("unpoint", number), Step("unsteer", number)):
            done.append(step)
            for entries in (kernel.devmap, *kernel.older_maps.values(), kernel.peer_map):
                assert number not in entries, step

    kernel.trouble = look
    if told_by == "settle":
        keeper.settle()
        assert done
    else:
        (gone,) = (each for each in kernel.news if each.gone)
        keeper.netns_moves.note(gone.ifindex, gone.mac, gone.nsid, gone.new_ifindex)
        look(0, Step("", 0))
