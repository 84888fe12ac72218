"""One ``capture``: from the name of a link to a good end at a signal.

``tap`` receives frames, ``writer`` keeps them; here is found out where, and said what became of
them.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from xconnectd.capture.pcap_filter import Filter
from xconnectd.capture.tap import Capture
from xconnectd.capture.writer import Account, Lines, Pcapng, Place, Recording, Way
from xconnectd.errors import XconnectError
from xconnectd.formatting import counted
from xconnectd.model import Mode
from xconnectd.runtime import Engine
from xconnectd.status import collector
from xconnectd.status.document import StatusDocument, no_such_link

STDOUT: Final = "-"


@dataclass(frozen=True, slots=True)
class Order:
    """What a user asks for.

    ``direction`` is ``a``, ``b`` or ``both``; ``write`` a file for pcapng, ``-`` for stdout, None
    for lines of text on stdout; ``count`` frames are kept (0: any number), ``snaplen`` bytes of
    each, and ``room`` bytes may wait to be written.
    """

    link: str
    expression: str
    direction: str
    write: str | None
    count: int
    snaplen: int
    room: int


def run(order: Order, say: Callable[[str], None]) -> None:
    """Until a signal, the last frame wanted or the end of a reader; ``say`` gets the rest.

    The file is opened last: a request that cannot be met overwrites none.

    Raises FilterError, DataplaneError, PrivilegeError, OSError; XconnectError without such a link.
    """
    judge = Filter(order.expression) if order.expression else None
    with ExitStack() as stack:
        engine = stack.enter_context(Engine.watch())
        link, ways = _chosen(order, collector.report_of(engine, None))
        capture = stack.enter_context(Capture(snaplen=order.snaplen, room=order.room))
        pcapng = order.write is not None
        form = Pcapng(link, ways, capture.snaplen, order.expression) if pcapng else Lines(ways)
        recording = Recording(
            capture,
            ways,
            form,
            output=_output(stack, order.write),
            place=lambda name: _place(engine, name),
            say=say,
            judge=judge,
            count=order.count,
        )
        with _stopped_by_signals(recording.stop):
            if recording.run():
                for way in ways:
                    say(_summary(way, recording.accounts[way.end]))


def _chosen(order: Order, report: StatusDocument) -> tuple[str, list[Way]]:
    """The link's id, and the directions that are asked for; a loopback has one."""
    for link in report.links:
        if order.link in link.names:
            ends = enumerate(link.ways)
            ways = [Way(number, here.name, there.name) for number, (here, there) in ends]
            wanted = {"a": ways[:1], "b": ways[-1:], "both": ways}[order.direction]
            return link.link, wanted
    config = report.config
    text = no_such_link(order.link, config.path, {each.link: each.names for each in report.links})
    if config.state != "loaded":
        text = f"no link {order.link} in {config.path}: it is {config.state}"
    raise XconnectError("\n".join((text, *config.problems)))


def _place(engine: Engine, name: str) -> Place | None:
    """Where frames come in by that name; natively only if through a program of ours."""
    found = engine.interfaces.find(name)
    if not found:
        return None
    (interface,) = found
    native = (xdp.program for xdp in interface.xdp if xdp.mode == Mode.NATIVE)
    return interface.ifindex, next(filter(None, map(engine.program, native)), None)


def _output(stack: ExitStack, path: str | None) -> int:
    if path is None or path == STDOUT:
        return sys.stdout.fileno()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    stack.callback(os.close, file)
    return file


@contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """The first SIGINT or SIGTERM asks for a good end, the second one gets any."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def asked(_number: int, _frame: object) -> None:
        for number in signals:
            signal.signal(number, signal.SIG_DFL)
        stop()

    for number in signals:
        signal.signal(number, asked)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _summary(way: Way, account: Account) -> str:
    tally = account.tally
    advice = " (a larger --buffer or a smaller --snaplen loses fewer)" if tally.lost else ""
    return (
        f"{way}: {counted(tally.received, 'frame')} came in, {account.kept} kept,"
        f" {account.passed_by} did not match, {tally.lost} lost{advice}"
    )
