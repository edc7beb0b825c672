# Origins that speak HTTP/2 in clear text (h2c, with prior knowledge): see http2.pxd. One request a connection at a time, so that to its
# exchange it is a connection like any other: what is written to it is HTTP/1.1 and leaves as HEADERS and DATA, what comes is HTTP/1.1
# again, in chunks where it has no length. Invariants: a connection is idle only when its stream is closed on both sides; the origin sends
# no more than a window ahead of the reader; trailers are kept aside, for clients that can take them.

cdef nghttp2_session_callbacks* UPLINK_CALLBACKS = NULL


# --- what came (callbacks) ----------------------------------------------------------------------------------------------------------------

cdef int uplink_begin_headers(nghttp2_session* session, const nghttp2_frame* frame, void* data) noexcept nogil:
    cdef Uplink* u = <Uplink*>data
    u.list_bytes = 0
    u.fields_count = 0
    u.too_large = 0
    if u.fields != NULL:
        u.fields.start = 0
        u.fields.end = 0
    return 0


cdef int uplink_header(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t name_len, const uint8_t* value,
                       size_t value_len, uint8_t flags, void* data) noexcept nogil:
    cdef Uplink* u = <Uplink*>data
    u.list_bytes += <uint32_t>(name_len + value_len + 32)
    if u.list_bytes > HTTP2_LIST_BYTES_MAX:
        return NGHTTP2_ERR_CALLBACK_FAILURE
    if frame.hd.stream_id == u.id and not field_store(u.engine, &u.fields, &u.fields_count, name, name_len, value, value_len):
        u.too_large = 1
    return 0


cdef bint text_put(Uplink* u, const void* data, uint64_t n) noexcept nogil:
    if not queue_append(u.engine, &u.text, <const uint8_t*>data, n):
        u.failed = 1
        return False
    return True


cdef void text_status(Uplink* u, const Field* status) noexcept nogil:
    text_put(u, b"HTTP/1.1 ", 9)
    text_put(u, status.value, status.value_len)
    text_put(u, b" \r\n", 3)


cdef void text_head(Uplink* u, bint last) noexcept nogil:
    """An answer's field section, as HTTP/1.1."""
    cdef Field f
    cdef uint32_t at = 0
    cdef bint length = False
    cdef bint interim = False
    while u.fields != NULL and field_next(u.fields, &at, &f):
        if f.name[0] == c":":
            interim = f.value[0] == c"1"
            u.bodyless = u.bodyless or field_value_is(&f, b"204", 3) or field_value_is(&f, b"304", 3)
            text_status(u, &f)
            continue
        if not name_sound(f.name, f.name_len) or not value_sound(f.value, f.value_len) or hop_field(&f):
            u.failed = 1
            return
        length = length or field_is(&f, b"content-length", 14)
        text_put(u, f.name, f.name_len)
        text_put(u, b": ", 2)
        text_put(u, f.value, f.value_len)
        text_put(u, b"\r\n", 2)
    if not interim:
        u.final = 1
        u.chunked = not length and not u.bodyless
        if u.chunked:
            text_put(u, b"transfer-encoding: chunked\r\n", 28)
    text_put(u, b"\r\n", 2)


cdef int uplink_frame_recv(nghttp2_session* session, const nghttp2_frame* frame, void* data) noexcept nogil:
    cdef Uplink* u = <Uplink*>data
    if frame.hd.type == NGHTTP2_GOAWAY:
        u.leaving = 1
    if frame.hd.stream_id == 0 or frame.hd.stream_id != u.id:
        return 0
    if frame.hd.type == NGHTTP2_HEADERS:
        if u.too_large:
            u.failed = 1
        elif not u.final:
            text_head(u, frame.hd.flags & NGHTTP2_FLAG_END_STREAM != 0)
        elif u.trailers == NULL:
            u.trailers = u.fields
            u.fields = NULL
    if frame.hd.flags & NGHTTP2_FLAG_END_STREAM and (frame.hd.type == NGHTTP2_HEADERS or frame.hd.type == NGHTTP2_DATA) and not u.ended:
        u.ended = 1
        if u.chunked:
            text_put(u, b"0\r\n\r\n", 5)
    return 0


cdef int uplink_data_chunk(nghttp2_session* session, uint8_t flags, int32_t stream_id, const uint8_t* data, size_t n,
                           void* user) noexcept nogil:
    cdef Uplink* u = <Uplink*>user
    cdef uint8_t line[20]
    cdef Writer w
    if stream_id != u.id or u.failed:
        nghttp2_session_consume_connection(session, n)
        return 0
    u.unread += <uint32_t>n
    if u.chunked:
        w.at = line
        w.end = line + sizeof(line)
        w.full = False
        put_uint_hex(&w, n)
        put(&w, b"\r\n", 2)
        text_put(u, line, <uint64_t>(w.at - line))
    text_put(u, data, n)
    if u.chunked:
        text_put(u, b"\r\n", 2)
    return 0


cdef int uplink_stream_close(nghttp2_session* session, int32_t stream_id, uint32_t code, void* data) noexcept nogil:
    cdef Uplink* u = <Uplink*>data
    if stream_id != u.id:
        return 0
    u.id = 0
    if not u.ended:
        u.failed = 1
    return 0


