"""What is known of other hosts by their keepalives, and what is to be said to them when. Pure.

Time is CLOCK_MONOTONIC in seconds, and always told by the caller.

Probes: all tunnels to one address share a path. In each round a part of them is probed, so that
each has its turn five times a second, and always the one that answered last. A path is dead when
nothing came back of three rounds, and its tunnels with it; a tunnel by itself when three of its own
probes have not.

Messages: a daemon takes what another one says only when that names its own session: so it was said
after its own start, and is no recording. One that does not is answered at once by a message that
names the other's session, and then both know each other. A session that another one has followed
is over.

Silence: a daemon may say nothing for the ``hold`` of a link. Two of the pauses that it makes anyway
are never too long: it may have another ``hold``, or be of an older release. And time in which this
daemon got no processor is not counted: the other one may have got none either.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import ceil
from typing import Final, NamedTuple

from xconnectd.model import Announcement, Heard
from xconnectd.tunnels import keepalive
from xconnectd.tunnels.keepalive import Echo, Message, Refused
from xconnectd.tunnels.liveness import ECHO_TIMEOUT, Liveness

ROUND: Final = 0.04
"""Seconds between two probes to one address."""
_TURNS: Final = 5
"""Rounds in which each tunnel is probed once."""
_MESSAGE_EVERY: Final = 1.0
"""Seconds between two messages when nothing is new ..."""
_MESSAGES_OF_HOLD: Final = 5
"""... but at least so many are said while a link would stand without one."""
_LONGEST_PAUSE: Final = _MESSAGE_EVERY + 2 * _TURNS * ROUND
"""Seconds: a message waits for its tunnel's turn."""
_FORGETS: Final = 0.9
"""What is left of a long pause after each shorter one."""
_REPEATS: Final = 2
"""Rounds in which something new is said again."""
_RECENT: Final = 3.0
"""Seconds in which what was heard tells of now."""
_ONE_WAY: Final = 0.5
"""Seconds between two messages, and no echo, that show that frames come from there alone."""
_LATE: Final = ROUND
"""Seconds behind time that make a round a late one."""
_STALLED: Final = 0.25
"""Seconds: of a longer time without a look at what came, so much counts as silence."""
_SESSIONS: Final = 64
"""Over ones that are remembered of a host."""
_SMOOTH: Final = 8
_LONGEST_TRIP: Final = 1.0
_PROBES_OF_ROUND: Final = 1 << 24

Counts = Callable[[int], tuple[int, int] | None]
"""Frames that came in by an ifindex and were handed on, and dropped ones; None: not known."""


class Outgoing(NamedTuple):
    """A frame, and the tunnel by which it is to leave."""

    ifindex: int
    frame: bytes


@dataclass(slots=True, eq=False)
class _Path:
    """All tunnels to one address."""

    address: str
    live: Liveness
    tunnels: list[_Tunnel] = field(default_factory=list)
    turn: int = 0
    round_trip: float | None = None
    last_echoed: _Tunnel | None = None
    """The one that answered last."""
    session: int = 0
    over: deque[int] = field(default_factory=lambda: deque(maxlen=_SESSIONS))
    received_at: float = float("-inf")
    first_received_at: float = float("inf")
    """When something other than an echo came: the last, and the first since the last echo."""

    @property
    def echo_timeout(self) -> float:
        return ECHO_TIMEOUT + 2 * min(self.round_trip or 0.0, _LONGEST_TRIP)

    def note_received(self, now: float) -> None:
        self.received_at = now
        self.first_received_at = min(now, self.first_received_at)

    def next_tunnels(self) -> list[_Tunnel]:
        """Those that are probed in this round."""
        many = ceil(len(self.tunnels) / _TURNS)
        first, self.turn = self.turn, (self.turn + many) % len(self.tunnels)
        turn = [self.tunnels[(first + i) % len(self.tunnels)] for i in range(many)]
        new = [each for each in self.tunnels if not each.sent]
        last = [self.last_echoed] if self.last_echoed else []
        return list(dict.fromkeys([*turn, *last, *new]))


