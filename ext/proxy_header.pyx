# PROXY protocol, read and written: contract in proxy_header.pxd. Owns nothing. Invariants: never looked past `length`; a header that came
# in pieces is read as one that came whole; of a header that is not BAD every span lies inside it; IPv4-mapped addresses are IPv4.
cdef extern from *:
    """
    /* CRC-32C (Castagnoli), reflected, with `zeroed` bytes at `at` taken for zeros: the field holds the sum of a header without it. */
    static uint32_t scrubber_crc32c(const uint8_t* data, uint32_t length, uint32_t at, uint32_t zeroed) {
        uint32_t crc = 0xFFFFFFFFu;
        for (uint32_t i = 0; i < length; i++) {
            crc ^= i - at < zeroed ? 0u : data[i];
            for (int bit = 0; bit < 8; bit++)
                crc = (crc >> 1) ^ (0x82F63B78u & (0u - (crc & 1u)));
        }
        return ~crc;
    }
    """
    uint32_t scrubber_crc32c(const uint8_t* data, uint32_t length, uint32_t at, uint32_t zeroed) noexcept nogil

cdef enum:
    PROXY_V2_BYTES_MIN = 16
    TLV_ALPN = 0x01
    TLV_AUTHORITY = 0x02
    TLV_CRC32C = 0x03
    TLV_NOOP = 0x04
    TLV_UNIQUE_ID = 0x05
    TLV_SSL = 0x20
    TLV_SSL_VERSION = 0x21
    TLV_SSL_NAME = 0x22
    TLV_SSL_CIPHER = 0x23
    TLV_SSL_SIGNATURE = 0x24
    TLV_SSL_KEY = 0x25
    TLV_NETNS = 0x30
    TLV_AWS = 0xEA
    TLV_AWS_VPC_ENDPOINT = 0x01

cdef const char* PROXY_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


cdef inline uint16_t load_be16(const uint8_t* p) noexcept nogil:
    return <uint16_t>((p[0] << 8) | p[1])


cdef inline void v4_address(const uint8_t* p, Address* out) noexcept nogil:
    memset(out.bytes, 0, 10)
    out.bytes[10] = 0xFF
    out.bytes[11] = 0xFF
    memcpy(out.bytes + 12, p, 4)


# --- version 1: one line of text ---------------------------------------------------------------------------------------------------------

cdef bint next_word(const uint8_t** p, const uint8_t* end, Span* out, const uint8_t* data) noexcept nogil:
    """The bytes up to the next single space, or to the end; p moves behind that space."""
    cdef const uint8_t* start = p[0]
    cdef const uint8_t* space
    if start > end:
        return False
    space = <const uint8_t*>memchr(start, c" ", <size_t>(end - start))
    if space == NULL:
        space = end
    out.off = <uint32_t>(start - data)
    out.len = <uint32_t>(space - start)
    p[0] = space + 1
    return out.len > 0


cdef bint v1_port(const uint8_t* text, uint32_t length, uint16_t* out) noexcept nogil:
    cdef uint64_t number
    if length > 5 or (length > 1 and text[0] == c"0") or not parse_decimal(text, length, &number) or number > 65535:
        return False
    out[0] = <uint16_t>number
    return True


cdef bint v1_address(const uint8_t* text, uint32_t length, bint v6, Address* out) noexcept nogil:
    """In the form that the line's protocol word says."""
    return length > 0 and (memchr(text, c":", length) != NULL) == v6 and address_parse(text, length, out)


