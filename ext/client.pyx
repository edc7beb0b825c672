# The client's side: see client.pxd. Invariants: an idle connection holds no buffer; a client has at most one exchange; after client_close
# the Client may be read until the pass ends, but nothing may be done with it.


cdef const AreaSpec* area_fallback(Core* e, uint32_t listener) noexcept nogil:
    cdef const Policy* p = e.policy.policy
    cdef uint32_t index = p.listeners[listener].default_area
    if index == NO_AREA:
        index = p.header.default_area
    if index == NO_AREA:
        return &p.areas[0] if p.header.areas.count else &e.area_none
    return &p.areas[index]


cdef void facts_address(Core* e, Facts* f) noexcept nogil:
    cdef const HashKey* secret = &e.shared.secret
    cdef Address prefix
    address_client(&f.client_full, &f.client)
    f.client_key = siphash(secret, f.client.bytes, 16)
    prefix = f.client_full
    address_mask(&prefix, 120 if address_is_v4(&prefix) else 48)
    f.prefix_key = siphash_pair(secret, KEY_PREFIX, siphash(secret, prefix.bytes, 16))


cdef void facts_tls(Core* e, Facts* f, const uint8_t* ja3, const uint8_t* ja4) noexcept nogil:
    f.ja3 = ja3
    f.ja4 = ja4
    f.ja3_key = siphash(&e.shared.secret, ja3, JA3_BYTES)
    f.ja4_key = siphash(&e.shared.secret, ja4, JA4_BYTES)


cdef void facts_connection(Core* e, Facts* f, const Client* c) noexcept nogil:
    """How the client speaks TLS and HTTP/2."""
    if c.tls != NULL and c.tls.fingerprinted:
        facts_tls(e, f, c.tls.ja3, c.tls.ja4)
        f.hello_area = c.tls.area_id
    if c.http2 != NULL:
        f.http2 = c.http2.fingerprint


cdef bint trusted_peer(const Facts* f) noexcept nogil:
    return f.listener.trusted != 0 and prefixes_find(&f.policy.prefixes[f.listener.trusted - 1], &f.client_full) != 0


cdef void silent_remove(Core* e, Client* c) noexcept nogil:
    if not c.silent:
        return
    c.silent = 0
    if c.silent_prev != NULL:
        c.silent_prev.silent_next = c.silent_next
    else:
        e.silent = c.silent_next
    if c.silent_next != NULL:
        c.silent_next.silent_prev = c.silent_prev
    else:
        e.silent_tail = c.silent_prev


cdef void client_open(Core* e, ListenerHandle* l, int fd, uint16_t port, const Facts* f, uint64_t count_key, bint counted) noexcept nogil:
    cdef Client* c = <Client*>pool_get(&e.clients)
    clear_bytes(c, sizeof(Client))
    c.h.kind = HANDLE_CLIENT
    c.h.fd = fd
    c.h.timer_slot = -1
    c.state = CLIENT_IDLE
    c.proof = PROOF_SOCKET
    c.listener = <uint16_t>l.index
    c.port = port
    c.peer = f.client_full
    c.peer_key = f.client_key
    c.since_ns = e.now_ns
    c.count_key = count_key
    c.counted = counted
    c.proxy_due = proxy_listed(f)
    c.hello_due = f.listener.tls & LISTENER_TLS != 0
    c.silent = 1
    c.silent_prev = e.silent_tail
    if e.silent_tail != NULL:
        e.silent_tail.silent_next = c
    else:
        e.silent = c
    e.silent_tail = c
    e.gauges.connections += 1
    timer_set(e, &c.h, e.now_ns + area_fallback(e, l.index).head_ns)
    if not handle_watch(e, &c.h):
        client_close(e, c, True)


