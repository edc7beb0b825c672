# Keeping: what the origin answers is put together in buffers of ours while it is relayed, and written to the store in one go when it is
# whole; see cache_serve.pxd. Invariants: an answer that broke off is never kept; nothing is kept without the claim of its key; all answers
# that are being put together hold a quarter of the buffers at most; whoever fetches and is slow holds up nobody.

cdef uint64_t PASS_NS = <uint64_t>60 * 1000000000   # what could not be kept is not waited for so long; kept it is as soon as it can be
cdef uint64_t PASS_ERROR_NS = 1000000000            # the same, after a 5xx
cdef uint64_t RETRY_NS = 1000000000                 # the origin failed: what is stale is given without asking for so long


cdef bint cache_needs_head(const Exchange* x) noexcept nogil:
    return x.cache.state == USE_FETCH or x.cache.state == USE_PASS or x.cache.state == USE_UNSAFE


cdef inline uint8_t origin_method(const Exchange* x) noexcept nogil:
    return <uint8_t>METHOD_GET if x.cache.as_get else x.method


cdef void fetch_begin(Core* e, Exchange* x, uint64_t claim) noexcept nogil:
    """The claim of x.cache.key is ours."""
    cdef CacheUse* u = &x.cache
    u.state = USE_FETCH
    u.claim = claim
    u.claimed = u.key
    u.epoch = load_u64(&e.shared.cache.head.epochs[x.area.area_id % AREAS_MAX])
    u.asked_wall_ns = wall_ns(e)
    cache_listed(e, x, &e.cache_fetchers)


cdef void fetch_release(Core* e, Exchange* x, uint64_t pass_ns, uint64_t retry_ns) noexcept nogil:
    cdef CacheUse* u = &x.cache
    cache_unlisted(e, x)
    if u.claim:
        cache_release(&e.shared.cache, &u.claimed, u.claim, pass_ns, retry_ns, e.now_ns)
        u.claim = 0


cdef void fill_drop(Core* e, Exchange* x) noexcept nogil:
    if x.cache.filling:
        e.cache_fill_bytes -= x.cache.fill.bytes
        queue_clear(e, &x.cache.fill)
        x.cache.filling = 0


cdef void cache_end(Core* e, Exchange* x) noexcept nogil:
    cdef bint failed = x.status >= 502 and x.status <= 504 and x.first_ns == 0
    if x.cache.state == USE_NONE:
        return
    fill_drop(e, x)
    fetch_release(e, x, 0, e.now_ns + RETRY_NS if failed else 0)
    cache_unlisted(e, x)
    x.cache.state = USE_DONE


cdef bint cache_rescue(Core* e, Exchange* x, bint answered) noexcept nogil:
    cdef CacheUse* u = &x.cache
    cdef CacheFound found
    cdef CacheEntry entry
    cdef CacheAnswer a
    if (u.state != USE_FETCH and u.state != USE_PASS) or x.response_started:
        return False
    if cache_look(e, x, &found, &entry):
        meta_read(x, &found, &a)
        if (not u.ask.flags & ASK_CREDENTIALS or a.flags & ANSWER_PUBLIC) \
                and cache_rescues(&a, &x.area.cache, resident_ns(e, &found), answered):
            fetch_release(e, x, 0, e.now_ns + RETRY_NS)
            return cache_give(e, x, &found, SAID_STALE)
    if not answered:
        # Those who wait are told the same; nobody tries it over again for each of them.
        fetch_release(e, x, 0, e.now_ns + RETRY_NS)
        u.state = USE_DONE
    return False


# --- what an unsafe request changes ------------------------------------------------------------------------------------------------------

