"""What the command line takes and refuses, before a command is imported."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

import pytest

from xconnectd.capture import tap
from xconnectd.cli import arguments
from xconnectd.cli.exit_codes import Exit
from xconnectd.model import Mode, Rewrite

NUMBERS = [
    *(("try x.yaml --timeout={}", text, "is not a number of seconds from 0.1 to 3600")
      for text in ("abc", "", "nan", "inf", "1e10", "3601", "0", "-1")),
    *(("wait --timeout={}", text, "is not a number of seconds from 0 on")
      for text in ("abc", "nan", "inf", "-1")),
    ("test va --count={}", "101", "is not a whole number from 1 to 100"),
    ("test va --count={}", "few", "is not a whole number from 1 to 100"),
    ("capture va --count={}", "0", "is not a whole number from 1 on"),
    ("capture va --buffer={}", "1.5", "is not a whole number from 1 on"),
    *(("impair va --for={}", text, "is not a time such as 60s, 5m or 2h, up to 168h")
      for text in ("200h", "10081m", "0.05s", "nan", "h", "", "5d")),
    ("capture va --snaplen={}", "999999999", "is not a whole number from 1 to 65498"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "text", "words"), NUMBERS)
def test_a_number_that_is_none_or_out_of_bounds(
    line: str, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        arguments.parse(line.format(text).split())
    assert end.value.code == Exit.USAGE
    assert f"{text} {words}" in capsys.readouterr().err


TIMES = {"90": 90.0, "0.1s": 0.1, "5m": 300.0, "0.01h": 36.0, "168h": 604_800.0}


def test_how_long_a_link_is_impaired() -> None:
    lines = {text: f"impair va delay=1ms --for {text}".split() for text in TIMES}
    assert {text: arguments.parse(line).seconds for text, line in lines.items()} == TIMES


WORDS = {
    "status va --json vb": ["va", "vb"],
    "status --watch --filter x vb": ["vb"],
    "wait va --timeout 1 vb": ["va", "vb"],
    "capture va --count 3 tcp port 80": ["tcp", "port", "80"],
    "detach va": ["va"],
}


def test_words_stand_before_and_behind_options() -> None:
    assert {line: arguments.parse(line.split()).words for line in WORDS} == WORDS
    options = arguments.parse(["status", "-c", "lab.yaml"])
    assert options.config == Path.cwd() / "lab.yaml", "a file that is named has one path"


def test_what_is_not_imported_is_as_it_is_there() -> None:
    assert arguments._LONGEST_FRAME == tap.LONGEST
    assert set(Mode) == set(arguments._MODES)
    assert set(Rewrite) == set(arguments._REWRITES)


def commands(*names: str) -> dict[str, argparse.ArgumentParser]:
    [found] = (
        each
        for each in arguments.make_parser(names)._actions
        if isinstance(each, argparse._SubParsersAction)
    )
    return dict(found.choices)


def test_a_command_alone_is_what_it_is_among_all() -> None:
    """Each start makes the parser of one; ``--help`` makes those of all."""
    for name, parser in commands().items():
        [(alone, its_parser)] = commands(name).items()
        assert (alone, its_parser.format_help()) == (name, parser.format_help())


def test_every_command_is_a_module_with_a_run_and_has_an_example() -> None:
    for name, parser in commands().items():
        module = import_module(f"xconnectd.cli.{parser.get_default('module')}")
        assert callable(module.run), name
        assert f"example: xconnectd {name}" in parser.format_help()
