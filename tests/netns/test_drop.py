"""``impair: {drop: …}``: frames that match a filter are dropped where they leave, and counted."""

from __future__ import annotations

import random
import socket
import struct
import time
from typing import Any

import pytest

from xconnectd.pcap_filter import Filter

from .frames import BROADCAST, ether, noise, odd_frames
from .lab import Lab, inside, poll
from .service import PAIR, Daemon, Start, linked
from .traffic import Port, Stream, Tap, Wire, collect, compare, lossless, passes

BFD = "udp port 3784"


def _udp(port: int, size: int = 40, v6: bool = False) -> bytes:
    """A datagram in an IP packet."""
    body = struct.pack("!HHHH", 49152, port, 8 + size, 0) + noise(size)
    if v6:
        hosts = b"".join(socket.inet_pton(socket.AF_INET6, f"2001:db8::{n}") for n in (1, 2))
        return struct.pack("!IHBB", 6 << 28, len(body), 17, 255) + hosts + body
    hosts = socket.inet_aton("198.51.100.1") + socket.inet_aton("198.51.100.2")
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 7, 0, 255, 17, 0) + hosts + body


def _tagged(*tags: int, inner: int, payload: bytes, outer: int = 0x8100) -> bytes:
    kinds = [outer, *[0x8100] * (len(tags) - 1)]
    head = b"".join(struct.pack("!HH", *pair) for pair in zip(kinds, tags, strict=True))
    kind, rest = head[:2], head[2:]
    return ether(int.from_bytes(kind, "big"), rest + inner.to_bytes(2, "big") + payload)


FRAMES = [
    *odd_frames().values(),
    *(ether(0x0800, _udp(port)) for port in (3784, 3785, 53)),
    *(ether(0x86DD, _udp(port, v6=True)) for port in (3784, 3785)),
    *(_tagged(5, inner=0x0800, payload=_udp(port)) for port in (3784, 53)),
    _tagged(0xE000, inner=0x0800, payload=_udp(3784)),
    _tagged(7, 5, inner=0x0800, payload=_udp(3784)),
    _tagged(7, 5, inner=0x86DD, payload=_udp(3784, v6=True), outer=0x88A8),
    *(ether(0x88B6, noise(size), BROADCAST) for size in (46, 47, 86, 1000)),
]

EXPRESSIONS = [
    BFD,
    f"vlan and {BFD}",
    f"vlan 7 and vlan 5 and {BFD}",
    "vlan",
    "not vlan",
    "ip6 or arp",
    "len > 100",
    "less 60",
    "ether multicast and not ether broadcast",
    "ether src 02:00:00:00:aa:01",
    "ether[12:4] = 0x81000005",
    "ether[11:2] = 0x0181",
    "ether[13] = 0 and ether[14] = 0",
    "ether[14:4] & 0xfff0000 = 0x50000",
    "ether[15:2] = 0x0508",
    "ether[ether[13]:1] = 2",
    "ether[ether[15] + 8:2] > 0x100",
    "ether[ether[14] + ether[15] + 6:4] & 0xff != 3",
    "ip[2:2] - ((ip[0] & 0xf) << 2) > 40",
    "udp[8:4] >> (udp[1] & 7) & 3 = 1",
    "ip[8] / (ip[9] - 16) = 255",
    "host 198.51.100.2 and not port 53",
    "mpls",
    "pppoes",
]


def _impaired(**drops: str) -> dict[str, Any]:
    """The link with a filter for each direction that is named, and what is of no other key."""
    return linked(impair={way: {"drop": drop} for way, drop in drops.items()})


def _filters(lab: Lab, end: str) -> str:
    return lab.tc(f"filter show dev {end} egress")


def _awaits(lab: Lab, end: str, expression: str) -> None:
    poll(lambda: f" {expression} direct-action" in _filters(lab, end), 10, expression)


def _sent(here: Wire, there: Wire, frames: list[bytes]) -> list[bytes]:
    there.drain()
    for frame in frames:
        here.send(frame)
    return collect(there, len(frames), timeout=0.3)


