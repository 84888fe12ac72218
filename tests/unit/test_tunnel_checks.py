"""What is wrong between two hosts: by what was counted just now, each fault has its own words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from builders import crossing, look, veth, wired

from xconnectd.diagnostics import link_checks, ping
from xconnectd.diagnostics.facts import Answer, FarSide, LinkFacts
from xconnectd.diagnostics.finding import Finding, Level, Stops
from xconnectd.model import Heard, Mode, Tunnel, Way
from xconnectd.reconcile import evaluate
from xconnectd.status.document import Keepalives

ALIVE = Heard(alive=True, digest="1a2b3c4d", state="connected")
OTHER = Heard(alive=False, reason="h2 has another wiring", digest="99aabbcc")
ALL_WELL = Keepalives(3, 3, 3)
A = wired(5, "a", "tc", mtu=9000)
DEVICE = wired(6, "vxlan-77", "tc", kind="vxlan", far=None, mtu=65485)
MAPS: dict[str, Any] = {"peers": {5: 6, 6: 5}, "names": {"a": 5, "h2/b": 6}}


def found(heard: Heard = ALIVE, remote: str = "198.51.100.12", **facts: Any) -> list[Finding]:
    """Of a link whose own end is a veth of MTU 9000, and that stands as it is to."""
    far_mtu = facts.pop("far_mtu", 1400)
    one = crossing(mode=Mode.TC)
    one = replace(one, b=one.b._replace(tunnel=Tunnel(remote, 77)))
    observed = look(A, DEVICE, heard={"h2/b": heard}, **MAPS)
    (judged,) = evaluate.evaluate([one], observed)
    far = {5: FarSide(veth(2, "eth0", mtu=far_mtu))}
    known = {"way": Way(1500), "file": "/etc/x.yaml", **facts}
    walked = link_checks.of_link(LinkFacts(judged, observed, far, **known))
    return [each for each in walked if each.check != "link"]


def test_a_good_one_has_nothing_to_be_said() -> None:
    assert found() == []


OPEN = "let UDP port 14789 through, on h2 and on the way"
LOOK = "xconnectd status  # on h2: has it this link?"
NO_WAY = Way(problem="Network is unreachable")
MUTE = Keepalives(3)
SILENCE = "h2 does not answer (198.51.100.12, UDP port 14789)"
DEAD = Heard(alive=False, reason=SILENCE, digest="1a2b3c4d")
STOPPED = DEAD._replace(reason="xconnectd on h2 was stopped")
# What was heard, what is known, and what is said of it.
FAULTS: list[tuple[Heard, dict[str, Any], str, str, str]] = [
    (DEAD, {"way": NO_WAY}, "route", "no way to h2 (198.51.100.12): Network is unreachable",
     "ip route get 198.51.100.12  # add a route"),
    (DEAD, {"keepalives": Keepalives(3, 0, 0, 3)}, "key",
     "what h2 says does not verify: it has another hosts_key, or none",
     "give h2 the hosts_key of /etc/x.yaml"),
    (DEAD, {"keepalives": Keepalives()}, "tunnel", f"this host sends h2 nothing: {SILENCE}",
     "xconnectd reload"),
    (DEAD, {"keepalives": Keepalives(3, 0, 3)}, "tunnel",
     "h2 is heard, but what this host sends by UDP port 14789 gets no answer: one way is blocked",
     OPEN),
    (DEAD, {"keepalives": MUTE, "answer": Answer.PING}, "port",
     f"{SILENCE}, though it answers a ping", f"{LOOK} If so, {OPEN}"),
    (DEAD, {"keepalives": MUTE, "answer": Answer.CLOSED}, "tunnel",
     f"{SILENCE}: the port is closed, no xconnectd there has a tunnel to here", LOOK),
    (DEAD, {"keepalives": MUTE, "answer": Answer.NOTHING}, "tunnel", SILENCE,
     "ping 198.51.100.12  # and there: xconnectd doctor"),
    (STOPPED, {"keepalives": MUTE, "answer": Answer.PING}, "other host",
     "xconnectd on h2 was stopped", "xconnectd doctor  # on h2"),
    (OTHER, {"keepalives": ALL_WELL}, "wiring",
     "h2 has another wiring for this link (hash 99aabbcc, here 1a2b3c4d)",
     "the same /etc/x.yaml on both, and xconnectd reload"),
    (STOPPED, {"keepalives": ALL_WELL}, "other host", "xconnectd on h2 was stopped",
     "xconnectd doctor  # on h2"),
]  # fmt: skip


@pytest.mark.parametrize(("heard", "facts", "check", "text", "remedy"), FAULTS)
def test_why_another_host_is_not_alive(
    heard: Heard, facts: dict[str, Any], check: str, text: str, remedy: str
) -> None:
    assert found(heard, **facts)[-1] == Finding(Level.FAIL, check, text, remedy, Stops.ALL)


def test_without_a_daemon_nobody_listens() -> None:
    (only,) = found(Heard())
    assert (only.level, only.check) == (Level.WARN, "not heard")
    assert only.text.startswith("nobody here listens to h2")


def test_frames_that_are_longer_than_the_way_are_slower_or_lost() -> None:
    assert found(far_mtu=1450) == []
    (slower,) = found(far_mtu=1451)
    assert (slower.level, slower.check, slower.stops) == (Level.WARN, "mtu", Stops.NOTHING)
    assert slower.text.endswith(
        "1451 are sent: longer ones cross in fragments, and so slower (TCP in bulk is cut to fit)"
    )
    assert slower.remedy.startswith("an MTU of 1501 on the way to 198.51.100.12, or of 1450")
    (lost,) = found(remote="2001:db8::12", far_mtu=1450)
    assert (lost.level, lost.stops) == (Level.FAIL, Stops.LONG)
    assert lost.text.endswith("frames of up to 1430 cross whole, but 1450 are sent: longer ones"
                              " are lost")  # fmt: skip
    assert found(far_mtu=9000, way=Way(9050)) == []


def test_a_port_is_closed_by_what_is_told_of_it() -> None:
    """RFC 792 and RFC 4443: behind eight bytes stands the packet, with its own header."""
    udp = bytes.fromhex("c00039c5")  # to 14789
    v4, v6 = bytes((3, 3, *bytes(6), 0x45, *bytes(19))), bytes((1, 4, *bytes(46)))
    for message, protocol in ((v4, ping._V4), (v6, ping._V6)):
        assert ping._is_closed(message + udp, protocol, 14789)
        assert not ping._is_closed(message + udp, protocol, 4789)
        assert not ping._is_closed(message, protocol, 14789)
        assert not ping._is_closed(b"\x0b" + message[1:] + udp, protocol, 14789)


def test_a_checksum_over_what_it_is_in_is_nothing() -> None:
    """RFC 1071, whose own example it is."""
    data = bytes.fromhex("0001f203f4f5f6f7")
    assert ping._checksum(data) == 0x220D
    assert ping._checksum(data + (0x220D).to_bytes(2, "big")) == 0
