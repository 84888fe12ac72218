"""The ``doctor``: everything that could be wrong, on the host and on every link.

Without the rights to look, the links are what the daemon says of them. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from xconnectd.config.identity import Identity
from xconnectd.config.source import Files
from xconnectd.control import client, protocol
from xconnectd.diagnostics import host_checks, host_facts, link_checks
from xconnectd.diagnostics.finding import Finding, Level
from xconnectd.diagnostics.link_facts import LinkGatherer
from xconnectd.errors import HiddenError, PrivilegeError
from xconnectd.netlink.own_addresses import own_addresses
from xconnectd.paths import DEFAULT_CONFIG
from xconnectd.runtime import Engine
from xconnectd.status import collector
from xconnectd.status.document import StatusDocument

Findings = Mapping[str, tuple[Finding, ...]]
"""Those of the ``host``, and those of every link by its id."""


def examine(file: Path | None) -> Findings:
    try:
        engine = Engine.watch()
    except (PrivilegeError, PermissionError):
        return _from_outside(file)
    with engine:
        try:
            return _from_inside(engine, file)
        except HiddenError as hidden:
            found = _from_outside(file or collector.file_of(engine))
            unseen = Finding(Level.FAIL, "pins", hidden.reason, hidden.remedy)
            return {**found, "host": (*found["host"], unseen)}


def _from_inside(engine: Engine, file: Path | None) -> Findings:
    look = collector.look(engine, file)
    host = host_facts.gather(look.files, look.reading, len(engine.programs.ours))
    links = LinkGatherer(engine, look)
    seen = look.seen
    moved = link_checks.of_moved_netns(seen.observed.moved_netns)
    return {
        "host": (*host_checks.of_host(host), *moved),
        **{each.link.id: link_checks.of_link(links.gather(each)) for each in seen.evaluations},
    }


def _from_outside(file: Path | None) -> Findings:
    try:
        with client.Connection(protocol.STATUS, client.HANG_TIMEOUT) as daemon:
            told = StatusDocument.from_json(daemon.status())
    except client.NoDaemonError:
        told = StatusDocument()
    known = file or told.config.path
    named = Files(Path(known or DEFAULT_CONFIG), identity=Identity(own_addresses))
    host = host_facts.gather(named, named.read(), None)
    if host.pid is not None and not known:
        host = replace(host, config="the daemon's file", config_state="")
    return {
        "host": host_checks.of_host(host),
        **{each.link: link_checks.of_report(each) for each in told.links},
    }


def is_well(found: Findings) -> bool:
    return not any(each.level is Level.FAIL for each in chain.from_iterable(found.values()))


def as_json(found: Findings) -> dict[str, Any]:
    every = [{"where": where, **each.as_json()} for where, these in found.items() for each in these]
    return {"ok": is_well(found), "findings": every}


def lines(found: Findings) -> Iterator[str]:
    for where, these in found.items():
        yield where
        for each in these:
            yield from (f"  {line}" for line in each.lines())
