"""Counters as OpenMetrics text (https://github.com/prometheus/OpenMetrics, 1.0).

Owns: names, units and labels of what /metrics says. Labels are areas, verdicts, measures, workers: never an address,
not an origin's either: those are in the status.
Invariants: counters end in _total, times are seconds, sizes bytes; families do not interleave; the text ends in # EOF.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scrubber.control.status import LATENCY_BUCKETS, MEASURES, VERDICTS, latency_bound_s

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
BUCKET_STEP = 4  # quarter octaves are counted, octaves exported

Labels = Mapping[str, object]


@dataclass(slots=True)
class Snapshot:
    """What is exported, as the supervisor sees it now."""

    version: str
    totals: Mapping[str, Any]  # Memory.totals()
    areas: Mapping[str, Mapping[str, Any]]  # name -> its totals
    workers: Mapping[int, Mapping[str, Any]]  # slot -> Memory.gauges()
    restarts: Mapping[str, int]  # child -> restarts
    blocks: int
    rush: Mapping[str, bool]
    generation: int
    enforce: bool
    mandates_expire: Mapping[str, float]  # id -> Unix time
    log_lines: int
    log_lines_lost: int
    reloads: Mapping[str, int]  # "done", "refused"
    origins: Sequence[Mapping[str, Any]]  # as in the status
    now_ns: int
    cache: Mapping[str, int] = field(default_factory=lambda: {"bytes": 0, "used": 0, "entries": 0})
    blocks_save_failures: int = 0
    certificates_expire: Mapping[str, float] = field(default_factory=dict)  # area -> Unix time of the first
    enforcer: Mapping[str, Any] | None = None  # as in the status; None: there is none


class Text:
    """Collects families."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(
        self, name: str, kind: str, help_text: str, samples: Iterable[tuple[str, Labels, float]], unit: str = ""
    ) -> None:
        """`samples`: suffix, labels, value. The name has no _total; with a unit it ends in it."""
        self._lines.append(f"# TYPE {name} {kind}")
        if unit:
            self._lines.append(f"# UNIT {name} {unit}")
        self._lines.append(f"# HELP {name} {_escape(help_text)}")
        for suffix, labels, value in samples:
            inner = ",".join(f'{key}="{_escape(str(text))}"' for key, text in labels.items())
            self._lines.append(
                f"{name}{suffix}{{{inner}}} {_number(value)}" if inner else f"{name}{suffix} {_number(value)}"
            )

    def counter(self, name: str, help_text: str, values: Iterable[tuple[Labels, float]], unit: str = "") -> None:
        self.family(name, "counter", help_text, (("_total", labels, value) for labels, value in values), unit)

    def gauge(self, name: str, help_text: str, values: Iterable[tuple[Labels, float]], unit: str = "") -> None:
        self.family(name, "gauge", help_text, (("", labels, value) for labels, value in values), unit)

    def __str__(self) -> str:
        return "\n".join([*self._lines, "# EOF"]) + "\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if isinstance(value, (int, bool)) or value == int(value) else repr(float(value))


def render(snapshot: Snapshot) -> str:
    """The whole exposition."""
    text = Text()
    text.family("scrubber", "info", "The program.", [("_info", {"version": snapshot.version}, 1)])
    _areas(text, snapshot.areas)
    _gateway(text, snapshot.totals)
    _workers(text, snapshot)
    _origins(text, snapshot)
    if snapshot.enforcer is not None:
        _enforcer(text, snapshot.enforcer)
    _state(text, snapshot)
    return str(text)


def _areas(text: Text, areas: Mapping[str, Mapping[str, Any]]) -> None:
    def each(field_name: str, factor: float = 1) -> list[tuple[Labels, float]]:
        return [({"area": name}, totals[field_name] * factor) for name, totals in areas.items()]

    def split(field_name: str, label: str, words: Sequence[str]) -> list[tuple[Labels, float]]:
        return [
            ({"area": name, label: word}, totals[field_name][index])
            for name, totals in areas.items()
            for index, word in enumerate(words)
        ]

    text.counter("scrubber_requests", "Requests with a complete head.", each("requests"))
    text.counter("scrubber_verdicts", "Requests by verdict.", split("verdicts", "verdict", VERDICTS))
    text.counter("scrubber_measures", "Acts begun, by measure.", split("measures", "measure", MEASURES))
    classes = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
    text.counter("scrubber_responses", "Answers to clients.", split("status_class", "class", classes))
    text.counter("scrubber_known_requests", "Requests by clients known from before.", each("known_requests"))
    text.counter("scrubber_known_served", "Of these, answered below 500, by origin or route.", each("known_served"))
    text.counter("scrubber_served", "Requests answered by the origin.", each("served"))
    text.counter("scrubber_answered", "Requests answered by a route, below 500.", each("answered"))
    text.counter("scrubber_origin_errors", "Answers 502, 503 and 504 of our own.", each("origin_errors"))
    text.counter("scrubber_client_aborts", "Requests given up by the client.", each("client_aborts"))
    text.counter("scrubber_shed", "Requests refused by an area-wide limit.", each("shed"))
    text.counter("scrubber_refused_acts", "Blocks that proportion or never-block refused.", each("refused_acts"))
    text.counter("scrubber_received_bytes", "From clients.", each("bytes_in"), "bytes")
    text.counter("scrubber_sent_bytes", "To clients.", each("bytes_out"), "bytes")
    text.counter("scrubber_origin_seconds", "The origins' time.", each("origin_ns", 1e-9), "seconds")
    _cache(text, areas)
    help_text = "From a request's first byte to the end of its answer, of requests let through."
    samples = [sample for name, totals in areas.items() for sample in _histogram(name, totals)]
    text.family("scrubber_latency_seconds", "histogram", help_text, samples, "seconds")


