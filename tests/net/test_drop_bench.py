"""The bench scenario `drop`, each way once and shortly: it does what it is said to measure."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.macro.drop import DROP
from bench.macro.procs import cores
from bench.macro.scenario import METRICS, Effort, Place
from bench.macro.systems import WAYS
from tests.e2e.support import PRELOADED, SANITIZED
from tests.net.conftest import why_not
from tests.net.xdp_stage import demand_bpf
from tests.wanted import lacking


@pytest.fixture
def place() -> Iterator[Place]:
    if refused := why_not():
        pytest.skip(refused)
    demand_bpf()
    proxy_core, load_core = cores()
    if proxy_core == load_core:
        lacking("a second core", "who sends and who drops share none")
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o755)
        yield Place(Path(scratch), proxy_core, load_core, Effort.quick())


@pytest.mark.parametrize("way", WAYS)
def test_each_way(way: str, place: Place) -> None:
    if way == "proxy" and SANITIZED:
        pytest.skip(PRELOADED)
    before = os.readlink("/proc/self/ns/net")
    found = DROP.run(way, place).metrics
    assert found.keys() <= METRICS.keys()
    assert found["packets_per_s"] > 0
    assert found["cpu_ns"] > 0
    if way == "proxy":
        assert 0.99 * found["sent_per_s"] <= found["reset_per_s"] <= found["sent_per_s"]
        assert 0 < found["gateway_ns_connection"] < found["cpu_ns_connection"]
    elif way == "none":
        assert "dropped_per_s" not in found
    else:
        assert found["sent_per_s"] >= found["packets_per_s"] > 0
        assert found["dropped_per_s"] >= 0.99 * found["packets_per_s"]
    assert os.readlink("/proc/self/ns/net") == before
    assert list(place.scratch.iterdir()) == []
