# The account that a request presents: header, cookie, bearer subject, basic user. Contract in identity.pxd. Nothing here is verified: an
# account that nothing has verified is never a key alone.
# Owns nothing. Invariants: bounded work (a token payload of 4 KiB at most), at most cap bytes out, malformed means none.
cdef enum:
    JWT_BYTES_MAX = 4096        # decoded payload
    JSON_DEPTH_MAX = 64


cdef int base64_value(uint8_t c, bint url) noexcept nogil:
    if c"A" <= c <= c"Z":
        return c - c"A"
    if c"a" <= c <= c"z":
        return c - c"a" + 26
    if c"0" <= c <= c"9":
        return c - c"0" + 52
    if c == (c"-" if url else c"+"):
        return 62
    return 63 if c == (c"_" if url else c"/") else -1


cdef int32_t base64_decode(const uint8_t* text, uint32_t length, bint url, uint8_t* out, uint32_t cap) noexcept nogil:
    """Decoded bytes, -1: malformed or more than cap. RFC 4648 4 (padding may be missing), or 5 (url: no padding, RFC 7515 2)."""
    cdef uint32_t bits = 0, held = 0, n = 0, i
    cdef int value
    if not url and length % 4 == 0:
        if length and text[length - 1] == c"=":
            length -= 1
        if length and text[length - 1] == c"=":
            length -= 1
    if length % 4 == 1:
        return -1
    for i in range(length):
        value = base64_value(text[i], url)
        if value < 0:
            return -1
        held = (held << 6) | <uint32_t>value
        bits += 6
        if bits >= 8:
            bits -= 8
            if n == cap:
                return -1
            out[n] = <uint8_t>((held >> bits) & 0xFF)
            n += 1
    return <int32_t>n


cdef inline const uint8_t* json_space(const uint8_t* p, const uint8_t* end) noexcept nogil:
    while p < end and (p[0] == c" " or p[0] == c"\t" or p[0] == c"\n" or p[0] == c"\r"):
        p += 1
    return p


cdef int32_t json_hex4(const uint8_t* p, const uint8_t* end) noexcept nogil:
    cdef int32_t value = 0, i, digit
    if end - p < 4:
        return -1
    for i in range(4):
        digit = hex_value(p[i])
        if digit < 0:
            return -1
        value = value * 16 + digit
    return value


cdef uint32_t utf8_encode(uint32_t point, uint8_t* out) noexcept nogil:
    if point < 0x80:
        out[0] = <uint8_t>point
        return 1
    if point < 0x800:
        out[0] = <uint8_t>(0xC0 | (point >> 6))
        out[1] = <uint8_t>(0x80 | (point & 63))
        return 2
    if point < 0x10000:
        out[0] = <uint8_t>(0xE0 | (point >> 12))
        out[1] = <uint8_t>(0x80 | ((point >> 6) & 63))
        out[2] = <uint8_t>(0x80 | (point & 63))
        return 3
    out[0] = <uint8_t>(0xF0 | (point >> 18))
    out[1] = <uint8_t>(0x80 | ((point >> 12) & 63))
    out[2] = <uint8_t>(0x80 | ((point >> 6) & 63))
    out[3] = <uint8_t>(0x80 | (point & 63))
    return 4


cdef const uint8_t* json_escape(const uint8_t* p, const uint8_t* end, uint8_t* unit, uint32_t* written) noexcept nogil:
    """What follows a backslash at p, as UTF-8 in unit[4]. NULL: no escape of JSON (RFC 8259 7)."""
    cdef int32_t point, low
    written[0] = 1
    if p == end:
        return NULL
    unit[0] = p[0]
    if p[0] == c"b":
        unit[0] = 8
    elif p[0] == c"f":
        unit[0] = 12
    elif p[0] == c"n":
        unit[0] = 10
    elif p[0] == c"r":
        unit[0] = 13
    elif p[0] == c"t":
        unit[0] = 9
    elif p[0] == c"u":
        point = json_hex4(p + 1, end)
        if point < 0:
            return NULL
        p += 4
        if 0xD800 <= point < 0xDC00 and end - p >= 7 and p[1] == c"\\" and p[2] == c"u":
            low = json_hex4(p + 3, end)
            if 0xDC00 <= low < 0xE000:
                point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00)
                p += 6
        written[0] = utf8_encode(<uint32_t>point, unit)
    elif p[0] != c'"' and p[0] != c"\\" and p[0] != c"/":
        return NULL
    return p + 1


