"""The daemon's rules on the fake kernel: trials, signals, ticks, retries, and what files it takes.

Files, sockets and clients are real; the kernel's interfaces, inotify and the time are not.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from driven import Clock, Keeper, Watch, set_clock
from kernel import Kernel, peace, refuse_verb

from xconnectd.config.source import Files
from xconnectd.daemon.daemon import OnExit

FIRST = "links: {v0: v1}\n"
DRAFT = "links: {v0: v2}\n"
OTHER = "links: {v0: v3}\n"
BAD = "links: [\n"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return set_clock(monkeypatch)


class Site:
    """A daemon with a file of its own; ``ask`` is how its clients talk to it."""

    def __init__(self, directory: Path, on_exit: OnExit = OnExit.DETACH) -> None:
        kernel = Kernel()
        for name in ("v0", "v1", "v2", "v3"):
            kernel.add(name)
        kernel.news.clear()
        self.kernel = kernel
        self.file = directory / "wires.yaml"
        self.file.write_text(FIRST)
        self._sockets = directory
        source = Files(self.file)
        self.keeper = Keeper(kernel, source=source, sockets=directory, on_exit=on_exit).start()

    def save(self, text: str) -> None:
        """Tells of it, too; the daemon reads it in its next turn."""
        self.file.write_text(text)
        self.keeper.watch.changed(0.0)

    def connect(self, name: str = "control.sock") -> Peer:
        return Peer(self, self._sockets / name)

    def partner(self) -> str | None:
        """Of v0."""
        return self.kernel.leads("v0")


class Peer:
    """A client."""

    def __init__(self, site: Site, path: Path) -> None:
        self._site = site
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(5)
        self._socket.connect(str(path))
        site.keeper.step()  # accepts

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        self._socket.sendall(json.dumps({"do": do, **more}).encode() + b"\n")
        self._site.keeper.step()
        answer: dict[str, Any] = json.loads(self._socket.recv(1 << 16))
        return answer

    def start_trial(self, text: str = DRAFT, seconds: float = 30) -> dict[str, Any]:
        return self.ask("try", path="draft.yaml", text=text, timeout=seconds)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.keeper.daemon.stop()


@pytest.fixture
def client(site: Site) -> Iterator[Peer]:
    with closing(site.connect()) as client:
        yield client


# --------------------------------------------------------------------------- trials


def test_what_is_not_confirmed_in_time_is_reverted(site: Site, client: Peer) -> None:
    assert client.start_trial(seconds=30)["ok"]
    assert site.partner() == "v2"
    site.keeper.step(29.9)
    assert site.partner() == "v2"
    site.keeper.step(0.2)
    assert site.partner() == "v1"
    assert site.keeper.events()[-3:] == ["try.reverted", "config.loaded", "link.rewired"]


def test_the_loop_wakes_when_a_trial_ends(site: Site, client: Peer) -> None:
    client.start_trial(seconds=0.25)
    site.keeper.step()
    assert site.keeper.selector.timeout == pytest.approx(0.25)


def test_a_trial_ends_with_its_client(site: Site, client: Peer) -> None:
    client.start_trial()
    client.close()
    site.keeper.step()
    assert site.partner() == "v1"
    assert "try.reverted" in site.keeper.events()


def test_a_trial_does_not_end_with_another_client(site: Site, client: Peer) -> None:
    other = site.connect()
    client.start_trial()
    other.close()
    site.keeper.step()
    assert site.partner() == "v2"


def test_a_file_that_changes_meanwhile_is_read_at_the_end(site: Site, client: Peer) -> None:
    client.start_trial(seconds=30)
    for _ in range(3):
        site.save(OTHER)
        site.keeper.step(1)
        assert site.partner() == "v2"
    assert site.keeper.events().count("config.deferred") == 1
    assert client.ask("status")["daemon"]["try"]["edited"]
    site.keeper.step(30)
    assert site.partner() == "v3"


def test_what_is_kept_stays(site: Site, client: Peer) -> None:
    """And the file that is put in its place is no other's edit."""
    client.start_trial(seconds=30)
    assert client.ask("hold")["ok"]
    site.save(DRAFT)
    site.keeper.step()
    assert client.ask("keep") == {"ok": True, "error": ""}
    events = site.keeper.events()
    assert "try.kept" in events
    assert "config.deferred" not in events
    client.close()
    site.keeper.step(60)
    assert site.partner() == "v2"
    assert "try.reverted" not in site.keeper.events()


