"""Commands beside a daemon, and without one: what they ask, print and answer by their exit codes.

The daemon is a real one on the fake kernel; how commands end by signals, terminals and the rights
of who calls them is shown in ``tests/netns``.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from commands import Commands, Script, Talk
from driven import BAD, DRAFT, FIRST, OTHER, Clock, Site, set_clock

from xconnectd.cli import watch
from xconnectd.cli.exit_codes import Exit
from xconnectd.config import identity
from xconnectd.status import reports


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    monkeypatch.setenv("XCONNECTD_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(watch, "_INTERVAL", 0.01)
    monkeypatch.setattr(reports, "_SAMPLE", 0.001)
    return set_clock(monkeypatch)


@pytest.fixture
def begin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Commands]]:
    with ExitStack() as ends:
        yield lambda **options: ends.enter_context(
            Commands(Site(tmp_path, **options), capsys, monkeypatch)
        )


@pytest.fixture
def xconnectd(begin: Callable[..., Commands]) -> Commands:
    """Beside a daemon with one file."""
    return begin()


@pytest.fixture
def site(xconnectd: Commands) -> Site:
    return xconnectd.site


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    path = tmp_path / "draft.yaml"
    path.write_text(DRAFT)
    return path


# --------------------------------------------------------------------------- try


def answered(text: str | None) -> Script:
    """None: hangs up instead."""

    def script(talk: Talk) -> None:
        talk.until("Keep this wiring?")
        talk.type(text) if text is not None else talk.end_input()

    return script


NO = {"no": answered("n\n"), "nothing": answered("\n"), "something else": answered("yet\n"),
      "end of input": answered(None), "too late": lambda talk: talk.until("[y/N]")}  # fmt: skip


@pytest.mark.parametrize("text", ["y\n", "Yes\n"])
def test_a_confirmed_try_is_kept(site: Site, xconnectd: Commands, draft: Path, text: str) -> None:
    def script(talk: Talk) -> None:
        talk.until("Keep this wiring?")
        assert (site.partner(), site.file.read_text()) == ("v2", FIRST), "not before the answer"
        talk.type(text)

    done = xconnectd("try", draft, script=script)
    assert (done.code, done.err) == (Exit.DONE, "")
    assert f"kept in {site.file}\n" in done.out
    assert site.file.read_text() == DRAFT
    assert site.keeper.events()[-1] == "try.kept"
    xconnectd.do(lambda: site.keeper.step(100))
    assert site.partner() == "v2"
    assert sorted(site.file.parent.glob("*.yaml*")) == [draft, site.file], "no scratch file"


@pytest.mark.parametrize("how", NO)
def test_an_unconfirmed_try_reverts(site: Site, xconnectd: Commands, draft: Path, how: str) -> None:
    seconds = 0.1 if how == "too late" else 60
    done = xconnectd("try --timeout", seconds, draft, script=NO[how])
    assert done.code == Exit.FAILED
    assert done.out.endswith("reverted to the previous wiring\n")
    xconnectd.settle()
    assert (site.partner(), site.file.read_text()) == ("v1", FIRST)
    (reverted,) = (each for each in site.keeper.log if each["event"] == "try.reverted")
    assert reverted["reason"] == "not confirmed", "whatever way somebody does not confirm"
    assert "config.deferred" not in site.keeper.events()
    assert xconnectd("try", draft, script=answered("y\n")).code == Exit.DONE, "the next one is not"


def test_nobody_to_answer_nothing_is_tried(site: Site, xconnectd: Commands, draft: Path) -> None:
    done = xconnectd("try", draft)
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert "standard input is closed; --yes keeps it" in done.err
    assert "try.started" not in site.keeper.events()
    for text, code, partner in (("n\n", Exit.FAILED, "v1"), ("y\n", Exit.DONE, "v2")):
        assert xconnectd("try", draft, script=lambda talk, text=text: talk.type(text)).code == code  # type: ignore[misc]
        xconnectd.settle()
        assert site.partner() == partner, "what was typed ahead counts"
    draft.write_text(OTHER)
    assert xconnectd("try --yes", draft).code == Exit.DONE
    assert (site.partner(), site.file.read_text()) == ("v3", OTHER)


def test_a_yes_that_is_late_writes_nothing(site: Site, xconnectd: Commands, draft: Path) -> None:
    """The client was stopped while its time ran out, as a laptop's lid does it."""

    def script(talk: Talk) -> None:
        talk.until("Keep this wiring?")
        xconnectd.do(lambda: site.keeper.step(61))
        talk.type("y\n")

    done = xconnectd("try --timeout 60", draft, script=script)
    assert (done.code, "too late, it was reverted" in done.err) == (Exit.FAILED, True)
    assert (site.partner(), site.file.read_text()) == ("v1", FIRST)
    assert "try.kept" not in site.keeper.events()


