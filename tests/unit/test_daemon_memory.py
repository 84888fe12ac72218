"""Memory that is freed goes back to the kernel, and not again and again."""

from __future__ import annotations

import pytest

from xconnectd.daemon import memory


class Library:
    """The C library, in which only this is of interest."""

    def __init__(self) -> None:
        self.trims = 0

    def malloc_trim(self, _pad: int) -> None:
        self.trims += 1


def test_memory_is_given_back_once_after_passes_have_come_to_a_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = Library()
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: library)
    spare = memory.Spare()
    trims = []
    for passes in (1, 1, 1, 2, 3, 3, 3):
        spare.give_back(passes)
        trims.append(library.trims)
    assert trims == [0, 1, 1, 1, 1, 2, 2]
    spare.give_back(4, at_once=True)
    assert library.trims == 3, "what a long pass took is not kept until then"


def test_a_library_without_it_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    spare = memory.Spare()
    spare.give_back(1)
    spare.give_back(1)
