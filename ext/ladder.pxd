# Ladder state: (rule, key) -> rung, since, last. How a source climbs and comes down is defined here and nowhere else.
#  - over the limit, no state or calm since calm_ns: rung 0.
#  - over the limit again, rung held for its time: one rung up (a rung that is not available is passed over in place: the measure stays
#    the one below for that rung's time).
#  - under the limit for calm_ns: the state is forgotten.
cdef struct LadderEntry:        # 32 bytes
    uint64_t key                # 0: empty
    uint64_t since_ns           # when this rung was reached
    uint64_t last_ns            # last time over the limit
    uint32_t rung
    uint32_t lock               # a worker that is changing the entry; broken after LADDER_LOCK_NS (its owner died)

cdef struct Ladder:
    LadderEntry* entries
    uint64_t bucket_mask

cdef struct LadderStep:
    int32_t rung                # rung the source stands on, -1: none
    bint entered                # this call brought it there
    int32_t skipped             # rung passed over because it is not available, -1: none (recorded by the caller when entered)

# hold_ns[i]: how long rung i holds before the next; available bit i: rung i can be applied here.
cdef void ladder_over(Ladder* t, uint64_t key, const uint64_t* hold_ns, uint32_t rungs, uint32_t available,
                      uint64_t calm_ns, uint64_t now_ns, LadderStep* out) noexcept nogil
# Under the limit now: the rung it still stands on (within calm_ns of its last excess), or -1.
cdef void ladder_under(Ladder* t, uint64_t key, const uint64_t* hold_ns, uint32_t rungs, uint32_t available,
                       uint64_t calm_ns, uint64_t now_ns, LadderStep* out) noexcept nogil
