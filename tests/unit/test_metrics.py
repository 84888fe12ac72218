"""Metrics as Prometheus reads them, from reports as ``status`` makes them."""

from __future__ import annotations

import gzip
import re
import socket
from pathlib import Path

import pytest
from builders import crossing_report, end_report, link, link_report, status
from builders import report as document_report
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from xconnectd.config.source import FileState, Reading
from xconnectd.daemon.metrics_server import MetricsServer
from xconnectd.formatting import printable
from xconnectd.model import Counters, End, State, Wiring
from xconnectd.reconcile.pass_stats import BOUNDS, Tally
from xconnectd.status import builder, document
from xconnectd.status.document import StatusDocument

Labels = dict[str, str]


LABELS = (("lab", "demo"), ("clab-node.name", "leaf1"))
LINKS = (
    status(a="va", b="vb", numbers=(1, 2))._replace(
        link=link("va", "vb", description="the uplink", labels=LABELS)
    ),
    status(State.WAITING, "vc", "vd", numbers=(None, 4))._replace(b=End("vd", ifindex=4, up=True)),
    status(a="lo", b="lo", numbers=(5, 5)),
)
COUNTERS = {1: Counters(10, 640, 1, 2), 2: Counters(20, 3000), 5: Counters(7, 70, 3)}


def report(*, state: str = "loaded", last_load: float | None = 1234.5) -> StatusDocument:
    tally = Tally(repairs=4)
    for seconds in (0.0005, 0.001, 0.004, 9.0):
        tally.passed(seconds)
    path = Path('/etc/"x"\\.yaml')
    told = builder.without_links(
        document.Daemon(
            last_load=last_load,
            repairs=tally.repairs,
            passes=document.Passes(tally.count, tally.seconds, tally.at_most()),
            starts={"loaded": 1, "adopted": 2},
        ),
        Reading(Wiring(text=b"links: {}"), (FileState(path, state),)),
        path,
        moved_netns=(),
    )
    return told._replace(links=tuple(builder.links(LINKS, COUNTERS)))


def ask(
    path: str = "/metrics", method: str = "GET", told: StatusDocument | None = None, **headers: str
) -> tuple[str, Labels, bytes]:
    """Status line, headers and body of one answer, over a real socket."""
    return served(told or report(), raw(path, method, **headers))


def raw(path: str = "/metrics", method: str = "GET", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def served(
    told: StatusDocument, request: bytes, troubles: list[str] | None = None
) -> tuple[str, Labels, bytes]:
    heard: list[str] = [] if troubles is None else troubles
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    server = MetricsServer(listener, lambda: told, lambda kind, _: heard.append(kind))
    try:
        with socket.create_connection(address, 60) as client:
            client.sendall(request)
            with client.makefile("rb") as answer:
                head, _, body = answer.read().partition(b"\r\n\r\n")
    finally:
        server.stop()
    first, *rest = head.decode().split("\r\n")
    return first, dict(line.split(": ", 1) for line in rest), body


def families(text: bytes) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text.decode())}


