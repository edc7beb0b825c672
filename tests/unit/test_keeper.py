"""The keeper with real children: restarts, wedges, descriptors, publication, drain, signals. And the judgement of a
beat."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from scrubber.server import listen, memfd
from scrubber.server.plan import ListenerPlan, Plan
from scrubber.server.pulse import START_NS, WEDGED_NS, Pulse, Schedule
from tests.e2e.support import environment, free_port
from tests.readable import readable

ROOT = Path(__file__).resolve().parents[2]
MS = 1_000_000
LOOKS = -(-WEDGED_NS // (100 * MS))  # so many, 100 ms apart, without a beat


class Running:
    """A keeper under test."""

    def __init__(
        self,
        directory: Path,
        *,
        mode: dict[str, str] | None = None,
        workers: int = 2,
        drain_s: float = 5.0,
        as_json: bool = False,
        **settings: object,
    ):
        self.events_dir = directory
        gauges = memfd.plain("gauges", 4096 + 256 * workers)
        policy = memfd.sealed("policy", b"first")
        lock = memfd.plain("lock", 0)
        argv = [sys.executable, str(ROOT / "tests/unit/keeper_child.py")]
        plan = Plan(
            {"worker": argv, "supervisor": argv},
            workers,
            [ListenerPlan("127.0.0.1", 0, index=0), ListenerPlan("::1", 0, index=1)],
            {"gauges": gauges},
            policy,
            [],
            1,
            4096,
            256,
            lock,
            drain_s,
            "site (origin)",
            "/none.sock",
            {"events": str(directory), "mode": mode or {}, **settings},
            as_json=as_json,
        )
        fd = plan.to_fd()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scrubber.server.keeper", str(fd)],
            pass_fds=[fd, *plan.descriptors()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        for each in (fd, *plan.descriptors()):
            os.close(each)

    def events(self, who: str, kind: str = "") -> list[dict]:
        path = self.events_dir / who
        if not path.exists():
            return []
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [line for line in lines if not kind or line["event"] == kind]

    def pid(self, who: str) -> int:
        return self.events(who, "start")[-1]["pid"]

    def ready(self) -> str:
        return self.process.stdout.readline()

    def end(self, timeout_s: float = 15.0) -> tuple[int, str]:
        _, stderr = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, stderr

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


def until(condition: Callable[[], object], timeout_s: float = 15.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def start(tmp_path):
    started: list[Running] = []

    def make(**how: object) -> Running:
        directory = tmp_path / str(len(started))
        directory.mkdir()
        started.append(Running(directory, **how))
        return started[-1]

    yield make
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        each.process.wait()
        each.process.stdout.close()
        each.process.stderr.close()


def test_ready_line_start_messages_and_end(start):
    gateway = start()
    line = gateway.ready()
    port4, port6 = gateway.events("worker0", "start")[0]["listeners"]
    assert line == (
        f"ready: http://127.0.0.1:{port4}, http://[::1]:{port6} → site (origin), 2 workers, admin /none.sock\n"
    )
    for who in ("worker0", "worker1", "supervisor0"):
        (first,) = gateway.events(who, "start")
        assert first["policy"] == "first"
        assert first["generation"] == 1
        assert first["sigpipe_ignored"]
        # stdio, channel, policy, regions (fd, its mapping has none), listeners or beat, the directory listing
        # itself: nothing inherited by accident
        assert len(first["fds"]) == 3 + 1 + 1 + 1 + (2 if who != "supervisor0" else 1) + 2
    pids = [gateway.pid(who) for who in ("worker0", "worker1", "supervisor0")]
    gateway.process.send_signal(signal.SIGTERM)
    code, stderr = gateway.end()
    assert code == 0, stderr
    assert not any(alive(pid) for pid in pids)
    assert [e["event"] for e in gateway.events("worker0")][-1] == "drain"
    assert gateway.events("supervisor0")[-1]["event"] == "drain"


def test_a_killed_child_is_replaced_and_its_slot_is_zero(start):
    gateway = start()
    gateway.ready()
    for who in ("worker1", "supervisor0"):
        old = gateway.pid(who)
        killed = time.monotonic()
        os.kill(old, signal.SIGKILL)
        until(lambda who=who, old=old: gateway.pid(who) != old)
        assert time.monotonic() - killed < 5
        assert gateway.events(who, "start")[-1]["slot_was_zero"] or who == "supervisor0"
    assert len(gateway.events("worker0", "start")) == 1
    os.kill(gateway.pid("worker0"), signal.SIGKILL)

    def restarts() -> list[int]:
        told = gateway.events("supervisor0", "children")
        return [child["restarts"] for child in told[-1]["message"]["children"]] if told else []

    until(lambda: restarts() == [1, 1, 1])


@pytest.mark.parametrize("who", ["worker0", "supervisor0"])
def test_a_stopped_child_is_wedged_and_replaced(start, who):
    gateway = start()
    gateway.ready()
    old = gateway.pid(who)
    os.kill(old, signal.SIGSTOP)
    until(lambda: gateway.pid(who) != old)
    assert not alive(old)
    gateway.process.send_signal(signal.SIGTERM)
    code, stderr = gateway.end()
    assert code == 0
    assert "does not beat: killed" in stderr


def child_states(parent: int) -> list[str]:
    """proc_pid_stat(5): the state of every child."""
    states = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, ppid, *_ = stat.read_text().rpartition(")")[2].split()
            if int(ppid) == parent:
                states.append(state)
    return states


def test_fifty_restarts_leave_no_descriptor_and_no_zombie(start):
    gateway = start(workers=9)
    gateway.ready()
    before = gateway.descriptors()
    everyone = [f"worker{slot}" for slot in range(9)] + ["supervisor0"]
    for turn in range(5):
        for who in everyone:
            os.kill(gateway.pid(who), signal.SIGKILL)
        until(lambda turn=turn: all(len(gateway.events(who, "start")) == turn + 2 for who in everyone))
    until(lambda: gateway.descriptors() == before)
    states = child_states(gateway.process.pid)
    assert len(states) == len(everyone)
    assert "Z" not in states


def test_one_that_never_comes_up_ends_the_start_with_one(start):
    gateway = start(mode={"supervisor": "exit"})
    code, stderr = gateway.end()
    assert code == 1
    assert stderr.count("ended by exit 3") == 5
    assert "does not come up" in stderr


def test_one_that_never_comes_up_is_said_as_json(start):
    gateway = start(mode={"supervisor": "exit"}, as_json=True)
    said = json.loads(gateway.process.stdout.read())
    code, stderr = gateway.end()
    assert code == 1
    assert said["error"]["fault"] == "internal"
    assert "supervisor does not come up" in said["error"]["message"]
    assert said["error"]["hint"]
    assert "does not come up" not in stderr


def test_one_that_breaks_the_protocol_is_killed(start):
    gateway = start(mode={"worker": "broken"})
    code, stderr = gateway.end()
    assert code == 1
    assert "broke the protocol" in stderr


def test_a_published_policy_reaches_the_workers_and_those_to_come(start):
    gateway = start(publish="sealed")
    gateway.ready()
    for who in ("worker0", "worker1"):
        until(lambda who=who: gateway.events(who, "publish"))
        assert gateway.events(who, "publish")[0]["contents"] == ["second"]
    os.kill(gateway.pid("worker0"), signal.SIGKILL)
    until(lambda: len(gateway.events("worker0", "start")) == 2)
    assert gateway.events("worker0", "start")[1]["policy"] == "second"
    assert gateway.events("worker0", "start")[1]["generation"] == 2


def test_a_policy_that_is_not_sealed_is_refused(start):
    gateway = start(publish="plain")
    gateway.ready()
    os.kill(gateway.pid("worker0"), signal.SIGKILL)
    until(lambda: len(gateway.events("worker0", "start")) == 2)
    assert gateway.events("worker0", "start")[1]["policy"] == "first"
    assert not gateway.events("worker1", "publish")
    gateway.process.send_signal(signal.SIGTERM)
    assert "not sealed" in gateway.end()[1]


def test_sighup_reaches_the_supervisor_only(start):
    gateway = start()
    gateway.ready()
    gateway.process.send_signal(signal.SIGHUP)
    until(lambda: gateway.events("supervisor0", "reload"))
    assert not gateway.events("worker0", "reload")


def test_the_drain_has_a_deadline_and_the_port_is_closed_at_once(start):
    gateway = start(stubborn=True, drain_s=1.0)
    gateway.ready()
    port = gateway.events("worker0", "start")[0]["listeners"][0]
    socket.create_connection(("127.0.0.1", port)).close()
    began = time.monotonic()
    gateway.process.send_signal(signal.SIGTERM)
    code, stderr = gateway.end()
    assert code == 0
    assert time.monotonic() - began >= 2.0, "killed at the very time at which workers cut what is open"
    assert stderr.count("does not end: killed") == 2
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_second_sigterm_ends_at_once(start):
    gateway = start(stubborn=True, drain_s=60.0)
    gateway.ready()
    gateway.process.send_signal(signal.SIGTERM)
    until(lambda: gateway.events("worker0", "drain"))
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.end()[0] == 0


def test_children_end_with_a_killed_keeper(start):
    gateway = start()
    gateway.ready()
    pids = [gateway.pid(who) for who in ("worker0", "worker1", "supervisor0")]
    gateway.process.kill()
    until(lambda: not any(alive(pid) for pid in pids))


def test_children_do_not_heed_signals_meant_for_the_group(start):
    gateway = start()
    gateway.ready()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(gateway.pid("worker0"), number)
    time.sleep(0.3)
    assert len(gateway.events("worker0", "start")) == 1
    assert alive(gateway.pid("worker0"))


# ── listeners ──


def test_a_port_that_somebody_listens_on_is_refused_even_if_shared():
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        port = other.getsockname()[1]
        with pytest.raises(listen.CannotListen, match="another program listens there") as caught:
            listen.Ports(2).bind([ListenerPlan("127.0.0.1", port)])
        assert str(port) in caught.value.hint


def test_an_address_that_is_not_ours_is_refused_and_nothing_stays_open():
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(listen.CannotListen, match="no such address"):
        listen.Ports(2).bind([ListenerPlan("127.0.0.1", 0), ListenerPlan("192.0.2.1", 8080, index=1)])
    assert len(os.listdir("/proc/self/fd")) == before


def everywhere(port: int = 0) -> ListenerPlan:
    return ListenerPlan("0.0.0.0", port)


def reached(ports: listen.Ports, host: str, port: int) -> int:
    """The index of the listener that a connection comes to."""
    with socket.create_connection((host, port)):
        waiting = [index for index, listening in ports.held.items() if readable(listening.sockets, 0.2)]
    (index,) = waiting
    for each in readable(ports.held[index].sockets, 0):
        each.accept()[0].close()
    return index


@pytest.mark.parametrize("wide", [0, 1])
def test_an_address_stands_beside_all_of_them(wide: int):
    port = free_port()
    plans = [replace(everywhere(port), index=wide), ListenerPlan("127.0.0.1", port, index=1 - wide)]
    ports = listen.Ports(2)
    ports.bind(plans[::-1] if wide else plans)
    ports.commit([0, 1])
    assert reached(ports, "127.0.0.1", port) == 1 - wide
    assert reached(ports, "127.0.0.2", port) == wide
    ports.close(remove=True)


def test_a_reload_goes_from_one_address_to_all_and_back():
    port = free_port()
    narrow, wide = ListenerPlan("127.0.0.1", port), replace(everywhere(port), index=1)
    ports = listen.Ports(2)
    for plan in (narrow, wide, narrow):
        ports.bind([plan])
        ports.commit([plan.index])
        ports.release()
        assert reached(ports, "127.0.0.1", port) == plan.index
    ports.close(remove=True)


def test_another_program_beside_one_of_our_addresses_is_found():
    with socket.create_server(("127.0.0.3", 0), reuse_port=True) as other:
        port = other.getsockname()[1]
        for plans in ([ListenerPlan("127.0.0.1", port), replace(everywhere(port), index=1)],
                      [everywhere(port), ListenerPlan("127.0.0.1", port, index=1)]):  # fmt: skip
            with pytest.raises(listen.CannotListen, match=r"0\.0\.0\.0:\d+: another program listens there"):
                listen.Ports(2).bind(plans)


def test_a_socket_of_the_manager_that_does_not_share_its_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        port = theirs.getsockname()[1]
        ports = listen.Ports(2, {f"127.0.0.1:{port}": [theirs]})
        with pytest.raises(listen.CannotListen, match=f"socket on 127.0.0.1:{port} does not share") as caught:
            ports.bind([everywhere(port)])
        assert "socket unit" in caught.value.hint


def test_slots_share_the_port_that_the_kernel_chose():
    ports = listen.Ports(3)
    bound = ports.bind([ListenerPlan("127.0.0.1", 0), ListenerPlan("::1", 0, index=1)])
    assert ports.commit([1, 0]) == [1, 0]
    assert ports.plans() == bound[::-1]
    for index, listener in enumerate(bound):
        sockets = ports.held[index].sockets
        assert {sock.getsockname()[1] for sock in sockets} == {listener.port}
        assert all(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for sock in sockets)
        assert len({ports.held[index].fd(slot) for slot in range(3)}) == 3
    ports.close(remove=True)


# ── the judgement of a beat ──


def look(
    pulse: Pulse,
    times: int,
    *,
    beat: int = 0,
    step_ms: int = 100,
    delay_ms: int = 0,
    run_ms: int = 0,
    runnable: bool = False,
) -> int:
    """Look so many times; the look at which it was found wedged, 0: never."""
    for turn in range(1, times + 1):
        look.now += step_ms * MS
        look.delay += delay_ms * MS
        look.run += run_ms * MS
        if pulse.wedged(beat, Schedule(look.run, look.delay, runnable), look.now):
            return turn
    return 0


@pytest.fixture
def pulse():
    look.now, look.delay, look.run = 10**12, 0, 0
    made = Pulse(look.now)
    return made


def test_a_stopped_child_is_wedged_after_its_opportunity(pulse):
    assert look(pulse, 1, beat=5) == 0
    assert look(pulse, 20, beat=5) == LOOKS


def test_the_documents_say_how_long():
    for page in ("docs/operations.md", "docs/architecture.md"):
        assert f" {WEDGED_NS / 1e9:g} s " in (ROOT / page).read_text(), page


def test_a_spinning_child_is_wedged_too(pulse):
    assert look(pulse, 1, beat=5) == 0
    assert look(pulse, 20, beat=5, run_ms=100, runnable=True) == LOOKS


def test_a_child_waiting_for_a_cpu_is_not(pulse):
    assert look(pulse, 1, beat=5) == 0
    assert look(pulse, 100, beat=5, runnable=True) == 0  # queued, never on
    look.delay += 100 * 100 * MS  # it got one: now the delay is booked
    assert look(pulse, 1, beat=5) == 0


def test_a_child_that_got_a_tenth_of_a_cpu_has_ten_times_as_long(pulse):
    assert look(pulse, 1, beat=5) == 0
    assert look(pulse, 200, beat=5, delay_ms=90, run_ms=10) == WEDGED_NS // (10 * MS)


def test_a_beat_resets(pulse):
    for beat in range(1, 50):
        assert look(pulse, 4, beat=beat) == 0


def test_a_late_keeper_proves_nothing(pulse):
    assert look(pulse, 1, beat=5) == 0
    assert look(pulse, 2, beat=5, step_ms=60_000) == 0


def test_the_first_beat_has_longer(pulse):
    assert look(pulse, 100) == START_NS // (100 * MS)


def test_without_schedstat_wall_time_counts():
    pulse = Pulse(0)
    assert not pulse.wedged(1, None, 100 * MS)
    found = [pulse.wedged(1, None, (2 + turn) * 100 * MS) for turn in range(8)]
    assert found.index(True) == LOOKS - 1


# ── what it says ──


def test_a_reader_of_stderr_that_does_not_read_holds_nobody_up(start):
    """Far more lines than a pipe holds, and nobody reads them: the keeper still does its work."""
    gateway = start(workers=9)
    gateway.ready()
    fcntl.fcntl(gateway.process.stderr, fcntl.F_SETPIPE_SZ, 4096)
    for turn in range(6):
        for slot in range(9):
            os.kill(gateway.pid(f"worker{slot}"), signal.SIGKILL)
        until(lambda turn=turn: all(len(gateway.events(f"worker{slot}", "start")) == turn + 2 for slot in range(9)))
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(15) == 0
