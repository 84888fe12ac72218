"""The file: YAML text to ``Wiring``, or every problem in it with its line and column.

Owns what a good file is: its keys, its names, its defaults; ``json_schema`` describes the same
tables to editors. Never touches the disk.

The file is read from YAML's events, not as Python values: a name is the text of its scalar
(``no``, ``12`` and ``1e3`` are names), a repeated key is seen and everything knows its place.
Building our own small tree also bounds depth and expansion before anything is walked; PyYAML's
composer recurses in C as deep as the file says.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from enum import StrEnum
from typing import Any, Final, NamedTuple

import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
)

from xconnectd.config import edit
from xconnectd.errors import ConfigError, Problem
from xconnectd.model import Admin, Carrier, Endpoint, Link, Listen, Mode, Place, Wiring
from xconnectd.monitor_address import MonitorAddress

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# --------------------------------------------------------------------------- what a file may hold

VERSION: Final = 1
USER_PREFIX: Final = "x-"
"""Keys at the top that begin so are the user's own and ignored."""

DEFAULT_KEYS: Final = ("mode", "admin", "allow_addressed", "carrier")
"""Those keys of a link that `defaults` may have. What the keys are is said with what reads them."""
LATER_TOP_KEYS: Final = ("mirrors", "endpoints")
LATER_LINK_KEYS: Final = ("impair", "mtu", "one_way")

CHOICES: Final[Mapping[str, type[StrEnum]]] = {
    "mode": Mode,
    "admin": Admin,
    "carrier": Carrier,
}

NAME_BYTES: Final = 127
"""ALTIFNAMSIZ less its NUL. What is longer than 15 (IFNAMSIZ) can only be an altname."""
CONTROL: Final = r"\x00-\x1f\x7f-\x9f\ud800-\udfff"
END: Final = r"(?![\s\S])"
"""The end of the text; a ``$`` would let a last newline pass."""
NAME_PATTERN: Final = rf"^(?!\.{{1,2}}{END})[^\s{CONTROL}\ufeff\[\]{{}}*?,/:@]+{END}"
"""What dev_valid_name() takes, less the characters kept free for patterns and addresses."""
TEXT_LENGTH: Final = 256
TEXT_PATTERN: Final = rf"^[^{CONTROL}\u2028\u2029]*{END}"
"""One line of text."""

LOCALHOST: Final = "127.0.0.1"
"""What ``localhost`` means where metrics are served; ``[::1]`` is another place."""
_BYTE: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_GROUP: Final = "[0-9A-Fa-f]{1,4}"
_IPV4: Final = rf"{_BYTE}(?:\.{_BYTE}){{3}}"
_IPV6: Final = "|".join(
    (
        f"(?:{_GROUP}:){{7}}{_GROUP}",
        f"(?:{_GROUP}:){{1,7}}:",
        f":(?::{_GROUP}){{1,7}}",
        "::",
        *(f"(?:{_GROUP}:){{1,{7 - n}}}(?::{_GROUP}){{1,{n}}}" for n in range(1, 7)),
    )
)
_PORT: Final = (
    "(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
)
_PATH_BYTES: Final = 107
"""A sockaddr_un holds 108, one of them a NUL."""
_PATH: Final = f"/[!-~]{{0,{_PATH_BYTES - 2}}}[!-.0-~]"
LISTEN_PATTERN: Final = rf"^(?:(?:localhost|{_IPV4}|\[(?:{_IPV6})\]):{_PORT}|unix:{_PATH}){END}"
"""Where metrics can be served. Compiled by the file that has them, as that takes milliseconds."""

MONITOR_PATTERN: Final = rf"^(?:qmp|hmp):[^#]*.#[A-Za-z][A-Za-z0-9._-]*{END}"
"""Milder than what reads it."""

