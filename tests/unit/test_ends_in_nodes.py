"""Ends in nodes: found, made, deleted, and made again when a node starts anew."""

from __future__ import annotations

import pytest
from builders import endpoint, link, wiring
from driven import Keeper, set_clock
from kernel import OWN, Crash, Kernel, Step, crash, refuse_verb

from xconnectd.model import Admin, Endpoint, Link, Node, Wiring
from xconnectd.reconcile.made_veths import host_name

END = "leaf1:eth1"
LINK = "leaf1:eth1,v0"


def world(*nodes: str) -> Kernel:
    kernel = Kernel("v0", "v1")
    for name in nodes or ("leaf1",):
        kernel.start_node(name)
    return kernel


def started(kernel: Kernel, *pairs: str, **options: object) -> Keeper:
    """A daemon with ``leaf1:eth1: v0``, or with these links, each as ``a b``."""
    links = [link(*pair.split(), **options) for pair in pairs or (f"{END} v0",)]
    keeper = Keeper(kernel).start(wiring(*links))
    keeper.settle()
    return keeper


def connects(kernel: Kernel) -> bool:
    """Whether what is ``eth1`` in ``leaf1`` is wired to ``v0``."""
    far = kernel.there("leaf1", "eth1").far
    assert far, "it is no veth"
    return kernel.wired(kernel.devices[far.ifindex].name, "v0")


# --------------------------------------------------------------------------- names


def test_what_is_made_here_is_named_after_node_and_interface() -> None:
    assert host_name("leaf1:eth1") == "leaf1-eth1"
    assert host_name("a.b_c:eth0.100") == "a.b_c-eth0.100"


@pytest.mark.parametrize("end", ["leaf-1:eth1", "leaf1:et-1", "clab-dc1-spine1:eth1", "ü b:eth1"])
def test_a_name_that_does_not_fit_or_reads_two_ways_ends_with_a_hash(end: str) -> None:
    name = host_name(end)
    assert len(name) <= 15
    assert name.isascii()
    assert " " not in name
    assert name != end.replace(":", "-")
    assert name != host_name(f"{end}0")


# --------------------------------------------------------------------------- made


def test_a_missing_end_is_made_and_wired() -> None:
    kernel = world()
    keeper = started(kernel)
    assert keeper.states() == {LINK: "connected"}
    assert connects(kernel)
    assert kernel.there("leaf1", "eth1").up
    assert keeper.events().count("link.connected") == 1


def test_its_partner_is_not_set_down_until_it_is_made() -> None:
    """That would be told to whatever is behind the partner, and take the kernel 20 ms."""
    kernel = world()
    started(kernel)
    assert [step for step in kernel.steps if step == Step("set up", kernel.index("v0"))] == []


def test_both_ends_of_a_link_may_be_in_nodes() -> None:
    kernel = world("leaf1", "spine1")
    keeper = started(kernel, "leaf1:eth1 spine1:eth7")
    assert keeper.states() == {"leaf1:eth1,spine1:eth7": "connected"}
    assert kernel.wired("leaf1-eth1", "spine1-eth7")


def test_its_mtu_is_that_of_its_link_at_either_side() -> None:
    kernel = world()
    keeper = started(kernel, mtu=9000)
    assert kernel.there("leaf1", "eth1").mtu == 9000
    here = keeper.reconciler.statuses[LINK].a
    assert (here.mtu, here.far_mtu) == (9000, 9000)


def test_its_macs_are_the_same_whenever_it_is_made_and_those_of_a_station() -> None:
    macs = []
    for _ in range(2):
        kernel = world()
        started(kernel)
        macs.append((kernel.get("leaf1-eth1").mac, kernel.there("leaf1", "eth1").mac))
    assert macs[0] == macs[1]
    assert len(set(macs[0])) == 2
    assert {int(mac[:2], 16) & 3 for mac in macs[0]} == {2}


