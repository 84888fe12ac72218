"""What must not be connected: lock-outs, ports, foreign programs, ends in another netns, cycles."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from builders import link, look

from xconnectd.model import (
    Far,
    Filter,
    Interface,
    Link,
    Mode,
    MovedEnd,
    Observed,
    Programs,
    Record,
    Use,
    Xdp,
)
from xconnectd.reconcile import admission, evaluate

MAC = "02:00:00:00:00:05"
AB = link("a", "b")


def end(**facts: Any) -> Interface:
    return Interface(5, "a", **{"kind": "veth", "mac": MAC, "max_mtu": 65535, **facts})


def refusal(one: Interface, *, wanted: Link = AB, mode: Mode = Mode.GENERIC, **facts: Any) -> str:
    return admission.refusal(wanted, mode, one, OTHER, look(one, **facts))


HELD = {5: Record(5, "a", MAC)}
OTHER = Interface(6, "b", kind="veth", max_mtu=65535)
ADDRESS = {5: (Use("it carries 192.0.2.1/24"), Use("the default route leads over it"))}
LEARNT = {5: (Use("it carries fd00:77::1/64", learnt=True),)}


def test_a_plain_interface_may_be_connected() -> None:
    assert refusal(end()) == ""


# --------------------------------------------------------------------------- lock-out


def test_an_interface_the_host_uses_is_refused_with_every_use_and_the_way_out() -> None:
    words = refusal(end(), uses=ADDRESS)
    assert words.startswith("the host uses a: ")
    for part in ("192.0.2.1/24", "default route", "allow_addressed: true"):
        assert part in words


def test_unless_the_link_allows_it() -> None:
    assert refusal(end(), wanted=link("a", "b", allow_addressed=True), uses=ADDRESS) == ""


def test_one_that_is_held_already_runs_on_with_a_warning() -> None:
    one = end()
    assert refusal(one, uses=ADDRESS, records=HELD) == ""
    found = admission.warnings(AB, one, look(one, uses=ADDRESS, records=HELD))
    assert found == ("a: it carries 192.0.2.1/24", "a: the default route leads over it")


def test_no_warning_of_what_is_allowed_or_of_an_end_that_is_refused_anyway() -> None:
    one, allowed = end(), link("a", "b", allow_addressed=True)
    assert admission.warnings(allowed, one, look(one, uses=ADDRESS, records=HELD)) == ()
    assert admission.warnings(AB, one, look(one, uses=ADDRESS)) == ()


@pytest.mark.parametrize("entries", [{"entries": {5: 7}}, {"peers": {5: 7}}])
def test_one_that_led_elsewhere_until_now_is_judged_as_a_new_one(entries: Any) -> None:
    assert "the host uses a" in refusal(end(), uses=ADDRESS, records=HELD, **entries)
    port = end(master=3, master_kind="bridge")
    assert "port of a bridge" in refusal(port, records=HELD, **entries)


def test_a_link_that_allows_less_than_before_is_judged_as_a_new_one() -> None:
    held = {5: HELD[5]._replace(allowed=True)}
    facts = {"uses": ADDRESS, "records": held, "entries": {5: 6}}
    assert "the host uses a" in refusal(end(), **facts)
    assert refusal(end(), wanted=link("a", "b", allow_addressed=True), **facts) == ""


def test_a_record_of_an_earlier_device_with_this_number_holds_nothing() -> None:
    other = {5: Record(5, "a", "02:00:00:00:00:99")}
    assert "the host uses a" in refusal(end(), uses=ADDRESS, records=other)


# --------------------------------------------------------------------------- ports

WAYS_OUT = {
    "bridge": "ip link set dev a nomaster",
    "bond": "ip link set dev a nomaster",
    "team": "ip link set dev a nomaster",
    "vrf": "ip link set dev a nomaster",
    "openvswitch": "ovs-vsctl del-port a",
    "": "ip link set dev a nomaster",
}


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize(("kind", "way_out"), WAYS_OUT.items())
def test_a_port_is_refused_with_the_way_out(kind: str, way_out: str, allowed: bool) -> None:
    port = end(master=9, master_kind=kind)
    words = refusal(port, wanted=link("a", "b", allow_addressed=allowed))
    assert f"a is a port of a {kind or 'master device'}" in words
    assert words.endswith(way_out)


def test_an_end_that_becomes_a_port_runs_on_with_a_warning() -> None:
    port = end(master=9, master_kind="bridge")
    assert refusal(port, records=HELD) == ""
    (warning,) = admission.warnings(AB, port, look(port, records=HELD))
    assert "port of a bridge" in warning


# --------------------------------------------------------------------------- foreign programs


def test_a_foreign_program_is_named_by_id_and_name() -> None:
    foreign = end(xdp=(Xdp("native", 77),))
    words = refusal(foreign, foreign={77: "id 77 (cilium)"})
    assert "a runs an XDP program that is not ours: id 77 (cilium)" in words
    assert "id 77" in refusal(foreign)


def test_held_or_not_a_foreign_program_is_refused() -> None:
    assert "not ours" in refusal(end(xdp=(Xdp("generic", 77),)), records=HELD)


@pytest.mark.parametrize("program", [101, 66])
def test_our_own_program_is_not_foreign(program: int) -> None:
    """Neither the current one nor one that only the ledger knows."""
    programs = Programs(101, 102, 103, frozenset((66,)))
    assert refusal(end(xdp=(Xdp("generic", program),)), programs=programs) == ""


def test_a_foreign_ingress_filter_is_refused_where_it_is_in_the_way() -> None:
    shared = end(qdisc="clsact", ingress=(Filter("bpf", 49152, 1, 77, "cil_from"),))
    assert "tc ingress filter that is not ours: bpf cil_from" in refusal(shared, mode=Mode.TC)
    assert refusal(shared, mode=Mode.GENERIC) == ""


def test_an_ingress_qdisc_is_refused_with_the_way_out() -> None:
    words = refusal(end(qdisc="ingress"))
    assert words.endswith("tc qdisc del dev a ingress")


# ------------------------------------------------------------------------ ends in another netns


@pytest.mark.parametrize(
    ("mode", "flag"), [("generic", "xdpgeneric"), ("native", "xdpdrv"), ("hw", "xdp")]
)
def test_the_remedy_names_the_mode(mode: str, flag: str) -> None:
    remedy = MovedEnd(Record(5, "old0", MAC), mode).remedy
    assert remedy == f"# in the namespace where it is now: ip link set dev old0 {flag} off"


def test_the_remedy_runs_nothing_that_a_name_says() -> None:
    """Whoever owns the other namespace may call the device what they like."""
    there = MovedEnd(Record(5, "old0", MAC), "generic", 3, 5, "a b", "x;$(id)|`")
    words = ["ip", "-n", "a b", "link", "set", "dev", "x;$(id)|`", "xdpgeneric", "off"]
    assert shlex.split(there.remedy) == words


# --------------------------------------------------------------------------- cycles


def veths(count: int) -> Observed:
    """``count`` veths in this namespace, ends 10 and 11, 20 and 21, and so on."""
    found = {}
    for number in range(10, 10 * count + 10, 10):
        for here, there in ((number, number + 1), (number + 1, number)):
            far = Far(there, None)
            found[here] = Interface(here, f"v{here}", kind="veth", far=far)
    return Observed(interfaces=found)


def cycles(count: int, *pairs: tuple[int, int]) -> dict[str, str]:
    found = admission.cycles([(f"{a}:{b}", a, b) for a, b in pairs], veths(count))
    return dict(found)


def ring(length: int) -> list[tuple[int, int]]:
    """Links from each veth to the next, and from the last to the first."""
    chain = [(10 * number + 1, 10 * number + 10) for number in range(1, length)]
    return [*chain, (10 * length + 1, 10)]


@pytest.mark.parametrize("length", range(1, 8))
def test_a_ring_of_any_length_is_a_cycle_and_only_the_last_link_closes_it(length: int) -> None:
    pairs = ring(length)
    found = cycles(length, *pairs)
    last = f"{pairs[-1][0]}:{pairs[-1][1]}"
    assert list(found) == [last]
    assert "circle for ever" in found[last]
    assert all(f"v{10 * number}" in found[last] for number in range(1, length + 1))


@pytest.mark.parametrize("length", range(2, 8))
def test_without_any_one_of_its_links_there_is_none(length: int) -> None:
    for missing in ring(length):
        assert cycles(length, *(pair for pair in ring(length) if pair != missing)) == {}


@pytest.mark.parametrize("turned", range(3))
def test_links_may_be_written_either_way_round(turned: int) -> None:
    pairs = ring(3)
    pairs[turned] = pairs[turned][::-1]
    assert len(cycles(3, *pairs)) == 1


def test_one_plug_is_no_cycle() -> None:
    assert cycles(1, (10, 10)) == {}


def test_plugs_on_both_ends_of_a_veth_are() -> None:
    assert list(cycles(1, (10, 10), (11, 11))) == ["11:11"]


@pytest.mark.parametrize("last", range(3))
def test_two_plugs_with_a_wire_between_are_whichever_comes_last(last: int) -> None:
    """Frames go to and fro: in at one plug, along the link, in at the other, and back."""
    pairs = [(10, 10), (11, 20), (21, 21)]
    pairs.append(pairs.pop(last))
    closing = f"{pairs[-1][0]}:{pairs[-1][1]}"
    assert list(cycles(2, *pairs)) == [closing]


@pytest.mark.parametrize("last", range(4))
def test_plugs_at_the_ends_of_a_longer_chain(last: int) -> None:
    pairs = [(10, 10), (11, 20), (21, 30), (31, 31)]
    pairs.append(pairs.pop(last))
    assert len(cycles(3, *pairs)) == 1


def test_one_plug_at_the_end_of_a_chain_is_none() -> None:
    assert cycles(2, (10, 10), (11, 20)) == {}


def test_a_far_end_in_another_namespace_closes_nothing() -> None:
    apart = {
        index: Interface(index, f"v{index}", kind="veth", far=Far(other, 0))
        for index, other in ((10, 11), (11, 10))
    }
    assert admission.cycles([("10:11", 10, 11)], Observed(interfaces=apart)) == {}


def test_two_cycles_are_both_named() -> None:
    assert list(cycles(2, (10, 11), (20, 21))) == ["10:11", "20:21"]


def test_a_refused_link_opens_the_way_for_the_next() -> None:
    """The link that closes a cycle does not stand, so it is in no other cycle."""
    found = cycles(2, (11, 20), (21, 10), (11, 10))
    assert "21:10" in found


# --------------------------------------------------------------------------- one interface twice


ETH0 = Interface(5, "eth0", ("uplink",), kind="veth", max_mtu=65535)
ETH1 = Interface(6, "eth1", kind="veth", max_mtu=65535)
ETH2 = Interface(7, "eth2", kind="veth", max_mtu=65535)


def test_two_names_of_one_interface_are_no_pair() -> None:
    (one,) = evaluate.evaluate([link("eth0", "uplink")], look(ETH0))
    assert one.refusal == "eth0 and uplink are one interface, eth0"


def test_of_two_links_that_share_an_interface_the_later_fails_and_names_the_other() -> None:
    pairs = [link("eth0", "eth1"), link("uplink", "eth2")]
    first, second = evaluate.evaluate(pairs, look(ETH0, ETH1, ETH2))
    assert first.stands
    assert second.refusal == "eth0 is an end of link eth0:eth1 already"
    first, second = evaluate.evaluate(pairs[::-1], look(ETH0, ETH1, ETH2))
    assert first.stands
    assert "eth2:uplink" in second.refusal


def test_an_altname_is_as_good_as_the_name() -> None:
    (one,) = evaluate.evaluate([link("uplink", "eth1")], look(ETH0, ETH1))
    assert one.stands
    assert one.ends == (ETH0, ETH1)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (("eth0", "no0"), "no0 does not exist"),
        (("no0", "no1"), "no0 and no1 do not exist"),
        (("no0", "no0"), "no0 does not exist"),
    ],
)
def test_what_is_missing_is_waited_for(pair: tuple[str, str], words: str) -> None:
    (one,) = evaluate.evaluate([link(*pair)], look(ETH0))
    assert (one.waiting, one.refusal, one.stands) == (words, "", False)


@pytest.mark.parametrize("variant", ["private", "vepa", "bridge"])
def test_a_macvlan_that_sees_its_own_frames_only_is_warned_about(variant: str) -> None:
    macvlan = Interface(8, "mv", kind="macvlan", variant=variant, max_mtu=1500)
    (one,) = evaluate.evaluate([link("mv", "eth1")], look(macvlan, ETH1))
    assert one.stands
    assert any("passthru" in warning and variant in warning for warning in one.warnings)


def test_what_the_kernel_refused_in_this_pass_does_not_stand() -> None:
    """Its ends are held, but for one that the kernel would not even let us hold."""
    refused = {"eth0:eth1": evaluate.Refused("EBUSY", frozenset((6,)))}
    (one,) = evaluate.evaluate([link("eth0", "eth1")], look(ETH0, ETH1), refused)
    assert one.refusal == "EBUSY"
    assert {index: role.held for index, role in evaluate.roles([one]).items()} == {5: "EBUSY"}


@pytest.mark.parametrize(
    ("kind", "is_use"), [("veth", False), ("tun", False), ("", True), ("macvlan", True)]
)
def test_what_a_router_taught_the_host_is_its_use_of_a_nic_alone(kind: str, is_use: bool) -> None:
    one = end(kind=kind)
    assert bool(refusal(one, uses=LEARNT)) == is_use
    assert bool(admission.learnt(one, look(one, uses=LEARNT))) != is_use
    assert bool(admission.warnings(AB, one, look(one, uses=LEARNT, records=HELD))) == is_use


def test_a_disabled_link_has_roles_that_lead_nowhere() -> None:
    judged = evaluate.evaluate([link("eth0", "eth1", enabled=False)], look(ETH0, ETH1))
    assert {index: role.target for index, role in evaluate.roles(judged).items()} == {
        5: None,
        6: None,
    }


def test_a_plug_leads_back_to_itself() -> None:
    judged = evaluate.evaluate([link("eth0", "eth0")], look(ETH0))
    assert {index: role.target for index, role in evaluate.roles(judged).items()} == {5: 5}
