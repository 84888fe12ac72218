"""A host is held against docs/kernels.md's table; every lack has its remedy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from xconnectd.diagnostics import host_checks
from xconnectd.diagnostics.facts import EngineFacts, HostFacts
from xconnectd.diagnostics.finding import Finding, Level
from xconnectd.model import Node

ROOT = frozenset(
    {
        *("CAP_NET_ADMIN", "CAP_NET_BROADCAST", "CAP_NET_RAW", "CAP_SYS_ADMIN"),
        *("CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE"),
    }
)
GOOD = HostFacts(
    release="6.12.1-amd64", capabilities=ROOT, systemd=True, pins="/sys/fs/bpf/xconnectd/1",
    on_bpffs=True, writable=True, bpf="", programs=3, code="bcc", libbpf="v1.1", pyroute2="0.9.7",
    btf=True, xdp_features=True, jit=True, pid=7, answers=True, guard_unavailable="",
    stopped=False, daemon_capabilities=ROOT, config="/etc/xconnect.yaml", config_state="loaded",
    problems=(), links=2,
)  # fmt: skip


def found(**facts: Any) -> dict[str, Finding]:
    return {each.check: each for each in host_checks.of_host(replace(GOOD, **facts))}


def test_a_good_host() -> None:
    assert {each.level for each in found().values()} == {Level.OK}
    assert len(found()) == 13
    assert found()["config"].text == "/etc/xconnect.yaml is good, 2 links"
    assert found(links=1)["config"].text.endswith("1 link")


def test_what_an_older_kernel_does_without_is_said() -> None:
    def missed(release: str) -> list[str]:
        host = replace(GOOD, release=release)
        _, *rest = (each.text for each in host_checks.of_host(host) if each.check == "kernel")
        return [text.split()[2] for text in rest]

    assert missed("5.10.0-32-cloud-amd64") == ["5.12", "5.13", "5.18", "6.4"]
    assert missed("5.15.0") == ["5.18", "6.4"]
    assert missed("6.4.0") == missed("6.18.0") == []
    assert "guard" not in found(guard_unavailable="it is missing", release="6.3")


ASK_ROOT = "sudo xconnectd doctor"
NOBODY = {"capabilities": frozenset[str](), "bpf": None, "writable": None, "programs": None}
LEAST = frozenset({"CAP_BPF", "CAP_NET_ADMIN"})
WITH_ADMIN = frozenset({"CAP_SYS_ADMIN", "CAP_NET_ADMIN"})
NO_SYSTEMD = {"pid": None, "systemd": False, "config": "/x y.yaml"}
LEAF, BLUE = Node("leaf1"), Node("blue", netns="/run/netns/blue")
SILENCE = "Docker does not answer: /run/docker.sock: Connection refused"
SILENT = {"nodes": frozenset([LEAF]), "engines": (EngineFacts("Docker", problem=SILENCE),)}
UNENTERED = {"nodes": frozenset([BLUE]), "daemon_capabilities": LEAST | {"CAP_NET_BROADCAST"}}
CASES: list[tuple[str, dict[str, Any], Level, str]] = [
    ("kernel", {"release": "4.19"}, Level.FAIL, "newer kernel"),
    ("kernel", {"release": "5.3.0"}, Level.FAIL, "newer kernel"),
    ("kernel", {"release": "5.4.0"}, Level.WARN, "newer kernel"),
    ("kernel", {"release": "5.9.16"}, Level.WARN, "newer kernel"),
    ("kernel", {"release": "5.10.0-8-amd64"}, Level.OK, ""),
    ("capabilities", NOBODY, Level.WARN, ASK_ROOT),
    ("capabilities", {"capabilities": LEAST}, Level.OK, ""),
    ("capabilities", {"capabilities": LEAST, "release": "5.18"}, Level.OK, ""),
    ("capabilities", {"capabilities": LEAST, "release": "5.17"}, Level.WARN, ASK_ROOT),
    ("capabilities", {"capabilities": WITH_ADMIN, "release": "5.10"}, Level.OK, ""),
    ("capabilities", {"daemon_capabilities": frozenset({"CAP_BPF"})}, Level.FAIL, "BoundingSet="),
    ("bpf", NOBODY, Level.WARN, ASK_ROOT),
    ("bpf", {"bpf": "Operation not permitted (EPERM)"}, Level.FAIL, "seccomp"),
    ("bpffs", NOBODY, Level.WARN, ASK_ROOT),
    ("bpffs", {"on_bpffs": False}, Level.WARN, "mount -t bpf bpf /sys/fs/bpf"),
    ("bpffs", {"on_bpffs": False, "pins": "/bpf/1"}, Level.FAIL, "mount -t bpf"),
    ("bpffs", {"writable": False}, Level.FAIL, "mount -o remount,rw /sys/fs/bpf"),
    ("programs", NOBODY, Level.WARN, ASK_ROOT),
    ("programs", {"programs": 0}, Level.FAIL, "systemctl restart xconnectd"),
    ("programs", {"programs": 0, "pid": None}, Level.OK, ""),
    ("code", {"code": ""}, Level.FAIL, "apt-get install python3-bpfcc"),
    ("libbpf", {"libbpf": ""}, Level.FAIL, "apt-get install libbpf1"),
    ("pyroute2", {"pyroute2": ""}, Level.FAIL, "pip install"),
    ("pyroute2", {"pyroute2": "0.9"}, Level.FAIL, "pip install"),
    ("pyroute2", {"pyroute2": "0.9.1"}, Level.OK, ""),
    ("btf", {"btf": False}, Level.WARN, "CONFIG_DEBUG_INFO_BTF"),
    ("xdp-features", {"xdp_features": False}, Level.WARN, "xconnectd version"),
    ("xdp-features", {"xdp_features": False, "release": "6.1"}, Level.OK, ""),
    ("jit", {"jit": False}, Level.WARN, "sysctl -w net.core.bpf_jit_enable=1"),
    ("jit", {"jit": None}, Level.WARN, ASK_ROOT),
    ("daemon", {"pid": None}, Level.WARN, "systemctl start xconnectd"),
    ("daemon", NO_SYSTEMD, Level.WARN, "xconnectd run -c '/x y.yaml'"),
    ("daemon", {"answers": False}, Level.FAIL, "kill -KILL 7; systemctl start"),
    ("daemon", {"answers": False, "stopped": True}, Level.FAIL, "kill -CONT 7"),
    ("daemon", {"answers": False, "systemd": False, "pid": 0}, Level.FAIL, "# where the da"),
    ("daemon", {"answers": None}, Level.OK, ""),
    ("config", {"config_state": ""}, Level.WARN, ASK_ROOT),
    ("config", {"config_state": "missing"}, Level.FAIL, "xconnectd check"),
    ("config", {"config_state": "missing", "pid": None}, Level.WARN, "xconnectd check"),
    ("config", {"config_state": "rejected", "problems": ("x:1:1: no",)}, Level.FAIL,
     "xconnectd check /etc/xconnect.yaml"),
    ("capabilities", {"daemon_capabilities": ROOT - {"CAP_NET_BROADCAST"}}, Level.WARN,
     "--cap-add NET_BROADCAST"),
    ("guard", {"guard_unavailable": "it is missing"}, Level.WARN, "docs/safety.md"),
    ("guard", {"guard_unavailable": "it is missing", "daemon_capabilities": LEAST}, Level.WARN,
     "give the daemon CAP_PERFMON"),
    ("nodes", SILENT, Level.WARN, "systemctl start docker"),
    ("nodes", SILENT | {"systemd": False}, Level.WARN, "start it"),
    ("nodes", SILENT | NOBODY, Level.WARN, ASK_ROOT),
    ("nodes", {"engines": (EngineFacts("Podman"),)}, Level.OK, ""),
    ("nodes", {"engines": (EngineFacts("Podman", here=False),)}, Level.OK, ""),
    ("nodes", UNENTERED, Level.WARN, "--cap-add SYS_ADMIN"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "facts", "level", "remedy"), CASES)
def test_lacks_have_a_remedy(check: str, facts: dict[str, Any], level: Level, remedy: str) -> None:
    finding = found(**facts)[check]
    assert finding.level is level
    assert remedy in finding.remedy
    assert bool(finding.remedy) == (level is not Level.OK)


def test_what_it_takes_to_get_at_a_process_is_asked_where_there_is_one_alone() -> None:
    without = ROOT - {"CAP_SYS_PTRACE"}

    def warned(node: Node, *engines: EngineFacts) -> bool:
        facts = {"nodes": frozenset([node]), "engines": engines, "daemon_capabilities": without}
        return "--cap-add SYS_PTRACE" in getattr(found(**facts).get("nodes"), "remedy", "")

    assert warned(Node("r7", pid=4242))
    assert warned(LEAF, EngineFacts("Docker"), EngineFacts("Podman"))
    assert not warned(LEAF, EngineFacts("Docker"), EngineFacts("Podman", here=False))
    assert not warned(BLUE)


def test_no_process_is_killed_that_cannot_be_seen() -> None:
    """It is 0 here; `kill 0` would end the shell and all that it has started."""
    for answers in (True, False):
        unseen = found(pid=0, answers=answers, programs=0, systemd=False)
        assert not any("kill" in each.remedy for each in unseen.values())
    assert replace(GOOD, systemd=False).repair == "kill 7; xconnectd run -c /etc/xconnect.yaml"


def test_which_host_this_is_and_whether_it_can_hear_the_others() -> None:
    """An address that is nowhere here is no fault: it may be that of a NAT in front."""

    def hosts(**facts: Any) -> list[tuple[Level, str]]:
        host = replace(GOOD, host="h1", address="198.51.100.11", **facts)
        return [(x.level, x.text) for x in host_checks.of_host(host) if x.check == "hosts"]

    assert hosts() == [(Level.OK, "this is h1, 198.51.100.11")]
    ((level, text),) = hosts(here=False)
    assert level is Level.OK
    assert text.startswith("this is h1, whose address 198.51.100.11 is not on this machine: right")
    mute = {"crosses": True, "daemon_capabilities": ROOT - {"CAP_NET_RAW"}}
    assert [level for level, _ in hosts(**mute)] == [Level.OK, Level.FAIL]
    assert "hosts" not in found(**{**mute, "crosses": False})
    assert "30-hosts.conf" in found(**mute)["hosts"].remedy
