# The store of answers: see cache.pxd. Owns the log, the index and how both are read and written; knows no socket and nothing of HTTP.
# Invariants: positions and sizes out of the memory are bounded before they are used; what is handed out was copied first and checked
# after; an entry is changed under its bucket's lock (its position also by one swap); nothing waits longer than some hundred pauses.

cdef uint64_t cache_entries(uint64_t log_bytes) noexcept nogil:
    return log_bytes / CACHE_BYTES_ENTRY


cdef void cache_map(Cache* c, uint8_t* payload, uint64_t log_bytes) noexcept nogil:
    c.head = <CacheHead*>payload
    c.log_bytes = log_bytes
    c.entries = <CacheEntry*>(payload + 4096)
    c.bucket_mask = cache_entries(log_bytes) / CACHE_BUCKET - 1 if log_bytes else 0
    c.log = payload + 4096 + cache_entries(log_bytes) * sizeof(CacheEntry)


cdef inline CacheEntry* cache_bucket(const Cache* c, uint64_t key) noexcept nogil:
    return c.entries + (key & c.bucket_mask) * CACHE_BUCKET


cdef inline CacheEntry* cache_in(CacheEntry* bucket, uint64_t key) noexcept nogil:
    cdef int i
    for i in range(CACHE_BUCKET):
        if load_u64(&bucket[i].key) == key:
            return &bucket[i]
    return NULL


cdef inline bint cache_within(const Cache* c, uint64_t pos) noexcept nogil:
    """The log still has what was written there."""
    cdef uint64_t tail = load_u64(&c.head.tail)
    return pos >= c.log_bytes and pos < tail and tail - pos <= c.log_bytes and pos % CACHE_ALIGN == 0


cdef bint cache_is_old(const Cache* c, uint64_t pos) noexcept nogil:
    return load_u64(&c.head.tail) - pos > c.log_bytes / 4 * 3


cdef bint cache_peek(const Cache* c, const CacheKey* key, CacheEntry* out) noexcept nogil:
    cdef CacheEntry* e
    if c.log_bytes == 0:
        return False
    e = cache_in(cache_bucket(c, key.a), key.a)
    if e == NULL:
        return False
    out.key = key.a
    out.pos = load_u64(&e.pos)
    out.tag = load_u64(&e.tag)
    out.claim = load_u64(&e.claim)
    out.pass_ns = load_u64(&e.pass_ns)
    out.retry_ns = load_u64(&e.retry_ns)
    return load_u64(&e.key) == key.a


# --- reading -----------------------------------------------------------------------------------------------------------------------------

cdef inline uint32_t chunks_of(uint32_t body_bytes) noexcept nogil:
    return (body_bytes + CACHE_CHUNK - 1) / CACHE_CHUNK


cdef inline uint64_t lead_bytes(uint32_t head_bytes, uint32_t body_bytes) noexcept nogil:
    """Record, checks and head; the body begins at the next multiple of 8."""
    return (sizeof(CacheRecord) + 8 * <uint64_t>chunks_of(body_bytes) + head_bytes + 7) & ~<uint64_t>7


cdef inline uint64_t chunk_check(const HashKey* secret, uint64_t body_id, uint32_t i, const uint8_t* data, uint32_t n) noexcept nogil:
    cdef HashKey key
    key.k0 = secret.k0 ^ body_id
    key.k1 = secret.k1 ^ (<uint64_t>i + 1)
    return siphash(&key, data, n)


# Over a record's head, sizes and lead, for this one place: what a writer held up for a round of the log puts over a later record is none.
cdef inline uint64_t lead_check(const HashKey* secret, uint64_t pos, const uint8_t* lead, uint64_t length) noexcept nogil:
    cdef HashKey key
    key.k0 = secret.k0 ^ pos
    key.k1 = secret.k1
    return siphash(&key, lead + 8, length - 8)


