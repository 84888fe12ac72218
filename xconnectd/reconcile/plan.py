"""The pure diff: (roles, one look at the kernel) to ordered actions, each with its reason.

Order within some groups of links that exchange ends, so that no frame goes astray:

1. prepare new ends (record what is found, drop the host's egress, settings, counters),
2. attach programs: a new end drops what comes until it is wired, one whose program changes goes
   on to where it leads now; close the host's stack behind them, and remove what routers taught
   the host there until then,
3. cut the entries of ends that are detached or held, and wire: write the entries of all others,
4. take off the programs of an earlier mode, and only then put settings back,
5. set up ends that were found down, show or hide the carrier of each,
6. detach: the host's stack open again, programs off, settings put back. Interfaces that we made
   are deleted instead, those of all groups together at the end.

All steps but the third wait for the kernel's lock of all interfaces (RTNL), which others may hold
for seconds, so step 3 is what changes where frames go, in both directions within microseconds.
Moving a wire between attached ends is that step alone. An entry never outlives its program. An
end that is held has a program and no entry: the steps 1 to 3 are all it gets.

What is done alike to many ends stands together, so that the executor can do it in one go. The third
step is of one group after the other: no end is cut for longer than its own group takes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Final, NamedTuple

from xconnectd.model import (
    CLOSED,
    DROP_HANDLE,
    FEATURE_PREFIX,
    FILTER_HANDLE,
    NOTHING,
    Admin,
    Change,
    Filter,
    Interface,
    Made,
    Mode,
    Observed,
    Ours,
    Programs,
    Record,
    Rewrite,
    Setting,
)
from xconnectd.reconcile import admission
from xconnectd.reconcile.actions import (
    Action,
    AddDrop,
    AddFilter,
    Attach,
    Cut,
    DeleteFilter,
    Detach,
    Forget,
    Guard,
    Hold,
    Impair,
    Point,
    Set,
    Unguard,
    Unlearn,
    Unmake,
)
from xconnectd.reconcile.evaluate import Role

_REASONS: Final[Mapping[str, str]] = {
    Setting.MTU: "raised so that GSO packets fit through the redirect",
    Setting.UP: "the end is down (admin: manage)",
    Setting.PROMISCUOUS: "or the NIC drops frames for other MACs",
    Setting.ADDR_GEN_MODE: "no IPv6 of the host on a wire",
    Setting.CLSACT: "blocks frames that the host sends",
}
_LEVERS: Final = (Setting.UP, Setting.CARRIER)
"""What shows or hides a carrier; changed when the wire stands, each in its own way."""
_APART: Final = (*_LEVERS, Setting.ROOT_QDISC)
"""What is changed by other steps than the rest."""
_WITH_XDP: Final = (Setting.MTU, Setting.ADDR_GEN_MODE)
"""What the kernel takes in one message with the XDP program, and walks through all routes of the
host but twice for: once for the MTU, once for all that has changed."""
_LAST: Final = (Setting.CLSACT, Setting.UP)
"""What is put back when all of ours is off: the host speaks on an end that is up."""
_SHOWN: Final = "there is a carrier behind the other end"
_PUT_BACK = "restored as found"
_IPV6_MTU: Final = 1280
"""Bytes; with less the kernel takes IPv6 off an interface, and address generation with it."""
_NO_LINK = "in no link any more"
_TOGETHER: Final = 16
"""So many groups are done together: the wire of a new link stands within some milliseconds after
its ends are held."""


def plan(
    wanted: Mapping[int, Role],
    observed: Observed,
    unwanted: Mapping[int, Made] = MappingProxyType({}),
) -> tuple[Action, ...]:
    """Everything that leads from ``observed`` to ``wanted`` (roles by ifindex); empty if nothing.

    Interfaces that are not in ``observed`` are not touched, so a narrow look gives a narrow
    plan. An end that we hold and that has no role is detached; one of those that we made and that
    are ``unwanted`` (by ifindex too) is deleted.

    Where all are detached the newest interfaces are the first. The kernel searches one list for
    each clsact qdisc that goes, from the newest on (find_indir_dev in net/core/flow_offload.c).
    """
    diff = _Diff(observed, unwanted)
    groups = _groups(wanted, unwanted, observed)
    if not wanted:
        groups = [sorted(each, reverse=True) for each in sorted(groups, reverse=True)]
    for start in range(0, len(groups), _TOGETHER):
        diff.add(groups[start : start + _TOGETHER], wanted)
    return (*diff.actions, *diff.deletions)


# --------------------------------------------------------------------------- groups


def _groups(
    wanted: Mapping[int, Role], unwanted: Iterable[int], observed: Observed
) -> list[list[int]]:
    """Ends that exchange partners in this plan, together.

    Each group is brief, so an end that is cut is wired again or detached within milliseconds even
    when a thousand links move.
    """
    neighbours: dict[int, set[int]] = {ifindex: set() for ifindex in wanted}
    pairs = [(ifindex, role.target) for ifindex, role in wanted.items()]
    for a, b in (*pairs, *observed.entries.items(), *observed.peers.items()):
        if b:  # neither None nor CLOSED
            neighbours.setdefault(a, set()).add(b)
            neighbours.setdefault(b, set()).add(a)
    for ifindex in (*observed.records, *(observed.guarded or ()), *unwanted):
        neighbours.setdefault(ifindex, set())
    for ifindex in observed.interfaces:
        if ifindex not in neighbours and observed.ours[ifindex].runs:
            neighbours[ifindex] = set()
    groups: list[list[int]] = []
    seen: set[int] = set()
    for start in neighbours:
        if start not in seen:
            groups.append(_reachable(start, neighbours))
            seen.update(groups[-1])
    return groups


def _reachable(start: int, neighbours: Mapping[int, set[int]]) -> list[int]:
    group, stack = {start: None}, [start]
    while stack:
        for ifindex in sorted(neighbours[stack.pop()]):
            if ifindex not in group:
                group[ifindex] = None
                stack.append(ifindex)
    return list(group)


# --------------------------------------------------------------------------- one interface


class _End(NamedTuple):
    """An interface with a role, and all that the steps ask of it.

    ``entries`` are those of each map that its programs read, now or from step 2 on, and
    ``leads_to`` is where its frames go now. ``changes`` are the settings that are not as wanted,
    each with the value to put back one day. ``admin`` is the admin state it is given, None if it is
    left; ``settled`` as in its record, were it left. ``carrier`` is the carrier that is set of a
    tap, None if it is left.
    """

    interface: Interface
    role: Role
    ours: Ours
    entries: list[tuple[Mode, int | None]]
    leads_to: int | None
    changes: Mapping[str, Change]
    admin: int | None
    settled: bool
    carrier: int | None

    def held(self, changes: Mapping[str, Change]) -> Record:
        """Its record with these changes."""
        interface, role = self.interface, self.role
        return Record(
            interface.ifindex,
            interface.name,
            interface.mac,
            changes,
            self.settled and self.admin is None,
            self.ours.record.refusal if self.ours.record else None,
            None if role.target else role.other,
            role.link.allow_addressed,
            interface.kind,
            role.carrier is not None,
            role.end,
        )


def _end(interface: Interface, role: Role, observed: Observed) -> _End:
    ours = observed.ours[interface.ifindex]
    record, xdp = ours.record, ours.xdp
    entry = observed.entries.get(interface.ifindex)
    peer = observed.peers.get(interface.ifindex)
    entries = [(Mode.TC, peer)]
    if role.mode is not Mode.TC:
        entries.insert(0, (role.mode, entry))
    elif entry is not None or xdp:
        entries.insert(0, (Mode.GENERIC, entry))
    leads_to = peer if entry is None else entry
    if leads_to != CLOSED and leads_to not in observed.interfaces:
        # An older program's own entries can only be guessed.
        leads_to = role.target if _runs_older(ours, observed.programs) else None
    hides = role.carrier.lever if role.carrier and role.carrier.cause else None
    settled = record.settled if record else interface.up or bool(xdp or ours.ingress)
    admin, settled = _admin(interface, role, ours, hides=hides is Setting.UP, settled=settled)
    changes = _changes(interface, record, role.settings)
    return _End(
        interface,
        role,
        ours,
        entries,
        leads_to,
        changes | _levers(interface, ours, hides, admin),
        admin,
        settled,
        _carrier(interface, record, hides=hides is Setting.CARRIER),
    )


def _admin(
    interface: Interface, role: Role, ours: Ours, *, hides: bool, settled: bool
) -> tuple[int | None, bool]:
    """The admin state that an end is given (None: it is left), and whether it is settled then.

    What an operator did since we last set it stays. One that was found up is set up again; one
    that was found down is set up while it is wired, but not with ``admin: keep``. A tunnel to
    another host is up while it is held, too: by it one hears that it may be wired.
    """
    if hides:
        if interface.up and not (ours.hidden and settled):
            return 0, settled
        return None, settled or ours.hidden
    change = ours.record.changes.get(Setting.UP) if ours.record else None
    manages = role.link.admin is Admin.MANAGE or role.made
    is_ours = ours.hidden or not settled
    is_wanted_up = manages and (role.to_host or not role.held)
    if not interface.up and is_ours and ((change and change.found) or is_wanted_up):
        return 1, settled
    return None, settled or interface.up or not manages


def _carrier(interface: Interface, record: Record | None, *, hides: bool) -> int | None:
    """The carrier that a tap is given; opening one gives it a carrier, whatever we had set."""
    if hides:
        return 0 if interface.carrier else None
    taken = record.changes.get(Setting.CARRIER) if record else None
    return 1 if taken and taken.found and not interface.carrier else None


def _levers(
    interface: Interface, ours: Ours, hides: Setting | None, admin: int | None
) -> dict[str, Change]:
    """What the record is to say of the levers from now on, as far as that changes."""
    changes: dict[str, Change] = {}
    record = ours.record
    if admin is not None:
        known = record.changes.get(Setting.UP) if record else None
        is_ours = record and known and (not record.settled or interface.up in known)
        changes[Setting.UP] = Change(known.found if known and is_ours else int(interface.up), admin)
    elif record and ours.hidden and interface.up and hides is None:
        changes[Setting.UP] = record.changes[Setting.UP]._replace(ours=1)
    if hides is Setting.CARRIER:
        known = record.changes.get(Setting.CARRIER) if record else None
        if known is None or interface.carrier:
            changes[Setting.CARRIER] = Change(int(interface.carrier), 0)
    return changes


def _runs_older(ours: Ours, programs: Programs) -> bool:
    """Whether an older program forwards there, by entries of its own."""
    there = {each.program for each in ours.xdp} | {each.program for each in ours.ingress}
    return not there <= programs.redirecting


def _changes(
    interface: Interface, record: Record | None, wanted: Mapping[str, int]
) -> dict[str, Change]:
    changes = {}
    for setting, ours in wanted.items():
        now = value_of(interface, setting)
        if now != ours:
            known = record.changes.get(setting) if record else None
            found = known.found if known and now in (known.ours, known.found) else now
            changes[setting] = Change(found, ours)
    return changes


# --------------------------------------------------------------------------- the steps


class _Diff:
    """Gathers the actions, group by group."""

    def __init__(self, observed: Observed, unwanted: Mapping[int, Made]) -> None:
        self._observed = observed
        self._unwanted = unwanted
        self.actions: list[Action] = []
        self.deletions: list[Action] = []
        self._do = self.actions.append

    def add(self, groups: Sequence[Sequence[int]], wanted: Mapping[int, Role]) -> None:
        observed = self._observed
        ends = {
            ifindex: _end(observed.interfaces[ifindex], wanted[ifindex], observed)
            for ifindex in chain.from_iterable(groups)
            if ifindex in wanted and ifindex in observed.interfaces
        }
        loose = {
            ifindex: self._known(ifindex)
            for ifindex in chain.from_iterable(groups)
            if ifindex not in wanted
        }
        self._prepare(ends.values())
        for step in (self._stop_host_egress, self._go_on, self._attach_xdp, self._attach_tc):
            for end in ends.values():
                step(end)
        if observed.guarded is not None and not ends.keys() <= observed.guarded:
            self._guard(ends.values())
        for ifindex, end in ends.items():
            if observed.uses.get(ifindex):
                self._unlearn(end)
        for group in groups:
            self._exchange(
                [loose[ifindex] for ifindex in group if ifindex in loose],
                [ends[ifindex] for ifindex in group if ifindex in ends],
            )
        for step in (self._clean_up, self._put_back_unwanted, self._show, self._settle):
            for end in ends.values():
                step(end)
        if loose:
            self._detach(loose.values())

    def _exchange(self, loose: Iterable[Interface], ends: Iterable[_End]) -> None:
        for interface in loose:
            self._cut_loose(interface)
        for step in (self._cut, self._wire):
            for end in ends:
                step(end)

    def _known(self, ifindex: int) -> Interface:
        """The interface, or what is left of one that is gone."""
        if interface := self._observed.interfaces.get(ifindex):
            return interface
        record = self._observed.records.get(ifindex)
        return Interface(ifindex, record.name if record else f"ifindex {ifindex}")

    # ---- 1. prepare

    def _prepare(self, ends: Iterable[_End]) -> None:
        for end in ends:
            self._hold(end)
        for end in ends:
            self._set(end, end.changes.keys() - {*_APART, *_WITH_XDP})

    def _hold(self, end: _End) -> None:
        kept = {**(end.ours.record.changes if end.ours.record else {}), **end.changes}
        if end.role.is_tunnel:  # which is not put back: it goes
            kept.pop(Setting.MTU, None)
        elif end.role.made and (mtu := kept.get(Setting.MTU)):
            kept[Setting.MTU] = mtu._replace(found=end.role.link.mtu)
        held = end.held(kept)
        if held != end.ours.record:
            reason = "its settings are saved, to be restored later"
            self._do(Hold(end.role.link.id, end.interface, reason, held))

    def _set(self, end: _End, settings: Collection[str]) -> None:
        for setting, change in end.changes.items():
            if setting in settings:
                reason = _reason(setting, end.role)
                self._do(Set(end.role.link.id, end.interface, reason, setting, change.ours))

    def _stop_host_egress(self, end: _End) -> None:
        """What leaves by it is the wire's alone, and impaired as that is to be."""
        link, interface, programs = end.role.link.id, end.interface, self._observed.programs
        name, program = "egress", programs.egress
        if end.role.is_tunnel:
            name, program = "tunnel_egress", programs.tunnel_egress
        self._add_filter(end, "egress", name, program, _REASONS[Setting.CLSACT])
        for filter_ in end.ours.egress:
            if filter_.handle == DROP_HANDLE and end.role.drop == "":
                reason = "no frames are to be dropped"
                self._do(DeleteFilter(link, interface, reason, "egress", filter_))
        if end.role.drop:
            self._add_drop(end, end.role.drop)
        shape, root = end.role.shape, interface.root
        if shape and not (root and root.shape and root.shape.does(shape)):
            self._do(Impair(link, interface, "impairs what leaves by it", shape))

    def _add_filter(self, end: _End, direction: str, role: str, program: int, reason: str) -> None:
        there = end.ours.egress if direction == "egress" else end.ours.ingress
        if not program or program not in [each.program for each in there]:
            link, interface = end.role.link.id, end.interface
            replacing = FILTER_HANDLE in [each.handle for each in there]
            self._do(AddFilter(link, interface, reason, direction, replacing, role))

    def _add_drop(self, end: _End, expression: str) -> None:
        there = [each for each in end.ours.egress if each.handle == DROP_HANDLE]
        name = self._observed.programs.drop_name(expression)
        if name not in [each.name for each in there]:
            reason = f"drops what matches: {expression}"
            link, interface = end.role.link.id, end.interface
            self._do(AddDrop(link, interface, reason, expression, name, bool(there)))

    # ---- 2. programs

    def _go_on(self, end: _End) -> None:
        """A program that is put on beside or over another finds an entry."""
        if end.leads_to is None:
            return
        for mode, entry in end.entries:
            if entry is None and (end.leads_to or mode is Mode.TC):
                reason = "forwards on while its program changes"
                self._do(Point(end.role.link.id, end.interface, reason, mode, end.leads_to))

    def _attach_xdp(self, end: _End) -> None:
        interface, role = end.interface, end.role
        if end.changes:
            self._set(end, _WITH_XDP)
        if role.mode is Mode.TC:
            return
        now = 0
        for xdp in end.ours.xdp:
            if xdp.mode == role.mode:
                now = xdp.program
            else:  # generic and native exclude each other
                self._do(
                    Detach(role.link.id, interface, "mode changes", Mode(xdp.mode), xdp.program)
                )
        name, program = "xdp", self._observed.programs.xdp
        if role.link.rewrite is Rewrite.SWAP_MACS:
            name, program = "swap_xdp", self._observed.programs.swap_xdp
        if not now or now != program:
            reason = _why_attached(role)
            if now:
                others = now in self._observed.programs.redirecting
                reason = role.link.manner if others else "replaced by this version's program"
            ours = role.mode is Mode.NATIVE and role.link.mode is Mode.AUTO
            self._do(Attach(role.link.id, interface, reason, role.mode, now, ours, name))

    def _attach_tc(self, end: _End) -> None:
        role, programs = end.role, self._observed.programs
        reason = "takes what XDP does not see"
        if role.mode is Mode.TC:
            reason = _why_attached(role)
        if role.to_host:
            program = programs.tunnel_ingress
            self._add_filter(end, "ingress", "tunnel_ingress", program, reason)
        elif role.link.rewrite is Rewrite.SWAP_MACS:
            self._add_filter(end, "ingress", "swap_ingress", programs.swap_ingress, reason)
        else:
            self._add_filter(end, "ingress", "ingress", programs.ingress, reason)

    def _guard(self, ends: Iterable[_End]) -> None:
        reason = "stops at the host's IP stack what bypasses the programs"
        for end in ends:
            if end.interface.ifindex not in (self._observed.guarded or ()):
                self._do(Guard(end.role.link.id, end.interface, reason))

    def _unlearn(self, end: _End) -> None:
        """Once no more can come in."""
        if found := admission.learnt(end.interface, self._observed):
            words = "; ".join(use.words for use in found)
            reason = f"learnt from a router on the wire: {words}"
            self._do(Unlearn(end.role.link.id, end.interface, reason))

    # ---- 3. entries

    def _cut_loose(self, interface: Interface) -> None:
        if interface.ifindex in self._observed.entries:
            self._do(Cut("", interface, _NO_LINK, Mode.GENERIC))
        if interface.ifindex in self._observed.peers:
            self._do(Cut("", interface, _NO_LINK, Mode.TC))

    def _cut(self, end: _End) -> None:
        if end.role.target is not None:
            return
        for mode, entry in end.entries:
            if (entry, end.leads_to) != (None, None):
                self._do(Cut(end.role.link.id, end.interface, end.role.held, mode))

    def _wire(self, end: _End) -> None:
        """Also in the map of XDP, where tc follows: its program stands until step 4."""
        target = end.role.target
        if target is None:
            return
        if target == CLOSED:
            self._close(end)
            return
        for mode, entry in end.entries:
            now = end.leads_to if entry is None else entry
            if now != target:
                reason = f"was connected to ifindex {now}" if now else "connected"
                self._do(Point(end.role.link.id, end.interface, reason, mode, target))

    def _close(self, end: _End) -> None:
        """Among the peers first, which tell XDP why there is no entry."""
        link, interface = end.role.link, end.interface
        for mode, entry in reversed(end.entries):
            if mode is Mode.TC and entry != CLOSED:
                self._do(Point(link.id, interface, link.manner, mode, CLOSED))
            elif mode is not Mode.TC and (entry or end.leads_to):
                self._do(Cut(link.id, interface, link.manner, mode))

    # ---- 4. what an earlier mode left behind

    def _clean_up(self, end: _End) -> None:
        if end.role.mode is not Mode.TC:
            return
        link, reason = end.role.link.id, f"not used in {end.role.mode} mode"
        self._detach_xdp(link, end.interface, end.ours, reason)
        if end.interface.ifindex in self._observed.entries or end.ours.xdp:
            self._do(Cut(link, end.interface, reason, Mode.GENERIC))

    def _put_back_unwanted(self, end: _End) -> None:
        """What an end was given as a wire it keeps while it is held: its partner may be back."""
        record = end.ours.record
        if record is None or end.role.held:
            return
        unwanted = record.changes.keys() - end.role.settings.keys() - {*_LEVERS}
        if unwanted:
            self._put_back(end.role.link.id, end.interface, record, sorted(unwanted))
            kept = {**record.changes, **end.changes}
            left = {name: change for name, change in kept.items() if name not in unwanted}
            reason = "fewer settings to restore"
            self._do(Hold(end.role.link.id, end.interface, reason, end.held(left)))

    # ---- 5. set up, or show no carrier

    def _show(self, end: _End) -> None:
        link, interface, role = end.role.link.id, end.interface, end.role
        cause = role.carrier.cause if role.carrier else ""
        reason = f"no carrier is shown: {cause}" if cause else _SHOWN
        if end.admin is not None:
            why = reason if cause or end.ours.hidden else _REASONS[Setting.UP]
            self._do(Set(link, interface, why, Setting.UP, end.admin))
        if end.carrier is not None:
            self._do(Set(link, interface, reason, Setting.CARRIER, end.carrier))

    def _settle(self, end: _End) -> None:
        """What is set is what we want; from then on another value is what somebody else wants."""
        role = end.role
        kept = {**(end.ours.record.changes if end.ours.record else {}), **end.changes}
        shown_again = Setting.CARRIER in kept and not (role.carrier and role.carrier.cause)
        if end.admin is None and not shown_again:
            return
        if not role.held:
            wanted = {*role.settings, *_LEVERS}
            kept = {name: change for name, change in kept.items() if name in wanted}
        if shown_again:
            del kept[Setting.CARRIER]
        reason = "from here on another admin state is what somebody else wants"
        held = end.held(kept)._replace(settled=True)
        self._do(Hold(role.link.id, end.interface, reason, held))

    # ---- 6. detach

    def _detach(self, ends: Iterable[Interface]) -> None:
        observed = self._observed
        for interface in ends:
            if interface.ifindex in (observed.guarded or ()):
                self._do(Unguard("", interface, _NO_LINK))
        held = []
        for interface in ends:
            if made := self._unwanted.get(interface.ifindex):
                self.deletions.append(Unmake("", interface, _NO_LINK, made))
            elif (ours := observed.ours.get(interface.ifindex, NOTHING)).held:
                held.append((interface, ours))
        if held:
            self._take_off(held)
        for interface in ends:
            ours = observed.ours.get(interface.ifindex, NOTHING)
            if ours.runs or interface.ifindex in observed.records:
                self._do(Forget("", interface, _NO_LINK))

    def _take_off(self, held: Iterable[tuple[Interface, Ours]]) -> None:
        """An end that goes down first says nothing on the wire while the rest is put back.

        A clsact that goes takes its filters along, so these are not deleted one by one.
        """
        records = [(interface, ours.record) for interface, ours in held if ours.record]
        bare = {i.ifindex for i, each in records if self._is_put_back(i, each, Setting.CLSACT)}
        kept = [(interface, ours) for interface, ours in held if interface.ifindex not in bare]
        for interface, record in records:
            if _was_down(record):
                self._put_back("", interface, record, (Setting.UP,))
        for interface, ours in held:
            self._detach_xdp("", interface, ours, _NO_LINK)
            if ours.record:
                self._put_back("", interface, ours.record, _WITH_XDP)
        for interface, ours in kept:
            self._delete_filters(interface, "ingress", ours.ingress)
        for interface, record in records:
            rest = record.changes.keys() - {*_WITH_XDP, *_LAST}
            self._put_back("", interface, record, sorted(rest))
        for interface, ours in kept:
            self._delete_filters(interface, "egress", ours.egress)
        for interface, record in records:
            last = _LAST[:1] if _was_down(record) else _LAST
            self._put_back("", interface, record, last)

    def _put_back(
        self, link: str, interface: Interface, record: Record, names: Iterable[str]
    ) -> None:
        for name in names:
            if self._is_put_back(interface, record, name):
                found = record.changes[name].found
                self._do(Set(link, interface, _PUT_BACK, name, found))

    def _is_put_back(self, interface: Interface, record: Record, name: str) -> bool:
        """Only where a setting still has our value: what came meanwhile is somebody else's.

        While we were setting the admin state either value was ours.
        """
        change, now = record.changes.get(name), value_of(interface, name)
        if change is None or now == change.found:
            return False
        if now != change.ours and not (name == Setting.UP and not record.settled):
            return False
        if name == Setting.CLSACT:
            return not self._shares_clsact(interface)
        return name != Setting.ADDR_GEN_MODE or not _loses_ipv6(interface, record)

    def _detach_xdp(self, link: str, interface: Interface, ours: Ours, reason: str) -> None:
        for xdp in ours.xdp:
            self._do(Detach(link, interface, reason, Mode(xdp.mode), xdp.program))

    def _delete_filters(
        self, interface: Interface, direction: str, filters: Iterable[Filter]
    ) -> None:
        for filter_ in filters:
            self._do(DeleteFilter("", interface, _NO_LINK, direction, filter_))

    def _shares_clsact(self, interface: Interface) -> bool:
        """Whether filters of others stand there."""
        ours = self._observed.ours[interface.ifindex]
        return (interface.ingress, interface.egress) != (ours.ingress, ours.egress)


