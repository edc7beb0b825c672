"""The demo's processes for real, without the gateway: people at the origin, and children that end when told or left."""
from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.demo import plan as plans
from bench.demo.__main__ import Run
from bench.demo.children import Child, Nursery
from bench.demo.gateway import DemoFailed, port_or_free
from bench.demo.site import build, expectations

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def alive(pid: int) -> bool:
    """The process exists and is no zombie."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_people_and_origin_agree_on_every_request() -> None:
    plan = plans.draw(5, 12, calm_s=4, flood_s=1, after_s=0)
    run = Run(plan, Console(), protected=False)
    port = port_or_free(0)
    async with Nursery() as nursery:
        await run.start_origin(nursery, port)
        run.t0_s = int(time.monotonic()) + 1
        spec = plan.people_spec(run.t0_s * 10**9, port, expectations(build()))
        people = nursery.add(await Child.module("bench.load.people", run.figures.hear_people, spec))
        assert await people.done(30)
        assert people.process.returncode == 0
    assert run.figures.asked > 50
    assert not run.figures.failures
    by_client = {client for _, client, _ in run.figures.origin_rows}
    assert by_client == set(plan.people), "each person has an address of their own"
    assert sum(served for *_, served in run.figures.origin_rows) == run.figures.asked


async def test_a_stubborn_child_is_stopped_and_nobody_else() -> None:
    said: list[Any] = []
    bystander = await Child.start("other", [sys.executable, "-c", "import time; time.sleep(30)"], said.append)
    async with Nursery() as nursery:
        child = nursery.add(await Child.start("gateway", [sys.executable, "-c", STUBBORN], said.append))
        for _ in range(500):
            if "up" in child.last_words:
                break
            await asyncio.sleep(0.02)
        pid = child.process.pid
    assert not alive(pid)
    assert child.process.returncode == -signal.SIGKILL
    assert not child.failed, "it was told to stop"
    assert alive(bystander.process.pid)
    bystander.process.kill()
    await bystander.process.wait()


async def test_a_child_that_fails_is_noticed_with_its_last_words() -> None:
    async with Nursery() as nursery:
        child = nursery.add(await Child.start("x", [sys.executable, "-c", "raise SystemExit('no such thing')"], print))
        assert await child.done(10)
        assert nursery.failure() is child
        assert "no such thing" in child.last_words


async def test_an_origin_whose_port_is_taken_says_so() -> None:
    run = Run(plans.draw(5, 3), Console(), protected=False)
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    async with Nursery() as nursery:
        with pytest.raises(DemoFailed, match="address already in use"):
            await run.start_origin(nursery, server.sockets[0].getsockname()[1])
    server.close()


async def test_children_end_when_the_demo_is_killed(tmp_path: Path) -> None:
    """SIGKILL leaves no time to tidy up: stdin closes and the kernel sends SIGTERM."""
    code = (
        "import asyncio, sys\n"
        "from bench.demo.children import Child\n"
        "async def main():\n"
        "    origin = await Child.module('bench.demo.origin', print, {'port': 0})\n"
        "    sleeper = await Child.start('gateway', [sys.executable, '-c', 'import time; time.sleep(60)'], print)\n"
        "    print(origin.process.pid, sleeper.process.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    demo = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert demo.stdout is not None
    pids = [int(word) for word in (await demo.stdout.readline()).split()]
    assert all(alive(pid) for pid in pids)
    os.kill(demo.pid, signal.SIGKILL)
    await demo.wait()
    for _ in range(100):
        if not any(alive(pid) for pid in pids):
            break
        await asyncio.sleep(0.1)
    assert not any(alive(pid) for pid in pids)
