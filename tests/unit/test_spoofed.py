"""Ten million spoofed sources: tables stay as large as they are, and those who offend most are still held."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.unit.files import HEAD, MINIMAL_GATEWAY
from tests.unit.judging import Bench, S, bench, head_of, rule

SANITIZED = os.environ.get("SCRUBBER_BUILD", "release") != "release"
SPOOFED = 1_000_000 if SANITIZED else 10_000_000
OFFENDERS = [f"203.0.{number // 250}.{number % 250 + 1}" for number in range(1000)]
ROUNDS = 50  # of three requests of each offender
FLOOD_S = 20  # as time goes for the gateway
# As in a gateway file without [memory].
DEFAULTS = '{"limiter": 1048576, "ladder": 131072, "known": 262144, "blocks": 131072}'
LADDERS = {
    "throttled": '["throttle"]',
    "blocked": '["throttle", "block 5m"]',
}


def rss_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def gateway(folder: Path, then: str) -> Bench:
    return bench(folder, MINIMAL_GATEWAY, m=HEAD + rule("r", "1/s burst 5", LADDERS[then]), memory=DEFAULTS)


def spoof(b: Bench, first: int, count: int) -> float:
    """Requests of sources that were never seen; ns each."""
    step_ns = FLOOD_S * S // SPOOFED
    began = time.perf_counter_ns()
    b.judge.spoof(0, head_of(), first, count, b.now_ns, step_ns)
    b.now_ns += count * step_ns
    return (time.perf_counter_ns() - began) / count


@pytest.mark.timeout(600)
@pytest.mark.parametrize("then", LADDERS)
def test_the_heaviest_offenders_stay_held(tmp_path: Path, then: str) -> None:
    full, fresh = gateway(tmp_path, then), gateway(tmp_path, then)
    before_bytes = rss_bytes()
    count = SPOOFED // ROUNDS
    for turn in range(ROUNDS):
        for client in OFFENDERS:
            full.verdicts(3, client=client)
        spoof(full, turn * count, count)
    # Whoever is held has at most one request free; whoever was forgotten has five.
    held = sum(full.verdicts(3, client=client)[1:] != ["PASS", "PASS"] for client in OFFENDERS)
    assert held >= 990
    assert rss_bytes() - before_bytes < 150 * 1024 * 1024
    # A full table costs no more than its cache misses. The first of the rounds touches the pages of the fresh one.
    pairs = [(spoof(fresh, turn * 20_000, 20_000), spoof(full, SPOOFED + turn * 20_000, 20_000)) for turn in range(6)]
    least_fresh, least_full = (min(column[1:]) for column in zip(*pairs, strict=True))
    print(f"{then}: {held} of {len(OFFENDERS)} held; ns a check: {least_fresh:.0f} fresh, {least_full:.0f} full")
    assert least_full <= 2 * least_fresh
