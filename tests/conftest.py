"""For the whole suite: how Hypothesis runs, and what a run says at its start."""
from __future__ import annotations

import os
import shutil
import tempfile

import pytest
from hypothesis import HealthCheck, settings

from tests.corpora import corpora_line

# Tests assert behaviour, not time: a busy machine fails nothing.
settings.register_profile("scrubber", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("scrubber")


OWN_TEMP = pytest.StashKey[str]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Root's gateways run as other users, who have to reach what tests write: a place of this session's own, for every
    session of pytest closes /tmp/pytest-of-root to others again when it starts.

    A sanitizer is preloaded into what loads the core: other people's programs hang in it (see support.environment).
    """
    if "SCRUBBER_PRELOAD" in os.environ and ("PYTEST_XDIST_WORKER" in os.environ or not config.option.numprocesses):
        os.environ.pop("LD_PRELOAD", None)
    if os.geteuid() == 0 and config.option.basetemp is None:
        config.stash[OWN_TEMP] = config.option.basetemp = tempfile.mkdtemp(prefix="scrub-")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """What failed may be looked at."""
    place = session.config.stash.get(OWN_TEMP, None)
    if place is not None and exitstatus == 0:
        shutil.rmtree(place, ignore_errors=True)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Not pytest_report_header: -q leaves that out. Whole suites have been green without the corpora."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:  # there is none in xdist's workers
        terminal.write_line(corpora_line())
