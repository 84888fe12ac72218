"""systemd's own opinion of the unit file."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "systemd" / "xconnectd.service"


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """A copy of the unit whose program exists, for the real one need not be installed here."""
    if shutil.which("systemd-analyze") is None:
        if os.environ.get("CI"):
            pytest.fail("systemd-analyze is missing")
        pytest.skip("systemd-analyze is missing")
    program = tmp_path / "xconnectd"
    program.touch(mode=0o755)
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/usr/bin/xconnectd", str(program)))
    return copy


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ("systemd-analyze", *arguments), capture_output=True, text=True, timeout=60, check=False
    )


def test_systemd_has_nothing_to_say_about_the_unit(unit: Path) -> None:
    done = analyze("verify", "--man=no", str(unit))
    # An unknown directive is only a warning and exits with 0.
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_keeps_its_sandbox(unit: Path) -> None:
    # The exposure was 2.1 when this was written; the threshold counts in tenths.
    done = analyze("security", "--offline=true", "--no-pager", "--threshold=25", str(unit))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "ExecStart=/usr/bin/xconnectd run",
        "RuntimeDirectory=xconnectd",  # where the ledger is, unless told otherwise
        "RuntimeDirectoryPreserve=yes",  # or a crash would lose what is to be put back
        "KillMode=mixed",  # or a child of the daemon dies under it
    ],
)
def test_what_the_daemon_relies_on(line: str) -> None:
    assert line in UNIT.read_text().splitlines()
