"""Pins and records of network namespaces that are gone.

Nobody can ask for a namespace by its cookie, so the ledger notes the inode number as well. A
namespace lives as long as a process is in it or it is mounted somewhere (``ip netns``), and both
show the inode. That number is used again: an earlier namespace of our own number is dead for
certain, one with the number of a living other cannot be told from it. From inside a pid namespace,
or without the right to look at other processes, not all are seen; then nothing is judged. Nor is
what another boot left, or a view of the machine with a boot id of its own: its cookies may be
those of living namespaces.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from xconnectd.paths import own_inode

BOOT: Final = "boot"
"""The file in which a ledger notes when it was begun."""

_INIT_PID_NAMESPACE: Final = 0xEFFFFFFC  # PROC_PID_INIT_INO, linux/proc_ns.h
_NETNS: Final = re.compile(r"net:\[(\d+)\]")
_ENDED: Final = (errno.ENOENT, errno.ESRCH, errno.EINVAL)
"""What /proc says of a process that has ended meanwhile; EINVAL of its mounts."""


def sweep(states: Path, pins: Path, own: str) -> None:
    """Removes what belongs to namespaces that are gone. Never fails: a start goes on without.

    Programs went with the interfaces of the namespace; pins alone keep nothing attached.
    """
    try:
        gone = list(_gone(states, own))
    except OSError:  # not all of them could be looked at, so none can be called gone
        return
    for path in gone:
        from shutil import rmtree  # 2 ms that only a dead namespace should cost

        rmtree(path, ignore_errors=True)
        rmtree(pins / path.name, ignore_errors=True)


def _gone(states: Path, own: str) -> Iterator[Path]:
    others = [path for path in states.glob("*") if path.name != own and is_of_this_boot(path)]
    if not others or Path("/proc/self/ns/pid").stat().st_ino != _INIT_PID_NAMESPACE:
        return
    living = set(_living()) - {own_inode()}  # lives, but as ``own``
    yield from (path for path in others if (inode := _inode(path)) and inode not in living)


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def is_of_this_boot(state: Path) -> bool:
    """Whether the records there were begun since this machine, as seen from here, started."""
    try:
        return bool(json.loads((state / BOOT).read_text()) == boot_id())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False


def _inode(state: Path) -> int | None:
    """The namespace's inode number; None where none was noted."""
    try:
        return int((state / "namespace").read_text())
    except (OSError, ValueError):
        return None


def _living() -> Iterator[int]:
    """The inodes of all namespaces that live.

    Raises:
        PermissionError: some processes are hidden from this one (capabilities, ProtectProc).
        OSError: /proc would not tell.
    """
    if not Path("/proc/1").exists():
        raise PermissionError("processes are hidden")  # ProtectProc hides even the first one
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == "1":
            continue  # not for everyone to look at; its namespace is the machine's own
        try:
            yield (process / "ns" / "net").stat().st_ino
            mounts = (process / "mountinfo").read_text(errors="replace")  # whose paths are bytes
        except OSError as error:
            if error.errno not in _ENDED:
                raise
            continue
        yield from map(int, _NETNS.findall(mounts))
