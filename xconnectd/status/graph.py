"""The wiring as a picture: what ``status --json`` tells, as Mermaid or Graphviz text. Pure.

A namespace that ends are in is a box with these as its ports: a node of the file, or where the far
end of a veth is. Ends that lead to no such place (a tap, a NIC) stand by themselves. Of a file with
hosts every host is a box around its own, and links between others are drawn grey: nothing is known
of them here. Colour is the state (and words say so too, for who cannot see colours), the line's
text is the mode with what comes in by either end per second. Names are chosen by others, and those
of interfaces may hold anything but white space, ``/`` and ``:``, so every format escapes all text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final
from xml.sax.saxutils import escape

from xconnectd import impairment
from xconnectd.formatting import bit_rate, number, printable
from xconnectd.model import Endpoint, Rewrite, State
from xconnectd.model import Link as Wanted
from xconnectd.status.document import End, Link, StatusDocument

COLOURS: Final = {
    State.CONNECTED: "#1a7f37",
    State.WAITING: "#6e7781",
    State.DOWN: "#bf8700",
    State.DISABLED: "#8c959f",
    State.FAILED: "#cf222e",
    None: "#8c959f",
}
"""Legible on white and on black; None is for links of other hosts."""

_DASHED: Final = (State.WAITING, State.DISABLED)
_NOTHING: Final = "no links"


@dataclass(frozen=True, slots=True)
class _Port:
    """One end. ``box`` is what it is in, on ``host``; empty for one that stands by itself.

    ``also`` is the other name that it has, or that of the other end of its veth.
    """

    id: str
    host: str
    box: str
    name: str
    also: str
    missing: bool

    @property
    def lines(self) -> tuple[str, ...]:
        return (self.name, self.also) if self.also else (self.name,)


@dataclass(frozen=True, slots=True)
class _Edge:
    """One link. ``ports`` are both of its ends, one for a loopback.

    ``more`` stands below its ``label``: why it is down, what impairs it. ``one_way``: frames go
    from the first to the second alone.
    """

    state: State | None
    label: str
    more: Sequence[str]
    ports: Sequence[_Port]
    one_way: bool


def draw(
    told: StatusDocument, form: str, namespaces: Mapping[int, str], elsewhere: Iterable[Wanted] = ()
) -> str:
    """The picture in one of ``FORMATS``; ``namespaces`` names those that have an id here.

    ``elsewhere`` are the links of the file in which this host has no part.
    """
    ends = [end for link in told.links for end in link.ends]
    nodes = {end.far_nsid: end.node for end in ends if end.node and end.far_nsid is not None}
    known, numbers = {**namespaces, **nodes}, count()
    edges = [_edge(link, known, numbers) for link in told.links]
    return FORMATS[form]([*edges, *(_edge_elsewhere(link, numbers) for link in elsewhere)])


def _edge(link: Link, namespaces: Mapping[int, str], numbers: Iterator[int]) -> _Edge:
    arrows = "→←" if len(link.ends) == 2 else "⟲"
    if link.state is State.CONNECTED:
        ways = [*zip(arrows, link.ends, strict=True)]
        rewrite = () if link.rewrite == Rewrite.NONE else (link.rewrite,)
        label = " · ".join((link.mode, *rewrite, *_rates(ways[:1] if link.one_way else ways)))
        if link.peer and link.peer.round_trip_ms is not None:
            label += f" · {number(link.peer.round_trip_ms)} ms"
    else:
        label = str(link.state)
    more = [link.reason] if link.state is State.DOWN else []
    for arrow, way in zip(arrows, ("forward", "reverse"), strict=False):
        if impaired := (link.impair or {}).get(way):
            more.append(f"{arrow} {impairment.in_words(impaired)}")
    ports = [_port(f"n{next(numbers)}", end, namespaces) for end in link.ends]
    return _Edge(link.state, label, [*map(printable, more)], ports, link.one_way)


def _edge_elsewhere(link: Wanted, numbers: Iterator[int]) -> _Edge:
    ports = []
    for end in link.ends:
        node = end.node.name if end.node else ""
        name = _interface_of(end)
        ports.append(_Port(f"n{next(numbers)}", end.host, node, name, "", missing=False))
    return _Edge(None, "of other hosts", (), ports, link.one_way)


def _interface_of(end: Endpoint) -> str:
    """Without its node, which an end in the links of a whole file has behind its host."""
    return end.interface.rpartition("/")[2].rpartition(":")[2]


def _rates(ways: Iterable[tuple[str, End]]) -> Iterator[str]:
    known = [(arrow, end.bits_per_s) for arrow, end in ways if end.bits_per_s is not None]
    if known and not any(bits for _, bits in known):
        yield "idle"
    else:
        yield from (f"{arrow} {bit_rate(bits)}" for arrow, bits in known)


def _port(identity: str, end: End, namespaces: Mapping[int, str]) -> _Port:
    place, own = end.far_nsid, end.interface if end.host else end.name
    if end.node:
        texts = end.node, end.interface, ""
    elif end.far_name and place is not None:
        texts = namespaces.get(place, "") or f"namespace {place}", end.far_name, own
    else:
        texts = "", own, end.far_name or ""
    host, box, name, also = map(printable, (end.host, *texts))
    return _Port(identity, host, box, name, also, end.ifindex is None)


_Boxes = Mapping[str, Sequence[_Port]]
"""Ports by what they are in, in the order of the links; with none, those that stand alone."""


def _hosts(edges: Iterable[_Edge]) -> dict[str, _Boxes]:
    """What is in every host, and in none."""
    found: dict[str, dict[str, list[_Port]]] = {"": {}}
    for edge in edges:
        for port in edge.ports:
            found.setdefault(port.host, {}).setdefault(port.box, []).append(port)
    return {**found}


# --------------------------------------------------------------------------- Mermaid


def _mermaid(edges: Sequence[_Edge]) -> str:
    """A flowchart. A box is a subgraph, as a node of Mermaid's has no ports."""
    lines, numbers = ["flowchart LR"], count()
    for place, (host, boxes) in enumerate(_hosts(edges).items()):
        if host:
            lines.append(f'  subgraph h{place}["{_mermaid_text(host)}"]')
            lines += [f"  {line}" for line in _mermaid_boxes(boxes, numbers)]
            lines += [f"  {_mermaid_port(port)}" for port in boxes.get("", ())]
            lines.append("  end")
        else:
            lines += _mermaid_boxes(boxes, numbers)
    colours: dict[State | None, list[str]] = {}
    for index, edge in enumerate(edges):
        lines += [_mermaid_port(port) for port in edge.ports if not (port.box or port.host)]
        arrow = "<-->" if len(edge.ports) == 2 and not edge.one_way else "-->"
        label = "<br/>".join((edge.label, *map(_mermaid_text, edge.more)))
        lines.append(f'  {edge.ports[0].id} {arrow}|"{label}"| {edge.ports[-1].id}')
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


