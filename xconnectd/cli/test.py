"""``test``: frames through a link, or why none can be sent."""

from __future__ import annotations

import argparse
import json
import sys

from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.output import print_as_it_is, print_lines
from xconnectd.diagnostics import link_test


def run(options: argparse.Namespace) -> int:
    outcome, problems = link_test.test(options.link, options.config, options.count)
    for problem in problems:
        print_lines(*problem.lines(), file=sys.stderr)
    if options.json:
        print_as_it_is(json.dumps(outcome.as_json()))
    else:
        print_lines(*outcome.lines())
    return Exit.DONE if outcome.cause is None else Exit.FAILED
