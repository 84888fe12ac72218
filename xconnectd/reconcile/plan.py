"""The pure diff: (roles, one look at the kernel) to ordered actions, each with its reason.

Order within a group of links that exchange ends, so that no frame goes astray:

1. prepare new ends (record what is found, drop the host's egress, settings, counters),
2. attach programs: a new end drops what comes until it is wired, one whose program changes goes
   on to where it leads now; close the host's stack behind them, and remove what routers taught
   the host there until then,
3. cut the entries of ends that are detached or held, and wire: write the entries of all others,
4. take off the programs of an earlier mode, and only then put settings back,
5. set up ends that were found down,
6. detach: the host's stack open again, programs off, settings put back.

All steps but the third wait for the kernel's lock of all interfaces (RTNL), which others may hold
for seconds, so step 3 is what changes where frames go, in both directions within microseconds.
Moving a wire between attached ends is that step alone. An entry never outlives its program. An
end that is held has a program and no entry: the steps 1 to 3 are all it gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from xconnectd.model import (
    FEATURE_PREFIX,
    Admin,
    Change,
    Interface,
    Mode,
    Observed,
    Record,
    Setting,
    Xdp,
)
from xconnectd.reconcile import admission
from xconnectd.reconcile.actions import (
    Action,
    AddFilter,
    Attach,
    Cut,
    DeleteFilter,
    Detach,
    Forget,
    Hold,
    Point,
    Set,
    Unlearn,
)
from xconnectd.reconcile.evaluate import Role

_REASONS: Final[Mapping[str, str]] = {
    Setting.MTU: "whole GSO packets must fit through a generic redirect",
    Setting.UP: "it was found down (admin: manage)",
    Setting.PROMISCUOUS: "a NIC drops frames for other MACs before any program sees them",
    Setting.ADDR_GEN_MODE: "the host must not talk IPv6 on a wire",
    Setting.CLSACT: "the host's own frames are dropped there",
}
_PUT_BACK = "put back as found"
_IPV6_MTU: Final = 1280
"""Bytes; with less the kernel takes IPv6 off an interface, and address generation with it."""
_NO_LINK = "no link has this end"


@dataclass(frozen=True, slots=True)
class Guard(Action):
    """Has what gets past our programs dropped and counted at the door of the host's IP stack."""


@dataclass(frozen=True, slots=True)
class Unguard(Action):
    """Opens that door."""


def plan(wanted: Mapping[int, Role], observed: Observed) -> tuple[Action, ...]:
    """Everything that leads from ``observed`` to ``wanted`` (roles by ifindex); empty if nothing.

    Interfaces that are not in ``observed`` are not touched, so a narrow look gives a narrow
    plan. An end that we hold and that has no role is detached.
    """
    diff = _Diff(wanted, observed)
    return tuple(action for group in _groups(wanted, observed) for action in diff.of_group(group))


# --------------------------------------------------------------------------- groups


def _groups(wanted: Mapping[int, Role], observed: Observed) -> Iterator[list[int]]:
    """Ends that exchange partners in this plan, together.

    Each group is brief, so an end that is cut is wired again or detached within milliseconds even
    when a thousand links move.
    """
    neighbours: dict[int, set[int]] = {}
    pairs = [(ifindex, role.target) for ifindex, role in wanted.items()]
    for a, b in (*pairs, *observed.entries.items(), *observed.peers.items()):
        neighbours.setdefault(a, set())
        if b is not None:
            neighbours[a].add(b)
            neighbours.setdefault(b, set()).add(a)
    for ifindex in (*observed.records, *(observed.guarded or ())):
        neighbours.setdefault(ifindex, set())
    for ifindex, interface in observed.interfaces.items():
        if observed.is_held(interface):
            neighbours.setdefault(ifindex, set())
    seen: set[int] = set()
    for start in neighbours:
        if start not in seen:
            group = _reachable(start, neighbours)
            seen.update(group)
            yield group


def _reachable(start: int, neighbours: Mapping[int, set[int]]) -> list[int]:
    group, stack = {start: None}, [start]
    while stack:
        for ifindex in sorted(neighbours[stack.pop()]):
            if ifindex not in group:
                group[ifindex] = None
                stack.append(ifindex)
    return list(group)


# --------------------------------------------------------------------------- one interface


