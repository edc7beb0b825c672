# The block table. Owns how an entry is found, read whole, written and given up.
# Invariants: look-ups take no lock and are bounded (client, then at most 129 prefix lengths, one bucket each); an entry counts only if it
# was read whole and its check is right, so no accident of two writers can block an address that nobody named; writers hold the bucket.

cdef enum:
    BLOCK_READ_TRIES = 16


cdef inline uint64_t block_check(const HashKey* secret, const BlockEntry* e) noexcept nogil:
    # kind .. proven
    return siphash(secret, <const uint8_t*>e + 4, 96)


cdef inline BlockEntry* block_bucket(Blocks* t, const HashKey* secret, uint8_t kind, uint8_t plen, const Address* a) noexcept nogil:
    cdef uint8_t name[18]
    name[0] = kind
    name[1] = plen
    memcpy(name + 2, a.bytes, 16)
    return t.entries + (siphash(secret, name, 18) & t.bucket_mask) * BLOCKS_BUCKET


cdef inline bint block_names(const BlockEntry* e, uint8_t kind, uint8_t plen, const Address* a) noexcept nogil:
    return e.kind == kind and e.plen == plen and memcmp(e.address.bytes, a.bytes, 16) == 0


# A whole copy of an entry; False: it is being written (or its writer died), or was not written by us.
cdef bint block_read(const HashKey* secret, const BlockEntry* e, BlockEntry* out) noexcept nogil:
    cdef uint32_t before
    cdef int _tries
    for _tries in range(BLOCK_READ_TRIES):
        before = load_u32(&e.lock)
        if before & 1 == 0:
            memcpy(out, e, sizeof(BlockEntry))
            fence_acquire()
            if load_u32(&e.lock) == before:
                return out.kind != 0 and out.check == block_check(secret, out)
        spin_pause()
    return False


# The caller holds the bucket. A sequence left odd by a writer that died is taken over as it is.
cdef void block_write(const HashKey* secret, BlockEntry* e, BlockEntry* made) noexcept nogil:
    cdef uint32_t sequence = load_u32(&e.lock) | 1
    store_u32(&e.lock, sequence)
    fence_full()
    made.check = block_check(secret, made) if made.kind else 0
    # All but the sequence in front and the writer's lock word behind.
    memcpy(<uint8_t*>e + 4, <uint8_t*>made + 4, 116)
    store_u32(&e.lock, sequence + 1)


cdef inline bint areas_meet(const uint64_t* a, const uint64_t* b) noexcept nogil:
    return (a[0] & b[0] | a[1] & b[1] | a[2] & b[2] | a[3] & b[3]) != 0


cdef inline bint areas_within(const uint64_t* a, const uint64_t* b) noexcept nogil:
    return (a[0] & ~b[0] | a[1] & ~b[1] | a[2] & ~b[2] | a[3] & ~b[3]) == 0


# What a look-up has gathered so far: the first block that counts, and which areas are covered.
cdef struct BlockSearch:
    const uint64_t* want        # NULL: any area
    bint whole
    bint found
    uint64_t covered[4]


# Look for one source. True: the search has its answer.
cdef bint block_search(Blocks* t, const HashKey* secret, uint8_t kind, uint8_t plen, const Address* a, uint64_t now_ns,
                       BlockSearch* search, BlockEntry* out) noexcept nogil:
    cdef BlockEntry* bucket = block_bucket(t, secret, kind, plen, a)
    cdef BlockEntry copy
    cdef int i, word
    for i in range(BLOCKS_BUCKET):
        if not block_names(&bucket[i], kind, plen, a) or not block_read(secret, &bucket[i], &copy):
            continue
        if not block_names(&copy, kind, plen, a) or copy.expires_ns <= now_ns:
            continue
        if search.want != NULL and not areas_meet(copy.areas, search.want):
            continue
        if not search.found:
            memcpy(out, &copy, sizeof(BlockEntry))
            search.found = True
        if search.want == NULL or not search.whole:
            return True
        for word in range(AREA_WORDS):
            search.covered[word] |= copy.areas[word]
        if areas_within(search.want, search.covered):
            return True
    return False


