"""/metrics through a real OpenMetrics parser."""

from __future__ import annotations

import re
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from scrubber.admin.metrics import CONTENT_TYPE, Snapshot, render
from scrubber.control.status import LATENCY_BUCKETS, SCALARS

GATEWAY = """
accepted closed dropped_blocked dropped_cap_client dropped_cap_total dropped_rule bad_requests timeouts_head
timeouts_body timeouts_idle timeouts_write evicted_idle origin_connects origin_connect_errors origin_reused
origin_retries origin_bad ring_lines ring_lines_lost ring_acts ring_acts_refused table_full passes pass_ns
tunnels tunnels_refused tunnels_cut
log_sampled bytes_spliced
origin_retries_refused origin_ejections origin_waits origin_wait_refused origin_shortages
""".split()  # noqa: SIM905 - a list of so many short words is easier to read as text
GAUGES = (
    "beat_ns",
    "pid",
    "generation",
    "connections",
    "origin_connections",
    "requests",
    "tarpit",
    "tunnels",
    "origin_waiting",
)

CACHE_WORDS = ("hits", "stale", "collapsed", "misses", "passes", "stored", "bytes")


def area(scale: int) -> dict[str, Any]:
    made: dict[str, Any] = {name: scale * (index + 1) for index, name in enumerate(SCALARS)}
    made |= dict.fromkeys((f"cache_{word}" for word in CACHE_WORDS), scale)
    made |= {"verdicts": [scale] * 6, "measures": [scale] * 8, "status_class": [scale] * 6}
    return made | {"latency": [1] * LATENCY_BUCKETS, "latency_ns_sum": 1_500_000_000}


@pytest.fixture
def snapshot() -> Snapshot:
    return Snapshot(
        version="1.2.3",
        totals={name: index for index, name in enumerate(GATEWAY)},
        areas={"portal": area(1), 'odd "name"\\': area(2)},
        workers={
            0: {**dict.fromkeys(GAUGES, 7), "pools": {"buffers": (3, 8192), "pipes": (0, 16)}},
            1: {**dict.fromkeys(GAUGES, 0), "pools": {"buffers": (0, 0), "pipes": (0, 0)}},
        },
        restarts={"worker[0]": 2, "supervisor": 0},
        blocks=12,
        rush={"portal": True},
        generation=4,
        origins=[
            {"area": "portal", "pool": "", "address": "[::1]:8000", "state": "up", "drained": False, "in_flight": 3},
            {
                "area": "portal",
                "pool": "api",
                "address": "10.0.0.9:80",
                "state": "down",
                "drained": True,
                "in_flight": 0,
            },
        ],
        enforce=False,
        mandates_expire={"m": 1_800_000_000.5},
        log_lines=10,
        log_lines_lost=1,
        reloads={"done": 1, "refused": 0},
        now_ns=1_000_000_007,
    )


def families(snapshot: Snapshot) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(render(snapshot))}


def samples(snapshot: Snapshot) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families(snapshot).values() for s in f.samples}


def test_a_real_parser_reads_all_of_it(snapshot: Snapshot) -> None:
    found = families(snapshot)
    assert found["scrubber_requests"].type == "counter"
    assert found["scrubber_latency_seconds"].type == "histogram"
    assert found["scrubber_latency_seconds"].unit == "seconds"
    assert found["scrubber_received_bytes"].unit == "bytes"
    assert render(snapshot).endswith("\n# EOF\n")
    assert CONTENT_TYPE.startswith("application/openmetrics-text; version=1.0.0")


def test_values(snapshot: Snapshot) -> None:
    found = samples(snapshot)
    assert found["scrubber_requests_total", (("area", "portal"),)] == 1
    assert found["scrubber_requests_total", (("area", 'odd "name"\\'),)] == 2
    assert found["scrubber_verdicts_total", (("area", "portal"), ("verdict", "drop"))] == 1
    assert found["scrubber_latency_seconds_bucket", (("area", "portal"), ("le", "+Inf"))] == LATENCY_BUCKETS
    assert found["scrubber_latency_seconds_bucket", (("area", "portal"), ("le", "6.4e-05"))] == 1
    assert found["scrubber_latency_seconds_sum", (("area", "portal"),)] == 1.5
    assert found["scrubber_beat_age_seconds", (("worker", "0"),)] == 1.0
    assert ("scrubber_beat_age_seconds", (("worker", "1"),)) not in found
    assert found["scrubber_pool_used", (("pool", "buffers"), ("worker", "0"))] == 3
    assert found["scrubber_pool_size", (("pool", "pipes"), ("worker", "0"))] == 16
    assert found["scrubber_enforcing", ()] == 0
    assert found["scrubber_mandate_expires_seconds", (("mandate", "m"),)] == 1_800_000_000.5
    assert found["scrubber_restarts_total", (("child", "worker[0]"),)] == 2
    assert found["scrubber_info", (("version", "1.2.3"),)] == 1


def test_every_counter_of_the_core_is_there(snapshot: Snapshot) -> None:
    """Each field of the gateway's totals has a value of its own above: all of them must show up."""
    found = samples(snapshot)
    values = {value for (name, labels), value in found.items() if not dict(labels).get("area")}
    for index, name in enumerate(GATEWAY):
        assert (index * 1e-9 if name.endswith("_ns") else index) in values, name


def test_names_and_labels_keep_the_rules(snapshot: Snapshot) -> None:
    for family in families(snapshot).values():
        assert re.fullmatch(r"scrubber(_[a-z]+)*", family.name)
        assert family.documentation
        for sample in family.samples:
            assert set(sample.labels) <= {
                "area", "verdict", "measure", "class", "le", "reason", "phase", "worker", "child", "mandate", "result",
                "version", "pool", "origin",
            }  # fmt: skip


def test_without_traffic_areas_and_workers(snapshot: Snapshot) -> None:
    snapshot.areas, snapshot.workers, snapshot.rush, snapshot.mandates_expire = {}, {}, {}, {}
    assert "scrubber_requests" in families(snapshot)