def test_what_is_kept_and_stands_in_no_file_is_told(site: Site, client: Peer) -> None:
    client.start_trial()
    answer = client.ask("keep")
    assert not answer["ok"]
    assert "not what was tried" in answer["error"]
    assert site.partner() == "v1"


def test_a_client_has_ten_seconds_to_put_the_file_in_place(site: Site, client: Peer) -> None:
    client.start_trial(seconds=1)
    client.ask("hold")
    site.keeper.step(9.9)
    assert site.partner() == "v2"
    site.keeper.step(0.2)
    assert site.partner() == "v1"
    assert "too late" in client.ask("keep")["error"]


@pytest.mark.parametrize("do", ["hold", "keep"])
def test_a_trial_is_kept_by_its_own_client_alone(site: Site, client: Peer, do: str) -> None:
    client.start_trial()
    with closing(site.connect()) as other:
        assert "too late" in other.ask(do)["error"]
    assert site.partner() == "v2"


def test_one_wiring_is_tried_at_a_time(site: Site, client: Peer) -> None:
    client.start_trial()
    with closing(site.connect()) as other:
        assert "another wiring" in other.start_trial(OTHER)["error"]
    assert site.partner() == "v2"


def test_a_draft_that_is_refused_changes_nothing(site: Site, client: Peer) -> None:
    assert client.start_trial(BAD)["refused"]
    assert client.ask("status")["daemon"]["try"] is None
    assert site.partner() == "v1"


@pytest.mark.parametrize("how", ["signal", "request"])
def test_a_reload_ends_a_trial(site: Site, client: Peer, how: str) -> None:
    client.start_trial()
    if how == "signal":
        site.keeper.daemon.signals.receive(signal.SIGHUP)
        site.keeper.step()
    else:
        assert client.ask("reload")["ok"]
    assert site.partner() == "v1"
    assert "try.reverted" in site.keeper.events()
    client.close()
    site.keeper.step(60)
    assert "try.reverted" not in site.keeper.events()


def test_who_may_only_look_tries_and_reloads_nothing(site: Site) -> None:
    with closing(site.connect("status.sock")) as reader:
        assert reader.ask("status")["daemon"]["running"]
        for do in ("try", "hold", "keep", "reload"):
            assert "may only look" in reader.ask(do, path="a", text=DRAFT, timeout=1)["error"]
    assert site.partner() == "v1"


# --------------------------------------------------------------------------- signals


