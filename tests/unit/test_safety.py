"""What must not be connected: lock-outs, ports, foreign programs, cycles, one interface twice."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest
from builders import PROGRAMS, link, look
from hypothesis import given
from hypothesis import strategies as st

from xconnectd.model import Far, Filter, Interface, Link, Mode, MovedEnd, Observed, Record, Use, Xdp
from xconnectd.reconcile import admission, evaluate

MAC = "02:00:00:00:00:05"
AB, ALLOWED = link("a", "b"), link("a", "b", allow_addressed=True)
OTHER = Interface(6, "b", kind="veth", max_mtu=65535)
HELD = {5: Record(5, "a", MAC)}
HELD_ALLOWED = {5: Record(5, "a", MAC, allowed=True)}
NOT_IT = {5: Record(5, "a", "02:00:00:00:00:99")}
USED = {5: (Use("it has the address 192.0.2.1/24"), Use("the default route uses it"))}
LEARNT = {5: (Use("it has the address fd00:77::1/64", learnt=True),)}
IN_USE = "the host uses a: it has the address 192.0.2.1/24; the default route uses it"


def end(**facts: Any) -> Interface:
    return Interface(5, "a", **{"kind": "veth", "mac": MAC, "max_mtu": 65535, **facts})


def refusal(one: Interface, wanted: Link = AB, mode: Mode = Mode.GENERIC, **facts: Any) -> str:
    return admission.refusal(wanted, mode, one, OTHER, look(one, **facts))


PLAIN = end()
PORT = end(master=9, master_kind="bridge")
CILIUM = end(xdp=(Xdp("native", 77),))
FILTERED = end(qdisc="clsact", ingress=(Filter("bpf", 49152, 1, 77, "cil_from"),))
IN_OUR_PLACE = end(qdisc="clsact", egress=(Filter("u32", 1, 7, 0),))
OURS_BY_NUMBER = end(qdisc="clsact", ingress=(Filter("bpf", 1, 1, 77, "x"),))
BESIDE = end(qdisc="clsact", egress=(Filter("bpf", 1, 2, 77),))
OLD_OURS = replace(PROGRAMS, known=frozenset((66,)))

# The end, what else is seen, the link, its mode: why not; empty where it may be connected.
CASES: list[tuple[Interface, dict[str, Any], Link, Mode, str]] = [
    (PLAIN, {}, AB, Mode.GENERIC, ""),
    # The host uses it.
    (PLAIN, {"uses": USED}, AB, Mode.GENERIC, f"{IN_USE} (allow_addressed: true overrides this)"),
    (PLAIN, {"uses": USED}, ALLOWED, Mode.GENERIC, ""),
    (PLAIN, {"uses": USED, "records": HELD}, AB, Mode.GENERIC, ""),
    (PLAIN, {"uses": USED, "records": NOT_IT}, AB, Mode.GENERIC, IN_USE),
    (PLAIN, {"uses": USED, "records": HELD, "entries": {5: 7}}, AB, Mode.GENERIC, IN_USE),
    (PLAIN, {"uses": USED, "records": HELD, "peers": {5: 7}}, AB, Mode.GENERIC, IN_USE),
    (PLAIN, {"uses": USED, "records": HELD, "entries": {5: 6}}, AB, Mode.GENERIC, ""),
    (PLAIN, {"uses": USED, "records": HELD_ALLOWED, "entries": {5: 6}}, AB, Mode.GENERIC, IN_USE),
    (PLAIN, {"uses": USED, "records": HELD_ALLOWED}, ALLOWED, Mode.GENERIC, ""),
    # Others use it.
    (PORT, {}, AB, Mode.TC, "a is a port of a bridge; release it: ip link set dev a nomaster"),
    (PORT, {}, ALLOWED, Mode.TC, "a is a port of a bridge"),
    (PORT, {"records": HELD}, AB, Mode.TC, ""),
    (PORT, {"records": HELD, "entries": {5: 7}}, AB, Mode.TC, "a is a port of a bridge"),
    (end(master=9, master_kind="openvswitch"), {}, AB, Mode.TC, "release it: ovs-vsctl del-port a"),
    (end(master=9), {}, AB, Mode.TC, "a is a port of a master device"),
    (CILIUM, {"foreign": {77: "id 77 (cilium)"}}, AB, Mode.GENERIC, "not ours: id 77 (cilium)"),
    (CILIUM, {"records": HELD}, AB, Mode.GENERIC, "a runs an XDP program that is not ours: id 77"),
    (end(xdp=(Xdp("generic", 101),)), {}, AB, Mode.GENERIC, ""),
    (end(xdp=(Xdp("generic", 66),)), {"programs": OLD_OURS}, AB, Mode.GENERIC, ""),
    (FILTERED, {}, AB, Mode.TC, "tc ingress filter that is not ours: bpf cil_from"),
    (FILTERED, {}, AB, Mode.GENERIC, ""),
    (IN_OUR_PLACE, {}, AB, Mode.GENERIC, "a tc egress filter that is not ours: u32"),
    (OURS_BY_NUMBER, {}, AB, Mode.GENERIC, "a tc ingress filter that is not ours: bpf x"),
    (BESIDE, {}, AB, Mode.TC, ""),
    (end(qdisc="ingress"), {}, AB, Mode.TC, "remove it: tc qdisc del dev a ingress"),
]


@pytest.mark.parametrize(("one", "facts", "wanted", "mode", "words"), CASES)
def test_what_may_be_connected(
    one: Interface, facts: dict[str, Any], wanted: Link, mode: Mode, words: str
) -> None:
    told = refusal(one, wanted, mode, **facts)
    assert words in told
    assert bool(words) == bool(told)


WARNINGS: list[tuple[Interface, dict[str, Any], Link, list[str]]] = [
    (PLAIN, {"uses": USED, "records": HELD}, AB, [f"a: {use.words}" for use in USED[5]]),
    (PLAIN, {"uses": USED, "records": HELD}, ALLOWED, []),
    (PLAIN, {"uses": USED}, AB, []),  # it is refused anyway
    (PORT, {"records": HELD}, AB, ["a is a port of a bridge; release it: ip link set dev a nomas"]),
]


@pytest.mark.parametrize(("one", "facts", "wanted", "words"), WARNINGS)
def test_what_comes_upon_an_end_that_is_held_is_a_warning(
    one: Interface, facts: dict[str, Any], wanted: Link, words: list[str]
) -> None:
    told = admission.warnings(wanted, one, look(one, **facts))
    assert [each[: len(it)] for each, it in zip(told, words, strict=True)] == words


@pytest.mark.parametrize(
    ("kind", "is_use"), [("veth", False), ("tun", False), ("", True), ("macvlan", True)]
)
def test_what_a_router_taught_the_host_is_its_use_of_a_nic_alone(kind: str, is_use: bool) -> None:
    one = end(kind=kind)
    assert bool(refusal(one, uses=LEARNT)) == is_use
    assert bool(admission.learnt(one, look(one, uses=LEARNT))) != is_use
    assert bool(admission.warnings(AB, one, look(one, uses=LEARNT, records=HELD))) == is_use


def test_the_remedy_for_an_end_in_another_netns_names_the_mode() -> None:
    """And runs nothing that a name says: whoever owns the other namespace may choose it."""
    for mode, flag in (("generic", "xdpgeneric"), ("native", "xdpdrv"), ("hw", "xdp")):
        remedy = MovedEnd(Record(5, "old0", MAC), mode).remedy
        assert remedy == f"# in the namespace where it is now: ip link set dev old0 {flag} off"
    there = MovedEnd(Record(5, "old0", MAC), "generic", 3, 5, "a b", "x;$(id)|`")
    words = ["ip", "-n", "a b", "link", "set", "dev", "x;$(id)|`", "xdpgeneric", "off"]
    assert shlex.split(there.remedy) == words


def veths(count: int, nsid: int | None = None) -> Observed:
    """``count`` veths, ends 10 and 11, 20 and 21, and so on; the far ends in ``nsid``."""
    ends = [(10 * n + side, 10 * n + 1 - side) for n in range(1, count + 1) for side in (0, 1)]
    return look(
        *(Interface(here, f"v{here}", kind="veth", far=Far(there, nsid)) for here, there in ends)
    )


def cycles(count: int, *pairs: tuple[int, int]) -> dict[str, str]:
    return dict(admission.cycles([(f"{a}:{b}", a, b) for a, b in pairs], veths(count)))


def ring(length: int) -> list[tuple[int, int]]:
    """Links from each veth to the next, and from the last to the first."""
    chain = [(10 * number + 1, 10 * number + 10) for number in range(1, length)]
    return [*chain, (10 * length + 1, 10)]


def chain(length: int, plugs: int) -> list[tuple[int, int]]:
    """Links from each veth to the next; frames turn at a loopback on either end, or on one."""
    return [*ring(length)[:-1], *[(10, 10), (10 * length + 1,) * 2][:plugs]]


def last(pairs: list[tuple[int, int]]) -> list[str]:
    return ["{}:{}".format(*pairs[-1])]


@given(st.data(), st.integers(1, 7))
def test_a_cycle_of_any_length_is_closed_by_its_last_link(data: st.DataObject, length: int) -> None:
    """In any order, written either way round; without any one of its links there is none."""
    whole = data.draw(st.sampled_from((ring(length), chain(length, 2))))
    pairs = [pair[::-1] if data.draw(st.booleans()) else pair for pair in whole]
    pairs = data.draw(st.permutations(pairs))
    found = cycles(length, *pairs)
    assert list(found) == last(pairs)
    assert "circle for ever" in found[last(pairs)[0]]
    assert all(f"v{10 * number}" in found[last(pairs)[0]] for number in range(1, length + 1))
    missing = data.draw(st.sampled_from(pairs))
    assert cycles(length, *(pair for pair in pairs if pair != missing)) == {}


def test_cycles_beside_each_other() -> None:
    assert cycles(1, (10, 10)) == cycles(2, *chain(2, 1)) == {}, "one loopback is none"
    assert list(cycles(2, (10, 11), (20, 21))) == ["10:11", "20:21"]
    refused_opens_the_way = cycles(2, (11, 20), (21, 10), (11, 10))
    assert "21:10" in refused_opens_the_way
    assert admission.cycles([("10:11", 10, 11)], veths(1, nsid=0)) == {}, "far ends elsewhere"


ETH0 = Interface(5, "eth0", ("uplink",), kind="veth", max_mtu=65535)
ETH1 = Interface(6, "eth1", kind="veth", max_mtu=65535)
ETH2 = Interface(7, "eth2", kind="veth", max_mtu=65535)
MACVLAN = Interface(8, "mv", kind="macvlan", variant="vepa", max_mtu=1500)
BRIDGE = Interface(9, "br", kind="bridge", max_mtu=65535)


def evaluated(*links: Link, **options: Any) -> list[evaluate.Evaluation]:
    return evaluate.evaluate(links, look(ETH0, ETH1, ETH2, MACVLAN, BRIDGE), **options)


@pytest.mark.parametrize(
    ("pair", "waiting", "refusal"),
    [
        (("eth0", "no0"), "no0 does not exist", ""),
        (("no0", "no1"), "no0 and no1 do not exist", ""),
        (("no0", "no0"), "no0 does not exist", ""),
        (("eth0", "uplink"), "", "eth0 and uplink are the same interface, eth0"),
        (("uplink", "eth1"), "", ""),
    ],
)
def test_links_by_the_names_of_the_ends(pair: tuple[str, str], waiting: str, refusal: str) -> None:
    (one,) = evaluated(link(*pair))
    assert (one.waiting, one.refusal, one.stands) == (waiting, refusal, not (waiting or refusal))


def test_of_two_links_that_share_an_interface_the_later_fails_and_names_the_other() -> None:
    pairs = [link("eth0", "eth1"), link("uplink", "eth2")]
    for first, second in (pairs, pairs[::-1]):
        stands, refused = evaluated(first, second)
        assert stands.stands
        assert refused.refusal == f"eth0 is an end of link {first.id} already"
        roles = evaluate.roles([stands, refused])
        assert {index: role.link for index, role in roles.items() if not role.held} == {
            end.ifindex: first for end in stands.ends
        }


def test_where_the_ends_of_a_link_lead() -> None:
    """What the kernel refused does not stand: held, but for what it would not let us hold."""
    off, refused = link("eth0", "eth1", enabled=False), evaluate.Refused("EBUSY", frozenset((6,)))
    for one, targets in (
        (link("eth0", "eth1"), {5: 6, 6: 5}),
        (link("eth0", "eth0"), {5: 5}),
        (off, {5: None, 6: None}),
    ):
        roles = evaluate.roles(evaluated(one))
        assert {index: role.target for index, role in roles.items()} == targets
    (judged,) = evaluated(link("eth0", "eth1"), failed={"eth0:eth1": refused})
    assert judged.refusal == "EBUSY"
    assert {index: role.held for index, role in evaluate.roles([judged]).items()} == {5: "EBUSY"}


def test_an_end_that_sees_its_own_frames_only_is_warned_about() -> None:
    for name, words in (("mv", "in vepa mode receives"), ("br", "a bridge")):
        (one,) = evaluated(link(name, "eth1"))
        assert (one.stands, any(words in warning for warning in one.warnings)) == (True, True)
