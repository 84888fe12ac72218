"""The live table of ``status --watch``: rows, order, filter, columns and what keys do. Pure.

A report goes in, cells that fit a width come out. Owns no terminal; ``tui`` does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, NamedTuple

from xconnectd.formatting import bit_rate, counted, duration, number, printable
from xconnectd.model import State
from xconnectd.status import drop_reasons
from xconnectd.status.document import Link, StatusDocument

_DASH: Final = " — "


class Sort(StrEnum):
    """What rows can be ordered by, the most interesting first."""

    NAME = "name"
    STATE = "state"
    RATE = "rate"
    DROPS = "drops"


class Way(NamedTuple):
    """One direction, per second; None for no rate yet."""

    frames: float | None
    bits: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """One link. ``age`` is that of its last frame in seconds, None if nobody knows."""

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

    @property
    def name(self) -> str:
        return f"{self.a}{_DASH}{self.b}"

    @property
    def why(self) -> str:
        """The mode of a link that works, the reason for one that does not."""
        return self.reason or self.mode


def rows(told: StatusDocument) -> list[Row]:
    return [_row(link) for link in told.links]


def _row(link: Link) -> Row:
    a, b = link.a, link.b
    ages = [age for end in link.ends if (age := end.last_frame_age_s) is not None]
    text = (link.state, link.mode, link.reason, link.description, a.name, b.name)
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
        reason=printable("; ".join(filter(None, (link.reason, *link.warnings)))),
        words=" ".join((*text, *labels)).lower(),
    )


def summary(rows: Sequence[Row]) -> str:
    """``3 links: 2 connected, 1 waiting``."""
    states = [row.state for row in rows]
    parts = [f"{states.count(state)} {state}" for state in State if state in states]
    count = counted(len(rows), "link")
    return f"{count}: {', '.join(parts)}" if parts else count


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
    Sort.NAME: lambda _: 0,
    Sort.STATE: lambda row: _WORST_FIRST.index(row.state),
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
_RATE: Final = 5
_LEAST_NAME: Final = 16
_LEAST_WHY: Final = len("generic")


def columns(rows: Sequence[Row], width: int) -> list[Column]:
    """What fits into ``width``: names as wide as needed, then the reason gets the rest.

    Below 80 some columns are left out, the least important first.
    """
    fixed = [
        Column("STATE", _STATE, lambda row: row.state.value),
        Column("→f/s", _RATE, lambda row: number(row.forth.frames), right=True),
        Column("→b/s", _RATE, lambda row: number(row.forth.bits), right=True),
        Column("←f/s", _RATE, lambda row: number(row.back.frames), right=True),
        Column("←b/s", _RATE, lambda row: number(row.back.bits), right=True),
        Column("DROPS", _RATE, lambda row: number(row.drops), right=True),
    ]
    if any(row.age is not None for row in rows):
        fixed.append(Column("LAST", 4, lambda row: duration(row.age), right=True))
    least = _LEAST_NAME + GAP + _LEAST_WHY
    while len(fixed) > 1 and _width(fixed) + least > width:
        fixed.pop()
    left = max(least, width - _width(fixed)) - GAP
    needed = max((len(row.name) for row in rows), default=0)
    name = max(_LEAST_NAME, min(needed, left - max(_LEAST_WHY, left // 3)))
    link = Column("LINK", name, lambda row: _name(row, name))
    return [link, *fixed, Column("WHY", left - name, lambda row: row.why)]


def _width(columns: Iterable[Column]) -> int:
    return sum(column.width + GAP for column in columns)


def _name(row: Row, width: int) -> str:
    """Both ends, shortened in their middles if need be: names tend to differ at the end."""
    if len(row.name) <= width:
        return row.name
    room = width - len(_DASH)
    a = min(len(row.a), max(room // 2, room - len(row.b)))
    return f"{_squeezed(row.a, a)}{_DASH}{_squeezed(row.b, room - a)}"


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

    sort: Sort = Sort.NAME
    wanted: str = ""
    cursor: int = 0

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
