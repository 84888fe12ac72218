"""Queueing disciplines of ours at the root of a device: what is there, and how it gets there.

What they are made of is told by ``shape``; options are the C structures of linux/pkt_sched.h.
"""

from __future__ import annotations

import os
import struct
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Final, NamedTuple

from xconnectd.impairment import Distribution
from xconnectd.kernel_version import kernel_version
from xconnectd.netlink import uapi
from xconnectd.netlink.transport import (
    CREATE,
    DO,
    DUMP,
    REPLACE,
    TC_ATTRIBUTES,
    Route,
    attribute,
    attributes_in,
    integer,
    qdisc_request,
    tc_request,
    text,
    within,
)
from xconnectd.shape import NO_RATE, ROOT_HANDLE, Netem, RootQdisc, Shape

ROOT: Final = 0xFFFFFFFF  # TC_H_ROOT
_MAJOR: Final = ROOT_HANDLE >> 16
_NETEM_HANDLES: Final = {each: (_MAJOR + 1 + n) << 16 for n, each in enumerate(Distribution)}
"""netem does not tell its distribution, so its handle does."""
_DISTRIBUTIONS: Final = {handle: each for each, handle in _NETEM_HANDLES.items()}
_HOLE_HANDLE: Final = (_MAJOR + 5) << 16
_FIFO_HANDLE: Final = (_MAJOR + 6) << 16
_QUEUE_HANDLE: Final = (_MAJOR + 7) << 16
"""Of the queue below netem, in which frames wait for the rate."""

_PEAK: Final = 2 * NO_RATE
"""Bytes per second. A second bucket at this rate, which holds one frame, limits no rate: it is what
makes TBF cut every GSO packet, however much the first bucket holds (tbf_enqueue)."""
_LARGEST: Final = 0xFFFFFFFF

_GET_QDISCS: Final = tc_request(uapi.RTM_GETQDISC, DUMP)
_TC: Final = struct.Struct("=20xiII4x")  # ifindex, handle and parent of struct tcmsg
_TBF: Final = struct.Struct("=BBHhHI BBHhHI III")  # tc_ratespec twice, limit, buffer, mtu
_NETEM: Final = struct.Struct("=6I")  # latency, limit, loss, gap, duplicate, jitter
_U32: Final = struct.Struct("=I")
_U64: Final = struct.Struct("=Q")
_TWO: Final = struct.Struct("=2I")
_GILBERT: Final = struct.Struct("=4I")  # p, r, h, k1
_QUEUE_STATISTICS: Final = struct.Struct("=8xI")  # drops of struct gnet_stats_queue

_LINKLAYER_ETHERNET: Final = 1
_TBF_PARMS, _TBF_RATE64, _TBF_PRATE64, _TBF_BURST, _TBF_PBURST = 1, 4, 5, 6, 7
_CORRELATIONS, _DISTRIBUTION, _REORDER, _CORRUPT, _LOSS, _RATE = 1, 2, 3, 4, 5, 6
_LATENCY64, _JITTER64, _SEED = 10, 11, 14
_LOSS_GILBERT: Final = 2
_DROPS: Final = within(uapi.TCA_STATS2, uapi.TCA_STATS_QUEUE)

_SEEDED_SINCE: Final = (6, 6)


class _Qdisc(NamedTuple):
    """One of a dump."""

    kind: str
    handle: int
    options: bytes
    drops: int


def roots(route: Route, ifindexes: Collection[int]) -> dict[int, RootQdisc]:
    """What stands at the root of each of these devices.

    A dump tells nobody that we looked; it cannot be asked for one device.
    """
    by_parent: defaultdict[int, dict[int, _Qdisc]] = defaultdict(dict)
    for message in route.ask(_GET_QDISCS):
        ifindex, handle, parent = _TC.unpack_from(message)
        if ifindex in ifindexes:
            found = attributes_in(message, TC_ATTRIBUTES, (uapi.TCA_STATS2,))
            kind, queue = found.get(uapi.TCA_KIND, b""), found.get(_DROPS, b"")
            drops = _QUEUE_STATISTICS.unpack_from(queue)[0] if queue else 0
            options = found.get(uapi.TCA_OPTIONS, b"")
            by_parent[ifindex][parent] = _Qdisc(text(kind[:-1]), handle, options, drops)
    return {ifindex: _root(found) for ifindex, found in by_parent.items() if ROOT in found}


