"""The gateway and the origin as end-to-end tests see them: real programs, started and ended here.

Owns: how a gateway file for tests is made, how its processes are found, and that it ends cleanly.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SANITIZED = os.environ.get("SCRUBBER_BUILD") == "asan"
# What a sanitizer costs a rate that other builds reach.
SANITIZED_SLOW = 3.0 if SANITIZED else 1.0
# For tests of what starts gateways beside such programs, all with one environment.
PRELOADED = "other people's programs hang in a sanitizer that is loaded into them"
SLOW = 3.0 if os.environ.get("SCRUBBER_BUILD", "release") != "release" else 1.0  # sanitizers take their time

GENEROUS = """
[[rule]]
name = "generous"
per = "client"
limit = "100000/s burst 100000"
then = ["throttle"]
"""


def until(condition: Callable[[], Any], timeout_s: float = 10.0, what: str = "") -> Any:
    """The first true value of `condition`."""
    end = time.monotonic() + timeout_s * SLOW
    while not (value := condition()):
        assert time.monotonic() < end, f"did not happen in time: {what or condition}"
        time.sleep(0.02)
    return value


def free_port() -> int:
    """Free now, and none that the kernel gives away when asked for any."""
    while True:
        port = random.randrange(10_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port


def refused(port: int) -> bool:
    """Whether nobody listens on this port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


# Before the program: a gateway that root starts so changes no users, and the limits of its processes are ours to set.
ONE_USER = ("setpriv", "--bounding-set", "-setuid")
POOLS = ("clients", "exchanges", "origins", "buffers", "notes", "pipes", "tls", "sessions", "streams")
TROUBLE = re.compile(r"Traceback|AddressSanitizer|runtime error:|pools are not whole|ended by signal (?:4|6|7|8|11) ")


def trouble(said: str) -> list[str]:
    """Lines of a gateway's stderr that no test may bring about: exceptions, sanitizers' reports, objects that
    leaked, crashed processes."""
    return [line for line in said.splitlines() if TROUBLE.search(line)]


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def environment(**more: str) -> dict[str, str]:
    """Of the programs under test: this tree first, no colours, and the sanitizer that their core is built with."""
    found = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200", **more}
    if preload := os.environ.get("SCRUBBER_PRELOAD"):
        found["LD_PRELOAD"] = f"{preload} {more.get('LD_PRELOAD', '')}".strip()
    return found


def sanitizer() -> list[str]:
    """Words before a program that loads the core and gets another environment than `environment()`."""
    preload = os.environ.get("SCRUBBER_PRELOAD")
    return ["env", f"LD_PRELOAD={preload}"] if preload else []


def mandate_text(
    rules: str = GENEROUS,
    *,
    areas: Sequence[str] = ("site",),
    proportion: str = "",
    name: str = "test",
    serial: int = 1,
) -> str:
    """A mandate with all powers over these areas."""
    return f"""
[mandate]
id = "{name}"
serial = {serial}
authority = "the tests"
basis = "a test"
not_before = 2020-01-01T00:00:00Z
expires = 2099-01-01T00:00:00Z
on_expiry = "limits"
areas = {json.dumps(list(areas))}
powers = ["observe", "throttle", "challenge", "tarpit", "deny", "drop", "block", "blackhole"]

[proportion]
{proportion or 'clients_share_max = "50%"'}
{rules}
"""


def gateway_text(
    origin: int | str,
    *,
    workers: int = 2,
    state_dir: str = "state",
    top: str = "",
    listener: str = "",
    area: str = "",
    more: str = "",
    address: str = "127.0.0.1:0",
) -> str:
    """A gateway file: one listener on any free port, one area named "site". The texts go where their names say."""
    target = f"127.0.0.1:{origin}" if isinstance(origin, int) else origin
    return f"""
workers = {workers}
state_dir = "{state_dir}"
mandates = ["mandate.toml"]
allow_unsigned = true
{top}
[[listener]]
address = "{address}"
{listener}
[[area]]
name = "site"
default = true
origins = ["{target}"]
{area}
{more}
"""


class Origin:
    """tests/e2e/origin.py, running."""

    def __init__(self, name: str = "origin", port: int = 0) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/e2e/origin.py"), name],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "ORIGIN_PORT": str(port)},
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(15 * SLOW)
        assert self.process.stdout is not None
        self.process.stdout.close()


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=20 * SLOW)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def open_way(directory: Path) -> None:
    """Where root starts a gateway its processes are other users': they have to reach its files, which tests make."""
    if os.geteuid() == 0:
        directory.chmod(0o755)
        for each in directory.parents:
            if each.is_relative_to(tempfile.gettempdir()) and each != Path(tempfile.gettempdir()):
                each.chmod(each.stat().st_mode | 0o011)


