"""The bytes of a policy image: the Python side of ext/policy.pxd.

Owns formats and numbers, nothing else. Little-endian, natural alignment written out. tests/unit/test_policy.py compares
every size and number with the core's.
"""

from __future__ import annotations

import struct
from typing import Final

MAGIC: Final = b"SCRUBPOL"
LAYOUT_VERSION: Final = 6
NONE: Final = 0xFFFFFFFF
AREA_WORDS: Final = 4
U64_MAX: Final = 2**64 - 1

# Sections in the order of PolicyHeader.
SECTIONS: Final = (
    "listeners",
    "areas",
    "hosts",
    "pools",
    "origins",
    "rules",
    "area_rules",
    "conditions",
    "rungs",
    "routes",
    "pages",
    "edits",
    "parts",
    "certificates",
    "text",
    "source",
)

SECTION = struct.Struct("<II")
SPAN = struct.Struct("<II")
HEADER = struct.Struct("<8sIIQQ32s" + "II" * len(SECTIONS) + "IIIIIIQII3QI60x")
LISTENER = struct.Struct("<IIII4QIIIIQI52x")
AREA = struct.Struct(
    "<II"
    + "II" * 4
    + "III"
    + "I"
    + "II"
    + "9Q"
    + "II"
    + "5Q"
    + "II4QII"
    + "II" * 2
    + "II"
    + "II4QI20x"
    + "II" * 4
    + "II"
    + "II" * 3
    + "I4x"
    + "120x"
)
HOST = struct.Struct("<IIII")
POOL = struct.Struct("<IIIIIIII" + "QQQ" + "III" + "60x")
ORIGIN = struct.Struct("<IIII128sIIQII" + "II" * 2 + "I4x")
CERTIFICATE = struct.Struct("<" + "II" * 3 + "40x")
ROUTE = struct.Struct("<II" + "II" * 2 + "IIIIII" + "II" * 4 + "QQ" + "32x")
PAGE = struct.Struct("<II" + "II" * 5 + "QII" + "16x")
EDIT = struct.Struct("<I4x" + "II" * 2)
PART = struct.Struct("<II" + "II")
AREA_RULE = struct.Struct("<H")
CONDITION = struct.Struct("<HBBB3xQIIIIQ")
RUNG = struct.Struct("<BB6xQQQ")
RULE = struct.Struct("<QIIIIIIIIII3QQQ4QIIQQQQ32x")

MEASURES: Final = {
    "observe": 0,
    "throttle": 1,
    "challenge": 2,
    "tarpit": 3,
    "deny": 4,
    "drop": 5,
    "block": 6,
    "blackhole": 7,
}
KEYS: Final = {
    "client": 1,
    "prefix": 2,
    "fingerprint": 3,
    "account": 4,
    "path": 5,
    "host": 6,
    "area": 7,
    "ja3": 8,
    "ja4": 9,
    "http2": 10,
}
UNITS: Final = {
    "none": 0,
    "requests": 1,
    "bytes": 2,
    "connections": 3,
    "concurrent": 4,
    "origin_s": 5,
    "handshakes": 6,
    "abuses": 7,
}
CONDITIONS: Final = {
    "method": 1,
    "path": 2,
    "host": 3,
    "header": 4,
    "query": 5,
    "client": 6,
    "fingerprint": 7,
    "known": 8,
    "account": 9,
    "rush": 10,
    "never": 11,
    "ja3": 12,
    "ja4": 13,
    "http2": 14,
}
MATCHES: Final = {"exact": 0, "prefix": 1, "suffix": 2, "contains": 3, "present": 4, "parts": 5}
METHODS: Final = {
    "other": 0,
    "GET": 1,
    "HEAD": 2,
    "POST": 3,
    "PUT": 4,
    "DELETE": 5,
    "OPTIONS": 6,
    "PATCH": 7,
}
ACCOUNTS: Final = {"none": 0, "header": 1, "cookie": 2, "bearer": 3, "basic": 4, "certificate": 5}
BALANCES: Final = {"least_connections": 0, "round_robin": 1, "hash:client": 2, "hash:header": 3}
ROUTES: Final = {"exact": 0, "prefix": 1, "pattern": 2}
PARTS: Final = {
    "text": 0,
    "client_ip": 1,
    "request_id": 2,
    "host": 3,
    "scheme": 4,
    "path": 5,
    "query": 6,
    "query_more": 7,
    "rest": 8,
    "group": 9,
    "case": 10,
    "status": 11,
}
PAGE_FILE: Final = 1
EDIT_DROP: Final = 0
EDIT_PUT: Final = 1
RUNG_VALID: Final = 1
RUNG_EXPIRED: Final = 2
AREA_RATELIMIT_FIELDS: Final = 1
AREA_HOST_KEEP: Final = 2
AREA_SPLICE: Final = 4
ORIGIN_BACKUP: Final = 1
AREA_VIA_RESPONSE: Final = 256
AREA_SERVER_HIDE: Final = 512
ORIGIN_PROXY_V1: Final = 2
ORIGIN_PROXY_V2: Final = 4
ORIGIN_TLS: Final = 8
ORIGIN_TLS_UNVERIFIED: Final = 16
ORIGIN_H2C: Final = 32
LISTENER_TLS: Final = 1
LISTENER_TLS_STRICT: Final = 2
LISTENER_TLS_13: Final = 4
LISTENER_HTTP2: Final = 8
CLIENT_CERTIFICATES: Final = {"off": 0, "asked": 1, "required": 2}
CACHE_ON: Final = 1
CACHE_HONOUR_NO_CACHE: Final = 2
CACHE_STATUS_FIELD: Final = 4
