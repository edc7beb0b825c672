"""The access log's file: whole lines, counted losses, rotation; never a wait."""

from __future__ import annotations

import logging
import os
import resource
from pathlib import Path

import pytest

from scrubber.server import access_log
from scrubber.server.access_log import AccessLog, check_writable

LOGGER = logging.getLogger("test")


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(b"before\n")
    log = AccessLog(str(path), LOGGER)
    log.write([b"one", b"two"])
    log.write([])
    log.write([b"three"])
    log.close()
    assert path.read_bytes() == b"before\none\ntwo\nthree\n"
    assert (log.lines, log.lines_lost, log.error) == (3, 0, "")


def test_a_moved_file_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "REOPEN_EVERY_S", 0.0)
    path = tmp_path / "access.log"
    log = AccessLog(str(path), LOGGER)
    log.write([b"one"])
    path.rename(tmp_path / "access.log.1")
    log.write([b"two"])
    path.unlink()
    log.write([b"three"])
    log.close()
    assert (tmp_path / "access.log.1").read_bytes() == b"one\n"
    assert path.read_bytes() == b"three\n"


def test_a_full_disk_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    log = AccessLog("/dev/full", LOGGER)
    for _ in range(5):
        log.write([b"a", b"b"])
    log.close()
    assert (log.lines, log.lines_lost) == (0, 10)
    assert "No space left" in log.error
    assert len(caplog.records) == 1


def test_a_line_cut_by_a_full_disk_is_ended_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(str(path), LOGGER)
    real, room = os.write, 13

    def nearly_full(fd: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(28, "No space left on device")
        sent = real(fd, bytes(data[:room]))
        room -= sent
        return sent

    monkeypatch.setattr(os, "write", nearly_full)
    log.write([b"line one", b"line two", b"line three"])
    assert (log.lines, log.lines_lost) == (1, 2)
    room = 1000
    log.write([b"line four"])
    log.close()
    assert path.read_bytes() == b"line one\nline\nline four\n"
    assert (log.lines, log.lines_lost, log.error) == (2, 2, "")


def test_no_such_directory_and_no_descriptors_are_losses(tmp_path: Path) -> None:
    log = AccessLog(str(tmp_path / "none" / "access.log"), LOGGER)
    log.write([b"a"])
    assert log.lines_lost == 1
    (tmp_path / "none").mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        log.write([b"b"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert log.lines_lost == 2
    log.write([b"c"])
    log.close()
    assert (tmp_path / "none" / "access.log").read_bytes() == b"c\n"


def test_a_pipe_that_nobody_reads_never_holds_us(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    log = AccessLog(str(path), LOGGER)
    log.write([b"nobody reads"])
    assert log.lines_lost == 1
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    for _ in range(100):
        log.write([b"x" * 4095])
    assert log.lines_lost > 1
    assert log.lines + log.lines_lost == 101
    os.close(reader)
    log.close()


def test_reopening_leaves_the_moved_file_and_makes_the_new_one_at_once(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(str(path), LOGGER)
    log.write([b"one"])
    path.rename(tmp_path / "access.log.1")
    log.reopen()
    assert path.read_bytes() == b""
    log.write([b"two"])
    log.close()
    assert (tmp_path / "access.log.1").read_bytes() == b"one\n"
    assert path.read_bytes() == b"two\n"


def test_reopening_where_nothing_can_be_opened_is_said(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    log = AccessLog(str(tmp_path / "dir" / "access.log"), LOGGER)
    log.write([b"one"])
    (tmp_path / "dir").rename(tmp_path / "moved")
    log.reopen()
    assert "No such file" in log.error
    log.write([b"two"])
    assert (log.lines, log.lines_lost) == (1, 1)


def test_what_cannot_be_written_is_known_before(tmp_path: Path) -> None:
    assert check_writable(str(tmp_path / "access.log")) is None
    assert check_writable("-") is None
    assert check_writable(str(tmp_path)) == "Is a directory"
    assert check_writable(str(tmp_path / "none" / "x")) == "No such file or directory"
