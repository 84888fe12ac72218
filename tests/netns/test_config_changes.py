"""The file and the world change: what the Go reference fails on, xconnectd takes in its stride."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .lab import Lab, Station, poll
from .service import Daemon, document
from .traffic import ALIVE, Stream, passes, transfer

Start = Callable[..., Daemon]
FIRST = {"va": "vb"}
SECOND = {"va": "vc"}


def wired(a: Station, b: Station) -> bool:
    """Whether frames cross both ways between two stations now."""
    with a.port() as here, b.port() as there:
        return passes(here, there) and passes(there, here)


def cut(a: Station, b: Station) -> bool:
    """Whether frames cross neither way."""
    with a.port() as here, b.port() as there:
        return not passes(here, there, 0.05) and not passes(there, here, 0.05)


# ---------------------------------------------------------------------- ways of saving


def _in_place(path: Path, text: str) -> None:
    path.write_text(text)


def _rename(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.tmp")
    fresh.write_text(text)
    fresh.rename(path)


def _vim(path: Path, text: str) -> None:
    backup = path.with_name(f"{path.name}~")
    path.rename(backup)
    path.write_text(text)
    backup.unlink()


def _sed(path: Path, text: str) -> None:
    fresh = path.with_name("sedAbCdEf")
    fresh.write_text(text)
    fresh.chmod(0o600)
    fresh.replace(path)


def _two_writes(path: Path, text: str) -> None:
    with path.open("w") as file:
        for half in (text[: len(text) // 2], text[len(text) // 2 :]):
            file.write(half)
            file.flush()
            time.sleep(0.05)


def _delete_and_create(path: Path, text: str) -> None:
    path.unlink()
    time.sleep(0.3)
    path.write_text(text)


def _move_away_and_back(path: Path, text: str) -> None:
    aside = path.with_name("aside")
    path.rename(aside)
    time.sleep(0.1)
    aside.write_text(text)
    aside.rename(path)


def _hard_link(path: Path, text: str) -> None:
    fresh = path.with_name("fresh")
    fresh.write_text(text)
    path.unlink()
    os.link(fresh, path)
    fresh.unlink()


SAVERS = [_in_place, _rename, _vim, _sed, _two_writes, _delete_and_create]
SAVERS += [_move_away_and_back, _hard_link]


@pytest.mark.parametrize("save", SAVERS, ids=lambda x: x.__name__.strip("_"))
def test_every_way_of_saving_works_again_and_again(
    lab: Lab, daemon: Start, save: Callable[[Path, str], None]
) -> None:
    a, b, c, d, e = (lab.veth(x) for x in ("va", "vb", "vc", "vd", "ve"))
    untouched = {"vd": "ve"}
    running = daemon(FIRST | untouched)
    running.wait_link("connected", "va", "vb")
    with Stream(d, e) as stream:
        for n in range(4):
            goal, (there, gone) = ((SECOND, (c, b)), (FIRST, (b, c)))[n % 2]
            save(running.config, document(goal | untouched))
            poll(lambda there=there: wired(a, there), what=f"save {n + 1}")  # type: ignore[misc]
            assert cut(a, gone)
    stream.assert_perfect()
    running.assert_no_traceback()


def test_a_config_map_swap(lab: Lab) -> None:
    """Kubernetes swaps ``..data`` and never touches the file's own name."""
    a, b, c = (lab.veth(x) for x in ("va", "vb", "vc"))
    running = Daemon(lab, None)
    folder = running.config.parent

    def publish(version: str, wiring: dict[str, str]) -> None:
        (folder / version).mkdir()
        (folder / version / running.config.name).write_text(document(wiring))
        (folder / "..data_tmp").symlink_to(version)
        (folder / "..data_tmp").rename(folder / "..data")

    publish("..1", FIRST)
    running.config.symlink_to(f"..data/{running.config.name}")
    running.start().wait_link("connected", "va", "vb")
    for n, (wiring, there) in enumerate(((SECOND, c), (FIRST, b), (SECOND, c)), 2):
        publish(f"..{n}", wiring)
        for old in (folder / f"..{n - 1}").iterdir():
            old.unlink()
        poll(lambda there=there: wired(a, there), what=f"version {n}")  # type: ignore[misc]


