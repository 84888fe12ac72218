"""Which programs of the host manage its network interfaces, by their traces."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_TRACES: Final = {
    "systemd-networkd": "systemd/netif/state",
    "NetworkManager": "NetworkManager",
    "connman": "connman",
    "dhcpcd": "dhcpcd",
    "ifupdown": "network/ifstate",
}


def network_managers(run: Path = Path("/run")) -> str:
    """Their names, for a message; ``unknown`` where none has left a trace in ``run``."""
    found = [name for name, trace in _TRACES.items() if (run / trace).exists()]
    return " or ".join(found) or "unknown"
