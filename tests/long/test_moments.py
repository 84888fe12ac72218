"""Kills and signals at very many moments, and reloads: what ``make test`` does a few times."""

from __future__ import annotations

import time

import pytest
from netns import test_hostile, test_life
from netns.lab import Lab
from netns.service import Daemon


def test_a_kill_at_any_moment_is_mended_by_the_next_start(lab: Lab) -> None:
    test_life.kill_at_any_moment(lab, 100)


@pytest.mark.parametrize("first", range(4))
def test_a_stop_during_the_start_leaves_nothing(
    lab: Lab, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every 40 ms of a start, by either signal."""

    def after(ms: int) -> test_life.Moment:
        def has_come(_running: Daemon) -> bool:
            time.sleep(ms / 1000)
            return True

        return has_come

    signals = [number for _, number in test_life.MOMENTS][:2]
    moments = [(after(ms), number) for ms in range(40 * first, 640, 160) for number in signals]
    monkeypatch.setattr(test_life, "MOMENTS", moments)
    test_life.test_a_stop_during_the_start_leaves_nothing(lab)


def test_thousands_of_reloads_leave_no_trace(
    lab: Lab, daemon: test_hostile.Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_hostile, "RELOADS", max(5000, test_hostile.RELOADS))
    test_hostile.test_many_reloads_leave_no_trace(lab, daemon)
