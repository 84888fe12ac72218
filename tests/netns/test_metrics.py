"""Metrics of a real daemon: asked for over TCP and unix sockets while frames cross, files change
and clients misbehave."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from .lab import PATIENCE, REPO, Lab, Station, inside, poll, run
from .service import Daemon, Start
from .traffic import cut, wired

PORT = 9109
LINKS = "links: {va: vb}\n"
METRICS = f"metrics: {{listen: 127.0.0.1:{PORT}}}\n{LINKS}"
Bench = tuple[Daemon, Station, Station, Station]
REQUEST = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
Found = dict[str, Metric]


def connect(running: Daemon, port: int = PORT, address: str = "127.0.0.1") -> socket.socket:
    return inside(running.lab.host, lambda: socket.create_connection((address, port), PATIENCE))


def talk(connection: socket.socket, request: bytes = REQUEST) -> bytes:
    with connection:
        connection.sendall(request)
        with connection.makefile("rb") as answer:
            return answer.read()


def scrape(connection: socket.socket) -> Found:
    head, _, body = talk(connection).partition(b"\r\n\r\n")
    assert b" 200 " in head.partition(b"\r\n")[0], head
    return {each.name: each for each in text_string_to_metric_families(body.decode())}


def sample(found: Found, name: str, **labels: str) -> float:
    """The one sample of a family that has these labels."""
    [value] = [x.value for x in found[name].samples if labels.items() <= x.labels.items()]
    return value


def is_loaded(connection: socket.socket) -> bool:
    return sample(scrape(connection), "xconnectd_config_last_load_success") == 1


def listens(running: Daemon, port: int = PORT, address: str = "127.0.0.1") -> bool:
    with contextlib.suppress(OSError):
        connect(running, port, address).close()
        return True
    return False


def served(running: Daemon) -> bool:
    with contextlib.suppress(OSError):
        return b" 200 " in talk(connect(running))[:20]
    return False


@pytest.fixture
def bench(lab: Lab, shared: Start) -> Bench:
    """A daemon that serves metrics, with a wire between va and vb, and a vc."""
    a, b, c = lab.veths("va", "vb", "vc")
    running = shared(METRICS).connected()
    running.wait_event("metrics.served")
    return running, a, b, c


def test_what_status_says_and_what_the_daemon_did_is_what_is_scraped(bench: Bench) -> None:
    running, a, b, _ = bench
    poll(lambda: wired(a, b))
    told = running.status()
    before = scrape(connect(running))
    state = {"link": "va:vb", "a": "va", "b": "vb"}
    assert sample(before, "xconnectd_link_state", **state, state="connected") == 1
    assert sample(before, "xconnectd_link_state", **state, state="down") == 0
    [config] = before["xconnectd_config_info"].samples
    assert config.labels == {key: told["config"][key] for key in ("hash", "path", "state")}
    (link,) = told["links"]
    for end, ingress in (("a", "va"), ("b", "vb")):
        for counted in ("frames", "bytes"):
            value = sample(before, f"xconnectd_{counted}", link="va:vb", ingress=ingress)
            assert value == link[end][counted] > 0
    assert told["daemon"]["metrics"] == {"listen": f"127.0.0.1:{PORT}", "problem": ""}
    assert abs(sample(before, "xconnectd_config_last_load_timestamp_seconds") - time.time()) < 60

    def rise(name: str, **labels: str) -> float:
        return sample(after, name, **labels) - sample(before, name, **labels)

    def passes(found: Found) -> float:
        samples = found["xconnectd_reconcile_duration_seconds"].samples
        [count] = [x.value for x in samples if x.name.endswith("_count")]
        return count

    running.lab.ip("link set va xdpgeneric off")
    running.wait_event("drift.repaired")
    b.ip("link set eth0 down")
    running.wait_link("down", "va", "vb")
    after = scrape(connect(running))
    assert rise("xconnectd_drift_repairs") == 1
    assert passes(after) > passes(before) >= 1
    assert sample(after, "xconnectd_link_state", link="va:vb", state="down") == 1
    assert sample(after, "xconnectd_interface_carrier", interface="vb") == 0
    assert sample(after, "xconnectd_interface_up", interface="vb") == 1
    since = running.mark()
    running.crash()
    running.wait_event("metrics.served", since=since)
    after = scrape(connect(running))
    assert rise("xconnectd_starts", programs="loaded") == 0
    assert rise("xconnectd_starts", programs="adopted") == 1


def test_they_come_move_and_go_with_the_file(lab: Lab, shared: Start) -> None:
    a, b = lab.veths("va", "vb")
    running = shared(LINKS).connected()
    assert not listens(running)
    assert running.status()["daemon"]["metrics"] is None
    running.write(METRICS)
    poll(lambda: listens(running))
    running.write(METRICS.replace(str(PORT), "9110"))
    poll(lambda: listens(running, 9110))
    assert not listens(running)
    running.write(f"metrics: {{listen: '[::1]:{PORT}'}}\n{LINKS}")
    poll(lambda: listens(running, address="::1"))
    assert not listens(running)
    assert not listens(running, 9110)
    running.write("links:\n")
    running.wait_event("config.rejected")
    found = scrape(connect(running, address="::1"))  # a refused file changes nothing, and shows
    assert sample(found, "xconnectd_config_last_load_success") == 0
    assert found["xconnectd_config_info"].samples[0].labels["state"] == "rejected"
    running.write(LINKS)
    poll(lambda: not listens(running, address="::1"))
    assert wired(a, b)
    poll(lambda: len(running.events("metrics.stopped")) == 3, what="told three times")
    assert len(running.events("metrics.served")) == 3
    assert not running.events("link.disconnected")


def test_a_port_that_is_taken_is_waited_for(lab: Lab, shared: Start) -> None:
    a, b = lab.veths("va", "vb")
    with inside(lab.host, lambda: socket.create_server(("127.0.0.1", PORT))):
        running = shared(METRICS).connected()
        told = running.wait_event("metrics.failed")
        assert (told["level"], told["listen"]) == ("warning", f"127.0.0.1:{PORT}")
        assert "in use" in told["reason"]
        assert wired(a, b)
        assert "in use" in running.status()["daemon"]["metrics"]["problem"]
        assert "in use" in running.cli("status").stdout
        assert running.cli("status", "--check").returncode == 0
        assert running.cli("status", "--health").returncode == 0
    running.wait_event("metrics.served")
    assert is_loaded(connect(running))
    assert len(running.events("metrics.failed")) == 1, "said once"
    assert running.status()["daemon"]["metrics"]["problem"] == ""


def at(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE)
    connection.connect(str(path))
    return connection


def test_a_unix_socket_and_what_stands_in_its_way(lab: Lab, shared: Start) -> None:
    """A crash leaves it, a stop does not; what is somebody else's stays."""
    path = lab.directory / "m.sock"
    path.write_text("precious")
    running = shared(f"metrics: {{listen: 'unix:{path}'}}\n{LINKS}")
    assert "something else" in running.wait_event("metrics.failed")["reason"]
    assert path.read_text() == "precious"
    with socket.socket(socket.AF_UNIX) as other:
        aside = path.with_name("aside.sock")
        other.bind(str(aside))
        other.listen()
        aside.rename(path)  # at no moment is the way free
        running.wait_event("metrics.failed", reason="Address already in use; tried again every 5 s")
        path.unlink()
    running.wait_event("metrics.served")
    assert path.stat().st_mode & 0o7777 == 0o660
    group = run("getent", "group", "xconnectd", check=False).stdout
    assert path.stat().st_gid == (int(group.split(":")[2]) if group else 0)
    assert is_loaded(at(path))
    running.kill()
    assert path.is_socket(), "a crash leaves it"
    for stays in (False, True):
        since = running.mark()
        running.start()
        running.wait_event("metrics.served", since=since)
        assert is_loaded(at(path))
        if stays:
            path.unlink()
            path.write_text("another's by now")
        running.stop()
        assert path.exists() is stays


