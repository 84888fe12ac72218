"""The wiring as a picture: what ``status --json`` tells, as Mermaid or Graphviz text. Pure.

A namespace that ends are in is a box with these as its ports: a node of the file, or where the far
end of a veth is. Ends that lead to no such place (a tap, a NIC) stand by themselves. Colour is the
state (and words say so too, for who cannot see colours), the line's text is the mode with what
comes in by either end per second. Names are chosen by others, and those of interfaces may hold
anything but white space, ``/`` and ``:``, so every format escapes all text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final
from xml.sax.saxutils import escape

from xconnectd.formatting import bit_rate, printable
from xconnectd.model import Rewrite, State
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
class _Port:
    """One end. ``box`` is what it is in, empty for one that stands by itself.

    ``also`` is the other name that it has, or that of the other end of its veth.
    """

    id: str
    box: str
    name: str
    also: str
    missing: bool

    @property
    def lines(self) -> tuple[str, ...]:
        return (self.name, self.also) if self.also else (self.name,)


@dataclass(frozen=True, slots=True)
class _Edge:
    """One link. ``ports`` are both of its ends, one for a loopback; ``cause`` is why it is down.

    ``one_way``: frames go from the first to the second alone.
    """

    state: State
    label: str
    cause: str
    ports: Sequence[_Port]
    one_way: bool


def draw(told: StatusDocument, form: str, namespaces: Mapping[int, str]) -> str:
    """The picture in one of ``FORMATS``; ``namespaces`` names those that have an id here."""
    ends = [end for link in told.links for end in link.ends]
    nodes = {end.far_nsid: end.node for end in ends if end.node and end.far_nsid is not None}
    known, numbers = {**namespaces, **nodes}, count()
    return FORMATS[form]([_edge(link, known, numbers) for link in told.links])


def _edge(link: Link, namespaces: Mapping[int, str], numbers: Iterator[int]) -> _Edge:
    if link.state is State.CONNECTED:
        arrows = "→←" if len(link.ends) == 2 else "⟲"
        ways = [*zip(arrows, link.ends, strict=True)]
        rewrite = () if link.rewrite == Rewrite.NONE else (link.rewrite,)
        label = " · ".join((link.mode, *rewrite, *_rates(ways[:1] if link.one_way else ways)))
    else:
        label = str(link.state)
    cause = printable(link.reason) if link.state is State.DOWN else ""
    ports = [_port(f"n{next(numbers)}", end, namespaces) for end in link.ends]
    return _Edge(link.state, label, cause, ports, link.one_way)


def _rates(ways: Iterable[tuple[str, End]]) -> Iterator[str]:
    known = [(arrow, end.bits_per_s) for arrow, end in ways if end.bits_per_s is not None]
    if known and not any(bits for _, bits in known):
        yield "idle"
    else:
        yield from (f"{arrow} {bit_rate(bits)}" for arrow, bits in known)


def _port(identity: str, end: End, namespaces: Mapping[int, str]) -> _Port:
    place = end.far_nsid
    if end.node:
        texts = end.node, end.interface, ""
    elif end.far_name and place is not None:
        texts = namespaces.get(place, "") or f"namespace {place}", end.far_name, end.name
    else:
        texts = "", end.name, end.far_name or ""
    box, name, also = map(printable, texts)
    return _Port(identity, box, name, also, end.ifindex is None)


def _boxes(edges: Iterable[_Edge]) -> dict[str, list[_Port]]:
    """The ports of every box, in the order of the links."""
    found: dict[str, list[_Port]] = {}
    for edge in edges:
        for port in edge.ports:
            if port.box:
                found.setdefault(port.box, []).append(port)
    return found


# --------------------------------------------------------------------------- Mermaid


def _mermaid(edges: Sequence[_Edge]) -> str:
    """A flowchart. A box is a subgraph, as a node of Mermaid's has no ports."""
    lines = ["flowchart LR"]
    for number, (box, ports) in enumerate(_boxes(edges).items()):
        lines.append(f'  subgraph b{number}["{_mermaid_text(box)}"]')
        lines += [f"  {_mermaid_port(port)}" for port in ports]
        lines.append("  end")
    colours: dict[State, list[str]] = {}
    for index, edge in enumerate(edges):
        lines += [_mermaid_port(port) for port in edge.ports if not port.box]
        arrow = "<-->" if len(edge.ports) == 2 and not edge.one_way else "-->"
        cause = f"<br/>{_mermaid_text(edge.cause)}" if edge.cause else ""
        lines.append(f'  {edge.ports[0].id} {arrow}|"{edge.label}{cause}"| {edge.ports[-1].id}')
        colours.setdefault(edge.state, []).append(str(index))
    for state, found in colours.items():
        dashes = ",stroke-dasharray:4" if state in _DASHED else ""
        lines.append(f"  linkStyle {','.join(found)} stroke:{COLOURS[state]}{dashes}")
    if missing := [port.id for edge in edges for port in edge.ports if port.missing]:
        lines.append("  classDef missing stroke-dasharray:4")
        lines.append(f"  class {','.join(missing)} missing")
    if not edges:
        lines.append(f'  none["{_NOTHING}"]')
    return "\n".join(lines) + "\n"


