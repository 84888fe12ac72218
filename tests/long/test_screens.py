"""What pages quote is what the commands print today, but for numbers and how wide they are."""

from __future__ import annotations

import re

from tests.netns.lab import REPO, Lab
from tests.screens import pages


def _words(text: str) -> set[str]:
    """Its lines without times, pids, hashes, rates and ages. Frames may come in another order.

    Of four frames of two ways, one may have come by one way.
    """
    plain = re.sub(r"\b(?=\w*\d)[\d.:a-f]+[kMGs]?\b|…|-", " ", text)
    return {" ".join(line.split()).replace("frames ", "frame ") for line in plain.splitlines()}


def test_what_pages_quote_is_not_stale() -> None:
    with Lab() as lab:
        now = pages(lab)
    assert set(now) >= {"screens.md", "troubleshooting.md", "graph.md", "file.md"}
    for name, text in now.items():
        assert _words(text) == _words((REPO / "docs" / name).read_text()), f"{name}: make screens"
