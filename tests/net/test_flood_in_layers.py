"""One flood through all layers, and back: the proxy, the kernel, the provider's router; people served throughout."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import GatewayFactory
from tests.e2e.support import SLOW, Gateway, mandate_text, until
from tests.net.theatre import Packets, People, Theatre, flood

NETWORKS = [f"198.18.{third}" for third in range(101, 109)]
ATTACKERS = [f"{network}.{last}" for last in range(1, 251) for network in NETWORKS]  # 2,000
PEOPLE = [f"198.19.{third}.7" for third in range(1, 30)]
PREFIXES = {f"{network}.0/24" for network in NETWORKS}
PACKETS_PER_S, PACKET_BYTES = 2000, 1000
BLACKHOLE_S, BLOCK_S = 5, 40
AGGREGATE = 64
# No block lasts longer, whoever still sends: connections that were open are answered to, and that is sending.
PROPORTION = f'block_ttl_max = "{BLOCK_S}s"\nclients_share_max = "50%"\nprefix_v4_widest = 24'
RULES = f"""
[[rule]]
name = "flood"
per = "client"
limit = "5/s burst 5"
then = ["throttle 10ms", "block {BLOCK_S}s"]

[[rule]]
name = "pipe"
when = {{ link_load = ">= 5%" }}
then = ["blackhole {BLACKHOLE_S}s"]
climb = "4s"
"""


@pytest.mark.timeout(180)
def test_a_flood_of_two_thousand(theatre: Theatre, gateway: GatewayFactory) -> None:
    # The flood is all that the line can carry; what is dropped upstream goes away before the blocks end.
    running = theatre.play(
        gateway,
        mandate_text(RULES, proportion=PROPORTION),
        enforcer=f"aggregate = {AGGREGATE}",
        link_rate=f"{PACKETS_PER_S * (PACKET_BYTES + 40)}B/s",
    )
    until(lambda: enforcer(running)["upstream"]["reason"] == "")
    people = People(theatre, PEOPLE)
    until(lambda: people.served >= 20)
    calm_per_s = theatre.arriving_per_s()

    # The proxy: whoever asks for too much is blocked; with so many of a prefix, so are the rest of it.
    begun = time.monotonic()
    for _ in range(5):  # who hangs up before it was its turn was no trouble
        flood(theatre, ATTACKERS, 10)
        if prefixes(running) == PREFIXES:
            break
    until(lambda: prefixes(running) == PREFIXES, 10 * SLOW, "eight prefixes hold all of them")
    assert hosts(running) >= AGGREGATE * len(PREFIXES)
    # The kernel: what is blocked does not reach the worker.
    until(lambda: sum(enforcer(running)["in_force"].values()) <= len(PREFIXES) + 20, 10 * SLOW, "and stand for them")
    idle_s = worker_s_in(running, 2)
    accepted, served = running.metric("scrubber_connections_accepted_total"), people.served
    packets = Packets(theatre, ATTACKERS, PACKETS_PER_S, bytes_each=PACKET_BYTES)
    before = enforcer(running)["dropped_packets"]
    flooded_per_s = theatre.arriving_per_s()
    until(lambda: enforcer(running)["dropped_packets"] - before > PACKETS_PER_S, 20 * SLOW, "the kernel drops them")
    dropped_s = worker_s_in(running, 1)
    strangers = running.metric("scrubber_connections_accepted_total") - accepted - (people.served - served)
    assert strangers <= 2, "only people's connections come to the worker (one or two may be under way)"
    assert dropped_s <= idle_s + 0.15, "a flood that the kernel drops costs the worker nothing"

    # Upstream: the line is full, so its packets are dropped before it.
    until(lambda: theatre.blackholes() == PREFIXES, 30 * SLOW, "the provider drops them")
    print(f"dropped upstream after {time.monotonic() - begun:.1f} s")
    relieved_per_s = theatre.arriving_per_s()
    print(f"on the line: {calm_per_s:.0f}/s calm, {flooded_per_s:.0f}/s flooded, {relieved_per_s:.0f}/s relieved")
    assert flooded_per_s > PACKETS_PER_S / 2
    assert relieved_per_s < flooded_per_s / 10 + 2 * calm_per_s
    still = packets.sent
    time.sleep(0.5)
    assert packets.sent > still, "the flood goes on all the while"
    packets.end()

    # And back, in order: upstream, kernel, proxy.
    left: dict[str, float] = {}

    def lifted() -> bool:
        now = time.monotonic()
        if not theatre.blackholes():
            left.setdefault("upstream", now)
        if not sum(enforcer(running)["in_force"].values()):
            left.setdefault("kernel", now)
        if "kernel" in left and answers(theatre, ATTACKERS[0]):  # who still asked in the kernel would be kept out
            left.setdefault("proxy", now)
        return len(left) == 3

    until(lifted, 90 * SLOW, "every layer lets go")
    print({layer: f"{at - begun:.1f} s" for layer, at in left.items()})
    assert left["upstream"] < left["kernel"] <= left["proxy"], left
    people.go()
    assert people.failed == [] and people.served > 100


def enforcer(running: Gateway) -> dict[str, Any]:
    return running.status()["enforcer"]  # type: ignore[no-any-return]


def blocks(running: Gateway) -> list[dict[str, Any]]:
    return running.admin("GET", "/v1/blocks")[1]["blocks"]  # type: ignore[no-any-return]


def hosts(running: Gateway) -> int:
    return sum(block["kind"] == "client" for block in blocks(running))


def prefixes(running: Gateway) -> set[str]:
    return {block["source"] for block in blocks(running) if block["kind"] == "prefix"}


def answers(theatre: Theatre, source: str) -> bool:
    try:
        return theatre.get(source, 0.3) == 200
    except OSError:
        return False


def worker_s_in(running: Gateway, seconds: float) -> float:
    """CPU of the worker meanwhile."""
    pid = int(running.child("worker", 0)["pid"])
    before = cpu_s(pid)
    time.sleep(seconds)
    return (cpu_s(pid) - before) / seconds


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
