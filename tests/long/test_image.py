"""The image: built as users build it, and run with nothing but what it needs.

buildah and podman keep everything of theirs in ``CACHE``, which makes a second run quick and can be
removed at any time; the base image is made from the distribution's packages, not downloaded. Where
a mirror has a certificate of its own, it is in the stand-in for the base image, not in ours.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from netns.frames import odd_frames
from netns.lab import BPFFS, NETNS, REPO, Lab, Station, poll
from netns.service import Event, Wiring, document
from netns.traffic import datagrams, exchange, lossless, transfer, wired
from packaging.utils import canonicalize_name

CACHE: Final = Path("/var/cache/xconnectd-test/image")
VOLATILE: Final = Path("/run/xconnectd-test")
BASE: Final = "docker.io/library/debian:bookworm-slim"
IMAGE: Final = "localhost/xconnectd:test"
KILLED: Final = 9.0
"""Seconds after which `docker stop` is about to use force."""
WITH_COMPILER: Final = "localhost/xconnectd:with-compiler"
MB: Final = 1_000_000

# The whole privilege of the daemon, as docs/containers.md and config/examples give it.
CAPABILITIES: Final = {"NET_ADMIN": 12, "BPF": 39}
CONFINED: Final = (
    *("--read-only", "--read-only-tmpfs=false", "--tmpfs", "/run"),
    *("--cap-drop", "all", "--security-opt", "no-new-privileges"),
)
UNCONFINED_BY_SECCOMP: Final = ("--security-opt", "seccomp=unconfined")

# What Docker's own image is without: so the figures can be compared.
_SLIM: Final = ("usr/share/man", "usr/share/info", "usr/share/locale", "var/lib/apt/lists")
_DPKG: Final = """\
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
"""
_STORAGE: Final = f"""\
[storage]
driver = "overlay"
graphroot = "{CACHE}/storage"
runroot = "{VOLATILE}/storage"
"""
_CONTAINERS: Final = f"""\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
static_dir = "{CACHE}/libpod"
volume_path = "{CACHE}/volumes"
tmp_dir = "{VOLATILE}/podman"
"""
_counter = itertools.count(1)


def engine(
    *command: str, check: bool = True, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """podman or buildah, on storage of our own; health checks are ours to run."""
    surroundings = {
        "CONTAINERS_STORAGE_CONF": str(CACHE / "storage.conf"),
        "CONTAINERS_CONF": str(CACHE / "containers.conf"),
        "DISABLE_HC_SYSTEMD": "true",
    }
    done = subprocess.run(
        command, env={**os.environ, **surroundings}, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0 or not check, f"{command}: {done.stderr[-2000:] or done.stdout}"
    return done


@pytest.fixture(scope="module")
def image(_kernel: None) -> Iterator[str]:
    """Our image, from the sources as they are now. One minute from nothing, seconds after that."""
    for tool in ("buildah", "podman", "runc", "debootstrap"):
        if shutil.which(tool) is None:
            text = f"{tool} is missing (make setup installs it)"
            pytest.fail(text) if os.environ.get("CI") else pytest.skip(text)
    CACHE.mkdir(parents=True, exist_ok=True)
    VOLATILE.mkdir(exist_ok=True)
    (CACHE / "storage.conf").write_text(_STORAGE)
    (CACHE / "containers.conf").write_text(_CONTAINERS)
    (CACHE / "seccomp.json").write_text(_docker_seccomp())
    _remove_containers()
    if engine("podman", "image", "exists", BASE, check=False).returncode:
        _make_base()
    # The build stage has a name too: without one its packages would be pruned as well.
    build("localhost/xconnectd:build", "--target", "build")
    build(IMAGE)
    engine("podman", "image", "prune", "--force")
    yield IMAGE
    _remove_containers()


def build(tag: str, *options: str) -> None:
    isolated = ("--isolation", "chroot", "--network", "host", "--pull-never")
    command = ("buildah", "bud", "--layers", "--format", "docker", *isolated, *options)
    command += ("--build-arg", f"BASE={BASE}")
    engine(*command, "--tag", tag, str(REPO), timeout=600)


def _remove_containers() -> None:
    engine("podman", "rm", "--all", "--force", "--volumes", "--time", "0")


def _make_base() -> None:
    root = CACHE / "base"
    shutil.rmtree(root, ignore_errors=True)
    engine("debootstrap", "--variant=minbase", "bookworm", str(root), timeout=600)
    (root / "etc/dpkg/dpkg.cfg.d/docker").write_text(_DPKG)
    for path in _SLIM:
        shutil.rmtree(root / path, ignore_errors=True)
    for path in (*root.glob("var/cache/apt/archives/*.deb"), *root.glob("var/cache/apt/*.bin")):
        path.unlink()
    for path in root.glob("usr/share/doc/*/*"):
        if path.name != "copyright" and not path.is_dir():
            path.unlink()
    shutil.copytree(
        "/usr/local/share/ca-certificates",
        root / "usr/local/share/ca-certificates",
        dirs_exist_ok=True,
    )
    archive = CACHE / "base.tar"
    engine("tar", "-C", str(root), "-cf", str(archive), ".", timeout=120)
    engine("podman", "import", str(archive), BASE, timeout=120)
    shutil.rmtree(root)
    archive.unlink()


def _docker_seccomp() -> str:
    """What current Docker does: its profile allows bpf() to who has CAP_BPF."""
    profile = json.loads(Path("/usr/share/containers/seccomp.json").read_text())
    for rule in profile["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name != "bpf"]
    profile["syscalls"].append({"names": ["bpf"], "action": "SCMP_ACT_ALLOW"})
    return json.dumps(profile)


@dataclass
class Container:
    """A container of the image in a lab's host. What it is given it finds at the usual places."""

    lab: Lab
    config: Path
    mount: str = "/etc/xconnectd"
    command: tuple[str, ...] = ()
    bpffs: bool = True
    capabilities: Iterable[str] = tuple(CAPABILITIES)
    options: tuple[str, ...] = ("--security-opt", f"seccomp={CACHE}/seccomp.json")
    environment: Mapping[str, str] = field(default_factory=dict)
    image: str = IMAGE
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"{self.lab.name}-{next(_counter)}"
        self.state.mkdir(exist_ok=True)

    @property
    def state(self) -> Path:
        return self.lab.directory / "state"

    def spawn(self) -> Container:
        volumes = [f"{self.config}:{self.mount}:ro", f"{self.state}:/run/xconnectd"]
        volumes += [f"{BPFFS}:/bpf"] * self.bpffs
        self.lab.on_close(engine, "podman", "rm", "-fv", "--time", "0", "--ignore", self.name)
        engine(
            *("podman", "run", "--detach", "--name", self.name, *CONFINED, *self.options),
            *("--network", f"ns:{NETNS / self.lab.host}"),
            *(f"--cap-add={name}" for name in self.capabilities),
            *(f"--volume={volume}" for volume in volumes),
            *(f"--env={name}={value}" for name, value in self.environment.items()),
            *(self.image, *self.command),
        )
        return self

    def start(self) -> Container:
        self.spawn()
        self.wait_event("daemon.ready")
        return self

    def stop(self) -> float:
        """As ``docker stop``; returns the seconds that it took."""
        start = time.monotonic()
        engine("podman", "stop", self.name)
        return time.monotonic() - start

    def crash(self) -> None:
        """Ends all of it at once; the next container is to find what this one had made."""
        engine("podman", "kill", "--signal", "KILL", self.name)
        assert self.wait() == 137

    def wait(self) -> int:
        """The exit code. Of podman's commands, `ps` is the one that looks at once."""
        only = ("--all", "--filter", f"name=^{self.name}$")

        def ended() -> list[str]:
            listed = engine("podman", "ps", *only, "--format", "{{.Exited}} {{.ExitCode}}").stdout
            exited, code = listed.split()
            return [code] if exited == "true" else []

        return int(poll(ended, what=f"the end of {self.name}", interval=0.05)[0])

    @property
    def pid(self) -> int:
        """Of the daemon, as seen from here; it is the one child of PID 1."""
        init = engine("podman", "inspect", "--format", "{{.State.Pid}}", self.name).stdout.strip()
        return int(Path(f"/proc/{init}/task/{init}/children").read_text())

    def exec(self, *command: str) -> subprocess.CompletedProcess[str]:
        return engine("podman", "exec", self.name, *command, check=False)

    def health(self) -> tuple[int, str]:
        """Runs the image's health check: its exit code and what it said."""
        code = engine("podman", "healthcheck", "run", self.name, check=False).returncode
        log = json.loads(engine("podman", "inspect", self.name).stdout)[0]["State"]
        return code, (log.get("Health") or log["Healthcheck"])["Log"][-1]["Output"]

    def log(self) -> str:
        done = engine("podman", "logs", self.name)
        return done.stdout + done.stderr

    def events(self, name: str, **fields: object) -> list[Event]:
        events = [json.loads(x) for x in self.log().splitlines() if x.startswith("{")]
        wanted = {"event": name, **fields}
        return [x for x in events if wanted.items() <= x.items()]

    def wait_event(self, name: str, **fields: object) -> Event:
        try:
            return poll(lambda: self.events(name, **fields), what=name, interval=0.05)[0]
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None


