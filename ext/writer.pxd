# Text put together in a bounded place: answers, heads, access lines.
cdef void put(Writer* w, const void* data, uint64_t n) noexcept nogil
cdef void put_text(Writer* w, const char* text) noexcept nogil
cdef void put_byte(Writer* w, uint8_t byte) noexcept nogil
cdef void put_uint(Writer* w, uint64_t value) noexcept nogil
cdef void put_uint_hex(Writer* w, uint64_t value) noexcept nogil          # 1..16 digits, no leading zeros
cdef void put_hex16(Writer* w, uint64_t value) noexcept nogil        # 16 digits
cdef void put_hex_bytes(Writer* w, const uint8_t* data, uint32_t n) noexcept nogil   # two digits a byte
# Inside a JSON string (RFC 8259 7): quotes, controls and bytes over 0x7f escaped (taken as latin-1), so that any bytes give valid JSON.
cdef void put_json(Writer* w, const uint8_t* data, uint32_t n, uint32_t n_max) noexcept nogil
# One of two texts (a conditional expression over literals would make Python objects).
cdef void put_either(Writer* w, bint first, const char* one, const char* other) noexcept nogil
