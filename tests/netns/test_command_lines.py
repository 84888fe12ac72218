"""Odd command lines, for every command there is: an answer or a usage error, never a traceback."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from xconnectd.cli import arguments
from xconnectd.cli.exit_codes import Exit

from .lab import PATIENCE, Lab
from .service import Start

Line = list[str]

VALUES = ("", "-", "nosuch", "va", "va:vb", "/", "0", "-1", "1e9", "x\x1b[31m\udcff", "é" * 3000)
SAMPLE = 6
"""Lines of each command that are also carried out."""

# A child for every line: what has not ended by itself then (a daemon, --watch) is ended.
EACH = """
import itertools, json, os, signal, sys, tempfile
from xconnectd.cli import capture, detach, doctor, graph, main, plan, test, trial, wait, watch

def begin(line):
    told = tempfile.TemporaryFile()
    if child := os.fork():
        return child, line, told
    signal.setitimer(signal.ITIMER_REAL, 1)
    for descriptor in (1, 2):
        os.dup2(told.fileno(), descriptor)
    try:
        os._exit(main.main(line))
    except SystemExit as end:
        os._exit(end.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(99)

lines = iter(json.load(sys.stdin))
while some := [begin(line) for line in itertools.islice(lines, 16)]:
    for child, line, told in some:
        os.waitpid(child, 0)
        told.seek(0)
        if b"Traceback" in (text := told.read()):
            print(line, text.decode(errors="replace"))
"""


def odd_lines(parser: argparse.ArgumentParser) -> Iterator[Line]:
    """No word, one, two and three of them; every option alone, with values, and among words."""
    for name, command in _commands(parser):
        yield name
        for value in VALUES:
            yield from ([*name, *[value] * count] for count in (1, 2, 3))
        for option in (each.option_strings[-1] for each in command._actions if each.option_strings):
            yield [*name, option]
            for value in VALUES:
                yield [*name, option, value]
                yield [*name, option, value, value]
                yield [*name, value, option, value]
                yield [*name, value, f"{option}={value}", "va"]


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[Line, argparse.ArgumentParser]]:
    """With those that a command has below it."""
    below = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    if not below:
        yield [], parser
    for name, command in (pair for each in below for pair in each.choices.items()):
        yield from (([name, *rest], last) for rest, last in _commands(command))


def test_what_is_not_understood_is_a_usage_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ends: dict[Any, int] = {}
    for line in odd_lines(arguments.make_parser()):
        try:
            code = None if arguments.parse(line) else 1
        except SystemExit as end:
            code = end.code
        ends[code] = ends.get(code, 0) + 1
        assert "\x1b" not in capsys.readouterr().err, line
    assert ends.keys() == {None, Exit.DONE, Exit.USAGE}
    assert ends[None] > 500


def test_no_command_line_gives_a_traceback(lab: Lab, daemon: Start) -> None:
    """Beside a daemon that runs, so that none of them becomes one."""
    lab.veths("va", "vb")
    running = daemon({"va": "vb"})
    lines: dict[str, list[Line]] = {}
    for line in odd_lines(arguments.make_parser()):
        lines.setdefault(line[0], []).append(line)
    chosen = [each for some in lines.values() for each in random.Random(1).sample(some, SAMPLE)]
    chosen += [[*line, "va", "va"] for line in (["status"], ["status", "--watch", "--filter"])]
    surroundings = running._surroundings() | {"cwd": lab.directory}
    done = subprocess.run(
        ["nsenter", f"--net=/run/netns/{lab.host}", sys.executable, "-c", EACH],
        **surroundings,
        input=json.dumps(chosen),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    running.assert_no_traceback()
