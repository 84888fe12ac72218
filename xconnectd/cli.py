"""Arguments in, one call, a result printed, an exit code out.

Everything that needs root, bcc or a kernel is imported by the command that uses it, so that
``check`` and ``schema`` run anywhere.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from enum import IntEnum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from xconnectd import __version__, control
from xconnectd.errors import BusyError, ConfigError, DataplaneError, PrivilegeError, XconnectError
from xconnectd.files import Files

if TYPE_CHECKING:
    from xconnectd.diagnosis import Finding
    from xconnectd.engine import Engine
    from xconnectd.files import Reading
    from xconnectd.reconcile import Seen
    from xconnectd.recording import Accounts, Way
    from xconnectd.requirements import Host
    from xconnectd.status import LinkStatus
    from xconnectd.table import View
    from xconnectd.trial import Trial

DEFAULT_FILE: Final = Path("/etc/xconnect.yaml")
_POLL: Final = 0.1
_PATIENCE: Final = 4.0
"""Seconds that a daemon may take to answer before it counts as hung."""
_MOST_ROUNDS: Final = 100
"""A test shares the wire with whoever uses it."""
_INTERVAL: Final = 1.0
"""Seconds between two looks of ``status --watch``."""
_SAMPLE: Final = 0.1
"""Seconds over which a rate is taken."""


class Exit(IntEnum):
    """What the exit code of every command means."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_STARTED = 3
    CHANGES = 10
    BAD_CONFIG = 78


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parsed(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return Exit.BAD_CONFIG
    except (XconnectError, OSError) as error:
        print(f"xconnectd: {error}", file=sys.stderr)
        return Exit.FAILED
    except KeyboardInterrupt:
        return Exit.FAILED


# --------------------------------------------------------------------------- commands


def _run(options: argparse.Namespace) -> int:
    gc.disable()  # until the daemon is ready: a start makes no garbage, but takes a tenth longer
    from xconnectd import log
    from xconnectd.daemon import SIGNALS, Daemon, OnExit
    from xconnectd.engine import Engine

    tap = log.Tap()
    logger = log.setup(options.log_format, options.log_level, tap=tap)
    if options.strict:
        _demand_good(options.config)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # a start is finished, then undone
    try:
        engine = Engine.take(logger)
    except (BusyError, DataplaneError, PrivilegeError, OSError) as error:
        print(f"xconnectd: cannot start: {error}", file=sys.stderr)
        return Exit.NOT_STARTED
    with engine:
        try:
            daemon = Daemon(options.config, engine, logger, tap, on_exit=OnExit(options.on_exit))
        except OSError as error:
            print(f"xconnectd: cannot start: {error}", file=sys.stderr)
            return Exit.NOT_STARTED
        daemon.run()
        return Exit.DONE if daemon.stop() else Exit.FAILED


def _demand_good(path: Path) -> None:
    problems = Files(path).read().problems
    if problems:
        raise ConfigError(problems)


def _check(options: argparse.Namespace) -> int:
    path: Path = options.file or DEFAULT_FILE
    reading = Files(path).read()
    for problem in reading.problems:
        print(problem)
    for warning in reading.wiring.warnings:
        print(warning)
    if reading.problems:
        return Exit.BAD_CONFIG
    print(f"{path}: good, {_counted(len(reading.wiring.links), 'link')}")
    return Exit.DONE


def _plan(options: argparse.Namespace) -> int:
    from xconnectd.engine import Engine
    from xconnectd.plan import as_json

    with Engine.watch() as engine:
        reading = Files(options.file or _file_of(engine)).read()
        if reading.problems:
            raise ConfigError(reading.problems)
        engine.reconciler.want(reading.wiring)
        actions = as_json(engine.reconciler.look().actions)
    if options.json:
        print(json.dumps(actions, indent=2))
    else:
        for each in actions:
            print(f"{each['interface']}: {each['action']} ({each['reason']})")
        print(_counted(len(actions), "change"))
    return Exit.CHANGES if actions else Exit.DONE


def _status(options: argparse.Namespace) -> int:
    if options.health:
        return _health()
    if (options.sort or options.filter) and (options.json or not options.watch):
        print("xconnectd: --sort and --filter are for the table of --watch", file=sys.stderr)
        return Exit.USAGE
    if options.watch:
        return _watch(_Looks(options.config), options)
    report = _sampled(options.config)
    print(json.dumps(report) if options.json else _as_table(report))
    healthy = all(each["state"] == "connected" for each in report["links"] if each["enabled"])
    return Exit.FAILED if options.check and not (healthy and _usable(report)) else Exit.DONE


def _graph(options: argparse.Namespace) -> int:
    from xconnectd import graph, namespaces
    from xconnectd.links import Links

    report = _sampled(options.config)
    with closing(Links()) as links:
        names = {nsid: each.name for nsid, each in namespaces.known(links.nsid_of).items()}
    print(graph.draw(report, options.format, names), end="")
    return Exit.DONE


class _Looks:
    """Reports, each with the rates since the one before."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._before, self._since = _report(file), time.monotonic()

    def __call__(self) -> dict[str, Any]:
        from xconnectd import status

        found, now = _report(self._file), time.monotonic()
        report = status.with_rates(self._before, found, now - self._since)
        self._before, self._since = found, now
        return report


def _watch(looks: _Looks, options: argparse.Namespace) -> int:
    """Until the user has seen enough: a table on a terminal, lines of text elsewhere."""
    from xconnectd import table

    view = table.View(table.Sort(options.sort or "name"), options.filter or "")
    if not options.json and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        from xconnectd import live

        live.show(looks, view, every=_INTERVAL)
        return Exit.DONE
    try:
        _print_on_and_on(looks, view, as_json=options.json)
    except BrokenPipeError:  # `| head` is no failure; Python would complain again at its own end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Exit.DONE


def _print_on_and_on(looks: _Looks, view: View, *, as_json: bool) -> NoReturn:
    from xconnectd import table

    while True:
        time.sleep(_INTERVAL)
        report = looks()
        rows = view.arrange(table.rows(report))
        for line in [json.dumps(report)] if as_json else map(table.plain, rows):
            print(line)
        sys.stdout.flush()


def _sampled(file: Path | None) -> dict[str, Any]:
    """A report with rates, from two looks."""
    looks = _Looks(file)
    time.sleep(_SAMPLE)
    return looks()


def _health() -> int:
    """Whether somebody has to act; a link that waits or is down is the other side's business.

    Asks the daemon alone: one that hangs, and so watches over nothing, does not answer.
    """
    with _ask_daemon(control.STATUS, timeout=_PATIENCE) as daemon:
        report = daemon.ask("status")
    failed = [each for each in report["links"] if each["state"] == "failed"]
    faults = [*report["config"]["problems"], *(f"{x['link']}: {x['reason']}" for x in failed)]
    print("\n".join(faults) or f"healthy, {_counted(len(report['links']), 'link')}")
    return Exit.FAILED if faults else Exit.DONE


def _usable(report: dict[str, Any]) -> bool:
    """Without a good file and without a wire there is nothing that could be healthy."""
    return bool(report["links"]) or report["config"]["state"] == "loaded"


def _wait(options: argparse.Namespace) -> int:
    deadline = time.monotonic() + options.timeout
    while missing := _not_connected(_report(options.config), options.links):
        if time.monotonic() >= deadline:
            print("\n".join(f"{link}: {why}" for link, why in missing.items()))
            return Exit.FAILED
        time.sleep(_POLL)
    return Exit.DONE


def _not_connected(report: dict[str, Any], wanted: Sequence[str]) -> dict[str, str]:
    """The enabled links (or the named ones) that are not connected, each with the reason."""
    links = report["links"]
    missing = {}
    for name in wanted:
        if not any(name in _names(each) for each in links):
            missing[name] = "no such link in the file"
    for each in links:
        asked = (not wanted and each["enabled"]) or any(name in _names(each) for name in wanted)
        if asked and each["state"] != "connected":
            missing[each["link"]] = f"{each['state']}: {each['reason']}"
    if not wanted and report["config"]["state"] != "loaded":
        missing.setdefault(report["config"]["path"], report["config"]["state"])
    return missing


def _names(link: dict[str, Any]) -> tuple[str, ...]:
    """What a user may call a link: its id, both its ends in either order, either end."""
    return _spellings(link["link"], link["a"]["name"], link["b"]["name"])


def _spellings(link: str, a: str, b: str) -> tuple[str, ...]:
    return link, f"{a}:{b}", f"{b}:{a}", a, b


def _detach(options: argparse.Namespace) -> int:
    from xconnectd import log
    from xconnectd.engine import Engine

    if bool(options.interfaces) == options.all:
        print("xconnectd: name interfaces, or say --all", file=sys.stderr)
        return Exit.USAGE
    log.setup(level="warning")
    try:
        engine = Engine.take_what_is_there()
    except BusyError as error:
        print(f"xconnectd: {error}: take the links out of its file", file=sys.stderr)
        return Exit.FAILED
    with engine:
        problems = engine.reconciler.release(None if options.all else options.interfaces)
        if options.all and not problems:
            engine.remove()
    for problem in problems:
        print(f"xconnectd: {problem}", file=sys.stderr)
    return Exit.FAILED if problems else Exit.DONE


def _doctor(options: argparse.Namespace) -> int:
    """Without the rights to look, the links are what the daemon says of them."""
    from xconnectd import diagnosis, facts, requirements
    from xconnectd.diagnosis import Level
    from xconnectd.engine import Engine

    try:
        engine = Engine.watch()
    except (PrivilegeError, PermissionError):
        host, links = _doctor_from_outside(options.config)
        found = {"host": requirements.of_host(host), **links}
    else:
        with engine:
            files, reading, seen = _look(engine, options.config)
            host = facts.host(files, reading, len(engine.programs.ours))
            examiner = facts.Examiner(engine, seen, host.config, host.repair)
            departed = diagnosis.of_departed(seen.observed.departed)
            found = {"host": (*requirements.of_host(host), *departed)}
            for verdict in seen.verdicts:
                found[verdict.link.id] = diagnosis.of_link(examiner.look(verdict))
    failed = any(each.level is Level.FAIL for each in chain.from_iterable(found.values()))
    if options.json:
        every = [
            {"where": where, **each.as_json()} for where, these in found.items() for each in these
        ]
        print(json.dumps({"ok": not failed, "findings": every}))
    else:
        for where, these in found.items():
            print(where)
            print("\n".join(f"  {line}" for each in these for line in each.lines()))
    return Exit.FAILED if failed else Exit.DONE


def _doctor_from_outside(file: Path | None) -> tuple[Host, dict[str, tuple[Finding, ...]]]:
    from xconnectd import diagnosis, facts

    try:
        with _ask_daemon(control.STATUS, timeout=_PATIENCE) as daemon:
            told = daemon.ask("status")
    except control.NoDaemonError:
        told = {"config": {"path": None}, "links": []}
    known = file or told["config"]["path"]
    files = Files(Path(known or DEFAULT_FILE))
    host = facts.host(files, files.read(), None)
    if host.pid and not known:
        host = replace(host, config="the daemon's file", config_state="")
    return host, {each["link"]: diagnosis.of_report(each) for each in told["links"]}


def _test(options: argparse.Namespace) -> int:
    from xconnectd import diagnosis, facts, probe
    from xconnectd.engine import Engine

    try:
        engine = Engine.watch()
    except (PrivilegeError, PermissionError):
        print("xconnectd: only root can look at a link: sudo xconnectd test", file=sys.stderr)
        return Exit.FAILED
    with engine:
        files, reading, seen = _look(engine, options.config)
        file = str(files.path)
        for verdict in seen.verdicts:
            link = verdict.link
            if options.link in _spellings(link.id, link.a.name, link.b.name):
                examiner = facts.Examiner(engine, seen, file, facts.repair(file))
                tester = probe.Tester(engine.links, engine.counters, examiner.namespaces)
                outcome = tester.test(examiner.look(verdict, enter=True), options.count)
                break
        else:
            outcome = probe.absent(options.link, file, [each.link.id for each in seen.verdicts])
    for problem in diagnosis.of_problems(map(str, reading.problems), file):
        print("\n".join(problem.lines()), file=sys.stderr)
    print(json.dumps(outcome.as_json()) if options.json else "\n".join(outcome.lines()))
    return Exit.DONE if outcome.cause is None else Exit.FAILED


def _schema(_options: argparse.Namespace) -> int:
    from xconnectd import schema

    print(json.dumps(schema.document(), indent=2))
    return Exit.DONE


def _version(options: argparse.Namespace) -> int:
    versions = {
        "xconnectd": __version__,
        "kernel": _kernel(),
        "bcc": _bcc(),
        "pyroute2": _distribution("pyroute2"),
    }
    if options.json:
        print(json.dumps(versions))
    else:
        for name, text in versions.items():
            print(f"{name} {text or 'not installed'}")
    return Exit.DONE


def _kernel() -> str:
    return Path("/proc/sys/kernel/osrelease").read_text().strip()


def _bcc() -> str | None:
    """Read from its version file: importing bcc takes 74 MB of LLVM."""
    from importlib.util import find_spec

    found = find_spec("bcc")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).with_name("version.py")
    line = path.read_text() if path.exists() else ""
    return line.partition("=")[2].strip().strip("'\"") or "unknown"


def _distribution(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _try(options: argparse.Namespace) -> int:
    from xconnectd.trial import Trial

    with Trial(options.file, options.timeout) as trial:
        print(trial.summary)
        if not _confirmed(trial):
            print("taken back")
            return Exit.FAILED
        trial.keep()
        print(f"kept in {trial.place}")
    return Exit.DONE


def _confirmed(trial: Trial) -> bool:
    """Asks until there is an answer, the time is over, or the terminal has gone."""
    print(f"Keep this wiring? It goes back by itself in {trial.timeout:.0f} s. [y/N] ", end="")
    sys.stdout.flush()
    ready, _, _ = select.select([sys.stdin], [], [], trial.timeout)
    answer = sys.stdin.readline() if ready else ""
    if not answer.endswith("\n"):
        print()
    return answer.strip().lower() in ("y", "yes")


def _reload(_options: argparse.Namespace) -> int:
    with _ask_daemon(control.CONTROL) as daemon:
        outcome = daemon.ask("reload")
    for problem in outcome["problems"]:
        print(problem)
    print(outcome["summary"])
    return Exit.DONE if outcome["ok"] else Exit.BAD_CONFIG


def _events(options: argparse.Namespace) -> int:
    with _ask_daemon(control.STATUS, timeout=None) as daemon:
        daemon.ask("events")
        while True:
            event = daemon.read()
            print(json.dumps(event) if options.json else _event_line(event), flush=True)


def _event_line(event: dict[str, Any]) -> str:
    head = f"{event.pop('timestamp', '')} {event.pop('event', '')}"
    return " ".join((head, *(f"{name}={value}" for name, value in event.items())))


# --------------------------------------------------------------------------- capture


def _capture(options: argparse.Namespace) -> int:
    """The file is opened last: a request that cannot be met overwrites none."""
    from xconnectd.capture import Capture
    from xconnectd.engine import Engine
    from xconnectd.pcap import Filter, FilterError
    from xconnectd.recording import Lines, Pcapng, Recording

    if options.write == "-" and sys.stdout.isatty():
        print("xconnectd: a capture is no text for a terminal: -w FILE, or a pipe", file=sys.stderr)
        return Exit.USAGE
    expression = " ".join(options.filter)
    try:
        judge = Filter(expression) if expression else None
    except FilterError as error:
        print(f"xconnectd: {error}", file=sys.stderr)
        return Exit.USAGE
    with ExitStack() as stack:
        engine = stack.enter_context(Engine.watch())
        link, ways = _ways_of(options, _report_of(engine, None))
        capture = stack.enter_context(Capture(snaplen=options.snaplen, room=options.buffer << 20))
        form = Pcapng(link, ways, capture.snaplen, expression) if options.write else Lines(ways)
        recording = Recording(
            capture,
            ways,
            form,
            output=_output(stack, options.write),
            place=lambda name: _place(engine, name),
            say=_say,
            judge=judge,
            count=options.count,
        )
        with _stopped_by_signals(recording.stop):
            if recording.run():
                _tell(ways, recording.accounts)
    return Exit.DONE


def _ways_of(options: argparse.Namespace, report: dict[str, Any]) -> tuple[str, list[Way]]:
    """The link's id, and the directions that are asked for; a plug has one."""
    from xconnectd.recording import Way

    for link in report["links"]:
        if options.link in _names(link):
            a, b = link["a"]["name"], link["b"]["name"]
            ways = [Way(0, a, b)] if a == b else [Way(0, a, b), Way(1, b, a)]
            wanted = {"a": ways[:1], "b": ways[-1:], "both": ways}[options.direction]
            return link["link"], wanted
    links = ", ".join(link["link"] for link in report["links"]) or "there is none"
    raise XconnectError(f"no link {options.link} in {report['config']['path']}: {links}")


def _place(engine: Engine, name: str) -> tuple[int, int | None] | None:
    """Where frames come in by that name; natively only if through a program of ours."""
    from xconnectd.model import Mode

    interface = engine.links.by_name(name)
    if interface is None:
        return None
    native = (xdp.program for xdp in interface.xdp if xdp.mode == Mode.NATIVE)
    return interface.ifindex, next(filter(None, map(engine.program, native)), None)


def _output(stack: ExitStack, path: str | None) -> int:
    if path in (None, "-"):
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


def _tell(ways: Sequence[Way], accounts: Accounts) -> None:
    for way in ways:
        account = accounts[way.end]
        tally = account.tally
        _say(
            f"{way}: {_counted(tally.received, 'frame')} came in, {account.kept} kept,"
            f" {account.passed_by} did not match, {tally.lost} lost"
            + (" (a larger --buffer or a smaller --snaplen loses fewer)" if tally.lost else "")
        )


def _say(text: str) -> None:
    print(f"xconnectd: {text}", file=sys.stderr, flush=True)


def _ask_daemon(name: str, timeout: float | None = 60.0) -> control.Connection:
    from xconnectd.ledger import directory

    return control.Connection(directory() / name, timeout)


# --------------------------------------------------------------------------- status


def _file_of(engine: Engine) -> Path:
    """The file of this namespace's daemon, or of the last one here."""
    return engine.ledger.config() or DEFAULT_FILE


def _report(file: Path | None) -> dict[str, Any]:
    """All that ``status`` tells, read from the kernel; who may not read it asks the daemon."""
    from xconnectd.engine import Engine

    try:
        engine = Engine.watch()
    except (PrivilegeError, PermissionError):
        with _ask_daemon(control.STATUS) as daemon:
            return daemon.ask("status")
    with engine:
        return _report_of(engine, file)


def _look(engine: Engine, file: Path | None) -> tuple[Files, Reading, Seen]:
    """The files and the kernel; without a good file, its links are those in the kernel."""
    files = Files(file or _file_of(engine))
    reading = files.read()
    if reading.state != "loaded":
        files.keep(engine.reconciler.found())
        reading = files.read()
    engine.reconciler.want(reading.wiring)
    return files, reading, engine.reconciler.look()


def _report_of(engine: Engine, file: Path | None) -> dict[str, Any]:
    from xconnectd import plan, status

    told = _told_by_daemon()
    files, reading, seen = _look(engine, file)
    if told and reading.state != "loaded" and files.path.absolute() == engine.ledger.config():
        return told | {"differences": []}  # it alone knows the last good links
    links = [status.assess(verdict, seen.observed) for verdict in seen.verdicts]
    links = [_with_failure(engine, each) for each in links]
    report = status.document(
        told["daemon"] if told else _silent_daemon(),
        reading,
        files.path,
        statuses=links,
        counters=engine.counters(),
        untold=told.get("untold", "") if told else engine.untold,
        departed=seen.observed.departed,
    )
    return report | {"differences": plan.as_json(seen.actions)}


def _told_by_daemon() -> dict[str, Any] | None:
    """Its own report; None if none answers."""
    from xconnectd.instance import running_pid

    try:
        with _ask_daemon(control.STATUS, timeout=2.0) as daemon:
            told: dict[str, Any] = daemon.ask("status")
    except control.NoDaemonError:
        return None
    told["daemon"]["pid"] = running_pid() or told["daemon"]["pid"]  # as seen from here
    return told


def _silent_daemon() -> dict[str, Any]:
    """Of one that does not answer: at least whether there is one."""
    from xconnectd.instance import running_pid

    pid = running_pid()
    return {"running": pid is not None, "pid": pid}


def _with_failure(engine: Engine, link: LinkStatus) -> LinkStatus:
    """The kernel's own words for a link that failed, which only the daemon heard."""
    from xconnectd import status
    from xconnectd.model import State

    failure = engine.ledger.failures().get(link.link.id)
    if link.state is not State.FAILED or failure is None:
        return link
    reason = failure.reason if link.reason.startswith("not in the kernel") else link.reason
    return status.failed(link, reason, failure.retry)


def _as_table(report: dict[str, Any]) -> str:
    daemon, file = report["daemon"], report["config"]
    lines = [
        f"daemon: {'running, pid ' + str(daemon['pid']) if daemon['running'] else 'not running'}",
        f"file:   {file['path']}: {file['state']} {file['hash']}".rstrip(),
        *(f"        {problem}" for problem in file["problems"]),
        *_metrics_lines(daemon),
        "",
    ]
    for each in report["links"]:
        lines += _link_lines(each)
    if report["untold"]:
        lines.append(f"note: {report['untold']}")
    for gone in report["departed"]:
        lines.append(f"left with our program: {gone['interface']}; {gone['remedy']}")
    if report.get("differences"):
        count = _counted(len(report["differences"]), "difference")
        lines.append(f"\n{count} between file and kernel (see xconnectd plan)")
    return "\n".join(lines)


def _metrics_lines(daemon: dict[str, Any]) -> Iterator[str]:
    if metrics := daemon.get("metrics"):
        problem = f": not yet: {metrics['problem']}" if metrics["problem"] else ""
        yield f"metrics: {metrics['listen']}{problem}"


def _link_lines(link: dict[str, Any]) -> list[str]:
    a, b = link["a"], link["b"]
    lines = [f"{a['name']} — {b['name']}  {link['state']}  {link['mode']}"]
    if link["description"]:
        lines.append(f"    {link['description']}")
    if link["reason"]:
        lines.append(f"    {link['reason']}")
    if link["mode_reason"]:
        lines.append(f"    {link['mode']}: {link['mode_reason']}")
    for end, other in ((a, b), (b, a)):
        lines.append(
            f"    {end['name']} → {other['name']}: {_counted(end['frames'], 'frame')},"
            f" {end['bytes']} bytes, {_rate(end)}; kept from the wire: {end['dropped']['host']} of"
            " this host"
        )
    for lost in link["drops"]:
        way_out = f" ({lost['remedy']})" if lost["remedy"] else ""
        lines.append(
            f"    lost {lost['from']} → {lost['to']}: {_counted(lost['frames'], 'frame')},"
            f" {lost['text']}{way_out}"
        )
    return lines + [f"    warning: {warning}" for warning in link["warnings"]]


def _rate(end: dict[str, Any]) -> str:
    if end["frames_per_s"] is None:
        return "no rate yet"
    return f"{end['frames_per_s']:.0f} frames/s, {end['bits_per_s'] / 1e6:.3g} Mbit/s"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


# --------------------------------------------------------------------------- arguments


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Before Python 3.12.7, argparse does not know the words of a filter that follow an option."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and ("filter" not in options or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.filter = [*options.filter, *rest]
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xconnectd",
        description="A declarative cross-connect daemon: a YAML file of interface pairs"
        " becomes wires.",
        epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 the daemon could not start,"
        " 78 bad configuration; plan: 10 for changes.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add = _Adder(commands)

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

    check = add("check", _check, "validates a file", "check lab.yaml")
    check.add_argument("file", nargs="?", type=Path, metavar="FILE")

    plan = add("plan", _plan, "what a reload would change; changes nothing", "plan lab.yaml --json")
    plan.add_argument("file", nargs="?", type=Path, metavar="FILE")
    _json(plan)

    status = add("status", _status, "every link, as the kernel has it", "status --json")
    _config(status, None)
    _json(status)
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

    test = add(
        "test", _test, "sends frames through a link, or says why it cannot", "test eth0:tap0"
    )
    test.add_argument("link", metavar="LINK", help="its name in status, a:b, or one of its ends")
    _config(test, None)
    _json(test)
    test.add_argument(
        "--count", type=_rounds, default=20, metavar="N", help="frames of each size, each way"
    )

    doctor = add("doctor", _doctor, "looks for what is wrong, and how to mend it", "doctor --json")
    _config(doctor, None)
    _json(doctor)

    wait = add("wait", _wait, "returns when links are connected", "wait --timeout 10 eth0:tap0")
    _config(wait, None)
    wait.add_argument("--timeout", type=_seconds, default=60.0, metavar="SECONDS")
    wait.add_argument("links", nargs="*", metavar="LINK", help="default: every enabled link")

    attempt = add("try", _try, "applies a file, and goes back unless confirmed", "try draft.yaml")
    attempt.add_argument("file", type=Path, metavar="FILE")
    attempt.add_argument("--timeout", type=_seconds, default=30.0, metavar="SECONDS")

    add("reload", _reload, "makes the daemon read its files again, and waits", "reload")
    _json(add("events", _events, "every change, one line each, as it comes", "events --json"))

    capture = add(
        "capture", _capture, "the frames of a link, live (root)", "capture eth0 -w - | tcpdump -r -"
    )
    capture.add_argument("link", metavar="LINK", help="its id, both its ends, or either end")
    capture.add_argument(
        "filter", nargs="*", metavar="FILTER", help="as for tcpdump; default: every frame"
    )
    capture.add_argument(
        "-w", "--write", metavar="FILE", help="as pcapng; -: to stdout; default: a line a frame"
    )
    capture.add_argument(
        "--direction",
        choices=("a", "b", "both"),
        default="both",
        help="what comes in by the link's first end, its second, or either",
    )
    capture.add_argument(
        "--count", type=_positive, default=0, metavar="N", help="end after N frames"
    )
    capture.add_argument(
        "--snaplen", type=_positive, default=262_144, metavar="N", help="bytes to keep of a frame"
    )
    capture.add_argument(
        "--buffer",
        type=_positive,
        default=64,
        metavar="MIB",
        help="for frames that wait to be written, in all; default: 64",
    )

    detach = add("detach", _detach, "removes what is ours while no daemon runs", "detach --all")
    detach.add_argument("--all", action="store_true", help="everything of ours")
    detach.add_argument("interfaces", nargs="*", metavar="IFACE")

    add("schema", _schema, "JSON Schema of the file, for editors", "schema > xconnect.schema.json")
    _json(add("version", _version, "versions of the parts", "version"))
    return parser


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


def _config(parser: argparse.ArgumentParser, default: Path | None = DEFAULT_FILE) -> None:
    text = str(default) if default else "that of the daemon"
    parser.add_argument(
        "-c", "--config", type=Path, default=default, metavar="FILE", help=f"default: {text}"
    )


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document")


def _positive(text: str) -> int:
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text} is no time in seconds")
    return value


def _rounds(text: str) -> int:
    value = int(text)
    if not 1 <= value <= _MOST_ROUNDS:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and {_MOST_ROUNDS}")
    return value
