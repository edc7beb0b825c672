"""HTTP/2 over TLS: many streams at once on a few connections."""

from __future__ import annotations

import dataclasses

from bench.macro.clean import PEOPLE
from bench.macro.h2.tool import h2load
from bench.macro.tls_clean import SAME, TLS_CLEAN
from bench.macro.traffic import Traffic

CONNECTIONS, STREAMS = 8, 32

H2: Traffic = dataclasses.replace(
    TLS_CLEAN,
    name="h2",
    title=f"HTTP/2, {CONNECTIONS} connections × {STREAMS} streams",
    method=f"h2load asks for the page of `clean` with a browser's fields, {STREAMS} requests at once on each of "
    f"{CONNECTIONS} connections of one client (127.0.0.1: h2load names no source), over {SAME}; the certificate is "
    "ECDSA, P-256. Every request has to be answered 200 over h2.",
    asks=dataclasses.replace(PEOPLE, sources=("127.0.0.1",), connections=CONNECTIONS, streams=STREAMS, tls="full"),
    tool=h2load,
)
