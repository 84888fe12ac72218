"""The watch against real files: every way of saving wakes, reading and bystanders do not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from xconnectd.config import signature
from xconnectd.config.watcher import SETTLED, UNSETTLED, ConfigWatch

PATIENCE = 60.0


class Calls:
    """What the watch said, and a way to wait for it without sleeping for it."""

    def __init__(self) -> None:
        self.settles: list[float] = []
        self._news = threading.Condition()

    def __call__(self, settle: float) -> None:
        with self._news:
            self.settles.append(settle)
            self._news.notify_all()

    def until(self, done: Callable[[], bool]) -> bool:
        with self._news:
            return self._news.wait_for(done, PATIENCE)

    def told(self, settle: float) -> bool:
        return self.until(lambda: settle in self.settles)

    def forget(self) -> None:
        with self._news:
            self.settles.clear()


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "etc" / "xconnect.yaml"
    path.parent.mkdir()
    path.write_text("links: {}\n")
    return path


Watched = Callable[[Path], ConfigWatch]


@pytest.fixture
def watched(calls: Calls) -> Iterator[Watched]:
    made: list[ConfigWatch] = []
    threads = set(threading.enumerate())

    def start(path: Path) -> ConfigWatch:
        watch = ConfigWatch(path, calls)
        watch.start()
        made.append(watch)
        return watch

    yield start
    for watch in made:
        watch.stop()
    assert set(threading.enumerate()) <= threads, "a thread outlives stop()"


# ------------------------------------------------------------------ ways of saving


def in_place(path: Path) -> None:
    path.write_text("links: {a: b}\n")


def in_place_without_truncating(path: Path) -> None:
    with path.open("r+") as file:
        file.write("LINKS")


def by_rename(path: Path) -> None:
    new = path.with_name("xconnect.yaml.new")
    new.write_text("links: {a: b}\n")
    new.rename(path)


def by_rename_from_elsewhere(path: Path) -> None:
    new = path.parent.parent / "new"
    new.write_text("links: {a: b}\n")
    new.rename(path)


def like_vim(path: Path) -> None:
    path.rename(path.with_name("xconnect.yaml~"))
    path.write_text("links: {a: b}\n")
    path.with_name("xconnect.yaml~").unlink()


def in_two_writes(path: Path) -> None:
    with path.open("w") as file:
        file.write("links:\n")
        file.flush()
        file.write("  a: b\n")


SAVES = [
    in_place,
    in_place_without_truncating,
    by_rename,
    by_rename_from_elsewhere,
    like_vim,
    in_two_writes,
]


@pytest.mark.parametrize("save", SAVES)
def test_every_way_of_saving_is_told_each_time(
    save: Callable[[Path], None], path: Path, watched: Watched, calls: Calls
) -> None:
    watched(path)
    for _ in range(3):  # the second save by rename is where a watch on the file goes deaf
        save(path)
        assert calls.told(SETTLED)
        calls.forget()


def reading(path: Path) -> None:
    for _ in range(10):
        path.read_text()


def others(path: Path) -> None:
    """Whatever happens to them, and to what no directory of files would count."""
    for name in ("other", ".other.yaml", "readme"):
        path.with_name(name).write_text("x")
    path.with_name("other").rename(path.with_name("another"))
    path.with_name("another").unlink()
    path.with_name("directory").mkdir()


Case = tuple[Callable[[Path], object], list[float]]


@pytest.mark.parametrize(
    "case",
    [
        (in_two_writes, [SETTLED]),
        (by_rename, [SETTLED]),
        (lambda path: path.rename(path.with_name("backup")), [UNSETTLED]),
        (Path.unlink, [UNSETTLED]),
        (reading, []),
        (others, []),
    ],
)
def test_what_is_told_of_one_act(path: Path, watched: Watched, calls: Calls, case: Case) -> None:
    """Once, and not again by the round; half of a save is told from a whole one."""
    act, told = case
    watch = watched(path)
    act(path)
    assert calls.until(lambda: calls.settles == told)
    by_rename_from_elsewhere(path)  # all before it has been delivered when this is told
    assert calls.until(lambda: calls.settles == [*told, SETTLED])
    for _ in range(3):
        watch.check()
    assert calls.settles == [*told, SETTLED]


def test_a_save_through_a_symlink_that_turns(path: Path, watched: Watched, calls: Calls) -> None:
    link, other = path.parent.parent / "link.yaml", path.with_name("other.yaml")
    link.symlink_to("etc/xconnect.yaml")
    other.write_text("links: {}\n")
    watch = watched(link)
    steps: list[Callable[[], object]] = [
        lambda: in_place(path),
        lambda: by_rename(path),
        lambda: swap(link, other),
        lambda: (watch.check(), calls.forget(), in_place(other)),
    ]
    for step in steps:
        calls.forget()
        step()
        assert calls.told(SETTLED)


# ------------------------------------------------------------------ ConfigMap


def swap(link: Path, target: Path | str) -> None:
    new = link.with_name("..tmp")
    new.symlink_to(target)
    new.rename(link)


def config_map(volume: Path, version: str) -> None:
    """As the kubelet does: a new directory, then one rename of ``..data``."""
    (volume / version).mkdir()
    (volume / version / "xconnect.yaml").write_text(f"# {version}\nlinks: {{}}\n")
    swap(volume / "..data", version)


def test_a_config_map_is_seen_at_each_swap(tmp_path: Path, watched: Watched, calls: Calls) -> None:
    config_map(tmp_path, "..one")
    path = tmp_path / "xconnect.yaml"
    path.symlink_to("..data/xconnect.yaml")
    watch = watched(path)
    for version in ("..two", "..three", "..four"):
        config_map(tmp_path, version)
        assert calls.told(SETTLED)
        calls.forget()
    watch.check()
    config_map(tmp_path, "..five")
    assert calls.told(SETTLED)


# ------------------------------------------------------------------ the daily round


def test_a_change_without_event(path: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = ConfigWatch(path, calls)
    monkeypatch.setattr(watch, "_is_alive", lambda: True)  # deaf: it is never armed
    watch._route = signature.route(str(path))
    in_place(path)
    watch.check()
    assert calls.settles == []
    path.write_text("links: {a: b, c: d}\n")
    watch.check()
    assert calls.settles == []
    watch.check()
    assert calls.settles == [SETTLED]
    watch.check()
    assert calls.settles == [SETTLED]


def test_a_change_before_the_start_is_told(path: Path, calls: Calls) -> None:
    watch = ConfigWatch(path, calls)
    in_place(path)
    watch.start()
    watch.stop()
    assert calls.settles == [UNSETTLED]


@pytest.mark.parametrize("checked", [True, False])
def test_a_directory_that_is_not_there_yet(
    tmp_path: Path, watched: Watched, calls: Calls, *, checked: bool
) -> None:
    """Its file comes after the round has seen it, or with it."""
    path = tmp_path / "not" / "yet" / "xconnect.yaml"
    watch = watched(path)
    path.parent.mkdir(parents=True)
    assert calls.told(UNSETTLED)  # its first part came to be
    if checked:
        watch.check()
    calls.forget()
    in_place(path)
    if not checked:
        watch.check()
    assert calls.told(SETTLED if checked else UNSETTLED)


def replaced(path: Path, _: ConfigWatch) -> None:
    path.parent.rename(path.parent.with_name("old"))
    made_again(path)


def made_again(path: Path) -> None:
    path.parent.mkdir()
    in_place(path)


def deleted(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()


def deleted_and_made_again(path: Path, watch: ConfigWatch) -> None:
    deleted(path)
    watch.check()
    made_again(path)


def made_again_with_the_same_number(path: Path, watch: ConfigWatch) -> None:
    deleted(path)
    made_again(path)
    watch._route = watch._find_route()  # as if it had the inode number of the one before
    deadline = time.monotonic() + PATIENCE
    while watch._is_alive() and time.monotonic() < deadline:
        time.sleep(0.001)


def dead(_: Path, watch: ConfigWatch) -> None:
    assert watch._reader is not None
    watch._reader.stop()
    watch._reader.join()


@pytest.mark.parametrize(
    "upheave", [replaced, deleted_and_made_again, made_again_with_the_same_number, dead]
)
def test_the_round_listens_again_after_an_upheaval(
    path: Path, watched: Watched, calls: Calls, upheave: Callable[[Path, ConfigWatch], None]
) -> None:
    watch = watched(path)
    upheave(path, watch)
    watch.check()
    assert upheave is dead or calls.settles[-1:] == [UNSETTLED]
    calls.forget()
    in_place(path)
    assert calls.told(SETTLED)


def test_a_handler_that_raises_does_not_end_the_watch(
    path: Path, watched: Watched, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    watch = watched(path)
    monkeypatch.setattr(watch, "_changed", lambda _: 1 / 0)
    in_place(path)
    assert watch._reader is not None
    watch._reader.join(PATIENCE)
    monkeypatch.setattr(watch, "_changed", calls)
    watch.check()
    by_rename(path)
    assert calls.told(SETTLED)


def test_without_inotify_check_still_finds_changes(
    path: Path, watched: Watched, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise OSError(24, "inotify instance limit reached")

    monkeypatch.setattr("xconnectd.config.watcher.InotifyFD", exhausted)
    watch = watched(path)
    reason, _, remedy = watch.problem.partition(": ")
    assert reason == "inotify instance limit reached"
    assert remedy == "raise fs.inotify.max_user_instances"
    in_place(path)
    watch.check()
    assert calls.settles == [UNSETTLED]
    monkeypatch.undo()
    watch.check()
    assert watch.problem == ""


def test_an_orphaned_file_is_told_apart(path: Path, calls: Calls) -> None:
    with path.open() as file:
        # What a bind mount does: a path that still leads to an inode without a name.
        bound = ConfigWatch(Path(f"/proc/self/fd/{file.fileno()}"), calls)
        before = bound.orphan
        path.unlink()
        assert (before, bound.orphan) == ("", f"/proc/self/fd/{file.fileno()}")
        assert not ConfigWatch(path, calls).orphan


def test_stop_twice_and_without_start(path: Path, calls: Calls) -> None:
    watch = ConfigWatch(path, calls)
    watch.stop()
    watch.start()
    watch.stop()
    watch.stop()
    in_place(path)
    assert calls.settles == []


# ------------------------------------------------------------------ a directory of files


@pytest.mark.parametrize("name", [".", "../etc/xconnect.yaml"])
def test_relative_paths_are_taken_from_where_the_daemon_started(
    name: str, path: Path, watched: Watched, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    watch = watched(Path(name))
    monkeypatch.chdir("/")
    watch.check()
    in_place(path)
    assert calls.told(SETTLED)


def test_every_save_in_a_directory_wakes(path: Path, watched: Watched, calls: Calls) -> None:
    """And nothing that is no file of it does."""
    watched(path.parent)
    other = path.with_name("two.yaml")
    others(path)
    by_rename_from_elsewhere(path)
    assert calls.told(SETTLED)
    assert calls.settles == [SETTLED]
    steps: list[Callable[[], object]] = [
        lambda: path.write_text("links: {a: a}\n"),
        lambda: other.write_text("links: {b: b}\n"),
        lambda: other.write_text("links: {c: c}\n"),
        lambda: other.rename(path),
    ]
    for step in steps:
        calls.forget()
        step()
        assert calls.told(SETTLED)
    path.unlink()
    assert calls.told(UNSETTLED)


def test_the_first_file_of_a_directory(path: Path, watched: Watched, calls: Calls) -> None:
    path.unlink()
    watch = watched(path.parent)
    path.write_text("links: {a: a}\n")
    assert calls.told(SETTLED)
    path.parent.rename(path.parent.with_name("old"))
    path.parent.mkdir()
    watch.check()
    calls.forget()
    path.write_text("links: {b: b}\n")
    assert calls.told(SETTLED)
