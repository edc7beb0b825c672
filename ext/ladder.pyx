# Ladder state. Owns how a source climbs and comes down, and which entry goes when a bucket is full.
# Invariants: one bucket, one rung a call; an entry is changed under its bucket's lock (the word in the bucket's first entry) and read
# without; numbers found in it are bounded before use. Clocks of workers differ by a pass: a time in the near future counts as now.

cdef enum:
    LADDER_SKEW_NS = 1000000000     # beyond this in the future a time was not written by a clock of ours


cdef inline uint64_t ladder_since(uint64_t then_ns, uint64_t now_ns) noexcept nogil:
    return now_ns - then_ns if now_ns > then_ns else 0


# Is the source that this entry describes calm (or the entry's time impossible)?
cdef inline bint ladder_calm(uint64_t last_ns, uint64_t calm_ns, uint64_t now_ns) noexcept nogil:
    return ladder_since(last_ns, now_ns) >= calm_ns or last_ns > add_saturating_u64(now_ns, LADDER_SKEW_NS)


cdef inline LadderEntry* ladder_bucket(Ladder* t, uint64_t key) noexcept nogil:
    return t.entries + (key & t.bucket_mask) * LADDER_BUCKET


cdef inline LadderEntry* ladder_find(LadderEntry* bucket, uint64_t key) noexcept nogil:
    cdef int i
    for i in range(LADDER_BUCKET):
        if load_u64(&bucket[i].key) == key:
            return &bucket[i]
    return NULL


# Least harmful first: empty, calm (the longest), then the lowest rung (the longest ago).
cdef inline LadderEntry* ladder_victim(LadderEntry* bucket, uint64_t calm_ns, uint64_t now_ns) noexcept nogil:
    cdef LadderEntry* best = &bucket[0]
    cdef uint64_t best_rank = U64_MAX, best_last = U64_MAX, rank, last
    cdef int i
    for i in range(LADDER_BUCKET):
        last = bucket[i].last_ns
        if bucket[i].key == 0:
            rank = 0
        elif ladder_calm(last, calm_ns, now_ns):
            rank = 1
        else:
            rank = 2 + <uint64_t>bucket[i].rung
        if rank < best_rank or (rank == best_rank and last < best_last):
            best = &bucket[i]
            best_rank = rank
            best_last = last
    return best


# The measure of a rung that is not available is that of the nearest one below; -1: there is none, nothing but observing.
cdef inline void ladder_stand(int32_t at, uint32_t available, bint entered, LadderStep* out) noexcept nogil:
    cdef int32_t rung = at
    while rung >= 0 and not (available >> rung) & 1:
        rung -= 1
    out.rung = rung
    out.entered = entered
    out.skipped = -1 if rung == at else at


# Where over-the-limit brings a source that stands on rung (at) since since_ns.
cdef inline bint ladder_climbs(int32_t at, uint64_t since_ns, const uint64_t* hold_ns, uint32_t rungs, uint64_t now_ns) noexcept nogil:
    return at + 1 < <int32_t>rungs and ladder_since(since_ns, now_ns) >= hold_ns[at]


cdef inline int32_t ladder_bounded(uint32_t rung, uint32_t rungs) noexcept nogil:
    return <int32_t>(rung if rung < rungs else rungs - 1)


cdef void ladder_over(Ladder* t, uint64_t key, const uint64_t* hold_ns, uint32_t rungs, uint32_t available,
                      uint64_t calm_ns, uint64_t now_ns, LadderStep* out) noexcept nogil:
    cdef LadderEntry* bucket
    cdef LadderEntry* e
    cdef uint32_t mine
    cdef int32_t at = 0
    cdef bint locked, entered = True
    if key == 0:
        key = 1
    if rungs > RUNGS_MAX:
        rungs = RUNGS_MAX
    if rungs == 0:
        ladder_stand(-1, 0, False, out)
        return
    bucket = ladder_bucket(t, key)
    locked = lock_take(&bucket[0].lock, now_ns, &mine)
    e = ladder_find(bucket, key)
    if e != NULL and not ladder_calm(e.last_ns, calm_ns, now_ns):
        at = ladder_bounded(e.rung, rungs)
        entered = ladder_climbs(at, e.since_ns, hold_ns, rungs, now_ns)
        if entered:
            at += 1
    if not locked:
        # Somebody else is changing this bucket: the answer stands as read, and whoever holds the lock records the climb.
        ladder_stand(at, available, False, out)
        return
    if e == NULL:
        e = ladder_victim(bucket, calm_ns, now_ns)
        store_u64(&e.key, 0)        # readers must not see the old source's rung under the new key
    e.rung = <uint32_t>at           # also when not entered: a reload may have made the ladder shorter
    if entered:
        e.since_ns = now_ns
    if entered or e.last_ns < now_ns:
        store_u64(&e.last_ns, now_ns)
    store_u64(&e.key, key)
    lock_give(&bucket[0].lock, mine)
    ladder_stand(at, available, entered, out)


cdef void ladder_under(Ladder* t, uint64_t key, const uint64_t* hold_ns, uint32_t rungs, uint32_t available,
                       uint64_t calm_ns, uint64_t now_ns, LadderStep* out) noexcept nogil:
    cdef LadderEntry* e
    cdef uint64_t last
    cdef uint32_t rung
    if key == 0:
        key = 1
    if rungs > RUNGS_MAX:
        rungs = RUNGS_MAX
    ladder_stand(-1, 0, False, out)
    e = ladder_find(ladder_bucket(t, key), key)
    if e == NULL or rungs == 0:
        return
    last = load_u64(&e.last_ns)
    rung = load_u32(&e.rung)
    if load_u64(&e.key) == key and not ladder_calm(last, calm_ns, now_ns):
        ladder_stand(ladder_bounded(rung, rungs), available, False, out)
