"""Numbers for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xconnectd import formatting

NUMBERS = {
    formatting.number: [
        (None, "-"), (0, "0"), (0.3, "0.3"), (9.96, "10"), (999, "999"), (999.6, "1.00k"),
        (12_345, "12.3k"), (999_499, "999k"), (1.2e6, "1.20M"), (14e9, "14.0G"), (1e18, ">999T"),
    ],
    formatting.duration: [
        (None, "-"), (0.04, "0.0s"), (59, "59s"), (300, "5m"), (5_969, "99m"), (5_970, "2h"),
        (86_400, "24h"), (864_000, "10d"),
    ],
    formatting.bit_rate: [  # without an exponent
        (None, "- bit/s"), (0, "0 bit/s"), (999, "999 bit/s"), (1500, "1.50 kbit/s"),
        (999_600, "1.00 Mbit/s"), (13e9, "13.0 Gbit/s"), (13.4e12, "13.4 Tbit/s"),
    ],
    lambda count: formatting.counted(count, "link"): [
        (0, "0 links"), (1, "1 link"), (2, "2 links"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("write", "pairs"), NUMBERS.items())
def test_numbers(write: Callable[[Any], str], pairs: list[tuple[Any, str]]) -> None:
    assert [(value, write(value)) for value, _ in pairs] == pairs


@given(st.floats(0, 1e20) | st.integers(0, 2**64))
def test_numbers_fit(value: float) -> None:
    assert len(formatting.number(value)) <= 5
    assert len(formatting.duration(value)) <= 4
