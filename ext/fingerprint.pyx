# Header-order fingerprint of clients: docs/fingerprints.md defines it, tests/reference/fingerprint.py says it slowly.
# Owns the table of names left out, filled at import. Invariants: no key, no clock, no state, so that every gateway gives the same value;
# bounded work whatever the head; never 0. Its text form is "h1_" and 16 hex digits.
cdef enum:
    FINGERPRINT_TEXT_MAX = 2048     # canonical bytes that count; longer heads are cut there
    FINGERPRINT_TEXT_BYTES = 19     # of the text form
    PASSING_NAMES = 25
    PASSING_SLOTS = 128             # a power of two

cdef const char* PASSING_NAME[25]
cdef uint32_t PASSING_HASH[25]
cdef uint32_t PASSING_LENGTH[25]
cdef uint8_t PASSING_SLOT[128]      # index into PASSING_NAME + 1, 0: free


cdef void fingerprint_tables() noexcept:
    """Names that one client sends only now and then: with a body, a session, a reload, a script, a navigation."""
    cdef uint32_t i, slot
    PASSING_NAME[:] = [
        "authorization", "cache-control", "content-encoding", "content-language", "content-length", "content-type", "cookie", "dnt",
        "expect", "forwarded", "origin", "pragma", "priority", "proxy-authorization", "purpose", "range", "referer", "save-data",
        "sec-gpc", "sec-purpose", "te", "trailer", "transfer-encoding", "upgrade-insecure-requests", "via"]
    memset(PASSING_SLOT, 0, sizeof(PASSING_SLOT))
    for i in range(PASSING_NAMES):
        PASSING_LENGTH[i] = <uint32_t>strlen(PASSING_NAME[i])
        PASSING_HASH[i] = http1_name_hash(<const uint8_t*>PASSING_NAME[i], PASSING_LENGTH[i])
        slot = PASSING_HASH[i] & (PASSING_SLOTS - 1)
        while PASSING_SLOT[slot]:
            slot = (slot + 1) & (PASSING_SLOTS - 1)
        PASSING_SLOT[slot] = <uint8_t>(i + 1)


fingerprint_tables()


cdef inline bint begins(const uint8_t* name, uint32_t length, const char* word, uint32_t word_len) noexcept nogil:
    return length >= word_len and scan_name_is(name, word, word_len)


cdef bint passing_family(const uint8_t* name, uint32_t length) noexcept nogil:
    """Names left out by how they begin. Of sec-ch-* the three that a browser sends unasked count."""
    cdef uint8_t c = fold(name[0])
    if c == c"x":
        return begins(name, length, "x-", 2)
    if c == c"i":
        return begins(name, length, "if-", 3)
    if c == c"a":
        return begins(name, length, "access-control-", 15)
    if c == c"s" and begins(name, length, "sec-", 4):
        if begins(name, length, "sec-ch-", 7):
            return not (folds_to(name, length, "sec-ch-ua") or folds_to(name, length, "sec-ch-ua-mobile")
                        or folds_to(name, length, "sec-ch-ua-platform"))
        return begins(name, length, "sec-fetch-", 10) or begins(name, length, "sec-websocket-", 14)
    return False


cdef bint passing(const uint8_t* name, const Header* h) noexcept nogil:
    cdef uint32_t slot
    cdef uint8_t i
    if h.flags & HEADER_HOP:
        return h.id != HEADER_CONNECTION
    slot = h.name_hash & (PASSING_SLOTS - 1)
    i = PASSING_SLOT[slot]
    while i:
        if PASSING_HASH[i - 1] == h.name_hash and PASSING_LENGTH[i - 1] == h.name_len \
                and scan_name_is(name, PASSING_NAME[i - 1], h.name_len):
            return True
        slot = (slot + 1) & (PASSING_SLOTS - 1)
        i = PASSING_SLOT[slot]
    return passing_family(name, h.name_len)


cdef inline void fold_into(uint8_t* out, const uint8_t* name, uint32_t length) noexcept nogil:
    """A token in lower case."""
    cdef uint64_t word
    cdef uint32_t i = 0
    if length < 8:
        for i in range(length):
            out[i] = TOKEN[name[i]]
        return
    while i + 8 < length:
        word = fold8(scan_load8(name + i))
        memcpy(out + i, &word, 8)
        i += 8
    word = fold8(scan_load8(name + length - 8))
    memcpy(out + length - 8, &word, 8)


cdef uint64_t fingerprint_head(const uint8_t* data, const RequestHead* head, uint8_t version) noexcept nogil:
    cdef uint8_t text[2048]
    cdef HashKey key
    cdef uint64_t value
    cdef uint32_t n = 2, i, length
    cdef const Header* h
    cdef const uint8_t* name
    key.k0 = key.k1 = 0
    text[0] = version
    text[1] = c"\n"
    for i in range(head.header_count):
        h = &head.headers[i]
        name = data + h.name_off
        if passing(name, h):
            continue
        length = h.name_len
        if length > FINGERPRINT_TEXT_MAX - n:
            length = FINGERPRINT_TEXT_MAX - n
        fold_into(text + n, name, length)
        n += length
        if n == FINGERPRINT_TEXT_MAX:
            break
        text[n] = c"\n"
        n += 1
    value = siphash(&key, text, n)
    return value if value else 1


cdef uint32_t fingerprint_text(uint64_t value, uint8_t* out) noexcept nogil:
    memcpy(out, <const char*>b"h1_", 3)
    put_hex_digits(value, out + 3)
    return FINGERPRINT_TEXT_BYTES
