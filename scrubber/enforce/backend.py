"""What every backend that drops packets in this machine's kernel can do; one file a backend.

Owns the interface, and the words for what is dropped where. Invariants that the conformance suite (tests/net) holds all
of them to: what `apply` took is in the kernel when it returns; nothing outlives `Drop.until_ns`, whoever has died by
then; objects of others are never touched; what `listed` says is what the kernel holds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from scrubber.enforce.net import Net

DOORS_MAX = 8
TABLE = "scrubber"  # our nftables table
ROUTE_TABLE = 666
ROUTE_PROTO = 200


class Door(NamedTuple):
    """TCP listening addresses that lead to the same areas. An address of b"" is every address of that family."""

    addresses: tuple[tuple[int, bytes, int], ...]  # 4 or 6, address in network byte order, port


class Drop(NamedTuple):
    """Packets from a network are dropped until then. `doors`: bit by index of the doors that are shut to it."""

    until_ns: int  # CLOCK_MONOTONIC
    doors: int


class Count(NamedTuple):
    """What was dropped of a network since its entry was made."""

    packets: int
    bytes: int


@dataclass(frozen=True)
class Settings:
    """What a backend needs to know when it is opened."""

    doors: tuple[Door, ...]
    interfaces: tuple[str, ...] = ()  # where packets come in; empty: everywhere
    hosts_max: int = 65536  # of either family
    prefixes_max: int = 1024
    xdp_mode: str = "auto"  # "native", "generic"


class Unavailable(Exception):
    """This machine cannot, and why, in one line."""


class Backend(ABC):
    """Used by one thread. Construction opens what takes privilege: raises Unavailable. After it CAP_NET_ADMIN has to
    be enough."""

    name: ClassVar[str]

    @abstractmethod
    def __init__(self, settings: Settings) -> None: ...

    @abstractmethod
    def apply(self, put: Mapping[Net, Drop], remove: Collection[Net], now_ns: int) -> dict[Net, str]:
        """Put these (those that are there get their new time and doors) and take those out (what is not there is no
        matter). Returns what was not put, and why: "full", "unsupported", or the kernel's word."""

    @abstractmethod
    def listed(self, now_ns: int) -> dict[Net, Drop]:
        """All that the kernel holds of ours, exactly; of times within a second. OSError: the kernel did not say."""

    @abstractmethod
    def counted(self) -> dict[Net, Count]:
        """Of each network that is in force; those of which nothing was dropped may be left out."""

    @abstractmethod
    def close(self, *, withdraw: bool) -> None:
        """Let go: with everything of ours gone from the kernel, or left there until its time is up (where the backend
        can leave it; else gone)."""

    def use_doors(self, doors: Sequence[Door]) -> None:
        """The listening addresses are others now: what is in force goes over to them, by index."""
        raise NotImplementedError

    def fileno(self) -> int:
        """Readable when somebody may have changed what is ours; -1: never said."""
        return -1

    def disturbed(self) -> bool:
        """Reads what made `fileno` readable. Whether another than us changed something of ours, or nobody can say (lost
        messages): then `listed` has to be asked."""
        return False
