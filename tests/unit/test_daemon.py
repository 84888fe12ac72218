"""The daemon's rules on the fake kernel: trials, signals, ticks, retries, and what files it takes.

Files, sockets and clients are real; the kernel's interfaces, inotify and the time are not.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from driven import BAD, DRAFT, FIRST, OTHER, Clock, Peer, Site, Watch, set_clock
from kernel import Kernel, Step, no_trouble, refuse_verb

from xconnectd.config.identity import VARIABLE
from xconnectd.daemon.daemon import OnExit
from xconnectd.netlink.monitor import Event


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    monkeypatch.setenv("XCONNECTD_STATE_DIR", str(tmp_path))
    return set_clock(monkeypatch)


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
    site.keeper.step(29.75)
    site.keeper.step()
    assert (site.partner(), site.keeper.selector.timeout) == ("v2", pytest.approx(0.25))
    site.keeper.step(0.3)
    assert site.partner() == "v1"
    assert site.keeper.events()[-3:] == ["try.reverted", "config.loaded", "link.rewired"]
    assert client.ask("status")["daemon"]["last_error"] == "try.reverted: not confirmed"


def test_a_trial_ends_with_its_client_and_with_no_other(site: Site, client: Peer) -> None:
    other = site.connect()
    client.start_trial()
    other.close()
    site.keeper.step()
    assert site.partner() == "v2"
    client.close()
    site.keeper.step()
    assert site.partner() == "v1"
    assert "try.reverted" in site.keeper.events()


def test_who_tries_and_listens_and_hangs_up(site: Site, client: Peer) -> None:
    """It is found to have gone by an event of its own try, in the middle of the pass."""
    assert client.ask("events")["ok"]
    client.send("try", path="x.yaml", text=DRAFT, timeout=60)
    client.close()
    site.keeper.step()
    assert site.partner() == "v1"
    assert "try.reverted" in site.keeper.events()
    with closing(site.connect()) as other:
        assert other.start_trial()["ok"], "the next one is not refused"


def test_a_file_that_changes_meanwhile_is_read_at_the_end(site: Site, client: Peer) -> None:
    client.start_trial(seconds=30)
    for _ in range(3):
        site.save(OTHER)
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
    assert client.ask("keep") == {"ok": True, "error": ""}
    events = site.keeper.events()
    assert "try.kept" in events
    assert "config.deferred" not in events
    client.close()
    site.keeper.step(60)
    assert site.partner() == "v2"
    assert "try.reverted" not in site.keeper.events()


def test_a_client_has_ten_seconds_to_put_the_file_in_place(site: Site, client: Peer) -> None:
    """What is kept and stands in no file is told."""
    client.start_trial(seconds=1)
    client.ask("hold")
    site.keeper.step(9.9)
    assert site.partner() == "v2"
    site.keeper.step(0.2)
    assert site.partner() == "v1"
    assert "too late" in client.ask("keep")["error"]
    client.start_trial()
    answer = client.ask("keep")
    assert (answer["ok"], "not what was tried" in answer["error"]) == (False, True)
    assert site.partner() == "v1"


def test_a_trial_is_kept_by_its_own_client_alone(site: Site, client: Peer) -> None:
    """And one wiring is tried at a time."""
    client.start_trial()
    with closing(site.connect()) as other:
        assert "too late" in other.ask("hold")["error"]
        assert "too late" in other.ask("keep")["error"]
        assert "another wiring" in other.start_trial(OTHER)["error"]
    assert site.partner() == "v2"


def test_what_a_try_waits_for_is_told_and_bad_drafts_refused(site: Site, client: Peer) -> None:
    assert client.start_trial(BAD)["refused"]
    assert client.ask("status")["daemon"]["try"] is None
    assert site.partner() == "v1"
    waiting = client.start_trial("links: {v0: nosuch}\n")["waiting"]
    assert waiting == ["nosuch:v0 waits: nosuch does not exist"]


@pytest.mark.parametrize("how", ["signal", "request"])
def test_a_reload_ends_a_trial(site: Site, client: Peer, how: str) -> None:
    client.start_trial()
    if how == "signal":
        site.keeper.daemon.signals.receive(signal.SIGHUP)
        site.keeper.step()
    else:
        assert client.ask("reload")["ok"]
    assert site.partner() == "v1"
    reverted = next(each for each in site.keeper.log if each["event"] == "try.reverted")
    assert reverted["reason"] == "the files are read again"
    site.keeper.events()
    client.close()
    site.keeper.step(60)
    assert "try.reverted" not in site.keeper.events()


def test_who_may_only_look_tries_and_reloads_nothing(site: Site) -> None:
    with closing(site.connect("status.sock")) as reader:
        assert reader.ask("status")["daemon"]["running"]
        for do in ("try", "hold", "keep", "reload"):
            assert "read-only" in reader.ask(do, path="a", text=DRAFT, timeout=1)["error"]
    assert site.partner() == "v1"


ODD: list[tuple[object, dict[str, Any]]] = [
    *((do, {}) for do in (None, {"a": []}, "fly", "keep", "hold", "try")),
    ("try", {"path": "\0", "text": BAD, "timeout": 1}),
    ("try", {"path": "x.yaml", "text": "\ud800", "timeout": 1}),
]


def test_an_odd_request_is_refused_and_harms_nobody(site: Site, client: Peer) -> None:
    for do, more in ODD:
        answer = client.ask(do, **more)
        assert not answer["ok"]
        assert answer.get("error") or answer["refused"]
    assert client.ask("status")["daemon"]["running"]
    assert site.partner() == "v1"


# --------------------------------------------------------------------------- signals


def test_a_sighup_reads_the_files_and_tries_all_that_failed(site: Site) -> None:
    kernel, keeper = site.kernel, site.keeper
    kernel.trouble = refuse_verb("attach", kernel.index("v2"))
    site.save(DRAFT)
    assert keeper.state("v0:v2") == "failed"
    kernel.trouble = no_trouble
    keeper.events()
    keeper.daemon.signals.receive(signal.SIGHUP)
    keeper.step()
    assert site.partner() == "v2"
    assert "config.loaded" in keeper.events(), "also without a change"
    keeper.step()
    assert keeper.events() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_exits(site: Site, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
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


@pytest.mark.parametrize("stuck", [False, True])
@pytest.mark.parametrize("on_exit", OnExit)
def test_what_becomes_of_wires_at_the_end(tmp_path: Path, on_exit: OnExit, *, stuck: bool) -> None:
    """Records stay when something could not be put back."""
    site = Site(tmp_path, on_exit=on_exit)
    if stuck:
        site.kernel.trouble = refuse_verb("detach", site.kernel.index("v0"))
    is_detached = on_exit is OnExit.DETACH and not stuck
    assert site.keeper.daemon.stop() == (is_detached or on_exit is not OnExit.DETACH)
    assert site.kernel.untouched("v0") is is_detached
    assert site.keeper.runtime.is_removed is is_detached
    assert not (site.sockets / "control.sock").exists()
    assert site.keeper.events()[-1] == "daemon.stopped"


# --------------------------------------------------------------------------- what is due


def test_an_entry_that_is_lost_is_put_back_at_the_next_tick(site: Site, clock: Clock) -> None:
    """Where pins are looked after, too; the loop wakes before for who was muted."""
    site.keeper.step(1)
    pinned = site.keeper.runtime.times_pinned
    site.kernel.lose_entry("v0")
    site.keeper.step(0.75)
    assert site.partner() is None, "nobody tells of it"
    assert site.keeper.selector.timeout == 1
    site.keeper.news.due = clock.now + 0.125
    site.keeper.step(0.125)
    assert (site.partner(), site.keeper.selector.timeout) == (None, 0.125)
    site.keeper.step(0.125)
    assert (site.partner(), site.keeper.runtime.times_pinned) == ("v1", pinned + 1)
    assert "drift.repaired" in site.keeper.events()


def test_routes_are_followed_while_an_end_cannot_be_held(site: Site) -> None:
    """One that uses it may be what keeps it; without such an end a router's are many."""
    kernel, news = site.kernel, site.keeper.news
    kernel.addressed[kernel.index("v2")] = ("the route to 198.51.100.0/24 uses it",)
    site.save("links: {v0: v2}\n")
    site.keeper.step()
    assert news.follows_routes
    kernel.addressed.clear()
    kernel.news.append(Event(kernel.index("v2")))
    site.keeper.step()
    site.keeper.step()
    assert site.partner() == "v2"
    assert not news.follows_routes


