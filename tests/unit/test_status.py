"""States, reasons and the JSON of ``status``, from a look at the kernel."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import (
    crossing,
    crossing_report,
    end_report,
    link,
    link_report,
    look_at_pair,
    report,
    wired,
)

from xconnectd.config.source import FileState, Reading
from xconnectd.errors import Problem, XconnectError
from xconnectd.model import (
    Change,
    Counters,
    End,
    Endpoint,
    Far,
    Heard,
    Link,
    Lost,
    Mode,
    MovedEnd,
    Record,
    Setting,
    State,
    Tunnel,
    Wiring,
    Xdp,
)
from xconnectd.reconcile import evaluate, link_state
from xconnectd.reconcile.link_state import LinkStatus
from xconnectd.status import builder, document, drop_reasons, summary
from xconnectd.status.document import StatusDocument

A, B = wired(5, "a"), wired(6, "b")
TC_A, TC_B = wired(5, "a", "tc"), wired(6, "b", "tc")
NONE_B: dict[str, Any] = {"names": {"a": 5}, "entries": {}}
SET_DOWN: dict[str, Change] = {Setting.UP: Change(1, 0)}
OFF, IN_TC = link("a", "b", enabled=False), link("a", "b", mode=Mode.TC)


def assess(one: Link | None = None, **seen: Any) -> LinkStatus:
    observed = look_at_pair(seen.pop("a", A), seen.pop("b", B), **seen)
    (judged,) = evaluate.evaluate([one or link("a", "b")], observed)
    return link_state.assess(judged, observed)


def failed(retry: float | None = None) -> LinkStatus:
    return assess()._replace(state=State.FAILED, reason="EBUSY", retry=retry)


def far(up: bool | None) -> Far:
    return Far(2, 0, "eth0", 1500, up)


NO_PROGRAM = "not in the kernel: our program is not attached to a"
# The link, what is seen, its state, and its reason.
CASES: list[tuple[Link | None, dict[str, Any], State, str]] = [
    (None, {}, State.CONNECTED, ""),
    (link("a", "a"), {"entries": {5: 5}}, State.CONNECTED, ""),
    (None, {"names": {"a": 5}}, State.WAITING, "b does not exist"),
    (None, {"a": A._replace(up=False)}, State.DOWN, "a is administratively down"),
    (None, {"a": A._replace(up=False), "records": {5: Record(5, "a", A.mac, SET_DOWN)}}, State.DOWN,
     "no carrier is shown at a: xconnectd has not set it up again"),
    (None, {"b": B._replace(carrier=False, far=far(True))}, State.DOWN, "b has no carrier"),
    (None, {"b": B._replace(carrier=False, far=far(None))}, State.DOWN, "b has no carrier"),
    (None, {"b": B._replace(carrier=False, far=far(False))}, State.DOWN,
     "b has no carrier: its far end is down"),
    (None, {"a": A._replace(xdp=())}, State.FAILED, NO_PROGRAM),
    (None, {"a": wired(5, "a", "native")}, State.FAILED, NO_PROGRAM),
    # Without the filter for marked frames an end is not attached.
    (None, {"a": A._replace(ingress=())}, State.FAILED, NO_PROGRAM),
    (None, {"entries": {5: 6}}, State.FAILED, "not in the kernel: b does not forward to a"),
    (None, {"entries": {5: 9, 6: 5}}, State.FAILED, "not in the kernel: a does not forward to b"),
    (None, {"peers": {5: 6}}, State.FAILED, "not in the kernel: b does not forward to a"),
    (None, {"a": A._replace(xdp=(Xdp("generic", 77),)), "foreign": {77: "id 77 (x)"}}, State.FAILED,
     "a runs an XDP program that is not ours: id 77 (x)"),
    (OFF, {"entries": {}}, State.DISABLED, "enabled: false"),
    (OFF, NONE_B, State.DISABLED, "enabled: false"),
    (OFF, {"names": {}, "entries": {}}, State.DISABLED, "enabled: false"),
    (OFF, {"entries": {}, "a": A._replace(up=False)}, State.DISABLED, "enabled: false"),
    (OFF, {}, State.FAILED, "not in the kernel: a still forwards"),
    (OFF, {"entries": {}, "peers": {6: 5}}, State.FAILED,
     "not in the kernel: b still forwards"),
    # In tc mode the filter and the other map count.
    (IN_TC, {"a": TC_A, "b": TC_B, "entries": {}, "peers": {5: 6, 6: 5}}, State.CONNECTED, ""),
    (IN_TC, {"a": TC_A, "b": TC_B, "entries": {}}, State.FAILED,
     "not in the kernel: a does not forward to b"),
    (IN_TC, {"a": TC_A._replace(ingress=()), "b": TC_B, "entries": {}, "peers": {5: 6, 6: 5}},
     State.FAILED, NO_PROGRAM),
]  # fmt: skip


@pytest.mark.parametrize(("one", "seen", "state", "reason"), CASES)
def test_state_and_reason(
    one: Link | None, seen: dict[str, Any], state: State, reason: str
) -> None:
    found = assess(one, **seen)
    assert (found.state, found.reason) == (state, reason)


@pytest.mark.parametrize("mode", ["generic", "native", "tc"])
def test_the_end_of_a_link_that_waits_is_attached_while_it_is_held(mode: str) -> None:
    held = assess(a=wired(5, "a", mode), **NONE_B)
    assert (held.state, held.a.attached, held.b.attached) == (State.WAITING, True, False)
    assert not assess(a=A._replace(xdp=(), ingress=()), **NONE_B).a.attached
    (words,) = assess(a=A._replace(xdp=(), master=3, master_kind="bridge"), **NONE_B).warnings
    assert words.startswith("left to the host until then: a is a port of a bridge")


def test_the_mtu_is_the_interfaces_own_without_our_headroom() -> None:
    """Also that of a far end in this namespace, which may be the end of another link."""
    records = {n: Record(n, "x", A.mac, {Setting.MTU: Change(1500, 65535)}) for n in (5, 7)}
    raised = A._replace(mtu=65535, far=Far(2, 0, "eth0", 9500, True))
    end = assess(a=raised, records=records).a
    assert (end.mtu, end.far_mtu, end.far_up) == (1500, 9500, True)
    assert assess(a=A._replace(mtu=1400), records=records).a.mtu == 1400
    here = assess(a=A._replace(far=Far(7, None, "c", 65535, True)), records=records).a
    assert here.far_mtu == 1500


def test_ends_by_what_the_file_calls_them() -> None:
    found = assess(link("uplink", "b"), names={"uplink": 5, "b": 6})
    assert (found.a.name, found.a.ifindex) == ("uplink", 5)
    assert assess(**NONE_B).b == End("b"), "one that is missing has only its name"
    in_node = assess(link("leaf1:eth1", "b"), names={"leaf1:eth1": 5, "b": 6})
    end = as_json(in_node)["a"]
    told = [end[key] for key in ("name", "node", "interface", "host_interface", "ifindex")]
    assert told == ["leaf1:eth1", "leaf1", "eth1", "a", 5]
    assert as_json(assess(link("leaf1:eth1", "b")))["a"]["host_interface"] == ""
    plug = assess(link("a", "a"), entries={5: 5})
    assert plug.a == plug.b


PROMISED = {"link", "state", "reason", "mode", "mode_reason", "warnings", "description", "labels"}
PROMISED_OF_ENDS = {"name", "ifindex", "attached", "up", "carrier", "mtu", "far_mtu"}


def built(
    *statuses: LinkStatus, a: Counters | None = None, moved: tuple[MovedEnd, ...] = ()
) -> StatusDocument:
    """Of links, and of what was counted at ``A``."""
    nothing = document.Daemon(), Reading(Wiring(), ()), Path("x.yaml")
    links = builder.links(statuses, {A.ifindex: a or Counters()})
    return builder.without_links(*nothing, moved_netns=moved)._replace(links=tuple(links))


def as_json(status: LinkStatus, a: Counters | None = None) -> dict[str, Any]:
    (found,) = built(status, a=a).as_json()["links"]
    return dict(found)


def test_the_promised_keys() -> None:
    one = link("a", "b", description="leaf to spine", labels=(("lab", "demo"),))
    data = as_json(assess(one), Counters(3, 180, 1, 2))
    assert data.keys() >= PROMISED | {"a", "b"}
    assert data["a"].keys() >= PROMISED_OF_ENDS
    assert (data["link"], data["state"], data["mode"]) == ("a:b", "connected", "generic")
    assert (data["description"], data["labels"]) == ("leaf to spine", {"lab": "demo"})
    assert (data["a"]["frames"], data["a"]["bytes"]) == (3, 180)
    assert data["a"]["dropped"].items() >= {"no_entry": 1, "host_egress": 2, "peer_drop": 0}.items()
    assert data["b"]["frames"] == 0
    json.dumps(data)


def test_an_end_that_has_left_is_told_of_while_it_runs_our_program() -> None:
    moved = MovedEnd(Record(5, "a", ""), "generic", 3, 8)
    told = built(moved=(moved, moved._replace(mode="")))
    assert told.moved_netns == (document.Moved("a", 5, moved.remedy),)


def test_the_time_to_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    tries = [failed(1030.0), failed(995.0), assess()]
    assert [as_json(each)["retry_in_s"] for each in tries] == [30.0, 0.0, None]


GOOD, WAITS = assess(), assess(**NONE_B)
BUSY = failed()


SUMMARIES: list[tuple[list[LinkStatus], str]] = [
    ([], "0 links"),
    ([GOOD], "1 link: 1 connected"),
    ([GOOD, GOOD, WAITS], "3 links: 2 connected, 1 waiting for b"),
    ([WAITS, WAITS], "2 links: 2 waiting"),
    ([GOOD, WAITS, BUSY], "3 links: 1 failed (EBUSY), 1 connected, 1 waiting for b"),
]


@pytest.mark.parametrize(("statuses", "words"), SUMMARIES)
def test_the_summary_counts_and_gives_a_lone_reason(statuses: list[LinkStatus], words: str) -> None:
    assert summary.summary(statuses) == words


def test_the_headline_begins_with_what_is_wrong() -> None:
    def headline(*files: FileState) -> str:
        return summary.headline(Reading(Wiring(), files), [assess()])

    path = Path("/etc/x\n.yaml")
    problems = tuple(Problem("x", n, 1, "no") for n in range(1, 4))
    refused, missing = FileState(path, "rejected", problems=problems), FileState(path, "missing")
    assert headline(FileState(path, "loaded")) == "1 link: 1 connected"
    assert headline(refused) == "rejected: x:1:1: no and 2 more problems; 1 link: 1 connected"
    told = headline(missing, refused, refused)
    assert told == "/etc/x�.yaml is missing; 2 more files not taken; 1 link: 1 connected"


def test_rates_are_what_came_since() -> None:
    def report(frames: int) -> StatusDocument:
        return built(assess(), a=Counters(frames, 100 * frames))

    (link,) = report(30).since(report(10), 2.0).links
    assert (link.a.frames_per_s, link.a.bits_per_s) == (10.0, 8000)
    assert link.b.frames_per_s == 0.0
    (link,) = report(10).since(report(30), 2.0).links
    assert link.a.frames_per_s == 0.0
    (link,) = report(10).since(built(), 2.0).links
    assert link.a.frames_per_s is None


RUNNING = document.Daemon(
    *(True, True, 7, 1.5, None, 2.5, "", 3),
    document.Passes(2, 0.5, {"0.1": 2}),
    {"loaded": 1},
    document.Metrics("[::1]:9142"),
    document.Trial("abc", 9.5, edited=True),
)


def whole() -> StatusDocument:
    """With something in every part."""
    one = link("a", "b", labels=(("lab", "demo"),), description="leaf")
    told = built(assess(one), failed(), a=Counters(3, 180, 1, 2, lost=Lost(1, 1, 1, 1)))
    told = told._replace(host="h1", links=(*told.links, crossing_report()))
    file = document.File("x.yaml", "rejected", "abc", ("x.yaml:1:1: no",))
    return told._replace(
        daemon=RUNNING,
        config=told.config._replace(problems=file.problems, files=(file,)),
        moved_netns=(document.Moved("gone", 9, "ip link"),),
        differences=(document.Difference("attach generic", "a:b", "a", "lost"),),
    )


IDLE = RUNNING._replace(metrics=None, trial=None)


@pytest.mark.parametrize(
    "told", [whole(), whole()._replace(daemon=IDLE), built(assess()), StatusDocument()]
)
def test_a_document_is_read_as_it_was_written(told: StatusDocument) -> None:
    written = json.dumps(told.as_json())
    read = StatusDocument.from_json(json.loads(written))
    assert read == told
    assert json.dumps(read.as_json()) == written
    in_pieces = "".join(told._replace(links=()).in_pieces(told.links))
    assert json.loads(in_pieces) == json.loads(written)


def test_keys_that_no_field_can_be_called_and_those_of_what_nobody_has_told() -> None:
    told = whole().as_json()
    assert "differences" in told
    assert told["daemon"]["try"] == {"hash": "abc", "ends_in_s": 9.5, "edited": True}
    assert told["daemon"]["passes"] == {"count": 2, "sum_s": 0.5, "le_s": {"0.1": 2}}
    assert {"from", "to", "reason", "frames"} <= told["links"][0]["drops"][0].keys()
    told = built().as_json()
    assert "differences" not in told
    assert told["daemon"] == {"running": False, "answers": False, "pid": None}


def with_news(told: Any) -> Any:
    """Every object of a document with a key more, as a later release may write it."""
    if isinstance(told, list):
        return [with_news(each) for each in told]
    if not isinstance(told, dict):
        return told
    return {key: with_news(each) for key, each in told.items()} | {"news": 1}


def test_what_another_release_tells_is_read_as_far_as_it_is_known() -> None:
    told = whole().as_json()
    del told["drop_stats_unavailable"], told["unseen"], told["daemon"]["try"]
    for each in told["links"]:
        del each["drops"], each["a"]["passed_to_host"], each["a"]["dropped"]
    read = StatusDocument.from_json(with_news(told))
    first = read.links[0]
    assert (read.unseen, read.daemon.trial, first.drops) == ("", None, ())
    assert (first.a.dropped, first.a.passed_to_host, first.a.frames) == ({}, None, 3)
    assert (first.state, read.daemon.passes.total) == (State.CONNECTED, 2)
    json.dumps(read.as_json())


HEARD = Heard(
    *(True, "", False, "eth0 in leaf is down", "down", "99aabbcc"),
    round_trip=0.00031,
    last=1000.0,
    frames=7,
    dropped=1,
    sent=9,
    echoed=8,
    received=7,
    unverified=6,
)


def crossing_status(far: Endpoint | None = None) -> LinkStatus:
    one = crossing() if far is None else replace(crossing(), b=far)
    ends = End("h1/a", ifindex=5, host_interface="a"), End(one.b.text, host_interface="vxlan-77")
    return assess()._replace(link=one, a=ends[0], b=ends[1])


def peers(status: LinkStatus, mtu: int | None = 1500) -> document.Link:
    mtus = {"198.51.100.12": mtu, "2001:db8::12": mtu}
    (one,) = builder.links([status], {}, {status.link.b.text: HEARD}, mtus)
    return one


def test_the_other_host_of_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its tunnel leads is the file's and the kernel's; what is heard is told as it is."""
    monkeypatch.setattr(time, "monotonic", lambda: 1002.5)
    one = peers(crossing_status())
    assert (one.link, one.a.name, one.a.host, one.a.interface) == ("h1/a,h2/b", "h1/a", "h1", "a")
    assert (one.b.name, one.b.host, one.b.interface, one.b.node) == ("h2/b", "h2", "b", "")
    assert one.digest == "1a2b3c4d"
    assert one.peer == document.Peer(
        *("h2", "198.51.100.12", 77, 14789, "vxlan-77", 1450),
        *(True, "", False, "eth0 in leaf is down", "down", "99aabbcc"),
        *(2.5, 0.31, 7, 1, document.Keepalives(9, 8, 7, 6)),
    )
    assert one.peer.as_heard(1002.5) == HEARD, "what a command's look takes from the daemon"
    in_node = Endpoint("h2/leaf:b", host="h2", tunnel=Tunnel("2001:db8::12", 77))
    there = peers(crossing_status(in_node))
    assert (there.b.node, there.b.interface) == ("leaf", "b")
    assert there.peer
    assert there.peer.mtu == 1430, "an IPv6 header is 20 bytes longer"
    no_route = peers(crossing_status(), mtu=None).peer
    assert no_route
    assert no_route.mtu is None
    assert built(assess()).links[0].peer is None


