"""From rings to files: what a journal takes up, in which order, and how it ends."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from scrubber import _native
from scrubber.config.log import Destination, Log, Target
from scrubber.control import acts
from scrubber.server import journal as journals
from scrubber.server.journal import Journal
from tests.unit.regions import make_memory

ACT = {"ns": 1, "event.action": "rung", "scrubber.areas": [0], "scrubber.source": "192.0.2.1"}
ACT |= {"scrubber.measure": "throttle", "rule.name": "m/r"}


def made(path: Path, memory: _native.Memory, slots: int) -> Journal:
    place = Destination(Target("file", str(path)), "ecs")
    return Journal(memory, slots, Log((place,), acts=(place,)), logging.getLogger("test"))


async def test_lines_and_acts_of_all_rings_and_our_own(tmp_path: Path) -> None:
    path, memories = tmp_path / "access.log", make_memory(slots=2)
    journal = made(path, memories[0], 2)
    for number in range(500):
        assert _native.probe_ring_write(memories[number % 2], 1, b'{"n":%d}\n' % number)
    assert _native.probe_ring_write(memories[1], 2, json.dumps(ACT).encode())
    journal.record(acts.made("reload", "by hand"))
    task = asyncio.create_task(journal.run())
    for _ in range(1000):
        if len(journal.acts.since(0)) == 2:
            break
        await asyncio.sleep(0.01)
    task.cancel()
    assert _native.probe_ring_write(memories[0], 1, b'{"last":1}\n')
    await journal.finish()
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["n"] for line in lines if line.get("n", 1) % 2 == 0] == list(range(0, 500, 2))
    assert [line["n"] for line in lines if line.get("n", 0) % 2 == 1] == list(range(1, 500, 2))
    assert [line["event.action"] for line in lines if "event.action" in line] == ["reload", "rung"]
    assert lines[-1] == {"last": 1}
    assert (journal.outputs.lines, journal.outputs.lines_lost) == (503, 0)


async def test_what_goes_wrong_in_its_thread_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = made(tmp_path / "access.log", make_memory()[0], 1)
    monkeypatch.setattr(journals.Outputs, "flush", lambda self: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(journal.run(), 10)


async def test_a_full_ring_is_taken_up_in_one_look(tmp_path: Path) -> None:
    path, (memory,) = tmp_path / "access.log", make_memory(rings=1 << 20)
    journal = made(path, memory, 1)
    written = 0
    while _native.probe_ring_write(memory, 1, b"x" * 999 + b"\n"):
        written += 1
    await journal.finish()
    assert path.read_bytes() == (b"x" * 999 + b"\n") * written
    assert written > 900
