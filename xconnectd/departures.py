"""Ends that leave this namespace with our program on them, and those that come back.

The kernel takes an XDP program along with its device, and an ifindex that became free may come
up again: frames of the departed device would enter another wire. So its number is no key again
while the program may still be there, and what is to be done about it is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
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
        record = self._ledger.records().get(ifindex) or missed.get(ifindex)
        missed.pop(ifindex, None)
        self._set_missed(missed)
        if record is None or nsid is None or new_ifindex is None:
            return
        gone = Departed(record, "", nsid, new_ifindex)
        device = self._arrived(new_ifindex, nsid)
        if device is not None and device.mac == record.mac:  # else it has gone on, or is back
            mode = self._mode_of_ours(device)
            namespace = self._interfaces.namespace_name(nsid)
            gone = replace(gone, mode=mode, namespace=namespace, name=device.name)
        self._ledger.set_departed((*self._ledger.departed(), gone))
        if gone.runs_ours:
            self._tell(gone)

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
                back = Departed(missing.pop(device.mac), mode="")
                self._ledger.set_departed((*self._ledger.departed(), back))
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
        back = [
            (each, record)
            for each in observed.interfaces.values()
            if each.ifindex not in held and (record := by_mac.get(each.mac))
            if each.ifindex == record.ifindex or self._mode_of_ours(each)
        ]
        for here, record in back:
            self._take_up(record, here)
            del missed[record.ifindex]
        self._set_missed(missed)
        return bool(back)

    def _call_back(self, observed: Observed) -> bool:
        """Those that are no longer where they went are searched for here at once.

        The news of their return may be for a later pass. One that is not found was deleted.
        """
        departed = self._ledger.departed()
        away = {gone.record.mac for gone in observed.departed}
        lost = {gone.record.mac: gone.record for gone in departed if gone.record.mac not in away}
        if not lost:
            return False
        held = self._ledger.records()
        here = self._interfaces.all().values()
        back = [each for each in here if each.mac in lost and each.ifindex not in held]
        for each in back:
            self._take_up(lost[each.mac], each)
        self._ledger.set_departed(tuple(gone for gone in departed if gone.record.mac in away))
        return bool(back)

    def _take_up(self, record: Record, here: Interface) -> None:
        # The kernel set it down on its way, nobody else did.
        self._ledger.hold(replace(record, ifindex=here.ifindex, name=here.name, settled=False))

    def update(self, observed: Observed) -> None:
        """At the end of a pass: what the departed are called and run where they are now."""
        now = {gone.record.mac: gone for gone in observed.departed}
        departed = self._ledger.departed()
        self._ledger.set_departed(tuple(now.get(gone.record.mac, gone) for gone in departed))
