"""Large bodies: 10 MiB down and 10 MiB up on a few kept connections. What counts is CPU a GB."""

from __future__ import annotations

import dataclasses

from bench.macro.clean import CLEAN, PEOPLE
from bench.macro.load import BODY
from bench.macro.scenario import Scenario

DOWN = dataclasses.replace(PEOPLE, connections=8)
UP = dataclasses.replace(DOWN, body_bytes=len(BODY))


SAME = "on 8 kept connections; nginx passes them on without files, HAProxy splices."

BODY_DOWN: Scenario = dataclasses.replace(
    CLEAN,
    name="body-down",
    title="Answers of 10 MiB",
    method=f"GETs with answers of 10 MiB {SAME}",
    asks=DOWN,
    splice="",
    page_bytes=len(BODY),
    body_bytes=len(BODY),
)
BODY_UP: Scenario = dataclasses.replace(
    CLEAN,
    name="body-up",
    title="Uploads of 10 MiB",
    method=f"POSTs with bodies of 10 MiB {SAME}",
    asks=UP,
    splice="",
    body_bytes=len(BODY),
)
