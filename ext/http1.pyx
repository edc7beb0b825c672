# Strict HTTP/1.1 heads (RFC 9110, 9112): one pass over the bytes, spans out. The bodies' framing is in chunked.pyx, paths in path.pyx.
# Owns the tables of names, filled at import and only read afterwards. Invariants: nothing past data + length is read; nothing after
# head_bytes has a say; what two readers could read differently is refused, never repaired.
from libc.string cimport strlen

cdef extern from "scan.h" nogil:
    const uint8_t* scan_value(const uint8_t* p, const uint8_t* end) noexcept
    const uint8_t* scan_target(const uint8_t* p, const uint8_t* end) noexcept
    const uint8_t* scan_plain(const uint8_t* p, const uint8_t* end) noexcept
    const uint8_t* scan_class(const uint8_t* p, const uint8_t* end, const uint8_t* table) noexcept
    void put_hex_digits(uint64_t value, uint8_t* out) noexcept
    uint64_t scan_load8(const void* p) noexcept
    uint64_t fold8(uint64_t x) noexcept
    uint32_t scan_name_hash(const uint8_t* name, uint32_t n) noexcept
    bint scan_name_is(const uint8_t* name, const char* known, uint32_t n) noexcept

cdef enum:
    NAME_SLOTS = 128            # open addressing over the known names, a power of two
    METHOD_BYTES_MAX = 32
    CONNECTION_OPTIONS_MAX = 16
    HOST_BYTES_MAX = 255

    HOST_LETTER = 1             # byte classes of a registered name
    HOST_DOT = 2

cdef uint8_t TOKEN[256]         # 0: not a token character (RFC 9110 5.6.2), else the character, case-folded
cdef uint8_t HOST_CLASS[256]
cdef const char* HEADER_NAMES[29]
cdef uint32_t HEADER_LENGTHS[29]
cdef uint32_t HEADER_HASHES[29]
cdef uint8_t HEADER_FLAGS[29]
cdef uint8_t HEADER_OPTION[29]  # may be named by Connection
cdef uint8_t NAME_SLOT[128]     # NAME_SLOTS: header id, 0: free
cdef const char* METHOD_NAMES[10]
cdef const char* REASON_NAMES[48]


