"""Syslog destinations before real sockets: whole messages in order, reconnecting, bounded, never a wait."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scrubber.config.log import Destination, Log, Target
from scrubber.server import syslog
from scrubber.server.outputs import Outputs, Piece
from scrubber.server.syslog import Syslog

LOGGER = logging.getLogger("test")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(10)
        yield sock


def flushed(sink: Syslog, until: Callable[[], bool]) -> None:
    """As the journal does: again and again."""
    end = time.monotonic() + 20
    while not until():
        sink.flush()
        assert time.monotonic() < end, (sink.waiting, sink.error)
        time.sleep(0.01)


def frames(data: bytes) -> list[bytes]:
    """RFC 6587 3.4.1."""
    found = []
    while data:
        length, _, rest = data.partition(b" ")
        found.append(rest[: int(length)])
        assert len(found[-1]) == int(length), "cut short"
        data = rest[int(length) :]
    return found


def received(sock: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(TimeoutError):
        while chunk := sock.recv(65536):
            data += chunk
    return data


def tcp(listener: socket.socket) -> Syslog:
    return Syslog(Target("syslog_tcp", "127.0.0.1", listener.getsockname()[1]), LOGGER)


def test_tcp_counts_octets(listener: socket.socket) -> None:
    sink = tcp(listener)
    messages = [b"one", "zw\u00f6lf".encode(), b"x" * 5000]
    sink.write(messages)
    theirs, _ = listener.accept()
    flushed(sink, lambda: sink.lines == 3)
    sink.close()
    assert frames(received(theirs)) == messages
    assert (sink.lines_lost, sink.error) == (0, "")
    theirs.close()


def test_tcp_comes_back_when_its_receiver_does() -> None:
    with socket.create_server(("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        sink = Syslog(Target("syslog_tcp", "127.0.0.1", port), LOGGER)
        sink.write([b"before"])
        theirs, _ = first.accept()
        flushed(sink, lambda: sink.lines == 1)
        theirs.close()
    flushed(sink, lambda: sink.error != "" or sink.waiting > 0 or sink._sock is None)
    sink.write([b"while it is away", b"and more"])
    assert sink.lines_lost == 0
    with socket.create_server(("127.0.0.1", port)) as again:
        again.settimeout(20)
        flushed(sink, lambda: sink.lines == 3)
        theirs, _ = again.accept()
        sink.close()
        assert frames(received(theirs)) == [b"while it is away", b"and more"]
        theirs.close()


def test_what_nobody_reads_is_bounded_counted_and_never_waited_for(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(syslog, "WAITING_BYTES_MAX", 100_000)
    sink = tcp(listener)
    message = b"m" * 1000
    theirs, _ = [sink.write([message]), listener.accept()][1]
    written = 1
    while sink.lines_lost < 500:
        sink.write([message] * 100)
        written += 100
        assert written < 100_000
    assert sink.waiting <= 100
    assert sink.lines + sink.waiting + sink.lines_lost == written
    assert len(caplog.records) == 1
    assert "too slow" in caplog.text
    theirs.settimeout(0.2)
    data = received(theirs)  # the receiver wakes up: what waited comes, whole
    flushed(sink, lambda: sink.waiting == 0)
    lost = sink.lines_lost
    sink.close()
    theirs.settimeout(5)
    assert len(frames(data + received(theirs))) == written - lost
    theirs.close()


def test_a_message_that_was_begun_is_sent_whole_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sink = Syslog(Target("syslog_tcp", "127.0.0.1", server.getsockname()[1]), LOGGER)
        big = b"b" * 4_000_000
        sink.write([big])
        theirs, _ = server.accept()
        flushed(sink, lambda: sink._sent > 0)
        theirs.close()
        flushed(sink, lambda: sink._sock is None)
        flushed(sink, lambda: sink._sock is not None)
        theirs, _ = server.accept()
        theirs.settimeout(0.05)
        data = b""
        while sink.waiting:
            sink.flush()
            data += received(theirs)
        theirs.settimeout(5)
        sink.close()
        assert frames(data + received(theirs)) == [big]
        assert sink.lines_lost == 0
        theirs.close()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_local_socket_of_either_kind(tmp_path: Path, kind: int) -> None:
    path = str(tmp_path / "log")
    sink = Syslog(Target("syslog_unix", path), LOGGER)
    sink.write([b"too early"])
    assert sink.error
    with socket.socket(socket.AF_UNIX, kind) as server:
        server.bind(path)
        server.settimeout(10)
        if kind == socket.SOCK_STREAM:
            server.listen()
        flushed(sink, lambda: sink.lines == 1)
        sink.write([b"second"])
        if kind == socket.SOCK_DGRAM:
            assert [server.recv(1000), server.recv(1000)] == [b"too early", b"second"]
        else:
            theirs, _ = server.accept()
            sink.close()
            assert received(theirs) == b"too early\nsecond\n"
            theirs.close()
    sink.close()
    assert (sink.lines, sink.lines_lost) == (2, 0)


def test_datagrams_that_are_too_long_are_lost_alone() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        sink = Syslog(Target("syslog_udp", "127.0.0.1", server.getsockname()[1]), LOGGER)
        sink.write([b"first", b"x" * 70_000, b"last"])
        assert [server.recv(100), server.recv(100)] == [b"first", b"last"]
        assert (sink.lines, sink.lines_lost) == (2, 1)
        sink.close()


def test_what_waits_at_the_end_is_lost_and_counted(tmp_path: Path) -> None:
    sink = Syslog(Target("syslog_unix", str(tmp_path / "none")), LOGGER)
    sink.write([b"a", b"b"])
    sink.close()
    assert (sink.lines, sink.lines_lost, sink.waiting) == (0, 2, 0)


# ── all destinations together ──


def test_outputs_give_each_what_it_takes_and_keep_counts_over_a_change(tmp_path: Path) -> None:
    json_file, text_file, acts_file = (tmp_path / name for name in ("a.log", "b.log", "c.log"))
    everything = Destination(Target("file", str(json_file)), "ecs")
    text = Destination(Target("file", str(text_file)), "{status} {client}")
    acts = Destination(Target("file", str(acts_file)), "ecs")
    outputs = Outputs(Log((everything, text), acts=(everything, acts)), LOGGER)
    line = b'{"client.ip":"192.0.2.1","http.response.status_code":204}'
    lines = Piece(line + b"\n", 1)
    outputs.write([lines, Piece(b'{"act":1}\n', 1, act=True), lines])
    assert json_file.read_bytes() == line + b'\n{"act":1}\n' + line + b"\n"
    assert text_file.read_bytes() == b"204 192.0.2.1\n" * 2
    assert acts_file.read_bytes() == b'{"act":1}\n'
    outputs.use(Log((everything,), acts=()))
    outputs.write([lines, Piece(b'{"act":2}\n', 1, act=True)])
    outputs.close()
    assert json_file.read_bytes().count(b"\n") == 4
    assert b'{"act":2}' not in json_file.read_bytes()
    assert (outputs.lines, outputs.lines_lost) == (7, 0)
    assert [each["to"] for each in outputs.describe()] == [str(json_file)]
