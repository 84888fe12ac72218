"""``set_link`` by HMP, the monitor that people type at: a prompt, an echo, and what went wrong.

It has no marks but its prompt, so each command is sent at one and its answer ends at the next.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Mapping
from typing import Final

from xconnectd.formatting import printable
from xconnectd.monitor_address import Monitor
from xconnectd.qemu import connection

_PROMPT: Final = "(qemu) "
_LONGEST_ANSWER: Final = 65_536
"""Bytes; the echo of a command has 8 for each character and one more for each before it."""
_TAIL: Final = 64
"""Bytes at the end in which a prompt is looked for."""
_TERMINAL: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""How QEMU's readline draws what is typed: ``ESC [ K`` and ``ESC [ D``."""
_QMP_GREETING: Final = b'{"QMP"'


async def set_links(
    client: socket.socket, monitor: Monitor, carriers: Mapping[str, bool], answer_timeout: float
) -> dict[str, str]:
    """By netdev, what QEMU has against it; empty where it was set.

    ``answer_timeout`` is how many seconds each answer may take. Raises ``MonitorError``.
    """
    answers: dict[str, str] = {}
    terminal = _Terminal(client, monitor)
    try:
        async with asyncio.timeout(answer_timeout):
            await terminal.answer()
        for netdev, carrier in carriers.items():
            async with asyncio.timeout(answer_timeout):
                answer = await terminal.command(f"set_link {netdev} {'on' if carrier else 'off'}")
            answers[netdev] = _in_words(netdev, answer)
    except TimeoutError:
        raise terminal.timed_out() from None
    except OSError as error:
        raise connection.unreachable(monitor, error) from error
    return answers


def _in_words(netdev: str, answer: str) -> str:
    if re.search(rf"\b{re.escape(netdev)}\b.* not found", answer):
        return connection.no_netdev(netdev)
    return answer


class _Terminal:
    """A client of the monitor that types a line and reads what is printed up to the prompt."""

    def __init__(self, client: socket.socket, monitor: Monitor) -> None:
        self._client = client
        self._monitor = monitor
        self._received = b""

    async def command(self, line: str) -> str:
        """What is printed beside the echo of the line. Raises as ``answer``."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._client, f"{line}\n".encode("ascii"))
        _echo, _, answer = (await self.answer()).partition("\n")
        return printable(" ".join(answer.split()))

    async def answer(self) -> str:
        """What is printed until the next prompt. Raises ``MonitorError`` and ``OSError``."""
        loop = asyncio.get_running_loop()
        self._received = b""
        while not _plain(self._received[-_TAIL:]).endswith(_PROMPT):
            if len(self._received) > _LONGEST_ANSWER:
                raise connection.garbled(self._monitor, "what it prints does not end")
            self._acknowledge_at_once()
            more = await loop.sock_recv(self._client, 4096)
            if not more:
                raise connection.hung_up(self._monitor)
            self._received += more
            if self._received.startswith(_QMP_GREETING):
                raise connection.garbled(self._monitor, "it speaks QMP, write `qmp:` for it")
        return _plain(self._received).removesuffix(_PROMPT)

    def _acknowledge_at_once(self) -> None:
        """QEMU echoes in many small writes, of which TCP sends one for each acknowledgement.

        The kernel forgets it after a while (tcp(7)). 45 ms become less than one.
        """
        if self._client.family != socket.AF_UNIX:
            self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def timed_out(self) -> connection.MonitorError:
        if self._received:
            return connection.garbled(self._monitor, "it shows no prompt")
        return connection.silent(self._monitor)


def _plain(received: bytes) -> str:
    """Without the marks for a terminal. What a telnet chardev offers comes before the banner."""
    return _TERMINAL.sub("", received.decode("utf-8", "replace"))
