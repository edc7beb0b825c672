# The compiled policy: checked once, then walked without looking. Owns the checks of an image and the way from a Host to its area.
# Invariants after policy_load: every section lies inside the image and does not touch the header; every index and span that the core
# follows is inside what it points into; every count that bounds an array of ours is at most its capacity.
#
# Section order is free. The compiler (scrubber/mandate/compile.py) and this file distrust each other: neither shares code or checks.

cdef enum:
    POLICY_TEXT_BYTES_MAX = 268435456
    POLICY_HOST_BYTES_MAX = 255
    POLICY_UNITS = 8
    POLICY_KEYS = 11
    POLICY_CONDITIONS = 15
    POLICY_MATCHES = 6
    HEADS_TEXT_MAX = 128
    PEM_BYTES_MAX = 1048576
    POLICY_NS_MAX = 400000000000000000      # longer than any duration of a file

ctypedef const char* Reason     # which check failed; NULL: none


# A section of `count` entries of `each` bytes lies inside the image, behind the header, aligned.
cdef inline bint section_fits(const PolicyHeader* h, const Section* s, uint64_t each) noexcept nogil:
    if s.offset & 7 or s.offset < sizeof(PolicyHeader):
        return False
    return <uint64_t>s.offset + <uint64_t>s.count * each <= h.total_bytes


# A span lies inside a section of `count` entries.
cdef inline bint span_fits(const Span* s, uint32_t count) noexcept nogil:
    return <uint64_t>s.off + s.len <= count


# The same for text that goes into heads: every area adds it to every answer.
cdef inline bint text_fits(const PolicyHeader* h, const Span* s, uint32_t bytes_max) noexcept nogil:
    return s.len <= bytes_max and span_fits(s, h.text.count)


cdef inline bint all_zero(const uint8_t* p, size_t n) noexcept nogil:
    cdef size_t i
    for i in range(n):
        if p[i]:
            return False
    return True


cdef inline bint set_fits(const PolicyHeader* h, uint64_t index_and_one) noexcept nogil:
    return index_and_one <= h.prefix_sets


cdef Reason policy_header(const PolicyHeader* h, uint64_t nbytes) noexcept nogil:
    if memcmp(&h.magic, <const char*>b"SCRUBPOL", 8) != 0:
        return "magic"
    if h.layout_version != LAYOUT_VERSION:
        return "layout version"
    if h.header_bytes != sizeof(PolicyHeader) or h.total_bytes != nbytes:
        return "size"
    if h.http2_streams_max == 0 or h.http2_streams_max > STREAMS_MAX or not all_zero(<const uint8_t*>h.reserved, sizeof(h.reserved)):
        return "header: HTTP/2"
    if h.handshakes_client.count == 0 or h.handshakes_client.burst == 0 or not 0 < h.handshakes_client.period_ns <= POLICY_NS_MAX:
        return "header: handshakes"
    if h.prefix_sets > 64 or h.enforce > 1 or not set_fits(h, h.never_block):
        return "header: prefix sets or enforce"
    if h.log_lines > 1 or h.log_pass_per_s > LOG_PASS_PER_S_MAX:
        return "header: log"
    if h.listeners.count == 0 or h.listeners.count > LISTENERS_MAX:
        return "number of listeners"
    if h.areas.count == 0 or h.areas.count > AREAS_MAX:
        return "number of areas"
    if h.pools.count < h.areas.count or h.pools.count > POOLS_MAX:
        return "number of pools"
    if h.origins.count > ORIGINS_MAX:
        return "number of origins"
    if h.rules.count > RULES_MAX:
        return "number of rules"
    if h.default_area != AREA_NONE and h.default_area >= h.areas.count:
        return "default area"
    if h.connections_max == 0 or h.connections_client_max == 0:
        return "connection limits"
    return NULL


