# GCRA cells. Owns the arithmetic of rates and the way a cell is found, taken over and changed.
# Invariants: a key lives only in its bucket; a cell changes as a whole; work is bounded to one bucket and LIMITER_TRIES tries;
# arithmetic saturates and rounds in the client's favour, by less than 1 ns a charge.

cdef enum:
    LIMITER_TRIES = 64          # lost races before the last computed answer is taken, uncharged


# What was read from a cell, so that it can be swapped only if it still holds that.
cdef struct CellSight:
    Cell* cell
    uint64_t key
    uint64_t tat_ns


# Nanoseconds that units take at this rate: at least 1 for any unit at all, so that nothing is free.
cdef inline uint64_t rate_ns(const Rate* rate, uint64_t units) noexcept nogil:
    cdef uint64_t ns
    if units == 0:
        return 0
    if rate.count == 0:
        return U64_MAX
    ns = mul_div_u64(units, rate.period_ns, rate.count)
    return ns if ns > 0 else 1


cdef inline uint64_t rate_units(const Rate* rate, uint64_t ns) noexcept nogil:
    cdef uint64_t units
    if ns == 0:
        return 0
    units = units_within_u64(ns, rate.period_ns, rate.count)
    return units if units < rate.burst else rate.burst


# What of the burst a newcomer may see. Any share lets one unit through an idle limiter: a small burst must not shut newcomers out for good.
cdef inline uint64_t rate_tolerance_ns(const Rate* rate, uint32_t share_ppm) noexcept nogil:
    cdef uint64_t whole = rate_ns(rate, rate.burst)
    cdef uint64_t part, unit
    if share_ppm >= 1000000:
        return whole
    if share_ppm == 0:
        return 0
    part = mul_div_u64(whole, share_ppm, 1000000)
    unit = rate_ns(rate, 1)
    if part < unit:
        part = unit
    return part if part < whole else whole


# True: key has a cell. Else sight is the cell to take over: an empty one, or the one that is due soonest.
cdef inline bint limiter_look(Limiter* t, uint64_t key, CellSight* sight) noexcept nogil:
    cdef Cell* bucket = t.cells + (key & t.bucket_mask) * CELLS_BUCKET
    cdef uint64_t seen, tat
    cdef uint32_t first = <uint32_t>(key >> 61), k, i
    sight.cell = NULL
    for k in range(CELLS_BUCKET):
        i = (first + k) % CELLS_BUCKET      # each key begins at a place of its own: mostly one of the two lines is enough
        seen = load_u64(&bucket[i].key)
        tat = load_u64(&bucket[i].tat_ns)
        if seen == key:
            sight.cell = &bucket[i]
            sight.key = seen
            sight.tat_ns = tat
            return True
        if sight.cell == NULL or (sight.key != 0 and (seen == 0 or tat < sight.tat_ns)):
            sight.cell = &bucket[i]
            sight.key = seen
            sight.tat_ns = tat
    return False


# Key and time were read one after the other: whether they still stand there together, so that the time was never another key's.
cdef inline bint limiter_holds(const CellSight* sight) noexcept nogil:
    return load_u64(&sight.cell.key) == sight.key and load_u64(&sight.cell.tat_ns) == sight.tat_ns


# Put (key, tat_ns) where sight was read. False: another was faster, or wrote the same key elsewhere in the bucket: look again.
cdef inline bint limiter_swap(Limiter* t, uint64_t key, uint64_t tat_ns, const CellSight* sight) noexcept nogil:
    cdef Cell* bucket = t.cells + (key & t.bucket_mask) * CELLS_BUCKET
    cdef int i
    if not cas_pair(sight.cell, sight.key, sight.tat_ns, key, tat_ns):
        return False
    if sight.key == key:
        return True
    for i in range(CELLS_BUCKET):
        if &bucket[i] != sight.cell and load_u64(&bucket[i].key) == key:
            # Two workers took a cell for one key: withdraw this one, unless it was already charged by a third.
            return not cas_pair(sight.cell, key, tat_ns, 0, 0)
    return True


# Time from now until the cell is as new. Of a cell that is being taken over: nothing.
cdef inline uint64_t limiter_backlog_ns(const CellSight* sight, bint found, uint64_t now_ns) noexcept nogil:
    return sight.tat_ns - now_ns if found and sight.tat_ns > now_ns else 0


# The answer for cost at this backlog; nothing is written.
cdef inline void limiter_answer(const Rate* rate, uint64_t cost, uint64_t tolerance_ns, uint64_t backlog_ns, Admission* out) noexcept nogil:
    cdef uint64_t cost_ns = rate_ns(rate, cost if cost > 0 else 1)
    cdef uint64_t after_ns = add_saturating_u64(backlog_ns, cost_ns)
    # Saturated or rounded times could let more than the burst through: units are compared as well.
    cdef bint never = cost_ns > tolerance_ns or cost > rate.burst or rate.burst == 0 or rate.count == 0
    out.limited = never or after_ns > tolerance_ns
    if never:
        out.retry_ns = U64_MAX
    else:
        # cost_ns <= tolerance_ns: no underflow below, and no saturation that matters.
        out.retry_ns = backlog_ns - (tolerance_ns - cost_ns) if out.limited else 0
    if cost > 0 and not out.limited:
        backlog_ns = after_ns
    out.reset_ns = backlog_ns
    out.remaining = rate_units(rate, tolerance_ns - backlog_ns) if backlog_ns < tolerance_ns else 0


cdef void limiter_admit(Limiter* t, uint64_t key, const Rate* rate, uint64_t cost, uint32_t share_ppm,
                        uint64_t now_ns, Admission* out) noexcept nogil:
    cdef uint64_t tolerance_ns = rate_tolerance_ns(rate, share_ppm)
    cdef CellSight sight
    cdef bint found
    cdef int _tries
    if key == 0:
        key = 1
    for _tries in range(LIMITER_TRIES):
        found = limiter_look(t, key, &sight)
        if found and not limiter_holds(&sight):
            continue
        limiter_answer(rate, cost, tolerance_ns, limiter_backlog_ns(&sight, found, now_ns), out)
        if out.limited or cost == 0:
            return
        if limiter_swap(t, key, add_saturating_u64(now_ns, out.reset_ns), &sight):
            return
        spin_pause()


cdef void limiter_charge(Limiter* t, uint64_t key, const Rate* rate, uint64_t cost, uint64_t debt_max_ns,
                         uint64_t now_ns) noexcept nogil:
    cdef uint64_t most_ns = add_saturating_u64(rate_ns(rate, rate.burst), debt_max_ns)
    cdef uint64_t backlog_ns, after_ns
    cdef CellSight sight
    cdef bint found
    cdef int _tries
    if cost == 0:
        return
    if key == 0:
        key = 1
    for _tries in range(LIMITER_TRIES):
        found = limiter_look(t, key, &sight)
        if found and not limiter_holds(&sight):
            continue
        backlog_ns = limiter_backlog_ns(&sight, found, now_ns)
        if backlog_ns >= most_ns:
            return                  # in debt already, or from a rate that a reload made smaller: never forgiven here
        after_ns = add_saturating_u64(backlog_ns, rate_ns(rate, cost))
        if after_ns > most_ns:
            after_ns = most_ns
        if limiter_swap(t, key, add_saturating_u64(now_ns, after_ns), &sight):
            return
        spin_pause()
