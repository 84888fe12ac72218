"""A lab of network namespaces: where the daemon's host and its containers and guests live.

Everything a lab makes carries its name (``xc<pid>-<n>``), goes when the lab is closed, and is
swept by the next session if this one was killed. Nothing outside these namespaces is touched.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, Final, TypeVar

from xconnectd.dataplane import libbpf
from xconnectd.dataplane.programs import Dataplane

from .traffic import OFFLOADS, Closing, Port, Pump, Tap

T = TypeVar("T")

REPO: Final = Path(__file__).resolve().parents[2]
NETNS: Final = Path("/run/netns")
BPFFS: Final = Path("/sys/fs/bpf")
PINS: Final = BPFFS / "xconnectd"
NO_IPV6: Final = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
NAME: Final = re.compile(r"xc(\d+)-\d+")
PATIENCE: Final = 60.0
"""Seconds until what takes milliseconds is taken for lost: a busy machine is no failure."""

_CLONE_NEWNET: Final = 0x40000000
_SO_NETNS_COOKIE: Final = 71
_libc = ctypes.CDLL(None, use_errno=True)
_counter = itertools.count(1)


def poll(
    condition: Callable[[], T], timeout: float = PATIENCE, what: str = "", interval: float = 0.01
) -> T:
    """Wait until ``condition`` is truthy and return what it returned."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}")
        time.sleep(interval)
    return result


def holds(condition: Callable[[], object], duration: float, interval: float = 0.02) -> None:
    """Assert that ``condition`` stays true for a while."""
    deadline = time.monotonic() + duration
    while time.monotonic() < deadline:
        assert condition(), condition
        time.sleep(interval)


@contextlib.contextmanager
def meanwhile(*acts: Callable[[], object]) -> Iterator[Callable[[], list[int]]]:
    """Each in a process of its own, again and again until the block ends; tells how often.

    None is cut off in the middle of its act, nor goes on when this process was killed.
    """
    counts: list[Synchronized[int]] = [multiprocessing.Value("L", 0) for _ in acts]
    over, parent = multiprocessing.Event(), os.getpid()

    def repeat(act: Callable[[], object], count: Synchronized[int]) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while not over.is_set() and os.getppid() == parent:
            act()
            count.value += 1

    many = [
        multiprocessing.Process(target=repeat, args=each, daemon=True)
        for each in zip(acts, counts, strict=True)
    ]
    for process in many:
        process.start()
    try:
        yield lambda: [count.value for count in counts]
        assert all(process.is_alive() for process in many), "one broke off"
    finally:
        over.set()
        for process in many:
            process.join(PATIENCE)
            process.terminate()
            process.join()


