"""Connections that stay open and say nothing, in clear text and over TLS: what each of them costs in memory."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.load.guard import raise_nofile
from bench.macro.clean import PEOPLE
from bench.macro.held import held
from bench.macro.load import Ask, ask
from bench.macro.procs import descendants, memory_bytes
from bench.macro.scenario import Place, Run
from bench.macro.systems import CLEAN, SYSTEMS, origin, system
from bench.macro.tls_clean import ECDSA, SEALED, TLS

CONNECTIONS = 10_000
CONNECTIONS_TLS = 4_000
SPARE = 200  # connections beside those that are held
SETTLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Idle:
    """Another scenario's configurations with room for so many connections."""

    name: str = "idle"
    title: str = f"{CONNECTIONS:,} idle connections"
    method: str = (
        f"After the load of `clean`, {CONNECTIONS:,} connections of 16 clients (fewer where the limit on descriptors "
        "says so: `connections`) are opened, each asks once and is kept; pools are sized to that. `idle_bytes` is what "
        "the user space of all processes grew by (anonymous and shared memory, each page counted once), a connection; "
        "the kernel's sockets are not in it. `memory_mib` is all of it."
    )
    systems: tuple[str, ...] = SYSTEMS
    connections: int = CONNECTIONS
    configs: Path = CLEAN
    asks: Ask = PEOPLE
    values: Mapping[str, object] = field(default_factory=dict)

    def run(self, name: str, place: Place) -> Run:
        files = raise_nofile()
        room = min(self.connections, files - files // 8 - 2 * SPARE)
        count = 200 if place.effort.smoke else room
        # nginx begins to close idle connections when a sixteenth of its own is left; HAProxy
        # wants two descriptors for each of its connections, and begins with fewer where it is told to.
        values = {**self.values, "CONNECTIONS": room + SPARE, "NGINX_CONNECTIONS": room + room // 8 + SPARE}
        values["HAPROXY_FILES"] = f"no strict-limits\n  ulimit-n {files}"
        with origin(place.scratch, place.load_core) as port:
            values["ORIGIN"] = port
            with system(name, self.configs, place.scratch, (place.proxy_core,), values) as running:
                ask(running.port, self.asks, place.effort.warm, place.load_core)
                time.sleep(SETTLE_S)
                pids = descendants(running.process.pid)
                before = memory_bytes(pids)
                with held(running.port, dataclasses.replace(self.asks, connections=count), place.load_core):
                    time.sleep(SETTLE_S)
                    after = memory_bytes(pids)
        return Run({"connections": count, "idle_bytes": (after - before) / count, "memory_mib": after / 2**20})


IDLE = Idle()
IDLE_TLS = Idle(
    name="idle-tls",
    title=f"{CONNECTIONS_TLS:,} idle connections over TLS",
    method=f"The same with {CONNECTIONS_TLS:,} connections over TLS 1.3, after the load and with the configurations of "
    "`tls-clean`; what OpenSSL keeps of each is in it.",
    connections=CONNECTIONS_TLS,
    configs=TLS,
    asks=SEALED,
    values=ECDSA,
)
