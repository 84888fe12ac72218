"""Real container engines for tests: Docker's daemon and Podman's service, each all by itself.

``with docker(lab) as engine`` (or ``podman(lab)``) starts one in the lab's host. Its storage, state
and socket are in the lab's directory. Containers of its image ``sleeper`` only sleep:

    engine.run("leaf1")                 # docker run --detach --name leaf1 --network none sleeper
    engine("restart", "--time", "0", "leaf1")
    engine.pid_of("leaf1")              # of the container's process
    engine.surroundings                 # environment in which xconnectd finds this engine alone
    engine.kill()                       # kill -9 of the engine; containers may go on
    engine.start()                      # again, on the same state

Containers, engine and mounts are gone after the block, also after a failure.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest
from netns.lab import NETNS, Lab, poll, run

IMAGE: Final = "sleeper"
_FOR_EVER: Final = '["/busybox", "sh", "-c", "trap exit TERM; /busybox sleep 100000 & wait"]'
"""It ends when it is told to: the first process of a container ignores what it does not handle."""
_CONTAINERS: Final = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
static_dir = "{0}/libpod"
volume_path = "{0}/volumes"
tmp_dir = "{0}/tmp"
[network]
network_config_dir = "{0}/networks"
"""
_STORAGE: Final = """\
[storage]
driver = "vfs"
graphroot = "{0}/storage"
runroot = "{0}/run"
"""
_CONTAINERD: Final = """\
version = 2
root = "{0}/containerd"
state = "{0}/containerd.state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{0}/containerd.sock"
"""


