# Known clients: who was here and well-behaved before a rush. Area-wide limits shed newcomers first; nobody becomes known during one.
cdef struct KnownEntry:         # 64 bytes
    uint64_t key                # keyed hash over (area, client) or (area, fingerprint)
    uint64_t first_ns
    uint64_t last_ns
    uint64_t known_ns           # when it became known; 0: newcomer
    uint32_t good               # requests that were within every limit
    uint32_t bad                # requests that were not
    uint16_t faces[3]           # short hashes of fingerprints or accounts seen healthy on this client
    uint8_t faces_good[3]       # how often each (saturating)
    uint8_t flags               # KNOWN_BLOCKED: counted in AreaState.known_blocked
    uint64_t reserved

cdef struct Known:
    KnownEntry* entries
    uint64_t bucket_mask

cdef enum:
    KNOWN_AFTER_NS = 3000000000         # first to last request before a client may become known
    KNOWN_REQUESTS = 8                  # good requests before it may
    KNOWN_TTL_NS = 86400000000000       # forgotten after a day away
    RUSH_CALM_NS = 30000000000          # a rush is over when area limits have not shed for this long
    FACES_SHARED = 3                    # healthy faces that make an address a shared one (CGNAT, office)
    FACE_REQUESTS = 8                   # good requests before a face counts as healthy

cdef bint known_is(Known* t, uint64_t key, uint64_t now_ns) noexcept nogil
# A client that is shared by at least FACES_SHARED healthy faces.
cdef bint known_shared(Known* t, uint64_t key, uint64_t now_ns) noexcept nogil
# After each request. good: within every limit. face: short hash of account or fingerprint, 0 for none.
cdef void known_note(Known* t, AreaState* area, uint64_t key, uint16_t face, bint good, uint64_t now_ns) noexcept nogil
# Area-wide limits shed a newcomer now.
cdef void rush_note(AreaState* area, uint64_t now_ns) noexcept nogil
cdef bint rush_is(const AreaState* area, uint64_t now_ns) noexcept nogil
