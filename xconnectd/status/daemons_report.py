"""What the daemon of this namespace answers to commands that want to know how its links are."""

from __future__ import annotations

from typing import Final

from xconnectd.control import client, protocol
from xconnectd.control.lock import running_pid
from xconnectd.status.document import Counted, StatusDocument

_TIMEOUT: Final = 2.0
"""Seconds for a daemon that may be asked but need not be."""


def ask() -> StatusDocument | None:
    """Its report; None if none answers."""
    try:
        with client.Connection(protocol.STATUS, _TIMEOUT) as daemon:
            told = StatusDocument.from_json(daemon.status())
    except client.NoDaemonError:
        return None
    pid = running_pid() or told.daemon.pid  # as seen from here
    return told._replace(daemon=told.daemon._replace(pid=pid))


def ask_counted() -> Counted | None:
    """None if none answers, or it is of a release that does not tell."""
    try:
        with client.Connection(protocol.STATUS, _TIMEOUT) as daemon:
            told = daemon.ask("counters").get("counted")
    except client.NoDaemonError:
        return None
    return told and {int(ifindex): (frames, octets) for ifindex, (frames, octets) in told.items()}
