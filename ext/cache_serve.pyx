# Looking up, waiting and giving: see cache_serve.pxd. Invariants: a request that waits is on the list of those who wait, one that fetches
# on the list of those who fetch; what is given was checked chunk by chunk; a slow client holds no more than its window.

cdef uint64_t CLAIM_NS = <uint64_t>3 * 1000000000   # a claim that is not renewed lapses: its worker died
cdef uint64_t CLAIM_RENEW_NS = 500000000


cdef inline uint64_t wall_ns(const Core* e) noexcept nogil:
    return e.now_ns + e.wall_offset_ns


cdef void cache_consider(Core* e, Exchange* x, const Facts* f) noexcept nogil:
    cdef const RequestHead* head = f.head
    cdef CacheUse* u = &x.cache
    cdef Span account = x.area.account_name
    if not x.area.cache.flags & CACHE_ON or e.shared.cache.log_bytes == 0:
        return
    if x.area.account_kind != ACCOUNT_HEADER:
        account.len = 0         # Authorization and Cookie always count
    cache_ask(f.data, head, f.policy.text + account.off, account.len, <int64_t>(wall_ns(e) / 1000000000), &u.ask)
    if x.upgrade:
        u.ask.flags |= ASK_PASS
    u.said = SAID_PASS
    u.tag = cache_tag(&e.shared.secret, x.area.area_id, f.data + head.authority.off, head.authority.len, f.data + head.target.off,
                      head.target.len)
    if u.ask.flags & ASK_PASS:
        if head.method != METHOD_GET and head.method != METHOD_HEAD and head.method != METHOD_OPTIONS:
            u.state = USE_UNSAFE
            head_key(e, x, &u.primary)
        return
    u.state = USE_PASS
    # Whatever may be kept is asked for without fields that have no part in its key.
    if not u.ask.flags & (ASK_RANGE | ASK_NO_STORE):
        head_clean(x, False)
    head_key(e, x, &u.primary)
    if u.ask.none_match.len and u.ask.none_match.len <= NONE_MATCH_BYTES_MAX:
        memcpy(u.none_match, f.data + u.ask.none_match.off, u.ask.none_match.len)
        u.none_match_len = <uint8_t>u.ask.none_match.len


cdef bint cache_look(Core* e, Exchange* x, CacheFound* found, CacheEntry* entry) noexcept nogil:
    """What is kept for this request, in e.cache_lead. x.cache.key is where it is, or would be."""
    cdef Cache* c = &e.shared.cache
    cdef CacheUse* u = &x.cache
    u.key = u.primary
    u.version = 0
    memset(entry, 0, sizeof(CacheEntry))
    u.pos = 0
    if not cache_peek(c, &u.primary, entry):
        return False
    u.pos = entry.pos
    if not cache_read(c, &e.shared.secret, &u.primary, entry.pos, e.cache_lead, found):
        return False
    if found.record.kind == CACHE_OBJECT:
        return True
    if x.head == NULL:
        return False
    u.version = found.record.body_id
    head_vary_key(e, x, found.head, found.record.head_bytes, u.version, &u.key)
    if cache_is_old(c, found.pos):
        cache_renew(c, &e.shared.secret, found, &e.cache_writer)
    memset(entry, 0, sizeof(CacheEntry))
    u.pos = 0
    if not cache_peek(c, &u.key, entry):
        return False
    u.pos = entry.pos
    return cache_read(c, &e.shared.secret, &u.key, entry.pos, e.cache_lead, found) and found.record.kind == CACHE_OBJECT


cdef inline void meta_read(const Exchange* x, const CacheFound* found, CacheAnswer* out) noexcept nogil:
    memcpy(out, found.record.meta, sizeof(CacheAnswer))
    cache_bound(out, &x.area.cache)


cdef inline uint64_t resident_ns(const Core* e, const CacheFound* found) noexcept nogil:
    return e.now_ns - found.record.stored_ns if e.now_ns > found.record.stored_ns else 0


