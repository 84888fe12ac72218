"""``reload``: makes the daemon read its files again."""

from __future__ import annotations

import argparse

from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.output import print_lines
from xconnectd.control import client, protocol


def run(_options: argparse.Namespace) -> int:
    with client.Connection(protocol.CONTROL) as daemon:
        outcome = daemon.ask("reload")
    print_lines(*outcome["problems"], outcome["summary"])
    return Exit.DONE if outcome["ok"] else Exit.BAD_CONFIG
