# The origin's side: see origin.pxd. Invariants: OriginPool.open counts every connection of that id, in_flight those with a request, tunnels
# in neither; a new one is made only below connections_max; an idle connection has no exchange, no buffer and nothing unread; one with
# anything left over is never reused.


cdef void head_drop(Core* e, Exchange* x) noexcept nogil:
    if x.head != NULL:
        buffer_put(e, x.head)
        x.head = NULL


cdef uint64_t earlier(uint64_t a, uint64_t b) noexcept nogil:
    return a if a < b else b


cdef void pool_unlink(Core* e, Origin* o) noexcept nogil:
    cdef OriginPool* pool = &e.origin_pools[o.origin_id]
    if o.pool_prev != NULL:
        o.pool_prev.pool_next = o.pool_next
    else:
        pool.idle = o.pool_next
    if o.pool_next != NULL:
        o.pool_next.pool_prev = o.pool_prev
    else:
        pool.idle_tail = o.pool_prev
    o.pool_prev = NULL
    o.pool_next = NULL
    if o.owner != NULL:
        o.owner.named = NULL
        o.owner = NULL
    pool.idle_count -= 1


cdef void origin_close(Core* e, Origin* o) noexcept nogil:
    if o.h.fd < 0:
        return
    if o.state == ORIGIN_IDLE:
        pool_unlink(e, o)
    if o.inbox != NULL:
        buffer_put(e, o.inbox)
        o.inbox = NULL
    queue_clear(e, &o.out)
    uplink_free(e, o)
    if o.tls != NULL:
        tls_bye(e, o.tls)
        tls_free(e, o.tls)
        o.tls = NULL
    if o.state != ORIGIN_TUNNEL:
        e.origin_pools[o.origin_id].open -= 1
    e.gauges.origin_connections -= 1
    handle_bury(e, &o.h, False)


cdef inline void in_flight_add(Core* e, uint16_t origin_id, int32_t delta) noexcept nogil:
    cdef OriginPool* pool = &e.origin_pools[origin_id]
    pool.in_flight += <uint32_t>delta
    e.gauges.origin_in_flight[origin_id] = pool.in_flight


cdef void origin_tunnels(Core* e, Origin* o) noexcept nogil:
    o.state = ORIGIN_TUNNEL
    o.reusable = 0
    e.origin_pools[o.origin_id].open -= 1
    in_flight_add(e, o.origin_id, -1)   # its place is free for a request
    wait_serve(e, o.origin_id)


cdef void detach(Core* e, Exchange* x) noexcept nogil:
    if x.origin == NULL:
        return
    if x.origin.state != ORIGIN_TUNNEL:
        in_flight_add(e, x.origin.origin_id, -1)
    x.origin.exchange = NULL
    x.origin = NULL


cdef void origin_abandon(Core* e, Exchange* x) noexcept nogil:
    cdef Origin* o = x.origin
    cdef uint16_t origin_id
    if o == NULL:
        return
    origin_id = o.origin_id
    detach(e, x)
    origin_close(e, o)
    wait_serve(e, origin_id)


cdef ssize_t origin_recv(Core* e, Origin* o, void* data, uint64_t n) noexcept nogil:
    return uplink_recv(e, o, data, n) if o.http2 != NULL else socket_recv(e, &o.h, o.tls, data, n)


cdef bint origin_unsent(const Origin* o) noexcept nogil:
    """Something is on its way to the origin that its socket has not taken."""
    return socket_unsent(&o.out, o.tls) or o.http2 != NULL and o.http2.wire.head != NULL


cdef bint left_over(Core* e, Origin* o) noexcept nogil:
    """Unread bytes, or an end, behind the answer: a further answer to no request must never meet the next request."""
    cdef uint8_t byte
    if origin_unsent(o) or o.h.events & EVENT_HANGUP:
        return True
    if o.h.events & EVENT_READ:
        return origin_recv(e, o, &byte, 1) >= 0 or scrubber_errno() != EAGAIN
    return False


