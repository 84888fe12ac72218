"""The Python API, by the example in docs/python.md, on real veths."""

from __future__ import annotations

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .frames import ether, noise
from .lab import REPO, Lab, poll, run
from .traffic import crosses

EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)
BEGIN = """
import json, os, pathlib, resource, time
from unittest.mock import patch
from xconnectd.api import Xconnect
from xconnectd.errors import BusyError, ConfigError, XconnectError
from xconnectd.runtime import Engine
from xconnectd.state.store import Ledger

UNLIMITED = resource.RLIM_INFINITY
PAIR, told = {"veth0": "veth1"}, {}
def disk(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, UNLIMITED))
"""
END = "\nprint(json.dumps(told), flush=True)\n"
CRASH = 'wires = Xconnect(PAIR)\nprint("{}", flush=True)\nos._exit(0)\n'
"""A program that leaves its wires behind."""


def _run(lab: Lab, program: str) -> tuple[str, str]:
    settings = (f"PYTHONPATH={REPO}", f"XCONNECTD_STATE_DIR={lab.directory / 'state-api'}")
    done = run("env", *settings, sys.executable, "-c", program, namespace=lab.host)
    return done.stdout, done.stderr


def _python(lab: Lab, program: str) -> dict[str, Any]:
    """Runs a program in the lab's host; returns its ``told``."""
    return dict(json.loads(_run(lab, BEGIN + program + END)[0].splitlines()[-1]))


def test_the_documented_example(lab: Lab) -> None:
    lab.veths("veth0", "veth1", "veth2")
    before = lab.settled()
    blocks = EXAMPLE.findall((REPO / "docs/python.md").read_text())
    example = next(block for block in blocks if "Xconnect" in block)
    assert _python(lab, example + "    told = wires.states()\n") == {"veth0:veth2": "connected"}
    lab.assert_as_found(before)


def test_a_direction_a_rewrite_and_a_filter(lab: Lab) -> None:
    """As in the file, also its refusals; a wire that gets one of them is the same wire."""
    lab.veths("veth0", "veth1")
    before = lab.settled()
    program = """
with Xconnect(PAIR) as wires:
    for options in (
        {"one_way": True},
        {"rewrite": "swap-macs", "one_way": True},
        {"impair": {"reverse": {"drop": "udp port 3784"}}},
    ):
        wires.update({"veth0": {"to": "veth1", **options}})
        [status] = wires.status()
        told[str(options)] = [status.state, status.link.manner, status.mode]
    try:
        wires.update({"veth0": {"to": "veth1", "impair": {"drop": "udp prot 3784"}}})
    except ConfigError as error:
        told["refused"] = str(error)
    told["filter"] = os.popen("tc filter show dev veth0 egress").read()
"""
    one, both, drop, refused, filter_ = _python(lab, program).values()
    assert one == ["connected", "one way: veth0 → veth1", "generic"]
    assert both[1] == "one way: veth0 → veth1, source and destination MAC swapped"
    assert drop == ["connected", "both ways", "tc"]
    assert "'prot' is no word of a filter" in refused
    assert "udp port 3784 direct-action" in filter_
    lab.assert_as_found(before)


def test_frames_cross_and_update_moves_them(lab: Lab, tmp_path: Path) -> None:
    a, b, c = lab.veths("veth0", "veth1", "veth2")
    frames = [ether(0x88B5, noise(60 + size)) for size in range(20)]
    go, ready = tmp_path / "go", tmp_path / "ready"
    program = f"""
go, ready = pathlib.Path({str(go)!r}), pathlib.Path({str(ready)!r})
def stop():
    ready.touch()
    while not go.exists():
        time.sleep(0.01)
    go.unlink(), ready.unlink()
with Xconnect(PAIR) as wires:
    stop()
    wires.update({{"veth0": {{"to": "veth2", "mode": "tc"}}}})
    stop()
    told = wires.states()
"""
    with ThreadPoolExecutor(1) as pool, a.port() as pa, b.port() as pb, c.port() as pc:
        running = pool.submit(_python, lab, program)
        for port in (pb, pc):
            poll(lambda: ready.exists() or running.done(), what="the program to stop")
            crosses(pa, port, frames)
            go.touch()
            poll(lambda: not go.exists() or running.done(), what="the program to go on")
        assert running.result() == {"veth0:veth2": "connected"}


