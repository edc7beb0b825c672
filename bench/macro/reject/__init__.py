"""A flood over its limit on kept connections: refused with 429 before the origin hears of it."""

from __future__ import annotations

from pathlib import Path

from bench.macro.load import Ask, Outcome
from bench.macro.scenario import mostly
from bench.macro.traffic import Traffic

FLOOD = Ask(sources=("127.0.71.1",), connections=64, kept=True)


def complaint(outcome: Outcome) -> str:
    # The first request after a start is within the limit.
    refused = mostly(outcome.refused + 1, outcome.requests) and outcome.errors * 200 <= outcome.requests
    return "" if refused else "not every request was refused"


REJECT = Traffic(
    name="reject",
    title="Over the limit: 429 on 64 keep-alive connections",
    method="The same requests from a client whose limit is one a minute: each is answered 429 and logged, "
    "none reaches the origin.",
    configs=Path(__file__).parent,
    asks=FLOOD,
    complaint=complaint,
)
