"""How a file that is kept takes the place of the one before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xconnectd.config import writer


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_a_secret_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
    """Its copy is made with the tightest mode, and gets that of the file before its name."""
    file = tmp_path / "xconnect.yaml"
    file.write_text("links: {}")
    file.chmod(mode)
    modes = []
    inherit = writer._inherit

    def look(descriptor: int, was: os.stat_result) -> None:
        modes.append(os.fstat(descriptor).st_mode & 0o777)
        inherit(descriptor, was)

    monkeypatch.setattr(writer, "_inherit", look)
    before = os.umask(0)
    try:
        writer.replace(file, b"links: {a: b}")
    finally:
        os.umask(before)
    assert modes == [0o600]
    assert file.stat().st_mode & 0o777 == mode
    assert file.read_text() == "links: {a: b}"


def test_a_file_is_whole_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name goes to another inode: in the one before nothing is written.

    One behind a symlink is kept there: that was the user's way to arrange the files. One that
    cannot be written stays and leaves no scratch.
    """

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    file, before, link = (tmp_path / name for name in ("xconnect.yaml", "before", "link"))
    file.write_text("links: {}")
    before.hardlink_to(file)
    link.symlink_to(file)
    writer.replace(link, b"links: {a: b}")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"cannot be written: No space left.*{file}"):
        writer.replace(file, b"links: {}")
    assert (before.read_text(), file.read_text()) == ("links: {}", "links: {a: b}")
    assert (sorted(tmp_path.iterdir()), link.readlink()) == ([before, link, file], file)
