"""States, reasons and the JSON of ``status``, from a look at the kernel."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from builders import link, look_at_pair, wired, wiring
from driven import Keeper
from kernel import Kernel

from xconnectd.config.source import FileState, Reading
from xconnectd.errors import Problem, XconnectError
from xconnectd.model import (
    Change,
    Counters,
    End,
    Far,
    Interface,
    Link,
    Lost,
    Mode,
    Record,
    Setting,
    State,
    Wiring,
    Xdp,
)
from xconnectd.reconcile import evaluate, link_state
from xconnectd.reconcile.link_state import LinkStatus
from xconnectd.status import builder, document, drop_reasons, summary
from xconnectd.status.document import StatusDocument

A, B = wired(5, "a"), wired(6, "b")


def assess(a: Interface = A, b: Interface = B, one: Link | None = None, **facts: Any) -> LinkStatus:
    observed = look_at_pair(a, b, **facts)
    (judged,) = evaluate.evaluate([one or link("a", "b")], observed)
    return link_state.assess(judged, observed)


def failed(retry: float | None = None) -> LinkStatus:
    return assess()._replace(state=State.FAILED, reason="EBUSY", retry=retry)


FAR_DOWN = Far(2, 0, "eth0", 1500, False)
CASES: dict[str, tuple[dict[str, Any], State, str]] = {
    "all there": ({}, State.CONNECTED, ""),
    "missing": ({"names": {"a": 5}}, State.WAITING, "b does not exist"),
    "down": ({"a": A._replace(up=False)}, State.DOWN, "a is administratively down"),
    "no carrier": ({"b": B._replace(carrier=False)}, State.DOWN, "b has no carrier"),
    "far down": (
        {"b": B._replace(carrier=False, far=FAR_DOWN)},
        State.DOWN,
        "b has no carrier: its far end is down",
    ),
    "no program": (
        {"a": A._replace(xdp=())},
        State.FAILED,
        "not in the kernel: no program of ours on a",
    ),
    "no entry": ({"entries": {5: 6}}, State.FAILED, "not in the kernel: b does not lead to a"),
    "another way": ({"entries": {5: 9, 6: 5}}, State.FAILED, "a does not lead to b"),
    "foreign": (
        {"a": A._replace(xdp=(Xdp("generic", 77),)), "foreign": {77: "id 77 (x)"}},
        State.FAILED,
        "a runs an XDP program that is not ours: id 77 (x)",
    ),
}


@pytest.mark.parametrize(("facts", "state", "reason"), CASES.values(), ids=CASES)
def test_state_and_reason(facts: dict[str, Any], state: State, reason: str) -> None:
    found = assess(**facts)
    assert found.state is state
    assert reason in found.reason
    assert bool(reason) == bool(found.reason)


def test_a_disabled_link_is_attached_and_leads_nowhere() -> None:
    off = link("a", "b", enabled=False)
    assert assess(one=off, entries={}).state is State.DISABLED
    stale = assess(one=off)
    assert stale.state is State.FAILED
    assert "does not lead" not in stale.reason, "it still leads there, and should not"


@pytest.mark.parametrize("names", [{"a": 5}, {}])
def test_disabled_is_disabled_whether_its_ends_are_there_or_not(names: dict[str, int]) -> None:
    found = assess(one=link("a", "b", enabled=False), entries={}, names=names)
    assert (found.state, found.reason) == (State.DISABLED, "enabled: false")


@pytest.mark.parametrize("mode", ["generic", "native"])
def test_the_end_of_a_link_that_waits_is_attached_while_it_is_held(mode: str) -> None:
    held = assess(A._replace(xdp=(Xdp(mode, 101),)), names={"a": 5}, entries={})
    assert (held.state, held.a.attached, held.b.attached) == (State.WAITING, True, False)
    assert not assess(A._replace(xdp=(), ingress=()), names={"a": 5}, entries={}).a.attached


def test_a_link_that_waits_says_why_its_end_is_not_held() -> None:
    port = A._replace(xdp=(), master=3, master_kind="bridge")
    (words,) = assess(port, names={"a": 5}, entries={}).warnings
    assert words.startswith("not held meanwhile: a is a port of a bridge")


def test_disabled_wins_over_down() -> None:
    found = assess(A._replace(up=False), one=link("a", "b", enabled=False), entries={})
    assert found.state is State.DISABLED


def test_in_tc_mode_the_filter_and_the_other_map_count() -> None:
    facts: dict[str, Any] = {"one": link("a", "b", mode=Mode.TC), "entries": {}}
    bare = {"a": A._replace(xdp=()), "b": B._replace(xdp=())}
    none = {"a": A._replace(ingress=()), "b": B._replace(ingress=())}
    assert assess(**bare, **facts, peers={5: 6, 6: 5}).state is State.CONNECTED
    assert assess(**bare, **facts).state is State.FAILED
    assert assess(**none, **facts, peers={5: 6, 6: 5}).state is State.FAILED


def test_an_end_without_the_filter_for_marked_frames_is_not_attached() -> None:
    assert "no program of ours on a" in assess(A._replace(ingress=())).reason
    assert "b does not lead to a" in assess(peers={5: 6}).reason


def test_a_program_in_another_mode_is_not_the_links() -> None:
    native = (Xdp("native", 101),)
    assert assess(A._replace(xdp=native)).state is State.FAILED


def test_a_plug() -> None:
    found = assess(one=link("a", "a"), entries={5: 5})
    assert found.state is State.CONNECTED
    assert found.a == found.b


# --------------------------------------------------------------------------- ends


def test_the_mtu_is_the_interfaces_own_without_our_headroom() -> None:
    record = Record(5, "a", A.mac, {Setting.MTU: Change(1500, 65535)})
    raised = A._replace(mtu=65535, far=Far(2, 0, "eth0", 9500, True))
    end = assess(raised, records={5: record}).a
    assert (end.mtu, end.far_mtu, end.far_up) == (1500, 9500, True)
    assert assess(A._replace(mtu=1400), records={5: record}).a.mtu == 1400


def test_an_end_is_called_what_the_file_calls_it() -> None:
    found = assess(one=link("uplink", "b"), names={"uplink": 5, "b": 6})
    assert (found.a.name, found.a.ifindex) == ("uplink", 5)


def test_a_missing_end_has_only_its_name() -> None:
    end = assess(names={"a": 5}).b
    assert end == End("b")


# --------------------------------------------------------------------------- JSON

PROMISED = {"link", "state", "reason", "mode", "mode_reason", "warnings", "description", "labels"}
PROMISED_OF_ENDS = {"name", "ifindex", "attached", "up", "carrier", "mtu", "far_mtu"}


NO_FRAMES = Counters()


def built(*statuses: LinkStatus, a: Counters = NO_FRAMES) -> StatusDocument:
    """Of links, and of what was counted at ``A``."""
    return builder.build(
        document.Daemon(),
        Reading(Wiring(), ()),
        Path("x.yaml"),
        statuses=statuses,
        counters={A.ifindex: a},
        moved_netns=(),
    )


def as_json(status: LinkStatus, a: Counters = NO_FRAMES) -> dict[str, Any]:
    (found,) = built(status, a=a).as_json()["links"]
    return dict(found)


def test_the_promised_keys() -> None:
    one = link("a", "b", description="leaf to spine", labels=(("lab", "demo"),))
    data = as_json(assess(one=one), Counters(3, 180, 1, 2))
    assert data.keys() >= PROMISED | {"a", "b"}
    assert data["a"].keys() >= PROMISED_OF_ENDS
    assert (data["link"], data["state"], data["mode"]) == ("a:b", "connected", "generic")
    assert (data["description"], data["labels"]) == ("leaf to spine", {"lab": "demo"})
    assert (data["a"]["frames"], data["a"]["bytes"]) == (3, 180)
    assert data["a"]["dropped"].items() >= {"no_entry": 1, "host_egress": 2, "peer_drop": 0}.items()
    assert data["b"]["frames"] == 0
    json.dumps(data)


def test_a_missing_end_in_json() -> None:
    data = as_json(assess(names={"a": 5}))
    assert data["b"]["ifindex"] is None
    assert data["b"]["attached"] is False
    assert data["reason"] == "b does not exist"


@pytest.mark.parametrize(("seconds", "left"), [(30.0, 30.0), (-5.0, 0.0)])
def test_the_time_to_the_next_try(
    seconds: float, left: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert as_json(failed(1000.0 + seconds))["retry_in_s"] == left
    assert as_json(assess())["retry_in_s"] is None


def test_status_is_right_without_a_daemon() -> None:
    """A reader with the same file sees what the daemon made, and what somebody broke since."""
    kernel = Kernel()
    for name in ("a", "b", "c", "d"):
        kernel.add(name)
    keeper = Keeper(kernel).start(wiring("a:b", "c:d"))
    kernel.unload("c")
    reader = Keeper(kernel, keeper.book)
    reader.reconciler.want(keeper.reconciler.wiring)
    seen = reader.reconciler.look()
    states = [link_state.assess(each, seen.observed) for each in seen.evaluations]
    assert [each.state for each in states] == [State.CONNECTED, State.FAILED]
    assert "not in the kernel" in states[1].reason


def test_the_summary_counts_and_gives_a_lone_reason() -> None:
    waiting = assess(names={"a": 5})
    assert summary.summary([]) == "0 links"
    assert summary.summary([assess()]) == "1 link: 1 connected"
    words = summary.summary([assess(), assess(), waiting])
    assert words == "3 links: 2 connected, 1 waiting for b"
    assert summary.summary([waiting, waiting]) == "2 links: 2 waiting"
    assert summary.summary([assess(), waiting, failed()]).startswith(
        "3 links: 1 failed (EBUSY), 1 "
    )


def test_the_headline_begins_with_what_is_wrong() -> None:
    def headline(*files: FileState) -> str:
        return summary.headline(Reading(Wiring(), files), [assess()])

    path = Path("/etc/x\n.yaml")
    problems = tuple(Problem("x", n, 1, "no") for n in range(1, 4))
    refused, missing = FileState(path, "rejected", "", problems), FileState(path, "missing")
    assert headline(FileState(path, "loaded")) == "1 link: 1 connected"
    assert headline(refused) == "rejected: x:1:1: no and 2 more problems; 1 link: 1 connected"
    told = headline(missing, refused, refused)
    assert told == "/etc/x�.yaml is missing; 2 more files not taken; 1 link: 1 connected"


# --------------------------------------------------------------------------- rates


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


# --------------------------------------------------------------------------- other releases

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
    told = built(assess(one=one), failed(), a=Counters(3, 180, 1, 2, lost=Lost(1, 1, 1, 1)))
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


def test_what_nobody_has_told_has_no_key() -> None:
    assert "differences" in whole().as_json()
    assert "differences" not in built().as_json()
    assert built().as_json()["daemon"] == {"running": False, "answers": False, "pid": None}


def test_keys_that_no_field_can_be_called() -> None:
    told = whole().as_json()
    assert told["daemon"]["try"] == {"hash": "abc", "ends_in_s": 9.5, "edited": True}
    assert told["daemon"]["passes"] == {"count": 2, "sum_s": 0.5, "le_s": {"0.1": 2}}
    assert {"from", "to", "reason", "frames"} <= told["links"][0]["drops"][0].keys()


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


# --------------------------------------------------------------------------- links by name


def named(*links: tuple[str, str]) -> StatusDocument:
    """As much of a document as names are looked up in."""
    found = tuple(
        document.Link(f"{a}:{b}", State.CONNECTED, a=document.End(a), b=document.End(b))
        for a, b in links
    )
    steps = tuple(document.Difference("point", each.link, each.a.name) for each in found)
    return StatusDocument(config=document.Config("x.yaml"), links=found, differences=steps)


@pytest.mark.parametrize("name", ["va:vb", "vb:va", "va", "vb"])
def test_a_report_of_some_links_alone(name: str) -> None:
    told = named(("va", "vb"), ("vc", "vd")).only([name])
    assert [each.link for each in told.links] == ["va:vb"]
    assert [each.link for each in told.differences or ()] == ["va:vb"]


def test_a_name_that_no_link_has_is_told_in_a_line_however_many_links_there_are() -> None:
    many = named(*((f"leaf{n}", f"spine{n}") for n in range(2000)))
    with pytest.raises(XconnectError) as refused:
        many.only(["leaf7", "leav77"])
    told = str(refused.value)
    assert told.startswith("no link leav77 in x.yaml, which has 2000 links; did you mean leaf77:")
    assert len(told) < 200
    assert many.only([]) is many


# --------------------------------------------------------------------------- losses


def test_the_command_that_stops_a_loss_is_quoted() -> None:
    ends = End("va", 5), End("x;id", 6)
    counters = {5: Counters(lost=Lost(1, 1, 1, 1))}
    told = drop_reasons.explained(*ends, counters, enabled=True)
    commands = [each.remedy for each in told if each.remedy.startswith("ip ")]
    assert len(commands) == 3
    assert all("'x;id'" in command for command in commands)


def test_what_was_dropped_by_the_driver_is_counted_once() -> None:
    """A veth counts it in its own tx_dropped as well."""
    told = drop_reasons.counted(Counters(lost=Lost(driver_drop=3)), Counters(untransmitted=5))
    assert (told["driver_drop"], told["peer_drop"]) == (3, 2)
