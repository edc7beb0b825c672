"""Orders and rules that reach the provider's routers, through the whole gateway, BIRD at both ends."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.e2e.conftest import GatewayFactory
from tests.e2e.support import Gateway, alive, mandate_text, until
from tests.net import reach
from tests.net.theatre import BESIDE, SITE, VICTIM, Theatre
from tests.wanted import package

PERSON, SOURCE = "198.19.0.1", "198.18.7.7"


@pytest.fixture
def running(theatre: Theatre, gateway: GatewayFactory) -> Gateway:
    found = theatre.play(gateway, mandate_text())
    until(lambda: upstream(found)["reason"] == "")
    return found


def upstream(running: Gateway) -> dict[str, Any]:
    return running.status()["enforcer"]["upstream"]  # type: ignore[no-any-return]


def order(running: Gateway, net: str, ttl_s: float = 60, **more: str) -> tuple[int, dict[str, Any]]:
    return running.admin("POST", "/v1/blackholes", {"net": net, "ttl_s": ttl_s, "reason": "a test", **more})


def listed(running: Gateway) -> dict[str, str]:
    return {each["target"]: each["state"] for each in running.admin("GET", "/v1/blackholes")[1]["blackholes"]}


def test_a_victim_and_a_source_are_dropped_upstream_and_let_go(theatre: Theatre, running: Gateway) -> None:
    code, said = order(running, VICTIM, loss="nothing is served there")
    assert (code, said["did"], said["kind"], said["state"]) == (201, "announced", "victim", "announced"), said
    assert order(running, SOURCE)[1]["kind"] == "source"
    until(lambda: theatre.blackholes() == {VICTIM, SOURCE})
    assert upstream(running)["announced"] == {"victim": 1, "source": 1, "flow": 0}
    assert theatre.get(PERSON) == 200
    with pytest.raises(TimeoutError):
        theatre.get(SOURCE, 0.5)
    assert running.admin("DELETE", f"/v1/blackholes?target={SOURCE}")[0] == 200
    until(lambda: theatre.blackholes() == {VICTIM})
    assert theatre.get(SOURCE) == 200
    acts = [act["event.action"] for act in running.status()["acts"]]
    assert acts.count("blackhole") == 2 and acts.count("withdraw") == 1


def test_what_ends_is_withdrawn(theatre: Theatre, running: Gateway) -> None:
    assert order(running, VICTIM, 1.5, loss="a test")[0] == 201
    until(lambda: theatre.blackholes() == {VICTIM})
    until(lambda: not theatre.blackholes())
    until(lambda: listed(running) == {})
    assert order(running, VICTIM, 1.5, loss="a test")[0] == 201


REFUSED: list[tuple[str, dict[str, str], str]] = [
    ("0.0.0.0/0", {"loss": "all"}, "everybody"),
    ("203.0.113.0/25", {"loss": "half"}, "wider than /32, for a victim"),
    ("203.0.113.0/24", {"loss": "all"}, "all that we protect"),
    ("198.18.0.0/16", {}, "wider than /24"),
    ("203.0.0.0/16", {"loss": "x"}, "not ours"),
    (VICTIM, {}, "everybody who wants to go there"),
    ("127.0.0.9", {}, "loopback"),
    ("10.1.0.2", {}, "never"),  # the gateway's own router
    ("no such thing", {}, "not a network"),
]


def test_what_is_refused(running: Gateway) -> None:
    for net, more, why in REFUSED:
        code, said = order(running, net, **more)
        assert code == 409, net
        assert why in said["detail"], said
    assert listed(running) == {}


def test_the_site_itself_may_be_given_up_unless_a_mandate_names_it(theatre: Theatre, running: Gateway) -> None:
    """Its address is never blocked as a source; as a victim it may go, for the others' sake."""
    assert order(running, SITE, loss="the site")[0] == 201
    until(lambda: theatre.blackholes() == {SITE})
    (running.directory / "mandate.toml").write_text(
        mandate_text(proportion=f'clients_share_max = "50%"\nnever_block = ["{SITE}"]', serial=2)
    )
    assert running.admin("POST", "/v1/reload")[0] == 200
    until(lambda: not theatre.blackholes())
    code, said = order(running, SITE, loss="the site")
    assert code == 409 and "never" in said["detail"]


def test_a_mandate_without_the_power_takes_back_what_was_announced_under_it(theatre: Theatre, running: Gateway) -> None:
    assert order(running, VICTIM, loss="a test")[0] == 201
    until(lambda: theatre.blackholes() == {VICTIM})
    text = mandate_text(serial=2).replace(', "blackhole"]', "]")
    (running.directory / "mandate.toml").write_text(text)
    assert running.admin("POST", "/v1/reload")[0] == 200
    until(lambda: not theatre.blackholes())
    code, said = order(running, BESIDE, loss="a test")
    assert code == 409 and "power" in said["detail"]


def test_whoever_dies_what_was_asked_for_holds(theatre: Theatre, running: Gateway) -> None:
    assert order(running, VICTIM, loss="a test")[0] == 201
    until(lambda: theatre.blackholes() == {VICTIM})
    until((running.directory / "state/upstream").exists)
    killed = int(running.child("enforcer")["pid"])
    os.kill(killed, signal.SIGKILL)
    until(lambda: int(running.child("enforcer")["pid"]) not in (0, killed))
    until(lambda: theatre.blackholes() == {VICTIM})
    killed = int(running.child("supervisor")["pid"])
    os.kill(killed, signal.SIGKILL)
    until(lambda: not alive(killed))
    assert theatre.blackholes() == {VICTIM}  # the enforcer holds it meanwhile

    def back() -> bool:
        try:
            return listed(running) == {VICTIM: "announced"}
        except OSError:
            return False

    until(back)
    assert running.admin("DELETE", f"/v1/blackholes?target={VICTIM}")[0] == 200
    until(lambda: not theatre.blackholes())


