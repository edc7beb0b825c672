"""Namespaces for tests of what lies below the proxy."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.conftest import gateway, origin  # noqa: F401 - fixtures
from tests.net.site import site  # noqa: F401 - a fixture
from tests.net.space import Space
from tests.net.stage import Stage, build
from tests.net.theatre import theatre  # noqa: F401 - a fixture
from tests.net.xdp_stage import Opener
from tests.wanted import program


@pytest.fixture
def spaces() -> Iterator[Callable[[str], Space]]:
    """Makes namespaces that are gone after the test; skips where that may not be done."""
    refused = why_not()
    if refused:
        pytest.skip(refused)
    made: list[Space] = []

    def make(label: str = "space") -> Space:
        made.append(Space(label))
        return made[-1]

    yield make
    for space in reversed(made):
        space.close()


@pytest.fixture
def opened(spaces: Callable[[str], Space]) -> Iterator[Opener]:
    """Opens XDP backends, closed after the test."""
    with contextlib.ExitStack() as stack:
        yield Opener(spaces("lo"), stack)


def why_not() -> str:
    """Why no namespace can be made here; empty: it can."""
    if os.geteuid() != 0:
        return "network namespaces take root"
    tried = subprocess.run([program("unshare"), "-n", "true"], capture_output=True, text=True, check=False)
    return f"this machine makes no network namespaces: {tried.stderr.strip()}" if tried.returncode else ""


@pytest.fixture
def stage(spaces: Callable[[str], Space]) -> Iterator[Stage]:
    """A gateway's namespace, clients' and a neighbour's, wired."""
    made = build(spaces)
    yield made
    made.end()


@pytest.fixture
def gate(spaces: Callable[[str], Space]) -> Space:
    """A namespace alone, where no packets are needed."""
    return spaces("gate")
