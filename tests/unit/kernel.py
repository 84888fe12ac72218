"""A fake kernel and ledger. It proves only what it was taught.

Each rule below is measured on a real kernel by a test in ``tests/netns``; a rule that is missing
here is a bug that the unit tests cannot see. It was taught:

- An XDP program goes onto a free interface only (EBUSY), over another only if that is named
  (EEXIST), and never beside one of the other mode (EEXIST). Native needs a driver for it
  (EOPNOTSUPP). Taking off with the wrong mode says ok and does nothing.
- A DEVMAP entry needs a target that exists. When a target vanishes its entry goes at once; the
  key of a dead ingress stays. The tc twin of that map looks at nothing and forgets nothing.
- Filters need clsact (EINVAL) and go when it is deleted. A filter in our own place (priority 1,
  handle 1) is EEXIST, or replaced whoever it belongs to if asked. A second clsact is EEXIST.
- No two devices of a namespace share a name or altname.
- A program forwards by the entries of its own generation, wherever its device is; a new generation
  begins with a copy.
- Many changes can be sent together: one that is refused hinders no other.
- An MTU above the maximum is EINVAL. Whatever is done to a device that is gone is ENODEV.
- A link message tells neither tc, offloads nor the far end's MTU: only ``complete`` does.
- A device that leaves the namespace takes its XDP program, MTU and altnames along, loses clsact
  and goes down; it comes back with a new number. On its way it is listed nowhere, and the news
  comes when it has arrived. Only one is on its way at a time (RTNL).
- Both ends of a veth go together; that one is down or up is told of the other, too (its carrier).
- The far end of a veth is up or down whatever ours is, and that is told. A tap has a carrier when
  it is opened, none when it is closed, and what it is given in between.
- A namespace has a file and an id here. A veth across two is made with its far end in that of the
  file, both ends down; a name that is taken at either side is EEXIST. Only from inside it is set
  up, which needs a right of its own. With a namespace its devices go, and so do the other ends of
  its veths, but a file can go without its namespace, and a device can be moved on to another.
- A VXLAN device is made down and has a carrier while it is up. A name that is taken is EEXIST, and
  so is a VNI that another one has at that port with that version of IP. A port that is another
  program's is EADDRINUSE when it is set up. It can be told to lead elsewhere.
- A root qdisc that somebody made is not replaced (EEXIST). Ours is deleted with what is below it,
  and tells all of its options but the longest frame. netem may be missing (ENOENT).
- A router's advertisement gives the host addresses and routes where it reaches its stack.
- Frames that are marked as redirected pass generic XDP unseen and go on to clsact.
- Frames: no program means the host's stack; no entry means dropped; a target that is down means
  dropped; a peer that is ``CLOSED`` means dropped. A program that is not ours forwards nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders import (
    EGRESS,
    FOREIGN,
    INGRESS,
    NATIVE,
    NIC_OFFLOADS,
    SWAP_INGRESS,
    SWAP_XDP,
    TAP_OFFLOADS,
    TUNNEL_EGRESS,
    TUNNEL_INGRESS,
    XDP,
)

from xconnectd.errors import (
    DataplaneError,
    LinkError,
    NodeGoneError,
    ProgramGoneError,
    XconnectError,
)
from xconnectd.impairment import Passing
from xconnectd.model import (
    CLOSED,
    DROP_HANDLE,
    FILTER_HANDLE,
    FILTER_PRIORITY,
    Announcement,
    Far,
    FarSetting,
    Filter,
    Heard,
    Interface,
    Left,
    Made,
    Mode,
    MovedEnd,
    Node,
    NodeNamespace,
    Programs,
    Record,
    Setting,
    Tunnel,
    Use,
    Way,
    Xdp,
    XdpFeature,
)
from xconnectd.netlink.monitor import Event
from xconnectd.shape import ROOT_HANDLE, RootQdisc, Shape

OWN = "/proc/self/ns/net"
"""The file of this namespace."""

OLDER = 91
OURS = frozenset(
    (XDP, INGRESS, EGRESS, SWAP_XDP, SWAP_INGRESS, TUNNEL_INGRESS, TUNNEL_EGRESS, OLDER)
)

_FD = 1000  # program n is open as descriptor n + _FD
_STACK = "the host's stack"
_KINDS: Mapping[str, Mapping[str, Any]] = {
    "veth": {"kind": "veth", "max_mtu": 65535, "addr_gen_mode": 0},
    "tap": {
        "kind": "tun",
        "variant": "tap",
        "max_mtu": 65521,
        "features": TAP_OFFLOADS,
        "carrier": True,
    },
    "bare tap": {"kind": "tun", "variant": "tap", "max_mtu": 65521, "carrier": True},
    "vxlan": {"kind": "vxlan", "max_mtu": 65535, "addr_gen_mode": 0},
    "macvlan": {"kind": "macvlan", "variant": "passthru", "max_mtu": 1500, "addr_gen_mode": 0},
    "nic": {"max_mtu": 9216, "addr_gen_mode": 0, "features": NIC_OFFLOADS, "xdp_features": NATIVE,
            "driver": "ice"},
}  # fmt: skip


class Crash(BaseException):
    """The daemon was killed here; not even ``except Exception`` notices."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call that changes something, and the interface it is about (0: none)."""

    verb: str
    ifindex: int

    def refused(self, reason: int = errno.EIO) -> LinkError:
        return LinkError(f"if{self.ifindex}", self.verb, reason)


