"""When something that the gateway needs gives out: it says so once a minute, serves what it can, and is whole again
when the cause goes."""

from __future__ import annotations

import contextlib
import itertools
import json
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import wanted
from tests.e2e.conftest import GatewayFactory
from tests.e2e.dns_server import DnsServer
from tests.e2e.named_origins import Named
from tests.e2e.proxy import Proxy
from tests.e2e.recorder import Exchange, Recorder, respond
from tests.e2e.support import ONE_USER, SANITIZED, SLOW, Origin, until
from tests.e2e.test_origins import acts_of, ask, no_descriptor_left, text_of
from tests.e2e.wire import Closed, Wire, fetch

BLOCKING = """
[[rule]]
name = "flood"
per = "client"
limit = "1/min burst 2"
then = ["block 2s"]
"""


def outcome(call: Callable[[], Any]) -> str:
    try:
        return str(call().status)
    except (Closed, ConnectionError):
        return "broken off"


# ── origins ──


def reset_in_mid_body(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
    exchange.reset()


def flapping() -> Callable[[Exchange], None]:
    turns = itertools.count()

    def answer(exchange: Exchange) -> None:
        if next(turns) % 2:
            exchange.reset()
        respond()(exchange)

    return answer


def test_whatever_an_origin_does_it_is_said_once_and_everybody_else_is_served(proxy: type[Proxy]) -> None:
    """An origin that is dead, hangs, is slow, flaps, resets: each for a while, before one gateway."""
    with proxy(limits='read_timeout = "300ms"\nconnect_timeout = "300ms"') as found:
        released = threading.Event()

        def slow(exchange: Exchange) -> None:
            time.sleep(0.15)
            respond()(exchange)

        ways: dict[str, tuple[Callable[[Exchange], None], set[str]]] = {
            "hanging": (lambda exchange: bool(released.wait(20)) and None, {"504"}),
            "slow": (slow, {"200"}),
            "flapping": (flapping(), {"200"}),  # what fails on a kept connection is asked again on a new one
            "resetting": (Exchange.reset, {"502"}),
            "resetting in mid-body": (reset_in_mid_body, {"broken off"}),
            "closing": (Exchange.close, {"502"}),
        }
        for name, (answer, expected) in ways.items():
            path = f"/{name.replace(' ', '-')}"
            found.origin.answers[path] = answer
            seen = {outcome(lambda path=path: fetch(found.port, path)) for _ in range(6)}  # type: ignore[misc]
            assert seen == expected, name
            assert fetch(found.port, f"{path}/others").status == 200, name
            found.origin.answers[path] = respond()
            assert [fetch(found.port, path).status for _ in range(4)] == [200] * 4, f"{name}, when it is over"
        released.set()

        port = found.origin.port
        found.origin.close()
        assert {fetch(found.port, "/dead").status for _ in range(6)} == {502}
        with Recorder(port=port) as back:
            until(lambda: fetch(found.port, "/back").status == 200)
            assert [fetch(found.port, "/back").status for _ in range(4)] == [200] * 4
            for action in ("origin_errors", "origin_bad"):
                (act,) = until(lambda action=action: acts_of(found.running, action))  # type: ignore[misc]
                assert act["message"].split()[0].isdigit()
            found.origin = back
            found.whole()


def test_half_of_a_set_of_origins_is_dead(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    members = [named(name) for name in "abcd"]
    running = gateway(text=text_of([m.at for m in members], 'eject_time = "2s"\neject_time_max = "2s"'))
    assert sum(ask(running, 20)[name] for name in "abcd") == 20
    for member in members[:2]:
        member.stop()
    seen = ask(running, 100)
    assert seen["c"] + seen["d"] == 100, "nobody notices"
    dead = {member.at for member in members[:2]}
    until(lambda: {act["scrubber.origin"] for act in acts_of(running, "origin_ejected")} == dead)
    for back in members[:2]:
        back.start()
    until(lambda: set(ask(running, 40)) == set("abcd"), 15)
    assert not acts_of(running, "origin_errors")


def test_names_cannot_be_asked_for(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    """No answer any more, then answers again: what was known serves, one act says it, one that it is over."""
    origin, dns = named("a"), DnsServer()
    dns.table["app.test"] = [origin.address]
    settings = f'[dns]\nservers = ["127.0.0.1:{dns.port}"]\nttl_min = "1s"\ntimeout = "500ms"\n'
    text = text_of([f"app.test:{origin.port}"]).replace("[[listener]]", f"{settings}[[listener]]", 1)
    try:
        running = gateway(text=text)
        assert ask(running, 2) == {"a": 2}
        dns.table.clear()
        until(lambda: acts_of(running, "origin_unresolved"), 15)
        asked = len(dns.asked)
        until(lambda: len(dns.asked) >= asked + 2, 20)
        assert ask(running, 5) == {"a": 5}
        assert len(acts_of(running, "origin_unresolved")) == 1
        assert any("app.test does not resolve" in notice for notice in running.status()["notices"])
        dns.table["app.test"] = [origin.address]
        (over,) = until(lambda: acts_of(running, "origin_resolved"), 20)
        assert "resolves again" in over["message"]
        assert not any("does not resolve" in notice for notice in running.status()["notices"])
    finally:
        dns.close()


# ── what the machine has ──


def test_descriptors_run_out(gateway: GatewayFactory, origin: Origin) -> None:
    """Who is connected is served; who is not waits in the queue, and is served when there are some again."""
    running = gateway(workers=1, command=ONE_USER)
    with Wire(running.port) as kept:
        assert kept.get("/hello").status == 200
        with no_descriptor_left(running):
            late = Wire(running.port)
            late.send(b"GET /hello HTTP/1.1\r\nHost: site.test\r\n\r\n")
            for _ in range(20):
                assert kept.get("/hello").status == 200
                time.sleep(0.02)
            (act,) = until(lambda: acts_of(running, "accept_shortage"))
            assert "descriptors ran out" in act["message"]
            late.sock.settimeout(0.2)
            with pytest.raises(TimeoutError):
                late.answer()
        late.sock.settimeout(15 * SLOW)
        assert late.answer().status == 200
        late.sock.close()
    assert [running.get("/hello")[0] for _ in range(5)] == [200] * 5
    assert len(acts_of(running, "accept_shortage")) == 1
    assert running.child("worker", 0)["restarts"] == 0


# AddressSanitizer maps terabytes for its shadow before anything of ours runs.
ADDRESS_SPACE = pytest.mark.skipif(SANITIZED, reason="a sanitizer needs the address space that this takes away")


@ADDRESS_SPACE
@pytest.mark.parametrize("as_bytes", [60_000_000, 200_000_000])
def test_memory_is_refused_at_the_start(gateway: GatewayFactory, as_bytes: int) -> None:
    """For the tables; for the pools of a worker. It does not come up, and says why."""
    running = gateway(workers=1, wait=False, command=["prlimit", f"--as={as_bytes}"])
    assert running.process.wait(20 * SLOW) == 1
    assert "memory" in running.stderr
    assert "Try: " in running.stderr
    assert "Traceback" not in running.stderr


@ADDRESS_SPACE
def test_memory_is_refused_while_running(gateway: GatewayFactory, origin: Origin) -> None:
    """Everything for traffic was allocated at the start. A reload that would need more changes nothing, and says so."""
    running = gateway(workers=1, command=ONE_USER)
    assert running.get("/hello")[0] == 200
    pid = running.worker_pid()
    size_bytes = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (size_bytes // 2, before[1]))  # not one page more
    wires = [Wire(running.port) for _ in range(100)]
    for wire in wires:
        wire.send(b"GET /hello HTTP/1.1\r\nHost: site.test\r\n\r\n")
    assert [wire.answer().status for wire in wires] == [200] * 100
    generation = running.child("worker", 0)["generation"]
    refused = running.cli("reload")
    assert refused.returncode != 0
    assert running.child("worker", 0)["generation"] == generation
    assert [wire.get("/hello").status for wire in wires] == [200] * 100
    resource.prlimit(pid, resource.RLIMIT_AS, before)
    assert running.cli("reload").returncode == 0
    assert [wire.get("/hello").status for wire in wires] == [200] * 100
    for wire in wires:
        wire.sock.close()
    assert running.child("worker", 0)["restarts"] == 0
    assert running.worker_pid() == pid


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[None]:
    """No byte is left on this disk."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    yield
    filler.unlink()


def on_small_disk(state: Path) -> list[str]:
    """Words before a program: `state` is a disk of 256 KiB, for it and its children only."""
    words = wanted.own_mounts()
    state.mkdir(parents=True)
    mount = f'mount -t tmpfs -o size=256k,mode=700 none "{state}" && exec "$@"'
    return [*words, "sh", "-c", mount, "sh"]


def test_the_disk_is_full(gateway: GatewayFactory, origin: Origin, tmp_path: Path) -> None:
    """State and log on one small disk: requests are served, lines are lost and counted, a reload works; the line in
    whose middle the disk was full is ended before the next one."""
    words = on_small_disk(tmp_path / "g0" / "state")
    running = gateway(workers=1, command=words)
    running.state = Path(f"/proc/{running.process.pid}/root{running.state}")  # as the gateway sees it
    running.socket = running.state / "admin.sock"
    assert running.get("/hello")[0] == 200
    until(running.log_lines)  # on a page that has room for some more
    with filled(running.state):
        assert [running.get("/hello")[0] for _ in range(50)] == [200] * 50
        until(lambda: running.status()["log"]["lines_lost"] >= 40)
        assert any("No space left" in notice for notice in running.status()["notices"])
        assert running.admin("POST", "/v1/reload")[0] == 200
        assert running.get("/hello")[0] == 200
        said = [line for line in running.stderr.splitlines() if "access log" in line and "No space left" in line]
        assert len(said) == 1, "it is said once a minute"
    lost = running.status()["log"]["lines_lost"]
    running.get("/again")
    log = running.state / "access.log"
    until(lambda: '"/again"' in log.read_text())
    lines = log.read_text().splitlines()
    torn = [line for line in lines if not line.endswith("}")]
    assert len(torn) == 1
    assert [json.loads(line)["event.kind"] for line in lines if line not in torn]
    assert torn[0].startswith('{"@timestamp"')
    assert '"/again"' not in torn[0]
    until(lambda: not any("No space left" in notice for notice in running.status()["notices"]))
    assert running.status()["log"]["lines_lost"] == lost
    assert {child["restarts"] for child in running.status()["children"]} == {0}


def test_a_disk_that_is_full_at_the_start_is_an_error(gateway: GatewayFactory, tmp_path: Path) -> None:
    words = on_small_disk(tmp_path / "g0" / "state")
    words[4] = words[4].replace("exec", f'{{ cat /dev/zero >"{tmp_path}/g0/state/filler" 2>/dev/null; true; }} && exec')
    running = gateway(workers=1, command=[*ONE_USER, *words], wait=False)
    assert running.process.wait(20 * SLOW) == 1
    assert "No space left" in running.stderr
    assert "Traceback" not in running.stderr


# The wall clock of whoever preloads it, moved by the seconds in a file; every other clock and wait as it is.
CLOCK = r"""
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec* t) {
    char text[32] = {0};
    int result = (int)syscall(SYS_clock_gettime, id, t);
    if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        int fd = open(getenv("CLOCK_FILE"), O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0) t->tv_sec += atol(text);
        if (fd >= 0) close(fd);
    }
    return result;
}
"""
DAY_S = 86_400


def test_the_clock_is_stepped_back_and_forth(gateway: GatewayFactory, origin: Origin, tmp_path: Path) -> None:
    """Limits, deadlines and blocks go by another clock: nobody is shut out for longer, nothing is dropped."""
    clock, library = tmp_path / "clock", tmp_path / "clock.so"
    clock.write_text("0")
    (tmp_path / "clock.c").write_text(CLOCK)
    subprocess.run([wanted.program("gcc", "cc"), "-shared", "-fPIC", "-o", library, tmp_path / "clock.c"], check=True)
    fake = {"LD_PRELOAD": str(library), "CLOCK_FILE": str(clock)}
    running = gateway(workers=1, rules=BLOCKING, env=fake)
    for number, step in enumerate((400 * DAY_S, -2 * DAY_S, 0), 1):
        client = f"127.0.7.{number}"
        with contextlib.suppress(OSError):
            statuses = [running.get("/hello", source=client)[0] for _ in range(3)]
            pytest.fail(f"{client} was not blocked: {statuses}")
        blocked_at = time.monotonic()
        clock.write_text(str(step))
        until(lambda number=number: len(acts_of(running, "clock_set")) >= number, 15)  # type: ignore[misc]
        assert running.get("/hello", source=f"127.0.8.{number}")[0] == 200, f"stepped to {step} s"
        until(lambda: not running.admin("GET", "/v1/blocks")[1]["blocks"], 10, f"the end of a block after {step}")
        assert time.monotonic() - blocked_at > 2 - 0.5, f"{step}: the block ended before its time"
    assert len(acts_of(running, "clock_set")) == 3
    assert {child["restarts"] for child in running.status()["children"]} == {0}
