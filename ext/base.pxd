# Types and words shared by every concept. No behaviour.
from libc.stdint cimport (int8_t, int16_t, int32_t, int64_t, intptr_t,
                          uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t)
from libc.string cimport memchr, memcmp, memcpy, memmove, memset

# Bounds are checked where something is made and again where it is used; in a release build none of it is there.
cdef extern from "check.h" nogil:
    const bint SCRUBBER_CHECKS
    void check "assert"(bint holds)
    void scrubber_forbid(void* at, uint64_t bytes)      # to AddressSanitizer: whoever touches this is wrong
    void scrubber_permit(void* at, uint64_t bytes)

cdef extern from "scan.h" nogil:
    void clear_bytes(void* p, uint64_t n)       # memset to 0, of large objects

cdef enum:
    VERDICT_PASS = 0
    VERDICT_THROTTLE = 1
    VERDICT_CHALLENGE = 2
    VERDICT_TARPIT = 3
    VERDICT_DENY = 4
    VERDICT_DROP = 5
    VERDICTS = 6

    MEASURE_OBSERVE = 0
    MEASURE_THROTTLE = 1
    MEASURE_CHALLENGE = 2
    MEASURE_TARPIT = 3
    MEASURE_DENY = 4
    MEASURE_DROP = 5
    MEASURE_BLOCK = 6
    MEASURE_BLACKHOLE = 7
    MEASURES = 8

    # How an address was proven.
    PROOF_SOCKET = 0
    PROOF_PROXY = 1
    PROOF_CHAIN = 2

    # What a source is.
    SOURCE_CLIENT = 1           # IPv4 address or IPv6 /64
    SOURCE_PREFIX = 2           # any prefix; plen says how wide
    SOURCE_FINGERPRINT = 3
    SOURCE_ACCOUNT = 4
    SOURCE_PAIR = 5             # a pair of keys

# Bytes inside a buffer; 32 bits suffice, buffers are under 4 GiB.
cdef struct Span:
    uint32_t off
    uint32_t len

# 16 bytes in network order; IPv4 is held IPv4-mapped (::ffff:a.b.c.d), and only so.
cdef struct Address:
    uint8_t bytes[16]

# 128-bit secret of the keyed hash (SipHash).
cdef struct HashKey:
    uint64_t k0
    uint64_t k1
