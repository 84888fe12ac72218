"""Commands that need no kernel: what they refuse, and how they print what is not theirs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from xconnectd import events
from xconnectd.cli import graph
from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.main import main
from xconnectd.config import json_schema
from xconnectd.errors import XconnectError

OPTIONS = {
    "--health": ["--json", "-c x.yaml", "--watch", "--check", "--sort rate", "va", "-v"],
    "cannot be combined": [
        "--check --watch",
        "-v --sort rate",
        "--watch --json --filter x",
        "-v --watch",
    ],
}


@pytest.mark.parametrize(("why", "lines"), OPTIONS.items())
def test_options_that_clash(why: str, lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for line in lines:
        first = ["--health"] * (why == "--health")
        assert main(["status", *first, *line.split()]) == Exit.USAGE
        told = capsys.readouterr()
        assert (told.out, why in told.err) == ("", True), line


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


def test_usage_errors_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("", "nosuch", "run --nosuch", "status --sort x"):
        with pytest.raises(SystemExit) as end:
            main(line.split())
        assert end.value.code == Exit.USAGE
        assert capsys.readouterr().err.startswith("usage: xconnectd"), line
    for line in ("detach", "detach --all va"):
        assert main(line.split()) == Exit.USAGE
        assert capsys.readouterr().err == "xconnectd: name the interfaces, or use --all\n", line


def test_check_says_yes_and_no(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = Path(__file__).parents[2] / "config" / "xconnect.yaml"
    assert main(["check", str(example)]) == Exit.DONE
    assert f"{example}: good, " in capsys.readouterr().out
    bad = tmp_path / "bad.yaml"
    bad.write_text("links:\n  va: vb\n  va: vc\n")
    assert main(["check", str(bad)]) == Exit.BAD_CONFIG
    assert f"{bad}:3:3: " in capsys.readouterr().out
    assert main(["check", str(tmp_path / "nosuch.yaml")]) == Exit.BAD_CONFIG


def test_a_link_of_a_directory_is_edited_where_it_stands_and_what_is_odd_then_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text("links: {a: b}\n")
    file = tmp_path / "b.yaml"
    file.write_text("nodes: {n: {pid: 1}}\nlinks:\n  c: d\n  n:a: e\n")
    assert main(["link", "add", "f", "n:b", "--mtu", "9000", "-c", str(file)]) == Exit.DONE
    assert capsys.readouterr().out == "+   f: {to: n:b, mtu: 9000}\n"
    assert main(["link", "remove", "f", "-c", str(tmp_path)]) == Exit.DONE
    capsys.readouterr()
    assert main(["link", "remove", "e,n:a", "-c", str(tmp_path)]) == Exit.DONE
    assert file.read_text() == "nodes: {n: {pid: 1}}\nlinks:\n  c: d\n"
    warning = f"{file}:1:9: no link has an end in the node `n`"
    assert capsys.readouterr().out.splitlines() == ["-   n:a: e", warning]


def test_version_names_its_parts_and_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == Exit.DONE
    told = dict(line.split(" ", 1) for line in capsys.readouterr().out.splitlines())
    assert told.keys() == {"xconnectd", "kernel", "bcc", "pyroute2"}
    assert told["kernel"] == os.uname().release
    assert main(["version", "--json"]) == Exit.DONE
    assert json.loads(capsys.readouterr().out).keys() == told.keys()
    assert main(["schema"]) == Exit.DONE
    assert json.loads(capsys.readouterr().out) == json_schema.document()


def test_a_graph_that_cannot_be_drawn_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(XconnectError, match="install the package graphviz"):
        graph._rendered("graph {}")


@pytest.mark.parametrize(("line", "code"), [("schema", 0), ("--help", 0), ("status --sort x", 2)])
def test_a_process_whose_output_nobody_reads_ends_quietly(line: str, code: int) -> None:
    """Python would complain at its own end, and exit with 120."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "xconnectd", *line.split()]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, "BrokenPipe" in done.stderr) == (code, False)
