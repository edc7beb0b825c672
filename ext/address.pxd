# Addresses: IPv4-mapped IPv6 is IPv4; an IPv6 client is its /64.
cdef bint address_is_v4(const Address* a) noexcept nogil
# "::": whoever came over a Unix socket has none.
cdef bint address_none(const Address* a) noexcept nogil
cdef bint address_equal(const Address* a, const Address* b) noexcept nogil
# Zero all bits after plen (0..128, counted in the 128-bit form: IPv4 /24 is 120).
cdef void address_mask(Address* a, int plen) noexcept nogil
# The client key of an address: itself for IPv4, its /64 for IPv6.
cdef void address_client(const Address* a, Address* out) noexcept nogil
# Strict text forms (RFC 4291 2.2, RFC 5952; dotted quad without leading zeros; no zone id). False: not an address.
cdef bint address_parse(const uint8_t* text, uint32_t length, Address* out) noexcept nogil
# Canonical text (RFC 5952) into out[46]; bytes written. IPv4 comes out dotted.
cdef uint32_t address_format(const Address* a, uint8_t* out) noexcept nogil

# Big-endian loads: addresses compare as numbers.
cdef inline uint32_t load_be32(const uint8_t* p) noexcept nogil:
    return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | <uint32_t>p[3]


cdef inline uint64_t load_be64(const uint8_t* p) noexcept nogil:
    return (<uint64_t>load_be32(p) << 32) | <uint64_t>load_be32(p + 4)
