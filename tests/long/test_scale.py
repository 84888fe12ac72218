"""A thousand links: what they cost. Bounds are generous; how long things take is for the bench."""

from __future__ import annotations

import resource

from netns.lab import Lab, Station, poll
from netns.service import Daemon
from netns.test_scale import grow
from netns.traffic import wired

LINKS = 1000
BOUND = 60
"""Seconds of a processor: 15 were seen on a busy machine; looking at all for each link would
take a thousand."""


def test_a_thousand_links_come_and_go(lab: Lab) -> None:
    inner, pairs = grow(lab, LINKS)
    running = Daemon(lab, pairs).start(300)
    poll(lambda: len(running.events("link.connected")) == LINKS, interval=0.1)
    spent = running.cpu()
    for a, b in list(pairs.items())[:: LINKS // 10]:
        assert wired(Station(inner, a, interface=a), Station(inner, b, interface=b))
    assert spent < BOUND, f"1,000 links took {spent:.1f} s of a processor to connect"
    assert running.rss() < 80 << 20
    _rewire_one(running, inner, pairs)
    spent = running.cpu()
    ended = _cpu_of_the_ended()
    # Others may hold the kernel's lock of all interfaces, each time it is asked for.
    running.stop(300)
    spent = _cpu_of_the_ended() - ended - spent
    assert spent < BOUND, f"1,000 links took {spent:.1f} s of a processor to detach"
    assert lab.ip("-d link").count("prog/xdp") == 0


def _cpu_of_the_ended() -> float:
    """Seconds of processor time that our children have used in all their lives."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _rewire_one(running: Daemon, inner: str, pairs: dict[str, str]) -> None:
    """One line changes among a thousand: it alone is touched, and soon."""
    running.idle()
    since = running.mark()
    running.write({**pairs, "v0": "v3", "v2": "v1"})
    there = Station(inner, "v3", interface="v3")
    poll(lambda: wired(Station(inner, "v0", interface="v0"), there))
    running.idle()
    touched = {x["link"] for x in running.events(since=since) if x["event"].startswith("link.")}
    assert 2 <= len(touched) <= 4, touched
