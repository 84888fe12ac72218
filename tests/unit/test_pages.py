"""What README.md and docs promise: pages that are there, commands that are typed by tests."""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pages import commands
from xconnectd.cli.arguments import make_parser
from xconnectd.events import Event, Trigger

REPO = Path(__file__).parents[2]
README = (REPO / "README.md").read_text()
PAGES = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))]
MADE = "<!-- make screens: "
RECORDED = {"screens.md"}
"""Pages that a script makes as a whole; docs/bench is made of such."""

MAKE = re.compile(r"(?:^\$ |&& |`)(?:sudo )?make ([a-z-]+)", re.MULTILINE)

TYPED = {
    "Try it": "long/test_fresh_machine.py",  # `make test` is what CI runs, and runs this
    "Install": "long/test_fresh_machine.py",
    "Your own first wire": "netns/test_readme.py",
    "The five daily commands": "netns/test_readme.py",
    "Development": "unit/test_pages.py",
}
"""The sections of the README that have something to type, and the test that types it."""


def sections(page: str) -> dict[str, str]:
    _, *parts = re.split(r"^## (.*)$", page, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_every_section_with_commands_has_a_test_that_types_them() -> None:
    found = {title for title, text in sections(README).items() if commands(text)}
    assert found == TYPED.keys()
    for title, name in TYPED.items():
        test = (REPO / "tests" / name).read_text()
        assert f'"{title}"' in test, f"{name} does not read the section {title}"


def test_every_target_of_make_is_one() -> None:
    """Also those of the pages; ``make help`` names what each does."""
    told = subprocess.run(("make", "help"), cwd=REPO, capture_output=True, text=True, check=True)
    known = {line.split()[0] for line in told.stdout.splitlines() if line}
    development = sections(README)["Development"]
    assert [line.split()[-1] for line in commands(development)] == ["check", "test", "help"]
    for page in PAGES:
        named = set(MAKE.findall(page.read_text()))
        assert named <= known, page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_what_a_page_quotes_is_made_by_a_script(page: Path) -> None:
    """Beside that a block has what is typed, or a file."""
    if page.name in RECORDED:
        return
    text = page.read_text()
    for block in re.finditer(r"(.*\n)```(\w*)\n(.*?)```", text, re.DOTALL | re.MULTILINE):
        before = text[: block.start(2) - 4].rpartition("\n")[2]
        if before.startswith(MADE) or block[2] in ("yaml", "python", "mermaid"):
            continue
        assert block[2] == "console", f"{page.name}: what is this? {block[3]}"
        lines = re.sub(r"\\\n\s*", "", block[3]).splitlines()
        assert all(line.startswith("$ ") for line in lines), f"{page.name}: {block[3]}"


def test_every_page_is_linked_and_every_link_leads_somewhere() -> None:
    linked = set(re.findall(r"\]\(docs/([\w.-]+\.md)\)", README))
    names = {path.name for path in PAGES[1:]}
    from_pages = {
        name for path in PAGES[1:] for name in re.findall(r"\]\(([\w-]+\.md)\)", path.read_text())
    }
    assert linked | from_pages == names
    for path in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def _options(parser: argparse.ArgumentParser) -> Iterator[set[str]]:
    """What each option may be written as, also of the actions of a command."""
    for each in parser._actions:
        if isinstance(each, argparse._SubParsersAction):
            for action in each.choices.values():
                yield from _options(action)
        elif each.option_strings and each.dest not in ("help", "version"):
            yield {*each.option_strings}


def test_the_reference_names_every_option_event_and_trigger() -> None:
    page = (REPO / "docs" / "commands.md").read_text()
    words = set(re.findall(r"--?[a-z][a-z-]*", page))
    assert [each for each in _options(make_parser()) if not each & words] == []
    assert {*Event} - set(re.findall(r"`([a-z_]+\.[a-z_]+)`", page)) == set()
    fields = page.partition("\nFields of links ")[2].partition("\n\n")[0]
    assert {*Trigger} - set(re.findall(r"`([a-z]+)`", fields)) == set()


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150