def test_a_link_that_failed_is_tried_again_when_it_is_due(site: Site) -> None:
    kernel, keeper = site.kernel, site.keeper
    keeper.step(0.4)
    kernel.trouble = refuse_verb("attach", kernel.index("v2"))
    site.save(DRAFT)
    keeper.settle()  # its own undoing makes news
    kernel.trouble = no_trouble
    keeper.step(0.6)  # a tick
    assert keeper.state("v0:v2") == "failed"
    keeper.step(0.4)
    assert keeper.selector.timeout == pytest.approx(0.4)
    assert keeper.state("v0:v2") == "connected"


def test_news_are_acted_on_at_once_and_all_is_read_when_some_were_lost(site: Site) -> None:
    site.kernel.unload("v0")
    site.keeper.step()
    assert site.partner() == "v1"
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


def test_a_change_during_the_start_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is saved while the watch is set up is read: it is there before the first read."""
    monkeypatch.setattr(Watch, "start", lambda _: (tmp_path / "wires.yaml").write_text(DRAFT))
    site = Site(tmp_path)
    assert site.partner() == "v2"
    site.keeper.daemon.stop()


# --------------------------------------------------------------------------- a file


def test_a_file_that_is_refused_is_told_once(site: Site) -> None:
    """And again with other problems, or when somebody asks; its last good links stay."""
    keeper = site.keeper
    keeper.events()
    told = []
    for text in (BAD, BAD, "links: 5\n"):
        site.save(text)
        told.append(keeper.events())
    assert told == [["config.rejected"], [], ["config.rejected"]]
    keeper.daemon.signals.receive(signal.SIGHUP)
    keeper.step()
    assert "config.rejected" in keeper.events()
    assert site.partner() == "v1"
    site.save(FIRST)
    assert keeper.events() == ["config.loaded"], "the very links that stand"


HOSTS = "hosts: {h1: 198.51.100.11, h2: 198.51.100.12}\n"


def test_who_does_not_know_which_host_it_is_keeps_its_wires(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it does: an address may come after the start."""
    monkeypatch.delenv(VARIABLE, raising=False)
    assert site.partner() == "v1"
    before = site.kernel.snapshot()
    site.save(f"{HOSTS}links: {{h1/v0: h1/v2}}\n")
    assert site.files() == {"wires.yaml": "rejected"}
    (problem,) = site.keeper.daemon._files.reading.problems
    assert "is none of `hosts`" in problem.text
    assert (site.partner(), site.kernel.snapshot()) == ("v1", before)
    site.restart()
    assert (site.partner(), site.kernel.snapshot()) == ("v1", before)
    site.keeper.events()
    site.keeper.tick()
    site.keeper.tick()
    assert site.keeper.events() == [], "it was told once"
    site.addresses.add("198.51.100.11")
    site.keeper.tick()
    site.keeper.tick()
    assert site.files() == {"wires.yaml": "loaded"}
    assert site.partner() == "v2"
    assert site.keeper.book.host() == "h1", "commands are told by the record"