cdef bint cache_read(const Cache* c, const HashKey* secret, const CacheKey* key, uint64_t pos, uint8_t* lead,
                     CacheFound* out) noexcept nogil:
    cdef const uint8_t* at
    cdef CacheRecord* r = &out.record
    cdef uint64_t length
    if c.log_bytes == 0 or not cache_within(c, pos):
        return False
    at = c.log + (pos & (c.log_bytes - 1))
    if (pos & (c.log_bytes - 1)) + sizeof(CacheRecord) > c.log_bytes:
        return False
    memcpy(r, at, sizeof(CacheRecord))
    if r.head_bytes > HEAD_BYTES_MAX or r.body_bytes > CACHE_BODY_BYTES_MAX or r.area >= AREAS_MAX:
        return False
    if r.kind != CACHE_OBJECT and r.kind != CACHE_VARY or r.key.a != key.a or r.key.b != key.b:
        return False
    length = lead_bytes(r.head_bytes, r.body_bytes)
    if length > CACHE_LEAD_BYTES_MAX or (pos & (c.log_bytes - 1)) + length + r.body_bytes > c.log_bytes:
        return False
    # The copy above decides what is copied here; the check is over this copy and the sizes that were used.
    memcpy(lead, at, length)
    memcpy(lead, r, sizeof(CacheRecord))
    if lead_check(secret, pos, lead, length) != r.check or not cache_within(c, pos):
        return False
    if r.epoch != load_u64(&c.head.epochs[r.area]):
        return False
    out.pos = pos
    out.checks = <const uint64_t*>(lead + sizeof(CacheRecord))
    out.head = lead + sizeof(CacheRecord) + 8 * chunks_of(r.body_bytes)
    return True


cdef int32_t cache_chunk(const Cache* c, const HashKey* secret, const CacheFound* f, uint32_t i, uint8_t* out) noexcept nogil:
    cdef const CacheRecord* r = &f.record
    cdef uint64_t at = (f.pos & (c.log_bytes - 1)) + lead_bytes(r.head_bytes, r.body_bytes) + <uint64_t>i * CACHE_CHUNK
    cdef uint32_t n
    if i >= chunks_of(r.body_bytes):
        return -1
    n = r.body_bytes - i * CACHE_CHUNK
    if n > CACHE_CHUNK:
        n = CACHE_CHUNK
    if at + n > c.log_bytes:
        return -1
    memcpy(out, c.log + at, n)
    return <int32_t>n if chunk_check(secret, r.body_id, i, out, n) == f.checks[i] else -1


# --- writing -----------------------------------------------------------------------------------------------------------------------------

cdef uint64_t cache_reserve(Cache* c, uint64_t nbytes) noexcept nogil:
    """Position of a run; 0: the others were always quicker."""
    cdef uint64_t seen, at, rest
    cdef int _tries
    nbytes = (nbytes + CACHE_ALIGN - 1) & ~<uint64_t>(CACHE_ALIGN - 1)
    for _tries in range(LOCK_SPINS):
        seen = load_u64(&c.head.tail)
        at = (seen + CACHE_ALIGN - 1) & ~<uint64_t>(CACHE_ALIGN - 1)
        if at < c.log_bytes:
            at = c.log_bytes            # a fresh log: position 0 means none
        rest = c.log_bytes - (at & (c.log_bytes - 1))
        if rest < nbytes:
            at += rest                  # a run never goes round the end
        if cas_u64(&c.head.tail, seen, at + nbytes):
            return at
        spin_pause()
    return 0


cdef bint cache_write_begin(Cache* c, const HashKey* secret, CacheWriter* w, uint32_t head_bytes, uint32_t body_bytes,
                            uint64_t body_id) noexcept nogil:
    cdef uint64_t nbytes = lead_bytes(head_bytes, body_bytes) + body_bytes
    if c.log_bytes == 0 or head_bytes > HEAD_BYTES_MAX or body_bytes > CACHE_BODY_BYTES_MAX or nbytes > c.log_bytes / 8:
        return False
    w.pos = cache_reserve(c, nbytes)
    if w.pos == 0:
        return False
    w.at = c.log + (w.pos & (c.log_bytes - 1))
    w.head_bytes = head_bytes
    w.body_bytes = body_bytes
    w.body_id = body_id
    w.written = 0
    w.held = 0
    w.secret = secret[0]
    return True


cdef void write_chunk(CacheWriter* w) noexcept nogil:
    cdef uint32_t i = w.written / CACHE_CHUNK
    w.checks[i] = chunk_check(&w.secret, w.body_id, i, w.chunk, w.held)
    memcpy(w.at + lead_bytes(w.head_bytes, w.body_bytes) + w.written, w.chunk, w.held)
    w.written += w.held
    w.held = 0


cdef bint cache_write_body(CacheWriter* w, const uint8_t* data, uint64_t n) noexcept nogil:
    cdef uint32_t take
    if n > w.body_bytes - w.written - w.held:
        return False
    while n:
        take = CACHE_CHUNK - w.held
        if take > n:
            take = <uint32_t>n
        memcpy(w.chunk + w.held, data, take)
        w.held += take
        data += take
        n -= take
        if w.held == CACHE_CHUNK:
            write_chunk(w)
    return True


