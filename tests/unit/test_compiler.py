"""Compiled code as data: what is taken out, put in, written down, and trusted."""

from __future__ import annotations

import re
import shutil
import struct
from pathlib import Path

import pytest

from xconnectd.dataplane import compiler
from xconnectd.dataplane.compiler import Code, Source, code_for, decode, encode, source_hash
from xconnectd.errors import DataplaneError


def instruction(opcode: int, registers: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("<BBhi", opcode, registers, 0, immediate)


MOVE = instruction(0xB7, 0, 2)
MAP_2 = instruction(0x18, 0x11, 2) + instruction(0)
CONSTANT_2 = instruction(0x18, 0x01, 2) + instruction(0)
OPEN_2 = instruction(0x18, 0xF1, 2) + instruction(0)
NUMBERED = MOVE + MAP_2 + CONSTANT_2 + MAP_2
SOURCE = Source("some", ("ingress", "egress_drop"), ("entries", "peers"), ("one", "other"))
CODE = {"ingress": Code.from_numbered(NUMBERED), "egress_drop": Code(MOVE)}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A copy of the sources, without code that may have been made from them."""
    without = shutil.ignore_patterns("xconnect.json")
    return Path(shutil.copytree(compiler.source_directory(), tmp_path / "bpf", ignore=without))


@pytest.fixture(autouse=True)
def _no_ready_made_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(compiler.CODE_VARIABLE, raising=False)


HUGE = 0x8877_6655_4433_2211
LOW, HIGH = struct.unpack("<ii", struct.pack("<Q", HUGE))
FILLED = instruction(0x18, 0x01, LOW) + instruction(0, 0, HIGH)


def test_map_references_become_relocations_and_descriptors_again() -> None:
    """Constants are left open, and put in whole."""
    code = Code.from_numbered(NUMBERED)
    assert code.relocations == ((1, "peers"), (5, "peers"))
    bare, bound = (instruction(0x18, 0x11, fd) + instruction(0) for fd in (0, 70_000))
    assert code.instructions == MOVE + bare + CONSTANT_2 + bare
    assert code.bound({"peers": 2, "entries": 77}) == NUMBERED
    assert code.bound({"peers": 70_000}) == MOVE + bound + CONSTANT_2 + bound
    code = Code.from_numbered(MOVE + OPEN_2 + MAP_2, SOURCE)
    assert (code.constants, code.relocations) == (((1, "other"),), ((3, "peers"),))
    assert code.bound({"peers": 2}, {"other": HUGE}) == MOVE + FILLED + MAP_2


def _written(code: dict[str, Code], source: str) -> str:
    return encode({"xconnect": code}, {"xconnect": source})


def test_code_survives_being_written_down_for_its_own_source() -> None:
    other = {"received": Code.from_numbered(OPEN_2 + MAP_2, SOURCE)}
    text = encode({"some": CODE, "capture": other}, {"some": "abc", "capture": "xyz"})
    assert decode(text, "some", "abc") == CODE
    assert decode(text, "capture", "xyz") == other
    assert decode(text, "some", "abd") is decode(text, "third", "abc") is None
    assert decode('{"format": 1, "source": "abc", "programs": {}}', "xconnect", "abc") is None
    for odd in ("", "{}", "[]", "null", '{"format": 2, "sources": {"a": 1}}'):
        with pytest.raises(ValueError, match=r"not compiled code|Expecting value"):
            decode(odd, "a", "abc")


def test_the_hash_covers_source_headers_and_their_names(directory: Path) -> None:
    """Those of the other sources stay when one changes."""
    before = {one.name: source_hash(directory, one) for one in compiler.SOURCES}
    (directory / "capture.c").write_text("/* other */")
    after = {one.name: source_hash(directory, one) for one in compiler.SOURCES}
    assert {name for name in before if before[name] != after[name]} == {"capture"}
    seen = {source_hash(directory)}
    assert seen == {source_hash(compiler.source_directory())}
    header = directory / "include/linux/types.h"
    for change in (
        lambda: (directory / "xconnect.c").write_text("/* other */"),
        lambda: header.write_text("/* other */"),
        lambda: header.rename(header.with_name("other.h")),
        (directory / "include/new.h").touch,
    ):
        change()
        seen.add(source_hash(directory))
    assert len(seen) == 5


@pytest.mark.parametrize("source", compiler.SOURCES, ids=lambda source: source.name)
def test_the_names_are_those_of_the_source(source: Source) -> None:
    """The C numbers its maps and constants; the names here are in that order."""
    text = (compiler.source_directory() / f"{source.name}.c").read_text()
    for kind, names in (("map", source.maps), ("constant", source.constants)):
        body = re.search(rf"^enum {kind} {{(.*?)^}};", text, re.MULTILINE | re.DOTALL)
        listed = re.findall(r"^\t(\w+)(?: = \d)?,", body[1], re.MULTILINE) if body else []
        assert tuple(name.lower() for name in listed) == names


@pytest.mark.parametrize("place", ["beside the source", "named by the variable"])
def test_ready_made_code(directory: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setattr(compiler, "compile_in_child", lambda *_: {"fresh": Code(b"")})
    file = directory / "xconnect.json"
    if place != "beside the source":
        file = directory.parent / "code"
        monkeypatch.setenv(compiler.CODE_VARIABLE, str(file))
    source = source_hash(directory)
    file.write_text(_written(CODE, source))
    assert code_for(directory, source) == CODE
    file.write_text(_written(CODE, "of an older source"))
    assert code_for(directory, source).keys() == {"fresh"}
    file.write_text("half a fi")
    with pytest.raises(DataplaneError, match=rf"code: {file}: Expecting value"):
        code_for(directory, source)


@pytest.mark.parametrize(
    ("program", "words", "last"),
    [
        ("raise ImportError('no bcc at all')", "python3-bpfcc", "no bcc at all"),
        (
            "import os; os.write(2, b'out of breath'); os._exit(7)",
            *("compile: the compiler ended with 7", "out of breath"),
        ),
    ],
)
def test_a_child_that_fails_takes_its_last_words_along(
    directory: Path, monkeypatch: pytest.MonkeyPatch, program: str, words: str, last: str
) -> None:
    (directory.parent / "bcc.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(directory.parent))
    with pytest.raises(DataplaneError, match=words) as caught:
        compiler.compile_in_child(directory, source_hash(directory))
    assert last in caught.value.log
