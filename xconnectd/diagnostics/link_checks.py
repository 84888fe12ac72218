"""What is wrong with a link and the command that fixes it: facts in, findings out. Pure.

The walk along a link goes the way of a frame: the file, the interfaces, what the host has against
them, the programs, the entries, the other end, the far ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from shlex import quote
from typing import Final

from xconnectd.diagnostics import tunnel_checks
from xconnectd.diagnostics.facts import LinkFacts, set_link
from xconnectd.diagnostics.finding import Finding, Level, Stops
from xconnectd.model import (
    Interface,
    Mode,
    MovedEnd,
    Observed,
    Setting,
    State,
    Xdp,
)
from xconnectd.reconcile import admission, mode_selection
from xconnectd.reconcile.carrier import LEFT_DOWN
from xconnectd.status import document, drop_reasons

_SLACK: Final = 18
"""How much longer than an MTU a frame may be: its Ethernet header and one VLAN tag."""

_XDP_OFF: Final = {"generic": "xdpgeneric off", "native": "xdpdrv off", "hw": "xdpoffload off"}
_UNFINISHED: Final = ("tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-ipv6")
_TAGS: Final = ("tx-vlan-hw-insert", "tx-vlan-stag-hw-insert")


def of_link(facts: LinkFacts) -> tuple[Finding, ...]:
    """Everything that is worth saying of a link; one good word where there is nothing."""
    found = (*_walk(facts), *tunnel_checks.of_tunnel(facts))
    if any(each.level is not Level.OK for each in found):
        return found
    mode = facts.evaluation.mode
    return (Finding(Level.OK, "link", f"both ends up, {mode} programs and entries in place"),)


def of_report(link: document.Link) -> tuple[Finding, ...]:
    """A link as the daemon tells of it, for who may not look himself."""
    again = "sudo xconnectd doctor"
    seen = f"{link.state}: {link.reason}" if link.reason else f"{link.state}, says the daemon"
    match link.state:
        case State.CONNECTED:
            found = Finding(Level.OK, "link", seen)
        case State.DISABLED:
            found = Finding(Level.WARN, "disabled", seen, again, Stops.ALL)
        case _:
            found = Finding(Level.FAIL, str(link.state), seen, again, Stops.ALL)
    passed = (_passed(x.name, x.passed_to_host, link.mode) for x in link.ends if x.passed_to_host)
    warnings = (Finding(Level.WARN, "warning", text) for text in link.warnings)
    return (found, *passed, *warnings)


def of_moved_netns(moved: Iterable[MovedEnd]) -> Iterator[Finding]:
    for gone in moved:
        if gone.runs_ours:
            text = f"{gone.record.name} was moved to another namespace with our program on it"
            yield Finding(Level.FAIL, "moved_netns", text, gone.remedy)


def _walk(facts: LinkFacts) -> Iterator[Finding]:
    evaluation = facts.evaluation
    if evaluation.refusal:
        yield _refused(facts)
        return
    if not evaluation.link.enabled:
        remedy = f"in {facts.file}: enabled: true"
        yield _stop("disabled", "enabled: false: nothing is forwarded", remedy, level=Level.WARN)
    if evaluation.waiting:
        if evaluation.link.enabled:
            yield _missing(facts)
        yield from _not_held(facts)
        return
    for end, other in facts.ways:
        yield from _admin(end, other, facts)
    yield from _ours(facts)
    for end in evaluation.ends:
        yield from _foreign_egress(end, facts)
    for end, other in [way for way in facts.ways if not facts.is_closed(way[0])]:
        yield from _headroom(other, facts)
        yield from _let_in(end, facts)
        yield from _longest(end, other, facts)
    for end in evaluation.ends:
        yield from _far_program(end, facts)
        yield from _offloads(end, facts)
    for end in evaluation.ends:
        if frames := facts.passed.get(end.ifindex):
            yield _passed(end.name, frames, evaluation.mode)
    for warning in evaluation.warnings:
        yield Finding(Level.WARN, "warning", warning)


def _passed(name: str, frames: int, mode: str) -> Finding:
    return Finding(Level.FAIL, "passed to host", *drop_reasons.passed(name, frames, mode))


def _stop(check: str, text: str, remedy: str, *, level: Level = Level.FAIL) -> Finding:
    return Finding(level, check, text, remedy, Stops.ALL)


# --------------------------------------------------------------------------- interfaces


def _missing(facts: LinkFacts) -> Finding:
    link, observed = facts.evaluation.link, facts.observed
    names = [end.name for end in link.ends if observed.find(end) is None]
    left = [gone for gone in observed.moved_netns if gone.record.name in names]
    if left and (place := left[0].namespace):
        text = f"{facts.evaluation.waiting}: it was moved to the namespace {place}"
        back = f"ip -n {quote(place)} link set dev {quote(left[0].name)} netns {facts.home}"
        return _stop("interface", text, back)
    if remedy := next(_of_nodes(facts), ""):
        return _stop("node", facts.evaluation.waiting, remedy)
    there = link.tunnel_end
    if there and names == [there.name]:
        return _stop("tunnel", facts.evaluation.waiting, facts.repair)
    remedy = f"ip -br link  # what there is: create it, or name another in {facts.file}"
    return _stop("interface", facts.evaluation.waiting, remedy)


def _of_nodes(facts: LinkFacts) -> Iterator[str]:
    """What brings the ends in nodes back that are missing."""
    for end in facts.evaluation.link.ends:
        if end.node and facts.observed.find(end) is None:
            away = facts.observed.nodes[end.name].waiting
            said = f"start node {end.node.name}, or say in {facts.file} below nodes where it is"
            yield said if away else facts.repair


def _not_held(facts: LinkFacts) -> Iterator[Finding]:
    """The end that is there belongs to the host until the other one is there, too."""
    for warning in facts.evaluation.warnings:
        yield Finding(Level.WARN, "not held", warning)
    for end in facts.evaluation.ends:
        if end.ifindex in facts.evaluation.holding and not facts.observed.ours[end.ifindex].runs:
            text = f"our program is not on {end.name}: the host receives and answers there"
            yield Finding(Level.WARN, "not held", text, facts.repair)


def _refused(facts: LinkFacts) -> Finding:
    """The evaluation's words, and a command where the reason is plain to see."""
    evaluation, observed = facts.evaluation, facts.observed
    for end in evaluation.ends:
        if (
            evaluation.mode is Mode.NATIVE
            and end.kind == "veth"
            and mode_selection.far_end_unready(end)
        ):
            known = end.xdp_features is not None
            return _not_polling(end, facts) if known else _refused_in_words(facts)
        if found := _foreign(end, evaluation.mode, observed):
            check, command = found
            return _stop(check, evaluation.refusal, f"{command}  # if nobody needs it")
        if end.master and not observed.ours[end.ifindex].held:
            return _stop("port", evaluation.refusal, admission.command_to_release(end))
        if admission.uses(end, observed) and not observed.ours[end.ifindex].held:
            return _stop("in use", evaluation.refusal, _to_free(end, facts))
    return _refused_in_words(facts)


