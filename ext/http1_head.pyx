# Request and response heads: start line, then fields (http1.pyx), then what they mean together. Contract in http1.pxd.
# Owns nothing. Invariant: a head that came in pieces is read as one that came whole; its lines are judged as soon as they are complete.

cdef inline bint wait_for_line(const uint8_t* data, uint32_t length, uint32_t* scan, uint32_t line_bytes_max) noexcept nogil:
    """Nothing to judge yet: no line has ended in data[scan:length]. Keeps a head that comes byte by byte cheap."""
    if scan[0] == 0 or length > line_bytes_max:
        return False
    if scan[0] < length and memchr(data + scan[0], c"\n", length - scan[0]) != NULL:
        return False
    scan[0] = length
    return True


cdef int parse_method(const uint8_t* text, uint32_t length, uint8_t* method) noexcept nogil:
    """A known method, METHOD_OTHER for another token. A known one in other letters is refused: some origins would fold it, rules do not."""
    cdef int i
    cdef uint32_t known_len
    method[0] = METHOD_OTHER
    for i in range(METHOD_GET, METHOD_CONNECT + 1):
        known_len = <uint32_t>strlen(METHOD_NAMES[i])
        if length == known_len and fold_equal(text, <const uint8_t*>METHOD_NAMES[i], length):
            if memcmp(text, METHOD_NAMES[i], length) != 0 or i == METHOD_TRACE or i == METHOD_CONNECT:
                return HTTP1_METHOD_REFUSED
            method[0] = <uint8_t>i
            return HTTP1_OK
    return HTTP1_OK


cdef int parse_version(const uint8_t* p, const uint8_t* end, uint8_t* minor) noexcept nogil:
    """HTTP/1.0 or HTTP/1.1 at p, not looked past (RFC 9112 2.3)."""
    if end - p < 8:
        return HTTP1_BAD_VERSION if memchr(p, c"\n", <size_t>(end - p)) != NULL else HTTP1_MORE
    if memcmp(p, <const char*>b"HTTP/", 5) != 0 or not c"0" <= p[5] <= c"9" or p[6] != c"." or not c"0" <= p[7] <= c"9":
        return HTTP1_BAD_VERSION
    if p[5] != c"1" or p[7] > c"1":
        return HTTP1_VERSION_UNSUPPORTED
    minor[0] = p[7] - c"0"
    return HTTP1_OK


cdef int parse_line_end(const uint8_t* p, const uint8_t* end) noexcept nogil:
    if p == end:
        return HTTP1_MORE
    if p[0] != c"\r":
        return HTTP1_BAD_LINE_END if p[0] == c"\n" else HTTP1_BAD_VERSION
    if p + 1 == end:
        return HTTP1_MORE
    return HTTP1_OK if p[1] == c"\n" else HTTP1_BAD_LINE_END


cdef int request_line(const uint8_t* data, uint32_t end_at, uint32_t line_bytes_max, RequestHead* out, uint32_t* next_at) noexcept nogil:
    """method SP request-target SP HTTP-version CRLF, one empty line before it overlooked (RFC 9112 2.2, 3)."""
    cdef const uint8_t* p = data
    cdef const uint8_t* end = data + end_at
    cdef const uint8_t* line
    cdef const uint8_t* start
    cdef int rc
    if p < end and p[0] == c"\r":
        if p + 1 == end:
            return HTTP1_MORE
        if p[1] != c"\n":
            return HTTP1_BAD_LINE_END
        p += 2
    line = p
    p = scan_class(p, end, TOKEN)
    if p - line > METHOD_BYTES_MAX:
        return HTTP1_METHOD_REFUSED
    if p == end:
        return HTTP1_MORE
    if p == line:
        return HTTP1_BAD_LINE_END if p[0] == c"\r" or p[0] == c"\n" else HTTP1_BAD_METHOD
    if p[0] != c" ":
        return HTTP1_BAD_METHOD
    out.method_text.off = <uint32_t>(line - data)
    out.method_text.len = <uint32_t>(p - line)
    rc = parse_method(line, out.method_text.len, &out.method)
    if rc != HTTP1_OK:
        return rc
    start = p + 1
    p = scan_target(start, end)
    if p - line > line_bytes_max:
        return HTTP1_LINE_TOO_LONG
    if p == end:
        return HTTP1_MORE
    if p == start or p[0] != c" ":
        return HTTP1_BAD_VERSION if p > start and (p[0] == c"\r" or p[0] == c"\n") else HTTP1_BAD_TARGET
    out.target.off = <uint32_t>(start - data)
    out.target.len = <uint32_t>(p - start)
    rc = parse_version(p + 1, end, &out.minor)
    if rc != HTTP1_OK:
        return rc
    p += 9
    if p - line > line_bytes_max:
        return HTTP1_LINE_TOO_LONG
    rc = parse_line_end(p, end)
    if rc == HTTP1_OK:
        next_at[0] = <uint32_t>(p + 2 - data)
    return rc


