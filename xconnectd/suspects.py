"""Who else on this host configures interfaces, guessed from what they leave below /run."""

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


def suspects(run: Path = Path("/run")) -> str:
    """Names, the likeliest first; ``unknown`` where there is no trace of any."""
    found = [name for name, trace in _TRACES.items() if (run / trace).exists()]
    return " or ".join(found) or "unknown"
