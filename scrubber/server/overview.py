"""The gateway as the supervisor sees it: samples of the counters, the status document, the metrics' snapshot.

Owns: the shape of /v1/status. Reads memory, never writes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from scrubber import __version__, _native
from scrubber.admin.metrics import Snapshot
from scrubber.config.network import Endpoint
from scrubber.control.policy import PolicyInForce
from scrubber.control.status import History, describe_people
from scrubber.server.journal import Journal
from scrubber.server.origins import Origins
from scrubber.server.plan import ListenerPlan
from scrubber.server.privilege import Privileges
from scrubber.server.saver import Saver
from scrubber.server.tls_upkeep import expiries, expiry_notices

ORIGIN_S = 1.0  # for a connection to an origin to come about, when nobody asked
ACTS_SHOWN = 20
CACHE_WORDS = ("hits", "stale", "collapsed", "misses", "passes", "stored", "bytes")


class Overview:
    """Call `sample` once a second."""

    def __init__(
        self, memory: _native.Memory, journal: Journal, saver: Saver, workers: int, listeners: list[ListenerPlan]
    ) -> None:
        self.memory = memory
        self.journal = journal
        self.saver = saver
        self.workers = workers
        self.listeners = listeners
        self.history = History()
        self.children: list[dict[str, Any]] = []
        self.reloads = Counter({"done": 0, "refused": 0})
        self.last_reload: dict[str, Any] | None = None
        self.started = datetime.datetime.now(datetime.UTC)

    def sample(self, policy: PolicyInForce) -> None:
        now_ns = time.monotonic_ns()
        ids = list(policy.area_names())
        rush = {area_id: bool(self.memory.area_state(area_id)["rush"]) for area_id in ids}
        self.history.add(now_ns, self.memory.totals(ids)["areas"], rush)

    async def status(self, policy: PolicyInForce, origins: Origins, unresolved: Mapping[str, str]) -> dict[str, Any]:
        """/v1/status: see docs/operations.md."""
        now = datetime.datetime.now(datetime.UTC)
        blocks, blocks_by_area = self.memory.blocks_count()
        totals = self.memory.totals([])
        down = await self._origins_down(policy) if not self.history.people().requests else None
        log = self.journal.outputs
        return {
            "version": __version__,
            "started": _iso(self.started),
            "generation": policy.generation,
            "enforce": policy.gateway.enforce,
            "gateway_file": policy.gateway.file,
            "listeners": [listener.url for listener in self.listeners],
            "people": describe_people(self.history, policy.area_names(), down),
            "notices": [
                *self._notices(policy, now),
                *(f"origin {name} does not resolve: {why}" for name, why in unresolved.items()),
            ],
            "areas": self._areas(policy, blocks_by_area),
            "origins": origins.described(policy, self._in_flight()),
            "blocks": {"in_force": blocks},
            "children": self._children(),
            "mandates": [
                {
                    "id": each.id,
                    "serial": each.head.serial,
                    "authority": each.head.authority,
                    "areas": list(each.head.areas),
                    "expires": _iso(each.head.expires),
                    "expired": each.head.expires <= now,
                    "signed": False,
                }
                for each in policy.mandates
            ],
            "log": {
                "lines": log.lines,
                "lines_lost": log.lines_lost,
                "ring_lines_lost": totals["ring_lines_lost"],
                "sampled": totals["log_sampled"],
                "error": "; ".join(log.errors()),
                "destinations": log.describe(),
            },
            "reload": self.last_reload,
            "acts": self.journal.acts.last(ACTS_SHOWN),
        }

    def _notices(self, policy: PolicyInForce, now: datetime.datetime) -> list[str]:
        found = []
        if policy.mandates:
            names = ", ".join(each.id for each in policy.mandates)
            found.append(f"unsigned mandates accepted, as allow_unsigned = true says: {names}")
        found += [f"mandate {each.id} has expired" for each in policy.mandates if each.head.expires <= now]
        found += expiry_notices(policy.gateway, now)
        if not policy.gateway.enforce:
            found.append("dry run (enforce = false): decides and records, touches nothing")
        found += [f"log: {error}" for error in self.journal.outputs.errors()]
        if self.saver.error:
            found.append(f"blocks are not on disk: {self.saver.error}")
        if self.last_reload and not self.last_reload["ok"]:
            found.append(f"the reload of {self.last_reload['at']} was refused: {self.last_reload['message']}")
        return found

    def _areas(self, policy: PolicyInForce, blocks: dict[int, int]) -> list[dict[str, Any]]:
        totals = self.memory.totals(list(policy.area_names()))["areas"]
        found = []
        for area_id, name in policy.area_names().items():
            state = self.memory.area_state(area_id)
            history = self.history.areas.get(area_id)
            people = history.people() if history else None
            found.append(
                {
                    "name": name,
                    "rush": bool(history and history.rush),
                    "drained": state["drained"],
                    "per_s": history.rates() if history else {},
                    "people": {
                        "requests": people.requests if people else 0,
                        "served": people.served if people else 0,
                        "success": people.share if people else None,
                    },
                    "latency_ms_p50": history.latency_ms(0.5) if history else None,
                    "latency_ms_p99": history.latency_ms(0.99) if history else None,
                    "blocks": blocks.get(area_id, 0),
                    "known_clients": state["known_total"],
                    "known_clients_blocked": state["known_blocked"],
                    "requests": totals[area_id]["requests"],
                    "served": totals[area_id]["served"],
                    "cache": {word: totals[area_id][f"cache_{word}"] for word in CACHE_WORDS},
                }
            )
        return found

    def _in_flight(self) -> dict[int, int]:
        """Requests at each origin, over all workers."""
        found: Counter[int] = Counter()
        for slot in range(self.workers):
            found.update(self.memory.gauges(slot)["origin_in_flight"])
        return dict(found)

    def _children(self) -> list[dict[str, Any]]:
        now_ns = time.monotonic_ns()
        found = []
        for child in self.children:
            privileges = Privileges.of(child["pid"])
            entry: dict[str, Any] = {
                **child,
                "beat_age_ms": 0.0,
                "uid": privileges.uid if privileges else None,
                "seccomp": privileges.seccomp if privileges else None,
            }
            if child["slot"] >= 0:
                gauges = self.memory.gauges(child["slot"])
                beat_ns = gauges["beat_ns"]
                entry["beat_age_ms"] = round(max(now_ns - beat_ns, 0) / 1e6, 1) if beat_ns else None
                for name in ("generation", "connections", "origin_connections", "requests", "tarpit", "draining"):
                    entry[name] = gauges[name]
            found.append(entry)
        return found

    async def _origins_down(self, policy: PolicyInForce) -> list[str]:
        """Areas none of whose origins takes a connection."""
        wanted = [(area.name, [origin.address for origin in area.origins]) for area in policy.resolved.areas]
        answers = await asyncio.gather(*(_any_accepts(endpoints) for _, endpoints in wanted))
        return [name for (name, _), accepts in zip(wanted, answers, strict=True) if not accepts]

    def snapshot(self, policy: PolicyInForce, origins: Origins) -> Snapshot:
        """For /metrics."""
        names = policy.area_names()
        totals = self.memory.totals(list(names))
        return Snapshot(
            version=__version__,
            totals=totals,
            areas={name: totals["areas"][area_id] for area_id, name in names.items()},
            workers={slot: self.memory.gauges(slot) for slot in range(self.workers)},
            restarts={_child_name(child): child["restarts"] for child in self.children},
            blocks=self.memory.blocks_count()[0],
            rush={names[area_id]: area.rush for area_id, area in self.history.areas.items() if area_id in names},
            generation=policy.generation,
            enforce=policy.gateway.enforce,
            mandates_expire={each.id: each.head.expires.timestamp() for each in policy.mandates},
            certificates_expire=expiries(policy.gateway),
            log_lines=self.journal.outputs.lines,
            log_lines_lost=self.journal.outputs.lines_lost,
            reloads=self.reloads,
            origins=origins.described(policy, self._in_flight()),
            now_ns=time.monotonic_ns(),
            cache=self.memory.cache_state(),
            blocks_save_failures=self.saver.failures,
        )


async def _any_accepts(endpoints: list[Endpoint]) -> bool:
    for endpoint in endpoints:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(ORIGIN_S):
                if endpoint.family == "unix":
                    _, writer = await asyncio.open_unix_connection(endpoint.address)
                else:
                    _, writer = await asyncio.open_connection(endpoint.address, endpoint.port)
            writer.close()
            return True
    return False


def _child_name(child: dict[str, Any]) -> str:
    return child["role"] if child["slot"] < 0 else f"{child['role']}[{child['slot']}]"


def _iso(at: datetime.datetime) -> str:
    return at.astimezone(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
