"""Everything that was heard during a run, as it was heard.

Owns: the raw figures; nothing is judged here. Invariant: rows keep the second in which a request was made, so that
every share is one of the same requests.
"""
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bench.load.tally import COLUMNS, Row, add


class Request(NamedTuple):
    """One request of a person."""

    meant_ms: float  # after t0
    latency_ms: float
    failed: str  # "": answered, whole
    source: str  # the person's address


@dataclass(frozen=True, slots=True)
class Sample:
    """The gateway's counters at a time; sums since its start."""

    at_s: float
    served: int = 0
    throttled: int = 0
    denied: int = 0
    dropped: int = 0  # connections and requests closed with RST
    blocks: int = 0  # sources in the block table now
    shed: int = 0  # of the throttled, by the area-wide limit
    rush: bool = False
    in_force: int = 0  # sources whose packets the kernel drops now
    kernel_packets: int = 0  # that it has dropped


@dataclass(slots=True)
class Victim:
    """The address that is given up, as far as it was seen."""

    counted: list[tuple[float, int]] = field(default_factory=list)  # (at, packets to it that our line had brought)
    asked_s: float | None = None
    status: int = 0  # of the gateway's answer; 0: there was none
    answer: str = ""  # where it was not a yes
    dropped_s: float | None = None  # since when the provider's kernel was seen to drop it

    def per_s(self, start_s: float, stop_s: float) -> float:
        """Packets to it a second, between the first and the last count in that time; 0 of less than two counts."""
        counted = [one for one in self.counted if start_s <= one[0] <= stop_s]
        if len(counted) < 2:
            return 0.0
        (began_s, before), (ended_s, after) = counted[0], counted[-1]
        return (after - before) / (ended_s - began_s)


@dataclass(slots=True)
class Figures:
    """The raw figures of one run."""

    people: dict[int, list[Request]] = field(default_factory=dict)  # by the second in which they were meant to be made
    asked: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    attack: dict[tuple[str, str, int], Row] = field(default_factory=dict)  # (process, kind, second)
    sent_by: dict[str, dict[str, int]] = field(default_factory=dict)  # kind: address: requests sent
    lifetimes: dict[str, list[float]] = field(default_factory=dict)  # kind: seconds that held connections lived
    origin_rows: list[tuple[int, str, int]] = field(default_factory=list)  # (second, client, served)
    origin: dict[str, Any] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    gateway_says: dict[str, Any] = field(default_factory=dict)  # of people, at the end
    enforcer_says: dict[str, Any] = field(default_factory=dict)
    victim: Victim = field(default_factory=Victim)
    acts: list[dict[str, Any]] = field(default_factory=list)
    origin_ready: bool = False

    def hear_people(self, message: dict[str, Any]) -> None:
        """A report of the people's process."""
        if message["type"] != "people":
            return
        for row in message["rows"]:
            one = Request(*row)
            self.people.setdefault(int(one.meant_ms // 1000), []).append(one)
            self.asked += 1
            if one.failed:
                self.failures[one.failed] += 1

    def hear_attack(self, process: str, message: dict[str, Any]) -> None:
        """A report of an attacking process: whole rows, the latest counts; at its end, who sent how much."""
        if message["type"] == "senders":
            for kind, address, sent in message["rows"]:
                self.sent_by.setdefault(kind, {})[address] = sent
        if message["type"] != "attack":
            return
        for kind, second, *row in message["rows"]:
            self.attack[process, kind, second] = row
        for kind, lived in message["lifetimes"].items():
            self.lifetimes.setdefault(kind, []).extend(lived)

    def hear_origin(self, message: dict[str, Any], t0_s: int) -> None:
        """A report of the origin, whose clock is the machine's."""
        if message["type"] == "ready":
            self.origin_ready = True
            return
        self.origin.update({name: message[name] for name in ("served", "cpu_s")})
        if message["type"] == "clients":
            self.origin_rows = [(second - t0_s, client, served) for second, client, served in message["rows"]]

    def requests(self, start_s: int, stop_s: int) -> Iterator[Request]:
        """People's requests that were meant to be made in those seconds."""
        return (one for second in range(start_s, stop_s) for one in self.people.get(second, ()))

    def rows(self, kinds: Iterable[str], start_s: int, stop_s: int) -> Row:
        """What those kinds of attack did in those seconds, all processes together."""
        wanted = set(kinds)
        return add(row for (_, kind, at), row in self.attack.items() if kind in wanted and start_s <= at < stop_s)


def named(row: Row) -> dict[str, int]:
    """A row with the names of its columns."""
    return dict(zip(COLUMNS, row, strict=True))


def percentile(values: Iterable[float], share: float) -> float:
    """The value that `share` of all do not exceed (nearest rank); 0.0 of none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1_000_000) * len(ordered) // 1_000_000) - 1))]


def share(part: float, whole: float) -> float:
    """part of whole; 0.0 of nothing."""
    return part / whole if whole else 0.0
