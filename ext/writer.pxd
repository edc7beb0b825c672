# Text put together in a bounded place: answers, heads, access lines.
# Invariant: `at` never passes `end`; once `full`, nothing more is written. Inline, so that a literal costs what it is long.
cdef extern from "string.h" nogil:
    size_t c_strlen "strlen"(const char* s)


cdef inline void put(Writer* w, const void* data, uint64_t n) noexcept nogil:
    check(w.at <= w.end)
    if w.full or <uint64_t>(w.end - w.at) < n:
        w.full = True
        return
    memcpy(w.at, data, n)
    w.at += n
    check(w.at <= w.end)


cdef inline void put_byte(Writer* w, uint8_t byte) noexcept nogil:
    check(w.at <= w.end)
    if w.full or w.at == w.end:
        w.full = True
        return
    w.at[0] = byte
    w.at += 1


cdef inline void put_text(Writer* w, const char* text) noexcept nogil:
    put(w, text, c_strlen(text))


# One of two texts (a conditional expression over literals would make Python objects).
cdef inline void put_either(Writer* w, bint first, const char* one, const char* other) noexcept nogil:
    if first:
        put_text(w, one)
    else:
        put_text(w, other)


cdef void put_uint(Writer* w, uint64_t value) noexcept nogil
cdef void put_uint_hex(Writer* w, uint64_t value) noexcept nogil          # 1..16 digits, no leading zeros
cdef void put_hex16(Writer* w, uint64_t value) noexcept nogil        # 16 digits
cdef void put_hex_bytes(Writer* w, const uint8_t* data, uint32_t n) noexcept nogil   # two digits a byte
# Inside a JSON string (RFC 8259 7): quotes, controls and bytes over 0x7f escaped (taken as latin-1), so that any bytes give valid JSON.
cdef void put_json(Writer* w, const uint8_t* data, uint32_t n, uint32_t n_max) noexcept nogil
