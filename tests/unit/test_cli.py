"""What the command line takes and refuses, before anything is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from xconnectd import events
from xconnectd.capture import tap
from xconnectd.cli import main


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said to arguments that are a wrong usage."""
    with pytest.raises(SystemExit) as end:
        main.main(arguments)
    assert end.value.code == main.Exit.USAGE
    return capsys.readouterr().err


# --------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("text", ["abc", "", "nan", "inf", "1e10", "3601", "0", "-1"])
def test_a_time_to_try_that_is_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = refusal(capsys, "try", "x.yaml", f"--timeout={text}")
    assert f"{text} is not a number of seconds from 0.1 to 3600" in told


@pytest.mark.parametrize("text", ["abc", "nan", "inf", "-1"])
def test_a_time_to_wait_that_is_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = refusal(capsys, "wait", f"--timeout={text}")
    assert f"{text} is not a number of seconds from 0 on" in told


@pytest.mark.parametrize(
    ("command", "option", "text", "bounds"),
    [
        ("test", "--count", "101", "from 1 to 100"),
        ("test", "--count", "few", "from 1 to 100"),
        ("capture", "--count", "0", "from 1 on"),
        ("capture", "--buffer", "1.5", "from 1 on"),
        ("capture", "--snaplen", "999999999", "from 1 to 65498"),
    ],
)
def test_a_number_out_of_bounds(
    command: str, option: str, text: str, bounds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refusal(capsys, command, "va", f"{option}={text}")
    assert f"{option}: {text} is not a whole number {bounds}" in told


def test_the_limit_is_that_of_whoever_sets_it() -> None:
    assert main._LONGEST_FRAME == tap.LONGEST


# --------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("--health --json", "--health"),
        ("--health -c x.yaml", "--health"),
        ("--health --watch", "--health"),
        ("--health --check", "--health"),
        ("--health --sort rate", "--health"),
        ("--health va", "--health"),
        ("--check --watch", "never ends"),
        ("--sort rate", "--watch"),
        ("--watch --json --filter x", "--watch"),
    ],
)
def test_options_of_status_that_do_not_go_together(
    options: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["status", *options.split()]) == main.Exit.USAGE
    told = capsys.readouterr()
    assert (told.out, why in told.err) == ("", True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("status va --json vb", ["va", "vb"]),
        ("status --watch --filter x vb", ["vb"]),
        ("wait va --timeout 1 vb", ["va", "vb"]),
        ("capture va --count 3 tcp port 80", ["tcp", "port", "80"]),
        ("detach va", ["va"]),
    ],
)
def test_words_stand_before_and_behind_options(arguments: str, words: list[str]) -> None:
    assert main._parsed(arguments.split()).words == words


def test_a_file_that_is_named_has_one_path() -> None:
    options = main._parsed(["status", "-c", "lab.yaml"])
    assert options.config == Path.cwd() / "lab.yaml"


# --------------------------------------------------------------------------- what is printed


def test_a_name_is_obeyed_by_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where a file is good, nor where it is not, nor where it cannot be read."""
    good, bad = tmp_path / "x\x1b[2J\udcff.yaml", tmp_path / "y\x1b[2J\n.yaml"
    good.write_text("links: {va: vb}\n")
    bad.write_text("links: [\n")
    monkeypatch.setattr(events, "setup", lambda *_, **__: None)  # its stream ends with this test
    main.main(["check", str(good)])
    for file in (bad, tmp_path / "nosuch\x1b[2J"):
        for command in ("check", "try"):
            assert main.main([command, str(file)]) != main.Exit.DONE
        assert main.main(["run", "--strict", "-c", str(file)]) == main.Exit.BAD_CONFIG
    told = "".join(capsys.readouterr()) + refusal(capsys, "check", str(good), str(bad))
    assert "\x1b" not in told
    for name in ("x�[2J�.yaml", "y�[2J�.yaml", "nosuch�[2J"):
        assert name in told