# --- giving ------------------------------------------------------------------------------------------------------------------------------

cdef void hide(ResponseHead* r, const uint8_t* data, bint not_modified) noexcept nogil:
    """Fields of a kept head that are not given: its Age, which we state; of a 304, what describes the body it has not (RFC 9110 15.4.5)."""
    cdef uint16_t i
    cdef Header* h
    for i in range(r.header_count):
        h = &r.headers[i]
        if folds_to(data + h.name_off, h.name_len, "age"):
            h.flags |= HEADER_HOP
        elif not_modified and h.name_len > 8 and fold_equal(data + h.name_off, <const uint8_t*>b"content-", 8) \
                and not folds_to(data + h.name_off, h.name_len, "content-location"):
            h.flags |= HEADER_HOP


cdef void cache_tell(Exchange* x, const CacheAnswer* a, uint64_t resident, uint8_t said) noexcept nogil:
    cdef uint64_t age_ns = a.initial_age_ns + resident
    x.cache.said = said
    x.cache.age_s = <uint32_t>(age_ns / 1000000000 if age_ns / 1000000000 < CACHE_SECONDS_MAX else CACHE_SECONDS_MAX)
    x.cache.ttl_s = <int64_t>(a.lifetime_ns / 1000000000) - <int64_t>(age_ns / 1000000000)


cdef bint cache_give(Core* e, Exchange* x, const CacheFound* found, uint8_t said) noexcept nogil:
    """Answer with it. False: it cannot be read after all."""
    cdef Http1Limits limits
    cdef ResponseHead* r = &e.response
    cdef CacheUse* u = &x.cache
    cdef CacheAnswer a
    cdef uint32_t scan = 0
    cdef bint not_modified = False
    limits.line_bytes_max = HEAD_BYTES_MAX
    limits.head_bytes_max = HEAD_BYTES_MAX
    limits.headers_max = HEADERS_MAX
    if response_parse(found.head, found.record.head_bytes, &scan, &limits, METHOD_GET, r) != HTTP1_OK:
        return False
    meta_read(x, found, &a)
    cache_tell(x, &a, resident_ns(e, found), said)
    if r.status == 200:
        not_modified = cache_not_modified(found.head, r.headers, r.header_count, &a, u.none_match, u.none_match_len,
                                          u.ask.flags & ASK_SINCE != 0, u.ask.modified_since_s)
    hide(r, found.head, not_modified)
    r.has_content_length = not not_modified and r.status != 204
    r.content_length = found.record.body_bytes
    if not_modified:
        r.status = 304
        r.reason.len = 0
    cache_unlisted(e, x)
    if client_leaving(e, x.client):
        x.keep_alive = 0
    x.status = r.status
    x.client_chunked = 0
    x.response_body = BODY_LENGTH
    if x.sent_ns and x.first_ns == 0:
        x.first_ns = e.now_ns
    u.state = USE_SERVE
    u.pos = found.pos
    u.body_id = found.record.body_id
    u.body_bytes = found.record.body_bytes
    u.offset = 0
    if not forward_response(e, x, found.head):
        u.state = USE_DONE
        u.said = SAID_NOTHING
        answer(e, x, 503)
        return True
    x.response_started = 1
    head_drop(e, x)
    if not_modified or u.ask.flags & ASK_HEAD or u.body_bytes == 0:
        u.state = USE_DONE
        x.response_done = 1
    ready_add(e, &x.client.h)
    return True