def test_what_is_held_refused_or_closed_is_told(lab: Lab) -> None:
    lab.veths("veth0", "veth1")
    program = """
with Xconnect(PAIR) as wires:
    calls = {
        "busy": lambda: Xconnect({}),
        "refused": lambda: wires.update(PAIR | {"veth1": "veth2"}),
        "sync": lambda: (wires.close(), wires.sync()),
        "update": lambda: wires.update({}),
    }
    for name, call in calls.items():
        told["state " + name] = None if name == "update" else wires.states()["veth0:veth1"]
        try:
            call()
        except (BusyError, ConfigError, XconnectError) as error:
            told[name] = [type(error).__name__, str(getattr(error, "pid", error))]
    wires.close()
"""
    told = _python(lab, program)
    assert [told[f"state {name}"] for name in ("busy", "refused", "sync")] == ["connected"] * 3
    assert told["busy"][0] == "BusyError"
    assert int(told["busy"][1]) > 0
    assert told["refused"][0] == "ConfigError"
    assert "veth1" in told["refused"][1]
    assert all("closed" in told[name][1] for name in ("sync", "update")), told


def test_what_could_not_be_put_back_is_told_and_stays_recorded(lab: Lab) -> None:
    lab.veths("veth0", "veth1")
    before = lab.settled()
    program = """
wires = Xconnect(PAIR)
disk(0)
try:
    wires.close()
except XconnectError as error:
    told["problems"] = str(error)
disk(UNLIMITED)
wires.close()
told["records"] = sorted(record.name for record in Ledger().records.values())
Xconnect({}).close()
"""
    told = _python(lab, program)
    assert "File too large" in told["problems"]
    assert told["records"] == ["veth0", "veth1"]
    lab.assert_as_found(before)


def test_a_start_that_fails_holds_nothing(lab: Lab) -> None:
    lab.veths("veth0", "veth1")
    program = """
def held():
    return sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")[:-1])
Xconnect(PAIR).close()
before = held()
for broken in ("runtime.Reconciler.run", "runtime.Interfaces.__init__",
               "state.store.Ledger.know_programs"):
    with patch("xconnectd." + broken, side_effect=OSError("broken")):
        try:
            Xconnect(PAIR)
        except OSError as error:
            told[broken] = [str(error), *(x for x in held() if x not in before)]
with Xconnect(PAIR) as wires:
    told |= wires.states()
"""
    told = _python(lab, program)
    assert told.pop("veth0:veth1") == "connected"
    assert list(told.values()) == [["broken"]] * 3, told


def test_what_another_program_left_is_taken_up(lab: Lab) -> None:
    """Though the count of starts cannot be written, and an end has left while nobody looked.

    A restart that adopts has nothing else to write.
    """
    lab.veths("veth0", "veth1")
    away = lab.namespace("away", quiet=True)
    _python(lab, CRASH)
    program = "disk(0)\nwith Engine.take() as engine:\n    told |= engine.ledger.starts()\n"
    assert _python(lab, program) == {"loaded": 1, "adopted": 0}
    lab.move(away, "veth1")
    program = """
with Xconnect(PAIR) as wires:
    told = wires.states() | {"moved": [each.record.name for each in Ledger().moved_netns]}
"""
    assert _python(lab, program) == {"veth0:veth1": "waiting", "moved": ["veth1"]}


@pytest.mark.parametrize("set_up", [False, True])
def test_what_it_logs_is_no_output_of_the_program(lab: Lab, set_up: bool) -> None:
    """Unless the program has asked for it; warnings go to stderr."""
    lab.veths("veth0", "veth1")
    lab.foreign_xdp("veth1")
    program = f"if {set_up}: __import__('structlog').configure()\nXconnect(PAIR).close()"
    said, warned = _run(lab, BEGIN + program)
    if set_up:
        assert "program.loaded" in said
    else:
        assert said == ""
        assert "link.failed" in warned


def test_an_end_is_set_down_where_the_link_asks_for_it(lab: Lab) -> None:
    """Between two calls nobody would see that the far end comes up."""
    _, b = lab.veths("veth0", "veth1")
    b.ip("link set eth0 down")
    up = "told[{0}] = 'UP' in os.popen('ip -br link show veth0').read().split('<')[1].split(',')\n"
    program = (
        "with Xconnect(PAIR) as wires:\n"
        f"    {up.format(0)}"
        "    wires.update({'veth0': {'to': 'veth1', 'carrier': 'follow'}})\n"
        f"    {up.format(1)}"
        f"{up.format(2)}"
    )
    assert _python(lab, program) == {"0": True, "1": False, "2": True}