def test_what_cannot_be_kept_is_reverted_and_said_so(
    site: Site, xconnectd: Commands, draft: Path
) -> None:
    """By the name that the user knows: it is written by another way."""

    def script(talk: Talk) -> None:
        talk.until("Keep this wiring?")
        site.file.unlink()
        site.file.mkdir()
        talk.type("y\n")

    done = xconnectd("try", draft, script=script)
    assert done.code == Exit.FAILED
    assert done.out.endswith("reverted to the previous wiring\n")
    assert done.err == f"xconnectd: {site.file}: cannot be written: Is a directory\n"
    xconnectd.settle()
    assert site.partner() == "v1"


def test_what_is_told_while_a_wiring_is_tried(site: Site, xconnectd: Commands) -> None:
    """It is what stands and what somebody is to confirm; the file speaks of something else."""
    client = xconnectd.do(site.connect)
    xconnectd.do(lambda: client.start_trial(seconds=30))
    told = json.loads(xconnectd("status --json").out)
    assert [(each["link"], each["state"]) for each in told["links"]] == [("v0:v2", "connected")]
    assert told["differences"] == []
    assert 0 < told["daemon"]["try"]["ends_in_s"] <= 30
    assert told["daemon"]["try"]["hash"] != told["config"]["hash"]
    assert "unless it is confirmed" in xconnectd("status").out
    assert xconnectd("status --check").code == Exit.DONE
    assert xconnectd("wait --timeout 0 v0:v2").code == Exit.DONE
    xconnectd.save(OTHER)
    assert "a file was changed meanwhile" in xconnectd("status").out
    xconnectd.do(client.close)
    xconnectd.settle()
    assert json.loads(xconnectd("status --json").out)["daemon"]["try"] is None


@pytest.mark.parametrize("text", [BAD, "links: {v0: v2, v4: v2}\n"])
def test_a_bad_file_is_not_tried(site: Site, xconnectd: Commands, draft: Path, text: str) -> None:
    draft.write_text(text)
    done = xconnectd("try", draft)
    assert (done.code, done.out) == (Exit.BAD_CONFIG, "")
    assert done.err.startswith(f"{draft}:")
    assert site.partner() == "v1"
    assert site.files() == {"wires.yaml": "loaded"}, "what was refused is no one's file"


# --------------------------------------------------------------------------- a directory of files


@pytest.fixture
def in_folder(begin: Callable[..., Commands]) -> Commands:
    return begin(files={"one.yaml": FIRST, "two.yaml": "links: {v2: v3}\n"})


PLANS: list[tuple[str, str, set[str] | None]] = [
    ("two.yaml", "{v2: v3}", set()),
    ("two.yaml", "{v2: v4}", {"v2", "v3", "v4"}),
    ("new.yaml", "{v4: v5}", {"v4", "v5"}),
    ("draft --as two.yaml", "{v2: v4}", {"v2", "v3", "v4"}),
    ("clash.yaml", "{v0: v5}", None),
    ("new.yml", "{v4: v5}", None),
]