def test_an_end_of_a_link_that_is_disabled_or_waits_is_made_too() -> None:
    kernel = world()
    keeper = started(kernel, enabled=False)
    assert keeper.state(LINK) == "disabled"
    assert kernel.has("leaf1-eth1")
    keeper.take(wiring(link(END, "nowhere")))
    assert kernel.has("leaf1-eth1")
    assert keeper.state("leaf1:eth1,nowhere") == "waiting"
    assert kernel.is_held("leaf1-eth1")


def test_an_end_whose_link_fails_for_its_partners_sake_is_made_and_held() -> None:
    """With the MTU of that link."""
    kernel = world("leaf1", "spine1")
    kernel.add_there("spine1", "eth1", "dummy")
    keeper = started(kernel, "leaf1:eth1 spine1:eth1")
    assert keeper.state("leaf1:eth1,spine1:eth1") == "failed"
    assert kernel.is_held("leaf1-eth1")
    kernel.load_foreign("v1")
    keeper.take(wiring(link(END, "v1", mtu=4000)))
    assert keeper.state("leaf1:eth1,v1") == "failed"
    assert kernel.there("leaf1", "eth1").mtu == 4000


def test_admin_keep_does_not_leave_down_what_we_made() -> None:
    kernel = world()
    keeper = started(kernel, admin=Admin.KEEP)
    assert kernel.get("leaf1-eth1").up
    assert keeper.state(LINK) == "connected"


def test_what_is_there_already_is_left_as_it_is() -> None:
    kernel = world()
    keeper = started(kernel)
    before, made = kernel.snapshot(), dict(keeper.book.made)
    keeper.reconciler.run(None, "netlink")
    assert kernel.snapshot() == before
    assert keeper.book.made == made


# --------------------------------------------------------------------------- found


def test_a_veth_to_here_that_is_in_the_node_is_wired() -> None:
    kernel = world()
    kernel.plug("veth77", "leaf1", "eth1")
    keeper = started(kernel)
    assert keeper.state(LINK) == "connected"
    assert kernel.wired("veth77", "v0")
    assert not kernel.has("leaf1-eth1")
    keeper.take(Wiring())
    assert kernel.has("veth77"), "somebody else made it"
    assert kernel.untouched("veth77")


def test_what_is_no_veth_to_here_fails_the_link_and_is_named() -> None:
    kernel = world()
    kernel.add_there("leaf1", "eth1", "dummy")
    keeper = started(kernel)
    status = keeper.reconciler.statuses[LINK]
    assert status.state == "failed"
    assert status.reason.startswith("eth1 in leaf1 is no veth to here: it is a dummy; delete it")
    assert not kernel.has("leaf1-eth1")


def test_a_veth_between_two_nodes_is_no_veth_to_here() -> None:
    kernel = world("leaf1", "spine1")
    kernel.add_there("leaf1", "eth1", "veth")
    keeper = started(kernel)
    reason = "eth1 in leaf1 is no veth to here: its other end is in another namespace"
    assert keeper.reconciler.statuses[LINK].reason.startswith(reason)


def test_what_was_in_the_way_goes_and_the_end_is_made() -> None:
    kernel = world()
    kernel.add_there("leaf1", "eth1", "dummy")
    keeper = started(kernel)
    kernel.delete_there("leaf1", "eth1")
    keeper.settle()
    assert keeper.state(LINK) == "connected"


def test_what_was_in_the_way_is_renamed_and_the_end_is_made() -> None:
    kernel = world()
    kernel.add_there("leaf1", "eth1", "dummy")
    keeper = started(kernel)
    kernel.alter_there("leaf1", "eth1", name="eth9")
    keeper.settle()
    assert keeper.state(LINK) == "connected"