class Engine(ABC):
    """One engine, and the commands of its user."""

    name: str
    _tools: tuple[str, ...]

    def __init__(self, lab: Lab, *options: str) -> None:
        """``options`` are for the engine's own command line."""
        for tool in (*self._tools, "busybox"):
            if shutil.which(tool) is None:
                text = f"{tool} is missing (make test-long installs it)"
                pytest.fail(text) if os.environ.get("CI") else pytest.skip(text)
        self.directory = lab.directory / self.name
        self.directory.mkdir()
        self.socket = self.directory / "engine.sock"
        self.host = lab.host
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def surroundings(self) -> Mapping[str, str]:
        """What tells xconnectd and the engine's own client of the socket."""

    @abstractmethod
    def _serve(self) -> list[str]:
        """The command that serves the socket."""

    @property
    def environment(self) -> dict[str, str]:
        """Of the engine's own client."""
        return {**os.environ, **self.surroundings}

    def __call__(self, *command: str, check: bool = True, timeout: float = 120) -> str:
        """What a command of the engine's client prints."""
        enter = ("nsenter", f"--net={NETNS / self.host}")  # Podman's client is its engine
        done = subprocess.run(
            (*enter, self._tools[0], *command),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stderr[-2000:]}{done.stdout}"
        return done.stdout if done.returncode == 0 else ""

    # ------------------------------------------------------------------ the engine

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            enter = ("nsenter", f"--net={NETNS / self.host}")
            self._process = subprocess.Popen(
                (*enter, *self._serve()), env=self.environment, stdout=log, stderr=log
            )
        try:
            poll(lambda: self("version", check=False), what=f"{self.name}'s answer", interval=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{(self.directory / 'log').read_text()}") from None

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None

    def kill(self) -> None:
        """As a crash: the socket and, with live restore or Podman, containers stay."""
        self.stop(signal.SIGKILL)

    def close(self) -> None:
        """Ends all of it, an engine that was killed included."""
        try:
            if self._process is None:
                self.start()
            poll(self._is_empty, what=f"the end of {self.name}'s containers", interval=0.1)
        finally:
            self.stop()
            _kill(self.directory)
            _unmount(self.directory)

    def _is_empty(self) -> bool:
        """Whether no container is left; some go only after those that are in their namespace."""
        self("rm", "--force", *self("ps", "--all", "--quiet").split(), check=False)
        return not self("ps", "--all", "--quiet")

    # ------------------------------------------------------------------ containers

    def make_image(self) -> None:
        """Of one static program, without a registry."""
        root = self.directory / "image"
        root.mkdir()
        shutil.copy("/bin/busybox", root)
        archive = self.directory / "image.tar"
        run("tar", "-C", str(root), "-cf", str(archive), ".")
        self("import", "--change", f"CMD {_FOR_EVER}", str(archive), IMAGE)

    def run(self, name: str, *options: str, network: str = "none") -> None:
        self("run", "--detach", "--name", name, "--network", network, *options, IMAGE)

    def inspect(self, name: str, template: str) -> str:
        return self("inspect", "--format", template, name).strip()

    def pid_of(self, name: str) -> int:
        return int(self.inspect(name, "{{.State.Pid}}"))


class Docker(Engine):
    """Debian's docker.io, or a newer one if that is first in PATH.

    As on a machine with systemd, containerd is not its child, so it survives the engine.
    """

    name = "docker"
    _tools = ("docker", "dockerd", "containerd")

    def __init__(self, lab: Lab, *options: str) -> None:
        super().__init__(lab, *options)
        self._containerd: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._containerd is None:
            address = self.directory / "containerd.sock"
            config = self.directory / "containerd.toml"
            config.write_text(_CONTAINERD.format(self.directory))
            with (self.directory / "containerd.log").open("wb") as log:
                self._containerd = subprocess.Popen(
                    ("containerd", "--config", str(config)), stdout=log, stderr=log
                )
            poll(address.is_socket, what="containerd")
        super().start()

    def close(self) -> None:
        try:
            super().close()
        finally:
            if self._containerd is not None:
                self._containerd.terminate()
                self._containerd.wait(60)

    @property
    def surroundings(self) -> Mapping[str, str]:
        return {"DOCKER_HOST": f"unix://{self.socket}", "CONTAINER_HOST": "unix:///nowhere"}

    def _serve(self) -> list[str]:
        (self.directory / "pid").unlink(missing_ok=True)  # of one that was killed
        places = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
        return [
            *("dockerd", "-H", f"unix://{self.socket}", "--storage-driver", "vfs"),
            *("--bridge=none", "--iptables=false", "--ip6tables=false"),
            f"--containerd={self.directory}/containerd.sock",
            *(f"--{option}={self.directory / place}" for option, place in places.items()),
            *self._options,
        ]


class Podman(Engine):
    """Podman's service. Its containers do not need it: its client works without, too."""

    name = "podman"
    _tools = ("podman", "runc")

    def __init__(self, lab: Lab, *options: str) -> None:
        super().__init__(lab, *options)
        (self.directory / "containers.conf").write_text(_CONTAINERS.format(self.directory))
        (self.directory / "storage.conf").write_text(_STORAGE.format(self.directory))

    @property
    def surroundings(self) -> Mapping[str, str]:
        return {"CONTAINER_HOST": f"unix://{self.socket}", "DOCKER_HOST": "unix:///nowhere"}

    @property
    def environment(self) -> dict[str, str]:
        files = {
            "CONTAINERS_CONF": str(self.directory / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.directory / "storage.conf"),
        }
        plain = {name: text for name, text in os.environ.items() if name != "CONTAINER_HOST"}
        return {**plain, **files, "DISABLE_HC_SYSTEMD": "true"}

    def _serve(self) -> list[str]:
        return ["podman", "system", "service", "--time=0", *self._options, f"unix://{self.socket}"]

    def start(self) -> None:
        super().start()
        poll(self.socket.is_socket, what="podman's socket")

    def _is_empty(self) -> bool:
        self("pod", "rm", "--all", "--force", "--time", "0", check=False)
        self("rm", "--all", "--force", "--time", "0", check=False)
        return not self("ps", "--all", "--quiet")


@contextlib.contextmanager
def docker(lab: Lab, *options: str) -> Iterator[Docker]:
    """``options`` are the engine's: ``--live-restore``."""
    engine = Docker(lab, *options)
    with _running(engine):
        yield engine


@contextlib.contextmanager
def podman(lab: Lab, *options: str) -> Iterator[Podman]:
    engine = Podman(lab, *options)
    with _running(engine):
        yield engine


@contextlib.contextmanager
def _running(engine: Engine) -> Iterator[None]:
    try:
        engine.start()
        engine.make_image()
        yield
    finally:
        engine.close()


def _kill(directory: Path) -> None:
    """What is left of an engine that could not be started again: shims, and what runs in them."""
    tell = str(directory).encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if tell in (process / "cmdline").read_bytes():
                children = (process / "task" / process.name / "children").read_text()
                for pid in (*children.split(), process.name):
                    os.kill(int(pid), signal.SIGKILL)


def _unmount(directory: Path) -> None:
    """What an engine that was killed has left mounted below its directory."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed(mounts):
        if Path(mount).is_relative_to(directory):
            run("umount", "--lazy", mount, check=False)


ENGINES: Final[Mapping[str, Callable[..., contextlib.AbstractContextManager[Engine]]]] = {
    "docker": docker,
    "podman": podman,
}
"""To be given to ``pytest.mark.parametrize``."""
