"""The JSON Schema of the file, for editors; ``parser`` is what really judges.

Draft-07, which SchemaStore and editors want, and no keyword but the draft's own: ajv in strict mode
refuses others. No description has a character that is Markdown's, since the YAML language server
would show it escaped.

Owns titles and descriptions. What is allowed (keys, choices, names) comes from the tables of
``keys``, so that the two cannot drift apart.

A schema judges values, ``parser`` judges text with places. So these cannot be expressed, and the
schema is the milder one unless said otherwise:

- an interface in two links, ``a: b`` beside ``b: a`` with other options, a repeated key;
- the limit of a name in bytes (the schema counts characters);
- how a scalar is written: ``yes`` and ``True`` for ``true``, ``1.0`` for version 1, a tag;
- an option of something that is no end of its link, one monitor for two ends;
- an MTU or a monitor where the ends are not of the kind that has one, a node in no link;
- impairments whose values contradict one another or the link's mode, and their ranges; a mode that
  no tunnel has;
- all that cannot be a monitor's host or path;
- an end on a host that is not among the hosts, beside one without a host, or whose address is of
  the other IP version; which addresses are no machine's; two tunnels of one VNI; a key that is
  too short as a number;
- an end called ``null`` or ``~``: a name to ``parser``, a missing one to the schema, which
  thereby finds the unfinished line ``eth0:``.
"""

from __future__ import annotations

from typing import Any, Final

from xconnectd import impairment
from xconnectd.config import ends, impairments, keys
from xconnectd.model import DEFAULT_HOLD, DEFAULT_MTU, VXLAN_PORT, Admin, Carrier, Mode, Rewrite

_Schema = dict[str, Any]

DIALECT: Final = "http://json-schema.org/draft-07/schema#"
PLACE: Final = "https://json.schemastore.org/xconnectd.json"

_MODES: Final = {
    Mode.AUTO: "the fastest that carries every frame unharmed",
    Mode.GENERIC: "XDP on packet buffers, any interface",
    Mode.NATIVE: "XDP in the driver, for NICs that can",
    Mode.TC: "tc redirect: repairs checksums and cuts packets for any target",
}
_ADMINS: Final = {
    Admin.MANAGE: "is set up with its link, and put back",
    Admin.KEEP: "is never touched",
}
_CARRIERS: Final = {
    Carrier.FOLLOW: "an end shows a carrier while there is one behind the other end; a NIC only"
    " where the link itself says so",
    Carrier.INDEPENDENT: "each end keeps its own",
}
_REWRITES: Final = {
    Rewrite.NONE: "frames cross unchanged",
    Rewrite.SWAP_MACS: "source and destination MAC are swapped",
}


def document() -> _Schema:
    """A new copy of the schema, ready for ``json.dumps``."""
    return {
        "$schema": DIALECT,
        "$id": PLACE,
        "title": "xconnectd",
        "description": "Pairs of interfaces between which every frame crosses.",
        "type": "object",
        "required": ["links"],
        "properties": _pick(keys.TOP_KEYS, _top_level()),
        "patternProperties": {
            f"^{keys.USER_PREFIX}": {
                "description": "Your own: ignored, a place for anchors.",
            }
        },
        "additionalProperties": False,
        "definitions": {
            "end": _end(),
            "link": _link(),
            "text": _text(),
            "impairment": _impairment(),
        },
    }


def _pick(keys: tuple[str, ...], known: _Schema) -> _Schema:
    """The properties in the order of ``keys``; a key that is not described is an error."""
    return {key: known[key] for key in keys}