cdef void invalidate_target(Core* e, Exchange* x, const uint8_t* data, int32_t i) noexcept nogil:
    """A Location or Content-Location of the same host, in path form or absolute (RFC 9111 4.4). Its key has the target in its place."""
    cdef const Header* h
    cdef const uint8_t* p
    cdef const uint8_t* end
    cdef const uint8_t* slash
    cdef HeadLine line
    cdef const uint8_t* at
    cdef Buffer* b
    cdef CacheKey key
    cdef Writer w
    if i < 0 or x.head == NULL:
        return
    h = &e.response.headers[i]
    p = data + h.value_off
    end = p + h.value_len
    if h.value_len > 7 and (fold_equal(p, <const uint8_t*>b"http://", 7) or fold_equal(p, <const uint8_t*>b"https:/", 7)):
        p += 7 if fold(p[4]) == c":" else 8
        slash = <const uint8_t*>memchr(p, c"/", <size_t>(end - p)) if p < end else NULL
        if slash == NULL:
            return
        at = line_next(head_lines(x.head), x.head.data + x.head.end, &line)
        if at == NULL or not folds_to(line.name, line.name_len, "host") or line.value_len != slash - p \
                or not fold_equal(line.value, p, line.value_len):
            return
        p = slash
    if p >= end or p[0] != c"/" or memchr(p, c" ", <size_t>(end - p)) != NULL:
        return
    b = buffer_get(e)
    if b == NULL:
        return
    w.at = b.data
    w.end = b.data + BUFFER_BYTES
    w.full = False
    put_text(&w, b"GET ")
    put(&w, p, <uint64_t>(end - p))
    put_text(&w, b" HTTP/1.1\r\n")
    at = head_lines(x.head)
    put(&w, at, <uint64_t>(x.head.data + x.head.end - at))
    if not w.full:
        b.end = <uint32_t>(w.at - b.data)
        at = <const uint8_t*>x.head
        x.head, b = b, x.head
        head_key(e, x, &key)
        x.head, b = b, x.head
        cache_invalidate(&e.shared.cache, &key, e.now_ns)
    buffer_put(e, b)


cdef void cache_changed(Core* e, Exchange* x, const uint8_t* data) noexcept nogil:
    """An unsafe request was answered: what is kept of its URL is void where it succeeded."""
    cdef ResponseHead* r = &e.response
    if r.status < 200 or r.status > 399:
        return
    cache_invalidate(&e.shared.cache, &x.cache.primary, e.now_ns)
    invalidate_target(e, x, data, http1_find(data, r.headers, r.header_count, 0, <const uint8_t*>b"location", 8,
                                             http1_name_hash(<const uint8_t*>b"location", 8)))
    invalidate_target(e, x, data, http1_find(data, r.headers, r.header_count, 0, <const uint8_t*>b"content-location", 16,
                                             http1_name_hash(<const uint8_t*>b"content-location", 16)))


# --- the origin's answer -----------------------------------------------------------------------------------------------------------------

cdef bint merge_skips(const uint8_t* data, const Header* h) noexcept nogil:
    """Fields that a 304 does not change (RFC 9111 3.2)."""
    if h.flags & HEADER_HOP or h.id == HEADER_CONTENT_LENGTH or h.id == HEADER_TRANSFER_ENCODING:
        return True
    return h.name_len > 8 and fold_equal(data + h.name_off, <const uint8_t*>b"content-", 8) \
        and not folds_to(data + h.name_off, h.name_len, "content-location")


cdef bint merge_heads(Core* e, const uint8_t* kept, const ResponseHead* old, const uint8_t* data, const ResponseHead* fresh,
                      Buffer* out) noexcept nogil:
    """The kept head with the 304's fields in the place of its own (RFC 9111 4.3.4)."""
    cdef Writer w
    cdef uint16_t i
    cdef const Header* h
    w.at = out.data
    w.end = out.data + HEAD_BYTES_MAX
    w.full = False
    put_text(&w, b"HTTP/1.1 ")
    put_uint(&w, old.status)
    put_byte(&w, 32)
    put(&w, kept + old.reason.off, old.reason.len)
    put(&w, b"\r\n", 2)
    for i in range(old.header_count):
        h = &old.headers[i]
        # An Age that the new answer does not say is no longer so.
        if not merge_skips(kept, h) and (http1_find(data, fresh.headers, fresh.header_count, 0, kept + h.name_off, h.name_len, h.name_hash)
                                         >= 0 or folds_to(kept + h.name_off, h.name_len, "age")):
            continue
        put_header(&w, kept, h)
    for i in range(fresh.header_count):
        if not merge_skips(data, &fresh.headers[i]):
            put_header(&w, data, &fresh.headers[i])
    if fresh.first[HEADER_DATE] < 0 and old.first[HEADER_DATE] < 0:
        put_text(&w, b"Date: ")
        put(&w, e.date, 29)
        put(&w, b"\r\n", 2)
    put(&w, b"\r\n", 2)
    out.end = <uint32_t>(w.at - out.data)
    return not w.full


cdef bint record_put(Core* e, Exchange* x, const CacheKey* key, uint32_t kind, const CacheAnswer* a, uint64_t stored_ns,
                     const uint8_t* head, uint64_t* pos) noexcept nogil:
    """End what cache_writer holds."""
    cdef CacheRecord r
    memset(&r, 0, sizeof(r))
    r.kind = kind
    r.area = x.area.area_id
    r.epoch = x.cache.epoch
    r.key = key[0]
    r.stored_ns = stored_ns
    if a != NULL:
        memcpy(r.meta, a, sizeof(CacheAnswer))
    pos[0] = cache_write_end(&e.cache_writer, &r, head)
    return pos[0] != 0


