"""``try``: applies a file, and goes back unless somebody confirms it."""

from __future__ import annotations

import argparse
import select
import sys
from pathlib import Path
from typing import Final

from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.output import print_lines, print_message
from xconnectd.config import reader
from xconnectd.config.source import read_once
from xconnectd.control.try_client import Trial
from xconnectd.errors import ConfigError

_REVERTED: Final = "reverted to the previous wiring"


def run(options: argparse.Namespace) -> int:
    content = read_once(options.file)
    return attempt(options.file, content, options.timeout, options.instead, yes=options.yes)


def attempt(
    file: Path, content: reader.Content, timeout: float, instead: str = "", *, yes: bool = False
) -> int:
    """Has the daemon apply what may become the file's content; returns an exit code."""
    with Trial(file, content) as trial:
        early = "y\n" if yes else _typed_ahead()
        if early == "":
            print_message(
                "nobody can confirm it: standard input is closed; --yes keeps it without asking"
            )
            return Exit.USAGE
        trial.start(timeout, instead)
        print_lines(trial.summary, *trial.waiting)
        if not _confirmed(trial, early):
            print_lines(_REVERTED)
            return Exit.FAILED
        try:
            trial.keep()
        except (ConfigError, OSError):
            print_lines(_REVERTED)
            raise
        print_lines(f"kept in {trial.place}")
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
    print(f"Keep this wiring? It is reverted in {trial.timeout:.0f} s. [y/N] ", end="")
    sys.stdout.flush()
    ready, _, _ = select.select([sys.stdin], [], [], trial.timeout)
    answer = sys.stdin.readline() if ready else ""
    if not answer.endswith("\n"):
        print()
    return _is_yes(answer)


def _is_yes(answer: str) -> bool:
    return answer.strip().lower() in ("y", "yes")
