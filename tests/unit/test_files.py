"""A file or a directory of files, saved, spoilt and lost: which links hold, and what is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from xconnectd.files import Files

PAIR = "links:\n  va: vb\n"
OTHER = "links:\n  vc: vd\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "xconnect.yaml"


def _links(files: Files) -> list[str]:
    return [link.id for link in files.read().wiring.links]


def test_a_file_that_is_gone_keeps_its_links(place: Path) -> None:
    place.write_text(PAIR)
    files = Files(place)
    assert _links(files) == ["va:vb"]
    place.unlink()
    assert files.read().state == "missing"
    assert _links(files) == ["va:vb"]


def test_an_empty_directory_where_the_file_was_keeps_its_links(place: Path) -> None:
    place.write_text(PAIR)
    files = Files(place)
    files.read()
    place.unlink()
    place.mkdir()
    reading = files.read()
    assert reading.state == "missing"
    assert "no *.yaml" in str(reading.problems[0])
    assert [link.id for link in reading.wiring.links] == ["va:vb"]
    (place / "new.yaml").write_text(OTHER)
    assert _links(files) == ["vc:vd"], "from here on it is a directory of files"


def test_a_removed_file_takes_its_links_along(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(PAIR)
    (tmp_path / "two.yaml").write_text(OTHER)
    files = Files(tmp_path)
    assert _links(files) == ["va:vb", "vc:vd"]
    (tmp_path / "one.yaml").unlink()
    assert _links(files) == ["vc:vd"]
    (tmp_path / "two.yaml").unlink()
    assert _links(files) == []
