"""``graph``: the wiring as a picture."""

from __future__ import annotations

import argparse
import subprocess
from contextlib import closing
from pathlib import Path

from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.output import print_as_it_is
from xconnectd.config.source import Files
from xconnectd.errors import XconnectError
from xconnectd.model import Link
from xconnectd.netlink import netns
from xconnectd.netlink.interfaces import Interfaces
from xconnectd.netlink.transport import Route
from xconnectd.nodes import container_names
from xconnectd.status import graph, reports
from xconnectd.status.document import StatusDocument


def run(options: argparse.Namespace) -> int:
    report = reports.sampled(options.config)
    form = "dot" if options.format == "svg" else options.format
    drawn = graph.draw(report, form, _namespaces(report), _elsewhere(report))
    print_as_it_is(_rendered(drawn) if options.format == "svg" else drawn, end="")
    return Exit.DONE


def _namespaces(report: StatusDocument) -> dict[int, str]:
    """By their ids here the names of those with far ends: that of the container, if it is one."""
    with closing(Route()) as route:
        known = netns.known(Interfaces(route).nsid_of)
    shown = {end.far_nsid for link in report.links for end in link.ends if not end.node}
    places = {nsid: known[nsid] for nsid in known.keys() & shown}
    containers = container_names.of_processes(
        [place.process for place in places.values() if place.process]
    )
    return {nsid: containers.get(each.process, each.name) for nsid, each in places.items()}


def _elsewhere(report: StatusDocument) -> list[Link]:
    """The links of the file in which this host has no part."""
    if not report.host:
        return []
    whole = Files(Path(report.config.path)).read().wiring
    hosts = ((link, {end.host for end in link.ends}) for link in whole.links)
    return [link for link, found in hosts if found.isdisjoint(("", report.host))]


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
