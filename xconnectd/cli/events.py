"""``events``: every change the daemon tells of, as it comes."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from xconnectd.cli.output import print_lines
from xconnectd.control import client, protocol


def run(options: argparse.Namespace) -> int:
    with client.Connection(protocol.STATUS, timeout=None) as daemon:
        daemon.ask("events")
        while True:
            event = daemon.read()
            print(json.dumps(event)) if options.json else print_lines(_event_line(event))
            sys.stdout.flush()


def _event_line(event: dict[str, Any]) -> str:
    head = f"{event.pop('timestamp', '')} {event.pop('event', '')}"
    return " ".join((head, *(f"{name}={value}" for name, value in event.items())))
