"""Every scenario, one line each, in the order in which the results show them."""

from __future__ import annotations

from bench.macro.banned import BANNED
from bench.macro.body import BODY_DOWN, BODY_UP
from bench.macro.clean import CLEAN
from bench.macro.clean_new import CLEAN_NEW
from bench.macro.post import POST
from bench.macro.reject import REJECT
from bench.macro.scenario import Scenario

ALL = (CLEAN, CLEAN_NEW, POST, REJECT, BANNED, BODY_DOWN, BODY_UP)
SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in ALL}
GROUPS = {"body": (BODY_DOWN.name, BODY_UP.name)}  # names that stand for several
