"""Figures, as JSON: speed, latency, start, memory, idling, scale. Not a test; run it as root:

python -m tests.netns.measure [--quick] [tcp rewire start idle scale]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from .lab import NETNS, REPO, Lab, Station, inside, poll, run, sweep
from .service import Daemon, document
from .test_scale import grow
from .traffic import ETH_P_STREAM, passes

Figures = dict[str, Any]
_SO_TIMESTAMPNS: Final = 35
_SO_RCVBUFFORCE: Final = 33


def _spread(values: Sequence[float], digits: int = 2) -> Figures:
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), digits),
        "p95": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))], digits),
        "worst": round(ordered[-1], digits),
        "runs": len(ordered),
    }


# ---------------------------------------------------------------------- TCP against mirred


def tcp(quick: bool) -> Figures:
    """Gbit/s of our links and of ``tc mirred`` in one lab, run by run in turn."""
    with Lab() as lab:
        pairs = {
            name: (lab.veth(f"{name}1", 1), lab.veth(f"{name}2", 2))
            for name in ("auto", "tc", "mirred")
        }
        daemon = Daemon(lab, "links:\n  auto1: auto2\n  tc1: {to: tc2, mode: tc}\n").start()
        daemon.wait_link("connected", "tc1", "tc2")
        lab.mirred("mirred1", "mirred2")
        speeds: dict[str, list[float]] = {name: [] for name in pairs}
        for _ in range(3 if quick else 7):
            for name, (a, b) in pairs.items():
                speeds[name].append(iperf(a, b, 1 if quick else 2))
        daemon.stop()
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    rounds = zip(*speeds.values(), strict=True)
    ratios = [(x[0] / x[2], x[1] / x[2]) for x in rounds]
    return {
        "gbit_s": {name: round(value, 2) for name, value in medians.items()},
        "auto_to_mirred": round(statistics.median(x[0] for x in ratios), 3),
        "tc_to_mirred": round(statistics.median(x[1] for x in ratios), 3),
    }


def iperf(client: Station, server: Station, seconds: int) -> float:
    """TCP throughput in Gbit/s as the receiver saw it."""
    enter = ["nsenter", f"--net={NETNS / server.namespace}"]
    listener = subprocess.Popen([*enter, "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL)
    try:
        poll(lambda: ":5201 " in run("ss", "-ltn", namespace=server.namespace).stdout)
        measure = ("iperf3", "-J", "-c", server.address(), "-t", str(seconds))
        report = json.loads(run(*measure, namespace=client.namespace).stdout)
        return float(report["end"]["sum_received"]["bits_per_second"]) / 1e9
    finally:
        listener.kill()
        listener.wait()


# ---------------------------------------------------------------------- rewiring


def rewire(quick: bool) -> Figures:
    """Milliseconds from the write to the first frame at the new end, and frames lost on the way."""
    figures: Figures = {}
    for links in (2, 200) if quick else (2, 200, 1000):
        for how in ("rename", "in place"):
            figures[f"{links} links, {how}"] = _rewire(links, how, 15 if quick else 60)
    return figures


def _rewire(links: int, how: str, count: int) -> Figures:
    with Lab() as lab:
        stations = [lab.veth(end) for end in ("va", "vb", "vc")]
        others = grow(lab, links - 1)[1]
        texts = [document({"va": end} | others) for end in ("vc", "vb")]
        daemon = Daemon(lab, texts[1]).start(60)
        daemon.idle()
        write = daemon.write if how == "rename" else daemon.write_in_place
        with _clock(stations[2]) as c, _clock(stations[1]) as b, _flood(stations[0]) as sent:
            arrived = len(poll(lambda: _stamps(b), 10))
            taken = []
            for n in range(count):
                new = (c, b)[n % 2]
                arrived += len(_stamps(new))
                begin = time.time_ns()
                write(texts[n % 2])
                stamps = poll(lambda new=new: _stamps(new), 20, interval=0.002)  # type: ignore[misc]
                arrived += len(stamps)
                taken.append((stamps[0] - begin) / 1e6)
                time.sleep(0.03)
            total = sent()
            time.sleep(0.1)
            arrived += len(_stamps(b)) + len(_stamps(c))
        daemon.stop()
    return {**_spread(taken), "frames_sent": total, "frames_lost": max(0, total - arrived)}


@contextlib.contextmanager
def _flood(station: Station, rate: int = 10_000) -> Iterator[Callable[[], int]]:
    """Frames at a high rate from a process of its own; the value ends it and says how many."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.netns.measure", "--flood", station.namespace, str(rate)],
        cwd=REPO,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )

    def finish() -> int:
        return int(process.communicate(b"\n", timeout=10)[0])

    try:
        yield finish
    finally:
        process.kill()
        process.wait()


