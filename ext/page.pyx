# Pages: see page.pxd. Invariants: Content-Length is the sum of the parts that page_pump sends; the policy that holds the bytes is held by
# the exchange; nothing but a request id, a case id and a status is ever filled into a body.
cdef extern from "time.h" nogil:
    int64_t c_timegm "timegm"(c_tm* parts)
    cdef struct c_tm "tm":
        int tm_sec
        int tm_min
        int tm_hour
        int tm_mday
        int tm_mon
        int tm_year

cdef const char* MONTHS = b"JanFebMarAprMayJunJulAugSepOctNovDec"


# --- bodies ------------------------------------------------------------------------------------------------------------------------------

cdef const uint8_t* part_bytes(const Exchange* x, const PartSpec* part, uint8_t* scratch, uint64_t* n) noexcept nogil:
    """Where the bytes of one part lie; scratch has room for what is made here (20 bytes)."""
    cdef Writer w
    if part.kind == PART_TEXT:
        n[0] = part.text.len
        return x.policy.policy.text + part.text.off
    if part.kind == PART_REQUEST_ID and x.id_len:
        n[0] = x.id_len
        return x.id_text
    w.at = scratch
    w.end = scratch + 20
    w.full = False
    if part.kind == PART_REQUEST_ID:
        put_hex16(&w, x.request_id)
    elif part.kind == PART_CASE and x.judgement.case_id:
        put_hex16(&w, x.judgement.case_id)
    elif part.kind == PART_STATUS:
        put_uint(&w, x.status)
    n[0] = <uint64_t>(w.at - scratch)
    return scratch


cdef uint64_t body_bytes(const Exchange* x, const PageSpec* page) noexcept nogil:
    cdef uint8_t scratch[20]
    cdef uint64_t n, total = 0
    cdef uint32_t i
    for i in range(page.body.len):
        part_bytes(x, &x.policy.policy.parts[page.body.off + i], scratch, &n)
        total += n
    return total


cdef void body_begin(Exchange* x, Writer* w) noexcept nogil:
    """As much of the body as fits behind the head; what is left stays with the exchange."""
    cdef const PageSpec* page = x.page
    cdef const uint8_t* data
    cdef uint8_t scratch[20]
    cdef uint64_t n
    cdef uint64_t room
    while x.page_part < page.body.len:
        data = part_bytes(x, &x.policy.policy.parts[page.body.off + x.page_part], scratch, &n)
        room = <uint64_t>(w.end - w.at)
        if n > room:
            put(w, data, room)
            x.bytes_out += room
            x.page_sent = <uint32_t>room
            return
        put(w, data, n)
        x.bytes_out += n
        x.page_part += 1
    x.page = NULL


cdef bint page_seal(Core* e, Client* c, Exchange* x, const uint8_t* data, uint64_t n) noexcept nogil:
    """A piece of a body into records. What the socket does not take at once waits: a piece at most."""
    if n > BUFFER_BYTES:
        n = BUFFER_BYTES
    x.page_sent += <uint32_t>n
    x.bytes_out += n
    return client_write(e, c, data, n) >= 0


cdef int page_pump(Core* e, Client* c, Exchange* x) noexcept nogil:
    cdef const uint8_t* data
    cdef uint8_t scratch[20]
    cdef uint64_t n
    cdef ssize_t sent
    while x.page_part < x.page.body.len:
        data = part_bytes(x, &x.policy.policy.parts[x.page.body.off + x.page_part], scratch, &n)
        if n == x.page_sent:
            x.page_part += 1
            x.page_sent = 0
            continue
        if not c.h.events & EVENT_WRITE:
            client_blocked(e, c)
            return 0
        if not client_plain(c):
            if not page_seal(e, c, x, data + x.page_sent, n - x.page_sent):
                return -1
            if is_stream(c) and client_flush(e, c) != 1:
                return 0
            continue
        sent = send(c.h.fd, data + x.page_sent, n - x.page_sent, MSG_NOSIGNAL)
        if sent < 0:
            if scrubber_errno() == EINTR:
                continue
            if scrubber_errno() != EAGAIN:
                return -1
            client_blocked(e, c)
            return 0
        x.page_sent += <uint32_t>sent
        x.bytes_out += <uint64_t>sent
        c.blocked_bytes += <uint64_t>sent
        if x.page_sent < n:
            client_blocked(e, c)
            return 0
    x.page = NULL
    if not client_unsent(c):
        c.blocked_ns = 0
    return 1


# --- validators (RFC 9110 13) ------------------------------------------------------------------------------------------------------------

