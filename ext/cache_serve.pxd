# The cache in the engine: step 6 for what is kept, and what the origin's answers leave behind. Three files: cache_head.pyx (the request's
# head as the origin will see it: keys, what is left out of it), cache_serve.pyx (looking up, waiting, giving), cache_fetch.pyx (keeping).

# What the request wants of the cache; the head for the origin is built. Sets x.cache.state where the cache has a part in it.
cdef void cache_consider(Core* e, Exchange* x, const Facts* f) noexcept nogil
# True: answered from what is kept, or waiting for another's fetch; False: on to the origin.
cdef bint cache_open(Core* e, Exchange* x) noexcept nogil
# The one it waits for may be done.
cdef void cache_wake(Core* e, Exchange* x) noexcept nogil
# Give on of what is kept, as far as the client goes along.
cdef void cache_pump(Core* e, Exchange* x) noexcept nogil
# The origin's final head is in e.response (n bytes of body came with it). True: it was not for the client; all is done here.
cdef bint cache_take(Core* e, Exchange* x, const uint8_t* data, uint32_t n) noexcept nogil
# Bytes of an answer that is being put together. False: the client is not given them now.
cdef bint cache_fill(Core* e, Exchange* x, const uint8_t* data, uint32_t n) noexcept nogil
# The answer is whole. True: the client is given the rest from what was kept, the origin's connection is given back.
cdef bint cache_finish(Core* e, Exchange* x) noexcept nogil
# The origin failed (answered: with a 5xx of its own): True where something kept stands in for it.
cdef bint cache_rescue(Core* e, Exchange* x, bint answered) noexcept nogil
cdef void cache_end(Core* e, Exchange* x) noexcept nogil
# Claims renewed; those who waited long enough are looked at.
cdef void cache_tick(Core* e) noexcept nogil
# Whoever waits for something that changed is looked at again.
cdef void cache_look_through(Core* e, bint everybody) noexcept nogil
# The method that the origin is asked with.
cdef uint8_t origin_method(const Exchange* x) noexcept nogil
# The head as sent is still of use: what an answer varies by is read in it.
cdef bint cache_needs_head(const Exchange* x) noexcept nogil
# Age and Cache-Status of the answer being written.
cdef void put_cache(Writer* w, const Exchange* x) noexcept nogil
cdef void cache_count(AreaTotals* t, const Exchange* x) noexcept nogil
cdef const char* cache_word(uint8_t said) noexcept nogil
# Keys of a URL; for purge (memory.pyx) and for what a request asks for.
cdef uint64_t cache_tag(const HashKey* secret, uint32_t area, const uint8_t* authority, uint32_t authority_len, const uint8_t* target,
                        uint32_t target_len) noexcept nogil

# cache_head.pyx
cdef void head_key(Core* e, Exchange* x, CacheKey* out) noexcept nogil
cdef void head_vary_key(Core* e, Exchange* x, const uint8_t* names, uint32_t names_len, uint64_t version, CacheKey* out) noexcept nogil
cdef void head_clean(Exchange* x, bint conditions) noexcept nogil
cdef void head_as_get(Exchange* x) noexcept nogil
cdef bint head_add(Buffer* b, const char* name, const uint8_t* value, uint32_t length) noexcept nogil
# cache_serve.pyx
cdef bint cache_look(Core* e, Exchange* x, CacheFound* found, CacheEntry* entry) noexcept nogil
cdef bint cache_give(Core* e, Exchange* x, const CacheFound* found, uint8_t said) noexcept nogil
cdef void cache_listed(Core* e, Exchange* x, Exchange** list_head) noexcept nogil
cdef void cache_unlisted(Core* e, Exchange* x) noexcept nogil
# cache_fetch.pyx
cdef void fetch_begin(Core* e, Exchange* x, uint64_t claim) noexcept nogil
cdef void fetch_release(Core* e, Exchange* x, uint64_t pass_ns, uint64_t retry_ns) noexcept nogil
