# Relay and account: see exchange.pxd. Invariants: bytes taken from one side have a place on the other before that; nothing is read
# from a side while the other has not taken what came before; an exchange that has begun its answer never begins another.


cdef void starve(Core* e, Handle* h) noexcept nogil:
    e.starved = True
    h.events |= EVENT_STARVED


cdef void starved_in(Core* e, Pool* p) noexcept nogil:
    cdef uint32_t i
    cdef Handle* h
    for i in range(p.count):
        h = <Handle*>(p.base + i * p.object_bytes)
        if p.taken[i] and h.events & EVENT_STARVED:
            h.events &= <uint8_t>~EVENT_STARVED
            ready_add(e, h)


cdef void starved_wake(Core* e) noexcept nogil:
    e.starved = False
    starved_in(e, &e.clients)
    starved_in(e, &e.streams)
    starved_in(e, &e.origins)


# --- request body ------------------------------------------------------------------------------------------------------------------------

cdef int origin_write(Core* e, Origin* o, const uint8_t* data, uint64_t n, int flags) noexcept nogil:
    """Bytes to the origin: see queue_send."""
    cdef int result = uplink_write(e, o, data, n) if o.http2 != NULL else socket_send(e, &o.h, o.tls, &o.out, data, n, flags)
    if result < 0:
        write_failed(o)
    o.activity_ns = e.now_ns
    return result


cdef int chunk_write(Core* e, Queue* q, const uint8_t* data, uint32_t n) noexcept nogil:
    """One chunk, framed by us."""
    cdef uint8_t line[20]
    cdef Writer w
    w.at = line
    w.end = line + sizeof(line)
    w.full = False
    put_uint_hex(&w, n)
    put(&w, b"\r\n", 2)
    if not queue_append(e, q, line, <uint64_t>(w.at - line)) or not queue_append(e, q, data, n):
        return -1
    return 0 if queue_append(e, q, <const uint8_t*>b"\r\n", 2) else -1


cdef inline int request_chunk(Core* e, Origin* o, const uint8_t* data, uint32_t n) noexcept nogil:
    """n bytes of a body without length: DATA frames need no chunks around them."""
    if o.http2 != NULL:
        return 0 if queue_append(e, &o.out, data, n) else -1
    return chunk_write(e, &o.out, data, n)


cdef int request_chunks(Core* e, Client* c, Exchange* x) noexcept nogil:
    """The chunked body in the inbox, as far as it goes. -1: refused (answered or closed here)."""
    cdef Buffer* b = c.inbox
    cdef uint32_t used
    cdef Span run
    cdef int outcome
    while b.start < b.end:
        used = 0
        outcome = chunked_feed(&x.request_chunked, b.data + b.start, b.end - b.start, &used, &run)
        check(used <= b.end - b.start)
        check(run.off + run.len <= used)
        if outcome == CHUNKED_DATA:
            x.bytes_in += run.len
            x.rate_bytes += run.len
            if x.bytes_in > route_body_bytes_max(x):
                request_refuse(e, x, 413)
                return -1
            if request_chunk(e, x.origin, b.data + b.start + run.off, run.len) < 0:
                client_close(e, c, True)
                return -1
        elif outcome == CHUNKED_BAD:
            e.totals.bad_requests += 1
            x.reason = HTTP1_BAD_CHUNK
            request_refuse(e, x, 400)
            return -1
        b.start += used
        if outcome == CHUNKED_END:
            x.request_done = 1
            if x.origin.http2 == NULL and not queue_append(e, &x.origin.out, <const uint8_t*>b"0\r\n\r\n", 5):
                client_close(e, c, True)
                return -1
            break
        if outcome == CHUNKED_MORE:
            break
    if b.start == b.end:
        b.start = 0
        b.end = 0
    return 0


cdef void request_refuse(Core* e, Exchange* x, uint16_t status) noexcept nogil:
    """The body turned out to be wrong: the origin's connection is of no more use; answer if nothing was answered yet."""
    cdef Client* c = x.client
    if x.response_started:
        client_close(e, c, True)
        return
    origin_abandon(e, x)
    x.keep_alive = 0
    answer(e, x, status)