@dataclass
class Rack:
    """A lab with three containers on the patch panel, and the directory with its files."""

    lab: Lab
    stations: dict[str, Station]
    etc: Path

    def write(self, wiring: Wiring, name: str = "lab.yaml") -> None:
        """Replace a file by a rename."""
        fresh = self.etc / f".{name}.new"
        fresh.write_text(document(wiring))
        fresh.rename(self.etc / name)

    def container(self, **options: Any) -> Container:
        return Container(self.lab, options.pop("config", self.etc), **options)

    def crosses(self, a: str, b: str) -> bool:
        return wired(self.stations[a], self.stations[b])

    def wait_crossing(self, a: str, b: str) -> None:
        poll(lambda: self.crosses(a, b), what=f"frames between {a} and {b}")


@pytest.fixture
def rack(image: str, lab: Lab) -> Rack:
    assert image == IMAGE
    stations = {name: lab.veth(name, number) for number, name in enumerate(("a1", "b1", "c1"), 1)}
    poll(lambda: all("LOWER_UP" in lab.link(end)["flags"] for end in stations), what="carrier")
    etc = lab.directory / "etc"
    etc.mkdir()
    new = Rack(lab, stations, etc)
    new.write({"a1": "b1"})
    return new


WHAT_IS_IN_IT: Final = """
import io, json
from importlib.metadata import distributions
from pathlib import Path

from xconnectd.daemon import metrics
from xconnectd.status.tui import Console, Live, Table

console = Console(file=io.StringIO(), force_terminal=True)
table = Table("LINK")
table.add_row("a", style="reverse")
with Live(table, console=console, screen=True):
    pass
left = [*Path("/").glob("[eou]*/**/*LLVM*"), *Path("/").glob("[eou]*/**/*bcc*")]
left += [*Path("/").glob("[eou]*/**/clang*"), *Path("/").glob("[eou]*/**/pip")]
held = {found.name: found.version for found in distributions()}
print(json.dumps({"left": [str(path) for path in left], "held": held}))
"""


