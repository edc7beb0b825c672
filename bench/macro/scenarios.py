"""Every scenario, one line each, in the order in which the results show them."""

from __future__ import annotations

from bench.macro.banned import BANNED
from bench.macro.clean import CLEAN
from bench.macro.reject import REJECT
from bench.macro.scenario import Scenario

SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in (CLEAN, REJECT, BANNED)}
