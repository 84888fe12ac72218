"""One pass: observe, judge, plan, apply, observe again; and what it means, as log events.

It holds the wiring that is wanted and how links stood after the last pass (to tell what
changed), and nothing that the kernel could tell.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import replace
from itertools import zip_longest
from typing import NamedTuple

from xconnectd.errors import InterfaceGoneError, XconnectError
from xconnectd.events import Event, Logger, Trigger
from xconnectd.model import (
    Announcement,
    FarEnd,
    Interface,
    Left,
    Link,
    MovedEnd,
    NodeEnd,
    Observed,
    Scope,
    State,
    Way,
    Wiring,
)
from xconnectd.monitor_address import MonitorAddress
from xconnectd.reconcile import (
    actions,
    evaluate,
    impairments,
    link_state,
    made_tunnels,
    made_veths,
    observer,
    plan,
    transitions,
)
from xconnectd.reconcile.actions import OF_WHAT_IS_MADE, OVER_NETLINK, Action, Make
from xconnectd.reconcile.evaluate import Evaluation, Refused
from xconnectd.reconcile.executor import Executor, Trouble
from xconnectd.reconcile.found_links import found_links
from xconnectd.reconcile.link_state import LinkStatus
from xconnectd.reconcile.made_veths import FarRefusal
from xconnectd.reconcile.netns_moves import NetnsMoves
from xconnectd.reconcile.node_presence import NodePresence
from xconnectd.reconcile.observer import Index
from xconnectd.reconcile.pass_stats import Tally
from xconnectd.reconcile.ports import (
    Changes,
    Dataplane,
    HostUse,
    Interfaces,
    Ledger,
    LinkEvent,
    Nodes,
    Tunnels,
    WayTo,
)
from xconnectd.reconcile.retry import BackOff
from xconnectd.reconcile.transitions import Report

_MANY = 100
"""Links and ifindexes, if there are not more links, from which on a dump is the quicker look.

