# Streams as clients: see http2.pxd. Owns their life, bodies and steps. Invariants: a stream is in its connection's list
# from its head to its end; nothing is written to it behind that; what it holds of the client's body is what the client was not given back.

cdef enum:
    CHUNK_ROOM = 32             # around a chunk: its size line, its end, and the last chunk


# --- begin -------------------------------------------------------------------------------------------------------------------------------

cdef void stream_open(Http2* h, int32_t stream_id, bint last) noexcept nogil:
    """A request's field section is whole. Called by nghttp2: what follows from it comes when the stream steps."""
    cdef Core* e = h.engine
    cdef Client* root = h.client
    cdef Client* c
    cdef Stream* s = <Stream*>pool_get(&e.streams)
    cdef Buffer* inbox = buffer_get(e) if s != NULL else NULL
    if inbox == NULL:
        if s != NULL:
            pool_put(&e.streams, s)
        e.totals.table_full += 1
        nghttp2_submit_rst_stream(h.session, NGHTTP2_FLAG_NONE, stream_id, NGHTTP2_REFUSED_STREAM)
        return
    clear_bytes(s, sizeof(Stream))
    c = &s.c
    c.h.kind = HANDLE_STREAM
    c.h.fd = root.h.fd          # open while it is not -1; nothing is read or written by it
    c.h.timer_slot = -1
    c.h.events = EVENT_WRITE
    c.state = CLIENT_IDLE
    c.proof = root.proof
    c.listener = root.listener
    c.port = root.port
    c.peer = root.peer
    c.peer_key = root.peer_key
    c.since_ns = e.now_ns
    c.proxy = root.proxy
    c.tls = root.tls
    c.http2 = h
    c.inbox = inbox
    s.session = h
    s.id = stream_id
    s.ended = last
    s.next = h.streams
    if s.next != NULL:
        s.next.prev = s
    h.streams = s
    root.requests += 1
    e.totals.http2_streams += 1
    e.gauges.http2_streams += 1
    c.refused = head_compose(e, h, s)
    if c.refused == HTTP1_HEAD_TOO_LARGE:
        calm_take(h, CALM_BOMBS)
    if last:
        c.h.events |= EVENT_READ
    if h.head != NULL:
        h.head.start = 0
        h.head.end = 0
    nghttp2_session_set_stream_user_data(h.session, stream_id, s)
    step_add(h, s)


# --- steps --------------------------------------------------------------------------------------------------------------------------------

cdef void step_add(Http2* h, Stream* s) noexcept nogil:
    if s.stepping:
        return
    s.stepping = 1
    s.step_prev = h.step_tail
    s.step_next = NULL
    if s.step_prev != NULL:
        s.step_prev.step_next = s
    else:
        h.step_head = s
    h.step_tail = s
    due_add(h.engine, h)


cdef void step_remove(Http2* h, Stream* s) noexcept nogil:
    if not s.stepping:
        return
    s.stepping = 0
    if s.step_prev != NULL:
        s.step_prev.step_next = s.step_next
    else:
        h.step_head = s.step_next
    if s.step_next != NULL:
        s.step_next.step_prev = s.step_prev
    else:
        h.step_tail = s.step_prev


cdef Client* client_root(Client* c) noexcept nogil:
    return (<Stream*>c).session.client if is_stream(c) else c


# --- bodies in ----------------------------------------------------------------------------------------------------------------------------

cdef void body_given(Core* e, Stream* s, uint64_t n) noexcept nogil:
    """The client may send as much more."""
    cdef Http2* h = s.session
    if h.failed or n == 0:
        return
    if s.id:
        nghttp2_session_consume(h.session, s.id, n)
    else:
        nghttp2_session_consume_connection(h.session, n)
    due_add(e, h)