# But for the buckets of reconcile_duration_seconds.
SCRAPED = """\
bytes_total{egress="lo",ingress="lo",link="lo:lo"} 70
bytes_total{egress="va",ingress="vb",link="va:vb"} 3000
bytes_total{egress="vb",ingress="va",link="va:vb"} 640
bytes_total{egress="vc",ingress="vd",link="vc:vd"} 0
bytes_total{egress="vd",ingress="vc",link="vc:vd"} 0
config_info{hash="cd1147389e14",path="/etc/\\"x\\"\\\\.yaml",state="loaded"} 1
config_last_load_success 1
config_last_load_timestamp_seconds 1234.5
drift_repairs_total 4
dropped_frames_total{interface="lo",link="lo:lo",reason="no_entry"} 3
dropped_frames_total{interface="va",link="va:vb",reason="host_egress"} 2
dropped_frames_total{interface="va",link="va:vb",reason="no_entry"} 1
frames_total{egress="lo",ingress="lo",link="lo:lo"} 7
frames_total{egress="va",ingress="vb",link="va:vb"} 20
frames_total{egress="vb",ingress="va",link="va:vb"} 10
frames_total{egress="vc",ingress="vd",link="vc:vd"} 0
frames_total{egress="vd",ingress="vc",link="vc:vd"} 0
interface_carrier{interface="lo",link="lo:lo"} 1
interface_carrier{interface="va",link="va:vb"} 1
interface_carrier{interface="vb",link="va:vb"} 1
interface_carrier{interface="vd",link="vc:vd"} 0
interface_up{interface="lo",link="lo:lo"} 1
interface_up{interface="va",link="va:vb"} 1
interface_up{interface="vb",link="va:vb"} 1
interface_up{interface="vd",link="vc:vd"} 1
link_info{description="",link="lo:lo",mode="generic"} 1
link_info{description="",link="vc:vd",mode="generic"} 1
link_info{description="the uplink",label_clab_node_name="leaf1",label_lab="demo",link="va:vb",\
mode="generic"} 1
link_state{a="lo",b="lo",link="lo:lo",state="connected"} 1
link_state{a="va",b="vb",link="va:vb",state="connected"} 1
link_state{a="vc",b="vd",link="vc:vd",state="waiting"} 1
reconcile_duration_seconds_count 4
reconcile_duration_seconds_sum 9.0055
starts_total{programs="adopted"} 2
starts_total{programs="loaded"} 1
"""


def samples(told: StatusDocument) -> set[str]:
    """Ours, in short: without states that a link is not in, and frames that were not dropped."""
    lines = ask(told=told)[2].decode().splitlines()
    ours = {line[10:].removesuffix(".0") for line in lines if line.startswith("xconnectd_")}
    return {each for each in ours if not re.search(r"(state|dropped_frames)\S* 0$", each)}


def test_what_is_scraped() -> None:
    """What may change of a link stands beside its state, so that no series begins anew."""
    found = samples(report())
    buckets = [each for each in found if "_bucket" in each]
    at_most = sorted(int(each.rpartition(" ")[2]) for each in buckets)
    assert at_most == [2, 2, *[3] * (len(BOUNDS) - 2), 4]
    (version,) = (each for each in found if each.startswith("build_info"))
    assert found - {*buckets, version} == set(SCRAPED.splitlines())
    assert ask()[2].count(b"xconnectd_link_state{") == 3 * len(State)


OF_TUNNEL = {"link": "h1/a,h2/leaf:b", "host": "h2"}


def test_a_tunnel_to_another_host() -> None:
    """Without one there is no such family; of what was not heard there is no sample."""

    def told(*links: document.Link) -> dict[str, float]:
        found = families(ask(told=document_report(*links))[2])
        samples = [x for name in found if "tunnel" in name for x in found[name].samples]
        assert all(x.labels.items() >= OF_TUNNEL.items() for x in samples)
        return {x.name.removeprefix("xconnectd_tunnel_"): x.value for x in samples}

    heard = {"dropped": 2, "keepalives": document.Keepalives(9, 8, 7, 6)}
    counted = {
        "sent_keepalive_frames_total": 9.0,
        "echoed_keepalive_frames_total": 8.0,
        "received_keepalive_frames_total": 7.0,
        "unverified_keepalive_frames_total": 6.0,
    }
    assert told(crossing_report(**heard)) == counted | {
        "info": 1.0,
        "up": 1.0,
        "peer_offers": 1.0,
        "mtu_bytes": 1450.0,
        "round_trip_seconds": 0.00031,
        "last_heard_seconds": 0.2,
        "peer_frames_total": 5.0,
        "peer_dropped_frames_total": 2.0,
    }
    unheard = dict.fromkeys(("round_trip_ms", "last_heard_age_s", "frames", "dropped"))
    dead = told(crossing_report(**heard | unheard, alive=False, mtu=None))
    assert dead == counted | {"info": 1.0, "up": 0.0}
    assert told(link_report("a", "b")) == {}