cdef int absolute_form(const uint8_t* data, RequestHead* out, uint32_t* host_len, uint32_t* port) noexcept nogil:
    """Takes scheme and authority off an absolute-form target; authority is left in out.authority, the scheme's port where none is named."""
    cdef const uint8_t* text = data + out.target.off
    cdef uint32_t length = out.target.len, scheme, at
    if length > 7 and fold_equal(text, <const uint8_t*>b"http://", 7):
        scheme = 7
    elif length > 8 and fold_equal(text, <const uint8_t*>b"https://", 8):
        scheme = 8
    else:
        return HTTP1_BAD_TARGET
    at = scheme
    while at < length and text[at] != c"/" and text[at] != c"?":
        at += 1
    out.authority.off = out.target.off + scheme
    out.authority.len = at - scheme
    if not parse_authority(text + scheme, at - scheme, host_len, port):
        return HTTP1_BAD_TARGET
    if port[0] == 0:
        port[0] = 80 if scheme == 7 else 443
    if at == length:
        # An empty path is "/" (RFC 9112 3.2.1): the slash before the authority stands for it. Of OPTIONS it would be "*": there is none.
        if out.method == METHOD_OPTIONS:
            return HTTP1_BAD_TARGET
        out.target.off += scheme - 1
        out.target.len = 1
        return HTTP1_OK
    if text[at] == c"?":
        return HTTP1_BAD_TARGET
    out.target.off += at
    out.target.len = length - at
    return HTTP1_OK


cdef int parse_target(const uint8_t* data, RequestHead* out, uint32_t* host_len, uint32_t* port) noexcept nogil:
    """origin-form, absolute-form, or `*` of OPTIONS (RFC 9112 3.2); path and query apart. host_len 0: the target names no host."""
    cdef const uint8_t* mark
    cdef int rc
    host_len[0] = 0
    if data[out.target.off] != c"/":
        if out.target.len == 1 and data[out.target.off] == c"*" and out.method == METHOD_OPTIONS:
            out.path = out.target
            return HTTP1_OK
        rc = absolute_form(data, out, host_len, port)
        if rc != HTTP1_OK:
            return rc
    out.path = out.target
    mark = <const uint8_t*>memchr(data + out.target.off, c"?", out.target.len)
    if mark != NULL:
        out.path.len = <uint32_t>(mark - data) - out.target.off
        out.query.off = <uint32_t>(mark + 1 - data)
        out.query.len = out.target.len - out.path.len - 1
    # No URI has a backslash (RFC 3986), no browser sends one in a path, and some origins take it for a slash.
    if memchr(data + out.path.off, c"\\", out.path.len) != NULL:
        return HTTP1_BAD_TARGET
    return HTTP1_OK


