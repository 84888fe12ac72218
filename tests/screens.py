"""Pictures of the program at work, for the documentation: ``make screens``.

Everything is recorded from the real thing, in a terminal of its own.
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from .netns.frames import LLDP
from .netns.hosts_lab import Hosts
from .netns.lab import NETNS, Lab, Station, poll, run
from .netns.service import Daemon
from .netns.terminal import Terminal
from .netns.traffic import Wire, exchange

REPO: Final = Path(__file__).parents[1]
WIDTH: Final = 100
"""Columns."""
HEIGHT: Final = 28
"""Lines of the recording that are seen at a time."""
PAUSE: Final = 1.5
"""Seconds that a recording stands still at most, and at its end thrice as long."""
_LINE: Final = 24.4
"""Height of a line in the units of rich's SVG (``Console.export_svg``)."""
_BAND: Final = 100
"""Height of the lab's graph above the recording."""
_FORMAT: Final = f"""\
<svg viewBox="0 0 {{width}} {_BAND + (HEIGHT + 2) * _LINE:.0f}" xmlns="http://www.w3.org/2000/svg">
<style>
.{{unique_id}}-matrix {{{{font: {{char_height}}px monospace}}}}
{{styles}}
/* play */
</style>
<defs>
<clipPath id="window"><rect width="{{terminal_width}}" height="{HEIGHT * _LINE}"/></clipPath>
{{lines}}
</defs>
<rect width="100%" height="100%" rx="8" fill="{MONOKAI.background_color.hex}"/>
<rect width="100%" height="{_BAND}" fill="white"/>
<!-- graph -->
<g transform="translate(9, {_BAND + _LINE})" clip-path="url(#window)"><g class="play">
{{backgrounds}}
<g class="{{unique_id}}-matrix">{{matrix}}</g>
</g></g>
</svg>
"""


_PAGE: Final = """\
# What one sees

Recorded by `make screens` from a lab of network namespaces, at 80 and at 160 columns. On a
terminal states and changes are in colour too. `make test-long` says when this page is stale.
"""
_WIRING: Final = """\
links:
  leaf1-eth1: spine1-eth1
  leaf2-eth1: {to: spine1-eth2, mode: tc}
  leaf3-eth1: spine1-eth3
  leaf4-eth1: spine1-eth4
  leaf5-eth1: {to: spine1-eth5, enabled: false}
"""
_DRAFT: Final = """\
links:
  leaf1-eth1: spine1-eth1
  leaf2-eth1: spine1-eth3
  leaf3-eth1: spine1-eth2
  leaf4-eth1: spine1-eth4
  leaf5-eth1: spine1-eth5
"""


_TOPOLOGY: Final = """\
links:
  leaf1:eth1: spine1:eth1
  leaf1:eth2: spine2:eth1
  leaf2:eth1: spine1:eth2
  leaf2:eth2: {to: spine2:eth2, enabled: false}
  leaf3:eth1: spine1:eth3
  leaf1:eth3: tap0
nodes:
"""
_RUNNING: Final = ("leaf1", "leaf2", "spine1", "spine2")


_BAD: Final = """\
links:
  leaf1-eth1: spine1-eth1
  leaf2-eth1: {too: spine1-eth1}
"""
_QUOTED: Final = re.compile(r"(<!-- make screens: (\w+) -->\n```\w+\n).*?(?=```)", re.DOTALL)
"""Such a block of a page is what a command prints."""


class Line(NamedTuple):
    """A line of a terminal, with its colours, and when it was complete (seconds)."""

    text: str
    at: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.screens", description=__doc__)
    parser.add_argument("--output", type=Path, default=REPO / "docs", metavar="DIRECTORY")
    output: Path = parser.parse_args().output
    with Lab() as lab:
        for name, text in pages(lab).items():
            (output / name).write_text(text)
    with Lab() as lab:
        graph = drawn(lab)
    lines = list(record([str(REPO / "tests" / "demo")]))
    (output / "demo.svg").write_text(film(lines, "sudo make demo", graph))


# ---------------------------------------------------------------------- pages of text


class _Scene(NamedTuple):
    """A lab in which not all is well. ``here`` and ``there`` are at the ends of a good link."""

    lab: Lab
    daemon: Daemon
    stations: Mapping[str, Station]
    here: Wire
    there: Wire


def pages(lab: Lab) -> dict[str, str]:
    """The pages that show what commands print, by their names."""
    scene = _wired(lab)
    screens = _screens(scene)
    outputs = _outputs(scene)
    texts = {path.name: path.read_text() for path in sorted((REPO / "docs").glob("*.md"))}
    quoting = {name: text for name, text in texts.items() if _QUOTED.search(text)}
    renewed = {
        name: _QUOTED.sub(lambda found: found[1] + outputs[found[2]], text)
        for name, text in quoting.items()
    }
    return {"screens.md": screens, **renewed}


