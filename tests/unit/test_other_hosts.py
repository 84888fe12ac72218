"""What the daemon is woken for and the log is told of other hosts."""

from __future__ import annotations

import errno
import select
import threading
from collections.abc import Callable, Iterable, Iterator

import pytest
from structlog.testing import capture_logs

from xconnectd.events import logger
from xconnectd.model import Announcement, Heard, Tunnel
from xconnectd.tunnels import keepalive_thread
from xconnectd.tunnels.other_hosts import OtherHosts


class Spoken:
    """In place of the thread."""

    trouble = ""

    def __init__(self, _: object, note: Callable[[Iterable[str]], None]) -> None:
        self.note = note
        self.known: dict[str, Heard] = {}
        self.ended = False

    def want(self, _announcements: Iterable[Announcement], _key: str) -> None:
        return

    def heard(self, end: str) -> Heard:
        return self.known.get(end, Heard())

    def say(self, **ends: Heard) -> None:
        heard = {end.replace("_", "/"): each for end, each in ends.items()}
        self.known |= heard
        self.note(heard)

    def close(self) -> None:
        self.ended = True


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtherHosts]:
    monkeypatch.setattr(keepalive_thread, "KeepaliveThread", Spoken)
    made = OtherHosts(lambda _: (0, 0), logger())
    yield made
    made.close()


def about(*ends: str) -> list[Announcement]:
    return [
        Announcement(
            *(end, f"a,{end}", number, Tunnel("198.51.100.1", number)),
            *("00000000", 30.0, True, "", "connected"),
        )
        for number, end in enumerate(ends, 3)
    ]


def spoken(hosts: OtherHosts) -> Spoken:
    found = hosts._thread
    assert isinstance(found, Spoken)
    return found


def is_woken(hosts: OtherHosts) -> bool:
    return bool(select.select([hosts], [], [], 0)[0])


def test_nothing_begins_before_there_is_a_link_to_another_host(hosts: OtherHosts) -> None:
    hosts.want([], "")
    assert hosts._thread is None
    assert hosts.heard("h2/b") == Heard()
    assert hosts.drain() == frozenset()
    hosts.want(about("h2/b"), "")
    assert spoken(hosts).heard("h2/b") == hosts.heard("h2/b")


def test_the_daemon_is_woken_for_what_it_still_wants_to_know(hosts: OtherHosts) -> None:
    hosts.want(about("h2/b", "h2/c"), "")
    assert not is_woken(hosts)
    spoken(hosts).say(h2_b=Heard(alive=True), h2_c=Heard(alive=True))
    assert is_woken(hosts)
    hosts.want(about("h2/b"), "")
    assert hosts.drain() == {"h2/b"}
    assert not is_woken(hosts)
    assert hosts.drain() == frozenset()


def test_the_log_is_told_what_comes_up_and_goes_down_once(hosts: OtherHosts) -> None:
    hosts.want(about("h2/b"), "")
    with capture_logs() as logged:
        for heard in (
            Heard(),
            Heard(alive=False, reason="no"),
            Heard(alive=False, reason="not yet"),
            Heard(alive=True),
            Heard(alive=True, offers=False, cause="b: no carrier"),
            Heard(alive=False, reason="gone"),
        ):
            spoken(hosts).say(h2_b=heard)
            assert hosts.drain() == {"h2/b"}
    told = [(each["event"], each["link"], each["host"], each.get("reason")) for each in logged]
    assert told == [
        ("tunnel.down", "a,h2/b", "h2", "no"),
        ("tunnel.up", "a,h2/b", "h2", None),
        ("tunnel.down", "a,h2/b", "h2", "gone"),
    ]


def test_who_can_hear_nobody_says_so_once_and_not_of_each_link(hosts: OtherHosts) -> None:
    hosts.want(about("h2/b", "h2/c"), "")
    trouble = "without CAP_NET_RAW"
    with capture_logs() as logged:
        spoken(hosts).trouble = trouble
        deaf = Heard(alive=False, reason=trouble)
        for _ in range(2):
            spoken(hosts).say(h2_b=deaf, h2_c=deaf)
            assert hosts.drain() == {"h2/b", "h2/c"}
        spoken(hosts).trouble = ""
        spoken(hosts).say(h2_b=Heard(alive=True))
        hosts.drain()
    assert [each["event"] for each in logged] == ["tunnels.unheard", "tunnel.up"]
    assert logged[0]["reason"] == trouble


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.EAFNOSUPPORT])
def test_who_may_have_no_packet_socket_is_told_what_allows_it(
    refusal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit without the address family, which is systemd's own refusal, and one without more."""

    def refuse() -> None:
        raise OSError(refusal, "refused")

    monkeypatch.setattr(keepalive_thread, "PacketSocket", refuse)
    told = threading.Event()
    talk = keepalive_thread.KeepaliveThread(lambda _: (0, 0), lambda _: told.set())
    try:
        assert told.wait(60)
        assert "30-hosts.conf" in talk.trouble
    finally:
        talk.close()


def test_the_end_ends_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepalive_thread, "KeepaliveThread", Spoken)
    made = OtherHosts(lambda _: (0, 0), logger())
    made.want(about("h2/b"), "")
    talk = spoken(made)
    made.close()
    assert talk.ended
    talk.note(["h2/b"])  # one that is late wakes nobody
