"""Tunnels: the VXLAN devices that are made for them, and what other hosts are told by them. Pure.

One exists exactly while its link stands in the file, and leads where that says. It is recorded
before it is made, so that a crash leaves nothing unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from xconnectd.model import DEFAULT_MTU, Announcement, Made, Observed, State, Tunnel
from xconnectd.reconcile import carrier
from xconnectd.reconcile.actions import Action, HoldMade, MakeTunnel
from xconnectd.reconcile.evaluate import Evaluation
from xconnectd.reconcile.made_veths import host_mac, host_of, template


def device_name(tunnel: Tunnel) -> str:
    """What the device is called: a VNI is one of 2^24, so that fits."""
    return f"vxlan-{tunnel.vni}"


def plan(
    evaluations: Iterable[Evaluation],
    observed: Observed,
    failed: Collection[str],
    is_held_off: Callable[[str], bool],
) -> tuple[Action, ...]:
    """The steps that make what is missing.

    Nothing is done for links (by id) that ``failed`` in the kernel and are not tried now. Nor is
    made again what somebody deletes, while its link is held off.
    """
    made: list[Action] = []
    for link in [each.link for each in evaluations if each.link.id not in failed]:
        for end in link.ends:
            if end.tunnel is None or observed.tunnels[end.name]:
                continue
            known = observed.made.get(end.name)
            new = Made(
                device_name(end.tunnel),
                host_mac(end.name),
                end.name,
                end.tunnel.fits(observed.ways[end.tunnel.remote].mtu or DEFAULT_MTU),
                settled=True,
                tunnel=end.tunnel,
                digest=link.digest if link.enabled else "",
                partner=(link.b if end is link.a else link.a).text,
            )
            is_missing = end.name not in observed.names
            again = known is not None and known.tunnel == end.tunnel
            if is_missing and again and is_held_off(link.id):
                continue
            if known and not is_missing and (host := host_of(known, observed)):
                new = new._replace(name=host.name, mtu=known.mtu)
            here = template(new)
            if is_missing or new != known:
                made.append(HoldMade(link.id, here, "it is recorded before it is made", new))
            if is_missing:
                reason = f"{end} does not exist"
                made.append(MakeTunnel(link.id, here, reason, new, again, end.tunnel))
    return tuple(made)


def announcement(each: Evaluation, state: State, observed: Observed) -> Announcement | None:
    """What this host says of a link to another one; None of any other, and without a tunnel.

    What is behind the end here is no question of what the other host said: else two hosts could
    hold each other down.
    """
    link = each.link
    ways = ((link.a, each.a, each.b), (link.b, each.b, each.a))
    for end, device, own in ways:
        if end.tunnel and end.host and device:
            cause = each._replace(unheard="").why_held
            if own and not cause:
                cause = carrier.why_hidden(link, own, observed)
            return Announcement(
                end.text,
                link.id,
                device.ifindex,
                end.tunnel,
                link.digest,
                link.hold,
                offers=not cause,
                cause=cause,
                state=str(state),
            )
    return None
