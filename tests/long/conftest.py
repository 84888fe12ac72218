"""The fixtures of tests/netns, for tests that take long."""

from __future__ import annotations

from pathlib import Path

import pytest
from netns.conftest import *  # noqa: F403
from netns.conftest import _kernel  # noqa: F401


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.netns)