cdef int request_length(Core* e, Client* c, Exchange* x) noexcept nogil:
    """Body by Content-Length: what is in the inbox, else straight from the socket. 1: moved, 0: wait, -1: over."""
    cdef Buffer* b = c.inbox
    cdef uint64_t n
    cdef ssize_t got
    if b != NULL and b.start < b.end:
        n = b.end - b.start
        if n > x.request_left:
            n = x.request_left
        if origin_write(e, x.origin, b.data + b.start, n, 0) < 0:
            request_stop(e, x)
            return -1
        b.start += <uint32_t>n
        inbox_release(e, c)
    else:
        if not c.h.events & EVENT_READ:
            return 0
        n = RELAY_BYTES if x.request_left > RELAY_BYTES else x.request_left
        got = client_recv(e, c, e.relay, n)
        if got <= 0:
            return client_read_failed(e, c, got)
        n = <uint64_t>got
        if origin_write(e, x.origin, e.relay, n, 0) < 0:
            request_stop(e, x)
            return -1
    x.request_left -= n
    x.bytes_in += n
    x.rate_bytes += n
    if x.request_left == 0:
        x.request_done = 1
        if x.origin.http2 != NULL:
            uplink_flush(e, x.origin)       # END_STREAM; a failure shows when it is read from
    return 1


cdef void write_failed(Origin* o) noexcept nogil:
    """Right after the call that failed. The error is given once: what is read after a reset ends like an orderly close (EPIPE: that was
    there before)."""
    if scrubber_errno() == ECONNRESET:
        o.was_reset = 1


cdef void request_stop(Core* e, Exchange* x) noexcept nogil:
    """The origin takes no more. It may have answered already (413 and a close): its reading side tells."""
    if x.origin.h.events & EVENT_READ:
        x.request_stopped = 1
        x.origin.reusable = 0
    else:
        origin_failed(e, x.origin)


cdef int client_read_failed(Core* e, Client* c, ssize_t got) noexcept nogil:
    if got < 0 and (scrubber_errno() == EAGAIN or scrubber_errno() == EINTR):
        return 0
    client_close(e, c, got < 0)     # the body will never be whole
    return -1


cdef int request_chunked(Core* e, Client* c, Exchange* x) noexcept nogil:
    cdef Buffer* b
    cdef ssize_t got
    if c.inbox == NULL:
        c.inbox = buffer_get(e)
        if c.inbox == NULL:
            starve(e, &c.h)
            return 0
    b = c.inbox
    if b.start == b.end:
        if not c.h.events & EVENT_READ:
            buffer_put(e, b)
            c.inbox = NULL
            return 0
        got = client_recv(e, c, b.data, BUFFER_BYTES)
        if got <= 0:
            return client_read_failed(e, c, got)
        b.start = 0
        b.end = <uint32_t>got
    if request_chunks(e, c, x) < 0:
        return -1
    inbox_release(e, c)
    if x.origin.http2 != NULL and not origin_unsent(x.origin):
        uplink_flush(e, x.origin)
    return origin_flush(e, x.origin)


cdef void request_pump(Core* e, Exchange* x) noexcept nogil:
    cdef Client* c = x.client
    cdef Origin* o = x.origin
    cdef uint64_t before
    cdef uint64_t budget = STEP_BYTES_MAX
    cdef int moved
    if o == NULL or o.state != ORIGIN_ACTIVE or x.request_stopped:
        return
    if origin_unsent(o) and origin_flush(e, o) <= 0:
        return
    if x.pipe_up != NULL and pipe_up_flush(e, x) <= 0:
        return
    while not x.request_done and not origin_unsent(o) and x.pipe_up == NULL and c.h.fd >= 0:
        if e.buffers.free < BUFFERS_LOW:
            starve(e, &c.h)
            return
        before = x.bytes_in
        moved = splice_up(e, x) if splice_up_fits(e, x) else SPLICE_NONE
        if moved == SPLICE_NONE:
            moved = request_length(e, c, x) if x.request_body == BODY_LENGTH else request_chunked(e, c, x)
        if moved <= 0 or x.client.exchange != x or x.origin != o:
            return
        if x.bytes_in - before >= budget:
            ready_add(e, &c.h)
            return
        budget -= x.bytes_in - before


