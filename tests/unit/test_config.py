"""The file: what is taken, and the words, line and column of every refusal."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path

import pytest
import yaml
from builders import link
from hypothesis import given
from hypothesis import strategies as st

from xconnectd.config import keys, parser, yaml_tree
from xconnectd.config.parser import parse
from xconnectd.config.reader import load
from xconnectd.dataplane.programs import MAX_ENDS
from xconnectd.errors import ConfigError, Problem
from xconnectd.model import Admin, Carrier, Endpoint, Link, Listen, Mode, Node, Place
from xconnectd.monitor_address import MonitorAddress

MONITOR = "qmp:/run/r1.sock#net0"

EXAMPLE = Path(__file__).parents[2] / "config" / "xconnect.yaml"


def links(text: str) -> tuple[Link, ...]:
    return parse(text, "f").links


def problems(text: str | bytes) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    return caught.value.problems


def places(text: str | bytes) -> list[tuple[int, int]]:
    return [(problem.line, problem.column) for problem in problems(text)]


LEAF = link("leaf1:eth1", "spine1:eth1")
GOOD = [
    ("links: {}", []),
    ("version: 1\nlinks: {a: b}", [link("a", "b")]),
    ("links: {b: a}", [link("b", "a")]),
    ("x-anything: [1, {b: c}]\nlinks: {a: b}\nx-: ~", [link("a", "b")]),
    ("links: {a: b}\n...\n", [link("a", "b")]),
    ("\ufefflinks: {a: b}", [link("a", "b")]),
    ("%YAML 1.2\n---\nlinks: {a: b}", [link("a", "b")]),
    ("links:\r\n  a: b\r\n", [link("a", "b")]),
    # Text is text, whatever YAML 1.1 takes it for.
    ("links: {no: on, 12: 1e3, ~: yes}", [link("no", "on"), link("12", "1e3"), link("~", "yes")]),
    ("links: {'a': \"b\", 'true': \"null\"}", [link("a", "b"), link("true", "null")]),
    ("links: {...: .a}", [link("...", ".a")]),
    ("links: {é: 日本}", [link("é", "日本")]),
    (f"links: {{{'a' * 16}: {'b' * 127}}}", [link("a" * 16, "b" * 127)]),
    (f"links: {{a: {'é' * 63}}}", [link("a", "é" * 63)]),
    # Options.
    ("links: {a: {to: b, mode: tc}}", [link("a", "b", mode=Mode.TC)]),
    ("links: {a: {enabled: false, to: b}}", [link("a", "b", enabled=False)]),
    ("links: {a: {to: b, enabled: true, admin: keep}}", [link("a", "b", admin=Admin.KEEP)]),
    ("links: {a: {to: b, allow_addressed: true}}", [link("a", "b", allow_addressed=True)]),
    (
        "links: {a: {to: b, carrier: independent}}",
        [link("a", "b", carrier=Carrier.INDEPENDENT)],
    ),
    (
        f"links: {{a: {{to: b, ends: {{b: {{monitor: '{MONITOR}'}}}}}}}}",
        [link("a", "b", monitors=(("b", MonitorAddress.parse(MONITOR)),))],
    ),
    ("links: {a: {to: b, carrier: follow}}", [link("a", "b", carrier_of_nics=True)]),
    ("{defaults: {carrier: follow}, links: {a: b}}", [link("a", "b")]),
    (
        "{defaults: {carrier: independent}, links: {a: b, c: {to: d, carrier: follow}}}",
        [link("a", "b", carrier=Carrier.INDEPENDENT), link("c", "d", carrier_of_nics=True)],
    ),
    # Ends in nodes. What YAML 1.1 has for sexagesimal is a node's interface.
    ("links:\n  leaf1:eth1: spine1:eth1\n  l:e: e5", [LEAF, link("l:e", "e5")]),
    ("links: {leaf1:eth1: {to: spine1:eth1}, 1:20: 2:30}", [LEAF, link("1:20", "2:30")]),
    (f"links: {{{'n' * 127}:{'i' * 15}: é:é}}", [link(f"{'n' * 127}:{'i' * 15}", "é:é")]),
    ("links: {a:b: c}\nnodes: {a: {netns: /run/netns/a}}",
     [Link(Endpoint("a:b", Node("a", netns="/run/netns/a")), Endpoint("c"))]),
    ("nodes: {a: {container: x-1_y.z}}\nlinks: {c: a:b}",
     [Link(Endpoint("c"), Endpoint("a:b", Node("a", container="x-1_y.z")))]),
    ("nodes: {a: {pid: 4194304}}\nlinks: {a:b: a:c}", [Link(
        Endpoint("a:b", Node("a", pid=1 << 22)), Endpoint("a:c", Node("a", pid=1 << 22)))]),
    ("links: {a:b: {to: c, mtu: 68}, d: {to: e:f, mtu: 65535}}",
     [link("a:b", "c", mtu=68), link("d", "e:f", mtu=65535)]),
    ("defaults: {mtu: 9000}\nlinks: {a: b, c:d: e, f: {to: g:h, mtu: 68}}",
     [link("a", "b"), link("c:d", "e", mtu=9000), link("f", "g:h", mtu=68)]),
    ("links: {a: {to: b, description: 12}}", [link("a", "b", description="12")]),
    ("links: {a: {to: b, description: }}", [link("a", "b")]),
    (f"links: {{a: {{to: b, description: {'x' * 256}}}}}", [link("a", "b", description="x" * 256)]),
    ("links: {a: {to: b, labels: {lab: demo, 1: no}}}",
     [link("a", "b", labels=(("lab", "demo"), ("1", "no")))]),
    # Defaults, also when they come last.
    ("links: {a: b, c: {to: d, mode: auto}}\ndefaults: {mode: generic, admin: keep}",
     [link("a", "b", mode=Mode.GENERIC, admin=Admin.KEEP), link("c", "d", admin=Admin.KEEP)]),
    # Anchors.
    ("x-o: &o {mode: tc, admin: keep}\nlinks: {a: {<<: *o, to: b, mode: auto}}",
     [link("a", "b", admin=Admin.KEEP)]),
    ("x-o: &o {mode: tc}\nx-p: &p {mode: native, admin: keep}\nlinks: {a: {<<: [*o, *p], to: b}}",
     [link("a", "b", mode=Mode.TC, admin=Admin.KEEP)]),
    ("x-o: &o {mode: tc}\nx-p: &p {<<: *o, to: b}\nlinks: {a: *p}", [link("a", "b", mode=Mode.TC)]),
    ("x-n: &n tap0\nlinks: {a: *n}", [link("a", "tap0")]),
    ("x-n: &n tap0\nlinks: {*n : a}", [link("tap0", "a")]),
    ("x-n: &n one\nx-m: &n two\nlinks: {a: *n}", [link("a", "two")]),
    ("x-base: &base {a: b, c: d}\nlinks: {<<: *base, a: x}", [link("a", "x"), link("c", "d")]),
    ("x-all: &all {links: {a: b}}\n<<: *all", [link("a", "b")]),
    ("links: {'<<': b}", [link("<<", "b")]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), GOOD, ids=lambda it: str(it)[:40])
def test_good_files(text: str, expected: list[Link]) -> None:
    wiring = parse(text, "f")
    assert list(wiring.links) == expected
    assert wiring.warnings == ()


def test_links_know_their_place_and_keep_their_order_and_the_hash_is_that_of_the_bytes() -> None:
    found = links("links:\n  z: y\n  b:\n    to: a\n  m: m\n")
    places = [("y:z", Place(2, 3)), ("a:b", Place(3, 3)), ("m:m", Place(5, 3))]
    assert [(it.id, it.place) for it in found] == places
    one, same, other = (parse(t, "f").hash for t in ("links: {}", b"links: {}", "links: {} "))
    assert one == same != other
    assert re.fullmatch("[0-9a-f]{12}", one)


UNNAMED = {
    "spnie1: {pid: 1}": ["f:1:9: no link has an end in the node `spnie1` (did you mean `spine1`?)"],
    "a: {pid: 1}, spine1: {pid: 2}, b: {pid: 3}": [
        f"f:1:{at}: no link has an end in the node `{name}`"
        for name, at in {"a": 9, "b": 40}.items()
    ],
}


@pytest.mark.parametrize(("entries", "warnings"), UNNAMED.items())
def test_a_node_without_a_link_is_a_warning(entries: str, warnings: list[str]) -> None:
    wiring = parse(f"nodes: {{{entries}}}\nlinks: {{leaf1:eth1: spine1:eth1}}", "f")
    assert list(wiring.warnings) == warnings


@pytest.mark.parametrize("options", ["", "mode: auto", "mode: tc, labels: {x: y}"])
def test_both_orders_with_equal_options_are_one_link_and_a_warning(options: str) -> None:
    wiring = parse(f"links:\n  a: {{to: b, {options}}}\n  b: {{to: a, {options}}}\n", "f")
    assert [one.id for one in wiring.links] == ["a:b"]
    (warning,) = wiring.warnings
    assert warning == "f:3:3: `b: a` is the link `a: b` of line 2, one of the two is enough"


def test_two_lines_that_lead_one_way_each_are_no_one_link() -> None:
    with pytest.raises(ConfigError) as refused:
        parse("links:\n  a: {to: b, one_way: true}\n  b: {to: a, one_way: true}\n", "f")
    assert str(refused.value) == (
        "f:3:3: `b: a` is the link `a: b` of line 2 with other options (keep one of the two)"
    )


def test_a_direction_and_a_rewrite() -> None:
    plain, both = links("links: {a: b, c: {to: d, one_way: true, rewrite: swap-macs}}")
    assert (plain.one_way, plain.rewrite, plain.manner) == (False, "none", "both ways")
    assert (both.one_way, both.rewrite) == (True, "swap-macs")
    assert both.manner == "one way: c → d, source and destination MAC swapped"


LISTENS = {
    "127.0.0.1:9109": Listen("127.0.0.1", 9109),
    "localhost:1": Listen("127.0.0.1", 1),
    "0.0.0.0:65535": Listen("0.0.0.0", 65535),
    "'[::]:9109'": Listen("::", 9109),
    "'[2001:db8::1]:80'": Listen("2001:db8::1", 80),
    "unix:/run/m.sock": Listen(path="/run/m.sock"),
    f"unix:/{'x' * 106}": Listen(path=f"/{'x' * 106}"),
}


@pytest.mark.parametrize("text", LISTENS)
def test_where_metrics_are_served(text: str) -> None:
    found = parse(f"metrics:\n  listen: {text}\nlinks: {{}}", "f").metrics
    assert found == LISTENS[text]
    assert found.place == Place(2, 11)
    assert str(found) == text.strip("'").replace("localhost", "127.0.0.1")


@given(st.ip_addresses() | st.text("0123:.f", max_size=12), st.integers(0, 70_000))
def test_addresses_are_what_python_takes_for_one(address: object, port: int) -> None:
    host = f"[{address}]" if ":" in str(address) else str(address)
    try:
        good = bool(ip_address(str(address))) and "." not in host.partition(":")[2]
    except ValueError:
        good = False
    found = re.match(keys.LISTEN_PATTERN, f"{host}:{port}")
    assert bool(found) == (good and 1 <= port <= 65535)


def test_the_example_connects_nothing_and_its_commented_parts_pass_too() -> None:
    assert load(EXAMPLE).links == ()
    text = EXAMPLE.read_text()
    assert "links: {}\n" in text
    pairs = text[text.index("links: {}\n") : text.index("#\n# Keys at the top")]
    taken = pairs.replace("links: {}\n", "links:\n").replace("\n#", "\n ")
    top = text[text.index("# nodes:") : text.index("\n\n# Nothing")].replace("\n# ", "\n")[2:]
    wiring = parse(f"{top.replace('What every', '# What every')}\n{taken}", "f")
    assert (len(wiring.links), wiring.warnings) == (5, ())
    anchors = text[text.index("# x-lab:") :].replace("\n#\n", "\n\n").replace("\n# ", "\n")[2:]
    assert links(anchors)[0].mode is Mode.GENERIC


NOT_YET = "not in this version"

BAD: list[tuple[str, int, int, str]] = [
    # half-written
    ("", 1, 1, "the file is empty (half-written? `links: {}` disconnects everything"),
    ("# only\n# comments\n", 1, 1, "the file is empty"),
    ("---\n", 2, 1, "the file is empty"),
    ("version: 1\n", 1, 1, "there is no `links:` (half-written? `links: {}`"),
    ("links:\n", 1, 7, "`links` is empty (half-written? `links: {}`"),
    ("links: null # x", 1, 8, "`links` is empty"),
    ("links:\n  eth0:", 2, 8, "the name of an interface is missing"),
    # shapes
    ("just text", 1, 1, "the file is a mapping, not `just text`"),
    ("- a", 1, 1, "the file is a mapping, not a list"),
    ("links: [a]", 1, 8, f"a list under `links` is {NOT_YET}"),
    ("links: text", 1, 8, "`links` holds pairs, not `text` (`eth0: tap0`)"),
    ("links:\n  eth0:tap0", 2, 3, "a space after the colon: `eth0: tap0`"),
    ("links: {a: [b, c]}", 1, 12, "`a` is the name of one interface, not a list"),
    ("links: {? [a] : b}", 1, 11, "a key must be a word, not a collection"),
    ("links: {a: {mode: tc}}", 1, 9, "the link of `a` lacks `to`"),
    ("links: {a: {to: }}", 1, 17, "the name of an interface is missing, there is nothing"),
    ("links: {a: {to: [b]}}", 1, 17, "`to` is the name of one interface, not a list"),
    # keys
    ("links: {}\nversoin: 1", 2, 1,
     "unknown key `versoin` at the top of the file (did you mean `version`?)"),
    ("links: {}\neth0: tap0", 2, 1, "(links stand under `links:`, keys of your own begin with x-)"),
    ("links: {a: {to: b, mod: tc}}", 1, 20, "unknown key `mod` in a link (did you mean `mode`?)"),
    ("links: {a: {to: b, 1: 2}}", 1, 20, "unknown key `1` in a link (known: to, mode,"),
    ("defaults: {enabled: true}\nlinks: {}", 1, 12, "unknown key `enabled` in `defaults`"),
    ("links: {}\nmirrors: []", 2, 1, f"`mirrors` is {NOT_YET}"),
    # metrics
    ("links: {}\nmetrics: {}", 2, 10, "`metrics` lacks `listen` (`metrics: {listen: 127.0.0.1:"),
    ("links: {}\nmetrics:", 2, 9, "`metrics` is a mapping, not nothing"),
    ("metrics: {listen: '[::1]:1', lisen: 1}\nlinks: {}", 1, 30,
     "unknown key `lisen` in `metrics` (did you mean `listen`?)"),
    ("metrics: {listen: [::1]:99}\nlinks: {}", 1, 20, "(quote a text that begins with [, { or :)"),
    ("metrics: {listen: ['::1', 9109]}\nlinks: {}", 1, 19, "`listen` is an address and a port"),
    ("metrics: {listen: }\nlinks: {}", 1, 19, "metrics cannot be served at nothing: it takes an"),
    ("metrics:\n  listen: 9109\nlinks: {}", 2, 11, "at `9109`: the address is missing"),
    ("metrics: {listen: ':9109'}\nlinks: {}", 1, 19, 'at `":9109"`: the address is missing (`127'),
    ("metrics: {listen: 127.0.0.1}\nlinks: {}", 1, 19,
     "the port is missing (`127.0.0.1:9109`)"),
    ("metrics: {listen: localhost:0}\nlinks: {}", 1, 19, "a port is a number from 1 to 65535"),
    ("metrics: {listen: 1.2.3.256:9109}\nlinks: {}", 1, 19, "it takes an IP address and a port"),
    ("metrics: {listen: '::1:9109'}\nlinks: {}", 1, 19, "an IPv6 address stands in brackets, then"),
    ("metrics: {listen: fe80::1}\nlinks: {}", 1, 19, "an IPv6 address stands in brackets, then"),
    ("metrics: {listen: http://127.0.0.1:9109/}\nlinks: {}", 1, 19, "this is a URL"),
    ("metrics: {listen: unix:x.sock}\nlinks: {}", 1, 19, "a unix socket needs an absolute path"),
    ("metrics: {listen: /run/x.sock}\nlinks: {}", 1, 19, "(`unix:/run/xconnectd/metrics.sock`)"),
    (f"metrics: {{listen: unix:/{'x' * 107}}}\nlinks: {{}}", 1, 19, "at most 107 ASCII characters"),
    ("links: {a: {to: a, one_way: true}}", 1, 20, "`one_way` needs two ends"),
    ("links: {a: {to: b, one_way: on}}", 1, 29, "`one_way` takes true or false, not `on`"),
    ("links: {a: {to: b, rewrite: swap}}", 1, 29, "`rewrite` is one of none, swap-macs, not"),
    ("defaults: {one_way: true}\nlinks: {}", 1, 12, "unknown key `one_way` in `defaults`"),
    ("links: {a: {to: b, carrier: linked}}", 1, 29, "one of follow, independent"),
    ("links: {a: {to: b, ends: {c: {}}}}", 1, 27, "its ends are a and b"),
    ("links: {a: {to: b, ends: {b: {monitor: r1}}}}", 1, 40, "a monitor begins with `qmp:`"),
    ("links: {a: {to: b, ends: {b: net0}}}", 1, 30, "`b` is a mapping, not `net0`"),
    (f"links: {{a: {{to: b, ends: {{a: &x {{monitor: '{MONITOR}'}}, b: *x}}}}}}", 1, 30,
     "is the monitor of `a` already"),
    # repeated keys
    ("links: {}\nlinks: {}", 2, 1, "the key `links` stands in line 1 already"),
    ("links:\n  a: b\n  c: d\n  a: e", 4, 3, "the key `a` stands in line 2 already"),
    ("links: {a: {to: b, labels: {x: 1,\n  'x': 2}}}", 2, 3,
     "the key `x` stands in line 1 already"),
    # options
    ("version: 2\nlinks: {}", 1, 10, "`version` is 1, not `2`"),
    ("defaults:\nlinks: {}", 1, 10, "`defaults` is a mapping, not nothing"),
    ("defaults: {mode: x}\nlinks: {}", 1, 18,
     "`mode` is one of auto, generic, native, tc, not `x`"),
    ("links: {a: {to: b, mode: nativ}}", 1, 26, "(did you mean `native`?)"),
    ("links: {a: {to: b, mode: [tc]}}", 1, 26,
     "`mode` is one of auto, generic, native, tc, not a list"),
    ("links: {a: {to: b, admin: yes}}", 1, 27, "`admin` is one of manage, keep, not `yes`"),
    ("links: {a: {to: b, enabled: yes}}", 1, 29,
     "`enabled` takes true or false, not `yes` (write true)"),
    ("links: {a: {to: b, enabled: Off}}", 1, 29,
     "`enabled` takes true or false, not `Off` (write false)"),
    ("links: {a: {to: b, enabled: True}}", 1, 29, "(write true)"),
    ("links: {a: {to: b, enabled: 'true'}}", 1, 29, 'not `"true"` (write true)'),
    ("links: {a: {to: b, enabled: {}}}", 1, 29, "`enabled` takes true or false, not a mapping"),
    ("links: {a: {to: b, description: [x]}}", 1, 33, "`description` is a text, not a list"),
    (f"links: {{a: {{to: b, description: {'x' * 257}}}}}", 1, 33,
     "`description` has 257 characters, 256 fit"),
    ('links: {a: {to: b, description: "x\\ny"}}', 1, 33, "`description` is one line"),
    ("links:\n  a:\n    to: b\n    description: |\n      x\n", 4, 18, "(`>-` folds lines)"),
    ("links: {a: {to: b, labels: {x: [y]}}}", 1, 32, "`x` is a text, not a list"),
    ("links: {a: {to: b, labels: {'': y}}}", 1, 29, "a label needs a name"),
    # names
    ("links:\n  eth0@if5: a", 2, 3, "there is a `@` in the name `eth0@if5` (leave out `@if5`"),
    ("links: {a: b*}", 1, 12, "there is a `*` in the name `b*` (patterns are"),
    ("links:\n  a: eth[0-3]", 2, 6, "there is a `[` in the name `eth[0-3]` (ranges are"),
    ("links:\n  a: b,c", 2, 6, "there is a `,` in the name `b,c`"),
    ("links: {a: /eth0}", 1, 12, "there is a `/` in the name `/eth0`"),
    # ends in nodes
    ("links: {eth0:tap0}", 1, 18, "a pair has a space after its colon: `eth0: tap0`"),
    ("links:\n  a: b\n  eth0:tap0\n", 3, 3, "have a colon and a space between them: `a: b`"),
    ("links: {'eth0:': a}", 1, 9, "`eth0:` lacks the interface behind its colon"),
    ("links: {a: ':eth0'}", 1, 12, "`:eth0` lacks the node before its colon"),
    ("links: {a: b:c:d}", 1, 12, "second `:` in `b:c:d` (an end in a node is `NODE:INTERFACE`"),
    ("links: {a: b:c@if5}", 1, 12, "there is a `@` in the name `c@if5` (leave out `@if5`"),
    ("links: {a: ..:c}", 1, 12, "`..` cannot be a name"),
    ("links: {a: b:.}", 1, 12, "`.` cannot be a name"),
    (f"links: {{a: {'n' * 128}:b}}", 1, 12, "has 128 bytes, no name has more than 127"),
    (f"links: {{a: b:{'i' * 16}}}", 1, 12, "has 16 bytes, an interface in a node 15 at most"),
    (f"links: {{a: b:{'é' * 8}}}", 1, 12, "not one of its altnames"),
    ("links: {a: {to: b:c, ends: {b:c: {monitor: 'qmp:/s#n'}}}}", 1, 34,
     "`b:c` is in a node; a monitor is of the machine behind a tap"),
    ("links: {a: {to: b, mtu: 1500}}", 1, 20, "`mtu` is of interfaces made in nodes; `a: b` has"),
    ("links: {a:b: {to: c, mtu: 67}}", 1, 27, "`mtu` is a number from 68 to 65535, not `67`"),
    ("links: {}\ndefaults: {mtu: '1500'}", 2, 17, 'from 68 to 65535, not `"1500"`'),
    # nodes
    ("nodes:\nlinks: {}", 1, 7, "`nodes` is a mapping, not nothing"),
    ("nodes: {'': {pid: 1}}\nlinks: {}", 1, 9, "a node needs a name"),
    ("nodes: {a:b: {pid: 1}}\nlinks: {}", 1, 9, "`a:b` (the node alone, without an interface)"),
    ("nodes: {a: }\nlinks: {}", 1, 12, "not nothing (`{netns: PATH}`, `{container: NAME}` or"),
    ("nodes: {a: /run/a}\nlinks: {}", 1, 12, "by a mapping, not `/run/a` (`{netns: /run/a}`)"),
    ("nodes: {a: b}\nlinks: {}", 1, 12, "by a mapping, not `b` (`{container: b}`)"),
    ("nodes: {a: 42}\nlinks: {}", 1, 12, "by a mapping, not `42` (`{pid: 42}`)"),
    ("nodes: {a: {}}\nlinks: {}", 1, 12, "`a` says nothing of where it is"),
    ("nodes: {a: {pid: 1, netns: /n}}\nlinks: {}", 1, 13, "in two places, by netns and pid"),
    ("nodes: {a: {path: /n}}\nlinks: {}", 1, 13, "unknown key `path` of a node (known: netns,"),
    ("nodes: {a: {netns: b}}\nlinks: {}", 1, 20, "from / on, not `b` (`/run/netns/b`)"),
    ("nodes: {a: {container: /b}}\nlinks: {}", 1, 24, "a container's name, not `/b` (`b`)"),
    ("nodes: {a: {container: é}}\nlinks: {}", 1, 24, "(letters, digits and _ . - are in it)"),
    ("nodes: {a: {pid: 0}}\nlinks: {}", 1, 18, "`pid` is a number from 1 to 4194304, not `0`"),
    ("links: {a: b c}", 1, 12, "there is a space in the name `b c`"),
    ('links: {a: "b\\tc"}', 1, 12, "there is the character U+0009 in the name `b\\tc`"),
    ('links: {a: "\\e[2J"}', 1, 12, "there is the character U+001B in the name `\\x1b[2J`"),
    ('links: {a: "b\\u00a0"}', 1, 12, "there is the character U+00A0 in the name"),
    ("links: {a: b\u200b}", 1, 12, "there is the character U+200B in the name"),
    ("links: {n\u202ae:a: b}", 1, 9, "there is the character U+202A in the name"),
    ("links: {a: ''}", 1, 12, "the name of an interface is missing, there is an empty text"),
    ("links: {.: b}", 1, 9, "`.` cannot be a name"),
    ("links: {a: ..}", 1, 12, "`..` cannot be a name"),
    (f"links: {{a: {'b' * 128}}}", 1, 12, "has 128 bytes, no name has more than 127"),
    (f"links: {{a: {'é' * 64}}}", 1, 12, "has 128 bytes"),
    # interfaces that are used twice
    ("links:\n  a: b\n  c: b", 3, 6, "`b` is in the link `a: b` of line 2 already"),
    ("links:\n  a: b\n  c: a", 3, 6, "`a` is in the link `a: b` of line 2 already"),
    ("links:\n  a: b\n  b: c", 3, 3, "`b` is in the link `a: b` of line 2 already"),
    ("links:\n  a: a\n  b: a", 3, 6, "`a` is in the link `a: a` of line 2 already"),
    ("links:\n  a: b\n  c:\n    to: b", 4, 9, "`b` is in the link `a: b` of line 2 already"),
    ("links:\n  a: b\n  b: {to: a, mode: tc}", 3, 3,
     "is the link `a: b` of line 2 with other options"),
    # YAML
    ("links:\n\ta: b", 2, 1, "(indent with spaces, not tabs"),
    ("links:\n  a: b: c", 2, 7, "mapping values are not allowed"),
    ("links: {a: b\n", 1, 8, "is not YAML: while parsing a flow mapping"),
    ("links:\n  a: [b\n  # c\n\n", 2, 6, "is not YAML: while parsing a flow sequence"),
    ("links: {a: b,\n  c d: [e}\n", 2, 10, "is not YAML"),
    ("links:\n  a: b\n  c d\n  e: f\n", 3, 3, "is not YAML: while scanning a simple key"),
    ("links:\n  a: 'b\n  c: d\n", 2, 6, "is not YAML: while scanning a quoted scalar"),
    ("links:\n  a: b\n<<<<<<< HEAD\n  c: d\n=======\n  c: e\n>>>>>>> x\n", 3, 1,
     "an unresolved merge conflict (resolve it, and remove its markers)"),
    ("links: {a: b}\n---\nlinks: {}", 2, 1, "a second document begins"),
    ("links: {a: !foo b}", 1, 12, "the tag `!foo` has no meaning here"),
    ("x-a: !!python/object/apply:os.system [id]\nlinks: {}", 1, 6,
     "the tag `tag:yaml.org,2002:python/"),
    ("%TAG ! tag:x,2000:\n---\nlinks: {}", 1, 1, "the directive `%TAG` has no meaning here"),
    ("%YAML 1.1\n%RESERVED\n---\nlinks: {}", 2, 1, "the directive `%RESERVED` has no meaning here"),
    (f"links: {{a: {'b' * 1025}}}", 1, 12,
     "a text of 1,025 characters; no key, name or option has more than 1,024"),
    (f"x-b: &b {'b' * 9999}\nlinks: {{a: {{to: c, mode: *b}}, d: *b}}", 1, 6,
     "a text of 9,999 characters"),
    ("links: {a: *b}", 1, 12, "`*b` has no `&b` above it"),
    ("x-a: &a [*a]\nlinks: {}", 1, 10, "`*a` is part of what it refers to"),
    ("links: {<<: b, c: d}", 1, 13, "`<<` takes a mapping"),
    ("links: {a: b}\x07", 1, 14, "the character U+0007 cannot stand in a YAML file"),
    ("links: {a: b}\n#\0", 2, 2,
     "U+0000 cannot stand in a YAML file (a half-written or binary file?)"),
    ("[" * 100_000, 1, 51, "nested deeper than 50 levels"),
    ("- " * 100_000, 1, 101, "nested deeper than 50 levels"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "column", "words"), BAD, ids=lambda it: str(it)[:40])
def test_bad_files(
    text: str, line: int, column: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (problem,) = problems(text)
    assert (problem.line, problem.column) == (line, column)
    assert words in str(problem)
    # PyYAML's own parser has other words for some errors, and columns that differ by one.
    monkeypatch.setattr(yaml_tree, "_Loader", yaml.SafeLoader)
    (problem,) = problems(text)
    assert abs(problem.line - line) + abs(problem.column - column) <= 1
    assert "is not YAML" in problem.text or words in str(problem)


def test_all_problems_come_at_once_and_in_order() -> None:
    """One behind an anchor once, a link that takes two ends of others at both."""
    text = """\
