"""``check``: whether a file is good, and with ``--here`` whether its ends and nodes exist.

Without ``--here`` it needs neither root nor pyroute2: it has to run on a laptop, in a commit hook.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Final

from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.output import print_lines
from xconnectd.config import hosts, reader
from xconnectd.config.identity import Identity
from xconnectd.config.source import Files
from xconnectd.errors import ConfigError, Problem
from xconnectd.formatting import counted
from xconnectd.model import Endpoint, Link, Node, Place, Wiring
from xconnectd.paths import DEFAULT_CONFIG

_STDIN: Final = Path("-")
_TIMEOUT: Final = 3.0
"""Seconds for container engines to answer in."""


def run(options: argparse.Namespace) -> int:
    path: Path = options.file or DEFAULT_CONFIG
    problems, wiring, files = _of_stdin() if path == _STDIN else _of_path(path)
    print_lines(*problems, *wiring.warnings)
    if problems:
        return Exit.BAD_CONFIG
    of_hosts = f" of {counted(len(wiring.hosts), 'host')}" if wiring.hosts else ""
    print_lines(f"{path}: good, {counted(len(wiring.links), 'link')}{of_hosts}")
    absent = _away(files) if options.here else []
    print_lines(*sorted(absent))
    return Exit.FAILED if absent else Exit.DONE


_Judged = tuple[Sequence[Problem], Wiring, Mapping[Path, Wiring]]
"""What is wrong, all that is asked for, and the same by file."""


def _of_path(path: Path) -> _Judged:
    files = Files(path)
    reading = files.judge()
    return reading.problems, reading.wiring, files.good


def _of_stdin() -> _Judged:
    name = Path(reader.STDIN)
    try:
        wiring = reader.parsed(reader.read_stdin(), name)
    except ConfigError as error:
        return error.problems, Wiring(), {}
    return (), wiring, {name: wiring}


def _away(files: Mapping[Path, Wiring]) -> list[Problem]:
    """What this host does not have now."""
    from xconnectd.netlink.own_addresses import own_addresses

    known = chain.from_iterable(wiring.hosts for wiring in files.values())
    if any(wiring.hosts for wiring in files.values()):
        host = Identity(own_addresses).among(known)
        files = {path: hosts.links_of(wiring, host) for path, wiring in files.items()}
    return [*_absent_here(files), *_nodes_away(files)]


def _absent_here(files: Mapping[Path, Wiring]) -> list[Problem]:
    """The ends that do not exist on this machine now; what is missing in a node is made."""
    from xconnectd import spelling
    from xconnectd.netlink.interfaces import Interfaces
    from xconnectd.netlink.transport import Route

    with closing(Route()) as route:
        found = Interfaces(route).all().values()
    here = {name for each in found for name in (each.name, *each.altnames)}
    ends = [(path, link, end) for path, link, end in _ends(files) if not end.node]
    named = {end.name for _, _, end in ends}
    near = spelling.meant(named - here, here - named)
    return [
        Problem(
            str(path),
            *(link.place or Place(1, 1)),
            f"{end} does not exist here now",
            f"did you mean {near[end.name]}?" if end.name in near else "",
        )
        for path, link, end in ends
        if end.name not in here
    ]


def _nodes_away(files: Mapping[Path, Wiring]) -> Iterator[Problem]:
    """The nodes that are not found now, each where it is named first."""
    named: dict[Node, Problem] = {}
    for path, link, end in _ends(files):
        if end.node:
            named.setdefault(end.node, Problem(str(path), *(link.place or Place(1, 1)), ""))
    if not named:
        return
    from xconnectd.nodes.finder import Nodes

    with closing(Nodes(follow=False, timeout=_TIMEOUT)) as nodes:
        nodes.want(named)
        for node, place in named.items():
            found = nodes.find(node)
            if not found.path:
                yield place._replace(text=found.reason)


def _ends(files: Mapping[Path, Wiring]) -> Iterator[tuple[Path, Link, Endpoint]]:
    for path, wiring in files.items():
        ends = ((link, end) for link in wiring.links for end in link.ends if not end.tunnel)
        yield from ((path, link, end) for link, end in ends)
