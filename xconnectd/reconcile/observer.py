"""One look at the kernel: everything, or just what some names and interfaces have to do with.

It reads through the Protocols below, which ``netlink``, ``dataplane`` and ``state`` fulfil, and
gives the pure core an ``Observed`` and the links it is about.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, KeysView, Mapping
from dataclasses import replace
from itertools import count
from operator import attrgetter
from typing import Final, Protocol

from xconnectd.model import (
    Endpoint,
    Far,
    Interface,
    Link,
    Mode,
    MovedEnd,
    Observed,
    Programs,
    Record,
    Scope,
    Use,
    Wiring,
    XdpFeature,
)
from xconnectd.reconcile.mode_selection import choose


class Interfaces(Protocol):
    """What is asked of ``netlink.interfaces``."""

    def by_name(self, name: str) -> Interface | None: ...
    def by_index(self, ifindex: int) -> Interface | None: ...
    def all(self) -> dict[int, Interface]: ...
    def complete(self, interfaces: Iterable[Interface]) -> dict[int, Interface]: ...
    def xdp_features(self, ifindex: int) -> XdpFeature | None: ...
    def at(self, ifindex: int, nsid: int | None) -> Interface | None: ...


class HostUse(Protocol):
    """What is asked of ``netlink.host_use``."""

    def uses(self, interfaces: Iterable[Interface]) -> dict[int, tuple[Use, ...]]: ...
    def addresses(self, interface: Interface) -> tuple[Use, ...]: ...


class Maps(Protocol):
    """What is asked of ``dataplane.programs``."""

    @property
    def programs(self) -> Programs: ...
    def entry(self, key: int) -> int | None: ...
    def peer(self, key: int) -> int | None: ...
    def entries(self) -> dict[int, int]: ...
    def peers(self) -> dict[int, int]: ...
    def guarded(self, key: int) -> bool | None: ...
    def all_guarded(self) -> frozenset[int] | None: ...


class Records(Protocol):
    """What is asked of ``state.store``."""

    def records(self) -> Mapping[int, Record]: ...
    def named(self, name: str) -> Collection[int]: ...
    def programs(self) -> frozenset[int]: ...
    def moved_netns(self) -> tuple[MovedEnd, ...]: ...


class Observer:
    """Looks; keeps nothing from one look to the next."""

    def __init__(
        self,
        interfaces: Interfaces,
        host_use: HostUse,
        maps: Maps,
        records: Records,
        describe: Callable[[int], str] = "id {}".format,
    ) -> None:
        self._interfaces = interfaces
        self._host_use = host_use
        self._maps = maps
        self._records = records
        self._describe = describe

    def everything(self, wiring: Wiring) -> tuple[Observed, tuple[Link, ...]]:
        """All links of the wiring and all interfaces that are ours. One dump."""
        entries, peers = self._maps.entries(), self._maps.peers()
        interfaces = self._interfaces.all()
        names = {
            name: each.ifindex
            for each in interfaces.values()
            for name in (each.name, *each.altnames)
        }
        observed = Observed(
            interfaces=interfaces,
            names=names,
            entries=entries,
            peers=peers,
            programs=self._programs(),
            records=dict(self._records.records()),
            guarded=self._maps.all_guarded(),
        )
        wanted = {names.get(end.name) for link in wiring.links for end in link.ends}
        ours = [
            each
            for each in interfaces.values()
            if each.ifindex in wanted
            or each.ifindex in observed.entries
            or each.ifindex in observed.peers
            or each.ifindex in observed.records
            or observed.runs_ours(each)
        ]
        interfaces |= self._interfaces.complete(ours)
        return self._finish(observed, ours, wiring.links), wiring.links

    def narrow(self, wiring: Index, scope: Scope) -> tuple[Observed, tuple[Link, ...]]:
        """Only what ``scope`` has to do with: its links whole, their old and new partners."""
        records = self._records.records()
        look = _Look(wiring, self._interfaces, self._maps, self._records)
        look.follow(scope)
        covered = frozenset(index for index in look.seen if isinstance(index, int))
        observed = Observed(
            interfaces=look.interfaces | self._interfaces.complete(look.interfaces.values()),
            names=look.names,
            entries=look.entries,
            peers=look.peers,
            programs=self._programs(),
            records={index: records[index] for index in covered & records.keys()},
            guarded=self._guarded(covered),
            covered=covered,
        )
        links = tuple(wiring.in_order(look.links.values()))
        return self._finish(observed, list(look.interfaces.values()), links), links

    def _guarded(self, ifindexes: Iterable[int]) -> frozenset[int] | None:
        guarded = {ifindex: self._maps.guarded(ifindex) for ifindex in ifindexes}
        if None in guarded.values():
            return None
        return frozenset(ifindex for ifindex, is_guarded in guarded.items() if is_guarded)

    def _programs(self) -> Programs:
        programs = self._maps.programs
        return programs._replace(known=programs.known | self._records.programs())

    def _finish(
        self, observed: Observed, ends: Collection[Interface], links: Iterable[Link]
    ) -> Observed:
        """Adds what costs questions of its own, asked only where the answer matters."""
        complete = [observed.interfaces[end.ifindex] for end in ends]
        new = list(_new_ends(observed, links))
        uses = self._host_use.uses(new) if new else {}
        for end in complete:
            if end.ifindex not in uses:
                uses[end.ifindex] = self._host_use.addresses(end)
        observed = observed._replace(
            uses=uses,
            foreign=self._foreign(complete, observed.programs),
            moved_netns=self._moved_netns(observed.programs),
        )
        return self._with_xdp_features(observed, links)

    def _foreign(self, ends: Iterable[Interface], programs: Programs) -> dict[int, str]:
        ids = {xdp.program for end in ends for xdp in end.xdp} - programs.ours
        return {program: self._describe(program) for program in ids}

    def _moved_netns(self, programs: Programs) -> tuple[MovedEnd, ...]:
        """Those that are still where they went, as they are there now."""
        found = []
        for gone in self._records.moved_netns():
            device = self._interfaces.at(gone.new_ifindex or 0, gone.nsid)
            if device is not None and device.mac == gone.record.mac:
                modes = [xdp.mode for xdp in device.xdp if xdp.program in programs.ours]
                found.append(gone._replace(name=device.name, mode=modes[0] if modes else ""))
        return tuple(found)

    def _with_xdp_features(self, observed: Observed, links: Iterable[Link]) -> Observed:
        """A veth is asked only where native mode is asked for: it costs as much as a rewire."""
        asked = {
            end.ifindex: end._replace(xdp_features=self._interfaces.xdp_features(end.ifindex))
            for link in links
            if link.mode is Mode.NATIVE
            for end in map(observed.find, link.ends)
            if end is not None and end.kind
        }
        return observed._replace(interfaces={**observed.interfaces, **asked})


_ID: Final = attrgetter("id")
_NAME_A: Final = attrgetter("a.name")
_NAME_B: Final = attrgetter("b.name")


def _new_ends(observed: Observed, links: Iterable[Link]) -> Iterator[Interface]:
    """Those whose link does not stand yet: it may be a lock-out."""
    for link in links:
        a, b = observed.find(link.a), observed.find(link.b)
        for end, other in ((a, b), (b, a)):
            if end and not (other and observed.keeps(link, end, other)):
                yield end


class Index:
    """A wiring, to be asked by name in no time."""

    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring
        links = wiring.links
        # Without a loop of our own: a rewire among thousands of links must not take long.
        self._by_name = dict(zip(map(_NAME_A, links), links, strict=True))
        self._by_name.update(zip(map(_NAME_B, links), links, strict=True))
        self._order = dict(zip(map(_ID, links), count(), strict=False))

    @property
    def ids(self) -> KeysView[str]:
        """Of all links, in their order."""
        return self._order.keys()

    def link_of(self, name: str) -> Link | None:
        return self._by_name.get(name)

    def in_order(self, links: Iterable[Link]) -> list[Link]:
        return sorted(links, key=lambda link: self._order[link.id])

    def __contains__(self, name: str) -> bool:
        return name in self._by_name


class _Look:
    """Follows names and ifindexes to everything a change of them can touch.

    From an interface: the link that names it (by any of its names) with both ends, the
    interfaces it redirects to now, and its veth peer if that too is an end here (a cycle).
    """

    def __init__(
        self,
        wiring: Index,
        interfaces: Interfaces,
        maps: Maps,
        records: Records,
    ) -> None:
        self._wiring = wiring
        self._source = interfaces
        self._maps = maps
        self._known = records
        self._records = records.records()
        self._pending: list[str | int] = []
        self.interfaces: dict[int, Interface] = {}
        self.names: dict[str, int] = {}
        self.entries: dict[int, int] = {}
        self.peers: dict[int, int] = {}
        self.links: dict[str, Link] = {}
        self.seen: set[str | int] = set()

    def follow(self, scope: Scope) -> None:
        self._pending = [*scope.names, *scope.ifindexes]
        while self._pending:
            item = self._pending.pop()
            if item not in self.seen:
                self.seen.add(item)
                self._name(item) if isinstance(item, str) else self._index(item)

    def _name(self, name: str) -> None:
        if link := self._wiring.link_of(name):
            self._link(link)
        if name in self.names:
            return
        interface = self._source.by_name(name)
        found = interface.ifindex if interface else None
        if interface:
            self._interface(interface)
        if found is None or found not in self._records:
            self._pending += self._known.named(name)

    def _index(self, ifindex: int) -> None:
        for own, entries in (
            (self._maps.entry(ifindex), self.entries),
            (self._maps.peer(ifindex), self.peers),
        ):
            if own is not None:
                entries[ifindex] = own
                self._pending.append(own)
        if record := self._records.get(ifindex):
            self._pending.append(record.name)  # it may have another name by now
        if ifindex not in self.interfaces and (interface := self._source.by_index(ifindex)):
            self._interface(interface)

    def _interface(self, interface: Interface) -> None:
        self.interfaces[interface.ifindex] = interface
        self._pending.append(interface.ifindex)
        for name in (interface.name, *interface.altnames):
            self.names[name] = interface.ifindex
            if name in self._wiring:
                self._pending.append(name)
        if interface.far and interface.far.nsid is None:
            self._far(interface.far)

    def _far(self, far: Far) -> None:
        if far.ifindex in self._records:
            self._pending.append(far.ifindex)
        elif peer := self._source.by_index(far.ifindex):
            self._pending += [n for n in (peer.name, *peer.altnames) if n in self._wiring]

    def _link(self, link: Link) -> None:
        self.links[link.id] = link
        self._pending += [end.name for end in link.ends]


def wiring_in_kernel(observed: Observed) -> Wiring:
    """The wires that stand in the kernel, as a file would ask for exactly them.

    For a start without a good file: what forwards goes on, what is disabled stays so, what is held
    alone stays held (as a loopback that is disabled), and nothing else is made.
    """
    links: dict[frozenset[int], Link] = {}
    for mode, entries in ((None, observed.entries), (Mode.TC, observed.peers)):
        for key, target in entries.items():
            a, b = observed.interfaces.get(key), observed.interfaces.get(target)
            if a and b and entries.get(target) == key:
                links.setdefault(frozenset((key, target)), _as_found(a, b, mode, observed))
    wired = frozenset().union(*links)
    for a, b in _idle_pairs(observed, wired):
        in_tc = observed.programs.ours.isdisjoint(each.program for each in a.xdp)
        link = _as_found(a, b, Mode.TC if in_tc else None, observed)
        links.setdefault(frozenset((a.ifindex, b.ifindex)), replace(link, enabled=False))
    return Wiring(tuple(links.values()))


def _idle_pairs(
    observed: Observed, wired: Collection[int]
) -> Iterator[tuple[Interface, Interface]]:
    """The ends that are held and not wired, each with its partner if that is held for it too."""
    idle = {
        each.ifindex: (each, record.idle_with)
        for each in observed.interfaces.values()
        if (record := observed.records.get(each.ifindex)) and record.is_of(each)
        if each.ifindex not in wired and observed.runs_ours(each)
    }
    for a, partner in idle.values():
        b, back = idle.get(partner, (a, None)) if partner is not None else (a, None)
        yield (a, b) if back == a.ifindex else (a, a)


def _as_found(a: Interface, b: Interface, mode: Mode | None, observed: Observed) -> Link:
    found = mode or next((Mode(xdp.mode) for xdp in a.xdp if xdp.mode != "hw"), Mode.AUTO)
    records = (observed.records.get(end.ifindex) for end in (a, b))
    allowed = any(record.allowed for record in records if record)
    link = Link(Endpoint(a.name), Endpoint(b.name), allow_addressed=allowed)
    return link if choose(link, a, b).mode is found else replace(link, mode=found)
