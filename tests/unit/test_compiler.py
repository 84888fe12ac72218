"""Compiled code as data: what is taken out, put in, written down, and trusted."""

from __future__ import annotations

import re
import shutil
import struct
from pathlib import Path

import pytest

from xconnectd.dataplane import compiler
from xconnectd.dataplane.compiler import (
    Code,
    Source,
    code_for,
    compile_in_child,
    decode,
    encode,
    source_hash,
)
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
    copy = tmp_path / "bpf"
    shutil.copytree(
        compiler.source_directory(), copy, ignore=shutil.ignore_patterns("xconnect.json")
    )
    return copy


@pytest.fixture(autouse=True)
def _no_ready_made_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(compiler.CODE_VARIABLE, raising=False)


def test_only_map_references_become_relocations() -> None:
    code = Code.from_numbered(NUMBERED)
    assert code.relocations == ((1, "peers"), (5, "peers"))
    bare = instruction(0x18, 0x11, 0) + instruction(0)
    assert code.instructions == MOVE + bare + CONSTANT_2 + bare


def test_binding_puts_descriptors_where_the_numbers_were() -> None:
    code = Code.from_numbered(NUMBERED)
    assert code.bound({"peers": 2, "entries": 77}) == NUMBERED
    bound = instruction(0x18, 0x11, 70_000) + instruction(0)
    assert code.bound({"peers": 70_000}) == MOVE + bound + CONSTANT_2 + bound


def test_constants_are_left_open_and_put_in_whole() -> None:
    code = Code.from_numbered(MOVE + OPEN_2 + MAP_2, SOURCE)
    assert (code.constants, code.relocations) == (((1, "other"),), ((3, "peers"),))
    value = 0x8877_6655_4433_2211
    low, high = struct.unpack("<ii", struct.pack("<Q", value))
    filled = instruction(0x18, 0x01, low) + instruction(0, 0, high)
    assert code.bound({"peers": 2}, {"other": value}) == MOVE + filled + MAP_2


def _written(code: dict[str, Code], source: str) -> str:
    return encode({"xconnect": code}, {"xconnect": source})


def test_code_survives_being_written_down() -> None:
    other = {"received": Code.from_numbered(OPEN_2 + MAP_2, SOURCE)}
    text = encode({"some": CODE, "capture": other}, {"some": "abc", "capture": "xyz"})
    assert decode(text, "some", "abc") == CODE
    assert decode(text, "capture", "xyz") == other


def test_code_of_another_source_is_not_taken() -> None:
    assert decode(_written(CODE, "abc"), "xconnect", "abd") is None
    assert decode(_written(CODE, "abc"), "capture", "abc") is None


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"format": 2, "sources": {"a": 1}}'])
def test_what_is_no_code_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not compiled code|Expecting value"):
        decode(text, "a", "abc")


def test_code_of_an_older_format_is_not_taken() -> None:
    assert decode('{"format": 1, "source": "abc", "programs": {}}', "xconnect", "abc") is None


def test_a_source_that_changes_leaves_the_hashes_of_the_others(directory: Path) -> None:
    def hashes() -> dict[str, str]:
        return {one.name: source_hash(directory, one) for one in compiler.SOURCES}

    before = hashes()
    (directory / "capture.c").write_text("/* other */")
    assert {name for name in before if before[name] != hashes()[name]} == {"capture"}


@pytest.mark.parametrize("source", compiler.SOURCES, ids=lambda source: source.name)
def test_the_names_are_those_of_the_source(source: Source) -> None:
    """The C numbers its maps and constants; the names here are in that order."""
    text = (compiler.source_directory() / f"{source.name}.c").read_text()
    for kind, names in (("map", source.maps), ("constant", source.constants)):
        body = re.search(rf"^enum {kind} {{(.*?)^}};", text, re.MULTILINE | re.DOTALL)
        listed = re.findall(r"^\t(\w+)(?: = \d)?,", body[1], re.MULTILINE) if body else []
        assert tuple(name.lower() for name in listed) == names


def test_the_hash_covers_source_headers_and_their_names(directory: Path) -> None:
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


def test_ready_made_code_saves_the_compiler(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "compile_in_child", lambda *_: pytest.fail("compiled"))
    source = source_hash(directory)
    (directory / "xconnect.json").write_text(_written(CODE, source))
    assert code_for(directory, source) == CODE


def test_a_variable_names_other_ready_made_code(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "compile_in_child", lambda *_: pytest.fail("compiled"))
    monkeypatch.setenv(compiler.CODE_VARIABLE, str(tmp_path / "code"))
    source = source_hash(directory)
    (tmp_path / "code").write_text(_written(CODE, source))
    assert code_for(directory, source) == CODE


def test_ready_made_code_that_does_not_fit_is_compiled_anew(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "compile_in_child", lambda *_: {"fresh": Code(b"")})
    (directory / "xconnect.json").write_text(_written(CODE, "of an older source"))
    assert code_for(directory, source_hash(directory)).keys() == {"fresh"}


def test_broken_ready_made_code_is_named(directory: Path) -> None:
    path = directory / "xconnect.json"
    path.write_text("half a fi")
    with pytest.raises(DataplaneError, match=rf"code: {path}: Expecting value"):
        code_for(directory, source_hash(directory))


def test_missing_bcc_names_the_package(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bcc.py").write_text("raise ImportError('No module named bcc at all')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DataplaneError, match="python3-bpfcc") as caught:
        compile_in_child(directory, source_hash(directory))
    assert "No module named bcc at all" in caught.value.log


def test_a_child_that_dies_takes_its_last_words_along(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = "import os, sys; sys.stderr.write('out of breath'); sys.stderr.flush(); os._exit(7)"
    (tmp_path / "bcc.py").write_text(dying)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DataplaneError, match="compile: the compiler ended with 7") as caught:
        compile_in_child(directory, source_hash(directory))
    assert caught.value.log == "out of breath"
