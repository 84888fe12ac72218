"""Random kernels, wirings and accidents for the laws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from builders import FOREIGN, TAP_OFFLOADS, link, wiring
from driven import Keeper
from hypothesis import strategies as st
from kernel import Kernel

from xconnectd.impairment import Impairment, Impairments
from xconnectd.model import Admin, Filter, Interface, Link, Mode, Rewrite
from xconnectd.reconcile.evaluate import Evaluation
from xconnectd.shape import RootQdisc

NAMES = tuple(f"e{number}" for number in range(8))


@dataclass(frozen=True, slots=True)
class Port:
    """An interface to be made; ``trouble`` is what makes it unfit, mostly nothing."""

    kind: str
    up: bool
    mtu: int
    trouble: str


_TROUBLES = ("", "", "", "", "", "clsact", "foreign", "missing", "master", "address", "router")
_PORT = st.builds(
    Port,
    kind=st.sampled_from(("veth", "veth", "veth", "cable", "tap", "bare tap", "nic", "macvlan")),
    up=st.booleans(),
    mtu=st.sampled_from((1400, 1500)),
    trouble=st.sampled_from(_TROUBLES),
)


def _without(*troubles: str) -> st.SearchStrategy[tuple[Port, ...]]:
    def port(one: Port) -> Port:
        return replace(one, trouble="") if one.trouble in troubles else one

    return st.tuples(*[_PORT.map(port)] * len(NAMES))


ports, healthy_ports = _without(), _without(*_TROUBLES)
unused_ports = _without("address", "router")
"""Without addresses: an end that is held may stay although a new one would be refused."""


def build(all_ports: tuple[Port, ...]) -> Kernel:
    """A ``cable`` leads to the next port, where that is one too."""
    kernel = Kernel()
    made: set[str] = set()
    for number, (name, port) in enumerate(zip(NAMES, all_ports, strict=True)):
        if name in made or port.trouble == "missing":
            continue
        after = all_ports[number + 1] if number + 1 < len(all_ports) else None
        if port.kind == "cable" and after and after.kind == "cable" and not after.trouble:
            kernel.cable(name, NAMES[number + 1], up=port.up, mtu=port.mtu)
            made.add(NAMES[number + 1])
        else:
            kind = "veth" if port.kind == "cable" else port.kind
            kernel.add(name, kind, up=port.up, mtu=port.mtu)
        _spoil(kernel, name, port.trouble)
    kernel.news.clear()
    return kernel


def _spoil(kernel: Kernel, name: str, trouble: str) -> None:
    match trouble:
        case "clsact":
            somebody = Filter("bpf", 49152, 1, FOREIGN, "somebody")
            kernel.alter(name, qdisc="clsact", egress=(somebody,))
        case "foreign":
            kernel.load_foreign(name)
        case "master":
            kernel.alter(name, master=3, master_kind="bridge")
        case "router":
            kernel.advertise(name)
        case "address":
            kernel.addressed[kernel.index(name)] = ("it has the address 192.0.2.1/24",)


@st.composite
def links(draw: st.DrawFn, names: tuple[str, ...] = NAMES) -> tuple[Link, ...]:
    """Some of the names in pairs, now and then with itself."""
    order = draw(st.permutations(names))
    count = draw(st.integers(0, len(names) // 2))
    return tuple(draw(_link(order[2 * number], order[2 * number + 1])) for number in range(count))


@st.composite
def _link(draw: st.DrawFn, a: str, b: str) -> Link:
    modes = (Mode.AUTO, Mode.AUTO, Mode.GENERIC, Mode.TC, Mode.NATIVE)
    b = a if draw(st.integers(0, 7)) == 0 else b
    mode = draw(st.sampled_from(modes))
    ways = [
        Impairment(drop=drop, rate=draw(st.sampled_from((0, 10**6, 10**9))))
        for drop in draw(st.permutations(("", "ip", "arp")))
    ]
    impaired = mode in (Mode.AUTO, Mode.TC) and draw(st.integers(0, 3)) == 0
    return link(
        a,
        b,
        mode=mode,
        impair=Impairments(*ways[:2]) if impaired else None,
        one_way=a != b and draw(st.integers(0, 3)) == 0,
        rewrite=draw(st.sampled_from((Rewrite.NONE, Rewrite.NONE, Rewrite.SWAP_MACS))),
        enabled=draw(st.integers(0, 5)) > 0,
        admin=draw(st.sampled_from((Admin.MANAGE, Admin.MANAGE, Admin.KEEP))),
        allow_addressed=draw(st.booleans()),
    )


wirings = links().map(lambda all_: wiring(*all_))


def _recreate(kernel: Kernel, name: str) -> None:
    was = kernel.get(name)
    kernel.delete(name)
    kernel.add(name, "veth", up=was.up, mtu=was.mtu)


def _recreate_with_the_same_number(kernel: Kernel, name: str) -> None:
    number = kernel.index(name)
    kernel.delete(name)
    kernel.add(name, "veth", ifindex=number)


def _rename(kernel: Kernel, name: str) -> None:
    if not kernel.has(new := f"{name}x"):
        kernel.alter(name, name=new, altnames=())


def _take_a_free_name(kernel: Kernel, name: str, *, as_altname: bool = False) -> None:
    if free := next((name for name in NAMES if not kernel.has(name)), None):
        kernel.alter(name, **({"altnames": (free,)} if as_altname else {"name": free}))


def _swap(kernel: Kernel, name: str) -> None:
    other = NAMES[(NAMES.index(name) + 1) % len(NAMES)]
    named = {device.name for device in kernel.devices.values()}
    if {name, other} <= named:
        kernel.alter(name, name="swap")
        kernel.alter(other, name=name)
        kernel.alter("swap", name=other)


def _come_back(kernel: Kernel, name: str) -> None:
    """One that left by this name, if it has not been replaced meanwhile."""
    for nsid, devices in kernel.elsewhere_.items():
        for number, device in list(devices.items()):
            taken = any(kernel.has(each) for each in (name, *device.altnames))
            if device.name == name and not taken:
                kernel.bring_back(number, nsid)


def _leave_an_older_program(kernel: Kernel, name: str) -> None:
    if any(xdp.program != FOREIGN for xdp in kernel.get(name).xdp):
        kernel.load_older(name)


def _queue(kernel: Kernel, name: str) -> None:
    """Somebody gives it a queue of his own in place of the kernel's or ours, or takes any away."""
    root = kernel.get(name).root
    kernel.alter(name, root=None if root else RootQdisc("fq_codel", 0x8001 << 16))