cdef void uplink_prepare() noexcept:
    """Once a process."""
    if nghttp2_session_callbacks_new(&UPLINK_CALLBACKS):
        return
    nghttp2_session_callbacks_set_on_begin_headers_callback(UPLINK_CALLBACKS, uplink_begin_headers)
    nghttp2_session_callbacks_set_on_header_callback(UPLINK_CALLBACKS, uplink_header)
    nghttp2_session_callbacks_set_on_invalid_header_callback(UPLINK_CALLBACKS, on_invalid_header)
    nghttp2_session_callbacks_set_on_frame_recv_callback(UPLINK_CALLBACKS, uplink_frame_recv)
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(UPLINK_CALLBACKS, uplink_data_chunk)
    nghttp2_session_callbacks_set_on_stream_close_callback(UPLINK_CALLBACKS, uplink_stream_close)


uplink_prepare()


# --- life ---------------------------------------------------------------------------------------------------------------------------------

cdef bint uplink_open(Core* e, Origin* o) noexcept nogil:
    cdef Uplink* u = <Uplink*>pool_get(&e.uplinks)
    cdef nghttp2_settings_entry own[3]
    if u == NULL:
        e.totals.table_full += 1
        return False
    memset(u, 0, sizeof(Uplink))
    u.engine = e
    o.http2 = u
    session_memory(&u.memory, e)
    own[0] = nghttp2_settings_entry(NGHTTP2_SETTINGS_ENABLE_PUSH, 0)
    own[1] = nghttp2_settings_entry(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, HTTP2_STREAM_WINDOW)
    own[2] = nghttp2_settings_entry(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HEAD_BYTES_MAX)
    return (nghttp2_session_client_new3(&u.session, UPLINK_CALLBACKS, u, HTTP2_OPTION, &u.memory.calls) == 0
            and nghttp2_submit_settings(u.session, NGHTTP2_FLAG_NONE, own, 3) == 0)


cdef void uplink_free(Core* e, Origin* o) noexcept nogil:
    cdef Uplink* u = o.http2
    if u == NULL:
        return
    o.http2 = NULL
    if u.session != NULL:
        nghttp2_session_del(u.session)
    check(u.memory.nbytes == 0)
    queue_clear(e, &u.text)
    queue_clear(e, &u.wire)
    uplink_forget(e, u)
    pool_put(&e.uplinks, u)


cdef void uplink_forget(Core* e, Uplink* u) noexcept nogil:
    if u.fields != NULL:
        buffer_put(e, u.fields)
        u.fields = NULL
    if u.trailers != NULL:
        buffer_put(e, u.trailers)
        u.trailers = NULL


cdef bint uplink_rest(Core* e, Origin* o) noexcept nogil:
    """The answer is complete. True: nothing of it is left, and the connection may take another request."""
    cdef Uplink* u = o.http2
    if u.id or u.failed or u.leaving or u.text.head != NULL or u.wire.head != NULL or not nghttp2_session_want_read(u.session):
        return False
    uplink_forget(e, u)
    u.headed = 0
    u.final = 0
    u.chunked = 0
    u.bodyless = 0
    u.ended = 0
    return True


# --- requests -----------------------------------------------------------------------------------------------------------------------------

cdef ssize_t uplink_read_body(nghttp2_session* session, int32_t stream_id, uint8_t* out, size_t length, uint32_t* flags,
                              nghttp2_data_source* source, void* user) noexcept nogil:
    cdef Uplink* u = <Uplink*>user
    cdef Origin* o = <Origin*>source.ptr
    cdef uint64_t n = o.out.bytes
    if n > length:
        n = length
    queue_take(u.engine, &o.out, out, n)
    if o.out.head == NULL and o.exchange != NULL and o.exchange.request_done:
        flags[0] |= NGHTTP2_DATA_FLAG_EOF
    elif n == 0:
        return NGHTTP2_ERR_DEFERRED
    return <ssize_t>n


cdef uint32_t request_fields_out(Core* e, uint32_t n) noexcept nogil:
    """The head in e.head, of n bytes, as fields of e.fields; how many."""
    cdef uint32_t at = 0, i, k, count
    cdef nghttp2_nv* f = e.fields
    # Pseudo-headers come first, so Host is looked for when the others have been put behind four places.
    for i in range(4):
        f[i].flags = 0
    f[0].name, f[0].namelen = <uint8_t*>b":method", 7
    f[1].name, f[1].namelen = <uint8_t*>b":scheme", 7
    f[1].value, f[1].valuelen = <uint8_t*>b"http", 4
    f[2].name, f[2].namelen = <uint8_t*>b":path", 5
    f[3].name, f[3].namelen = <uint8_t*>b":authority", 10
    f[0].value = e.head
    while e.head[at] != c" ":
        at += 1
    f[0].valuelen = at
    at += 1
    f[2].value = e.head + at
    while e.head[at] != c" ":
        at += 1
    f[2].valuelen = <size_t>(e.head + at - f[2].value)
    f[3].value = e.head + at
    f[3].valuelen = 0
    while e.head[at] != c"\n":
        at += 1
    count = head_fields(e, n, at + 1, 4)
    k = 4
    for i in range(4, count):
        if f[i].namelen == 4 and memcmp(f[i].name, <const char*>b"host", 4) == 0:
            f[3].value = f[i].value
            f[3].valuelen = f[i].valuelen
        else:
            f[k] = f[i]
            k += 1
    return k


