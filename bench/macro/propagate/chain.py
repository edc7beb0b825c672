"""`python -m bench.macro.propagate.chain DIRECTORY BLOCKS_PER_S SECONDS`: block table → supervisor → enforcer → kernel.

This process has the block table and the supervisor's side; the enforcer is a child of it, as it is one of a keeper.
Invariant: everything happens in a network namespace that it makes first; without one it ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import mmap
import os
import re
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import uvloop

from bench.macro.network import fresh_network
from bench.macro.systems import program
from scrubber import _native
from scrubber.control.policy import PolicyInForce, compile_files
from scrubber.mandate.compile import rule_id
from scrubber.mandate.load import load_all
from scrubber.server import memfd, start
from scrubber.server.channel import Channel
from scrubber.server.enforcement import Enforcement
from scrubber.server.journal import Journal
from scrubber.server.plan import ListenerPlan, Start

S = 1_000_000_000
TTL_S = 600
WARM_S = 0.5  # blocks of it are not counted
WAIT_S = 10.0
GATEWAY = """
workers = 1
state_dir = "state"
mandates = ["mandate.toml"]
allow_unsigned = true
[enforcer]
{enforcer}
[[listener]]
address = "127.0.0.1:8080"
[[area]]
name = "site"
default = true
origins = ["127.0.0.1:1"]
"""
MANDATE = """
[mandate]
id = "bench"
serial = 1
authority = "the bench"
basis = "a bench"
not_before = 2020-01-01T00:00:00Z
expires = 2099-01-01T00:00:00Z
on_expiry = "limits"
areas = ["site"]
powers = ["block", "blackhole"]
[proportion]
blocks_max = 100_000
"""


class Seen:
    """When the kernel said of each address that it is dropped."""

    def __init__(self) -> None:
        self.at_ns: dict[str, int] = {}
        self.process = subprocess.Popen([program("nft", "nftables"), "monitor", "elements"], stdout=subprocess.PIPE)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            now_ns = time.monotonic_ns()
            for text in re.findall(rb"\b10\.\d+\.\d+\.\d+\b", line):
                self.at_ns.setdefault(text.decode(), now_ns)

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


@dataclass
class Chain:
    """A gateway's supervisor's side, in this process, and its enforcer."""

    policy: PolicyInForce
    memory: _native.Memory
    journal: Journal
    enforcement: Enforcement
    process: subprocess.Popen[bytes]
    channel: Channel  # the keeper's end

    def meet(self, pair: socket.socket) -> None:
        """The two speak from now on."""
        self.enforcement.use(self.policy, [ListenerPlan("127.0.0.1", 8080, key="127.0.0.1:8080")])
        self.enforcement.meet(os.dup(pair.fileno()))
        pair.close()

    def end(self) -> None:
        self.channel.send({"type": "drain", "leave": False})
        self.process.wait(20)


def begun(directory: Path, enforcer: str = "") -> tuple[Chain, socket.socket]:
    """The chain, and the supervisor's end of the pair, for `meet`. `enforcer`: lines of [enforcer]."""
    (directory / "gateway.toml").write_text(GATEWAY.format(enforcer=enforcer), encoding="utf-8")
    (directory / "mandate.toml").write_text(MANDATE, encoding="utf-8")
    loaded = load_all(directory / "gateway.toml")
    policy, _ = compile_files(loaded.gateway, loaded.mandates, {}, 1)
    memory = _native.Memory(start.make_memory(loaded.gateway, {}, os.urandom(16))[0], -1)
    logger = logging.getLogger("bench")
    journal = Journal(memory, 1, loaded.gateway.log, logger)
    enforcement = Enforcement(memory, journal, logger, quiet_ns=0, lift=lambda *_: None)
    process, channel, pair = enforcer_of(policy)
    return Chain(policy, memory, journal, enforcement, process, channel), pair


def enforcer_of(policy: PolicyInForce) -> tuple[subprocess.Popen[bytes], Channel, socket.socket]:
    """The enforcer, the keeper's end of its channel, and the supervisor's end of the pair."""
    channel, theirs = Channel.pair()
    settings = policy.gateway.enforcer
    assert settings is not None
    floor = memfd.sealed("floor", msgspec.json.encode(start.floor_of(policy, settings)))
    fds = {"beat": memfd.plain("beat", mmap.PAGESIZE), "floor": floor}
    wanted = {
        "drop": ["nft"],
        "interfaces": [],
        "xdp_mode": "auto",
        "on_stop": "withdraw",
        "announces": settings.upstream is not None,
    }
    message = Start("enforcer", -1, os.getpid(), 1, 1, [], {"enforcer": wanted}, [], fds)
    with theirs:
        channel.send(*message.to_message())
        process = subprocess.Popen(
            [*start.python("scrubber.server.enforcer"), str(theirs.fileno())], pass_fds=[theirs.fileno()]
        )
    ours, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with other:
        channel.send({"type": "peer"}, [other.fileno()])
    return process, channel, ours


def put_blocks(memory: _native.Memory, per_s: int, seconds: float, put_ns: dict[str, int]) -> None:
    """One after the other, evenly; when each was put."""
    begun = time.monotonic()
    for number in range(round(per_s * seconds)):
        pause_s = begun + number / per_s - time.monotonic()
        if pause_s > 0:
            time.sleep(pause_s)
        text = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        put_ns[text] = time.monotonic_ns()
        memory.block_put("client", text, [0], TTL_S * S, 3600 * S, 100_000, rule_id("bench", "flood"))


async def measured(directory: Path, per_s: int, seconds: float) -> dict[str, float]:
    """Milliseconds from a block to the kernel."""
    chain, pair = begun(directory)
    chain.meet(pair)
    task = asyncio.get_running_loop().create_task(chain.enforcement.run())
    put_ns: dict[str, int] = {}
    while not chain.enforcement.in_force:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.05)
    seen = Seen()
    await asyncio.sleep(0.5)
    await asyncio.to_thread(put_blocks, chain.memory, per_s, seconds + WARM_S, put_ns)
    end = time.monotonic() + WAIT_S
    while len(seen.at_ns) < len(put_ns) and time.monotonic() < end:  # noqa: ASYNC110 - a thread reads
        await asyncio.sleep(0.05)
    task.cancel()
    seen.end()
    chain.end()
    counted = list(put_ns)[round(per_s * WARM_S) :]
    missing = [text for text in counted if text not in seen.at_ns]
    if missing:
        sys.exit(f"{len(missing)} of {len(counted)} blocks never came to the kernel")
    took_ms = sorted((seen.at_ns[text] - put_ns[text]) / 1e6 for text in counted)
    return {
        "to_kernel_ms_p50": took_ms[len(took_ms) // 2],
        "to_kernel_ms_p99": took_ms[len(took_ms) * 99 // 100],
        "to_kernel_ms_max": took_ms[-1],
        "blocks_per_s": float(per_s),
    }


def main() -> None:
    directory, per_s, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    if not fresh_network():
        sys.exit("no network namespace may be made here")
    print(json.dumps(uvloop.run(measured(directory, per_s, seconds))))


if __name__ == "__main__":
    main()
