"""The demo in networks of its own: they are made and gone, load stays within them, and the provider obeys."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.demo import gateway, network, plan, upstream
from bench.demo.children import Child, Nursery
from bench.demo.figures import Figures
from bench.demo.network import PROTECTED, SITE, VICTIM, Network
from bench.load.sealed import space_name
from tests.e2e.support import PRELOADED, SANITIZED, sanitizer
from tests.net.conftest import why_not
from tests.net.space import Space, wire
from tests.wanted import program

ROOT = Path(__file__).parents[2]
ATTACKER = "198.19.7.7"
SERVER = """
import socket, sys
server = socket.create_server((sys.argv[1], 8088), backlog=1000)
print("up", flush=True)
while True:
    sock, (peer, _) = server.accept()
    with sock:
        sock.recv(4096)
        sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
    print(peer, flush=True)
"""


@pytest.fixture
def own() -> Iterator[Network]:
    """The demo's networks, made by this process."""
    for name in ("ip", "nft", "bird", "unshare"):
        program(name)
    if refused := why_not():
        pytest.skip(refused)
    with Network() as made:
        yield made


@pytest.fixture
def open_home() -> Iterator[Path]:
    """A directory that the gateway's other users reach."""
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        yield Path(home)


def names(maker: int | None = None) -> set[str]:
    """Networks that this process, or another, has made for a demo."""
    return {path.name for path in Path("/run/netns").glob(space_name(maker or os.getpid(), "*"))}


def attack(target: str = SITE, source: str = ATTACKER) -> dict[str, Any]:
    """A spec of a few requests."""
    one = {
        "kind": "get", "how": "requests", "shape": "plain", "host": "portal.example", "target": target, "port": 8088,
        "sources": [source], "rate_per_s": 100, "connections_max": 4, "connect_s": 0.15, "start_s": 0, "stop_s": 30,
    }  # fmt: skip
    return {"t0_ns": time.monotonic_ns(), "seed": 1, "nice": 0, "requests_max": 20, "seconds_max": 10, "attacks": [one]}


