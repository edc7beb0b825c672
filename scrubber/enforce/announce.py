"""Blackholes upstream: kernel routes that the machine's BGP daemon learns and announces.

Owns tables 667 (victims) and 668 (sources), of them what carries protocol 200, and the tun device "scrub1". No rule
looks these tables up, so nothing of this machine's own traffic is touched by what is announced. Invariants: all routes
are on the tun, so that the kernel takes them away, and the daemon withdraws them, when this process dies in whatever
way; none for a whole family, none with host bits. It announces what it is told: who may be announced is the envelope's
matter, and once more the daemon's (export filter of `bird_config`).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping

from scrubber.enforce.backend import Drop
from scrubber.enforce.net import Net
from scrubber.enforce.routes import Routes

TUN = "scrub1"
VICTIMS_TABLE, SOURCES_TABLE = 667, 668
ANNOUNCED_MAX = 1024

Blackhole = tuple[Net, str]  # a network; "victim": what goes there is dropped upstream, "source": what comes from there


class Announcer:
    """Used by one thread. Construction raises Unavailable; after it CAP_NET_ADMIN is enough."""

    def __init__(
        self,
        *,
        tun: str = TUN,
        victims_table: int = VICTIMS_TABLE,
        sources_table: int = SOURCES_TABLE,
        announced_max: int = ANNOUNCED_MAX,
    ) -> None:
        if victims_table == sources_table:
            raise ValueError("victims and sources need a table each: the daemon tells them apart by it")

        def room(_: Blackhole) -> tuple[Hashable, int]:
            return "announced", announced_max

        self._routes = Routes(tun, {"victim": victims_table, "source": sources_table}, room)

    def apply(self, put: Mapping[Blackhole, int], remove: Collection[Blackhole], now_ns: int) -> dict[Blackhole, str]:
        """Announce these until then (those that are announced get their new time) and withdraw those. Returns what is
        not announced, and why: "full", "unsupported", "over", or the kernel's word."""
        return self._routes.apply({key: Drop(until_ns, 0) for key, until_ns in put.items()}, remove, now_ns)

    def listed(self, now_ns: int) -> dict[Blackhole, int]:
        """What the kernel holds of ours, exactly, and until when. OSError: it did not say."""
        return {key: drop.until_ns for key, drop in self._routes.listed(now_ns).items()}

    def due_ns(self) -> int | None:
        """When the first of what is announced ends: `apply` or `listed` then withdraws it. The kernel does not."""
        return self._routes.due_ns()

    def fileno(self) -> int:
        """Readable when somebody may have changed what is ours."""
        return self._routes.fileno()

    def disturbed(self) -> bool:
        """Reads what made `fileno` readable. Whether `listed` has to be asked."""
        return self._routes.disturbed()

    def close(self) -> None:
        """All is withdrawn."""
        self._routes.close()
