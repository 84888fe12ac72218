"""What messages of addresses and routes say, byte by byte: the rest is tested on a real kernel."""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection, Iterable
from typing import Any

import pytest
from messages import attributes, link, route

from xconnectd.model import Interface
from xconnectd.netlink import host_use, uapi
from xconnectd.netlink.interfaces import interfaces_in
from xconnectd.netlink.monitor import Event
from xconnectd.netlink.transport import ADDRESS_ATTRIBUTES, ROUTE_ATTRIBUTES, attributes_in

PERMANENT, TEMPORARY, MANAGETEMPADDR, TENTATIVE, NOPREFIXROUTE = 0x80, 0x01, 0x100, 0x40, 0x200
FD77 = socket.inet_pton(socket.AF_INET6, "fd00:77::1")


def address(flags: int, proto: int | None = None) -> bytes:
    head = bytes(16) + struct.pack("=BBBBi", socket.AF_INET6, 64, flags & 0xFF, 0, 5)
    told = {"_1": FD77, "_8": struct.pack("=I", flags)}
    return head + attributes(**told, **({} if proto is None else {"_11": bytes([proto])}))


def told(message: bytes) -> host_use._Address | None:
    return host_use._address(message, attributes_in(message, ADDRESS_ATTRIBUTES))


ROUTERS = {
    "Linux 5.18": (MANAGETEMPADDR, 2, True),
    "before it": (MANAGETEMPADDR | TENTATIVE, None, True),
    "privacy": (TEMPORARY, None, True),
    "a daemon's": (NOPREFIXROUTE, 2, True),
    "by hand": (PERMANENT, None, False),
    "by hand for privacy": (PERMANENT | MANAGETEMPADDR, None, False),
    "by hand, no route": (PERMANENT | NOPREFIXROUTE, 0, False),
    "DHCPv6": (0, None, False),
}


@pytest.mark.parametrize(("flags", "proto", "learnt"), ROUTERS.values(), ids=ROUTERS)
def test_an_address_from_a_router_is_known(flags: int, proto: int | None, learnt: bool) -> None:
    found = told(address(flags, proto))
    assert found is not None
    assert (str(found.address), found.learnt) == ("fd00:77::1/64", learnt)


def is_learnt(message: bytes, own: Iterable[host_use._Address]) -> bool:
    route = host_use._route_entry(message, attributes_in(message, ROUTE_ATTRIBUTES))
    return host_use._is_learnt(route, own)


def test_a_prefix_is_a_routers_where_no_address_of_the_hosts_own_is_in_it() -> None:
    learnt, own = (told(address(flags)) for flags in (MANAGETEMPADDR, PERMANENT))
    assert learnt is not None
    assert own is not None
    assert is_learnt(route("fd00:77::/64"), [learnt])
    assert not is_learnt(route("fd00:77::/64"), [learnt, own])
    assert is_learnt(route("fd00:78::/64"), [own])
    assert is_learnt(route("::/0", protocol=9), [own])
    others = [route("fe80::/64"), route("ff05::/16"), route("ff00::/8", kind=5)]
    for other in (*others, route("fd00::/8", protocol=4)):
        assert not is_learnt(other, [])


class Answers:
    """In place of the kernel: these link messages, and to all else the same ones."""

    def __init__(self, *links: bytes, others: Iterable[bytes] = ()) -> None:
        self._links = links
        self._others = list(others)

    def all(self) -> dict[int, Interface]:
        return {each.ifindex: each for each in interfaces_in(self._links)}

    def ask(self, *_: object) -> list[bytes]:
        return self._others

    def ask_each(self, questions: Iterable[object]) -> list[list[bytes]]:
        return [self._others for _ in questions]


VLAN = {"_5": struct.pack("=i", 5), "_18": attributes(_1=b"vlan\0")}
END = Interface(5, "va", kind="veth", up=False)


def words(use: host_use.HostUse, everyone: Collection[Interface] = ()) -> list[str]:
    return [each.words for each in use.uses([END], (), everyone)[END.ifindex]]


@pytest.mark.parametrize("tracks", [True, False])
def test_what_a_look_at_all_shows_is_kept_only_if_every_event_is_told(tracks: bool) -> None:
    nothing: Any = Answers()
    everyone = Answers(link(uapi.RTM_NEWLINK, 9, "va.7", **VLAN)).all().values()
    use = host_use.HostUse(nothing, nothing)
    if tracks:
        use.track_stacked()
    assert use.uses([], [], everyone) == {}
    assert words(use) == ["va.7 is on top of it"] * tracks
    assert words(use, everyone) == ["va.7 is on top of it"]


def test_a_device_that_is_gone_stands_on_nothing() -> None:
    answers: Any = Answers(link(uapi.RTM_NEWLINK, 9, "va.7", **VLAN))
    use = host_use.HostUse(answers, answers)
    use.track_stacked()
    assert words(use) == ["va.7 is on top of it"]
    gone = link(uapi.RTM_DELLINK, 9, "va.7", **VLAN)
    use.update_stacked(Event(9, "va.7", gone=True, message=gone))
    assert words(use) == []
    use.update_stacked(Event(9, "va.8", message=link(uapi.RTM_NEWLINK, 9, "va.8", **VLAN)))
    assert words(use) == ["va.8 is on top of it"]


def test_a_link_local_address_is_no_use() -> None:
    here = address(PERMANENT)
    fe80 = here.replace(FD77, socket.inet_pton(socket.AF_INET6, "fe80::1"))
    answers: Any = Answers(others=[fe80, here])
    ((found,),) = host_use.HostUse(answers, answers).uses((), [END]).values()
    assert found.words == "it has the address fd00:77::1/64"


def test_a_neighbour_that_somebody_entered_stays() -> None:
    """NUD_REACHABLE, NUD_STALE; NUD_NOARP, NUD_PERMANENT."""
    messages = [bytes(24) + struct.pack("=H", state) for state in (0x02, 0x04, 0x40, 0x80)]
    assert [*map(host_use._is_resolved, messages)] == [True, True, False, False]
