# Heads, re-serialised: see forward.pxd. Hop-by-hop fields end here (RFC 9110 7.6.1), and so does every claim about who the client is
# that no trusted proxy made.


cdef inline void put_header(Writer* w, const uint8_t* data, const Header* h) noexcept nogil:
    put(w, data + h.name_off, h.name_len)
    put(w, b": ", 2)
    put(w, data + h.value_off, h.value_len)
    put(w, b"\r\n", 2)


# A run of field lines that go on as they stand.
cdef struct Run:
    uint32_t start
    uint32_t end                # 0: none


cdef inline void run_end(Writer* w, const uint8_t* data, Run* run) noexcept nogil:
    if run.end:
        put(w, data + run.start, run.end - run.start)
        run.end = 0


cdef inline void run_take(Writer* w, const uint8_t* data, const Header* h, Run* run) noexcept nogil:
    """The next field: part of the run where it begins where that ends and has no white space but the one after its colon."""
    cdef uint32_t colon = h.name_off + h.name_len
    if run.end and run.end != h.name_off:
        run_end(w, data, run)
    if h.value_off != colon + 2 or data[colon + 1] != c" " or data[h.value_off + h.value_len] != c"\r":
        run_end(w, data, run)
        put_header(w, data, h)
        return
    if run.end == 0:
        run.start = h.name_off
    run.end = h.value_off + h.value_len + 2


cdef inline bint request_header_ours(uint8_t id) noexcept nogil:
    """Fields that we write ourselves, or that must not pass."""
    return (id == HEADER_HOST or id == HEADER_CONTENT_LENGTH or id == HEADER_TRANSFER_ENCODING
            or (id >= HEADER_X_FORWARDED_FOR and id <= HEADER_FORWARDED) or id == HEADER_X_REQUEST_ID or id == HEADER_VIA
            or id == HEADER_X_REAL_IP or id == HEADER_X_FORWARDED_PORT or id == HEADER_TRAILER or id == HEADER_PROXY_AUTHORIZATION)


cdef inline const char* via_version(uint8_t minor, bint http2) noexcept nogil:
    if http2:
        return b"2.0 "
    return b"1.1 " if minor else b"1.0 "


cdef void put_via(Writer* w, const uint8_t* data, const Header* headers, uint16_t count, const char* version, const uint8_t* ours,
                  uint32_t ours_len) noexcept nogil:
    """The Via fields of the message as one, and our own member behind them (RFC 9110 7.6.3): how the message came to us, and who we are."""
    cdef uint16_t i
    cdef bint begun = False
    cdef uint8_t* start = w.at
    put_text(w, b"Via: ")
    for i in range(count):
        if headers[i].id == HEADER_VIA and headers[i].value_len:
            if begun:
                put(w, b", ", 2)
            put(w, data + headers[i].value_off, headers[i].value_len)
            begun = True
    if ours_len:
        if begun:
            put(w, b", ", 2)
        put_text(w, version)
        put(w, ours, ours_len)
    elif not begun:
        w.at = start
        return
    put(w, b"\r\n", 2)


cdef void put_hop(Writer* w, const Address* a) noexcept nogil:
    cdef uint8_t text[46]
    if address_none(a):             # over a Unix socket
        put_text(w, b"unknown")
    else:
        put(w, text, address_format(a, text))


cdef void put_for(Writer* w, const Address* a) noexcept nogil:
    """for=… of RFC 7239 6."""
    if address_is_v4(a) or address_none(a):
        put_text(w, b"for=")
        put_hop(w, a)
    else:
        put_text(w, b"for=\"[")
        put_hop(w, a)
        put_text(w, b"]\"")


cdef void put_arrival(Writer* w, const Facts* f) noexcept nogil:
    """proto and host of the client's own element, where the chain tells them (RFC 7239 5.3, 5.4)."""
    cdef const Span* proto = &f.arrival.proto
    cdef const Span* host = &f.arrival.host
    if sound_scheme(f.data + proto.off, proto.len):
        put_text(w, b";proto=")
        put(w, f.data + proto.off, proto.len)
    if sound_authority(f.data + host.off, host.len):
        put_text(w, b";host=\"")
        put(w, f.data + host.off, host.len)
        put_byte(w, c'"')


