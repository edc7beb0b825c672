"""Latency buckets: quarter octaves from 64 us."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrubber import _native

BOUNDS = _native.latency_bounds_ns()


def test_bounds_are_quarter_octaves_from_64_us() -> None:
    assert len(BOUNDS) == 63
    assert BOUNDS[0] == 64_000
    for i, bound in enumerate(BOUNDS):
        assert bound == pytest.approx(64_000 * 2 ** (i / 4), abs=1.01)


@given(st.integers(0, 2**64 - 1))
def test_a_time_falls_into_the_first_bucket_that_holds_it(ns: int) -> None:
    expected = next((i for i, bound in enumerate(BOUNDS) if ns <= bound), 63)
    assert _native.probe_latency_bucket(ns) == expected


def test_edges() -> None:
    for i, bound in enumerate(BOUNDS):
        assert _native.probe_latency_bucket(bound) == i
        assert _native.probe_latency_bucket(bound + 1) == i + 1
