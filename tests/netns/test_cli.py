"""The commands beside a daemon and without one: exit codes, keys; nothing changed by looking."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from .lab import PATIENCE, REPO, Lab, in_public, poll
from .service import Daemon
from .test_config_changes import cut, wired
from .test_invariants import _settled
from .traffic import Stream

Start = Callable[..., Daemon]
PAIR = {"va": "vb"}
LINK_KEYS = {"link", "state", "reason", "mode", "mode_reason", "warnings", "description", "labels"}
LINK_KEYS |= {"a", "b"}
END_KEYS = {"name", "ifindex", "attached", "up", "carrier", "mtu", "far_mtu"}


@pytest.mark.parametrize("command", ["status", "plan", "schema", "--help"])
def test_a_reader_that_has_seen_enough_is_no_failure(lab: Lab, daemon: Start, command: str) -> None:
    lab.veth("va"), lab.veth("vb")
    done = _cut_short(daemon(PAIR), *command.split())
    assert (done.returncode, done.stderr) == (0, "")


def test_a_verdict_that_nobody_reads_is_given_all_the_same(lab: Lab) -> None:
    """What is printed at the end of a command does not hide how it ended."""
    running = Daemon(lab, PAIR)
    assert _cut_short(running, "status", "--check").returncode == 1
    assert _cut_short(running, "plan", "nosuch.yaml").returncode == 78
    assert _cut_short(running, "status", "--sort", "x").returncode == 2


def _cut_short(running: Daemon, *args: str) -> subprocess.CompletedProcess[str]:
    """A command whose output nobody reads, not even its beginning."""
    script = '"$@" | true; exit "${PIPESTATUS[0]}"'
    return subprocess.run(
        ["bash", "-c", script, "bash", *running._command(*args)],
        **running._surroundings(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


# ---------------------------------------------------------------------- status


def test_status_has_the_keys_of_the_contract(lab: Lab, daemon: Start) -> None:
    for end in ("va", "vb", "vc"):
        lab.veth(end, mtu=1400)
    text = (
        "links:\n  va: {to: vb, description: leaf1 to spine1, labels: {lab: demo}}\n  vc: nosuch\n"
    )
    running = daemon(text)
    running.wait_link("connected", "va", "vb")
    status = running.status()
    assert status["daemon"] == {**status["daemon"], "running": True, "pid": running.pid}
    assert status["config"]["state"] == "loaded"
    assert status["config"]["path"] == str(running.config)
    assert status["config"]["problems"] == []
    assert status["config"]["hash"]
    for link in status["links"]:
        assert set(link) >= LINK_KEYS
        assert set(link["a"]) >= END_KEYS
        assert set(link["b"]) >= END_KEYS
    good, waiting = (running.link(*ends) for ends in (("va", "vb"), ("vc", "nosuch")))
    assert good["description"] == "leaf1 to spine1"
    assert good["labels"] == {"lab": "demo"}
    assert good["a"]["far_mtu"] == good["b"]["far_mtu"] == 1400
    assert good["a"]["ifindex"] == lab.ifindex("va")
    assert all(good["a"][key] is True for key in ("attached", "up", "carrier"))
    assert waiting["state"] == "waiting"
    assert "nosuch" in waiting["reason"]
    assert waiting["b"]["attached"] is False


def test_status_counts_frames(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = daemon(PAIR)
    running.wait_link("connected", "va", "vb")
    before = json.dumps(running.link("va", "vb"))
    with Stream(a, b) as stream:
        poll(lambda: stream.forth.received > 100)
    assert json.dumps(running.link("va", "vb")) != before


@pytest.mark.parametrize("form", ["mermaid", "dot", "svg"])
def test_graph_draws_what_status_tells(lab: Lab, daemon: Start, form: str) -> None:
    far = lab.veth("va")
    lab.veth("vb")
    running = daemon({"va": "vb", "vc": "nosuch"})
    running.wait_link("connected", "va", "vb")
    end = running.link("va", "vb")["a"]
    assert (end["far_name"], end["far_nsid"] is None) == ("eth0", False)
    running.kill()
    drawn = running.cli("graph", "--format", form)
    assert (drawn.returncode, drawn.stderr) == (0, "")
    for text in ("va", "vb", f"eth0 in {far.namespace}", "generic · idle", "nosuch", "waiting"):
        assert text in drawn.stdout.replace("&#45;", "-")


def test_a_graph_that_cannot_be_drawn_names_the_package(
    lab: Lab, daemon: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = daemon("links: {}")
    bare = lab.directory / "bin"
    bare.mkdir()
    (bare / "nsenter").symlink_to("/usr/bin/nsenter")
    monkeypatch.setenv("PATH", str(bare))
    drawn = running.cli("graph", "--format", "svg")
    assert (drawn.returncode, drawn.stdout) == (1, "")
    assert "install the package graphviz" in drawn.stderr


def test_status_for_people(lab: Lab, daemon: Start) -> None:
    lab.veth("va"), lab.veth("vb")
    running = daemon(PAIR)
    running.wait_link("connected", "va", "vb")
    done = running.cli("status")
    assert done.returncode == 0
    for word in ("va", "vb", "connected", "generic"):
        assert word in done.stdout


def test_status_is_right_when_the_daemon_is_dead(lab: Lab) -> None:
    lab.veth("va"), lab.veth("vb")
    running = Daemon(lab, PAIR).start()
    running.wait_link("connected", "va", "vb")
    running.kill()
    status = running.status()
    assert status["daemon"]["running"] is False
    assert running.link("va", "vb")["state"] == "connected"
    assert running.cli("status", "--check").returncode == 0
    lab.ip("link", "set", "va", "xdpgeneric", "off")
    assert running.link("va", "vb")["state"] != "connected"
    assert running.link("va", "vb")["a"]["attached"] is False
    assert running.cli("status", "--check").returncode == 1
    running.write("links:\n  va: [\n")
    assert running.status()["config"]["state"] == "rejected"


def test_status_check(lab: Lab, daemon: Start) -> None:
    lab.veth("va"), lab.veth("vb")
    running = daemon(PAIR)
    running.wait_link("connected", "va", "vb")
    assert running.cli("status", "--check").returncode == 0
    running.write(PAIR | {"vc": "vd"})
    running.wait_link("waiting", "vc", "vd")
    assert running.cli("status", "--check").returncode == 1
    running.write("links: {va: vb, vc: {to: vd, enabled: false}}\n")
    poll(lambda: running.cli("status", "--check").returncode == 0, what="only enabled links count")


def test_status_of_some_links(lab: Lab, daemon: Start) -> None:
    for end in ("va", "vb", "vc"):
        lab.veth(end)
    running = daemon(PAIR | {"vc": "vd"})
    running.wait_link("connected", "va", "vb")
    told = running.cli("status", "vb:va", "--json", "--check")
    assert [each["link"] for each in json.loads(told.stdout)["links"]] == ["va:vb"]
    assert told.returncode == 0, "the other link is not asked for"
    assert running.cli("status", "--check", "va", "vc").returncode == 1
    for command in ("status", "test"):
        absent = running.cli(command, "vx")
        line = f"no link vx in {running.config}, which has 2 links"
        assert (absent.returncode, line in absent.stderr + absent.stdout) == (1, True)


def test_a_daemon_that_is_stopped_is_not_waited_for(daemon: Start) -> None:
    running = daemon(PAIR)
    running.signal(signal.SIGSTOP)
    began = time.monotonic()
    refused = running.cli("reload")
    assert time.monotonic() - began < 30, "the daemon's own answer may take 60"
    assert refused.returncode == 1
    assert f"pid {running.pid}, is stopped: kill -CONT {running.pid}" in refused.stderr
    assert running.status()["daemon"] == {"running": True, "pid": running.pid, "answers": False}
    assert f"daemon: pid {running.pid} does not answer" in running.cli("status").stdout
    running.signal(signal.SIGCONT)
    assert running.cli("reload").returncode == 0
    assert running.status()["daemon"]["answers"] is True


# ---------------------------------------------------------------------- wait


def test_wait(lab: Lab, daemon: Start) -> None:
    lab.veth("va"), lab.veth("vb")
    running = daemon(PAIR | {"vc": "vd"})
    running.wait_link("connected", "va", "vb")
    link = running.link("va", "vb")["link"]
    assert running.cli("wait", "--timeout", "30", link).returncode == 0
    late = running.cli("wait", "--timeout", "0.3")
    assert late.returncode == 1
    assert "vc" in late.stdout + late.stderr
    lab.veth("vc"), lab.veth("vd")
    assert running.cli("wait", "--timeout", "30").returncode == 0


@pytest.mark.parametrize(
    ("text", "state", "problem"),
    [
        (None, "missing", "1:1: there is no such file (create it"),
        ("links: {va: }\n", "rejected", "1:"),
    ],
)
def test_what_is_wrong_with_the_file_is_said_where_a_link_is_missed(
    lab: Lab, text: str | None, state: str, problem: str
) -> None:
    running = Daemon(lab, text)
    for args in ((), ("va",)):
        late = running.cli("wait", "--timeout", "0", "-c", str(running.config), *args)
        assert late.returncode == 1
        assert f"{running.config}: {state}\n{running.config}:{problem}" in late.stdout
    running.start()
    captured = running.cli("capture", "va")
    assert captured.returncode == 1
    told = f"no link va in {running.config}: it is {state}\n{running.config}:{problem}"
    assert told in captured.stderr


# ---------------------------------------------------------------------- plan


def _plan(running: Daemon) -> list[dict[str, Any]]:
    done = running.cli("plan", str(running.config), "--json")
    actions: list[dict[str, Any]] = json.loads(done.stdout)
    assert done.returncode == (10 if actions else 0), done.stderr
    return actions


def test_plan_changes_nothing_and_tells_what_would_change(lab: Lab) -> None:
    a, b, c = (lab.veth(x) for x in ("va", "vb", "vc"))
    running = Daemon(lab, PAIR)
    before = _settled(lab)
    for _ in range(2):
        actions = _plan(running)
        assert {"va", "vb"} <= {x["interface"] for x in actions}
        assert all(set(x) >= {"action", "link", "interface", "reason"} for x in actions)
        assert all(x["reason"] for x in actions)
    assert running.cli("plan", str(running.config)).returncode == 10
    assert lab.snapshot() == before
    running.start()
    assert _plan(running) == []
    running.kill()
    assert _plan(running) == []
    running.write({"va": "vc"})
    assert _plan(running)
    assert wired(a, b)
    running.start()
    poll(lambda: wired(a, c))
    running.stop()


def test_plan_of_a_bad_file_exits_78(lab: Lab) -> None:
    running = Daemon(lab, "links: [\n")
    assert running.cli("plan", str(running.config)).returncode == 78


# ---------------------------------------------------------------------- detach


def test_detach_takes_off_what_a_dead_daemon_left(lab: Lab) -> None:
    a, b, c, d = (lab.veth(x) for x in ("va", "vb", "vc", "vd"))
    foreign = lab.veth("ve")
    program = lab.foreign_xdp("ve")
    running = Daemon(lab, PAIR | {"vc": "vd"}).start()
    running.wait_link("connected", "vc", "vd")
    alive = running.cli("detach", "--all")
    assert alive.returncode == 1
    assert "file" in alive.stdout + alive.stderr
    assert wired(a, b)
    running.kill()
    assert running.cli("detach", "va").returncode == 0
    assert cut(a, b)
    assert lab.xdp("va") == 0
    assert wired(c, d)
    assert running.cli("detach", "--all").returncode == 0
    assert [lab.xdp(end) for end in ("va", "vb", "vc", "vd")] == [0] * 4
    assert lab.xdp(foreign.end) == program
    assert running.cli("detach", "--all").returncode == 0, "nothing to do is no failure"


def test_detach_names_what_is_not_ours(lab: Lab) -> None:
    a, b, c, d = (lab.veth(x) for x in ("va", "vb", "vc", "vd"))
    lab.veth("ve")
    running = Daemon(lab, PAIR | {"vc": "vd"}).start()
    running.wait_link("connected", "vc", "vd")
    running.kill()
    done = running.cli("detach", "nosuch", "va", "ve")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"xconnectd: {name}: nothing of xconnectd is there; ours: va, vb, vc, vd"
        for name in ("nosuch", "ve")
    ]
    assert cut(a, b), "the others are still detached"
    assert wired(c, d)
    lab.ip("link", "property", "add", "dev", "vc", "altname", "uplink-to-the-other-rack")
    assert running.cli("detach", "uplink-to-the-other-rack").returncode == 0
    assert cut(c, d)
    assert running.cli("detach", "vd").stderr.endswith("ours: none\n")


# ---------------------------------------------------------------------- starting


def test_a_daemon_that_may_not_exits_3_and_says_which_capability(lab: Lab) -> None:
    running = Daemon(lab, PAIR)
    done = lab.run(
        *("setpriv", "--bounding-set=-all", "--inh-caps=-all"),
        *("env", f"PYTHONPATH={REPO}", f"XCONNECTD_STATE_DIR={running.state}"),
        *(sys.executable, "-m", "xconnectd", "run", "-c", str(running.config)),
        check=False,
    )
    assert done.returncode == 3
    assert "CAP_" in done.stderr


@pytest.mark.parametrize(("words", "code"), [("run -c", 3), ("plan", 1), ("detach --all", 1)])
def test_who_forgot_sudo_is_told(lab: Lab, daemon: Start, words: str, code: int) -> None:
    running = daemon(PAIR)
    running.kill()
    arguments = [*words.split(), *([str(running.config)] if "all" not in words else [])]
    done = lab.run(
        *in_public(
            *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
            *("env", f"XCONNECTD_STATE_DIR={running.state}"),
            *(sys.executable, "-m", "xconnectd", *arguments),
        ),
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert f"only root may: sudo xconnectd {' '.join(arguments)}" in done.stderr
    assert "Errno" not in done.stderr


def test_results_on_stdout_and_logs_on_stderr(lab: Lab, daemon: Start) -> None:
    lab.veth("va"), lab.veth("vb")
    running = daemon(PAIR)
    running.wait_link("connected", "va", "vb")
    done = running.cli("status", "--json")
    json.loads(done.stdout)
    assert done.stderr == ""
    for line in running.text().splitlines():
        event = json.loads(line)
        assert {"event", "level", "timestamp"} <= set(event)