@pytest.mark.parametrize(("name", "text", "ends"), PLANS)
def test_a_plan_of_one_file_tells_what_a_try_of_it_does(
    in_folder: Commands, tmp_path: Path, name: str, text: str, ends: set[str] | None
) -> None:
    """The links of the others stay, also those of one that is refused."""
    draft = tmp_path / name.split(maxsplit=1)[0]
    draft.write_text(f"links: {text}\n")
    for other in (FIRST, BAD) if ends is not None else (FIRST,):
        in_folder.do(lambda other=other: in_folder.site.save(other, "one.yaml"))  # type: ignore[misc]
        done = in_folder("plan --json", draft, *name.split()[1:])
        code = Exit.BAD_CONFIG if ends is None else Exit.CHANGES if ends else Exit.DONE
        assert done.code == code, done.err
        assert ends in (None, {each["interface"] for each in json.loads(done.out or "[]")})


def test_one_file_of_a_directory_is_tried_and_kept(in_folder: Commands, tmp_path: Path) -> None:
    """By its own name, by a new one, or by that of the file that it replaces."""
    site, draft = in_folder.site, tmp_path / "draft"
    for name, text in (("two.yaml", "{v2: v4}"), ("new.yaml", "{v3: v5}"), ("draft", "{v2: v3}")):
        (tmp_path / name).write_text(f"links: {text}\n")
    assert in_folder("try --yes", tmp_path / "two.yaml").code == Exit.DONE
    assert in_folder("try --yes", tmp_path / "new.yaml").code == Exit.DONE
    assert in_folder("try --yes --as two.yaml", draft).code == Exit.BAD_CONFIG, "v3 is in new.yaml"
    in_folder.do(lambda: site.remove("new.yaml"))
    assert in_folder("try --yes --as two.yaml", draft).code == Exit.DONE
    assert (site.partner("v0"), site.partner("v2")) == ("v1", "v3")
    assert sorted(each.name for each in site.file.iterdir()) == ["one.yaml", "two.yaml"]
    assert (site.file / "two.yaml").read_text() == draft.read_text()


# --------------------------------------------------------------------------- plan


def test_a_plan_tells_what_a_reload_changes(site: Site, xconnectd: Commands, draft: Path) -> None:
    assert xconnectd("plan").out == "0 changes\n"
    before = site.kernel.snapshot()
    actions = json.loads(xconnectd("plan --json", draft).out)
    assert {"v0", "v1", "v2"} <= {each["interface"] for each in actions}
    for each in actions:
        assert set(each) >= {"action", "link", "interface", "reason"}
        assert each["reason"]
    told = xconnectd("plan", draft)
    assert told.code == Exit.CHANGES
    (change, count) = told.out.splitlines()
    assert change.startswith("~ v0:v1 → v0:v2  generic: veth: offloaded packets")
    assert count == "1 change"
    steps = xconnectd("plan -v", draft).out.splitlines()
    assert (len(steps), steps[-1]) == (len(actions) + 1, f"{len(actions)} steps")
    assert site.kernel.snapshot() == before
    draft.write_text(BAD)
    assert xconnectd("plan", draft).code == Exit.BAD_CONFIG


# --------------------------------------------------------------------------- reload


def test_a_reload_waits_for_its_outcome(site: Site, xconnectd: Commands) -> None:
    site.file.write_text("links: {v0: v2, v4: nosuch}\n")
    done = xconnectd("reload")
    assert (done.code, done.out) == (Exit.DONE, "2 links: 1 connected, 1 waiting for nosuch\n")
    site.file.write_text("links:\n  v0: v1\n  v0: v2\n")
    done = xconnectd("reload")
    assert (done.code, done.out.startswith(f"{site.file}:3:3: ")) == (Exit.BAD_CONFIG, True)
    assert site.partner() == "v2"
    xconnectd.kill_daemon()
    done = xconnectd("reload")
    assert (done.code, "no daemon" in done.err) == (Exit.FAILED, True)


