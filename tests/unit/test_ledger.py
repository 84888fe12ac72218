"""What outlives the daemon: files that are whole or absent, and void after a reboot."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from xconnectd import paths, runtime
from xconnectd.model import Change, MovedEnd, Record, Refusal, Setting
from xconnectd.state import journal, stale, store
from xconnectd.state.store import Ledger

RECORD = Record(5, "eth0", "02:00:00:00:00:05", {Setting.MTU: Change(1500, 65535)})
OTHER = Record(6, "eth1", "02:00:00:00:00:06", {"feature:rx-lro": Change(1, 0)})._replace(
    settled=False, refusal=Refusal("too large", 9000), idle_with=5, allowed=True, kind="tun"
)
THIRD = Record(7, "eth7", "02:00:00:00:00:07", {})
MOVED = MovedEnd(RECORD, "generic", 3, 8, "box", "eth9", 101)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path, "cookie")


def reopened(ledger: Ledger) -> Ledger:
    return Ledger(ledger.path.parent, ledger.path.name)


@pytest.fixture
def filled(ledger: Ledger) -> Ledger:
    return fill(ledger)


def fill(ledger: Ledger) -> Ledger:
    ledger.hold(RECORD)
    ledger.hold(OTHER)
    ledger.know_programs(frozenset((101, 102)))
    ledger.set_moved_netns((MOVED,))
    ledger.set_unreported((OTHER,))
    ledger.set_config(Path("/etc/xconnect.yaml"))
    ledger.note_start("loaded")
    return ledger


def contents(ledger: Ledger) -> tuple[Any, ...]:
    """All that it tells; of a fresh one nothing."""
    ends = ledger.records, ledger.moved_netns, ledger.unreported
    return *ends, ledger.programs, ledger.config(), ledger.starts(), ledger.is_needed()


FULL = (
    *({5: RECORD, 6: OTHER}, (MOVED,), (OTHER,)),
    *(frozenset((101, 102)), Path("/etc/xconnect.yaml"), {"loaded": 1, "adopted": 0}, True),
)
EMPTY = ({}, (), (), frozenset(), None, {"loaded": 0, "adopted": 0}, False)


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def test_everything_is_there_after_a_restart_and_nothing_after_the_end(filled: Ledger) -> None:
    assert contents(filled) == contents(reopened(filled)) == FULL
    fresh = Ledger(filled.path.parent, "another")
    assert (contents(fresh), fresh.path.exists()) == (EMPTY, False)
    for _ in range(2):
        filled.remove()
        assert not filled.path.exists()


def test_records_are_replaced_and_dropped(filled: Ledger) -> None:
    newer = Record(5, "new0", RECORD.mac, {})
    filled.hold(newer)
    filled.forget(6)
    filled.forget(6)
    for each in (filled, reopened(filled)):
        assert each.records == {5: newer}
        assert [[*each.named.get(name, ())] for name in ("new0", "eth0", "eth1")] == [[5], [], []]


@pytest.mark.parametrize("what", ["set_moved_netns", "set_unreported", None])
def test_records_outlive_the_pins_as_long_as_an_end_may_come_back(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, what: str | None
) -> None:
    monkeypatch.setattr(runtime.Dataplane, "discard", lambda _: None)
    ledger.know_programs(frozenset((5,)))
    if what:
        getattr(ledger, what)((MOVED if what == "set_moved_netns" else OTHER,))
    assert ledger.is_needed() is bool(what)
    engine = object.__new__(runtime.Engine)
    engine.ledger = ledger
    engine.remove()
    assert ledger.path.exists() is bool(what)


def test_programs_are_only_ever_added(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is attached somewhere must not become foreign."""
    filled.know_programs(frozenset((103,)))
    assert reopened(filled).programs == {101, 102, 103}
    monkeypatch.setattr(filled, "_save", pytest.fail)
    filled.know_programs(frozenset((101,)))
    filled.set_moved_netns((MOVED,))
    filled.set_unreported((OTHER,))


def test_one_change_writes_one_line_of_plain_json(filled: Ledger) -> None:
    before = {path: path.read_bytes() for path in files(filled.path)}
    filled.hold(RECORD)
    changed = {path for path in files(filled.path) if path.read_bytes() != before[path]}
    assert changed == {filled.path / "ends"}
    new = (filled.path / "ends").read_bytes().removeprefix(before[filled.path / "ends"])
    assert new.count(b"\n") == 1
    data = json.loads(new)["hold"]
    assert (data["ifindex"], data["name"], data["mac"]) == (5, "eth0", RECORD.mac)
    assert data["changes"] == {"mtu": {"found": 1500, "ours": 65535}}


def test_the_journal_does_not_grow_for_ever(filled: Ledger) -> None:
    for number in range(3000):
        filled.hold(Record(5, f"eth{number}", RECORD.mac, {}))
    assert len((filled.path / "ends").read_text().split("\n")) < 1100
    assert reopened(filled).records == {5: Record(5, "eth2999", RECORD.mac, {}), 6: OTHER}


def test_nobody_else_reads_it(tmp_path: Path) -> None:
    """Also where no unit sets an umask. Others pass through the directories, to the socket."""
    before = os.umask(0)
    try:
        kept = fill(Ledger(tmp_path / "run", "cookie"))
        fresh = (kept.path / "ends").stat().st_mode & 0o777
        for _ in range(store._ROOM + 20):
            kept.hold(RECORD)  # until it is written anew
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in files(kept.path)}
    assert {fresh, *modes.values()} == {0o600}, modes
    assert {"ends", "boot", "namespace", "programs", "config"} <= modes.keys()
    assert {path.stat().st_mode & 0o777 for path in (kept.path, kept.path.parent)} == {0o711}