def _mermaid_port(port: _Port) -> str:
    return f'  {port.id}["{"<br/>".join(map(_mermaid_text, port.lines))}"]'


def _mermaid_text(text: str) -> str:
    """Whatever could mean something to Mermaid, Markdown or HTML, by its number."""
    return re.sub(r"[^\w .-]", lambda found: f"#{ord(found[0])};", text)


# --------------------------------------------------------------------------- Graphviz


def _dot(edges: Sequence[_Edge]) -> str:
    """A box is a node whose label is a table, with a cell for each port."""
    lines = [
        "graph xconnectd {",
        '  graph [rankdir=LR, fontname="sans-serif"]',
        '  node [shape=box, style=rounded, fontname="sans-serif"]',
        '  edge [fontname="sans-serif", fontsize=10, penwidth=2]',
    ]
    places: dict[str, str] = {}
    for number, (box, ports) in enumerate(_boxes(edges).items()):
        lines.append(f"  b{number} [shape=plain, label=<{_dot_table(box, ports)}>]")
        places |= {port.id: f"b{number}:{port.id}" for port in ports}
    for edge in edges:
        for port in edge.ports:
            if not port.box:
                style = ', style="rounded,dashed"' if port.missing else ""
                lines.append(f"  {port.id} [label={_dot_text(*port.lines)}{style}]")
        a, b = (places.get(port.id, port.id) for port in (edge.ports[0], edge.ports[-1]))
        dashes = ", style=dashed" if edge.state in _DASHED else ""
        label = _dot_text(edge.label, edge.cause)
        colour = f'color="{COLOURS[edge.state]}"'
        arrow = ", dir=forward" if edge.one_way else ""
        lines.append(f"  {a} -- {b} [label={label}, {colour}{dashes}{arrow}]")
    if not edges:
        lines.append(f'  none [label="{_NOTHING}"]')
    return "\n".join((*lines, "}")) + "\n"


def _dot_table(box: str, ports: Iterable[_Port]) -> str:
    cells = [f'<td border="0"><b>{escape(box)}</b></td>']
    for port in ports:
        dashed = ' style="dashed"' if port.missing else ""
        cells.append(f'<td port="{port.id}"{dashed}>{"<br/>".join(map(escape, port.lines))}</td>')
    rows = "".join(f"<tr>{cell}</tr>" for cell in cells)
    return f'<table style="rounded" cellspacing="4" cellpadding="4">{rows}</table>'


def _dot_text(*lines: str) -> str:
    """A label of several lines. Graphviz reads HTML's entities in plain labels too."""
    texts = (escape(line).replace("\\", "\\\\").replace('"', '\\"') for line in lines if line)
    return '"' + "\\n".join(texts) + '"'


FORMATS: Final[Mapping[str, Callable[[Sequence[_Edge]], str]]] = {
    "mermaid": _mermaid,
    "dot": _dot,
}
