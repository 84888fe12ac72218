"""``version``: versions of the parts."""

from __future__ import annotations

import argparse
import json

from xconnectd.cli.exit_codes import Exit
from xconnectd.diagnostics import versions


def run(options: argparse.Namespace) -> int:
    found = versions.of_all()
    if options.json:
        print(json.dumps(found))
    else:
        for name, text in found.items():
            print(f"{name} {text or 'not installed'}")
    return Exit.DONE
