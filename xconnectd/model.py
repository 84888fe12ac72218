"""Frozen value types: what the file asks for and what the kernel holds.

No I/O, no logging, and of the rest of the package only what is such a type too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntFlag, StrEnum
from functools import cached_property
from shlex import quote
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Self

from xconnectd.digest import sha256
from xconnectd.impairment import Impairments
from xconnectd.monitor_address import MonitorAddress
from xconnectd.shape import RootQdisc

_NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})

# --------------------------------------------------------------------------- desired


class Mode(StrEnum):
    """How the frames of a link are carried. ``AUTO`` is a wish, the others are answers too."""

    AUTO = "auto"
    GENERIC = "generic"
    NATIVE = "native"
    TC = "tc"


DEFAULT_MTU: Final = 1500
"""Bytes, of an interface that is made in a node when neither its link nor ``defaults`` says so."""

LEAST_MTU: Final = 68
"""Bytes: of any Ethernet device in Linux (ETH_MIN_MTU)."""

DEFAULT_HOLD: Final = 30.0
"""Seconds that a link between hosts stands while the other host's daemon says nothing."""


class Admin(StrEnum):
    """Whether an end that is found administratively down is set up with its link."""

    MANAGE = "manage"
    KEEP = "keep"


class Carrier(StrEnum):
    """Whether an end shows its far end a carrier only while there is one behind its partner."""

    FOLLOW = "follow"
    INDEPENDENT = "independent"


class Rewrite(StrEnum):
    """What is changed of a frame on its way."""

    NONE = "none"
    SWAP_MACS = "swap-macs"


class Node(NamedTuple):
    """Another network namespace by what the file calls it: a container, a machine's, a process's.

    At most one of ``netns`` (the path of a namespace's file), ``container`` (its name in Docker or
    Podman) and ``pid`` says where it is. With none of them it is found by its name.
    """

    name: str
    netns: str = ""
    container: str = ""
    pid: int = 0


VXLAN_PORT: Final = 14789
"""UDP port of tunnels; 4789 is often blocked between labs."""


class Tunnel(NamedTuple):
    """A VXLAN device, point to point: the IP address of the other side, VNI and UDP port."""

    remote: str
    vni: int
    port: int = VXLAN_PORT

    @property
    def overhead(self) -> int:
        """Bytes of the underlay's MTU beside a frame's payload: IP, UDP, VXLAN, Ethernet."""
        return 70 if ":" in self.remote else 50

    def fits(self, mtu: int) -> int:
        """The longest payload that crosses in one packet of a way with this MTU, in bytes."""
        return max(mtu - self.overhead, LEAST_MTU)


class Way(NamedTuple):
    """To the other side of a tunnel: the longest packet, in bytes with its IP header.

    ``mtu`` is None where there is no way, and ``problem`` says why.
    """

    mtu: int | None = None
    problem: str = ""


class Endpoint(NamedTuple):
    """What the file calls an end: an interface (or altname), or ``NODE:INTERFACE``.

    ``name`` is that text, whole. An end in a ``node`` is a veth whose other end is in the daemon's
    namespace; that one is wired. An end on a ``host`` is written ``HOST/END``. In the links of one
    host (``config.hosts``) those of its own have the rest alone as their name, and those of others
    have a ``tunnel`` that leads there. Without a host, a tunnel leads to a device that is not ours.

    ``written`` is what the file calls it, where that is not ``name``: an end on this host, or one
    that was found in the kernel under the name of the interface that was made for it.
    """

    name: str
    node: Node | None = None
    written: str = ""
    host: str = ""
    tunnel: Tunnel | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def text(self) -> str:
        """What the file calls it."""
        return self.written or self.name

    @property
    def interface(self) -> str:
        """What it is called in its namespace."""
        return self.name.partition(":")[2] if self.node else self.name.rpartition("/")[2]


