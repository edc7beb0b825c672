"""Each piece under pytest-benchmark: `python -m pytest bench/macro/micro --benchmark-enable` shows the whole table."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.macro.micro.pieces import PIECES

TURNS = 10_000


@pytest.mark.parametrize("piece", PIECES)
def test_piece(benchmark: BenchmarkFixture, piece: str) -> None:
    benchmark.extra_info["turns"] = TURNS
    assert benchmark(PIECES[piece][2], TURNS)
