"""``python -m tests.bench [--rounds N] [--only NAME…] [--quick] [--output DIRECTORY]``, as root.

What was measured until it is interrupted is kept, and nothing else is left.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import xconnectd
from tests.netns.lab import sweep

from . import bulk, carrier, growth, hosts, latency, life, nodes, rate, results, rewire
from .plot import plot
from .render import comparison, table
from .results import Run
from .rounds import QUICK, Effort, Series

MEASURES: Final[dict[str, Callable[[Effort], Iterable[Series]]]] = {
    "tcp": bulk.tcp,
    "udp": rate.udp,
    "live": rate.live,
    "guest": rate.guest,
    "rtt": latency.round_trip,
    "rewire": rewire.rewire,
    "carrier": carrier.carrier,
    "flaps": carrier.flaps,
    "nodes": nodes.restarts,
    "fabric": nodes.forty,
    "hosts": hosts.hosts,
    "start": life.start,
    "idle": life.idle,
    "growth": growth.growth,
}


def main(arguments: Sequence[str] | None = None) -> int:
    wanted = _parser().parse_args(arguments)
    if os.geteuid() != 0:
        print("the bench makes network namespaces: run it as root", file=sys.stderr)
        return 1
    effort = QUICK if wanted.quick else Effort()
    if wanted.rounds:
        effort = replace(effort, rounds=wanted.rounds)
    if wanted.links:
        effort = replace(effort, grown=tuple(sorted(wanted.links)))
    facts = [*_machine(), f"{effort.rounds} rounds{', --quick' if wanted.quick else ''}"]
    run = Run.of(facts)
    if wanted.output:
        try:
            run = _open(wanted.output, run, anew=not wanted.only)
        except OSError as error:
            print(f"the result could not be written: {error}", file=sys.stderr)
            return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sweep()
    try:
        for series in _measured(wanted.only or MEASURES, effort):
            run = run.with_series([series], facts)
            if wanted.output:
                _write(wanted.output, run)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    if not wanted.output:
        print(table(run))
    return 0


def _open(directory: Path, run: Run, *, anew: bool) -> Run:
    """What was measured on this machine before, if only a part of it is measured ``anew``."""
    results.prepare(directory)
    before = [each for each in results.kept(directory) if each.name == run.name]
    return before[0] if before and not anew else run


def _write(directory: Path, run: Run) -> None:
    """After each series: what is measured until something fails is kept."""
    run.write(directory)
    (directory / f"{run.name}.md").write_text(table(run))
    (directory / f"{run.name}.svg").write_text(plot(run.series))
    (directory / "README.md").write_text(comparison(results.kept(directory)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, help=f"for traffic (default {Effort().rounds})")
    names = f"of these: {', '.join(MEASURES)}"
    parser.add_argument("--only", nargs="+", choices=MEASURES, metavar="NAME", help=names)
    parser.add_argument(
        "--links",
        nargs="+",
        type=_links,
        metavar="N",
        help=f"for growth (default {' '.join(map(str, Effort().grown))})",
    )
    parser.add_argument("--quick", action="store_true", help="a look, and no figures to quote")
    parser.add_argument("--output", type=Path, help="directory that keeps a run of each machine")
    return parser


def _links(text: str) -> int:
    """Two links there are always: one is rewired or flaps while the other is looked at."""
    if (links := int(text)) < 2:
        raise argparse.ArgumentTypeError("at least 2")
    return links


def _measured(names: Iterable[str], effort: Effort) -> Iterator[Series]:
    for name in names:
        begin = time.monotonic()
        print(f"{name} …", end="", file=sys.stderr, flush=True)
        yield from MEASURES[name](effort)
        print(f" {time.monotonic() - begin:.0f} s", file=sys.stderr)


def _machine() -> list[str]:
    """What the figures depend on, and nothing that names the machine."""
    kernel = re.match(r"[\d.]*\d", platform.release())
    models = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return [
        f"xconnectd {xconnectd.__version__}",
        f"{os.cpu_count()} CPUs{f', {models[0]}' if models else ''}",
        f"Linux {kernel[0] if kernel else platform.release()} {platform.machine()}",
        f"Python {platform.python_version()}",
        f"load {os.getloadavg()[0]:.1f} before",
    ]


if __name__ == "__main__":
    sys.exit(main())
