# Access lines: see record.pxd. Two halves: what the request says, while its head is at hand; what became of it, at its end.
# Invariant: a line is valid JSON whatever the client sent; a field that does not fit is shortened or left out.


cdef extern from "string.h" nogil:
    size_t c_strnlen "strnlen"(const char* s, size_t n)


cdef inline void put_name(Writer* w, const char* name, uint32_t n) noexcept nogil:
    put(w, b",\"", 2)
    put(w, name, n)
    put(w, b"\":", 2)


cdef inline void put_field(Writer* w, const char* name, uint32_t name_len, const uint8_t* data, uint32_t n, uint32_t n_max) noexcept nogil:
    """A string field, or nothing of it."""
    cdef uint8_t* start = w.at
    if n == 0:
        return
    put_name(w, name, name_len)
    put_byte(w, 34)
    put_json(w, data, n, n_max)
    put_byte(w, 34)
    if w.full:
        w.full = False
        w.at = start


cdef inline void put_number(Writer* w, const char* name, uint32_t name_len, uint64_t value) noexcept nogil:
    put_name(w, name, name_len)
    put_uint(w, value)


cdef void put_address(Writer* w, const char* name, uint32_t name_len, const Address* a) noexcept nogil:
    cdef uint8_t text[46]
    put_field(w, name, name_len, text, address_format(a, text), 46)


cdef void put_known_header(Writer* w, const char* name, uint32_t name_len, const Facts* f, uint8_t id, uint32_t n_max) noexcept nogil:
    cdef int16_t i = f.head.first[id]
    if i >= 0:
        put_field(w, name, name_len, f.data + f.head.headers[i].value_off, f.head.headers[i].value_len, n_max)


cdef void put_peer(Writer* w, Client* c) noexcept nogil:
    put_address(w, b"source.ip", 9, &c.peer)
    put_number(w, b"source.port", 11, c.port)


cdef void note_request(Core* e, Client* c, Exchange* x, const Facts* f) noexcept nogil:
    cdef Writer w
    cdef const RequestHead* head = f.head
    x.head_in = head.head_bytes
    if not e.access_log:
        return
    w.at = x.note
    w.end = x.note + NOTE_BYTES
    w.full = False
    put_field(&w, b"http.request.method", 19, f.data + head.method_text.off, head.method_text.len, 32)
    put_field(&w, b"url.path", 8, f.data + head.path.off, head.path.len, 400)
    put_field(&w, b"url.query", 9, f.data + head.query.off, head.query.len, 200)
    put_field(&w, b"url.domain", 10, f.data + head.host.off, head.host.len, 100)
    if is_stream(c):
        put_text(&w, b",\"http.version\":\"2\"")
    else:
        put_either(&w, head.minor != 0, b",\"http.version\":\"1.1\"", b",\"http.version\":\"1.0\"")
    put_peer(&w, c)
    put_address(&w, b"client.ip", 9, &f.client_full)
    if f.proof == PROOF_CHAIN:
        put_text(&w, b",\"scrubber.proof\":\"chain\"")
    else:
        put_either(&w, f.proof == PROOF_PROXY, b",\"scrubber.proof\":\"proxy\"", b",\"scrubber.proof\":\"socket\"")
    put_text(&w, b",\"scrubber.fingerprint\":\"h1_")
    put_hex16(&w, f.fingerprint)
    put_byte(&w, 34)
    if f.http2:
        put_text(&w, b",\"scrubber.http2\":\"")
        put_hex16(&w, f.http2)
        put_byte(&w, 34)
    put_field(&w, b"scrubber.area", 13, f.policy.text + x.area.name.off, x.area.name.len, 64)
    put_known_header(&w, b"user_agent.original", 19, f, HEADER_USER_AGENT, 200)
    put_known_header(&w, b"http.request.referrer", 21, f, HEADER_REFERER, 150)
    x.note_len = <uint32_t>(w.at - x.note)


