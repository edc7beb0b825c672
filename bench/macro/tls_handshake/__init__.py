"""TLS handshakes, one a connection: full ones, and resumed ones by a session ticket. What counts is CPU a handshake."""

from __future__ import annotations

import dataclasses

from bench.macro.clean import complaint as unserved
from bench.macro.load import Outcome
from bench.macro.tls_clean import SAME, SEALED, TLS_CLEAN
from bench.macro.traffic import Traffic

METHOD = (
    f"{SAME}, 64 at a time from 16 clients. A request is a handshake, on a connection of its own, and nothing is asked "
    "on it: it is over when the server has sent a session ticket, the client has said goodbye and the server has "
    "closed. The certificate of the client is not asked for. With OpenSSL the client's side costs more than the "
    "server's (`load_cpu_us`), so that no proxy has its core busy all the time: what one does every second anyway is "
    "in its figure."
)
FULL = dataclasses.replace(SEALED, kept=False)
RESUMED = dataclasses.replace(FULL, tls="resumed")


def not_full(outcome: Outcome) -> str:
    return f"{outcome.resumed} handshakes were resumed" if outcome.resumed else unserved(outcome)


def not_resumed(outcome: Outcome) -> str:
    full = max(outcome.handshakes, outcome.good) - outcome.resumed
    return f"{full} of {outcome.handshakes} handshakes were full" if full else unserved(outcome)


HANDSHAKE_FULL: Traffic = dataclasses.replace(
    TLS_CLEAN,
    name="tls-handshake-full",
    title="TLS handshake, ECDSA P-256",
    method=f"Full handshakes with an ECDSA certificate, P-256: {METHOD}",
    asks=FULL,
    complaint=not_full,
)
HANDSHAKE_RSA: Traffic = dataclasses.replace(
    HANDSHAKE_FULL,
    name="tls-handshake-rsa",
    title="TLS handshake, RSA 2048",
    method="The handshakes of `tls-handshake-full` with an RSA certificate, 2048 bits.",
    values={"KEY": "rsa"},
)
HANDSHAKE_RESUMED: Traffic = dataclasses.replace(
    HANDSHAKE_FULL,
    name="tls-handshake-resumed",
    title="TLS handshake, resumed",
    method="The handshakes of `tls-handshake-full`, each of which resumes a session: all offer the ticket that one "
    "connection fetched before (X25519 is done anew each time, no signature). A run in which one of them was not "
    "resumed, as OpenSSL tells the client, is an error; so is one in which a full one was.",
    asks=RESUMED,
    complaint=not_resumed,
)
