"""``status --watch``: a table on a terminal, lines of text elsewhere, until it is interrupted."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Final, NoReturn

from xconnectd.cli.exit_codes import Exit
from xconnectd.status import table, text
from xconnectd.status.reports import Looks
from xconnectd.status.table import View
from xconnectd.terminal import is_terminal

_INTERVAL: Final = 1.0
"""Seconds between two looks."""


def watch(options: argparse.Namespace) -> int:
    looks = Looks(options.config, options.words)
    view = View.asked(options.sort, options.filter)
    if options.json or not is_terminal(sys.stdout):
        _print_each_second(looks, view, as_json=options.json)
    from xconnectd.status import tui

    tui.show(looks, view, every=_INTERVAL)
    return Exit.DONE


def _print_each_second(looks: Looks, view: View, *, as_json: bool) -> NoReturn:
    """Every link at each look, and above them the daemon and its file where these have changed."""
    told: list[str] = []
    while True:
        time.sleep(_INTERVAL)
        report = looks()
        if as_json:
            lines = [json.dumps(report.as_json())]
        else:
            before, told = told, list(text.head(report))
            rows = view.arrange(table.rows(report))
            lines = [*(told if told != before else ()), *map(table.plain, rows)]
        for line in lines:
            print(line)
        sys.stdout.flush()