def _send_flood(namespace: str, rate: int) -> None:
    """The other side of :func:`_flood`: send until a line comes in."""
    frame = b"\xff" * 6 + b"\x02\0\0\0\0\x0a" + ETH_P_STREAM.to_bytes(2, "big") + bytes(46)
    raw = inside(namespace, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    raw.bind((("eth0"), 0))
    os.set_blocking(0, False)
    begin, sent = time.monotonic(), 0
    while not _line():
        due = int((time.monotonic() - begin) * rate)
        while sent < due:
            raw.send(frame)
            sent += 1
        time.sleep(0.00005)
    sys.stdout.write(str(sent))


def _line() -> bytes:
    with contextlib.suppress(BlockingIOError):
        return os.read(0, 1)
    return b""


@contextlib.contextmanager
def _clock(station: Station) -> Iterator[socket.socket]:
    """A receiver whose frames carry the kernel's time of arrival."""
    raw = inside(station.namespace, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    with raw:
        raw.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
        raw.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        raw.bind((station.interface, ETH_P_STREAM))
        yield raw


def _stamps(raw: socket.socket) -> list[int]:
    """Times of arrival, in nanoseconds, of all frames that are there."""
    stamps = []
    with contextlib.suppress(BlockingIOError):
        while True:
            ancillary = raw.recvmsg(64, 64, socket.MSG_DONTWAIT)[1]
            seconds, rest = struct.unpack("qq", ancillary[0][2])
            stamps.append(seconds * 10**9 + rest)
    return stamps


# ---------------------------------------------------------------------- starting


def start(quick: bool) -> Figures:
    """Milliseconds from spawn to ``daemon.ready`` and to the first frame, cold and adopting."""
    cold, first, adopting, again = ([0.0][:0] for _ in range(4))
    for _ in range(3 if quick else 10):
        with Lab() as lab:
            a, b = lab.veth("va"), lab.veth("vb")
            daemon = Daemon(lab, {"va": "vb"})
            begin = time.monotonic()
            daemon.spawn()
            with a.port() as here, b.port() as there:
                poll(lambda here=here, there=there: passes(here, there, 0.002), 20)  # type: ignore[misc]
            first.append((time.monotonic() - begin) * 1000)
            cold.append(_until_ready(daemon, begin))
            for _ in range(2):
                daemon.kill()
                adopting.append(_started(daemon))
            daemon.stop()
            again.append(_started(daemon))
            daemon.stop()
    return {
        "cold_ms": _spread(cold, 0),
        "cold_to_first_frame_ms": _spread(first, 0),
        "adopting_ms": _spread(adopting, 0),
        "after_a_stop_ms": _spread(again, 0),
    }


def _started(daemon: Daemon) -> float:
    since, begin = daemon.mark(), time.monotonic()
    daemon.spawn()
    return _until_ready(daemon, begin, since)


def _until_ready(daemon: Daemon, begin: float, since: int = 0) -> float:
    poll(lambda: daemon.events("daemon.ready", since), 60, "daemon.ready", 0.002)
    return (time.monotonic() - begin) * 1000


# ---------------------------------------------------------------------- idling, memory, scale


def idle(quick: bool) -> Figures:
    """Memory, and the share of a processor that a daemon with nothing to do takes."""
    seconds = 5 if quick else 20
    with Lab() as lab:
        lab.veth("va"), lab.veth("vb")
        daemon = Daemon(lab, {"va": "vb"}).start()
        daemon.idle(2)
        before = daemon.cpu()
        time.sleep(seconds)
        used = daemon.cpu() - before
        figures = {
            "rss_mb": round(daemon.rss() / (1 << 20), 1),
            "llvm_mapped": "LLVM" in daemon.maps(),
            "idle_cpu_percent": round(100 * used / seconds, 3),
        }
        daemon.stop()
    return figures


def scale(quick: bool) -> Figures:
    """Seconds to connect and detach many links, and the memory then."""
    count = 200 if quick else 1000
    with Lab() as lab:
        _, pairs = grow(lab, count)
        daemon = Daemon(lab, pairs)
        begin = time.monotonic()
        daemon.start(120)
        poll(lambda: len(daemon.events("link.connected")) == count, 60)
        connect = time.monotonic() - begin
        daemon.idle()
        rss = daemon.rss()
        before = daemon.cpu()
        time.sleep(3 if quick else 10)
        used = daemon.cpu() - before
        daemon.kill()
        adopt = _started(daemon)
        begin = time.monotonic()
        daemon.stop()
        detach = time.monotonic() - begin
    return {
        "links": count,
        "connect_s": round(connect, 2),
        "adopting_start_s": round(adopt / 1000, 2),
        "detach_s": round(detach, 2),
        "rss_mb": round(rss / (1 << 20), 1),
        "idle_cpu_percent": round(100 * used / (3 if quick else 10), 2),
    }


MEASURES: Final = {"tcp": tcp, "rewire": rewire, "start": start, "idle": idle, "scale": scale}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", choices=[*MEASURES, []], default=[])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    parser.add_argument("--flood", nargs=2, metavar=("NAMESPACE", "RATE"), help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.flood:
        return _send_flood(wanted.flood[0], int(wanted.flood[1]))
    sweep()
    figures = {name: MEASURES[name](wanted.quick) for name in wanted.what or MEASURES}
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    return None


if __name__ == "__main__":
    main()