FEW = report(
    link_report("va", "vb"),
    link_report("vc", "vd", "waiting", reason="vd does not exist"),
    link_report("ve", "vf", "disabled", enabled=False),
    differences=tuple(
        document.Difference("point", *link) for link in (("va:vb", "va"), ("vc:vd", "vc"))
    ),
)


SILENT = A._replace(carrier=False, far=far(False))
HIDDEN = {"b": B._replace(up=False), "records": {6: Record(6, "b", B.mac, SET_DOWN)}}
# What is seen of a link with an end in a node, and why it is down.
IN_NODE: list[tuple[dict[str, Any], str]] = [
    (
        {"a": A._replace(up=False)},
        "a, the end of leaf1:eth1 on this host, is administratively down",
    ),
    ({"a": SILENT}, "eth0 in leaf1 is down"),
    ({"a": SILENT, **HIDDEN}, "no carrier is shown at b: eth0 in leaf1 is down"),
]


@pytest.mark.parametrize(("seen", "reason"), IN_NODE)
def test_an_end_in_a_node_is_what_the_file_speaks_of(seen: dict[str, Any], reason: str) -> None:
    found = assess(link("leaf1:eth1", "b"), names={"leaf1:eth1": 5, "b": 6}, **seen)
    assert (found.state, found.reason) == (State.DOWN, reason)


