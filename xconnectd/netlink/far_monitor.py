"""The link messages of other network namespaces: what becomes of the far ends of veths.

One socket receives those of every namespace that has an id here (NETLINK_LISTEN_ALL_NSID, Linux
4.2). What a message says is read again by whoever is told, so it gives no more than our own end.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final, Generic, TypeVar

from xconnectd.model import FarEnd
from xconnectd.netlink import uapi
from xconnectd.netlink.monitor import MOST_MUTED, Event, OverrunError, mute, open_socket
from xconnectd.netlink.transport import (
    HEADER,
    INDEX,
    INDEX_OFFSET,
    LINK_ATTRIBUTES,
    RECV_SIZE,
    first_in,
    ifindex_of,
    text,
)

_BUFFER_BYTES: Final = 8 << 20
_NSID: Final = struct.Struct("=i")

_INTERVAL: Final = 0.05
"""Seconds. A container can set its end up and down thirty thousand times a second."""
_MOST_NEWS: Final = 4
"""News of one far end in an interval; the rest of them is told together at its end."""
_MOST_MESSAGES: Final = 64
"""Messages about one ifindex, in all namespaces; with more of them the kernel drops the rest.

It cannot tell the namespaces apart, and in most containers eth0 has the same number.
"""

_Key = TypeVar("_Key")


class _Rate(Generic[_Key]):
    """What happens more than ``most`` times in an interval, until the interval is over.

    ``over`` has when that is (``time.monotonic``).
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._since = 0.0
        self._made: Counter[_Key] = Counter()
        self.over: dict[_Key, float] = {}

    def count(self, key: _Key, now: float) -> None:
        if now - self._since >= _INTERVAL:
            self._since = now
            self._made.clear()
        self._made[key] += 1
        if self._made[key] > self._most:
            self.over.setdefault(key, self._since + _INTERVAL)

    def end(self, now: float) -> list[_Key]:
        """Those whose interval is over; from now on they count anew."""
        ended = [key for key, due in self.over.items() if due <= now]
        for key in ended:
            del self.over[key]
        return ended


class FarEvents:
    """The feed of what happens to the far ends of our veths.

    ``watched`` has the far ends (ifindex, id of its namespace), with the ifindexes of ours.
    ``awaited`` has the texts of ends in nodes, by the id of a namespace and a name or an ifindex
    there: what is told of one of these is an event without an ifindex.
    """

    def __init__(
        self, watched: Mapping[FarEnd, int], awaited: Mapping[tuple[int, str | int], str]
    ) -> None:
        """Raises PermissionError without CAP_NET_BROADCAST."""
        self._watched = watched
        self._awaited = awaited
        self._socket = open_socket(_BUFFER_BYTES)
        try:
            self._socket.setsockopt(uapi.SOL_NETLINK, uapi.NETLINK_LISTEN_ALL_NSID, 1)
        except OSError:
            self._socket.close()
            raise
        self._socket.setsockopt(uapi.SOL_NETLINK, uapi.NETLINK_ADD_MEMBERSHIP, uapi.RTNLGRP_LINK)
        self._news: _Rate[FarEnd] = _Rate(_MOST_NEWS)
        self._arrivals: _Rate[tuple[int, str | int]] = _Rate(_MOST_NEWS)
        self._messages: _Rate[int] = _Rate(_MOST_MESSAGES)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    @property
    def due(self) -> float | None:
        """When ``drain`` has more to tell (``time.monotonic``), also if nothing can be read."""
        news, arrivals, messages = self._news.over, self._arrivals.over, self._messages.over
        return min((*news.values(), *arrivals.values(), *messages.values()), default=None)

    def is_due(self) -> bool:
        return self.due is not None and self.due <= time.monotonic()

    def drain(self) -> list[Event]:
        """Our ends whose far end has changed, each once, and ends in nodes that may be there.

        Raises:
            OverrunError: events were lost since the last call.
        """
        watched = self._watched
        ends = set(self._unmuted(watched))
        texts: set[str] = set()
        if self._arrivals.over:
            late = self._arrivals.end(time.monotonic())
            texts.update([self._awaited[key] for key in late if key in self._awaited])
        overrun: OSError | None = None
        while True:
            try:
                data, ancillary, *_ = self._socket.recvmsg(RECV_SIZE, socket.CMSG_SPACE(_NSID.size))
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                overrun = error
                continue
            nsid = _NSID.unpack(ancillary[0][2])[0] if ancillary else None
            ends.update(self._news_of(data, nsid, watched))
            if self._awaited and nsid is not None:
                texts.update(self._arrivals_of(data, nsid))
        if overrun:
            raise OverrunError from overrun
        return [*map(Event, ends), *[Event(0, end) for end in texts]]

    def _arrivals_of(self, data: bytes, nsid: int) -> Iterator[str]:
        """The ends that messages of a namespace concern, but for those told often enough."""
        start, now = 0, time.monotonic()
        while start < len(data):
            length, *_ = HEADER.unpack_from(data, start)
            message = data[start : start + length]
            start += (length + 3) & ~3
            name = first_in(message, LINK_ATTRIBUTES, uapi.IFLA_IFNAME)
            for key in ((nsid, text(name[:-1])), (nsid, ifindex_of(message))):
                if key in self._awaited and key not in self._arrivals.over:
                    self._arrivals.count(key, now)
                    yield self._awaited[key]

    def _news_of(
        self, data: bytes, nsid: int | None, watched: Mapping[FarEnd, int]
    ) -> Iterator[int]:
        """Our ends that messages of a namespace concern, but for those told often enough.

        Those of this namespace (None) are counted alone: another socket receives them, too.
        """
        start, now = 0, time.monotonic()
        while start < len(data):
            length, *_ = HEADER.unpack_from(data, start)
            (ifindex,) = INDEX.unpack_from(data, start + INDEX_OFFSET)
            start += (length + 3) & ~3
            muted = self._messages.over
            if ifindex not in muted and len(muted) < MOST_MUTED:
                self._messages.count(ifindex, now)
                if ifindex in muted:
                    mute(self._socket, muted)
            far = ifindex, nsid
            if nsid is not None and far in watched and far not in self._news.over:
                self._news.count(far, now)
                yield watched[far]

    def _unmuted(self, watched: Mapping[FarEnd, int]) -> Iterator[int]:
        """Our ends of whose far ends not all was told, once their interval is over."""
        now = time.monotonic()
        yield from [watched[far] for far in self._news.end(now) if far in watched]
        if numbers := self._messages.end(now):
            mute(self._socket, self._messages.over)
            yield from [end for (ifindex, _), end in watched.items() if ifindex in numbers]
