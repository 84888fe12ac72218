"""Metrics as Prometheus reads them, from reports as ``status`` makes them."""

from __future__ import annotations

import gzip
import socket
from pathlib import Path

import pytest
from builders import link, status
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families

from xconnectd.config.source import FileState, Reading
from xconnectd.daemon.metrics_server import MetricsServer
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
    status(State.WAITING, "vc", "vd", numbers=(None, 4))._replace(b=End("vd", 4, up=True)),
    status(a="lo", b="lo", numbers=(5, 5)),
)
COUNTERS = {1: Counters(10, 640, 1, 2), 2: Counters(20, 3000), 5: Counters(7, 70, 3)}


def report(*, state: str = "loaded", last_load: float | None = 1234.5) -> StatusDocument:
    tally = Tally(repairs=4)
    for seconds in (0.0005, 0.001, 0.004, 9.0):
        tally.passed(seconds)
    path = Path('/etc/"x"\\.yaml')
    return builder.build(
        document.Daemon(
            last_load=last_load,
            repairs=tally.repairs,
            passes=document.Passes(tally.count, tally.seconds, tally.at_most()),
            starts={"loaded": 1, "adopted": 2},
        ),
        Reading(Wiring(hash="abc"), (FileState(path, state),)),
        path,
        statuses=LINKS,
        counters=COUNTERS,
        moved_netns=(),
    )


def ask(
    path: str = "/metrics",
    method: str = "GET",
    told: StatusDocument | None = None,
    **headers: str,
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


@pytest.fixture(scope="module")
def found() -> dict[str, Metric]:
    return families(ask()[2])


def values(family: Metric, *names: str) -> dict[tuple[str, ...], float]:
    """Samples by the values of some labels."""
    return {tuple(x.labels[name] for name in names): x.value for x in family.samples}


def test_one_state_of_each_link_is_1(found: dict[str, Metric]) -> None:
    states = found["xconnectd_link_state"]
    assert len(states.samples) == 3 * len(State)
    assert {key for key, value in values(states, "link", "a", "b", "state").items() if value} == {
        ("va:vb", "va", "vb", "connected"),
        ("vc:vd", "vc", "vd", "waiting"),
        ("lo:lo", "lo", "lo", "connected"),
    }


def test_what_may_change_of_a_link_stands_beside_its_state(found: dict[str, Metric]) -> None:
    """A change of mode starts no new series of states, nor does an edited description."""
    told = {x.labels["link"]: x.labels for x in found["xconnectd_link_info"].samples}
    assert told.keys() == {"va:vb", "vc:vd", "lo:lo"}
    assert told["va:vb"] == {
        "link": "va:vb",
        "mode": "generic",
        "description": "the uplink",
        "label_lab": "demo",
        "label_clab_node_name": "leaf1",
    }


def test_traffic_by_direction(found: dict[str, Metric]) -> None:
    frames = values(found["xconnectd_frames"], "link", "ingress", "egress")
    assert frames["va:vb", "va", "vb"] == 10
    assert frames["va:vb", "vb", "va"] == 20
    assert frames["lo:lo", "lo", "lo"] == 7, "a plug has one way"
    assert values(found["xconnectd_bytes"], "ingress")["vb",] == 3000


def test_drops_by_reason(found: dict[str, Metric]) -> None:
    drops = values(found["xconnectd_dropped_frames"], "link", "interface", "reason")
    assert drops["va:vb", "va", "no_entry"] == 1
    assert drops["va:vb", "va", "host_egress"] == 2
    assert drops["lo:lo", "lo", "no_entry"] == 3


def test_a_reason_that_is_new_is_told_as_it_is() -> None:
    new = report()
    link = new.links[0]._replace(a=new.links[0].a._replace(dropped={"mtu_exceeded": 9}))
    new = new._replace(links=(link,))
    assert b'{interface="va",link="va:vb",reason="mtu_exceeded"} 9.0' in ask(told=new)[2]


def test_interfaces_that_are_there(found: dict[str, Metric]) -> None:
    carriers = values(found["xconnectd_interface_carrier"], "link", "interface")
    assert carriers == {
        ("va:vb", "va"): 1,
        ("va:vb", "vb"): 1,
        ("vc:vd", "vd"): 0,
        ("lo:lo", "lo"): 1,
    }
    assert set(values(found["xconnectd_interface_up"], "interface").values()) == {1}


def test_the_files(found: dict[str, Metric]) -> None:
    [info] = found["xconnectd_config_info"].samples
    assert info.labels == {"hash": "abc", "path": '/etc/"x"\\.yaml', "state": "loaded"}
    assert values(found["xconnectd_config_last_load_success"]) == {(): 1}
    assert values(found["xconnectd_config_last_load_timestamp_seconds"]) == {(): 1234.5}


def test_a_refused_file_and_one_never_loaded() -> None:
    found = families(ask(told=report(state="rejected", last_load=None))[2])
    assert values(found["xconnectd_config_last_load_success"]) == {(): 0}
    assert "xconnectd_config_last_load_timestamp_seconds" not in found


def test_what_the_daemon_did(found: dict[str, Metric]) -> None:
    passes = found["xconnectd_reconcile_duration_seconds"]
    assert passes.type == "histogram"
    buckets = [x.value for x in passes.samples if x.name.endswith("_bucket")]
    assert buckets == [2, 2, *[3] * (len(BOUNDS) - 2), 4]
    others = {x.name: x.value for x in passes.samples if not x.name.endswith("_bucket")}
    assert others == {
        "xconnectd_reconcile_duration_seconds_count": 4,
        "xconnectd_reconcile_duration_seconds_sum": pytest.approx(9.0055),
    }
    assert values(found["xconnectd_starts"], "programs") == {("loaded",): 1, ("adopted",): 2}
    assert values(found["xconnectd_drift_repairs"]) == {(): 4}
    assert found["xconnectd_build_info"].samples[0].labels["version"]
    assert found["process_resident_memory_bytes"].samples[0].value > 1 << 20


def test_names_follow_the_conventions(found: dict[str, Metric]) -> None:
    for family in found.values():
        assert family.name.startswith(("xconnectd_", "process_", "python_"))
        assert family.documentation
        counters = [x.name for x in family.samples if x.name.endswith("_total")]
        assert bool(counters) == (family.type == "counter"), family


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


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=x",
        "text/plain;version=1..0",
        "text/plain;version=\xb2",
    ],
)
def test_an_odd_accept_header_is_a_bad_request(accept: str) -> None:
    troubles: list[str] = []
    line, headers, body = served(report(), raw(Accept=accept), troubles)
    assert line.split()[1] == "400", body
    assert headers["Content-Type"].startswith("text/plain")
    assert troubles == ["accept"]


def test_an_answer_that_fails_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    troubles: list[str] = []
    broken = report()._replace(links=(None,))  # type: ignore[arg-type]
    assert served(broken, raw(), troubles)[0].split()[1] == "500"
    assert troubles == ["AttributeError"]
    assert capfd.readouterr().err == ""