CACHE_RESULTS = {"hit": "hits", "stale": "stale", "collapsed": "collapsed", "miss": "misses", "pass": "passes"}


def _cache(text: Text, areas: Mapping[str, Mapping[str, Any]]) -> None:
    results: list[tuple[Labels, float]] = [
        ({"area": name, "result": result}, totals[f"cache_{field_name}"])
        for name, totals in areas.items()
        for result, field_name in CACHE_RESULTS.items()
    ]
    text.counter("scrubber_cache_requests", "Requests in areas with a cache, by what it did.", results)
    stored: list[tuple[Labels, float]] = [({"area": name}, totals["cache_stored"]) for name, totals in areas.items()]
    text.counter("scrubber_cache_stored", "Answers that were kept.", stored)
    sent: list[tuple[Labels, float]] = [({"area": name}, totals["cache_bytes"]) for name, totals in areas.items()]
    text.counter("scrubber_cache_sent_bytes", "Bodies given out of the cache.", sent, "bytes")


def _histogram(area: str, totals: Mapping[str, Any]) -> Iterable[tuple[str, Labels, float]]:
    seen = 0
    for index, count in enumerate(totals["latency"]):
        seen += count
        if index % BUCKET_STEP == 0 and index < LATENCY_BUCKETS - 1:
            yield "_bucket", {"area": area, "le": f"{latency_bound_s(index):.9g}"}, seen
    yield "_bucket", {"area": area, "le": "+Inf"}, seen
    yield "_count", {"area": area}, seen
    yield "_sum", {"area": area}, totals["latency_ns_sum"] * 1e-9


