# One ring a worker. Owns how records lie in it and when they become visible.
# Invariants: the producer never overwrites what was not read; nothing is read beyond the head; each side takes the other's numbers as
# hostile: an impossible tail is a full ring to the producer, an impossible head or record makes the consumer skip to the head.

cdef inline uint64_t record_bytes(uint32_t length) noexcept nogil:
    return 8 + ((<uint64_t>length + 7) & ~<uint64_t>7)


# Aligned whatever was written there: a worker that takes over a slot goes on from the number it finds.
cdef inline uint64_t ring_head(const Ring* r) noexcept nogil:
    return load_u64(&r.header.head) & ~<uint64_t>7


# Where byte number at lies: 8-byte aligned, so a record's header never wraps, whatever was written there.
cdef inline uint64_t ring_at(const Ring* r, uint64_t at) noexcept nogil:
    return at & (r.size - 1) & ~<uint64_t>7


cdef bint ring_has_room(const Ring* r, uint32_t kind, uint32_t length) noexcept nogil:
    cdef uint64_t used = ring_head(r) - load_u64(&r.header.tail)
    cdef uint64_t need = record_bytes(length)
    if length > RECORD_BYTES_MAX or used > r.size:
        return False
    if kind != RECORD_ACT:
        need += RING_ACTS_RESERVE
    return need <= r.size - used


cdef bint ring_write(Ring* r, uint32_t kind, const uint8_t* data, uint32_t length) noexcept nogil:
    cdef uint64_t head = ring_head(r)
    cdef uint64_t at, first
    cdef uint32_t mark[2]
    if not ring_has_room(r, kind, length):
        return False
    mark[0] = length
    mark[1] = kind
    check(ring_at(r, head) + 8 <= r.size)
    memcpy(r.data + ring_at(r, head), mark, 8)
    at = ring_at(r, head + 8)
    first = r.size - at
    check(at < r.size)
    check(length <= RECORD_BYTES_MAX)
    if length <= first:
        memcpy(r.data + at, data, length)
    else:
        memcpy(r.data + at, data, first)
        memcpy(r.data, data + first, length - first)
    store_u64(&r.header.head, head + record_bytes(length))
    return True


cdef int ring_read(Ring* r, uint32_t* kind, uint8_t* out, uint32_t* length) noexcept nogil:
    cdef uint64_t head = ring_head(r)
    cdef uint64_t tail = load_u64(&r.header.tail)
    cdef uint64_t there = head - tail
    cdef uint64_t at, first
    cdef uint32_t mark[2]
    if there == 0:
        return RING_EMPTY
    if there <= r.size and (tail & 7) == 0:
        memcpy(mark, r.data + ring_at(r, tail), 8)      # once: the producer may change it behind our back
        if mark[0] <= RECORD_BYTES_MAX and record_bytes(mark[0]) <= there and (mark[1] == RECORD_LINE or mark[1] == RECORD_ACT):
            at = ring_at(r, tail + 8)
            first = r.size - at
            check(at < r.size)
            check(mark[0] <= RECORD_BYTES_MAX)
            if mark[0] <= first:
                memcpy(out, r.data + at, mark[0])
            else:
                memcpy(out, r.data + at, first)
                memcpy(out + first, r.data, mark[0] - first)
            length[0] = mark[0]
            kind[0] = mark[1]
            store_u64(&r.header.tail, tail + record_bytes(mark[0]))
            return RING_RECORD
    store_u64(&r.header.tail, head)
    return RING_RESYNC