@pytest.mark.parametrize("ends", ["veths", "tap"])
def test_what_is_dropped_is_what_libpcap_says_of_the_frame_on_the_wire(
    lab: Lab, shared: Start, ends: str
) -> None:
    """Tags or not, and wherever the kernel keeps them; every expression, every odd frame."""
    lab.hush()
    a = lab.veth("va")
    b = lab.tap("vb") if ends == "tap" else lab.veth("vb")
    running = shared(_impaired(forward=EXPRESSIONS[0])).connected()
    assert running.link()["mode"] == "tc"
    filtered = 0
    with a.port() as here, b if isinstance(b, Tap) else b.port() as there:
        for expression in EXPRESSIONS:
            running.write(_impaired(forward=expression))
            _awaits(lab, "vb", expression)
            matches = Filter(expression)
            stays = [frame for frame in FRAMES if not matches(frame, len(frame))]
            delivery = compare(stays, _sent(here, there, FRAMES))
            assert delivery.exact, f"{expression}: {delivery}"
            assert 0 < len(stays) < len(FRAMES), expression
            filtered += len(FRAMES) - len(stays)
            assert running.link()["a"]["dropped"]["filtered"] == filtered, expression
    assert running.link()["b"]["dropped"]["filtered"] == 0
    (told,) = [x for x in running.link()["drops"] if x["reason"] == "filtered"]
    assert (told["from"], told["to"], told["frames"]) == ("va", "vb", filtered)


def test_both_directions_are_independent(lab: Lab, shared: Start) -> None:
    """And change one by one, each frame of the other direction going on as it did."""
    a, b = lab.veths("va", "vb")
    running = shared(linked("tc")).connected()
    bfd, dns = ether(0x0800, _udp(3784)), ether(0x0800, _udp(53))
    wanted: list[dict[str, str]] = [
        {"reverse": BFD},
        {"forward": "port 53", "reverse": BFD},
        {"forward": "port 53"},
        {"forward": BFD, "reverse": "port 53"},
        {},
    ]
    dropped = {"a": 0, "b": 0}
    with a.port() as here, b.port() as there, lossless(a, b):
        for drops in wanted:
            running.write(_impaired(**drops) if drops else linked("tc"))
            for end, way, ports, one in (
                ("vb", "forward", (here, there), "a"),
                ("va", "reverse", (there, here), "b"),
            ):
                drop = drops.get(way, "")
                if drop:
                    _awaits(lab, end, drop)
                else:
                    poll(lambda at=end: "0x7863" not in _filters(lab, at), 10)  # type: ignore[misc]
                judge = Filter(drop) if drop else None
                stays = [x for x in (bfd, dns) if not (judge and judge(x, len(x)))]
                came = [x for x in _sent(*ports, [bfd, dns]) if x[12:14] == b"\x08\0"]
                assert came == stays, drops
                dropped[one] += 2 - len(stays)
    for end, count in dropped.items():
        assert running.link()[end]["dropped"]["filtered"] == count


def test_offloaded_segments_of_one_flow_are_dropped_and_others_are_not(
    lab: Lab, shared: Start
) -> None:
    """UDP in packets of 24,000 bytes that the kernel is to cut."""
    a, b = lab.veth("va", 1), lab.veth("vb", 2)
    running = shared(_impaired(forward=BFD)).connected()
    _awaits(lab, "vb", BFD)

    def datagrams() -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    sender = inside(a.namespace, datagrams)
    receivers = {port: inside(b.namespace, datagrams) for port in (3784, 3785)}
    with sender, receivers[3784], receivers[3785]:
        sender.setsockopt(socket.IPPROTO_UDP, 103, 1200)  # UDP_SEGMENT
        for port, receiver in receivers.items():
            receiver.bind((b.address(), port))
            receiver.setblocking(False)

        def arrives(port: int) -> int:
            sender.sendto(noise(24_000), (b.address(), port))
            count = 0
            try:
                while True:
                    count += len(receivers[port].recv(65_536))
            except BlockingIOError:
                return count

        poll(lambda: arrives(3785) == 24_000, 10, "neighbours that know each other")
        before = running.link()["a"]["dropped"]["filtered"]
        assert [arrives(3784) for _ in range(5)] == [0] * 5
        assert running.link()["a"]["dropped"]["filtered"] == before + 5, "packets, uncut"


