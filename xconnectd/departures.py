"""Ends that leave this namespace with our program on them, and those that come back.

The kernel takes an XDP program along with its device, and an ifindex that became free may come
up again: frames of the departed device would enter another wire. So its number is no key again
while the program may still be there, and what is to be done about it is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Protocol

from xconnectd.log import Event, Logger
from xconnectd.model import Departed, Interface, Observed, Programs, Record


class Interfaces(Protocol):
    """What is asked of ``links``."""

    def all(self) -> dict[int, Interface]: ...
    def at(self, ifindex: int, nsid: int | None) -> Interface | None: ...
    def elsewhere(self) -> Iterator[tuple[int, Interface]]: ...
    def namespace_name(self, nsid: int) -> str: ...
    def settle(self) -> None: ...


class Maps(Protocol):
    """What is asked of ``dataplane``."""

    @property
    def programs(self) -> Programs: ...
    def unpoint(self, key: int) -> None: ...
    def unsteer(self, key: int) -> None: ...


class Ledger(Protocol):
    """What is asked of ``ledger``."""

    def records(self) -> Mapping[int, Record]: ...
    def programs(self) -> frozenset[int]: ...
    def departed(self) -> tuple[Departed, ...]: ...
    def set_departed(self, departed: tuple[Departed, ...]) -> None: ...
    def missed(self) -> tuple[Record, ...]: ...
    def set_missed(self, missed: tuple[Record, ...]) -> None: ...
    def hold(self, record: Record) -> None: ...


class Departures:
    def __init__(self, interfaces: Interfaces, maps: Maps, ledger: Ledger, log: Logger) -> None:
        self._interfaces = interfaces
        self._maps = maps
        self._ledger = ledger
        self._log = log
        self._heard: set[int] = set()

    def miss(self, observed: Observed) -> None:
        """Keeps the records of interfaces that are gone without a farewell so far.

        To be told of every look before what it shows is acted on, and records are dropped.

        On its way to another namespace a device is taken out first, and only after the kernel
        waited for its readers (synchronize_net) comes the message that says where it went. A crash
        in between must not forget it.
        """
        missed = self._missed()
        for ifindex, record in observed.records.items():
            if ifindex not in observed.interfaces and ifindex not in self._heard:
                missed[ifindex] = record
        self._set_missed(missed)

    def _missed(self) -> dict[int, Record]:
        return {record.ifindex: record for record in self._ledger.missed()}

    def _set_missed(self, missed: Mapping[int, Record]) -> None:
        with suppress(OSError):  # a full disk: then only a crash forgets it
            self._ledger.set_missed(tuple(missed.values()))

    def settle(self) -> None:
        """At the end of a pass: farewells heard before it are dealt with."""
        self._heard.clear()

    def awaits(self, ifindex: int) -> bool:
        """Whether a farewell of this interface would be news."""
        return ifindex in self._missed() or ifindex in self._ledger.records()

    def note(self, ifindex: int, nsid: int | None, new_ifindex: int | None) -> None:
        """An interface is gone from here: deleted, or to the namespace ``nsid``."""
        self._maps.unpoint(ifindex)
        self._maps.unsteer(ifindex)
        self._heard.add(ifindex)
        missed = self._missed()
        known = missed.pop(ifindex, None)
        record = self._ledger.records().get(ifindex, known)
        if record is not None and nsid is not None and new_ifindex is not None:
            self._follow(record, nsid, new_ifindex)
        self._set_missed(missed)  # not before: a crash in between would forget it

    def _follow(self, record: Record, nsid: int, new_ifindex: int) -> None:
        """An end of ours is in another namespace from now on."""
        gone = Departed(record, "", nsid, new_ifindex)
        device = self._arrived(new_ifindex, nsid)
        if device is not None and device.mac == record.mac:  # else it has gone on, or is back
            mode = self._mode_of_ours(device)
            namespace = self._interfaces.namespace_name(nsid)
            gone = gone._replace(mode=mode, namespace=namespace, name=device.name)
        self._add(gone)
        if gone.runs_ours:
            self._tell(gone)

    def _add(self, gone: Departed) -> None:
        """In place of what is known of the same device."""
        mac = gone.record.mac
        others = (each for each in self._ledger.departed() if each.record.mac != mac)
        self._set_departed((*others, gone))

    def _set_departed(self, departed: Iterable[Departed]) -> None:
        with suppress(OSError):  # as above
            self._ledger.set_departed(tuple(departed))

    def _arrived(self, ifindex: int, nsid: int) -> Interface | None:
        """The device where it went: the farewell is sent just before it is listed there."""
        if device := self._interfaces.at(ifindex, nsid):
            return device
        self._interfaces.settle()
        return self._interfaces.at(ifindex, nsid)

    def _tell(self, gone: Departed) -> None:
        self._log.warning(
            Event.END_DEPARTED,
            interface=gone.record.name,
            ifindex=gone.record.ifindex,
            reason=f"it left with our XDP program; take it off there: {gone.remedy}",
        )

    def find(self) -> None:
        """Those that left while nobody heard it, and those that are back since.

        For a start, and when events were lost: no farewell is awaited any more.
        """
        here = self._interfaces.all()
        records = self._ledger.records().values()
        known = {
            each.mac for each in records if each.ifindex in here and each.is_of(here[each.ifindex])
        }
        missing = {
            each.mac: each for each in (*self._ledger.missed(), *records) if each.mac not in known
        }
        if missing:
            self._search(missing, here)
        self._set_missed({})

    def _search(self, missing: dict[str, Record], here: Mapping[int, Interface]) -> None:
        """``missing`` is keyed by MAC."""
        for device in here.values():
            if device.mac in missing and self._mode_of_ours(device):
                self._add(Departed(missing.pop(device.mac), mode=""))
        for nsid, device in self._interfaces.elsewhere():
            if record := missing.get(device.mac):
                self.note(record.ifindex, nsid, device.ifindex)

    def _mode_of_ours(self, device: Interface) -> str:
        """That of our XDP program on it; empty if there is none."""
        ours = self._maps.programs.ours | self._ledger.programs()
        return next((xdp.mode for xdp in device.xdp if xdp.program in ours), "")

    def welcome_back(self, observed: Observed) -> bool:
        """Takes up the records of ends that are here again; True if there are any."""
        return self._unmiss(observed) | self._call_back(observed)

    def _unmiss(self, observed: Observed) -> bool:
        """Those that are back before their farewell was heard."""
        missed = self._missed()
        if not missed:
            return False
        by_mac = {record.mac: record for record in missed.values()}
        held = self._ledger.records()
        candidates = [
            each
            for each in observed.interfaces.values()
            if each.ifindex not in held and (record := by_mac.get(each.mac))
            if each.ifindex == record.ifindex or self._mode_of_ours(each)
        ]
        back = self._likeliest(candidates, by_mac)
        taken = {by_mac[mac].ifindex for mac in back if self._take_up(by_mac[mac], back[mac])}
        self._set_missed({index: missed[index] for index in missed.keys() - taken})
        return bool(taken)

    def _call_back(self, observed: Observed) -> bool:
        """Those that are no longer where they went are searched for here at once.

        The news of their return may be for a later pass. One that is not found has gone on to a
        third namespace, or was deleted.
        """
        departed = self._ledger.departed()
        away = {gone.record.mac for gone in observed.departed}
        lost = {gone.record.mac: gone.record for gone in departed if gone.record.mac not in away}
        if not lost:
            return False
        held = self._ledger.records()
        here = self._interfaces.all().values()
        candidates = [each for each in here if each.mac in lost and each.ifindex not in held]
        back = self._likeliest(candidates, lost)
        left = away | {mac for mac, each in back.items() if not self._take_up(lost[mac], each)}
        self._set_departed(gone for gone in departed if gone.record.mac in left)
        self._go_on({mac: lost[mac] for mac in lost.keys() - back.keys()})
        return len(left) < len(away) + len(back)

    def _likeliest(
        self, candidates: Iterable[Interface], records: Mapping[str, Record]
    ) -> dict[str, Interface]:
        """Of several with one MAC the one that runs ours, or at least has the name; by MAC."""

        def likeness(each: Interface) -> tuple[bool, bool]:
            return bool(self._mode_of_ours(each)), each.name == records[each.mac].name

        return {each.mac: each for each in sorted(candidates, key=likeness)}

    def _go_on(self, lost: Mapping[str, Record]) -> None:
        for nsid, device in self._interfaces.elsewhere() if lost else ():
            if device.mac in lost and self._mode_of_ours(device):
                self._follow(lost[device.mac], nsid, device.ifindex)

    def _take_up(self, record: Record, here: Interface) -> bool:
        """False if the disk is full: it will be tried again."""
        # The kernel set it down on its way, nobody else did.
        record = record._replace(ifindex=here.ifindex, name=here.name, settled=False)
        try:
            self._ledger.hold(record)
        except OSError:
            return False
        return True

    def update(self, observed: Observed) -> None:
        """At the end of a pass: what the departed are called and run where they are now."""
        now = {gone.record.mac: gone for gone in observed.departed}
        departed = self._ledger.departed()
        self._set_departed(now.get(gone.record.mac, gone) for gone in departed)
