"""What becomes of each cost as the number of links grows, beside what the kernel itself takes.

The other sides of all ends but a few are in one namespace, which costs the daemon what as many
namespaces would. The host speaks no IPv6 of its own accord on the ends: where it does, the kernel
walks through all routes of the host for each setting of each end, and that walk is all that could
be seen here (docs/decisions/0026).
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Self

from tests.netns.lab import Lab, poll, run
from tests.netns.service import Daemon

from .bare_links import BareLinks, Spent
from .carrier import flapping
from .life import processor, ready
from .paper import BARE, OURS, number
from .rewire import Link, Site
from .rounds import Effort, Series, among, interleave

_PATIENCE: Final = 600.0
"""Seconds for a start or an end."""
_STILL: Final = 2.0
"""Seconds without a line of the log after which a start has nothing left to do."""
_LIVES: Final = 6000
"""So many links are started in all for one figure, but at least once and ``lives`` times at most:
few links are soon started, and differ from time to time."""
_STATUSES: Final = 3
_CHANGES: Final = 20
"""Of an end that flaps, a second: ten times down and ten times up."""
_FLAPPING: Final = 5.0
_REST: Final = 10.0
"""Seconds after the last work before the daemon counts as idle."""
_GROUP: Final = "77"
_SEARCH: Final = """\
for each clsact that is made the kernel searches a list of all there are on the machine, twice:\
 `find_indir_dev` in net/core/flow_offload.c, docs/decisions/0026"""


class _Cost(NamedTuple):
    title: str
    unit: str
    cause: str = ""
    """Why it grows faster than the links, where that is known."""


_UP: Final = _Cost("up from nothing", "s", _SEARCH)
_UP_PROCESSOR: Final = _Cost("up from nothing, processor time", "s", _SEARCH)
_UP_STEPS: Final = _Cost("bare up, step by step", "s", _SEARCH)
_ADOPTED: Final = _Cost("adopted", "s")
_ADOPTED_PROCESSOR: Final = _Cost("adopted, processor time", "s")
_DOWN: Final = _Cost("down", "s")
_DOWN_PROCESSOR: Final = _Cost("down, processor time", "s")
_DOWN_STEPS: Final = _Cost("bare down, step by step", "s")
_MEMORY: Final = _Cost("memory (VmRSS)", "MiB")
_STATUS: Final = _Cost("`status`", "s")
_STATUS_PROCESSOR: Final = _Cost("the daemon's processor time for a `status`", "s")
_REWIRE: Final = _Cost("a rewire, from the write of the file to the first frame", "ms")
_REWIRE_LOST: Final = _Cost("frames that another link loses during a rewire", "frames")
_FLAPS: Final = _Cost("processor time while an end flaps 10 times a second", "% of a CPU")
_FLAPS_LOST: Final = _Cost("frames that another link loses meanwhile", "frames")
_IDLE: Final = _Cost("idle", "% of a CPU")

_Figure = tuple[_Cost, str, float]
"""What was measured of a contender, or of a part of one."""


def growth(effort: Effort) -> Iterator[Series]:
    """Each series again and again, with more figures: whoever ends it early has what there was."""
    found: dict[_Cost, dict[str, list[float]]] = {}
    for count, links in enumerate(effort.grown, 1):
        _tell(f"making {links:,} links")
        for figures in _figures(links, effort):
            for cost, contender, value in figures:
                names = found.setdefault(cost, {})
                names.setdefault(among(contender, links), []).append(value)
            _tell_figures(figures)
            for cost in {cost: None for cost, *_ in figures}:
                title = f"Growth: {cost.title}"
                sizes = effort.grown[:count]
                yield Series(title, cost.unit, found[cost], sizes=sizes, cause=cost.cause)


def _tell(words: str) -> None:
    print(f"\n  {time.strftime('%X')} {words}", end="", file=sys.stderr, flush=True)


def _tell_figures(figures: Iterable[_Figure]) -> None:
    told: dict[tuple[str, str, str], list[str]] = {}
    for cost, contender, value in figures:
        told.setdefault((cost.title, contender, cost.unit), []).append(number(value))
    for (title, contender, unit), values in told.items():
        _tell(f"{title}: {contender} {' '.join(values)} {unit}")


def _figures(links: int, effort: Effort) -> Iterator[list[_Figure]]:
    """What is compared comes together."""
    lives = max(1, min(effort.lives, _LIVES // links))
    with Lab() as lab, grown(lab, links) as site:
        apart = Link.build(lab, "x", up=True)
        for last in (*(False,) * (lives - 1), True):
            yield from _lived(site, lab, apart, effort if last else None)


@contextmanager
def grown(lab: Lab, links: int, *, ipv6: bool = False) -> Iterator[Site]:
    """Two links between containers of their own, and more, where the host speaks no IPv6.

    With ``ipv6`` it has link-local addresses and their routes on all ends.

    All others go at once in the end: each by itself waits for the kernel's readers. None has the
    number of its other side, as the ends of the two are before them: of such veths the kernel tells
    the carriers of 100 a second at most (net/core/link_watch.c), for minutes.
    """
    if not ipv6:
        lab.hush()
    ours = [Link.build(lab, name, up=True) for name in "ud"]
    inner = lab.namespace("containers", quiet=True)
    names = [f"v{n}" for n in range(2 * (links - len(ours)))]
    peer = f"type veth peer name %s netns {lab.host}"
    try:
        for some in _parts(names):
            lines = [f"link add {x} up {peer % x}" for x in some]
            run("ip", "-batch", "-", namespace=inner, text="\n".join(lines))
            lab.batch(f"link set {x} up group {_GROUP}" for x in some)
        yield Site(ours, dict(zip(names[::2], names[1::2], strict=True)))
    finally:
        lab.ip("link", "delete", "group", _GROUP, check=False)


def _parts(names: list[str], size: int = 1000) -> Iterator[list[str]]:
    for start in range(0, len(names), size):
        yield names[start : start + size]


def _lived(site: Site, lab: Lab, apart: Link, effort: Effort | None) -> Iterator[list[_Figure]]:
    """A start from nothing, a crash, a start that adopts, an end; bare before it.

    With ``effort``, what a daemon does between its start and its end is measured, too. ``apart`` is
    no link of the daemon's.
    """
    _tell(f"made; {BARE}")
    bare = _Bare.lived(site, lab)
    for cost, steps in ((_UP_STEPS, bare.up), (_DOWN_STEPS, bare.down)):
        yield [(cost, step, spent.wall) for step, spent in steps.items()]
    daemon = Daemon(lab, site.text())
    yield _compared(_UP, _UP_PROCESSOR, started(daemon), Spent.total(bare.up.values()))
    settle(daemon)
    yield [(_MEMORY, "up from nothing", mebibytes(daemon))]
    daemon.kill()
    yield _compared(_ADOPTED, _ADOPTED_PROCESSOR, started(daemon), bare.look)
    since = time.monotonic()
    settle(daemon)
    yield [(_MEMORY, "adopted", mebibytes(daemon))]
    if effort:
        yield [*_asked(daemon, bare.count)]
        yield [*_rewired(daemon, site, apart, effort.rewires)]
        yield [*_flapped(daemon, site)]
        yield [*_idled(daemon, since, effort)]
    yield _compared(_DOWN, _DOWN_PROCESSOR, ended(daemon), Spent.total(bare.down.values()))


def _compared(wall: _Cost, processor: _Cost, ours: Spent, bare: Spent) -> list[_Figure]:
    both = ((OURS, ours), (BARE, bare))
    walls = [(wall, contender, spent.wall) for contender, spent in both]
    return walls + [(processor, contender, spent.processor) for contender, spent in both]


def started(daemon: Daemon) -> Spent:
    wall = ready(daemon, _PATIENCE) / 1e3
    return Spent(wall, daemon.cpu())


def ended(daemon: Daemon) -> Spent:
    before, of_others = daemon.cpu(), _processor_of_children()
    process = os.pidfd_open(daemon.pid)  # where a wait with a limit sleeps up to 50 ms
    try:
        begin = time.monotonic()
        daemon.signal(signal.SIGTERM)
        select.select([process], [], [], _PATIENCE)
        wall = time.monotonic() - begin
    finally:
        os.close(process)
    assert daemon.wait() == 0, daemon.text()
    daemon.assert_no_traceback()
    return Spent(wall, _processor_of_children() - of_others - before)


def _processor_of_children() -> float:
    """Seconds, of those that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def settle(daemon: Daemon) -> None:
    """By the size of the log alone: to read that of many links takes a processor."""
    size, since = 0, time.monotonic()

    def still() -> bool:
        nonlocal size, since
        if size != (now := daemon._log.stat().st_size):
            size, since = now, time.monotonic()
        return time.monotonic() - since > _STILL

    poll(still, _PATIENCE, "a quiet log", interval=0.1)


