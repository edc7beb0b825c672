"""Sockets that a service manager bound, and what it is told: sd_listen_fds(3) and sd_notify(3), spoken for real."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from scrubber.config.gateway import load_gateway
from scrubber.config.listener import listener_keys
from tests.e2e.conftest import GatewayFactory
from tests.e2e.support import ROOT, SLOW, Gateway, Origin, UnixConnection, alive, gateway_text, until
from tests.e2e.test_living_upgrade import Hammer, settled, upgraded

LAUNCHER = """
import os, sys
fds = [int(word) for word in sys.argv[1].split(",")]
for number, fd in enumerate(fds):  # first out of the way of those to come
    fds[number] = os.dup2(fd, 100 + number)
for number, fd in enumerate(fds):
    os.dup2(fd, 3 + number)  # inheritable
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
"""


def launcher(*sockets: socket.socket, names: str = "") -> list[str]:
    """Words before the program: a launcher that passes these sockets on as systemd does."""
    for each in sockets:
        each.set_inheritable(True)
    fds = ",".join(str(each.fileno()) for each in sockets)
    return [sys.executable, "-c", LAUNCHER, fds, names]


@pytest.fixture
def short() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="scr-") as found:
        yield Path(found)


@pytest.fixture
def inheriting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs started by the test inherit what is inheritable."""
    started = subprocess.Popen.__init__

    def start(self: subprocess.Popen[bytes], *words: object, **how: object) -> None:
        how.setdefault("close_fds", False)
        started(self, *words, **how)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess.Popen, "__init__", start)


def bound(*, reuse: bool) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(512)
    return sock


def listening_inodes(pid: int) -> set[str]:
    """The sockets that a process has open."""
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(fd.readlink()))
    return found


@pytest.mark.usefixtures("inheriting")
@pytest.mark.parametrize("reuse", [True, False])
def test_an_inherited_socket_serves_every_worker(gateway: GatewayFactory, origin: Origin, reuse: bool) -> None:
    with bound(reuse=reuse) as sock:
        port = sock.getsockname()[1]
        early = socket.create_connection(("127.0.0.1", port))  # before anybody was there to accept
        early.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        text = gateway_text(origin.port, address=f"127.0.0.1:{port}")
        running = gateway(text=text, command=launcher(sock, names="web"))
        assert running.port == port
        early.settimeout(20 * SLOW)
        assert early.recv(1000).startswith(b"HTTP/1.1 200")
        early.close()
        assert [running.get("/")[0] for _ in range(30)] == [200] * 30
        inode = f"socket:[{os.fstat(sock.fileno()).st_ino}]"
        having = [slot for slot in (0, 1) if inode in listening_inodes(running.worker_pid(slot))]
        assert having == ([0] if reuse else [0, 1])
        for slot in (0, 1):
            os.kill(running.worker_pid(slot), signal.SIGKILL)
        assert [running.get("/")[0] for _ in range(5)] == [200] * 5
        for child in running.status()["children"]:
            environment = Path(f"/proc/{child['pid']}/environ").read_text()
            assert "LISTEN_FDS" not in environment
        assert running.stop() == 0
        # the manager still has it: clients wait instead of being refused
        socket.create_connection(("127.0.0.1", port)).close()