def test_a_host_takes_its_part_of_what_is_tried(site: Site, client: Peer) -> None:
    site.addresses.add("198.51.100.11")
    site.save(f"{HOSTS}links: {{h1/v0: h1/v1, h2/v0: h2/v2}}\n")
    assert site.partner() == "v1"
    client.start_trial(f"{HOSTS}links: {{h1/v0: h1/v3, h2/v0: h2/v2}}\n")
    assert site.partner() == "v3"


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


@pytest.mark.parametrize("text", [None, "", BAD, FIRST], ids=["missing", "empty", "bad", "good"])
def test_a_start_without_a_good_file_keeps_all(site: Site, client: Peer, text: str | None) -> None:
    """With one what the file says stands, also after a crash during a try."""
    before = site.kernel.snapshot()
    if text == FIRST:
        client.start_trial()
    site.file.write_text(text) if text is not None else site.file.unlink()
    site.restart()
    assert site.partner() == "v1"
    state = "missing" if text is None else "loaded" if text == FIRST else "rejected"
    assert site.files() == {"wires.yaml": state}
    events = site.keeper.events()
    assert ("config.rejected" in events) == (text != FIRST)
    assert "try.reverted" not in events, "the next one knows of none"
    assert text == FIRST or site.kernel.snapshot() == before
    site.save(DRAFT)
    assert site.partner() == "v2"