cdef bint blocks_match_address(Blocks* t, const HashKey* secret, const Address* a, const uint64_t* want, bint whole,
                               uint64_t now_ns, BlockEntry* out) noexcept nogil:
    cdef uint64_t kinds = load_u64(&t.kinds[0])
    cdef uint64_t lengths
    cdef bint v4 = address_is_v4(a)
    cdef Address named
    cdef BlockSearch search
    cdef int word, plen
    memset(&search, 0, sizeof(search))
    search.want = want
    search.whole = whole
    if kinds & (1 << SOURCE_CLIENT):
        address_client(a, &named)
        if block_search(t, secret, SOURCE_CLIENT, 128 if v4 else 64, &named, now_ns, &search, out):
            return True
    if kinds & (1 << SOURCE_PREFIX):
        named = a[0]
        for word in range(3, 0, -1):
            lengths = load_u64(&t.kinds[word])
            while lengths:
                plen = (word - 1) * 64 + 63 - leading_zeros_u64(lengths)
                lengths &= ~(<uint64_t>1 << (plen & 63))
                if plen > 128 or (v4 and plen < 96):
                    continue
                address_mask(&named, plen)
                if block_search(t, secret, SOURCE_PREFIX, <uint8_t>plen, &named, now_ns, &search, out):
                    return True
    return False


cdef bint blocks_find_address(Blocks* t, const HashKey* secret, const Address* a, uint64_t now_ns, BlockEntry* out) noexcept nogil:
    return blocks_match_address(t, secret, a, NULL, False, now_ns, out)


cdef inline void block_key_address(uint64_t key, Address* out) noexcept nogil:
    memset(out.bytes, 0, 16)
    memcpy(out.bytes, &key, 8)


cdef bint blocks_match_key(Blocks* t, const HashKey* secret, uint8_t kind, uint64_t key, const uint64_t* want, bint whole,
                           uint64_t now_ns, BlockEntry* out) noexcept nogil:
    cdef Address named
    cdef BlockSearch search
    if kind > 63 or not (load_u64(&t.kinds[0]) >> kind) & 1:
        return False
    memset(&search, 0, sizeof(search))
    search.want = want
    search.whole = whole
    block_key_address(key, &named)
    return block_search(t, secret, kind, 0, &named, now_ns, &search, out)


cdef bint blocks_find_key(Blocks* t, const HashKey* secret, uint8_t kind, uint64_t key, uint64_t now_ns, BlockEntry* out) noexcept nogil:
    return blocks_match_key(t, secret, kind, key, NULL, False, now_ns, out)


# Bring a source into the one form in which it is stored. False: it is none.
cdef bint block_form(BlockEntry* e) noexcept nogil:
    if e.kind == SOURCE_CLIENT:
        address_client(&e.address, &e.address)
        e.plen = 128 if address_is_v4(&e.address) else 64
        return True
    if e.kind == SOURCE_PREFIX:
        if e.plen > 128 or (address_is_v4(&e.address) and e.plen < 96):
            return False
        address_mask(&e.address, e.plen)
        return True
    e.plen = 0
    memset(e.address.bytes + 8, 0, 8)
    return SOURCE_FINGERPRINT <= e.kind <= SOURCE_PAIR


cdef uint32_t blocks_clients(const BlockEntry* e) noexcept nogil:
    cdef int bits
    if e.kind == SOURCE_CLIENT:
        return 1
    if e.kind != SOURCE_PREFIX:
        return 0
    bits = 128 - e.plen if address_is_v4(&e.address) else 64 - e.plen
    if bits < 0:
        return 1                # narrower than a client: the /64 that it lies in
    return <uint32_t>1 << bits if bits <= 8 else 0


cdef void blocks_client(const BlockEntry* e, uint32_t i, Address* out) noexcept nogil:
    cdef int last
    address_client(&e.address, out)
    last = 15 if address_is_v4(out) else 7
    out.bytes[last] = <uint8_t>(out.bytes[last] + i)