def _top_level() -> _Schema:
    return {
        "version": {"description": "Of this format.", "const": keys.VERSION},
        "defaults": {
            "description": "What a link has that does not say otherwise.",
            "type": "object",
            "properties": _pick(keys.DEFAULT_KEYS, _options()),
            "additionalProperties": False,
        },
        "metrics": {
            "description": "Prometheus metrics of the daemon; without the key there are none.",
            "type": "object",
            "required": ["listen"],
            "properties": _pick(keys.METRICS_KEYS, _metrics()),
            "additionalProperties": False,
        },
        "nodes": {
            "description": "Where a node is whose name alone does not find it, as that of a file in"
            " /run/netns or of a container in Docker or Podman.",
            "examples": [{"spine1": {"container": "clab-dc1-spine1"}}],
            "type": "object",
            "propertyNames": {
                "minLength": 1,
                "maxLength": ends.NAME_BYTES,
                "pattern": ends.NAME_PATTERN,
            },
            "additionalProperties": {
                "type": "object",
                "properties": _pick(keys.NODE_KEYS, _node_keys()),
                "additionalProperties": False,
                "minProperties": 1,
                "maxProperties": 1,
            },
        },
        "hosts": {
            "description": "The same file for several hosts: their names and IP addresses. An end"
            " is written host/interface then.",
            "examples": [{"h1": "198.51.100.11", "h2": "198.51.100.12"}],
            "type": "object",
            "minProperties": 1,
            "maxProperties": keys.MAX_HOSTS,
            "propertyNames": {"maxLength": ends.HOST_BYTES, "pattern": ends.HOST_PATTERN},
            "additionalProperties": _address(),
        },
        "hosts_key": {
            "description": "A secret of all hosts, which authenticates what their daemons say to"
            " each other.",
            **_word(
                "null",
                minLength=keys.KEY_LENGTHS[0],
                maxLength=keys.KEY_LENGTHS[-1],
                pattern=keys.TEXT_PATTERN,
            ),
        },
        "links": {
            "description": "One line per pair, both directions. With none, nothing is connected.",
            "type": "object",
            "propertyNames": {"$ref": "#/definitions/end"},
            "additionalProperties": {"$ref": "#/definitions/link"},
            "examples": [
                {"eth0": "tap0", "veth2": {"to": "veth3", "mode": "auto"}},
                {"leaf1:eth1": "spine1:eth1"},
                {"h1/leaf1:eth1": "h2/spine1:eth1"},
            ],
        },
    }


def _metrics() -> _Schema:
    return {
        "listen": {
            "description": "An IP address (or localhost) and a port, or unix: and a path.",
            "type": "string",
            "pattern": keys.LISTEN_PATTERN,
            "examples": ["127.0.0.1:9109", "[::1]:9109", "unix:/run/xconnectd/metrics.sock"],
        }
    }


def _node_keys() -> _Schema:
    return {
        "netns": {
            "description": "The file of its network namespace.",
            "type": "string",
            "maxLength": keys.TEXT_LENGTH,
            "pattern": keys.PATH_PATTERN,
            "examples": ["/run/netns/blue"],
        },
        "container": {
            "description": "Its name in Docker or Podman.",
            **_word(maxLength=keys.TEXT_LENGTH, pattern=keys.CONTAINER_PATTERN),
        },
        "pid": {"description": "A process in it.", **_number(keys.PIDS)},
    }


def _address() -> _Schema:
    """Which addresses are no machine's only ``parser`` knows."""
    return {"type": "string", "pattern": ends.ADDRESS_PATTERN}


def _link() -> _Schema:
    return {
        "title": "The other end, or a mapping with to: and options",
        "if": {"type": "object"},
        "then": {
            "type": "object",
            "required": ["to"],
            "properties": _pick(keys.LINK_KEYS, _options()),
            "additionalProperties": False,
        },
        "else": {"$ref": "#/definitions/end"},
    }


def _end() -> _Schema:
    return {
        "title": "Interface, or node:interface, on a host: host/...",
        "description": "An interface here, by its name or one of its altnames; it need not exist"
        " yet. Or one in a node (a container, another network namespace); there it is made. With"
        " hosts, the name of one and a slash before it.",
        **_word("null", pattern=ends.END_PATTERN),
    }


def _text() -> _Schema:
    return _word(maxLength=keys.TEXT_LENGTH, pattern=keys.TEXT_PATTERN)


