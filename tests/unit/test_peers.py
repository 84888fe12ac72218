"""What hosts know of each other by keepalives: two of them, an underlay between, and a clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest

from xconnectd.model import Announcement, Heard, Tunnel
from xconnectd.tunnels import keepalive
from xconnectd.tunnels.keepalive import Echo, Message, Refused
from xconnectd.tunnels.peers import ROUND, Outgoing, Peers

TRIP = 0.001
"""Seconds from one host to the other."""


def telling(number: int, end: str, **more: object) -> Announcement:
    """Of the link ``number``; ``end`` is that on the other host."""
    told = Announcement(
        end=end,
        link=f"h1/a{number},h2/b{number}",
        ifindex=number,
        tunnel=Tunnel("198.51.100.1", 7000 + number),
        digest="00000000",
        hold=30.0,
        offers=True,
        cause="",
        state="connected",
    )
    return told._replace(**more)  # type: ignore[arg-type]


@dataclass
class Host:
    """A kernel that turns probes round, and a daemon in it as long as it lives."""

    session: int
    ends: str
    """How an end on the other host begins."""
    key: str = ""
    daemon: bool = True
    kernel: bool = True
    peers: Peers = field(init=False)
    missing: set[int] = field(default_factory=set)
    """Tunnels that are not there."""
    told: list[Announcement] = field(default_factory=list)
    deaf_from: float = float("inf")

    def __post_init__(self) -> None:
        self.peers = Peers(self.session, lambda ifindex: (ifindex * 10, ifindex))

    def end(self, number: int = 1) -> str:
        return f"{self.ends}{number}"

    def announcement(self, number: int = 1, **more: object) -> Announcement:
        return telling(number, self.end(number), **more)


class Underlay:
    """Two hosts, and time: what is sent arrives, unless it is lost."""

    def __init__(self, tunnels: int = 1, keys: tuple[str, str] = ("", "")) -> None:
        self.now = 1000.0
        self.trip = TRIP
        self.one = Host(1, "h2/b", keys[0])
        self.other = Host(2, "h1/a", keys[1])
        self.hosts = (self.one, self.other)
        self.loses: Callable[[Host, bytes], bool] = lambda _host, _frame: False
        self.seen: list[tuple[Host, bytes]] = []
        self._flying: list[tuple[float, Host, int, bytes]] = []
        for host in self.hosts:
            self.want(host, [host.announcement(number + 1) for number in range(tunnels)])

    def want(self, host: Host, told: Iterable[Announcement]) -> None:
        host.told = list(told)
        self._fly(host, host.peers.want(host.told, host.key, self.now))

    def _fly(self, host: Host, frames: Iterable[Outgoing]) -> None:
        there = self.other if host is self.one else self.one
        for ifindex, frame in frames:
            self.seen.append((host, frame))
            if not self.loses(host, frame):
                self._flying.append((self.now + self.trip, there, ifindex, frame))

    def run(self, seconds: float) -> None:
        """Every millisecond."""
        until = self.now + seconds
        while self.now < until:
            self.now += 0.001
            arrived = [each for each in self._flying if each[0] <= self.now]
            self._flying = [each for each in self._flying if each[0] > self.now]
            for _, host, ifindex, frame in arrived:
                self._arrive(host, ifindex, frame)
            for host in self.hosts:
                if host.daemon and host.peers.due <= self.now:
                    self._fly(host, host.peers.outgoing(self.now))

    def _arrive(self, host: Host, ifindex: int, frame: bytes) -> None:
        if not host.kernel or ifindex in host.missing:
            return
        if frame[22] == 1:
            self._fly(host, [Outgoing(ifindex, frame[:22] + b"\2" + frame[23:])])
        elif host.daemon:
            host.peers.receive(ifindex, frame, self.now)

    def heard(self, host: Host, number: int = 1) -> Heard:
        return host.peers.heard(host.end(number))

    def alive(self) -> list[bool | None]:
        return [self.heard(host).alive for host in self.hosts]

    def until(self, condition: Callable[[], object], within: float) -> float:
        """How long it took."""
        began = self.now
        while not condition():
            assert self.now < began + within, "not in time"
            self.run(0.001)
        return self.now - began


@pytest.fixture
def pair() -> Underlay:
    """Two hosts that have met."""
    met = Underlay()
    met.run(0.1)
    assert met.alive() == [True, True]
    for host in met.hosts:
        host.peers.changed()
    return met


# ---------------------------------------------------------------------- to meet


def test_hosts_meet_within_some_round_trips_and_know_what_each_says() -> None:
    met = Underlay()
    assert met.alive() == [None, None]
    met.run(0.02)
    assert met.alive() == [True, True]
    heard = met.heard(met.one)
    assert heard == Heard(
        *(True, "", True, "", "connected", "00000000"),
        *(pytest.approx(2 * TRIP, abs=0.002), pytest.approx(met.now, abs=0.02), 10, 1),
        *(heard.sent, heard.echoed, heard.received, 0),
    )
    assert heard.sent >= 1
    assert heard.received >= 1
    assert met.one.peers.changed() == {"h2/b1"}
    assert met.one.peers.changed() == frozenset()


def test_nothing_is_known_for_a_second_and_then_nobody_answers() -> None:
    alone = Underlay()
    alone.other.kernel = alone.other.daemon = False
    alone.run(0.9)
    assert alone.heard(alone.one).alive is None
    alone.run(0.3)
    heard = alone.heard(alone.one)
    assert (heard.alive, heard.reason) == (
        False,
        "h2 does not answer (198.51.100.1, UDP port 14789)",
    )


def test_a_kernel_that_answers_without_a_daemon_is_waited_for_as_long_as_a_link_holds() -> None:
    """The start of a daemon beside one that has crashed: what stands is left as it is."""
    alone = Underlay()
    alone.other.daemon = False
    alone.run(29.0)
    assert alone.heard(alone.one).alive is None
    alone.run(2.0)
    heard = alone.heard(alone.one)
    assert (heard.alive, heard.reason) == (
        False,
        "h2 does not answer: its daemon has said nothing for 30 s",
    )


# ---------------------------------------------------------------------- dead and alive


@pytest.mark.parametrize("way", ["both ways", "there", "back"])
def test_a_partition_is_seen_on_both_sides_in_time(pair: Underlay, way: str) -> None:
    lost = {"both ways": pair.hosts, "there": (pair.one,), "back": (pair.other,)}[way]
    pair.loses = lambda host, _: host in lost
    took = pair.until(lambda: pair.alive() == [False, False], 1.0)
    assert took < 0.18
    pair.run(0.5)
    assert pair.alive() == [False, False]
    pair.loses = lambda *_: False
    assert pair.until(lambda: pair.alive() == [True, True], 1.0) < 0.2


def test_a_host_that_hears_but_is_not_heard_says_so(pair: Underlay) -> None:
    pair.loses = lambda host, _: host is pair.one
    pair.run(3.0)
    assert pair.heard(pair.one).reason == (
        "h2 (198.51.100.1, UDP port 14789) does not get what is sent to it, though what it sends"
        " arrives"
    )
    assert pair.heard(pair.other).reason == "h1 does not answer (198.51.100.1, UDP port 14789)"
    pair.one.peers.changed()
    pair.loses = lambda *_: False
    pair.run(ROUND + 0.01)
    assert pair.heard(pair.one).reason.startswith("h2 does not answer"), "until it is up"


def test_a_lost_frame_now_and_then_is_nothing(pair: Underlay) -> None:
    """Two probes in a row of three, and every message but each fifth."""
    count = {1: 0, 3: 0}

    def loses(_: Host, frame: bytes) -> bool:
        kind = frame[22]
        if kind not in count:
            return False
        count[kind] += 1
        return bool(count[kind] % {1: 3, 3: 5}[kind])

    pair.loses = loses
    for _ in range(200):
        pair.run(0.05)
        assert pair.alive() == [True, True]


def test_a_long_way_is_not_taken_for_a_dead_one() -> None:
    """A round trip of 300 ms: seven probes are on their way at any time."""
    far = Underlay()
    far.trip = 0.15
    far.run(2.0)
    for _ in range(100):
        far.run(0.05)
        assert far.alive() == [True, True]
    assert far.heard(far.one).round_trip == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("tunnels", [2, 5, 40])
def test_one_tunnel_is_dead_by_itself_and_the_others_are_not(tunnels: int) -> None:
    """The other host has an older file, for one: also if that was the one that answered last."""
    met = Underlay(tunnels)
    met.run(0.5)
    for gone in range(1, tunnels + 1, max(1, tunnels // 4)):
        met.other.missing = {gone}
        met.until(lambda gone=gone: met.heard(met.one, gone).alive is False, 1.0)  # type: ignore[misc]
        alive = [met.heard(met.one, number + 1).alive for number in range(tunnels)]
        assert alive.count(False) == 1
        assert met.heard(met.one, gone).reason.startswith("h2 answers, but not in this tunnel")
        met.other.missing = set()
        met.until(lambda gone=gone: met.heard(met.one, gone).alive, 1.0)  # type: ignore[misc]
    met.loses = lambda *_: True
    assert (
        met.until(lambda: not any(met.heard(met.one, 1 + x).alive for x in range(tunnels)), 1)
        < 0.18
    )


def test_a_host_that_has_few_of_the_links_is_not_dead() -> None:
    """Of 40 tunnels two work, and those are up all the time."""
    met = Underlay(40)
    met.run(0.5)
    met.other.missing = set(range(3, 41))
    for _ in range(60):
        met.run(0.05)
        assert [met.heard(met.one, number).alive for number in (1, 2)] == [True, True]
    assert sum(met.heard(met.one, number + 1).alive or 0 for number in range(40)) == 2


def test_each_tunnel_is_probed_five_times_a_second_and_a_message_sent_each() -> None:
    met = Underlay(200)
    met.run(2.0)
    met.seen.clear()
    met.run(5.0)
    mine = [frame for host, frame in met.seen if host is met.one and frame[22] != 2]
    probes = [frame for frame in mine if frame[22] == 1]
    assert len(probes) == pytest.approx(200 * 5 * 5 + 125, rel=0.05)
    assert len(mine) - len(probes) == pytest.approx(200 * 5, rel=0.25)


# ---------------------------------------------------------------------- a thread that stands still


def test_a_daemon_that_stood_still_raises_no_alarm(pair: Underlay) -> None:
    """Nor one on a machine that did: echoes of what was sent before come late, or never."""
    for _ in range(5):
        pair.run(0.5)
        for late in (True, False):
            frames = pair.one.peers.outgoing(pair.now + 0.08)
            pair._fly(pair.one, frames if late else [])
            pair.now += 2.0
            pair._flying.clear()
            pair.run(0.1)
            assert pair.heard(pair.one).alive


def test_a_machine_that_is_always_late_finds_out_all_the_same(pair: Underlay) -> None:
    pair.loses = lambda *_: True
    for _ in range(8):
        pair.now += 0.1
        pair.one.peers.outgoing(pair.now)
    assert pair.heard(pair.one).alive is False


# ---------------------------------------------------------------------- what daemons say


def test_what_changes_is_told_at_once(pair: Underlay) -> None:
    pair.want(pair.other, [pair.other.announcement(offers=False, cause="b1: no carrier")])
    pair.run(2 * TRIP)
    heard = pair.heard(pair.one)
    assert (heard.alive, heard.offers, heard.cause) == (True, False, "b1: no carrier")
    assert pair.one.peers.changed() == {"h2/b1"}
    pair.want(pair.other, [pair.other.announcement(state="down")])
    pair.run(2 * TRIP)
    assert pair.heard(pair.one).state == "down"


def test_what_is_lost_is_said_again(pair: Underlay) -> None:
    """Three times, round for round."""
    messages = 0

    def loses(host: Host, frame: bytes) -> bool:
        nonlocal messages
        messages += host is pair.other and frame[22] == 3
        return host is pair.other and frame[22] == 3 and messages < 3

    pair.run(0.4)
    pair.loses = loses
    pair.want(pair.other, [pair.other.announcement(offers=False, cause="x")])
    pair.run(2 * ROUND + 0.01)
    assert not pair.heard(pair.one).offers


def test_another_wiring_is_not_alive_until_it_is_the_same(pair: Underlay) -> None:
    pair.want(pair.other, [pair.other.announcement(digest="ffffffff")])
    pair.run(0.01)
    assert [(each.alive, each.reason) for each in map(pair.heard, pair.hosts)] == [
        (False, "h2 has another wiring for this link (hash ffffffff, here 00000000)"),
        (False, "h1 has another wiring for this link (hash 00000000, here ffffffff)"),
    ]
    pair.want(pair.one, [pair.one.announcement(digest="ffffffff")])
    pair.run(0.01)
    assert pair.alive() == [True, True]


def test_another_link_in_the_same_tunnel_is_named(pair: Underlay) -> None:
    pair.want(pair.other, [pair.other.announcement(link="h1/x,h2/y")])
    pair.run(0.01)
    assert pair.heard(pair.one).reason == (
        "h2 has link h1/x,h2/y in this tunnel, here it is h1/a1,h2/b1"
    )


def test_a_third_host_in_the_same_tunnel_is_not_listened_to(pair: Underlay) -> None:
    """With an older file, it may have the same VNI for a link with this host."""
    fields = {"state": "down", "offers": True, "cause": "", "frames": None, "dropped": None}
    message = Message(3, 1, heard=1, link="h1/z,h3/z", digest="00000000", stops=False, **fields)  # type: ignore[arg-type]
    pair.one.peers.receive(1, keepalive.encode(message, 7001, b""), pair.now)
    assert pair.alive() == [True, True]
    pair.run(3)
    assert (pair.heard(pair.one).last or 0) > pair.now - 2, "what h2 says is taken still"


def test_a_daemon_that_stops_says_so_until_it_is_back(pair: Underlay) -> None:
    pair.want(pair.other, [])
    pair.other.daemon = pair.other.kernel = False
    pair.run(2 * TRIP)
    for _ in range(5):
        assert pair.heard(pair.one)[:2] == (False, "xconnectd on h2 was stopped")
        pair.run(10.0)
    restart(pair, pair.other, 3)
    assert pair.until(lambda: pair.alive() == [True, True], 1.0) < 0.3


def restart(pair: Underlay, host: Host, session: int) -> None:
    host.peers = Peers(session)
    host.daemon = host.kernel = True
    told = host.told or [host.announcement()]
    pair.want(host, told)


def test_a_daemon_that_crashed_is_waited_for_as_long_as_a_link_holds(pair: Underlay) -> None:
    pair.want(pair.one, [pair.one.announcement(hold=5.0)])
    pair.other.daemon = False
    pair.run(4.0)
    assert pair.heard(pair.one).alive
    assert pair.until(lambda: not pair.heard(pair.one).alive, 3.0) < 2.2
    assert pair.heard(pair.one).reason == "h2 does not answer: its daemon has said nothing for 5 s"
    restart(pair, pair.other, 3)
    pair.run(0.02)
    assert pair.alive() == [True, True]


def stays_up(pair: Underlay, seconds: float) -> bool:
    """On both sides, all the time."""
    until = pair.now + seconds
    while pair.now < until and pair.alive() == [True, True]:
        pair.run(0.01)
    return pair.now >= until


def holding(pair: Underlay, *seconds: float) -> None:
    for host, hold in zip(pair.hosts, seconds, strict=True):
        pair.want(host, [host.announcement(hold=hold)])


@pytest.mark.parametrize("hold", [1.0, 2.0, 5.0])
def test_messages_are_sent_often_enough_for_a_short_hold(pair: Underlay, hold: float) -> None:
    """Also if two of three are lost."""
    messages = 0

    def loses(_: Host, frame: bytes) -> bool:
        nonlocal messages
        messages += frame[22] == 3
        return frame[22] == 3 and messages % 3 > 0

    holding(pair, hold, hold)
    pair.loses = loses
    assert stays_up(pair, 30.0)


def test_a_hold_that_the_other_host_does_not_know_of_is_no_alarm(pair: Underlay) -> None:
    """The file there is an older one, or its daemon: it sends a message each second."""
    holding(pair, 1.0, 30.0)
    assert stays_up(pair, 30.0)
    pair.want(pair.other, [pair.other.announcement(offers=False, cause="x")])
    assert stays_up(pair, 30.0), "though it said three at once"


def test_a_short_hold_is_kept(pair: Underlay) -> None:
    holding(pair, 1.0, 1.0)
    pair.run(5.0)
    pair.other.daemon = False
    assert 0.9 < pair.until(lambda: pair.alive()[0] is False, 5.0) < 1.3
    restart(pair, pair.other, 3)
    assert pair.until(lambda: pair.alive() == [True, True], 1.0) < 0.3


def test_a_machine_that_stood_still_has_waited_for_no_message(pair: Underlay) -> None:
    """Nobody on it said one; also who asks before what came is read is not told of silence."""
    holding(pair, 1.0, 1.0)
    for _ in range(5):
        assert stays_up(pair, 2.0)
        pair.now += 3.0
        assert pair.alive() == [True, True]


def test_a_daemon_that_starts_anew_is_known_at_once_and_its_wire_never_down(
    pair: Underlay,
) -> None:
    pair.other.daemon = False
    pair.run(3.0)
    restart(pair, pair.other, 3)
    for _ in range(100):
        pair.run(0.001)
        assert pair.heard(pair.one).alive
        assert pair.heard(pair.other).alive is not False
    assert pair.alive() == [True, True]


def test_a_device_that_was_made_anew_is_spoken_by_again(pair: Underlay) -> None:
    """It has another ifindex; what the other daemon said last counts on."""
    for host in pair.hosts:
        pair.want(host, [host.announcement(ifindex=9)])
    pair.run(0.01)
    assert pair.alive() == [True, True]


def test_what_cannot_be_sent_is_the_reason(pair: Underlay) -> None:
    pair.loses = lambda *_: True
    pair.one.peers.not_sent(1, "Network is down")
    pair.run(0.5)
    assert pair.heard(pair.one).reason == (
        "nothing can be sent to h2 (198.51.100.1, UDP port 14789): Network is down"
    )


# ---------------------------------------------------------------------- who is believed


def test_with_one_key_hosts_meet_and_with_two_they_do_not() -> None:
    met = Underlay(keys=("secret", "secret"))
    met.run(0.05)
    assert met.alive() == [True, True]
    for keys, reason in {
        ("secret", "other"): "cannot be verified: the file there has another hosts_key",
        ("secret", ""): "cannot be verified: only here the file has a hosts_key",
        ("", "secret"): "cannot be verified: only there the file has a hosts_key",
    }.items():
        strangers = Underlay(keys=keys)
        strangers.run(0.1)
        heard = strangers.heard(strangers.one)
        assert heard[:2] == (False, f"what h2 says of this link {reason}")
        assert heard.unverified > 0
        assert heard.received == 0


def message(session: int, number: int, heard: int, **more: object) -> Message:
    said = Message(session, number, heard, "h1/a1,h2/b1", "00000000", "connected", True, "")
    return said._replace(**more)  # type: ignore[arg-type]


def test_a_forged_message_changes_nothing_where_there_is_a_key() -> None:
    met = Underlay(keys=("secret", "secret"))
    met.run(0.1)
    met.one.peers.changed()
    for key in (b"", b"wrong"):
        frame = keepalive.encode(message(2, 999, 1, stops=True, cause="x"), 7001, key)
        met.one.peers.receive(1, frame, met.now)
    assert met.heard(met.one).unverified == 2
    assert met.alive() == [True, True]
    assert met.one.peers.changed() == frozenset()


def test_a_message_of_another_tunnel_and_one_that_was_changed_do_not_verify() -> None:
    frame = keepalive.encode(message(2, 5, 1), 7001, b"secret")
    assert keepalive.decode(frame, 7001, b"secret") == message(2, 5, 1)
    assert isinstance(keepalive.decode(frame, 7002, b"secret"), Refused)
    for at in range(24, len(frame)):
        changed = frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :]
        assert not isinstance(keepalive.decode(changed, 7001, b"secret"), Message), at


def test_a_recording_of_a_session_that_is_over_is_not_believed() -> None:
    """Nor one of this session: what was said before and what has been heard counts no more."""
    met = Underlay(keys=("secret", "secret"))
    met.run(0.1)
    met.want(met.other, [met.other.announcement(offers=False, cause="old")])
    met.run(0.3)
    recorded = [frame for host, frame in met.seen if host is met.other and frame[22] == 3]
    met.want(met.other, [met.other.announcement()])
    met.run(0.3)

    def replay() -> None:
        met.one.peers.changed()
        for frame in recorded:
            met.one.peers.receive(1, frame, met.now)
        met.run(0.1)
        assert (met.heard(met.one).alive, met.heard(met.one).offers) == (True, True)
        assert met.one.peers.changed() == frozenset()

    replay()
    restart_with_key(met, met.other, 3)
    replay()
    restart_with_key(met, met.one, 4)
    replay()


def restart_with_key(met: Underlay, host: Host, session: int) -> None:
    restart(met, host, session)
    met.run(0.3)
    assert met.alive() == [True, True]


def test_an_echo_that_was_not_asked_for_is_none(pair: Underlay) -> None:
    """Without the session's number nobody can make a dead path look alive."""
    pair.loses = lambda *_: True
    pair.run(0.5)
    for number in range(1, 200):
        for session in (7, 1):
            frame = keepalive.probe(session, number)
            pair.one.peers.receive(1, frame[:22] + b"\2" + frame[23:], pair.now)
    assert pair.heard(pair.one).alive is False


