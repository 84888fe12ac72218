"""The status document of a look: link states and counters in, document out. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from xconnectd.config.source import Reading
from xconnectd.impairment import Impairment, Impairments, as_written
from xconnectd.model import Counters, End, Endpoint, Heard, MovedEnd, Tunnel
from xconnectd.reconcile import actions, impairments
from xconnectd.reconcile.actions import Action
from xconnectd.reconcile.link_state import LinkStatus
from xconnectd.status import document, drop_reasons
from xconnectd.status.document import StatusDocument

_NOTHING: Final[Mapping[str, Any]] = {}


def without_links(
    daemon: document.Daemon,
    reading: Reading,
    path: Path,
    *,
    moved_netns: Iterable[MovedEnd],
    drop_stats_unavailable: str = "",
    guard_unavailable: str = "",
) -> StatusDocument:
    """``path`` is what the files were asked for by."""
    return StatusDocument(
        daemon,
        _config(reading, path),
        (),
        tuple(
            document.Moved(gone.record.name, gone.record.ifindex, gone.remedy)
            for gone in moved_netns
            if gone.runs_ours
        ),
        drop_stats_unavailable,
        guard_unavailable,
        host=reading.wiring.host,
    )


def links(
    statuses: Iterable[LinkStatus],
    counters: Mapping[int, Counters],
    heard: Mapping[str, Heard] = _NOTHING,
    mtus: Mapping[str, int | None] = _NOTHING,
) -> Iterator[document.Link]:
    """``counters`` are keyed by ifindex.

    ``heard`` is what is known of the other sides of tunnels, by the texts of the ends there, and
    ``mtus`` are those of the ways to these, in bytes, by address.
    """
    return (_link(each, counters, heard, mtus) for each in statuses)


def differences(steps: Iterable[Action]) -> tuple[document.Difference, ...]:
    """Between what is wanted and the kernel, by what would be done about it."""
    return tuple(document.Difference(**each) for each in actions.as_json(steps))


def _config(reading: Reading, path: Path) -> document.Config:
    return document.Config(
        str(path),
        reading.state,
        reading.wiring.hash,
        tuple(map(str, reading.problems)),
        tuple(
            document.File(str(each.path), each.state, each.hash, tuple(map(str, each.problems)))
            for each in reading.files
        ),
    )


def _link(
    status: LinkStatus,
    counters: Mapping[int, Counters],
    heard: Mapping[str, Heard],
    mtus: Mapping[str, int | None],
) -> document.Link:
    link, a, b = status.link, status.a, status.b
    peer, far = None, link.tunnel_end
    if far and far.tunnel:
        device = (a if far is link.a else b).host_interface
        told, mtu = heard.get(far.text, Heard()), mtus.get(far.tunnel.remote)
        peer = _peer(far.host, far.tunnel, device, told, mtu)
    at_a, at_b = drop_reasons.of(a, counters), drop_reasons.of(b, counters)
    dropped = drop_reasons.counted(at_a, at_b), drop_reasons.counted(at_b, at_a)
    is_lossy = any(any(each.values()) for each in dropped)
    return document.Link(
        link.id,
        status.state,
        status.full_reason,
        None if status.retry is None else round(max(0.0, status.retry - time.time()), 1),
        str(status.mode),
        status.mode_reason,
        status.warnings,
        link.description,
        dict(link.labels),
        link.enabled,
        _end(link.a, a, at_a, dropped[0]),
        _end(link.b, b, at_b, dropped[1]),
        drop_reasons.explained(a, b, counters, enabled=link.enabled) if is_lossy else (),
        one_way=link.one_way,
        rewrite=link.rewrite.value,
        impair=_impair(link.impair) if link.impair else None,
        digest=link.digest,
        peer=peer,
    )


def _peer(host: str, tunnel: Tunnel, device: str, told: Heard, mtu: int | None) -> document.Peer:
    """``mtu`` is that of the way there."""
    return document.Peer(
        host,
        tunnel.remote,
        tunnel.vni,
        tunnel.port,
        device,
        None if mtu is None else mtu - tunnel.overhead,
        told.alive,
        told.reason,
        told.offers,
        told.cause,
        told.state,
        told.digest,
        None if told.last is None else round(max(0.0, time.monotonic() - told.last), 3),
        None if told.round_trip is None else round(told.round_trip * 1000, 3),
        told.frames,
        told.dropped,
        document.Keepalives(told.sent, told.echoed, told.received, told.unverified),
    )


def _impair(impair: Impairments) -> document.Json:
    """With the limit also where the file leaves it to us."""
    told: document.Json = {"forward": _one(impair.forward), "reverse": _one(impair.reverse)}
    left = None if impair.until is None else round(max(0.0, impair.until - time.time()), 1)
    return {**told, "passing": list(impair.passing), "ends_in_s": left}


def _one(one: Impairment) -> document.Json:
    waits = one.replaces_queue and not one.loses_all
    return as_written(one._replace(limit=impairments.limit(one)) if waits else one)


def _end(
    endpoint: Endpoint, end: End, counted: Counters, dropped: Mapping[str, int]
) -> document.End:
    node, interface = end.node, endpoint.interface
    if endpoint.host and endpoint.tunnel:
        node, _, interface = interface.rpartition(":")  # what the other host has it from
    return document.End(
        end.name,
        node,
        interface,
        end.host_interface,
        end.ifindex,
        end.attached,
        end.up,
        end.carrier,
        end.mtu,
        end.far_mtu,
        end.far_name or None,
        end.far_nsid,
        counted.frames,
        counted.bytes,
        last_frame_age_s=_age(counted.last),
        dropped=dropped,
        passed_to_host=counted.passed_to_host,
        offers=end.offers,
        shows_carrier=end.shows_carrier,
        carrier_reason=end.carrier_reason,
        host=endpoint.host,
    )


def _age(last: int) -> float | None:
    return round(max(0, time.monotonic_ns() - last) / 1e9, 3) if last else None
