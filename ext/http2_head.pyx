# Heads of HTTP/2 requests and answers as HTTP/1.1 has them, and back: see http2.pxd. Owns the translation, no stream. Invariant: a head
# that is put together holds no byte that could end a line, a name or a target early, whatever the fields were; what nghttp2 lets through
# is looked at again here.

cdef extern from "string.h" nogil:
    void* c_memmem "memmem"(const void* text, size_t n, const void* part, size_t m)

cdef enum:
    FIELD_HEAD_BYTES = 4        # lengths of name and value before each
    RANDOM_KEY_BYTES = 24       # Sec-WebSocket-Key: 16 bytes in base64


# --- heads in -----------------------------------------------------------------------------------------------------------------------------

cdef bint field_counts(Http2* h, size_t name_len, size_t value_len) noexcept nogil:
    """RFC 9113 6.5.2 counts 32 bytes more a field. False: far beyond what anybody sends."""
    h.list_bytes += <uint32_t>(name_len + value_len + 32)
    if h.list_bytes > HTTP2_LIST_BYTES_MAX:
        http2_wrong(h, HTTP2_HEADERS, NGHTTP2_ENHANCE_YOUR_CALM)
        return False
    return True


cdef bint field_store(Core* e, Buffer** place, uint32_t* count, const uint8_t* name, size_t name_len, const uint8_t* value,
                      size_t value_len) noexcept nogil:
    """A field behind those that are there. False: no room."""
    cdef Buffer* b = place[0]
    cdef uint16_t lengths[2]
    if b == NULL:
        place[0] = b = buffer_get(e)
        if b == NULL:
            return False
    if name_len + value_len + FIELD_HEAD_BYTES > BUFFER_BYTES - b.end or count[0] == HTTP2_FIELDS_MAX:
        return False
    lengths[0] = <uint16_t>name_len
    lengths[1] = <uint16_t>value_len
    memcpy(b.data + b.end, lengths, FIELD_HEAD_BYTES)
    memcpy(b.data + b.end + FIELD_HEAD_BYTES, name, name_len)
    memcpy(b.data + b.end + FIELD_HEAD_BYTES + name_len, value, value_len)
    b.end += <uint32_t>(FIELD_HEAD_BYTES + name_len + value_len)
    count[0] += 1
    return True


cdef void field_take(Http2* h, const uint8_t* name, uint32_t name_len, const uint8_t* value, uint32_t value_len) noexcept nogil:
    cdef uint32_t crumbs = 0
    cdef uint32_t* count = &h.fields
    if h.too_large:
        return
    if name_len and name[0] == c":":
        print_pseudo(h, name, name_len)
    # Cookies are one field again: their crumbs are bounded by their bytes.
    if name_len == 6 and memcmp(name, <const char*>b"cookie", 6) == 0:
        count = &crumbs
    h.too_large = not field_store(h.engine, &h.head, count, name, name_len, value, value_len)


# One field of Http2.head.
cdef struct Field:
    const uint8_t* name
    const uint8_t* value
    uint32_t name_len
    uint32_t value_len


cdef inline bint field_next(const Buffer* b, uint32_t* at, Field* out) noexcept nogil:
    cdef uint16_t lengths[2]
    if at[0] >= b.end:
        return False
    memcpy(lengths, b.data + at[0], FIELD_HEAD_BYTES)
    out.name = b.data + at[0] + FIELD_HEAD_BYTES
    out.name_len = lengths[0]
    out.value = out.name + lengths[0]
    out.value_len = lengths[1]
    at[0] += FIELD_HEAD_BYTES + lengths[0] + lengths[1]
    return True


cdef inline bint field_is(const Field* f, const char* name, uint32_t n) noexcept nogil:
    return f.name_len == n and memcmp(f.name, name, n) == 0


cdef inline bint field_value_is(const Field* f, const char* value, uint32_t n) noexcept nogil:
    return f.value_len == n and memcmp(f.value, value, n) == 0


cdef bint value_sound(const uint8_t* value, uint32_t n) noexcept nogil:
    """RFC 9113 8.2.1: nothing that could end a line."""
    return scan_value(value, value + n) == value + n


cdef bint word_sound(const uint8_t* value, uint32_t n) noexcept nogil:
    """Of a start line: no white space and no controls."""
    cdef uint32_t i
    for i in range(n):
        if value[i] <= 0x20 or value[i] == 0x7f:
            return False
    return n != 0


cdef bint name_sound(const uint8_t* name, uint32_t n) noexcept nogil:
    cdef uint32_t i
    for i in range(n):
        if TOKEN[name[i]] != name[i] or name[i] == 0:       # its lower case; 0: none
            return False
    return n != 0


# The pseudo-headers of a request (RFC 9113 8.3.1), Host, and what is to be known before the first line is written.
cdef struct Pseudo:
    Field method
    Field scheme
    Field authority
    Field path
    Field protocol
    Field host
    bint length                 # content-length is there
    bint cookies                # more than none


