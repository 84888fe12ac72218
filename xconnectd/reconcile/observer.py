"""One look at the kernel: everything, or just what some names and interfaces have to do with.

It gives the pure core an ``Observed`` and the links it is about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, KeysView, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from itertools import count, filterfalse
from operator import attrgetter
from typing import Final

from xconnectd.model import (
    Endpoint,
    Interface,
    Link,
    Made,
    Mode,
    MovedEnd,
    Node,
    NodeEnd,
    Observed,
    Programs,
    Record,
    Scope,
    Setting,
    Wiring,
)
from xconnectd.reconcile.ends_elsewhere import EndsElsewhere
from xconnectd.reconcile.made_tunnels import device_name
from xconnectd.reconcile.made_veths import host_name
from xconnectd.reconcile.ports import Dataplane, HostUse, Interfaces, Ledger, Nodes


class Observer:
    """Looks; keeps nothing from one look to the next."""

    def __init__(
        self,
        interfaces: Interfaces,
        host_use: HostUse,
        maps: Dataplane,
        records: Ledger,
        *,
        nodes: Nodes,
        describe: Callable[[int], str] = "id {}".format,
    ) -> None:
        self._nodes = nodes
        self._interfaces = interfaces
        self._host_use = host_use
        self._maps = maps
        self._records = records
        self._describe = describe

    def everything(self, wiring: Wiring) -> tuple[Observed, tuple[Link, ...]]:
        """All links of the wiring and all interfaces that are ours. One dump."""
        entries, peers, guarded = self._maps.look_up()
        interfaces = self._interfaces.all()
        names = _names(interfaces.values())
        nodes, tunnels = self._ends_elsewhere(wiring, interfaces, names)
        programs = self._programs()
        observed = Observed(
            interfaces=interfaces,
            names=names,
            entries=entries,
            peers=peers,
            programs=programs,
            records=dict(self._records.records),
            moved_netns=self._moved_netns(programs),
            guarded=guarded,
            nodes=nodes,
            tunnels=tunnels,
            made=dict(self._records.made),
        )
        wanted = {names.get(end.name) for link in wiring.links for end in link.ends}
        ours = [
            each
            for each in interfaces.values()
            if each.ifindex in wanted
            or each.ifindex in entries
            or each.ifindex in peers
            or each.ifindex in observed.records
            or observed.ours_on(each).runs
        ]
        return self._complete(observed, ours, wiring.links), wiring.links

    def _ends_elsewhere(
        self, wiring: Wiring, interfaces: Mapping[int, Interface], names: dict[str, int]
    ) -> tuple[dict[str, NodeEnd], dict[str, str]]:
        """By their texts; which interface here each is goes into ``names``."""
        nodes: dict[str, NodeEnd] = {}
        tunnels: dict[str, str] = {}
        if ends := ends_elsewhere(wiring.links):

            def here(wanted: str | int) -> Interface | None:
                index = names.get(wanted) if isinstance(wanted, str) else wanted
                return None if index is None else interfaces.get(index)

            look = EndsElsewhere(self._interfaces, self._nodes, self._records, here)
            for end in ends:
                if host := look.resolve(end, nodes, tunnels):
                    names[end.name] = host.ifindex
        return nodes, tunnels

    def narrow(self, wiring: Index, scope: Scope) -> tuple[Observed, tuple[Link, ...]]:
        """Only what ``scope`` has to do with: its links whole, their old and new partners."""
        look = _Look(wiring, self._interfaces, self._maps, self._records)
        if wiring.has_ends_elsewhere or self._records.made:
            look.elsewhere = EndsElsewhere(self._interfaces, self._nodes, self._records)
        look.follow(scope)
        covered = frozenset([each for each in look.seen if isinstance(each, int)])
        programs = self._programs()
        observed = Observed(
            interfaces=look.interfaces,
            names=look.names,
            entries=look.entries,
            peers=look.peers,
            programs=programs,
            records=self._records_of(covered),
            moved_netns=self._moved_netns(programs),
            guarded=look.guarded,
            covered=covered,
            nodes=look.nodes,
            tunnels=look.tunnels,
            made=look.made,
        )
        links = tuple(wiring.in_order(look.links.values()))
        return self._complete(observed, look.interfaces.values(), links), links

    def again(self, before: Observed, links: Iterable[Link], changed: AbstractSet[int]) -> Observed:
        """As ``before``, with all maps and records read anew, and the interfaces in ``changed``.

        Those are the ifindexes that a pass has changed something of. What somebody else did to
        other interfaces since is not seen here. It is an event, and whoever calls this must run
        another pass for every event on an interface that is not in ``changed``. What becomes of the
        far end of a veth is an event on that veth: far ends are read anew, too.
        """
        was, anew = before.interfaces, set(changed)
        # Of a veth that is set up or down, the other end loses or gets its carrier.
        fars = [each.far for ifindex, each in was.items() if ifindex in anew and each.far]
        anew.update([far.ifindex for far in fars if far.nsid is None and far.ifindex in was])
        found = {each.ifindex: each for each in self._interfaces.find(*anew)}
        interfaces = {i: each for i, each in was.items() if i not in anew} | found
        covered = before.covered or frozenset()
        entries, peers, guarded = self._maps.look_up(covered)
        names = _names(interfaces.values())
        if elsewhere := before.nodes.keys() | before.tunnels.keys():
            resolved = before.names.items()
            names |= {each: i for each, i in resolved if each in elsewhere and i in interfaces}
        programs = before.programs
        if not self._records.programs <= programs.ours:  # a filter was made meanwhile
            programs = self._programs()
        observed = before._replace(
            interfaces=interfaces,
            programs=programs,
            names=names,
            entries=entries,
            peers=peers,
            records=self._records_of(covered),
            guarded=guarded,
        )
        return self._complete(observed, found.values(), links)

    def _records_of(self, ifindexes: frozenset[int]) -> dict[int, Record]:
        records = self._records.records
        return {ifindex: records[ifindex] for ifindex in ifindexes & records.keys()}

    def _programs(self) -> Programs:
        programs, recorded = self._maps.programs, self._records.programs
        if recorded <= programs.ours:
            return programs
        return replace(programs, known=programs.known | recorded)

    def _complete(
        self, observed: Observed, ends: Iterable[Interface], links: Iterable[Link]
    ) -> Observed:
        """Adds what costs questions of its own, asked of these ends only."""
        complete = self._interfaces.complete(ends)
        interfaces = {**observed.interfaces, **complete}
        observed = observed._replace(interfaces=interfaces).told_apart()
        linked, new = observed.ends_of(links)  # a new one may be a lock-out
        uses = self._host_use.uses(
            [each for each in new if each.ifindex in complete],
            [each for each in linked if each.ifindex in complete],
            observed.interfaces.values() if observed.covered is None else (),
        )
        # A veth's XDP features are asked for only here: that costs as much as a rewire.
        native = [end.name for link in links if link.mode is Mode.NATIVE for end in link.ends]
        for ifindex in map(observed.names.get, native):
            if (end := complete.get(ifindex or 0)) and end.kind:
                features = self._interfaces.xdp_features(end.ifindex)
                complete[end.ifindex] = end._replace(xdp_features=features)
        impaired: set[int] = set()
        for link in links:
            if link.impair:
                impaired.update([each.ifindex for each in map(observed.find, link.ends) if each])
        for ifindex, held in observed.ours.items():
            if held.record and Setting.ROOT_QDISC in held.record.changes:
                impaired.add(ifindex)
        if impaired:
            roots = self._interfaces.roots(impaired & complete.keys())
            complete |= {i: complete[i]._replace(root=root) for i, root in roots.items()}
        return observed._replace(
            interfaces={**observed.interfaces, **complete},
            uses={**observed.uses, **uses},
            foreign={**observed.foreign, **self._foreign(complete.values(), observed.programs)},
        )

    def _foreign(self, ends: Iterable[Interface], programs: Programs) -> dict[int, str]:
        ids = {xdp.program for end in ends for xdp in end.xdp} - programs.ours
        return {program: self._describe(program) for program in ids}

    def moved_netns(self) -> tuple[MovedEnd, ...]:
        """Those that are still where they went, as they are there now."""
        return self._moved_netns(self._programs())

    def _moved_netns(self, programs: Programs) -> tuple[MovedEnd, ...]:
        found = []
        for gone in self._records.moved_netns:
            device = self._interfaces.at(gone.new_ifindex or 0, gone.nsid)
            if device is not None and device.mac == gone.record.mac:
                modes = [xdp.mode for xdp in device.xdp if xdp.program in programs.ours]
                found.append(gone._replace(name=device.name, mode=modes[0] if modes else ""))
        return tuple(found)


_ELSEWHERE: Final = re.compile("[:/@]").search
"""In what the file calls an end that is no interface here. None has a colon or a slash in its name
(dev_valid_name in net/core/dev.c), and the file allows no @ in it."""

_ID: Final = attrgetter("id")
_NAME_A: Final = attrgetter("a.name")
_NAME_B: Final = attrgetter("b.name")


def _names(interfaces: Iterable[Interface]) -> dict[str, int]:
    """The ifindex by each name and altname."""
    return {name: each.ifindex for each in interfaces for name in (each.name, *each.altnames)}


def ends_elsewhere(links: Iterable[Link]) -> list[Endpoint]:
    """Those in nodes and by tunnels, each once."""
    ends = [end for link in links for end in link.ends if end.node or end.tunnel]
    return [*dict.fromkeys(ends)]


class Index:
    """A wiring, to be asked by name in no time.

    ``by_name`` has the text of an end elsewhere, and what is called here what is made for it.
    """

    def __init__(self, wiring: Wiring) -> None:
        links = wiring.links
        # Without a loop of our own: it takes a while as it is.
        self._order = dict(zip(map(_ID, links), count(), strict=False))
        self.ids: KeysView[str] = self._order.keys()
        """Of all links."""
        self.has_ends_elsewhere = "," in "".join(self.ids)  # in no other link's id
        self.by_name: dict[str, Link] = dict(zip(map(_NAME_A, links), links, strict=True))
        self.by_name |= zip(map(_NAME_B, links), links, strict=True)
        self.nodes: dict[Node, set[Link]] = {}
        """Those that are named, with the links that have an end there."""
        self.tunnels: dict[str, Link] = {}
        """By the texts of ends on other hosts, the links that lead there."""
        self.remotes: dict[str, set[Link]] = {}
        """By the addresses of the other sides of tunnels, the links that lead there."""
        for end in ends_elsewhere(links) if self.has_ends_elsewhere else ():
            link = self.by_name[end.name]
            if end.node:
                self.nodes.setdefault(end.node, set()).add(link)
                self.by_name.setdefault(host_name(end.name), link)
            if end.tunnel:
                self.by_name.setdefault(device_name(end.tunnel), link)
                self.remotes.setdefault(end.tunnel.remote, set()).add(link)
                if end.host:
                    self.tunnels[end.name] = link

    def replace(self, gone: Mapping[str, Link], come: Mapping[str, Link]) -> bool:
        """Puts ``come`` (by id) in the places of ``gone``, at no cost for the others.

        Returns False, and changes nothing, where it has to be made anew: there are more or less of
        them, or there are ends elsewhere.
        """
        if self.has_ends_elsewhere or "," in "".join(come) or len(gone) != len(come):
            return False
        places = [*map(self._order.pop, gone)]
        for link in gone.values():
            for name in (link.a.name, link.b.name):
                if self.by_name.get(name) is link:
                    del self.by_name[name]
        self._order.update(zip(come, places, strict=True))
        for link in come.values():
            self.by_name[link.a.name] = self.by_name[link.b.name] = link
        return True

    def in_order(self, links: Iterable[Link]) -> list[Link]:
        return sorted(links, key=lambda link: self._order[link.id])


class _Look:
    """Follows names and ifindexes to everything a change of them can touch.

    From an interface: the link that names it (by any of its names) with both ends, the
    interfaces it redirects to now, and its veth peer if that too is an end here (a cycle).
    From an end elsewhere: the interface here that it is, or was made for it. ``elsewhere`` looks it
    up; it is None where there is no such end.
    """

    def __init__(
        self,
        wiring: Index,
        interfaces: Interfaces,
        maps: Dataplane,
        records: Ledger,
    ) -> None:
        self._links = wiring.by_name
        self._source = interfaces
        self._maps = maps
        self._known = records
        self._records = records.records
        self.interfaces: dict[int, Interface] = {}
        self.names: dict[str, int] = {}
        self.entries: dict[int, int] = {}
        self.peers: dict[int, int] = {}
        self.guarded: frozenset[int] | None = frozenset()
        self.links: dict[str, Link] = {}
        self.elsewhere: EndsElsewhere | None = None
        self.nodes: dict[str, NodeEnd] = {}
        self.tunnels: dict[str, str] = {}
        self.made: dict[str, Made] = {}
        self.seen: set[str | int] = set()

    def follow(self, scope: Scope) -> None:
        further: list[str | int] = [end.name for link in scope.links for end in (link.a, link.b)]
        further += scope.ifindexes
        while step := dict.fromkeys(filterfalse(self.seen.__contains__, further)):
            self.seen.update(step)
            further = [*self._from_interfaces(step), *self._from_links_and_maps(step)]
            if self.elsewhere:
                further += self._from_elsewhere(step, scope, self.elsewhere)

    def _from_elsewhere(
        self, step: Mapping[str | int, None], scope: Scope, elsewhere: EndsElsewhere
    ) -> list[str | int]:
        further: list[str | int] = []
        links = [*scope.links, *self.links.values()]
        for end in ends_elsewhere(links):
            link = self._links.get(end.name)  # one that was may have had it in another node
            is_known = end.name in self.nodes or end.name in self.tunnels
            if link is None or end not in link.ends or is_known:
                continue
            if host := elsewhere.resolve(end, self.nodes, self.tunnels):
                self.names[end.name] = host.ifindex
                further.append(host.ifindex)
        for made in self._known.made.values():
            if made.end in step or made.name in step:
                self.made[made.end] = made
                further += (made.end, made.name)
        return further

    def _from_interfaces(self, step: Iterable[str | int]) -> list[str | int]:
        further: list[str | int] = []
        fars = []
        wanted = [each for each in step if each not in self.names and each not in self.interfaces]
        if self.elsewhere:
            wanted = [each for each in wanted if isinstance(each, int) or not _ELSEWHERE(each)]
        found = self._source.find(*wanted) if wanted else ()
        for interface in found:
            far = interface.far
            names = (interface.name, *interface.altnames)
            self.interfaces[interface.ifindex] = interface
            self.names |= dict.fromkeys(names, interface.ifindex)
            further += (interface.ifindex, *filter(self._links.__contains__, names))
            if far and far.nsid is None:
                fars.append(far.ifindex)
        for peer in self._source.find(*fars) if fars else ():
            if peer.ifindex in self._records:
                further.append(peer.ifindex)
            further += filter(self._links.__contains__, (peer.name, *peer.altnames))
        return further

    def _from_links_and_maps(self, step: Iterable[str | int]) -> list[str | int]:
        further: list[str | int] = []
        ifindexes = []
        for each in step:
            if isinstance(each, int):
                ifindexes.append(each)
                if record := self._records.get(each):
                    further.append(record.name)  # it may have another name by now
                    if record.end:
                        further.append(record.end)
                continue
            if link := self._links.get(each):
                self.links[link.id] = link
                further += (link.a.name, link.b.name)
            if self.names.get(each) not in self._records:
                further += self._known.named.get(each, ())
        if ifindexes:
            entries, peers, guarded = self._maps.look_up(ifindexes)
            self.entries |= entries
            self.peers |= peers
            self.guarded = None if guarded is None else (self.guarded or guarded) | guarded
            further += (*entries.values(), *filter(None, peers.values()))  # one may be CLOSED
        return further
