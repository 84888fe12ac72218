"""The control channel without a daemon behind it: what one client can do to all others."""

from __future__ import annotations

import fcntl
import json
import math
import os
import resource
import selectors
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from xconnectd.control import client, lock, protocol, server
from xconnectd.control.protocol import Answer, Draft, Request
from xconnectd.control.server import Client, Server
from xconnectd.control.unix_sockets import Peer
from xconnectd.errors import XconnectError

QUESTION = b'{"do": "status"}\n'
DRAFT = {"do": "try", "path": "x.yaml", "text": "links: {}", "timeout": 30}


class Bench:
    """A server whose loop turns when it is told to."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.answer: Callable[[Client, Request], Answer | Iterator[str]] = lambda _, request: {
            "to": request
        }
        self.asked = 0
        self.gone = 0
        self._selector = selectors.DefaultSelector()
        self.server = Server(directory, self._selector, self._answer, self._count_gone)

    def connect(self, name: str = protocol.STATUS) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(self.directory / name))
        client.setblocking(False)
        self.turn()
        return client

    def turn(self) -> bool:
        """Once round the loop; whether there was anything to do."""
        ready = self._selector.select(0)
        for key, _ in ready:
            key.data()
        return bool(ready)

    def settle(self, most: int = 10_000) -> None:
        assert not all(self.turn() for _ in range(most)), "it spins"

    def _answer(self, client: Client, request: Request) -> Answer | Iterator[str]:
        self.asked += 1
        return self.answer(client, request)

    def _count_gone(self, _client: Client) -> None:
        self.gone += 1


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.server.close()


def is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False


def received(client: socket.socket) -> bytes:
    data = b""
    with suppress(BlockingIOError):
        while more := client.recv(1 << 20):
            data += more
    return data


def test_many_questions_at_once_are_answered_one_at_a_time(bench: Bench) -> None:
    with bench.connect() as greedy, bench.connect() as other:
        greedy.sendall(QUESTION * 3000)
        bench.turn()
        assert bench.asked == 1
        other.sendall(b'{"do": "other"}\n')
        bench.turn()
        assert json.loads(received(other)) == {"to": {"do": "other"}}
        answers = b""
        while bench.turn():
            answers += received(greedy)
        assert answers.count(b"\n") == 3000


def test_who_does_not_read_is_answered_no_more(bench: Bench) -> None:
    """And who reads slowly gets every answer whole, though no socket's buffer holds it."""
    whole = json.dumps({"text": "x" * 300_000}).encode() + b"\n"
    bench.answer = lambda *_: json.loads(whole)
    with bench.connect() as silent:
        silent.sendall(QUESTION * 30)
        bench.settle()
        assert bench.asked < 10
        answers = b""
        while more := received(silent):
            answers += more
            bench.settle()
        assert (bench.asked, bench.gone) == (30, 0)
        assert answers == whole * 30


def test_a_long_answer_is_made_as_it_is_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else is served in between, and an event comes behind it."""
    monkeypatch.setattr(server, "_AT_ONCE", 0.0)
    pieces = ['{"text": "', *["x" * 100_000] * 40, "", '"}']
    made = 0

    def answer(client: Client, request: Request) -> Answer | Iterator[str]:
        nonlocal made
        client.wants_events = True
        if request["do"] == "ping":
            return {"made": made}
        return long()

    def long() -> Iterator[str]:
        nonlocal made
        for piece in pieces:
            made += 1
            yield piece

    bench.answer = answer
    with bench.connect() as slow, bench.connect() as other:
        slow.sendall(QUESTION)
        bench.settle()
        assert 0 < made < 10
        other.sendall(b'{"do": "ping"}\n')
        bench.settle()
        assert json.loads(received(other))["made"] == made
        bench.server.publish({"event": "x"})
        told = b""
        while more := received(slow):
            told += more
            bench.settle()
        assert told.decode() == "".join(pieces) + '\n{"event": "x"}\n'
        assert bench.gone == 0


def test_who_does_not_read_events_is_dropped(bench: Bench) -> None:
    bench.answer = lambda client, _: setattr(client, "wants_events", True) or {}
    with bench.connect() as slow:
        slow.sendall(QUESTION)
        bench.settle()
        for _ in range(40):
            bench.server.publish({"text": "x" * 100_000})
        assert bench.gone == 1
        bench.settle()


def test_a_question_in_pieces_and_the_end_behind_it(bench: Bench) -> None:
    with bench.connect() as client:
        client.sendall(QUESTION[:7])
        bench.settle()
        assert bench.asked == 0
        client.sendall(QUESTION[7:] + b"17\n" + QUESTION)
        client.shutdown(socket.SHUT_WR)
        bench.settle()
        assert received(client).count(b"\n") == 3
        assert bench.gone == 1


NONSENSE = [
    *(b"hello", b"", b"\xff", b"[]", b"17", b"null", bytes(range(256)).replace(b"\n", b"")),
    *(piece * 900 for piece in (b"9", b"[", b"{")),
]


@pytest.mark.parametrize("name", [protocol.STATUS, protocol.CONTROL])
@pytest.mark.parametrize("nonsense", NONSENSE, ids=lambda it: str(it[:20]))
def test_who_talks_nonsense_is_told(bench: Bench, nonsense: bytes, name: str) -> None:
    """Who may do may send much of it."""
    with bench.connect(name) as client:
        lines = [nonsense, *([nonsense * 100] * (name == protocol.CONTROL))]
        client.setblocking(True)
        client.sendall(b"\n".join([*lines, QUESTION]))
        client.setblocking(False)
        bench.settle()
        *told, answer = map(json.loads, received(client).splitlines())
        assert [(each["ok"], each["error"][:14]) for each in told] == [
            (False, "not understood") for _ in lines
        ]
        assert answer == {"to": {"do": "status"}}
        assert (bench.asked, bench.gone) == (1, 0)


def test_a_line_without_an_end_is_dropped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_LONGEST_REQUEST", 100_000)
    for before, (name, longest) in enumerate(
        ((protocol.STATUS, 1 << 10), (protocol.CONTROL, 100_000))
    ):
        with bench.connect(name) as client:
            client.sendall(b"x" * longest)
            bench.settle()
            assert bench.gone == before, "not yet"
            client.sendall(b"x")
            bench.settle()
            assert (bench.asked, bench.gone) == (0, before + 1)


def test_the_sockets_are_open_to_root_and_to_the_group(bench: Bench) -> None:
    for name, mode in ((protocol.CONTROL, 0o600), (protocol.STATUS, 0o660)):
        assert (bench.directory / name).stat().st_mode & 0o7777 == mode


def test_who_may_look_keeps_nobody_from_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One user has a quota, and all of them together leave places for root."""
    users = [*[7] * 17, *[8] * 16, *[9] * 16, 10, 0]
    uids = iter(users)
    monkeypatch.setattr(server.unix_sockets, "peer", lambda _: Peer(1, next(uids)))
    with ExitStack() as crowd:
        there = [crowd.enter_context(bench.connect()) for _ in users]
        refused = [user for user, client in zip(users, there, strict=True) if is_closed(client)]
    assert refused == [7, 10]