cdef uint64_t cache_write_end(CacheWriter* w, CacheRecord* r, const uint8_t* head) noexcept nogil:
    cdef uint8_t lead[CACHE_LEAD_BYTES_MAX]
    cdef uint32_t checks = 8 * chunks_of(w.body_bytes)
    cdef uint64_t length = lead_bytes(w.head_bytes, w.body_bytes)
    if w.held:
        write_chunk(w)
    if w.written != w.body_bytes:
        return 0
    r.head_bytes = w.head_bytes
    r.body_bytes = w.body_bytes
    r.body_id = w.body_id
    memset(lead + length - 8, 0, 8)
    memcpy(lead, r, sizeof(CacheRecord))
    memcpy(lead + sizeof(CacheRecord), w.checks, checks)
    memcpy(lead + sizeof(CacheRecord) + checks, head, w.head_bytes)
    r.check = lead_check(&w.secret, w.pos, lead, length)
    memcpy(lead, &r.check, 8)
    memcpy(w.at, lead, length)
    return w.pos


cdef bint cache_renew(Cache* c, const HashKey* secret, CacheFound* f, CacheWriter* w) noexcept nogil:
    cdef CacheEntry* e
    cdef uint8_t chunk[CACHE_CHUNK]
    cdef uint32_t i
    cdef int32_t n
    cdef uint64_t pos
    cdef CacheRecord r = f.record
    e = cache_in(cache_bucket(c, r.key.a), r.key.a)
    if e == NULL or load_u64(&e.pos) != f.pos or not cache_write_begin(c, secret, w, r.head_bytes, r.body_bytes, r.body_id):
        return False
    for i in range(chunks_of(r.body_bytes)):
        n = cache_chunk(c, secret, f, i, chunk)
        if n < 0 or not cache_write_body(w, chunk, <uint64_t>n):
            return False
    pos = cache_write_end(w, &r, f.head)
    if pos == 0 or not cas_u64(&e.pos, f.pos, pos):
        return False
    f.pos = pos
    return True


# --- the index ---------------------------------------------------------------------------------------------------------------------------

cdef uint64_t cache_claim_word(uint64_t nonce, uint64_t until_ns) noexcept nogil:
    return until_ns >> 20 << 16 | (nonce & 0xFFFF)


cdef inline bint claim_lives(uint64_t claim, uint64_t now_ns) noexcept nogil:
    # One that lapses hours ahead is a hostile number.
    return claim != 0 and claim >> 16 > now_ns >> 20 and (claim >> 16) - (now_ns >> 20) < <uint64_t>1 << 20


cdef CacheEntry* cache_place_for(const Cache* c, CacheEntry* bucket, uint64_t key, uint64_t now_ns) noexcept nogil:
    """The key's entry, made where there is none; the caller holds the bucket. NULL: every place is somebody's who is fetching."""
    cdef CacheEntry* e = cache_in(bucket, key)
    cdef CacheEntry* worst = NULL
    cdef uint64_t rank, lowest = 0
    cdef int i
    if e != NULL:
        return e
    for i in range(CACHE_BUCKET):
        e = &bucket[i]
        if claim_lives(load_u64(&e.claim), now_ns):
            continue
        # Free, then void, then only remembered not to be waited for, then what is overwritten first.
        if e.key == 0:
            rank = 0
        elif not cache_within(c, load_u64(&e.pos)):
            rank = 2 if load_u64(&e.pass_ns) > now_ns else 1
        else:
            rank = load_u64(&e.pos)
        if worst == NULL or rank < lowest:
            worst = e
            lowest = rank
    if worst != NULL:
        store_u64(&worst.key, 0)
        store_u64(&worst.pos, 0)
        store_u64(&worst.claim, 0)
        store_u64(&worst.pass_ns, 0)
        store_u64(&worst.retry_ns, 0)
        store_u64(&worst.tag, 0)
        store_u64(&worst.key, key)
    return worst