def test_what_a_host_said_itself_is_nothing_it_heard(pair: Underlay) -> None:
    """A loop in the underlay, or somebody who plays it back."""
    before = pair.heard(pair.one)
    for host, frame in list(pair.seen):
        if host is pair.one and frame[22] == 3:
            pair.one.peers.receive(1, frame, pair.now)
    assert pair.heard(pair.one) == before


# ---------------------------------------------------------------------- frames


def test_a_message_is_read_as_it_was_sent() -> None:
    for said in (
        message(2**64 - 1, 1, 0),
        message(1, 2**64 - 1, 5, offers=False, cause="b1: kein Träger", state="", stops=True),
        message(1, 2, 3, frames=2**40, dropped=0, digest="", link="n:e1,h/n:e1"),
    ):
        for key in (b"", b"secret"):
            assert keepalive.decode(keepalive.encode(said, 9, key), 9, key) == said
    long = keepalive.decode(keepalive.encode(message(1, 1, 1, cause="ä" * 300), 9, b""), 9, b"")
    assert isinstance(long, Message)
    assert long.cause == "ä" * 127


def test_what_is_no_keepalive_or_cannot_be_read_is_told_apart() -> None:
    frame = keepalive.encode(message(1, 1, 1), 9, b"")
    probe = keepalive.probe(5, 7)
    assert len(probe) < 60, "fits everywhere"
    assert keepalive.decode(probe, 9, b"") is None
    assert keepalive.decode(probe[:22] + b"\2" + probe[23:] + bytes(20), 9, b"") == Echo(5, 7)
    for other in (b"", frame[:22], frame[:12] + b"\x88\xb7" + frame[14:], frame[:22] + b"\4"):
        assert keepalive.decode(other, 9, b"") is None
    for cut in range(24, len(frame)):
        assert keepalive.decode(frame[:cut], 9, b"") == Refused("cannot be understood")
    later = frame[:23] + b"\x02" + frame[24:]
    assert keepalive.decode(later, 9, b"") == Refused(
        "is of another version (2, here 1): upgrade one"
    )
