# Owns how a lock word is read. Invariants: bounded work; a stamp far from now, past or future, is a dead owner's or a hostile number.

cdef inline uint32_t lock_stamp(uint64_t now_ns) noexcept nogil:
    return <uint32_t>(now_ns >> 10) | 1


cdef bint lock_take(uint32_t* lock, uint64_t now_ns, uint32_t* mine) noexcept nogil:
    cdef uint32_t seen, apart
    cdef int _tries
    mine[0] = lock_stamp(now_ns)
    for _tries in range(LOCK_SPINS):
        seen = load_u32(lock)
        apart = mine[0] - seen
        if apart > 0x7FFFFFFF:
            apart = -apart
        # Workers read their clocks once a pass: stamps of living owners differ by a pass, never by much more.
        if (seen == 0 or apart > (LOCK_STALE_NS >> 10)) and cas_u32(lock, seen, mine[0]):
            return True
        spin_pause()
    return False


cdef void lock_give(uint32_t* lock, uint32_t mine) noexcept nogil:
    cas_u32(lock, mine, 0)
