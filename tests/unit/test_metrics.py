"""/metrics through a real OpenMetrics parser."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from scrubber.admin.metrics import CONTENT_TYPE, Snapshot, render
from scrubber.control.status import LATENCY_BUCKETS, SCALARS
from tests.unit.files import ROOT

GATEWAY = """
accepted closed dropped_blocked dropped_cap_client dropped_cap_total dropped_rule bad_requests timeouts_head
timeouts_body timeouts_idle timeouts_write evicted_idle origin_connects origin_connect_errors origin_reused
origin_retries origin_bad ring_lines ring_lines_lost ring_acts ring_acts_refused table_full passes pass_ns
tunnels tunnels_refused tunnels_cut
log_sampled bytes_spliced
origin_retries_refused origin_ejections origin_waits origin_wait_refused origin_shortages accept_shortages
handshakes handshakes_resumed handshakes_failed handshakes_refused timeouts_handshake
http2_connections http2_streams http2_refused
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
    "http2_connections",
    "http2_streams",
    "http2_bytes",
)

CACHE_WORDS = ("hits", "stale", "collapsed", "misses", "passes", "stored", "bytes")


def area(scale: int) -> dict[str, Any]:
    made: dict[str, Any] = {name: scale * (index + 1) for index, name in enumerate(SCALARS)}
    made |= dict.fromkeys((f"cache_{word}" for word in CACHE_WORDS), scale)
    made |= {"verdicts": [scale] * 6, "measures": [scale] * 8, "status_class": [scale] * 6}
    return made | {"latency": [1] * LATENCY_BUCKETS, "latency_ns_sum": 1_500_000_000}


def origin(pool: str, label: str, address: str, state: str, in_flight: int = 0) -> dict[str, Any]:
    """As the status has one."""
    return {
        "area": "portal",
        "pool": pool,
        "label": label,
        "address": address,
        "state": state,
        "drained": state == "drained",
        "in_flight": in_flight,
    }


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
            origin("", "0", "[::1]:8000", "up", in_flight=3),
            origin("", "app.test:80", "10.0.0.9:80", "up"),
            origin("", "app.test:80#2", "10.0.0.10:80", "down"),
            origin("api", "0", "unix:/run/api.sock", "drained"),
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
    assert found["scrubber_origin_in_flight", (("area", "portal"), ("origin", "0"), ("pool", ""))] == 3
    assert found["scrubber_origin_up", (("area", "portal"), ("origin", "app.test:80#2"), ("pool", ""))] == 0
    assert found["scrubber_origin_drained", (("area", "portal"), ("origin", "0"), ("pool", "api"))] == 1


def test_every_counter_of_the_core_is_there(snapshot: Snapshot) -> None:
    """Each field of the gateway's totals has a value of its own above: all of them must show up."""
    found = samples(snapshot)
    values = {value for (name, labels), value in found.items() if not dict(labels).get("area")}
    for index, name in enumerate(GATEWAY):
        assert (index * 1e-9 if name.endswith("_ns") else index) in values, name


def test_names_and_labels_keep_the_rules(snapshot: Snapshot) -> None:
    for family in families(snapshot).values():
        assert re.fullmatch(r"scrubber(_[a-z][a-z0-9]*)*", family.name)
        assert family.documentation
        for sample in family.samples:
            assert set(sample.labels) <= documented_labels()
            assert [value for value in sample.labels.values() if has_address(value)] == []


def documented_labels() -> set[str]:
    """The list in docs/operations.md is whole."""
    (listed,) = re.findall(r"Labels are (.*?): never an address", (ROOT / "docs/operations.md").read_text())
    return set(re.findall(r"`([a-z]+)`", listed))


def has_address(text: str) -> bool:
    """An IP address anywhere in it, with a port or without, or a path of a socket."""
    words = [word.strip(":") for part in re.split(r"[^0-9A-Za-z:.]+", text) for word in (part, part.rpartition(":")[0])]
    return "/" in text or any(is_address(word) for word in words)


def is_address(word: str) -> bool:
    try:
        ipaddress.ip_address(word)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "127.0.0.1:8000", "[2001:db8::1]:80", "2001:db8::7", "via 10.0.0.9", "unix:/run/a.sock"]
)
def test_the_check_knows_addresses(text: str) -> None:
    assert has_address(text)


@pytest.mark.parametrize("text", ["portal", "worker[0]", "6.4e-05", "1.2.3", "+Inf", "app.test:80#2", "4xx", "0", ""])
def test_the_check_knows_what_is_none(text: str) -> None:
    assert not has_address(text)


def test_without_traffic_areas_and_workers(snapshot: Snapshot) -> None:
    snapshot.areas, snapshot.workers, snapshot.rush, snapshot.mandates_expire = {}, {}, {}, {}
    assert "scrubber_requests" in families(snapshot)
