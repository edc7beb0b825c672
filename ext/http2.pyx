# HTTP/2 connections: see http2.pxd. Owns sessions of nghttp2, their callbacks and what goes in and out. Invariants: callbacks only note
# what came (a stream steps when nghttp2 is done), so nothing is freed under nghttp2's feet; frames leave whole and in order; a body is
# taken from the client only as its reader goes along, so a connection holds no more than its window.
cdef nghttp2_session_callbacks* HTTP2_CALLBACKS = NULL
cdef nghttp2_option* HTTP2_OPTION = NULL


# --- what came (callbacks) ----------------------------------------------------------------------------------------------------------------

cdef int on_begin_headers(nghttp2_session* session, const nghttp2_frame* frame, void* data) noexcept nogil:
    cdef Http2* h = <Http2*>data
    h.list_bytes = 0
    h.fields = 0
    h.too_large = 0
    if h.head != NULL:
        h.head.start = 0
        h.head.end = 0
    return 0


cdef int on_header(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t name_len, const uint8_t* value,
                   size_t value_len, uint8_t flags, void* data) noexcept nogil:
    cdef Http2* h = <Http2*>data
    if not field_counts(h, name_len, value_len):
        return NGHTTP2_ERR_CALLBACK_FAILURE
    if frame.headers.cat == NGHTTP2_HCAT_REQUEST:       # trailers end here, as those of HTTP/1.1 do (RFC 9110 6.5.1)
        field_take(h, name, <uint32_t>name_len, value, <uint32_t>value_len)
    return 0


cdef int on_invalid_header(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t name_len, const uint8_t* value,
                           size_t value_len, uint8_t flags, void* data) noexcept nogil:
    # A field that cannot be: the request is malformed (RFC 9113 8.1.1), instead of going on without it.
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE


cdef Stream* stream_of(nghttp2_session* session, int32_t stream_id) noexcept nogil:
    return <Stream*>nghttp2_session_get_stream_user_data(session, stream_id)


cdef int on_frame_recv(nghttp2_session* session, const nghttp2_frame* frame, void* data) noexcept nogil:
    cdef Http2* h = <Http2*>data
    cdef Stream* s
    cdef bint last = frame.hd.flags & NGHTTP2_FLAG_END_STREAM != 0
    if frame.hd.type == NGHTTP2_HEADERS:
        if frame.headers.cat == NGHTTP2_HCAT_REQUEST:
            stream_open(h, frame.hd.stream_id, last)
            return 0
    elif frame.hd.type == NGHTTP2_SETTINGS and not frame.hd.flags & NGHTTP2_FLAG_ACK:
        h.settled = 1
        print_settings(h, &frame.settings)
    elif frame.hd.type == NGHTTP2_WINDOW_UPDATE and frame.hd.stream_id == 0:
        h.windowed = 1
        print_window(h, <uint32_t>frame.window_update.window_size_increment)
    elif frame.hd.type == NGHTTP2_RST_STREAM:
        calm_take(h, CALM_RESETS if nghttp2_session_find_stream(session, frame.hd.stream_id) != NULL else CALM_OVER)
        if h.reason:
            return NGHTTP2_ERR_CALLBACK_FAILURE
    elif frame.hd.type == NGHTTP2_DATA and frame.hd.length > 1 and frame.hd.length == frame.data.padlen and not last:
        calm_take(h, CALM_EMPTY)        # padding alone, longer than frame_begins could tell
    if last and (frame.hd.type == NGHTTP2_HEADERS or frame.hd.type == NGHTTP2_DATA):
        s = stream_of(session, frame.hd.stream_id)
        if s != NULL:
            s.ended = 1
            s.c.h.events |= EVENT_READ
            step_add(h, s)
    return 0


