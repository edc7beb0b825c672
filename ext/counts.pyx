# Counts by key. Owns the cells behind each worker's gauges.
# Invariants: a worker writes only its own slot, so nothing is locked; a sum looks at one bucket a worker; a cell with count 0 is free.

cdef inline CountCell* counts_bucket(Shared* s, uint32_t worker, uint64_t key) noexcept nogil:
    return <CountCell*>(s.gauges[worker] + 1) + (key & s.count_mask) * COUNTS_BUCKET


cdef inline CountCell* counts_find(CountCell* bucket, uint64_t key) noexcept nogil:
    cdef int i
    for i in range(COUNTS_BUCKET):
        if load_u64(&bucket[i].key) == key:
            return &bucket[i]
    return NULL


cdef inline CountCell* counts_take(CountCell* bucket, uint64_t key) noexcept nogil:
    cdef int i
    for i in range(COUNTS_BUCKET):
        if load_u64(&bucket[i].key) == 0 or load_u32(&bucket[i].count) == 0:
            store_u32(&bucket[i].count, 0)
            store_u64(&bucket[i].key, key)
            return &bucket[i]
    return NULL


cdef uint32_t counts_sum(Shared* s, uint64_t key) noexcept nogil:
    cdef CountCell* cell
    cdef uint64_t total = 0
    cdef uint32_t worker
    if key == 0:
        key = 1
    for worker in range(s.workers):
        cell = counts_find(counts_bucket(s, worker, key), key)
        if cell != NULL:
            total += load_u32(&cell.count)
    return <uint32_t>total if total < COUNTS_FULL else COUNTS_FULL - 1


cdef uint32_t counts_add(Shared* s, uint64_t key, int32_t delta) noexcept nogil:
    cdef CountCell* bucket
    cdef CountCell* cell
    cdef int64_t count
    if key == 0:
        key = 1
    if s.slot >= 0 and delta != 0:
        bucket = counts_bucket(s, <uint32_t>s.slot, key)
        cell = counts_find(bucket, key)
        if cell == NULL and delta > 0:
            cell = counts_take(bucket, key)
            if cell == NULL:
                return COUNTS_FULL
        if cell != NULL:
            count = <int64_t>load_u32(&cell.count) + delta
            store_u32(&cell.count, <uint32_t>(0 if count < 0 else count if count < COUNTS_FULL else COUNTS_FULL - 1))
            # Seen by all before we look at theirs: else two that come at once miss each other, and both pass a limit with room for one.
            fence_full()
    return counts_sum(s, key)