MAX_LINKS: Final = 32_768
"""As many as the kernel's maps have room for: 65,536 ends."""
MAX_BYTES: Final = 8 << 20
_MAX_DEPTH: Final = 50
_MAX_NODES: Final = 500_000
_MAX_SCALAR: Final = 1024
"""Characters of a key (as YAML has it for most), and of what is read; below `x-` a text has any."""
_MAX_PROBLEMS: Final = 1000
"""These bound what a file can take of the daemon: a second, and 100 MB."""
_LONGEST_TYPO: Final = 40
TOO_LARGE: Final = f"is it the right file? {MAX_LINKS:,} links are all that fit"

_NULLS: Final = ("", "~", "null", "Null", "NULL")
_YES: Final = ("true", "yes", "on", "y", "1")
_NO: Final = ("false", "no", "off", "n", "0")
_DISCONNECT: Final = "half-written? `links: {}` disconnects everything on purpose"

_is_name: Final = re.compile(NAME_PATTERN).match
_is_text: Final = re.compile(TEXT_PATTERN).match
_FOREIGN: Final = "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
"""What YAML does not allow anywhere in its text. Slow to compile, hence not done for most files."""


# --------------------------------------------------------------------------- entrances


def parse(text: str | bytes, path: str) -> Wiring:
    """Turn the text of a file into its wiring, or raise ``ConfigError`` with all its problems.

    Text that is no YAML is told by its first error, since nothing behind it can be trusted.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    report = _Report(path)
    reader = _Reader(report)
    with _no_collections(), suppress(_TooMany):
        try:
            reader.read(_compose(_decode(data), report))
        except _Refusal as refusal:
            report.add(refusal)
    if report.problems:
        raise ConfigError(report.told())
    links, warnings = tuple(reader.links), tuple(report.warnings)
    return Wiring(links, edit.digest(data), warnings, reader.metrics, data)


@contextmanager
def _no_collections() -> Iterator[None]:
    """Half a million nodes are no garbage, and to look for some among them takes thrice as long."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _decode(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        hint = "save the file as UTF-8"
        raise _Refusal(_Spot.after(before), "is not UTF-8 text", hint) from None
    if not text.replace("\n", "").isprintable() and (found := re.search(_FOREIGN, text)):
        what = f"the character U+{ord(found.group()):04X} cannot stand in a YAML file"
        hint = "a half-written or binary file?" if found.group() == "\0" else "take it out"
        raise _Refusal(_Spot.after(text[: found.start()]), what, hint)
    return text


# --------------------------------------------------------------------------- problems


class _Spot(NamedTuple):
    """A place with the two fields of YAML's marks; counts from 0 as they do."""

    line: int
    column: int

    @classmethod
    def after(cls, text: str) -> _Spot:
        return cls(text.count("\n"), len(text) - text.rfind("\n") - 1)


class _Refusal(Exception):  # noqa: N818 - it never leaves this module
    """One problem at ``where`` (a node, an event, a mark; None: the file as a whole)."""

    def __init__(self, where: Any, text: str, hint: str = "") -> None:
        self.where = where
        self.hint = hint
        super().__init__(text)


class _TooMany(Exception):  # noqa: N818 - it never leaves this module
    """There are more problems than anybody reads."""


