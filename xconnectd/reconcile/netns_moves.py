"""Ends that are moved to another network namespace with our program on them, and come back.

The kernel takes an XDP program along with its device, which may get any ifindex where it goes. So
its frames would enter the wire of whoever has that number here, and all that stays is given a new
program with maps of its own (``Reconciler.run``). What is to be done there is logged.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from xconnectd.errors import XconnectError
from xconnectd.events import Event, Logger
from xconnectd.model import NOTHING, Interface, MovedEnd, Observed, Record, Xdp
from xconnectd.reconcile.ports import Dataplane, Interfaces, Ledger


class _Found(NamedTuple):
    """A device that is likely to be what a record is of, and the id of its namespace here."""

    record: Record
    device: Interface
    nsid: int


_HERE: Final = -1
"""In place of the id of a namespace; those count from 0."""

_NOBODY: Final = Interface(0, "")

_LONGEST_MOVE: Final = 5.0
"""Seconds until an end that is found nowhere was deleted: on its way it is listed nowhere."""


class NetnsMoves:
    def __init__(
        self, interfaces: Interfaces, maps: Dataplane, ledger: Ledger, log: Logger
    ) -> None:
        self._interfaces = interfaces
        self._maps = maps
        self._ledger = ledger
        self._log = log
        self._reported: set[int] = set()
        self._missed: dict[tuple[int, str, str], float] = {}

    def note_missing(self, observed: Observed) -> None:
        """Keeps the records of interfaces that are gone and not yet reported.

        To be called with every look before what it shows is acted on, and records are dropped.

        On its way to another namespace a device is taken out first, and only after the kernel
        waited for its readers (synchronize_net) comes the RTM_DELLINK that says where it went
        (IFLA_NEW_NETNSID). A crash in between must not forget it. Another device may have its
        number by then.
        """
        missing = {
            record.identity: record
            for ifindex, record in observed.records.items()
            if not observed.ours.get(ifindex, NOTHING).held
            if ifindex not in self._reported
        }
        if missing or self._ledger.unreported:
            self._set_unreported((self._unreported() | missing).values())

    def _unreported(self) -> dict[tuple[int, str, str], Record]:
        return {record.identity: record for record in self._ledger.unreported}

    def _set_unreported(self, records: Iterable[Record]) -> None:
        with suppress(OSError):  # a full disk: then only a crash forgets it
            self._ledger.set_unreported(tuple(records))

    def settle(self, observed: Observed) -> None:
        """At the end of a pass: what was reported before its last look is dealt with there.

        But for what that did not cover: a report may come in the middle of a pass over others. And
        the moved ends are called, and run, what it found where they are now.
        """
        covered = observed.covered
        self._reported = set() if covered is None else self._reported - covered
        if moved := self._ledger.moved_netns:
            now = {gone.record.identity: gone for gone in observed.moved_netns}
            self._set_moved_netns(now.get(gone.record.identity, gone) for gone in moved)

    def awaits(self, ifindex: int) -> bool:
        """Whether an RTM_DELLINK of this interface would be news."""
        return bool(self._recorded(ifindex))

    def _recorded(self, ifindex: int) -> list[Record]:
        """Of whoever had this number: the one that is held, and those that are missing."""
        known = (self._ledger.records.get(ifindex), *self._ledger.unreported)
        return [record for record in known if record and record.ifindex == ifindex]

    def note(self, ifindex: int, mac: str, nsid: int | None, new_ifindex: int | None) -> None:
        """An interface is gone from here: deleted, or to the namespace ``nsid``."""
        self._maps.unpoint(ifindex)
        self._maps.unsteer(ifindex)
        record = min(self._recorded(ifindex), key=lambda each: each.mac != mac, default=None)
        unreported = self._unreported()
        if record is not None:
            unreported.pop(record.identity, None)
        if record is not None and nsid is not None and new_ifindex is not None:
            if record is self._ledger.records.get(ifindex):  # it may be back by now
                self._take_up(record, ifindex, record.name)
            self._follow(record, nsid, new_ifindex)
        self._reported.add(ifindex)
        self._set_unreported(unreported.values())  # not before: a crash would forget it

    def _has_current(self, gone: MovedEnd) -> bool:
        return gone.program in self._maps.programs.redirecting

    def _follow(
        self, record: Record, nsid: int, new_ifindex: int, *, guessed: bool = False
    ) -> None:
        """An end of ours is in another namespace now; ``guessed`` if only its MAC says so."""
        gone = MovedEnd(record, "", nsid, new_ifindex, program=self._maps.programs.xdp)
        device = self._arrived(new_ifindex, nsid)
        if device is not None and device.mac == record.mac:  # else it has gone on, or is back
            mode, program = self._ours_on(device) or ("", gone.program if guessed else 0)
            namespace = self._interfaces.namespace_name(nsid)
            gone = gone._replace(mode=mode, program=program, namespace=namespace, name=device.name)
        self._add(gone)
        if gone.runs_ours:
            self._tell(gone)

    def _add(self, gone: MovedEnd) -> None:
        """In place of what is known of the same device, and of one that was where it is now."""
        self._missed.pop(gone.record.identity, None)
        others = (
            each
            for each in self._ledger.moved_netns
            if each.record.identity != gone.record.identity
            if each.nsid is None or each[2:4] != gone[2:4]
        )
        self._set_moved_netns((*others, gone))

    def _set_moved_netns(self, moved: Iterable[MovedEnd]) -> None:
        with suppress(OSError):  # as above
            self._ledger.set_moved_netns(tuple(moved))

    def _arrived(self, ifindex: int, nsid: int) -> Interface | None:
        """The device where it went: RTM_DELLINK is sent just before it is listed there."""
        if device := self._interfaces.at(ifindex, nsid):
            return device
        self._interfaces.settle()
        return self._interfaces.at(ifindex, nsid)

    def _tell(self, gone: MovedEnd) -> None:
        self._log.warning(
            Event.MOVED_NETNS,
            interface=gone.record.name,
            ifindex=gone.record.ifindex,
            reason="moved to another namespace with our XDP program on it, which drops all that"
            f" comes in there; remove it: {gone.remedy}",
        )

    def missing(self, here: Mapping[int, Interface]) -> list[Record]:
        """The ends that are not among the interfaces ``here``, and not known to be elsewhere."""
        gone = [
            each
            for number, each in self._ledger.records.items()
            if not each.is_of(here.get(number, _NOBODY))
        ]
        moved = [each.record for each in self._ledger.moved_netns]
        missed = [each for each in moved if each.identity in self._missed]
        return [*self._ledger.unreported, *gone, *missed]

    def find(self) -> bool:
        """Looks for ends that were moved while nobody listened, and those that are back since.

        For a start and an end, and when events were lost: no report is awaited any more. One that
        is not found was deleted, or is with our program where no look from here reaches. True if
        some are back: a pass takes them up.
        """
        if not self.missing({}):  # there is no record: nothing to look for
            return False
        self._interfaces.settle()  # one that is on its way is listed nowhere
        here = self._interfaces.all()
        missing = self.missing(here)
        records = self._ledger.records
        strays = [
            each
            for number, each in here.items()
            if number not in records or not records[number].is_of(each)
        ]
        back = [found for found in self._recognised(missing, strays) if self._ours_on(found.device)]
        for found in back:
            self._add(MovedEnd(found.record, mode=""))
        found_here = {found.record.identity for found in back}
        self._find_elsewhere([each for each in missing if each.identity not in found_here])
        self._set_unreported(())
        return bool(back)

    def _find_elsewhere(self, missing: Collection[Record]) -> None:
        away = {found.record.identity: found for found in self._recognised_elsewhere(missing)}
        for record in missing:
            self._reported.add(record.ifindex)
            if found := away.get(record.identity):
                self._follow(record, found.nsid, found.device.ifindex, guessed=True)
            else:
                self._add(MovedEnd(record, mode="", program=self._maps.programs.xdp))

    def forget_unfound(self) -> None:
        """Forgets those that were not found."""
        moved = self._ledger.moved_netns
        self._set_moved_netns(gone for gone in moved if gone.nsid is not None)

    def take_back(self, observed: Observed) -> bool:
        """Takes up the records of ends that are here again; True if there are any."""
        if not (self._reported or self._ledger.moved_netns or self._ledger.unreported):
            return False
        return self._take_back_seen(observed) | self._take_back_moved(observed)

    def _take_back_seen(self, observed: Observed) -> bool:
        """Those that this look shows, which is what will be acted on.

        Some are back before it was reported that they went, some have left again since.
        """
        moved, unreported = self._ledger.moved_netns, self._unreported()
        absent = [*unreported.values(), *(gone.record for gone in moved)]
        away = {gone.record.identity for gone in observed.moved_netns}
        held = self._ledger.records
        fresh = [each for each in observed.interfaces.values() if each.ifindex not in held]
        absent.sort(key=lambda record: record.identity in away)
        taken = {
            record.identity
            for record, device, _ in self._recognised(absent, fresh)
            if self._ours_on(device)
            or (device.ifindex == record.ifindex and record.identity not in away)
            if self._take_up(record, device.ifindex, device.name)
        }
        here = [
            each
            for each in observed.records.values()
            if each.is_of(observed.interfaces.get(each.ifindex, _NOBODY))
        ]
        self._reported -= {each.ifindex for each in here}  # their next departure is news
        back = taken | {each.identity for each in here}
        self._set_moved_netns(gone for gone in moved if gone.record.identity not in back)
        if taken:
            left = (each for each in unreported.values() if each.identity not in taken)
            self._set_unreported(left)
        return bool(taken)

    def _take_back_moved(self, observed: Observed) -> bool:
        """Those that are no longer where they went are searched for here at once.

        The news of their return may be for a later pass. One that is not found is on its way, when
        it is listed nowhere, has gone on to a third namespace, or was deleted.
        """
        moved = self._ledger.moved_netns
        away = {gone.record.identity for gone in observed.moved_netns}
        for identity in away:
            self._missed.pop(identity, None)
        lost = [gone.record for gone in moved if gone.record.identity not in away]
        if not lost:
            return False
        held = self._ledger.records
        fresh = [each for each in self._interfaces.all().values() if each.ifindex not in held]
        back = {each.record.identity: each for each in self._recognised(lost, fresh)}
        refused = {
            identity
            for identity, (record, device, _) in back.items()
            if not self._take_up(record, device.ifindex, device.name)
        }
        left = away | refused
        self._set_moved_netns(
            gone
            for gone in moved
            if (identity := gone.record.identity) in left
            or (identity not in back and self._may_return(gone))
        )
        self._follow_further([record for record in lost if record.identity not in back])
        return len(refused) < len(back)

    def _may_return(self, gone: MovedEnd) -> bool:
        """Whether one that is not found is waited for; nothing else tells how it was found.

        Also if it may run our current program, until that is replaced here.
        """
        now = time.monotonic()
        missed_since = self._missed.setdefault(gone.record.identity, now)
        return now - missed_since < _LONGEST_MOVE or self._has_current(gone)

    def _follow_further(self, lost: Collection[Record]) -> None:
        for found in self._recognised_elsewhere(lost):
            if self._ours_on(found.device):
                self._follow(found.record, found.nsid, found.device.ifindex)

    # ------------------------------------------------------------------ who is who

    def _recognised(self, records: Iterable[Record], here: Iterable[Interface]) -> list[_Found]:
        return self._paired(records, ((_HERE, device) for device in here))

    def _recognised_elsewhere(self, records: Collection[Record]) -> list[_Found]:
        return self._paired(records, self._interfaces.elsewhere()) if records else []

    def _paired(
        self, records: Iterable[Record], places: Iterable[tuple[int, Interface]]
    ) -> list[_Found]:
        """Which device is of which record, the likeliest first; each is of one at most."""
        by_mac: defaultdict[str, list[Record]] = defaultdict(list)
        for record in records:
            by_mac[record.mac].append(record)
        pairs = [
            _Found(record, device, nsid)
            for nsid, device in places
            for record in by_mac.get(device.mac, ())
            if record.kind in ("", device.kind)
        ]
        found: dict[tuple[int, str, str], _Found] = {}
        taken: set[tuple[int, int]] = set()
        for pair in sorted(pairs, key=self._likeness, reverse=True):
            place = (pair.nsid, pair.device.ifindex)
            if pair.record.identity not in found and place not in taken:
                found[pair.record.identity] = pair
                taken.add(place)
        return list(found.values())

    def _likeness(self, found: _Found) -> tuple[bool, bool, bool]:
        """VLANs of one NIC have its MAC: what they run, their names and numbers tell them apart."""
        record, device, _ = found
        same_number = device.ifindex == record.ifindex
        return bool(self._ours_on(device)), device.name == record.name, same_number

    def _ours_on(self, device: Interface) -> Xdp | None:
        """Our XDP program on it, if there is one."""
        ours = self._maps.programs.ours | self._ledger.programs
        return next((xdp for xdp in device.xdp if xdp.program in ours), None)

    def _take_up(self, record: Record, ifindex: int, name: str) -> bool:
        """False if the disk or a map is full: it will be tried again.

        Counted, since one that comes back as it was recorded gets no further ``Hold``.
        """
        self._missed.pop(record.identity, None)
        # The kernel set it down on its way, nobody else did.
        record = record._replace(ifindex=ifindex, name=name, settled=False)
        try:
            self._maps.count(ifindex)
            self._ledger.hold(record)
        except (XconnectError, OSError):
            return False
        self._reported.discard(ifindex)  # should it leave again, that is not told yet
        return True
