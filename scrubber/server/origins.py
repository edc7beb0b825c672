"""Origins as the supervisor sees them: their places in shared memory, what became of them, drains by hand.

Owns: the entries of the region ORIGINS as far as they are the supervisor's (who an entry is about, drains), and the
record of what happens to origins. Invariants: an entry that is its origin's already is left as it is, so that reloads
and new supervisors find everything; each change is recorded once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scrubber import _native
from scrubber.config.origins import Origin, PoolSettings
from scrubber.config.walk import nearest
from scrubber.control import acts
from scrubber.control.drain import DrainOrder
from scrubber.control.policy import PolicyInForce
from scrubber.errors import OperatorError
from scrubber.mandate.slots import origin_key, origin_name, pool_name, pools_of
from scrubber.server.journal import Journal
from scrubber.server.trouble import Growing
from scrubber.units import NS_PER_S

# Counters of the gateway whose growth is recorded: the act, and what it says of how many.
TROUBLES = {
    "origin_shortages": (
        "origin_shortage",
        "%d connections to origins could not be begun here: descriptors, ports or memory ran out",
    ),
    "accept_shortages": ("accept_shortage", "connections waited to be accepted, %d times: descriptors ran out here"),
    "origin_bad": ("origin_bad", "%d answers of origins were refused or broke off"),
}


@dataclass(frozen=True)
class Place:
    """One origin of one pool, and where its state lies."""

    area: str
    pool: str  # empty: the area's own
    origin: Origin
    settings: PoolSettings
    index: int
    key: int
    label: str  # what metrics call it within its pool

    @property
    def title(self) -> str:
        """As records have it: "127.0.0.1:8000 of portal/api"."""
        return f"{self.written} of {pool_name(self.area, self.pool)}"

    @property
    def written(self) -> str:
        """Its address; the name it came from, too."""
        address = str(self.origin.address)
        return f"{self.origin.via} ({address})" if self.origin.via else address


def places_of(policy: PolicyInForce) -> list[Place]:
    """Every origin of a policy, names resolved."""
    found = []
    for area, written in zip(policy.resolved.areas, policy.gateway.areas, strict=True):
        for (pool, origins, settings), (_, in_file, _) in zip(pools_of(area), pools_of(written), strict=True):
            for origin, label in zip(origins, labels_of(origins, in_file), strict=True):
                name = origin_name(area.name, pool, origin)
                place = Place(
                    area.name, pool, origin, settings, policy.slots.origins[name], origin_key(name), label=label
                )
                found.append(place)
    return found


def labels_of(origins: Sequence[Origin], in_file: Sequence[Origin]) -> list[str]:
    """What metrics call the origins of a pool, for no address is a label: the name that the file has ("#2": the second
    of its addresses), else the place in the file's list."""
    places = {origin.address: place for place, origin in enumerate(in_file)}
    seen: Counter[str] = Counter()
    labels = []
    for origin in origins:
        seen[origin.via] += 1
        nth = f"#{seen[origin.via]}" if seen[origin.via] > 1 else ""
        labels.append(f"{origin.via}{nth}" if origin.via else str(places[origin.address]))
    return labels


