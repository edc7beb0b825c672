"""WebSockets: messages to an origin that sends each of them back, on tunnels that stay open."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bench.macro.clean import CLEAN, PEOPLE
from bench.macro.traffic import Traffic

MESSAGE_BYTES = 128

WEBSOCKET: Traffic = dataclasses.replace(
    CLEAN,
    name="websocket",
    title="WebSocket echo, 64 tunnels",
    method=f"A message of {MESSAGE_BYTES} bytes to the origin and its echo, one at a time on each of 64 WebSockets; "
    "a request is such an exchange.",
    configs=Path(__file__).parent,
    asks=dataclasses.replace(PEOPLE, message_bytes=MESSAGE_BYTES),
)