class Place(NamedTuple):
    """Where something stands in a file; line and column count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Link:
    """A pair of ends and its options. ``a`` and ``b`` stand as the file has them.

    ``carrier_of_nics``: the link itself, not ``defaults``, says ``carrier: follow``, so an end that
    is neither veth nor tap may be set down, too. ``monitors`` are the monitors of the virtual
    machines behind its ends, by the names of those. ``mtu`` is that of the interfaces that are made
    in nodes for it, in bytes. ``impair`` is None where nothing is impaired. ``one_way``: frames go
    from ``a`` to ``b`` alone.

    Of a link between two hosts: ``vni`` is that of its tunnel, 0 where its ends say it; ``hold``
    is for how many seconds it stands while the other host's daemon says nothing; ``digest`` is that
    of all in which both hosts must agree, and empty in the links of a whole file.
    """

    a: Endpoint
    b: Endpoint
    mode: Mode = Mode.AUTO
    one_way: bool = False
    rewrite: Rewrite = Rewrite.NONE
    enabled: bool = True
    admin: Admin = Admin.MANAGE
    allow_addressed: bool = False
    carrier: Carrier = Carrier.FOLLOW
    carrier_of_nics: bool = False
    monitors: tuple[tuple[str, MonitorAddress], ...] = ()
    mtu: int = DEFAULT_MTU
    impair: Impairments | None = None
    vni: int = 0
    hold: float = DEFAULT_HOLD
    digest: str = ""
    description: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    place: Place | None = field(default=None, compare=False)
    id: str = field(init=False, compare=False)
    """The same text for ``a: b`` and ``b: a``, so that turning a line round changes nothing.

    With an end in a node a comma stands between the two: ``a`` with ``b:c`` and ``a:b`` with ``c``
    are two links. And with one on a host.
    """

    def __post_init__(self) -> None:
        a, b = self.a, self.b
        elsewhere = a.node or b.node or a.host or b.host or a.tunnel or b.tunnel
        first, second = sorted((a.written or a.name, b.written or b.name))
        object.__setattr__(self, "id", f"{first}{',' if elsewhere else ':'}{second}")

    @property
    def tunnel_end(self) -> Endpoint | None:
        """The end that a tunnel leads to; None of a link within this host."""
        return self.b if self.b.tunnel else self.a if self.a.tunnel else None

    @property
    def ends(self) -> tuple[Endpoint, ...]:
        """Both ends; one end for a loopback (``a: a``)."""
        return (self.a,) if self.a == self.b else (self.a, self.b)

    @property
    def manner(self) -> str:
        """What becomes of frames, in words."""
        way = f"one way: {self.a} → {self.b}" if self.one_way else "both ways"
        swapped = self.rewrite is Rewrite.SWAP_MACS
        return f"{way}, source and destination MAC swapped" if swapped else way


@dataclass(frozen=True, slots=True)
class Listen:
    """Where metrics are served: an IP address and a TCP port, or the path of a unix socket."""

    address: str = ""
    port: int = 0
    path: str = ""
    place: Place | None = field(default=None, compare=False)

    def __str__(self) -> str:
        """As the file has it."""
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


@dataclass(frozen=True)
class Wiring:
    """Everything good files ask for, links in their order.

    ``text`` is that of the file; of several, their hashes; and empty of what no file asks for.
    ``hosts`` are names and IP addresses. ``hosts_key`` authenticates what the daemons of those say
    to each other; empty: nothing does. ``host`` is the one whose links these are, empty in the
    wiring of a whole file.
    """

    links: tuple[Link, ...] = ()
    warnings: tuple[str, ...] = ()
    metrics: Listen | None = None
    text: bytes = field(default=b"", repr=False, compare=False)
    hosts: tuple[tuple[str, str], ...] = ()
    hosts_key: str = field(default="", repr=False)
    host: str = ""
    hosts_place: Place | None = field(default=None, compare=False)

    @cached_property
    def hash(self) -> str:
        """Of the text, in 12 digits. Taken when it is asked for, which no frame waits for."""
        return sha256(self.text).hexdigest()[:12] if self.text else ""


# --------------------------------------------------------------------------- observed


class XdpFeature(IntFlag):
    """Bits of the ``netdev`` family's xdp-features (linux/netdev.h, kernel 6.3)."""

    BASIC = 1
    REDIRECT = 2
    NDO_XMIT = 4


