"""``link``: adds, removes, changes or moves one link of the file, as a careful person would."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from difflib import ndiff
from pathlib import Path
from typing import Final

from xconnectd.cli import trial
from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.output import print_lines
from xconnectd.config import link_edit, reader, writer
from xconnectd.config.link_edit import EditError
from xconnectd.config.source import Files, is_directory, read_once
from xconnectd.status.document import spellings

_EDITS: Final[Mapping[str, Callable[[str, argparse.Namespace], str]]] = {
    "add": lambda text, it: link_edit.add(text, it.a, it.b, _options(it)),
    "remove": lambda text, it: link_edit.remove(text, it.link),
    "enable": lambda text, it: link_edit.enable(text, it.link, enabled=True),
    "disable": lambda text, it: link_edit.enable(text, it.link, enabled=False),
    "move": lambda text, it: link_edit.move(text, it.link, it.new),
}


def run(options: argparse.Namespace) -> int:
    path = _file_of(options)
    content = read_once(path)
    known = reader.parsed(content, path).warnings  # what is refused is for a person to put right
    text = content.data.decode()
    changed = _EDITS[options.action](text, options)
    if changed == text:
        print_lines("nothing to change")
        return Exit.DONE
    now = content._replace(data=changed.encode())
    warnings = reader.parsed(now, path).warnings
    print_lines(*_difference(text, changed), *(each for each in warnings if each not in known))
    if options.seconds:
        instead = path.name if is_directory(options.config) else ""
        return trial.attempt(path, now, options.seconds, instead)
    writer.replace(path, now.data)
    return Exit.DONE


def _file_of(options: argparse.Namespace) -> Path:
    """The file itself, or of a directory the one that has the link."""
    path: Path = options.config
    if not is_directory(path):
        return path
    if options.action == "add":
        raise EditError(f"{path} is a directory: name the file in it with -c")
    files = Files(path)
    files.judge()
    for file, wiring in files.good.items():
        for link in wiring.links:
            if options.link in spellings(link.id, link.a.name, link.b.name):
                return file
    raise EditError(f"no file in {path} has a link {options.link}")


def _options(options: argparse.Namespace) -> dict[str, str]:
    one_way = "true" if options.one_way else ""
    given = {key: getattr(options, key) for key in ("mode", "mtu", "rewrite", "description")}
    return {key: str(value) for key, value in {"one_way": one_way, **given}.items() if value}


def _difference(before: str, after: str) -> Iterator[str]:
    lines = ndiff(before.splitlines(), after.splitlines())
    return (line for line in lines if line.startswith(("+ ", "- ")))
