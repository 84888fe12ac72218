"""What ``status`` tells of a look at the kernel, with what only the daemon knows.

Who may not read the kernel is shown what the daemon tells, and so is who cannot see the pins from
where he stands. What neither can tell is an error, never a guess. Changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from xconnectd import underlay
from xconnectd.config.identity import Identity
from xconnectd.config.source import Files, Reading
from xconnectd.control import client, protocol
from xconnectd.control.lock import running_pid
from xconnectd.dataplane import libbpf
from xconnectd.dataplane.pins import BPFFS
from xconnectd.errors import HiddenError, PrivilegeError
from xconnectd.model import Endpoint, Heard, State, Wiring
from xconnectd.netlink import netns
from xconnectd.netlink.own_addresses import own_addresses
from xconnectd.paths import DEFAULT_CONFIG
from xconnectd.reconcile.reconciler import Seen
from xconnectd.runtime import Engine
from xconnectd.status import builder, daemons_report
from xconnectd.status.document import Daemon, Link, StatusDocument


def report(file: Path | None, told: StatusDocument | None) -> StatusDocument:
    """Of a look at the kernel, beside what the daemon has ``told``; ``file`` is its own if None.

    Raises:
        NoDaemonError: the kernel may not be read, and no daemon answers.
        HiddenError: the pins cannot be seen from here, and no daemon answers.
    """
    try:
        engine = Engine.watch()
    except (PrivilegeError, PermissionError):
        if told:
            return told
        with client.Connection(protocol.STATUS) as daemon:
            return StatusDocument.from_json(daemon.status())
    with engine:
        return report_of(engine, file, told)


def sampled(file: Path | None, links: Sequence[str], seconds: float) -> StatusDocument | None:
    """As ``report``, with rates over ``seconds``; None where no counters can be read."""
    with suppress(PrivilegeError, PermissionError), Engine.watch() as engine:
        if parts := [*engine.crossed_in_parts()]:
            since = time.monotonic()
            time.sleep(seconds)
            found = report_of(engine, file, daemons_report.ask()).only(links)
            counted = {
                key: (each.frames, each.bytes) for some in parts for key, each in some.items()
            }
            return found.rated(counted, time.monotonic() - since)
    return None


def file_of(engine: Engine) -> Path:
    """The file of this namespace's daemon, or of the last one here."""
    return engine.ledger.config() or DEFAULT_CONFIG


class Look(NamedTuple):
    """The files, the kernel beside them, and why links failed, by their ids: the daemon's words."""

    files: Files
    reading: Reading
    seen: Seen
    failures: Mapping[str, str]


def look(engine: Engine, file: Path | None) -> Look:
    """The links are those in the kernel if no file is good.

    So they are while the daemon tries another wiring than that of its files.

    Raises HiddenError: what the kernel has cannot be seen from here.
    """
    source, reading = _read(engine, file)
    told = daemons_report.ask()
    if _is_the_daemons(source, engine) and _is_trying(told):
        reading = reading._replace(wiring=Wiring(engine.reconciler.found()))
    found = seen(engine, reading, told)
    failures = {link: each.reason for link, each in _failed(told).items()}
    return Look(source, reading, found, failures)


def seen(engine: Engine, reading: Reading, told: StatusDocument | None = None) -> Seen:
    """The kernel beside what is wanted. What other hosts say only the daemon has heard.

    Raises HiddenError: a program of ours runs, or a daemon, and no maps can be read.
    """
    if reading.wiring.hosts:
        engine.told |= heard(told)
    engine.reconciler.want(reading.wiring)
    found = engine.reconciler.look()
    if engine.unseen:
        ours = found.observed.ours.values()
        if any(each.runs for each in ours) or running_pid() is not None:
            raise HiddenError(engine.unseen, _way_to_see(engine))
    return found


