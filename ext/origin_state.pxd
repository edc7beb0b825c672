# What workers and supervisor know of each origin: the region ORIGINS, an entry a slot, one cache line. The supervisor writes health and
# drain, workers write failures and ejections. An entry is about the origin whose key it carries; another's counts as none.
cdef enum:
    ORIGIN_HEALTH_UNKNOWN = 0
    ORIGIN_HEALTH_UP = 1
    ORIGIN_HEALTH_DOWN = 2

    STANDING_GOOD = 0
    STANDING_BACKUP = 1         # good, for when no other is
    STANDING_OUT = 2            # found down, or ejected: taken only when all are
    STANDING_DRAINED = 3        # takes nothing new

    EJECTIONS_MAX = 20          # doublings

cdef struct OriginState:
    uint64_t key                # OriginSpec.key
    uint64_t health             # ORIGIN_HEALTH_*
    uint64_t health_since_ns
    uint64_t since_ns           # it serves since then; 0: long ago
    uint64_t ejected_until_ns
    uint64_t failures           # connects in a row that failed
    uint64_t ejections          # in a row
    uint64_t drained

# The state of an origin; NULL: nobody has said anything about it.
cdef OriginState* origin_state(OriginState* all, const OriginSpec* o) noexcept nogil
# STANDING_*
cdef uint32_t origin_standing(const PoolSpec* pool, const OriginSpec* o, const OriginState* s, uint64_t now_ns) noexcept nogil
cdef uint32_t origin_weight(const PoolSpec* pool, const OriginSpec* o, const OriginState* s, uint64_t now_ns) noexcept nogil
cdef void origin_worked(const PoolSpec* pool, OriginState* s, uint64_t now_ns) noexcept nogil
# Its ejection, if there is one, ends now.
cdef void origin_readmit(const PoolSpec* pool, OriginState* s, uint64_t now_ns) noexcept nogil
# A connect failed. True: this put it out. `others`: another origin of the pool is there to take its place.
cdef bint origin_failed_once(const PoolSpec* pool, OriginState* s, bint others, uint64_t now_ns) noexcept nogil
