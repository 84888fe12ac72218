"""What becomes of every link, given one look at the kernel: its role, or why it has none. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from xconnectd import modes, safety
from xconnectd.model import Interface, Link, Mode, Observed


class Verdict(NamedTuple):
    """One link, its ends as found, and either a mode or the reason against it.

    ``waiting`` and ``refusal`` are empty for a link that can stand.
    """

    link: Link
    a: Interface | None = None
    b: Interface | None = None
    mode: Mode = Mode.AUTO
    mode_reason: str = ""
    waiting: str = ""
    refusal: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def stands(self) -> bool:
        return not self.waiting and not self.refusal

    @property
    def ends(self) -> tuple[Interface, ...]:
        """The interfaces that are there, each once."""
        found = {end.ifindex: end for end in (self.a, self.b) if end is not None}
        return tuple(found.values())


class Role(NamedTuple):
    """What one interface is to be: an end of a link, whose other end is ``other``."""

    link: Link
    mode: Mode
    other: int
    settings: Mapping[str, int] = MappingProxyType({})

    @property
    def target(self) -> int | None:
        """Where its frames are redirected to; None for a link that is disabled."""
        return self.other if self.link.enabled else None


def judge(
    links: Sequence[Link], observed: Observed, failed: Mapping[str, str] | None = None
) -> list[Verdict]:
    """A verdict on each of ``links`` (in the file's order).

    ``failed`` holds links that the kernel refused and that are not tried now, with its words.
    """
    verdicts = [_judge_alone(link, observed) for link in links]
    verdicts = _refuse(verdicts, _taken_twice(verdicts))
    verdicts = _refuse(verdicts, safety.cycles(_pairs(verdicts), observed))
    return _refuse(verdicts, failed or {})


def roles(verdicts: Iterable[Verdict]) -> dict[int, Role]:
    """By ifindex, what the interfaces of all links that stand are to be."""
    found: dict[int, Role] = {}
    for verdict in verdicts:
        if not verdict.stands or verdict.a is None or verdict.b is None:
            continue
        for end, other in ((verdict.a, verdict.b), (verdict.b, verdict.a)):
            wanted = modes.settings(end, verdict.mode)
            found[end.ifindex] = Role(verdict.link, verdict.mode, other.ifindex, wanted)
    return found


def _judge_alone(link: Link, observed: Observed) -> Verdict:
    a, b = observed.find(link.a), observed.find(link.b)
    found = Verdict(link, a, b)
    missing = [name for name, end in ((link.a.name, a), (link.b.name, b)) if end is None]
    if a is None or b is None:
        verb = "does not exist" if len(set(missing)) == 1 else "do not exist"
        return found._replace(waiting=f"{' and '.join(dict.fromkeys(missing))} {verb}")
    if a.ifindex == b.ifindex and link.a != link.b:
        return found._replace(refusal=f"{link.a} and {link.b} are one interface, {a.name}")
    refused = next(filter(None, map(observed.refusal_of, found.ends)), "")
    choice = modes.choose(link, a, b, refused)
    refusals = (
        safety.refusal(link, choice.mode, end, other, observed) for end, other in ((a, b), (b, a))
    )
    return found._replace(
        mode=choice.mode,
        mode_reason=choice.reason,
        refusal=choice.refusal or next(filter(None, refusals), ""),
        warnings=(*choice.warnings, *_warnings(found, observed)),
    )


def _warnings(verdict: Verdict, observed: Observed) -> Iterable[str]:
    for end in verdict.ends:
        yield from safety.warnings(verdict.link, end, observed)
        if end.variant in ("private", "vepa", "bridge"):
            yield (
                f"{end.name}: a macvlan in {end.variant} mode receives only its own MAC and"
                " broadcast; mode passthru receives everything"
            )
        if end.kind == "bridge":
            yield (
                f"{end.name}: a bridge hands up only its own MAC, broadcast and multicast; name"
                " one end of a veth here, and make the other a port of the bridge"
            )


def _taken_twice(verdicts: Iterable[Verdict]) -> dict[str, str]:
    """Links whose end proves to be an interface that an earlier link has under another name."""
    owner: dict[int, str] = {}
    twice: dict[str, str] = {}
    for verdict in verdicts:
        for end in verdict.ends:
            first = owner.setdefault(end.ifindex, verdict.link.id)
            if first != verdict.link.id:
                twice[verdict.link.id] = f"{end.name} is an end of link {first} already"
    return twice


def _pairs(verdicts: Iterable[Verdict]) -> list[tuple[str, int, int]]:
    return [
        (verdict.link.id, verdict.a.ifindex, verdict.b.ifindex)
        for verdict in verdicts
        if verdict.stands and verdict.link.enabled and verdict.a and verdict.b
    ]


def _refuse(verdicts: list[Verdict], reasons: Mapping[str, str]) -> list[Verdict]:
    return [
        verdict._replace(refusal=reasons[verdict.link.id])
        if verdict.link.id in reasons and verdict.stands
        else verdict
        for verdict in verdicts
    ]
