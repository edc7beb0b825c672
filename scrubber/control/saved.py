"""Blocks that outlive the memory they were made in: over a kill of everything, a stop, a change of layout.

Owns: how a block is written down (names and wall time, which hold in another process and after a boot), and which of
those may come back. Invariants: none comes back for longer than it had left when it was written down, or than its
mandate of today allows; never-block is asked last, by the core.
"""

from __future__ import annotations

import datetime
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from scrubber import _native
from scrubber.control.blocks import clause_by_hand, widest_prefixes
from scrubber.control.policy import PolicyInForce
from scrubber.mandate.bounds import Bounds, mandate_bounds
from scrubber.mandate.compile import rule_id
from scrubber.mandate.schema import Mandate

Id = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]  # 64 bits
Nanoseconds = Annotated[int, msgspec.Meta(ge=-(1 << 62), le=1 << 62)]
OVERLOOKED_MAX = 4  # looks at a table that did not change: one that a killed process left unsaid is found after those
PAGE = 2048  # blocks that are taken in one go, which nothing else of Python's interrupts


class SavedBlock(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag_field="is", tag="block"):
    """One block. Times are wall time in ns; `left_ns`: of its time, when this was written."""

    kind: str
    source: str
    areas: tuple[str, ...]
    rule_id: Id
    case: Id
    since_ns: Nanoseconds
    first_ns: Nanoseconds
    until_ns: Nanoseconds
    left_ns: Nanoseconds
    clause: str = ""  # these three where the clause is known
    authority: str = ""
    mandate: str = ""
    proven: bool = False  # packets come from this very address


@dataclass(frozen=True)
class Clause:
    """What a block was made under."""

    text: str
    authority: str
    mandate: str


def clauses_of(mandates: Iterable[Mandate]) -> dict[int, Clause]:
    """By id as the table has it: each rule of a mandate, and its power to block by hand."""
    found = {}
    for each in mandates:
        found[rule_id(each.id, "")] = Clause(clause_by_hand(each.id), each.head.authority, each.id)
        for rule in each.rules:
            found[rule_id(each.id, rule.name)] = Clause(f"{each.id}/{rule.name}", each.head.authority, each.id)
    return found


NOBODYS = Clause("", "", "")


class Pages:
    """Blocks as the table has them, written down with the names of one policy after another."""

    def __init__(self, memory: _native.Memory) -> None:
        self._memory = memory
        self._areas: Mapping[int, str] = {}
        self._clauses: dict[int, Clause] = {}
        self._epoch = -1  # of the last look at all of them
        self._overlooked = 0  # looks since then

    def use(self, policy: PolicyInForce) -> None:
        """From now on its names; clauses that it has no more are still those of blocks made under them."""
        self._areas = {index: name for name, index in policy.area_ids.items()}
        self._clauses = self._clauses | clauses_of(policy.mandates)

    def pages(self, *, changed: bool) -> Iterable[list[SavedBlock]]:
        """All blocks in force, page by page; `changed`: only those that were not taken before as they are."""
        epoch = self._memory.blocks_epoch()
        if changed and epoch == self._epoch and self._overlooked < OVERLOOKED_MAX:
            self._overlooked += 1
            return
        at: int | None = 0
        while at is not None:
            rows, at = _native.blocks_taken(self._memory, at, PAGE, changed)
            if rows:
                yield self._written(rows)
        self._epoch, self._overlooked = epoch, 0

    def _written(self, rows: list[tuple[str, str, list[int], int, int, int, int, int, bool]]) -> list[SavedBlock]:
        now_ns = time.monotonic_ns()
        offset_ns = time.time_ns() - now_ns
        areas, clauses = self._areas, self._clauses
        found = []
        for kind, source, indexes, since_ns, first_ns, expires_ns, case_id, rule, proven in rows:
            clause = clauses.get(rule, NOBODYS)
            found.append(
                SavedBlock(
                    kind,
                    source,
                    tuple([areas[index] for index in indexes if index in areas]),
                    f"{rule:016x}",
                    f"{case_id:016x}",
                    since_ns + offset_ns,
                    first_ns + offset_ns,
                    expires_ns + offset_ns,
                    expires_ns - now_ns,
                    clause.text,
                    clause.authority,
                    clause.mandate,
                    proven,
                )
            )
        return found


@dataclass
class Restored:
    """What came of blocks that were to come back: how many did, and how many did not, by reason."""

    back: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def text(self) -> str:
        """In one line; empty: there was nothing."""
        if not self.back and not self.dropped:
            return ""
        said = ", ".join(f"{count} {reason}" for reason, count in sorted(self.dropped.items()))
        return f"{self.back} blocks are back" + (f"; dropped: {said}" if said else "")