def _screens(scene: _Scene) -> str:
    """Status, plan, events and capture, as Markdown."""
    lab, daemon, _, here, there = scene
    draft = lab.directory / "draft.yaml"
    draft.write_text(_DRAFT)
    parts = [_PAGE]
    for columns in (80, 160):
        for words in ("status", f"plan {draft}", "events", "capture leaf1-eth1 --count 4"):
            terminal = Terminal(daemon, *words.split(), rows=40, columns=columns)
            if words == "events":
                _tell_something(daemon, terminal)
            while terminal.process.poll() is None:
                exchange(here, there, [LLDP])
                exchange(there, here, [LLDP])
            lines = re.sub(r"\x1b\[[\d;]*m", "", terminal.read()).replace("\r\n", "\n")
            lines = _renamed(scene, lines).replace(str(daemon.config), "/etc/xconnect.yaml")
            shown = words.replace(str(draft), "draft.yaml")
            text = "\n".join(map(str.rstrip, lines.splitlines()))
            parts.append(f"## `xconnectd {shown}`, {columns} columns\n\n```\n{text}\n```\n")
    return "\n".join(parts)


def _outputs(scene: _Scene) -> dict[str, str]:
    """What the pages quote, by the names that they have there."""
    return {
        "graph": _topology(),
        **_across(),
        "test": _typed(scene, "test leaf3-eth1"),
        "good": _typed(scene, "test leaf1-eth1"),
        "check": _checked(scene),
        "capture": _captured(scene),
        "lost": _lost(scene),
    }


def _said(scene: _Scene, words: str) -> str:
    """With the names that people would give to namespaces: ``leaf1`` for that of leaf1-eth1."""
    return _renamed(scene, scene.daemon.cli(*words.split()).stdout)


def _renamed(scene: _Scene, text: str) -> str:
    for station in scene.stations.values():
        text = text.replace(station.namespace, station.end.partition("-")[0])
    return text


def _topology() -> str:
    """A graph of nodes, of which one is away and one has its end down."""
    with Lab() as lab:
        places = {name: NETNS / lab.namespace(name, quiet=True) for name in _RUNNING}
        lab.tap("tap0")
        nodes = "".join(f"  {name}: {{netns: {path}}}\n" for name, path in places.items())
        daemon = Daemon(lab, _TOPOLOGY + nodes).start()
        daemon.wait_state("leaf2:eth1", "spine1:eth2", "connected")
        run("ip", "link", "set", "eth1", "down", namespace=places["leaf2"].name)
        daemon.wait_state("leaf2:eth1", "spine1:eth2", "down")
        return daemon.cli("graph").stdout


def _across() -> dict[str, str]:
    """A link between two hosts: tried, and what was heard of the other one."""
    with Hosts(2) as hosts:
        ends = {"h1": "leaf1-eth1", "h2": "spine1-eth1"}
        a, b = (f"{host}/{end}" for host, end in ends.items())
        for host, end in ends.items():
            hosts[host].veth(end)
        hosts.start({a: b})
        hosts.wait_state(a, b, "connected")
        here = hosts["h1"].daemon
        tried = here.cli("test", a).stdout
        shown = [line.strip() for line in here.cli("status", "-v", a).stdout.splitlines()]
    heard = (line for line in shown if line.startswith(("tunnel by ", "h2: ")))
    return {"across": f"h1$ sudo xconnectd test {a}\n{tried}", "heard": "\n".join((*heard, ""))}


def _typed(scene: _Scene, words: str) -> str:
    return f"$ sudo xconnectd {words}\n{_said(scene, words)}"


def _checked(scene: _Scene) -> str:
    bad = scene.lab.directory / "wire.yaml"
    bad.write_text(_BAD)
    told = _said(scene, f"check {bad}").replace(str(bad), bad.name)
    return f"$ xconnectd check wire.yaml\n{told}"


def _captured(scene: _Scene) -> str:
    """A ping, which begins with ARP; both have a MAC that stays the same."""
    leaf, spine = scene.stations["leaf1-eth1"], scene.stations["spine1-eth1"]
    for number, station in enumerate((leaf, spine), start=1):
        station.ip("link", "set", "eth0", "address", f"02:00:00:00:00:0{number}")
        station.ip("address", "add", f"198.51.100.{number}/24", "dev", "eth0")
    words = "capture leaf1-eth1 --count 4 icmp or arp"
    terminal = Terminal(scene.daemon, *words.split(), columns=160)
    while terminal.process.poll() is None:  # what came before it listens is not there
        for station in (leaf, spine):
            station.ip("neighbour", "flush", "dev", "eth0")
        run("ping", "-c1", "198.51.100.2", namespace=leaf.namespace)
        time.sleep(0.5)
    frames = [line for line in terminal.read().splitlines() if "ethertype" in line]
    return "\n".join((f"$ sudo xconnectd {words}", *frames, ""))


