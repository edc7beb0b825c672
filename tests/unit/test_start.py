"""What a start makes: pools of a size that no reload outgrows, and that cost nothing until they are used."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from scrubber import _native
from scrubber.mandate.load import load_all
from scrubber.server.start import BUFFERS_MIN, engine_sizes
from tests.e2e.support import SANITIZED
from tests.unit.hosted import Bench, bench, origin

__all__ = ["bench", "origin"]

GIB, MIB = 2**30, 2**20


@pytest.mark.parametrize(("connections", "workers"), [(16, 4), (16384, 2), (200_000, 3)])
def test_each_client_of_a_worker_may_have_an_origin_connection(tmp_path: Path, connections: int, workers: int) -> None:
    text = f"""
workers = {workers}
limits.connections_max = {connections}
[[listener]]
address = "127.0.0.1:0"
[[area]]
name = "site"
default = true
origins = ["127.0.0.1:1"]
tunnel.total_max = 100000
"""
    (tmp_path / "gateway.toml").write_text(text)
    gateway = load_all(tmp_path / "gateway.toml").gateway
    assert gateway is not None
    sizes = engine_sizes(gateway)
    assert sizes["connections_max"] == connections // workers
    assert sizes["streams_max"] >= max(connections // workers, 1024)
    assert sizes["origins_max"] > sizes["connections_max"] + sizes["streams_max"]
    assert sizes["buffers_max"] == max(BUFFERS_MIN, connections // workers)


def pages(field: int) -> int:
    """Bytes of this process: 0 mapped, 1 resident."""
    return int(Path("/proc/self/statm").read_text().split()[field]) * resource.getpagesize()


@pytest.mark.skipif(SANITIZED, reason="a sanitizer has memory beside each page, and writes to it what is free")
def test_pools_that_are_not_used_cost_address_space_only(bench: Callable[..., Bench]) -> None:
    hosted = bench()
    mapped, resident = pages(0), pages(1)
    many = 2**18
    engine = _native.Engine(
        hosted.memory, hosted.policy(), [], {"connections_max": many, "origins_max": many, "buffers_max": many}
    )
    assert engine.pools()["origins"] == (0, many)
    assert pages(0) - mapped > 6 * GIB
    assert pages(1) - resident < 24 * MIB
