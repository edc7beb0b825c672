"""People: a browser's GETs on kept connections, all let through, under limits that are asked and never reached."""

from __future__ import annotations

from pathlib import Path

from bench.macro.load import Ask, Outcome
from bench.macro.scenario import mostly
from bench.macro.traffic import Traffic

PEOPLE = Ask(sources=tuple(f"127.0.70.{i}" for i in range(1, 17)), connections=64, kept=True)


def complaint(outcome: Outcome) -> str:
    served = mostly(outcome.good, outcome.requests) and outcome.errors * 200 <= outcome.requests
    return "" if served else "not every request was served"


CLEAN = Traffic(
    name="clean",
    title="Clean GET, 64 keep-alive connections",
    method="A browser's GET of a page of about 1 KB on 64 kept connections of 16 clients; every request passes "
    "a limit a client, an area-wide limit and a connection cap, and is logged.",
    configs=Path(__file__).parent,
    asks=PEOPLE,
    complaint=complaint,
)
