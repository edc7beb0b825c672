"""Prefixes that are blocked in place of many of their hosts: asked for, made, on the record.

Owns the step from a crowd to a block. Invariants: what is made is a block of the rule that blocked most of its hosts,
by the same way, and within the same bounds, as any other; a refusal is on the record once for each prefix and reason.
"""

from __future__ import annotations

import datetime
import time

from scrubber import _native
from scrubber.config.enforcer import Enforcer
from scrubber.control import acts
from scrubber.control.aggregate import Aggregate, Crowd
from scrubber.control.blocks import BlockGrant, Refusal, Source, put_block
from scrubber.control.cover import Cover
from scrubber.control.policy import PolicyInForce
from scrubber.control.saved import clauses_of
from scrubber.control.shut import Shut
from scrubber.enforce.envelope import Spans, Terms
from scrubber.enforce.net import net_of, net_text
from scrubber.mandate.bounds import mandate_bounds
from scrubber.mandate.compile import rule_id
from scrubber.mandate.schema import Mandate
from scrubber.server.journal import Journal
from scrubber.units import NS_PER_S, format_duration

REASONS_MAX = 10_000
OFF = Enforcer(aggregate=0)


class Aggregation:
    """`touched` with what has changed, `look` now and then."""

    def __init__(self, memory: _native.Memory, journal: Journal) -> None:
        self._memory, self._journal = memory, journal
        self._aggregate = Aggregate()
        self.touched, self.all_touched = self._aggregate.touched, self._aggregate.all_touched
        self._policy: PolicyInForce | None = None
        self._mandates: dict[int, Mandate] = {}  # by rule; a block by hand is no rule's
        self._names: dict[int, str] = {}  # "mandate/rule"
        self._never = Spans(())
        self._reasons: set[tuple[str, str]] = set()  # source and reason that are on the record

    def use(self, policy: PolicyInForce, terms: Terms) -> None:
        """From now on its rules, never-block lists and bounds. `terms`: as the enforcer has them."""
        self._policy = policy
        self._mandates = {rule_id(m.id, rule.name): m for m in policy.mandates for rule in m.rules}
        self._names = {each: clause.text for each, clause in clauses_of(policy.mandates).items()}
        enforcer = policy.gateway.enforcer or OFF
        self._never = Spans((*terms.never, *map(net_of, enforcer.protects)))
        v4_widest = max(enforcer.prefix_v4_widest, terms.v4_widest)
        v6_widest = max(enforcer.prefix_v6_widest, terms.v6_widest)
        least = enforcer.aggregate if policy.gateway.enforce else 0
        self._aggregate.use(least, v4_widest, v6_widest, self._mandates)

    def look(self, shut: Shut, cover: Cover) -> None:
        """Block what is crowded."""
        for crowd in self._aggregate.found(shut, time.monotonic_ns()):
            standing_ns = _standing(crowd, shut, cover)
            if standing_ns > time.monotonic_ns():
                self._aggregate.made(crowd, standing_ns)
            else:
                self._block(crowd)

    def _block(self, crowd: Crowd) -> None:
        now_ns = time.monotonic_ns()
        answer = self._asked(crowd, crowd.until_ns - now_ns)
        if isinstance(answer, Refusal):
            self._aggregate.refused(crowd, now_ns)
            self._say_refused(crowd, answer.reason)
        else:
            self._aggregate.made(crowd, crowd.until_ns)
            self._say_made(crowd, answer)

    def _asked(self, crowd: Crowd, ttl_ns: int) -> BlockGrant | Refusal:
        """The block, made; or why there is none."""
        assert self._policy is not None  # it has the rule
        mandate, names = self._mandates[crowd.rule_id], self._policy.area_names()
        head, now = mandate.head, datetime.datetime.now(datetime.UTC)
        if not head.not_before <= now < head.expires:
            return Refusal("mandate expired", "")
        if not names.keys() >= set(crowd.areas):
            return Refusal("area of another mandate", "")
        bounds = mandate_bounds(mandate, self._policy.mandates)
        left_ns = int((head.expires - now).total_seconds() * NS_PER_S)
        grant = BlockGrant(
            source=Source("prefix", net_text(crowd.prefix)),
            mandate=mandate.id,
            clause=self._names[crowd.rule_id],
            rule_id=crowd.rule_id,
            areas=tuple(names[area] for area in crowd.areas),
            ttl_ns=min(ttl_ns, left_ns, bounds.block_ttl_max_ns),
            ttl_max_ns=bounds.block_ttl_max_ns,
            blocks_max=bounds.blocks_max,
            clients_share_max_ppm=bounds.clients_share_max_ppm,
        )
        if self._never.touches(crowd.prefix):
            return Refusal("never-block", "")
        answer = put_block(self._memory, grant, self._policy.area_ids)
        return answer if isinstance(answer, Refusal) else grant

    def _say_made(self, crowd: Crowd, grant: BlockGrant) -> None:
        many = f"{crowd.hosts} of its {crowd.clients} clients are blocked"
        for_ = format_duration(grant.ttl_ns // NS_PER_S * NS_PER_S)
        said = f"block {grant.source} for {for_}, by {grant.clause}: {many}"
        fields = {
            "scrubber.reason": f"aggregate: {many}",
            "scrubber.areas": list(grant.areas),
            "scrubber.ttl_s": grant.ttl_ns / NS_PER_S,
        }
        self._journal.record(acts.made("block", said, **_whom(crowd, grant.clause), **fields))

    def _say_refused(self, crowd: Crowd, reason: str) -> None:
        source = net_text(crowd.prefix)
        if (source, reason) in self._reasons:
            return
        if len(self._reasons) >= REASONS_MAX:
            self._reasons.clear()
        self._reasons.add((source, reason))
        said = f"block of {source} refused: {reason}; {crowd.hosts} of its {crowd.clients} clients stay blocked"
        fields = {**_whom(crowd, self._names[crowd.rule_id]), "scrubber.reason": f"aggregate: {reason}"}
        self._journal.record(acts.made("refuse", said, **fields))


def _whom(crowd: Crowd, clause: str) -> dict[str, str]:
    """Of either act."""
    return {
        "rule.name": clause,
        "scrubber.source": net_text(crowd.prefix),
        "scrubber.source_kind": "prefix",
        "scrubber.measure": "block",
    }


def _standing(crowd: Crowd, shut: Shut, cover: Cover) -> int:
    """Until when it is blocked already, itself or with more around it; 0: it is not."""
    blocks = [block for prefix in cover.over(crowd.prefix) for block in shut.blocks(prefix).items()]
    return max((block.expires_ns for areas, block in blocks if set(areas) >= set(crowd.areas)), default=0)