def _size(image: str) -> float:
    return int(engine("podman", "image", "inspect", "--format", "{{.Size}}", image).stdout) / MB


def test_the_image_holds_what_is_locked_and_no_compiler(rack: Rack) -> None:
    """What rich does not need here was taken out again; the live table is drawn without it."""
    entry = ("--entrypoint", '["/opt/xconnectd/bin/python", "-c"]')
    container = rack.container(options=entry, command=(WHAT_IS_IN_IT,)).spawn()
    assert container.wait() == 0, container.log()
    found = json.loads(container.log())
    assert found["left"] == []
    held = {f"{canonicalize_name(name)}=={version}" for name, version in found["held"].items()}
    lines = (REPO / ".ci" / "requirements.txt").read_text().splitlines()
    locked = {line.split()[0] for line in lines if "==" in line}
    assert {x.partition("==")[0] for x in held - locked} == {"xconnectd"}
    left_out = {"markdown-it-py", "mdurl", "pygments"}
    assert {x.partition("==")[0] for x in locked - held} == left_out
    ours = _size(IMAGE) - _size(BASE)
    print(f"{_size(IMAGE):.0f} MB, {ours:.0f} MB on top of its base")
    assert ours < 70
    said = json.loads(engine("podman", "image", "inspect", IMAGE).stdout)[0]
    assert said["Config"]["Cmd"] == ["run", "-c", "/etc/xconnectd"]
    assert said["Config"]["Volumes"] == {"/run/xconnectd": {}}
    assert said["Healthcheck"]["Test"] == ["CMD", "xconnectd", "status", "--health"]


