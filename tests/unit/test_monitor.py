"""What messages of routes and ports that go say; the rest is tested on a real kernel."""

from __future__ import annotations

import struct

from messages import attributes, link, route

from xconnectd.netlink import monitor, uapi

AF_BRIDGE = 7


def test_a_route_that_goes_is_news_of_every_interface_that_it_led_over() -> None:
    via = bytes(4)  # an attribute of the first of them
    hops = struct.pack("=HBBi", 12, 0, 0, 5) + via + struct.pack("=HBBi", 8, 0, 0, 6)
    multipath = bytes(28) + attributes(_9=hops)
    assert [*monitor.route_interfaces(multipath)] == [5, 6]
    assert [*monitor.route_interfaces(route("fd00:77::/64"))] == [5]
    assert [*monitor.route_interfaces(bytes(28) + attributes(_9=hops + b"\0" * 9))] == [5, 6, 0]


def test_who_leaves_a_bridge_is_not_gone() -> None:
    gone = monitor._event(5, link(uapi.RTM_DELLINK, 5, "va"))
    left = monitor._event(5, link(uapi.RTM_DELLINK, 5, "va", family=AF_BRIDGE))
    assert (gone.name, gone.gone) == ("va", True)
    assert (left.name, left.gone, left.message) == ("va", False, b"")