class TestAnInheritedSocketStaysOurs:
    """The manager holds its place all the time: nobody could bind it anew when its listener comes back."""

    @pytest.mark.usefixtures("inheriting")
    @pytest.mark.parametrize("reuse", [True, False])
    def test_over_reloads(self, gateway: GatewayFactory, origin: Origin, reuse: bool, short: Path) -> None:
        with bound(reuse=reuse) as sock, listening_at(short / "http.sock") as local:
            more = listeners_of(sock, local)
            running = gateway(text=gateway_text(origin.port, more=more), command=launcher(sock, local))
            assert served(sock, local)
            inodes = {f"socket:[{os.fstat(each.fileno()).st_ino}]" for each in (sock, local)}
            reloaded(running, gateway_text(origin.port))
            workers = [running.worker_pid(slot) for slot in (0, 1)]
            until(lambda: all(inodes.isdisjoint(listening_inodes(pid)) for pid in workers), what="the workers let go")
            waiting = UnixConnection(local.getsockname())  # not refused, and served once somebody is there
            waiting.request("GET", "/")
            reloaded(running, gateway_text(origin.port, more=more))
            assert waiting.getresponse().status == 200
            waiting.close()
            assert served(sock, local)
            assert running.stop() == 0
            assert Path(local.getsockname()).exists()

    @pytest.mark.usefixtures("inheriting")
    @pytest.mark.parametrize("before", [True, False])
    @pytest.mark.parametrize("after", [True, False])
    def test_over_an_upgrade(
        self, gateway: GatewayFactory, origin: Origin, before: bool, after: bool, short: Path
    ) -> None:
        """With or without its listener before the upgrade, and after it."""
        with bound(reuse=True) as sock, listening_at(short / "http.sock") as local:
            without, whole = (gateway_text(origin.port, more=more) for more in ("", listeners_of(sock, local)))
            running = gateway(text=whole, command=launcher(sock, local))
            if not before:
                reloaded(running, without)
            running.file.write_text(whole if after else without)
            old = [child["pid"] for child in running.status()["children"]]
            upgraded(running)
            settled(running, old)
            if after:
                assert served(sock, local)
                reloaded(running, without)
            reloaded(running, whole)
            assert served(sock, local)


def listening_at(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


def listeners_of(sock: socket.socket, local: socket.socket) -> str:
    addresses = (f"127.0.0.1:{sock.getsockname()[1]}", f"unix:{local.getsockname()}")
    return "".join(f'[[listener]]\naddress = "{each}"\n' for each in addresses)


def served(sock: socket.socket, local: socket.socket) -> bool:
    found = []
    for connection in (
        http.client.HTTPConnection("127.0.0.1", sock.getsockname()[1], 20 * SLOW),
        UnixConnection(local.getsockname()),
    ):
        connection.request("GET", "/")
        found.append(connection.getresponse().status)
        connection.close()
    return found == [200, 200]


def reloaded(running: Gateway, text: str) -> None:
    running.file.write_text(text)
    done = running.cli("reload")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("inheriting")
def test_an_inherited_unix_socket_is_not_ours_to_remove(gateway: GatewayFactory, origin: Origin, short: Path) -> None:
    path = short / "http.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        text = gateway_text(origin.port, more=f'[[listener]]\naddress = "unix:{path}"\n')
        running = gateway(text=text, command=launcher(sock))
        connection = UnixConnection(str(path))
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
        old = [child["pid"] for child in running.status()["children"]]
        upgraded(running)
        settled(running, old)
        assert running.stop() == 0
        assert path.exists()


@pytest.mark.usefixtures("inheriting")
def test_a_socket_that_no_listener_has_is_refused_with_a_hint(gateway: GatewayFactory, origin: Origin) -> None:
    with bound(reuse=True) as sock, socket.socket() as deaf:
        port = sock.getsockname()[1]
        running = gateway(command=launcher(sock, names="web"), wait=False)
        assert running.process.wait(20 * SLOW) == 1
        assert f"the inherited socket web listens on 127.0.0.1:{port}, which no listener" in running.stderr
        assert f'add a [[listener]] with address = "127.0.0.1:{port}"' in running.stderr
        text = gateway_text(origin.port, address=f"127.0.0.1:{port}")
        running = gateway(text=text, command=launcher(sock, deaf, names="web:deaf"), wait=False)
        assert running.process.wait(20 * SLOW) == 1
        assert "the inherited socket deaf does not listen" in running.stderr


def test_sockets_for_another_process_are_left_alone(gateway: GatewayFactory) -> None:
    running = gateway(env={"LISTEN_PID": "1", "LISTEN_FDS": "3"})
    assert running.get("/")[0] == 200


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind("\0" + path[1:] if path.startswith("@") else path)
        self.said: list[str] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.sock.recv(4096):
                self.said += data.decode().splitlines()

    def heard(self, line: str, times: int = 1) -> None:
        until(lambda: self.said.count(line) >= times, 30, f"{line} among {self.said}")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        self._thread.join(5)


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, short: Path) -> Iterator[tuple[Manager, str]]:
    path = f"{short}/notify" if request.param == "path" else f"@{short.name}"
    found = Manager(path)
    yield found, path
    found.close()