cdef int parse_host(const uint8_t* data, RequestHead* out, uint32_t target_host_len, uint32_t target_port) noexcept nogil:
    """Host, and that an absolute-form target agrees with it (RFC 9112 3.2)."""
    cdef const Header* h
    cdef uint32_t host_len, port
    cdef const uint8_t* target_host = data + out.authority.off
    if out.first[HEADER_HOST] < 0:
        if out.minor:
            return HTTP1_MISSING_HOST
        out.host.off = out.authority.off
        out.host.len = target_host_len
        return HTTP1_OK
    h = &out.headers[out.first[HEADER_HOST]]
    if not parse_authority(data + h.value_off, h.value_len, &host_len, &port):
        return HTTP1_BAD_HOST
    if target_host_len:
        if port == 0:
            # The scheme's default: 443 only where the target was https.
            port = 443 if fold((target_host - 4)[0]) == c"s" else 80
        if host_len != target_host_len or port != target_port or not fold_equal(data + h.value_off, target_host, host_len):
            return HTTP1_HOST_MISMATCH
    out.host.off = h.value_off
    out.host.len = host_len
    out.authority.off = h.value_off
    out.authority.len = h.value_len
    return HTTP1_OK


cdef int parse_expect(const uint8_t* data, RequestHead* out) noexcept nogil:
    """Nothing but 100-continue (RFC 9110 10.1.1), which HTTP/1.0 does not know and a request without a body does not need."""
    cdef int32_t i
    for i in range(out.first[HEADER_EXPECT], out.header_count):
        if out.headers[i].id == HEADER_EXPECT and not folds_to(data + out.headers[i].value_off, out.headers[i].value_len, "100-continue"):
            return HTTP1_BAD_EXPECT
    out.expect_continue = out.minor == 1 and (out.body == BODY_CHUNKED or out.content_length > 0)
    return HTTP1_OK


cdef uint32_t ranges_asked(const uint8_t* data, const RequestHead* head) noexcept nogil:
    cdef const uint8_t* p
    cdef const uint8_t* end
    cdef uint32_t found = 0
    cdef int32_t i
    if head.first[HEADER_RANGE] < 0:
        return 0
    for i in range(head.first[HEADER_RANGE], head.header_count):
        if head.headers[i].id != HEADER_RANGE:
            continue
        found += 1
        p = data + head.headers[i].value_off
        end = p + head.headers[i].value_len
        while p < end:
            p = <const uint8_t*>memchr(p, c",", <size_t>(end - p))
            if p == NULL:
                break
            found += 1
            p += 1
    return found


cdef int request_meaning(const uint8_t* data, RequestHead* out, uint32_t target_host_len, uint32_t target_port) noexcept nogil:
    cdef bint close, keep_alive, upgrade
    cdef int rc = parse_host(data, out, target_host_len, target_port)
    if rc == HTTP1_OK:
        rc = parse_framing(data, out.headers, out.first, out.minor, &out.body, &out.content_length)
    if rc == HTTP1_OK:
        rc = parse_connection(data, out.headers, out.header_count, out.first, &close, &keep_alive, &upgrade)
    if rc != HTTP1_OK:
        return rc
    out.keep_alive = not close and (out.minor == 1 or keep_alive)
    if out.first[HEADER_EXPECT] >= 0:
        rc = parse_expect(data, out)
        if rc != HTTP1_OK:
            return rc
    if out.first[HEADER_UPGRADE] >= 0 and upgrade and out.minor == 1:
        if not sound_upgrade(data, out.headers, out.header_count, out.first):
            return HTTP1_BAD_UPGRADE
        out.upgrade = True
    return HTTP1_OK


cdef void fields_check(const Header* headers, uint16_t count, uint32_t head_bytes) noexcept nogil:
    cdef uint16_t i
    check(count <= HEADERS_MAX)
    for i in range(count):
        check(headers[i].name_off + headers[i].name_len < headers[i].value_off + headers[i].value_len + 1)
        check(headers[i].value_off + headers[i].value_len < head_bytes)


cdef void request_check(const RequestHead* head) noexcept nogil:
    """Everything that a head points at is within it."""
    check(head.head_bytes <= HEAD_BYTES_MAX)
    check(head.method_text.off + head.method_text.len < head.head_bytes)
    check(head.target.off + head.target.len < head.head_bytes)
    check(head.path.off + head.path.len < head.head_bytes)
    check(head.query.off + head.query.len < head.head_bytes)
    check(head.host.off + head.host.len < head.head_bytes)
    check(head.authority.off + head.authority.len < head.head_bytes)
    fields_check(head.headers, head.header_count, head.head_bytes)


