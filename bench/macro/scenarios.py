"""Every scenario, in the order in which the results show them."""

from __future__ import annotations

from bench.macro.banned import BANNED
from bench.macro.body import BODY_DOWN, BODY_UP
from bench.macro.clean import CLEAN
from bench.macro.clean_new import CLEAN_NEW
from bench.macro.decide import DECIDE
from bench.macro.drop import DROP
from bench.macro.flood import FLOODS
from bench.macro.h2 import H2
from bench.macro.h2_abuse import H2_ABUSES
from bench.macro.idle import IDLE, IDLE_TLS
from bench.macro.micro import MICRO
from bench.macro.post import POST
from bench.macro.propagate import PROPAGATE
from bench.macro.reject import REJECT
from bench.macro.reload import RELOAD
from bench.macro.scenario import Scenario
from bench.macro.tls_clean import TLS_CLEAN
from bench.macro.tls_handshake import HANDSHAKE_FULL, HANDSHAKE_RESUMED, HANDSHAKE_RSA
from bench.macro.websocket import WEBSOCKET
from bench.macro.workers import WORKERS

HANDSHAKES = (HANDSHAKE_FULL, HANDSHAKE_RESUMED, HANDSHAKE_RSA)
TRAFFIC = (CLEAN, CLEAN_NEW, POST, REJECT, BANNED, BODY_DOWN, BODY_UP, WEBSOCKET, TLS_CLEAN, H2, *HANDSHAKES)
KERNEL = (PROPAGATE, DROP)
ALL: tuple[Scenario, ...] = (*TRAFFIC, IDLE, IDLE_TLS, DECIDE, WORKERS, RELOAD, *KERNEL, *FLOODS, *H2_ABUSES, MICRO)
SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in ALL}
# What `--smoke` runs unless told otherwise: of the floods one of each tool, of abuse one that floods and one that
# holds, of the handshakes the full ones.
LONG: tuple[Scenario, ...] = (*FLOODS, *H2_ABUSES, HANDSHAKE_RSA, IDLE_TLS, *KERNEL)
SMOKE = [scenario.name for scenario in ALL if scenario not in LONG]
SMOKE += ["flood-get", "flood-slowloris", "flood-range", "h2-abuse-rapid-reset", "h2-abuse-windows-held"]
# Names that stand for several.
GROUPS = {
    "body": (BODY_DOWN.name, BODY_UP.name),
    "tls-handshake": tuple(scenario.name for scenario in HANDSHAKES),
    "flood": tuple(flood.name for flood in FLOODS),
    "h2-abuse": tuple(abuse.name for abuse in H2_ABUSES),
}
