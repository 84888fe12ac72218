"""A minute of random harm. ``make chaos SECONDS=… SEED=…`` takes as long as it is told to."""

from __future__ import annotations

import os
import random

from .chaos import Chaos
from .chaos_hosts import ChaosOfHosts
from .hosts_lab import Hosts
from .lab import Lab

SECONDS = float(os.environ.get("XCONNECTD_CHAOS_SECONDS") or 60)
SEED = int(os.environ.get("XCONNECTD_CHAOS_SEED") or random.randrange(1 << 31))


def test_chaos(lab: Lab) -> None:
    print(f"seed {SEED}")
    run = Chaos(lab, SEED, SECONDS)
    run.run()
    print(run)


def test_chaos_over_three_hosts() -> None:
    print(f"seed {SEED}")
    with Hosts() as hosts:
        run = ChaosOfHosts(hosts, SEED, SECONDS)
        run.run()
    print(run)
