"""One connection to a monitor, as a connected socket, and in words why there is none.

To be imported by the thread that talks with monitors and by nobody else: it brings asyncio along.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from typing import Any, Final

from xconnectd.monitor_address import Monitor

_Address = tuple[socket.AddressFamily, Any]

_REMEDIES: Final = {
    errno.EACCES: "the daemon's user needs the right to write to this socket",
    errno.EPERM: "a firewall, or IPAddressAllow= of the daemon's unit, does not let it through",
}


class MonitorError(Exception):
    """Nothing can be set by this monitor now. Its text says why, and what can be done."""


def unreachable(monitor: Monitor, error: OSError) -> MonitorError:
    """What the kernel or the resolver said when somebody there was to be asked."""
    known = error.errno is not None and error.errno > 0  # the resolver's are negative
    why = os.strerror(error.errno or 0) if known else error.strerror or str(error)
    remedy = f" ({_REMEDIES[error.errno]})" if error.errno in _REMEDIES else ""
    return MonitorError(f"no monitor answers at {monitor}: {why}{remedy}; it is tried again")


def silent(monitor: Monitor) -> MonitorError:
    text = (
        f"the monitor at {monitor} accepts and says nothing: QEMU serves one client at a time and "
        "another one has it, or it hangs; give the machine one more monitor, only for this"
    )
    return MonitorError(text)


def garbled(monitor: Monitor, why: str) -> MonitorError:
    """Whoever answers there speaks something else."""
    text = f"what answers at {monitor} is no {monitor.protocol.upper()} monitor: {why}"
    return MonitorError(text)


def hung_up(monitor: Monitor) -> MonitorError:
    return MonitorError(f"the monitor at {monitor} hung up; it is tried again")


def no_netdev(netdev: str) -> str:
    """What QEMU's DeviceNotFound is told as."""
    return f"there is no netdev {netdev} in this machine; `info network` in HMP lists them"


async def connect(monitor: Monitor) -> socket.socket:
    """A connected socket, to be closed by the caller. Raises ``MonitorError``."""
    try:
        if monitor.path:
            return _connect_unix(monitor)
        return await _connect_tcp(await _addresses(monitor.host, monitor.port))
    except OSError as error:
        raise unreachable(monitor, error) from error


def _connect_unix(monitor: Monitor) -> socket.socket:
    """Does not wait: the kernel queues a client, or tells at once that there is no room."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.setblocking(False)
        client.connect(monitor.path)
    except BlockingIOError:  # QEMU has a queue of one client
        client.close()
        raise silent(monitor) from None
    except BaseException:
        client.close()
        raise
    return client


async def _connect_tcp(addresses: list[_Address]) -> socket.socket:
    """To the first of the addresses that answers. Raises what the last one said."""
    problem = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for family, address in addresses:
        client = socket.socket(family, socket.SOCK_STREAM)
        try:
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, address)
        except OSError as error:
            client.close()
            problem = error
        except BaseException:
            client.close()
            raise
        else:
            return client
    raise problem


# --------------------------------------------------------------------------- names of hosts


class _Lookup(threading.Thread):
    """Asks the resolver, which can take a minute and cannot be told to stop.

    Not by asyncio's threads, whose end the end of the process waits for.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(name="monitor-name", daemon=True)
        self._question = (host, port)
        self._found: list[_Address] | OSError = []

    def run(self) -> None:
        try:
            answers = socket.getaddrinfo(*self._question, type=socket.SOCK_STREAM)
            self._found = [(family, address) for family, _, _, _, address in answers]
        except OSError as error:
            self._found = error
        except UnicodeError as error:  # a label of more than 63 characters
            self._found = OSError(str(error))

    @property
    def found(self) -> list[_Address]:
        if isinstance(self._found, OSError):
            raise self._found
        return self._found


_lookups: Final[dict[tuple[str, int], _Lookup]] = {}
"""One a name, however often it is asked for meanwhile."""


async def _addresses(host: str, port: int) -> list[_Address]:
    """Raises OSError with the resolver's words."""
    lookup = _lookups.get((host, port))
    if lookup is None:
        lookup = _lookups[host, port] = _Lookup(host, port)
        if ":" in host or not host.strip("0123456789."):
            lookup.run()  # an address is known without asking
        else:
            lookup.start()
    while lookup.is_alive():  # noqa: ASYNC110 (a thread that may outlive the loop sets no event)
        await asyncio.sleep(0.005)
    _lookups.pop((host, port), None)
    return lookup.found
