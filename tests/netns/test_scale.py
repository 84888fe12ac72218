"""What a daemon costs, and a burst of interfaces. How long things take is for the bench."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from .lab import Lab, Station, poll, run
from .service import Daemon
from .test_config_changes import wired

Start = Callable[..., Daemon]


def ends(count: int) -> list[str]:
    return [f"v{n}" for n in range(2 * count)]


def grow(lab: Lab, count: int) -> tuple[str, dict[str, str]]:
    """``count`` pairs of host ends, all their containers' ends in one namespace."""
    inner = lab.namespace("containers", quiet=True)
    names = ends(count)
    lab.batch(
        line
        for name in names
        for line in (
            f"link add {name} type veth peer name {name} netns {inner}",
            f"link set {name} up",
        )
    )

    run("ip", "-batch", "-", namespace=inner, text="".join(f"link set {x} up\n" for x in names))
    return inner, dict(zip(names[::2], names[1::2], strict=True))


def test_a_small_daemon_is_small(lab: Lab, daemon: Start) -> None:
    """42 MB is the bound; nothing of the compiler stays in memory."""
    lab.veth("va"), lab.veth("vb")
    running = daemon({"va": "vb"})
    running.wait_link("connected", "va", "vb")
    running.idle()
    assert running.rss() <= 42 << 20, f"{running.rss() >> 20} MB"
    assert not [x for x in running.maps().splitlines() if "LLVM" in x or "libbcc" in x]


def test_an_idle_daemon_idles(lab: Lab, daemon: Start) -> None:
    """0.1 % of a processor is the promise; over five seconds a tick of the clock is 0.2 %.

    Others on the machine only add to it, so the quietest five seconds count.
    """
    lab.veth("va"), lab.veth("vb")
    running = daemon({"va": "vb"})
    running.idle(1.0)

    def idles() -> bool:
        before = running.cpu()
        time.sleep(5)
        return running.cpu() - before <= 0.02

    poll(idles, what="five seconds of hardly any work")


def test_a_burst_of_interfaces_overruns_nothing(lab: Lab, daemon: Start) -> None:
    """Thousands of link events that nobody reads: the netlink buffer overflows, and the daemon
    looks at everything anew."""
    a, b = lab.veth("va"), lab.veth("vb")
    running = daemon({"va": "vb", "b0": "late"})
    running.wait_link("connected", "va", "vb")
    inner = lab.namespace("burst", quiet=True)
    names = [f"b{n}" for n in range(200)]
    running.signal(signal.SIGSTOP)
    lab.batch(f"link add {x} up type veth peer name {x} netns {inner}" for x in names)
    for _ in range(20):
        lab.batch(f"link set {x} {how}" for x in names[1:] for how in ("down", "up"))
    lab.delete("vb")
    lab.veth("vb", namespace=b.namespace)
    c = lab.veth("late")
    inside = Station(inner, "b0", interface="b0")
    inside.ip("link", "set", "b0", "up")
    running.signal(signal.SIGCONT)
    running.wait_link("connected", "b0", "late")
    poll(lambda: wired(inside, c))
    poll(lambda: wired(a, b))
    running.stop()
