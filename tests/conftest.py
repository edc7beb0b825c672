"""For the whole suite: end-to-end tests share one process, so that no two gateways fight for two cores."""
from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ALONE = {"e2e", "interop", "network", "browser"}

# Tests assert behaviour, not time: a busy machine fails nothing.
settings.register_profile("scrubber", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("scrubber")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).parts[0] in ALONE:
            item.add_marker(pytest.mark.xdist_group("alone"))
