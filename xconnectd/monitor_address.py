"""The monitor of a virtual machine and one of its netdevs, as a file writes them. Pure.

``qmp:/run/r1.sock#net0``, ``qmp:HOST:PORT#net0`` and ``hmp:HOST:PORT#p01``.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, Self

PROTOCOLS: Final = ("qmp", "hmp")
EXAMPLE: Final = "`qmp:/run/r1.sock#net0` or `hmp:127.0.0.1:4001#p01`"

PATH_BYTES: Final = 107
"""Of a unix socket at most: a sockaddr_un holds 108, one of them a NUL (unix(7))."""
_NETDEV: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,126}", re.ASCII)
"""What QEMU takes as an ``id`` (id_wellformed in util/id.c). None of it has a meaning in HMP."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}", re.ASCII)
"""Of a host; containers have underscores in theirs."""


class Monitor(NamedTuple):
    """Where a monitor listens, on a unix socket or at a TCP port, and which of the two it speaks.

    Several netdevs of one machine have the same: QEMU serves one client of a monitor at a time.
    """

    protocol: str
    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class MonitorAddress(NamedTuple):
    """A netdev (``-netdev …,id=NAME``, or a NIC's ``-device …,id=NAME``) behind a monitor."""

    monitor: Monitor
    netdev: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """What this text stands for; ``str`` gives the text back.

        Raises ``ValueError`` with two arguments, what is wrong and what would be right.
        """
        protocol, colon, rest = text.partition(":")
        if not colon or protocol not in PROTOCOLS:
            raise ValueError(f"a monitor begins with `qmp:` or `hmp:`, not `{text[:40]}`", EXAMPLE)
        where, _, netdev = rest.rpartition("#")
        if not where:
            raise ValueError("the netdev of the machine is missing", f"`{text}#net0`")
        if not _NETDEV.fullmatch(netdev):
            problem = f"`{netdev[:40]}` cannot be a netdev's id in QEMU"
            raise ValueError(problem, "a letter, then letters, digits, `-`, `.` and `_`: `net0`")
        return cls(_monitor(protocol, where, netdev), netdev)

    def __str__(self) -> str:
        return f"{self.monitor.protocol}:{self.monitor}#{self.netdev}"


def _monitor(protocol: str, where: str, netdev: str) -> Monitor:
    kind, colon, rest = where.partition(":")
    if colon and kind in ("unix", "tcp", "telnet"):  # as QEMU's own command line writes it
        raise ValueError(f"`{kind}:` is too much", f"`{protocol}:{rest}#{netdev}`")
    if where.startswith("/"):
        _check_path(where)
        return Monitor(protocol, path=where)
    host, colon, port = where.rpartition(":")
    if not colon:
        problem = f"`{where}` is neither an absolute path nor HOST:PORT"
        raise ValueError(problem, EXAMPLE)
    if not re.fullmatch("[1-9][0-9]{0,4}", port) or int(port) > 65535:
        example = f"`{protocol}:{host or '127.0.0.1'}:4001#{netdev}`"
        raise ValueError(f"`{port}` is no port, which is a number from 1 to 65535", example)
    return Monitor(protocol, host=_host(host, f"{port}#{netdev}", protocol), port=int(port))


def _check_path(path: str) -> None:
    if not path.isprintable():
        raise ValueError("there is an unprintable character in the path", EXAMPLE)
    if (size := len(path.encode())) > PATH_BYTES:
        problem = f"the path has {size} bytes, no socket's has more than {PATH_BYTES}"
        raise ValueError(problem, "a symbolic link with a short name leads there too")


def _host(text: str, after: str, protocol: str) -> str:
    """An IP address without its brackets, or a name."""
    from ipaddress import IPv4Address, IPv6Address  # 3 ms that only a monitor should cost

    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in bare:
        example = f"`{protocol}:[::1]:{after}`"
        if bare is text:
            raise ValueError("an IPv6 address stands in brackets", example)
        try:
            IPv6Address(bare)
        except ValueError:
            raise ValueError(f"`{bare}` is no IPv6 address", example) from None
        return bare
    example = f"`{protocol}:127.0.0.1:{after}`"
    if not _NAME.fullmatch(text):
        raise ValueError(f"`{text[:40]}` is neither an IP address nor a name", example)
    if not text.strip("0123456789."):
        try:
            IPv4Address(text)
        except ValueError:
            raise ValueError(f"`{text}` is no IPv4 address", example) from None
    return text
