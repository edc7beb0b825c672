"""The acts of late: what was done, to whom, under which clause. Kept for the status; the access log has all of them.

Owns: their numbering and their bound, and how a worker's record becomes one that people read: wall time, area names, a
message. Invariant: numbers only grow; who asks for what came after a number gets each act once, or finds it gone.
"""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

KEPT = 2000
# Of every act; access lines have no scrubber.kind.
ECS = {"ecs.version": "8.11.0", "event.kind": "event", "scrubber.kind": "act"}
DONE = frozenset({
    "rung", "block", "extend", "unblock", "blackhole", "flowspec", "withdraw", "restore", "drain", "undrain", "purge",
    "reload", "upgrade",
})  # fmt: skip
REFUSED = frozenset({"refuse", "reload_refused", "upgrade_refused"})

Act = dict[str, Any]


class Acts:
    """The last `KEPT` acts, numbered from 1."""

    def __init__(self, kept: int = KEPT) -> None:
        self._acts: deque[Act] = deque(maxlen=kept)
        self._count = 0

    def add(self, acts: Iterable[Act]) -> None:
        """Number them and keep them."""
        for act in acts:
            self._count += 1
            self._acts.append({"number": self._count, **act})

    def since(self, number: int) -> list[Act]:
        """Those after `number`, oldest first."""
        return [act for act in self._acts if act["number"] > number]

    def last(self, count: int) -> list[Act]:
        """The latest, oldest first."""
        return list(self._acts)[-count:]


def made(action: str, message: str, **fields: Any) -> Act:
    """An act of the supervisor's, now."""
    return {
        "@timestamp": timestamp(_now_ns()),
        **ECS,
        "event.action": action,
        **_outcome(action, enforced=fields.get("scrubber.enforced", True)),
        "message": message,
        **fields,
    }


def _outcome(action: str, *, enforced: bool) -> Act:
    """In ECS's three words; nothing, where an act is not about something that was to be done."""
    if action in REFUSED:
        return {"event.outcome": "failure"}
    return {"event.outcome": "success" if enforced else "unknown"} if action in DONE else {}


def from_record(record: bytes, wall_offset_ns: int, area_names: Mapping[int, str]) -> Act:
    """A worker's record for people; one that is none is kept as its text. `wall_offset_ns`: wall less monotonic
    time."""
    try:
        act = msgspec.json.decode(record, type=Act)
        at_ns = int(act.pop("ns")) + wall_offset_ns
        act["scrubber.areas"] = [area_names.get(area, f"area {area}") for area in act["scrubber.areas"]]
        outcome = _outcome(act["event.action"], enforced=act.get("scrubber.enforced", True))
        return {"@timestamp": timestamp(at_ns), "message": _message(act), **act, **ECS, **outcome}
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError, ValueError, OverflowError, OSError):
        return made("unreadable", record.decode("utf-8", "replace"))


def _message(act: Act) -> str:
    source, measure, rule = act["scrubber.source"], act["scrubber.measure"], act["rule.name"]
    action = act["event.action"]
    if action == "block":
        said = f"block {source} for {act.get('scrubber.ttl_s', 0)} s"
    elif action == "refuse":
        said = f"block of {source} refused: {act.get('scrubber.reason', 'no reason given')}"
    elif action == "skip":
        said = f"{measure} of {source} passed over: {act.get('scrubber.reason', 'not available here')}"
    else:
        said = f"{measure} {source}"
    where = ", ".join(act["scrubber.areas"])
    dry = "" if act.get("scrubber.enforced", True) else " (dry run)"
    return f"{said}, by {rule} in {where}{dry}"


def _now_ns() -> int:
    return int(datetime.datetime.now(datetime.UTC).timestamp() * 1e9)


def timestamp(wall_ns: int) -> str:
    """UTC, RFC 3339, milliseconds."""
    at = datetime.datetime.fromtimestamp(wall_ns / 1e9, datetime.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
