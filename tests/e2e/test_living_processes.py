"""The gateway lives through deaths: kills, wedges, drains, second starts."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.conftest import RUN, GatewayFactory
from tests.e2e.support import ROOT, SLOW, Gateway, Origin, alive, gateway_text, refused, until

AGAIN_S = 3.0  # promised is 1 s; a busy machine starts a process in more than that
ONCE = """
[[rule]]
name = "once"
per = "client"
limit = "24/h burst 24"
then = ["throttle"]
"""


class Clients:
    """Asks for `/` again and again from several threads, each request on a connection of its own; counts what came."""

    def __init__(self, gateway: Gateway, threads: int = 4) -> None:
        self.good = 0
        self.bad: list[str] = []
        self.longest_s = 0.0
        self._gateway = gateway
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask) for _ in range(threads)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        until(lambda: self.good >= 10)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            try:
                status, _ = self._gateway.get("/")
                problem = "" if status == 200 else f"status {status}"
            except (OSError, http.client.HTTPException) as error:
                problem = repr(error)
            with self._lock:
                self.longest_s = max(self.longest_s, time.monotonic() - began)
                if problem:
                    self.bad.append(problem)
                else:
                    self.good += 1
            time.sleep(0.005)


def test_ready_status_and_a_request(gateway: GatewayFactory) -> None:
    running = gateway()
    assert running.get("/hello")[0] == 200
    status = running.status()
    assert [child["role"] for child in status["children"]] == ["supervisor", "worker", "worker"]
    assert all(alive(child["pid"]) for child in status["children"])
    assert status["listeners"] == [f"http://127.0.0.1:{running.port}"]
    assert running.socket.stat().st_mode & 0o777 == 0o600
    assert running.state.stat().st_mode & 0o777 == 0o700
    assert "unsigned" in running.stderr
    assert running.stop() == 0
    assert not running.socket.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", running.port)).close()


def test_a_killed_worker_is_replaced_and_the_others_serve(gateway: GatewayFactory) -> None:
    running = gateway(workers=2)
    with Clients(running) as clients:
        for slot in (0, 1, 0):
            old = running.worker_pid(slot)
            os.kill(old, signal.SIGKILL)
            until(lambda slot=slot, old=old: works_again(running, slot, old), AGAIN_S)
            time.sleep(0.3)
        before = clients.good
        until(lambda: clients.good > before + 20)
    # only what was established on the killed worker is lost: at most one request of each client a kill
    assert len(clients.bad) <= 3 * 4, clients.bad
    assert running.child("worker", 0)["restarts"] == 2
    assert running.child("worker", 1)["restarts"] == 1


def works_again(running: Gateway, slot: int, old: int) -> bool:
    """Whether another worker is in the place of `old`, and at work."""
    child = running.child("worker", slot)
    return child["pid"] not in (0, old) and child["beat_age_ms"] is not None


def answers_again(running: Gateway, old: int) -> bool:
    """Whether another supervisor answers than `old`."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return running.child("supervisor")["pid"] not in (0, old)
    return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["dead", "wedged"])
def test_the_only_worker_serves_again_at_once(gateway: GatewayFactory, number: signal.Signals) -> None:
    """Nobody else could: the time to an answer is the time that it takes to replace one."""
    running = gateway(workers=1)
    old = running.worker_pid()
    began = time.monotonic()
    os.kill(old, number)
    if number == signal.SIGKILL:
        until(lambda: not alive(old))
    assert running.get("/")[0] == 200
    assert time.monotonic() - began < AGAIN_S * SLOW
    assert running.worker_pid() != old


def test_a_limit_is_one_over_four_workers_and_over_a_kill(gateway: GatewayFactory) -> None:
    running = gateway(workers=4, rules=ONCE)

    def busy() -> list[int]:
        return [child["connections"] for child in running.status()["children"] if child["role"] == "worker"]

    source = "127.0.0.2"  # 127.0.0.1 is never-block
    kept = [
        http.client.HTTPConnection("127.0.0.1", running.port, timeout=20 * SLOW, source_address=(source, 0))
        for _ in range(40)
    ]
    for connection in kept:
        connection.connect()
    until(lambda: sum(busy()) == 40)
    assert sum(count > 0 for count in busy()) >= 3, "connections are spread over the workers"
    found: Counter[int] = Counter()
    for connection in kept[:16]:
        connection.request("GET", "/")
        response = connection.getresponse()
        response.read()
        found[response.status] += 1
    assert found == {200: 16}
    for slot in (0, 2):
        old = running.worker_pid(slot)
        os.kill(old, signal.SIGKILL)
        until(lambda slot=slot, old=old: works_again(running, slot, old), AGAIN_S)
    for connection in kept:
        connection.close()
    found.update(running.get("/", source=source)[0] for _ in range(24))
    assert found == {200: 24, 429: 16}


