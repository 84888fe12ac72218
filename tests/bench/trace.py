"""The path of one rewire (``va: vb`` to ``va: vc``) through the daemon: ``make trace-rewire``.

``python -m tests.bench.trace`` makes a lab, starts the daemon below ``sys.setprofile`` and rewires.
Counted are the Python calls of the package's functions in the main thread, from the wake that reads
the file until nothing more comes of it: every wake in between that does more than a tick counts. A
comprehension is a call, and so is each time that a generator goes on.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from types import FrameType
from typing import Any, Final

import xconnectd
from tests.netns.lab import Lab, poll, sweep
from tests.netns.service import Daemon

_PACKAGE: Final = str(Path(xconnectd.__file__).parent) + os.sep
_QUIET: Final = 1.0
"""Seconds without a further wake after which a rewire is over; the daemon's tick is as long."""
_WARM: Final = 2
"""Rewires before the one that counts."""
_TRIES: Final = 20
"""So many may be one that counts: half a minute to two, if the machine is not busy."""
_TICK: Final = "daemon/daemon:Daemon._on_tick"
_READ: Final = "config/source:Files.read"
_SIGN_OF_LIFE: Final = "daemon/systemd:Watchdog.__call__"
"""Each 64th request, for the manager."""
_LOOKS: Final = frozenset(("narrow", "again", "everything"))
"""Functions that begin a look at the kernel."""


@dataclass
class Wake:
    """What the daemon's thread did between two waits."""

    functions: Counter[str] = field(default_factory=Counter)
    moves: int = 0
    looks: list[list[str]] = field(default_factory=lambda: [[]])
    """Netlink requests: those before the first look, then those since the beginning of each."""


class Tracer:
    """A profile function; each finished wake is appended to ``report`` as one JSON line."""

    def __init__(self, report: Path) -> None:
        self._report = report.open("a", buffering=1)
        self._wake = Wake()
        self._module = ""

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call":
            if getattr(argument, "__qualname__", "") == "epoll.poll":
                self._finish()
        elif event == "call" and frame.f_code.co_filename.startswith(_PACKAGE):
            self._called(frame)

    def _called(self, frame: FrameType) -> None:
        module = frame.f_code.co_filename.removeprefix(_PACKAGE).removesuffix(".py")
        name = frame.f_code.co_qualname
        self._wake.functions[f"{module}:{name}"] += 1
        self._wake.moves += module != self._module
        self._module = module
        if frame.f_code.co_name in _LOOKS:
            self._wake.looks.append([])
        elif name == "Route.exchange":
            request, ifindex = frame.f_locals["request"], frame.f_locals["ifindex"]
            self._wake.looks[-1].append(f"{request.hex()}/{ifindex}")

    def _finish(self) -> None:
        if self._wake.functions:
            self._report.write(json.dumps(vars(self._wake)) + "\n")
        self._wake, self._module = Wake(), ""


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["--daemon"]:
        return _daemon(Path(arguments[1]), arguments[2:])
    if os.geteuid() != 0:
        print("this makes network namespaces: run it as root", file=sys.stderr)
        return 1
    sweep()
    with Lab() as lab:
        for line in _lines(_rewire(lab)):
            print(line)
    return 0


def _daemon(report: Path, arguments: Sequence[str]) -> int:
    from xconnectd.cli.main import main as begin

    sys.setprofile(Tracer(report))
    return begin(arguments)


class _Traced(Daemon):
    @property
    def report(self) -> Path:
        return self.lab.directory / "wakes.jsonl"

    def _command(self, *args: str) -> list[str]:
        command = super()._command(*args)
        if args[0] == "run":
            at = command.index("xconnectd")
            command[at : at + 1] = [__spec__.name, "--daemon", str(self.report)]
        return command

    def wakes(self) -> list[dict[str, Any]]:
        whole = self.report.read_text().rpartition("\n")[0]  # a line may be half written
        return [json.loads(line) for line in whole.splitlines()]


def _rewire(lab: Lab) -> list[dict[str, Any]]:
    """The wakes of one rewire between ends that are up, in a daemon that has done it before.

    One in which the second's tick or a sign of life came due as well would count that, too: then
    the next one is it. SystemExit where that happens again and again.
    """
    for name in ("va", "vb", "vc"):
        lab.veth(name)
    daemon = _Traced(lab, {"va": "vb"}).start()
    targets = cycle(("vc", "vb"))
    for target in islice(targets, _WARM):
        _write(daemon, target)
    ticks = _ticks(daemon)
    for target in islice(targets, _TRIES):
        daemon.idle(_QUIET)
        _await_tick(daemon)  # the next one is a second away
        before = len(daemon.wakes())
        _write(daemon, target)
        daemon.idle(_QUIET)
        wakes = [wake for wake in daemon.wakes()[before:] if wake["functions"].keys() - ticks]
        due = [wake for wake in wakes if {_TICK, _SIGN_OF_LIFE} & wake["functions"].keys()]
        if not due:
            daemon.stop()
            return wakes
    raise SystemExit(
        f"none of {_TRIES} rewires was over before the daemon's next tick (each second): the"
        f" machine is too busy (load {os.getloadavg()[0]:.1f}). Run it again when it is idle."
    )


def _write(daemon: _Traced, target: str) -> None:
    since = daemon.mark()
    daemon.write({"va": target})
    daemon.wait_link("rewired", "va", target, since=since)


def _ticks(daemon: _Traced) -> set[str]:
    """The functions that the daemon calls in any tick, also in the first one after a rewire."""
    seen = len(daemon.wakes())

    def ticks() -> list[set[str]]:
        functions = [{*wake["functions"]} for wake in daemon.wakes()[seen:]]
        return [each for each in functions if _TICK in each and _READ not in each]

    poll(lambda: len(ticks()) >= 3, what="three ticks")
    return set().union(*ticks())


def _await_tick(daemon: _Traced) -> None:
    seen = len(daemon.wakes())
    poll(lambda: len(daemon.wakes()) > seen, what="a tick")


def _lines(wakes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for number, wake in enumerate(wakes, 1):
        yield f"wake {number}: {'the file' if number == 1 else 'news of the kernel'}"
        yield from _figures(Counter(wake["functions"]), wake["moves"], wake["looks"])
    functions: Counter[str] = Counter()
    for wake in wakes:
        functions.update(wake["functions"])
    yield "in all"
    moves = sum(wake["moves"] for wake in wakes)
    yield from _figures(functions, moves, [look for wake in wakes for look in wake["looks"]])
    yield "most called"
    yield from (f"{count:8}  {name}" for name, count in functions.most_common(25))


def _figures(functions: Counter[str], moves: int, looks: Sequence[Sequence[str]]) -> Iterator[str]:
    requests = [request for look in looks for request in look]
    modules = {name.partition(":")[0] for name in functions}
    yield f"{functions.total():8}  calls"
    yield f"{len(functions):8}  distinct functions"
    yield f"{len(modules):8}  modules"
    yield f"{moves:8}  moves between modules"
    asked = [str(questions) for look in looks if (questions := sum(map(_asks, look)))]
    yield f"{len(requests):8}  netlink requests"
    yield f"{' + '.join(asked):>8}  of them asked by one look after the other"
    yield f"{len(requests) - len(set(requests)):8}  of them repeated"
    yield f"{sum(len(look) - len(set(look)) for look in looks):8}  of them repeated within one look"


def _asks(request: str) -> bool:
    """Of rtnetlink's four kinds of message (new, delete, get, set) by the last bits of its type."""
    kind: int = struct.unpack_from("=H", bytes.fromhex(request.partition("/")[0]), 4)[0]
    return kind % 4 == 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