def test_what_is_not_of_the_wire_is_left_to_the_program_against_the_host(
    lab: Lab, shared: Start
) -> None:
    """Whatever the order of the filters; and somebody's own filter behind them stays."""
    _, b = lab.veths("va", "vb")
    lab.tc("qdisc add dev vb clsact")
    theirs = ("filter", "add", "dev", "vb", "egress", "pref", "9", "protocol", "ip", "bpf")
    lab.tc(*theirs, "bytecode", "1,6 0 0 0")
    running: Daemon = shared(_impaired(forward="ip")).connected()
    _awaits(lab, "vb", "ip")
    with inside(lab.host, lambda: Port("vb")) as host, b.port() as there:
        for frame in (ether(0x0800, _udp(53)), ether(0x88B6, noise(60))):
            with pytest.raises(OSError, match="No buffer space"):  # what a drop is to a sender
                host.send(frame)
        assert collect(there, 1, timeout=0.1) == []
    link = running.link()
    assert link["a"]["dropped"]["filtered"] == link["b"]["dropped"]["filtered"] == 0
    assert link["b"]["dropped"]["host_egress"] >= 2
    assert "pref 9" in _filters(lab, "vb")
    running.write(linked("tc"))
    poll(lambda: "0x7863" not in _filters(lab, "vb"), 10)
    assert "pref 9" in _filters(lab, "vb")


def test_many_changes_a_second_end_right_and_a_link_beside_loses_nothing(
    lab: Lab, shared: Start
) -> None:
    """Of the filter, the direction and the rewrite, in no order that was thought of."""
    a, b, c, d = lab.veths("va", "vb", "vc", "vd")
    beside = {"vc": "vd"}
    running = shared(PAIR | beside).connected().connected("vc", "vd")
    choices = [linked(one_way=True), linked(rewrite="swap-macs"), PAIR]
    choices += [_impaired(forward=f"udp port {port}") for port in range(1000, 1100)]
    chance = random.Random(3)
    with lossless(c, d):
        until = time.monotonic() + 4
        while time.monotonic() < until:
            running.write({**chance.choice(choices), **beside})
            time.sleep(0.01)
        running.write(_impaired(reverse=BFD) | beside)
        _awaits(lab, "va", BFD)
        poll(lambda: "0x7863" not in _filters(lab, "vb"), 10)
        poll(lambda: running.link()["state"] == "connected", 10)
        with a.port() as here, b.port() as there:
            bfd = ether(0x0800, _udp(3784))
            assert passes(there, here)
            assert bfd in _sent(here, there, [bfd])
            assert bfd not in _sent(there, here, [bfd])
    assert not running.events(level="error")
    assert not running.events("link.failed")


def test_it_outlives_a_crash_and_a_bad_file_is_repaired_and_goes(lab: Lab, shared: Start) -> None:
    a, b = lab.veths("va", "vb")
    before = lab.settled()
    running = shared(_impaired(forward=BFD)).connected()
    _awaits(lab, "vb", BFD)
    bfd = ether(0x0800, _udp(3784))
    with a.port() as here, b.port() as there, Stream(a, b) as stream:
        poll(stream.flows)
        for wiring in (_impaired(forward=BFD), "links: [\n"):
            running.kill()
            running.write(wiring)
            running.start()
            assert running.link()["state"] == "connected", running.link()
            came = _sent(here, there, [bfd, bfd])
            assert bfd not in came
        stream.assert_perfect()
        link = running.link()
        (end,) = (link[end] for end in "ab" if link[end]["name"] == "va")
        assert end["dropped"]["filtered"] == 4
        running.write(_impaired(forward=BFD))
        poll(lambda: running.status()["config"]["state"] == "loaded")
        since = running.mark()
        lab.tc("filter del dev vb egress pref 1 handle 0x7863 bpf")
        running.wait_event("drift.repaired", 10, since)
        _awaits(lab, "vb", BFD)
        assert bfd not in _sent(here, there, [bfd])
        assert passes(here, there)
    assert running.cli("plan").returncode == 0
    running.kill()
    assert running.cli("detach", "--all").returncode == 0
    lab.assert_as_found(before)


@pytest.mark.parametrize(
    ("drop", "words"),
    [
        ("udp prot 3784", "prot"),
        ("host leaf1", "leaf1"),
        ("ip protochain 6", "protochain"),
        ("udp port", "syntax error"),
    ],
)
def test_a_filter_that_is_none_is_refused_with_its_place(
    lab: Lab, shared: Start, drop: str, words: str
) -> None:
    lab.veths("va", "vb")
    running = shared(linked("tc")).connected()
    running.write(_impaired(forward=drop))
    poll(lambda: running.status()["config"]["state"] == "rejected", 10)
    (problem,) = running.status()["config"]["problems"]
    assert ":2:" in problem
    assert words in problem
    assert running.link()["state"] == "connected"
