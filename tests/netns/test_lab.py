"""The lab itself: its senders, receivers and streams are right, and can see what goes wrong.

``tc mirred`` stands in for the daemon here.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from . import lab as lab_module
from .frames import odd_frames
from .lab import Lab, Station, poll, run
from .service import Resident
from .test_invariants import _settled
from .traffic import ALIVE, Stream, Wire, compare, datagrams, exchange, passes, transfer

FRAMES = [
    b"\xff" * 6 + b"\x02\0\0\0\0\x01" + kind + os.urandom(size)
    for kind, size in ((b"\x88\xcc", 40), (b"\x08\x06", 46), (b"\x12\x34", 1500), (b"\0\x05", 5))
]
TAGGED = [
    b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01" + tag + b"\x88\xb6" + os.urandom(60)
    for tag in (b"\x81\0\0\x05", b"\x81\0\xe0\0", b"\x88\xa8\0\x07\x81\0\0\x05")
]


def test_frames_cross_byte_for_byte_both_ways(lab: Lab) -> None:
    """Of a container and of a tap; and what does not cross is missing."""
    lab.hush()
    a, b, c, tap = lab.veth("va"), lab.veth("vb"), lab.veth("vc"), lab.tap("tap0")
    with a.port() as here, b.port() as there, c.port() as beside:
        assert not passes(here, there)
        lab.mirred("va", "vb")
        lab.mirred("vc", "tap0")
        assert passes(here, there)
        ways: list[tuple[Wire, Wire]] = [(here, there), (there, here), (beside, tap), (tap, beside)]
        for ends in ways:
            delivery = exchange(*ends, FRAMES + TAGGED)
            assert delivery.exact, delivery
        lab.unwire("va")
        assert exchange(here, there, FRAMES, timeout=0.1).missing == FRAMES
        assert exchange(there, here, FRAMES).exact
    with Stream(c, tap) as stream:
        poll(lambda: stream.back.received > 300)
    stream.assert_perfect()


def test_every_odd_frame_crosses_a_bare_cable(lab: Lab) -> None:
    """What a veth itself would not carry could not be asked of the daemon."""
    left, right = (lab.namespace(x, quiet=True) for x in ("left", "right"))
    peer = ("type", "veth", "peer", "name", "eth0", "netns", right)
    run("ip", "link", "add", "eth0", *peer, namespace=left)
    a, b = Station(left, "-"), Station(right, "-")
    for station in (a, b):
        station.ip("link", "set", "eth0", "up")
    with a.port() as here, b.port() as there:
        delivery = exchange(here, there, list(odd_frames().values()))
        assert delivery.exact, delivery


def test_compare_sees_every_kind_of_damage() -> None:
    one, two = FRAMES[:2]
    damaged = one[:-1] + bytes([one[-1] ^ 1])
    assert compare([one, two], [damaged, two]).missing == [one]
    assert compare([one, two], [one, two, two]).extra == [two]
    assert compare([one, two], [two, one]).reordered
    assert compare([one, one], [one]).missing == [one]


def test_a_stream_counts_what_is_lost_and_only_that(lab: Lab) -> None:
    """It keeps its rate and loses nothing beside a busy test either."""
    a, b = lab.veth("va"), lab.veth("vb")
    lab.mirred("va", "vb")
    with Stream(a, b, rate=2000) as stream:
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            sum(range(10000))
    stream.assert_perfect()
    assert stream.rate > 400, stream.rate
    with Stream(a, b) as cut:
        poll(cut.flows)
        lab.unwire("va")
        until = cut.forth.sent + 200
        poll(lambda: cut.forth.sent > until)
        lab.mirred_one_way("va", "vb")
        before = cut.forth.received
        poll(lambda: cut.forth.received > before + 100)
    assert cut.forth.longest_gap() == cut.forth.lost > 100, cut
    assert cut.back.lost == 0
    with pytest.raises(AssertionError, match="lost"):
        cut.assert_perfect()


def test_tcp_and_udp_arrive_whole_or_fail(lab: Lab) -> None:
    a, b = lab.veth("va", 1), lab.veth("vb", 2)
    with pytest.raises((AssertionError, OSError)):
        transfer(a, b, timeout=0.5)
    lab.mirred("va", "vb")
    for v6 in (False, True):
        assert transfer(a, b, v6=v6) > ALIVE
        datagrams(a, b, v6=v6)
        datagrams(b, a, (24_000,), v6=v6, segment=1200, count=5)


@pytest.mark.parametrize("vnet_hdr", [True, False], ids=["virtio", "e1000"])
def test_a_guest_behind_a_tap(lab: Lab, vnet_hdr: bool) -> None:
    a, guest = lab.veth("va", 1), lab.guest("tap0", 2, vnet_hdr=vnet_hdr)
    lab.mirred("va", "tap0")
    shown = "on" if vnet_hdr else "off"
    assert lab.features("tap0")["tx-checksumming"] == shown
    assert lab.features("tap0")["tcp-segmentation-offload"] == shown
    for ends in ((a, guest), (guest, a)):
        for v6 in (False, True):
            assert transfer(*ends, v6=v6, size=8 << 20) > ALIVE
        datagrams(*ends)
    if vnet_hdr:
        guest.offload(0)
        assert lab.features("tap0")["tx-checksumming"] == "off"
        assert transfer(a, guest, size=8 << 20) > ALIVE


def test_a_tag_in_metadata_reaches_the_other_container(lab: Lab) -> None:
    a, b = lab.veth("va", 1), lab.veth("vb", 2)
    lab.mirred("va", "vb")
    lab.tag(a, 5)
    frame = FRAMES[2][:200]
    with a.port() as here, b.port() as there:
        there.drain()
        here.send(frame)
        tagged = frame[:12] + b"\x81\0\0\x05" + frame[12:]
        poll(lambda: tagged in there.drain())
    lab.tag(b, 5)
    assert transfer(a, b) > ALIVE
    lab.retag(b, 6)
    with pytest.raises((AssertionError, OSError)):
        transfer(a, b, timeout=0.5)


def test_the_snapshot_sees_a_change_and_its_undoing(lab: Lab) -> None:
    lab.veth("va")
    before = _settled(lab)
    for change, undo in (
        (["mtu", "9000"], ["mtu", "1500"]),
        (["down"], ["up"]),
        (["promisc", "on"], ["promisc", "off"]),
        (["addrgenmode", "none"], ["addrgenmode", "eui64"]),
    ):
        lab.ip("link", "set", "va", *change)
        assert lab.snapshot() != before, change
        lab.ip("link", "set", "va", *undo)
    lab.tc("qdisc", "add", "dev", "va", "clsact")
    assert lab.snapshot() != before
    lab.tc("qdisc", "delete", "dev", "va", "clsact")
    poll(lambda: lab.snapshot() == before)


def test_nothing_is_left_even_after_a_failure() -> None:
    lab = Lab()
    lab.guest("tap0", 1)
    lab.foreign_xdp("tap0")
    sleeper = lab.run("sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!").stdout.strip()
    with pytest.raises(AssertionError, match="nosuch"), lab:
        lab.ip("link", "set", "nosuch", "up")
    assert not lab.directory.exists()
    assert not list(Path("/run/netns").glob(f"{lab.name}*"))
    assert not list(Path("/sys/fs/bpf").glob(f"{lab.name}*"))
    poll(lambda: _ended(sleeper))


def _ended(pid: str) -> bool:
    stat = Path("/proc", pid, "stat")
    return not stat.exists() or ") Z " in stat.read_text()


@pytest.mark.parametrize("how", ["runs", "stopped", "hangs"])
def test_whatever_a_test_leaves_the_next_finds_an_empty_lab_and_a_daemon(how: str) -> None:
    resident = Resident()
    try:
        bones = resident.lab.bones()
        for end in ("va", "vb"):
            resident.lab.veth(end)
        daemon = resident.start({"va": "vb"})
        resident.lab.bridge("br0")
        resident.lab.ip("address", "add", "203.0.113.1/32", "dev", "lo")
        resident.lab.ip("link", "set", "vb", "netns", resident.lab.namespace("away"))
        match how:
            case "stopped":
                daemon.stop()
            case "hangs":
                daemon.signal(signal.SIGSTOP)
        resident.reset()
        assert resident.lab.bones() == bones
        assert resident.lab.snapshot()["links"].keys() == {"lo"}
        a, b = resident.lab.veth("va"), resident.lab.veth("vb")
        daemon = resident.start({"va": "vb"})
        assert daemon.link("va", "vb")["state"] == "connected"
        assert not daemon.events("interface.moved_netns")
        with a.port() as here, b.port() as there:
            assert exchange(here, there, FRAMES).exact
        daemon.write("links: [\n")
        daemon.wait_event("config.rejected")
    finally:
        resident.close()


def test_the_sweeper_takes_what_dead_sessions_left_and_nothing_else(lab: Lab) -> None:
    dead = run("sh", "-c", "echo $$").stdout.strip()
    run("ip", "netns", "add", f"xc{dead}-1-host")
    directory = lab.directory.with_name(f"xc{dead}-1")
    directory.mkdir()
    (directory / "cookie").write_text("0")
    swept = lab_module.sweep()
    assert {f"xc{dead}-1-host", directory.name} <= set(swept)
    assert not directory.exists()
    assert Path("/run/netns", lab.host).exists()