cdef int on_data_chunk(nghttp2_session* session, uint8_t flags, int32_t stream_id, const uint8_t* data, size_t n,
                       void* user) noexcept nogil:
    cdef Http2* h = <Http2*>user
    cdef Stream* s = stream_of(session, stream_id)
    cdef uint64_t before
    if s == NULL or s.deaf:
        # Answered already, or held back: nobody reads it.
        nghttp2_session_consume_connection(session, n)
        return 0
    before = s.body.bytes
    if not queue_append(h.engine, &s.body, data, n):
        # What is there is counted when the stream goes; this is not.
        nghttp2_session_consume_connection(session, n - (s.body.bytes - before))
        s.c.h.events |= EVENT_BROKEN
    s.c.h.events |= EVENT_READ
    step_add(h, s)
    return 0


cdef int on_stream_close(nghttp2_session* session, int32_t stream_id, uint32_t code, void* data) noexcept nogil:
    cdef Http2* h = <Http2*>data
    cdef Stream* s = stream_of(session, stream_id)
    if s == NULL:
        return 0
    s.id = 0
    if not answered_whole(s) or (s.c.state == CLIENT_TUNNEL and not s.ended):
        s.c.h.events |= EVENT_READ | EVENT_BROKEN | EVENT_HANGUP
    step_add(h, s)
    return 0


cdef inline bint client_caused(uint32_t code) noexcept nogil:
    """A stream that nghttp2 reset for what came on it; resets of our own have other reasons."""
    return (code != NGHTTP2_NO_ERROR and code != NGHTTP2_INTERNAL_ERROR and code != NGHTTP2_REFUSED_STREAM and code != NGHTTP2_CANCEL)


cdef inline void reset_note(Http2* h, int32_t stream_id) noexcept nogil:
    h.resets[h.reset_count % RESETS_KEPT] = <uint32_t>stream_id
    h.reset_count += 1


cdef int on_invalid_frame(nghttp2_session* session, const nghttp2_frame* frame, int error, void* data) noexcept nogil:
    # Counted as it is decided: of a read full of such requests the resets would go out, and be seen, only behind the last one. A request
    # beyond the streams that may be open is refused for what its client did, whether it has acknowledged our SETTINGS or not.
    cdef Http2* h = <Http2*>data
    if frame.hd.type == NGHTTP2_HEADERS or frame.hd.type == NGHTTP2_WINDOW_UPDATE:
        reset_note(h, frame.hd.stream_id)       # its body may come before that is sent
        h.resets_counted += error != NGHTTP2_ERR_REFUSED_STREAM
        calm_take(h, CALM_RESETS)
    return NGHTTP2_ERR_CALLBACK_FAILURE if h.reason else 0


cdef int on_frame_send(nghttp2_session* session, const nghttp2_frame* frame, void* data) noexcept nogil:
    cdef Http2* h = <Http2*>data
    cdef Stream* s
    if frame.hd.type == NGHTTP2_RST_STREAM:
        reset_note(h, frame.hd.stream_id)
        if client_caused(frame.rst_stream.error_code):
            h.engine.totals.bad_requests += 1
            if h.resets_counted:
                h.resets_counted -= 1
            else:
                calm_take(h, CALM_RESETS)
    elif frame.hd.type == NGHTTP2_GOAWAY:
        h.broken = frame.goaway.error_code != NGHTTP2_NO_ERROR
    elif frame.hd.type == NGHTTP2_DATA or frame.hd.type == NGHTTP2_HEADERS:
        # Answered before the request was whole: the rest is not wanted (RFC 9113 8.1). Of a tunnel it is the other way that goes on.
        s = stream_of(session, frame.hd.stream_id)
        if frame.hd.flags & NGHTTP2_FLAG_END_STREAM and nghttp2_session_get_stream_remote_close(session, frame.hd.stream_id) == 0 and (
                s == NULL or s.c.state != CLIENT_TUNNEL):
            nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame.hd.stream_id, NGHTTP2_NO_ERROR)
    return 0


