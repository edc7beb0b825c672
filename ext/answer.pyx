# Answers of our own: see answer.pxd.
cdef extern from *:
    """
    static void scrubber_dates(uint64_t wall_s, char date[32], char stamp[24]) {
        static const char days[] = "SunMonTueWedThuFriSat";
        static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
        struct tm t;
        time_t s = (time_t)wall_s;
        gmtime_r(&s, &t);
        unsigned year = (unsigned)(t.tm_year + 1900) % 10000u, month = (unsigned)t.tm_mon % 12u, day = (unsigned)t.tm_mday % 100u;
        unsigned hour = (unsigned)t.tm_hour % 100u, minute = (unsigned)t.tm_min % 100u, second = (unsigned)t.tm_sec % 100u;
        snprintf(date, 32, "%.3s, %02u %.3s %04u %02u:%02u:%02u GMT", days + 3 * (t.tm_wday % 7), day, months + 3 * month, year, hour,
                 minute, second);
        snprintf(stamp, 24, "%04u-%02u-%02uT%02u:%02u:%02u.", year, month + 1, day, hour, minute, second);
    }
    """
    void scrubber_dates(uint64_t wall_s, char* date, char* stamp) noexcept nogil


cdef void clock_refresh(Core* e) noexcept nogil:
    cdef uint64_t second = (e.now_ns + e.wall_offset_ns) / 1000000000
    if second != e.clock_second:
        e.clock_second = second
        scrubber_dates(second, <char*>e.date, <char*>e.stamp)


cdef const char* status_text(uint16_t status) noexcept nogil:
    if status == 400:
        return b"Bad Request"
    if status == 403:
        return b"Forbidden"
    if status == 408:
        return b"Request Timeout"
    if status == 405:
        return b"Method Not Allowed"
    if status == 413:
        return b"Content Too Large"
    if status == 414:
        return b"URI Too Long"
    if status == 416:
        return b"Range Not Satisfiable"
    if status == 417:
        return b"Expectation Failed"
    if status == 421:
        return b"Misdirected Request"
    if status == 429:
        return b"Too Many Requests"
    if status == 431:
        return b"Request Header Fields Too Large"
    if status == 501:
        return b"Not Implemented"
    if status == 502:
        return b"Bad Gateway"
    if status == 503:
        return b"Service Unavailable"
    if status == 504:
        return b"Gateway Timeout"
    if status == 505:
        return b"HTTP Version Not Supported"
    return b"Internal Server Error"


cdef uint64_t seconds_up(uint64_t ns) noexcept nogil:
    if ns >= <uint64_t>86400 * 1000000000:
        return 86400
    return (ns + 999999999) / 1000000000


cdef void put_limits(Writer* w, Exchange* x) noexcept nogil:
    """Retry-After (RFC 9110 10.2.3); RateLimit fields (draft-ietf-httpapi-ratelimit-headers) where the area wants them."""
    cdef Judgement* j = &x.judgement
    cdef uint64_t retry_s = seconds_up(j.retry_ns)
    put_text(w, b"Retry-After: ")
    put_uint(w, retry_s if retry_s else 1)
    put_text(w, b"\r\n")
    if x.area.flags & AREA_RATELIMIT_FIELDS and j.limit_count:
        put_text(w, b"RateLimit-Policy: \"limit\";q=")
        put_uint(w, j.limit_count)
        put_text(w, b";w=")
        put_uint(w, seconds_up(j.limit_period_ns))
        put_text(w, b"\r\nRateLimit: \"limit\";r=")
        put_uint(w, j.remaining)
        put_text(w, b";t=")
        put_uint(w, seconds_up(j.reset_ns))
        put_text(w, b"\r\n")


cdef void put_body(Writer* w, Exchange* x, uint16_t status) noexcept nogil:
    if x.wants_json:
        put_text(w, b"{\"type\":\"about:blank\",\"title\":\"")
        put_text(w, status_text(status))
        put_text(w, b"\",\"status\":")
        put_uint(w, status)
        put_text(w, b",\"request_id\":\"")
        put_request_id(w, x)
        if x.judgement.case_id:
            put_text(w, b"\",\"case\":\"")
            put_hex16(w, x.judgement.case_id)
        if x.reason == HTTP1_PLAIN_HTTP:
            put_text(w, b"\",\"detail\":\"this port speaks TLS: use https")
        put_text(w, b"\"}\n")
        return
    put_uint(w, status)
    put_byte(w, 32)
    put_text(w, status_text(status))
    put_text(w, b"\nrequest ")
    put_request_id(w, x)
    if x.judgement.case_id:
        put_text(w, b"\ncase ")
        put_hex16(w, x.judgement.case_id)
    if x.reason == HTTP1_PLAIN_HTTP:
        put_text(w, b"\nthis port speaks TLS: use https")
    put_text(w, b"\n")


cdef void answer(Core* e, Exchange* x, uint16_t status) noexcept nogil:
    cdef Writer w
    cdef Writer body
    cdef uint8_t page[512]
    cdef const PageSpec* own = page_of_error(x, status)
    if status >= 502 and status <= 504 and x.cache.state != USE_NONE and cache_rescue(e, x, False):
        return
    if own != NULL and page_error(e, x, own, status):
        return
    # What follows an unread body cannot be told from the next request.
    if not x.request_done:
        x.keep_alive = 0
    body.at = page
    body.end = page + sizeof(page)
    body.full = False
    put_body(&body, x, status)
    w.at = e.line
    w.end = e.line + sizeof(e.line)
    w.full = False
    put_text(&w, b"HTTP/1.1 ")
    put_uint(&w, status)
    put_byte(&w, 32)
    put_text(&w, status_text(status))
    put_text(&w, b"\r\nDate: ")
    put(&w, e.date, 29)
    if x.area.server.len:
        put_text(&w, b"\r\nServer: ")
        put(&w, x.policy.policy.text + x.area.server.off, x.area.server.len)
    put_either(&w, x.wants_json, b"\r\nContent-Type: application/problem+json\r\nContent-Length: ",
               b"\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ")
    put_uint(&w, <uint64_t>(body.at - page))
    put_text(&w, b"\r\n")
    if status == 429:
        put_limits(&w, x)
    elif x.retry_s:
        put_text(&w, b"Retry-After: ")
        put_uint(&w, x.retry_s)
        put_text(&w, b"\r\n")
    put_text(&w, b"Cache-Control: no-store\r\nX-Request-Id: ")
    put_request_id(&w, x)
    if not x.keep_alive:
        put_text(&w, b"\r\nConnection: close\r\n\r\n")
    elif x.minor == 0:
        put_text(&w, b"\r\nConnection: keep-alive\r\n\r\n")
    else:
        put_text(&w, b"\r\n\r\n")
    x.head_out += <uint32_t>(w.at - e.line)
    if x.method != METHOD_HEAD:
        put(&w, page, <uint64_t>(body.at - page))
        x.bytes_out = <uint64_t>(body.at - page)
    x.status = status
    x.response_started = 1
    x.response_done = 1
    if client_write(e, x.client, e.line, <uint64_t>(w.at - e.line)) < 0:
        # Nobody is there to read it: the exchange ends when the client is next looked at.
        x.client.h.events |= EVENT_BROKEN
        ready_add(e, &x.client.h)