def test_idle_and_slow_clients_keep_nobody_waiting(bench: Bench) -> None:
    """Nor the end of the daemon."""
    running, a, b, c = bench
    memory, spent = running.rss(), running.cpu()
    with contextlib.ExitStack() as crowd:
        for number in range(50):
            connection = crowd.enter_context(connect(running))
            connection.sendall(REQUEST[: number % 20])
        running.write(METRICS.replace("vb", "vc"))
        poll(lambda: wired(a, c))
        started = time.monotonic()
        state = {"link": "va:vc", "state": "connected"}
        assert sample(scrape(connect(running)), "xconnectd_link_state", **state)
        assert time.monotonic() - started < 5, "it waited for the others' time to be over: 10 s"
        assert cut(a, b)
        assert running.rss() - memory < 8 << 20
        assert running.cpu() - spent < 5
        started = time.monotonic()
        running.signal(signal.SIGTERM)
        assert running.wait() == 0
        assert time.monotonic() - started < 5, "it waited for its clients"
    assert "xception" not in running.text(), running.text()


def test_a_crowd_is_let_go_in_time(bench: Bench) -> None:
    """More than there is room for: the door is shut until those inside have used up their time."""
    running, a, b, _ = bench
    with contextlib.ExitStack() as crowd:
        for _ in range(200):
            crowd.enter_context(connect(running))
        poll(lambda: served(running), what="an answer", interval=0.2)
        assert wired(a, b)


