# SipHash-1-3: one compression round a word, three at the end. Owns nothing; equal input and key give equal output on every machine.

cdef struct SipState:
    uint64_t v0
    uint64_t v1
    uint64_t v2
    uint64_t v3


cdef inline uint64_t rotate_left(uint64_t x, int bits) noexcept nogil:
    return (x << bits) | (x >> (64 - bits))


cdef inline void sip_round(SipState* s) noexcept nogil:
    s.v0 += s.v1
    s.v2 += s.v3
    s.v1 = rotate_left(s.v1, 13) ^ s.v0
    s.v3 = rotate_left(s.v3, 16) ^ s.v2
    s.v0 = rotate_left(s.v0, 32)
    s.v2 += s.v1
    s.v0 += s.v3
    s.v1 = rotate_left(s.v1, 17) ^ s.v2
    s.v3 = rotate_left(s.v3, 21) ^ s.v0
    s.v2 = rotate_left(s.v2, 32)


cdef inline void sip_begin(SipState* s, const HashKey* key) noexcept nogil:
    s.v0 = key.k0 ^ <uint64_t>0x736f6d6570736575
    s.v1 = key.k1 ^ <uint64_t>0x646f72616e646f6d
    s.v2 = key.k0 ^ <uint64_t>0x6c7967656e657261
    s.v3 = key.k1 ^ <uint64_t>0x7465646279746573


cdef inline void sip_word(SipState* s, uint64_t word) noexcept nogil:
    s.v3 ^= word
    sip_round(s)
    s.v0 ^= word


cdef inline uint64_t sip_end(SipState* s) noexcept nogil:
    s.v2 ^= 0xff
    sip_round(s)
    sip_round(s)
    sip_round(s)
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3


cdef uint64_t siphash(const HashKey* key, const void* data, size_t length) noexcept nogil:
    cdef const uint8_t* p = <const uint8_t*>data
    cdef size_t left = length
    cdef uint64_t word
    cdef SipState s
    sip_begin(&s, key)
    while left >= 8:
        memcpy(&word, p, 8)
        sip_word(&s, word)
        p += 8
        left -= 8
    word = 0
    if left:
        memcpy(&word, p, left)
    sip_word(&s, word | (<uint64_t>(length & 0xff) << 56))
    return sip_end(&s)


cdef uint64_t siphash_pair(const HashKey* key, uint64_t a, uint64_t b) noexcept nogil:
    cdef SipState s
    sip_begin(&s, key)
    sip_word(&s, a)
    sip_word(&s, b)
    sip_word(&s, <uint64_t>16 << 56)
    return sip_end(&s)


cdef uint64_t address_key(const HashKey* key, const Address* a) noexcept nogil:
    return siphash(key, a.bytes, 16)
