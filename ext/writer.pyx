# Text writers: see writer.pxd. Invariant: `at` never passes `end`; once `full`, nothing more is written.
cdef const char* HEX_DIGITS = b"0123456789abcdef"


cdef void put(Writer* w, const void* data, uint64_t n) noexcept nogil:
    check(w.at <= w.end)
    if w.full or <uint64_t>(w.end - w.at) < n:
        w.full = True
        return
    memcpy(w.at, data, n)
    w.at += n
    check(w.at <= w.end)


cdef void put_byte(Writer* w, uint8_t byte) noexcept nogil:
    check(w.at <= w.end)
    if w.full or w.at == w.end:
        w.full = True
        return
    w.at[0] = byte
    w.at += 1


cdef extern from "string.h" nogil:
    size_t c_strlen "strlen"(const char* s)


cdef void put_text(Writer* w, const char* text) noexcept nogil:
    put(w, text, c_strlen(text))


cdef void put_either(Writer* w, bint first, const char* one, const char* other) noexcept nogil:
    if first:
        put_text(w, one)
    else:
        put_text(w, other)


cdef void put_uint(Writer* w, uint64_t value) noexcept nogil:
    cdef uint8_t digits[20]
    cdef int n = 20
    while True:
        n -= 1
        digits[n] = <uint8_t>(48 + value % 10)
        value /= 10
        if value == 0:
            break
    put(w, digits + n, 20 - n)


cdef void put_uint_hex(Writer* w, uint64_t value) noexcept nogil:
    cdef uint8_t digits[16]
    cdef int n = 16
    while True:
        n -= 1
        digits[n] = HEX_DIGITS[value & 15]
        value >>= 4
        if value == 0:
            break
    put(w, digits + n, 16 - n)


cdef void put_hex16(Writer* w, uint64_t value) noexcept nogil:
    cdef uint8_t digits[16]
    cdef int i
    for i in range(16):
        digits[15 - i] = HEX_DIGITS[value & 15]
        value >>= 4
    put(w, digits, 16)


cdef void put_hex_bytes(Writer* w, const uint8_t* data, uint32_t n) noexcept nogil:
    cdef uint8_t digits[2]
    cdef uint32_t i
    for i in range(n):
        digits[0] = HEX_DIGITS[data[i] >> 4]
        digits[1] = HEX_DIGITS[data[i] & 15]
        put(w, digits, 2)


cdef inline bint json_plain(uint8_t c) noexcept nogil:
    return c >= 0x20 and c < 0x7f and c != 0x22 and c != 0x5c


cdef void put_json(Writer* w, const uint8_t* data, uint32_t n, uint32_t n_max) noexcept nogil:
    cdef uint32_t i = 0
    cdef uint32_t start
    cdef uint8_t escape[6]
    if n > n_max:
        n = n_max
    while i < n:
        start = i
        while i < n and json_plain(data[i]):
            i += 1
        if i > start:
            put(w, data + start, i - start)
        if i < n:
            if data[i] == 0x22 or data[i] == 0x5c:
                escape[0] = 0x5c
                escape[1] = data[i]
                put(w, escape, 2)
            else:
                memcpy(escape, b"\\u00", 4)
                escape[4] = HEX_DIGITS[data[i] >> 4]
                escape[5] = HEX_DIGITS[data[i] & 15]
                put(w, escape, 6)
            i += 1
