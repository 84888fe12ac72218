"""One link of a text is changed, and no line that is not about it."""

from __future__ import annotations

import difflib
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xconnectd.config import link_edit, parser
from xconnectd.config.link_edit import EditError

LAB = """\
# my lab
version: 1

defaults: { mode: auto }   # as people write
links:
    # the uplink
    va:   vb
    "vc": {to: vd, mode: tc}   # flow

    # a long one
    ve:
        # inside
        to: 'vf'

        labels: {lab: demo}

# the end
x-mine: [1,2]
"""
add, remove, move = link_edit.add, link_edit.remove, link_edit.move
disable, enable = (partial(link_edit.enable, enabled=each) for each in (False, True))
Edit = tuple[Any, ...]
"""What is done, and its words."""

FLOW = "{to: vd, mode: tc}   # flow"
BLOCK = ["ve:", "    # inside", "    to: 'vf'", "", "    labels: {lab: demo}"]
CASES: dict[str, tuple[Edit, list[str]]] = {
    "add": ((add, "vx", "vy", {}), ["+    vx: vy"]),
    "add with options": ((add, "vx", "vy", {"mode": "tc"}), ["+    vx: {to: vy, mode: tc}"]),
    "remove": ((remove, "vb"), ["-    va:   vb"]),
    "remove a flow": ((remove, "vd:vc"), [f'-    "vc": {FLOW}']),
    "remove a block": ((remove, "ve:vf"), [f"-    {each}".rstrip() for each in BLOCK]),
    "disable": ((disable, "va"), ["-    va:   vb", "+    va: {to: vb, enabled: false}"]),
    "disable a block": ((disable, "ve"), ["+        enabled: false"]),
    "enable what is": ((enable, "va"), []),
    "move": ((move, "vb", "vz"), ["-    va:   vb", "+    va: vz"]),
    "move a key": ((move, "vc", "vz"), [f'-    "vc": {FLOW}', f'+    "vz": {FLOW}']),
    "move a quoted end": ((move, "vf", "vz"), ["-        to: 'vf'", "+        to: 'vz'"]),
}


@pytest.mark.parametrize(("edit", "wanted"), CASES.values(), ids=CASES)
def test_only_its_lines_change(edit: Edit, wanted: list[str]) -> None:
    do, *words = edit
    after = do(LAB, *words)
    changes = difflib.unified_diff(LAB.splitlines(), after.splitlines(), lineterm="", n=0)
    assert [x for x in changes if not x.startswith(("---", "+++", "@@"))] == wanted
    parser.parse(after, "f")


OFF = "x-off: &off {enabled: false}\nlinks:\n  a: "
FORMS: list[tuple[str, Edit, str]] = [
    ("links: {}\n", (add, "a", "b", {}), "links:\n  a: b\n"),
    ("links:\n  a: b\n", (remove, "a"), "links: {}\n"),
    ("links: {a: b, c: d}\n", (remove, "d"), "links: {a: b}\n"),
    ("links:\n  a: a\n", (move, "a", "b"), "links:\n  b: b\n"),
    ("links:\n  a: {to: b, enabled: false}\n", (enable, "a:b"), "links:\n  a: b\n"),
    (OFF + "{to: b, <<: *off}\n", (enable, "a:b"), OFF + "{to: b, <<: *off, enabled: true}\n"),
    ("links:\n  a: b\n", (add, "n:c", "1:20", {}), "links:\n  a: b\n  n:c: 1:20\n"),
    ("links:\n  n:a: b\n", (disable, "b,n:a"), "links:\n  n:a: {to: b, enabled: false}\n"),
    ("links:\n  a: {to: n:b}\n", (move, "n:b", "m:c"), "links:\n  a: {to: m:c}\n"),
    ("links:\n  h1/a: h2/n:b\n", (move, "h2/n:b", "h3/c"), "links:\n  h1/a: h3/c\n"),
    ("links:\n  h1/a: h2/b\n", (disable, "h2/b,h1/a"),
     "links:\n  h1/a: {to: h2/b, enabled: false}\n"),
    ("links:\n  a: {to: {vxlan: {remote: 203.0.113.5, vni: 7}}}\n", (move, "a", "b"),
     "links:\n  b: {to: {vxlan: {remote: 203.0.113.5, vni: 7}}}\n"),
    ("links:\n  a: {to: {vxlan: {remote: 203.0.113.5, vni: 7, port: 4789}}}\n",
     (move, "vxlan7@203.0.113.5:4789", "b"), "links:\n  a: {to: b}\n"),
    ("links:\n  a: {to: {vxlan: {remote: 203.0.113.5, vni: 7}}}\n",
     (remove, "a,vxlan7@203.0.113.5"), "links: {}\n"),
    ("links:\n  n:a: b # x\n  c: d\n", (move, "n:a", "m:a"), "links:\n  m:a: b # x\n  c: d\n"),
    ("x-on: 2026-02-30\nlinks:\n  no: 12\n", (disable, "no"),
     "x-on: 2026-02-30\nlinks:\n  no: {to: 12, enabled: false}\n"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "edit", "wanted"), FORMS)
def test_forms_of_a_link(text: str, edit: Edit, wanted: str) -> None:
    do, *words = edit
    assert do(text, *words) == wanted


REFUSED: list[tuple[str, Edit, str]] = [
    (LAB, (add, "vx", "vd", {}), "vd is in the link vc:vd already"),
    ("links: {n:a: b}\n", (add, "c", "n:a", {}), "n:a is in the link n:a,b already"),
    (LAB, (move, "va", "vf"), "vf is in the link ve:vf already"),
    (LAB, (move, "va:vb", "vz"), "name the end that moves"),
    (LAB, (remove, "nix"), "no link nix$"),
    ("links: {h1/leaf1: h2/b}\n", (remove, "leaf1"), "did you mean h1/leaf1[?]"),
    ("links: {leaf1:eth1: b}\n", (remove, "laef1:eth1"), "did you mean leaf1:eth1[?]"),
    ("version: 1\n", (remove, "a"), "no `links:`"),
    ("x-a:\tb\nlinks: {}\n", (add, "a", "b", {}), "line 1, .* by hand"),
    ("x-a:\tb\nlinks: {a: b}\n", (remove, "a"), "line 1, .* by hand"),
]


@pytest.mark.parametrize(("text", "edit", "words"), REFUSED)
def test_what_cannot_be_done_is_said(text: str, edit: Edit, words: str) -> None:
    do, *more = edit
    with pytest.raises(EditError, match=words):
        do(text, *more)


@given(st.lists(st.sampled_from([*"abcdefgh", "n:a"]), unique=True, min_size=2), st.data())
def test_disabled_and_enabled_it_is_as_before(names: list[str], data: st.DataObject) -> None:
    pairs = [*zip(names[::2], names[1::2], strict=False)]
    text = "links:\n" + "".join(f"  {a}: {b}\n" for a, b in pairs)
    a, b = data.draw(st.sampled_from(pairs))
    link = f"{a},{b}" if ":" in a + b else f"{a}:{b}"
    off = link_edit.enable(text, link, enabled=False)
    assert sum(not each.enabled for each in parser.parse(off, "f").links) == 1
    assert link_edit.enable(off, link, enabled=True) == text