cdef void response_check(const ResponseHead* head) noexcept nogil:
    check(head.head_bytes <= HEAD_BYTES_MAX)
    check(head.reason.off + head.reason.len < head.head_bytes)
    fields_check(head.headers, head.header_count, head.head_bytes)


cdef int request_parse(const uint8_t* data, uint32_t length, uint32_t* scan, const Http1Limits* limits, RequestHead* out) noexcept nogil:
    cdef uint32_t head_max = limits.head_bytes_max if limits.head_bytes_max < HEAD_BYTES_MAX else HEAD_BYTES_MAX
    cdef uint32_t headers_max = limits.headers_max if limits.headers_max < HEADERS_MAX else HEADERS_MAX
    cdef uint32_t end_at = length if length < head_max else head_max
    cdef uint32_t next_at = 0, target_host_len = 0, target_port = 0
    cdef int rc
    if wait_for_line(data, length, scan, limits.line_bytes_max if limits.line_bytes_max < head_max else head_max - 1):
        return HTTP1_MORE
    memset(out, 0, <size_t>(<uint8_t*>&out.headers - <uint8_t*>out))
    rc = request_line(data, end_at, limits.line_bytes_max, out, &next_at)
    if rc == HTTP1_OK:
        rc = parse_target(data, out, &target_host_len, &target_port)
        if rc == HTTP1_OK:
            rc = parse_fields(data, next_at, end_at, limits.line_bytes_max, headers_max, out.headers, out.first, &out.header_count,
                              &out.head_bytes)
        if rc == HTTP1_OK:
            rc = request_meaning(data, out, target_host_len, target_port)
            if SCRUBBER_CHECKS and rc == HTTP1_OK:
                request_check(out)
            return rc
    if rc == HTTP1_MORE:
        if length >= head_max:
            return HTTP1_LINE_TOO_LONG if next_at == 0 else HTTP1_HEAD_TOO_LARGE
        scan[0] = length
    return rc


cdef void request_fields(const uint8_t* data, uint32_t length, const Http1Limits* limits, RequestHead* out) noexcept nogil:
    cdef uint32_t end_at = length if length < HEAD_BYTES_MAX else HEAD_BYTES_MAX
    cdef uint32_t headers_max = limits.headers_max if limits.headers_max < HEADERS_MAX else HEADERS_MAX
    cdef uint32_t line_at = 2 if end_at > 1 and data[0] == c"\r" and data[1] == c"\n" else 0
    cdef const uint8_t* line_end = <const uint8_t*>memchr(data + line_at, c"\n", end_at - line_at)
    if line_end == NULL:
        line_end = data + end_at - 1        # no field has begun
    parse_fields(data, <uint32_t>(line_end + 1 - data), end_at, limits.line_bytes_max, headers_max, out.headers, out.first,
                 &out.header_count, &out.head_bytes)


cdef int status_line(const uint8_t* data, uint32_t end_at, uint32_t line_bytes_max, ResponseHead* out, uint32_t* next_at) noexcept nogil:
    """HTTP-version SP status-code [ SP reason-phrase ] CRLF (RFC 9112 4); the space before an empty reason may be missing."""
    cdef const uint8_t* p = data
    cdef const uint8_t* end = data + end_at
    cdef const uint8_t* start
    cdef int rc = parse_version(p, end, &out.minor)
    if rc != HTTP1_OK:
        return rc
    p += 8
    if end - p < 5:
        return HTTP1_BAD_STATUS if memchr(p, c"\n", <size_t>(end - p)) != NULL else HTTP1_MORE
    if p[0] != c" " or not c"1" <= p[1] <= c"5" or not c"0" <= p[2] <= c"9" or not c"0" <= p[3] <= c"9":
        return HTTP1_BAD_STATUS
    out.status = <uint16_t>((p[1] - c"0") * 100 + (p[2] - c"0") * 10 + (p[3] - c"0"))
    p += 4
    if p[0] != c" " and p[0] != c"\r":
        return HTTP1_BAD_LINE_END if p[0] == c"\n" else HTTP1_BAD_STATUS
    start = p + 1 if p[0] == c" " else p
    p = scan_value(start, end)
    if p - data > line_bytes_max:
        return HTTP1_LINE_TOO_LONG
    out.reason.off = <uint32_t>(start - data)
    out.reason.len = <uint32_t>(p - start)
    rc = parse_line_end(p, end)
    if rc == HTTP1_OK:
        next_at[0] = <uint32_t>(p + 2 - data)
    return HTTP1_BAD_STATUS if rc == HTTP1_BAD_VERSION else rc


