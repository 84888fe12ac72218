"""What outlives the daemon: files that are whole or absent, and void after a reboot."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from xconnectd import paths
from xconnectd.model import Change, MovedEnd, Record, Setting
from xconnectd.state import journal as journal_module
from xconnectd.state import stale
from xconnectd.state import store as module
from xconnectd.state.store import Ledger

RECORD = Record(5, "eth0", "02:00:00:00:00:05", {Setting.MTU: Change(1500, 65535)})
OTHER = Record(6, "eth1", "02:00:00:00:00:06", {"feature:rx-lro": Change(1, 0)})
MOVED = MovedEnd(RECORD, "generic", 3, 8, "box")


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
    ledger.set_config(Path("/etc/xconnect.yaml"))
    return ledger


def files(directory: Path) -> Iterator[Path]:
    return (path for path in directory.rglob("*") if path.is_file())


# --------------------------------------------------------------------------- there and back


def test_everything_is_there_after_a_restart(filled: Ledger) -> None:
    again = reopened(filled)
    assert again.records() == {5: RECORD, 6: OTHER}
    assert again.programs() == {101, 102}
    assert again.moved_netns() == (MOVED,)
    assert again.config() == Path("/etc/xconnect.yaml")


def test_a_fresh_one_is_empty_and_leaves_no_trace(ledger: Ledger) -> None:
    assert (ledger.records(), ledger.programs(), ledger.moved_netns()) == ({}, frozenset(), ())
    assert ledger.config() is None
    assert not ledger.path.exists()


def test_a_record_is_replaced_and_dropped(filled: Ledger) -> None:
    newer = Record(5, "eth0", RECORD.mac, {})
    filled.hold(newer)
    filled.forget(6)
    assert filled.records() == reopened(filled).records() == {5: newer}


def test_forgetting_twice_is_no_error(filled: Ledger) -> None:
    filled.forget(6)
    filled.forget(6)
    assert 6 not in filled.records()


def test_programs_are_only_ever_added(filled: Ledger) -> None:
    """A program that is attached somewhere must not become foreign."""
    filled.know_programs(frozenset((103,)))
    assert reopened(filled).programs() == {101, 102, 103}


def test_one_change_writes_one_line(filled: Ledger) -> None:
    before = {path: path.read_bytes() for path in files(filled.path)}
    filled.hold(Record(5, "eth9", RECORD.mac, {}))
    changed = {path.name for path in files(filled.path) if path.read_bytes() != before[path]}
    assert changed == {"ends"}
    journal = filled.path / "ends"
    assert journal.read_bytes().startswith(before[journal])
    assert len(journal.read_text().split("\n")) == len(before[journal].decode().split("\n")) + 1


def test_what_is_known_already_is_not_written_again(
    filled: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(filled, "_save", lambda name, _data: written.append(name))
    filled.know_programs(frozenset((101,)))
    filled.set_moved_netns((MOVED,))
    assert written == []


def test_namespaces_are_apart(filled: Ledger) -> None:
    assert Ledger(filled.path.parent, "another").records() == {}


def test_nothing_is_left_behind(filled: Ledger) -> None:
    filled.remove()
    assert not filled.path.exists()
    filled.remove()


def test_nobody_else_reads_it(tmp_path: Path) -> None:
    """Also where no unit sets an umask. Others pass through the directories, to the socket."""
    before = os.umask(0)
    try:
        kept = fill(Ledger(tmp_path / "run", "cookie"))
        for _ in range(module._ROOM + 20):
            kept.hold(RECORD)  # until it is written anew
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in files(kept.path)}
    assert set(modes.values()) == {0o600}, modes
    assert {"ends", "boot", "namespace", "programs", "config"} <= modes.keys()
    assert {path.stat().st_mode & 0o777 for path in (kept.path, kept.path.parent)} == {0o711}


# --------------------------------------------------------------------------- reboots


@pytest.fixture
def rebooted(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    for reader in (module, stale):
        monkeypatch.setattr(reader, "boot_id", lambda: "another boot")
    return reopened(filled)


def test_after_a_reboot_all_is_void(rebooted: Ledger) -> None:
    assert (rebooted.records(), rebooted.programs()) == ({}, frozenset())
    assert rebooted.moved_netns() == ()


def test_a_boot_id_may_be_another_and_the_kernel_the_same(rebooted: Ledger) -> None:
    """In a container whose /proc is not the machine's; pins do not outlive the kernel."""
    root, cookie = rebooted.path.parent, rebooted.path.name
    again = Ledger(root, cookie, pinned=lambda: frozenset({101, 4711}))
    assert (again.records().keys(), again.unjudged) == ({5, 6}, ())
    other = Ledger(root, cookie, pinned=lambda: frozenset({4711}))
    assert (other.records(), other.unjudged) == ({}, ("eth0", OTHER.name))
    other.hold(OTHER)
    assert Ledger(root, cookie).unjudged == ()


def test_after_a_reboot_it_starts_afresh(rebooted: Ledger) -> None:
    rebooted.hold(OTHER)
    again = reopened(rebooted)
    assert again.records() == {6: OTHER}
    assert again.programs() == frozenset()


def test_without_a_boot_id_all_is_void(filled: Ledger) -> None:
    (filled.path / "boot").unlink()
    assert reopened(filled).records() == {}


# --------------------------------------------------------------------------- torn files


def test_a_torn_file_costs_only_itself(filled: Ledger) -> None:
    """Whichever file it is, and wherever it was cut."""
    whole = {path: path.read_text() for path in files(filled.path)}
    for path, text in whole.items():
        for cut in range(len(text)):
            path.write_text(text[:cut])
            again = reopened(filled)
            if path.name == "ends":
                assert again.records() in ({}, {5: RECORD}, {5: RECORD, 6: OTHER})
            elif path.name != "boot":
                assert again.records() == {5: RECORD, 6: OTHER}
        path.write_text(text)


