"""What an end may be called: an interface, one in a node, and either of them on a host.

Also what a tunnel to a device that is not ours is called, and where one can lead to. Pure.
"""

from __future__ import annotations

import re
from typing import Final

from xconnectd.config.yaml_tree import Refusal, ScalarNode, YamlNode, said, short
from xconnectd.model import VXLAN_PORT, Endpoint, Node, Tunnel

# --------------------------------------------------------------------------- patterns

NAME_BYTES: Final = 127
"""ALTIFNAMSIZ less its NUL. What is longer than 15 (IFNAMSIZ) can only be an altname."""
CONTROL: Final = r"\x00-\x1f\x7f-\x9f\ud800-\udfff"
END_OF_TEXT: Final = r"(?![\s\S])"
"""A ``$`` would let a last newline pass."""
_UNSEEN: Final = r"\xad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff"
"""What nobody sees in an editor or a table, and what comes along where a name is copied."""
_NAME: Final = rf"[^\s{CONTROL}{_UNSEEN}\[\]{{}}*?,/:@]"
NAME_PATTERN: Final = rf"^(?!\.{{1,2}}{END_OF_TEXT}){_NAME}+{END_OF_TEXT}"
"""What dev_valid_name() takes, less the characters kept free for patterns and addresses. A node's
name is the same: it can be that of a file in /run/netns, and a container's has fewer characters."""
INTERFACE_BYTES: Final = 15
"""IFNAMSIZ less its NUL: of an interface in a node, which can be made and hence is no altname."""
HOST_BYTES: Final = 253
_LABEL: Final = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST: Final = rf"{_LABEL}(?:\.{_LABEL})*"
HOST_PATTERN: Final = rf"^{_HOST}{END_OF_TEXT}"
"""A name in the DNS (RFC 1123), as host names and those of Kubernetes' nodes are."""
END_PATTERN: Final = (
    rf"^(?:{_HOST}/)?(?!\.{{1,2}}(?::|{END_OF_TEXT})){_NAME}{{1,{NAME_BYTES}}}"
    rf"(?::(?!\.{{1,2}}{END_OF_TEXT}){_NAME}{{1,{INTERFACE_BYTES}}})?{END_OF_TEXT}"
)
"""``INTERFACE`` or ``NODE:INTERFACE``, with ``HOST/`` before it or without; in characters."""

_BYTE: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_GROUP: Final = "[0-9A-Fa-f]{1,4}"
IPV4: Final = rf"{_BYTE}(?:\.{_BYTE}){{3}}"
IPV6: Final = "|".join(
    (
        f"(?:{_GROUP}:){{7}}{_GROUP}",
        f"(?:{_GROUP}:){{1,7}}:",
        f":(?::{_GROUP}){{1,7}}",
        "::",
        *(f"(?:{_GROUP}:){{1,{7 - n}}}(?::{_GROUP}){{1,{n}}}" for n in range(1, 7)),
    )
)
ADDRESS_PATTERN: Final = rf"^(?:{IPV4}|{IPV6}){END_OF_TEXT}"
"""Compiled by the file that has one, as that takes milliseconds."""

_is_name: Final = re.compile(NAME_PATTERN).match

_COLONS: Final = "an end in a node is `NODE:INTERFACE`; a pair is `a: b`, with a space"
_SLASHES: Final = "an end on a host is `HOST/INTERFACE` or `HOST/NODE:INTERFACE`"
_NAME_HINTS: Final = {
    "*": "patterns are not in this version, one line per pair",
    "?": "patterns are not in this version, one line per pair",
    "[": "ranges are not in this version, one line per pair",
    "{": "ranges are not in this version, one line per pair",
    ",": "an interface belongs to one link, one line per pair",
    "/": "the interface's name, without a path; an end in a namespace is `NODE:INTERFACE`",
    ":": "the node alone, without an interface",
}

# --------------------------------------------------------------------------- ends


def is_end(text: str) -> bool:
    """Whether a file without hosts can call an end so."""
    node = ScalarNode(text, "", 0, 0)
    try:
        return not read(node, node).host
    except Refusal:
        return False


