"""One file on disk: what is read, what is refused by what it is, and whose words are repeated."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.main import main
from xconnectd.config import parser, reader, yaml_tree
from xconnectd.config.reader import ConfigMissing, load
from xconnectd.errors import ConfigError


def refusal(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return caught.value


def test_load_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("links:\n  a: b b\n")
    assert str(refusal(path)) == f"{path}:2:6: there is a space in the name `b b`"
    path.write_text("links: {a: b}")
    assert load(path) == parser.parse("links: {a: b}", "")


def test_missing_is_told_from_refused(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("none", "no/directory", "dangling"):
        assert isinstance(refusal(tmp_path / name), ConfigMissing), name
    assert not isinstance(refusal(tmp_path), ConfigMissing)


NO_FILES = {
    **{f"a {kind}": Path(kind) for kind in ("pipe", "device", "directory", "socket")},
    "procfs": Path("/proc/self/status"),
    "procfs,": Path("/proc/kmsg"),  # a read takes the messages away from who logs them
    "sysfs": Path("/sys/kernel/uevent_seqnum"),
}


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    """Nor is what the kernel makes up."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/null")
    (tmp_path / "directory").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    for number, (what, path) in enumerate(NO_FILES.items()):
        link = tmp_path / f"{number}.yaml"
        link.symlink_to(path)
        assert f"is {what.rstrip(',')}, not a file" in str(refusal(link))


def test_what_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert "cannot be read" in str(refusal(tmp_path / "loop"))
    assert "cannot be read" in str(refusal(tmp_path / ("x" * 300)))
    assert "embedded null" in str(refusal(Path("a\0b")))

    def denied(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    assert "Permission denied (make it readable for the user that xconnectd runs as)" in str(
        refusal(tmp_path / "x")
    )


def test_a_file_may_have_eight_mebibytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also one that is piped into a command: half of a file is never good."""

    def piped(command: str) -> int:
        with path.open() as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            return main([command, "-"])

    path = tmp_path / "huge"
    path.write_text(f"links: {{a: b}}\n#{' ' * (yaml_tree.MAX_BYTES - 16)}\n")
    assert len(load(path).links) == 1
    assert piped("check") == Exit.DONE
    with path.open("a") as file:
        file.write("\n")
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        assert "is larger than 8 MiB" in str(refusal(path))
        refusal(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before
    for command in ("check", "import"):
        capsys.readouterr()
        assert piped(command) == Exit.BAD_CONFIG
        assert "<stdin>:1:1: is larger than 8 MiB" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("file", "directory", "warned"),
    [(0o644, 0o755, []), (0o646, 0o755, ["x"]), (0o644, 0o757, [""]), (0o646, 0o1777, ["x"])],
)
def test_others_may_write_it(tmp_path: Path, file: int, directory: int, warned: list[str]) -> None:
    path = tmp_path / "d" / "x"
    path.parent.mkdir()
    path.write_text("links: {}")
    path.chmod(file)
    path.parent.chmod(directory)
    places = [warning.partition(": ")[0] for warning in load(path).warnings]
    assert places == [str(path.parent / name) for name in warned]


ROOT, LAB, OTHER = 0, 65_534, 64_002
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="it gives files to others: run it as root")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory of user LAB, beside a secret of root's and a file that anybody may read."""
    (tmp_path / "secret").write_text("links: {}\nthe_secret: 1\n")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "public").write_text("links: {}\nthe_secret: 1\n")
    directory = tmp_path / "etc.d"
    directory.mkdir()
    os.chown(directory, LAB, LAB)
    return directory


def link_of(user: int, path: Path, target: Path | str) -> Path:
    path.symlink_to(target)
    os.chown(path, user, user, follow_symlinks=False)
    return path


@only_root
@pytest.mark.parametrize("target", ["secret", "public", "etc.d/nested", "etc.d/directory/secret"])
def test_a_symlink_of_neither_root_nor_owner_is_not_followed(shared: Path, target: str) -> None:
    link_of(LAB, shared / "nested", "../secret")
    link_of(ROOT, shared / "directory", shared.parent)
    why = str(refusal(link_of(LAB, shared / "x.yaml", shared.parent / target)))
    assert "in its path belongs to user 65534 and points to what user 0 owns" in why
    assert "chown -h root" in why
    assert "the_secret" not in why


@only_root
@pytest.mark.parametrize(
    ("link", "target"), [(ROOT, OTHER), (LAB, LAB), (ROOT, ROOT), (OTHER, OTHER)]
)
def test_other_symlinks_are_followed(shared: Path, link: int, target: int) -> None:
    file = shared / "file"
    file.write_text("links: {a: b}\n")
    os.chown(file, target, target)
    link_of(link, shared / "x.yaml", "./../etc.d//file")
    assert len(load(shared / "x.yaml").links) == 1


def test_symlinks_are_followed_as_the_kernel_does_it(tmp_path: Path) -> None:
    """A ConfigMap, a chain, a link to a directory, a relative one that climbs."""
    (tmp_path / "..one").mkdir()
    (tmp_path / "..one" / "x.yaml").write_text("links: {a: b}\n")
    (tmp_path / "..data").symlink_to("..one")
    (tmp_path / "x.yaml").symlink_to("..data/x.yaml")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "up").symlink_to("../..data/../x.yaml")
    (tmp_path / "absolute").symlink_to(tmp_path / "d" / "up")
    for name in ("x.yaml", "d/up", "absolute", "d/../absolute", "./d/./up"):
        assert len(load(tmp_path / name).links) == 1, name
    assert isinstance(refusal(tmp_path / "x.yaml" / "y"), ConfigMissing)


@only_root
def test_only_a_file_that_no_symlink_leads_to_is_opened_at_once(tmp_path: Path) -> None:
    (plain := tmp_path / "plain.yaml").write_text("links: {a: b}")
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "link.yaml").symlink_to(plain)
    os.mkfifo(tmp_path / "pipe")
    for name, at_once in (
        ("plain.yaml", True),
        ("link/plain.yaml", False),
        ("link.yaml", False),
        ("pipe", False),
        ("../" + tmp_path.name + "/plain.yaml", False),
        ("nowhere", False),
    ):
        with ExitStack() as opened:
            found = reader._straight(opened, f"{tmp_path}/{name}")
            assert (found is not None) is at_once, name
            assert found is None or os.read(found[0], 100) == b"links: {a: b}"


@only_root
def test_words_are_kept_from_who_could_not_have_read_them(shared: Path) -> None:
    """A link of root's to what only root may read, in a directory of somebody else's."""
    secret, link = shared.parent / "secret", link_of(ROOT, shared / "x.yaml", "../secret")
    told = refusal(link)
    assert "the_secret" not in str(told)
    assert "a problem, not shown since user 65534, who owns the directory" in str(told)
    assert [(problem.line, problem.column) for problem in told.problems] == [(2, 1)]
    for readable in (link_of(ROOT, shared / "y.yaml", "../public"), secret):
        assert "the_secret" in str(refusal(readable))
    os.chown(secret, LAB, LAB)
    assert "the_secret" in str(refusal(link))
    os.chown(secret, ROOT, ROOT)
    secret.write_text("links: {the_secret: b, b: the_secret}\n")
    assert (load(link).warnings, len(load(secret).warnings)) == ((), 1), "warnings repeat words"
