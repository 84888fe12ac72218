"""Finds the network namespaces of nodes, and tells when one has changed.

A node is looked for again whenever somebody asks: what is remembered is only what cannot be read
again (when a process was started, what an engine said last).
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from errno import EACCES, ENOENT, EPERM, ETIMEDOUT
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from xconnectd.model import Node, NodeNamespace
from xconnectd.mounts import Disk
from xconnectd.nodes import namespace_files
from xconnectd.nodes.namespace_files import Identity

if TYPE_CHECKING:
    from xconnectd.nodes.containers import Container
    from xconnectd.nodes.engine import Address, Engine

_NAMED: Final = Path("/run/netns")
_PROC: Final = "/proc/"
_UNCERTAIN: Final = frozenset((EACCES, EPERM, ETIMEDOUT))
"""Answers that leave it open whether there is anything."""

_Ask = Callable[[Callable[[str], Any], str], Any]
"""Has a function of a module look at a path."""


class _Look(NamedTuple):
    """At one place where a node may be: the namespace's file, or ``why`` it is not there.

    ``certain``: it is not there for sure. For a file, ``why`` is why it may be of yesterday.
    """

    path: str = ""
    identity: Identity | None = None
    why: str = ""
    certain: bool = True


class Nodes:
    """Where the nodes are that a wiring names.

    Nothing is opened (but the descriptor that is to be waited for), imported or looked at while
    ``want`` names none, and no container engine is asked unless one of them goes by its name alone
    or is said to be a container. No namespace's file stays open.
    """

    def __init__(
        self,
        *,
        named: Path = _NAMED,
        engines: Sequence[Address] | None = None,
        follow: bool = True,
        timeout: float = 0.0,
    ) -> None:
        """``named`` is the directory with the namespaces that have names, as ``ip netns`` has.

        ``engines`` are Docker and Podman, where their own clients would look for them. With
        ``follow`` they tell what happens, otherwise they are asked once. Until ``timeout``
        seconds from now, a ``find`` waits for an engine that has not answered yet.
        """
        self._named = str(named)
        self._addresses = engines
        self._follow = follow
        self._wait_until = time.monotonic() + timeout
        self._wanted: dict[str, Node] = {}
        self._seen: dict[str, list[_Look]] = {}
        """What ``drain`` has told, by name."""
        self._networks: dict[str, Identity] = {}
        """By path, what is known to be a network namespace and no other kind."""
        self._starts: dict[Node, int] = {}
        """When the process of a node was started."""
        self._disk: Disk | None = None
        self._engines: list[Engine] = []
        self._refusals: list[str] = []
        """Why other engines are not asked."""
        self._news = select.epoll()
        self._mounts = -1
        self._lock = threading.Lock()
        self._wakeup = -1

    # ------------------------------------------------------------------ what is wanted

    def want(self, nodes: Iterable[Node]) -> None:
        """Replaces what was wanted. The process of a node is the one with its number now."""
        wanted = {node.name: node for node in nodes}
        if wanted == self._wanted:
            return
        self._wanted = wanted
        self._starts = {node: at for node, at in self._starts.items() if node in wanted.values()}
        self._follow_mounts(bool(wanted))
        self._ask_engines(frozenset(filter(None, map(_container_name, wanted.values()))))
        self._seen = self._look_at_all()

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

    def _ask_engines(self, names: frozenset[str]) -> None:
        if not names:
            self._leave_engines()
        elif self._engines:
            for engine in self._engines:
                engine.want(names)
        else:
            self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._news.register(self._wakeup, select.EPOLLIN)
            self._engines = self._begin_engines(names)

    def _begin_engines(self, names: frozenset[str]) -> list[Engine]:
        from xconnectd.nodes.engine import Engine, addresses

        many = addresses() if self._addresses is None else self._addresses
        self._refusals = [each.refusal for each in many if each.refusal]
        return [
            Engine(each, names, self._wake, follow=self._follow)
            for each in many
            if not each.refusal
        ]

    def _leave_engines(self) -> None:
        for engine in self._engines:
            engine.close()
        self._engines = []
        with self._lock:  # a thread that is held by its engine may wake later
            if self._wakeup >= 0:
                os.close(self._wakeup)
            self._wakeup = -1

    def _wake(self) -> None:
        with self._lock:
            if self._wakeup >= 0:
                os.eventfd_write(self._wakeup, 1)

    # ------------------------------------------------------------------ news

    def fileno(self) -> int:
        """Readable when something may have changed, until ``drain``."""
        return self._news.fileno()

    def drain(self) -> frozenset[str]:
        """Names of the nodes of which something has changed since they are wanted or were told.

        To be called each second too: a symbolic link that comes, and a process that ends, wake
        nobody.
        """
        if self._wakeup >= 0:
            with suppress(BlockingIOError):
                os.eventfd_read(self._wakeup)
        seen = self._look_at_all()
        changed = frozenset(name for name, looks in seen.items() if looks != self._seen[name])
        self._seen = seen
        return changed

    def _look_at_all(self) -> dict[str, list[_Look]]:
        return {name: [*self._places(node)] for name, node in self._wanted.items()}

    def close(self) -> None:
        self._leave_engines()
        self._follow_mounts(wanted=False)
        self._news.close()
        if self._disk:
            self._disk.close()

    # ------------------------------------------------------------------ one node

    def find(self, node: Node) -> NodeNamespace:
        """Where it is now."""
        for engine in self._engines:
            engine.wait(self._wait_until - time.monotonic())
        looks = [*self._places(node)]
        found = [look for look in looks if look.path]
        if not found:
            doubtful = [look for look in looks if not look.certain]
            why = ", and ".join(look.why for look in doubtful or looks if look.why)
            what = "cannot be looked for" if doubtful else "is not running"
            reason = f"node {node.name} {what}: {why}"
            return NodeNamespace("", reason, certain=not doubtful)
        first, *others = found
        warnings = [first.why] if first.why else []
        warnings += [
            f"{first.path} and {other.path} are two namespaces, and node {node.name} may be either:"
            " the first is used, until an entry in nodes says which"
            for other in others
            if other.identity and first.identity and other.identity[0] != first.identity[0]
        ]
        return NodeNamespace(first.path, warning="; ".join(warnings))

    def _places(self, node: Node) -> Iterator[_Look]:
        """Where it may be, the first that counts first."""
        if node.netns:
            yield self._at(node.netns, self._with_timeout)
        elif node.pid:
            yield self._of_process(node)
        else:
            if not node.container:
                yield self._at(f"{self._named}/{node.name}")
            yield from self._in_engines(node.container or node.name)

    # ------------------------------------------------------------------ files

    def _at(self, path: str, ask: _Ask = lambda look, path: look(path)) -> _Look:
        try:
            identity = ask(namespace_files.identity, path)
            if self._networks.get(path) != identity:
                ask(namespace_files.require_network, path)
                self._networks[path] = identity
        except OSError as error:
            self._networks.pop(path, None)
            return _Look(why=_words(error, path), certain=error.errno not in _UNCERTAIN)
        return _Look(path, identity)

    def _with_timeout(self, look: Callable[[str], Any], path: str) -> Any:
        """Asks for a file that somebody names, which may lie where nobody answers."""
        if self._disk is None:
            self._disk = Disk()
        return self._disk.ask(look, path)

    # ------------------------------------------------------------------ processes

    def _of_process(self, node: Node) -> _Look:
        start = namespace_files.start_of_process(node.pid)
        if start is None:
            gone = "has ended" if node in self._starts else "does not exist"
            return _Look(why=f"process {node.pid} {gone}")
        if self._starts.setdefault(node, start) != start:
            return _Look(why=f"process {node.pid} has ended, and that number is another one's now")
        return self._at(namespace_files.of_process(node.pid))

    # ------------------------------------------------------------------ containers

    def _in_engines(self, name: str) -> Iterator[_Look]:
        without = []
        for engine in self._engines:
            told = engine.told
            if container := told.containers.get(name):
                look = self._of_container(container, engine)
                yield look._replace(why=told.problem or look.why)
            elif told.problem:
                yield _Look(why=told.problem, certain=False)
            elif name not in told.asked:
                yield _Look(why=f"{engine.address.name} has not answered yet", certain=False)
            elif told.here:
                without.append(engine.address.name)
        if without:
            yield _Look(why=f"no container {name} runs in {' or '.join(without)}")
        elif not any(engine.told.here for engine in self._engines):
            yield _Look(why="there is no container engine here")
        yield from (_Look(why=refusal) for refusal in self._refusals)

    def _of_container(self, container: Container, engine: Engine) -> _Look:
        """By the file that its engine made, which needs no right over its process."""
        looks = [self._at(container.sandbox, self._with_timeout)] if container.sandbox else []
        if looks and looks[0].path:
            return looks[0]
        if container.start is not None:
            if namespace_files.start_of_process(container.pid) == container.start:
                looks.append(self._at(namespace_files.of_process(container.pid)))
            else:
                looks.append(_Look(why=f"its process {container.pid} has ended"))
                engine.watch_for_restart(container)
            if looks[-1].path:
                return looks[-1]
        where = " and ".join(look.why for look in looks) or "its processes cannot be seen from here"
        why = f"container {container.name} runs in {engine.address.name}, but {where}"
        return _Look(why=why, certain=False)


def _container_name(node: Node) -> str:
    """Which one is asked for; empty if none is."""
    return "" if node.netns or node.pid else node.container or node.name


def _words(error: OSError, path: str) -> str:
    if error.errno == ENOENT:
        return f"there is no {path}"
    more = (
        " (that takes CAP_SYS_PTRACE)" if error.errno == EACCES and path.startswith(_PROC) else ""
    )
    return f"{path}: {error.strerror}{more}"