def heard(told: StatusDocument | None = None) -> dict[str, Heard]:
    """What the daemon has heard of other hosts, by the texts of ends there; it is asked for it.

    Without a daemon nothing is known.
    """
    told = told or daemons_report.ask()
    now = time.monotonic()
    return {
        end.name: each.peer.as_heard(now)
        for each in (told.links if told else ())
        if each.peer
        for end in each.ends
    }


def _way_to_see(engine: Engine) -> str:
    """Pins are hidden, or gone: with the mount namespace of a daemon that has ended, say."""
    if libbpf.is_bpffs(BPFFS):
        return f"{client.repair_here(str(file_of(engine)))}  # pins them again"
    if name := netns.own_name():
        there = netns.Namespace(netns.NAMED / name, name)
        return f"{there.prefix}xconnectd status  # `ip netns exec` hides pins, this does not"
    return f"look from where {BPFFS} is the daemon's"


def files(engine: Engine, path: Path) -> Files:
    """Those at ``path``, as this host has them."""
    return Files(path, identity=Identity(own_addresses, engine.ledger.host))


def _read(engine: Engine, file: Path | None) -> tuple[Files, Reading]:
    source = files(engine, file or file_of(engine))
    return source, source.read_first(engine.reconciler.found)


def _is_the_daemons(source: Files, engine: Engine) -> bool:
    return source.path.absolute() == engine.ledger.config()


def _is_trying(told: StatusDocument | None) -> bool:
    return told is not None and told.daemon.trial is not None


def report_of(engine: Engine, file: Path | None, told: StatusDocument | None) -> StatusDocument:
    source, reading = _read(engine, file)
    knows_best = reading.state != "loaded" or _is_trying(told)
    if told and knows_best and _is_the_daemons(source, engine):
        return told._replace(differences=())  # it knows the last good links, and what it tries
    try:
        found = seen(engine, reading, told)
    except HiddenError as hidden:
        if told and _is_the_daemons(source, engine):
            return told._replace(differences=(), unseen=str(hidden))
        raise
    drop_stats, guard = engine.drop_stats_unavailable, engine.guard_unavailable
    if told:  # it knows why, and not only that nothing is there
        drop_stats = drop_stats and (told.drop_stats_unavailable or drop_stats)
        guard = guard and (told.guard_unavailable or guard)
    built = builder.without_links(
        told.daemon if told else _silent_daemon(),
        reading,
        source.path,
        drop_stats_unavailable=drop_stats,
        guard_unavailable=guard,
        moved_netns=found.observed.moved_netns,
    )
    links = builder.links(
        engine.reconciler.assess(found.evaluations, found.observed),
        engine.counters(),
        engine.told,
        underlay.mtus(end.tunnel.remote for end in _far_ends(found) if end.tunnel),
    )
    known = {each.link: each for each in told.links} if told else {}
    return built._replace(
        links=tuple(_as_told(each, known.get(each.link)) for each in links),
        differences=builder.differences(found.actions),
    )


def _far_ends(found: Seen) -> Iterator[Endpoint]:
    return (end for each in found.evaluations if (end := each.link.tunnel_end))


def _silent_daemon() -> Daemon:
    """Of one that does not answer: at least whether there is one."""
    pid = running_pid()
    return Daemon(running=pid is not None, pid=pid)


def _failed(told: StatusDocument | None) -> dict[str, Link]:
    """The links by their ids that have failed, as the daemon says; none without one."""
    links = told.links if told else ()
    return {each.link: each for each in links if each.state is State.FAILED}


def _as_told(link: Link, told: Link | None) -> Link:
    """A link with what only the daemon knows.

    That is what it may not do in a node, and of a link that failed the kernel's words and the next
    try.
    """
    if told is None:
        return link
    warnings = tuple(dict.fromkeys((*link.warnings, *told.warnings)))
    if link.state is not State.FAILED or told.state is not State.FAILED:
        return link._replace(warnings=warnings)
    reason = told.reason if link.reason.startswith("not in the kernel") else link.reason
    return link._replace(reason=reason, retry_in_s=told.retry_in_s, warnings=warnings)
