"""Large bodies: 10 MiB down and 10 MiB up on a few kept connections. What counts is CPU a GB."""

from __future__ import annotations

import dataclasses

from bench.macro.clean import CLEAN, PEOPLE
from bench.macro.load import BODY
from bench.macro.traffic import Traffic

DOWN = dataclasses.replace(PEOPLE, connections=8)
UP = dataclasses.replace(DOWN, body_bytes=len(BODY))
SPLICING: dict[str, object] = {"SPLICE": ""}  # HAProxy's `option splice-auto`
SAME = "on 8 kept connections; nginx passes them on without files, HAProxy splices."

BODY_DOWN: Traffic = dataclasses.replace(
    CLEAN,
    name="body-down",
    title="Answers of 10 MiB",
    method=f"GETs with answers of 10 MiB {SAME}",
    asks=DOWN,
    values=SPLICING,
    page_bytes=len(BODY),
    body_bytes=len(BODY),
)
BODY_UP: Traffic = dataclasses.replace(
    CLEAN,
    name="body-up",
    title="Uploads of 10 MiB",
    method=f"POSTs with bodies of 10 MiB {SAME}",
    asks=UP,
    values=SPLICING,
    body_bytes=len(BODY),
)