cdef void put_forwarded(Writer* w, Client* c, const Facts* f, uint32_t scheme) noexcept nogil:
    """X-Forwarded-For, -Proto, -Host and Forwarded (RFC 7239). Of a chain only the hops that were proven: what stands beyond the first
    stranger is its own claim."""
    cdef const Span* authority = &f.head.authority
    cdef const Span* host = &f.arrival.host if f.arrival.host.len else authority
    cdef Address hops[CHAIN_HOPS_MAX]
    cdef uint32_t n = 0, k
    if f.proof == PROOF_CHAIN:
        n = identity_hops(f.data, f.head, &f.policy.prefixes[f.listener.trusted - 1], &c.peer, hops, NULL)
    put_text(w, b"X-Forwarded-For: ")
    for k in range(n):
        put_hop(w, &hops[n - 1 - k])
        put(w, b", ", 2)
    put_hop(w, &c.peer)
    put_text(w, b"\r\nX-Forwarded-Proto: ")
    if f.arrival.proto.len:
        put(w, f.data + f.arrival.proto.off, f.arrival.proto.len)
    else:
        put_either(w, scheme != 0, b"https", b"http")
    if host.len:                    # HTTP/1.0 may name none
        put_text(w, b"\r\nX-Forwarded-Host: ")
        put(w, f.data + host.off, host.len)
    put_text(w, b"\r\nForwarded: ")
    for k in range(n):
        put_for(w, &hops[n - 1 - k])
        if k == 0:
            put_arrival(w, f)
        put(w, b", ", 2)
    put_for(w, &c.peer)             # and how it came to us
    put_either(w, scheme != 0, b";proto=https", b";proto=http")
    if authority.len:
        put_text(w, b";host=\"")
        put(w, f.data + authority.off, authority.len)
        put_byte(w, c'"')
    put_text(w, b"\r\n")


cdef void put_upgrade(Writer* w, const Exchange* x) noexcept nogil:
    """Connection and Upgrade anew, with the protocol as the area spells it."""
    put_text(w, b"Connection: Upgrade\r\nUpgrade: ")
    put(w, x.policy.policy.text + x.protocol.off, x.protocol.len)
    put_text(w, b"\r\n")


cdef uint16_t forward_request(Core* e, Client* c, Exchange* x, const Facts* f) noexcept nogil:
    cdef const RequestHead* head = f.head
    cdef const Policy* p = f.policy
    cdef Writer w
    cdef uint16_t i
    cdef uint16_t status
    cdef const Span* edits = route_request_edits(x)
    cdef Buffer* b
    cdef Run run
    if SCRUBBER_CHECKS:
        request_check(head)
    if x.pool == NULL or x.pool.origins.len == 0:
        return 503
    b = buffer_get(e)
    if b == NULL:
        return 503
    w.at = b.data
    w.end = b.data + BUFFER_BYTES
    w.full = False
    put(&w, f.data + head.method_text.off, head.method_text.len)
    put_byte(&w, 32)
    if x.route != NULL and x.route.rewrite.len:
        status = route_target(e, x, f, &w)
        if status:
            buffer_put(e, b)
            return status
    else:
        if head.path.len == 0:
            put_byte(&w, 47)
        put(&w, f.data + head.target.off, head.target.len)
    put_text(&w, b" HTTP/1.1\r\n")
    if x.area.flags & AREA_HOST_KEEP and head.authority.len:
        put_text(&w, b"Host: ")
        put(&w, f.data + head.authority.off, head.authority.len)
        put(&w, b"\r\n", 2)
    else:
        x.host_off = <uint32_t>(w.at - b.data)      # the origin's own goes here when it is chosen
    run.end = 0
    for i in range(head.header_count):
        if not head.headers[i].flags & HEADER_HOP and not request_header_ours(head.headers[i].id) and not (
                edits.len and edits_drop(p, edits, f.data + head.headers[i].name_off, head.headers[i].name_len)):
            run_take(&w, f.data, &head.headers[i], &run)
    run_end(&w, f.data, &run)
    if edits.len:
        edits_put(p, edits, &w, x, f)
    if head.body == BODY_LENGTH:
        put_text(&w, b"Content-Length: ")
        put_uint(&w, head.content_length)
        put(&w, b"\r\n", 2)
    elif head.body == BODY_CHUNKED:
        put_text(&w, b"Transfer-Encoding: chunked\r\n")
    if x.upgrade:
        put_upgrade(&w, x)
    put_forwarded(&w, c, f, f.listener.scheme)
    if x.area.via.len or head.first[HEADER_VIA] >= 0:
        put_via(&w, f.data, head.headers, head.header_count, via_version(x.minor, is_stream(c)), p.text + x.area.via.off, x.area.via.len)
    put_text(&w, b"X-Request-Id: ")
    put_request_id(&w, x)
    put_text(&w, b"\r\n\r\n")
    if w.full:
        buffer_put(e, b)
        return 431
    b.end = <uint32_t>(w.at - b.data)
    x.head = b
    return 0