Trouble = Callable[[int, Step], BaseException | None]


def no_trouble(_number: int, _step: Step) -> BaseException | None:
    return None


def refuse(*numbers: int) -> Trouble:
    """Exactly these steps, counted from 0, are refused."""
    return lambda number, step: step.refused() if number in numbers else None


def refuse_verb(verb: str, ifindex: int, reason: int = errno.EIO) -> Trouble:
    """One kind of step on one interface is refused for as long as this trouble lasts."""
    return lambda _, step: step.refused(reason) if step == Step(verb, ifindex) else None


def crash(at: int) -> Trouble:
    return lambda number, _step: Crash() if number == at else None


class Kernel:
    """Interfaces, programs and maps, as ``netlink`` and ``dataplane`` show them.

    It begins with veths of these names.

    Attributes:
        devices: by ifindex, complete; the values of the model, replaced when they change.
        trouble: asked before every step whether it is to fail.
        steps: what was changed or tried since ``trouble`` was last set.
        news: what rtnetlink would have told.
        meanwhile: called before each answer to a look: what others do between two of them.
        namespaces: by the paths of files, the ids here of network namespaces.
        awaited: the ends in nodes that a daemon waits for.
        forbidden: files of namespaces that may not be opened.
        taken_ports: UDP ports of other programs.
        ways: to IP addresses, where they are not of 1500 bytes.
        may_enter: whether a daemon has the right to enter one of them.
    """

    def __init__(self, *names: str) -> None:
        self.devices: dict[int, Interface] = {}
        self.elsewhere_: dict[int, dict[int, Interface]] = {}
        self.devmap: dict[int, int] = {}
        self.older_maps: dict[int, dict[int, int]] = {}
        self.xdp, self.swap_xdp = XDP, SWAP_XDP
        self._swapping = frozenset((SWAP_XDP, SWAP_INGRESS))
        self.peer_map: dict[int, int] = {}
        self._filters: dict[str, int] = {}
        self.counted: set[int] = set()
        self.guarded_: set[int] = set()
        self.addressed: dict[int, tuple[str, ...]] = {}
        self.taught: dict[int, tuple[str, ...]] = {}
        self.opened = set(OURS)
        self.retired: set[int] = set()
        self.closed: set[int] = set()
        self.news: list[Event] = []
        self.steps: list[Step] = []
        self.dumps = 0
        self.listens = False
        self.namespaces: dict[str, int] = {}
        self.awaited: Mapping[tuple[int, str | int], str] = {}
        self.forbidden: set[str] = set()
        self.may_enter = True
        self.has_netem = True
        self.taken_ports: set[int] = set()
        self.ways: dict[str, Way] = {}
        self.meanwhile: Callable[[], None] = lambda: None
        self._arrival: Callable[[], None] = lambda: None
        self._trouble = no_trouble
        self._numbers = iter(range(5, 100_000))
        for name in names:
            self.add(name)
        self.news.clear()

    @property
    def trouble(self) -> Trouble:
        return self._trouble

    @trouble.setter
    def trouble(self, trouble: Trouble) -> None:
        self._trouble = trouble
        self.steps = []

    def step(self, verb: str, ifindex: int = 0) -> None:
        """Counts one change, and fails it if it is to fail."""
        self.steps.append(Step(verb, ifindex))
        if error := self._trouble(len(self.steps) - 1, self.steps[-1]):
            raise error

    # ------------------------------------------------------------------ as an operator sees it

    def add(self, name: str, kind: str = "veth", ifindex: int | None = None, **facts: Any) -> int:
        """A new device; a veth's far end stands in a container unless ``far`` says otherwise."""
        number = next(self._numbers) if ifindex is None else ifindex
        fresh = next(self._numbers)
        defaults: dict[str, Any] = {"mac": f"02:00:00:00:{fresh >> 8:02x}:{fresh & 255:02x}"}
        defaults |= _KINDS[kind]
        if kind == "veth":
            defaults["far"] = Far(2, 0, "eth0", 1500, True)
        self.devices[number] = Interface(number, name, **{"up": True, **defaults, **facts})
        self._tell(number)
        return number

    def cable(self, a: str, b: str, **facts: Any) -> tuple[int, int]:
        """Both ends of one veth in this namespace."""
        first, second = self.add(a, **facts), self.add(b, **facts)
        self.alter(a, far=Far(second, None, b))
        self.alter(b, far=Far(first, None, a))
        return first, second

    def index(self, name: str) -> int:
        return next(i for i, each in self.devices.items() if name in _names(each))

    def get(self, name: str) -> Interface:
        return self.devices[self.index(name)]

    def has(self, name: str) -> bool:
        return any(name in _names(each) for each in self.devices.values())

    def alter(self, name: str, /, **facts: Any) -> None:
        self._alter(self.index(name), **facts)

    def delete(self, name: str) -> None:
        """A veth of this namespace takes its far end along."""
        device = self._remove(self.index(name))
        self.news.append(Event(device.ifindex, device.name, gone=True, altnames=device.altnames))
        if peer := self._peer(device):
            self.delete(peer.name)

    def send_away(self, name: str, nsid: int = 0, *, arrives: bool = True) -> int:
        """Moves a device to another namespace; returns its number there."""
        self.arrive()
        device = self._remove(self.index(name))
        there = next(self._numbers)

        def arrival() -> None:
            gone = {"qdisc": "", "ingress": (), "egress": (), "root": None}
            moved = device._replace(ifindex=there, up=False, **gone)
            self.elsewhere_.setdefault(nsid, {})[there] = moved
            self._meet(device, Far(there, nsid, device.name, device.mtu, False))
            left = Event(
                *(device.ifindex, device.name, True, nsid, there, device.altnames), mac=device.mac
            )
            self.news.append(left)

        self._arrival = arrival
        if arrives:
            self.arrive()
        return there

    def bring_back(
        self, number: int, nsid: int = 0, ifindex: int | None = None, *, arrives: bool = True
    ) -> int:
        self.arrive()
        here = next(self._numbers) if ifindex is None else ifindex
        device = self.elsewhere_[nsid].pop(number)._replace(ifindex=here)

        def arrival() -> None:
            self.devices[here] = device
            self._meet(device, Far(here, None, device.name))
            self._tell(here)

        self._arrival = arrival
        if arrives:
            self.arrive()
        return here

    def arrive(self) -> None:
        """Ends the move that is under way, if there is one."""
        arrival, self._arrival = self._arrival, lambda: None
        arrival()

    settle = arrive

    def advertise(self, name: str) -> None:
        """A router on the wire speaks: the host believes it, unless a program of ours drops it."""
        device = self.get(name)
        if device.up and self.leads(name) == _STACK:
            words = ("it has the address fd00:77::1/64", "the default route uses it")
            self.taught[device.ifindex] = words
            self.news.append(Event(device.ifindex))

    def load_foreign(self, name: str, mode: str = "generic", program: int = FOREIGN) -> None:
        self.alter(name, xdp=(Xdp(mode, program),))

    def load_older(self, name: str) -> None:
        """As after an upgrade: the program of an earlier release is still attached."""
        programs = tuple(xdp._replace(program=OLDER) for xdp in self.get(name).xdp)
        self.alter(name, xdp=programs)

    def unload(self, name: str) -> None:
        self.alter(name, xdp=())

    def drop_filters(self, name: str) -> None:
        self.alter(name, qdisc="", ingress=(), egress=())

    def lose_entry(self, name: str) -> None:
        """No news: nobody watches a map."""
        self.devmap.pop(self.index(name), None)
        self.peer_map.pop(self.index(name), None)

    def snapshot(self) -> tuple[dict[int, Interface], dict[int, int], dict[int, int], set[int]]:
        """Everything that can be found again, or not."""
        complete = self.complete(self.devices.values())
        devices = {i: each._replace(root=self.devices[i].root) for i, each in complete.items()}
        return devices, dict(self.devmap), self.peers(), self.counted | self.guarded_

    # ------------------------------------------------------------------ nodes

    def start_node(self, name: str) -> int:
        """A namespace with a file; returns its id here."""
        nsid = next(self._numbers)
        self.namespaces[f"/run/netns/{name}"] = nsid
        self.elsewhere_[nsid] = {}
        return nsid

    def stop_node(self, name: str) -> None:
        """The veths into it go with it."""
        self.unmount_node(name, self.end_namespace)

    def unmount_node(self, name: str, then: Callable[[int], None] = lambda _: None) -> int:
        """Its file goes, and what is in it stays."""
        nsid = self.namespaces.pop(f"/run/netns/{name}")
        then(nsid)
        return nsid

    def end_namespace(self, nsid: int) -> None:
        for device in [*self.devices.values()]:
            if device.far and device.far.nsid == nsid:
                self.delete(device.name)
        del self.elsewhere_[nsid]

    def nsid(self, node: str) -> int:
        return self.namespaces[f"/run/netns/{node}"]

    def plug(self, name: str, node: str, interface: str, **facts: Any) -> int:
        """A veth of somebody else from here to a node."""
        there = self.add_there(node, interface, "veth", up=True)
        here = self.add(name, far=Far(there, self.nsid(node), interface, 1500, True), **facts)
        self._alter_far(here, far=Far(here, None, name))
        return here

    def add_there(self, node: str, name: str, kind: str = "dummy", **facts: Any) -> int:
        """A device in a node."""
        number = next(self._numbers)
        self.elsewhere_[self.nsid(node)][number] = Interface(number, name, kind=kind, **facts)
        self._tell_there(name, self.nsid(node), number)
        return number

    def there(self, node: str, name: str) -> Interface:
        found = self.named(name, self.nsid(node))
        assert found, f"no {name} in {node}"
        return found

    def alter_there(self, node: str, name: str, /, **facts: Any) -> None:
        """It is told of the end here, and of who waits for that name."""
        number = self.there(node, name).ifindex
        nsid = self.nsid(node)
        self.elsewhere_[nsid][number] = device = self.elsewhere_[nsid][number]._replace(**facts)
        far = Far(number, nsid, device.name, device.mtu, device.up)
        for here in [
            each for each in self.devices.values() if each.far and each.far[:2] == far[:2]
        ]:
            self.devices[here.ifindex] = here._replace(far=far)
            self.news.append(Event(here.ifindex))
        self._tell_there(device.name, nsid, number)

    def delete_there(self, node: str, name: str) -> None:
        """A veth takes its end here along."""
        device = self.elsewhere_[self.nsid(node)].pop(self.there(node, name).ifindex)
        self._tell_there(name, self.nsid(node), device.ifindex)
        if device.far and device.far.ifindex in self.devices:
            self.delete(self.devices[device.far.ifindex].name)

    def move_on(self, node: str, name: str, nsid: int) -> None:
        """A device of a node goes to yet another namespace."""
        device = self.elsewhere_[self.nsid(node)].pop(self.there(node, name).ifindex)
        self.elsewhere_.setdefault(nsid, {})[device.ifindex] = device._replace(up=False)
        if device.far:
            self._alter(device.far.ifindex, far=Far(device.ifindex, nsid, name, device.mtu, False))

    def _alter_far(self, here: int, **facts: Any) -> None:
        far = self.devices[here].far
        assert far, "it is no veth"
        assert far.nsid is not None, "its other end is here"
        there = self.elsewhere_[far.nsid]
        there[far.ifindex] = there[far.ifindex]._replace(**facts)

    def _tell_there(self, name: str, nsid: int, number: int) -> None:
        """As ``netlink.far_monitor`` does of what is awaited there."""
        ends = {self.awaited.get((nsid, key)) for key in (name, number)} - {None}
        self.news += [Event(0, end) for end in sorted(filter(None, ends))]

    # ------------------------------------------------------------------ as a frame sees it

    def leads(self, name: str, *, marked: bool = False) -> str | None:
        """Where a frame goes that comes in by ``name``, admin state aside; None: dropped.

        Generic XDP does not see one that is ``marked`` as redirected.
        """
        device = self.get(name)
        if device.xdp and not (marked and device.xdp[0].mode == "generic"):
            target = self._redirected(device)
        elif any(filter_.program in OURS for filter_ in device.ingress):
            target = self.peer_map.get(device.ifindex)
        else:
            return _STACK
        return self._name_of(target)

    def leads_from(self, number: int, nsid: int) -> str | None:
        """The same for a device of another namespace, by its number there."""
        return self._name_of(self._redirected(self.elsewhere_[nsid][number]))

    def _name_of(self, number: int | None) -> str | None:
        return self.devices[number].name if number in self.devices else None

    def _redirected(self, device: Interface) -> int | None:
        """An older program works on with the entries that it had."""
        program = device.xdp[0].program
        entries = self.older_maps.get(program, self.devmap if program in self._ours else {})
        return entries.get(device.ifindex)

    @property
    def _ours(self) -> frozenset[int]:
        return OURS | {self.xdp, self.swap_xdp, *self.older_maps, *self._filters.values()}

    def wired(self, a: str, b: str) -> bool:
        """For every frame, both ways."""
        names = (self.get(b).name, self.get(a).name)
        return all(
            (self.leads(a, marked=m), self.leads(b, marked=m)) == names for m in (False, True)
        )

    def leads_one_way(self, a: str, b: str) -> bool:
        """For every frame from ``a`` to ``b`` alone, and ``b`` knows that it is meant."""
        there = self.get(b)
        to, back = ({self.leads(end, marked=m) for m in (False, True)} for end in (a, b))
        is_meant = self.peer_map.get(there.ifindex) == CLOSED
        return (to, back) == ({there.name}, {None}) and is_meant

    def swaps(self, name: str) -> bool:
        """Whether what comes in by ``name`` leaves with its MACs swapped, marked or not."""
        device = self.get(name)
        runs = [xdp.program for xdp in device.xdp] + [each.program for each in device.ingress]
        found = {program in self.programs.swapping for program in runs if program in self._ours}
        assert len(found) < 2, f"{name} swaps some frames alone"
        return found == {True}

    def answers(self, name: str) -> bool:
        """Whether the keepalives of another host's daemon are answered there."""
        return [each.program for each in self.get(name).ingress] == [TUNNEL_INGRESS]

    def cuts(self, name: str) -> bool:
        """Whether bulk is cut there to what a tunnel takes, and answers may leave."""
        return TUNNEL_EGRESS in _ids(self.get(name).egress)

    def is_held(self, name: str) -> bool:
        """Whether an end is silent and drops all that comes in."""
        device = self.get(name)
        silent = OURS & _ids(device.egress) and device.addr_gen_mode != 0
        return bool(silent) and self.leads(name) is None and device.ifindex in self.counted

    def untouched(self, name: str) -> bool:
        """Whether nothing of ours is on an interface or leads in or out of it."""
        device = self.get(name)
        known = {*self.counted, *self.guarded_}
        for entries in (self.devmap, self.peer_map):
            known |= {*entries, *entries.values()}
        return self._ours.isdisjoint(_programs(device)) and device.ifindex not in known

    def black_holes(self) -> set[str]:
        """Ends with our program on and no entry: what comes in there is lost."""
        return {
            device.name
            for device in self.devices.values()
            if self._ours & _programs(device._replace(egress=())) and not self.leads(device.name)
            if self.peer_map.get(device.ifindex) != CLOSED
        }

    # ------------------------------------------------------------------ Interfaces: looking

    def find(self, *wanted: str | int) -> list[Interface]:
        self.meanwhile()
        return [
            self._message(device)
            for each in wanted
            for device in self.devices.values()
            if each == device.ifindex or each in _names(device)
        ]

    def names(self) -> list[str]:
        return [device.name for device in self.devices.values()]

    def all(self) -> dict[int, Interface]:
        self.dumps += 1
        self.meanwhile()
        return {index: self._message(device) for index, device in self.devices.items()}

    def complete(self, interfaces: Iterable[Interface]) -> dict[int, Interface]:
        """A far end that has a name already is not asked for again."""
        found = {each.ifindex: each for each in interfaces}
        for ifindex, each in found.items():
            now = self._now(self.devices.get(ifindex, each))
            is_known = each.far and each.far.name
            told = now._replace(root=None)
            found[ifindex] = told._replace(far=each.far) if is_known else told
        return found

    def roots(self, ifindexes: Collection[int]) -> dict[int, RootQdisc]:
        found = {i: self.devices[i].root for i in ifindexes if i in self.devices}
        return {i: root or RootQdisc("noqueue", 0) for i, root in found.items()}

    def uses(
        self,
        interfaces: Iterable[Interface],
        addressed: Iterable[Interface] = (),
        _everyone: Collection[Interface] = (),
    ) -> dict[int, tuple[Use, ...]]:
        return {each.ifindex: self._uses(each.ifindex) for each in (*interfaces, *addressed)}

    def _uses(self, ifindex: int) -> tuple[Use, ...]:
        own = (Use(words) for words in self.addressed.get(ifindex, ()))
        return (*own, *(Use(words, learnt=True) for words in self.taught.get(ifindex, ())))

    def xdp_features(self, ifindex: int) -> XdpFeature | None:
        return self.devices[ifindex].xdp_features

    def at(self, ifindex: int, nsid: int | None) -> Interface | None:
        if nsid is None:
            return next(iter(self.find(ifindex)), None)
        self.meanwhile()
        return self.elsewhere_.get(nsid, {}).get(ifindex)

    def update_stacked(self, *_: Event) -> None:
        return

    track_stacked = update_stacked

    def namespace(self, path: str) -> tuple[int, int | None]:
        """The inode of a namespace is its id and a thousand; this one's is 1000."""
        self.meanwhile()
        if path == OWN:
            return 1000, None
        if path in self.forbidden:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        if path not in self.namespaces:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return self.namespaces[path] + 1000, self.namespaces[path]

    def named(self, name: str, nsid: int) -> Interface | None:
        devices = self.elsewhere_.get(nsid, {}).values()
        return next((each for each in devices if each.name == name), None)

    def namespace_name(self, nsid: int) -> str:
        return f"box{nsid}"

    def elsewhere(self) -> Iterator[tuple[int, Interface]]:
        self.meanwhile()
        for nsid, devices in self.elsewhere_.items():
            yield from [(nsid, each) for each in devices.values()]

    # ------------------------------------------------------------------ Interfaces: changing

    def each(self, calls: Sequence[Callable[[], None]]) -> dict[int, Exception]:
        refused: dict[int, Exception] = {}
        for number, call in enumerate(calls):
            try:
                call()
            except (XconnectError, OSError) as error:
                refused[number] = error
        return refused

    def attach(self, interface: Interface, mode: Mode, fd: int, replacing: int | None) -> None:
        device = self._take("attach", interface)
        action = f"attach {mode} XDP"
        there = next((xdp.program for xdp in device.xdp if xdp.mode == mode), 0)
        if any(xdp.mode != mode for xdp in device.xdp):
            words = "Native and generic XDP can't be active at the same time"
            raise LinkError(device.name, action, errno.EEXIST, words)
        if replacing is None and there:
            raise LinkError(device.name, action, errno.EBUSY, "XDP program already attached")
        if replacing is not None and there != replacing - _FD:
            raise LinkError(device.name, action, errno.EEXIST, "Active program does not match")
        if mode is Mode.NATIVE and device.kind not in ("", "veth", "tun"):
            raise LinkError(device.name, action, errno.EOPNOTSUPP)
        self._alter(device.ifindex, xdp=(Xdp(str(mode), fd - _FD),))

    def detach(self, interface: Interface, mode: str, fd: int | None) -> None:
        device = self._take("detach", interface)
        here = [xdp for xdp in device.xdp if xdp.mode == str(mode)]
        if fd is not None and [xdp.program for xdp in here] != [fd - _FD]:
            raise LinkError(device.name, f"detach {mode} XDP", errno.EEXIST)
        self._alter(device.ifindex, xdp=tuple(xdp for xdp in device.xdp if xdp not in here))

    def impair(self, interface: Interface, shape: Shape) -> None:
        device = self._take("impair", interface)
        if device.root and device.root.is_foreign:
            raise LinkError(device.name, "add tbf", errno.EEXIST)
        if shape.netem and not self.has_netem:
            raise LinkError(device.name, "add netem", errno.ENOENT, "this kernel has no sch_netem")
        told = shape._replace(frame=0, burst=0)
        self._alter(device.ifindex, root=RootQdisc("tbf", ROOT_HANDLE, told))

    def change(self, interface: Interface, setting: str, value: int) -> None:
        device = self._take(f"set {setting}", interface)
        match setting:
            case Setting.ROOT_QDISC:
                self._alter(device.ifindex, root=None)
            case Setting.MTU:
                if device.max_mtu and value > device.max_mtu:
                    raise LinkError(device.name, f"set mtu {value}", errno.EINVAL)
                generation = _address_generation(device, value)
                self._alter(device.ifindex, mtu=value, addr_gen_mode=generation)
            case Setting.CLSACT:
                self._clsact(device, value)
            case Setting.CARRIER:
                is_open = device.ifindex not in self.closed
                self._alter(device.ifindex, carrier=bool(value) and is_open)
            case Setting.UP if value and device.tunnel and device.tunnel.port in self.taken_ports:
                raise LinkError(device.name, "set up 1", errno.EADDRINUSE)
            case Setting.UP | Setting.PROMISCUOUS:
                self._alter(device.ifindex, **{str(setting): bool(value)})
            case Setting.ADDR_GEN_MODE:
                if device.addr_gen_mode is None:
                    raise LinkError(device.name, f"set addr_gen_mode {value}", errno.EAFNOSUPPORT)
                self._alter(device.ifindex, addr_gen_mode=value)
            case _:
                name = frozenset((setting.removeprefix("feature:"),))
                features = device.features | name if value else device.features - name
                self._alter(device.ifindex, features=features)

    def _clsact(self, device: Interface, present: int) -> None:
        if present and device.qdisc:
            raise LinkError(device.name, "add clsact", errno.EEXIST)
        if not present and device.qdisc != "clsact":
            raise LinkError(device.name, "delete clsact", errno.ENOENT)
        self._alter(device.ifindex, qdisc="clsact" if present else "", ingress=(), egress=())

    def add_filter(
        self,
        interface: Interface,
        direction: str,
        fd: int,
        *,
        replacing: bool,
        handle: int = FILTER_HANDLE,
        name: str = "xconnectd",
    ) -> None:
        device = self._take(f"add filter {direction}", interface)
        if device.qdisc != "clsact":
            raise LinkError(device.name, f"add the tc {direction} filter", errno.EINVAL)
        ours = Filter("bpf", FILTER_PRIORITY, handle, fd - _FD, name)
        filters: tuple[Filter, ...] = getattr(device, direction)
        others = tuple(each for each in filters if not _same_place(each, ours))
        if others != filters and not replacing:
            raise LinkError(device.name, f"add the tc {direction} filter", errno.EEXIST)
        self._alter(device.ifindex, **{direction: (ours, *others)})

    def delete_filter(self, interface: Interface, direction: str, filter_: Filter) -> None:
        device = self._take(f"delete filter {direction}", interface)
        filters: tuple[Filter, ...] = getattr(device, direction)
        if not any(_same_place(each, filter_) for each in filters):
            raise LinkError(device.name, f"delete the tc {direction} filter", errno.ENOENT)
        left = tuple(each for each in filters if not _same_place(each, filter_))
        self._alter(device.ifindex, **{direction: left})

    def unlearn(self, interface: Interface) -> None:
        self._take("unlearn", interface)
        self.taught.pop(interface.ifindex, None)
        self._tell(interface.ifindex)

    def make_veth(self, made: Made, path: str, far_name: str, far_mac: str) -> None:
        self.step(f"make {made.end}")
        nsid = self.namespaces.get(path)
        if nsid is None:
            raise NodeGoneError(path)
        if self.has(made.name) or self.named(far_name, nsid):
            raise LinkError(made.name, f"make the veth to {made.end}", errno.EEXIST)
        there = next(self._numbers)
        far = Interface(there, far_name, kind="veth", mac=far_mac, mtu=made.mtu)
        self.elsewhere_[nsid][there] = far
        here = Far(there, nsid, far_name, made.mtu, False)
        number = self.add(made.name, mac=made.mac, mtu=made.mtu, up=False, far=here)
        self._alter_far(number, far=Far(number, None, made.name))

    def way_to(self, address: str) -> Way:
        return self.ways.get(address, Way(1500))

    def make_tunnel(self, made: Made, tunnel: Tunnel) -> None:
        self.step(f"make {made.end}")
        others = [each.tunnel for each in self.devices.values() if each.tunnel]
        in_use = any(
            each[1:] == tunnel[1:] and (":" in each.remote) is (":" in tunnel.remote)
            for each in others
        )
        if in_use or self.has(made.name):
            raise LinkError(made.name, f"make the tunnel to {made.end}", errno.EEXIST)
        self.add(made.name, "vxlan", mac=made.mac, mtu=made.mtu, up=False, tunnel=tunnel)

    def delete_made(self, interface: Interface) -> None:
        self.step("delete", interface.ifindex)
        if interface.ifindex in self.devices:
            self.delete(interface.name)

    def delete_together(self, made: Sequence[Interface]) -> None:
        self.step("delete together")
        for each in made:
            if each.ifindex in self.devices:
                self.delete(each.name)

    def set_far(self, path: str, far: Sequence[FarSetting]) -> dict[int, str]:
        self.step(f"set far ends in {path}")
        if not self.may_enter:
            return dict.fromkeys(range(len(far)), "its network namespace cannot be entered")
        node = path.removeprefix("/run/netns/")
        for each in far:
            up = each.set_up or self.there(node, each.name).up
            self.alter_there(node, each.name, mtu=each.mtu, up=up)
        return {}

    # ------------------------------------------------------------------ Dataplane

    @property
    def fds(self) -> Mapping[str, int]:
        ids = {"xdp": self.xdp, "ingress": INGRESS, "egress": EGRESS}
        ids |= {"swap_xdp": self.swap_xdp, "swap_ingress": SWAP_INGRESS}
        ids |= {"tunnel_ingress": TUNNEL_INGRESS, "tunnel_egress": TUNNEL_EGRESS}
        return {role: program + _FD for role, program in ids.items()}

    @property
    def programs(self) -> Programs:
        older = frozenset((OLDER, *(self.older_maps.keys() - self.retired)))
        return Programs(
            *(self.xdp, INGRESS, EGRESS, older),
            *(self.swap_xdp, SWAP_INGRESS, self._swapping, "xconnectd.1.2.3"),
            tunnel_ingress=TUNNEL_INGRESS,
            tunneling=frozenset((TUNNEL_INGRESS,)),
            tunnel_egress=TUNNEL_EGRESS,
        )

    def filter(self, expression: str) -> tuple[int, int]:
        """One for each expression, for good."""
        program = self._filters.setdefault(expression, 10_000 + len(self._filters))
        return program + _FD, program

    def filtered(self, name: str) -> str:
        """What is dropped of that which leaves by ``name``: the expression, empty for nothing."""
        found = [each for each in self.get(name).egress if each.handle == DROP_HANDLE]
        return next((each.name.partition(" ")[2] for each in found), "")

    def listen_to_drivers(self) -> None:
        self.listens = True

    def fd_of(self, program: int) -> int | None:
        """One that is not pinned and runs nowhere is freed."""
        if program in self.opened:
            return program + _FD
        if all(xdp.program != program for device in self.devices.values() for xdp in device.xdp):
            raise ProgramGoneError(program)
        return None

    def point(self, key: int, target: int) -> None:
        self.step("point", key)
        if target not in self.devices:
            raise DataplaneError("point", f"no interface {target} here")
        self.devmap[key] = target

    def unpoint(self, key: int) -> None:
        self.step("unpoint", key)
        for entries in (self.devmap, *self.older_maps.values()):
            entries.pop(key, None)

    def steer(self, key: int, target: int) -> None:
        self.step("steer", key)
        self.peer_map[key] = target

    def unsteer(self, key: int) -> None:
        self.step("unsteer", key)
        self.peer_map.pop(key, None)

    def look_up(
        self, ends: Collection[int] | None = None
    ) -> tuple[dict[int, int], dict[int, int], frozenset[int] | None]:
        def of(entries: Mapping[int, int]) -> dict[int, int]:
            return {k: v for k, v in entries.items() if ends is None or k in ends}

        guarded = self.guarded_ if ends is None else self.guarded_.intersection(ends)
        return of(self.devmap), of(self.peer_map), frozenset(guarded)

    def peers(self) -> dict[int, int]:
        return dict(self.peer_map)

    def count(self, key: int) -> None:
        self.step("count", key)
        self.counted.add(key)

    def uncount(self, key: int) -> None:
        self.step("uncount", key)
        self.counted.discard(key)

    def guard(self, key: int) -> None:
        self.step("guard", key)
        self.guarded_.add(key)

    def unguard(self, key: int) -> None:
        self.step("unguard", key)
        self.guarded_.discard(key)

    def holds(self, left: Left) -> bool:
        return (self.devmap, self.peers()) == left

    def renew(self) -> None:
        self.step("renew")
        for program in (self.xdp, self.swap_xdp):
            self.older_maps[program] = dict(self.devmap)
        self.xdp = max(OURS | {self.xdp, self.swap_xdp}) + 1
        self.swap_xdp = self.xdp + 1
        self._swapping |= {self.swap_xdp}
        self.opened |= {self.xdp, self.swap_xdp}

    def older_forward(self) -> bool:
        return any(self.older_maps.values())

    def empty_older(self) -> None:
        for entries in self.older_maps.values():
            entries.clear()

    def retire(self) -> None:
        self.empty_older()
        self.retired |= self.older_maps.keys()

    # ------------------------------------------------------------------ inside

    def _take(self, verb: str, interface: Interface) -> Interface:
        self.step(verb, interface.ifindex)
        if interface.ifindex not in self.devices:
            raise LinkError(interface.name, verb, errno.ENODEV)
        return self.devices[interface.ifindex]

    def _alter(self, ifindex: int, /, **facts: Any) -> None:
        before = self.devices[ifindex]
        self.devices[ifindex] = after = before._replace(**facts)
        self._tell(ifindex)
        if before.up != after.up and (peer := self._peer(after)):
            self._tell(peer.ifindex)  # its carrier

    def _peer(self, device: Interface) -> Interface | None:
        """The other end of a veth, if it is in this namespace."""
        far = device.far
        return self.devices.get(far.ifindex) if far and far.nsid is None else None

    def _meet(self, device: Interface, far: Far) -> None:
        """Tells the other end of a veth where this one is now."""
        if peer := self._peer(device):
            self._alter(peer.ifindex, far=far)

    def _tell(self, ifindex: int) -> None:
        names = [name for device in self.devices.values() for name in _names(device)]
        assert len(names) == len(set(names)), "the kernel would have refused that name"
        device = self.devices[ifindex]
        news = Event(ifindex, device.name, altnames=device.altnames, mac=device.mac)
        self.news.append(news)

    def _remove(self, ifindex: int) -> Interface:
        far = self.devices[ifindex].far
        if far and far.nsid is not None:
            self.elsewhere_.get(far.nsid, {}).pop(far.ifindex, None)
        self.addressed.pop(ifindex, None)
        self.taught.pop(ifindex, None)
        for entries in (self.devmap, *self.older_maps.values()):
            for key in [key for key, target in entries.items() if target == ifindex]:
                del entries[key]
        return self.devices.pop(ifindex)

    def _now(self, device: Interface) -> Interface:
        far = device.far
        if other := self._peer(device):
            far = Far(other.ifindex, None, other.name, other.mtu, other.up)
        if device.variant == "tap":
            return device
        connected = far is None or bool(far.up)
        return device._replace(far=far, carrier=device.up and connected)

    def _message(self, device: Interface) -> Interface:
        far = Far(device.far.ifindex, device.far.nsid) if device.far else None
        untold = {"features": frozenset[str](), "xdp_features": None, "driver": "", "root": None}
        return self._now(device)._replace(far=far, qdisc="", ingress=(), egress=(), **untold)