class Origins:
    """`claim` before a policy goes out; `look` once a second."""

    def __init__(self, memory: _native.Memory, journal: Journal) -> None:
        self._memory = memory
        self._journal = journal
        self._ejections: dict[int, int] = {}  # by key
        self._out: dict[int, Place] = {}
        self._named: dict[int, Place] = {}  # by key; also those that a name stood for before
        totals = memory.totals([])
        self._troubles = {name: Growing(count=int(totals[name])) for name in TROUBLES}
        self._unanswered: dict[str, Growing] = {}  # by area

    def claim(self, policy: PolicyInForce, *, begun: bool = False) -> None:
        """Make the entries those of this policy's origins. `begun`: they have been serving before we came."""
        since_ns = 0 if begun else time.monotonic_ns()
        places = places_of(policy)
        drained = self._drained_names(places)
        for place in places:
            if self._memory.origin_claim(place.index, place.key, since_ns) and _name_of(place) in drained:
                self._memory.origin_drain(place.index, True, 0)

    def _drained_names(self, places: Sequence[Place]) -> set[tuple[str, str, str]]:
        """Names with a drained address: what they resolve to next is drained, too."""
        self._named |= {place.key: place for place in places if place.origin.via}
        return {
            _name_of(place)
            for place in self._named.values()
            if self._memory.origin_state(place.index, place.key).get("drained")
        }

    # ── what happens to them ──

    def look(self, policy: PolicyInForce) -> None:
        """Record those that were ejected, and those that are back. (Health checks record what they find.)"""
        self._look_troubles(policy, time.monotonic())
        now_ns = time.monotonic_ns()
        for place in places_of(policy):
            state = self._memory.origin_state(place.index, place.key)
            before = self._ejections.get(place.key, 0)
            self._ejections[place.key] = state.get("ejections", 0)
            out = state.get("ejected_until_ns", 0) > now_ns
            if out and (place.key not in self._out or state["ejections"] > before):
                left_s = (state["ejected_until_ns"] - now_ns) / NS_PER_S
                said = f"origin {place.title} refuses connections: left out for {left_s:.0f} s"
                self._record("origin_ejected", said, place)
            elif not out and place.key in self._out:
                self._record("origin_back", f"origin {place.title} may serve again", place)
            if out:
                self._out[place.key] = place
            else:
                self._out.pop(place.key, None)

    def _look_troubles(self, policy: PolicyInForce, now_s: float) -> None:
        """Record what goes on being wrong, once a minute: here, where no origin is to blame; and that origins do not
        answer."""
        totals = self._memory.totals(list(policy.area_ids.values()))
        for name, (action, message) in TROUBLES.items():
            if count := self._troubles[name].look(int(totals[name]), now_s):
                self._journal.record(acts.made(action, message % count))
        for area, area_id in policy.area_ids.items():
            errors = int(totals["areas"][area_id]["origin_errors"])
            if count := self._unanswered.setdefault(area, Growing(count=errors)).look(errors, now_s):
                said = f"{count} requests to {area} got no answer from an origin (502, 503 or 504)"
                self._journal.record(acts.made("origin_errors", said, **{"scrubber.areas": [area]}))

    def _record(self, action: str, message: str, place: Place, **fields: Any) -> None:
        named = {"scrubber.areas": [place.area], "scrubber.pool": place.pool, "scrubber.origin": place.written}
        self._journal.record(acts.made(action, message, **named, **fields))

    # ── drains ──

    def drain(self, order: DrainOrder, policy: PolicyInForce) -> dict[str, Any]:
        """Take no new requests for an origin or an area, or take them again. OperatorError: there is none of that
        name."""
        drained = order.drained
        action = "drain" if drained else "undrain"
        because = f": {order.reason}" if order.reason else ""
        area = policy.gateway.area(order.target)
        if area is not None:
            self._memory.area_drain(policy.area_ids[area.name], drained)
            fields = {"scrubber.areas": [area.name], "event.reason": order.reason}
            self._journal.record(acts.made(action, f"{action} area {area.name} by hand{because}", **fields))
            return {"did": f"{action}ed", "target": order.target, "areas": [area.name], "origins": []}
        places = [place for place in places_of(policy) if _is_named(place, order)]
        if not places:
            known = {area.name for area in policy.gateway.areas}
            known |= {place.origin.via or str(place.origin.address) for place in places_of(policy)}
            raise OperatorError(f"no area and no origin {order.target!r}", hint=nearest(order.target, known))
        for place in places:
            self._memory.origin_drain(place.index, drained, time.monotonic_ns())
            said = f"{action} origin {place.title} by hand{because}"
            self._record(action, said, place, **{"event.reason": order.reason})
        areas = list(dict.fromkeys(place.area for place in places))
        titles = [place.title for place in places]
        return {"did": f"{action}ed", "target": order.target, "areas": areas, "origins": titles}

    # ── what is told of them ──

    def described(self, policy: PolicyInForce, in_flight: dict[int, int]) -> list[dict[str, Any]]:
        """For the status: each origin, whether it takes requests, and why not."""
        now_ns, offset_ns = time.monotonic_ns(), time.time_ns() - time.monotonic_ns()
        found = []
        for place in places_of(policy):
            state = self._memory.origin_state(place.index, place.key)
            out_ns = max(state.get("ejected_until_ns", 0) - now_ns, 0)
            since_ns = state.get("health_since_ns", 0)
            found.append(
                {
                    "area": place.area,
                    "pool": place.pool,
                    "label": place.label,
                    "address": str(place.origin.address),
                    "name": place.origin.via,
                    "weight": place.origin.weight,
                    "backup": place.origin.backup,
                    "state": _state_word(state, out_ns),
                    "health": state.get("health", "unknown") if place.settings.health.asked else "not checked",
                    "since": acts.timestamp(since_ns + offset_ns) if since_ns else None,
                    "ejected_s": round(out_ns / NS_PER_S, 1),
                    "drained": state.get("drained", False),
                    "in_flight": in_flight.get(place.index, 0),
                }
            )
        return found


def _state_word(state: dict[str, Any], out_ns: int) -> str:
    if state.get("drained"):
        return "drained"
    if state.get("health") == "down":
        return "down"
    return "ejected" if out_ns else "up"


def _name_of(place: Place) -> tuple[str, str, str]:
    return place.area, place.pool, place.origin.via


def _is_named(place: Place, order: DrainOrder) -> bool:
    return order.target in (str(place.origin.address), place.origin.via) and order.area in ("", place.area)