cdef void client_close(Core* e, Client* c, bint reset) noexcept nogil:
    cdef bint unsent
    if c.h.fd < 0:
        return
    if c.exchange != NULL:
        unsent = not c.exchange.response_done or client_unsent(c) or c.exchange.page != NULL
        c.exchange.aborted = unsent and c.state != CLIENT_TUNNEL and not c.exchange.upstream_closed
        exchange_end(e, c.exchange)
    if c.state == CLIENT_TARPIT:
        e.gauges.tarpit -= 1
    silent_remove(e, c)
    if c.inbox != NULL:
        buffer_put(e, c.inbox)
        c.inbox = NULL
    if is_stream(c):
        stream_close(e, <Stream*>c)
        return
    queue_clear(e, &c.out)
    if c.http2 != NULL:
        http2_free(e, c)
    if c.counted:
        counts_add(e.shared, c.count_key, -1)
    if c.named != NULL:
        origin_close(e, c.named)
    if c.proxy != NULL:
        pool_put(&e.notes, c.proxy)
        c.proxy = NULL
    if c.tls != NULL:
        if not reset:
            tls_bye(e, c.tls)
        tls_free(e, c.tls)
        c.tls = NULL
    e.gauges.connections -= 1
    e.totals.closed += 1
    handle_bury(e, &c.h, reset)


cdef void client_linger(Core* e, Client* c) noexcept nogil:
    # Everything asked for was read, nothing is left over and nothing more was announced: a plain close loses nothing.
    if c.requests and c.inbox == NULL and not c.h.events & EVENT_READ and not c.linger_left:
        client_close(e, c, False)
        return
    c.linger_left += LINGER_BYTES_MAX
    c.linger_ns = e.now_ns
    c.since_ns = e.now_ns
    if c.inbox != NULL:
        buffer_put(e, c.inbox)
        c.inbox = NULL
    if c.tls != NULL:
        tls_bye(e, c.tls)
    shutdown(c.h.fd, SHUT_WR)
    c.state = CLIENT_LINGER
    timer_clear(e, &c.h)
    timer_set(e, &c.h, e.now_ns + LINGER_NS)
    linger_read(e, c)


cdef void linger_read(Core* e, Client* c) noexcept nogil:
    cdef ssize_t n
    cdef uint64_t taken = 0
    while c.h.events & EVENT_READ:
        if taken >= STEP_BYTES_MAX:
            ready_add(e, &c.h)
            return
        n = recv(c.h.fd, e.relay, RELAY_BYTES, 0)
        if n > 0:
            taken += <uint64_t>n
            c.linger_ns = e.now_ns
            if <uint64_t>n < c.linger_left:
                c.linger_left -= <uint64_t>n
                continue
        elif n < 0 and scrubber_errno() == EAGAIN:
            c.h.events &= <uint8_t>~EVENT_READ
            return
        client_close(e, c, n > 0)
        return


cdef bint client_unsent(const Client* c) noexcept nogil:
    if is_stream(c):
        return c.out.head != NULL or (<const Stream*>c).trailers != NULL
    return socket_unsent(&c.out, c.tls)


cdef ssize_t client_recv(Core* e, Client* c, void* data, uint64_t n) noexcept nogil:
    if is_stream(c):
        return stream_recv(e, <Stream*>c, data, n)
    return socket_recv(e, &c.h, c.tls, data, n)


cdef inline void client_blocked(Core* e, Client* c) noexcept nogil:
    c.h.events &= <uint8_t>~EVENT_WRITE
    if c.blocked_ns == 0:
        c.blocked_ns = e.now_ns
        c.blocked_bytes = 0
        if c.h.deadline_ns == 0 or c.h.deadline_ns > e.now_ns + CHECK_NS:
            timer_set(e, &c.h, e.now_ns + CHECK_NS)


cdef int client_write(Core* e, Client* c, const uint8_t* data, uint64_t n) noexcept nogil:
    cdef int result
    if is_stream(c):
        return stream_send(e, <Stream*>c, data, n)
    result = socket_send(e, &c.h, c.tls, &c.out, data, n, 0)
    if result == 0 and not c.h.events & EVENT_WRITE:
        client_blocked(e, c)    # else it waits behind a head that is about to be flushed
    return result


