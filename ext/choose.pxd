# The origin for a request: who of its pool may serve, who has a place, whose turn it is.
cdef enum:
    CHOICE_TAKE = 0
    CHOICE_FULL = 1             # all that may serve are full; out: the only one that may, or NULL
    CHOICE_NONE = 2             # nobody may
    CHOICE_DRAINED = 3          # nobody may, because an operator says so

cdef int origin_choose(Core* e, Exchange* x, const OriginSpec** out) noexcept nogil
# Requests of this origin in flight, over all workers.
cdef uint64_t origin_load(Core* e, const OriginSpec* o) noexcept nogil
# As many requests as this worker may have there, those promised a place included. Idle connections are no hindrance: they give way.
cdef bint origin_full(Core* e, const OriginSpec* o) noexcept nogil
# What hashing goes by: the client, or the header that the pool names (the client where it is missing). Keyed: nobody can aim at an origin.
cdef uint64_t balance_key(Core* e, const PoolSpec* pool, const Facts* f) noexcept nogil
# Another origin of the pool than this one could serve right now.
cdef bint origin_others(Core* e, const Policy* p, const PoolSpec* pool, const OriginSpec* but) noexcept nogil
# Whoever was ejected from the pool is a candidate like any other again.
cdef void origins_readmit(Core* e, const Policy* p, const PoolSpec* pool) noexcept nogil
# An operator has drained the area.
cdef bint area_drained(Core* e, const AreaSpec* area) noexcept nogil
