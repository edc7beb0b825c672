"""The gateway with its enforcer: from a block in the proxy to a drop in the kernel, and back, whoever dies on the way.

A gateway in a namespace of its own, attackers and people in another, at the end of one wire.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import GatewayFactory
from tests.e2e.support import ROOT, SLOW, alive, mandate_text, until
from tests.net.site import ATTACKER, ATTACKER6, FLOOD, HERE, OTHER, Site, flooded
from tests.net.space import Space


@pytest.mark.parametrize("source", [ATTACKER, ATTACKER6])
def test_a_block_goes_down_and_comes_up_again(site: Callable[..., Site], source: str) -> None:
    found = site()
    assert found.get(source) == found.get() == 200
    found.block(source)
    until(lambda: found.in_force(1))
    assert found.shut_out(source)
    assert found.get() == 200
    until(lambda: found.enforcer()["dropped_packets"] > 0)
    found.unblock(source)
    until(lambda: found.in_force(0))
    assert found.get(source) == 200


def test_a_flood_ends_in_the_kernel_and_costs_the_worker_nothing(site: Callable[..., Site]) -> None:
    found = site()
    worker = found.pid("worker", 0)
    until(lambda: flooded(found, ATTACKER))
    before = cpu_s(worker)
    counted = found.running.metric("scrubber_connections_accepted_total")
    with found.there.inside():
        for _ in range(300):  # SYNs that nobody answers
            sock = socket.socket()
            sock.setblocking(False)
            sock.bind((ATTACKER, 0))
            sock.connect_ex((HERE, found.port))
            sock.close()
    until(lambda: found.enforcer()["dropped_packets"] >= 300)
    assert found.running.metric("scrubber_connections_accepted_total") == counted
    assert cpu_s(worker) - before < 0.1
    assert found.get() == 200
    (heaviest,) = found.enforcer()["heaviest"]
    assert heaviest["source"] == ATTACKER
    assert heaviest["packets"] >= 300


def test_who_goes_on_sending_is_shut_out_for_longer_as_far_as_the_mandate_goes(site: Callable[..., Site]) -> None:
    found = site(
        rules=FLOOD.replace("block 10m", "block 8s"), proportion='block_ttl_max = "16s"\nclients_share_max = "50%"'
    )
    until(lambda: flooded(found, ATTACKER))
    begun = time.monotonic()
    while time.monotonic() < begun + 11:
        assert found.kept_out(ATTACKER), found.running.status()["acts"]  # it sends a SYN
    assert [act["event.action"] for act in found.running.status()["acts"]].count("extend") >= 1
    until(lambda: found.in_force(0))
    assert time.monotonic() < begun + 16 + 2 * SLOW


def test_who_falls_silent_is_let_back_in_after_a_probe(site: Callable[..., Site]) -> None:
    found = site(enforcer='quiet = "1s"')
    until(lambda: flooded(found, ATTACKER))
    found.block(OTHER, ttl_s=600)  # by hand: stays
    until(lambda: "it sends nothing any more" in str(found.running.status()["acts"]))
    assert found.get(ATTACKER) == 200
    assert found.in_force(1)
    assert found.shut_out(OTHER)


def test_who_was_let_back_in_goes_down_again_when_it_is_blocked_again(site: Callable[..., Site]) -> None:
    found = site(enforcer='quiet = "2s"')
    until(lambda: flooded(found, ATTACKER))
    until(lambda: "it sends nothing any more" in str(found.running.status()["acts"]))
    found.block(ATTACKER, ttl_s=600)
    until(lambda: found.in_force(1))
    assert found.shut_out(ATTACKER)


def test_who_comes_in_its_probe_stays_out(site: Callable[..., Site]) -> None:
    found = site(enforcer='quiet = "3s"')
    until(lambda: flooded(found, ATTACKER))
    until(lambda: found.in_force(0))  # the probe
    assert not found.shut_out(ATTACKER)  # refused by the gateway, not by the kernel
    until(lambda: found.in_force(1))
    assert "it sends nothing any more" not in str(found.running.status()["acts"])
    assert found.shut_out(ATTACKER)


def test_a_block_ends_by_itself(site: Callable[..., Site]) -> None:
    found = site()
    found.block(ATTACKER, ttl_s=1.5)
    until(lambda: found.shut_out(ATTACKER))
    until(lambda: found.in_force(0))
    assert ATTACKER not in found.table()
    assert found.get(ATTACKER) == 200


def test_an_enforcer_that_dies_leaves_the_drops_and_its_successor_has_them(site: Callable[..., Site]) -> None:
    found = site()
    for source in (ATTACKER, ATTACKER6):
        found.block(source)
    until(lambda: found.in_force(2))
    killed = found.pid("enforcer")
    os.kill(killed, signal.SIGKILL)
    assert found.shut_out(ATTACKER)  # while nobody is there
    until(lambda: found.pid("enforcer") not in (0, killed) and found.enforcer()["here"] and found.in_force(2))
    assert found.shut_out(ATTACKER)
    found.unblock(ATTACKER)
    until(lambda: found.in_force(1))
    assert found.get(ATTACKER) == 200
    assert found.shut_out(ATTACKER6)


def test_a_supervisor_that_dies_leaves_the_drops_and_its_successor_says_them_again(site: Callable[..., Site]) -> None:
    found = site()
    found.block(ATTACKER)
    until(lambda: found.in_force(1))
    killed = found.pid("supervisor")
    os.kill(killed, signal.SIGKILL)
    until(lambda: not alive(killed))
    assert found.shut_out(ATTACKER)

    def back() -> bool:
        try:
            return found.enforcer()["here"] and found.in_force(1)
        except OSError:
            return False

    until(back)
    found.block(OTHER)
    until(lambda: found.in_force(2))
    found.unblock(ATTACKER)
    until(lambda: found.in_force(1))
    assert found.get(ATTACKER) == 200


def test_a_stop_takes_everything_out_or_leaves_it(site: Callable[..., Site]) -> None:
    for leave in (False, True):
        found = site(enforcer='on_stop = "leave"' if leave else "")
        mine = found.here.run("nft", "list", "ruleset")
        found.here.run("nft", "add", "table", "inet", "somebody")  # is never touched
        found.block(ATTACKER)
        until(lambda found=found: found.in_force(1))
        assert found.running.stop() == 0
        after = found.table()
        assert "table inet somebody" in after
        assert (ATTACKER in after) is leave
        assert mine != after


def test_what_somebody_else_takes_out_comes_back(site: Callable[..., Site]) -> None:
    found = site()
    found.block(ATTACKER)
    until(lambda: found.in_force(1))
    found.here.run("nft", "delete", "table", "inet", "scrubber")
    until(lambda: found.shut_out(ATTACKER))
    until(lambda: found.enforcer()["healed"] >= 1)


def test_a_reload_that_moves_a_door(site: Callable[..., Site]) -> None:
    found = site()
    found.block(ATTACKER)
    until(lambda: found.in_force(1))
    text = found.running.file.read_text()
    found.running.file.write_text(text.replace(f"{HERE}:8080", f"{HERE}:8081"))
    assert found.running.admin("POST", "/v1/reload")[0] == 200
    found.running.ports[0] = 8081
    until(lambda: found.get() == 200)
    until(lambda: found.shut_out(ATTACKER))


def test_a_never_block_that_a_reload_adds_lifts_the_drop(site: Callable[..., Site]) -> None:
    found = site()
    found.block(ATTACKER)
    until(lambda: found.in_force(1))
    mandate = found.running.directory / "mandate.toml"
    mandate.write_text(mandate_text(FLOOD, proportion=f'never_block = ["{ATTACKER}"]', serial=2))
    assert found.running.admin("POST", "/v1/reload")[0] == 200
    until(lambda: found.in_force(0))
    assert found.get(ATTACKER) == 200
    assert any("never" in act["message"] for act in found.running.status()["acts"])


def test_who_holds_what(site: Callable[..., Site]) -> None:
    """One capability in one process; the others cannot change a route."""
    found = site()
    for role, slot, wanted in (("supervisor", -1, 0), ("worker", 0, 0), ("enforcer", -1, 1 << 12)):
        status = Path(f"/proc/{found.pid(role, slot)}/status").read_text()
        held = dict(line.split(":\t", 1) for line in status.splitlines() if line.startswith("Cap"))
        for kind in ("CapEff", "CapPrm", "CapBnd"):
            assert int(held[kind], 16) == wanted, (role, kind)
        assert {int(held[kind], 16) for kind in ("CapInh", "CapAmb")} == {0}
        assert "NoNewPrivs:\t1" in status
        assert "Uid:\t0" not in status


def test_the_example_starts_as_it_stands(spaces: Callable[[str], Space], gateway: GatewayFactory) -> None:
    """As root, on a machine that has none of our users; only its state and mandate lie elsewhere."""
    text = (ROOT / "configs/enforcer.toml").read_text().replace("minimal-mandate.toml", "mandate.toml")
    running = gateway(text=f'state_dir = "state"\n{text}', command=spaces("gw").into())
    until(lambda: running.status()["enforcer"]["here"])
    assert running.status()["enforcer"]["backends"] == [{"name": "nft", "reason": ""}]


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