version: 3
defaults: {mode: fast}
links:
  a: b*
  c: {to: d, mtu: 9000, enabled: on}
  e@if3: f f
  a: g
mirrors: []
"""
    told = [(1, 10), (2, 18), (4, 6), (5, 14), (5, 34), (6, 3), (6, 10), (7, 3), (8, 1)]
    assert places(text) == told
    anchored = "x-o: &o {mode: fast}\nlinks:\n  a: {<<: *o, to: b}\n  c: {<<: *o, to: d}\n"
    assert places(anchored) == [(1, 16)]
    assert places("links:\n  a: b\n  c: d\n  b: d\n") == [(4, 3), (4, 6)]


def test_who_gives_a_containerlab_topology_is_told_what_makes_a_wiring_of_it() -> None:
    first = problems("name: lab\ntopology: {nodes: {}, links: []}\n")[0]
    assert (first.text, "`xconnectd import`" in first.hint) == ("there is no `links:`", True)


NO_UTF8: dict[str | bytes, tuple[int, int]] = {
    b"links: {a: \xff}": (1, 12),
    b"links: {a: b\xc3}": (1, 13),
    b"\xff\xfel\0i\0": (1, 1),
    "# é\n# éé".encode() + b"\xff": (2, 5),
    "links: {a: \ud800}": (1, 12),
}


def test_bytes_that_are_no_utf8() -> None:
    assert {data: places(data) for data in NO_UTF8} == {data: [at] for data, at in NO_UTF8.items()}
    assert {it.text for data in NO_UTF8 for it in problems(data)} == {"is not UTF-8 text"}


def test_nothing_in_a_message_is_an_order_to_the_terminal() -> None:
    text = r'links: {"\e[2J": ["\e"], a: {to: b, "\e": 1, labels: {"\e": x, c: "\e", d: [e]}}}'
    found = problems(text)
    assert len(found) == 6
    assert all(str(problem).isprintable() for problem in found)


def laughs(levels: int, last: str) -> str:
    lines = ["x-0: &x0 {lol: lol}"]
    lines += [f"x-{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join([*lines, last])


MERGED = [f"x-{n}: &x{n} {{<<: *x{n - 1}, a{n}: b}}" for n in range(1, 3000)]
BOMBS = [
    *(laughs(9, last) for last in ("links: {}", "links: {a: *x8}", "links: {<<: *x8}")),
    "\n".join(["x-0: &x0 {a0: b}", *MERGED, "links: {}"]),
]


def test_a_billion_laughs_are_refused_at_once() -> None:
    """But a thousand links with one anchor are not a bomb."""
    for bomb in BOMBS:
        (problem,) = problems(bomb)
        assert "its aliases expand to more than 500,000 nodes" in problem.text
    lines = [f"  a{n}: {{<<: *o, to: b{n}}}" for n in range(1000)]
    text = "\n".join(["x-o: &o {mode: tc, admin: keep, labels: {x: y}}", "links:", *lines])
    assert len(links(text)) == 1000


def test_more_links_than_the_kernel_has_room_for_are_refused() -> None:
    assert keys.MAX_LINKS == MAX_ENDS // 2
    lines = "".join(f"  a{n}: b{n}\n" for n in range(keys.MAX_LINKS))
    assert len(parser.parse(f"links:\n{lines}", "x").links) == keys.MAX_LINKS
    (problem,) = problems(f"links:\n{lines}  a: b\n")
    assert "there are 32,769 links, 32,768 fit" in problem.text
    assert problem.line == 2


DENSE = {
    "a list": ("x-a: [" + "a," * 2_000_000 + "]\n", "500,000 keys and values", 500_010),
    "a long list": ("- a\n" * 1_000_000, "more than 500,000 keys and values", 500_010),
    "problems": ("x-a:\n" + "  a: 1\n" * 100_000, "there are further problems", 2_020),
}


@pytest.mark.parametrize(("text", "words", "most"), DENSE.values(), ids=DENSE)
def test_a_dense_file_is_refused_before_all_of_it_is_read(
    text: str, words: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0

    class Counting(yaml_tree._Loader):  # type: ignore[misc]
        def get_event(self) -> yaml.Event:
            nonlocal read
            read += 1
            return super().get_event()

    monkeypatch.setattr(yaml_tree, "_Loader", Counting)
    assert words in problems(text)[-1].text
    assert most - 20 <= read < most


def test_of_very_many_problems_the_first_are_told() -> None:
    bad = [f"  a b{n}: c{n}\n" for n in range(5000)]
    found = problems("links:\n" + "".join(bad))
    assert [problem.line for problem in found] == [*range(2, 1003)]
    assert found[-1].text == "there are further problems"
    assert len(problems("links:\n" + "".join(bad[:1000]))) == 1000
    refused_after_them = problems("links: {}\nx-a:\n" + "  a: 1\n" * 1001 + "x-b: *none\n")
    assert (len(refused_after_them), refused_after_them[-1].text) == (1001, found[-1].text)


YAMLISH = ["links:", "\n", "  ", "a", "b", ": ", "to", "mode", "tc", "{", "}", "[", "]", ",", "- ",
           "? ", "<<", "*x", "&x ", "!t ", "'", '"', "\\", "#", "|", ">", "~", "---\n", "...\n",
           "%YAML 1.1\n", "x-y", "\t", "@", "`", "12", "true", "é", "\ud800", "\0", "\x85",
           "\r"]  # fmt: skip
WHOLE = """\
version: 1
defaults: {mode: auto, admin: manage}
x-o: &o {mode: tc, labels: {a: b}}
links:
  eth0: tap0
  veth2: {<<: *o, to: veth3, enabled: true, description: "text"}
  a: a
"""
pieces = st.lists(st.sampled_from(YAMLISH)).map("".join)
damaged = st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 12), st.text(max_size=4) | pieces)


@given(
    st.text()
    | st.binary()
    | pieces
    | damaged.map(lambda it: WHOLE[: it[0]] + it[2] + WHOLE[it[0] + it[1] :])
)
def test_anything_is_a_wiring_or_a_list_of_problems(text: str | bytes) -> None:
    try:
        wiring = parse(text, "f")
    except ConfigError as error:
        str(error).encode()  # nothing that a terminal or a log could not hold
        return
    names = [end.name for it in wiring.links for end in it.ends]
    assert len(names) == len(set(names))


@given(st.integers(0, len(WHOLE)))
def test_half_of_a_file_never_drops_links_silently(at: int) -> None:
    """A cut file may be a valid shorter one, but never one that disconnects everything."""
    try:
        wiring = parse(WHOLE[:at], "f")
    except ConfigError:
        return
    assert wiring.links