cdef inline void look_by(Core* e, Handle* h, uint64_t due_ns) noexcept nogil:
    """Its deadline is looked at by then. On a busy connection it is anyway, and no timer moves."""
    if h.deadline_ns == 0 or h.deadline_ns > due_ns:
        timer_set(e, h, due_ns)


cdef inline bint idle_over(const Core* e, const Origin* o) noexcept nogil:
    return e.now_ns - o.activity_ns >= e.origin_pools[o.origin_id].idle_ns


cdef void origin_own(Core* e, Origin* o, Client* c) noexcept nogil:
    """A connection whose PROXY header named a client waits for that client alone, and goes with it."""
    if c.named != NULL:
        origin_close(e, c.named)
    c.named = o
    o.owner = c


cdef Origin* owned_take(Core* e, const Exchange* x, const OriginSpec* spec) noexcept nogil:
    """The client's own connection, where it leads to this origin and still says who the client is."""
    cdef Origin* o = client_root(x.client).named
    if o == NULL:
        return NULL
    if (o.origin_id != spec.origin_id or o.h.events & (EVENT_READ | EVENT_HANGUP) or idle_over(e, o) or o.named_port != x.client_port
            or not address_equal(&o.named, &x.client_address)):
        origin_close(e, o)
        return NULL
    pool_unlink(e, o)
    return o


cdef void origin_release(Core* e, Origin* o) noexcept nogil:
    cdef OriginPool* pool = &e.origin_pools[o.origin_id]
    cdef Exchange* x = o.exchange
    cdef Client* c = x.client
    detach(e, x)
    # The inbox still holds the bytes that are being looked at further up; what lies behind the answer has made it not reusable.
    if (not o.reusable or o.pool_epoch != pool.epoch or pool.idle_ns == 0 or e.draining or left_over(e, o)
            or o.http2 != NULL and not uplink_rest(e, o)):
        origin_close(e, o)
    else:
        if o.inbox != NULL:
            buffer_put(e, o.inbox)
            o.inbox = NULL
        o.state = ORIGIN_IDLE
        o.activity_ns = e.now_ns
        o.pool_prev = NULL
        o.pool_next = pool.idle
        if pool.idle != NULL:
            pool.idle.pool_prev = o
        else:
            pool.idle_tail = o
        pool.idle = o
        pool.idle_count += 1
        look_by(e, &o.h, e.now_ns + pool.idle_ns)
        if o.proxy_version:
            origin_own(e, o, client_root(c))
    wait_serve(e, o.origin_id)


# --- connecting --------------------------------------------------------------------------------------------------------------------------

cdef inline uint16_t proxy_version(const OriginSpec* spec) noexcept nogil:
    return 1 if spec.flags & ORIGIN_PROXY_V1 else 2 if spec.flags & ORIGIN_PROXY_V2 else 0


cdef void attach(Core* e, Exchange* x, Origin* o) noexcept nogil:
    o.exchange = x
    x.origin = o
    in_flight_add(e, o.origin_id, 1)


cdef bint name_client(Core* e, Exchange* x, Origin* o) noexcept nogil:
    """The first bytes of a connection: whom it serves."""
    cdef uint8_t header[PROXY_WRITE_BYTES_MAX]
    o.named = x.client_address
    o.named_port = x.client_port
    return origin_write(e, o, header, proxied_write(x, o.proxy_version, header), MSG_MORE) >= 0


cdef inline bint body_at_hand(const Exchange* x) noexcept nogil:
    """Bytes of the body have come with the head, and follow it at once: one segment for both."""
    cdef const Buffer* b = x.client.inbox
    return x.request_body == BODY_LENGTH and not x.request_done and b != NULL and b.start < b.end


