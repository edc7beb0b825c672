# The request's head as the origin will see it, read and changed where it was built: what the key of its answer is made of, what is left out
# of it, and the two fields of our own. Owns nothing. Invariant: it was written by forward_request: lines end in CRLF, an empty one ends it.

cdef uint64_t KEY_SPREAD = 0xA5C3F1E7B2D49687   # the second half of a key is hashed under another secret

cdef struct HeadLine:
    const uint8_t* name
    const uint8_t* value
    uint32_t name_len
    uint32_t value_len


cdef const uint8_t* line_next(const uint8_t* p, const uint8_t* end, HeadLine* out) noexcept nogil:
    """The field line at p, and where the next one is. NULL: the empty line, or the end."""
    cdef const uint8_t* stop = <const uint8_t*>memchr(p, c"\n", <size_t>(end - p))
    cdef const uint8_t* colon
    if stop == NULL or stop - p < 2:
        return NULL
    colon = <const uint8_t*>memchr(p, c":", <size_t>(stop - p))
    if colon == NULL:
        return NULL
    out.name = p
    out.name_len = <uint32_t>(colon - p)
    out.value = colon + 1
    while out.value < stop and out.value[0] == c" ":
        out.value += 1
    out.value_len = <uint32_t>(stop - 1 - out.value) if stop - 1 > out.value else 0
    return stop + 1


cdef const uint8_t* head_lines(const Buffer* b) noexcept nogil:
    """Where the fields begin."""
    cdef const uint8_t* p = <const uint8_t*>memchr(b.data + b.start, c"\n", b.end - b.start)
    return p + 1 if p != NULL else b.data + b.end


cdef uint64_t hash_folded(const HashKey* secret, const uint8_t* text, uint32_t length) noexcept nogil:
    cdef uint8_t folded[512]
    cdef uint32_t i
    if length > sizeof(folded):
        return siphash(secret, text, length)
    for i in range(length):
        folded[i] = fold(text[i])
    return siphash(secret, folded, length)


cdef inline HashKey key_secret(const HashKey* secret, int half) noexcept nogil:
    cdef HashKey key = secret[0]
    if half:
        key.k0 ^= KEY_SPREAD
    return key


cdef void key_half(const HashKey* secret, uint32_t area, const Buffer* b, uint64_t* out) noexcept nogil:
    """Of area, target, Host, and scheme and host that the origin is told: all that it may build links from."""
    cdef uint64_t words[5]
    cdef const uint8_t* p = b.data + b.start
    cdef const uint8_t* end = b.data + b.end
    cdef const uint8_t* space
    cdef HeadLine line
    memset(words, 0, sizeof(words))
    words[0] = area
    # "GET target HTTP/1.1": HEAD has the key of its GET.
    p = <const uint8_t*>memchr(p, c" ", <size_t>(end - p))
    if p != NULL:
        space = <const uint8_t*>memchr(p + 1, c" ", <size_t>(end - p - 1))
        if space != NULL:
            words[1] = siphash(secret, p + 1, <size_t>(space - p - 1))
    p = line_next(head_lines(b), end, &line)
    while p != NULL:
        if line.name_len == 4 and folds_to(line.name, line.name_len, "host"):
            words[2] = hash_folded(secret, line.value, line.value_len)
        elif line.name_len == 16 and folds_to(line.name, line.name_len, "x-forwarded-host"):
            words[3] = hash_folded(secret, line.value, line.value_len)
        elif line.name_len == 17 and folds_to(line.name, line.name_len, "x-forwarded-proto"):
            words[4] = hash_folded(secret, line.value, line.value_len)
        p = line_next(p, end, &line)
    out[0] = siphash(secret, words, sizeof(words))


cdef void head_key(Core* e, Exchange* x, CacheKey* out) noexcept nogil:
    cdef HashKey a = key_secret(&e.shared.secret, 0)
    cdef HashKey b = key_secret(&e.shared.secret, 1)
    key_half(&a, x.area.area_id, x.head, &out.a)
    key_half(&b, x.area.area_id, x.head, &out.b)
    if out.a == 0:
        out.a = 1


cdef uint64_t vary_half(const HashKey* secret, uint64_t half, uint64_t version, const Buffer* b, const uint8_t* names,
                        uint32_t names_len) noexcept nogil:
    """All values of each of the fields, in order, under the key of the URL."""
    cdef uint64_t words[3]
    cdef const uint8_t* end = b.data + b.end
    cdef const uint8_t* p
    cdef uint32_t start = 0, i
    cdef HeadLine line
    words[0] = siphash_pair(secret, half, version)
    for i in range(names_len + 1):
        if i < names_len and names[i] != c",":
            continue
        p = line_next(head_lines(b), end, &line)
        while p != NULL:
            if line.name_len == i - start and fold_equal(line.name, names + start, line.name_len):
                words[1] = start + 1
                words[2] = siphash(secret, line.value, line.value_len)
                words[0] = siphash(secret, words, sizeof(words))
            p = line_next(p, end, &line)
        start = i + 1
    return words[0]


