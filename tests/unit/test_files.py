"""A file or a directory of files, saved, spoilt and lost: which links hold, and what is said."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from xconnectd.config.source import Files
from xconnectd.model import Endpoint, Link, Listen

PAIR = "links:\n  va: vb\n"
OTHER = "links:\n  vc: vd\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "xconnect.yaml"


def _links(files: Files) -> list[str]:
    return [link.id for link in files.read().wiring.links]


def test_a_file_that_is_gone_keeps_its_links(place: Path) -> None:
    """Also where an empty directory takes its place: a mount that is not there yet."""
    place.write_text(PAIR)
    files = Files(place)
    assert _links(files) == ["va:vb"]
    place.unlink()
    assert (files.read().state, _links(files)) == ("missing", ["va:vb"])
    place.mkdir()
    assert (files.read().state, _links(files)) == ("missing", ["va:vb"])
    assert "no *.yaml" in str(files.read().problems[0])
    (place / "new.yaml").write_text(OTHER)
    assert _links(files) == ["vc:vd"], "from here on it is a directory of files"


def test_a_removed_file_takes_its_links_along(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(PAIR)
    (tmp_path / "two.yaml").write_text(OTHER)
    for name in (".two.yaml", "two.yaml~", "two.yml"):  # what editors and others leave there
        (tmp_path / name).write_text(PAIR)
    files = Files(tmp_path)
    assert _links(files) == ["va:vb", "vc:vd"]
    (tmp_path / "one.yaml").unlink()
    assert _links(files) == ["vc:vd"]
    (tmp_path / "two.yaml").unlink()
    assert _links(files) == []


LATE = "links:\n  vb: vd\n  ve: vf\n"


def _states(files: Files) -> dict[str, str]:
    return {file.path.name: file.state for file in files.read().files}


@pytest.fixture
def disputed(tmp_path: Path) -> Path:
    """Both files claim ``vb``."""
    (tmp_path / "one.yaml").write_text(PAIR)
    (tmp_path / "a-first.yaml").write_text(LATE)
    return tmp_path


def test_a_disputed_end_that_nobody_had_is_of_the_first_by_name(disputed: Path) -> None:
    """But who has no past, as ``check``, blames both files."""
    assert _states(Files(disputed)) == {"a-first.yaml": "loaded", "one.yaml": "rejected"}
    assert [str(problem) for problem in Files(disputed).judge().problems] == [
        f"{here}:2:3: vb is an end of a link in {there}:2:3 already"
        " (an interface belongs to one link of one file)"
        for here, there in itertools.permutations(sorted(disputed.iterdir()))
    ]


def test_a_node_is_the_same_in_every_file(tmp_path: Path) -> None:
    """Each file stands for itself, so what two of them need is in both."""
    entry = "nodes: {n: {container: lab-n}}\nlinks:\n"
    (tmp_path / "a.yaml").write_text(f"{entry}  n:e0: a\n  n:e1: b\n")
    (tmp_path / "b.yaml").write_text(f"{entry}  n:e2: c\n")
    assert _states(Files(tmp_path)) == {"a.yaml": "loaded", "b.yaml": "loaded"}
    (tmp_path / "b.yaml").write_text("links:\n  d: e\n  n:e2: c\n")
    (problem,) = Files(tmp_path).read().problems
    assert str(problem) == (
        f"{tmp_path}/b.yaml:3:3: n is another node in {tmp_path}/a.yaml:3:3"
        " (give it the same entry in `nodes` of both files, or another name in one)"
    )


@pytest.mark.parametrize("edit", ["", "# edited\n"])
def test_a_disputed_end_is_of_the_file_that_had_it(disputed: Path, edit: str) -> None:
    """What is compared are links, not texts: a comment gives no better right to an end."""
    (disputed / "a-first.yaml").write_text("links:\n  ve: vf\n")
    files = Files(disputed)
    files.read()
    (disputed / "one.yaml").write_text(edit + PAIR)
    (disputed / "a-first.yaml").write_text(LATE)
    assert _states(files) == {"a-first.yaml": "rejected", "one.yaml": "loaded"}
    assert set(_links(files)) == {"va:vb", "ve:vf"}, "each keeps its last good links"


def test_after_a_start_a_disputed_end_is_of_the_file_that_wired_it(disputed: Path) -> None:
    """Also where the other file has wires of its own; what a good file names is not found anew."""
    files = Files(disputed)
    files.read()
    files.keep([Link(Endpoint("vb"), Endpoint("va")), Link(Endpoint("ve"), Endpoint("vf"))])
    assert _states(files) == {"a-first.yaml": "rejected", "one.yaml": "loaded"}
    assert set(_links(files)) == {"va:vb", "ve:vf"}
    (disputed / "a-first.yaml").write_text("links: [")
    files = Files(disputed)
    files.keep([Link(Endpoint("va"), Endpoint("vc")), Link(Endpoint("v2"), Endpoint("v3"))])
    assert set(_links(files)) == {"va:vb", "v2:v3"}


def test_an_end_that_was_made_counts_by_what_its_file_called_it(tmp_path: Path) -> None:
    here = Endpoint("leaf1-eth1", written="leaf1:eth1")
    (tmp_path / "a.yaml").write_text("links: {leaf1:eth1: va}\n")
    (tmp_path / "b.yaml").write_text("links: {leaf1:eth1: vb}\n")
    files = Files(tmp_path)
    files.keep([Link(here, Endpoint("vb")), Link(Endpoint("v2"), Endpoint("v3"))])
    assert _states(files) == {"a.yaml": "rejected", "b.yaml": "loaded"}
    assert set(_links(files)) == {"leaf1:eth1,vb", "v2:v3"}


def test_a_draft_takes_the_place_that_it_is_given(tmp_path: Path) -> None:
    """In a directory of files, or of the one file; where nothing can be read nowhere."""
    one, draft = tmp_path / "one.yaml", b"links:\n  va: vd\n"
    one.write_text(PAIR)
    for files in (Files(tmp_path), Files(one)):
        files.read()
        place, reading = files.imagine("/x/draft", draft, "one.yaml")
        assert (place, reading.state) == (one, "loaded")
    assert "the daemon has one file" in str(*files.imagine("draft", draft, "two.yaml")[1].problems)
    files = Files(tmp_path)
    files.read()
    _, reading = files.imagine("/x/draft.yaml", draft)
    assert "if the draft replaces that file: --as its name" in str(*reading.problems)
    _, reading = files.imagine("/x/draft", b"links: {}\n")
    assert "or say --as NAME.yaml" in str(*reading.problems)
    files = Files(tmp_path / ("x" * 256))  # longer than a name can be
    assert files.read().state == "rejected"
    place, reading = files.imagine("x.yaml", draft)
    assert (place, reading.state) == (files.path, "rejected")
    assert "too long" in str(*reading.problems)


METRICS = "metrics: {listen: 127.0.0.1:9109}\n"
HERE = Listen("127.0.0.1", 9109)


def test_metrics_stand_in_one_file_of_all_and_a_refused_one_keeps_them(tmp_path: Path) -> None:
    one, two = tmp_path / "1.yaml", tmp_path / "2.yaml"
    one.write_text(f"links: {{a: b}}\n{METRICS}")
    two.write_text("links: {c: d}\n")
    files = Files(tmp_path)
    assert files.read().wiring.metrics == HERE
    two.write_text(f"{METRICS}links: {{c: d}}\n")
    reading = files.read()
    assert [str(problem) for problem in reading.problems] == [
        f"{two}:1:19: `metrics` stands in {one}:2:19 already (one daemon, one place to ask it)"
    ]
    assert reading.wiring.metrics == HERE
    for text, state in (("links: {a: b}\n", "loaded"), ("links:\n", "rejected")):
        one.write_text(text)
        reading = files.read()
        assert (reading.state, reading.wiring.metrics) == (state, HERE)
    two.write_text("links:\n")
    reading = files.read()
    assert (reading.state, reading.wiring.metrics) == ("rejected", HERE)
    two.write_text("links: {c: d}\n")
    assert files.read().wiring.metrics is None