cdef bint uplink_request(Core* e, Origin* o) noexcept nogil:
    """What is queued begins with a request's head. False: it cannot be sent."""
    cdef Uplink* u = o.http2
    cdef Exchange* x = o.exchange
    cdef nghttp2_data_provider body
    cdef nghttp2_nv* te
    cdef uint32_t n = head_ready(e, &o.out)
    cdef uint32_t count
    if n == 0 or x == NULL:
        return n == 0
    queue_take(e, &o.out, NULL, n)
    count = request_fields_out(e, n)
    if x.trailers and count < HTTP2_FIELDS_MAX:
        te = &e.fields[count]
        te.name, te.namelen = <uint8_t*>b"te", 2
        te.value, te.valuelen = <uint8_t*>b"trailers", 8
        te.flags = 0
        count += 1
    body.source.ptr = o
    body.read_callback = uplink_read_body
    u.bodyless = origin_method(x) == METHOD_HEAD
    u.headed = 1
    u.id = nghttp2_submit_request(u.session, NULL, e.fields, count, NULL if x.request_body == BODY_NONE else &body, NULL)
    return u.id > 0


cdef int uplink_send(Core* e, Origin* o) noexcept nogil:
    """Frames to the socket. 1: there are no more, 0: it takes no more now, -1: broken."""
    cdef Uplink* u = o.http2
    cdef const uint8_t* data = NULL
    cdef ssize_t got = 1
    cdef uint64_t n, taken = 0
    cdef int result = 1
    while True:
        if u.wire.head != NULL:
            result = queue_flush(e, &u.wire, o.h.fd, &taken) if o.h.events & EVENT_WRITE else 0
        if result <= 0:
            if result == 0:
                o.h.events &= <uint8_t>~EVENT_WRITE
            return result
        n = 0
        while n + FRAME_BYTES_MAX <= FRAMES_BYTES:
            got = nghttp2_session_mem_send(u.session, &data)
            if got <= 0 or got > FRAME_BYTES_MAX:
                break
            memcpy(e.frames + n, data, <size_t>got)
            n += <uint64_t>got
        if got < 0 or got > FRAME_BYTES_MAX:
            scrubber_set_errno(ECONNRESET)
            return -1
        if n == 0:
            return 1
        result = queue_send(e, &u.wire, &o.h, e.frames, n, 0)


cdef int uplink_flush(Core* e, Origin* o) noexcept nogil:
    cdef Uplink* u = o.http2
    cdef int result
    if not u.headed and o.out.head != NULL and not uplink_request(e, o):
        scrubber_set_errno(ECONNRESET)
        return -1
    if u.id:
        nghttp2_session_resume_data(u.session, u.id)        # an error where it does not wait
    result = uplink_send(e, o)
    return 0 if result == 1 and o.out.head != NULL else result


cdef int uplink_write(Core* e, Origin* o, const uint8_t* data, uint64_t n) noexcept nogil:
    if not queue_append(e, &o.out, data, n):
        scrubber_set_errno(ENOBUFS)
        return -1
    return uplink_flush(e, o)


# --- answers ------------------------------------------------------------------------------------------------------------------------------

cdef ssize_t uplink_recv(Core* e, Origin* o, void* data, uint64_t n) noexcept nogil:
    cdef Uplink* u = o.http2
    cdef ssize_t got = -1
    cdef bint over = False
    cdef bint waited = o.out.head != NULL
    while u.text.head == NULL and o.h.events & EVENT_READ and not u.failed:
        got = socket_recv(e, &o.h, o.tls, e.frames, HTTP2_READ_BYTES)
        if got < 0 and (scrubber_errno() == EAGAIN or scrubber_errno() == EINTR):
            break
        over = got <= 0
        if over or nghttp2_session_mem_recv(u.session, e.frames, <size_t>got) < 0:
            u.failed = 1
    if not u.failed and uplink_send(e, o) < 0:
        u.failed = 1
    if waited and o.out.head == NULL:
        ready_add(e, &o.h)          # the origin takes the body again
    if u.text.head != NULL:
        got = <ssize_t>(n if n < u.text.bytes else u.text.bytes)
        queue_take(e, &u.text, <uint8_t*>data, <uint64_t>got)
        if u.text.head == NULL and u.unread and not u.failed:
            if u.id:
                nghttp2_session_consume(u.session, u.id, u.unread)
            else:
                nghttp2_session_consume_connection(u.session, u.unread)
            u.unread = 0
            if uplink_send(e, o) < 0:
                u.failed = 1
        if u.text.head != NULL or u.failed:
            o.h.events |= EVENT_READ
        return got
    if over and got == 0:
        return 0
    scrubber_set_errno(ECONNRESET if u.failed else EAGAIN)
    return -1
