# Choosing: see choose.pxd. Invariants: those found down or ejected, and backups, are taken only when nobody better is there, and then
# all of them, so that a wrong finding never shuts an area; a drained origin is never taken; what was tried already is not tried again.


cdef uint64_t origin_load(Core* e, const OriginSpec* o) noexcept nogil:
    cdef uint64_t total = 0
    cdef uint32_t worker
    for worker in range(e.shared.workers):
        total += load_u64(&e.shared.gauges[worker].origin_in_flight[o.origin_id]) & 0xFFFFFFu
    return total


cdef bint origin_full(Core* e, const OriginSpec* o) noexcept nogil:
    cdef const OriginPool* pool = &e.origin_pools[o.origin_id]
    return pool.in_flight + pool.promised >= pool.connections_max


cdef inline bint choice_hashes(const PoolSpec* pool) noexcept nogil:
    return pool.balance == BALANCE_HASH_CLIENT or pool.balance == BALANCE_HASH_HEADER


cdef int origin_choose(Core* e, Exchange* x, const OriginSpec** out) noexcept nogil:
    cdef const Policy* p = x.policy.policy
    cdef const PoolSpec* pool = x.pool
    cdef const OriginSpec* o
    cdef const OriginState* s
    cdef Candidate found[64]            # ORIGINS_POOL_MAX
    cdef Candidate* c
    cdef uint32_t i, standing, n = 0, full = 0, drained = 0, best = STANDING_DRAINED
    out[0] = NULL
    for i in range(pool.origins.len):
        o = &p.origins[pool.origins.off + i]
        s = origin_state(e.shared.origins, o)
        standing = origin_standing(pool, o, s, e.now_ns)
        drained += standing == STANDING_DRAINED
        if standing == STANDING_DRAINED or standing > best or x.tried >> i & 1:
            continue
        if standing < best:
            best = standing
            n = 0
            full = 0
        if not choice_hashes(pool) and origin_full(e, o):
            full += 1
            continue
        c = &found[n]
        c.index = i
        c.weight = origin_weight(pool, o, s, e.now_ns)
        c.in_flight = origin_load(e, o) if pool.balance == BALANCE_LEAST_CONNECTIONS else 0
        c.key = o.key
        c.turn = &e.origin_pools[o.origin_id].turn
        n += 1
    if n == 0:
        if full:
            return CHOICE_FULL
        return CHOICE_DRAINED if drained and drained == pool.origins.len else CHOICE_NONE
    i = balance_pick(pool.balance, found, n, x.balance_key)
    out[0] = &p.origins[pool.origins.off + found[i].index]
    # Who hashes wants this origin and no other.
    return CHOICE_FULL if choice_hashes(pool) and origin_full(e, out[0]) else CHOICE_TAKE


cdef uint64_t balance_key(Core* e, const PoolSpec* pool, const Facts* f) noexcept nogil:
    cdef const Header* h
    cdef uint32_t i
    if pool.balance == BALANCE_HASH_HEADER:
        for i in range(f.head.header_count):
            h = &f.head.headers[i]
            if (h.name_len == pool.hash_header.len
                    and fold_equal(f.data + h.name_off, f.policy.text + pool.hash_header.off, pool.hash_header.len)):
                return siphash(&e.shared.secret, f.data + h.value_off, h.value_len)
    return f.client_key


cdef bint origin_others(Core* e, const Policy* p, const PoolSpec* pool, const OriginSpec* but) noexcept nogil:
    cdef const OriginSpec* o
    cdef uint32_t i
    for i in range(pool.origins.len):
        o = &p.origins[pool.origins.off + i]
        if o != but and origin_standing(pool, o, origin_state(e.shared.origins, o), e.now_ns) <= STANDING_BACKUP:
            return True
    return False


cdef void origins_readmit(Core* e, const Policy* p, const PoolSpec* pool) noexcept nogil:
    cdef OriginState* s
    cdef uint32_t i
    for i in range(pool.origins.len):
        s = origin_state(e.shared.origins, &p.origins[pool.origins.off + i])
        if s != NULL:
            origin_readmit(pool, s, e.now_ns)


cdef bint area_drained(Core* e, const AreaSpec* area) noexcept nogil:
    return load_u64(&e.shared.control.areas[area.area_id].drained) != 0
