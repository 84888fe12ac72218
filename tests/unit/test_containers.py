"""What engines say, and what is made of it: answers as Docker 20.10 and Podman 4.3 gave them.

The engine of these tests speaks real HTTP over a real socket; tests/long/test_engines.py has real
engines.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xconnectd.model import Node, NodeNamespace
from xconnectd.nodes import container_names, containers, engine_http, namespace_files
from xconnectd.nodes import engine as engine_module
from xconnectd.nodes.containers import Change, Container, GarbledError
from xconnectd.nodes.engine import Address, addresses
from xconnectd.nodes.finder import Nodes

ONE, TWO = "1" * 64, "2" * 64
SANDBOX = "/run/docker/netns/6b826c6c30ea"
OWN = "/proc/self/ns/net"
LEAF = Node("leaf1")


def listed(container: str, *names: str, state: str = "running") -> dict[str, Any]:
    return {"Id": container, "Names": [f"/{name}" for name in names], "State": state}


def state(container: str, name: str, sandbox: str = "", pid: int = os.getpid()) -> dict[str, Any]:
    return {
        "Id": container,
        "Name": f"/{name}",
        "State": {"Status": "running", "Running": True, "Paused": False, "Pid": pid},
        "NetworkSettings": {"SandboxKey": sandbox},
    }


def event(container: str, name: str, action: str = "start") -> bytes:
    actor = {"ID": container, "Attributes": {"name": name, "image": "sleeper"}}
    return json.dumps({"Type": "container", "Action": action, "Actor": actor}).encode() + b"\n"


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


# --------------------------------------------------------------------------- what is said


def test_those_that_run_are_found_by_their_names() -> None:
    answer = [
        listed(ONE, "leaf1", "other/alias"),
        listed(TWO, "leaf2", state="paused"),
        listed("3" * 64, "leaf3", state="exited"),
        {"Id": "4" * 64, "Names": None, "State": "running"},  # it is being removed
    ]
    found = containers.running(as_json(answer))
    assert found == {"leaf1": ONE, "other/alias": ONE, "leaf2": TWO}


def test_a_container_that_runs_has_a_namespace() -> None:
    docker, podman = state(ONE, "leaf1", SANDBOX), state(TWO, "leaf2")
    assert containers.inspected(as_json(docker)) == Container(ONE, "leaf1", SANDBOX, os.getpid())
    assert containers.inspected(as_json(podman)) == Container(TWO, "leaf2", "", os.getpid())


@pytest.mark.parametrize("change", [{"Running": False}, {"Pid": 0}])
def test_one_that_has_ended_or_begins_again_has_none(change: dict[str, Any]) -> None:
    ended = state(ONE, "leaf1", SANDBOX)
    ended["State"] |= change
    assert containers.inspected(as_json(ended)) is None


def test_an_event_says_whom_to_ask_for() -> None:
    assert containers.change(event(ONE, "leaf1", "rename")) == Change(ONE, "leaf1")
    assert containers.change(event(ONE, "leaf1", "die")) == Change(ONE, "leaf1", ends=True)
    assert containers.change(b"\n") is None


BAD = [
    (containers.running, b""),
    (containers.running, b"{}"),
    (containers.running, b"[" * 100_000),
    (containers.running, as_json([listed("../../info", "leaf1")])),
    (containers.running, as_json([{"Id": ONE, "Names": [1], "State": "running"}])),
    (containers.inspected, b"[]"),
    (containers.inspected, as_json(state(ONE, "leaf1", "run/docker"))),
    (containers.inspected, as_json(state(ONE, "leaf1", "/run/\x1b[2J"))),
    (containers.inspected, as_json(state(ONE, "leaf1", "/" + "x" * 5000))),
    (containers.inspected, as_json(state(ONE, "leaf1", pid=True))),
    (containers.inspected, as_json({**state(ONE, "leaf1"), "State": None})),
    (containers.change, b"9" * 10_000),
    (containers.change, as_json({"Actor": {"ID": 5}})),
    (containers.change, as_json({"Actor": None})),
]


@pytest.mark.parametrize(("read", "answer"), BAD, ids=range(len(BAD)))
def test_what_is_not_as_it_should_be_is_refused(
    read: Callable[[bytes], object], answer: bytes
) -> None:
    with pytest.raises(GarbledError):
        read(answer)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["Id", "ID", "Names", "Name", "State", "Actor", "Pid", "Running"]), inner
    ),
    max_leaves=20,
)  # fmt: skip


@given(_JSON)
def test_no_answer_does_harm(value: object) -> None:
    for read in (containers.running, containers.inspected, containers.change):
        with suppress(GarbledError):
            read(as_json(value))


def test_the_sockets_are_those_of_the_clients() -> None:
    docker, podman = addresses({})
    assert docker.sockets == ("/run/docker.sock", "/var/run/docker.sock")
    assert podman.sockets == ("/run/podman/podman.sock",)
    hosts = {"DOCKER_HOST": "unix:///tmp/d.sock", "CONTAINER_HOST": "ssh://root@far"}
    assert addresses(hosts) == (
        Address("Docker", ("/tmp/d.sock",)),
        Address("Podman", refusal="Podman is not asked (CONTAINER_HOST is no unix:///PATH)"),
    )


# --------------------------------------------------------------------------- an engine


class Engine:
    """Containers by id, and whoever listens to events. Each connection has a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.containers: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.rubbish: dict[str, bytes] = {}
        """By path, what is said in place of all that should be."""
        self.listeners: list[SimpleQueue[bytes]] = []
        self._ending = False
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._start(self._accept)

    @property
    def address(self) -> Address:
        return Address("Docker", (str(self.path),))

    def run(self, container: str, name: str, sandbox: str, pid: int = 0) -> None:
        """Without ``pid`` it has a process that ends with it."""
        if not pid:
            self._processes[container] = subprocess.Popen(("sleep", "100"))
            pid = self._processes[container].pid
        self.containers[container] = state(container, name, sandbox, pid)
        self.tell(event(container, name))

    def remove(self, container: str, action: str = "die") -> None:
        name = self.containers.pop(container)["Name"].removeprefix("/")
        self._end(container)
        self.tell(event(container, name, action))

    def _end(self, container: str) -> None:
        process = self._processes.pop(container)
        process.kill()
        process.wait()

    def tell(self, line: bytes) -> None:
        for each in self.listeners:
            each.put(line)

    def close(self) -> None:
        """As by SIGKILL: the file of the socket stays."""
        self._ending = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()
        for container in [*self._processes]:
            self._end(container)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, client.makefile("rb") as requests:
            while line := requests.readline():
                while requests.readline().strip():
                    pass
                target = line.decode().split()[1]
                self.asked.append(urlsplit(target).path)
                self._answer(client, target)

    def _answer(self, client: socket.socket, target: str) -> None:
        path = urlsplit(target).path
        if (rubbish := self.rubbish.get(path)) is not None:
            client.sendall(rubbish)
            client.shutdown(socket.SHUT_WR)
        elif path == "/events":
            self._stream(client, parse_qs(urlsplit(target).query))
        elif path == "/containers/json":
            each = (listed(key, one["Name"][1:]) for key, one in self.containers.items())
            _reply(client, "200 OK", as_json([*each]))
        elif found := self.containers.get(path.split("/")[2]):
            _reply(client, "200 OK", as_json(found))
        else:
            _reply(client, "404 Not Found", b'{"message":"No such container"}\n')

    def _stream(self, client: socket.socket, query: dict[str, list[str]]) -> None:
        assert json.loads(query["filters"][0])["type"] == ["container"]
        lines: SimpleQueue[bytes] = SimpleQueue()
        self.listeners.append(lines)  # before it is told: here nothing of the past is told again
        client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not self._ending:
            with suppress(Empty):
                line = lines.get(timeout=0.05)
                client.sendall(b"%x\r\n%s\r\n" % (len(line), line))


