# The source table, read-only half: longest-prefix match over sealed prefix images.

# A sealed memfd: header, then disjoint ranges sorted by start (compiled from prefixes, longest wins), v4 and v6 apart.
cdef struct PrefixHeader:
    uint64_t magic              # "SCRUBPFX"
    uint32_t layout_version
    uint32_t prefix_id          # which set of the policy this is
    uint64_t total_bytes
    uint32_t v4_count
    uint32_t v6_count
    uint8_t digest[32]          # SHA-256 over all after the header
    uint8_t reserved[64]

cdef struct RangeV4:            # from start to the next range's start
    uint32_t start              # host order
    uint32_t value              # 0: not in the set

cdef struct RangeV6:
    uint64_t hi
    uint64_t lo
    uint64_t value

cdef struct Prefixes:
    const uint8_t* base
    uint64_t bytes
    const RangeV4* v4
    uint32_t v4_count
    const RangeV6* v6
    uint32_t v6_count

# Bounds, order and version checked once; the digest is the caller's to check. False: refused.
cdef bint prefixes_load(const uint8_t* base, uint64_t nbytes, Prefixes* out) noexcept nogil
# Value of the longest matching prefix; 0: none.
cdef uint32_t prefixes_find(const Prefixes* t, const Address* a) noexcept nogil
