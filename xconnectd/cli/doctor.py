"""``doctor``: what is wrong with the host and with every link."""

from __future__ import annotations

import argparse
import json

from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.output import print_as_it_is, print_lines
from xconnectd.diagnostics import doctor


def run(options: argparse.Namespace) -> int:
    found = doctor.examine(options.config)
    if options.json:
        print_as_it_is(json.dumps(doctor.as_json(found)))
    else:
        print_lines(*doctor.lines(found))
    return Exit.DONE if doctor.is_well(found) else Exit.FAILED