# --------------------------------------------------------------------------- status, wait


@pytest.mark.parametrize("hears_far_ends", [True, False], ids=["is told", "looks"])
def test_status_for_people_and_for_programs(
    begin: Callable[..., Commands], hears_far_ends: bool
) -> None:
    """The kernel is looked at where the daemon does not hear of all that happens."""
    xconnectd = begin(hears_far_ends=hears_far_ends)
    site = xconnectd.site
    text = "links:\n  v0: {to: v1, description: spine, labels: {lab: demo}}\n  v2: nosuch\n"
    xconnectd.save(text)
    shown = xconnectd("status -v").out
    running = f"daemon: running, pid {os.getpid()}\n"
    for words in (running, f"{site.file}: loaded ", "spine\n", "v0 — v1  connected  generic\n"):
        assert words in shown
    head, _, listed = xconnectd("status").out.partition("\n\n")
    assert shown.startswith(head)
    summary, titles, *lines = (line.split() for line in listed.splitlines())
    assert " ".join(summary) == "2 links: 1 connected, 1 waiting"
    assert titles[:3] == ["LINK", "STATE", "MODE"]
    assert lines[0][:5] == ["v2", "—", "nosuch", "waiting", "auto"], "problems first"
    assert lines[0][-1] == "exist"
    assert lines[1][:5] == ["v0", "—", "v1", "connected", "generic"]
    only = xconnectd("status --sort name --filter spine").out
    assert (" 1 with: spine\n" in only, "nosuch" in only) == (True, False)
    told = json.loads(xconnectd("status --json").out)
    good, waiting = told["links"]
    assert (good["description"], good["labels"]) == ("spine", {"lab": "demo"})
    assert (good["a"]["ifindex"], good["a"]["attached"]) == (site.kernel.index("v0"), True)
    assert (waiting["state"], "nosuch" in waiting["reason"]) == ("waiting", True)
    assert (waiting["b"]["ifindex"], waiting["b"]["attached"]) == (None, False)
    config = told["config"]
    assert [config[key] for key in ("path", "state", "problems")] == [str(site.file), "loaded", []]
    assert told["differences"] == []
    assert bool(xconnectd.looks) is not hears_far_ends
    looks = xconnectd.looks
    assert json.loads(xconnectd("status --json -c", site.file).out)["links"][0] == good
    assert xconnectd.looks > looks, "a file that is named is compared with the kernel"