With both ends a link costs 0.35 ms if it is looked at by itself, 0.26 ms among all.
"""

_MOST_LOOKS = 100
"""Looks in a row that may be spoilt by an interface that vanishes meanwhile."""

_EDITS = (Trigger.CONFIG, Trigger.TRY)
"""What misspells a name; an interface that is missing for another reason has gone."""

_ADMIN_DOWN_A_TICK = 16
"""Admin-down ends that are looked at in one tick: half a millisecond."""

_RENEWAL_PAUSE = 10.0
"""Seconds until programs that could not be loaded are tried again: a compiler may be at work."""

_ROUNDS = 7
"""What is missing is made; a plan, its undoing where the kernel refused a part, for each end that
it would not even let us hold, and room for what changed meanwhile."""


_CHANGED = (
    "repaired too often: somebody else ({suspects}) keeps changing its ends; their settings are"
    " left alone for {wait:g} s, frames are forwarded"
)
_DELETED = {
    "veth": "made again too often: something in its node keeps deleting its interface; it is made"
    " again in {wait:g} s",
    "vxlan": "made again too often: something keeps deleting its tunnel, or has it lead elsewhere;"
    " it is made again in {wait:g} s",
}


Look = tuple[Observed, tuple[Link, ...]]
"""What was seen, and the links that it is about."""


class Seen(NamedTuple):
    """The outcome of looking: what was seen, the evaluations of its links, what is to be done."""

    observed: Observed
    evaluations: tuple[Evaluation, ...]
    actions: tuple[Action, ...]


class Reconciler:
    """Makes the kernel agree with a wiring, as often as it is told to.

    Attributes:
        wiring: what is wanted.
        far_ends: those of our ends, with the ifindexes of ours, as the last passes saw them; one
            mapping for good.
        awaited: the texts of ends in nodes that are not there, or are something else, by the id of
            the namespace and the name or ifindex there: from news of those another may come of it.
        loose: the links of which an end is there and not held: the host may use it.
        undone: the steps that the last passes saw and did not take, or that did not help.
        tally: its passes and repairs so far.
        receive: yields the kernel's events that are queued; a daemon sets it, and whoever only
            looks receives none.
        monitored: the links with monitors.
        monitor_errors: what is wrong with monitors of virtual machines; a daemon sets it.
    """

    def __init__(
        self,
        interfaces: Interfaces,
        host_use: HostUse,
        changes: Changes,
        dataplane: Dataplane,
        ledger: Ledger,
        *,
        nodes: Nodes,
        tunnels: Tunnels,
        way_to: WayTo,
        log: Logger,
        describe: Callable[[int], str] = "id {}".format,
        suspects: Callable[[], str] = lambda: "unknown",
    ) -> None:
        self._interfaces = interfaces
        self._dataplane = dataplane
        self._ledger = ledger
        self._log = log
        self._suspects = suspects
        self._nodes = NodePresence(nodes)
        self._tunnels = tunnels
        self._way_to = way_to
        self._ways: dict[str, Way] = {}
        self._announced: dict[str, Announcement] = {}
        self._observer = observer.Observer(
            interfaces, host_use, dataplane, ledger, nodes=nodes, describe=describe
        )
        self._executor = Executor(changes, dataplane, ledger, self._listen)
        self._netns_moves = NetnsMoves(interfaces, dataplane, ledger, log)
        self._backoff = BackOff()
        self._repeats = transitions.Repeats()
        self.tally = Tally()
        self.receive: Callable[[], Iterable[LinkEvent]] = tuple
        self.monitor_errors: Callable[[], Mapping[MonitorAddress, str]] = dict
        self.wiring = self._wanted = Wiring()
        self._index = Index(self.wiring)
        self._unwanted: dict[str, Link] = {}
        """By id, links that were changed or are gone, of which no pass has told yet."""
        self._statuses: dict[str, LinkStatus] = {}
        self.loose: set[str] = set()
        self.undone: tuple[Action, ...] = ()
        self._left = Left({}, {})
        self._admin_down: dict[int, Interface] = {}
        self._ends: dict[int, tuple[Link, ...]] = {}  # more than one, if they clash
        self.far_ends: dict[FarEnd, int] = {}
        self.awaited: dict[tuple[int, str | int], str] = {}
        self.monitored: frozenset[Link] = frozenset()
        self._tell: Callable[[], None] | None = None
        self._far_refused: dict[str, FarRefusal] = {}
        self._unseen = Scope()
        self._gone: list[LinkEvent] = []
        self._renewal_due = 0.0

    # ------------------------------------------------------------------ what is wanted

    @property
    def statuses(self) -> Mapping[str, LinkStatus]:
        """How every link stood after the last pass that looked at it."""
        return self._statuses

    def want(self, wiring: Wiring, tell: Callable[[], None] | None = None) -> Scope:
        """Takes a new wiring and returns what a pass must look at to make it true.

        What a command has made of a link for now comes before what the wiring says of it. If a pass
        has to follow it calls ``tell``, before it logs what came of it: a line in the log takes as
        long as ten questions to the kernel, for which no frame has to wait.
        """
        self.wiring = wiring
        if passing := self._ledger.passing:
            wiring = replace(wiring, links=impairments.overridden(wiring.links, passing))
        links = self._wanted.links
        gone, come, moved = _changed(links, wiring.links)
        changed = [*gone.values(), *come.values()]
        self._backoff.forget((*gone, *come))
        self._unwanted |= gone
        if wiring.hosts_key != self._wanted.hosts_key and self._announced:
            self._tunnels.want(self._announced.values(), wiring.hosts_key)
        had_nodes = bool(self._index.nodes)
        if moved or not self._index.replace(gone, come):
            self._index = Index(wiring)
        self._wanted = wiring
        if had_nodes or self._index.nodes:
            self._nodes.want(self._index.nodes)
        left = (*self.monitored.difference(changed), *come.values())
        self.monitored = frozenset([link for link in left if link.monitors])
        if moved and not _same_order(links, wiring.links):
            # Of two that clash the later fails.
            changed += [
                link
                for link in wiring.links
                if (was := self._statuses.get(link.id)) and was.state is State.FAILED
            ]
        self._tell = tell if changed else None
        return Scope(frozenset(changed))

    def moved_netns(self) -> tuple[MovedEnd, ...]:
        """The ends that have left for other namespaces, as they are there now."""
        return self._observer.moved_netns()

    def found(self) -> tuple[Link, ...]:
        """The wires that stand in the kernel."""
        observed, _ = self._observer.everything(Wiring())
        return found_links(observed)

    # ------------------------------------------------------------------ passes

    def look(
        self, scope: Scope | None = None, refused: Mapping[str, Refused] | None = None
    ) -> Seen:
        """What a pass over ``scope`` (everything if None) would do; changes nothing.

        ``refused`` are links that failed in this very pass and are to be undone.
        """
        return self._judge(*self._observe(scope), refused or {})

    def _judge(
        self, observed: Observed, links: Sequence[Link], refused: Mapping[str, Refused]
    ) -> Seen:
        if self.monitored:
            observed = observed._replace(monitors=self.monitor_errors())
        if self._index.tunnels:
            ends = [end.text for link in links for end in link.ends if end.tunnel and end.host]
            observed = observed._replace(heard={each: self._tunnels.heard(each) for each in ends})
        if self._index.remotes:
            remotes = {end.tunnel.remote for link in links for end in link.ends if end.tunnel}
            observed = observed._replace(ways={each: self._way_to(each) for each in remotes})
        failed = dict(refused)
        if self._backoff.failed:
            failed = self._backoff.still_failed(links, observed) | failed
        if self._far_refused:
            observed = made_veths.with_refusals(observed, self._far_refused)
        evaluations = evaluate.evaluate(links, observed, failed)
        if observed.covered is None:
            evaluations = evaluate.with_hints(evaluations, self._free(observed.names))
        roles = evaluate.roles(evaluations)
        if not observed.nodes and not observed.tunnels and not observed.made:
            return Seen(observed, tuple(evaluations), plan.plan(roles, observed))
        roles = evaluate.elsewhere(roles, observed)
        unwanted, forgotten = made_veths.unwanted(evaluations, roles, observed)
        held_off = self._backoff.is_held_off
        made = made_veths.plan(evaluations, observed, failed, self._far_refused, held_off)
        if observed.tunnels:
            made = (*made_tunnels.plan(evaluations, observed, failed, held_off), *made)
        incomplete = {each.link for each in made if isinstance(each, Make)}  # until they are made
        steps = plan.plan(roles, observed, unwanted)
        rest = [each for each in steps if each.link not in incomplete]
        return Seen(observed, tuple(evaluations), (*rest, *forgotten, *made))

    def _free(self, names: Iterable[str]) -> list[str]:
        """Those of these interfaces that are in no link."""
        return [name for name in names if name not in self._index.by_name]

    def _look_and_recognize(
        self, scope: Scope | None, refused: Mapping[str, Refused], look: Look | None = None
    ) -> Seen:
        """A look in which ends that are back have the records with which they left.

        Each look anew may show another that has come back since the one before: its record is
        taken up too, else the MTU and all else of ours would be recorded as found.
        """
        seen = self._judge(*(look or self._observe(scope)), refused)
        while self._netns_moves.take_back(seen.observed):
            seen = self.look(scope, refused)
        self._has_seen(seen)
        return seen

    def _look_again(
        self, seen: Seen, scope: Scope | None, trouble: Trouble, changed: AbstractSet[int]
    ) -> Seen:
        """Reads only what was changed, as long as nothing was told of anything else."""
        self._note((*self._gone, *self.receive()))
        self._gone = []
        before = seen.observed
        narrow = before.covered is not None and (
            not (before.nodes or before.tunnels or before.made)
            or not any(isinstance(each, OF_WHAT_IS_MADE) for each in seen.actions)
        )
        if narrow and self._unseen.ifindexes <= changed:
            links = [each.link for each in seen.evaluations]
            with suppress(InterfaceGoneError):
                now = self._observer.again(before, links, changed)
                if now.names == before.names and not self._netns_moves.take_back(now):
                    seen = self._judge(now, links, trouble.links)
                    self._has_seen(seen)
                    return seen
        return self._look_and_recognize(scope, trouble.links)

    def _has_seen(self, seen: Seen) -> None:
        """Leaves to another pass what this look did not show of what events concern."""
        covered, wanted = seen.observed.covered, self._index.ids
        looked_at = {each.link.id for each in seen.evaluations}
        links = [
            each for each in self._unseen.links if each.id in wanted and each.id not in looked_at
        ]
        ifindexes = frozenset() if covered is None else self._unseen.ifindexes - covered
        self._unseen = Scope(frozenset(links), ifindexes)

    def _observe(self, scope: Scope | None) -> Look:
        """Looks again if an interface vanished between one question about it and the next."""
        many = max(_MANY, len(self._wanted.links))
        for _ in range(_MOST_LOOKS):
            with suppress(InterfaceGoneError):
                if scope is None or len(scope.links) + len(scope.ifindexes) > many:
                    return self._observer.everything(self._wanted)
                return self._observer.narrow(self._index, scope)
        raise InterfaceGoneError("interfaces come and go faster than they can be looked at")

    def run(self, scope: Scope | None, trigger: Trigger, look: Look | None = None) -> None:
        """Makes the links in ``scope`` (all if None) agree with the wiring, and logs changes.

        ``look`` is one of just now, if there was one.
        """
        if self._renew():
            scope = look = None
        self._pass(None if self._dataplane.older_forward() else scope, trigger, look)
        while self._renew():  # one has left meanwhile
            self._pass(None, trigger)

    def _pass(self, scope: Scope | None, trigger: Trigger, look: Look | None = None) -> None:
        started = time.monotonic()
        if scope is not None and (ends := scope.ifindexes & self._ends.keys()):
            # An altname that led to a link may be gone.
            scope |= Scope(frozenset([link for each in ends for link in self._ends[each]]))
        seen = self._look_and_recognize(scope, {}, look)
        if scope is not None:  # what leads to a link now may be gone after the first step
            links = frozenset([each.link for each in seen.evaluations])
            scope = scope if links <= scope.links else scope | Scope(links)
        done: list[Action] = []
        trouble = Trouble()
        for _ in range(_ROUNDS):
            self._netns_moves.note_missing(seen.observed)
            actions = self._not_held_off(seen, trigger)
            done += self._executor.apply(actions, trouble)
            self._far_refused |= trouble.far
            if scope is None:  # nothing that stays runs an older program any more
                self._dataplane.empty_older()
            if not actions:
                break
            changed = {each.interface.ifindex for each in actions if isinstance(each, OVER_NETLINK)}
            seen = self._look_again(seen, scope, trouble, changed)
        self._netns_moves.settle(seen.observed)
        evaluations = seen.evaluations
        if scope is not None and any(each.waiting for each in evaluations):
            evaluations = self._with_hints(evaluations, trigger)
        statuses = self.assess(evaluations, seen.observed)
        self._remember(scope, seen, statuses, trouble)
        if self._index.tunnels or self._announced:
            self._announce(seen, statuses)
        seconds = time.monotonic() - started
        self.tally.passed(seconds)
        if self._tell:
            self._tell()
            self._tell = None
        self._report(statuses, done, trigger, seconds)

    def _with_hints(
        self, evaluations: Iterable[Evaluation], trigger: Trigger
    ) -> tuple[Evaluation, ...]:
        """The same; links that wait since an edit have hints, also when news come after it."""
        found = {each.link.id: each for each in evaluations}
        misspelt = [
            each
            for name, each in found.items()
            if each.waiting
            and (trigger in _EDITS or ((was := self._statuses.get(name)) and was.hint))
        ]
        if misspelt:
            free = self._free(self._interfaces.names())
            found |= {each.link.id: each for each in evaluate.with_hints(misspelt, free)}
        return tuple(found.values())

    def assess(self, evaluations: Iterable[Evaluation], observed: Observed) -> list[LinkStatus]:
        """The states of these links; of a far end that is down it is looked up where it is."""
        evaluations = tuple(evaluations)
        if nsids := evaluate.far_ends_down(evaluations):
            names = {nsid: self._interfaces.namespace_name(nsid) for nsid in nsids}
            evaluations = evaluate.with_namespaces(evaluations, observed, names)
        return [link_state.assess(each, observed) for each in evaluations]

    def detach(self, trigger: Trigger, names: Collection[str] | None = None) -> list[str]:
        """Detaches every end (or of the named ones and their partners), in a pass like any other.

        Returns what could not be put back. Links are wanted no longer, so their end is no event.
        """
        if self._announced and names is None:
            self._announced = {}
            self._tunnels.want((), self.wiring.hosts_key)  # as long as there is a way to say so
        self.wiring = self._wanted = Wiring()
        self._index = Index(self.wiring)
        self.monitored = frozenset()
        self._statuses.clear()
        self._pass(None if names is None else self._named(names), trigger)
        if names is None:
            while self._netns_moves.find():
                self._pass(None, trigger)
            self._netns_moves.forget_unfound()  # where nothing is wired nothing can be reached
        return self._backoff.stuck()

    def _named(self, names: Collection[str]) -> Scope:
        """The interfaces that have these names, or had one when they were recorded.

        Also by what the file called an end in a node.
        """
        made = [each.name for each in self._ledger.made.values() if each.end in names]
        found = [each.ifindex for each in self._interfaces.find(*names, *made)]
        recorded = [ifindex for name in names for ifindex in self._ledger.named.get(name, ())]
        return Scope(ifindexes=frozenset((*found, *recorded)))

    def _not_held_off(self, seen: Seen, trigger: Trigger) -> tuple[Action, ...]:
        """In a hold-off settings are left to whoever keeps changing them; forwarding is not.

        Nor is what an end shows, and that is recorded.
        """
        if trigger != Trigger.NETLINK:
            return seen.actions
        held = seen.observed.records
        shown = {each.interface.ifindex for each in seen.actions if actions.is_of_admin_state(each)}
        return tuple(
            action
            for action in seen.actions
            if not self._backoff.is_held_off(action.link)
            or action.interface.ifindex not in held
            or not actions.is_mere_setting(action)
            or (isinstance(action, actions.Hold) and action.interface.ifindex in shown)
        )

    # ------------------------------------------------------------------ what the kernel tells

    @property
    def has_unseen(self) -> bool:
        """Whether events were received in a pass that did not look at what they concern."""
        return bool(self._unseen.links or self._unseen.ifindexes)

    def handle(self, events: Iterable[LinkEvent]) -> None:
        """Runs a pass over the links that these events concern, and those that are unseen."""
        self._note(events)
        if self._unseen:
            self.run(self._unseen, Trigger.NETLINK)

    def _note(self, events: Iterable[LinkEvent]) -> None:
        """Adds to what is to be looked at.

        An end that is gone may be in another namespace; the event says where to, and only that one.
        """
        concerned: set[int] = set()
        awaited: set[Link] = set()
        for event in events:
            if self.awaited:
                awaited.update(self._awaiting(event))
            if event.gone and self._netns_moves.awaits(event.ifindex):
                self._netns_moves.note(event.ifindex, event.mac, event.nsid, event.new_ifindex)
            if event.ifindex and self._is_concerned(event):
                concerned.add(event.ifindex)
            if near := self.far_ends.get((event.ifindex, None)):
                concerned.add(near)
        links = [link for each in concerned & self._ends.keys() for link in self._ends[each]]
        self._unseen |= Scope(frozenset(links) | awaited, frozenset(concerned))
        if concerned and self.loose:  # an address is reported before its routes are gone
            self._interfaces.settle()

    def _listen(self) -> None:
        """Takes what the kernel tells in the middle of many steps, before its buffer is full.

        Records stay as the plan found them: what is gone waits for the end of the steps.
        """
        told: list[LinkEvent] = []
        for event in self.receive():
            (self._gone if event.gone else told).append(event)
        self._note(told)

    def _awaiting(self, event: LinkEvent) -> Iterator[Link]:
        """The links with an end in a node that may be there now, or may be made now."""
        ends = [end for (nsid, _), end in self.awaited.items() if nsid == event.far_nsid]
        return filter(None, map(self._index.by_name.get, (event.name, *ends)))

    def _is_concerned(self, event: LinkEvent) -> bool:
        """Whether what an event says of an interface can matter to any link.

        An end that left may come back under any name; a tc or address message has no ``mac``.
        """
        return (
            event.ifindex in self._ends
            or event.ifindex in self._ledger.records
            or any(name in self._index.by_name for name in (event.name, *event.altnames))
            or any(gone.record.mac == event.mac for gone in self._ledger.moved_netns)
        )

    def handle_nodes(self, names: Collection[str]) -> None:
        """Runs a pass over the links with an end in these nodes, of which there is news."""
        self._log_all(self._nodes.changes(names))
        found = [links for node, links in self._index.nodes.items() if node.name in names]
        links = frozenset[Link]().union(*found)
        self._backoff.forget([link.id for link in links])  # what failed may succeed now
        if links:
            self.run(Scope(links), Trigger.NETLINK)

    def handle_tunnels(self, ends: Collection[str]) -> None:
        """Runs a pass over the links to these ends on other hosts, of which there is news."""
        links = frozenset([self._index.tunnels[end] for end in ends if end in self._index.tunnels])
        if links:
            self.run(Scope(links), Trigger.NETLINK)

    def follow_ways(self) -> None:
        """Runs a pass over the links by tunnels whose way is another than it was.

        What the kernel learns of a way's MTU it tells nobody.
        """
        for remote, links in self._index.remotes.items():
            now = self._way_to(remote)
            if now != self._ways.get(remote, now):
                self._ways[remote] = now
                self.run(Scope(frozenset(links)), Trigger.UNDERLAY)

    def resync(self, trigger: Trigger) -> None:
        """A pass over everything when events were not received: at the start, or they were lost.

        Ends that were moved meanwhile are searched for in the other namespaces.
        """
        look = self._observe(None)
        if self._netns_moves.missing(look[0].interfaces):
            self._netns_moves.find()
            self.run(None, trigger)
        else:
            self.run(None, trigger, look)

    def _renew(self) -> bool:
        """What left with a program of ours works on there, with the maps that it has.

        So all that stays gets a new program with maps of its own, in the pass that follows, and
        the maps of the old one are emptied. Returns False if none left, or a new program cannot be
        had now.
        """
        current = self._dataplane.programs.redirecting
        took_it = any(gone.program in current for gone in self._ledger.moved_netns)
        if not took_it or time.monotonic() < self._renewal_due:
            return False
        try:
            self._dataplane.renew()
        except XconnectError as error:
            self._renewal_due = time.monotonic() + _RENEWAL_PAUSE
            self._log.error(
                Event.RENEWAL_FAILED,
                reason="an end was moved to another namespace with our XDP program on it, and no"
                " new program could be loaded for the others: until the old one is removed there,"
                f" frames from it may enter another link: {error}",
            )
            return False
        with suppress(OSError):  # a full disk: they are known as long as they are pinned
            self._ledger.know_programs(self._dataplane.programs.ours)
        return True

    # ------------------------------------------------------------------ what is due

    def has_drifted(self) -> bool:
        """Whether a map is not as the last pass left it. Cheap enough for every second."""
        return not self._dataplane.holds(self._left)

    def disturbed(self) -> Scope:
        """Admin-down ends whose XDP program or far end has changed, a few at each call.

        The kernel tells nobody of a program on an interface that is down, and of a far end in
        another namespace only whoever has CAP_NET_BROADCAST there.
        """
        found = []
        for ifindex in [*self._admin_down][:_ADMIN_DOWN_A_TICK]:
            before = self._admin_down.pop(ifindex)
            self._admin_down[ifindex] = before  # the others' turn is next
            far = before.far
            there = self._interfaces.at(far.ifindex, far.nsid) if far else None
            if any(now.xdp != before.xdp for now in self._interfaces.find(ifindex)) or (
                far and there and there.up != far.up
            ):
                found.append(ifindex)
        return Scope(ifindexes=frozenset(found))

    def hurry(self) -> None:
        """The next pass tries all that failed, whenever it would have been due."""
        self._backoff.hurry()

    def guest_carriers(self) -> dict[MonitorAddress, bool]:
        """By monitor, whether the machine behind an end is to see a carrier there.

        Behind a tap that nothing has open there is no machine.
        """
        found: dict[MonitorAddress, bool] = {}
        for link in self.monitored:
            if status := self._statuses.get(link.id):
                shows = {
                    name: end.shows_carrier
                    for name, end in ((link.a.name, status.a), (link.b.name, status.b))
                    if end.offers or end.far_name
                }
                found |= {
                    address: carrier
                    for name, address in link.monitors
                    if (carrier := shows.get(name)) is not None
                }
        return found

    def next_retry(self) -> float | None:
        """When the next failed link is due (``time.monotonic``)."""
        return self._backoff.next_due()

    def due(self) -> Scope:
        """The failed links whose time has come."""
        due, stuck = self._backoff.due()
        links = [link for link in self._wanted.links if link.id in due] if due else ()
        return Scope(frozenset(links), frozenset(stuck))

    # ------------------------------------------------------------------ what came of it

    def _remember(
        self,
        scope: Scope | None,
        seen: Seen,
        statuses: Iterable[LinkStatus],
        trouble: Trouble,
    ) -> None:
        self._remember_entries(seen.observed)
        self._remember_ends(seen)
        for each in statuses:
            self._backoff.note(each, seen.observed, trouble.links.get(each.link.id))
        self._backoff.came_off(seen.observed.covered, trouble.stuck)
        for ifindex, (name, reason) in trouble.stuck.items():
            if self._backoff.is_stuck(ifindex, reason):
                self._log.warning(Event.DETACH_FAILED, interface=name, reason=reason)
        if seen.actions or self.undone:
            covered = seen.observed.covered
            others = () if covered is None else self.undone
            kept = [each for each in others if each.interface.ifindex not in (covered or ())]
            self.undone = (*kept, *seen.actions)
        if scope is None and not seen.actions:  # nothing runs an older program any more
            self._dataplane.retire()

    def _announce(self, seen: Seen, statuses: Iterable[LinkStatus]) -> None:
        """Has the other hosts told of the links to them, if that is anything new."""
        gone = self._announced.keys() - self._index.tunnels.keys()
        news: dict[str, Announcement] = {}
        for each, status in zip(seen.evaluations, statuses, strict=True):
            ends = [end.text for end in each.link.ends if end.tunnel and end.host]
            told = made_tunnels.announcement(each, status.state, seen.observed) if ends else None
            if told and told != self._announced.get(told.end):
                news[told.end] = told
            elif not told:
                gone |= self._announced.keys() & ends
        if news or gone:
            self._announced |= news
            for end in gone:
                del self._announced[end]
            self._tunnels.want(self._announced.values(), self.wiring.hosts_key)

    def _remember_entries(self, observed: Observed) -> None:
        entries, peers, covered = *self._left, observed.covered
        for left, now in ((entries, observed.entries), (peers, observed.peers)):
            for key in [*left] if covered is None else covered & left.keys():
                del left[key]
            left.update(now)
        self._left = Left(entries, peers)

    def _remember_ends(self, seen: Seen) -> None:
        covered = seen.observed.covered
        for ifindex in [*self._ends] if covered is None else covered & self._ends.keys():
            del self._ends[ifindex]
            self._admin_down.pop(ifindex, None)
        for each in seen.evaluations:
            alone = (each.link,)  # one for both ends
            for end in each.ends:
                others = self._ends.get(end.ifindex)
                self._ends[end.ifindex] = (*others, each.link) if others else alone
                if not end.up:
                    self._admin_down[end.ifindex] = end
                if end.far:
                    self.far_ends[end.far.ifindex, end.far.nsid] = end.ifindex
        if seen.observed.nodes or self.awaited:
            self._remember_awaited(seen.observed.nodes)
        if seen.observed.ways:
            self._ways = {**seen.observed.ways, **self._ways}
        if len(self.far_ends) > 2 * len(self._ends):
            for far in [far for far, end in self.far_ends.items() if end not in self._ends]:
                del self.far_ends[far]

    def _remember_awaited(self, nodes: Mapping[str, NodeEnd]) -> None:
        known = self._index.by_name
        for key in [key for key, end in self.awaited.items() if end in nodes or end not in known]:
            del self.awaited[key]
        for end, place in nodes.items():
            if place.nsid is not None and (place.is_missing or place.refused):
                self.awaited[place.nsid, end.partition(":")[2]] = end
                if place.in_the_way:
                    self.awaited[place.nsid, place.in_the_way] = end

    def _report(
        self, statuses: Iterable[LinkStatus], done: list[Action], trigger: Trigger, seconds: float
    ) -> None:
        wanted = self._index.ids
        left = filter(self._statuses.__contains__, self._unwanted)
        gone = [self._statuses[link] for link in left if link not in wanted]
        self._unwanted.clear()
        if self._index.has_ends_elsewhere:
            made = {
                (step.link, step.made.kind)
                for step in done
                if isinstance(step, Make) and step.again
            }
            for link, kind in made:
                self._count_repair(link, _DELETED[kind])
        more = {
            "trigger": trigger,
            "config_hash": self.wiring.hash,
            "duration_ms": round(seconds * 1000, 2),
        }
        after = [each._replace(retry=self._backoff.retry_of(each.link.id)) for each in statuses]
        for change in transitions.changes(self._statuses, after, gone, done, trigger):
            self._log_change(change._replace(fields={**change.fields, **more}), trigger)
            if change.event is Event.DRIFT_REPAIRED:
                self.tally.repairs += 1
                self._count_repair(str(change.fields["link"]), _CHANGED)
        self._statuses |= {each.link.id: each for each in after}
        self.loose -= {each.link.id for each in after}
        self.loose |= {each.link.id for each in after if each.is_loose}
        self.loose &= wanted
        for each in gone:
            del self._statuses[each.link.id]
        self._log.debug(Event.PASS_DONE, actions=len(done), **more)

    def _log_change(self, change: Report, trigger: Trigger) -> None:
        """What others do again and again is summed up, so that nobody can fill a disk with it."""
        now = time.monotonic()
        if trigger == Trigger.NETLINK:
            self._log_all(self._repeats.note(change, now))
        else:
            self._log_all((*self._repeats.of(str(change.fields["link"]), now), change))

    def tell_repeated(self, *, at_once: bool = False) -> None:
        """Logs what was gathered for long enough, or ``at_once`` all of it."""
        repeats, now = self._repeats, time.monotonic()
        self._log_all(repeats.rest(now) if at_once else repeats.due(now))

    def _log_all(self, changes: Iterable[Report]) -> None:
        for each in changes:
            self._log.log(each.level, each.event, **each.fields)

    def _count_repair(self, link: str, words: str) -> None:
        wait = self._backoff.repaired(link)
        if wait is not None:
            reason = words.format(suspects=self._suspects(), wait=wait)
            self._log.warning(Event.DRIFT_FLAPPING, link=link, reason=reason)


def _changed(
    before: Iterable[Link], after: Iterable[Link]
) -> tuple[dict[str, Link], dict[str, Link], set[str]]:
    """The links that went and those that came, by id; the ids of those that may have moved.

    Most links of an edited file are the very same objects in the same place.
    """
    pairs = [(old, new) for old, new in zip_longest(before, after) if old is not new]
    gone = {old.id: old for old, _ in pairs if old}
    come = {new.id: new for _, new in pairs if new}
    kept = {name for name, link in come.items() if link == gone.get(name)}
    for name in kept:
        del gone[name], come[name]
    return gone, come, kept


def _same_order(before: Iterable[Link], after: Iterable[Link]) -> bool:
    was, now = [link.id for link in before], [link.id for link in after]
    return [*filter({*now}.__contains__, was)] == [*filter({*was}.__contains__, now)]
