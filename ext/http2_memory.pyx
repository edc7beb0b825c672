# Memory of nghttp2's sessions: see http2.pxd. Owns what each has, its bound, and spare pieces. Invariants: a session never has more than
# HTTP2_SESSION_BYTES_MAX; what is freed is kept for the next request up to SPARES_BYTES_MAX a worker (a request takes and frees about ten
# pieces of one and the same size each: a list of ours costs a third of malloc's), but where AddressSanitizer looks on.
from libc.stdlib cimport malloc as c_malloc

cdef extern from "check.h" nogil:
    const bint SCRUBBER_SPARES

cdef enum:
    PIECE_HEAD_BYTES = 16       # its size before each, and the alignment of malloc kept
    SPARES_BYTES_MAX = 4194304


cdef inline uint8_t* piece_get(Core* e, uint64_t n) noexcept nogil:
    """n: with its head, a multiple of SPARE_STEP_BYTES."""
    cdef uint64_t kind = n / SPARE_STEP_BYTES
    cdef uint8_t* piece
    if kind < SPARE_KINDS and e.spares[kind] != NULL:
        piece = <uint8_t*>e.spares[kind]
        e.spares[kind] = (<void**>piece)[0]
        e.spares_bytes -= n
    else:
        piece = <uint8_t*>c_malloc(n)
        if piece == NULL:
            return NULL
    (<uint64_t*>piece)[0] = n
    return piece


cdef inline void piece_put(Core* e, uint8_t* piece, uint64_t n) noexcept nogil:
    cdef uint64_t kind = n / SPARE_STEP_BYTES
    if not SCRUBBER_SPARES or kind >= SPARE_KINDS or e.spares_bytes + n > SPARES_BYTES_MAX:
        c_free(piece)
        return
    (<void**>piece)[0] = e.spares[kind]
    e.spares[kind] = piece
    e.spares_bytes += n


cdef void spares_close(Core* e) noexcept nogil:
    cdef uint32_t kind
    cdef void* piece
    for kind in range(SPARE_KINDS):
        while e.spares[kind] != NULL:
            piece = e.spares[kind]
            e.spares[kind] = (<void**>piece)[0]
            c_free(piece)
    e.spares_bytes = 0


# What nghttp2 calls (nghttp2_mem).
cdef void* memory_malloc(size_t n, void* data) noexcept nogil:
    cdef SessionMemory* m = <SessionMemory*>data
    cdef uint64_t whole = (n + PIECE_HEAD_BYTES + SPARE_STEP_BYTES - 1) & ~<uint64_t>(SPARE_STEP_BYTES - 1)
    cdef uint8_t* piece
    if n > HTTP2_SESSION_BYTES_MAX or m.nbytes + whole > HTTP2_SESSION_BYTES_MAX:
        return NULL
    piece = piece_get(m.engine, whole)
    if piece == NULL:
        return NULL
    m.nbytes += whole
    m.engine.gauges.http2_bytes += whole
    return piece + PIECE_HEAD_BYTES


cdef void memory_free(void* p, void* data) noexcept nogil:
    cdef SessionMemory* m = <SessionMemory*>data
    cdef uint8_t* piece
    cdef uint64_t whole
    if p == NULL:
        return
    piece = <uint8_t*>p - PIECE_HEAD_BYTES
    whole = (<uint64_t*>piece)[0]
    m.nbytes -= whole
    m.engine.gauges.http2_bytes -= whole
    piece_put(m.engine, piece, whole)


cdef void* memory_calloc(size_t count, size_t n, void* data) noexcept nogil:
    cdef void* p = NULL
    if n == 0 or count <= HTTP2_SESSION_BYTES_MAX / n:
        p = memory_malloc(count * n, data)
    if p != NULL:
        memset(p, 0, count * n)
    return p


cdef void* memory_realloc(void* p, size_t n, void* data) noexcept nogil:
    cdef uint64_t room
    cdef void* made
    if p == NULL:
        return memory_malloc(n, data)
    room = (<uint64_t*>(<uint8_t*>p - PIECE_HEAD_BYTES))[0] - PIECE_HEAD_BYTES
    if n <= room:
        return p
    made = memory_malloc(n, data)
    if made != NULL:
        memcpy(made, p, room)
        memory_free(p, data)
    return made


cdef void session_memory(SessionMemory* m, Core* e) noexcept nogil:
    m.engine = e
    m.nbytes = 0
    m.calls.mem_user_data = m
    m.calls.malloc = memory_malloc
    m.calls.free = memory_free
    m.calls.calloc = memory_calloc
    m.calls.realloc = memory_realloc