def _root(found: Mapping[int, _Qdisc]) -> RootQdisc:
    """From the qdiscs of a device by the class that each is in."""
    root = found[ROOT]
    if (root.kind, root.handle) != ("tbf", ROOT_HANDLE):
        return RootQdisc(root.kind, root.handle)
    shape = _bucket(root.options)
    child = found.get(ROOT_HANDLE | 1)
    if child is None or child.kind == "bfifo":  # the one that TBF makes itself is not told
        return RootQdisc("tbf", ROOT_HANDLE, shape, 0, root.drops)
    if child.kind == "blackhole":
        return RootQdisc("tbf", ROOT_HANDLE, shape._replace(is_hole=True), child.drops)
    if child.handle not in _DISTRIBUTIONS:
        return RootQdisc("tbf", ROOT_HANDLE, shape._replace(limit=0))
    queue = found.get(child.handle | 1)
    netem = _netem(child, queue)
    full = queue.drops if queue else 0 if netem.loses else child.drops
    return RootQdisc("tbf", ROOT_HANDLE, shape._replace(netem=netem), child.drops - full, full)


def _bucket(options: bytes) -> Shape:
    found = attributes_in(options)
    told = _TBF.unpack(found[_TBF_PARMS])
    rate, peak, limit, bucket = told[5], told[11], told[12], told[13]
    if _TBF_RATE64 in found:
        rate = integer(found[_TBF_RATE64])
    if _TBF_PRATE64 in found:
        peak = integer(found[_TBF_PRATE64])
    return Shape(rate, bucket if peak == _PEAK else 0, limit)


def _netem(told: _Qdisc, queue: _Qdisc | None) -> Netem:
    _delay, limit, loss, gap, duplicate, _jitter = _NETEM.unpack_from(told.options)
    found = attributes_in(told.options, _NETEM.size, (_LOSS,))
    gilbert = found.get(within(_LOSS, _LOSS_GILBERT))
    reorder, corrupt = found.get(_REORDER), found.get(_CORRUPT)
    strange = any(any(found.get(each, b"")) for each in (_CORRELATIONS, _RATE))
    return Netem(
        integer(found[_LATENCY64]),
        integer(found[_JITTER64]),
        _DISTRIBUTIONS[told.handle],
        loss,
        None if gilbert is None else _GILBERT.unpack(gilbert)[:2],
        _U32.unpack_from(corrupt)[0] if corrupt else 0,
        duplicate,
        _U32.unpack_from(reorder)[0] if reorder and gap else 0,
        0 if strange else limit,
        integer(found[_SEED]) if _SEED in found else None,
        _U32.unpack_from(queue.options)[0] if queue else 0,
    )


# --------------------------------------------------------------------------- changes


class Step(NamedTuple):
    """One request for a device, what it does, in words, and to which kind."""

    action: str
    kind: str
    request: bytes


def removal() -> bytes:
    """The request that deletes ours, and all below it."""
    return qdisc_request(uapi.RTM_DELQDISC, DO, handle=ROOT_HANDLE, parent=ROOT)


def steps(found: RootQdisc | None, wanted: Shape) -> Iterator[Step]:
    """What leads from ``found`` to ``wanted``; what is there already keeps its queue."""
    there = found.shape if found else None
    if there is None:
        yield _made(CREATE, "tbf", ROOT, ROOT_HANDLE, _tbf_options(wanted))
        there = wanted._replace(netem=None, is_hole=False)
    elif there[:3] != wanted[:3]:
        yield _made(DO, "tbf", ROOT, ROOT_HANDLE, _tbf_options(wanted))
    below = ROOT_HANDLE | 1
    if wanted.is_hole:
        if not there.is_hole:
            yield _made(REPLACE, "blackhole", below, _HOLE_HANDLE)
    elif wanted.netem:
        yield from _netem_steps(there.netem, wanted.netem, below)
    elif there.netem or there.is_hole or not there.limit:
        yield _made(REPLACE, "bfifo", below, _FIFO_HANDLE, _U32.pack(wanted.limit))


def _netem_steps(there: Netem | None, wanted: Netem, parent: int) -> Iterator[Step]:
    handle = _NETEM_HANDLES[Distribution(wanted.distribution)]
    if there is None or there.distribution != wanted.distribution:
        yield _made(REPLACE, "netem", parent, handle, _netem_options(wanted))
        there = wanted._replace(queue=0)
    elif not _agrees(there, wanted):
        yield _made(DO, "netem", parent, handle, _netem_options(wanted))
    if wanted.queue and there.queue != wanted.queue:
        how = DO if there.queue else REPLACE
        yield _made(how, "bfifo", handle | 1, _QUEUE_HANDLE, _U32.pack(wanted.queue))
    elif there.queue and not wanted.queue:
        request = qdisc_request(uapi.RTM_DELQDISC, DO, handle=_QUEUE_HANDLE, parent=handle | 1)
        yield Step("delete bfifo", "bfifo", request)


