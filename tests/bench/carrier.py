"""How soon a container sees that the other's end is down, or up; and an end that never rests.

``python -m tests.bench.carrier NAMESPACE RATE`` sets eth0 there down and up, RATE times a second if
the kernel lets it, until its stdin is closed.
"""

from __future__ import annotations

import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from subprocess import PIPE
from typing import Final

from tests.netns.carrier import Card, unlike_numbers
from tests.netns.lab import REPO, Lab, Station, inside, run
from tests.netns.service import Daemon
from tests.netns.test_scale import grow

from .life import processor
from .pacer import is_wanted, pacing, precise_sleep
from .rounds import Effort, Series, interleave
from .wires import received

LINKS: Final = 200
RATE: Final = 10_000
"""Changes a second of the end that flaps."""

_RTMGRP_LINK: Final = 1
_IFF_LOWER_UP: Final = 1 << 16
_MESSAGE: Final = struct.Struct("=IHHII BxHiII")  # struct nlmsghdr, struct ifinfomsg
_TURNS: Final = 10
"""Wires that are measured in turn; the others are only there."""
_PAUSE: Final = 0.01
"""Seconds between two changes, so that who waits for them sleeps again."""
_QUIET: Final = 0.5
"""Seconds without a change of the carrier after which there comes none."""
_OURS: Final = "xconnectd"
_PLAIN: Final = "a plain veth pair"


def carrier(effort: Effort) -> list[Series]:
    """Milliseconds from the change of one container's end to the news in the other."""
    with Lab() as lab:
        lab.hush()
        ours = [(_container(lab, f"a{n}"), _container(lab, f"b{n}")) for n in range(_TURNS)]
        wires = {a.end: b.end for a, b in ours} | grow(lab, LINKS - _TURNS)[1]
        Daemon(lab, wires).start(120).idle(2)
        pairs = {_OURS: ours, _PLAIN: [_plain(lab, n) for n in range(_TURNS)]}
        figures = interleave(
            list(pairs), effort.rounds, lambda name, _: _changes(pairs[name], effort.changes)
        )
    title = f"of {effort.changes} times from a far end's change to the other container's news"
    return [
        Series(f"{part} {title}", "ms", _by_way(figures, part))
        for part in ("Median", "99th percentile")
    ]


def _container(lab: Lab, end: str) -> Station:
    return lab.veth(end, index=next(unlike_numbers))


def _by_way(figures: dict[str, dict[str, list[float]]], part: str) -> dict[str, list[float]]:
    return {
        f"{name}, {way}": figures[f"{part} {way}"][name]
        for name in (_OURS, _PLAIN)
        for way in ("down", "up")
    }


def _plain(lab: Lab, number: int = 0) -> tuple[Station, Station]:
    """Two containers with a cable and nothing between them."""
    one, other = (lab.namespace(f"plain{number}{x}", quiet=True) for x in "ab")
    index = str(next(unlike_numbers))
    here = ("ip", "link", "add", "eth0", "index", index, "type", "veth", "peer", "name", "eth0")
    run(*here, "netns", other, namespace=one)
    for namespace in (one, other):
        run("ip", "link", "set", "eth0", "up", namespace=namespace)
    return Station(one, ""), Station(other, "")


