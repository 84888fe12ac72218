"""Whether a stream is a terminal, and colour for one."""

from __future__ import annotations

import os
from typing import Final, TextIO

_SGR: Final = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "dim": 2}
"""Select Graphic Rendition (ECMA-48)."""


def is_terminal(stream: TextIO) -> bool:
    """One that knows more than lines; without TERM nobody says that it does."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def paint(text: str, colour: str, stream: TextIO) -> str:
    """In this colour if ``stream`` is a terminal, unless NO_COLOR is set (no-color.org)."""
    if is_terminal(stream) and not os.environ.get("NO_COLOR"):
        return f"\x1b[{_SGR[colour]}m{text}\x1b[m"
    return text