cdef Reason policy_sections(const PolicyHeader* h) noexcept nogil:
    if h.text.count > POLICY_TEXT_BYTES_MAX:
        return "text: too large"
    if not (section_fits(h, &h.listeners, sizeof(ListenerSpec)) and section_fits(h, &h.areas, sizeof(AreaSpec))
            and section_fits(h, &h.hosts, sizeof(HostSpec)) and section_fits(h, &h.origins, sizeof(OriginSpec))
            and section_fits(h, &h.pools, sizeof(PoolSpec)) and section_fits(h, &h.routes, sizeof(RouteSpec))
            and section_fits(h, &h.pages, sizeof(PageSpec)) and section_fits(h, &h.edits, sizeof(EditSpec))
            and section_fits(h, &h.parts, sizeof(PartSpec)) and section_fits(h, &h.certificates, sizeof(CertificateSpec))
            and section_fits(h, &h.rules, sizeof(RuleSpec)) and section_fits(h, &h.area_rules, sizeof(uint16_t))
            and section_fits(h, &h.conditions, sizeof(ConditionSpec)) and section_fits(h, &h.rungs, sizeof(RungSpec))
            and section_fits(h, &h.text, 1) and section_fits(h, &h.source, 1)):
        return "a section lies outside the image"
    return NULL


cdef Reason policy_listeners(const Policy* p) noexcept nogil:
    cdef const PolicyHeader* h = p.header
    cdef const ListenerSpec* spec
    cdef uint32_t i, k
    for i in range(h.listeners.count):
        spec = &p.listeners[i]
        if spec.listener_id != i or not set_fits(h, spec.trusted) or spec.port > 65535 or spec.scheme > 1:
            return "listener"
        if spec.tls & ~<uint32_t>LISTENER_TLS_FLAGS or spec.handshake_ns > POLICY_NS_MAX:
            return "listener: TLS"
        if spec.tls & ~<uint32_t>LISTENER_HTTP2 and not spec.tls & LISTENER_TLS:
            return "listener: TLS"
        if not set_fits(h, spec.proxy):
            return "listener: PROXY peers"
        if spec.default_area != AREA_NONE and spec.default_area >= h.areas.count:
            return "listener: default area"
        if not span_fits(&spec.rules, h.area_rules.count) or spec.rules.len > RULES_AREA_MAX:
            return "listener: rules"
        for k in range(spec.rules.len):
            if p.rules[p.area_rules[spec.rules.off + k]].unit != UNIT_CONNECTIONS:
                return "listener: a rule that is not about connections"
        if not all_zero(<const uint8_t*>spec.reserved, sizeof(spec.reserved)):
            return "listener: reserved bytes"
    return NULL


cdef uint32_t AREA_FLAGS = AREA_RATELIMIT_FIELDS | AREA_HOST_KEEP | AREA_SPLICE | AREA_VIA_RESPONSE | AREA_SERVER_HIDE


cdef Reason policy_areas(const Policy* p) noexcept nogil:
    cdef const PolicyHeader* h = p.header
    cdef const AreaSpec* a
    cdef uint64_t seen[AREA_WORDS]
    cdef uint32_t i, k
    memset(seen, 0, sizeof(seen))
    for i in range(h.areas.count):
        a = &p.areas[i]
        if a.area_id >= AREAS_MAX or seen[a.area_id >> 6] >> (a.area_id & 63) & 1:
            return "area: index"
        seen[a.area_id >> 6] |= <uint64_t>1 << (a.area_id & 63)
        if a.flags & ~AREA_FLAGS or a.account_kind > ACCOUNT_CERTIFICATE:
            return "area: flags or account"
        if not span_fits(&a.name, h.text.count) or not span_fits(&a.account_name, h.text.count):
            return "area: text"
        # An area's pools stand side by side, its own first.
        if a.pool >= h.pools.count or a.pool < i or (a.pool <= p.areas[i - 1].pool if i else a.pool != 0) or a.reserved_pool:
            return "area: pool"
        if not text_fits(h, &a.via, HEADS_TEXT_MAX) or not text_fits(h, &a.server, HEADS_TEXT_MAX) or a.heads_reserved:
            return "area: via or server"
        if not span_fits(&a.rules, h.area_rules.count) or not span_fits(&a.connection_rules, h.area_rules.count):
            return "area: rules"
        if <uint64_t>a.rules.len + a.connection_rules.len > RULES_AREA_MAX:
            return "area: number of rules"
        if policy_charges(p, a) > CHARGES_MAX:
            return "area: number of rules charged at the end"
        for k in range(a.connection_rules.len):
            if p.rules[p.area_rules[a.connection_rules.off + k]].unit != UNIT_CONNECTIONS:
                return "area: a rule that is not about connections"
        if a.http1.headers_max > HEADERS_MAX or a.http1.head_bytes_max > HEAD_BYTES_MAX or a.http1.line_bytes_max > HEAD_BYTES_MAX:
            return "area: limits of a head"
        if a.ranges_max == 0 or a.clients_share_ppm > 1000000 or not area_times_fit(a):
            return "area: limits"
        if not span_fits(&a.tunnel.upgrades, h.text.count) or not tunnel_fits(p, &a.tunnel):
            return "area: tunnel"
        if not cache_fits(&a.cache):
            return "area: cache"
        if not tls_fits(p, a):
            return "area: TLS"
        if not all_zero(a.reserved, sizeof(a.reserved)) or a.reserved_tls:
            return "area: reserved bytes"
    return NULL