cdef ssize_t body_chunk(Core* e, Stream* s, uint8_t* data, uint64_t n) noexcept nogil:
    """One chunk of what is there; the last one behind it, where the client has said all."""
    cdef Writer w
    cdef uint64_t take = s.body.bytes
    check(n > CHUNK_ROOM)
    if take > n - CHUNK_ROOM:
        take = n - CHUNK_ROOM
    w.at = data
    w.end = data + n
    w.full = False
    if take:
        put_uint_hex(&w, take)
        put(&w, b"\r\n", 2)
        queue_take(e, &s.body, w.at, take)
        w.at += take
        put(&w, b"\r\n", 2)
        body_given(e, s, take)
    if s.body.bytes == 0 and s.ended:
        put(&w, b"0\r\n\r\n", 5)
        s.told = 1
    return w.at - data


cdef ssize_t stream_recv(Core* e, Stream* s, void* data, uint64_t n) noexcept nogil:
    cdef bint tunnel = s.c.state == CLIENT_TUNNEL
    cdef ssize_t got = 0
    if s.c.h.events & EVENT_BROKEN:
        scrubber_set_errno(ECONNRESET)
        return -1
    if s.body.bytes == 0 and (not s.ended or s.told):
        s.c.h.events &= <uint8_t>~EVENT_READ
        scrubber_set_errno(EAGAIN)
        return -1
    if s.chunked and not tunnel:
        got = body_chunk(e, s, <uint8_t*>data, n)
    elif s.body.bytes:
        got = <ssize_t>(n if n < s.body.bytes else s.body.bytes)
        queue_take(e, &s.body, <uint8_t*>data, <uint64_t>got)
        body_given(e, s, <uint64_t>got)
    if s.body.bytes == 0 and (not s.ended or s.told):
        s.c.h.events &= <uint8_t>~EVENT_READ
    return got


cdef void stream_deafen(Core* e, Stream* s) noexcept nogil:
    s.deaf = 1
    body_given(e, s, s.body.bytes)
    queue_clear(e, &s.body)


# --- out ---------------------------------------------------------------------------------------------------------------------------------

cdef bint head_ship(Core* e, Stream* s, uint32_t n) noexcept nogil:
    """The head in e.head as HEADERS. False: nghttp2 does not take it."""
    cdef Http2* h = s.session
    cdef nghttp2_data_provider body
    cdef uint32_t at = 0, count
    cdef bint tunnel = s.c.state == CLIENT_TUNNEL
    while e.head[at] != c"\n":
        at += 1
    tunnel = tunnel and memcmp(e.head + 9, <const char*>b"101", 3) == 0
    if tunnel:
        memcpy(e.head + 9, <const char*>b"200", 3)      # RFC 8441 5
    e.fields[0].name = <uint8_t*>b":status"
    e.fields[0].namelen = 7
    e.fields[0].value = e.head + 9
    e.fields[0].valuelen = 3
    e.fields[0].flags = 0
    count = head_fields(e, n, at + 1, 1)
    if s.connect and e.head[9] == c"2" and not tunnel:
        return False
    if e.head[9] == c"1" and not tunnel:
        return nghttp2_submit_headers(h.session, NGHTTP2_FLAG_NONE, s.id, NULL, e.fields, count, NULL) == 0
    s.headed = 1
    body.source.ptr = NULL
    body.read_callback = data_read
    return nghttp2_submit_response(h.session, s.id, e.fields, count, NULL if answered_whole(s) else &body) == 0


cdef bint answered_whole(const Stream* s) noexcept nogil:
    """Everything is given: no byte will follow."""
    cdef const Exchange* x = s.c.exchange
    if s.c.out.head != NULL or s.trailers != NULL or not s.headed:
        return False
    return s.closing or (x != NULL and x.response_done and x.page == NULL)


cdef void trailers_ship(Core* e, Stream* s) noexcept nogil:
    """The field section that ends the answer."""
    cdef Field f
    cdef uint32_t at = 0, count = 0
    while field_next(s.trailers, &at, &f) and count < HTTP2_FIELDS_MAX:
        if f.name[0] == c":" or hop_field(&f) or not name_sound(f.name, f.name_len) or not value_sound(f.value, f.value_len):
            continue
        e.fields[count].name = <uint8_t*>f.name
        e.fields[count].namelen = f.name_len
        e.fields[count].value = <uint8_t*>f.value
        e.fields[count].valuelen = f.value_len
        e.fields[count].flags = 0
        count += 1
    nghttp2_submit_trailer(s.session.session, s.id, e.fields, count)
    buffer_put(e, s.trailers)
    s.trailers = NULL
    s.closing = 1
    step_add(s.session, s)