cdef void http2_prepare() noexcept:
    """Once a process."""
    if nghttp2_session_callbacks_new(&HTTP2_CALLBACKS) or nghttp2_option_new(&HTTP2_OPTION):
        return
    nghttp2_session_callbacks_set_on_begin_headers_callback(HTTP2_CALLBACKS, on_begin_headers)
    nghttp2_session_callbacks_set_on_header_callback(HTTP2_CALLBACKS, on_header)
    nghttp2_session_callbacks_set_on_invalid_header_callback(HTTP2_CALLBACKS, on_invalid_header)
    nghttp2_session_callbacks_set_on_frame_recv_callback(HTTP2_CALLBACKS, on_frame_recv)
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(HTTP2_CALLBACKS, on_invalid_frame)
    nghttp2_session_callbacks_set_on_frame_send_callback(HTTP2_CALLBACKS, on_frame_send)
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(HTTP2_CALLBACKS, on_data_chunk)
    nghttp2_session_callbacks_set_on_stream_close_callback(HTTP2_CALLBACKS, on_stream_close)
    nghttp2_option_set_no_auto_window_update(HTTP2_OPTION, 1)
    nghttp2_option_set_no_closed_streams(HTTP2_OPTION, 1)
    nghttp2_option_set_builtin_recv_extension_type(HTTP2_OPTION, <uint8_t>NGHTTP2_PRIORITY_UPDATE)


http2_prepare()


# --- life ---------------------------------------------------------------------------------------------------------------------------------

cdef bint http2_greet(Core* e, Http2* h) noexcept nogil:
    """Our SETTINGS, and the connection's window."""
    cdef nghttp2_settings_entry own[5]
    own[0] = nghttp2_settings_entry(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, e.policy.policy.header.http2_streams_max)
    own[1] = nghttp2_settings_entry(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, HTTP2_STREAM_WINDOW)
    own[2] = nghttp2_settings_entry(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, area_fallback(e, h.client.listener).http1.head_bytes_max)
    own[3] = nghttp2_settings_entry(NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1)
    own[4] = nghttp2_settings_entry(NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1)
    return (nghttp2_submit_settings(h.session, NGHTTP2_FLAG_NONE, own, 5) == 0
            and nghttp2_session_set_local_window_size(h.session, NGHTTP2_FLAG_NONE, 0, HTTP2_CONNECTION_WINDOW) == 0)


cdef bint http2_open(Core* e, Client* c) noexcept nogil:
    cdef Http2* h = <Http2*>pool_get(&e.sessions)
    cdef int error
    if h == NULL:
        e.totals.table_full += 1
        client_close(e, c, True)
        return False
    memset(h, 0, sizeof(Http2) - HTTP2_PRINT_BYTES)
    h.engine = e
    h.client = c
    h.preface = HTTP2_PREFACE_BYTES
    h.frame_want = 9
    h.idle_ns = e.now_ns
    session_memory(&h.memory, e)
    c.http2 = h
    c.state = CLIENT_HTTP2
    e.totals.http2_connections += 1
    e.gauges.http2_connections += 1
    error = nghttp2_session_server_new3(&h.session, HTTP2_CALLBACKS, h, HTTP2_OPTION, &h.memory.calls)
    if error:
        h.session = NULL        # nghttp2 leaves there what it has freed
    if error or not http2_greet(e, h):
        client_close(e, c, True)
        return False
    silent_remove(e, c)
    timer_clear(e, &c.h)
    timer_set(e, &c.h, e.now_ns + area_fallback(e, c.listener).head_ns)
    due_add(e, h)
    return True


cdef void http2_free(Core* e, Client* c) noexcept nogil:
    cdef Http2* h = c.http2
    check(not h.busy)
    h.failed = 1
    while h.streams != NULL:
        client_close(e, &h.streams.c, False)
    due_remove(e, h)
    if h.session != NULL:
        nghttp2_session_del(h.session)
    check(h.memory.nbytes == 0)
    if h.head != NULL:
        buffer_put(e, h.head)
    e.gauges.http2_connections -= 1
    c.http2 = NULL
    pool_put(&e.sessions, h)