cdef int head_write(Core* e, Exchange* x, Origin* o) noexcept nogil:
    """The head, with the origin's own Host where the client's is not kept: see queue_send."""
    cdef Span host = x.spec.host
    cdef uint64_t taken = 0
    cdef int result = 0
    if x.host_off == 0:
        return origin_write(e, o, x.head.data, x.head.end, MSG_MORE if body_at_hand(x) else 0)
    if not (queue_append(e, &o.out, x.head.data, x.host_off)
            and queue_append(e, &o.out, <const uint8_t*>b"Host: ", 6)
            and queue_append(e, &o.out, x.policy.policy.text + host.off, host.len)
            and queue_append(e, &o.out, <const uint8_t*>b"\r\n", 2)
            and queue_append(e, &o.out, x.head.data + x.host_off, x.head.end - x.host_off)):
        return -1
    o.activity_ns = e.now_ns
    if o.http2 != NULL:
        return uplink_flush(e, o)
    if o.h.events & EVENT_WRITE:
        result = socket_flush(e, &o.h, o.tls, &o.out, &taken)
    if result == 0:
        o.h.events &= <uint8_t>~EVENT_WRITE
    return result


cdef void request_send(Core* e, Exchange* x) noexcept nogil:
    """The head to the origin. It is kept until the answer begins, for the one retry."""
    cdef Origin* o = x.origin
    x.sent_ns = e.now_ns
    x.rate_ns = e.now_ns
    o.requests += 1
    if o.proxy_version and o.requests == 1 and o.tls == NULL and not name_client(e, x, o):
        origin_failed(e, o)
        return
    if head_write(e, x, o) < 0:
        origin_failed(e, o)
        return
    if (o.fresh and x.pool.origins.len < 2 or x.request_body != BODY_NONE or not idempotent(x.method)) and not cache_needs_head(x):
        head_drop(e, x)
    if not x.request_done:
        if x.client.h.deadline_ns == 0 or x.client.h.deadline_ns > e.now_ns + CHECK_NS:
            timer_set(e, &x.client.h, e.now_ns + CHECK_NS)
        request_pump(e, x)


cdef Origin* pool_take(Core* e, OriginPool* pool) noexcept nogil:
    cdef Origin* o
    while pool.idle != NULL:
        o = pool.idle
        # Something arrived while it was idle, in this very pass: not to be trusted. Or its time is over, and nobody has looked yet.
        if o.h.events & (EVENT_READ | EVENT_HANGUP) or idle_over(e, o) or o.proxy_version:
            origin_close(e, o)
            continue
        pool_unlink(e, o)
        return o
    return NULL


cdef void idle_give_way(Core* e, OriginPool* pool) noexcept nogil:
    """Idle connections that the next request cannot use (they name another client, or it is a retry) hold places all the same."""
    while pool.open >= pool.connections_max and pool.idle_tail != NULL:
        origin_close(e, pool.idle_tail)


cdef bint idle_close_one(Core* e) noexcept nogil:
    """Connections and descriptors are shared by all origins of this worker: an idle one of another origin goes first."""
    cdef uint32_t i
    for i in range(ORIGINS_MAX):
        if e.origin_pools[i].idle_tail != NULL:
            origin_close(e, e.origin_pools[i].idle_tail)
            return True
    return False


cdef inline bint is_shortage(int error) noexcept nogil:
    """Something ran out: descriptors, memory, ports, or places in a Unix socket's backlog. It says nothing against the origin."""
    return (error == -EMFILE or error == -ENFILE or error == -ENOBUFS or error == -ENOMEM or error == -EADDRNOTAVAIL
            or error == -EAGAIN)


cdef int origin_open(Core* e, Exchange* x, const OriginSpec* spec) noexcept nogil:
    """0, or a negative errno. On success the exchange waits for the connection."""
    cdef OriginPool* pool = &e.origin_pools[spec.origin_id]
    cdef Origin* o
    cdef int fd = scrubber_connect(<int>spec.family, spec.sockaddr, spec.address_bytes)
    if fd < 0:
        return fd
    o = <Origin*>pool_get(&e.origins)
    memset(o, 0, sizeof(Origin))
    o.h.kind = HANDLE_ORIGIN
    o.h.fd = fd
    o.h.timer_slot = -1
    o.state = ORIGIN_CONNECTING
    o.fresh = 1
    o.origin_id = <uint16_t>spec.origin_id
    o.pool_epoch = pool.epoch
    o.proxy_version = proxy_version(spec)
    o.activity_ns = e.now_ns
    pool.open += 1
    e.gauges.origin_connections += 1
    attach(e, x, o)
    if not handle_watch(e, &o.h):
        detach(e, x)
        origin_close(e, o)
        return -ENOMEM
    timer_set(e, &o.h, e.now_ns + x.area.connect_ns)
    return 0


