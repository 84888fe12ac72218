"""The wires that stand in the kernel, as a file would ask for exactly them. Pure.

For a start without a good file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from xconnectd.impairment import Impairments
from xconnectd.model import (
    CLOSED,
    DROP_HANDLE,
    Carrier,
    Endpoint,
    Interface,
    Link,
    Made,
    Mode,
    Observed,
    Rewrite,
)
from xconnectd.reconcile.made_veths import host_of
from xconnectd.reconcile.mode_selection import choose


def found_links(observed: Observed) -> tuple[Link, ...]:
    """What forwards goes on, what is disabled stays so, and nothing else is made.

    What is held alone stays held, as a loopback that is disabled.
    """
    made = {
        host.ifindex: each for each in observed.made.values() if (host := host_of(each, observed))
    }
    links: dict[frozenset[int], Link] = {}
    for mode, entries in ((None, observed.entries), (Mode.TC, observed.peers)):
        for key, target in entries.items():
            a, b = observed.interfaces.get(key), observed.interfaces.get(target)
            one_way = observed.peers.get(target) == CLOSED
            if a and b and (one_way or entries.get(target) == key):
                link = replace(_as_found(a, b, mode, observed, made), one_way=one_way)
                links.setdefault(frozenset((key, target)), link)
    wired = frozenset().union(*links)
    for a, b in _idle_pairs(observed, wired):
        mode = None if observed.ours[a.ifindex].xdp else Mode.TC
        link = _as_found(a, b, mode, observed, made)
        waits = a is not b and link.digest  # for another host, and that may be heard again
        links.setdefault(frozenset((a.ifindex, b.ifindex)), replace(link, enabled=bool(waits)))
    return tuple(links.values())


def _idle_pairs(
    observed: Observed, wired: Collection[int]
) -> Iterator[tuple[Interface, Interface]]:
    """The ends that are held and not wired, each with its partner if that is held for it too.

    And those that we made, so that none is deleted.
    """
    idle: dict[int, tuple[Interface, int | None]] = {
        host.ifindex: (host, None)
        for made in observed.made.values()
        if (host := host_of(made, observed)) and host.ifindex not in wired
    }
    idle |= {
        each.ifindex: (each, record.idle_with)
        for each in observed.interfaces.values()
        if (record := observed.records.get(each.ifindex)) and record.is_of(each)
        if each.ifindex not in wired and observed.ours[each.ifindex].runs
    }
    for a, partner in idle.values():
        b, back = idle.get(partner, (a, None)) if partner is not None else (a, None)
        yield (a, b) if back == a.ifindex else (a, a)


def _is_impaired(end: Interface, observed: Observed) -> bool:
    drops = any(each.handle == DROP_HANDLE for each in observed.ours[end.ifindex].egress)
    return drops or (end.root is not None and end.root.shape is not None)


def _endpoint(end: Interface, own: Made | None, partners: Made | None) -> Endpoint:
    """As files called it, by what was made for it and for its partner, if anything was."""
    if own and own.tunnel:
        return Endpoint(own.end, host=_host(own.end), tunnel=own.tunnel)
    if partners and partners.tunnel:
        text = partners.partner
        return Endpoint(end.name, written=text, host=_host(text))
    return Endpoint(end.name, written=own.end if own else "")


def _host(text: str) -> str:
    host, slash, _ = text.partition("/")
    return host if slash else ""


def _as_found(
    a: Interface, b: Interface, mode: Mode | None, observed: Observed, made: Mapping[int, Made]
) -> Link:
    """``made``: what was made for ends elsewhere, by ifindex."""
    found = mode or next((Mode(xdp.mode) for xdp in a.xdp if xdp.mode != "hw"), Mode.AUTO)
    records = [(end, held) for end in (a, b) if (held := observed.records.get(end.ifindex))]
    allowed = any(record.allowed for _, record in records)
    follows = [end for end, record in records if record.follows]
    impaired = any(_is_impaired(end, observed) for end in (a, b))
    runs = {each.program for end in (a, b) for each in end.xdp}
    runs |= {each.program for end in (a, b) for each in end.ingress}
    swaps = not runs.isdisjoint(observed.programs.swapping)
    link = Link(
        _endpoint(a, made.get(a.ifindex), made.get(b.ifindex)),
        _endpoint(b, made.get(b.ifindex), made.get(a.ifindex)),
        rewrite=Rewrite.SWAP_MACS if swaps else Rewrite.NONE,
        allow_addressed=allowed,
        carrier=Carrier.FOLLOW if follows else Carrier.INDEPENDENT,
        carrier_of_nics=any(end.kind not in ("veth", "tun") for end in follows),
        impair=Impairments(as_found=True) if impaired else None,
        digest="".join([made[end.ifindex].digest for end in {a, b} if end.ifindex in made]),
    )
    return link if choose(link, a, b).mode is found else replace(link, mode=found)