def test_a_name_that_another_interface_here_has_fails_the_link() -> None:
    kernel = world()
    kernel.add("leaf1-eth1")
    keeper = started(kernel)
    status = keeper.reconciler.statuses[LINK]
    assert (status.state, "leaf1-eth1" in status.reason) == ("failed", True)
    assert kernel.untouched("leaf1-eth1")
    kernel.delete("leaf1-eth1")
    keeper.settle()
    assert keeper.state(LINK) == "connected"


def test_two_names_of_one_interface_are_no_two_links() -> None:
    kernel = world()
    kernel.plug("veth77", "leaf1", "eth1")
    keeper = started(kernel, f"{END} v0", "veth77 v1")
    assert keeper.states() == {LINK: "connected", "v1:veth77": "failed"}


def test_this_namespace_is_no_node() -> None:
    own = Endpoint(END, Node("leaf1", netns=OWN))
    keeper = Keeper(world()).start(wiring(Link(own, endpoint("v0"))))
    reason = keeper.reconciler.statuses[LINK].reason
    assert reason == "leaf1 is this namespace itself: name its interfaces without the node"


# --------------------------------------------------------------------------- nodes come and go


def test_a_node_that_is_not_there_is_waited_for() -> None:
    kernel = world("spine1")
    keeper = started(kernel)
    status = keeper.reconciler.statuses[LINK]
    assert status.state == "waiting"
    assert status.reason == "node leaf1 is not running: there is no /run/netns/leaf1"
    kernel.start_node("leaf1")
    keeper.settle()
    assert keeper.state(LINK) == "connected"
    assert "node.appeared" in keeper.events()


def test_a_node_that_starts_anew_gets_the_same_end_again() -> None:
    kernel = world()
    keeper = started(kernel)
    mac = kernel.there("leaf1", "eth1").mac
    kernel.stop_node("leaf1")
    keeper.settle()
    assert keeper.state(LINK) == "waiting"
    kernel.start_node("leaf1")
    keeper.settle()
    assert keeper.state(LINK) == "connected"
    assert connects(kernel)
    assert kernel.there("leaf1", "eth1").mac == mac
    told = [each for each in keeper.events() if each.startswith("node.")]
    assert told == ["node.gone", "node.appeared"]


def test_a_node_that_is_anew_before_anybody_looked_gets_it_too() -> None:
    kernel = world()
    keeper = started(kernel)
    old = kernel.unmount_node("leaf1")
    kernel.start_node("leaf1")
    keeper.settle()
    assert keeper.state(LINK) == "connected"
    assert connects(kernel)
    assert not kernel.elsewhere_[old], "the veth into the old namespace is deleted"


def test_while_its_node_is_away_what_we_made_is_deleted_though_its_namespace_lives_on() -> None:
    kernel = world()
    keeper = started(kernel)
    kernel.unmount_node("leaf1")
    keeper.settle()
    assert keeper.state(LINK) == "waiting"
    assert not kernel.has("leaf1-eth1")
    assert keeper.book.made == {}


def test_a_link_waits_for_the_end_that_is_missing_and_is_warned_of_the_other() -> None:
    kernel = world("leaf1", "spine1")
    keeper = started(kernel, "leaf1:eth1 spine1:eth1")
    kernel.stop_node("leaf1")
    keeper.runtime.nodes.silent = {"leaf1", "spine1"}
    keeper.settle()
    (found,) = keeper.reconciler.statuses.values()
    words = "node {} cannot be looked for: its engine does not answer"
    assert (found.state, found.reason) == ("waiting", words.format("leaf1"))
    assert found.warnings == (words.format("spine1"),)


def test_an_engine_that_does_not_answer_says_nothing_of_its_nodes() -> None:
    kernel = world()
    keeper = started(kernel)
    keeper.runtime.nodes.silent = {"leaf1"}
    keeper.settle()
    assert keeper.state(LINK) == "connected"
    assert connects(kernel)
    assert "does not answer" in keeper.reconciler.statuses[LINK].warnings[0]


