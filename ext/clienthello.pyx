# ClientHello and its fingerprints: see clienthello.pxd. Owns no state but the digests, fetched at import. Invariants: no length in the
# message is believed before it was compared with what is left; work is bounded by the *_MAX above whatever the message.
cdef extern from "openssl/evp.h" nogil:
    ctypedef struct EVP_MD:
        pass
    EVP_MD* EVP_MD_fetch(void* context, const char* name, const char* properties)
    int EVP_Digest(const void* data, size_t count, unsigned char* md, unsigned int* size, const EVP_MD* kind, void* engine)

cdef enum:
    TLS_RECORD_HANDSHAKE = 22
    TLS_RECORD_BYTES_MAX = 16384
    MESSAGE_CLIENT_HELLO = 1

    EXTENSION_SERVER_NAME = 0
    EXTENSION_GROUPS = 10
    EXTENSION_POINT_FORMATS = 11
    EXTENSION_SIGNATURES = 13
    EXTENSION_ALPN = 16
    EXTENSION_VERSIONS = 43

    # Texts before they are hashed: at most six bytes a number (65535 and a separator).
    JA3_TEXT_MAX = 6144             # 6 * (1 + HELLO_CIPHERS_MAX + HELLO_EXTENSIONS_MAX + HELLO_GROUPS_MAX + 255)
    JA4_TEXT_MAX = 2560             # 5 * HELLO_CIPHERS_MAX, and more than 5 * (HELLO_EXTENSIONS_MAX + HELLO_SIGNATURES_MAX)

cdef EVP_MD* DIGEST_MD5 = EVP_MD_fetch(NULL, "MD5", NULL)
cdef EVP_MD* DIGEST_SHA256 = EVP_MD_fetch(NULL, "SHA2-256", NULL)


# --- the records --------------------------------------------------------------------------------------------------------------------------

cdef int hello_gather(const uint8_t* data, uint32_t length, uint8_t* scratch, const uint8_t** message, uint32_t* message_len,
                      uint32_t* used) noexcept nogil:
    cdef uint32_t at = 0        # of the next record
    cdef uint32_t have = 0      # bytes of the message
    cdef uint32_t need = 4
    cdef uint32_t n
    cdef const uint8_t* whole
    if length and data[0] != TLS_RECORD_HANDSHAKE:
        return HELLO_PLAIN
    while have < need or need == 4:
        if length - at < 5:
            return HELLO_MORE
        n = <uint32_t>data[at + 3] << 8 | data[at + 4]
        # RFC 8446 5.1: no empty fragment, none above 2^14 bytes, nothing in between.
        if data[at] != TLS_RECORD_HANDSHAKE or data[at + 1] != 3 or n == 0 or n > TLS_RECORD_BYTES_MAX or n > HELLO_BYTES_MAX - have:
            return HELLO_BAD
        if have == 0 and length - at > 5 and data[at + 5] != MESSAGE_CLIENT_HELLO:
            return HELLO_BAD
        if length - at - 5 < n:
            return HELLO_MORE
        whole = data + at + 5
        if have or n < 4:
            memcpy(scratch + have, whole, n)
            whole = scratch
        elif n < 4 + (<uint32_t>whole[1] << 16 | <uint32_t>whole[2] << 8 | whole[3]):
            memcpy(scratch, whole, n)
            whole = scratch
        have += n
        at += 5 + n
        if have >= 4:
            need = 4 + (<uint32_t>whole[1] << 16 | <uint32_t>whole[2] << 8 | whole[3])
            if need == 4 or need > HELLO_BYTES_MAX or have > need:
                return HELLO_BAD
    message[0] = whole
    message_len[0] = need
    used[0] = at
    return HELLO_OK


# --- the message --------------------------------------------------------------------------------------------------------------------------

# What is left of a message, or of a vector within it.
cdef struct Reader:
    const uint8_t* data
    uint32_t at
    uint32_t end


