"""Fixtures of the real-kernel tests; they need root and say so, and in CI they never skip."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Final

import pytest

from xconnectd.dataplane import compiler
from xconnectd.netlink.host_use import HostUse
from xconnectd.netlink.interfaces import Interfaces
from xconnectd.netlink.transport import Route

from .lab import Lab, inside, sweep
from .service import Daemon, Resident

_LOCK: Final = pytest.StashKey[IO[str]]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Two runs at once would disturb each other's timing: the second waits for the first.

    pytest-xdist's workers are of one run; the process that starts them holds the lock.
    """
    stash, needless = session.config.stash, session.config.option.collectonly
    if os.geteuid() != 0 or needless or hasattr(session.config, "workerinput") or _LOCK in stash:
        return
    stash[_LOCK] = (Path(tempfile.gettempdir()) / "xconnectd-netns-tests.lock").open("w")
    session.config.add_cleanup(stash[_LOCK].close)
    _acquire(stash[_LOCK].fileno())


def _acquire(handle: int, timeout: float = 900) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                pytest.exit(f"another run of these tests has gone on for {timeout:g} s", 1)
            time.sleep(0.2)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share the lab of their module stay together, in one of xdist's workers."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.netns)
            fixtures = item._fixtureinfo.name2fixturedefs.values()  # type: ignore[attr-defined]
            if any(each[-1].scope == "module" for each in fixtures):
                item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(scope="session", autouse=True)
def _kernel() -> None:
    """Root, and nothing left of sessions that died."""
    if os.geteuid() != 0:
        text = "these tests make network namespaces: run them as root (sudo make test)"
        pytest.fail(text) if os.environ.get("CI") else pytest.skip(text)
    sweep()
    sys.setswitchinterval(0.0002)  # streams keep their pace beside a busy test
    # A shell's background job ignores it, and so would every program that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # So it is with SIGHUP below nohup; with a handler this run outlives one all the same.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture(scope="session", autouse=True)
def ready_made_code(_kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compile once: every lab is a namespace in which nothing is pinned yet.

    A test that wants the compiler takes ``CODE_VARIABLE`` out of its environment.
    """
    directory = compiler.source_directory()
    hashes = {one.name: compiler.source_hash(directory, one) for one in compiler.SOURCES}
    compiled = {
        one.name: compiler.compile_in_child(directory, hashes[one.name], one)
        for one in compiler.SOURCES
    }
    code = tmp_path_factory.mktemp("code") / "xconnect.json"
    code.write_text(compiler.encode(compiled, hashes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(compiler.CODE_VARIABLE, str(code))
        yield


@pytest.fixture(scope="module")
def resident() -> Iterator[Resident]:
    one = Resident()
    yield one
    one.close()


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A new one; for a test that takes ``shared``, that of its module, with nothing in it."""
    if "shared" not in request.fixturenames:
        with Lab() as new:
            yield new
        return
    resident: Resident = request.getfixturevalue("resident")
    yield resident.lab
    resident.reset()


@pytest.fixture
def daemon(lab: Lab) -> Callable[..., Daemon]:
    """Starts a daemon in the lab's host; it goes with the lab."""

    def start(wiring: str | dict[str, str], *args: str, **options: object) -> Daemon:
        return Daemon(lab, wiring, *args, **options).start()  # type: ignore[arg-type]

    return start


@pytest.fixture
def shared(lab: Lab, resident: Resident) -> Callable[[str | dict[str, str]], Daemon]:
    """Gives the module's daemon another file: a start for those whom a reload does as well.

    The test may stop, kill and start it, and leave lab and daemon in any state.
    """
    assert lab is resident.lab
    return resident.start


@pytest.fixture
def route(lab: Lab) -> Iterator[Route]:
    with closing(inside(lab.host, Route)) as opened:
        yield opened


@pytest.fixture
def interfaces(route: Route) -> Interfaces:
    return Interfaces(route)


@pytest.fixture
def host_use(route: Route, interfaces: Interfaces) -> HostUse:
    return HostUse(route, interfaces)