cdef inline bint response_header_ours(const Header* h) noexcept nogil:
    return (h.flags & HEADER_HOP or h.id == HEADER_CONTENT_LENGTH or h.id == HEADER_TRANSFER_ENCODING or h.id == HEADER_TRAILER
            or h.id == HEADER_X_REQUEST_ID or h.id == HEADER_VIA or h.id == HEADER_SERVER)


cdef void put_heads(Writer* w, const Exchange* x, const uint8_t* data, const ResponseHead* r) noexcept nogil:
    """Via and Server of an answer, as the area wants them."""
    cdef const AreaSpec* area = x.area
    cdef const uint8_t* text = x.policy.policy.text
    cdef const Header* server
    cdef bint via = area.flags & AREA_VIA_RESPONSE != 0
    if via or r.first[HEADER_VIA] >= 0:
        put_via(w, data, r.headers, r.header_count, via_version(r.minor, False), text + area.via.off, area.via.len if via else 0)
    if area.server.len:
        put_text(w, b"Server: ")
        put(w, text + area.server.off, area.server.len)
        put(w, b"\r\n", 2)
    elif r.first[HEADER_SERVER] >= 0 and not area.flags & AREA_SERVER_HIDE:
        server = &r.headers[r.first[HEADER_SERVER]]
        put_header(w, data, server)


cdef bint response_write(Core* e, Exchange* x, const uint8_t* data, bint interim) noexcept nogil:
    cdef ResponseHead* r = &e.response
    cdef Writer w
    cdef uint16_t i
    cdef const Policy* p = x.policy.policy
    cdef const Span* edits = route_response_edits(x)
    cdef Buffer* b = buffer_get(e)
    cdef Run run
    if b == NULL:
        return False
    if SCRUBBER_CHECKS:
        response_check(r)
    w.at = b.data
    w.end = b.data + BUFFER_BYTES
    w.full = False
    put_text(&w, b"HTTP/1.1 ")
    put_uint(&w, r.status)
    put_byte(&w, 32)
    put(&w, data + r.reason.off, r.reason.len)
    put(&w, b"\r\n", 2)
    run.end = 0
    for i in range(r.header_count):
        if not response_header_ours(&r.headers[i]) and not (
                edits.len and edits_drop(p, edits, data + r.headers[i].name_off, r.headers[i].name_len)):
            run_take(&w, data, &r.headers[i], &run)
    run_end(&w, data, &run)
    if not interim:
        if r.first[HEADER_DATE] < 0:
            put_text(&w, b"Date: ")     # RFC 9110 6.6.1: of the time it was received
            put(&w, e.date, 29)
            put(&w, b"\r\n", 2)
        if edits.len:
            edits_put(p, edits, &w, x, NULL)
        if x.client_chunked:
            put_text(&w, b"Transfer-Encoding: chunked\r\n")
        elif r.has_content_length and r.status != 204 and r.status != 101:
            put_text(&w, b"Content-Length: ")
            put_uint(&w, r.content_length)
            put(&w, b"\r\n", 2)
        put_heads(&w, x, data, r)
        if x.cache.said:
            put_cache(&w, x)
        put_text(&w, b"X-Request-Id: ")
        put_request_id(&w, x)
        put(&w, b"\r\n", 2)
        if r.status == 101:
            put_upgrade(&w, x)
        elif not x.keep_alive:
            put_text(&w, b"Connection: close\r\n")
        elif x.minor == 0:
            put_text(&w, b"Connection: keep-alive\r\n")
    put(&w, b"\r\n", 2)
    if w.full:
        buffer_put(e, b)
        return False
    b.end = <uint32_t>(w.at - b.data)
    x.head_out += b.end
    queue_add(&x.client.out, b)
    return True


cdef bint forward_interim(Core* e, Exchange* x, const uint8_t* data) noexcept nogil:
    return response_write(e, x, data, True)


cdef bint forward_upgrade(Core* e, Exchange* x, const uint8_t* data) noexcept nogil:
    return response_write(e, x, data, False)


cdef bint forward_response(Core* e, Exchange* x, const uint8_t* data) noexcept nogil:
    return response_write(e, x, data, False)