def _agrees(there: Netem, wanted: Netem) -> bool:
    """But for the queue below it; a seed that nobody asked for is as good as any."""
    seed = there.seed if wanted.seed is None else wanted.seed
    return there._replace(queue=0) == wanted._replace(queue=0, seed=seed)


def _made(how: int, kind: str, parent: int, handle: int, options: bytes = b"") -> Step:
    """A qdisc that is made, put in the place of another, or changed."""
    attributes = (("TCA_KIND", kind), *((("TCA_OPTIONS", options),) if options else ()))
    request = qdisc_request(uapi.RTM_NEWQDISC, how, attributes, handle=handle, parent=parent)
    return Step(f"{'change' if how == DO else 'add'} {kind}", kind, request)


def _tbf_options(wanted: Shape) -> bytes:
    def of_rate(rate: int) -> tuple[int, ...]:
        return 0, _LINKLAYER_ETHERNET, 0, 0, 0, min(rate, _LARGEST)

    parms = _TBF.pack(*of_rate(wanted.rate), *of_rate(_PEAK), wanted.limit, wanted.bucket, 0)
    options = attribute(_TBF_PARMS, parms)
    options += attribute(_TBF_BURST, _U32.pack(wanted.burst))
    options += attribute(_TBF_PBURST, _U32.pack(wanted.frame))
    for number, rate in ((_TBF_RATE64, wanted.rate), (_TBF_PRATE64, _PEAK)):
        if rate > _LARGEST:
            options += attribute(number, _U64.pack(rate))
    return options


def _netem_options(wanted: Netem) -> bytes:
    """All of them: netem keeps what it is not told of (netem_change)."""
    gap = 1 if wanted.reorder else 0
    ticks = (0, 0)  # of delay and jitter; what stands in 64 bits below counts
    options = _NETEM.pack(ticks[0], wanted.limit, wanted.loss, gap, wanted.duplicate, ticks[1])
    options += attribute(_CORRELATIONS, bytes(12))
    options += attribute(_RATE, bytes(16))
    options += attribute(_REORDER, _TWO.pack(wanted.reorder, 0))
    options += attribute(_CORRUPT, _TWO.pack(wanted.corrupt, 0))
    options += attribute(_LATENCY64, _U64.pack(wanted.delay))
    options += attribute(_JITTER64, _U64.pack(wanted.jitter))
    if wanted.gilbert:
        begins, ends = wanted.gilbert
        model = attribute(_LOSS_GILBERT, _GILBERT.pack(begins, ends, 0, 0))
        options += attribute(_LOSS | uapi.NLA_F_NESTED, model)
    if wanted.distribution != Distribution.UNIFORM:
        options += attribute(_DISTRIBUTION, _table(Distribution(wanted.distribution)))
    if wanted.seed is not None:
        options += attribute(_SEED, _U64.pack(wanted.seed))
    return options


@cache
def _table(distribution: Distribution) -> bytes:
    """4,096 delays of equal chance, in 8,192ths of the deviation, as in iproute2's tables."""
    from statistics import NormalDist  # 14 ms that only a distribution should cost

    count, scale = 4096, 8192
    places = [(n + 0.5) / count for n in range(count)]
    normal = [NormalDist().inv_cdf(place) for place in places]
    pareto = [((1 - place) ** (-1 / 3) - 1.5) * 4 / 3 for place in places]
    values = {
        Distribution.NORMAL: normal,
        Distribution.PARETO: pareto,
        Distribution.PARETONORMAL: [n / 4 + p * 3 / 4 for n, p in zip(normal, pareto, strict=True)],
    }[distribution]
    bounded = [max(-32768, min(32767, round(value * scale))) for value in values]
    return struct.pack(f"={count}h", *bounded)


def why_not(kind: str) -> str:
    """What to say where the kernel does not know a kind."""
    if kind == "netem":
        return (
            "this kernel has no sch_netem (a module of most distributions: modprobe sch_netem);"
            " what works without it: rate, drop, one_way and loss: 100%"
        )
    return f"this kernel has no sch_{kind} (modprobe sch_{kind})"


def lacks_for(wanted: Shape) -> str:
    """What a shape needs that the kernel would pass over without a word; empty if there is none."""
    seeded = wanted.netem is not None and wanted.netem.seed is not None
    if seeded and kernel_version() < _SEEDED_SINCE:
        return f"seed: netem takes one since Linux 6.6, this is {os.uname().release}"
    return ""
