"""The wiring as a picture: what ``status --json`` tells, as Mermaid or Graphviz text. Pure.

Colour is the state (and words say so too, for who cannot see colours), the line's text is the mode
with what comes in by either end per second. Names are the kernel's: they may hold anything but
white space, ``/`` and ``:``, so every format escapes all text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from xconnectd.formatting import bit_rate, printable
from xconnectd.model import State
from xconnectd.status.document import End, Link, StatusDocument

COLOURS: Final = {
    State.CONNECTED: "#1a7f37",
    State.WAITING: "#6e7781",
    State.DOWN: "#bf8700",
    State.DISABLED: "#8c959f",
    State.FAILED: "#cf222e",
}
"""Legible on white and on black."""

_DASHED: Final = (State.WAITING, State.DISABLED)
_NOTHING: Final = "no links"


@dataclass(frozen=True, slots=True)
class _Node:
    """One end: an interface, and where the other end of that veth is, as far as is known."""

    name: str
    far: str
    missing: bool


@dataclass(frozen=True, slots=True)
class _Edge:
    """One link. ``b`` is None for a loopback; ``cause`` is why one is down."""

    state: State
    label: str
    cause: str
    a: _Node
    b: _Node | None

    @property
    def nodes(self) -> tuple[_Node, ...]:
        return (self.a,) if self.b is None else (self.a, self.b)


def draw(told: StatusDocument, form: str, namespaces: Mapping[int, str]) -> str:
    """The picture in one of ``FORMATS``; ``namespaces`` names those that have an id here."""
    return FORMATS[form]([_edge(link, namespaces) for link in told.links])


def _edge(link: Link, namespaces: Mapping[int, str]) -> _Edge:
    a, b = link.a, link.b
    loopback = len(link.ends) == 1
    if link.state is State.CONNECTED:
        rates = _rates(("⟲", a)) if loopback else _rates(("→", a), ("←", b))
        label = " · ".join((link.mode, *rates))
    else:
        label = str(link.state)
    far = None if loopback else _node(b, namespaces)
    cause = printable(link.reason) if link.state is State.DOWN else ""
    return _Edge(link.state, label, cause, _node(a, namespaces), far)


def _rates(*ways: tuple[str, End]) -> Iterator[str]:
    known = [(arrow, end.bits_per_s) for arrow, end in ways if end.bits_per_s is not None]
    if known and not any(bits for _, bits in known):
        yield "idle"
    else:
        yield from (f"{arrow} {bit_rate(bits)}" for arrow, bits in known)


def _node(end: End, namespaces: Mapping[int, str]) -> _Node:
    far, nsid = printable(end.far_name or ""), end.far_nsid
    if far and nsid is not None:
        far = f"{far} in {printable(namespaces.get(nsid, '') or f'namespace {nsid}')}"
    return _Node(printable(end.name), far, end.ifindex is None)


def _numbered(edges: Sequence[_Edge]) -> Iterator[tuple[_Edge, list[str]]]:
    """Every link with an identifier for each of its ends."""
    number = 0
    for edge in edges:
        yield edge, [f"n{number + place}" for place in range(len(edge.nodes))]
        number += len(edge.nodes)


# --------------------------------------------------------------------------- Mermaid


def _mermaid(edges: Sequence[_Edge]) -> str:
    """A flowchart. Far ends stand in the boxes: it draws no more than 500 lines."""
    lines = ["flowchart LR"]
    colours: dict[State, list[str]] = {}
    missing: list[str] = []
    for index, (edge, ids) in enumerate(_numbered(edges)):
        lines += [_mermaid_node(*pair) for pair in zip(ids, edge.nodes, strict=True)]
        arrow = "<-->" if edge.b else "-->"
        cause = f"<br/>{_mermaid_text(edge.cause)}" if edge.cause else ""
        lines.append(f'  {ids[0]} {arrow}|"{edge.label}{cause}"| {ids[-1]}')
        colours.setdefault(edge.state, []).append(str(index))
        missing += [name for name, node in zip(ids, edge.nodes, strict=True) if node.missing]
    for state, found in colours.items():
        dashes = ",stroke-dasharray:4" if state in _DASHED else ""
        lines.append(f"  linkStyle {','.join(found)} stroke:{COLOURS[state]}{dashes}")
    if missing:
        lines.append("  classDef missing stroke-dasharray:4")
        lines.append(f"  class {','.join(missing)} missing")
    if not edges:
        lines.append(f'  none["{_NOTHING}"]')
    return "\n".join(lines) + "\n"


def _mermaid_node(name: str, node: _Node) -> str:
    lines = (_mermaid_text(line) for line in (node.name, node.far) if line)
    return f'  {name}["{"<br/>".join(lines)}"]'


def _mermaid_text(text: str) -> str:
    """Whatever could mean something to Mermaid, Markdown or HTML, by its number."""
    return re.sub(r"[^\w .-]", lambda found: f"#{ord(found[0])};", text)


# --------------------------------------------------------------------------- Graphviz


def _dot(edges: Sequence[_Edge]) -> str:
    lines = [
        "graph xconnectd {",
        '  graph [rankdir=LR, fontname="sans-serif"]',
        '  node [shape=box, style=rounded, fontname="sans-serif"]',
        '  edge [fontname="sans-serif", fontsize=10, penwidth=2]',
    ]
    for edge, ids in _numbered(edges):
        for name, node in zip(ids, edge.nodes, strict=True):
            style = ', style="rounded,dashed"' if node.missing else ""
            lines.append(f"  {name} [label={_dot_text(node.name, node.far)}{style}]")
        dashes = ", style=dashed" if edge.state in _DASHED else ""
        label = _dot_text(edge.label, edge.cause)
        colour = f'color="{COLOURS[edge.state]}"'
        lines.append(f"  {ids[0]} -- {ids[-1]} [label={label}, {colour}{dashes}]")
    if not edges:
        lines.append(f'  none [label="{_NOTHING}"]')
    return "\n".join((*lines, "}")) + "\n"


def _dot_text(*lines: str) -> str:
    """A label of several lines. Graphviz reads HTML's entities in plain labels too."""
    texts = (escape(line).replace("\\", "\\\\").replace('"', '\\"') for line in lines if line)
    return '"' + "\\n".join(texts) + '"'


FORMATS: Final[Mapping[str, Callable[[Sequence[_Edge]], str]]] = {
    "mermaid": _mermaid,
    "dot": _dot,
}
