"""``one_way: true``: frames go from the key's end to the other; what comes back is counted."""

from __future__ import annotations

import pytest

from .frames import ether, noise, odd_frames
from .lab import Lab, Station, poll
from .service import Daemon, Start, linked
from .traffic import Stream, exchange, lossless, passes

MODES = pytest.mark.parametrize("mode", ["generic", "native", "tc"])


def _stations(lab: Lab, mode: str = "auto") -> list[Station]:
    stations = lab.veths("va", "vb")
    for station in stations if mode == "native" else ():
        station.ready_for_native()
    return stations


def _dropped(running: Daemon, end: str = "b") -> dict[str, int]:
    """Why frames of the wire that came in by an end were dropped, as far as any were."""
    dropped = running.link()[end]["dropped"].items()
    return {reason: count for reason, count in dropped if count and reason != "host_egress"}


@MODES
def test_frames_cross_one_way_and_what_comes_back_is_counted(
    lab: Lab, shared: Start, mode: str
) -> None:
    a, b = _stations(lab, mode)
    running = shared(linked(mode, one_way=True)).connected()
    frames = list(odd_frames().values())
    with a.port() as here, b.port() as there:
        delivery = exchange(here, there, frames)
        assert delivery.exact, delivery
        assert len(exchange(there, here, frames, timeout=0.2).missing) == len(frames)
        link = running.link()
        assert (link["one_way"], link["state"], link["mode"]) == (True, "connected", mode)
        assert link["a"]["frames"] == len(frames)
        assert link["b"]["frames"] == 0
        poll(lambda: _dropped(running) == {"one_way": len(frames)}, 5, "all of them counted")
        (told,) = link["drops"]
        assert (told["from"], told["to"], told["reason"]) == ("vb", "va", "one_way")
        assert not _dropped(running, "a")


@MODES
def test_a_wire_that_becomes_one_way_and_back_loses_nothing_but_what_is_meant(
    lab: Lab, shared: Start, mode: str
) -> None:
    """The direction is turned, too. Each frame that does not arrive is counted."""
    a, b = _stations(lab, mode)
    c, d = lab.veths("vc", "vd")
    beside = {"vc": "vd"}
    running = shared(linked(mode) | beside).connected().connected("vc", "vd")
    with lossless(c, d), Stream(a, b) as stream:
        poll(stream.flows)
        for one_way in (True, False) * 5:
            running.write(linked(mode, one_way=one_way) | beside)
            poll(lambda is_so=one_way: running.link()["one_way"] is is_so)  # type: ignore[misc]
        stream.stop()
        assert stream.forth.lost == stream.forth.duplicated == 0, str(stream)
        assert 0 < stream.back.lost < stream.back.sent, str(stream)
        assert _dropped(running) == {"one_way": stream.back.lost}
    assert not _dropped(running, "a")
    turned = {"vb": {"to": "va", "mode": mode, "one_way": True}}
    running.write(turned | beside)
    with a.port() as here, b.port() as there:
        poll(lambda: not passes(here, there, 0.02))
        assert passes(there, here)
    reasons = [x["reason"] for x in running.events("link.rewired", a="va", b="vb")]
    assert set(reasons) == {"one way: va → vb", "both ways"}
    assert running.events("link.rewired", a="vb", b="va", reason="one way: vb → va")
    assert not running.events("drift.repaired")


@pytest.mark.parametrize("mode", ["auto", "tc"])
def test_it_outlives_a_crash_and_a_bad_file_and_what_drifts_is_repaired(
    lab: Lab, shared: Start, mode: str
) -> None:
    a, b = _stations(lab)
    before = lab.settled()
    running = shared(linked(mode, one_way=True)).connected()
    with a.port() as here, b.port() as there:
        for wiring in (linked(mode, one_way=True), "links: [\n"):
            running.kill()
            assert passes(here, there)
            assert not passes(there, here, 0.05)
            running.write(wiring)
            running.start()
            link = running.link()
            assert (link["state"], link["one_way"], link["mode"]) == (
                *("connected", True),
                "tc" if mode == "tc" else "generic",
            )
            assert passes(here, there)
            assert not passes(there, here, 0.05)
        running.write(linked(mode, one_way=True))
        poll(lambda: running.status()["config"]["state"] == "loaded")
        va, vb = lab.ifindex("va"), lab.ifindex("vb")
        for spoil in (
            lambda plane: plane.unsteer(vb),
            lambda plane: plane.steer(vb, va),
            lambda plane: plane.point(vb, va) if mode == "auto" else plane.unsteer(va),
        ):
            since = running.mark()
            lab.change_maps(spoil)
            running.wait_event("drift.repaired", 10, since)
            there.send(ether(0x88B6, noise(60)))
            assert passes(here, there)
            assert not passes(there, here, 0.05)
    assert not running.cli("plan").stdout.startswith(("+", "~", "-"))
    running.kill()
    assert running.cli("detach", "--all").returncode == 0
    lab.assert_as_found(before)


def test_the_test_of_a_link_knows_what_must_not_cross(lab: Lab, shared: Start) -> None:
    _stations(lab)
    running = shared(linked(one_way=True)).connected()
    done = running.cli("test", "va:vb", "--count", "3")
    assert done.returncode == 0, done.stdout
    assert "vb → va: closed (one_way): 0 of " in done.stdout
    running.kill()
    va, vb = lab.ifindex("va"), lab.ifindex("vb")
    lab.change_maps(lambda plane: plane.point(vb, va))
    done = running.cli("test", "va:vb", "--count", "3")
    assert done.returncode == 1
    assert "vb → va" in done.stdout


@pytest.mark.parametrize("mode", ["auto", "tc"])
def test_a_link_that_waits_gets_its_direction_with_its_partner(
    lab: Lab, shared: Start, mode: str
) -> None:
    """Whichever end goes and comes; the end that stays is held meanwhile."""
    a, b = _stations(lab)
    running = shared(linked(mode, one_way=True)).connected()
    for gone in ("va", "vb"):
        lab.delete(gone)
        running.wait_state("va", "vb", "waiting")
        assert running.link()["b" if gone == "va" else "a"]["attached"]
        new = lab.veth(gone, namespace=(a if gone == "va" else b).namespace)
        running.wait_state("va", "vb", "connected")
        a, b = (new, b) if gone == "va" else (a, new)
        with a.port() as here, b.port() as there:
            assert passes(here, there)
            assert not passes(there, here, 0.05)
