"""From raw figures to demo-report.json, and whether the run has passed.

Owns: every figure of the report and every condition. Invariants: pure, no clock and no files, so that tests can ask it
anything; a condition that could not be measured has not been met.
"""
import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from bench.demo import story
from bench.demo.figures import Figures, Sample, named, percentile, share
from bench.demo.plan import KINDS, SETTLE_S, VICTIM, Kind, Plan
from bench.load.tally import ATTEMPTED, SERVED, THROTTLED

PEOPLE_REQUESTS_MIN = 10_000
PEOPLE_SUCCESS_MIN = 0.999
SERVED_SHARE_MAX = 0.01
FAST_ADDRESSES_MIN = 100
IN_FORCE_MIN = 0.9  # of the blocked sources: some were blocked a moment ago
ARRIVED_MAX = 0.01  # of what had come to the victim before it was given up
FAST_PER_S = 20  # what sends more is beyond the demo mandate's limit for one client


@dataclass(frozen=True, slots=True)
class AreaLimit:
    """The mandate's area-wide limit: what the origin can carry."""

    per_s: float
    burst: int


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that must hold, and what was found."""

    name: str
    wanted: str
    found: str
    met: bool


def people_figures(plan: Plan, figures: Figures) -> dict[str, Any]:
    """Success and latency of people, in all and by phase."""
    phases: dict[str, dict[str, Any]] = {}
    for key, phase in (("before", plan.calm), ("under_flood", plan.flood), ("after", plan.after)):
        requests = list(figures.requests(phase.start_s, phase.stop_s))
        latencies = [one.latency_ms for one in requests if not one.failed]
        phases[key] = {
            "requests": len(requests),
            "success": round(share(len(latencies), len(requests)), 6),
            "p50": round(percentile(latencies, 0.5), 2),
            "p99": round(percentile(latencies, 0.99), 2),
        }
    total = figures.asked
    return {
        "people": len(plan.people),
        "requests": total,
        "success": round(share(total - figures.failures.total(), total), 6),
        "failures": dict(figures.failures.most_common()),
        "people_with_failures": len({one.source for rows in figures.people.values() for one in rows if one.failed}),
        "latency_ms_p50": {key: phase["p50"] for key, phase in phases.items()},
        "latency_ms_p99": {key: phase["p99"] for key, phase in phases.items()},
        "by_phase": {key: {name: phase[name] for name in ("requests", "success")} for key, phase in phases.items()},
    }


def kind_figures(plan: Plan, figures: Figures, kind: Kind) -> dict[str, Any]:
    """What one kind of attack tried and got: by its own count, and by the origin's."""
    start_s, stop_s = plan.flood.start_s, plan.flood.stop_s
    settled_s = start_s + SETTLE_S
    whole = figures.rows([kind.name], start_s, stop_s + 1)
    settled = figures.rows([kind.name], settled_s, stop_s + 1)
    addresses = set(plan.attackers[kind.name])
    by_origin = [(second, served) for second, client, served in figures.origin_rows if client in addresses]
    origin_settled = sum(served for second, served in by_origin if second >= settled_s)
    counts = named(whole)
    connections_open = counts.pop("open")
    out: dict[str, Any] = {
        "says": kind.says,
        "addresses": kind.addresses,
        "asked_per_s": kind.asks_per_s(),
        "requests": counts.pop("attempted"),
        "requests_per_s": round(whole[ATTEMPTED] / (stop_s - start_s), 1),
        **counts,
        "served_share": round(share(whole[SERVED], whole[ATTEMPTED]), 6),
        "requests_after_2s": settled[ATTEMPTED],
        "served_after_2s": settled[SERVED],
        "served_share_after_2s": round(share(settled[SERVED], settled[ATTEMPTED]), 6),
        "served_by_origin": sum(served for _, served in by_origin),
        "served_by_origin_after_2s": origin_settled,
    }
    if kind.how == "requests":
        out["addresses_sent"] = len(figures.sent_by.get(kind.name, {}))
    else:
        lived = figures.lifetimes.get(kind.name, [])
        out |= {
            "connections_open_max": connections_open, "connections_cut": len(lived),
            "connection_s_p50": round(percentile(lived, 0.5), 2), "connection_s_max": round(max(lived, default=0.0), 2),
        }
    if kind.below_limits:
        out["served_per_s_after_2s"] = round(settled[SERVED] / (stop_s - settled_s), 1)
        out["throttled_share_after_2s"] = round(share(settled[THROTTLED], settled[ATTEMPTED]), 6)
    return out