# Until when the evidence that began then allows a block. Of a block that came back it may have begun before the boot: below 0.
cdef inline uint64_t block_latest(uint64_t first_ns, uint64_t ttl_max_ns) noexcept nogil:
    cdef uint64_t before_boot = 0 - first_ns
    if first_ns >> 63:
        return ttl_max_ns - before_boot if ttl_max_ns > before_boot else 0
    return add_saturating_u64(first_ns, ttl_max_ns)


# Under the bucket's lock: extend what is in force.
cdef int block_extend(const HashKey* secret, BlockEntry* e, BlockEntry* held, const BlockEntry* wanted, uint64_t ttl_max_ns) noexcept nogil:
    cdef uint64_t latest = block_latest(held.first_ns, ttl_max_ns)
    cdef uint64_t expires = wanted.expires_ns if wanted.expires_ns < latest else latest
    cdef bint proven = wanted.proven and not held.proven
    held.proven = held.proven or wanted.proven
    if wanted.expires_ns <= held.expires_ns:
        if proven:
            held.hits = load_u64(&e.hits)
            block_write(secret, e, held)
        return BLOCK_EXTENDED
    if expires <= held.expires_ns:
        return BLOCK_REFUSED_TTL
    held.expires_ns = expires
    held.rule = wanted.rule
    held.hits = load_u64(&e.hits)
    block_write(secret, e, held)
    return BLOCK_EXTENDED


# Under the bucket's lock: the same source and areas, else the entry to use. made is brought to what is stored; free: nothing live is lost.
cdef int block_insert(Blocks* t, const HashKey* secret, BlockEntry* bucket, BlockEntry* made, uint64_t ttl_max_ns, uint64_t blocks_max,
                      uint64_t now_ns) noexcept nogil:
    cdef BlockEntry copy
    cdef BlockEntry* place = NULL
    cdef uint64_t soonest = U64_MAX
    cdef bint free = False
    cdef int i
    for i in range(BLOCKS_BUCKET):
        if not block_read(secret, &bucket[i], &copy) or copy.expires_ns <= now_ns:
            if not free:
                place = &bucket[i]
            free = True
            continue
        if block_names(&copy, made.kind, made.plen, &made.address) and memcmp(copy.areas, made.areas, sizeof(copy.areas)) == 0:
            return block_extend(secret, &bucket[i], &copy, made, ttl_max_ns)
        if not free and copy.expires_ns < soonest:
            place = &bucket[i]
            soonest = copy.expires_ns
    if load_u64(t.count) >= blocks_max:
        return BLOCK_REFUSED_FULL
    if made.first_ns == 0:
        made.first_ns = now_ns
        made.since_ns = now_ns
    made.hits = 0
    if made.expires_ns > block_latest(made.first_ns, ttl_max_ns):
        made.expires_ns = block_latest(made.first_ns, ttl_max_ns)
    if made.expires_ns <= now_ns:
        return BLOCK_REFUSED_TTL
    if not free and made.expires_ns < soonest:
        return BLOCK_REFUSED_FULL       # of these, it would be the least harmful
    block_write(secret, place, made)
    if free:
        add_u64(t.count, 1)
    return BLOCK_NEW


cdef int blocks_put(Blocks* t, const HashKey* secret, const BlockEntry* wanted, uint64_t ttl_max_ns, uint64_t blocks_max,
                    uint64_t now_ns) noexcept nogil:
    cdef BlockEntry made
    cdef BlockEntry* bucket
    cdef uint32_t mine
    cdef int done
    memcpy(&made, wanted, sizeof(BlockEntry))
    if not block_form(&made) or (made.areas[0] | made.areas[1] | made.areas[2] | made.areas[3]) == 0:
        return BLOCK_REFUSED_SOURCE
    bucket = block_bucket(t, secret, made.kind, made.plen, &made.address)
    if not lock_take(&bucket[0].writer, now_ns, &mine):
        return BLOCK_REFUSED_BUSY
    done = block_insert(t, secret, bucket, &made, ttl_max_ns, blocks_max, now_ns)
    lock_give(&bucket[0].writer, mine)
    if done == BLOCK_NEW or done == BLOCK_EXTENDED:
        # In this order: a sweep that missed the entry and replaces these words afterwards sees the epoch, and puts them back.
        add_u64(t.epoch, 1)
        or_u64(&t.kinds[0], <uint64_t>1 << made.kind)
        if made.kind == SOURCE_PREFIX:
            or_u64(&t.kinds[1 + (made.plen >> 6)], <uint64_t>1 << (made.plen & 63))
    return done


