"""An event as a line on a terminal: link and reason first, and what else fits."""

from __future__ import annotations

from typing import Any

from xconnectd.event_line import event_line

AT = {"timestamp": "2026-11-21T20:53:07.675878Z", "level": "info"}
LINK = {"link": "vc:vd", "a": "vc", "b": "vd", "a_ifindex": 4, "b_ifindex": 5, "mode": "generic",
        "reason": "vd runs an XDP program that is not ours", "trigger": "config",
        "config_hash": "19824a93a949", "duration_ms": 8.16}  # fmt: skip


def line(event: str, **fields: Any) -> str:
    return event_line(AT | {"event": event} | fields, lambda text, _: text)


def test_link_and_reason_come_first_and_the_rest_as_it_fits() -> None:
    told = line("link.failed", **LINK)
    assert told[2:9:3] == "::" + " "
    assert told[9:].startswith(f"link.failed       vc:vd  {LINK['reason']}  mode=generic")
    assert len(told) <= 100
    reason = "because " * 30
    told = line("link.failed", link="a:b", reason=reason, mode="tc")
    assert told.endswith(f"a:b  {reason}"), "a reason is never cut"


def test_an_end_of_a_link_is_told_with_it() -> None:
    told = line("carrier.hidden", link="a:b", interface="a", reason="b is down", ifindex=4)
    assert told[9:] == "carrier.hidden    a:b at a  b is down  ifindex=4"


def test_what_is_of_no_link() -> None:
    """Each problem of a file is told at its place."""
    assert line("daemon.ready", pid=7)[9:].split() == ["daemon.ready", "pid=7"]
    told = line("config.loaded", path="/etc/x.yaml", links=2)
    assert told[9:] == "config.loaded     /etc/x.yaml  links=2"
    problems = ["/etc/x.yaml:2:3: one", "/etc/x.yaml:4:1: another"]
    told = line("config.rejected", path="/etc/x.yaml", problems=problems, reason="links stay")
    first, second = told.splitlines()
    assert first[9:] == "config.rejected   /etc/x.yaml:2:3: one  links stay"
    assert second.strip() == problems[1]


def test_the_level_is_a_colour() -> None:
    seen = []
    for level in ("info", "warning", "error"):
        event_line(AT | {"event": "x", "level": level}, lambda text, how: seen.append(how) or text)
    assert seen == ["green", "yellow", "red"]


def test_nothing_that_a_terminal_would_obey_and_a_traceback_stands_below() -> None:
    assert line("link.down", link="a\x1b[2J:b", reason="x\ny", mode="\x07").isprintable()
    told = line("pass.failed", exception="Traceback\n  x")
    assert told.split("\n")[1:] == ["Traceback", "  x"]
