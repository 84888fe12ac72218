"""The file: YAML text to ``Wiring``, or every problem in it with its line and column.

Owns what a good file is: its keys, its names, its defaults; ``json_schema`` describes the same
tables to editors. Never touches the disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any, Final, NamedTuple

from xconnectd import spelling
from xconnectd.config import edit, ends, hosts, impairments
from xconnectd.config.ends import CONTROL, END_OF_TEXT, IPV4, IPV6
from xconnectd.config.impairments import Fault, no_fault
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
    is_plain,
    place_of,
    said,
    short,
)
from xconnectd.impairment import Impairments
from xconnectd.model import (
    Admin,
    Carrier,
    Endpoint,
    Link,
    Listen,
    Mode,
    Node,
    Place,
    Rewrite,
    Tunnel,
    Wiring,
)
from xconnectd.monitor_address import MonitorAddress

# --------------------------------------------------------------------------- what a file may hold

VERSION: Final = 1
USER_PREFIX: Final = "x-"
"""Keys at the top that begin so are the user's own and ignored."""

DEFAULT_KEYS: Final = ("mode", "admin", "allow_addressed", "carrier", "mtu", "hold")
"""Those keys of a link that `defaults` may have. What the keys are is said with what reads them."""
LATER_TOP_KEYS: Final = ("mirrors", "endpoints")

CHOICES: Final[Mapping[str, type[StrEnum]]] = {
    "mode": Mode,
    "admin": Admin,
    "carrier": Carrier,
    "rewrite": Rewrite,
}

TEXT_LENGTH: Final = 256
TEXT_PATTERN: Final = rf"^[^{CONTROL}\u2028\u2029]*{END_OF_TEXT}"
"""One line of text."""

LOCALHOST: Final = "127.0.0.1"
"""What ``localhost`` means where metrics are served; ``[::1]`` is another place."""
_PORT: Final = (
    "(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
)
_PATH_BYTES: Final = 107
"""A sockaddr_un holds 108, one of them a NUL."""
_PATH: Final = f"/[!-~]{{0,{_PATH_BYTES - 2}}}[!-.0-~]"
LISTEN_PATTERN: Final = (
    rf"^(?:(?:localhost|{IPV4}|\[(?:{IPV6})\]):{_PORT}|unix:{_PATH}){END_OF_TEXT}"
)
"""Where metrics can be served. Compiled by the file that has them, as that takes milliseconds."""

MONITOR_PATTERN: Final = rf"^(?:qmp|hmp):[^#]*.#[A-Za-z][A-Za-z0-9._-]*{END_OF_TEXT}"
"""Milder than what reads it."""

PATH_PATTERN: Final = rf"^/[^{CONTROL}\u2028\u2029]*{END_OF_TEXT}"
CONTAINER_PATTERN: Final = rf"^[A-Za-z0-9][A-Za-z0-9_.-]*{END_OF_TEXT}"
"""What Docker and Podman take for a container's name (RestrictedNamePattern of their sources)."""
MTUS: Final = range(68, 65_535 + 1)
"""Bytes: those of a veth (ETH_MIN_MTU, ETH_MAX_MTU)."""
PIDS: Final = range(1, (1 << 22) + 1)
"""PID_MAX_LIMIT of linux/threads.h."""

VNIS: Final = range(1, 1 << 24)
PORTS: Final = range(1, 1 << 16)
HOLDS: Final = range(1, 24 * 60 * 60 + 1)
"""Seconds. Within less than one a daemon cannot be told from one that says nothing."""
HOLD_PATTERN: Final = rf"^[1-9][0-9]{{0,4}}[smh]{END_OF_TEXT}"
KEY_LENGTHS: Final = range(16, TEXT_LENGTH + 1)

MAX_LINKS: Final = 32_768
"""As many as the kernel's maps have room for: 65,536 ends."""
MAX_HOSTS: Final = 8_192
"""A cluster of Kubernetes has 5,000 nodes at most."""
_LONGEST_TYPO: Final = 40
_SOME: Final = 8
"""Names that a message lists."""
_MANY_NAMES: Final = 1000
"""Among more of them a misspelt one is not looked for."""
TOO_LARGE: Final = f"is it the right file? {MAX_LINKS:,} links are all that fit"

