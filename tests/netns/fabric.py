"""A fabric of nodes, in namespaces that are made beforehand: all else is in the daemon's file."""

from __future__ import annotations

import ctypes
import json
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, product
from typing import Any, Final

from .lab import NETNS, Lab, run

_CLONE_NEWNET: Final = 0x40000000
_MS_BIND: Final = 4096
_MNT_DETACH: Final = 2
_libc = ctypes.CDLL(None, use_errno=True)

Links = dict[str, Any]


def spine_leaf(spines: int = 4, leaves: int = 36) -> Links:
    """Every leaf to every spine, and the spines to one another: 40 nodes with 150 links."""
    ports = {f"spine{n}": 0 for n in range(spines)} | {f"leaf{n}": 0 for n in range(leaves)}

    def port(node: str) -> str:
        ports[node] += 1
        return f"{node}:eth{ports[node]}"

    names = [*ports]
    pairs = [*product(names[:spines], names[spines:]), *combinations(names[:spines], 2)]
    return {port(a): port(b) for a, b in pairs}


def nodes_of(links: Links) -> list[str]:
    ends = [*links, *(to if isinstance(to, str) else to["to"] for to in links.values())]
    return [*dict.fromkeys(end.partition(":")[0] for end in ends if ":" in end)]


def document(lab: Lab, links: Links, **more: Any) -> str:
    """A file in which each node is the namespace of this lab with its name."""
    nodes = {name: {"netns": str(NETNS / f"{lab.name}-{name}")} for name in nodes_of(links)}
    return json.dumps({"links": links, **({"nodes": nodes} if nodes else {}), **more})


def make_nodes(lab: Lab, links: Links) -> dict[str, str]:
    """The namespaces of all nodes, by what the file calls them."""
    return {name: lab.namespace(name, quiet=True) for name in nodes_of(links)}


def start(namespace: str) -> None:
    """As ``ip netns add``, without a process: when this returns it has been there for no time."""
    path = NETNS / namespace

    def work() -> None:
        _check(_libc.unshare(_CLONE_NEWNET))
        here = f"/proc/{os.getpid()}/task/{_libc.gettid()}/ns/net".encode()
        _check(_libc.mount(here, bytes(path), b"none", _MS_BIND, None))

    path.touch()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(work).result()


def stop(namespace: str) -> None:
    """As ``ip netns delete``."""
    path = NETNS / namespace
    _check(_libc.umount2(bytes(path), _MNT_DETACH))
    path.unlink()


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def interfaces(namespace: str) -> list[str]:
    """What is there beside lo."""
    shown = json.loads(run("ip", "-j", "link", "show", namespace=namespace).stdout)
    return [each["ifname"] for each in shown if each["ifname"] != "lo"]
