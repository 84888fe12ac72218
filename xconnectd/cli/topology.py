"""``import``: a wiring from a containerlab topology, to be looked through and put into the file."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.output import print_as_it_is, print_lines, print_message
from xconnectd.config import containerlab, reader
from xconnectd.config.source import read_once


def run(options: argparse.Namespace) -> int:
    path: Path = options.file
    if path == Path("-"):
        name, data = reader.STDIN, reader.read_stdin().checked().data
    else:
        name, data = str(path), read_once(path).checked().data
    found = containerlab.imported(containerlab.expanded(data, os.environ), name)
    print_lines(*sorted((*found.left_out, *found.notes)), file=sys.stderr)
    if not found.text:
        print_message(f"{name}: no link of it can be one here")
        return Exit.FAILED
    print_as_it_is(found.text, end="")
    return Exit.DONE
