"""Every way in which frames get lost has a name, a number and a way out in ``status --json``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from xconnectd.dataplane.programs import Dataplane

from .frames import ether, noise
from .lab import Lab, Station, inside, poll, run
from .service import Daemon

Start = Callable[..., Daemon]
SENT = 5


@dataclass
class Broken:
    """A wire whose daemon was killed, so that nobody mends what a test breaks."""

    lab: Lab
    daemon: Daemon
    stations: tuple[Station, Station]

    def plane(self, do: Callable[[Dataplane], None]) -> None:
        def act() -> None:
            plane = Dataplane.open(self.lab.pins, build=False)
            do(plane)
            plane.close()

        inside(self.lab.host, act)

    def send(self, size: int = 100) -> None:
        with self.stations[0].port() as port:
            for _ in range(SENT):
                port.send(ether(0x88B5, noise(size)))

    def lost(self, reason: str) -> dict[str, Any]:
        """What ``status`` says once all that was sent is accounted for."""
        link: dict[str, Any] = {}

        def look() -> bool:
            link.update(self.daemon.link("va", "vb"))
            return bool(link["a"]["dropped"][reason] == SENT)

        poll(look, what=f"{SENT} frames lost: {reason}")
        (told,) = link["drops"]
        assert told["text"]
        found = {name: told[name] for name in ("from", "to", "reason", "frames")}
        assert found == {"from": "va", "to": "vb", "reason": reason, "frames": SENT}
        return dict(told)


@pytest.fixture
def wire(lab: Lab, daemon: Start) -> Broken:
    stations = lab.veth("va"), lab.veth("vb")
    started = daemon("links:\n  va: vb\n")
    started.wait_state("va", "vb", "connected")
    started.kill()
    return Broken(lab, started, stations)


@pytest.fixture
def native(lab: Lab, daemon: Start) -> Broken:
    """Its far ends are prepared, as ``mode: native`` asks."""
    stations = lab.veth("va"), lab.veth("vb")
    for station in stations:
        station.ready_for_native()
    started = daemon("links:\n  va: {to: vb, mode: native}\n")
    started.wait_state("va", "vb", "connected")
    started.kill()
    return Broken(lab, started, stations)


def test_a_target_that_is_down(wire: Broken) -> None:
    wire.lab.ip("link", "set", "dev", "vb", "down")
    wire.send()
    assert wire.lost("egress_down")["remedy"] == "ip link set dev vb up"


def test_a_frame_longer_than_the_target_takes(wire: Broken) -> None:
    wire.lab.ip("link", "set", "dev", "vb", "mtu", "1500")  # the headroom is gone
    wire.stations[0].ip("link", "set", "dev", "eth0", "mtu", "4000")
    wire.send(3000)
    told = wire.lost("mtu_exceeded")
    assert "MTU 1500" in told["text"]
    assert told["remedy"] == "ip link set dev vb mtu 4000"


def test_a_frame_longer_than_the_far_end_takes(wire: Broken) -> None:
    wire.stations[0].ip("link", "set", "dev", "eth0", "mtu", "4000")
    wire.send(3000)
    told = wire.lost("peer_drop")
    assert "longer than the far end of vb takes (MTU 1500)" in told["text"]
    assert "the same MTU" in told["remedy"]


def test_a_far_end_that_is_down(wire: Broken) -> None:
    wire.stations[1].ip("link", "set", "dev", "eth0", "down")
    wire.send()
    assert "the far end of vb is down" in wire.lost("peer_drop")["text"]


def test_an_entry_that_is_gone(wire: Broken) -> None:
    wire.plane(lambda plane: plane.unpoint(wire.lab.ifindex("va")))
    wire.send()
    assert "led nowhere" in wire.lost("no_entry")["text"]


def test_a_driver_that_transmits_no_redirected_frames(native: Broken) -> None:
    lab = native.lab
    lab.ip("link", "add", "name", "none", "up", "type", "bridge")
    native.plane(lambda plane: plane.point(lab.ifindex("va"), lab.ifindex("none")))
    native.send()
    assert native.lost("xmit_unsupported")["remedy"] == "mode: tc"


def test_a_far_end_that_is_down_in_native_mode(native: Broken) -> None:
    native.stations[1].ip("link", "set", "dev", "eth0", "down")
    native.send()
    assert "the far end of vb is down" in native.lost("driver_drop")["text"]


def test_what_is_lost_while_no_daemon_runs_is_told_by_the_next(wire: Broken) -> None:
    wire.lab.ip("link", "set", "dev", "vb", "down")
    wire.send()
    wire.daemon.start()
    wire.lost("egress_down")
    assert wire.daemon.status()["drop_stats_unavailable"] == ""


def test_a_stop_leaves_no_listener_behind(daemon: Start) -> None:
    def listeners() -> set[str]:
        return set(run("bpftool", "link", "show").stdout.splitlines())

    before = listeners()
    started = daemon("links: {}\n")
    made = listeners() - before
    assert made
    started.stop()
    poll(lambda: not made & listeners(), what="the kernel has let go of them")


def test_the_age_of_the_last_frame(wire: Broken) -> None:
    assert wire.daemon.link("va", "vb")["a"]["last_frame_age_s"] is None
    wire.send()
    link = wire.daemon.link("va", "vb")
    assert 0 <= link["a"]["last_frame_age_s"] < 60
    assert link["b"]["last_frame_age_s"] is None
    poll(lambda: wire.daemon.link("va", "vb")["a"]["last_frame_age_s"] > 0.5)


def test_without_the_privilege_frames_cross_and_it_is_said(lab: Lab, daemon: Start) -> None:
    stations = lab.veth("va"), lab.veth("vb")
    held = "-all,+bpf,+net_admin,+dac_override"
    drop = ("setpriv", f"--bounding-set={held}", f"--inh-caps={held}")
    started = daemon(
        "links:\n  va: vb\n", through=("nsenter", f"--net=/run/netns/{lab.host}", *drop)
    )
    started.wait_state("va", "vb", "connected")
    assert "CAP_PERFMON" in started.status()["drop_stats_unavailable"]
    assert "CAP_PERFMON" in started.status()["guard_unavailable"]
    assert "host's stack needs CAP_PERFMON" in started.cli("status").stdout
    assert "give the daemon CAP_PERFMON" in started.cli("doctor").stdout
    Broken(lab, started, stations).send()
    poll(lambda: started.link("va", "vb")["a"]["frames"] == SENT)
