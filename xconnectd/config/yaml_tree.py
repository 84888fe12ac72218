"""YAML text to a small tree of nodes that know their places, or every problem with it.

Sole importer of yaml. The tree is built from YAML's events, not as Python values: a scalar is the
text that stands there (``no``, ``12`` and ``1e3`` are texts) and a repeated key is seen. Building
it here also bounds depth and expansion before anything is walked; PyYAML's composer recurses in C
as deep as the file says. Never touches the disk.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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

from xconnectd.errors import ConfigError, Problem
from xconnectd.model import Place

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_BYTES: Final = 8 << 20
_MAX_DEPTH: Final = 50
_MAX_NODES: Final = 500_000
_MAX_SCALAR: Final = 1024
"""Characters of a key (as YAML has it for most), and of what is read; below `x-` a text has any."""
_MAX_PROBLEMS: Final = 1000
"""These bound what a file can take of the daemon: a second, and 100 MB."""

_FOREIGN: Final = "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
"""What YAML does not allow anywhere in its text. Slow to compile, hence not done for most files."""

_NULLS: Final = ("", "~", "null", "Null", "NULL")


# --------------------------------------------------------------------------- nodes


class ScalarNode(NamedTuple):
    """A text and its place, in a third of the memory that its event takes.

    ``style`` is empty for one without quotes.
    """

    value: str
    style: str
    line: int
    column: int


class MappingNode(NamedTuple):
    """A mapping with its merges done: the text of a key to the key and its value."""

    start_mark: Any
    entries: dict[str, tuple[ScalarNode, YamlNode]]


class SequenceNode(NamedTuple):
    start_mark: Any
    items: list[YamlNode]


YamlNode = ScalarNode | MappingNode | SequenceNode


def short(text: str) -> str:
    """The text as a message may show it: not too long, nothing a terminal would obey."""
    begin = text[:41]
    shown = begin if begin.isprintable() else ascii(begin)[1:-1]
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


def bounded(node: YamlNode) -> YamlNode:
    if isinstance(node, ScalarNode) and len(node.value) > _MAX_SCALAR:
        raise Refusal(node, *_too_long(node))
    return node


def _too_long(node: ScalarNode) -> tuple[str, str]:
    text = f"a text of {len(node.value):,} characters; no key, name or option has more than"
    return f"{text} {_MAX_SCALAR:,}", "is a quote missing?"


def is_plain(node: YamlNode, *texts: str) -> bool:
    return isinstance(node, ScalarNode) and not node.style and node.value in texts


def is_null(node: YamlNode) -> bool:
    return is_plain(node, *_NULLS)


def said(node: YamlNode) -> str:
    """What stands there, for a message."""
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, SequenceNode):
        return "a list"
    if not node.value:
        return "nothing" if not node.style else "an empty text"
    quote = '"' if node.style else ""
    return f"`{quote}{short(node.value)}{quote}`"


# --------------------------------------------------------------------------- problems


class _Spot(NamedTuple):
    """A place with the two fields of YAML's marks; counts from 0 as they do."""

    line: int
    column: int

    @classmethod
    def after(cls, text: str) -> _Spot:
        return cls(text.count("\n"), len(text) - text.rfind("\n") - 1)


class Refusal(Exception):  # noqa: N818 - it ends in a Report
    """One problem at ``where`` (a node, an event, a mark; None: the file as a whole)."""

    def __init__(self, where: Any, text: str, hint: str = "") -> None:
        self.where = where
        self.hint = hint
        super().__init__(text)


class _TooMany(Exception):  # noqa: N818 - it never leaves this module
    """There are more problems than anybody reads."""


