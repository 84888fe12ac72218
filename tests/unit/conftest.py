"""In CI the property tests take the same examples each time, so that a red run means a change.

Elsewhere they go on looking.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
