"""Links by tunnels: what is made for them, and what becomes of them by what other hosts say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from builders import endpoint, link, wiring
from driven import Keeper, set_clock
from hypothesis import given
from hypothesis import strategies as st
from kernel import Crash, Kernel, Step, Tunnels, crash

from xconnectd.model import (
    Admin,
    Carrier,
    Endpoint,
    Far,
    Heard,
    Link,
    Mode,
    Node,
    Rewrite,
    Tunnel,
    Way,
    Wiring,
)
from xconnectd.state.store import Ledger

FAR = "h2/b"
LINK = "h1/v0,h2/b"
TUNNEL = Tunnel("198.51.100.12", 100)
DEVICE = "vxlan-100"
ELSEWHERE = "vxlan7@203.0.113.5"


def to_host(
    own: str = "v0", tunnel: Tunnel = TUNNEL, digest: str = "1a2b", **options: object
) -> Link:
    """A link to ``b`` on h2, as h1 has it."""
    here = endpoint(own)._replace(written=f"h1/{own}", host="h1")
    return Link(here, Endpoint(FAR, host="h2", tunnel=tunnel), digest=digest, **options)


def to_device(own: str = "v0", **options: object) -> Link:
    """A link to a device that is not ours."""
    return Link(
        endpoint(own), Endpoint(ELSEWHERE, tunnel=Tunnel("203.0.113.5", 7, 4789)), **options
    )


def started(kernel: Kernel, *links: Link) -> Keeper:
    """A daemon with these links, or one to a host, of which nothing was heard yet."""
    keeper = Keeper(kernel).start(wiring(*(links or (to_host(),))))
    keeper.settle()
    return keeper


def heard(kernel: Kernel, *links: Link) -> Keeper:
    """One that heard well of the other host."""
    keeper = started(kernel, *links)
    says(keeper)
    return keeper


def says(keeper: Keeper, *, alive: bool | None = True, **facts: object) -> None:
    keeper.runtime.tunnels.say(FAR, alive=alive, **facts)
    keeper.settle()


def announced(keeper: Keeper) -> tuple[bool, str]:
    """Whether the other host is told that the end here offers, and why it does not."""
    told = keeper.runtime.tunnels.announced[FAR]
    return told.offers, told.cause


# --------------------------------------------------------------------------- made


def test_a_tunnel_is_made_and_wired_when_the_other_host_is_heard() -> None:
    kernel = Kernel("v0")
    keeper = heard(kernel)
    assert keeper.states() == {LINK: "connected"}
    assert kernel.wired("v0", DEVICE)
    device = kernel.get(DEVICE)
    assert (device.tunnel, device.up, device.mtu) == (TUNNEL, True, 1450)
    assert int(device.mac[:2], 16) & 3 == 2
    assert keeper.reconciler.statuses[LINK].mode == Mode.TC


def test_it_goes_with_its_line_and_at_a_stop() -> None:
    for end in (lambda keeper: keeper.take(Wiring()), lambda keeper: keeper.daemon.stop()):
        kernel = Kernel("v0")
        before = kernel.snapshot()
        keeper = heard(kernel)
        end(keeper)
        assert kernel.snapshot() == before
        assert (keeper.book.made, keeper.book.records) == ({}, {})


def test_a_restart_adopts_it_and_moves_nothing() -> None:
    kernel = Kernel("v0")
    keeper = heard(kernel)
    before, made = kernel.snapshot(), dict(keeper.book.made)
    again = keeper.restart()
    assert kernel.snapshot() == before
    assert again.book.made == made
    assert again.states() == {LINK: "connected"}, "what stands stays until it is known"


def test_another_remote_or_port_is_another_device() -> None:
    kernel = Kernel("v0")
    keeper = heard(kernel)
    for tunnel in (TUNNEL._replace(remote="198.51.100.13"), TUNNEL._replace(port=4789)):
        was = kernel.index(DEVICE)
        keeper.take(wiring(to_host(tunnel=tunnel)))
        keeper.settle()
        assert kernel.get(DEVICE).tunnel == tunnel
        assert kernel.index(DEVICE) != was
        assert kernel.wired("v0", DEVICE)


def test_its_mtu_is_what_the_way_takes_in_one_packet() -> None:
    """As far as that is known: it may be learnt later, and be no more when there is no route."""
    kernel = Kernel("v0")
    kernel.ways[TUNNEL.remote] = Way(9000)
    keeper = heard(kernel)
    assert kernel.get(DEVICE).mtu == 8950
    for way, mtu in ((Way(1400), 1350), (Way(problem="no route"), 1350), (Way(1500), 1450)):
        kernel.ways[TUNNEL.remote] = way
        keeper.tick()
        assert kernel.get(DEVICE).mtu == mtu
        assert keeper.reconciler.statuses[LINK].b.mtu == mtu
        assert keeper.restart().reconciler.statuses[LINK].b.mtu == mtu
    kernel.alter(DEVICE, mtu=9000)
    keeper.settle()
    assert kernel.get(DEVICE).mtu == 1450
    assert keeper.states() == {LINK: "connected"}


def test_what_follows_the_way_is_no_repair() -> None:
    kernel = Kernel("v0")
    keeper = heard(kernel)
    for mtu in range(1400, 1420):
        kernel.ways[TUNNEL.remote] = Way(mtu)
        keeper.tick()
        assert kernel.get(DEVICE).mtu == mtu - 50
    assert not [each for each in keeper.log if each["event"].startswith("drift")]


@pytest.mark.parametrize(
    ("remote", "mtu", "is_lost"),
    [("2001:db8::12", 1570, False), ("2001:db8::12", 1569, True), ("198.51.100.12", 1400, False)],
)
def test_who_may_send_what_ipv6_loses_is_told_what_to_do(
    remote: str, mtu: int, is_lost: bool
) -> None:
    """IPv4 fragments it."""
    kernel = Kernel("v0")
    kernel.ways[remote] = Way(mtu)
    keeper = heard(kernel, to_host(tunnel=TUNNEL._replace(remote=remote)))
    warnings = keeper.reconciler.statuses[LINK].warnings
    words = (
        "v0: what is behind it has MTU 1500, and packets of more than 1499 bytes are lost on the"
        " way to 2001:db8::12, as IPv6 does not fragment them: give what is behind both ends an MTU"
        " of 1499, or the way one of 1570"
    )
    assert warnings == ((words,) if is_lost else ())
    assert keeper.states() == {LINK: "connected"}


def test_another_vni_is_another_name() -> None:
    kernel = Kernel("v0")
    keeper = heard(kernel)
    keeper.take(wiring(to_host(tunnel=TUNNEL._replace(vni=101))))
    assert not kernel.has(DEVICE)
    assert kernel.wired("v0", "vxlan-101")


def test_one_that_is_deleted_is_made_again_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_clock(monkeypatch)
    kernel = Kernel("v0")
    keeper = heard(kernel)
    for _ in range(6):
        kernel.delete(DEVICE)
        keeper.settle()
        assert kernel.wired("v0", DEVICE)
    kernel.delete(DEVICE)
    keeper.settle()
    assert not kernel.has(DEVICE)
    words = [each["reason"] for each in keeper.log if each["event"] == "drift.flapping"]
    assert len(words) == 1
    assert "something keeps deleting its tunnel" in words[0]
    keeper.step(11)
    keeper.settle()
    assert kernel.wired("v0", DEVICE)


def test_one_that_somebody_has_lead_elsewhere_is_made_anew() -> None:
    kernel = Kernel("v0")
    keeper = heard(kernel)
    kernel.alter(DEVICE, tunnel=TUNNEL._replace(remote="203.0.113.9"))
    keeper.settle()
    assert kernel.get(DEVICE).tunnel == TUNNEL
    assert keeper.states() == {LINK: "connected"}


def test_one_that_somebody_renamed_is_still_ours() -> None:
    kernel = Kernel("v0")
    keeper = heard(kernel)
    number = kernel.index(DEVICE)
    kernel.alter(DEVICE, name="mine")
    keeper.settle()
    assert kernel.index("mine") == number
    assert kernel.wired("v0", "mine")
    keeper.daemon.stop()
    assert not kernel.has("mine")


def test_somebody_elses_device_of_that_name_fails_the_link_and_is_named() -> None:
    kernel = Kernel("v0")
    kernel.add(DEVICE, "vxlan", tunnel=Tunnel("203.0.113.9", 100, 4789))
    keeper = started(kernel)
    status = keeper.reconciler.statuses[LINK]
    assert status.state == "failed"
    assert status.reason == (
        "vxlan-100, to be made for h2/b, is the name of another interface, a VXLAN device to"
        " 203.0.113.9 that is not ours: rename or delete that, or give the link another vni"
    )
    assert kernel.untouched(DEVICE)
    kernel.delete(DEVICE)
    says(keeper)
    assert keeper.states() == {LINK: "connected"}


def test_a_vni_that_another_device_has_fails_the_link() -> None:
    kernel = Kernel("v0")
    kernel.add("vx", "vxlan", tunnel=Tunnel("203.0.113.9", 100))
    keeper = started(kernel)
    assert keeper.state(LINK) == "failed"
    assert kernel.is_held("v0")
    assert kernel.untouched("vx")


def test_a_port_that_another_program_has_fails_the_link_until_it_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_clock(monkeypatch)
    kernel = Kernel("v0")
    kernel.taken_ports.add(TUNNEL.port)
    keeper = heard(kernel)
    assert keeper.state(LINK) == "failed"
    kernel.taken_ports.clear()
    keeper.step(60)
    keeper.settle()
    assert keeper.states() == {LINK: "connected"}


@pytest.mark.parametrize("mode", [Mode.GENERIC, Mode.NATIVE])
def test_no_xdp_mode_leads_into_a_tunnel(mode: Mode) -> None:
    keeper = started(Kernel("v0"), to_host(mode=mode))
    assert keeper.state(LINK) == "failed"
    assert f"mode {mode} would lose VLAN tags" in keeper.reconciler.statuses[LINK].reason


def test_a_crash_at_any_step_leaves_nothing_unknown() -> None:
    """Whatever was done, the next daemon finishes it, and one that stops leaves nothing."""
    at = 0
    while True:
        kernel = Kernel("v0")
        before = kernel.snapshot()
        keeper = Keeper(kernel)
        kernel.trouble = crash(at)
        keeper.runtime.tunnels.say(FAR)
        try:
            keeper.start(wiring(to_host()))
        except Crash:
            kernel.trouble = lambda *_: None
            keeper = Keeper(kernel, keeper.book)
            keeper.runtime.tunnels.say(FAR)
            keeper.start(wiring(to_host()))
            keeper.settle()
            assert keeper.states() == {LINK: "connected"}, at
            keeper.daemon.stop()
            assert kernel.snapshot() == before, at
            assert (keeper.book.made, keeper.book.records) == ({}, {}), at
        else:
            break
        at += 1
    assert at > 10, "nothing was interrupted"


def test_what_is_recorded_of_one_is_read_again(tmp_path: Path) -> None:
    made = heard(Kernel("v0")).book.made
    Ledger(tmp_path, "cookie").hold_made(made[FAR])
    assert Ledger(tmp_path, "cookie").made == made


# --------------------------------------------------------------------------- heard


def test_nothing_crosses_before_the_other_host_was_heard() -> None:
    """But its tunnel is up, or nobody would ever hear anything."""
    kernel = Kernel("v0")
    keeper = started(kernel)
    status = keeper.reconciler.statuses[LINK]
    assert (status.state, status.reason) == ("down", "nothing was heard from h2 yet")
    assert kernel.is_held("v0")
    assert kernel.is_held(DEVICE)
    assert kernel.get(DEVICE).up
    assert kernel.answers(DEVICE)


def test_keepalives_are_answered_at_tunnels_to_hosts_and_nowhere_else() -> None:
    kernel = Kernel("v0", "v1")
    keeper = heard(kernel, to_host(), to_device("v1"))
    ends = ("v0", DEVICE, "v1", "vxlan-7")
    assert [kernel.answers(end) for end in ends] == [False, True, False, False]
    assert [kernel.cuts(end) for end in ends] == [False, True, False, True]
    kernel.drop_filters(DEVICE)
    keeper.settle()
    assert kernel.answers(DEVICE)


def test_a_host_that_is_silent_takes_the_wire_and_the_carrier() -> None:
    kernel = Kernel("v0")
    keeper = heard(kernel)
    says(keeper, alive=False, reason="h2 does not answer")
    status = keeper.reconciler.statuses[LINK]
    assert (status.state, status.reason) == ("down", "h2 does not answer")
    assert kernel.is_held("v0")
    assert kernel.is_held(DEVICE)
    assert not kernel.get("v0").up
    assert kernel.get(DEVICE).up
    says(keeper)
    assert keeper.states() == {LINK: "connected"}
    assert kernel.get("v0").up
    assert kernel.wired("v0", DEVICE)


def test_a_carrier_stays_as_it_is_until_somebody_knows() -> None:
    """Setting an end down takes the kernel 20 ms, and whatever is behind it notices."""
    kernel = Kernel("v0")
    keeper = started(kernel)
    assert Step("set up", kernel.index("v0")) not in kernel.steps
    assert kernel.get("v0").up
    says(keeper, alive=False, reason="h2 does not answer")
    assert not kernel.get("v0").up
    again = keeper.restart()
    again.settle()
    assert again.reconciler.statuses[LINK].state == "down"
    assert not kernel.get("v0").up, "it was hidden, and nothing was heard since"


def test_a_host_that_is_silent_takes_no_carrier_that_is_independent() -> None:
    kernel = Kernel("v0")
    keeper = heard(kernel, to_host(carrier=Carrier.INDEPENDENT))
    says(keeper, alive=False, reason="h2 does not answer")
    assert keeper.reconciler.statuses[LINK].reason == "h2 does not answer"
    assert kernel.get("v0").up
    assert kernel.is_held("v0")


def test_while_nobody_knows_what_stands_stays() -> None:
    kernel = Kernel("v0")
    keeper = heard(kernel)
    says(keeper, alive=None)
    assert keeper.states() == {LINK: "connected"}
    assert kernel.wired("v0", DEVICE)


def test_an_end_there_that_does_not_offer_hides_the_carrier_here() -> None:
    kernel = Kernel("v0")
    keeper = heard(kernel)
    says(keeper, offers=False, cause="eth1 in leaf1 is down")
    status = keeper.reconciler.statuses[LINK]
    assert status.state == "down"
    assert status.reason == "no carrier is shown at h1/v0: h2: eth1 in leaf1 is down"
    assert not kernel.get("v0").up
    assert kernel.wired("v0", DEVICE), "it is the carrier alone"
    says(keeper)
    assert keeper.states() == {LINK: "connected"}


def test_an_end_there_that_does_not_offer_is_told_without_a_carrier_too() -> None:
    keeper = heard(Kernel("v0"), to_host(carrier=Carrier.INDEPENDENT))
    says(keeper, offers=False, cause="eth1 in leaf1 is down")
    status = keeper.reconciler.statuses[LINK]
    assert (status.state, status.reason) == ("down", "h2: eth1 in leaf1 is down")


def test_a_link_that_is_disabled_is_held_whatever_is_heard() -> None:
    kernel = Kernel("v0")
    keeper = heard(kernel, to_host(enabled=False))
    assert keeper.states() == {LINK: "disabled"}
    assert kernel.is_held(DEVICE)
    assert kernel.get(DEVICE).up, "the other host is told that it is disabled"
    assert announced(keeper) == (False, "the link is disabled")


def test_admin_keep_does_not_leave_a_tunnel_down() -> None:
    keeper = heard(Kernel("v0"), to_host(admin=Admin.KEEP))
    assert keeper.states() == {LINK: "connected"}


# --------------------------------------------------------------------------- said


def test_the_other_host_is_told_of_the_link_as_it_is_here() -> None:
    kernel = Kernel("v0")
    keeper = heard(kernel, to_host(hold=5.0))
    told = keeper.runtime.tunnels.announced[FAR]
    assert (told.link, told.ifindex, told.tunnel) == (LINK, kernel.index(DEVICE), TUNNEL)
    assert (told.digest, told.hold, told.state) == ("1a2b", 5.0, "connected")
    assert announced(keeper) == (True, "")


def test_it_is_told_that_what_is_behind_the_end_here_is_down() -> None:
    kernel = Kernel("v0")
    keeper = heard(kernel)
    kernel.alter("v0", far=Far(2, 0, "eth0", 1500, False))
    keeper.settle()
    assert announced(keeper) == (False, "eth0, the far end of v0, is down")


def test_it_is_told_of_an_end_here_that_is_not_there() -> None:
    keeper = started(Kernel())
    assert announced(keeper) == (False, "v0 does not exist")
    assert keeper.state(LINK) == "waiting"


@pytest.mark.parametrize(
    "said",
    [
        {"alive": False, "reason": "h2 does not answer"},
        {"offers": False, "cause": "b does not exist"},
        {"alive": None},
    ],
)
def test_what_is_told_does_not_depend_on_what_was_heard(said: dict[str, object]) -> None:
    """Else two hosts hold each other down for ever."""
    keeper = heard(Kernel("v0"))
    says(keeper, **said)
    assert announced(keeper) == (True, "")


def test_a_link_that_went_is_told_no_more_and_at_a_stop_none() -> None:
    kernel = Kernel("v0", "v1")
    keeper = heard(kernel)
    keeper.take(Wiring())
    assert keeper.runtime.tunnels.announced == {}
    keeper.take(wiring(to_host()))
    told: list[bool] = []
    want = keeper.runtime.tunnels.want

    def note(announcements: object, key: str) -> None:
        told.append(kernel.has(DEVICE))
        want(announcements, key)

    keeper.runtime.tunnels.want = note
    keeper.daemon.stop()
    assert told == [True], "as long as there is a way to say so"


def test_another_key_is_told_at_once() -> None:
    keeper = heard(Kernel("v0"))
    keeper.take(replace(keeper.reconciler.wiring, hosts_key="secret"))
    assert keeper.runtime.tunnels.key == "secret"
    assert [*keeper.runtime.tunnels.announced] == [FAR]


def test_links_that_lead_to_no_host_are_told_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Tunnels, "want", fail)
    monkeypatch.setattr(Tunnels, "heard", fail)
    kernel = Kernel("v0", "v1", "v2")
    keeper = started(kernel, link("v1", "v2"), to_device())
    keeper.daemon.stop()


# --------------------------------------------------------------------------- nobody's host


def test_a_device_of_somebody_else_at_the_other_end_is_always_alive() -> None:
    kernel = Kernel("v0")
    keeper = started(kernel, to_device())
    assert keeper.states() == {f"v0,{ELSEWHERE}": "connected"}
    assert kernel.wired("v0", "vxlan-7")
    assert kernel.get("vxlan-7").tunnel == ("203.0.113.5", 7, 4789)


def test_macs_are_swapped_where_frames_come_from_an_end_of_ours() -> None:
    """The other host swaps those that enter by its own. Of a device that is not ours nobody else
    does."""
    kernel = Kernel("v0", "v1")
    heard(kernel, to_host(rewrite=Rewrite.SWAP_MACS), to_device("v1", rewrite=Rewrite.SWAP_MACS))
    assert kernel.swaps("v0")
    assert not kernel.swaps(DEVICE)
    assert kernel.swaps("v1")
    assert kernel.swaps("vxlan-7")


@pytest.mark.parametrize("forward", [True, False])
def test_a_link_that_leads_one_way_is_closed_at_the_other_end_here(forward: bool) -> None:
    kernel = Kernel("v0")
    whole = to_host(one_way=True)
    keeper = heard(kernel, whole if forward else replace(whole, a=whole.b, b=whole.a))
    assert keeper.states() == {LINK: "connected"}
    ends = ("v0", DEVICE) if forward else (DEVICE, "v0")
    assert kernel.leads_one_way(*ends)


# --------------------------------------------------------------------------- no good file


def found(keeper: Keeper) -> tuple[Link, ...]:
    return keeper.reconciler.found()


def test_a_wire_to_a_host_is_found_in_the_kernel_as_it_was_asked_for() -> None:
    keeper = heard(Kernel("v0"), to_host())
    (link,) = found(keeper)
    assert (link.id, link.digest, link.enabled) == (LINK, "1a2b", True)
    tunnel = next(end for end in link.ends if end.tunnel)
    assert (tunnel.host, tunnel.tunnel, tunnel.name) == ("h2", TUNNEL, FAR)


def test_without_a_good_file_it_goes_on_and_comes_back() -> None:
    """Also one that was held when the daemon ended, since the other host was silent."""
    kernel = Kernel("v0")
    keeper = heard(kernel)
    for said in ({}, {"alive": False, "reason": "h2 does not answer"}):
        says(keeper, **said)
        before = kernel.snapshot()
        again = Keeper(kernel, keeper.book)
        again.start(Wiring(found(again)))
        again.settle()
        assert kernel.snapshot() == before
        assert again.runtime.tunnels.announced[FAR].digest == "1a2b"
        says(again)
        assert kernel.wired("v0", DEVICE)


def test_without_a_good_file_what_is_disabled_stays_so() -> None:
    kernel = Kernel("v0")
    keeper = heard(kernel, to_host(enabled=False))
    again = Keeper(kernel, keeper.book)
    again.start(Wiring(found(again)))
    says(again)
    assert kernel.is_held("v0")
    assert kernel.is_held(DEVICE)


# --------------------------------------------------------------------------- with nodes


def test_an_end_in_a_node_can_lead_to_a_host() -> None:
    kernel = Kernel()
    kernel.start_node("leaf1")
    here = Endpoint("leaf1:eth1", Node("leaf1"), "h1/leaf1:eth1", "h1")
    there = Endpoint("h2/spine1:eth1", Node("spine1"), host="h2", tunnel=TUNNEL)
    keeper = started(kernel, Link(here, there, digest="1a2b"))
    keeper.runtime.tunnels.say("h2/spine1:eth1")
    keeper.settle()
    assert keeper.states() == {"h1/leaf1:eth1,h2/spine1:eth1": "connected"}
    assert kernel.wired("leaf1-eth1", DEVICE)
    kernel.stop_node("leaf1")
    keeper.settle()
    told = keeper.runtime.tunnels.announced["h2/spine1:eth1"]
    assert (told.offers, "node leaf1 is not running" in told.cause) == (False, True)
    kernel.start_node("leaf1")
    keeper.settle()
    assert kernel.wired("leaf1-eth1", DEVICE)


# --------------------------------------------------------------------------- laws

OTHER = "vxlan-101"
SAYINGS = st.builds(
    Heard,
    alive=st.sampled_from((True, True, False, None)),
    reason=st.sampled_from(("", "h2 does not answer")),
    offers=st.booleans(),
    cause=st.just("eth1 in leaf1 is down"),
)
EDITS = st.builds(
    to_host,
    st.just("v0"),
    st.sampled_from((TUNNEL, TUNNEL, TUNNEL._replace(vni=101), TUNNEL._replace(remote="fd00::2"))),
    digest=st.sampled_from(("1a2b", "3c4d")),
    one_way=st.booleans(),
    enabled=st.sampled_from((True, True, True, False)),
    rewrite=st.sampled_from((Rewrite.NONE, Rewrite.SWAP_MACS)),
    carrier=st.sampled_from(Carrier),
    admin=st.sampled_from((Admin.MANAGE, Admin.MANAGE, Admin.KEEP)),
)
HARM: dict[str, Callable[[Kernel, str], object]] = {
    "deleted": Kernel.delete,
    "renamed": lambda kernel, name: kernel.alter(name, name="mine"),
    "set down": lambda kernel, name: kernel.alter(name, up=False),
    "set up": lambda kernel, name: kernel.alter(name, up=True),
    "given another MAC": lambda kernel, name: kernel.alter(name, mac="02:ff:00:00:00:01"),
    "rid of clsact": Kernel.drop_filters,
    "rid of its entry": Kernel.lose_entry,
    "made to lead elsewhere": lambda kernel, name: kernel.alter(
        name, tunnel=Tunnel("203.0.113.9", 100)
    ),
}
ACCIDENTS = st.tuples(st.sampled_from(sorted(HARM)), st.sampled_from((DEVICE, OTHER, "mine", "v0")))


def strike(keeper: Keeper, what: str, name: str) -> None:
    """A veth leads nowhere but to its own far end, and no two devices share a name."""
    kernel = keeper.kernel
    fits = kernel.has(name) and not (what == "renamed" and kernel.has("mine"))
    if fits and not (what == "made to lead elsewhere" and kernel.get(name).kind == "veth"):
        HARM[what](kernel, name)


def assert_whole(keeper: Keeper, said: Heard) -> None:
    """Both ways or none, as the link and the other host will have it; and nothing is left to do."""
    kernel, (link,) = keeper.kernel, keeper.reconciler.wiring.links
    assert keeper.reconciler.look().actions == ()
    status = keeper.reconciler.statuses[link.id]
    if status.state in ("failed", "waiting") or not kernel.has("v0"):
        return
    device = status.b.host_interface
    crosses = kernel.leads_one_way if link.one_way else kernel.wired
    is_wired = crosses("v0", device)
    assert is_wired or (kernel.is_held("v0") and kernel.is_held(device))
    assert not (is_wired and (said.alive is False or not link.enabled))
    assert is_wired or said.alive is not True or not link.enabled
    assert kernel.get(device).tunnel == link.b.tunnel
    assert kernel.answers(device)
    assert kernel.swaps("v0") is (link.rewrite is Rewrite.SWAP_MACS)
    told = keeper.runtime.tunnels.announced[FAR]
    assert (told.ifindex, told.digest) == (kernel.index(device), link.digest)


# With more accidents the link would flap, and be left alone for a while.
@given(st.lists(st.one_of(SAYINGS, EDITS, ACCIDENTS, st.just("restart")), max_size=5))
def test_whatever_happens_a_wire_is_whole_or_none_and_leaves_nothing(story: list[object]) -> None:
    kernel = Kernel("v0")
    keeper = started(kernel)
    said = Heard()
    for event in story:
        match event:
            case Heard():
                said = event
                keeper.runtime.tunnels.say(FAR, **said._asdict())
            case Link():
                keeper.take(wiring(event))
            case (str(what), str(name)):
                strike(keeper, what, name)
            case "restart":
                keeper = keeper.restart()
                keeper.runtime.tunnels.say(FAR, **said._asdict())
        keeper.settle()
        keeper.tick()  # nobody tells of an entry that is lost
        keeper.settle()
        assert_whole(keeper, said)
    keeper.daemon.stop()
    assert (keeper.book.made, keeper.book.records) == ({}, {})
    assert all(map(kernel.untouched, [each.name for each in kernel.devices.values()]))