def test_a_wired_veth_of_others_stays_wired_while_nobody_can_be_asked_for_its_node() -> None:
    kernel = world()
    kernel.plug("veth77", "leaf1", "eth1")
    keeper = started(kernel)
    keeper.runtime.nodes.silent = {"leaf1"}
    keeper.settle()
    assert keeper.state(LINK) == "connected"
    assert kernel.wired("veth77", "v0")


def test_what_is_wired_stays_so_while_its_node_cannot_be_looked_into() -> None:
    kernel = world()
    keeper = started(kernel)
    kernel.forbidden = {"/run/netns/leaf1"}
    keeper.reconciler.run(None, "netlink")
    assert connects(kernel)
    words = "node leaf1 cannot be looked into: /run/netns/leaf1: Permission denied"
    assert keeper.reconciler.statuses[LINK].warnings == (words,)


def test_a_far_end_that_is_moved_to_this_namespace_is_made_anew() -> None:
    kernel = world()
    keeper = started(kernel)
    kernel.bring_back(kernel.there("leaf1", "eth1").ifindex, kernel.nsid("leaf1"))
    keeper.settle()
    assert connects(kernel)
    assert keeper.state(LINK) == "connected"
    assert not kernel.has("eth1")


def test_a_node_that_was_never_there_is_not_told_to_be_gone() -> None:
    kernel = world("spine1")
    keeper = Keeper(kernel)
    keeper.runtime.nodes.silent = {"leaf1"}
    keeper.start(wiring(link(END, "v0")))
    keeper.runtime.nodes.silent = set()
    keeper.settle()
    assert keeper.state(LINK) == "waiting"
    assert not {"node.gone", "node.appeared"} & {*keeper.events()}


def test_a_node_of_which_there_is_a_warning_now_has_not_appeared() -> None:
    kernel = world()
    keeper = started(kernel)
    keeper.runtime.nodes.warning = "Docker does not answer"
    keeper.settle()
    assert "node.appeared" not in keeper.events()
    assert keeper.reconciler.statuses[LINK].warnings == ("Docker does not answer",)


def test_what_the_node_renames_or_moves_on_stays_wired() -> None:
    kernel = world()
    keeper = started(kernel)
    kernel.alter_there("leaf1", "eth1", name="et1")
    keeper.settle()
    assert keeper.state(LINK) == "connected"
    kernel.move_on("leaf1", "et1", nsid=4321)
    keeper.settle()
    assert kernel.wired("leaf1-eth1", "v0")
    assert kernel.named("eth1", kernel.nsid("leaf1")) is None


def test_a_veth_that_is_plugged_later_is_taken() -> None:
    """By news of its far end alone, as when that gets its name at last."""
    kernel = world()
    kernel.may_enter = True
    kernel.add_there("leaf1", "eth1", "dummy")
    keeper = started(kernel)
    kernel.alter_there("leaf1", "eth1", name="old0")
    kernel.plug("veth77", "leaf1", "tmp0")
    kernel.alter_there("leaf1", "tmp0", name="eth1")
    keeper.settle()
    assert kernel.wired("veth77", "v0")


def test_what_its_node_deletes_again_and_again_is_made_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_clock(monkeypatch)
    kernel = world()
    keeper = started(kernel)
    deleted = 0
    while kernel.named("eth1", kernel.nsid("leaf1")):
        kernel.delete_there("leaf1", "eth1")
        keeper.settle()
        deleted += 1
    assert deleted == 7, "the seventh time it is left so"
    assert keeper.state(LINK) == "waiting"
    (told,) = [each for each in keeper.log if each["event"] == "drift.flapping"]
    assert "something in its node keeps deleting its interface" in told["reason"]
    keeper.step(11.0)
    keeper.settle()
    assert keeper.state(LINK) == "connected"


def test_a_node_may_start_anew_as_often_as_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch)
    kernel = world()
    keeper = started(kernel)
    for _ in range(20):
        kernel.stop_node("leaf1")
        kernel.start_node("leaf1")
        keeper.settle()
        assert keeper.state(LINK) == "connected"


