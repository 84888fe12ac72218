"""The service under a real systemd: what ``make install`` puts there, in a machine of its own.

The machine is a Debian tree that systemd-nspawn boots. Its network is a lab's host, so frames are
sent and counted from outside. Commands run inside: systemd-nspawn gives the machine a boot id of
its own, and its bpffs is not the one of this host.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
from netns.lab import NETNS, PATIENCE, REPO, Lab, Station, inside, poll, run
from netns.service import Daemon, document
from netns.traffic import Stream, lossless, wired

SUITE: Final = "bookworm"
PACKAGES: Final = ("systemd", "systemd-sysv", "dbus", "python3", "python3-bpfcc", "iproute2")
CACHE: Final = Path("/var/cache/xconnectd-test/systemd")
UNIT: Final = "xconnectd.service"
FOR_NODES: Final = "etc/systemd/system/xconnectd.service.d/20-nodes.conf"
FOR_HOSTS: Final = "etc/systemd/system/xconnectd.service.d/30-hosts.conf"
DROPIN: Final = "run/systemd/system/xconnectd.service.d/test.conf"
WIRE: Final = {"wa": "wb"}

BOOT: Final = """
mkdir -p {work}/root {work}/scratch
mount -t overlay overlay -o lowerdir={tree},upperdir={work}/upper,workdir={work}/scratch {work}/root
mkdir -p {work}/bpf
mount -t bpf bpf {work}/bpf
exec systemd-nspawn --quiet --directory={work}/root --boot --machine={name} \
    --register=no {keep_unit} --network-namespace-path={netns} --bind={work}/bpf:/sys/fs/bpf \
    --capability=CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN,CAP_SYS_ADMIN --system-call-filter=bpf
"""


def debian(packages: Sequence[str] = PACKAGES, variant: str = "minbase") -> Path:
    """A Debian with what the package would depend on, or what is asked for; made once, then kept.

    ``variant`` is debootstrap's, ``-`` what the installer begins with.
    """
    key = hashlib.sha256(" ".join((SUITE, variant, *packages)).encode()).hexdigest()[:8]
    tree = CACHE / f"{SUITE}-{key}"
    if not tree.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        building = CACHE / f"building-{key}"
        include = f"--include={','.join(packages)}"
        run("rm", "-rf", "--one-file-system", str(building))
        # In a mount namespace, so that an end half-way leaves no /proc mounted in there.
        bootstrap = ("unshare", "--mount", "debootstrap", f"--variant={variant}", include)
        done = subprocess.run(
            (*bootstrap, SUITE, str(building)), capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr
        run("chroot", str(building), "apt-get", "clean")
        building.rename(tree)
    return tree


class Machine:
    """A booted Debian with xconnectd installed, in the host namespace of a lab."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._work = lab.directory / "machine"
        upper = self._work / "upper"
        upper.mkdir(parents=True)
        self._install(upper)
        self._boot(self._tree())
        self.root = Path("/proc", str(self._init), "root")

    def _tree(self) -> Path:
        return debian()

    def _install(self, root: Path) -> None:
        run("make", "-C", str(REPO), "install", f"DESTDIR={root}")

    def _boot(self, tree: Path) -> None:
        """All mounts are the machine's own: they go with its last process."""
        keep_unit = "" if Path("/run/systemd/system").exists() else "--keep-unit"
        places = {"work": self._work, "tree": tree, "netns": NETNS / self.lab.host}
        script = BOOT.format(**places, name=self.lab.name, keep_unit=keep_unit)
        with (self.lab.directory / "console").open("wb") as console:
            self._nspawn = subprocess.Popen(
                ("setpriv", "--pdeathsig=KILL", "unshare", "--mount", "sh", "-euc", script),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self.lab.on_close(self._clean_up)
        self._init = poll(self._find_init, what="the machine's init", interval=0.05)
        poll(self._is_up, 180, "a booted machine", 0.2)

    def _find_init(self) -> int:
        assert self._nspawn.poll() is None, (self.lab.directory / "console").read_text()
        found = run("pgrep", "--parent", str(self._nspawn.pid), check=False).stdout.split()
        for pid in found:
            with suppress(OSError):
                if Path("/proc", pid, "comm").read_text() == "systemd\n":
                    return int(pid)
        return 0

    def _is_up(self) -> bool:
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return state in ("running", "degraded")

    def _clean_up(self) -> None:
        self._nspawn.terminate()  # an orderly poweroff
        with suppress(subprocess.TimeoutExpired):
            self._nspawn.wait(15)
        self._nspawn.kill()
        self._nspawn.wait(10)
        with suppress(OSError):
            Path("/run/systemd/nspawn/propagate", self.lab.name).rmdir()
        _remove_cgroups()

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        enter = ("nsenter", f"--target={self._init}", "--all", "--root", "--wd")
        return run(*enter, *command, check=check)

    def systemctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("systemctl", *arguments, UNIT, check=check)

    def show(self, name: str) -> str:
        return self.systemctl("show", "--value", f"--property={name}").stdout.strip()

    @property
    def pid(self) -> int:
        return int(self.show("MainPID"))

    def kill(self, number: signal.Signals) -> None:
        """A signal to the daemon alone, past systemd."""
        self.run("sh", "-c", f"kill -{number.value} {self.pid}")

    def await_restart(self, before: int) -> None:
        """Until another daemon than ``before`` runs and has said that it is ready."""

        def restarted() -> bool:
            return self.pid not in (0, before) and self.show("ActiveState") == "active"

        poll(restarted, what="a new daemon", interval=0.05)

    def write(self, wiring: str | dict[str, str]) -> None:
        fresh = self.root / "etc/.xconnect.fresh"
        fresh.write_text(document(wiring))
        fresh.rename(fresh.with_name("xconnect.yaml"))

    def dropin(self, text: str) -> None:
        path = self.root / DROPIN
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"[Service]\n{text}\n")
        self.run("systemctl", "daemon-reload")

    def cursor(self) -> str:
        """A place in the journal; pass it on as ``since``."""
        said = self.run("journalctl", "--show-cursor", "-n0").stdout
        return said.partition("cursor: ")[2].strip()

    def journal(self, since: str) -> str:
        self.run("journalctl", "--sync")
        command = ("journalctl", "--unit", UNIT, "--output=cat", f"--after-cursor={since}")
        return self.run(*command).stdout

    def events(self, since: str) -> list[str]:
        lines = (line for line in self.journal(since).splitlines() if line.startswith("{"))
        return [json.loads(line)["event"] for line in lines]

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("xconnectd", "status", "--json").stdout)
        return found