def test_a_file_that_is_gone_disconnects_nothing_and_one_without_links_all(site: Site) -> None:
    """And a pair turned round is no change."""
    site.remove()
    assert (site.partner(), site.files()) == ("v1", {"wires.yaml": "missing"})
    site.keeper.events()
    site.kernel.trouble = no_trouble
    site.save("links: {v1: v0}\n")
    assert (site.keeper.events(), site.kernel.steps) == (["config.loaded"], [])
    site.save("links: {}\n")
    assert site.kernel.untouched("v0")
    assert site.kernel.untouched("v1")


def test_no_frame_waits_for_a_line_in_the_log(site: Site) -> None:
    """A save is told of when it is done, and before what came of it."""
    keeper = site.keeper
    keeper.events()
    told: list[str] = []

    def listen(_number: int, _step: Step) -> None:
        told.extend(keeper.events())

    site.kernel.trouble = listen
    site.save(DRAFT)
    assert site.kernel.steps, "it was rewired"
    assert (told, keeper.events()) == ([], ["config.loaded", "link.rewired"])


def test_what_only_the_daemon_knows_is_in_status(site: Site, client: Peer, clock: Clock) -> None:
    first = client.ask("status")["daemon"]
    assert (first["pid"], first["last_error"]) == (os.getpid(), "")
    assert first["last_reload"] == first["last_load"] == clock.time()
    site.keeper.step(5)
    site.save(BAD)
    report = client.ask("status")
    second = report["daemon"]
    assert second["last_error"] == "config.rejected: its last good links stay"
    assert second["uptime_s"] == first["uptime_s"] + 5
    assert second["last_reload"] == first["last_reload"], "nothing new is wanted"
    assert (report["config"]["state"], len(report["config"]["problems"])) == ("rejected", 1)
    site.save(DRAFT)
    third = client.ask("status")["daemon"]
    assert third["last_reload"] == third["last_load"] == clock.time()


@pytest.mark.parametrize(
    "harm", [lambda kernel: kernel.unload("v0"), lambda kernel: kernel.lose_entry("v0")]
)
def test_what_has_happened_is_dealt_with_before_status_is_told(
    site: Site, client: Peer, harm: Callable[[Kernel], object]
) -> None:
    """Also where the kernel tells nobody: so no command need look at it once more."""
    selector, news = site.keeper.selector, site.keeper.news
    last = selector.unregister(news)
    selector.register(news, last.events, last.data)
    harm(site.kernel)
    told = client.ask("status")
    assert (told["daemon"]["repairs"], told["differences"]) == (1, [])


def test_who_does_not_hear_of_far_ends_tells_no_differences(tmp_path: Path) -> None:
    """What is known of these may be old, so a command looks itself."""
    site = Site(tmp_path, hears_far_ends=False)
    with closing(site.connect()) as client:
        assert "differences" not in client.ask("status")
    site.keeper.daemon.stop()


# --------------------------------------------------------------------------- a directory of files


TWO = "links: {v2: v3}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, files={"one.yaml": FIRST, "two.yaml": TWO})
    yield site
    site.keeper.daemon.stop()


@pytest.fixture
def guest(folder: Site) -> Iterator[Peer]:
    with closing(folder.connect()) as client:
        yield client


