"""What messages of routes that go say; the rest of ``monitor`` is tested on a real kernel."""

from __future__ import annotations

import struct

from messages import attributes, route

from xconnectd.netlink import monitor


def test_a_route_that_goes_is_news_of_every_interface_that_it_led_over() -> None:
    hops = b"".join(struct.pack("=HBBi", 8, 0, 0, ifindex) for ifindex in (5, 6))
    multipath = bytes(28) + attributes(_9=hops)
    assert [*monitor._route_interfaces(multipath)] == [5, 6]
    assert [*monitor._route_interfaces(route("fd00:77::/64"))] == [5]
    assert [*monitor._route_interfaces(bytes(28) + attributes(_9=hops + b"\0" * 9))] == [5, 6, 0]