def _to_free(end: Interface, facts: LinkFacts) -> str:
    """The commands that end the host's use of an end, as far as there are any here."""
    commands = dict.fromkeys(use.remedy for use in admission.uses(end, facts.observed))
    instead = f"in {facts.file}: allow_addressed: true"
    if "" in commands:
        return f"take that off, or {instead}"
    return f"{'; '.join(commands)}  # or {instead}"


def _refused_in_words(facts: LinkFacts) -> Finding:
    return _stop("refused", facts.evaluation.refusal, f"change the link in {facts.file}")


def _foreign(end: Interface, mode: Mode, observed: Observed) -> tuple[str, str] | None:
    """What is not ours on this end, and the command that takes it off."""
    if xdp := _foreign_xdp(end, observed):
        return "foreign program", set_link(end, _XDP_OFF[xdp.mode])
    if end.qdisc == "ingress":
        return "foreign filter", f"tc qdisc del dev {quote(end.name)} ingress"
    if found := admission.foreign_filter(mode, end, observed):
        direction, filter_ = found
        place = f"dev {quote(end.name)} {direction} pref {filter_.priority}"
        return "foreign filter", f"tc filter del {place}"
    return None


def _foreign_xdp(end: Interface, observed: Observed) -> Xdp | None:
    return next((xdp for xdp in end.xdp if xdp not in observed.ours_on(end).xdp), None)


def _not_polling(end: Interface, facts: LinkFacts) -> Finding:
    far = facts.far.get(end.ifindex)
    name = far.interface.name if far else f"the far end of {end.name}"
    text = f"{end.name}: its far end {name} takes no redirected frames, all are lost"
    unknown = mode_selection.FAR_READY.format(far="FAR_END")
    return _stop("far end not polling", text, far.ready() if far else unknown)


