"""Which mode carries a pair, why, and what each end must be set to for it. Pure.

The facts behind the rules: a generic redirect hands the frame to the target's driver as it
is, so the target must take unfinished checksums and uncut segments, and an MTU large enough
for a whole GSO packet. A tc redirect goes through the stack's transmit path, which finishes
both for any target. A native redirect needs drivers that made for it at both ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from shlex import quote
from sys import intern
from typing import Final, NamedTuple

from xconnectd.model import (
    FEATURE_PREFIX,
    Interface,
    Link,
    Mode,
    Observed,
    Setting,
    Xdp,
    XdpFeature,
)

HEADROOM: Final = 65535
"""MTU in bytes that lets a whole GSO packet through a generic redirect (veth's maximum)."""

_ENOUGH_HEADROOM: Final = 65521  # tap's maximum

_TAP_OFFLOADS: Final = {
    "tx-checksum-ip-generic": "tx checksum offload",
    "tx-tcp-segmentation": "TCP segmentation offload",
    "tx-tcp6-segmentation": "TCP segmentation offload for IPv6",
}
_TAP_UDP_OFFLOAD: Final = "tx-udp-segmentation"

_NATIVE: Final = XdpFeature.BASIC | XdpFeature.REDIRECT | XdpFeature.NDO_XMIT
_NATIVE_DRIVERS: Final = frozenset(
    ("virtio_net", "mlx4_en", "mlx5_core", "i40e", "ice", "ixgbe", "bnxt_en", "nfp", "sfc", "ena")
)
"""Drivers with native XDP and ndo_xdp_xmit on kernels that cannot be asked (before 6.3)."""

_ADDR_GEN_NONE: Final = 1  # IN6_ADDR_GEN_MODE_NONE
_STRIPPING: Final = (
    *("rx-vlan-hw-parse", "rx-vlan-stag-hw-parse", "rx-vlan-filter", "rx-vlan-stag-filter"),
    *("rx-lro", "rx-gro-hw"),
)
_STRIPPING_IN_TC: Final = ("rx-vlan-filter", "rx-vlan-stag-filter", "rx-lro")

_NIC: Final = ""
"""The kind of what has none."""

_FILTERING: Final = (_NIC, "vlan", "bond", "team", "macsec", "dsa")
"""Kinds that take in frames for other addresses only while promiscuous: NICs, and what stands on
one and hands the flag down to it (``ndo_change_rx_flags``)."""

FAR_READY: Final = "ethtool -K {far} gro on tx off txvlan off tx-vlan-stag-hw-insert off"


class Choice(NamedTuple):
    """The mode of a pair and why; ``refusal`` says why there is none."""

    mode: Mode
    reason: str
    refusal: str = ""
    warnings: tuple[str, ...] = ()


def choose(link: Link, a: Interface, b: Interface, refused: str = "") -> Choice:
    """``refused`` is why the driver of an end refused native XDP when it was tried."""
    ends = (a,) if a.ifindex == b.ifindex else (a, b)
    for end in ends:
        if refusal := impossible(end):
            return Choice(Mode.AUTO, "", refusal)
    if link.impair:
        return _impaired(link)
    if link.a.tunnel or link.b.tunnel:
        return _through_a_tunnel(link)
    match link.mode:
        case Mode.NATIVE:
            return _native_on_request(ends)
        case Mode.GENERIC:
            lacks = tuple(filter(None, map(_lacks_for_generic, ends)))
            return Choice(Mode.GENERIC, "asked for in the file", warnings=lacks)
        case Mode.TC:
            return Choice(Mode.TC, "asked for in the file")
        case Mode.AUTO:
            return _automatic(ends, refused)


def _through_a_tunnel(link: Link) -> Choice:
    """Measured: what stands beside a frame (VLAN tags, checksums, GSO) is lost or not finished."""
    if link.mode in (Mode.AUTO, Mode.TC):
        return Choice(
            Mode.TC, "a tunnel needs checksums, GSO and VLAN tags finished, which tc does"
        )
    words = f"mode {link.mode} would lose VLAN tags and TCP on the way into a tunnel; use mode: tc"
    return Choice(link.mode, "", words)


def _impaired(link: Link) -> Choice:
    if link.mode in (Mode.AUTO, Mode.TC):
        return Choice(Mode.TC, "impair: only here do frames pass a queue")
    return Choice(link.mode, "", f"mode {link.mode} hands frames to the driver, past the queue")


def choose_to_hold(link: Link, ends: Iterable[Interface], observed: Observed) -> list[Choice]:
    """Of each end the mode of our XDP program there: a partner that comes and goes changes nothing.

    Without one it is what a loopback of this end would have, but for native XDP, which resets many
    a NIC: that is for a partner to be worth it.
    """
    return [_choose_to_hold(link, end, observed.ours[end.ifindex].xdp) for end in ends]


def _choose_to_hold(link: Link, end: Interface, ours: Iterable[Xdp]) -> Choice:
    refusal = impossible(end)
    for xdp in ours:
        return Choice(Mode(xdp.mode), "it runs there", refusal)
    alone = choose(link, end, end).mode
    return Choice(Mode.GENERIC if alone is Mode.GENERIC else Mode.TC, "no partner", refusal)


def impossible(end: Interface) -> str:
    """Why no mode makes a wire of this interface; empty when one does."""
    if end.kind in ("macvtap", "ipvtap"):
        return (
            f"{end.name} is a {end.kind}: its frames bypass every hook;"
            " use a tap, or a macvlan in passthru mode"
        )
    if not end.ethernet:
        what = "a tun device" if end.kind == "tun" else "not an Ethernet interface"
        return f"{end.name} is {what}: it carries no Ethernet frames"
    return ""


def _automatic(ends: tuple[Interface, ...], refused: str) -> Choice:
    if {end.kind for end in ends} == {_NIC}:
        lacks = next(filter(None, map(_lacks_for_native, ends)), refused)
        if not lacks:
            return Choice(Mode.NATIVE, "both ends are NICs with native XDP")
        return Choice(Mode.TC, lacks)
    lacks = next(filter(None, map(_lacks_for_generic, ends)), "")
    if lacks:
        return Choice(Mode.TC, lacks)
    kinds = " and ".join(sorted({_kind(end) for end in ends}))
    return Choice(
        Mode.GENERIC, intern(f"{kinds}: offloaded packets (GSO, checksums) cross unchanged")
    )


def _native_on_request(ends: tuple[Interface, ...]) -> Choice:
    for end in ends:
        if end.kind == "veth" and (refusal := far_end_unready(end)):
            return Choice(Mode.NATIVE, "", refusal)
        if end.kind != "veth" and (lacks := _lacks_for_native(end)):
            return Choice(Mode.NATIVE, "", lacks)
    warnings = tuple(filter(None, map(_native_warning, ends)))
    return Choice(Mode.NATIVE, "asked for in the file", warnings=warnings)


def far_end_unready(end: Interface) -> str:
    """A veth takes native redirects only while its far end polls (GRO, or native XDP there)."""
    if end.xdp_features is None:
        return (
            f"{end.name}: this kernel does not tell whether a veth's far end takes native redirects"
            " (Linux 6.3 does), and where it does not every frame is lost; use mode: auto"
        )
    if XdpFeature.NDO_XMIT in end.xdp_features:
        return ""
    return (
        f"{end.name}: its far end does not take native redirects, every frame would be lost;"
        f" run in its namespace: {FAR_READY.format(far=_far_name(end))}"
    )


def _native_warning(end: Interface) -> str:
    if end.kind == "veth":
        return (
            f"{end.name}: native XDP passes neither unfinished checksums nor offloaded VLAN tags"
            f" of its far end; it needs there: {FAR_READY.format(far=_far_name(end))}"
        )
    if end.kind == "tun":
        return (
            f"{end.name}: native XDP on a tap breaks the checksums that its sender left unfinished"
        )
    return ""


def _lacks_for_native(end: Interface) -> str:
    if end.xdp_features is None:
        capable = end.driver in _NATIVE_DRIVERS or end.kind == "tun"
    else:
        announced = end.xdp_features & _NATIVE
        capable = announced == _NATIVE or (  # virtio_net says NDO_XMIT only while a program runs
            announced == _NATIVE & ~XdpFeature.NDO_XMIT and end.driver in _NATIVE_DRIVERS
        )
    if capable:
        return ""
    what = f"driver {end.driver}" if end.driver else _kind(end)
    return f"{end.name}: {what} cannot send redirected frames in native XDP"


def _lacks_for_generic(end: Interface) -> str:
    """Why a generic redirect into this end would lose frames; empty when it would not."""
    if end.kind != "veth" and _kind(end) != "tap":
        return f"{end.name}: a {_kind(end)} needs offloads (GSO, checksums) finished, which tc does"
    if headroom(end) < _ENOUGH_HEADROOM:
        return (
            f"{end.name}: its MTU cannot go above {headroom(end)}, too little for GSO packets"
            " (does its far end run a native XDP program?)"
        )
    return _tap_lacks(end) if end.kind == "tun" else ""


def _tap_lacks(end: Interface) -> str:
    for feature, words in _TAP_OFFLOADS.items():
        if feature not in end.features:
            return f"{end.name}: what has the tap open takes no {words}"
    if _TAP_UDP_OFFLOAD not in end.features:
        return f"{end.name}: what has the tap open takes no UDP segmentation offload"
    return ""


def headroom(end: Interface) -> int:
    """The largest MTU in bytes that this interface can be given, up to what GSO needs."""
    return min(HEADROOM, end.max_mtu or HEADROOM)


def settings_of(ends: Iterable[Interface], mode: Mode | None) -> list[Mapping[str, int]]:
    """What each is set to; without a mode they are only held."""
    if mode is None:
        return [held_settings(end) for end in ends]
    return [settings(end, mode) for end in ends]


def held_settings(end: Interface) -> Mapping[str, int]:
    """What an end is set to from the moment it is held, wired or not."""
    if end.addr_gen_mode is None:
        return {Setting.CLSACT: 1}
    return {Setting.CLSACT: 1, Setting.ADDR_GEN_MODE: _ADDR_GEN_NONE}


def settings(end: Interface, mode: Mode) -> Mapping[str, int]:
    """What an end is set to while its link stands, admin state aside."""
    wanted = {**held_settings(end)}
    if mode is Mode.GENERIC and end.kind in ("veth", "tun"):
        wanted[Setting.MTU] = headroom(end)
    if end.kind in _FILTERING:
        wanted[Setting.PROMISCUOUS] = 1
    if end.kind == _NIC:
        stripping = _STRIPPING if mode is Mode.NATIVE else _STRIPPING_IN_TC
        wanted |= {FEATURE_PREFIX + name: 0 for name in stripping}
    return wanted


def _kind(end: Interface) -> str:
    return end.variant if end.kind == "tun" else end.kind or "NIC"


def _far_name(end: Interface) -> str:
    return quote(end.far.name) if end.far and end.far.name else f"the far end of {end.name}"
