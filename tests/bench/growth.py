"""What becomes of each cost as the number of links grows, with its exponent.

All ends' other sides are in a few namespaces, which costs the daemon what as many namespaces would.
The host speaks no IPv6 of its own accord on the ends: where it does, the kernel walks through all
routes of the host for each setting of each end, and that walk is all that could be seen here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from tests.netns.lab import Lab, run
from tests.netns.service import Daemon, document, paired

from .life import processor, ready
from .rounds import Effort, Series

_PER_NAMESPACE = 1000
_PATIENCE = 600.0
"""Seconds for a start or an end."""
_REWIRES = 5
_IDLE = 20.0


def growth(effort: Effort) -> list[Series]:
    """The exponents are of the last two sizes: doubling the links multiplies a cost by 2^x."""
    sizes = effort.grown
    costs = {size: _costs(size) for size in sizes}
    series = []
    for cost in costs[sizes[0]]:
        values = {f"{size:,} links": [costs[size][cost]] for size in sizes}
        title, unit = cost
        series.append(Series(f"{title}{_exponent(sizes, values)}", unit, values))
    return series


def _exponent(sizes: Sequence[int], values: dict[str, list[float]]) -> str:
    (before,), (after,) = [*values.values()][-2:]
    if min(before, after) <= 0:
        return ""
    exponent = math.log(after / before) / math.log(sizes[-1] / sizes[-2])
    return f" (grows by n^{exponent:.2f})"


def _costs(links: int) -> dict[tuple[str, str], float]:
    with Lab() as lab:
        lab.hush()
        with _grown(lab, links) as pairs:
            return dict(_lived(Daemon(lab, pairs), pairs))


@contextmanager
def _grown(lab: Lab, links: int) -> Iterator[dict[str, str]]:
    """Pairs of veths; all go at once, as each by itself waits for the kernel's readers."""
    names = [f"v{n}" for n in range(2 * links)]
    for start in range(0, len(names), _PER_NAMESPACE):
        inner = lab.namespace(f"c{start // _PER_NAMESPACE}", quiet=True)
        some = names[start : start + _PER_NAMESPACE]
        peer = f"netns {lab.host}"
        lines = [f"link add {x} up type veth peer name {x} {peer}" for x in some]
        run("ip", "-batch", "-", namespace=inner, text="\n".join(lines))
    lab.batch(f"link set {x} up" for x in names)
    try:
        yield paired(names)
    finally:
        lab.batch(f"link set dev {x} group 77" for x in names)
        lab.ip("link", "delete", "group", "77")


def _lived(daemon: Daemon, pairs: dict[str, str]) -> Iterator[tuple[tuple[str, str], float]]:
    yield ("Up from nothing", "ms"), ready(daemon, _PATIENCE)
    daemon.idle(2, _PATIENCE)
    yield ("Memory after a start from nothing", "MiB"), daemon.rss() / (1 << 20)
    daemon.kill()
    yield ("Adopted", "ms"), ready(daemon, _PATIENCE)
    daemon.idle(2, _PATIENCE)
    yield ("Memory after a start that adopts", "MiB"), daemon.rss() / (1 << 20)
    yield ("A rewire, from the write to the event", "ms"), _rewired(daemon, pairs)
    before, begin = processor(daemon), time.monotonic()
    time.sleep(_IDLE)
    took = time.monotonic() - begin
    yield ("Idle", "% of one CPU"), 100 * (processor(daemon) - before) / took
    begin = time.monotonic()
    told = daemon.cli("status", timeout=_PATIENCE)
    assert told.returncode == 0, told.stderr
    yield ("`status`", "ms"), (time.monotonic() - begin) * 1e3
    begin = time.monotonic()
    daemon.stop(_PATIENCE)
    yield ("Down", "ms"), (time.monotonic() - begin) * 1e3


def _rewired(daemon: Daemon, pairs: dict[str, str]) -> float:
    """The quickest of some, in which two links exchange an end."""
    took = []
    (a, b), (c, d) = [*pairs.items()][:2]
    for _ in range(_REWIRES):
        b, d = d, b
        text, since, begin = document({**pairs, a: b, c: d}), daemon.mark(), time.time()
        daemon.write(text)
        event = daemon.wait_event("link.rewired", since=since)
        took.append((datetime.fromisoformat(event["timestamp"]).timestamp() - begin) * 1e3)
        time.sleep(0.3)
    return min(took)