NO_BOUNDS = Bounds(0, 0, 0)


@dataclass(frozen=True)
class _Terms:
    """What a mandate of today leaves of blocks in some areas. `refusal`: nothing, and why."""

    refusal: str = ""
    areas: tuple[int, ...] = ()
    ends_ns: int = 0
    bounds: Bounds = NO_BOUNDS
    v4_widest: int = 0
    v6_widest: int = 0


def restore(
    memory: _native.Memory,
    image: _native.Policy,
    policy: PolicyInForce,
    blocks: Sequence[SavedBlock],
    now_ns: int | None = None,
) -> Restored:
    """Put back what may come back. `now_ns`: wall time."""
    wall_ns = time.time_ns() if now_ns is None else now_ns
    offset_ns = wall_ns - time.monotonic_ns()
    restored = Restored()
    terms: dict[tuple[str, str, tuple[str, ...]], _Terms] = {}
    rows: list[tuple[str, str, list[int], int, int, int, int, int, bool, int]] = []
    for block in blocks:
        key = (block.authority, block.mandate, block.areas)
        if key not in terms:
            terms[key] = _terms(*key, policy, wall_ns)
        allowed = terms[key]
        until_ns = _until(block, allowed, wall_ns)
        if refusal := _refusal(block, allowed, until_ns, wall_ns):
            restored.dropped[refusal] += 1
            continue
        rows.append(
            (
                block.kind,
                block.source,
                list(allowed.areas),
                min(block.since_ns, wall_ns) - offset_ns,
                min(block.first_ns, wall_ns) - offset_ns,
                until_ns - offset_ns,
                int(block.case, 16),
                int(block.rule_id, 16),
                block.proven,
                allowed.bounds.blocks_max,
            )
        )
    rows.sort(key=lambda row: -row[5])  # where there is no room for all, the least harmful are left out
    answers = Counter(_native.blocks_restore(memory, image, rows))
    restored.back = answers["new"] + answers["extended"] - answers["displaced"]
    for answer, reason in ANSWERS.items():
        restored.dropped[reason] += answers[answer]
    restored.dropped = +restored.dropped
    return restored


def _until(block: SavedBlock, allowed: _Terms, wall_ns: int) -> int:
    """The end of a block in wall time, whichever way the clock was set since."""
    left_ns = min(max(block.until_ns - wall_ns, 0), block.left_ns)
    evidence_ends_ns = min(block.first_ns, wall_ns) + allowed.bounds.block_ttl_max_ns
    return min(wall_ns + left_ns, evidence_ends_ns, allowed.ends_ns)


def _refusal(block: SavedBlock, allowed: _Terms, until_ns: int, wall_ns: int) -> str:
    if min(block.until_ns - wall_ns, block.left_ns) <= 0:
        return "expired"
    if allowed.refusal:
        return allowed.refusal
    if until_ns <= wall_ns:
        return "over block_ttl_max"
    if block.kind in ("client", "prefix"):
        _, slash, length = block.source.partition("/")
        widest, most = (allowed.v6_widest, 128) if ":" in block.source else (allowed.v4_widest, 32)
        if (int(length) if slash and length.isdigit() else most) < widest:
            return "too wide"
    return ""


def _terms(authority: str, mandate_id: str, names: tuple[str, ...], policy: PolicyInForce, wall_ns: int) -> _Terms:
    mandate = next((m for m in policy.mandates if (m.head.authority, m.id) == (authority, mandate_id)), None)
    if mandate is None:
        return _Terms("of a mandate that is gone")
    if "block" not in mandate.head.powers:
        return _Terms("of a mandate without the power to block")
    now = datetime.datetime.fromtimestamp(wall_ns / 1e9, datetime.UTC)
    if not mandate.head.not_before <= now < mandate.head.expires:
        return _Terms("of a mandate that is not in force")
    present = {area.name for area in policy.gateway.areas} & set(mandate.head.areas)
    kept = [name for name in names if name in present]
    if not kept:
        return _Terms("of areas that are gone")
    v4_widest, v6_widest = widest_prefixes(policy.mandates, kept)
    return _Terms(
        areas=tuple(policy.area_ids[name] for name in kept),
        ends_ns=int(mandate.head.expires.timestamp() * 1e9),
        bounds=mandate_bounds(mandate, policy.mandates),
        v4_widest=v4_widest,
        v6_widest=v6_widest,
    )


ANSWERS = {
    "never_block": "never-block",
    "refused_full": "over blocks_max or without room in the table",
    "displaced": "over blocks_max or without room in the table",
    "refused_source": "not understood",
    "refused_busy": "not put: the table was busy",
    "refused_ttl": "expired",
}