cdef bint tls_fits(const Policy* p, const AreaSpec* a) noexcept nogil:
    cdef const PolicyHeader* h = p.header
    cdef const RuleSpec* r
    cdef uint32_t k
    if not span_fits(&a.certificates, h.certificates.count) or a.certificates.len > TLS_CHAINS_MAX:
        return False
    if not span_fits(&a.client_authorities, h.text.count) or a.client_certificate > TLS_CLIENT_REQUIRED:
        return False
    if a.https_page and (a.https_page > h.pages.count or p.pages[a.https_page - 1].location.len == 0):
        return False
    if a.client_certificate != TLS_CLIENT_NONE and (a.client_authorities.len == 0 or a.certificates.len == 0):
        return False
    if not span_fits(&a.hello_rules, h.area_rules.count) or a.hello_rules.len > RULES_AREA_MAX:
        return False
    for k in range(a.hello_rules.len):
        r = &p.rules[p.area_rules[a.hello_rules.off + k]]
        if r.unit != UNIT_HANDSHAKES and r.unit != UNIT_ABUSES and r.unit != UNIT_NONE:
            return False
    return True


cdef Reason policy_certificates(const Policy* p) noexcept nogil:
    cdef const CertificateSpec* c
    cdef uint32_t i
    for i in range(p.header.certificates.count):
        c = &p.certificates[i]
        if not (text_fits(p.header, &c.chain, PEM_BYTES_MAX) and text_fits(p.header, &c.key, PEM_BYTES_MAX)
                and text_fits(p.header, &c.staple, PEM_BYTES_MAX)) or c.chain.len == 0 or c.key.len == 0:
            return "certificate"
        if not all_zero(<const uint8_t*>c.reserved, sizeof(c.reserved)):
            return "certificate: reserved bytes"
    return NULL


cdef bint tunnel_fits(const Policy* p, const TunnelSpec* t) noexcept nogil:
    """Its list ends with a comma, and no time is so long that a clock would overflow with it."""
    if t.upgrades.len and p.text[t.upgrades.off + t.upgrades.len - 1] != c",":
        return False
    return t.client_max > 0 and t.total_max > 0 and t.idle_ns > 0 and (
        t.idle_ns <= POLICY_NS_MAX and t.message_ns <= POLICY_NS_MAX and t.lifetime_ns <= POLICY_NS_MAX)


cdef bint cache_fits(const CacheSpec* c) noexcept nogil:
    return (c.flags & ~<uint32_t>(CACHE_ON | CACHE_HONOUR_NO_CACHE | CACHE_STATUS_FIELD) == 0 and c.object_bytes_max <= CACHE_BODY_BYTES_MAX
            and c.ttl_max_ns <= POLICY_NS_MAX and c.ttl_default_ns <= POLICY_NS_MAX and c.stale_max_ns <= POLICY_NS_MAX
            and c.wait_ns <= POLICY_NS_MAX and all_zero(<const uint8_t*>c.reserved, sizeof(c.reserved)))


cdef bint area_times_fit(const AreaSpec* a) noexcept nogil:
    return (a.head_ns <= POLICY_NS_MAX and a.idle_ns <= POLICY_NS_MAX and a.connect_ns <= POLICY_NS_MAX
            and a.read_ns <= POLICY_NS_MAX and a.write_ns <= POLICY_NS_MAX and a.body_grace_ns <= POLICY_NS_MAX
            and a.tarpit_ns <= POLICY_NS_MAX and a.origin_wait_ns <= POLICY_NS_MAX and a.origin_idle_ns <= POLICY_NS_MAX
            and a.block_ttl_max_ns <= POLICY_NS_MAX and a.origin_connections_max > 0)


