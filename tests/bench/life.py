"""Starting, memory and idling, with few links and with many."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

from tests.netns.lab import Lab, inside, poll
from tests.netns.service import Daemon, document
from tests.netns.test_scale import grow

from .rounds import Effort, Series, interleave
from .wires import PEER, Peer, Wire, has_peer

_FEW: Final = 2
_SLICES: Final = 4
_PATIENCE: Final = 120.0
"""Seconds for the start of a daemon with many links."""
_METRICS: Final = "127.0.0.1:9464"

_Life = Callable[[], dict[str, float]]


def start(effort: Effort) -> list[Series]:
    """From the execution to ``daemon.ready``, with nothing pinned and after a crash; and VmRSS."""
    with ExitStack() as labs:
        lives = {
            f"{_FEW} links": _life(labs, _FEW),
            f"{effort.crowd:,} links": _life(labs, effort.crowd),
            f"{_FEW} links, metrics on": _life_with_metrics(labs),
        }
        if has_peer():
            lives[f"{PEER}, {_FEW} links"] = _life_of_peer(labs)
        figures = interleave(list(lives), effort.starts, lambda name, _: lives[name]())
    return [
        Series("From the execution to ready", "ms", _labelled(figures, "ms")),
        Series("Memory (VmRSS)", "MiB", _labelled(figures, "MiB")),
    ]


def _labelled(
    figures: Mapping[str, Mapping[str, list[float]]], unit: str
) -> dict[str, list[float]]:
    """The figures of one unit, which their names end in."""
    return {
        f"{name}, {figure.removesuffix(unit).strip()}": values
        for figure, by_name in figures.items()
        for name, values in by_name.items()
        if figure.endswith(unit)
    }


def _life(labs: ExitStack, links: int) -> _Life:
    lab = labs.enter_context(Lab())
    return partial(_lived, Daemon(lab, grow(lab, links)[1]))


def _life_with_metrics(labs: ExitStack) -> _Life:
    lab = labs.enter_context(Lab())
    text = document(grow(lab, _FEW)[1]) + f"metrics: {{listen: {_METRICS!r}}}\n"
    url = f"http://{_METRICS}/metrics"
    scrape = lambda: urllib.request.urlopen(url, timeout=5).read()  # noqa: E731
    return partial(_lived, Daemon(lab, text), lambda: inside(lab.host, scrape))


def _lived(daemon: Daemon, use: Callable[[], object] = lambda: None) -> dict[str, float]:
    """A cold start, a crash, a start that adopts, a clean stop."""
    found = {}
    for how in ("cold", "adopting"):
        found[f"{how} ms"] = ready(daemon)
        found[f"{how} MiB"] = _settled(daemon, use)
        daemon.kill() if how == "cold" else daemon.stop()
    return found


def _settled(daemon: Daemon, use: Callable[[], object]) -> float:
    """Mebibytes of resident memory once there is nothing left to do."""
    daemon.idle()
    use()
    return daemon.rss() / (1 << 20)


def ready(daemon: Daemon, timeout: float = _PATIENCE) -> float:
    """Milliseconds from the execution, by the clock that the log is written by."""
    daemon._log.touch()
    with daemon._log.open("rb") as log:
        log.seek(0, os.SEEK_END)
        begin, text = time.time(), b""

        def is_ready() -> bytes:
            nonlocal text
            text = text.rpartition(b"\n")[2] + log.read()  # half a line waits for the rest
            lines = text.split(b"\n")[:-1]
            return next((line for line in lines if b'"daemon.ready"' in line), b"")

        daemon.spawn()
        line = poll(is_ready, timeout, "daemon.ready")
    return (datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp() - begin) * 1e3


def _life_of_peer(labs: ExitStack) -> _Life:
    """It says nothing when it is ready: a frame does."""
    lab = labs.enter_context(Lab())
    lab.hush()
    pairs = grow(lab, _FEW - 1)[1]
    wire = Wire(PEER, lab.veth("wa", 1), lab.veth("wb", 2))
    peer = Peer(lab, pairs | dict([wire.ends]))

    def live() -> dict[str, float]:
        begin = time.monotonic()
        peer.spawn()
        peer.wait(wire.passes, 0.002)
        took = (time.monotonic() - begin) * 1e3
        memory = peer.rss() / (1 << 20)
        peer.kill()
        return {"first frame ms": took, "first frame MiB": memory}

    return live


def idle(effort: Effort) -> list[Series]:
    """Per cent of one processor that a daemon without work takes."""
    with ExitStack() as labs:
        daemons = {f"{links:,} links": _idling(labs, links) for links in (_FEW, effort.crowd)}
        values: dict[str, list[float]] = {name: [] for name in daemons}
        for _ in range(_SLICES):
            before = {name: processor(daemon) for name, daemon in daemons.items()}
            begin = time.monotonic()
            time.sleep(effort.idle / _SLICES)
            took = time.monotonic() - begin
            for name, daemon in daemons.items():
                values[name].append(100 * (processor(daemon) - before[name]) / took)
    return [Series("Processor time of an idle daemon", "% of one CPU", values)]


def _idling(labs: ExitStack, links: int) -> Daemon:
    lab = labs.enter_context(Lab())
    daemon = Daemon(lab, grow(lab, links)[1]).start(_PATIENCE)
    daemon.idle(2)
    return daemon


def processor(daemon: Daemon) -> float:
    """Seconds used by all threads so far, to the nanosecond where the kernel keeps account."""
    tasks = Path("/proc", str(daemon.pid), "task").glob("*/schedstat")
    used = sum(int(task.read_text().split()[0]) for task in tasks)
    return used / 1e9 if used else daemon.cpu()