cdef const uint8_t* json_string(const uint8_t* p, const uint8_t* end, uint8_t* out, uint32_t cap, uint32_t* length) noexcept nogil:
    """Past the string that opens at p; its first cap bytes in out, its whole length in length. NULL: no string."""
    cdef uint8_t unit[4]
    cdef uint32_t n = 0, i, written
    if p == end or p[0] != c'"':
        return NULL
    p += 1
    while p < end and p[0] != c'"':
        if p[0] < 0x20:
            return NULL
        if p[0] == c"\\":
            p = json_escape(p + 1, end, unit, &written)
            if p == NULL:
                return NULL
        else:
            unit[0] = p[0]
            written = 1
            p += 1
        for i in range(written):
            if n < cap:
                out[n] = unit[i]
            n += 1
    length[0] = n
    return p + 1 if p < end else NULL


cdef const uint8_t* json_skip(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Past the value at p: brackets paired and strings read, what lies between them taken as it comes. NULL: not a value."""
    cdef uint64_t kinds = 0     # the open brackets, the innermost in bit 0: 1 is '{'
    cdef uint32_t depth = 0, length
    cdef const uint8_t* start
    while p < end:
        start = p
        if p[0] == c'"':
            p = json_string(p, end, NULL, 0, &length)
            if p == NULL:
                return NULL
        elif p[0] == c"{" or p[0] == c"[":
            if depth == JSON_DEPTH_MAX:
                return NULL
            kinds = (kinds << 1) | (p[0] == c"{")
            depth += 1
            p += 1
        elif p[0] == c"}" or p[0] == c"]":
            if depth == 0 or <bint>(kinds & 1) != (p[0] == c"}"):
                return NULL
            kinds >>= 1
            depth -= 1
            p += 1
        elif depth and (p[0] == c"," or p[0] == c":"):
            p += 1
        else:
            while p < end and (c"0" <= p[0] <= c"9" or c"a" <= (p[0] | 0x20) <= c"z" or p[0] == c"+" or p[0] == c"-" or p[0] == c"."):
                p += 1
            if p == start:
                return NULL
        if depth == 0:
            return p
        p = json_space(p, end)
    return NULL


cdef uint32_t json_subject(const uint8_t* p, const uint8_t* end, uint8_t* out, uint32_t cap) noexcept nogil:
    """The string `sub` of the object in [p, end). 0: none, empty, no string, more than one (readers differ on which counts), no object."""
    cdef uint8_t key[3]
    cdef uint32_t key_len = 0, length = 0, found = 0
    p = json_space(p, end)
    if p == end or p[0] != c"{":
        return 0
    p = json_space(p + 1, end)
    if p < end and p[0] == c"}":
        return 0
    while True:
        p = json_string(p, end, key, 3, &key_len)
        if p == NULL:
            return 0
        p = json_space(p, end)
        if p == end or p[0] != c":":
            return 0
        p = json_space(p + 1, end)
        if key_len == 3 and memcmp(key, <const char*>b"sub", 3) == 0:
            found += 1
            p = json_string(p, end, out, cap, &length)
        else:
            p = json_skip(p, end)
        if p == NULL or found > 1:
            return 0
        p = json_space(p, end)
        if p == end:
            return 0
        if p[0] == c"}":
            break
        if p[0] != c",":
            return 0
        p = json_space(p + 1, end)
    if json_space(p + 1, end) != end or not found:
        return 0
    return length if length < cap else cap


cdef bint is_token68(const uint8_t* text, uint32_t length) noexcept nogil:
    """1*( ALPHA / DIGIT / "-._~+/" ) *"=" (RFC 9110 11.2)."""
    cdef uint32_t i = 0
    while i < length and (base64_value(text[i], False) >= 0 or base64_value(text[i], True) >= 0 or text[i] == c"." or text[i] == c"~"):
        i += 1
    if i == 0:
        return False
    while i < length and text[i] == c"=":
        i += 1
    return i == length


cdef uint32_t bearer_account(const uint8_t* token, uint32_t length, uint8_t* out, uint32_t cap) noexcept nogil:
    """`sub` of a JWT, the token where it is none. Of a token longer than cap its end: tokens of one issuer begin alike."""
    cdef uint8_t payload[4096]
    cdef const uint8_t* first
    cdef const uint8_t* second
    cdef int32_t n
    cdef uint32_t written
    if not is_token68(token, length):
        return 0
    first = <const uint8_t*>memchr(token, c".", length)
    if first != NULL:
        second = <const uint8_t*>memchr(first + 1, c".", <size_t>(token + length - first - 1))
        if second != NULL and memchr(second + 1, c".", <size_t>(token + length - second - 1)) == NULL:
            n = base64_decode(first + 1, <uint32_t>(second - first - 1), True, payload, JWT_BYTES_MAX)
            written = json_subject(payload, payload + n, out, cap) if n > 0 else 0
            if written:
                return written
    if length > cap:
        token += length - cap
        length = cap
    memcpy(out, token, length)
    return length


cdef uint32_t basic_account(const uint8_t* text, uint32_t length, uint8_t* out, uint32_t cap) noexcept nogil:
    """The user, before the first colon (RFC 7617 2)."""
    cdef uint8_t pair[4096]
    cdef const uint8_t* colon
    cdef int32_t n = base64_decode(text, length, False, pair, JWT_BYTES_MAX)
    cdef uint32_t user_len
    if n <= 0:
        return 0
    colon = <const uint8_t*>memchr(pair, c":", <size_t>n)
    if colon == NULL:
        return 0
    user_len = <uint32_t>(colon - pair)
    if user_len > cap:
        user_len = cap
    memcpy(out, pair, user_len)
    return user_len


cdef bint credentials(const uint8_t* data, const RequestHead* head, const char* scheme, Span* out) noexcept nogil:
    """What follows that scheme in Authorization (RFC 9110 11.4). False: no Authorization, or another scheme."""
    cdef const Header* h
    cdef uint32_t i = <uint32_t>strlen(scheme)
    if head.first[HEADER_AUTHORIZATION] < 0:
        return False
    h = &head.headers[head.first[HEADER_AUTHORIZATION]]
    if h.value_len <= i or data[h.value_off + i] != c" " or not fold_equal(data + h.value_off, <const uint8_t*>scheme, i):
        return False
    while i < h.value_len and data[h.value_off + i] == c" ":
        i += 1
    out.off = h.value_off + i
    out.len = h.value_len - i
    return True


cdef uint32_t cookie_account(const uint8_t* data, const RequestHead* head, const uint8_t* name, uint32_t name_len, uint8_t* out,
                             uint32_t cap) noexcept nogil:
    """Value of the first cookie with that name (RFC 6265 4.2), without quotes around it."""
    cdef int32_t i
    cdef const uint8_t* p
    cdef const uint8_t* end
    cdef const uint8_t* stop
    cdef uint32_t length
    for i in range(head.first[HEADER_COOKIE], head.header_count):
        if head.headers[i].id != HEADER_COOKIE:
            continue
        p = data + head.headers[i].value_off
        end = p + head.headers[i].value_len
        while p < end:
            if p[0] == c" " or p[0] == c"\t" or p[0] == c";":
                p += 1
                continue
            stop = <const uint8_t*>memchr(p, c";", <size_t>(end - p))
            if stop == NULL:
                stop = end
            if stop - p > name_len and p[name_len] == c"=" and memcmp(p, name, name_len) == 0:
                p += name_len + 1
                while stop > p and ((stop - 1)[0] == c" " or (stop - 1)[0] == c"\t"):
                    stop -= 1
                if stop - p >= 2 and p[0] == c'"' and (stop - 1)[0] == c'"':
                    p += 1
                    stop -= 1
                length = <uint32_t>(stop - p) if stop - p < cap else cap
                memcpy(out, p, length)
                return length
            p = stop
    return 0


cdef uint32_t header_account(const uint8_t* data, const RequestHead* head, const uint8_t* name, uint32_t name_len, uint8_t* out,
                             uint32_t cap) noexcept nogil:
    """Value of the first header with that name; not of one that Connection keeps from the origin."""
    cdef int32_t i = http1_find(data, head.headers, head.header_count, 0, name, name_len, http1_name_hash(name, name_len))
    cdef uint32_t length
    if i < 0 or head.headers[i].flags & HEADER_HOP:
        return 0
    length = head.headers[i].value_len if head.headers[i].value_len < cap else cap
    memcpy(out, data + head.headers[i].value_off, length)
    return length


cdef uint32_t identity_account(const uint8_t* data, const RequestHead* head, uint8_t kind, const uint8_t* name, uint32_t name_len,
                               uint8_t* out, uint32_t cap) noexcept nogil:
    cdef Span given
    if kind == ACCOUNT_HEADER:
        return header_account(data, head, name, name_len, out, cap)
    if kind == ACCOUNT_COOKIE:
        return cookie_account(data, head, name, name_len, out, cap) if head.first[HEADER_COOKIE] >= 0 else 0
    if kind == ACCOUNT_BEARER and credentials(data, head, "bearer", &given):
        return bearer_account(data + given.off, given.len, out, cap)
    if kind == ACCOUNT_BASIC and credentials(data, head, "basic", &given):
        return basic_account(data + given.off, given.len, out, cap)
    return 0
