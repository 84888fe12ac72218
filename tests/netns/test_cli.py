"""The commands beside a daemon and without one: what only a real kernel and real users show.

What they print, and their exit codes, is shown in ``tests/unit/test_commands.py``.
"""

from __future__ import annotations

import json
import signal
import sys
import time

from .lab import REPO, Lab, in_public, poll
from .service import NOBODY, PAIR, RIGHTLESS, Daemon, Start
from .traffic import Stream, cut, wired


def test_status_tells_what_the_kernel_has(lab: Lab, shared: Start) -> None:
    """Results on stdout, logs on stderr."""
    a, b = lab.veth("va", mtu=1400), lab.veth("vb", mtu=1400)
    running = shared(PAIR | {"vc": "nosuch"})
    with Stream(a, b) as stream:
        poll(stream.flows)
        done = running.cli("status", "--json")
    report = json.loads(done.stdout)
    assert done.stderr == ""
    assert (report["daemon"]["pid"], report["differences"]) == (running.pid, [])
    good, waiting = report["links"]
    for end, name in (("a", "va"), ("b", "vb")):
        told = good[end]
        assert (told["ifindex"], told["far_mtu"]) == (lab.ifindex(name), 1400)
        assert (told["attached"], told["up"], told["carrier"]) == (True, True, True)
        assert (told["far_name"], told["far_nsid"] is None) == ("eth0", False)
        assert told["frames"] > 0
        assert told["frames_per_s"] > 0
    assert (waiting["state"], waiting["b"]["attached"]) == ("waiting", False)
    for line in running.text().splitlines():
        assert {"event", "level", "timestamp"} <= set(json.loads(line))
    for form in ("mermaid", "svg"):
        drawn = running.cli("graph", "--format", form)
        assert (drawn.returncode, drawn.stderr) == (0, "")
        for text in ("va", "vb", "eth0", a.namespace, b.namespace, "nosuch", "waiting"):
            assert text in drawn.stdout.replace("&#45;", "-")


def test_a_daemon_that_is_stopped_is_not_waited_for(shared: Start) -> None:
    running = shared(PAIR)
    running.signal(signal.SIGSTOP)
    began = time.monotonic()
    refused = running.cli("reload")
    assert time.monotonic() - began < 30, "the daemon's own answer may take 60"
    assert refused.returncode == 1
    assert f"pid {running.pid}, is stopped: kill -CONT {running.pid}" in refused.stderr
    assert running.status()["daemon"] == {"running": True, "pid": running.pid, "answers": False}
    assert f"daemon: pid {running.pid} does not answer" in running.cli("status").stdout
    doctor = json.loads(running.cli("doctor", "--json").stdout)["findings"]
    (found,) = (each for each in doctor if each["check"] == "daemon")
    assert found["level"] == "fail"
    assert f"kill -CONT {running.pid}" in found["remedy"]
    running.signal(signal.SIGCONT)
    assert running.cli("reload").returncode == 0


def test_plan_changes_nothing(lab: Lab) -> None:
    lab.hush()  # or addresses come by themselves, late
    lab.veths("va", "vb")
    running = Daemon(lab, PAIR)
    before = poll(lambda: (now := lab.snapshot()) == lab.snapshot() and now)
    done = running.cli("plan", str(running.config), "--json")
    assert {"va", "vb"} <= {each["interface"] for each in json.loads(done.stdout)}
    assert done.returncode == 10
    assert lab.snapshot() == before
    running.start()
    assert running.cli("plan").returncode == 0
    running.kill()
    assert running.cli("plan").returncode == 0, "what it left is what the file wants"


def test_what_a_dead_daemon_left_is_looked_at_and_detached(lab: Lab, shared: Start) -> None:
    a, b, c, d = lab.veths("va", "vb", "vc", "vd")
    lab.veth("ve")
    foreign = lab.foreign_xdp("ve")
    running = shared(PAIR | {"vc": "vd"})
    alive = running.cli("detach", "--all")
    assert (alive.returncode, "file" in alive.stdout + alive.stderr) == (1, True)
    assert wired(a, b)
    running.kill()
    status = running.status()
    assert status["daemon"] == {"running": False, "pid": None, "answers": False}
    assert [link["state"] for link in status["links"]] == ["connected", "connected"]
    done = running.cli("detach", "nosuch", "va", "ve")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"xconnectd: {name}: xconnectd is not attached there; attached: va, vb, vc, vd"
        for name in ("nosuch", "ve")
    ]
    assert cut(a, b), "the others are still detached"
    assert (lab.xdp("va"), lab.xdp("ve")) == (0, foreign)
    assert wired(c, d)
    lab.ip("link set vc xdpgeneric off")
    assert running.link("vc", "vd")["a"]["attached"] is False
    lab.ip("link property add dev vc altname uplink-to-the-other-rack")
    assert running.cli("detach", "uplink-to-the-other-rack").returncode == 0
    assert lab.xdp("vd") == 0
    assert running.cli("detach", "vd").stderr.endswith("attached: none\n")
    assert running.cli("detach", "--all").returncode == 0, "nothing to do is no failure"
    assert lab.xdp("ve") == foreign


def test_who_may_not_is_told_what_it_takes(lab: Lab, shared: Start) -> None:
    running = shared(PAIR)
    running.kill()
    config = str(running.config)
    xconnectd = (
        *("env", f"PYTHONPATH={REPO}", f"XCONNECTD_STATE_DIR={running.state}"),
        *(sys.executable, "-m", "xconnectd"),
    )
    for words, code in ((f"run -c {config}", 3), (f"plan {config}", 1), ("detach --all", 1)):
        done = lab.run(*in_public(*NOBODY, *xconnectd, *words.split()), check=False)
        assert done.returncode == code, done.stderr
        assert f"only root may: sudo xconnectd {words}" in done.stderr
        assert "Errno" not in done.stderr
    running.start()
    running.stop()
    done = lab.run(*RIGHTLESS, *xconnectd, "run", "-c", config, check=False)
    assert (done.returncode, "CAP_" in done.stderr) == (3, True), done.stderr
