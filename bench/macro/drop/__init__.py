"""What it costs to be rid of an attacker's packets: at the proxy, by a route, by nftables, by XDP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.macro.drop.attack import SOURCES
from bench.macro.scenario import Place, Run
from bench.macro.systems import ROOT, WAYS, BenchError, program

FLOOD_S, SMOKE_S = 3.0, 0.25
SMOKE_SOURCES = "198.18.64.0/26"
TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Drop:
    """Each way is measured in a process of its own (bench.macro.drop.stand), which has the networks."""

    name: str = "drop"
    title: str = "What a dropped packet costs"
    method: str = (
        "Not over loopback: attacker and gate, each in a network namespace, are the ends of a veth pair. 1,024 "
        "sources are blocked, one by one; the door is one address and port. On the load's core an XDP program makes "
        "SYN frames from these sources, ports at random, as many as it can (`sent_per_s`). They reach the gate "
        "without an skb, as from a network card, by a ring of 256 that a thread of the kernel (threaded NAPI) empties "
        "on the proxy's core. `packets_per_s` is what it took in, `dropped_per_s` what of it was dropped by the "
        "backend's own counters (route: what came to IP and went to nobody); below 99 % a run does not count. What is "
        "sent beyond that finds the ring full: with a `core_share` near 1 `packets_per_s` is the most that one core "
        "takes. `cpu_ns` is that thread's time by packets, with the making of the skb where one is made; "
        "`core_busy_ns` that of the core beyond what it does at rest. none: nobody drops, the kernel answers each SYN "
        "with a cookie. nft is at the ingress of the device; xdp-generic comes after the skb is made, xdp-native "
        "before. All the same veth is no card: figures rank the ways, those of hardware are others; and what sockets "
        "send over veth has an skb already, which xdp-native would have to copy. proxy: no frames but whole "
        "connections, 64 at once, to a gateway with one worker, the sources in its block table, and no enforcer; each "
        "is reset at accept (`reset_per_s`). Two packets come in for one (SYN, ACK) and two go out, so what compares "
        "with a SYN that is dropped is `cpu_ns_connection`; `gateway_ns_connection` of it is in the gateway's "
        "processes. Below a `core_share` of 1 the load bounds the proxy."
    )
    systems: tuple[str, ...] = WAYS

    def run(self, name: str, place: Place) -> Run:
        if os.geteuid() != 0:
            raise BenchError("it takes root: network namespaces, and CAP_NET_ADMIN in them")
        if place.proxy_core == place.load_core:
            raise BenchError("it takes two cores: who sends and who drops must not share one")
        program("taskset", "util-linux")
        seconds, sources = (SMOKE_S, SMOKE_SOURCES) if place.effort.smoke else (FLOOD_S, SOURCES)
        with tempfile.TemporaryDirectory(dir=place.scratch) as scratch:
            Path(scratch).chmod(0o755)  # a gateway drops to another user, which must reach its own files
            argv = [sys.executable, "-m", "bench.macro.drop.stand", name, scratch]
            argv += [str(place.proxy_core), str(place.load_core), str(seconds), sources]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd=ROOT)
        if done.returncode:
            raise BenchError(f"drop, {name}: {done.stderr.strip()[-500:]}")
        found = json.loads(done.stdout)
        return Run(found["metrics"], found["disturbed"])


DROP = Drop()