cdef bint acquire_wait(Core* e, Exchange* x, const OriginSpec* only, bint front) noexcept nogil:
    """Wait for `only`, or for any origin of the pool. False: there is no room."""
    cdef WaitQueue* q = &e.pools[x.pool.pool_id].queue
    if only != NULL:
        q = &e.origin_pools[only.origin_id].queue
    return wait_join(e, x, q, front)


cdef bint acquire_take(Core* e, Exchange* x, const OriginSpec* spec) noexcept nogil:
    """A pooled connection to this origin, or a new one. False: neither could be had."""
    cdef OriginPool* pool = &e.origin_pools[spec.origin_id]
    cdef Origin* o
    cdef int error
    x.spec = spec
    x.origin_id = <uint16_t>spec.origin_id
    # A retry must not meet another stale connection.
    o = NULL if x.retried else owned_take(e, x, spec) if proxy_version(spec) else pool_take(e, pool)
    if o != NULL:
        e.totals.origin_reused += 1
        o.state = ORIGIN_ACTIVE
        attach(e, x, o)
        look_by(e, &o.h, e.now_ns + earlier(route_read_ns(x), ORIGIN_CHECK_NS))
        request_send(e, x)
        return True
    idle_give_way(e, pool)
    x.tries += 1
    x.tried |= <uint64_t>1 << (spec - &x.policy.policy.origins[x.pool.origins.off])
    error = origin_open(e, x, spec)
    if (error == -EMFILE or error == -ENFILE) and idle_close_one(e):
        error = origin_open(e, x, spec)
    if is_shortage(error):
        e.totals.origin_shortages += 1
        x.connect_status = 503
        return False
    e.totals.origin_connects += 1
    if error == 0:
        return True
    e.totals.origin_connect_errors += 1
    x.connect_status = 502
    connect_failure(e, x)
    return False


cdef void origin_acquire(Core* e, Exchange* x) noexcept nogil:
    cdef PoolState* state = &e.pools[x.pool.pool_id]
    cdef const OriginSpec* spec = NULL
    cdef int choice = CHOICE_TAKE
    cdef bint promised = x.promised
    cdef uint16_t promised_id = x.origin_id
    promise_end(e, x)
    if x.spec == NULL and not x.waited:
        retry_request(&state.retry, e.now_ns)
    while x.tries < ORIGIN_TRIES_MAX:
        # Nobody overtakes those who wait.
        choice = CHOICE_FULL if state.queue.waiting and not x.waited and x.tries == 0 else origin_choose(e, x, &spec)
        if choice == CHOICE_TAKE and e.origins.free == 0:
            idle_close_one(e)
            graves_clear(e)
            if e.origins.free == 0 and (x.retried or e.origin_pools[spec.origin_id].idle == NULL):
                choice = CHOICE_FULL
        if choice == CHOICE_FULL and acquire_wait(e, x, spec, x.waited):
            return
        if choice != CHOICE_TAKE:
            break
        if x.tries and not retry_take(&state.retry, x.pool.retry_ppm, x.pool.retry_floor, e.now_ns):
            e.totals.origin_retries_refused += 1
            break
        if acquire_take(e, x, spec):
            if promised and spec.origin_id != promised_id:
                wait_fill(e, promised_id)
            return
    if promised:
        wait_fill(e, promised_id)
    if choice == CHOICE_DRAINED:
        x.retry_s = DRAIN_RETRY_S
    answer(e, x, 503 if x.tries == 0 else x.connect_status if x.connect_status else 502)


cdef void connect_failure(Core* e, Exchange* x) noexcept nogil:
    """What a failed connect says of its origin; and where no other one is good either, of those that were ejected before it."""
    cdef OriginState* s = origin_state(e.shared.origins, x.spec)
    cdef bint others = origin_others(e, x.policy.policy, x.pool, x.spec)
    if s != NULL and origin_failed_once(x.pool, s, others, e.now_ns):
        e.totals.origin_ejections += 1
    if not others:
        origins_readmit(e, x.policy.policy, x.pool)


