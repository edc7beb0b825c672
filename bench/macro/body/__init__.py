"""Large bodies: 10 MiB down and 10 MiB up on a few kept connections. What counts is CPU a GB."""

from __future__ import annotations

import dataclasses

from bench.load.guard import Bounds
from bench.macro.clean import CLEAN, PEOPLE
from bench.macro.load import BODY, Outcome, ask
from bench.macro.scenario import Scenario

DOWN = dataclasses.replace(PEOPLE, connections=8)
UP = dataclasses.replace(DOWN, body_bytes=len(BODY))


def load_down(port: int, bounds: Bounds, core: int) -> Outcome:
    return ask(port, DOWN, bounds, core)


def load_up(port: int, bounds: Bounds, core: int) -> Outcome:
    return ask(port, UP, bounds, core)


SAME = "on 8 kept connections; nginx passes them on without files, HAProxy splices."

BODY_DOWN: Scenario = dataclasses.replace(
    CLEAN,
    name="body-down",
    title="Answers of 10 MiB",
    method=f"GETs with answers of 10 MiB {SAME}",
    load=load_down,
    splice="",
    page_bytes=len(BODY),
    body_bytes=len(BODY),
)
BODY_UP: Scenario = dataclasses.replace(
    CLEAN,
    name="body-up",
    title="Uploads of 10 MiB",
    method=f"POSTs with bodies of 10 MiB {SAME}",
    load=load_up,
    splice="",
    body_bytes=len(BODY),
)