def _admin(end: Interface, other: Interface, facts: LinkFacts) -> Iterator[Finding]:
    """What an end lacks by itself; one that we set down lacks nothing, its partner does."""
    far = facts.far.get(end.ifindex)
    here, there = (facts.evaluation.carrier.get(each.ifindex) for each in (end, other))
    so = ""
    if there and there.cause and end != other:
        so = f"; no carrier is shown at {facts.called(other)}"
    if not end.up and not facts.observed.ours[end.ifindex].hidden:
        text = f"{end.name} is administratively down{so}"
        yield _stop("down", text, set_link(end, "up"))
    elif not end.up and not (here and here.cause):
        yield _stop("down", f"{end.name} is down: {LEFT_DOWN}", facts.repair)
    elif far and not far.interface.up:
        text = f"{far.of(end)} is administratively down{so}"
        yield _stop("far end down", text, far.set("up"))
    elif not facts.evaluation.carrier[end.ifindex].offers:
        yield _stop("carrier", f"{end.name} has no carrier{so}", _plug_in(end))


def _plug_in(end: Interface) -> str:
    if end.variant == "tap":
        return f"{set_link(end, 'carrier on')}  # not permitted? Start what opens the tap"
    return "plug in the cable" if not end.kind else f"ip -d link show dev {quote(end.name)}"


# --------------------------------------------------------------------------- what is ours


def _ours(facts: LinkFacts) -> Iterator[Finding]:
    """Programs and entries; what the kernel said when they were refused comes first."""
    found = [
        finding
        for end, other in facts.ways
        for check in (_program(end, facts), _entry(end, other, facts), _egress_drop(end, facts))
        for finding in check
    ]
    if found and facts.failure:
        yield _stop("refused", facts.failure, facts.repair)
    yield from found


def _program(end: Interface, facts: LinkFacts) -> Iterator[Finding]:
    """Somebody else's in its place is a refusal already."""
    mode = facts.evaluation.mode
    if not facts.observed.ours[end.ifindex].ingress:
        what = "our ingress filter" if end.qdisc else "clsact with our ingress filter"
        carried, stops = _carried_by_tc(facts)
        text = f"{end.name} lacks {what}: {carried} are lost"
        yield Finding(Level.FAIL, "filter", text, facts.repair, stops)
    if mode is Mode.TC:
        return
    found = {xdp.mode for xdp in facts.observed.ours[end.ifindex].xdp}
    if not found:
        yield _stop("program", f"our XDP program is not on {end.name}", facts.repair)
    elif str(mode) not in found:
        text = f"{end.name} runs our program in {found.pop()} mode, the link is {mode}"
        yield _stop("program", text, facts.repair)


def _carried_by_tc(facts: LinkFacts) -> tuple[str, Stops]:
    """All frames in tc mode; in the others those that XDP does not see."""
    if facts.evaluation.mode is Mode.TC:
        return "frames", Stops.ALL
    return "frames that tc has redirected", Stops.SOME


def _entry(end: Interface, other: Interface, facts: LinkFacts) -> Iterator[Finding]:
    observed = facts.observed
    maps = [("peers map", observed.peers, *_carried_by_tc(facts))]
    if facts.evaluation.mode is not Mode.TC:
        maps.insert(0, ("devmap", observed.entries, "frames", Stops.ALL))
    key = f"(key {end.ifindex})"
    for kind, entries, carried, stops in maps:
        found = entries.get(end.ifindex)
        if facts.evaluation.why_held or facts.is_closed(end):
            if found:
                text = f"{end.name} {key} still forwards to ifindex {found}"
                yield Finding(Level.WARN, "entry", text, facts.repair)
        elif found is None:
            text = f"no entry for {end.name} in the {kind} {key}: {carried} are dropped"
            yield Finding(Level.FAIL, "entry", text, facts.repair, stops)
            return
        elif found != other.ifindex:
            where = f"{other.name} ({other.ifindex})"
            text = f"{end.name} {key} forwards to ifindex {found}, not to {where}"
            yield Finding(Level.FAIL, "entry", text, facts.repair, stops)
            return


def _egress_drop(end: Interface, facts: LinkFacts) -> Iterator[Finding]:
    if not facts.observed.ours[end.ifindex].egress:
        text = f"{end.name} lacks our egress filter: the host can send into the wire"
        yield Finding(Level.WARN, "egress_drop", text, facts.repair)


