"""The gateway of a run: its files, its process, and what its admin side says.

Owns: a temporary copy of configs/demo.toml and its mandate, in which ports may differ and state has its own place; in
networks of the run's own it listens there, and has an enforcer. Invariant: nothing is added to the copy that names an
address of people or attackers.
"""
import asyncio
import contextlib
import json
import re
import shutil
import socket
import sys
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from bench.demo.children import Child, Nursery
from bench.demo.figures import Figures, Sample
from bench.demo.network import GATEWAY_END, PROTECTED, SITE, UPSTREAM_END
from bench.demo.report import AreaLimit
from scrubber.units import parse_limit

CONFIGS = Path(__file__).parents[2] / "configs"
LISTEN, ORIGIN = 8088, 8001
READY_S = 15.0
POLL_S = 0.5
POST_S = 5.0
METRIC = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'(?:verdict|reason)="(\w+)"')
DROP_REASONS = ("blocked", "cap_client", "cap_total", "rule")
ASN, PROVIDER_ASN = 64512, 64513  # private ones, RFC 6996
ENFORCER = f"""
[enforcer]                       # blocks go down into the kernel
drop = ["nft"]
interfaces = ["north"]
protects = ["{PROTECTED}"]

[enforcer.upstream]              # and the provider can be asked to drop what goes to an address of ours
router_id = "{GATEWAY_END}"
asn = {ASN}

[[enforcer.upstream.neighbour]]
address = "{UPSTREAM_END}"
asn = {PROVIDER_ASN}
"""


class DemoFailed(Exception):
    """The demo cannot go on; the message says why and what to do."""


def port_or_free(wanted: int) -> int:
    """The wanted TCP port of 127.0.0.1, or any free one where somebody has it."""
    for port in (wanted, 0):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            return int(sock.getsockname()[1])
    raise DemoFailed("no TCP port is free on 127.0.0.1 (stop something that listens there)")


def write_files(home: Path, listen: int, origin: int, *, enforced: bool = False) -> Path:
    """Copy the demo's files into `home`, with these ports; returns the gateway file. `enforced`: for a network of the
    run's own, with an enforcer."""
    shutil.copy(CONFIGS / "demo-mandate.toml", home)
    text = (CONFIGS / "demo.toml").read_text(encoding="utf-8")
    here = SITE if enforced else "127.0.0.1"
    for written, wanted in ((LISTEN, f"{here}:{listen}"), (ORIGIN, f"127.0.0.1:{origin}")):
        text = text.replace(f"127.0.0.1:{written}", wanted)
    file = home / "demo.toml"
    file.write_text(f'state_dir = "state"\n{text}{ENFORCER if enforced else ""}', encoding="utf-8")
    return file


def area_limit() -> AreaLimit | None:
    """The limit of the demo's mandate on all requests of its area together."""
    tree = tomllib.loads((CONFIGS / "demo-mandate.toml").read_text(encoding="utf-8"))
    for rule in tree["rule"]:
        if rule.get("per") == "area" and "when" not in rule:
            limit = parse_limit(rule["limit"])
            return AreaLimit(limit.count * 1e9 / limit.period_ns, limit.burst)
    return None


class Watch:
    """Asks the gateway's admin side how it is."""

    def __init__(self, state: Path) -> None:
        self.acts_seen = 0
        token = (state / "admin.token").read_text(encoding="utf-8").strip()
        self.session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(state / "admin.sock")), headers={"Authorization": f"Bearer {token}"},
            timeout=aiohttp.ClientTimeout(total=1.0), raise_for_status=True,
        )

    async def ask(self, path: str) -> str:
        """What an admin path says."""
        async with self.session.get(f"http://scrubber{path}") as response:
            return await response.text()

    async def poll(self, figures: Figures, at_s: float) -> None:
        """Add a sample and new acts; a gateway that does not answer now is asked again later."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            figures.samples.append(sample_of(await self.ask("/metrics"), at_s))
            acts = json.loads(await self.ask(f"/v1/acts?since={self.acts_seen}"))["acts"]
            self.acts_seen = max([self.acts_seen, *(act["number"] for act in acts)])
            figures.acts.extend(acts)

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, str]:
        """The status and text of what an admin path answers."""
        patience = aiohttp.ClientTimeout(total=POST_S)
        url = f"http://scrubber{path}"
        async with self.session.post(url, json=body, raise_for_status=False, timeout=patience) as response:
            return response.status, await response.text()

    async def last_words(self, figures: Figures) -> None:
        """What the gateway itself says of people and of its enforcer, at the end; nothing where it does not answer."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            status = json.loads(await self.ask("/v1/status"))
            figures.gateway_says, figures.enforcer_says = status["people"], status.get("enforcer") or {}

    async def close(self) -> None:
        """Close the connection."""
        await self.session.close()


def sample_of(metrics: str, at_s: float) -> Sample:
    """What the screen shows of /metrics (OpenMetrics text)."""
    sums: Counter[str] = Counter()
    for line in metrics.splitlines():
        if found := METRIC.fullmatch(line):
            name, labels, value = found.groups()
            word = LABEL.search(labels or "")
            sums[f"{name} {word[1]}" if word else name] += int(float(value))
    return Sample(
        at_s,
        served=sums["scrubber_served_total"],
        throttled=sums["scrubber_verdicts_total throttle"],
        denied=sums["scrubber_verdicts_total deny"],
        dropped=sums["scrubber_verdicts_total drop"]
        + sum(sums[f"scrubber_connections_dropped_total {reason}"] for reason in DROP_REASONS),
        blocks=sums["scrubber_blocks"],
        shed=sums["scrubber_shed_total"],
        rush=bool(sums["scrubber_rush"]),
        in_force=sums["scrubber_kernel_drops"],
        kernel_packets=sums["scrubber_kernel_dropped_packets_total"],
    )


def scrubber_command() -> list[str]:
    """`scrubber`, of this interpreter."""
    script = Path(sys.executable).with_name("scrubber")
    return [str(script)] if script.exists() else [sys.executable, "-m", "scrubber"]


async def start(nursery: Nursery, file: Path, into: Sequence[str] = ()) -> Watch:
    """Run the gateway of that file. DemoFailed where it does not come up, with its own words."""
    command = [*into, *scrubber_command(), "run", str(file)]
    child = nursery.add(await Child.start("gateway", command, lambda _: None))
    state = file.parent / "state"
    for _ in range(int(READY_S / 0.1)):
        await asyncio.sleep(0.1)
        if child.process.returncode is not None:
            break
        with contextlib.suppress(OSError, aiohttp.ClientError, TimeoutError):
            watch = Watch(state)
            try:
                await watch.ask("/v1/status")
            except BaseException:
                await watch.close()
                raise
            return watch
    raise DemoFailed(f"the gateway did not start: {child.words()} (is the core built? make build)")