cdef void connect_failed(Core* e, Origin* o, uint16_t status) noexcept nogil:
    cdef Exchange* x = o.exchange
    cdef Client* c = x.client
    e.totals.origin_connect_errors += 1
    x.connect_status = status
    connect_failure(e, x)
    origin_abandon(e, x)
    # Nothing was sent: another origin may be tried whatever the method.
    origin_acquire(e, x)
    if c.exchange == x and x.response_done:
        client_step(e, c)


# --- failures ----------------------------------------------------------------------------------------------------------------------------

cdef inline bint idempotent(uint8_t method) noexcept nogil:
    """RFC 9110 9.2.2."""
    return (method == METHOD_GET or method == METHOD_HEAD or method == METHOD_OPTIONS or method == METHOD_PUT
            or method == METHOD_DELETE)


cdef void origin_failed(Core* e, Origin* o) noexcept nogil:
    cdef Exchange* x = o.exchange
    cdef Client* c
    cdef bint fresh = o.fresh
    cdef bint again = x.head != NULL and not x.interim and (o.inbox == NULL or o.inbox.end == 0)
    if x.response_started:
        response_broken(e, x)
        return
    c = x.client
    origin_abandon(e, x)
    # A connection that was kept may have been ended by its time; a new one by an origin that is being restarted (what waits in its
    # backlog is reset): then another origin is asked, once, and the budget in origin_acquire.
    again = again and idempotent(x.method) and x.request_body == BODY_NONE
    if fresh:
        again = again and not x.moved and origin_others(e, x.policy.policy, x.pool, x.spec)
    else:
        again = again and not x.retried
    if again and not fresh and not retry_take(&e.pools[x.pool.pool_id].retry, x.pool.retry_ppm, x.pool.retry_floor, e.now_ns):
        e.totals.origin_retries_refused += 1
        again = False
    if again:
        if fresh:
            x.moved = 1
        else:
            x.retried = 1
        e.totals.origin_retries += 1
        origin_acquire(e, x)
    else:
        x.upstream_closed = 1
        answer(e, x, 502)
    if c.exchange == x and x.response_done:
        ready_add(e, &c.h)


cdef void origin_answer_bad(Core* e, Exchange* x) noexcept nogil:
    cdef Client* c = x.client
    e.totals.origin_bad += 1
    if x.response_started:
        response_broken(e, x)
        return
    origin_abandon(e, x)
    answer(e, x, 502)
    ready_add(e, &c.h)


cdef int origin_flush(Core* e, Origin* o) noexcept nogil:
    cdef uint64_t taken = 0
    cdef int result
    cdef uint64_t before = o.out.bytes
    if not origin_unsent(o):
        return 1
    if not o.h.events & EVENT_WRITE:
        return 0
    if o.http2 != NULL:
        result = uplink_flush(e, o)
        taken = before - o.out.bytes
    else:
        result = socket_flush(e, &o.h, o.tls, &o.out, &taken)
        if result == 0:
            o.h.events &= <uint8_t>~EVENT_WRITE
    if taken:
        o.activity_ns = e.now_ns
    if result < 0:
        write_failed(o)
        # The answer may be on its way all the same (413 and a close): let the reading side find out.
        if o.h.events & EVENT_READ:
            queue_clear(e, &o.out)
            if o.tls != NULL:
                queue_clear(e, &o.tls.wire)
            o.reusable = 0
            return 0
        origin_failed(e, o)
    return result


