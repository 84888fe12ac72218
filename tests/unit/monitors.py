"""Monitors as QEMU 7.2 has them, byte for byte as seen on the wire, and others that misbehave.

Real sockets and a thread each. As QEMU's, a monitor serves one client at a time and has the next
one wait in a queue of one.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from xconnectd.monitor_address import Monitor, MonitorAddress

GREETING: Final = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian '
    b'1:7.2+dfsg-7+deb12u18+b3"}, "capabilities": ["oob"]}}\r\n'
)
BANNER: Final = b"QEMU 7.2.22 monitor - type 'help' for more information\r\n(qemu) "
TELNET: Final = b"\xff\xfb\x01\xff\xfb\x03\xff\xfb\x00\xff\xfd\x00"

Serve = Callable[[socket.socket], None]


class Server:
    """Listens at a path or a TCP port, and has ``serve`` talk with one client after the other."""

    def __init__(self, serve: Serve, path: Path | None = None, port: int = 0) -> None:
        self._serve = serve
        if path is None:
            self._listener = socket.create_server(("127.0.0.1", port), backlog=1)
        else:
            path.unlink(missing_ok=True)  # as QEMU does
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
            self._listener.listen(1)
        self._client: socket.socket | None = None
        self.path = path
        self.port = 0 if path else self._listener.getsockname()[1]
        self.connections = 0
        self._ending = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def address(self, netdev: str = "net0", protocol: str = "qmp") -> MonitorAddress:
        if self.path:
            return MonitorAddress(Monitor(protocol, path=str(self.path)), netdev)
        return MonitorAddress(Monitor(protocol, host="127.0.0.1", port=self.port), netdev)

    def close(self) -> None:
        """As by SIGKILL: clients are cut off, and the file of the socket stays."""
        self._ending = True
        for each in (self._listener, self._client):
            if each is not None:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _run(self) -> None:
        with self._listener:
            while True:
                try:
                    self._client, _ = self._listener.accept()
                except OSError:
                    return
                if self._ending:  # it was in the queue
                    self._client.close()
                    return
                self.connections += 1
                with self._client, suppress(OSError):
                    self._serve(self._client)


class Machine:
    """What one QEMU knows of its links: all that was ever set, in order."""

    def __init__(self, *netdevs: str) -> None:
        self.netdevs = dict.fromkeys(netdevs or ("net0",), True)
        self.history: list[tuple[str, bool]] = []
        self.events = b""

    def set_link(self, netdev: str, carrier: bool) -> bool:
        """Whether there is such a netdev."""
        if netdev in self.netdevs:
            self.netdevs[netdev] = carrier
            self.history.append((netdev, carrier))
        return netdev in self.netdevs

    def qmp(self, client: socket.socket) -> None:
        client.sendall(GREETING)
        for command in _messages(client):
            if command["execute"] != "qmp_capabilities":
                client.sendall(self.events)
            client.sendall(json.dumps(self._answer(command)).encode() + b"\r\n")

    def _answer(self, command: dict[str, object]) -> dict[str, object]:
        arguments = command.get("arguments", {})
        assert isinstance(arguments, dict)
        name = {"id": command["id"]} if "id" in command else {}
        if command["execute"] == "qmp_capabilities":
            assert arguments == {"enable": ["oob"]}
            return {"return": {}} | name
        assert command["execute"] == "set_link"
        if self.set_link(arguments["name"], arguments["up"]):
            return {"return": {}} | name
        problem = {"class": "DeviceNotFound", "desc": f"Device '{arguments['name']}' not found"}
        return name | {"error": problem}

    def hmp(self, client: socket.socket) -> None:
        client.sendall(BANNER)
        for line in _lines(client):
            client.sendall(_echo(line))
            command, netdev, carrier = line.split(" ")
            assert command == "set_link"
            if not self.set_link(netdev, {"on": True, "off": False}[carrier]):
                client.sendall(f"Error: Device '{netdev}' not found\r\n".encode())
            client.sendall(b"(qemu) ")

    def telnet(self, client: socket.socket) -> None:
        client.sendall(TELNET)
        self.hmp(client)


def _messages(client: socket.socket) -> Iterator[dict[str, object]]:
    """JSON needs no ends of lines, and qemu.qmp sends none."""
    decoder, text = json.JSONDecoder(), ""
    while received := client.recv(4096):
        text += received.decode()
        while text:
            try:
                message, end = decoder.raw_decode(text)
            except json.JSONDecodeError:
                break
            text = text[end:].lstrip()
            yield message


def _lines(client: socket.socket) -> Iterator[str]:
    with client.makefile("r", newline="\n") as lines:
        yield from (line.removesuffix("\n") for line in lines)


def _echo(line: str) -> bytes:
    """QEMU's readline draws the line anew for each character that is typed."""
    drawn = "".join(
        "\x1b[D" * (size - 1) + line[:size] + "\x1b[K" for size in range(1, len(line) + 1)
    )
    return f"{drawn}\r\n".encode()