def test_connections_that_wait_for_a_killed_worker_go_to_its_successor(gateway: GatewayFactory) -> None:
    running = gateway(workers=1)
    old = os.pidfd_open(running.worker_pid())
    # What connects now waits in the listener's queue, which the keeper holds.
    signal.pidfd_send_signal(old, signal.SIGSTOP)
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(running.get, "/") for _ in range(20)]
        time.sleep(0.2)
        with contextlib.suppress(ProcessLookupError):  # where this took long, the keeper has killed it
            signal.pidfd_send_signal(old, signal.SIGKILL)
        os.close(old)
        assert [answer.result()[0] for answer in answers] == [200] * 20


def test_a_wedged_worker_is_replaced(gateway: GatewayFactory) -> None:
    running = gateway(workers=2)
    with Clients(running) as clients:
        old = running.worker_pid(1)
        os.kill(old, signal.SIGSTOP)
        before = clients.good
        until(lambda: works_again(running, 1, old), AGAIN_S, "the wedged worker is replaced")
        assert clients.good > before, "the other one serves meanwhile"
    assert not alive(old)
    assert "does not beat" in running.stderr
    assert len(clients.bad) <= 4, clients.bad  # what was established on it
    assert all(running.get("/")[0] == 200 for _ in range(20))


def test_a_killed_supervisor_is_replaced_and_traffic_does_not_notice(gateway: GatewayFactory) -> None:
    running = gateway()
    with Clients(running) as clients:
        old = running.child("supervisor")["pid"]
        os.kill(old, signal.SIGKILL)
        until(lambda: answers_again(running, old), AGAIN_S, "a new supervisor answers")
    assert clients.bad == []
    running.get("/after")
    until(lambda: any(line.get("url.path") == "/after" for line in running.log_lines()), what="the log goes on")
    assert running.cli("reload").returncode == 0


def test_a_wedged_supervisor_is_replaced(gateway: GatewayFactory) -> None:
    running = gateway()
    old = running.child("supervisor")["pid"]
    with Clients(running) as clients:
        os.kill(old, signal.SIGSTOP)
        until(lambda: not alive(old), AGAIN_S, "the wedged supervisor is killed")
        until(lambda: answers_again(running, old), AGAIN_S, "a new supervisor answers")
    assert clients.bad == []


def test_all_children_killed_at_once(gateway: GatewayFactory) -> None:
    running = gateway()
    for child in running.status()["children"]:
        os.kill(child["pid"], signal.SIGKILL)
    assert running.get("/")[0] == 200

    def whole() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return all(child["pid"] and child["restarts"] == 1 for child in running.status()["children"])
        return False

    until(whole)


def test_children_end_with_a_killed_keeper(gateway: GatewayFactory) -> None:
    running = gateway()
    pids = [child["pid"] for child in running.status()["children"]]
    running.kill()
    until(lambda: not any(alive(pid) for pid in pids))
    again = gateway(directory=running.directory)  # what the dead one left behind is in nobody's way
    assert again.get("/")[0] == 200


def test_sigterm_drains(gateway: GatewayFactory) -> None:
    running = gateway()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(running.get, f"/slow/{pause}") for pause in (0.5, 1.0, 1.5)]
        time.sleep(0.3)
        running.process.send_signal(signal.SIGTERM)
        until(lambda: refused(running.port), what="the port refuses while requests end")
        assert running.process.poll() is None
        assert [each.result()[0] for each in slow] == [200] * 3
    assert running.process.wait(5 * SLOW) == 0
    paths = [line.get("url.path") for line in running.log_lines()]
    assert {"/slow/0.5", "/slow/1.0", "/slow/1.5"} <= set(paths)


@pytest.mark.parametrize("how", ["stop", "upgrade"])
def test_what_the_deadline_cuts_is_on_the_record(gateway: GatewayFactory, how: str) -> None:
    """Twenty requests that do not end in time are twenty lines, whichever keeper lets them go."""
    running = gateway(top='stop_deadline = "1s"')
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        cut = [pool.submit(running.get, "/slow/9") for _ in range(20)]
        until(lambda: sum(child.get("connections", 0) for child in running.status()["children"]) == 20)
        if how == "stop":
            assert running.stop() == 0
        else:
            assert running.cli("upgrade").returncode == 0
        for each in cut:
            with pytest.raises((OSError, http.client.HTTPException)):
                each.result()

    def outcomes() -> list[str | None]:
        lines = running.log_lines()
        return [line.get("scrubber.outcome") for line in lines if line.get("url.path") == "/slow/9"]

    until(lambda: outcomes() == ["aborted"] * 20, what="a line for each")
    assert "does not end" not in running.stderr


