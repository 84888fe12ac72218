"""Tunnels to other hosts: what they are told of the links that lead to them. Pure."""

from __future__ import annotations

from xconnectd.model import Announcement, Observed, State
from xconnectd.reconcile import carrier
from xconnectd.reconcile.evaluate import Evaluation


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
