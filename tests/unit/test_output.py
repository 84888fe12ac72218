"""What is printed reaches whatever reads it; one who leaves takes no exit code along."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from xconnectd.terminal import is_terminal, paint


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.yaml"
    path.write_text("links:\n  va: vb\n  va: vc\n")
    return path


@pytest.mark.parametrize("buffering", ["", "1"])
def test_who_leaves_takes_no_exit_code_along(bad: Path, buffering: str) -> None:
    """As before ``| head -0``, with every line written at once and with all of them at the end."""
    read, write = os.pipe()
    os.close(read)
    for line, code in ((f"check {bad}", 78), ("schema", 0), ("version --json", 0)):
        done = subprocess.run(
            [sys.executable, "-m", "xconnectd", *line.split()],
            env=os.environ | {"PYTHONUNBUFFERED": buffering},
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert (done.returncode, done.stderr) == (code, ""), line
    os.close(write)


@pytest.mark.parametrize(("encoding", "told"), [("ascii", b"-><~-?"), ("latin-1", b"-><~-\xe4")])
def test_a_terminal_without_our_characters(encoding: str, told: bytes) -> None:
    """As wide as with them."""
    script = (
        "from xconnectd.cli.output import print_everywhere, print_lines;"
        "print_everywhere(); print_lines('—→←…—ä')"
    )
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, told + b"\n", b"")


@pytest.mark.parametrize(("term", "knows_more"), [("xterm", True), ("dumb", False), (None, False)])
def test_colour_is_for_a_terminal_that_says_what_it_is(
    monkeypatch: pytest.MonkeyPatch, term: str | None, knows_more: bool
) -> None:
    for name, value in (("TERM", term), ("NO_COLOR", None)):
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, value)
    assert is_terminal(Screen()) is knows_more
    assert ("\x1b" in paint("x", "red", Screen())) is knows_more
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("x", "red", Screen()) == "x"
