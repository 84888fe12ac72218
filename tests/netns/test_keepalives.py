"""What daemons of two hosts believe of each other: late ones, deaf ones, and forged messages."""

from __future__ import annotations

import json
import signal
import socket
import struct
from collections.abc import Iterator
from typing import Final

import pytest

from xconnectd.tunnels import keepalive
from xconnectd.tunnels.keepalive import Message

from .hosts_lab import Host, Hosts
from .lab import Station, holds, inside, poll
from .traffic import Port, wired

LINK: Final = ("h1/va", "h2/vb")
MESSAGE: Final = b"xconnect\3"
PORT: Final = 14789


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with Hosts(2) as made:
        yield made


def _stations(hosts: Hosts) -> tuple[Station, Station]:
    return hosts["h1"].veth("va"), hosts["h2"].veth("vb")


def _tunnel_events(host: Host) -> list[str]:
    return [each["event"] for each in host.daemon.events() if each["event"].startswith("tunnel.")]


def test_a_daemon_that_stands_still_raises_no_alarm(hosts: Hosts) -> None:
    """Longer than it takes to find a path dead: when it goes on, the echoes have come."""
    _stations(hosts)
    hosts.start({"h1/va": "h2/vb"})
    hosts.wait_state(*LINK, "connected")
    for _ in range(3):
        for host in ("h1", "h2"):
            hosts[host].daemon.signal(signal.SIGSTOP)
        holds(lambda: True, 1.0)
        for host in ("h1", "h2"):
            hosts[host].daemon.signal(signal.SIGCONT)
        holds(lambda: True, 0.5)
    assert [_tunnel_events(hosts[name]) for name in ("h1", "h2")] == [["tunnel.up"]] * 2


def test_without_cap_net_raw_nothing_is_connected_and_both_say_why(hosts: Hosts) -> None:
    """A wire of which one host does not know where it leads would lose frames in silence."""
    a, b = _stations(hosts)
    deaf = hosts["h1"].daemon
    deaf._through = ("setpriv", "--bounding-set=-net_raw")
    hosts.start({"h1/va": {"to": "h2/vb", "hold": "1s"}})
    hosts.wait_state(*LINK, "down", "h1", reason="without CAP_NET_RAW")
    hosts.wait_state(*LINK, "down", "h2", reason="its daemon has said nothing for 1 s")
    assert not wired(a, b)
    (told,) = deaf.events("tunnels.unheard")
    assert "30-hosts.conf" in told["reason"]
    deaf.kill()
    deaf._through = ()
    deaf.start()
    hosts.wait_state(*LINK, "connected")
    assert wired(a, b)


def test_a_tunnel_that_somebody_deletes_is_made_and_spoken_by_again(hosts: Hosts) -> None:
    a, b = _stations(hosts)
    hosts.start({"h1/va": "h2/vb"})
    hosts.wait_state(*LINK, "connected")
    device = hosts["h1"].daemon.link(*LINK)["peer"]["device"]
    before = hosts["h1"].lab.ifindex(device)
    hosts["h1"].lab.ip(f"link delete {device}")
    poll(lambda: device in hosts["h1"].lab.links())
    hosts.wait_state(*LINK, "connected")
    assert hosts["h1"].lab.ifindex(device) != before
    poll(lambda: wired(a, b))


# ---------------------------------------------------------------------- forged


def _overheard(hosts: Hosts) -> tuple[int, Message]:
    """A message of h2's on its way to h1, as somebody in between reads it, and the VNI."""
    with inside(hosts.underlay, lambda: Port("h2")) as port:

        def look() -> list[bytes]:
            return [each for each in port.drain() if MESSAGE in each and each[12:14] == b"\x08\0"]

        packet = poll(look)[0]
    at = packet.index(MESSAGE) - 14
    (vni,) = struct.unpack("!I", packet[at - 4 : at])
    frame = bytearray(packet[at:])
    frame[24] &= 0xF7  # the flag that says that it is signed
    said = keepalive.decode(bytes(frame), vni >> 8, b"")
    assert isinstance(said, Message)
    return vni >> 8, said


@pytest.mark.parametrize("key", ["", "between the two of us"])
def test_who_reads_what_hosts_say_can_forge_it_unless_there_is_a_key(
    hosts: Hosts, key: str
) -> None:
    """A message that h2 stopped, from another address: with a key it is counted, and no more."""
    a, b = _stations(hosts)
    hosts.start({"h1/va": "h2/vb"}, **({"hosts_key": key} if key else {}))
    hosts.wait_state(*LINK, "connected")
    vni, said = _overheard(hosts)
    forged = said._replace(number=said.number + 1000, stops=True)

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for each in (forged, forged._replace(heard=said.heard ^ 1)):
                for signed in (b"", b"guessed"):
                    frame = keepalive.encode(each, vni, signed)
                    head = struct.pack("!II", 0x08000000, vni << 8)
                    sender.sendto(head + frame, (hosts["h1"].address, PORT))

    inside(hosts.underlay, send)
    if not key:
        hosts.wait_state(*LINK, "down", "h1", reason="xconnectd on h2 was stopped")
        return

    def unverified() -> int:
        return int(hosts["h1"].daemon.link(*LINK)["peer"]["keepalives"]["unverified"])

    poll(lambda: unverified() == 4)
    assert _tunnel_events(hosts["h1"]) == ["tunnel.up"]
    assert wired(a, b)


def test_a_word_for_another_session_is_nobodys(hosts: Hosts) -> None:
    """Who cannot read what hosts say cannot forge it, with a key or without."""
    a, b = _stations(hosts)
    hosts.start({"h1/va": "h2/vb"})
    hosts.wait_state(*LINK, "connected")
    vni, said = _overheard(hosts)

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for heard in (0, 1, said.heard ^ 1):
                message = said._replace(heard=heard, number=said.number + 1000, stops=True)
                head = struct.pack("!II", 0x08000000, vni << 8)
                frame = keepalive.encode(message, vni, b"")
                sender.sendto(head + frame, (hosts["h1"].address, PORT))

    inside(hosts.underlay, send)
    heard = json.dumps(hosts["h1"].daemon.link(*LINK)["peer"])
    holds(lambda: wired(a, b), 1.0)
    assert _tunnel_events(hosts["h1"]) == ["tunnel.up"], heard
