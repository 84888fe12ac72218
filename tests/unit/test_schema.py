"""The schema says what ``config`` says, as far as a schema can; where it cannot is listed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from xconnectd.config import json_schema, keys, parser
from xconnectd.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "config" / "xconnect.yaml"
VALIDATOR = Draft7Validator(json_schema.document())

Document = Any


def schema_takes(document: Document) -> bool:
    return VALIDATOR.is_valid(document)


def config_takes(document: Document) -> bool:
    return takes(as_yaml(document))


def as_yaml(document: Document) -> str:
    """JSON is YAML, but for what YAML forbids or takes for the end of a line.

    All strings come quoted, so no word of them is taken for something else.
    """
    text = json.dumps(document, ensure_ascii=False)
    return re.sub(
        "[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", lambda it: f"\\u{ord(it[0]):04x}", text
    )


def takes(text: str) -> bool:
    try:
        parser.parse(text, "f")
    except ConfigError:
        return False
    return True


def test_it_is_a_schema_and_each_call_gives_a_new_one() -> None:
    Draft7Validator.check_schema(json_schema.document())
    json.dumps(json_schema.document())
    json_schema.document()["properties"].clear()
    assert json_schema.document()["properties"]
    assert schema_takes(yaml.safe_load(EXAMPLE.read_text()))


def test_every_key_is_described() -> None:
    described = json_schema.document()
    assert tuple(described["properties"]) == keys.TOP_KEYS
    assert tuple(described["properties"]["defaults"]["properties"]) == keys.DEFAULT_KEYS
    assert tuple(described["properties"]["metrics"]["properties"]) == keys.METRICS_KEYS
    assert tuple(described["definitions"]["link"]["then"]["properties"]) == keys.LINK_KEYS
    node = described["properties"]["nodes"]["additionalProperties"]
    assert tuple(node["properties"]) == keys.NODE_KEYS
    for option in described["definitions"]["link"]["then"]["properties"].values():
        assert option["description"]


def values_of(keys: set[str], node: Any) -> Iterator[str]:
    """Texts by these keys, wherever they stand."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in keys and isinstance(value, str):
                yield value
            yield from values_of(keys, value)


def test_patterns_and_descriptions_hold_nothing_that_others_take_for_their_own() -> None:
    """Editors run patterns as JavaScript: no \\A, \\Z, named groups, inline flags."""
    patterns = list(values_of({"pattern"}, json_schema.document()))
    texts = list(values_of({"title", "description"}, json_schema.document()))
    assert patterns
    assert not [each for each in patterns if re.search(r"\\[AZz]|\(\?[P<a-z]", each)]
    assert not [each for each in texts if re.search(r"[\\`*_{}\[\]#+!]", each)], "Markdown's"


# Short names from few letters collide now and then, which no schema sees; these never do.
NAMES = [
    "n:e0",
    "n:e1",
    f"{'n' * 127}:{'i' * 15}",
    "12:34",
    "é:é",
    "eth0",
    "a" * 16,
    "b" * 127,
    "é",
    "12",
    "true",
    "null",
    "no",
    "...",
    "<<",
    "-",
    "x-y",
]
BAD_NAMES = ["", ".", "..", "a b", "a\n", "a:", ":a", "a:b:c", "a:b ", "a:.", "..:a", "a:b/c",
             "n" * 128 + ":i", "n:" + "i" * 16, "a/b/c", "/b", "a/", "a_/b", "a@b", "*", "?",
             "[0]", "{x}", "a,b", "b" * 128, "\t", "\u00a0", "\u2028", "\x1b", "\x7f",
             "\x85"]  # fmt: skip
OTHERS: list[Document] = [None, [], ["a"], {}, {"to": []}, [{"a": "b"}]]
TEXTS: list[Document] = ["", "x" * 256, "é", 12, 1.5, True, None]
BAD_TEXTS: list[Document] = ["x" * 257, "a\nb", "a\n", "\x00", "\x1b[2J", "\u2028", [], {}, ["a"]]

