"""How soon a node that starts anew is wired again, and a fabric of nodes from nothing but a file.

A node that starts is a namespace that gets its name. It is wired when its neighbour has a carrier
again. By hand that is two calls of ``ip``, which make a veth between the two.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Final

from tests.netns import fabric
from tests.netns.lab import Lab, Station, run
from tests.netns.service import Daemon

from .carrier import carrier_news, late, wait_for_carrier
from .rounds import Effort, Series, interleave

_NEIGHBOURS: Final = {"leaf1:eth1": "leaf2:eth1"}
_OTHERS: Final = {f"leaf{n}:eth1": f"spine:eth{n}" for n in range(3, 40)}
_PAUSE: Final = 0.1
"""Seconds in which the kernel clears away what was in the old namespace."""


def restarts(effort: Effort) -> list[Series]:
    """Milliseconds from a node's start to the carrier of its neighbour, beside a veth by hand."""
    links = _NEIGHBOURS | _OTHERS
    with Lab() as lab:
        lab.hush()
        names = fabric.make_nodes(lab, links)
        Daemon(lab, fabric.document(lab, links)).start().idle(1)
        one, other = (lab.namespace(name, quiet=True) for name in ("one", "other"))
        _plug(one, other)
        nodes: dict[str, tuple[str, str, Callable[[], object]]] = {
            "xconnectd": (names["leaf1"], names["leaf2"], lambda: None),
            "by hand, with ip": (one, other, lambda: _plug(one, other)),
        }
        figures = interleave(
            list(nodes), effort.rounds, lambda name, _: _started(*nodes[name], effort.changes)
        )
    title = f"of {effort.changes} times from a node's start to the carrier of its neighbour"
    return [Series(f"{part} {title}", "ms", values) for part, values in figures.items()]


def _plug(one: str, other: str) -> None:
    veth = f"link add eth1 up type veth peer eth1 netns {other}"
    run("ip", "-batch", "-", namespace=one, text=f"{veth}\n")
    run("ip", "link", "set", "eth1", "up", namespace=other)


def _started(node: str, neighbour: str, plug: Callable[[], object], count: int) -> dict[str, float]:
    took = []
    with carrier_news(Station(neighbour, "")) as news:
        for _ in range(count):
            fabric.stop(node)
            wait_for_carrier(news, carrier=False)
            time.sleep(_PAUSE)
            begin = time.monotonic()
            fabric.start(node)
            plug()
            wait_for_carrier(news, carrier=True)
            took.append(1e3 * (time.monotonic() - begin))
    return {"Median": statistics.median(took), "99th percentile": late(took)}


def forty(effort: Effort) -> list[Series]:
    """Seconds from the start of a daemon to 150 links in 40 nodes, and to stop it."""
    links = fabric.spine_leaf()
    with Lab() as lab:
        lab.hush()
        fabric.make_nodes(lab, links)
        lives = [_lived(Daemon(lab, fabric.document(lab, links))) for _ in range(effort.starts)]
    values = {name: [each[name] for each in lives] for name in lives[0]}
    return [Series(f"A fabric of 40 nodes with {len(links)} links", "s", values)]


def _lived(daemon: Daemon) -> dict[str, float]:
    begin = time.monotonic()
    assert daemon.spawn().cli("wait").returncode == 0
    made = time.monotonic()
    daemon.stop()
    return {
        "from its start to the end of xconnectd wait": made - begin,
        "to the end of the daemon": time.monotonic() - made,
    }
