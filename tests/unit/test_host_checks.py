"""A host is held against docs/kernels.md's table; every lack has its remedy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from xconnectd.diagnostics import host_checks
from xconnectd.diagnostics.facts import HostFacts
from xconnectd.diagnostics.finding import Finding, Level

ROOT = frozenset({"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_BPF", "CAP_PERFMON"})
GOOD = HostFacts(
    release="6.12.1-amd64",
    capabilities=ROOT,
    systemd=True,
    pins="/sys/fs/bpf/xconnectd/1",
    on_bpffs=True,
    writable=True,
    bpf="",
    programs=3,
    code="bcc",
    libbpf="v1.1",
    pyroute2="0.9.7",
    btf=True,
    xdp_features=True,
    jit=True,
    pid=7,
    answers=True,
    guard_unavailable="",
    stopped=False,
    daemon_capabilities=ROOT,
    config="/etc/xconnect.yaml",
    config_state="loaded",
    problems=(),
    links=2,
)


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

    assert missed("5.10.0-32-cloud-amd64") == ["5.12", "5.13", "5.18", "5.18", "6.4"]
    assert missed("5.15.0") == ["5.18", "5.18", "6.4"]
    assert missed("6.4.0") == missed("6.18.0") == []


NOBODY = {"capabilities": frozenset[str](), "bpf": None, "writable": None, "programs": None}


@pytest.mark.parametrize(
    ("facts", "check", "level", "remedy"),
    [
        ({"release": "5.3.0"}, "kernel", Level.FAIL, "newer kernel"),
        ({"release": "5.4.0"}, "kernel", Level.WARN, "newer kernel"),
        ({"release": "5.10.0-8-amd64"}, "kernel", Level.OK, ""),
        ({"release": "4.19"}, "kernel", Level.FAIL, "newer kernel"),
        (NOBODY, "capabilities", Level.WARN, "sudo xconnectd doctor"),
        (NOBODY, "bpf", Level.WARN, "sudo xconnectd doctor"),
        (NOBODY, "bpffs", Level.WARN, "sudo xconnectd doctor"),
        (NOBODY, "programs", Level.WARN, "sudo xconnectd doctor"),
        (
            {"daemon_capabilities": frozenset({"CAP_BPF"})},
            *("capabilities", Level.FAIL, "CapabilityBoundingSet="),
        ),
        ({"bpf": "Operation not permitted (EPERM)"}, "bpf", Level.FAIL, "seccomp"),
        ({"on_bpffs": False}, "bpffs", Level.WARN, "mount -t bpf bpf /sys/fs/bpf"),
        ({"on_bpffs": False, "pins": "/bpf/1"}, "bpffs", Level.FAIL, "mount -t bpf"),
        ({"writable": False}, "bpffs", Level.FAIL, "mount -o remount,rw /sys/fs/bpf"),
        ({"programs": 0}, "programs", Level.FAIL, "systemctl restart xconnectd"),
        ({"programs": 0, "pid": None}, "programs", Level.OK, ""),
        ({"code": ""}, "code", Level.FAIL, "apt-get install python3-bpfcc"),
        ({"libbpf": ""}, "libbpf", Level.FAIL, "apt-get install libbpf1"),
        ({"pyroute2": ""}, "pyroute2", Level.FAIL, "pip install"),
        ({"pyroute2": "0.7.2"}, "pyroute2", Level.FAIL, "pip install"),
        ({"pyroute2": "0.9"}, "pyroute2", Level.FAIL, "pip install"),
        ({"btf": False}, "btf", Level.WARN, "CONFIG_DEBUG_INFO_BTF"),
        ({"xdp_features": False}, "xdp-features", Level.WARN, "xconnectd version"),
        ({"xdp_features": False, "release": "6.1"}, "xdp-features", Level.OK, ""),
        ({"jit": False}, "jit", Level.WARN, "sysctl -w net.core.bpf_jit_enable=1"),
        ({"jit": None}, "jit", Level.WARN, "sudo xconnectd doctor"),
        ({"pid": None}, "daemon", Level.WARN, "systemctl start xconnectd"),
        (
            {"pid": None, "systemd": False, "config": "/x y.yaml"},
            *("daemon", Level.WARN, "xconnectd run -c '/x y.yaml'"),
        ),
        ({"answers": False}, "daemon", Level.FAIL, "kill -KILL 7; systemctl start"),
        (
            {"pid": 0, "answers": False, "systemd": False},
            *("daemon", Level.FAIL, "# where the daemon runs, once that has ended"),
        ),
        ({"answers": False, "stopped": True}, "daemon", Level.FAIL, "kill -CONT 7"),
        ({"answers": None}, "daemon", Level.OK, ""),
        ({"config_state": ""}, "config", Level.WARN, "sudo xconnectd doctor"),
        ({"config_state": "missing"}, "config", Level.FAIL, "xconnectd check"),
        ({"config_state": "missing", "pid": None}, "config", Level.WARN, "xconnectd check"),
        (
            {"config_state": "rejected", "problems": ("x:1:1: no",)},
            *("config", Level.FAIL, "xconnectd check /etc/xconnect.yaml"),
        ),
    ],
)
def test_every_lack_has_a_remedy(
    facts: dict[str, Any], check: str, level: Level, remedy: str
) -> None:
    finding = found(**facts)[check]
    assert finding.level is level
    assert remedy in finding.remedy
    assert bool(finding.remedy) == (level is not Level.OK)


@pytest.mark.parametrize("answers", [True, False])
def test_no_process_is_killed_that_cannot_be_seen(answers: bool) -> None:
    """It is 0 here; `kill 0` would end the shell and all that it has started."""
    unseen = found(pid=0, answers=answers, programs=0, systemd=False)
    assert not any("kill" in each.remedy for each in unseen.values())


def test_sys_admin_stands_for_bpf_and_perfmon() -> None:
    held = frozenset({"CAP_SYS_ADMIN", "CAP_NET_ADMIN"})
    assert found(capabilities=held, release="5.10")["capabilities"].level is Level.OK


def test_before_5_18_perfmon_is_needed() -> None:
    held = frozenset({"CAP_BPF", "CAP_NET_ADMIN"})
    assert found(capabilities=held)["capabilities"].level is Level.OK
    old = found(capabilities=held, release="5.15")["capabilities"]
    assert "CAP_PERFMON" in old.text


def test_without_systemd_a_daemon_is_replaced_by_hand() -> None:
    assert replace(GOOD, systemd=False).repair == "kill 7; xconnectd run -c /etc/xconnect.yaml"


@pytest.mark.parametrize(
    ("facts", "remedy"),
    [
        ({"daemon_capabilities": ROOT - {"CAP_SYS_ADMIN", "CAP_PERFMON"}}, "give the daemon CAP_P"),
        ({}, "docs/safety.md"),
        ({"release": "6.3"}, None),
    ],
)
def test_a_guard_that_is_missing_is_told_with_the_way_out(
    facts: dict[str, Any], remedy: str | None
) -> None:
    told = found(guard_unavailable="it is missing", **facts).get("guard")
    if remedy is None:
        assert told is None, "the kernel says so"
    else:
        assert told is not None
        assert (told.level, told.text) == (Level.WARN, "it is missing")
        assert told.remedy.startswith(remedy)
