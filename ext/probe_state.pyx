# Python faces of the shared-memory concepts, for tests: thin, checked, over a buffer that the test brings (an mmap to share with children).
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer


def probe_siphash(k0: int, k1: int, data: bytes) -> int:
    cdef HashKey key
    key.k0 = k0
    key.k1 = k1
    return siphash(&key, <const char*>data, len(data))


def probe_siphash_pair(k0: int, k1: int, a: int, b: int) -> int:
    cdef HashKey key
    key.k0 = k0
    key.k1 = k1
    return siphash_pair(&key, a, b)


cdef class ProbeTable:
    """A writable buffer held for as long as the table that lies in it."""
    cdef Py_buffer view
    cdef bint held

    def __cinit__(self, memory):
        PyObject_GetBuffer(memory, &self.view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        self.held = True

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)

    cdef uint64_t buckets(self, uint64_t bucket_bytes) except 0:
        cdef uint64_t n = <uint64_t>self.view.len // bucket_bytes
        if n == 0 or n & (n - 1) or n * bucket_bytes != <uint64_t>self.view.len or <uintptr_t>self.view.buf % 64:
            raise ValueError(f"buffer must be 64-byte aligned and a power of two times {bucket_bytes} bytes")
        return n


cdef class ProbeLimiter(ProbeTable):
    cdef Limiter table

    def __init__(self, memory):
        self.table.cells = <Cell*>self.view.buf
        self.table.bucket_mask = self.buckets(CELLS_BUCKET * sizeof(Cell)) - 1

    def admit(self, uint64_t key, rate, uint64_t cost, uint64_t now_ns, uint32_t share_ppm=1000000) -> tuple:
        """(limited, remaining, retry_ns, reset_ns); rate is (count, period_ns, burst)."""
        cdef Rate r
        cdef Admission out
        r.count, r.period_ns, r.burst = rate
        with nogil:
            limiter_admit(&self.table, key, &r, cost, share_ppm, now_ns, &out)
        return bool(out.limited), out.remaining, out.retry_ns, out.reset_ns

    def charge(self, uint64_t key, rate, uint64_t cost, uint64_t debt_max_ns, uint64_t now_ns) -> None:
        cdef Rate r
        r.count, r.period_ns, r.burst = rate
        with nogil:
            limiter_charge(&self.table, key, &r, cost, debt_max_ns, now_ns)


cdef class ProbeRing(ProbeTable):
    """A ring over a buffer: RingHeader, then data."""
    cdef Ring ring

    def __init__(self, memory):
        cdef uint64_t size = <uint64_t>self.view.len - sizeof(RingHeader)
        if <uint64_t>self.view.len <= sizeof(RingHeader) or size & (size - 1) or size < RING_BYTES_MIN:
            raise ValueError("buffer must be a RingHeader and a power of two of bytes")
        self.ring.header = <RingHeader*>self.view.buf
        self.ring.data = <uint8_t*>self.view.buf + sizeof(RingHeader)
        self.ring.size = size

    def write(self, uint32_t kind, data: bytes) -> bool:
        cdef const char* p = data
        cdef uint32_t length = len(data)
        cdef bint done
        with nogil:
            done = ring_write(&self.ring, kind, <const uint8_t*>p, length)
        return bool(done)

    def has_room(self, uint32_t kind, uint32_t length) -> bool:
        return bool(ring_has_room(&self.ring, kind, length))

    def read(self):
        """(kind, payload); None: empty; False: skipped to the head."""
        cdef uint8_t out[16384]
        cdef uint32_t kind = 0, length = 0
        cdef int answer = ring_read(&self.ring, &kind, out, &length)
        if answer == RING_RECORD:
            return kind, (<char*>out)[:length]
        return None if answer == RING_EMPTY else False
