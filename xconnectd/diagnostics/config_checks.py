"""What is wrong with a file, or is not in it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from shlex import quote

from xconnectd.diagnostics.finding import Finding, Level, Stops


def of_absent_link(name: str, file: str, text: str) -> Finding:
    """A link that was asked for and is in no file."""
    a, _, b = name.partition(":")
    remedy = f"below links: in {file}: {a}: {b or '…'}"
    return Finding(Level.FAIL, "file", text, remedy, Stops.ALL)


def of_problems(problems: Iterable[str], file: str) -> Iterator[Finding]:
    """What is wrong in a file, whose last good links are the ones looked at."""
    for problem in problems:
        yield Finding(
            Level.FAIL, "config", problem, f"xconnectd check {quote(file)}  # once it is fixed"
        )