def _foreign_egress(end: Interface, facts: LinkFacts) -> Iterator[Finding]:
    """A tc redirect leaves by the target's clsact, where others may stand behind our filter."""
    ours = facts.observed.ours[end.ifindex].egress
    for each in end.egress if facts.evaluation.mode is Mode.TC else ():
        if each not in ours:
            text = f"{end.name} has a tc egress filter that is not ours ({each.kind} {each.name}"
            text = f"{text.rstrip()}, pref {each.priority}), which may drop what leaves there"
            remedy = f"tc filter del dev {quote(end.name)} egress pref {each.priority}"
            yield Finding(Level.WARN, "foreign filter", text, remedy, Stops.SOME)


# --------------------------------------------------------------------------- lengths


def _headroom(end: Interface, facts: LinkFacts) -> Iterator[Finding]:
    wanted = mode_selection.settings(end, facts.evaluation.mode).get(Setting.MTU)
    if wanted is not None and end.mtu < wanted:
        text = (
            f"the MTU of {end.name} was set to {end.mtu}: frames longer than {end.mtu + _SLACK}"
            " bytes, and so whole GSO packets of TCP, stop there"
        )
        remedy = set_link(end, f"mtu {wanted}")
        yield Finding(Level.FAIL, "mtu", text, remedy, Stops.LONG)


def _let_in(end: Interface, facts: LinkFacts) -> Iterator[Finding]:
    """Without headroom: a veth takes nothing that is longer than its own MTU (veth_xmit())."""
    longest = _limit(end, facts)
    if Setting.MTU in mode_selection.settings(end, facts.evaluation.mode):
        return
    if longest is not None and end.mtu < longest:
        text = (
            f"the MTU of {end.name} is {end.mtu}, behind it {longest}: what comes from there in"
            f" frames longer than {end.mtu + _SLACK} bytes stops at {end.name}"
        )
        remedy = set_link(end, f"mtu {longest}")
        yield Finding(Level.FAIL, "mtu", text, remedy, Stops.LONG)


def _longest(end: Interface, other: Interface, facts: LinkFacts) -> Iterator[Finding]:
    """Whether the one far end sends longer frames than the other takes."""
    there = facts.far.get(other.ifindex)
    longest, limit = _limit(end, facts), _limit(other, facts)
    if facts.is_tunnel(other):
        yield from tunnel_checks.of_length(longest, facts)
        return
    if longest is None or limit is None or longest <= limit:
        return
    whose = there.of(other) if there else other.name
    text = (
        f"{whose} has MTU {limit}, the other side of the wire {longest}:"
        f" frames longer than {limit + _SLACK} bytes stop there"
    )
    mtu = f"mtu {longest}"
    remedy = there.set(mtu) if there else set_link(other, mtu)
    yield Finding(Level.WARN, "mtu", text, remedy, Stops.LONG)


def _limit(end: Interface, facts: LinkFacts) -> int | None:
    """Of what is behind an end; None if that is not known, as of a tap's reader or a tunnel."""
    far = facts.far.get(end.ifindex)
    if far is None:
        return None if end.kind in ("veth", "tun") or facts.is_tunnel(end) else end.mtu
    is_here = end.far is not None and end.far.nsid is None
    # Held, it goes on by another link, with headroom.
    goes_on = is_here and facts.observed.ours_on(far.interface).held
    return None if goes_on else far.interface.mtu


# --------------------------------------------------------------------------- far ends


def _far_program(end: Interface, facts: LinkFacts) -> Iterator[Finding]:
    far = facts.far.get(end.ifindex)
    if far is None or not (foreign := _foreign_xdp(far.interface, facts.observed)):
        return
    text = (
        f"{far.of(end)} runs an XDP program of its own"
        f" ({foreign.mode}, id {foreign.program}), which may drop what arrives"
    )
    remedy = far.set(_XDP_OFF[foreign.mode])
    yield Finding(Level.WARN, "far end's program", text, remedy, Stops.SOME)


def _offloads(end: Interface, facts: LinkFacts) -> Iterator[Finding]:
    """Native XDP knows no metadata: what a far end leaves to be done is left undone."""
    far = facts.far.get(end.ifindex)
    if facts.evaluation.mode is not Mode.NATIVE or far is None or far.features is None:
        return
    undone = []
    if not far.features.isdisjoint(_UNFINISHED):
        undone.append("checksums (its TCP and UDP do not work)")
    if not far.features.isdisjoint(_TAGS):
        undone.append("VLAN tags (they are lost)")
    if undone:
        text = f"{far.of(end)} has offloads on that native XDP cannot pass on: {', '.join(undone)}"
        remedy = far.ready()
        yield Finding(Level.FAIL, "offload", text, remedy, Stops.OFFLOADED)