def _word(*no: str, **of_text: Any) -> _Schema:
    """A plain 12, 1e3, true or 2001-01-01 is the text that stands there, whatever YAML makes of it.

    For a date JSON has no type at all, so it is told what a word is not.
    """
    return {
        "not": {"anyOf": [{"type": each} for each in ("object", "array", *no)]},
        "if": {"type": "string"},
        "then": {"type": "string", **of_text},
    }


def _options() -> _Schema:
    return {
        "to": {
            "description": "The other end; or vxlan, a device elsewhere that is not ours.",
            "if": {"type": "object"},
            "then": {
                "type": "object",
                "required": ["vxlan"],
                "properties": {"vxlan": _tunnel()},
                "additionalProperties": False,
            },
            "else": {"$ref": "#/definitions/end"},
        },
        "mode": _choice("How the frames are carried", "mode", _MODES),
        "one_way": _flag(
            "true: frames go only from the end that is the key to the one in to.", default=False
        ),
        "rewrite": _choice("What is changed of each frame", "rewrite", _REWRITES),
        "enabled": _flag("false: the link is cut, the line stays.", default=True),
        "admin": _choice("An end that is found down", "admin", _ADMINS),
        "allow_addressed": _flag(
            "true: also ends that the host itself uses (an address, a route). It can lock you out.",
            default=False,
        ),
        "description": _described("For people; one line.", "text"),
        "labels": {
            "description": "For scripts; shown by status.",
            "examples": [{"lab": "demo"}],
            "type": "object",
            "propertyNames": {
                "allOf": [{"$ref": "#/definitions/text"}, {"type": "string", "minLength": 1}]
            },
            "additionalProperties": {"$ref": "#/definitions/text"},
        },
        "ends": {
            "description": "Options of one end, by its name.",
            "examples": [{"tap0": {"monitor": "qmp:/run/r1.sock#net0"}}],
            "type": "object",
            "propertyNames": {"$ref": "#/definitions/end"},
            "additionalProperties": {
                "type": "object",
                "properties": _pick(keys.END_KEYS, _end_options()),
                "additionalProperties": False,
            },
        },
        "mtu": {
            "description": "Of the interfaces that are made in nodes, in bytes.",
            **_number(keys.MTUS),
            "default": DEFAULT_MTU,
        },
        "vni": {
            "description": "Of the tunnel between the hosts of the two ends; by default a hash of"
            " their names.",
            **_number(keys.VNIS),
        },
        "hold": {
            "description": "How long a link between two hosts stands while the daemon of the other"
            " one says nothing.",
            "type": "string",
            "pattern": keys.HOLD_PATTERN,
            "default": f"{DEFAULT_HOLD:.0f}s",
            "examples": ["30s", "5m"],
        },
        "carrier": _choice("What the ends show of each other", "carrier", _CARRIERS),
        "impair": {
            "description": "What happens to the frames that cross: both ways, or forward, to the"
            " other end, and reverse.",
            "examples": [
                {"delay": "20ms", "loss": "0.5%"},
                {"forward": {"rate": "100mbit"}, "reverse": {"loss": "100%"}},
            ],
            "type": "object",
            "if": {
                "anyOf": [
                    {"required": [each], "properties": {each: {}}}
                    for each in impairments.DIRECTIONS
                ]
            },
            "then": {
                "type": "object",
                "properties": {
                    each: {"$ref": "#/definitions/impairment"} for each in impairments.DIRECTIONS
                },
                "additionalProperties": False,
            },
            "else": {"$ref": "#/definitions/impairment"},
        },
    }


def _tunnel() -> _Schema:
    described = {
        "remote": {"description": "The IP address of the machine that has it.", **_address()},
        "vni": {"description": "Its VXLAN network identifier.", **_number(keys.VNIS)},
        "port": {
            "description": "Its UDP port.",
            **_number(keys.PORTS),
            "default": VXLAN_PORT,
        },
    }
    return {
        "description": "A VXLAN device that somebody else made.",
        "type": "object",
        "required": ["remote", "vni"],
        "properties": _pick(keys.TUNNEL_KEYS, described),
        "additionalProperties": False,
    }


