"""The completion in the shells themselves: what zsh and fish offer behind a line.

Bash's is a unit test: every machine has it.
"""

from __future__ import annotations

import argparse
import os
import pty
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from netns.lab import REPO, poll, run

from tests import completion
from xconnectd.cli import arguments

ZSHRC = """\
PS1= HISTFILE=
fpath=($HERE $fpath)
autoload -U compinit && compinit -u -d $HERE/dump
compadd() {
  if [[ ${@[1,(i)(-|--)]} != *-(O|A|D)\\ * ]]; then
    local -a offered
    builtin compadd -A offered "$@"
    print -lr -- $offered >>$HERE/offered
  fi
  builtin compadd "$@"
}
asked() { zle complete-word; print >$HERE/done; zle kill-buffer }
zle -N asked
bindkey '^I' asked
print >$HERE/ready
"""

Ask = Callable[[str], set[str]]


@pytest.fixture(scope="module", params=["zsh", "fish"])
def ask(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    there = tmp_path_factory.mktemp(request.param)
    yield from {"zsh": zsh, "fish": fish}[request.param](there)


def fish(there: Path) -> Iterator[Ask]:
    def ask(line: str) -> set[str]:
        script = f"source {REPO}/docs/xconnectd.fish; complete -C '{line}'"
        command = ("fish", "--no-config", "-c", script)
        done = run(*command, env=os.environ | {"HOME": str(there)})
        assert done.stderr == ""
        return {offered.partition("\t")[0] for offered in done.stdout.splitlines()}

    yield ask


def zsh(there: Path) -> Iterator[Ask]:
    """A session at a terminal: zsh completes nowhere else."""
    shutil.copy(REPO / "docs" / "xconnectd.zsh", there / "_xconnectd")
    (there / ".zshrc").write_text(ZSHRC)
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"ZDOTDIR": str(there), "HERE": str(there), "TERM": "dumb"}
        os.execvp("zsh", ["zsh", "-d", "-i"])

    def ask(line: str) -> set[str]:
        poll((there / "ready").exists)
        for name in ("offered", "done"):
            (there / name).unlink(missing_ok=True)
        os.write(terminal, f"{line}\t".encode())
        poll((there / "done").exists)
        offered = there / "offered"
        return set(offered.read_text().split()) if offered.exists() else set()

    try:
        yield ask
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def test_every_command_and_every_option_is_offered(ask: Ask) -> None:
    def walk(line: str, parser: argparse.ArgumentParser) -> None:
        options = {name for name in parser._option_string_actions if name.startswith("--")}
        assert ask(f"{line} --") == options
        if commands := of(parser):
            assert ask(f"{line} ") == set(commands)
        for name, command in commands.items():
            walk(f"{line} {name}", command)

    walk("xconnectd", arguments.make_parser())


def test_links_are_offered_by_name(ask: Ask, tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(completion.SAMPLE)
    names = {"xa", "xb", "xa:xb", "xc", "xd", "xc:xd", "xe", "xf", "xe:xf"}
    names |= {"xg:e1", "xh:e1", "xg:e1,xh:e1"}
    here = {path.name for path in Path("/sys/class/net").iterdir()}
    for given in (file, tmp_path):
        for command in ("status", "test", "wait", "link move", "link disable"):
            assert ask(f"xconnectd {command} -c {given} ") == names | here, command
    assert ask("xconnectd detach ") == ask("xconnectd link add ") == here
    assert ask(f"xconnectd status -c {tmp_path}/none x") == set()


def test_files_and_choices_are_offered(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").touch()
    [offered] = ask(f"xconnectd check {tmp_path}/")
    assert offered.endswith("lab.yaml")
    assert ask("xconnectd run --on-exit ") == {"detach", "keep"}
    assert ask("xconnectd link add xa xb --mode ") == {"auto", "generic", "native", "tc"}
