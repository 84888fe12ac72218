"""``plan``: what a reload would change, link by link; ``-v``: step by step."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.output import print_as_it_is, print_lines, print_message
from xconnectd.config.source import Reading, is_directory, read_once
from xconnectd.errors import ConfigError
from xconnectd.formatting import counted, printable
from xconnectd.reconcile.actions import as_json
from xconnectd.reconcile.link_changes import (
    LinkChange,
    Sign,
    ends_to_make,
    link_changes,
    why_waiting,
)
from xconnectd.runtime import Engine
from xconnectd.status import collector
from xconnectd.terminal import is_terminal, paint

_COLOURS: Final = {Sign.MADE: "green", Sign.CHANGED: "yellow", Sign.GONE: "red"}


def run(options: argparse.Namespace) -> int:
    with Engine.watch() as engine:
        reading = _planned(engine, options.file, options.instead)
        if reading.problems:
            raise ConfigError(reading.problems)
        seen = collector.seen(engine, reading)
    actions = as_json(seen.actions)
    made = ends_to_make(seen.actions)
    for each in seen.evaluations:
        if each.refusal:
            print_message(f"{each.link.id} will fail: {each.refusal}")
        elif waiting := why_waiting(each, made):
            print_message(
                f"{each.link.id} will wait: {'; '.join(filter(None, (waiting, each.hint)))}"
            )
    if options.json:
        print_as_it_is(json.dumps(actions, indent=2))
    elif options.verbose:
        print_lines(
            *(f"{each['interface']}: {each['action']} ({each['reason']})" for each in actions),
            counted(len(actions), "step"),
        )
    else:
        _print_changes([*link_changes(seen.evaluations, seen.actions, seen.observed)])
    return Exit.CHANGES if actions else Exit.DONE


def _print_changes(changes: Sequence[LinkChange]) -> None:
    """As wide as the terminal; for a pipe in full."""
    room = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None
    widest = max((len(each.text) for each in changes), default=0)
    for each in changes:
        what = f"{each.sign} {printable(each.text)}"
        line = f"{what.ljust(widest + 4)}{printable(each.reason)}"[:room].rstrip()
        sign = paint(line[: len(what)], _COLOURS[each.sign], sys.stdout)
        print_as_it_is(sign + line[len(what) :])
    print_lines(counted(len(changes), "change"))


def _planned(engine: Engine, file: Path | None, instead: str) -> Reading:
    """What the daemon would read; in place of one file of its directory, the others stay."""
    daemons = collector.file_of(engine)
    if file is None or is_directory(file) or not is_directory(daemons):
        return collector.files(engine, file or daemons).read()
    source = collector.files(engine, daemons)
    source.read_first(engine.reconciler.found)
    data = read_once(file).checked().data
    return source.imagine(str(file), data, instead)[1]