def flood(into: tuple[str, ...], **how: str) -> tuple[int, str, dict[str, int]]:
    """What became of a flood that was started there: its exit code, what it complained of, what each address sent."""
    command = [*into, sys.executable, "-m", "bench.load.flood"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as load:
        assert load.stdin and load.stdout and load.stderr
        load.stdin.write(json.dumps(attack(**how)) + "\n")
        load.stdin.flush()  # it stops when this is closed
        messages = [json.loads(line) for line in load.stdout]
        complaint = load.stderr.read()
    sent = {address: count for each in messages if each["type"] == "senders" for _, address, count in each["rows"]}
    return load.returncode, complaint, sent


@contextlib.contextmanager
def site(own: Network) -> Iterator[subprocess.Popen[str]]:
    """Somebody who answers in the gateway's network and says to whom."""
    command = [*own.gateway.into, sys.executable, "-c", SERVER, SITE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline() == "up\n"
            yield server
        finally:
            server.kill()


def test_networks_are_there_and_then_gone(own: Network) -> None:
    assert names() == {space_name(os.getpid(), label) for label in ("outside", "upstream", "gateway")}
    own.close()
    assert names() == set()


def test_what_fails_halfway_leaves_nothing(own: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    own.close()
    monkeypatch.setattr(network, "COUNTER", "add nonsense")
    with pytest.raises(network.NoNetwork, match="syntax error"):
        Network()
    assert names() == set()


def test_what_a_killed_run_has_left_goes_and_what_lives_stays(own: Network) -> None:
    own.close()
    gone = subprocess.Popen(["true"])
    gone.wait()
    empty, used, living = (space_name(maker, label) for maker, label in ((gone.pid, "a"), (gone.pid, "b"), (1, "c")))
    for name in (empty, used, living):
        subprocess.run([program("ip"), "netns", "add", name], check=True)
    user = subprocess.Popen([program("ip"), "netns", "exec", used, "sleep", "60"])
    try:
        found = ""
        while str(user.pid) not in found.split():
            found = subprocess.run([program("ip"), "netns", "pids", used], capture_output=True, text=True).stdout
        assert set(network.leftovers()) == {empty}
        with Network():
            assert names(gone.pid) | names(1) == {used, living}
    finally:
        user.kill()
        user.wait()
        for name in (used, living):
            subprocess.run([program("ip"), "netns", "delete", name], check=True)


def test_load_goes_from_the_pool_to_the_site(own: Network) -> None:
    with site(own) as server:
        code, complaint, sent = flood(own.outside.into)
        assert (code, complaint) == (0, "")
        assert set(sent) == {ATTACKER}
        assert server.stdout is not None
        assert server.stdout.readline() == f"{ATTACKER}\n"


@pytest.mark.parametrize("how", [{"target": "192.0.2.1"}, {"target": "8.8.8.8"}, {"source": "192.0.2.10"}])
def test_load_goes_nowhere_else_there(own: Network, how: dict[str, str]) -> None:
    code, complaint, sent = flood(own.outside.into, **how)
    assert code != 0
    assert "LoadRefused" in complaint
    assert sent == {}


def test_load_refuses_in_the_machines_own_network(own: Network) -> None:
    """Though networks of this run are there."""
    code, complaint, _ = flood(())
    assert code != 0
    assert "in its parent's network" in complaint


def test_load_refuses_in_the_networks_of_others(own: Network, spaces: Callable[[str], Space]) -> None:
    """A name that is not this run's, or a run that is not its parent's."""
    code, complaint, _ = flood(tuple(spaces("other").into()))
    assert code != 0
    assert "no network that its parent has made" in complaint
    code, complaint, _ = flood((*own.outside.into, "sh", "-c", '"$0" "$@"; exit $?'))
    assert code != 0
    assert "in its parent's network" in complaint


def test_load_refuses_where_any_wire_leads_out(own: Network, spaces: Callable[[str], Space]) -> None:
    """Two routers away; a wire that is down leads nowhere."""
    other = spaces("other")
    wire(other, "way 192.0.2.21/30", other, "in 192.0.2.22/30")
    other.ip("link", "set", "in", "netns", own.gateway.name)
    assert flood(own.outside.into)[1] == ""
    own.gateway.ip("link", "set", "in", "up")
    code, complaint, _ = flood(own.outside.into)
    assert code != 0
    assert "in of scrubber-demo-" in complaint


def test_why_it_may_not_be(own: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert network.why_not() == ""
    os.seteuid(65534)
    try:
        assert network.why_not() == "it takes root"
    finally:
        os.seteuid(0)
    (tmp_path / "ip").symlink_to(program("ip"))
    monkeypatch.setattr(network, "PATH", str(tmp_path))
    assert network.why_not() == "it takes nftables, bird2, util-linux (apt-get install nftables bird2 util-linux)"
    for name in ("nft", "bird"):
        (tmp_path / name).symlink_to(program(name))
    unshare = tmp_path / "unshare"
    unshare.write_text("#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2\nexit 1\n")
    unshare.chmod(0o755)
    assert network.why_not() == "no network can be made here: unshare failed: Operation not permitted"


async def until(holds: Callable[[], Any], what: str) -> None:
    """Asks again and again."""
    for _ in range(600):
        if await holds():
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"not within 30 s: {what}")


async def test_the_provider_drops_what_is_announced_and_the_line_is_quiet(own: Network, tmp_path: Path) -> None:
    """Both BIRDs on the files of a run. What the enforcer would put into the table of victims is put there by hand."""
    line, figures = upstream.Line(own), Figures()
    the_plan = plan.draw(3, 1, calm_s=0, flood_s=40, place=plan.NETWORK)
    victim = next(a for a in the_plan.flood_specs(time.monotonic_ns(), 8088)[-1]["attacks"] if a["kind"] == "victim")
    spec = {**attack(), "requests_max": 20_000, "seconds_max": 50, "attacks": [victim]}

    async def come(more: int) -> bool:
        await line.look(figures, time.monotonic())
        return figures.victim.counted[-1][1] >= more

    async def quiet() -> bool:
        await line.look(figures, time.monotonic())
        await asyncio.sleep(0.5)
        await line.look(figures, time.monotonic())
        return figures.victim.counted[-1][1] == figures.victim.counted[-2][1]

    async with Nursery() as nursery:
        await line.start(nursery, tmp_path, gateway.write_files(tmp_path, 8088, 8001, enforced=True))
        tried = nursery.add(
            await Child.module("bench.load.flood", lambda m: figures.hear_attack("f", m), spec, into=own.outside.into)
        )
        await until(lambda: come(100), "the line brings packets to the victim")
        assert not await line.dropped()
        own.gateway.ip("route", "add", VICTIM, "dev", "north", "table", "667", "proto", "200")
        await until(line.dropped, "the provider drops them")
        await until(quiet, "none of them comes over the line")
        assert tried.process.returncode is None, "they are sent all the while"
        own.gateway.ip("route", "delete", VICTIM, "table", "667")
        before = figures.victim.counted[-1][1]
        await until(lambda: come(before + 100), "they come again")
        assert not await line.dropped()
        assert nursery.failure() is None
    assert figures.victim.per_s(0, time.monotonic()) > 0


async def test_the_victim_is_given_up_and_no_longer_than_the_gateway_runs(own: Network, open_home: Path) -> None:
    """The gateway of a run, as its mandate allows it; what the mandate does not name is refused."""
    line, figures, refused = upstream.Line(own), Figures(), Figures()
    file = gateway.write_files(open_home, 8088, 8001, enforced=True)
    async with Nursery() as nursery:
        await line.start(nursery, open_home, file)
        async with Nursery() as inner:
            watch = await gateway.start(inner, file, [*own.gateway.into, *sanitizer()])
            async with watch.session:
                await line.give_up(watch, figures, 1.0)
                assert (figures.victim.status, figures.victim.answer) == (201, "")
                await until(line.dropped, "the provider drops it")
                await watch.last_words(figures)
                asked = {"net": PROTECTED, "ttl_s": 5, "reason": "a test", "loss": "everything"}
                status, answer = await watch.post("/v1/blackholes", asked)
                await inner.stop()
                await line.give_up(watch, refused, 1.0)
        await until(lambda: lifted(line), "the provider drops nothing any more")
    assert figures.enforcer_says["backends"] == [{"name": "nft", "reason": ""}]
    assert figures.enforcer_says["upstream"]["announced"]["victim"] == 1
    assert 400 <= status < 500
    assert upstream.detail_of(answer) != answer
    assert refused.victim.status == 0
    assert refused.victim.dropped_s is None
    assert "the gateway did not answer" in refused.victim.answer


async def lifted(line: upstream.Line) -> bool:
    return not await line.dropped()


@pytest.mark.skipif(SANITIZED, reason=PRELOADED)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_leaves_nothing(own: Network, tmp_path: Path, number: signal.Signals) -> None:
    own.close()
    command = [sys.executable, "-m", "bench.demo", "--people", "5"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        assert "calm: 5 people browse" in demo.stdout.readline()
        assert len(names(demo.pid)) == 3
        demo.send_signal(number)
        assert "nothing runs any more" in demo.stdout.read()
        assert demo.wait(30) == 130
    assert names(demo.pid) == set()
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            assert b"/scrubber-demo-" not in process.read_bytes(), process


def test_the_whole_pool_is_at_home_outside(own: Network) -> None:
    """Each of its addresses can be bound, though none was set up by itself; nobody else's can."""
    code = "import socket, sys; socket.create_server((sys.argv[1], 0))"
    for address, good in ((plan.NETWORK.first, True), (plan.NETWORK.last, True), ("198.20.0.1", False), (SITE, False)):
        done = subprocess.run([*own.outside.into, sys.executable, "-c", code, address], capture_output=True)
        assert (done.returncode == 0) is good, address
    with pytest.raises(OSError, match="assign"), socket.socket() as sock:
        sock.bind((plan.NETWORK.first, 0))  # of this machine's own network it is none
