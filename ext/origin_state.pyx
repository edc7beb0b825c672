# States of origins: see origin_state.pxd. Invariants: single words, read and written atomically, none trusted: a time that makes no sense
# counts as none; only connects that fail eject, never answers, which a client can provoke; the last one that serves is never ejected.


cdef OriginState* origin_state(OriginState* all, const OriginSpec* o) noexcept nogil:
    cdef OriginState* s = &all[o.origin_id]
    return s if load_u64(&s.key) == o.key else NULL


cdef inline bint origin_ejected(const PoolSpec* pool, const OriginState* s, uint64_t now_ns) noexcept nogil:
    cdef uint64_t until_ns = load_u64(&s.ejected_until_ns)
    return pool.eject_after != 0 and until_ns > now_ns and until_ns - now_ns <= pool.eject_max_ns


cdef uint32_t origin_standing(const PoolSpec* pool, const OriginSpec* o, const OriginState* s, uint64_t now_ns) noexcept nogil:
    if s != NULL:
        if load_u64(&s.drained):
            return STANDING_DRAINED
        if load_u64(&s.health) == ORIGIN_HEALTH_DOWN or origin_ejected(pool, s, now_ns):
            return STANDING_OUT
    return STANDING_BACKUP if o.flags & ORIGIN_BACKUP else STANDING_GOOD


cdef uint32_t origin_weight(const PoolSpec* pool, const OriginSpec* o, const OriginState* s, uint64_t now_ns) noexcept nogil:
    cdef uint64_t since_ns, back_ns
    if s == NULL:
        return o.weight * WEIGHT_WHOLE
    since_ns = load_u64(&s.since_ns)
    back_ns = load_u64(&s.ejected_until_ns)
    if since_ns < back_ns <= now_ns:
        since_ns = back_ns
    return balance_weight(o.weight, since_ns, pool.slow_start_ns, now_ns)


cdef void origin_worked(const PoolSpec* pool, OriginState* s, uint64_t now_ns) noexcept nogil:
    cdef uint64_t until_ns
    if load_u64(&s.failures):
        store_u64(&s.failures, 0)
    if load_u64(&s.ejections):
        until_ns = load_u64(&s.ejected_until_ns)
        # Back for as long as it could have been out: the next time begins small again.
        if until_ns < now_ns and now_ns - until_ns > pool.eject_max_ns:
            store_u64(&s.ejections, 0)


cdef void origin_readmit(const PoolSpec* pool, OriginState* s, uint64_t now_ns) noexcept nogil:
    cdef uint64_t until_ns = load_u64(&s.ejected_until_ns)
    cdef uint64_t times = load_u64(&s.ejections)
    # It began when others could serve, and does not count: the next one is no longer than this was.
    if origin_ejected(pool, s, now_ns) and cas_u64(&s.ejected_until_ns, until_ns, now_ns) and times:
        store_u64(&s.ejections, times - 1)


cdef bint origin_failed_once(const PoolSpec* pool, OriginState* s, bint others, uint64_t now_ns) noexcept nogil:
    cdef uint64_t until_ns, times, out_ns
    if pool.eject_after == 0 or add_u64(&s.failures, 1) < pool.eject_after or not others:
        return False
    until_ns = load_u64(&s.ejected_until_ns)
    if origin_ejected(pool, s, now_ns):
        return False
    times = load_u64(&s.ejections)
    if times > EJECTIONS_MAX:
        times = EJECTIONS_MAX
    out_ns = pool.eject_ns << times
    if out_ns > pool.eject_max_ns or (out_ns >> times) != pool.eject_ns:
        out_ns = pool.eject_max_ns
    if not cas_u64(&s.ejected_until_ns, until_ns, now_ns + out_ns):
        return False                # another worker was first
    store_u64(&s.ejections, times + 1)
    return True
