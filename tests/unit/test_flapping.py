"""An end that goes up and down without end fills no disk, and no change of it is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from builders import wiring
from driven import Keeper, set_clock
from kernel import Kernel


def tick(keeper: Keeper) -> None:
    for _ in range(12):
        keeper.tick()


def stop(keeper: Keeper) -> None:
    keeper.daemon.stop()


@pytest.mark.parametrize("then", [tick, stop])
def test_flaps_are_summed(monkeypatch: pytest.MonkeyPatch, then: Callable[[Keeper], None]) -> None:
    set_clock(monkeypatch)
    kernel = Kernel("a", "b")
    keeper = Keeper(kernel).start(wiring("a:b"))
    keeper.events()
    for up in (False, True) * 15 + (False,):
        kernel.alter("a", up=up)
        keeper.step(0.01)
    told = Counter("carrier" in each["event"] for each in keeper.log)
    assert max(told.values()) < 25, "the states of the link, and what the other end shows"
    then(keeper)
    told = [x for x in keeper.log if x["event"] in ("link.up", "link.down")]
    assert sum(x.get("count", 1) for x in told) == 31
    assert told[-1]["event"] == "link.down", "how it ended"
