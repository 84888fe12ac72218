"""A file for several hosts: what one of them does of it, and in what both ends must agree. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from operator import itemgetter
from typing import Final, NamedTuple

from xconnectd.config import ends
from xconnectd.digest import sha256
from xconnectd.impairment import UNIMPAIRED, Impairment, Impairments
from xconnectd.model import Endpoint, Link, Rewrite, Tunnel, Wiring

_DIGITS: Final = 8


def crosses(a: Endpoint, b: Endpoint) -> bool:
    """Whether these ends are on two hosts."""
    return a.host != b.host and bool(a.host and b.host)


def vni_of(a: Endpoint, b: Endpoint) -> int:
    """The VNI of the tunnel between two ends, from 1 to 2**24 - 1: the same on every host."""
    text = ",".join(sorted((a.text, b.text)))
    return int.from_bytes(sha256(text.encode()).digest()[:3], "big") or 1


def vni(link: Link) -> int:
    """Of the tunnel that belongs to a link, 0 where there is none."""
    return link.vni or next((end.tunnel.vni for end in link.ends if end.tunnel), 0)


Taken = tuple[int, str]
"""A VNI on a host. ``EVERY``: on every one there is; ``ANY``: on some host."""

EVERY: Final = ""
ANY: Final = "*"


def takes(link: Link) -> tuple[Taken, ...]:
    """What a link with a tunnel has for itself."""
    number, on = vni(link), {link.a.host, link.b.host} - {EVERY} or {EVERY}
    return (*((number, host) for host in on), (number, ANY))


def meets(link: Link) -> tuple[Taken, ...]:
    """What no other link may have beside one with a tunnel: there the two would be one."""
    number, on = vni(link), {link.a.host, link.b.host} - {EVERY}
    return (*((number, host) for host in on), (number, EVERY if on else ANY))


class Part(NamedTuple):
    """A whole file's wiring, and what one host does of it."""

    whole: Wiring
    wiring: Wiring


def links_of(wiring: Wiring, host: str, before: Part | None = None) -> Wiring:
    """What ``host`` does of a whole file: links with an end on it, or on every host.

    Its own ends are as any others; those of other hosts have a tunnel that leads there. A file
    without hosts is returned as it is. What became of a link ``before``, the very same, becomes of
    it again: each takes 10 µs, which among a thousand is most of what a rewire takes.
    """
    if not wiring.hosts:
        return wiring
    known = {}
    if before and (before.wiring.host, before.wiring.hosts) == (host, wiring.hosts):
        known = dict(zip(map(id, _of_host(before.whole, host)), before.wiring.links, strict=True))
    addresses = dict(wiring.hosts)
    found = [known.get(id(each)) or _part(each, host, addresses) for each in _of_host(wiring, host)]
    return replace(wiring, links=tuple(found), host=host)


def _of_host(wiring: Wiring, host: str) -> list[Link]:
    own = ("", host)
    return [link for link in wiring.links if link.a.host in own or link.b.host == host]


def _part(link: Link, host: str, addresses: Mapping[str, str]) -> Link:
    if not (link.a.host or link.b.host):
        return link
    crossing = crosses(link.a, link.b)
    own = {end.name: ends.bare(end) for end in link.ends if end.host == host}
    impair = link.impair
    if impair and crossing:
        impair = _leaving(impair, by_a=link.a.host == host)
    return replace(
        link,
        a=_seen_from(link.a, host, addresses, link.vni),
        b=_seen_from(link.b, host, addresses, link.vni),
        monitors=tuple((own[name], address) for name, address in link.monitors if name in own),
        impair=impair,
        digest=digest(link) if crossing else "",
    )


def _seen_from(end: Endpoint, host: str, addresses: Mapping[str, str], vni: int) -> Endpoint:
    if not end.host:
        return end
    if end.host == host:
        return Endpoint(ends.bare(end), end.node, written=end.name, host=host)
    return Endpoint(end.name, host=end.host, tunnel=Tunnel(addresses[end.host], vni))


def _leaving(impair: Impairments, *, by_a: bool) -> Impairments | None:
    """What meets the frames that leave by the one end here; the rest is the other host's."""
    one = Impairments(reverse=impair.reverse) if by_a else Impairments(forward=impair.forward)
    return one if any((one.forward, one.reverse)) else None


def digest(link: Link) -> str:
    """Of all in which both hosts must agree, the same for ``a: b`` and ``b: a``.

    Not of what concerns one host alone, nor of what is only for people. What is as it is by default
    does not count, so that a later release with more options agrees with this one.
    """
    a, b = link.a.text, link.b.text
    said = [*sorted((a, b)), f"vni {link.vni}"]
    if not link.enabled:
        said.append("off")
    if link.one_way:
        said.append(f"from {a}")
    if link.rewrite is not Rewrite.NONE:
        said.append(link.rewrite)
    if link.impair:
        ways = sorted(((b, link.impair.forward), (a, link.impair.reverse)), key=itemgetter(0))
        said += [f"to {end}: {_told(one)}" for end, one in ways if one]
    return sha256("\n".join(said).encode()).hexdigest()[:_DIGITS]


def _told(impair: Impairment) -> str:
    return " ".join(
        f"{name}={value}"
        for name, value in impair._asdict().items()
        if value != getattr(UNIMPAIRED, name)
    )
