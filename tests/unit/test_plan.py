"""Laws of the plan over random wirings and kernels, the leftovers of an earlier life included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from builders import PROGRAMS, link, look, veth, wired, wiring
from driven import Keeper
from hypothesis import HealthCheck, Phase, assume, example, given, settings
from hypothesis import strategies as st
from kernel import Kernel
from worlds import (
    NAMES,
    Accident,
    Port,
    accidents,
    assert_as_evaluated,
    build,
    healthy_ports,
    links,
    ports,
    settings_of,
    unused_ports,
    wirings,
)

from xconnectd.model import (
    Change,
    Endpoint,
    Link,
    Mode,
    Record,
    Setting,
    Wiring,
    Xdp,
)
from xconnectd.reconcile import plan
from xconnectd.reconcile.actions import (
    Action,
    AddFilter,
    Attach,
    Cut,
    Detach,
    Forget,
    Hold,
    Point,
    Set,
    as_json,
)
from xconnectd.reconcile.evaluate import Role, roles
from xconnectd.reconcile.executor import Trouble
from xconnectd.reconcile.reconciler import Seen

LAWS = settings(
    max_examples=40,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow],  # a shared machine
)


def carried_out(keeper: Keeper, seen: Seen) -> Iterator[Action]:
    """Does the plan; yields each action when it is done."""
    for action in seen.actions:
        keeper.executor.apply([action], trouble := Trouble())
        assert trouble == Trouble()
        yield action


def finish(keeper: Keeper) -> Seen:
    """Plans, does it all, looks again."""
    for _ in carried_out(keeper, keeper.reconciler.look()):
        pass
    return keeper.reconciler.look()


def leftovers(
    all_ports: tuple[Port, ...], earlier: Wiring, mishaps: list[Accident], wanted: Wiring
) -> Keeper:
    """A fresh daemon on a kernel in which an earlier one lived and accidents happened since."""
    kernel = build(all_ports)
    past = Keeper(kernel).start(earlier)
    for accident in mishaps:
        accident.strike(kernel)
    keeper = Keeper(kernel, past.book)
    keeper.reconciler.want(wanted)
    keeper.netns_moves.find()
    return keeper


a_world = st.builds(leftovers, ports, wirings, accidents(at_most=4), wirings)


# --------------------------------------------------------------------------- it leads there


@LAWS
@given(keeper=a_world)
def test_the_plan_reaches_what_is_wanted(keeper: Keeper) -> None:
    seen = finish(keeper)
    assert_as_evaluated(keeper.kernel, seen.evaluations, seen.observed)


@LAWS
@given(keeper=a_world)
def test_a_second_plan_is_empty(keeper: Keeper) -> None:
    assert finish(keeper).actions == ()


@LAWS
@given(all_ports=ports, wanted=wirings)
def test_when_all_links_go_everything_is_as_found(
    all_ports: tuple[Port, ...], wanted: Wiring
) -> None:
    kernel = build(all_ports)
    found = kernel.snapshot()
    keeper = Keeper(kernel).start(wanted)
    keeper.reconciler.want(Wiring())
    assert finish(keeper).actions == ()
    assert kernel.snapshot() == found
    assert not keeper.book.records()


# --------------------------------------------------------------------------- and nowhere else


@st.composite
def two_wirings(draw: st.DrawFn) -> tuple[tuple[Link, ...], Wiring, Wiring]:
    """Links that stay, and two wirings that have them in common (first, so that none of the
    others can be first in a cycle)."""
    stay = draw(links(("e0", "e1", "e2", "e3")))
    here, there = draw(links(("e4", "e5", "e6", "e7"))), draw(links(("e4", "e5", "e6", "e7")))
    return stay, wiring(*stay, *here), wiring(*stay, *there)


_ALL_DOWN = (Port("cable", up=False, mtu=1400, trouble=""),) * len(NAMES)
_UNPLUGGED, _PLUGGED = (wiring(link("e6", "e6", enabled=each)) for each in (False, True))


@LAWS
@given(all_ports=unused_ports, both=two_wirings())
@example(all_ports=_ALL_DOWN, both=((), _UNPLUGGED, _PLUGGED))
def test_links_that_stay_are_not_named_there_or_back(
    all_ports: tuple[Port, ...], both: tuple[tuple[Link, ...], Wiring, Wiring]
) -> None:
    """All is as before then, but for ends that were wired and are held again: as found they are
    when their link goes."""
    stay, here, there = both
    kernel = build(all_ports)
    found = kernel.snapshot()
    keeper = Keeper(kernel).start(here)
    kept = {link.id for link in stay}
    ends = {end.name for link in stay for end in link.ends}
    before, held = kernel.snapshot(), kernel.black_holes()
    for wanted in (there, here):
        keeper.reconciler.want(wanted)
        for action in carried_out(keeper, keeper.reconciler.look()):
            assert action.link not in kept, action
            assert action.interface.name not in ends, action
    assert _without(held, kernel.snapshot()) == _without(held, before)
    keeper.reconciler.want(Wiring())
    assert finish(keeper).actions == ()
    assert kernel.snapshot() == found


def _without(names: set[str], snapshot: tuple[Any, ...]) -> tuple[Any, ...]:
    """But for the settings of these, which an end keeps that was wired and is held again, and
    for what the other end of such a cable shows of them."""
    devices, *maps = snapshot
    rest = {number: each for number, each in devices.items() if each.name not in names}
    for number, each in rest.items():
        if each.far and each.far.nsid is None and each.far.name in names:
            rest[number] = each._replace(far=None, carrier=False)
    return rest, *maps


@LAWS
@given(all_ports=ports, wanted=wirings)
def test_a_link_turned_round_is_no_change(all_ports: tuple[Port, ...], wanted: Wiring) -> None:
    keeper = Keeper(build(all_ports)).start(wanted)
    turned = [_turned(link) for link in wanted.links]
    keeper.reconciler.want(wiring(*turned))
    assert keeper.reconciler.look().actions == ()


def _turned(one: Link) -> Link:
    return link(
        one.b.name,
        one.a.name,
        mode=one.mode,
        enabled=one.enabled,
        admin=one.admin,
        allow_addressed=one.allow_addressed,
    )


# --------------------------------------------------------------------------- in good order


def of_end(actions: tuple[Action, ...], ifindex: int) -> list[Action]:
    return [action for action in actions if action.interface.ifindex == ifindex]


def positions(actions: list[Action], *kinds: type[Action]) -> list[int]:
    return [place for place, action in enumerate(actions) if isinstance(action, kinds)]


@LAWS
@given(keeper=a_world)
def test_what_is_found_is_recorded_before_it_is_changed(keeper: Keeper) -> None:
    """A crash between any two actions leaves a way back."""
    for action in carried_out(keeper, seen := keeper.reconciler.look()):
        match action:
            case Set(setting=setting, value=value) if action.link:
                change = keeper.book.records()[action.interface.ifindex].changes.get(setting)
                put_back = value == plan.value_of(action.interface, setting)
                assert put_back or (change and value in (change.ours, change.found)), seen
            case Attach() | AddFilter():
                assert action.interface.ifindex in keeper.book.records()
            case _:
                pass


@LAWS
@given(keeper=a_world)
def test_each_end_goes_through_its_steps_in_order(keeper: Keeper) -> None:
    actions = keeper.reconciler.look().actions
    for ifindex in {action.interface.ifindex for action in actions}:
        mine = of_end(actions, ifindex)
        wires = [place for place in positions(mine, Point) if "leads" not in mine[place].reason]
        attaches = positions(mine, Attach, AddFilter)
        assert not wires or max(attaches, default=-1) < min(wires)
        if forgets := positions(mine, Forget):
            assert forgets == [len(mine) - 1]
            assert not positions(mine, Hold, Point, Attach, AddFilter)


@LAWS
@given(keeper=a_world)
def test_actions_of_one_group_stand_together(keeper: Keeper) -> None:
    seen = keeper.reconciler.look()
    groups = list(plan._groups(roles(seen.evaluations), seen.observed))
    number = {ifindex: place for place, group in enumerate(groups) for ifindex in group}
    order = [number[action.interface.ifindex] for action in seen.actions]
    assert order == sorted(order)


@LAWS
@given(keeper=a_world)
def test_no_black_hole_outside_the_group_that_is_moved(keeper: Keeper) -> None:
    """One that was there before is mended with its group; those that are held are meant."""
    seen = keeper.reconciler.look()
    meant = _held(seen)
    groups = [set(group) for group in plan._groups(roles(seen.evaluations), seen.observed)]
    waiting = keeper.kernel.black_holes()
    for action in carried_out(keeper, seen):
        moved = next(group for group in groups if action.interface.ifindex in group)
        names = {device.name for i, device in seen.observed.interfaces.items() if i in moved}
        assert keeper.kernel.black_holes() - waiting <= names | meant, action
    assert keeper.kernel.black_holes() <= meant


@LAWS
@given(
    all_ports=healthy_ports,
    earlier=wirings,
    wanted=wirings,
    modes=st.permutations((Mode.GENERIC, Mode.TC, Mode.TC, Mode.GENERIC)),
)
def test_nothing_that_may_wait_is_done_while_a_link_forwards_one_way(
    all_ports: tuple[Port, ...], earlier: Wiring, wanted: Wiring, modes: list[Mode]
) -> None:
    """Others may hold the kernel's lock for seconds; only entries are written without it."""
    before, after = (
        wiring(*(_in_mode(one, mode) for one in links.links))
        for links, mode in zip((earlier, wanted), modes, strict=False)
    )
    keeper = Keeper(build(all_ports)).start(before)
    keeper.reconciler.want(after)
    halves: set[str] = set()
    for action in carried_out(keeper, keeper.reconciler.look()):
        assert not halves or isinstance(action, Point | Cut), (halves, action)
        halves = {
            one.id
            for one in (*before.links, *after.links)
            if _leads(keeper, one.a, one.b) != _leads(keeper, one.b, one.a)
        }
    assert not halves


