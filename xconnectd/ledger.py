"""What must outlive the daemon and cannot be read from the kernel: how things were found.

A journal of the interfaces we hold, so that a change of one link writes one line; besides, the
ids of our programs (lost pins must not make them foreign), the devices that left with one
of them, and why links failed. All of it is void after a reboot, which the boot id shows: the
directory may survive one inside a container.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from xconnectd.journal import Journal
from xconnectd.leftovers import own_inode
from xconnectd.model import Change, Departed, Record, Refusal

_SO_NETNS_COOKIE: Final = 71
_DEFAULT: Final = Path("/run/xconnectd")
_ROOM: Final = 1000
"""Lines that the journal of records may have beyond four times what it needs."""


def namespace_cookie() -> str:
    """What tells this network namespace from all others until the next boot.

    The inode number of a namespace is used again at once, its cookie is not (kernel 5.12;
    before that there is only the inode).
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            raw = any_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        except OSError:
            return f"inode-{own_inode()}"
    return str(int.from_bytes(raw, "little"))


def state_directory() -> Path:
    return Path(os.environ.get("XCONNECTD_STATE_DIR", _DEFAULT))


def directory() -> Path:
    """Where the ledger and the control sockets of this namespace are."""
    return state_directory() / namespace_cookie()


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Failure(NamedTuple):
    """Why a link failed and when it is tried again (seconds since the epoch)."""

    reason: str
    retry: float


