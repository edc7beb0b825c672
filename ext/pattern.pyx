# RE2 patterns: see pattern.pxd. Owns the set of compiled patterns that belongs to a policy. RE2 allocates states while it matches, within
# PATTERN_MEMORY_MAX a pattern; nothing else here does.
from libc.stdlib cimport calloc as c_calloc, free as c_free

from scrubber.errors import PolicyRefused


cdef bint pattern_match(const void* compiled, const uint8_t* text, uint32_t length, Span* groups, int n) noexcept nogil:
    return scrubber_re2_match(compiled, text, length, <uint32_t*>groups, n) != 0


def pattern_refused(pattern: bytes) -> str:
    """RE2's own words for what is wrong with a pattern; empty: nothing is."""
    cdef char message[256]
    cdef int groups = 0
    cdef void* compiled = scrubber_re2_compile(<const char*>pattern, len(pattern), PATTERN_MEMORY_MAX, &groups, message, sizeof(message))
    if compiled == NULL:
        return message.decode("latin-1")
    scrubber_re2_free(compiled)
    return ""


def pattern_groups(pattern: bytes) -> int:
    """How many capturing groups a sound pattern has; -1: it is not sound."""
    cdef char message[8]
    cdef int groups = -1
    cdef void* compiled = scrubber_re2_compile(<const char*>pattern, len(pattern), PATTERN_MEMORY_MAX, &groups, message, sizeof(message))
    if compiled != NULL:
        scrubber_re2_free(compiled)
    return groups


cdef class Patterns:
    """Compiled patterns by their place; freed with the object."""
    cdef void** compiled
    cdef int count

    def __cinit__(self, list texts):
        cdef char message[256]
        cdef int groups
        self.compiled = NULL
        if not texts:
            return
        self.compiled = <void**>c_calloc(len(texts), sizeof(void*))
        if self.compiled == NULL:
            raise MemoryError()
        for text in texts:
            groups = 0
            self.compiled[self.count] = scrubber_re2_compile(<const char*><bytes>text, len(text), PATTERN_MEMORY_MAX, &groups, message,
                                                             sizeof(message))
            if self.compiled[self.count] == NULL:
                raise PolicyRefused(f"route: pattern: {message.decode('latin-1')}")
            self.count += 1

    def __dealloc__(self):
        cdef int i
        for i in range(self.count):
            scrubber_re2_free(self.compiled[i])
        c_free(self.compiled)
