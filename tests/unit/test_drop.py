"""``drop`` of an impairment: the filter, what becomes of it in the (fake) kernel, and its words."""

from __future__ import annotations

import pytest
from builders import link, look_at_pair, veth, wired, wiring
from driven import Keeper
from kernel import Kernel

from xconnectd import pcap_filter
from xconnectd.config.parser import parse
from xconnectd.dataplane import egress_filter
from xconnectd.errors import ConfigError
from xconnectd.impairment import Impairment, Impairments
from xconnectd.model import DROP_HANDLE, Counters, End, Filter, Mode, Wiring
from xconnectd.pcap_filter import FilterError
from xconnectd.reconcile import admission
from xconnectd.status import drop_reasons

MAPS = {"peers": 5, "counters": 6}
BFD = "udp port 3784"


def filtered(forward: str = "", reverse: str = "") -> Wiring:
    impair = Impairments(Impairment(drop=forward), Impairment(drop=reverse))
    return wiring(link("va", "vb", impair=impair), "vc:vd")


@pytest.fixture
def kernel() -> Kernel:
    return Kernel("va", "vb", "vc", "vd")


def drops(kernel: Kernel) -> tuple[str, str]:
    """What is dropped of that which leaves by either end."""
    return kernel.filtered("va"), kernel.filtered("vb")


# --------------------------------------------------------------------------- the filter


FAULTS = [
    (BFD, ""),
    ("host 198.51.100.1 and ether host aa:bb:cc:dd:ee:ff or net fe80::/64", ""),
    ("tcp[tcpflags] & (tcp-syn|tcp-fin) != 0 or icmp[icmptype] = icmp-echo", ""),
    ("port domain", ""),
    ("port nosuchservice", "unknown port 'nosuchservice'"),
    ("host leaf1", "'leaf1' is no word of a filter"),
    ("src leaf1.example.net", "'leaf1.example.net' is no word of a filter"),
    ("udp prot 3784", "'prot' is no word of a filter"),
    ("ip protochain 6", "a loop"),
    ("udp port", "syntax error"),
]


@pytest.mark.parametrize(("expression", "words"), FAULTS)
def test_what_is_wrong_with_a_filter(expression: str, words: str) -> None:
    """Nobody is asked for a name: a daemon would wait for who does not answer."""
    fault = pcap_filter.fault(expression)
    assert words in fault
    assert bool(fault) == bool(words)


def test_without_libpcap_a_file_is_not_refused_and_the_link_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pcap_filter, "_NAMES", ("libnosuch.so.9",))
    assert pcap_filter.fault("no such words") != "", "what can be seen without it is"
    assert pcap_filter.fault("udp port") == ""
    with pytest.raises(FilterError, match=r"install it \(Debian: libpcap0.8\)"):
        pcap_filter.compiled(BFD)


def test_the_fault_stands_at_its_place() -> None:
    text = "links:\n  a: {to: b, impair: {reverse: {drop: udp port}}}\n"
    assert parse(text, "f").links, "nobody was asked"
    with pytest.raises(ConfigError) as refused:
        parse(text, "f", pcap_filter.fault)
    (problem,) = refused.value.problems
    assert (problem.line, problem.column) == (2, 39)
    assert str(problem).startswith("f:2:39: `drop`: can't parse filter expression: syntax error")


def test_a_program_is_whole_and_jumps_within_itself() -> None:
    for expression in (BFD, "ether[ether[15] + 8:2] > 0x100", "len > 100", "not ip"):
        code = egress_filter.program(pcap_filter.compiled(expression), MAPS, 48)
        assert len(code) % 8 == 0
        assert code.count(bytes((0x95, 0, 0, 0, 0, 0, 0, 0))) == 2, "it drops, or lets pass"
    with pytest.raises(egress_filter.UntranslatableError, match="loops"):
        egress_filter.program(pcap_filter.compiled("ip protochain 6"), MAPS, 48)


