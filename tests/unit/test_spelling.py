"""What is meant by the name of no interface, and what is not."""

from __future__ import annotations

from xconnectd.model import Endpoint, Link, Observed
from xconnectd.reconcile.evaluate import evaluate, with_hints
from xconnectd.reconcile.link_state import assess
from xconnectd.spelling import meant

MEANT = [
    ("x5-eht1", "x5-eth1", "x5-eth1"),
    ("x5-eht1", "x5-eth2 x5-eth1 x6-eth1", "x5-eth1"),
    ("leaf1-eth1", "laef1-eth1", "laef1-eth1"),
    ("spine-1", "spine1 eth1", "spine1"),
    ("x5-eth1", "x5-eth2", ""),  # it has gone, and its neighbour has not
    ("x5-eth1", "x6-eth1 x5-eth11", ""),
    ("va", "vb", ""),
    ("eth0", "tap0 lo", ""),
    ("x5-eht1", "", ""),
]


def test_what_is_meant() -> None:
    """Where much is missing nothing is misspelt.

    Nor does a file of a machine that is not there yet cost a look at every pair of names.
    """
    found = [(name, free, meant([name], free.split()).get(name, "")) for name, free, _ in MEANT]
    assert found == MEANT
    names = [f"eht{n}" for n in range(21)]
    free = [f"eth{n}" for n in range(21)]
    assert meant(names[:20], free)["eht3"] == "eth3"
    assert meant(names, free) == {}


def test_a_link_that_waits_for_a_misspelt_end_says_so() -> None:
    link = Link(Endpoint("x5-eht1"), Endpoint("x6-eht1"))
    evaluations = evaluate([link], Observed())
    (told,) = with_hints(evaluations, ["x5-eth1", "x6-eth1"])
    status = assess(told, Observed())
    reason = "x5-eht1 and x6-eht1 do not exist"
    assert status.full_reason == f"{reason}; did you mean x5-eth1 and x6-eth1?"
    assert status.reason == reason, "a hint that comes and goes is no change of a link"
    (silent,) = with_hints(evaluations, ["lo"])
    assert assess(silent, Observed()).full_reason == reason
