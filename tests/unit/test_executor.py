"""What the executor takes back by itself when a step is refused."""

from __future__ import annotations

import errno

import pytest
from builders import wiring
from driven import Keeper
from kernel import Book, Kernel


def test_an_end_that_cannot_be_recorded_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: nothing is left of what was begun, also in no map."""
    kernel = Kernel("a", "b")

    def full(_book: Book, _record: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Book, "hold", full)
    keeper = Keeper(kernel).start(wiring("a:b"))
    assert keeper.states() == {"a:b": "failed"}
    assert kernel.counted == set()
    assert kernel.untouched("a")
    assert kernel.untouched("b")
