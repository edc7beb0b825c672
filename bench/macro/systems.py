"""The three systems and the origin as processes: started from a scenario's configuration, pinned, ended.

Owns: the scratch directory of a run and every process started in it. Invariants: everything listens on 127.0.0.1 and on
a port that was free; a system is ready when it answers a connection; what was started is ended, by its pid.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scrubber.cli.dev_cert import self_signed

ROOT = Path(__file__).resolve().parents[2]
PATH = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
READY_S = 20.0
SETTLE_S = 0.3  # what a start leaves behind is not measured
CLEAN = Path(__file__).parent / "clean"
FILES = ("scrubber.toml", "mandate.toml", "nginx.conf", "haproxy.cfg")
# What files may name: workers (processes, threads), connections of clients, what stands before HAProxy's `option
# splice-auto`, its limit on descriptors. KEY, "ecdsa" or "rsa": a certificate with such a key is made beside them.
DEFAULTS: dict[str, object] = {
    "WORKERS": 1,
    "CONNECTIONS": 8192,
    "NGINX_CONNECTIONS": 8192,
    "SPLICE": "no ",
    "HAPROXY_FILES": "",
    "KEY": "",
}
SYSTEMS = ("scrubber", "nginx", "haproxy")
WAYS = ("none", "proxy", "route", "nft", "xdp-generic", "xdp-native")  # in which Scrubber is rid of packets, or is not


class BenchError(Exception):
    """The bench cannot go on; the hint says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)


def program(name: str, package: str = "") -> str:
    """The path of an installed program; `package`: what it comes with, where that has another name."""
    found = shutil.which(name, path=PATH)
    if found is None:
        raise BenchError(f"{name} is not installed", f"apt-get install {package or name}")
    return found


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def fill(template: str, values: Mapping[str, object]) -> str:
    """The template with each @NAME@ replaced. KeyError for one that has no value."""
    return re.sub(r"@([A-Z_]+)@", lambda match: str(values[match[1]]), template)


@dataclass(slots=True)
class Running:
    """A system under measurement."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    directory: Path
    command: Callable[..., None]  # `scrubber …` beside it; nothing for the others


def listens(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) == 0


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path, word: bytes) -> None:
    """Until it listens and has said the word. BenchError, with what it said, where it ends first or takes too long."""
    end = time.monotonic() + READY_S
    while not listens(port) or word not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > end:
            said = log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise BenchError(f"{process.args!r} is not ready: {said or 'it says nothing'}")
        time.sleep(0.02)


@contextlib.contextmanager
def started(
    argv: list[str], port: int, pinned: Sequence[int], directory: Path, word: bytes = b""
) -> Iterator[subprocess.Popen[bytes]]:
    """A process, pinned to these cores, that listens (and has said the word); ended afterwards."""
    log = directory / "said"
    environment = {**os.environ, "PATH": PATH, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    with log.open("wb") as said:
        process = subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, pinned)), *argv],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            cwd=directory,
            env=environment,
        )
    try:
        wait_for(port, process, log, word)
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Sink:
    """Takes the log lines that HAProxy forwards from its ring, as a log collector beside it would."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.bytes_taken = 0
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                threading.Thread(target=self.take, args=(sock,), daemon=True).start()

    def take(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while piece := sock.recv(1 << 18):
                self.bytes_taken += len(piece)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def argv_of(name: str, directory: Path) -> list[str]:
    """How each system is started in the foreground, from its file in the directory."""
    if name == "scrubber":
        return [sys.executable, "-m", "scrubber", "run", str(directory / "scrubber.toml")]
    if name == "nginx":
        return [
            program("nginx"),
            "-p",
            str(directory),
            "-c",
            str(directory / "nginx.conf"),
            "-e",
            str(directory / "error.log"),
        ]
    if name == "haproxy":
        return [program("haproxy"), "-W", "-db", "-f", str(directory / "haproxy.cfg")]
    raise BenchError(f"no system {name!r}", f"one of {', '.join(SYSTEMS)}")


@functools.cache
def certificate(key: str) -> tuple[bytes, bytes]:
    """Certificate and key in PEM, the same ones for all systems and rounds."""
    return self_signed(("site.test",), rsa={"ecdsa": False, "rsa": True}[key])


def certify(directory: Path, key: str) -> None:
    """site.pem, site.key and, as HAProxy wants it, both in one."""
    chain, secret = certificate(key)
    for name, content in (("site.pem", chain), ("site.key", secret), ("site.both", chain + secret)):
        (directory / name).write_bytes(content)  # Scrubber's supervisor is another user: who may look here may read it


def files_of(configs: Path) -> list[Path]:
    """The configuration files of a scenario."""
    return [path if (path := configs / name).exists() else CLEAN / name for name in FILES]


@contextlib.contextmanager
def system(
    name: str, configs: Path, scratch: Path, pinned: Sequence[int], more: Mapping[str, object]
) -> Iterator[Running]:
    """One system with a scenario's configuration, on these cores; files that its folder lacks are those of `clean`.
    `more`: what they name besides PORT, DIR and LOG_PORT, and what is to differ from DEFAULTS."""
    directory = scratch / f"{name}-{time.monotonic_ns()}"
    directory.mkdir()
    port, sink = free_port(), Sink()
    values = {"PORT": port, "DIR": directory, "LOG_PORT": sink.port, **DEFAULTS, **more}
    for source in files_of(configs):
        (directory / source.name).write_text(fill(source.read_text(encoding="utf-8"), values), encoding="utf-8")
    if values["KEY"]:
        certify(directory, str(values["KEY"]))

    def command(*words: str) -> None:
        if name != "scrubber":
            return
        argv = [sys.executable, "-m", "scrubber", *words, "--gateway", str(directory / "scrubber.toml")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, env=environment)
        if done.returncode:
            raise BenchError(f"scrubber {' '.join(words)}: {done.stdout}{done.stderr}")

    try:
        # Scrubber's listener is open before its workers are up: it says when they are.
        word = b"ready: " if name == "scrubber" else b""
        with started(argv_of(name, directory), port, pinned, directory, word) as process:
            time.sleep(SETTLE_S)
            yield Running(name, port, process, directory, command)
    finally:
        sink.close()
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def origin(scratch: Path, core: int, page_bytes: int = 0) -> Iterator[int]:
    """The light native origin (bench.macro.origin), with a page of about 1 KB or so many bytes. Yields its port."""
    directory = scratch / f"origin-{time.monotonic_ns()}"
    directory.mkdir()
    port = free_port()
    argv = [sys.executable, "-m", "bench.macro.origin", str(port), *([str(page_bytes)] if page_bytes else [])]
    with started(argv, port, (core,), directory):
        yield port


def version(name: str) -> str:
    """What a program, or a package, says of its version, in one line; a way is Scrubber's."""
    name = "scrubber" if name in WAYS else name
    if name not in SYSTEMS:
        return f"{name} {importlib.metadata.version(name)}"
    argv = [sys.executable, "-m", "scrubber", "--version"] if name == "scrubber" else [program(name), "-v"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, env=environment)
    return (done.stdout + done.stderr).strip().splitlines()[0]
