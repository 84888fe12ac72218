"""A newcomer's first hour: a Debian as its installer leaves it, a checkout, and what the pages say.

What they say to type is typed as it stands there, in one machine and in that order. The machine
has the network of a lab; what it downloads comes by that of this host.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from netns.lab import REPO, Lab, poll

from tests.pages import commands, section

from .test_packages import Bare
from .test_systemd import debian

README = (REPO / "README.md").read_text()
SYSTEMD = (REPO / "docs" / "systemd.md").read_text()
OWN_WIRE = 180.0
"""Seconds that the own first wire may take, once the package is there."""
MOVED = """\
version: 1
links:
  leaf1-eth1: spine1-eth2
"""


class Fresh(Bare):
    """What was typed into it, and what it said, is printed: pytest shows it after a failure."""

    def _tree(self) -> Path:
        return debian(("systemd-sysv", "dbus", "sudo"), "-")

    def _install(self, root: Path) -> None:
        """The checkout, and how this host reaches its mirrors."""
        checkout = root / "root" / "xconnectd"
        checkout.mkdir(parents=True)
        listed = ("git", "-C", REPO, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        files = subprocess.run(listed, check=True, capture_output=True).stdout
        copy = ("xargs", "-0", "cp", "--parents", "-t", checkout)
        subprocess.run(copy, input=files, check=True, cwd=REPO)
        certificates = "usr/local/share/ca-certificates"
        shutil.copytree(f"/{certificates}", root / certificates)
        if Path("/etc/pip.conf").exists():
            (root / "etc").mkdir()
            shutil.copy("/etc/pip.conf", root / "etc")

    def type(self, script: str, *, answer: str = "", download: bool = False) -> str:
        """What bash, in the checkout, says to these lines, all of which have to succeed."""
        which = ("--mount", "--uts", "--ipc", "--pid", "--cgroup") if download else ("--all",)
        enter = ("nsenter", f"--target={self._init}", *which, "--root", "--wd")
        began = time.monotonic()
        done = subprocess.run(
            (*enter, "bash", "-c", f"set -eo pipefail\ncd /root/xconnectd\n{script}"),
            env={**os.environ, "HOME": "/root", "TERM": "dumb"},
            input=answer,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1800,
        )
        print(f"{script}\n{done.stdout[-4000:]}\n{time.monotonic() - began:.1f} s\n")
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout


@pytest.fixture(scope="module")
def machine() -> Iterator[Fresh]:
    with Lab() as lab:
        yield Fresh(lab)


def test_a_package_is_built_and_installed(machine: Fresh) -> None:
    (make,) = re.findall(r"`(apt install make)`", README)
    machine.type(make, download=True)
    (install,) = commands(section(README, "Install"))
    machine.type(install, answer="y\n", download=True)
    assert machine.show("ActiveState") == "inactive", "nothing is started unasked"
    assert machine.type("xconnectd --version").startswith("xconnectd ")


def test_the_own_wire_takes_less_than_three_minutes(machine: Fresh) -> None:
    first = section(README, "Your own first wire")
    (wire,) = re.findall(r"```yaml\n(.*?)```", first, re.DOTALL)
    began = time.monotonic()
    typed = "\n".join(
        (f"cat >wire.yaml <<'END'\n{wire}END", *commands(first), "kill %1 && wait %1")
    )
    told = machine.type(typed)
    assert time.monotonic() - began < OWN_WIRE
    for seen in ("wire.yaml: good, 1 link", "3 received, 0% packet loss", "1 link: 1 connected"):
        assert seen in told


def test_the_service_follows_its_file_and_says_what_it_refuses(machine: Fresh) -> None:
    (start,) = re.findall(r"`(sudo systemctl enable --now xconnectd)`", README)
    machine.type(f"cp wire.yaml /etc/xconnect.yaml\n{start}\nsudo xconnectd wait")
    assert machine.show("UnitFileState") == "enabled"
    *_, journal, refused = commands(section(SYSTEMD, "As a systemd service", "# "))
    machine.type(
        "ip netns exec leaf1 ping -c 1 198.51.100.2\n"
        "ip link add spine1-eth2 type veth peer name eth2 netns spine1\n"
        "ip -n spine1 link set eth2 up"
    )
    machine.write(MOVED)
    machine.type("sudo xconnectd wait leaf1-eth1:spine1-eth2")
    assert "link.rewired" in machine.type(journal)
    assert machine.type(f"{refused} || true").count("config.rejected") == 0
    machine.write("links:\n  leaf1-eth1: [spine1-eth1\n")
    poll(lambda: "config.rejected" in machine.type(refused), what="the refused file", interval=1)
    assert "/etc/xconnect.yaml:2:15" in machine.type(refused)
    told = machine.type("sudo xconnectd status")
    assert "leaf1-eth1 — spine1-eth2 connected" in told, "the last good wiring goes on"
    assert "rejected" in told


def test_without_a_package_make_installs_and_removes_it(machine: Fresh) -> None:
    """In place of the package, and gone again to the last file."""
    machine.type("sudo apt purge --yes xconnectd", download=True)
    before = machine.type("find /usr /etc -xdev -path '*xconnect*' -type f | sort")
    (install,) = re.findall(r"or: (sudo make install)", README)
    machine.type(install, download=True)
    machine.write(MOVED)
    found = machine.lab.settled()
    machine.type("sudo systemctl enable --now xconnectd\nsudo xconnectd wait")
    machine.type("man -w xconnectd || test -e /usr/share/man/man8/xconnectd.8.gz")
    (remove,) = re.findall(r"`(sudo make uninstall)`", SYSTEMD)
    machine.type(remove)
    machine.lab.assert_as_found(found)
    assert machine.run("systemctl", "cat", "xconnectd", check=False).returncode
    after = machine.type("find /usr /etc -xdev -path '*xconnect*' -type f | sort")
    left = set(after.splitlines()) - set(before.splitlines())
    assert {path for path in left if "xconnect" in path} <= {"/etc/xconnect.yaml"}


def test_the_demo_is_the_only_command(machine: Fresh) -> None:
    """It needs no network but for packages: its lab has names of its own."""
    demo, _ = commands(section(README, "Try it"))
    assert "every setting is as it was found" in machine.type(demo, download=True)