def test_a_drain_closes_idle_connections(gateway: GatewayFactory) -> None:
    running = gateway()
    connection = http.client.HTTPConnection("127.0.0.1", running.port)
    connection.request("GET", "/")
    assert connection.getresponse().read()
    began = time.monotonic()
    assert running.stop() == 0
    assert time.monotonic() - began < 4 * SLOW
    connection.close()


def test_a_second_sigterm_ends_at_once(gateway: GatewayFactory) -> None:
    running = gateway()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        cut = pool.submit(running.get, "/slow/8")
        time.sleep(0.5)
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert running.process.poll() is None
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(3 * SLOW) == 0
        with pytest.raises((OSError, http.client.HTTPException)):
            cut.result()


def test_a_port_that_is_taken_is_one_line_and_a_hint(gateway: GatewayFactory, origin: Origin) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        running = gateway(text=gateway_text(origin.port, address=f"127.0.0.1:{port}"), wait=False)
        assert running.process.wait(20 * SLOW) == 1
    lines = [line for line in running.stderr.splitlines() if not line.startswith("note: ")]
    assert lines[0] == f"scrubber: cannot listen on 127.0.0.1:{port}: another program listens there"
    assert lines[1].startswith("Try: ")
    assert len(lines) == 2
    assert running.stdout == ""


def test_a_port_that_is_taken_as_json(gateway: GatewayFactory, origin: Origin) -> None:
    """Found by the keeper, long after the command line was read."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        text = gateway_text(origin.port, address=f"127.0.0.1:{port}")
        running = gateway(text=text, wait=False, program=[*RUN, "--json"])
        assert running.process.wait(20 * SLOW) == 1
    error = json.loads(running.stdout)["error"]
    assert error["fault"] == "operator"
    assert error["message"] == f"cannot listen on 127.0.0.1:{port}: another program listens there"
    assert "ss -ltnp" in error["hint"]
    assert all(line.startswith("note: ") for line in running.stderr.splitlines())


def test_a_second_gateway_on_the_same_port_or_socket_is_refused(gateway: GatewayFactory, origin: Origin) -> None:
    first = gateway()
    other = gateway(text=gateway_text(origin.port, address=f"127.0.0.1:{first.port}"), wait=False)
    assert other.process.wait(20 * SLOW) == 1
    assert "another program listens there" in other.stderr
    same = gateway(directory=first.directory, wait=False)
    assert same.process.wait(20 * SLOW) == 1
    assert "another gateway runs with the admin socket" in same.stderr
    assert first.get("/")[0] == 200


def test_without_any_capability(gateway: GatewayFactory) -> None:
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"] if os.geteuid() == 0 else []
    if drop and subprocess.run([*drop, "true"], check=False).returncode:
        pytest.skip("setpriv cannot drop capabilities here")
    running = gateway(command=drop)
    assert running.get("/")[0] == 200
    for child in running.status()["children"]:
        status = Path(f"/proc/{child['pid']}/status").read_text()
        assert "CapEff:\t0000000000000000" in status
    assert f"all processes run as uid {os.geteuid()}" in running.stderr


def test_ipv6_and_two_listeners(gateway: GatewayFactory, origin: Origin) -> None:
    text = gateway_text(origin.port) + '[[listener]]\naddress = "[::1]:0"\n'
    running = gateway(text=text)
    port = running.ports[1]
    connection = http.client.HTTPConnection("::1", port)
    connection.request("GET", "/")
    assert connection.getresponse().status == 200
    connection.close()
    assert running.get("/")[0] == 200


def test_what_lies_in_the_working_directory_is_not_imported(gateway: GatewayFactory, tmp_path: Path) -> None:
    where = tmp_path / "here"
    where.mkdir()
    for name in ("json", "asyncio", "uvloop", "selectors"):
        (where / f"{name}.py").write_text("raise SystemExit('imported from the working directory')\n")
    program = [sys.executable, "-P", "-m", "scrubber", "run"]
    running = gateway(directory=where, program=program)  # it runs with this working directory
    assert running.get("/")[0] == 200


def test_in_a_source_tree_without_installation(gateway: GatewayFactory, tmp_path: Path) -> None:
    """`python -m scrubber` finds the package in the working directory; so do its children."""
    where = tmp_path / "tree"
    where.mkdir()
    (where / "scrubber").symlink_to(ROOT / "scrubber")
    running = gateway(directory=where, env={"PYTHONPATH": ""})
    assert running.get("/")[0] == 200


def test_too_few_open_files_are_said(gateway: GatewayFactory) -> None:
    running = gateway(command=["prlimit", "--nofile=500:500"])
    assert "open files are limited to 500" in running.stderr
    assert running.get("/")[0] == 200