class _Report:
    """Gathers what is wrong and what is odd. A dict, as an aliased node is read many times."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.problems: dict[Problem, None] = {}
        self.warnings: list[str] = []

    def add(self, refusal: _Refusal) -> None:
        place = _place(refusal.where) if refusal.where is not None else Place(1, 1)
        problem = Problem(self.path, place.line, place.column, str(refusal), refusal.hint)
        self.problems[problem] = None
        if len(self.problems) > _MAX_PROBLEMS:
            raise _TooMany

    def told(self) -> list[Problem]:
        """The problems in the order of their places; beyond the bound only that there are more."""
        found = sorted(self.problems)
        for beyond in found[_MAX_PROBLEMS:]:
            more = beyond._replace(text="there are further problems", hint="is it the right file?")
            return [*found[:_MAX_PROBLEMS], more]
        return found

    def problem(self, where: Any, text: str, hint: str = "") -> None:
        self.add(_Refusal(where, text, hint))

    def warn(self, place: Place, text: str) -> None:
        self.warnings.append(f"{self.path}:{place.line}:{place.column}: {text}")


def _place(where: Any) -> Place:
    mark = getattr(where, "start_mark", where)
    return Place(mark.line + 1, mark.column + 1)


def _resembles(word: str, known: Iterable[str]) -> str:
    if len(word) > _LONGEST_TYPO:
        return ""
    from difflib import get_close_matches  # 5 ms that only a typo should cost

    close = get_close_matches(word.lower(), known, n=1)
    return f"did you mean `{close[0]}`?" if close else ""


# --------------------------------------------------------------------------- YAML to nodes


class _Scalar(NamedTuple):
    """A text and its place, in a third of the memory that its event takes.

    ``style`` is empty for one without quotes.
    """

    value: str
    style: str
    line: int
    column: int


class _Mapping(NamedTuple):
    """A mapping with its merges done: the text of a key to the key and its value."""

    start_mark: Any
    entries: dict[str, tuple[_Scalar, _Node]]


class _Sequence(NamedTuple):
    start_mark: Any
    items: list[_Node]


_Node = _Scalar | _Mapping | _Sequence


class _Anchor(NamedTuple):
    """``size`` is how many nodes it stands for when every alias in it is written out."""

    node: _Node
    size: int


def _compose(text: str, report: _Report) -> _Node | None:
    if directive := re.search(r"^%(?!YAML )\S*", text, re.MULTILINE) if "%" in text else None:
        what = f"the directive `{_short(directive.group())}` has no meaning here"
        raise _Refusal(_Spot.after(text[: directive.start()]), what, "leave the line out")
    loader = _Loader(text)
    try:
        return _Composer(loader.get_event, report).document()
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(error, text) from None
    except yaml.YAMLError as error:
        raise _Refusal(None, f"is not YAML: {error}") from None
    finally:
        loader.dispose()


def _not_yaml(error: yaml.MarkedYAMLError, text: str) -> _Refusal:
    if conflict := re.search("^<<<<<<< ", text, re.MULTILINE):
        where = _Spot.after(text[: conflict.start()])
        return _Refusal(where, "an unresolved merge conflict", "resolve it, and remove its markers")
    return _Refusal(_mistake(error, text), f"is not YAML: {_words(error)}", _way_out(error))


def _mistake(error: yaml.MarkedYAMLError, text: str) -> Any:
    """The mark of what is wrong.

    The parser complains where it can go no further. After a word without a colon, an open quote or
    a bracket that nothing closes that is a later line, and what it was at (its context) is meant.
    """
    context, problem = error.context_mark, error.problem_mark
    begun = any(word in (error.context or "") for word in ("simple key", "quoted scalar"))
    if context and problem and (begun or _Spot(problem.line, problem.column) >= _end_of(text)):
        return context
    return problem or context


def _end_of(text: str) -> _Spot:
    return _Spot.after(text.rstrip())


def _words(error: yaml.MarkedYAMLError) -> str:
    return ", ".join(part for part in (error.context, error.problem) if part)


def _way_out(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or ""
    if "cannot start any token" in problem:
        return "indent with spaces, not tabs; quote what begins with @, ` or %"
    if "expected node content" in problem:
        return "quote a text that begins with [, { or :"
    if "mapping values are not allowed" in problem:
        return "is the line indented as its neighbours are, with one `: ` in it?"
    if "expected <block end>" in problem:
        return "is the line indented as its neighbours are?"
    return ""


class _Composer:
    """YAML's events to nodes; an alias is the node itself, never a copy."""

    def __init__(self, next_event: Callable[[], Any], report: _Report) -> None:
        self._next = next_event
        self._report = report
        self._anchors: dict[str, _Anchor | None] = {}
        self._depth = 0
        self._size = 0

    def document(self) -> _Node | None:
        self._next()  # the stream's start
        if isinstance(self._next(), StreamEndEvent):
            return None
        root = self._node(self._next())
        self._next()  # the document's end
        if not isinstance(extra := self._next(), StreamEndEvent):
            raise _Refusal(extra, "a second document begins", "one file is one document")
        return root

    def _node(self, event: Any) -> _Node:
        if type(event) is ScalarEvent:
            mark: Any = event.start_mark
            node = _Scalar(event.value, event.style or "", mark.line, mark.column)
            if event.anchor is not None or event.tag is not None:
                self._note(event, node, 1)
            return node
        if isinstance(event, AliasEvent):
            return self._alias(event)
        return self._collection(event)

    def _note(self, event: NodeEvent, node: _Node, size: int) -> None:
        """Keep the anchor of a node, and refuse its tag."""
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchor(node, size)
            self._grow(event, 1)
        if (tag := getattr(event, "tag", None)) is not None:
            self._report.problem(
                event, f"the tag `{_short(tag)}` has no meaning here", "leave it out"
            )

    def _alias(self, event: AliasEvent) -> _Node:
        name = str(event.anchor)
        if name not in self._anchors:
            raise _Refusal(event, f"`*{_short(name)}` has no `&{_short(name)}` above it")
        if (anchor := self._anchors[name]) is None:
            raise _Refusal(event, f"`*{_short(name)}` is part of what it refers to")
        self._size += anchor.size
        if self._size > _MAX_NODES:
            text = f"its aliases expand to more than {_MAX_NODES:,} nodes"
            raise _Refusal(event, text, "aliases of aliases multiply; write them out")
        return anchor.node

    def _grow(self, event: Any, nodes: int) -> None:
        self._size += nodes
        if self._size > _MAX_NODES:
            text = f"the file has more than {_MAX_NODES:,} keys and values"
            raise _Refusal(event, text, TOO_LARGE)

    def _collection(self, start: CollectionStartEvent) -> _Node:
        if self._depth == _MAX_DEPTH:
            raise _Refusal(start, f"nested deeper than {_MAX_DEPTH} levels")
        if start.anchor is not None:
            self._anchors[start.anchor] = None  # open: an alias to it would never end
        before = self._size
        self._depth += 1
        fill = self._mapping if isinstance(start, MappingStartEvent) else self._sequence
        node = fill(start)
        self._depth -= 1
        self._note(start, node, self._size - before + 1)
        return node

    def _sequence(self, start: Event) -> _Sequence:
        node = _Sequence(start.start_mark, [])
        while type(event := self._next()) is not SequenceEndEvent:
            node.items.append(self._node(event))
            self._grow(event, 1)
        return node

    def _mapping(self, start: Event) -> _Mapping:
        node = _Mapping(start.start_mark, {})
        entries = node.entries
        while type(event := self._next()) is not MappingEndEvent:
            key, value = self._node(event), self._node(self._next())
            self._grow(event, 2)
            if type(key) is not _Scalar:
                self._report.problem(key, "a key must be a word, not a collection")
            elif len(key.value) > _MAX_SCALAR:
                self._report.problem(key, *_too_long(key))
            elif (text := key.value) in entries:
                self._repeated(key, entries[text][0])
            else:
                entries[text] = (key, value)
        merged = entries.get("<<")
        if merged and not merged[0].style:
            del entries["<<"]
            self._merge(entries, merged[1])
        return node

    def _repeated(self, key: _Scalar, first: _Scalar) -> None:
        text = f"the key `{_short(key.value)}` stands in line {_place(first).line} already"
        self._report.problem(key, text, "keep one of the two")

    def _merge(self, entries: dict[str, tuple[_Scalar, _Node]], value: _Node) -> None:
        """As YAML 1.1 has it: what is written out wins, then the earlier of several."""
        for source in value.items if isinstance(value, _Sequence) else [value]:
            if isinstance(source, _Mapping):
                for text, entry in source.entries.items():
                    entries.setdefault(text, entry)
            else:
                self._report.problem(source, "`<<` takes a mapping, or a list of them")


