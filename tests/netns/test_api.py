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
from .test_invariants import _settled, assert_as_found
from .traffic import exchange

EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)

CRASH = """
import json, os
from xconnectd.api import Xconnect
wires = Xconnect({"veth0": "veth1"})
print(json.dumps(wires.states()), flush=True)
os._exit(0)
"""
"""A program that leaves its wires behind."""


def _example(name: str) -> str:
    blocks = EXAMPLE.findall((REPO / name).read_text())
    return next(block for block in blocks if "Xconnect" in block)


def _python(lab: Lab, program: str) -> dict[str, Any]:
    """Runs a program in the lab's host, and returns what it prints as JSON last."""
    settings = (f"PYTHONPATH={REPO}", f"XCONNECTD_STATE_DIR={lab.directory / 'state-api'}")
    done = run("env", *settings, sys.executable, "-c", program, namespace=lab.host)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_the_documented_example(lab: Lab) -> None:
    for name in ("veth0", "veth1", "veth2"):
        lab.veth(name)
    before = _settled(lab)
    program = (
        "import json\n" + _example("docs/python.md") + "    print(json.dumps(wires.states()))\n"
    )
    assert _python(lab, program) == {"veth0:veth2": "connected"}
    assert_as_found(lab, before)


def test_frames_cross_and_update_moves_them(lab: Lab, tmp_path: Path) -> None:
    a, b, c = (lab.veth(name) for name in ("veth0", "veth1", "veth2"))
    frames = [ether(0x88B5, noise(60 + size)) for size in range(20)]
    go, ready = tmp_path / "go", tmp_path / "ready"
    program = f"""
import json, pathlib, time
from xconnectd.api import Xconnect
go, ready = pathlib.Path({str(go)!r}), pathlib.Path({str(ready)!r})
def stop():
    ready.touch()
    while not go.exists():
        time.sleep(0.01)
    go.unlink(); ready.unlink()
with Xconnect({{"veth0": "veth1"}}) as wires:
    stop()
    wires.update({{"veth0": {{"to": "veth2", "mode": "tc"}}}})
    stop()
    print(json.dumps(wires.states()))
"""
    with ThreadPoolExecutor(1) as pool, a.port() as pa, b.port() as pb, c.port() as pc:
        running = pool.submit(_python, lab, program)
        for station in (pb, pc):
            poll(lambda: ready.exists() or running.done(), what="the program to stop")
            assert exchange(pa, station, frames).exact
            assert exchange(station, pa, frames).exact
            go.touch()
            poll(lambda: not go.exists() or running.done(), what="the program to go on")
        assert running.result() == {"veth0:veth2": "connected"}


def test_a_second_holder_is_refused(lab: Lab) -> None:
    lab.veth("veth0"), lab.veth("veth1")
    program = """
import json
from xconnectd.api import Xconnect
from xconnectd.errors import BusyError, ConfigError
told = {}
with Xconnect({"veth0": "veth1"}) as wires:
    try:
        Xconnect({})
    except BusyError as error:
        told["busy"] = str(error.pid)
    try:
        wires.update({"veth0": "veth1", "veth1": "veth2"})
    except ConfigError as error:
        told["refused"] = str(error)
    told["state"] = wires.states()["veth0:veth1"]
print(json.dumps(told))
"""
    told = _python(lab, program)
    assert int(told["busy"]) > 0
    assert "veth1" in told["refused"]
    assert told["state"] == "connected"


def test_what_could_not_be_put_back_is_told_and_stays_recorded(lab: Lab) -> None:
    lab.veth("veth0"), lab.veth("veth1")
    before = _settled(lab)
    program = """
import json, resource
from xconnectd.api import Xconnect
from xconnectd.errors import XconnectError
from xconnectd.state.store import Ledger
told = {}
wires = Xconnect({"veth0": "veth1"})
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))  # as a full disk
try:
    wires.close()
except XconnectError as error:
    told["problems"] = str(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
wires.close()
told["records"] = sorted(record.name for record in Ledger().records.values())
with Xconnect({}):
    pass
print(json.dumps(told))
"""
    told = _python(lab, program)
    assert "File too large" in told["problems"]
    assert told["records"] == ["veth0", "veth1"]
    assert_as_found(lab, before)