cdef void note_refused(Core* e, Client* c, Exchange* x) noexcept nogil:
    cdef Writer w
    if not e.access_log:
        return
    w.at = x.note
    w.end = x.note + NOTE_BYTES
    w.full = False
    put_peer(&w, c)
    x.note_len = <uint32_t>(w.at - x.note)


cdef const char* verdict_text(int32_t verdict) noexcept nogil:
    if verdict == VERDICT_PASS:
        return b"PASS"
    if verdict == VERDICT_THROTTLE:
        return b"THROTTLE"
    if verdict == VERDICT_CHALLENGE:
        return b"CHALLENGE"
    if verdict == VERDICT_TARPIT:
        return b"TARPIT"
    if verdict == VERDICT_DENY:
        return b"DENY"
    return b"DROP"


cdef void put_judgement(Writer* w, Exchange* x) noexcept nogil:
    cdef const Judgement* j = &x.judgement
    cdef const Policy* p = x.policy.policy
    put_text(w, b",\"scrubber.verdict\":\"")
    put_text(w, verdict_text(j.decided))
    put_byte(w, 34)
    if j.decided != j.verdict:
        put_text(w, b",\"scrubber.enforced\":false")
    if j.rule >= 0 and <uint32_t>j.rule < p.header.rules.count:
        put_field(w, b"rule.name", 9, p.text + p.rules[j.rule].name.off, p.rules[j.rule].name.len, 128)
    if j.rung >= 0:
        put_number(w, b"scrubber.rung", 13, <uint64_t>j.rung)
    if j.case_id:
        put_text(w, b",\"scrubber.case\":\"")
        put_hex16(w, j.case_id)
        put_byte(w, 34)
    put_either(w, j.known, b",\"scrubber.known\":true", b",\"scrubber.known\":false")


cdef void log_update(Core* e) noexcept nogil:
    cdef const PolicyHeader* h = e.policy.policy.header
    e.access_log = h.log_lines
    e.log_pass_ns = <uint64_t>1000000000 / h.log_pass_per_s if h.log_pass_per_s else 0


cdef inline bint ordinary(const Exchange* x) noexcept nogil:
    """The request passed and was served. Only such lines may be left out."""
    return (x.judgement.decided == VERDICT_PASS and not x.reason and not x.aborted and not x.upstream_closed
            and x.status != 0 and x.status < 500 and (x.status < 400 or x.first_ns != 0))


cdef bint one_too_many(Core* e) noexcept nogil:
    if e.log_pass_ns == 0:
        return False
    if e.log_due_ns <= e.now_ns:
        e.log_due_ns = e.now_ns
    elif e.log_due_ns - e.now_ns > LOG_BURST_NS:
        e.log_left_out += 1
        e.totals.log_sampled += 1
        return True
    e.log_due_ns += e.log_pass_ns
    return False


cdef void put_origin(Writer* w, OriginPool* pool) noexcept nogil:
    """Where the request went: ADDRESS:PORT or unix:PATH. Put together once an address."""
    cdef Writer name
    cdef uint8_t text[46]
    cdef Address a
    cdef const uint8_t* s = pool.sockaddr
    cdef uint16_t family
    if pool.name_epoch != pool.epoch:
        name.at = pool.name
        name.end = pool.name + sizeof(pool.name)
        name.full = False
        memcpy(&family, s, 2)
        if family == AF_UNIX:
            put_text(&name, b"unix:")
            put(&name, s + 2, c_strnlen(<const char*>s + 2, 105))
        else:
            memset(&a, 0, sizeof(a))
            if family == AF_INET6:
                memcpy(a.bytes, s + 8, 16)
                put_byte(&name, 91)
            else:
                a.bytes[10] = 0xff
                a.bytes[11] = 0xff
                memcpy(a.bytes + 12, s + 4, 4)
            put(&name, text, address_format(&a, text))
            if family == AF_INET6:
                put_byte(&name, 93)
            put_byte(&name, 58)
            put_uint(&name, <uint64_t>s[2] << 8 | s[3])
        pool.name_len = <uint32_t>(name.at - pool.name)
        pool.name_epoch = pool.epoch
    put_field(w, b"scrubber.origin", 15, pool.name, pool.name_len, 112)