cdef int32_t cache_window(Core* e, Exchange* x) noexcept nogil:
    """The next bytes of the body in e.relay; -1: it is kept no more."""
    cdef Cache* c = &e.shared.cache
    cdef CacheUse* u = &x.cache
    cdef CacheFound found
    cdef CacheEntry entry
    cdef uint32_t at = 0, limit = x.window, skip = u.offset % CACHE_CHUNK, i = u.offset / CACHE_CHUNK
    cdef int32_t n
    if not cache_read(c, &e.shared.secret, &u.key, u.pos, e.cache_lead, &found) or found.record.body_id != u.body_id:
        # Written anew elsewhere, perhaps.
        if not cache_peek(c, &u.key, &entry) or not cache_read(c, &e.shared.secret, &u.key, entry.pos, e.cache_lead, &found):
            return -1
    if found.record.body_id != u.body_id or found.record.body_bytes != u.body_bytes:
        return -1
    if cache_is_old(c, found.pos):
        cache_renew(c, &e.shared.secret, &found, &e.cache_writer)
    u.pos = found.pos
    if limit > RELAY_BYTES - CACHE_CHUNK:
        limit = RELAY_BYTES - CACHE_CHUNK
    while at < limit and u.offset + at < u.body_bytes:
        n = cache_chunk(c, &e.shared.secret, &found, i, e.relay + at)
        if n <= <int32_t>skip:
            return -1
        if skip:
            memmove(e.relay + at, e.relay + at + skip, <uint32_t>n - skip)
        at += <uint32_t>n - skip
        skip = 0
        i += 1
    return <int32_t>at


cdef void cache_pump(Core* e, Exchange* x) noexcept nogil:
    cdef Client* c = x.client
    cdef CacheUse* u = &x.cache
    cdef int64_t budget = STEP_BYTES_MAX
    cdef int32_t n
    cdef int wrote
    while u.state == USE_SERVE:
        # The first bytes go out together with the head.
        if c.out.head != NULL and (u.offset or c.out.bytes > WINDOW_MIN or not c.h.events & EVENT_WRITE) and client_flush(e, c) != 1:
            window_narrow(x)
            return
        if e.buffers.free < BUFFERS_LOW + RELAY_BYTES / BUFFER_BYTES:
            starve(e, &c.h)
            return
        n = cache_window(e, x)
        if n < 0:
            x.upstream_closed = 1
            client_close(e, c, x.minor == 0)
            return
        wrote = chunk_write(e, &c.out, e.relay, <uint32_t>n) if x.client_chunked else client_write(e, c, e.relay, <uint64_t>n)
        if wrote < 0:
            client_close(e, c, True)
            return
        u.offset += <uint32_t>n
        x.bytes_out += <uint64_t>n
        window_widen(x)
        budget -= n
        if u.offset >= u.body_bytes:
            u.state = USE_DONE
            x.response_done = 1
            if x.client_chunked and not queue_append(e, &c.out, <const uint8_t*>b"0\r\n\r\n", 5):
                client_close(e, c, True)
            return
        if budget <= 0:
            ready_add(e, &c.h)
            return


# --- deciding ----------------------------------------------------------------------------------------------------------------------------

cdef bint cache_join(Core* e, Exchange* x, const CacheFound* found, bint have) noexcept nogil:
    """Another one fetches it: wait. True always."""
    cdef const CacheSpec* spec = &x.area.cache
    cdef CacheUse* u = &x.cache
    cdef CacheAnswer a
    if u.state == USE_WAIT:
        return True
    # Those who were here before the rush have the last quarter.
    if e.cache_waiting >= (spec.wait_max if x.judgement.known else spec.wait_max - spec.wait_max / 4):
        if have:
            meta_read(x, found, &a)
            if cache_rescues(&a, spec, resident_ns(e, found), False) and cache_give(e, x, found, SAID_STALE):
                return True
        u.state = USE_DONE
        answer(e, x, 503)
        return True
    u.state = USE_WAIT
    u.since_ns = e.now_ns
    e.cache_waiting += 1
    cache_listed(e, x, &e.cache_waiters)
    return True


