# RE2 patterns (path_re of a route): compiled when a policy is loaded, outside passes; freed with it. Linear time on any text.
cdef extern from "re2_shim.h" nogil:
    void* scrubber_re2_compile(const char* pattern, size_t pattern_bytes, int64_t memory_max, int* groups, char* message,
                               size_t message_bytes) noexcept nogil
    int scrubber_re2_match(const void* compiled, const uint8_t* text, size_t text_bytes, uint32_t* places, int n) noexcept nogil
    void scrubber_re2_free(void* compiled) noexcept nogil

cdef enum:
    PATTERNS_MAX = 256              # of a policy
    PATTERN_MEMORY_MAX = 524288     # bytes that program and states of one pattern may take; beyond, it runs without states, slower
    PATTERN_GROUPS_MAX = 9          # $1 to $9

# Found anywhere in text? The first n groups (0: the whole match) as places in it; what took no part is empty.
cdef bint pattern_match(const void* compiled, const uint8_t* text, uint32_t length, Span* groups, int n) noexcept nogil
