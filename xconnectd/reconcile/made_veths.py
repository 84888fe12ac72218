"""Veths that are made for ends in nodes: names, and the steps that make and delete them. Pure.

One exists exactly while its link stands in the file and its node is not certainly away. It is
recorded before it is made, so that a crash leaves nothing unknown.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from xconnectd.digest import sha256
from xconnectd.model import Endpoint, Interface, Link, Made, NodeEnd, Observed
from xconnectd.reconcile.actions import Action, HoldMade, MakeVeth, SetFar, Unmake
from xconnectd.reconcile.evaluate import Evaluation, Role

_LONGEST: Final = 15
"""Characters of an interface's name (IFNAMSIZ, with its NUL: linux/if.h)."""
_HASHED: Final = 6
"""Letters of a hash in a name that does not fit: one of 10^9."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.]+:[A-Za-z0-9_.]+")
_NO_LINK: Final = "in no link any more"


def host_name(end: str) -> str:
    """What the interface here is called that is made for an end in a node (``leaf1:eth1``).

    ``leaf1-eth1`` where that fits and can be read one way only, else its beginning and a hash.
    """
    plain = end.replace(":", "-")
    if len(plain) <= _LONGEST and _PLAIN.fullmatch(end):
        return plain
    hashed = base64.b32encode(_hash(end)).decode().lower()[:_HASHED]
    readable = re.sub(r"[^A-Za-z0-9_.-]", "", plain)
    return f"{readable[: _LONGEST - _HASHED - 1]}-{hashed}"


def host_mac(end: str) -> str:
    """The MAC of the interface here."""
    return _mac(f"{end} here")


def far_mac(end: str) -> str:
    """That of the interface in the node, which stays the same when the node starts anew."""
    return _mac(f"{end} there")


def _mac(text: str) -> str:
    """Locally administered and of one station: the second lowest bit of the first byte."""
    return (b"\x02" + _hash(text)[:5]).hex(":")


def _hash(text: str) -> bytes:
    return sha256(text.encode(errors="surrogateescape")).digest()


# --------------------------------------------------------------------------- what goes


def unwanted(
    evaluations: Iterable[Evaluation], roles: Mapping[int, Role], observed: Observed
) -> tuple[dict[int, Made], tuple[Action, ...]]:
    """By ifindex those in this look that are to be deleted; and what forgets those that are gone.

    One whose interface here has a role is wanted by its own name: that is how wires are found when
    there is no good file.
    """
    wanted = {end.name for each in evaluations for end in each.link.ends if end.node or end.tunnel}
    deleted: dict[int, Made] = {}
    gone: list[Action] = []
    for made in observed.made.values():
        host = host_of(made, observed)
        if made.end in wanted and _stays(made, host, observed):
            continue
        if host is None:
            gone.append(Unmake("", template(made), _NO_LINK, made))
        elif host.ifindex not in roles:
            deleted[host.ifindex] = made
    return deleted, tuple(gone)


def _stays(made: Made, host: Interface | None, observed: Observed) -> bool:
    if host is None:
        place = observed.nodes.get(made.end)
        return place is None or place.is_missing  # it is made anew
    return observed.names.get(made.end) == host.ifindex


def host_of(made: Made, observed: Observed) -> Interface | None:
    """Its interface here, whatever somebody calls it by now."""
    for name in (made.name, made.end):
        index = observed.names.get(name)
        host = None if index is None else observed.interfaces.get(index)
        if host and host.mac == made.mac and host.kind == made.kind:
            return host
    ours = [host for host in observed.interfaces.values() if host.mac == made.mac]
    return next((host for host in ours if host.kind == made.kind), None)


# --------------------------------------------------------------------------- what is refused


class FarRefusal(NamedTuple):
    """What a far end was to be (``made``) and was refused, in words."""

    made: Made
    words: str


def with_refusals(observed: Observed, refused: Mapping[str, FarRefusal]) -> Observed:
    """The same, with warnings of ends that are not yet what was refused of them."""
    nodes = {**observed.nodes}
    for end in nodes.keys() & refused.keys() & observed.made.keys():
        known, words = nodes[end].warning, f"{end}: {refused[end].words}"
        if observed.made[end] != refused[end].made and words not in known:
            nodes[end] = nodes[end]._replace(warning="; ".join(filter(None, (known, words))))
    return observed._replace(nodes=nodes)


# --------------------------------------------------------------------------- what is made


def plan(
    evaluations: Iterable[Evaluation],
    observed: Observed,
    failed: Collection[str],
    refused: Mapping[str, FarRefusal],
    is_held_off: Callable[[str], bool],
) -> tuple[Action, ...]:
    """The steps that make what is missing and bring what is there into line with its link.

    Nothing is done for links (by id) that ``failed`` in the kernel and are not tried now. What was
    ``refused`` of a far end, by the text of the end, is not tried again. Nor is made again what
    somebody deletes in its node, while its link is held off. Far ends are set last, those of one
    namespace together.
    """
    made: list[Action] = []
    far: list[SetFar] = []
    links = [each.link for each in evaluations if each.link.id not in failed]
    for link, end, place in _in_running_nodes(links, observed):
        known = observed.made.get(end.name)
        host = host_of(known, observed) if known else None
        again = known is not None and known.namespace == place.inode
        if place.is_missing and again and is_held_off(link.id):
            continue
        if place.is_missing:
            new = Made(host_name(end.name), host_mac(end.name), end.name, link.mtu, place.inode)
            here, there, reason = template(new), end.interface, f"{end} does not exist"
            made += [
                HoldMade(link.id, here, "it is recorded before it is made", new),
                MakeVeth(link.id, here, reason, new, again, place.path, there, far_mac(end.name)),
            ]
        elif known and host and host.far and host.far.nsid == place.nsid:
            new = known._replace(name=host.name, settled=known.settled or host.far.up is True)
            here, there, reason = host, host.far.name, f"mtu: {link.mtu}"
            if new != known:
                made.append(HoldMade(link.id, here, "its name, or that it was set up", new))
        else:
            continue
        wanted = new._replace(mtu=link.mtu, settled=True)
        if wanted != new and (end.name not in refused or refused[end.name].made != wanted):
            is_new = not new.settled
            far.append(SetFar(link.id, here, reason, wanted, place.path, there, set_up=is_new))
    return (*made, *sorted(far, key=lambda step: step.path))


def _in_running_nodes(
    links: Iterable[Link], observed: Observed
) -> Iterator[tuple[Link, Endpoint, NodeEnd]]:
    """The ends of links whose nodes are there to be worked in, also of one that waits or fails."""
    for link in links:
        for end in link.ends:
            place = observed.nodes.get(end.name)
            if place and not place.refused and not place.waiting:
                yield link, end, place


def template(made: Made) -> Interface:
    """What is known of its interface here while there is none."""
    return Interface(0, made.name, kind=made.kind, mac=made.mac, mtu=made.mtu)
