"""``status`` for people: what others may have named is shown, and obeyed by no terminal."""

from __future__ import annotations

from typing import Any

from builders import crossing_report, end_report, link_report, report

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


def of_peer(**facts: Any) -> list[str]:
    told = report(crossing_report(**facts))
    return [line.strip() for line in text.lines(told) if "tunnel" in line or " h2: " in line]


def test_the_other_host_of_a_link() -> None:
    way = "tunnel by vxlan-77 to 198.51.100.12, VNI 77, UDP port 14789"
    assert of_peer() == [
        f"{way}: whole up to an MTU of 1450, what is longer is fragmented",
        "h2: connected there, heard 0.2s ago, round trip 0.31 ms, 5 frames handed on there",
    ]
    assert of_peer(mtu=None)[0] == f"{way}: no route"
    assert of_peer(address="2001:db8::12")[0].endswith("what is longer is lost")
    strange = document.Keepalives(unverified=3)
    wrong, keys = of_peer(digest="99aabbcc", keepalives=strange)[1:]
    assert "its wiring of this link has the hash 99aabbcc, here 1a2b3c4d" in wrong
    assert keys == "h2: 3 keepalives did not verify: is hosts_key the same there?"
    down = of_peer(state="down", cause="eth0 in leaf is down", dropped=2)[1]
    assert down.startswith("h2: down there (eth0 in leaf is down), heard")
    assert down.endswith("5 frames handed on there and 2 dropped")
    assert of_peer(alive=None)[1] == "h2: not known how it is: nobody here listens"
    assert of_peer(alive=False, last_heard_age_s=None)[1] == "h2: its daemon has not been heard"
    assert len(of_peer(host="")) == 1, "of a device that is not ours nothing is heard"


def test_large_numbers_are_brief_and_blocked_host_frames_are_told_where_there_are_some() -> None:
    busy = end_report("a", frames=31_415_926, bytes=2_971_887_482, dropped={"host_egress": 3})
    to_b, to_a = (x for x in text.lines(report(link_report(busy, "b"))) if " → " in x)
    assert "a → b: 31.4M frames, 2.97G bytes, " in to_b
    assert to_b.endswith("; 3 host frames blocked (expected)")
    assert "host frame" not in to_a
