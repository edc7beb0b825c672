"""The provider of a run: its router, the session with ours, and one address of ours that is given up.

Owns: both BIRDs, and what is measured of the victim: what our line brings it, and what the provider's kernel does.
"""

import asyncio
import json
import re
import time
from pathlib import Path

import aiohttp

from bench.demo.children import Child, Nursery
from bench.demo.figures import Figures
from bench.demo.gateway import ASN, PROVIDER_ASN, DemoFailed, Watch, scrubber_command
from bench.demo.network import GATEWAY_END, PROTECTED, UPSTREAM_END, VICTIM, Network, Space, program
from scrubber.enforce.bird_config import Neighbour, provider_config
from scrubber.enforce.net import net_of

TTL_S = 20
DROPPED_WITHIN_S = 3.0  # then the run goes on without it
ASK_AGAIN_S = 0.05
COUNTED = re.compile(r"packets (\d+)")
ROUTER = f"""router id {UPSTREAM_END};
protocol device {{ }}
protocol kernel {{ ipv4 {{ import none; export all; }}; }}
"""


class Line:
    """The line between gateway and provider."""

    def __init__(self, network: Network) -> None:
        self.network = network

    async def start(self, nursery: Nursery, home: Path, gateway_file: Path) -> None:
        """Both ends of the session; it comes up while people come."""
        ours = await _output([*scrubber_command(), "enforce", "bird-config", str(gateway_file)])
        # Theirs waits: a try before ours is there would be followed by a pause of a minute.
        customer = Neighbour(GATEWAY_END, ASN)
        theirs = ROUTER + provider_config(PROVIDER_ASN, customer, [net_of(PROTECTED)], passive=True)
        for name, space, text in (("bird", self.network.gateway, ours), ("router", self.network.upstream, theirs)):
            file = home / f"{name}.conf"
            file.write_text(text, encoding="utf-8")
            command = [*space.into, program("bird"), "-f", "-c", str(file), "-s", str(home / f"{name}.sock")]
            nursery.add(await Child.start(name, command, lambda _: None))

    async def look(self, figures: Figures, at_s: float) -> None:
        """Count what our line has brought the victim."""
        listed = await self._in(self.network.gateway, "nft", "list", "counter", "inet", "demo", "victim")
        if found := COUNTED.search(listed):
            figures.victim.counted.append((at_s, int(found[1])))

    async def give_up(self, watch: Watch, figures: Figures, at_s: float) -> None:
        """Ask the gateway for it, which asks the provider; see when the provider's kernel has it."""
        victim = figures.victim
        victim.asked_s, began = at_s, time.monotonic()
        asked = {"net": VICTIM, "ttl_s": TTL_S, "reason": "it is flooded", "loss": "nothing is served there"}
        try:
            victim.status, answer = await watch.post("/v1/blackholes", asked)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            victim.answer = f"the gateway did not answer: {error!r}"
            return
        if victim.status != 201:
            victim.answer = f"the gateway answered {victim.status}, {detail_of(answer)}"
            return
        while time.monotonic() - began < DROPPED_WITHIN_S:
            if await self.dropped():
                victim.dropped_s = at_s + time.monotonic() - began
                await self.look(figures, victim.dropped_s)
                return
            await asyncio.sleep(ASK_AGAIN_S)

    async def dropped(self) -> bool:
        """Whether the provider's kernel drops what goes to the victim."""
        said = await self._in(self.network.upstream, "ip", "-json", "route", "show", "type", "blackhole")
        return any(route.get("dst") == VICTIM for route in json.loads(said or "[]"))

    async def _in(self, space: Space, name: str, *words: str) -> str:
        return await _output([*space.into, program(name), *words])


def detail_of(problem: str) -> str:
    """What a problem (RFC 9457) says."""
    try:
        return str(json.loads(problem)["detail"])
    except (ValueError, KeyError, TypeError):
        return problem


async def _output(command: list[str]) -> str:
    """What it printed. DemoFailed, with its own words."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True
    )
    said, complaint = await process.communicate()
    if process.returncode:
        raise DemoFailed(f"{' '.join(command[-4:])}: {complaint.decode('utf-8', 'replace').strip()}")
    return said.decode()
