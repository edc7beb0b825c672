"""What a case is, and how all of them are run.

Invariants: an id is given once; a case has a connection of its own; no case, whatever it does, keeps the others from
being run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from tests.conformance.http2_peer import WAIT_S, Peer, Skipped, Unexpected

Steps = Callable[[Peer], Awaitable[None]]
CASE_S = 6 * WAIT_S  # a case waits at most four times


@dataclass(frozen=True, slots=True)
class Case:
    """`steps` are taken once SETTINGS are exchanged, or (`bare`) on a connection on which nothing was said yet."""

    id: str  # h2spec's: group, section, number
    title: str
    steps: Steps
    bare: bool = False
    strict: bool = False  # a SHOULD: h2spec asks it only where told to be strict


@dataclass(frozen=True, slots=True)
class Outcome:
    """`problem`, `skipped`: why it failed or does not apply; empty: it did not, it does. `remark`: passed, but."""

    problem: str = ""
    skipped: str = ""
    remark: str = ""

    @property
    def passed(self) -> bool:
        return not self.problem and not self.skipped


CASES: dict[str, Case] = {}


def case(id: str, title: str, *, bare: bool = False, strict: bool = False) -> Callable[[Steps], Steps]:
    """Puts these steps among the cases."""

    def put(steps: Steps) -> Steps:
        assert id not in CASES, id
        CASES[id] = Case(id, title, steps, bare, strict)
        return steps

    return put


async def run(case: Case, host: str, port: int, wait_s: float = WAIT_S) -> Outcome:
    """One case, on a connection of its own."""
    try:
        async with asyncio.timeout(CASE_S), Peer(host, port, wait_s) as peer:
            if not case.bare:
                await peer.handshake()
            await case.steps(peer)
            return Outcome(remark=peer.remark)
    except Unexpected as error:
        return Outcome(problem=str(error))
    except Skipped as error:
        return Outcome(skipped=str(error))
    except OSError as error:  # TimeoutError is one
        return Outcome(problem=repr(error))


async def run_all(
    cases: Iterable[Case], host: str, port: int, *, at_once: int = 8, wait_s: float = WAIT_S
) -> dict[str, Outcome]:
    """The outcomes by id."""
    places = asyncio.Semaphore(at_once)

    async def one(case: Case) -> tuple[str, Outcome]:
        async with places:
            return case.id, await run(case, host, port, wait_s)

    return dict(await asyncio.gather(*map(one, cases)))
