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
    text = draw(form, *(link(end(f"a{n}"), end(f"b{n}")) for n in range(count)))
    names = {f"{side}{n}" for side in "ab" for n in range(count)}
    assert names <= set(re.findall(r"[ab]\d+", text))
    assert ("no links" in text) == (count == 0)
    assert len(text) < 50_000  # what Mermaid draws at most


@pytest.mark.parametrize("name", ODD)
def test_mermaid_sees_only_harmless_characters_of_a_name(name: str) -> None:
    text = draw("mermaid", link(end(name), end("b")))
    (label,) = re.findall(r'^  n0\["(.*)"\]$', text, re.MULTILINE)
    assert re.fullmatch(r"(\w|[ .-]|#\d+;)+", label)
    text.encode()


@pytest.mark.parametrize("name", ODD)
def test_graphviz_quotes_are_closed(name: str) -> None:
    text = draw("dot", link(end(name), end("b")))
    (label,) = re.findall(r'^  n0 \[label="(.*)"\]$', text, re.MULTILINE)
    assert re.fullmatch(r'([^"\\]|\\["\\])*', label)
    assert not re.search(r"&(?!amp;|lt;|gt;)", label)
    text.encode()


def test_the_state_is_a_colour_and_a_word() -> None:
    links = [link(end(f"a{n}"), end(f"b{n}"), str(state)) for n, state in enumerate(State)]
    for form in graph.FORMATS:
        text = draw(form, *links)
        for state in State:
            assert graph.COLOURS[state] in text
            assert state in text or state is State.CONNECTED


def test_mermaid_colours_the_right_lines() -> None:
    links = [link(end("a"), end("b"), state) for state in ("down", "connected", "down")]
    text = draw("mermaid", *links)
    assert f"linkStyle 0,2 stroke:{graph.COLOURS[State.DOWN]}\n" in text
    assert f"linkStyle 1 stroke:{graph.COLOURS[State.CONNECTED]}\n" in text


@pytest.mark.parametrize("form", graph.FORMATS)
def test_rates_stand_on_the_line(form: str) -> None:
    busy = link(end("a", bits_per_s=1_234_567), end("b", bits_per_s=0))
    assert "generic · → 1.23 Mbit/s · ← 0 bit/s" in draw(form, busy)
    assert "generic · idle" in draw(form, link(end("a"), end("b")))
    unknown = link(end("a", bits_per_s=None), end("b", bits_per_s=None))
    assert "generic" in draw(form, unknown)
    assert "idle" not in draw(form, unknown)


@pytest.mark.parametrize("form", graph.FORMATS)
def test_a_plug_is_one_interface(form: str) -> None:
    text = draw(form, link(end("a", bits_per_s=5e9), end("a", bits_per_s=5e9)))
    assert "⟲ 5.00 Gbit/s" in text
    assert "n1" not in text


@pytest.mark.parametrize("form", graph.FORMATS)
def test_far_ends_where_they_are_known(form: str) -> None:
    far = {"far_name": "eth0"}
    text = draw(form, link(end("a", far_nsid=3, **far), end("b", far_nsid=4, **far)), leaf1=3)
    assert "eth0 in leaf1" in text
    assert "eth0 in namespace 4" in text
    here = draw(form, link(end("a", **far), end("b")))
    assert "eth0" in here
    assert "eth0 in" not in here


@pytest.mark.parametrize("form", graph.FORMATS)
def test_a_missing_end_is_dashed(form: str) -> None:
    text = draw(form, link(end("a"), end("gone", ifindex=None), "waiting"))
    assert "gone" in text
    assert "dash" in text