cdef int response_body(ResponseHead* out, uint8_t request_method) noexcept nogil:
    """What follows the head (RFC 9112 6.3). A body is never announced where there can be none, but for what HEAD and 304 speak of."""
    cdef bint bodiless = out.status < 200 or out.status == 204
    out.has_content_length = out.body == BODY_LENGTH
    if bodiless and out.body == BODY_CHUNKED:
        return HTTP1_BAD_TRANSFER_ENCODING
    if bodiless and out.content_length:
        return HTTP1_BAD_CONTENT_LENGTH
    if bodiless or out.status == 304 or request_method == METHOD_HEAD:
        out.body = BODY_NONE
    elif out.body == BODY_NONE:
        out.body = BODY_CLOSE
    return HTTP1_OK


cdef int response_meaning(const uint8_t* data, uint8_t request_method, ResponseHead* out) noexcept nogil:
    cdef bint close, keep_alive, upgrade
    cdef int rc = parse_framing(data, out.headers, out.first, out.minor, &out.body, &out.content_length)
    if rc == HTTP1_OK:
        rc = response_body(out, request_method)
    if rc == HTTP1_OK:
        rc = parse_connection(data, out.headers, out.header_count, out.first, &close, &keep_alive, &upgrade)
    if rc != HTTP1_OK:
        return rc
    out.upgrade = out.status == 101
    if out.upgrade and (out.first[HEADER_UPGRADE] < 0 or not upgrade or out.minor == 0
                        or not sound_upgrade(data, out.headers, out.header_count, out.first)):
        return HTTP1_BAD_UPGRADE
    out.keep_alive = not close and not out.upgrade and (out.minor == 1 or keep_alive) and out.body != BODY_CLOSE
    return HTTP1_OK


cdef int response_parse(const uint8_t* data, uint32_t length, uint32_t* scan, const Http1Limits* limits, uint8_t request_method,
                        ResponseHead* out) noexcept nogil:
    cdef uint32_t head_max = limits.head_bytes_max if limits.head_bytes_max < HEAD_BYTES_MAX else HEAD_BYTES_MAX
    cdef uint32_t headers_max = limits.headers_max if limits.headers_max < HEADERS_MAX else HEADERS_MAX
    cdef uint32_t end_at = length if length < head_max else head_max
    cdef uint32_t next_at = 0
    cdef int rc
    if wait_for_line(data, length, scan, limits.line_bytes_max if limits.line_bytes_max < head_max else head_max - 1):
        return HTTP1_MORE
    memset(out, 0, <size_t>(<uint8_t*>&out.headers - <uint8_t*>out))
    rc = status_line(data, end_at, limits.line_bytes_max, out, &next_at)
    if rc == HTTP1_OK:
        rc = parse_fields(data, next_at, end_at, limits.line_bytes_max, headers_max, out.headers, out.first, &out.header_count,
                          &out.head_bytes)
        if rc == HTTP1_OK:
            rc = response_meaning(data, request_method, out)
            if SCRUBBER_CHECKS and rc == HTTP1_OK:
                response_check(out)
            return rc
    if rc == HTTP1_MORE:
        if length >= head_max:
            return HTTP1_LINE_TOO_LONG if next_at == 0 else HTTP1_HEAD_TOO_LARGE
        scan[0] = length
    return rc
