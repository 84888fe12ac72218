"""What is installed beside the program: systemd's own opinion of the unit, and that the man page
and the completion know what the program can do."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import completion
from xconnectd import events
from xconnectd.cli import arguments
from xconnectd.cli.exit_codes import Exit

REPO = Path(__file__).parents[2]
UNIT = REPO / "systemd" / "xconnectd.service"
FOR_NODES = REPO / "systemd" / "20-nodes.conf"
FOR_HOSTS = REPO / "systemd" / "30-hosts.conf"
MAN = REPO / "docs" / "xconnectd.8"
COMPLETION = REPO / "docs" / "xconnectd.bash"
# ---------------------------------------------------------------------- the unit


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """A copy of the unit whose program exists, for the real one need not be installed here."""
    if shutil.which("systemd-analyze") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("systemd-analyze is missing")
    program = tmp_path / "xconnectd"
    program.touch(mode=0o755)
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/usr/bin/xconnectd", str(program)))
    return copy


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ("systemd-analyze", *arguments), capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(("drop_in", "exposure"), [(None, 20), (FOR_NODES, 23), (FOR_HOSTS, 21)])
def test_systemd_has_nothing_to_say_about_the_unit_and_it_keeps_its_sandbox(
    unit: Path, drop_in: Path | None, exposure: int
) -> None:
    """``exposure`` is systemd's figure in tenths when this was written."""
    if drop_in:
        directory = unit.with_name(f"{unit.name}.d")
        directory.mkdir()
        shutil.copy(drop_in, directory)
    done = analyze("verify", "--man=no", str(unit))
    # An unknown directive is only a warning and exits with 0.
    assert (done.returncode, done.stderr) == (0, "")
    done = analyze("security", "--offline=true", "--no-pager", str(unit))
    (told,) = re.findall(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert round(float(told) * 10) <= exposure, done.stdout


RELIES_ON = {
    "Type=notify": '"started" means wired',
    "ExecStart=/usr/bin/xconnectd run": "",
    "ExecReload=/usr/bin/xconnectd reload": "which waits for its outcome",
    "RuntimeDirectory=xconnectd": "where the ledger is, unless told otherwise",
    "RuntimeDirectoryPreserve=yes": "or a crash would lose what is to be put back",
    "StartLimitIntervalSec=0": "or who makes starts fail makes the unit fail for good",
    "LimitNOFILE=4096": "more than all doors together let in",
    "KillMode=mixed": "or a child of the daemon dies under it",
    "SupplementaryGroups=xconnectd": "or the status socket cannot be given to the group",
}


def test_what_the_daemon_relies_on() -> None:
    assert RELIES_ON.keys() <= set(UNIT.read_text().splitlines())


@pytest.mark.parametrize(
    ("file", "capabilities"),
    [
        (UNIT, "CAP_BPF CAP_NET_ADMIN CAP_NET_BROADCAST CAP_PERFMON"),
        (FOR_NODES, "CAP_SYS_ADMIN CAP_SYS_PTRACE"),
        (FOR_HOSTS, "CAP_NET_RAW"),
    ],
)
def test_each_capability_is_explained(file: Path, capabilities: str) -> None:
    """One that few need stands there as a comment."""
    text = file.read_text()
    granted = re.findall(r"^#?CapabilityBoundingSet=(.*)$", text, re.MULTILINE)
    assert " ".join(granted) == capabilities
    explained = re.findall(r"^#   (CAP_\w+) +\w", text, re.MULTILINE)
    assert sorted(explained) == sorted(capabilities.split())


def commands() -> dict[str, set[str]]:
    """Every command of the program with its long options, ``--help`` aside."""
    [subparsers] = [
        action
        for action in arguments.make_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    return {name: _options(parser) - {"--help"} for name, parser in subparsers.choices.items()}


def _options(parser: argparse.ArgumentParser) -> set[str]:
    """Also those of its actions, if it has some."""
    known = {name for name in parser._option_string_actions if name.startswith("--")}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            known |= set[str]().union(*map(_options, action.choices.values()))
    return known


def section(title: str) -> str:
    """One section of the man page as text: ``Fl -json`` is ``--json``."""
    body = MAN.read_text().partition(f".Sh {title}\n")[2].partition(".Sh ")[0]
    return re.sub(r"\bFl -(\w)", r"--\1", body).replace("Fl c ", "--config ")


def found(pattern: str, text: str) -> set[str]:
    return set(re.findall(pattern, text, re.MULTILINE))


def test_the_man_page_knows_every_command_and_option() -> None:
    usages = [usage.partition("\n") for usage in section("SYNOPSIS").split(".Cm ")[1:]]
    known = {name: found(r"--[\w-]+", arguments) for name, _, arguments in usages}
    assert known == commands()
    assert found(r"^\.It Cm (\w+)", section("DESCRIPTION")) >= set(known)


def test_the_man_page_knows_every_event_code_and_variable() -> None:
    known = found(r"^\.It Ql (\w+\.\w+)$", section("DIAGNOSTICS"))
    assert known == {str(event) for event in events.Event}
    codes = found(r"^\.It (\d+)$", section("EXIT STATUS"))
    assert codes == {str(int(code)) for code in Exit}
    source = "".join(path.read_text() for path in (REPO / "xconnectd").rglob("*.py"))
    variables = found(r"^\.It Ev (XCONNECTD_\w+)$", section("ENVIRONMENT"))
    assert variables == found(r'"(XCONNECTD_[A-Z_]+)"', source)


def complete(*words: str, before: str = "") -> set[str]:
    """What the completion offers for the last word."""
    quoted = " ".join(f"'{word}'" for word in ("xconnectd", *words))
    script = (
        f"{before} source {COMPLETION}; COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _xconnectd;"
        " printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        ("bash", "--norc", "-c", script), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def test_the_completion_knows_every_command_and_option() -> None:
    assert complete("") == {*commands(), "--help"}
    assert complete("stat") == {"status"}
    for command, options in commands().items():
        assert complete(command, "-") == {*options, "--help"}


def test_the_completion_knows_files_and_interfaces(tmp_path: Path) -> None:
    for name in ("lab.yaml", "lab.txt", "more.yaml"):
        (tmp_path / name).touch()
    assert complete("check", f"{tmp_path}/") == {f"{tmp_path}/{x}.yaml" for x in ("lab", "more")}
    assert complete("run", "-c", f"{tmp_path}/m") == {f"{tmp_path}/more.yaml"}
    assert "lo" in complete("wait", "l")
    assert "lo" in complete("link", "add", "l") & complete("detach", "l")
    assert complete("run", "--on-exit", "") == {"detach", "keep"}


def test_the_completion_knows_the_links_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(completion.SAMPLE)
    ends = {"xa", "xb", "xc", "xd", "xe", "xf"}
    trimming = '__ltrim_colon_completions() { COMPREPLY=("${COMPREPLY[@]/#x?:}"); };'
    for given in (file, tmp_path):
        for command in (("status",), ("test",), ("capture",), ("link", "move")):
            assert complete(*command, "-c", str(given), "x") == ends
            # What readline is told behind the colon, where bash-completion is.
            assert complete(*command, "-c", str(given), "xa:", before=trimming) == {"xb"}
            in_node = complete(*command, "-c", str(given), "xg:", before=trimming)
            assert in_node == {"e1", "e1,xh:e1"}
    assert complete("status", "-c", str(tmp_path / "none"), "x") == set()


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_other_completions_are_those_of_the_program(shell: str) -> None:
    """Every command and option of the parser; ``make completion`` writes them again."""
    assert (REPO / "docs" / f"xconnectd.{shell}").read_text() == completion.generated(shell)
    assert completion.NAMES in COMPLETION.read_text(), "every shell reads names alike"
