"""``events``: every change the daemon tells of, as it comes."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from typing import Any

from xconnectd.control import client, protocol
from xconnectd.event_line import event_line
from xconnectd.formatting import printable
from xconnectd.terminal import paint


def run(options: argparse.Namespace) -> int:
    with client.Connection(protocol.STATUS, timeout=None) as daemon:
        daemon.ask("events")
        while True:
            event = daemon.read()
            if options.json:
                print(json.dumps(event))
            elif sys.stdout.isatty():
                print(event_line(event, partial(paint, stream=sys.stdout)))
            else:
                for line in _whole(event).expandtabs().split("\n"):
                    print(printable(line))
            sys.stdout.flush()


def _whole(event: dict[str, Any]) -> str:
    head = f"{event.pop('timestamp', '')} {event.pop('event', '')}"
    return " ".join((head, *(f"{name}={value}" for name, value in event.items())))
