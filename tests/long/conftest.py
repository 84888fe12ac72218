"""The fixtures of tests/netns, for tests that take long."""

from __future__ import annotations

from pathlib import Path

import pytest
from netns.conftest import (
    _kernel,
    daemon,
    lab,
    pytest_sessionstart,
    ready_made_code,
    resident,
    shared,
)

__all__ = [
    "_kernel",
    "daemon",
    "lab",
    "pytest_sessionstart",
    "ready_made_code",
    "resident",
    "shared",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.netns)