cdef bint blocks_remove(Blocks* t, const HashKey* secret, uint8_t kind, uint8_t plen, const Address* a, uint64_t now_ns) noexcept nogil:
    cdef BlockEntry named, empty, copy
    cdef BlockEntry* bucket
    cdef uint32_t mine
    cdef bint lifted = False
    cdef int i
    memset(&named, 0, sizeof(named))
    memset(&empty, 0, sizeof(empty))
    named.kind = kind
    named.plen = plen
    named.address = a[0]
    if not block_form(&named):
        return False
    bucket = block_bucket(t, secret, kind, named.plen, &named.address)
    if not lock_take(&bucket[0].writer, now_ns, &mine):
        return False
    for i in range(BLOCKS_BUCKET):
        if block_read(secret, &bucket[i], &copy) and block_names(&copy, kind, named.plen, &named.address):
            if copy.expires_ns > now_ns:
                lifted = True
                sub_floor_u64(t.count, 1)
            block_write(secret, &bucket[i], &empty)
    lock_give(&bucket[0].writer, mine)
    add_u64(t.epoch, 1)
    return lifted


cdef void blocks_hit(Blocks* t, const HashKey* secret, const BlockEntry* found) noexcept nogil:
    cdef BlockEntry* bucket = block_bucket(t, secret, found.kind, found.plen, &found.address)
    cdef int i
    for i in range(BLOCKS_BUCKET):
        if block_names(&bucket[i], found.kind, found.plen, &found.address) and load_u64(&bucket[i].case_id) == found.case_id:
            add_u64(&bucket[i].hits, 1)
            return


cdef bint blocks_at(Blocks* t, const HashKey* secret, uint64_t i, uint64_t now_ns, BlockEntry* out) noexcept nogil:
    if i >= (t.bucket_mask + 1) * BLOCKS_BUCKET or t.entries[i].kind == 0:
        return False
    return block_read(secret, t.entries + i, out) and out.expires_ns > now_ns


cdef inline uint32_t check_half(uint64_t check) noexcept nogil:
    return <uint32_t>check if <uint32_t>check else 1


cdef bint block_claim(Blocks* t, const HashKey* secret, uint64_t i, uint64_t now_ns, uint32_t reader, bint changed,
                      BlockEntry* out) noexcept nogil:
    cdef uint32_t* mark = &t.entries[i].saved if reader == BLOCK_READER_DISK else &t.entries[i].enforced
    if changed and load_u32(mark) == check_half(load_u64(&t.entries[i].check)) or not blocks_at(t, secret, i, now_ns, out):
        return False
    store_u32(mark, check_half(out.check))
    return True


cdef void blocks_sweep(Blocks* t, const HashKey* secret, uint64_t now_ns) noexcept nogil:
    cdef uint64_t epoch = load_u64(t.epoch)
    cdef uint64_t replaced[4]
    cdef uint64_t used[4]
    cdef uint64_t count = 0, i
    cdef BlockEntry copy
    cdef int word
    for word in range(4):
        used[word] = 0
    for i in range((t.bucket_mask + 1) * BLOCKS_BUCKET):
        if blocks_at(t, secret, i, now_ns, &copy):
            count += 1
            used[0] |= <uint64_t>1 << (copy.kind & 63)
            if copy.kind == SOURCE_PREFIX and copy.plen <= 128:
                used[1 + (copy.plen >> 6)] |= <uint64_t>1 << (copy.plen & 63)
    swap_u64(t.count, count)
    for word in range(4):
        replaced[word] = swap_u64(&t.kinds[word], used[word])
    if load_u64(t.epoch) != epoch:
        for word in range(4):
            or_u64(&t.kinds[word], replaced[word])