def _leads(keeper: Keeper, end: Endpoint, other: Endpoint) -> bool:
    there = [each for each in (end, other) if keeper.kernel.has(each.name)]
    return len(there) == 2 and keeper.kernel.leads(end.name) == keeper.kernel.get(other.name).name


def _held(seen: Seen) -> set[str]:
    wanted = roles(seen.evaluations)
    return {seen.observed.interfaces[number].name for number, role in wanted.items() if role.held}


@LAWS
@given(all_ports=healthy_ports, wanted=wirings)
def test_a_mode_that_changes_loses_no_frame(all_ports: tuple[Port, ...], wanted: Wiring) -> None:
    """Between XDP generic and tc: at every moment the frames of both ends have a way."""
    here = wiring(*(_in_mode(one, Mode.GENERIC) for one in wanted.links))
    keeper = Keeper(build(all_ports)).start(here)
    wired = [(one.a.name, one.b.name) for one in here.links if _stands(keeper, one)]
    keeper.reconciler.want(wiring(*(_in_mode(one, Mode.TC) for one in wanted.links)))
    for action in carried_out(keeper, keeper.reconciler.look()):
        assert all(keeper.kernel.wired(a, b) for a, b in wired), action


def _in_mode(one: Link, mode: Mode) -> Link:
    return link(one.a.name, one.b.name, mode=mode, enabled=one.enabled)


