"""What the command line takes and refuses, before anything is done."""

from __future__ import annotations

import pytest

from xconnectd import capture, cli


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said to arguments that are a wrong usage."""
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == cli.Exit.USAGE
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
    assert cli._LONGEST_FRAME == capture.LONGEST


# --------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("--health --json", "--health"),
        ("--health -c x.yaml", "--health"),
        ("--health --watch", "--health"),
        ("--health --check", "--health"),
        ("--health --sort rate", "--health"),
        ("--check --watch", "never ends"),
        ("--sort rate", "--watch"),
        ("--watch --json --filter x", "--watch"),
    ],
)
def test_options_of_status_that_do_not_go_together(
    options: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status", *options.split()]) == cli.Exit.USAGE
    told = capsys.readouterr()
    assert (told.out, why in told.err) == ("", True)