def test_a_link_by_all_that_it_may_be_called() -> None:
    end = end_report("leaf1:eth1", host_interface="leaf1-eth1")
    told = report(link_report(end, "tap0"), link_report("ve", end_report("uplink")))
    for name in ("leaf1:eth1", "leaf1-eth1", "leaf1:eth1,tap0", "tap0,leaf1:eth1", "tap0"):
        assert [each.link for each in told.only([name]).links] == ["leaf1:eth1,tap0"]
    for name in ("leaf1", "eth1", "leaf1:eth1:tap0"):
        with pytest.raises(XconnectError):
            told.only([name])


def test_a_report_of_some_links_alone() -> None:
    """A name that no link has is told in a line, however many links there are."""
    for name in ("va:vb", "vb:va", "va", "vb"):
        told = FEW.only([name])
        assert [each.link for each in (*told.links, *(told.differences or ()))] == ["va:vb"] * 2
    assert FEW.only([]) is FEW
    many = report(*(link_report(f"leaf{n}", f"spine{n}") for n in range(2000)))
    with pytest.raises(XconnectError) as refused:
        many.only(["leaf7", "leav77"])
    words = "no link leav77 in x.yaml, which has 2000 links; did you mean leaf77:"
    assert str(refused.value).startswith(words)
    assert len(str(refused.value)) < 200


