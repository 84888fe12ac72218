"""Every way in which frames get lost has a name, a number and a way out in ``status --json``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from .frames import ether, noise
from .lab import Lab, Station, poll, run
from .service import PAIR, Daemon, Start, linked

SENT = 5


def _send(station: Station, size: int = 100) -> None:
    with station.port() as port:
        for _ in range(SENT):
            port.send(ether(0x88B5, noise(size)))


def _lost(running: Daemon, reason: str) -> dict[str, Any]:
    """What ``status`` says once all that was sent is accounted for."""
    link: dict[str, Any] = {}

    def look() -> bool:
        link.update(running.link())
        return bool(link["a"]["dropped"][reason] == SENT)

    poll(look, what=f"{SENT} frames lost: {reason}")
    # A station's own frame (MLD, a router solicitation) may have come before it was wired.
    left = [x for x in link["drops"] if x["reason"] != "no_entry" or reason == "no_entry"]
    assert len(left) == 1, left
    told = left[0]
    found = {name: told[name] for name in ("from", "to", "reason", "frames")}
    assert found == {"from": "va", "to": "vb", "reason": reason, "frames": SENT}
    return dict(told)


_DOWN = "ip -n {b} link set eth0 down"
_LONGER = "ip -n {a} link set eth0 mtu 4000"
_TOO_LONG = "longer than the far end of vb takes (MTU 1500)"
WAYS = [
    # reason, mode, size of the frames, what breaks the wire, what is in the text, the way out
    ("egress_down", "auto", 100, "ip link set vb down", "", "ip link set dev vb up"),
    # the headroom is gone
    (
        *("mtu_exceeded", "auto", 3000, f"ip link set vb mtu 1500; {_LONGER}"),
        *("MTU 1500", "ip link set dev vb mtu 4000"),
    ),
    ("peer_drop", "auto", 3000, _LONGER, _TOO_LONG, "the same MTU"),
    ("peer_drop", "auto", 100, _DOWN, "the far end of vb is down", ""),
    ("no_entry", "auto", 100, "", "not connected", ""),
    ("xmit_unsupported", "native", 100, "ip link add none up type bridge", "", "mode: tc"),
    ("driver_drop", "native", 100, _DOWN, "the far end of vb is down", ""),
]


@pytest.mark.parametrize(
    ("reason", "mode", "size", "break_it", "text", "remedy"),
    WAYS,
    ids=["-".join(map(str, way[:3])) for way in WAYS],
)
def test_a_loss_has_a_name_a_number_and_a_way_out(
    *,
    lab: Lab,
    shared: Start,
    reason: str,
    mode: str,
    size: int,
    break_it: str,
    text: str,
    remedy: str,
) -> None:
    """The daemon is killed first, so that nobody repairs what is broken."""
    a, b = lab.veths("va", "vb")
    for station in (a, b) if mode == "native" else ():
        station.ready_for_native()
    running = shared(linked(mode))
    running.wait_state("va", "vb", "connected")
    running.kill()
    lab.run("sh", "-ec", break_it.format(a=a.namespace, b=b.namespace))
    if reason == "no_entry":
        lab.change_maps(lambda plane: plane.unpoint(lab.ifindex("va")))
    if reason == "xmit_unsupported":
        lab.change_maps(lambda plane: plane.point(lab.ifindex("va"), lab.ifindex("none")))
    _send(a, size)
    told = _lost(running, reason)
    assert told["text"]
    assert text in told["text"]
    assert remedy in (told["remedy"] or "")
    if reason == "egress_down":
        running.start()
        assert _lost(running, reason)["remedy"] == remedy, "by the next daemon too"
        assert running.status()["drop_stats_unavailable"] == ""


def test_a_stop_leaves_no_listener_behind(daemon: Start) -> None:
    def listeners() -> set[int]:
        return {each["id"] for each in json.loads(run("bpftool", "-j", "link", "show").stdout)}

    started = daemon("links: {}\n")
    held = (path.read_text() for path in Path("/proc", str(started.pid), "fdinfo").iterdir())
    made = {int(x) for text in held for x in re.findall(r"^link_id:\s+(\d+)", text, re.MULTILINE)}
    assert made
    assert made <= listeners()
    started.stop()
    poll(lambda: not made & listeners(), what="the kernel has let go of them")


def test_the_age_of_the_last_frame(lab: Lab, shared: Start) -> None:
    a, _ = lab.veths("va", "vb")
    running = shared(PAIR)
    assert running.link()["a"]["last_frame_age_s"] is None
    _send(a)
    link = running.link()
    assert 0 <= link["a"]["last_frame_age_s"] < 60
    assert link["b"]["last_frame_age_s"] is None
    poll(lambda: running.link()["a"]["last_frame_age_s"] > 0.5)


def test_without_the_privilege_frames_cross_and_it_is_said(lab: Lab, daemon: Start) -> None:
    a, _ = lab.veths("va", "vb")
    held = "-all,+bpf,+net_admin,+dac_override"
    drop = ("setpriv", f"--bounding-set={held}", f"--inh-caps={held}")
    started = daemon(PAIR, through=("nsenter", f"--net=/run/netns/{lab.host}", *drop))
    started.wait_state("va", "vb", "connected")
    assert "CAP_PERFMON" in started.status()["drop_stats_unavailable"]
    assert "CAP_PERFMON" in started.status()["guard_unavailable"]
    assert "uncounted: CAP_PERFMON is missing" in started.cli("status").stdout
    assert "give the daemon CAP_PERFMON" in started.cli("doctor").stdout
    _send(a)
    poll(lambda: started.link()["a"]["frames"] == SENT)
