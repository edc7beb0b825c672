"""Shared fixtures: the origin for clients, and the gateway before it. All of it is started and ended here."""

from __future__ import annotations

import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.certificates import authority, signed
from tests.e2e.proxy import Proxy
from tests.e2e.support import ROOT, SLOW, environment, free_port, open_way, until


class Program:
    """An origin of any kind: `words` start it. `first_line`: it prints its port."""

    def __init__(self, words: Sequence[str], *, port: int = 0, first_line: bool = False, **env: str) -> None:
        self.words = list(words)
        self.process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE if first_line else None,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment(**env),
        )
        self.port = port
        if first_line:
            assert self.process.stdout is not None
            line = self.process.stdout.readline()
            assert line, f"{words} ended with {self.process.wait()}"
            self.port = int(line)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(15 * SLOW)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


CACHE_MEMORY = '[memory]\ncache = "16MiB"\n'


def cache_example() -> str:
    """`[area.cache]` of configs/cache.toml, but for the field that tells what the cache did."""
    _, _, text = (ROOT / "configs" / "cache.toml").read_text().partition("[area.cache]\n")
    assert "enabled = true" in text
    return "[area.cache]\n" + text.replace("cache_status = true", "")


def settled(found: Proxy) -> None:
    """Nothing stays behind once clients are gone."""

    def holds() -> bool:
        return not found.gauge("connections") and not found.gauge("requests_in_flight")

    until(holds, 15, "connections or requests that stay")


@pytest.fixture(scope="session")
def shaped() -> Iterator[Program]:
    """The origin for tests of clients."""
    running = Program([sys.executable, "-m", "tests.interop.apps.with_aiohttp"], first_line=True)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def front(shaped: Program) -> Iterator[Proxy]:
    """Two workers before it, a mandate with generous limits in force."""
    with Proxy(workers=2, origins=[f"127.0.0.1:{shaped.port}"]) as found:
        yield found
        settled(found)


@dataclass
class Secure:
    """A gateway that speaks TLS, HTTP/2 both there and in clear text."""

    front: Proxy
    authority: Path  # a file, for programs that want one

    @property
    def port(self) -> int:
        return self.front.port

    @property
    def clear(self) -> int:
        """The port in clear text."""
        return self.front.running.ports[1]

    def context(self, *protocols: str) -> ssl.SSLContext:
        """A client's, that believes the tests' authority."""
        found = ssl.create_default_context(cafile=str(self.authority))
        found.set_alpn_protocols(list(protocols))
        return found

    def lines(self, path: str, count: int = 1) -> list[dict[str, Any]]:
        return self.front.lines(path, count)


@pytest.fixture(scope="session")
def secure(shaped: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """Two workers before the origin for clients; what asks moved.test in clear text is sent to TLS. One for all files:
    a start takes a second of a CPU."""
    home = tmp_path_factory.mktemp("secure")
    signed("site.test", "moved.test", "127.0.0.1").write(home, "site")
    (home / "authority.pem").write_bytes(authority().pem)
    open_way(home)
    said = f'certificates = {{ chain = "{home}/site.pem", key = "{home}/site.key" }}'
    port = free_port()
    extra = f"""
[area.tls]
{said}
[[area]]
name = "moved"
hosts = ["moved.test"]
origins = ["127.0.0.1:{shaped.port}"]
[area.tls]
{said}
redirect = ":{port}"
[[listener]]
address = "127.0.0.1:0"
http2 = true
"""
    with Proxy(
        workers=2,
        address=f"127.0.0.1:{port}",
        listener="tls = true",
        gateway="[limits]\nconnections_client_max = 4096\nhandshakes_client_per_s = 100000\n",
        origins=[f"127.0.0.1:{shaped.port}"],
        extra=extra,
        areas=("site", "moved"),
    ) as front:
        yield Secure(front, home / "authority.pem")
        settled(front)
        until(front.running.pools_whole, 10, "pools that are not whole")
