"""Every backend that the conformance suite holds to the contract, and what one by its nature cannot.

Owns the registry: a backend is one line in BACKENDS, one in FLUSH, and what is unlike the others in CANNOT, with the
reason; the cases of the suite that ask for it leave that backend out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from scrubber.enforce.backend import ROUTE_PROTO, ROUTE_TABLE, TABLE, Backend, Settings
from scrubber.enforce.nft import Nft
from scrubber.enforce.route import TUN, Route
from scrubber.enforce.xdp import Xdp
from tests.net import intruder
from tests.net.space import Space
from tests.wanted import program

DEVICE = "wan"  # of the gateway's namespace, where clients come in

# What a backend may lack.
BY_PORT = "by port"  # drops only what goes to a door's address and port
BY_DOOR = "by door"  # one door shut, another open to the same network
COUNTS = "counts"  # packets and bytes of each network
EXPIRES = "expires"  # an entry ends at its time with nobody there to take it out
SURVIVES = "survives"  # entries outlive the process that made them, and the next one adopts them
NOTICES = "notices"  # says by itself that somebody else changed what is ours


def _nft_ingress(settings: Settings) -> Backend:
    return Nft(dataclasses.replace(settings, interfaces=(DEVICE,)))


def _route(settings: Settings) -> Backend:
    """With the first door alone: it shuts all or none."""
    return Route(dataclasses.replace(settings, doors=settings.doors[:1]))


def _xdp(settings: Settings) -> Backend:
    return Xdp(dataclasses.replace(settings, interfaces=(DEVICE,)))


BACKENDS: dict[str, Callable[[Settings], Backend]] = {
    "nft": Nft,
    "nft-ingress": _nft_ingress,
    "route": _route,
    "xdp": _xdp,
}


def _no_routes(gate: Space) -> None:
    gate.ip("link", "delete", TUN)
    for family in ("-4", "-6"):
        gate.ip(family, "rule", "delete", "lookup", str(ROUTE_TABLE))


# Somebody else takes all that is ours out of the kernel.
FLUSH: dict[str, Callable[[Space], object]] = {
    "nft": lambda gate: gate.run(program("nft"), "delete", "table", "inet", TABLE),
    "nft-ingress": lambda gate: gate.run(program("nft"), "delete", "table", "netdev", TABLE),
    "route": _no_routes,
    "xdp": lambda gate: intruder.empty(gate, DEVICE),
}

# Of a backend: what it cannot → why.
CANNOT: dict[str, Mapping[str, str]] = {
    "route": {
        BY_PORT: "a route knows no ports",
        BY_DOOR: "a route knows no ports",
        COUNTS: "the kernel counts no packets by route",
        EXPIRES: "the kernel ends no route at a time: see due_ns",
        SURVIVES: "routes go with the device that its process holds",
    },
    "xdp": {
        SURVIVES: "maps and links go with who holds them, so that no program of a dead process judges packets",
        NOTICES: "the kernel tells nobody of a change to a map, which takes CAP_SYS_ADMIN; interfaces: test_xdp.py",
    },
}


def able(*wanted: str) -> list[str]:
    """Backends that can all of these."""
    return [name for name in BACKENDS if not set(wanted) & CANNOT.get(name, {}).keys()]


def of_others(gate: Space) -> str:
    """Rules, routes and devices of the namespace that are not ours, as text to compare."""
    nft, ip = program("nft"), program("ip")
    words = [line.split()[1:] for line in gate.run(nft, "list", "tables").splitlines()]
    found = [gate.run(nft, "list", "table", *each) for each in words if each[1] != TABLE]
    routes = gate.run(ip, "-4", "route", "show", "table", "all") + gate.run(ip, "-6", "route", "show", "table", "all")
    found += [line for line in routes.splitlines() if f"proto {ROUTE_PROTO}" not in line]
    rules = gate.run(ip, "-4", "rule") + gate.run(ip, "-6", "rule")
    found += [line for line in rules.splitlines() if f"lookup {ROUTE_TABLE}" not in line]
    return "\n".join(found)
