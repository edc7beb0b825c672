# Addresses: text to 16 bytes and back, masks, the client key form.
# Owns nothing. Invariants: IPv4 is always held IPv4-mapped; the strict text forms only, so that one address has one reading.

cdef inline bint v4_mapped_prefix(const uint8_t* b) noexcept nogil:
    return load_be64(b) == 0 and b[8] == 0 and b[9] == 0 and b[10] == 0xFF and b[11] == 0xFF


cdef bint address_is_v4(const Address* a) noexcept nogil:
    return v4_mapped_prefix(a.bytes)


cdef bint address_none(const Address* a) noexcept nogil:
    return load_be64(a.bytes) == 0 and load_be64(a.bytes + 8) == 0


cdef bint address_equal(const Address* a, const Address* b) noexcept nogil:
    return memcmp(a.bytes, b.bytes, 16) == 0


cdef void address_mask(Address* a, int plen) noexcept nogil:
    cdef int whole
    if plen < 0:
        plen = 0
    if plen >= 128:
        return
    whole = plen >> 3
    if plen & 7:
        a.bytes[whole] = <uint8_t>(a.bytes[whole] & (0xFF00 >> (plen & 7)))
        whole += 1
    memset(a.bytes + whole, 0, <size_t>(16 - whole))


cdef void address_client(const Address* a, Address* out) noexcept nogil:
    cdef Address copy = a[0]
    if not v4_mapped_prefix(copy.bytes):
        memset(copy.bytes + 8, 0, 8)
    out[0] = copy


cdef bint parse_v4(const uint8_t* text, uint32_t length, uint8_t* out) noexcept nogil:
    """Dotted quad without leading zeros (a leading zero is octal to some readers)."""
    cdef uint32_t i = 0, digits, value
    cdef int part
    for part in range(4):
        if part:
            if i >= length or text[i] != c".":
                return False
            i += 1
        digits = 0
        value = 0
        while i < length and c"0" <= text[i] <= c"9":
            if digits and value == 0:
                return False
            value = value * 10 + (text[i] - c"0")
            digits += 1
            i += 1
            if value > 255:
                return False
        if digits == 0:
            return False
        out[part] = <uint8_t>value
    return i == length


cdef inline int hex_value(uint8_t c) noexcept nogil:
    if c"0" <= c <= c"9":
        return c - c"0"
    c |= 0x20
    if c"a" <= c <= c"f":
        return c - c"a" + 10
    return -1


cdef bint parse_v6(const uint8_t* text, uint32_t length, uint8_t* out) noexcept nogil:
    """RFC 4291 2.2: eight groups, one `::`, an IPv4 tail. No zone id."""
    cdef uint8_t groups[16]
    cdef uint32_t i = 0, filled = 0, start, value, digits
    cdef int gap = -1, h
    if length >= 2 and text[0] == c":" and text[1] == c":":
        gap = 0
        i = 2
    while i < length:
        if filled == 16:
            return False
        start = i
        value = 0
        digits = 0
        while i < length:
            h = hex_value(text[i])
            if h < 0:
                break
            value = (value << 4) | <uint32_t>h
            digits += 1
            i += 1
            if digits > 4:
                return False
        if i < length and text[i] == c".":
            if filled > 12 or not parse_v4(text + start, length - start, groups + filled):
                return False
            filled += 4
            i = length
            break
        if digits == 0:
            return False
        groups[filled] = <uint8_t>(value >> 8)
        groups[filled + 1] = <uint8_t>(value & 0xFF)
        filled += 2
        if i == length:
            break
        if text[i] != c":":
            return False
        i += 1
        if i == length:
            return False
        if text[i] == c":":
            if gap >= 0:
                return False
            gap = <int>filled
            i += 1
    if gap < 0:
        if filled != 16:
            return False
        memcpy(out, groups, 16)
        return True
    if filled > 14:
        return False
    memset(out, 0, 16)
    memcpy(out, groups, <size_t>gap)
    memcpy(out + 16 - (filled - <uint32_t>gap), groups + gap, filled - <uint32_t>gap)
    return True


cdef bint address_parse(const uint8_t* text, uint32_t length, Address* out) noexcept nogil:
    cdef Address a
    if length < 2 or length > 45:
        return False
    if memchr(text, c":", length) == NULL:
        memset(a.bytes, 0, 10)
        a.bytes[10] = 0xFF
        a.bytes[11] = 0xFF
        if not parse_v4(text, length, a.bytes + 12):
            return False
    elif not parse_v6(text, length, a.bytes):
        return False
    out[0] = a
    return True


cdef uint8_t OCTETS[256][4]      # in decimal
cdef uint8_t OCTET_BYTES[256]


cdef void address_tables() noexcept:
    cdef int i
    cdef bytes text
    for i in range(256):
        text = str(i).encode()
        OCTET_BYTES[i] = <uint8_t>len(text)
        memcpy(OCTETS[i], <const char*>text, len(text))


address_tables()


cdef inline uint32_t put_hex(uint16_t value, uint8_t* out) noexcept nogil:
    cdef const char* digits = "0123456789abcdef"
    cdef uint32_t n = 0
    cdef int shift = 12
    while shift > 0 and (value >> shift) == 0:
        shift -= 4
    while shift >= 0:
        out[n] = digits[(value >> shift) & 15]
        n += 1
        shift -= 4
    return n


cdef uint32_t address_format(const Address* a, uint8_t* out) noexcept nogil:
    cdef uint32_t n = 0
    cdef int i, run, best = -1, best_run = 1
    cdef uint16_t groups[8]
    if v4_mapped_prefix(a.bytes):
        for i in range(4):
            if i:
                out[n] = c"."
                n += 1
            memcpy(out + n, OCTETS[a.bytes[12 + i]], 4)     # what is too much of it is written over: out has room for any address
            n += OCTET_BYTES[a.bytes[12 + i]]
        return n
    run = 0
    for i in range(8):
        groups[i] = <uint16_t>((a.bytes[2 * i] << 8) | a.bytes[2 * i + 1])
        run = run + 1 if groups[i] == 0 else 0
        if run > best_run:      # the first of the longest runs of two or more (RFC 5952 4.2)
            best_run = run
            best = i - run + 1
    i = 0
    while i < 8:
        if i == best:
            out[n] = c":"
            out[n + 1] = c":"
            n += 2
            i += best_run
            continue
        if i and (best < 0 or i != best + best_run):
            out[n] = c":"
            n += 1
        n += put_hex(groups[i], out + n)
        i += 1
    return n