def attack_figures(plan: Plan, figures: Figures) -> dict[str, Any]:
    """All kinds; shares are of the fast floods of requests: the slow one is apart, the others ask for nothing."""
    kinds = {kind.name: kind_figures(plan, figures, kind) for kind in plan.place.kinds}
    fast = [kinds[kind.name] for kind in KINDS if fast_flood(kind)]
    tried, tried_after = sum(k["requests"] for k in fast), sum(k["requests_after_2s"] for k in fast)
    served_after = sum(max(k["served_after_2s"], k["served_by_origin_after_2s"]) for k in fast)
    rates = sent_per_s(plan, figures)
    return {
        "requests": sum(kinds[kind.name]["requests"] for kind in plan.place.kinds if kind.how == "requests"),
        "connections": sum(kinds[kind.name]["requests"] for kind in plan.place.kinds if kind.how != "requests"),
        "fast_addresses": sum(rate > FAST_PER_S for rate in rates),
        "fast_requests_per_s": round(tried / (plan.flood.stop_s - plan.flood.start_s), 1),
        "fast_requests_per_s_an_address": {
            "least": round(min(rates, default=0.0), 1), "p50": round(percentile(rates, 0.5), 1),
        },
        "served": sum(k["served"] for k in fast),
        "served_share": round(share(sum(k["served"] for k in fast), tried), 6),
        "served_share_after_2s": round(min(1.0, share(served_after, tried_after)), 6),
        "kinds": kinds,
    }


def sent_per_s(plan: Plan, figures: Figures) -> list[float]:
    """What each address of the fast floods really sent, a second; 0 where it sent nothing."""
    seconds = plan.flood.stop_s - plan.flood.start_s
    return [
        figures.sent_by.get(kind.name, {}).get(address, 0) / seconds
        for kind in KINDS if fast_flood(kind) for address in plan.attackers[kind.name]
    ]


def fast_flood(kind: Kind) -> bool:
    """A flood of requests that some client's own limit must stop."""
    return kind.how == "requests" and not kind.below_limits


def area_figures(plan: Plan, figures: Figures, limit: AreaLimit | None) -> dict[str, Any]:
    """What reached the origin under the flood, and who had it, beside what the mandate allows it to carry."""
    start_s, stop_s = plan.flood.start_s + SETTLE_S, plan.flood.stop_s
    owner = dict.fromkeys(plan.people, "people")
    for kind, addresses in plan.attackers.items():
        owner |= dict.fromkeys(addresses, "slow" if kind == "slow" else "fast")
    served: Counter[str] = Counter()
    for second, client, count in figures.origin_rows:
        if start_s <= second < stop_s:
            served[owner.get(client, "others")] += count
    seconds = stop_s - start_s
    return {
        "seconds": seconds,
        "limit_per_s": limit.per_s if limit else None,
        "limit_burst": limit.burst if limit else None,
        "origin_served": served.total(),
        "origin_served_per_s": round(served.total() / seconds, 1),
        "people_per_s": round(served["people"] / seconds, 1),
        "slow_flood_per_s": round(served["slow"] / seconds, 1),
        "fast_floods_per_s": round(served["fast"] / seconds, 1),
        "others": served["others"],
    }


def kernel_figures(plan: Plan, figures: Figures) -> dict[str, Any] | None:
    """What the kernel dropped of blocked sources during the flood; None: it was left out."""
    if not plan.place.victim:
        return None
    settled_s, stop_s = plan.flood.start_s + SETTLE_S, plan.flood.stop_s
    samples = [one for one in figures.samples if settled_s <= one.at_s <= stop_s] or [Sample(0.0)]
    first, last = samples[0], samples[-1]
    took_s = last.at_s - first.at_s
    return {
        "backends": figures.enforcer_says.get("backends", []),
        "blocked": last.blocks,
        "in_force": last.in_force,
        "packets": figures.samples[-1].kernel_packets if figures.samples else 0,
        "packets_per_s_after_2s": round(share(last.kernel_packets - first.kernel_packets, took_s), 1),
    }


def upstream_figures(plan: Plan, figures: Figures) -> dict[str, Any] | None:
    """How the victim fared; None: there was no provider."""
    if not plan.place.victim:
        return None
    victim, (start_s, stop_s) = figures.victim, (plan.flood.start_s + SETTLE_S, plan.flood.stop_s)
    asked_s = stop_s if victim.asked_s is None else victim.asked_s
    dropped_s = stop_s if victim.dropped_s is None else victim.dropped_s
    second = math.ceil(dropped_s)
    tried = figures.rows([VICTIM.name], second, stop_s)[ATTEMPTED]
    return {
        "victim": plan.place.victim,
        "asked_at_s": victim.asked_s and round(victim.asked_s, 2),
        "status": victim.status,
        "answer": victim.answer,
        "dropped_after_s": victim.dropped_s and round(dropped_s - asked_s, 3),
        "packets_per_s": {
            "before": round(victim.per_s(start_s, asked_s), 1), "after": round(victim.per_s(dropped_s, stop_s), 1),
        },
        "tried_per_s_after": round(share(tried, stop_s - second), 1),
        "announced": figures.enforcer_says.get("upstream", {}).get("announced", {}),
    }


