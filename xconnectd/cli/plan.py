"""``plan``: what a reload would change."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.output import print_lines, print_message
from xconnectd.config import reader
from xconnectd.config.source import Files, Reading
from xconnectd.errors import ConfigError
from xconnectd.formatting import counted
from xconnectd.reconcile.actions import as_json
from xconnectd.runtime import Engine
from xconnectd.status import collector


def run(options: argparse.Namespace) -> int:
    with Engine.watch() as engine:
        reading = _planned(engine, options.file, options.instead)
        if reading.problems:
            raise ConfigError(reading.problems)
        seen = collector.seen(engine, reading)
    actions = as_json(seen.actions)
    for each in seen.evaluations:
        if each.waiting:
            print_message(
                f"{each.link.id} will wait: {'; '.join(filter(None, (each.waiting, each.hint)))}"
            )
    if options.json:
        print(json.dumps(actions, indent=2))
    else:
        print_lines(
            *(f"{each['interface']}: {each['action']} ({each['reason']})" for each in actions)
        )
        print(counted(len(actions), "change"))
    return Exit.CHANGES if actions else Exit.DONE


def _planned(engine: Engine, file: Path | None, instead: str) -> Reading:
    """What the daemon would read; in place of one file of its directory, the others stay."""
    daemons = collector.file_of(engine)
    if file is None or file.is_dir() or not daemons.is_dir():
        return Files(file or daemons).read()
    source = Files(daemons)
    source.read_first(engine.reconciler.found)
    data = reader.read(str(file)).checked().data
    return source.imagine(str(file), data, instead)[1]
