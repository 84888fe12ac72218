"""The test frames: every one is known again, and what became of it is counted once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xconnectd.diagnostics import test_frames
from xconnectd.diagnostics.test_frames import Count, Series
from xconnectd.diagnostics.test_result import Lengths

SERIES = Series(b"12345678", 0, b"\x02aaaaa", b"\x02bbbbb")


def sent(*sizes: int) -> tuple[Count, list[bytes]]:
    count = Count(SERIES)
    return count, [count.next(size, float(number)) for number, size in enumerate(sizes)]


def test_sizes_reach_from_the_shortest_to_the_mtu() -> None:
    usual = (60, 128, 256, 512, 1024, 1514)
    assert test_frames.sizes(1500, 1500) == test_frames.sizes(1500, 9000) == usual
    assert test_frames.sizes(3000, 1500) == (*usual, 2048, 3014)
    assert test_frames.sizes(68, 1500) == (60, 82)


@given(st.integers(0, 2**32 - 1), st.integers(60, 9014))
def test_a_frame_has_its_size_addresses_and_number(number: int, size: int) -> None:
    frame = SERIES.frame(number, size)
    assert len(frame) == size
    assert frame[:14] == b"\x02bbbbb\x02aaaaa\x88\xb5"
    assert SERIES.number(frame) == number
    assert frame == SERIES.frame(number, size)
    others = (Series(b"87654321", 0, b"", b""), Series(b"12345678", 1, b"", b""))
    assert [other.number(frame) for other in others] == [None, None]
    assert SERIES.number(frame[:20]) is SERIES.number(bytes(60)) is None


def test_all_arrive() -> None:
    count, all_ = sent(60, 100, 60)
    for number, frame in enumerate(all_):
        count.arrived(frame, number + 0.5)
    assert count.is_complete
    assert count.lengths() == (Lengths(60, 2, 2), Lengths(100, 1, 1))
    assert count.delays == [0.5] * 3
    assert test_frames.spread([]) is None
    assert test_frames.spread([3.0, 1.0, 2.0]) == (1.0, 2.0, 3.0)


def test_lost_corrupted_duplicated_reordered_and_cut_short() -> None:
    """A number that was never sent counts for nothing."""
    count, (first, second, third, _, long) = sent(60, 60, 100, 100, 1514)
    count.arrived(second, 2)
    count.arrived(first, 2)
    count.arrived(first, 3)
    count.arrived(third[:-1] + bytes([third[-1] ^ 1]), 3)
    count.arrived(long[:1000], 3)
    count.arrived(SERIES.frame(7, 60), 3)
    assert not count.is_complete
    assert count.lengths() == (
        Lengths(60, 2, arrived=2, duplicated=1, reordered=1),
        *(Lengths(100, 2, corrupted=1), Lengths(1514, 1, corrupted=1)),
    )
    assert len(count.delays) == 2