def test_a_directory_that_is_not_there_yet(lab: Lab) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = Daemon(lab, None)
    running.config.parent.rmdir()
    running.start()
    assert running.status()["config"]["state"] == "missing"
    running.config.parent.mkdir()
    running.write(FIRST)
    poll(lambda: wired(a, b))
    running.stop()


def test_a_directory_that_is_replaced(lab: Lab, daemon: Start) -> None:
    a, _, c = lab.veth("va"), lab.veth("vb"), lab.veth("vc")
    running = daemon(FIRST)
    folder = running.config.parent
    folder.rename(folder.with_name("old"))
    folder.mkdir()
    running.write_in_place(SECOND)
    poll(lambda: wired(a, c))
    running.write(FIRST)
    poll(lambda: cut(a, c))


def test_a_deleted_file_disconnects_nothing(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = daemon(FIRST)
    running.wait_link("connected", "va", "vb")
    with Stream(a, b) as stream:
        poll(stream.flows)
        running.config.unlink()
        poll(lambda: running.status()["config"]["state"] == "missing", interval=0.1)
        running.write(FIRST)
        poll(lambda: running.status()["config"]["state"] == "loaded", interval=0.1)
    stream.assert_perfect()


def test_no_links_disconnects_all(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = daemon(FIRST)
    running.wait_link("connected", "va", "vb")
    running.write("links: {}\n")
    running.wait_link("disconnected", "va", "vb")
    assert cut(a, b)
    assert lab.xdp("va") == lab.xdp("vb") == 0


def test_sighup_reads_again_and_does_not_stop(lab: Lab, daemon: Start) -> None:
    a, b, c = (lab.veth(x) for x in ("va", "vb", "vc"))
    running = daemon(FIRST)
    running.wait_link("connected", "va", "vb")
    with Stream(a, b) as stream:
        poll(stream.flows)
        for _ in range(5):
            running.signal(signal.SIGHUP)
            time.sleep(0.05)
    stream.assert_perfect()
    running.write(SECOND)
    running.signal(signal.SIGHUP)
    poll(lambda: wired(a, c))
    assert running.returncode is None


# ---------------------------------------------------------------------- interfaces come and go


def test_an_interface_missing_at_start(lab: Lab, daemon: Start) -> None:
    a, c, d = lab.veth("va"), lab.veth("vc"), lab.veth("vd")
    running = daemon(FIRST | {"vc": "vd"})
    running.wait_link("connected", "vc", "vd")
    link = running.wait_state("va", "vb", "waiting")
    assert "vb" in link["reason"]
    assert lab.xdp("va"), "held, and silent"
    with Stream(c, d) as stream:
        poll(stream.flows)
        b = lab.veth("vb")
        running.wait_link("connected", "va", "vb")
        assert wired(a, b)
    stream.assert_perfect()


def test_an_interface_missing_at_reload(lab: Lab, daemon: Start) -> None:
    a, b, c = lab.veth("va"), lab.veth("vb"), lab.veth("vc")
    running = daemon(FIRST)
    running.wait_link("connected", "va", "vb")
    with Stream(a, b) as stream:
        poll(stream.flows)
        running.write(FIRST | {"vc": "vd"})
        running.wait_link("waiting", "vc", "vd")
        d = lab.veth("vd")
        running.wait_link("connected", "vc", "vd")
        assert wired(c, d)
    stream.assert_perfect()


def test_an_interface_deleted_and_made_again(lab: Lab, daemon: Start) -> None:
    a, b, c, d = (lab.veth(x) for x in ("va", "vb", "vc", "vd"))
    running = daemon(FIRST | {"vc": "vd"})
    running.wait_link("connected", "va", "vb")
    with Stream(c, d) as stream:
        poll(stream.flows)
        for _ in range(3):
            since = running.mark()
            lab.delete("vb")
            running.wait_link("waiting", "va", "vb", since=since)
            lab.veth("vb", namespace=b.namespace)
            running.wait_link("connected", "va", "vb", since=since)
            assert wired(a, b)
    stream.assert_perfect()


def test_a_container_that_restarts_in_an_instant(lab: Lab, daemon: Start) -> None:
    """Deleted and made again before anybody can look: the same name, another device."""
    a, b = lab.veth("va"), lab.veth("vb")
    running = daemon(FIRST)
    running.wait_link("connected", "va", "vb")
    for _ in range(5):
        again = f"link add vb type veth peer name eth0 netns {b.namespace}"
        lab.batch(["link delete vb", again, "link set vb up"])
        b.ip("link", "set", "eth0", "up")
        poll(lambda: wired(a, b))


@pytest.mark.parametrize("index", [1024, 100_000, 2_000_000])
@pytest.mark.parametrize("mode", ["auto", "tc"])
def test_big_interface_numbers(lab: Lab, daemon: Start, index: int, mode: str) -> None:
    a, b = lab.veth("va", 1, index=index), lab.veth("vb", 2, index=index + 7)
    assert lab.ifindex("va") == index
    daemon(f"links:\n  va: {{to: vb, mode: {mode}}}\n").wait_link("connected", "va", "vb")
    assert wired(a, b)
    assert transfer(a, b, size=8 << 20) > ALIVE


def test_an_interface_renamed_into_place(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("veth1234")
    running = daemon(FIRST)
    running.wait_link("waiting", "va", "vb")
    lab.ip("link", "set", "veth1234", "down")
    lab.ip("link", "set", "veth1234", "name", "vb")
    running.wait_link("connected", "va", "vb")
    assert wired(a, b)


def test_an_interface_moved_in(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    lab.ip("link", "set", "vb", "netns", a.namespace)
    running = daemon(FIRST)
    running.wait_link("waiting", "va", "vb")
    a.ip("link", "set", "vb", "netns", lab.host)
    running.wait_link("connected", "va", "vb")
    assert wired(a, b)


# ---------------------------------------------------------------------- reloads and traffic


def test_sixty_reloads_lose_nothing_on_an_untouched_link(lab: Lab, daemon: Start) -> None:
    a, b, c, d, e = (lab.veth(x) for x in ("va", "vb", "vc", "vd", "ve"))
    running = daemon(FIRST | {"vc": "vd"})
    running.wait_link("connected", "va", "vb")
    with Stream(a, b, rate=2000) as stream:
        poll(stream.flows)
        for n in range(60):
            since = running.mark()
            running.write(FIRST | {"vc": ("ve", "vd")[n % 2]})
            running.wait_event("config.loaded", since=since)
            time.sleep(0.02)
        poll(lambda: wired(c, d))
    stream.assert_perfect()
    assert stream.rate > 400, stream.rate
    assert cut(c, e)
    running.stop()


def test_a_pair_turned_round_is_no_change(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = daemon(FIRST)
    running.wait_link("connected", "va", "vb")
    programs = (lab.xdp("va"), lab.xdp("vb"))
    with Stream(a, b) as stream:
        poll(stream.flows)
        since = running.mark()
        running.write({"vb": "va"})
        running.wait_event("config.loaded", since=since)
        time.sleep(0.3)
    stream.assert_perfect()
    assert (lab.xdp("va"), lab.xdp("vb")) == programs
    names = {x["event"] for x in running.events(since=since)}
    assert not {x for x in names if x.startswith("link.")}, names


def test_one_pair_written_both_ways_is_one_link_and_a_warning(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = daemon("links:\n  va: vb\n  vb: va\n")
    running.wait_link("connected", "va", "vb")
    assert wired(a, b)
    assert len(running.status()["links"]) == 1
    assert running.events(level="warning")


def test_the_options_of_a_link_change_while_it_runs(lab: Lab, daemon: Start) -> None:
    """Mode by mode, without losing a frame; then the plug is pulled and put back."""
    a, b = lab.veth("va"), lab.veth("vb")
    running = daemon(FIRST)
    running.wait_link("connected", "va", "vb")
    with Stream(a, b) as stream:
        poll(stream.flows)
        for mode in ("tc", "generic", "tc", "auto"):
            running.write(f"links: {{va: {{to: vb, mode: {mode}}}}}\n")
            wanted = "generic" if mode == "auto" else mode
            poll(lambda wanted=wanted: running.link("va", "vb")["mode"] == wanted, what=mode)  # type: ignore[misc]
    stream.assert_perfect()
    running.write("links: {va: {to: vb, enabled: false}}\n")
    running.wait_state("va", "vb", "disabled")
    assert cut(a, b)
    running.write(FIRST)
    poll(lambda: wired(a, b))


def test_a_long_swap_of_partners_never_mixes_frames(lab: Lab, daemon: Start) -> None:
    """va:vb vc:vd becomes va:vc vb:vd and back: each frame goes where a file sent it."""
    a, b, c, d = (lab.veth(x) for x in ("va", "vb", "vc", "vd"))
    running = daemon({"va": "vb", "vc": "vd"})
    running.wait_link("connected", "va", "vb")
    for n in range(6):
        straight = n % 2 == 1
        running.write({"va": "vb", "vc": "vd"} if straight else {"va": "vc", "vb": "vd"})
        pairs, others = ((a, b), (c, d)), ((a, c), (b, d))
        if not straight:
            pairs, others = others, pairs
        for one, other in pairs:
            poll(lambda one=one, other=other: wired(one, other))  # type: ignore[misc]
        assert all(cut(*pair) for pair in others)
    running.assert_no_traceback()


# ---------------------------------------------------------------------- bad files

BAD_FILES: dict[str, tuple[str, int]] = {
    "empty": ("", 0),
    "only comments": ("# nothing here yet\n", 0),
    "no links": ("version: 1\n", 0),
    "links null": ("links:\n", 1),
    "a scalar": ("hello\n", 1),
    "a list at the top": ("- va\n- vb\n", 1),
    "a list under links": ("links:\n  - va\n  - vb\n", 2),
    "not yaml": ("links:\n  va: [vb\n", 0),
    "a tab": ("links:\n\tva: vb\n", 2),
    "in two pairs": ("links:\n  va: vb\n  va2: vc\n  vc: vd\n", 4),
    "in two pairs as a target": ("links:\n  va: vb\n  vc: vb\n", 3),
    "plug and pair": ("links:\n  va: vb\n  vb: vb\n", 3),
    "repeated key": ("links:\n  va: vb\n  va: vc\n", 3),
    "links twice": ("links:\n  va: vb\nlinks:\n  vc: vd\n", 3),
    "typo in links": ("link:\n  va: vb\n", 1),
    "unknown key in a link": ("links:\n  va:\n    to: vb\n    speed: 10\n", 4),
    "unknown mode": ("links:\n  va:\n    to: vb\n    mode: fast\n", 4),
    "enabled: yes": ("links:\n  va:\n    to: vb\n    enabled: yes\n", 4),
    "enabled: 1": ("links:\n  va:\n    to: vb\n    enabled: 1\n", 4),
    "no partner": ("links:\n  va:\n    mode: tc\n", 2),
    "null partner": ("links:\n  va:\n", 2),
    "list partner": ("links:\n  va: [vb, vc]\n", 2),
    "a slash": ("links:\n  va: v/b\n", 2),
    "a colon": ("links:\n  va: 'v:b'\n", 2),
    "a star": ("links:\n  'v*': vb\n", 2),
    "braces": ("links:\n  'v{1,2}': vb\n", 2),
    "peer notation": ("links:\n  va: eth0@if5\n", 2),
    "a space": ("links:\n  va: 'v b'\n", 2),
    "a dot": ("links:\n  va: '..'\n", 2),
    "an empty name": ("links:\n  va: ''\n", 2),
    "longer than any altname": (f"links:\n  va: {'v' * 130}\n", 2),
    "wrong version": ("version: 2\nlinks:\n  va: vb\n", 1),
    "unknown default": ("defaults: {colour: red}\nlinks:\n  va: vb\n", 1),
    "mtu": ("links:\n  va:\n    to: vb\n    mtu: 9000\n", 4),
    "impair": ("links:\n  va:\n    to: vb\n    impair: {loss: 1}\n", 4),
    "one_way": ("links:\n  va:\n    to: vb\n    one_way: true\n", 4),
    "carrier": ("links:\n  va:\n    to: vb\n    carrier: follow\n", 4),
    "mirrors": ("links:\n  va: vb\nmirrors: []\n", 3),
    "endpoints": ("links:\n  va: vb\nendpoints: {}\n", 3),
    "metrics nowhere": ("links:\n  va: vb\nmetrics: {}\n", 3),
    "metrics at no port": ("links:\n  va: vb\nmetrics:\n  listen: 127.0.0.1\n", 4),
    "unknown alias": ("links:\n  va: *nowhere\n", 2),
    "two documents": ("links:\n  va: vb\n---\nlinks: {}\n", 0),
    "binary": ("links:\n  va: v\x01b\n", 0),
}
NOT_IN_THIS_VERSION = {"mtu", "impair", "one_way", "carrier", "mirrors", "endpoints"}
NOT_IN_THIS_VERSION |= {"a list under links"}
PROBLEM = re.compile(r"xconnect\.yaml:(\d+):(\d+): \S+")


def test_every_bad_file_is_refused_while_traffic_runs(lab: Lab, daemon: Start) -> None:
    """Each with its line and column, in the log and by ``check``; and no frame is lost."""
    a, b = lab.veth("va"), lab.veth("vb")
    for end in ("vc", "vd", "ve"):
        lab.veth(end)
    running = daemon(FIRST)
    running.wait_link("connected", "va", "vb")
    wrong: list[str] = []
    with Stream(a, b) as stream:
        poll(stream.flows)
        since = running.mark()
        for name, (text, line) in BAD_FILES.items():
            running.write(f"# then {name}\n" + document(FIRST))
            running.wait_event("config.loaded", since=since)
            since = running.mark()
            running.write(text)
            event = str(running.wait_event("config.rejected", since=since))
            done = running.cli("check", str(running.config))
            said = done.stdout + done.stderr
            wrong += [f"{name}: {x}" for x in _complaints(name, line, event, said)]
            assert done.returncode == 78, name
        state = running.status()
        assert state["config"]["state"] == "rejected"
        assert state["config"]["problems"]
        assert [x["state"] for x in state["links"]] == ["connected"]
    assert not wrong, "\n".join(wrong)
    stream.assert_perfect()
    running.write(FIRST | {"vc": "vd"})
    running.wait_link("connected", "vc", "vd")
    running.stop()


def _complaints(name: str, line: int, event: str, said: str) -> list[str]:
    """What is wrong with the way a bad file was refused."""
    wrong = []
    for where, text in (("log", event), ("check", said)):
        places = [(int(m[1]), int(m[2])) for m in PROBLEM.finditer(text)]
        if not places:
            wrong.append(f"no place in {where}: {text}")
        elif line and line not in [place[0] for place in places]:
            wrong.append(f"line {line} expected in {where}: {text}")
        elif line and not all(column for at, column in places if at == line):
            wrong.append(f"no column in {where}: {text}")
        if name in NOT_IN_THIS_VERSION and "not in this version" not in text:
            wrong.append(f"'not in this version' expected in {where}: {text}")
    return wrong


def test_check_names_every_problem_in_one_go(lab: Lab) -> None:
    text = "links:\n  va: vb\n  vc: vb\n  vd:\n    to: ve\n    mode: fast\n  vf: v/g\nmetrics: {}\n"
    asked = Daemon(lab, text)
    done = asked.cli("check", str(asked.config))
    assert done.returncode == 78
    lines = {int(m[1]) for m in PROBLEM.finditer(done.stdout + done.stderr)}
    assert {3, 6, 7, 8} <= lines, done.stdout + done.stderr


GOOD_FILES = {
    "networkop's own": "links:\n  va: vb\n",
    "version and x-key": "version: 1\nx-lab: anything\nlinks:\n  va: vb\n",
    "anchors": "x-opts: &o {mode: auto, admin: manage}\nlinks:\n  va: {<<: *o, to: vb}\n",
    "quoted": "links:\n  \"va\": 'vb'\n",
    "flow": "links: {va: vb}\n",
    "json": '{"links": {"va": "vb"}}\n',
    "defaults": "defaults: {mode: auto, admin: keep, allow_addressed: false}\nlinks: {va: vb}\n",
    "carrier: independent": "links:\n  va: {to: vb, carrier: independent}\n",
    "long form in full": (
        "links:\n  va:\n    to: vb\n    mode: auto\n    enabled: true\n    admin: manage\n"
        "    description: leaf1 to spine1\n    labels: {lab: demo}\n"
    ),
    "windows line ends": "links:\r\n  va: vb\r\n",
    "a byte order mark": "\ufefflinks:\n  va: vb\n",
}


def test_good_files_of_every_form_keep_the_wire(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = daemon("# the first\n" + document(FIRST))
    running.wait_link("connected", "va", "vb")
    with Stream(a, b) as stream:
        poll(stream.flows)
        for name, text in GOOD_FILES.items():
            since = running.mark()
            running.write(text)
            try:
                running.wait_event("config.loaded", since=since)
            except AssertionError as error:
                raise AssertionError(f"{name} is not taken: {error}") from None
    stream.assert_perfect()


def test_names_that_yaml_would_make_something_else(lab: Lab, daemon: Start) -> None:
    ends = ("no", "12", "1e3", "off", "0x10", "yes")
    stations = {name: lab.veth(name) for name in ends}
    running = daemon("links:\n  no: 12\n  1e3: off\n  0x10: yes\n")
    for a, b in (("no", "12"), ("1e3", "off"), ("0x10", "yes")):
        running.wait_link("connected", a, b)
        assert wired(stations[a], stations[b])


# ---------------------------------------------------------------------- a bad file at start


@pytest.mark.parametrize("text", [None, "", "links:\n  va: [\n"], ids=["missing", "empty", "bad"])
def test_a_bad_file_at_start_leaves_adopted_wires_and_waits(lab: Lab, text: str | None) -> None:
    a, b, c = lab.veth("va"), lab.veth("vb"), lab.veth("vc")
    running = Daemon(lab, FIRST).start()
    running.wait_link("connected", "va", "vb")
    with Stream(a, b) as stream:
        poll(stream.flows)
        running.kill()
        running.config.unlink()
        if text is not None:
            running.write(text)
        running.start()
        assert running.status()["config"]["state"] == ("missing" if text is None else "rejected")
        time.sleep(0.5)
    stream.assert_perfect()
    running.write(SECOND)
    poll(lambda: wired(a, c))
    running.stop()


def test_strict_exits_78_and_touches_nothing(lab: Lab) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = Daemon(lab, FIRST).start()
    running.wait_link("connected", "va", "vb")
    running.kill()
    strict = Daemon(lab, "links:\n  va: [\n", "--strict", name="strict").spawn()
    assert strict.wait() == 78
    assert wired(a, b)


STRANGER = 54321
"""A user who runs nothing else."""
CAPABILITIES = "-all,+bpf,+net_admin,+perfmon,+sys_admin,+dac_override"

HOARD = """
import ctypes, sys
libc = ctypes.CDLL(None)
while libc.inotify_init1(0) >= 0:
    pass
print("done", flush=True)
sys.stdin.read()
"""
"""Takes all inotify instances that its user may have, until its stdin ends."""


def test_out_of_inotify_instances_the_log_says_what_to_do(lab: Lab, daemon: Start) -> None:
    """They are counted by user, machine-wide: that of this test is nobody else's."""
    a, b, c = (lab.veth(x) for x in ("va", "vb", "vc"))
    drop = ("setpriv", f"--reuid={STRANGER}", "--clear-groups")
    with subprocess.Popen(
        ["prlimit", "--nofile=20000", *drop, "/usr/bin/python3", "-c", HOARD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as hoard:
        assert hoard.stdout is not None
        assert hoard.stdout.readline()
        caps = (f"--inh-caps={CAPABILITIES}", f"--ambient-caps={CAPABILITIES}")
        running = daemon(FIRST, through=(*drop, *caps))
        event = running.wait_event("config.unwatched")
        assert "raise fs.inotify.max_user_instances" in event["reason"]
        running.write_in_place(SECOND)
        poll(lambda: wired(a, c))
        assert cut(a, b)
    running.wait_event("config.watched")
    assert len(running.events("config.unwatched")) == 1
    running.stop()


def test_a_stopped_daemon_takes_up_what_changed_meanwhile(lab: Lab) -> None:
    """kill -9, the file changed, restart: nothing stale forwards."""
    a, b, c, d = (lab.veth(x) for x in ("va", "vb", "vc", "vd"))
    running = Daemon(lab, {"va": "vb", "vc": "vd"}).start()
    running.wait_link("connected", "vc", "vd")
    running.kill()
    assert wired(a, b)
    running.write({"va": "vc"})
    running.start()
    poll(lambda: wired(a, c))
    assert cut(a, b)
    assert cut(c, d)
    assert lab.xdp("vb") == lab.xdp("vd") == 0
    running.stop()
    assert lab.xdp("va") == lab.xdp("vc") == 0
