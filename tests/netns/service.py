"""The daemon under test: started, watched by its log, stopped in every way there is."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import pytest

from .lab import NETNS, PATIENCE, REPO, Lab, cookie, poll

Event = dict[str, Any]
Wiring = str | Mapping[str, str] | Mapping[str, Any]
CONNECTED: Final = ("connected", "rewired", "up")
PAIR: Final = {"va": "vb"}
MODES: Final = pytest.mark.parametrize("mode", ["auto", "tc"])
RIGHTLESS: Final = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
NOBODY: Final = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def document(wiring: Wiring) -> str:
    """A configuration file; a mapping of ends is enough, and of an end to what a link says."""
    if isinstance(wiring, str):
        return wiring
    if not wiring:
        return "links: {}\n"
    said = ((a, b if isinstance(b, str) else json.dumps(b)) for a, b in wiring.items())
    return "links:\n" + "".join(f"  {a}: {b}\n" for a, b in said)


def linked(mode: str = "auto", **more: object) -> dict[str, Any]:
    """``PAIR`` with options."""
    return {"va": {"to": "vb", "mode": mode, **more}}


def paired(ends: Sequence[str]) -> dict[str, str]:
    return dict(zip(ends[::2], ends[1::2], strict=True))


class Daemon:
    """``xconnectd run`` in a lab's host. Its log is JSON lines; ``events`` reads them."""

    def __init__(
        self,
        lab: Lab,
        wiring: Wiring | None,
        *args: str,
        namespace: str = "",
        name: str = "etc",
        through: Sequence[str] = (),
        lasting: bool = False,
    ) -> None:
        self.lab = lab
        self.namespace = namespace or lab.host
        self.config = lab.directory / name / "xconnect.yaml"
        self.config.parent.mkdir(exist_ok=True)
        self.state = lab.directory / f"state-{self.namespace}"
        self._args = args
        self._through = through
        self._log = lab.directory / f"{name}.log"
        self._log_start = 0
        self._ended_by = lab.keep_until_close if lasting else lab.on_close
        self._process: subprocess.Popen[bytes] | None = None
        if wiring is not None:
            self.write(wiring)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        assert self._process is not None
        return self._process.poll()

    def spawn(self) -> Self:
        """Start the process and return at once."""
        assert self._process is None or self._process.poll() is not None
        command = self._command("run", "-c", str(self.config), *self._args)
        command[2:2] = self._through
        options = self._surroundings() | {"stdin": subprocess.DEVNULL}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, **options, stderr=log, stdout=log)
        self._ended_by(self.kill)
        return self

    def start(self, timeout: float = PATIENCE) -> Self:
        """Start, and wait until the first pass is over."""
        since = self.mark()
        self.spawn()
        self.wait_event("daemon.ready", timeout, since=since)
        return self

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for the end of the process; returns its exit code."""
        assert self._process is not None
        return self._process.wait(timeout)

    def stop(self, timeout: float = PATIENCE) -> None:
        """SIGTERM; the end must be clean, and nothing unexpected be in the log."""
        self.signal(signal.SIGTERM)
        assert self.wait(timeout) == 0, self.text()
        self.assert_no_traceback()

    def kill(self) -> None:
        """SIGKILL, as a crash does it; no harm if it has ended already."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(PATIENCE)

    def crash(self) -> None:
        """Killed, and started again."""
        self.kill()
        self.start()

    def assert_no_traceback(self) -> None:
        assert "Traceback" not in self.text(), self.text()

    def write(self, wiring: Wiring) -> None:
        """Replace the file by a rename, as a careful editor does."""
        fresh = self.config.with_name(".fresh")
        fresh.write_text(document(wiring))
        fresh.rename(self.config)

    def write_in_place(self, wiring: Wiring) -> None:
        self.config.write_text(document(wiring))

    def text(self) -> str:
        if not self._log.exists():
            return ""
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def forget_log(self) -> None:
        """Have ``text`` and ``events`` begin here: what was before is of another test."""
        self._log_start = self._log.stat().st_size

    def mark(self) -> int:
        """A place in the log; pass it on as ``since``."""
        return len(self.text().splitlines())

    def events(self, name: str = "", since: int = 0, **fields: object) -> list[Event]:
        """The events of a name whose fields have these values."""
        lines = [_event(line) for line in self.text().splitlines()[since:]]
        wanted = {"event": name, **fields} if name else fields
        return [x for x in lines if all(x.get(key) == value for key, value in wanted.items())]

    def wait_event(
        self, name: str, timeout: float = PATIENCE, since: int = 0, **fields: object
    ) -> Event:
        """Wait for an event; returns the first that fits."""

        def look() -> list[Event]:
            if not (found := self.events(name, since, **fields)):
                assert self.returncode is None, f"it has ended: {self.returncode}"
            return found

        return self._poll(look, timeout, f"event {name} {fields}")[0]

    def _poll(self, look: Callable[[], list[Event]], timeout: float, what: str) -> list[Event]:
        """With the log, where it fails."""
        try:
            return poll(look, timeout, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text()}") from None

    def wait_link(
        self, event: str, a: str, b: str, timeout: float = PATIENCE, since: int = 0
    ) -> Event:
        """Wait for ``link.<event>`` of the link between two ends, whichever is named first.

        A link works from ``connected``, ``rewired`` or ``up`` on: ``connected`` means any.
        """
        names = {f"link.{x}" for x in (CONNECTED if event == "connected" else (event,))}

        def look() -> list[Event]:
            found = [x for x in self.events(since=since) if x["event"] in names]
            return [x for x in found if {x.get("a"), x.get("b")} == {a, b}]

        return self._poll(look, timeout, f"link.{event} of {a}, {b}")[0]

    def connected(self, a: str = "va", b: str = "vb") -> Self:
        """Wait until it is."""
        self.wait_link("connected", a, b)
        return self

    def cli(
        self,
        *args: str,
        by: Sequence[str] = (),
        typed: str | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of ``xconnectd`` beside the daemon, started ``by`` another program."""
        command = self._command(*args)
        command[2:2] = by
        options = self._surroundings() | {"input": typed, "timeout": timeout}
        return subprocess.run(command, **options, capture_output=True, text=True)

    def status(self) -> dict[str, Any]:
        done = self.cli("status", "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def seen(self) -> dict[str, Any]:
        """What its own look at the kernel shows the command: for a file that is named it looks."""
        done = self.cli("status", "--json", "-c", str(self.config))
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def socket_path(self, name: str = "status") -> Path:
        """One of the daemon's control sockets; no path of theirs may be longer than 107 bytes."""
        return self.state / str(cookie(self.namespace)) / f"{name}.sock"

    def ask(
        self, do: str, name: str = "status", timeout: float = PATIENCE, **details: object
    ) -> Any:
        """Ask the daemon itself, without the start of a process. It has let go of us by then."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(timeout)
            asking.connect(str(self.socket_path(name)))
            asking.sendall(json.dumps({"do": do, **details}).encode() + b"\n")
            with asking.makefile("rb") as answer:
                told = json.loads(answer.readline())
                asking.shutdown(socket.SHUT_WR)
                assert answer.read() == b"", "more than one answer"
        return told

    def reload(self) -> bool:
        return bool(self.ask("reload", "control")["ok"])

    def states(self) -> set[str]:
        """All that its links have."""
        return {link["state"] for link in self.ask("status")["links"]}

    def files(self) -> dict[str, str]:
        """The states of its files, by their names."""
        return {Path(x["path"]).name: x["state"] for x in self.status()["config"]["files"]}

    def link(self, a: str = "va", b: str = "vb") -> dict[str, Any]:
        """What the daemon says of the link between two ends; the command, if it has ended."""
        ended = self._process is None or self._process.poll() is not None
        links: list[dict[str, Any]] = (self.status() if ended else self.ask("status"))["links"]
        for link in links:
            if {link["a"]["name"], link["b"]["name"]} == {a, b}:
                return link
        raise AssertionError(f"status knows no link of {a} and {b}: {links}")

    def wait_state(self, a: str, b: str, state: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """Wait until status gives the link this state; returns what it says."""

        def look() -> list[Event]:
            with contextlib.suppress(AssertionError):
                return [link for link in [self.link(a, b)] if link["state"] == state]
            return []

        return self._poll(look, timeout, f"{a}, {b} is {state}")[0]

    def rss(self) -> int:
        """Resident memory in bytes."""
        status = Path("/proc", str(self.pid), "status").read_text()
        line = next(x for x in status.splitlines() if x.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def maps(self) -> str:
        return Path("/proc", str(self.pid), "maps").read_text()

    def cpu(self) -> float:
        """Seconds of processor time used so far, by its threads and ended children too."""
        fields = Path("/proc", str(self.pid), "stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def idle(self, quiet: float = 0.5, timeout: float = PATIENCE) -> None:
        """Wait until the log has said nothing for a while."""
        size, since = len(self.text()), time.monotonic()

        def still() -> bool:
            nonlocal size, since
            if size != (now := len(self.text())):
                size, since = now, time.monotonic()
            return time.monotonic() - since > quiet

        poll(still, timeout, "a quiet log")

    def _command(self, *args: str) -> list[str]:
        enter = f"--net={NETNS / self.namespace}"
        return ["nsenter", enter, sys.executable, "-m", "xconnectd", *args]

    def _surroundings(self) -> dict[str, Any]:
        extra = {"XCONNECTD_STATE_DIR": str(self.state), "PYTHONPATH": str(REPO)}
        return {"cwd": REPO, "env": {**os.environ, **extra}}


class Folder(Daemon):
    """A daemon that was given a directory."""

    def __init__(self, lab: Lab, files: Mapping[str, Wiring]) -> None:
        super().__init__(lab, None, name="etc.d")
        self.config = self.config.parent
        for name, wiring in files.items():
            self.put(name, wiring)

    def put(self, name: str, wiring: Wiring, *, in_place: bool = False) -> Path:
        path = self.config / name
        fresh = path if in_place else self.config / ".fresh"
        fresh.write_text(document(wiring))
        fresh.rename(path)
        return path


Start = Callable[..., Daemon]
"""The fixtures ``daemon`` and ``shared``."""


class Resident:
    """One lab and one daemon for many tests. Each finds both as the first one did.

    Where that cannot be had, the next test gets new ones.
    """

    def __init__(self) -> None:
        self._lab: Lab | None = None
        self._daemon: Daemon | None = None
        self._bones = ""

    @property
    def lab(self) -> Lab:
        if self._lab is None:
            self._lab = Lab()
            self._bones = self._lab.bones()
        return self._lab

    def start(self, wiring: Wiring) -> Daemon:
        """A daemon that has made its pass for this file; its log has nothing of earlier tests."""
        if self._daemon is None:
            self._daemon = Daemon(self.lab, wiring, lasting=True).start()
            return self._daemon
        self._daemon.forget_log()
        self._daemon.write(wiring)
        self._daemon.ask("reload", "control")
        return self._daemon

    def reset(self) -> None:
        """After each test, also one that failed. A traceback in the log is an AssertionError."""
        text = self._daemon.text() if self._daemon else ""
        try:
            is_as_new = self._empty()
        except Exception:  # noqa: BLE001  whatever it is, both are given up
            is_as_new = False
        if not is_as_new:
            self.close()
        assert "Traceback" not in text, text

    def _empty(self) -> bool:
        """Returns whether nothing is left but the lab, and the daemon if it runs."""
        daemon = self._daemon
        if daemon is None or daemon.returncode is not None:
            self._daemon = None
            self.lab.empty()
            return not self.lab.pins.exists() and self.lab.bones() == self._bones
        daemon.signal(signal.SIGCONT)
        daemon.write({})
        assert daemon.ask("reload", "control", timeout=10)["ok"]
        self.lab.empty(daemon.config.parent, daemon.state, daemon._log)
        told = daemon.ask("status", timeout=10)
        return not told["links"] + told["moved_netns"] and self.lab.bones() == self._bones

    def close(self) -> None:
        if self._lab:
            self._lab.close()
        self._lab = self._daemon = None


def _event(line: str) -> Event:
    try:
        parsed = json.loads(line)
    except ValueError:
        return {"event": "", "text": line}
    return parsed if isinstance(parsed, dict) else {"event": "", "text": line}
