"""ExaBGP below the supervisor: the rules that the enforcer lets pass are announced, and only those.

Owns when ExaBGP is stepped. Invariants: nothing here waits for ExaBGP or a router; where its package is not installed
nothing is started, and `reason` says so.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import time
from collections.abc import Iterable
from typing import Any

from scrubber.config.upstream import Upstream
from scrubber.enforce.exabgp import ExaBgp
from scrubber.enforce.exabgp_settings import Neighbour, Settings
from scrubber.enforce.flow import Flow
from scrubber.errors import ScrubberError
from scrubber.units import NS_PER_S


class FlowSpec:
    """Belongs to the running loop. ExaBGP is started with the first rule that is wanted."""

    def __init__(self, upstream: Upstream, directory: str, logger: logging.Logger) -> None:
        self._upstream, self._directory, self._logger = upstream, directory, logger
        self._loop = asyncio.get_running_loop()
        self._exabgp: ExaBgp | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._wanted: set[str] = set()
        there = importlib.util.find_spec("exabgp") is not None
        self.reason = "" if there else "ExaBGP is not installed"

    def want(self, flows: Iterable[Flow]) -> dict[str, str]:
        """These, and no others. Returns what cannot be announced, by `Flow.match`, and why."""
        wanted = {flow.match: flow for flow in flows}
        if self._exabgp is None and wanted and not self.reason:
            self._begin()
        if self._exabgp is None:
            return dict.fromkeys(wanted, self.reason)
        gone = self._wanted - wanted.keys()
        refused = self._exabgp.apply(wanted.values(), gone, time.monotonic_ns())
        self._wanted = wanted.keys() - refused.keys()
        self._step()
        return refused | {match: why for match, why in self._exabgp.refused.items() if match in wanted}

    def withdraw(self, match: str) -> None:
        """This one, by `Flow.match`, no more."""
        self._wanted.discard(match)
        if self._exabgp is not None:
            self._exabgp.apply((), [match], time.monotonic_ns())
            self._step()

    async def end(self) -> None:
        """Ends ExaBGP, and with its sessions all rules."""
        exabgp, self._exabgp = self._exabgp, None
        if exabgp is None:
            return
        self._loop.remove_reader(exabgp.fileno())
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.to_thread(exabgp.close)

    def describe(self) -> dict[str, Any]:
        """For the status document."""
        exabgp = self._exabgp
        return {
            "reason": self.reason,
            "pid": exabgp.pid if exabgp else 0,
            "starts": exabgp.starts if exabgp else 0,
            "sessions": sorted(exabgp.sessions) if exabgp else [],
            "log": list(exabgp.log)[-3:] if exabgp else [],
        }

    def _begin(self) -> None:
        try:
            self._exabgp = ExaBgp(_settings(self._upstream, self._directory))
        except (ScrubberError, OSError) as error:
            self.reason = getattr(error, "message", "") or str(error)
            self._logger.error("ExaBGP cannot be started: %s", self.reason)
            return
        self._loop.add_reader(self._exabgp.fileno(), self._step)

    def _step(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._exabgp is not None:
            due_ns = self._exabgp.step(time.monotonic_ns())
            pause_s = max((due_ns - time.monotonic_ns()) / NS_PER_S, 0.01)
            self._timer = self._loop.call_later(pause_s, self._step)


def _settings(upstream: Upstream, directory: str) -> Settings:
    flowspec = upstream.flowspec
    assert flowspec is not None
    return Settings(
        directory=directory,
        local_as=upstream.asn,
        router_id=upstream.router_id,
        neighbours=tuple(
            Neighbour(
                address=each.address,
                local_address=each.local_address,
                peer_as=each.asn,
                password=each.password,
                hold_s=each.hold_s,
            )
            for each in flowspec.neighbours
        ),
        families=flowspec.families,
        flows_max=flowspec.rules_max,
    )