cdef bint etag_listed(const uint8_t* value, uint32_t n, const uint8_t* etag, uint32_t etag_len) noexcept nogil:
    """Weak comparison (RFC 9110 8.8.3.2) with each of a list, or `*`."""
    cdef uint32_t i = 0, start
    while i < n:
        if value[i] == c"*":
            return True
        if value[i] == c"W" and i + 1 < n and value[i + 1] == c"/":
            i += 2
        if i < n and value[i] == c'"':
            start = i
            i += 1
            while i < n and value[i] != c'"':
                i += 1
            if i == n:
                return False
            i += 1
            if i - start == etag_len and memcmp(value + start, etag, etag_len) == 0:
                return True
            continue
        i += 1
    return False


cdef int two_digits(const uint8_t* p) noexcept nogil:
    if not (c"0" <= p[0] <= c"9" and c"0" <= p[1] <= c"9"):
        return -1
    return (p[0] - 48) * 10 + p[1] - 48


cdef int64_t http_date(const uint8_t* p, uint32_t n) noexcept nogil:
    """Seconds since 1970 of an IMF-fixdate, "Sun, 06 Nov 1994 08:49:37 GMT"; -1: not one (older forms are passed over)."""
    cdef c_tm t
    cdef int month, high, low
    if n != 29 or memcmp(p + 25, <const char*>b" GMT", 4) != 0 or p[3] != c"," or p[19] != c":" or p[22] != c":":
        return -1
    memset(&t, 0, sizeof(t))
    for month in range(12):
        if memcmp(p + 8, MONTHS + 3 * month, 3) == 0:
            break
    else:
        return -1
    t.tm_mday = two_digits(p + 5)
    t.tm_mon = month
    high = two_digits(p + 12)
    low = two_digits(p + 14)
    t.tm_year = high * 100 + low - 1900
    t.tm_hour = two_digits(p + 17)
    t.tm_min = two_digits(p + 20)
    t.tm_sec = two_digits(p + 23)
    if t.tm_mday < 1 or high < 0 or low < 0 or t.tm_hour < 0 or t.tm_min < 0 or t.tm_sec < 0:
        return -1
    return c_timegm(&t)


cdef bint not_modified(const Policy* p, const PageSpec* page, const Facts* f) noexcept nogil:
    """If-None-Match counts alone where there is one; else If-Modified-Since."""
    cdef const RequestHead* head = f.head
    cdef const uint8_t* name = <const uint8_t*>b"if-none-match"
    cdef bint asked = False
    cdef int32_t i = -1
    while True:
        i = http1_find(f.data, head.headers, head.header_count, <uint32_t>(i + 1), name, 13, http1_name_hash(name, 13))
        if i < 0:
            break
        asked = True
        if etag_listed(f.data + head.headers[i].value_off, head.headers[i].value_len, p.text + page.etag.off, page.etag.len):
            return True
    if asked:
        return False
    name = <const uint8_t*>b"if-modified-since"
    i = http1_find(f.data, head.headers, head.header_count, 0, name, 17, http1_name_hash(name, 17))
    return i >= 0 and http_date(f.data + head.headers[i].value_off, head.headers[i].value_len) >= <int64_t>page.modified_s


# --- heads -------------------------------------------------------------------------------------------------------------------------------

cdef const char* page_reason(uint16_t status) noexcept nogil:
    """The phrase of a status that an operator may choose; empty where it says nothing."""
    if status == 200:
        return b"OK"
    if status == 204:
        return b"No Content"
    if status == 301:
        return b"Moved Permanently"
    if status == 302:
        return b"Found"
    if status == 303:
        return b"See Other"
    if status == 304:
        return b"Not Modified"
    if status == 307:
        return b"Temporary Redirect"
    if status == 308:
        return b"Permanent Redirect"
    if status == 401:
        return b"Unauthorized"
    if status == 404:
        return b"Not Found"
    if status == 410:
        return b"Gone"
    if status == 451:
        return b"Unavailable For Legal Reasons"
    if status == 500 or c_strlen(status_text(status)) != c_strlen(status_text(500)):
        return status_text(status)
    return b""


cdef void put_span(Writer* w, const Policy* p, const Span* edits, const char* name, const char* line, const Span* value) noexcept nogil:
    """A field of ours, unless it is empty or an edit names it."""
    if value.len and not edits_name(p, edits, name):
        put_text(w, line)
        put(w, p.text + value.off, value.len)
        put(w, b"\r\n", 2)


