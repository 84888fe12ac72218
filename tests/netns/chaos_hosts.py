"""Chaos over three hosts: files that differ, an underlay that loses, daemons that come and go.

What is done depends on the seed alone. What is expected comes from the book-keeping here: a link
stands when both hosts run a daemon with the same wiring for it, the underlay between them is whole
both ways, and both containers are up. Then frames cross as the link says; else none does, in either
direction.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from .carrier import Card
from .chaos import FEWEST
from .hosts_lab import Hosts
from .lab import Station
from .traffic import Stream, Wire, looks, wait_flows

ENDS: Final = ("a", "b", "c", "d")
SETTLE: Final = 30.0
"""Seconds until all must be right; most steps take less than one."""
HOLD: Final = "1s"
_UNTOUCHED: Final = ("h3/ua", "h3/ub")
_KEYS: Final = ("", "", "1" * 16, "2" * 16)


@dataclass(frozen=True)
class Plug:
    """A link of the file."""

    a: str
    b: str
    one_way: bool = False
    rewrite: str = "none"
    vni: int = 0

    @property
    def hosts(self) -> tuple[str, str]:
        return self.a[:2], self.b[:2]

    @property
    def crosses(self) -> bool:
        return len({*self.hosts}) == 2

    @property
    def ways(self) -> tuple[tuple[str, str], ...]:
        """From where to where frames cross."""
        return ((self.a, self.b), (self.b, self.a))[: 1 if self.one_way else 2]

    @property
    def as_document(self) -> dict[str, Any]:
        said: dict[str, Any] = {"to": self.b, "one_way": self.one_way, "rewrite": self.rewrite}
        return said | ({"vni": self.vni} if self.vni else {})


@dataclass(frozen=True)
class File:
    """One version of what is given to every host in the end."""

    plugs: tuple[Plug, ...] = ()
    key: str = ""


@dataclass
class Container:
    """What is behind an end. ``is_there``: its veth is."""

    station: Station
    wire: Wire
    card: Card
    is_there: bool = True
    is_up: bool = True


@dataclass
class Member:
    """A host: the file it was given last, and whether its daemon runs, is dead, or was stopped.

    One of ``seen`` is what its kernel does, as long as no daemon has read another one.
    """

    file: File = field(default_factory=File)
    daemon: str = "runs"
    seen: tuple[File, ...] = ()


class ChaosError(AssertionError):
    """An invariant is broken; the text says which, when, and how to see it again."""


class ChaosOfHosts:
    """One run. ``run`` raises ``ChaosError`` at the first broken invariant.

    It takes half of ``seconds``: most of what happens here is waiting for what is far away.
    """

    def __init__(self, hosts: Hosts, seed: int, seconds: float) -> None:
        self.hosts = hosts
        self.seed = seed
        self.seconds = seconds
        self.steps = 0
        self.slowest = (0.0, "")
        self._counts: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._history: list[str] = []
        self._file = File()
        self._members = {name: Member() for name in ("h1", "h2", "h3")}
        self._unplugged: set[str] = set()
        self._containers: dict[str, Container] = {}
        for name in self._members:
            for end in ENDS:
                self._containers[f"{name}/{end}"] = self._plugged(hosts[name].veth(end))
        self._untouched = hosts["h3"].veth("ua"), hosts["h3"].veth("ub")

    def run(self) -> None:
        self._edit()
        for name in self._members:
            self._give(name)
            self.hosts[name].daemon.spawn()
        for name in self._members:
            self.hosts[name].daemon.wait_event("daemon.ready")
        deadline = time.monotonic() + self.seconds / 2
        try:
            with Stream(*self._untouched, rate=200) as stream:
                wait_flows(stream)
                while time.monotonic() < deadline or self.steps < FEWEST:
                    self._step()
                    self._check()
                self._make_whole()
                self._check()
            stream.assert_perfect()
            self._stop_all()
        except AssertionError as error:
            raise ChaosError(self._story(str(error))) from None
        finally:
            for each in self._containers.values():
                _close(each)

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self._counts.items()))
        slowest = f"slowest to settle: {self.slowest[0]:.2f} s, {self.slowest[1]}"
        return f"seed {self.seed}: {self.steps} steps ({kinds}); {slowest}"

    def _story(self, problem: str) -> str:
        again = f"make chaos SECONDS={self.seconds:g} SEED={self.seed}"
        logs = (
            f"{name} ({member.daemon})\n"
            + "\n".join(self.hosts[name].daemon.text().splitlines()[-15:])
            for name, member in self._members.items()
        )
        history = "\n".join(self._history[-25:])
        return "\n\n".join((problem, f"step {self.steps}, {again}\n{history}", *logs))

    # ------------------------------------------------------------------ harms

    def _step(self) -> None:
        """Mostly one thing; now and then several at once."""
        self.steps += 1
        for _ in range(self._random.choice((1, 1, 1, 2, 3, 5))):
            harms = self._harms()
            kinds = list(harms)
            name = self._random.choices(kinds, [harms[kind][0] for kind in kinds])[0]
            said = harms[name][1]()
            self._counts[name] += 1
            self._history.append(f"{self.steps} {name}: {said}")

    def _harms(self) -> dict[str, tuple[int, Callable[[], str]]]:
        """How often, and what; only what can be done now."""
        found: dict[str, tuple[int, Callable[[], str]]] = {
            "edit here": (5, self._edit_some),
            "edit": (8, self._edit_all),
            "partition": (3, lambda: self._lose(both=True)),
            "loss": (3, lambda: self._lose(both=False)),
            "far": (8, self._far),
            "delete": (3, self._delete),
        }
        if any(member.file != self._file for member in self._members.values()):
            found["deliver"] = (10, self._deliver)
        if self.hosts.lost:
            found["mend"] = (10, self._mend)
        found["cable"] = (8, self._plug_in) if self._unplugged else (2, self._unplug)
        if any(not each.is_there for each in self._containers.values()):
            found["create"] = (10, self._create)
        if self._of("runs"):
            found["kill"] = (4, self._kill)
            found["crash"] = (4, self._crash)
            found["stall"] = (2, self._stall)
        if {"h1", "h2"} & {*self._of("runs")}:
            found["stop"] = (2, self._stop)
        if self._of("dead", "stopped"):
            found["start"] = (14, self._start)
        return found

    def _of(self, *states: str) -> list[str]:
        return [name for name, member in self._members.items() if member.daemon in states]

    def _edit(self) -> str:
        """Another file, which nobody has yet; some of the links stay."""
        ends = list(self._containers)
        self._random.shuffle(ends)
        kept = [x for x in self._file.plugs if self._random.random() < 0.5]
        used = {end for plug in kept for end in (plug.a, plug.b)}
        ends = [end for end in ends if end not in used]
        plugs = list(kept)
        while len(ends) > 1 and self._random.random() < 0.9:
            one_way = self._random.random() < 0.15
            rewrite = self._random.choice(("none", "none", "none", "swap-macs"))
            vni = self._random.choice((0, 0, 0, 1, 2, 3))
            a, b = ends.pop(), ends.pop()
            if not one_way:
                a, b = sorted((a, b))  # one that is turned round is the same link
            plugs.append(Plug(a, b, one_way, rewrite, vni))
        plugs = [*_with_unique_vnis(plugs)]
        key = self._random.choice(_KEYS) if self._random.random() < 0.2 else self._file.key
        self._file = File(tuple(plugs), key)
        return f"{len(plugs)} links, key {key!r}"

    def _edit_all(self) -> str:
        said = self._edit()
        for name in self._members:
            self._give(name)
        return said

    def _edit_some(self) -> str:
        said = self._edit()
        names = self._random.sample(list(self._members), self._random.choice((1, 2)))
        for name in names:
            self._give(name)
        return f"{said}, for {names}"

    def _deliver(self) -> str:
        names = [name for name, member in self._members.items() if member.file != self._file]
        for name in names:
            self._give(name)
        return str(names)

    def _give(self, name: str) -> None:
        """The newest file."""
        member = self._members[name]
        member.file = self._file
        if member.daemon == "runs":
            member.seen += (self._file,)
        links = {plug.a: plug.as_document for plug in self._file.plugs}
        more: dict[str, Any] = {"hosts_key": self._file.key} if self._file.key else {}
        links[_UNTOUCHED[0]] = {"to": _UNTOUCHED[1]}
        text = self.hosts.document(links, defaults={"hold": HOLD}, **more)
        self.hosts.write(text, name)

    def _lose(self, *, both: bool) -> str:
        one, other = self._random.sample(list(self._members), 2)
        self.hosts.lose(one, other)
        if both:
            self.hosts.lose(other, one)
        return f"{one} {'and' if both else 'to'} {other}"

    def _mend(self) -> str:
        ways = sorted(self.hosts.lost)
        if self._random.random() < 0.5:
            ways = self._random.sample(ways, 1)
        self.hosts.mend(*ways)
        return str(ways)

    def _unplug(self) -> str:
        name = self._random.choice(list(self._members))
        self.hosts.set_cable(name, "down")
        self._unplugged.add(name)
        return name

    def _plug_in(self) -> str:
        name = self._random.choice(sorted(self._unplugged))
        self.hosts.set_cable(name, "up")
        self._unplugged.remove(name)
        return name

    def _far(self) -> str:
        end = self._random.choice([x for x, each in self._containers.items() if each.is_there])
        container = self._containers[end]
        container.is_up = self._random.choice((True, True, False))
        container.card.set(up=container.is_up)
        return f"{end} {'up' if container.is_up else 'down'}"

    def _delete(self) -> str:
        end = self._random.choice([x for x, each in self._containers.items() if each.is_there])
        self.hosts[end[:2]].lab.delete(end[3:])
        self._containers[end].is_there = False
        return end

    def _create(self) -> str:
        end = self._random.choice([x for x, each in self._containers.items() if not each.is_there])
        before = self._containers[end]
        _close(before)
        station = self.hosts[end[:2]].veth(end[3:], namespace=before.station.namespace)
        self._containers[end] = self._plugged(station)
        return end

    @staticmethod
    def _plugged(station: Station) -> Container:
        return Container(station, station.port(), Card(station.namespace, "eth0"))

    def _kill(self) -> str:
        name = self._random.choice(self._of("runs"))
        self.hosts[name].daemon.kill()
        self._members[name].daemon = "dead"
        return name

    def _crash(self) -> str:
        name = self._random.choice(self._of("runs"))
        self.hosts[name].daemon.crash()
        return name

    def _stall(self) -> str:
        """It gets no processor for a while."""
        name = self._random.choice(self._of("runs"))
        self.hosts[name].daemon.signal(signal.SIGSTOP)
        time.sleep(self._random.random())
        self.hosts[name].daemon.signal(signal.SIGCONT)
        return name

    def _stop(self) -> str:
        """Not h3's, whose own link is never to lose a frame."""
        name = self._random.choice([x for x in self._of("runs") if x != "h3"])
        self.hosts[name].daemon.stop()
        self._members[name].daemon = "stopped"
        return name

    def _start(self) -> str:
        name = self._random.choice(self._of("dead", "stopped"))
        self.hosts[name].daemon.start()
        member = self._members[name]
        member.daemon = "runs"
        member.seen += (member.file,)
        return name

    def _make_whole(self) -> None:
        """All that was broken is mended: every link of the file has to stand in the end."""
        self.steps += 1
        self._history.append(f"{self.steps} all is made whole")
        self.hosts.mend()
        for name in sorted(self._unplugged):
            self.hosts.set_cable(name, "up")
        self._unplugged.clear()
        while any(not each.is_there for each in self._containers.values()):
            self._create()
        for each in self._containers.values():
            each.card.set(up=True)
            each.is_up = True
        while self._of("dead", "stopped"):
            self._start()
        self._deliver()

    # ------------------------------------------------------------------ invariants

    def _check(self) -> None:
        started = time.monotonic()
        while (found := self._problems()) and time.monotonic() - started < SETTLE:
            pass
        assert not found, "\n".join(found)
        self.slowest = max(self.slowest, (time.monotonic() - started, self._history[-1]))
        for name in self._of("runs"):
            daemon = self.hosts[name].daemon
            assert daemon.returncode is None, f"{name} has ended: {daemon.returncode}"
            daemon.assert_no_traceback()
            self._members[name].seen = (self._members[name].file,)

    def _problems(self) -> list[str]:
        return [*self._wrong_states(), *self._wrong_carriers(), *self._wrong_frames()]

    def _plugs(self) -> dict[Plug, bool]:
        """Every link that a daemon has now, and whether it is to stand."""
        members = self._members.items()
        files = {name: x.file for name, x in members if x.daemon == "runs"}
        plugs = {x for file in files.values() for x in file.plugs}
        mine = {x for x in plugs if any(x in files[h].plugs for h in x.hosts if h in files)}
        return {plug: self._stands(plug, files) for plug in mine}

    def _stands(self, plug: Plug, files: Mapping[str, File]) -> bool:
        one, other = plug.hosts
        if not all(host in files and plug in files[host].plugs for host in (one, other)):
            return False
        if plug.crosses:
            if files[one].key != files[other].key or {one, other} & self._unplugged:
                return False
            if {(one, other), (other, one)} & self.hosts.lost:
                return False
        ends = [self._containers[end] for end in (plug.a, plug.b)]
        return all(end.is_there and end.is_up for end in ends)

    def _wrong_states(self) -> Iterator[str]:
        plugs = self._plugs()
        for name in self._of("runs"):
            try:
                told = self.hosts[name].daemon.ask("status")["links"]
            except OSError as error:
                yield f"{name}: no answer: {error}"
                continue
            links = {frozenset((x["a"]["name"], x["b"]["name"])): x for x in told}
            file = self._members[name].file
            asked = {frozenset((x.a, x.b)): x for x in file.plugs if name in x.hosts}
            for stray in links.keys() - asked.keys() - {frozenset(_UNTOUCHED)}:
                yield f"{name}: {sorted(stray)} is no link of its file"
            for ends, plug in asked.items():
                link = links.get(ends)
                if link is None:
                    yield f"{name}: {plug} is missing in status"
                elif (link["state"] == "connected") != plugs[plug]:
                    stands = "stands" if plugs[plug] else "does not"
                    yield f"{name}: {plug} {stands}, told {link['state']} ({link['reason']})"

    def _wrong_carriers(self) -> Iterator[str]:
        """A container whose own end is up has a carrier when its link stands, and else none."""
        running = {*self._of("runs")}
        for plug, stands in self._plugs().items():
            for end in (plug.a, plug.b):
                container = self._containers[end]
                if end[:2] not in running or plug not in self._members[end[:2]].file.plugs:
                    continue
                if container.is_there and container.is_up and container.card.carrier != stands:
                    yield f"{end} has carrier {not stands}, and {plug}: {stands}"

    def _wrong_frames(self) -> Iterator[str]:
        plugs = self._plugs()
        wanted = {
            way: plug.rewrite == "swap-macs"
            for plug, stands in plugs.items()
            if stands
            for way in plug.ways
        }
        found = self._probe(wanted)
        for one, other in sorted(wanted.keys() - found.keys()):
            yield f"no frame from {one} to {other}"
        for way, swapped in sorted(found.items()):
            if way in wanted and wanted[way] != swapped:
                yield f"the MACs of a frame from {way[0]} to {way[1]} are swapped: {swapped}"
            elif way not in wanted and not self._may_stand(way):
                yield f"a frame from {way[0]} to {way[1]}"

    def _may_stand(self, way: tuple[str, str]) -> bool:
        """What a kernel without a daemon goes on to do.

        Where none is left on either side the wires stay as they were last. And what it sends into a
        tunnel comes out of the one that has the same VNI by now, if that stands: a VXLAN device
        takes it from any address (docs/hosts.md, "Changing the file").
        """
        one, other = way
        sender = self._members[one[:2]]
        if sender.daemon != "dead":
            return False
        if self._members[other[:2]].daemon == "dead":
            return True
        sent = {
            plug.vni
            for file in sender.seen
            for plug in file.plugs
            for source, target in plug.ways
            if plug.vni and source == one and target[:2] == other[:2]
        }
        taken = {
            plug.vni
            for plug, stands in self._plugs().items()
            for _, target in plug.ways
            if stands and target == other
        }
        return not sent.isdisjoint(taken)

    def _probe(self, wanted: Mapping[tuple[str, str], bool]) -> dict[tuple[str, str], bool]:
        """Every container sends a frame; returns who got whose, and whether with MACs swapped."""
        wires = {end: x.wire for end, x in self._containers.items() if x.is_there and x.is_up}
        marks = {os.urandom(16): end for end in wires}
        for wire in wires.values():
            _drained(wire)
        for mark, end in marks.items():
            with suppress(OSError):  # without carrier
                frame = b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x88\xb6" + mark + bytes(30)
                wires[end].send(frame)
        came: dict[tuple[str, str], bool] = {}
        for look, _ in enumerate(looks(0.3)):
            for end, wire in wires.items():
                for frame in _drained(wire):
                    if sender := marks.get(frame[14:30]):
                        came[sender, end] = frame[6:12] == b"\xff" * 6
            if look >= 10 and wanted.keys() <= came.keys():
                break
        return came

    def _stop_all(self) -> None:
        """Nothing of ours is left on any host, and nothing crosses."""
        for name in self._of("runs"):
            self.hosts[name].daemon.stop()
            lab = self.hosts[name].lab
            own = {x[3:] for x in self._containers if x[:2] == name} | {"ua", "ub", "under0"}
            assert {*lab.interfaces()} <= own, f"{name}: {lab.interfaces()}"
            assert not lab.pins.exists(), f"{name}: {[*lab.pins.rglob('*')]}"
            self._members[name].daemon = "stopped"
        assert not (came := self._probe({})), f"frames cross: {came.keys()}"


def _with_unique_vnis(plugs: Sequence[Plug]) -> Iterator[Plug]:
    """What does not cross has none; of two links with one, the first keeps it."""
    taken = {0}
    for plug in plugs:
        is_to_have_one = plug.crosses and plug.vni not in taken
        taken.add(plug.vni)
        yield plug if is_to_have_one else replace(plug, vni=0)


def _close(container: Container) -> None:
    container.wire.close()
    container.card.close()


def _drained(wire: Wire) -> list[bytes]:
    with suppress(OSError):  # its interface has gone, or is down
        return wire.drain()
    return []