class Ledger:
    """The records of one network namespace, below ``directory``/cookie.

    Raises:
        OSError: the directory cannot be read or written (from every method that does).
    """

    def __init__(self, directory: Path | None = None, cookie: str | None = None) -> None:
        self.path = (directory or state_directory()) / (cookie or namespace_cookie())
        self._ends = Journal(self.path / "ends")
        self._boot = self.path / "boot"
        self._current = self._is_of_this_boot()
        self._records: dict[int, Record] = {}
        self._named: defaultdict[str, set[int]] = defaultdict(set)
        for record in self._read_records().values():
            self._know(record)
        self._programs = self._read_programs()
        self._departed = tuple(self._read_departed())
        self._missed = tuple(self._read_missed())
        self._failures = self._read_failures()

    # ---- records

    def records(self) -> Mapping[int, Record]:
        """By ifindex. Read once: this process alone writes while it holds the namespace."""
        return self._records

    def named(self, name: str) -> Collection[int]:
        """The ifindexes of records with this name; of interfaces that had it when recorded."""
        return self._named.get(name, ())

    def hold(self, record: Record) -> None:
        self._note({"hold": _as_json(record)})
        self._know(record)

    def forget(self, ifindex: int) -> None:
        if ifindex in self._records:
            self._note({"forget": ifindex})
            self._unname(ifindex)
            del self._records[ifindex]

    def _know(self, record: Record) -> None:
        self._unname(record.ifindex)
        self._records[record.ifindex] = record
        self._named[record.name].add(record.ifindex)

    def _unname(self, ifindex: int) -> None:
        if was := self._records.get(ifindex):
            self._named[was.name].discard(ifindex)
            if not self._named[was.name]:
                del self._named[was.name]

    def _note(self, entry: Any) -> None:
        if not self._current:
            self._begin()
        if self._ends.length > _ROOM + 4 * len(self._records):
            self._ends.rewrite({"hold": _as_json(record)} for record in self._records.values())
        self._ends.append(entry)

    # ---- programs, departed devices, failures

    def programs(self) -> frozenset[int]:
        return self._programs

    def know_programs(self, ids: frozenset[int]) -> None:
        if not ids <= self._programs:
            self._write(self.path / "programs", sorted(self._programs | ids))
            self._programs |= ids

    def starts(self) -> Mapping[str, int]:
        """How often the programs were loaded and how often adopted, since all was let go."""
        stored = self._read(self.path / "starts")
        return {"loaded": 0, "adopted": 0} | (stored if isinstance(stored, dict) else {})

    def note_start(self, programs: str) -> None:
        """``loaded`` or ``adopted``."""
        starts = self.starts()
        self._write(self.path / "starts", {**starts, programs: starts[programs] + 1})

    def departed(self) -> tuple[Departed, ...]:
        return self._departed

    def set_departed(self, departed: tuple[Departed, ...]) -> None:
        if departed != self._departed:
            self._departed = departed
            stored = [{**each._asdict(), "record": _as_json(each.record)} for each in departed]
            self._write(self.path / "departed", stored)

    def missed(self) -> tuple[Record, ...]:
        """Interfaces that are gone, and the kernel has not said where to."""
        return self._missed

    def set_missed(self, missed: tuple[Record, ...]) -> None:
        if missed != self._missed:
            self._missed = missed
            self._write(self.path / "missed", [_as_json(record) for record in missed])

    def config(self) -> Path | None:
        """The file that the last daemon here was started with."""
        path = self._read(self.path / "config")
        return Path(path) if path else None

    def set_config(self, path: Path) -> None:
        self._write(self.path / "config", str(path.absolute()))

    def failures(self) -> Mapping[str, Failure]:
        return self._failures

    def set_failures(self, failures: Mapping[str, Failure]) -> None:
        if failures != self._failures:
            self._write(
                self.path / "failures", {link: each._asdict() for link, each in failures.items()}
            )
            self._failures = dict(failures)

    def remove(self) -> None:
        """Leaves nothing behind; for a daemon that let go of every end."""
        self._ends.close()
        if self.path.is_dir():
            shutil.rmtree(self.path)

    # ---- files

    def _is_of_this_boot(self) -> bool:
        try:
            return bool(json.loads(self._boot.read_text()) == _boot_id())
        except (FileNotFoundError, ValueError):
            return False

    def _read(self, path: Path) -> Any:
        """What was written since the last boot, else None."""
        try:
            return json.loads(path.read_text()) if self._current else None
        except (FileNotFoundError, ValueError):  # ValueError: a torn file of an unclean end
            return None

    def _read_records(self) -> dict[int, Record]:
        records: dict[int, Record] = {}
        for entry in self._ends.lines() if self._current else ():
            match entry:
                case {"hold": data} if record := _record(data):
                    records[record.ifindex] = record
                case {"forget": int(ifindex)}:
                    records.pop(ifindex, None)
        return records

    def _read_programs(self) -> frozenset[int]:
        ids = self._read(self.path / "programs")
        return frozenset(ids if isinstance(ids, list) else ())

    def _read_departed(self) -> Iterator[Departed]:
        for data in self._read(self.path / "departed") or ():
            record = _record(data.pop("record"))
            if record is not None:
                yield Departed(record, **data)

    def _read_missed(self) -> Iterator[Record]:
        found = map(_record, self._read(self.path / "missed") or ())
        return (record for record in found if record is not None)

    def _read_failures(self) -> dict[str, Failure]:
        stored = self._read(self.path / "failures") or {}
        return {link: Failure(**data) for link, data in stored.items()}

    def _write(self, path: Path, data: Any) -> None:
        """Whole or not at all: a reader or a crash never meets half a file."""
        if not self._current:
            self._begin()
        scratch = path.with_name(path.name + ".new")
        scratch.write_text(json.dumps(data))
        scratch.rename(path)

    def _begin(self) -> None:
        """Makes the directory, without anything that an earlier boot left in it."""
        self.remove()
        self.path.mkdir(parents=True)
        self.path.chmod(0o711)  # group members pass through to the status socket
        (self.path / "namespace").write_text(str(own_inode()))
        self._boot.write_text(json.dumps(_boot_id()))
        self._current = True


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
    }


def _record(data: Any) -> Record | None:
    try:
        changes = {name: Change(**change) for name, change in data["changes"].items()}
        refusal = data.get("refusal")
        return Record(
            data["ifindex"],
            data["name"],
            data["mac"],
            changes,
            data.get("settled", True),
            Refusal(**refusal) if refusal else None,
            data.get("idle_with"),
            data.get("allowed", False),
        )
    except (KeyError, TypeError, AttributeError):
        return None