def _reply(client: socket.socket, status: str, body: bytes) -> None:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    client.sendall(f"{head}\r\n\r\n".encode() + body)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with closing(Engine(tmp_path / "engine.sock")) as made:
        yield made


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Nodes]]:
    """Makes a ``Nodes`` that asks these engines, and closes it."""
    named = tmp_path / "netns"
    named.mkdir()
    with ExitStack() as stack:

        def make(*engines: Address, timeout: float = 10.0, **options: Any) -> Nodes:
            nodes = Nodes(named=named, engines=engines, timeout=timeout, **options)
            return stack.enter_context(closing(nodes))

        yield make


@pytest.fixture
def sandbox(tmp_path: Path) -> Callable[[str], str]:
    """A file of a namespace, under a name of its own."""

    def link(name: str) -> str:
        (tmp_path / name).symlink_to(OWN)
        return str(tmp_path / name)

    return link


def wait(nodes: Nodes, condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Until it is true, as the daemon waits: it looks when it was woken, here by engines alone."""
    with suppress(FileNotFoundError):  # other mounts of this machine would wake it as well
        nodes._news.unregister(nodes._mounts)
    deadline = time.monotonic() + seconds
    while not condition():
        left = deadline - time.monotonic()
        assert left > 0, condition
        if select.select([nodes], [], [], left)[0]:
            nodes.drain()


def test_a_container_is_found_by_its_name(
    engine: Engine, make: Callable[..., Nodes], sandbox: Callable[[str], str]
) -> None:
    engine.run(ONE, "clab-dc1-leaf1", sandbox("one"))
    nodes = make(engine.address)
    said = Node("leaf1", container="clab-dc1-leaf1")
    nodes.want([said, Node("clab-dc1-leaf1"), Node("spine")])
    assert nodes.find(said) == nodes.find(Node("clab-dc1-leaf1"))
    assert nodes.find(said).path.endswith("/one")
    away = nodes.find(Node("spine"))
    assert away.certain
    assert away.reason.startswith("node spine is not running: there is no ")
    assert away.reason.endswith("/netns/spine, and no container spine runs in Docker")


def test_those_that_are_not_wanted_are_not_asked_for(
    engine: Engine, make: Callable[..., Nodes], sandbox: Callable[[str], str]
) -> None:
    engine.run(ONE, "leaf1", sandbox("one"))
    engine.run(TWO, "leaf2", sandbox("two"))
    nodes = make(engine.address)
    nodes.want([LEAF])
    assert nodes.find(LEAF).path
    engine.run("3" * 64, "leaf3", sandbox("three"))
    engine.remove(TWO)
    engine.remove(ONE)
    wait(nodes, lambda: not nodes.find(LEAF).path)
    assert {each for each in engine.asked if ONE not in each} == {"/events", "/containers/json"}


def test_events_tell_of_start_end_and_other_names(
    engine: Engine, make: Callable[..., Nodes], sandbox: Callable[[str], str]
) -> None:
    nodes = make(engine.address)
    nodes.want([LEAF])
    assert not nodes.find(LEAF).path
    engine.run(ONE, "leaf1", sandbox("one"))
    wait(nodes, lambda: nodes.find(LEAF).path.endswith("/one"))
    engine.containers[ONE]["Name"] = "/old"
    engine.tell(event(ONE, "old", "rename"))
    wait(nodes, lambda: not nodes.find(LEAF).path)
    engine.run(TWO, "leaf1", sandbox("two"))
    wait(nodes, lambda: nodes.find(LEAF).path.endswith("/two"))
    engine.remove(ONE)
    engine.remove(TWO, "destroy")
    wait(nodes, lambda: not nodes.find(LEAF).path)
    assert nodes.find(LEAF).certain
    assert len(engine.listeners) == 1, "all in one stream"


def test_a_name_that_is_wanted_later_is_asked_for(
    engine: Engine, make: Callable[..., Nodes], sandbox: Callable[[str], str]
) -> None:
    engine.run(ONE, "leaf1", sandbox("one"))
    nodes = make(engine.address)
    nodes.want([Node("spine")])
    assert not nodes.find(Node("spine")).path
    nodes.want([Node("spine"), LEAF])
    wait(nodes, lambda: nodes.find(LEAF).path)
    assert nodes.drain() == frozenset()


def test_what_an_engine_said_last_is_true_while_it_is_away(
    engine: Engine,
    make: Callable[..., Nodes],
    sandbox: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_http, "_is_in_our_pid_namespace", lambda _: False)
    one = sandbox("one")
    engine.run(ONE, "leaf1", one)
    nodes = make(engine.address)
    nodes.want([LEAF, Node("spine")])
    assert nodes.find(LEAF) == NodeNamespace(one)
    engine.close()
    wait(nodes, lambda: nodes.find(LEAF).warning)
    assert nodes.find(LEAF).path == one
    wait(nodes, lambda: "Connection refused" in nodes.find(LEAF).warning)
    silence = f"Docker does not answer: {engine.path}: Connection refused"
    assert nodes.find(LEAF).warning == silence
    text = f"node spine cannot be looked for: {silence}"
    assert nodes.find(Node("spine")) == NodeNamespace("", text, certain=False)
    Path(one).unlink()
    text = f"node leaf1 cannot be looked for: {silence}"
    assert nodes.find(LEAF) == NodeNamespace("", text, certain=False)
    engine.path.unlink()
    wait(nodes, lambda: nodes.find(LEAF).reason.endswith(f"there is no {engine.path}"))
    with closing(Engine(engine.path)) as again:
        again.run(TWO, "leaf1", sandbox("two"))
        wait(nodes, lambda: nodes.find(LEAF).path.endswith("/two"))
        assert nodes.find(LEAF).warning == ""


def test_an_engine_that_was_never_there_is_no_doubt(
    make: Callable[..., Nodes], tmp_path: Path
) -> None:
    nodes = make(Address("Docker", (str(tmp_path / "none"), str(tmp_path / "either"))))
    nodes.want([Node("leaf1", container="leaf1")])
    text = "node leaf1 is not running: there is no container engine here"
    assert nodes.find(Node("leaf1", container="leaf1")) == NodeNamespace("", text)


def test_a_socket_that_is_somebody_elses_is_a_doubt(
    make: Callable[..., Nodes], tmp_path: Path
) -> None:
    file = tmp_path / "engine.sock"
    file.touch()
    nodes = make(Address("Docker", (str(file),)))
    nodes.want([LEAF])
    found = nodes.find(LEAF)
    assert not found.certain
    assert found.reason == (
        f"node leaf1 cannot be looked for: Docker does not answer: {file}: Connection refused"
    )


GOOD = b"HTTP/1.1 200 OK\r\n"
RUBBISH = {
    "nothing": b"",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "an error": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    "a part": GOOD + b"Content-Length: 100\r\n\r\n[",
    "no text": GOOD + b"Content-Length: 3\r\n\r\n\xff\xfe\n",
    "no chunk": GOOD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a long line": GOOD + b"Content-Length: 2000001\r\n\r\n" + b"x" * 2000001,
    "many headers": GOOD + b"X: y\r\n" * 1000,
}


@pytest.mark.parametrize("path", ["/events", "/containers/json", f"/containers/{ONE}/json"])
@pytest.mark.parametrize("rubbish", RUBBISH.values(), ids=RUBBISH)
def test_rubbish_harms_nothing(
    engine: Engine,
    make: Callable[..., Nodes],
    sandbox: Callable[[str], str],
    path: str,
    rubbish: bytes,
) -> None:
    one = sandbox("one")
    engine.run(ONE, "leaf1", one)
    engine.rubbish[path] = rubbish
    nodes = make(engine.address)
    nodes.want([LEAF])
    found = nodes.find(LEAF)
    # A stream that says nothing good is left; what was said before it did counts.
    assert (found.path, found.certain) in ((one, True), ("", False))
    wait(
        nodes,
        lambda: "Docker does not answer" in nodes.find(LEAF).reason + nodes.find(LEAF).warning,
    )
    engine.rubbish.clear()
    wait(nodes, lambda: nodes.find(LEAF) == NodeNamespace(one))


def test_an_engine_that_speaks_rubbish_is_asked_less_and_less_often(
    engine: Engine, make: Callable[..., Nodes]
) -> None:
    engine.rubbish["/containers/json"] = RUBBISH["another protocol"]
    nodes = make(engine.address)
    nodes.want([LEAF])
    nodes.find(LEAF)
    time.sleep(1.0)
    assert engine.asked.count("/containers/json") <= 4, "after 0, 0.1, 0.3 and 0.7 s"


def test_an_engine_that_says_nothing_holds_nobody(
    make: Callable[..., Nodes], tmp_path: Path
) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as silent:
        silent.bind(str(tmp_path / "engine.sock"))
        silent.listen(16)
        nodes = make(Address("Docker", (str(tmp_path / "engine.sock"),)), timeout=0.2)
        started = time.monotonic()
        nodes.want([LEAF])
        assert nodes.find(LEAF).reason == (
            "node leaf1 cannot be looked for: Docker has not answered yet"
        )
        assert 0.1 < time.monotonic() - started < 1.0
        assert nodes.find(LEAF).certain is False
        assert time.monotonic() - started < 1.0, "it has waited once"


def test_a_name_in_two_places_is_that_of_the_namespace_and_a_warning(
    engine: Engine, make: Callable[..., Nodes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second namespace takes root to make: each path is one here."""
    monkeypatch.setattr(namespace_files, "identity", lambda path: (hash(path), 0))
    monkeypatch.setattr(namespace_files, "require_network", lambda _: None)
    engine.run(ONE, "leaf1", SANDBOX)
    nodes = make(engine.address)
    nodes.want([LEAF])
    named = tmp_path / "netns" / "leaf1"
    assert nodes.find(LEAF) == NodeNamespace(
        str(named),
        warning=f"{named} and {SANDBOX} are two namespaces, and node leaf1 may be either: the first"
        " is used, until an entry in nodes says which",
    )


def test_one_namespace_by_two_names_is_no_warning(
    engine: Engine, make: Callable[..., Nodes], sandbox: Callable[[str], str], tmp_path: Path
) -> None:
    """containerlab links the namespaces of its containers in /run/netns."""
    engine.run(ONE, "leaf1", sandbox("one"))
    (tmp_path / "netns" / "leaf1").symlink_to(OWN)
    nodes = make(engine.address)
    nodes.want([LEAF])
    assert nodes.find(LEAF) == NodeNamespace(str(tmp_path / "netns" / "leaf1"))


@pytest.mark.parametrize("file", ["", "/nowhere"])
def test_without_a_file_the_process_is_the_way(
    engine: Engine, make: Callable[..., Nodes], file: str
) -> None:
    """Podman makes none for `--network none`, nobody for a namespace that is shared.

    And one may be where it cannot be seen from here.
    """
    engine.run(ONE, "leaf1", file, pid=os.getpid())
    nodes = make(engine.address)
    nodes.want([LEAF])
    assert nodes.find(LEAF) == NodeNamespace(f"/proc/{os.getpid()}/ns/net")


def test_of_a_container_that_ends_nobody_is_asked(
    engine: Engine, make: Callable[..., Nodes], sandbox: Callable[[str], str]
) -> None:
    """Docker would answer when it has started again. What is told again may be of before that."""
    engine.run(ONE, "leaf1", sandbox("one"))
    nodes = make(engine.address)
    nodes.want([LEAF])
    assert nodes.find(LEAF).path
    asked = len(engine.asked)
    engine.tell(event(ONE, "leaf1", "die"))
    engine.run(TWO, "leaf2", sandbox("two"))
    engine.remove(ONE)
    wait(nodes, lambda: not nodes.find(LEAF).path)
    assert nodes.find(LEAF).certain
    assert len(engine.asked) == asked


def test_a_container_whose_process_has_ended_does_not_run(
    engine: Engine, make: Callable[..., Nodes]
) -> None:
    """Podman tells of the end of one, and says for a while that it runs."""
    process = subprocess.Popen(("sleep", "100"))
    engine.run(ONE, "leaf1", "", pid=process.pid)
    nodes = make(engine.address)
    nodes.want([LEAF])
    assert nodes.find(LEAF).path
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie
    assert not nodes.find(LEAF).path
    engine.tell(event(ONE, "leaf1", "die"))
    wait(nodes, lambda: nodes.find(LEAF).certain)
    process.wait()


def test_a_container_that_is_started_again_is_found_before_its_engine_tells(
    engine: Engine, make: Callable[..., Nodes]
) -> None:
    """Podman tells of a start up to half a second late."""
    processes = [subprocess.Popen(("sleep", "100")) for _ in range(3)]
    pids = [process.pid for process in processes]
    engine.run(ONE, "leaf1", "", pid=pids[0])
    nodes = make(engine.address)
    nodes.want([LEAF])
    assert nodes.find(LEAF).path == f"/proc/{pids[0]}/ns/net"
    for process, pid in zip(processes, [*pids[1:], os.getpid()], strict=True):
        process.kill()
        process.wait()
        assert nodes.drain() == {"leaf1"}
        engine.containers[ONE] = state(ONE, "leaf1", pid=pid)
        wait(nodes, lambda pid=pid: nodes.find(LEAF).path == f"/proc/{pid}/ns/net")


def test_a_container_that_stays_away_is_looked_for_but_a_while(
    engine: Engine, make: Callable[..., Nodes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_RESTART_WATCH", 0.2)
    process = subprocess.Popen(("sleep", "100"))
    engine.run(ONE, "leaf1", "", pid=process.pid)
    nodes = make(engine.address)
    nodes.want([LEAF])
    assert nodes.find(LEAF).path
    process.kill()
    process.wait()
    before = threading.active_count()
    for _ in range(3):
        assert not nodes.find(LEAF).path
        wait(nodes, lambda: len(engine.asked) > 5)
    deadline = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    asked = len(engine.asked)
    assert not nodes.find(LEAF).path
    nodes.drain()
    assert len(engine.asked) == asked


def test_a_container_whose_namespace_cannot_be_had_is_a_doubt(
    engine: Engine, make: Callable[..., Nodes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is another one here, if the engine is in a pid namespace of its own."""
    monkeypatch.setattr(engine_http, "_is_in_our_pid_namespace", lambda _: False)
    engine.run(ONE, "leaf1", "/nowhere")
    engine.run(TWO, "leaf2", "")
    one, two = Node("leaf1", container="leaf1"), Node("leaf2", container="leaf2")
    nodes = make(engine.address)
    nodes.want([one, two])
    text = "container leaf1 runs in Docker, but there is no /nowhere"
    found = NodeNamespace("", f"node leaf1 cannot be looked for: {text}", certain=False)
    assert nodes.find(one) == found
    text = "container leaf2 runs in Docker, but its processes cannot be seen from here"
    found = NodeNamespace("", f"node leaf2 cannot be looked for: {text}", certain=False)
    assert nodes.find(two) == found


def test_who_only_looks_asks_once(
    engine: Engine, make: Callable[..., Nodes], sandbox: Callable[[str], str]
) -> None:
    engine.run(ONE, "leaf1", sandbox("one"))
    nodes = make(engine.address, follow=False)
    nodes.want([LEAF])
    assert nodes.find(LEAF).path
    assert engine.asked == ["/containers/json", f"/containers/{ONE}/json"]


def test_no_engine_is_asked_for_what_has_another_entry(
    engine: Engine, make: Callable[..., Nodes]
) -> None:
    nodes = make(engine.address)
    nodes.want([Node("blue", netns=OWN), Node("r7", pid=os.getpid())])
    assert nodes.find(Node("blue", netns=OWN)).path
    assert engine.asked == []
    nodes.want([LEAF])
    assert not nodes.find(LEAF).path
    assert len(engine.listeners) == 1
    nodes.want([Node("blue", netns=OWN)])
    assert not [each for each in threading.enumerate() if each.name == "Docker"]


def test_an_engine_brings_no_encryption_along_nor_keeps_it_from_others() -> None:
    """It is asked by a unix socket; ssl alone would be 4 MB. prometheus_client wants it."""
    code = (
        "import sys; from xconnectd.nodes.finder import Nodes; from xconnectd.model import Node;"
        "nodes = Nodes(engines=[]); nodes.want([Node('blue', netns='/x')]);"
        "print('http.client' in sys.modules);"
        "from xconnectd.nodes.engine import Address; nodes.close();"
        "nodes = Nodes(engines=[Address('Docker', ('/nowhere',))]); nodes.want([Node('leaf1')]);"
        "print('http.client' in sys.modules, 'ssl' in sys.modules);"
        "import prometheus_client; print('ssl' in sys.modules)"
    )
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False", "True"]


# --------------------------------------------------------------------------- names to be shown


@pytest.mark.parametrize(
    "cgroup",
    [
        f"0::/system.slice/docker-{ONE}.scope\n",
        f"12:cpu:/docker/{TWO}/docker/{ONE}\n0::/\n",
        f"0::/machine.slice/libpod-{ONE}.scope/container\n",
    ],
)
def test_a_container_is_told_by_a_control_group(cgroup: str) -> None:
    assert container_names.container_in(cgroup) == ONE
    assert container_names.container_in("0::/init.scope\n") == ""


def test_names_are_asked_of_every_engine_and_none_is_waited_for(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_names, "_TIMEOUT", 0.2)
    engine.run(ONE, "leaf1", "")
    with closing(socket.socket(socket.AF_UNIX)) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        others = [Address("x", (str(tmp_path / name),)) for name in ("silent", "nobody")]
        asked = [*others, engine.address, Address("y", refusal="no")]
        assert container_names.names_by_id(asked) == {ONE: "leaf1"}
    engine.rubbish["/containers/json"] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    assert container_names.names_by_id([engine.address]) == {}