cdef void due_add(Core* e, Http2* h) noexcept nogil:
    if h.due:
        return
    h.due = 1
    h.due_prev = e.due_tail
    h.due_next = NULL
    if h.due_prev != NULL:
        h.due_prev.due_next = h
    else:
        e.due_head = h
    e.due_tail = h


cdef void due_remove(Core* e, Http2* h) noexcept nogil:
    if not h.due:
        return
    h.due = 0
    if h.due_prev != NULL:
        h.due_prev.due_next = h.due_next
    else:
        e.due_head = h.due_next
    if h.due_next != NULL:
        h.due_next.due_prev = h.due_prev
    else:
        e.due_tail = h.due_prev


cdef void http2_refuse(Core* e, Http2* h, uint8_t reason) noexcept nogil:
    """The connection ends: GOAWAY as far as the socket takes it, a line in the log, and it counts against its source."""
    cdef Client* c = h.client
    cdef uint8_t goaway[17]
    cdef uint32_t last = <uint32_t>nghttp2_session_get_last_proc_stream_id(h.session)
    cdef uint32_t code = h.code if h.code else NGHTTP2_ENHANCE_YOUR_CALM if reason != HTTP2_BROKEN else NGHTTP2_PROTOCOL_ERROR
    memset(goaway, 0, sizeof(goaway))
    goaway[2] = 8
    goaway[3] = 7                   # RFC 9113 6.8
    put_u32(goaway + 9, last)
    put_u32(goaway + 13, code)
    if h.sent == 0:
        http2_send(e, h)            # RFC 9113 3.4: SETTINGS come first
    if not client_unsent(c):        # else it would stand in the middle of another frame's time to be sent: there is no reader
        client_write(e, c, goaway, sizeof(goaway))
    http2_over(e, h, reason)


cdef inline void put_u32(uint8_t* at, uint32_t value) noexcept nogil:
    at[0] = <uint8_t>(value >> 24)
    at[1] = <uint8_t>(value >> 16)
    at[2] = <uint8_t>(value >> 8)
    at[3] = <uint8_t>value


cdef void abuse_judge(Core* e, const Client* c, Judgement* out) noexcept nogil:
    cdef Facts f
    memset(&f, 0, sizeof(Facts))
    f.policy = e.policy.policy
    f.listener = &f.policy.listeners[c.listener]
    f.proof = c.proof
    f.client_full = c.peer
    facts_address(e, &f)
    f.area = area_fallback(e, c.listener)
    facts_connection(e, &f, c)
    out.rule = -1
    out.rung = -1
    if f.area != &e.area_none and not trusted_peer(&f):
        judge_abuse(e.shared, &f, e.now_ns, out)


cdef void http2_over(Core* e, Http2* h, uint8_t reason) noexcept nogil:
    """No more frames. reason: what was wrong, on the access line; 0: nothing."""
    cdef Client* c = h.client
    cdef Judgement j
    if reason:
        e.totals.http2_refused += 1
        memset(&j, 0, sizeof(Judgement))
        abuse_judge(e, c, &j)
        connection_record(e, c, reason, NULL, &j)
        exchange_end(e, c.exchange)
    http2_free(e, c)
    c.requests += 1                 # said what there was to say: a plain close may do
    client_linger(e, c)


# --- in -----------------------------------------------------------------------------------------------------------------------------------