# --------------------------------------------------------------------------- what is set there


def test_without_the_right_to_enter_it_is_left_down_and_told() -> None:
    kernel = world()
    kernel.may_enter = False
    keeper = started(kernel)
    assert not kernel.there("leaf1", "eth1").up
    status = keeper.reconciler.statuses[LINK]
    assert status.state == "down"
    assert status.warnings == ("leaf1:eth1: its network namespace cannot be entered",)
    kernel.steps.clear()
    keeper.reconciler.run(None, "netlink")
    assert [step for step in kernel.steps if step.verb.startswith("set far")] == []
    kernel.alter_there("leaf1", "eth1", up=True)  # by the node itself
    keeper.settle()
    status = keeper.reconciler.statuses[LINK]
    assert (status.state, status.warnings) == ("connected", ())


def test_what_is_left_down_is_told_once_however_often_it_is_looked_at() -> None:
    kernel = world()
    kernel.may_enter = False
    keeper = started(kernel, "leaf1:eth1 spine1:eth1")
    kernel.start_node("spine1")  # made in one look, judged in the next
    keeper.settle()
    words = "its network namespace cannot be entered"
    status = keeper.reconciler.statuses["leaf1:eth1,spine1:eth1"]
    assert status.warnings == (f"leaf1:eth1: {words}", f"spine1:eth1: {words}")


def test_what_the_node_sets_down_stays_down() -> None:
    kernel = world()
    keeper = started(kernel)
    kernel.alter_there("leaf1", "eth1", up=False)
    keeper.settle()
    keeper.reconciler.run(None, "netlink")
    assert not kernel.there("leaf1", "eth1").up


@pytest.mark.parametrize("mode", ["generic", "tc"])
def test_an_mtu_that_is_edited_is_applied_at_either_side(mode: str) -> None:
    kernel = world()
    keeper = started(kernel, mode=mode)
    keeper.take(wiring(link(END, "v0", mode=mode, mtu=4000)))
    assert kernel.there("leaf1", "eth1").mtu == 4000
    assert keeper.reconciler.statuses[LINK].a.mtu == 4000
    keeper.take(wiring(link(END, "v0", mode="tc", mtu=4000)))
    assert kernel.get("leaf1-eth1").mtu == 4000


# --------------------------------------------------------------------------- deleted


def test_it_is_deleted_with_its_line() -> None:
    kernel = world()
    before = set(kernel.devices)
    keeper = started(kernel)
    keeper.take(wiring("v0:v1"))
    assert set(kernel.devices) == before
    assert kernel.wired("v0", "v1")
    assert (keeper.book.made, [*keeper.book.records]) == ({}, [*before])


def test_what_the_file_says_of_a_node_counts_from_the_moment_that_it_says_it() -> None:
    """Its links are the same but for that; what stood there before is not looked for."""
    for number in range(16):  # a pass has both, in any order
        keeper = Keeper(world())
        elsewhere = Node("leaf1", netns=f"/run/netns/other{number}")
        keeper.start(wiring(Link(Endpoint(END, elsewhere), endpoint("v0"))))
        assert keeper.states() == {LINK: "waiting"}
        keeper.take(wiring(link(END, "v0")))
        keeper.settle()
        assert keeper.states() == {LINK: "connected"}


def test_it_stays_when_another_link_gets_its_end() -> None:
    kernel = world()
    keeper = started(kernel)
    number = kernel.index("leaf1-eth1")
    keeper.take(wiring(link(END, "v1")))
    assert kernel.index("leaf1-eth1") == number
    assert kernel.wired("leaf1-eth1", "v1")


def test_a_daemon_that_stops_deletes_it() -> None:
    kernel = world()
    before = kernel.snapshot()
    keeper = started(kernel)
    assert keeper.daemon.stop()
    assert kernel.snapshot() == before
    assert keeper.book.made == {}


