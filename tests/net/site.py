"""A gateway with its enforcer in one namespace, people and attackers in another, at the end of one wire.

Owns its gateway file, its origin, and who is asked what. The `site` fixture ends all of it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import GatewayFactory
from tests.e2e.support import Gateway, mandate_text, until
from tests.net.space import Space, wire

HERE, HERE6 = "198.18.0.1", "fd18::1"
PERSON, ATTACKER, OTHER = "198.18.0.2", "198.18.1.1", "198.18.1.2"
ATTACKER6 = "fd18:0:0:1::1"
FLOOD = """
[[rule]]
name = "flood"
per = "client"
limit = "20/s burst 20"
then = ["throttle 100ms", "block 10m"]
"""


@dataclass
class Site:
    """A gateway that listens on both families of its namespace, and who is at the other end of the wire."""

    here: Space
    there: Space
    running: Gateway

    @property
    def port(self) -> int:
        return self.running.ports[0]

    def get(self, source: str = PERSON, timeout_s: float = 5.0) -> int:
        """The status of a request from that address; TimeoutError: nothing came back."""
        v6 = ":" in source
        with self.there.inside():
            sock = socket.create_connection((HERE6 if v6 else HERE, self.port), timeout_s, (source, 0))
        with sock:
            sock.sendall(b"GET /bytes/5 HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n")
            return int(sock.recv(4096).split()[1])

    def shut_out(self, source: str) -> bool:
        """Whether a connection from there is not even refused."""
        try:
            self.get(source, 0.3)
        except TimeoutError:
            return True
        except OSError:
            return False
        return False

    def kept_out(self, source: str) -> bool:
        """Whether it is shut out, or refused by the gateway as it is between two drops."""
        try:
            self.get(source, 0.3)
        except OSError:
            return True
        return False

    def enforcer(self) -> dict[str, Any]:
        return self.running.status()["enforcer"]  # type: ignore[no-any-return]

    def in_force(self, count: int) -> bool:
        return sum(self.enforcer()["in_force"].values()) == count

    def table(self) -> str:
        return self.here.run("nft", "list", "ruleset")

    def pid(self, role: str, slot: int = -1) -> int:
        return int(self.running.child(role, slot)["pid"])

    def unblock(self, source: str) -> None:
        assert self.running.admin("DELETE", f"/v1/blocks?source={source}")[0] == 200

    def block(self, source: str, ttl_s: float = 60) -> None:
        code, said = self.running.admin("POST", "/v1/blocks", {"source": source, "ttl_s": ttl_s, "reason": "a test"})
        assert code == 201, said


def flooded(found: Site, source: str, count: int = 1) -> bool:
    """One request more; whether the kernel has so many sources by now."""
    try:
        found.get(source, 0.3)
    except OSError:
        return found.in_force(count)
    return False


@pytest.fixture
def site(spaces: Callable[[str], Space], gateway: GatewayFactory, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Starts a gateway with `[enforcer]` (lines of it: `enforcer`). `become`: words before the program."""
    origins: list[subprocess.Popen[bytes]] = []

    def start(
        *,
        enforcer: str = "",
        rules: str = FLOOD,
        top: str = "",
        proportion: str = "",
        become: Sequence[str] = (),
        **how: Any,
    ) -> Site:
        here, there = spaces("gw"), spaces("out")
        wire(here, f"in {HERE}/15 {HERE6}/32", there, f"out {PERSON}/15 fd18::2/32")
        for address in (f"{ATTACKER}/15", f"{OTHER}/15", f"{ATTACKER6}/32"):
            there.ip("address", "add", address, "dev", "out", *(["nodad"] if ":" in address else []))
        origin = here.popen(
            sys.executable,
            "tests/e2e/origin.py",
            "origin",
            stdout=subprocess.PIPE,
            env={**os.environ, "ORIGIN_PORT": "0"},
        )
        origins.append(origin)
        assert origin.stdout is not None
        port = int(origin.stdout.readline())
        text = f"""
workers = 1
state_dir = "state"
mandates = ["mandate.toml"]
allow_unsigned = true
{top}
[enforcer]
{enforcer}
[[listener]]
address = "{HERE}:8080"
[[listener]]
address = "[{HERE6}]:8080"
[[area]]
name = "site"
default = true
origins = ["127.0.0.1:{port}"]
"""
        command = [*here.into(), *become]
        running = gateway(text=text, mandate=mandate_text(rules, proportion=proportion), command=command, **how)
        found = Site(here, there, running)
        until(lambda: found.enforcer()["here"])
        return found

    yield start
    for origin in origins:
        origin.terminate()
        origin.wait(10)
        assert origin.stdout is not None
        origin.stdout.close()
