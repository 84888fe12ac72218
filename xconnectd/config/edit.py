"""A file of which a few plain lines changed: its wiring from the wiring before, in no time.

Reading YAML takes 8 µs a link, which among a thousand links is most of what a rewire takes. Only
the everyday edit is recognized, ``a: b`` become ``a: c`` or ``d: e`` in its place; ``parser``
reads everything else, and whatever is declined here. Pure.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import compress, count
from operator import attrgetter, eq, ne
from typing import Final

from xconnectd.config import hosts
from xconnectd.digest import sha256
from xconnectd.model import Endpoint, Link, Node, Wiring

_NAME: Final = rb"[A-Za-z][A-Za-z0-9_.-]{0,14}"
_END: Final = rb"((?:[A-Za-z0-9.-]+/)?(?:%b:)?%b)" % (_NAME, _NAME)
_pair: Final = re.compile(rb"( *)%b: %b\n" % (_END, _END)).fullmatch
"""The short form of a link, in the shape that needs no YAML to be understood."""

_FEW: Final = 100
"""Changed lines; with more of them reading the file anew is about as quick."""
_MOST: Final = 200_000
"""Lines of a file, each of which takes 50 bytes; a file of empty ones has millions."""

_NAME_A: Final = attrgetter("a.name")
_NAME_B: Final = attrgetter("b.name")


def digest(text: bytes) -> str:
    """What ``Wiring.hash`` is."""
    return sha256(text).hexdigest()[:12]


def edited(text: bytes, known: Wiring) -> Wiring | None:
    """The wiring of ``text`` if that is the text of ``known`` but for some plain lines, else None.

    None too for an edit that a problem or a warning is to be told of: who reads the whole file
    finds the words. An anchor lets a line count in several places, so where there is an ``&``
    nothing is judged.
    """
    if known.warnings or b"&" in known.text or b"&" in text:
        return None
    if text.count(b"\n") > _MOST:
        return None
    was, now = known.text.splitlines(keepends=True), text.splitlines(keepends=True)
    changed = [*compress(count(), map(ne, now, was))]
    if len(was) != len(now) or len(changed) > _FEW:
        return None
    links = list(known.links)
    addresses = dict(known.hosts)
    in_nodes = []
    crossing = False
    before: set[str] = set()
    after: list[str] = []
    for number in changed:
        at = bisect_left(links, number + 1, key=_line)
        new = _rewired(links[at], number + 1, was[number], now[number]) if links[at:] else None
        if new is None or not _can_be(new, addresses):
            return None
        before |= {links[at].a.name, links[at].b.name}
        after += {new.a.name, new.b.name}
        links[at] = new
        if new.a.node or new.b.node:
            in_nodes.append(at)
        crossing = crossing or bool(new.vni)
    if len({*after}) < len(after):
        return None
    if in_nodes and not _are_placed(links, in_nodes, known):
        return None
    fresh = {*after} - before  # in these lines the others were, and nowhere else
    if any(_may_be_elsewhere(name, text) for name in fresh) and not _are_apart(links):
        return None
    if crossing and not _have_tunnels_of_their_own(links):
        return None
    return replace(known, links=tuple(links), hash=digest(text), text=text)


def _line(link: Link) -> int:
    return link.place.line if link.place else 0


def _rewired(link: Link, line: int, was: bytes, now: bytes) -> Link | None:
    """The link that stood in a line, with the ends that stand there now."""
    old, new = _pair(was), _pair(now)
    if not (old and new) or old[1] != new[1] or link.place is None:
        return None
    told = (line, len(old[1]) + 1, old[2].decode(), old[3].decode())
    if told != (link.place.line, link.place.column, link.a.name, link.b.name):
        return None
    first, second = new[2].decode(), new[3].decode()
    if (":" in first + second) is (link.a.node is link.b.node is None):
        return None  # of `defaults`, mtu is only for links with an end in a node
    a, b = _end(first), _end(second)
    if hosts.crosses(a, b) is not bool(link.vni):
        return None  # and hold for those between two hosts
    return replace(link, a=a, b=b, vni=link.vni and hosts.vni_of(a, b))


def _end(name: str) -> Endpoint:
    host, _, rest = name.rpartition("/")
    node, colon, _ = rest.partition(":")
    return Endpoint(name, Node(node) if colon else None, host=host)


def _can_be(link: Link, addresses: Mapping[str, str]) -> bool:
    """Whether there can be a link between the hosts of these ends, if they are on any."""
    if not (link.a.host or link.b.host):
        return True
    there = [addresses.get(end.host, "") for end in (link.a, link.b)]
    return all(there) and len({":" in address for address in there}) == 1


def _are_placed(links: list[Link], changed: Iterable[int], known: Wiring) -> bool:
    """Give changed ends the nodes that `nodes` has; whether every entry there is named as before.

    Every entry is that of an end in ``known``: else there was a warning.
    """
    nodes = {end.node.name: end.node for link in known.links for end in link.ends if end.node}

    def placed(end: Endpoint) -> Endpoint:
        return end._replace(node=nodes.get(end.node.name, end.node)) if end.node else end

    for at in changed:
        links[at] = replace(links[at], a=placed(links[at].a), b=placed(links[at].b))
    entries = {node for node in nodes.values() if node != Node(node.name)}
    return entries <= {end.node for link in links for end in link.ends}


def _may_be_elsewhere(end: str, text: bytes) -> bool:
    """Whether more of a text may be about an end: a name may be part of another, or in escapes."""
    return b"\\" in text or text.count(end.rpartition("/")[2].encode()) > 1


def _are_apart(links: list[Link]) -> bool:
    """Whether no interface is in two of these links."""
    ends_a, ends_b = [*map(_NAME_A, links)], [*map(_NAME_B, links)]
    loopbacks = sum(map(eq, ends_a, ends_b))
    names = {*ends_a, *ends_b}
    on_hosts = {name.partition("/")[2] for name in names if "/" in name}
    return bool(len(names) == 2 * len(links) - loopbacks) and names.isdisjoint(on_hosts)


def _have_tunnels_of_their_own(links: list[Link]) -> bool:
    """Whether no VNI is in two of these links."""
    vnis = [vni for vni in map(hosts.vni, links) if vni]
    return len({*vnis}) == len(vnis)
