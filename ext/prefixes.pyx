# Longest-prefix match over a sealed image: flattened to disjoint ranges when it was compiled, so that a look-up is one binary search.
# Owns nothing; the caller keeps the mapping. Invariants, checked by prefixes_load: sizes exact, 8-byte aligned, each table that is not
# empty begins at address 0 and its starts strictly rise. IPv4 is looked up in the IPv4 table only.

cdef bint prefixes_load(const uint8_t* base, uint64_t nbytes, Prefixes* out) noexcept nogil:
    cdef const PrefixHeader* h = <const PrefixHeader*>base
    cdef const RangeV4* v4
    cdef const RangeV6* v6
    cdef uint32_t i
    memset(out, 0, sizeof(Prefixes))
    if base == NULL or (<uintptr_t>base) & 7 or nbytes < sizeof(PrefixHeader):
        return False
    if memcmp(base, <const char*>b"SCRUBPFX", 8) != 0 or h.layout_version != LAYOUT_VERSION or h.total_bytes != nbytes:
        return False
    for i in range(sizeof(h.reserved)):
        if h.reserved[i]:
            return False
    if nbytes != sizeof(PrefixHeader) + <uint64_t>h.v4_count * sizeof(RangeV4) + <uint64_t>h.v6_count * sizeof(RangeV6):
        return False
    v4 = <const RangeV4*>(base + sizeof(PrefixHeader))
    v6 = <const RangeV6*>(base + sizeof(PrefixHeader) + <uint64_t>h.v4_count * sizeof(RangeV4))
    if h.v4_count and v4[0].start != 0:
        return False
    for i in range(1, h.v4_count):
        if v4[i].start <= v4[i - 1].start:
            return False
    if h.v6_count and (v6[0].hi or v6[0].lo):
        return False
    for i in range(h.v6_count):
        if v6[i].value > 0xFFFFFFFFu:
            return False
        if i and (v6[i].hi < v6[i - 1].hi or (v6[i].hi == v6[i - 1].hi and v6[i].lo <= v6[i - 1].lo)):
            return False
    out.base = base
    out.bytes = nbytes
    out.v4 = v4
    out.v4_count = h.v4_count
    out.v6 = v6
    out.v6_count = h.v6_count
    return True


cdef uint32_t find_v4(const RangeV4* table, uint32_t count, uint32_t key) noexcept nogil:
    """Value of the last range that starts at or before key; table[0].start is 0."""
    cdef uint32_t low = 0, half
    while count > 1:
        half = count >> 1
        if table[low + half].start <= key:
            low += half
        count -= half
    return table[low].value


cdef uint32_t find_v6(const RangeV6* table, uint32_t count, uint64_t hi, uint64_t lo) noexcept nogil:
    cdef uint32_t low = 0, half
    cdef const RangeV6* r
    while count > 1:
        half = count >> 1
        r = &table[low + half]
        if r.hi < hi or (r.hi == hi and r.lo <= lo):
            low += half
        count -= half
    return <uint32_t>table[low].value


cdef uint32_t prefixes_find(const Prefixes* t, const Address* a) noexcept nogil:
    if address_is_v4(a):
        return find_v4(t.v4, t.v4_count, load_be32(a.bytes + 12)) if t.v4_count else 0
    return find_v6(t.v6, t.v6_count, load_be64(a.bytes), load_be64(a.bytes + 8)) if t.v6_count else 0
