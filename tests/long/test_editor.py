"""The schema where editors use it: ajv in strict mode, and the YAML language server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from netns.lab import REPO, run

EXAMPLE = """\
version: 1
defaults:
  mode: auto
  admin: manage
  allow_addressed: false
links:
  va: vb
  vc:
    to: vd
    enabled: true
    carrier: independent
    description: text
    labels: {a: b}
    impair: {delay: 20ms}
  n:e0:
    to: va1
    mtu: 9000
    impair: {forward: {loss: 1%}}
nodes:
  n:
    container: lab-n
metrics:
  listen: localhost:1
"""


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    there = tmp_path_factory.mktemp("npm")
    packages = ("ajv-cli@5", "yaml-language-server@1")
    run("npm", "install", "--silent", "--no-audit", "--no-fund", *packages, cwd=there)
    schema = run(sys.executable, "-m", "xconnectd", "schema", cwd=REPO).stdout
    (there / "schema.json").write_text(schema)
    return there


class Editor:
    """Speaks to a language server over its stdio (JSON-RPC with headers: LSP, base protocol)."""

    def __init__(self, tools: Path) -> None:
        command = (tools / "node_modules/.bin/yaml-language-server", "--stdio")
        pipe = subprocess.PIPE
        self.server = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        self._numbers = count(1)
        self.ask("initialize", processId=None, rootUri=None, capabilities={})
        self._send(method="initialized", params={})

    def _send(self, **message: Any) -> None:
        assert self.server.stdin
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.server.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self.server.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self.server.stdout
        length = 0
        while line := self.server.stdout.readline().strip():
            name, _, value = line.partition(b":")
            if name == b"Content-Length":
                length = int(value)
        message: dict[str, Any] = json.loads(self.server.stdout.read(length))
        if "id" in message and "method" in message:  # what it asks us: we have no settings
            wanted = message.get("params", {}).get("items", [])
            self._send(id=message["id"], result=[None] * len(wanted))
        return message

    def ask(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        self._send(id=number, method=method, params=params)
        while (answer := self._receive()).get("id") != number or "method" in answer:
            pass
        return answer["result"]

    def open(self, path: Path) -> list[dict[str, Any]]:
        """Returns what it finds wrong."""
        document = {"uri": path.as_uri(), "languageId": "yaml", "version": 1}
        document["text"] = path.read_text()
        self._send(method="textDocument/didOpen", params={"textDocument": document})
        while (told := self._receive()).get("method") != "textDocument/publishDiagnostics":
            pass
        found: list[dict[str, Any]] = told["params"]["diagnostics"]
        return found

    def hover(self, path: Path, line: int, character: int) -> str:
        place = {"line": line, "character": character}
        told = self.ask("textDocument/hover", textDocument={"uri": path.as_uri()}, position=place)
        return str(told["contents"]["value"]) if told else ""


@pytest.fixture
def editor(tools: Path) -> Iterator[Editor]:
    editor = Editor(tools)
    with editor.server:
        yield editor
        editor.server.terminate()


def _file(tools: Path, name: str, text: str) -> Path:
    path = tools / name
    path.write_text(f"# yaml-language-server: $schema={tools / 'schema.json'}\n{text}")
    return path


def test_ajv_takes_it_in_strict_mode(tools: Path) -> None:
    command = ("node_modules/.bin/ajv", "compile", "--spec=draft7", "--strict=true")
    assert "valid" in run(*command, "-s", "schema.json", cwd=tools).stdout


def test_each_key_says_its_meaning(tools: Path, editor: Editor) -> None:
    """Escapes would be shown where an editor takes the text as it is."""
    path = _file(tools, "good.yaml", EXAMPLE)
    assert editor.open(path) == []
    for number, line in enumerate(path.read_text().splitlines()[1:], start=1):
        key = re.match(r" *(\w+):", line)
        assert key
        told = editor.hover(path, number, key.start(1))
        assert len(told) > len(key[1]) + 10, key[1]
        assert "\\" not in told, told


def test_a_mistake_is_marked(tools: Path, editor: Editor) -> None:
    (found,) = editor.open(_file(tools, "bad.yaml", "links:\n  va: {to: vb, modus: tc}\n"))
    assert "modus" in found["message"]
    assert found["range"]["start"]["line"] == 2
