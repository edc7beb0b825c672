# Single producer (worker), single consumer (supervisor); bytes, committed after the write. Records are finished JSON lines.
# Access lines leave RING_ACTS_RESERVE free, so that an act always finds room before a line does.
# A record: u32 length, u32 kind, then the payload, padded to 8 bytes; it may wrap. head and tail count bytes ever moved.
cdef enum:
    RECORD_LINE = 1             # access record
    RECORD_ACT = 2              # block made or refused, rung entered, rung skipped
    RING_ACTS_RESERVE = 65536   # bytes
    RING_BYTES_MIN = 131072     # smallest ring
    RECORD_BYTES_MAX = 16384    # payload of one record

    RING_EMPTY = 0              # ring_read: nothing (more) there
    RING_RECORD = 1
    RING_RESYNC = 2             # what was there made no sense: all of it was skipped; counted by the caller

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
# Consumer: take the next record into out[RECORD_BYTES_MAX]. RING_*.
cdef int ring_read(Ring* r, uint32_t* kind, uint8_t* out, uint32_t* length) noexcept nogil
