"""The keys of a file: where each may stand, what it may hold, and what reads its value.

``parser`` makes a wiring of the values, ``json_schema`` describes the same tables to editors. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from xconnectd.config import ends
from xconnectd.config.ends import CONTROL, END_OF_TEXT, IPV4, IPV6
from xconnectd.config.yaml_tree import (
    MappingNode,
    Refusal,
    ScalarNode,
    SequenceNode,
    YamlNode,
    is_null,
    is_plain,
    place_of,
    said,
    short,
)
from xconnectd.model import LEAST_MTU, Admin, Carrier, Endpoint, Listen, Mode, Place, Rewrite
from xconnectd.monitor_address import PATH_BYTES, MonitorAddress

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
_PATH: Final = f"/[!-~]{{0,{PATH_BYTES - 2}}}[!-.0-~]"
LISTEN_PATTERN: Final = (
    rf"^(?:(?:localhost|{IPV4}|\[(?:{IPV6})\]):{_PORT}|unix:{_PATH}){END_OF_TEXT}"
)
"""Where metrics can be served. Compiled by the file that has them, as that takes milliseconds."""

MONITOR_PATTERN: Final = rf"^(?:qmp|hmp):[^#]*.#[A-Za-z][A-Za-z0-9._-]*{END_OF_TEXT}"
"""Milder than what reads it."""

PATH_PATTERN: Final = rf"^/[^{CONTROL}\u2028\u2029]*{END_OF_TEXT}"
CONTAINER_PATTERN: Final = rf"^[A-Za-z0-9][A-Za-z0-9_.-]*{END_OF_TEXT}"
"""What Docker and Podman take for a container's name (RestrictedNamePattern of their sources)."""
MTUS: Final = range(LEAST_MTU, 65_535 + 1)
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
TOO_LARGE: Final = f"is it the right file? {MAX_LINKS:,} links are all that fit"

_YES: Final = ("true", "yes", "on", "y", "1")
_NO: Final = ("false", "no", "off", "n", "0")
DISCONNECT: Final = "half-written? `links: {}` disconnects everything on purpose"

_is_text: Final = re.compile(TEXT_PATTERN).match
_is_number: Final = re.compile("[1-9][0-9]{0,9}").fullmatch
_is_path: Final = re.compile(PATH_PATTERN).match
_is_container: Final = re.compile(CONTAINER_PATTERN).match

# --------------------------------------------------------------------------- nodes to values

Read = Callable[[ScalarNode, YamlNode], Any]


def resembles(word: str, known: Iterable[str]) -> str:
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
        hint = resembles(text, choices)
        known = ", ".join(choices)
        raise Refusal(node, f"`{key.value}` is one of {known}, not {said(node)}", hint) from None


def _number(allowed: range) -> Read:
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


def to_mapping(key: ScalarNode, node: YamlNode) -> MappingNode:
    if not isinstance(node, MappingNode):
        text = f"`{key.value}` is a mapping, not {said(node)}"
        raise Refusal(node, text, f"`{key.value}: {{}}`")
    return node


def label(key: ScalarNode, node: YamlNode) -> tuple[str, str]:
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


NODE_EXAMPLES: Final = "`{netns: PATH}`, `{container: NAME}` or `{pid: N}`"


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


def to_node(key: ScalarNode, node: YamlNode) -> MappingNode:
    """An entry of ``nodes``."""
    if not key.value:
        raise Refusal(key, "a node needs a name", "`nodes: {blue: {netns: /run/netns/blue}}`")
    ends.check_name(key, key.value)
    if isinstance(node, MappingNode):
        return node
    hint = NODE_EXAMPLES
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
        path = f"an absolute path of at most {PATH_BYTES} ASCII characters without spaces"
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

HOSTS_EXAMPLE: Final = "`hosts: {h1: 198.51.100.11, h2: 198.51.100.12}`"


def _to_hosts(key: ScalarNode, node: YamlNode) -> MappingNode:
    if not isinstance(node, MappingNode) or not node.entries:
        what = said(node) if not isinstance(node, MappingNode) else "nothing"
        text = f"`{key.value}` is a mapping of names to IP addresses, not {what}"
        raise Refusal(node, text, f"{HOSTS_EXAMPLE}; without the key all ends are on this one")
    if len(node.entries) > MAX_HOSTS:
        text = f"there are {len(node.entries):,} hosts, {MAX_HOSTS:,} are all that fit"
        raise Refusal(node, text, "is it the right file?")
    return node


