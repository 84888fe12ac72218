"""Names as they may be shown. Pure.

An interface is called by whoever owns its namespace, a file by whoever may write its directory. A
name may hold bytes that are no UTF-8, or an escape sequence for the terminal of the administrator
who looks at it.
"""

from __future__ import annotations


def printable(text: str) -> str:
    return "".join(character if character.isprintable() else "�" for character in text)
