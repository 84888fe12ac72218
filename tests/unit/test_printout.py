"""``status`` for people: what others may have named is shown, and obeyed by no terminal."""

from __future__ import annotations

from typing import Any

from xconnectd.status import text

HOSTILE = "x\x1b[2J\udcff"


def end(name: str) -> dict[str, Any]:
    rates = {"frames_per_s": None, "bits_per_s": None}
    return {"name": name, "frames": 0, "bytes": 0, "dropped": {"host_egress": 0}, **rates}


def report() -> dict[str, Any]:
    """Every text in it that may hold a name is hostile."""
    lost = {"from": "a", "to": "b", "frames": 1, "text": HOSTILE, "remedy": HOSTILE}
    texts = dict.fromkeys(("reason", "mode_reason", "description"), HOSTILE)
    link = {"a": end(HOSTILE), "b": end("b"), "state": "failed", "mode": "tc", **texts}
    return {
        "daemon": {"running": True, "answers": False, "pid": 7},
        "config": {"path": "x.yaml", "state": "loaded", "hash": "", "problems": []},
        "links": [link | {"retry_in_s": 9.0, "drops": [lost], "warnings": [HOSTILE]}],
        "drop_stats_unavailable": "",
        "guard_unavailable": HOSTILE,
        "moved_netns": [{"interface": HOSTILE, "remedy": HOSTILE}],
    }


def test_nothing_that_a_terminal_would_obey_or_that_is_no_text() -> None:
    shown = list(text.lines(report()))
    assert all(line.isprintable() for line in shown)
    assert sum(line.count("x�[2J�") for line in shown) == 12
    "\n".join(shown).encode()


def test_a_loopback_plug_has_one_way() -> None:
    plug = report()
    plug["links"][0] |= {"a": end("lo"), "b": end("lo")}
    assert sum("lo → lo" in line for line in text.lines(plug)) == 1


def test_frames_that_got_past_the_hooks_are_an_error() -> None:
    told = report()
    told["links"][0]["b"]["passed_to_host"] = 2
    (line,) = (line for line in text.lines(told) if "error: " in line)
    assert line.startswith("    error: 2 frames that came in by b skipped every hook")
