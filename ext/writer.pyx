# Text writers: see writer.pxd.
cdef const char* HEX_DIGITS = b"0123456789abcdef"
# 00 to 99.
cdef const char* PAIRS = (b"0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
                          b"5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899")


cdef void put_uint(Writer* w, uint64_t value) noexcept nogil:
    cdef uint8_t digits[20]
    cdef uint32_t n = 20
    while value >= 100:
        n -= 2
        memcpy(digits + n, PAIRS + 2 * (value % 100), 2)
        value /= 100
    if value >= 10:
        n -= 2
        memcpy(digits + n, PAIRS + 2 * value, 2)
    else:
        n -= 1
        digits[n] = <uint8_t>(48 + value)
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
    put_hex_digits(value, digits)
    put(w, digits, 16)


cdef void put_hex_bytes(Writer* w, const uint8_t* data, uint32_t n) noexcept nogil:
    cdef uint8_t digits[2]
    cdef uint32_t i
    for i in range(n):
        digits[0] = HEX_DIGITS[data[i] >> 4]
        digits[1] = HEX_DIGITS[data[i] & 15]
        put(w, digits, 2)


cdef void put_json(Writer* w, const uint8_t* data, uint32_t n, uint32_t n_max) noexcept nogil:
    cdef const uint8_t* p = data
    cdef const uint8_t* end = data + (n if n < n_max else n_max)
    cdef const uint8_t* stop
    cdef uint8_t escape[6]
    while True:
        stop = scan_plain(p, end)
        put(w, p, <uint64_t>(stop - p))
        if stop == end:
            return
        if stop[0] == 0x22 or stop[0] == 0x5c:
            escape[0] = 0x5c
            escape[1] = stop[0]
            put(w, escape, 2)
        else:
            memcpy(escape, b"\\u00", 4)
            escape[4] = HEX_DIGITS[stop[0] >> 4]
            escape[5] = HEX_DIGITS[stop[0] & 15]
            put(w, escape, 6)
        p = stop + 1
