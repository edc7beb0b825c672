"""For the whole suite: end-to-end tests share one process, so that no two gateways fight for two cores."""
from __future__ import annotations

from pathlib import Path

import pytest

ALONE = {"e2e", "network", "browser"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).parts[0] in ALONE:
            item.add_marker(pytest.mark.xdist_group("alone"))
