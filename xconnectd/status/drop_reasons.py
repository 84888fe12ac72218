"""Where frames of a link were lost, in words, and what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from shlex import quote
from typing import Final

from xconnectd.formatting import counted as counted_in_words
from xconnectd.model import Counters, End, Mode
from xconnectd.status.document import Drop

MEANT: Final = frozenset({"host_egress"})
"""Reasons for which frames are dropped on purpose: nothing is lost."""


def counted(here: Counters, there: Counters) -> dict[str, int]:
    """By reason the frames that came in by one end and did not get away by the other."""
    return {
        "no_entry": here.no_entry,
        "host_egress": here.host_egress,
        **here.lost._asdict(),
        "impaired_loss": there.impaired_loss,
        "impaired_queue": there.impaired_queue,
        # veth counts what its driver dropped in tx_dropped as well
        "peer_drop": max(0, there.untransmitted - here.lost.driver_drop),
        "one_way": here.one_way,
        "filtered": here.filtered,
    }


def lost(dropped: Mapping[str, int]) -> int:
    """Frames of the wire among those of ``counted``: what the host says is to be dropped."""
    return sum(dropped.values()) - sum([dropped.get(reason, 0) for reason in MEANT])


def explained(
    a: End, b: End, counters: Mapping[int, Counters], *, enabled: bool
) -> tuple[Drop, ...]:
    """What a link lost, worst first."""
    ways = ((a, b),) if a == b else ((a, b), (b, a))
    found = [
        Drop(here.name, there.name, reason, frames, *words)
        for here, there in ways
        for reason, frames in counted(of(here, counters), of(there, counters)).items()
        if frames and (words := _in_words(here, there, enabled=enabled).get(reason))
    ]
    return tuple(sorted(found, key=lambda each: -each.frames))


def passed(name: str, frames: int, mode: str) -> tuple[str, str]:
    """What it means that frames got past every hook, and what to do about it."""
    text = (
        f"{counted_in_words(frames, 'frame')} that came in by {name} bypassed all our hooks"
        " and were dropped at the host's IP stack"
    )
    if mode == Mode.TC:
        return text, "an ifb behind it marks them: remove it, or use mode: generic"
    return text, "a program behind it marks them: see docs/safety.md"


def of(end: End, counters: Mapping[int, Counters]) -> Counters:
    """Zeros for an end that does not exist; 0 is no interface's key."""
    return counters.get(end.ifindex or 0, Counters()) if end.ifindex else Counters()


def _in_words(here: End, there: End, *, enabled: bool) -> dict[str, tuple[str, str]]:
    """Every reason but ``host_egress``, which is meant: what happened, and the way out."""
    name, quoted = there.name, _quoted(there)
    return {
        "no_entry": (
            f"came in by {here.name} while it was not connected",
            "" if enabled else "enabled: true",
        ),
        "mtu_exceeded": (
            f"longer than {name} takes (MTU {there.mtu})",
            f"ip link set dev {quoted} mtu {max(here.far_mtu or 0, here.mtu or 0) or 'N'}",
        ),
        "egress_down": (f"{name} was down", f"ip link set dev {quoted} up"),
        "xmit_unsupported": (
            f"the driver of {name} transmits no redirected frames",
            "mode: tc",
        ),
        "impaired_loss": (f"lost on the way to {name}, as impair says", ""),
        "impaired_queue": (
            f"found the queue of {name} full: more comes than impair lets through",
            "a higher rate or limit in impair",
        ),
        "other": (f"refused by {name}", f"ip -s -s link show dev {quoted}"),
        "driver_drop": _behind(here, there),
        "peer_drop": _behind(here, there),
        "one_way": (f"the link leads from {name} to {here.name} only (one_way: true)", ""),
        "filtered": (f"dropped on the way to {name}, as drop in impair says", ""),
    }


def _behind(here: End, there: End) -> tuple[str, str]:
    """What an interface counts as dropped was not taken by what is behind it."""
    texts = list(_suspects(here, there))
    if texts:
        return texts[0]
    return (
        f"not accepted behind {there.name}: it was down, too slow, or has a smaller MTU",
        f"ip -s -s link show dev {_quoted(there)}",
    )


def _suspects(here: End, there: End) -> Iterator[tuple[str, str]]:
    name = _far(there)
    if there.far_up is False:
        yield f"{name} is down", f"set {name} up"
    if there.far_mtu and here.far_mtu and here.far_mtu > there.far_mtu:
        yield (
            f"longer than {name} takes (MTU {there.far_mtu})",
            f"give {_far(here)} and {name} the same MTU",
        )


def _quoted(end: End) -> str:
    """What a command here calls it; the file's text while it is gone."""
    return quote(end.host_interface or end.name)


def _far(end: End) -> str:
    """What is behind an end."""
    return end.name if end.node else f"the far end of {end.name}"