# How many rules of an area leave a charge behind; indexes were checked before.
cdef uint32_t policy_charges(const Policy* p, const AreaSpec* a) noexcept nogil:
    cdef uint32_t k, unit, found = 0
    for k in range(a.rules.len):
        unit = p.rules[p.area_rules[a.rules.off + k]].unit
        if unit == UNIT_BYTES or unit == UNIT_CONCURRENT or unit == UNIT_ORIGIN_NS:
            found += 1
    return found


cdef Reason policy_hosts(const Policy* p) noexcept nogil:
    cdef const PolicyHeader* h = p.header
    cdef const HostSpec* host
    cdef uint32_t i
    for i in range(h.hosts.count):
        host = &p.hosts[i]
        if not span_fits(&host.name, h.text.count) or host.name.len == 0 or host.name.len > POLICY_HOST_BYTES_MAX:
            return "host: text"
        if host.area >= h.areas.count or host.reserved:
            return "host: area"
        if i and host_compare(p, &p.hosts[i - 1], p.text + host.name.off, host.name.len) >= 0:
            return "host: order"
    return NULL


cdef Reason policy_pools(const Policy* p) noexcept nogil:
    cdef const PolicyHeader* h = p.header
    cdef const PoolSpec* pool
    cdef uint64_t seen[POOLS_MAX / 64]
    cdef uint32_t i, next = 0
    memset(seen, 0, sizeof(seen))
    for i in range(h.pools.count):
        pool = &p.pools[i]
        if pool.pool_id >= POOLS_MAX or seen[pool.pool_id >> 6] >> (pool.pool_id & 63) & 1:
            return "pool: index"
        seen[pool.pool_id >> 6] |= <uint64_t>1 << (pool.pool_id & 63)
        if pool.balance > BALANCE_HASH_HEADER or (pool.balance == BALANCE_HASH_HEADER) != (pool.hash_header.len != 0):
            return "pool: balance"
        if not span_fits(&pool.name, h.text.count) or not span_fits(&pool.hash_header, h.text.count):
            return "pool: text"
        # No origin stands in two pools, none in no pool.
        if pool.origins.off != next or not span_fits(&pool.origins, h.origins.count) or pool.origins.len > ORIGINS_POOL_MAX:
            return "pool: origins"
        next += pool.origins.len
        if pool.slow_start_ns > POLICY_NS_MAX or pool.eject_ns > pool.eject_max_ns or pool.eject_max_ns > POLICY_NS_MAX:
            return "pool: times"
        if pool.retry_ppm > 1000000 or not all_zero(<const uint8_t*>pool.reserved, sizeof(pool.reserved)):
            return "pool: retries or reserved bytes"
    if next != h.origins.count:
        return "pool: origins"
    return NULL


cdef inline bint origin_flags_fit(uint32_t flags) noexcept nogil:
    cdef uint32_t proxied = <uint32_t>(ORIGIN_PROXY_V1 | ORIGIN_PROXY_V2)
    cdef uint32_t tls = <uint32_t>(ORIGIN_TLS | ORIGIN_TLS_UNVERIFIED)
    if flags & ~(<uint32_t>ORIGIN_BACKUP | ORIGIN_H2C | proxied | tls) or (flags & ORIGIN_H2C and flags & tls):
        return False
    return flags & proxied != proxied and flags & tls != ORIGIN_TLS_UNVERIFIED


cdef Reason policy_origins(const Policy* p) noexcept nogil:
    cdef const PolicyHeader* h = p.header
    cdef const OriginSpec* o
    cdef uint64_t seen[ORIGINS_MAX / 64]
    cdef uint16_t family
    cdef uint32_t i
    memset(seen, 0, sizeof(seen))
    for i in range(h.origins.count):
        o = &p.origins[i]
        memcpy(&family, o.sockaddr, 2)
        if o.origin_id >= ORIGINS_MAX or o.family != family or not span_fits(&o.host, h.text.count):
            return "origin"
        if seen[o.origin_id >> 6] >> (o.origin_id & 63) & 1:
            return "origin: index"
        seen[o.origin_id >> 6] |= <uint64_t>1 << (o.origin_id & 63)
        if o.key == 0 or o.weight == 0 or o.weight > 256 or not origin_flags_fit(o.flags):
            return "origin: key, weight or flags"
        # Linux: AF_UNIX 1, AF_INET 2, AF_INET6 10, with the sizes of their sockaddr.
        if not ((o.family == 2 and o.address_bytes == 16) or (o.family == 10 and o.address_bytes == 28)
                or (o.family == 1 and 3 < o.address_bytes <= 110)):
            return "origin: address"
        if not span_fits(&o.authorities, h.text.count) or not text_fits(h, &o.tls_name, POLICY_HOST_BYTES_MAX) or (
                o.certificate > h.certificates.count or (o.certificate and not o.flags & ORIGIN_TLS)):
            return "origin: TLS"
        if o.reserved:
            return "origin: reserved bytes"
    return NULL


