"""One line on what is happening now, from the phase and from what the gateway has done.

Invariant: pure; it says only what the figures say.
"""
from typing import Any

from bench.demo.figures import Figures
from bench.demo.plan import Plan
from bench.load.tally import ATTEMPTED


def now(plan: Plan, figures: Figures, at_s: float) -> str:
    """What an onlooker would want to be told at this second."""
    if at_s < 0:
        return "starting"
    if at_s < plan.calm.stop_s:
        left = plan.calm.stop_s - at_s
        return f"calm: {len(plan.people)} people browse, the gateway gets to know them; flood in {left:.0f} s"
    if at_s < plan.flood.stop_s:
        return _flood(plan, figures, at_s)
    if at_s < plan.after.stop_s:
        return f"the flood is over; {_blocked(figures)}, people go on"
    return "over: counting"


def _flood(plan: Plan, figures: Figures, at_s: float) -> str:
    second = max(plan.flood.start_s, int(at_s) - 1)
    kinds = plan.place.kinds
    attempts = figures.rows([kind.name for kind in kinds], second, second + 1)[ATTEMPTED]
    parts = [f"flood: {attempts:,} attempts/s from {sum(kind.addresses for kind in kinds)} addresses"]
    if at_s < plan.flood.start_s + 1:
        parts.append("the gateway is finding out who")
    if figures.samples:
        parts.append(_blocked(figures))
        if figures.samples[-1].rush:
            parts.append("more newcomers than the origin can carry: they wait, people known from before do not")
    if figures.acts:
        parts.append(f"last: {act_text(figures.acts[-1])}")
    return "; ".join(parts)


def victim(plan: Plan, figures: Figures, at_s: float) -> str:
    """What becomes of the address that is given up."""
    address, seen = plan.place.victim, figures.victim
    before = seen.per_s(plan.flood.start_s, at_s if seen.asked_s is None else seen.asked_s)
    if seen.asked_s is None:
        return f"{address}, where nothing is served, takes {before:,.0f} packets/s"
    if seen.dropped_s is None:
        return f"{address} could not be given up: {seen.answer or 'the provider does not drop it'}"
    after = seen.per_s(seen.dropped_s, at_s)
    said = f"packets to it that reach our line: before {before:,.0f}/s, after {after:,.0f}/s"
    return f"{address} given up, the provider drops it; {said}"


def kind_of(act: dict[str, Any]) -> str:
    """What sort of act it was: "block", "refuse block", "rung throttle"."""
    action, measure = str(act.get("event.action", "?")), str(act.get("scrubber.measure", ""))
    return action if measure in ("", action) else f"{action} {measure}"


def act_text(act: dict[str, Any]) -> str:
    """One act for an onlooker."""
    text = f"{kind_of(act)} {act.get('scrubber.source') or act.get('scrubber.target', '')}".rstrip()
    if "scrubber.ttl_s" in act:
        text += f" for {act['scrubber.ttl_s']:g} s"
    return f"{text} ({act['rule.name']})" if "rule.name" in act else text


def _blocked(figures: Figures) -> str:
    blocks = figures.samples[-1].blocks if figures.samples else 0
    return f"{blocks} sources are blocked" if blocks else "nobody is blocked"
