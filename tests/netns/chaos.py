"""A chaos run: random harm to a lab, the contract's invariants checked with frames after each step.

What is done depends on the seed alone, so that a run can be played again. What is expected comes
from the chaos's own book-keeping and from the kernel, never from the daemon.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from .carrier import Card
from .chaos_nodes import NodeEnd, Nodes
from .lab import PROG_XDP, XDP_PASS, Lab, Station, delete_entry, entries, poll, run
from .service import Daemon
from .traffic import Stream, Wire, looks, wait_flows

DEVICES: Final = 7
NAMES: Final = [f"n{n}" for n in range(DEVICES + 3)]
FEWEST: Final = 12
"""Steps, however long a busy machine takes for them: fewer say nothing."""
SETTLE: Final = 20.0
"""Seconds until all must be right. Most steps take a tenth of one; machines are shared."""
BAD: Final = (
    "",
    "# nothing\n",
    "links:\n  n0: [n1\n",
    "link:\n  n0: n1\n",
    "links:\n  n0: n1\n  n0: n2\n",
    "links:\n  n0: n1\n  n2: n1\n",
    "links:\n  n0: {to: n1, colour: red}\n",
)


DROP: Final = "ether proto 0x88b6"
"""A filter that matches all that the chaos sends."""


class ChaosError(AssertionError):
    """An invariant is broken; the text says which, when, and how to see it again."""


@dataclass
class Device:
    """An interface of the host with its station, and what was done to it.

    ``far`` is the station's end, None for a tap. ``set_to`` is what somebody set it to last, "up"
    or "down", for as long as that may count. What ``was_down`` may have been found so.
    """

    station: Station
    wire: Wire
    name: str
    where: str = "host"
    foreign: Path | None = None
    mtus: set[int] = field(default_factory=lambda: {1500})
    far: Card | None = None
    set_to: str = ""
    was_down: bool = False


@dataclass(frozen=True)
class Plug:
    """A link of the file. With ``drops`` what the chaos sends is dropped on its way to ``b``."""

    a: str
    b: str
    mode: str = "auto"
    enabled: bool = True
    mtu: int = 1500
    one_way: bool = False
    rewrite: str = "none"
    drops: bool = False
    rate: int = 0
    """Mbit/s both ways, 0 for a wire that is not impaired."""

    @property
    def link(self) -> str:
        return ("," if ":" in self.a + self.b else ":").join(sorted((self.a, self.b)))

    def __str__(self) -> str:
        enabled = str(self.enabled).lower()
        more = f", mtu: {self.mtu}" if self.mtu != 1500 else ""
        more += ", one_way: true" if self.one_way else ""
        more += f", rewrite: {self.rewrite}" if self.rewrite != "none" else ""
        more += self._impair
        return f"  {self.a}: {{to: {self.b}, mode: {self.mode}, enabled: {enabled}{more}}}\n"

    @property
    def _impair(self) -> str:
        rate = f"rate: {self.rate}mbit" if self.rate else ""
        if not self.drops:
            return f", impair: {{{rate}}}" if rate else ""
        forward = ", ".join(filter(None, (f'drop: "{DROP}"', rate)))
        return f", impair: {{forward: {{{forward}}}, reverse: {{{rate}}}}}"


UNTOUCHED: Final = Plug("ua", "ub")
_WAYS: Final = ("ab", "ba")
Harm = tuple[int, Sequence[Any] | None, Callable[..., str]]
"""How often, to whom (None: to the daemon or its file), and what; it returns what it has done."""


class Chaos:
    """One run on a lab of its own. ``run`` raises ``ChaosError`` at the first broken invariant."""

    def __init__(self, lab: Lab, seed: int, seconds: float) -> None:
        self.lab = lab
        self.seed = seed
        self.seconds = seconds
        self.steps = 0
        self.slowest = (0.0, "")
        self._counts: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._history: list[str] = []
        self._plugs: list[Plug] = []
        self._good = self._at_rest = True
        self._forgetful = False
        lab.hush()
        self._away = [lab.namespace(name, quiet=True) for name in ("away1", "away2")]
        *names, tap = NAMES[:DEVICES]
        stations = lab.veths(*names)
        self._devices = [
            Device(each, each.port(), each.end, far=Card(each.namespace, "eth0"))
            for each in stations
        ]
        self._devices.append(Device(Station(lab.host, tap, interface=""), lab.tap(tap), tap))
        lab.on_close(lambda: [device.wire.close() for device in self._devices])
        lab.on_close(lambda: [device.far.close() for device in self._devices if device.far])
        self._nodes = Nodes(lab, self._random)
        self._ends = lab.veth("ua"), lab.veth("ub")
        poll(lambda: all(lab.link(x.end)["operstate"] == "UP" for x in self._ends), what="carrier")
        self._before = self._untouched()
        self.daemon = Daemon(lab, None)
        self._foreign = [lab.program(PROG_XDP, XDP_PASS, f"foreign{n}") for n in range(2)]

    def run(self) -> None:
        self._write_good()
        self.daemon.start()
        deadline = time.monotonic() + self.seconds
        try:
            with Stream(*self._ends, rate=500) as stream:
                wait_flows(stream)
                while time.monotonic() < deadline or self.steps < FEWEST:
                    self._step()
                    self._check(stream)
                self._compare(stream)
            stream.assert_perfect()
            self._history.append("stop")
            self.daemon.stop()
            self._settle(lambda: [*self._left()], within=0)
        except AssertionError as error:
            raise ChaosError(self._story(str(error))) from None

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self._counts.items()))
        slowest = f"slowest to settle: {self.slowest[0]:.2f} s, {self.slowest[1]}"
        return f"seed {self.seed}: {self.steps} steps ({kinds}); {slowest}"

    def _story(self, problem: str) -> str:
        log = "\n".join(self.daemon.text().splitlines()[-40:])
        again = f"make chaos SECONDS={self.seconds:g} SEED={self.seed}"
        history = "\n".join(self._history[-25:])
        return f"{problem}\n\nstep {self.steps}, {again}\n{history}\n\n{log}"

    def _settle(self, look: Callable[[], list[str]], within: float = SETTLE) -> float:
        """Look until there is no problem; returns the seconds that it took."""
        started = time.monotonic()
        while (problems := look()) and time.monotonic() - started < within:
            pass
        assert not problems, "\n".join(problems)
        return time.monotonic() - started

    def _step(self) -> None:
        """Mostly one thing; now and then several at once."""
        self.steps += 1
        for number in range(self._random.choice((1, 1, 1, 1, 2, 3, 5))):
            self._at_rest = number == 0
            while not (done := self._do(self._harms() | self._harms_to_the_daemon())):
                pass
            self._counts[done.partition(":")[0]] += 1
            self._history.append(f"{self.steps} {done}")

    def _do(self, harms: dict[str, Harm]) -> str:
        """One of them: its name and what it has done; empty, where nobody is there to suffer it."""
        name = self._random.choices(list(harms), [weight for weight, *_ in harms.values()])[0]
        _, devices, act = harms[name]
        if devices is None:
            return f"{name}: {act()}"
        return f"{name}: {act(self._random.choice(devices))}" if devices else ""

    def _harms(self) -> dict[str, Harm]:
        """To interfaces, and to what is on them."""
        here = [x for x in self._devices if x.where == "host"]
        # A tap lives as long as its process holds it: it is not deleted, and does not move.
        movable = [x for x in here if x.station.interface]
        plain, foreign = ([x for x in here if bool(x.foreign) is one] for one in (False, True))
        taken = any(x.foreign for x in self._devices)
        return {
            "create": (8, [x for x in self._devices if x.where == "gone"], self._create),
            "delete": (3, movable, self._delete),
            "rename": (4, here, self._rename),
            "move away": (4, [x for x in movable if not x.foreign], self._move_away),
            "return": (8, [x for x in self._devices if x.where in self._away], self._return),
            "down": (4, here, lambda x: self._set(x, "down")),
            "up": (6, here, lambda x: self._set(x, "up")),
            "far": (12, movable, self._far),
            "detach": (3, plain, lambda x: self._set(x, "xdpgeneric off")),
            "foreign on": (3, [] if taken else plain, self._foreign_on),
            "foreign off": (5, foreign, self._foreign_off),
            "mtu": (3, here, self._set_mtu),
            "clsact": (3, here, self._delete_clsact),
            "entries": (3, here, self._delete_entries),
            "queue": (3, here, self._delete_queue),
            **self._nodes.harms(),
        }

    def _harms_to_the_daemon(self) -> dict[str, Harm]:
        return {
            "flip": (10, None, self._flip),
            "spoil": (3, None, self._spoil),
            "crash": (4, None, self._crash),
            "hangup": (2, None, lambda: str(self.daemon.signal(1))),
            "restart": (1, None, self._restart),
        }

    def _free_name(self) -> str:
        """No two devices have one name, wherever they are."""
        taken = {x.name for x in self._devices if x.where != "gone"}
        return self._random.choice([name for name in NAMES if name not in taken])

    def _here(self) -> dict[str, Device | NodeEnd]:
        return {x.name: x for x in self._devices if x.where == "host"} | self._nodes.here

    def _create(self, device: Device) -> str:
        station = self.lab.veth(self._free_name(), namespace=device.station.namespace)
        device.wire.close()
        device.station, device.wire = station, station.port()
        device.name, device.where, device.mtus = station.end, "host", {1500}
        device.set_to, device.was_down = "", True
        return device.name

    def _delete(self, device: Device) -> str:
        self.lab.delete(device.name)
        device.where, device.foreign = "gone", None
        return device.name

    def _rename(self, device: Device) -> str:
        old, new = device.name, self._free_name()
        self._note_admin(device, "up")
        self.lab.batch([f"link set {old} down", f"link set {old} name {new}", f"link set {new} up"])
        device.name = new
        return f"{old} {new}"

    def _move_away(self, device: Device) -> str:
        self._note_admin(device, "up")  # on its return
        device.where = self._random.choice(self._away)
        self.lab.move(device.where, device.name)
        if self._random.random() < 0.5:
            run("ip", "link", "set", "dev", device.name, "up", namespace=device.where)
        return f"{device.name} to {device.where}"

    def _return(self, device: Device) -> str:
        self.lab.bring_back(device.where, device.name)
        device.where = "host"
        return device.name

    def _set(self, device: Device, what: str) -> str:
        if what in ("up", "down"):
            self._note_admin(device, what)
        self.lab.ip(f"link set dev {device.name} {what}", check=False)
        return f"{device.name} {what}"

    def _note_admin(self, device: Device, what: str) -> None:
        """Somebody will set it up or down; to what it is already it is set by nobody.

        While the daemon is still at what was done before, it may be otherwise by then.
        """
        is_up = "UP" in self.lab.link(device.name)["flags"]
        if is_up != (what == "up") or not self._at_rest:
            device.set_to = what
        device.was_down = True

    def _far(self, device: Device) -> str:
        state = self._random.choice(("down", "up", "up"))
        device.station.ip(f"link set dev eth0 {state}")
        return f"end of {device.name} {state}"

    def _set_mtu(self, device: Device) -> str:
        mtu = self._random.choice((1400, 1500, 3000, 9000))
        device.mtus.add(mtu)
        return self._set(device, f"mtu {mtu}")

    def _foreign_on(self, device: Device) -> str:
        device.foreign = self._random.choice(self._foreign)
        self.lab.ip(f"-force link set dev {device.name} xdpgeneric pinned {device.foreign}")
        return device.name

    def _foreign_off(self, device: Device) -> str:
        self.lab.ip(f"link set dev {device.name} xdpgeneric off")
        device.foreign = None
        return device.name

    def _delete_clsact(self, device: Device) -> str:
        self.lab.tc(f"qdisc delete dev {device.name} clsact", check=False)
        return device.name

    def _delete_queue(self, device: Device) -> str:
        self.lab.tc(f"qdisc delete dev {device.name} root", check=False)
        return device.name

    def _delete_entries(self, device: Device) -> str:
        """Of one device, so that the untouched link stays what it is."""
        for path in self.lab.wiring_maps():
            delete_entry(path, self.lab.ifindex(device.name))
        return device.name

    def _flip(self) -> str:
        names = [*NAMES, *self._nodes.ends]
        self._random.shuffle(names)
        plugs = []
        while len(names) > 1 and self._random.random() < 0.9:
            a = names.pop()
            b = a if self._random.random() < 0.08 else names.pop()
            mode = self._random.choice(("auto", "auto", "auto", "generic", "tc"))
            enabled = self._random.random() < 0.88
            mtu = self._random.choice((1500, 1500, 9000)) if ":" in a + b else 1500
            one_way = a != b and self._random.random() < 0.15
            rewrite = self._random.choice(("none", "none", "none", "swap-macs"))
            drops = a != b and mode != "generic" and self._random.random() < 0.15
            rate = self._random.choice((0, 0, 0, 50, 100)) if mode != "generic" else 0
            plugs.append(Plug(a, b, mode, enabled, mtu, one_way, rewrite, drops, rate))
        keep = self._random.randrange(len(self._plugs) + 1)  # some of the links stay
        used = {end for plug in self._plugs[:keep] for end in (plug.a, plug.b)}
        self._plugs = self._plugs[:keep] + [x for x in plugs if not used & {x.a, x.b}]
        self._random.shuffle(self._plugs)
        self._write_good()
        return "".join(map(str, self._plugs))

    def _write_good(self) -> None:
        self._good, self._forgetful = True, False
        links = "".join(map(str, (UNTOUCHED, *self._plugs)))
        self._save(f"{self._nodes.section()}links:\n{links}")

    def _spoil(self) -> str:
        text = self._random.choice(BAD)
        if self._good and self.daemon.returncode is None:
            poll(self._is_taken, what="the good file before this one is taken")
        self._good = False
        self._save(text)
        return repr(text)

    def _is_taken(self) -> bool:
        told = self.daemon.ask("status")["links"]
        links = {(x["link"], x["one_way"], x["rewrite"]) for x in told}
        return links == {(x.link, x.one_way, x.rewrite) for x in (UNTOUCHED, *self._plugs)}

    def _save(self, text: str) -> None:
        in_place = self._random.random() < 0.5
        self.daemon.write_in_place(text) if in_place else self.daemon.write(text)

    def _crash(self) -> str:
        """Now and then in the middle of a change, and the world goes on without a daemon."""
        said = []
        if self._random.random() < 0.3:
            said.append(f"flip {self._flip()}")
            time.sleep(self._random.random() * 0.02)
        self.daemon.kill()
        for _ in range(self._random.choice((0, 0, 1, 2, 4))):
            more = self._harms_to_the_daemon()
            said.append(self._do(self._harms() | {kind: more[kind] for kind in ("flip", "spoil")}))
        self._forgetful = not self._good
        self.daemon.start()
        return "; ".join(said)

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

    def _check(self, stream: Stream) -> None:
        took = self._settle(self._problems)
        self.slowest = max(self.slowest, (took, self._history[-1]))
        for way in stream.ways:
            poll(lambda way=way: not way.lost, what=f"untouched link: {stream}")  # type: ignore[misc]
        assert self.daemon.returncode is None, f"the daemon has ended: {self.daemon.returncode}"
        self.daemon.assert_no_traceback()

    def _problems(self) -> list[str]:
        """What is not as promised at this moment."""
        try:
            seen = self.daemon.ask("status")
        except OSError as error:
            return [f"no answer: {error}"]
        alone = self.lab.links()
        links = alone | self._nodes.look(alone)
        if self._forgetful:
            self._nodes.call_by_text(seen)
        return [
            *self._wrong_ends_in_nodes(alone),
            *self._wrong_states(seen, links),
            *self._wrong_foreigners(links),
            *self._wrong_programs(seen, links),
            *self._wrong_settings(seen, links),
            *self._wrong_queues(seen, links),
            *self._wrong_carriers(seen, links),
            *self._wrong_frames(seen),
            *self._wrong_moved_netns(seen),
        ]

    def _wrong_ends_in_nodes(self, links: dict[str, Any]) -> Iterator[str]:
        if self._forgetful:
            return
        wanted = {end: plug.mtu for plug in self._plugs for end in (plug.a, plug.b)}
        yield from self._nodes.problems(wanted, self._strange(links))

    def _strange(self, links: dict[str, Any]) -> set[str]:
        """Interfaces of the host that are not the chaos's own."""
        own = {x.name for x in self._devices if x.where == "host"}
        return links.keys() - own - {"lo", UNTOUCHED.a, UNTOUCHED.b}

    def _wrong_states(self, seen: dict[str, Any], links: dict[str, Any]) -> Iterator[str]:
        state = seen["config"]["state"]
        if state != ("loaded" if self._good else "rejected"):
            yield f"the file is {state}"
        told = {(x["a"]["name"], x["b"]["name"]): x for x in seen["links"]}
        plugs = [UNTOUCHED] if self._forgetful else [UNTOUCHED, *self._plugs]
        for stray in told.keys() - {(x.a, x.b) for x in plugs} if not self._forgetful else ():
            yield f"{stray} is no link of the file"
        for plug in plugs:
            link = told.get((plug.a, plug.b)) or told.get((plug.b, plug.a))
            wanted = self._wanted_state(plug, links)
            if link is None:
                yield f"{plug.link} is missing in status"
            elif link["state"] != wanted:
                yield f"{plug.link} is {link['state']} ({link['reason']}), not {wanted}"
            elif not self._forgetful:
                yield from self._wrong_manner(plug, link)

    def _wrong_manner(self, plug: Plug, link: dict[str, Any]) -> Iterator[str]:
        """What is done to frames, as status and the kernel have it."""
        told = link["one_way"], link["rewrite"]
        if told != (plug.one_way, plug.rewrite):
            yield f"{plug} is {told}"
        if plug.one_way and link["a"]["name"] != plug.a:
            yield f"{plug} is told the other way round"
        filtered = {plug.b} if plug.drops else set()
        ends = {link[x]["name"]: link[x]["host_interface"] for x in "ab"}
        found = {name for name, host in ends.items() if host and DROP in self._egress(host)}
        if link["state"] == "connected" and found != filtered:
            yield f"{plug} is filtered at {found}"

    def _egress(self, name: str) -> str:
        return self.lab.tc("filter", "show", "dev", name, "egress", check=False)

    def _wanted_state(self, plug: Plug, links: dict[str, Any]) -> str:
        ends = [links.get(name) for name in (plug.a, plug.b)]
        if {plug.a, plug.b} & self._nodes.occupied:
            return "failed"
        if None in ends:
            return "waiting" if plug.enabled else "disabled"
        here = self._here()
        if any(end in here and here[end].foreign for end in (plug.a, plug.b)):
            return "failed"
        if not plug.enabled:
            return "disabled"
        up = all({"UP", "LOWER_UP"} <= set(end["flags"]) for end in ends if end)
        return "connected" if up else "down"

    def _wrong_foreigners(self, links: dict[str, Any]) -> Iterator[str]:
        for name, device in self._here().items():
            if device.foreign and name in links:
                shown = run("bpftool", "-j", "prog", "show", "pinned", str(device.foreign)).stdout
                if _program(links[name]) != (wanted := json.loads(shown)["id"]):
                    yield f"{name}: foreign program {wanted} is now {_program(links[name])}"

    def _wrong_programs(self, seen: dict[str, Any], links: dict[str, Any]) -> Iterator[str]:
        """An end of a link that does not stand is held; another program of ours has an entry.

        An entry is the half of a pair that stands.
        """
        ours, here = self._ours(), self._here()
        loose = [x for x in seen["links"] if x["state"] in ("disabled", "waiting", "failed")]
        held = {x[end]["name"] for x in loose for end in "ab"}
        # A daemon without a good file has them by texts that lead nowhere if the node is aside.
        numbers_held = {x[end]["ifindex"] for x in loose for end in "ab"}
        numbers_held |= {links[name]["ifindex"] for name in held & links.keys()}
        for name in held & links.keys() & here.keys():
            egress = self._egress(links[name]["ifname"])
            if not here[name].foreign and "xconnectd" not in egress:
                yield f"{name}: not held"
        maps = {path.name: entries(path) for path in self.lab.wiring_maps()}
        closed = {x for found in maps.values() for x, target in found.items() if not target}
        for name, link in links.items():
            number = link["ifindex"]
            is_led = number in numbers_held | closed or number in maps.get("entries", ())
            if _program(link) in ours and not is_led:
                yield f"{name}: our program without an entry"
        numbers = {link["ifindex"] for link in links.values()}
        for name, found in maps.items():
            for key, target in found.items():
                if not target:
                    if key not in found.values():
                        yield f"{name}: {key} is closed, and nothing leads there"
                elif found.get(target) != key and target not in closed:
                    yield f"{name}: {key} leads to {target}, that to {found.get(target)}"
                if key not in numbers:
                    yield f"{name}: {key} leads to {target}, and is the number of no interface"

    def _wrong_settings(self, seen: dict[str, Any], links: dict[str, Any]) -> Iterator[str]:
        """What somebody set is what is put back: as found where no link stands, else in status."""
        ends = [link[end] for link in seen["links"] for end in "ab"]
        told = {end["name"]: end["mtu"] for end in ends if end["mtu"] is not None}
        for name, device in self._here().items():
            if name in links and (mtu := told.get(name, links[name]["mtu"])) not in device.mtus:
                yield f"{name}: mtu {mtu}, never set by anybody ({device.mtus})"

    def _wrong_queues(self, seen: dict[str, Any], links: dict[str, Any]) -> Iterator[str]:
        """An impaired link that stands has them; one that is held may; nobody else has one."""
        if self._forgetful or "drift.flapping" in self.daemon.text():
            return
        shown = self.lab.tc("qdisc", "show")
        queues = dict(re.findall(r"tbf 7863: dev (\S+) root .*rate (\d+)Mbit", shown))
        states = {link["link"]: link["state"] for link in seen["links"]}
        rates = {end: plug.rate for plug in self._plugs for end in (plug.a, plug.b)}
        held = {
            end
            for plug in self._plugs
            for end in (plug.a, plug.b)
            if states.get(plug.link) not in ("connected", "down")
        }
        for name in self._here().keys() & links.keys() - held:
            wanted, found = rates.get(name, 0), int(queues.get(links[name]["ifname"], 0))
            if found != wanted:
                yield f"{name}: a queue of {found} Mbit/s, not {wanted}"

    def _wrong_carriers(self, seen: dict[str, Any], links: dict[str, Any]) -> Iterator[str]:
        """Each end shows what is behind its partner, but for what somebody has set by hand."""
        here = self._here()
        ends = (
            (link, link[x]["name"], link[y]["name"]) for link in seen["links"] for x, y in _WAYS
        )
        for link, name, other in ends:
            device, flags = here.get(name), links.get(name, {}).get("flags", ())
            if not device or device.foreign or not (device.far or "UP" in flags):
                continue
            law = {False}
            if link["state"] in ("connected", "down") and other in here.keys() & links.keys():
                law = {True} if name == other else _offers(here[other], links[other]["flags"])
            shows = ("UP" if device.far else "LOWER_UP") in flags
            if shows not in law and device.set_to != ("up" if shows else "down"):
                yield f"{name} shows {shows}, not {law}: {here.get(other)}, {link}"
            if shows != (device.set_to == "up") or (shows and law == {True}):
                device.set_to = ""

    def _ours(self) -> set[int]:
        path = self.daemon.socket_path().with_name("programs")
        return set(json.loads(path.read_text()))

    def _wrong_frames(self, seen: dict[str, Any]) -> Iterator[str]:
        """Frames go where status says, and nowhere else."""
        stands = [x for x in seen["links"] if x["state"] == "connected"]
        ways = {
            (x[one]["name"], x[other]["name"]): x["rewrite"] == "swap-macs"
            for x in stands
            for one, other in _WAYS[: 1 if x["one_way"] else 2]
            if DROP not in self._egress(x[other]["host_interface"])
        }
        here = self._here().keys()
        wanted = {way: swaps for way, swaps in ways.items() if here >= {*way}}
        found = self._probe(wanted.keys())
        for way in sorted(way for way in found if wanted.get(way, found[way]) != found[way]):
            yield f"the MACs of a frame from {way[0]} to {way[1]} are swapped: {found[way]}"
        came = found.keys()
        for one, other in sorted(wanted.keys() - came):
            yield f"no frame from {one} to {other}, which are said to be connected"
        for one, other in sorted(came - wanted.keys()):
            yield f"a frame from {one} to {other}, which are not said to be connected"

    def _probe(self, wanted: AbstractSet[tuple[str, str]]) -> dict[tuple[str, str], bool]:
        """Every device sends one frame; returns who got whose, and whether with MACs swapped."""
        devices = {x.name: x.wire for x in self._devices if x.where != "gone"}
        devices |= {x.name: x.wire for x in self._nodes.here.values() if x.wire}
        marks = {os.urandom(16): name for name in devices}
        for wire in devices.values():
            _drained(wire)
        for mark, name in marks.items():
            with suppress(OSError):  # down, or without carrier
                frame = b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x88\xb6" + mark + bytes(30)
                devices[name].send(frame)
        came: dict[tuple[str, str], bool] = {}
        for look, _ in enumerate(looks(0.3)):
            for name, wire in devices.items():
                for frame in _drained(wire):
                    if sender := marks.get(frame[14:30]):
                        came[sender, name] = frame[6:12] == b"\xff" * 6
            if look >= 10 and wanted <= came.keys():
                break
        return came

    def _wrong_moved_netns(self, seen: dict[str, Any]) -> Iterator[str]:
        """Whoever left with our program is named."""
        ours = self._ours()
        told = {x["remedy"] for x in seen["moved_netns"]}
        for namespace in self._away:
            for link in json.loads(run("ip", "-d", "-j", "link", namespace=namespace).stdout):
                is_told = any(namespace in x and link["ifname"] in x for x in told)
                if _program(link) in ours and not is_told:
                    yield f"{link['ifname']} is in {namespace} with our program: {told}"

    def _compare(self, stream: Stream) -> None:
        """What a look at the kernel shows is what the daemon says."""
        self.steps += 1
        self._history.append(f"{self.steps} compare: {self._flip()}")
        self._check(stream)
        self._settle(lambda: [*self._contradictions()])  # it may change between the two looks

    def _contradictions(self) -> Iterator[str]:
        shown, told = self.daemon.seen(), self.daemon.ask("status")
        states = [{x["link"]: x["state"] for x in y["links"]} for y in (shown, told)]
        if states[0] != states[1]:
            yield f"status says {states[0]}, the daemon {states[1]}"
        if shown["differences"] and "drift.flapping" not in self.daemon.text():
            yield f"differences: {shown['differences']}"

    def _left(self) -> Iterator[str]:
        if self._untouched() != self._before:
            yield f"the untouched ends: {self._untouched()}, not {self._before}"
        if self.lab.pins.exists():
            yield f"pins: {[*self.lab.pins.rglob('*')]}"
        alone = self.lab.links()
        links = alone | self._nodes.look(alone)
        yield from self._nodes.problems({}, self._strange(alone))
        for name, device in self._here().items():
            link = links[name]
            qdiscs = self.lab.tc("qdisc", "show", "dev", link["ifname"])
            found = {
                "program": bool(link.get("xdp")) == bool(device.foreign),
                "mtu": link["mtu"] in device.mtus,
                "addr_gen_mode": link["inet6_addr_gen_mode"] == "eui64",
                "promiscuity": not link["promiscuity"],
                "clsact": "clsact" not in qdiscs,
                "queue": "7863:" not in qdiscs,
                "admin state": "UP" in link["flags"] or device.was_down,
            }
            for what, is_right in found.items():
                if not is_right:
                    yield f"{name}: {what}, {device.mtus}: {link}, {qdiscs}"
        if came := self._probe(set()):
            yield f"frames cross: {came.keys()}"

    def _untouched(self) -> dict[str, Any]:
        ends = ("ua", "ub")
        links = {name: self.lab.link(name) for name in ends}
        qdiscs = [self.lab.tc("qdisc", "show", "dev", name) for name in ends]
        return {"links": links, "qdiscs": qdiscs}


def _offers(device: Device | NodeEnd, flags: Sequence[str]) -> set[bool]:
    """Whether what is behind it is alive and nobody has set it down; both, if that is not known."""
    if device.far is None:
        return {"UP" in flags}
    return {device.far.up} | ({False} if "UP" not in flags and device.set_to == "down" else set())


def _program(link: dict[str, Any]) -> int | None:
    found: int | None = link.get("xdp", {}).get("prog", {}).get("id")
    return found


def _drained(wire: Wire) -> list[bytes]:
    with suppress(OSError):  # its interface has gone, or is down
        return wire.drain()
    return []