cdef bint freshen_record(Core* e, Exchange* x, const CacheFound* found, const uint8_t* data, CacheAnswer* a) noexcept nogil:
    """What is kept, written anew with a 304's fields."""
    cdef Cache* c = &e.shared.cache
    cdef CacheUse* u = &x.cache
    cdef ResponseHead fresh = e.response
    cdef Buffer* b = buffer_get(e)
    cdef Http1Limits limits
    cdef uint32_t scan = 0, i
    cdef int32_t n
    cdef uint64_t pos = 0
    cdef bint done = False
    if b == NULL:
        return False
    limits.line_bytes_max = HEAD_BYTES_MAX
    limits.head_bytes_max = HEAD_BYTES_MAX
    limits.headers_max = HEADERS_MAX
    if response_parse(found.head, found.record.head_bytes, &scan, &limits, METHOD_GET, &e.response) == HTTP1_OK \
            and merge_heads(e, found.head, &e.response, data, &fresh, b):
        scan = 0
        if response_parse(b.data, b.end, &scan, &limits, METHOD_GET, &e.response) == HTTP1_OK:
            cache_answer(b.data, &e.response, METHOD_GET, u.ask.flags, &x.area.cache, u.asked_wall_ns, wall_ns(e), a)
            if a.store == STORE_YES and cache_write_begin(c, &e.shared.secret, &e.cache_writer, b.end, found.record.body_bytes,
                                                          found.record.body_id):
                for i in range((found.record.body_bytes + CACHE_CHUNK - 1) / CACHE_CHUNK):
                    n = cache_chunk(c, &e.shared.secret, found, i, e.relay)
                    if n < 0 or not cache_write_body(&e.cache_writer, e.relay, <uint64_t>n):
                        break
                done = record_put(e, x, &u.key, CACHE_OBJECT, a, e.now_ns, b.data, &pos)
                done = done and cache_place(c, &u.key, u.claim, u.tag, pos, e.now_ns)
    if done:
        u.claim = 0
        e.totals.areas[x.area.area_id % AREAS_MAX].cache_stored += 1
    buffer_put(e, b)
    return done


cdef bint cache_freshen(Core* e, Exchange* x, const uint8_t* data) noexcept nogil:
    """304 to our own question: what is kept is good for longer. True: the client has its answer, or the origin is asked once more."""
    cdef CacheUse* u = &x.cache
    cdef CacheFound found
    cdef CacheEntry entry
    cdef CacheAnswer a
    cdef Origin* o = x.origin
    cdef bint kept = cache_look(e, x, &found, &entry)
    x.first_ns = e.now_ns
    o.fresh = 0
    o.reusable = e.response.keep_alive
    if kept and u.claim and not freshen_record(e, x, &found, data, &a):
        # Not to be kept any longer; this client's answer it still is.
        fetch_release(e, x, e.now_ns + PASS_NS, 0)
    origin_release(e, o)        # from here on its bytes are gone
    if kept:
        kept = cache_look(e, x, &found, &entry)
    fetch_release(e, x, 0, 0)
    if kept and cache_give(e, x, &found, SAID_MISS):
        return True
    # It went while the origin was asked: ask for all of it.
    u.state = USE_PASS
    u.validating = 0
    x.first_ns = 0
    if x.head == NULL:
        answer(e, x, 502)
        ready_add(e, &x.client.h)
        return True
    head_clean(x, True)
    origin_acquire(e, x)
    return True


cdef bint vary_settle(Core* e, Exchange* x, const uint8_t* data) noexcept nogil:
    """The key that the answer will have. False: it cannot be had."""
    cdef CacheUse* u = &x.cache
    cdef CacheFound found
    cdef CacheEntry entry
    cdef uint8_t names[CACHE_VARY_BYTES_MAX]
    cdef int32_t n
    u.store = u.primary
    u.marks = 0
    if not u.answer.flags & ANSWER_VARY:
        return True
    n = cache_vary_names(data, e.response.headers, e.response.header_count, names, CACHE_VARY_BYTES_MAX)
    if n < 0 or x.head == NULL:
        return False
    if n == 0:
        return True
    u.version = 0
    if cache_peek(&e.shared.cache, &u.primary, &entry) \
            and cache_read(&e.shared.cache, &e.shared.secret, &u.primary, entry.pos, e.cache_lead, &found) \
            and found.record.kind == CACHE_VARY and found.record.head_bytes == <uint32_t>n and memcmp(found.head, names, <size_t>n) == 0:
        u.version = found.record.body_id
    if u.version == 0:
        u.version = siphash_pair(&e.id_key, x.request_id, e.now_ns) | 1
        u.marks = 1
    head_vary_key(e, x, names, <uint32_t>n, u.version, &u.store)
    return True


