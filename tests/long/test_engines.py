"""Nodes that are containers, with real engines: Docker's daemon and Podman's service."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from netns.lab import Lab, poll, run

from xconnectd.model import Node, NodeNamespace
from xconnectd.nodes.engine import addresses
from xconnectd.nodes.finder import Nodes

from .engines import ENGINES, Docker, Engine, docker, podman

PROGRAM = (sys.executable, "-m", "xconnectd")
_counter = itertools.count(1)


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Its containers go with it; each test has names of its own."""
    with Lab() as lab, ENGINES[request.param](lab) as one:
        yield one


@pytest.fixture
def name() -> str:
    return f"leaf{next(_counter)}"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Nodes]]:
    """Nodes by name alone, of engines in the surroundings of ``engine``."""
    with contextlib.ExitStack() as stack:

        def make(engine: Engine, *wanted: Node, **options: bool) -> Nodes:
            nodes = Nodes(
                named=tmp_path, engines=addresses(engine.surroundings), timeout=30, **options
            )
            nodes.want(wanted)
            return stack.enter_context(contextlib.closing(nodes))

        yield make


def is_at(nodes: Nodes, node: Node, engine: Engine, container: str = "") -> bool:
    """Whether that is the namespace which the container's process is in now."""
    found = nodes.find(node).path
    with contextlib.suppress(OSError, ValueError):
        pid = engine.pid_of(container or node.name)
        return bool(found) and Path(found).samefile(f"/proc/{pid}/ns/net")
    return False