class Xdp(NamedTuple):
    """An XDP program on an interface. ``mode`` is ``generic``, ``native`` or ``hw``."""

    mode: str
    program: int


class Filter(NamedTuple):
    """A tc filter below clsact; ``program`` is 0 for a filter that is no BPF program."""

    kind: str
    priority: int
    handle: int
    program: int
    name: str = ""


class Far(NamedTuple):
    """The other end of a veth. ``nsid`` is None when it lives in this namespace.

    ``mtu`` and ``up`` (administratively) are None when its namespace would not tell;
    ``namespace`` is what ``ip netns`` calls that, looked up for one that is down.
    """

    ifindex: int
    nsid: int | None
    name: str = ""
    mtu: int | None = None
    up: bool | None = None
    namespace: str = ""


FarEnd = tuple[int, int | None]
"""What tells a ``Far`` from all others: its ``ifindex`` and its ``nsid``."""


class Interface(NamedTuple):
    """A network device as the kernel describes it now.

    ``kind`` is the rtnetlink kind (``veth``, ``tun``, ``macvlan``, …), empty for a NIC.
    ``variant`` refines it: ``tap``/``tun`` for a tun device, the mode of a macvlan.
    ``mtu`` and ``max_mtu`` are bytes of payload; ``max_mtu`` 0 means the kernel names none.
    ``features`` holds the active ethtool features, read for taps and NICs only. ``qdisc`` is what
    stands at ``ffff:``, ``root`` at the root, read where it is or was to impair frames. ``tunnel``
    is where a VXLAN device leads; the remote is empty where there is no single one. ``lowers`` are
    the ifindexes of those of this namespace that it stands on, as a VLAN does.
    """

    ifindex: int
    name: str
    altnames: tuple[str, ...] = ()
    kind: str = ""
    variant: str = ""
    ethernet: bool = True
    mac: str = ""
    up: bool = False
    carrier: bool = False
    promiscuous: bool = False
    mtu: int = 1500
    max_mtu: int = 0
    addr_gen_mode: int | None = None
    master: int = 0
    master_kind: str = ""
    far: Far | None = None
    xdp: tuple[Xdp, ...] = ()
    features: frozenset[str] = frozenset()
    xdp_features: XdpFeature | None = None
    driver: str = ""
    qdisc: str = ""
    ingress: tuple[Filter, ...] = ()
    egress: tuple[Filter, ...] = ()
    root: RootQdisc | None = None
    tunnel: Tunnel | None = None
    lowers: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Programs:
    """Ids of our programs: the current ones (0 for none), and ``known``, ever attached ones.

    ``swap_xdp`` and ``swap_ingress`` stand in for ``xdp`` and ``ingress`` where MACs are swapped;
    ``swapping`` has all that do that, older ones too. ``tunnel_ingress`` stands in for ``ingress``
    on a tunnel to another host, where it minds keepalives; ``tunneling`` has all that do.
    ``tunnel_egress`` stands in for ``egress`` on every tunnel. ``redirecting`` are the current ones
    that take in frames, ``ours`` has them all. ``filter_name`` begins the name of a filter that
    drops frames; the expression follows.
    """

    xdp: int = 0
    ingress: int = 0
    egress: int = 0
    known: frozenset[int] = frozenset()
    swap_xdp: int = 0
    swap_ingress: int = 0
    swapping: frozenset[int] = frozenset()
    filter_name: str = ""
    tunnel_ingress: int = 0
    tunneling: frozenset[int] = frozenset()
    tunnel_egress: int = 0
    redirecting: frozenset[int] = field(init=False)
    ours: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        redirecting = {self.xdp, self.ingress, self.swap_xdp, self.swap_ingress}
        redirecting |= {self.tunnel_ingress}
        ours = redirecting | {self.egress, self.tunnel_egress}
        object.__setattr__(self, "redirecting", frozenset(redirecting - {0}))
        object.__setattr__(self, "ours", self.known | (ours - {0}))

    def drop_name(self, expression: str) -> str:
        """Of a filter that drops what matches, and was made for the maps there are now."""
        return f"{self.filter_name} {expression}"


