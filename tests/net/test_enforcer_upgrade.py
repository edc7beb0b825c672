"""An upgrade with blocks in force: people are served and the blocked stay out while one enforcer follows another."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import GatewayFactory
from tests.e2e.support import GENEROUS, SLOW, alive, until
from tests.net.site import ATTACKER, ATTACKER6, OTHER, Site
from tests.net.space import Space
from tests.net.watch import Knocker, Person
from tests.net.xdp_stage import demand_bpf
from tests.wanted import program

pytestmark = pytest.mark.timeout(120)


def upgrade(found: Site) -> int:
    """Done and over: what went is gone. The new enforcer's pid."""
    pids, former = children(found), found.pid("enforcer")
    code, said = found.running.admin("POST", "/v1/upgrade")
    assert code == 200, said
    until(lambda: not any(alive(pid) for pid in pids), 30, "the former processes are gone")
    until(lambda: answering(found) and found.enforcer()["here"])
    now = found.pid("enforcer")
    assert now != former
    return now


def answering(found: Site) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return bool(found.running.status()["enforcer"])
    return False


def children(found: Site) -> list[int]:
    return [int(child["pid"]) for child in found.running.status()["children"]]


def enforcers(found: Site) -> list[int]:
    """Processes in the gateway's namespace that run the enforcer."""
    pids = subprocess.run([program("ip"), "netns", "pids", found.here.name], capture_output=True, check=True).stdout
    return [int(pid) for pid in pids.split() if "scrubber.server.enforcer" in command_line(int(pid))]


def command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def entries(found: Site) -> set[str]:
    """Addresses in the sets of our table."""
    return set(re.findall(r"(\S+) counter packets", found.table()))


def test_nft_drops_all_the_while(site: Callable[..., Site]) -> None:
    found = site(rules=GENEROUS)
    for source in (ATTACKER, ATTACKER6):
        found.block(source, ttl_s=600)
    until(lambda: found.in_force(2))
    before = entries(found)
    assert len(before) == 2
    person, knocker = Person(found), Knocker(found, ATTACKER)
    with person, knocker:
        for _ in range(2):  # the second successor has a predecessor that was one
            pid = upgrade(found)
            until(lambda: found.in_force(2))
            assert entries(found) == before
            assert enforcers(found) == [pid]
    assert (person.bad, knocker.met, knocker.served) == ([], [], 0)
    assert knocker.silent > 20
    found.block(OTHER)
    until(lambda: found.in_force(3))
    found.unblock(ATTACKER)
    until(lambda: found.in_force(2))
    assert found.get(ATTACKER) == 200
    assert found.shut_out(ATTACKER6)
    assert found.running.stop() == 0
    assert "scrubber" not in found.table()
    assert enforcers(found) == []


@pytest.mark.parametrize("drop", ["xdp", "route"])
def test_what_goes_with_its_holder_leaves_a_gap_in_which_the_gateway_refuses(
    site: Callable[..., Site], drop: str
) -> None:
    if drop == "xdp":
        demand_bpf()
    found = site(rules=GENEROUS, enforcer=f'drop = ["{drop}"]\ninterfaces = ["in"]')
    found.block(ATTACKER, ttl_s=600)
    until(lambda: found.in_force(1))
    person, knocker = Person(found), Knocker(found, ATTACKER)
    with person, knocker:
        pid = upgrade(found)
        until(lambda: found.in_force(1))
        ended = time.monotonic()
        goal = knocker.silent + 20
        until(lambda: knocker.silent >= goal)
    assert (person.bad, knocker.served) == ([], 0)
    assert all(when <= ended for when in knocker.met), "it was let through after the drop was in force again"
    assert knocker.gap_s() < 5 * SLOW
    assert found.enforcer()["backends"] == [{"name": drop, "reason": ""}]
    assert enforcers(found) == [pid]
    found.unblock(ATTACKER)
    until(lambda: found.in_force(0))
    assert found.get(ATTACKER) == 200


def test_a_successor_that_does_not_come_up_changes_nothing(site: Callable[..., Site]) -> None:
    found = site(rules=GENEROUS)
    found.block(ATTACKER, ttl_s=600)
    until(lambda: found.in_force(1))
    before, pids = entries(found), children(found)
    text = found.running.file.read_text()
    person, knocker = Person(found), Knocker(found, ATTACKER)
    with person, knocker:
        for broken in (text.replace("[[area]]", "[[aera]]"), text.replace("[enforcer]", '[enforcer]\ndrop = ["none"]')):
            found.running.file.write_text(broken)
            assert found.running.admin("POST", "/v1/upgrade")[0] == 409
        found.block(OTHER)
        until(lambda: found.in_force(2))
    assert (person.bad, knocker.met, knocker.served) == ([], [], 0)
    assert children(found) == pids
    assert enforcers(found) == [found.pid("enforcer")]
    assert before < entries(found)
    found.unblock(ATTACKER)
    until(lambda: found.in_force(1))
    assert found.get(ATTACKER) == 200