# --- response body -----------------------------------------------------------------------------------------------------------------------

cdef int body_out(Core* e, Exchange* x, const uint8_t* data, uint32_t n) noexcept nogil:
    """n decoded bytes towards the client: framed by chunks, or as they are."""
    cdef bint now = True
    if x.cache.filling:
        now = cache_fill(e, x, data, n)
        if x.client.h.events & EVENT_BROKEN:
            return -1           # no buffer: what follows would close the gap
    if not now or x.cache.as_get:
        return 0                # the client is behind: it is given this later, from what is kept; or wants the head alone
    x.bytes_out += n
    if x.client_chunked:
        return chunk_write(e, &x.client.out, data, n)
    return client_write(e, x.client, data, n)


cdef int body_chunks(Core* e, Exchange* x, const uint8_t* data, uint32_t n) noexcept nogil:
    """Chunked towards us. 1: body complete, 0: more to come, -1: client broken, -2: origin broken."""
    cdef uint32_t used
    cdef Span run
    cdef int outcome
    while n:
        used = 0
        outcome = chunked_feed(&x.response_chunked, data, n, &used, &run)
        check(used <= n)
        check(run.off + run.len <= used)
        if outcome == CHUNKED_BAD:
            return -2
        if outcome == CHUNKED_DATA and body_out(e, x, data + run.off, run.len) < 0:
            return -1
        data += used
        n -= used
        if outcome == CHUNKED_END:
            if n:
                x.origin.reusable = 0       # bytes after the end: never reused
            return 1
        if outcome == CHUNKED_MORE:
            return 0
    return 0


cdef int body_framed(Core* e, Exchange* x, const uint8_t* data, uint32_t n) noexcept nogil:
    """n bytes from the origin after the head. As body_chunks."""
    cdef uint32_t take
    if x.response_body == BODY_CHUNKED:
        return body_chunks(e, x, data, n)
    if x.response_body == BODY_CLOSE:
        return 0 if n == 0 or body_out(e, x, data, n) >= 0 else -1
    take = n if n < x.response_left else <uint32_t>x.response_left
    if take and body_out(e, x, data, take) < 0:
        return -1
    x.response_left -= take
    if n > take:
        x.origin.reusable = 0
    return x.response_left == 0


cdef int body_take(Core* e, Exchange* x, const uint8_t* data, uint32_t n) noexcept nogil:
    """As body_framed."""
    cdef int outcome = body_framed(e, x, data, n)
    if outcome == 0 and x.cache.as_get and not x.cache.filling:
        x.origin.reusable = 0   # nobody wants the rest
        return 1
    return outcome


cdef inline void trailers_take(Exchange* x) noexcept nogil:
    """From HTTP/2 to HTTP/2 they are passed on, to who said that it takes them."""
    cdef Uplink* u = x.origin.http2
    if u != NULL and u.trailers != NULL and x.trailers:
        (<Stream*>x.client).trailers = u.trailers
        u.trailers = NULL


cdef void response_finish(Core* e, Exchange* x) noexcept nogil:
    """The origin has said all; its connection is free before the client has taken the answer."""
    if x.cache.filling:
        if cache_finish(e, x):
            return
        if x.client.h.events & EVENT_BROKEN:
            client_close(e, x.client, True)
            return
    if x.client_chunked:
        if not queue_append(e, &x.client.out, <const uint8_t*>b"0\r\n\r\n", 5):
            client_close(e, x.client, True)
            return
    trailers_take(x)
    x.response_done = 1
    if not x.request_done:
        x.keep_alive = 0
        x.origin.reusable = 0
    origin_release(e, x.origin)


cdef void response_broken(Core* e, Exchange* x) noexcept nogil:
    """The origin's answer broke off after it had begun: the client must be able to see that."""
    e.totals.origin_bad += 1
    x.upstream_closed = 1
    # Where only the close would end the body, a reset tells the truncation apart from the end.
    client_close(e, x.client, x.response_body == BODY_CLOSE or x.minor == 0)