NONSENSE = (
    b"\r\n\r\n",
    b"\0" * 20_000,
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000,
    b"GET /\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n" + b"x" * 9999,
    b"\x16\x03\x01" * 99,  # TLS
)


def test_nonsense_harms_nobody(bench: Bench) -> None:
    running, *_ = bench
    for nonsense in NONSENSE:
        with contextlib.suppress(OSError), connect(running) as connection:
            connection.sendall(nonsense)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1 << 16)
        assert is_loaded(connect(running))
    odd = b"GET / HTTP/1.1\r\nAccept: application/openmetrics-text;version=x\r\n\r\n"
    for _ in range(20):
        assert b" 400 " in talk(connect(running), odd)[:20]
    assert "version=x" in running.wait_event("metrics.refused")["reason"]
    assert len(running.events("metrics.refused")) == 1, "told once"
    running.stop()
    assert "xception" not in running.text()


def test_a_flood_leaves_descriptors_for_the_wires(bench: Bench) -> None:
    """With 160, of which its doors may take some; then with none left to accept by."""
    running, a, _, c = bench
    for limit, links in ((160, METRICS.replace("vb", "vc")), (1, METRICS)):
        run("prlimit", f"--pid={running.pid}", f"--nofile={limit}:160")
        with contextlib.ExitStack() as crowd:
            for _ in range(600):
                with contextlib.suppress(OSError):
                    client = inside(running.lab.host, lambda: socket.socket(socket.AF_INET))
                    crowd.enter_context(client).setblocking(False)
                    client.connect(("127.0.0.1", PORT))
            if limit > 1:
                running.write(links)
                poll(lambda: wired(a, c))
            spent = running.cpu()
            time.sleep(1)
            assert running.cpu() - spent < 0.5, "it spins"
    run("prlimit", f"--pid={running.pid}", "--nofile=160:160")
    poll(lambda: served(running), what="an answer", interval=0.2)
    assert running.cli("reload").returncode == 0
    running.assert_no_traceback()


def test_memory_with_and_without(lab: Lab, daemon: Start) -> None:
    """48 MB is the bound with metrics that are read; 42 MB without."""
    lab.veths("va", "vb", "vc", "vd")
    two = "links: {va: vb, vc: vd}\n"
    running = daemon(two)
    running.idle()
    without = running.rss()
    assert without <= 42 << 20
    for unwanted in ("prometheus", "LLVM", "libbcc"):
        assert unwanted not in running.maps()
    running.write(f"metrics: {{listen: 127.0.0.1:{PORT}}}\n{two}")
    running.wait_event("metrics.served")
    for _ in range(100):
        scrape(connect(running))
    print(f"RSS {without / 1e6:.1f} MB without metrics, {running.rss() / 1e6:.1f} MB with")
    assert running.rss() <= 48 << 20
    before = running.rss()
    for _ in range(500):
        talk(connect(running))
    assert running.rss() - before < 2 << 20, "it grows with each request"


DASHBOARD = REPO / "config" / "grafana" / "xconnectd.json"


def _expressions(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        keys = ("expr", "query", "definition")
        yield from (node[key] for key in keys if isinstance(node.get(key), str))
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _expressions(each)


def test_the_dashboard_asks_for_what_there_is(bench: Bench) -> None:
    running, *_ = bench
    samples = [x for each in scrape(connect(running)).values() for x in each.samples]
    labels = {x.name: set(x.labels) for x in samples}
    expressions = list(_expressions(json.loads(DASHBOARD.read_text())))
    asked = set(re.findall(r"\b(?:xconnectd|process)_\w+", "\n".join(expressions)))
    assert len(asked) > 8
    assert asked <= labels.keys(), asked - labels.keys()
    (worst,) = (text for text in expressions if "topk" in text and "dropped" in text)
    on_purpose = 'reason!~"host_egress|one_way|filtered|impaired_.*"'
    assert on_purpose in worst, "what is dropped on purpose is no loss"
    for text in expressions:
        for name, wanted in re.findall(r"\b(xconnectd_\w+)\{([^}]*)\}", text):
            used = set(re.findall(r"(\w+)\s*[=!]~?", wanted)) - {"instance", "job"}
            assert used <= labels[name] | {"le"}, text