def value_of(interface: Interface, setting: str) -> int:
    """A setting's value as observed, booleans as 0 and 1."""
    match setting:
        case Setting.MTU:
            return interface.mtu
        case Setting.UP:
            return int(interface.up)
        case Setting.CARRIER:
            return int(interface.carrier)
        case Setting.PROMISCUOUS:
            return int(interface.promiscuous)
        case Setting.ADDR_GEN_MODE:
            return interface.addr_gen_mode or 0
        case Setting.CLSACT:
            return int(interface.qdisc == "clsact")
        case Setting.ROOT_QDISC:
            return interface.root.handle if interface.root else 0
    return int(setting.removeprefix(FEATURE_PREFIX) in interface.features)


def _why_attached(role: Role) -> str:
    return f"drops what comes in: {role.held}" if role.held else "takes what comes in"


def _reason(setting: str, role: Role) -> str:
    if setting == Setting.MTU and role.is_tunnel:
        return "as much as its way takes"
    return _REASONS.get(setting, "it alters frames")


def _loses_ipv6(interface: Interface, record: Record) -> bool:
    """Whether the MTU that is put back leaves no IPv6 there; what comes anew is as found."""
    mtu = record.changes.get(Setting.MTU)
    return mtu is not None and interface.mtu == mtu.ours and mtu.found < _IPV6_MTU


def _was_down(record: Record) -> bool:
    """Whether it was found down and is not left as it is."""
    change = record.changes.get(Setting.UP)
    return change is not None and not change.found
