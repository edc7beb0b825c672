# Chunked transfer coding (RFC 9112 7.1), one byte-driven state machine for either direction. Contract in http1.pxd.
# Owns nothing. Invariants: any split of the same bytes gives the same answer; data is never copied; sizes never overflow.
cdef enum:
    CHUNK_SIZE = 0              # hex digits
    CHUNK_EXT_NAME = 1          # after ';'
    CHUNK_EXT_VALUE = 2         # after '='
    CHUNK_EXT_TOKEN = 3
    CHUNK_EXT_QUOTED = 4
    CHUNK_EXT_ESCAPED = 5
    CHUNK_EXT_END = 6           # after a closing quote
    CHUNK_SIZE_LF = 7
    CHUNK_BODY = 8
    CHUNK_BODY_CR = 9
    CHUNK_BODY_LF = 10
    CHUNK_TRAILER = 11          # at the start of a trailer line
    CHUNK_TRAILER_NAME = 12
    CHUNK_TRAILER_VALUE = 13
    CHUNK_TRAILER_LF = 14
    CHUNK_LAST_LF = 15
    CHUNK_DONE = 16
    CHUNK_REFUSED = 17

    CHUNK_DIGITS_MAX = 16


cdef void chunked_init(Chunked* c) noexcept nogil:
    memset(c, 0, sizeof(Chunked))


cdef inline bint text_byte(uint8_t b) noexcept nogil:
    return (b >= 0x20 and b != 0x7F) or b == c"\t"


cdef inline uint32_t spelled(uint32_t so_far, uint8_t b) noexcept nogil:
    """A hash of a name that comes byte by byte; an underscore counts as the dash that it is to CGI."""
    return so_far * 31 + (c"-" if b == c"_" else TOKEN[b])


cdef uint32_t HEADER_SPELLED[29]


cdef void chunked_tables() noexcept:
    cdef uint32_t i, k
    for i in range(1, HEADER_IDS):
        HEADER_SPELLED[i] = 0
        for k in range(HEADER_LENGTHS[i]):
            HEADER_SPELLED[i] = spelled(HEADER_SPELLED[i], <uint8_t>HEADER_NAMES[i][k])


chunked_tables()


cdef bint trailer_refused(uint32_t name_hash, uint32_t length) noexcept nogil:
    """A trailer that frames, routes or proves (RFC 9110 6.5.1). By hash and length alone: a chance match costs only one more refusal."""
    cdef uint32_t ident
    for ident in range(1, HEADER_IDS):
        if HEADER_SPELLED[ident] == name_hash and HEADER_LENGTHS[ident] == length:
            return HEADER_FLAGS[ident] or ident == HEADER_HOST or ident == HEADER_CONTENT_LENGTH or ident == HEADER_EXPECT \
                or ident == HEADER_COOKIE or ident == HEADER_AUTHORIZATION or ident == HEADER_RANGE or ident == HEADER_FORWARDED \
                or ident == HEADER_X_REAL_IP or HEADER_X_FORWARDED_FOR <= ident <= HEADER_X_FORWARDED_HOST \
                or ident == HEADER_X_FORWARDED_PORT
    return False


cdef uint8_t size_byte(Chunked* c, uint8_t b) noexcept nogil:
    """Next state within a size line: chunk-size [ chunk-ext ] CR, no white space anywhere outside of quotes."""
    cdef int digit
    c.line_bytes += 1
    if c.line_bytes > CHUNKED_LINE_BYTES_MAX:
        return CHUNK_REFUSED
    if c.state == CHUNK_EXT_QUOTED:
        if b == c'"':
            return CHUNK_EXT_END
        if b == c"\\":
            return CHUNK_EXT_ESCAPED
        return CHUNK_EXT_QUOTED if text_byte(b) else CHUNK_REFUSED
    if c.state == CHUNK_EXT_ESCAPED:
        return CHUNK_EXT_QUOTED if text_byte(b) else CHUNK_REFUSED
    if c.state == CHUNK_SIZE:
        digit = hex_value(b)
        if digit >= 0:
            if c.line_bytes > CHUNK_DIGITS_MAX or c.remaining >> 59:
                return CHUNK_REFUSED
            c.remaining = (c.remaining << 4) | <uint64_t>digit
            return CHUNK_SIZE
        if c.line_bytes == 1:
            return CHUNK_REFUSED
    elif TOKEN[b] and c.state != CHUNK_EXT_END:
        c.name_bytes += 1
        return CHUNK_EXT_TOKEN if c.state == CHUNK_EXT_VALUE else c.state
    elif c.state == CHUNK_EXT_VALUE:
        return CHUNK_EXT_QUOTED if b == c'"' else CHUNK_REFUSED
    elif c.state == CHUNK_EXT_NAME:
        if c.name_bytes == 0:
            return CHUNK_REFUSED
        if b == c"=":
            return CHUNK_EXT_VALUE
    if b == c";":
        c.name_bytes = 0
        return CHUNK_EXT_NAME
    return CHUNK_SIZE_LF if b == c"\r" else CHUNK_REFUSED