def test_who_only_sits_there_goes_in_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(client: Client, request: Request) -> Answer:
        client.wants_events = request["do"] == "events"
        return {}

    bench.answer = answer
    with (
        bench.connect() as idle,
        bench.connect() as listening,
        bench.connect("control.sock") as may,
    ):
        listening.sendall(b'{"do": "events"}\n')
        bench.settle()
        bench.server.tick()
        assert bench.gone == 0
        monkeypatch.setattr(server, "_IDLE", 0)
        bench.server.tick()
        assert bench.gone == 1
        assert idle.recv(1) == b""
        for stays in (listening, may):
            stays.sendall(QUESTION)
            bench.settle()
            assert received(stays)


def test_an_accept_that_fails_is_tried_again_later(bench: Bench) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(bench.directory / protocol.STATUS))
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() - 1, before[1]))
        try:
            bench.settle(3)  # it does not spin
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        client.setblocking(False)
        client.sendall(QUESTION)
        bench.server.tick()
        bench.settle()
        assert received(client)


@pytest.mark.parametrize("kind", [KeyError, TypeError, OSError, XconnectError])
def test_what_fails_behind_an_answer_blames_no_client(bench: Bench, kind: type[Exception]) -> None:
    def fail(_client: Client, _request: Request) -> Answer:
        raise kind("the reconciler's")

    bench.answer = fail
    with bench.connect(protocol.CONTROL) as client:
        client.sendall(QUESTION)
        with pytest.raises(kind, match="the reconciler's"):
            bench.settle()
    assert bench.gone == 0


def test_a_look_that_was_refused_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "directory", lambda: tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / protocol.STATUS))
        listener.listen()
        connection = client.Connection(protocol.STATUS, client.HANG_TIMEOUT)
        with connection as daemon, listener.accept()[0] as answering:
            answering.sendall(b'{"ok": false, "error": "no buffer space"}\n')
            with pytest.raises(client.NoDaemonError, match="no buffer space"):
                daemon.status()


ODD: list[dict[str, Any]] = [
    *({"timeout": seconds} for seconds in (math.nan, math.inf, 0, -1, "x", None)),
    *({"text": 1}, {"text": "\ud800"}, {"path": 2}),
]


def test_a_draft_is_what_was_asked_for_and_whole() -> None:
    assert Draft.of(DRAFT) == Draft("x.yaml", b"links: {}", 30)
    assert Draft.of(DRAFT | {"as": "y.yaml"}).instead == "y.yaml"
    assert Draft.of(DRAFT | {"timeout": 10**400}).seconds == 3600
    for odd in ODD:
        with pytest.raises(ValueError, match=r"\w"):
            Draft.of(DRAFT | odd)
    for missing in ("path", "text", "timeout"):
        with pytest.raises(ValueError, match=missing):
            Draft.of({key: value for key, value in DRAFT.items() if key != missing})


def test_a_directory_that_went_comes_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock on one that has no name any more keeps nobody away."""
    place, take = tmp_path / "held", fcntl.flock
    last = [place]

    def flock(held: int, how: int) -> None:
        take(held, how)
        if last:
            last.pop().rmdir()

    monkeypatch.setattr(fcntl, "flock", flock)
    held = lock._hold(place)
    try:
        assert os.path.samestat(os.fstat(held), place.stat())
    finally:
        os.close(held)
