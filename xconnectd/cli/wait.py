"""``wait``: until links are connected, or the time is over."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.output import print_lines
from xconnectd.errors import HiddenError
from xconnectd.status import reports

_POLL: Final = 0.1


def run(options: argparse.Namespace) -> int:
    deadline = time.monotonic() + options.timeout
    while missing := _missing(options.config, options.words):
        if time.monotonic() >= deadline:
            print_lines(*(f"{link}: {why}" for link, why in missing.items()))
            return Exit.FAILED
        time.sleep(_POLL)
    return Exit.DONE


def _missing(file: Path | None, links: Sequence[str]) -> dict[str, str]:
    """What is not connected, with the reason; a daemon that only begins will yet be seen."""
    try:
        return reports.report(file).not_connected(links)
    except HiddenError as hidden:
        return {"xconnectd": str(hidden)}
