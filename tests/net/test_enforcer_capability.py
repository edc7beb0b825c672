"""A gateway that is not root's but has CAP_NET_ADMIN, as a service manager gives it: one process keeps it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scrubber.config.users import SUPERVISOR_UID
from scrubber.server.privilege import CAP_NET_ADMIN, CAP_NET_BIND_SERVICE
from tests.e2e.conftest import GatewayFactory
from tests.e2e.support import GENEROUS, ROOT, alive, until
from tests.net import reach
from tests.net.site import ATTACKER, OTHER, Site
from tests.net.space import Space
from tests.net.xdp_stage import demand_bpf
from tests.wanted import program

pytestmark = pytest.mark.timeout(120)

NET_ADMIN, BIND = 1 << CAP_NET_ADMIN, 1 << CAP_NET_BIND_SERVICE


def somebody(*capabilities: str) -> list[str]:
    """Words before a program: another user, with these capabilities alone, as AmbientCapabilities= gives them."""
    given = ",".join(f"+{each}" for each in capabilities)
    words = [program("setpriv"), f"--reuid={SUPERVISOR_UID}", f"--regid={SUPERVISOR_UID}", "--clear-groups"]
    bound = ["--bounding-set", f"-all{',' if given else ''}{given}"]
    return [*words, *bound, *(["--inh-caps", given, "--ambient-caps", given] if given else [])]


@pytest.fixture
def own(spaces: Callable[[str], Space], tmp_path: Path) -> Path:
    """That user's directory."""
    made = tmp_path / "own"
    made.mkdir()
    os.chown(made, SUPERVISOR_UID, SUPERVISOR_UID)
    reach.demand([*spaces("try").into(), *reach.opened(tmp_path / "tried"), *somebody()])
    return made


def held(pid: int) -> dict[str, int]:
    """Its sets of capabilities, by name."""
    found = re.findall(r"^Cap(\w+):\t(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return {name: int(value, 16) for name, value in found}


def demand_confined(found: Site) -> None:
    """One process may change the kernel's tables, and it nothing else."""
    for child in found.running.status()["children"]:
        wanted = NET_ADMIN if child["role"] == "enforcer" else 0
        sets = held(child["pid"])
        assert (sets["Eff"], sets["Prm"], sets["Inh"], sets["Amb"]) == (wanted, wanted, 0, 0), child
        status = Path(f"/proc/{child['pid']}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        assert child["uid"] == SUPERVISOR_UID


def test_one_process_has_it(site: Callable[..., Site], own: Path, tmp_path: Path) -> None:
    become = [*reach.opened(tmp_path / "stash"), *somebody("net_admin", "net_bind_service")]
    found = site(rules=GENEROUS, become=become, directory=own)
    assert f"all processes run as uid {SUPERVISOR_UID}, with an enforcer" in found.running.stderr
    found.block(ATTACKER)
    until(lambda: found.in_force(1))
    demand_confined(found)
    assert held(found.running.process.pid)["Eff"] == NET_ADMIN | BIND  # the keeper's, for those who come after
    assert found.shut_out(ATTACKER)
    assert found.get() == 200
    killed = found.pid("enforcer")
    os.kill(killed, signal.SIGKILL)
    until(lambda: found.pid("enforcer") not in (0, killed) and found.in_force(1))
    demand_confined(found)
    found.unblock(ATTACKER)
    until(lambda: found.in_force(0))
    assert found.get(ATTACKER) == 200
    assert found.running.stop() == 0
    assert "scrubber" not in found.table()


def test_an_upgrade_hands_it_on(site: Callable[..., Site], own: Path, tmp_path: Path) -> None:
    become = [*reach.opened(tmp_path / "stash"), *somebody("net_admin")]
    found = site(rules=GENEROUS, become=become, directory=own)
    found.block(ATTACKER)
    until(lambda: found.in_force(1))
    pids = [child["pid"] for child in found.running.status()["children"]]
    assert found.running.admin("POST", "/v1/upgrade")[0] == 200
    until(lambda: not any(alive(pid) for pid in pids), 30)
    until(lambda: found.enforcer()["here"] and found.in_force(1), 30)
    demand_confined(found)
    found.block(OTHER)
    until(lambda: found.in_force(2))
    assert found.shut_out(ATTACKER)
    assert found.shut_out(OTHER)


def test_without_it_the_gateway_serves_and_says_so(
    spaces: Callable[[str], Space], gateway: GatewayFactory, own: Path, tmp_path: Path
) -> None:
    command = [*spaces("gw").into(), *reach.opened(tmp_path / "stash"), *somebody("net_bind_service")]
    running = gateway(more="[enforcer]\n", command=command, directory=own)
    assert "without an enforcer, as nobody gave us CAP_NET_ADMIN" in running.stderr
    assert running.status()["enforcer"] is None


def test_below_what_a_unit_restricts(site: Callable[..., Site], own: Path, tmp_path: Path) -> None:
    """Where packet sockets are refused as a family that there is not, and no memory may become executable."""
    restricted = [sys.executable, str(ROOT / "tests/net/restricted.py")]
    tried = subprocess.run([*restricted, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"this kernel cannot: {tried.stderr}")
    become = [*reach.opened(tmp_path / "stash"), *somebody("net_admin"), *restricted]
    found = site(rules=GENEROUS, become=become, directory=own)
    found.block(ATTACKER)
    until(lambda: found.in_force(1))
    demand_confined(found)
    assert found.shut_out(ATTACKER)


def test_xdp_takes_two_more_at_the_start_of_its_process_alone(
    site: Callable[..., Site], own: Path, tmp_path: Path
) -> None:
    demand_bpf()
    become = [*reach.opened(tmp_path / "stash"), *somebody("net_admin", "bpf", "perfmon")]
    found = site(rules=GENEROUS, become=become, directory=own, enforcer='drop = ["xdp"]\ninterfaces = ["in"]')
    found.block(ATTACKER)
    until(lambda: found.in_force(1))
    demand_confined(found)
    assert found.shut_out(ATTACKER)
    killed = found.pid("enforcer")
    os.kill(killed, signal.SIGKILL)
    until(lambda: found.pid("enforcer") not in (0, killed) and found.in_force(1))
    demand_confined(found)
    assert found.shut_out(ATTACKER)