cdef Reason policy_conditions(const Policy* p) noexcept nogil:
    cdef const PolicyHeader* h = p.header
    cdef const ConditionSpec* c
    cdef uint32_t i
    for i in range(h.conditions.count):
        c = &p.conditions[i]
        if c.kind == 0 or c.kind >= POLICY_CONDITIONS or c.match >= POLICY_MATCHES or c.negate > 1 or c.any_next > 1:
            return "condition"
        if not span_fits(&c.name, h.text.count) or not span_fits(&c.value, h.text.count):
            return "condition: text"
        if c.kind == CONDITION_CLIENT and (c.arg == 0 or not set_fits(h, c.arg)):
            return "condition: prefix set"
        if c.kind == CONDITION_HEADER and c.name.len == 0:
            return "condition: header without a name"
        if c.match == MATCH_PRESENT and c.kind != CONDITION_HEADER and c.value.len:
            return "condition: match"
        if c.pad or not all_zero(c.reserved, sizeof(c.reserved)):
            return "condition: reserved bytes"
    return NULL


cdef Reason policy_rungs(const Policy* p) noexcept nogil:
    cdef const RungSpec* r
    cdef uint32_t i
    for i in range(p.header.rungs.count):
        r = &p.rungs[i]
        if r.measure >= MEASURES or r.available & ~(RUNG_VALID | RUNG_EXPIRED):
            return "rung"
        if r.available and r.measure in (MEASURE_CHALLENGE, MEASURE_BLACKHOLE):
            return "rung: a measure that this core does not have"
        if r.available & RUNG_EXPIRED and r.measure > MEASURE_THROTTLE:
            return "rung: too severe for an expired mandate"
        if r.hold_ns > POLICY_NS_MAX or r.ttl_ns > POLICY_NS_MAX or (r.measure == MEASURE_BLOCK and r.ttl_ns == 0):
            return "rung: times"
        if r.pad or not all_zero(r.reserved, sizeof(r.reserved)):
            return "rung: reserved bytes"
    return NULL


# A key that says who: then more than throttle and deny may be aimed at it.
cdef inline bint key_names_source(const RuleSpec* r) noexcept nogil:
    return ((KEY_CLIENT <= r.key_a <= KEY_ACCOUNT) or (KEY_CLIENT <= r.key_b <= KEY_ACCOUNT)
            or r.key_a >= KEY_JA3 or r.key_b >= KEY_JA3)


# A key that a block can be aimed at: client, prefix or fingerprint alone, or a pair with client.
cdef inline bint key_can_block(const RuleSpec* r) noexcept nogil:
    if r.key_a == KEY_CLIENT or r.key_b == KEY_CLIENT:
        return True
    return r.key_b == 0 and (r.key_a == KEY_PREFIX or r.key_a == KEY_FINGERPRINT)


cdef Reason policy_rule(const Policy* p, const RuleSpec* r) noexcept nogil:
    cdef const PolicyHeader* h = p.header
    cdef uint32_t k, measure
    if r.id == 0 or r.key_a >= POLICY_KEYS or r.key_b >= POLICY_KEYS or r.unit >= POLICY_UNITS or r.area_wide > 1:
        return "rule"
    if r.key_a == 0 and (r.key_b or r.unit != UNIT_NONE) or (r.key_a == KEY_ACCOUNT and r.key_b == 0):
        return "rule: key"
    if r.area_wide != (r.key_a != 0 and not key_names_source(r)):
        return "rule: area-wide"
    if not span_fits(&r.name, h.text.count) or not span_fits(&r.conditions, h.conditions.count):
        return "rule: text or conditions"
    if r.conditions.len and p.conditions[r.conditions.off + r.conditions.len - 1].any_next:
        return "rule: its conditions do not end"
    if r.rungs.len == 0 or r.rungs.len > RUNGS_MAX or not span_fits(&r.rungs, h.rungs.count):
        return "rule: rungs"
    if r.unit != UNIT_NONE and (r.rate.count == 0 or r.rate.period_ns == 0 or r.rate.burst == 0
                                or r.rate.period_ns > POLICY_NS_MAX):
        return "rule: rate"
    if r.calm_ns > POLICY_NS_MAX or r.debt_max_ns > POLICY_NS_MAX or r.block_ttl_max_ns > POLICY_NS_MAX:
        return "rule: times"
    if r.newcomer_share_ppm > 1000000 or r.clients_share_ppm > 1000000 or not all_zero(r.reserved, sizeof(r.reserved)):
        return "rule: shares or reserved bytes"
    for k in range(r.rungs.len):
        measure = p.rungs[r.rungs.off + k].measure
        if not p.rungs[r.rungs.off + k].available:
            continue
        if not key_names_source(r) and measure not in (MEASURE_OBSERVE, MEASURE_THROTTLE, MEASURE_DENY):
            return "rule: a measure that its key cannot aim"
        if measure == MEASURE_BLOCK and not key_can_block(r):
            return "rule: a block that its key cannot aim"
    return NULL


