"""Which of a file's hosts this is: by what it is told, and by its addresses in this namespace."""

from __future__ import annotations

from xconnectd.netlink.own_addresses import own_addresses

from .lab import Lab, inside
from .service import Start
from .traffic import lossless

HOSTS = "hosts: {h1: 198.51.100.11, h2: 198.51.100.12}\n"
LINKS = f"{HOSTS}links: {{h1/va: h1/vb, h2/va: h2/nowhere}}\n"


def test_all_addresses_of_this_namespace_are_its_own(lab: Lab) -> None:
    lab.ip("address", "add", "198.51.100.11/24", "dev", "lo")
    lab.ip("address", "add", "198.51.100.1", "peer", "198.51.100.2/32", "dev", "lo")
    lab.ip("address", "add", "2001:db8::16/64", "dev", "lo")
    found = inside(lab.host, own_addresses)
    assert found >= {"198.51.100.11", "198.51.100.1", "2001:db8::16"}
    assert "198.51.100.2" not in found, "that is who is at the other end"


def test_an_address_that_comes_after_the_start_tells_it(lab: Lab, daemon: Start) -> None:
    """Until then the wires of before stay, and what the file calls anew loses no frame."""
    a, b = lab.veths("va", "vb")
    running = daemon("links: {va: vb}\n").connected()
    running.kill()
    running.write(LINKS)
    strict = running.cli("run", "--strict", "-c", str(running.config))
    assert (strict.returncode, "is none of `hosts`" in strict.stderr) == (78, True)
    with lossless(a, b):
        running.start()
        assert running.files() == {"xconnect.yaml": "rejected"}
        since = running.mark()
        lab.ip("address", "add", "198.51.100.11/32", "dev", "lo")
        running.wait_event("config.loaded", since=since)
        assert [each["link"] for each in running.status()["links"]] == ["h1/va,h1/vb"]
    running.wait_state("h1/va", "h1/vb", "connected")
    away = running.cli("check", str(running.config), "--here", "--host", "h2")
    assert (away.returncode, "nowhere does not exist here now" in away.stdout) == (1, True)
    assert running.cli("check", str(running.config), "--here").returncode == 0


def test_commands_take_the_daemon_for_what_it_was_told(lab: Lab, daemon: Start) -> None:
    """Also when it is dead."""
    lab.veths("va", "vb")
    lab.ip("address", "add", "198.51.100.12/32", "dev", "lo")
    running = daemon(LINKS, "--host", "h1").connected("h1/va", "h1/vb")
    assert running.cli("wait", "--timeout", "5").returncode == 0
    running.kill()
    assert running.status()["links"][0]["state"] == "connected"
    assert running.cli("plan").returncode == 0
    assert running.cli("plan", "--host", "h2").returncode == 10
    for name in ("va", "h1/va", "h1/vb,h1/va"):
        assert running.cli("status", name).returncode == 0
