"""The state of a link and why, from its evaluation and one look at the kernel. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from xconnectd.model import (
    CLOSED,
    DROP_HANDLE,
    End,
    Endpoint,
    Far,
    Interface,
    Link,
    Mode,
    Observed,
    Rewrite,
    Setting,
    State,
)
from xconnectd.reconcile import carrier, impairments
from xconnectd.reconcile.carrier import LEFT_DOWN, SET_UP
from xconnectd.reconcile.evaluate import Evaluation


class LinkStatus(NamedTuple):
    """A link's state and the reason for it.

    ``retry`` is when a failed one is tried again, in seconds since the epoch.
    """

    link: Link
    state: State
    reason: str
    mode: Mode
    mode_reason: str
    warnings: tuple[str, ...]
    a: End
    b: End
    retry: float | None = None
    hint: str = ""
    """What may be meant; no part of the reason, which stays the same when the hint is gone."""

    @property
    def full_reason(self) -> str:
        """The reason, and the hint."""
        return f"{self.reason}; {self.hint}" if self.hint else self.reason

    @property
    def is_loose(self) -> bool:
        """Whether an end is there that runs nothing of ours."""
        return False in [end.attached for end in (self.a, self.b) if end.ifindex is not None]


def assess(evaluation: Evaluation, observed: Observed) -> LinkStatus:
    """What the kernel makes of a link now."""
    link = evaluation.link
    a = _end(link.a, evaluation.a, evaluation, observed)
    b = _end(link.b, evaluation.b, evaluation, observed)
    state, reason = _state(evaluation, (a, b), observed)
    return LinkStatus(
        link,
        state,
        reason,
        evaluation.mode,
        evaluation.mode_reason,
        evaluation.warnings,
        a,
        b,
        hint=evaluation.hint,
    )


def _state(evaluation: Evaluation, ends: tuple[End, End], observed: Observed) -> tuple[State, str]:
    if evaluation.refusal:
        return State.FAILED, evaluation.refusal
    if evaluation.waiting and evaluation.link.enabled:
        return State.WAITING, evaluation.waiting
    if gap := next(_gaps(evaluation, ends, observed), ""):
        return State.FAILED, gap
    if not evaluation.link.enabled:
        return State.DISABLED, "enabled: false"
    if evaluation.unheard:
        return State.DOWN, evaluation.unheard
    hidden = [end for end in dict.fromkeys(ends) if end.hidden]
    if hidden:
        return State.DOWN, "; ".join(
            f"no carrier is shown at {end.name}: {end.hidden}" for end in hidden
        )
    if why := next(filter(None, map(_why_down, ends)), ""):
        return State.DOWN, why
    if observed.heard and (why := carrier.not_offered(evaluation.link, observed)):
        return State.DOWN, why
    return State.CONNECTED, ""


def _gaps(evaluation: Evaluation, ends: tuple[End, End], observed: Observed) -> Iterator[str]:
    """What the kernel lacks of this link, in words."""
    for end in ends:
        taken = end.ifindex in evaluation.holding or (evaluation.stands and end.ifindex is not None)
        if taken and not end.attached:
            yield f"not in the kernel: our program is not attached to {end.name}"
    if evaluation.a is None or evaluation.b is None:
        return
    maps = [observed.peers] if evaluation.mode is Mode.TC else [observed.entries, observed.peers]
    link = evaluation.link
    forwards = link.enabled and not evaluation.unheard
    ways = ((link.a, evaluation.a, evaluation.b), (link.b, evaluation.b, evaluation.a))
    for endpoint, here, there in ways:
        wanted = there.ifindex if forwards else None
        found = {entries.get(here.ifindex) for entries in maps}
        if wanted and link.one_way and here is evaluation.b:
            if any(found) or observed.peers.get(here.ifindex) != CLOSED:
                yield f"not in the kernel: {here.name} is not closed (one_way)"
        elif wanted is None and found != {None}:
            yield f"not in the kernel: {here.name} still forwards"
        elif found != {wanted}:
            yield f"not in the kernel: {here.name} does not forward to {there.name}"
        ours = observed.ours[here.ifindex]
        swaps = link.rewrite is Rewrite.SWAP_MACS and not (endpoint.tunnel and endpoint.host)
        for each in ours.xdp + ours.ingress:
            if (each.program in observed.programs.swapping) is not swaps:
                does = "does not swap" if swaps else "swaps"
                yield f"not in the kernel: {here.name} {does} MAC addresses"
        if forwards and (link.impair or len(ours.egress) > 1):
            yield from _filter_gaps(evaluation, here, observed)


def _filter_gaps(evaluation: Evaluation, end: Interface, observed: Observed) -> Iterator[str]:
    impair, egress = evaluation.link.impair, observed.ours[end.ifindex].egress
    drop = impairments.drop(impair, forward=end is evaluation.b) if impair else ""
    names = [each.name for each in egress if each.handle == DROP_HANDLE]
    if drop is not None and names != [observed.programs.drop_name(drop)] * bool(drop):
        yield f"not in the kernel: what leaves by {end.name} is not filtered as it is to be"


def _why_down(end: End) -> str:
    if not end.up:
        here = f"{end.host_interface}, the end of {end.name} on this host,"
        return f"{here if end.node else end.name} is administratively down"
    if end.carrier:
        return ""
    if end.far_up is not False:
        return f"{end.name} has no carrier"
    down = f"{end.name} has no carrier: its far end is down"
    return f"{end.far_name} in {end.node} is down" if end.node else down


def _end(
    endpoint: Endpoint, interface: Interface | None, evaluation: Evaluation, observed: Observed
) -> End:
    node = endpoint.node.name if endpoint.node else ""
    if interface is None:
        return End(endpoint.text, node, host=endpoint.host)
    far, shown = interface.far, evaluation.carrier[interface.ifindex]
    shows = None
    if not shown.own:
        shows = interface.up if shown.lever is Setting.UP else not shown.cause
    hidden = "" if shows else shown.cause
    if not hidden and not interface.up and observed.ours[interface.ifindex].hidden:
        hidden = LEFT_DOWN
    return End(
        name=endpoint.text,
        node=node,
        host=endpoint.host,
        host_interface=interface.name,
        ifindex=interface.ifindex,
        attached=_is_attached(interface, evaluation, observed),
        up=interface.up,
        carrier=interface.carrier,
        mtu=_own_mtu(interface.ifindex, interface.mtu, observed),
        far_mtu=_far_mtu(far, observed) if far else None,
        far_up=far.up if far else None,
        far_name=far.name if far else "",
        far_nsid=far.nsid if far else None,
        offers=shown.offers,
        shows_carrier=shows,
        carrier_reason=shown.own or (SET_UP if shows and shown.cause else ""),
        hidden=hidden,
    )


def _far_mtu(far: Far, observed: Observed) -> int | None:
    """It may be an end of another link, if it is in this namespace."""
    return _own_mtu(far.ifindex, far.mtu, observed) if far.nsid is None else far.mtu


def _own_mtu(ifindex: int, mtu: int | None, observed: Observed) -> int | None:
    """Without the headroom that a link gives it."""
    record = observed.records.get(ifindex)
    change = record.changes.get(Setting.MTU) if record else None
    return change.found if change and change.ours == mtu else mtu


def _is_attached(interface: Interface, evaluation: Evaluation, observed: Observed) -> bool:
    """An end that is only held may have another mode than its link will have."""
    ours = observed.ours[interface.ifindex]
    xdp = {xdp.mode for xdp in ours.xdp}
    filtered = bool(ours.ingress)
    if evaluation.waiting or evaluation.refusal:
        return bool(xdp) or filtered
    return filtered and (evaluation.mode is Mode.TC or str(evaluation.mode) in xdp)