cdef Reason policy_rules(const Policy* p) noexcept nogil:
    cdef Reason reason
    cdef uint32_t i
    for i in range(p.header.rules.count):
        reason = policy_rule(p, &p.rules[i])
        if reason != NULL:
            return reason
    for i in range(p.header.area_rules.count):
        if p.area_rules[i] >= p.header.rules.count:
            return "rule index"
    return NULL


cdef Reason policy_load(const uint8_t* base, uint64_t nbytes, Policy* out) noexcept nogil:
    cdef const PolicyHeader* h = <const PolicyHeader*>base
    cdef Reason reason
    memset(out, 0, sizeof(Policy))
    if base == NULL or (<uintptr_t>base) & 7 or nbytes < sizeof(PolicyHeader) or nbytes > 0xFFFFFFFFu:
        return "size"
    reason = policy_header(h, nbytes)
    if reason == NULL:
        reason = policy_sections(h)
    if reason != NULL:
        return reason
    out.base = base
    out.bytes = nbytes
    out.header = h
    out.listeners = <const ListenerSpec*>(base + h.listeners.offset)
    out.areas = <const AreaSpec*>(base + h.areas.offset)
    out.hosts = <const HostSpec*>(base + h.hosts.offset)
    out.pools = <const PoolSpec*>(base + h.pools.offset)
    out.origins = <const OriginSpec*>(base + h.origins.offset)
    out.rules = <const RuleSpec*>(base + h.rules.offset)
    out.area_rules = <const uint16_t*>(base + h.area_rules.offset)
    out.conditions = <const ConditionSpec*>(base + h.conditions.offset)
    out.rungs = <const RungSpec*>(base + h.rungs.offset)
    out.routes = <const RouteSpec*>(base + h.routes.offset)
    out.pages = <const PageSpec*>(base + h.pages.offset)
    out.edits = <const EditSpec*>(base + h.edits.offset)
    out.parts = <const PartSpec*>(base + h.parts.offset)
    out.certificates = <const CertificateSpec*>(base + h.certificates.offset)
    out.text = base + h.text.offset
    # Rules first: listeners and areas follow indexes that policy_rules checks.
    reason = policy_conditions(out)
    if reason == NULL:
        reason = policy_rungs(out)
    if reason == NULL:
        reason = policy_rules(out)
    if reason == NULL:
        reason = policy_listeners(out)
    if reason == NULL:
        reason = policy_areas(out)
    if reason == NULL:
        reason = policy_hosts(out)
    if reason == NULL:
        reason = policy_pools(out)
    if reason == NULL:
        reason = policy_origins(out)
    if reason == NULL:
        reason = policy_routes(out)
    if reason == NULL:
        reason = policy_certificates(out)
    if reason != NULL:
        memset(out, 0, sizeof(Policy))
    return reason


# Order of the host table: by length, then bytes.
cdef inline int host_compare(const Policy* p, const HostSpec* entry, const uint8_t* name, uint32_t length) noexcept nogil:
    if entry.name.len != length:
        return -1 if entry.name.len < length else 1
    return memcmp(p.text + entry.name.off, name, length)