OPTIONS: dict[str, list[Document]] = {
    "mode": ["auto", "generic", "native", "tc", "AUTO", "", 1, True, None, [], {}],
    "enabled": [True, False, "true", "yes", 1, 0, None, [], {}],
    "admin": ["manage", "keep", "no", False, None, [], {}],
    "allow_addressed": [True, False, "false", 1, None, [], {}],
    "description": TEXTS + BAD_TEXTS,
    "labels": [
        *({"lab": text} for text in TEXTS + BAD_TEXTS),
        *({text: "demo"} for text in TEXTS + BAD_TEXTS if isinstance(text, str)),
        {}, None, [], "lab", True,
    ],
    "carrier": ["independent", "linked", True, None, [], {}],
    "mtu": [1500, 68, 65535, 67, 65536, 0, -1, "1500", "", True, None, [], {}],
    "impair": [{}, None, [], "20ms", 5], "unknown": [None],
    "one_way": [True, False, "true", 1, None, [], {}],
    "rewrite": ["swap-macs", "none", "swap", "", True, None, [], {}],
}  # fmt: skip

IMPAIRMENTS: list[Document] = [
    *({"delay": it} for it in ("20ms", "1.5s", "7USECS", "0ns", "20", 20, "1h", "ms", "-1ms", {})),
    *({"loss": it} for it in ("0.5%", "100%", "0%", "101%", "1", 1, "%", [], {"mean": "1%"})),
    *({"loss": {"mean": "1%", "burst": it}} for it in (5, 2.5, "5", 0, 0.5, "x", None, [])),
    *({"loss": {"mean": "1%", "burst": 5, it: 1}} for it in ("seed", "x")),
    *({"rate": it} for it in ("100mbit", "1Gbit", "1.5kbit", "8mibit", "100", 100, "5mbps", "bit")),
    *({"limit": it} for it in (1, 1000, "1000", 0, 1_000_001, -1, "x", 1.5, None)),
    *({"seed": it} for it in (0, 7, 2**64 - 1, 2**64, -1, "7", "x", True)),
    *(
        {"drop": it}
        for it in ("udp port 3784", "x", "", " x", "x ", "x\n", "é", "x" * 200, "x" * 201)
    ),
    *({"drop": it} for it in ("tcp[13] & 2 != 0", 5, True, None, [], {})),
    *({it: "1%"} for it in ("corrupt", "duplicate", "delays", "Loss", "forward")),
    {"delay": "20ms", "jitter": "2ms", "distribution": "normal", "reorder": "5%"},
    {"delay": "20ms", "jitter": "2ms", "distribution": "gauss"},
]
LINK_CASES = [{"to": "n:e0", key: value} for key, values in OPTIONS.items() for value in values]
LINK_CASES += [
    {"to": "b", "impair": each}
    for it in IMPAIRMENTS
    for each in (
        it,
        {"forward": it},
        {"forward": {}, "reverse": it},
        {"forward": it, "rate": "1gbit"},
    )
]
VERSIONS: list[Document] = [1, 2, "1", None, True, [], {}]
DEFAULTS: list[Document] = [{}, None, [], "mode", True]
DEFAULT_CASES = [{key: value} for key, values in OPTIONS.items() for value in values]
LISTENS: list[Document] = [
    "127.0.0.1:9109", "localhost:1", "0.0.0.0:65535", "[::]:9109", "[1:2::3:4]:5", "unix:/m.sock",
    "unix:/a/b", f"unix:/{'x' * 106}", f"unix:/{'x' * 107}", "unix:/", "unix:m", "unix:/a/",
    "unix:/a b", "unix:/é", "", ":1", "9109", 9109, 1.5, True, None, [], {}, "127.0.0.1",
    "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:09", "127.0.0.1:9109\n", "127.0.0.01:1", "1.2.3:4",
    "256.1.1.1:1", "host:1", "LOCALHOST:1", "::1:80", "[::1]", "[::1%lo]:1", "[1::2::3]:1",
    "[::1.2.3.4]:1", "[1:2:3:4:5:6:7:8:9]:1", "١٢٧.0.0.1:1", "http://127.0.0.1:1",
]  # fmt: skip
NODES: list[Document] = [
    *({"n": {key: value}} for key, values in {
        "netns": ["/run/netns/n", "/", "n", "", "/a\nb", f"/{'x' * 255}", f"/{'x' * 256}", 1, None],
        "container": ["n", "12", 12, "a-b_c.d", ".a", "/a", "é", "", "x" * 257, None, [], {}],
        "pid": [1, 4194304, 0, -1, 4194305, "1", True, None, []],
        "path": ["/run/netns/n"],
    }.items() for value in values),
    *({name: {"pid": 1}} for name in NAMES + BAD_NAMES),
    *({"n": node} for node in ({}, None, [], "n", {"pid": 1, "netns": "/n"})),
    *({}, None, [], "n", True),
]  # fmt: skip
HOSTS: list[Document] = [
    *({"h1": address} for address in (
        "198.51.100.1", "2001:db8::1", "1:2:3:4:5:6:7:8", "198.51.100.01", "198.51.100", "h1", "",
        "[2001:db8::1]", "2001:db8::1%eth0", "2001:db8::198.51.100.1", "198.51.100.1/24", 1, None,
        [], ["198.51.100.1"], {},
    )),
    *({name: "198.51.100.1"} for name in (
        "node-1.example.org", "1", "N", "", ".", "a.", "-a", "a-", "a_b", "é", "a/b", "x" * 64,
        ".".join(["x" * 63] * 4), ".".join(["x" * 61] * 4),
    )),
    *(None, [], {}, "h1", True),
]  # fmt: skip
KEYS: list[Document] = ["0123456789abcdef", "0123456789abcde", "x" * 257, 10**15, None, [], {}]
TUNNELS: list[Document] = [
    *({"vxlan": {"remote": "198.51.100.1", "vni": 1, key: value}} for key, values in {
        "remote": ["2001:db8::1", "h1", 1, None],
        "vni": [2**24 - 1, 2**24, 0, "1", None],
        "port": [1, 65535, 0, 65536, "1", None],
        "ttl": [1],
    }.items() for value in values),
    *({"vxlan": tunnel} for tunnel in (None, [], {}, {"vni": 1}, {"remote": "198.51.100.1"})),
    *({}, {"vxlan": {"remote": "198.51.100.1", "vni": 1}, "gre": {}}),
]  # fmt: skip
CROSSING: dict[str, list[Document]] = {
    "vni": [1, 2**24 - 1, 2**24, 0, "1", True, None],
    "hold": ["30s", "24h", "1m", "0s", "30", 30, "1d", "1.5s", "", None],
}
METRICS: list[Document] = [
    *({"listen": listen} for listen in LISTENS),
    *({}, None, [], "127.0.0.1:1", False, {"listen": "[::1]:1", "path": "/"}, {"lisen": "[::1]:1"}),
]
TOP_KEYS = ["x-a", "x-", "x", "X-a", "mirrors", "endpoints"]
TOP_CASES: list[Document] = [
    *({"links": links} for links in (*OTHERS, "text", 1, True)),
    *({"links": {name: "zz"}} for name in NAMES + BAD_NAMES),
    *({"links": {"zz": name}} for name in (*NAMES, *BAD_NAMES, 12, 1.5, True, [], ["b"], {})),
    *({"links": {"zz": {"to": name}}} for name in (*NAMES, *BAD_NAMES, 12, 1.5, True, [], {})),
    *({"links": {"a": link}} for link in LINK_CASES),
    *({"links": {}, "version": version} for version in VERSIONS),
    *({"links": {}, "defaults": defaults} for defaults in DEFAULTS + DEFAULT_CASES),
    *({"links": {}, "nodes": nodes} for nodes in NODES),
    *({"links": {}, "metrics": metrics} for metrics in METRICS),
    *({"links": {}, "hosts": hosts} for hosts in HOSTS),
    *({"links": {}, "hosts": {"h1": "198.51.100.1"}, "hosts_key": key} for key in KEYS),
    *({"links": {"a": {"to": tunnel}}} for tunnel in TUNNELS),
    *(
        {
            "hosts": {"h1": "198.51.100.1", "h2": "198.51.100.2"},
            "links": {"h1/a": {"to": "h2/n:b", key: value}},
        }
        for key, values in CROSSING.items()
        for value in values
    ),
    *({"links": {}, "defaults": {"hold": hold}} for hold in CROSSING["hold"]),
    *({"links": {}, key: {}} for key in TOP_KEYS),
    *(None, [], "text", 1, {}, {"version": 1}, {"x-a": 1}),
]  # fmt: skip


