"""The benchmark runs, and what it says is no nonsense. How fast anything is is not asked here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

from netns.lab import NETNS, REPO

Table = dict[str, list[str]]


def bench(directory: Path, *names: str, **environment: str) -> dict[str, Table]:
    """Run some measures; the rows of each table of the page, by title and first cell."""
    command = [sys.executable, "-m", "tests.bench", "--quick", "--rounds", "1"]
    process = subprocess.Popen(
        [*command, "--output", str(directory / "bench"), "--only", *names],
        cwd=REPO,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            said, _ = process.communicate(timeout=600)
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert not list(NETNS.glob(f"xc{process.pid}-*"))
    (kept,) = (directory / "bench").glob("*.json")
    ET.parse(kept.with_suffix(".svg"))
    sections = kept.with_suffix(".md").read_text().split("\n## ")[1:]
    return {section.split(",")[0]: _rows(section) for section in sections}


def _rows(section: str) -> Table:
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines[2:]}


def median(table: Table, row: str) -> float:
    return float(table[row][0].replace(",", ""))


def test_traffic_flows_over_every_contender(tmp_path: Path) -> None:
    tables = bench(tmp_path, "udp", "live", "guest", "rtt")
    assert len(tables) == 4
    for title, table in tables.items():
        assert len(table) == 9
        # a bare generic program never sees the frames that mirred has marked
        dead = "bare generic" if "mirred" in title else ""
        assert [name for name in table if not median(table, name)] == [dead] * bool(dead), table
        assert 0 < float(table["xconnectd native"][5].split()[0]) < 100, "ours to bare"
    trips = tables["Round trip of a 64-byte datagram"]
    assert median(trips, "mirred") < 100_000


def test_a_service_is_measured_beside_a_peer(tmp_path: Path) -> None:
    """A stand-in with the peer's command line: the real one is not everywhere."""
    stand_in = tmp_path / "peer"
    state = tmp_path / "state"
    run = f'exec {sys.executable} -m xconnectd run -c "$2"'
    stand_in.write_text(f"#!/bin/sh\nexport XCONNECTD_STATE_DIR={state}\n{run}\n")
    stand_in.chmod(0o755)
    rewires, lost, starts, memory = bench(
        tmp_path, "rewire", "start", XDP_XCONNECT=str(stand_in)
    ).values()
    ours = {"xconnectd 2 links, ends up", "xconnectd 2 links, new end down"}
    bare = {"bare 2 links, ends up", "bare 2 links, with looks"}
    assert {*ours, *bare, "xdp-xconnect 2 links"} <= rewires.keys()
    assert 0 < float(rewires["xconnectd 2 links, ends up"][3].split()[0]) < 100, "ours to bare"
    for name in rewires:
        assert median(rewires, name) > 0
        assert lost[name][2] == "0 to 0", (name, lost)
    assert starts.keys() == memory.keys()
    ours = {"2 links, cold", "2 links, adopting", "50 links, adopting"}
    assert {*ours, "xdp-xconnect, 2 links, first frame"} <= starts.keys()
    for name in starts:
        assert 10 < median(starts, name) < 60_000
        assert 10 < median(memory, name) < 200


def test_nodes_are_measured_beside_a_veth_by_hand(tmp_path: Path) -> None:
    middle, slow, lives = bench(tmp_path, "nodes", "fabric").values()
    assert middle.keys() == slow.keys() == {"xconnectd", "by hand, with ip"}
    for name in middle:
        assert 0 < median(middle, name) <= median(slow, name) < 10_000
    assert len(lives) == 2
    assert all(0 < median(lives, name) < 60 for name in lives)


def test_carriers_are_measured_beside_a_plain_pair(tmp_path: Path) -> None:
    middle, late, rate, lost, share, rest = bench(tmp_path, "carrier", "flaps").values()
    names = {
        f"{who}, {way}" for who in ("xconnectd", "a plain veth pair") for way in ("down", "up")
    }
    assert middle.keys() == late.keys() == names
    for name in names:
        assert 0 < median(middle, name) <= median(late, name) < 10_000
    assert rate.keys() == rest.keys() == {"xconnectd", "a plain veth pair"}
    assert median(rate, "xconnectd") > 100
    assert lost["xconnectd"][2] == "0 to 0"
    assert 0 < median(share, "xconnectd") < 100


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "tests.bench", "--output", str(tmp_path / "not" / "there")]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "not/there" in done.stderr


def test_an_unknown_measure_is_refused() -> None:
    command = [sys.executable, "-m", "tests.bench", "--only", "speed"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 2
    assert "'speed'" in done.stderr