def test_every_file_of_a_directory_counts(folder: Site) -> None:
    """When it is gone for a moment nothing is disconnected."""
    for name in ("notes.txt", "one.yaml~", ".hidden.yaml", "three.yml", "four.yaml.bak"):
        folder.save("links: {v4: v5}\n", name)
    assert (folder.partner("v0"), folder.partner("v2")) == ("v1", "v3")
    assert folder.kernel.untouched("v4")
    assert folder.files() == {"one.yaml": "loaded", "two.yaml": "loaded"}
    aside = folder.file.rename(folder.file.with_name("aside"))
    folder.changed()
    assert (folder.partner("v0"), folder.files()) == ("v1", {"wires.d": "missing"})
    aside.rename(folder.file)
    folder.save("defaults: {mode: tc}\nlinks: {v4: v5}\n", "three.yaml")
    assert [folder.partner(f"v{n}") for n in (0, 2, 4)] == ["v1", "v3", "v5"]
    assert (folder.kernel.get("v4").xdp, bool(folder.kernel.get("v2").xdp)) == ((), True), "its own"


def test_an_interface_in_two_files_stays_with_the_one_that_had_it(folder: Site) -> None:
    folder.keeper.events()
    folder.save("links:\n  v1: v4\n", "a-first-by-name.yaml")
    for _ in range(2):
        (told,) = (each for each in folder.keeper.log if each["event"] == "config.rejected")
        assert "a-first-by-name.yaml:2:3" in str(told["problems"])
        assert "one.yaml:1:9" in str(told["problems"])
        assert folder.files().pop("a-first-by-name.yaml") == "rejected"
        assert folder.partner("v1") == "v0"
        folder.restart()
    folder.save("links: {}\n", "one.yaml")
    assert folder.partner("v1") == "v4"
    assert set(folder.files().values()) == {"loaded"}


@pytest.mark.parametrize("restarted", [False, True], ids=["runs", "starts"])
def test_a_refused_file_keeps_its_own_links(folder: Site, guest: Peer, restarted: bool) -> None:
    """Also those that a start finds in the kernel; the other file's change is taken."""
    if not restarted:
        folder.save(BAD, "one.yaml")
        folder.save("links: {v2: v4}\n", "two.yaml")
        assert guest.ask("reload")["ok"] is False
    else:
        (folder.file / "one.yaml").write_text(BAD)
        (folder.file / "two.yaml").write_text("links: {v2: v4}\n")
        folder.restart()
    assert (folder.partner("v0"), folder.partner("v2")) == ("v1", "v4")
    assert folder.files() == {"one.yaml": "rejected", "two.yaml": "loaded"}
    folder.remove("one.yaml")
    assert folder.kernel.untouched("v0"), "removed, it takes its links along"
    assert folder.partner("v2") == "v4"


def test_one_file_of_a_directory_is_tried(folder: Site, guest: Peer) -> None:
    """Whatever ails another one."""
    answer = guest.start_trial("links: {v2: v4}\n", name="two.yaml")
    assert answer["place"] == str(folder.file / "two.yaml")
    assert (folder.partner("v0"), folder.partner("v2")) == ("v1", "v4")
    folder.keeper.step(60)
    assert folder.partner("v2") == "v3"
    clash = guest.start_trial("links: {v0: v5}\n", name="clash.yaml")
    assert "one.yaml:1:9" in str(clash["refused"])
    assert "if the draft replaces that file: --as its name" in str(clash["refused"])
    folder.save(BAD, "one.yaml")
    assert guest.start_trial(BAD, name="two.yaml")["refused"]
    assert guest.start_trial("links: {v2: v4}\n", name="two.yaml")["ok"]
    assert (folder.partner("v0"), folder.partner("v2")) == ("v1", "v4")
    folder.keeper.step(60)
    taken = guest.start_trial("links: {v0: v5}\n", name="draft", **{"as": "one.yaml"})
    assert taken["place"] == str(folder.file / "one.yaml")
    assert folder.partner("v0") == "v5"
