"""The lab itself: its senders, receivers and streams see what goes wrong; it leaves nothing.

``tc mirred`` stands in for the daemon here.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from . import lab as lab_module
from .frames import odd_frames
from .hosts_lab import Hosts, stitch
from .lab import Lab, Station, poll, run
from .service import PAIR, Resident
from .traffic import (
    ALIVE,
    Stream,
    compare,
    crosses,
    cut,
    datagrams,
    exchange,
    lossless,
    passes,
    transfer,
    wait_flows,
    wired,
)

FRAMES = list(odd_frames().values())


def test_every_odd_frame_crosses_a_bare_cable(lab: Lab) -> None:
    """What a veth itself would not carry could not be asked of the daemon."""
    left, right = (lab.namespace(x, quiet=True) for x in ("left", "right"))
    a, b = Station(left, "-"), Station(right, "-")
    a.ip(f"link add eth0 up type veth peer name eth0 netns {right}")
    b.ip("link set eth0 up")
    with a.port() as here, b.port() as there:
        crosses(here, there, FRAMES)


def test_what_is_lost_and_damaged_is_seen_and_only_that(lab: Lab) -> None:
    one, two = FRAMES[:2]
    damaged = one[:-1] + bytes([one[-1] ^ 1])
    assert compare([one, two], [damaged, two]).missing == [one]
    assert compare([one, two], [one, two, two]).extra == [two]
    assert compare([one, two], [two, one]).reordered
    assert compare([one, one], [one]).missing == [one]

    lab.hush()  # without a daemon the host's own reports would cross, too
    a, b = lab.veths("va", "vb")
    with a.port() as here, b.port() as there:
        assert not passes(here, there)
        lab.mirred("va", "vb")
        assert exchange(here, there, [two]).exact
        lab.unwire("va")
        assert exchange(here, there, [two], timeout=0.1).missing == [two]
        lab.mirred_one_way("va", "vb")
    with Stream(a, b) as cut:
        wait_flows(cut)
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
    """Of a guest on a tap, and of a container whose tags travel as metadata."""
    a, guest = lab.veth("va", 1), lab.guest("vb", 2)
    with pytest.raises((AssertionError, OSError)):
        transfer(a, guest, timeout=0.5)
    lab.mirred("va", "vb")
    for flags in (None, 0):
        if flags is not None:
            guest.offload(flags)
        assert lab.features("vb")["tx-checksumming"] == ("on" if flags is None else "off")
        with lossless(a, guest):
            assert transfer(a, guest, v6=True, size=8 << 20) > ALIVE
        datagrams(guest, a, (24_000,), segment=1200, count=5)
    b = lab.veth("vc", 3)
    lab.unwire("va")
    lab.mirred("va", "vc")
    for station in (a, b):
        lab.tag(station, 5)
    assert transfer(a, b) > ALIVE
    lab.retag(b, 6)
    with pytest.raises((AssertionError, OSError)):
        transfer(a, b, timeout=0.5)


@pytest.mark.parametrize("v6", [False, True])
def test_what_is_between_hosts_loses_what_it_is_told_to(v6: bool) -> None:
    with Hosts(v6=v6) as hosts:
        a, b = hosts["h1"].veth("va"), hosts["h3"].veth("vb")
        stitch(hosts["h1"], "va", hosts["h3"].address, 7)
        stitch(hosts["h3"], "vb", hosts["h1"].address, 7)
        with a.port() as here, b.port() as there:
            poll(lambda: wired(a, b))
            hosts.lose("h1", "h3")
            assert not passes(here, there)
            assert passes(there, here)
            hosts.partition("h1", "h2")
            hosts.mend(("h1", "h3"))
            assert wired(a, b)
            hosts.partition("h3", "h1")
            assert cut(a, b)
            hosts.mend()
            assert wired(a, b)
            hosts.set_cable("h3", "down")
            assert cut(a, b)
            hosts.set_cable("h3", "up")
            poll(lambda: wired(a, b))


def test_the_snapshot_sees_a_change_and_its_undoing(lab: Lab) -> None:
    lab.veth("va")
    before = lab.settled()
    for change, undo in (
        ("link set va mtu 9000", "link set va mtu 1500"),
        ("link set va down", "link set va up"),
        ("link set va promisc on", "link set va promisc off"),
        ("link set va addrgenmode none", "link set va addrgenmode eui64"),
    ):
        lab.ip(change)
        assert lab.snapshot() != before, change
        lab.ip(undo)
    lab.tc("qdisc add dev va clsact")
    assert lab.snapshot() != before
    lab.tc("qdisc delete dev va clsact")
    poll(lambda: lab.snapshot() == before)


def test_nothing_is_left_even_after_a_failure() -> None:
    lab = Lab()
    lab.guest("tap0", 1)
    lab.foreign_xdp("tap0")
    sleeper = lab.run("sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!").stdout.strip()
    with pytest.raises(AssertionError, match="nosuch"), lab:
        lab.ip("link set nosuch up")
    assert not lab.directory.exists()
    for place in ("/run/netns", "/sys/fs/bpf"):
        assert not list(Path(place).glob(f"{lab.name}*"))
    stat = Path("/proc", sleeper, "stat")
    poll(lambda: not stat.exists() or ") Z " in stat.read_text())


@pytest.mark.parametrize("how", ["runs", "stopped", "hangs"])
def test_whatever_a_test_leaves_the_next_finds_an_empty_lab_and_a_daemon(how: str) -> None:
    resident = Resident()
    try:
        bones = resident.lab.bones()
        resident.lab.veths("va", "vb")
        daemon = resident.start(PAIR)
        resident.lab.bridge("br0")
        resident.lab.ip("address add 203.0.113.1/32 dev lo")
        resident.lab.move(resident.lab.namespace("away"), "vb")
        match how:
            case "stopped":
                daemon.stop()
            case "hangs":
                daemon.signal(signal.SIGSTOP)
        resident.reset()
        assert resident.lab.bones() == bones
        assert resident.lab.snapshot()["links"].keys() == {"lo"}
        a, b = resident.lab.veths("va", "vb")
        daemon = resident.start(PAIR)
        assert daemon.link()["state"] == "connected"
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
    assert {f"xc{dead}-1-host", directory.name} <= set(lab_module.sweep())
    assert not directory.exists()
    assert Path("/run/netns", lab.host).exists()
