"""What is written for ExaBGP, what is read from it, and the relay between: without ExaBGP itself (see tests/net)."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scrubber.enforce.exabgp import LOOK_UP_NS, ExaBgp, sessions
from scrubber.enforce.exabgp_settings import RELAY, SILENCE_S, Neighbour, Settings, check, configuration, write_files
from scrubber.errors import OperatorError, ScrubberError, ValueRefused
from scrubber.units import NS_PER_S


def with_neighbour(directory: str = "/run/scrubber/bgp", **changed: Any) -> Settings:
    parts = {"address": "10.0.0.2", "local_address": "10.0.0.1", "peer_as": 64500, **changed}
    return Settings(directory=directory, local_as=64501, router_id="10.0.0.1", neighbours=(Neighbour(**parts),))


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": "10.0.0.2; passive true"},
        {"address": "fe80::1%eth0", "local_address": "fe80::2%eth0"},
        {"address": "10.0.0.0/8"},
        {"local_address": "::1"},
        {"peer_as": 0},
        {"peer_as": "64500; }"},
        {"hold_s": 1},
        {"password": 'a"; passive true'},
        {"password": "a\nb"},
        {"password": "a\\n"},
        {"password": "é"},
        {"password": "x" * 81},
    ],
)
def test_no_setting_says_more_than_it_is(wrong: dict[str, Any]) -> None:
    check(with_neighbour())
    with pytest.raises(ValueRefused):
        check(with_neighbour(**wrong))


def test_a_path_that_cannot_be_quoted_is_refused_and_others_are_one_word() -> None:
    with pytest.raises(OperatorError, match="told a path"):
        configuration(with_neighbour('/tmp/a"b'))
    assert '"/tmp/a b;{#/api.sock"' in configuration(with_neighbour("/tmp/a b;{#"))


def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name in ("open", "link"):
        with pytest.raises(ScrubberError, match="not this user's alone"):
            write_files(str(tmp_path / name), "", "")
    paths = write_files(str(tmp_path / "real"), "a", "b")
    assert [path.stat().st_mode & 0o777 for path in paths[:2]] == [0o600, 0o600]


def test_an_exabgp_that_cannot_start_is_tried_ever_more_rarely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scrubber.enforce.exabgp_life.sys.executable", "/nonexistent/python")
    exabgp = ExaBgp(with_neighbour(str(tmp_path / "bgp")))
    now_ns, pauses = NS_PER_S, []
    for _ in range(8):
        due_ns = exabgp.step(now_ns)
        assert exabgp.step(due_ns - 1) == due_ns
        pauses.append((due_ns - now_ns) // NS_PER_S)
        now_ns = due_ns
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert (exabgp.starts, exabgp.pid) == (8, 0)
    assert "could not be started" in exabgp.log[-1]
    exabgp.close()
    assert not list((tmp_path / "bgp").iterdir())


def test_sessions_are_read_from_the_table() -> None:
    table = """
Neighbor 10.0.0.2
   state                    ESTABLISHED
   ipv4 flow:                   enabled         enabled        disabled
   ipv6 flow:                   enabled        disabled        disabled
Neighbor 10.0.0.3
   state                         ACTIVE
   ipv4 flow:                   enabled             n/a             n/a
Neighbor 2001:db8::2
   state                    ESTABLISHED
   ipv6 flow:                   enabled         enabled        disabled
""".splitlines()
    assert sessions(table) == {"10.0.0.2": {"ipv4"}, "2001:db8::2": {"ipv6"}}
    assert sessions([]) == {}


class Relayed:
    """The relay as ExaBGP starts it; this test is ExaBGP, and who commands."""

    def __init__(self, place: Path, *parent: str, silence_s: float = 60) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(place / "s"))
        self.listener.listen(1)
        argv = [*parent, sys.executable, "-I", "-S", str(RELAY), str(place / "s"), str(silence_s)]
        self.relay = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.listener.settimeout(10)
        self.link, _ = self.listener.accept()

    def said(self) -> bytes:
        """What ExaBGP reads next."""
        assert self.relay.stdout is not None
        assert select.select([self.relay.stdout], [], [], 10)[0], "the relay says nothing"
        return os.read(self.relay.stdout.fileno(), 65536)

    def close(self) -> None:
        self.link.close()
        self.listener.close()
        for pipe in (self.relay.stdin, self.relay.stdout):
            assert pipe is not None
            pipe.close()
        self.relay.wait(10)


@pytest.fixture
def relayed(tmp_path: Path) -> Iterator[Relayed]:
    found = Relayed(tmp_path)
    yield found
    found.close()


def test_the_relay_passes_whole_lines_only(relayed: Relayed) -> None:
    """A rule cut short is another rule, and a wider one: 192.0.2.7/3"""
    relayed.link.sendall(b"first\nannounce flow route destination 192.0.2.7/3")
    assert relayed.said() == b"first\n"
    relayed.link.sendall(b"2\nagain")
    assert relayed.said() == b"announce flow route destination 192.0.2.7/32\n"
    assert relayed.relay.stdin is not None
    relayed.relay.stdin.write(b"done\n")
    assert relayed.link.recv(100) == b"done\n"
    relayed.link.close()
    assert relayed.said() == b"\nshutdown\n"
    assert relayed.relay.poll() is None, "ExaBGP has not ended yet"
    relayed.relay.stdin.close()
    assert relayed.relay.wait(10) == 0


def test_the_relay_ends_with_exabgp(relayed: Relayed) -> None:
    assert relayed.relay.stdin is not None
    relayed.relay.stdin.close()
    assert relayed.said() == b"", "nobody is told to shut down"
    assert relayed.relay.wait(10) == 0


def test_who_commands_and_falls_silent_is_taken_for_lost(tmp_path: Path) -> None:
    found = Relayed(tmp_path, silence_s=0.5)
    found.link.sendall(b"still here\n")
    assert found.said() == b"still here\n"
    assert found.said() == b"\nshutdown\n"
    found.close()


def test_an_exabgp_that_does_not_end_is_killed(tmp_path: Path) -> None:
    """The parent here ends by nothing but SIGKILL."""
    stubborn = "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    stubborn += "sys.exit(subprocess.run(sys.argv[1:]).returncode)"
    found = Relayed(tmp_path, sys.executable, "-c", stubborn)
    found.link.close()
    assert found.said() == b"\nshutdown\n"
    assert found.relay.wait(10) == -signal.SIGKILL
    found.close()


def test_questions_come_often_enough_for_the_relay() -> None:
    assert 3 * LOOK_UP_NS <= SILENCE_S * NS_PER_S
