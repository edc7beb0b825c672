"""What happens when and from where: people, floods, phases.

Owns: every number of the run and the addresses that tell people and attackers apart. Invariants: all addresses are
drawn at random from one pool, so that no address says whose it is; the gateway is told none of it; attacks end.
"""
import ipaddress
import random
from dataclasses import dataclass
from typing import Any

from bench.demo import network
from bench.demo.site import HOST

COME_S = 3.8  # people come one after the other, not as a crowd of their own
SETTLE_S = 2  # a flood's first seconds, in which a gateway may still be finding out
GIVE_UP = 2 / 3  # of the flood is over when the victim is given up


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run takes place."""

    first: str  # of the pool of people's and attackers' addresses
    last: str
    target: str  # the site
    victim: str  # another address of ours, where nothing is served; "": there is none
    connect_s: float  # after which an attacker gives up on a connection that nobody answers

    @property
    def kinds(self) -> "tuple[Kind, ...]":
        """The kinds of attack there."""
        return (*KINDS, VICTIM) if self.victim else KINDS


# Less 127.0.0.0/16, where a machine has its own.
LOOPBACK = Place("127.1.0.0", "127.255.254.255", "127.0.0.1", "", 8.0)
# Drops answer nothing: who waited for them would hardly send.
NETWORK = Place("198.18.0.1", "198.19.255.254", network.SITE, network.VICTIM, 0.15)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of attack."""

    name: str
    says: str  # what it is, for people who read the report
    how: str  # which load tool: requests, hold, churn
    addresses: int
    process: int  # which processes carry it: 0 shares it among the fast ones, 1 is the process of the slow ones
    shape: str = ""
    rate_per_s: float = 0.0  # an address
    connections: int = 0  # an address, at once
    drip_s: float = 0.0
    below_limits: bool = False  # no client of it exceeds its own limit: only an area-wide limit can hold it

    def asks_per_s(self) -> float:
        """What all its addresses together ask for, attempts a second."""
        return self.addresses * self.rate_per_s


KINDS: tuple[Kind, ...] = (
    Kind("get", "one page, over and over", "requests", 30, 0, "plain", 150, 32),
    Kind("search", "searches that no cache has seen", "requests", 25, 0, "search", 150, 32),
    Kind("login", "password guesses", "requests", 25, 0, "login", 150, 32),
    Kind("browser", "a browser's headers to the byte", "requests", 30, 0, "browser", 150, 32),
    Kind("slow", "a browser's headers, each address below every limit", "requests", 350, 1, "browser", 1.3, 2,
         below_limits=True),
    Kind("slowloris", "heads that never end", "hold", 20, 1, connections=15, drip_s=1.0),
    Kind("silent", "connections without a byte", "hold", 20, 1, connections=25),
    Kind("churn", "connections opened and closed", "churn", 10, 1, rate_per_s=50),
)
VICTIM = Kind("victim", "connections to an address of ours that has no site", "churn", 20, 1, rate_per_s=20)


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the run, in whole seconds after its start."""

    name: str
    start_s: int
    stop_s: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole run."""

    seed: int
    people: dict[str, float]  # address: when they come, in seconds
    attackers: dict[str, list[str]]  # kind: addresses
    calm: Phase
    flood: Phase
    after: Phase
    place: Place = LOOPBACK
    think_s: tuple[float, float] = (1.5, 3.0)
    fast_processes: int = 2

    @property
    def seconds(self) -> int:
        """How long people are there."""
        return self.after.stop_s

    @property
    def give_up_s(self) -> float:
        """When the provider is asked to drop what goes to the victim."""
        return self.flood.start_s + GIVE_UP * (self.flood.stop_s - self.flood.start_s)

    def people_spec(self, t0_ns: int, port: int, site: dict[str, Any]) -> dict[str, Any]:
        """What the people's process is told."""
        people = [
            {"source": source, "browser": number, "start_s": start_s}
            for number, (source, start_s) in enumerate(self.people.items())
        ]
        site = {**site, "target": self.place.target, "port": port, "think_s": self.think_s, "seconds": self.seconds}
        return {
            "t0_ns": t0_ns, "seed": self.seed, "requests_max": 60_000, "seconds_max": self.seconds + 6,
            "site": site, "people": people,
        }

    def flood_specs(self, t0_ns: int, port: int) -> list[dict[str, Any]]:
        """What each attacking process is told: some share the fast floods, the last has the rest."""
        specs = []
        for process in range(self.fast_processes + 1):
            slow = process == self.fast_processes
            attacks = []
            for kind in self.place.kinds:
                if (kind.process == 1) != slow:
                    continue
                sources = self.attackers[kind.name]
                attacks.append({
                    "kind": kind.name, "how": kind.how, "shape": kind.shape,
                    "host": HOST, "target": self.place.victim if kind is VICTIM else self.place.target, "port": port,
                    "sources": sources if slow else sources[process::self.fast_processes],
                    "rate_per_s": kind.rate_per_s, "connections": kind.connections, "connections_max": kind.connections,
                    "connect_s": self.place.connect_s,
                    "drip_s": kind.drip_s, "reopen_s": 1.0, "spread_s": 2.0, "keep_s": 0.05,
                    "start_s": self.flood.start_s, "stop_s": self.flood.stop_s,
                })
            specs.append({
                "t0_ns": t0_ns, "seed": self.seed + process, "nice": 10, "requests_max": 600_000,
                "seconds_max": self.flood.stop_s + 2.0, "attacks": attacks,
            })
        return specs


def draw(
    seed: int, people: int, calm_s: int = 10, flood_s: int = 27, after_s: int = 3, *, place: Place = LOOPBACK
) -> Plan:
    """A plan with its addresses drawn from the pool of that place."""
    rng = random.Random(seed)
    wanted = people + sum(kind.addresses for kind in place.kinds)
    pool = range(int(ipaddress.IPv4Address(place.first)), int(ipaddress.IPv4Address(place.last)) + 1)
    addresses = [str(ipaddress.IPv4Address(number)) for number in rng.sample(pool, wanted)]
    attackers: dict[str, list[str]] = {}
    for kind in place.kinds:
        attackers[kind.name] = [addresses.pop() for _ in range(kind.addresses)]
    stop_s = calm_s + flood_s
    return Plan(
        seed,
        {address: round(rng.uniform(0.0, COME_S), 3) for address in addresses},
        attackers,
        Phase("calm", 0, calm_s), Phase("flood", calm_s, stop_s), Phase("after", stop_s, stop_s + after_s),
        place,
    )