cdef bint v1_unknown(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Whatever follows UNKNOWN is not looked at (2.1), as long as it is text."""
    if p == end:
        return True
    if p[0] != c" ":
        return False
    while p < end:
        if p[0] < 0x20 or p[0] > 0x7E:
            return False
        p += 1
    return True


cdef bint v1_line(const uint8_t* data, const uint8_t* end, ProxyHeader* out) noexcept nogil:
    """What stands between `PROXY ` and CRLF."""
    cdef const uint8_t* p = data + 6
    cdef Span word, source, destination, port, destination_port
    cdef bint v6
    if end - p >= 7 and memcmp(p, <const char*>b"UNKNOWN", 7) == 0:
        return v1_unknown(p + 7, end)
    if not next_word(&p, end, &word, data) or word.len != 4 or memcmp(data + word.off, <const char*>b"TCP", 3) != 0:
        return False
    v6 = data[word.off + 3] == c"6"
    if not v6 and data[word.off + 3] != c"4":
        return False
    if not next_word(&p, end, &source, data) or not next_word(&p, end, &destination, data):
        return False
    if not next_word(&p, end, &port, data) or not next_word(&p, end, &destination_port, data) or p != end + 1:
        return False
    out.named = True
    return (v1_address(data + source.off, source.len, v6, &out.address)
            and v1_address(data + destination.off, destination.len, v6, &out.destination)
            and v1_port(data + port.off, port.len, &out.port)
            and v1_port(data + destination_port.off, destination_port.len, &out.destination_port))


cdef int v1_parse(const uint8_t* data, uint32_t length, ProxyHeader* out) noexcept nogil:
    cdef const uint8_t* feed
    cdef uint32_t seen = length if length < PROXY_V1_BYTES_MAX else PROXY_V1_BYTES_MAX
    if memcmp(data, <const char*>b"PROXY ", 6 if seen > 6 else seen) != 0:
        return PROXY_BAD
    feed = <const uint8_t*>memchr(data, c"\n", seen)
    if feed == NULL:
        return PROXY_MORE if length < PROXY_V1_BYTES_MAX else PROXY_BAD
    if feed - data < 7 or (feed - 1)[0] != c"\r" or not v1_line(data, feed - 1, out):
        return PROXY_BAD
    out.version = 1
    out.length = <uint32_t>(feed + 1 - data)
    return PROXY_OK


# --- version 2: binary -------------------------------------------------------------------------------------------------------------------

cdef inline int32_t v2_address_bytes(uint8_t family) noexcept nogil:
    """Bytes of the addresses; -1: no such family and transport."""
    if family == 0x00:
        return 0
    if family == 0x11 or family == 0x12:
        return 12
    if family == 0x21 or family == 0x22:
        return 36
    return 216 if family == 0x31 or family == 0x32 else -1


cdef void v2_addresses(const uint8_t* p, uint8_t family, ProxyHeader* out) noexcept nogil:
    """Of TCP; a datagram or a Unix socket names nobody whom a connection could come from."""
    if family == 0x11:
        v4_address(p, &out.address)
        v4_address(p + 4, &out.destination)
        p += 8
    elif family == 0x21:
        memcpy(out.address.bytes, p, 16)
        memcpy(out.destination.bytes, p + 16, 16)
        p += 32
    else:
        return
    out.named = True
    out.port = load_be16(p)
    out.destination_port = load_be16(p + 2)


cdef inline void tlv_keep(Span* span, uint32_t off, uint32_t length) noexcept nogil:
    if span.len == 0:
        span.off = off
        span.len = length


cdef void tlv_other(ProxyHeader* out, uint8_t kind, bint inner, uint32_t off, uint32_t length) noexcept nogil:
    cdef ProxyTlv* kept = &out.others[out.other_count]
    if out.other_count == PROXY_OTHERS_MAX:
        out.others_left_out += 1
        return
    kept.kind = kind
    kept.inner = inner
    kept.value.off = off
    kept.value.len = length
    out.other_count += 1


cdef void tlv_of_ssl(const uint8_t* data, uint8_t kind, uint32_t at, uint32_t size, ProxyHeader* out) noexcept nogil:
    if kind == TLV_SSL_VERSION:
        tlv_keep(&out.tls_version, at, size)
    elif kind == TLV_SSL_CIPHER:
        tlv_keep(&out.tls_cipher, at, size)
    elif kind == TLV_SSL_NAME:
        tlv_keep(&out.tls_name, at, size)
    elif kind == TLV_SSL_SIGNATURE:
        tlv_keep(&out.tls_signature, at, size)
    elif kind == TLV_SSL_KEY:
        tlv_keep(&out.tls_key, at, size)
    else:
        tlv_other(out, kind, True, at, size)


cdef bint tlv_ssl(const uint8_t* data, uint32_t at, uint32_t end, ProxyHeader* out) noexcept nogil:
    """client (1), verify (4), then TLVs of its own."""
    cdef uint32_t size
    if end - at < 5:
        return False
    if not out.tls:
        out.tls = True
        out.tls_client = data[at]
        out.tls_verify = load_be32(data + at + 1)
    at += 5
    while at < end:
        if end - at < 3:
            return False
        size = load_be16(data + at + 1)
        if size > end - at - 3:
            return False
        tlv_of_ssl(data, data[at], at + 3, size, out)
        at += 3 + size
    return True


cdef bint tlv_take(const uint8_t* data, uint8_t kind, uint32_t at, uint32_t size, ProxyHeader* out, bint* summed) noexcept nogil:
    """One TLV whose value is data[at:at + size]. False: it makes the whole header unsound."""
    if kind == TLV_ALPN:
        tlv_keep(&out.alpn, at, size)
    elif kind == TLV_AUTHORITY:
        tlv_keep(&out.authority, at, size)
    elif kind == TLV_UNIQUE_ID:
        tlv_keep(&out.unique_id, at, size)
        return size <= PROXY_UNIQUE_ID_BYTES_MAX
    elif kind == TLV_SSL:
        return tlv_ssl(data, at, at + size, out)
    elif kind == TLV_NETNS:
        tlv_keep(&out.netns, at, size)
    elif kind == TLV_AWS and size > 1 and data[at] == TLV_AWS_VPC_ENDPOINT:
        tlv_keep(&out.vpc_endpoint, at + 1, size - 1)
    elif kind == TLV_CRC32C:
        if size != 4 or summed[0]:
            return False
        summed[0] = True
        return scrubber_crc32c(data, out.length, at, 4) == load_be32(data + at)
    elif kind != TLV_NOOP:
        tlv_other(out, kind, False, at, size)
    return True


cdef bint v2_tlvs(const uint8_t* data, uint32_t at, ProxyHeader* out) noexcept nogil:
    cdef uint32_t size
    cdef bint summed = False
    while at < out.length:
        if out.length - at < 3:
            return False
        size = load_be16(data + at + 1)
        if size > out.length - at - 3 or not tlv_take(data, data[at], at + 3, size, out, &summed):
            return False
        at += 3 + size
    return True


cdef int v2_parse(const uint8_t* data, uint32_t length, ProxyHeader* out) noexcept nogil:
    cdef int32_t address_bytes
    cdef bint local
    if memcmp(data, PROXY_SIGNATURE, 12 if length > 12 else length) != 0:
        return PROXY_BAD
    if length < 13:
        return PROXY_MORE
    if data[12] != 0x20 and data[12] != 0x21:
        return PROXY_BAD
    # LOCAL: the proxy's own connection, a health check for instance. The block is discarded, its family is not looked at (2.2).
    local = data[12] == 0x20
    if length < 14:
        return PROXY_MORE
    address_bytes = 0 if local else v2_address_bytes(data[13])
    if address_bytes < 0:
        return PROXY_BAD
    if length < PROXY_V2_BYTES_MIN:
        return PROXY_MORE
    out.version = 2
    out.length = PROXY_V2_BYTES_MIN + <uint32_t>load_be16(data + 14)
    if out.length > PROXY_HEADER_BYTES_MAX or out.length < PROXY_V2_BYTES_MIN + <uint32_t>address_bytes:
        return PROXY_BAD
    if length < out.length:
        return PROXY_MORE
    if local or data[13] == 0x00:
        return PROXY_OK
    v2_addresses(data + PROXY_V2_BYTES_MIN, data[13], out)
    return PROXY_OK if v2_tlvs(data, PROXY_V2_BYTES_MIN + <uint32_t>address_bytes, out) else PROXY_BAD


cdef int proxy_header_parse(const uint8_t* data, uint32_t length, ProxyHeader* out) noexcept nogil:
    memset(out, 0, sizeof(ProxyHeader))
    if length == 0:
        return PROXY_MORE
    if data[0] == c"P":
        return v1_parse(data, length, out)
    return v2_parse(data, length, out)


# --- written -----------------------------------------------------------------------------------------------------------------------------

cdef void v1_put_address(Writer* w, const Address* a, bint v6) noexcept nogil:
    cdef uint8_t text[46]
    if v6 and address_is_v4(a):
        put_text(w, b"::ffff:")
    put(w, text, address_format(a, text))


cdef uint32_t v1_write(const Address* address, uint16_t port, const Address* destination, uint16_t destination_port,
                       uint8_t* out) noexcept nogil:
    cdef Writer w
    cdef bint v6
    w.at = out
    w.end = out + PROXY_WRITE_BYTES_MAX
    w.full = False
    if address == NULL:
        put_text(&w, b"PROXY UNKNOWN\r\n")
        return <uint32_t>(w.at - out)
    v6 = not address_is_v4(address) or not address_is_v4(destination)
    put_either(&w, v6, b"PROXY TCP6 ", b"PROXY TCP4 ")
    v1_put_address(&w, address, v6)
    put_byte(&w, 32)
    v1_put_address(&w, destination, v6)
    put_byte(&w, 32)
    put_uint(&w, port)
    put_byte(&w, 32)
    put_uint(&w, destination_port)
    put(&w, b"\r\n", 2)
    return <uint32_t>(w.at - out)


cdef uint32_t proxy_header_write(int version, const Address* address, uint16_t port, const Address* destination,
                                 uint16_t destination_port, uint8_t* out) noexcept nogil:
    cdef bint v6
    cdef uint32_t each
    cdef uint8_t* p
    if version == 1:
        return v1_write(address, port, destination, destination_port, out)
    memcpy(out, PROXY_SIGNATURE, 12)
    out[14] = 0
    if address == NULL:
        out[12] = 0x20
        out[13] = 0
        out[15] = 0
        return PROXY_V2_BYTES_MIN
    v6 = not address_is_v4(address) or not address_is_v4(destination)
    each = 16 if v6 else 4
    out[12] = 0x21
    out[13] = 0x21 if v6 else 0x11
    out[15] = <uint8_t>(2 * each + 4)
    memcpy(out + 16, address.bytes + 16 - each, each)
    memcpy(out + 16 + each, destination.bytes + 16 - each, each)
    p = out + 16 + 2 * each
    p[0] = <uint8_t>(port >> 8)
    p[1] = <uint8_t>(port & 0xFF)
    p[2] = <uint8_t>(destination_port >> 8)
    p[3] = <uint8_t>(destination_port & 0xFF)
    return PROXY_V2_BYTES_MIN + 2 * each + 4
