"""``rewrite: swap-macs``: source and destination MAC of every frame are swapped on the way."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from .frames import BROADCAST, ether, noise, odd_frames
from .lab import Lab, Station, poll
from .service import Daemon, Start, linked
from .traffic import Stream, Wire, collect, compare, lossless, transfer, wait_flows

MODES = pytest.mark.parametrize("mode", ["generic", "native", "tc"])
SWAPPED = {"rewrite": "swap-macs"}


def _stations(lab: Lab, mode: str = "auto") -> list[Station]:
    stations = lab.veths("va", "vb")
    for station in stations if mode == "native" else ():
        station.ready_for_native()
    return stations


def _swapped(frame: bytes) -> bytes:
    return frame[6:12] + frame[:6] + frame[12:]


def _crosses_swapped(sender: Wire, receiver: Wire, frames: Sequence[bytes]) -> None:
    receiver.drain()
    for frame in frames:
        sender.send(frame)
    delivery = compare([*map(_swapped, frames)], collect(receiver, len(frames)))
    assert delivery.exact, delivery


@MODES
def test_all_but_the_macs_arrives_byte_for_byte(lab: Lab, shared: Start, mode: str) -> None:
    """Of every odd frame, both ways: tagged ones, runts, to and from groups."""
    a, b = _stations(lab, mode)
    running = shared(linked(mode, **SWAPPED)).connected()
    link = running.link()
    assert (link["rewrite"], link["state"], link["mode"]) == ("swap-macs", "connected", mode)
    with a.port() as here, b.port() as there:
        for ways in ((here, there), (there, here)):
            _crosses_swapped(*ways, list(odd_frames().values()))
    assert "rewrite: swap-macs" in running.cli("status", "-v").stdout
    done = running.cli("test", "va:vb", "--count", "2")
    assert done.returncode == 0, done.stdout


def test_of_a_tap_and_a_veth_and_of_a_loopback(lab: Lab, shared: Start) -> None:
    """A loopback that swaps is the reflector that testers of networks know."""
    lab.hush()
    tap, b = lab.tap("tap0"), lab.veth("vb")
    running = shared({"tap0": {"to": "vb", **SWAPPED}}).connected("tap0", "vb")
    frames = list(odd_frames().values())
    with b.port() as there:
        for ways in ((tap, there), (there, tap)):
            _crosses_swapped(*ways, frames)
        running.write({"vb": {"to": "vb", **SWAPPED}})
        running.connected("vb", "vb")
        _crosses_swapped(there, there, frames)


@pytest.mark.parametrize("mode", ["generic", "tc"])
def test_offloaded_segments_cross_two_such_links_as_they_were(
    lab: Lab, shared: Start, mode: str
) -> None:
    """Swapped twice they are what they were: TCP in 64 KB segments, checksums unfinished."""
    a, b = lab.veth("va", 1), lab.veth("vb", 2)
    lab.pair("m1", "m2")
    option = {"mode": mode, **SWAPPED}
    running = shared({"va": {"to": "m1", **option}, "m2": {"to": "vb", **option}})
    running.connected("va", "m1").connected("m2", "vb")
    assert transfer(a, b) > 0.05
    counted = running.link("m2", "vb")["a"]
    assert counted["bytes"] / counted["frames"] > 5_000, "whole segments, not one by one"


@MODES
def test_a_link_that_gets_and_loses_it_loses_no_frame(lab: Lab, shared: Start, mode: str) -> None:
    """Nor does one beside it; each frame is one or the other, never damaged."""
    a, b = _stations(lab, mode)
    c, d = lab.veths("vc", "vd")
    beside = {"vc": "vd"}
    running = shared(linked(mode) | beside).connected().connected("vc", "vd")
    plain = lab.xdp("va")
    with lossless(c, d), lossless(a, b) as stream:
        for wanted in ("swap-macs", "none") * 5:
            since = running.mark()
            running.write(linked(mode, rewrite=wanted) | beside)
            running.wait_event("link.rewired", 10, since)
            before = stream.forth.received
            poll(lambda at=before: stream.forth.received > at + 20)  # type: ignore[misc]
    assert lab.xdp("va") == plain
    assert not running.events("drift.repaired")
    with a.port() as here, b.port() as there:
        running.write(linked(mode, **SWAPPED))
        running.wait_event("link.rewired", 10, running.mark())
        _crosses_swapped(here, there, [ether(0x88B6, noise(60), BROADCAST)])


@pytest.mark.parametrize("mode", ["auto", "tc"])
def test_a_crash_a_bad_file_and_a_stop(lab: Lab, shared: Start, mode: str) -> None:
    """It goes on without a daemon, is adopted with a good file and without one, and goes."""
    a, b = _stations(lab)
    before = lab.settled()
    running = shared(linked(mode, **SWAPPED)).connected()
    frame = [ether(0x88B6, noise(60))]
    with a.port(0x88B6) as here, b.port(0x88B6) as there, Stream(a, b) as stream:
        wait_flows(stream)
        for wiring in (linked(mode, **SWAPPED), "links: [\n"):
            running.kill()
            running.write(wiring)
            running.start()
            assert running.events("program.adopted")
            assert running.link()["rewrite"] == "swap-macs"
            _crosses_swapped(here, there, frame)
        stream.assert_perfect()
    running.config.with_name("other.yaml").write_text("links: {va: vb}\n")
    plan = running.cli("plan", str(running.config.with_name("other.yaml")))
    assert plan.returncode == 10
    assert "both ways" in plan.stdout
    running.kill()
    assert running.cli("detach", "--all").returncode == 0
    lab.assert_as_found(before)


def test_an_end_that_leaves_takes_a_program_along_that_forwards_nothing_here(
    lab: Lab, shared: Start
) -> None:
    """The others get new ones, of both kinds, and lose nothing meanwhile."""
    lab.veths("va", "vb")
    c, d, e, f = lab.veths("vc", "vd", "ve", "vf")
    away = lab.namespace("away", quiet=True)
    links = {"va": {"to": "vb", **SWAPPED}, "vc": {"to": "vd", **SWAPPED}, "ve": "vf"}
    running = shared(links).connected().connected("vc", "vd").connected("ve", "vf")
    programs = lab.xdp("vc"), lab.xdp("ve")
    with lossless(c, d), lossless(e, f):
        lab.move(away, "va")
        running.wait_event("interface.moved_netns")
        poll(lambda: not {lab.xdp("vc"), lab.xdp("ve")} & {*programs}, what="new programs")
    with c.port() as here, d.port() as there:
        _crosses_swapped(here, there, [ether(0x88B6, noise(60))])
    lab.bring_back(away, "va")


@pytest.mark.parametrize("mode", ["auto", "tc"])
def test_a_redirector_that_swaps_macs_one_way_and_shows_packets_a_second(
    lab: Lab, shared: Start, mode: str
) -> None:
    """What bcc's example ``xdp_redirect_map.py`` does, between two containers."""
    a, b = _stations(lab)
    running: Daemon = shared(linked(mode, one_way=True, **SWAPPED)).connected()
    sent = [ether(0x88B6, noise(size)) for size in range(46, 1500, 7)]
    with a.port() as here, b.port() as there:
        _crosses_swapped(here, there, sent)
        for frame in sent:
            there.send(frame)
        assert collect(here, 1, timeout=0.2) == []
    ends = [running.link()[end] for end in "ab"]
    assert [(end["frames"], end["bytes"]) for end in ends] == [
        (len(sent), sum(map(len, sent))),
        (0, 0),
    ]
    assert ends[1]["dropped"]["one_way"] == len(sent)
    with Stream(a, b, rate=1000) as stream:
        watched = running.cli("status", "--watch", "--json", by=("timeout", "-s", "INT", "4"))
    (link,) = json.loads(watched.stdout.splitlines()[-1])["links"]
    assert link["a"]["frames_per_s"] == pytest.approx(stream.rate, rel=0.2)
    assert link["b"]["frames_per_s"] == 0
    assert "va → vb" in running.cli("status").stdout