cdef void origin_timeout(Core* e, Origin* o) noexcept nogil:
    cdef Exchange* x = o.exchange
    cdef Client* c
    cdef uint64_t due
    if o.state == ORIGIN_IDLE:
        due = o.activity_ns + e.origin_pools[o.origin_id].idle_ns
        if e.now_ns < due:
            timer_set(e, &o.h, due)
        else:
            origin_close(e, o)
        return
    if o.state == ORIGIN_CONNECTING or o.state == ORIGIN_HANDSHAKE:
        connect_failed(e, o, 504)
        return
    if o.state == ORIGIN_TUNNEL:
        return                      # its client's timer looks after both
    c = x.client
    due = o.activity_ns + route_read_ns(x)
    # While the client is the one who is slow, its own deadlines count.
    if client_unsent(c) or x.pipe_down != NULL or (not x.request_done and not origin_unsent(o) and x.pipe_up == NULL):
        due = e.now_ns + route_read_ns(x)
    if e.now_ns < due:
        timer_set(e, &o.h, earlier(due, e.now_ns + ORIGIN_CHECK_NS))
        return
    if x.response_started:
        response_broken(e, x)
        return
    origin_abandon(e, x)
    answer(e, x, 504)
    client_step(e, c)


cdef inline bint spoke_first(const Origin* o) noexcept nogil:
    """Bytes before any request: an answer to none (RFC 9112 9.2). An end alone is for the reading side."""
    cdef uint8_t byte
    return o.h.events & EVENT_READ and recv(o.h.fd, &byte, 1, MSG_PEEK) > 0


cdef void origin_connected(Core* e, Origin* o) noexcept nogil:
    """Ready for requests: TLS stands, where there is any."""
    cdef Exchange* x = o.exchange
    cdef OriginState* s = origin_state(e.shared.origins, x.spec)
    if s != NULL:
        origin_worked(x.pool, s, e.now_ns)
    o.state = ORIGIN_ACTIVE
    x.connect_ns = e.now_ns - o.activity_ns
    timer_clear(e, &o.h)
    timer_set(e, &o.h, e.now_ns + earlier(route_read_ns(x), ORIGIN_CHECK_NS))
    # What a connection begins with, before any request, goes here.
    if e.origin_pools[o.origin_id].http2:
        if not uplink_open(e, o):
            e.totals.origin_shortages += 1
            connect_failed(e, o, 503)
            return
    elif o.tls == NULL and spoke_first(o):
        origin_answer_bad(e, x)
        return
    request_send(e, x)


cdef void origin_greet(Core* e, Origin* o) noexcept nogil:
    """Connected; TLS begins, behind the PROXY header where one is due."""
    cdef Exchange* x = o.exchange
    cdef uint8_t name[256]
    cdef Span wanted = x.spec.tls_name
    if o.proxy_version and not name_client(e, x, o):
        connect_failed(e, o, 502)
        return
    o.tls = tls_new(e, &o.h, <SSL_CTX*>x.policy.policy.tls_origins[x.spec - x.policy.policy.origins])
    if o.tls == NULL:
        e.totals.origin_shortages += 1
        connect_failed(e, o, 503)
        return
    o.tls.wire = o.out              # what is left of that header
    memset(&o.out, 0, sizeof(Queue))
    memcpy(name, x.policy.policy.text + wanted.off, wanted.len)
    name[wanted.len] = 0
    SSL_set_connect_state(o.tls.ssl)
    o.state = ORIGIN_HANDSHAKE
    if not scrubber_expect(o.tls.ssl, <const char*>name):
        connect_failed(e, o, 502)
        return
    o.h.events |= EVENT_READ
    origin_shake(e, o)


cdef void origin_shake(Core* e, Origin* o) noexcept nogil:
    cdef uint64_t taken = 0
    cdef int outcome
    if o.tls.wire.head != NULL and o.h.events & EVENT_WRITE and queue_flush(e, &o.tls.wire, o.h.fd, &taken) == 0:
        o.h.events &= <uint8_t>~EVENT_WRITE
    outcome = tls_shake(e, o.tls)
    if outcome == 1:
        origin_connected(e, o)
    elif outcome < 0:
        connect_failed(e, o, 502)


cdef bint quiet(Core* e, Origin* o) noexcept nogil:
    """An idle connection has neither ended nor brought bytes that nobody asked for. An edge alone does not say so: what came between the
    look at the edges and the reading of an answer is told of again when it has been read."""
    cdef uint8_t byte
    # Of TLS, there may be tickets.
    if o.h.events & EVENT_HANGUP or origin_recv(e, o, &byte, 1) >= 0:
        return False
    return scrubber_errno() == EAGAIN or scrubber_errno() == EINTR


