"""The report of ``status`` in the words of Prometheus, and as the answer to a request for it.

Sole importer of prometheus_client. It opens no socket and reads nothing of the kernel: all that
it tells stands in the report. To be imported by a daemon that serves metrics and by nobody else:
it takes 30 ms and 2.5 MB, most of it for Python's own HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

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
from xconnectd.model import State

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

Report = Mapping[str, Any]
"""What ``status --json`` prints."""


def application(look: Callable[[], Report]) -> WSGIApplication:
    """What answers requests over HTTP, in any thread, each from a report of its own.

    What ``look`` raises goes through to the caller.
    """
    registry = CollectorRegistry(support_collectors_without_names=True)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(_Families(look))
    answer: WSGIApplication = make_wsgi_app(registry)
    return answer


class _Families:
    def __init__(self, look: Callable[[], Report]) -> None:
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


def families(report: Report) -> Iterator[Metric]:
    """Every metric of ours with its samples."""
    links = report["links"]
    yield _states(links)
    yield from _traffic(links)
    yield _drops(links)
    yield from _passed(links)
    yield from _interfaces(links)
    yield from _config(report["config"], report["daemon"])
    yield from _doings(report["daemon"])
    yield InfoMetricFamily("xconnectd_build", "The program.", {"version": __version__})


def _states(links: Iterable[Report]) -> Metric:
    labels = ("link", "a", "b", "mode", "state")
    family = GaugeMetricFamily(
        "xconnectd_link_state", "1 for the state a link is in.", None, labels
    )
    for link in links:
        names = (link["link"], link["a"]["name"], link["b"]["name"], link["mode"])
        for state in State:
            family.add_metric((*names, state.value), float(link["state"] == state))
    return family


def _traffic(links: Iterable[Report]) -> Iterator[Metric]:
    labels = ("link", "ingress", "egress")
    frames = CounterMetricFamily("xconnectd_frames", "Frames that crossed.", None, labels)
    size = CounterMetricFamily("xconnectd_bytes", "Bytes of the frames that crossed.", None, labels)
    for link in links:
        for here, there in _ways(link):
            way = (link["link"], here["name"], there["name"])
            frames.add_metric(way, here["frames"])
            size.add_metric(way, here["bytes"])
    yield frames
    yield size


def _drops(links: Iterable[Report]) -> Metric:
    """Whatever reasons the report has; no sample is made up for one that it does not know."""
    family = CounterMetricFamily(
        "xconnectd_dropped_frames",
        "Frames dropped, by the interface they came in by (host_egress: were to go out of).",
        None,
        ("link", "interface", "reason"),
    )
    for link in links:
        for here, _ in _ways(link):
            for reason, count in here["dropped"].items():
                family.add_metric((link["link"], here["name"], reason), count)
    return family


def _passed(links: Iterable[Report]) -> Iterator[Metric]:
    """Nothing where nobody can tell."""
    family = CounterMetricFamily(
        "xconnectd_passed_to_host_frames",
        "Frames that skipped every hook and were stopped at the host's IP stack: always 0.",
        None,
        ("link", "interface"),
    )
    for link in links:
        for here, _ in _ways(link):
            if here["passed_to_host"] is not None:
                family.add_metric((link["link"], here["name"]), here["passed_to_host"])
    if family.samples:
        yield family


def _interfaces(links: Iterable[Report]) -> Iterator[Metric]:
    labels = ("link", "interface")
    up = GaugeMetricFamily("xconnectd_interface_up", "1 if set up by its admin.", None, labels)
    carrier = GaugeMetricFamily("xconnectd_interface_carrier", "1 with a carrier.", None, labels)
    for link in links:
        for here, _ in _ways(link):
            if here["ifindex"] is not None:
                up.add_metric((link["link"], here["name"]), here["up"])
                carrier.add_metric((link["link"], here["name"]), here["carrier"])
    yield up
    yield carrier


def _ways(link: Report) -> Iterator[tuple[Report, Report]]:
    """Each end with the other one; a loopback plug (``a: a``) has one way only."""
    a, b = link["a"], link["b"]
    yield a, b
    if a["name"] != b["name"]:
        yield b, a


def _config(config: Report, daemon: Report) -> Iterator[Metric]:
    yield InfoMetricFamily(
        "xconnectd_config",
        "The file (or directory), the hash of what is wanted, and whether it was taken.",
        {key: config[key] for key in ("hash", "path", "state")},
    )
    yield GaugeMetricFamily(
        "xconnectd_config_last_load_success",
        "1 if the files are loaded as they are now, 0 if one is refused or missing.",
        float(config["state"] == "loaded"),
    )
    if daemon["last_load"] is not None:
        yield GaugeMetricFamily(
            "xconnectd_config_last_load_timestamp_seconds",
            "When the files were last taken.",
            daemon["last_load"],
        )


def _doings(daemon: Report) -> Iterator[Metric]:
    passes = HistogramMetricFamily(
        "xconnectd_reconcile_duration_seconds",
        "Passes over links by the time they took.",
    )
    told = daemon["passes"]
    buckets = [*told["le_s"].items(), ("+Inf", told["count"])]
    passes.add_metric((), buckets, told["sum_s"])
    yield passes
    yield CounterMetricFamily(
        "xconnectd_drift_repairs", "Links put back after somebody changed them.", daemon["repairs"]
    )
    starts = CounterMetricFamily(
        "xconnectd_starts",
        "Starts since all was last detached, by what became of the programs in the kernel.",
        None,
        ("programs",),
    )
    for programs, count in daemon["starts"].items():
        starts.add_metric((programs,), count)
    yield starts
