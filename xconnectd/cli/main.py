"""Arguments in, one call, a result printed, an exit code out.

Everything that needs root, bcc or a kernel is imported by the command that uses it, so that
``check`` and ``schema`` run anywhere.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import select
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from enum import IntEnum
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TextIO, TypeVar

from xconnectd.config import source
from xconnectd.config.source import Files, Reading
from xconnectd.control import client, protocol
from xconnectd.daemon import systemd
from xconnectd.errors import (
    BusyError,
    ConfigError,
    DataplaneError,
    HiddenError,
    PrivilegeError,
    Problem,
    XconnectError,
)
from xconnectd.formatting import counted, printable
from xconnectd.model import Place

if TYPE_CHECKING:
    from xconnectd.control.try_client import Trial
    from xconnectd.runtime import Engine
    from xconnectd.status.collector import Looks
    from xconnectd.status.table import View

_Number = TypeVar("_Number", int, float)

_POLL: Final = 0.1
_MOST_ROUNDS: Final = 100
"""A test shares the wire with whoever uses it."""
_LONGEST_FRAME: Final = 65_498
"""Bytes of a frame that ``capture`` can have."""
_INTERVAL: Final = 1.0
"""Seconds between two looks of ``status --watch``."""


class Exit(IntEnum):
    """What the exit code of every command means."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_STARTED = 3
    CHANGES = 10
    BAD_CONFIG = 78


def main(arguments: Sequence[str] | None = None) -> int:
    code: int = Exit.DONE
    try:
        try:
            options = _parsed(arguments)
            if options.command is _run or getattr(options, "check", False):
                code = Exit.FAILED  # cut short, neither has shown that all is well
            code = options.command(options)
        finally:
            print(end="", flush=True)
    except BrokenPipeError:  # `| head` is no failure; Python would complain again at its own end
        _give_up(sys.stdout)
    except ConfigError as error:
        _print(*error.problems, file=sys.stderr)
        return Exit.BAD_CONFIG
    except (XconnectError, OSError) as error:
        _say(_in_words(error))
        return Exit.FAILED
    except KeyboardInterrupt:
        return Exit.FAILED
    finally:
        try:
            sys.stderr.flush()
        except OSError:  # a log that cannot be written; Python would end with code 120 for it
            _give_up(sys.stderr)
    return code


def _give_up(stream: TextIO) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _in_words(error: Exception) -> str:
    """With the way out for who forgot `sudo`."""
    if os.geteuid() == 0 or not isinstance(error, PermissionError | PrivilegeError):
        return str(error)
    told = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
    return f"{told}; only root may: sudo {shlex.join(['xconnectd', *sys.argv[1:]])}"


# --------------------------------------------------------------------------- commands


def _run(options: argparse.Namespace) -> int:
    gc.disable()  # until the daemon is ready: a start makes no garbage, but takes a tenth longer
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's may be lost in one of the imports
    from xconnectd import events
    from xconnectd.daemon.daemon import SIGNALS, Daemon, OnExit
    from xconnectd.daemon.systemd import Watchdog
    from xconnectd.runtime import Engine

    tap = events.Tap()
    journal = systemd.is_journal(sys.stderr)
    logger = events.setup(options.log_format, options.log_level, tap=tap, journal=journal)
    if options.strict:
        _demand_good(options.config)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # a start is finished, then undone
    try:
        engine = Engine.take(logger, Watchdog())
    except (BusyError, DataplaneError, PrivilegeError, OSError) as error:
        _say(f"cannot start: {_in_words(error)}")
        return Exit.NOT_STARTED
    with engine:
        try:
            daemon = Daemon(options.config, engine, logger, tap, on_exit=OnExit(options.on_exit))
        except OSError as error:
            if not engine.ledger.is_needed():  # a start that fails leaves nothing behind
                engine.remove()
            _say(f"cannot start: {error}")
            return Exit.NOT_STARTED
        daemon.run()
        return Exit.DONE if daemon.stop() else Exit.FAILED


def _demand_good(path: Path) -> None:
    problems = Files(path).read().problems
    if problems:
        raise ConfigError(problems)


