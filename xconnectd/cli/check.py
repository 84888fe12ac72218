"""``check``: whether a file is good, and with ``--here`` whether its ends exist.

Without ``--here`` it needs neither root nor pyroute2: it has to run on a laptop, in a commit hook.
"""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path

from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.output import print_lines
from xconnectd.config.source import Files
from xconnectd.errors import Problem
from xconnectd.formatting import counted
from xconnectd.model import Place
from xconnectd.paths import DEFAULT_CONFIG


def run(options: argparse.Namespace) -> int:
    path: Path = options.file or DEFAULT_CONFIG
    named = Files(path)
    reading = named.judge()
    print_lines(*reading.problems, *reading.wiring.warnings)
    if reading.problems:
        return Exit.BAD_CONFIG
    print_lines(f"{path}: good, {counted(len(reading.wiring.links), 'link')}")
    absent = _absent_here(named) if options.here else []
    print_lines(*absent)
    return Exit.FAILED if absent else Exit.DONE


def _absent_here(source: Files) -> list[Problem]:
    """The ends that do not exist on this machine now."""
    from xconnectd import spelling
    from xconnectd.netlink.interfaces import Interfaces
    from xconnectd.netlink.transport import Route

    with closing(Route()) as route:
        found = Interfaces(route).all().values()
    here = {name for each in found for name in (each.name, *each.altnames)}
    pairs = [(path, link) for path, wiring in source.good.items() for link in wiring.links]
    named = {end.name for _, link in pairs for end in link.ends}
    near = spelling.meant(named - here, here - named)
    return [
        Problem(
            str(path),
            *(link.place or Place(1, 1)),
            f"{end} does not exist here now",
            f"did you mean {near[end.name]}?" if end.name in near else "",
        )
        for path, link in pairs
        for end in link.ends
        if end.name not in here
    ]
