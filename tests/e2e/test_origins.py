"""Several origins behind one area: who takes a request, who does not, who waits, and what an operator may say."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import GatewayFactory
from tests.e2e.named_origins import Named
from tests.e2e.support import ONE_USER, SLOW, Gateway, Origin, gateway_text, mandate_text, until
from tests.e2e.wire import Wire

FAST_HEALTH = '[area.health]\nhttp = "/healthz"\ninterval = "100ms"\ntimeout = "1s"\nrise = 2\nfall = 2\n'


def text_of(origins: list[str | dict[str, object]], area: str = "", workers: int = 1, top: str = "") -> str:
    """A gateway file before these origins."""

    def shown(origin: str | dict[str, object]) -> str:
        if isinstance(origin, str):
            return json.dumps(origin)
        return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in origin.items()) + " }"

    text = gateway_text("x", workers=workers, area=area, top=top)
    return text.replace('origins = ["x"]', f"origins = [{', '.join(map(shown, origins))}]")


def ask(running: Gateway, count: int, *, on: http.client.HTTPConnection | None = None, **headers: str) -> Counter[str]:
    """Who answered, over one connection."""
    connection = on or http.client.HTTPConnection("127.0.0.1", running.port, timeout=20 * SLOW)
    found: Counter[str] = Counter()
    for _ in range(count):
        connection.request("GET", "/", headers=headers)
        response = connection.getresponse()
        body = response.read().decode()
        found[body if response.status == 200 else str(response.status)] += 1
    if on is None:
        connection.close()
    return found


def answered(running: Gateway) -> Counter[str] | None:
    """As `ask` for six; None while a worker is being replaced."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return ask(running, 6)
    return None