cdef void body_outcome(Core* e, Exchange* x, int outcome) noexcept nogil:
    if outcome == -2:
        response_broken(e, x)
    elif outcome < 0:
        client_close(e, x.client, True)
    elif outcome == 1:
        response_finish(e, x)


cdef void response_begin(Core* e, Exchange* x, const uint8_t* data, uint32_t head_bytes, uint32_t n) noexcept nogil:
    """The final head is parsed into e.response: framing towards the client, then what came of the body with it."""
    cdef ResponseHead* r = &e.response
    cdef Origin* o = x.origin
    if x.cache.state != USE_NONE and cache_take(e, x, data, n - head_bytes):
        return
    if is_stream(x.client) and (<Stream*>x.client).connect and r.status < 300:
        origin_answer_bad(e, x)     # to the client it would be what 101 is (RFC 8441 5)
        return
    x.first_ns = e.now_ns
    x.status = r.status
    x.response_body = r.body
    x.response_left = r.content_length if r.body == BODY_LENGTH else 0
    o.reusable = r.keep_alive and r.body != BODY_CLOSE
    o.fresh = 0
    chunked_init(&x.response_chunked)
    x.client_chunked = (r.body == BODY_CHUNKED or r.body == BODY_CLOSE) and x.minor == 1 and not x.cache.as_get and not is_stream(x.client)
    if (r.body == BODY_CHUNKED or r.body == BODY_CLOSE) and x.minor == 0:
        x.keep_alive = 0
    if not x.request_done or client_leaving(e, x.client):
        x.keep_alive = 0
    if not forward_response(e, x, data):
        origin_answer_bad(e, x)
        return
    x.response_started = 1
    head_drop(e, x)
    n -= head_bytes
    if r.body == BODY_NONE:
        if n:
            o.reusable = 0
        response_finish(e, x)
        return
    body_outcome(e, x, body_take(e, x, data + head_bytes, n))


cdef bint head_read(Core* e, Exchange* x, Origin* o) noexcept nogil:
    """Read and parse towards the final head. True: the answer has begun; False: waiting, or over."""
    cdef Client* c = x.client
    cdef Buffer* b
    cdef uint32_t room
    cdef ssize_t got
    cdef int outcome
    if o.inbox == NULL:
        o.inbox = buffer_get(e)
        if o.inbox == NULL:
            starve(e, &o.h)
            return False
        o.scan = 0
    b = o.inbox
    while True:
        if b.end > b.start:
            outcome = response_parse(b.data + b.start, b.end - b.start, &o.scan, &e.answer_limits, origin_method(x), &e.response)
            if outcome == HTTP1_OK and e.response.status >= 200:
                response_begin(e, x, b.data + b.start, e.response.head_bytes, b.end - b.start)
                # A request that goes on at another origin may have taken this one's memory.
                if c.exchange != x or x.origin != o:
                    return False
                if o.inbox == b:
                    buffer_put(e, b)
                    o.inbox = NULL
                return True
            if outcome == HTTP1_OK:
                if e.response.status == 101 and tunnel_granted(e, x, b.data + b.start):
                    tunnel_begin(e, x, b.data + b.start, e.response.head_bytes, b.end - b.start)
                    if o.inbox != NULL:
                        buffer_put(e, b)
                        o.inbox = NULL
                    return False
                x.interim += 1
                if e.response.status == 101 or x.interim > INTERIM_MAX or (
                        x.minor and not forward_interim(e, x, b.data + b.start)):
                    origin_answer_bad(e, x)
                    return False
                b.start += e.response.head_bytes
                o.scan = 0
                continue
            if outcome != HTTP1_MORE:
                origin_answer_bad(e, x)
                return False
        if not o.h.events & EVENT_READ:
            return False
        if b.start:
            memmove(b.data, b.data + b.start, b.end - b.start)
            b.end -= b.start
            b.start = 0
        room = BUFFER_BYTES - b.end
        if room == 0:
            origin_answer_bad(e, x)
            return False
        got = origin_recv(e, o, b.data + b.end, room)
        if got < 0 and (scrubber_errno() == EAGAIN or scrubber_errno() == EINTR):
            return False
        if got <= 0:
            origin_failed(e, o)
            return False
        o.activity_ns = e.now_ns
        b.end += <uint32_t>got


