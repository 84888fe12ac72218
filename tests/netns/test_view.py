"""From where the pins cannot be seen: the daemon's own view, or it is said; never a guess."""

from __future__ import annotations

import json
import os
from pathlib import Path

from xconnectd.dataplane import libbpf

from .frames import ether, noise
from .lab import Lab, poll, run
from .service import PAIR, Daemon, Start


def exec_in(lab: Lab) -> tuple[str, ...]:
    """Mounts a /sys of its own, which hides bpffs."""
    return "ip", "netns", "exec", lab.host


def test_a_daemon_that_was_started_by_ip_netns_exec(lab: Lab, daemon: Start) -> None:
    """Its pins are seen in its own mount namespace; they go with it, and the next pins anew."""
    lab.veths("va", "vb")
    running = daemon(PAIR, through=exec_in(lab))
    report = json.loads(running.cli("status", "--json", by=exec_in(lab)).stdout)
    assert [each["state"] for each in report["links"]] == ["connected"]
    assert (report["differences"], report["unseen"]) == ([], "")
    assert report["drop_stats_unavailable"] == ""
    for command in ("plan", "test va --count 1", "doctor"):
        done = running.cli(*command.split(), by=exec_in(lab))
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert running.status()["differences"] == [], "nor does one guess who stands outside"
    running.kill()
    gone = running.cli("status")
    assert gone.returncode == 1
    assert "start" in gone.stderr or f"xconnectd run -c {running.config}" in gone.stderr
    assert "# pins them again" in gone.stderr
    assert daemon(PAIR).link()["state"] == "connected"


def test_pins_that_nobody_lets_us_see(lab: Lab, shared: Start) -> None:
    """Of a dead daemon, and of one that lives where we may not look."""
    lab.veths("va", "vb")
    running = shared(PAIR)
    blind = (*exec_in(lab), "unshare", "--pid", "--fork", "--mount-proc")
    report = json.loads(running.cli("status", "--json", by=blind).stdout)
    assert [each["state"] for each in report["links"]] == ["connected"], "the daemon's words"
    assert (report["differences"], report["unseen"]) == ([], "")
    assert running.cli("wait", "--timeout", "0", by=blind).returncode == 0
    named = "status", "-c", str(running.config)
    assert "cannot be seen from here" in running.cli(*named, by=blind).stdout
    assert "this is the daemon's report" in running.cli(*named, by=blind).stdout
    running.kill()
    way_out = f"nsenter --net=/run/netns/{lab.host} xconnectd status"
    for command in ("status", "wait --timeout 0", "plan", "doctor"):
        done = running.cli(*command.split(), by=exec_in(lab))
        assert done.returncode == 1, (command, done.stdout)
        assert way_out in done.stdout + done.stderr, (command, done.stdout, done.stderr)
        assert "not in the kernel" not in done.stdout + done.stderr
    assert running.link()["state"] == "connected", "seen from outside"


def test_losses_are_read_whatever_release_counts_them(lab: Lab, shared: Start) -> None:
    """Its listeners are pinned under a name that only it would look for."""
    a, _ = lab.veths("va", "vb")
    running = shared(PAIR)
    running.kill()
    lab.ip("link set dev vb down")
    with a.port() as port:
        for _ in range(5):
            port.send(ether(0x88B5, noise(100)))
    (listeners,) = lab.pins.glob("listeners-*")
    listeners.rename(lab.pins / "listeners-0123456789abcdef")
    poll(lambda: running.link()["a"]["dropped"]["egress_down"] == 5)
    assert running.status()["drop_stats_unavailable"] == ""
    (drops,) = lab.pins.glob("listeners-*/drops")
    drops.unlink()
    wider = libbpf.create_map("xc_drops", libbpf.MapFormat(libbpf.MAP_LRU_HASH, 8 * 7, 16))
    libbpf.pin(wider, drops)
    os.close(wider)
    assert "by another version" in running.status()["drop_stats_unavailable"], "not zeros"
    (counters,) = lab.pins.glob("counters-*")
    counters.rename(lab.pins / "counters-01234567")
    assert "by another version: use that version's xconnectd" in running.cli("status").stderr


def other_boot(directory: Path) -> tuple[str, ...]:
    """As in a container whose /proc is not the host's."""
    identity = directory / "boot_id"
    identity.write_text("00000000-0000-4000-8000-000000000000\n")
    script = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
    return "unshare", "--mount", "sh", "-c", script, str(identity)


def test_records_under_another_boot_id(lab: Lab, shared: Start) -> None:
    """Pins show that the boot is this one. Without them nothing is put back, and they stay."""
    lab.veths("va", "vb")
    running = shared(PAIR)
    by = other_boot(lab.directory)
    assert running.cli("plan", by=by).stdout == "0 changes\n"
    assert lab.link("va")["mtu"] > 1500
    running.kill()
    assert running.cli("detach", "--all", by=by).returncode == 0
    assert (lab.link("va")["mtu"], lab.xdp("va")) == (1500, 0)
    running.start().kill()
    run("rm", "-r", str(lab.pins))
    kept = [path.read_bytes() for path in running.socket_path().parent.glob("ends")]
    refused = running.cli("detach", "--all", by=by)
    assert refused.returncode == 1
    assert "records of changes to va, vb" in refused.stderr
    assert [path.read_bytes() for path in running.socket_path().parent.glob("ends")] == kept != []
    next_one = Daemon(lab, PAIR, through=by).start()
    assert next_one.wait_event("state.unjudged")["interfaces"] == ["va", "vb"]
    next_one.kill()
