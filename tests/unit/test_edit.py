"""The short way to a wiring gives what the long way gives, or nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xconnectd.config import hosts, parser
from xconnectd.config.edit import edited
from xconnectd.errors import ConfigError
from xconnectd.model import Endpoint, Wiring

_HOSTS = 'hosts: {h1: 198.51.100.1, h2: 198.51.100.2, h6: "2001:db8::1"}\ndefaults: {hold: 9s}\n'
_HEADS = (
    "links:\n", "defaults: {mode: tc, admin: keep, mtu: 9000}\nlinks:\n", "# a lab\n---\nlinks:\n",
    "nodes: {n: {pid: 1}}\nlinks:\n",
    f"{_HOSTS}links:\n  h1/z: {{to: h2/z, vni: 10}}\n",
    "nodes:\n  m: {container: m}\n  n:\n    netns: /n\nlinks:\n",
)  # fmt: skip
_NAMES = st.sampled_from([
    "a", "b", "c", "d", "e0", "e01", "e0.100", "null", "y", "x" * 15, "x" * 16,
    "n:a", "n:b", "m:a", "m:a0", "1:20", "n:" + "x" * 16,
    "h1/a", "h1/b", "h2/a", "h2/n:a", "h6/a", "h3/a", "h1/" + "x" * 16,
])  # fmt: skip
_ODD = st.sampled_from([
    "  long: {to: other}\n", "  # a comment\n", "\n", "    deeper: line\n", "  e0: a b\n",
    "  a:b\n", "  'quoted': \"e\\x30\"\n", "  a: &anchor b\n", "  a: [b]\n", "  d: b # why\n",
    "  continued:\n    b\n", "x-mine: y\n", "  a: 12\n", "  d: b\r\n", "  \u2028: b\n",
    "  n: {pid: 2}\n", "nodes: {n: {pid: 3}}\n", "    netns: /m\n",
    "  description: |\n", "  long2:\n    to: e1\n    description: >-\n      a: b\n",
])  # fmt: skip
_PAIR = st.builds("  {}: {}\n".format, _NAMES, _NAMES)
_LINES = st.lists(st.one_of(_PAIR, _PAIR, _ODD), max_size=5)


def _parsed(text: str) -> Wiring | None:
    try:
        return parser.parse(text, "f")
    except ConfigError:
        return None


def _whole(wiring: Wiring) -> tuple[object, ...]:
    return (wiring, wiring.text, *((link.place, link.id) for link in wiring.links))


@given(
    head=st.sampled_from(_HEADS),
    lines=_LINES,
    edits=st.lists(st.tuples(st.integers(0, 4), _PAIR | _ODD), max_size=3),
)
def test_it_agrees_or_declines(head: str, lines: list[str], edits: list[tuple[int, str]]) -> None:
    known = _parsed(head + "".join(lines))
    if known is None:
        return
    for at, line in edits:
        lines[at : at + 1] = [line]
    text = head + "".join(lines)
    short, long = edited(text.encode(), known), _parsed(text)
    if short is not None:
        assert long is not None
        assert _whole(short) == _whole(long)


_SAVES = st.lists(
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 6), _PAIR | _ODD),  # another line there, or at the end
            st.tuples(st.integers(0, 6), st.just("")),  # one less
            st.tuples(st.integers(0, 6), st.integers(0, 6)),  # two change places
        ),
        max_size=3,
    ),
    max_size=5,
)


def _saved(lines: list[str], at: int, change: str | int) -> None:
    if isinstance(change, str):
        lines[at : at + 1] = [change] if change else []
    elif max(at, change) < len(lines):
        lines[at], lines[change] = lines[change], lines[at]


@given(head=st.sampled_from(_HEADS), lines=_LINES, saves=_SAVES)
def test_a_file_saved_again_and_again_is_read_as_if_each_were_the_first(
    head: str, lines: list[str], saves: list[list[tuple[int, str | int]]]
) -> None:
    """Each from what was read before, the last good one, as a daemon does; and back at last."""
    texts = [head + "".join(lines)]
    for save in saves:
        for change in save:
            _saved(lines, *change)
        texts.append(head + "".join(lines))
    known = Wiring()
    for text in (*texts, *texts[::-1]):
        if (anew := _parsed(text)) is not None:
            known = edited(text.encode(), known) or anew
            assert _whole(known) == _whole(anew)
            assert known.hash == anew.hash


@pytest.mark.parametrize("count", [1, 3, 50])
@pytest.mark.parametrize(
    ("head", "a", "b"),
    [
        ("", "a", "b"),
        ("nodes: {n: {pid: 1}}\n", "n:a", "b"),
        (_HOSTS, "a", "b"),
        (_HOSTS, "h1/a", "h2/n:b"),
        (_HOSTS, "h1/a", "h1/b"),
    ],
)
def test_a_pair_that_changes_in_its_place_is_read_the_short_way(
    count: int, head: str, a: str, b: str
) -> None:
    head += "links:\n"
    lines = [f"  {a}{n}: {b}{n}\n" for n in range(count)]
    known = parser.parse(head + "".join(lines), "f")
    lines[-1] = f"  {a}new: {b}other\n"
    text = head + "".join(lines)
    short = edited(text.encode(), known)
    assert short is not None
    assert _whole(short) == _whole(parser.parse(text, "f"))
    assert all(new is old for new, old in zip(short.links[:-1], known.links[:-1], strict=True))


_VNI = (
    f"{_HOSTS}links:\n"
    f"  h1/z: {{to: h2/z, vni: {hosts.vni_of(Endpoint('h1/a'), Endpoint('h2/c'))}}}\n"
)


def test_what_of_a_long_text_changed_is_found_in_every_place() -> None:
    """As by its lines one by one."""
    lines = [f"  a{n}: b{n}\n" for n in range(300)]
    known = parser.parse("links:\n" + "".join(lines), "f")
    for changed in ([0], [299], [0, 299], [17, 18, 250], [*range(100)], [*range(101)]):
        after = [f"  x{n}: a{n}\n" if n in changed else line for n, line in enumerate(lines)]
        text = "links:\n" + "".join(after)
        short, long = edited(text.encode(), known), parser.parse(text, "f")
        if len(changed) > 100:
            assert short is None
        else:
            assert short is not None
            assert _whole(short) == _whole(long)


UNSURE = [
    ("links:\n  a: b\n  c: d\n", "links:\n  a: b\n  c: b\n"),  # twice
    ("links:\n  a: b\n  c: d\n", "links:\n  a: b\n  b: a\n"),  # the same twice: a warning
    ("links:\n  a: b\n  c: d\n", "links:\n  e: f\n  g: f\n"),  # both new
    ("links:\n  a: b\n  c: \"\\x66\"\n", "links:\n  a: f\n  c: \"\\x66\"\n"),
    ("x-b: &b\n  a: b\nlinks:\n  <<: *b\n", "x-b: &b\n  a: c\nlinks:\n  <<: *b\n"),
    ("x-mine:\n  a: b\nlinks:\n  c: d\n", "x-mine:\n  a: c\nlinks:\n  c: d\n"),
    ("links:\n  a: b\n", "links:\n  a: b\n  c: d\n"),
    ("links:\n  a: b\n  c: d\n", "links:\n  a: b\n   c: e\n"),  # no YAML any more
    ("links:\n  a: b\n", "links:\n  a: b"),
    ("nodes: {n: {pid: 1}}\nlinks:\n  n:a: b\n", "nodes: {n: {pid: 1}}\nlinks:\n  m:a: b\n"),
    ("defaults: {mtu: 68}\nlinks:\n  a: b\n", "defaults: {mtu: 68}\nlinks:\n  n:a: b\n"),
    ("links:\n  n:a: b\nnodes:\n  n: {pid: 1}\n", "links:\n  n:a: b\nnodes:\n  n: {pid: 2}\n"),
    ("links:\n  a:\n    to: b\n", "links:\n  a:\n    to: c\n"),
    (f"{_HOSTS}links:\n  h1/a: h2/b\n  c: d\n", f"{_HOSTS}links:\n  h1/a: h2/c\n  c: d\n"),
    (f"{_HOSTS}links:\n  h1/a: h2/b\n", f"{_HOSTS}links:\n  h1/a: h1/b\n"),
    (f"{_HOSTS}links:\n  h1/a: h2/b\n", f"{_HOSTS}links:\n  h1/a: h3/b\n"),
    (f"{_HOSTS}links:\n  h1/a: h2/b\n", f"{_HOSTS}links:\n  h1/a: h6/b\n"),
    (f"{_HOSTS}links:\n  h1/a: h2/b\n", f"{_HOSTS}links:\n  a: b\n"),
    (f"{_VNI}  h1/a: h2/b\n", f"{_VNI}  h1/a: h2/c\n"),  # which hashes to that one
]  # fmt: skip


@pytest.mark.parametrize("end", "\r\x85\u2028\u2029")
def test_it_declines_a_text_whose_lines_it_counts_otherwise_than_yaml(end: str) -> None:
    """What changes in line 5, which YAML has as the seventh, is no link; the link is in its 5."""
    text = f"# a{end}# b{end}# c\nlinks:\n  a: b\nx-mine:\n  a: %s\n"
    known = parser.parse(text % "b", "f")
    assert known.links[0].place == (5, 3)
    assert edited((text % "c").encode(), known) is None


def test_it_declines_what_it_cannot_be_sure_of() -> None:
    """As of a wiring that no text made, which there is nothing to compare with."""
    for before, after in UNSURE:
        assert edited(after.encode(), parser.parse(before, "f")) is None, after
    made = replace(parser.parse("links: {a: b}\n", "f"), text=b"")
    assert edited(b"links: {a: b}\n", made) is None
