# Python faces of address, prefixes, http1, fingerprint and identity, for tests and tools. No behaviour of its own.
# Bytes are copied into exact allocations, so that a sanitizer sees the first byte read past the end.
from libc.stdlib cimport calloc, free, malloc


cdef uint8_t* probe_copy(bytes data) except NULL:
    cdef size_t n = <size_t>len(data)
    cdef uint8_t* p = <uint8_t*>malloc(n if n else 1)
    if p == NULL:
        raise MemoryError
    if n:
        memcpy(p, <const char*>data, n)
    return p


cdef Address probe_address(bytes packed) except *:
    cdef Address a
    if len(packed) != 16:
        raise ValueError("an address is 16 bytes; IPv4 is held IPv4-mapped")
    memcpy(a.bytes, <const char*>packed, 16)
    return a


def probe_address_parse(bytes text):
    """16 bytes, or None where text is no address."""
    cdef Address a
    cdef uint8_t* p = probe_copy(text)
    cdef bint ok = address_parse(p, <uint32_t>len(text), &a)
    free(p)
    return (<const char*>a.bytes)[:16] if ok else None


def probe_address_format(bytes packed):
    cdef Address a = probe_address(packed)
    cdef uint8_t* p = <uint8_t*>malloc(46)
    if p == NULL:
        raise MemoryError
    cdef uint32_t n = address_format(&a, p)
    text = (<const char*>p)[:n]
    free(p)
    return text


def probe_address_mask(bytes packed, int plen):
    cdef Address a = probe_address(packed)
    address_mask(&a, plen)
    return (<const char*>a.bytes)[:16]


def probe_address_client(bytes packed):
    cdef Address a = probe_address(packed)
    address_client(&a, &a)
    return (<const char*>a.bytes)[:16]


def probe_address_is_v4(bytes packed):
    cdef Address a = probe_address(packed)
    return address_is_v4(&a)


cdef class ProbePrefixes:
    """A loaded prefix image. ValueError: the loader refused it."""
    cdef uint8_t* image
    cdef Prefixes table

    def __cinit__(self, bytes image):
        self.image = probe_copy(image)
        if not prefixes_load(self.image, <uint64_t>len(image), &self.table):
            raise ValueError("prefix image refused: magic, version, sizes or order")

    def __dealloc__(self):
        free(self.image)

    def find(self, bytes packed):
        cdef Address a = probe_address(packed)
        return prefixes_find(&self.table, &a)
