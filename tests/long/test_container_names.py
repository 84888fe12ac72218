"""What real container engines call a container is shown in place of a namespace's number."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from netns.lab import Lab, run
from netns.service import Daemon

from .engines import Engine, docker, podman

Start = Callable[[Lab], contextlib.AbstractContextManager[Engine]]


@pytest.mark.parametrize("engine", [docker, podman])
def test_a_graph_shows_the_name_of_the_container(
    lab: Lab, engine: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a veth that somebody plugged into one; of an end in a node the file says it."""
    with engine(lab) as running:
        for variable, value in running.surroundings.items():
            monkeypatch.setenv(variable, value)
        for name in ("clab-leaf1", "spine1"):
            running.run(name)
        pid = running.pid_of("clab-leaf1")
        lab.ip(f"link add va type veth peer name eth1 netns {pid}")
        run("nsenter", f"--net=/proc/{pid}/ns/net", "ip", "link", "set", "eth1", "up")
        daemon = Daemon(lab, '{"links": {"va": "spine1:eth1"}}').start()
        daemon.wait_state("va", "spine1:eth1", "connected")
        drawn = daemon.cli("graph").stdout
        for text in ('["clab-leaf1"]', '["eth1<br/>va"]', '["spine1"]', '["eth1"]'):
            assert text in drawn
        running.kill()
        assert "the namespace of busybox" in daemon.cli("graph").stdout
        daemon.stop()