def test_the_manager_hears_of_readiness_reloads_beats_and_the_end(
    gateway: GatewayFactory, manager: tuple[Manager, str]
) -> None:
    heard, path = manager
    running = gateway(env={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"})
    heard.heard("READY=1")
    assert any(line.startswith("STATUS=http://127.0.0.1:") for line in heard.said)
    heard.heard("WATCHDOG=1", 3)
    running.process.send_signal(signal.SIGHUP)
    heard.heard("RELOADING=1")
    heard.heard("READY=1", 2)
    assert any(line.startswith("MONOTONIC_USEC=") for line in heard.said)
    running.file.write_text("broken")
    assert running.admin("POST", "/v1/reload")[0] == 409
    heard.heard("READY=1", 3)
    for child in running.status()["children"]:
        environment = Path(f"/proc/{child['pid']}/environ").read_text()
        assert "NOTIFY_SOCKET" not in environment
        assert "WATCHDOG_USEC" not in environment
    assert running.stop() == 0
    heard.heard("STOPPING=1")


def test_an_upgrade_moves_the_main_process(gateway: GatewayFactory, short: Path) -> None:
    heard = Manager(f"{short}/notify")
    running = gateway(env={"NOTIFY_SOCKET": f"{short}/notify", "WATCHDOG_USEC": "400000"})
    heard.heard("READY=1")
    old = [child["pid"] for child in running.status()["children"]]
    with Hammer(running, 2, 1) as hammer:
        pid = upgraded(running)
        settled(running, old)
        hammer.more()
    assert hammer.bad == []
    heard.heard("READY=1", 2)
    assert heard.said.index(f"MAINPID={pid}") < len(heard.said) - 1 - heard.said[::-1].index("READY=1")
    assert "STOPPING=1" not in heard.said
    assert running.process.wait(20 * SLOW) == 0  # nobody waits for it but the manager, who follows the other
    before = heard.said.count("WATCHDOG=1")
    heard.heard("WATCHDOG=1", before + 3)
    assert running.get("/")[0] == 200
    os.kill(pid, signal.SIGTERM)
    heard.heard("STOPPING=1")
    until(lambda: not alive(pid), 20)
    with pytest.raises(ConnectionRefusedError):
        running.get("/")
    heard.close()


# ── the units ──


def unit(name: str) -> dict[str, dict[str, list[str]]]:
    """A unit file by section and key; keys may stand there several times."""
    found: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in (ROOT / "configs" / name).read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
            found[section] = {}
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[section].setdefault(key, []).append(value)
    return found


def test_the_units_say_what_the_gateway_does() -> None:
    service, sock = unit("scrubber.service"), unit("scrubber.socket")
    assert service["Service"]["Type"] == ["notify"]
    assert service["Service"]["NotifyAccess"] == ["main"]
    assert service["Service"]["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert service["Service"]["CapabilityBoundingSet"] == ["CAP_NET_BIND_SERVICE"]
    assert service["Service"]["NoNewPrivileges"] == ["yes"]
    assert sock["Socket"]["Service"] == ["scrubber.service"]
    assert "Accept" not in sock["Socket"]


def test_the_socket_unit_binds_what_the_example_listens_on() -> None:
    """An address that no listener has would end the start."""
    gateway, problems = load_gateway(ROOT / "configs" / "listeners.toml")
    assert gateway is not None, problems
    streams = unit("scrubber.socket")["Socket"]["ListenStream"]
    assert [f"unix:{each}" if each.startswith("/") else each for each in streams] == listener_keys(gateway.listeners)


def test_systemd_finds_the_units_sound(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here")
    for name in ("scrubber.service", "scrubber.socket"):
        shutil.copy(ROOT / "configs" / name, tmp_path / name)
    units = [str(tmp_path / name) for name in ("scrubber.service", "scrubber.socket")]
    done = subprocess.run([analyze, "verify", *units], capture_output=True, text=True, check=False)
    assert "scrubber" not in done.stderr, done.stderr
    assert done.returncode == 0
