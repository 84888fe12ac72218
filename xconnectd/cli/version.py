"""``version``: versions of the parts."""

from __future__ import annotations

import argparse
import json

from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.output import print_as_it_is, print_lines
from xconnectd.diagnostics import versions


def run(options: argparse.Namespace) -> int:
    found = versions.of_all()
    if options.json:
        print_as_it_is(json.dumps(found))
    else:
        print_lines(*(f"{name} {text or 'not installed'}" for name, text in found.items()))
    return Exit.DONE
