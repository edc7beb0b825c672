"""The running program is upgraded under traffic: nothing fails, what memory holds goes on, and a successor that does
not come up changes nothing."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import GatewayFactory
from tests.e2e.support import ROOT, SLOW, Gateway, Origin, alive, gateway_text, until

LIMIT = """
[[rule]]
name = "ten"
per = "client"
limit = "10/h burst 10"
then = ["throttle"]
"""


class Hammer:
    """Clients that ask without a pause, some on one connection for as long as it may last, some on a new one each time;
    whatever goes wrong is a failure."""

    def __init__(self, gateway: Gateway, keeping: int = 3, fresh: int = 2) -> None:
        self.good = 0
        self.bad: list[str] = []
        self.closed = 0  # connections that the gateway said it would close
        self._gateway = gateway
        self._ended = threading.Event()
        self._lock = threading.Lock()
        count = keeping + fresh
        self._threads = [threading.Thread(target=self._run, args=(index < keeping,)) for index in range(count)]

    def __enter__(self) -> Hammer:
        for thread in self._threads:
            thread.start()
        until(lambda: self.good >= 50)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int = 100) -> None:
        """Until so many further requests were answered."""
        goal = self.good + count
        until(lambda: self.good >= goal, 20)

    def _run(self, keep: bool) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._ended.is_set():
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self._gateway.port, timeout=20 * SLOW)
                connection.request("GET", "/")
                response = connection.getresponse()
                response.read()
                problem = "" if response.status == 200 else f"status {response.status}"
                ending = response.getheader("Connection") == "close"
            except (OSError, http.client.HTTPException) as error:
                problem, ending = repr(error), True
            if connection is not None and (ending or not keep):
                connection.close()
                connection = None
            with self._lock:
                self.closed += keep and ending
                if problem:
                    self.bad.append(problem)
                else:
                    self.good += 1
        if connection is not None:
            connection.close()


def keeper_of(gateway: Gateway) -> int:
    """The keeper's pid: the parent of a worker."""
    stat = Path(f"/proc/{gateway.worker_pid()}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


def upgraded(gateway: Gateway, *words: str) -> int:
    """Upgrade; the new keeper's pid."""
    done = gateway.cli("upgrade", "--json", *words)
    assert done.returncode == 0, done.stdout + done.stderr + gateway.stderr
    return int(json.loads(done.stdout)["pid"])


def settled(gateway: Gateway, pids: list[int]) -> None:
    """The processes that went are gone, and the admin side answers."""
    until(lambda: not any(alive(pid) for pid in pids), 30, "the former processes are gone")

    def answers() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return bool(gateway.status()["children"])
        return False

    until(answers)


def test_an_upgrade_fails_no_request(gateway: GatewayFactory) -> None:
    running = gateway()
    old = [child["pid"] for child in running.status()["children"]]
    with Hammer(running) as hammer:
        for turn in range(2):
            pid = upgraded(running)
            settled(running, old)
            hammer.more()
            assert keeper_of(running) == pid != running.process.pid
            old = [child["pid"] for child in running.status()["children"]]
            assert running.stdout.count("ready: ") == turn + 2
    assert hammer.bad == []
    assert hammer.closed >= 3  # each was told so, and came again
    assert running.process.poll() is None  # whoever started it still has it
    assert running.stop() == 0
    until(lambda: not alive(pid))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", running.port)).close()
    assert not running.socket.exists()


def test_by_signal_and_requests_in_flight_end(gateway: GatewayFactory) -> None:
    running = gateway()
    before = keeper_of(running)
    assert before == running.process.pid
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(running.get("/slow/4")[0])) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    running.process.send_signal(signal.SIGUSR2)
    until(lambda: "has taken over" in running.stderr, 30)
    assert running.get("/")[0] == 200
    for thread in threads:
        thread.join()
    assert answers == [200] * 3
    paths: list[str] = []

    def logged() -> bool:
        paths[:] = [line.get("url.path", "") for line in running.log_lines()]
        return paths.count("/slow/4") == 3 and "/" in paths

    until(logged, what="both generations write the log")


def test_limits_and_blocks_go_on(gateway: GatewayFactory) -> None:
    running = gateway(rules=LIMIT)
    running.file.write_text(running.file.read_text())
    assert running.cli("block", "127.0.0.66", "--for", "10m", "--reason", "a test").returncode == 0
    assert [running.get("/", source="127.0.0.7")[0] for _ in range(8)] == [200] * 8
    old = [child["pid"] for child in running.status()["children"]]
    upgraded(running)
    settled(running, old)
    assert running.status()["generation"] == 2
    assert [running.get("/", source="127.0.0.7")[0] for _ in range(4)] == [200, 200, 429, 429]
    assert [block["source"] for block in running.admin("GET", "/v1/blocks")[1]["blocks"]] == ["127.0.0.66"]
    with pytest.raises((OSError, http.client.HTTPException)):
        running.get("/", source="127.0.0.66")


