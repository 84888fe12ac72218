"""Commands of ``xconnectd`` in this process, beside a daemon on the fake kernel.

Sockets, files, stdin and stdout are real; what a command sees of the kernel is the fake one.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, NamedTuple, Self, TypeVar

import pytest
from driven import Runtime, Site

from xconnectd.cli.main import main
from xconnectd.errors import PrivilegeError
from xconnectd.events import logger
from xconnectd.runtime import Engine

T = TypeVar("T")
PATIENCE = 60.0


class Looking(Runtime):
    """What ``Engine.watch`` gives a command. A context manager."""

    unseen = ""

    def __init__(self, site: Site) -> None:
        super().__init__(site.kernel, site.keeper.book, logger())
        self.ledger: Any = SimpleNamespace(config=lambda: site.file, host=str)
        self.told = self.tunnels.told

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return


class Talk:
    """The other ends of a command's stdin and stdout."""

    def __init__(self) -> None:
        self.stdin, self._typed = os.pipe()
        self._printed, self.stdout = os.pipe()
        self.text = ""

    def type(self, text: str) -> None:
        os.write(self._typed, text.encode())

    def end_input(self) -> None:
        self._typed = _closed(self._typed)

    def end_output(self) -> None:
        """As ``head`` does that has seen enough."""
        self._printed = _closed(self._printed)

    def read(self) -> bool:
        """Waits for more; False at the end."""
        assert select.select([self._printed], [], [], PATIENCE)[0], self.text
        more = os.read(self._printed, 1 << 16)
        self.text += more.decode()
        return bool(more)

    def until(self, words: str, times: int = 1) -> None:
        while self.text.count(words) < times:
            assert self.read(), f"{words!r} is not in {self.text!r}"

    def close(self) -> None:
        self.end_input()
        self.end_output()


def _closed(descriptor: int) -> int:
    if descriptor >= 0:
        os.close(descriptor)
    return -1


class Done(NamedTuple):
    code: int
    out: str
    err: str


Script = Callable[[Talk], object]
"""What somebody does beside a command that runs."""


class Commands:
    """Runs them while the daemon's loop turns in a thread. A context manager.

    What they print to stderr is taken from ``capsys``.
    """

    def __init__(
        self, site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.site = site
        self._capsys = capsys
        self._monkeypatch = monkeypatch
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._is_left = threading.Event()
        self._thread = threading.Thread(target=self._turn)
        self.looks = 0
        """How often a command has looked at the kernel."""
        monkeypatch.setattr(Engine, "watch", self._look)

    def _look(self) -> Looking:
        self.looks += 1
        return Looking(self.site)

    def only_ask(self) -> None:
        """From here on nobody may read the kernel: the daemon has to be asked."""

        def refuse() -> Looking:
            raise PrivilegeError("CAP_BPF", "to read the maps")

        self._monkeypatch.setattr(Engine, "watch", refuse)

    def __call__(self, line: str, *more: object, script: Script = Talk.end_input) -> Done:
        """``more`` are words, too; ``script`` is what is done meanwhile."""
        talk = Talk()
        words = [*line.split(), *map(str, more)]
        with ThreadPoolExecutor(1) as beside, self._monkeypatch.context() as patch:
            with open(talk.stdin) as stdin, open(talk.stdout, "w") as stdout:  # noqa: PTH123
                patch.setattr(sys, "stdin", stdin)
                patch.setattr(sys, "stdout", stdout)
                doing = beside.submit(_watched, script, talk)
                code = main(words)
            try:
                doing.result(PATIENCE)
            finally:
                talk.close()
        return Done(code, talk.text, self._capsys.readouterr().err)

    def do(self, call: Callable[[], T]) -> T:
        """Has the daemon's thread call this between two turns; returns what that returned."""
        outcome: Future[T] = Future()
        self._calls.put((call, outcome))
        return outcome.result(PATIENCE)

    def save(self, text: str) -> None:
        self.do(lambda: self.site.save(text))

    def settle(self) -> None:
        """Lets it take notice of a client that has gone."""
        self.do(self.site.keeper.step)

    def kill_daemon(self) -> None:
        """Its clients lose it, and nothing is put back."""
        self._is_left.set()
        self._thread.join()
        self.site.keeper.daemon._server.close()

    def _turn(self) -> None:
        while not self._is_left.wait(0.001):
            while not self._calls.empty():
                call, outcome = self._calls.get()
                try:
                    outcome.set_result(call())
                except BaseException as error:  # noqa: BLE001 - for who waits for it
                    outcome.set_exception(error)
            self.site.keeper.step()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_daemon()
        self.site.keeper.daemon.stop()


def _watched(script: Script, talk: Talk) -> None:
    """Then reads on, so that no command waits for a reader; one that failed lets it end."""
    try:
        script(talk)
    except BaseException:
        talk.close()
        raise
    with suppress(ValueError, OSError):  # the script has ended it
        while talk.read():
            pass