class _Diff(NamedTuple):
    wanted: Mapping[int, Role]
    observed: Observed

    def of_group(self, group: list[int]) -> Iterator[Action]:
        ends = [
            (self.observed.interfaces[ifindex], role)
            for ifindex in group
            if (role := self.wanted.get(ifindex)) and ifindex in self.observed.interfaces
        ]
        loose = [ifindex for ifindex in group if ifindex not in self.wanted]
        for step in (self._prepare, self._go_on, self._attach, self._unlearn):
            for interface, role in ends:
                yield from step(interface, role)
        for ifindex in loose:
            yield from self._cut_loose(ifindex)
        for step in (self._cut, self._wire, self._clean_up, self._put_back_unwanted, self._set_up):
            for interface, role in ends:
                yield from step(interface, role)
        for ifindex in loose:
            yield from self._detach(ifindex)

    # ---- 1. prepare

    def _prepare(self, interface: Interface, role: Role) -> Iterator[Action]:
        changes = self._changes(interface, role)
        record = self._record(interface)
        kept = record.changes if record else {}
        held = self._held(interface, role, {**kept, **changes})
        if held != record:
            yield Hold(role.link.id, interface, "what is found is recorded first", held)
        for setting, change in changes.items():
            if setting != Setting.UP:
                yield Set(role.link.id, interface, _reason(setting), setting, change.ours)
        yield from self._add_filter(
            interface, role, "egress", self.observed.programs.egress, _REASONS[Setting.CLSACT]
        )

    def _changes(self, interface: Interface, role: Role) -> dict[str, Change]:
        """The settings that are not as wanted, each with the value to put back one day."""
        record = self._record(interface)
        wanted = dict(role.settings)
        if self._is_to_be_set_up(interface, role):
            wanted[Setting.UP] = 1
        changes = {}
        for setting, ours in wanted.items():
            now = value_of(interface, setting)
            if now != ours:
                known = record.changes.get(setting) if record else None
                found = known.found if known and now in (known.ours, known.found) else now
                changes[setting] = Change(found, ours)
        return changes

    def _is_found_down(self, interface: Interface, role: Role) -> bool:
        """An operator's ``ip link set down`` on an end that is settled is not ours to undo."""
        if role.link.admin is not Admin.MANAGE or interface.up:
            return False
        record = self._record(interface)
        return not record.settled if record else not self._attached(interface)

    def _is_to_be_set_up(self, interface: Interface, role: Role) -> bool:
        """With its link: one that is only held stays as it is."""
        return not role.held and self._is_found_down(interface, role)

    def _held(self, interface: Interface, role: Role, changes: Mapping[str, Change]) -> Record:
        settled = not self._is_found_down(interface, role)
        record = self._record(interface)
        return Record(
            interface.ifindex,
            interface.name,
            interface.mac,
            changes,
            settled,
            record.refusal if record else None,
            role.other if role.held else None,
            role.link.allow_addressed,
            interface.kind,
        )

    # ---- 3. entries

    def _cut(self, interface: Interface, role: Role) -> Iterator[Action]:
        leads_to = self._leads_to(interface, role)
        for mode, entry in self._entries_of(interface, role):
            if role.target is None and (entry, leads_to) != (None, None):
                yield Cut(role.link.id, interface, role.held, mode)

    def _cut_loose(self, ifindex: int) -> Iterator[Action]:
        yield from self._cuts("", self._known(ifindex), _NO_LINK)

    def _cuts(self, link: str, interface: Interface, reason: str) -> Iterator[Action]:
        if interface.ifindex in self.observed.entries:
            yield Cut(link, interface, reason, Mode.GENERIC)
        if interface.ifindex in self.observed.peers:
            yield Cut(link, interface, reason, Mode.TC)

    def _wire(self, interface: Interface, role: Role) -> Iterator[Action]:
        """Also in the map of XDP, where tc follows: its program stands until step 4."""
        leads_to = self._leads_to(interface, role)
        for mode, entry in self._entries_of(interface, role):
            now = leads_to if entry is None else entry
            if role.target is not None and now != role.target:
                reason = "wired" if now is None else f"wired to ifindex {now} until now"
                yield Point(role.link.id, interface, reason, mode, role.target)

    def _entries_of(self, interface: Interface, role: Role) -> list[tuple[Mode, int | None]]:
        """Of each map that its programs read, now or from step 2 on."""
        entry = self.observed.entries.get(interface.ifindex)
        entries = [(Mode.TC, self.observed.peers.get(interface.ifindex))]
        if role.mode is not Mode.TC:
            entries.insert(0, (role.mode, entry))
        elif entry is not None or self._ours(interface):
            entries.insert(0, (Mode.GENERIC, entry))
        return entries

    def _leads_to(self, interface: Interface, role: Role) -> int | None:
        """Where its frames go now; by an older program's own entries that can only be guessed."""
        known = (entry for _, entry in self._entries_of(interface, role) if entry is not None)
        entry = self.observed.entries.get(interface.ifindex, next(known, None))
        if entry in self.observed.interfaces:
            return entry
        return role.target if self._runs_older(interface) else None

    # ---- 2. programs

    def _go_on(self, interface: Interface, role: Role) -> Iterator[Action]:
        """A program that is put on beside or over another finds an entry."""
        leads_to = self._leads_to(interface, role)
        for mode, entry in self._entries_of(interface, role):
            if leads_to is not None and entry is None:
                yield Point(role.link.id, interface, "it leads there", mode, leads_to)

    def _runs_older(self, interface: Interface) -> bool:
        """Whether an older program forwards there, by entries of its own."""
        programs = self.observed.programs
        there = {xdp.program for xdp in interface.xdp}
        there |= {filter_.program for filter_ in interface.ingress}
        return bool(there & programs.ours - {programs.xdp, programs.ingress})

    def _attach(self, interface: Interface, role: Role) -> Iterator[Action]:
        in_tc = role.mode is Mode.TC
        taken = f"frames are dropped here: {role.held}" if role.held else "frames are taken here"
        reason = taken if in_tc else "frames that XDP does not see are taken here"
        if not in_tc:
            yield from self._attach_xdp(interface, role, taken)
        ingress = self.observed.programs.ingress
        yield from self._add_filter(interface, role, "ingress", ingress, reason)
        guarded = self.observed.guarded
        if guarded is not None and interface.ifindex not in guarded:
            yield Guard(role.link.id, interface, "what gets past the programs is not for the host")

    def _attach_xdp(self, interface: Interface, role: Role, taken: str) -> Iterator[Action]:
        other = [xdp for xdp in self._ours(interface) if xdp.mode != role.mode]
        for xdp in other:  # generic and native exclude each other
            yield Detach(role.link.id, interface, "mode changes", Mode(xdp.mode), xdp.program)
        now = next((xdp.program for xdp in self._ours(interface) if xdp not in other), 0)
        if not now or now != self.observed.programs.xdp:
            reason = "a newer program replaces it" if now else taken
            ours = role.mode is Mode.NATIVE and role.link.mode is Mode.AUTO
            yield Attach(role.link.id, interface, reason, role.mode, now, ours)

    def _unlearn(self, interface: Interface, role: Role) -> Iterator[Action]:
        """Once no more can come in."""
        if found := admission.learnt(interface, self.observed):
            words = "; ".join(use.words for use in found)
            yield Unlearn(role.link.id, interface, f"learnt from a router on the wire: {words}")

    def _clean_up(self, interface: Interface, role: Role) -> Iterator[Action]:
        """What an earlier mode left behind, once the new one works."""
        link, reason = role.link.id, f"mode is {role.mode} now"
        if role.mode is Mode.TC:
            yield from self._detach_xdp(link, interface, reason)
            if interface.ifindex in self.observed.entries or self._ours(interface):
                yield Cut(link, interface, reason, Mode.GENERIC)

    def _put_back_unwanted(self, interface: Interface, role: Role) -> Iterator[Action]:
        """What an end was given as a wire it keeps while it is held: its partner may be back."""
        record = self._record(interface)
        if record is None or role.held:
            return
        unwanted = record.changes.keys() - role.settings.keys() - {Setting.UP}
        if unwanted:
            yield from self._put_back(role.link.id, interface, record, sorted(unwanted))
            kept = {**record.changes, **self._changes(interface, role)}
            left = {name: change for name, change in kept.items() if name not in unwanted}
            held = self._held(interface, role, left)
            yield Hold(role.link.id, interface, "less is changed than before", held)

    # ---- 5. set up

    def _set_up(self, interface: Interface, role: Role) -> Iterator[Action]:
        if self._is_to_be_set_up(interface, role):
            yield Set(role.link.id, interface, _REASONS[Setting.UP], Setting.UP, 1)
            record = self._record(interface)
            kept = {**(record.changes if record else {}), **self._changes(interface, role)}
            wanted = {*role.settings, Setting.UP}
            changes = {name: change for name, change in kept.items() if name in wanted}
            held = self._held(interface, role, changes)._replace(settled=True)
            yield Hold(role.link.id, interface, "from here on down is what somebody wants", held)

    # ---- 6. detach

    def _detach(self, ifindex: int) -> Iterator[Action]:
        interface = self._known(ifindex)
        record = self._record(interface)
        if ifindex in (self.observed.guarded or ()):
            yield Unguard("", interface, _NO_LINK)
        if record or self.observed.runs_ours(interface):
            yield from self._detach_xdp("", interface, _NO_LINK)
            yield from self._delete_filters("", interface, "ingress", _NO_LINK)
            changes = record.changes if record else {}
            last = [name for name in (Setting.CLSACT, Setting.ADDR_GEN_MODE) if name in changes]
            first = [name for name in _up_first(changes) if name not in last]
            if record:
                yield from self._put_back("", interface, record, first)
            yield from self._delete_filters("", interface, "egress", _NO_LINK)
            if record:
                yield from self._put_back("", interface, record, last)
        if ifindex in self.observed.records or self.observed.is_held(interface):
            yield Forget("", interface, _NO_LINK)

    def _put_back(
        self, link: str, interface: Interface, record: Record, names: Iterable[str]
    ) -> Iterator[Action]:
        """Only where a setting still has our value: what came meanwhile is somebody else's."""
        for name in names:
            change = record.changes[name]
            if value_of(interface, name) != change.ours or change.found == change.ours:
                continue
            if name == Setting.CLSACT and self._shares_clsact(interface):
                continue
            if name == Setting.ADDR_GEN_MODE and _loses_ipv6(interface, record):
                continue
            yield Set(link, interface, _PUT_BACK, name, change.found)

    def _detach_xdp(self, link: str, interface: Interface, reason: str) -> Iterator[Action]:
        for xdp in self._ours(interface):
            yield Detach(link, interface, reason, Mode(xdp.mode), xdp.program)

    def _delete_filters(
        self, link: str, interface: Interface, direction: str, reason: str
    ) -> Iterator[Action]:
        filters = interface.ingress if direction == "ingress" else interface.egress
        for filter_ in filters:
            if filter_.program in self.observed.programs.ours:
                yield DeleteFilter(link, interface, reason, direction, filter_)

    # ---- what is there

    def _known(self, ifindex: int) -> Interface:
        """The interface, or what is left of one that is gone."""
        if interface := self.observed.interfaces.get(ifindex):
            return interface
        record = self.observed.records.get(ifindex)
        return Interface(ifindex, record.name if record else f"ifindex {ifindex}")

    def _record(self, interface: Interface) -> Record | None:
        """Its record, unless that is of an earlier device with the same ifindex."""
        record = self.observed.records.get(interface.ifindex)
        if record and (record.is_of(interface) or self.observed.runs_ours(interface)):
            return record
        return None

    def _ours(self, interface: Interface) -> list[Xdp]:
        return [xdp for xdp in interface.xdp if xdp.program in self.observed.programs.ours]

    def _attached(self, interface: Interface) -> bool:
        programs = [filter_.program for filter_ in interface.ingress]
        return bool(self._ours(interface) or self.observed.programs.ours & set(programs))

    def _add_filter(
        self, interface: Interface, role: Role, direction: str, program: int, reason: str
    ) -> Iterator[Action]:
        filters = interface.ingress if direction == "ingress" else interface.egress
        there = {filter_.program for filter_ in filters}
        if not program or program not in there:
            older = not self.observed.programs.ours.isdisjoint(there)
            yield AddFilter(role.link.id, interface, reason, direction, older)

    def _shares_clsact(self, interface: Interface) -> bool:
        return any(
            filter_.program not in self.observed.programs.ours
            for filter_ in (*interface.ingress, *interface.egress)
        )


