"""``python -m tests.bench [--rounds N] [--only NAME…] [--quick] [--output DIRECTORY]``, as root."""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import xconnectd
from tests.netns.lab import sweep

from . import bulk, carrier, latency, life, rate, rewire
from .render import plot, table
from .rounds import QUICK, Effort, Series

MEASURES: Final[dict[str, Callable[[Effort], list[Series]]]] = {
    "tcp": bulk.tcp,
    "udp": rate.udp,
    "live": rate.live,
    "rtt": latency.round_trip,
    "rewire": rewire.rewire,
    "carrier": carrier.carrier,
    "flaps": carrier.flaps,
    "start": life.start,
    "idle": life.idle,
}


def main(arguments: Sequence[str] | None = None) -> int:
    wanted = _parser().parse_args(arguments)
    if os.geteuid() != 0:
        print("the bench makes network namespaces: run it as root", file=sys.stderr)
        return 1
    effort = QUICK if wanted.quick else Effort()
    if wanted.rounds:
        effort = replace(effort, rounds=wanted.rounds)
    sweep()
    series = [one for name in wanted.only or MEASURES for one in _measure(name, effort)]
    facts = [*_machine(), f"{effort.rounds} rounds{', --quick' if wanted.quick else ''}"]
    text = table(series, facts)
    if wanted.output:
        (wanted.output / "bench.md").write_text(text)
        (wanted.output / "bench.svg").write_text(plot(series))
    else:
        print(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, help=f"for traffic (default {Effort().rounds})")
    parser.add_argument("--only", nargs="+", choices=MEASURES, metavar="NAME", help=str(MEASURES))
    parser.add_argument("--quick", action="store_true", help="a look, and no figures to quote")
    parser.add_argument("--output", type=Path, help="for bench.md and bench.svg")
    return parser


def _measure(name: str, effort: Effort) -> list[Series]:
    begin = time.monotonic()
    print(f"{name} …", end=" ", file=sys.stderr, flush=True)
    series = MEASURES[name](effort)
    print(f"{time.monotonic() - begin:.0f} s", file=sys.stderr)
    return series


def _machine() -> list[str]:
    """What the figures depend on, and nothing that names the machine."""
    kernel = re.match(r"[\d.]*\d", platform.release())
    models = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return [
        f"xconnectd {xconnectd.__version__}",
        f"Linux {kernel[0] if kernel else platform.release()} {platform.machine()}",
        f"{os.cpu_count()} CPUs{f', {models[0]}' if models else ''}",
        f"Python {platform.python_version()}",
    ]


if __name__ == "__main__":
    sys.exit(main())