cdef void http1_tables() noexcept:
    cdef int i
    cdef uint32_t slot
    cdef const char* marks = "!#$%&'*+-.^_`|~"
    for i in range(256):
        TOKEN[i] = fold(<uint8_t>i) if c"0" <= i <= c"9" or c"a" <= i <= c"z" or c"A" <= i <= c"Z" else 0
        HOST_CLASS[i] = HOST_LETTER if TOKEN[i] else 0
    HOST_CLASS[c"-"] = HOST_CLASS[c"_"] = HOST_LETTER
    HOST_CLASS[c"."] = HOST_DOT
    for i in range(15):
        TOKEN[<uint8_t>marks[i]] = <uint8_t>marks[i]
    HEADER_NAMES[:] = [
        "", "host", "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade",
        "expect", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "cookie", "authorization", "user-agent",
        "accept", "referer", "date", "server", "x-request-id", "via", "range", "proxy-authorization", "x-real-ip", "x-forwarded-port",
        "proxy-authenticate"]
    METHOD_NAMES[:] = ["", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"]
    REASON_NAMES[:] = [
        "ok", "more", "bad_method", "bad_target", "bad_version", "version_unsupported", "bad_line_end", "bad_header_name",
        "bad_header_value", "obs_fold", "bad_host", "missing_host", "duplicate_host", "host_mismatch", "bad_content_length",
        "length_and_chunked", "bad_transfer_encoding", "line_too_long", "head_too_large", "too_many_headers", "bad_chunk", "bad_trailer",
        "bad_status", "bad_connection", "method_refused", "bad_expect", "bad_upgrade", "too_many_ranges", "bad_proxy_header",
        "path_too_long", "plain_http_to_tls_port", "bad_client_hello", "unknown_server_name", "too_many_handshakes", "handshake_failed",
        "handshake_late", "http2_broken", "http2_late", "http2_resets", "http2_pings", "http2_settings", "http2_priorities",
        "http2_empty_data", "http2_window_updates", "http2_unknown_frames", "http2_header_bomb", "http2_continuations",
        "http2_windows_held"]
    memset(NAME_SLOT, 0, sizeof(NAME_SLOT))
    for i in range(1, HEADER_IDS):
        HEADER_LENGTHS[i] = <uint32_t>strlen(HEADER_NAMES[i])
        HEADER_HASHES[i] = http1_name_hash(<const uint8_t*>HEADER_NAMES[i], HEADER_LENGTHS[i])
        HEADER_FLAGS[i] = 0
        HEADER_OPTION[i] = 0
        slot = HEADER_HASHES[i] & (NAME_SLOTS - 1)
        while NAME_SLOT[slot]:
            slot = (slot + 1) & (NAME_SLOTS - 1)
        NAME_SLOT[slot] = <uint8_t>i
    for i in (HEADER_CONNECTION, HEADER_KEEP_ALIVE, HEADER_PROXY_CONNECTION, HEADER_TE, HEADER_TRAILER, HEADER_UPGRADE,
              HEADER_TRANSFER_ENCODING, HEADER_PROXY_AUTHORIZATION, HEADER_PROXY_AUTHENTICATE):
        HEADER_FLAGS[i] = HEADER_HOP
    for i in (HEADER_KEEP_ALIVE, HEADER_PROXY_CONNECTION, HEADER_TE, HEADER_TRAILER, HEADER_UPGRADE, HEADER_PROXY_AUTHORIZATION,
              HEADER_PROXY_AUTHENTICATE):
        HEADER_OPTION[i] = 1


http1_tables()


cdef uint16_t http1_status(int reason) noexcept nogil:
    if reason == HTTP1_VERSION_UNSUPPORTED:
        return 505
    if reason == HTTP1_LINE_TOO_LONG or reason == HTTP1_PATH_TOO_LONG:
        return 414
    if reason == HTTP1_HEAD_TOO_LARGE or reason == HTTP1_TOO_MANY_HEADERS:
        return 431
    if reason == HTTP1_METHOD_REFUSED:
        return 501
    if reason == HTTP1_BAD_EXPECT:
        return 417
    if reason == HTTP1_TOO_MANY_RANGES:
        return 416
    if reason == HTTP1_BAD_STATUS:
        return 502
    return 400


cdef const char* http1_reason(int reason) noexcept nogil:
    return REASON_NAMES[reason if 0 <= reason < HTTP1_REASONS else HTTP1_OK]


cdef inline uint8_t fold(uint8_t c) noexcept nogil:
    return c | 0x20 if c"A" <= c <= c"Z" else c


cdef uint32_t http1_name_hash(const uint8_t* name, uint32_t length) noexcept nogil:
    return scan_name_hash(name, length)


cdef inline bint fold_equal(const uint8_t* a, const uint8_t* b, uint32_t length) noexcept nogil:
    cdef uint32_t i
    for i in range(length):
        if fold(a[i]) != fold(b[i]):
            return False
    return True


cdef inline bint folds_to(const uint8_t* text, uint32_t length, const char* word) noexcept nogil:
    """text is word (lower case) in any case."""
    return length == strlen(word) and fold_equal(text, <const uint8_t*>word, length)


cdef int32_t http1_find(const uint8_t* data, const Header* headers, uint32_t count, uint32_t start, const uint8_t* name, uint32_t length,
                        uint32_t name_hash) noexcept nogil:
    cdef uint32_t i
    for i in range(start, count):
        if headers[i].name_hash == name_hash and headers[i].name_len == length and fold_equal(data + headers[i].name_off, name, length):
            return <int32_t>i
    return -1


cdef inline uint8_t header_id(const uint8_t* name, uint32_t length, uint32_t name_hash) noexcept nogil:
    """HEADER_* of a token."""
    cdef uint32_t slot = name_hash & (NAME_SLOTS - 1)
    cdef uint8_t found = NAME_SLOT[slot]
    while found:
        if HEADER_HASHES[found] == name_hash and HEADER_LENGTHS[found] == length and scan_name_is(name, HEADER_NAMES[found], length):
            return found
        slot = (slot + 1) & (NAME_SLOTS - 1)
        found = NAME_SLOT[slot]
    return HEADER_OTHER


cdef bint underscore_twin(const uint8_t* name, uint32_t length) noexcept nogil:
    """`X_Forwarded_For` is X-Forwarded-For to an origin behind CGI or WSGI: such a twin of a name that we read or write is refused."""
    cdef uint8_t dashed[32]
    cdef uint32_t i
    if length > sizeof(dashed):
        return False
    for i in range(length):
        dashed[i] = c"-" if name[i] == c"_" else fold(name[i])
    return header_id(dashed, length, http1_name_hash(dashed, length)) != HEADER_OTHER


cdef int parse_fields(const uint8_t* data, uint32_t at, uint32_t end_at, uint32_t line_bytes_max, uint32_t headers_max, Header* headers,
                      int16_t* first, uint16_t* count, uint32_t* head_bytes) noexcept nogil:
    """Field lines up to and including the empty line (RFC 9112 5). HTTP1_MORE: data[:end_at] ended before it."""
    cdef const uint8_t* p = data + at
    cdef const uint8_t* end = data + end_at
    cdef const uint8_t* name
    cdef const uint8_t* value
    cdef const uint8_t* stop
    cdef uint32_t name_hash, n = 0
    cdef uint8_t ident
    cdef Header* h
    memset(first, 0xFF, HEADER_IDS * sizeof(int16_t))
    count[0] = 0
    while True:
        if p == end:
            return HTTP1_MORE
        name = p
        p = scan_class(p, end, TOKEN)
        if p == end:
            return HTTP1_MORE
        if p == name:
            if p[0] != c"\r":
                return HTTP1_OBS_FOLD if p[0] == c" " or p[0] == c"\t" else HTTP1_BAD_LINE_END if p[0] == c"\n" else HTTP1_BAD_HEADER_NAME
            if p + 1 == end:
                return HTTP1_MORE
            if p[1] != c"\n":
                return HTTP1_BAD_LINE_END
            head_bytes[0] = <uint32_t>(p + 2 - data)
            return HTTP1_OK
        if n >= headers_max:
            return HTTP1_TOO_MANY_HEADERS
        if p[0] != c":":
            return HTTP1_BAD_HEADER_NAME
        h = &headers[n]
        h.name_off = <uint32_t>(name - data)
        h.name_len = <uint16_t>(p - name)
        name_hash = scan_name_hash(name, h.name_len)
        h.name_hash = name_hash
        p += 1
        while p < end and (p[0] == c" " or p[0] == c"\t"):
            p += 1
        value = p
        p = scan_value(p, end)
        if p == end:
            return HTTP1_MORE
        if p[0] != c"\r":
            return HTTP1_BAD_LINE_END if p[0] == c"\n" else HTTP1_BAD_HEADER_VALUE
        if p + 1 == end:
            return HTTP1_MORE
        if p[1] != c"\n":
            return HTTP1_BAD_LINE_END
        if p - name > line_bytes_max:
            return HTTP1_HEAD_TOO_LARGE
        stop = p
        p += 2
        while stop > value and ((stop - 1)[0] == c" " or (stop - 1)[0] == c"\t"):
            stop -= 1
        h.value_off = <uint32_t>(value - data)
        h.value_len = <uint32_t>(stop - value)
        ident = header_id(name, h.name_len, name_hash)
        h.id = ident
        h.flags = HEADER_FLAGS[ident]
        if ident:
            if first[ident] < 0:
                first[ident] = <int16_t>n
            elif ident == HEADER_HOST:
                return HTTP1_DUPLICATE_HOST
            elif ident == HEADER_CONTENT_LENGTH:
                return HTTP1_BAD_CONTENT_LENGTH
            elif ident == HEADER_TRANSFER_ENCODING:
                return HTTP1_BAD_TRANSFER_ENCODING
        elif memchr(name, c"_", h.name_len) != NULL and underscore_twin(name, h.name_len):
            return HTTP1_BAD_HEADER_NAME
        n += 1
        count[0] = <uint16_t>n      # also where a later one is refused


cdef bint parse_decimal(const uint8_t* text, uint32_t length, uint64_t* out) noexcept nogil:
    """1*DIGIT, below 2^63."""
    cdef uint64_t value = 0
    cdef uint32_t i
    if length == 0:
        return False
    for i in range(length):
        if not c"0" <= text[i] <= c"9" or value > (<uint64_t>0x7FFFFFFFFFFFFFFF - (text[i] - c"0")) // 10:
            return False
        value = value * 10 + (text[i] - c"0")
    out[0] = value
    return True


cdef int parse_framing(const uint8_t* data, const Header* headers, const int16_t* first, uint8_t minor, uint8_t* body,
                       uint64_t* content_length) noexcept nogil:
    """BODY_NONE, BODY_LENGTH or BODY_CHUNKED out of Content-Length and Transfer-Encoding (RFC 9112 6). Repeats were refused before."""
    cdef const Header* h
    body[0] = BODY_NONE
    content_length[0] = 0
    if first[HEADER_TRANSFER_ENCODING] >= 0:
        if first[HEADER_CONTENT_LENGTH] >= 0:
            return HTTP1_LENGTH_AND_CHUNKED
        h = &headers[first[HEADER_TRANSFER_ENCODING]]
        # White space after the coding is sound (RFC 9110 5.5), but parsers in use read it differently: refused.
        if minor == 0 or not folds_to(data + h.value_off, h.value_len, "chunked") or data[h.value_off + h.value_len] != c"\r":
            return HTTP1_BAD_TRANSFER_ENCODING
        body[0] = BODY_CHUNKED
    elif first[HEADER_CONTENT_LENGTH] >= 0:
        h = &headers[first[HEADER_CONTENT_LENGTH]]
        if not parse_decimal(data + h.value_off, h.value_len, content_length):
            return HTTP1_BAD_CONTENT_LENGTH
        body[0] = BODY_LENGTH
    return HTTP1_OK


cdef bint next_element(const uint8_t* data, uint32_t* at, uint32_t end, Span* out) noexcept nogil:
    """Next comma-separated element of data[at:end], without the white space around it (RFC 9110 5.6.1). Empty ones come out empty."""
    cdef uint32_t p = at[0]
    if p > end:
        return False
    while p < end and (data[p] == c" " or data[p] == c"\t"):
        p += 1
    out.off = p
    while p < end and data[p] != c",":
        p += 1
    at[0] = p + 1
    while p > out.off and (data[p - 1] == c" " or data[p - 1] == c"\t"):
        p -= 1
    out.len = p - out.off
    return True


cdef bint is_token(const uint8_t* text, uint32_t length) noexcept nogil:
    cdef uint32_t i
    for i in range(length):
        if not TOKEN[text[i]]:
            return False
    return length > 0


cdef bint option_refused(const uint8_t* name, uint32_t length, uint8_t ident) noexcept nogil:
    """Connection may not take away what is meant for the origin (RFC 9110 7.6.1), nor what frames or proves the message."""
    if ident:
        return not HEADER_OPTION[ident]
    if length >= 8 and fold_equal(name, <const uint8_t*>b"content-", 8):
        return True
    return folds_to(name, length, "cache-control") or folds_to(name, length, "set-cookie") or folds_to(name, length, "origin")


cdef int parse_connection(const uint8_t* data, Header* headers, uint16_t count, const int16_t* first, bint* close, bint* keep_alive,
                          bint* upgrade) noexcept nogil:
    """Connection: close, keep-alive, upgrade, and names that make fields hop-by-hop (flagged)."""
    cdef uint32_t at, end, name_hash, options = 0
    cdef int32_t i, named
    cdef Span option
    close[0] = keep_alive[0] = upgrade[0] = False
    if first[HEADER_CONNECTION] < 0:
        return HTTP1_OK
    for i in range(first[HEADER_CONNECTION], count):
        if headers[i].id != HEADER_CONNECTION:
            continue
        at = headers[i].value_off
        end = at + headers[i].value_len
        while next_element(data, &at, end, &option):
            if option.len == 0:
                continue
            options += 1
            if options > CONNECTION_OPTIONS_MAX or not is_token(data + option.off, option.len):
                return HTTP1_BAD_CONNECTION
            if folds_to(data + option.off, option.len, "close"):
                close[0] = True
            elif folds_to(data + option.off, option.len, "keep-alive"):
                keep_alive[0] = True
            elif folds_to(data + option.off, option.len, "upgrade"):
                upgrade[0] = True
            else:
                name_hash = http1_name_hash(data + option.off, option.len)
                if option_refused(data + option.off, option.len, header_id(data + option.off, option.len, name_hash)):
                    return HTTP1_BAD_CONNECTION
                named = http1_find(data, headers, count, 0, data + option.off, option.len, name_hash)
                while named >= 0:
                    headers[named].flags |= HEADER_HOP
                    named = http1_find(data, headers, count, <uint32_t>named + 1, data + option.off, option.len, name_hash)
    return HTTP1_OK


cdef bint sound_upgrade(const uint8_t* data, const Header* headers, uint16_t count, const int16_t* first) noexcept nogil:
    """Upgrade = 1#( token [ "/" token ] ) (RFC 9110 7.8)."""
    cdef uint32_t at, end, protocols = 0
    cdef int32_t i
    cdef Span protocol
    cdef const uint8_t* slash
    for i in range(first[HEADER_UPGRADE], count):
        if headers[i].id != HEADER_UPGRADE:
            continue
        at = headers[i].value_off
        end = at + headers[i].value_len
        while next_element(data, &at, end, &protocol):
            if protocol.len == 0:
                continue
            protocols += 1
            slash = <const uint8_t*>memchr(data + protocol.off, c"/", protocol.len)
            if slash == NULL:
                slash = data + protocol.off + protocol.len
            elif not is_token(slash + 1, <uint32_t>(data + protocol.off + protocol.len - slash - 1)):
                return False
            if not is_token(data + protocol.off, <uint32_t>(slash - data - protocol.off)):
                return False
    return protocols > 0


cdef bint parse_authority(const uint8_t* text, uint32_t length, uint32_t* host_len, uint32_t* port) noexcept nogil:
    """uri-host [ ":" port ] (RFC 9110 7.2): no userinfo, no empty part. port 0: none was given."""
    cdef uint32_t i = 0
    cdef uint64_t number
    cdef uint8_t kind, before = HOST_DOT
    cdef Address ip
    if length and text[0] == c"[":
        while i < length and text[i] != c"]":
            i += 1
        if i == length or memchr(text, c":", i) == NULL or not address_parse(text + 1, i - 1, &ip):
            return False
        i += 1
    else:
        while i < length and text[i] != c":":
            kind = HOST_CLASS[text[i]]
            if kind == 0 or (kind == HOST_DOT and before == HOST_DOT):
                return False
            before = kind
            i += 1
    host_len[0] = i
    port[0] = 0
    if i == 0 or i > HOST_BYTES_MAX:
        return False
    if i == length:
        return True
    if text[i] != c":" or length - i > 6 or not parse_decimal(text + i + 1, length - i - 1, &number) or not 1 <= number <= 65535:
        return False
    port[0] = <uint32_t>number
    return True
