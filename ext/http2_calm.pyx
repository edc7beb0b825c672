# What an HTTP/2 client may cost: see http2.pxd. Owns the look at each frame's first nine bytes, before nghttp2 sees it, the allowances, and
# the fingerprint of how a client speaks HTTP/2 (docs/fingerprints.md). Invariant: one look a frame, whatever it carries; an allowance that
# is used up ends the connection (GOAWAY, ENHANCE_YOUR_CALM) within the same read.

cdef enum:
    FRAME_HEAD_BYTES = 9
    PRIORITY_BYTES = 14         # with its head

# A bucket each (GCRA): one more each interval, and so many at once.
cdef struct Allowance:
    uint64_t interval_ns
    uint64_t burst
    uint8_t reason

cdef Allowance CALM[9]          # CALM_KINDS


cdef void calm_prepare() noexcept:
    CALM[CALM_RESETS] = Allowance(20000000, 200, HTTP2_RESETS)            # a page that is left cancels all that it asked for
    CALM[CALM_PINGS] = Allowance(100000000, 50, HTTP2_PINGS)
    CALM[CALM_SETTINGS] = Allowance(1000000000, 10, HTTP2_SETTINGS)
    CALM[CALM_PRIORITIES] = Allowance(5000000, 400, HTTP2_PRIORITIES)     # scrolling changes what is urgent
    CALM[CALM_EMPTY] = Allowance(50000000, 50, HTTP2_EMPTY)
    CALM[CALM_WINDOWS] = Allowance(5000000, 1000, HTTP2_WINDOWS)
    CALM[CALM_UNKNOWN] = Allowance(50000000, 50, HTTP2_UNKNOWN)
    CALM[CALM_OVER] = Allowance(5000000, 1000, HTTP2_RESETS)
    CALM[CALM_BOMBS] = Allowance(1000000000, 5, HTTP2_HEADERS)


calm_prepare()


cdef void calm_take(Http2* h, uint32_t kind) noexcept nogil:
    cdef const Allowance* a = &CALM[kind]
    cdef uint64_t now_ns = h.engine.now_ns
    cdef uint64_t since_ns = h.calm_ns[kind]
    if since_ns < now_ns:
        since_ns = now_ns
    since_ns += a.interval_ns
    h.calm_ns[kind] = since_ns
    if since_ns - now_ns > a.interval_ns * a.burst:
        http2_wrong(h, a.reason, NGHTTP2_ENHANCE_YOUR_CALM)


cdef void http2_wrong(Http2* h, uint8_t reason, uint32_t code) noexcept nogil:
    """The connection ends for this, unless it does for something else already."""
    if h.reason == 0:
        h.reason = reason
        h.code = code


cdef bint reset_by_us(const Http2* h, uint32_t stream_id) noexcept nogil:
    """Or it may have been: what was on its way to it then is overlooked (RFC 9113 5.1)."""
    cdef uint32_t i
    for i in range(RESETS_KEPT):
        if h.resets[i] == stream_id:
            return True
    return h.reset_count > RESETS_KEPT and stream_id < h.resets[h.reset_count % RESETS_KEPT]


cdef bint known_stream(Http2* h, uint32_t stream_id, bint request) noexcept nogil:
    """Whether a frame is of a stream that was begun before: then nghttp2 has to say whether it is over."""
    if request and stream_id > h.last_id:
        h.skipped = h.skipped or stream_id != h.last_id + (2 if h.last_id else 1)
        h.last_id = stream_id
    else:
        return 0 < stream_id <= h.last_id
    return False


cdef void closed_look(Http2* h) noexcept nogil:
    """DATA and HEADERS of streams that are over (RFC 9113 5.1), or were passed over (5.1.1): nghttp2 overlooks them. Everything before
    this frame has been read."""
    cdef uint32_t stream_id = load_be32(h.frame_head + 5) & 0x7fffffff
    if nghttp2_session_find_stream(h.session, <int32_t>stream_id) != NULL:
        return
    if reset_by_us(h, stream_id):
        calm_take(h, CALM_OVER)
    else:
        http2_wrong(h, HTTP2_BROKEN, NGHTTP2_PROTOCOL_ERROR if h.frame_head[3] == NGHTTP2_HEADERS and h.skipped else NGHTTP2_STREAM_CLOSED)