cdef int cache_claim(Cache* c, const CacheKey* key, uint64_t claim, uint64_t tag, bint eager, uint64_t now_ns) noexcept nogil:
    cdef CacheEntry* bucket
    cdef CacheEntry* e
    cdef uint32_t mine
    cdef int outcome = CLAIM_MINE
    if c.log_bytes == 0:
        return CLAIM_BUSY
    bucket = cache_bucket(c, key.a)
    if not lock_take(&bucket.lock, now_ns, &mine):
        return CLAIM_BUSY
    e = cache_place_for(c, bucket, key.a, now_ns)
    if e == NULL:
        outcome = CLAIM_BUSY
    elif claim_lives(load_u64(&e.claim), now_ns):
        outcome = CLAIM_TAKEN
    elif not eager and load_u64(&e.pass_ns) > now_ns:
        outcome = CLAIM_PASS
    elif not eager and load_u64(&e.retry_ns) > now_ns:
        outcome = CLAIM_RETRY
    else:
        store_u64(&e.tag, tag)
        store_u64(&e.claim, claim)
    lock_give(&bucket.lock, mine)
    return outcome


cdef bint cache_claim_renew(Cache* c, const CacheKey* key, uint64_t* claim, uint64_t until_ns) noexcept nogil:
    cdef CacheEntry* e = cache_in(cache_bucket(c, key.a), key.a)
    cdef uint64_t renewed = cache_claim_word(claim[0], until_ns)
    if e == NULL or not cas_u64(&e.claim, claim[0], renewed):
        return False
    claim[0] = renewed
    return True


cdef void cache_release(Cache* c, const CacheKey* key, uint64_t claim, uint64_t pass_ns, uint64_t retry_ns, uint64_t now_ns) noexcept nogil:
    cdef CacheEntry* e = cache_in(cache_bucket(c, key.a), key.a)
    if e == NULL or load_u64(&e.claim) != claim:
        return
    if pass_ns:
        store_u64(&e.pass_ns, pass_ns)
    if retry_ns:
        store_u64(&e.retry_ns, retry_ns)
    cas_u64(&e.claim, claim, 0)
    add_u64(&c.head.sequence, 1)


cdef bint cache_place(Cache* c, const CacheKey* key, uint64_t claim, uint64_t tag, uint64_t pos, uint64_t now_ns) noexcept nogil:
    cdef CacheEntry* bucket = cache_bucket(c, key.a)
    cdef CacheEntry* e
    cdef uint32_t mine
    cdef bint placed = False
    if not lock_take(&bucket.lock, now_ns, &mine):
        return False
    if claim:
        e = cache_in(bucket, key.a)
        if e != NULL and load_u64(&e.claim) != claim:
            e = NULL
    else:
        e = cache_place_for(c, bucket, key.a, now_ns)
    if e != NULL:
        store_u64(&e.tag, tag)
        store_u64(&e.pos, pos)
        store_u64(&e.pass_ns, 0)
        store_u64(&e.retry_ns, 0)
        placed = True
        if claim and not cas_u64(&e.claim, claim, 0):
            cas_u64(&e.pos, pos, 0)     # forgotten since we looked: who forgets takes no lock
            placed = False
    lock_give(&bucket.lock, mine)
    add_u64(&c.head.sequence, 1)
    return placed


cdef void cache_forget(CacheEntry* e) noexcept nogil:
    # In this order, the reverse of cache_place's: either it finds its claim gone, or what it placed is forgotten here.
    store_u64(&e.claim, 0)
    fence_full()
    store_u64(&e.pos, 0)


cdef void cache_invalidate(Cache* c, const CacheKey* key, uint64_t now_ns) noexcept nogil:
    cdef CacheEntry* bucket
    cdef CacheEntry* e
    cdef uint32_t mine
    cdef bint held
    if c.log_bytes == 0:
        return
    bucket = cache_bucket(c, key.a)
    if cache_in(bucket, key.a) == NULL:
        return
    # Done without the lock too, where its owner is slow: forgetting does no harm.
    held = lock_take(&bucket.lock, now_ns, &mine)
    e = cache_in(bucket, key.a)
    if e != NULL:
        cache_forget(e)
    if held:
        lock_give(&bucket.lock, mine)
    add_u64(&c.head.sequence, 1)


cdef uint64_t cache_purge(Cache* c, uint32_t area, uint64_t tag, uint64_t now_ns) noexcept nogil:
    cdef uint64_t i, found = 0
    cdef CacheEntry* e
    if c.log_bytes == 0 or area >= AREAS_MAX:
        return 0
    if tag == 0:
        add_u64(&c.head.epochs[area], 1)
    for i in range((c.bucket_mask + 1) * CACHE_BUCKET):
        e = &c.entries[i]
        if tag and load_u64(&e.tag) == tag and load_u64(&e.key):
            found += load_u64(&e.pos) != 0
            cache_forget(e)
    add_u64(&c.head.sequence, 1)
    return found