def read(key: ScalarNode, node: YamlNode) -> Endpoint:
    """The end that a node names.

    Where its node and its host are only ``nodes`` and ``hosts`` say, which may stand further down.
    """
    if not isinstance(node, ScalarNode):
        text = f"`{short(key.value)}` is the name of one interface, not {said(node)}"
        raise Refusal(node, text, "one line per pair, an interface belongs to one link")
    name: str = node.value
    if _is_name(name) and (len(name) <= NAME_BYTES // 4 or len(name.encode()) <= NAME_BYTES):
        return Endpoint(name)
    if not name:
        raise _no_end(key, node)
    host, slash, rest = name.partition("/")
    if not (host and slash):
        return _on_one_host(node, name)
    check_host(node, host)
    if not rest:
        raise Refusal(node, f"`{short(name)}` lacks the end behind its slash", _SLASHES)
    if "/" in rest:
        raise Refusal(node, f"there is a second `/` in `{short(name)}`", _SLASHES)
    return Endpoint(name, _on_one_host(node, rest).node, host=host)


def bare(end: Endpoint) -> str:
    """What an end on a host is called there."""
    return end.name.partition("/")[2] if end.host else end.name


def _on_one_host(node: ScalarNode, name: str) -> Endpoint:
    if ":" not in name:
        check_name(node, name)
        return Endpoint(name)
    where, _, interface = name.partition(":")
    if not where or not interface:
        what = "the interface behind" if where else "the node before"
        raise Refusal(node, f"`{short(name)}` lacks {what} its colon", _COLONS)
    if ":" in interface:
        raise Refusal(node, f"there is a second `:` in `{short(name)}`", _COLONS)
    check_name(node, where)
    check_name(node, interface)
    if (size := len(interface.encode())) > INTERFACE_BYTES:
        text = f"`{short(interface)}` has {size} bytes, an interface in a node {INTERFACE_BYTES}"
        raise Refusal(node, f"{text} at most", "its name there, not one of its altnames")
    return Endpoint(name, Node(where))


def check_name(node: ScalarNode, name: str) -> None:
    """Raises Refusal unless this text of the node can be the name of an interface or a node."""
    if not _is_name(name) or len(name.encode()) > NAME_BYTES:
        raise _no_name(node, name)


def check_host(node: ScalarNode, name: str) -> None:
    """Raises Refusal unless this text of the node can be the name of a host."""
    if len(name) > HOST_BYTES:
        text = f"`{short(name)}` has {len(name)} characters, no host's name has more than"
        raise Refusal(node, f"{text} {HOST_BYTES}")
    if not re.match(HOST_PATTERN, name):
        hint = "letters, digits, - and . as in the DNS"
        raise Refusal(node, f"`{short(name)}` cannot be the name of a host", hint)


def _no_end(key: ScalarNode, node: ScalarNode) -> Refusal:
    """It is missing. `eth0:tap0` alone is a key without a value to YAML."""
    a, colon, b = short(key.value).partition(":")
    hint = f"a pair has a space after its colon: `{a}: {b}`" if colon else "`eth0: tap0`"
    return Refusal(node, f"the name of an interface is missing, there is {said(node)}", hint)


def _no_name(node: ScalarNode, name: str) -> Refusal:
    """The name, which stands in this node, is none."""
    if name in (".", ".."):
        return Refusal(node, f"`{name}` cannot be a name")
    if bad := next((char for char in name if char != "." and not _is_name(char)), ""):
        text = f"there is {_named(bad)} in the name `{short(name)}`"
        return Refusal(node, text, _name_hint(name, bad))
    size = len(name.encode())
    return Refusal(node, f"`{short(name)}` has {size} bytes, no name has more than {NAME_BYTES}")


def _named(char: str) -> str:
    if char == " ":
        return "a space"
    return f"a `{char}`" if char.isprintable() else f"the character U+{ord(char):04X}"


def _name_hint(name: str, bad: str) -> str:
    if bad == "@":
        return f"leave out `{short(name[name.index('@') :])}`, it is no part of the name"
    return _NAME_HINTS.get(bad, "")


# --------------------------------------------------------------------------- tunnels


def address(key: ScalarNode, node: YamlNode) -> str:
    """An IP address of one machine, as the kernel writes it."""
    from ipaddress import IPv6Address, ip_address  # 6 ms that only a file with hosts should cost

    if not isinstance(node, ScalarNode) or not re.match(ADDRESS_PATTERN, node.value):
        text = f"`{short(key.value)}` is an IP address, not {said(node)}"
        raise Refusal(node, text, '`198.51.100.11`, or in quotes `"2001:db8::11"`')
    found = ip_address(node.value)
    scoped = isinstance(found, IPv6Address) and (found.is_link_local or found.ipv4_mapped)
    kinds = {
        "stands for no machine": found.is_unspecified,
        "is of many machines": found.is_multicast,
        "is of each machine itself": found.is_loopback,
        "is of no use outside one link": scoped,
        "is reserved": found.version == 4 and found.is_reserved,
    }
    if why := next((why for why, applies in kinds.items() if applies), ""):
        hint = "an address by which the other hosts reach this one"
        raise Refusal(node, f"`{found}` {why}", hint)
    return str(found)


def of_tunnel(tunnel: Tunnel) -> Endpoint:
    """The end that is reached by a tunnel to a device that is not ours."""
    remote = f"[{tunnel.remote}]" if ":" in tunnel.remote else tunnel.remote
    port = "" if tunnel.port == VXLAN_PORT else f":{tunnel.port}"
    return Endpoint(f"vxlan{tunnel.vni}@{remote}{port}", tunnel=tunnel)