def _stands(keeper: Keeper, one: Link) -> bool:
    return one.enabled and keeper.state(one.id) in ("connected", "down")


# --------------------------------------------------------------------------- put back, or not


@LAWS
@given(all_ports=healthy_ports, wanted=wirings, mtu=st.sampled_from((1300, 9000)))
def test_a_setting_is_put_back_only_where_it_is_still_ours(
    all_ports: tuple[Port, ...], wanted: Wiring, mtu: int
) -> None:
    kernel = build(all_ports)
    keeper = Keeper(kernel).start(wanted)
    held = [kernel.devices[ifindex].name for ifindex in keeper.book.records()]
    assume(held)
    found = {name: settings_of(kernel.get(name)) for name in held}
    kernel.alter(held[0], mtu=mtu, promiscuous=False)
    keeper.reconciler.want(Wiring())
    finish(keeper)
    assert kernel.get(held[0]).mtu == mtu
    assert not kernel.get(held[0]).promiscuous
    assert all(settings_of(kernel.get(name)) != found[name] for name in held)


@example(mtu=1500)
@example(mtu=9000)
@given(mtu=st.sampled_from((1300, 1500, 9000)))
def test_what_somebody_sets_meanwhile_is_the_new_found(mtu: int) -> None:
    kernel = Kernel()
    kernel.add("a")
    kernel.add("b")
    keeper = Keeper(kernel).start(wiring("a:b"))
    kernel.alter("a", mtu=mtu)
    keeper.settle()
    assert kernel.get("a").mtu == 65535
    keeper.take(Wiring())
    assert (kernel.get("a").mtu, kernel.get("b").mtu) == (mtu, 1500)


# --------------------------------------------------------------------------- single decisions

A, B = veth(5, "a"), veth(6, "b")
AB = link("a", "b")


def role(other: int, mode: Mode = Mode.GENERIC) -> Role:
    return Role(AB, mode, other, other, {Setting.CLSACT: 1})


