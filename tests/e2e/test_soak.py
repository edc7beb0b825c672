"""People, attacks, reloads, blocks and killed workers at once, for half a minute here and as long as `make soak` says:
nobody who was not on a killed worker's connection fails, memory stays flat, and nothing is left at the end."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import random
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.attacks import NEVER, Attack, Failure, People, anonymous_bytes, attack
from tests.e2e.conftest import GatewayFactory
from tests.e2e.support import SANITIZED, SLOW, Gateway, mandate_text, until
from tests.wanted import program

SOAK_S = float(os.environ.get("SCRUBBER_SOAK_S", "16"))
PEOPLE = 4
KILL_EACH_S = 4.0
# And 2 %: allocators keep what a moment needed. In the first minutes histories of bounded length still fill up.
FLAT_BYTES = (4 if SOAK_S >= 600 else 16) * 1024 * 1024

TOP = """
[limits]
connections_max = 4096
"""
AREA = f"""
[area.limits]
head_timeout = "{2 * SLOW:.0f}s"
idle_timeout = "{3 * SLOW:.0f}s"
body_grace = "1s"
write_timeout = "1s"
[area.tunnel]
idle_timeout = "1s"
"""
RULE = """
[[rule]]
name = "fast"
per = "client"
limit = "{rate}/s burst 300"
then = ["throttle", "block 3s"]
"""
GET = b"GET %b HTTP/1.1\r\nHost: site.test\r\n\r\n"
POST = b"POST /sink HTTP/1.1\r\nHost: site.test\r\n"
ATTACKS = (
    Attack(GET % b"/status/200" * 20, GET % b"/status/200" * 20, 0.02),
    Attack(b"GET / HTTP/1.1\r\nHost: site.test\r\n", b"X-a: b\r\n"),
    Attack(POST + b"Content-Length: 100000\r\n\r\n", b"x"),
    Attack(GET % b"/flow/10737418240", reads=NEVER),
    Attack(GET % b"/bytes/4000" * 20, GET % b"/bytes/4000" * 20, 0.02, NEVER),
    Attack(b"GET / HTTP/1.1\r\nHost: site.test\r\nA: \x00\r\n\r\n"),
    Attack(),
)


@contextlib.contextmanager
def attackers(port: int) -> Iterator[None]:
    """One kind after the other until the end."""
    over = threading.Event()

    def go_on() -> None:
        for how in itertools.cycle(ATTACKS):
            if over.is_set():
                return
            attack(port, how, 200, 3.0)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Shaken:
    """A gateway that is given no rest: reloads, blocks, kills of one worker."""

    def __init__(self, running: Gateway) -> None:
        self._running = running
        self.kills: list[float] = []
        self.reloads = 0
        self.sizes: dict[str, list[int]] = {}

    def shake(self, turn: int) -> None:
        running = self._running
        mandate = mandate_text(RULE.format(rate=150 + turn % 5), serial=turn + 2)
        (running.directory / "mandate.toml").write_text(mandate)
        code, said = running.admin("POST", "/v1/reload")
        assert code == 200, said
        self.reloads += 1
        source = f"198.51.100.{turn % 200}"
        assert running.admin("POST", "/v1/blocks", {"source": source, "ttl_s": 60, "reason": "soak"})[0] == 201
        if turn % 2:
            assert running.admin("DELETE", f"/v1/blocks?source={source}&reason=soak")[0] == 200

    def kill(self) -> None:
        worker = self._running.child("worker", 0)
        self.kills.append(time.monotonic())
        os.kill(worker["pid"], signal.SIGKILL)
        until(lambda: self._running.child("worker", 0)["pid"] not in (0, worker["pid"]), what="a new worker")

    def measure(self, pids: dict[str, int]) -> None:
        for role, pid in pids.items():
            self.sizes.setdefault(role, []).append(anonymous_bytes(pid))

    def last_mib(self) -> dict[str, int]:
        return {role: samples[-1] >> 20 for role, samples in self.sizes.items()}

    def grown(self) -> dict[str, tuple[int, int]]:
        """Processes whose memory is not flat: bytes in the second quarter and in the last. A sanitizer keeps what is
        freed for a while."""
        found: dict[str, tuple[int, int]] = {}
        if SANITIZED:
            return found
        for role, samples in self.sizes.items():
            quarter = len(samples) // 4
            early, late = statistics.median(samples[quarter : 2 * quarter]), statistics.median(samples[-quarter:])
            if late > early * 1.02 + FLAT_BYTES:
                found[role] = (int(early), int(late))
        return found


def excused(failure: Failure, kills: list[float]) -> bool:
    """Its connection was open when a worker was killed, and no answer says otherwise."""
    return not failure.status and any(failure.opened <= killed <= failure.ended for killed in kills)


@pytest.mark.timeout(SOAK_S + 120 * SLOW)
def test_soak(gateway: GatewayFactory) -> None:
    running = gateway(workers=2, top=TOP, area=AREA, mandate=mandate_text(RULE.format(rate=150)))
    pids = {
        "keeper": running.process.pid,
        "supervisor": running.child("supervisor")["pid"],
        "worker": running.worker_pid(1),
    }
    shaken = Shaken(running)
    began = time.monotonic()
    with attackers(running.port), People(running.port, PEOPLE) as people:
        for turn in itertools.count():
            passed_s = time.monotonic() - began
            if passed_s > SOAK_S:
                break
            shaken.shake(turn)
            if passed_s > KILL_EACH_S * (len(shaken.kills) + 1):
                shaken.kill()
            shaken.measure(pids)
            time.sleep(0.25)
    print(
        f"{SOAK_S:.0f} s: {people.served} requests of people served, {len(people.failures)} cut with a killed worker; "
        f"{shaken.reloads} reloads, {len(shaken.kills)} kills; MiB at the end: {shaken.last_mib()}"
    )
    assert people.served > 20 * SOAK_S / SLOW
    assert [f for f in people.failures if not excused(f, shaken.kills)] == []
    assert len(people.failures) <= PEOPLE * len(shaken.kills)
    assert shaken.grown() == {}
    until(running.pools_whole, 15, "a pool that is not whole")
    assert running.child("worker", 0)["restarts"] == len(shaken.kills)
    assert (running.worker_pid(1), running.child("supervisor")["pid"]) == (pids["worker"], pids["supervisor"])


def held(pid: int) -> tuple[int, int]:
    """Descriptors (of sockets the pools tell) and mappings of a process."""
    links = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]
    sockets = sum(link.startswith("socket:") for link in links)
    return len(links) - sockets, len(Path(f"/proc/{pid}/maps").read_text().splitlines())


@pytest.mark.timeout(180 * SLOW)
def test_two_hundred_reloads_under_load_fail_no_request_and_leak_nothing(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    running = gateway(workers=2)
    pids = [running.process.pid, running.child("supervisor")["pid"], running.worker_pid(0), running.worker_pid(1)]
    shaken = Shaken(running)
    for turn in range(5):
        shaken.shake(turn)
    time.sleep(0.5)
    before = [held(pid) for pid in pids]
    with People(running.port, PEOPLE) as people, (tmp_path / "wrk").open("wb") as said:
        load = subprocess.Popen([program("wrk"), "-t1", "-c32", "-d300", running.url("/status/200")], stdout=said)
        for turn in range(5, 205):
            shaken.shake(turn)
            if turn % 10 == 0:
                shaken.measure(dict(zip("ksab", pids, strict=True)))
        load.send_signal(signal.SIGINT)
        load.wait(10 * SLOW)
    text = (tmp_path / "wrk").read_text()
    assert "Requests/sec" in text
    assert "Non-2xx" not in text and "Socket errors" not in text, text
    assert people.failures == []
    assert people.served > 50
    assert shaken.grown() == {}
    until(running.pools_whole, 15, "a pool that is not whole")
    after = [held(pid) for pid in pids]
    descriptors, mappings = (max(now[i] - then[i] for now, then in zip(after, before, strict=True)) for i in (0, 1))
    assert descriptors <= 2, f"{before}, now {after}"
    assert SANITIZED or mappings <= 16, (
        f"{before}, now {after}"
    )  # arenas of the supervisor's threads; 200 would be a leak


def answered(running: Gateway) -> dict[str, Any]:
    """The status once every process is there and has the same policy."""

    def look() -> dict[str, Any] | None:
        try:
            status = running.status()
        except (OSError, http.client.HTTPException, AssertionError):
            return None
        workers = [child for child in status["children"] if child["role"] == "worker"]
        whole = all(child["pid"] and child["generation"] == status["generation"] for child in workers)
        return status if whole else None

    return dict(until(look, 15, "a gateway with one policy in every process"))


@pytest.mark.timeout(180 * SLOW)
def test_kills_at_random_points_of_reloads(gateway: GatewayFactory) -> None:
    """Whoever dies while a policy is replaced, everybody ends up with the same one, and an acknowledged one stays."""
    running = gateway(workers=2)
    random_ = random.Random(4)
    acknowledged = 1
    kills: list[float] = []

    def strike(pid: int, role: str) -> None:
        if role == "worker":
            kills.append(time.monotonic())
        os.kill(pid, signal.SIGKILL)

    with People(running.port, 2) as people:
        for turn in range(15):
            children = {child["pid"]: child["role"] for child in answered(running)["children"]}
            rules = RULE.format(rate=200 + turn)
            (running.directory / "mandate.toml").write_text(mandate_text(rules, serial=turn + 2))
            victim = random_.choice(sorted(children))
            timer = threading.Timer(random_.uniform(0, 0.06), strike, (victim, children[victim]))
            timer.start()
            with contextlib.suppress(OSError, http.client.HTTPException):
                code, said = running.admin("POST", "/v1/reload")
                if code == 200:
                    acknowledged = int(said["generation"])
            timer.join()
            assert int(answered(running)["generation"]) >= acknowledged, f"turn {turn}: {children[victim]} killed"
    assert acknowledged > 4
    assert [f for f in people.failures if not excused(f, kills)] == []
    until(running.pools_whole, 15, "a pool that is not whole")