def test_what_is_not_connected() -> None:
    """Disabled links are not missed, unless they are named; a file that is not good is, too."""
    waiting = {"vc:vd": "waiting: vd does not exist"}
    assert FEW.not_connected([]) == FEW.not_connected(["va", "vc"]) == waiting
    assert FEW.not_connected(["va"]) == {}
    assert FEW.not_connected(["ve:vf"]) == {"ve:vf": "disabled: "}
    assert FEW.not_connected(["x"]) == {"x": "no such link in the file"}
    bad = report()._replace(config=document.Config("x", "rejected", problems=("x:1:1: no",)))
    assert bad.not_connected([]) == {"x": "rejected\nx:1:1: no"}


NARROW = {
    "a": End("va", ifindex=5, far_mtu=9000),
    "b": End("vb", ifindex=6, mtu=1400, far_mtu=1500, far_up=True),
}
DEAD = {"a": NARROW["a"], "b": NARROW["b"]._replace(far_up=False)}


SUSPECTS = [
    (NARROW, "longer than the far end of vb takes (MTU 1500)", "give the far end of va and"),
    (DEAD, "the far end of vb is down", "set the far end of vb up"),
    ({"a": NARROW["b"], "b": NARROW["a"]}, "not accepted behind va", "ip -s -s link show dev va"),
]


