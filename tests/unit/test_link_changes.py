"""A plan link by link: what is made, rewired, changed and gone, and why."""

from __future__ import annotations

import pytest
from builders import crossing, link, wiring
from driven import Keeper
from kernel import Kernel

from xconnectd.model import Link, Mode, Rewrite, Wiring
from xconnectd.reconcile.link_changes import link_changes

FIRST = wiring("a:b", "c:d")


@pytest.fixture
def keeper() -> Keeper:
    kernel = Kernel(*"abcdef")
    return Keeper(kernel).start(FIRST)


def told(keeper: Keeper, wanted: Wiring) -> list[str]:
    keeper.reconciler.want(wanted)
    seen = keeper.reconciler.look()
    changes = link_changes(seen.evaluations, seen.actions, seen.observed)
    return [f"{each.sign} {each.text}: {each.reason}" for each in changes]


GSO = "veth: offloaded packets (GSO, checksums) cross unchanged"

SWAP = Rewrite.SWAP_MACS
MACS_SWAPPED = "source and destination MAC swapped"


CHANGES = [
    (FIRST, []),
    (wiring("b:a", "d:c"), []),
    (wiring("a:b", "c:d", "e:f"), [f"+ e:f: generic: {GSO}"]),
    (wiring("a:b"), ["- c:d: not in the file"]),
    (wiring("a:b", "c:c"), [f"~ c:d → c:c: generic: {GSO}"]),
    (wiring("a:b", "c:e"), [f"~ c:d → c:e: generic: {GSO}"]),
    (wiring("a:c"), [f"~ a:b → a:c: generic: {GSO}", "- c:d: not in the file"]),
    (wiring("a:c", "b:d"), [f"~ a:b → a:c: generic: {GSO}", f"~ c:d → b:d: generic: {GSO}"]),
    (wiring("a:b", link("c", "d", enabled=False)), ["~ c:d: enabled: false"]),
    (wiring("a:b", link("c", "d", mode=Mode.TC)), ["~ c:d: generic → tc: asked for in the file"]),
    (wiring("a:b", link("c", "d", one_way=True)), ["~ c:d: one way: c → d"]),
    (wiring("a:b", link("d", "c", one_way=True)), ["~ c:d: one way: d → c"]),
    (wiring("a:b", link("c", "d", rewrite=SWAP)), [f"~ c:d: both ways, {MACS_SWAPPED}"]),
    (
        wiring("a:b", link("c", "d", mode=Mode.TC, one_way=True)),
        ["~ c:d: generic → tc: asked for in the file; one way: c → d"],
    ),
    (
        wiring("a:b", "c:d", link("e", "f", one_way=True)),
        [f"+ e:f: generic: {GSO}; one way: e → f"],
    ),
    (wiring("a:b", "c:d", "e:nosuch"), ["+ e:nosuch: waits: nosuch does not exist"]),
    (wiring("a:b", "c:nosuch"), ["~ c:d → c:nosuch: waits: nosuch does not exist"]),
]


@pytest.mark.parametrize(("wanted", "lines"), CHANGES, ids=[str(lines) for _, lines in CHANGES])
def test_changes(keeper: Keeper, wanted: Wiring, lines: list[str]) -> None:
    assert told(keeper, wanted) == lines


def test_every_step_is_of_a_line(keeper: Keeper) -> None:
    """So that there is no change that is not told, also of what drifted and what is refused."""
    keeper.kernel.unload("c")
    keeper.kernel.load_foreign("e")
    drifted, refused = told(keeper, wiring("a:b", "c:d", "e:f"))
    assert drifted == "~ c:d: to be repaired: attach generic c"
    assert refused.startswith("+ e:f: fails: e runs an XDP program that is not ours")


@pytest.mark.parametrize(
    ("before", "line"),
    [
        (link("c", "d", mode=Mode.TC), f"~ c:d: tc → generic: {GSO}"),
        (link("c", "d", enabled=False), f"~ c:d: generic: {GSO}"),
        (link("c", "d", one_way=True), "~ c:d: both ways"),
        (link("c", "d", rewrite=SWAP), "~ c:d: both ways"),
        (link("c", "nosuch"), f"+ c:d: generic: {GSO}"),
    ],
)
def test_what_was_otherwise_before(keeper: Keeper, before: Link, line: str) -> None:
    keeper.take(wiring("a:b", before))
    assert told(keeper, FIRST) == [line]


def test_an_end_that_was_held_alone(keeper: Keeper) -> None:
    keeper.take(wiring("a:b", "c:nosuch"))
    assert told(keeper, wiring("a:b")) == ["- c: not in the file"]


def test_ends_in_nodes(keeper: Keeper) -> None:
    """Those that are to be made are no reason to wait; what was there has the name of the file."""
    keeper.kernel.start_node("leaf")
    made = "+ e,leaf:eth1: a veth is made for leaf:eth1"
    assert told(keeper, wiring("a:b", "c:d", link("e", "leaf:eth1"))) == [made]
    (line,) = told(keeper, wiring("a:b", "c:d", link("gone:eth1", "leaf:eth1")))
    assert line.startswith("+ gone:eth1,leaf:eth1: waits: node gone is not running")
    keeper.take(wiring("a:b", "c:d", link("e", "leaf:eth1")))
    keeper.settle()
    rewired = f"~ e,leaf:eth1 → f,leaf:eth1: generic: {GSO}"
    assert told(keeper, wiring("a:b", "c:d", link("f", "leaf:eth1"))) == [rewired]
    assert told(keeper, FIRST) == ["- e,leaf:eth1: not in the file"]


def test_a_link_to_another_host_is_called_what_it_was() -> None:
    crosses = wiring(crossing())
    new = Keeper(Kernel(*"ac")).start(Wiring())
    assert told(new, crosses) == ["+ h1/a,h2/b: a tunnel is made for h2/b"]
    keeper = Keeper(Kernel(*"ac")).start(crosses)
    assert told(keeper, crosses) == []
    keeper.runtime.tunnels.say("h2/b")
    keeper.settle()
    assert told(keeper, Wiring()) == ["- h1/a,h2/b: not in the file"]
    (change,) = told(keeper, wiring("a:c"))
    assert change.startswith("~ h1/a,h2/b → a:c: generic")
