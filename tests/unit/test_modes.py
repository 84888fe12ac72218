"""Every rule of the choice of a mode, with the words that ``status`` shows for it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from builders import NATIVE, NIC_OFFLOADS, TAP_OFFLOADS, link

from xconnectd.model import FEATURE_PREFIX, Far, Interface, Mode, Setting, XdpFeature
from xconnectd.reconcile import mode_selection

Make = Callable[[int, str], Interface]


def device(kind: str = "", **facts: Any) -> Make:
    return lambda index, name: Interface(index, name, kind=kind, **facts)


def tap(offloads: frozenset[str] = TAP_OFFLOADS, **facts: Any) -> Make:
    return device("tun", variant="tap", max_mtu=65521, features=offloads, **facts)


def veth(xdp_features: XdpFeature | None = None, far: str = "eth0", **facts: Any) -> Make:
    there = Far(2, 0, far) if far else None
    more = {"max_mtu": 65535, "addr_gen_mode": 0, **facts}
    return device("veth", far=there, xdp_features=xdp_features, **more)


VETH, TIGHT_VETH, READY_VETH = veth(), veth(max_mtu=3506), veth(NATIVE)
UNREADY_VETH = veth(XdpFeature.BASIC | XdpFeature.REDIRECT)
TAP, BARE_TAP, NATIVE_TAP = tap(), tap(frozenset()), tap(xdp_features=NATIVE)
NIC = device(max_mtu=9216, xdp_features=NATIVE, driver="ice", features=NIC_OFFLOADS)
OLD_NIC = device(max_mtu=9216, driver="mlx5_core")
NO_XMIT = XdpFeature.BASIC | XdpFeature.REDIRECT
POOR_NIC = device(max_mtu=1500, xdp_features=NO_XMIT, driver="igb")
VIRTIO = device(max_mtu=1500, xdp_features=NO_XMIT, driver="virtio_net")
NAMELESS_NIC = device(max_mtu=1500)
MACVLAN = device("macvlan", variant="passthru", max_mtu=1500, xdp_features=XdpFeature(0))
VXLAN = device("vxlan")


def choose(mode: Mode, a: Make, b: Make, **more: str) -> mode_selection.Choice:
    return mode_selection.choose(link("a", "b", mode=mode), a(5, "a"), b(6, "b"), **more)


AUTO = [
    (VETH, VETH, Mode.GENERIC, "veth: offloaded packets (GSO, checksums) cross unchanged"),
    (VETH, TAP, Mode.GENERIC, "tap and veth: offloaded packets"),
    (TAP, TAP, Mode.GENERIC, "tap: offloaded packets"),
    (VETH, TIGHT_VETH, Mode.TC, "b: its MTU cannot go above 3506"),
    (VETH, BARE_TAP, Mode.TC, "b: what has the tap open takes no tx checksum offload"),
    (tap(TAP_OFFLOADS - {"tx-checksum-ip-generic"}), VETH, Mode.TC, "a: what has the tap open"),
    (VETH, tap(TAP_OFFLOADS - {"tx-tcp-segmentation"}), Mode.TC, "TCP segmentation offload"),
    (VETH, tap(TAP_OFFLOADS - {"tx-tcp6-segmentation"}), Mode.TC, "TCP segmentation offload for I"),
    (VETH, tap(TAP_OFFLOADS - {"tx-udp-segmentation"}), Mode.TC, "UDP segmentation offload"),
    (NIC, TAP, Mode.TC, "a: a NIC needs offloads"),
    (VETH, NIC, Mode.TC, "b: a NIC needs offloads"),
    (MACVLAN, MACVLAN, Mode.TC, "a: a macvlan needs offloads"),
    (VXLAN, VETH, Mode.TC, "a: a vxlan needs offloads"),
    (NIC, MACVLAN, Mode.TC, "a: a NIC needs offloads"),
    (NIC, NIC, Mode.NATIVE, "both ends are NICs"),
    (OLD_NIC, NIC, Mode.NATIVE, "both ends are NICs"),
    (VIRTIO, NIC, Mode.NATIVE, "both ends are NICs"),
    (NIC, POOR_NIC, Mode.TC, "b: driver igb cannot send redirected"),
    (NAMELESS_NIC, NIC, Mode.TC, "a: NIC cannot send redirected"),
]


@pytest.mark.parametrize(("a", "b", "mode", "words"), AUTO)
def test_auto_picks_by_the_pair_and_says_why(a: Make, b: Make, mode: Mode, words: str) -> None:
    """In either order, and never native with anything but two NICs."""
    choice = choose(Mode.AUTO, a, b)
    assert (choice.mode, choice.refusal, choice.warnings) == (mode, "", ())
    assert words in choice.reason
    assert choose(Mode.AUTO, b, a).mode is mode
    for one, other in itertools.product((a, b), (VETH, TAP, MACVLAN, VXLAN, BARE_TAP, READY_VETH)):
        assert choose(Mode.AUTO, one, other).mode is not Mode.NATIVE


def test_auto_gives_way_where_a_driver_refused_native() -> None:
    choice = choose(Mode.AUTO, NIC, NIC, refused="too large")
    assert (choice.mode, choice.reason) == (Mode.TC, "too large")
    assert choose(Mode.NATIVE, NIC, NIC, refused="too large").mode is Mode.NATIVE
    for make, mode in ((NIC, Mode.NATIVE), (BARE_TAP, Mode.TC)):
        plug = make(5, "a")
        assert mode_selection.choose(link("a", "a"), plug, plug).mode is mode


IMPOSSIBLE = [
    (device("macvtap", variant="bridge"), " is a macvtap: its frames bypass every hook"),
    (device("ipvtap"), " is a ipvtap: its frames bypass every hook"),
    (
        device("tun", variant="tun", ethernet=False),
        " is a tun device: it carries no Ethernet",
    ),
    (device("", ethernet=False), " is not an Ethernet interface"),
    (device("wireguard", ethernet=False), " is not an Ethernet interface"),
]


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(("end", "words"), IMPOSSIBLE)
def test_impossible_ends_are_refused_in_every_mode(end: Make, words: str, mode: Mode) -> None:
    assert choose(mode, end, VETH).refusal.startswith(f"a{words}")
    assert choose(mode, VETH, end).refusal.startswith(f"b{words}")


READY = "ethtool -K eth0 gro on tx off txvlan off"
# What is asked for, the ends, how a refusal begins and what it names, the warnings.
Asked = tuple[Mode, Make, Make, str, str, list[str]]
ASKED: list[Asked] = [
    (Mode.TC, NIC, NIC, "", "", []),
    (Mode.GENERIC, VETH, TAP, "", "", []),
    (Mode.GENERIC, NIC, BARE_TAP, "", "", ["a: a NIC needs offloads", "b: what has the tap open"]),
    (Mode.NATIVE, READY_VETH, READY_VETH, "", "",
     ["a: native XDP passes neither", "b: native XDP passes neither unfinished checksums"]),
    (Mode.NATIVE, NATIVE_TAP, NIC, "", "", ["a: native XDP on a tap breaks the checksums"]),
    (Mode.NATIVE, READY_VETH, UNREADY_VETH, "b: its far end does not take native", READY, []),
    (Mode.NATIVE, veth(XdpFeature.BASIC, far=""), NIC, "a: its far", "-K the far end of a gro", []),
    (Mode.NATIVE, READY_VETH, VETH, "b: this kernel does not tell", "use mode: auto", []),
    (Mode.NATIVE, NIC, MACVLAN, "b: macvlan cannot send", "redirected frames in native XDP", []),
    (Mode.NATIVE, NIC, POOR_NIC, "b: driver igb cannot send", "in native XDP", []),
    (Mode.NATIVE, NIC, VXLAN, "b: vxlan cannot send", "redirected frames in native XDP", []),
]  # fmt: skip


@pytest.mark.parametrize("case", ASKED, ids=lambda case: f"{case[0]}: {case[3] or case[5]}")
def test_what_is_asked_for_is_honoured_or_refused_with_the_way_out(case: Asked) -> None:
    mode, a, b, begin, way_out, warnings = case
    choice = choose(mode, a, b)
    assert choice.mode is mode
    assert bool(choice.refusal) == bool(begin)
    assert choice.refusal.startswith(begin)
    assert way_out in choice.refusal
    assert [each[: len(it)] for each, it in zip(choice.warnings, warnings, strict=True)] == warnings


def test_the_name_of_a_far_end_is_quoted() -> None:
    """It is the choice of whoever owns the namespace there, and the command is for root."""
    for features in (XdpFeature.BASIC, NATIVE):
        hostile = veth(features, far="x;reboot")
        choice = choose(Mode.NATIVE, hostile, hostile)
        assert "ethtool -K 'x;reboot' gro on" in choice.refusal + "".join(choice.warnings)


CLSACT, SILENT, PROMISCUOUS = {"clsact": 1}, {"addr_gen_mode": 1}, {"promiscuous": 1}
FILTERS = ("rx-vlan-filter", "rx-vlan-stag-filter", "rx-lro")
PARSERS = ("rx-vlan-hw-parse", "rx-vlan-stag-hw-parse", "rx-gro-hw")
IN_TC, IN_NATIVE = (
    {f"{FEATURE_PREFIX}{name}": 0 for name in names} for names in (FILTERS, FILTERS + PARSERS)
)
SETTINGS = [
    (VETH, Mode.GENERIC, CLSACT | SILENT | {"mtu": 65535}),
    (VETH, Mode.TC, CLSACT | SILENT),
    (READY_VETH, Mode.NATIVE, CLSACT | SILENT),
    (TIGHT_VETH, Mode.GENERIC, CLSACT | SILENT | {"mtu": 3506}),
    (veth(max_mtu=0), Mode.GENERIC, CLSACT | SILENT | {"mtu": 65535}),
    (TAP, Mode.GENERIC, CLSACT | {"mtu": 65521}),
    (TAP, Mode.TC, CLSACT),
    (MACVLAN, Mode.GENERIC, CLSACT),  # whose MTU is bound to what it stands on
    (NIC, Mode.GENERIC, CLSACT | PROMISCUOUS | IN_TC),
    (NIC, Mode.TC, CLSACT | PROMISCUOUS | IN_TC),  # the stack keeps tags that were taken out
    (NIC, Mode.NATIVE, CLSACT | PROMISCUOUS | IN_NATIVE),
    *((device(kind), Mode.TC, CLSACT | PROMISCUOUS) for kind in ("vlan", "bond", "team")),
]


@pytest.mark.parametrize(("end", "mode", "wanted"), SETTINGS)
def test_what_an_end_is_set_to(end: Make, mode: Mode, wanted: dict[str, int]) -> None:
    assert mode_selection.settings(end(5, "a"), mode) == wanted
    held = {Setting.CLSACT, Setting.ADDR_GEN_MODE}
    assert mode_selection.held_settings(end(5, "a")) == {
        name: value for name, value in wanted.items() if name in held
    }