@pytest.mark.parametrize(
    "rubbish",
    [b"", b"\0" * 64, b"\xff\xfe", b"null", b"[]", b"7", b'"x"', b"{}", b'{"changes": {"mtu": 1}}'],
    ids=repr,
)
def test_rubbish_in_place_of_a_record(filled: Ledger, rubbish: bytes) -> None:
    journal = filled.path / "ends"
    good, other = (line for line in journal.read_bytes().split(b"\n") if line)
    for line in (rubbish, b'{"hold": %b}' % rubbish, b'{"forget": %b}' % rubbish):
        journal.write_bytes(b"\n".join((b"", line, other)))
        assert reopened(filled).records() == {6: OTHER}
    journal.write_bytes(b"\n".join((good[:-9], b"", other)))
    assert reopened(filled).records() == {6: OTHER}


@pytest.mark.parametrize(
    "rubbish",
    [
        b"",
        b"\0" * 64,
        b"\xff\xfe",
        b"[",
        b"nul",
        b"7",
        b"{}",
        b"[[1]]",
        b'{"x": 7}',
        b'[{"record": 7}]',
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    "name", ["programs", "moved_netns", "unreported", "starts", "config", "boot"]
)
def test_rubbish_elsewhere(filled: Ledger, name: str, rubbish: bytes) -> None:
    (filled.path / name).write_bytes(rubbish)
    again = reopened(filled)
    again.programs()
    again.moved_netns()
    again.unreported()
    again.config()
    assert again.starts()["loaded"] == 0


def test_what_another_release_knows_besides_is_passed_over(filled: Ledger) -> None:
    """Within one boot a package may be made older again."""
    filled.set_unreported((OTHER,))
    for name in ("moved_netns", "unreported", "ends"):
        path = filled.path / name
        known = r'("(ifindex|found|record)":)'
        path.write_text(re.sub(known, r'"news": 1, \1', path.read_text()))
    again = reopened(filled)
    assert again.records() == {5: RECORD, 6: OTHER}
    assert (again.moved_netns(), again.unreported()) == ((MOVED,), (OTHER,))


def test_what_did_not_fit_on_the_disk_is_written_when_it_does(
    filled: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full)
        with pytest.raises(OSError, match="No space"):
            filled.set_unreported((OTHER,))
    filled.set_unreported((OTHER,))
    assert reopened(filled).unreported() == (OTHER,)


# --------------------------------------------------------------------------- crashes


def test_a_crash_before_the_line_is_written_leaves_the_old_record(
    filled: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_fd: int, _data: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(journal_module.os, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            filled.hold(Record(5, "eth9", RECORD.mac, {}))
        with pytest.raises(KeyboardInterrupt):
            filled.hold(Record(7, "eth7", "02:00:00:00:00:07", {}))
    assert reopened(filled).records() == {5: RECORD, 6: OTHER}
    assert filled.records() == {5: RECORD, 6: OTHER}


def test_what_a_crash_left_is_in_nobodys_way(filled: Ledger) -> None:
    (filled.path / "ends.new").write_text("{")
    again = reopened(filled)
    again.hold(Record(7, "eth7", "02:00:00:00:00:07", {}))
    assert reopened(again).records().keys() == {5, 6, 7}
    again.remove()
    assert not again.path.exists()


def test_a_crash_while_the_directory_is_made(ledger: Ledger) -> None:
    """Records without a boot id are void; the next write must not be."""
    ledger.path.mkdir(parents=True)
    (ledger.path / "ends").write_text('\n{"hold": {}}')
    again = reopened(ledger)
    again.hold(RECORD)
    assert reopened(again).records() == {5: RECORD}


def test_a_disk_that_is_full_is_told(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal_module.os, "write", full)
    with pytest.raises(OSError, match="No space"):
        filled.hold(Record(7, "eth7", "02:00:00:00:00:07", {}))
    assert filled.records() == {5: RECORD, 6: OTHER}


# --------------------------------------------------------------------------- identity


def test_the_format_is_plain_json(filled: Ledger) -> None:
    first = (filled.path / "ends").read_text().split("\n")[1]
    data = json.loads(first)["hold"]
    assert (data["ifindex"], data["name"], data["mac"]) == (5, "eth0", RECORD.mac)
    assert data["changes"] == {"mtu": {"found": 1500, "ours": 65535}}


def test_the_journal_does_not_grow_for_ever(filled: Ledger) -> None:
    for number in range(3000):
        filled.hold(Record(5, f"eth{number}", RECORD.mac, {}))
    assert len((filled.path / "ends").read_text().split("\n")) < 1100
    assert reopened(filled).records() == {5: Record(5, "eth2999", RECORD.mac, {}), 6: OTHER}


def test_a_line_cut_short_by_a_full_disk_spoils_no_other(
    filled: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = journal_module.os.write
    with monkeypatch.context() as patch:
        patch.setattr(journal_module.os, "write", lambda fd, data: write(fd, data[:20]))
        with pytest.raises(OSError, match="No space"):
            filled.hold(Record(7, "eth7", "02:00:00:00:00:07", {}))
    filled.forget(5)
    assert reopened(filled).records() == {6: OTHER}


def test_the_cookie_is_the_same_each_time() -> None:
    assert paths.namespace_cookie() == paths.namespace_cookie()


def test_the_directory_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XCONNECTD_STATE_DIR", str(tmp_path))
    assert Ledger().path == tmp_path / paths.namespace_cookie()