def test_a_stop_takes_it_back_and_a_start_asks_again(
    theatre: Theatre, running: Gateway, gateway: GatewayFactory
) -> None:
    assert order(running, VICTIM, loss="a test")[0] == 201
    assert order(running, BESIDE, loss="a test")[0] == 201
    saved = running.directory / "state/upstream"
    until(lambda: saved.exists() and BESIDE in saved.read_text())
    assert running.stop() == 0
    until(lambda: not theatre.blackholes())
    text = running.file.read_text()
    again = gateway(text=text, mandate=mandate_text(), command=theatre.gate.into(), directory=running.directory)
    until(lambda: theatre.blackholes() == {VICTIM, BESIDE})
    assert again.stop() == 0
    saved.write_bytes(saved.read_bytes().replace(BESIDE.encode(), SITE.encode()))  # not by us
    last = gateway(text=text, mandate=mandate_text(), command=theatre.gate.into(), directory=running.directory)
    until(lambda: "damaged" in str(last.status()["acts"]))
    assert listed(last) == {}


def test_an_upgrade_goes_on_with_it(theatre: Theatre, running: Gateway) -> None:
    assert order(running, VICTIM, loss="a test")[0] == 201
    saved = running.directory / "state/upstream"
    until(lambda: saved.exists() and VICTIM in saved.read_text())
    before = int(running.child("enforcer")["pid"])
    assert running.admin("POST", "/v1/upgrade")[0] == 200
    until(lambda: int(running.child("enforcer")["pid"]) not in (0, before), 30)
    until(lambda: listed(running) == {VICTIM: "announced"} and theatre.blackholes() == {VICTIM})


FLOWSPEC = """
[enforcer.upstream.flowspec]
families = "ipv4"
[[enforcer.upstream.flowspec.neighbour]]
address = "10.1.0.2"
local_address = "10.1.0.3"
asn = 64513
"""


def flow(running: Gateway, **more: Any) -> tuple[int, dict[str, Any]]:
    return running.admin("POST", "/v1/flows", {"ttl_s": 60, "reason": "a test", **more})


def test_rules_go_to_the_router_and_end(theatre: Theatre, gateway: GatewayFactory, tmp_path: Path) -> None:
    package("exabgp")
    running = theatre.play(gateway, mandate_text(), upstream=FLOWSPEC, command=reach.opened(tmp_path / "stash"))
    until(lambda: upstream(running)["reason"] == "")
    code, said = flow(
        running, destination=VICTIM, source="198.18.7.0/24", protocols=[17], source_ports=["53", "123-130"]
    )
    assert code == 201, said
    written = f"flow4 {{ dst {VICTIM}/32; src 198.18.7.0/24; proto 17; sport 53,123..130; }}"
    until(lambda: theatre.rules() == [written], 30)
    until(lambda: upstream(running)["flowspec"]["sessions"] == ["10.1.0.2"], 15)
    assert upstream(running)["announced"]["flow"] == 1
    assert flow(running, destination=VICTIM, ttl_s=1.5, loss="a test", packet_lengths=["1200-1500"])[0] == 201
    until(lambda: len(theatre.rules()) == 2)
    until(lambda: theatre.rules() == [written])
    for wrong, why in (
        ({"destination": "203.0.113.0/25", "loss": "half"}, "for a victim"),
        ({"destination": VICTIM}, "everybody who wants to go there"),
        ({"destination": VICTIM, "source": "198.18.0.0/16"}, "wider than /24"),
        ({"destination": "198.18.7.1", "source": "198.18.7.0/24"}, "not ours"),
        ({"destination": VICTIM, "source": "198.18.7.0/24", "action": "fast"}, "rate"),
    ):
        code, said = flow(running, **wrong)
        assert code == 409 and why in said["detail"], said
    pid = upstream(running)["flowspec"]["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: upstream(running)["flowspec"]["pid"] not in (0, pid))
    until(lambda: theatre.rules() == [written], 30)
    status = Path(f"/proc/{upstream(running)['flowspec']['pid']}/status").read_text()
    assert "CapEff:\t0000000000000000" in status and "Uid:\t0" not in status
    (target,) = listed(running)
    assert running.admin("DELETE", f"/v1/blackholes?target={quote(target)}")[0] == 200
    until(lambda: theatre.rules() == [])


PIPE = """
[[rule]]
name = "pipe"
when = { link_load = ">= 80%" }
then = ["blackhole 1m"]
climb = "100ms"
"""


def test_a_full_line_that_no_blocked_source_fills_is_said_once(theatre: Theatre, gateway: GatewayFactory) -> None:
    running = theatre.play(gateway, mandate_text(PIPE), link_rate="10B/s")
    until(lambda: upstream(running)["reason"] == "")

    def said() -> int:
        theatre.get(PERSON)
        messages = [act["message"] for act in running.status()["acts"] if act["event.action"] == "skip"]
        return sum("the line is full" in message for message in messages)

    until(said)
    assert upstream(running)["link_load"] > 0.8
    later = time.monotonic() + 4.5  # it has looked again by then
    until(lambda: said() and time.monotonic() > later)
    assert said() == 1
    assert theatre.blackholes() == set()