cdef int client_flush(Core* e, Client* c) noexcept nogil:
    cdef int result
    cdef uint64_t taken = 0
    if is_stream(c):
        return stream_flush(e, <Stream*>c)
    if not client_unsent(c):
        return 1
    if not c.h.events & EVENT_WRITE:
        return 0
    result = socket_flush(e, &c.h, c.tls, &c.out, &taken)
    c.blocked_bytes += taken
    if result == 1:
        c.blocked_ns = 0
    elif result == 0:
        client_blocked(e, c)
    return result


# --- heads -------------------------------------------------------------------------------------------------------------------------------

cdef void inbox_release(Core* e, Client* c) noexcept nogil:
    if c.inbox != NULL and c.inbox.start == c.inbox.end:
        buffer_put(e, c.inbox)
        c.inbox = NULL


cdef int client_fill(Core* e, Client* c) noexcept nogil:
    """Read into the inbox. 1: bytes came, 0: nothing now, -1: the client is gone (closed here)."""
    cdef Buffer* b = c.inbox
    cdef uint32_t room
    cdef ssize_t n
    if b.start and b.end == BUFFER_BYTES:
        memmove(b.data, b.data + b.start, b.end - b.start)
        b.end -= b.start
        b.start = 0
    room = BUFFER_BYTES - b.end
    if room == 0:
        client_refuse(e, c, HTTP1_HEAD_TOO_LARGE)
        return -1
    n = client_recv(e, c, b.data + b.end, room)
    if n > 0:
        b.end += <uint32_t>n
        return 1
    if n < 0 and (scrubber_errno() == EAGAIN or scrubber_errno() == EINTR):
        return 0
    client_close(e, c, False)
    return -1