cdef bint cache_revalidate(Core* e, Exchange* x, const CacheFound* found) noexcept nogil:
    """Our own conditions, of what is kept (RFC 9111 4.3.1)."""
    cdef Http1Limits limits
    cdef ResponseHead* r = &e.response
    cdef uint32_t scan = 0
    cdef int32_t i
    limits.line_bytes_max = HEAD_BYTES_MAX
    limits.head_bytes_max = HEAD_BYTES_MAX
    limits.headers_max = HEADERS_MAX
    if response_parse(found.head, found.record.head_bytes, &scan, &limits, METHOD_GET, r) != HTTP1_OK:
        return False
    i = field_find(found.head, r.headers, r.header_count, 0, FIELD_ETAG)
    if i >= 0:
        return head_add(x.head, b"If-None-Match", found.head + r.headers[i].value_off, r.headers[i].value_len)
    i = field_find(found.head, r.headers, r.header_count, 0, FIELD_LAST_MODIFIED)
    return i >= 0 and head_add(x.head, b"If-Modified-Since", found.head + r.headers[i].value_off, r.headers[i].value_len)


cdef int claim_seen(const CacheEntry* entry, uint64_t now_ns) noexcept nogil:
    """What cache_claim would say of an entry that somebody has to do with; CLAIM_PASS: nobody has."""
    if claim_lives(entry.claim, now_ns):
        return CLAIM_TAKEN
    return CLAIM_RETRY if entry.retry_ns > now_ns else CLAIM_PASS


cdef bint cache_fetch(Core* e, Exchange* x, const CacheFound* found, const CacheEntry* entry, bint have, int age) noexcept nogil:
    """Not kept, or not fresh: become the one who fetches it, or wait for that one. As cache_open."""
    cdef const CacheSpec* spec = &x.area.cache
    cdef CacheUse* u = &x.cache
    cdef CacheAnswer a
    cdef uint64_t claim = cache_claim_word(x.request_id, e.now_ns + CLAIM_NS)
    # Parts, and what must not be stored, are fetched for nobody else; what another one fetches is good for them as well.
    cdef bint alone = u.ask.flags & (ASK_RANGE | ASK_NO_STORE) != 0
    cdef int outcome = claim_seen(entry, e.now_ns) if alone else cache_claim(&e.shared.cache, &u.key, claim, u.tag, False, e.now_ns)
    cdef bint waited = u.state == USE_WAIT
    if have and (alone or outcome == CLAIM_TAKEN or outcome == CLAIM_RETRY):
        meta_read(x, found, &a)
        if age == AGE_STALE_ALLOWED or (outcome == CLAIM_RETRY and cache_rescues(&a, spec, resident_ns(e, found), False)):
            if cache_give(e, x, found, SAID_STALE):
                return True
    if outcome == CLAIM_RETRY and waited:
        # It failed for the one we waited for: one try is enough for everybody.
        cache_unlisted(e, x)
        u.state = USE_DONE
        answer(e, x, 502)
        return True
    if outcome == CLAIM_RETRY and not alone:
        outcome = cache_claim(&e.shared.cache, &u.key, claim, u.tag, True, e.now_ns)
    if outcome == CLAIM_TAKEN:
        return cache_join(e, x, found, have)
    cache_unlisted(e, x)
    u.state = USE_PASS
    if outcome != CLAIM_MINE:
        return False
    head_clean(x, True)
    if u.ask.flags & ASK_HEAD and not u.as_get:
        head_as_get(x)
    u.said = SAID_MISS
    fetch_begin(e, x, claim)
    if have:
        u.validating = cache_revalidate(e, x, found)
    return False


