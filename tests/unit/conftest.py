"""In CI the property tests take the same examples each time, so that a red run means a change.

Elsewhere they go on looking.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# No deadline: 200 ms for an example is Hypothesis's idea, and a busy machine's is another.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("here"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")