def _check(options: argparse.Namespace) -> int:
    path: Path = options.file or source.DEFAULT
    named = Files(path)
    reading = named.judge()
    _print(*reading.problems, *reading.wiring.warnings)
    if reading.problems:
        return Exit.BAD_CONFIG
    _print(f"{path}: good, {counted(len(reading.wiring.links), 'link')}")
    absent = _absent_here(named) if options.here else []
    _print(*absent)
    return Exit.FAILED if absent else Exit.DONE


def _absent_here(source: Files) -> list[Problem]:
    """The ends that do not exist on this machine now."""
    from xconnectd import spelling
    from xconnectd.netlink.interfaces import Links

    with closing(Links()) as links:
        here = {name for each in links.all().values() for name in (each.name, *each.altnames)}
    pairs = [(path, link) for path, wiring in source.good.items() for link in wiring.links]
    named = {end.name for _, link in pairs for end in link.ends}
    near = spelling.meant(named - here, here - named)
    return [
        Problem(
            str(path),
            *(link.place or Place(1, 1)),
            f"{end} does not exist here now",
            f"did you mean {near[end.name]}?" if end.name in near else "",
        )
        for path, link in pairs
        for end in link.ends
        if end.name not in here
    ]


def _plan(options: argparse.Namespace) -> int:
    from xconnectd.reconcile.actions import as_json
    from xconnectd.runtime import Engine
    from xconnectd.status import collector

    with Engine.watch() as engine:
        reading = _planned(engine, options.file, options.instead)
        if reading.problems:
            raise ConfigError(reading.problems)
        seen = collector.seen(engine, reading)
    actions = as_json(seen.actions)
    for each in seen.evaluations:
        if each.waiting:
            _say(f"{each.link.id} will wait: {'; '.join(filter(None, (each.waiting, each.hint)))}")
    if options.json:
        print(json.dumps(actions, indent=2))
    else:
        _print(*(f"{each['interface']}: {each['action']} ({each['reason']})" for each in actions))
        print(counted(len(actions), "change"))
    return Exit.CHANGES if actions else Exit.DONE


def _planned(engine: Engine, file: Path | None, instead: str) -> Reading:
    """What the daemon would read; in place of one file of its directory, the others stay."""
    from xconnectd.config import reader
    from xconnectd.status import collector

    daemons = collector.file_of(engine)
    if file is None or file.is_dir() or not daemons.is_dir():
        return Files(file or daemons).read()
    source = Files(daemons)
    source.read_first(engine.reconciler.found)
    data = reader.read(str(file)).checked().data
    return source.imagine(str(file), data, instead)[1]


def _status(options: argparse.Namespace) -> int:
    if contradiction := _contradiction(options):
        _say(contradiction)
        return Exit.USAGE
    if options.health:
        return _health()
    from xconnectd.status import collector, text

    if options.watch:
        return _watch(collector.Looks(options.config, options.words), options)
    report = collector.sampled(options.config, options.words)
    if options.json:
        print(json.dumps(report))
    else:
        _print(*text.lines(report))
    healthy = all(each["state"] == "connected" for each in report["links"] if each["enabled"])
    return Exit.FAILED if options.check and not (healthy and _usable(report)) else Exit.DONE


def _contradiction(options: argparse.Namespace) -> str:
    """Why these options of ``status`` do not go together; empty if they do."""
    table = options.sort or options.filter
    if options.health and any(
        (*(options.words, options.config, options.json, options.watch, options.check, table),)
    ):
        return "--health asks the daemon alone: no link and no other option goes with it"
    if options.check and options.watch:
        return "--check gives a verdict and --watch never ends: one of the two"
    if table and (options.json or not options.watch):
        return "--sort and --filter are for the table of --watch"
    return ""


def _graph(options: argparse.Namespace) -> int:
    from xconnectd.netlink import netns
    from xconnectd.netlink.interfaces import Links
    from xconnectd.status import collector, graph

    report = collector.sampled(options.config)
    with closing(Links()) as links:
        names = {nsid: each.name for nsid, each in netns.known(links.nsid_of).items()}
    if options.format == "svg":
        print(_rendered(graph.draw(report, "dot", names)), end="")
    else:
        print(graph.draw(report, options.format, names), end="")
    return Exit.DONE