class Gateway:
    """`scrubber run`, running. Its files are in `directory`: gateway.toml, mandate.toml, state/."""

    def __init__(
        self, directory: Path, text: str, mandate: str | None, program: Sequence[str], env: dict[str, str]
    ) -> None:
        self.directory = directory
        open_way(directory)
        self.file = directory / "gateway.toml"
        self.file.write_text(text)
        if mandate is not None:
            (directory / "mandate.toml").write_text(mandate)
        self.state = directory / "state"
        self.socket = self.state / "admin.sock"
        self.ports: list[int] = []
        with (directory / "stdout").open("wb") as stdout, (directory / "stderr").open("wb") as stderr:
            self.process = subprocess.Popen(
                [*program, str(self.file)],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=environment(**env),
                cwd=directory,
            )

    # ── life ──

    def wait_ready(self) -> None:
        """Until the ready line is out."""

        def ready() -> bool:
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.stderr}"
            return "ready: " in self.stdout and self.stdout.endswith("\n")

        until(ready, 30, "the ready line")
        line = next(line for line in self.stdout.splitlines() if line.startswith("ready: "))
        self.ports = [int(port) for port in re.findall(r"https?://\S+?:(\d+)(?=[,\s])", line)]

    def stop(self, timeout_s: float = 15.0) -> int:
        """SIGTERM, and the exit code. May be called again."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s * SLOW)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def stdout(self) -> str:
        return (self.directory / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.directory / "stderr").read_text()

    # ── traffic ──

    @property
    def port(self) -> int:
        return self.ports[0]

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def get(
        self, path: str = "/", *, method: str = "GET", source: str = "127.0.0.1", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """One request on a connection of its own, from a source address: status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20 * SLOW, source_address=(source, 0))
        try:
            connection.request(method, path, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    # ── the admin side ──

    def admin(
        self, method: str, path: str, body: object = None, *, token: str | None = None
    ) -> tuple[int, dict[str, Any]]:
        """One admin request: status and JSON (text answers as {"text": …})."""
        if token is None:
            token = (self.state / "admin.token").read_text().strip()
        connection = UnixConnection(str(self.socket))
        try:
            data = json.dumps(body) if body is not None else None
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            text = response.read().decode()
            kind = response.headers.get_content_type()
            return response.status, json.loads(text) if kind.endswith("json") else {"text": text}
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        code, body = self.admin("GET", "/v1/status")
        assert code == 200, body
        return body

    def metrics(self) -> str:
        code, body = self.admin("GET", "/metrics")
        assert code == 200
        return str(body["text"])

    def metric(self, name: str, _text: str = "", **labels: str) -> float:
        """The sum of a metric's samples with these labels, now or in that text."""
        total, found = 0.0, False
        for line in (_text or self.metrics()).splitlines():
            if not line.startswith(name):
                continue
            match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if match and match[1] == name and all(f'{k}="{v}"' in (match[2] or "") for k, v in labels.items()):
                total, found = total + float(match[3]), True
        assert found or labels, f"no metric {name}"
        return total

    def pools_whole(self) -> bool:
        """Every object of the workers' pools was given back, but for the origin connections that are kept open."""
        text = self.metrics()
        used = {pool: self.metric("scrubber_pool_used", text, pool=pool) for pool in POOLS}
        return used == {**dict.fromkeys(POOLS, 0), "origins": self.metric("scrubber_origin_connections", text)}

    def child(self, role: str, slot: int = -1) -> dict[str, Any]:
        """pid, restarts, beat of a child as the status has it."""
        return next(c for c in self.status()["children"] if (c["role"], c["slot"]) == (role, slot))

    def worker_pid(self, slot: int = 0) -> int:
        return int(self.child("worker", slot)["pid"])

    def cli(self, *args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """`scrubber ARGS` beside this gateway (commands that need it get --gateway)."""
        words = list(args)
        if words[0] not in ("run", "check", "--version"):
            words += ["--gateway", str(self.file)]
        return subprocess.run(
            [sys.executable, "-m", "scrubber", *words],
            capture_output=True,
            text=True,
            timeout=30 * SLOW,
            env=environment(**(env or {})),
            check=False,
        )

    def log_lines(self) -> list[dict[str, Any]]:
        """The access log so far, parsed: every line of it must be JSON."""
        path = self.state / "access.log"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
