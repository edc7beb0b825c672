# Python faces of the policy for tests: sizes and numbers, loading from bytes (an exact copy, so that ASan sees a read past the end).
from libc.stdlib cimport free, malloc


def probe_policy_layout() -> dict:
    """Sizes of the structs and the numbers of the enums, by the names that scrubber.mandate.layout has for them."""
    return {
        "sizes": {
            "HEADER": sizeof(PolicyHeader), "LISTENER": sizeof(ListenerSpec), "AREA": sizeof(AreaSpec), "HOST": sizeof(HostSpec),
            "ORIGIN": sizeof(OriginSpec), "POOL": sizeof(PoolSpec), "CONDITION": sizeof(ConditionSpec), "RUNG": sizeof(RungSpec),
            "RULE": sizeof(RuleSpec), "CERTIFICATE": sizeof(CertificateSpec),
            "SECTION": sizeof(Section), "SPAN": sizeof(Span), "AREA_RULE": sizeof(uint16_t),
            "ROUTE": sizeof(RouteSpec), "PAGE": sizeof(PageSpec), "EDIT": sizeof(EditSpec), "PART": sizeof(PartSpec),
        },
        "MEASURES": {
            "observe": MEASURE_OBSERVE, "throttle": MEASURE_THROTTLE, "challenge": MEASURE_CHALLENGE, "tarpit": MEASURE_TARPIT,
            "deny": MEASURE_DENY, "drop": MEASURE_DROP, "block": MEASURE_BLOCK, "blackhole": MEASURE_BLACKHOLE,
        },
        "KEYS": {
            "client": KEY_CLIENT, "prefix": KEY_PREFIX, "fingerprint": KEY_FINGERPRINT, "account": KEY_ACCOUNT, "path": KEY_PATH,
            "host": KEY_HOST, "area": KEY_AREA, "ja3": KEY_JA3, "ja4": KEY_JA4, "http2": KEY_HTTP2,
        },
        "UNITS": {
            "none": UNIT_NONE, "requests": UNIT_REQUESTS, "bytes": UNIT_BYTES, "connections": UNIT_CONNECTIONS,
            "concurrent": UNIT_CONCURRENT, "origin_s": UNIT_ORIGIN_NS, "handshakes": UNIT_HANDSHAKES, "abuses": UNIT_ABUSES,
        },
        "CONDITIONS": {
            "method": CONDITION_METHOD, "path": CONDITION_PATH, "host": CONDITION_HOST, "header": CONDITION_HEADER,
            "query": CONDITION_QUERY, "client": CONDITION_CLIENT, "fingerprint": CONDITION_FINGERPRINT, "known": CONDITION_KNOWN,
            "account": CONDITION_ACCOUNT, "rush": CONDITION_RUSH, "never": CONDITION_NEVER,
            "ja3": CONDITION_JA3, "ja4": CONDITION_JA4, "http2": CONDITION_HTTP2,
        },
        "MATCHES": {
            "exact": MATCH_EXACT, "prefix": MATCH_PREFIX, "suffix": MATCH_SUFFIX, "contains": MATCH_CONTAINS, "present": MATCH_PRESENT,
            "parts": MATCH_PARTS,
        },
        "METHODS": {
            "other": METHOD_OTHER, "GET": METHOD_GET, "HEAD": METHOD_HEAD, "POST": METHOD_POST, "PUT": METHOD_PUT,
            "DELETE": METHOD_DELETE, "OPTIONS": METHOD_OPTIONS, "PATCH": METHOD_PATCH,
        },
        "BALANCES": {
            "least_connections": BALANCE_LEAST_CONNECTIONS, "round_robin": BALANCE_ROUND_ROBIN, "hash:client": BALANCE_HASH_CLIENT,
            "hash:header": BALANCE_HASH_HEADER,
        },
        "ROUTES": {"exact": ROUTE_EXACT, "prefix": ROUTE_PREFIX, "pattern": ROUTE_PATTERN},
        "PARTS": {
            "text": PART_TEXT, "client_ip": PART_CLIENT_IP, "request_id": PART_REQUEST_ID, "host": PART_HOST, "scheme": PART_SCHEME,
            "path": PART_PATH, "query": PART_QUERY, "query_more": PART_QUERY_MORE, "rest": PART_REST, "group": PART_GROUP,
            "case": PART_CASE, "status": PART_STATUS,
        },
        "RUNGS": {"RUNG_VALID": RUNG_VALID, "RUNG_EXPIRED": RUNG_EXPIRED},
        "FLAGS": {"AREA_RATELIMIT_FIELDS": AREA_RATELIMIT_FIELDS, "AREA_HOST_KEEP": AREA_HOST_KEEP, "ORIGIN_BACKUP": ORIGIN_BACKUP,
                  "AREA_SPLICE": AREA_SPLICE, "AREA_VIA_RESPONSE": AREA_VIA_RESPONSE, "AREA_SERVER_HIDE": AREA_SERVER_HIDE,
                  "ORIGIN_PROXY_V1": ORIGIN_PROXY_V1, "ORIGIN_PROXY_V2": ORIGIN_PROXY_V2,
                  "ORIGIN_TLS": ORIGIN_TLS, "ORIGIN_TLS_UNVERIFIED": ORIGIN_TLS_UNVERIFIED, "ORIGIN_H2C": ORIGIN_H2C,
                  "LISTENER_TLS": LISTENER_TLS,
                  "LISTENER_TLS_STRICT": LISTENER_TLS_STRICT, "LISTENER_TLS_13": LISTENER_TLS_13, "LISTENER_HTTP2": LISTENER_HTTP2,
                  "PAGE_FILE": PAGE_FILE, "EDIT_DROP": EDIT_DROP, "EDIT_PUT": EDIT_PUT},
        "CLIENT_CERTIFICATES": {"off": TLS_CLIENT_NONE, "asked": TLS_CLIENT_ASKED, "required": TLS_CLIENT_REQUIRED},
        "CAPACITIES": {
            "LAYOUT_VERSION": LAYOUT_VERSION, "WORKERS_MAX": WORKERS_MAX, "AREAS_MAX": AREAS_MAX, "AREA_WORDS": AREA_WORDS,
            "LISTENERS_MAX": LISTENERS_MAX, "POOLS_MAX": POOLS_MAX, "ORIGINS_MAX": ORIGINS_MAX,
            "ORIGINS_POOL_MAX": ORIGINS_POOL_MAX, "RULES_MAX": RULES_MAX, "RUNGS_MAX": RUNGS_MAX, "CHARGES_MAX": CHARGES_MAX,
            "RULES_AREA_MAX": RULES_AREA_MAX, "HEADERS_MAX": HEADERS_MAX, "HEAD_BYTES_MAX": HEAD_BYTES_MAX,
            "PREFIX_SETS_MAX": PREFIX_SETS_MAX, "ROUTES_AREA_MAX": ROUTES_AREA_MAX, "EDITS_MAX": EDITS_MAX, "PARTS_MAX": PARTS_MAX,
            "TLS_CHAINS_MAX": TLS_CHAINS_MAX, "PEM_BYTES_MAX": PEM_BYTES_MAX, "PAGE_BYTES_MAX": PAGE_BYTES_MAX,
            "ROUTE_PATH_BYTES_MAX": ROUTE_PATH_BYTES_MAX, "PATTERNS_MAX": PATTERNS_MAX,
        },
    }


