"""``detach``: removes what is ours from interfaces while no daemon runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from xconnectd import events
from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.output import print_message
from xconnectd.errors import BusyError
from xconnectd.events import Trigger
from xconnectd.runtime import Engine

_UNJUDGED: Final = (
    "{path} has records of changes to {names} that seem to be from another boot, so nothing is"
    " restored. If this runs in a container with its own /proc, run it on the host; if the machine"
    " has booted since: rm -r {path}"
)


def run(options: argparse.Namespace) -> int:
    if bool(options.words) == options.all:
        print_message("name the interfaces, or use --all")
        return Exit.USAGE
    events.setup(level="warning")
    try:
        engine = Engine.take_what_is_there()
    except BusyError as error:
        print_message(f"{error}: remove the links from its file instead")
        return Exit.FAILED
    with engine:
        if names := engine.ledger.unjudged:
            print_message(_UNJUDGED.format(path=engine.ledger.path, names=", ".join(names)))
            return Exit.FAILED
        problems = _not_ours(engine, options.words)
        if options.all:
            problems += engine.detach(Trigger.COMMAND)
        else:
            problems += engine.reconciler.detach(Trigger.COMMAND, options.words)
        for gone in engine.ledger.moved_netns:
            print_message(
                f"{gone.record.name} was moved to another namespace; remove our program there:"
                f" {gone.remedy}"
            )
    for problem in problems:
        print_message(problem)
    return Exit.FAILED if problems else Exit.DONE


def _not_ours(engine: Engine, names: Sequence[str]) -> list[str]:
    """What to say of names by which there is nothing to remove."""
    seen = engine.reconciler.look()
    in_nodes = {each.ifindex: each.end for each in seen.observed.records.values() if each.end}
    called = {**seen.observed.names, **{end: ifindex for ifindex, end in in_nodes.items()}}
    held = {action.interface.ifindex: action.interface.name for action in seen.actions}
    ours = {ifindex: in_nodes.get(ifindex, name) for ifindex, name in held.items()}
    known = ", ".join(sorted(ours.values())) or "none"
    wrong = [name for name in names if called.get(name) not in ours]
    return [f"{name}: xconnectd is not attached there; attached: {known}" for name in wrong]