cdef void put_timings(Core* e, Writer* w, Exchange* x) noexcept nogil:
    cdef uint32_t retries = x.retried + (x.tries - 1 if x.tries > 1 else 0)
    put_number(w, b"event.duration", 14, e.now_ns - x.start_ns)
    if x.queue_ns:
        put_number(w, b"scrubber.queue_ns", 17, x.queue_ns)
    if x.connect_ns:
        put_number(w, b"scrubber.connect_ns", 19, x.connect_ns)
    if x.first_ns:
        put_number(w, b"scrubber.origin_ns", 18, x.first_ns - x.sent_ns)
    if x.sent_ns or x.tries:
        put_origin(w, &e.origin_pools[x.origin_id])
    if retries:
        put_number(w, b"scrubber.retries", 16, retries)


cdef void record_access(Core* e, Client* c, Exchange* x) noexcept nogil:
    cdef Writer w
    cdef uint64_t ms
    cdef bint counted = ordinary(x)
    if not e.access_log or (counted and one_too_many(e)):
        return
    w.at = e.line
    w.end = e.line + sizeof(e.line)
    w.full = False
    put_text(&w, b"{\"@timestamp\":\"")
    put(&w, e.stamp, 20)
    ms = (e.now_ns + e.wall_offset_ns) / 1000000 % 1000
    put_byte(&w, <uint8_t>(48 + ms / 100))
    put_byte(&w, <uint8_t>(48 + ms / 10 % 10))
    put_byte(&w, <uint8_t>(48 + ms % 10))
    put_text(&w, b"Z\",\"event.kind\":\"event\"")
    put(&w, x.note, x.note_len)
    if c.proxy != NULL:
        put(&w, c.proxy.text, c.proxy.text_len)
    if c.tls != NULL:
        put(&w, c.tls.text, c.tls.text_len)
    if x.status:
        put_number(&w, b"http.response.status_code", 25, x.status)
    put_number(&w, b"http.response.body.bytes", 24, x.bytes_out)
    put_number(&w, b"http.request.body.bytes", 23, x.bytes_in)
    put_number(&w, b"http.response.bytes", 19, x.bytes_out + x.head_out)
    put_number(&w, b"http.request.bytes", 18, x.bytes_in + x.head_in)
    put_timings(e, &w, x)
    if counted and e.log_left_out:
        put_number(&w, b"scrubber.weight", 15, e.log_left_out + 1)
    put_judgement(&w, x)
    if x.reason:
        put_field(&w, b"error.code", 10, <const uint8_t*>http1_reason(x.reason), <uint32_t>c_strlen(http1_reason(x.reason)), 32)
    if x.aborted:
        put_text(&w, b",\"event.outcome\":\"failure\",\"scrubber.outcome\":\"aborted\"")
    elif x.upstream_closed:
        put_text(&w, b",\"event.outcome\":\"failure\",\"scrubber.outcome\":\"origin_failed\"")
    if x.cache.said:
        put_text(&w, b",\"scrubber.cache\":\"")
        put_text(&w, cache_word(x.cache.said))
        put_byte(&w, 34)
    if x.tunnel.since_ns:
        put_field(&w, b"scrubber.tunnel", 15, x.policy.policy.text + x.protocol.off, x.protocol.len, 64)
        put_field(&w, b"scrubber.tunnel_end", 19, <const uint8_t*>tunnel_end_text(x.tunnel.how),
                  <uint32_t>c_strlen(tunnel_end_text(x.tunnel.how)), 16)
    put_text(&w, b",\"http.request.id\":\"")
    put_request_id(&w, x)
    put_text(&w, b"\"}\n")
    if w.full or not ring_write(&e.shared.rings[e.worker], RECORD_LINE, e.line, <uint32_t>(w.at - e.line)):
        e.totals.ring_lines_lost += 1
        return
    e.totals.ring_lines += 1
    if counted:
        e.log_left_out = 0
