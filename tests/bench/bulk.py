"""Bulk TCP with the offloads that a veth has by default, and the processor time it takes."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.netns.lab import NETNS, Station, poll, run

from .rounds import Effort, Series, interleave
from .wires import arena


def tcp(effort: Effort) -> list[Series]:
    """One stream, in alternate directions from round to round."""
    with arena() as (_, wires):
        sample = lambda name, number: stream(*wires[name].way(number), effort.bulk)  # noqa: E731
        figures = interleave(list(wires), effort.rounds, sample)
    return [
        Series("Bulk TCP", "Gbit/s", figures["speed"], more_is_better=True),
        Series("Processor time for bulk TCP, whole machine", "s/Gbit", figures["cost"]),
    ]


def stream(client: Station, server: Station, seconds: int) -> dict[str, float]:
    """Its ``speed``, and the ``cost`` in time of the whole machine."""
    before = _busy()
    received = _iperf(client, server, seconds)["end"]["sum_received"]
    used = _busy() - before
    gbit = received["bytes"] * 8 / 1e9
    speed = received["bits_per_second"] / 1e9
    return {"speed": speed, "cost": used / gbit if gbit else math.inf}


def _iperf(client: Station, server: Station, seconds: int) -> dict[str, Any]:
    enter = ["nsenter", f"--net={NETNS / server.namespace}"]
    listener = subprocess.Popen([*enter, "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL)
    try:
        poll(lambda: ":5201 " in run("ss", "-ltn", namespace=server.namespace).stdout)
        measure = ("iperf3", "-J", "-c", server.address(), "-t", str(seconds))
        report: dict[str, Any] = json.loads(run(*measure, namespace=client.namespace).stdout)
        return report
    finally:
        listener.kill()
        listener.wait()


def _busy() -> float:
    """Seconds that the processors have worked so far: all but idle, iowait and stolen time."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    user, nice, system, _idle, _iowait, irq, softirq = map(int, fields)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