cdef inline bint read_uint(Reader* r, uint32_t width, uint32_t* out) noexcept nogil:
    cdef uint32_t i
    if r.end - r.at < width:
        return False
    out[0] = 0
    for i in range(width):
        out[0] = out[0] << 8 | r.data[r.at + i]
    r.at += width
    return True


cdef inline bint read_vector(Reader* r, uint32_t width, Reader* out) noexcept nogil:
    """A vector whose length has `width` bytes."""
    cdef uint32_t n
    if not read_uint(r, width, &n) or r.end - r.at < n:
        return False
    out.data = r.data
    out.at = r.at
    out.end = r.at + n
    r.at += n
    return True


cdef inline bint grease(uint32_t value) noexcept nogil:
    return value & 0x0f0f == 0x0a0a and value >> 8 == value & 0xff


cdef bint read_values(Reader* r, uint16_t* out, uint16_t* count, uint32_t count_max) noexcept nogil:
    """Values of two bytes until the end."""
    cdef uint32_t value
    count[0] = 0
    while r.at < r.end:
        if not read_uint(r, 2, &value):
            return False
        if grease(value):
            continue
        if count[0] == count_max:
            return False
        out[count[0]] = <uint16_t>value
        count[0] += 1
    return True


cdef bint read_server_name(Reader* r, ClientHello* out) noexcept nogil:
    """RFC 6066 3: one name of each type, and host_name is the only type there is."""
    cdef Reader names, name
    cdef uint32_t kind
    if not read_vector(r, 2, &names) or r.at != r.end or not read_uint(&names, 1, &kind) or not read_vector(&names, 2, &name):
        return False
    if names.at != names.end or kind != 0 or name.at == name.end or name.end - name.at > HELLO_NAME_BYTES_MAX:
        return False
    out.name.off = name.at
    out.name.len = name.end - name.at
    return True


cdef bint read_alpn(Reader* r, ClientHello* out) noexcept nogil:
    """RFC 7301 3.1: at least one name, none of them empty."""
    cdef Reader names, name
    if not read_vector(r, 2, &names) or r.at != r.end or names.at == names.end:
        return False
    while names.at < names.end:
        if not read_vector(&names, 1, &name) or name.at == name.end:
            return False
        if out.alpn.len == 0:
            out.alpn.off = name.at
            out.alpn.len = name.end - name.at
    return True


cdef bint read_versions(Reader* r, ClientHello* out) noexcept nogil:
    cdef Reader versions
    cdef uint32_t value
    if not read_vector(r, 1, &versions) or r.at != r.end or versions.at == versions.end:
        return False
    out.version_max = 0
    while versions.at < versions.end:
        if not read_uint(&versions, 2, &value):
            return False
        if not grease(value) and value > out.version_max:
            out.version_max = <uint16_t>value
    return True


cdef bint read_extension(uint32_t kind, Reader* body, ClientHello* out) noexcept nogil:
    cdef Reader inner
    if kind == EXTENSION_SERVER_NAME:
        out.has_name = True
        # An empty one is an acknowledgement, which a few clients send by mistake.
        return body.at == body.end or read_server_name(body, out)
    if kind == EXTENSION_ALPN:
        return read_alpn(body, out)
    if kind == EXTENSION_VERSIONS:
        return read_versions(body, out)
    if kind == EXTENSION_GROUPS:
        return read_vector(body, 2, &inner) and body.at == body.end and read_values(&inner, out.group, &out.groups, HELLO_GROUPS_MAX)
    if kind == EXTENSION_SIGNATURES:
        return (read_vector(body, 2, &inner) and body.at == body.end
                and read_values(&inner, out.signature, &out.signatures, HELLO_SIGNATURES_MAX))
    if kind == EXTENSION_POINT_FORMATS:
        if not read_vector(body, 1, &inner) or body.at != body.end:
            return False
        out.formats = <uint16_t>(inner.end - inner.at)
        memcpy(out.format, inner.data + inner.at, out.formats)
    return True


