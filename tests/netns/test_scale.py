"""What an idle daemon costs. How long things take is for the bench, memory in test_metrics."""

from __future__ import annotations

import time
from pathlib import Path

from .lab import Lab, poll, run
from .service import PAIR, Daemon, Start, paired


def grow(lab: Lab, count: int) -> tuple[str, dict[str, str]]:
    """``count`` pairs of host ends, all their containers' ends in one namespace."""
    inner = lab.namespace("containers", quiet=True)
    names = [f"v{n}" for n in range(2 * count)]
    lab.batch(f"link add {name} up type veth peer name {name} netns {inner}" for name in names)
    run("ip", "-batch", "-", namespace=inner, text="".join(f"link set {x} up\n" for x in names))
    return inner, paired(names)


def test_an_idle_daemon_idles(lab: Lab, daemon: Start) -> None:
    """0.1 % of a processor is the promise; over five seconds a tick of the clock is 0.2 %.

    Others on the machine only add to it, so the quietest five seconds count.
    """
    lab.veths("va", "vb")
    running = daemon(PAIR)
    running.idle(1.0)

    def idles() -> bool:
        before = running.cpu()
        time.sleep(5)
        return running.cpu() - before <= 0.02

    poll(idles, what="five seconds of hardly any work")


def test_a_daemon_that_is_killed_among_many_ends_has_recorded_them(lab: Lab) -> None:
    """What it had sent in one go is adopted by the next, and put back as it was found."""
    lab.hush()
    pairs = grow(lab, 60)[1]
    found = lab.snapshot()
    running = Daemon(lab, pairs)
    for written in (1, 40, 80, 119):
        running.spawn()
        journal = running.state / str(lab.cookie) / "ends"

        def has_begun(least: int = written, path: Path = journal) -> bool:
            return path.exists() and path.read_bytes().count(b"hold") >= least

        poll(has_begun, interval=0.001)
        running.kill()
    running.start()
    assert running.states() == {"connected"}
    running.stop()
    assert lab.snapshot() == found
