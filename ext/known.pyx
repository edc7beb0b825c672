# Known clients. Owns how a client becomes known, loses it and is forgotten, and the totals of its area.
# Invariants: one bucket a call (two where a fingerprint is counted, one after the other); entries change under their bucket's lock and
# are read without; who does not get the lock notes nothing. Numbers found in the table are bounded before use.

cdef enum:
    FINGERPRINT_TOUCH = 64      # a fingerprint's time is renewed at every so many good requests of a known client


cdef uint64_t known_key(const HashKey* secret, uint32_t area, uint64_t hashed) noexcept nogil:
    return siphash_pair(secret, area, hashed)


cdef uint64_t known_fingerprint_key(const HashKey* secret, uint32_t area, uint64_t fingerprint) noexcept nogil:
    return siphash_pair(secret, <uint64_t>area | (<uint64_t>1 << 32), fingerprint)


cdef inline KnownEntry* known_bucket(Known* t, uint64_t key) noexcept nogil:
    return t.entries + (key & t.bucket_mask) * KNOWN_BUCKET


cdef inline KnownEntry* known_find(Known* t, uint64_t key) noexcept nogil:
    cdef KnownEntry* bucket = known_bucket(t, key)
    cdef int i
    for i in range(KNOWN_BUCKET):
        if load_u64(&bucket[i].key) == key:
            return &bucket[i]
    return NULL


cdef inline uint64_t known_away_ns(const KnownEntry* e, uint64_t now_ns) noexcept nogil:
    cdef uint64_t last = load_u64(&e.last_ns)
    return now_ns - last if now_ns > last else 0


cdef inline bint known_healthy(const KnownEntry* e) noexcept nogil:
    return not e.flags & KNOWN_FINGERPRINT and (e.known_ns != 0 or e.flags & KNOWN_LOST)


cdef bint known_is(Known* t, uint64_t key, uint64_t now_ns) noexcept nogil:
    cdef KnownEntry* e = known_find(t, key if key else 1)
    return e != NULL and load_u64(&e.known_ns) != 0 and known_away_ns(e, now_ns) < KNOWN_TTL_NS


cdef bint known_was(Known* t, uint64_t key, uint64_t now_ns) noexcept nogil:
    cdef KnownEntry* e = known_find(t, key if key else 1)
    return e != NULL and known_healthy(e) and known_away_ns(e, now_ns) < KNOWN_TTL_NS


cdef bint known_shared(Known* t, uint64_t key, uint64_t now_ns) noexcept nogil:
    cdef KnownEntry* e = known_find(t, key if key else 1)
    cdef int i, healthy = 0
    if e == NULL or known_away_ns(e, now_ns) >= KNOWN_TTL_NS:
        return False
    for i in range(3):
        if e.faces[i] != 0 and e.faces_good[i] >= FACE_REQUESTS:
            healthy += 1
    return healthy >= FACES_SHARED


# Empty an entry (but for its lock word) and take it off its area's total. Returns the fingerprint that counted it, or 0.
cdef uint64_t known_drop(Known* t, KnownEntry* e) noexcept nogil:
    cdef uint64_t counted = e.counted_key
    if e.key != 0 and known_healthy(e):
        sub_floor_u64(&t.areas[e.area & (AREAS_MAX - 1)].known_total, 1)
    store_u64(&e.key, 0)
    e.first_ns = 0
    e.last_ns = 0
    store_u64(&e.known_ns, 0)
    e.counted_key = 0
    e.good = 0
    e.bad = 0
    memset(e.faces, 0, sizeof(e.faces))
    memset(e.faces_good, 0, sizeof(e.faces_good))
    e.flags = 0
    return counted


# The entry that a new one may have, NULL: all are worth more.
cdef KnownEntry* known_victim(KnownEntry* bucket, bint rush, uint64_t now_ns) noexcept nogil:
    cdef KnownEntry* best = NULL
    cdef uint64_t best_away = 0, away
    cdef int i, rank, best_rank = 9
    for i in range(KNOWN_BUCKET):
        away = known_away_ns(&bucket[i], now_ns)
        if bucket[i].key == 0 or away >= KNOWN_TTL_NS or (bucket[i].flags & KNOWN_FINGERPRINT and bucket[i].good == 0):
            rank = 0
        elif bucket[i].flags & KNOWN_FINGERPRINT:
            continue
        elif not known_healthy(&bucket[i]):
            rank = 1
        elif not rush and away >= KNOWN_IDLE_NS:
            rank = 2
        else:
            continue
        if rank < best_rank or (rank == best_rank and away > best_away):
            best = &bucket[i]
            best_rank = rank
            best_away = away
    return best


