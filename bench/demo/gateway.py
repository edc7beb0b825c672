"""The gateway of a run: its files, its process, and what its admin side says.

Owns: a temporary copy of configs/demo.toml and its mandate, in which ports may differ and state has its own place.
Invariant: nothing is added to the copy that names an address of the run.
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
from pathlib import Path
from typing import Any

import aiohttp

from bench.demo.children import Child, Nursery
from bench.demo.figures import Figures, Sample
from bench.demo.report import AreaLimit
from scrubber.units import parse_limit

CONFIGS = Path(__file__).parents[2] / "configs"
LISTEN, ORIGIN = 8088, 8001
READY_S = 15.0
POLL_S = 0.5
METRIC = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'(?:verdict|reason)="(\w+)"')
DROP_REASONS = ("blocked", "cap_client", "cap_total", "rule")


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


def write_files(home: Path, listen: int, origin: int) -> Path:
    """Copy the demo's files into `home`, with these ports; returns the gateway file."""
    shutil.copy(CONFIGS / "demo-mandate.toml", home)
    text = (CONFIGS / "demo.toml").read_text(encoding="utf-8")
    for written, wanted in ((LISTEN, listen), (ORIGIN, origin)):
        text = text.replace(f"127.0.0.1:{written}", f"127.0.0.1:{wanted}")
    file = home / "demo.toml"
    file.write_text(f'state_dir = "state"\n{text}', encoding="utf-8")
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

    async def verdict(self) -> dict[str, Any]:
        """What the gateway itself says of people, at the end; nothing where it does not answer."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            return dict(json.loads(await self.ask("/v1/status"))["people"])
        return {}

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
    )


async def start(nursery: Nursery, home: Path, listen: int, origin: int) -> Watch:
    """Run the gateway. DemoFailed where it does not come up, with its own words."""
    file = write_files(home, listen, origin)
    script = Path(sys.executable).with_name("scrubber")
    command = [str(script)] if script.exists() else [sys.executable, "-m", "scrubber"]
    child = nursery.add(await Child.start("gateway", [*command, "run", str(file)], lambda _: None))
    state = home / "state"
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