cdef ssize_t data_read(nghttp2_session* session, int32_t stream_id, uint8_t* out, size_t length, uint32_t* flags,
                       nghttp2_data_source* source, void* user) noexcept nogil:
    cdef Http2* h = <Http2*>user
    cdef Stream* s = stream_of(session, stream_id)
    cdef uint64_t n
    if s == NULL:                   # over: stream_done
        flags[0] |= NGHTTP2_DATA_FLAG_EOF
        return 0
    n = s.c.out.bytes
    if n > length:
        n = length
    if n:
        queue_take(h.engine, &s.c.out, out, n)
        s.taken += n
        s.c.blocked_bytes += n
        h.frames_owed += 4
        if s.c.state == CLIENT_TUNNEL and s.c.exchange.tunnel.down.stuck_ns:
            s.c.exchange.tunnel.down.stuck_ns = h.engine.now_ns     # it takes little, but it takes
        if s.c.out.head == NULL:
            stream_unblocked(s)
            step_add(h, s)
    if s.trailers != NULL and s.c.out.head == NULL:
        flags[0] |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM
        trailers_ship(h.engine, s)
    elif answered_whole(s):
        flags[0] |= NGHTTP2_DATA_FLAG_EOF
    elif n == 0:
        return NGHTTP2_ERR_DEFERRED
    return <ssize_t>n


cdef bint stream_ship(Core* e, Stream* s) noexcept nogil:
    """What is queued goes to nghttp2: heads at once, the body as it asks for it. False: broken."""
    cdef Http2* h = s.session
    cdef uint32_t n
    if s.id == 0 or h.failed:
        return False
    while not s.headed and s.c.out.head != NULL:
        n = head_ready(e, &s.c.out)
        if n == 0:
            return True
        queue_take(e, &s.c.out, NULL, n)
        if not head_ship(e, s, n):
            return False
        if s.headed and s.c.out.head != NULL:
            return True             # its DATA begins by itself
    if client_unsent(&s.c) or answered_whole(s):
        nghttp2_session_resume_data(h.session, s.id)    # an error where it does not wait
    return True


cdef int stream_send(Core* e, Stream* s, const uint8_t* data, uint64_t n) noexcept nogil:
    return 0 if queue_append(e, &s.c.out, data, n) else -1


cdef int stream_flush(Core* e, Stream* s) noexcept nogil:
    cdef Http2* h = s.session
    if not client_unsent(&s.c):
        return 1
    if not stream_ship(e, s):
        return -1
    due_add(e, h)
    if s.c.out.bytes >= FLUSH_BYTES and http2_send(e, h) < 0:
        h.client.h.events |= EVENT_BROKEN
        ready_add(e, &h.client.h)
        return -1
    if not client_unsent(&s.c):
        return 1
    if not s.holding:
        s.holding = 1
        h.holding += 1
    return 0


cdef void stream_blocked(Core* e, Stream* s) noexcept nogil:
    """The pass is over, and bytes of it could not be sent."""
    cdef Client* c = &s.c
    if c.blocked_ns:
        return
    c.blocked_ns = e.now_ns
    c.blocked_bytes = 0
    s.mark = s.session.sent
    if c.h.deadline_ns == 0 or c.h.deadline_ns > e.now_ns + STUCK_NS:
        timer_set(e, &c.h, e.now_ns + STUCK_NS)


cdef void stream_unblocked(Stream* s) noexcept nogil:
    s.c.blocked_ns = 0
    s.c.h.events |= EVENT_WRITE
    if s.holding:
        s.holding = 0
        s.session.holding -= 1


cdef bint stream_waits(const Stream* s) noexcept nogil:
    return s.id != 0 and not s.session.failed and nghttp2_session_get_stream_remote_window_size(s.session.session, s.id) > 0