def _remove_cgroups() -> None:
    """What systemd-nspawn leaves where no systemd manages the cgroups."""
    if Path("/run/systemd/system").exists():
        return
    for kind in ("payload", "supervisor"):
        for top in Path("/sys/fs/cgroup").glob(f"*/{kind}"):
            for directory in (*sorted(top.glob("**/"), reverse=True), top):
                with suppress(OSError):
                    directory.rmdir()


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[Machine, Station, Station]]:
    with Lab() as lab:
        a, b, _ = lab.veths("wa", "wb", "wc")
        yield Machine(lab), a, b


@pytest.fixture
def machine(site: tuple[Machine, Station, Station]) -> Iterator[Machine]:
    """Stopped, with the installed unit as it is, and a file with one wire."""
    machine = site[0]
    machine.write(WIRE)
    yield machine
    machine.systemctl("stop", check=False)
    machine.systemctl("reset-failed", check=False)
    (machine.root / DROPIN).unlink(missing_ok=True)
    machine.run("systemctl", "daemon-reload")


@pytest.fixture
def stream(site: tuple[Machine, Station, Station], machine: Machine) -> Iterator[Stream]:
    """The service runs, and 2,000 frames a second cross its wire each way."""
    machine.systemctl("start")
    with Stream(*site[1:], rate=2000) as stream:
        poll(stream.flows, what="frames that cross")
        yield stream


def assert_perfect(stream: Stream) -> None:
    stream.stop()
    print(f"{stream.rate:.0f} frames/s each way; {stream}")
    stream.assert_perfect()
    assert stream.rate > 400, stream.rate


