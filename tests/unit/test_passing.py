"""``impair``, the command: what it puts on a link, for how long, and what returns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from builders import link, wiring
from driven import Clock, Keeper, set_clock
from kernel import Kernel

from xconnectd.control.server import Client
from xconnectd.impairment import Impairment, Impairments
from xconnectd.model import Endpoint, Link, Mode, Tunnel
from xconnectd.reconcile import impairments

RATED = Impairment(rate=10_000_000)
SLOW = Impairment(delay=50_000_000)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return set_clock(monkeypatch)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel("va", "vb", "vc", "vd")


PLAIN = wiring("va:vb", "vc:vd")
IMPAIRED = wiring(link("va", "vb", impair=Impairments(RATED, RATED)), "vc:vd")


def ask(keeper: Keeper, *words: str, direction: str = "", name: str = "va", **more: Any) -> Any:
    request = {"do": "impair", "link": name, "direction": direction, "words": list(words), **more}
    return keeper.daemon._passing.answer(request)


def does(kernel: Kernel, name: str, one: Impairment) -> bool:
    root = kernel.get(name).root
    wanted = impairments.shape(one, 1500)
    return root is not None and root.shape is not None and root.shape.does(wanted)


@pytest.mark.usefixtures("clock")
def test_each_host_impairs_what_leaves_by_its_own_end(kernel: Kernel) -> None:
    far = Endpoint("h2/b", host="h2", tunnel=Tunnel("198.51.100.12", 7))
    crossing = Link(Endpoint("va", written="h1/va", host="h1"), far)
    keeper = Keeper(kernel).start(replace(wiring(), links=(crossing,)))
    refused = ask(keeper, "delay=50ms", direction="forward", name="h1/va")
    assert refused["error"] == "va → h2/b: by the same command on h2, where frames leave"
    lines = ask(keeper, "delay=50ms")["lines"]
    assert lines == ["h2/b → va: delay 50ms", refused["error"]]
    assert keeper.book.passing["h1/va,h2/b"].ways == {"h2/b": SLOW}
    assert ask(keeper)["lines"] == ["h2/b → va: as the file says", refused["error"]]


@pytest.mark.usefixtures("clock")
def test_it_takes_the_place_of_the_files_values_and_they_return(kernel: Kernel) -> None:
    keeper = Keeper(kernel).start(IMPAIRED)
    answer = ask(keeper, "delay=50ms", seconds=60)
    assert answer["lines"] == ["va → vb: delay 50ms", "vb → va: delay 50ms"]
    assert does(kernel, "va", SLOW)
    assert does(kernel, "vb", SLOW)
    keeper.step(59)
    assert does(kernel, "vb", SLOW)
    keeper.step(1.1)
    assert does(kernel, "va", RATED)
    assert does(kernel, "vb", RATED)
    events = keeper.events()
    assert events.count("impair.started") == events.count("impair.ended") == 1


@pytest.mark.usefixtures("clock")
def test_the_loop_wakes_when_it_is_due(kernel: Kernel) -> None:
    keeper = Keeper(kernel).start(PLAIN)
    ask(keeper, "delay=50ms", seconds=0.25)
    keeper.step()
    assert keeper.selector.timeout == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("direction", "end", "other"), [("forward", "vb", "va"), ("reverse", "va", "vb")]
)
def test_one_way_alone(kernel: Kernel, direction: str, end: str, other: str) -> None:
    keeper = Keeper(kernel).start(PLAIN)
    ask(keeper, "delay=50ms", direction=direction)
    assert does(kernel, end, SLOW)
    assert kernel.get(other).root is None
    ask(keeper, direction=direction)
    assert kernel.get(end).root is None
    assert keeper.book.passing == {}


def test_the_link_may_be_called_as_anywhere(kernel: Kernel) -> None:
    keeper = Keeper(kernel).start(PLAIN)
    for name in ("va:vb", "vb:va", "vb"):
        assert ask(keeper, "delay=50ms", name=name)["ok"]
    refused = ask(keeper, "delay=50ms", name="vx")
    assert not refused["ok"]
    assert "no link vx" in refused["error"]


@pytest.mark.parametrize("ends", [False, True])
def test_it_outlasts_a_crash_but_not_its_end(kernel: Kernel, clock: Clock, ends: bool) -> None:
    keeper = Keeper(kernel).start(PLAIN)
    before = kernel.snapshot()
    ask(keeper, "delay=50ms", seconds=60)
    clock.forward(61 if ends else 30)
    again = Keeper(kernel, keeper.book).start(PLAIN)
    assert does(kernel, "vb", SLOW) != ends
    assert (kernel.snapshot() == before) == ends
    again.step(31)
    assert kernel.snapshot() == before


def test_a_save_meanwhile_changes_what_it_ends_with(kernel: Kernel) -> None:
    keeper = Keeper(kernel).start(PLAIN)
    ask(keeper, "delay=50ms")
    keeper.take(IMPAIRED)
    assert does(kernel, "vb", SLOW)
    ask(keeper)
    assert does(kernel, "vb", RATED)


def test_it_ends_with_the_link(kernel: Kernel) -> None:
    keeper = Keeper(kernel).start(PLAIN)
    ask(keeper, "delay=50ms")
    keeper.take(wiring("vc:vd"))
    keeper.step()
    assert keeper.book.passing == {}
    keeper.take(PLAIN)
    assert kernel.get("vb").root is None


def test_what_cannot_be_leaves_the_link_as_it_was(kernel: Kernel) -> None:
    keeper = Keeper(kernel).start(IMPAIRED)
    kernel.has_netem = False
    before = kernel.snapshot()
    answer = ask(keeper, "delay=50ms")
    assert not answer["ok"]
    assert "sch_netem" in answer["error"]
    assert kernel.snapshot() == before
    assert keeper.state("va:vb") == "connected"
    assert keeper.book.passing == {}


@pytest.mark.parametrize("words", [["delay"], ["rate=1bit"], ["jitter=1ms"], ["delay=1ms", "x=1"]])
def test_what_makes_no_sense_is_refused(kernel: Kernel, words: list[str]) -> None:
    keeper = Keeper(kernel).start(PLAIN)
    assert not ask(keeper, *words)["ok"]
    assert kernel.get("vb").root is None


def test_a_mode_that_cannot_impair_is_named(kernel: Kernel) -> None:
    keeper = Keeper(kernel).start(wiring(link("va", "vb", mode=Mode.GENERIC)))
    assert "mode: generic" in ask(keeper, "delay=50ms")["error"]


def test_status_shows_what_meets_the_frames_and_until_when(kernel: Kernel) -> None:
    keeper = Keeper(kernel).start(IMPAIRED)
    ask(keeper, "delay=50ms", "loss=1%", direction="forward", seconds=60)
    (told,) = [each for each in keeper.daemon._look()().links if each.link == "va:vb"]
    assert told.impair is not None
    assert told.impair["forward"] == {"delay": "50ms", "loss": "1%", "limit": 50_000}
    assert told.impair["reverse"] == {"rate": "10mbit", "limit": 83}
    assert told.impair["passing"] == ["forward"]


def test_who_may_only_look_cannot(kernel: Kernel) -> None:
    keeper = Keeper(kernel).start(PLAIN)
    client = Client.__new__(Client)
    client.privileged = False
    answer = keeper.daemon._requests.answer(client, {"do": "impair"})
    assert "read-only" in answer["error"]