def run(
    *command: str, namespace: str = "", check: bool = True, text: str | None = None, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command, in a network namespace if one is named (bpffs stays visible there)."""
    enter = ("nsenter", f"--net={NETNS / namespace}") if namespace else ()
    done = subprocess.run(
        (*enter, *command), input=text, capture_output=True, text=True, timeout=120, **more
    )
    if check and done.returncode:
        raise AssertionError(f"{command} exits {done.returncode}: {done.stderr or done.stdout}")
    return done


def in_public(*command: str) -> list[str]:
    """The command with this checkout at /mnt: others than root may not get at it where it lies."""
    script = f'mount --bind "{REPO}" /mnt && cd /mnt && PYTHONPATH=/mnt exec "$@"'
    words = (word.replace(str(REPO), "/mnt") for word in command)
    return ["unshare", "--mount", "sh", "-c", script, "sh", *words]


def words(commands: Sequence[str]) -> Sequence[str]:
    """The words of a command, which may stand in one text."""
    return commands[0].split() if len(commands) == 1 else commands


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextlib.contextmanager
def entered(namespace: str) -> Iterator[None]:
    """This thread, and what it starts, is in a network namespace until the block ends."""
    with (NETNS / namespace).open() as there, Path("/proc/thread-self/ns/net").open() as here:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(here.fileno())


def inside(namespace: str, function: Callable[[], T]) -> T:
    """Call ``function`` in a network namespace, from a thread that ends with the call."""

    def call() -> T:
        with entered(namespace):
            return function()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call).result()


def cookie(namespace: str) -> int:
    """What names the namespace for ever, unlike its inode number."""

    def read() -> int:
        with socket.socket(socket.AF_UNIX) as plain:
            raw = plain.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        return int.from_bytes(raw, sys.byteorder)

    return inside(namespace, read)


def entries(path: Path) -> dict[int, int]:
    """What a wiring map holds; who asks ``bpftool`` for a map that grows may meet an error."""
    found = {}
    for entry in json.loads(run("bpftool", "-j", "map", "dump", "pinned", str(path)).stdout):
        if "error" not in entry.get("value", {}):
            key, value = (bytes(int(x, 16) for x in entry[k][:4]) for k in ("key", "value"))
            found[int.from_bytes(key, "little")] = int.from_bytes(value, "little")
    return found


def delete_entry(path: Path, key: int) -> None:
    octets = [f"{octet:#04x}" for octet in key.to_bytes(4, "little")]
    run("bpftool", "map", "delete", "pinned", str(path), "key", *octets, check=False)


@dataclass
class Station:
    """A network namespace with one interface whose other side is ``end``, in the host."""

    namespace: str
    end: str
    number: int | None = None
    interface: str = "eth0"

    def address(self, v6: bool = False) -> str:
        assert self.number is not None, f"{self.namespace} was built without an address"
        return f"2001:db8::{self.number:x}" if v6 else f"198.51.100.{self.number}"

    def port(self, protocol: int = socket.ntohs(socket.htons(3))) -> Port:
        """A raw socket on the interface; 3 is every ethertype."""
        return inside(self.namespace, lambda: Port(self.interface, protocol))

    def ip(self, *args: str) -> str:
        return run("ip", *words(args), namespace=self.namespace).stdout

    def tc(self, *args: str) -> str:
        return run("tc", *words(args), namespace=self.namespace).stdout

    def use_address(self, number: int, v6: bool = False) -> None:
        """Give it the addresses of this number."""
        self.number = number
        self.ip(f"address add {self.address()}/24 dev {self.interface}")
        if v6:
            self.ip(f"address add {self.address(v6=True)}/64 dev {self.interface} nodad")

    @property
    def mac(self) -> bytes:
        link = json.loads(self.ip("-j", "link", "show", self.interface))[0]
        return bytes.fromhex(link["address"].replace(":", ""))

    def ethtool(self, *features: str) -> None:
        """What a container does to its own offloads: ``"gro", "on", "tx", "off"``."""
        run("ethtool", "-K", self.interface, *features, namespace=self.namespace)

    def ready_for_native(self) -> None:
        """What native XDP on veth asks of the far end: nothing arrives otherwise."""
        self.ethtool("gro", "on", "tx", "off", "txvlan", "off", "tx-vlan-stag-hw-insert", "off")


@dataclass
class Guest(Station):
    """A virtual machine as the host sees one: a tap that another process reads and writes.

    Its "network card" is a second tap, in the guest's namespace; a pump carries the frames
    with their virtio headers between the two, so TCP runs with its real offloads.
    """

    tap: Tap = field(kw_only=True)
    card: Tap = field(kw_only=True)

    def offload(self, flags: int) -> None:
        """What the guest's driver does when it loads, unloads, or negotiates anew."""
        self.card.offload(flags)
        self.tap.offload(flags)


S = TypeVar("S", bound=Station)


class Lab(Closing):
    """A ``host`` namespace and what is plugged into it. Use it as a context manager."""

    def __init__(self) -> None:
        self.name = f"xc{os.getpid()}-{next(_counter)}"
        self.directory = Path(tempfile.gettempdir()) / self.name
        self.directory.mkdir()
        self._closers = contextlib.ExitStack()
        self._closers.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.host = self.namespace("host")
        self.cookie = cookie(self.host)
        (self.directory / "cookie").write_text(str(self.cookie))
        self._closers.callback(_remove_pins, self.cookie)
        self._lasting, self._closers = self._closers, contextlib.ExitStack()

    def close(self) -> None:
        """Leave nothing behind, whatever has failed before. The daemons go first."""
        with self._lasting:
            self._closers.close()

    def on_close(self, function: Callable[..., object], *args: object) -> None:
        self._closers.callback(function, *args)

    def keep_until_close(self, function: Callable[..., object], *args: object) -> None:
        """Like ``on_close``, but for what no ``empty`` takes away."""
        self._lasting.callback(function, *args)

    def empty(self, *kept: Path) -> None:
        """Take away what was made since the lab was, but for these files in its directory."""
        # In one go, as each delete by itself waits for the kernel; some are going by themselves.
        moving = (f"link set dev {name} group {_GROUP}" for name in self.interfaces())
        run("ip", "-force", "-batch", "-", namespace=self.host, text="\n".join(moving), check=False)
        self.ip("link", "delete", "group", _GROUP, check=False)
        self._closers.close()
        poll(lambda: not self.interfaces(), 10, "no interface but lo")
        self.ip("address", "flush", "dev", "lo", "scope", "global")
        for path in set(self.directory.iterdir()) - {self.directory / "cookie", *kept}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    @property
    def pins(self) -> Path:
        """Where the daemon of this lab's host keeps its programs and maps."""
        return PINS / str(self.cookie)

    def wiring_maps(self) -> list[Path]:
        """Of the newest programs, and the one that all share."""
        newest = sorted(self.pins.glob("programs-*/entries"))[-1:]
        return [*newest, *self.pins.glob("peers-*")]

    def change_maps(self, change: Callable[[Dataplane], object]) -> None:
        """As the daemon itself would change them."""
        with contextlib.closing(Dataplane.open(self.pins, build=False)) as plane:
            inside(self.host, lambda: change(plane))

    def namespace(self, role: str, quiet: bool = False) -> str:
        """A new namespace; a ``quiet`` one speaks no IPv6 of its own accord."""
        name = f"{self.name}-{role}"
        run("ip", "netns", "add", name)
        self._closers.callback(_remove_namespace, name)
        run("ip", "link", "set", "lo", "up", namespace=name)
        if quiet:
            inside(name, lambda: NO_IPV6.write_text("1"))
        return name

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the host's namespace."""
        return run(*command, namespace=self.host, check=check)

    def ip(self, *args: str, check: bool = True) -> str:
        return self.run("ip", *words(args), check=check).stdout

    def tc(self, *args: str, check: bool = True) -> str:
        return self.run("tc", *words(args), check=check).stdout

    def hush(self) -> None:
        """Have the host's interfaces that are made from now on speak no IPv6."""
        inside(self.host, lambda: NO_IPV6.write_text("1"))
        self.on_close(inside, self.host, lambda: NO_IPV6.write_text("0"))

    def batch(self, lines: Iterable[str]) -> None:
        """Many ``ip`` commands in the host, in one process."""
        run("ip", "-batch", "-", namespace=self.host, text="\n".join(lines) + "\n")

    def link(self, name: str) -> dict[str, Any]:
        """What ``ip -d link`` says of one interface of the host."""
        found: list[dict[str, Any]] = json.loads(self.ip("-d", "-j", "link", "show", "dev", name))
        return found[0]

    def ifindex(self, name: str) -> int:
        return int(self.link(name)["ifindex"])

    def link_counters(self, name: str) -> int:
        """Frames that an interface has sent and received so far."""
        found = json.loads(self.ip("-s", "-j", "link", "show", "dev", name))[0]["stats64"]
        return int(found["rx"]["packets"]) + int(found["tx"]["packets"])

    def xdp(self, name: str) -> int:
        """The id of the XDP program on an interface, 0 for none."""
        return int(self.link(name).get("xdp", {}).get("prog", {}).get("id", 0))

    def veth(
        self,
        end: str,
        number: int | None = None,
        *,
        mtu: int = 1500,
        up: bool = True,
        index: int | None = None,
        namespace: str = "",
    ) -> Station:
        """A container: ``end`` in the host, ``eth0`` in a namespace of its own.

        With a ``number`` it has addresses; without one it never speaks unless told to.
        A ``namespace`` that exists already gets a new interface (a container restarted).
        """
        inner = namespace or self.namespace(end, quiet=number is None)
        at = f"index {index}" if index else ""
        peer = f"peer name eth0 mtu {mtu} netns {inner}"
        state = "up" if up else "down"
        self.ip(f"link add name {end} {at} mtu {mtu} {state} type veth {peer}")
        return self._brought_up(Station(inner, end, number))

    def veths(self, *ends: str) -> list[Station]:
        """A container without addresses for each."""
        return [self.veth(end) for end in ends]

    def pair(self, end: str, other: str, up: bool = True) -> None:
        """A veth with both ends in the host."""
        self.ip("link", "add", "name", end, "type", "veth", "peer", "name", other)
        for name in (end, other) if up else ():
            self.ip("link", "set", "dev", name, "up")

    def tap(self, end: str, *, vnet_hdr: bool = True, offloads: int = OFFLOADS) -> Tap:
        """A tap in the host that this process drives; frames go in and out by its ``Tap``."""
        tap = inside(self.host, lambda: Tap(end, vnet_hdr=vnet_hdr, offloads=offloads))
        self.on_close(tap.close)
        self.ip("link", "set", "dev", end, "txqueuelen", "10000", "up")
        return tap

    def guest(
        self,
        end: str,
        number: int | None = None,
        *,
        mtu: int = 1500,
        vnet_hdr: bool = True,
        offloads: int = OFFLOADS,
    ) -> Guest:
        """A virtual machine on a tap."""
        inner = self.namespace(end, quiet=number is None)
        tap = self.tap(end, vnet_hdr=vnet_hdr, offloads=offloads)
        self.ip(f"link set dev {end} mtu {mtu}")
        card = inside(inner, lambda: Tap("eth0", vnet_hdr=vnet_hdr, offloads=offloads))
        self.on_close(card.close)
        pump = Pump(tap, card)
        self.on_close(pump.close)
        guest = Guest(inner, end, number, tap=tap, card=card)
        guest.ip(f"link set eth0 mtu {mtu} txqueuelen 10000")
        return self._brought_up(guest)

    def macvlan(self, end: str, lower: str, mode: str = "bridge") -> None:
        self.ip(f"link add link {lower} name {end} up type macvlan mode {mode}")

    def bridge(self, name: str, *ports: str) -> None:
        self.ip(f"link add {name} up type bridge")
        self.batch(f"link set dev {port} master {name}" for port in ports)

    def delete(self, *ends: str) -> None:
        for end in ends:
            self.ip("link", "delete", "dev", end)

    def move(self, namespace: str, *ends: str) -> None:
        """Into another namespace, where they are down."""
        self.batch(f"link set {end} netns {namespace}" for end in ends)

    def bring_back(self, namespace: str, *ends: str) -> None:
        back = "".join(f"link set {end} netns {self.host}\n" for end in ends)
        run("ip", "-batch", "-", namespace=namespace, text=back)
        self.batch(f"link set {end} up" for end in ends)

    def _brought_up(self, station: S) -> S:
        if station.number is not None:
            station.use_address(station.number, v6=True)
        station.ip("link set eth0 up")
        return station

    def mirred(self, *ends: str) -> None:
        """Wire two ends with ``tc mirred``: the yardstick, and the lab's own proof."""
        self.mirred_one_way(*ends)
        self.mirred_one_way(*reversed(ends))

    def mirred_one_way(self, end: str, other: str) -> None:
        self.tc(f"qdisc add dev {end} clsact", check=False)
        self.tc(f"filter add dev {end} ingress {redirect_all(other)}")

    def unwire(self, *ends: str) -> None:
        """Take :meth:`mirred` off. The qdisc stays: to remove one costs frames on their way out."""
        for end in ends:
            self.tc("filter", "delete", "dev", end, "ingress")

    def snapshot(self) -> dict[str, Any]:
        """Everything of the host that a daemon could have changed, in a form to compare."""
        links = self.links()
        shown = [link for link in json.loads(self.ip("-j", "address", "show")) if link]
        return {
            "links": links,
            "addresses": {
                link["ifname"]: sorted(f"{x['local']}/{x['prefixlen']}" for x in link["addr_info"])
                for link in shown
            },
            "qdiscs": self.tc("qdisc", "show"),
            "filters": {name: self._filters(name) for name in links},
            "features": {name: self.features(name) for name in links},
        }

    def links(self) -> dict[str, dict[str, Any]]:
        """What ``ip -d link`` says of every interface, without what changes by itself."""
        shown: list[dict[str, Any]] = json.loads(self.ip("-d", "-j", "link", "show"))
        for link in shown:
            link.pop("stats", None), link.pop("stats64", None)
        return {link["ifname"]: link for link in shown}

    def settled(self) -> dict[str, Any]:
        """The host once the kernel has finished with carriers and link-local addresses."""

        def complete() -> bool:
            shown = [x for x in json.loads(self.ip("-j", "-d", "address", "show")) if x]
            if any("LOWER_UP" in x["flags"] and _is_passing(x) for x in shown):
                return False
            up = [x for x in shown if x["operstate"] == "UP"]
            ready = [x for x in up if x.get("inet6_addr_gen_mode") == "eui64"]
            tentative = [a for x in ready for a in x["addr_info"] if a.get("tentative")]
            return not tentative and all(x["addr_info"] for x in ready)

        poll(complete, what="link-local addresses")
        return self.snapshot()

    def assert_as_found(self, before: dict[str, Any]) -> None:
        """Compare with an earlier snapshot, part by part: a failure shows what differs."""
        with contextlib.suppress(AssertionError):
            poll(lambda: self.snapshot() == before, 10, interval=0.1)
        now = self.snapshot()
        for part, found in before.items():
            assert now[part] == found, f"{part}: {now[part]}, not {found}"

    def interfaces(self) -> list[str]:
        """The names of all but ``lo``."""
        shown = json.loads(self.ip("-j", "link"))
        return [each["ifname"] for each in shown if each["ifname"] != "lo"]

    def bones(self) -> str:
        """What there is without any interface but ``lo``: the same in every lab that is empty."""
        return self.run("sh", "-c", _BONES).stdout

    def features(self, name: str) -> dict[str, str]:
        lines = self.run("ethtool", "-k", name, check=False).stdout.splitlines()[1:]
        return {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}

    def _filters(self, name: str) -> list[str]:
        return [self.tc("filter", "show", "dev", name, way) for way in ("ingress", "egress")]

    def program(self, kind: int, instructions: Sequence[int], name: str = "foreign") -> Path:
        """Load a program that is not xconnectd's; it is pinned, so ip and tc can attach it."""
        path = BPFFS / f"{self.name}-{name}"
        _load(kind, instructions, name, path)
        self.on_close(path.unlink, True)
        return path

    def foreign_xdp(self, end: str, name: str = "foreign") -> int:
        """Attach somebody else's XDP program (it passes every frame); returns its id."""
        path = self.program(PROG_XDP, XDP_PASS, name)
        self.ip("link", "set", "dev", end, "xdpgeneric", "pinned", str(path))
        return self.xdp(end)

    def tag(self, station: Station, vlan: int) -> None:
        """Give a container a VLAN as its driver would: the tag travels as metadata.

        It stands in for a VLAN device, which not every kernel has.
        """
        station.tc(f"qdisc add dev {station.interface} clsact")
        for way, code in (("egress", vlan_push(vlan)), ("ingress", vlan_pop(vlan))):
            path = self.program(PROG_TC, code, f"{way}{vlan}-{station.end}")
            station.tc(f"filter add dev {station.interface} {way} bpf da pinned {path}")

    def retag(self, station: Station, vlan: int) -> None:
        station.tc("qdisc delete dev eth0 clsact")
        self.tag(station, vlan)


def redirect_all(target: str) -> str:
    """A filter of tc's and its action."""
    return f"u32 match u32 0 0 action mirred egress redirect dev {target}"


_GROUP: Final = "77"
_BONES: Final = r"""
ip -o link; ip -o address; ip rule; ip -6 rule; ip route show table all
ip -6 route show table all; ip neighbour; tc qdisc
sysctl -ar '^net.ipv[46].(ip_forward|conf.(all|default))'
"""


PROG_TC: Final = 3
PROG_XDP: Final = 6


def code(opcode: int, register: int = 0, immediate: int = 0) -> int:
    return opcode | register << 8 | (immediate & 0xFFFFFFFF) << 32


_EXIT: Final = code(0x95)
_OK: Final = code(0xB7, 0, 0)
XDP_PASS: Final = (code(0xB7, 0, 2), _EXIT)
XDP_DROP: Final = (code(0xB7, 0, 1), _EXIT)
TC_CONTINUE: Final = (code(0xB7, 0, -1), _EXIT)
TC_DROP: Final = (code(0xB7, 0, 2), _EXIT)


def vlan_push(vlan: int) -> tuple[int, ...]:
    """Tag every frame, as metadata."""
    protocol = socket.htons(0x8100)
    return (code(0xB7, 2, protocol), code(0xB7, 3, vlan), code(0x85, 0, 18), _OK, _EXIT)


def vlan_pop(vlan: int) -> tuple[int, ...]:
    """Untag the frames of one VLAN; drop every other frame."""
    tci = 24  # in struct __sk_buff: len, pkt_type, mark, queue_mapping, protocol, present, tci
    return (
        code(0x61, 2 | 1 << 4, 0) | tci << 16,  # r2 = skb->vlan_tci
        code(0x57, 2, 0xFFF),
        code(0xB7, 0, 2),  # TC_ACT_SHOT
        code(0x55, 2, vlan) | 2 << 16,  # if r2 != vlan: exit
        code(0x85, 0, 19),
        _OK,
        _EXIT,
    )


def _load(kind: int, instructions: Sequence[int], name: str, path: Path) -> None:
    code = struct.pack(f"<{len(instructions)}Q", *instructions)
    handle = libbpf.load_program(kind, re.sub(r"\W", "_", name)[:15], "GPL", code)
    try:
        libbpf.pin(handle, path)
    finally:
        os.close(handle)


def _remove_namespace(name: str) -> None:
    """The namespace, and whatever still runs in it: it is ours, so that is too."""
    for pid in run("ip", "netns", "pids", name, check=False).stdout.split():
        if int(pid) != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    run("ip", "netns", "delete", name, check=False)


def _is_passing(shown: dict[str, Any]) -> bool:
    """Whether the kernel is still to say of an interface with a carrier that it is up.

    Of a veth that is new it says for a moment that it does not know, of a tap for good.
    """
    unknown = shown["operstate"] == "UNKNOWN"
    is_veth = shown.get("linkinfo", {}).get("info_kind") == "veth"
    return "DOWN" in shown["operstate"] or (unknown and is_veth)


def _remove_pins(number: int) -> None:
    if number:
        shutil.rmtree(PINS / str(number), ignore_errors=True)


def sweep() -> list[str]:
    """Remove what sessions that are dead by now have left; returns the names."""
    found = [*NETNS.glob("xc*"), *BPFFS.glob("xc*"), *Path(tempfile.gettempdir()).glob("xc*")]
    owners = {path: owner[1] for path in found if (owner := NAME.match(path.name))}
    dead = [path for path, pid in owners.items() if not Path("/proc", pid).exists()]
    for path in dead:
        if path.parent == NETNS:
            _remove_namespace(path.name)
        elif path.parent == BPFFS:
            path.unlink(missing_ok=True)
        else:
            with contextlib.suppress(OSError, ValueError):
                _remove_pins(int((path / "cookie").read_text()))
            shutil.rmtree(path, ignore_errors=True)
    return [path.name for path in dead]
