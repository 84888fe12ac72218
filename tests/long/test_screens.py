"""The page of screens is what the commands print today, but for numbers and how wide they are."""

from __future__ import annotations

import re

from netns.lab import REPO, Lab

from tests.screens import page


def _words(text: str) -> set[str]:
    """Its lines without times, pids, hashes, rates and ages. Frames may come in another order."""
    plain = re.sub(r"\b(?=\w*\d)[\d.:a-f]+[kMGs]?\b|…|-", " ", text)
    return {" ".join(line.split()) for line in plain.splitlines()}


def test_the_screens_are_not_stale() -> None:
    with Lab() as lab:
        now = page(lab)
    assert _words(now) == _words((REPO / "docs" / "screens.md").read_text()), "run make screens"
