"""Drains by hand: what is asked for."""

from __future__ import annotations

import msgspec


class DrainOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`target`: an area's name, or an origin's address as the gateway file has it; `area`: only there."""

    target: str
    drained: bool = True
    area: str = ""
    reason: str = ""