def names(actions: tuple[Action, ...]) -> list[str]:
    return [f"{entry['action']} {entry['interface']}" for entry in as_json(actions)]


def test_a_fresh_link_in_full() -> None:
    assert names(plan.plan({5: role(6), 6: role(5)}, look(A, B))) == [
        "hold a", "set clsact 1 a", "add filter egress a",
        "hold b", "set clsact 1 b", "add filter egress b",
        "attach generic a", "add filter ingress a", "attach generic b", "add filter ingress b",
        "point generic a", "point tc a", "point generic b", "point tc b",
    ]  # fmt: skip


def test_the_hosts_stack_is_closed_behind_the_programs_and_opened_before_they_go() -> None:
    there = plan.plan({5: role(6), 6: role(5)}, look(A, B, guarded=frozenset()))
    assert names(there)[-10:-4] == [
        *("attach generic a", "add filter ingress a", "guard a"),
        *("attach generic b", "add filter ingress b", "guard b"),
    ]
    back = plan.plan({}, look(A, B, guarded=frozenset((5,)), records={5: Record(5, "a", "")}))
    assert names(back) == ["unguard a", "forget a"]


def test_an_unknown_interface_is_not_touched() -> None:
    assert plan.plan({}, look(A, B)) == ()


def test_moving_a_wire_between_attached_ends_is_writing_entries_alone() -> None:
    ends = [wired(number, name) for number, name in enumerate("abcd", 5)]
    records = {end.ifindex: Record(end.ifindex, end.name, "", kind=end.kind) for end in ends}
    entries = {5: 6, 6: 5, 7: 8, 8: 7}
    now = look(*ends, records=records, entries=entries, peers=entries)
    swapped = {5: role(7), 7: role(5), 6: role(8), 8: role(6)}
    actions = plan.plan(swapped, now)
    assert all(isinstance(action, Point) for action in actions)
    entries = {(action.interface.ifindex, action.target) for action in actions}
    assert entries == {(5, 7), (7, 5), (6, 8), (8, 6)}


def test_a_dead_key_is_cut_and_its_record_dropped() -> None:
    gone = {9: Record(9, "old", "02:00:00:00:00:09", {Setting.MTU: Change(1500, 65535)})}
    actions = plan.plan({}, look(A, B, entries={9: 5}, records=gone))
    assert [type(action) for action in actions] == [Cut, Forget]
    assert actions[0].interface.name == "old"


def test_an_older_program_is_replaced_by_name() -> None:
    end = veth(5, "a", xdp=(Xdp("generic", 91),))
    programs = replace(PROGRAMS, known=frozenset((91,)))
    actions = plan.plan({5: role(5)}, look(end, programs=programs))
    (attach,) = (action for action in actions if isinstance(action, Attach))
    assert attach.replacing == 91
    assert not any(isinstance(action, Detach) for action in actions)


def test_where_an_older_program_leads_by_entries_of_its_own_is_carried_on() -> None:
    """An entry comes before the program that reads it, else frames are lost in between."""
    kernel = Kernel()
    kernel.add("a")
    kernel.add("b")
    keeper = Keeper(kernel).start(wiring("a:b"))
    kernel.load_older("a")
    kernel.lose_entry("a")
    done = [type(each) for each in keeper.reconciler.look().actions if each.interface.name == "a"]
    assert done.index(Point) < done.index(Attach)


def test_every_action_has_its_reason() -> None:
    kernel = Kernel()
    kernel.add("a", up=False)
    kernel.add("b", "nic")
    keeper = Keeper(kernel)
    keeper.reconciler.want(wiring(link("a", "b", mode=Mode.TC)))
    entries = as_json(keeper.reconciler.look().actions)
    assert entries
    assert all(entry["reason"] and entry["link"] == "a:b" for entry in entries)
    assert {entry.keys() == {"action", "link", "interface", "reason"} for entry in entries} == {
        True
    }


def test_an_end_too_small_for_ipv6_is_put_back_without_it() -> None:
    """With the MTU that is found its address generation goes; to set that would be refused."""
    kernel = Kernel()
    kernel.add("a", mtu=1000, addr_gen_mode=None)
    kernel.add("b")
    keeper = Keeper(kernel).start(wiring("a:b"))
    assert kernel.get("a").addr_gen_mode == 1
    assert keeper.reconciler.detach("signal") == []
    assert (kernel.get("a").mtu, kernel.get("a").addr_gen_mode) == (1000, None)
    assert not keeper.book.records()