cdef int64_t body_unread(Core* e, Exchange* x, ssize_t got) noexcept nogil:
    """No bytes came: nothing there yet, or the end. Always 0."""
    if got < 0 and (scrubber_errno() == EAGAIN or scrubber_errno() == EINTR):
        x.origin.h.events &= <uint8_t>~EVENT_READ       # of a splice: origin_recv has done so
    elif got == 0 and x.response_body == BODY_CLOSE and not x.origin.was_reset:
        x.origin.reusable = 0
        response_finish(e, x)
    else:
        response_broken(e, x)
    return 0


cdef int64_t body_read(Core* e, Exchange* x, Origin* o) noexcept nogil:
    """Bytes moved; 0: waiting, or over."""
    cdef uint64_t ask = x.window
    cdef uint64_t room = <uint64_t>(e.buffers.free - BUFFERS_LOW / 2) * BUFFER_BYTES
    cdef ssize_t got
    if ask > room:
        ask = room
    if x.response_body == BODY_LENGTH and ask > x.response_left:
        ask = x.response_left
    got = origin_recv(e, o, e.relay, ask)
    if got <= 0:
        return body_unread(e, x, got)
    o.activity_ns = e.now_ns
    body_outcome(e, x, body_take(e, x, e.relay, <uint32_t>got))
    return got


cdef void response_pump(Core* e, Exchange* x) noexcept nogil:
    cdef Client* c = x.client
    cdef Origin* o = x.origin
    cdef int64_t moved
    cdef int64_t budget = STEP_BYTES_MAX
    cdef int flushed
    if o == NULL or o.state != ORIGIN_ACTIVE:
        return
    while c.exchange == x and x.origin == o and not x.response_done:
        if client_unsent(c):
            flushed = client_flush(e, c)
            # A slow client does not hold up what is fetched for everybody.
            if flushed < 0 or (flushed == 0 and not x.cache.filling):
                window_narrow(x)
                break
        if x.pipe_down != NULL and pipe_down_flush(e, x) != 1:
            if c.exchange == x:
                window_narrow(x)
            break
        if not o.h.events & EVENT_READ and (x.response_started or o.inbox == NULL or o.inbox.start == o.inbox.end):
            break
        if e.buffers.free < BUFFERS_LOW:
            starve(e, &o.h)
            break
        if not x.response_started:
            if not head_read(e, x, o):
                break
            continue
        moved = splice_down(e, x) if splice_down_fits(e, x) else SPLICE_NONE
        if moved == SPLICE_NONE:
            moved = body_read(e, x, o)
        if moved <= 0 or c.exchange != x or x.origin != o:
            break
        window_widen(x)
        budget -= moved
        if budget <= 0:
            ready_add(e, &o.h)
            break
    # An interim or a last piece may wait in the queue.
    if c.exchange == x and client_unsent(c):
        client_flush(e, c)


cdef inline void window_widen(Exchange* x) noexcept nogil:
    if x.window < RELAY_BYTES:
        x.window *= 2


cdef inline void window_narrow(Exchange* x) noexcept nogil:
    if x.window > WINDOW_MIN:
        x.window /= 2


# --- both, and the end -------------------------------------------------------------------------------------------------------------------

cdef uint64_t linger_rest(const Exchange* x) noexcept nogil:
    """What is still to come of a body that was answered before it was read. It is read off: many clients send all of it before they look
    for an answer, which a reset would take from them. Not for who was too slow, or not let through."""
    if x.request_done or x.reason or x.status == 408 or x.judgement.verdict != VERDICT_PASS:
        return 0
    return x.request_left if x.request_body == BODY_LENGTH else route_body_bytes_max(x)


