"""One ``capture``: from the names of links to a good end at a signal.

``tap`` receives frames, ``recording`` keeps them, ``tcpdump`` puts them into words; here is found
out where, and said what became of them.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from xconnectd import pcap_filter
from xconnectd.capture import tcpdump
from xconnectd.capture.forms import Account, Form, Lines, Pcapng, Way
from xconnectd.capture.recording import Filter, Place, Recording
from xconnectd.capture.tap import Capture
from xconnectd.capture.tcpdump import Decoded
from xconnectd.errors import XconnectError
from xconnectd.formatting import counted
from xconnectd.model import Interface, Mode, Scope
from xconnectd.pcap_filter import FilterError
from xconnectd.runtime import Engine
from xconnectd.status import collector, daemons_report
from xconnectd.status.document import End, Link, StatusDocument, no_such_link
from xconnectd.tunnels import keepalive

STDOUT: Final = "-"
_TYPE: Final = 12
"""Where a frame has its ethertype."""
_KEEPALIVE: Final = keepalive.ETHERTYPE.to_bytes(2, "big") + keepalive.MAGIC


@dataclass(frozen=True, slots=True)
class Order:
    """What a user asks for.

    The leading ones of ``words`` that name links are the links, the others a filter. ``direction``
    is ``a``, ``b`` or ``both``; ``write`` a file for pcapng, ``-`` for stdout, None for lines of
    text on stdout, ``plain`` ones without tcpdump; ``count`` frames are kept (0: any number),
    ``snaplen`` bytes of each, and ``room`` bytes may wait to be written.
    """

    words: Sequence[str]
    direction: str
    write: str | None
    plain: bool
    count: int
    snaplen: int
    room: int


def run(order: Order, say: Callable[[str], None]) -> None:
    """Until a signal, the last frame wanted or the end of a reader; ``say`` gets the rest.

    The file is opened last: a request that cannot be met overwrites none.

    Raises FilterError, DataplaneError, PrivilegeError, OSError; XconnectError without such a link.
    """
    with ExitStack() as stack:
        engine = stack.enter_context(Engine.watch())
        report = collector.report_of(engine, None, daemons_report.ask())
        links, rest = _asked(order.words, report)
        ends = {end.name: end for link in links for end in link.ends}
        filter_: Filter | None = _filter(rest, report.config.path) if rest else None
        if any(link.peer for link in links):
            filter_ = _of_the_wire(filter_)
        ways = _ways(links, order.direction)
        capture = stack.enter_context(
            Capture(ends=len(ways), snaplen=order.snaplen, room=order.room)
        )
        form, output = _form(order, ways, capture.snaplen, " ".join(rest), stack)
        decoded = form if isinstance(form, Decoded) else None
        recording = Recording(
            capture,
            ways,
            form,
            output=output,
            reader=sys.stdout.fileno() if decoded else None,
            place=lambda name: _place(engine, ends[name]),
            say=say,
            filter_=filter_,
            count=order.count,
        )
        with _stopped_by_signals(recording.stop):
            whole = recording.run()
            if decoded:
                decoded.finish()
            for way in ways if whole else ():
                say(_summary(way, recording.accounts[way.end]))


def _form(
    order: Order, ways: Sequence[Way], snaplen: int, words: str, stack: ExitStack
) -> tuple[Form, int]:
    """How frames are written, and the descriptor to write to, open until ``stack`` unwinds.

    ``words`` are those of the filter.
    """
    stdout = sys.stdout.fileno()
    if order.write is not None:
        return Pcapng(ways, snaplen, words), _output(stack, order.write)
    if (program := tcpdump.found()) and not order.plain:
        decoded = stack.enter_context(Decoded(program, ways, snaplen, stdout))
        return decoded, decoded.stdin
    return Lines(ways), stdout


def _asked(words: Sequence[str], report: StatusDocument) -> tuple[list[Link], Sequence[str]]:
    """The links that the leading words name, each of them once, and the words that follow."""
    called = {name: link for link in report.links for name in link.names}
    names = list(takewhile(called.__contains__, words))
    if names:
        return list({called[name].link: called[name] for name in names}.values()), words[
            len(names) :
        ]
    config = report.config
    text = no_such_link(words[0], config.path, {each.link: each.names for each in report.links})
    if config.state != "loaded":
        text = f"no link {words[0]} in {config.path}: it is {config.state}"
    raise XconnectError("\n".join((text, *config.problems)))


def _filter(words: Sequence[str], path: str) -> Filter:
    """Its first word may have been meant for a link."""
    try:
        return pcap_filter.Filter(" ".join(words))
    except FilterError as error:
        raise FilterError(f"{error} (and {path} has no link {words[0]})") from error


def _of_the_wire(filter_: Filter | None) -> Filter:
    """Refuses also what the daemons of two hosts say to each other through a tunnel."""

    def is_wanted(data: bytes, length: int) -> bool:
        is_keepalive = data[_TYPE : _TYPE + len(_KEEPALIVE)] == _KEEPALIVE
        return not is_keepalive and (filter_ is None or filter_(data, length))

    return is_wanted


def _ways(links: Sequence[Link], direction: str) -> list[Way]:
    """The directions that are asked for, numbered; a loopback has one."""
    chosen = {"a": slice(1), "b": slice(-1, None), "both": slice(None)}[direction]
    found = [(link.link, *way) for link in links for way in link.ways[chosen]]
    return [
        Way(number, link, here.name, there.name) for number, (link, here, there) in enumerate(found)
    ]


def _place(engine: Engine, end: End) -> Place | None:
    """Where frames come in by an end; natively only if through a program of ours."""
    name = end.host_interface if end.node or end.host else end.name
    found = engine.interfaces.find(name) if name else ()
    interface = next(iter(found), None) or _elsewhere(engine, end)
    if interface is None:
        return None
    native = (xdp.program for xdp in interface.xdp if xdp.mode == Mode.NATIVE)
    return interface.ifindex, next(filter(None, map(engine.program, native)), None)


def _elsewhere(engine: Engine, end: End) -> Interface | None:
    """What an end in a node or on a host is by now, if it is another interface than it was."""
    for link in engine.reconciler.wiring.links:
        for each in link.ends:
            if (each.node or each.host) and each.text == end.name:
                return engine.reconciler.look(Scope(frozenset([link]))).observed.find(each)
    return None


def _output(stack: ExitStack, path: str) -> int:
    if path == STDOUT:
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
        f"{way}: {counted(tally.received, 'frame')} received, {account.kept} captured,"
        f" {account.filtered_out} filtered out, {tally.lost} lost{advice}"
    )