cdef int32_t host_find(const Policy* p, const uint8_t* name, uint32_t length) noexcept nogil:
    cdef uint32_t low = 0, high = p.header.hosts.count, middle
    cdef int order
    while low < high:
        middle = (low + high) >> 1
        order = host_compare(p, &p.hosts[middle], name, length)
        if order == 0:
            return <int32_t>p.hosts[middle].area
        if order < 0:
            low = middle + 1
        else:
            high = middle
    return -1


cdef inline bint listener_reaches(const Policy* p, const ListenerSpec* listener, int32_t area) noexcept nogil:
    cdef uint32_t id = p.areas[area].area_id
    return listener.areas[id >> 6] >> (id & 63) & 1


# Only what the listener reaches counts as found.
cdef inline int32_t host_reached(const Policy* p, const ListenerSpec* listener, const uint8_t* name, uint32_t length) noexcept nogil:
    cdef int32_t area = host_find(p, name, length)
    return area if area >= 0 and listener_reaches(p, listener, area) else -1


cdef int32_t policy_area_default(const Policy* p, const ListenerSpec* listener) noexcept nogil:
    cdef uint32_t area = listener.default_area if listener.default_area != AREA_NONE else p.header.default_area
    if area == AREA_NONE or not listener_reaches(p, listener, <int32_t>area):
        return -1
    return <int32_t>area


cdef int32_t policy_area_named(const Policy* p, const ListenerSpec* listener, const uint8_t* host, uint32_t length) noexcept nogil:
    cdef uint8_t name[POLICY_HOST_BYTES_MAX]
    cdef uint32_t i
    cdef int32_t area = -1
    if length and host[length - 1] == c'.':
        length -= 1
    if 0 < length <= POLICY_HOST_BYTES_MAX:
        for i in range(length):
            name[i] = host[i] | 0x20 if c'A' <= host[i] <= c'Z' else host[i]
        # A name that begins with a dot would be found as the wildcard it is the text of: it is no name.
        if name[0] != c'.':
            area = host_reached(p, listener, name, length)
            i = 1
            while area < 0 and i < length:
                if name[i] == c'.':
                    area = host_reached(p, listener, name + i, length - i)
                i += 1
    return area


cdef int32_t policy_area(const Policy* p, const ListenerSpec* listener, const uint8_t* host, uint32_t length) noexcept nogil:
    cdef int32_t area = policy_area_named(p, listener, host, length)
    return area if area >= 0 else policy_area_default(p, listener)


cdef bint policy_never_touches(const Policy* p, const Address* a, int plen) noexcept nogil:
    cdef const Prefixes* t
    cdef Address first = a[0]
    if p.header.never_block == 0:
        return False
    t = &p.prefixes[p.header.never_block - 1]
    address_mask(&first, plen)
    if prefixes_find(t, &first):
        return True
    if plen >= 128:
        return False
    # Neighbouring ranges differ in value and the one that holds `first` is outside the set: the next one, if it begins inside, is in it.
    if address_is_v4(&first) and plen >= 96:
        return v4_begins_within(t, load_be32(first.bytes + 12), <uint32_t>(0xFFFFFFFFu >> (plen - 96)))
    return v6_begins_within(t, load_be64(first.bytes), load_be64(first.bytes + 8), plen)


cdef bint v4_begins_within(const Prefixes* t, uint32_t start, uint32_t rest) noexcept nogil:
    cdef uint32_t low = 0, high = t.v4_count, middle
    while low < high:
        middle = (low + high) >> 1
        if t.v4[middle].start <= start:
            low = middle + 1
        else:
            high = middle
    return low < t.v4_count and t.v4[low].start - start <= rest


cdef bint v6_begins_within(const Prefixes* t, uint64_t hi, uint64_t lo, int plen) noexcept nogil:
    cdef uint32_t low = 0, high = t.v6_count, middle
    cdef uint64_t last_hi = hi, last_lo = <uint64_t>0xFFFFFFFFFFFFFFFFu
    if plen < 64:
        last_hi |= <uint64_t>0xFFFFFFFFFFFFFFFFu >> plen
    else:
        last_lo = lo | (<uint64_t>0xFFFFFFFFFFFFFFFFu >> (plen - 64))
    while low < high:
        middle = (low + high) >> 1
        if t.v6[middle].hi < hi or (t.v6[middle].hi == hi and t.v6[middle].lo <= lo):
            low = middle + 1
        else:
            high = middle
    return low < t.v6_count and (t.v6[low].hi < last_hi or (t.v6[low].hi == last_hi and t.v6[low].lo <= last_lo))
