# Known clients: who was here and well-behaved before a rush. Area-wide limits shed newcomers first; nobody becomes known during one.
#  - known: KNOWN_REQUESTS good requests, KNOWN_AFTER_NS from first to last, at most a tenth as many bad ones, no rush, and none of that
#    time within one: who came first during a rush starts anew when it is over.
#  - bad above a tenth of good: known no more, starts anew; but it was seen healthy, and stays among those whose blocks are limited
#    (clients_share_max): else a rule that is too strict would first make people unknown and then block them all. good and bad halve
#    at KNOWN_HISTORY, so that no past buys more than about 100 bad ones.
#  - a bucket is full: expired and uncounted first, then the newcomer seen longest ago. A known client goes only outside a rush and after
#    KNOWN_IDLE_NS away, a fingerprint that clients have only after KNOWN_TTL_NS; else the new one is not recorded.
cdef struct AreaState

cdef struct KnownEntry:         # 64 bytes
    uint64_t key                # known_key() of a client or a fingerprint; 0: empty
    uint64_t first_ns
    uint64_t last_ns
    uint64_t known_ns           # when it became known; 0: newcomer
    uint64_t counted_key        # fingerprint entry that counts this client; 0: none
    uint32_t good               # requests that were within every limit; of a fingerprint: known clients that have it
    uint16_t bad                # requests that were not
    uint16_t area               # index of its AreaState
    uint32_t lock               # of the bucket; used in a bucket's first entry
    uint16_t faces[3]           # short hashes of fingerprints or accounts seen healthy on this client
    uint8_t faces_good[3]       # how often each (saturating)
    uint8_t flags               # KNOWN_*

cdef struct Known:
    KnownEntry* entries
    uint64_t bucket_mask
    AreaState* areas            # AREAS_MAX of them: whose totals change when an entry of another area goes

cdef enum:
    KNOWN_AFTER_NS = 3000000000         # first to last request before a client may become known
    KNOWN_REQUESTS = 8                  # good requests before it may
    KNOWN_HISTORY = 1024                # good requests at which good and bad are halved
    KNOWN_TTL_NS = 86400000000000       # forgotten after a day away
    KNOWN_IDLE_NS = 3600000000000       # away for so long, a known client may be displaced by a new one
    RUSH_CALM_NS = 30000000000          # a rush is over when area limits have not shed for this long
    FACES_SHARED = 3                    # healthy faces that make an address a shared one (CGNAT, office)
    FACE_REQUESTS = 8                   # good requests before a face counts as healthy
    FINGERPRINT_SHARED_PPM = 1000       # 0.1 % of known clients: no block by such a fingerprint

    KNOWN_FINGERPRINT = 1               # flags: the entry counts clients, it is none
    KNOWN_LOST = 2                      # was known, misbehaved since: no newcomer to proportion

# Keys of this table. hashed: address_key() of a client, or a fingerprint.
cdef uint64_t known_key(const HashKey* secret, uint32_t area, uint64_t hashed) noexcept nogil
cdef uint64_t known_fingerprint_key(const HashKey* secret, uint32_t area, uint64_t fingerprint) noexcept nogil

cdef bint known_is(Known* t, uint64_t key, uint64_t now_ns) noexcept nogil
# A client that is shared by at least FACES_SHARED healthy faces.
cdef bint known_shared(Known* t, uint64_t key, uint64_t now_ns) noexcept nogil
# After each request. good: within every limit. face: short hash of account or fingerprint, 0 for none.
# area must be one of t.areas.
cdef void known_note(Known* t, AreaState* area, uint64_t key, uint16_t face, bint good, uint64_t now_ns) noexcept nogil
# After known_note of a good request: count a known client under its fingerprint, once for as long as it is known.
cdef void known_note_fingerprint(Known* t, AreaState* area, uint64_t key, uint64_t fingerprint_key, uint64_t now_ns) noexcept nogil
# Known clients that have this fingerprint; whether that is FINGERPRINT_SHARED_PPM of all known ones or more (no clients: not shared).
cdef uint32_t known_fingerprint_clients(Known* t, uint64_t fingerprint_key) noexcept nogil
cdef bint known_fingerprint_shared(Known* t, const AreaState* area, uint64_t fingerprint_key) noexcept nogil
# Seen healthy: known, or known until it misbehaved.
cdef bint known_was(Known* t, uint64_t key, uint64_t now_ns) noexcept nogil
# Would one block more on this client stay within share_ppm of the clients seen healthy? True for who never was.
cdef bint known_block_allowed(Known* t, const AreaState* area, uint64_t key, uint64_t share_ppm, uint64_t now_ns) noexcept nogil
# A block on this client began (BLOCK_NEW) or was lifted: keeps AreaState.known_blocked; who was never seen healthy changes nothing.
# Blocks that run out are taken off by memory_sweep, which counts anew.
cdef void known_mark_blocked(Known* t, AreaState* area, uint64_t key, bint blocked, uint64_t now_ns) noexcept nogil
# Forget what expired among count entries from entry number at (wraps); the entry to go on from. Called by the supervisor, piece by piece.
cdef uint64_t known_sweep(Known* t, uint64_t at, uint64_t count, uint64_t now_ns) noexcept nogil
# Area-wide limits shed a newcomer now.
cdef void rush_note(AreaState* area, uint64_t now_ns) noexcept nogil
cdef bint rush_is(const AreaState* area, uint64_t now_ns) noexcept nogil
