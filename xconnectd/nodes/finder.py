"""Finds the network namespaces of nodes, and tells when one has changed.

A node is looked for again whenever somebody asks: what is remembered is only what cannot be read
again (when a process was started, what an engine said last).
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable
from errno import EACCES, ENOENT, EPERM, ETIMEDOUT
from pathlib import Path
from typing import Any, Final, NamedTuple

from xconnectd.config.mounts import Disk
from xconnectd.model import Node, NodeNamespace
from xconnectd.nodes import namespace_files
from xconnectd.nodes.namespace_files import Identity

_NAMED: Final = Path("/run/netns")
_UNCERTAIN: Final = frozenset((EACCES, EPERM, ETIMEDOUT))
"""Answers that leave it open whether there is anything."""

_Ask = Callable[[Callable[[str], Any], str], Any]
"""Has a function of a module look at a path."""


class _Seen(NamedTuple):
    """Where a node was found, and whether that is the same namespace as before."""

    where: NodeNamespace
    identity: Identity | None = None


class Nodes:
    """Where the nodes are that a wiring names.

    Nothing is opened (but the descriptor that is to be waited for), imported or looked at while
    ``want`` names none. No namespace's file stays open.
    """

    def __init__(self, *, named: Path = _NAMED) -> None:
        """``named`` is the directory with the namespaces that have names, as ``ip netns`` has."""
        self._named = named
        self._wanted: dict[str, Node] = {}
        self._seen: dict[str, _Seen] = {}
        """What ``drain`` has told, by name."""
        self._networks: dict[str, Identity] = {}
        """By path, what is known to be a network namespace and no other kind."""
        self._starts: dict[Node, int] = {}
        """When the process of a node was started."""
        self._disk: Disk | None = None
        self._news = select.epoll()
        self._mounts = -1

    # ------------------------------------------------------------------ what is wanted

    def want(self, nodes: Iterable[Node]) -> None:
        """Replaces what was wanted. The process of a node is the one with its number now."""
        wanted = {node.name: node for node in nodes}
        if wanted == self._wanted:
            return
        self._wanted = wanted
        self._starts = {node: at for node, at in self._starts.items() if node in wanted.values()}
        self._follow_mounts(bool(wanted))
        self._seen = {node.name: self._look(node) for node in wanted.values()}

    def _follow_mounts(self, wanted: bool) -> None:
        """A namespace gets its name by a mount, which inotify tells too early and this in time.

        The file can always be read, and each poll(2) of it that tells of a change takes the news
        with it (fs/proc_namespace.c), also that of the selector which waits for the epoll in which
        it stands. So ``drain`` looks at all there is and asks nobody whether to.
        """
        if wanted and self._mounts < 0:
            self._mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
            self._news.register(self._mounts, select.EPOLLPRI)
        elif not wanted and self._mounts >= 0:
            os.close(self._mounts)
            self._mounts = -1

    # ------------------------------------------------------------------ news

    def fileno(self) -> int:
        """Readable when something may have changed, until ``drain``."""
        return self._news.fileno()

    def drain(self) -> frozenset[str]:
        """Names of the nodes of which something has changed since they are wanted or were told.

        To be called each second too: a symbolic link that comes, and a process that ends, wake
        nobody.
        """
        seen = {node.name: self._look(node) for node in self._wanted.values()}
        changed = frozenset(name for name, each in seen.items() if each != self._seen.get(name))
        self._seen = seen
        return changed

    def close(self) -> None:
        self._follow_mounts(wanted=False)
        self._news.close()
        if self._disk:
            self._disk.close()

    # ------------------------------------------------------------------ one node

    def find(self, node: Node) -> NodeNamespace:
        """Where it is now. Waits for nobody."""
        return self._look(node).where

    def _look(self, node: Node) -> _Seen:
        if node.netns:
            return self._at(node, node.netns, self._patiently)
        if node.pid:
            return self._of_process(node)
        if node.container:
            return _away(node, "no container engine is asked yet", certain=False)
        return self._at(node, str(self._named / node.name))

    def _at(self, node: Node, path: str, ask: _Ask = lambda look, path: look(path)) -> _Seen:
        """A node by its namespace's file."""
        try:
            identity = ask(namespace_files.identity, path)
            if self._networks.get(path) != identity:
                ask(namespace_files.require_network, path)
                self._networks[path] = identity
        except OSError as error:
            self._networks.pop(path, None)
            return _away(node, _words(error, path), certain=error.errno not in _UNCERTAIN)
        return _Seen(NodeNamespace(path), identity)

    def _patiently(self, look: Callable[[str], Any], path: str) -> Any:
        """Asks for a file that the user names, which may lie where nobody answers."""
        if self._disk is None:
            self._disk = Disk()
        return self._disk.ask(look, path)

    def _of_process(self, node: Node) -> _Seen:
        start = namespace_files.start_of_process(node.pid)
        if start is None:
            gone = "has ended" if node in self._starts else "does not exist"
            return _away(node, f"process {node.pid} {gone}")
        if self._starts.setdefault(node, start) != start:
            text = f"process {node.pid} has ended, and that number is another one's now"
            return _away(node, text)
        return self._at(node, namespace_files.of_process(node.pid))


def _away(node: Node, why: str, *, certain: bool = True) -> _Seen:
    what = "is not running" if certain else "cannot be looked for"
    return _Seen(NodeNamespace("", f"node {node.name} {what}: {why}", certain))


def _words(error: OSError, path: str) -> str:
    if error.errno == ENOENT:
        return f"there is no {path}"
    return f"{path}: {error.strerror}"