def test_a_dead_enforcer_leaves_no_gap(site: Callable[..., Site]) -> None:
    """Not an upgrade, but the same way back: what the next one finds drops on while it learns what is wanted."""
    found = site(rules=GENEROUS)
    found.block(ATTACKER, ttl_s=600)
    until(lambda: found.in_force(1))
    person, knocker = Person(found), Knocker(found, ATTACKER)
    with person, knocker:
        killed = found.pid("enforcer")
        os.kill(killed, signal.SIGKILL)
        until(lambda: found.pid("enforcer") not in (0, killed) and found.enforcer()["here"] and found.in_force(1))
        goal = knocker.silent + 20
        until(lambda: knocker.silent >= goal)
    assert (person.bad, knocker.met, knocker.served) == ([], [], 0)


def test_what_was_counted_before_is_not_counted_again(site: Callable[..., Site]) -> None:
    found = site(rules=GENEROUS)
    found.block(ATTACKER, ttl_s=600)
    until(lambda: found.in_force(1))
    knocker = Knocker(found, ATTACKER)
    with knocker:
        until(lambda: knocker.silent >= 50)
    until(lambda: found.enforcer()["dropped_packets"] == knocker.knocks)
    killed = found.pid("enforcer")
    os.kill(killed, signal.SIGKILL)
    until(lambda: found.pid("enforcer") not in (0, killed) and found.enforcer()["here"] and found.in_force(1))
    assert found.shut_out(ATTACKER)
    until(lambda: found.enforcer()["dropped_packets"] == knocker.knocks + 1)
    upgrade(found)
    until(lambda: found.in_force(1))
    assert found.shut_out(ATTACKER)
    until(lambda: found.enforcer()["dropped_packets"] == 1)


def test_what_the_new_file_has_not_is_taken_out(site: Callable[..., Site]) -> None:
    """Nobody would lift it from there: blocks stay, in the gateway alone."""
    found = site(rules=GENEROUS)
    found.block(ATTACKER, ttl_s=600)
    until(lambda: found.in_force(1))
    text = found.running.file.read_text()
    found.running.file.write_text(text.replace("[enforcer]", ""))
    pids, knocker = children(found), Knocker(found, ATTACKER)
    with knocker:
        assert found.running.admin("POST", "/v1/upgrade")[0] == 200
        until(lambda: not any(alive(pid) for pid in pids), 30)
        until(lambda: knocker.met)
    assert knocker.served == 0
    assert "scrubber" not in found.table()
    assert enforcers(found) == []
    found.unblock(ATTACKER)
    until(lambda: found.get(ATTACKER) == 200)


def test_root_s_keeper_that_gave_up_what_it_takes_gets_no_enforcer(
    spaces: Callable[[str], Space], gateway: GatewayFactory
) -> None:
    """Started without: an upgrade brings none, and there is a word on it."""
    running = gateway(command=spaces("gw").into())
    running.file.write_text(running.file.read_text() + "[enforcer]\n")
    assert running.admin("POST", "/v1/upgrade")[0] == 200
    until(lambda: "without an enforcer, as nobody gave us CAP_NET_ADMIN" in running.stderr, 30)


def test_another_backend_takes_over_what_the_first_one_had(site: Callable[..., Site]) -> None:
    found = site(rules=GENEROUS, enforcer='drop = ["nft"]')
    found.block(ATTACKER, ttl_s=600)
    until(lambda: found.in_force(1))
    text = found.running.file.read_text()
    found.running.file.write_text(text.replace('"nft"', '"route"'))
    knocker = Knocker(found, ATTACKER)
    with knocker:
        upgrade(found)
        until(lambda: found.enforcer()["in_force"] == {"route": 1})
    assert knocker.served == 0
    assert "scrubber" not in found.table()
    assert found.shut_out(ATTACKER)
    found.unblock(ATTACKER)
    until(lambda: found.in_force(0))
    assert found.get(ATTACKER) == 200


def test_one_that_hangs_is_gone_before_the_next_one_starts(site: Callable[..., Site]) -> None:
    """Two would be in each other's way: an interface has one XDP program."""
    demand_bpf()
    found = site(rules=GENEROUS, enforcer='drop = ["xdp"]\ninterfaces = ["in"]')
    found.block(ATTACKER, ttl_s=600)
    until(lambda: found.in_force(1))
    os.kill(found.pid("enforcer"), signal.SIGSTOP)
    pid = upgrade(found)
    until(lambda: found.in_force(1))
    assert found.enforcer()["backends"] == [{"name": "xdp", "reason": ""}]
    assert "does not end: killed" in found.running.stderr
    assert enforcers(found) == [pid]
    assert found.shut_out(ATTACKER)