cdef void origin_step(Core* e, Origin* o) noexcept nogil:
    cdef Exchange* x = o.exchange
    cdef Client* c
    if o.state == ORIGIN_IDLE:
        if not quiet(e, o):
            origin_close(e, o)
        return
    if o.state == ORIGIN_TUNNEL:
        tunnel_step(e, x)
        return
    c = x.client
    if o.state == ORIGIN_CONNECTING:
        if not o.h.events & EVENT_WRITE:
            return
        if scrubber_socket_error(o.h.fd):
            connect_failed(e, o, 502)
            return
        if e.origin_pools[o.origin_id].context != NULL:
            origin_greet(e, o)
        else:
            origin_connected(e, o)
    elif o.state == ORIGIN_HANDSHAKE:
        origin_shake(e, o)
    elif not x.request_done or origin_unsent(o):
        request_pump(e, x)
    if c.exchange == x and x.origin == o:
        response_pump(e, x)
    if c.exchange == x and (x.response_done or client_unsent(c)):
        client_step(e, c)


cdef void idle_close(Core* e, OriginPool* pool) noexcept nogil:
    while pool.idle != NULL:
        origin_close(e, pool.idle)


cdef void pool_update(Core* e, const AreaSpec* area, const PoolSpec* owner, const OriginSpec* spec) noexcept nogil:
    cdef OriginPool* pool = &e.origin_pools[spec.origin_id]
    cdef bint before = pool.seen + 1 == e.swaps
    cdef void* context
    pool.idle_ns = area.origin_idle_ns
    pool.connections_max = spec.connections_max if spec.connections_max else area.origin_connections_max
    pool.pool_id = owner.pool_id
    pool.seen = e.swaps
    context = e.policy.policy.tls_origins[spec - e.policy.policy.origins] if e.policy.policy.tls_origins != NULL else NULL
    # A new origin is none that those who wait know of.
    if before and origin_standing(owner, spec, origin_state(e.shared.origins, spec), e.now_ns) == STANDING_GOOD:
        wait_fill(e, <uint16_t>spec.origin_id)
    if (pool.address_bytes == spec.address_bytes and memcmp(pool.sockaddr, spec.sockaddr, spec.address_bytes) == 0
            and pool.context == context and pool.http2 == spec.flags & ORIGIN_H2C):
        return
    pool.epoch += 1
    pool.turn = 0
    pool.context = context
    pool.http2 = spec.flags & ORIGIN_H2C
    pool.address_bytes = spec.address_bytes
    memcpy(pool.sockaddr, spec.sockaddr, spec.address_bytes)
    idle_close(e, pool)


cdef void origin_pools_update(Core* e) noexcept nogil:
    cdef const Policy* p = e.policy.policy
    cdef const AreaSpec* area
    cdef const PoolSpec* pool
    cdef uint32_t i, k, n, last
    e.swaps += 1
    for i in range(p.header.areas.count):
        area = &p.areas[i]
        # An area's pools stand side by side, its own first.
        last = p.areas[i + 1].pool if i + 1 < p.header.areas.count else p.header.pools.count
        for n in range(area.pool, last):
            pool = &p.pools[n]
            for k in range(pool.origins.len):
                pool_update(e, area, pool, &p.origins[pool.origins.off + k])
    for i in range(ORIGINS_MAX):
        # No longer an origin: nothing is kept open to it. What is in flight ends.
        if e.origin_pools[i].seen != e.swaps and e.origin_pools[i].address_bytes:
            e.origin_pools[i].address_bytes = 0
            e.origin_pools[i].epoch += 1
            idle_close(e, &e.origin_pools[i])


cdef void origins_look(Core* e) noexcept nogil:
    cdef const Policy* p = e.policy.policy
    cdef const OriginState* s
    cdef uint32_t i
    for i in range(p.header.origins.count):
        if e.origin_pools[p.origins[i].origin_id].idle != NULL:
            s = origin_state(e.shared.origins, &p.origins[i])
            if s != NULL and load_u64(&s.drained):
                idle_close(e, &e.origin_pools[p.origins[i].origin_id])