def _end_options() -> _Schema:
    return {
        "monitor": {
            "description": "QEMU's monitor, by which the machine behind a tap sees the carrier:"
            " qmp: or hmp:, a socket's path or HOST:PORT, a hash sign and the netdev's id.",
            "type": "string",
            "pattern": keys.MONITOR_PATTERN,
            "examples": [
                "qmp:/run/r1.sock#net0",
                "qmp:127.0.0.1:4444#net0",
                "hmp:127.0.0.1:4001#p01",
            ],
        }
    }


def _number(allowed: range) -> _Schema:
    return {"type": "integer", "minimum": allowed[0], "maximum": allowed[-1]}


def _impairment() -> _Schema:
    time = {"type": "string", "pattern": impairment.TIME_PATTERN}
    share = {"type": "string", "pattern": impairment.SHARE_PATTERN}
    described = {
        "delay": {"description": "Until a frame goes on.", "examples": ["20ms"], **time},
        "jitter": {"description": "By which the delay varies.", "examples": ["2ms"], **time},
        "distribution": {
            "description": "How the delay varies.",
            "enum": [each.value for each in impairment.Distribution],
            "default": impairment.Distribution.UNIFORM.value,
        },
        "loss": {
            "description": "The share of frames that is lost, each on its own or in bursts of so"
            " many in the mean; 100% is a black hole.",
            "examples": ["0.5%", {"mean": "1%", "burst": 5}],
            "if": {"type": "object"},
            "then": {
                "type": "object",
                "required": [*impairments.LOSS_KEYS],
                "properties": {
                    "mean": {"description": "The share of frames.", **share},
                    "burst": {
                        "description": "The mean length of bursts, in frames.",
                        **_number_or_text(1, impairment.LONGEST_BURST, "number"),
                    },
                },
                "additionalProperties": False,
            },
            "else": share,
        },
        "corrupt": {"description": "The share of frames in which a bit is wrong.", **share},
        "duplicate": {"description": "The share of frames that arrive twice.", **share},
        "reorder": {"description": "The share of frames that go without the delay.", **share},
        "rate": {
            "description": "Bits per second, of whole frames.",
            "examples": ["100mbit"],
            "type": "string",
            "pattern": impairment.RATE_PATTERN,
        },
        "limit": {
            "description": "Frames that may wait; by default as many as rate and delay need.",
            **_number_or_text(1, impairment.MOST_FRAMES),
        },
        "drop": {
            "description": "Frames that match are dropped: a filter as tcpdump has it.",
            "examples": ["udp port 3784"],
            **_word(pattern=impairment.FILTER_PATTERN),
        },
        "seed": {
            "description": "With the same seed the same frames are lost; Linux 6.6.",
            **_number_or_text(0, impairment.LARGEST_SEED),
        },
    }
    return {
        "type": "object",
        "properties": _pick(impairments.KEYS, described),
        "additionalProperties": False,
    }


def _number_or_text(least: int, most: int, kind: str = "integer") -> _Schema:
    """A number, also as a text."""
    number = {"type": kind, "minimum": least, "maximum": most}
    return {"anyOf": [number, {"type": "string", "pattern": "^[0-9.]+$"}]}


def _flag(description: str, *, default: bool) -> _Schema:
    return {"description": description, "type": "boolean", "default": default}


def _described(description: str, name: str) -> _Schema:
    """A definition with a description of its own; beside ``$ref`` the draft ignores it."""
    return {"description": description, "allOf": [{"$ref": f"#/definitions/{name}"}]}


def _choice(description: str, key: str, words: dict[Any, str]) -> _Schema:
    choices = list(keys.CHOICES[key])
    meanings = "; ".join(f"{choice.value}: {words[choice]}" for choice in choices)
    return {
        "description": f"{description}. {meanings}.",
        "enum": [choice.value for choice in choices],
        "default": choices[0].value,
    }
