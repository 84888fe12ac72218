"""The daemon's local control channel: two unix sockets, one JSON document a line.

``control`` is for root alone: try a wiring, reload. ``status`` may only look, and is open to the
group ``xconnectd`` where that group exists. A connection is a lease: a wiring that is being tried
lasts as long as the connection that asked for it, so a client that dies takes it back.

Requests, each ``{"do": …}`` with what it needs:

- ``ping``, ``status``, ``counters``, ``events``, ``reload``, ``hold`` and ``keep``: nothing;
- ``try``: ``text`` and ``path`` of a file, ``timeout`` in seconds, and ``as``, what it replaces;
- ``impair``: ``link``, ``direction``, ``words`` (a list of ``KEY=VALUE``) and ``seconds``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, Self

from xconnectd.control import unix_sockets

CONTROL: Final = unix_sockets.CONTROL
STATUS: Final = unix_sockets.STATUS

LONGEST_TRY: Final = 3600
"""Seconds."""
LONGEST_IMPAIRMENT: Final = 7 * 24 * 3600
"""Seconds that a command can impair a link for."""

Request = dict[str, Any]
Answer = dict[str, Any]
Pieces = Iterator[str]
"""The text of a long answer, of which each takes a millisecond or less; some may be empty."""


class Draft(NamedTuple):
    """What ``try`` is asked with: a file's name and text, and for how many seconds.

    ``instead`` is the name of the file that it replaces; empty for the one of its own name.
    """

    name: str
    text: bytes
    seconds: float
    instead: str = ""

    @classmethod
    def of(cls, request: Request) -> Self:
        """Raises ValueError: something is missing or odd."""
        match request:
            case {"path": str(name), "text": str(text), "timeout": int() | float() as seconds}:
                if not 0 < seconds < math.inf:  # NaN is not either
                    raise ValueError(f"nothing can be tried for {seconds} s")
                instead = request.get("as", "")
                if isinstance(instead, str):
                    return cls(name, text.encode(), min(seconds, LONGEST_TRY), instead)
        raise ValueError("`path`, `text` and `as` take texts, `timeout` takes seconds")