def test_a_sighup_reads_the_files_and_tries_all_that_failed(site: Site) -> None:
    kernel, keeper = site.kernel, site.keeper
    kernel.trouble = refuse_verb("attach", kernel.index("v2"))
    site.save(DRAFT)
    keeper.step()
    assert keeper.state("v0:v2") == "failed"
    kernel.trouble = peace
    keeper.events()
    keeper.daemon.signals.receive(signal.SIGHUP)
    keeper.step()
    assert site.partner() == "v2"
    assert "config.loaded" in keeper.events(), "also without a change"
    keeper.step()
    assert keeper.events() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_stops_and_the_second_exits(
    site: Site, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    signals = site.keeper.daemon.signals
    signals.receive(number)
    assert (signals.stopping, exits) == (True, [])
    signals.receive(signal.SIGHUP)
    site.save(DRAFT)
    site.keeper.step(2)
    assert site.partner() == "v1", "nothing is read any more"
    signals.receive(number)
    assert exits == [1]


@pytest.mark.parametrize("on_exit", OnExit)
def test_what_becomes_of_the_wires_at_the_end(tmp_path: Path, on_exit: OnExit) -> None:
    site = Site(tmp_path, on_exit)
    assert site.keeper.daemon.stop()
    is_detached = on_exit is OnExit.DETACH
    assert site.kernel.untouched("v0") is is_detached
    assert site.keeper.runtime.is_removed is is_detached
    assert not (tmp_path / "control.sock").exists()
    assert site.keeper.events()[-1] == "daemon.stopped"


def test_records_stay_when_something_could_not_be_put_back(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.kernel.trouble = refuse_verb("detach", site.kernel.index("v0"))
    assert not site.keeper.daemon.stop()
    assert not site.keeper.runtime.is_removed


# --------------------------------------------------------------------------- what is due


def test_an_entry_that_is_lost_is_put_back_at_the_next_tick(site: Site) -> None:
    site.keeper.step(1)
    site.kernel.lose_entry("v0")
    site.keeper.step(0.9)
    assert site.partner() is None, "nobody tells of it"
    assert site.keeper.selector.timeout == 1
    site.keeper.step(0.1)
    assert site.partner() == "v1"
    assert "drift.repaired" in site.keeper.events()


def test_a_link_that_failed_is_tried_again_when_it_is_due(site: Site) -> None:
    kernel, keeper = site.kernel, site.keeper
    keeper.step(0.4)
    kernel.trouble = refuse_verb("attach", kernel.index("v2"))
    site.save(DRAFT)
    keeper.settle()  # its own undoing makes news
    kernel.trouble = peace
    keeper.step(0.6)  # a tick
    assert keeper.state("v0:v2") == "failed"
    keeper.step(0.4)
    assert keeper.selector.timeout == pytest.approx(0.4)
    assert keeper.state("v0:v2") == "connected"


def test_news_are_acted_on_at_once(site: Site) -> None:
    site.kernel.unload("v0")
    site.keeper.step()
    assert site.kernel.get("v0").xdp


def test_all_is_read_again_when_news_were_lost(site: Site) -> None:
    site.kernel.unload("v0")
    site.kernel.news.clear()
    site.keeper.news.is_overrun = True
    site.keeper.step()
    assert site.partner() == "v1"
    assert site.keeper.events()[-2:] == ["events.lost", "drift.repaired"]


def test_a_change_is_read_when_its_file_has_settled(site: Site) -> None:
    site.file.write_text(DRAFT)
    site.keeper.watch.changed(0.2)
    site.keeper.step(0.1)
    assert site.partner() == "v1"
    site.keeper.watch.changed(0.2)
    site.keeper.step(0.1)
    assert site.keeper.selector.timeout == pytest.approx(0.1)
    assert site.partner() == "v2", "an earlier change is not put off by a later one"


# --------------------------------------------------------------------------- files


def test_a_file_that_is_refused_is_told_once(site: Site) -> None:
    """And again with other problems, or when somebody asks; its last good links stay."""
    keeper = site.keeper
    keeper.events()
    told = []
    for text in (BAD, BAD, "links: 5\n"):
        site.save(text)
        keeper.step()
        told.append(keeper.events())
    assert told == [["config.rejected"], [], ["config.rejected"]]
    keeper.daemon.signals.receive(signal.SIGHUP)
    keeper.step()
    assert "config.rejected" in keeper.events()
    assert site.partner() == "v1"
    site.save(FIRST)
    keeper.step()
    assert keeper.events() == ["config.loaded"], "the very links that stand"


def test_what_ails_the_watch_is_told_once(site: Site) -> None:
    keeper = site.keeper
    keeper.events()
    keeper.watch.problem = "raise fs.inotify.max_user_watches"
    keeper.watch.orphan = str(site.file)
    for _ in range(3):
        keeper.tick()
    assert keeper.events() == ["config.unreachable", "config.unwatched"]
    keeper.watch.problem = keeper.watch.orphan = ""
    keeper.tick()
    keeper.tick()
    assert keeper.events() == ["config.watched"]


def test_a_change_during_the_start_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is saved while the watch is set up is read: it is there before the first read."""
    file = tmp_path / "wires.yaml"
    monkeypatch.setattr(Watch, "start", lambda _: file.write_text(DRAFT))
    site = Site(tmp_path)
    assert site.partner() == "v2"
    site.keeper.daemon.stop()


def test_a_start_without_a_good_file_keeps_the_wires_that_stand(site: Site) -> None:
    before = site.kernel.snapshot()
    site.file.write_text(BAD)
    blind = Keeper(site.kernel, site.keeper.book, source=Files(site.file)).start()
    assert site.kernel.snapshot() == before
    assert "config.rejected" in blind.events()
    site.file.write_text(DRAFT)
    blind.watch.changed(0.0)
    blind.step()
    assert site.partner() == "v2"


def test_the_last_error_is_in_the_status(site: Site, client: Peer) -> None:
    site.save(BAD)
    site.keeper.step()
    report = client.ask("status")
    assert report["daemon"]["last_error"] == "config.rejected: its last good links stay"
    assert report["config"]["state"] == "rejected"
