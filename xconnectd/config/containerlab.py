"""A containerlab topology to the text of a wiring: its links, and where their nodes are. Pure.

What it reads is what containerlab's manual has (docs/manual/topo-def-file.md, kinds/ and network.md
of its source) and its code does where the manual is silent (links/*.go, core/config.go). A link is
taken if it has two ends here, in nodes or on this host. The others are left out and named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Final, NamedTuple

from xconnectd import spelling
from xconnectd.config import ends, keys
from xconnectd.config.yaml_tree import (
    MappingNode,
    Refusal,
    Report,
    ScalarNode,
    SequenceNode,
    YamlNode,
    bounded,
    compose,
    is_null,
    place_of,
    said,
    short,
)
from xconnectd.errors import Problem

_MTU: Final = 9500
"""Bytes, of a link that names none (constants/containerlab.go)."""
_PREFIX: Final = "clab"
_LAB_NAME: Final = "__lab-name"
"""The prefix that stands for none before the lab's name."""

_WIRES: Final = ("", "brief", "veth", "veth-stitch", "host")
"""Types of links with two ends here; one that has none is brief."""
_ONE_ENDPOINT: Final = ("host", "macvlan", "mgmt-net", "vxlan", "vxlan-stitch", "dummy")
"""Types of links with one end in a node; the other, if there is one, is told otherwise."""

_SRL: Final = ("nokia_srlinux", "srl")
_SRL_ALIAS: Final = re.compile("ethernet-([0-9]+)/([0-9]+)(?:/([0-9]+))?").fullmatch
_AS_IT_IS: Final = ("linux", "ext-container", "host", "")
"""Kinds whose interfaces have the names that the topology has; others may map theirs."""
_IN_CONTAINER: Final = re.compile("e(?:th)?[0-9][0-9_-]*").fullmatch
"""What interfaces in the containers of those are called."""

_SHARED: Final = "container:"
"""Before the node of a `network-mode` whose namespace is shared."""

_HERE: Final = ("host", "macvlan", "mgmt-net")
"""What stands in place of a node for something of this host."""
_is_container: Final = re.compile(keys.CONTAINER_PATTERN).match
_is_text: Final = re.compile(keys.TEXT_PATTERN).match
_is_word: Final = re.compile("[A-Za-z0-9_][A-Za-z0-9_./-]*(?::[A-Za-z0-9_./-]+)*").fullmatch
"""Texts that need no quotes in YAML, neither in a block nor between braces."""

_variable: Final = re.compile(rb"\$\$|\$\{([A-Za-z_]\w*)(?:(:?[-=+])([^{}]*))?\}|\$([A-Za-z_]\w*)")


class Imported(NamedTuple):
    """The text of a wiring, empty if no link was taken; what was left out of it, and is odd."""

    text: str
    left_out: tuple[Problem, ...]
    notes: tuple[Problem, ...]


def expanded(data: bytes, environment: Mapping[str, str]) -> bytes:
    """With environment variables in their places; what is not set and has no default stays."""

    def value(found: re.Match[bytes]) -> bytes:
        if found[0] == b"$$":
            return b"$"
        name, how, word = found[1] or found[4], found[2] or b"", found[3] or b""
        known = environment.get(name.decode())
        is_set = known is not None and (known != "" or not how.startswith(b":"))
        if how.endswith(b"+"):
            return word if is_set else b""
        if is_set:
            return str(known).encode("utf-8", "surrogateescape")
        return word if how else found[0]

    return _variable.sub(value, data)


def imported(data: bytes, path: str) -> Imported:
    """The wiring of a topology.

    Raises:
        ConfigError: it is none, with every problem.
    """
    report = Report(path)
    converter = _Converter(report)
    with report.gathering():
        converter.read(compose(data, report))
    report.require_none()
    text = "".join(f"{line}\n" for line in converter.lines())
    return Imported(text, tuple(converter.left_out), tuple(converter.notes))


