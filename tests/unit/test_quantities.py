"""Numbers for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xconnectd import formatting


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (0.3, "0.3"), (9.96, "10"), (999, "999"), (999.6, "1.00k"),
     (12_345, "12.3k"), (999_499, "999k"), (1.2e6, "1.20M"), (14e9, "14.0G"), (1e18, ">999T")],
)  # fmt: skip
def test_numbers(value: float | None, text: str) -> None:
    assert formatting.number(value) == text


@given(st.floats(0, 1e20) | st.integers(0, 2**64))
def test_numbers_fit(value: float) -> None:
    assert len(formatting.number(value)) <= 5
    assert len(formatting.duration(value)) <= 4


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.04, "0.0s"), (59, "59s"), (300, "5m"), (5_969, "99m"), (5_970, "2h"),
     (86_400, "24h"), (864_000, "10d")],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert formatting.duration(seconds) == text


@pytest.mark.parametrize(
    ("bits", "text"),
    [(None, "- bit/s"), (0, "0 bit/s"), (999, "999 bit/s"), (1500, "1.50 kbit/s"),
     (999_600, "1.00 Mbit/s"), (13e9, "13.0 Gbit/s"), (13.4e12, "13.4 Tbit/s")],
)  # fmt: skip
def test_no_rate_is_written_with_an_exponent(bits: float | None, text: str) -> None:
    assert formatting.bit_rate(bits) == text


def test_counts() -> None:
    assert [formatting.counted(n, "link") for n in (0, 1, 2)] == ["0 links", "1 link", "2 links"]
