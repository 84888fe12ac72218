"""The wiring as a picture: every link in it, and no name that breaks the format."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
from builders import crossing_report, report
from builders import end_report as end
from builders import link_report as link

from xconnectd.formatting import printable
from xconnectd.model import Endpoint, Node, State
from xconnectd.model import Link as Wanted
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
    """Of an interface, of a node and of an interface in a node."""
    ends = end(name), end("x:x")._replace(node=name, interface=name)
    text = draw("mermaid", link(*ends))
    labels = re.findall(r'^  (?:  n1|n0|subgraph b0)\["(.*)"\]$', text, re.MULTILINE)
    assert len(labels) == 3
    assert all(re.fullmatch(r"(\w|[ .-]|#\d+;)+", each) for each in labels), "harmless ones alone"
    text += draw("dot", link(*ends))
    (label,) = re.findall(r'^  n0 \[label="(.*)"\]$', text, re.MULTILINE)
    assert re.fullmatch(r'([^"\\]|\\["\\])*', label), "quotes are closed"
    assert not re.search(r"&(?!amp;|lt;|gt;)", label)
    (table,) = re.findall(r"^  b0 \[shape=plain, label=<(.*)>\]$", text, re.MULTILINE)
    assert [*ET.fromstring(table).itertext()] == [printable(name)] * 2
    text.encode()


@pytest.mark.parametrize("form", graph.FORMATS)
def test_a_node_is_a_box_with_its_interfaces_as_ports(form: str) -> None:
    """So is a namespace with far ends of plain veths, under the name that it has in the file."""
    text = draw(
        form,
        link(end("spine:eth1", far_nsid=3), "nic"),
        link(end("spine:eth2", ifindex=None), end("va", far_nsid=4, far_name="eth0")),
        link(end("vb", far_nsid=3, far_name="eth3"), end("vc", far_nsid=9, far_name="eth0")),
        **{"clab-spine": 3, "leaf": 4},
    )
    boxes = {
        "spine": {"n0": "eth1", "n2": "eth2", "n4": "eth3<br/>vb"},
        "leaf": {"n3": "eth0<br/>va"},
        "namespace 9": {"n5": "eth0<br/>vc"},
    }
    if form == "mermaid":
        found = re.findall(r'^  subgraph \w+\["(.*)"\]\n((?:    .*\n)+)  end$', text, re.MULTILINE)
        port = re.compile(r'(\w+)\["(.*)"\]')
        links = re.findall(r"(\w+) <-->.* (\w+)$", text, re.MULTILINE)
    else:
        found = re.findall(r"<b>(.*?)</b></td></tr>(.*)</table>", text)
        port = re.compile(r'<td port="(\w+)".*?>(.*?)</td>')
        links = re.findall(r"(\w+) -- .*?(\w+) \[", text)
    assert {name: dict(port.findall(ports)) for name, ports in found} == boxes
    assert links == [("n0", "n1"), ("n2", "n3"), ("n4", "n5")]
    assert re.search(r'class n2 missing|port="n2" style="dashed"', text)


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


@pytest.mark.parametrize(
    ("form", "arrow"), [("mermaid", ' n0 -->|"generic · → 8 bit/s"| n1'), ("dot", "dir=forward")]
)
def test_a_link_that_leads_one_way_is_an_arrow(form: str, arrow: str) -> None:
    one = link(end("a", bits_per_s=8), "b")
    assert arrow in draw(form, one._replace(one_way=True))
    assert arrow not in draw(form, one)
    assert "swap-macs" in draw(form, one._replace(rewrite="swap-macs"))


@pytest.mark.parametrize("form", graph.FORMATS)
def test_an_end_that_leads_nowhere_else_stands_by_itself_and_a_missing_one_is_dashed(
    form: str,
) -> None:
    text = draw(form, link(end("a", far_name="eth0"), "b"))
    assert ("eth0" in text, "b0" in text, "dash" in text) == (True, False, False)
    text = draw(form, link("a", end("gone", ifindex=None)))
    assert ("gone" in text, "dash" in text) == (True, True)


ELSEWHERE = Wanted(Endpoint("h2/leaf:b2", Node("leaf"), host="h2"), Endpoint("h3/tap0", host="h3"))


@pytest.mark.parametrize("form", graph.FORMATS)
def test_hosts_are_boxes_around_nodes_also_with_links_that_are_not_ours(form: str) -> None:
    """Of those nothing is known here, and so nothing is said to be missing."""
    told = report(crossing_report(), link("x", "y"))
    text = graph.draw(told, form, {}, [ELSEWHERE])
    if form == "mermaid":
        outer = re.findall(r'^  subgraph \w+\["(.*)"\]\n((?:    .*\n)+)  end$', text, re.MULTILINE)
        inner = re.compile(r'subgraph \w+\["(.*)"\]\n((?:      .*\n)+)    end')
        name = re.compile(r'n\d+\["(.*)"\]')
        lines = re.findall(r"(n\d+) <-->.* (n\d+)$", text, re.MULTILINE)
    else:
        outer = re.findall(r'cluster_\d+ {\n    graph \[label="(\w+)".*\n((?:    .*\n)+)  }', text)
        inner = re.compile(r"<b>(.*?)</b></td></tr>(.*)</table>")
        name = re.compile(r'n\d+(?: \[label=|">)"?(.*?)(?:"|</td>)')
        lines = re.findall(r"(n\d+) -- .*?(n\d+) \[", text)
    found = {
        host: (
            {node: name.findall(ports) for node, ports in inner.findall(body)},
            name.findall(inner.sub("", body)),
        )
        for host, body in outer
    }
    assert found == {
        "h1": ({}, ["a"]),
        "h2": ({"leaf": ["b", "b2"]}, []),
        "h3": ({}, ["tap0"]),
    }
    assert lines == [("n0", "n1"), ("n2", "n3"), ("n4", "n5")]
    assert "0.3 ms" in text
    assert re.search(rf"of other hosts(.|\n)*{graph.COLOURS[None]}", text)
    assert "dash" not in text


@pytest.mark.parametrize(
    ("form", "label"),
    [
        (
            "mermaid",
            '|"generic · idle<br/>#8594; delay 10ms#44; loss 1#37;<br/>#8592; rate 1mbit"|',
        ),
        ("dot", '[label="generic · idle\\n→ delay 10ms, loss 1%\\n← rate 1mbit",'),
    ],
)
def test_what_impairs_a_link_stands_on_its_line(form: str, label: str) -> None:
    impair = {"forward": {"delay": "10ms", "loss": "1%"}, "reverse": {"rate": "1mbit"}}
    assert label in draw(form, link("a", "b")._replace(impair=impair))
