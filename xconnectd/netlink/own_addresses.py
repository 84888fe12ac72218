"""The IP addresses of this network namespace. It only looks."""

from __future__ import annotations

import ipaddress
from contextlib import closing

from xconnectd.netlink import uapi
from xconnectd.netlink.transport import ADDRESS_ATTRIBUTES, Route, address_request, attributes_in


def own_addresses() -> frozenset[str]:
    """Of all its interfaces, as ``ip addr`` writes them, without the length of the prefix."""
    with closing(Route()) as route:
        messages = route.ask(address_request())
    found = (attributes_in(message, ADDRESS_ATTRIBUTES) for message in messages)
    packed = (each.get(uapi.IFA_LOCAL) or each.get(uapi.IFA_ADDRESS) for each in found)
    return frozenset(str(ipaddress.ip_address(bytes(each))) for each in packed if each)