cdef bint read_extensions(Reader* r, ClientHello* out) noexcept nogil:
    cdef Reader all, body
    cdef uint32_t kind
    cdef uint64_t seen[1024]        # a bit for each type: RFC 8446 4.2 allows one of each
    if not read_vector(r, 2, &all):
        return False
    memset(seen, 0, sizeof(seen))
    while all.at < all.end:
        if not read_uint(&all, 2, &kind) or not read_vector(&all, 2, &body):
            return False
        if seen[kind >> 6] >> (kind & 63) & 1:
            return False
        seen[kind >> 6] |= <uint64_t>1 << (kind & 63)
        if grease(kind):
            continue
        if out.extensions == HELLO_EXTENSIONS_MAX or not read_extension(kind, &body, out):
            return False
        out.extension[out.extensions] = <uint16_t>kind
        out.extensions += 1
    return True


cdef int hello_parse(const uint8_t* message, uint32_t length, ClientHello* out) noexcept nogil:
    cdef Reader r, part
    cdef uint32_t value
    memset(out, 0, sizeof(ClientHello))
    r.data = message
    r.at = 4
    r.end = length
    if length < 4 or not read_uint(&r, 2, &value) or value >> 8 != 3 or r.end - r.at < 32:
        return HELLO_BAD
    out.version = <uint16_t>value
    out.version_max = out.version
    r.at += 32
    if not read_vector(&r, 1, &part) or part.end - part.at > 32:    # session id
        return HELLO_BAD
    if not read_vector(&r, 2, &part) or part.at == part.end or not read_values(&part, out.cipher, &out.ciphers, HELLO_CIPHERS_MAX):
        return HELLO_BAD
    if not read_vector(&r, 1, &part) or part.at == part.end:        # compression
        return HELLO_BAD
    if r.at < r.end and not read_extensions(&r, out):
        return HELLO_BAD
    return HELLO_OK if r.at == r.end else HELLO_BAD


cdef inline uint8_t hex_digit(uint32_t value) noexcept nogil:
    return <uint8_t>(c"0" + value if value < 10 else c"a" + value - 10)


cdef void put_digits(uint8_t* out, const uint8_t* data, uint32_t n) noexcept nogil:
    """Two hex digits a byte."""
    cdef uint32_t i
    for i in range(n):
        out[2 * i] = hex_digit(data[i] >> 4)
        out[2 * i + 1] = hex_digit(data[i] & 15)


# --- JA3 ----------------------------------------------------------------------------------------------------------------------------------

cdef void put_numbers(Writer* w, const uint16_t* values, uint32_t count) noexcept nogil:
    cdef uint32_t i
    for i in range(count):
        if i:
            put_byte(w, c"-")
        put_uint(w, values[i])


cdef bint hello_ja3(const ClientHello* hello, uint8_t* out) noexcept nogil:
    cdef uint8_t text[6144]         # JA3_TEXT_MAX
    cdef uint8_t digest[16]
    cdef unsigned int size = 0
    cdef uint32_t i
    cdef Writer w
    w.at = text
    w.end = text + sizeof(text)
    w.full = False
    put_uint(&w, hello.version)
    put_byte(&w, c",")
    put_numbers(&w, hello.cipher, hello.ciphers)
    put_byte(&w, c",")
    put_numbers(&w, hello.extension, hello.extensions)
    put_byte(&w, c",")
    put_numbers(&w, hello.group, hello.groups)
    put_byte(&w, c",")
    for i in range(hello.formats):
        if i:
            put_byte(&w, c"-")
        put_uint(&w, hello.format[i])
    check(not w.full)
    if DIGEST_MD5 == NULL or not EVP_Digest(text, <size_t>(w.at - text), digest, &size, DIGEST_MD5, NULL):
        return False
    put_digits(out, digest, 16)
    return True


# --- JA4 ----------------------------------------------------------------------------------------------------------------------------------

cdef void sort_values(uint16_t* values, uint32_t count) noexcept nogil:
    """Shell's sort: lists of a few dozen, and bounded for the longest."""
    cdef uint32_t gap = 121, i, j
    cdef uint16_t value
    while gap:
        for i in range(gap, count):
            value = values[i]
            j = i
            while j >= gap and values[j - gap] > value:
                values[j] = values[j - gap]
                j -= gap
            values[j] = value
        gap //= 3


