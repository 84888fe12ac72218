"""What ``status --json`` tells, as text for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from xconnectd import impairment
from xconnectd.formatting import bit_rate, counted, duration, number, printable
from xconnectd.model import Rewrite
from xconnectd.status import drop_reasons
from xconnectd.status.document import Config, Daemon, End, Link, Peer, StatusDocument


def lines(told: StatusDocument) -> Iterator[str]:
    """The daemon and its file, then all of every link, then what else is to be known."""
    yield from head(told)
    yield ""
    yield from map(printable, (line for each in told.links for line in _link(each)))
    yield from notes(told)


def head(told: StatusDocument) -> Iterator[str]:
    """The daemon and its file."""
    return map(printable, _daemon(told.daemon, told.config, told.host))


def notes(told: StatusDocument) -> Iterator[str]:
    """What concerns no link alone."""
    return map(printable, _notes(told))


def _notes(told: StatusDocument) -> Iterator[str]:
    if told.unseen:
        yield f"note: this is the daemon's report; {told.unseen}"
    for note in filter(None, (told.drop_stats_unavailable, told.guard_unavailable)):
        yield f"note: {note}"
    for gone in told.moved_netns:
        where = f"moved to another namespace with our program: {gone.interface}"
        yield f"{where}; remove it there: {gone.remedy}"
    if told.differences:
        yield ""
        count = counted(len(told.differences), "difference")
        yield f"{count} between file and kernel (see xconnectd plan)"


def _daemon(daemon: Daemon, file: Config, host: str) -> Iterator[str]:
    yield f"daemon: {_in_words(daemon)}"
    yield f"file:   {file.path}: {file.state} {file.hash}".rstrip()
    for problem in file.problems:
        yield f"        {problem}"
    if host:
        yield f"host:   {host}"
    if daemon.trial:
        yield f"try:    {daemon.trial.hash} is tried, and reverted unless it is confirmed"
        if daemon.trial.edited:
            yield "        a file was changed meanwhile; it is read when the try ends"
    if metrics := daemon.metrics:
        problem = f": not yet: {metrics.problem}" if metrics.problem else ""
        yield f"metrics: {metrics.listen}{problem}"


def _in_words(daemon: Daemon) -> str:
    if not daemon.running:
        return "not running"
    if not daemon.answers:
        return f"pid {daemon.pid} does not answer (see xconnectd doctor)"
    return f"running, pid {daemon.pid}"


def _link(link: Link) -> Iterator[str]:
    yield f"{link.a.name} {'→' if link.one_way else '—'} {link.b.name}  {link.state}  {link.mode}"
    yield from _about(link)
    for here, there in link.ways[:1] if link.one_way else link.ways:
        yield f"    {_way(here, there)}"
    if link.peer:
        yield from (f"    {line}" for line in _peer(link.peer, link.digest))
    if link.impair:
        yield from (f"    {line}" for line in _impaired(link, link.impair))
    for end in link.ends:
        if not (link.peer and end.host_interface == link.peer.device):
            yield from (f"    {line}" for line in _end(end))
    for lost in link.drops:
        way_out = f" ({lost.remedy})" if lost.remedy else ""
        frames = counted(lost.frames, "frame")
        yield f"    lost {lost.source} → {lost.target}: {frames}, {lost.text}{way_out}"
    for end in link.ends:
        if end.passed_to_host:
            text, remedy = drop_reasons.passed(end.name, end.passed_to_host, link.mode)
            yield f"    error: {text} ({remedy})"
    for warning in link.warnings:
        yield f"    warning: {warning}"


def _about(link: Link) -> Iterator[str]:
    if link.description:
        yield f"    {link.description}"
    if link.reason:
        yield f"    {link.reason}"
    if link.retry_in_s is not None:
        soon = f"in {duration(link.retry_in_s)}" if link.retry_in_s >= 0.05 else "now"
        yield f"    retrying {soon}"
    if link.mode_reason:
        yield f"    {link.mode}: {link.mode_reason}"
    if link.rewrite != Rewrite.NONE:
        yield f"    rewrite: {link.rewrite}"


def _impaired(link: Link, impair: Mapping[str, Any]) -> Iterator[str]:
    for way, (here, there) in zip(("forward", "reverse"), link.ways, strict=False):
        if words := impairment.in_words(impair.get(way, {})):
            end = impair.get("ends_in_s")
            until = "until it is cleared" if end is None else f"for {duration(end)} more"
            passing = f" ({until})" if way in impair.get("passing", ()) else ""
            yield f"impaired {here.name} → {there.name}: {words}{passing}"


def _peer(peer: Peer, digest: str) -> Iterator[str]:
    """Where the tunnel leads, and what is known of the other side."""
    device = f"by {peer.device} " if peer.device else ""
    way = f"tunnel {device}to {peer.address}, VNI {peer.vni}, UDP port {peer.port}"
    rest = "lost" if ":" in peer.address else "fragmented"  # vxlan over IPv6 fragments nothing
    whole = f"whole up to an MTU of {peer.mtu}, what is longer is {rest}"
    yield f"{way}: {'no route' if peer.mtu is None else whole}"
    if not peer.host:
        return
    if peer.alive is None:
        yield f"{peer.host}: not known how it is: nobody here listens"
    elif peer.last_heard_age_s is None:
        yield f"{peer.host}: its daemon has not been heard"
    else:
        yield f"{peer.host}: {', '.join(_heard(peer, digest))}"
    if unverified := peer.keepalives.unverified:
        frames = counted(unverified, "keepalive")
        yield f"{peer.host}: {frames} did not verify: is hosts_key the same there?"


def _heard(peer: Peer, digest: str) -> Iterator[str]:
    yield f"{peer.state or 'not told how it is'} there" + (f" ({peer.cause})" if peer.cause else "")
    if peer.digest and digest and peer.digest != digest:
        yield f"its wiring of this link has the hash {peer.digest}, here {digest}"
    yield f"heard {duration(peer.last_heard_age_s)} ago"
    if peer.round_trip_ms is not None:
        yield f"round trip {peer.round_trip_ms:.2f} ms"
    if peer.frames is not None:
        lost = f" and {number(peer.dropped)} dropped" if peer.dropped else ""
        yield f"{number(peer.frames)} frames handed on there{lost}"


def _end(end: End) -> Iterator[str]:
    if end.node and end.host_interface:
        yield f"{end.name} is {end.host_interface} here"
    if end.carrier_reason:
        yield f"{end.name} keeps its own carrier: {end.carrier_reason}"


def _way(here: End, there: End) -> str:
    told = (
        f"{here.name} → {there.name}: {number(here.frames)} frames,"
        f" {number(here.bytes)} bytes, {_rate(here)}"
    )
    blocked = here.dropped.get("host_egress")
    return f"{told}; {counted(blocked, 'host frame')} blocked (expected)" if blocked else told


def _rate(end: End) -> str:
    if end.frames_per_s is None:
        return "no rate yet"
    return f"{number(end.frames_per_s)} frames/s, {bit_rate(end.bits_per_s)}"
