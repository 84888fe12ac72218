"""``status`` for people: what others may have named is shown, and obeyed by no terminal."""

from __future__ import annotations

from builders import end_report, link_report, report

from xconnectd.status import document, text
from xconnectd.status.document import StatusDocument

HOSTILE = "x\x1b[2J\udcff"


def hostile() -> StatusDocument:
    """Every text in it that may hold a name is hostile."""
    lost = document.Drop("a", "b", "other", 1, HOSTILE, HOSTILE)
    texts = dict.fromkeys(("reason", "mode_reason", "description"), HOSTILE)
    end = end_report(HOSTILE, node=HOSTILE, host_interface=HOSTILE)
    link = link_report(end, "b", "failed", **texts, drops=(lost,), warnings=(HOSTILE,))
    moved = (document.Moved(HOSTILE, 5, HOSTILE),)
    return report(link._replace(retry_in_s=9.0), guard_unavailable=HOSTILE, moved_netns=moved)


def test_nothing_that_a_terminal_would_obey_or_that_is_no_text() -> None:
    shown = list(text.lines(hostile()))
    assert all(line.isprintable() for line in shown)
    assert sum(line.count("x�[2J�") for line in shown) == 14
    "\n".join(shown).encode()


def test_frames_that_got_past_the_hooks_are_an_error_and_a_loopback_plug_has_one_way() -> None:
    told = report(link_report("a", end_report("b", passed_to_host=2)), link_report("lo", "lo"))
    shown = list(text.lines(told))
    (line,) = (line for line in shown if "error: " in line)
    assert line.startswith("    error: 2 frames that came in by b bypassed all our hooks")
    assert sum("lo → lo" in line for line in shown) == 1


def test_large_numbers_are_brief_and_blocked_host_frames_are_told_where_there_are_some() -> None:
    busy = end_report("a", frames=31_415_926, bytes=2_971_887_482, dropped={"host_egress": 3})
    to_b, to_a = (x for x in text.lines(report(link_report(busy, "b"))) if " → " in x)
    assert "a → b: 31.4M frames, 2.97G bytes, " in to_b
    assert to_b.endswith("; 3 host frames blocked (expected)")
    assert "host frame" not in to_a