def test_start_returns_when_the_wire_is_there(
    site: tuple[Machine, Station, Station], machine: Machine
) -> None:
    """And the status line says what is missing."""
    machine.systemctl("start")
    with Stream(*site[1:]) as stream:
        time.sleep(0.2)
    stream.assert_perfect()
    assert machine.show("ActiveState") == "active"
    poll(lambda: machine.show("StatusText") == "1 link: 1 connected", what="the status text")
    machine.write(WIRE | {"tap3": "tap4"})
    text = r"2 links: 1 connected, 1 waiting for tap3 and tap4"
    poll(lambda: re.fullmatch(text, machine.show("StatusText")), what="the status text")


def test_what_is_wrong_is_found_where_one_looks(machine: Machine) -> None:
    """By priority in the journal, and first in the unit's status."""
    machine.systemctl("start")

    def errors() -> list[str]:
        """All since the machine was booted: journalctl passes over one after a cursor."""
        machine.run("journalctl", "--sync")
        wanted = ("--unit", UNIT, "--output=cat", "--priority=err")
        return machine.run("journalctl", *wanted, check=False).stdout.splitlines()

    before = len(errors())
    machine.write("links: {wa: wb}\nlniks: {}\nmore: {}\n")
    refused = "rejected: /etc/xconnect.yaml:2:1: "
    poll(lambda: machine.show("StatusText").startswith(refused), what="the status text")
    assert machine.show("StatusText").endswith("and 1 more problem; 1 link: 1 connected")
    assert [json.loads(line)["event"] for line in errors()[before:]] == ["config.rejected"]
    machine.write({"wa": "wb"})
    poll(lambda: machine.show("StatusText") == "1 link: 1 connected", what="the status text")
    machine.dropin("ExecStart=\nExecStart=/usr/bin/xconnectd run --strict -c /nosuch.yaml")
    machine.systemctl("restart", check=False)
    assert any("/nosuch.yaml:" in line for line in errors()[before + 1 :])


def test_the_sandbox_is_closed_and_metrics_are_served_from_it(machine: Machine) -> None:
    """By TCP to this host, and by a unix socket in the one directory that can be written to."""
    port, path = 9109, machine.root / "run/xconnectd/metrics.sock"
    machine.write(f"metrics: {{listen: 127.0.0.1:{port}}}\nlinks: {{wa: wb}}\n")
    since = machine.cursor()
    machine.systemctl("start")
    status = machine.run("cat", f"/proc/{machine.pid}/status").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    capabilities = 1 << 11 | 1 << 12 | 1 << 38 | 1 << 39  # NET_BROADCAST, NET_ADMIN, PERFMON, BPF
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == capabilities
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    poll(lambda: "metrics.served" in machine.events(since))
    here = ("127.0.0.1", port)
    asking = inside(machine.lab.host, lambda: socket.create_connection(here, PATIENCE))
    assert b'xconnectd_link_state{a="wa",b="wb"' in _scrape(asking)
    machine.write("metrics: {listen: 'unix:/run/xconnectd/metrics.sock'}\nlinks: {wa: wb}\n")
    poll(lambda: machine.events(since).count("metrics.served") == 2)
    asking = socket.socket(socket.AF_UNIX)
    asking.connect(str(path))
    assert b'xconnectd_link_state{a="wa",b="wb"' in _scrape(asking)


def _scrape(asking: socket.socket) -> bytes:
    with asking, asking.makefile("rb") as answer:
        asking.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        return answer.read()


@pytest.mark.skipif(
    tuple(map(int, os.uname().release.split(".")[:2])) < (5, 18),
    reason="before Linux 5.18 the verifier wants CAP_PERFMON",
)
def test_two_capabilities_are_enough(
    site: tuple[Machine, Station, Station], machine: Machine
) -> None:
    machine.dropin("CapabilityBoundingSet=\nCapabilityBoundingSet=CAP_BPF CAP_NET_ADMIN")
    before = machine.cursor()
    machine.systemctl("start")
    assert "program.loaded" in machine.events(before)
    with Stream(*site[1:]) as stream:
        time.sleep(0.2)
    stream.assert_perfect()