class Setting(StrEnum):
    """What we may change on an interface and must put back."""

    MTU = "mtu"
    UP = "up"
    CARRIER = "carrier"
    PROMISCUOUS = "promiscuous"
    ADDR_GEN_MODE = "addr_gen_mode"
    CLSACT = "clsact"
    ROOT_QDISC = "root_qdisc"


PROGRAM_NAME: Final = "xconnectd"
"""Of our programs and filters, so that `ip -d link` and `bpftool net` tell whose they are."""

FILTER_PRIORITY: Final = 1
FILTER_HANDLE: Final = 1
"""Where our filters stand below clsact, in front of everybody else's."""

DROP_HANDLE: Final = 0x7863
"""Of the one that drops frames of the wire ("xc"), at the same priority."""

CLOSED: Final = 0
"""In place of an ifindex among the peers: what comes in there is dropped, since the link leads the
other way only."""

FEATURE_PREFIX: Final = "feature:"
"""An ethtool feature is recorded as the setting ``feature:<its name>``."""


class Change(NamedTuple):
    """One setting as we found it and as we left it (booleans as 0 and 1)."""

    found: int
    ours: int


class Refusal(NamedTuple):
    """A driver's words against native XDP, and the MTU in bytes they were said at."""

    words: str
    mtu: int


class Record(NamedTuple):
    """An interface we hold: its identity and what we changed on it.

    It is written before the change, so that a crash leaves a way back. An ifindex is used
    again for another device, hence the MAC. ``settled`` is False until an end that was found
    down has been set up, and while we set one up or down: after that, up or down is what an
    operator wants. ``follows``: its carrier follows its partner. ``refusal`` is the one
    answer of the kernel that cannot be read again. ``idle_with`` is the ifindex of the other end
    while this one leads nowhere, when no map tells (None where there is no other);
    ``allowed`` is its ``allow_addressed``. ``kind`` is the interface's own, empty in a record of
    before 0.2 too. ``end`` is what the file calls it where that is in a node, else empty.
    """

    ifindex: int
    name: str
    mac: str
    changes: Mapping[str, Change] = _NOTHING
    settled: bool = True
    refusal: Refusal | None = None
    idle_with: int | None = None
    allowed: bool = False
    kind: str = ""
    follows: bool = False
    end: str = ""

    @property
    def identity(self) -> tuple[int, str, str]:
        """What no two records have in common; VLANs of one NIC have one MAC."""
        return self.ifindex, self.name, self.mac

    def is_of(self, interface: Interface) -> bool:
        return (self.ifindex, self.mac) == (interface.ifindex, interface.mac)


ELSEWHERE: Final = "# in the namespace where it is now: {}"
"""A command that must not be run here."""


class MovedEnd(NamedTuple):
    """An end that left this namespace, and with it what we had changed.

    ``mode`` is that of our XDP program on it, empty when that is off. ``nsid`` and
    ``new_ifindex`` say where it went, ``namespace`` what ``ip netns`` calls that and ``name``
    what it is called there, each as far as the kernel told. ``program`` is the XDP program that was
    current when it left: it can run that or an older one.
    """

    record: Record
    mode: str
    nsid: int | None = None
    new_ifindex: int | None = None
    namespace: str = ""
    name: str = ""
    program: int = 0

    @property
    def runs_ours(self) -> bool:
        return bool(self.mode)

    @property
    def remedy(self) -> str:
        """The command that takes our program off there; names are others' choice, so quoted.

        Where nobody knows how to get there it is a comment: here it would hit another device.
        """
        where = f"ip -n {quote(self.namespace)}" if self.namespace else ELSEWHERE.format("ip")
        flag = {"generic": "xdpgeneric", "native": "xdpdrv"}.get(self.mode, "xdp")
        return f"{where} link set dev {quote(self.name or self.record.name)} {flag} off"


class Lost(NamedTuple):
    """Frames that came in by an interface and were lost at the redirect, by reason."""

    mtu_exceeded: int = 0
    egress_down: int = 0
    xmit_unsupported: int = 0
    other: int = 0
    driver_drop: int = 0


