"""h2spec's cases against a running gateway, and against servers that do it wrong: no case passes everywhere."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import dataclass

import pytest

from tests.conformance.http2_cases import CASES, COUNTS, Outcome, run_all
from tests.conformance.http2_stub import Mode, stub
from tests.conformance.through import unsound
from tests.e2e.proxy import Proxy
from tests.e2e.recorder import Recorder, respond
from tests.e2e.support import SLOW

# Taken by an end of the connection as well; a server that answers them not at all fails them.
MAY_END = {"generic/2/4", "generic/3.4/1", "generic/3.8/1", "http2/7/1"}
FIRST_FRAME = {"generic/1/1", "http2/3.5/1"}


@dataclass(frozen=True, slots=True)
class Run:
    """Every case once, and what arrived at the origin."""

    outcomes: dict[str, Outcome]
    origin: Recorder


@pytest.fixture(scope="module")
def run(proxy: type[Proxy]) -> Run:
    with proxy(listener="http2 = true") as found:
        found.origin.received = {}
        found.origin.default = respond(b"a body of more than five bytes")
        outcomes = asyncio.run(run_all(CASES.values(), "127.0.0.1", found.port, at_once=16))
        found.whole()
        return Run(outcomes, found.origin)


@pytest.mark.parametrize("id", CASES)
def test_case(run: Run, id: str) -> None:
    outcome = run.outcomes[id]
    assert outcome.passed, f"{CASES[id].title}: {outcome.problem or f'skipped: {outcome.skipped}'}"
    if outcome.remark:
        print(outcome.remark)


def test_what_arrives_is_sound(run: Run) -> None:
    """h11 reads all of it, and refuses nothing."""
    assert run.origin.requests
    assert not run.origin.malformed
    assert not unsound(run.origin)


# ── of the cases themselves ──


def test_as_many_as_h2spec_has() -> None:
    assert Counter(id.split("/")[0] for id in CASES) == COUNTS
    assert sum(not case.strict for case in CASES.values()) == 146
    # Numbered from 1, without a gap.
    sections = Counter(id.rpartition("/")[0] for id in CASES)
    assert set(CASES) == {f"{section}/{1 + i}" for section, count in sections.items() for i in range(count)}
    assert all(re.fullmatch(r"\w+/[\d.]+/\d+", id) for id in CASES)


async def failed_with(mode: Mode) -> set[str]:
    async with stub(mode) as port:
        outcomes = await run_all(CASES.values(), "127.0.0.1", port, at_once=50, wait_s=0.4 * SLOW)
    begun = [id for id, outcome in outcomes.items() if "an acknowledgement of ours" not in outcome.problem]
    assert set(begun) == set(CASES), "did not get further than SETTINGS"
    return {id for id, outcome in outcomes.items() if not outcome.passed}


async def test_every_case_can_fail() -> None:
    yes, gone, deaf, rude = [await failed_with(mode) for mode in ("yes", "gone", "deaf", "rude")]
    assert yes | gone == set(CASES) - MAY_END - FIRST_FRAME
    assert deaf >= MAY_END
    assert rude >= FIRST_FRAME
    # What has to be refused is what "yes" fails, what has to be taken what "gone" fails; both: windows.
    assert len(yes) >= 90
    assert len(gone) > 40
