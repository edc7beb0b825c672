"""People who send something: bodies of 16 KiB on kept connections, all let through."""

from __future__ import annotations

import dataclasses

from bench.macro.clean import CLEAN, PEOPLE
from bench.macro.traffic import Traffic

SENDERS = dataclasses.replace(PEOPLE, body_bytes=16 * 1024)


POST: Traffic = dataclasses.replace(
    CLEAN,
    name="post",
    title="POST of 16 KiB, 64 keep-alive connections",
    method="A browser's POST with a body of 16 KiB on 64 kept connections; nginx passes it on unbuffered, as the "
    "others do.",
    asks=SENDERS,
)