# --------------------------------------------------------------------------- nodes to values


def _short(text: str) -> str:
    """The text as a message may show it: not too long, nothing a terminal would obey."""
    begin = text[:41]
    shown = begin if begin.isprintable() else ascii(begin)[1:-1]
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


def _bounded(node: _Node) -> _Node:
    if isinstance(node, _Scalar) and len(node.value) > _MAX_SCALAR:
        raise _Refusal(node, *_too_long(node))
    return node


def _too_long(node: _Scalar) -> tuple[str, str]:
    text = f"a text of {len(node.value):,} characters; no key, name or option has more than"
    return f"{text} {_MAX_SCALAR:,}", "is a quote missing?"


def _is_plain(node: _Node, *texts: str) -> bool:
    return isinstance(node, _Scalar) and not node.style and node.value in texts


def _said(node: _Node) -> str:
    """What stands there, for a message."""
    if isinstance(node, _Mapping):
        return "a mapping"
    if isinstance(node, _Sequence):
        return "a list"
    if not node.value:
        return "nothing" if not node.style else "an empty text"
    quote = '"' if node.style else ""
    return f"`{quote}{_short(node.value)}{quote}`"


def _version(key: _Scalar, node: _Node) -> None:
    if not _is_plain(node, str(VERSION)):
        hint = f"this program reads version {VERSION}"
        raise _Refusal(node, f"`{key.value}` is {VERSION}, not {_said(node)}", hint)


