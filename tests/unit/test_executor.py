"""What becomes of what is left when a step is refused, or the daemon is killed at one."""

from __future__ import annotations

import errno
from contextlib import suppress

import pytest
from builders import wiring
from driven import Clock, Keeper, set_clock
from kernel import Book, Crash, Kernel, Step, crash, no_trouble, refuse_verb

from xconnectd.model import Wiring


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


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return set_clock(monkeypatch)


def crowd(links: int = 6) -> tuple[Kernel, Wiring]:
    """Six links, so that what is done alike to their ends is done in one go."""
    names = [f"{side}{n}" for n in range(links) for side in "ab"]
    return Kernel(*names), wiring(*(f"a{n}:b{n}" for n in range(links)))


VERBS = ["attach", "set clsact", "add filter egress", "add filter ingress", "count", "hold"]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("end", ["a2", "b2"])
def test_one_of_many_that_is_refused_fails_its_link_alone(
    verb: str, end: str, clock: Clock
) -> None:
    kernel, wanted = crowd()
    found = kernel.snapshot()
    kernel.trouble = refuse_verb(verb, kernel.index(end))
    keeper = Keeper(kernel).start(wanted)
    assert {each for each, state in keeper.states().items() if state == "failed"} == {"a2:b2"}
    assert all(kernel.wired(f"a{n}", f"b{n}") for n in (0, 1, 3, 4, 5))
    assert kernel.untouched(end)
    kernel.trouble = no_trouble
    clock.forward(1.01)
    keeper.retry()
    assert set(keeper.states().values()) == {"connected"}
    assert keeper.reconciler.detach("signal") == []
    assert kernel.snapshot() == found


def test_one_of_many_that_cannot_be_put_back_keeps_its_record() -> None:
    kernel, wanted = crowd()
    keeper = Keeper(kernel).start(wanted)
    kernel.trouble = refuse_verb("detach", kernel.index("b2"))
    (why,) = keeper.reconciler.detach("signal")
    assert why.startswith(f"if{kernel.index('b2')}: detach")
    assert {record.name for record in keeper.book.records.values()} == {"b2"}
    assert all(kernel.untouched(f"a{n}") for n in range(6))


@pytest.mark.parametrize("at", range(0, 150, 7))
def test_a_daemon_that_is_killed_at_any_of_many_steps_has_recorded_what_it_changed(
    at: int,
) -> None:
    kernel, wanted = crowd()
    found = kernel.snapshot()
    keeper = Keeper(kernel)
    kernel.trouble = crash(at)
    with suppress(Crash):
        keeper.start(wanted)
    kernel.trouble = no_trouble
    again = Keeper(kernel, keeper.book).start(wanted)
    assert set(again.states().values()) == {"connected"}
    assert again.reconciler.detach("signal") == []
    assert kernel.snapshot() == found


def test_a_large_start_loses_no_event() -> None:
    """The kernel's buffer has no room for all that is told of it."""
    kernel, wanted = crowd(links=150)
    keeper = Keeper(kernel)
    keeper.news.room = 1000
    keeper.start(wanted)
    passes = keeper.reconciler.tally.count
    keeper.settle()
    assert "events.lost" not in keeper.events()
    assert keeper.reconciler.tally.count == passes
    assert set(keeper.states().values()) == {"connected"}


@pytest.mark.parametrize("at", [1, 1200])
@pytest.mark.parametrize("name", ["a0", "a149"])
def test_an_end_that_leaves_in_the_middle_of_a_large_start_is_followed(name: str, at: int) -> None:
    kernel, wanted = crowd(links=150)
    number, there = kernel.index(name), list[int]()

    def leave(step: int, _step: Step) -> None:
        if step == at:
            there.append(kernel.send_away(name, nsid=3))

    kernel.trouble = leave
    keeper = Keeper(kernel).start(wanted)
    kernel.trouble = no_trouble
    keeper.settle()
    left = f"{name}:b{name[1:]}"
    assert {each for each, state in keeper.states().items() if state != "connected"} == {left}
    assert number not in kernel.devmap | kernel.peer_map
    kernel.bring_back(*there, nsid=3)
    keeper.settle()
    assert set(keeper.states().values()) == {"connected"}
    assert keeper.reconciler.detach("signal") == []
    assert all(kernel.untouched(each) for each in (name, f"b{name[1:]}"))