_VALUES: Final[Mapping[str, Callable[[Interface], int]]] = {
    Setting.MTU: lambda interface: interface.mtu,
    Setting.UP: lambda interface: int(interface.up),
    Setting.PROMISCUOUS: lambda interface: int(interface.promiscuous),
    Setting.ADDR_GEN_MODE: lambda interface: interface.addr_gen_mode or 0,
    Setting.CLSACT: lambda interface: int(interface.qdisc == "clsact"),
}


def value_of(interface: Interface, setting: str) -> int:
    """A setting's value as observed, booleans as 0 and 1."""
    if look := _VALUES.get(setting):
        return look(interface)
    return int(setting.removeprefix(FEATURE_PREFIX) in interface.features)


def _reason(setting: str) -> str:
    return _REASONS.get(setting, "it alters frames")


def _loses_ipv6(interface: Interface, record: Record) -> bool:
    """Whether the MTU that is put back leaves no IPv6 there; what comes anew is as found."""
    mtu = record.changes.get(Setting.MTU)
    return mtu is not None and interface.mtu == mtu.ours and mtu.found < _IPV6_MTU


def _up_first(changes: Mapping[str, Change]) -> list[str]:
    """An end that goes down first says nothing on the wire while the rest is put back."""
    return sorted(changes, key=lambda name: (name != Setting.UP, name))
