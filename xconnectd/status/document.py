"""What ``status --json`` tells, typed. Pure.

A field is called what its key is, but for the few of ``_KEYS``. A document of another release is
read as far as it is known here: a key that is new is left out, one that is missing has a default.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Final, NamedTuple, Self

from xconnectd.errors import XconnectError
from xconnectd.formatting import counted
from xconnectd.model import Heard, Rewrite, State

Json = dict[str, Any]

_A_PIECE: Final = 16
"""Links, which are some 25 KB and half a millisecond."""

Counted = Mapping[int, tuple[int, int]]
"""Frames and bytes that came in, by ifindex."""

_NOTHING: Final[Mapping[str, Any]] = {}

# --------------------------------------------------------------------------- the daemon


class Passes(NamedTuple):
    """How many passes there were, how long all took; ``le_s``: how many took so many seconds."""

    total: int = 0
    sum_s: float = 0.0
    le_s: Mapping[str, int] = _NOTHING


class Metrics(NamedTuple):
    """Where metrics are served, and why they are not yet."""

    listen: str
    problem: str = ""


class Trial(NamedTuple):
    """The wiring that is tried; ``edited``: a file was changed meanwhile."""

    hash: str
    ends_in_s: float = 0.0
    edited: bool = False


class Daemon(NamedTuple):
    """Whether there is one; the fields from ``uptime_s`` on are told by one that answers.

    ``last_reload`` and ``last_load`` are seconds since the epoch; ``starts`` is counted by what
    became of the programs in the kernel.
    """

    running: bool = False
    answers: bool = False
    pid: int | None = None
    uptime_s: float = 0.0
    last_reload: float | None = None
    last_load: float | None = None
    last_error: str = ""
    repairs: int = 0
    passes: Passes = Passes()
    starts: Mapping[str, int] = _NOTHING
    metrics: Metrics | None = None
    trial: Trial | None = None


class File(NamedTuple):
    """One file: ``loaded``, ``rejected`` (its last good links stay) or ``missing``."""

    path: str
    state: str
    hash: str = ""
    problems: tuple[str, ...] = ()


class Config(NamedTuple):
    """All files together, and the hash of what they ask for."""

    path: str = ""
    state: str = ""
    hash: str = ""
    problems: tuple[str, ...] = ()
    files: tuple[File, ...] = ()


# --------------------------------------------------------------------------- links


class End(NamedTuple):
    """One end of a link, and what is counted of the frames that came in by it.

    ``name`` is what the file calls it: ``interface``, which is in ``node`` and on ``host`` unless
    these are empty.
    ``host_interface`` is what is wired for it here, empty while there is none.
    MTUs are bytes, without the headroom that a link gives its ends. Rates are None in a look
    alone, ``passed_to_host`` where nobody can tell. ``offers`` is None where it cannot be read (is
    what is behind the end alive?), ``shows_carrier`` where the link has no say in what that sees;
    ``carrier_reason`` is why the end does not follow its partner.
    """

    name: str
    node: str = ""
    interface: str = ""
    host_interface: str = ""
    ifindex: int | None = None
    attached: bool = False
    up: bool = False
    carrier: bool = False
    mtu: int | None = None
    far_mtu: int | None = None
    far_name: str | None = None
    far_nsid: int | None = None
    frames: int = 0
    bytes: int = 0
    frames_per_s: float | None = None
    bits_per_s: int | None = None
    last_frame_age_s: float | None = None
    dropped: Mapping[str, int] = _NOTHING
    passed_to_host: int | None = None
    offers: bool | None = None
    shows_carrier: bool | None = None
    carrier_reason: str = ""
    host: str = ""

    def since(self, frames: int, octets: int, seconds: float) -> Self:
        """With rates, of what was counted ``seconds`` ago.

        Counters begin anew with an end; a rate below nothing would be no rate.
        """
        frames_per_s = max(0, self.frames - frames) / seconds
        bits = max(0, self.bytes - octets) * 8 / seconds
        return self._replace(frames_per_s=round(frames_per_s, 1), bits_per_s=round(bits))


class Drop(NamedTuple):
    """Frames that a link lost on one of its ways for one reason, in words, and the way out."""

    source: str
    target: str
    reason: str
    frames: int
    text: str
    remedy: str = ""


class Keepalives(NamedTuple):
    """How many were sent, came back as echoes, came from the other daemon, and did not verify."""

    sent: int = 0
    echoed: int = 0
    received: int = 0
    unverified: int = 0


class Peer(NamedTuple):
    """The other side of a link's tunnel: where that leads, and what was heard from there last.

    ``host`` is empty where it leads to a device that is not ours, of which nothing is heard.
    ``device`` is the VXLAN device here, empty while there is none. ``mtu``: the longest payload of
    a frame, in bytes, that crosses in one packet; longer ones in fragments. None: no route.
    ``alive`` is whether it is to forward, None where nobody here listens; ``reason`` is why not.
    ``offers``: what is behind its end is alive, else ``cause`` says why not. ``state`` and
    ``digest`` are those of the link there; ``frames`` came out of the tunnel there and were handed
    on, ``dropped`` ones were not. What it has not told is empty or None.
    """

    host: str
    address: str
    vni: int
    port: int
    device: str = ""
    mtu: int | None = None
    alive: bool | None = None
    reason: str = ""
    offers: bool = True
    cause: str = ""
    state: str = ""
    digest: str = ""
    last_heard_age_s: float | None = None
    round_trip_ms: float | None = None
    frames: int | None = None
    dropped: int | None = None
    keepalives: Keepalives = Keepalives()

    def as_heard(self, now: float) -> Heard:
        """The same as a look takes it; ``now`` is CLOCK_MONOTONIC, in seconds."""
        age, trip = self.last_heard_age_s, self.round_trip_ms
        return Heard(
            *(self.alive, self.reason, self.offers, self.cause, self.state, self.digest),
            None if trip is None else trip / 1000,
            None if age is None else now - age,
            self.frames,
            self.dropped,
            *self.keepalives,
        )


class Link(NamedTuple):
    """A link. ``link`` is its id, ``retry_in_s`` None where nobody will try it again.

    ``one_way``: frames go from ``a`` to ``b`` alone. ``rewrite`` is what is changed of them.
    ``impair`` has what meets its frames ``forward``, from ``a`` to ``b``, and in ``reverse``, which
    of these are ``passing``, and in how many seconds that ends (``ends_in_s``). ``digest`` is of
    what the hosts of a link must agree on, and ``peer`` the one at the other side of its tunnel.
    """

    link: str
    state: State
    reason: str = ""
    retry_in_s: float | None = None
    mode: str = ""
    mode_reason: str = ""
    warnings: tuple[str, ...] = ()
    description: str = ""
    labels: Mapping[str, str] = _NOTHING
    enabled: bool = True
    a: End = End("")
    b: End = End("")
    drops: tuple[Drop, ...] = ()
    one_way: bool = False
    rewrite: str = Rewrite.NONE.value
    impair: Mapping[str, Any] | None = None
    digest: str = ""
    peer: Peer | None = None

    @property
    def ends(self) -> tuple[End, ...]:
        """Both ends; one end for a loopback (``a: a``)."""
        return (self.a,) if self.a.name == self.b.name else (self.a, self.b)

    @property
    def ways(self) -> tuple[tuple[End, End], ...]:
        """Both directions, each from the end where frames come in; one for a loopback."""
        return ((self.a, self.b), (self.b, self.a))[: len(self.ends)]

    @property
    def names(self) -> tuple[str, ...]:
        """What a user may call it."""
        here = (end.host_interface for end in self.ends if end.host_interface)
        return spellings(self.link, self.a.name, self.b.name, *here)

    def since(self, before: Self | None, seconds: float) -> Self:
        """With rates, if it was there ``seconds`` ago."""
        if before is None:
            return self
        return self._replace(
            a=self.a.since(before.a.frames, before.a.bytes, seconds),
            b=self.b.since(before.b.frames, before.b.bytes, seconds),
        )


def spellings(link: str, a: str, b: str, *here: str) -> tuple[str, ...]:
    """What a user may call a link: its id, both its ends in either order, either end.

    An end on this host is called as the file has it, with the host, or by its name ``a``, ``b``
    here. ``here`` are the names of the interfaces that stand for its ends on this host.
    """
    comma = "," if "," in link else ":"
    first, _, second = link.partition(comma)
    pairs = (f"{second}{comma}{first}", f"{a}{comma}{b}", f"{b}{comma}{a}")
    return (link, *dict.fromkeys((*pairs, first, second, a, b, *here)))


# --------------------------------------------------------------------------- the document


class Moved(NamedTuple):
    """An interface that was moved to another namespace with our program on it."""

    interface: str
    ifindex: int
    remedy: str = ""


class Difference(NamedTuple):
    """A step that would make the kernel agree with the file."""

    action: str
    link: str
    interface: str
    reason: str = ""


class StatusDocument(NamedTuple):
    """All of ``status --json``.

    ``drop_stats_unavailable`` is why losses at the redirect are not counted, ``guard_unavailable``
    why what gets past every hook is not kept from the host; ``unseen`` is for who cannot see the
    kernel's part, and why. ``host`` is which of the file's hosts this is, empty where it has none.
    ``differences`` are None where nobody looked for them.
    """

    daemon: Daemon = Daemon()
    config: Config = Config()
    links: tuple[Link, ...] = ()
    moved_netns: tuple[Moved, ...] = ()
    drop_stats_unavailable: str = ""
    guard_unavailable: str = ""
    unseen: str = ""
    host: str = ""
    differences: tuple[Difference, ...] | None = None

    def as_json(self) -> Json:
        """The stable keys; more may come, none goes. Of a silent daemon there are but three."""
        told: Json = _plain(self)
        if self.differences is None:
            del told["differences"]
        if not self.daemon.answers:
            told["daemon"] = {key: told["daemon"][key] for key in ("running", "answers", "pid")}
        return told

    def in_pieces(self, links: Iterable[Link]) -> Iterator[str]:
        """The text of ``as_json`` with these links, which are made one after the other."""
        told = self.as_json()
        del told["links"]
        before, rest = f'{json.dumps(told)[:-1]}, "links": [', iter(links)
        while some := [_plain(link) for link in islice(rest, _A_PIECE)]:
            yield before + json.dumps(some)[1:-1]
            before = ", "
        yield f"{'' if before == ', ' else before}]}}"

    @classmethod
    def from_json(cls, data: Json) -> Self:
        """Raises KeyError, TypeError, ValueError: it is no such document."""
        told: Self = _made(cls, data)
        return told

    # ------------------------------------------------------------------ of its links

    def since(self, before: Self, seconds: float) -> Self:
        """With what came in by every end since a document of ``seconds`` ago, per second."""
        known = {each.link: each for each in before.links}
        links = (each.since(known.get(each.link), seconds) for each in self.links)
        return self._replace(links=tuple(links))

    def rated(self, before: Counted, seconds: float) -> Self:
        """With what came in since ``before``, ``seconds`` ago; not yet counted then is nothing."""

        def rated(end: End) -> End:
            return end.since(*before.get(end.ifindex or 0, (end.frames, end.bytes)), seconds)

        links = (each._replace(a=rated(each.a), b=rated(each.b)) for each in self.links)
        return self._replace(links=tuple(links))

    def only(self, wanted: Sequence[str]) -> Self:
        """That of the links that are called so; of all if no name is given.

        Raises XconnectError: no link is called by one of them.
        """
        if not wanted:
            return self
        known = {each.link: each.names for each in self.links}
        called = set(chain.from_iterable(known.values()))
        if unknown := [name for name in wanted if name not in called]:
            path = self.config.path
            raise XconnectError("\n".join(no_such_link(name, path, known) for name in unknown))
        links = tuple(each for each in self.links if not set(wanted).isdisjoint(each.names))
        kept = {each.link for each in links}
        found = tuple(each for each in self.differences or () if each.link in kept)
        return self._replace(links=links, differences=found)

    def not_connected(self, wanted: Sequence[str]) -> dict[str, str]:
        """The enabled links (or the named ones) that are not connected, each with the reason."""
        known = set(chain.from_iterable(each.names for each in self.links))
        missing = {name: "no such link in the file" for name in wanted if name not in known}
        for each in self.links:
            asked = each.enabled if not wanted else not set(wanted).isdisjoint(each.names)
            if asked and each.state is not State.CONNECTED:
                missing[each.link] = f"{each.state}: {each.reason}"
        config = self.config
        if config.state != "loaded" and (missing or not wanted):
            missing.setdefault(config.path, "\n".join((config.state, *config.problems)))
        return missing


def no_such_link(name: str, file: str, links: Mapping[str, Sequence[str]]) -> str:
    """What to say of a name that no link has: one line, however many links there are.

    ``links`` is what they may be called, by their ids.
    """
    from difflib import get_close_matches  # 5 ms that only a typo should cost

    owner = {spelling: link for link, spellings in links.items() for spelling in spellings}
    close = dict.fromkeys(owner[found] for found in get_close_matches(name, owner, n=5))
    meant = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"no link {name} in {file}, which has {counted(len(links), 'link')}{meant}"


# --------------------------------------------------------------------------- JSON

_KEYS: Final = {"source": "from", "target": "to", "total": "count", "trial": "try"}
"""What a field is called outside where Python has another use for the word."""

_PARTS: Final[Mapping[Any, Mapping[str, Any]]] = {
    StatusDocument: {
        "daemon": Daemon,
        "config": Config,
        "links": Link,
        "moved_netns": Moved,
        "differences": Difference,
    },
    Daemon: {"passes": Passes, "metrics": Metrics, "trial": Trial},
    Config: {"problems": str, "files": File},
    File: {"problems": str},
    Link: {"state": State, "warnings": str, "a": End, "b": End, "drops": Drop, "peer": Peer},
    Peer: {"keepalives": Keepalives},
}
"""The fields that JSON has no form of, and what they, or each of them, are."""


class _Form:
    """Of a type: the keys of its fields, and what is to be made of the values of some."""

    def __init__(self, kind: Any) -> None:
        self.names = [_KEYS.get(name, name) for name in kind._fields]
        self.keys = frozenset(self.names)
        self.parts = {_KEYS.get(name, name): part for name, part in _PARTS.get(kind, {}).items()}
        self.fields = dict(zip(self.names, kind._fields, strict=True))


_FORMS: Final = {
    kind: _Form(kind)
    for kind in {*_PARTS, *(part for parts in _PARTS.values() for part in parts.values())}
    if issubclass(kind, tuple)
}


def _plain(value: Any) -> Any:
    """A value as ``json`` takes it."""
    if (form := _FORMS.get(type(value))) is None:
        return [_plain(each) for each in value] if isinstance(value, tuple) else value
    told = dict(zip(form.names, value, strict=True))
    for key in form.parts:
        if told[key]:
            told[key] = _plain(told[key])
    return told


def _made(kind: Any, data: Any) -> Any:
    """The other way round."""
    if isinstance(data, list):
        return tuple([_made(kind, each) for each in data])
    if not isinstance(data, dict):
        return data if data is None else kind(data)
    form = _FORMS[kind]
    made = {key: _made(part, data[key]) for key, part in form.parts.items() if key in data}
    told = {**data, **made} if made else data
    if told.keys() == form.keys:  # of this release
        return kind._make([told[key] for key in form.names])
    return kind(**{name: told[key] for key, name in form.fields.items() if key in told})
