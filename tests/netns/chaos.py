"""A chaos run: random harm to a lab, the contract's invariants checked with frames after each step.

What is done depends on the seed alone, so that a run can be played again. What is expected comes
from the chaos's own book-keeping and from the kernel, never from the daemon.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from .lab import PROG_XDP, XDP_PASS, Lab, Station, poll, run
from .service import Daemon
from .traffic import Stream, Wire, looks

T = TypeVar("T")

DEVICES: Final = 7
NAMES: Final = [f"n{n}" for n in range(DEVICES + 3)]
SETTLE: Final = 20.0
"""Seconds until all must be right. Most steps take a tenth of one; machines are shared."""
AWAY: Final = ("away1", "away2")
BAD: Final = (
    "",
    "# nothing\n",
    "links:\n  n0: [n1\n",
    "link:\n  n0: n1\n",
    "links:\n  n0: n1\n  n0: n2\n",
    "links:\n  n0: n1\n  n2: n1\n",
    "links:\n  n0: {to: n1, colour: red}\n",
)


class ChaosError(AssertionError):
    """An invariant is broken; the text says which, when, and how to see it again."""


@dataclass
class Device:
    """An interface of the host with its station, and what was done to it."""

    station: Station
    wire: Wire
    name: str
    where: str = "host"
    foreign: Path | None = None
    mtus: set[int] = field(default_factory=lambda: {1500})

    @property
    def fixed(self) -> bool:
        """A tap lives as long as its process holds it: it is not deleted, and does not move."""
        return self.where == "host" and self.station.interface == ""


@dataclass(frozen=True)
class Plug:
    """A link of the file."""

    a: str
    b: str
    mode: str = "auto"
    enabled: bool = True

    @property
    def link(self) -> str:
        return ":".join(sorted((self.a, self.b)))

    def __str__(self) -> str:
        enabled = "true" if self.enabled else "false"
        return f"  {self.a}: {{to: {self.b}, mode: {self.mode}, enabled: {enabled}}}\n"


UNTOUCHED: Final = Plug("ua", "ub")


class Chaos:
    """One run on a lab of its own. ``run`` raises ``ChaosError`` at the first broken invariant."""

    def __init__(self, lab: Lab, seed: int, seconds: float) -> None:
        self.lab = lab
        self.seed = seed
        self.seconds = seconds
        self.steps = 0
        self.counts: dict[str, int] = {}
        self.slowest = (0.0, "")
        self._random = random.Random(seed)
        self._history: list[str] = []
        self._plugs: list[Plug] = []
        self._good = True
        self._forgetful = False
        lab.hush()
        lab.on_close(self._close)
        self._away = [lab.namespace(name, quiet=True) for name in AWAY]
        self._devices: list[Device] = []
        for name in NAMES[: DEVICES - 1]:
            station = lab.veth(name)
            self._devices.append(Device(station, station.port(), name))
        tap = NAMES[DEVICES - 1]
        self._devices.append(Device(Station(lab.host, tap, interface=""), lab.tap(tap), tap))
        self._ends = (lab.veth("ua"), lab.veth("ub"))
        poll(lambda: all(lab.link(x.end)["operstate"] == "UP" for x in self._ends), what="carrier")
        self._before = self._untouched()
        self.daemon = Daemon(lab, None)
        self._foreign = {
            kind: lab.program(PROG_XDP, XDP_PASS, f"foreign{kind}") for kind in ("0", "1")
        }

    # ------------------------------------------------------------------ the run

    def run(self) -> None:
        self._write_good()
        self.daemon.start()
        deadline = time.monotonic() + self.seconds
        try:
            with Stream(*self._ends, rate=500) as stream:
                poll(stream.flows)
                while time.monotonic() < deadline:
                    self._step()
                    self._check(stream)
                self._compare(stream)
            stream.assert_perfect()
            self._finish()
        except AssertionError as error:
            raise ChaosError(self._story(str(error))) from None

    def _close(self) -> None:
        for device in self._devices:
            device.wire.close()

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.counts.items()))
        slowest = f"slowest to settle: {self.slowest[0]:.2f} s, {self.slowest[1]}"
        return f"seed {self.seed}: {self.steps} steps ({kinds}); {slowest}"

    def _story(self, problem: str) -> str:
        log = "\n".join(self.daemon.text().splitlines()[-40:])
        again = f"make chaos SECONDS={self.seconds:g} SEED={self.seed}"
        history = "\n".join(self._history[-25:])
        return f"{problem}\n\nstep {self.steps}, {again}\n{history}\n\n{log}"

    def _step(self) -> None:
        """Mostly one thing; now and then several at once."""
        self.steps += 1
        for _ in range(self._random.choice((1, 1, 1, 1, 2, 3, 5))):
            self._harm()

    def _harm(self) -> None:
        kinds: dict[Callable[[], str], int] = {
            self._create: 8,
            self._delete: 3,
            self._rename: 4,
            self._move_away: 4,
            self._return: 8,
            self._down: 4,
            self._up: 6,
            self._far: 4,
            self._detach: 3,
            self._foreign_on: 3,
            self._foreign_off: 5,
            self._set_mtu: 3,
            self._delete_clsact: 3,
            self._delete_entries: 3,
            self._flip: 10,
            self._spoil: 3,
            self._crash: 4,
            self._hangup: 2,
            self._restart: 1,
        }
        while True:
            kind = self._random.choices(list(kinds), list(kinds.values()))[0]
            if said := kind():
                break
        name = kind.__name__.strip("_")
        self.counts[name] = self.counts.get(name, 0) + 1
        self._history.append(f"{self.steps} {name}: {said}")

    # ------------------------------------------------------------------ who is where

    def _some(self, *where: str) -> Device | None:
        return self._pick([x for x in self._devices if x.where in where])

    def _movable(self) -> Device | None:
        return self._pick([x for x in self._devices if x.where == "host" and not x.fixed])

    def _pick(self, choice: list[T]) -> T | None:
        return self._random.choice(choice) if choice else None

    def _free_name(self) -> str:
        """No two devices have one name, wherever they are."""
        taken = {x.name for x in self._devices if x.where != "gone"}
        return self._random.choice([name for name in NAMES if name not in taken])

    def _here(self) -> dict[str, Device]:
        return {x.name: x for x in self._devices if x.where == "host"}

    # ------------------------------------------------------------------ harm: interfaces

    def _create(self) -> str:
        device = self._some("gone")
        if device is None:
            return ""
        station = self.lab.veth(self._free_name(), namespace=device.station.namespace)
        device.wire.close()
        device.station, device.wire = station, station.port()
        device.name, device.where, device.mtus = station.end, "host", {1500}
        device.foreign = None
        return device.name

    def _delete(self) -> str:
        device = self._movable()
        if device is None:
            return ""
        self.lab.delete(device.name)
        device.where, device.foreign = "gone", None
        return device.name

    def _rename(self) -> str:
        device = self._some("host")
        if device is None:
            return ""
        old, new = device.name, self._free_name()
        self.lab.batch(
            [f"link set dev {old} down", f"link set dev {old} name {new}", f"link set dev {new} up"]
        )
        device.name = new
        return f"{old} {new}"

    def _move_away(self) -> str:
        device = self._movable()
        if device is None or device.foreign:
            return ""
        there = self._random.choice(self._away)
        self.lab.ip("link", "set", "dev", device.name, "netns", there)
        device.where = there
        if self._random.random() < 0.5:
            run("ip", "link", "set", "dev", device.name, "up", namespace=there)
        return f"{device.name} to {there}"

    def _return(self) -> str:
        device = self._some(*self._away)
        if device is None:
            return ""
        run("ip", "link", "set", device.name, "netns", self.lab.host, namespace=device.where)
        device.where = "host"
        self.lab.ip("link", "set", "dev", device.name, "up")
        return device.name

    def _down(self) -> str:
        return self._admin("down")

    def _up(self) -> str:
        return self._admin("up")

    def _admin(self, state: str) -> str:
        device = self._some("host")
        if device is None:
            return ""
        self.lab.ip("link", "set", "dev", device.name, state)
        return device.name

    def _far(self) -> str:
        device = self._movable()
        if device is None:
            return ""
        state = self._random.choice(("down", "up", "up"))
        device.station.ip("link", "set", "dev", "eth0", state)
        return f"end of {device.name} {state}"

    def _set_mtu(self) -> str:
        device = self._some("host")
        if device is None:
            return ""
        mtu = self._random.choice((1400, 1500, 3000, 9000))
        self.lab.ip("link", "set", "dev", device.name, "mtu", str(mtu), check=False)
        device.mtus.add(mtu)
        return f"{device.name} {mtu}"

    # ------------------------------------------------------------------ harm: BPF

    def _detach(self) -> str:
        device = self._pick([x for x in self._here().values() if not x.foreign])
        if device is None:
            return ""
        self.lab.ip("link", "set", "dev", device.name, "xdpgeneric", "off", check=False)
        return device.name

    def _foreign_on(self) -> str:
        device = self._pick([x for x in self._here().values() if not x.foreign])
        if device is None or any(x.foreign for x in self._devices):
            return ""
        device.foreign = self._random.choice(list(self._foreign.values()))
        self.lab.ip(
            *("-force", "link", "set", "dev", device.name),
            *("xdpgeneric", "pinned", str(device.foreign)),
        )
        return device.name

    def _foreign_off(self) -> str:
        device = self._pick([x for x in self._here().values() if x.foreign])
        if device is None:
            return ""
        self.lab.ip("link", "set", "dev", device.name, "xdpgeneric", "off")
        device.foreign = None
        return device.name

    def _delete_clsact(self) -> str:
        device = self._some("host")
        if device is None:
            return ""
        self.lab.tc("qdisc", "delete", "dev", device.name, "clsact", check=False)
        return device.name

    def _delete_entries(self) -> str:
        """Of one device, so that the untouched link stays what it is."""
        device = self._some("host")
        if device is None:
            return ""
        key = self.lab.ifindex(device.name).to_bytes(4, "little")
        for path in self._wiring_maps():
            octets = [f"{octet:#04x}" for octet in key]
            run("bpftool", "map", "delete", "pinned", str(path), "key", *octets, check=False)
        return device.name

    def _wiring_maps(self) -> list[Path]:
        """Of the newest programs, and the one that all share."""
        newest = sorted(self.lab.pins.glob("programs-*/entries"))[-1:]
        return [*newest, *self.lab.pins.glob("peers-*")]

    # ------------------------------------------------------------------ harm: the daemon

    def _flip(self) -> str:
        names = self._random.sample(NAMES, len(NAMES))
        plugs = []
        while len(names) > 1 and self._random.random() < 0.9:
            a = names.pop()
            b = a if self._random.random() < 0.08 else names.pop()
            mode = self._random.choice(("auto", "auto", "auto", "generic", "tc"))
            plugs.append(Plug(a, b, mode, self._random.random() < 0.88))
        keep = self._random.randrange(len(self._plugs) + 1)  # some of the links stay
        used = {end for plug in self._plugs[:keep] for end in (plug.a, plug.b)}
        self._plugs = self._plugs[:keep] + [x for x in plugs if not used & {x.a, x.b}]
        self._random.shuffle(self._plugs)
        self._write_good()
        return " ".join(
            f"{x.a}:{x.b}{'' if x.mode == 'auto' else f'({x.mode})'}{'' if x.enabled else '-'}"
            for x in self._plugs
        )

    def _write_good(self) -> None:
        self._good, self._forgetful = True, False
        self._save("links:\n" + "".join(map(str, (UNTOUCHED, *self._plugs))))

    def _spoil(self) -> str:
        text = self._random.choice(BAD)
        if self._good and self.daemon.returncode is None:
            poll(self._is_taken, what="the good file before this one is taken")
        self._good = False
        self._save(text)
        return repr(text)

    def _is_taken(self) -> bool:
        links = self.daemon.ask("status")["links"]
        return {x["link"] for x in links} == {x.link for x in (UNTOUCHED, *self._plugs)}

    def _save(self, text: str) -> None:
        if self._random.random() < 0.5:
            self.daemon.write(text)
        else:
            self.daemon.write_in_place(text)

    def _crash(self) -> str:
        """Now and then in the middle of a change, and the world goes on without a daemon."""
        said = ""
        if self._random.random() < 0.3:
            said = f"flip {self._flip()}; "
            time.sleep(self._random.random() * 0.02)
        self.daemon.kill()
        others = [self._create, self._delete, self._rename, self._move_away, self._return]
        others += [self._down, self._up, self._set_mtu, self._detach, self._flip, self._spoil]
        others += [self._foreign_on, self._foreign_off, self._delete_clsact, self._delete_entries]
        for _ in range(self._random.choice((0, 0, 1, 2, 4))):
            kind = self._random.choice(others)
            said += f"{kind.__name__.strip('_')} {kind()}; "
        self._forgetful = not self._good
        self.daemon.start()
        return said or "nothing meanwhile"

    def _hangup(self) -> str:
        self.daemon.signal(1)
        return "SIGHUP"

    def _restart(self) -> str:
        """To keep the wires, a stop that is part of a restart is none: it is a crash here."""
        self.daemon.kill()
        for _ in range(2):  # killed early on in its start
            self.daemon.spawn()
            time.sleep(self._random.random() * 0.4)
            self.daemon.kill()
        self._forgetful = not self._good
        self.daemon.start()
        return "twice killed in its start"

    # ------------------------------------------------------------------ the invariants

    def _check(self, stream: Stream) -> None:
        started = time.monotonic()
        problems = ["not looked yet"]
        while problems and time.monotonic() - started < SETTLE:
            problems = self._problems()
        took = time.monotonic() - started
        if problems:
            raise AssertionError("\n".join(problems))
        if took > self.slowest[0]:
            self.slowest = (took, self._history[-1])
        for way in stream.ways:
            poll(lambda way=way: not way.lost, what=f"untouched link: {stream}")  # type: ignore[misc]
        if self.daemon.returncode is not None:
            raise AssertionError(f"the daemon has ended: {self.daemon.returncode}")
        self.daemon.assert_no_traceback()

    def _problems(self) -> list[str]:
        """What is not as promised at this moment."""
        try:
            seen = self.daemon.ask("status")
        except OSError as error:
            return [f"no answer: {error}"]
        links = {x["ifname"]: x for x in json.loads(self.lab.ip("-d", "-j", "link", "show"))}
        problems = list(self._wrong_states(seen, links))
        problems += self._wrong_foreigners(links)
        problems += self._wrong_programs(seen, links)
        problems += self._wrong_settings(seen, links)
        problems += self._wrong_frames(seen)
        problems += self._wrong_moved_netns(seen)
        return problems

    def _wrong_states(self, seen: dict[str, Any], links: dict[str, Any]) -> Iterator[str]:
        state = seen["config"]["state"]
        if state != ("loaded" if self._good else "rejected"):
            yield f"the file is {state}"
        told = {(x["a"]["name"], x["b"]["name"]): x for x in seen["links"]}
        if self._forgetful:
            plugs = [UNTOUCHED]
        else:
            plugs = [UNTOUCHED, *self._plugs]
            for stray in told.keys() - {(x.a, x.b) for x in plugs}:
                yield f"{stray} is no link of the file"
        for plug in plugs:
            link = told.get((plug.a, plug.b)) or told.get((plug.b, plug.a))
            if link is None:
                yield f"{plug.a}:{plug.b} is missing in status"
                continue
            allowed = self._allowed(plug, links)
            if link["state"] not in allowed:
                why = f"{link['state']} ({link['reason']})"
                yield f"{plug.a}:{plug.b} is {why}, not {' or '.join(sorted(allowed))}"

    def _allowed(self, plug: Plug, links: dict[str, Any]) -> set[str]:
        ends = [links.get(name) for name in (plug.a, plug.b)]
        if None in ends:
            return {"waiting" if plug.enabled else "disabled"}
        here = self._here()
        if any(end in here and here[end].foreign for end in (plug.a, plug.b)):
            return {"failed"}
        if not plug.enabled:
            return {"disabled"}
        up = all({"UP", "LOWER_UP"} <= set(end["flags"]) for end in ends if end)
        return {"connected" if up else "down"}

    def _wrong_foreigners(self, links: dict[str, Any]) -> Iterator[str]:
        for name, device in self._here().items():
            if device.foreign and name in links:
                shown = _program(links[name])
                wanted = json.loads(
                    run("bpftool", "-j", "prog", "show", "pinned", str(device.foreign)).stdout
                )["id"]
                if shown != wanted:
                    yield f"{name}: foreign program {wanted} is now {shown}"

    def _wrong_programs(self, seen: dict[str, Any], links: dict[str, Any]) -> Iterator[str]:
        """An end of a link that does not stand is held; another program of ours has an entry.

        An entry is the half of a pair that stands.
        """
        ours, here = self._ours(), self._here()
        held = {
            x[end]["name"]
            for x in seen["links"]
            if x["state"] in ("disabled", "waiting", "failed")
            for end in ("a", "b")
        }
        for name in held & links.keys():
            if name in here and not here[name].foreign and not self._is_silent(name):
                yield f"{name}: not held"
        maps = {path.name: dict(_entries(path)) for path in self._wiring_maps()}
        led = {key for name, found in maps.items() if name.startswith("entries") for key in found}
        for name, link in links.items():
            if _program(link) in ours and name not in held and link["ifindex"] not in led:
                yield f"{name}: our program without an entry"
        numbers = {link["ifindex"] for link in links.values()}
        for name, found in maps.items():
            for key, target in found.items():
                if found.get(target) != key:
                    yield f"{name}: {key} leads to {target}, that to {found.get(target)}"
                if key not in numbers:
                    yield f"{name}: {key} leads to {target}, and is the number of no interface"

    def _is_silent(self, name: str) -> bool:
        return "xconnectd" in self.lab.tc("filter", "show", "dev", name, "egress")

    def _wrong_settings(self, seen: dict[str, Any], links: dict[str, Any]) -> Iterator[str]:
        """What somebody set is what is put back: as found where no link stands, else in status."""
        told = {
            link[end]["name"]: link[end]["mtu"]
            for link in seen["links"]
            for end in ("a", "b")
            if link[end]["mtu"] is not None
        }
        for name, device in self._here().items():
            mtu = told.get(name, links[name]["mtu"]) if name in links else None
            if mtu is not None and mtu not in device.mtus:
                yield f"{name}: mtu {mtu}, never set by anybody ({device.mtus})"

    def _ours(self) -> set[int]:
        path = self.daemon.socket_path().with_name("programs")
        return set(json.loads(path.read_text()))

    def _wrong_frames(self, seen: dict[str, Any]) -> Iterator[str]:
        """Frames go where status says, and nowhere else."""
        here = self._here()
        leads: dict[str, str] = {}
        for link in seen["links"]:
            if link["state"] == "connected":
                a, b = link["a"]["name"], link["b"]["name"]
                leads |= {a: b, b: a}
        senders = [x for x in self._devices if x.where != "gone"]
        wanted = {
            (x.name, y.name)
            for x in senders
            if x.where == "host" and (y := here.get(leads.get(x.name, "")))
        }
        came = self._probe(senders, wanted)
        for one, other in sorted(wanted - came):
            yield f"no frame from {one} to {other}, which are said to be connected"
        for one, other in sorted(came - wanted):
            yield f"a frame from {one} to {other}, which are not said to be connected"

    def _probe(self, devices: list[Device], wanted: set[tuple[str, str]]) -> set[tuple[str, str]]:
        """Every device sends one frame; returns who got whose."""
        marks: dict[bytes, str] = {}
        for device in devices:
            _drained(device.wire)
        for device in devices:
            mark = os.urandom(16)
            marks[mark] = device.name
            frame = b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x88\xb6" + mark + bytes(30)
            try:
                device.wire.send(frame)
            except OSError:
                continue  # down, or without carrier
        came: set[tuple[str, str]] = set()
        for look, _ in enumerate(looks(0.3)):
            for device in devices:
                for frame in _drained(device.wire):
                    if sender := marks.get(frame[14:30]):
                        came.add((sender, device.name))
            if look >= 10 and wanted <= came:
                break
        return came

    def _wrong_moved_netns(self, seen: dict[str, Any]) -> Iterator[str]:
        """Whoever left with our program is named."""
        ours = self._ours()
        told = {x["remedy"] for x in seen["moved_netns"]}
        for namespace in self._away:
            shown = json.loads(run("ip", "-d", "-j", "link", "show", namespace=namespace).stdout)
            for link in shown:
                if _program(link) not in ours:
                    continue
                if not any(namespace in x and link["ifname"] in x for x in told):
                    yield f"{link['ifname']} is in {namespace} with our program: {told}"

    # ------------------------------------------------------------------ the end

    def _compare(self, stream: Stream) -> None:
        """What the command says, which reads the kernel, is what the daemon says."""
        self.steps += 1
        self._history.append(f"{self.steps} compare: {self._flip()}")
        self._check(stream)
        started = time.monotonic()
        while problems := list(self._contradictions()):  # it may change between the two looks
            if time.monotonic() - started > SETTLE:
                break
        if problems:
            raise AssertionError("\n".join(problems))

    def _contradictions(self) -> Iterator[str]:
        shown, told = self.daemon.status(), self.daemon.ask("status")
        states = [{x["link"]: x["state"] for x in y["links"]} for y in (shown, told)]
        if states[0] != states[1]:
            yield f"status says {states[0]}, the daemon {states[1]}"
        if shown["differences"] and "drift.flapping" not in self.daemon.text():
            yield f"differences: {shown['differences']}"

    def _finish(self) -> None:
        self._history.append("stop")
        self.daemon.stop()
        problems = list(self._left())
        if problems:
            raise AssertionError("after the stop: " + "\n".join(problems))

    def _left(self) -> Iterator[str]:
        if self._untouched() != self._before:
            yield f"the untouched ends: {self._untouched()}, not {self._before}"
        if self.lab.pins.exists():
            yield f"pins: {[*self.lab.pins.rglob('*')]}"
        links = {x["ifname"]: x for x in json.loads(self.lab.ip("-d", "-j", "link", "show"))}
        for name, device in self._here().items():
            link = links[name]
            if bool(link.get("xdp")) != bool(device.foreign):
                yield f"{name}: program {link.get('xdp')}"
            if link["mtu"] not in device.mtus:
                yield f"{name}: mtu {link['mtu']}, never set by anybody ({device.mtus})"
            if link["inet6_addr_gen_mode"] != "eui64":
                yield f"{name}: addr_gen_mode {link['inet6_addr_gen_mode']}"
            if link["promiscuity"]:
                yield f"{name}: promiscuous"
            if "clsact" in self.lab.tc("qdisc", "show", "dev", name):
                yield f"{name}: clsact"
        came = self._probe([x for x in self._devices if x.where != "gone"], set())
        if came:
            yield f"frames cross: {came}"

    def _untouched(self) -> dict[str, Any]:
        ends = ("ua", "ub")
        links = {name: self.lab.link(name) for name in ends}
        qdiscs = [self.lab.tc("qdisc", "show", "dev", name) for name in ends]
        return {"links": links, "qdiscs": qdiscs}


def _program(link: dict[str, Any]) -> int | None:
    found: int | None = link.get("xdp", {}).get("prog", {}).get("id")
    return found


def _entries(path: Path) -> Iterator[tuple[int, int]]:
    """What a wiring map holds; who asks ``bpftool`` for a map that grows may meet an error."""
    for entry in json.loads(run("bpftool", "-j", "map", "dump", "pinned", str(path)).stdout):
        if "error" not in entry.get("value", {}):
            key, value = (bytes(int(x, 16) for x in entry[k][:4]) for k in ("key", "value"))
            yield int.from_bytes(key, "little"), int.from_bytes(value, "little")


def _drained(wire: Wire) -> list[bytes]:
    try:
        return wire.drain()
    except OSError:  # its interface has gone, or is down
        return []
