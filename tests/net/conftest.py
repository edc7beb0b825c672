"""Namespaces for tests of what lies below the proxy."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.net.space import Space
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


def why_not() -> str:
    """Why no namespace can be made here; empty: it can."""
    if os.geteuid() != 0:
        return "network namespaces take root"
    tried = subprocess.run([program("unshare"), "-n", "true"], capture_output=True, text=True, check=False)
    return f"this machine makes no network namespaces: {tried.stderr.strip()}" if tried.returncode else ""