class Counters(NamedTuple):
    """What was counted for frames that came in by one interface.

    ``frames`` and ``bytes`` were handed to the redirect; those of them that were ``lost`` there
    are told apart. ``no_entry``: dropped since there was no entry, ``one_way``: since the link
    leads the other way only. ``filtered``: handed on, and dropped by a filter where they were to
    leave. ``host_egress``: frames of the host itself that were dropped on their way out of this
    interface. ``last`` is when the last frame came in (CLOCK_MONOTONIC, ns; 0 if none did).
    ``untransmitted`` is the interface's own tx_dropped: what its driver or its far end would not
    take, since it exists. Of the frames that were to leave by this interface ``impaired_loss`` were
    lost by an impairment, and ``impaired_queue`` found its queue full. ``passed_to_host`` got past
    every hook as far as the host's IP stack, and was dropped there; None where nobody can tell.
    """

    frames: int = 0
    bytes: int = 0
    no_entry: int = 0
    host_egress: int = 0
    last: int = 0
    one_way: int = 0
    filtered: int = 0
    lost: Lost = Lost()
    untransmitted: int = 0
    impaired_loss: int = 0
    impaired_queue: int = 0
    passed_to_host: int | None = None


class Statistics(NamedTuple):
    """What the kernel counts of an interface, whoever sends or drops: frames."""

    received: int = 0
    sent: int = 0
    not_received: int = 0
    not_sent: int = 0


class NodeNamespace(NamedTuple):
    """Where a node is now.

    ``path`` is the file of its network namespace. It is empty where there is none, with the
    ``reason`` in words. ``certain``: the node is not there; otherwise whoever knows it could not be
    asked, and it may well be. ``warning``: two sources know the name.
    """

    path: str = ""
    reason: str = ""
    certain: bool = True
    warning: str = ""


class NodeEnd(NamedTuple):
    """What is to be known of an end in a node, beside its interface here.

    ``path`` is the file of the node's network namespace, ``inode`` the number of that and ``nsid``
    the id that it has here; there is none while the node is away. Where there is no such end one of
    the others says why: ``waiting`` (the node is away, ``certain`` says whether it surely is),
    ``refused`` (what is in its place; ``in_the_way`` is the ifindex which that has in the node, 0
    if it is not there) or ``is_missing`` (nothing is there: it is to be made). ``warning`` is about
    the node.
    """

    path: str = ""
    inode: int = 0
    nsid: int | None = None
    waiting: str = ""
    certain: bool = True
    refused: str = ""
    in_the_way: int = 0
    is_missing: bool = False
    warning: str = ""


class Made(NamedTuple):
    """An interface that we made for an end elsewhere; it is written down before it is made.

    ``name`` and ``mac`` are those of the interface here, ``end`` is the text of the file.

    Of a veth into a node, ``mtu`` (bytes) is what its far end was given, and ``namespace`` the
    inode of the network namespace that it was made into. ``settled``: the far end was set up, and
    from then on up or down is what the node wants. Of a VXLAN device ``tunnel`` is where it leads,
    ``digest`` that of its link (empty where that is disabled, or leads to no host), and ``partner``
    the text of the other end of that.
    """

    name: str
    mac: str
    end: str
    mtu: int = DEFAULT_MTU
    namespace: int = 0
    settled: bool = False
    tunnel: Tunnel | None = None
    digest: str = ""
    partner: str = ""

    @property
    def kind(self) -> str:
        """That of the interface."""
        return "vxlan" if self.tunnel else "veth"


class FarSetting(NamedTuple):
    """What the far end of a veth is given, by its name in its namespace; ``mtu`` in bytes."""

    name: str
    mtu: int
    set_up: bool


