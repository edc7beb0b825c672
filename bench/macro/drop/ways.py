"""The ways to be rid of packets, each opened in the gate's network, and what each counts.

Invariant: what a way says that it dropped is what the kernel counted for it, not what was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.macro.drop.attack import Attack
from bench.macro.drop.wire import protocol_counts
from bench.macro.systems import BenchError, Running, system
from scrubber.admin.client import AdminClient
from scrubber.cli.remote import admin_of
from scrubber.enforce.backend import Backend, Door, Drop, Settings, Unavailable
from scrubber.enforce.net import net_of
from scrubber.enforce.nft import Nft
from scrubber.enforce.route import Route
from scrubber.enforce.xdp import Xdp

HERE = Path(__file__).parent
FOR_NS = 600 * 10**9


def _xdp(mode: str, door: Door, device: str) -> Backend:
    return Xdp(Settings((door,), (device,), xdp_mode=mode))


BACKENDS: dict[str, Callable[[Door, str], Backend]] = {
    "route": lambda door, device: Route(Settings((door,))),
    "nft": lambda door, device: Nft(Settings((door,), (device,))),
    "xdp-generic": functools.partial(_xdp, "generic"),
    "xdp-native": functools.partial(_xdp, "native"),
}


@contextlib.contextmanager
def backend(way: str, attack: Attack, device: str) -> Iterator[Backend]:
    """It drops the attack's sources, each by itself."""
    door = Door(((4, socket.inet_aton(attack.target), attack.port),))
    try:
        opened = BACKENDS[way](door, device)
    except Unavailable as error:
        raise BenchError(f"{way}: {error}") from error
    try:
        now_ns = time.monotonic_ns()
        refused = opened.apply({net_of(a): Drop(now_ns + FOR_NS, 1) for a in attack.addresses()}, (), now_ns)
        if refused:
            raise BenchError(f"{way} did not take {len(refused)} sources: {next(iter(refused.values()))}")
        yield opened
    finally:
        opened.close(withdraw=True)


def dropped(opened: Backend) -> int:
    """Packets so far. A route counts none: there, those that came to IP and went on to nobody."""
    if isinstance(opened, Route):
        counts = protocol_counts("Ip")
        return counts["InReceives"] - counts["InDelivers"] - counts["ForwDatagrams"]
    return sum(count.packets for count in opened.counted().values())


@contextlib.contextmanager
def listening(attack: Attack) -> Iterator[None]:
    """Nobody drops: the kernel answers for a socket that listens there."""
    with socket.create_server((attack.target, attack.port), backlog=4096):
        yield


@contextlib.contextmanager
def gateway(sources: Sequence[str], scratch: Path, core: int) -> Iterator[Running]:
    """A gateway with one worker, on that core, with these sources in its block table."""
    with system("scrubber", HERE, scratch, (core,), {"ORIGIN": 1}) as running:
        asyncio.run(_block(running.directory / "scrubber.toml", sources))
        yield running


async def _block(gateway_file: Path, sources: Sequence[str]) -> None:
    admin = admin_of(gateway_file)
    async with AdminClient(admin.socket, admin.token_file) as client:
        for source in sources:
            order = {"source": source, "ttl_s": FOR_NS / 1e9, "reason": "bench", "area": ""}
            await client.request("POST", "/v1/blocks", order)
