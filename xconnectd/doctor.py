"""The ``doctor``: everything that could be wrong, on the host and on every link.

Without the rights to look, the links are what the daemon says of them. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from xconnectd import control, diagnosis, facts, files, overview, requirements
from xconnectd.diagnosis import Finding, Level
from xconnectd.engine import Engine
from xconnectd.errors import HiddenError, PrivilegeError
from xconnectd.files import Files

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
            found = _from_outside(file or overview.file_of(engine))
            unseen = Finding(Level.FAIL, "pins", hidden.reason, hidden.remedy)
            return {**found, "host": (*found["host"], unseen)}


def _from_inside(engine: Engine, file: Path | None) -> Findings:
    source, reading, seen = overview.look(engine, file)
    host = facts.host(source, reading, len(engine.programs.ours))
    examiner = facts.Examiner(engine, seen, host.config, facts.repair(host.config))
    departed = diagnosis.of_departed(seen.observed.departed)
    return {
        "host": (*requirements.of_host(host), *departed),
        **{each.link.id: diagnosis.of_link(examiner.look(each)) for each in seen.verdicts},
    }


def _from_outside(file: Path | None) -> Findings:
    try:
        with control.Connection(control.STATUS, control.PATIENCE) as daemon:
            told = daemon.status()
    except control.NoDaemonError:
        told = {"config": {"path": None}, "links": []}
    known = file or told["config"]["path"]
    source = Files(Path(known or files.DEFAULT))
    host = facts.host(source, source.read(), None)
    if host.pid is not None and not known:
        host = replace(host, config="the daemon's file", config_state="")
    return {
        "host": requirements.of_host(host),
        **{each["link"]: diagnosis.of_report(each) for each in told["links"]},
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