class _LeftOut(Exception):  # noqa: N818 - it never leaves this module
    """Why a good link is none of ours, and what can be done about it."""

    def __init__(self, text: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(text)


_BRIDGE: Final = "a veth whose other end is a port of the bridge can be one"
_REASONS: Final = {
    "bridge": ("a port of a bridge is no end", _BRIDGE),
    "ovs-bridge": ("a port of a bridge is no end", _BRIDGE),
    "macvlan": (
        "a macvlan shares that interface with the host, a wire takes all of it",
        "if the host does not need it, name it as the other end of a link",
    ),
    "mgmt-net": ("the management network is that of the container engine",),
    "vxlan": ("its other end is on another host",),
    "vxlan-stitch": ("its other end is on another host",),
    "dummy": ("it has one end",),
}
"""Why a link of such a type, or with an end in a node of such a kind, is left out."""


# --------------------------------------------------------------------------- the topology

_Entries = Mapping[str, YamlNode]


def _entries(node: YamlNode | None) -> _Entries:
    if node is None or is_null(node):
        return {}
    if not isinstance(node, MappingNode):
        raise Refusal(node, f"here is {said(node)} in place of a mapping")
    return {key: value for key, (_, value) in node.entries.items()}


def _word(node: YamlNode | None) -> str:
    if node is None or is_null(node):
        return ""
    if not isinstance(node, ScalarNode):
        raise Refusal(node, f"here is {said(node)} in place of a text")
    bounded(node)
    return node.value


class _Lab:
    """The nodes of a topology, and what their containers are called."""

    def __init__(self, top: _Entries, topology: _Entries) -> None:
        self.name = _word(top.get("name"))
        prefix = top.get("prefix")
        self._prefix = _PREFIX if prefix is None or is_null(prefix) else _word(prefix)
        self.nodes = _entries(topology.get("nodes"))
        self._groups = _entries(topology.get("groups"))
        self._kinds = _entries(topology.get("kinds"))
        self._defaults = _entries(topology.get("defaults"))

    def kind(self, node: str) -> str:
        return self._setting(node, "kind").lower()

    def is_host(self, node: str) -> bool:
        """Whether its interfaces are those of this host."""
        return self.kind(node) == "host" or self._setting(node, "network-mode") == "host"

    def container(self, node: str) -> str:
        """The one in whose namespace its interfaces are."""
        mode = self._setting(node, "network-mode")
        shared = mode.removeprefix(_SHARED) if mode.startswith(_SHARED) else node
        if shared not in self.nodes or self.kind(shared) == "ext-container" or not self._prefix:
            return shared
        parts = (self._prefix, self.name, shared)
        return "-".join(parts[1:] if self._prefix == _LAB_NAME else parts)

    def _setting(self, node: str, key: str) -> str:
        """What it has itself, or from its group, its kind or all nodes."""
        own = _entries(self.nodes.get(node))
        levels = [own, _entries(self._groups.get(_word(own.get("group"))))]
        if key != "kind":
            levels.append(_entries(self._kinds.get(self._setting(node, "kind"))))
        return next(filter(None, (_word(each.get(key)) for each in (*levels, self._defaults))), "")


class _End(NamedTuple):
    """An end of a link as the topology has it; ``where`` it stands there."""

    where: YamlNode
    node: str
    interface: str

    def __str__(self) -> str:
        return short(f"{self.node}:{self.interface}")


def _ends(kind: str, link: YamlNode, entries: _Entries) -> tuple[_End, ...]:
    """The ends of a link of a type; what is no interface of a node stands there as one."""
    if kind in _ONE_ENDPOINT:
        if "endpoint" not in entries:
            raise Refusal(link, f"a link of type `{short(kind)}` has an `endpoint`")
        other = entries.get("host-interface") or entries.get("remote")
        there = (_End(other, kind, _word(other)),) if other else ()
        return (_end(entries["endpoint"]), *there)
    both = entries.get("endpoints")
    if not isinstance(both, SequenceNode) or len(both.items) != 2:
        example = '`endpoints: ["leaf1:eth1", "spine1:eth1"]`'
        raise Refusal(both or link, "a link has two `endpoints`", example)
    return tuple(_end(each) for each in both.items)


def _end(node: YamlNode) -> _End:
    if isinstance(node, ScalarNode):
        name, _, interface = _word(node).partition(":")
    else:
        entries = _entries(node)
        name, interface = _word(entries.get("node")), _word(entries.get("interface"))
    if not name or not interface:
        text = f"an endpoint is a node and an interface, not {said(node)}"
        raise Refusal(node, text, "`leaf1:eth1`")
    special = name.strip().lower()
    return _End(node, special if special in _HERE else name, interface)


# --------------------------------------------------------------------------- the wiring


class _Converter:
    """Takes one link after the other, and writes down what becomes of it."""

    def __init__(self, report: Report) -> None:
        self.left_out: list[Problem] = []
        self.notes: list[Problem] = []
        self._report = report
        self._lab = _Lab({}, {})
        self._links: list[str] = []
        self._containers: dict[str, str] = {}
        """By the nodes of the links that were taken."""
        self._taken: dict[str, int] = {}
        """The line of the first link with an end."""

    def read(self, root: YamlNode | None) -> None:
        top = _entries(root)
        if "topology" not in top:
            raise Refusal(root, "there is no `topology:`", "is it a containerlab file?")
        topology = _entries(top["topology"])
        self._lab = _Lab(top, topology)
        if not self._lab.name:
            self._report.problem(root, "there is no `name:`", "containers are named after it")
        links = topology.get("links")
        if links is None or is_null(links):
            return
        if not isinstance(links, SequenceNode):
            raise Refusal(links, f"`links` is a list, not {said(links)}")
        for link in links.items:
            try:
                self._read_link(link)
            except Refusal as refusal:
                self._report.add(refusal)

    def _read_link(self, link: YamlNode) -> None:
        entries = _entries(link)
        kind = _word(entries.get("type")).strip().lower()
        ends = _ends(kind, link, entries)
        try:
            self._links.append(f"  {self._converted(kind, link, entries, ends)}")
        except _LeftOut as reason:
            text = f"left out: {' to '.join(map(str, ends))}: {reason}"
            self._tell(self.left_out, link, text, reason.hint)
            self._links.append(f"  # line {place_of(link).line}, {text}")

    def _tell(self, told: list[Problem], where: YamlNode, text: str, hint: str = "") -> None:
        told.append(Problem(self._report.path, *place_of(where), text, hint))

    def _converted(
        self, kind: str, link: YamlNode, entries: _Entries, ends: tuple[_End, ...]
    ) -> str:
        """The line of a link.

        Raises:
            _LeftOut, Refusal: it has none.
        """
        kinds = chain([kind], map(self._kind, ends))
        if reason := next((_REASONS[each] for each in kinds if each in _REASONS), None):
            raise _LeftOut(*reason)
        if kind not in _WIRES or len(ends) != 2:
            raise _LeftOut(f"links of type `{short(kind)}` are not known here")
        a, b = (self._name(end) for end in ends)
        if a == b:
            raise _LeftOut("both ends are one interface")
        for name in (a, b):
            if line := self._taken.get(name):
                raise _LeftOut(f"`{short(name)}` is in the link of line {line}")
        self._take(link, entries, dict(zip((a, b), ends, strict=True)))
        options = _options(entries, made=":" in a + b)
        return f"{_yaml(a)}: {_flow({'to': b, **options}) if options else _yaml(b)}"

    def _kind(self, end: _End) -> str:
        if end.node in _HERE:
            return end.node
        if end.node not in self._lab.nodes:
            near = spelling.meant({end.node}, self._lab.nodes).get(end.node)
            hint = f"did you mean `{short(near)}`?" if near else ""
            raise Refusal(end.where, f"there is no node `{short(end.node)}`", hint)
        return self._lab.kind(end.node)

    def _is_here(self, end: _End) -> bool:
        return end.node in _HERE or self._lab.is_host(end.node)

    def _name(self, end: _End) -> str:
        """What this end is called in a file of ours."""
        kind, name = self._kind(end), end.interface
        if kind in _SRL and (alias := _SRL_ALIAS(name)):
            name = f"e{'-'.join(filter(None, alias.groups()))}"
        text = name if self._is_here(end) else f"{end.node}:{name}"
        if not ends.is_end(text) or not text.isprintable() or (self._is_here(end) and ":" in text):
            why = f"`{short(name)}` cannot be the name of an interface"
            raise _LeftOut(why, "use its name in the container, as `ip link` shows it there")
        if kind not in _AS_IT_IS and not self._is_here(end) and not _IN_CONTAINER(name):
            hint = f"if it has another name in containers of the kind {short(kind)}, use that"
            self._tell(self.notes, end.where, f"{end} is taken as it is written", hint)
        return text

    def _take(self, link: YamlNode, entries: _Entries, ends: Mapping[str, _End]) -> None:
        """Keep what a link needs, and tell what of it is not kept."""
        for name, end in ends.items():
            self._taken[name] = place_of(link).line
            if self._is_here(end):
                hint = "nothing makes it: `ip link add` does"
                self._tell(self.notes, end.where, f"{end} has to be on this host", hint)
                continue
            container = self._lab.container(end.node)
            if not _is_container(container) or len(container) > keys.TEXT_LENGTH:
                text = f"`{short(container)}` cannot be the name of a container"
                raise Refusal(end.where, text, "`name` and `prefix` of the topology are part of it")
            self._containers[end.node] = container
            own = _entries(end.where) if isinstance(end.where, MappingNode) else entries
            if unkept := [key for key in ("mac", "ipv4", "ipv6") if key in own]:
                hint = "an end that is made has a MAC of its own, always the same, and no address"
                self._tell(self.notes, end.where, f"{', '.join(unkept)} of {end}: not kept", hint)

    def lines(self) -> Iterator[str]:
        """The wiring; none at all without a link, since that would disconnect everything."""
        if not self._taken:
            return
        yield f"# The links of the containerlab topology {short(self._lab.name)}."
        yield f"defaults: {{mtu: {_MTU}}}   # bytes, as containerlab has it"
        if self._containers:
            yield "nodes:"
            for node, container in self._containers.items():
                yield f"  {_yaml(node)}: {_flow({'container': container})}"
        yield "links:"
        yield from self._links


def _options(entries: _Entries, *, made: bool) -> dict[str, Any]:
    """The options of a link; ``made``: an interface is made for it."""
    options: dict[str, Any] = {}
    if (mtu := _mtu(entries.get("mtu"))) and made and mtu != _MTU:
        options["mtu"] = mtu
    labels = {key: _word(value) for key, value in _entries(entries.get("labels")).items()}
    if kept := {key: labels[key] for key in labels if key and _is_label(key, labels[key])}:
        options["labels"] = kept
    return options


def _is_label(*texts: str) -> bool:
    return all(_is_text(text) and len(text) <= keys.TEXT_LENGTH for text in texts)


def _mtu(node: YamlNode | None) -> int:
    """In bytes; 0 is not said, as it is to containerlab."""
    text = _word(node)
    mtu = int(text) if text.isascii() and text.isdecimal() else -1
    if text and mtu not in keys.MTUS and node and mtu:
        first, last = keys.MTUS[0], keys.MTUS[-1]
        raise Refusal(node, f"`mtu` is a number from {first} to {last}, not {said(node)}")
    return max(mtu, 0)


def _flow(values: Mapping[str, Any]) -> str:
    """A mapping of texts, numbers and such mappings between braces."""
    shown = (
        f"{_yaml(key)}: {_flow(value) if isinstance(value, Mapping) else _yaml(str(value))}"
        for key, value in values.items()
    )
    return f"{{{', '.join(shown)}}}"


def _yaml(text: str) -> str:
    """A text, in quotes where it needs them; what JSON says of it YAML says, too."""
    return text if _is_word(text) else json.dumps(text, ensure_ascii=False)
