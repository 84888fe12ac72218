"""Many links without xconnectd: what the kernel itself takes to wire, to show and to unwire them.

On each end stands what a generic link of xconnectd's has there: clsact with a filter each way, an
XDP program, the MTU that this mode needs, and no address that the host makes by itself; and a map
says where its frames go. The requests are encoded once and go out many in one send; nothing is
looked at before, planned, recorded or logged. What takes longer than this is ours.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Final, NamedTuple, Self

from tests.netns.lab import entered
from xconnectd.dataplane import libbpf
from xconnectd.dataplane.programs import MAX_ENDS
from xconnectd.netlink import uapi
from xconnectd.netlink.transport import (
    CLSACT_HANDLE,
    CLSACT_PARENTS,
    CREATE,
    DO,
    DUMP,
    SKIP_STATISTICS,
    Route,
    address_request,
    get_link_request,
    link_request,
    route_request,
    stats_request,
    tc_request,
)

from .bare import EXIT, PASS_ON, load_xdp, redirect_by

_MTU: Final = 65535
_MTU_BEFORE: Final = 1500
_NO_ADDRESS, _EUI64 = 1, 0  # IN6_ADDR_GEN_MODE_NONE
_ETH_P_ALL: Final = socket.htons(3)


class Spent(NamedTuple):
    """Seconds: by the clock, and of the processor."""

    wall: float
    processor: float

    @classmethod
    def of(cls, work: Callable[[], object]) -> Self:
        begin, used = time.monotonic(), time.thread_time()
        work()
        return cls(time.monotonic() - begin, time.thread_time() - used)

    @classmethod
    def total(cls, costs: Iterable[Spent]) -> Self:
        return cls(*map(sum, zip(*costs, strict=True)))


class BareLinks:
    """The programs, the map and a socket; for the thread that made it, in the host's namespace."""

    def __init__(self, held: ExitStack) -> None:
        devmap = libbpf.create_map("bare", libbpf.MapFormat(libbpf.MAP_DEVMAP_HASH, 4, MAX_ENDS))
        held.callback(os.close, devmap)
        self._entries = libbpf.Map(devmap)
        self._xdp = load_xdp(redirect_by(devmap))
        held.callback(os.close, self._xdp)
        self._filter = _load_filter()
        held.callback(os.close, self._filter)
        self._route = held.enter_context(closing(Route()))

    @classmethod
    @contextmanager
    def inside(cls, namespace: str) -> Iterator[Self]:
        """This thread is in the namespace until the block ends."""
        with entered(namespace), ExitStack() as held:
            yield cls(held)

    def up(self, ends: Sequence[int]) -> dict[str, Spent]:
        """Puts all on these ends (ifindexes), step by step; ``point`` has them forward."""
        return {
            "clsact": self._do(ends, _clsact(uapi.RTM_NEWQDISC, CREATE)),
            "filters": self._do(ends, *map(self._add_filter, CLSACT_PARENTS)),
            "MTU, address mode, XDP": self._do(ends, _settings(_MTU, _NO_ADDRESS, self._xdp)),
        }

    def point(self, pairs: Mapping[int, int]) -> dict[str, Spent]:
        def work() -> None:
            for a, b in pairs.items():
                self._entries.set(a, b)
                self._entries.set(b, a)

        return {"entries": Spent.of(work)}

    def down(self, ends: Sequence[int]) -> dict[str, Spent]:
        """From the newest on: the kernel finds those sooner. A clsact takes its filters along."""
        ends = ends[::-1]
        return {
            "entries": Spent.of(lambda: [self._entries.delete(end) for end in ends]),
            "MTU, address mode, XDP": self._do(ends, _settings(_MTU_BEFORE, _EUI64, -1)),
            "clsact": self._do(ends, _clsact(uapi.RTM_DELQDISC, DO)),
        }

    def look(self, ends: Sequence[int]) -> Spent:
        """All that says what is there, asked once: who adopts has to know it."""
        whole = (
            get_link_request(DUMP, (SKIP_STATISTICS,)),
            address_request(),
            route_request(socket.AF_INET),
            route_request(socket.AF_INET6),
            tc_request(uapi.RTM_GETQDISC, DUMP),
        )
        filters = [
            tc_request(uapi.RTM_GETTFILTER, DUMP, parent=parent)
            for parent in CLSACT_PARENTS.values()
        ]

        def ask() -> None:
            for request in whole:
                self._route.exchange(request)
            for end in ends:
                for request in filters:
                    self._route.exchange(request, end)
            self._entries.all_items()

        return Spent.of(ask)

    def count(self) -> Spent:
        """What a status cannot do without: all links, their counters, and where frames go."""

        def ask() -> None:
            self._route.exchange(get_link_request(DUMP, (SKIP_STATISTICS,)))
            self._route.exchange(stats_request())
            self._entries.all_items()

        return Spent.of(ask)

    def _do(self, ends: Sequence[int], *requests: bytes) -> Spent:
        changes = [(request, end) for end in ends for request in requests]

        def work() -> None:
            for refused in self._route.do_each(changes).values():
                raise refused

        return Spent.of(work)

    def _add_filter(self, direction: str) -> bytes:
        options = (
            ("TCA_BPF_FD", self._filter),
            ("TCA_BPF_NAME", "bare"),
            ("TCA_BPF_FLAGS", uapi.TCA_BPF_FLAG_ACT_DIRECT),
        )
        return tc_request(
            uapi.RTM_NEWTFILTER,
            CREATE,
            (("TCA_KIND", "bpf"), ("TCA_OPTIONS", options)),
            handle=1,
            parent=CLSACT_PARENTS[direction],
            info=1 << 16 | _ETH_P_ALL,
        )


def _load_filter() -> int:
    packed = struct.pack("<2Q", PASS_ON, EXIT)
    return libbpf.load_program(libbpf.PROG_SCHED_CLS, "bare", "GPL", packed)


def _settings(mtu: int, address_generation: int, program: int) -> bytes:
    """In one message: at the end of each the kernel walks through all IPv6 routes of the host."""
    mode = (("AF_INET6", (("IFLA_INET6_ADDR_GEN_MODE", address_generation),)),)
    xdp = (("IFLA_XDP_FD", program), ("IFLA_XDP_FLAGS", uapi.XDP_FLAGS_SKB_MODE))
    attributes = (("IFLA_MTU", mtu), ("IFLA_AF_SPEC", mode), ("IFLA_XDP", xdp))
    return link_request(uapi.RTM_SETLINK, DO, attributes)


def _clsact(kind: int, how: int) -> bytes:
    attributes = (("TCA_KIND", "clsact"),)
    return tc_request(kind, how, attributes, handle=CLSACT_HANDLE, parent=uapi.TC_H_CLSACT)