def test_both_judge_alike() -> None:
    verdicts = [config_takes(document) for document in TOP_CASES]
    assert [schema_takes(document) for document in TOP_CASES] == verdicts
    assert (verdicts.count(True) > 50, verdicts.count(False) > 150) == (True, True)


def links_of(ends: list[str], options: list[dict[str, Document]]) -> dict[str, Document]:
    pairs = zip(ends[::2], ends[1::2], strict=False)
    return {
        a: {"to": b, **{key: more[key] for key in more if key != "mtu" or ":" in a + b}}
        for (a, b), more in zip(pairs, options, strict=False)
    }


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
an_option = st.sampled_from(sorted(OPTIONS)).flatmap(
    lambda key: st.tuples(st.just(key), st.sampled_from(OPTIONS[key]) | scalars)
)
some_options = st.lists(an_option, max_size=3).map(dict)
some_links = st.builds(
    links_of,
    st.lists(st.sampled_from(NAMES + BAD_NAMES) | st.text(min_size=1, max_size=6), unique=True),
    st.lists(some_options, min_size=1),
)
listens = st.builds(
    "{}:{}".format,
    st.ip_addresses(v=4) | st.ip_addresses(v=6).map("[{}]".format) | st.text("[:]1.f", max_size=9),
    st.integers(0, 70_000) | st.text(max_size=3),
) | st.text(max_size=9).map("unix:/{}".format)
documents = st.fixed_dictionaries(
    {"links": some_links},
    optional={
        "version": st.just(1) | scalars,
        "defaults": some_options,
        "nodes": st.sampled_from(NODES) | scalars,
        "metrics": st.sampled_from(METRICS) | st.fixed_dictionaries({"listen": listens}) | scalars,
        "x-mine": scalars,
        "link": scalars,
    },
)


