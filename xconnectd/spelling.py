"""Interfaces that may be meant by a name that none has. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final

_NEAR: Final = 0.75
"""Of difflib's ratio; two letters that changed places in a name of seven are 0.86."""
_SHORTEST: Final = 4
"""Characters; of shorter names too many are near."""
_MOST: Final = 20
"""Names that are looked for; where more are missing it is the machine that is not ready."""


def meant(missing: Collection[str], free: Iterable[str]) -> Mapping[str, str]:
    """By name that is missing, the one of ``free`` that is nearest, where one is near at all.

    Numbers are what tells interfaces apart, so those must be the same: an eth1 that has just gone
    is no misspelt eth2.
    """
    if not missing or len(missing) > _MOST:
        return {}
    from difflib import get_close_matches  # 5 ms that only a missing interface should cost

    by_numbers: dict[str, list[str]] = {}
    for name in free:
        by_numbers.setdefault(_numbers(name), []).append(name)
    near = {
        name: get_close_matches(name, by_numbers.get(_numbers(name), ()), 1, _NEAR)
        for name in missing
        if len(name) >= _SHORTEST
    }
    return {name: found[0] for name, found in near.items() if found}


def _numbers(name: str) -> str:
    return " ".join(re.findall("[0-9]+", name))
