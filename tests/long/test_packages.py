"""The Debian package, installed, upgraded under traffic and purged in a booted Debian; a wheel."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from netns.lab import REPO, Lab, poll, run
from netns.traffic import lossless, passes

from .test_systemd import WIRE, Machine


class Bare(Machine):
    """A machine in which nothing is installed yet."""

    def _install(self, root: Path) -> None:
        pass

    def apt(self, package: Path) -> None:
        shutil.copy(package, self.root / "root")
        self.run("dpkg", "--install", f"/root/{package.name}")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What ``make deb`` builds, and the same with a higher version."""
    subprocess.run(("make", "-C", REPO, "deb"), check=True, timeout=900)
    (first,) = (REPO / "build" / "deb").glob("*.deb")
    there = tmp_path_factory.mktemp("deb")
    tree, second = there / "tree", there / "xconnectd_next.deb"
    run("dpkg-deb", "--raw-extract", str(first), str(tree))
    control = tree / "DEBIAN" / "control"
    version = next(x for x in control.read_text().splitlines() if x.startswith("Version: "))
    control.write_text(control.read_text().replace(version, f"{version}+next"))
    run("dpkg-deb", "--root-owner-group", "--build", str(tree), str(second))
    return first, second


def test_installed_upgraded_and_purged(packages: tuple[Path, Path]) -> None:
    first, second = packages
    with Lab() as lab:
        a, b = lab.veths("wa", "wb")
        machine = Bare(lab)
        before = lab.settled()
        machine.apt(first)
        assert machine.show("ActiveState") == "inactive"
        machine.write(WIRE)
        machine.systemctl("enable", "--now")
        machine.run("xconnectd", "wait", "--timeout", "30")
        pid = machine.pid
        with lossless(a, b, rate=500):
            machine.apt(second)
            machine.await_restart(pid)
            machine.run("xconnectd", "wait", "--timeout", "30")
        since = machine.cursor()
        machine.write("links:\n  wa: [wb\n")
        poll(lambda: "config.rejected" in machine.events(since), what="the refused file is told")
        assert (
            "/etc/xconnect.yaml:"
            in machine.run("journalctl", "-u", "xconnectd", "-p", "err").stdout
        )
        machine.run("dpkg", "--purge", "xconnectd")
        assert machine.run("systemctl", "cat", "xconnectd", check=False).returncode
        assert (machine.root / "etc/xconnect.yaml").exists()
        for left in ("usr/lib/xconnectd", "sys/fs/bpf/xconnectd"):
            assert not [*(machine.root / left).glob("*")], left
        lab.assert_as_found(before)


def test_the_wheel_brings_its_programs_compiled(tmp_path: Path) -> None:
    """And works where pipx puts it, with the bcc of the distribution."""
    shutil.rmtree(REPO / "dist", ignore_errors=True)
    run("make", "-C", str(REPO), "wheel")
    (wheel,) = (REPO / "dist").glob("*.whl")
    assert "xconnectd/bpf/xconnect.json" in zipfile.ZipFile(wheel).namelist()
    places = (f"PIPX_HOME={tmp_path}/home", f"PIPX_BIN_DIR={tmp_path}/bin")
    run("env", *places, "pipx", "install", "--system-site-packages", str(wheel))
    with Lab() as lab:
        a, b = lab.veths("va", "vb")
        (tmp_path / "wire.yaml").write_text("links: {va: vb}\n")
        command = (f"{tmp_path}/bin/xconnectd", "run", "-c", str(tmp_path / "wire.yaml"))
        enter = ("nsenter", f"--net=/run/netns/{lab.host}")
        with subprocess.Popen((*enter, *command), stderr=subprocess.DEVNULL) as daemon:
            with a.port() as here, b.port() as there:
                poll(lambda: passes(here, there) and passes(there, here), what="a wire")
            daemon.terminate()
        assert daemon.returncode == 0