cdef void fill_begin(Core* e, Exchange* x, const uint8_t* data) noexcept nogil:
    cdef CacheUse* u = &x.cache
    cdef ResponseHead* r = &e.response
    cdef bint dated = r.first[HEADER_DATE] >= 0
    cdef bint whole
    if e.cache_fill_bytes > <uint64_t>e.buffers.count / 4 * BUFFER_BYTES or not vary_settle(e, x, data):
        return
    whole = queue_append(e, &u.fill, data, r.head_bytes - 2)
    # RFC 9110 6.6.1: what is kept has a Date.
    if whole and not dated:
        whole = queue_append(e, &u.fill, <const uint8_t*>b"Date: ", 6) and queue_append(e, &u.fill, e.date, 29) \
            and queue_append(e, &u.fill, <const uint8_t*>b"\r\n", 2)
    whole = whole and queue_append(e, &u.fill, <const uint8_t*>b"\r\n", 2)
    if not whole or u.fill.bytes > HEAD_BYTES_MAX:
        queue_clear(e, &u.fill)
        return
    u.fill_head = <uint32_t>u.fill.bytes
    u.filling = 1
    e.cache_fill_bytes += u.fill.bytes


cdef bint cache_take(Core* e, Exchange* x, const uint8_t* data, uint32_t n) noexcept nogil:
    cdef CacheUse* u = &x.cache
    cdef ResponseHead* r = &e.response
    cdef uint64_t claim
    cdef bint failing = r.status >= 500 and r.status <= 504 and r.status != 501
    if u.state == USE_UNSAFE:
        cache_changed(e, x, data)
        return False
    if u.state != USE_FETCH and u.state != USE_PASS:
        return False
    if u.validating and r.status == 304 and n == 0:
        return cache_freshen(e, x, data)
    if failing and cache_rescue(e, x, True):
        if x.origin != NULL:
            origin_abandon(e, x)
        return True
    if u.state == USE_PASS and u.asked_wall_ns == 0:
        u.asked_wall_ns = wall_ns(e) - (e.now_ns - x.sent_ns)
    cache_answer(data, r, origin_method(x), u.ask.flags, &x.area.cache, u.asked_wall_ns, wall_ns(e), &u.answer)
    if u.answer.store == STORE_YES and u.state == USE_PASS:
        # Nobody waits for it, yet it may be kept; one of those who try is enough.
        claim = cache_claim_word(x.request_id, e.now_ns + CLAIM_NS)
        u.key = u.primary
        if cache_claim(&e.shared.cache, &u.key, claim, u.tag, True, e.now_ns) == CLAIM_MINE:
            fetch_begin(e, x, claim)
    if u.answer.store == STORE_YES and u.state == USE_FETCH and u.claim:
        fill_begin(e, x, data)
    if not u.filling:
        fetch_release(e, x, 0 if u.claim == 0 else e.now_ns + (PASS_ERROR_NS if failing else PASS_NS), 0)
        u.state = USE_DONE
    return False


# --- the body ----------------------------------------------------------------------------------------------------------------------------

cdef bint fill_give_up(Core* e, Exchange* x) noexcept nogil:
    """Not kept after all: what the client has not been given is queued for it. False: no buffers for that."""
    cdef CacheUse* u = &x.cache
    cdef Buffer* b = u.fill.head
    cdef uint64_t skip = u.fill_head + u.given
    cdef uint64_t take
    cdef int wrote = 0
    fetch_release(e, x, e.now_ns + PASS_NS, 0)
    u.state = USE_DONE
    while b != NULL and u.behind and wrote >= 0:
        take = b.end - b.start
        if skip >= take:
            skip -= take
        else:
            x.bytes_out += take - skip
            if x.client_chunked:
                wrote = chunk_write(e, &x.client.out, b.data + b.start + skip, <uint32_t>(take - skip))
            elif not queue_append(e, &x.client.out, b.data + b.start + skip, take - skip):
                wrote = -1
            skip = 0
        b = b.next
    fill_drop(e, x)
    u.behind = 0
    return wrote >= 0


