"""The values that everything else speaks in."""

from __future__ import annotations

from xconnectd.model import Endpoint, Link, Node

LEAF = Node("leaf1")


def test_an_end_in_a_node_has_the_name_of_the_file_and_that_of_its_interface() -> None:
    end = Endpoint("leaf1:eth1", LEAF)
    assert (str(end), end.interface) == ("leaf1:eth1", "eth1")
    assert Endpoint("eth0").interface == "eth0"


def test_a_link_has_the_same_id_when_its_line_is_turned_round() -> None:
    leaf, nic = Endpoint("leaf1:eth1", LEAF), Endpoint("eth0")
    assert Link(leaf, nic).id == Link(nic, leaf).id == "eth0,leaf1:eth1"
    assert Link(nic, Endpoint("eth1")).id == "eth0:eth1"


def test_ends_that_spell_the_same_text_are_two_links() -> None:
    one = Link(Endpoint("a"), Endpoint("b:c", Node("b")))
    other = Link(Endpoint("a:b", Node("a")), Endpoint("c"))
    assert one.id != other.id
