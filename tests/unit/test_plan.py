"""Laws of the plan over random wirings and kernels, the leftovers of an earlier life included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from builders import PROGRAMS, SWAP_INGRESS, SWAP_XDP, TAKING, link, look, veth, wired, wiring
from driven import Keeper
from hypothesis import Phase, assume, example, given, settings
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
    unused_ports,
    wirings,
)

from xconnectd.model import (
    CLOSED,
    Admin,
    Change,
    Endpoint,
    Filter,
    Interface,
    Link,
    Mode,
    Record,
    Rewrite,
    Setting,
    Use,
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
    Hold,
    Point,
    as_json,
    is_of_admin_state,
)
from xconnectd.reconcile.evaluate import Role, roles
from xconnectd.reconcile.executor import Trouble
from xconnectd.reconcile.reconciler import Seen

LAWS = settings(max_examples=40, phases=set(Phase) - {Phase.target, Phase.explain})


def carried_out(keeper: Keeper, seen: Seen) -> Iterator[Action]:
    """Does the plan; yields each action when it is done."""
    for action in seen.actions:
        keeper.executor.apply([action], trouble := Trouble())
        assert trouble == Trouble()
        yield action


def finish(keeper: Keeper) -> Seen:
    """Plans, does it all, looks again.

    Where both ends of a veth are ours, setting one down takes the carrier behind the other, and
    with it the carrier of that one's partner: each such step takes one more look.
    """
    seen = keeper.reconciler.look()
    for _ in NAMES:
        for _ in carried_out(keeper, seen):
            pass
        seen = keeper.reconciler.look()
        if not seen.actions or not all(is_of_carrier(each) for each in seen.actions):
            break
    return seen


def is_of_carrier(action: Action) -> bool:
    return isinstance(action, Hold) or is_of_admin_state(action)


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


@LAWS
@given(keeper=a_world)
def test_the_plan_reaches_what_is_wanted_and_a_second_one_is_empty(keeper: Keeper) -> None:
    seen = finish(keeper)
    assert_as_evaluated(keeper)
    assert seen.actions == ()


@st.composite
def two_wirings(draw: st.DrawFn) -> tuple[tuple[Link, ...], Wiring, Wiring]:
    """Links that stay, and two wirings that have them in common (first, so that none of the
    others can be first in a cycle)."""
    stay = draw(links(("e0", "e1", "e2", "e3")))
    here, there = draw(links(("e4", "e5", "e6", "e7"))), draw(links(("e4", "e5", "e6", "e7")))
    return stay, wiring(*stay, *here), wiring(*stay, *there)


_ALL_DOWN = (Port("cable", up=False, mtu=1400, trouble=""),) * len(NAMES)
_ONE_CABLE = (
    *(Port("veth", up=False, mtu=1400, trouble=""),) * 6,
    *(Port("cable", up=each, mtu=1400, trouble="") for each in (True, False)),
)
_UNPLUGGED, _PLUGGED = (wiring(link("e6", "e6", enabled=each)) for each in (False, True))
_CABLED = wiring(link("e4", "e6", enabled=False), link("e5", "e7"))


@LAWS
@given(all_ports=unused_ports, both=two_wirings())
@example(all_ports=_ALL_DOWN, both=((), _UNPLUGGED, _PLUGGED))
@example(all_ports=_ONE_CABLE, both=((), _CABLED, Wiring()))
def test_links_that_stay_are_not_named_there_or_back(
    all_ports: tuple[Port, ...], both: tuple[tuple[Link, ...], Wiring, Wiring]
) -> None:
    """All is as before then, but for ends that were wired and are held again: as found they are
    when their link goes.

    No cable leads from the ones to the others: what one end of it shows is a reason for the link of
    the other end to show as much.
    """
    stay, here, there = both
    kernel = build(all_ports)
    assume(not _is_cable(kernel, "e3", "e4"))
    found = kernel.snapshot()
    keeper = Keeper(kernel).start(here)
    kept = {link.id for link in stay}
    ends = {end.name for link in stay for end in link.ends}
    before, held = kernel.snapshot(), kernel.black_holes()
    for wanted in (there, here):
        keeper.reconciler.want(wanted)
        for _ in NAMES:  # an end that is set down takes the carrier of its cable: one more look
            for action in carried_out(keeper, keeper.reconciler.look()):
                assert action.link not in kept, action
                assert action.interface.name not in ends, action
    assert _without(held, kernel.snapshot()) == _without(held, before)
    keeper.reconciler.want(Wiring())
    assert finish(keeper).actions == ()
    assert kernel.snapshot() == found


def _is_cable(kernel: Kernel, name: str, other: str) -> bool:
    far = kernel.get(name).far if kernel.has(name) and kernel.has(other) else None
    return far is not None and (far.nsid, far.ifindex) == (None, kernel.index(other))


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
@given(keeper=a_world)
def test_no_black_hole_outside_the_group_that_is_moved(keeper: Keeper) -> None:
    """One that was there before is mended with its group; those that are held are meant.

    An end that is new carried nothing yet, and one in no link will carry nothing more: some groups
    are prepared together, and detached together, so these may wait for those.
    """
    seen = keeper.reconciler.look()
    ours, wanted = seen.observed.ours, roles(seen.evaluations)
    moving = {i for i in seen.observed.interfaces if not ours[i].runs or i not in wanted}
    meant = _held(seen) | {seen.observed.interfaces[i].name for i in moving}
    groups = [set(group) for group in plan._groups(roles(seen.evaluations), (), seen.observed)]
    waiting = keeper.kernel.black_holes()
    for action in carried_out(keeper, seen):
        moved = next(group for group in groups if action.interface.ifindex in group)
        names = {device.name for i, device in seen.observed.interfaces.items() if i in moved}
        assert keeper.kernel.black_holes() - waiting <= names | meant, action
    assert keeper.kernel.black_holes() <= _held(seen)


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


@pytest.mark.parametrize("mtu", [1300, 1500, 9000])
def test_what_somebody_sets_meanwhile_is_the_new_found(mtu: int) -> None:
    kernel = Kernel("a", "b")
    keeper = Keeper(kernel).start(wiring("a:b"))
    kernel.alter("a", mtu=mtu)
    keeper.settle()
    assert kernel.get("a").mtu == 65535
    keeper.take(Wiring())
    assert (kernel.get("a").mtu, kernel.get("b").mtu) == (mtu, 1500)


A, B = veth(5, "a"), veth(6, "b")
WIRED_A, WIRED_B = wired(5, "a"), wired(6, "b")
BOTH = {5: 6, 6: 5}
AB = link("a", "b")
THERE = Filter("bpf", 49152, 1, 77, "somebody")


def role(other: int, mode: Mode = Mode.GENERIC, **more: Any) -> Role:
    settings = {Setting.CLSACT: 1, **more.pop("settings", {})}
    target = None if more.get("held") else other
    return Role(more.pop("link", AB), mode, other, target, settings, **more)


def record(end: Interface, settled: bool = True, **changes: tuple[int, int]) -> dict[int, Record]:
    changed = {name: Change(*values) for name, values in changes.items()}
    return {end.ifindex: Record(end.ifindex, end.name, end.mac, changed, settled, kind="veth")}


def names(wanted: dict[int, Role], *ends: Interface, **seen: Any) -> list[str]:
    actions = plan.plan(wanted, look(*ends, **seen))
    assert all(entry["reason"] for entry in as_json(actions))
    return [f"{entry['action']} {entry['interface']}" for entry in as_json(actions)]


ROUTER = {5: (Use("it has the address fd00::1/64", learnt=True),)}
FULL = {"uses": ROUTER, "guarded": frozenset()}


def test_a_fresh_link_in_full() -> None:
    """A router is silenced before what it taught is removed."""
    assert names({5: role(6), 6: role(5)}, A, B, **FULL) == [
        "hold a", "hold b", "set clsact 1 a", "set clsact 1 b",
        "add filter egress a", "add filter egress b", "attach generic a", "attach generic b",
        "add filter ingress a", "add filter ingress b", "guard a", "guard b", "unlearn a",
        "point generic a", "point tc a", "point generic b", "point tc b",
    ]  # fmt: skip


def test_an_end_that_is_detached_in_full() -> None:
    """Silent until nothing of ours is on it, and back down before anything is put back."""
    end = WIRED_A._replace(mtu=65535, addr_gen_mode=1, promiscuous=True)
    found = {"mtu": (1500, 65535), "up": (0, 1), "promiscuous": (0, 1), "clsact": (0, 1)}
    known = record(end, **found, addr_gen_mode=(0, 1))
    maps: dict[str, Any] = {"entries": {5: 6}, "peers": {5: 6}}
    assert names({}, end, records=known, guarded=frozenset((5,)), **maps) == [
        "cut generic a", "cut tc a", "unguard a", "set up 0 a",
        "detach generic a", "set mtu 1500 a", "set addr_gen_mode 0 a", "set promiscuous 0 a",
        "set clsact 0 a", "forget a",
    ]  # fmt: skip


@pytest.mark.parametrize(("clsact", "theirs"), [((0, 1), (THERE,)), ((1, 1), ())])
def test_of_a_clsact_that_stays_the_filters_are_deleted(
    clsact: tuple[int, int], theirs: tuple[Filter, ...]
) -> None:
    """What reaches the host stays cut off until its own frames may leave, too."""
    end = WIRED_A._replace(mtu=65535, promiscuous=True, egress=(*WIRED_A.egress, *theirs))
    known = record(end, mtu=(1500, 65535), promiscuous=(0, 1), clsact=clsact)
    assert names({}, end, records=known) == [
        "detach generic a", "set mtu 1500 a", "delete filter ingress a", "set promiscuous 0 a",
        "delete filter egress a", "forget a",
    ]  # fmt: skip


SHARED = WIRED_A._replace(egress=(*WIRED_A.egress, THERE))
SMALL = WIRED_A._replace(mtu=65535, addr_gen_mode=1)
LESS = {"mtu": (1500, 65535)}
# An end, what was changed on it, and whether that setting is put back when its link goes.
PUT_BACK = [
    (WIRED_A, {"clsact": (0, 1)}, "set clsact 0 a", True),
    (SHARED, {"clsact": (0, 1)}, "set clsact 0 a", False),  # somebody else is on top of it
    (WIRED_A, {"mtu": (1500, 65535)}, "set mtu 1500 a", False),  # it is not ours any more
    (SMALL, {"mtu": (1280, 65535), "addr_gen_mode": (0, 1)}, "set addr_gen_mode 0 a", True),
    # With an MTU too small for IPv6 address generation goes; to set it would be refused.
    (SMALL, {"mtu": (1279, 65535), "addr_gen_mode": (0, 1)}, "set addr_gen_mode 0 a", False),
    (WIRED_A, {"promiscuous": (0, 0)}, "set promiscuous 0 a", False),
]


@pytest.mark.parametrize(("end", "changes", "action", "is_done"), PUT_BACK)
def test_what_is_put_back(
    end: Interface, changes: dict[str, tuple[int, int]], action: str, *, is_done: bool
) -> None:
    assert (action in names({}, end, records=record(end, **changes))) == is_done


@pytest.mark.parametrize(
    ("now", "found"), [(65535, 1500), (1500, 1500), (1300, 1300)], ids=["ours", "found", "new"]
)
def test_what_is_found_is_what_stood_before_ours(now: int, found: int) -> None:
    """Also when what we want there is another value than before."""
    end = WIRED_A._replace(mtu=now)
    wanted = {5: role(6, settings={"mtu": 3506}), 6: role(5)}
    seen = look(end, WIRED_B, records=record(end, **LESS), entries=BOTH, peers=BOTH)
    held = next(action for action in plan.plan(wanted, seen) if isinstance(action, Hold))
    assert held.record.changes["mtu"] == Change(found, 3506)


DOWN = WIRED_A._replace(up=False)
KEPT = link("a", "b", admin=Admin.KEEP)
SET_UP = [
    (A._replace(up=False), AB, {}, True),
    (A._replace(up=False), KEPT, {}, False),
    (DOWN, AB, {}, False),  # it was ours, and somebody set it down
    (DOWN, AB, record(DOWN), False),
    (DOWN, AB, record(DOWN, settled=False), True),
]


@pytest.mark.parametrize(("end", "one", "records", "is_set_up"), SET_UP)
def test_an_end_is_set_up_once(
    end: Interface, one: Link, records: dict[int, Record], *, is_set_up: bool
) -> None:
    told = names({5: role(6, link=one), 6: role(5, link=one)}, end, B, records=records)
    assert ("set up 1 a" in told) == is_set_up
    assert not is_set_up or told.index("set up 1 a") > told.index("point generic b")
    assert "set up 1 a" not in names({5: role(6, held="no")}, end, B, records=records)


def test_a_mode_that_changes_takes_the_old_programs_off_last() -> None:
    maps: dict[str, Any] = {"entries": BOTH, "records": {**record(WIRED_A), **record(WIRED_B)}}
    told = names({5: role(6, Mode.TC), 6: role(5, Mode.TC)}, WIRED_A, WIRED_B, **maps)
    assert told == [
        "point tc a", "point tc b",
        "detach generic a", "cut generic a", "detach generic b", "cut generic b",
    ]  # fmt: skip


def test_moving_a_wire_between_attached_ends_is_writing_entries_alone() -> None:
    ends = [wired(number, name) for number, name in enumerate("abcd", 5)]
    records = {number: each for end in ends for number, each in record(end).items()}
    entries = {5: 6, 6: 5, 7: 8, 8: 7}
    now = look(*ends, records=records, entries=entries, peers=entries)
    actions = plan.plan({5: role(7), 7: role(5), 6: role(8), 8: role(6)}, now)
    assert all(isinstance(action, Point) for action in actions)
    written = {(action.interface.ifindex, action.target) for action in actions}
    assert written == {(5, 7), (7, 5), (6, 8), (8, 6)}


def turning(back: Role, **maps: dict[int, int]) -> list[str]:
    """The steps by which what comes in by ``b`` gets this role; ``a`` leads to ``b``."""
    ends = [end._replace(xdp=()) if back.mode is Mode.TC else end for end in (WIRED_A, WIRED_B)]
    records = {**record(ends[0]), **record(ends[1])}
    told = names({5: role(6, back.mode), 6: back}, *ends, records=records, **maps)
    return [step for step in told if not step.startswith("hold")]


def test_an_end_is_closed_by_writing_entries_alone_and_opened_by_that() -> None:
    """Among the peers first: XDP looks there why it has no entry; and last, for the same reason."""
    shut = role(5)._replace(target=CLOSED)
    assert turning(shut, entries=BOTH, peers=BOTH) == ["point tc b", "cut generic b"]
    closed = {"entries": {5: 6}, "peers": {5: 6, 6: CLOSED}}
    assert turning(shut, **closed) == []
    assert turning(role(5), **closed) == ["point generic b", "point tc b"]
    assert turning(shut, entries={5: 6}, peers={5: 6}) == ["point tc b"], "a lost mark"
    assert turning(shut._replace(mode=Mode.TC), peers=BOTH) == ["point tc b"]
    assert turning(role(5, Mode.TC), peers={5: 6, 6: CLOSED}) == ["point tc b"]


def test_two_links_that_lead_one_way_are_done_one_after_the_other() -> None:
    """What is dropped on purpose leads to no interface that they would have in common."""
    ends = [wired(number, name, xdp=()) for number, name in enumerate("abcd", 5)]
    shut = {6: role(5)._replace(target=CLOSED), 8: role(7)._replace(target=CLOSED)}
    peers = {5: 6, 6: CLOSED, 7: 8, 8: CLOSED}
    steps = names({5: role(6), 7: role(8), **shut}, *ends, entries={5: 6, 7: 8}, peers=peers)
    assert {step[-1] for step in steps} == {*"abcd"}
    order = [step[-1] in "ab" for step in steps if step.startswith(("point", "cut"))]
    assert order == sorted(order, reverse=True)


@pytest.mark.parametrize("rewrite", Rewrite)
def test_a_program_that_swaps_macs_or_no_longer_takes_the_other_ones_place(
    rewrite: Rewrite,
) -> None:
    """At once, both of an end and with nothing else: not a frame is lost."""
    swapping = wired(5, "a", xdp=(Xdp("generic", SWAP_XDP),),
                     ingress=(TAKING._replace(program=SWAP_INGRESS),))  # fmt: skip
    end = WIRED_A if rewrite is Rewrite.SWAP_MACS else swapping
    wanted = {5: role(5, link=link("a", "a", rewrite=rewrite))}
    actions = plan.plan(wanted, look(end, records=record(end), entries={5: 5}, peers={5: 5}))
    attach, filter_ = (action for action in actions if not isinstance(action, Hold))
    assert isinstance(attach, Attach)
    assert isinstance(filter_, AddFilter)
    assert (attach.replacing, filter_.replacing) == (end.xdp[0].program, True)
    prefix = "swap_" if rewrite is Rewrite.SWAP_MACS else ""
    assert (attach.role, filter_.role) == (f"{prefix}xdp", f"{prefix}ingress")


def test_a_dead_key_is_cut_and_its_record_dropped() -> None:
    assert names({}, entries={9: 5}, records=record(veth(9, "old"), **LESS)) == [
        *("cut generic old", "forget old")
    ]


def test_an_older_program_is_replaced_by_name() -> None:
    older = TAKING._replace(program=91)
    end = wired(5, "a", xdp=(Xdp("generic", 91),), ingress=(older,))
    programs = replace(PROGRAMS, known=frozenset((91,)))
    actions = plan.plan({5: role(5)}, look(end, programs=programs))
    assert not any(isinstance(action, Detach) for action in actions)
    (attach,) = (action for action in actions if isinstance(action, Attach))
    (filter_,) = (action for action in actions if isinstance(action, AddFilter))
    assert (attach.replacing, filter_.replacing) == (91, True)


def test_where_an_older_program_leads_by_entries_of_its_own_is_carried_on() -> None:
    """An entry comes before the program that reads it, else frames are lost in between."""
    kernel = Kernel("a", "b")
    keeper = Keeper(kernel).start(wiring("a:b"))
    kernel.load_older("a")
    kernel.lose_entry("a")
    done = [type(each) for each in keeper.reconciler.look().actions if each.interface.name == "a"]
    assert done.index(Point) < done.index(Attach)