def host(key: ScalarNode, node: YamlNode) -> tuple[str, str]:
    if not key.value:
        raise Refusal(key, "a host needs a name", HOSTS_EXAMPLE)
    ends.check_host(key, key.value)
    return key.value, ends.address(key, node)


def _hosts_key(key: ScalarNode, node: YamlNode) -> str:
    secret = _text(key, node)
    if len(secret) not in KEY_LENGTHS:
        text = f"`{key.value}` has {len(secret)} characters, and needs at least {KEY_LENGTHS[0]}"
        raise Refusal(node, text, "`openssl rand -hex 16` makes one")
    return secret


Entries = Mapping[str, tuple[ScalarNode, YamlNode]]


def _to_links(key: ScalarNode, node: YamlNode) -> MappingNode:
    if isinstance(node, MappingNode):
        return node
    if isinstance(node, SequenceNode):
        raise Refusal(node, f"a list under `{key.value}` is not in this version", "`eth0: tap0`")
    if is_null(node):
        raise Refusal(node, f"`{key.value}` is empty", DISCONNECT)
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


TUNNEL_EXAMPLE: Final = "`to: {vxlan: {remote: 203.0.113.5, vni: 100}}`"


def _to_tunnel(key: ScalarNode, node: YamlNode) -> MappingNode:
    if not isinstance(node, MappingNode):
        raise Refusal(node, f"`{key.value}` is a mapping, not {said(node)}", TUNNEL_EXAMPLE)
    for needed in ("remote", "vni"):
        if needed not in node.entries:
            raise Refusal(node, f"`{key.value}` lacks `{needed}`", TUNNEL_EXAMPLE)
    return node


_OPTIONS: Final[Mapping[str, Read]] = {
    "to": _to_end,
    "mode": _choice,
    "one_way": _flag,
    "rewrite": _choice,
    "enabled": _flag,
    "admin": _choice,
    "allow_addressed": _flag,
    "description": _text,
    "labels": to_mapping,
    "carrier": _choice,
    "ends": to_mapping,
    "mtu": _number(MTUS),
    "impair": to_mapping,
    "vni": _number(VNIS),
    "hold": _hold,
}


class Level(NamedTuple):
    """A level of the file: what reads each of its keys, and what is said of others."""

    where: str
    known: Mapping[str, Read]
    later: tuple[str, ...] = ()
    hint: str = ""

    def read(self, key: ScalarNode, node: YamlNode) -> Any:
        name = key.value
        if known := self.known.get(name):
            return known(key, node)
        if name in self.later:
            raise Refusal(key, f"`{name}` is not in this version", "leave it out")
        hint = resembles(name, self.known) or self.hint or f"known: {', '.join(self.known)}"
        raise Refusal(key, f"unknown key `{short(name)}` {self.where}", hint)


TOP: Final = Level(
    "at the top of the file",
    {
        "version": _version,
        "defaults": to_mapping,
        "metrics": _to_metrics,
        "nodes": to_mapping,
        "hosts": _to_hosts,
        "hosts_key": _hosts_key,
        "links": _to_links,
    },
    LATER_TOP_KEYS,
    f"links stand under `links:`, keys of your own begin with {USER_PREFIX}",
)
DEFAULTS: Final = Level("in `defaults`", {key: _OPTIONS[key] for key in DEFAULT_KEYS})
METRICS: Final = Level("in `metrics`", {"listen": _listen})
NODE: Final = Level("of a node", {"netns": _netns, "container": _container, "pid": _number(PIDS)})
LINK: Final = Level("in a link", _OPTIONS)
TO: Final = Level("in `to`", {"vxlan": _to_tunnel}, hint=TUNNEL_EXAMPLE)
TUNNEL: Final = Level(
    "of a tunnel", {"remote": ends.address, "vni": _number(VNIS), "port": _number(PORTS)}
)
ENDS: Final = Level("of an end", {"monitor": _monitor})

TOP_KEYS: Final = tuple(TOP.known)
METRICS_KEYS: Final = tuple(METRICS.known)
NODE_KEYS: Final = tuple(NODE.known)
LINK_KEYS: Final = tuple(LINK.known)
END_KEYS: Final = tuple(ENDS.known)
TUNNEL_KEYS: Final = tuple(TUNNEL.known)