def _gateway(text: Text, totals: Mapping[str, Any]) -> None:
    def one(name: str, help_text: str, field_name: str) -> None:
        text.counter(name, help_text, [({}, totals[field_name])])

    one("scrubber_connections_accepted", "Client connections.", "accepted")
    one("scrubber_connections_closed", "Client connections that ended.", "closed")
    reasons = ("blocked", "cap_client", "cap_total", "rule")
    dropped: list[tuple[Labels, float]] = [({"reason": reason}, totals[f"dropped_{reason}"]) for reason in reasons]
    text.counter("scrubber_connections_dropped", "Connections closed with RST at accept.", dropped)
    one("scrubber_connections_evicted", "Silent connections closed to make room.", "evicted_idle")
    paused = "Pauses of accepting, of 50 ms each: descriptors ran out here."
    one("scrubber_accept_shortages", paused, "accept_shortages")
    one("scrubber_bad_requests", "Requests refused for their bytes.", "bad_requests")
    phases = ("head", "body", "idle", "write", "handshake")
    timeouts: list[tuple[Labels, float]] = [({"phase": phase}, totals[f"timeouts_{phase}"]) for phase in phases]
    text.counter("scrubber_timeouts", "Client connections cut by a deadline.", timeouts)
    one("scrubber_origin_connects", "Connections made to origins.", "origin_connects")
    one("scrubber_origin_connect_errors", "Of these, failed.", "origin_connect_errors")
    short = "Connections to origins that could not be begun: descriptors, ports or memory ran out here."
    one("scrubber_origin_shortages", short, "origin_shortages")
    one("scrubber_origin_reuses", "Requests on a pooled connection.", "origin_reused")
    one("scrubber_origin_retries", "Requests sent again after a stale pooled connection.", "origin_retries")
    one("scrubber_origin_retries_refused", "Further tries that the retry budget refused.", "origin_retries_refused")
    one("scrubber_origin_ejections", "Origins left out for a time: they refused connections.", "origin_ejections")
    one("scrubber_origin_waits", "Requests that waited for a place at an origin.", "origin_waits")
    one("scrubber_origin_wait_refused", "Requests for which there was no place to wait.", "origin_wait_refused")
    one("scrubber_origin_bad_responses", "Responses refused for their bytes.", "origin_bad")
    one("scrubber_ring_lines", "Access lines given to the supervisor.", "ring_lines")
    one("scrubber_ring_lines_lost", "Access lines lost because the ring was full.", "ring_lines_lost")
    one("scrubber_log_sampled", "Access lines left out, as log.sample_pass says.", "log_sampled")
    one("scrubber_ring_acts", "Acts recorded.", "ring_acts")
    one("scrubber_ring_acts_refused", "Acts not done because they could not be recorded.", "ring_acts_refused")
    one("scrubber_table_full", "Counts or buffers that found no room.", "table_full")
    one("scrubber_tls_handshakes", "TLS handshakes with clients.", "handshakes")
    one("scrubber_tls_handshakes_resumed", "Of these, by a ticket.", "handshakes_resumed")
    one("scrubber_tls_handshakes_failed", "Handshakes that came to nothing.", "handshakes_failed")
    refused = "Handshakes cut off before they cost anything: blocks, rules, the client's share."
    one("scrubber_tls_handshakes_refused", refused, "handshakes_refused")
    one("scrubber_http2_opened", "Connections of HTTP/2.", "http2_connections")
    one("scrubber_http2_requests", "Requests that came over HTTP/2.", "http2_streams")
    refused = "HTTP/2 connections ended for what their client did (GOAWAY)."
    one("scrubber_http2_refused", refused, "http2_refused")
    one("scrubber_tunnels_opened", "Upgrades that origins granted.", "tunnels")
    one("scrubber_tunnels_refused", "Upgrades beyond client_max or total_max.", "tunnels_refused")
    one("scrubber_tunnels_cut", "Tunnels ended by a limit, a block or a reload.", "tunnels_cut")
    one("scrubber_spliced_bytes", "Bytes of bodies that were moved inside the kernel.", "bytes_spliced")
    one("scrubber_passes", "Passes of the engines.", "passes")
    text.counter("scrubber_pass_seconds", "Time in passes.", [({}, totals["pass_ns"] * 1e-9)], "seconds")


def _workers(text: Text, snapshot: Snapshot) -> None:
    def each(field_name: str) -> list[tuple[Labels, float]]:
        return [({"worker": slot}, gauges[field_name]) for slot, gauges in snapshot.workers.items()]

    ages: list[tuple[Labels, float]] = [
        ({"worker": slot}, max(snapshot.now_ns - gauges["beat_ns"], 0) * 1e-9)
        for slot, gauges in snapshot.workers.items()
        if gauges["beat_ns"]
    ]
    text.gauge("scrubber_beat_age_seconds", "Since a worker's last pass.", ages, "seconds")
    text.gauge("scrubber_connections", "Open client connections.", each("connections"))
    text.gauge("scrubber_origin_connections", "Open connections to origins.", each("origin_connections"))
    text.gauge("scrubber_requests_in_flight", "Requests being answered.", each("requests"))
    text.gauge("scrubber_tarpit_held", "Requests held by the tarpit.", each("tarpit"))
    text.gauge("scrubber_origin_waiting", "Requests that wait for a place at an origin.", each("origin_waiting"))
    text.gauge("scrubber_http2_connections", "Open connections of HTTP/2.", each("http2_connections"))
    text.gauge("scrubber_http2_streams", "Their open streams.", each("http2_streams"))
    text.gauge("scrubber_http2_session_bytes", "Memory of their sessions (nghttp2).", each("http2_bytes"), "bytes")
    text.gauge("scrubber_tunnels", "Upgraded connections (WebSocket).", each("tunnels"))
    for place, name, help_text in (
        (0, "used", "Objects in use, of those that a worker made at its start."),
        (1, "size", "Objects that a worker made at its start."),
    ):
        pools: list[tuple[Labels, float]] = [
            ({"worker": slot, "pool": pool}, pair[place])
            for slot, gauges in snapshot.workers.items()
            for pool, pair in gauges["pools"].items()
        ]
        text.gauge(f"scrubber_pool_{name}", help_text, pools)
    text.gauge("scrubber_worker_generation", "Policy in force.", each("generation"))
    restarts: list[tuple[Labels, float]] = [({"child": name}, count) for name, count in snapshot.restarts.items()]
    text.counter("scrubber_restarts", "Children replaced by the keeper.", restarts)