cdef bint cache_fill(Core* e, Exchange* x, const uint8_t* data, uint32_t n) noexcept nogil:
    cdef CacheUse* u = &x.cache
    cdef uint64_t before = u.fill.bytes
    cdef bint whole
    if u.claim == 0 or u.fill.bytes - u.fill_head + n > x.area.cache.object_bytes_max \
            or e.cache_fill_bytes + n > <uint64_t>e.buffers.count / 4 * BUFFER_BYTES:
        if not fill_give_up(e, x):
            x.client.h.events |= EVENT_BROKEN
            ready_add(e, &x.client.h)
        return True
    whole = queue_append(e, &u.fill, data, n)
    e.cache_fill_bytes += u.fill.bytes - before
    if not whole:
        x.client.h.events |= EVENT_BROKEN
        ready_add(e, &x.client.h)
        return False
    if u.behind or u.as_get:
        return False
    if not x.client.h.events & EVENT_WRITE:
        u.behind = 1
        return False
    u.given += n
    return True


cdef bint fill_keep(Core* e, Exchange* x) noexcept nogil:
    """Write what was put together. True: it is kept, and found at x.cache.pos under x.cache.key."""
    cdef Cache* c = &e.shared.cache
    cdef CacheUse* u = &x.cache
    cdef CacheEntry entry
    cdef Buffer* b = u.fill.head
    cdef uint64_t skip = u.fill_head, take, pos = 0, mark = 0
    cdef uint64_t body = u.fill.bytes - u.fill_head
    cdef uint8_t names[CACHE_VARY_BYTES_MAX]
    cdef int32_t n = 0
    cdef bint claimed_here
    if u.claim == 0 or not cache_peek(c, &u.claimed, &entry) or entry.claim != u.claim or body > CACHE_BODY_BYTES_MAX:
        return False
    u.body_id = siphash_pair(&e.id_key, x.request_id, e.now_ns)
    if not cache_write_begin(c, &e.shared.secret, &e.cache_writer, u.fill_head, <uint32_t>body, u.body_id):
        return False
    while b != NULL:
        take = b.end - b.start
        if skip >= take:
            skip -= take
        else:
            cache_write_body(&e.cache_writer, b.data + b.start + skip, take - skip)
            skip = 0
        b = b.next
    # The head is the first thing in its first buffer, which is larger than any head.
    if not record_put(e, x, &u.store, CACHE_OBJECT, &u.answer, x.first_ns, u.fill.head.data + u.fill.head.start, &pos):
        return False
    if u.marks:
        n = fill_names(e, x, names)
        if n <= 0 or not cache_write_begin(c, &e.shared.secret, &e.cache_writer, <uint32_t>n, 0, u.version) \
                or not record_put(e, x, &u.primary, CACHE_VARY, NULL, e.now_ns, names, &mark):
            return False
    claimed_here = u.claimed.a == u.store.a
    if not cache_place(c, &u.store, u.claim if claimed_here else 0, u.tag, pos, e.now_ns):
        return False
    if u.marks:
        cache_place(c, &u.primary, u.claim if u.claimed.a == u.primary.a else 0, u.tag, mark, e.now_ns)
    u.key = u.store
    u.pos = pos
    e.totals.areas[x.area.area_id % AREAS_MAX].cache_stored += 1
    return True


cdef int32_t fill_names(Core* e, Exchange* x, uint8_t* names) noexcept nogil:
    """Vary of the head that was put together."""
    cdef Http1Limits limits
    cdef uint32_t scan = 0
    cdef const uint8_t* head = x.cache.fill.head.data + x.cache.fill.head.start
    limits.line_bytes_max = HEAD_BYTES_MAX
    limits.head_bytes_max = HEAD_BYTES_MAX
    limits.headers_max = HEADERS_MAX
    if response_parse(head, x.cache.fill_head, &scan, &limits, METHOD_GET, &e.response) != HTTP1_OK:
        return -1
    return cache_vary_names(head, e.response.headers, e.response.header_count, names, CACHE_VARY_BYTES_MAX)


cdef bint cache_finish(Core* e, Exchange* x) noexcept nogil:
    cdef CacheUse* u = &x.cache
    cdef uint64_t body = u.fill.bytes - u.fill_head
    cdef bint kept = fill_keep(e, x)
    if not kept:
        if not fill_give_up(e, x):
            x.client.h.events |= EVENT_BROKEN
            ready_add(e, &x.client.h)
        return False
    fetch_release(e, x, 0, 0)
    fill_drop(e, x)
    u.state = USE_DONE
    if not u.behind:
        return False
    u.state = USE_SERVE
    u.offset = <uint32_t>u.given
    u.body_bytes = <uint32_t>body
    origin_release(e, x.origin)
    ready_add(e, &x.client.h)
    return True
