"""``set_link`` by QMP. Sole importer of PyPI's qemu.qmp.

https://www.qemu.org/docs/master/interop/qmp-spec.html
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from qemu.qmp import ConnectError, ExecuteError, QMPClient, QMPError, Runstate

from xconnectd.monitor_address import Monitor
from xconnectd.qemu import connection
from xconnectd.qemu.connection import MonitorError

_LONGEST_LINE: Final = 65_536
"""Bytes; a greeting has 200. qemu.qmp itself would keep 10 MB of one that does not end."""
_HMP_BANNER: Final = b"QEMU "


async def set_links(
    client: socket.socket, monitor: Monitor, carriers: Mapping[str, bool], answer_timeout: float
) -> dict[str, str]:
    """By netdev, what QEMU has against it; empty where it was set.

    ``answer_timeout`` is how many seconds each answer may take. Raises ``MonitorError``.
    """
    answers: dict[str, str] = {}
    qmp = QMPClient(readbuflen=_LONGEST_LINE)
    qmp.events.event_filter = lambda _event: False  # none is read, and all would be kept
    try:
        async with asyncio.timeout(answer_timeout):
            await qmp.connect(client)
        for netdev, carrier in carriers.items():
            async with asyncio.timeout(answer_timeout):
                answers[netdev] = await _set_link(qmp, netdev, carrier)
    except TimeoutError:
        raise connection.silent(monitor) from None
    except ConnectError as error:
        raise _in_words(monitor, error.exc) from error
    except QMPError as error:  # in the middle of it
        raise connection.hung_up(monitor) from error
    finally:
        if qmp.runstate is not Runstate.IDLE:
            with suppress(Exception):  # why it broke off has been told
                await qmp.disconnect()
    return answers


async def _set_link(qmp: QMPClient, netdev: str, carrier: bool) -> str:
    try:
        await qmp.execute("set_link", {"name": netdev, "up": carrier})
    except ExecuteError as error:
        if error.error_class == "DeviceNotFound":
            return connection.no_netdev(netdev)
        return str(error)
    return ""


def _in_words(monitor: Monitor, error: Exception) -> MonitorError:
    """Of what came in place of a greeting and of the right to send commands."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError):
            return connection.unreachable(monitor, seen)
        if isinstance(seen, EOFError):
            return connection.hung_up(monitor)
        if getattr(seen, "raw", b"").startswith(_HMP_BANNER):
            return connection.garbled(monitor, "it speaks HMP, write `hmp:` for it")
        seen = getattr(seen, "exc", None)
    return connection.garbled(monitor, "it sends no greeting of QMP's")