def _rendered(dot: str) -> str:
    import subprocess

    try:
        done = subprocess.run(
            ("dot", "-Tsvg"), check=False, input=dot, capture_output=True, encoding="utf-8"
        )
    except FileNotFoundError:
        raise XconnectError(
            "--format svg is drawn by Graphviz, which is not here: install the package graphviz,"
            " or take --format mermaid"
        ) from None
    if done.returncode:
        raise XconnectError(f"dot -Tsvg: {done.stderr.strip()}")
    return done.stdout


def _watch(looks: Looks, options: argparse.Namespace) -> int:
    """Until the user has seen enough: a table on a terminal, lines of text elsewhere."""
    from xconnectd.status import table

    view = table.View(table.Sort(options.sort or "name"), options.filter or "")
    if options.json or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        _print_on_and_on(looks, view, as_json=options.json)
    from xconnectd.status import tui

    tui.show(looks, view, every=_INTERVAL)
    return Exit.DONE


def _print_on_and_on(looks: Looks, view: View, *, as_json: bool) -> NoReturn:
    """Every link at each look, and above them the daemon and its file where these have changed."""
    from xconnectd.status import table, text

    told: list[str] = []
    while True:
        time.sleep(_INTERVAL)
        report = looks()
        if as_json:
            lines = [json.dumps(report)]
        else:
            before, told = told, list(takewhile(bool, text.lines(report)))
            rows = view.arrange(table.rows(report))
            lines = [*(told if told != before else ()), *map(table.plain, rows)]
        for line in lines:
            print(line)
        sys.stdout.flush()


def _health() -> int:
    """Whether somebody has to act; a link that waits or is down is the other side's business.

    Asks the daemon alone: one that hangs, and so watches over nothing, does not answer.
    """
    with client.Connection(protocol.STATUS, client.PATIENCE) as daemon:
        report = daemon.status()
    failed = [each for each in report["links"] if each["state"] == "failed"]
    faults = [*report["config"]["problems"], *(f"{x['link']}: {x['reason']}" for x in failed)]
    _print(*(faults or (f"healthy, {counted(len(report['links']), 'link')}",)))
    return Exit.FAILED if faults else Exit.DONE


def _usable(report: dict[str, Any]) -> bool:
    """Without a good file and without a wire there is nothing that could be healthy."""
    return bool(report["links"]) or report["config"]["state"] == "loaded"


def _wait(options: argparse.Namespace) -> int:
    deadline = time.monotonic() + options.timeout
    while missing := _missing(options.config, options.words):
        if time.monotonic() >= deadline:
            _print(*(f"{link}: {why}" for link, why in missing.items()))
            return Exit.FAILED
        time.sleep(_POLL)
    return Exit.DONE


def _missing(file: Path | None, links: Sequence[str]) -> dict[str, str]:
    """What is not connected, with the reason; a daemon that only begins will yet be seen."""
    from xconnectd.status import collector, document

    try:
        return document.not_connected(collector.report(file), links)
    except HiddenError as hidden:
        return {"xconnectd": str(hidden)}


def _detach(options: argparse.Namespace) -> int:
    from xconnectd import events
    from xconnectd.runtime import Engine

    if bool(options.words) == options.all:
        _say("name interfaces, or say --all")
        return Exit.USAGE
    events.setup(level="warning")
    try:
        engine = Engine.take_what_is_there()
    except BusyError as error:
        _say(f"{error}: take the links out of its file")
        return Exit.FAILED
    with engine:
        if names := engine.ledger.unjudged:
            _say(_UNJUDGED.format(path=engine.ledger.path, names=", ".join(names)))
            return Exit.FAILED
        problems = _not_ours(engine, options.words)
        if options.all:
            problems += engine.detach("command")
        else:
            problems += engine.reconciler.detach("command", options.words)
        for gone in engine.ledger.moved_netns():
            _say(f"{gone.record.name} left for another namespace; take it off: {gone.remedy}")
    for problem in problems:
        _say(problem)
    return Exit.FAILED if problems else Exit.DONE


_UNJUDGED: Final = (
    "{path} has records of {names}, by their boot id of another boot, and no pinned program shows"
    " that it is this one. Nothing is put back, and they stay. If only /proc is not the machine's"
    " own, detach from where it is; else rm -r {path}"
)


