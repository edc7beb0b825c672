# Stored answers in memory that all workers share: a log that is written round and round, and an index of keys into it.
#  - a record (an answer, or the names its resource varies by) is written in one go into a run of the log that was reserved by one swap of
#    `tail`, and found only once its entry in the index says where: nobody sees half of one, and who dies while writing leaves nothing to
#    clean up. What is overwritten is the oldest; what is asked for is written anew before its turn comes (cache_is_old).
#  - a reader copies and checks what it copied: head, sizes and lead by one keyed check, the body by one for each chunk. So neither a writer
#    that was held up for a whole round of the log nor hostile memory can put one answer's bytes into another.
#  - an entry also says who is fetching its key (a claim, that lapses unless it is renewed) and for how long nobody need wait for it.
cdef enum:
    CACHE_BYTES_MIN = 65536
    CACHE_BYTES_ENTRY = 1024    # of the log, an entry of the index
    CACHE_BUCKET = 4
    CACHE_ALIGN = 64
    CACHE_CHUNK = 16384         # of a body, under one check
    CACHE_CHUNKS_MAX = 64       # 1 MiB
    CACHE_BODY_BYTES_MAX = 1048576
    CACHE_LEAD_BYTES_MAX = 17024   # record, checks, a head of HEAD_BYTES_MAX
    CACHE_META_BYTES = 64

    CACHE_OBJECT = 1            # an answer
    CACHE_VARY = 2              # head: names of request fields; body_id: their version, part of the keys below it

    CLAIM_MINE = 0
    CLAIM_TAKEN = 1             # another one is fetching
    CLAIM_PASS = 2              # not worth waiting for: its answers were not to be stored
    CLAIM_RETRY = 3             # the origin failed a moment ago
    CLAIM_BUSY = 4              # no place in the index, or its lock was not to be had

cdef struct CacheKey:
    uint64_t a                  # where it is found
    uint64_t b                  # and whether it is the one

cdef struct CacheHead:          # first page of the region
    uint64_t tail               # position behind the last record; only grows. A position's place in the log is its low bits
    uint64_t sequence           # grows when something was stored or a claim given up: who waits looks again
    uint64_t reserved[6]
    uint64_t epochs[256]        # AREAS_MAX; records of an older one are void (purged)

cdef struct CacheEntry:         # 64 bytes
    uint64_t key                # CacheKey.a; 0: free
    uint64_t pos                # of its record; 0: none
    uint64_t tag                # of the URL as the client knows it, for purge
    uint64_t claim              # when it lapses (in 2^20 ns) << 16 | nonce; 0: nobody fetches
    uint64_t pass_ns            # until then nobody waits
    uint64_t retry_ns           # until then nobody asks the origin, if there is something stale to give
    uint32_t lock               # of the bucket; used in a bucket's first entry
    uint32_t reserved
    uint64_t pad

cdef struct CacheRecord:        # 128 bytes; then the chunks' checks, the head, the body
    uint64_t check              # keyed, over all from here to the body
    uint32_t kind
    uint32_t area
    uint32_t head_bytes
    uint32_t body_bytes
    uint64_t epoch
    CacheKey key
    uint64_t body_id            # of the body; kept when the record is written anew, or freshened
    uint64_t stored_ns          # monotonic
    uint8_t meta[64]            # CACHE_META_BYTES: the caller's

cdef struct Cache:
    CacheHead* head
    CacheEntry* entries
    uint64_t bucket_mask
    uint8_t* log
    uint64_t log_bytes          # a power of two; 0: no cache

cdef struct CacheFound:         # a record that was read whole; pointers into the caller's lead
    uint64_t pos
    CacheRecord record
    const uint64_t* checks
    uint8_t* head

cdef struct CacheWriter:
    uint8_t* at                 # of the record in the log
    uint64_t pos
    uint32_t head_bytes
    uint32_t body_bytes
    uint32_t written            # of the body
    uint32_t held               # in chunk
    uint64_t body_id
    HashKey secret
    uint64_t checks[64]
    uint8_t chunk[16384]

cdef uint64_t cache_entries(uint64_t log_bytes) noexcept nogil
# Index and log of a region of that many bytes of log, from its payload.
cdef void cache_map(Cache* c, uint8_t* payload, uint64_t log_bytes) noexcept nogil

# What the index says of a key, copied. False: nothing.
cdef bint cache_peek(const Cache* c, const CacheKey* key, CacheEntry* out) noexcept nogil
# The record of a key. lead: CACHE_LEAD_BYTES_MAX bytes of the caller's. False: there is none, or it is not what it should be.
cdef bint cache_read(const Cache* c, const HashKey* secret, const CacheKey* key, uint64_t pos, uint8_t* lead,
                     CacheFound* out) noexcept nogil
# Chunk i of the body, checked, into out[CACHE_CHUNK]; bytes, -1: gone.
cdef int32_t cache_chunk(const Cache* c, const HashKey* secret, const CacheFound* f, uint32_t i, uint8_t* out) noexcept nogil
# Its turn to be overwritten comes soon.
cdef bint cache_is_old(const Cache* c, uint64_t pos) noexcept nogil
# Write a record anew at the log's end, where its entry still means it; out is changed to the new place. False: it stays where it is.
cdef bint cache_renew(Cache* c, const HashKey* secret, CacheFound* f, CacheWriter* w) noexcept nogil

# A run of the log for a record. False: larger than an eighth of the log, or than any body may be.
cdef bint cache_write_begin(Cache* c, const HashKey* secret, CacheWriter* w, uint32_t head_bytes, uint32_t body_bytes,
                            uint64_t body_id) noexcept nogil
cdef bint cache_write_body(CacheWriter* w, const uint8_t* data, uint64_t n) noexcept nogil
# r: kind, area, epoch, key, stored_ns, meta are the caller's, the rest is filled here. Its position; 0: the body is not whole.
cdef uint64_t cache_write_end(CacheWriter* w, CacheRecord* r, const uint8_t* head) noexcept nogil

# A claim's word: nonce and when it lapses.
cdef uint64_t cache_claim_word(uint64_t nonce, uint64_t until_ns) noexcept nogil
# Become the one who fetches a key. CLAIM_*. tag: a purge of that reaches the fetch. eager: do not stop at pass or retry.
cdef int cache_claim(Cache* c, const CacheKey* key, uint64_t claim, uint64_t tag, bint eager, uint64_t now_ns) noexcept nogil
# False: it lapsed, or the key was invalidated meanwhile. claim is changed to the renewed word.
cdef bint cache_claim_renew(Cache* c, const CacheKey* key, uint64_t* claim, uint64_t until_ns) noexcept nogil
# Give a claim up; nothing was stored. 0: leave as it is.
cdef void cache_release(Cache* c, const CacheKey* key, uint64_t claim, uint64_t pass_ns, uint64_t retry_ns, uint64_t now_ns) noexcept nogil
# From now on the key's record is at pos. claim: only where it still holds, and it ends with this; 0: whoever fetches.
cdef bint cache_place(Cache* c, const CacheKey* key, uint64_t claim, uint64_t tag, uint64_t pos, uint64_t now_ns) noexcept nogil
# Forget a key; a fetch in flight will not be stored.
cdef void cache_invalidate(Cache* c, const CacheKey* key, uint64_t now_ns) noexcept nogil
# Forget all of an area, or what has this tag (0: all); how many entries.
cdef uint64_t cache_purge(Cache* c, uint32_t area, uint64_t tag, uint64_t now_ns) noexcept nogil
