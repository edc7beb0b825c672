"""`python -m bench.macro.drop.attacker SPEC` (JSON): the process that attacks, in a network namespace of its own.

It says when it has one, so that a device is put into it; "wired" on its input makes it take the device up; after that,
each number is an attack of so many seconds, answered in a line of JSON. It ends with its input. Invariants: see
bench.macro.drop.attack; without a namespace of its own it does nothing.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

from pyroute2 import IPRoute

from bench.load.guard import LoadRefused
from bench.macro.drop.attack import ATTACKER, ENDS_PLEN, Attack, demand_closed_network
from bench.macro.drop.calls import Calls
from bench.macro.drop.frames import Flood
from bench.macro.network import fresh_network

PERMANENT = 0x80  # NUD_PERMANENT
LOCAL_TABLE = 255


def main() -> None:
    spec: dict[str, Any] = json.loads(sys.argv[1])
    attack = Attack(**spec["attack"])
    if not fresh_network():
        raise LoadRefused("no network namespace may be made here", "run as root")
    say({"ready": False})
    if sys.stdin.readline().strip() != "wired":
        return
    device = spec["device"]
    demand_closed_network(device)
    own, other = bytes.fromhex(spec["own_mac"]), bytes.fromhex(spec["gate_mac"])
    attach(attack, device, other)
    tool = Calls(attack) if spec["connects"] else Flood(attack, device, other, own)
    say({"ready": True})
    for line in sys.stdin:
        say(tool.run(float(line)))


def attach(attack: Attack, device: str, gate: bytes) -> None:
    """Up, with all sources as addresses of ours, and nobody to ask where the gate is."""
    with IPRoute() as network:
        index = socket.if_nametoindex(device)
        network.link("set", index=index, state="up")
        network.addr("add", index=index, address=ATTACKER, prefixlen=ENDS_PLEN)
        network.neigh("add", dst=attack.target, lladdr=gate.hex(":"), ifindex=index, state=PERMANENT)
        loopback = socket.if_nametoindex("lo")
        network.route("add", dst=attack.sources, oif=loopback, type="local", table=LOCAL_TABLE, scope="host")


def say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
