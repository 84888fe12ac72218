"""How a file that is kept takes the place of the one before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xconnectd.control import try_client


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_a_secret_is_at_no_moment_open_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """Its copy is made with the tightest mode, and gets that of the file before its name."""
    file = tmp_path / "xconnect.yaml"
    file.write_text("links: {}")
    file.chmod(mode)
    modes = []
    inherit = try_client._inherit

    def look(descriptor: int, was: os.stat_result) -> None:
        modes.append(os.fstat(descriptor).st_mode & 0o777)
        inherit(descriptor, was)

    monkeypatch.setattr(try_client, "_inherit", look)
    before = os.umask(0)
    try:
        try_client._replace(file, b"links: {a: b}")
    finally:
        os.umask(before)
    assert modes == [0o600]
    assert file.stat().st_mode & 0o777 == mode
    assert file.read_text() == "links: {a: b}"
