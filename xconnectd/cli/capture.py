"""``capture``: the frames of links, live."""

from __future__ import annotations

import argparse
import sys

from xconnectd.capture import session
from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.output import print_message
from xconnectd.pcap_filter import FilterError


def run(options: argparse.Namespace) -> int:
    if options.write == session.STDOUT and sys.stdout.isatty():
        print_message("pcapng is no text for a terminal: use -w FILE or a pipe")
        return Exit.USAGE
    order = session.Order(
        words=(options.link, *options.words),
        direction=options.direction,
        write=options.write,
        plain=options.plain,
        count=options.count,
        snaplen=options.snaplen,
        room=options.buffer << 20,
    )
    try:
        session.run(order, print_message)
    except FilterError as error:
        print_message(str(error))
        return Exit.USAGE
    return Exit.DONE
