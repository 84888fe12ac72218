"""Where the configuration is, and where state, pins and sockets of this network namespace are.

All but the first are directories named by the namespace's cookie.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final

DEFAULT_CONFIG: Final = Path("/etc/xconnect.yaml")

_STATE: Final = Path("/run/xconnectd")
_PINS: Final = Path("/sys/fs/bpf/xconnectd")
_SO_NETNS_COOKIE: Final = 71


def own_inode() -> int:
    """Of the namespace that this thread is in, as its sockets are."""
    return Path("/proc/thread-self/ns/net").stat().st_ino


def namespace_cookie() -> str:
    """What tells this network namespace from all others until the next boot.

    The inode number of a namespace is used again at once, its cookie is not (kernel 5.12;
    before that there is only the inode).
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            raw = any_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        except OSError:
            return f"inode-{own_inode()}"
    return str(int.from_bytes(raw, "little"))


def state_directory() -> Path:
    return Path(os.environ.get("XCONNECTD_STATE_DIR", _STATE))


def directory() -> Path:
    """Where the ledger and the control sockets of this namespace are."""
    return state_directory() / namespace_cookie()


def pins() -> Path:
    """Where the pins of this network namespace are."""
    return Path(os.environ.get("XCONNECTD_PINS", _PINS)) / namespace_cookie()
