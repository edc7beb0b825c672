"""`python -m bench.demo`: the whole demo, one command; exit 0 only where it has shown what it promises.

Owns: the order of things: origin, gateway, people, flood, report. Invariants: every process that it starts it stops, on
success, on error and on Ctrl-C; it ends within a minute.
"""
import asyncio
import json
import os
import platform
import secrets
import signal
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
import uvloop
from rich.console import Console

from bench.demo import gateway, plan, report, site
from bench.demo.children import Child, Nursery
from bench.demo.figures import Figures
from bench.demo.gateway import DemoFailed
from bench.demo.screen import Screen, closing
from scrubber import __version__

LEAD_S = 2  # from the start of the load processes to their first request
OVERRUN_S = 8.0  # people's last requests may take their whole timeout


def machine() -> dict[str, Any]:
    """What this ran on."""
    model = ""
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model or platform.machine(), "cpus": len(os.sched_getaffinity(0)), "memory_bytes": memory,
        "kernel": platform.release(), "loadavg_before": list(os.getloadavg()),
    }


def versions() -> dict[str, str]:
    """What this ran with."""
    out = {"scrubber": __version__, "python": platform.python_version()}
    for name in ("uvloop", "aiohttp", "rich", "matplotlib"):
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "not installed"
    return out


class Run:
    """One demo."""

    def __init__(self, the_plan: plan.Plan, console: Console, *, protected: bool) -> None:
        self.plan = the_plan
        self.console = console
        self.protected = protected
        self.figures = Figures()
        self.screen = Screen(the_plan, self.figures, console)
        self.t0_s = 0

    def at_s(self) -> float:
        """Seconds since people may come."""
        return time.monotonic() - self.t0_s

    async def go(self, home: Path) -> None:
        """Start everything, watch it, stop everything."""
        if (task := asyncio.current_task()) is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        origin_port = gateway.port_or_free(gateway.ORIGIN)
        port = gateway.port_or_free(gateway.LISTEN) if self.protected else origin_port
        for wanted, got in ((gateway.ORIGIN, origin_port), (gateway.LISTEN, port)):
            if self.protected and wanted != got:
                self.console.print(f"port {wanted} is taken: using {got} instead", style="yellow")
        async with Nursery() as nursery:
            await self.start_origin(nursery, origin_port)
            watch: gateway.Watch | None = None
            if self.protected:
                watch = await gateway.start(nursery, home, port, origin_port)
            try:
                self.t0_s = int(time.monotonic()) + LEAD_S
                load = await self.start_load(nursery, port)
                await self.follow(nursery, load, watch)
                if watch is not None:
                    await watch.poll(self.figures, self.at_s())
                    self.figures.gateway_says = await watch.verdict()
            finally:
                if watch is not None:
                    await watch.close()

    async def start_origin(self, nursery: Nursery, port: int) -> None:
        """The origin, serving."""
        hear = lambda message: self.figures.hear_origin(message, self.t0_s)  # noqa: E731
        origin = nursery.add(await Child.module("bench.demo.origin", hear, {"port": port}))
        for _ in range(200):
            if self.figures.origin_ready:
                return
            if origin.failed:
                break
            await asyncio.sleep(0.05)
        raise DemoFailed(f"the origin did not start: {origin.words()}")

    async def start_load(self, nursery: Nursery, port: int) -> list[Child]:
        """People, and those who will attack."""
        t0_ns = self.t0_s * 1_000_000_000
        people = self.plan.people_spec(t0_ns, port, site.expectations(site.build()))
        load = [nursery.add(await Child.module("bench.load.people", self.figures.hear_people, people))]
        for number, spec in enumerate(self.plan.flood_specs(t0_ns, port)):
            name = f"flood-{number}"

            def hear(message: dict[str, Any], name: str = name) -> None:
                self.figures.hear_attack(name, message)

            load.append(nursery.add(await Child.module("bench.load.flood", hear, spec, name)))
        return load

    async def follow(self, nursery: Nursery, load: list[Child], watch: "gateway.Watch | None") -> None:
        """Show the run until all load processes are done."""
        polled_s = 0.0
        with self.screen:
            while any(child.process.returncode is None for child in load):
                at_s = self.at_s()
                if watch is not None and at_s - polled_s >= gateway.POLL_S:
                    polled_s = at_s
                    await watch.poll(self.figures, at_s)
                self.screen.show(at_s)
                failed = nursery.failure()
                if failed is not None:
                    raise DemoFailed(f"{failed.name} ended with {failed.process.returncode}: {failed.words()}")
                if at_s > self.plan.seconds + OVERRUN_S:
                    raise DemoFailed("the load did not end in time (is the machine busy with something else?)")
                await asyncio.sleep(0.25)
        for child in load:
            await child.done(2.0)


def write(run: Run, about: dict[str, Any], here: Path) -> dict[str, Any]:
    """demo-report.json and demo-chart.png."""
    result = report.build(run.plan, run.figures, gateway.area_limit() if run.protected else None, about)
    (here / "demo-report.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    try:
        from bench.demo import chart  # noqa: PLC0415  matplotlib takes a second: only now

        chart.draw(here / "demo-chart.png", run.plan, run.figures, result)
    except ImportError:
        run.console.print("no chart: matplotlib is not installed (make demo installs it)", style="yellow")
    return result


@click.command()
@click.option("--seed", type=int, default=None, help="Draw addresses and plans from this number (default: a new one).")
@click.option("--unprotected", is_flag=True, help="The same people and flood, straight at the origin, for comparison.")
@click.option("--people", default=145, show_default=True, type=click.IntRange(1, 1000), help="How many people come.")
@click.option("--calm", default=10, show_default=True, type=click.IntRange(3, 20), help="Seconds before the flood.")
@click.option("--flood", default=27, show_default=True, type=click.IntRange(4, 30), help="Seconds of flood.")
def main(seed: int | None, unprotected: bool, people: int, calm: int, flood: int) -> None:
    """People browse a small site behind the gateway; after ten seconds a flood begins. Writes demo-report.json and
    demo-chart.png here. Exit 0: people got through and the flood did not."""
    began = time.monotonic()
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    seed = secrets.randbelow(1 << 31) if seed is None else seed
    run = Run(plan.draw(seed, people, calm, flood), console, protected=not unprotected)
    about: dict[str, Any] = {
        "protected": not unprotected, "machine": machine(), "versions": versions(), "started": time.time(),
    }
    try:
        with tempfile.TemporaryDirectory(prefix="scrubber-demo-") as home:
            Path(home).chmod(0o755)  # where root runs this the gateway's processes are other users
            uvloop.run(run.go(Path(home)))
            run_s = time.monotonic() - began
            about["durations"] = {"run_s": round(run_s, 2), "people_s": run.plan.seconds}
            result = write(run, about, Path.cwd())
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("stopped; nothing runs any more", style="yellow")
        sys.exit(130)
    except (DemoFailed, OSError) as error:
        console.print(f"the demo failed: {error}", style="red", soft_wrap=True, highlight=False)
        sys.exit(1)
    closing(result, console)
    console.print(f"demo-report.json, demo-chart.png; {time.monotonic() - began:.0f} s", highlight=False)
    sys.exit(0 if result["passed"] else 1)


if __name__ == "__main__":
    main()