def test_a_start_that_fails_holds_nothing(lab: Lab) -> None:
    lab.veth("veth0"), lab.veth("veth1")
    program = """
import json, os
from unittest.mock import patch
from xconnectd.api import Xconnect
def held():
    return sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")[:-1])
with Xconnect({"veth0": "veth1"}):
    pass
before, told = held(), {}
for broken in ("runtime.Reconciler.run", "runtime.Interfaces.__init__",
               "state.store.Ledger.know_programs"):
    with patch("xconnectd." + broken, side_effect=OSError("broken")):
        try:
            Xconnect({"veth0": "veth1"})
        except OSError as error:
            told[broken] = [str(error), *(x for x in held() if x not in before)]
with Xconnect({"veth0": "veth1"}) as wires:
    told |= wires.states()
print(json.dumps(told))
"""
    told = _python(lab, program)
    assert told.pop("veth0:veth1") == "connected"
    assert list(told.values()) == [["broken"]] * 3, told


def test_a_count_that_cannot_be_written_is_no_reason_not_to_start(lab: Lab) -> None:
    """Of a restart that adopts, and so has nothing else to write."""
    lab.veth("veth0"), lab.veth("veth1")
    _python(lab, CRASH)
    program = """
import json, resource
from xconnectd.runtime import Engine
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))  # as a full disk
with Engine.take() as engine:
    print(json.dumps(dict(engine.ledger.starts())))
"""
    assert _python(lab, program) == {"loaded": 1, "adopted": 0}


def test_an_end_that_left_while_nobody_looked_is_known(lab: Lab) -> None:
    lab.veth("veth0"), lab.veth("veth1")
    away = lab.namespace("away", quiet=True)
    _python(lab, CRASH)
    lab.ip("link", "set", "veth1", "netns", away)
    program = """
import json
from xconnectd.api import Xconnect
from xconnectd.state.store import Ledger
with Xconnect({"veth0": "veth1"}) as wires:
    moved = [each.record.name for each in Ledger().moved_netns]
    print(json.dumps(wires.states() | {"moved_netns": moved}))
"""
    assert _python(lab, program) == {"veth0:veth1": "waiting", "moved_netns": ["veth1"]}


@pytest.mark.parametrize("set_up", [False, True])
def test_what_it_logs_is_no_output_of_the_program(lab: Lab, set_up: bool) -> None:
    """Unless the program has asked for it; warnings go to stderr."""
    lab.veth("veth0"), lab.veth("veth1")
    lab.foreign_xdp("veth1")
    program = f"""
import structlog
if {set_up}:
    structlog.configure()
from xconnectd.api import Xconnect
Xconnect({{"veth0": "veth1"}}).close()
"""
    settings = (f"PYTHONPATH={REPO}", f"XCONNECTD_STATE_DIR={lab.directory / 'state-api'}")
    done = run("env", *settings, sys.executable, "-c", program, namespace=lab.host)
    if set_up:
        assert "program.loaded" in done.stdout
    else:
        assert done.stdout == ""
        assert "link.failed" in done.stderr


def test_what_is_closed_says_so(lab: Lab) -> None:
    lab.veth("veth0")
    program = """
import json
from xconnectd.api import Xconnect
from xconnectd.errors import XconnectError
wires, said = Xconnect({"veth0": "veth0"}), {}
wires.close()
for name, call in {"sync": wires.sync, "update": lambda: wires.update({})}.items():
    try:
        call()
    except XconnectError as error:
        said[name] = str(error)
wires.close()
print(json.dumps(said))
"""
    said = _python(lab, program)
    assert said.keys() == {"sync", "update"}
    assert all("closed" in words for words in said.values()), said
