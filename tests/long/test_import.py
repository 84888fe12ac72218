"""A containerlab topology, its containers in a real engine, wired as ``import`` says."""

from __future__ import annotations

from netns.lab import Lab, run
from netns.service import Daemon

from .engines import docker

TOPOLOGY = """\
name: dc1
topology:
  nodes:
    leaf1: {kind: linux, network-mode: none}
    spine1: {kind: linux, network-mode: none}
  links:
    - endpoints: ["leaf1:eth1", "spine1:eth1"]
    - {endpoints: ["leaf1:eth2", "spine1:eth2"], mtu: 1400}
    - endpoints: ["leaf1:eth3", "mgmt-net:leaf1-eth3"]
"""


def test_what_is_imported_is_wired(lab: Lab) -> None:
    topology = lab.directory / "dc1.clab.yml"
    topology.write_text(TOPOLOGY)
    with docker(lab) as engine:
        variables = [f"{name}={value}" for name, value in engine.surroundings.items()]
        daemon = Daemon(lab, {}, through=("env", *variables))
        imported = daemon.cli("import", str(topology))
        assert (imported.returncode, imported.stderr.count("left out")) == (0, 1)
        for name in ("leaf1", "spine1"):
            engine.run(f"clab-dc1-{name}")
        daemon.write(imported.stdout)
        daemon.start()
        for number in (1, 2):
            daemon.wait_state(f"leaf1:eth{number}", f"spine1:eth{number}", "connected")
        leaf1, spine1 = (
            f"/proc/{engine.pid_of(f'clab-dc1-{x}')}/ns/net" for x in ("leaf1", "spine1")
        )
        for namespace, number in ((leaf1, 1), (spine1, 2)):
            mtus = run("nsenter", f"--net={namespace}", "ip", "-o", "link").stdout
            assert ("mtu 9500" in mtus, "mtu 1400" in mtus) == (True, True)
            address = ("ip", "address", "add", f"198.51.100.{number}/24", "dev", "eth1")
            run("nsenter", f"--net={namespace}", *address)
        run("nsenter", f"--net={leaf1}", "ping", "-c", "1", "-W", "5", "198.51.100.2")
        daemon.stop()
        assert lab.interfaces() == []
