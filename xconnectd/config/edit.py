"""A file of which a few plain lines changed: its wiring from the wiring before, in no time.

Reading YAML takes 8 µs a link, which among a thousand links is most of what a rewire takes. Only
the everyday edit is recognized, ``a: b`` become ``a: c`` or ``d: e`` in its place; ``parser``
reads everything else, and whatever is declined here. Pure.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import replace
from operator import attrgetter, eq
from typing import Final

from xconnectd.digest import sha256
from xconnectd.model import Endpoint, Link, Wiring

_NAME: Final = rb"([A-Za-z][A-Za-z0-9_.-]{0,14})"
_pair: Final = re.compile(rb"( *)%b: %b\n" % (_NAME, _NAME)).fullmatch
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
    changed = [number for number, line in enumerate(now[: len(was)]) if line != was[number]]
    if len(was) != len(now) or len(changed) > _FEW:
        return None
    links = list(known.links)
    doubtful = b"\\" in text  # a name may be written in escapes
    for number in changed:
        at = bisect_left(links, number + 1, key=_line)
        new = _rewired(links[at], number + 1, was[number], now[number]) if links[at:] else None
        if new is None:
            return None
        links[at] = new
        names = new.a.name.encode(), new.b.name.encode()
        doubtful = doubtful or any(text.count(name) > 1 for name in names)
    if doubtful and not _are_apart(links):
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
    return replace(link, a=Endpoint(new[2].decode()), b=Endpoint(new[3].decode()))


def _are_apart(links: list[Link]) -> bool:
    """Whether no interface is in two of these links."""
    ends_a, ends_b = [*map(_NAME_A, links)], [*map(_NAME_B, links)]
    loopbacks = sum(map(eq, ends_a, ends_b))
    names = {*ends_a, *ends_b}
    return bool(len(names) == 2 * len(links) - loopbacks)
