"""Every rule of the choice of a mode, with the words that ``status`` shows for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from builders import NATIVE, NIC_OFFLOADS, TAP_OFFLOADS, link

from xconnectd.model import Far, Interface, Mode, Setting, XdpFeature
from xconnectd.reconcile import mode_selection

Make = Callable[[int, str], Interface]


def device(**facts: Any) -> Make:
    return lambda index, name: Interface(index, name, **facts)


VETH = device(kind="veth", max_mtu=65535, addr_gen_mode=0, far=Far(2, 0, "eth0"))
TIGHT_VETH = device(kind="veth", max_mtu=3506)
READY_VETH = device(kind="veth", max_mtu=65535, xdp_features=NATIVE, far=Far(2, 0, "eth0"))
TAP = device(kind="tun", variant="tap", max_mtu=65521, features=TAP_OFFLOADS)
NATIVE_TAP = device(
    kind="tun", variant="tap", max_mtu=65521, features=TAP_OFFLOADS, xdp_features=NATIVE
)
BARE_TAP = device(kind="tun", variant="tap", max_mtu=65521)
NIC = device(max_mtu=9216, xdp_features=NATIVE, driver="ice", features=NIC_OFFLOADS)
OLD_NIC = device(max_mtu=9216, driver="mlx5_core")
POOR_NIC = device(max_mtu=1500, xdp_features=XdpFeature.BASIC | XdpFeature.REDIRECT, driver="igb")
NAMELESS_NIC = device(max_mtu=1500)
MACVLAN = device(kind="macvlan", variant="passthru", max_mtu=1500, xdp_features=XdpFeature(0))
VXLAN = device(kind="vxlan")


def without(feature: str) -> Make:
    offloads = TAP_OFFLOADS - {feature}
    return device(kind="tun", variant="tap", max_mtu=65521, features=offloads)


def choose(mode: Mode, a: Make, b: Make) -> mode_selection.Choice:
    return mode_selection.choose(link("a", "b", mode=mode), a(5, "a"), b(6, "b"))


AUTO = {
    "veth and veth": (VETH, VETH, Mode.GENERIC, "veth: takes whole GSO packets"),
    "veth and tap": (VETH, TAP, Mode.GENERIC, "tap and veth: takes whole GSO packets"),
    "tap and tap": (TAP, TAP, Mode.GENERIC, "unfinished checksums"),
    "no headroom": (VETH, TIGHT_VETH, Mode.TC, "b: its MTU cannot go above 3506"),
    "tap, no offload": (VETH, BARE_TAP, Mode.TC, "b: its reader has no tx checksum offload"),
    "tap, no checksum": (without("tx-checksum-ip-generic"), VETH, Mode.TC, "a: its reader has no"),
    "tap, no tso": (VETH, without("tx-tcp-segmentation"), Mode.TC, "TCP segmentation offload"),
    "tap, no tso6": (VETH, without("tx-tcp6-segmentation"), Mode.TC, "for IPv6"),
    "tap, no uso": (VETH, without("tx-udp-segmentation"), Mode.TC, "UDP segmentation offload"),
    "NIC and tap": (NIC, TAP, Mode.TC, "a: a NIC takes neither GSO packets"),
    "NIC and veth": (VETH, NIC, Mode.TC, "b: a NIC takes neither"),
    "macvlan and veth": (MACVLAN, VETH, Mode.TC, "a: a macvlan takes neither"),
    "macvlan and macvlan": (MACVLAN, MACVLAN, Mode.TC, "a macvlan takes neither"),
    "vxlan and veth": (VXLAN, VETH, Mode.TC, "a vxlan takes neither"),
    "NIC and NIC": (NIC, NIC, Mode.NATIVE, "NICs that take redirected frames"),
    "NICs by their driver": (OLD_NIC, NIC, Mode.NATIVE, "NICs that take"),
    "a NIC without transmit": (NIC, POOR_NIC, Mode.TC, "b: driver igb has no native XDP"),
    "a NIC without a driver": (NAMELESS_NIC, NIC, Mode.TC, "a: NIC has no native XDP"),
    "NIC and macvlan": (NIC, MACVLAN, Mode.TC, "a NIC takes neither"),
}


@pytest.mark.parametrize(("a", "b", "mode", "words"), AUTO.values(), ids=AUTO)
def test_auto_picks_by_the_pair_and_says_why(a: Make, b: Make, mode: Mode, words: str) -> None:
    choice = choose(Mode.AUTO, a, b)
    assert (choice.mode, choice.refusal, choice.warnings) == (mode, "", ())
    assert words in choice.reason


@pytest.mark.parametrize(("a", "b", "mode"), [row[:3] for row in AUTO.values()], ids=AUTO)
def test_auto_does_not_care_about_the_order(a: Make, b: Make, mode: Mode) -> None:
    assert choose(Mode.AUTO, b, a).mode is mode


@pytest.mark.parametrize("other", [VETH, TAP, MACVLAN, VXLAN, BARE_TAP, TIGHT_VETH, READY_VETH])
def test_auto_is_never_native_with_anything_but_two_nics(other: Make) -> None:
    for end in (VETH, TAP, NIC, MACVLAN, other):
        assert choose(Mode.AUTO, end, other).mode is not Mode.NATIVE


def test_a_plug_is_judged_by_its_one_end() -> None:
    nic, tap = NIC(5, "a"), BARE_TAP(6, "b")
    assert mode_selection.choose(link("a", "a"), nic, nic).mode is Mode.NATIVE
    assert mode_selection.choose(link("b", "b"), tap, tap).mode is Mode.TC


IMPOSSIBLE = {
    "macvtap": (device(kind="macvtap", variant="bridge"), ("macvtap", "file descriptor", "tap")),
    "ipvtap": (device(kind="ipvtap"), ("ipvtap", "file descriptor")),
    "tun": (device(kind="tun", variant="tun", ethernet=False), ("tun device", "no Ethernet")),
    "lo": (device(kind="", ethernet=False), ("not an Ethernet interface",)),
    "wireguard": (device(kind="wireguard", ethernet=False), ("not an Ethernet interface",)),
}


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(("end", "words"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_ends_are_refused_in_every_mode(
    end: Make, words: tuple[str, ...], mode: Mode
) -> None:
    for a, b in ((end, VETH), (VETH, end)):
        refusal = choose(mode, a, b).refusal
        assert all(word in refusal for word in words)
        assert refusal.startswith(("a is", "b is"))


# --------------------------------------------------------------------------- on request


def test_tc_is_honoured_everywhere() -> None:
    choice = choose(Mode.TC, NIC, NIC)
    assert (choice.mode, choice.reason, choice.refusal) == (Mode.TC, "asked for in the file", "")


def test_generic_is_honoured_and_warns_of_what_it_loses() -> None:
    choice = choose(Mode.GENERIC, NIC, BARE_TAP)
    assert (choice.mode, choice.refusal) == (Mode.GENERIC, "")
    nic, tap = choice.warnings
    assert "a: a NIC takes neither" in nic
    assert "b: its reader has no tx checksum" in tap
    assert choose(Mode.GENERIC, VETH, TAP).warnings == ()


def test_native_on_a_veth_whose_far_end_is_not_ready_says_what_to_run() -> None:
    unready = device(
        kind="veth", xdp_features=XdpFeature.BASIC | XdpFeature.REDIRECT, far=Far(2, 0, "eth0")
    )
    choice = choose(Mode.NATIVE, READY_VETH, unready)
    assert choice.mode is Mode.NATIVE
    assert choice.refusal.startswith("b: its far end does not take native redirects")
    assert "ethtool -K eth0 gro on tx off txvlan off" in choice.refusal


def test_native_on_a_veth_without_a_visible_far_end_still_says_what_to_run() -> None:
    unready = device(kind="veth", xdp_features=XdpFeature.BASIC)
    assert "ethtool -K the far end of a gro on" in choose(Mode.NATIVE, unready, unready).refusal


def test_the_name_of_a_far_end_is_quoted() -> None:
    """It is the choice of whoever owns the namespace there, and the command is for root."""
    for features in (XdpFeature.BASIC, NATIVE):
        hostile = device(kind="veth", xdp_features=features, far=Far(2, 0, "x;reboot"))
        choice = choose(Mode.NATIVE, hostile, hostile)
        assert "ethtool -K 'x;reboot' gro on" in choice.refusal + "".join(choice.warnings)


def test_native_on_a_veth_of_a_kernel_that_does_not_tell_is_refused_as_such() -> None:
    refusal = choose(Mode.NATIVE, READY_VETH, VETH).refusal
    assert refusal.startswith("b: this kernel does not tell")
    assert "ethtool" not in refusal
    assert refusal.endswith("use mode: auto")


def test_native_on_ready_veths_is_honoured_with_a_warning() -> None:
    choice = choose(Mode.NATIVE, READY_VETH, READY_VETH)
    assert (choice.mode, choice.refusal) == (Mode.NATIVE, "")
    assert [warning[:2] for warning in choice.warnings] == ["a:", "b:"]
    assert all("unfinished checksums" in warning for warning in choice.warnings)


@pytest.mark.parametrize("end", [MACVLAN, POOR_NIC, VXLAN])
def test_native_where_the_driver_has_none_is_refused(end: Make) -> None:
    assert "b:" in (refusal := choose(Mode.NATIVE, NIC, end).refusal)
    assert "no native XDP that takes redirected frames" in refusal


def test_native_on_a_tap_is_honoured_with_a_warning() -> None:
    choice = choose(Mode.NATIVE, NATIVE_TAP, NIC)
    assert choice.refusal == ""
    assert "checksums" in choice.warnings[0]


# --------------------------------------------------------------------------- settings


@pytest.mark.parametrize("end", [VETH, TAP, BARE_TAP, NIC, MACVLAN])
@pytest.mark.parametrize("mode", [Mode.GENERIC, Mode.NATIVE, Mode.TC])
def test_every_end_gets_clsact_for_the_hosts_own_frames(end: Make, mode: Mode) -> None:
    assert mode_selection.settings(end(5, "a"), mode)[Setting.CLSACT] == 1


@pytest.mark.parametrize(
    ("end", "mtu"), [(VETH, 65535), (TAP, 65521), (TIGHT_VETH, 3506)], ids=["veth", "tap", "tight"]
)
def test_generic_raises_the_mtu_to_the_headroom(end: Make, mtu: int) -> None:
    assert mode_selection.settings(end(5, "a"), Mode.GENERIC)[Setting.MTU] == mtu


@pytest.mark.parametrize("mode", [Mode.NATIVE, Mode.TC])
def test_no_other_mode_touches_the_mtu(mode: Mode) -> None:
    assert Setting.MTU not in mode_selection.settings(VETH(5, "a"), mode)


@pytest.mark.parametrize("end", [NIC, MACVLAN])
def test_the_mtu_of_a_nic_or_macvlan_is_never_touched(end: Make) -> None:
    assert Setting.MTU not in mode_selection.settings(end(5, "a"), Mode.GENERIC)


def test_address_generation_is_silenced_where_there_is_any() -> None:
    assert mode_selection.settings(VETH(5, "a"), Mode.TC)[Setting.ADDR_GEN_MODE] == 1
    assert Setting.ADDR_GEN_MODE not in mode_selection.settings(TAP(5, "a"), Mode.TC)


def test_a_nic_takes_every_frame_untouched() -> None:
    wanted = mode_selection.settings(NIC(5, "a"), Mode.NATIVE)
    assert wanted[Setting.PROMISCUOUS] == 1
    off = {name.removeprefix("feature:") for name, value in wanted.items() if value == 0}
    assert off >= NIC_OFFLOADS
    assert {"rx-vlan-stag-hw-parse", "rx-vlan-stag-filter"} <= off


def test_tc_leaves_the_tags_where_the_stack_keeps_them() -> None:
    wanted = mode_selection.settings(NIC(5, "a"), Mode.TC)
    assert wanted["feature:rx-vlan-filter"] == wanted["feature:rx-lro"] == 0
    assert "feature:rx-vlan-hw-parse" not in wanted


@pytest.mark.parametrize("kind", ["vlan", "bond", "team"])
def test_what_stands_on_a_nic_hands_the_flag_down(kind: str) -> None:
    wanted = mode_selection.settings(device(kind=kind)(5, "a"), Mode.TC)
    assert wanted[Setting.PROMISCUOUS] == 1
    assert not any(name.startswith("feature:") for name in wanted)


def test_only_nics_are_made_promiscuous() -> None:
    for end in (VETH, TAP, MACVLAN):
        assert Setting.PROMISCUOUS not in mode_selection.settings(end(5, "a"), Mode.TC)


@pytest.mark.parametrize(("max_mtu", "room"), [(0, 65535), (1500, 1500), (65535, 65535)])
def test_headroom(max_mtu: int, room: int) -> None:
    assert mode_selection.headroom(VETH(5, "a")._replace(max_mtu=max_mtu)) == room
