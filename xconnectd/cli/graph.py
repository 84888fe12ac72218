"""``graph``: the wiring as a picture."""

from __future__ import annotations

import argparse
import subprocess
from contextlib import closing

from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.output import print_as_it_is
from xconnectd.errors import XconnectError
from xconnectd.netlink import netns
from xconnectd.netlink.interfaces import Interfaces
from xconnectd.netlink.transport import Route
from xconnectd.status import collector, graph


def run(options: argparse.Namespace) -> int:
    report = collector.sampled(options.config)
    with closing(Route()) as route:
        known = netns.known(Interfaces(route).nsid_of)
    names = {nsid: each.name for nsid, each in known.items()}
    form = "dot" if options.format == "svg" else options.format
    drawn = graph.draw(report, form, names)
    print_as_it_is(_rendered(drawn) if options.format == "svg" else drawn, end="")
    return Exit.DONE


def _rendered(dot: str) -> str:
    try:
        done = subprocess.run(
            ("dot", "-Tsvg"), check=False, input=dot, capture_output=True, encoding="utf-8"
        )
    except FileNotFoundError:
        raise XconnectError(
            "--format svg needs Graphviz: install the package graphviz, or use --format mermaid"
        ) from None
    if done.returncode:
        raise XconnectError(f"dot -Tsvg: {done.stderr.strip()}")
    return done.stdout