@pytest.mark.parametrize(("ends", "words", "remedy"), SUSPECTS)
def test_what_a_far_end_drops_has_a_suspect(ends: dict[str, End], words: str, remedy: str) -> None:
    counters = {5: Counters(untransmitted=3), 6: Counters(untransmitted=3)}
    told = drop_reasons.explained(*ends.values(), counters, enabled=True)
    assert told[0].text.startswith(words)
    assert told[0].remedy.startswith(remedy)


def test_losses_come_worst_first_are_counted_once_and_their_commands_are_quoted() -> None:
    """What a driver dropped is in the interface's own count, too."""
    counters = {5: Counters(lost=Lost(1, 3, 1, 2, 1)), 6: Counters(untransmitted=5)}
    told = drop_reasons.explained(
        End("va", ifindex=5), End("x;id", ifindex=6), counters, enabled=True
    )
    assert [(each.reason, each.frames) for each in told[:3]] == [
        *(("peer_drop", 4), ("egress_down", 3), ("other", 2))
    ]
    at_b = [each.remedy for each in told if each.remedy.startswith("ip ")][:4]
    assert [command.count("'x;id'") for command in at_b] == [1, 1, 1, 1]
    both = drop_reasons.counted(Counters(lost=Lost(driver_drop=3)), Counters(untransmitted=5))
    assert (both["driver_drop"], both["peer_drop"]) == (3, 2)