def test_with_compiler_compiles_what_was_changed(rack: Rack) -> None:
    build(WITH_COMPILER, "--target", "with-compiler")
    other = {"XCONNECTD_CODE": "/no/such/file"}
    compiling = rack.container(image=WITH_COMPILER, environment=other).start()
    rack.wait_crossing("a1", "b1")
    compiling.stop()
    without = rack.container(environment=other).spawn()
    assert without.wait() == 3
    assert "install the distribution's package" in without.log()
    print(f"with a compiler: {_size(WITH_COMPILER):.0f} MB")


def test_a_wire_with_the_least_privileges(rack: Rack) -> None:
    container = rack.container().start()
    here, there = rack.stations["a1"], rack.stations["b1"]
    transfer(here, there)
    transfer(there, here, v6=True)
    datagrams(here, there)
    with here.port() as a, there.port() as b:
        for ways in ((a, b), (b, a)):
            delivery = exchange(*ways, list(odd_frames().values()))
            assert not delivery.missing, delivery  # extra: what the containers say by themselves
    assert container.exec("touch", "/here", "/opt/here", "/tmp/here").returncode
    told = container.exec("cat", "/proc/1/status").stdout
    held = dict(line.split(":\t") for line in told.splitlines())
    assert int(held["CapBnd"], 16) == sum(1 << bit for bit in CAPABILITIES.values())
    assert (held["Seccomp"], held["NoNewPrivs"]) == ("2", "1")
    status = json.loads(container.exec("xconnectd", "status", "--json").stdout)
    assert status["daemon"]["running"]
    assert [link["state"] for link in status["links"]] == ["connected"]
    assert container.health()[0] == 0


@pytest.mark.parametrize("missing", CAPABILITIES)
def test_a_missing_capability_is_named(rack: Rack, missing: str) -> None:
    rest = tuple(name for name in CAPABILITIES if name != missing)
    container = rack.container(capabilities=rest, options=UNCONFINED_BY_SECCOMP).spawn()
    assert container.wait() == 3
    assert f"CAP_{missing}" in container.log()


def test_what_else_is_missing_is_said_with_the_remedy_and_one_runs_already(rack: Rack) -> None:
    without_bpffs = rack.container(bpffs=False).spawn()
    assert without_bpffs.wait() == 3
    assert "-v /sys/fs/bpf:/bpf" in without_bpffs.log()
    if not _profile_knows_bpf():
        refused = rack.container(options=()).spawn()
        assert refused.wait() == 3
        assert "--security-opt seccomp=unconfined" in refused.log()
    rack.container().start()
    second = rack.container().spawn()
    assert second.wait() == 3
    assert "a daemon runs already in this network namespace" in second.log()
    assert rack.crosses("a1", "b1")


def _profile_knows_bpf() -> bool:
    profile = json.loads(Path("/usr/share/containers/seccomp.json").read_text())
    rules = [rule for rule in profile["syscalls"] if "bpf" in rule["names"]]
    return any("CAP_BPF" in rule.get("includes", {}).get("caps", ()) for rule in rules)


def test_health_is_whether_somebody_has_to_act(rack: Rack) -> None:
    """Who is stopped cannot say how it is."""
    rack.write({"a1": "b1", "c1": "late1"})
    container = rack.container().start()
    assert container.health()[0] == 0, "an interface that is yet to come is no fault"
    rack.stations["a1"].ip("link", "set", "eth0", "down")
    container.wait_event("link.down")
    assert container.health()[0] == 0, "nor is a far end that is down"
    rack.stations["a1"].ip("link", "set", "eth0", "up")

    rack.write("links: {a1: b1, c1: }\n", "lab.yaml")
    container.wait_event("config.rejected")
    code, text = container.health()
    assert code == 1
    assert "/etc/xconnectd/lab.yaml:1:" in text
    rack.wait_crossing("a1", "b1")

    rack.lab.pair("d1", "d2")
    rack.lab.foreign_xdp("d1")
    rack.write({"a1": "b1", "c1": "d1"})
    container.wait_event("link.failed")
    code, text = container.health()
    assert code == 1
    assert "d1" in text
    rack.write({"a1": "b1"})
    poll(lambda: container.health()[0] == 0, what="health again", interval=0.2)

    os.kill(container.pid, signal.SIGSTOP)
    frozen = time.monotonic()
    code, text = container.health()
    assert code == 1, text
    assert time.monotonic() - frozen < 20
    assert rack.crosses("a1", "b1")
    os.kill(container.pid, signal.SIGCONT)
    assert container.health()[0] == 0


