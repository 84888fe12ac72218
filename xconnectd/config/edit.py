"""A file of which a few plain lines changed: its wiring from the wiring before, in no time.

Reading YAML takes 8 µs a link, which among a thousand links is most of what a rewire takes. Only
the everyday edit is recognized, ``a: b`` become ``a: c`` or ``d: e`` in its place; ``parser``
reads everything else, and whatever is declined here. Pure.
"""

from __future__ import annotations

import re
import string
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice, pairwise
from operator import attrgetter, eq
from typing import Final

from xconnectd.config import hosts
from xconnectd.model import Endpoint, Link, Node, Wiring

_NAME: Final = rb"[A-Za-z][A-Za-z0-9_.-]{0,14}"
_END: Final = rb"((?:[A-Za-z0-9.-]+/)?(?:%b:)?%b)" % (_NAME, _NAME)
_pair: Final = re.compile(rb"( *)%b: %b\n" % (_END, _END)).fullmatch
"""The short form of a link, in the shape that needs no YAML to be understood."""

_FEW: Final = 100
"""Changed lines; with more of them reading the file anew is about as quick."""

_NOT_PLAIN: Final = (b"&", b"\r", *(each.encode() for each in "\x85\u2028\u2029"))
"""What a text is not judged with: an anchor lets a line count in several places, and to YAML a line
ends at all of the others, too."""
_OF_NAMES: Final = frozenset(each.encode() for each in f"{string.ascii_letters}{string.digits}_.-")

_NAME_A: Final = attrgetter("a.name")
_NAME_B: Final = attrgetter("b.name")


def edited(text: bytes, known: Wiring) -> Wiring | None:
    """The wiring of ``text`` if that is the text of ``known`` but for some plain lines, else None.

    None too for an edit that a problem or a warning is to be told of: who reads the whole file
    finds the words.
    """
    if known.warnings or any(map(text.__contains__, _NOT_PLAIN)):
        return None
    changed = [*islice(_changed(known.text, text), _FEW + 1)]
    if len(changed) > _FEW:
        return None
    links = list(known.links)
    addresses = dict(known.hosts)
    in_nodes = []
    crossing = False
    before: set[str] = set()
    after: list[str] = []
    for line, was, now in changed:
        at = bisect_left(links, line, key=_line)
        new = _rewired(links[at], line, was, now) if at < len(links) else None
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
    return replace(known, links=tuple(links), text=text)


def _changed(before: bytes, after: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Each line that is not as before: its number from 1, what it was, and what it is.

    A line that one of the two has alone is empty in the other.
    """
    line, was, now = 1, 0, 0
    while (alike := _alike(before, was, after, now)) < max(len(before) - was, len(after) - now):
        same = after[now : now + alike]
        whole = same.rfind(b"\n") + 1
        line += same.count(b"\n")
        was, now = was + whole, now + whole
        old, new = _line_at(before, was), _line_at(after, now)
        yield line, old, new
        line, was, now = line + 1, was + len(old), now + len(new)


def _alike(one: bytes, at: int, other: bytes, there: int) -> int:
    """How many bytes are the same from these places on. It reads a gigabyte in a tenth of a second.

    Found bit by bit, from the highest on.
    """
    alike, step = 0, 1 << (len(other) - there).bit_length()
    while step := step // 2:
        part = other[there + alike : there + alike + step]
        if len(part) == step and one.startswith(part, at + alike):
            alike += step
    return alike


def _line_at(text: bytes, begin: int) -> bytes:
    return text[begin : text.find(b"\n", begin) + 1 or None]


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
    """Whether a text may be about an end in two places; of a name with escapes nothing is known."""
    around = pairwise(text.split(end.rpartition("/")[2].encode()))
    whole = [1 for one, other in around if _OF_NAMES.isdisjoint((one[-1:], other[:1]))]
    return b"\\" in text or len(whole) > 1


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
