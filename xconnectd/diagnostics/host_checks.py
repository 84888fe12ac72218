"""What xconnectd needs of a host, held against what the host has. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote
from typing import Final

from xconnectd.diagnostics import config_checks
from xconnectd.diagnostics.facts import HostFacts, version_numbers
from xconnectd.diagnostics.finding import Finding, Level
from xconnectd.formatting import counted

_ASK_ROOT: Final = "sudo xconnectd doctor"
_BPFFS: Final = "/sys/fs/bpf"
_MOUNT: Final = f"mount -t bpf bpf {_BPFFS}"
_FAR_ENDS: Final = frozenset(("CAP_NET_BROADCAST",))
"""What hearing of the far ends in other namespaces needs."""
_PYROUTE2: Final = (0, 9, 1)

_NETFILTER_PROGRAMS: Final = (6, 4)
_MISSED: Final = (
    ((5, 12), "network namespaces are known by inode numbers, which the kernel may use again"),
    ((5, 13), "frames dropped in the redirect are not counted"),
    ((5, 18), "there are no XDP fragments: native XDP takes an MTU of some 3,500 at most"),
    (
        _NETFILTER_PROGRAMS,
        "frames that bypass our hooks reach the host's IP stack uncounted",
    ),
)
"""What older kernels do without."""


def of_host(host: HostFacts) -> tuple[Finding, ...]:
    checks = (
        *(_kernel, _capabilities, _guard, _bpf, _bpffs, _programs, _code, _libbpf, _pyroute2),
        *(_btf, _xdp_features, _jit, _daemon, _config, _engines, _rights_over_nodes),
        _hosts,
    )
    return tuple(finding for check in checks for finding in check(host))


def _ok(check: str, text: str) -> Finding:
    return Finding(Level.OK, check, text)


def _warn(check: str, text: str, remedy: str = "") -> Finding:
    return Finding(Level.WARN, check, text, remedy)


def _fail(check: str, text: str, remedy: str) -> Finding:
    return Finding(Level.FAIL, check, text, remedy)


# --------------------------------------------------------------------------- the kernel


def _kernel(host: HostFacts) -> Iterator[Finding]:
    newer = "boot a newer kernel"
    if host.kernel < (5, 4):
        yield _fail("kernel", f"{host.release}: Linux 5.4 is the oldest that can work", newer)
    elif host.kernel < (5, 10):
        yield _warn("kernel", f"{host.release}: expected to work from Linux 5.10 on", newer)
    else:
        yield _ok("kernel", host.release)
        for since, text in _MISSED:
            if host.kernel < since:
                yield _ok("kernel", f"before Linux {since[0]}.{since[1]} {text}")


def _capabilities(host: HostFacts) -> Iterator[Finding]:
    lacking = _lacking(host.needed, host.capabilities)
    if lacking:
        text = f"this command lacks {lacking}: it cannot see everything"
        yield _warn("capabilities", text, _ASK_ROOT)
    elif "CAP_SYS_ADMIN" not in host.capabilities:
        text = "enough for the daemon; CAP_SYS_ADMIN would also show the names of foreign programs"
        yield _ok("capabilities", text)
    else:
        yield _ok("capabilities", "all that is needed")
    if host.daemon_capabilities is not None:
        lacking = _lacking(host.needed, host.daemon_capabilities)
        if lacking:
            remedy = "add them: CapabilityBoundingSet= of the unit, --cap-add of the container"
            yield _fail("capabilities", f"the daemon lacks {lacking}", remedy)
        elif _lacking(_FAR_ENDS, host.daemon_capabilities):
            text = "the daemon lacks CAP_NET_BROADCAST: that a far end comes up is seen late"
            remedy = (
                "give it that: CapabilityBoundingSet= of the unit, --cap-add NET_BROADCAST of the"
                " container"
            )
            yield _warn("capabilities", text, remedy)


def _guard(host: HostFacts) -> Iterator[Finding]:
    """An older kernel has none, which is told of the kernel."""
    if not host.guard_unavailable or host.kernel < _NETFILTER_PROGRAMS:
        return
    remedy = "docs/safety.md: what is open, and the sysctl that closes it"
    if _lacking(frozenset({"CAP_PERFMON"}), host.daemon_capabilities or frozenset()):
        remedy = (
            "give the daemon CAP_PERFMON (CapabilityBoundingSet= of the unit, --cap-add PERFMON of"
            f" the container)  # {remedy}"
        )
    yield _warn("guard", host.guard_unavailable, remedy)


def _lacking(needed: frozenset[str], held: frozenset[str]) -> str:
    if "CAP_SYS_ADMIN" in held:
        held |= {"CAP_BPF", "CAP_PERFMON"}
    return ", ".join(sorted(needed - held))


def _bpf(host: HostFacts) -> Iterator[Finding]:
    if host.bpf is None:
        yield _warn("bpf", "not checked whether bpf() is allowed", _ASK_ROOT)
    elif host.bpf:
        remedy = "look for a seccomp profile (container: --security-opt seccomp=unconfined)"
        yield _fail("bpf", f"bpf() is refused: {host.bpf}", remedy)
    else:
        yield _ok("bpf", "bpf() is allowed")


def _bpffs(host: HostFacts) -> Iterator[Finding]:
    if not host.on_bpffs:
        text = f"{host.pins} is on no BPF filesystem"
        if "CAP_SYS_ADMIN" in host.capabilities and host.pins.startswith(_BPFFS):
            yield _warn("bpffs", f"{text}; a daemon with CAP_SYS_ADMIN mounts one", _MOUNT)
        else:
            yield _fail("bpffs", text, _MOUNT)
    elif host.writable is False:
        yield _fail("bpffs", f"{host.pins} is read-only", f"mount -o remount,rw {_BPFFS}")
    elif host.writable is None:
        text = f"{host.pins} is root's: not known whether it can be written"
        yield _warn("bpffs", text, _ASK_ROOT)
    else:
        yield _ok("bpffs", host.pins)


def _programs(host: HostFacts) -> Iterator[Finding]:
    if host.programs is None:
        yield _warn("programs", "the pins cannot be read from here", _ASK_ROOT)
    elif host.programs:
        yield _ok("programs", f"{host.programs} xconnectd programs in the kernel")
    elif host.pid is not None:
        text = f"a daemon runs, but has nothing pinned in {host.pins}"
        yield _fail("programs", text, host.repair)
    else:
        yield _ok("programs", "no xconnectd programs in the kernel")


# --------------------------------------------------------------------------- what is installed


def _code(host: HostFacts) -> Iterator[Finding]:
    if host.code:
        yield _ok("code", f"the BPF code comes from {host.code}")
    else:
        text = "neither compiled BPF code that fits its source nor bcc, which compiles it"
        yield _fail("code", text, "apt-get install python3-bpfcc")


def _libbpf(host: HostFacts) -> Iterator[Finding]:
    if host.libbpf:
        yield _ok("libbpf", host.libbpf)
    else:
        yield _fail("libbpf", "libbpf cannot be used", "apt-get install libbpf1")


def _pyroute2(host: HostFacts) -> Iterator[Finding]:
    if not host.pyroute2:
        yield _fail("pyroute2", "not installed", "pip install 'pyroute2>=0.9.1'")
    elif version_numbers(host.pyroute2)[:3] < _PYROUTE2:
        text = f"{host.pyroute2} has a bug in its XDP flags"
        yield _fail("pyroute2", text, "pip install 'pyroute2>=0.9.1'")
    else:
        yield _ok("pyroute2", host.pyroute2)


def _btf(host: HostFacts) -> Iterator[Finding]:
    if host.btf:
        yield _ok("btf", "/sys/kernel/btf/vmlinux")
    else:
        text = "no /sys/kernel/btf/vmlinux: links work, capture does not"
        yield _warn("btf", text, "boot a kernel with CONFIG_DEBUG_INFO_BTF=y")


def _xdp_features(host: HostFacts) -> Iterator[Finding]:
    if host.xdp_features:
        yield _ok("xdp-features", "drivers report what they can do")
    elif host.kernel < (6, 3):
        text = "before Linux 6.3 drivers do not report what they can do: known names decide"
        yield _ok("xdp-features", text)
    else:
        text = "the kernel does not report what drivers can do: known names decide"
        yield _warn("xdp-features", text, "xconnectd version")


def _jit(host: HostFacts) -> Iterator[Finding]:
    if host.jit is None:
        yield _warn("jit", "not checked whether BPF programs are JIT-compiled", _ASK_ROOT)
    elif host.jit:
        yield _ok("jit", "BPF programs are JIT-compiled")
    else:
        text = "BPF programs are interpreted, several times slower"
        remedy = "sysctl -w net.core.bpf_jit_enable=1  # in the machine's own namespace"
        yield _warn("jit", text, remedy)


# --------------------------------------------------------------------------- the daemon


def _daemon(host: HostFacts) -> Iterator[Finding]:
    if host.pid is None:
        text = (
            "none runs in this network namespace: links go on, but nothing repairs or changes them"
        )
        yield _warn("daemon", text, host.start)
    elif host.stopped:
        yield _fail("daemon", f"pid {host.pid} is stopped", f"kill -CONT {host.pid}")
    elif host.answers is False:
        kill = f"kill -KILL {host.pid}; {host.start}  # the wires stay"
        text = f"{_process(host.pid)} does not answer"
        yield _fail("daemon", text, kill if host.pid else host.repair)
    elif host.answers is None:
        text = f"runs, {_process(host.pid)}; only root and group xconnectd may connect to it"
        yield _ok("daemon", text)
    else:
        yield _ok("daemon", f"runs, {_process(host.pid)}")


def _process(pid: int) -> str:
    return f"pid {pid}" if pid else "a process that cannot be seen from here"


def _config(host: HostFacts) -> Iterator[Finding]:
    where = host.config
    if host.config_state == "loaded":
        yield _ok("config", f"{where} is good, {counted(host.links, 'link')}")
        return
    if not host.config_state:
        yield _warn("config", f"{where} may not be read", _ASK_ROOT)
        return
    if host.config_state == "missing" and host.pid is None:
        remedy = f"xconnectd check {quote(where)}  # once you have written it"
        yield _warn("config", f"{where} does not exist", remedy)
        return
    yield from config_checks.of_problems(host.problems or (f"{where}: {host.config_state}",), where)


# --------------------------------------------------------------------------- nodes

_SERVICES: Final = {"Docker": "docker", "Podman": "podman.socket"}


def _engines(host: HostFacts) -> Iterator[Finding]:
    for engine in host.engines:
        if engine.problem:
            start = f"systemctl start {_SERVICES[engine.name]}" if host.systemd else "start it"
            remedy = _ASK_ROOT if _lacking(host.needed, host.capabilities) else start
            yield _warn("nodes", engine.problem, remedy)
        elif engine.here:
            yield _ok("nodes", f"{engine.name} answers")
    if host.engines and not any(engine.here for engine in host.engines):
        text = "neither Docker nor Podman is here: nodes are looked for in /run/netns alone"
        yield _ok("nodes", text)


def _rights_over_nodes(host: HostFacts) -> Iterator[Finding]:
    """What the daemon needs besides, where a file names nodes."""
    if not host.nodes or host.daemon_capabilities is None:
        return
    lacks = {"CAP_SYS_ADMIN", "CAP_SYS_PTRACE"} - host.daemon_capabilities
    remedy = "give it that: 20-nodes.conf for the unit, --cap-add {} of the container"
    if "CAP_SYS_ADMIN" in lacks:
        text = (
            "the daemon lacks CAP_SYS_ADMIN: an interface that it makes in a node stays down until"
            " somebody sets it up there"
        )
        yield _warn("nodes", text, remedy.format("SYS_ADMIN"))
    podman = any(engine.name == "Podman" and engine.here for engine in host.engines)
    if "CAP_SYS_PTRACE" in lacks and (podman or any(node.pid for node in host.nodes)):
        text = (
            "the daemon lacks CAP_SYS_PTRACE: nodes by `pid`, and Podman's containers without a"
            " network, are not found"
        )
        yield _warn("nodes", text, remedy.format("SYS_PTRACE"))


# --------------------------------------------------------------------------- other hosts


def _hosts(host: HostFacts) -> Iterator[Finding]:
    """This one among those of the file, and what the daemon needs to hear the others."""
    if host.host and host.here:
        yield _ok("hosts", f"this is {host.host}, {host.address}")
    elif host.host:
        text = f"this is {host.host}, whose address {host.address} is not on this machine"
        yield _ok("hosts", f"{text}: right if what is sent there is handed on to here (NAT)")
    if host.crosses and "CAP_NET_RAW" not in (host.daemon_capabilities or {"CAP_NET_RAW"}):
        text = "the daemon lacks CAP_NET_RAW: it cannot hear the other hosts, nor they it"
        remedy = "give it that: 30-hosts.conf for the unit, --cap-add NET_RAW of the container"
        yield _fail("hosts", text, remedy)
