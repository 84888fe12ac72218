"""What a plan does to links: one change a link, with its reason. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

from xconnectd.model import CLOSED, Interface, Mode, Observed, Rewrite
from xconnectd.reconcile.actions import Action, Make, in_words
from xconnectd.reconcile.evaluate import Evaluation

_Pair = frozenset[int]


class Sign(StrEnum):
    """Whether a link is made, changed (its ends, its mode, what drifted) or goes."""

    MADE = "+"
    CHANGED = "~"
    GONE = "-"


class LinkChange(NamedTuple):
    """``text`` is the link, or the old one and the new one with an arrow."""

    sign: Sign
    text: str
    reason: str


def link_changes(
    evaluations: Iterable[Evaluation], actions: Iterable[Action], observed: Observed
) -> Iterator[LinkChange]:
    """In the file's order; after these what is in no file any more."""
    actions = list(actions)
    made = ends_to_make(actions)
    steps: defaultdict[str, list[Action]] = defaultdict(list)
    for action in actions:
        steps[action.link].append(action)
    stood = _standing(observed)
    going = stood.copy()
    for each in evaluations:
        pair, own = _pair(each), steps.pop(each.link.id, [])
        source = next((other for other in going if other & pair), None)
        was = going.pop(source) if source else ""
        if source and source != pair:
            why = _why(each, made, observed)
            yield LinkChange(Sign.CHANGED, f"{was} → {each.link.id}", why)
        elif own:
            is_held = each.ends and all(observed.ours[end.ifindex].held for end in each.ends)
            sign = Sign.CHANGED if was or is_held else Sign.MADE
            why = _why(each, made, observed, _mode(pair, observed) if was else "", in_words(own))
            yield LinkChange(sign, each.link.id, why)
    rest = [action.interface for own in steps.values() for action in own]
    left = {end.ifindex: _name(end, observed) for end in rest}
    held = (name for ifindex, name in left.items() if not any(ifindex in pair for pair in stood))
    for name in (*going.values(), *held):
        yield LinkChange(Sign.GONE, name, "not in the file")


def ends_to_make(actions: Iterable[Action]) -> frozenset[str]:
    """The ends elsewhere that these steps make, by what the file calls them."""
    return frozenset([action.made.end for action in actions if isinstance(action, Make)])


def why_waiting(each: Evaluation, made: Collection[str]) -> str:
    """Why a link waits once these ends are ``made``; empty if it does not."""
    link = each.link
    missing = [end.name for end, found in ((link.a, each.a), (link.b, each.b)) if found is None]
    return each.waiting if set(missing).difference(made) else ""


def _why(
    each: Evaluation,
    made: Collection[str],
    observed: Observed,
    stood: str = "",
    repairs: str = "",
) -> str:
    """``stood`` is the mode in which it is connected now, empty if it is not."""
    if each.refusal:
        return f"fails: {each.refusal}"
    if not each.link.enabled:
        return "enabled: false"
    if waiting := why_waiting(each, made):
        return f"waits: {waiting}"
    if each.waiting:
        new = [end for end in each.link.ends if end.name in made]
        kinds = " and ".join(dict.fromkeys("a tunnel" if end.tunnel else "a veth" for end in new))
        return f"{kinds} is made for {' and '.join(map(str, new))}"
    if each.unheard:
        return f"held: {each.unheard}"
    manner = _new_manner(each, observed)
    if stood == each.mode:
        repair = f"to be repaired: {repairs}" if repairs else "its saved settings are updated"
        return manner or repair
    change = f"{stood} → {each.mode}" if stood else each.mode
    return "; ".join(filter(None, (f"{change}: {each.mode_reason}", manner)))


def _new_manner(each: Evaluation, observed: Observed) -> str:
    """What becomes of frames from now on, if that was something else; without that it is empty."""
    now = {end.ifindex for end in each.ends if observed.peers.get(end.ifindex) == CLOSED}
    closed = {each.b.ifindex} if each.link.one_way and each.b else set()
    runs = {xdp.program for end in each.ends for xdp in end.xdp}
    runs |= {filter_.program for end in each.ends for filter_ in end.ingress}
    swaps = not runs.isdisjoint(observed.programs.swapping)
    as_wanted = now == closed and swaps is (each.link.rewrite is Rewrite.SWAP_MACS)
    return "" if as_wanted else each.link.manner


def _mode(pair: _Pair, observed: Observed) -> str:
    """In tc mode there are no entries for XDP. Without our program nothing tells the XDP mode."""
    if pair.isdisjoint(observed.entries):
        return Mode.TC
    ends = (observed.interfaces[ifindex] for ifindex in pair)
    return next((xdp.mode for end in ends for xdp in observed.ours_on(end).xdp), "")


def _standing(observed: Observed) -> dict[_Pair, str]:
    """The pairs between which an entry leads, also one that leads one way only, and their names."""
    names = {ifindex: _name(each, observed) for ifindex, each in observed.interfaces.items()}
    partners = {made.end: made.partner for made in observed.made.values() if made.partner}
    pairs = (*observed.entries.items(), *observed.peers.items())
    ends = {
        frozenset((key, target)): (names[key], names[target])
        for key, target in pairs
        if names.keys() >= {key, target}
    }
    return {
        pair: _pair_in_words(partners.get(b, a), partners.get(a, b))
        for pair, (a, b) in ends.items()
    }


def _name(end: Interface, observed: Observed) -> str:
    """What a file called it that was the last to name it by a node; else its own name."""
    record = observed.records.get(end.ifindex)
    return record.end or end.name if record and record.is_of(end) else end.name


def _pair_in_words(*names: str) -> str:
    """As the id of a link."""
    comma = any(each in name for name in names for each in ":/@")
    return ("," if comma else ":").join(sorted(names))


def _pair(each: Evaluation) -> _Pair:
    return frozenset(end.ifindex for end in each.ends)
