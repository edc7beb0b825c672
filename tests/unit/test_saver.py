"""The saver over a disk that does not take what it is given."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scrubber import _native
from scrubber.config.log import Log
from scrubber.control.policy import compile_files
from scrubber.mandate.load import load_all
from scrubber.server import block_file, saver, secret
from scrubber.server.journal import Journal
from tests.unit.files import MINIMAL_GATEWAY, write
from tests.unit.regions import make_memory
from tests.unit.test_saved import HAND, LONG, S

LIMIT_BYTES = 2000


class Kept:
    """A saver of a state directory, and the table that it looks after."""

    def __init__(self, directory: Path) -> None:
        loaded = load_all(write(directory, MINIMAL_GATEWAY, m=LONG))
        policy, _ = compile_files(loaded.gateway, loaded.mandates, {}, 1)
        self.memory: _native.Memory = make_memory()[0]
        self.keys = secret.make(str(directory))
        self.directory = str(directory)
        logger = logging.getLogger("test")
        self.journal = Journal(self.memory, 1, Log(access=()), logger)
        self.saver = saver.Saver(self.memory, self.journal, self.directory, policy, logger)

    def put(self, number: int) -> None:
        assert self.memory.block_put("client", f"203.0.114.{number}", [0], 600 * S, 3600 * S, 50, HAND) == "new"

    def found(self) -> block_file.Found:
        return block_file.read(self.directory, self.keys.blocks)

    def acts(self) -> list[str]:
        return [act["event.action"] for act in self.journal.acts.last(10)]


@pytest.fixture
def limited() -> Iterator[None]:
    """Files of this process may grow again afterwards, whatever a test does."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_line_that_did_not_fit_is_made_up_for(
    tmp_path: Path, limited: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file ends in the middle of a line; what is sound of it counts until it is written whole again."""
    monkeypatch.setattr(saver, "RETRY_S", 0.05)
    monkeypatch.setattr(saver, "EVERY_S", 0.05)
    kept = Kept(tmp_path)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def scene() -> None:
        task = asyncio.create_task(kept.saver.run())
        kept.put(1)
        await until(lambda: len(kept.found().blocks) == 1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, hard))
        for number in range(2, 40):
            kept.put(number)
        await until(lambda: kept.saver.failures > 2)
        assert "too large" in kept.saver.error
        found = kept.found()
        assert found.unsound == 1
        assert 1 <= len(found.blocks) < 39
        assert kept.acts() == ["blocks_unsaved"], "once a minute"
        kept.memory.block_remove("client", "203.0.114.1")
        kept.saver.lifted("client", "203.0.114.1")
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await until(lambda: not kept.saver.error)
        task.cancel()
        await kept.saver.finish()

    asyncio.run(scene())
    found = kept.found()
    assert found.damage() == ""
    assert {block.source for block in found.blocks} == {f"203.0.114.{number}" for number in range(2, 40)}
    assert kept.acts() == ["blocks_unsaved", "blocks_saved"]


def test_dead_lines_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saver, "EVERY_S", 0.01)
    monkeypatch.setattr(saver, "DEAD_MAX", 10)
    kept = Kept(tmp_path)
    path = tmp_path / block_file.NAME

    async def scene() -> None:
        task = asyncio.create_task(kept.saver.run())
        kept.put(1)
        await until(path.exists)
        for _ in range(12):
            kept.saver.lifted("client", "203.0.114.9")
            lines = path.read_bytes().count(b"\n")
            await until(lambda lines=lines: path.read_bytes().count(b"\n") != lines)
        task.cancel()
        await kept.saver.finish()

    asyncio.run(scene())
    assert path.read_bytes().count(b"\n") < 12
    assert [block.source for block in kept.found().blocks] == ["203.0.114.1"]


def test_only_one_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saver, "EVERY_S", 0.05)
    former, successor = Kept(tmp_path), Kept(tmp_path)

    async def scene() -> None:
        tasks = [asyncio.create_task(former.saver.run())]
        former.put(1)
        await until(lambda: len(former.found().blocks) == 1)
        tasks.append(asyncio.create_task(successor.saver.run()))
        successor.put(2)
        await asyncio.sleep(0.3)
        assert [block.source for block in former.found().blocks] == ["203.0.114.1"]
        assert successor.saver.error == "", "it is patient"
        former.saver.let_go()
        former.put(3)
        await until(lambda: [block.source for block in former.found().blocks] == ["203.0.114.2"])
        for task in tasks:
            task.cancel()
        await former.saver.finish()
        await successor.saver.finish()

    asyncio.run(scene())
    assert [block.source for block in former.found().blocks] == ["203.0.114.2"]


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("did not happen in time")
