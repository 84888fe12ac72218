"""What is wrong between this host and another one to which a link leads. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from xconnectd.diagnostics.facts import Answer, LinkFacts
from xconnectd.diagnostics.finding import Finding, Level, Stops
from xconnectd.model import Endpoint, Heard, Tunnel


def of_tunnel(facts: LinkFacts) -> Iterator[Finding]:
    """In the order of a frame: the route, the way there and back, what the daemon there says."""
    far = facts.evaluation.link.tunnel_end
    if far is None or far.tunnel is None:
        return
    name = far.host or far.tunnel.remote
    if facts.way and facts.way.problem:
        text = f"no way to {name} ({far.tunnel.remote}): {facts.way.problem}"
        yield _stop("route", text, f"ip route get {far.tunnel.remote}  # add a route")
        return
    heard = facts.observed.heard.get(far.text)
    if not far.host or heard is None:
        return
    if heard.alive is None:
        text = f"nobody here listens to {name}: what stands stays, whatever becomes of it"
        yield Finding(Level.WARN, "not heard", text, facts.repair)
    elif not heard.alive:
        yield _why_not_alive(far, far.tunnel, heard, facts)


def _why_not_alive(far: Endpoint, tunnel: Tunnel, heard: Heard, facts: LinkFacts) -> Finding:
    """By what was counted just now, while it was not."""
    name, now, mine = far.host, facts.keepalives, facts.evaluation.link.digest
    opened = f"let UDP port {tunnel.port} through, on {name} and on the way"
    status = f"xconnectd status  # on {name}: has it this link?"
    there = f"xconnectd doctor  # on {name}"
    if now and now.unverified:
        text = f"what {name} says does not verify: it has another hosts_key, or none"
        return _stop("key", text, f"give {name} the hosts_key of {facts.file}")
    if now and not now.sent:
        return _stop("tunnel", f"this host sends {name} nothing: {heard.reason}", facts.repair)
    if now and now.received and not now.echoed:
        text = f"{name} is heard, but what this host sends by UDP port {tunnel.port} gets no answer"
        return _stop("tunnel", f"{text}: one way is blocked", opened)
    if now and not now.echoed and tunnel.remote in heard.reason:  # nothing answers there
        if facts.answer is Answer.CLOSED:
            text = f"{heard.reason}: the port is closed, no xconnectd there has a tunnel to here"
            return _stop("tunnel", text, status)
        if facts.answer is Answer.PING:
            return _stop(
                "port", f"{heard.reason}, though it answers a ping", f"{status} If so, {opened}"
            )
        return _stop("tunnel", heard.reason, f"ping {tunnel.remote}  # and there: xconnectd doctor")
    if heard.digest and heard.digest != mine:
        text = f"{name} has another wiring for this link (hash {heard.digest}, here {mine})"
        return _stop("wiring", text, f"the same {facts.file} on both, and xconnectd reload")
    return _stop("other host", heard.reason, there)


def of_length(longest: int | None, facts: LinkFacts) -> Iterator[Finding]:
    """Whether frames that come in here are longer than the way to the other host takes.

    ``longest`` is the MTU of what is behind the end here. IPv6 is fragmented by who sends it alone,
    and the kernel's VXLAN does not (ip6_fragment() without skb->ignore_df, seen on Linux 6.18).
    """
    far = facts.evaluation.link.tunnel_end
    if far is None or far.tunnel is None or not facts.way or not facts.way.mtu or not longest:
        return
    fits = facts.way.mtu - far.tunnel.overhead
    if longest <= fits:
        return
    name = far.host or far.tunnel.remote
    wanted = longest + far.tunnel.overhead
    remedy = f"an MTU of {wanted} on the way to {far.tunnel.remote}, or of {fits} behind both ends"
    text = f"the way to {name} has MTU {facts.way.mtu}, so frames of up to {fits} cross whole"
    if ":" in far.tunnel.remote:
        text = f"{text}, but {longest} are sent: longer ones are lost"
        yield Finding(Level.FAIL, "mtu", text, remedy, Stops.LONG)
    else:
        text = f"{text}; {longest} are sent: longer ones cross in fragments, and so slower"
        yield Finding(Level.WARN, "mtu", f"{text} (TCP in bulk is cut to fit)", remedy)


def _stop(check: str, text: str, remedy: str) -> Finding:
    return Finding(Level.FAIL, check, text, remedy, Stops.ALL)