class Heard(NamedTuple):
    """What is known of the other side of a tunnel to another host, from its keepalives.

    ``alive``: frames come back from there, and its daemon wants the same link, or was silent for
    less than the link's ``hold``; ``reason`` says why it is not. None: nobody here listens, so what
    stands stays. ``offers``: what is behind the end there is alive, else ``cause`` says why not.
    The rest is to be shown: the state of the link there, its ``digest`` there, how long a frame
    takes there and back (s), when something was heard last (CLOCK_MONOTONIC, s), and what was
    counted there of frames that came out of the tunnel: handed on, and dropped (None: not told).
    Of the keepalives themselves: how many were ``sent``, ``echoed`` from there, ``received`` from
    its daemon, and ``unverified``: signed with another key, or not at all.
    """

    alive: bool | None = None
    reason: str = ""
    offers: bool = True
    cause: str = ""
    state: str = ""
    digest: str = ""
    round_trip: float | None = None
    last: float | None = None
    frames: int | None = None
    dropped: int | None = None
    sent: int = 0
    echoed: int = 0
    received: int = 0
    unverified: int = 0


class Announcement(NamedTuple):
    """What this host says of a link to another one, by the tunnel ``ifindex``.

    ``end`` is the text of the end there, by which ``Heard`` is asked for; ``link`` the link's id.
    ``offers``: what is behind the end here is alive and shown by the link, else ``cause`` says why
    not. ``state`` is that of the link here.
    """

    end: str
    link: str
    ifindex: int
    tunnel: Tunnel
    digest: str
    hold: float
    offers: bool
    cause: str
    state: str


class Use(NamedTuple):
    """What the host uses an interface for, in words; ``remedy`` is the command that ends it.

    ``learnt``: a router on the wire made the host believe it (a router advertisement, RFC 4861).
    """

    words: str
    remedy: str = ""
    learnt: bool = False


class Ours(NamedTuple):
    """What is ours on an interface. ``xdp`` are two programs at a change of mode alone.

    ``record`` is none of an earlier device with the same ifindex. ``runs``: whether there is any
    program of ours; ``held``: whether we made this interface an end, by a record or a program;
    ``hidden``: whether we set it down last, for its far end to see no carrier.
    """

    record: Record | None = None
    xdp: tuple[Xdp, ...] = ()
    ingress: tuple[Filter, ...] = ()
    egress: tuple[Filter, ...] = ()
    runs: bool = False
    held: bool = False
    hidden: bool = False


NOTHING: Final = Ours()
"""On an interface that is gone."""