cdef bint exchange_pump(Core* e, Client* c) noexcept nogil:
    cdef Exchange* x = c.exchange
    cdef bint keep
    if c.h.events & EVENT_BROKEN:
        client_close(e, c, False)
        return False
    if x.cache.state == USE_WAIT:
        cache_wake(e, x)
        if c.exchange != x:
            return False
    if x.evicted:
        x.evicted = 0
        answer(e, x, 503)
    if x.ready:
        x.ready = 0
        origin_acquire(e, x)
        if c.exchange != x:
            return False
    if not x.request_done and not x.response_done:
        request_pump(e, x)
        if c.exchange != x:
            return False
    if x.origin != NULL:
        response_pump(e, x)
        if c.exchange != x:
            return False
    if x.cache.state == USE_SERVE:
        cache_pump(e, x)
        if c.exchange != x:
            return False
    if client_unsent(c):
        if client_flush(e, c) < 0:
            client_close(e, c, True)
            return False
    if x.page != NULL and not client_unsent(c):
        if page_pump(e, c, x) < 0:
            client_close(e, c, True)
            return False
    if not x.response_done or client_unsent(c) or x.page != NULL:
        return False
    keep = x.keep_alive and x.request_done      # as the head promised, even if a drain began since
    c.linger_left = 0 if keep else linger_rest(x)
    exchange_end(e, x)
    if is_stream(c):
        stream_done(e, <Stream*>c)
        return False
    if not keep:
        client_linger(e, c)
        return False
    c.state = CLIENT_IDLE
    c.since_ns = e.now_ns
    c.scan = 0
    look_by(e, &c.h, e.now_ns + area_fallback(e, c.listener).idle_ns)
    return True


cdef void count_exchange(Core* e, Exchange* x) noexcept nogil:
    cdef AreaTotals* t = &e.totals.areas[x.area.area_id % AREAS_MAX]
    cdef Judgement* j = &x.judgement
    # Of a tunnel: until it was open.
    cdef uint64_t latency_ns = (x.first_ns if x.tunnel.since_ns else e.now_ns) - x.start_ns
    cdef bint answered = x.own != 0 and not x.aborted and x.status < 500
    cdef bint kept = x.cache.said >= SAID_HIT
    cdef bint served = (x.first_ns != 0 or kept) and not x.aborted and not x.upstream_closed
    t.requests += 1
    t.verdicts[j.decided % VERDICTS] += 1
    t.status_class[x.status / 100 if x.status < 600 else 0] += 1
    t.bytes_in += x.bytes_in
    t.bytes_out += x.bytes_out
    t.shed += j.shed
    t.client_aborts += x.aborted
    t.answered += answered
    cache_count(t, x)
    if x.first_ns:
        t.origin_ns += x.first_ns - x.sent_ns
    if x.first_ns or kept:
        t.served += served
        t.latency[latency_bucket(latency_ns)] += 1
        t.latency_ns_sum += latency_ns
    elif not x.own and (x.status == 502 or x.status == 503 or x.status == 504):
        t.origin_errors += 1
    if j.known and not x.aborted:
        t.known_requests += 1
        t.known_served += answered or (served and x.status < 500)


cdef void exchange_end(Core* e, Exchange* x) noexcept nogil:
    cdef Client* c = x.client
    cdef uint64_t origin_ns = 0
    if x.waiting:
        wait_leave(e, x)
    elif x.promised:
        promise_end(e, x)
        wait_serve(e, x.origin_id)      # the place it was given goes to the next one
    if x.sent_ns:
        origin_ns = (x.first_ns if x.first_ns else e.now_ns) - x.sent_ns
    if x.origin != NULL:
        origin_abandon(e, x)
    cache_end(e, x)
    head_drop(e, x)
    pipes_drop(e, x)
    judge_done(e.shared, x.area, &x.judgement, x.client_key, x.fingerprint, x.account_key,
               x.bytes_in + x.head_in + x.bytes_out + x.head_out, origin_ns,
               x.judgement.rule < 0 and x.reason == 0 and x.status != 421 and x.status != 408, e.now_ns)
    count_exchange(e, x)
    record_access(e, c, x)
    tunnel_uncount(e, x)
    c.exchange = NULL
    x.policy.refs -= 1
    e.gauges.requests -= 1
    pool_put(&e.exchanges, x)