def test_members_of_the_group_may_look(machine: Machine) -> None:
    machine.systemctl("start")
    group = machine.run("getent", "group", "xconnectd").stdout.split(":")[2]
    member = ("setpriv", "--reuid=4711", "--regid=4711", f"--groups={group}")
    done = machine.run(*member, "xconnectd", "status", "--json")
    assert json.loads(done.stdout)["links"][0]["state"] == "connected"
    machine.run(*member, "xconnectd", "wait", "--timeout=30")
    stranger = ("setpriv", "--reuid=4711", "--regid=4711", "--clear-groups")
    done = machine.run(*stranger, "xconnectd", "status", check=False)
    assert done.returncode == 1
    assert "only root and group xconnectd may connect" in done.stderr
    done = machine.run(*member, "xconnectd", "reload", check=False)
    assert done.returncode == 1


@pytest.mark.parametrize("how", ["restart", "crash"])
def test_restarts_and_crashes_lose_no_frame(machine: Machine, stream: Stream, how: str) -> None:
    before = machine.cursor()
    for _ in range(4):
        pid = machine.pid
        if how == "restart":
            machine.systemctl("restart")
            machine.systemctl("is-active")
        else:
            machine.kill(signal.SIGKILL)
            machine.await_restart(pid)
    assert_perfect(stream)
    assert machine.events(before).count("program.adopted") == 4
    assert machine.show("NRestarts") == ("4" if how == "crash" else "0")


def test_a_hung_daemon_is_replaced_and_loses_no_frame(
    site: tuple[Machine, Station, Station], machine: Machine
) -> None:
    machine.dropin("WatchdogSec=2s")
    machine.systemctl("start")
    pid = machine.pid
    with Stream(*site[1:], rate=2000) as stream:
        time.sleep(4)  # two of its terms: a daemon that works is left in peace
        assert machine.pid == pid
        machine.kill(signal.SIGSTOP)
        machine.await_restart(pid)
        time.sleep(0.5)
    assert_perfect(stream)
    assert machine.show("NRestarts") == "1"


def test_an_upgrade_of_the_program_loses_no_frame(machine: Machine, stream: Stream) -> None:
    """Not what the installed code was made from: the source is compiled, in the sandbox."""
    before = machine.cursor()
    source = machine.root / "usr/lib/xconnectd/xconnectd/bpf/xconnect.c"
    text = source.read_text()
    try:
        for version in range(2):
            source.write_text(f"{text}\n/* {version} */\n")
            machine.systemctl("restart")
        source.write_text(text)
        machine.systemctl("restart")
    finally:
        source.write_text(text)
    assert_perfect(stream)
    assert machine.events(before).count("program.loaded") == 3


def test_a_reload_returns_with_its_outcome(machine: Machine, stream: Stream) -> None:
    before = machine.cursor()
    (machine.root / "etc/xconnect.yaml").write_text("links: {wa: wb, : }\nno: 1\n")
    done = machine.systemctl("reload", check=False)
    assert done.returncode != 0
    assert machine.show("ActiveState") == "active"
    assert "/etc/xconnect.yaml:" in machine.journal(before)
    machine.write({**WIRE, "wd": "we"})
    machine.systemctl("reload")
    assert len(machine.status()["links"]) == 2
    assert_perfect(stream)


@pytest.mark.parametrize("crashed", [False, True])
def test_a_stop_leaves_nothing(machine: Machine, crashed: bool) -> None:
    found = machine.lab.settled()
    machine.systemctl("start")
    assert machine.lab.snapshot() != found
    if crashed:
        pid = machine.pid
        machine.kill(signal.SIGKILL)
        machine.await_restart(pid)
    machine.systemctl("stop")
    assert machine.show("Result") == "success"
    machine.lab.assert_as_found(found)
    left = machine.run("find", "/sys/fs/bpf/xconnectd", "/run/xconnectd", "-mindepth", "1").stdout
    assert left == ""