cdef bint cache_open(Core* e, Exchange* x) noexcept nogil:
    cdef const CacheSpec* spec = &x.area.cache
    cdef CacheUse* u = &x.cache
    cdef CacheFound found
    cdef CacheEntry entry
    cdef CacheAnswer a
    cdef int age = AGE_NEVER
    cdef bint have, calm
    if u.state != USE_PASS and u.state != USE_WAIT:
        return False
    have = cache_look(e, x, &found, &entry)
    if have:
        meta_read(x, &found, &a)
        if u.ask.flags & ASK_CREDENTIALS and not a.flags & ANSWER_PUBLIC:
            have = False
    if have:
        calm = entry.retry_ns <= e.now_ns and not rush_is(&e.shared.control.areas[x.area.area_id % AREAS_MAX], e.now_ns)
        age = cache_age(&a, &u.ask, spec, resident_ns(e, &found), calm)
        if age == AGE_FRESH and cache_give(e, x, &found, SAID_COLLAPSED if u.state == USE_WAIT else SAID_HIT):
            return True
        # What was fetched while it waited is its answer, however short its freshness.
        if u.state == USE_WAIT and found.record.stored_ns > u.since_ns and cache_give(e, x, &found, SAID_COLLAPSED):
            return True
        if cache_is_old(&e.shared.cache, found.pos):
            cache_renew(&e.shared.cache, &e.shared.secret, &found, &e.cache_writer)
    if u.ask.flags & ASK_ONLY_IF_CACHED:
        if have and age == AGE_STALE_ALLOWED and cache_give(e, x, &found, SAID_STALE):
            return True
        u.state = USE_DONE
        answer(e, x, 504)
        return True
    # With credentials nobody waits for an answer that may not be theirs.
    if u.ask.flags & ASK_CREDENTIALS and not have:
        return False
    return cache_fetch(e, x, &found, &entry, have, age)


# --- waiting -----------------------------------------------------------------------------------------------------------------------------

cdef void cache_listed(Core* e, Exchange* x, Exchange** list_head) noexcept nogil:
    x.cache.listed = 1
    x.cache.prev = NULL
    x.cache.next = list_head[0]
    if list_head[0] != NULL:
        list_head[0].cache.prev = x
    list_head[0] = x


cdef void cache_unlisted(Core* e, Exchange* x) noexcept nogil:
    if not x.cache.listed:
        return
    if x.cache.prev != NULL:
        x.cache.prev.cache.next = x.cache.next
    elif e.cache_waiters == x:
        e.cache_waiters = x.cache.next
    else:
        e.cache_fetchers = x.cache.next
    if x.cache.next != NULL:
        x.cache.next.cache.prev = x.cache.prev
    if x.cache.state == USE_WAIT:
        e.cache_waiting -= 1
    x.cache.listed = 0
    x.cache.prev = NULL
    x.cache.next = NULL


cdef void cache_wake(Core* e, Exchange* x) noexcept nogil:
    if e.now_ns - x.cache.since_ns >= x.area.cache.wait_ns or not cache_open(e, x):
        cache_unlisted(e, x)
        if x.cache.state == USE_WAIT:
            x.cache.state = USE_PASS
        origin_acquire(e, x)


cdef void cache_look_through(Core* e, bint everybody) noexcept nogil:
    cdef uint64_t sequence = load_u64(&e.shared.cache.head.sequence)
    cdef Exchange* x = e.cache_waiters
    cdef CacheEntry entry
    if sequence == e.cache_seen and not everybody:
        return
    e.cache_seen = sequence
    while x != NULL:
        if not cache_peek(&e.shared.cache, &x.cache.key, &entry) or not claim_lives(entry.claim, e.now_ns) or entry.pos != x.cache.pos \
                or e.now_ns - x.cache.since_ns >= x.area.cache.wait_ns:
            ready_add(e, &x.client.h)
        x = x.cache.next


cdef void cache_tick(Core* e) noexcept nogil:
    cdef Exchange* x = e.cache_fetchers
    if e.cache_waiters != NULL:
        cache_look_through(e, True)
    if x == NULL or e.now_ns - e.cache_renewed_ns < CLAIM_RENEW_NS:
        return
    e.cache_renewed_ns = e.now_ns
    while x != NULL:
        if x.cache.claim and not cache_claim_renew(&e.shared.cache, &x.cache.claimed, &x.cache.claim, e.now_ns + CLAIM_NS):
            x.cache.claim = 0       # invalidated, or too late: what comes will not be kept
        x = x.cache.next