# --------------------------------------------------------------------------- in the kernel


def test_each_way_is_filtered_where_its_frames_leave(kernel: Kernel) -> None:
    """A changed filter is one step, and the neighbour has none."""
    keeper = Keeper(kernel).start(filtered(forward=BFD))
    assert drops(kernel) == ("", BFD)
    kernel.trouble = kernel.trouble
    keeper.take(filtered(forward="arp", reverse=BFD))
    assert drops(kernel) == (BFD, "arp")
    assert [step.verb for step in kernel.steps] == ["add filter egress"] * 2
    keeper.take(wiring("va:vb", "vc:vd"))
    assert drops(kernel) == ("", "")
    assert kernel.wired("va", "vb")


@pytest.mark.parametrize("end", ["file", "detach", "crash"])
def test_it_goes_with_its_link_and_stays_while_that_waits(kernel: Kernel, end: str) -> None:
    before = kernel.snapshot()
    keeper = Keeper(kernel).start(filtered(forward="arp", reverse=BFD))
    kernel.alter("vb", name="away")
    keeper.settle()
    assert (keeper.state("va:vb"), kernel.filtered("va")) == ("waiting", BFD)
    kernel.alter("away", name="vb")
    keeper.settle()
    assert drops(kernel) == (BFD, "arp")
    if end == "crash":
        keeper = Keeper(kernel, keeper.book).start(wiring())
    elif end == "file":
        keeper.take(wiring())
    else:
        keeper.daemon.stop()
    assert kernel.snapshot() == before


def test_what_drifts_is_repaired_and_a_start_adopts_it(kernel: Kernel) -> None:
    """By a good file, and by one that is refused: then what stands there stays."""
    keeper = Keeper(kernel).start(filtered(forward=BFD))
    ours = kernel.get("vb").egress
    kernel.alter("vb", egress=tuple(x for x in ours if x.handle != DROP_HANDLE))
    assert "not filtered" in keeper.reconciler.assess(*keeper.reconciler.look()[1::-1])[0].reason
    keeper.settle()
    assert drops(kernel) == ("", BFD)
    for wanted in (filtered(forward=BFD), Wiring(keeper.reconciler.found())):
        kernel.trouble = kernel.trouble
        keeper = Keeper(kernel, keeper.book).start(wanted)
        assert drops(kernel) == ("", BFD)
        assert not [step for step in kernel.steps if "filter" in step.verb]
        assert keeper.states() == {"va:vb": "connected", "vc:vd": "connected"}


def test_one_of_an_earlier_daemons_maps_is_replaced(kernel: Kernel) -> None:
    """It would look up what is no longer written, and count for nobody."""
    keeper = Keeper(kernel).start(filtered(forward=BFD))
    old = [x._replace(name=f"xconnectd.0.1.1 {BFD}") for x in kernel.get("vb").egress]
    kernel.alter("vb", egress=tuple(old))
    keeper.settle()
    names = [x.name for x in kernel.get("vb").egress if x.handle == DROP_HANDLE]
    assert names == [f"xconnectd.1.2.3 {BFD}"]


def test_somebody_elses_in_our_place_is_left_alone() -> None:
    theirs = Filter("bpf", 1, DROP_HANDLE, 7, "somebody")
    a, b = wired(5, "a", "tc"), veth(6, "b", egress=(theirs,), qdisc="clsact")
    seen = look_at_pair(a, b)
    assert admission.foreign_filter(Mode.TC, b, seen) == ("egress", theirs)


def test_what_it_drops_is_counted_for_the_way_it_came() -> None:
    ends = End("va", ifindex=5), End("vb", ifindex=6)
    (told,) = drop_reasons.explained(*ends, {5: Counters(filtered=3)}, enabled=True)
    assert (told.source, told.target, told.reason, told.frames) == ("va", "vb", "filtered", 3)
    assert "drop in impair" in told.text
