"""`python -m bench.macro.propagate.upstream DIRECTORY ORDERS`: order → supervisor → enforcer → BIRD → the provider's
BIRD → its kernel.

This process has the supervisor's side, the enforcer is a child of it, as in bench.macro.propagate.chain; networks and
router are the demo's. Invariant: everything happens in networks that it makes first, and takes away.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

import uvloop
from pyroute2 import netns

from bench.demo.gateway import ASN, PROVIDER_ASN
from bench.demo.network import GATEWAY_END, PROTECTED, UPSTREAM_END, Network, NoNetwork, Space, program, why_not
from bench.demo.upstream import ROUTER
from bench.macro.propagate.chain import begun
from scrubber.control.blackholes import BlackholeOrder, WithdrawOrder
from scrubber.enforce.announce import SOURCES_TABLE, VICTIMS_TABLE
from scrubber.enforce.bird_config import Neighbour, Side, bird_config, provider_config
from scrubber.enforce.net import net_of
from scrubber.server import secret, start
from scrubber.server.announcements import Announcements

WAIT_S = 20.0
WARM = 3  # orders that are not counted: the first ones wait for sessions
ENFORCER = f"""
protects = ["{PROTECTED}"]
[enforcer.upstream]
router_id = "{GATEWAY_END}"
asn = {ASN}
announcements_per_min = 10_000
[[enforcer.upstream.neighbour]]
address = "{UPSTREAM_END}"
asn = {PROVIDER_ASN}
"""


class Seen:
    """When the provider's kernel said of each victim that it drops it."""

    def __init__(self, space: Space) -> None:
        self.at_ns: dict[str, int] = {}
        self.gone: set[str] = set()
        command = [*space.into, program("ip"), "-oneline", "monitor", "route"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            now_ns = time.monotonic_ns()
            match line.split():
                case ["blackhole", victim, *_]:
                    self.at_ns.setdefault(victim, now_ns)
                case ["Deleted", "blackhole", victim, *_]:
                    self.gone.add(victim)

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


async def _until(seconds: float, what: str, holds: set[str] | dict[str, int], name: str) -> None:
    end = time.monotonic() + seconds
    while name not in holds:
        if time.monotonic() > end:
            sys.exit(f"not within {seconds:g} s: {what} {name}")
        await asyncio.sleep(0.001)


async def measured(directory: Path, seen: Seen, orders: int) -> dict[str, float]:
    """Milliseconds from an order to the provider's kernel, one after the other."""
    chain, pair = begun(directory, ENFORCER)
    enforcer = chain.policy.gateway.enforcer
    assert enforcer is not None
    assert enforcer.upstream is not None
    secret.make(str(directory))
    announcements = Announcements(
        enforcer.upstream,
        start.floor_of(chain.policy, enforcer),
        chain.journal,
        logging.getLogger("bench"),
        directory=str(directory),
        tell=chain.enforcement.tell,
    )
    chain.enforcement.announcements = announcements
    chain.meet(pair)
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(chain.enforcement.run()), loop.create_task(announcements.run())]
    while announcements.reason is None:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.05)
    took_ms: list[float] = []
    for number in range(WARM + orders):
        victim = f"203.0.113.{100 + number % 100}"
        seen.at_ns.pop(victim, None)
        seen.gone.discard(victim)
        asked_ns = time.monotonic_ns()
        await announcements.blackhole(BlackholeOrder(victim, 60, "a bench", "a bench"))
        await _until(WAIT_S, "dropped:", seen.at_ns, victim)
        took_ms.append((seen.at_ns[victim] - asked_ns) / 1e6)
        announcements.withdraw(WithdrawOrder(victim))
        await _until(WAIT_S, "lifted:", seen.gone, victim)
    for task in tasks:
        task.cancel()
    chain.end()
    took_ms = sorted(took_ms[WARM:])
    return {
        "to_upstream_ms_p50": took_ms[len(took_ms) // 2],
        "to_upstream_ms_p99": took_ms[len(took_ms) * 99 // 100],
        "to_upstream_ms_max": took_ms[-1],
    }


def routers(directory: Path, network: Network, close: contextlib.ExitStack) -> None:
    """Both BIRDs, ended with the rest."""
    neighbours = (Neighbour(UPSTREAM_END, PROVIDER_ASN),)
    protects = (net_of(PROTECTED),)
    side = Side(GATEWAY_END, ASN, protects, neighbours, VICTIMS_TABLE, SOURCES_TABLE)
    theirs = ROUTER + provider_config(PROVIDER_ASN, Neighbour(GATEWAY_END, ASN), protects, passive=True)
    for name, space, text in (("ours", network.gateway, bird_config(side)), ("theirs", network.upstream, theirs)):
        file = directory / f"{name}.conf"
        file.write_text(text, encoding="utf-8")
        command = [*space.into, program("bird"), "-f", "-c", str(file), "-s", str(directory / f"{name}.sock")]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        close.callback(process.wait)
        close.callback(process.terminate)


def main() -> None:
    directory, orders = Path(sys.argv[1]), int(sys.argv[2])
    if why := why_not():
        sys.exit(why)
    try:
        with contextlib.ExitStack() as close:
            network = close.enter_context(Network())
            routers(directory, network, close)
            seen = Seen(network.upstream)
            close.callback(seen.end)
            netns.setns(network.gateway.name, flags=0)
            found = uvloop.run(measured(directory, seen, orders))
    except NoNetwork as error:
        sys.exit(str(error))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
