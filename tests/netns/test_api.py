"""The Python API, by the example in the README, on real veths."""

from __future__ import annotations

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .frames import ether, noise
from .lab import REPO, Lab, poll, run
from .traffic import exchange

EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def _example(name: str) -> str:
    blocks = EXAMPLE.findall((REPO / name).read_text())
    return next(block for block in blocks if "Xconnect" in block)


def _python(lab: Lab, program: str) -> dict[str, str]:
    """Runs a program in the lab's host, and returns what it prints as JSON last."""
    settings = (f"PYTHONPATH={REPO}", f"XCONNECTD_STATE_DIR={lab.directory / 'state-api'}")
    done = run("env", *settings, sys.executable, "-c", program, namespace=lab.host)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_the_readmes_example(lab: Lab) -> None:
    for name in ("veth0", "veth1", "veth2"):
        lab.veth(name)
    before = lab.snapshot()
    program = "import json\n" + _example("README.md") + "    print(json.dumps(wires.states()))\n"
    assert _python(lab, program) == {"veth0:veth2": "connected"}
    assert lab.snapshot() == before


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
            poll(lambda: ready.exists() or running.done(), 20, "the program to stop")
            assert exchange(pa, station, frames).exact
            assert exchange(station, pa, frames).exact
            go.touch()
            poll(lambda: not go.exists() or running.done(), 5, "the program to go on")
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
