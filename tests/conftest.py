"""For the whole suite: how Hypothesis runs."""
from __future__ import annotations

from hypothesis import HealthCheck, settings

# Tests assert behaviour, not time: a busy machine fails nothing.
settings.register_profile("scrubber", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("scrubber")