class Report:
    """Gathers what is wrong and what is odd. A dict, as an aliased node is read many times."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.problems: dict[Problem, None] = {}
        self.warnings: list[str] = []

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """In it a ``Refusal`` ends the reading of the file; ``require_none`` is to follow."""
        try:
            with _no_collections():
                yield
        except Refusal as refusal:
            with suppress(_TooMany):
                self.add(refusal)
        except _TooMany:
            pass

    def require_none(self) -> None:
        """Raises ConfigError with all problems, if there are any.

        Not as part of ``gathering``: what is raised there keeps the tree of the whole file alive.
        """
        if self.problems:
            raise ConfigError(self._told())

    def add(self, refusal: Refusal) -> None:
        place = place_of(refusal.where) if refusal.where is not None else Place(1, 1)
        problem = Problem(self.path, place.line, place.column, str(refusal), refusal.hint)
        self.problems[problem] = None
        if len(self.problems) > _MAX_PROBLEMS:
            raise _TooMany

    def _told(self) -> list[Problem]:
        """The problems in the order of their places; beyond the bound only that there are more."""
        found = sorted(self.problems)
        for beyond in found[_MAX_PROBLEMS:]:
            more = beyond._replace(text="there are further problems", hint="is it the right file?")
            return [*found[:_MAX_PROBLEMS], more]
        return found

    def problem(self, where: Any, text: str, hint: str = "") -> None:
        self.add(Refusal(where, text, hint))

    def warn(self, place: Place, text: str) -> None:
        if len(self.warnings) <= _MAX_PROBLEMS:
            text = text if len(self.warnings) < _MAX_PROBLEMS else "there are further warnings"
            self.warnings.append(f"{self.path}:{place.line}:{place.column}: {text}")


def place_of(where: Any) -> Place:
    mark = getattr(where, "start_mark", where)
    return Place(mark.line + 1, mark.column + 1)


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


# --------------------------------------------------------------------------- YAML to nodes


class _Anchor(NamedTuple):
    """``size`` is how many nodes it stands for when every alias in it is written out."""

    node: YamlNode
    size: int


def compose(data: bytes, report: Report) -> YamlNode | None:
    """The tree of a file's one document, None of an empty one; best in ``report.gathering()``.

    Text that is no YAML is told by its first error, since nothing behind it can be trusted.

    Raises:
        Refusal: it is none, or more than is read.
    """
    text = _decode(data)
    if directive := re.search(r"^%(?!YAML )\S*", text, re.MULTILINE) if "%" in text else None:
        what = f"the directive `{short(directive.group())}` has no meaning here"
        raise Refusal(_Spot.after(text[: directive.start()]), what, "leave the line out")
    loader = _Loader(text)
    try:
        return _Composer(loader.get_event, report).document()
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(error, text) from None
    except yaml.YAMLError as error:
        raise Refusal(None, f"is not YAML: {error}") from None
    finally:
        loader.dispose()


def _decode(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        hint = "save the file as UTF-8"
        raise Refusal(_Spot.after(before), "is not UTF-8 text", hint) from None
    if not text.replace("\n", "").isprintable() and (found := re.search(_FOREIGN, text)):
        what = f"the character U+{ord(found.group()):04X} cannot stand in a YAML file"
        hint = "a half-written or binary file?" if found.group() == "\0" else "take it out"
        raise Refusal(_Spot.after(text[: found.start()]), what, hint)
    return text


def _not_yaml(error: yaml.MarkedYAMLError, text: str) -> Refusal:
    if conflict := re.search("^<<<<<<< ", text, re.MULTILINE):
        where = _Spot.after(text[: conflict.start()])
        return Refusal(where, "an unresolved merge conflict", "resolve it, and remove its markers")
    return Refusal(_mistake(error, text), f"is not YAML: {_words(error)}", _way_out(error))


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
    if "could not find expected ':'" in problem:
        return "a key and its value have a colon and a space between them: `a: b`"
    if "expected <block end>" in problem:
        return "is the line indented as its neighbours are?"
    return ""


class _Composer:
    """YAML's events to nodes; an alias is the node itself, never a copy."""

    def __init__(self, next_event: Callable[[], Any], report: Report) -> None:
        self._next = next_event
        self._report = report
        self._anchors: dict[str, _Anchor | None] = {}
        self._depth = 0
        self._size = 0

    def document(self) -> YamlNode | None:
        self._next()  # the stream's start
        if isinstance(self._next(), StreamEndEvent):
            return None
        root = self._node(self._next())
        self._next()  # the document's end
        if not isinstance(extra := self._next(), StreamEndEvent):
            raise Refusal(extra, "a second document begins", "one file is one document")
        return root

    def _node(self, event: Any) -> YamlNode:
        if type(event) is ScalarEvent:
            mark: Any = event.start_mark
            node = ScalarNode(event.value, event.style or "", mark.line, mark.column)
            if event.anchor is not None or event.tag is not None:
                self._note(event, node, 1)
            return node
        if isinstance(event, AliasEvent):
            return self._alias(event)
        return self._collection(event)

    def _note(self, event: NodeEvent, node: YamlNode, size: int) -> None:
        """Keep the anchor of a node, and refuse its tag."""
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchor(node, size)
            self._grow(event, 1)
        if (tag := getattr(event, "tag", None)) is not None:
            self._report.problem(
                event, f"the tag `{short(tag)}` has no meaning here", "leave it out"
            )

    def _alias(self, event: AliasEvent) -> YamlNode:
        name = str(event.anchor)
        if name not in self._anchors:
            raise Refusal(event, f"`*{short(name)}` has no `&{short(name)}` above it")
        if (anchor := self._anchors[name]) is None:
            raise Refusal(event, f"`*{short(name)}` is part of what it refers to")
        self._size += anchor.size
        if self._size > _MAX_NODES:
            text = f"its aliases expand to more than {_MAX_NODES:,} nodes"
            raise Refusal(event, text, "aliases of aliases multiply; write them out")
        return anchor.node

    def _grow(self, event: Any, nodes: int) -> None:
        self._size += nodes
        if self._size > _MAX_NODES:
            text = f"the file has more than {_MAX_NODES:,} keys and values"
            raise Refusal(event, text, "is it the right file?")

    def _collection(self, start: CollectionStartEvent) -> YamlNode:
        if self._depth == _MAX_DEPTH:
            raise Refusal(start, f"nested deeper than {_MAX_DEPTH} levels")
        if start.anchor is not None:
            self._anchors[start.anchor] = None  # open: an alias to it would never end
        before = self._size
        self._depth += 1
        fill = self._mapping if isinstance(start, MappingStartEvent) else self._sequence
        node = fill(start)
        self._depth -= 1
        self._note(start, node, self._size - before + 1)
        return node

    def _sequence(self, start: Event) -> SequenceNode:
        node = SequenceNode(start.start_mark, [])
        while type(event := self._next()) is not SequenceEndEvent:
            node.items.append(self._node(event))
            self._grow(event, 1)
        return node

    def _mapping(self, start: Event) -> MappingNode:
        node = MappingNode(start.start_mark, {})
        entries = node.entries
        while type(event := self._next()) is not MappingEndEvent:
            key, value = self._node(event), self._node(self._next())
            self._grow(event, 2)
            if type(key) is not ScalarNode:
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

    def _repeated(self, key: ScalarNode, first: ScalarNode) -> None:
        text = f"the key `{short(key.value)}` stands in line {place_of(first).line} already"
        self._report.problem(key, text, "keep one of the two")

    def _merge(self, entries: dict[str, tuple[ScalarNode, YamlNode]], value: YamlNode) -> None:
        """As YAML 1.1 has it: what is written out wins, then the earlier of several."""
        for source in value.items if isinstance(value, SequenceNode) else [value]:
            if isinstance(source, MappingNode):
                for text, entry in source.entries.items():
                    entries.setdefault(text, entry)
            else:
                self._report.problem(source, "`<<` takes a mapping, or a list of them")