def test_a_refused_file_one_never_loaded_and_a_reason_that_is_new() -> None:
    told = report(state="rejected", last_load=None)
    lost = told.links[0].a._replace(dropped={"mtu_exceeded": 9})
    found = samples(told._replace(links=(told.links[0]._replace(a=lost),)))
    assert "config_last_load_success 0" in found
    assert "config_last_load_timestamp_seconds" not in "".join(found)
    assert 'dropped_frames_total{interface="va",link="va:vb",reason="mtu_exceeded"} 9' in found


def test_no_name_breaks_the_format_or_reaches_a_terminal() -> None:
    """The kernel takes any bytes as the name of an interface, but for white space and a slash."""
    for name in ('x"}1\\', "x\x1b[2J", "x\udcff", "leaf1:x,y{}"):
        told = document_report(link_report(end_report(name), end_report("b")))
        line, _, body = ask(told=told._replace(config=told.config._replace(path=name)))
        labels = families(body)["xconnectd_link_state"].samples[0].labels
        assert (line.split()[1], labels["a"]) == ("200", printable(name))
        assert "\x1b" not in body.decode()


def test_names_follow_the_conventions() -> None:
    found = families(ask()[2])
    for family in found.values():
        assert family.name.startswith(("xconnectd_", "process_", "python_"))
        assert family.documentation
        counters = [x.name for x in family.samples if x.name.endswith("_total")]
        assert bool(counters) == (family.type == "counter"), family
    assert found["xconnectd_reconcile_duration_seconds"].type == "histogram"
    assert found["process_resident_memory_bytes"].samples[0].value > 1 << 20


def test_openmetrics_for_those_who_ask_for_it() -> None:
    _, headers, body = ask(Accept="application/openmetrics-text; version=1.0.0")
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    names = {family.name for family in parse_openmetrics(body.decode())}
    assert {"xconnectd_frames", "xconnectd_link_state"} <= names


def test_http() -> None:
    line, headers, body = ask(**{"Accept-Encoding": "gzip"})
    assert line.split()[1] == "200"
    assert headers["Content-Encoding"] == "gzip"
    assert "xconnectd_frames" in families(gzip.decompress(body))
    only = families(ask("/metrics?name[]=xconnectd_link_state")[2])
    assert "xconnectd_link_state" in only
    assert "process_open_fds" not in only
    assert ask(method="POST")[0].split()[1] == "405"
    assert "400" in served(report(), b"\x00\xff nonsense\r\n\r\n")[0]


def test_head_is_get_without_the_body() -> None:
    line, headers, body = ask(method="HEAD")
    _, as_get, whole = ask()
    assert (line.split()[1], body) == ("200", b"")
    assert headers["Content-Type"] == as_get["Content-Type"]
    assert abs(int(headers["Content-Length"]) - len(whole)) < 100  # of a process that goes on
    assert int(as_get["Content-Length"]) == len(whole)


def test_an_odd_accept_header_is_a_bad_request() -> None:
    for odd in (
        "application/openmetrics-text; version=x",
        "text/plain;version=1..0",
        "text/plain;version=\xb2",
    ):
        troubles: list[str] = []
        line, headers, body = served(report(), raw(Accept=odd), troubles)
        assert line.split()[1] == "400", body
        assert headers["Content-Type"].startswith("text/plain")
        assert troubles == ["accept"]


def test_an_answer_that_fails_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    troubles: list[str] = []
    broken = report()._replace(links=(None,))  # type: ignore[arg-type]
    assert served(broken, raw(), troubles)[0].split()[1] == "500"
    assert troubles == ["AttributeError"]
    assert capfd.readouterr().err == ""
