"""Every scenario, in the order in which the results show them."""

from __future__ import annotations

from bench.macro.banned import BANNED
from bench.macro.body import BODY_DOWN, BODY_UP
from bench.macro.clean import CLEAN
from bench.macro.clean_new import CLEAN_NEW
from bench.macro.decide import DECIDE
from bench.macro.flood import FLOODS
from bench.macro.idle import IDLE
from bench.macro.micro import MICRO
from bench.macro.post import POST
from bench.macro.reject import REJECT
from bench.macro.reload import RELOAD
from bench.macro.scenario import Scenario
from bench.macro.websocket import WEBSOCKET
from bench.macro.workers import WORKERS

TRAFFIC = (CLEAN, CLEAN_NEW, POST, REJECT, BANNED, BODY_DOWN, BODY_UP, WEBSOCKET)
ALL: tuple[Scenario, ...] = (*TRAFFIC, IDLE, DECIDE, WORKERS, RELOAD, *FLOODS, MICRO)
SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in ALL}
# What `--smoke` runs unless told otherwise: of the floods one of each tool.
SMOKE = [scenario.name for scenario in ALL if scenario not in FLOODS] + ["flood-get", "flood-slowloris", "flood-range"]
# Names that stand for several.
GROUPS = {"body": (BODY_DOWN.name, BODY_UP.name), "flood": tuple(flood.name for flood in FLOODS)}
