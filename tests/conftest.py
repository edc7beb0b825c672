"""For the whole suite: how Hypothesis runs, and what a run says at its start."""
from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.corpora import corpora_line

# Tests assert behaviour, not time: a busy machine fails nothing.
settings.register_profile("scrubber", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("scrubber")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Not pytest_report_header: -q leaves that out. Whole suites have been green without the corpora."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:  # there is none in xdist's workers
        terminal.write_line(corpora_line())