def _lost(scene: _Scene) -> str:
    """Of three frames that the other end does not take."""
    scene.stations["spine1-eth1"].ip("link", "set", "eth0", "mtu", "1000")
    for _ in range(3):
        scene.here.send(LLDP + bytes(1200))
    poll(lambda: "lost" in _said(scene, "status -v leaf1-eth1"), what="a loss")
    lines = _said(scene, "status -v leaf1-eth1").splitlines()
    return "\n".join((*(line.strip() for line in lines if "lost" in line), ""))


def _wired(lab: Lab) -> _Scene:
    names = re.findall(r"[a-z]+\d-eth\d", _WIRING)
    stations = {name: lab.veth(name) for name in names if name != "spine1-eth4"}
    daemon = Daemon(lab, _WIRING).start()
    stations["spine1-eth3"].ip("link", "set", "eth0", "down")
    daemon.wait_state("leaf3-eth1", "spine1-eth3", "down")
    here, there = stations["leaf1-eth1"].port(), stations["spine1-eth1"].port()
    lab.on_close(here.close)
    lab.on_close(there.close)
    return _Scene(lab, daemon, stations, here, there)


def _tell_something(daemon: Daemon, terminal: Terminal) -> None:
    """A refused file, a link that moves, and the way back; then nobody listens any more."""
    time.sleep(1)  # what it connects to tells nothing by itself
    for number, wiring in enumerate(("links:\n  leaf1-eth1: [\n", _DRAFT, _WIRING), start=1):
        daemon.write(wiring)
        poll(lambda number=number: terminal.read().count("config.") == number, what="an event")  # type: ignore[misc]
        said = ""
        while said != terminal.read():  # until all that follows from it is told
            said = terminal.read()
            time.sleep(1)
    terminal.process.send_signal(signal.SIGINT)


# ---------------------------------------------------------------------- a recording


def record(command: Sequence[str]) -> Iterator[Line]:
    """The lines that a command writes to a terminal.

    Raises:
        RuntimeError: it failed.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS=str(WIDTH))
        os.execvp(command[0], [*command])
    started, rest = time.monotonic(), b""
    while chunk := _read(terminal):
        *whole, rest = (rest + chunk).split(b"\n")
        at = time.monotonic() - started
        yield from (Line(each.decode().rstrip("\r"), at) for each in whole)
    os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise RuntimeError(f"{' '.join(command)}: exit code {code}")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # EIO: nobody has the other end open any more (pty(7))
        return b""


def drawn(lab: Lab) -> str:
    """The lab of the demo at its start, as ``xconnectd graph`` draws it, in SVG."""
    stations = {name: lab.veth(name) for name in ("leaf1", "leaf2")}
    for station in stations.values():
        station.ip("link", "set", "eth0", "name", "eth1")
        station.interface = "eth1"
    daemon = Daemon(lab, {"leaf1": "leaf2"}).start()
    daemon.wait_state("leaf1", "leaf2", "connected")
    scene = _Scene(lab, daemon, stations, *(station.port() for station in stations.values()))
    for port in (scene.here, scene.there):
        lab.on_close(port.close)
    return run("dot", "-Tsvg", text=_said(scene, "graph --format dot")).stdout


def film(lines: Sequence[Line], title: str, graph: str) -> str:
    """An SVG that plays what was recorded, again and again: it scrolls as a terminal does.

    Above it stands ``graph``, another SVG.
    """
    console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True)
    for line in lines:
        console.print(Text.from_ansi(line.text), no_wrap=True, crop=True)
    picture = console.export_svg(title=title, theme=MONOKAI, code_format=_FORMAT, unique_id="demo")
    picture = picture.replace("/* play */", _play([line.at for line in lines]))
    place = f'<svg y="10" width="100%" height="{_BAND - 20}"'
    inner = re.sub(r'<svg width="\d+pt" height="\d+pt"', place, graph[graph.index("<svg") :])
    return picture.replace("<!-- graph -->", inner)


def _play(times: Sequence[float]) -> str:
    """When how many lines are there, as steps of a CSS animation."""
    steps, at = [], 0.0
    for number, (now, after) in enumerate(pairwise((*times, times[-1] + 9 * PAUSE)), start=1):
        steps.append((at, number))
        at += min(after - now, PAUSE if number < len(times) else 3 * PAUSE)
    frames = " ".join(
        f"{start / at:.2%} {{transform: translateY({(HEIGHT - shown) * _LINE:.1f}px)}}"
        for start, shown in steps
    )
    return f".play {{animation: play {at:.0f}s step-end infinite}}\n@keyframes play {{{frames}}}"


if __name__ == "__main__":
    main()