def mebibytes(daemon: Daemon) -> float:
    return daemon.rss() / (1 << 20)


def _asked(daemon: Daemon, bare: Spent) -> Iterator[_Figure]:
    for _ in range(_STATUSES):
        begin, used = time.monotonic(), processor(daemon)
        told = daemon.cli("status", timeout=_PATIENCE)
        assert told.returncode == 0, told.stderr
        yield _STATUS, OURS, time.monotonic() - begin
        yield _STATUS, BARE, bare.wall
        yield _STATUS_PROCESSOR, OURS, processor(daemon) - used


def _rewired(daemon: Daemon, site: Site, apart: Link, rounds: int) -> Iterator[_Figure]:
    """In turns with a bare one: what the kernel takes depends on what was done to it before."""
    ours, bystander = site.links
    with BareLinks.inside(daemon.lab.host) as bare, _bare_wire(bare, apart):
        service = _Rewiring(bare, apart, daemon.lab.directory / "bare" / "links.yaml")
        turns = {
            OURS: partial(site.rewire, daemon, ours, bystander),
            BARE: partial(site.rewire, service, apart, bystander),
        }
        found = interleave([*turns], rounds, lambda name, _: turns[name]())
    for name, times in found["time"].items():
        yield from ((_REWIRE, name, time) for time in times)
    yield from ((_REWIRE_LOST, OURS, lost) for lost in found["lost"][OURS])


