"""A container and a guest that do their worst, and two wires beside them that must not notice.

``XCONNECTD_HOSTILE_SECONDS`` says for how long (60).
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from xml.etree import ElementTree as ET

from netns.lab import Lab, Station, inside, meanwhile, poll, run
from netns.service import Daemon
from netns.traffic import OFFLOADS, lossless, wired
from pyroute2 import IPRoute

SECONDS = float(os.environ.get("XCONNECTD_HOSTILE_SECONDS") or 60)

HOSTILE_NAMES = (
    "$(id>x)",
    "`id`",
    ";reboot;",
    "\x1b[2J\x1b[31m",
    '"><script>',
    "-rf",
    "\u202etxt",
)
"""What a kernel takes as the name of an interface (no slash, no blank, 15 bytes), and no shell,
terminal, page or format string should."""


def _set(box: Station, changes: list[dict[str, object]]) -> None:
    """These, of the container's own interface."""

    def change() -> None:
        with IPRoute() as route:
            (index,) = route.link_lookup(ifname="eth0")
            for each in changes:
                with suppress(Exception):
                    route.link("set", index=index, **each)

    inside(box.namespace, change)


def _devices(box: Station) -> None:
    """Of its own: every one is told to whoever listens, and takes the kernel's lock."""
    make = "".join(f"link add x{n} type veth peer name y{n}\n" for n in range(50))
    gone = "".join(f"link delete x{n}\n" for n in range(50))
    run("ip", "-batch", "-", namespace=box.namespace, text=make + gone, check=False)


def test_two_wires_beside_the_worst_container_lose_no_frame(lab: Lab) -> None:
    """Nor does the log grow without end, nor an operator wait."""
    a, b, c, d = lab.veths("va", "vb", "vc", "vd")
    box, partner = lab.veths("hostile", "partner")
    tap = lab.tap("tap0")
    lab.veth("behind")
    wires = {"va": "vb", "vc": "vd", "hostile": "partner", "tap0": "behind"}
    running = Daemon(lab, wires).start().connected("vc", "vd")
    poll(lambda: wired(box, partner))
    spent, size = running.cpu(), len(running.text())
    mtus = [{"mtu": random.randint(68, 65535)} for _ in range(500)]
    macs = [{"address": f"02:00:00:00:00:{n:02x}"} for n in range(256)]
    attacks: list[Callable[[], object]] = [
        lambda: _set(box, mtus),
        lambda: _set(box, macs),
        lambda: _set(box, [{"state": "down"}, {"state": "up"}] * 50),
        lambda: [tap.offload(flags) for flags in (0, OFFLOADS)],
        lambda: _devices(box),
    ]
    with lossless(a, b, rate=200), lossless(c, d, rate=200), meanwhile(*attacks) as times:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            assert running.returncode is None, running.text()[-2000:]
            assert running.ask("status", timeout=10)["daemon"]["pid"] == running.pid
            assert running.cli("reload").returncode in (0, 1)
            time.sleep(1)
        made = times()
    assert all(made), f"an attack that never was: {made}"
    assert len(running.text()) - size < 5000 * SECONDS, "a flood of log lines"
    assert running.cpu() - spent < SECONDS / 2, "half a processor"
    box.ip("link set eth0 mtu 1500 up")
    poll(lambda: wired(box, partner), what="the hostile one's own wire, once it is quiet")
    running.stop()


SHOWN_IN_A_PAGE = ("graph", "graph --format svg")


def _outputs(running: Daemon) -> Iterator[tuple[str, str]]:
    for command in (
        *(("status",), ("status", "-v"), ("status", "--json"), ("plan",), ("doctor",)),
        *(("graph",), ("graph", "--format", "dot"), ("graph", "--format", "svg")),
    ):
        yield " ".join(command), running.cli(*command).stdout
    yield "the log", running.text()


def test_a_hostile_name_reaches_no_shell_terminal_or_page(lab: Lab) -> None:
    """A container calls its end so, which is shown as the far end of ours, and as what is down."""
    box, _ = lab.veths("va", "vb")
    running = Daemon(lab, {"va": "vb"}).start().connected()
    for name in HOSTILE_NAMES:
        for state in ("connected", "down"):
            up = state == "connected"
            inside(box.namespace, lambda name=name, up=up: _rename(name, up=up))  # type: ignore[misc]
            poll(lambda state=state: running.link()["state"] == state)  # type: ignore[misc]
            for what, text in _outputs(running):
                assert not [x for x in text if not x.isprintable() and x != "\n"], (what, name)
                assert "<script>" not in text or what not in SHOWN_IN_A_PAGE, what
        shown = json.loads(running.cli("status", "--json").stdout)["links"][0]["a"]
        assert shown["far_name"] == name
        ET.fromstring(running.cli("graph", "--format", "svg").stdout)
    running.stop()


def _rename(name: str, *, up: bool) -> None:
    with IPRoute() as route:
        (index,) = (each["index"] for each in route.get_links() if each["index"] != 1)
        route.link("set", index=index, state="down")
        route.link("set", index=index, ifname=name)
        if up:
            route.link("set", index=index, state="up")