def test_the_directory_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XCONNECTD_STATE_DIR", str(tmp_path))
    assert Ledger().path == tmp_path / paths.namespace_cookie()


@pytest.fixture
def rebooted(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    for reader in (store, stale):
        monkeypatch.setattr(reader, "boot_id", lambda: "another boot")
    return reopened(filled)


def test_after_a_reboot_all_is_void_and_it_starts_afresh(rebooted: Ledger) -> None:
    assert contents(rebooted) == EMPTY
    rebooted.hold(OTHER)
    again = reopened(rebooted)
    assert contents(again) == ({6: OTHER}, *EMPTY[1:-1], True)
    (again.path / "boot").unlink()  # a crash while the directory was made
    again = reopened(again)
    assert again.records == {}
    again.hold(RECORD)
    assert reopened(again).records == {5: RECORD}


def test_a_boot_id_may_be_another_and_the_kernel_the_same(rebooted: Ledger) -> None:
    """In a container whose /proc is not the machine's; pins do not outlive the kernel."""
    root, cookie = rebooted.path.parent, rebooted.path.name
    again = Ledger(root, cookie, pinned=lambda: frozenset({101, 4711}))
    assert (again.records.keys(), again.unjudged) == ({5, 6}, ())
    other = Ledger(root, cookie, pinned=lambda: frozenset({4711}))
    assert (other.records, other.unjudged) == ({}, ("eth0", OTHER.name))
    other.hold(OTHER)
    assert Ledger(root, cookie).unjudged == ()


def test_a_torn_file_costs_only_itself(filled: Ledger) -> None:
    """Whichever file it is, and wherever it was cut."""
    for path in files(filled.path):
        text = path.read_text()
        for cut in range(len(text)):
            path.write_text(text[:cut])
            again = reopened(filled)
            if path.name == "ends":
                assert again.records in ({}, {5: RECORD}, {5: RECORD, 6: OTHER})
            elif path.name != "boot":
                assert again.records == {5: RECORD, 6: OTHER}
        path.write_text(text)


RUBBISH = [b"", b"\0" * 64, b"\xff\xfe", b"nul", b"null", b"[", b"[]", b"7", b'"x"', b"{}",
           b"[[1]]", b'{"x": 7}', b'[{"record": 7}]', b'{"changes": {"mtu": 1}}']  # fmt: skip


@pytest.mark.parametrize("rubbish", RUBBISH, ids=repr)
def test_rubbish_costs_only_what_it_stands_for(filled: Ledger, rubbish: bytes) -> None:
    ends = filled.path / "ends"
    good, other = (line for line in ends.read_bytes().split(b"\n") if line)
    for line in (rubbish, b'{"hold": %b}' % rubbish, b'{"forget": %b}' % rubbish, good[:-9]):
        ends.write_bytes(b"\n".join((b"", line, other)))
        assert reopened(filled).records == {6: OTHER}
    for name in ("programs", "moved_netns", "unreported", "starts", "config", "boot"):
        (filled.path / name).write_bytes(rubbish)
        assert contents(reopened(filled))[0] == ({} if name == "boot" else {6: OTHER})


def test_what_another_release_knows_besides_is_passed_over(filled: Ledger) -> None:
    """Within one boot a package may be made older again."""
    for name in ("moved_netns", "unreported", "ends"):
        path = filled.path / name
        known = r'("(ifindex|found|record)":)'
        path.write_text(re.sub(known, r'"news": 1, \1', path.read_text()))
    assert contents(reopened(filled)) == FULL


write = os.write


def full(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def killed(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@contextmanager
def broken(how: Callable[..., Any]) -> Iterator[None]:
    """Nothing can be written, or only a part of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal.os, "write", how)
        patch.setattr(Path, "rename", how)
        with pytest.raises((OSError, KeyboardInterrupt)):
            yield


@pytest.mark.parametrize("how", [full, killed, lambda fd, data: write(fd, data[:20])])
def test_what_cannot_be_written_leaves_the_old(filled: Ledger, how: Callable[..., Any]) -> None:
    for record in (Record(5, "eth9", RECORD.mac, {}), THIRD):
        with broken(how):
            filled.hold(record)
    assert filled.records == reopened(filled).records == {5: RECORD, 6: OTHER}
    filled.forget(5)
    assert reopened(filled).records == {6: OTHER}, "a torn line spoils no other"


@pytest.mark.parametrize("what", ["set_unreported", "set_moved_netns", "know_programs"])
def test_what_did_not_fit_on_the_disk_is_written_when_it_does(filled: Ledger, what: str) -> None:
    value = frozenset((101, 103)) if what == "know_programs" else ()
    with broken(full):
        getattr(filled, what)(value)
    assert contents(reopened(filled)) == FULL
    getattr(filled, what)(value)
    assert contents(reopened(filled)) == contents(filled) != FULL


def test_what_a_crash_left_is_in_nobodys_way(filled: Ledger) -> None:
    (filled.path / "ends.new").write_text("{")
    again = reopened(filled)
    again.hold(THIRD)
    assert reopened(again).records.keys() == {5, 6, 7}
    again.remove()
    assert not again.path.exists()
