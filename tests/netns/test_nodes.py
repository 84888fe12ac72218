"""Finding nodes by the files of real namespaces, which come and go by mounts."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from xconnectd.model import Node, NodeNamespace
from xconnectd.nodes.finder import Nodes

from .lab import NETNS, Lab, meanwhile, poll, run

_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with contextlib.closing(Nodes(engines=())) as made:
        yield made


def is_readable(nodes: Nodes, seconds: float = 0.0) -> bool:
    return bool(select.select([nodes], [], [], seconds)[0])


def told(nodes: Nodes, name: str, seconds: float = 10.0) -> bool:
    """Whether that node is told to have changed, by who waits as the daemon does.

    Other mounts of this machine wake it too.
    """
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if is_readable(nodes, left) and name in nodes.drain():
            return True
    return False


def test_a_namespace_that_gets_its_name_wakes_and_one_that_loses_it(nodes: Nodes, lab: Lab) -> None:
    name = f"{lab.name}-leaf"
    leaf = Node(name)
    nodes.want([leaf])
    lab.namespace("leaf")
    assert told(nodes, name)
    assert nodes.find(leaf) == NodeNamespace(f"{NETNS}/{name}")
    run("ip", "netns", "delete", name)
    assert told(nodes, name)
    assert f"node {name} is not running: there is no {NETNS}/{name}" in nodes.find(leaf).reason


def test_a_namespace_that_was_made_anew_between_two_looks_is_another_one(
    nodes: Nodes, lab: Lab
) -> None:
    """The kernel gives its number to the next one at once, here to one of a few."""
    name = lab.namespace("leaf")
    nodes.want([Node(name)])
    numbers = set()
    for _ in range(20):
        run("ip", "netns", "delete", name)
        run("ip", "netns", "add", name)
        numbers.add((NETNS / name).stat().st_ino)
        assert nodes.drain() == {name}
    print(f"{len(numbers)} numbers of 20")


def test_no_change_is_missed_beside_a_flood_of_mounts(nodes: Nodes, lab: Lab) -> None:
    """Each look at the selector takes the news with it, whoever it is for."""
    name, place = f"{lab.name}-leaf", lab.directory / "mounted"
    place.mkdir()

    def mount() -> None:
        _libc.mount(b"none", os.fsencode(place), b"tmpfs", 0, None)
        _libc.umount2(os.fsencode(place), 2)

    nodes.want([Node(name)])
    with meanwhile(mount) as counts:
        for _ in range(30):
            run("ip", "netns", "add", name)
            assert told(nodes, name)
            run("ip", "netns", "delete", name)
            assert told(nodes, name)
        assert sum(counts()) > 100


def test_who_waits_is_not_woken_again_and_again(nodes: Nodes, lab: Lab) -> None:
    """The file of the mounts can be read at any time."""
    nodes.want([Node(lab.host)])
    deadline, woken = time.monotonic() + 0.3, 0
    while (left := deadline - time.monotonic()) > 0:
        woken += is_readable(nodes, left)
    assert woken < 100, "others may be mounting"


def test_no_namespace_is_kept_alive(nodes: Nodes, lab: Lab) -> None:
    name = lab.namespace("leaf")
    lab.ip(f"link add far type veth peer name near netns {name}")
    leaf = Node(name)
    nodes.want([leaf])
    assert nodes.find(leaf).path
    run("ip", "netns", "delete", name)
    deadline = time.monotonic() + 10
    while "far" in lab.interfaces():
        assert time.monotonic() < deadline
        nodes.drain()


# A helper process that is left behind is waited for by nobody.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_file_of_a_dead_file_system_holds_nobody(nodes: Nodes, lab: Lab) -> None:
    """A server of FUSE that never answers. Who asks it waits for ever."""
    place = lab.directory / "dead"
    place.mkdir()
    server = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0"
    assert not _libc.mount(b"none", os.fsencode(place), b"fuse", 0, options.encode())
    try:
        blue, leaf = Node("blue", netns=f"{place}/blue"), Node(lab.host)
        nodes.want([blue, leaf])
        started = time.monotonic()
        found = nodes.find(blue)
        assert time.monotonic() - started < 0.1, "the second look does not wait"
        assert (found.path, found.certain) == ("", False)
        assert found.reason == (
            f"node blue cannot be looked for: {place}/blue: the file system at {place} does not"
            " answer"
        )
        assert nodes.find(leaf) == NodeNamespace(f"{NETNS}/{lab.host}")
    finally:
        os.close(server)  # which answers all that wait
        assert not _libc.umount2(os.fsencode(place), 2)


def test_a_process_is_a_node_while_it_runs(nodes: Nodes, lab: Lab) -> None:
    name = lab.namespace("leaf")
    command = ("nsenter", f"--net={NETNS / name}", "sleep", "100")
    process = subprocess.Popen(command)
    lab.on_close(process.kill)
    router = Node("r7", pid=process.pid)
    nodes.want([router])
    path = Path(f"/proc/{process.pid}/ns/net")
    poll(lambda: path.samefile(NETNS / name), what="nsenter")
    nodes.drain()
    assert nodes.find(router).path == str(path)
    process.kill()
    process.wait()
    assert nodes.drain() == {"r7"}
    assert nodes.drain() == frozenset()
