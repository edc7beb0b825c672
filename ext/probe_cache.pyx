# Python faces of the cache: decisions over heads, and the store in a Memory, for tests. No behaviour of its own.


cdef CacheSpec probe_cache_spec(tuple words) except *:
    """flags, object_bytes_max, ttl_max_ns, ttl_default_ns, stale_max_ns."""
    cdef CacheSpec spec
    memset(&spec, 0, sizeof(spec))
    spec.flags, spec.object_bytes_max, spec.ttl_max_ns, spec.ttl_default_ns, spec.stale_max_ns = words
    return spec


def probe_cache_date(text: bytes, int64_t now_s):
    """Unix time, or None."""
    cdef int64_t out = 0
    cdef uint8_t* p = probe_copy(text)
    cdef bint ok = http_date_parse(p, <uint32_t>len(text), now_s, &out)
    free(p)
    return out if ok else None


cdef CacheAsk probe_ask(bytes data, int64_t now_s, bytes account=b"") except *:
    cdef RequestHead head
    cdef CacheAsk ask
    cdef uint32_t scan = 0
    cdef Http1Limits limits = probe_limits((8192, 16384, 128))
    cdef uint8_t* p = probe_copy(data)
    cdef int outcome = request_parse(p, <uint32_t>len(data), &scan, &limits, &head)
    if outcome != HTTP1_OK:
        free(p)
        raise ValueError(f"no request: {http1_reason(outcome).decode()}")
    cache_ask(p, &head, <const uint8_t*><const char*>account, <uint32_t>len(account), now_s, &ask)
    free(p)
    return ask


def probe_cache_ask(data: bytes, int64_t now_s, account: bytes = b"") -> dict:
    """What a request asks of a cache; account: the field that the area reads accounts from."""
    cdef CacheAsk ask = probe_ask(data, now_s, account)
    return {"flags": ask.flags, "max_age_s": ask.max_age_s, "min_fresh_s": ask.min_fresh_s, "max_stale_s": ask.max_stale_s,
            "modified_since_s": ask.modified_since_s,
            "none_match": data[ask.none_match.off:ask.none_match.off + ask.none_match.len]}


cdef CacheAnswer probe_answer(bytes data, uint8_t method, uint32_t ask_flags, tuple spec, uint64_t asked_ns, uint64_t got_ns) except *:
    cdef ResponseHead head
    cdef CacheAnswer out
    cdef CacheSpec s = probe_cache_spec(spec)
    cdef uint32_t scan = 0
    cdef Http1Limits limits = probe_limits((8192, 16384, 128))
    cdef uint8_t* p = probe_copy(data)
    cdef int outcome = response_parse(p, <uint32_t>len(data), &scan, &limits, method, &head)
    if outcome != HTTP1_OK:
        free(p)
        raise ValueError(f"no response: {http1_reason(outcome).decode()}")
    cache_answer(p, &head, method, ask_flags, &s, asked_ns, got_ns, &out)
    free(p)
    return out


def probe_cache_answer(data: bytes, spec: tuple, uint8_t method=METHOD_GET, uint32_t ask_flags=0, uint64_t asked_ns=0,
                       uint64_t got_ns=0) -> dict:
    """What a response head says: see CacheAnswer."""
    cdef CacheAnswer a = probe_answer(data, method, ask_flags, spec, asked_ns, got_ns)
    return dict(a)


