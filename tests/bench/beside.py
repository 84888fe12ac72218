"""Two checkouts in turn: ``python -m tests.bench.beside OTHER [--links N] …``, as root.

The daemons of both wire the same interfaces, each in its turn: a start from nothing, a crash, a
start that adopts, a clean end. ``make setup`` must have been run in both. Processor time may be
compared on a busy machine too, walls may not.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.netns.lab import REPO, Lab, sweep
from tests.netns.service import Daemon

from .growth import ended, grown, mebibytes, settle, started
from .paper import number
from .rounds import Series, interleave

_OTHER, _THIS = "the other", "this"


class _Of(Daemon):
    """A daemon of one of the checkouts, with a file, a log and a state directory of its own."""

    def __init__(self, lab: Lab, pairs: Mapping[str, str], name: str, checkout: Path) -> None:
        self._checkout = checkout
        super().__init__(lab, pairs, name=name.replace(" ", "-"))
        self.state = lab.directory / f"state-{name}"

    def _command(self, *args: str) -> list[str]:
        command = super()._command(*args)
        python = self._checkout / ".venv" / "bin" / "python"
        return [str(python) if word == sys.executable else word for word in command]

    def _surroundings(self) -> dict[str, Any]:
        options = super()._surroundings()
        options["env"]["PYTHONPATH"] = str(self._checkout)
        return options | {"cwd": self._checkout}


def main(arguments: Sequence[str] | None = None) -> int:
    wanted = _parser().parse_args(arguments)
    if os.geteuid() != 0:
        print("this makes network namespaces: run it as root", file=sys.stderr)
        return 1
    checkouts = {_OTHER: wanted.other.resolve(), _THIS: REPO}
    for checkout in checkouts.values():
        if _is_stale(checkout):
            print(f"bpf/xconnect.json is missing or old: make -C {checkout} setup", file=sys.stderr)
            return 1
    sweep()
    with Lab() as lab, grown(lab, wanted.links, ipv6=wanted.ipv6) as site:
        pairs = site.pairs()
        daemons = {name: _Of(lab, pairs, name, where) for name, where in checkouts.items()}
        figures = interleave(list(daemons), wanted.rounds, lambda name, _: _lived(daemons[name]))
    where = f"{wanted.links:,} links" + ", IPv6 on all ends" * wanted.ipv6
    print(f"{where}, medians of {wanted.rounds} rounds (quartiles)")
    for figure, values in figures.items():
        print(_line(Series(figure, "", values)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.beside", description=__doc__)
    parser.add_argument("other", type=Path, metavar="OTHER", help="another checkout")
    parser.add_argument("--links", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--ipv6",
        action="store_true",
        help="the host has a link-local address on every end, as it is where nobody turns that"
        " off: each change of an end walks through the routes of all (docs/decisions/0026)",
    )
    return parser


def _is_stale(checkout: Path) -> bool:
    """Whether each start from nothing would compile."""
    bpf = checkout / "bpf"
    code = bpf / "xconnect.json"
    sources = (*bpf.glob("*.c"), *bpf.rglob("*.h"))
    return not code.exists() or code.stat().st_mtime < max(x.stat().st_mtime for x in sources)


def _lived(daemon: Daemon) -> dict[str, float]:
    up = started(daemon)
    settle(daemon)
    memory = mebibytes(daemon)
    daemon.kill()
    adopted = started(daemon)
    settle(daemon)
    adopting = mebibytes(daemon)
    down = ended(daemon)
    return {
        "up from nothing, s": up.wall,
        "up from nothing, processor s": up.processor,
        "memory, MiB": memory,
        "adopted, s": adopted.wall,
        "adopted, processor s": adopted.processor,
        "memory after adopting, MiB": adopting,
        "down, s": down.wall,
        "down, processor s": down.processor,
    }


def _line(series: Series) -> str:
    """Both ratios are of this to the other."""
    other, this = (series.spread(name) for name in (_OTHER, _THIS))
    ratio = series.ratio(_THIS, _OTHER)
    assert ratio
    of_medians = statistics.median(series.values[_THIS]) / statistics.median(series.values[_OTHER])
    medians = f"{number(other.median):>8} -> {number(this.median):>8}"
    return (
        f"{series.title:32} {medians}  ratio of medians {of_medians:.2f},"
        f" median ratio {ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
    )


if __name__ == "__main__":
    sys.exit(main())
