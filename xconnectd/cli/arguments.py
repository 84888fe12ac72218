"""The options and words of every command.

Imports nothing of a command: to be parsed, or to be helped, needs none of what the command needs.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from xconnectd import __version__
from xconnectd.control import protocol
from xconnectd.formatting import printable
from xconnectd.paths import DEFAULT_CONFIG

_Number = TypeVar("_Number", int, float)

_MOST_ROUNDS: Final = 100
"""A test shares the wire with whoever uses it."""
_LONGEST_FRAME: Final = 65_498
"""Bytes of a frame that ``capture`` can have."""
_MODES: Final = ("auto", "generic", "native", "tc")
_REWRITES: Final = ("none", "swap-macs")
"""As in the model, which takes a third of what `--version` does to be imported."""
_LINK: Final = "a:b (with ends in nodes: n:a,m:b), or one of its ends"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of one command, and in ``module`` which one.

    Ends the process (SystemExit) on wrong usage, with 2, and behind ``--help``.
    """
    line = list(sys.argv[1:] if arguments is None else arguments)
    if line[:1] == ["help"]:  # `help COMMAND` is `COMMAND --help`
        line = [*line[1:], "--help"]
    parser = make_parser(COMMANDS.keys() & line[:1])
    if line and not line[0].startswith("-") and line[0] not in COMMANDS:
        parser.error(_unknown(line[0]))
    # Before Python 3.12.7, argparse does not know the words of a list that follow an option.
    options, rest = parser.parse_known_args(line)
    words = getattr(options, "words", None)
    if rest and (words is None or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if words is not None:
        options.words = [*words, *rest]
    return options


def _unknown(command: str) -> str:
    from difflib import get_close_matches  # 1 ms that only a typo should cost

    near = get_close_matches(command, COMMANDS, 1)
    hint = f"did you mean {near[0]}?" if near else "`xconnectd help` lists them"
    return f"there is no command {command}: {hint}"


class _Parser(argparse.ArgumentParser):
    """Also what is refused may hold the name of a file, which the shell has put there."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def make_parser(names: Collection[str] = ()) -> argparse.ArgumentParser:
    """For these commands, or for all if none is named: 6 ms, where one takes half of one."""
    parser = _Parser(
        prog="xconnectd",
        description="Connects pairs of network interfaces, as a YAML file lists them.",
        epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 the daemon could not start,"
        " 78 bad configuration; plan: 10 for changes.",
    )
    parser.add_argument("--version", action="version", version=f"xconnectd {__version__}")
    add = _Adder(parser.add_subparsers(title="commands", required=True, metavar="COMMAND"))
    for name in names or COMMANDS:
        COMMANDS[name](add)
    return parser


def _run(add: _Adder) -> None:
    run = add("run", "run the daemon in the foreground", "run -c lab.yaml --log-format json")
    _config(run)
    _host(run)
    run.add_argument(
        "--strict", action="store_true", help="if the file is bad, exit with 78 and change nothing"
    )
    run.add_argument(
        "--log-format",
        choices=("console", "json"),
        help="default: console on a terminal, else json",
    )
    run.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    run.add_argument(
        "--on-exit",
        choices=("detach", "keep"),
        default="detach",
        help="keep: leave the wires in place for the next start",
    )


def _check(add: _Adder) -> None:
    check = add("check", "check a file for mistakes; - is standard input", "check lab.yaml")
    check.add_argument("file", nargs="?", **_file_or_directory(DEFAULT_CONFIG))
    check.add_argument(
        "--here",
        action="store_true",
        help="also name interfaces and nodes that do not exist on this machine; exit 1 if any",
    )
    _host(check)


def _plan(add: _Adder) -> None:
    plan = add(
        "plan", "show what a reload would change, and change nothing", "plan lab.yaml --json"
    )
    plan.add_argument("file", nargs="?", **_file_or_directory(None))
    _instead(plan)
    plan.add_argument(
        "-v", "--verbose", action="store_true", help="every step instead of a line per link"
    )
    _host(plan)
    _json(plan)


def _try(add: _Adder) -> None:
    attempt = add(
        "try",
        "apply a file, and revert it unless confirmed in time",
        "try draft.yaml",
        module="trial",
    )
    attempt.add_argument("file", type=Path, metavar="FILE")
    _instead(attempt)
    attempt.add_argument("--yes", action="store_true", help="keep it without asking")
    attempt.add_argument(
        "--timeout",
        type=_number(float, "a number of seconds", 0.1, protocol.LONGEST_TRY),
        default=30.0,
        metavar="SECONDS",
        help=f"time to confirm; default: 30, at most {protocol.LONGEST_TRY}",
    )


def _reload(add: _Adder) -> None:
    add("reload", "make the daemon read its files now, and wait for the result", "reload")


def _impair(add: _Adder) -> None:
    impair = add(
        "impair",
        "impair a link for a while: delay, loss, rate … as in the file, in place of what that says",
        "impair leaf1-eth1 delay=50ms loss=1% --for 60s",
    )
    impair.add_argument("link", metavar="LINK", help="a:b, or one of its ends")
    _words(impair, "KEY=VALUE", "what its frames meet, as below impair: in the file")
    way = impair.add_mutually_exclusive_group()
    for direction, meaning in (
        ("forward", "from the first end of its line to the other"),
        ("reverse", "the other way"),
    ):
        way.add_argument(
            f"--{direction}",
            dest="direction",
            action="store_const",
            const=direction,
            default="",
            help=f"only frames {meaning}",
        )
    impair.add_argument(
        "--for",
        dest="seconds",
        type=_duration,
        metavar="TIME",
        help="end it after so long: 60s, 5m, 2h; default: when it is cleared",
    )
    impair.add_argument("--clear", action="store_true", help="end it: as the file says again")


def _duration(text: str) -> float:
    """Seconds, of an impairment."""
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    with suppress(ValueError):
        seconds = float(number) * unit
        if 0.1 <= seconds <= protocol.LONGEST_IMPAIRMENT:
            return seconds
    most = protocol.LONGEST_IMPAIRMENT // units["h"]
    raise argparse.ArgumentTypeError(f"{text} is not a time such as 60s, 5m or 2h, up to {most}h")


def _link(add: _Adder) -> None:
    link = add(
        "link",
        "add, remove, enable, disable or move one link of the file",
        "link move leaf1-eth1 leaf2-eth1 --try 30",
    )
    actions = _Adder(link.add_subparsers(title="actions", required=True, metavar="ACTION"), "link")
    new = actions("add", "add a link", "add leaf1-eth1 spine1-eth1 --mode tc")
    new.add_argument("a", metavar="A", help="an interface, or NODE:INTERFACE")
    new.add_argument("b", metavar="B", help="what it is connected to")
    new.add_argument("--mode", choices=_MODES)
    new.add_argument("--one-way", action="store_true", help="frames go only from A to B")
    new.add_argument(
        "--mtu",
        type=_number(int, "a whole number", 1),
        metavar="BYTES",
        help="of what is made in nodes; default: that of the file",
    )
    new.add_argument("--rewrite", choices=_REWRITES)
    new.add_argument("--description", metavar="TEXT")
    gone = actions("remove", "remove a link", "remove leaf1-eth1:spine1-eth1")
    on = actions("enable", "enable a link", "enable leaf1-eth1")
    off = actions("disable", "disable a link; its line stays", "disable leaf1-eth1")
    for each in (gone, on, off):
        each.add_argument("link", metavar="LINK", help=_LINK)
    move = actions("move", "replace one end of a link by another", "move spine1-eth1 spine2-eth1")
    move.add_argument("link", metavar="END", help="the end to replace")
    move.add_argument("new", metavar="NEW-END", help="the end to use instead")
    for each in (new, gone, on, off, move):
        _config(each)
        each.add_argument(
            "--try",
            dest="seconds",
            type=_number(float, "a number of seconds", 0.1, protocol.LONGEST_TRY),
            metavar="SECONDS",
            help="ask, and revert the change unless confirmed in time",
        )


def _status(add: _Adder) -> None:
    status = add(
        "status", "show every link: state, mode, rates, drops, reason", "status --sort rate"
    )
    _words(status, "LINK", f"{_LINK}; default: every link")
    _config(status, None)
    _host(status)
    _json(status, "one JSON document; with --watch one per second, each on a line")
    status.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="everything about each link: ends, counters, remedies",
    )
    status.add_argument(
        "--watch",
        action="store_true",
        help="keep the table up to date; in a pipe: lines every second",
    )
    status.add_argument(
        "--sort",
        choices=("state", "name", "rate", "drops"),
        help="default: state, problems first",
    )
    status.add_argument(
        "--filter",
        metavar="TEXT",
        help="only links that contain all these words; state:down selects a state",
    )
    status.add_argument(
        "--check", action="store_true", help="exit 1 unless every enabled link is connected"
    )
    status.add_argument(
        "--health",
        action="store_true",
        help="exit 1 unless the daemon answers, its files are good and no link has failed",
    )


def _graph(add: _Adder) -> None:
    graph = add("graph", "draw the wiring", "graph --format svg > wiring.svg")
    _config(graph, None)
    _host(graph)
    graph.add_argument("--format", choices=("mermaid", "dot", "svg"), default="mermaid")


def _wait(add: _Adder) -> None:
    wait = add("wait", "wait until links are connected", "wait --timeout 10 eth0:tap0")
    _config(wait, None)
    _host(wait)
    wait.add_argument(
        "--timeout",
        type=_number(float, "a number of seconds", 0),
        default=60.0,
        metavar="SECONDS",
        help="default: 60",
    )
    _words(wait, "LINK", "default: every enabled link")


def _events(add: _Adder) -> None:
    events = add("events", "follow the daemon's events, one line each", "events --json")
    _json(events, "one JSON document per line")


def _test(add: _Adder) -> None:
    test = add(
        "test", "send test frames through a link, and say where they are lost", "test eth0:tap0"
    )
    test.add_argument("link", metavar="LINK", help=_LINK)
    _config(test, None)
    _host(test)
    _json(test)
    test.add_argument(
        "--count",
        type=_number(int, "a whole number", 1, _MOST_ROUNDS),
        default=20,
        metavar="N",
        help=f"frames per size and direction; default: 20, at most {_MOST_ROUNDS}",
    )


def _doctor(add: _Adder) -> None:
    doctor = add(
        "doctor", "check the host and all links, with a fix for each problem", "doctor --json"
    )
    _config(doctor, None)
    _host(doctor)
    _json(doctor)


def _capture(add: _Adder) -> None:
    capture = add(
        "capture", "show or save the frames of links, live (root)", "capture leaf1-eth1 icmp or arp"
    )
    capture.add_argument("link", metavar="LINK", help=_LINK)
    _words(
        capture,
        "LINK|FILTER",
        "more links, then a filter as for tcpdump",
    )
    _host(capture)
    form = capture.add_mutually_exclusive_group()
    form.add_argument(
        "-w",
        "--write",
        metavar="FILE",
        help="write pcapng instead of lines of text; -: to stdout",
    )
    form.add_argument(
        "--plain", action="store_true", help="do not use tcpdump: print length, addresses and type"
    )
    capture.add_argument(
        "--direction",
        choices=("a", "b", "both"),
        default="both",
        help="only frames that arrive at the link's first end (a) or second (b)",
    )
    positive = _number(int, "a whole number", 1)
    capture.add_argument(
        "--count", type=positive, default=0, metavar="N", help="stop after N frames"
    )
    capture.add_argument(
        "--snaplen",
        type=_number(int, "a whole number", 1, _LONGEST_FRAME),
        default=_LONGEST_FRAME,
        metavar="N",
        help=f"bytes to keep of each frame; default: all, at most {_LONGEST_FRAME}",
    )
    capture.add_argument(
        "--buffer",
        type=positive,
        default=64,
        metavar="MIB",
        help="memory for frames not yet written; default: 64",
    )


def _detach(add: _Adder) -> None:
    detach = add(
        "detach",
        "remove all xconnectd programs and restore the interfaces (no daemon may run)",
        "detach --all",
    )
    detach.add_argument("--all", action="store_true", help="from every interface")
    _words(detach, "IFACE", "the interfaces to detach from")


def _import(add: _Adder) -> None:
    topology = add(
        "import",
        "print a wiring made from a containerlab topology; - is standard input",
        "import lab.clab.yml > lab.yaml",
        module="topology",
    )
    topology.add_argument("file", type=Path, metavar="TOPOLOGY")


def _schema(add: _Adder) -> None:
    add("schema", "print the JSON Schema of the file, for editors", "schema > xconnect.schema.json")


def _version(add: _Adder) -> None:
    _json(add("version", "print the versions of xconnectd, kernel, bcc and pyroute2", "version"))


COMMANDS: Final[Mapping[str, Callable[[_Adder], None]]] = {
    "run": _run,
    "check": _check,
    "plan": _plan,
    "try": _try,
    "link": _link,
    "impair": _impair,
    "reload": _reload,
    "status": _status,
    "graph": _graph,
    "wait": _wait,
    "events": _events,
    "test": _test,
    "doctor": _doctor,
    "capture": _capture,
    "detach": _detach,
    "import": _import,
    "schema": _schema,
    "version": _version,
}
"""In the order in which they are helped."""


class _Adder:
    """Adds commands that all come with an example; ``module`` is the one of this package to run."""

    def __init__(self, commands: Any, of: str = "") -> None:
        self._commands = commands
        self._of = of

    def __call__(
        self, name: str, purpose: str, example: str, module: str = ""
    ) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = self._commands.add_parser(
            name,
            help=purpose,
            description=purpose,
            epilog=f"example: {' '.join(filter(None, ('xconnectd', self._of, example)))}",
        )
        parser.set_defaults(module=module or self._of or name, action=name)
        return parser


def _words(parser: argparse.ArgumentParser, what: str, help_: str) -> None:
    """A list without an option, of any length."""
    parser.add_argument("words", nargs="*", metavar=what, help=help_)


def _config(parser: argparse.ArgumentParser, default: Path | None = DEFAULT_CONFIG) -> None:
    """Absolute: so it is told by the daemon, and by whoever looks where it looks."""
    form = _file_or_directory(default) | {"type": lambda text: Path(text).absolute()}
    parser.add_argument("-c", "--config", default=default, **form)


def _host(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host",
        default="",
        metavar="NAME",
        help="which of the file's `hosts` this one is; default: XCONNECTD_HOST, else by its"
        " addresses, else by its name",
    )


def _file_or_directory(default: Path | None) -> dict[str, Any]:
    text = f"default: {default or 'that of the daemon'}; a directory stands for its *.yaml"
    return {"type": Path, "metavar": "FILE|DIR", "help": text}


def _instead(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--as",
        dest="instead",
        default="",
        metavar="NAME",
        help="the file in the daemon's directory that it replaces; default: the same name",
    )


def _json(parser: argparse.ArgumentParser, form: str = "one JSON document") -> None:
    parser.add_argument("--json", action="store_true", help=form)


def _number(
    kind: type[_Number], what: str, least: float, most: float = math.inf
) -> Callable[[str], _Number]:
    """The type of an option that is a finite number in these bounds."""
    bounds = f"from {least:g} on" if most == math.inf else f"from {least:g} to {most:g}"

    def read(text: str) -> _Number:
        with suppress(ValueError):
            value = kind(text)
            if least <= value <= most and value != math.inf:
                return value
        raise argparse.ArgumentTypeError(f"{text} is not {what} {bounds}")

    return read
