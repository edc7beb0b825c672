# The path as rules match it (contract in http1.pxd, reference in tests/reference/path.py). The origin gets the target as it was sent.
# Owns nothing. Invariant: spellings that an origin may take for one path become one: `/login`, `//login`, `/%6Cogin`, `/./login`,
# `/x/../login`, `/x%2F..%2flogin`, `/x/..;a=b/login`, `/login;a=b` (some origins look at the path without its parameters). Case is kept.

cdef inline uint8_t upper_hex(uint8_t c) noexcept nogil:
    return c - 32 if c >= c"a" else c


cdef inline uint32_t path_unit(const uint8_t* p, const uint8_t* end, uint8_t* unit, uint32_t* written) noexcept nogil:
    """One byte, or one escape: decoded where it is printable ASCII and no '%', else kept with upper-case digits. Returns bytes taken."""
    cdef int high, low, value
    unit[0] = p[0]
    written[0] = 1
    if p[0] != c"%" or end - p < 3:
        return 1
    high = hex_value(p[1])
    low = hex_value(p[2])
    if high < 0 or low < 0:
        return 1
    value = high * 16 + low
    if 0x20 < value < 0x7F and value != c"%":
        unit[0] = <uint8_t>value
        return 3
    unit[1] = upper_hex(p[1])
    unit[2] = upper_hex(p[2])
    written[0] = 3
    return 3


cdef uint32_t path_normalise(const uint8_t* data, Span path, uint8_t* out, uint32_t cap) noexcept nogil:
    cdef const uint8_t* p = data + path.off
    cdef const uint8_t* end = p + path.len
    cdef uint8_t unit[3]
    cdef uint32_t n = 0, m, i, written, name, dots, over = 0    # over: segments kept that begin past cap
    cdef bint slash = True, kept = False, parameters
    if path.len == 0 or p[0] != c"/" or cap == 0:
        m = path.len if path.len < cap else cap
        memcpy(out, p, m)
        return m
    p += 1
    while slash:
        slash = parameters = False
        name = dots = 0
        m = n
        if m < cap:
            out[m] = c"/"
            m += 1
        while p < end and not slash:
            p += path_unit(p, end, unit, &written)
            if unit[0] == c"/":
                slash = True
                break
            parameters |= unit[0] == c";"
            if parameters:
                continue
            name += written
            dots += unit[0] == c"."
            for i in range(written):
                if m < cap:
                    out[m] = unit[i]
                    m += 1
        kept = name > 2 or name != dots
        if kept:
            over += n == cap
            n = m
        elif name == 2:
            if over:
                over -= 1
            elif n:
                n -= 1
                while out[n] != c"/":
                    n -= 1
    if not kept and n < cap:
        out[n] = c"/"
        n += 1
    return n