def _flag(key: _Scalar, node: _Node) -> bool:
    if _is_plain(node, "true"):
        return True
    if _is_plain(node, "false"):
        return False
    word = node.value.lower() if isinstance(node, _Scalar) else ""
    hint = "write true" if word in _YES else "write false" if word in _NO else ""
    raise _Refusal(node, f"`{key.value}` takes true or false, not {_said(node)}", hint)


def _choice(key: _Scalar, node: _Node) -> StrEnum:
    choices = CHOICES[key.value]
    text = node.value if isinstance(node, _Scalar) else ""
    try:
        return choices(text)
    except ValueError:
        hint = _resembles(text, choices)
        known = ", ".join(choices)
        raise _Refusal(node, f"`{key.value}` is one of {known}, not {_said(node)}", hint) from None


def _text(key: _Scalar, node: _Node) -> str:
    name = _short(key.value)
    if not isinstance(node, _Scalar):
        raise _Refusal(node, f"`{name}` is a text, not {_said(node)}")
    if len(node.value) > TEXT_LENGTH:
        text = f"`{name}` has {len(node.value)} characters, {TEXT_LENGTH} fit"
        raise _Refusal(node, text, "shorten it")
    if not _is_text(node.value):
        text = f"`{name}` is one line, without control characters"
        raise _Refusal(node, text, "`>-` folds lines")
    return node.value


def _to_mapping(key: _Scalar, node: _Node) -> _Mapping:
    if not isinstance(node, _Mapping):
        text = f"`{key.value}` is a mapping, not {_said(node)}"
        raise _Refusal(node, text, f"`{key.value}: {{}}`")
    return node


def _label(key: _Scalar, node: _Node) -> tuple[str, str]:
    if not key.value:
        raise _Refusal(key, "a label needs a name", "`labels: {lab: demo}`")
    return _text(key, key), _text(key, node)


def _monitor(key: _Scalar, node: _Node) -> MonitorAddress:
    try:
        return MonitorAddress.parse(_text(key, node))
    except ValueError as error:
        problem, hint = error.args
        raise _Refusal(node, problem, hint) from None