def test_what_somebody_renamed_here_is_still_ours() -> None:
    kernel = world()
    keeper = started(kernel)
    kernel.alter("leaf1-eth1", name="foo")
    keeper.settle()
    assert keeper.state(LINK) == "connected"
    keeper.take(Wiring())
    assert not kernel.has("foo")


def test_what_was_renamed_while_no_daemon_ran_is_deleted_without_a_link() -> None:
    kernel = world()
    keeper = started(kernel)
    kernel.alter("leaf1-eth1", name="foo")
    Keeper(kernel, keeper.book).start(Wiring()).settle()
    assert not kernel.has("foo")
    assert not keeper.book.made


def test_detach_takes_one_by_what_the_file_calls_it() -> None:
    kernel = world("leaf1", "leaf2")
    keeper = started(kernel, f"{END} v0", "leaf2:eth1 v1")
    assert keeper.reconciler.detach("command", [END]) == []
    assert not kernel.has("leaf1-eth1")
    assert kernel.wired("leaf2-eth1", "v1")


def test_a_start_without_a_good_file_keeps_what_forwards() -> None:
    kernel = world("leaf1", "leaf2")
    keeper = started(kernel, f"{END} v0", "leaf2:eth1 nowhere")
    found = keeper.reconciler.found()
    assert {end.written for link in found for end in link.ends} >= {END, "leaf2:eth1"}
    again = Keeper(kernel, keeper.book).start(Wiring(found))
    assert kernel.wired("leaf1-eth1", "v0")
    assert kernel.has("leaf2-eth1")
    before = kernel.snapshot()
    again.take(keeper.reconciler.wiring)
    again.settle()
    assert kernel.snapshot() == before
    assert again.state(LINK) == "connected"


# --------------------------------------------------------------------------- crashes


def test_it_is_adopted_after_a_crash() -> None:
    kernel = world()
    keeper = started(kernel)
    before = kernel.snapshot()
    again = keeper.restart()
    again.settle()
    assert kernel.snapshot() == before
    assert again.state(LINK) == "connected"


def test_a_crash_at_any_step_leaves_nothing_unknown() -> None:
    for at in range(200):
        kernel = world()
        before = kernel.snapshot()
        keeper = Keeper(kernel)
        kernel.trouble = crash(at)
        try:
            keeper.start(wiring(link(END, "v0")))
        except Crash:
            kernel.trouble = crash(-1)
        else:
            break
        made = Keeper(kernel, keeper.book).start(wiring(link(END, "v0")))
        made.settle()
        assert connects(kernel), at
        assert made.daemon.stop(), at
        assert kernel.snapshot() == before, at
    else:
        raise AssertionError("it never ends")
    assert at > 20


def test_a_crash_at_any_step_of_an_end_leaves_nothing_unknown() -> None:
    for at in range(200):
        kernel = world()
        before = kernel.snapshot()
        keeper = started(kernel)
        kernel.trouble = crash(at)
        try:
            keeper.take(Wiring())
        except Crash:
            kernel.trouble = crash(-1)
        else:
            break
        Keeper(kernel, keeper.book).start(Wiring())
        assert kernel.snapshot() == before, at
        assert (keeper.book.made, keeper.book.records) == ({}, {}), at
    else:
        raise AssertionError("it never ends")
    assert at > 3


def test_a_veth_that_cannot_be_made_fails_its_link_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch)
    kernel = world("leaf1", "leaf2")
    kernel.trouble = refuse_verb(f"make {END}", 0)
    keeper = started(kernel, f"{END} v0", "leaf2:eth1 v1")
    assert keeper.states() == {LINK: "failed", "leaf2:eth1,v1": "connected"}
    kernel.trouble = crash(-1)
    keeper.step(1.0)
    keeper.settle()
    assert keeper.state(LINK) == "connected"