def probe_cache_age(data: bytes, request: bytes, spec: tuple, uint64_t resident_ns, bint calm, uint64_t got_ns=0,
                    stored: tuple | None = None) -> int:
    """AGE_* of a stored response for a request; stored: the spec when it was, where that was another."""
    cdef CacheAnswer a = probe_answer(data, METHOD_GET, 0, stored or spec, got_ns, got_ns)
    cdef CacheAsk ask = probe_ask(request, <int64_t>(got_ns // 1000000000))
    cdef CacheSpec s = probe_cache_spec(spec)
    cache_bound(&a, &s)
    return cache_age(&a, &ask, &s, resident_ns, calm)


def probe_cache_rescues(data: bytes, spec: tuple, uint64_t resident_ns, bint answered, uint64_t got_ns=0) -> bool:
    cdef CacheAnswer a = probe_answer(data, METHOD_GET, 0, spec, got_ns, got_ns)
    cdef CacheSpec s = probe_cache_spec(spec)
    return bool(cache_rescues(&a, &s, resident_ns, answered))


def probe_cache_not_modified(data: bytes, request: bytes, uint64_t got_ns=0) -> bool:
    """Whether a request's conditions are met with 304 by a stored response."""
    cdef ResponseHead head
    cdef CacheAnswer a = probe_answer(data, METHOD_GET, 0, (0, 0, 0, 0, 0), got_ns, got_ns)
    cdef CacheAsk ask = probe_ask(request, <int64_t>(got_ns // 1000000000))
    cdef uint32_t scan = 0
    cdef Http1Limits limits = probe_limits((8192, 16384, 128))
    response_parse(<const uint8_t*><const char*>data, <uint32_t>len(data), &scan, &limits, METHOD_GET, &head)
    return bool(cache_not_modified(<const uint8_t*><const char*>data, head.headers, head.header_count, &a,
                                   <const uint8_t*><const char*>request + ask.none_match.off, ask.none_match.len,
                                   ask.flags & ASK_SINCE != 0, ask.modified_since_s))


def probe_cache_vary(data: bytes):
    """Names in Vary of a response head, or None."""
    cdef ResponseHead head
    cdef uint8_t names[CACHE_VARY_BYTES_MAX]
    cdef uint32_t scan = 0
    cdef Http1Limits limits = probe_limits((8192, 16384, 128))
    response_parse(<const uint8_t*><const char*>data, <uint32_t>len(data), &scan, &limits, METHOD_GET, &head)
    n = cache_vary_names(<const uint8_t*><const char*>data, head.headers, head.header_count, names, CACHE_VARY_BYTES_MAX)
    return None if n < 0 else (<char*>names)[:n]


def probe_cache_strips(name: bytes, bint heeded, bint conditions=True) -> bool:
    """Whether a request field of that name is kept from the origin."""
    return bool(cache_strips(<const uint8_t*><const char*>name, <uint32_t>len(name), heeded, conditions))


def probe_cache_words() -> dict:
    return {"ASK_PASS": ASK_PASS, "ASK_HEAD": ASK_HEAD, "ASK_NO_STORE": ASK_NO_STORE, "ASK_NO_CACHE": ASK_NO_CACHE,
            "ASK_ONLY_IF_CACHED": ASK_ONLY_IF_CACHED, "ASK_CREDENTIALS": ASK_CREDENTIALS, "ASK_RANGE": ASK_RANGE, "ASK_SINCE": ASK_SINCE,
            "ANSWER_PUBLIC": ANSWER_PUBLIC, "ANSWER_REVALIDATE": ANSWER_REVALIDATE, "ANSWER_S_MAXAGE": ANSWER_S_MAXAGE,
            "ANSWER_VARY": ANSWER_VARY, "ANSWER_VALIDATOR": ANSWER_VALIDATOR,
            "STORE_YES": STORE_YES, "STORE_METHOD": STORE_METHOD, "STORE_ASKED": STORE_ASKED, "STORE_STATUS": STORE_STATUS,
            "STORE_NO_STORE": STORE_NO_STORE, "STORE_PRIVATE": STORE_PRIVATE, "STORE_SET_COOKIE": STORE_SET_COOKIE,
            "STORE_VARY": STORE_VARY, "STORE_CREDENTIALS": STORE_CREDENTIALS, "STORE_FRAMING": STORE_FRAMING, "STORE_SIZE": STORE_SIZE,
            "STORE_FRESHNESS": STORE_FRESHNESS, "AGE_FRESH": AGE_FRESH, "AGE_STALE_ALLOWED": AGE_STALE_ALLOWED, "AGE_STALE": AGE_STALE,
            "AGE_NEVER": AGE_NEVER, "CLAIM_MINE": CLAIM_MINE, "CLAIM_TAKEN": CLAIM_TAKEN, "CLAIM_PASS": CLAIM_PASS,
            "CLAIM_RETRY": CLAIM_RETRY, "CLAIM_BUSY": CLAIM_BUSY, "CACHE_HONOUR_NO_CACHE": CACHE_HONOUR_NO_CACHE,
            "CACHE_CHUNK": CACHE_CHUNK, "CACHE_BODY_BYTES_MAX": CACHE_BODY_BYTES_MAX}


def probe_cache_sizes() -> dict:
    return {"CacheHead": sizeof(CacheHead), "CacheEntry": sizeof(CacheEntry), "CacheRecord": sizeof(CacheRecord),
            "CacheSpec": sizeof(CacheSpec), "CacheAnswer": sizeof(CacheAnswer)}


cdef class ProbeCache:
    """The store of a Memory. A key is a number."""
    cdef Memory memory
    cdef Cache* cache
    cdef CacheWriter writer
    cdef uint8_t lead[CACHE_LEAD_BYTES_MAX]

    def __init__(self, Memory memory):
        self.memory = memory
        self.cache = &memory.shared.cache

    @staticmethod
    cdef CacheKey key(uint64_t n) noexcept nogil:
        cdef CacheKey key
        key.a = n * <uint64_t>0x9E3779B97F4A7C15
        key.b = n + 1
        return key

    cdef uint64_t write(self, uint64_t n, const uint8_t* head, uint32_t head_bytes, const uint8_t* body, uint32_t body_bytes,
                        uint32_t area, uint64_t body_id, uint64_t now_ns) noexcept nogil:
        cdef CacheRecord r
        memset(&r, 0, sizeof(r))
        r.kind = CACHE_OBJECT
        r.area = area
        r.epoch = load_u64(&self.cache.head.epochs[area])
        r.key = ProbeCache.key(n)
        r.stored_ns = now_ns
        if not cache_write_begin(self.cache, &self.memory.shared.secret, &self.writer, head_bytes, body_bytes, body_id):
            return 0
        if not cache_write_body(&self.writer, body, body_bytes):
            return 0
        return cache_write_end(&self.writer, &r, head)

    def put(self, uint64_t n, head: bytes, body: bytes, uint32_t area=0, uint64_t claim=0, uint64_t tag=0,
            uint64_t now_ns=1 << 40) -> bool:
        """Write and place. False: too large, or the claim does not hold."""
        cdef CacheKey key = ProbeCache.key(n)
        pos = self.write(n, <const uint8_t*><const char*>head, <uint32_t>len(head), <const uint8_t*><const char*>body,
                         <uint32_t>len(body), area, n + 77, now_ns)
        return bool(pos != 0 and cache_place(self.cache, &key, claim, tag, pos, now_ns))

    def write_only(self, uint64_t n, head: bytes, body: bytes) -> int:
        """As a writer that dies before it places: the position."""
        return self.write(n, <const uint8_t*><const char*>head, <uint32_t>len(head), <const uint8_t*><const char*>body,
                          <uint32_t>len(body), 0, n + 77, 0)

    def write_over(self, uint64_t pos, uint64_t n, uint32_t nbytes) -> None:
        """What lies at a position, byte for byte, where the record of n does: as a writer does that was held up for a round of the log."""
        cdef CacheFound found
        cdef uint64_t last = self.cache.log_bytes - 1
        if not self.find(n, &found) or (pos & last) + nbytes > last or (found.pos & last) + nbytes > last:
            raise ValueError("no such record")
        memmove(self.cache.log + (found.pos & last), self.cache.log + (pos & last), nbytes)

    cdef bint find(self, uint64_t n, CacheFound* found) noexcept nogil:
        cdef CacheKey key = ProbeCache.key(n)
        cdef CacheEntry entry
        if not cache_peek(self.cache, &key, &entry):
            return False
        return cache_read(self.cache, &self.memory.shared.secret, &key, entry.pos, self.lead, found)

    def get(self, uint64_t n):
        """(head, body), or None."""
        cdef CacheFound found
        cdef uint8_t chunk[CACHE_CHUNK]
        cdef int32_t got
        cdef uint32_t i
        if not self.find(n, &found):
            return None
        body = b""
        for i in range((found.record.body_bytes + CACHE_CHUNK - 1) // CACHE_CHUNK):
            got = cache_chunk(self.cache, &self.memory.shared.secret, &found, i, chunk)
            if got < 0:
                return None
            body += (<char*>chunk)[:got]
        return (<char*>found.head)[:found.record.head_bytes], body

    def renew(self, uint64_t n) -> bool:
        cdef CacheFound found
        return bool(self.find(n, &found) and cache_renew(self.cache, &self.memory.shared.secret, &found, &self.writer))

    def is_old(self, uint64_t n) -> bool:
        cdef CacheFound found
        return bool(self.find(n, &found) and cache_is_old(self.cache, found.pos))

    def claim(self, uint64_t n, uint64_t nonce, uint64_t until_ns, uint64_t now_ns, bint eager=False, uint64_t tag=0) -> tuple:
        """(CLAIM_*, the word)."""
        cdef CacheKey key = ProbeCache.key(n)
        word = cache_claim_word(nonce, until_ns)
        return cache_claim(self.cache, &key, word, tag, eager, now_ns), word

    def renew_claim(self, uint64_t n, uint64_t word, uint64_t until_ns):
        """The renewed word, or None."""
        cdef CacheKey key = ProbeCache.key(n)
        return word if cache_claim_renew(self.cache, &key, &word, until_ns) else None

    def release(self, uint64_t n, uint64_t word, uint64_t pass_ns=0, uint64_t retry_ns=0, uint64_t now_ns=1 << 40) -> None:
        cdef CacheKey key = ProbeCache.key(n)
        cache_release(self.cache, &key, word, pass_ns, retry_ns, now_ns)

    def invalidate(self, uint64_t n, uint64_t now_ns=1 << 40) -> None:
        cdef CacheKey key = ProbeCache.key(n)
        cache_invalidate(self.cache, &key, now_ns)

    def purge(self, uint32_t area, uint64_t tag) -> int:
        return cache_purge(self.cache, area, tag, 1 << 40)

    def poke(self, uint64_t n, uint32_t at, uint8_t value) -> None:
        """Overwrite a byte of a key's record, as a stray writer would."""
        cdef CacheKey key = ProbeCache.key(n)
        cdef CacheEntry entry
        if cache_peek(self.cache, &key, &entry):
            self.cache.log[(entry.pos + at) & (self.cache.log_bytes - 1)] ^= value

    def point(self, uint64_t n, uint64_t pos) -> None:
        """Give a key's entry another position, as hostile memory would."""
        cdef CacheKey key = ProbeCache.key(n)
        cdef CacheEntry* e = cache_in(cache_bucket(self.cache, key.a), key.a)
        if e != NULL:
            store_u64(&e.pos, pos)

    @property
    def tail(self) -> int:
        return self.cache.head.tail

    @tail.setter
    def tail(self, uint64_t value):
        self.cache.head.tail = value

    @property
    def log_bytes(self) -> int:
        return self.cache.log_bytes

    @property
    def entries(self) -> int:
        """In use."""
        cdef uint64_t i, n = 0
        for i in range((self.cache.bucket_mask + 1) * CACHE_BUCKET):
            n += load_u64(&self.cache.entries[i].key) != 0
        return n


def probe_race_cache_write(ProbeCache probe, uint64_t rounds, uint64_t keys, uint64_t seed) -> int:
    """Store answers whose every byte follows from key and round, of many sizes. Returns how many were placed."""
    cdef uint8_t body[40000]
    cdef uint8_t head[64]
    cdef CacheKey key
    cdef uint64_t i, n, pos, placed = 0
    cdef uint32_t length
    with nogil:
        for i in range(rounds):
            n = (i * 7 + seed) % keys + 1
            length = <uint32_t>((i * 1000003 + seed * 977) % 40000)
            memset(body, <int>((n + i) & 0xFF), length)
            memset(head, <int>((n + i) & 0xFF), 64)
            pos = probe.write(n, head, 64, body, length, 0, siphash_pair(&probe.memory.shared.secret, seed, i), <uint64_t>1 << 40)
            key = ProbeCache.key(n)
            if pos and cache_place(probe.cache, &key, 0, 0, pos, <uint64_t>1 << 40):
                placed += 1
    return placed


def probe_race_cache_read(ProbeCache probe, uint64_t rounds, uint64_t keys) -> tuple:
    """Read while others write. (whole answers, answers with a byte that is not theirs, those that went while they were read)."""
    cdef CacheFound found
    cdef uint8_t chunk[CACHE_CHUNK]
    cdef uint64_t i, whole = 0, torn = 0, gone = 0
    cdef uint32_t k, j
    cdef int32_t got
    cdef bint sound
    with nogil:
        for i in range(rounds):
            if not probe.find(i % keys + 1, &found):
                continue
            sound = True
            for k in range((found.record.body_bytes + CACHE_CHUNK - 1) / CACHE_CHUNK):
                got = cache_chunk(probe.cache, &probe.memory.shared.secret, &found, k, chunk)
                if got < 0:
                    sound = False
                    break
                for j in range(<uint32_t>got):
                    if chunk[j] != found.head[0]:
                        torn += 1
                        break
            if sound:
                whole += 1
            else:
                gone += 1
    return whole, torn, gone


def probe_race_cache_claim(ProbeCache probe, ProbeTable meeting, uint64_t parties, uint64_t keys, uint64_t nonce) -> int:
    """All parties claim each key at once. How many were this one's; -1: a party is missing."""
    cdef uint64_t n, mine = 0
    cdef CacheKey key
    with nogil:
        for n in range(1, keys + 1):
            if not race_meet(<uint64_t*>meeting.view.buf, parties, n):
                with gil:
                    return -1
            key = ProbeCache.key(n)
            if cache_claim(probe.cache, &key, cache_claim_word(nonce, <uint64_t>3 << 39), 0, False, <uint64_t>1 << 40) == CLAIM_MINE:
                mine += 1
    return mine