class Book:
    """The ledger without a disk; its writes are steps of the kernel, so that they can fail."""

    path = Path("ledger")

    def __init__(self, kernel: Kernel) -> None:
        self._step = kernel.step
        self.records: dict[int, Record] = {}
        self.programs: frozenset[int] = frozenset()
        self.moved_netns: tuple[MovedEnd, ...] = ()
        self.unreported: tuple[Record, ...] = ()
        self.passing: Mapping[str, Passing] = {}
        self.made: dict[str, Made] = {}
        self._host = ""

    @property
    def named(self) -> Mapping[str, Collection[int]]:
        names = {name for record in self.records.values() for name in (record.name, record.end)}
        return {
            name: [i for i, each in self.records.items() if name in (each.name, each.end)]
            for name in names - {""}
        }

    def hold_made(self, made: Made) -> None:
        self._step(f"hold {made.end}")
        self.made[made.end] = made

    def forget_made(self, end: str) -> None:
        self._step(f"forget {end}")
        self.made.pop(end, None)

    def hold(self, record: Record) -> None:
        self._step("hold", record.ifindex)
        self.records[record.ifindex] = record

    def hold_all(self, records: Iterable[Record]) -> None:
        """Not all of them may be there when it fails; who asked for them does so one by one."""
        for record in records:
            self.hold(record)

    def forget(self, ifindex: int) -> None:
        self._step("forget", ifindex)
        self.records.pop(ifindex, None)

    def forget_all(self, ifindexes: Iterable[int]) -> None:
        for ifindex in ifindexes:
            self.forget(ifindex)

    def host(self) -> str:
        return self._host

    def set_host(self, name: str) -> None:
        self._host = name

    def know_programs(self, ids: frozenset[int]) -> None:
        self.programs |= ids

    def set_moved_netns(self, moved: tuple[MovedEnd, ...]) -> None:
        self.moved_netns = moved

    def set_unreported(self, records: tuple[Record, ...]) -> None:
        self.unreported = records

    def set_passing(self, passing: Mapping[str, Passing]) -> None:
        self.passing = dict(passing)

    def set_config(self, _path: Path) -> None:
        return

    def starts(self) -> Mapping[str, int]:
        return {}


