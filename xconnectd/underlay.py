"""The way to another host, as this namespace's routes have it. Sends nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import closing
from typing import Final

from xconnectd.model import VXLAN_PORT, Way

_IP_MTU: Final = 14
_IPV6_MTU: Final = 24
"""linux/in.h, linux/in6.h: of a connected socket that of the way, as far as it is known (ip(7))."""


def way_to(address: str, port: int = VXLAN_PORT) -> Way:
    """To an IP address. The kernel looks its routes up for a socket; nothing leaves."""
    is_v6 = ":" in address
    family = socket.AF_INET6 if is_v6 else socket.AF_INET
    option = (socket.IPPROTO_IPV6, _IPV6_MTU) if is_v6 else (socket.IPPROTO_IP, _IP_MTU)
    with closing(socket.socket(family, socket.SOCK_DGRAM)) as way:
        try:
            way.connect((address, port))
            return Way(way.getsockopt(*option))
        except OSError as error:
            return Way(problem=error.strerror or str(error))


def mtus(addresses: Iterable[str]) -> dict[str, int | None]:
    """Of the ways to these, in bytes; None where there is none."""
    return {address: way_to(address).mtu for address in set(addresses)}