@dataclass(slots=True, eq=False)
class _Tunnel:
    told: Announcement
    path: _Path
    live: Liveness
    silent_since: float
    """By ``Peers._listened``."""
    pause: float = _LONGEST_PAUSE
    """Seconds, the longest of late, between two messages from there."""
    message: Message | None = None
    message_at: float = float("-inf")
    refused: str = ""
    refused_at: float = float("-inf")
    said_at: float = float("-inf")
    repeats: int = 0
    answer: int = 0
    """The session to be named in the next message, since its daemon does not know ours; 0: none."""
    unsent: str = ""
    """Why the last frame could not be sent."""
    sent: int = 0
    echoed: int = 0
    received: int = 0
    unverified: int = 0
    known: Heard = field(default_factory=Heard)

    @property
    def host(self) -> str:
        return self.told.end.partition("/")[0]

    @property
    def message_every(self) -> float:
        return min(_MESSAGE_EVERY, self.told.hold / _MESSAGES_OF_HOLD)


class Peers:
    """The hosts at the other sides of all tunnels, as one daemon sees them.

    ``session`` is a random number of 64 bits, another one at each start.
    """

    def __init__(self, session: int, counts: Counts = lambda _: None) -> None:
        self._session = session
        self._counts = counts
        self._key = b""
        self._paths: dict[str, _Path] = {}
        self._tunnels: dict[int, _Tunnel] = {}
        self._ends: dict[str, _Tunnel] = {}
        self._rounds = 0
        self._probes = 0
        self._messages = 0
        self._urgent: dict[_Tunnel, None] = {}
        self._changed: set[str] = set()
        self._next_round = float("-inf")
        self._looked = float("-inf")
        self._listened = 0.0
        """Seconds, by which silence is measured."""

    # ------------------------------------------------------------------ what is wanted

    def want(self, announcements: Iterable[Announcement], key: str, now: float) -> list[Outgoing]:
        """Replaces what is to be said. Returns what is to be sent of tunnels that are left."""
        wanted = {each.ifindex: each for each in announcements}
        gone = [each for ifindex, each in self._tunnels.items() if ifindex not in wanted]
        last = [self._say(each, now, stops=True) for each in gone]
        before = {each.told.end: each for each in gone}
        for each in gone:
            self._leave(each)
        self._key = key.encode()
        for ifindex, told in wanted.items():
            known = self._tunnels.get(ifindex)
            if known and known.told == told:
                continue
            if known and known.told.tunnel == told.tunnel and known.told.end == told.end:
                known.told = told
            else:
                if known:
                    self._leave(known)
                known = self._enter(told, now, before.get(told.end))
            known.repeats = _REPEATS
            self._urgent[known] = None
            self._judge_anew(known, now)
        return last

    def _enter(self, told: Announcement, now: float, before: _Tunnel | None) -> _Tunnel:
        address = told.tunnel.remote
        path = self._paths.setdefault(address, _Path(address, Liveness(now)))
        tunnel = _Tunnel(told, path, Liveness(now), self._listened)
        if before and before.told.tunnel == told.tunnel:  # its device was made anew
            tunnel.message, tunnel.message_at = before.message, before.message_at
            tunnel.silent_since, tunnel.pause = before.silent_since, before.pause
        path.tunnels.append(tunnel)
        self._tunnels[told.ifindex] = self._ends[told.end] = tunnel
        self._next_round = min(self._next_round, now)
        return tunnel

    def _leave(self, tunnel: _Tunnel) -> None:
        path, end = tunnel.path, tunnel.told.end
        del self._tunnels[tunnel.told.ifindex]
        if self._ends.get(end) is tunnel:
            del self._ends[end]
        self._urgent.pop(tunnel, None)
        path.tunnels.remove(tunnel)
        path.turn = 0
        if path.last_echoed is tunnel:
            path.last_echoed = None
        if not path.tunnels:
            del self._paths[path.address]

    # ------------------------------------------------------------------ what is sent

    @property
    def due(self) -> float:
        """When ``outgoing`` has something to do; never without tunnels."""
        if not self._tunnels:
            return float("inf")
        if self._urgent:
            return float("-inf")
        echoes_due = [path.live.due(path.echo_timeout) for path in self._paths.values()]
        return min(self._next_round, *echoes_due)

    def outgoing(self, now: float) -> list[Outgoing]:
        """What is to be sent now. All that has been received must have been told before."""
        due = now >= self._next_round
        self._listened += min(now - self._looked, _STALLED)
        self._looked = now
        if 0 < self._next_round < now - _LATE:
            self._extend(now)
        for path in self._paths.values():
            self._judge_path(path, now)
        frames: list[Outgoing] = []
        if due:
            self._next_round = now + ROUND
            self._rounds += 1
            self._probes = 0
            for path in self._paths.values():
                frames += self._round(path, now)
        urgent, self._urgent = self._urgent, {}
        return frames + [self._say(each, now) for each in urgent]

    def _extend(self, now: float) -> None:
        """Who comes late may have been stopped, and the whole machine with it."""
        for tunnel in self._tunnels.values():
            tunnel.live.extend(now)
        for path in self._paths.values():
            path.live.extend(now)

    def _round(self, path: _Path, now: float) -> Iterator[Outgoing]:
        path.live.sent(self._rounds, now)
        for tunnel in path.next_tunnels():
            if path.live.alive:
                tunnel.live.judge(now, path.echo_timeout)
            self._judge_anew(tunnel, now)
            yield self._probe(tunnel, now)
            if now - tunnel.said_at >= tunnel.message_every:
                self._urgent[tunnel] = None
        for tunnel in path.tunnels:
            if tunnel.repeats and tunnel not in self._urgent:
                tunnel.repeats -= 1
                self._urgent[tunnel] = None

    def _probe(self, tunnel: _Tunnel, now: float) -> Outgoing:
        """Its number tells of which round it is."""
        self._probes += 1
        number = self._rounds * _PROBES_OF_ROUND + self._probes
        tunnel.sent += 1
        tunnel.live.sent(number, now)
        return Outgoing(tunnel.told.ifindex, keepalive.probe(self._session, number))

    def _say(self, tunnel: _Tunnel, now: float, *, stops: bool = False) -> Outgoing:
        self._messages += 1
        told = tunnel.told
        heard, tunnel.answer = tunnel.answer or tunnel.path.session, 0
        frames, dropped = self._counts(told.ifindex) or (None, None)
        message = Message(
            session=self._session,
            number=self._messages,
            heard=heard,
            link=told.link,
            digest=told.digest,
            state=told.state,
            offers=told.offers,
            cause=told.cause,
            stops=stops,
            frames=frames,
            dropped=dropped,
        )
        tunnel.said_at = now
        return Outgoing(told.ifindex, keepalive.encode(message, told.tunnel.vni, self._key))

    def not_sent(self, ifindex: int, why: str) -> None:
        """``why`` in words; empty when it was."""
        if tunnel := self._tunnels.get(ifindex):
            tunnel.unsent = why

    # ------------------------------------------------------------------ what is received

    def receive(self, ifindex: int, frame: bytes, now: float) -> None:
        """A frame that came out of a tunnel."""
        tunnel = self._tunnels.get(ifindex)
        if tunnel is None:
            return
        match keepalive.decode(frame, tunnel.told.tunnel.vni, self._key):
            case Echo(session, number) if session == self._session:
                self._take_echo(tunnel, number, now)
            case Message() as message:
                self._take_message(tunnel, message, now)
            case Refused(reason):
                tunnel.unverified += 1
                tunnel.path.note_received(now)
                tunnel.refused, tunnel.refused_at = reason, now
                self._judge_anew(tunnel, now)

    def _take_echo(self, tunnel: _Tunnel, number: int, now: float) -> None:
        path = tunnel.path
        before = path.live.alive, tunnel.live.alive
        sent = tunnel.live.answered(number)
        if sent is None:
            return
        path.live.answered(number // _PROBES_OF_ROUND)
        path.last_echoed, path.first_received_at = tunnel, float("inf")
        tunnel.echoed += 1
        known = now - sent if path.round_trip is None else path.round_trip
        path.round_trip = known + (now - sent - known) / _SMOOTH
        if path.live.alive is not before[0]:
            self._path_changed(path, now)
        elif tunnel.live.alive is not before[1]:
            self._judge_anew(tunnel, now)

    def _take_message(self, tunnel: _Tunnel, message: Message, now: float) -> None:
        path, last = tunnel.path, tunnel.message
        if message.session == self._session or message.session in path.over:
            return
        if f",{tunnel.host}/" not in f",{message.link}":
            return  # a third host's, whose file has this VNI for another link
        path.note_received(now)
        if message.heard != self._session:
            tunnel.answer = message.session
            self._urgent[tunnel] = None
            return
        if message.session != path.session:
            if path.session:
                path.over.append(path.session)
            path.session = message.session
            self._urgent[tunnel] = None
        elif last and last.session == message.session and message.number <= last.number:
            return
        tunnel.received += 1
        tunnel.pause = min(_LONGEST_PAUSE, max(now - tunnel.message_at, tunnel.pause * _FORGETS))
        tunnel.message, tunnel.message_at, tunnel.silent_since = message, now, self._listened
        self._judge_anew(tunnel, now)

    # ------------------------------------------------------------------ what is known

    def heard(self, end: str) -> Heard:
        """What is known by all that was read; nothing of an end that nothing is said to."""
        tunnel = self._ends.get(end)
        return self._judged(tunnel) if tunnel else Heard()

    def changed(self) -> frozenset[str]:
        """Ends of which something else is known than when this was asked last."""
        changed, self._changed = frozenset(self._changed), set()
        return changed

    def _judge_path(self, path: _Path, now: float) -> None:
        before = path.live.alive
        path.live.judge(now, path.echo_timeout)
        if path.live.alive is not before:
            self._path_changed(path, now)

    def _path_changed(self, path: _Path, now: float) -> None:
        """What went unanswered while it was dead says nothing of one tunnel."""
        for tunnel in path.tunnels:
            tunnel.live.forget_unanswered()
            self._judge_anew(tunnel, now)

    def _judge_anew(self, tunnel: _Tunnel, now: float) -> None:
        alive, reason = self._alive(tunnel, now)
        message = tunnel.message
        known = Heard(alive, reason, *((message.offers, message.cause) if message else ()))
        if known != tunnel.known:
            tunnel.known = known
            self._changed.add(tunnel.told.end)

    def _judged(self, tunnel: _Tunnel) -> Heard:
        """Not by the time of who asks: what has come since may wait to be read."""
        self._judge_anew(tunnel, self._looked)
        counters = {
            name: getattr(tunnel, name) for name in ("sent", "echoed", "received", "unverified")
        }
        known = tunnel.known._replace(round_trip=tunnel.path.round_trip, **counters)
        if (message := tunnel.message) is None:
            return known
        return known._replace(
            state=message.state,
            digest=message.digest,
            last=tunnel.message_at,
            frames=message.frames,
            dropped=message.dropped,
        )

    def _alive(self, tunnel: _Tunnel, now: float) -> tuple[bool | None, str]:
        """And why not."""
        host, message, path, told = tunnel.host, tunnel.message, tunnel.path, tunnel.told
        if message and message.stops and message.session == path.session:
            return False, f"xconnectd on {host} was stopped"
        if path.live.alive is None or (path.live.alive and tunnel.live.alive is None):
            return None, ""
        if not path.live.alive:
            return False, self._no_answer(tunnel, now)
        if not tunnel.live.alive:
            return False, (
                f"{host} answers, but not in this tunnel (VNI {told.tunnel.vni}): it has no such"
                " link, or has not made it yet"
            )
        quiet = self._listened - tunnel.silent_since
        if now - tunnel.refused_at < _RECENT and (message is None or quiet > _RECENT):
            return False, f"what {host} says of this link {tunnel.refused}"
        if quiet > max(told.hold, 2 * tunnel.pause):
            hold = f"{told.hold:g} s"
            return False, f"{host} does not answer: its daemon has said nothing for {hold}"
        if message is None:
            return None, ""
        if message.link != told.link:
            return False, f"{host} has link {message.link} in this tunnel, here it is {told.link}"
        if message.digest != told.digest:
            return False, (
                f"{host} has another wiring for this link"
                f" (hash {message.digest}, here {told.digest})"
            )
        return True, ""

    def _no_answer(self, tunnel: _Tunnel, now: float) -> str:
        address = f"{tunnel.path.address}, UDP port {tunnel.told.tunnel.port}"
        if tunnel.unsent:
            return f"nothing can be sent to {tunnel.host} ({address}): {tunnel.unsent}"
        received, first = tunnel.path.received_at, tunnel.path.first_received_at
        if received > now - _RECENT and received > first + _ONE_WAY:
            return (
                f"{tunnel.host} ({address}) does not get what is sent to it, though what it sends"
                " arrives"
            )
        return f"{tunnel.host} does not answer ({address})"
