"""Sources that are shut out and come back with a new connection each time: turned away as early as each system can."""

from __future__ import annotations

from pathlib import Path

from bench.macro.load import Ask, Outcome
from bench.macro.scenario import mostly
from bench.macro.systems import Running
from bench.macro.traffic import Traffic

SOURCES = tuple(f"127.0.66.{i}" for i in range(1, 5))  # the same that the configurations of the others shut out
FLOOD = Ask(sources=SOURCES, connections=64, kept=False)


def prepare(running: Running) -> None:
    for source in SOURCES:
        running.command("block", source, "--for", "1h", "--reason", "bench")


def complaint(outcome: Outcome) -> str:
    return "" if mostly(outcome.cut, outcome.requests) else "not every connection was turned away"


BANNED = Traffic(
    name="banned",
    title="Blocked source, a new connection each",
    method="Four blocked sources connect and ask again and again: Scrubber resets at accept (block table), HAProxy "
    "rejects the connection (source list), nginx answers `return 444` after the head, the earliest it has.",
    configs=Path(__file__).parent,
    asks=FLOOD,
    complaint=complaint,
    prepare=prepare,
)
