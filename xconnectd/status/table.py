"""The table of ``status``: rows, order, filter, columns, and what keys do in the live one. Pure.

A document goes in, cells that fit a width come out. Owns no terminal; ``tui`` does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, NamedTuple, Self

from xconnectd.formatting import bit_rate, counted, duration, number, printable
from xconnectd.model import Mode, State
from xconnectd.status import drop_reasons
from xconnectd.status.document import Link, Peer, StatusDocument

_DASH: Final = " — "
_ARROW: Final = " → "
"""Between the ends of a link, and of one that leads one way only; of one width."""


class Sort(StrEnum):
    """What rows can be ordered by, the most interesting first."""

    STATE = "state"
    NAME = "name"
    RATE = "rate"
    DROPS = "drops"


class Way(NamedTuple):
    """One direction, per second; None for no rate yet."""

    frames: float | None
    bits: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """One link. ``age`` is that of its last frame in seconds, None if nobody knows.

    ``between`` stands between its ends. ``peer`` is what is known of the other host in short, empty
    for a link within this one.
    """

    a: str
    b: str
    state: State
    mode: str
    forth: Way
    back: Way
    drops: int
    age: float | None
    reason: str
    words: str
    """All that a filter looks at, in lower case."""
    between: str = _DASH
    peer: str = ""

    @property
    def name(self) -> str:
        return f"{self.a}{self.between}{self.b}"


def rows(told: StatusDocument) -> list[Row]:
    return [_row(link) for link in told.links]


def _row(link: Link) -> Row:
    a, b = link.a, link.b
    ages = [age for end in link.ends if (age := end.last_frame_age_s) is not None]
    text = (link.state, link.mode, link.reason, link.description, a.name, b.name)
    passed = (
        drop_reasons.passed(end.name, end.passed_to_host, link.mode)[0]
        for end in link.ends
        if end.passed_to_host
    )
    silence = ""
    if (peer := link.peer) and peer.host and peer.alive is None:
        silence = f"nobody here listens to {peer.host}"
    labels = (word for label in link.labels.items() for word in label)
    return Row(
        a=printable(a.name),
        b=printable(b.name),
        state=link.state,
        mode=link.mode,
        forth=Way(a.frames_per_s, a.bits_per_s),
        back=Way(b.frames_per_s, b.bits_per_s),
        drops=sum(drop_reasons.lost(end.dropped) for end in link.ends),
        age=min(ages, default=None),
        reason=printable("; ".join(filter(None, (link.reason, silence, *passed, *link.warnings)))),
        words=" ".join((*text, *labels)).lower(),
        between=_ARROW if link.one_way else _DASH,
        peer=_peer_in_short(peer) if peer else "",
    )


def _peer_in_short(peer: Peer) -> str:
    """How far away it is, or for how long it has been silent."""
    if not peer.alive or peer.round_trip_ms is None:
        return duration(peer.last_heard_age_s)
    return f"{number(peer.round_trip_ms)}ms"


def summary(rows: Sequence[Row], shown: int, wanted: str) -> str:
    """``3 links: 2 connected, 1 waiting``, and how many of them a filter shows."""
    states = [row.state for row in rows]
    parts = [f"{states.count(state)} {state}" for state in State if state in states]
    text = ": ".join(filter(None, (counted(len(rows), "link"), ", ".join(parts))))
    return f"{text}   {shown} with: {wanted}" if wanted else text


COLOURS: Final = {
    State.CONNECTED: "green",
    State.WAITING: "blue",
    State.DOWN: "yellow",
    State.DISABLED: "dim",
    State.FAILED: "red",
}

# --------------------------------------------------------------------------- order, filter

_WORST_FIRST: Final = (State.FAILED, State.DOWN, State.WAITING, State.DISABLED, State.CONNECTED)


def _name_key(row: Row) -> tuple[Any, ...]:
    """veth2 stands before veth10."""
    return tuple(
        (int(part), "") if part.isdecimal() else (-1, part)
        for end in (row.a, row.b)
        for part in re.split(r"([0-9]+)", end)
    )


def _rate(row: Row) -> float:
    return (row.forth.bits or 0.0) + (row.back.bits or 0.0)


_KEYS: Final[Mapping[Sort, Callable[[Row], Any]]] = {
    Sort.STATE: lambda row: (_WORST_FIRST.index(row.state), not row.reason),
    Sort.NAME: lambda _: 0,
    Sort.RATE: lambda row: -_rate(row),
    Sort.DROPS: lambda row: -row.drops,
}


def arrange(rows: Iterable[Row], sort: Sort, wanted: str = "") -> list[Row]:
    """Those rows that have every word of ``wanted``, in order; by name where that is equal.

    ``state:down`` is that state, where ``down`` also finds an interface called so.
    """
    words = wanted.lower().split()
    found = [row for row in rows if all(_has(row, word) for word in words)]
    return sorted(sorted(found, key=_name_key), key=_KEYS[sort])


def _has(row: Row, word: str) -> bool:
    key, colon, state = word.partition(":")
    if colon and key == "state":
        return row.state.startswith(state)
    return word in row.words


# --------------------------------------------------------------------------- columns


class Column(NamedTuple):
    """``width`` is in characters of a terminal; a number stands at the right."""

    title: str
    width: int
    cell: Callable[[Row], str]
    right: bool = False


GAP: Final = 1
"""Characters between two columns."""
_STATE: Final = max(map(len, State))
_MODE: Final = len(Mode.GENERIC)
_FRAMES: Final = 5
_BITS: Final = len("→bit/s")
_PEER: Final = len("999ms")
_LEAST_NAME: Final = 16
_LEAST_REASON: Final = len("REASON")

_FIRST_OUT: Final = (("→f/s", "←f/s"), ("LAST",), ("PEER",))
"""Shown where names and reasons leave room."""
_LAST_OUT: Final = (("MODE",), ("DROPS",), ("→bit/s", "←bit/s"))
"""Left out where the shortest names and reasons leave none."""


def columns(rows: Sequence[Row], width: int | None) -> list[Column]:
    """What fits into ``width``: names as wide as needed, then the reason gets the rest.

    None is for no terminal: everything, unshortened.
    """
    shown = [
        Column("STATE", _STATE, lambda row: row.state.value),
        Column("MODE", _MODE, lambda row: row.mode),
        Column("→f/s", _FRAMES, lambda row: number(row.forth.frames), right=True),
        Column("→bit/s", _BITS, lambda row: number(row.forth.bits), right=True),
        Column("←f/s", _FRAMES, lambda row: number(row.back.frames), right=True),
        Column("←bit/s", _BITS, lambda row: number(row.back.bits), right=True),
        Column("DROPS", _FRAMES, lambda row: number(row.drops), right=True),
        Column("LAST", 4, lambda row: duration(row.age), right=True),
    ]
    if any(row.peer for row in rows):
        shown.append(Column("PEER", _PEER, lambda row: row.peer, right=True))
    name = max([len("LINK"), *(len(row.name) for row in rows)])
    least_name = min(name, _LEAST_NAME)
    reason = max([_LEAST_REASON, *(len(row.reason) for row in rows)])
    width = width or _width(shown) + name + GAP + reason
    for out in (*_FIRST_OUT, *_LAST_OUT):
        least = (name, reason) if out in _FIRST_OUT else (least_name, _LEAST_REASON)
        if _width(shown) + sum(least) + GAP > width:
            shown = [column for column in shown if column.title not in out]
    left = max(least_name + _LEAST_REASON, width - _width(shown) - GAP)
    name = max(least_name, min(name, left - max(_LEAST_REASON, min(reason, left // 3))))
    link = Column("LINK", name, lambda row: _name(row, name))
    return [link, *shown, Column("REASON", left - name, lambda row: _cut(row.reason, left - name))]


def line(columns: Sequence[Column], row: Row | None = None) -> tuple[str, str, str]:
    """One line of the table (the titles without a row): what is before the state, it, the rest."""
    texts = [column.cell(row) if row else column.title for column in columns]
    padded = [
        text.rjust(column.width) if column.right else text.ljust(column.width)
        for column, text in zip(columns, texts, strict=True)
    ]
    gap = " " * GAP
    return padded[0] + gap, padded[1], (gap + gap.join(padded[2:])).rstrip()


def is_cut(rows: Iterable[Row], columns: Sequence[Column]) -> bool:
    """Whether a reason is longer than its column."""
    return any(len(row.reason) > columns[-1].width for row in rows)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _width(columns: Iterable[Column]) -> int:
    return sum(column.width + GAP for column in columns)


def _name(row: Row, width: int) -> str:
    """Both ends, shortened in their middles if need be: names tend to differ at the end."""
    if len(row.name) <= width:
        return row.name
    room = width - len(row.between)
    a = min(len(row.a), max(room // 2, room - len(row.b)))
    return f"{_squeezed(row.a, a)}{row.between}{_squeezed(row.b, room - a)}"


def _squeezed(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def plain(row: Row) -> str:
    """One line for a pipe: everything, unshortened."""
    ways = " ".join(
        f"{arrow} {number(way.frames)} frames/s {bit_rate(way.bits)}"
        for arrow, way in (("→", row.forth), ("←", row.back))
    )
    last = "" if row.age is None else f" last {duration(row.age)}"
    reason = f" ({row.reason})" if row.reason else ""
    return f"{row.name} {row.state} {row.mode} {ways} dropped {row.drops}{last}{reason}"


# --------------------------------------------------------------------------- keys

_SEQUENCES: Final = {
    "[A": "up", "OA": "up", "[B": "down", "OB": "down",
    "[5~": "page up", "[6~": "page down",
    "[H": "home", "OH": "home", "[1~": "home", "[F": "end", "OF": "end", "[4~": "end",
}  # fmt: skip


def keys(typed: str) -> Iterator[str]:
    """What a terminal sent, key by key: characters as they are, the others by their names."""
    for found in re.finditer(r"\x1b(\[[0-9;]*[A-Za-z~]|O[A-Za-z])|(.)", typed, re.DOTALL):
        sequence, char = found.groups()
        yield _SEQUENCES.get(sequence, "") if sequence else char


@dataclass(frozen=True, slots=True)
class View:
    """What the user has chosen to see; ``cursor`` is the place of a row among those shown."""

    sort: Sort = Sort.STATE
    wanted: str = ""
    cursor: int = 0

    @classmethod
    def asked(cls, sort: str | None, wanted: str | None) -> Self:
        """By the options ``--sort`` and ``--filter``."""
        return cls(Sort(sort) if sort else Sort.STATE, wanted or "")

    def arrange(self, rows: Iterable[Row]) -> list[Row]:
        return arrange(rows, self.sort, self.wanted)

    def within(self, count: int) -> View:
        """The same with the cursor on one of ``count`` rows."""
        return replace(self, cursor=max(0, min(self.cursor, count - 1)))

    def first(self, count: int, height: int) -> int:
        """The row that stands on top so that the cursor's is among ``height`` of ``count``."""
        page = self.cursor // max(1, height) * height
        return max(0, min(page, count - height))

    def press(self, key: str, count: int, height: int) -> View:
        """After a key, with ``count`` rows of which ``height`` fit."""
        if key == "s":
            order = [*Sort]
            return replace(self, sort=order[(order.index(self.sort) + 1) % len(order)])
        moved = self.cursor + _moves(count, height).get(key, 0)
        return replace(self, cursor=moved).within(count)


def _moves(count: int, height: int) -> dict[str, int]:
    page = max(1, height)
    return {
        "up": -1, "k": -1, "down": 1, "j": 1,
        "page up": -page, "b": -page, "page down": page, " ": page,
        "home": -count, "g": -count, "end": count, "G": count,
    }  # fmt: skip