def test_every_way_to_edit_the_mounted_directory_rewires(rack: Rack) -> None:
    rack.container().start()
    rack.wait_crossing("a1", "b1")
    rack.write({"a1": "c1"})
    rack.wait_crossing("a1", "c1")
    assert not rack.crosses("a1", "b1")
    (rack.etc / "lab.yaml").write_text(document({"b1": "c1"}))
    rack.wait_crossing("b1", "c1")
    (rack.etc / "lab.yaml").unlink()
    poll(lambda: not rack.crosses("b1", "c1"), what="the end of a removed file's links")
    rack.write({"a1": "b1"}, "other.yaml")
    rack.wait_crossing("a1", "b1")


def test_a_config_map_that_is_swapped_rewires(rack: Rack) -> None:
    """As the kubelet does it: the files are links through ``..data``, which is renamed over."""
    (rack.etc / "lab.yaml").unlink()
    rack.etc.chmod(0o777)
    _swap(rack.etc, "..one", {"a1": "b1"})
    (rack.etc / "lab.yaml").symlink_to("..data/lab.yaml")
    rack.container().start()
    rack.wait_crossing("a1", "b1")
    for version, peer in (("..two", "c1"), ("..three", "b1"), ("..four", "c1")):
        _swap(rack.etc, version, {"a1": peer})
        rack.wait_crossing("a1", peer)


def _swap(volume: Path, version: str, wiring: Wiring) -> None:
    (volume / version).mkdir()
    (volume / version / "lab.yaml").write_text(document(wiring))
    (volume / "..data_tmp").symlink_to(version)
    old = (volume / "..data").resolve()
    (volume / "..data_tmp").rename(volume / "..data")
    if old != (volume / "..data"):
        shutil.rmtree(old, ignore_errors=True)


@pytest.mark.parametrize("command", [(), ("run", "-c", "/etc/xconnectd/lab.yaml")])
def test_a_single_file_that_was_replaced_is_reported(rack: Rack, command: tuple[str, ...]) -> None:
    mount = "/etc/xconnectd/lab.yaml"
    container = rack.container(config=rack.etc / "lab.yaml", mount=mount, command=command).start()
    (rack.etc / "lab.yaml").write_text(document({"a1": "c1"}))
    rack.wait_crossing("a1", "c1")
    rack.write({"a1": "b1"})
    event = container.wait_event("config.unreachable")
    assert (event["level"], event["path"]) == ("error", mount)
    assert "mount its directory instead" in event["reason"]
    assert rack.crosses("a1", "c1")


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.2, None])
def test_stop_leaves_the_box_as_found_and_is_quick(rack: Rack, delay: float | None) -> None:
    """However early it comes; None is when all is wired."""
    before = rack.lab.settled()
    container = rack.container().spawn()
    if delay is None:
        rack.wait_crossing("a1", "b1")
        assert rack.lab.snapshot() != before
    else:
        time.sleep(delay)
    took = container.stop()
    assert took < KILLED
    rack.lab.assert_as_found(before)
    assert not rack.lab.pins.exists()
    if delay is None:
        assert container.wait() == 0
        assert "Traceback" not in container.log()
        assert list(container.state.iterdir()) == []
    print(f"stopped in {took * 1000:.0f} ms")


def test_a_crash_and_a_new_container_lose_no_frame(rack: Rack) -> None:
    before = rack.lab.settled()
    container = rack.container().start()
    with lossless(rack.stations["a1"], rack.stations["b1"]):
        for _ in range(3):
            container.crash()
            container = rack.container().start()
            assert container.events("program.adopted")
    assert container.stop() < KILLED
    rack.lab.assert_as_found(before)