cdef uint64_t stream_progress(const Stream* s) noexcept nogil:
    # What it waits for goes on or does not.
    return s.session.sent - s.mark if stream_waits(s) else s.c.blocked_bytes


cdef bint stream_shut_out(const Client* c) noexcept nogil:
    return is_stream(c) and nghttp2_session_get_local_window_size(c.http2.session) <= 0


cdef bint window_shut(Stream* s, uint64_t now_ns) noexcept nogil:
    """It is the client that lets nothing pass: the stream never took more than a little, or the connection's window never moved since all
    had arrived."""
    cdef Http2* h = s.session
    if s.taken <= STUCK_BYTES and nghttp2_session_get_stream_remote_window_size(h.session, s.id) <= 0:
        return True
    return not h.windowed and now_ns - h.arriving_ns >= STUCK_NS and nghttp2_session_get_remote_window_size(h.session) <= 0


cdef bint stream_held(Core* e, Stream* s) noexcept nogil:
    cdef Http2* h = s.session
    cdef uint32_t held = 0
    if scrubber_unacknowledged(h.client.h.fd):
        h.arriving_ns = e.now_ns        # a slow link: its client has not seen what it would widen the window for
    s = h.streams
    while s != NULL:
        if s.id and s.c.blocked_ns and e.now_ns - s.c.blocked_ns >= STUCK_NS and window_shut(s, e.now_ns):
            held += 1
        s = s.next
    return held > STUCK_STREAMS_MAX


# --- the end ------------------------------------------------------------------------------------------------------------------------------

cdef void stream_end(Core* e, Stream* s) noexcept nogil:
    s.closing = 1
    if s.id and not s.session.failed:
        nghttp2_session_resume_data(s.session.session, s.id)
        due_add(e, s.session)


cdef void stream_leave(Core* e, Stream* s) noexcept nogil:
    """No part of its connection any more."""
    cdef Http2* h = s.session
    step_remove(h, s)
    stream_unblocked(s)
    body_given(e, s, s.body.bytes)
    queue_clear(e, &s.body)
    queue_clear(e, &s.c.out)
    if s.c.inbox != NULL:
        buffer_put(e, s.c.inbox)
        s.c.inbox = NULL
    if s.trailers != NULL:
        buffer_put(e, s.trailers)
        s.trailers = NULL
    if s.prev != NULL:
        s.prev.next = s.next
    else:
        h.streams = s.next
    if s.next != NULL:
        s.next.prev = s.prev
    e.gauges.http2_streams -= 1
    if h.streams == NULL:
        h.idle_ns = e.now_ns
        if not h.failed:
            look_by(e, &h.client.h, e.now_ns + area_fallback(e, h.client.listener).idle_ns)
    s.c.proxy = NULL            # they are the connection's
    s.c.tls = NULL
    handle_bury(e, &s.c.h, False)


cdef void stream_done(Core* e, Stream* s) noexcept nogil:
    cdef Http2* h = s.session
    if s.id and not h.failed:
        nghttp2_session_set_stream_user_data(h.session, s.id, NULL)
        nghttp2_session_resume_data(h.session, s.id)    # its end, where that was not sent with the last byte
        due_add(e, h)
    stream_leave(e, s)


cdef void stream_close(Core* e, Stream* s) noexcept nogil:
    cdef Http2* h = s.session
    if s.id and not h.failed:
        nghttp2_session_set_stream_user_data(h.session, s.id, NULL)
        # Of a tunnel that has ended one way alone, the other one ends here.
        if not (answered_whole(s) and s.ended) and nghttp2_submit_rst_stream(
                h.session, NGHTTP2_FLAG_NONE, s.id, NGHTTP2_NO_ERROR if answered_whole(s) else NGHTTP2_INTERNAL_ERROR):
            h.client.h.events |= EVENT_BROKEN       # no room to say so: a body that broke off must not end in order
            ready_add(e, &h.client.h)
        due_add(e, h)
    stream_leave(e, s)
