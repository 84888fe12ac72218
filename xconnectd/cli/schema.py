"""``schema``: the JSON Schema of the file."""

from __future__ import annotations

import argparse
import json

from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.output import print_as_it_is
from xconnectd.config import json_schema


def run(_options: argparse.Namespace) -> int:
    print_as_it_is(json.dumps(json_schema.document(), indent=2))
    return Exit.DONE