cdef uint16_t page_queue(Core* e, Exchange* x, const PageSpec* page, uint16_t status, const Span* edits, const Facts* f) noexcept nogil:
    """Head and as much of the body as fits into one buffer; the exchange keeps the rest. 0, or the status that says why not."""
    cdef const Policy* p = x.policy.policy
    cdef Writer w
    cdef Buffer* b = buffer_get(e)
    cdef bint bare = status == 304 or status == 204 or status == 205
    if b == NULL:
        return 503
    if not x.request_done:
        x.keep_alive = 0
    x.status = status
    w.at = b.data
    w.end = b.data + BUFFER_BYTES
    w.full = False
    put_text(&w, b"HTTP/1.1 ")
    put_uint(&w, status)
    put_byte(&w, 32)
    put_text(&w, page_reason(status))
    put_text(&w, b"\r\nDate: ")
    put(&w, e.date, 29)
    put_text(&w, b"\r\n")
    if page.location.len and f != NULL and not edits_name(p, edits, b"location"):
        put_text(&w, b"Location: ")
        route_location(e, x, f, &page.location, &w)
        put_text(&w, b"\r\n")
    if not bare and status != 405:
        put_span(&w, p, edits, b"content-type", b"Content-Type: ", &page.content_type)
    if status == 405:
        put_text(&w, b"Allow: GET, HEAD\r\nContent-Length: 0\r\n")
        bare = True
    elif not bare:
        put_text(&w, b"Content-Length: ")
        put_uint(&w, body_bytes(x, page))
        put_text(&w, b"\r\n")
    elif status == 205:
        put_text(&w, b"Content-Length: 0\r\n")
    put_span(&w, p, edits, b"etag", b"ETag: ", &page.etag)
    put_span(&w, p, edits, b"last-modified", b"Last-Modified: ", &page.modified)
    if status == 429:
        put_limits(&w, x)
    elif x.retry_s:
        put_text(&w, b"Retry-After: ")
        put_uint(&w, x.retry_s)
        put_text(&w, b"\r\n")
    if edits.len == 0 and f == NULL:
        put_text(&w, b"Cache-Control: no-store\r\n")
    edits_put(p, edits, &w, x, NULL)
    if x.area.server.len:
        put_text(&w, b"Server: ")
        put(&w, p.text + x.area.server.off, x.area.server.len)
        put_text(&w, b"\r\n")
    put_text(&w, b"X-Request-Id: ")
    put_request_id(&w, x)
    if not x.keep_alive:
        put_text(&w, b"\r\nConnection: close\r\n\r\n")
    elif x.minor == 0:
        put_text(&w, b"\r\nConnection: keep-alive\r\n\r\n")
    else:
        put_text(&w, b"\r\n\r\n")
    if w.full:
        buffer_put(e, b)
        return 414              # only what the client sent can be so long
    x.head_out += <uint32_t>(w.at - b.data)
    if not bare and x.method != METHOD_HEAD:
        x.page = page
        x.page_part = 0
        x.page_sent = 0
        body_begin(x, &w)
    x.response_started = 1
    x.response_done = 1
    b.end = <uint32_t>(w.at - b.data)
    queue_add(&x.client.out, b)
    if client_flush(e, x.client) < 0:
        x.client.h.events |= EVENT_BROKEN
        ready_add(e, &x.client.h)
    return 0


cdef void page_answer(Core* e, Exchange* x, const PageSpec* page, const Facts* f) noexcept nogil:
    cdef uint16_t status = <uint16_t>page.status
    if page.location.len and f.head.host.len == 0 and location_names_host(f.policy, page):
        answer(e, x, 400)
        return
    if page.flags & PAGE_FILE:
        if x.method != METHOD_GET and x.method != METHOD_HEAD:
            status = 405
        elif not_modified(f.policy, page, f):
            status = 304
    status = page_queue(e, x, page, status, route_response_edits(x), f)
    if status:
        answer(e, x, status)


cdef bint location_names_host(const Policy* p, const PageSpec* page) noexcept nogil:
    cdef uint32_t i
    for i in range(page.location.len):
        if p.parts[page.location.off + i].kind == PART_HOST:
            return True
    return False


cdef void page_or_answer(Core* e, Exchange* x, const PageSpec* page) noexcept nogil:
    cdef uint16_t status = <uint16_t>page.status
    if page.body.len == 0 or x.wants_json or not page_error(e, x, page, status):
        answer(e, x, status)


cdef const PageSpec* page_of_error(const Exchange* x, uint16_t status) noexcept nogil:
    cdef const Policy* p = x.policy.policy
    cdef const PageSpec* page
    cdef uint32_t i
    if x.area.error_pages.len == 0 or x.wants_json:
        return NULL
    for i in range(x.area.error_pages.len):
        page = &p.pages[x.area.error_pages.off + i]
        if page.status == status or page.status == 0:
            return page         # the one for all others stands last
    return NULL


cdef bint page_error(Core* e, Exchange* x, const PageSpec* page, uint16_t status) noexcept nogil:
    cdef Span none
    none.off = 0
    none.len = 0
    return page_queue(e, x, page, status, &none, NULL) == 0
