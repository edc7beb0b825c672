"""A gateway between raw clients and a recording origin: what the proxy tests stand on.

Owns: the files of that gateway, its processes and its origin; all end with the context. Invariant: a gateway that does
not end with 0, or in which something raised, fails the test that used it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.e2e.recorder import Recorder
from tests.e2e.support import GENEROUS, Gateway, mandate_text, trouble, until


class Proxy:
    """`with Proxy(…) as found`: area "site" for site.test before `found.origin`.

    The texts go where their names say: `gateway` (top level and its tables), `listener`, `area`, `limits` (of the
    area), `extra` (further tables at the end). `origins` (addresses, or inline tables) replaces the recording origin as
    where requests go;
    `proxy_out`: it expects the PROXY protocol, v1 or v2 (or who listens on `proxy_port`).
    """

    def __init__(
        self,
        *,
        rules: str = GENEROUS,
        proportion: str = "",
        workers: int = 1,
        gateway: str = "",
        address: str = "127.0.0.1:0",
        listener: str = "",
        area: str = "",
        limits: str = "",
        extra: str = "",
        default: bool = True,
        origins: Sequence[str] = (),
        origin_host: str = "127.0.0.1",
        areas: Sequence[str] = ("site",),
        proxy_out: str = "off",
        proxy_port: int = 0,
    ) -> None:
        self.origin = Recorder(origin_host)
        self.origin.proxied = proxy_out != "off"
        self.proxy_out = proxy_out
        self.directory = Path(tempfile.mkdtemp(prefix="px-"))
        self.mandate_areas = areas
        self.proportion = proportion
        self.workers = workers
        where = f"127.0.0.1:{proxy_port}" if proxy_port else self.origin.address
        named = f'{{ address = "{where}", proxy_protocol = "{proxy_out}" }}'
        others = ", ".join(
            each if each.startswith("{") else json.dumps(each) for each in origins or [self.origin.address]
        )
        text = f"""
workers = {workers}
state_dir = "state"
mandates = ["mandate.toml"]
allow_unsigned = true
{gateway}
[[listener]]
address = "{address}"
{listener}
[[area]]
name = "site"
hosts = ["site.test"]
default = {json.dumps(default)}
origins = {f"[{others}]" if proxy_out == "off" else named}
{area}
[area.limits]
{limits}
{extra}
"""
        program = [sys.executable, "-m", "scrubber", "run"]
        self.running = Gateway(self.directory, text, self.mandate(rules), program, {})

    def mandate(self, rules: str, serial: int = 1) -> str:
        return mandate_text(rules, areas=self.mandate_areas, proportion=self.proportion, serial=serial)

    def __enter__(self) -> Proxy:
        try:
            self.running.wait_ready()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        code, said = self.end()
        if kind is not None:
            print(said)
        assert kind is not None or code == 0, f"ended with {code}:\n{said}"
        assert kind is not None or not trouble(said), said

    def end(self) -> tuple[int, str]:
        """End everything; the exit code, and what the gateway said."""
        try:
            code = self.running.stop()
        finally:
            self.running.kill()
            self.origin.close()
            said = self.running.stdout + self.running.stderr
            shutil.rmtree(self.directory, ignore_errors=True)
        return code, said

    @property
    def port(self) -> int:
        return self.running.port

    def reload(self, rules: str) -> None:
        """Another mandate of the same id, in force in every worker when this returns."""
        generation = int(self.running.status()["generation"])
        (self.directory / "mandate.toml").write_text(self.mandate(rules, serial=generation + 1))
        done = self.running.cli("reload")
        assert done.returncode == 0, done.stdout + done.stderr

    def metric(self, name: str, **labels: str) -> float:
        return self.running.metric(name, **labels)

    def gauge(self, name: str) -> int:
        return int(self.metric(f"scrubber_{name}"))

    def whole(self) -> None:
        """Once clients are gone nothing stays: no connection, no request, nothing of any pool, no origin connection but
        open ones."""

        def settled() -> bool:
            return not self.gauge("connections") and not self.gauge("requests_in_flight")

        until(
            settled, 10, f"still {self.gauge('connections')} connections, {self.gauge('requests_in_flight')} requests"
        )
        # An origin's thread that sleeps sees the end of its connection a little later.
        until(lambda: self.origin.open == self.gauge("origin_connections"), 10, "origin connections that nobody counts")
        until(self.running.pools_whole, 10, "a pool that is not whole")

    @contextlib.contextmanager
    def held_up(self, for_s: float = 0.3) -> Iterator[None]:
        """The first worker gets no CPU meanwhile; not for so long that the keeper takes it for wedged."""
        pid = self.running.worker_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
            time.sleep(for_s)
        finally:
            os.kill(pid, signal.SIGCONT)

    def rss_bytes(self) -> int:
        """Memory of the workers' own, without what they share."""
        total = 0
        for slot in range(self.workers):
            status = Path(f"/proc/{self.running.worker_pid(slot)}/status").read_text()
            total += int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]
        return total

    def blocks(self) -> list[dict[str, object]]:
        code, body = self.running.admin("GET", "/v1/blocks")
        assert code == 200
        return list(body["blocks"])

    def lines(self, path: str, count: int = 1) -> list[dict[str, object]]:
        """The access records of a path, once there are that many."""

        def found() -> list[dict[str, object]]:
            return [line for line in self.running.log_lines() if line.get("url.path", "") == path]

        until(lambda: len(found()) >= count, 10, f"{count} access records of {path}")
        return found()


def paced(count: int, per_s: float) -> Iterator[int]:
    """Numbers at a steady rate."""
    began = time.monotonic()
    for i in range(count):
        time.sleep(max(0.0, began + i / per_s - time.monotonic()))
        yield i


@pytest.fixture(scope="session")
def proxy() -> type[Proxy]:
    """Makes gateways of a test's own: `with proxy(limits=…) as found:`."""
    return Proxy


@pytest.fixture(scope="module")
def site() -> Iterator[Proxy]:
    """A gateway with nothing special, shared by a module's tests."""
    with Proxy() as found:
        yield found
