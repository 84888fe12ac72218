"""The wiring as a picture: every link in it, and no name that breaks the format."""

from __future__ import annotations

import re

import pytest
from builders import end_report as end
from builders import link_report as link
from builders import report

from xconnectd.model import State
from xconnectd.status import graph
from xconnectd.status.document import Link

ODD = ('a"b', "a<b>&amp;", "a\\nb", "a#35;b", "`a`", "a|b", "end", "a\x01b", "a\udcffb", "é—x")


def draw(form: str, *links: Link, **namespaces: int) -> str:
    return graph.draw(report(*links), form, {nsid: name for name, nsid in namespaces.items()})


@pytest.mark.parametrize("form", graph.FORMATS)
@pytest.mark.parametrize("count", [0, 1, 200])
def test_any_number_of_links(form: str, count: int) -> None:
    text = draw(form, *(link(f"a{n}", f"b{n}") for n in range(count)))
    names = {f"{side}{n}" for side in "ab" for n in range(count)}
    assert names <= set(re.findall(r"[ab]\d+", text))
    assert ("no links" in text) == (count == 0)
    assert len(text) < 50_000  # what Mermaid draws at most


@pytest.mark.parametrize("name", ODD)
def test_no_name_breaks_a_format(name: str) -> None:
    text = draw("mermaid", link(end(name), "b"))
    (label,) = re.findall(r'^  n0\["(.*)"\]$', text, re.MULTILINE)
    assert re.fullmatch(r"(\w|[ .-]|#\d+;)+", label), "harmless characters alone"
    text += draw("dot", link(end(name), "b"))
    (label,) = re.findall(r'^  n0 \[label="(.*)"\]$', text, re.MULTILINE)
    assert re.fullmatch(r'([^"\\]|\\["\\])*', label), "quotes are closed"
    assert not re.search(r"&(?!amp;|lt;|gt;)", label)
    text.encode()


@pytest.mark.parametrize("form", graph.FORMATS)
@pytest.mark.parametrize("state", State)
def test_the_state_is_a_colour_a_word_and_perhaps_a_dashed_line(state: State, form: str) -> None:
    text = draw(form, link("a", "b", str(state)))
    assert graph.COLOURS[state] in text
    assert state in text or state is State.CONNECTED
    assert ("dash" in text) == (state in (State.WAITING, State.DISABLED))
    text = draw("mermaid", *(link("a", "b", each) for each in ("down", "connected", "down")))
    assert f"linkStyle 0,2 stroke:{graph.COLOURS[State.DOWN]}\n" in text
    assert f"linkStyle 1 stroke:{graph.COLOURS[State.CONNECTED]}\n" in text


@pytest.mark.parametrize(
    ("form", "label"),
    [
        ("mermaid", '|"down<br/>no carrier is shown at a#58; eth1 in #91;x#93; is down"|'),
        ("dot", '[label="down\\nno carrier is shown at a: eth1 in [x] is down",'),
    ],
)
def test_the_line_of_a_link_that_is_down_says_why(form: str, label: str) -> None:
    reason = "no carrier is shown at a: eth1 in [x] is down"
    assert label in draw(form, link("a", "b", "down")._replace(reason=reason))


RATES = [
    (link(end("a", bits_per_s=1_234_567), "b"), "generic · → 1.23 Mbit/s · ← 0 bit/s"),
    (link("a", "b"), "generic · idle"),
    (link(end("a", bits_per_s=None), end("b", bits_per_s=None)), '"generic"'),
    (link(end("a", bits_per_s=5e9), end("a", bits_per_s=5e9)), "⟲ 5.00 Gbit/s"),
]


@pytest.mark.parametrize("form", graph.FORMATS)
@pytest.mark.parametrize(("one", "label"), RATES)
def test_rates_stand_on_the_line(form: str, one: Link, label: str) -> None:
    text = draw(form, one)
    assert label in text
    assert ("n1" in text) == (one.a.name != one.b.name), "a loopback is one interface"


@pytest.mark.parametrize("form", graph.FORMATS)
def test_far_ends_where_they_are_known_and_a_missing_end_is_dashed(form: str) -> None:
    far = {"far_name": "eth0"}
    known = link(end("a", far_nsid=3, **far), end("b", far_nsid=4, **far))
    text = draw(form, known, leaf1=3)
    assert "eth0 in leaf1" in text
    assert "eth0 in namespace 4" in text
    here = draw(form, link(end("a", **far), "b"))
    assert ("eth0" in here, "eth0 in" in here, "dash" in here) == (True, False, False)
    text = draw(form, link("a", end("gone", ifindex=None)))
    assert ("gone" in text, "dash" in text) == (True, True)
