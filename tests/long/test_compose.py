"""The compose examples, with a real engine: Debian's own or a newer one, whichever is here.

The engine lives in the host's namespace of a lab. So its bridges and its filter rules are real, and
br_netfilter hands them every frame, as on a machine with Kubernetes or a firewall. It has a /run of
its own, in which everything lies where the examples look for it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from netns.lab import NETNS, REPO, Lab, inside, poll, run

from . import test_image
from .test_image import image

__all__ = ["image"]

EXAMPLES = REPO / "config" / "examples"
USUAL = """
umount --recursive /run/netns || true    # or this view of it would keep namespaces alive
mount -t tmpfs -o mode=755 run /run
mount --make-rshared /run
exec dockerd --bridge=none --data-root {data}
"""
BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


@dataclass
class Docker:
    """An engine, and the commands that its user has."""

    socket: Path
    example: str = "compose.yaml"

    def __call__(self, *command: str, check: bool = True, **more: str) -> str:
        """Run a command as a user of this engine does; ``more`` is for its environment."""
        surroundings = {**os.environ, "DOCKER_HOST": f"unix://{self.socket}", **more}
        done = subprocess.run(
            command, env=surroundings, cwd=EXAMPLES, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stderr}{done.stdout}"
        return done.stdout if done.returncode == 0 else ""

    def compose(self, *command: str, **more: Any) -> str:
        """The plugin of current ones, or the program of its own that Debian 12 has."""
        plugin = self("docker", "compose", "version", check=False)
        program = ("docker", "compose") if plugin else ("docker-compose",)
        return self(*program, "--file", self.example, *command, **more)

    @property
    def version(self) -> int:
        return int(self("docker", "version", "--format", "{{.Server.Version}}").partition(".")[0])


@pytest.fixture
def docker(lab: Lab, image: str) -> Iterator[Docker]:
    for tool in ("docker", "dockerd", "busybox"):
        if shutil.which(tool) is None:
            text = f"{tool} is missing (make test-long installs it)"
            pytest.fail(text) if os.environ.get("CI") else pytest.skip(text)
    script = USUAL.format(data=lab.directory / "data")
    command = ["nsenter", f"--net={NETNS / lab.host}", "unshare", "--mount", "sh", "-euc", script]
    with (lab.directory / "docker.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    new = Docker(Path("/proc", str(process.pid), "root/run/docker.sock"))
    try:
        poll(lambda: new("docker", "version", check=False), what="an answer", interval=0.2)
        archive = lab.directory / "image.tar"
        test_image.engine("podman", "save", "--output", str(archive), image)
        new("docker", "load", "--input", str(archive))
        new("docker", "tag", image, "xconnectd")
        _make_busybox(lab, new)
        yield new
        new.compose("down", "--volumes", "--timeout", "5", check=False)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _make_busybox(lab: Lab, docker: Docker) -> None:
    """A stand-in for the image of that name, which is not downloaded."""
    binaries = lab.directory / "busybox" / "bin"
    binaries.mkdir(parents=True)
    shutil.copy("/bin/busybox", binaries)
    run("chroot", str(binaries.parent), "/bin/busybox", "--install", "-s", "/bin")
    archive = lab.directory / "busybox.tar"
    run("tar", "-C", str(binaries.parent), "-cf", str(archive), ".")
    docker("docker", "import", str(archive), "busybox:1")


def test_the_compose_example_carries_frames(lab: Lab, docker: Docker) -> None:
    assert inside(lab.host, BRIDGE_FILTER.read_text).strip() == "1"
    print(f"Docker {docker.version}")
    docker.compose("up", "--detach", BPF="BPF" if docker.version >= 23 else "SYS_ADMIN")
    ping = ("exec", "-T", "left", "ping", "-c", "1", "-w", "1", "198.51.100.2")
    poll(lambda: docker.compose(*ping, check=False), what="an answer from the right")
    told = docker.compose("exec", "-T", "panel", "xconnectd", "status", "--json")
    (link,) = json.loads(told)["links"]
    assert (link["state"], link["a"]["name"], link["b"]["name"]) == ("connected", "eth0", "eth1")
    docker.compose("stop", "panel")
    assert not docker.compose(*ping, check=False), "they reach each other without the panel too"


def test_the_example_of_containers_by_name_heals(lab: Lab, docker: Docker) -> None:
    """Three containers without a network; the one in the middle is restarted, then made anew."""
    docker.example = "compose-nodes.yaml"
    docker.compose("up", "--detach")
    ping = ("exec", "-T", "leaf1", "ping", "-c", "1", "-w", "1", "198.51.100.129")

    def wait(what: str) -> None:
        poll(lambda: docker.compose(*ping, check=False), what=f"an answer from leaf2: {what}")

    wait("at first")
    ends = {"leaf1-eth1", "leaf2-eth1", "spine1-eth1", "spine1-eth2"}
    assert set(lab.interfaces()) == ends
    docker("docker", "restart", "--time", "0", "spine1")
    wait("after a restart")
    docker.compose("up", "--detach", "--force-recreate", "--timeout", "0", "spine1")
    wait("with another container of that name")
    docker("docker", "kill", docker.compose("ps", "--quiet", "panel").strip())
    for _ in range(3):
        docker.compose(*ping)
    docker.compose("up", "--detach")
    told = docker.compose("exec", "-T", "panel", "xconnectd", "wait", "--timeout", "30")
    assert set(lab.interfaces()) == ends, told
    docker.compose("down", "--timeout", "5")
    assert lab.interfaces() == []
