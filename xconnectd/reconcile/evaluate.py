"""What becomes of every link, given one look at the kernel: its role, or why it has none. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from xconnectd import spelling
from xconnectd.model import CLOSED, Interface, Link, Mode, Observed, Setting
from xconnectd.reconcile import admission, carrier, impairments, mode_selection
from xconnectd.reconcile.carrier import Shown
from xconnectd.shape import ROOT_HANDLE, Shape


class Refused(NamedTuple):
    """A link that the kernel refused, and its words.

    ``unheld`` are the ifindexes of ends that it would not even let us hold.
    """

    words: str
    unheld: frozenset[int] = frozenset()


class Evaluation(NamedTuple):
    """One link, its ends as found, and either a mode or the reason against it.

    ``waiting`` and ``refusal`` are empty for a link that can stand. ``unheard`` is why it is not to
    forward for the sake of another host, else empty. ``holding`` has the ends that are ours to hold
    while it does not, by ifindex, each with the mode for that. ``carrier`` is what its ends are to
    show, and ``shapes`` what the queues of those are to do that frames leave by to be impaired, by
    ifindex. ``hint`` is what may be meant by the name of an end that does not exist.
    """

    link: Link
    a: Interface | None = None
    b: Interface | None = None
    mode: Mode = Mode.AUTO
    mode_reason: str = ""
    waiting: str = ""
    refusal: str = ""
    unheard: str = ""
    warnings: tuple[str, ...] = ()
    holding: Mapping[int, Mode] = MappingProxyType({})
    hint: str = ""
    carrier: Mapping[int, Shown] = MappingProxyType({})
    shapes: Mapping[int, Shape] = MappingProxyType({})

    @property
    def stands(self) -> bool:
        return not self.waiting and not self.refusal

    @property
    def why_held(self) -> str:
        """Why its ends are only held; empty for a link that is to forward."""
        disabled = "" if self.link.enabled else "the link is disabled"
        return self.refusal or disabled or self.waiting or self.unheard

    @property
    def ends(self) -> tuple[Interface, ...]:
        """The interfaces that are there, each once."""
        if self.a and self.b and self.a.ifindex != self.b.ifindex:
            return self.a, self.b
        end = self.a or self.b
        return (end,) if end else ()


class Role(NamedTuple):
    """What one interface is to be: an end of a link, whose other end is ``other`` if there is one.

    Its frames are redirected to ``target``, or dropped where that is ``CLOSED``. ``held`` is why it
    is only held, dropping in both directions: then there is no target. It is empty for an end that
    is wired. ``carrier`` is what it is to show, None where the link has no say, and ``shape`` what
    its queue is to do, None where that is left alone. ``end`` is what the file calls an end in a
    node, or behind a tunnel (empty for others), and ``made`` whether we made it. ``drop`` is the
    filter of frames that are not to leave by it (empty for none), None where that is left as it is.
    ``is_tunnel``: it is one, and ``to_host``, to another host, whose daemon is answered there: so
    that one is up also while it is held.
    """

    link: Link
    mode: Mode
    other: int | None
    target: int | None
    settings: Mapping[str, int] = MappingProxyType({})
    held: str = ""
    carrier: Shown | None = None
    end: str = ""
    made: bool = False
    shape: Shape | None = None
    drop: str | None = None
    is_tunnel: bool = False
    to_host: bool = False


def evaluate(
    links: Sequence[Link], observed: Observed, failed: Mapping[str, Refused] | None = None
) -> list[Evaluation]:
    """An evaluation of each of ``links`` (in the file's order).

    ``failed`` holds links that the kernel refused and that are not tried now.
    """
    evaluations = [_evaluate_alone(link, observed) for link in links]
    evaluations = _refuse(evaluations, _taken_twice(evaluations))
    evaluations = _refuse(evaluations, admission.cycles(_pairs(evaluations), observed))
    if failed:
        evaluations = [_as_the_kernel_says(evaluation, failed) for evaluation in evaluations]
    return [_with_carrier(each, observed) for each in evaluations]


def _with_carrier(each: Evaluation, observed: Observed) -> Evaluation:
    why = each.why_held
    if each.unheard and why == each.unheard and carrier.stays(each.link, each.ends, observed):
        why = ""
    return each._replace(carrier=carrier.shown(each.link, each.a, each.b, why, observed))


def far_ends_down(evaluations: Iterable[Evaluation]) -> frozenset[int]:
    """The ids of the namespaces of far ends that are down."""
    fars = [end.far for each in evaluations for end in each.ends if end.far]
    return frozenset([far.nsid for far in fars if far.up is False and far.nsid is not None])


def with_namespaces(
    evaluations: Iterable[Evaluation], observed: Observed, names: Mapping[int, str]
) -> tuple[Evaluation, ...]:
    """The same, and where far ends that are down are, by the ids of their namespaces."""

    def named(end: Interface | None) -> Interface | None:
        if end is None or end.far is None or end.far.up is not False or end.far.nsid is None:
            return end
        return end._replace(far=end.far._replace(namespace=names.get(end.far.nsid, "")))

    return tuple(
        _with_carrier(each._replace(a=named(each.a), b=named(each.b)), observed)
        for each in evaluations
    )


def with_hints(evaluations: Sequence[Evaluation], free: Iterable[str]) -> list[Evaluation]:
    """The same, and of links that wait what may be meant, of the interfaces that are in no link."""
    missing = {name for each in evaluations if each.waiting for name in _missing(each)}
    near = spelling.meant(missing, free)
    return [
        each._replace(hint=f"did you mean {' and '.join(found)}?")
        if near and (found := [near[name] for name in _missing(each) if name in near])
        else each
        for each in evaluations
    ]


def _missing(evaluation: Evaluation) -> list[str]:
    """The names of its ends in this namespace that do not exist, each once."""
    ends = ((evaluation.link.a, evaluation.a), (evaluation.link.b, evaluation.b))
    return [
        *dict.fromkeys(
            endpoint.name
            for endpoint, end in ends
            if end is None and not (endpoint.node or endpoint.tunnel)
        )
    ]


def roles(evaluations: Iterable[Evaluation]) -> dict[int, Role]:
    """By ifindex, what the interfaces are to be: wired where their link stands, else held."""
    found: dict[int, Role] = {}
    for evaluation in evaluations:
        for ifindex, role in _roles(evaluation):
            found.setdefault(ifindex, role)  # of two links with one end the first has it
    return found


def elsewhere(roles: Mapping[int, Role], observed: Observed) -> dict[int, Role]:
    """The same, where ends in nodes and tunnels are told as such.

    What we made for a node has the MTU of its link, a tunnel what its way takes.
    """
    told = {**roles}
    for name in (*observed.nodes, *observed.tunnels):
        ifindex = observed.names.get(name, 0)
        role = told.get(ifindex)
        end = next((end for end in role.link.ends if end.name == name), None) if role else None
        if role and end:
            made, host = observed.made.get(name), observed.interfaces[ifindex]
            is_made = made is not None and made.mac == host.mac
            settings = role.settings
            record = observed.ours[ifindex].record
            is_raised = role.held and record and Setting.MTU in record.changes
            if is_made and end.node and not is_raised:
                settings = {Setting.MTU: role.link.mtu, **settings}
            if is_made and end.tunnel and (mtu := observed.ways[end.tunnel.remote].mtu):
                settings = {Setting.MTU: end.tunnel.fits(mtu), **settings}
            is_tunnel = end.tunnel is not None
            told[ifindex] = role._replace(
                end=name,
                made=is_made,
                settings=settings,
                is_tunnel=is_tunnel,
                to_host=is_tunnel and bool(end.host),
            )
    return told


def _roles(evaluation: Evaluation) -> list[tuple[int, Role]]:
    link, ends, held = evaluation.link, evaluation.ends, evaluation.why_held
    found = []
    settings = mode_selection.settings_of(ends, None if held else evaluation.mode)
    for end, base in zip(ends, settings, strict=True):
        other = evaluation.b if end is evaluation.a else evaluation.a
        number = other.ifindex if other else None
        shown = evaluation.carrier.get(end.ifindex)
        shown = None if shown is None or shown.own else shown
        mode = evaluation.mode if evaluation.stands else evaluation.holding.get(end.ifindex)
        if not held:
            shape = evaluation.shapes.get(end.ifindex)
            target = CLOSED if link.one_way and end is evaluation.b else number
            wanted = {**base, Setting.ROOT_QDISC: ROOT_HANDLE} if shape else base
            forward = end is evaluation.b
            drop = impairments.drop(link.impair, forward=forward) if link.impair else ""
            role = Role(
                *(link, evaluation.mode, number, target, wanted),
                carrier=shown,
                shape=shape,
                drop=drop,
            )
            found.append((end.ifindex, role))
        elif mode is not None:
            partner = None if number == end.ifindex else number
            found.append((end.ifindex, Role(link, mode, partner, None, base, held, shown)))
    return found


def _evaluate_alone(link: Link, observed: Observed) -> Evaluation:
    a, b = observed.find(link.a), observed.find(link.b)
    found = Evaluation(link, a, b)
    ends = found.ends
    holding, barred = _evaluate_ends(link, ends, observed)
    if a is None or b is None:
        found = found._replace(holding=holding, warnings=barred)
        missing = _missing(found)
        waiting = f"{' and '.join(missing)} {'does' if len(missing) == 1 else 'do'} not exist"
        if link.a.node or link.b.node or link.a.tunnel or link.b.tunnel:
            return _elsewhere(found, waiting if missing else "", observed)
        return found._replace(waiting=waiting)
    if len(ends) == 1 and link.a != link.b:
        reason = f"{link.a} and {link.b} are the same interface, {a.name}"
        return found._replace(holding=holding, refusal=reason)
    refused = _refusal_of(a, observed) or _refusal_of(b, observed)
    choice = mode_selection.choose(link, a, b, refused)
    refusals = {
        end.ifindex: words
        for end, other in ((a, b), (b, a))
        if holding.get(end.ifindex) is not choice.mode  # else that is answered already
        if (words := admission.refusal(link, choice.mode, end, other, observed))
    }
    if link.impair:
        found = found._replace(shapes=impairments.shapes(link.impair, a, b, observed.records))
    foreign = impairments.refusal(ends, found.shapes) if found.shapes else ""
    return found._replace(
        mode=choice.mode,
        mode_reason=choice.reason,
        refusal=choice.refusal or next(iter(refusals.values()), "") or foreign,
        warnings=(*choice.warnings, *_warnings(link, a, b, observed)),
        holding={end: mode for end, mode in holding.items() if end not in refusals},
        unheard=_why_unheard(link, a, b, observed) if observed.heard else "",
    )


def _why_unheard(link: Link, a: Interface, b: Interface, observed: Observed) -> str:
    """Why frames are not to cross for the other host's sake; empty if they are.

    As long as nobody knows, what stands stays and what does not is not made.
    """
    for end in link.ends:
        heard = observed.heard.get(end.text)
        if heard is None or heard.alive:
            continue
        pairs = {(a.ifindex, b.ifindex), (b.ifindex, a.ifindex)}
        if heard.alive is None and not pairs.isdisjoint(observed.peers.items()):
            continue
        return heard.reason or f"nothing was heard from {end.host} yet"
    return ""


def _elsewhere(found: Evaluation, waiting: str, observed: Observed) -> Evaluation:
    """An evaluation of a link without one of its ends, ``waiting`` for those that are here."""
    missing = [end for end in found.link.ends if observed.find(end) is None]
    ends = [(end.name, observed.nodes.get(end.name)) for end in missing if end.node]
    words = [waiting]
    words += [place.waiting for _, place in ends if place]
    words += [f"{name} does not exist" for name, place in ends if not place or place.is_missing]
    refused = [place.refused for _, place in ends if place]
    for tunnel in [end for end in missing if end.tunnel]:
        words.append(f"there is no tunnel to {tunnel}")
        refused.append(observed.tunnels.get(tunnel.name, ""))
    return found._replace(
        waiting="; ".join(dict.fromkeys(filter(None, words))),
        refusal=next(filter(None, refused), ""),
        warnings=(*found.warnings, *_node_warnings(found.link, observed)),
    )


def _node_warnings(link: Link, observed: Observed) -> list[str]:
    places = [observed.nodes.get(end.name) for end in link.ends]
    return [*dict.fromkeys(each.warning for each in places if each and each.warning)]


def _refusal_of(end: Interface, observed: Observed) -> str:
    """Why its driver refused native XDP, as long as it has the MTU that it had then."""
    record = observed.ours[end.ifindex].record
    refusal = record.refusal if record else None
    if refusal is None or refusal.mtu != end.mtu:
        return ""
    return f"{refusal.words}, at MTU {refusal.mtu}"


def _evaluate_ends(
    link: Link, ends: Sequence[Interface], observed: Observed
) -> tuple[dict[int, Mode], tuple[str, ...]]:
    """The ends that may be held whatever becomes of the link, and words on those that may not."""
    holding, barred = {}, []
    choices = mode_selection.choose_to_hold(link, ends, observed)
    for end, choice in zip(ends, choices, strict=True):
        words = choice.refusal or admission.refusal_to_hold(link, choice.mode, end, observed)
        if words:
            barred.append(f"left to the host until then: {words}")
        else:
            holding[end.ifindex] = choice.mode
    return holding, tuple(barred)


def _warnings(link: Link, a: Interface, b: Interface, observed: Observed) -> list[str]:
    words = [
        f"{end}: the machine behind it is not told of its carrier: {observed.monitors[address]}"
        for end, address in link.monitors
        if address in observed.monitors
    ]
    if observed.nodes:
        words += _node_warnings(link, observed)
    if observed.ways:
        words += _lost_on_the_way(link, a, b, observed)
    for end in (a,) if a is b else (a, b):
        words += admission.warnings(link, end, observed)
        if end.variant in ("private", "vepa", "bridge"):
            words.append(
                f"{end.name}: a macvlan in {end.variant} mode receives only its own MAC and"
                " broadcast; mode passthru receives everything"
            )
        if end.kind == "bridge":
            words.append(
                f"{end.name}: a bridge passes up only its own MAC, broadcast and multicast; name"
                " one end of a veth here, and make the other a port of the bridge"
            )
    return words


def _lost_on_the_way(link: Link, a: Interface, b: Interface, observed: Observed) -> Iterator[str]:
    """Over IPv6 the kernel fragments no frame of a VXLAN device (ip6_fragment, ignore_df)."""
    for tunnel, own in ((link.a.tunnel, b), (link.b.tunnel, a)):
        way = observed.ways[tunnel.remote].mtu if tunnel and ":" in tunnel.remote else None
        if tunnel is None or way is None or own.far is None or own.far.nsid is None:
            continue
        fits, longest = tunnel.fits(way), own.far.mtu or 0
        if longest > fits:
            yield (
                f"{own.name}: what is behind it has MTU {longest}, and packets of more than {fits}"
                f" bytes are lost on the way to {tunnel.remote}, as IPv6 does not fragment them:"
                f" give what is behind both ends an MTU of {fits}, or the way one of"
                f" {longest + tunnel.overhead}"
            )


def _taken_twice(evaluations: Iterable[Evaluation]) -> dict[str, str]:
    """Links whose end proves to be an interface that an earlier link has under another name."""
    owner: dict[int, str] = {}
    twice: dict[str, str] = {}
    for evaluation in evaluations:
        for end in evaluation.ends:
            first = owner.setdefault(end.ifindex, evaluation.link.id)
            if first != evaluation.link.id:
                twice[evaluation.link.id] = f"{end.name} is an end of link {first} already"
    return twice


def _pairs(evaluations: Iterable[Evaluation]) -> list[tuple[str, int, int]]:
    return [
        (each.link.id, each.a.ifindex, each.b.ifindex)
        for each in evaluations
        if each.stands and each.link.enabled and each.a and each.b
    ]


def _refuse(evaluations: list[Evaluation], reasons: Mapping[str, str]) -> list[Evaluation]:
    if not reasons:
        return evaluations
    return [
        each._replace(refusal=reasons[each.link.id])
        if each.link.id in reasons and each.stands
        else each
        for each in evaluations
    ]


def _as_the_kernel_says(evaluation: Evaluation, failed: Mapping[str, Refused]) -> Evaluation:
    """A link that waits can be refused as well: the end that is there would not be held."""
    refused = failed.get(evaluation.link.id)
    if refused is None or evaluation.refusal:
        return evaluation
    holding = {end: mode for end, mode in evaluation.holding.items() if end not in refused.unheld}
    return evaluation._replace(refusal=refused.words, holding=holding)