_YES: Final = ("true", "yes", "on", "y", "1")
_NO: Final = ("false", "no", "off", "n", "0")
_CONTAINERLAB: Final = "`xconnectd import` makes a wiring of a containerlab topology"
_DISCONNECT: Final = "half-written? `links: {}` disconnects everything on purpose"

_is_text: Final = re.compile(TEXT_PATTERN).match
_is_number: Final = re.compile("[1-9][0-9]{0,9}").fullmatch
_is_path: Final = re.compile(PATH_PATTERN).match
_is_container: Final = re.compile(CONTAINER_PATTERN).match

# --------------------------------------------------------------------------- entrances


def parse(text: str | bytes, path: str, fault: Fault = no_fault) -> Wiring:
    """Turn the text of a file into its wiring, or raise ``ConfigError`` with all its problems.

    ``fault`` says what is wrong with a filter, which a library of the machine knows.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    report = Report(path)
    reader = _Reader(report, fault)
    with report.gathering():
        reader.read(compose(data, report))
    report.require_none()
    return Wiring(
        tuple(reader.links),
        edit.digest(data),
        tuple(report.warnings),
        reader.metrics,
        data,
        tuple(reader.hosts.items()),
        reader.hosts_key,
        hosts_place=reader.hosts_place,
    )


# --------------------------------------------------------------------------- nodes to values

_Read = Callable[[ScalarNode, YamlNode], Any]


def _resembles(word: str, known: Iterable[str]) -> str:
    if len(word) > _LONGEST_TYPO:
        return ""
    from difflib import get_close_matches  # 5 ms that only a typo should cost

    close = get_close_matches(word.lower(), known, n=1)
    return f"did you mean `{close[0]}`?" if close else ""


def _version(key: ScalarNode, node: YamlNode) -> None:
    if not is_plain(node, str(VERSION)):
        hint = f"this program reads version {VERSION}"
        raise Refusal(node, f"`{key.value}` is {VERSION}, not {said(node)}", hint)


def _flag(key: ScalarNode, node: YamlNode) -> bool:
    if is_plain(node, "true"):
        return True
    if is_plain(node, "false"):
        return False
    word = node.value.lower() if isinstance(node, ScalarNode) else ""
    hint = "write true" if word in _YES else "write false" if word in _NO else ""
    raise Refusal(node, f"`{key.value}` takes true or false, not {said(node)}", hint)


def _choice(key: ScalarNode, node: YamlNode) -> StrEnum:
    choices = CHOICES[key.value]
    text = node.value if isinstance(node, ScalarNode) else ""
    try:
        return choices(text)
    except ValueError:
        hint = _resembles(text, choices)
        known = ", ".join(choices)
        raise Refusal(node, f"`{key.value}` is one of {known}, not {said(node)}", hint) from None


def _number(allowed: range) -> _Read:
    def read(key: ScalarNode, node: YamlNode) -> int:
        if isinstance(node, ScalarNode) and not node.style and _is_number(node.value):
            number = int(node.value)
            if number in allowed:
                return number
        text = f"`{key.value}` is a number from {allowed[0]} to {allowed[-1]}, not {said(node)}"
        raise Refusal(node, text)

    return read


def _text(key: ScalarNode, node: YamlNode) -> str:
    name = short(key.value)
    if not isinstance(node, ScalarNode):
        raise Refusal(node, f"`{name}` is a text, not {said(node)}")
    if len(node.value) > TEXT_LENGTH:
        text = f"`{name}` has {len(node.value)} characters, {TEXT_LENGTH} fit"
        raise Refusal(node, text, "shorten it")
    if not _is_text(node.value):
        text = f"`{name}` is one line, without control characters"
        raise Refusal(node, text, "`>-` folds lines")
    return node.value


def _hold(key: ScalarNode, node: YamlNode) -> float:
    text = node.value if isinstance(node, ScalarNode) else ""
    if re.match(HOLD_PATTERN, text):
        seconds = int(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]
        if seconds in HOLDS:
            return float(seconds)
    hint = f"`{text}s`" if _is_number(text) and int(text) in HOLDS else "`30s`, `5m` or `2h`"
    raise Refusal(node, f"`{key.value}` is a time from 1s to 24h, not {said(node)}", hint)


def _to_mapping(key: ScalarNode, node: YamlNode) -> MappingNode:
    if not isinstance(node, MappingNode):
        text = f"`{key.value}` is a mapping, not {said(node)}"
        raise Refusal(node, text, f"`{key.value}: {{}}`")
    return node


def _label(key: ScalarNode, node: YamlNode) -> tuple[str, str]:
    if not key.value:
        raise Refusal(key, "a label needs a name", "`labels: {lab: demo}`")
    return _text(key, key), _text(key, node)


def _monitor(key: ScalarNode, node: YamlNode) -> MonitorAddress:
    try:
        return MonitorAddress.parse(_text(key, node))
    except ValueError as error:
        problem, hint = error.args
        raise Refusal(node, problem, hint) from None


# --------------------------------------------------------------------------- where nodes are


_NODE_EXAMPLES: Final = "`{netns: PATH}`, `{container: NAME}` or `{pid: N}`"


def _netns(key: ScalarNode, node: YamlNode) -> str:
    path = _text(key, node)
    if not _is_path(path):
        hint = f"`/run/netns/{short(path)}`" if path else "`/run/netns/blue`"
        raise Refusal(node, f"`{key.value}` is a file's path from / on, not {said(node)}", hint)
    return path


def _container(key: ScalarNode, node: YamlNode) -> str:
    name = _text(key, node)
    if not _is_container(name):
        bare = name.removeprefix("/")
        hint = f"`{short(bare)}`" if _is_container(bare) else "letters, digits and _ . - are in it"
        raise Refusal(node, f"`{key.value}` is a container's name, not {said(node)}", hint)
    return name


def _to_node(key: ScalarNode, node: YamlNode) -> MappingNode:
    """An entry of ``nodes``."""
    if not key.value:
        raise Refusal(key, "a node needs a name", "`nodes: {blue: {netns: /run/netns/blue}}`")
    ends.check_name(key, key.value)
    if isinstance(node, MappingNode):
        return node
    hint = _NODE_EXAMPLES
    if isinstance(node, ScalarNode) and node.value:
        kinds = {"netns": _is_path, "pid": _is_number, "container": _is_container}
        kind = next((kind for kind, fits in kinds.items() if fits(node.value)), "")
        hint = f"`{{{kind}: {short(node.value)}}}`" if kind else hint
    raise Refusal(
        node, f"`{short(key.value)}` says where it is by a mapping, not {said(node)}", hint
    )


# --------------------------------------------------------------------------- where metrics are


_LISTEN_EXAMPLE: Final = "`metrics: {listen: 127.0.0.1:9109}`"


def _listen(key: ScalarNode, node: YamlNode) -> Listen:
    if not isinstance(node, ScalarNode):
        text = f"`{key.value}` is an address and a port, not {said(node)}"
        raise Refusal(node, text, 'an IPv6 address stands in quotes: `"[::1]:9109"`')
    if not re.match(LISTEN_PATTERN, node.value):
        text, hint = _why_no_listen(node)
        raise Refusal(node, f"metrics cannot be served at {said(node)}: {text}", hint)
    return _to_listen(node.value, place_of(node))


def _to_listen(text: str, place: Place) -> Listen:
    """Of a text that fits the pattern."""
    if text.startswith("unix:"):
        return Listen(path=text.removeprefix("unix:"), place=place)
    host, _, port = text.rpartition(":")
    address = LOCALHOST if host == "localhost" else host.strip("[]")
    return Listen(address, int(port), place=place)


def _why_no_listen(node: ScalarNode) -> tuple[str, str]:
    text = node.value
    if text.startswith(("unix:", "/", "@")):
        path = f"an absolute path of at most {_PATH_BYTES} ASCII characters without spaces"
        return f"a unix socket needs {path}", "`unix:/run/xconnectd/metrics.sock`"
    if "//" in text:
        return "this is a URL", "the address and the port alone: `127.0.0.1:9109`"
    host, _, port = text.rpartition(":")
    if not host and port.isdecimal():
        return "the address is missing", "`127.0.0.1:9109` is for this host, 0.0.0.0 for everyone"
    if re.match(LISTEN_PATTERN, f"{host}:1"):
        return "a port is a number from 1 to 65535", "`127.0.0.1:9109`"
    if re.match(LISTEN_PATTERN, f"[{text}]:1") or re.match(LISTEN_PATTERN, f"[{host}]:1"):
        return "an IPv6 address stands in brackets, then the port", '`"[::1]:9109"`'
    if re.match(LISTEN_PATTERN, f"{text}:1"):
        return "the port is missing", f"`{text}:9109`"
    return "it takes an IP address and a port", "`127.0.0.1:9109`"


# --------------------------------------------------------------------------- values to wiring

_HOSTS_EXAMPLE: Final = "`hosts: {h1: 198.51.100.11, h2: 198.51.100.12}`"


def _to_hosts(key: ScalarNode, node: YamlNode) -> MappingNode:
    if not isinstance(node, MappingNode) or not node.entries:
        what = said(node) if not isinstance(node, MappingNode) else "nothing"
        text = f"`{key.value}` is a mapping of names to IP addresses, not {what}"
        raise Refusal(node, text, f"{_HOSTS_EXAMPLE}; without the key all ends are on this one")
    if len(node.entries) > MAX_HOSTS:
        text = f"there are {len(node.entries):,} hosts, {MAX_HOSTS:,} are all that fit"
        raise Refusal(node, text, "is it the right file?")
    return node


def _host(key: ScalarNode, node: YamlNode) -> tuple[str, str]:
    if not key.value:
        raise Refusal(key, "a host needs a name", _HOSTS_EXAMPLE)
    ends.check_host(key, key.value)
    return key.value, ends.address(key, node)


def _hosts_key(key: ScalarNode, node: YamlNode) -> str:
    secret = _text(key, node)
    if len(secret) not in KEY_LENGTHS:
        text = f"`{key.value}` has {len(secret)} characters, and needs at least {KEY_LENGTHS[0]}"
        raise Refusal(node, text, "`openssl rand -hex 16` makes one")
    return secret


_Entries = Mapping[str, tuple[ScalarNode, YamlNode]]


def _to_links(key: ScalarNode, node: YamlNode) -> MappingNode:
    if isinstance(node, MappingNode):
        return node
    if isinstance(node, SequenceNode):
        raise Refusal(node, f"a list under `{key.value}` is not in this version", "`eth0: tap0`")
    if is_null(node):
        raise Refusal(node, f"`{key.value}` is empty", _DISCONNECT)
    hint = "a space after the colon: `eth0: tap0`" if ":" in node.value else "`eth0: tap0`"
    raise Refusal(node, f"`{key.value}` holds pairs, not {said(node)}", hint)


def _to_metrics(key: ScalarNode, node: YamlNode) -> MappingNode:
    if not isinstance(node, MappingNode):
        text = f"`{key.value}` is a mapping, not {said(node)}"
        raise Refusal(node, text, f"{_LISTEN_EXAMPLE}; without the key there are none")
    if "listen" not in node.entries:
        raise Refusal(node, f"`{key.value}` lacks `listen`", _LISTEN_EXAMPLE)
    return node


def _to_end(key: ScalarNode, node: YamlNode) -> Endpoint | MappingNode:
    return node if isinstance(node, MappingNode) else ends.read(key, node)


_TUNNEL_EXAMPLE: Final = "`to: {vxlan: {remote: 203.0.113.5, vni: 100}}`"


def _to_tunnel(key: ScalarNode, node: YamlNode) -> MappingNode:
    if not isinstance(node, MappingNode):
        raise Refusal(node, f"`{key.value}` is a mapping, not {said(node)}", _TUNNEL_EXAMPLE)
    for needed in ("remote", "vni"):
        if needed not in node.entries:
            raise Refusal(node, f"`{key.value}` lacks `{needed}`", _TUNNEL_EXAMPLE)
    return node


_OPTIONS: Final[Mapping[str, _Read]] = {
    "to": _to_end,
    "mode": _choice,
    "one_way": _flag,
    "rewrite": _choice,
    "enabled": _flag,
    "admin": _choice,
    "allow_addressed": _flag,
    "description": _text,
    "labels": _to_mapping,
    "carrier": _choice,
    "ends": _to_mapping,
    "mtu": _number(MTUS),
    "impair": _to_mapping,
    "vni": _number(VNIS),
    "hold": _hold,
}


class _Level(NamedTuple):
    """A level of the file: what reads each of its keys, and what is said of others."""

    where: str
    known: Mapping[str, _Read]
    later: tuple[str, ...] = ()
    hint: str = ""

    def read(self, key: ScalarNode, node: YamlNode) -> Any:
        name = key.value
        if known := self.known.get(name):
            return known(key, node)
        if name in self.later:
            raise Refusal(key, f"`{name}` is not in this version", "leave it out")
        hint = _resembles(name, self.known) or self.hint or f"known: {', '.join(self.known)}"
        raise Refusal(key, f"unknown key `{short(name)}` {self.where}", hint)


_TOP: Final = _Level(
    "at the top of the file",
    {
        "version": _version,
        "defaults": _to_mapping,
        "metrics": _to_metrics,
        "nodes": _to_mapping,
        "hosts": _to_hosts,
        "hosts_key": _hosts_key,
        "links": _to_links,
    },
    LATER_TOP_KEYS,
    f"links stand under `links:`, keys of your own begin with {USER_PREFIX}",
)
_DEFAULTS: Final = _Level("in `defaults`", {key: _OPTIONS[key] for key in DEFAULT_KEYS})
_METRICS: Final = _Level("in `metrics`", {"listen": _listen})
_NODE: Final = _Level("of a node", {"netns": _netns, "container": _container, "pid": _number(PIDS)})
_LINK: Final = _Level("in a link", _OPTIONS)
_TO: Final = _Level("in `to`", {"vxlan": _to_tunnel}, hint=_TUNNEL_EXAMPLE)
_TUNNEL: Final = _Level(
    "of a tunnel", {"remote": ends.address, "vni": _number(VNIS), "port": _number(PORTS)}
)
_ENDS: Final = _Level("of an end", {"monitor": _monitor})

TOP_KEYS: Final = tuple(_TOP.known)
METRICS_KEYS: Final = tuple(_METRICS.known)
NODE_KEYS: Final = tuple(_NODE.known)
LINK_KEYS: Final = tuple(_LINK.known)
END_KEYS: Final = tuple(_ENDS.known)
TUNNEL_KEYS: Final = tuple(_TUNNEL.known)


class _Reader:
    """Reads one file's nodes; what is bad is reported and left out, so that all of it is found."""

    def __init__(self, report: Report, fault: Fault) -> None:
        self.links: list[Link] = []
        self.metrics: Listen | None = None
        self.hosts: dict[str, str] = {}
        self.hosts_key = ""
        self.hosts_place: Place | None = None
        self._report = report
        self._fault = fault
        self._defaults: dict[str, Any] = {}
        self._of_made: dict[str, Any] = {}
        """Those of links with an end in a node; other links do not change with them."""
        self._of_crossing: dict[str, Any] = {}
        """Those of links between two hosts, likewise."""
        self._taken: dict[str, Link] = {}
        self._taken_on_hosts: dict[str, Link] = {}
        """By what the end is called there."""
        self._vnis: dict[hosts.Taken, Link] = {}
        self._known_monitors: dict[tuple[str, MonitorAddress], Endpoint] = {}
        self._nodes: dict[str, Node] = {}
        self._named: set[str] = set()
        self._named_hosts: Collection[str] | None = ()
        """None where nobody can say which they are."""
        self._refused: set[tuple[int, int]] = set()

    def read(self, root: YamlNode | None) -> None:
        entries = self._top(root)
        top = self._values(_TOP, entries)
        if defaults := top.get("defaults"):
            self._defaults = self._values(_DEFAULTS, defaults.entries)
            if "mtu" in self._defaults:
                self._of_made = {"mtu": self._defaults.pop("mtu")}
            if "hold" in self._defaults:
                self._of_crossing = {"hold": self._defaults.pop("hold")}
        if metrics := top.get("metrics"):
            self.metrics = self._values(_METRICS, metrics.entries).get("listen")
        if nodes := top.get("nodes"):
            self._nodes = {key.value: self._node(key, it) for key, it in nodes.entries.values()}
        self._read_hosts(top, entries)
        if links := top.get("links"):
            if len(links.entries) > MAX_LINKS:
                text = f"there are {len(links.entries):,} links, {MAX_LINKS:,} fit"
                raise Refusal(links, text, "that is the room in the kernel's maps")
            for key, value in links.entries.values():
                self._link(key, value)
        if nodes:
            self._warn_of_unnamed(nodes)

    def _top(self, root: YamlNode | None) -> _Entries:
        if root is None or is_null(root):
            raise Refusal(root, "the file is empty", _DISCONNECT)
        if not isinstance(root, MappingNode):
            raise Refusal(root, f"the file is a mapping, not {said(root)}", "`links: {}`")
        if "links" not in root.entries:
            hint = _CONTAINERLAB if "topology" in root.entries else _DISCONNECT
            self._report.problem(root, "there is no `links:`", hint)
        return {key: it for key, it in root.entries.items() if not key.startswith(USER_PREFIX)}

    def _values(self, level: _Level, entries: _Entries) -> dict[str, Any]:
        """What the keys of a level say, without those that only had to be right."""
        read = ((key, self._try(level.read, at, node)) for key, (at, node) in entries.items())
        return {key: value for key, value in read if value is not None}

    def _try(self, read: _Read, key: ScalarNode, node: YamlNode) -> Any:
        """What ``read`` makes of a value, None if that is refused.

        Behind an alias it is the same key and value again and again; once is enough to refuse it.
        """
        if (id(key), id(node)) in self._refused:
            return None
        try:
            return read(key, bounded(node))
        except Refusal as refusal:
            self._refused.add((id(key), id(node)))
            self._report.add(refusal)
            return None

    def _node(self, key: ScalarNode, value: YamlNode) -> Node:
        entry = self._try(_to_node, key, value)
        if not entry:
            return Node(key.value)
        given = [each for each in NODE_KEYS if each in entry.entries]
        if not entry.entries:
            text = f"`{short(key.value)}` says nothing of where it is"
            self._report.problem(entry, text, _NODE_EXAMPLES)
        elif len(given) > 1:
            text = f"`{short(key.value)}` is in two places, by {' and '.join(given)}"
            self._report.problem(entry.entries[given[1]][0], text, "keep one of them")
        return Node(key.value, **self._values(_NODE, entry.entries))

    def _placed(self, end: Endpoint) -> Endpoint:
        """With what ``nodes`` says of its node."""
        if end.node is None:
            return end
        self._named.add(end.node.name)
        return end._replace(node=self._nodes.get(end.node.name, end.node))

    def _warn_of_unnamed(self, nodes: MappingNode) -> None:
        """Of entries that no link needs."""
        unnamed = self._nodes.keys() - self._named
        strange = self._named - self._nodes.keys()
        near = spelling.meant(unnamed, strange if len(strange) <= _MANY_NAMES else ())
        for name in filter(unnamed.__contains__, self._nodes):
            text = f"no link has an end in the node `{short(name)}`"
            hint = f" (did you mean `{short(near[name])}`?)" if name in near else ""
            self._report.warn(place_of(nodes.entries[name][0]), f"{text}{hint}")

    def _read_hosts(self, top: Mapping[str, Any], entries: _Entries) -> None:
        self.hosts_key = top.get("hosts_key", "")
        if "hosts" not in entries:
            if "hosts_key" in entries:
                text = "`hosts_key` is of what daemons of several hosts say to each other"
                self._report.problem(entries["hosts_key"][0], text, "there is no `hosts:`")
            return
        self.hosts_place = place_of(entries["hosts"][0])
        named: Mapping[str, Any] | None = top["hosts"].entries if "hosts" in top else None
        self._named_hosts = named
        owners: dict[str, str] = {}
        for key, value in (named or {}).values():
            if not (found := self._try(_host, key, value)):
                continue
            name, address = found
            if (twin := owners.setdefault(address, name)) != name:
                text = f"`{short(address)}` is the address of `{short(twin)}` already"
                self._report.problem(value, text, "every host has one of its own")
            self.hosts[name] = address

    def _link(self, key: ScalarNode, value: YamlNode) -> None:
        a = self._try(ends.read, key, key)
        mode_place = key
        if isinstance(value, MappingNode):
            mode_place, _ = value.entries.get("mode", (key, None))
            b, options = self._long_form(a, value)
            _, value = value.entries.get("to") or self._lacks_other_end(key)
        else:
            options, b = {}, self._try(ends.read, key, value)
        if not (a and b):
            return
        impair = options.pop("impair", None)
        if a.node or b.node:
            a, b = self._placed(a), self._placed(b)
            options = {**self._of_made, **options}
        if a.host or b.host:
            self._check_hosts({a: key, b: value})
        if hosts.crosses(a, b):
            options = {"vni": hosts.vni_of(a, b), **self._of_crossing, **options}
        link = Link(a, b, place=place_of(key), **{**self._defaults, **options})
        if (link.vni or b.tunnel) and link.mode in (Mode.GENERIC, Mode.NATIVE):
            text = f"mode {link.mode} loses VLAN tags and large frames in a tunnel"
            self._report.problem(mode_place, text, "`mode: tc`, or `auto`, which is tc there")
        if impair:
            link = replace(link, impair=self._impair(impair, link))
        self._join(link, key, value)

    def _long_form(
        self, a: Endpoint | None, value: MappingNode
    ) -> tuple[Endpoint | None, dict[str, Any]]:
        """The other end of a link, and its options."""
        options = self._values(_LINK, value.entries)
        b = options.pop("to", None)
        if isinstance(b, MappingNode):
            b = self._tunnel_end(b)
        if a and b:
            self._check_fitting(a, b, options, value)
        if labels := options.get("labels"):
            options["labels"] = self._labels(labels)
        options["carrier_of_nics"] = options.get("carrier") is Carrier.FOLLOW
        if by_end := options.pop("ends", None):
            options["monitors"] = self._monitors(by_end, {a, b})
        return b, options

    def _check_fitting(
        self, a: Endpoint, b: Endpoint, options: dict[str, Any], value: MappingNode
    ) -> None:
        """Refuses options that mean nothing for a link with these ends."""
        pair = f"`{short(a.name)}: {short(b.name)}`"
        strange = {}
        if not (a.node or b.node):
            strange["mtu"] = f"`mtu` is of interfaces made in nodes; {pair} has no end in one"
        if not hosts.crosses(a, b):
            strange["vni"] = f"`vni` is of the tunnel between two hosts; {pair} needs none"
            strange["hold"] = f"`hold` is of links between two hosts; {pair} is none"
        if a == b and options.get("one_way"):
            strange["one_way"] = "`one_way` needs two ends, and this link is a loopback"
        for name in strange.keys() & options.keys():
            del options[name]
            self._report.problem(value.entries[name][0], strange[name], "leave it out")

    def _tunnel_end(self, to: MappingNode) -> Endpoint | None:
        tunnel = self._values(_TO, to.entries).get("vxlan")
        if not to.entries:
            self._report.problem(to, "`to` says nothing of the other end", _TUNNEL_EXAMPLE)
        values = self._values(_TUNNEL, tunnel.entries) if tunnel else {}
        whole = {"remote", "vni"} <= values.keys()
        return ends.of_tunnel(Tunnel(**values)) if whole else None

    def _check_hosts(self, found: Mapping[Endpoint, YamlNode]) -> None:
        """Whether the hosts of these ends, one at least, are known and can have a link."""
        known = self._named_hosts
        for end, node in found.items():
            if end.host and known is not None and end.host not in known:
                text = f"`{short(end.name)}` is on a host that `hosts` does not have"
                near = _resembles(end.host, known) if len(known) <= _MANY_NAMES else ""
                hint = near or f"known: {', '.join([*known][:_SOME])}"
                if not known:
                    text = f"`{short(end.name)}` is on a host, and there is no `hosts:`"
                    hint = f"{_HOSTS_EXAMPLE}; an interface alone has no slash in its name"
                self._report.problem(node, text, hint)
            elif not (end.host or end.tunnel):
                other = next(each for each in found if each.host)
                text = f"`{short(end.name)}` has no host, and `{short(other.name)}` is on one"
                hint = f"`{other.host}/{short(end.name)}`, or whichever host it is on"
                self._report.problem(node, text, hint)
        places = {end.host: self.hosts[end.host] for end in found if end.host in self.hosts}
        if len({":" in address for address in places.values()}) > 1:
            kinds = (f"`{name}` has {address}" for name, address in places.items())
            text = f"{' and '.join(kinds)}: a VXLAN device speaks one of IPv4 and IPv6, so no frame"
            text += " crosses; give both hosts addresses of one kind"
            self._report.warn(place_of([*found.values()][-1]), text)

    def _impair(self, node: MappingNode, link: Link) -> Impairments | None:
        found = impairments.read(node, self._report, self._fault)
        if not any(found):
            return None
        if link.mode in (Mode.GENERIC, Mode.NATIVE):
            text = f"`impair` needs mode tc: in mode {link.mode} frames go past every queue"
            self._report.problem(node, text, "leave `mode` out, or `mode: tc`")
        if link.a == link.b and found.forward != found.reverse:
            text = "frames cross a loopback one way"
            self._report.problem(node, text, "without `forward` and `reverse`")
        return found

    def _labels(self, labels: MappingNode) -> tuple[tuple[str, str], ...]:
        read = (self._try(_label, key, node) for key, node in labels.entries.values())
        return tuple(label for label in read if label is not None)

    def _monitors(
        self, options: MappingNode, known: set[Endpoint | None]
    ) -> tuple[tuple[str, MonitorAddress], ...]:
        found = []
        for key, node in options.entries.values():
            end = self._try(ends.read, key, key)
            of_end = self._try(_to_mapping, key, node)
            if end and None not in known and end not in known:
                names = " and ".join(sorted({each.name for each in known if each}))
                text = f"`{short(end.name)}` is no end of this link"
                self._report.problem(key, text, f"its ends are {names}")
            address = of_end and self._values(_ENDS, of_end.entries).get("monitor")
            if end and address:
                first = self._known_monitors.setdefault((end.host, address), end)
                if first != end:
                    text = f"{address} is the monitor of `{first}` already"
                    self._report.problem(node, text, "a netdev is behind one interface")
            if end and end.node and address:
                text = f"`{short(end.name)}` is in a node; a monitor is of the machine behind a tap"
                self._report.problem(node, text, "leave it out")
            if end and address:
                found.append((end.name, address))
        return tuple(found)

    def _lacks_other_end(self, key: ScalarNode) -> tuple[ScalarNode, YamlNode]:
        text = f"the link of `{short(key.value)}` lacks `to`, its other end"
        self._report.problem(key, text, "`to: tap0`")
        return key, key

    def _join(self, link: Link, key: ScalarNode, other: YamlNode) -> None:
        """Add a link, unless an end of it is in another one or it is one that we know."""
        taken, a, b = self._taken, link.a.name, link.b.name
        if a in taken or b in taken:
            self._clash(link, {b: other, a: key})
        else:
            self.links.append(link)
            if link.vni or link.b.tunnel:
                self._check_vni(link, key)
        taken.setdefault(a, link)
        taken.setdefault(b, link)
        if link.a.host or link.b.host or self._taken_on_hosts:
            self._check_everywhere({link.b: other, link.a: key}, link)

    def _clash(self, link: Link, ends: Mapping[str, YamlNode]) -> None:
        clashes = {name: self._taken[name] for name in ends if name in self._taken}
        first = next(iter(clashes.values()))
        if first.id == link.id:
            self._reversed(link, first, ends[link.a.name])
        else:
            for name, other in clashes.items():
                self._taken_twice(name, ends[name], other)

    def _check_vni(self, link: Link, key: ScalarNode) -> None:
        """Two tunnels of one host would be one."""
        if other := next(filter(None, map(self._vnis.get, hosts.meets(link))), None):
            text = f"the tunnel of {_pair(link)} has the VNI {hosts.vni(link)}, as that of"
            hint = "give one of them another: `vni: N` in the long form"
            self._report.problem(key, f"{text} {_pair(other)} of {_line(other)}", hint)
        for each in hosts.takes(link):
            self._vnis.setdefault(each, link)

    def _check_everywhere(self, found: Mapping[Endpoint, YamlNode], link: Link) -> None:
        """An end without a host is one of every host."""
        for end, node in found.items():
            name = ends.bare(end)
            other = (self._taken if end.host else self._taken_on_hosts).get(name)
            if other and other is not link:
                text = f"`{short(name)}` is in the link {_pair(other)} of {_line(other)} already"
                hint = f"an end without a host is on every host: `HOST/{short(name)}` is on one"
                self._report.problem(node, text, hint)
            if end.host:
                self._taken_on_hosts.setdefault(name, link)

    def _reversed(self, link: Link, first: Link, key: YamlNode) -> None:
        same = f"{_pair(link)} is the link {_pair(first)} of {_line(first)}"
        impair = link.impair and link.impair.turned
        same_options = replace(link, a=first.a, b=first.b, impair=impair) == first
        if same_options and not link.one_way:
            self._report.warn(place_of(key), f"{same}, one of the two is enough")
        else:
            self._report.problem(key, f"{same} with other options", "keep one of the two")

    def _taken_twice(self, name: str, node: YamlNode, other: Link) -> None:
        text = f"`{short(name)}` is in the link {_pair(other)} of {_line(other)} already"
        self._report.problem(node, text, "an interface belongs to one link")


def _pair(link: Link) -> str:
    return f"`{short(link.a.name)}: {short(link.b.name)}`"


def _line(link: Link) -> str:
    return f"line {link.place.line}" if link.place else "another line"
