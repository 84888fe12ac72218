"""A rewire without xconnectd: its own requests and map writes, sent back to back by a bare loop.

``python -m tests.bench.replay FILE WIRING WIRING``, in a network namespace, has the daemon's engine
rewire from one wiring to the other and back, and notes what it asks of the kernel, system call by
system call. Then it waits for FILE to be replaced by one of the two and plays what led there: the
changes alone, or after a first line ``# looks`` the questions too. So it shows how much of a rewire
is the kernel's, and the save's and the wake's; nothing is parsed, planned, recorded or logged.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from tests.netns.service import Daemon
from xconnectd import events, runtime
from xconnectd.config import parser
from xconnectd.dataplane.libbpf import Map

LOOKS: Final = "# looks\n"
_IN_MOVED_TO: Final = 0x80
_NLMSG_ERROR: Final = 2
_TYPE: Final = struct.Struct("=4xH10xi")  # of struct nlmsghdr, and the errno behind it
_GET: Final = 2
"""Of rtnetlink's four kinds of message (new, delete, get, set) by the last bits of its type."""


class Replay(Daemon):
    """The process, seen from the one that measures; it takes the same file as a daemon."""

    def __init__(self, lab: Any, wirings: Sequence[str]) -> None:
        super().__init__(lab, wirings[0])
        self._wirings = wirings

    def _command(self, *_: str) -> list[str]:
        *enter, _package = super()._command()
        return [*enter, __spec__.name, str(self.config), *self._wirings]


class _Call(NamedTuple):
    """One system call, or the few of one map operation, and what came of it."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    result: Any
    is_change: bool


class _Recorder:
    """Stands in for the socket of a ``Route`` and notes what goes through it; maps tell it too."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._is_change = False
        self.calls: list[_Call] = []

    def send(self, data: bytes) -> int:
        self._is_change = _TYPE.unpack_from(data.ljust(_TYPE.size))[0] % 4 != _GET
        return int(self.note(self._socket.send, (bytes(data),), is_change=self._is_change))

    def recv(self, size: int) -> bytes:
        return bytes(self.note(self._socket.recv, (size,), is_change=self._is_change))

    def close(self) -> None:
        self._socket.close()

    def note(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], *, is_change: bool
    ) -> Any:
        result = function(*arguments)
        self.calls.append(_Call(function, arguments, result, is_change))
        return result

    @contextmanager
    def of_maps(self) -> Iterator[Self]:
        """Within it what is done to maps is noted."""
        plain = {name: getattr(Map, name) for name in ("set", "create", "delete", "among")}

        def noted(name: str) -> Callable[..., Any]:
            return lambda *arguments: self.note(plain[name], arguments, is_change=name != "among")

        for name in plain:
            setattr(Map, name, noted(name))
        try:
            yield self
        finally:
            for name, function in plain.items():
                setattr(Map, name, function)


class _Way(NamedTuple):
    """What leads to a wiring: until frames are forwarded both ways, and after it."""

    looks: list[_Call]
    changes: list[_Call]
    rest: list[_Call]

    @classmethod
    def of(cls, calls: Sequence[_Call]) -> Self:
        """The last entry that is written is the other direction's."""
        end = 1 + max(at for at, call in enumerate(calls) if call.function.__name__ == "set")
        rest = [call for call in calls[end:] if call.is_change]
        return cls([*calls[:end]], [call for call in calls[:end] if call.is_change], rest)


def main(file: Path, wirings: Sequence[str]) -> None:
    with runtime.Engine.take(events.logger()) as engine:
        ways = _ways(engine, wirings)
        heard = _inotify(file.parent)
        print(json.dumps({"event": "daemon.ready"}), flush=True)
        while True:
            _await(heard, file.name)
            text = file.read_text()
            looks, changes, rest = ways[text.removeprefix(LOOKS)]
            calls = looks if text.startswith(LOOKS) else changes
            answers = _play(calls)
            _play(rest)
            _compare(calls, answers)


def _play(calls: Sequence[_Call]) -> list[Any]:
    return [function(*arguments) for function, arguments, _, _ in calls]


def _compare(calls: Sequence[_Call], answers: Sequence[Any]) -> None:
    """The kernel must have answered as it did the first time, or nothing was measured."""
    for call, answer in zip(calls, answers, strict=True):
        assert _refusal(answer) == _refusal(call.result), (call, answer)


def _ways(engine: runtime.Engine, wirings: Sequence[str]) -> dict[str, _Way]:
    """By wiring; the first time that an end is taken more is done than ever after."""
    engine.host_use.track_stacked()  # as a daemon does, else each look dumps all links
    reconciler = engine.reconciler
    reconciler.want(parser.parse(wirings[0].encode(), "first"))
    reconciler.resync(events.Trigger.START)
    route = engine.interfaces._route
    recorder = _Recorder(route._socket)
    route._socket = recorder  # type: ignore[assignment]
    ways = {}
    for text in (*wirings[1:], wirings[0]) * 2:
        recorder.calls = []
        with recorder.of_maps():
            reconciler.run(
                reconciler.want(parser.parse(text.encode(), "next")), events.Trigger.CONFIG
            )
        ways[text] = _Way.of(recorder.calls)
    return ways


def _refusal(result: Any) -> int:
    """The errno that a request is answered with; 0 of everything else."""
    if not isinstance(result, bytes) or len(result) < _TYPE.size:
        return 0
    kind, code = _TYPE.unpack_from(result)
    return int(code) if kind == _NLMSG_ERROR else 0


def _inotify(directory: Path) -> int:
    libc = ctypes.CDLL(None)
    heard: int = libc.inotify_init()
    assert libc.inotify_add_watch(heard, os.fsencode(directory), _IN_MOVED_TO) >= 0
    return heard


def _await(heard: int, name: str) -> None:
    while os.fsencode(name) not in os.read(heard, 4096):
        pass


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
