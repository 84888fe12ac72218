"""Links to other hosts: what these are told, and what becomes of links by what they say."""

from __future__ import annotations

from builders import endpoint, wiring
from driven import Keeper
from kernel import Kernel

from xconnectd.model import Endpoint, Link, Tunnel

FAR = "h2/b"
LINK = "h1/v0,h2/b"
TUNNEL = Tunnel("198.51.100.12", 100)


def to_host(own: str = "v0", **options: object) -> Link:
    """A link to ``b`` on h2, as h1 has it."""
    here = endpoint(own)._replace(written=f"h1/{own}", host="h1")
    return Link(here, Endpoint(FAR, host="h2", tunnel=TUNNEL), digest="1a2b3c4d", **options)


def test_a_link_to_another_host_waits_as_long_as_there_is_no_tunnel() -> None:
    keeper = Keeper(Kernel("v0")).start(wiring(to_host()))
    assert keeper.state(LINK) == "waiting"
    assert keeper.runtime.tunnels.announced == {}