def restarted(running: Gateway) -> bool:
    """Whether the worker and the supervisor have been replaced, once each."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return running.child("supervisor")["restarts"] == running.child("worker", 0)["restarts"] == 1
    return False


def state_of(running: Gateway, origin: Named) -> dict[str, Any]:
    found = [each for each in running.status()["origins"] if each["address"] == origin.at]
    assert len(found) == 1
    return dict(found[0])


def acts_of(running: Gateway, action: str) -> list[dict[str, Any]]:
    return [act for act in running.admin("GET", "/v1/acts")[1]["acts"] if act["event.action"] == action]


def held(running: Gateway, count: int, source: str = "127.0.0.1") -> list[threading.Thread]:
    """Requests in the background, each on a connection of its own."""

    def one() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            running.get("/held", source=source)

    threads = [threading.Thread(target=one, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


# ── who takes a request ──


@pytest.mark.parametrize("balance", ["round_robin", "least_connections"])
def test_idle_origins_take_turns_by_weight(gateway: GatewayFactory, named: Callable[..., Named], balance: str) -> None:
    a, b = named("a"), named("b")
    members: list[str | dict[str, object]] = [{"address": a.at, "weight": 3}, b.at]
    running = gateway(text=text_of(members, f'balance = "{balance}"'))
    assert ask(running, 40) == {"a": 30, "b": 10}


def test_the_least_loaded_takes_it_over_all_workers(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    slow, quick = named("slow"), named("quick")
    running = gateway(text=text_of([slow.at, quick.at], workers=2))
    slow.gate.clear()
    quick.gate.clear()
    held(running, 8)
    until(lambda: len(slow.paths) + len(quick.paths) == 8)
    assert abs(len(slow.paths) - len(quick.paths)) <= 2  # two workers may each have been first
    quick.gate.set()
    until(lambda: state_of(running, quick)["in_flight"] == 0)
    for _ in range(6):  # connections anew, so that both workers are asked
        assert running.get("/")[1] == b"quick"
    slow.gate.set()


def test_a_client_stays_where_it_is_hashed_to(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    members = [named(name) for name in "abc"]
    running = gateway(text=text_of([m.at for m in members], 'balance = "hash:client"', workers=2))
    clients = [f"127.0.1.{i}" for i in range(1, 31)]
    before = {client: running.get("/", source=client)[1] for client in clients}
    assert len(set(before.values())) == 3
    assert {client: running.get("/", source=client)[1] for client in clients} == before
    running.cli("drain", members[0].at)
    after = {client: running.get("/", source=client)[1] for client in clients}
    assert all(after[c] == before[c] for c in clients if before[c] != b"a")
    assert b"a" not in after.values()


def test_a_header_s_value_is_hashed(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    members = [named(name) for name in "abc"]
    running = gateway(text=text_of([m.at for m in members], 'balance = "hash:header:X-Session"'))
    found = {key: ask(running, 3, **{"x-sessioN": key}) for key in map(str, range(20))}
    assert all(len(counts) == 1 for counts in found.values())
    assert len({next(iter(counts)) for counts in found.values()}) == 3


def test_a_header_that_is_not_there_is_empty_or_stands_there_twice(
    gateway: GatewayFactory, named: Callable[..., Named]
) -> None:
    members = [named(name) for name in "abc"]
    running = gateway(text=text_of([m.at for m in members], 'balance = "hash:header:X-Session"'))

    def taken(*values: str, source: str = "127.0.0.1") -> str:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, 20 * SLOW, source_address=(source, 0))
        with contextlib.closing(connection):
            connection.putrequest("GET", "/")
            for value in values:
                connection.putheader("X-Session", value)
            connection.endheaders()
            return connection.getresponse().read().decode()

    clients = [f"127.0.1.{i}" for i in range(1, 21)]
    by_client = {client: taken(source=client) for client in clients}
    assert len(set(by_client.values())) == 3
    assert {client: taken(source=client) for client in clients} == by_client
    assert len({taken("", source=client) for client in clients}) == 1
    keys = list(map(str, range(12)))
    assert [taken(key, "another") for key in keys] == [taken(key) for key in keys]


def test_a_named_pool_is_kept_apart(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    own, api = named("own"), named("api")
    more = f'[[area.pool]]\nname = "api"\norigins = ["{api.at}"]\n[[area.route]]\npath_prefix = "/api/"\npool = "api"\n'
    running = gateway(text=text_of([own.at], more))
    assert (running.get("/")[1], running.get("/api/x")[1]) == (b"own", b"api")
    assert {each["pool"] for each in running.status()["origins"]} == {"", "api"}


def test_each_origin_is_told_its_own_host(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    a, b = named("a"), named("b")
    members: list[str | dict[str, object]] = [{"address": a.at, "host": "a.internal"}, {"address": b.at}]
    running = gateway(text=text_of(members, 'keep_host = false\nbalance = "round_robin"'))
    assert ask(running, 6) == {"a": 3, "b": 3}
    assert (set(a.hosts), set(b.hosts)) == ({"a.internal"}, {b.at})
    a.stop()
    assert ask(running, 4) == {"b": 4}  # and a request that was tried at a first
    assert set(b.hosts) == {b.at}


# ── who does not ──


def test_refused_connections_eject_and_never_the_last(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    a, b = named("a"), named("b")
    time_s = round(2 * SLOW)
    area = f'balance = "round_robin"\neject_after = 2\neject_time = "{time_s}s"\neject_time_max = "{time_s}s"'
    running = gateway(text=text_of([a.at, b.at], area))
    assert ask(running, 4) == {"a": 2, "b": 2}
    a.stop()
    assert ask(running, 8) == {"b": 8}
    assert state_of(running, a)["state"] == "ejected"
    until(lambda: acts_of(running, "origin_ejected"))
    connects = lambda: metric(running, "scrubber_origin_connects_total")  # noqa: E731
    before = connects()
    ask(running, 6)
    assert connects() == before  # it is not even tried
    b.stop()
    assert ask(running, 6) == {"502": 6}
    assert state_of(running, b)["state"] == "up"  # the last one is never ejected
    b.start()
    assert "b" in ask(running, 3)
    a.start()
    until(lambda: state_of(running, a)["state"] == "up", 10)
    until(lambda: ask(running, 4)["a"], 10)
    until(lambda: acts_of(running, "origin_back"))


def test_who_was_ejected_serves_when_the_last_one_fails(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    a, b = named("a"), named("b")
    area = 'balance = "round_robin"\neject_after = 2\neject_time = "10m"\neject_time_max = "1h"'
    running = gateway(text=text_of([a.at, b.at], area))
    a.stop()
    assert ask(running, 8) == {"b": 8}
    assert state_of(running, a)["state"] == "ejected"
    b.stop()
    assert ask(running, 3) == {"502": 3}  # both are dead
    a.start()
    assert ask(running, 60)["a"] >= 58
    assert (state_of(running, a)["state"], state_of(running, b)["state"]) == ("up", "ejected")
    a.stop()
    b.start()
    assert ask(running, 60)["b"] >= 58


def descriptors(pid: int) -> set[int]:
    return {int(name) for name in os.listdir(f"/proc/{pid}/fd")}


@contextlib.contextmanager
def no_descriptor_left(running: Gateway) -> Iterator[None]:
    """Every descriptor that the worker may open is open already, and none is above those: one that it closes is one
    that it may open."""
    pid = running.worker_pid()
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as clients:
        taken = descriptors(pid)
        while len(taken) <= max(taken):  # a gap: an idle client fills it
            clients.enter_context(Wire(running.port))
            until(lambda: descriptors(pid) != taken)  # noqa: B023 - called at once
            taken = descriptors(pid)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (max(taken) + 1, before[1]))
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_want_of_descriptors_is_no_origin_s_fault(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    members = [named(name) for name in "abc"]
    area = 'balance = "round_robin"\neject_after = 1\neject_time = "10m"\neject_time_max = "1h"'
    text = text_of([m.at for m in members], area + '\n[area.limits]\norigin_idle = "0s"')
    running = gateway(text=text, command=ONE_USER)
    client = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20 * SLOW)
    assert ask(running, 3, on=client) == {"a": 1, "b": 1, "c": 1}
    until(lambda: metric(running, "scrubber_origin_connections") == 0)
    with no_descriptor_left(running):
        assert ask(running, 6, on=client) == {"503": 6}
        (act,) = until(lambda: acts_of(running, "origin_shortage"))
        assert "could not be begun" in act["message"]
    assert metric(running, "scrubber_origin_shortages_total") >= 6
    assert metric(running, "scrubber_origin_connect_errors_total") == 0
    assert {state_of(running, m)["state"] for m in members} == {"up"}
    assert ask(running, 6, on=client) == {"a": 2, "b": 2, "c": 2}
    client.close()


def test_idle_connections_give_up_their_descriptors(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    a, b = named("a"), named("b")
    running = gateway(text=text_of([a.at, b.at], 'balance = "round_robin"'), command=ONE_USER)
    client = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20 * SLOW)
    assert ask(running, 1, on=client) == {"a": 1}
    with no_descriptor_left(running):
        assert ask(running, 4, on=client) == {"a": 2, "b": 2}
    assert metric(running, "scrubber_origin_shortages_total") == 0
    client.close()


def test_an_origin_s_errors_eject_nobody(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    a, b = named("a"), named("b")
    a.status = 500
    running = gateway(text=text_of([a.at, b.at], 'balance = "round_robin"\neject_after = 1'))
    assert ask(running, 20) == {"500": 10, "b": 10}
    assert state_of(running, a)["state"] == "up"


def test_backups_serve_while_nobody_else_does(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    main, backup = named("main"), named("backup")
    members: list[str | dict[str, object]] = [main.at, {"address": backup.at, "backup": True}]
    running = gateway(text=text_of(members, FAST_HEALTH))
    assert ask(running, 10) == {"main": 10}
    main.healthy = False
    until(lambda: state_of(running, main)["state"] == "down")
    assert ask(running, 10) == {"backup": 10}
    main.healthy = True
    until(lambda: state_of(running, main)["state"] == "up")
    assert ask(running, 10) == {"main": 10}


def test_health_checks_take_out_and_bring_back(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    a, b = named("a"), named("b")
    running = gateway(text=text_of([a.at, b.at], 'balance = "round_robin"\n' + FAST_HEALTH + 'host = "check.test"'))
    until(lambda: state_of(running, a)["health"] == "up")
    assert a.checks[0]["Host"] == "check.test"
    a.healthy = False
    until(lambda: state_of(running, a)["health"] == "down")
    assert ask(running, 6) == {"b": 6}
    (act,) = acts_of(running, "origin_down")
    assert act["message"] == f"origin {a.at} of site is down: it answers 503, expected 200-399"
    assert metric(running, "scrubber_origin_up", origin="0") == 0
    assert metric(running, "scrubber_origin_up", origin="1") == 1
    assert state_of(running, b)["label"] == "1"
    assert "down" in running.cli("status").stdout
    b.healthy = False
    until(lambda: state_of(running, b)["health"] == "down")
    assert ask(running, 6) == {"a": 3, "b": 3}  # all are out: all are used
    a.healthy = b.healthy = True
    until(lambda: state_of(running, a)["health"] == state_of(running, b)["health"] == "up")
    assert ask(running, 6) == {"a": 3, "b": 3}
    assert len(acts_of(running, "origin_up")) == 2


def test_a_check_by_tcp_needs_a_connection_only(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    a, b = named("a"), named("b")
    a.healthy = False
    area = '[area.health]\ntcp = true\ninterval = "100ms"\ntimeout = "100ms"\nfall = 2\n'
    running = gateway(text=text_of([a.at, b.at], area))
    until(lambda: state_of(running, a)["health"] == state_of(running, b)["health"] == "up")
    b.stop()
    until(lambda: state_of(running, b)["health"] == "down")
    assert state_of(running, a)["health"] == "up"


def test_who_comes_back_begins_slowly(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    a, b = named("a"), named("b")
    running = gateway(text=text_of([a.at, b.at], 'balance = "round_robin"\nslow_start = "1h"\n' + FAST_HEALTH))
    assert ask(running, 20) == {"a": 10, "b": 10}  # at the start there is nobody to be careful with
    a.healthy = False
    until(lambda: state_of(running, a)["health"] == "down")
    a.healthy = True
    until(lambda: state_of(running, a)["health"] == "up")
    counts = ask(running, 170)
    assert 8 <= counts["a"] <= 14  # a sixteenth of b's weight


def test_further_tries_are_bounded_by_the_budget(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    dead = [named(name) for name in "abc"]
    area = 'balance = "round_robin"\neject_after = 0\nretry_budget = "0%"'
    running = gateway(text=text_of([each.at for each in dead], area))
    for each in dead:
        each.stop()
    assert ask(running, 30) == {"502": 30}
    assert metric(running, "scrubber_origin_connects_total") == 30 + 10  # ten tries more, and no others
    assert metric(running, "scrubber_origin_retries_refused_total") >= 20


# ── who waits ──


def known_client(running: Gateway, source: str) -> None:
    """A client that comes back over some seconds is known."""
    for number in range(12):
        assert running.get(f"/before/{number}", source=source)[0] == 200
        time.sleep(0.3)


def test_people_known_from_before_are_served_first(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    a = named("a")
    members: list[str | dict[str, object]] = [{"address": a.at, "connections_max": 1}]
    running = gateway(text=text_of(members, '[area.limits]\norigin_wait = "30s"\norigin_wait_max = 3'))
    known_client(running, "127.0.0.2")
    a.paths.clear()
    a.gate.clear()
    answers: dict[str, int] = {}

    def one(path: str, source: str) -> None:
        answers[path] = running.get(path, source=source)[0]

    def start(path: str, source: str, waits: int) -> None:
        """They come in this order."""
        threads.append(threading.Thread(target=one, args=(path, source), daemon=True))
        threads[-1].start()
        until(lambda: metric(running, "scrubber_origin_waits_total") == waits, what=path)

    threads: list[threading.Thread] = []
    start("/first", "127.0.0.9", 0)
    until(lambda: a.paths == ["/first"])
    for number, path in enumerate(("/new/1", "/new/2", "/new/3")):
        start(path, "127.0.0.9", number + 1)
    assert running.get("/new/4", source="127.0.0.9")[0] == 503  # the queue is full
    start("/known/1", "127.0.0.2", 4)  # but not for people: the last newcomer makes room
    until(lambda: answers.get("/new/3") == 503)
    start("/known/2", "127.0.0.2", 5)
    until(lambda: answers.get("/new/2") == 503)
    a.gate.set()
    for thread in threads:
        thread.join(20 * SLOW)
    assert a.paths == ["/first", "/known/1", "/known/2", "/new/1"]
    assert {path for path, status in answers.items() if status == 200} == set(a.paths)


def test_a_place_that_comes_free_goes_to_whoever_waits(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    a, b = named("a"), named("b")
    members: list[str | dict[str, object]] = [
        {"address": a.at, "connections_max": 1},
        {"address": b.at, "connections_max": 1},
    ]
    running = gateway(text=text_of(members, '[area.limits]\norigin_wait = "20s"'))
    a.gate.clear()
    b.gate.clear()
    threads = held(running, 6)
    until(lambda: metric(running, "scrubber_origin_waiting") == 4)
    assert len(a.paths) + len(b.paths) == 2
    b.gate.set()  # any origin may serve those who wait
    until(lambda: len(b.paths) == 5)
    assert len(a.paths) == 1
    a.gate.set()
    for thread in threads:
        thread.join(10 * SLOW)
    assert metric(running, "scrubber_origin_waiting") == 0
    assert metric(running, "scrubber_origin_waits_total") == 4


def test_a_higher_limit_is_for_those_who_wait_already(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    a = named("a")
    text = text_of([{"address": a.at, "connections_max": 1}], '[area.limits]\norigin_wait = "30s"')
    running = gateway(text=text)
    a.gate.clear()
    threads = held(running, 5)
    until(lambda: metric(running, "scrubber_origin_waiting") == 4)
    running.file.write_text(text.replace("connections_max = 1", "connections_max = 3"))
    assert running.cli("reload").returncode == 0
    until(lambda: len(a.paths) == 3, 0.5)
    assert metric(running, "scrubber_origin_waiting") == 2
    a.gate.set()
    for thread in threads:
        thread.join(10 * SLOW)
    assert len(a.paths) == 5


def test_the_queue_is_bounded_and_timed(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    a = named("a")
    members: list[str | dict[str, object]] = [{"address": a.at, "connections_max": 1}]
    running = gateway(text=text_of(members, '[area.limits]\norigin_wait = "300ms"\norigin_wait_max = 2'))
    a.gate.clear()
    held(running, 3)
    until(lambda: metric(running, "scrubber_origin_waits_total") == 2)
    assert running.get("/more")[0] == 503
    until(lambda: metric(running, "scrubber_origin_waiting") == 0)  # their time is over
    assert len(a.paths) == 1
    a.gate.set()


# ── what an operator may say ──


def test_a_drained_origin_gets_nothing_new(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    a, b = named("a"), named("b")
    running = gateway(text=text_of([a.at, b.at], 'balance = "round_robin"'))
    assert ask(running, 4) == {"a": 2, "b": 2}
    a.gate.clear()
    b.gate.clear()
    (one, two) = held(running, 2)
    until(lambda: len(a.paths) == len(b.paths) == 3)
    done = running.cli("drain", a.at, "--reason", "new disk")
    assert (done.returncode, done.stdout.strip()) == (0, f"drained {a.at} of site")
    b.gate.set()
    assert ask(running, 6) == {"b": 6}
    assert state_of(running, a) | {"state": "drained", "in_flight": 1} == state_of(running, a)
    a.gate.set()
    for thread in (one, two):
        thread.join(10 * SLOW)
    until(lambda: state_of(running, a)["in_flight"] == 0)
    until(lambda: not a.open)  # nothing is kept open to it
    os.kill(running.worker_pid(), signal.SIGKILL)
    os.kill(int(running.child("supervisor")["pid"]), signal.SIGKILL)
    until(lambda: restarted(running), 20)
    assert running.cli("reload").returncode == 0
    assert state_of(running, a)["state"] == "drained"
    until(lambda: answered(running) == {"b": 6})
    assert running.cli("undrain", a.at).stdout.strip() == f"undrained {a.at} of site"
    assert ask(running, 6) == {"a": 3, "b": 3}


def test_all_drained_is_an_answer(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    a = named("a")
    running = gateway(text=text_of([a.at]))
    running.cli("drain", a.at)
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10 * SLOW)
    connection.request("GET", "/")
    response = connection.getresponse()
    assert (response.status, response.getheader("Retry-After")) == (503, "30")
    connection.close()
    assert not a.paths


def test_a_drained_area_asks_to_come_again(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    a = named("a")
    running = gateway(text=text_of([a.at]))
    assert running.cli("drain", "site").stdout.strip() == "drained area site"
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10 * SLOW)
    connection.request("GET", "/")
    response = connection.getresponse()
    assert (response.status, response.getheader("Retry-After")) == (503, "30")
    connection.close()
    assert running.status()["areas"][0]["drained"]
    running.cli("reload")
    assert running.get("/")[0] == 503
    running.cli("undrain", "site")
    assert running.get("/") == (200, b"a")
    assert [act["event.action"] for act in running.status()["acts"] if "drain" in act["event.action"]] == [
        "drain",
        "undrain",
    ]


def test_a_name_that_is_none_is_refused_with_a_hint(gateway: GatewayFactory) -> None:
    running = gateway()
    done = running.cli("drain", "sitte")
    assert done.returncode != 0
    assert "did you mean 'site'?" in done.stdout + done.stderr


def test_a_reload_keeps_what_is_known_of_origins(gateway: GatewayFactory, named: Callable[..., Named]) -> None:
    a, b, c = named("a"), named("b"), named("c")
    text = text_of([a.at, b.at], FAST_HEALTH)
    running = gateway(text=text)
    a.healthy = False
    until(lambda: state_of(running, a)["health"] == "down")
    since = state_of(running, a)["since"]
    running.file.write_text(text_of([c.at, b.at, a.at], FAST_HEALTH))
    assert running.cli("reload").returncode == 0
    assert (state_of(running, a)["health"], state_of(running, a)["since"]) == ("down", since)
    assert set(ask(running, 12)) == {"b", "c"}


def test_a_unix_socket_is_an_origin_among_others(
    gateway: GatewayFactory, named: Callable[..., Named], tmp_path: Path
) -> None:
    a, u = named("a"), named("u", address=f"unix:{tmp_path}/app.sock")
    area = 'balance = "round_robin"\neject_after = 2\neject_time = "10m"\neject_time_max = "1h"\n'
    running = gateway(text=text_of([a.at, u.at], area + FAST_HEALTH))
    assert ask(running, 10) == {"a": 5, "u": 5}
    u.healthy = False
    until(lambda: state_of(running, u)["health"] == "down")
    assert ask(running, 4) == {"a": 4}
    u.healthy = True
    until(lambda: state_of(running, u)["health"] == "up")
    assert running.cli("drain", u.at).returncode == 0
    assert ask(running, 4) == {"a": 4}
    assert running.cli("undrain", u.at).returncode == 0
    assert ask(running, 4) == {"a": 2, "u": 2}
    u.stop()
    assert ask(running, 8) == {"a": 8}
    assert u.at in {line.get("scrubber.origin") for line in running.log_lines()}


def test_real_applications_share_the_work(gateway: GatewayFactory, origins: Callable[..., Origin]) -> None:
    members = [origins(name) for name in ("one", "two")]
    text = text_of([f"127.0.0.1:{each.port}" for each in members], 'balance = "round_robin"', workers=2)
    running = gateway(text=text, mandate=mandate_text())
    found = Counter(json.loads(running.get("/x")[1])["origin"] for _ in range(20))
    assert set(found) == {"one", "two"}
    assert min(found.values()) >= 8  # each worker has a turn of its own


def metric(running: Gateway, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels."""
    total = 0.0
    for line in str(running.admin("GET", "/metrics")[1]["text"]).splitlines():
        if line.split("{")[0].split(" ")[0] == name and all(f'{k}="{v}"' in line for k, v in labels.items()):
            total += float(line.rpartition(" ")[2])
    return total
