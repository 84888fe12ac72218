"""``status``: a table of the links as the kernel has them; ``--check`` and ``--health`` judge them.

What ``--health`` does not need is imported by the others: a container asks every few seconds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from typing import TYPE_CHECKING

from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.output import print_as_it_is, print_lines, print_message
from xconnectd.control import client, protocol
from xconnectd.formatting import counted
from xconnectd.model import State
from xconnectd.status.document import StatusDocument
from xconnectd.terminal import is_terminal, paint

if TYPE_CHECKING:
    from xconnectd.status.table import View


def run(options: argparse.Namespace) -> int:
    if contradiction := _contradiction(options):
        print_message(contradiction)
        return Exit.USAGE
    if options.health:
        return _health()
    if options.watch:
        from xconnectd.cli.watch import watch

        return watch(options)
    from xconnectd.status import reports, table, text

    report = reports.sampled(options.config, options.words)
    if options.json:
        print_as_it_is(json.dumps(report.as_json()))
    elif options.verbose:
        print_lines(*text.lines(report))
    else:
        _print_table(report, table.View.asked(options.sort, options.filter))
    healthy = all(each.state is State.CONNECTED for each in report.links if each.enabled)
    return Exit.FAILED if options.check and not (healthy and _usable(report)) else Exit.DONE


def _contradiction(options: argparse.Namespace) -> str:
    """Why these options of ``status`` do not go together; empty if they do."""
    table = options.sort or options.filter
    text = options.json or options.verbose
    if options.health and any(
        (options.words, options.config, text, options.watch, options.check, table)
    ):
        return "--health takes no link and no other option"
    if options.check and options.watch:
        return "--check and --watch cannot be combined"
    if options.verbose and options.watch:
        return "--watch and -v cannot be combined"
    if table and text:
        return "--sort and --filter cannot be combined with --json or -v"
    return ""


def _print_table(report: StatusDocument, view: View) -> None:
    """As wide as the terminal; for a pipe every reason and name is there in full."""
    from xconnectd.status import table, text

    rows = table.rows(report)
    shown = view.arrange(rows)
    width = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None
    columns = table.columns(shown, width)
    print_lines(*text.head(report), "", table.summary(rows, len(shown), view.wanted))
    if shown:
        print_lines("".join(table.line(columns)))
    for row in shown:
        before, state, rest = table.line(columns, row)
        print_as_it_is(before + paint(state, table.COLOURS[row.state], sys.stdout) + rest)
    print_lines(*text.notes(report))
    if table.is_cut(shown, columns):
        print_lines("", "reasons in full, counters and remedies: xconnectd status -v")


def _health() -> int:
    """Whether somebody has to act; a link that waits or is down is the other side's business.

    Asks the daemon alone: one that hangs, and so watches over nothing, does not answer.
    """
    with client.Connection(protocol.STATUS, client.HANG_TIMEOUT) as daemon:
        report = StatusDocument.from_json(daemon.status())
    failed = [each for each in report.links if each.state is State.FAILED]
    faults = [*report.config.problems, *(f"{each.link}: {each.reason}" for each in failed)]
    print_lines(*(faults or (f"healthy, {counted(len(report.links), 'link')}",)))
    return Exit.FAILED if faults else Exit.DONE


def _usable(report: StatusDocument) -> bool:
    """Without a good file and without a wire there is nothing that could be healthy."""
    return bool(report.links) or report.config.state == "loaded"
