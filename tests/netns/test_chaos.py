"""A minute of random harm. ``make chaos SECONDS=… SEED=…`` takes as long as it is told to."""

from __future__ import annotations

import os
import random

from .chaos import Chaos
from .lab import Lab

SECONDS = float(os.environ.get("XCONNECTD_CHAOS_SECONDS") or 60)
SEED = os.environ.get("XCONNECTD_CHAOS_SEED")


def test_chaos(lab: Lab) -> None:
    seed = int(SEED) if SEED else random.randrange(1 << 31)
    print(f"seed {seed}")
    run = Chaos(lab, seed, SECONDS)
    run.run()
    print(run)
    assert run.steps > SECONDS / 4, f"too few steps to say anything: {run}"
