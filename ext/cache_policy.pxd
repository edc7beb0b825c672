# What HTTP says of caching (RFC 9111, 9110 13, 5861), of a shared cache: heads and times in, decisions out. Knows no socket, no store.
cdef enum:
    # CacheAsk.flags: what a request wants.
    ASK_PASS = 1                # not for a cache: another method, a body, an upgrade that the area lets through
    ASK_HEAD = 2
    ASK_NO_STORE = 4
    ASK_NO_CACHE = 8
    ASK_ONLY_IF_CACHED = 16
    ASK_CREDENTIALS = 32        # Authorization, Cookie, the area's account: only answers that say public (stricter than the RFC)
    ASK_RANGE = 64
    ASK_SINCE = 128             # modified_since_s is a time

    # CacheAnswer.flags: what an answer allows. Kept with the stored answer.
    ANSWER_PUBLIC = 1
    ANSWER_REVALIDATE = 2       # must-revalidate or proxy-revalidate: never stale
    ANSWER_S_MAXAGE = 4         # implies proxy-revalidate (RFC 9111 5.2.2.10): stale only by what the answer itself allows
    ANSWER_VARY = 8
    ANSWER_VALIDATOR = 16       # ETag or Last-Modified

    # Whether an answer may be stored, and what stands against it.
    STORE_YES = 0
    STORE_METHOD = 1
    STORE_ASKED = 2             # the request said no-store
    STORE_STATUS = 3
    STORE_NO_STORE = 4
    STORE_PRIVATE = 5
    STORE_SET_COOKIE = 6
    STORE_VARY = 7              # Vary: *, or more names than we keep
    STORE_CREDENTIALS = 8
    STORE_FRAMING = 9           # its end is the connection's, or is not known to be whole
    STORE_SIZE = 10
    STORE_FRESHNESS = 11        # no freshness, or none left
    STORE_REASONS = 12

    # How fresh a stored answer is, for one request.
    AGE_FRESH = 0
    AGE_STALE_ALLOWED = 1       # may be given at once, while one request asks the origin
    AGE_STALE = 2               # the origin has to be asked; CacheAnswer may still allow it when that fails (cache_rescues)
    AGE_NEVER = 3               # and this one may not be given stale at all

    CACHE_VARY_BYTES_MAX = 256  # of the names in Vary
    CACHE_SECONDS_MAX = 0x7FFFFFFF

cdef struct CacheAsk:
    uint32_t flags
    uint32_t max_age_s          # CACHE_SECONDS_MAX: none
    uint32_t min_fresh_s
    uint32_t max_stale_s        # 0: none, CACHE_SECONDS_MAX: any
    int64_t modified_since_s    # with ASK_SINCE, Unix time
    Span none_match             # of the only If-None-Match; len 0: none

cdef struct CacheAnswer:
    uint32_t flags
    uint32_t store              # STORE_*
    uint64_t lifetime_ns        # freshness_lifetime, at most the area's ttl_max
    uint64_t initial_age_ns     # corrected_initial_age: when the answer was stored
    uint64_t while_revalidate_ns
    uint64_t if_error_ns
    int64_t modified_s          # Last-Modified; -1: none

# RFC 9110 5.6.7: all three forms. now_s: for two-digit years. False: not a date.
cdef bint http_date_parse(const uint8_t* text, uint32_t length, int64_t now_s, int64_t* out) noexcept nogil
# account: name of the field that says whose request it is, where that is neither Authorization nor Cookie; length 0: none.
cdef void cache_ask(const uint8_t* data, const RequestHead* head, const uint8_t* account, uint32_t account_len, int64_t now_s,
                    CacheAsk* out) noexcept nogil
# asked_wall_ns, got_wall_ns: when the request went out and its answer's head was there.
cdef void cache_answer(const uint8_t* data, const ResponseHead* head, uint8_t method, uint32_t ask_flags, const CacheSpec* spec,
                       uint64_t asked_wall_ns, uint64_t got_wall_ns, CacheAnswer* out) noexcept nogil
# At most the area's ttl_max, which may be shorter now than when it was stored.
cdef void cache_bound(CacheAnswer* a, const CacheSpec* spec) noexcept nogil
# resident_ns: since it was stored. calm: the origin is not known to be in distress. AGE_*.
cdef int cache_age(const CacheAnswer* a, const CacheAsk* ask, const CacheSpec* spec, uint64_t resident_ns, bint calm) noexcept nogil
# The origin failed: may this stored answer stand in? answered: it did answer, with a 5xx (then stale-if-error alone counts).
cdef bint cache_rescues(const CacheAnswer* a, const CacheSpec* spec, uint64_t resident_ns, bint answered) noexcept nogil
# A 304 would do (RFC 9110 13.2.2): headers are those of the stored answer.
cdef bint cache_not_modified(const uint8_t* data, const Header* headers, uint32_t count, const CacheAnswer* a, const uint8_t* none_match,
                             uint32_t none_match_len, bint since, int64_t modified_since_s) noexcept nogil
# Names in Vary, lower case, comma-separated, sorted as they came, repeats left out, into out[cap]; -1: "*", not a list of names, too long.
cdef int32_t cache_vary_names(const uint8_t* data, const Header* headers, uint32_t count, uint8_t* out, uint32_t cap) noexcept nogil
# Fields of a request that must not reach the origin when its answer may be given to others: its conditions and expectations, what speaks
# of a body that it has not, and fields that some origins take for the request's own target, host or method (cache poisoning by what is
# not in the key). Those that we write ourselves stay.
# heeded: what the client says of caching goes on to the origin.
cdef bint cache_strips(const uint8_t* name, uint32_t length, bint heeded, bint conditions) noexcept nogil
