"""What the pages of the documentation say to type, and what they say that commands answer."""

from __future__ import annotations

import re


def section(page: str, title: str, level: str = "## ") -> str:
    """The text below a heading, up to the next one of its level."""
    return page.partition(f"{level}{title}\n")[2].partition(f"\n{level}")[0]


def commands(text: str) -> list[str]:
    """The lines that are typed in ``console`` blocks, without the words said beside them."""
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    lines = (line for block in blocks for line in block.splitlines() if line.startswith("$ "))
    return [line.removeprefix("$ ").partition("  #")[0] for line in lines]