def wait(nodes: Nodes, condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Until it is true, as the daemon waits: it looks when it was woken."""
    deadline = time.monotonic() + seconds
    while not condition():
        left = deadline - time.monotonic()
        assert left > 0, f"not within {seconds:g} s"
        if select.select([nodes], [], [], min(left, 1.0))[0]:
            nodes.drain()


def is_away(nodes: Nodes, node: Node) -> bool:
    found = nodes.find(node)
    return not found.path and found.certain


# --------------------------------------------------------------------------- what a container does


def test_a_container_is_there_while_it_runs(
    engine: Engine, make: Callable[..., Nodes], name: str, tmp_path: Path
) -> None:
    node = Node(name)
    nodes = make(engine, node)
    text = f"there is no {tmp_path}/{name}, and no container {name} runs in {type(engine).__name__}"
    assert nodes.find(node) == NodeNamespace("", f"node {name} is not running: {text}")
    engine.run(name)
    wait(nodes, lambda: is_at(nodes, node, engine))
    assert nodes.find(node).warning == ""
    engine("stop", "--time", "0", name)
    wait(nodes, lambda: is_away(nodes, node))
    engine("start", name)
    wait(nodes, lambda: is_at(nodes, node, engine))


def test_after_a_restart_it_is_another_namespace(
    engine: Engine, make: Callable[..., Nodes], name: str
) -> None:
    node = Node(name)
    engine.run(name)
    nodes = make(engine, node)
    before = nodes.find(node).path
    assert before
    nodes.drain()
    engine("restart", "--time", "0", name)
    wait(nodes, lambda: nodes.find(node).path not in ("", before))
    assert is_at(nodes, node, engine)


def test_a_container_that_is_paused_is_there(
    engine: Engine, make: Callable[..., Nodes], name: str
) -> None:
    node = Node(name)
    engine.run(name)
    following = make(engine, node)
    assert following.find(node).path
    engine("pause", name)
    try:
        fresh = make(engine, node)
        assert following.find(node) == fresh.find(node)
        assert is_at(fresh, node, engine)
    finally:
        engine("unpause", name)


def test_a_new_container_of_that_name_is_the_node(
    engine: Engine, make: Callable[..., Nodes], name: str
) -> None:
    node = Node("r7", container=name)
    engine.run(name)
    nodes = make(engine, node)
    assert is_at(nodes, node, engine, name)
    engine("rm", "--force", name)
    wait(nodes, lambda: is_away(nodes, node))
    engine.run(name)
    wait(nodes, lambda: is_at(nodes, node, engine, name))
    engine("rename", name, f"{name}-old")
    wait(nodes, lambda: is_away(nodes, node))
    engine.run(name)
    wait(nodes, lambda: is_at(nodes, node, engine, name))
    engine("rm", "--force", f"{name}-old")
    engine("rename", name, f"{name}-new")
    engine("rename", f"{name}-new", name)
    wait(nodes, lambda: is_at(nodes, node, engine, name))


def test_ten_containers_that_come_at_once_are_all_found(
    engine: Engine, make: Callable[..., Nodes], name: str
) -> None:
    many = [Node(f"{name}-{number}") for number in range(10)]
    nodes = make(engine, *many)
    runs = [
        subprocess.Popen(
            (engine.name, "run", "--detach", "--name", each.name, "--network", "none", "sleeper"),
            env=engine.environment,
            stdout=subprocess.DEVNULL,
        )
        for each in many
    ]
    assert [process.wait(120) for process in runs] == [0] * 10
    wait(nodes, lambda: all(nodes.find(each).path for each in many))
    assert all(is_at(nodes, each, engine) for each in many)
    assert len({Path(nodes.find(each).path).stat().st_ino for each in many}) == 10


def test_no_container_is_kept_alive(engine: Engine, make: Callable[..., Nodes], name: str) -> None:
    """A namespace that lives has its devices: the host's end of a veth shows its end."""
    node = Node(name)
    engine.run(name)
    nodes = make(engine, node)
    assert nodes.find(node).path
    ip = ("ip", "-brief", "link")
    pid = str(engine.pid_of(name))
    run(*ip, "add", name, "type", "veth", "peer", "eth1", "netns", pid, namespace=engine.host)
    engine("stop", "--time", "0", name)
    there = (*ip, "show", "dev", name)
    poll(lambda: run(*there, namespace=engine.host, check=False).returncode, what="its end")


def test_a_namespace_that_is_shared_is_that_of_both(
    engine: Engine, make: Callable[..., Nodes], name: str
) -> None:
    """As Kubernetes' pods are, and containerlab's `network-mode: container:leaf1`."""
    owner, guest = Node(name), Node(f"{name}-guest")
    engine.run(name)
    engine.run(guest.name, network=f"container:{name}")
    nodes = make(engine, owner, guest)
    assert is_at(nodes, owner, engine)
    assert is_at(nodes, guest, engine, name)
    assert nodes.find(guest).path == f"/proc/{engine.pid_of(guest.name)}/ns/net"


def test_who_only_looks_is_answered(engine: Engine, make: Callable[..., Nodes], name: str) -> None:
    engine.run(name)
    nodes = make(engine, Node(name), Node("nobody"), follow=False)
    assert is_at(nodes, Node(name), engine)
    assert is_away(nodes, Node("nobody"))


LOOK = """
import json, sys
from pathlib import Path
from typing import Any
from xconnectd.model import Node
from xconnectd.nodes.finder import Nodes

nodes = Nodes(named=Path("/nowhere"), follow=False, timeout=30)
node = Node("leaf", container=sys.argv[1])
nodes.want([node])
print(json.dumps(nodes.find(node)))
"""


@pytest.mark.parametrize("right", ["", "sys_ptrace"])
def test_what_it_takes(engine: Engine, name: str, right: str) -> None:
    """Docker's file everybody may open; into /proc/PID/ns one must be allowed to look."""
    engine.run(name)
    keep = f"-all,+{right}" if right else "-all"
    command = ("setpriv", "--bounding-set", keep, "--inh-caps", "-all", sys.executable, "-c", LOOK)
    surroundings = {**os.environ, **engine.surroundings}
    done = subprocess.run(
        (*command, name), env=surroundings, capture_output=True, text=True, check=True
    )
    found = NodeNamespace(*json.loads(done.stdout))
    if right or isinstance(engine, Docker):
        assert found.path
    else:
        path = f"/proc/{engine.pid_of(name)}/ns/net"
        assert found.reason == (
            f"node leaf cannot be looked for: container {name} runs in Podman, but"
            f" {path}: Permission denied (that takes CAP_SYS_PTRACE)"
        )
        assert not found.certain


# --------------------------------------------------------------------------- what an engine does


@pytest.mark.parametrize(
    ("start", "options"), [(docker, ["--live-restore"]), (podman, [])], ids=ENGINES
)
def test_a_container_outlives_the_engines_crash(
    lab: Lab, make: Callable[..., Nodes], start: Callable[..., Any], options: list[str]
) -> None:
    with start(lab, *options) as engine:
        engine.run("leaf")
        leaf, spine = Node("leaf"), Node("spine")
        nodes = make(engine, leaf, spine)
        assert is_at(nodes, leaf, engine)
        before = nodes.find(leaf)
        engine.kill()
        wait(nodes, lambda: "Connection refused" in nodes.find(leaf).warning)
        assert nodes.find(leaf).path == before.path
        found = nodes.find(spine)
        assert (found.path, found.certain) == ("", False)
        assert f"{engine.socket}: Connection refused" in found.reason
        engine.start()
        wait(nodes, lambda: nodes.find(leaf) == before)
        wait(nodes, lambda: is_away(nodes, spine))
        engine.run("spine")
        wait(nodes, lambda: is_at(nodes, spine, engine))


def test_a_container_that_ends_while_its_engine_is_away_is_gone(
    lab: Lab, make: Callable[..., Nodes]
) -> None:
    """Docker ends those of a crash without live restore when it starts again."""
    with docker(lab) as engine:
        engine.run("leaf")
        nodes = make(engine, Node("leaf"))
        before = nodes.find(Node("leaf"))
        assert before.path
        engine.kill()
        wait(nodes, lambda: nodes.find(Node("leaf")).warning)
        assert nodes.find(Node("leaf")).path == before.path, "it runs until then"
        engine.start()
        wait(nodes, lambda: is_away(nodes, Node("leaf")))
        engine("start", "leaf")
        wait(nodes, lambda: is_at(nodes, Node("leaf"), engine))


def test_doctor_says_whether_an_engine_answers(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "xconnect.yaml"

    def findings(text: str) -> list[str]:
        file.write_text(text)
        done = subprocess.run(
            (*PROGRAM, "doctor", "-c", str(file), "--json"),
            env={**os.environ, **engine.surroundings, "XCONNECTD_STATE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        found = json.loads(done.stdout)["findings"]
        return [each["text"] for each in found if each["check"] == "nodes"]

    with docker(lab) as engine:
        assert findings("links: {va: vb}") == []
        assert findings("links: {'blue:eth1': va}\nnodes: {blue: {netns: /nowhere}}") == []
        assert "Docker answers" in findings("links: {'leaf:eth1': va}")
        engine.kill()
        silence = f"Docker does not answer: {engine.socket}: Connection refused"
        assert silence in findings("links: {'leaf:eth1': va}")


def test_both_engines_and_a_namespace_know_a_name(lab: Lab, tmp_path: Path) -> None:
    leaf = Node("leaf")
    with docker(lab) as one, podman(lab) as other:
        one.run("leaf")
        other.run("leaf")
        both = [
            next(each for each in addresses(engine.surroundings) if each.name == name)
            for engine, name in ((one, "Docker"), (other, "Podman"))
        ]
        with contextlib.closing(Nodes(named=tmp_path, engines=both, timeout=30)) as nodes:
            nodes.want([leaf])
            assert is_at(nodes, leaf, one)
            assert f"/proc/{other.pid_of('leaf')}/ns/net are two namespaces" in (
                nodes.find(leaf).warning
            )
            (tmp_path / "leaf").symlink_to(lab.directory / "own")
            (lab.directory / "own").symlink_to("/proc/self/ns/net")
            assert nodes.drain() == {"leaf"}
            assert nodes.find(leaf).path == f"{tmp_path}/leaf"
            assert nodes.find(leaf).warning.count(" are two namespaces") == 2


MICROSECONDS = '{{.State.StartedAt.Format "2006-01-02T15:04:05.000000"}}'


@pytest.mark.parametrize(
    ("start", "time_of_start"),
    [(docker, "{{.State.StartedAt}}"), (podman, MICROSECONDS)],
    ids=ENGINES,
)
def test_a_restart_is_told_soon(
    lab: Lab, make: Callable[..., Nodes], start: Callable[..., Any], time_of_start: str
) -> None:
    """From when the engine says that it started; what comes before is the engine's own time."""
    with start(lab) as engine:
        node = Node("leaf")
        engine.run("leaf")
        nodes = make(engine, node)
        late = []
        for _ in range(20):
            before = nodes.find(node).path
            restart = subprocess.Popen(
                (engine.name, "restart", "--time", "0", "leaf"),
                env=engine.environment,
                stdout=subprocess.DEVNULL,
            )
            wait(nodes, lambda before=before: nodes.find(node).path not in ("", before))
            now = time.time()
            restart.wait(60)
            started = engine.inspect("leaf", time_of_start)[:26]
            late.append(now - datetime.fromisoformat(f"{started}+00:00").timestamp())
        median = statistics.median(late)
        print(f"told {median * 1000:.1f} ms later (median), {max(late) * 1000:.1f} at most")
        assert median < 0.05
