# Latency buckets. Owns their bounds: bucket i holds times up to 64 us * 2^(i/4), rounded down to 1 ns; the last one all that is longer.

cdef uint64_t[4] QUARTERS       # 64 us * 2^(k/4), times 65536
QUARTERS[0] = 4194304000
QUARTERS[1] = 4987896159
QUARTERS[2] = 5931641601
QUARTERS[3] = 7053950396


cdef uint64_t latency_bound_ns(uint32_t bucket) noexcept nogil:
    return (QUARTERS[bucket & 3] << (bucket >> 2)) >> 16


cdef uint32_t latency_bucket(uint64_t ns) noexcept nogil:
    cdef uint32_t low = 0, high = LATENCY_BUCKETS - 1, middle
    while low < high:
        middle = (low + high) >> 1
        if ns <= latency_bound_ns(middle):
            high = middle
        else:
            low = middle + 1
    return low


def latency_bounds_ns() -> tuple:
    """Upper bounds of the latency buckets in ns, without the last one, which has none."""
    return tuple(latency_bound_ns(i) for i in range(LATENCY_BUCKETS - 1))