class Nodes:
    """Where the nodes of the fake kernel are: what ``ip netns`` names, and what engines know.

    Attributes:
        silent: the names of nodes whose engine does not answer.
        warning: what there is to say of all nodes that are there.
        wanted: what the wiring names now.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.silent: set[str] = set()
        self.warning = ""
        self.wanted: tuple[Node, ...] = ()
        self._told: dict[str, tuple[NodeNamespace, int | None]] = {}

    def want(self, nodes: Iterable[Node]) -> None:
        self.wanted = tuple(nodes)
        self._told = self._all()

    def find(self, node: Node) -> NodeNamespace:
        if node.name in self.silent:
            words = f"node {node.name} cannot be looked for: its engine does not answer"
            return NodeNamespace("", words, certain=False)
        path = node.netns or f"/run/netns/{node.name}"
        if path in (OWN, *self._kernel.namespaces):
            return NodeNamespace(path, warning=self.warning)
        return NodeNamespace("", f"node {node.name} is not running: there is no {path}")

    def _all(self) -> dict[str, tuple[NodeNamespace, int | None]]:
        found = {each: self.find(each) for each in self.wanted}
        numbers = self._kernel.namespaces
        return {each.name: (place, numbers.get(place.path)) for each, place in found.items()}

    def is_ready(self) -> bool:
        return self._all() != self._told

    def drain(self) -> frozenset[str]:
        before, self._told = self._told, self._all()
        return frozenset(name for name, each in self._told.items() if each != before.get(name))

    def fileno(self) -> int:
        return -1


class Tunnels:
    """What the daemons of other hosts say, and what they are told.

    Attributes:
        announced: what is told of each link that leads to another host, by the end there.
        key: what authenticates it.
        told: what is known of the other sides.
    """

    def __init__(self) -> None:
        self.announced: dict[str, Announcement] = {}
        self.key = ""
        self.told: dict[str, Heard] = {}
        self._news: set[str] = set()

    def want(self, announcements: Iterable[Announcement], key: str) -> None:
        self.announced, self.key = {each.end: each for each in announcements}, key

    def heard(self, end: str) -> Heard:
        return self.told.get(end, Heard())

    def say(self, end: str, *, alive: bool | None = True, **facts: Any) -> None:
        """What is known of the other side from now on."""
        self.told[end] = Heard(alive, **facts)
        self._news.add(end)

    def is_ready(self) -> bool:
        return bool(self._news)

    def drain(self) -> frozenset[str]:
        news, self._news = frozenset(self._news), set()
        return news

    def fileno(self) -> int:
        return -1


def _names(device: Interface) -> tuple[str, ...]:
    return (device.name, *device.altnames)


def _ids(filters: Collection[Filter]) -> set[int]:
    return {filter_.program for filter_ in filters}


def _programs(device: Interface) -> set[int]:
    return {xdp.program for xdp in device.xdp} | _ids((*device.ingress, *device.egress))


def _address_generation(device: Interface, mtu: int) -> int | None:
    """IPv6 goes with an MTU that is too small for it, and comes anew with one that is not."""
    if mtu < 1280 or device.kind == "tun":  # the taps here never speak it
        return None
    return 0 if device.addr_gen_mode is None else device.addr_gen_mode


def _same_place(one: Filter, other: Filter) -> bool:
    return (one.priority, one.handle) == (other.priority, other.handle)