def _mermaid_boxes(boxes: _Boxes, numbers: Iterator[int]) -> Iterator[str]:
    for box, ports in boxes.items():
        if box:
            yield f'  subgraph b{next(numbers)}["{_mermaid_text(box)}"]'
            yield from (f"  {_mermaid_port(port)}" for port in ports)
            yield "  end"


def _mermaid_port(port: _Port) -> str:
    return f'  {port.id}["{"<br/>".join(map(_mermaid_text, port.lines))}"]'


def _mermaid_text(told: str) -> str:
    """Whatever could mean something to Mermaid, Markdown or HTML, by its number."""
    return re.sub(r"[^\w .-]", lambda found: f"#{ord(found[0])};", told)


# --------------------------------------------------------------------------- Graphviz


def _dot(edges: Sequence[_Edge]) -> str:
    """A box is a node whose label is a table, with a cell for each port; a host is a cluster."""
    lines = [
        "graph xconnectd {",
        '  graph [rankdir=LR, fontname="sans-serif"]',
        '  node [shape=box, style=rounded, fontname="sans-serif"]',
        '  edge [fontname="sans-serif", fontsize=10, penwidth=2]',
    ]
    places: dict[str, str] = {}
    numbers = count()
    for place, (host, boxes) in enumerate(_hosts(edges).items()):
        inner = []
        for box, ports in boxes.items():
            if box:
                name = f"b{next(numbers)}"
                inner.append(f"  {name} [shape=plain, label=<{_dot_table(box, ports)}>]")
                places |= {port.id: f"{name}:{port.id}" for port in ports}
        if host:
            lines.append(f"  subgraph cluster_{place} {{")
            lines.append(f"    graph [label={_dot_text(host)}, style=rounded]")
            lines += [f"  {line}" for line in (*inner, *map(_dot_port, boxes.get("", ())))]
            lines.append("  }")
        else:
            lines += inner
    for edge in edges:
        lines += [_dot_port(port) for port in edge.ports if not (port.box or port.host)]
        a, b = (places.get(port.id, port.id) for port in (edge.ports[0], edge.ports[-1]))
        dashes = ", style=dashed" if edge.state in _DASHED else ""
        label = _dot_text(edge.label, *edge.more)
        colour = f'color="{COLOURS[edge.state]}"'
        arrow = ", dir=forward" if edge.one_way else ""
        lines.append(f"  {a} -- {b} [label={label}, {colour}{dashes}{arrow}]")
    if not edges:
        lines.append(f'  none [label="{_NOTHING}"]')
    return "\n".join((*lines, "}")) + "\n"


def _dot_port(port: _Port) -> str:
    """One that stands by itself."""
    style = ', style="rounded,dashed"' if port.missing else ""
    return f"  {port.id} [label={_dot_text(*port.lines)}{style}]"


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