cdef bint http2_take(Core* e, Http2* h, const uint8_t* data, uint32_t n) noexcept nogil:
    """Bytes of the connection. False: it is closed."""
    cdef ssize_t used
    cdef uint32_t part
    while n and h.reason == 0:
        part = calm_look(h, data, n)
        # A frame's first bytes end a part; nghttp2 waits for the rest of it.
        h.busy = 1
        used = nghttp2_session_mem_recv(h.session, data, part) if h.reason == 0 else 0
        h.busy = 0
        if used < 0:
            http2_wrong(h, HTTP2_BROKEN, NGHTTP2_PROTOCOL_ERROR)
        elif h.asking:
            frame_asked(h)
        data += part
        n -= part
    if h.reason:
        http2_refuse(e, h, h.reason)
        return False
    if h.head != NULL and h.head_ns == 0:
        buffer_put(e, h.head)
        h.head = NULL
    return steps_take(e, h)


cdef bint steps_take(Core* e, Http2* h) noexcept nogil:
    """Streams that have something to do: each once, and no more than a connection's share of a pass. What is left is due. False: the
    connection is closed."""
    cdef Client* c = h.client
    cdef Stream* last = h.step_tail
    cdef Stream* s
    cdef uint64_t before = h.sent
    while h.step_head != NULL and h.sent - before < STEP_BYTES_MAX:
        s = h.step_head
        step_remove(h, s)
        client_step(e, &s.c)
        if c.http2 != h:
            return False
        if s == last:
            break
    if h.step_head != NULL:
        due_add(e, h)
    return True


cdef bint http2_read(Core* e, Http2* h) noexcept nogil:
    """False: the connection is closed."""
    cdef Client* c = h.client
    cdef Buffer* b = c.inbox
    cdef ssize_t got
    cdef uint64_t budget = STEP_BYTES_MAX
    if b != NULL:
        # What was read before it was known to be HTTP/2.
        c.inbox = NULL
        got = b.end - b.start
        memcpy(e.frames, b.data + b.start, <size_t>got)
        buffer_put(e, b)
        if got and not http2_take(e, h, e.frames, <uint32_t>got):
            return False
    while c.h.events & EVENT_READ:
        if e.buffers.free < BUFFERS_LOW:
            starve(e, &c.h)
            return True
        if budget < HTTP2_READ_BYTES:
            ready_add(e, &c.h)
            return True
        got = socket_recv(e, &c.h, c.tls, e.frames, HTTP2_READ_BYTES)
        if got < 0 and (scrubber_errno() == EAGAIN or scrubber_errno() == EINTR):
            return True
        if got <= 0:
            client_close(e, c, got < 0)
            return False
        budget -= <uint64_t>got
        if not http2_take(e, h, e.frames, <uint32_t>got):
            return False
    return True


cdef void http2_step(Core* e, Client* c) noexcept nogil:
    cdef Http2* h = c.http2
    if h == NULL:
        return
    if c.h.events & EVENT_BROKEN:
        client_close(e, c, False)
        return
    if http2_read(e, h):
        due_add(e, h)
        if h.head_ns:
            look_by(e, &c.h, h.head_ns + area_fallback(e, c.listener).head_ns)


# --- out ----------------------------------------------------------------------------------------------------------------------------------

cdef int http2_send(Core* e, Http2* h) noexcept nogil:
    """Frames to the socket. 1: there are no more, 0: it takes no more now, -1: broken."""
    cdef Client* c = h.client
    cdef const uint8_t* data = NULL
    cdef ssize_t got = 1
    cdef uint64_t n
    cdef int result
    while True:
        if client_unsent(c):
            result = client_flush(e, c)
            if result <= 0:
                return result
        n = 0
        h.busy = 1
        while n + FRAME_BYTES_MAX <= FRAMES_BYTES:
            got = nghttp2_session_mem_send(h.session, &data)
            if got <= 0 or <uint64_t>got > FRAME_BYTES_MAX:
                break
            memcpy(e.frames + n, data, <size_t>got)
            n += <uint64_t>got
        h.busy = 0
        if got < 0 or got > FRAME_BYTES_MAX:
            return -1
        if n == 0:
            return 1
        h.sent += n
        if client_write(e, c, e.frames, n) < 0:
            return -1