def probe_policy_load(image: bytes) -> str | None:
    """Which check refuses these bytes as an image; None: none does. Whatever they are, nothing beyond them is read."""
    cdef size_t n = len(image)
    cdef uint8_t* copy = <uint8_t*>malloc(n if n else 1)
    cdef Policy policy
    cdef Reason reason
    if copy == NULL:
        raise MemoryError
    try:
        memcpy(copy, <const char*>image, n)
        with nogil:
            reason = policy_load(copy, n, &policy)
        return None if reason == NULL else reason.decode()
    finally:
        free(copy)


def probe_policy_area(PolicyImage image, uint32_t listener, host: bytes) -> int:
    """Area index (place in the gateway file) that a Host names at a listener, -1: none."""
    assert listener < image.policy.header.listeners.count
    return policy_area(&image.policy, &image.policy.listeners[listener], <const uint8_t*><const char*>host, len(host))


def probe_policy_never_touches(PolicyImage image, address: bytes, int plen) -> bool:
    """Whether a never-block address lies inside a prefix; address: 16 bytes, plen in the 128-bit form."""
    cdef Address a
    assert len(address) == 16 and 0 <= plen <= 128
    memcpy(a.bytes, <const char*>address, 16)
    return policy_never_touches(&image.policy, &a, plen)
