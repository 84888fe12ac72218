"""Which ends of a link show a carrier: each while what is behind its partner is alive. Pure.

An end *offers* if what is behind it is alive: the far end of a veth is administratively up, a tap
is open, a NIC has a carrier. It *shows* a carrier if the link stands, nobody else has set its
partner down and its partner offers. That never depends on what the partner shows, so two ends
cannot hold each other down. Behind a tunnel to another host it is that host's daemon who says so.

What an end shows is set by its lever. The far end of a veth has a carrier while ours is set up
(veth has no ndo_change_carrier: drivers/net/veth.c), as has the far end of a NIC's cable. What
reads a tap sees IFLA_CARRIER (tun_net_change_carrier in drivers/net/tun.c, Linux 5.0).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from xconnectd.model import (
    Admin,
    Carrier,
    Interface,
    Link,
    Node,
    Observed,
    Ours,
    Record,
    Setting,
)

LEFT_DOWN: Final = "xconnectd has not set it up again"
"""Why an end that is to show a carrier shows none: no daemon runs, or it was refused."""

_BY_TUNNEL: Final = "the other side of its tunnel shows it"

SET_UP: Final = "somebody else has set it up"
"""Why an end that is to show no carrier shows one."""


class Shown(NamedTuple):
    """What an end is to show, and by which setting. ``cause`` is why it shows none, else empty.

    ``lever`` is None where only the monitor of a virtual machine is told. ``own`` is why the link
    has no say in it, else empty. ``offers``: what is behind the end is alive.
    """

    lever: Setting | None
    cause: str = ""
    own: str = ""
    offers: bool = True


def shown(
    link: Link, a: Interface | None, b: Interface | None, why_not: str, observed: Observed
) -> dict[int, Shown]:
    """By ifindex what the ends of a link are to show.

    ``why_not`` is why the link does not forward now, empty if it does.
    """
    found: dict[int, Shown] = {}
    tunnel = (link.a.tunnel and a) or (link.b.tunnel and b)
    alone = a is None or b is None or a.ifindex == b.ifindex
    for end in sorted([each for each in (a, b) if each], key=lambda each: each.name):
        if end is tunnel:
            found[end.ifindex] = Shown(None, own=_BY_TUNNEL, offers=not not_offered(link, observed))
            continue
        partner = None if alone else b if end is a else a
        lever = _lever(link, end)
        own = _why_own(link, end, lever, observed)
        cause = why_not
        if partner and partner is tunnel:
            cause = cause or not_offered(link, observed)
        if partner and not cause and not _becomes_unreadable(partner, found.get(partner.ifindex)):
            cause = why_hidden(link, partner, observed)
        record = observed.ours[end.ifindex].record
        found[end.ifindex] = Shown(lever, "" if own else cause, own, _offers(end, record))
    return found


def stays(link: Link, ends: Iterable[Interface], observed: Observed) -> bool:
    """Whether a carrier that is shown here is left, since nobody knows yet of the other host.

    It is a matter of a second, and most often it answers. One that is hidden stays so.
    """
    heard = [observed.heard[end.text] for end in link.ends if end.text in observed.heard]
    if any(each.alive is not None for each in heard):
        return False
    ours = [observed.ours[end.ifindex] for end in ends]
    hidden = [
        each.record for each in ours if each.record and Setting.CARRIER in each.record.changes
    ]
    return not hidden and not any(each.hidden for each in ours)


def not_offered(link: Link, observed: Observed) -> str:
    """Why what is behind a tunnel to another host does not offer.

    Empty if it does, if nobody knows, and for a link without one.
    """
    for end in link.ends:
        heard = observed.heard.get(end.text)
        if heard and heard.alive and not heard.offers:
            return f"{end.host}: {heard.cause}"
    return ""


def _why_own(link: Link, end: Interface, lever: Setting | None, observed: Observed) -> str:
    """Why the link has no say in what this end shows; empty if it has."""
    if link.carrier is Carrier.INDEPENDENT:
        return "carrier: independent"
    if link.admin is Admin.KEEP:
        return "admin: keep"
    for use in observed.uses.get(end.ifindex, ()):
        if not use.learnt:  # set down, it would lose its routes
            return f"the host uses it: {use.words}"
    if lever or end.ifindex in [observed.names.get(name) for name, _ in link.monitors]:
        return ""
    return "it is set down only where its link itself says carrier: follow"


def _lever(link: Link, end: Interface) -> Setting | None:
    if end.variant == "tap":
        return Setting.CARRIER
    return Setting.UP if end.kind == "veth" or link.carrier_of_nics else None


def _becomes_unreadable(end: Interface, now: Shown | None) -> bool:
    """Whether this end is set down in the same pass, after which nobody can read what it offers.

    It would count as offering then. So of two NICs without a carrier only one is set down.
    """
    if now is None or not now.cause:
        return False
    return now.lever is Setting.UP and (end.far is None or end.far.up is None)


def why_hidden(link: Link, end: Interface, observed: Observed) -> str:
    """Why the partner of ``end`` is to show no carrier; empty if it is to show one."""
    ours = observed.ours[end.ifindex]
    if _is_set_down(link, end, ours):
        return f"{end.name} is administratively down"
    if _offers(end, ours.record):
        return ""
    nodes = {observed.names.get(each.name): each.node for each in link.ends if each.node}
    return _why_not_offering(end, nodes.get(end.ifindex))


def _is_set_down(link: Link, end: Interface, ours: Ours) -> bool:
    """Whether somebody else wants this end down: neither we, nor is it one to be set up yet."""
    if end.up:
        return False
    record = ours.record
    if record is None:
        return link.admin is Admin.KEEP or ours.runs
    return not ours.hidden and (record.settled or link.admin is Admin.KEEP)


def _offers(end: Interface, record: Record | None) -> bool:
    """Whether what is behind an end is alive; what cannot be read of one that is down counts."""
    if end.variant == "tap":
        hidden = record.changes.get(Setting.CARRIER) if record else None
        return end.carrier or bool(hidden and hidden.found)
    if end.far and end.far.up is not None:
        return end.far.up
    return end.carrier or not end.up


def _why_not_offering(end: Interface, node: Node | None) -> str:
    """Why an end does not offer; ``node`` is where the file says that its far end is."""
    far = end.far
    if end.variant == "tap":
        return f"nothing has {end.name} open"
    if far and far.up is False:
        if place := node.name if node else far.namespace:
            return f"{far.name} in {place} is down"
        return f"{far.name}, the far end of {end.name}, is down"
    return f"{end.name} has no carrier"