def test_memory_of_another_size_takes_the_blocks_over(gateway: GatewayFactory, origin: Origin) -> None:
    running = gateway(rules=LIMIT)
    for source in ("127.0.0.66", "127.0.8.0/24"):
        assert running.cli("block", source, "--for", "10m", "--reason", "a test").returncode == 0
    before = {block["source"]: block for block in running.admin("GET", "/v1/blocks")[1]["blocks"]}
    more = "[memory]\nblocks = 4096\nlimiter_cells = 65536\n"
    running.file.write_text(gateway_text(origin.port, workers=3, more=more))
    refused = running.cli("reload")
    assert refused.returncode == 1
    assert "scrubber upgrade" in refused.stderr
    old = [child["pid"] for child in running.status()["children"]]
    upgraded(running)
    settled(running, old)
    after = {block["source"]: block for block in running.admin("GET", "/v1/blocks")[1]["blocks"]}
    assert after.keys() == before.keys()
    for source, block in after.items():
        assert block["areas"] == before[source]["areas"]
        assert block["rule"] == before[source]["rule"]
        assert 0 < block["ttl_left_s"] <= before[source]["ttl_left_s"]
    assert len([child for child in running.status()["children"] if child["role"] == "worker"]) == 3
    assert running.get("/")[0] == 200
    with pytest.raises((OSError, http.client.HTTPException)):
        running.get("/", source="127.0.8.9")


def test_listeners_of_the_new_file_and_a_unix_socket(gateway: GatewayFactory, origin: Origin, tmp_path: Path) -> None:
    path = Path(f"/tmp/scr-{os.getpid()}-{time.monotonic_ns() % 10**6}.sock")
    more = f'[[listener]]\naddress = "unix:{path}"\n'
    running = gateway(text=gateway_text(origin.port, more=more))
    inode = path.stat().st_ino
    running.file.write_text(gateway_text(origin.port, more=more + '[[listener]]\naddress = "[::1]:0"\n'))
    old = [child["pid"] for child in running.status()["children"]]
    upgraded(running)
    settled(running, old)
    assert path.stat().st_ino == inode
    listeners = running.status()["listeners"]
    assert listeners[0] == f"http://127.0.0.1:{running.port}"
    port = int(listeners[2].rpartition(":")[2])
    connection = http.client.HTTPConnection("::1", port, timeout=20)
    connection.request("GET", "/")
    assert connection.getresponse().status == 200
    connection.close()
    running.file.write_text(gateway_text(origin.port))
    old = [child["pid"] for child in running.status()["children"]]
    upgraded(running)
    settled(running, old)
    assert not path.exists()
    assert running.get("/")[0] == 200


def test_a_broken_file_leaves_the_running_program(gateway: GatewayFactory) -> None:
    running = gateway()
    text = running.file.read_text()
    children = [child["pid"] for child in running.status()["children"]]
    with Hammer(running) as hammer:
        running.file.write_text(text.replace("[[area]]", "[[aera]]"))
        done = running.cli("upgrade", "--socket", str(running.socket), "--json")
        assert done.returncode == 1
        assert any("aera" in problem["path"] for problem in json.loads(done.stdout)["error"]["problems"])
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = other.getsockname()[1]
            running.file.write_text(text + f'[[listener]]\naddress = "127.0.0.1:{taken}"\n')
            done = running.cli("upgrade", "--json")
        assert done.returncode == 1
        hammer.more()
        running.file.write_text(text)
    assert hammer.bad == []
    assert hammer.closed == 0
    assert [child["pid"] for child in running.status()["children"]] == children
    assert f"127.0.0.1:{taken}: another program listens there" in running.stderr
    upgraded(running)
    settled(running, children)
    assert running.get("/")[0] == 200


@pytest.mark.parametrize(
    "broken",
    ["server/upgrade.py", "server/keeper.py", "server/worker.py", "server/supervisor.py", "admin/app.py"],
)
def test_a_broken_program_leaves_the_running_one(gateway: GatewayFactory, tmp_path: Path, broken: str) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "scrubber", tree / "scrubber", ignore=shutil.ignore_patterns("__pycache__"))
    running = gateway(env={"PYTHONPATH": str(tree)})
    children = [child["pid"] for child in running.status()["children"]]
    module = tree / "scrubber" / broken
    sound = module.read_text()
    with Hammer(running, 2, 1) as hammer:
        module.write_text("raise SystemExit('a defect')\n")
        done = running.cli("upgrade", "--json")
        assert done.returncode == 1
        assert json.loads(done.stdout)["error"]["hint"]
        hammer.more()
    assert hammer.bad == []
    assert hammer.closed == 0
    assert [child["pid"] for child in running.status()["children"]] == children
    module.write_text(sound)
    upgraded(running)
    settled(running, children)
    assert running.get("/")[0] == 200


def test_a_killed_waiter_or_keeper_takes_the_gateway_along(gateway: GatewayFactory) -> None:
    running = gateway()
    old = [child["pid"] for child in running.status()["children"]]
    pid = upgraded(running)
    settled(running, old)
    pids = [pid, *(child["pid"] for child in running.status()["children"])]
    time.sleep(0.5)
    running.process.kill()
    until(lambda: not any(alive(each) for each in pids))


def test_reload_after_an_upgrade(gateway: GatewayFactory) -> None:
    running = gateway()
    old = [child["pid"] for child in running.status()["children"]]
    upgraded(running)
    settled(running, old)
    running.process.send_signal(signal.SIGHUP)
    until(lambda: running.status()["generation"] == 3)
    for child in running.status()["children"]:
        os.kill(child["pid"], signal.SIGKILL)

    def whole() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return all(child["pid"] and child["restarts"] == 1 for child in running.status()["children"])
        return False

    until(whole, 20)
    assert running.get("/")[0] == 200
