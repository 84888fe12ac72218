"""``impair``: a passing trouble on a link, which the daemon ends in time."""

from __future__ import annotations

import argparse

from xconnectd import pcap_filter
from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.output import print_lines, print_message
from xconnectd.config import impairments
from xconnectd.control import client, protocol
from xconnectd.errors import ConfigError


def run(options: argparse.Namespace) -> int:
    words = options.words
    if options.clear == bool(words):
        print_message("either KEY=VALUE, such as delay=20ms, or --clear")
        return Exit.USAGE
    try:
        impairments.read_words(words, pcap_filter.fault)
    except ConfigError as error:
        for problem in error.problems:
            print_message(f"{problem.text} ({problem.hint})" if problem.hint else problem.text)
        return Exit.USAGE
    with client.Connection(protocol.CONTROL) as daemon:
        answer = daemon.ask(
            "impair",
            link=options.link,
            direction=options.direction,
            words=words,
            seconds=options.seconds,
        )
    if not answer["ok"]:
        print_message(answer["error"])
        return Exit.FAILED
    print_lines(*answer["lines"])
    return Exit.DONE