def _not_ours(engine: Engine, names: Sequence[str]) -> list[str]:
    """What to say of names by which there is nothing to remove."""
    seen = engine.reconciler.look()
    ours = {action.interface.ifindex: action.interface.name for action in seen.actions}
    known = ", ".join(sorted(ours.values())) or "none"
    wrong = [name for name in names if seen.observed.names.get(name) not in ours]
    return [f"{name}: nothing of xconnectd is there; ours: {known}" for name in wrong]


def _doctor(options: argparse.Namespace) -> int:
    from xconnectd.diagnostics import doctor

    found = doctor.examine(options.config)
    if options.json:
        print(json.dumps(doctor.as_json(found)))
    else:
        _print(*doctor.lines(found))
    return Exit.DONE if doctor.is_well(found) else Exit.FAILED


def _test(options: argparse.Namespace) -> int:
    from xconnectd.diagnostics import link_test

    outcome, problems = link_test.test(options.link, options.config, options.count)
    for problem in problems:
        _print(*problem.lines(), file=sys.stderr)
    if options.json:
        print(json.dumps(outcome.as_json()))
    else:
        _print(*outcome.lines())
    return Exit.DONE if outcome.cause is None else Exit.FAILED


def _schema(_options: argparse.Namespace) -> int:
    from xconnectd.config import json_schema

    print(json.dumps(json_schema.document(), indent=2))
    return Exit.DONE


def _version(options: argparse.Namespace) -> int:
    from xconnectd.diagnostics import versions

    found = versions.of_all()
    if options.json:
        print(json.dumps(found))
    else:
        for name, text in found.items():
            print(f"{name} {text or 'not installed'}")
    return Exit.DONE


def _try(options: argparse.Namespace) -> int:
    from xconnectd.control.try_client import Trial

    with Trial(options.file) as trial:
        early = "y\n" if options.yes else _typed_ahead()
        if early == "":
            _say("nobody can confirm it: stdin has ended; --yes keeps it without a question")
            return Exit.USAGE
        trial.start(options.timeout, options.instead)
        _print(trial.summary, *trial.waiting)
        if not _confirmed(trial, early):
            print("taken back")
            return Exit.FAILED
        trial.keep()
        _print(f"kept in {trial.place}")
    return Exit.DONE


def _typed_ahead() -> str | None:
    """The line that waits at stdin; empty if that has ended, as below cron, None if none does."""
    if sys.stdin is None:
        return ""
    ready, _, _ = select.select([sys.stdin], [], [], 0)
    return sys.stdin.readline() if ready else None


def _confirmed(trial: Trial, early: str | None) -> bool:
    """Asks until there is an answer, the time is over, or the terminal has gone."""
    if early is not None:
        return _is_yes(early)
    print(f"Keep this wiring? It goes back by itself in {trial.timeout:.0f} s. [y/N] ", end="")
    sys.stdout.flush()
    ready, _, _ = select.select([sys.stdin], [], [], trial.timeout)
    answer = sys.stdin.readline() if ready else ""
    if not answer.endswith("\n"):
        print()
    return _is_yes(answer)


def _is_yes(answer: str) -> bool:
    return answer.strip().lower() in ("y", "yes")


def _reload(_options: argparse.Namespace) -> int:
    with client.Connection(protocol.CONTROL) as daemon:
        outcome = daemon.ask("reload")
    _print(*outcome["problems"], outcome["summary"])
    return Exit.DONE if outcome["ok"] else Exit.BAD_CONFIG


def _events(options: argparse.Namespace) -> int:
    with client.Connection(protocol.STATUS, timeout=None) as daemon:
        daemon.ask("events")
        while True:
            event = daemon.read()
            print(json.dumps(event)) if options.json else _print(_event_line(event))
            sys.stdout.flush()


def _event_line(event: dict[str, Any]) -> str:
    head = f"{event.pop('timestamp', '')} {event.pop('event', '')}"
    return " ".join((head, *(f"{name}={value}" for name, value in event.items())))


def _capture(options: argparse.Namespace) -> int:
    from xconnectd.capture import session
    from xconnectd.capture.pcap_filter import FilterError

    if options.write == session.STDOUT and sys.stdout.isatty():
        _say("a capture is no text for a terminal: -w FILE, or a pipe")
        return Exit.USAGE
    order = session.Order(
        link=options.link,
        expression=" ".join(options.words),
        direction=options.direction,
        write=options.write,
        count=options.count,
        snaplen=options.snaplen,
        room=options.buffer << 20,
    )
    try:
        session.run(order, _say)
    except FilterError as error:
        _say(str(error))
        return Exit.USAGE
    return Exit.DONE