def _change_a_feature(kernel: Kernel, name: str) -> None:
    """A guest's driver gives a tap its offloads, or takes them."""
    device = kernel.get(name)
    if device.variant == "tap":
        kernel.alter(name, features=TAP_OFFLOADS - device.features)


ACCIDENTS: Mapping[str, Callable[[Kernel, str], object]] = {
    "deleted": Kernel.delete,
    "recreated": _recreate,
    "recreated with the same number": _recreate_with_the_same_number,
    "renamed": _rename,
    "moved away": Kernel.send_away,
    "named like one that is missing": _take_a_free_name,
    "swapped with its neighbour": _swap,
    "given a missing one's altname": partial(_take_a_free_name, as_altname=True),
    "set down": lambda kernel, name: kernel.alter(name, up=False),
    "set up": lambda kernel, name: kernel.alter(name, up=True),
    "given another MTU": lambda kernel, name: kernel.alter(name, mtu=1300),
    "given another MAC": lambda kernel, name: kernel.alter(name, mac="02:ff:00:00:00:01"),
    "given a foreign program": Kernel.load_foreign,
    "rid of its program": Kernel.unload,
    "left with an older program": _leave_an_older_program,
    "rid of clsact": Kernel.drop_filters,
    "rid of its entry": Kernel.lose_entry,
    "given offloads": _change_a_feature,
    "given a queue, or rid of one": _queue,
    "met by a router": Kernel.advertise,
    "made a port": lambda kernel, name: kernel.alter(name, master=3, master_kind="bridge"),
}
"""What happens to an interface that is there. All but a lost entry make news."""

