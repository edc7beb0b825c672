"""People who come once: a browser's GET on a new connection each, all let through."""

from __future__ import annotations

import dataclasses

from bench.macro.clean import CLEAN, PEOPLE
from bench.macro.traffic import Traffic

ONCE = dataclasses.replace(PEOPLE, kept=False)


CLEAN_NEW: Traffic = dataclasses.replace(
    CLEAN,
    name="clean-new",
    title="Clean GET, a connection each",
    method="The requests of `clean`, each on a connection of its own (`Connection: close`), 64 at a time.",
    asks=ONCE,
)
