"""Origins by name: resolved before the start and again by TTL, by a real DNS server on loopback."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.conftest import GatewayFactory
from tests.e2e.dns_server import DnsServer
from tests.e2e.named_origins import Named
from tests.e2e.support import SLOW, Gateway, until
from tests.e2e.test_origins import acts_of, ask, state_of, text_of


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    running = DnsServer()
    yield running
    running.close()


def names_text(dns: DnsServer, *origins: str, area: str = "", workers: int = 1) -> str:
    """A gateway file that asks this server."""
    settings = f'[dns]\nservers = ["127.0.0.1:{dns.port}"]\nttl_min = "1s"\ntimeout = "1s"\n'
    return text_of(list(origins), f"{area}\n", workers=workers).replace("[[listener]]", f"{settings}[[listener]]", 1)


def addresses(running: Gateway) -> set[str]:
    """Of the origins, once every worker has the policy that names them."""
    status = running.status()
    workers = [child["generation"] for child in status["children"] if child["role"] == "worker"]
    if any(generation != status["generation"] for generation in workers):
        return set()
    return {each["address"] for each in status["origins"]}


def test_a_changed_answer_moves_the_requests_and_loses_none(
    gateway: GatewayFactory, named: Callable[..., Named], dns: DnsServer
) -> None:
    old = named("old")
    new = named("new", address="127.0.0.3", port=old.port)
    dns.table["app.test"] = [old.address]
    running = gateway(text=names_text(dns, f"app.test:{old.port}", area="keep_host = false", workers=2))
    assert ask(running, 4) == {"old": 4}
    assert set(old.hosts) == {f"app.test:{old.port}"}
    old.gate.clear()
    answers: list[tuple[int, bytes]] = []
    waiting = threading.Thread(target=lambda: answers.append(running.get("/held")), daemon=True)
    waiting.start()
    until(lambda: "/held" in old.paths)
    kept = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20 * SLOW)
    dns.table["app.test"] = [new.address]
    until(lambda: addresses(running) == {new.at}, 15)
    assert ask(running, 4, on=kept) == {"new": 4}
    old.gate.set()
    waiting.join(10 * SLOW)
    assert answers == [(200, b"old")]  # what was in flight ended where it was
    kept.close()
    said = acts_of(running, "origin_resolved")
    assert said[-1]["message"] == f"origin app.test resolves to {new.address}"
    assert running.status()["origins"][0]["name"] == f"app.test:{old.port}"


def test_a_name_s_addresses_are_never_blocked_and_others_are(
    gateway: GatewayFactory, named: Callable[..., Named], dns: DnsServer
) -> None:
    origin = named("origin", address="127.0.0.7")
    dns.table["app.test"] = [origin.address]
    running = gateway(text=names_text(dns, f"app.test:{origin.port}", f"gone.test:{origin.port}"))
    order = {"ttl_s": 60, "reason": "a test"}
    assert running.admin("POST", "/v1/blocks", {**order, "source": "127.0.0.9"})[0] == 201
    code, said = running.admin("POST", "/v1/blocks", {**order, "source": origin.address})
    assert code == 409
    assert "127.0.0.7/32 is never-block" in said["detail"]


def test_each_address_of_a_name_is_an_origin(
    gateway: GatewayFactory, named: Callable[..., Named], dns: DnsServer
) -> None:
    a = named("a")
    b = named("b", address="127.0.0.3", port=a.port)
    dns.table["app.test"] = [b.address, a.address]
    running = gateway(text=names_text(dns, f"app.test:{a.port}", area='balance = "round_robin"'))
    assert ask(running, 10) == {"a": 5, "b": 5}
    generation = running.status()["generation"]
    dns.table["app.test"].reverse()
    asked = len(dns.asked)
    until(lambda: len(dns.asked) >= asked + 4, 15)
    assert running.status()["generation"] == generation  # the same addresses in another order change nothing
    done = running.cli("drain", f"app.test:{a.port}")
    assert done.returncode == 0
    assert ask(running, 2) == {"503": 2}
    dns.table["app.test"] = [a.address]
    until(lambda: addresses(running) == {a.at}, 15)
    assert state_of(running, a)["drained"]


def test_a_name_that_does_not_resolve_is_a_warning(
    gateway: GatewayFactory, named: Callable[..., Named], dns: DnsServer
) -> None:
    a, late = named("a"), named("late")
    running = gateway(text=names_text(dns, a.at, f"late.test:{late.port}", area='balance = "round_robin"'))
    assert "late.test does not resolve" in running.stderr
    until(lambda: any("late.test does not resolve" in notice for notice in running.status()["notices"]))
    assert ask(running, 4) == {"a": 4}
    dns.table["late.test"] = [late.address]
    until(lambda: late.at in addresses(running), 20)
    assert ask(running, 40) == {"a": 20, "late": 20}


def test_an_answer_that_fails_keeps_what_was_known(
    gateway: GatewayFactory, named: Callable[..., Named], dns: DnsServer
) -> None:
    a = named("a")
    dns.table["app.test"] = [a.address]
    running = gateway(text=names_text(dns, f"app.test:{a.port}"))
    assert ask(running, 2) == {"a": 2}
    dns.table.clear()
    until(lambda: acts_of(running, "origin_unresolved"), 15)
    assert ask(running, 2) == {"a": 2}
    assert running.cli("reload").returncode == 0  # nor does a reload forget it
    assert ask(running, 2) == {"a": 2}


def test_the_hosts_file_comes_first(gateway: GatewayFactory, named: Callable[..., Named], dns: DnsServer) -> None:
    a = named("a")
    running = gateway(text=names_text(dns, f"localhost:{a.port}"))
    until(lambda: "127.0.0.1:" + str(a.port) in addresses(running))
    assert "localhost" not in dns.asked


def test_only_names_that_resolve_to_nothing_are_an_answer(gateway: GatewayFactory, dns: DnsServer) -> None:
    running = gateway(text=names_text(dns, "nobody.test:80"))
    assert ask(running, 2) == {"503": 2}
