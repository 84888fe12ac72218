"""The test frames: every one is known again, and what became of it is counted once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xconnectd.diagnostics import test_frames
from xconnectd.diagnostics.test_frames import Count, Series
from xconnectd.diagnostics.test_result import Lengths

SERIES = Series(b"12345678", 0, b"\x02aaaaa", b"\x02bbbbb")


def sent(*sizes: int) -> tuple[Count, list[bytes]]:
    count = Count(SERIES)
    return count, [count.next(size, float(number)) for number, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("mtu", "other", "expected"),
    [
        (1500, 1500, (60, 128, 256, 512, 1024, 1514)),
        (3000, 1500, (60, 128, 256, 512, 1024, 1514, 2048, 3014)),
        (1500, 9000, (60, 128, 256, 512, 1024, 1514)),
        (68, 1500, (60, 82)),
    ],
)
def test_sizes_reach_from_the_shortest_to_the_mtu(
    mtu: int, other: int, expected: tuple[int, ...]
) -> None:
    assert test_frames.sizes(mtu, other) == expected


@given(st.integers(0, 2**32 - 1), st.integers(60, 9014))
def test_a_frame_has_its_size_addresses_and_number(number: int, size: int) -> None:
    frame = SERIES.frame(number, size)
    assert len(frame) == size
    assert frame[:14] == b"\x02bbbbb\x02aaaaa\x88\xb5"
    assert SERIES.number(frame) == number
    assert frame == SERIES.frame(number, size)


def test_frames_of_others_are_not_ours() -> None:
    frame = SERIES.frame(3, 60)
    assert Series(b"87654321", 0, b"", b"").number(frame) is None
    assert Series(b"12345678", 1, b"", b"").number(frame) is None
    assert SERIES.number(frame[:20]) is None
    assert SERIES.number(bytes(60)) is None


def test_all_arrive() -> None:
    count, all_ = sent(60, 100, 60)
    for number, frame in enumerate(all_):
        count.arrived(frame, number + 0.5)
    assert count.is_complete
    assert count.lengths() == (Lengths(60, 2, 2), Lengths(100, 1, 1))
    assert count.delays == [0.5] * 3


def test_lost_corrupted_duplicated_reordered() -> None:
    count, (first, second, third, _) = sent(60, 60, 100, 100)
    count.arrived(second, 2)
    count.arrived(first, 2)
    count.arrived(first, 3)
    count.arrived(third[:-1] + bytes([third[-1] ^ 1]), 3)
    assert not count.is_complete
    assert count.lengths() == (
        Lengths(60, 2, arrived=2, duplicated=1, reordered=1),
        Lengths(100, 2, corrupted=1),
    )
    assert len(count.delays) == 2


def test_a_frame_cut_short_is_corrupted() -> None:
    count, (frame,) = sent(1514)
    count.arrived(frame[:1000], 1)
    assert count.lengths() == (Lengths(1514, 1, corrupted=1),)


def test_a_number_that_was_never_sent_counts_for_nothing() -> None:
    count, _ = sent(60)
    count.arrived(SERIES.frame(7, 60), 1)
    assert count.lengths() == (Lengths(60, 1),)


def test_spread() -> None:
    assert test_frames.spread([]) is None
    assert test_frames.spread([3.0, 1.0, 2.0]) == (1.0, 2.0, 3.0)
