"""What of a containerlab topology becomes a wiring, and what is said of the rest."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.main import main
from xconnectd.config.containerlab import Imported, expanded, imported
from xconnectd.config.parser import parse
from xconnectd.errors import ConfigError
from xconnectd.model import Link, Node

NODES = """\
  nodes:
    l1: {kind: linux}
    l2:
    srl: {kind: nokia_srlinux}
    csr: {group: routers}
    br: {kind: bridge}
    ovs: {kind: ovs-bridge}
    outside: {kind: ext-container}
    own: {kind: host}
    hosted: {network-mode: host}
    joined: {network-mode: container:l1}
    far: {network-mode: container:pause}
    Sidecar: {kind: shared}
  kinds: {linux: {image: alpine}, shared: {network-mode: container:l2}}
  groups: {routers: {kind: cisco_csr1000v}}
  defaults: {kind: linux}
"""


def taken(links: str, top: str = "name: lab\n") -> Imported:
    return imported(f"{top}topology:\n{NODES}  links:\n{links}".encode(), "f")


def wired(found: Imported) -> tuple[Link, ...]:
    wiring = parse(found.text, "text")
    assert wiring.warnings == (), "an entry of `nodes` that no link needs"
    return wiring.links


LINKS = {
    'endpoints: ["l1:eth1", "l2:eth1"]': "  l1:eth1: l2:eth1",
    "{type: veth, endpoints: [{node: l1, interface: a}, {node: l2, interface: b}]}": "  l1:a: l2:b",
    "{type: Veth-Stitch, endpoints: [{node: l1, interface: a}, {node: l2, interface: b}]}":
        "  l1:a: l2:b",
    "endpoints: [srl:ethernet-1/3, srl:ethernet-2/1/4]": "  srl:e1-3: srl:e2-1-4",
    "{endpoints: [l1:a, l2:b], mtu: 1500}": "  l1:a: {to: l2:b, mtu: 1500}",
    "{endpoints: [l1:a, l2:b], mtu: 9500}": "  l1:a: l2:b",
    "{endpoints: [l1:a, l2:b], mtu: 0, vars: {a: {b: c}}}": "  l1:a: l2:b",
    "{endpoints: [l1:a, l2:b], labels: {rack: no 5, '': x, y: \"\\n\"}}":
        '  l1:a: {to: l2:b, labels: {rack: "no 5"}}',
    "{type: host, host-interface: h0, endpoint: {node: l1, interface: a}}": "  l1:a: h0",
    "endpoints: [Host:h0, own:h1]": "  h0: h1",
    "{endpoints: [hosted:h2, host:h1], mtu: 1500}": "  h2: h1",
    "endpoints: [outside:é, 'l1:#']": '  "outside:é": "l1:#"',
}  # fmt: skip


@pytest.mark.parametrize(("link", "line"), LINKS.items())
def test_links_with_two_ends_here_are_taken(link: str, line: str) -> None:
    found = taken(f"    - {link}\n")
    assert found.text.splitlines()[-1] == line
    assert found.left_out == ()
    assert len(wired(found)) == 1


LEFT_OUT = {
    "endpoints: [l1:a, br:p]": "l1:a to br:p: a port of a bridge is no end (a veth whose",
    "endpoints: [ovs:p, l1:a]": "ovs:p to l1:a: a port of a bridge is no end",
    "endpoints: [l1:a, macvlan:eno1]": "l1:a to macvlan:eno1: a macvlan shares",
    "{type: macvlan, host-interface: eno1, endpoint: {node: l1, interface: a}}":
        "l1:a to macvlan:eno1: a macvlan shares",
    "endpoints: [l1:a, mgmt-net:m]": "l1:a to mgmt-net:m: the management network",
    "{type: vxlan, remote: 192.0.2.1, endpoint: {node: l1, interface: a}}":
        "l1:a to vxlan:192.0.2.1: its other end is on another host",
    "{type: dummy, endpoint: {node: l1, interface: a}}": "l1:a: it has one end",
    "{type: new, endpoints: [l1:a, l2:b]}": "l1:a to l2:b: links of type `new` are not known",
    "endpoints: [l1:1/1/c1, l2:b]": "`1/1/c1` cannot be the name of an interface (use its name in",
    "endpoints: [l1:abcdefghijklmnop, l2:b]": "`abcdefghijklmnop` cannot be the name",
    "endpoints: [l1:a, 'host:a:b']": "`a:b` cannot be the name",
    "endpoints: [l1:a, l2:éééééééé]": "`éééééééé` cannot be the name",
    "endpoints: [l1:a, l1:a]": "both ends are one interface",
    "endpoints: [l1:x, l2:b]": "`l1:x` is in the link of line 20",
}  # fmt: skip


@pytest.mark.parametrize(("link", "words"), LEFT_OUT.items())
def test_others_are_left_out_and_named(link: str, words: str) -> None:
    """On standard error, and in a comment where they would stand."""
    found = taken(f"    - endpoints: [l1:x, l2:x]\n    - {link}\n")
    (problem,) = found.left_out
    assert (problem.line, problem.column) == (21, 7)
    assert words in str(problem)
    assert found.text.splitlines()[-1] == f"  # line 21, {problem.text}"
    assert len(wired(found)) == 1


CONTAINERS = {
    ("name: lab\n", "l1"): "clab-lab-l1",
    ("name: lab\nprefix:\n", "l1"): "clab-lab-l1",
    ("name: lab\nprefix: ''\n", "l1"): "l1",
    ("name: lab\nprefix: __lab-name\n", "l1"): "lab-l1",
    ("name: lab\nprefix: mine\n", "l1"): "mine-lab-l1",
    ("name: lab\n", "outside"): "outside",
    ("name: lab\n", "joined"): "clab-lab-l1",
    ("name: lab\n", "far"): "pause",
    ("name: lab\n", "Sidecar"): "clab-lab-l2",
}


@pytest.mark.parametrize(("top", "node"), CONTAINERS)
def test_containers_are_called_as_containerlab_calls_them(top: str, node: str) -> None:
    (link,) = wired(taken(f"    - endpoints: [{node}:a, host:b]\n", top))
    assert (link.a.node, link.mtu) == (Node(node, container=CONTAINERS[top, node]), 9500)


NOTES = {
    "endpoints: [csr:Gi2, l1:a]": ["csr:Gi2 is taken as it is written (if it has another name in"],
    "endpoints: [csr:eth2, srl:e1-1]": [],
    "endpoints: [l1:a, host:h]": ["host:h has to be on this host (nothing makes it"],
    "{type: veth, endpoints: [{node: l1, interface: a, mac: x}, {node: l2, interface: b}]}": [
        "mac of l1:a: not kept (an end that is made has a MAC of its own"
    ],
    "{endpoints: [l1:a, l2:b], ipv4: [192.0.2.1/24], ipv6: []}": [
        "ipv4, ipv6 of l1:a: not kept", "ipv4, ipv6 of l2:b: not kept"
    ],
}  # fmt: skip


@pytest.mark.parametrize(("link", "words"), NOTES.items())
def test_what_is_otherwise_here_is_told(link: str, words: list[str]) -> None:
    notes = [str(note) for note in taken(f"    - {link}\n").notes]
    assert len(notes) == len(words)
    assert all(word in note for word, note in zip(words, notes, strict=True))


GOOD_TOP = "name: lab\ntopology: {nodes: {a: , b: }, links: "
BAD = {
    "": "1:1: there is no `topology:` (is it a containerlab file?)",
    "- a": "1:1: here is a list in place of a mapping",
    "name: [x]\ntopology: {}": "1:7: here is a list in place of a text",
    "topology: {links: []}": "1:1: there is no `name:` (containers are named after it)",
    f"{GOOD_TOP}text}}": "2:38: `links` is a list, not `text`",
    f"{GOOD_TOP}[text]}}": "2:39: here is `text` in place of a mapping",
    f"{GOOD_TOP}[{{}}]}}": "2:39: a link has two `endpoints` (`endpoints: [",
    f"{GOOD_TOP}[{{endpoints: [a:b]}}]}}": "2:51: a link has two `endpoints`",
    f"{GOOD_TOP}[{{endpoints: [a, b:c]}}]}}": "2:52: an endpoint is a node and an interface, not",
    f"{GOOD_TOP}[{{endpoints: [{{node: a}}, b:c]}}]}}": "2:52: an endpoint is a node and an",
    f"{GOOD_TOP}[{{type: host}}]}}": "2:39: a link of type `host` has an `endpoint`",
    f"{GOOD_TOP}[{{endpoints: [a:b, z:c]}}]}}": "2:57: there is no node `z`",
    f"{GOOD_TOP}[{{endpoints: [a:b, b:c], mtu: 9}}]}}": "2:68: `mtu` is a number from 68 to 65535",
    f"{GOOD_TOP.replace('lab', 'a b')}[{{endpoints: [a:b, b:c]}}]}}":
        "2:52: `clab-a b-a` cannot be the name of a container (`name` and `prefix`",
}  # fmt: skip


@pytest.mark.parametrize(("text", "words"), BAD.items())
def test_no_topology(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        imported(text.encode(), "f")
    assert f"f:{words}" in str(caught.value.problems[0])


@pytest.mark.parametrize("links", ["", " []", "\n    - endpoints: [l1:a, br:b]"])
def test_no_link_is_no_wiring(links: str) -> None:
    """`links: {}` would disconnect everything."""
    assert imported(f"name: lab\ntopology:\n{NODES}  links:{links}".encode(), "f").text == ""


VARIABLES = {
    "${A} $A": "a a",
    "${NONE} $NONE $": "${NONE} $NONE $",
    "${NONE:=x} ${NONE-y} ${A:-x} ${A=x}": "x y a a",
    "${EMPTY:=x} ${EMPTY=x}": "x ",
    "${A+x} ${A:+x} ${NONE+x}${EMPTY:+x}": "x x ",
    "$$A $5": "$A $5",
    'prefix: ${NONE:=""}': 'prefix: ""',
}


@pytest.mark.parametrize("text", VARIABLES)
def test_environment_variables_stand_where_containerlab_has_them(text: str) -> None:
    assert expanded(text.encode(), {"A": "a", "EMPTY": ""}).decode() == VARIABLES[text]


_WORD = st.text(st.sampled_from("abel1:/-_.#'\"é{[ \t\u2028"), max_size=17) | st.text(
    "éa", max_size=17
)
_NODE = st.sampled_from(["l1", "l2", "srl", "br", "host", "own", "joined", "macvlan"])


@given(st.lists(st.tuples(_NODE, _WORD, _NODE, _WORD, _WORD), max_size=4))
def test_what_it_prints_passes_check(links: list[tuple[str, str, str, str, str]]) -> None:
    def quoted(text: str) -> str:
        return "'" + text.replace("'", "''") + "'"

    lines = "".join(
        f"    - endpoints: [{quoted(f'{a}:{b}')}, {quoted(f'{c}:{d}')}]\n"
        f"      labels: {{x: {quoted(e)}}}\n"
        for a, b, c, d, e in links
    )
    try:
        found = taken(lines)
    except ConfigError:
        return
    if found.text:
        assert len(wired(found)) + len(found.left_out) == len(links)


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wiring to standard output, everything else to standard error."""
    file = tmp_path / "lab.clab.yml"
    text = f"name: ${{LAB:=lab}}\ntopology:\n{NODES}  links:\n    - endpoints: [l1:a, l2:b]\n"
    file.write_text(text + "    - endpoints: [l1:c, br:d]\n")
    assert main(["import", str(file)]) == Exit.DONE
    out, err = capsys.readouterr()
    assert parse(out, "f").links
    assert err.startswith(f"{file}:21:7: left out: l1:c to br:d: ")
    monkeypatch.setenv("LAB", "other")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert main(["import", "-"]) == Exit.DONE
    assert "clab-other-l1" in capsys.readouterr().out
    file.write_text("name: lab\ntopology: {}\n")
    assert main(["import", str(file)]) == Exit.FAILED
    assert capsys.readouterr() == ("", f"xconnectd: {file}: no link of it can be one here\n")
    file.write_text("topology: [\n")
    assert main(["import", str(file)]) == Exit.BAD_CONFIG
