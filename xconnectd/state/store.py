"""What must outlive the daemon and cannot be read from the kernel: how things were found.

A journal of the interfaces we hold, so that a change of one link writes one line; besides, the
ids of our programs (lost pins must not make them foreign), and the devices that left with one
of them. All of it is void after a reboot, which the boot id shows: the
directory may survive one inside a container.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from xconnectd.impairment import Distribution, Impairment, Passing
from xconnectd.model import Change, Made, MovedEnd, Record, Refusal, Tunnel
from xconnectd.paths import directory, namespace_cookie, own_inode, state_directory
from xconnectd.state.journal import Journal, put
from xconnectd.state.stale import BOOT, boot_id, is_of_this_boot

_ROOM: Final = 1000
"""Lines that the journal of records may have beyond four times what it needs."""


def make_directory() -> Path:
    """``directory``, made if need be: group members pass through to the status socket."""
    place = directory()
    _make(place)
    return place


def _make(place: Path) -> None:
    for each in (place.parent, place):
        with suppress(FileExistsError):
            each.mkdir(parents=True)
            each.chmod(0o711)


class Ledger:
    """The records of one network namespace, below ``directory``/cookie.

    It is read once: this process alone writes while it holds the namespace.

    Attributes:
        records: the interfaces that we hold, by ifindex.
        named: the ifindexes of records by name; the interfaces had it when they were recorded. Also
            by what the file calls an end in a node.
        made: the interfaces that we made for ends elsewhere, by that.
        programs: the ids of our programs.
        moved_netns: ends that are in another namespace.
        passing: what commands have put on links for now, by the ids of those.
        unreported: interfaces that are gone, and the kernel has not said where to.

    Raises:
        OSError: the directory cannot be read or written (from every method that does).
    """

    def __init__(
        self,
        directory: Path | None = None,
        cookie: str | None = None,
        *,
        pinned: Callable[[], frozenset[int]] = frozenset,
    ) -> None:
        """``pinned`` tells the ids of our programs that are pinned in this kernel."""
        self.path = (directory or state_directory()) / (cookie or namespace_cookie())
        self._ends = Journal(self.path / "ends")
        self._current = self._is_of_this_kernel(pinned)
        self.records: dict[int, Record] = {}
        self.named: dict[str, tuple[int, ...]] = {}
        self._last_changes: Mapping[str, Change] = {}
        self.made: dict[str, Made] = {}
        stored, made = self._read_journal()
        if self._current:
            self.made = made
            for record in stored.values():
                self._know(record)
        self.unjudged = () if self._current else tuple(each.name for each in stored.values())
        """The interfaces in records that, as far as can be told, are of another boot."""
        self.programs = _numbers(self._read("programs"))
        self.passing = dict(self._read_passing())
        self.moved_netns = tuple(filter(None, map(_moved_end, self._read_list("moved_netns"))))
        self.unreported = tuple(filter(None, map(_record, self._read_list("unreported"))))
        self._unsaved: set[str] = set()

    # ---- records

    def hold(self, record: Record) -> None:
        self._note({"hold": _as_json(record)})
        self._know(record)

    def hold_all(self, records: Iterable[Record]) -> None:
        """In one write. Where it fails none counts, though some may be on the disk."""
        self._note(*[{"hold": _as_json(record)} for record in records])
        for record in records:
            self._know(record)

    def forget(self, ifindex: int) -> None:
        if ifindex in self.records:
            self._note({"forget": ifindex})
            self._unname(ifindex)
            del self.records[ifindex]

    def forget_all(self, ifindexes: Iterable[int]) -> None:
        """As ``hold_all``."""
        known = [ifindex for ifindex in ifindexes if ifindex in self.records]
        self._note(*[{"forget": ifindex} for ifindex in known])
        for ifindex in known:
            self._unname(ifindex)
            del self.records[ifindex]

    def hold_made(self, made: Made) -> None:
        if self.made.get(made.end) != made:
            self._note({"made": made._asdict()})
            self.made[made.end] = made

    def forget_made(self, end: str) -> None:
        if end in self.made:
            self._note({"unmade": end})
            del self.made[end]

    def _know(self, record: Record) -> None:
        """Of thousands of ends most are changed alike, and share what says how: 0.4 KB each."""
        ifindex = record.ifindex
        if ifindex in self.records:
            self._unname(ifindex)
        if record.changes == self._last_changes:
            record = record._replace(changes=self._last_changes)
        self._last_changes = record.changes
        self.records[ifindex] = record
        for name in filter(None, {record.name, record.end}):
            self.named[name] = (*self.named.get(name, ()), ifindex)

    def _unname(self, ifindex: int) -> None:
        record = self.records[ifindex]
        for name in filter(None, {record.name, record.end}):
            left = tuple([each for each in self.named.pop(name) if each != ifindex])
            if left:
                self.named[name] = left

    def _note(self, *entries: Any) -> None:
        if not entries:
            return
        if not self._current:
            self._begin()
        if self._ends.length > _ROOM + 4 * (len(self.records) + len(self.made)):
            self._ends.rewrite(
                [
                    *({"made": made._asdict()} for made in self.made.values()),
                    *({"hold": _as_json(record)} for record in self.records.values()),
                ]
            )
        self._ends.append(entries)

    # ---- programs, devices in another netns

    def know_programs(self, ids: frozenset[int]) -> None:
        if not ids <= self.programs or "programs" in self._unsaved:
            self.programs |= ids
            self._save("programs", sorted(self.programs))

    def starts(self) -> Mapping[str, int]:
        """How often the programs were loaded and how often adopted, since all was detached."""
        stored = self._read("starts")
        known = stored if isinstance(stored, dict) else {}
        counts = {name: count for name, count in known.items() if isinstance(count, int)}
        return {"loaded": 0, "adopted": 0} | counts

    def note_start(self, programs: str) -> None:
        """``loaded`` or ``adopted``."""
        starts = self.starts()
        self._save("starts", {**starts, programs: starts[programs] + 1})

    def set_moved_netns(self, moved: tuple[MovedEnd, ...]) -> None:
        if moved != self.moved_netns or "moved_netns" in self._unsaved:
            self.moved_netns = moved
            stored = [{**each._asdict(), "record": _as_json(each.record)} for each in moved]
            self._save("moved_netns", stored)

    def set_unreported(self, records: tuple[Record, ...]) -> None:
        if records != self.unreported or "unreported" in self._unsaved:
            self.unreported = records
            self._save("unreported", [_as_json(record) for record in records])

    def set_passing(self, passing: Mapping[str, Passing]) -> None:
        """What commands have put on links for now, by the ids of those."""
        self.passing = dict(passing)
        self._save("passing", {link: _passing_as_json(each) for link, each in passing.items()})

    def is_needed(self) -> bool:
        """Whether something is recorded that nobody else knows: how an end was found.

        Also of one that has left: it may come back. And what is impaired for now is so after a
        stop and a start, too.
        """
        return bool(
            self.passing or self.records or self.made or self.moved_netns or self.unreported
        )

    def config(self) -> Path | None:
        """The file that the last daemon here was started with."""
        path = self._read("config")
        return Path(path) if isinstance(path, str) and path else None

    def set_config(self, path: Path) -> None:
        self._save("config", str(path.absolute()))

    def host(self) -> str:
        """Which of its file's hosts the daemon said it is; empty where it did not say."""
        name = self._read("host")
        return name if isinstance(name, str) else ""

    def set_host(self, name: str) -> None:
        self._save("host", name)

    def remove(self) -> None:
        """Leaves nothing behind; for a daemon that detached every end."""
        self._ends.close()
        if self.path.is_dir():
            from shutil import rmtree  # 2 ms that only an end should cost

            rmtree(self.path)

    # ---- files

    def _is_of_this_kernel(self, pinned: Callable[[], frozenset[int]]) -> bool:
        """By the boot id, or by what the kernel has kept: not every /proc is the machine's own.

        Pins do not outlive a kernel. One with an id that was written down is of the same.
        """
        if is_of_this_boot(self.path):
            return True
        return not _numbers(self._stored("programs")).isdisjoint(pinned())

    def _read(self, name: str) -> Any:
        """What was written since the last boot, else None; perhaps by another release."""
        return self._stored(name) if self._current else None

    def _stored(self, name: str) -> Any:
        """Whatever boot it is of."""
        try:
            return json.loads((self.path / name).read_text())
        except (FileNotFoundError, ValueError):  # ValueError: a torn file of an unclean end
            return None

    def _read_journal(self) -> tuple[dict[int, Record], dict[str, Made]]:
        records: dict[int, Record] = {}
        made: dict[str, Made] = {}
        for entry in self._ends.lines():
            match entry:
                case {"hold": data} if record := _record(data):
                    records[record.ifindex] = record
                case {"forget": int(ifindex)}:
                    records.pop(ifindex, None)
                case {"made": {"end": str(end), "name": str(), "mac": str()} as data}:
                    one = _made(Made, data)
                    made[end] = one._replace(tunnel=one.tunnel and Tunnel(*one.tunnel))
                case {"unmade": str(end)}:
                    made.pop(end, None)
        return records, made

    def _read_passing(self) -> Iterator[tuple[str, Passing]]:
        stored = self._read("passing")
        for link, data in stored.items() if isinstance(stored, dict) else ():
            with suppress(*_OTHERS):
                ways = {end: _impairment(one) for end, one in data["ways"].items()}
                yield link, Passing(ways, data["until"])

    def _read_list(self, name: str) -> list[Any]:
        stored = self._read(name)
        return stored if isinstance(stored, list) else []

    def _save(self, name: str, data: Any) -> None:
        self._unsaved.add(name)
        if not self._current:
            self._begin()
        put(self.path / name, json.dumps(data))
        self._unsaved.discard(name)

    def _begin(self) -> None:
        """Makes the directory, without anything that an earlier boot left in it.

        It is emptied and not made anew: it is held, and what is held must stay the same one.
        """
        self._ends.close()
        _make(self.path)
        for path in self.path.iterdir():
            path.unlink()
        put(self.path / "namespace", str(own_inode()))
        put(self.path / BOOT, json.dumps(boot_id()))
        self._current = True


