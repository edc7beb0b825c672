"""The admin socket's name: always somebody's who listens, of mode 0600, and nobody else's file lost to it."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import threading
from pathlib import Path
from typing import cast

import pytest

from scrubber.admin.app import Served, serve
from scrubber.config.network import UNIX_PATH_BYTES_MAX

NOBODY = cast("Served", object())  # nothing is asked of it
TURNS = 50


class Knocker(threading.Thread):
    """Connects again and again, and keeps what was not a connection."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.knocks = 0
        self.refused: list[OSError] = []
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            with socket.socket(socket.AF_UNIX) as sock:
                self.knocks += 1
                try:
                    sock.connect(str(self.path))
                except OSError as error:
                    self.refused.append(error)


def test_a_successor_takes_the_name_without_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    knocker = Knocker(path)

    async def turns() -> None:
        close = await serve(NOBODY, "token", str(path))
        knocker.start()
        for _ in range(TURNS):
            successor = await serve(NOBODY, "token", str(path))
            await close()
            close = successor
            await asyncio.sleep(0.002)
        knocker.over.set()
        await asyncio.to_thread(knocker.join)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert os.listdir(tmp_path) == ["admin.sock"]
        await close()

    try:
        asyncio.run(turns())
    finally:
        knocker.over.set()
    assert knocker.knocks > TURNS
    assert knocker.refused == []
    assert os.listdir(tmp_path) == []


def test_the_longest_name_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "a" * UNIX_PATH_BYTES_MAX

    async def once() -> None:
        close = await serve(NOBODY, "token", name)
        assert os.listdir(tmp_path) == [name]
        await close()

    asyncio.run(once())


@pytest.mark.parametrize("name", ["admin.sock", "admin.sock~"])
def test_another_kind_of_file_stays(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a file of somebody's")
    with pytest.raises(FileExistsError, match="a file that is no socket"):
        asyncio.run(serve(NOBODY, "token", str(tmp_path / "admin.sock")))
    assert (tmp_path / name).read_text() == "a file of somebody's"


def test_what_a_killed_one_left_is_replaced(tmp_path: Path) -> None:
    for name in ("admin.sock", "admin.sock~"):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(tmp_path / name))

    async def once() -> None:
        close = await serve(NOBODY, "token", str(tmp_path / "admin.sock"))
        assert os.listdir(tmp_path) == ["admin.sock"]
        await close()

    asyncio.run(once())
