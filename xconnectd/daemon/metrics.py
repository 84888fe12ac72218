"""The document of ``status`` in the words of Prometheus, and as the answer to a request for it.

Sole importer of prometheus_client. It opens no socket and reads nothing of the kernel: all that
it tells stands in the document. To be imported by a daemon that serves metrics and by nobody else:
it takes 30 ms and 2.5 MB, most of it for Python's own HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    make_wsgi_app,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder

from xconnectd import __version__
from xconnectd.formatting import printable
from xconnectd.model import State
from xconnectd.status.document import Config, Daemon, Link, Peer, StatusDocument

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication


def application(look: Callable[[], StatusDocument]) -> WSGIApplication:
    """What answers requests over HTTP, in any thread, each from a document of its own.

    What ``look`` raises goes through to the caller.
    """
    registry = CollectorRegistry(support_collectors_without_names=True)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(_Families(look))
    answer: WSGIApplication = make_wsgi_app(registry)
    return answer


class _Families:
    def __init__(self, look: Callable[[], StatusDocument]) -> None:
        self._look = look

    def collect(self) -> Iterable[Metric]:
        """What the library calls for all that is ours."""
        return families(self._look())


def is_understood(accept: str) -> bool:
    """Whether the library can choose a format by this Accept header; it fails over odd versions."""
    try:
        choose_encoder(accept)
    except Exception:  # noqa: BLE001 (what it raises is nowhere said)
        return False
    return True


# --------------------------------------------------------------------------- what is told


def families(told: StatusDocument) -> Iterator[Metric]:
    """Every metric of ours with its samples."""
    links = [*map(_legible, told.links)]
    yield _states(links)
    yield _facts(links)
    yield from _traffic(links)
    yield _drops(links)
    yield from _passed(links)
    yield from _interfaces(links)
    yield from _tunnels([(link, link.peer) for link in links if link.peer])
    yield from _config(told.config, told.daemon)
    yield from _doings(told.daemon)
    yield InfoMetricFamily("xconnectd_build", "The program.", {"version": __version__})


def _legible(link: Link) -> Link:
    """With names as they are told: an interface's may be no UTF-8, which the library cannot write.

    They are the kernel's where there is no good file.
    """
    a, b = (end._replace(name=printable(end.name)) for end in (link.a, link.b))
    return link._replace(link=printable(link.link), a=a, b=b)


def _states(links: Iterable[Link]) -> Metric:
    labels = ("link", "a", "b", "state")
    family = GaugeMetricFamily(
        "xconnectd_link_state", "1 for the state that a link is in.", None, labels
    )
    for link in links:
        names = (link.link, link.a.name, link.b.name)
        for state in State:
            family.add_metric((*names, state.value), float(link.state is state))
    return family


def _facts(links: Iterable[Link]) -> Metric:
    """What may change while a link stays the same: a series of its own, to be joined by ``link``.

    The file's labels are ``label_NAME``, with ``_`` for what a name of Prometheus may not hold.
    """
    family = InfoMetricFamily(
        "xconnectd_link", "A link's mode, description and labels.", None, ("link",)
    )
    for link in links:
        own = {f"label_{re.sub(r'[^a-zA-Z0-9_]', '_', key)}": v for key, v in link.labels.items()}
        family.add_metric((link.link,), {"mode": link.mode, "description": link.description, **own})
    return family


def _traffic(links: Iterable[Link]) -> Iterator[Metric]:
    labels = ("link", "ingress", "egress")
    frames = CounterMetricFamily("xconnectd_frames", "Frames that crossed.", None, labels)
    size = CounterMetricFamily("xconnectd_bytes", "Bytes of the frames that crossed.", None, labels)
    for link in links:
        for here, there in link.ways:
            way = (link.link, here.name, there.name)
            frames.add_metric(way, here.frames)
            size.add_metric(way, here.bytes)
    yield frames
    yield size


def _drops(links: Iterable[Link]) -> Metric:
    """Whatever reasons the document has; no sample is made up for one that it does not know."""
    family = CounterMetricFamily(
        "xconnectd_dropped_frames",
        "Dropped frames by ingress interface (host_egress: by egress interface).",
        None,
        ("link", "interface", "reason"),
    )
    for link in links:
        for end in link.ends:
            for reason, count in end.dropped.items():
                family.add_metric((link.link, end.name, reason), count)
    return family


def _passed(links: Iterable[Link]) -> Iterator[Metric]:
    """Nothing where nobody can tell."""
    family = CounterMetricFamily(
        "xconnectd_passed_to_host_frames",
        "Frames that bypassed all hooks and were dropped at the host's IP stack; should be 0.",
        None,
        ("link", "interface"),
    )
    for link in links:
        for end in link.ends:
            if end.passed_to_host is not None:
                family.add_metric((link.link, end.name), end.passed_to_host)
    if family.samples:
        yield family


def _interfaces(links: Iterable[Link]) -> Iterator[Metric]:
    labels = ("link", "interface")
    up = GaugeMetricFamily("xconnectd_interface_up", "1 if administratively up.", None, labels)
    carrier = GaugeMetricFamily("xconnectd_interface_carrier", "1 with a carrier.", None, labels)
    shown = GaugeMetricFamily(
        "xconnectd_interface_carrier_shown",
        "1 if what is behind it is shown a carrier; none of an end where the link has no say.",
        None,
        labels,
    )
    for link in links:
        for end in link.ends:
            if end.ifindex is not None:
                up.add_metric((link.link, end.name), end.up)
                carrier.add_metric((link.link, end.name), end.carrier)
            if end.shows_carrier is not None:
                shown.add_metric((link.link, end.name), end.shows_carrier)
    yield up
    yield carrier
    yield shown


def _tunnels(peers: Sequence[tuple[Link, Peer]]) -> Iterator[Metric]:
    """Nothing for a file without tunnels, and of what was not heard yet no sample."""
    if not peers:
        return
    labels = ("link", "host")
    info = InfoMetricFamily(
        "xconnectd_tunnel", "Where a link's tunnel leads, and the link's state there.", None, labels
    )
    for link, peer in peers:
        facts = {"address": peer.address, "vni": str(peer.vni), "port": str(peer.port)}
        told = {"device": printable(peer.device), "state": printable(peer.state)}
        info.add_metric((link.link, peer.host), facts | told)
    yield info
    for name, text, value in _OF_TUNNELS:
        kind = CounterMetricFamily if name.endswith("frames") else GaugeMetricFamily
        family = kind(f"xconnectd_tunnel_{name}", text, None, labels)
        for link, peer in peers:
            if (known := value(peer)) is not None:
                family.add_metric((link.link, peer.host), known)
        yield family


def _in_seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


_OF_TUNNELS: Final[Sequence[tuple[str, str, Callable[[Peer], float | None]]]] = (
    ("up", "1 if frames come back and the other host wants the same link.", lambda x: x.alive),
    (
        "peer_offers",
        "1 if what is behind the other host's end is alive.",
        lambda x: None if x.last_heard_age_s is None else x.offers,
    ),
    ("mtu_bytes", "Longest payload that crosses in one packet.", lambda x: x.mtu),
    ("round_trip_seconds", "There and back.", lambda x: _in_seconds(x.round_trip_ms)),
    ("last_heard_seconds", "Since the other daemon was heard last.", lambda x: x.last_heard_age_s),
    ("peer_frames", "Frames that the other host handed on.", lambda x: x.frames),
    ("peer_dropped_frames", "Frames that the other host dropped.", lambda x: x.dropped),
    ("sent_keepalive_frames", "Keepalives sent.", lambda x: x.keepalives.sent),
    ("echoed_keepalive_frames", "Keepalives that came back.", lambda x: x.keepalives.echoed),
    ("received_keepalive_frames", "The other daemon's.", lambda x: x.keepalives.received),
    (
        "unverified_keepalive_frames",
        "Keepalives of another key, or of none.",
        lambda x: x.keepalives.unverified,
    ),
)
"""Each with its text, and what it is of a peer."""


def _config(config: Config, daemon: Daemon) -> Iterator[Metric]:
    yield InfoMetricFamily(
        "xconnectd_config",
        "The file or directory, the hash of its links, and whether it was accepted.",
        {"hash": config.hash, "path": printable(config.path), "state": config.state},
    )
    yield GaugeMetricFamily(
        "xconnectd_config_last_load_success",
        "1 if the files are loaded as they are now, 0 if one is refused or missing.",
        float(config.state == "loaded"),
    )
    if daemon.last_load is not None:
        yield GaugeMetricFamily(
            "xconnectd_config_last_load_timestamp_seconds",
            "Time of the last successful load.",
            daemon.last_load,
        )


def _doings(daemon: Daemon) -> Iterator[Metric]:
    passes = HistogramMetricFamily(
        "xconnectd_reconcile_duration_seconds",
        "Duration of passes over links.",
    )
    told = daemon.passes
    passes.add_metric((), [*told.le_s.items(), ("+Inf", told.total)], told.sum_s)
    yield passes
    yield CounterMetricFamily(
        "xconnectd_drift_repairs",
        "Repairs of links after something else had changed them.",
        daemon.repairs,
    )
    starts = CounterMetricFamily(
        "xconnectd_starts",
        "Starts since the last detach, by whether programs were loaded or adopted.",
        None,
        ("programs",),
    )
    for programs, count in daemon.starts.items():
        starts.add_metric((programs,), count)
    yield starts