cdef void http2_pump(Core* e, Http2* h) noexcept nogil:
    cdef Client* c = h.client
    cdef Stream* s
    cdef int result = 1
    cdef int _
    cdef uint64_t before = h.sent
    due_remove(e, h)
    for _ in range(HTTP2_ROUNDS):
        result = http2_send(e, h)
        if result < 0:
            client_close(e, c, True)
            return
        if h.reason:
            http2_refuse(e, h, h.reason)
            return
        if h.step_head == NULL:
            break
        if h.sent - before >= STEP_BYTES_MAX:
            due_add(e, h)
            break
        if not steps_take(e, h):
            return
    else:
        due_add(e, h)
    if h.holding:
        s = h.streams
        while s != NULL:
            if s.holding:
                stream_blocked(e, s)
            s = s.next
    if result == 1 and not nghttp2_session_want_read(h.session) and not nghttp2_session_want_write(h.session):
        # Somebody has said GOAWAY, and there is nothing more to say: nghttp2 for what was wrong, or the client as it leaves.
        http2_over(e, h, HTTP2_BROKEN if h.broken else 0)


cdef void http2_serve(Core* e) noexcept nogil:
    cdef Http2* last = e.due_tail
    cdef Http2* h
    cdef uint64_t began_ns = e.now_ns
    cdef uint32_t served = 0
    # Who becomes due while this runs waits for the next pass, as does whom the time does not suffice for.
    while e.due_head != NULL and served < e.sessions.count:
        h = e.due_head
        http2_pump(e, h)
        if h == last:
            return
        served += 1
        if served % PASS_CLOCK_EVENTS == 0:
            e.now_ns = scrubber_clock(CLOCK_MONOTONIC)
            if e.now_ns - began_ns > PASS_NS_MAX:
                return


cdef bint http2_waits(const Core* e) noexcept nogil:
    return e.due_head != NULL


# --- deadlines and the end ----------------------------------------------------------------------------------------------------------------

cdef void http2_timeout(Core* e, Client* c) noexcept nogil:
    cdef const AreaSpec* area = area_fallback(e, c.listener)
    cdef Http2* h = c.http2
    cdef uint64_t due
    if c.blocked_ns and write_late(e, c, area):
        e.totals.timeouts_write += 1
        client_close(e, c, True)
        return
    if not h.settled or h.head_ns:
        # The preface with its SETTINGS, and a field section, are heads.
        due = (h.head_ns if h.head_ns else h.idle_ns) + area.head_ns
        if e.now_ns >= due and not c.h.events & EVENT_READ:
            e.totals.timeouts_head += 1
            http2_refuse(e, h, HTTP2_LATE)
            return
    elif h.streams == NULL:
        due = h.idle_ns + area.idle_ns
        if e.now_ns >= due and not c.h.events & EVENT_READ:
            e.totals.timeouts_idle += 1
            http2_leave_now(e, h)
            http2_over(e, h, 0)
            return
    else:
        due = e.now_ns + area.idle_ns
    if c.blocked_ns or due <= e.now_ns:
        due = e.now_ns + CHECK_NS
    timer_set(e, &c.h, due)


cdef void http2_leave_now(Core* e, Http2* h) noexcept nogil:
    """GOAWAY with the last request that was taken up."""
    h.leaving = 2
    nghttp2_submit_goaway(h.session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(h.session), NGHTTP2_NO_ERROR, NULL, 0)
    http2_send(e, h)


cdef bint http2_leave(Core* e, Client* c) noexcept nogil:
    cdef Http2* h = c.http2
    if h.leaving == 0:
        # RFC 9113 6.8: first without a number, so that no request on its way is lost.
        h.leaving = 1
        h.leave_ns = e.now_ns
        nghttp2_submit_shutdown_notice(h.session)
        due_add(e, h)
        return False
    if h.leaving == 1:
        if e.now_ns - h.leave_ns < DRAIN_IDLE_NS:
            return False
        http2_leave_now(e, h)
    return h.streams == NULL and not client_unsent(c)