def test_networkd_leaves_the_ends_alone(machine: Machine) -> None:
    """It is told to take every interface; the example that we ship comes first in the alphabet.

    And the unit that is installed pleases systemd.
    """
    directory = machine.root / "etc/systemd/network"
    example = machine.run("cat", "/usr/share/doc/xconnectd/examples/10-xconnectd.network").stdout
    names = next(line for line in example.splitlines() if line.startswith("Name="))
    (directory / "99-all.network").write_text(
        "[Match]\nName=wa wb wc\n[Link]\nMTUBytes=1400\n[Network]\nAddress=203.0.113.1/24\n"
    )
    (directory / "10-xconnectd.network").write_text(example.replace(names, "Name=wa wb"))
    try:
        machine.systemctl("start")
        machine.run("systemctl", "start", "systemd-networkd.service")
        listed = machine.run("networkctl", "list", "--no-legend").stdout
        wires = [row for row in map(str.split, listed.splitlines()) if row[1] in ("wa", "wb")]
        assert [row[-1] for row in wires] == ["unmanaged", "unmanaged"]
        taken = "203.0.113.1/24"
        poll(lambda: taken in machine.lab.snapshot()["addresses"]["wc"], what="networkd at work")
        addresses = machine.lab.snapshot()["addresses"]
        assert taken not in addresses["wa"] + addresses["wb"]
        assert machine.status()["links"][0]["state"] == "connected"
        assert machine.run("systemd-analyze", "verify", "--man=no", UNIT).stderr == ""
    finally:
        machine.run("systemctl", "stop", "systemd-networkd.socket", "systemd-networkd.service")
        for path in directory.glob("*.network"):
            path.unlink()


@pytest.fixture
def leaves(machine: Machine) -> Iterator[tuple[str, str]]:
    """Two namespaces with names, which a wire is to join; the first ones of this machine."""
    names = ("leaf1", "leaf2")
    machine.write({f"{names[0]}:eth1": f"{names[1]}:eth1"})
    yield names
    (machine.root / FOR_NODES).unlink(missing_ok=True)
    for name in names:
        machine.run("ip", "netns", "delete", name, check=False)


def _state(machine: Machine) -> dict[str, Any]:
    (link,) = machine.status()["links"]
    found: dict[str, Any] = link
    return found


def _is_connected(machine: Machine) -> bool:
    return bool(_state(machine)["state"] == "connected")


def test_without_the_drop_in_only_the_far_ends_of_nodes_are_left_to_others(
    machine: Machine, leaves: tuple[str, str]
) -> None:
    machine.systemctl("start")
    for name in leaves:
        machine.run("ip", "netns", "add", name)
    told = poll(lambda: _state(machine)["warnings"], what="a warning", interval=0.1)
    assert _state(machine)["state"] == "down"
    assert any("CAP_SYS_ADMIN" in text for text in told), told
    for name in leaves:
        machine.run("ip", "-n", name, "link", "set", "eth1", "up")
    poll(lambda: _is_connected(machine), what="a wire between ends that somebody has set up")


@pytest.mark.parametrize("by_process", [False, True])
def test_with_the_drop_in_nodes_come_and_go(
    machine: Machine, leaves: tuple[str, str], by_process: bool
) -> None:
    """As it is shipped, and with what it has as a comment. No namespace is held by the sandbox."""
    text = machine.run("cat", "/usr/share/doc/xconnectd/examples/20-nodes.conf").stdout
    if by_process:
        text = text.replace(
            "#CapabilityBoundingSet=CAP_SYS_PTRACE", "CapabilityBoundingSet=CAP_SYS_PTRACE"
        )
    path = machine.root / FOR_NODES
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    machine.run("systemctl", "daemon-reload")
    machine.systemctl("start")
    for _ in range(3):
        for name in leaves:
            machine.run("ip", "netns", "add", name)
        poll(lambda: _is_connected(machine), what="a wire between namespaces that have come")
        for name in leaves:
            machine.run("ip", "netns", "delete", name)
        poll(lambda: not set(machine.lab.interfaces()) - {"wa", "wb", "wc"}, what="no veth left")
    if by_process:
        sleep = "unshare --net sleep 1000 >/dev/null 2>&1 & echo $!"
        pids = [int(machine.run("sh", "-c", sleep).stdout) for _ in leaves]
        entries = ", ".join(f"{x}: {{pid: {pid}}}" for x, pid in zip(leaves, pids, strict=True))
        machine.write(f"nodes: {{{entries}}}\nlinks: {{leaf1:eth1: leaf2:eth1}}\n")
        poll(lambda: _is_connected(machine), what="a wire between processes")
        for pid in pids:
            machine.run("sh", "-c", f"kill {pid}")


