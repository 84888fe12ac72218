"""What ``doctor`` and ``test`` know of a host, of a link and of its far ends. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from shlex import quote
from typing import NamedTuple

from xconnectd.model import ELSEWHERE, Interface, Node, Observed, Way
from xconnectd.reconcile import mode_selection
from xconnectd.reconcile.evaluate import Evaluation
from xconnectd.remedies import repair
from xconnectd.status.document import Keepalives


@dataclass(frozen=True, slots=True)
class FarSide:
    """The other end of a veth, as its own namespace shows it.

    ``prefix`` makes a command run there; None where it is not known how, and the command is then
    a comment: a name means another interface here. ``features`` are the
    ethtool features that are on, None where nobody went there to look. ``node`` is the one that the
    file says it is in, empty where the file names our end.
    """

    interface: Interface
    prefix: str | None = ""
    features: frozenset[str] | None = None
    node: str = ""

    def of(self, end: Interface) -> str:
        """In words which interface it is; ``end`` is ours."""
        name = self.interface.name
        return f"{name} in {self.node}" if self.node else f"{name}, the far end of {end.name},"

    def set(self, what: str) -> str:
        return self.command(set_link(self.interface, what))

    def ready(self) -> str:
        """What a far end of a native link needs."""
        return self.command(mode_selection.FAR_READY.format(far=quote(self.interface.name)))

    def command(self, text: str) -> str:
        return ELSEWHERE.format(text) if self.prefix is None else f"{self.prefix}{text}"


class Answer(StrEnum):
    """What a host says to a ping, and whether it says that the UDP port of tunnels is closed."""

    NOTHING = ""
    PING = "ping"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """One link, and what was seen of it.

    ``far`` is keyed by the ifindex of our end; so is ``passed``, frames that got past our hooks.
    ``way`` is the one to the host that a tunnel leads to, None without one. ``keepalives`` were
    counted just now, None where all is well, and ``answer`` is what that host says to a ping, None
    where it was not asked. ``failure`` is what the kernel told the daemon; ``repair`` makes a
    daemon put right what is ours, ``file`` is the one with the link, ``home`` what
    ``ip link set … netns`` calls this namespace.
    """

    evaluation: Evaluation
    observed: Observed
    far: Mapping[int, FarSide] = field(default_factory=dict)
    failure: str = ""
    repair: str = "xconnectd reload"
    file: str = ""
    home: str = "1"
    passed: Mapping[int, int] = field(default_factory=dict)
    way: Way | None = None
    keepalives: Keepalives | None = None
    answer: Answer | None = None

    @property
    def ways(self) -> tuple[tuple[Interface, Interface], ...]:
        """Both directions, from our end to our end; one for a loopback."""
        a, b = self.evaluation.a, self.evaluation.b
        if a is None or b is None:
            return ()
        return ((a, b),) if a.ifindex == b.ifindex else ((a, b), (b, a))

    def is_closed(self, end: Interface) -> bool:
        """Whether what comes in there is dropped since the link leads the other way only."""
        return self.evaluation.link.one_way and end is self.evaluation.b

    def is_tunnel(self, end: Interface) -> bool:
        """Whether it is ours, and leads to another host or a device that is not ours."""
        there = self.evaluation.link.tunnel_end
        return there is not None and self.observed.names.get(there.name) == end.ifindex

    def called(self, end: Interface) -> str:
        """What the file calls one of our ends."""
        a, link = self.evaluation.a, self.evaluation.link
        return str(link.a if a and a.ifindex == end.ifindex else link.b)


def set_link(interface: Interface, what: str) -> str:
    return f"ip link set dev {quote(interface.name)} {what}"


class EngineFacts(NamedTuple):
    """A container engine: whether there is one, and in words why it does not answer."""

    name: str
    here: bool = True
    problem: str = ""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """One look at the host. None and empty texts mean that it could not be seen from here.

    ``bpf`` is why bpf(2) is refused, empty if it is not. ``programs`` is how many of ours are
    loaded. ``code`` is where the BPF code comes from (empty: from nowhere), ``jit`` whether the
    kernel compiles programs. ``capabilities`` are the caller's effective ones. ``nodes`` are
    those of the file, and ``engines`` are asked for them. ``host`` is which of the file's hosts
    this is, ``here`` whether its ``address`` is on this machine, and ``crosses`` whether a link
    leads to another one.
    """

    release: str
    capabilities: frozenset[str]
    systemd: bool
    pins: str
    on_bpffs: bool
    writable: bool | None
    bpf: str | None
    programs: int | None
    code: str
    libbpf: str
    pyroute2: str
    btf: bool
    xdp_features: bool
    jit: bool | None
    pid: int | None
    answers: bool | None
    guard_unavailable: str
    stopped: bool
    daemon_capabilities: frozenset[str] | None
    config: str
    config_state: str
    problems: Sequence[str]
    links: int
    nodes: frozenset[Node] = frozenset()
    engines: tuple[EngineFacts, ...] = ()
    host: str = ""
    address: str = ""
    here: bool = True
    crosses: bool = False

    @property
    def kernel(self) -> tuple[int, ...]:
        return version_numbers(self.release)[:2]

    @property
    def needed(self) -> frozenset[str]:
        """Capabilities of the daemon. Before 5.18 it needs pointer arithmetic for a length."""
        also = set() if self.kernel >= (5, 18) else {"CAP_PERFMON"}
        return frozenset({"CAP_BPF", "CAP_NET_ADMIN"} | also)

    @property
    def start(self) -> str:
        """The command that starts a daemon."""
        return repair(None, self.config, systemd=self.systemd)

    @property
    def repair(self) -> str:
        return repair(self.pid, self.config, systemd=self.systemd)


def version_numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))