cdef void head_vary_key(Core* e, Exchange* x, const uint8_t* names, uint32_t names_len, uint64_t version, CacheKey* out) noexcept nogil:
    cdef HashKey a = key_secret(&e.shared.secret, 0)
    cdef HashKey b = key_secret(&e.shared.secret, 1)
    out.a = vary_half(&a, x.cache.primary.a, version, x.head, names, names_len)
    out.b = vary_half(&b, x.cache.primary.b, version, x.head, names, names_len)
    if out.a == 0:
        out.a = 1


cdef void head_clean(Exchange* x, bint conditions) noexcept nogil:
    """Leaves out what must not have a say in an answer that others are given. What a route sets is the operator's word, and stays."""
    cdef Buffer* b = x.head
    cdef bint heeded = x.area.cache.flags & CACHE_HONOUR_NO_CACHE != 0
    cdef const Span* edits = route_request_edits(x)
    cdef uint8_t* put_at = <uint8_t*>head_lines(b)
    cdef const uint8_t* p = put_at
    cdef const uint8_t* end = b.data + b.end
    cdef const uint8_t* after
    cdef HeadLine line
    after = line_next(p, end, &line)
    while after != NULL:
        if not cache_strips(line.name, line.name_len, heeded, conditions) or (
                edits.len and edits_drop(x.policy.policy, edits, line.name, line.name_len)):
            if put_at != p:
                memmove(put_at, p, <size_t>(after - p))
            put_at += after - p
        p = after
        after = line_next(p, end, &line)
    if put_at != p:
        memmove(put_at, p, <size_t>(end - p))
        b.end -= <uint32_t>(p - put_at)


cdef void head_as_get(Exchange* x) noexcept nogil:
    """HEAD becomes GET in the head for the origin."""
    cdef Buffer* b = x.head
    memmove(b.data + 3, b.data + 4, b.end - 4)
    memcpy(b.data, <const char*>b"GET", 3)
    b.end -= 1
    if x.host_off:
        x.host_off -= 1
    x.cache.as_get = 1


cdef bint head_add(Buffer* b, const char* name, const uint8_t* value, uint32_t length) noexcept nogil:
    """One more field. False: no room."""
    cdef Writer w
    if b.end - b.start < 4:
        return False
    w.at = b.data + b.end - 2
    w.end = b.data + BUFFER_BYTES
    w.full = False
    put_text(&w, name)
    put(&w, b": ", 2)
    put(&w, value, length)
    put(&w, b"\r\n\r\n", 4)
    if w.full:
        memcpy(b.data + b.end - 2, <const char*>b"\r\n", 2)
        return False
    b.end = <uint32_t>(w.at - b.data)
    return True


cdef uint64_t cache_tag(const HashKey* secret, uint32_t area, const uint8_t* authority, uint32_t authority_len, const uint8_t* target,
                        uint32_t target_len) noexcept nogil:
    cdef uint64_t words[3]
    cdef uint64_t tag
    words[0] = area
    words[1] = hash_folded(secret, authority, authority_len)
    words[2] = siphash(secret, target, target_len)
    tag = siphash(secret, words, sizeof(words))
    return tag if tag else 1


# --- what answers say of it --------------------------------------------------------------------------------------------------------------

cdef const char* cache_word(uint8_t said) noexcept nogil:
    if said == SAID_PASS:
        return b"pass"
    if said == SAID_MISS:
        return b"miss"
    if said == SAID_HIT:
        return b"hit"
    if said == SAID_STALE:
        return b"stale"
    return b"collapsed"


cdef void put_cache(Writer* w, const Exchange* x) noexcept nogil:
    """Age (RFC 9111 5.1) of what is kept; Cache-Status (RFC 9211) where the area wants it."""
    cdef uint8_t said = x.cache.said
    if said >= SAID_HIT:
        put_text(w, b"Age: ")
        put_uint(w, x.cache.age_s)
        put_text(w, b"\r\n")
    if not x.area.cache.flags & CACHE_STATUS_FIELD:
        return
    put_text(w, b"Cache-Status: scrubber")
    if said == SAID_HIT or said == SAID_STALE:
        put_text(w, b"; hit")
    elif said == SAID_COLLAPSED:
        put_text(w, b"; fwd=miss; collapsed")
    elif said == SAID_MISS:
        put_either(w, x.cache.validating, b"; fwd=stale", b"; fwd=miss")
        if x.cache.filling:
            put_text(w, b"; stored")
    else:
        put_either(w, x.cache.ask.flags & ASK_PASS != 0, b"; fwd=method", b"; fwd=bypass")
        if x.cache.filling:
            put_text(w, b"; stored")
    if said >= SAID_HIT:
        put_text(w, b"; ttl=")
        if x.cache.ttl_s < 0:
            put_byte(w, 45)
        put_uint(w, <uint64_t>(-x.cache.ttl_s if x.cache.ttl_s < 0 else x.cache.ttl_s))
    put_text(w, b"\r\n")


cdef void cache_count(AreaTotals* t, const Exchange* x) noexcept nogil:
    cdef uint8_t said = x.cache.said
    t.cache_hits += said == SAID_HIT
    t.cache_stale += said == SAID_STALE
    t.cache_collapsed += said == SAID_COLLAPSED
    t.cache_misses += said == SAID_MISS
    t.cache_passes += said == SAID_PASS
    if said >= SAID_HIT:
        t.cache_bytes += x.bytes_out
