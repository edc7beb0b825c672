"""Blocks by hand: what the admin side asks for, done under a clause and put on the record.

Owns: the way from an order to the block table and back. Which clause allows a block is scrubber.control.blocks' to say.
Invariant: every order leaves a record, done or refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NoReturn

from scrubber import _native
from scrubber.config.network import network
from scrubber.control import acts
from scrubber.control.blocks import (
    BlockGrant,
    BlockOrder,
    Refusal,
    Source,
    UnblockOrder,
    allowed_block,
    parse_source,
    put_block,
)
from scrubber.control.policy import PolicyInForce
from scrubber.control.saved import clauses_of
from scrubber.errors import OperatorError, ValueRefused
from scrubber.server.journal import Journal
from scrubber.units import NS_PER_S, format_duration


class ByHand:
    """The blocks of one gateway, as its operators see and change them. `lifted`: is told of each source that is blocked
    no more."""

    def __init__(self, memory: _native.Memory, journal: Journal, lifted: Callable[[str, str], None]) -> None:
        self._memory = memory
        self._journal = journal
        self._lifted = lifted

    def block(self, order: BlockOrder, policy: PolicyInForce) -> dict[str, Any]:
        """What was done. OperatorError: not allowed, by mandate or tables."""
        try:
            answer = allowed_block(policy.mandates, policy.resolved, order.source, order.ttl_s, order.area)
        except ValueRefused as error:
            self._refuse(order.source, order.reason, Refusal(error.message, error.hint or error.expected))
        if isinstance(answer, Refusal):
            self._refuse(order.source, order.reason, answer)
        if not policy.gateway.enforce:
            return self._done("block", answer, order, "", enforced=False)
        did = put_block(self._memory, answer, policy.area_ids)
        if isinstance(did, Refusal):
            self._refuse(order.source, order.reason, did)
        case = next((b["case_id"] for b in self._memory.blocks() if _is(b, answer.source)), "")
        return self._done("block" if did == "new" else "extend", answer, order, case, enforced=True)

    def unblock(self, order: UnblockOrder) -> dict[str, Any]:
        """What was done. OperatorError: no such block."""
        try:
            source = parse_source(order.source)
        except ValueRefused as error:
            raise OperatorError(error.message, hint=error.hint or error.expected) from None
        lifted = [block for block in self._memory.blocks() if _is(block, source)]
        if not self._memory.block_remove(source.kind, source.text):
            wider = [str(_source(block)) for block in self._memory.blocks() if _covers(block, source)]
            hint = f"it is covered by: {', '.join(wider)}" if wider else "scrubber blocks lists those in force"
            raise OperatorError(f"{source} is not blocked", hint=hint)
        self._lifted(source.kind, source.text)
        case = lifted[0]["case_id"] if lifted else ""
        because = f": {order.reason}" if order.reason else ""
        fields = {"scrubber.source": str(source), "event.reason": order.reason, "scrubber.case": case}
        self._journal.record(acts.made("unblock", f"unblock {source} by hand{because}", **fields))
        return {"did": "unblocked", "source": str(source), "case": case}

    def listed(self, policy: PolicyInForce) -> list[dict[str, Any]]:
        """Blocks in force, the latest first."""
        offset_ns, now_ns = time.time_ns() - time.monotonic_ns(), time.monotonic_ns()
        names = policy.area_names()
        clauses = {f"{number:016x}": clause.text for number, clause in clauses_of(policy.mandates).items()}
        return [
            {
                "kind": block["kind"],
                "source": str(_source(block)),
                "areas": [names.get(area, f"area {area}") for area in block["areas"]],
                "since": acts.timestamp(block["since_ns"] + offset_ns),
                "expires": acts.timestamp(block["expires_ns"] + offset_ns),
                "ttl_left_s": round((block["expires_ns"] - now_ns) / NS_PER_S, 1),
                "case": block["case_id"],
                "rule": clauses.get(block["rule_id"], block["rule_id"]),
                "hits": block["hits"],
            }
            for block in sorted(self._memory.blocks(), key=lambda block: -int(block["since_ns"]))
        ]

    def _done(self, action: str, grant: BlockGrant, order: BlockOrder, case: str, *, enforced: bool) -> dict[str, Any]:
        ttl_s = grant.ttl_ns / NS_PER_S
        did = {"block": "blocked", "extend": "extended the block of"}[action] if enforced else "dry run: would block"
        where, dry = ", ".join(grant.areas), "" if enforced else " (dry run)"
        said = (
            f"{action} {grant.source} for {format_duration(grant.ttl_ns)} by hand under {grant.clause} in {where}{dry}"
        )
        fields = {
            "rule.name": grant.clause,
            "event.reason": order.reason,
            "scrubber.measure": "block",
            "scrubber.source_kind": grant.source.kind,
            "scrubber.source": str(grant.source),
            "scrubber.areas": list(grant.areas),
            "scrubber.ttl_s": ttl_s,
            "scrubber.case": case,
            "scrubber.enforced": enforced,
        }
        self._journal.record(acts.made(action, f"{said}: {order.reason}", **fields))
        return {
            "did": did,
            "source": str(grant.source),
            "ttl_s": ttl_s,
            "rule": grant.clause,
            "areas": list(grant.areas),
            "case": case,
        }

    def _refuse(self, source: str, reason: str, refusal: Refusal) -> NoReturn:
        """Record it, then raise OperatorError."""
        fields = {"event.reason": reason, "scrubber.source": source, "scrubber.reason": refusal.reason}
        self._journal.record(acts.made("refuse", f"block of {source} by hand refused: {refusal.reason}", **fields))
        raise OperatorError(f"not blocked: {refusal.reason}", hint=refusal.hint)


def _source(block: dict[str, Any]) -> Source:
    return Source(block["kind"], block["source"])


def _is(block: dict[str, Any], source: Source) -> bool:
    return _source(block) == source


def _covers(block: dict[str, Any], source: Source) -> bool:
    addresses = ("client", "prefix")
    if block["kind"] not in addresses or source.kind not in addresses:
        return False
    wide, narrow = network(block["source"]), network(source.text)
    return wide.version == narrow.version and wide.overlaps(narrow)