cdef void put_words(Writer* w, const uint16_t* values, uint32_t count) noexcept nogil:
    """Four hex digits each, commas between."""
    cdef uint8_t raw[2]
    cdef uint32_t i
    for i in range(count):
        if i:
            put_byte(w, c",")
        raw[0] = <uint8_t>(values[i] >> 8)
        raw[1] = <uint8_t>(values[i] & 0xff)
        put_hex_bytes(w, raw, 2)


cdef bint put_short_sum(Writer* text, const uint8_t* begin, uint8_t* out) noexcept nogil:
    """The first 12 hex digits of SHA-256; zeros stand for an empty list."""
    cdef uint8_t digest[32]
    cdef unsigned int size = 0
    if text.at == begin:
        memset(out, c"0", 12)
        return True
    if DIGEST_SHA256 == NULL or not EVP_Digest(begin, <size_t>(text.at - begin), digest, &size, DIGEST_SHA256, NULL):
        return False
    put_digits(out, digest, 6)
    return True


cdef const char* ja4_version(const ClientHello* hello) noexcept nogil:
    cdef uint16_t v = hello.version_max
    if v == 0x0304:
        return "13"
    if v == 0x0303:
        return "12"
    if v == 0x0302:
        return "11"
    if v == 0x0301:
        return "10"
    return "s3" if v == 0x0300 else "00"


cdef inline bint alphanumeric(uint8_t c) noexcept nogil:
    return c"0" <= c <= c"9" or c"a" <= c <= c"z" or c"A" <= c <= c"Z"


cdef void ja4_alpn(const uint8_t* first, uint32_t length, uint8_t* out) noexcept nogil:
    """Its first and last character; where one of them is no ASCII letter or digit, the first and last hex digit of all of it."""
    if length == 0:
        out[0] = out[1] = c"0"
    elif alphanumeric(first[0]) and alphanumeric(first[length - 1]):
        out[0] = first[0]
        out[1] = first[length - 1]
    else:
        out[0] = hex_digit(first[0] >> 4)
        out[1] = hex_digit(first[length - 1] & 15)


cdef inline void put_two(uint32_t n, uint8_t* out) noexcept nogil:
    if n > 99:
        n = 99
    out[0] = <uint8_t>(c"0" + n // 10)
    out[1] = <uint8_t>(c"0" + n % 10)


cdef bint hello_ja4(const uint8_t* message, const ClientHello* hello, uint8_t* out) noexcept nogil:
    cdef uint8_t text[2560]         # JA4_TEXT_MAX
    cdef uint16_t values[512]       # HELLO_CIPHERS_MAX
    cdef uint32_t count = 0, i
    cdef Writer w
    out[0] = c"t"
    memcpy(out + 1, ja4_version(hello), 2)
    out[3] = c"d" if hello.has_name else c"i"
    put_two(hello.ciphers, out + 4)
    put_two(hello.extensions, out + 6)
    ja4_alpn(message + hello.alpn.off, hello.alpn.len, out + 8)
    out[10] = out[23] = c"_"
    w.at = text
    w.end = text + sizeof(text)
    w.full = False
    memcpy(values, hello.cipher, hello.ciphers * sizeof(uint16_t))
    sort_values(values, hello.ciphers)
    put_words(&w, values, hello.ciphers)
    check(not w.full)
    if not put_short_sum(&w, text, out + 11):
        return False
    for i in range(hello.extensions):
        if hello.extension[i] != EXTENSION_SERVER_NAME and hello.extension[i] != EXTENSION_ALPN:
            values[count] = hello.extension[i]
            count += 1
    w.at = text
    sort_values(values, count)
    put_words(&w, values, count)
    if hello.signatures:
        put_byte(&w, c"_")
        put_words(&w, hello.signature, hello.signatures)
    check(not w.full)
    return put_short_sum(&w, text, out + 24)