def _changes(pairs: Sequence[tuple[Station, Station]], count: int) -> dict[str, float]:
    """The pairs take turns: of an end that changes too often in a row not all is told at once."""
    took: dict[bool, list[float]] = {False: [], True: []}
    with ExitStack() as opened:
        fars = [opened.enter_context(closing(Card(a.namespace, "eth0"))) for a, _ in pairs]
        news = [opened.enter_context(carrier_news(b)) for _, b in pairs]
        for turn in range(2 * count):
            up = bool(turn // len(pairs) % 2)
            time.sleep(_PAUSE)
            begin = time.monotonic()
            fars[turn % len(pairs)].set(up=up)
            wait_for_carrier(news[turn % len(pairs)], carrier=up)
            took[up].append(1e3 * (time.monotonic() - begin))
    return {
        f"{part} {'up' if up else 'down'}": value
        for up, values in took.items()
        for part, value in (
            ("Median", statistics.median(values)),
            ("99th percentile", late(values)),
        )
    }


def late(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * 99 // 100)]


@contextmanager
def carrier_news(station: Station) -> Iterator[socket.socket]:
    """What the kernel tells of the container's interfaces from now on."""

    def listen() -> socket.socket:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        opened.bind((0, _RTMGRP_LINK))
        return opened

    with inside(station.namespace, listen) as news:
        news.settimeout(20)
        yield news


def wait_for_carrier(news: socket.socket, carrier: bool) -> None:
    """Each datagram is one message here: events are not put together."""
    while True:
        flags = _MESSAGE.unpack_from(news.recv(65536))[8]
        if bool(flags & _IFF_LOWER_UP) == carrier:
            return


# ---------------------------------------------------------------------- an end that flaps


def flaps(effort: Effort) -> list[Series]:
    """What a far end that flaps all the time costs the others."""
    with Lab() as lab:
        lab.hush()
        a, b, c, d = (_container(lab, f"v{x}") for x in "abcd")
        daemon = Daemon(lab, {"va": "vb", "vc": "vd"} | grow(lab, LINKS - 2)[1]).start(120)
        daemon.idle(2)
        contenders = {
            _OURS: partial(flapping, daemon, (a, b), (c, d), effort.storm),
            _PLAIN: partial(_storm, *_plain(lab), effort.storm),
        }
        figures = interleave(list(contenders), effort.rounds, lambda name, _: contenders[name]())
    title = f"Changes of a far end that is to be set down and up {RATE:,} times a second"
    return [
        Series(title, "1/s", figures["rate"], more_is_better=True),
        Series("Frames that another link loses while a far end flaps", "frames", figures["lost"]),
        Series(
            "Processor time of the daemon while a far end flaps", "% of a CPU", figures["share"]
        ),
        Series("From the last such change to the carrier that stays", "ms", figures["rest"]),
    ]


def flapping(
    daemon: Daemon,
    pair: tuple[Station, Station],
    others: tuple[Station, Station],
    seconds: float,
    rate: int = RATE,
) -> dict[str, float]:
    """The first far end of ``pair`` changes ``rate`` times a second.

    ``rate`` is how often it did, ``share`` the daemon's per cent of a CPU meanwhile, ``lost`` how
    many of the frames (10,000 a second) that the link of ``others`` did not pass on.
    """
    before = received(others[1])
    with pacing((others[0],)) as pacer:
        figures = _storm(*pair, seconds, daemon, rate)
        sent = pacer.stop()
    return figures | {"lost": sent - (received(others[1]) - before)}


def _storm(
    a: Station, b: Station, seconds: float, daemon: Daemon | None = None, rate: int = RATE
) -> dict[str, float]:
    """``rest``: milliseconds from the last change of ``a`` to the last wrong carrier of ``b``."""
    command = [sys.executable, "-m", "tests.bench.carrier", a.namespace, str(rate)]
    with (
        closing(Card(a.namespace, "eth0")) as far,
        closing(Card(b.namespace, "eth0")) as near,
        subprocess.Popen(command, cwd=REPO, stdin=PIPE, stdout=PIPE) as process,
    ):
        time.sleep(1)  # it has started
        used, begin = processor(daemon) if daemon else 0, time.monotonic()
        time.sleep(seconds)
        share = (processor(daemon) - used) / (time.monotonic() - begin) if daemon else 0
        seen, last = map(float, process.communicate(timeout=60)[0].split())
        wrong = last
        while (now := time.monotonic()) - wrong < _QUIET:
            wrong = wrong if near.carrier == far.up else now
            time.sleep(0.0005)
        far.set(up=True)
        while not near.carrier:
            time.sleep(0.001)
    figures = {"rate": seen, "rest": 1e3 * (wrong - last)}
    return figures | ({"share": 100 * share} if daemon else {})


def main(namespace: str, rate: str) -> None:
    """It prints the changes a second, and when the last one was by the monotonic clock."""
    precise_sleep()
    with closing(Card(namespace, "eth0")) as card:
        begin = time.monotonic()
        count = 0
        while is_wanted():
            card.set(up=bool(count % 2))
            count += 1
            time.sleep(max(0.0, begin + count / float(rate) - time.monotonic()))
        end = time.monotonic()
    sys.stdout.write(f"{count / (end - begin)} {end}")


if __name__ == "__main__":
    main(*sys.argv[1:])