def _print(*texts: object, file: TextIO | None = None) -> None:
    """The one way out for what is not JSON: names of files and interfaces are other people's."""
    before = "<3>" if file and systemd.is_journal(file) else ""  # an error
    for text in texts:
        for line in str(text).expandtabs().split("\n"):
            print(before + printable(line), file=file)


def _say(text: str) -> None:
    _print(f"xconnectd: {text}", file=sys.stderr)
    sys.stderr.flush()


# --------------------------------------------------------------------------- arguments


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Before Python 3.12.7, argparse does not know the words of a list that follow an option."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    words = getattr(options, "words", None)
    if rest and (words is None or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if words is not None:
        options.words = [*words, *rest]
    return options


class _Parser(argparse.ArgumentParser):
    """Also what is refused may hold the name of a file, which the shell has put there."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="xconnectd",
        description="A declarative cross-connect daemon: a YAML file of interface pairs"
        " becomes wires.",
        epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 the daemon could not start,"
        " 78 bad configuration; plan: 10 for changes.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add = _Adder(commands)
    _add_daemon(add)
    _add_files(add)
    _add_looks(add)
    _add_examinations(add)
    _add_capture(add)
    _add_others(add)
    return parser


def _add_daemon(add: _Adder) -> None:
    run = add("run", _run, "the daemon, in the foreground", "run -c lab.yaml --log-format json")
    _config(run)
    run.add_argument("--strict", action="store_true", help="exit 78 on a bad file, wires untouched")
    run.add_argument("--log-format", choices=("console", "json"), help="default: by terminal")
    run.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    run.add_argument(
        "--on-exit",
        choices=("detach", "keep"),
        default="detach",
        help="keep: the wires stay for the next start",
    )


def _add_files(add: _Adder) -> None:
    """From a file to wires."""
    check = add("check", _check, "validates a file", "check lab.yaml")
    check.add_argument("file", nargs="?", **_file_or_directory(source.DEFAULT))
    check.add_argument(
        "--here", action="store_true", help="names ends that do not exist here now; exit 1 if any"
    )

    plan = add("plan", _plan, "what a reload would change; changes nothing", "plan lab.yaml --json")
    plan.add_argument("file", nargs="?", **_file_or_directory(None))
    _instead(plan)
    _json(plan)

    attempt = add("try", _try, "applies a file, and goes back unless confirmed", "try draft.yaml")
    attempt.add_argument("file", type=Path, metavar="FILE")
    _instead(attempt)
    attempt.add_argument("--yes", action="store_true", help="keeps it without a question")
    attempt.add_argument(
        "--timeout",
        type=_number(float, "a number of seconds", 0.1, protocol.LONGEST_TRY),
        default=30.0,
        metavar="SECONDS",
        help=f"for the answer; default: 30, {protocol.LONGEST_TRY} at most",
    )

    add("reload", _reload, "makes the daemon read its files again, and waits", "reload")


def _add_looks(add: _Adder) -> None:
    """What there is, and what happens."""
    status = add("status", _status, "every link, as the kernel has it", "status --json")
    _words(status, "LINK", "its name here, a:b, or one of its ends; default: every link")
    _config(status, None)
    _json(status, "one JSON document; with --watch one a second, a line each")
    status.add_argument(
        "--watch",
        action="store_true",
        help="a live table on a terminal, elsewhere lines each second",
    )
    status.add_argument(
        "--sort", choices=("name", "state", "rate", "drops"), help="with --watch; default: name"
    )
    status.add_argument(
        "--filter",
        metavar="TEXT",
        help="with --watch: links in which all these words occur; state:down is that state",
    )
    status.add_argument(
        "--check", action="store_true", help="exit 1 unless every enabled link is connected"
    )
    status.add_argument(
        "--health",
        action="store_true",
        help="exit 1 unless the daemon answers, its files are good and no link has failed",
    )

    graph = add("graph", _graph, "the wiring as a picture", "graph --format svg > wiring.svg")
    _config(graph, None)
    graph.add_argument("--format", choices=("mermaid", "dot", "svg"), default="mermaid")

    wait = add("wait", _wait, "returns when links are connected", "wait --timeout 10 eth0:tap0")
    _config(wait, None)
    wait.add_argument(
        "--timeout",
        type=_number(float, "a number of seconds", 0),
        default=60.0,
        metavar="SECONDS",
        help="default: 60",
    )
    _words(wait, "LINK", "default: every enabled link")

    events = add("events", _events, "every change, one line each, as it comes", "events --json")
    _json(events, "a JSON document a line, one for each event")


def _add_examinations(add: _Adder) -> None:
    """What is wrong with it."""
    test = add(
        "test", _test, "sends frames through a link, or says why it cannot", "test eth0:tap0"
    )
    test.add_argument("link", metavar="LINK", help="its name in status, a:b, or one of its ends")
    _config(test, None)
    _json(test)
    test.add_argument(
        "--count",
        type=_number(int, "a whole number", 1, _MOST_ROUNDS),
        default=20,
        metavar="N",
        help=f"frames of each size, each way; default: 20, {_MOST_ROUNDS} at most",
    )

    doctor = add("doctor", _doctor, "looks for what is wrong, and how to fix it", "doctor --json")
    _config(doctor, None)
    _json(doctor)


def _add_capture(add: _Adder) -> None:
    capture = add(
        "capture", _capture, "the frames of a link, live (root)", "capture eth0 -w - | tcpdump -r -"
    )
    capture.add_argument("link", metavar="LINK", help="its id, both its ends, or either end")
    _words(capture, "FILTER", "as for tcpdump; default: every frame")
    capture.add_argument(
        "-w", "--write", metavar="FILE", help="as pcapng; -: to stdout; default: a line a frame"
    )
    capture.add_argument(
        "--direction",
        choices=("a", "b", "both"),
        default="both",
        help="what comes in by the link's first end, its second, or either",
    )
    positive = _number(int, "a whole number", 1)
    capture.add_argument(
        "--count", type=positive, default=0, metavar="N", help="end after N frames"
    )
    capture.add_argument(
        "--snaplen",
        type=_number(int, "a whole number", 1, _LONGEST_FRAME),
        default=_LONGEST_FRAME,
        metavar="N",
        help=f"bytes to keep of a frame; default: all, {_LONGEST_FRAME} at most",
    )
    capture.add_argument(
        "--buffer",
        type=positive,
        default=64,
        metavar="MIB",
        help="for frames that wait to be written, in all; default: 64",
    )


def _add_others(add: _Adder) -> None:
    detach = add("detach", _detach, "removes what is ours while no daemon runs", "detach --all")
    detach.add_argument("--all", action="store_true", help="everything of ours")
    _words(detach, "IFACE", "what to let go of")

    add("schema", _schema, "JSON Schema of the file, for editors", "schema > xconnect.schema.json")
    _json(add("version", _version, "versions of the parts", "version"))


class _Adder:
    """Adds commands that all come with an example."""

    def __init__(self, commands: Any) -> None:
        self._commands = commands

    def __call__(
        self, name: str, command: Callable[..., int], purpose: str, example: str
    ) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = self._commands.add_parser(
            name, help=purpose, description=purpose, epilog=f"example: xconnectd {example}"
        )
        parser.set_defaults(command=command)
        return parser


def _words(parser: argparse.ArgumentParser, what: str, help_: str) -> None:
    """A list without an option, of any length."""
    parser.add_argument("words", nargs="*", metavar=what, help=help_)


def _config(parser: argparse.ArgumentParser, default: Path | None = source.DEFAULT) -> None:
    """Absolute: so it is told by the daemon, and by whoever looks where it looks."""
    form = _file_or_directory(default) | {"type": lambda text: Path(text).absolute()}
    parser.add_argument("-c", "--config", default=default, **form)


def _file_or_directory(default: Path | None) -> dict[str, Any]:
    text = f"default: {default or 'that of the daemon'}; of a directory every *.yaml"
    return {"type": Path, "metavar": "FILE|DIR", "help": text}


def _instead(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--as",
        dest="instead",
        default="",
        metavar="NAME",
        help="of the daemon's directory, the file that it replaces; default: its own name",
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
