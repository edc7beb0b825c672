"""What no block may exceed: the bounds of all mandates over an area, joined; the tightest wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scrubber.mandate.schema import Mandate


@dataclass(frozen=True)
class Bounds:
    """What no block may exceed."""

    block_ttl_max_ns: int
    blocks_max: int
    clients_share_max_ppm: int


def area_bounds(name: str, mandates: Sequence[Mandate]) -> Bounds:
    """The tightest of all mandates that may block in an area; nothing at all where none may."""
    found = [m.proportion for m in mandates if name in m.head.areas and "block" in m.head.powers]
    return Bounds(
        min((p.block_ttl_max_ns for p in found), default=0),
        min((p.blocks_max for p in found), default=0),
        min((p.clients_share_max_ppm for p in found), default=0),
    )


def mandate_bounds(mandate: Mandate, mandates: Sequence[Mandate]) -> Bounds:
    """For a block under `mandate`, which binds all its areas: the tightest of these."""
    every = [area_bounds(name, mandates) for name in mandate.head.areas]
    return Bounds(
        min(b.block_ttl_max_ns for b in every),
        min(b.blocks_max for b in every),
        min(b.clients_share_max_ppm for b in every),
    )
