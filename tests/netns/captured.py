"""A capture under test: the command, and a reader of its files that shares nothing with it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from .lab import PATIENCE, poll, run

if TYPE_CHECKING:
    from .service import Daemon

_SECTION: Final = 0x0A0D0D0A
_IF_NAME, _IF_DESCRIPTION = 2, 3
_RECEIVED, _DROPPED = 4, 5


@dataclass
class Packet:
    interface: str
    time: int
    data: bytes
    length: int
    inbound: bool


@dataclass
class File:
    """What is in a pcapng file. ``counts`` has received and dropped, by interface."""

    comment: str = ""
    interfaces: list[str] = field(default_factory=list)
    descriptions: list[str] = field(default_factory=list)
    packets: list[Packet] = field(default_factory=list)
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)

    def frames(self, interface: str) -> list[bytes]:
        return [one.data for one in self.packets if one.interface == interface]

    @classmethod
    def read(cls, path: Path) -> Self:
        file = cls()
        for kind, body in _blocks(path.read_bytes()):
            file._add(kind, body)
        return file

    def _add(self, kind: int, body: bytes) -> None:
        if kind == _SECTION:
            assert struct.unpack_from("<IHH", body) == (0x1A2B3C4D, 1, 0)
            self.comment = _options(body[16:])[1].decode()
        elif kind == 1:
            options = _options(body[8:])
            assert (struct.unpack_from("<H", body)[0], options[9]) == (1, b"\x09")
            self.interfaces.append(options[_IF_NAME].decode())
            self.descriptions.append(options[_IF_DESCRIPTION].decode())
        elif kind == 6:
            number, high, low, kept, length = struct.unpack_from("<IIIII", body)
            options = _options(body[20 + kept + -kept % 4 :])
            inbound = options[2] == b"\x01\0\0\0"
            data, name = body[20 : 20 + kept], self.interfaces[number]
            self.packets.append(Packet(name, high << 32 | low, data, length, inbound))
        elif kind == 5:
            options = _options(body[12:])
            received, dropped = (struct.unpack("<Q", options[x])[0] for x in (_RECEIVED, _DROPPED))
            self.counts[self.interfaces[struct.unpack_from("<I", body)[0]]] = (received, dropped)
        else:
            raise AssertionError(f"block {kind}")


def _blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        assert struct.unpack_from("<I", data, at + size - 4) == (size,)
        yield kind, data[at + 8 : at + size - 4]
        at += size
    assert at == len(data)


def _options(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while True:
        code, size = struct.unpack_from("<HH", data, at)
        if code == 0:
            return found
        found[code] = data[at + 4 : at + 4 + size]
        at += 4 + size + -size % 4


class Capture:
    """``xconnectd capture`` in the host of a lab; ready when its programs are attached.

    To be loaded is not enough: a frame that comes in between is not received.
    """

    def __init__(self, beside: Daemon, *args: str, write: str = "", ready: bool = True) -> None:
        self.path = Path(write) if write else beside.lab.directory / f"{os.urandom(4).hex()}.pcapng"
        words = (*args, "-w", str(self.path)) if write != "text" else args
        pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        options = {**beside._surroundings(), **pipes, "stdin": subprocess.DEVNULL}
        options["process_group"] = 0  # to be interrupted as a terminal does it
        self._process = subprocess.Popen(beside._command("capture", *words), **options)
        beside.lab.on_close(self.kill)
        self.output, self.errors = b"", b""
        if ready:
            self.await_taps(1 if "--direction" in args and "both" not in args else 2)

    def await_taps(self, count: int) -> None:
        """Wait until it taps so many ends."""
        poll(lambda: len(self.programs()) == count, what=f"{count} taps")

    def programs(self) -> set[int]:
        """The ids of those that are attached: each has a link among its descriptors."""
        found = set[int]()
        with contextlib.suppress(OSError):  # one that is closed meanwhile
            for path in Path(f"/proc/{self.pid}/fdinfo").iterdir():
                text = path.read_text()
                if "link_type:" in text:
                    found.update(map(int, re.findall(r"^prog_id:\s*(\d+)", text, re.MULTILINE)))
        return found

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stdout(self) -> int:
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def stop(self, number: int = signal.SIGINT) -> File:
        """Ask for its end; the file as it is then."""
        self._process.send_signal(number)
        return self.end()

    def end(self) -> File:
        """Wait for its end by itself."""
        assert self.ended()[0] == 0, self.errors.decode()
        return File.read(self.path) if self.path.is_file() else File()

    def ended(self) -> tuple[int, bytes]:
        """Its exit code and what it said, once it has ended by itself, however."""
        self.output, self.errors = self._process.communicate(timeout=PATIENCE)
        return self._process.returncode, self.errors

    def closed(self) -> tuple[int, bytes]:
        """Close our side of its pipe too: its exit code and what it said."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdout.close()
        return self._process.wait(PATIENCE), self._process.stderr.read()

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        for stream in (self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError):
                if stream:
                    stream.close()
        self._process.wait(PATIENCE)


def programs() -> set[int]:
    """The ids of the programs that can listen, all over the machine."""
    done = run("bpftool", "prog", "show").stdout
    return set(map(int, re.findall(r"^(\d+): tracing +name xcapture", done, re.MULTILINE)))
