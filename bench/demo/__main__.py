"""`python -m bench.demo`: the whole demo, one command; exit 0 only where it has shown what it promises.

Owns: the order of things: origin, gateway, people, flood, report. Invariants: every process that it starts it stops, on
success, on error and on Ctrl-C; it ends within a minute.
"""
import asyncio
import contextlib
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

from bench.demo import gateway, plan, report, site, upstream
from bench.demo.children import Child, Nursery
from bench.demo.figures import Figures
from bench.demo.gateway import DemoFailed
from bench.demo.network import Network, NoNetwork, why_not
from bench.demo.screen import Screen, closing
from scrubber import __version__

LEAD_S = 2  # from the start of the load processes to their first request
OVERRUN_S = 8.0  # people's last requests may take their whole timeout
ENDS = (signal.SIGTERM, signal.SIGHUP)  # as Ctrl-C does: what was made is taken away


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

    def __init__(
        self, the_plan: plan.Plan, console: Console, *, protected: bool, network: Network | None = None
    ) -> None:
        """`network`: None: all of it is on loopback."""
        self.plan = the_plan
        self.console = console
        self.protected = protected
        self.network = network
        self.figures = Figures()
        self.screen = Screen(the_plan, self.figures, console)
        self.t0_s = 0

    def at_s(self) -> float:
        """Seconds since people may come."""
        return time.monotonic() - self.t0_s

    async def go(self, home: Path) -> None:
        """Start everything, watch it, stop everything."""
        if (task := asyncio.current_task()) is not None:
            for number in ENDS:
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        port, origin_port = self.ports()
        async with Nursery() as nursery:
            await self.start_origin(nursery, origin_port)
            watch: gateway.Watch | None = None
            line = upstream.Line(self.network) if self.network else None
            if self.protected:
                file = gateway.write_files(home, port, origin_port, enforced=line is not None)
                if line is not None:
                    await line.start(nursery, home, file)
                watch = await gateway.start(nursery, file, self.network.gateway.into if self.network else ())
            try:
                self.t0_s = int(time.monotonic()) + LEAD_S
                load = await self.start_load(nursery, port)
                await self.follow(nursery, load, watch, line)
                if watch is not None:
                    await watch.poll(self.figures, self.at_s())
                    await watch.last_words(self.figures)
            finally:
                if watch is not None:
                    await watch.close()

    def ports(self) -> tuple[int, int]:
        """Where the site is, and the origin; without a gateway they are one. In our own network all ports are free."""
        if self.network:
            return gateway.LISTEN, gateway.ORIGIN
        origin_port = gateway.port_or_free(gateway.ORIGIN)
        if not self.protected:
            return origin_port, origin_port
        port = gateway.port_or_free(gateway.LISTEN)
        for wanted, got in ((gateway.ORIGIN, origin_port), (gateway.LISTEN, port)):
            if wanted != got:
                self.console.print(f"port {wanted} is taken: using {got} instead", style="yellow")
        return port, origin_port

    async def start_origin(self, nursery: Nursery, port: int) -> None:
        """The origin, serving."""
        hear = lambda message: self.figures.hear_origin(message, self.t0_s)  # noqa: E731
        into = self.network.gateway.into if self.network else ()
        origin = nursery.add(await Child.module("bench.demo.origin", hear, {"port": port}, into=into))
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
        into = self.network.outside.into if self.network else ()
        people = self.plan.people_spec(t0_ns, port, site.expectations(site.build()))
        load = [nursery.add(await Child.module("bench.load.people", self.figures.hear_people, people, into=into))]
        for number, spec in enumerate(self.plan.flood_specs(t0_ns, port)):
            name = f"flood-{number}"

            def hear(message: dict[str, Any], name: str = name) -> None:
                self.figures.hear_attack(name, message)

            load.append(nursery.add(await Child.module("bench.load.flood", hear, spec, name, into)))
        return load

    async def follow(
        self, nursery: Nursery, load: list[Child], watch: gateway.Watch | None, line: upstream.Line | None
    ) -> None:
        """Show the run until all load processes are done."""
        polled_s = 0.0
        with self.screen:
            while any(child.process.returncode is None for child in load):
                at_s = self.at_s()
                if watch is not None and at_s - polled_s >= gateway.POLL_S:
                    polled_s = at_s
                    await self.look(watch, line, at_s)
                self.screen.show(at_s)
                failed = nursery.failure()
                if failed is not None:
                    raise DemoFailed(f"{failed.name} ended with {failed.process.returncode}: {failed.words()}")
                if at_s > self.plan.seconds + OVERRUN_S:
                    raise DemoFailed("the load did not end in time (is the machine busy with something else?)")
                await asyncio.sleep(0.25)
        for child in load:
            await child.done(2.0)

    async def look(self, watch: gateway.Watch, line: upstream.Line | None, at_s: float) -> None:
        """What the gateway says now, and what the line to the provider carries; the victim is given up at its time."""
        await watch.poll(self.figures, at_s)
        if line is not None:
            await line.look(self.figures, at_s)
            if at_s >= self.plan.give_up_s and self.figures.victim.asked_s is None:
                await line.give_up(watch, self.figures, at_s)


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


def own_network(stack: contextlib.ExitStack, refused: str) -> tuple[Network | None, str]:
    """Networks that end with the stack, or none and why."""
    try:
        return (None, refused) if refused else (stack.enter_context(Network()), "")
    except NoNetwork as error:
        return None, str(error)


@click.command()
@click.option("--seed", type=int, default=None, help="Draw addresses and plans from this number (default: a new one).")
@click.option("--unprotected", is_flag=True, help="The same people and flood, straight at the origin, for comparison.")
@click.option("--loopback", is_flag=True, help="As where nobody is root: without networks of its own.")
@click.option("--people", default=145, show_default=True, type=click.IntRange(1, 1000), help="How many people come.")
@click.option("--calm", default=10, show_default=True, type=click.IntRange(3, 20), help="Seconds before the flood.")
@click.option("--flood", default=27, show_default=True, type=click.IntRange(4, 30), help="Seconds of flood.")
def main(seed: int | None, *, unprotected: bool, loopback: bool, people: int, calm: int, flood: int) -> None:
    """People browse a small site behind the gateway; after ten seconds a flood begins. Writes demo-report.json and
    demo-chart.png here. Exit 0: people got through and the flood did not."""
    began = time.monotonic()
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    seed = secrets.randbelow(1 << 31) if seed is None else seed
    about: dict[str, Any] = {
        "protected": not unprotected, "machine": machine(), "versions": versions(), "started": time.time(),
    }
    for number in ENDS:
        signal.signal(number, signal.default_int_handler)
    try:
        with contextlib.ExitStack() as stack:
            network, about["left_out"] = own_network(stack, "asked for" if loopback or unprotected else why_not())
            if network is None and not unprotected:
                said = f"without kernel and upstream, all on loopback: {about['left_out']}"
                console.print(said, style="yellow", soft_wrap=True, highlight=False)
            place = plan.NETWORK if network else plan.LOOPBACK
            the_plan = plan.draw(seed, people, calm, flood, place=place)
            run = Run(the_plan, console, protected=not unprotected, network=network)
            home = stack.enter_context(tempfile.TemporaryDirectory(prefix="scrubber-demo-"))
            Path(home).chmod(0o755)  # where root runs this the gateway's processes are other users
            uvloop.run(run.go(Path(home)))
        about["durations"] = {"run_s": round(time.monotonic() - began, 2), "people_s": run.plan.seconds}
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
