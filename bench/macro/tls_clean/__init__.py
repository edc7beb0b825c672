"""People over TLS: the GETs of `clean` on kept connections, sealed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bench.macro.clean import CLEAN, PEOPLE
from bench.macro.traffic import Traffic

TLS = Path(__file__).parent
ECDSA: dict[str, object] = {"KEY": "ecdsa"}
SAME = (
    "TLS 1.3 with TLS_AES_128_GCM_SHA256 and X25519 (1.2 is allowed, session tickets are given, no system keeps "
    "sessions, ALPN is h2 and http/1.1)"
)
SEALED = dataclasses.replace(PEOPLE, tls="full")

TLS_CLEAN: Traffic = dataclasses.replace(
    CLEAN,
    name="tls-clean",
    title="Clean GET over TLS, 64 keep-alive connections",
    method=f"The requests of `clean` over {SAME}; the certificate is ECDSA, P-256. Its 64 handshakes are among what is "
    "measured, and make no difference.",
    configs=TLS,
    asks=SEALED,
    values=ECDSA,
)
