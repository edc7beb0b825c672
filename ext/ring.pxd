# Single producer (worker), single consumer (supervisor); bytes, committed after the write. Records are finished JSON lines.
# Access lines leave RING_ACTS_RESERVE free, so that an act always finds room before a line does.
cdef enum:
    RECORD_LINE = 1             # access record
    RECORD_ACT = 2              # block made or refused, rung entered, rung skipped
    RING_ACTS_RESERVE = 65536   # bytes

cdef struct RingHeader:         # head and tail on their own cache lines
    uint64_t head               # bytes ever written; producer
    uint64_t pad0[7]
    uint64_t tail               # bytes ever read; consumer
    uint64_t pad1[7]

cdef struct Ring:
    RingHeader* header
    uint8_t* data
    uint64_t size               # power of two

# False: no room (the caller counts it, and refuses the act that it could not record).
cdef bint ring_write(Ring* r, uint32_t kind, const uint8_t* data, uint32_t length) noexcept nogil
cdef bint ring_has_room(const Ring* r, uint32_t kind, uint32_t length) noexcept nogil