def _end(key: _Scalar, node: _Node) -> Endpoint:
    if not isinstance(node, _Scalar):
        text = f"`{_short(key.value)}` is the name of one interface, not {_said(node)}"
        raise _Refusal(node, text, "one line per pair, an interface belongs to one link")
    name: str = node.value
    if _is_name(name) and (len(name) <= NAME_BYTES // 4 or len(name.encode()) <= NAME_BYTES):
        return Endpoint(name)
    raise _Refusal(node, *_why_no_name(node))


_NAME_HINTS: Final = {
    "*": "patterns are not in this version, one line per pair",
    "?": "patterns are not in this version, one line per pair",
    "[": "ranges are not in this version, one line per pair",
    "{": "ranges are not in this version, one line per pair",
    ",": "an interface belongs to one link, one line per pair",
    "/": "the interface's name, without a path or a namespace",
    ":": "an interface alone, without an alias or a port; a pair is `a: b`, with a space",
}


def _why_no_name(node: _Scalar) -> tuple[str, str]:
    name = node.value
    if not name:
        return f"the name of an interface is missing, there is {_said(node)}", "`eth0: tap0`"
    if name in (".", ".."):
        return f"`{name}` cannot be the name of an interface", ""
    if bad := next((char for char in name if char != "." and not _is_name(char)), ""):
        return f"there is {_named(bad)} in the name `{_short(name)}`", _name_hint(name, bad)
    size = len(name.encode())
    return f"`{_short(name)}` has {size} bytes, no name has more than {NAME_BYTES}", ""


def _named(char: str) -> str:
    if char == " ":
        return "a space"
    return f"a `{char}`" if char.isprintable() else f"the character U+{ord(char):04X}"


def _name_hint(name: str, bad: str) -> str:
    if bad == "@":
        return f"leave out `{_short(name[name.index('@') :])}`, it is no part of the name"
    return _NAME_HINTS.get(bad, "")


# --------------------------------------------------------------------------- where metrics are


_LISTEN_EXAMPLE: Final = "`metrics: {listen: 127.0.0.1:9109}`"


def _listen(key: _Scalar, node: _Node) -> Listen:
    if not isinstance(node, _Scalar):
        text = f"`{key.value}` is an address and a port, not {_said(node)}"
        raise _Refusal(node, text, 'an IPv6 address stands in quotes: `"[::1]:9109"`')
    if not re.match(LISTEN_PATTERN, node.value):
        text, hint = _why_no_listen(node)
        raise _Refusal(node, f"metrics cannot be served at {_said(node)}: {text}", hint)
    return _to_listen(node.value, _place(node))


def _to_listen(text: str, place: Place) -> Listen:
    """Of a text that fits the pattern."""
    if text.startswith("unix:"):
        return Listen(path=text.removeprefix("unix:"), place=place)
    host, _, port = text.rpartition(":")
    address = LOCALHOST if host == "localhost" else host.strip("[]")
    return Listen(address, int(port), place=place)


def _why_no_listen(node: _Scalar) -> tuple[str, str]:
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

_Read = Callable[[_Scalar, _Node], Any]
_Entries = Mapping[str, tuple[_Scalar, _Node]]


def _to_links(key: _Scalar, node: _Node) -> _Mapping:
    if isinstance(node, _Mapping):
        return node
    if isinstance(node, _Sequence):
        raise _Refusal(node, f"a list under `{key.value}` is not in this version", "`eth0: tap0`")
    if _is_plain(node, *_NULLS):
        raise _Refusal(node, f"`{key.value}` is empty", _DISCONNECT)
    hint = "a space after the colon: `eth0: tap0`" if ":" in node.value else "`eth0: tap0`"
    raise _Refusal(node, f"`{key.value}` holds pairs, not {_said(node)}", hint)


def _to_metrics(key: _Scalar, node: _Node) -> _Mapping:
    if not isinstance(node, _Mapping):
        text = f"`{key.value}` is a mapping, not {_said(node)}"
        raise _Refusal(node, text, f"{_LISTEN_EXAMPLE}; without the key there are none")
    if "listen" not in node.entries:
        raise _Refusal(node, f"`{key.value}` lacks `listen`", _LISTEN_EXAMPLE)
    return node


_OPTIONS: Final[Mapping[str, _Read]] = {
    "to": _end,
    "mode": _choice,
    "enabled": _flag,
    "admin": _choice,
    "allow_addressed": _flag,
    "description": _text,
    "labels": _to_mapping,
    "carrier": _choice,
    "ends": _to_mapping,
}


class _Level(NamedTuple):
    """A level of the file: what reads each of its keys, and what is said of others."""

    where: str
    known: Mapping[str, _Read]
    later: tuple[str, ...] = ()
    hint: str = ""

    def read(self, key: _Scalar, node: _Node) -> Any:
        name = key.value
        if known := self.known.get(name):
            return known(key, node)
        if name in self.later:
            raise _Refusal(key, f"`{name}` is not in this version", "leave it out")
        hint = _resembles(name, self.known) or self.hint or f"known: {', '.join(self.known)}"
        raise _Refusal(key, f"unknown key `{_short(name)}` {self.where}", hint)


_TOP: Final = _Level(
    "at the top of the file",
    {"version": _version, "defaults": _to_mapping, "metrics": _to_metrics, "links": _to_links},
    LATER_TOP_KEYS,
    f"links stand under `links:`, keys of your own begin with {USER_PREFIX}",
)
_DEFAULTS: Final = _Level("in `defaults`", {key: _OPTIONS[key] for key in DEFAULT_KEYS})
_METRICS: Final = _Level("in `metrics`", {"listen": _listen})
_LINK: Final = _Level("in a link", _OPTIONS, LATER_LINK_KEYS)
_ENDS: Final = _Level("of an end", {"monitor": _monitor})

TOP_KEYS: Final = tuple(_TOP.known)
METRICS_KEYS: Final = tuple(_METRICS.known)
LINK_KEYS: Final = tuple(_LINK.known)
END_KEYS: Final = tuple(_ENDS.known)


class _Reader:
    """Reads one file's nodes; what is bad is reported and left out, so that all of it is found."""

    def __init__(self, report: _Report) -> None:
        self.links: list[Link] = []
        self.metrics: Listen | None = None
        self._report = report
        self._defaults: dict[str, Any] = {}
        self._taken: dict[str, Link] = {}
        self._known_monitors: dict[MonitorAddress, Endpoint] = {}
        self._refused: set[tuple[int, int]] = set()

    def read(self, root: _Node | None) -> None:
        top = self._values(_TOP, self._top(root))
        if defaults := top.get("defaults"):
            self._defaults = self._values(_DEFAULTS, defaults.entries)
        if metrics := top.get("metrics"):
            self.metrics = self._values(_METRICS, metrics.entries).get("listen")
        if links := top.get("links"):
            if len(links.entries) > MAX_LINKS:
                text = f"there are {len(links.entries):,} links, {MAX_LINKS:,} fit"
                raise _Refusal(links, text, "that is the room in the kernel's maps")
            for key, value in links.entries.values():
                self._link(key, value)

    def _top(self, root: _Node | None) -> _Entries:
        if root is None or _is_plain(root, *_NULLS):
            raise _Refusal(root, "the file is empty", _DISCONNECT)
        if not isinstance(root, _Mapping):
            raise _Refusal(root, f"the file is a mapping, not {_said(root)}", "`links: {}`")
        if "links" not in root.entries:
            self._report.problem(root, "there is no `links:`", _DISCONNECT)
        return {key: it for key, it in root.entries.items() if not key.startswith(USER_PREFIX)}

    def _values(self, level: _Level, entries: _Entries) -> dict[str, Any]:
        """What the keys of a level say, without those that only had to be right."""
        read = ((key, self._try(level.read, at, node)) for key, (at, node) in entries.items())
        return {key: value for key, value in read if value is not None}

    def _try(self, read: _Read, key: _Scalar, node: _Node) -> Any:
        """What ``read`` makes of a value, None if that is refused.

        Behind an alias it is the same key and value again and again; once is enough to refuse it.
        """
        if (id(key), id(node)) in self._refused:
            return None
        try:
            return read(key, _bounded(node))
        except _Refusal as refusal:
            self._refused.add((id(key), id(node)))
            self._report.add(refusal)
            return None

    def _link(self, key: _Scalar, value: _Node) -> None:
        a = self._try(_end, key, key)
        if isinstance(value, _Mapping):
            options = self._values(_LINK, value.entries)
            _, value = value.entries.get("to") or self._lacks_other_end(key)
            b = options.pop("to", None)
            if labels := options.get("labels"):
                options["labels"] = self._labels(labels)
            options["carrier_of_nics"] = options.get("carrier") is Carrier.FOLLOW
            if ends := options.pop("ends", None):
                options["monitors"] = self._monitors(ends, {a, b})
        else:
            options, b = {}, self._try(_end, key, value)
        if a and b:
            link = Link(a, b, place=_place(key), **{**self._defaults, **options})
            self._join(link, key, value)

    def _labels(self, labels: _Mapping) -> tuple[tuple[str, str], ...]:
        read = (self._try(_label, key, node) for key, node in labels.entries.values())
        return tuple(label for label in read if label is not None)

    def _monitors(
        self, ends: _Mapping, known: set[Endpoint | None]
    ) -> tuple[tuple[str, MonitorAddress], ...]:
        found = []
        for key, node in ends.entries.values():
            end = self._try(_end, key, key)
            options = self._try(_to_mapping, key, node)
            if end and None not in known and end not in known:
                names = " and ".join(sorted({each.name for each in known if each}))
                text = f"`{_short(end.name)}` is no end of this link"
                self._report.problem(key, text, f"its ends are {names}")
            address = options and self._values(_ENDS, options.entries).get("monitor")
            if end and address and self._known_monitors.setdefault(address, end) != end:
                text = f"{address} is the monitor of `{self._known_monitors[address]}` already"
                self._report.problem(node, text, "a netdev is behind one interface")
            if end and address:
                found.append((end.name, address))
        return tuple(found)

    def _lacks_other_end(self, key: _Scalar) -> tuple[_Scalar, _Node]:
        text = f"the link of `{_short(key.value)}` lacks `to`, its other end"
        self._report.problem(key, text, "`to: tap0`")
        return key, key

    def _join(self, link: Link, key: _Scalar, other: _Node) -> None:
        """Add a link, unless an end of it is in another one or it is one that we know."""
        taken, a, b = self._taken, link.a.name, link.b.name
        if a in taken or b in taken:
            self._clash(link, {b: other, a: key})
        else:
            self.links.append(link)
        taken.setdefault(a, link)
        taken.setdefault(b, link)

    def _clash(self, link: Link, ends: Mapping[str, _Node]) -> None:
        clashes = [(node, self._taken[name]) for name, node in ends.items() if name in self._taken]
        first = clashes[0][1]
        if first.id == link.id:
            self._reversed(link, first, ends[link.a.name])
        else:
            for node, other in clashes:
                self._taken_twice(node, other)

    def _reversed(self, link: Link, first: Link, key: _Node) -> None:
        same = f"{_pair(link)} is the link {_pair(first)} of {_line(first)}"
        if replace(link, a=first.a, b=first.b) == first:
            self._report.warn(_place(key), f"{same}, one of the two is enough")
        else:
            self._report.problem(key, f"{same} with other options", "keep one of the two")

    def _taken_twice(self, node: _Node, other: Link) -> None:
        name = node.value if isinstance(node, _Scalar) else ""
        text = f"`{_short(name)}` is in the link {_pair(other)} of {_line(other)} already"
        self._report.problem(node, text, "an interface belongs to one link")


def _pair(link: Link) -> str:
    return f"`{_short(link.a.name)}: {_short(link.b.name)}`"


def _line(link: Link) -> str:
    return f"line {link.place.line}" if link.place else "another line"