class Observed(NamedTuple):
    """One look at the kernel. ``interfaces`` is keyed by ifindex, ``names`` leads there.

    ``entries`` is the DEVMAP (ingress ifindex to egress ifindex), ``peers`` its twin for tc, with
    ``CLOSED`` for an end of a link that leads the other way only.
    ``uses`` says what the host uses an interface for: all of it for an end of a link that is new,
    addresses alone for others. ``foreign`` describes programs that are not ours by id.
    ``guarded`` are the ends in front of which the host's IP stack is closed, None where that cannot
    be. ``covered`` are the ifindexes a narrow look asked for, None for a look at everything.
    ``monitors`` is what is wrong with monitors of virtual machines, in words.
    ``names`` has the text of an end elsewhere, too; ``nodes``, ``tunnels`` and ``made`` have what
    else there is to know of it, by that text: of a tunnel what is in the way of making it, in words
    (empty: nothing). ``ways`` are those to the other sides of tunnels, by their addresses, and
    ``heard`` has what is known of these, by the texts of the ends there.
    ``ours`` is what is ours on each of ``interfaces``, by ifindex (see ``told_apart``).
    """

    interfaces: Mapping[int, Interface] = _NOTHING
    names: Mapping[str, int] = _NOTHING
    entries: Mapping[int, int] = _NOTHING
    peers: Mapping[int, int] = _NOTHING
    programs: Programs = Programs()
    records: Mapping[int, Record] = _NOTHING
    uses: Mapping[int, tuple[Use, ...]] = _NOTHING
    foreign: Mapping[int, str] = _NOTHING
    moved_netns: tuple[MovedEnd, ...] = ()
    guarded: frozenset[int] | None = None
    covered: frozenset[int] | None = None
    monitors: Mapping[MonitorAddress, str] = _NOTHING
    nodes: Mapping[str, NodeEnd] = _NOTHING
    tunnels: Mapping[str, str] = _NOTHING
    ways: Mapping[str, Way] = _NOTHING
    made: Mapping[str, Made] = _NOTHING
    heard: Mapping[str, Heard] = _NOTHING
    ours: Mapping[int, Ours] = _NOTHING

    def told_apart(self) -> Self:
        """The same with ``ours``, from all else that it has."""
        ours = {ifindex: self.ours_on(each) for ifindex, each in self.interfaces.items()}
        return self._replace(ours=ours)

    def ours_on(self, interface: Interface) -> Ours:
        """Also on one that this look did not show."""
        ids, record = self.programs.ours, self.records.get(interface.ifindex)
        xdp = tuple([each for each in interface.xdp if each.program in ids])
        ingress = tuple([each for each in interface.ingress if each.program in ids])
        egress = tuple([each for each in interface.egress if each.program in ids])
        runs = bool(xdp or ingress or egress)
        if record and not (runs or record.mac == interface.mac):
            record = None
        up = record.changes.get(Setting.UP) if record else None
        hidden = up is not None and not up.ours
        return Ours(record, xdp, ingress, egress, runs, runs or record is not None, hidden)

    def keeps(self, link: Link, end: Interface, other: Interface) -> bool:
        """Whether ``end`` is held for this very link.

        One that got another end, or allows less than it did, is judged as a new one. Where an entry
        is lost nothing says that the link was another.
        """
        record = self.records.get(end.ifindex)
        if record and record.allowed and not link.allow_addressed:
            return False
        idle_with = record.idle_with if record else None
        leads_to = self.entries.get(end.ifindex) or self.peers.get(end.ifindex) or idle_with
        return leads_to in (None, other.ifindex) and self.ours[end.ifindex].held

    def find(self, end: Endpoint) -> Interface | None:
        index = self.names.get(end.name)
        return None if index is None else self.interfaces.get(index)

    def ends_of(self, links: Iterable[Link]) -> tuple[list[Interface], list[Interface]]:
        """The ends of these links that are there, and those of a link that does not stand yet."""
        ends, new = [], []
        for link in links:
            a, b = self.find(link.a), self.find(link.b)
            for end, other in ((a, b), (b, a)):
                if end:
                    ends.append(end)
                    if not (other and self.keeps(link, end, other)):
                        new.append(end)
        return ends, new


class Left(NamedTuple):
    """What the last pass left in the maps, as ``Observed`` has it; another object after each."""

    entries: dict[int, int]
    peers: dict[int, int]


# --------------------------------------------------------------------------- outcome


class State(StrEnum):
    """The state of a link, as users see it."""

    CONNECTED = "connected"
    WAITING = "waiting"
    DOWN = "down"
    DISABLED = "disabled"
    FAILED = "failed"


class End(NamedTuple):
    """One end as users see it.

    ``name`` is what the file calls it, in ``node`` and on ``host`` unless they are empty;
    ``host_interface`` is what is wired for it here, empty while there is none. MTUs are bytes;
    ``mtu`` is the interface's own, without the headroom that a link in generic mode gives it,
    ``far_mtu`` that of a veth's other end. ``far_nsid`` is the id that the other end's namespace
    has here, None where it is in this one. ``offers``: what is behind it is alive, None where that
    cannot be read. ``shows_carrier``: what is behind it sees a carrier, None where the link has no
    say in that. ``carrier_reason`` is why the end does not follow its partner, and ``hidden`` why
    what is behind it sees none.
    """

    name: str
    node: str = ""
    host_interface: str = ""
    host: str = ""
    ifindex: int | None = None
    attached: bool = False
    up: bool = False
    carrier: bool = False
    mtu: int | None = None
    far_mtu: int | None = None
    far_up: bool | None = None
    far_name: str = ""
    far_nsid: int | None = None
    offers: bool | None = None
    shows_carrier: bool | None = None
    carrier_reason: str = ""
    hidden: str = ""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a narrow look starts from: links, also such as are wanted no longer, and ifindexes."""

    links: frozenset[Link] = frozenset()
    ifindexes: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.links) + len(self.ifindexes)

    def __or__(self, other: Scope) -> Scope:
        return Scope(self.links | other.links, self.ifindexes | other.ifindexes)