def _origins(text: Text, snapshot: Snapshot) -> None:
    def each(value: Callable[[Mapping[str, Any]], float]) -> list[tuple[Labels, float]]:
        return [({"area": o["area"], "pool": o["pool"], "origin": o["label"]}, value(o)) for o in snapshot.origins]

    text.gauge("scrubber_origin_up", "1: it takes requests.", each(lambda o: int(o["state"] == "up")))
    text.gauge("scrubber_origin_drained", "1: an operator takes no new requests there.", each(lambda o: o["drained"]))
    text.gauge("scrubber_origin_in_flight", "Requests at an origin.", each(lambda o: o["in_flight"]))


def _enforcer(text: Text, enforcer: Mapping[str, Any]) -> None:
    text.gauge("scrubber_enforcer_up", "1: there is an enforcer to talk to.", [({}, int(enforcer["here"]))])
    drops: list[tuple[Labels, float]] = [({"backend": name}, count) for name, count in enforcer["in_force"].items()]
    text.gauge("scrubber_kernel_drops", "Sources whose packets the kernel drops.", drops)
    text.gauge("scrubber_kernel_hosts_covered", "Clients dropped with a prefix of theirs.", [({}, enforcer["covered"])])
    text.gauge("scrubber_kernel_drops_waiting", "Sources that wait to be put there.", [({}, enforcer["waiting"])])
    for what in ("packets", "bytes"):
        help_text = f"Of blocked sources, dropped by the kernel: {what}."
        unit = what if what == "bytes" else ""
        text.counter(f"scrubber_kernel_dropped_{what}", help_text, [({}, enforcer[f"dropped_{what}"])], unit)
    text.counter("scrubber_kernel_drops_refused", "Sources that the enforcer refused.", [({}, enforcer["refused"])])
    healed = "Differences between what was wanted and what the kernel had, made good."
    text.counter("scrubber_kernel_drops_healed", healed, [({}, enforcer["healed"])])
    if enforcer["upstream"]:
        _upstream(text, enforcer["upstream"])


def _upstream(text: Text, upstream: Mapping[str, Any]) -> None:
    able = int(upstream["reason"] == "")
    text.gauge("scrubber_upstream_up", "1: blackholes can be announced.", [({}, able)])
    announced: list[tuple[Labels, float]] = [({"kind": kind}, count) for kind, count in upstream["announced"].items()]
    text.gauge("scrubber_upstream_announced", "What routers upstream are asked to drop.", announced)
    text.counter("scrubber_upstream_refused", "Announcements that were refused.", [({}, upstream["refused"])])
    if upstream["link_load"] is not None:
        load = upstream["link_load"]
        text.gauge("scrubber_link_load", "Of the line to the provider: its load, 1: full.", [({}, load)])


def _state(text: Text, snapshot: Snapshot) -> None:
    if snapshot.cache["bytes"]:
        text.gauge("scrubber_cache_bytes", "Of the cache.", [({}, snapshot.cache["bytes"])], "bytes")
        text.gauge("scrubber_cache_used_bytes", "Of these, written.", [({}, snapshot.cache["used"])], "bytes")
        text.gauge("scrubber_cache_entries", "Answers that are kept.", [({}, snapshot.cache["entries"])])
    text.gauge("scrubber_blocks", "Blocks in force.", [({}, snapshot.blocks)])
    failures = snapshot.blocks_save_failures
    text.counter("scrubber_blocks_save_failures", "Times that the disk did not take the blocks.", [({}, failures)])
    rush: list[tuple[Labels, float]] = [({"area": name}, int(rush)) for name, rush in snapshot.rush.items()]
    text.gauge("scrubber_rush", "1: the area sheds newcomers.", rush)
    text.gauge("scrubber_policy_generation", "Policy last published.", [({}, snapshot.generation)])
    text.gauge("scrubber_enforcing", "0: dry run.", [({}, int(snapshot.enforce))])
    expires: list[tuple[Labels, float]] = [({"mandate": name}, at) for name, at in snapshot.mandates_expire.items()]
    text.gauge("scrubber_mandate_expires_seconds", "Unix time at which a mandate ends.", expires, "seconds")
    ends: list[tuple[Labels, float]] = [({"area": name}, at) for name, at in snapshot.certificates_expire.items()]
    first = "Unix time at which the first of an area's certificates expires."
    text.gauge("scrubber_certificate_expires_seconds", first, ends, "seconds")
    text.counter("scrubber_log_lines", "Lines written, over all destinations of the log.", [({}, snapshot.log_lines)])
    text.counter(
        "scrubber_log_lines_lost", "Lines that a destination of the log did not take.", [({}, snapshot.log_lines_lost)]
    )
    reloads: list[tuple[Labels, float]] = [({"result": result}, count) for result, count in snapshot.reloads.items()]
    text.counter("scrubber_reloads", "Reloads, by result.", reloads)