cdef void priority_came(Http2* h) noexcept nogil:
    """RFC 7540 5.3: no more than looked at, as RFC 9113 5.3.2 has it."""
    cdef uint32_t stream_id = load_be32(h.frame_head + 5) & 0x7fffffff
    cdef uint32_t parent = load_be32(h.frame_head + 9) & 0x7fffffff
    if parent == stream_id:
        http2_wrong(h, HTTP2_BROKEN, NGHTTP2_PROTOCOL_ERROR)
    print_text(h, b"p", stream_id, h.frame_head[13])
    print_text(h, b"d", parent, h.frame_head[9] >> 7)


cdef bint frame_begins(Http2* h, uint32_t length, uint8_t kind, uint8_t flags, uint32_t stream_id) noexcept nogil:
    """True: it has to be asked whether its stream is over, before it is read."""
    if kind == NGHTTP2_DATA:
        # Padding alone moves nothing either; more of it than its length is seen by on_frame_recv.
        if length <= (1 if flags & 8 else 0) and not flags & NGHTTP2_FLAG_END_STREAM:
            calm_take(h, CALM_EMPTY)
        return known_stream(h, stream_id, False)
    elif kind == NGHTTP2_HEADERS:
        h.continuations = 0
        h.head_ns = h.engine.now_ns
        h.head_last = flags & NGHTTP2_FLAG_END_HEADERS
        return known_stream(h, stream_id, True)
    elif kind == NGHTTP2_PRIORITY or kind == NGHTTP2_PRIORITY_UPDATE:
        calm_take(h, CALM_PRIORITIES)
        if kind == NGHTTP2_PRIORITY and stream_id == 0:
            http2_wrong(h, HTTP2_BROKEN, NGHTTP2_PROTOCOL_ERROR)
    elif kind == NGHTTP2_RST_STREAM:
        pass                                # on_frame_recv knows whether there is something to reset
    elif kind == NGHTTP2_SETTINGS:
        if not flags & NGHTTP2_FLAG_ACK:
            calm_take(h, CALM_SETTINGS)
    elif kind == NGHTTP2_PING:
        calm_take(h, CALM_PINGS)
    elif kind == NGHTTP2_WINDOW_UPDATE:
        if h.frames_owed:
            h.frames_owed -= 1
        else:
            calm_take(h, CALM_WINDOWS)
    elif kind == NGHTTP2_CONTINUATION:
        h.continuations += 1
        h.head_last = flags & NGHTTP2_FLAG_END_HEADERS
        if h.continuations > CONTINUATIONS_MAX:
            http2_wrong(h, HTTP2_CONTINUATIONS, NGHTTP2_ENHANCE_YOUR_CALM)
    else:
        calm_take(h, CALM_UNKNOWN)          # GOAWAY as well: who says goodbye does so once or twice
    return False


cdef void frame_asked(Http2* h) noexcept nogil:
    if h.asking == ASK_CLOSED:
        closed_look(h)
    elif h.asking == ASK_PRIORITY:
        priority_came(h)
    else:
        print_end(h)


cdef inline void frame_ends(Http2* h) noexcept nogil:
    # Here, as nghttp2 does not tell of the end of a field section that it refuses or overlooks.
    if h.head_last and h.frame_left == 0:
        h.head_last = 0
        h.head_ns = 0
        if not h.print_done:
            h.asking = ASK_PRINT


