"""`python -m bench.macro.decide.checks SYSTEM [--smoke]`: how long its checks take, and what a client costs (JSON)."""

from __future__ import annotations

import asyncio
import json
import math
import mmap
import os
import random
import sys
import time
from collections.abc import Callable

from bench.macro.systems import CLEAN

MILLION = 1_000_000
S = 1_000_000_000


def timed(work: Callable[[int], object], count: int) -> float:
    """ns a check."""
    work(count // 10)
    began = time.perf_counter_ns()
    work(count)
    return (time.perf_counter_ns() - began) / count


def rss_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def table(sources: int, cells: int, word: str) -> dict[str, float]:
    """The limiter over a table of so many cells, for so many clients."""
    from scrubber import _native  # noqa: PLC0415 - the other systems need none of it

    rate = (1_000_000, S, 1_000_000)
    limiter = _native.ProbeLimiter(mmap.mmap(-1, cells * 16))
    _native.probe_loop_limiter(limiter, rate, sources, 0, sources, S, 1, False)  # each comes once
    now_ns, checks = S + sources, min(2 * MILLION, 2 * sources)
    return {
        f"bytes_source_{word}": cells * 16 / sources,
        f"held_{word}": _native.probe_limiter_held(limiter, sources) / sources,
        f"ns_cold_{word}": timed(
            lambda count: _native.probe_loop_limiter(limiter, rate, sources, 0, count, now_ns, 1, True), checks
        ),
        "ns_hot": timed(lambda count: _native.probe_loop_limiter(limiter, rate, 1, 0, count, now_ns, 1, False), checks),
    }


def scrubber(million: int) -> dict[str, float]:
    """The limiter over tables with room for so many clients, and the whole judge."""
    from bench.macro.core import HEAD, judge  # noqa: PLC0415
    from scrubber import _native  # noqa: PLC0415

    found = table(10 * million, room(10 * million), "10m") | table(million, room(million), "1m")
    whole, now_ns = judge(CLEAN / "mandate.toml"), time.monotonic_ns()
    found["ns_judge_hot"] = timed(lambda count: _native.probe_loop_judge(whole, HEAD, count, now_ns, 1000), million)
    return found


def room(sources: int) -> int:
    """Cells for so many clients: a power of two, half of them free or a little less."""
    return 1 << round(math.log2(2 * sources))


def addresses(count: int) -> list[str]:
    return [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(count)]


def around(check: Callable[[str], object], million: int) -> dict[str, float]:
    """Hot, cold, and memory, of a check that takes a client's address."""
    before, clients = rss_bytes(), addresses(million)
    names = rss_bytes() - before  # the addresses themselves are no part of it
    for client in clients:
        check(client)
    found = {"bytes_source_1m": (rss_bytes() - before - names) / million}
    scattered = random.Random(7).sample(clients, million // 5)

    def cold(count: int) -> None:
        for client in scattered[:count]:
            check(client)

    def hot(count: int) -> None:
        for _ in range(count):
            check("10.0.0.1")

    found["ns_cold_1m"] = timed(cold, len(scattered))
    found["ns_hot"] = timed(hot, len(scattered))
    return found


def limits(million: int) -> dict[str, float]:
    """Its fixed windows in memory."""
    from limits import RateLimitItemPerHour  # noqa: PLC0415
    from limits.storage import MemoryStorage  # noqa: PLC0415
    from limits.strategies import FixedWindowRateLimiter  # noqa: PLC0415

    item = RateLimitItemPerHour(1_000_000_000)
    limiter = FixedWindowRateLimiter(MemoryStorage())
    return around(lambda client: limiter.hit(item, client), million)


def aiolimiter(million: int) -> dict[str, float]:
    """A leaky bucket a client, made when it comes first; asked without waiting."""
    from aiolimiter import AsyncLimiter  # noqa: PLC0415

    async def run() -> dict[str, float]:
        buckets: dict[str, AsyncLimiter] = {}
        acquired = AsyncLimiter.acquire

        def check(client: str) -> bool:
            bucket = buckets.get(client)
            if bucket is None:
                bucket = buckets[client] = AsyncLimiter(1_000_000_000, 3600)
            if not bucket.has_capacity():
                return False
            try:
                acquired(bucket).send(None)  # has capacity: it never waits
            except StopIteration:
                return True
            raise RuntimeError("it waited")

        return around(check, million)

    return asyncio.run(run())


def main(argv: list[str]) -> None:
    million = MILLION // 100 if "--smoke" in argv else MILLION
    print(json.dumps({"scrubber": scrubber, "limits": limits, "aiolimiter": aiolimiter}[argv[0]](million)))


if __name__ == "__main__":
    main(sys.argv[1:])