# The entry of key, under its bucket's lock: found, or made in place of another. NULL: no room. released: what known_drop returned.
cdef KnownEntry* known_enter(Known* t, AreaState* area, uint64_t key, uint64_t now_ns, uint64_t* released) noexcept nogil:
    cdef KnownEntry* e = known_find(t, key)
    released[0] = 0
    if e != NULL and known_away_ns(e, now_ns) < KNOWN_TTL_NS:
        return e
    if e == NULL:
        e = known_victim(known_bucket(t, key), rush_is(area, now_ns), now_ns)
        if e == NULL:
            return NULL
    released[0] = known_drop(t, e)
    e.first_ns = now_ns
    e.last_ns = now_ns
    e.area = <uint16_t>((<uintptr_t>area - <uintptr_t>t.areas) // sizeof(AreaState))
    store_u64(&e.key, key)
    return e


# A known client has this fingerprint: a new one (more 1), or one counted before (more 0), whose count may have been lost with its entry.
cdef void known_fingerprint_add(Known* t, AreaState* area, uint64_t key, uint32_t more, uint64_t now_ns) noexcept nogil:
    cdef KnownEntry* bucket = known_bucket(t, key)
    cdef KnownEntry* e
    cdef uint64_t released = 0
    cdef uint32_t mine
    if not lock_take(&bucket[0].lock, now_ns, &mine):
        return
    e = known_enter(t, area, key, now_ns, &released)
    if e != NULL:
        e.flags = KNOWN_FINGERPRINT
        if e.good < U32_MAX:
            e.good += more
        if e.good == 0:
            e.good = 1
        if e.last_ns < now_ns:
            store_u64(&e.last_ns, now_ns)
    lock_give(&bucket[0].lock, mine)
    if released:
        known_fingerprint_drop(t, released, now_ns)


# A client that this fingerprint counted is gone. Never makes an entry, hence releases none: no recursion.
cdef void known_fingerprint_drop(Known* t, uint64_t key, uint64_t now_ns) noexcept nogil:
    cdef KnownEntry* bucket = known_bucket(t, key)
    cdef KnownEntry* e
    cdef uint32_t mine
    if not lock_take(&bucket[0].lock, now_ns, &mine):
        return
    e = known_find(t, key)
    if e != NULL and e.flags & KNOWN_FINGERPRINT and e.good > 0:
        e.good -= 1
    lock_give(&bucket[0].lock, mine)


# A face that has no place takes that of the weakest, unless even that one is healthy already (three healthy ones say enough).
cdef void known_note_face(KnownEntry* e, uint16_t face) noexcept nogil:
    cdef int i, weakest = 0
    for i in range(3):
        if e.faces[i] == face:
            if e.faces_good[i] < 255:
                e.faces_good[i] += 1
            return
        if e.faces_good[i] < e.faces_good[weakest]:
            weakest = i
    if e.faces_good[weakest] < FACE_REQUESTS:
        e.faces[weakest] = face
        e.faces_good[weakest] = 1


# Count one request; the caller holds the lock. Returns the fingerprint that counts the client no more, or 0.
cdef uint64_t known_weigh(KnownEntry* e, AreaState* area, bint good, uint64_t now_ns) noexcept nogil:
    cdef uint64_t released = 0
    cdef uint64_t rush_since = load_u64(&area.rush_since_ns), rush_last = load_u64(&area.rush_last_ns)
    cdef bint rush = rush_is(area, now_ns)
    if not rush and e.known_ns == 0 and rush_since != 0 and rush_since <= e.first_ns <= rush_last:
        e.first_ns = now_ns
        e.good = 0
        e.bad = 0
    if good:
        if e.good < U32_MAX:
            e.good += 1
    else:
        if e.bad < 0xFFFF:
            e.bad += 1
    if e.good >= KNOWN_HISTORY or e.bad >= KNOWN_HISTORY:
        e.good >>= 1
        e.bad >>= 1
    if <uint64_t>e.bad * 10 > e.good:
        if e.known_ns != 0:
            store_u64(&e.known_ns, 0)
            e.flags |= KNOWN_LOST
            e.first_ns = now_ns
            e.good = 0
            e.bad = 0
            released = e.counted_key
            e.counted_key = 0
    elif good and e.known_ns == 0 and not rush and e.good >= KNOWN_REQUESTS \
            and now_ns > e.first_ns and now_ns - e.first_ns >= KNOWN_AFTER_NS:
        if not e.flags & KNOWN_LOST:
            add_u64(&area.known_total, 1)
        e.flags &= ~KNOWN_LOST
        store_u64(&e.known_ns, now_ns)
    return released


cdef void known_note(Known* t, AreaState* area, uint64_t key, uint16_t face, bint good, uint64_t now_ns) noexcept nogil:
    cdef KnownEntry* bucket
    cdef KnownEntry* e
    cdef uint64_t released = 0, lost = 0
    cdef uint32_t mine
    if key == 0:
        key = 1
    bucket = known_bucket(t, key)
    if not lock_take(&bucket[0].lock, now_ns, &mine):
        return
    e = known_enter(t, area, key, now_ns, &released)
    if e != NULL and not e.flags & KNOWN_FINGERPRINT:
        lost = known_weigh(e, area, good, now_ns)
        if good and face:
            known_note_face(e, face)
        if e.last_ns < now_ns:
            store_u64(&e.last_ns, now_ns)
    lock_give(&bucket[0].lock, mine)
    if released:
        known_fingerprint_drop(t, released, now_ns)
    if lost:
        known_fingerprint_drop(t, lost, now_ns)


cdef void known_note_fingerprint(Known* t, AreaState* area, uint64_t key, uint64_t fingerprint_key, uint64_t now_ns) noexcept nogil:
    cdef KnownEntry* e
    cdef uint64_t counted
    if key == 0:
        key = 1
    if fingerprint_key == 0:
        fingerprint_key = 1
    e = known_find(t, key)
    if e == NULL or load_u64(&e.known_ns) == 0:
        return
    counted = load_u64(&e.counted_key)
    if counted != 0:
        if counted == fingerprint_key and e.good % FINGERPRINT_TOUCH == 0:
            known_fingerprint_add(t, area, fingerprint_key, 0, now_ns)
    elif cas_u64(&e.counted_key, 0, fingerprint_key):
        known_fingerprint_add(t, area, fingerprint_key, 1, now_ns)


cdef uint32_t known_fingerprint_clients(Known* t, uint64_t fingerprint_key) noexcept nogil:
    cdef KnownEntry* e = known_find(t, fingerprint_key if fingerprint_key else 1)
    return load_u32(&e.good) if e != NULL and e.flags & KNOWN_FINGERPRINT else 0


cdef bint known_fingerprint_shared(Known* t, const AreaState* area, uint64_t fingerprint_key) noexcept nogil:
    cdef uint64_t clients = known_fingerprint_clients(t, fingerprint_key)
    return clients > 0 and mul_div_u64(clients, 1000000, FINGERPRINT_SHARED_PPM) >= load_u64(&area.known_total)


cdef bint known_block_allowed(Known* t, const AreaState* area, uint64_t key, uint64_t share_ppm, uint64_t now_ns) noexcept nogil:
    if not known_was(t, key, now_ns):
        return True
    return add_saturating_u64(load_u64(&area.known_blocked), 1) <= mul_div_u64(load_u64(&area.known_total), share_ppm, 1000000)


cdef void known_mark_blocked(Known* t, AreaState* area, uint64_t key, bint blocked, uint64_t now_ns) noexcept nogil:
    if not known_was(t, key, now_ns):
        return
    if blocked:
        add_u64(&area.known_blocked, 1)
    else:
        sub_floor_u64(&area.known_blocked, 1)


cdef uint64_t known_sweep(Known* t, uint64_t at, uint64_t count, uint64_t now_ns) noexcept nogil:
    cdef uint64_t entries = (t.bucket_mask + 1) * KNOWN_BUCKET
    cdef uint64_t released, _n
    cdef KnownEntry* e
    cdef uint32_t* lock
    cdef uint32_t mine
    if count > entries:
        count = entries
    for _n in range(count):
        at = at & (entries - 1)
        e = t.entries + at
        lock = &t.entries[at & ~<uint64_t>(KNOWN_BUCKET - 1)].lock
        if load_u64(&e.key) != 0 and known_away_ns(e, now_ns) >= KNOWN_TTL_NS and lock_take(lock, now_ns, &mine):
            released = known_drop(t, e) if known_away_ns(e, now_ns) >= KNOWN_TTL_NS else 0
            lock_give(lock, mine)
            if released:
                known_fingerprint_drop(t, released, now_ns)
        at += 1
    return at & (entries - 1)


cdef void rush_note(AreaState* area, uint64_t now_ns) noexcept nogil:
    if not rush_is(area, now_ns):
        store_u64(&area.rush_since_ns, now_ns)
    if load_u64(&area.rush_last_ns) < now_ns:
        store_u64(&area.rush_last_ns, now_ns)


cdef bint rush_is(const AreaState* area, uint64_t now_ns) noexcept nogil:
    cdef uint64_t last = load_u64(&area.rush_last_ns)
    return load_u64(&area.rush_since_ns) != 0 and (now_ns < last or now_ns - last < RUSH_CALM_NS)
