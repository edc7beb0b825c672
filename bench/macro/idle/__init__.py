"""Connections that stay open and say nothing: what each of them costs in memory."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

from bench.load.guard import raise_nofile
from bench.macro.clean import PEOPLE
from bench.macro.held import held
from bench.macro.load import ask
from bench.macro.procs import descendants, memory_bytes
from bench.macro.scenario import Place, Run
from bench.macro.systems import CLEAN, SYSTEMS, origin, system

CONNECTIONS = 10_000
SPARE = 200  # connections beside those that are held
SETTLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Idle:
    """`clean`'s configurations with room for so many connections."""

    name: str = "idle"
    title: str = f"{CONNECTIONS:,} idle connections"
    method: str = (
        f"After the load of `clean`, {CONNECTIONS:,} connections of 16 clients (fewer where the limit on descriptors "
        "says so: `connections`) are opened, each asks once and is kept; pools are sized to that. `idle_bytes` is what "
        "the user space of all processes grew by (anonymous and shared memory, each page counted once), a connection; "
        "the kernel's sockets are not in it. `memory_mib` is all of it."
    )
    systems: tuple[str, ...] = SYSTEMS

    def run(self, name: str, place: Place) -> Run:
        files = raise_nofile()
        room = min(CONNECTIONS, files - files // 8 - 2 * SPARE)
        count = 200 if place.effort.smoke else room
        # nginx begins to close idle connections when a sixteenth of its own is left; HAProxy
        # wants two descriptors for each of its connections, and begins with fewer where it is told to.
        values: dict[str, object] = {"CONNECTIONS": room + SPARE, "NGINX_CONNECTIONS": room + room // 8 + SPARE}
        values["HAPROXY_FILES"] = f"no strict-limits\n  ulimit-n {files}"
        with origin(place.scratch, place.load_core) as port:
            values["ORIGIN"] = port
            with system(name, CLEAN, place.scratch, (place.proxy_core,), values) as running:
                ask(running.port, PEOPLE, place.effort.warm, place.load_core)
                time.sleep(SETTLE_S)
                pids = descendants(running.process.pid)
                before = memory_bytes(pids)
                with held(running.port, dataclasses.replace(PEOPLE, connections=count), place.load_core):
                    time.sleep(SETTLE_S)
                    after = memory_bytes(pids)
        return Run({"connections": count, "idle_bytes": (after - before) / count, "memory_mib": after / 2**20})


IDLE = Idle()
