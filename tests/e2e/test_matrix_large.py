"""Bodies of 5 GiB, byte for byte, in bounded memory.

One direction and path here, as it takes its time; SCRUBBER_LARGE=1 runs all of them.
"""

from __future__ import annotations

import os
import threading

import pytest

from tests.e2e.proxy import Proxy
from tests.e2e.stream import Plan, StreamClient, StreamOrigin
from tests.e2e.support import SLOW

GIB = 1 << 30
MIB = 1 << 20
SIZE = (5 * GIB if SLOW == 1 else 64 * MIB) + 12_345  # sanitizers take their time, and memory of their own
GROWTH_MAX = 8 * MIB
CASES = [(way, splice) for splice in (True, False) for way in ("down", "up", "both")]
IN_CI = [("down", True)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("way", "splice"), CASES if os.environ.get("SCRUBBER_LARGE") else IN_CI)
def test_five_gib_in_bounded_memory(proxy: type[Proxy], way: str, splice: bool) -> None:
    origin = StreamOrigin()
    area = f"splice = {str(splice).lower()}"
    with proxy(area=area, origins=[origin.address], limits='body_bytes_max = "8GiB"') as found:
        origin.plan = Plan(size=2 if way == "up" else SIZE)
        before, most, done = found.rss_bytes(), [0], threading.Event()

        def watch() -> None:
            while not done.wait(0.2):
                most[0] = max(most[0], found.rss_bytes())

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        up = 0 if way == "down" else SIZE
        with StreamClient(found.port, timeout_s=120) as client:
            headers, count = client.exchange(1, "length" if up else "none", up, keep_alive=True)
        done.set()
        watcher.join()
        assert (count, int(headers["x-taken"])) == (origin.plan.size, up)
        assert SLOW > 1 or most[0] - before < GROWTH_MAX, f"{most[0] - before} bytes more than before"
        spliced = found.metric("scrubber_spliced_bytes_total")
        whole = SIZE * (2 if way == "both" else 1)
        assert spliced > whole * 0.9 if splice else spliced == 0
        line = found.lines("/stream")[0]
        assert (line["http.request.body.bytes"], line["http.response.body.bytes"]) == (up, origin.plan.size)
        assert origin.faults == []
    origin.close()
