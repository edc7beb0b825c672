"""What the figures are to be, and whether they are.

Invariant: an aim is judged by the rows of results.json alone; one without its rows is not judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Rows = Mapping[tuple[str, str, str], Mapping[str, Any]]  # by scenario, system and metric
OURS = "scrubber"
CORES_ENOUGH = 4


@dataclass(frozen=True, slots=True)
class Aim:
    """`metric` of a scenario, at most `limit`: against a peer's best run where one is named, else as it is."""

    scenario: str
    metric: str
    limit: float
    peer: str = ""

    def found(self, rows: Rows) -> float | None:
        ours = rows.get((self.scenario, OURS, self.metric))
        if ours is None or not self.peer:
            return ours["value"] if ours else None
        theirs = rows.get((self.scenario, self.peer, self.metric))
        return ours["value"] / theirs["min"] if theirs and theirs["min"] else None

    def paired(self, rows: Rows) -> float | None:
        """The median of the paired rounds' ratios, which a slow or a quick moment of the machine does not touch."""
        ratios: dict[str, float] = rows.get((self.scenario, OURS, self.metric), {}).get("ratio_to", {})
        return ratios.get(self.peer)

    def wanted(self, rows: Rows) -> float | None:
        """The limit."""
        del rows
        return self.limit

    def met(self, rows: Rows) -> bool | None:
        found, wanted = self.found(rows), self.wanted(rows)
        return None if found is None or wanted is None else found <= wanted

    def missed_by(self, rows: Rows) -> str:
        """How far from it, for people."""
        found, wanted = self.found(rows), self.wanted(rows)
        return f"missed by {found / wanted - 1:.0%}" if found and wanted else "missed"

    @property
    def what(self) -> str:
        return f"{self.metric} / {self.peer}" if self.peer else self.metric


@dataclass(frozen=True, slots=True)
class AtLeast(Aim):
    """The same, but at least."""

    def met(self, rows: Rows) -> bool | None:
        found = self.found(rows)
        return None if found is None else found >= self.limit

    def missed_by(self, rows: Rows) -> str:
        found = self.found(rows)
        return f"missed by {1 - found / self.limit:.2%}" if found is not None else "missed"


@dataclass(frozen=True, slots=True)
class Calm(Aim):
    """At most the larger of twice and 10 ms more than what it is without the attack."""

    def wanted(self, rows: Rows) -> float | None:
        calm = rows.get((self.scenario, OURS, f"{self.metric}_calm"))
        return max(2 * calm["value"], calm["value"] + 10) if calm else None


# How long one may go on before it counts as abuse, besides the second in which it has to end: windows that are held.
ALLOWED_S = {"windows-held": 1.0, "connection-window-held": 1.0, "dribble": 1.0}


def against(scenario: str, metric: str, **limits: float) -> list[Aim]:
    return [Aim(scenario, metric, limit, peer) for peer, limit in limits.items()]


def thrown_out(name: str) -> Aim:
    return Aim(name, "ended_s", 1.0 + ALLOWED_S.get(name.removeprefix("h2-abuse-"), 0.0))


def aims(floods: Sequence[str], cores: int) -> list[Aim]:
    """All of them. `floods`: the names of the scenarios of people under attack; `cores`: a second worker is judged
    where load and origin do not share its core."""
    abuses = [name for name in floods if name.startswith("h2-abuse-")]
    return [
        *against("clean", "cpu_us", nginx=0.70, haproxy=0.70),
        *against("clean-new", "cpu_us", nginx=0.85, haproxy=0.85),
        *against("post", "cpu_us", nginx=0.80, haproxy=0.80),
        *against("reject", "cpu_us", nginx=0.75, haproxy=0.65),
        *against("banned", "cpu_us", nginx=0.75, haproxy=1.0),
        *against("tls-clean", "cpu_us", nginx=0.80, haproxy=0.80),
        *against("h2", "cpu_us", nginx=0.80, haproxy=0.80),
        *against("tls-handshake-full", "cpu_us", nginx=1.05),
        *against("tls-handshake-resumed", "cpu_us", nginx=1.05),
        *against("body-down", "cpu_s_per_gb", nginx=0.40),
        *against("body-up", "cpu_s_per_gb", nginx=0.40),
        Aim("idle", "idle_bytes", 1024),
        Aim("decide", "ns_cold_1m", 120),
        Aim("decide", "bytes_source_1m", 40),
        Aim("propagate", "to_kernel_ms_p99", 100),
        Aim("propagate", "to_upstream_ms_p99", 1000),
        *([AtLeast("workers", "speedup", 1.7)] if cores >= CORES_ENOUGH else []),
        *(AtLeast(name, "people_success", 0.999) for name in floods),
        *(Calm(name, "latency_ms_p99", 0) for name in floods),
        *(AtLeast(name, "abusers_ended", 1.0) for name in abuses),
        *(thrown_out(name) for name in abuses),
    ]


def judged(rows: Sequence[Mapping[str, Any]], cores: int) -> list[tuple[Aim, float, float | None, float, str]]:
    """Each aim that has its rows: what was found, also of paired rounds, what was wanted, and "met" or how far it was
    missed."""
    by_name = {(row["scenario"], row["system"], row["metric"]): row for row in rows}
    floods = list(dict.fromkeys(row["scenario"] for row in rows if row["scenario"].startswith(("flood-", "h2-abuse-"))))
    found = []
    for aim in aims(floods, cores):
        met, value, wanted = aim.met(by_name), aim.found(by_name), aim.wanted(by_name)
        if met is not None and value is not None and wanted is not None:
            found.append((aim, value, aim.paired(by_name), wanted, "met" if met else aim.missed_by(by_name)))
    return found
