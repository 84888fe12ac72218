"""What commands refuse, and how they print what is not theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from xconnectd import events
from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.main import main


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
    assert main(["status", *options.split()]) == Exit.USAGE
    told = capsys.readouterr()
    assert (told.out, why in told.err) == ("", True)


def test_a_name_is_obeyed_by_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where a file is good, nor where it is not, nor where it cannot be read."""
    good, bad = tmp_path / "x\x1b[2J\udcff.yaml", tmp_path / "y\x1b[2J\n.yaml"
    good.write_text("links: {va: vb}\n")
    bad.write_text("links: [\n")
    monkeypatch.setattr(events, "setup", lambda *_, **__: None)  # its stream ends with this test
    main(["check", str(good)])
    for file in (bad, tmp_path / "nosuch\x1b[2J"):
        for command in ("check", "try"):
            assert main([command, str(file)]) != Exit.DONE
        assert main(["run", "--strict", "-c", str(file)]) == Exit.BAD_CONFIG
    with pytest.raises(SystemExit):
        main(["check", str(good), str(bad)])
    told = "".join(capsys.readouterr())
    assert "\x1b" not in told
    for name in ("x�[2J�.yaml", "y�[2J�.yaml", "nosuch�[2J"):
        assert name in told
