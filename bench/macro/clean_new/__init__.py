"""People who come once: a browser's GET on a new connection each, all let through."""

from __future__ import annotations

import dataclasses

from bench.load.guard import Bounds
from bench.macro.clean import CLEAN, PEOPLE
from bench.macro.load import Outcome, ask
from bench.macro.scenario import Scenario

ONCE = dataclasses.replace(PEOPLE, kept=False)


def load(port: int, bounds: Bounds, core: int) -> Outcome:
    return ask(port, ONCE, bounds, core)


CLEAN_NEW: Scenario = dataclasses.replace(
    CLEAN,
    name="clean-new",
    title="Clean GET, a connection each",
    method="The requests of `clean`, each on a connection of its own (`Connection: close`), 64 at a time.",
    load=load,
)