@given(documents)
def test_both_judge_any_document_alike(document: Document) -> None:
    assert schema_takes(document) == config_takes(document)


# YAML, and whether the schema and config take it. Of a date YAML 1.1 makes what is no JSON.
DIFFERENT = [
    ("links: {a: 2001-01-01, b: {to: 2001-01-02, description: 2001-01-01}}", True, True),
    ("links: {a: b, c: b}", True, False),  # an interface in two links
    ("links: {a: {to: b, mode: tc}, b: a}", True, False),
    ("links: {a: b}\nlinks: {a: b}", True, False),
    (f"links: {{a: {'é' * 64}}}", True, False),  # bytes
    ("links: {a: {to: b, enabled: yes}}", True, False),
    ("links: {a: {to: b, mtu: 1500}}", True, False),  # nothing is made
    ("links: {a:b: {to: c, mtu: 1500.0}}", True, False),
    ("version: 1.0\nlinks: {}", True, False),
    ("links: {a: !!str b}", True, False),
    ("links: {a: {to: b, mode: generic, impair: {loss: 1%}}}", True, False),
    ("links: {a: {to: b, impair: {delay: 61s}}}", True, False),
    ("links: {a: {to: b, impair: {jitter: 1ms}}}", True, False),
    ("links: {a: {to: a, impair: {forward: {loss: 1%}}}}", True, False),
    ("links: {a: ~}", False, True),
    ("links: {a: {to: null}}", False, True),
]


@pytest.mark.parametrize(("text", "schema", "config"), DIFFERENT)
def test_what_stands_in_yaml_and_not_in_json(text: str, *, schema: bool, config: bool) -> None:
    assert schema_takes(yaml.safe_load(text)) == schema
    assert takes(text) == config