cdef uint8_t pseudo_take(Pseudo* a, const Field* f) noexcept nogil:
    """HTTP1_* that is wrong; 0: nothing."""
    cdef Field* place
    if field_is(f, b":method", 7):
        place = &a.method
    elif field_is(f, b":scheme", 7):
        place = &a.scheme
    elif field_is(f, b":authority", 10):
        place = &a.authority
    elif field_is(f, b":path", 5):
        place = &a.path
    elif field_is(f, b":protocol", 9):
        place = &a.protocol
    else:
        return HTTP1_BAD_HEADER_NAME
    if place.name_len or not word_sound(f.value, f.value_len):
        return HTTP1_BAD_HEADER_VALUE
    place[0] = f[0]
    return 0


cdef bint hop_field(const Field* f) noexcept nogil:
    """RFC 9113 8.2.2."""
    return (field_is(f, b"connection", 10) or field_is(f, b"keep-alive", 10) or field_is(f, b"proxy-connection", 16)
            or field_is(f, b"transfer-encoding", 17) or field_is(f, b"upgrade", 7)
            or field_is(f, b"te", 2) and not folds_to(f.value, f.value_len, "trailers"))


cdef uint8_t fields_look(const Buffer* b, Pseudo* a) noexcept nogil:
    """HTTP1_* that is wrong with the fields; 0: nothing."""
    cdef Field f
    cdef uint32_t at = 0
    cdef uint8_t wrong
    cdef bint regular = False
    clear_bytes(a, sizeof(Pseudo))
    while field_next(b, &at, &f):
        if f.name_len and f.name[0] == c":":
            wrong = HTTP1_BAD_HEADER_NAME if regular else pseudo_take(a, &f)
            if wrong:
                return wrong
            continue
        regular = True
        if not name_sound(f.name, f.name_len) or hop_field(&f):
            return HTTP1_BAD_HEADER_NAME
        if not value_sound(f.value, f.value_len):
            return HTTP1_BAD_HEADER_VALUE
        if field_is(&f, b"host", 4):
            if a.host.name_len:
                return HTTP1_DUPLICATE_HOST
            a.host = f
        elif field_is(&f, b"content-length", 14):
            a.length = True
        elif field_is(&f, b"cookie", 6):
            a.cookies = True
    return 0


cdef uint8_t pseudo_look(const Pseudo* a) noexcept nogil:
    """What the pseudo-headers say together. HTTP1_* that is wrong; 0: nothing."""
    cdef bint connect = a.method.value_len == 7 and memcmp(a.method.value, <const char*>b"CONNECT", 7) == 0
    if a.method.name_len == 0:
        return HTTP1_BAD_METHOD
    # RFC 8441: a WebSocket. Any other CONNECT would make a proxy of us.
    if connect != (a.protocol.name_len != 0) or connect and not folds_to(a.protocol.value, a.protocol.value_len, "websocket"):
        return HTTP1_METHOD_REFUSED
    if a.scheme.name_len == 0 or not sound_scheme(a.scheme.value, a.scheme.value_len):
        return HTTP1_BAD_TARGET
    if a.path.name_len == 0 or a.path.value[0] != c"/" and not (a.path.value_len == 1 and a.path.value[0] == c"*"):
        return HTTP1_BAD_TARGET
    if a.authority.name_len and a.host.name_len and not (
            a.authority.value_len == a.host.value_len and fold_equal(a.authority.value, a.host.value, a.host.value_len)):
        return HTTP1_HOST_MISMATCH
    return 0


cdef void put_cookies(Writer* w, const Buffer* b) noexcept nogil:
    """RFC 9113 8.2.3: one field again."""
    cdef Field f
    cdef uint32_t at = 0
    cdef bint begun = False
    put_text(w, b"cookie: ")
    while field_next(b, &at, &f):
        if field_is(&f, b"cookie", 6):
            if begun:
                put(w, b"; ", 2)
            put(w, f.value, f.value_len)
            begun = True
    put(w, b"\r\n", 2)