_BACK = "come back"


@dataclass(frozen=True, slots=True)
class Accident:
    what: str
    name: str

    def strike(self, kernel: Kernel) -> None:
        if self.what == _BACK:
            _come_back(kernel, self.name)
        elif kernel.has(self.name):
            ACCIDENTS[self.what](kernel, self.name)


def accidents(*, at_most: int) -> st.SearchStrategy[list[Accident]]:
    one = st.builds(Accident, st.sampled_from((*sorted(ACCIDENTS), _BACK)), st.sampled_from(NAMES))
    return st.lists(one, max_size=at_most)


def assert_as_evaluated(keeper: Keeper) -> None:
    """Links that stand lead where they are to, ends that are held nowhere; nothing else is ours."""
    kernel, seen = keeper.kernel, keeper.reconciler.look()
    evaluations, observed = seen.evaluations, seen.observed
    ours: set[str] = set()
    for evaluation in evaluations:
        names = {end.name for end in evaluation.ends}
        if evaluation.stands and evaluation.link.enabled:
            leads = kernel.leads_one_way if evaluation.link.one_way else kernel.wired
            assert leads(evaluation.ends[0].name, evaluation.ends[-1].name), evaluation
            swaps = evaluation.link.rewrite is Rewrite.SWAP_MACS
            assert all(kernel.swaps(end.name) is swaps for end in evaluation.ends), evaluation
            impair = evaluation.link.impair or Impairments()
            a, b = evaluation.ends[0].name, evaluation.ends[-1].name
            assert kernel.filtered(b) == impair.forward.drop
            assert a == b or kernel.filtered(a) == impair.reverse.drop
            for end in evaluation.ends:
                shape, root = evaluation.shapes.get(end.ifindex), kernel.get(end.name).root
                found = root.shape if root else None
                assert found.does(shape) if found and shape else found is shape, evaluation
            assert not any(
                end.kind in ("veth", "tun") and end.ifindex in kernel.taught
                for end in evaluation.ends
            )
        else:
            if not evaluation.stands:
                names = {end.name for end in evaluation.ends if end.ifindex in evaluation.holding}
            assert all(map(kernel.is_held, names - ours)), evaluation
        ours |= names
    for device in observed.interfaces.values():
        if device.name not in ours:
            assert kernel.untouched(device.name), f"{device.name} is not as found"
            root = kernel.get(device.name).root
            assert root is None or root.is_foreign, device.name
            assert device.ifindex not in observed.records
    assert_all_are_held(kernel, evaluations)
    assert kernel.devmap.keys() <= {kernel.index(name) for name in ours}
    assert kernel.peer_map.keys() <= {kernel.index(name) for name in ours}


def assert_all_are_held(kernel: Kernel, evaluations: tuple[Evaluation, ...]) -> None:
    """An end whose partner is missing is held, unless it is in use or somebody else's."""
    named = [end.ifindex for evaluation in evaluations for end in evaluation.ends]
    for evaluation in evaluations:
        if evaluation.waiting and not evaluation.refusal:
            for end in evaluation.ends:
                if named.count(end.ifindex) == 1 and _is_free(kernel, evaluation.link, end):
                    assert kernel.is_held(end.name), evaluation


def _is_free(kernel: Kernel, link: Link, end: Interface) -> bool:
    learnt = end.ifindex in kernel.taught and end.kind not in ("veth", "tun")
    addressed = (end.ifindex in kernel.addressed or learnt) and not link.allow_addressed
    strangers = {xdp.program for xdp in end.xdp} | {each.program for each in end.ingress}
    return not (addressed or end.master or FOREIGN in strangers)
