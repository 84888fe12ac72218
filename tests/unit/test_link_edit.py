"""One link of a text is changed, and no line that is not about it."""

from __future__ import annotations

import difflib
from collections.abc import Callable

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
Edit = Callable[[str], str]

CASES: dict[str, tuple[Edit, list[str]]] = {
    "add": (lambda it: link_edit.add(it, "vx", "vy", {}), ["+    vx: vy"]),
    "add with options": (
        lambda it: link_edit.add(it, "vx", "vy", {"mode": "tc"}),
        ["+    vx: {to: vy, mode: tc}"],
    ),
    "remove": (lambda it: link_edit.remove(it, "vb"), ["-    va:   vb"]),
    "remove a flow": (
        lambda it: link_edit.remove(it, "vd:vc"),
        ['-    "vc": {to: vd, mode: tc}   # flow'],
    ),
    "remove a block": (
        lambda it: link_edit.remove(it, "ve:vf"),
        ["-    ve:", "-        # inside", "-        to: 'vf'", "-", "-        labels: {lab: demo}"],
    ),
    "disable": (
        lambda it: link_edit.enable(it, "va", enabled=False),
        ["-    va:   vb", "+    va: {to: vb, enabled: false}"],
    ),
    "disable a block": (
        lambda it: link_edit.enable(it, "ve", enabled=False),
        ["+        enabled: false"],
    ),
    "enable what is": (lambda it: link_edit.enable(it, "va", enabled=True), []),
    "move": (lambda it: link_edit.move(it, "vb", "vz"), ["-    va:   vb", "+    va: vz"]),
    "move a key": (
        lambda it: link_edit.move(it, "vc", "vz"),
        ['-    "vc": {to: vd, mode: tc}   # flow', '+    "vz": {to: vd, mode: tc}   # flow'],
    ),
    "move a quoted end": (
        lambda it: link_edit.move(it, "vf", "vz"),
        ["-        to: 'vf'", "+        to: 'vz'"],
    ),
}


@pytest.mark.parametrize(("edit", "wanted"), CASES.values(), ids=CASES)
def test_only_its_lines_change(edit: Edit, wanted: list[str]) -> None:
    after = edit(LAB)
    changes = difflib.unified_diff(LAB.splitlines(), after.splitlines(), lineterm="", n=0)
    assert [x for x in changes if not x.startswith(("---", "+++", "@@"))] == wanted
    parser.parse(after, "f")


@pytest.mark.parametrize(
    ("text", "edit", "wanted"),
    [
        ("links: {}\n", lambda it: link_edit.add(it, "a", "b", {}), "links:\n  a: b\n"),
        ("links:\n  a: b\n", lambda it: link_edit.remove(it, "a"), "links: {}\n"),
        ("links: {a: b, c: d}\n", lambda it: link_edit.remove(it, "d"), "links: {a: b}\n"),
        ("links:\n  a: a\n", lambda it: link_edit.move(it, "a", "b"), "links:\n  b: b\n"),
        (
            "links:\n  a: {to: b, enabled: false}\n",
            lambda it: link_edit.enable(it, "a:b", enabled=True),
            "links:\n  a: b\n",
        ),
        (
            "x-off: &off {enabled: false}\nlinks:\n  a: {to: b, <<: *off}\n",
            lambda it: link_edit.enable(it, "a:b", enabled=True),
            "x-off: &off {enabled: false}\nlinks:\n  a: {to: b, <<: *off, enabled: true}\n",
        ),
        (
            "x-on: 2026-02-30\nlinks:\n  no: 12\n",
            lambda it: link_edit.enable(it, "no", enabled=False),
            "x-on: 2026-02-30\nlinks:\n  no: {to: 12, enabled: false}\n",
        ),
    ],
)
def test_forms_of_a_link(text: str, edit: Edit, wanted: str) -> None:
    assert edit(text) == wanted


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda it: link_edit.add(it, "vx", "vd", {}), "vd is in the link vc:vd already"),
        (lambda it: link_edit.move(it, "va", "vf"), "vf is in the link ve:vf already"),
        (lambda it: link_edit.move(it, "va:vb", "vz"), "name the end that moves"),
        (lambda it: link_edit.remove(it, "nix"), "no link nix"),
        (lambda _: link_edit.remove("version: 1\n", "a"), "no `links:`"),
        (lambda _: link_edit.add("x-a:\tb\nlinks: {}\n", "a", "b", {}), "line 1, .* by hand"),
        (lambda _: link_edit.remove("x-a:\tb\nlinks: {a: b}\n", "a"), "line 1, .* by hand"),
    ],
)
def test_what_cannot_be_done_is_said(edit: Edit, words: str) -> None:
    with pytest.raises(EditError, match=words):
        edit(LAB)


@given(st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=2), st.data())
def test_disabled_and_enabled_it_is_as_before(names: list[str], data: st.DataObject) -> None:
    pairs = [*zip(names[::2], names[1::2], strict=False)]
    text = "links:\n" + "".join(f"  {a}: {b}\n" for a, b in pairs)
    link = ":".join(data.draw(st.sampled_from(pairs)))
    off = link_edit.enable(text, link, enabled=False)
    assert sum(not each.enabled for each in parser.parse(off, "f").links) == 1
    assert link_edit.enable(off, link, enabled=True) == text