cdef bint speaks_http2(Core* e, Client* c) noexcept nogil:
    """The preface of HTTP/2 with prior knowledge (RFC 9113 3.3, 3.4) at the beginning of a connection in clear text. True: the
    connection has another reader from here on, or waits for the rest of it."""
    cdef Buffer* b = c.inbox
    cdef uint32_t n = b.end - b.start
    cdef uint64_t began_ns = c.since_ns if c.state == CLIENT_HEAD else e.now_ns
    if c.requests or c.tls != NULL or is_stream(c) or not e.policy.policy.listeners[c.listener].tls & LISTENER_HTTP2:
        return False
    if n > HTTP2_PREFACE_BYTES:
        n = HTTP2_PREFACE_BYTES
    if memcmp(b.data + b.start, <const char*>b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", n) != 0 or n < HTTP2_TOLD_BYTES:
        return False
    if http2_open(e, c):
        c.http2.idle_ns = began_ns          # one deadline for all of it, however slowly it began
        look_by(e, &c.h, began_ns + area_fallback(e, c.listener).head_ns)
        http2_step(e, c)
    return True


cdef bint client_head(Core* e, Client* c) noexcept nogil:
    """Read and parse one head. True: a request was taken up; False: waiting, or closed."""
    cdef const AreaSpec* area = area_fallback(e, c.listener)
    cdef Buffer* b
    cdef int outcome
    if c.inbox == NULL:
        if not c.h.events & EVENT_READ:
            return False
        c.inbox = buffer_get(e)
        if c.inbox == NULL:
            starve(e, &c.h)
            return False
    b = c.inbox
    if c.refused:
        client_refuse(e, c, c.refused)
        return False
    while True:
        if c.proxy_due and not proxied_read(e, c):
            return False
        if c.hello_due and not c.proxy_due and b.end > b.start and not hello_read(e, c):
            return False
        if b.end > b.start and not c.proxy_due and not c.hello_due:
            if speaks_http2(e, c):
                return False
            if c.state == CLIENT_IDLE:
                c.state = CLIENT_HEAD
                c.since_ns = e.now_ns
                c.scan = 0
                silent_remove(e, c)
            outcome = request_parse(b.data + b.start, b.end - b.start, &c.scan, &area.http1, &e.request)
            if outcome == HTTP1_OK:
                client_request(e, c)
                return True
            if outcome != HTTP1_MORE:
                client_refuse(e, c, outcome)
                return False
            # Only a head that did not come at once needs its own deadline.
            if c.h.deadline_ns == 0 or c.h.deadline_ns > c.since_ns + area.head_ns:
                timer_set(e, &c.h, c.since_ns + area.head_ns)
        if not c.h.events & EVENT_READ:
            inbox_release(e, c)
            return False
        if client_fill(e, c) < 0:
            return False


cdef void client_step(Core* e, Client* c) noexcept nogil:
    cdef int _
    if c.state == CLIENT_TARPIT:
        if c.h.events & EVENT_HANGUP:
            client_close(e, c, False)
        return
    if c.state == CLIENT_LINGER:
        linger_read(e, c)
        return
    if c.state == CLIENT_TUNNEL:
        tunnel_step(e, c.exchange)
        return
    if c.state == CLIENT_HANDSHAKE and not handshake_step(e, c):
        return
    if c.state == CLIENT_HTTP2:
        http2_step(e, c)
        return
    for _ in range(PIPELINE_MAX):
        if c.state == CLIENT_EXCHANGE and not exchange_pump(e, c):
            return
        if c.h.fd < 0 or c.state >= CLIENT_TARPIT or not client_head(e, c) or c.h.fd < 0:
            return
    ready_add(e, &c.h)


# --- requests ----------------------------------------------------------------------------------------------------------------------------

cdef uint64_t id_next(Core* e) noexcept nogil:
    e.id_state += 1
    return siphash_pair(&e.id_key, e.worker, e.id_state)


cdef Exchange* exchange_open(Core* e, Client* c) noexcept nogil:
    cdef Exchange* x = <Exchange*>pool_get(&e.exchanges)
    # As many as clients, one a client at most: cannot be empty.
    clear_bytes(x, sizeof(Exchange) - NOTE_BYTES)
    x.client = c
    x.policy = e.policy
    x.policy.refs += 1
    x.area = area_fallback(e, c.listener)
    x.start_ns = c.since_ns
    x.request_id = id_next(e)
    x.judgement.rule = -1
    x.judgement.rung = -1
    x.window = WINDOW_MIN
    x.client_key = c.peer_key
    x.client_address = c.peer
    x.client_port = c.port
    c.exchange = x
    c.state = CLIENT_EXCHANGE
    c.requests += 1
    e.gauges.requests += 1
    return x


cdef bint unread_wants_json(Core* e, Client* c) noexcept nogil:
    """Of a head that was refused, or is late: as far as its fields can be read."""
    cdef Buffer* b = c.inbox
    if b == NULL:
        return False
    request_fields(b.data + b.start, b.end - b.start, &area_fallback(e, c.listener).http1, &e.request)
    return accepts_json(b.data + b.start, &e.request)


cdef void client_refuse(Core* e, Client* c, int reason) noexcept nogil:
    """Bytes that are not a request: answered once, then closed. What follows them is not looked at."""
    cdef Exchange* x = exchange_open(e, c)
    x.reason = <uint8_t>reason
    x.request_done = 0
    x.judged_ns = e.now_ns
    x.wants_json = unread_wants_json(e, c)
    e.totals.bad_requests += 1
    if is_stream(c) and reason != HTTP1_HEAD_TOO_LARGE:
        calm_take(c.http2, CALM_RESETS)     # of HTTP/1.1 the connection would end here; what is too large has an allowance of its own
    note_refused(e, c, x)
    answer(e, x, http1_status(reason))
    exchange_pump(e, c)


cdef bint facts_https(const Facts* f) noexcept nogil:
    """How the client came: what a trusted proxy says of it, else the listener's own scheme."""
    if f.arrival.proto.len:
        return folds_to(f.data + f.arrival.proto.off, f.arrival.proto.len, "https")
    return f.listener.scheme != 0


cdef void facts_fill(Core* e, Client* c, Exchange* x, Facts* f, const uint8_t* data) noexcept nogil:
    """Step 4, identify: client, account, fingerprint, area -> keys."""
    cdef const Policy* p = e.policy.policy
    cdef RequestHead* head = &e.request
    cdef Client* root
    cdef uint32_t n
    cdef int32_t index
    clear_bytes(f, sizeof(Facts))
    f.policy = p
    f.listener = &p.listeners[c.listener]
    f.data = data
    f.head = head
    f.proof = c.proof
    f.client_full = c.peer
    if f.listener.trusted:
        f.proof = identity_chain(data, head, &p.prefixes[f.listener.trusted - 1], &c.peer, c.proof, &f.client_full, &f.arrival)
    facts_address(e, f)
    x.client_port = c.port if f.proof != PROOF_CHAIN else 0
    x.https = facts_https(f)
    f.fingerprint = fingerprint_head(data, head, c"2" if is_stream(c) else <uint8_t>(c"0" + head.minor))
    facts_connection(e, f, c)
    index = policy_area(p, f.listener, data + head.host.off, head.host.len)
    if index >= 0:
        f.area = &p.areas[index]
        x.area = f.area
        x.pool = &p.pools[f.area.pool]
        root = client_root(c)
        f.first_request = root.area_seen != f.area.area_id + 1
        root.area_seen = <uint16_t>(f.area.area_id + 1)
        if f.area.account_kind == ACCOUNT_CERTIFICATE:
            if c.tls != NULL and c.tls.subject_len:
                f.account_key = siphash(&e.shared.secret, c.tls.subject, c.tls.subject_len)
        elif f.area.account_kind != ACCOUNT_NONE:
            n = identity_account(data, head, <uint8_t>f.area.account_kind, p.text + f.area.account_name.off, f.area.account_name.len,
                                 e.account, sizeof(e.account))
            if n:
                f.account_key = siphash(&e.shared.secret, e.account, n)
    request_id_take(x, f)
    f.path = e.path
    f.path_len = path_normalise(data, head.path, e.path, PATH_BYTES_MAX)
    x.client_key = f.client_key
    x.client_address = f.client_full
    x.fingerprint = f.fingerprint
    x.account_key = f.account_key


cdef bint certificate_missed(const Client* c, const AreaSpec* area) noexcept nogil:
    """The area asks for a client certificate, and this connection was not asked for one that it would take (RFC 9110 7.4)."""
    return area.client_certificate != TLS_CLIENT_NONE and (c.tls == NULL or c.tls.area_id != area.area_id)


cdef uint16_t request_bad(Core* e, Exchange* x, uint8_t reason) noexcept nogil:
    """A request that was judged, and is refused for what it asks."""
    x.reason = reason
    e.totals.bad_requests += 1
    return http1_status(reason)


cdef void client_request(Core* e, Client* c) noexcept nogil:
    """Steps 4 to 6 for the head in e.request; its bytes are taken off the inbox."""
    cdef Exchange* x = exchange_open(e, c)
    cdef RequestHead* head = &e.request
    cdef const uint8_t* data = c.inbox.data + c.inbox.start
    cdef Facts f
    cdef uint16_t status = 0
    cdef bint answered = False
    x.method = head.method
    x.minor = head.minor
    # A length of 0 is no body: nothing is relayed, and a stale connection costs nothing.
    x.request_body = <uint8_t>(BODY_NONE if head.body == BODY_LENGTH and head.content_length == 0 else head.body)
    x.request_done = x.request_body == BODY_NONE
    x.request_left = head.content_length
    x.keep_alive = head.keep_alive and not client_leaving(e, c)
    x.wants_json = accepts_json(data, head)
    x.trailers = is_stream(c) and head.first[HEADER_TE] >= 0
    chunked_init(&x.request_chunked)
    facts_fill(e, c, x, &f, data)
    if f.area == NULL or certificate_missed(c, f.area):
        status = 421
    else:
        judge_request(e.shared, &f, e.now_ns, &x.judgement)
    x.judged_ns = e.now_ns
    note_request(e, c, x, &f)
    if is_stream(c) and c.h.events & EVENT_BROKEN:
        client_close(e, c, False)       # taken back in the same breath: it was judged, and goes no further
        return
    if status == 0 and x.judgement.verdict == VERDICT_PASS:
        if f.path_len == PATH_BYTES_MAX:
            # Rules and routes saw its first bytes only: what stands behind them must not get around one.
            status = request_bad(e, x, HTTP1_PATH_TOO_LONG)
        elif x.area.https_page and not x.https:
            page_answer(e, x, &f.policy.pages[x.area.https_page - 1], &f)
            answered = True
        elif area_drained(e, x.area):
            x.retry_s = DRAIN_RETRY_S
            status = 503
        elif (f.area.routes.len or f.area.maintenance) and route_request(e, x, &f):
            answered = True
        elif head.body == BODY_LENGTH and head.content_length > route_body_bytes_max(x):
            status = 413
        elif head.first[HEADER_RANGE] >= 0 and ranges_asked(data, head) > x.area.ranges_max:
            # RFC 9110 14.2: an egregious set of ranges may be rejected, which is 416 (15.5.17).
            status = request_bad(e, x, HTTP1_TOO_MANY_RANGES)
        else:
            status = tunnel_ask(e, x, &f)
            if status == 0 and not x.upgrade and is_stream(c) and (<Stream*>c).connect:
                status = request_bad(e, x, HTTP1_METHOD_REFUSED)
            if status == 0:
                status = forward_request(e, c, x, &f)
            if x.pool != NULL:
                x.balance_key = balance_key(e, x.pool, &f)
            if status == 0:
                cache_consider(e, x, &f)
    c.inbox.start += head.head_bytes
    c.scan = 0
    inbox_release(e, c)
    if answered:
        return
    if status:
        answer(e, x, status)
    elif x.judgement.verdict == VERDICT_PASS:
        if x.cache.state == USE_NONE or not cache_open(e, x):
            origin_acquire(e, x)
    else:
        verdict_apply(e, c, x)


cdef void verdict_apply(Core* e, Client* c, Exchange* x) noexcept nogil:
    """Step 6 for what may not pass."""
    cdef int32_t verdict = x.judgement.verdict
    if verdict == VERDICT_DROP:
        x.response_done = 1
        # A stream of the client's own connection takes that with it; one of many clients of a proxy goes alone.
        client_close(e, client_root(c) if address_equal(&x.client_address, &c.peer) else c, True)
    elif verdict == VERDICT_TARPIT and e.gauges.tarpit < e.policy.policy.header.tarpit_max:
        # Held without a buffer; answered when its time is over.
        if c.inbox != NULL:
            buffer_put(e, c.inbox)
            c.inbox = NULL
        if is_stream(c):
            stream_deafen(e, <Stream*>c)
        x.keep_alive = 0
        c.state = CLIENT_TARPIT
        e.gauges.tarpit += 1
        timer_clear(e, &c.h)
        timer_set(e, &c.h, e.now_ns + x.area.tarpit_ns)
    elif verdict == VERDICT_THROTTLE:
        answer(e, x, 429)
    else:
        answer(e, x, 403)


# --- deadlines ---------------------------------------------------------------------------------------------------------------------------

cdef bint too_slow(uint64_t nbytes, uint64_t since_ns, const AreaSpec* area, uint64_t now_ns) noexcept nogil:
    cdef uint64_t elapsed_ns = now_ns - since_ns
    if elapsed_ns <= area.body_grace_ns:
        return False
    return nbytes < (elapsed_ns - area.body_grace_ns) / 1000000 * area.body_bytes_s_min / 1000


cdef bint write_late(Core* e, const Client* c, const AreaSpec* area) noexcept nogil:
    cdef uint64_t taken = stream_progress(<const Stream*>c) if is_stream(c) else c.blocked_bytes
    cdef uint64_t since_ns = c.blocked_ns
    if e.now_ns - since_ns >= area.write_ns and taken == 0:
        return True
    # A stream whose own window is open waits for its connection: one that stands still for a moment is not to cost all of them.
    if is_stream(c) and stream_waits(<const Stream*>c):
        since_ns += area.write_ns
    return since_ns < e.now_ns and too_slow(taken, since_ns, area, e.now_ns)


cdef bint origin_holds_up(const Client* c, const Exchange* x) noexcept nogil:
    """The body waits for its origin: for a connection, or until it takes more."""
    return x.origin.state != ORIGIN_ACTIVE or origin_unsent(x.origin) or x.pipe_up != NULL or stream_shut_out(c)


cdef void exchange_timeout(Core* e, Client* c, Exchange* x) noexcept nogil:
    cdef bint held_up = x.origin != NULL and origin_holds_up(c, x)
    # Bytes that wait to be read here are no fault of the client's: this worker may have been held up.
    cdef bint body_due = not x.request_done and not x.response_started and x.origin != NULL and not held_up and not c.h.events & EVENT_READ
    if x.waiting:
        if e.now_ns - x.judged_ns >= x.area.origin_wait_ns:
            wait_leave(e, x)
            answer(e, x, 503)
            client_step(e, c)
            return
        # An origin may have come back without a place having come free.
        wait_again(e, x)
    elif c.blocked_ns and is_stream(c) and stream_held(e, <Stream*>c):
        http2_refuse(e, c.http2, HTTP2_HELD)
        return
    elif c.blocked_ns and write_late(e, c, x.area):
        e.totals.timeouts_write += 1
        client_close(e, c, True)
        return
    elif body_due and too_slow(x.rate_bytes, x.rate_ns, x.area, e.now_ns):
        e.totals.timeouts_body += 1
        origin_abandon(e, x)
        x.keep_alive = 0
        answer(e, x, 408)
        client_step(e, c)
        return
    if held_up:
        x.rate_ns = e.now_ns            # the client's rate is measured anew
        x.rate_bytes = 0
    if c.blocked_ns or not x.request_done or x.waiting:
        timer_set(e, &c.h, e.now_ns + CHECK_NS)


cdef void client_timeout(Core* e, Client* c) noexcept nogil:
    cdef const AreaSpec* area = area_fallback(e, c.listener)
    cdef uint64_t due
    cdef bint idle
    if c.state == CLIENT_EXCHANGE:
        exchange_timeout(e, c, c.exchange)
    elif c.state == CLIENT_TARPIT:
        e.gauges.tarpit -= 1
        c.state = CLIENT_EXCHANGE
        answer(e, c.exchange, 429)
        exchange_pump(e, c)
    elif c.state == CLIENT_LINGER:
        due = earlier(c.linger_ns + LINGER_NS, c.since_ns + <uint64_t>LINGER_S_MAX * 1000000000)
        # Only an announced body is waited for, while it comes.
        if c.linger_left > LINGER_BYTES_MAX and e.now_ns < due and not e.draining:
            timer_set(e, &c.h, due)
        else:
            client_close(e, c, False)
    elif c.state == CLIENT_TUNNEL:
        tunnel_timeout(e, c.exchange)
    elif c.state == CLIENT_HANDSHAKE:
        handshake_timeout(e, c)
    elif c.state == CLIENT_HTTP2:
        http2_timeout(e, c)
    else:
        idle = c.state == CLIENT_IDLE and c.requests > 0
        due = c.since_ns + (area.idle_ns if idle else area.head_ns)
        if e.now_ns < due or c.h.events & EVENT_READ:       # what came in time is read first
            timer_set(e, &c.h, due if due > e.now_ns else e.now_ns + 1)
            return
        if idle:
            e.totals.timeouts_idle += 1
        else:
            e.totals.timeouts_head += 1
        if c.state == CLIENT_HEAD:
            client_late(e, c)
        else:
            client_close(e, c, False)


cdef void client_late(Core* e, Client* c) noexcept nogil:
    """A head that did not come in time: 408 and a close."""
    cdef Exchange* x = exchange_open(e, c)
    x.judged_ns = e.now_ns
    x.wants_json = unread_wants_json(e, c)
    note_refused(e, c, x)
    answer(e, x, 408)
    exchange_pump(e, c)