def network_conditions(kernel: dict[str, Any], upstream: dict[str, Any]) -> list[Condition]:
    """What is promised beside, in networks of the run's own."""
    part, per_s = share(kernel["in_force"], kernel["blocked"]), upstream["packets_per_s"]
    dropped = upstream["dropped_after_s"] is not None
    return [
        Condition(
            "blocked sources ended in the kernel", f">= {IN_FORCE_MIN:.0%} of them",
            f"{kernel['in_force']} of {kernel['blocked']}, {kernel['packets_per_s_after_2s']:,.0f} packets/s",
            part >= IN_FORCE_MIN and kernel["packets_per_s_after_2s"] > 0,
        ),
        Condition(
            "the provider dropped what went to the victim", f"<= {ARRIVED_MAX:.0%} of it still on our line",
            f"{per_s['after']:g}/s of {per_s['before']:g}/s" if dropped else "it did not",
            dropped and upstream["tried_per_s_after"] > 0 and per_s["after"] <= per_s["before"] * ARRIVED_MAX
            and per_s["before"] > 0,
        ),
    ]


def conditions(people: dict[str, Any], attack: dict[str, Any], area: dict[str, Any]) -> list[Condition]:
    """What `make demo` promises."""
    kinds = attack["kinds"]
    out = [
        Condition("people were there", f">= {PEOPLE_REQUESTS_MIN} requests", str(people["requests"]),
                  people["requests"] >= PEOPLE_REQUESTS_MIN),
        Condition("people got through", f">= {PEOPLE_SUCCESS_MIN:.1%} of their requests", f"{people['success']:.3%}",
                  people["success"] >= PEOPLE_SUCCESS_MIN),
        Condition("people got through under the flood", f">= {PEOPLE_SUCCESS_MIN:.1%} of their requests",
                  f"{people['by_phase']['under_flood']['success']:.3%}",
                  people["by_phase"]["under_flood"]["success"] >= PEOPLE_SUCCESS_MIN),
        Condition("the flood came", f">= {FAST_ADDRESSES_MIN} addresses above {FAST_PER_S}/s each",
                  f"{attack['fast_addresses']}, half of all above {attack['fast_requests_per_s_an_address']['p50']}/s",
                  attack["fast_addresses"] >= FAST_ADDRESSES_MIN),
        Condition("the flood was not served", f"<= {SERVED_SHARE_MAX:.0%} after {SETTLE_S} s",
                  f"{attack['served_share_after_2s']:.3%}", attack["served_share_after_2s"] <= SERVED_SHARE_MAX),
    ]
    for kind in KINDS:
        one = kinds[kind.name]
        if kind.below_limits:
            continue
        served = max(one["served_after_2s"], one["served_by_origin_after_2s"])
        part = min(1.0, share(served, one["requests_after_2s"]))  # the origin may still serve what was tried before
        out.append(Condition(
            f"{kind.name} was not served", f"<= {SERVED_SHARE_MAX:.0%} after {SETTLE_S} s",
            f"{part:.3%} of {one['requests_after_2s']}", one["requests"] > 0 and part <= SERVED_SHARE_MAX,
        ))
    limit = area["limit_per_s"]
    most = limit * area["seconds"] + area["limit_burst"] if limit else 0
    wanted = f"<= {limit:g}/s and {area['limit_burst']} at once, at the origin" if limit else "a limit per area"
    out.append(Condition(
        "the area's limit held", wanted,
        f"{area['origin_served_per_s']}/s (people {area['people_per_s']}/s, slow flood {area['slow_flood_per_s']}/s)",
        bool(limit) and 0 < area["origin_served"] <= most,
    ))
    return out


def build(plan: Plan, figures: Figures, limit: AreaLimit | None, about: dict[str, Any]) -> dict[str, Any]:
    """The whole report. `about`: machine, versions, durations, command."""
    people, attack = people_figures(plan, figures), attack_figures(plan, figures)
    area = area_figures(plan, figures, limit)
    kernel, upstream = kernel_figures(plan, figures), upstream_figures(plan, figures)
    found = conditions(people, attack, area)
    if kernel is not None and upstream is not None:
        found += network_conditions(kernel, upstream)
    last = asdict(figures.samples[-1]) if figures.samples else None
    return {
        "passed": all(one.met for one in found),
        "conditions": [asdict(one) for one in found],
        "people": people,
        "attack": attack,
        "area": area,
        "kernel": kernel,
        "upstream": upstream,
        "gateway": last,
        "rush_before_flood": any(one.rush for one in figures.samples if one.at_s < plan.calm.stop_s),
        "gateway_says": figures.gateway_says,
        "acts": Counter(story.kind_of(act) for act in figures.acts),
        "origin": figures.origin,
        "phases": {phase.name: [phase.start_s, phase.stop_s] for phase in (plan.calm, plan.flood, plan.after)},
        "seed": plan.seed,
        **about,
    }
