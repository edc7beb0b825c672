# A 32-bit lock word in shared memory, for the few nanoseconds that an entry changes. 0: free; else when it was taken (about 1 us a step).
# A lock whose owner died is broken after LOCK_STALE_NS. Nobody waits longer than LOCK_SPINS pauses: who does not get it goes on without.
cdef enum:
    LOCK_STALE_NS = 5000000     # 5 ms
    LOCK_SPINS = 256

# mine: what to give back with. False: it could not be had.
cdef bint lock_take(uint32_t* lock, uint64_t now_ns, uint32_t* mine) noexcept nogil
# Does nothing where the lock was broken meanwhile.
cdef void lock_give(uint32_t* lock, uint32_t mine) noexcept nogil
