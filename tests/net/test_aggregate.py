"""Many blocked hosts of one prefix, end to end: one drop in place of theirs, where mandate and people allow it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.e2e.support import alive, until
from tests.net.site import HERE, HERE6, PERSON, Site

V4, V6 = "198.18.7.0/24", "fd18:0:0:700::/56"
NEIGHBOUR, NEIGHBOUR6 = "198.18.7.250", "fd18:0:0:7fa::1"
AGGREGATE = "aggregate = 64"
RULES = """
[[rule]]
name = "bad"
when = { path = "/bad" }
per = "client"
then = ["block {bad}"]
[[rule]]
name = "worse"
when = { path = "/worse" }
per = "client"
then = ["block 10m"]
"""


def v4(count: int, *, but: str = "") -> list[str]:
    return [host for n in range(1, count + 1) if (host := f"198.18.7.{n}") != but]


def v6(count: int) -> list[str]:
    return [f"fd18:0:0:7{n:02x}::1" for n in range(count)]


def rules(bad: str = "10m") -> str:
    return RULES.replace("{bad}", bad)


def settle(found: Site, hosts: Sequence[str]) -> None:
    """They are at the other end of the wire from now on."""
    for host in hosts:
        found.there.ip("address", "add", f"{host}/{128 if ':' in host else 32}", "dev", "out", "nodad")


def strike(found: Site, hosts: Sequence[str], path: str = "/bad") -> None:
    """A request of each that gets it blocked; all are connected before the first is."""
    socks = []
    for host in hosts:
        with found.there.inside():
            address = (HERE6 if ":" in host else HERE, found.port)
            socks.append(socket.create_connection(address, 10, (host, 0)))
    for sock in socks:
        with sock, contextlib.suppress(OSError):
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: site.test\r\n\r\n".encode())
            sock.settimeout(0.2)
            sock.recv(4096)


def settle_and_strike(found: Site, hosts: Sequence[str], path: str = "/bad") -> None:
    settle(found, hosts)
    strike(found, hosts, path)


def folded(found: Site) -> bool:
    """Whether one prefix stands for them all: not only the first of them is in the kernel yet."""
    return found.in_force(1) and found.enforcer()["covered"] >= 64


def acts(found: Site, action: str, source: str) -> list[dict[str, Any]]:
    every = found.running.admin("GET", "/v1/acts")[1]["acts"]
    return [act for act in every if act["event.action"] == action and act.get("scrubber.source") == source]


def befriend(found: Site, source: str) -> None:
    """A client that comes back over some seconds is known."""
    for _ in range(12):
        assert found.get(source) == 200
        time.sleep(0.3)


@pytest.mark.parametrize(
    ("prefix", "hosts", "neighbour"), [(V4, v4(80), NEIGHBOUR), (V6, v6(80), NEIGHBOUR6)], ids=["v4", "v6"]
)
def test_one_prefix_in_place_of_its_hosts(
    site: Callable[..., Site], prefix: str, hosts: list[str], neighbour: str
) -> None:
    found = site(enforcer=AGGREGATE, rules=rules())
    settle(found, [neighbour])
    assert found.get(neighbour) == 200
    settle_and_strike(found, hosts)
    until(lambda: folded(found))
    assert hosts[0] not in found.table()
    assert found.shut_out(hosts[0])
    assert found.shut_out(neighbour)
    assert found.get() == 200
    until(lambda: found.enforcer()["dropped_packets"] > 0)
    assert [each["source"] for each in found.enforcer()["heaviest"]] == [prefix]
    (act,) = acts(found, "block", prefix)
    assert act["rule.name"] == "test/bad"
    assert act["scrubber.reason"].startswith("aggregate: ")
    assert act["scrubber.areas"] == ["site"]
    assert 0 < act["scrubber.ttl_s"] <= 600


def test_what_ends_when(site: Callable[..., Site]) -> None:
    """The prefix, when too few of its hosts are blocked; these, when their own time is over."""
    found = site(enforcer=AGGREGATE, rules=rules(bad="8s"))
    settle(found, [NEIGHBOUR])
    hosts = v4(80)
    settle_and_strike(found, hosts[:40], "/worse")
    settle_and_strike(found, hosts[40:])
    until(lambda: folded(found))
    assert found.shut_out(NEIGHBOUR)
    until(lambda: found.in_force(40), 30)
    assert found.get(NEIGHBOUR) == 200
    assert found.get(hosts[79]) == 200
    assert found.shut_out(hosts[0])
    until(lambda: found.enforcer()["covered"] == 0)


def test_a_prefix_lifted_by_hand_is_not_made_again(site: Callable[..., Site]) -> None:
    found = site(enforcer=AGGREGATE, rules=rules())
    settle(found, [NEIGHBOUR])
    settle_and_strike(found, v4(80))
    until(lambda: folded(found))
    blocked = found.enforcer()["covered"]
    found.unblock(V4)
    until(lambda: found.in_force(blocked))
    assert found.get(NEIGHBOUR) == 200
    assert found.shut_out("198.18.7.1")
    settle_and_strike(found, ["198.18.7.90"])
    until(lambda: found.in_force(blocked + 1))
    time.sleep(2.5)  # more than one look at the crowd
    assert len(acts(found, "block", V4)) == 1


def test_a_supervisor_that_dies_leaves_the_prefix_in_place_of_its_hosts(site: Callable[..., Site]) -> None:
    found = site(enforcer=AGGREGATE, rules=rules())
    settle_and_strike(found, v4(80))
    until(lambda: folded(found))
    killed = found.pid("supervisor")
    os.kill(killed, signal.SIGKILL)
    until(lambda: not alive(killed))

    def back() -> bool:
        with contextlib.suppress(OSError):
            return bool(found.enforcer()["here"]) and folded(found)
        return False

    until(back)
    assert found.shut_out("198.18.7.1")
    assert acts(found, "block", V4) == []  # it is there already


def test_a_silent_prefix_is_let_back_in_and_then_its_hosts(site: Callable[..., Site]) -> None:
    found = site(enforcer=f'{AGGREGATE}\nquiet = "2s"', rules=rules())
    settle(found, [NEIGHBOUR])
    settle_and_strike(found, v4(80))
    until(lambda: folded(found))
    until(lambda: acts(found, "unblock", V4))
    assert not any(acts(found, "unblock", host) for host in v4(80))  # nobody looked at these while it covered them
    assert found.get(NEIGHBOUR) == 200
    until(lambda: not found.running.admin("GET", "/v1/blocks")[1]["blocks"], 30)
    assert found.get("198.18.7.1") == 200
    assert len(acts(found, "block", V4)) == 1


def test_a_host_that_comes_in_the_probe_of_its_prefix_keeps_it_out(site: Callable[..., Site]) -> None:
    found = site(enforcer=f'{AGGREGATE}\nquiet = "4s"', rules=rules())
    settle_and_strike(found, v4(80))
    until(lambda: folded(found))
    until(lambda: found.in_force(0), 20)  # the probe
    assert not found.shut_out("198.18.7.1")  # refused by the gateway, by its own block
    until(lambda: found.in_force(1))
    assert acts(found, "unblock", V4) == []


@pytest.mark.parametrize("limit", ["mandate", "enforcer", "off"])
def test_no_prefix_beyond_what_is_allowed(site: Callable[..., Site], limit: str) -> None:
    widest = "prefix_v4_widest = 32"
    enforcer = {"mandate": AGGREGATE, "enforcer": f"{AGGREGATE}\n{widest}", "off": "aggregate = 0"}[limit]
    found = site(enforcer=enforcer, rules=rules(), proportion=widest if limit == "mandate" else "")
    settle_and_strike(found, v4(80))
    until(lambda: found.in_force(80))
    time.sleep(1.5)
    assert found.in_force(80)
    assert acts(found, "block", V4) == acts(found, "refuse", V4) == []


def test_no_prefix_with_an_address_that_is_never_blocked(site: Callable[..., Site]) -> None:
    saint = "198.18.7.3"
    found = site(enforcer=AGGREGATE, rules=rules(), proportion=f'never_block = ["{saint}"]')
    settle(found, [saint])
    settle_and_strike(found, v4(80, but=saint))
    until(lambda: found.in_force(79))
    until(lambda: acts(found, "refuse", "198.18.7.0/25"))  # asked after the /24
    (refused,) = acts(found, "refuse", V4)
    assert refused["scrubber.reason"] == "aggregate: never-block"
    assert found.get(saint) == 200


def test_people_in_a_prefix_keep_it_open(site: Callable[..., Site]) -> None:
    person = "198.18.7.3"
    found = site(enforcer=AGGREGATE, rules=rules())
    settle(found, [person])
    befriend(found, person)
    settle_and_strike(found, v4(80, but=person))
    until(lambda: found.in_force(79))
    until(lambda: acts(found, "refuse", "198.18.7.0/25"))
    (refused,) = acts(found, "refuse", V4)
    assert refused["scrubber.reason"] == "aggregate: clients_share_max"
    assert found.get(person) == 200


def test_a_half_without_people_is_blocked_alone(site: Callable[..., Site]) -> None:
    found = site(enforcer=AGGREGATE, rules=rules())
    settle(found, [NEIGHBOUR])
    befriend(found, NEIGHBOUR)
    settle_and_strike(found, v4(80))
    until(lambda: folded(found))
    assert acts(found, "block", "198.18.7.0/25")
    assert found.get(NEIGHBOUR) == found.get(PERSON) == 200
    assert found.shut_out("198.18.7.1")