cdef void put_websocket(Core* e, Writer* w) noexcept nogil:
    """What asks an HTTP/1.1 origin for the tunnel that CONNECT with :protocol asked us for (RFC 8441 5)."""
    cdef const char* letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    cdef uint8_t key[RANDOM_KEY_BYTES]
    cdef uint64_t bits = 0
    cdef uint32_t i
    for i in range(22):
        if i % 10 == 0:
            bits = id_next(e)
        key[i] = <uint8_t>letters[bits & (63 if i < 21 else 48)]
        bits >>= 6
    key[22] = key[23] = c"="
    put_text(w, b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: ")
    put(w, key, RANDOM_KEY_BYTES)
    put(w, b"\r\n", 2)


cdef void head_write_http1(Core* e, Stream* s, const Buffer* from_, const Pseudo* a, Writer* w) noexcept nogil:
    cdef const Field* host = &a.authority if a.authority.name_len else &a.host
    cdef Field f
    cdef uint32_t at = 0
    cdef bint connect = a.protocol.name_len != 0
    cdef bint cookies = a.cookies
    if connect:
        put_text(w, b"GET")
    else:
        put(w, a.method.value, a.method.value_len)
    put_byte(w, 32)
    put(w, a.path.value, a.path.value_len)
    put_text(w, b" HTTP/1.1\r\n")
    if host.name_len:
        put_text(w, b"host: ")
        put(w, host.value, host.value_len)
        put(w, b"\r\n", 2)
    while field_next(from_, &at, &f):
        if f.name[0] == c":" or field_is(&f, b"host", 4):
            continue
        if field_is(&f, b"cookie", 6):
            if cookies:
                put_cookies(w, from_)
            cookies = False
            continue
        if connect and (field_is(&f, b"sec-websocket-key", 17) or field_is(&f, b"content-length", 14)):
            continue
        put(w, f.name, f.name_len)
        put(w, b": ", 2)
        put(w, f.value, f.value_len)
        put(w, b"\r\n", 2)
    if connect:
        put_websocket(e, w)
    elif s.chunked:
        put_text(w, b"transfer-encoding: chunked\r\n")
    put(w, b"\r\n", 2)


cdef uint8_t head_compose(Core* e, Http2* h, Stream* s) noexcept nogil:
    """The request as HTTP/1.1 into the stream's inbox. HTTP1_* that is wrong; 0: nothing."""
    cdef Pseudo a
    cdef Writer w
    cdef uint8_t wrong
    cdef Buffer* b = s.c.inbox
    if h.too_large or h.head == NULL:
        return HTTP1_HEAD_TOO_LARGE
    wrong = fields_look(h.head, &a)
    if wrong == 0:
        wrong = pseudo_look(&a)
    if wrong:
        return wrong
    s.connect = a.protocol.name_len != 0
    # Without a length it ends where the stream does: in HTTP/1.1, by chunks.
    s.chunked = not s.ended and not a.length and not s.connect
    w.at = b.data
    w.end = b.data + BUFFER_BYTES
    w.full = False
    head_write_http1(e, s, h.head, &a, &w)
    b.end = <uint32_t>(w.at - b.data)
    return HTTP1_HEAD_TOO_LARGE if w.full else 0


# --- heads out ----------------------------------------------------------------------------------------------------------------------------

cdef uint32_t head_ready(Core* e, const Queue* q) noexcept nogil:
    """Bytes of the head that the queue begins with, now in e.head; 0: it is not whole."""
    cdef const Buffer* b = q.head
    cdef const uint8_t* end = NULL
    cdef uint32_t n = 0, take
    while b != NULL and n < BUFFER_BYTES:
        take = b.end - b.start
        if n == 0:
            # Most heads lie in one buffer: what follows them there is not copied.
            end = <const uint8_t*>c_memmem(b.data + b.start, take, b"\r\n\r\n", 4)
            if end != NULL:
                take = <uint32_t>(end + 4 - (b.data + b.start))
                memcpy(e.head, b.data + b.start, take)
                return take
        if take > BUFFER_BYTES - n:
            take = BUFFER_BYTES - n
        memcpy(e.head + n, b.data + b.start, take)
        n += take
        end = <const uint8_t*>c_memmem(e.head, n, b"\r\n\r\n", 4)
        if end != NULL:
            return <uint32_t>(end + 4 - e.head)
        b = b.next
    return 0


cdef bint answer_hop(const uint8_t* name, uint32_t n) noexcept nogil:
    """Fields that end with HTTP/1.1 (RFC 9113 8.2.2)."""
    cdef Field f
    f.name = name
    f.name_len = n
    return (field_is(&f, b"connection", 10) or field_is(&f, b"keep-alive", 10) or field_is(&f, b"proxy-connection", 16)
            or field_is(&f, b"transfer-encoding", 17) or field_is(&f, b"upgrade", 7) or field_is(&f, b"sec-websocket-accept", 20))


cdef uint32_t head_fields(Core* e, uint32_t n, uint32_t at, uint32_t count) noexcept nogil:
    """Fields of the head in e.head, from `at` on, into e.fields behind `count` others; how many there are with these."""
    cdef uint32_t colon, end
    cdef nghttp2_nv* nv
    while at + 2 < n and count < HTTP2_ANSWER_FIELDS_MAX:
        colon = at
        while e.head[colon] != c":":
            e.head[colon] = TOKEN[e.head[colon]]
            colon += 1
        end = <uint32_t>(<uint8_t*>memchr(e.head + colon, c"\r", n - colon) - e.head)
        nv = &e.fields[count]
        nv.name = e.head + at
        nv.namelen = colon - at
        colon += 1
        while e.head[colon] == c" " and colon < end:
            colon += 1
        nv.value = e.head + colon
        nv.valuelen = end - colon
        # One of a kind each: it would only push others out of the table.
        nv.flags = <uint8_t>(NGHTTP2_NV_FLAG_NO_INDEX if nv.namelen == 12 and memcmp(nv.name, <const char*>b"x-request-id", 12) == 0 else 0)
        if not answer_hop(nv.name, <uint32_t>nv.namelen):
            count += 1
        at = end + 2
    return count