def _flapped(daemon: Daemon, site: Site) -> Iterator[_Figure]:
    steady, flapping_one = ((one.kept, one.here) for one in site.links)
    found = flapping(daemon, flapping_one, steady, _FLAPPING, _CHANGES)
    yield _FLAPS, OURS, found["share"]
    yield _FLAPS_LOST, OURS, found["lost"]


def _idled(daemon: Daemon, since: float, effort: Effort) -> Iterator[_Figure]:
    """``since`` is when it was ready."""
    time.sleep(max(min(_REST, effort.settled), since + effort.settled - time.monotonic()))
    used, begin = processor(daemon), time.monotonic()
    time.sleep(effort.settled)
    share = (processor(daemon) - used) / (time.monotonic() - begin)
    yield _IDLE, OURS, 100 * share
    yield _MEMORY, "at rest", mebibytes(daemon)


# ---------------------------------------------------------------------- bare


@dataclass(frozen=True)
class _Bare:
    """What was measured without a daemon."""

    up: Mapping[str, Spent]
    look: Spent
    count: Spent
    down: Mapping[str, Spent]

    @classmethod
    def lived(cls, site: Site, lab: Lab) -> Self:
        with BareLinks.inside(lab.host) as bare:
            pairs = {_index(a): _index(b) for a, b in site.pairs().items()}
            ends = _ends(pairs)
            up = bare.up(ends) | bare.point(pairs)
            return cls(up, bare.look(ends), bare.count(), bare.down(ends))


_index: Final = socket.if_nametoindex


def _ends(pairs: Mapping[int, int]) -> list[int]:
    """In the order in which they were made."""
    return sorted((*pairs, *pairs.values()))


@contextmanager
def _bare_wire(bare: BareLinks, link: Link) -> Iterator[None]:
    """The ends that the link has before and after the block are wired, and unwired after it."""
    kept, here = _index(link.kept.end), _index(link.here.end)
    bare.up([kept, here])
    bare.point({kept: here})
    try:
        yield
    finally:
        bare.down([kept, _index(link.here.end)])


@dataclass(frozen=True)
class _Rewiring:
    """Wires the end that the file now names, and unwires the other; it reads nothing.

    The file is in a directory of its own, where no daemon hears of it.
    """

    bare: BareLinks
    link: Link
    file: Path

    def write(self, wiring: str) -> None:
        self.file.parent.mkdir(exist_ok=True)
        fresh = self.file.with_name(".fresh")
        fresh.write_text(wiring)
        fresh.rename(self.file)
        new, old = _index(self.link.here.end), _index(self.link.there.end)
        self.bare.up([new])
        self.bare.point({_index(self.link.kept.end): new})
        self.bare.down([old])