cdef uint32_t calm_look(Http2* h, const uint8_t* data, uint32_t n) noexcept nogil:
    """How many of these bytes may be read: all, or those up to where something is asked (h.asking), which depends on what came before;
    h.reason: the connection has to end."""
    cdef uint32_t at = 0, take
    if h.preface:
        at = n if n < h.preface else h.preface
        h.preface -= <uint8_t>at
    h.asking = 0
    while at < n:
        if h.frame_left:
            take = n - at if n - at < h.frame_left else h.frame_left
            h.frame_left -= take
            at += take
            frame_ends(h)
            if h.asking:
                return at
            continue
        take = h.frame_want - h.frame_have
        if take > n - at:
            take = n - at
        memcpy(h.frame_head + h.frame_have, data + at, take)
        h.frame_have += <uint8_t>take
        at += take
        if h.frame_have < h.frame_want:
            break
        h.frame_have = 0
        if h.frame_want == PRIORITY_BYTES:
            h.frame_want = FRAME_HEAD_BYTES
            h.asking = ASK_PRIORITY
            return at
        else:
            h.frame_left = <uint32_t>h.frame_head[0] << 16 | <uint32_t>h.frame_head[1] << 8 | h.frame_head[2]
            if frame_begins(h, h.frame_left, h.frame_head[3], h.frame_head[4], load_be32(h.frame_head + 5) & 0x7fffffff):
                h.asking = ASK_CLOSED
            frame_ends(h)
            if h.asking:
                return at
            if h.frame_head[3] == NGHTTP2_PRIORITY and h.frame_left == PRIORITY_BYTES - FRAME_HEAD_BYTES:
                h.frame_left = 0
                h.frame_have = FRAME_HEAD_BYTES
                h.frame_want = PRIORITY_BYTES
                if not h.print_done:
                    return at       # what came before it stands before it in the fingerprint
        if h.reason:
            break
    return at


# --- fingerprint --------------------------------------------------------------------------------------------------------------------------

cdef void print_text(Http2* h, const char* kind, uint64_t one, uint64_t other) noexcept nogil:
    """A line of the canonical text: what cannot be held is left out."""
    cdef Writer w
    if h.print_done:
        return
    w.at = h.print_text + h.print_len
    w.end = h.print_text + HTTP2_PRINT_BYTES
    w.full = False
    put_text(&w, kind)
    put_uint(&w, one)
    put_byte(&w, c":")
    put_uint(&w, other)
    put_byte(&w, c"\n")
    if not w.full:
        h.print_len = <uint16_t>(w.at - h.print_text)


cdef void print_settings(Http2* h, const nghttp2_settings* settings) noexcept nogil:
    """Each once, with its last value: nghttp2 tells some twice, and not others."""
    cdef const nghttp2_settings_entry* iv = settings.iv
    cdef size_t i, k
    cdef uint32_t value
    for i in range(settings.niv):
        k = 0
        while iv[k].settings_id != iv[i].settings_id:
            k += 1
        if k < i:
            continue
        value = iv[i].value
        for k in range(i + 1, settings.niv):
            if iv[k].settings_id == iv[i].settings_id:
                value = iv[k].value
        print_text(h, b"s", <uint64_t>iv[i].settings_id, value)


cdef void print_window(Http2* h, uint32_t increment) noexcept nogil:
    print_text(h, b"w", increment, 0)


cdef void print_pseudo(Http2* h, const uint8_t* name, uint32_t name_len) noexcept nogil:
    """Order of the first request's pseudo-headers, by the letter that tells them apart."""
    if not h.print_done and name_len > 1 and h.print_len < HTTP2_PRINT_BYTES:
        h.print_text[h.print_len] = c"c" if name_len == 9 else name[1]     # :protocol is not :path
        h.print_len += 1


cdef void print_end(Http2* h) noexcept nogil:
    cdef HashKey key
    if h.print_done:
        return
    key.k0 = key.k1 = 0
    h.print_done = 1
    h.fingerprint = siphash(&key, h.print_text, h.print_len)
    if h.fingerprint == 0:
        h.fingerprint = 1
