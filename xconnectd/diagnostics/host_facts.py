"""Gathers the facts of the host. Changes nothing."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from xconnectd import capabilities
from xconnectd.config.source import Files, Reading
from xconnectd.control import client, protocol
from xconnectd.control.client import has_systemd
from xconnectd.control.lock import running_pid
from xconnectd.dataplane import compiler, libbpf
from xconnectd.dataplane.refusals import in_words
from xconnectd.diagnostics import versions
from xconnectd.diagnostics.facts import EngineFacts, HostFacts
from xconnectd.errors import DataplaneError
from xconnectd.model import Node
from xconnectd.netlink import uapi
from xconnectd.netlink.own_addresses import own_addresses
from xconnectd.paths import pins
from xconnectd.runtime import daemons_pins
from xconnectd.status.document import StatusDocument

_RETURN_0: Final = struct.pack("=QQ", 0xB7, 0x95)
"""r0 = 0; exit"""

_TIMEOUT: Final = 2.0
"""Seconds for a container engine."""


def gather(files: Files, reading: Reading, programs: int | None) -> HostFacts:
    """``programs`` is how many of ours are loaded, None where that may not be read."""
    held = capabilities.effective()
    pid = running_pid()
    place = daemons_pins() or pins()
    answers, guard_unavailable = (None, "") if pid is None else _asked()
    ends = [end for link in reading.wiring.links for end in link.ends]
    nodes = frozenset(end.node for end in ends if end.node)
    own = dict(reading.wiring.hosts).get(reading.wiring.host, "")
    return HostFacts(
        release=os.uname().release,
        capabilities=held,
        systemd=has_systemd(),
        pins=str(place),
        on_bpffs=_is_on_bpffs(place),
        writable=_is_writable(place),
        bpf=_bpf_refusal() if held & {"CAP_BPF", "CAP_SYS_ADMIN"} else None,
        programs=programs,
        code=_code(),
        libbpf=_libbpf(),
        pyroute2=versions.of("pyroute2") or "",
        btf=Path("/sys/kernel/btf/vmlinux").exists(),
        xdp_features=_has_xdp_features(),
        jit=_jit() if held & {"CAP_BPF", "CAP_SYS_ADMIN"} else None,
        pid=pid,
        answers=answers,
        guard_unavailable=guard_unavailable,
        stopped=client.is_stopped(pid),
        daemon_capabilities=_capabilities_of(pid),
        config=str(files.path),
        config_state=reading.state if _may_be_read(files.path) else "",
        problems=[str(problem) for problem in reading.problems],
        links=len(reading.wiring.links),
        nodes=nodes,
        engines=_engines(nodes, pid),
        host=reading.wiring.host,
        address=own,
        here=not own or own in own_addresses(),
        crosses=any(end.host and end.tunnel for end in ends),
    )


def _engines(nodes: frozenset[Node], pid: int | None) -> tuple[EngineFacts, ...]:
    """Those that the daemon asks, if any of the nodes may be a container."""
    if all(node.netns or node.pid for node in nodes):
        return ()
    from xconnectd.nodes.engine import Engine, addresses

    asked = [
        Engine(address, frozenset(), lambda: None, follow=False)
        for address in addresses(_surroundings_of(pid))
        if not address.refusal
    ]
    for engine in asked:
        engine.wait(_TIMEOUT)
    return tuple(
        EngineFacts(each.address.name, each.told.here, each.told.problem) for each in asked
    )


def _surroundings_of(pid: int | None) -> Mapping[str, str]:
    """Environment of a process; that of this one if there is none, or it may not be looked at."""
    try:
        text = Path(f"/proc/{pid or 'self'}/environ").read_bytes()
    except OSError:
        return os.environ
    pairs = (each.partition("=") for each in os.fsdecode(text).split("\0"))
    return {name: value for name, _, value in pairs}


def _capabilities_of(pid: int | None) -> frozenset[str] | None:
    """None of a process that does not run, or cannot be seen."""
    with suppress(OSError):
        return None if pid is None else capabilities.effective(str(pid))
    return None


def _existing(path: Path) -> Path:
    """The path, or as much of it as there is (and may be seen)."""
    for each in (path, *path.parents):
        with suppress(PermissionError):
            if each.exists():
                return each
    return Path("/")


def _is_on_bpffs(path: Path) -> bool:
    try:
        return libbpf.is_bpffs(_existing(path))
    except OSError:
        return False


def _is_writable(path: Path) -> bool | None:
    """None where only the rights of this process are in the way."""
    there = _existing(path)
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        return False
    return True if os.access(there, os.W_OK) else None


def _may_be_read(path: Path) -> bool:
    """A file that is not there can be told from one that is another's."""
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return os.access(path, os.R_OK)


def _bpf_refusal() -> str:
    """Why bpf(2) is refused; a map that nobody pins is gone with its descriptor."""
    try:
        os.close(libbpf.create_map("xc_doctor", libbpf.MapFormat(libbpf.MAP_HASH, 4, 1)))
    except OSError as error:
        return in_words(error)
    return ""


def _code() -> str:
    try:
        return compiler.found()
    except DataplaneError:
        return ""


def _libbpf() -> str:
    try:
        return libbpf.version()
    except OSError:
        return ""


def _has_xdp_features() -> bool:
    from xconnectd.netlink import ethtool

    return ethtool.xdp_features(uapi.LOOPBACK_IFINDEX) is not None


def _jit() -> bool | None:
    """By a program that does nothing: the sysctl is in the machine's own namespace alone."""
    try:
        fd = libbpf.load_program(libbpf.PROG_SOCKET_FILTER, "xc_doctor", "GPL", _RETURN_0)
    except OSError:
        return None
    try:
        return libbpf.program_info(fd).compiled
    finally:
        os.close(fd)


def _asked() -> tuple[bool | None, str]:
    """Whether the daemon answers, None if this user may not ask; and why it has no guard."""
    try:
        with client.Connection(protocol.STATUS, client.HANG_TIMEOUT) as daemon:
            told = StatusDocument.from_json(daemon.status())
    except client.NoDaemonError as error:
        return None if isinstance(error.__cause__, PermissionError) else False, ""
    return True, told.guard_unavailable