@pytest.fixture
def across(machine: Machine) -> Iterator[tuple[Station, Station]]:
    """What is plugged into a link of two hosts: the machine, and one without systemd.

    Both have the same file. Neither is told who it is: each has one of its addresses.
    """
    with Lab() as there:
        labs = (machine.lab, there)
        machine.lab.ip(f"link add under0 type veth peer name under0 netns {there.host}")
        for number, lab in enumerate(labs, 1):
            lab.ip(f"address add 203.0.113.{number}/24 dev under0")
            lab.ip("link set under0 up")
        stations = tuple(lab.veth("wd") for lab in labs)
        hosts = "hosts: {h1: 203.0.113.1, h2: 203.0.113.2}\n"
        machine.write(f"{hosts}links:\n  wa: wb\n  h1/wd: h2/wd\n")
        Daemon(there, (machine.root / "etc/xconnect.yaml").read_text()).start()
        yield stations[0], stations[1]
        machine.systemctl("stop")
        for device in ("wd", "under0"):
            machine.lab.ip(f"link delete {device}")
    (machine.root / FOR_HOSTS).unlink(missing_ok=True)


def test_with_the_drop_in_another_host_is_heard(
    site: tuple[Machine, Station, Station], across: tuple[Station, Station]
) -> None:
    """As it is shipped. To take it into use loses no frame, nor does any other restart."""
    machine, *stations = site
    machine.systemctl("start")

    def between() -> dict[str, Any]:
        (link,) = (link for link in machine.status()["links"] if link["peer"])
        found: dict[str, Any] = link
        return found

    poll(lambda: "30-hosts.conf" in between()["reason"], what="a reason")
    assert between()["state"] != "connected"
    text = machine.run("cat", "/usr/share/doc/xconnectd/examples/30-hosts.conf").stdout
    (machine.root / FOR_HOSTS).parent.mkdir(exist_ok=True)
    (machine.root / FOR_HOSTS).write_text(text)
    machine.run("systemctl", "daemon-reload")
    with lossless(*stations, rate=500):
        machine.systemctl("restart")
        poll(lambda: between()["state"] == "connected", what="a wire between two hosts")
    assert wired(*across)
    with lossless(*across, rate=500):
        machine.systemctl("restart")
        machine.run("xconnectd", "wait", "--timeout", "30")
    assert between()["state"] == "connected"


INSTALL: Final = """
mount -t tmpfs none /run/systemd    # no manager: the host's own must not hear of this
for directory in usr etc; do
    mkdir -p {work}/$directory {work}/scratch-$directory
    mount -t overlay overlay /$directory \\
        -o lowerdir=/$directory,upperdir={work}/$directory,workdir={work}/scratch-$directory
done
echo 'links: {{}}' >/etc/xconnect.yaml
make -C {repo} install
cd /
xconnectd version --json
xconnectd check /usr/share/doc/xconnectd/examples/xconnect.yaml >&2
getent group xconnectd >&2
test -s /usr/share/man/man8/xconnectd.8.gz
make -C {repo} uninstall
test "$(cat /etc/xconnect.yaml)" = 'links: {{}}'
"""


def test_an_installation_comes_and_goes(tmp_path: Path) -> None:
    """On this system as it is, but over it: not a file of it is touched."""
    script = INSTALL.format(work=tmp_path, repo=REPO)
    done = run("unshare", "--mount", "sh", "-euxc", script)
    versions = json.loads(next(x for x in done.stdout.splitlines() if x.startswith("{")))
    assert versions["bcc"], "the distribution's bcc is not seen"
    assert versions["pyroute2"] != "0.7.2", "Debian's pyroute2 is seen"
    left = [path for path in tmp_path.glob("usr/**/*") if path.is_file()]
    assert left == []


def test_it_can_be_installed_elsewhere(tmp_path: Path) -> None:
    """As a package is built: nothing of where it was built may be in it."""
    make = ("make", "-C", str(REPO), f"DESTDIR={tmp_path}", "PREFIX=/opt/x")
    run(*make, "install")
    program = (tmp_path / "opt/x/bin/xconnectd").read_text()
    assert 'sys.path.insert(0, "/opt/x/lib/xconnectd")' in program
    unit = (tmp_path / "opt/x/lib/systemd/system/xconnectd.service").read_text()
    assert "ExecStart=/opt/x/bin/xconnectd run" in unit
    assert "/usr/bin/xconnectd" not in unit
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    here = [path for path in files if str(tmp_path).encode() in path.read_bytes()]
    assert here == []
    run(*make, "uninstall")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