def _numbers(stored: Any) -> frozenset[int]:
    known = stored if isinstance(stored, list) else []
    return frozenset(each for each in known if isinstance(each, int))


def _as_json(record: Record) -> dict[str, Any]:
    changes = {
        name: {"found": change.found, "ours": change.ours}
        for name, change in record.changes.items()
    }
    return {
        "ifindex": record.ifindex,
        "name": record.name,
        "mac": record.mac,
        "changes": changes,
        "settled": record.settled,
        "refusal": record.refusal._asdict() if record.refusal else None,
        "idle_with": record.idle_with,
        "allowed": record.allowed,
        "kind": record.kind,
        "follows": record.follows,
        "end": record.end,
    }


def _passing_as_json(passing: Passing) -> dict[str, Any]:
    ways = {end: one._asdict() for end, one in passing.ways.items()}
    return {"ways": ways, "until": passing.until}


def _impairment(data: Mapping[str, Any]) -> Impairment:
    return _made(Impairment, {**data, "distribution": Distribution(data["distribution"])})


_T = TypeVar("_T", Change, Refusal, Record, Made, MovedEnd, Impairment)

_OTHERS: Final = (KeyError, TypeError, AttributeError, ValueError)
"""What reading something raises that another release wrote, or nobody of us."""


def _record(data: Any) -> Record | None:
    try:
        changes = {name: _made(Change, change) for name, change in data["changes"].items()}
        refusal = data.get("refusal")
        given = {"changes": changes, "refusal": _made(Refusal, refusal) if refusal else None}
        return _made(Record, {**data, **given})
    except _OTHERS:
        return None


def _moved_end(data: Any) -> MovedEnd | None:
    try:
        record = _record(data["record"])
        return record and _made(MovedEnd, {**data, "record": record})
    except _OTHERS:
        return None


def _made(kind: type[_T], data: Mapping[str, Any]) -> _T:
    try:
        return kind(**data)
    except TypeError:  # another release has written more than is known here
        return kind(**{name: data[name] for name in kind._fields if name in data})