cdef uint8_t trailer_byte(Chunked* c, uint8_t b) noexcept nogil:
    """Next state within the trailer section: field lines, checked and dropped, then CR."""
    c.trailer_bytes += 1
    if c.trailer_bytes > CHUNKED_TRAILER_BYTES_MAX:
        return CHUNK_REFUSED
    if c.state == CHUNK_TRAILER_VALUE:
        if b == c"\r":
            return CHUNK_TRAILER_LF
        return CHUNK_TRAILER_VALUE if text_byte(b) else CHUNK_REFUSED
    if c.state == CHUNK_TRAILER:
        if b == c"\r":
            return CHUNK_LAST_LF
        c.name_hash = 0
        c.name_bytes = 0
    if TOKEN[b]:
        c.name_hash = spelled(c.name_hash, b)
        c.name_bytes += 1
        return CHUNK_TRAILER_NAME
    if b != c":" or c.name_bytes == 0 or trailer_refused(c.name_hash, c.name_bytes):
        return CHUNK_REFUSED
    return CHUNK_TRAILER_VALUE


cdef uint8_t line_feed(Chunked* c) noexcept nogil:
    """Next state after the LF that a CR asked for."""
    if c.state == CHUNK_SIZE_LF:
        c.line_bytes = 0
        c.name_bytes = 0
        if c.remaining:
            return CHUNK_BODY
        c.trailer_seen = 1
        return CHUNK_TRAILER
    if c.state == CHUNK_BODY_LF:
        return CHUNK_SIZE
    c.trailer_bytes += 1
    return CHUNK_TRAILER if c.state == CHUNK_TRAILER_LF else CHUNK_DONE


cdef int chunked_feed(Chunked* c, const uint8_t* data, uint32_t length, uint32_t* consumed, Span* run) noexcept nogil:
    cdef uint32_t i = 0
    cdef uint8_t b, following
    run.off = run.len = 0
    while c.state < CHUNK_DONE:
        if i == length:
            consumed[0] = i
            return CHUNKED_MORE
        if c.state == CHUNK_BODY:
            run.off = i
            run.len = length - i if length - i < c.remaining else <uint32_t>c.remaining
            c.remaining -= run.len
            if c.remaining == 0:
                c.state = CHUNK_BODY_CR
            consumed[0] = i + run.len
            check(consumed[0] <= length)
            return CHUNKED_DATA
        b = data[i]
        if c.state < CHUNK_SIZE_LF:
            following = size_byte(c, b)
        elif c.state == CHUNK_BODY_CR:
            following = CHUNK_BODY_LF if b == c"\r" else CHUNK_REFUSED
        elif c.state == CHUNK_TRAILER_LF or c.state == CHUNK_LAST_LF or c.state == CHUNK_SIZE_LF or c.state == CHUNK_BODY_LF:
            following = line_feed(c) if b == c"\n" else CHUNK_REFUSED
        else:
            following = trailer_byte(c, b)
        c.state = following
        if following == CHUNK_REFUSED:
            break
        i += 1
    check(i <= length)
    consumed[0] = i
    return CHUNKED_END if c.state == CHUNK_DONE else CHUNKED_BAD