def test_the_part_of_another_host_is_looked_at(
    xconnectd: Commands, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon knows that of its own host alone."""
    monkeypatch.setenv(identity.VARIABLE, "")  # and what a command makes of it is undone
    site.addresses = {"198.51.100.1"}
    hosts = "hosts: {h1: 198.51.100.1, h2: 198.51.100.2}\n"
    xconnectd.save(f"{hosts}links: {{h1/v0: h1/v1, h2/v2: h2/v3}}\n")

    def links(line: str) -> list[str]:
        return [each["link"] for each in json.loads(xconnectd(line).out)["links"]]

    own = links("status --json")
    assert (own, xconnectd.looks) == (["h1/v0,h1/v1"], 0)
    assert links("status --json --host h1") == own
    assert xconnectd.looks == 0
    assert links("status --json --host h2") == ["h2/v2,h2/v3"]


@pytest.mark.parametrize("by", ["is told", "looks", "asks"])
def test_the_verdict_on_links(begin: Callable[..., Commands], by: str) -> None:
    """By a daemon that hears of all; by who may read the kernel, and by who has to ask."""
    xconnectd = begin(hears_far_ends=by == "is told")
    site = xconnectd.site
    if by == "asks":
        xconnectd.only_ask()
    xconnectd.save("links: {v0: v1, v2: nosuch}\n")
    codes = {
        line: xconnectd(line).code
        for line in (
            *("status --check", "status --check v0", "status --check v1:v0", "status --check v2"),
            *("wait --timeout 0", "wait --timeout 0 v0:v1", "wait --timeout 0 v0 v2"),
            *("status", "status --health"),
        )
    }
    failed = {"status --check", "status --check v2", "wait --timeout 0", "wait --timeout 0 v0 v2"}
    assert {line for line, code in codes.items() if code != Exit.DONE} == failed
    late = xconnectd("wait --timeout 0.05")
    assert (late.code, late.out) == (Exit.FAILED, "nosuch:v2: waiting: nosuch does not exist\n")
    told = json.loads(xconnectd("status v1:v0 --json").out)["links"]
    assert [each["link"] for each in told] == ["v0:v1"]
    absent = xconnectd("status vx")
    assert absent.code == Exit.FAILED
    assert f"no link vx in {site.file}, which has 2 links" in absent.err
    xconnectd.save("links: {v0: v1, v2: {to: v3, enabled: false}}\n")
    assert xconnectd("status --check").code == Exit.DONE, "only enabled links count"
    xconnectd.save("links: {v0: [\n")
    assert xconnectd("status --health").code == Exit.FAILED


def test_who_waits_sees_the_link_come(begin: Callable[..., Commands]) -> None:
    xconnectd = begin(hears_far_ends=False)
    site = xconnectd.site
    xconnectd.save("links: {v0: v9}\n")

    def script(_: Talk) -> None:
        deadline = time.monotonic() + 10
        while xconnectd.looks < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        xconnectd.do(lambda: site.kernel.add("v9"))

    assert xconnectd("wait --timeout 30", script=script).code == Exit.DONE
    assert site.partner() == "v9"


def test_what_a_dead_daemon_left_is_looked_at(site: Site, xconnectd: Commands) -> None:
    """When a failed link is tried again is told while somebody tries."""
    site.kernel.load_foreign("v2")
    xconnectd.save("links: {v0: v1, v2: v3}\n")
    assert "retrying" in xconnectd("status -v").out
    xconnectd.kill_daemon()
    told = xconnectd("status -v").out
    assert ("v2 — v3  failed" in told, "retrying" in told) == (True, False)
    told = json.loads(xconnectd("status --json").out)
    assert told["daemon"] == {"running": False, "pid": None, "answers": False}
    assert told["links"][0]["state"] == "connected"
    assert xconnectd("status --check v0").code == Exit.DONE
    site.kernel.unload("v0")
    told = json.loads(xconnectd("status --json").out)["links"][0]
    assert (told["state"], told["a"]["attached"], told["retry_in_s"]) == ("failed", False, None)
    assert xconnectd("status --check v0").code == Exit.FAILED
    site.file.write_text(BAD)
    assert json.loads(xconnectd("status --json").out)["config"]["state"] == "rejected"


@pytest.mark.parametrize(("text", "state"), [(None, "missing"), (BAD, "rejected")])
def test_a_bad_file_is_named(site: Site, xconnectd: Commands, text: str | None, state: str) -> None:
    xconnectd.kill_daemon()
    site.kernel.unload("v0"), site.kernel.unload("v1")
    site.file.write_text(text) if text is not None else site.file.unlink()
    for words in ("", "v4"):
        late = xconnectd(f"wait --timeout 0 {words}")
        assert late.code == Exit.FAILED
        assert f"{site.file}: {state}\n{site.file}:" in late.out
    absent = xconnectd("capture v4")
    assert absent.code == Exit.FAILED
    assert f"no link v4 in {site.file}: it is {state}\n{site.file}:" in absent.err


# --------------------------------------------------------------------------- events


def test_events_come_as_logged_until_the_daemon_ends(site: Site, xconnectd: Commands) -> None:
    """One line of JSON each."""

    def script(talk: Talk) -> None:
        listened(xconnectd)
        xconnectd.save(DRAFT)
        talk.until("link.rewired")
        xconnectd.kill_daemon()

    site.keeper.events()
    done = xconnectd("events --json", script=script)
    assert (done.code, done.err) == (Exit.FAILED, "xconnectd: the daemon has ended\n")
    told = [json.loads(line) for line in done.out.splitlines()]
    assert [each["event"] for each in told] == site.keeper.events()
    rewired = next(each for each in told if each["event"] == "link.rewired")
    assert {"link", "a", "b", "a_ifindex", "b_ifindex", "mode", "trigger"} <= set(rewired)


def listened(xconnectd: Commands) -> None:
    """Waits until somebody does."""
    server = xconnectd.site.keeper.daemon._server
    while not xconnectd.do(lambda: any(each.wants_events for each in server._clients)):
        pass


def test_a_reader_of_events_that_has_seen_enough(xconnectd: Commands) -> None:
    def script(talk: Talk) -> None:
        listened(xconnectd)
        xconnectd.save(DRAFT)
        talk.until("link.rewired")
        talk.end_output()
        xconnectd.save(FIRST)

    done = xconnectd("events", script=script)
    assert (done.code, done.err) == (Exit.DONE, "")
    assert (" link.rewired " in done.out, "trigger=config" in done.out) == (True, True)


# --------------------------------------------------------------------------- nobody reads


ENOUGH = [
    ("status", Exit.DONE),
    ("plan", Exit.DONE),
    ("schema", Exit.DONE),
    ("status --watch", Exit.DONE),
    ("wait --timeout 0 v4", Exit.FAILED),
    ("plan nosuch.yaml", Exit.BAD_CONFIG),
    ("status --json --sort state", Exit.USAGE),
]


@pytest.mark.parametrize(("line", "code"), ENOUGH)
def test_a_reader_that_leaves_is_no_failure(xconnectd: Commands, line: str, code: int) -> None:
    done = xconnectd(line, script=Talk.end_output)
    assert (done.code, done.out, "BrokenPipe" in done.err) == (code, "", False)


# --------------------------------------------------------------------------- status --watch


def test_the_table_in_a_pipe_is_lines(site: Site, xconnectd: Commands) -> None:
    xconnectd.save("links: {v0: {to: v1, description: spine}, v2: nosuch}\n")

    def script(talk: Talk) -> None:
        talk.until("\n", times=7)
        talk.end_output()

    done = xconnectd("status --watch --sort state", script=script)
    lines = done.out.splitlines()
    assert (done.code, done.err) == (Exit.DONE, "")
    assert lines[0] == f"daemon: running, pid {os.getpid()}"
    assert lines[1].startswith(f"file:   {site.file}: loaded ")
    rates = "→ 0 frames/s 0 bit/s ← 0 frames/s 0 bit/s dropped 0"
    assert lines[2] == f"v2 — nosuch waiting auto {rates} (nosuch does not exist)"
    assert lines[3].startswith(f"v0 — v1 connected generic {rates}")
    assert lines[4:6] == lines[2:4], "daemon and file are told when they change"
    done = xconnectd("status --watch --filter spine", script=script)
    assert {line.partition(" — ")[0] for line in done.out.splitlines()[2:6]} == {"v0"}


def test_changes_of_daemon_and_file_are_told_in_a_pipe(site: Site, xconnectd: Commands) -> None:
    def script(talk: Talk) -> None:
        talk.until(": loaded ")
        xconnectd.save("links: {v0: [}\n")
        talk.until(f"{site.file}:1:")
        xconnectd.kill_daemon()
        talk.until("daemon: not running\n")
        talk.end_output()

    done = xconnectd("status --watch", script=script)
    told = [line for line in done.out.splitlines() if " — " not in line]
    words = [line.split()[0] for line in told]
    assert words[:5] == ["daemon:", "file:", "daemon:", "file:", f"{site.file}:1:14:"], told
