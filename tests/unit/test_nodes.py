"""Where a node is found, and when it is told that it has changed: links to real namespaces.

Bind mounts, which need root, are in tests/netns/test_nodes.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from xconnectd.model import Node, NodeNamespace
from xconnectd.netlink import netns
from xconnectd.nodes import namespace_files
from xconnectd.nodes.finder import Nodes

OWN = "/proc/self/ns/net"
NO_ENGINE = "there is no container engine here"


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """With ``tmp_path`` in place of /run/netns."""
    made = Nodes(named=tmp_path, engines=())
    yield made
    made.close()


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    made = subprocess.Popen(("sleep", "100"))
    yield made
    made.kill()
    made.wait()


def test_a_node_is_found_by_its_name(nodes: Nodes, tmp_path: Path) -> None:
    leaf = Node("leaf1")
    text = f"node leaf1 is not running: there is no {tmp_path}/leaf1, and {NO_ENGINE}"
    assert nodes.find(leaf) == NodeNamespace("", text)
    (tmp_path / "leaf1").symlink_to(OWN)
    assert nodes.find(leaf) == NodeNamespace(f"{tmp_path}/leaf1")


def test_a_node_is_found_by_the_file_its_entry_names(nodes: Nodes, tmp_path: Path) -> None:
    (tmp_path / "blue").symlink_to(OWN)
    (tmp_path / "other").symlink_to(OWN)
    assert nodes.find(Node("blue", netns=f"{tmp_path}/other")).path == f"{tmp_path}/other"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Path.touch, "it is no namespace's file"),
        (os.mkfifo, "it is no namespace's file"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (
            lambda path: path.symlink_to("/proc/self/ns/mnt"),
            "it is a namespace's file, but of no network namespace",
        ),
    ],
)
def test_what_is_no_network_namespace_is_told_as_that(
    nodes: Nodes, tmp_path: Path, make: object, reason: str
) -> None:
    assert callable(make)
    make(tmp_path / "leaf1")
    text = f"node leaf1 is not running: {tmp_path}/leaf1: {reason}"
    assert nodes.find(Node("leaf1", netns=f"{tmp_path}/leaf1")) == NodeNamespace("", text)
    assert nodes.find(Node("leaf1")) == NodeNamespace("", f"{text}, and {NO_ENGINE}")


def test_a_node_is_found_by_its_process(nodes: Nodes, process: subprocess.Popen[bytes]) -> None:
    router = Node("r7", pid=process.pid)
    assert nodes.find(router) == NodeNamespace(f"/proc/{process.pid}/ns/net")
    process.kill()
    process.wait()
    text = f"node r7 is not running: process {process.pid} has ended"
    assert nodes.find(router) == NodeNamespace("", text)


def test_the_number_of_an_ended_process_is_not_the_node(
    nodes: Nodes, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    router = Node("r7", pid=process.pid)
    nodes.want([router])
    monkeypatch.setattr(namespace_files, "start_of_process", lambda _: 1)
    text = (
        f"node r7 is not running: process {process.pid} has ended, and that number is another"
        " one's now"
    )
    assert nodes.find(router) == NodeNamespace("", text)
    nodes.want([])
    nodes.want([router])  # who names it anew means the one of now
    assert nodes.find(router).path == f"/proc/{process.pid}/ns/net"


def test_a_command_may_be_called_anything(tmp_path: Path) -> None:
    """The kernel puts it into /proc/PID/stat as it is."""
    program = tmp_path / ") R 1 1"
    program.symlink_to(sys.executable)
    hostile = subprocess.Popen((program, "-c", "input()"), stdin=subprocess.PIPE)
    honest = subprocess.Popen(("sleep", "100"))
    try:
        one = namespace_files.start_of_process(hostile.pid)
        other = namespace_files.start_of_process(honest.pid)
        assert one is not None
        assert other is not None
        assert 0 <= other - one < 1000  # ticks of 10 ms
    finally:
        for process in (hostile, honest):
            process.kill()
            process.communicate()


def test_what_changes_is_told_once(nodes: Nodes, tmp_path: Path) -> None:
    nodes.want([Node("leaf1"), Node("leaf2")])
    assert nodes.drain() == frozenset()
    (tmp_path / "leaf1").symlink_to(OWN)
    assert nodes.drain() == {"leaf1"}
    assert nodes.drain() == frozenset()
    (tmp_path / "leaf1").unlink()
    (tmp_path / "leaf2").symlink_to(OWN)
    assert nodes.drain() == {"leaf1", "leaf2"}


def test_what_is_not_wanted_is_not_told(nodes: Nodes, tmp_path: Path) -> None:
    nodes.want([Node("leaf1")])
    nodes.want([])
    (tmp_path / "leaf1").symlink_to(OWN)
    assert nodes.drain() == frozenset()


def test_what_was_wanted_anew_is_told_as_it_changes_from_then_on(
    nodes: Nodes, tmp_path: Path
) -> None:
    (tmp_path / "leaf1").symlink_to(OWN)
    nodes.want([Node("leaf1")])
    assert nodes.drain() == frozenset()


def test_without_nodes_nothing_is_opened(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    before = descriptors()
    nodes = Nodes(named=tmp_path, engines=())
    assert descriptors() == before + 1
    nodes.want([Node(f"leaf{number}") for number in range(100)])
    nodes.drain()
    assert descriptors() == before + 3, "mounts, and a bell for engines to ring"
    nodes.want([])
    assert descriptors() == before + 1
    nodes.close()
    assert descriptors() == before


def test_the_file_of_a_namespace_that_is_just_being_made_is_none_yet(tmp_path: Path) -> None:
    """``ip netns add`` mounts it over a plain file: who is to enter it finds nobody there."""
    (tmp_path / "leaf1").touch()
    with pytest.raises(FileNotFoundError), netns.opened(tmp_path / "leaf1"):
        pass
    with netns.opened(OWN) as file:
        assert os.path.samestat(os.fstat(file), Path(OWN).stat())
