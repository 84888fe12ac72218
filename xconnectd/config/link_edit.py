"""One link of a file's text is added, removed, changed or moved; all else stays as it was written.

Sole importer of ruamel.yaml, which keeps comments, order and quoting. What it writes otherwise all
the same (spaces, blank lines) is put back: only the lines that an edit changed are taken from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from difflib import SequenceMatcher
from io import StringIO
from sys import maxsize
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.scalarstring import ScalarString

from xconnectd import spelling
from xconnectd.config import ends
from xconnectd.errors import XconnectError
from xconnectd.model import VXLAN_PORT, Tunnel


class EditError(XconnectError):
    """The text has no such link, has it already, or is nothing that can be edited."""


def add(text: str, a: str, b: str, options: Mapping[str, Any]) -> str:
    def change(links: CommentedMap) -> None:
        for end in (a, b):
            if taken := next(_named(links, end), None):
                raise EditError(f"{end} is in the link {_id(links, taken)} already")
        if not links:
            links.fa.set_block_style()  # `links: {}`
        links[a] = _long(b, options) if options else b

    return _edited(text, change)


def remove(text: str, link: str) -> str:
    """By lines: ruamel has the comments above the next link with this one, and would drop them."""
    links = _links(_loaded(_yaml(), text))
    key = _find(links, link)
    if links.fa.flow_style() or len(links) == 1:
        return _edited(text, lambda links: _drop(links, key))
    first, column = links.lc.key(key)
    lines = text.splitlines(keepends=True)
    last = first + 1
    for number, line in enumerate(lines[last:], start=last + 1):
        if line.strip() and len(line) - len(line.lstrip(" ")) <= column:
            break
        last = number if line.strip() else last
    return "".join(lines[:first] + lines[last:])


def enable(text: str, link: str, *, enabled: bool) -> str:
    def change(links: CommentedMap) -> None:
        key = _find(links, link)
        value, wanted = links[key], str(enabled).lower()
        if not isinstance(value, CommentedMap):
            links[key] = value if enabled else _long(value, {"enabled": wanted})
            return
        value.pop("enabled", None)
        if value.get("enabled", "true") != wanted:  # by what it is merged with, or silent
            value["enabled"] = wanted
        if list(value) == ["to"] and value.fa.flow_style():
            links[key] = value["to"]

    return _edited(text, change)


def move(text: str, end: str, new: str) -> str:
    """The wire of ``end`` leads to ``new`` from there on; its other end stays where it is."""

    def change(links: CommentedMap) -> None:
        if taken := next(_named(links, new), None):
            raise EditError(f"{new} is in the link {_id(links, taken)} already")
        key = _find(links, end)
        a, b = str(key), _other(links, key)
        if end not in (a, b):
            raise EditError(f"{end} is no end of a link: name the end that moves")
        if end == b:
            value = links[key]
            if isinstance(value, CommentedMap):
                value["to"] = _as_written(value["to"], new)
            else:
                links[key] = _as_written(value, new)
        options = links[key].get("ends") if isinstance(links[key], CommentedMap) else None
        if isinstance(options, CommentedMap) and end in options:
            _rename(options, end, new)
        if end == a:
            _rename(links, key, _as_written(key, new))

    return _edited(text, change)


# --------------------------------------------------------------------------- links


def _find(links: CommentedMap, link: str) -> Any:
    """The key of a link that is called by its name or by one of its ends."""
    keys = [*_named(links, link)] or [key for key in links if link in _ids(links, key)]
    if not keys:
        names = [name for key in links for name in (str(key), _other(links, key), _id(links, key))]
        on_host = (name for name in names if name.endswith(f"/{link}"))
        near = next(on_host, None) or spelling.meant({link}, names).get(link)
        raise EditError(f"there is no link {link}" + (f"; did you mean {near}?" if near else ""))
    return keys[0]


def _named(links: CommentedMap, end: str) -> Iterator[Any]:
    return (key for key in links if end in (str(key), _other(links, key)))


def _other(links: CommentedMap, key: Any) -> str:
    value = links[key]
    to = value.get("to") if isinstance(value, CommentedMap) else value
    return _tunnel(to) if isinstance(to, CommentedMap) else str(to)


def _tunnel(to: CommentedMap) -> str:
    """What the end is called that this leads to; what is no good text says nothing here."""
    values = to.get("vxlan") or {}
    remote, vni, port = (str(values.get(key, "")) for key in ("remote", "vni", "port"))
    tunnel = Tunnel(remote, int(vni or 0), int(port or VXLAN_PORT))
    return ends.of_tunnel(tunnel).name


def _id(links: CommentedMap, key: Any) -> str:
    return _name(str(key), _other(links, key))


def _ids(links: CommentedMap, key: Any) -> tuple[str, str]:
    return _id(links, key), _name(_other(links, key), str(key))


def _name(a: str, b: str) -> str:
    """With a comma where an end is elsewhere, as in ``Link.id``."""
    return f"{a},{b}" if any(mark in a + b for mark in ":/@") else f"{a}:{b}"


def _long(to: Any, options: Mapping[str, Any]) -> CommentedMap:
    value = CommentedMap({"to": to, **options})
    value.fa.set_flow_style()
    return value


def _as_written(old: Any, new: str) -> Any:
    """With the quotes that the old name had."""
    return type(old)(new) if isinstance(old, ScalarString) else new


def _rename(links: CommentedMap, key: Any, new: Any) -> None:
    place, comment = list(links).index(key), links.ca.items.pop(key, None)
    links.insert(place, new, links.pop(key))
    if comment:
        links.ca.items[new] = comment


def _drop(links: CommentedMap, key: Any) -> None:
    del links[key]
    if not links:
        links.fa.set_flow_style()  # a key without a value is a half-written file


# --------------------------------------------------------------------------- text


def _edited(text: str, change: Callable[[CommentedMap], object]) -> str:
    yaml = _yaml()
    document = _loaded(yaml, text)
    links = _links(document)
    if links and not links.fa.flow_style():
        yaml.map_indent = links.lc.col
    before = _written(yaml, document)
    change(links)
    return _carried_over(text, before, _written(yaml, document))


class _Texts(VersionedResolver):
    """Every scalar is the text that stands there, as ``parser`` has it: ``no``, ``2026-02-30``."""

    @property
    def versioned_resolver(self) -> dict[str, list[tuple[str, re.Pattern[str]]]]:
        return {"<": [("tag:yaml.org,2002:merge", re.compile("<<$"))]}


def _yaml() -> YAML:
    yaml = YAML()
    yaml.Resolver = _Texts
    yaml.preserve_quotes = True
    yaml.width = maxsize
    yaml.composer.warn_double_anchors = False
    return yaml


def _loaded(yaml: YAML, text: str) -> Any:
    try:
        return yaml.load(text)
    except MarkedYAMLError as error:  # stricter than PyYAML: `a:` and a tab, for instance
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise EditError(
            f"{place}no command can edit this text ({error.problem}); edit it by hand"
        ) from None


def _links(document: Any) -> CommentedMap:
    links = document.get("links") if isinstance(document, CommentedMap) else None
    if not isinstance(links, CommentedMap):
        raise EditError("there is no `links:` with a mapping below it")
    return links


def _written(yaml: YAML, document: Any) -> str:
    out = StringIO()
    yaml.dump(document, out)
    return out.getvalue()


def _carried_over(text: str, before: str, after: str) -> str:
    """``text`` with the lines changed that differ between ``before`` and ``after``.

    ``before`` is ``text`` as ruamel writes it. Where its lines cannot be told from those of
    ``text``, it is ``after``.
    """
    was, old, new = (each.splitlines(keepends=True) for each in (text, before, after))
    places = {len(old): len(was)}
    for kind, start, end, there, stop in SequenceMatcher(None, old, was, False).get_opcodes():
        if kind == "equal" or end - start == stop - there:
            places |= zip(range(start, end), range(there, stop), strict=True)
    lines: list[str] = []
    for kind, start, end, there, stop in SequenceMatcher(None, old, new, False).get_opcodes():
        if start not in places or end not in places:
            return after
        lines += was[places[start] : places[end]] if kind == "equal" else new[there:stop]
    return "".join(lines)
