# The origin's side: see origin.pxd. Invariants: OriginPool.open counts every connection of that id; an idle connection has no exchange,
# no buffer and nothing unread; a connection with anything left over is never reused.


cdef void head_drop(Core* e, Exchange* x) noexcept nogil:
    if x.head != NULL:
        buffer_put(e, x.head)
        x.head = NULL


cdef inline uint64_t earlier(uint64_t a, uint64_t b) noexcept nogil:
    return a if a < b else b


cdef void pool_unlink(Core* e, Origin* o) noexcept nogil:
    cdef OriginPool* pool = &e.origin_pools[o.origin_id]
    if o.pool_prev != NULL:
        o.pool_prev.pool_next = o.pool_next
    else:
        pool.idle = o.pool_next
    if o.pool_next != NULL:
        o.pool_next.pool_prev = o.pool_prev
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
    if o.state != ORIGIN_TUNNEL:
        e.origin_pools[o.origin_id].open -= 1
    e.gauges.origin_connections -= 1
    handle_bury(e, &o.h, False)


cdef void origin_tunnels(Core* e, Origin* o) noexcept nogil:
    o.state = ORIGIN_TUNNEL
    o.reusable = 0
    e.origin_pools[o.origin_id].open -= 1
    wait_serve(e, o.origin_id)


cdef void detach(Core* e, Exchange* x) noexcept nogil:
    cdef OriginPool* pool
    if x.origin == NULL:
        return
    pool = &e.origin_pools[x.origin.origin_id]
    pool.in_flight -= 1
    e.gauges.origin_in_flight[x.origin.origin_id] = pool.in_flight
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


cdef bint left_over(Core* e, Origin* o) noexcept nogil:
    """Unread bytes, or an end, behind the answer: a further answer to no request must never meet the next request."""
    cdef uint8_t byte
    if o.out.head != NULL or o.h.events & EVENT_HANGUP:
        return True
    if o.h.events & EVENT_READ:
        if recv(o.h.fd, &byte, 1, 0) >= 0 or scrubber_errno() != EAGAIN:
            return True
        o.h.events &= <uint8_t>~EVENT_READ
    return False


cdef void origin_own(Core* e, Origin* o, Client* c) noexcept nogil:
    """A connection whose PROXY header named a client waits for that client alone, and goes with it."""
    if c.named != NULL:
        origin_close(e, c.named)
    c.named = o
    o.owner = c


cdef Origin* owned_take(Core* e, const Exchange* x, const OriginSpec* spec) noexcept nogil:
    """The client's own connection, where it leads to this origin and still says who the client is."""
    cdef Origin* o = x.client.named
    if o == NULL:
        return NULL
    if (o.origin_id != spec.origin_id or o.h.events & (EVENT_READ | EVENT_HANGUP) or o.named_port != x.client_port
            or not address_equal(&o.named, &x.client_full)):
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
    if not o.reusable or o.pool_epoch != pool.epoch or e.draining or left_over(e, o):
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
        pool.idle = o
        pool.idle_count += 1
        if o.proxy_version:
            origin_own(e, o, c)
    wait_serve(e, o.origin_id)


# --- waiting -----------------------------------------------------------------------------------------------------------------------------

cdef void origin_wait_leave(Core* e, Exchange* x) noexcept nogil:
    cdef OriginPool* pool = &e.origin_pools[x.origin_id]
    if not x.waiting:
        return
    if x.wait_prev != NULL:
        x.wait_prev.wait_next = x.wait_next
    else:
        pool.wait_head = x.wait_next
    if x.wait_next != NULL:
        x.wait_next.wait_prev = x.wait_prev
    else:
        pool.wait_tail = x.wait_prev
    x.wait_prev = NULL
    x.wait_next = NULL
    x.waiting = 0
    x.queue_ns += e.now_ns - x.queued_ns
    pool.waiting -= 1


cdef void wait_join(Core* e, Exchange* x, OriginPool* pool) noexcept nogil:
    x.waiting = 1
    x.queued_ns = e.now_ns
    x.wait_prev = pool.wait_tail
    x.wait_next = NULL
    if pool.wait_tail != NULL:
        pool.wait_tail.wait_next = x
    else:
        pool.wait_head = x
    pool.wait_tail = x
    pool.waiting += 1
    timer_set(e, &x.client.h, e.now_ns + earlier(x.area.origin_wait_ns, CHECK_NS))


cdef void wait_serve(Core* e, uint16_t origin_id) noexcept nogil:
    cdef OriginPool* pool = &e.origin_pools[origin_id]
    cdef Exchange* x = pool.wait_head
    if x != NULL:
        origin_wait_leave(e, x)
        x.ready = 1
        # Not from here: this may be deep inside another exchange's end.
        ready_add(e, &x.client.h)


# --- connecting --------------------------------------------------------------------------------------------------------------------------

cdef const OriginSpec* origin_choose(Core* e, Exchange* x) noexcept nogil:
    """The origin of the area with the fewest requests of this worker in flight; one that refused this request already comes last."""
    cdef const Policy* p = x.policy.policy
    cdef const OriginSpec* best = NULL
    cdef const OriginSpec* o
    cdef uint32_t i
    cdef uint32_t n = x.pool.origins.len
    for i in range(n):
        o = &p.origins[x.pool.origins.off + (i + x.tries) % n]
        if x.tries and o.origin_id == x.origin_id and n > 1:
            continue
        if best == NULL or e.origin_pools[o.origin_id].in_flight < e.origin_pools[best.origin_id].in_flight:
            best = o
    return best


cdef inline uint16_t proxy_version(const OriginSpec* spec) noexcept nogil:
    return 1 if spec.flags & ORIGIN_PROXY_V1 else 2 if spec.flags & ORIGIN_PROXY_V2 else 0


cdef void attach(Core* e, Exchange* x, Origin* o) noexcept nogil:
    cdef OriginPool* pool = &e.origin_pools[o.origin_id]
    o.exchange = x
    x.origin = o
    pool.in_flight += 1
    e.gauges.origin_in_flight[o.origin_id] = pool.in_flight


cdef bint name_client(Core* e, Exchange* x, Origin* o) noexcept nogil:
    """The first bytes of a connection: whom it serves."""
    cdef uint8_t header[PROXY_WRITE_BYTES_MAX]
    o.named = x.client_full
    o.named_port = x.client_port
    return origin_write(e, o, header, proxied_write(x, o.proxy_version, header)) >= 0


cdef void request_send(Core* e, Exchange* x) noexcept nogil:
    """The head to the origin. It is kept until the answer begins, for the one retry."""
    cdef Origin* o = x.origin
    x.sent_ns = e.now_ns
    x.rate_ns = e.now_ns
    o.requests += 1
    if o.proxy_version and o.requests == 1 and not name_client(e, x, o):
        origin_failed(e, o)
        return
    if origin_write(e, o, x.head.data, x.head.end) < 0:
        origin_failed(e, o)
        return
    if o.fresh or x.request_body != BODY_NONE or not idempotent(x.method):
        head_drop(e, x)
    if not x.request_done:
        if x.client.h.deadline_ns == 0 or x.client.h.deadline_ns > e.now_ns + CHECK_NS:
            timer_set(e, &x.client.h, e.now_ns + CHECK_NS)
        request_pump(e, x)


cdef Origin* pool_take(Core* e, OriginPool* pool) noexcept nogil:
    cdef Origin* o
    while pool.idle != NULL:
        o = pool.idle
        # Something arrived while it was idle, in this very pass: not to be trusted.
        if o.h.events & (EVENT_READ | EVENT_HANGUP) or o.proxy_version:
            origin_close(e, o)
            continue
        pool_unlink(e, o)
        return o
    return NULL


cdef void idle_make_room(Core* e) noexcept nogil:
    """The pool of connections is shared by all origins of this worker: an idle one of another origin goes first."""
    cdef uint32_t i
    for i in range(ORIGINS_MAX):
        if e.origin_pools[i].idle != NULL:
            origin_close(e, e.origin_pools[i].idle)
            graves_clear(e)
            return


cdef int origin_open(Core* e, Exchange* x, const OriginSpec* spec) noexcept nogil:
    """0, or a negative errno. On success the exchange waits for the connection."""
    cdef OriginPool* pool = &e.origin_pools[spec.origin_id]
    cdef Origin* o
    cdef int fd
    e.totals.origin_connects += 1
    fd = scrubber_connect(<int>spec.family, spec.sockaddr, spec.address_bytes)
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
        return -EMFILE
    timer_set(e, &o.h, e.now_ns + x.area.connect_ns)
    return 0


cdef void origin_acquire(Core* e, Exchange* x) noexcept nogil:
    cdef const OriginSpec* spec
    cdef OriginPool* pool
    cdef Origin* o
    cdef uint32_t open_max
    while x.tries < ORIGIN_TRIES_MAX:
        spec = origin_choose(e, x)
        if spec == NULL:
            break
        pool = &e.origin_pools[spec.origin_id]
        x.origin_id = <uint16_t>spec.origin_id
        open_max = spec.connections_max if spec.connections_max else x.area.origin_connections_max
        # A retry must not meet another stale connection.
        o = NULL if x.retried else owned_take(e, x, spec) if proxy_version(spec) else pool_take(e, pool)
        if o != NULL:
            e.totals.origin_reused += 1
            o.state = ORIGIN_ACTIVE
            attach(e, x, o)
            request_send(e, x)
            return
        if e.origins.free == 0:
            idle_make_room(e)
        if (pool.open - pool.idle_count >= open_max or e.origins.free == 0) and not x.retried:
            if pool.waiting >= x.area.origin_wait_max:
                break
            wait_join(e, x, pool)
            return
        if e.origins.free == 0:
            break
        x.tries += 1
        if origin_open(e, x, spec) == 0:
            return
        e.totals.origin_connect_errors += 1
    answer(e, x, 503 if x.tries == 0 else 502)


cdef void connect_failed(Core* e, Origin* o, uint16_t status) noexcept nogil:
    cdef Exchange* x = o.exchange
    cdef Client* c = x.client
    e.totals.origin_connect_errors += 1
    origin_abandon(e, x)
    # Nothing was sent: another try is safe whatever the method.
    if x.pool.origins.len > 1 and x.tries < ORIGIN_TRIES_MAX:
        origin_acquire(e, x)
    else:
        answer(e, x, status)
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
    cdef bint stale = not o.fresh and not x.response_started and (o.inbox == NULL or o.inbox.end == 0)
    if x.response_started:
        response_broken(e, x)
        return
    c = x.client
    origin_abandon(e, x)
    if stale and not x.retried and not x.interim and idempotent(x.method) and x.request_body == BODY_NONE and x.head != NULL:
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
    if o.out.head == NULL:
        return 1
    if not o.h.events & EVENT_WRITE:
        return 0
    result = queue_flush(e, &o.out, o.h.fd, &taken)
    if taken:
        o.activity_ns = e.now_ns
    if result == 0:
        o.h.events &= <uint8_t>~EVENT_WRITE
    elif result < 0:
        # The answer may be on its way all the same (413 and a close): let the reading side find out.
        if o.h.events & EVENT_READ:
            queue_clear(e, &o.out)
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
    if o.state == ORIGIN_CONNECTING:
        connect_failed(e, o, 504)
        return
    if o.state == ORIGIN_TUNNEL:
        return                      # its client's timer looks after both
    c = x.client
    due = o.activity_ns + route_read_ns(x)
    # While the client is the one who is slow, its own deadlines count.
    if c.out.head != NULL or x.pipe_down != NULL or (not x.request_done and o.out.head == NULL and x.pipe_up == NULL):
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


cdef void origin_step(Core* e, Origin* o) noexcept nogil:
    cdef Exchange* x = o.exchange
    cdef Client* c
    if o.state == ORIGIN_IDLE:
        origin_close(e, o)          # an end, or bytes that nobody asked for
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
        o.state = ORIGIN_ACTIVE
        x.connect_ns = e.now_ns - o.activity_ns
        timer_clear(e, &o.h)
        timer_set(e, &o.h, e.now_ns + earlier(route_read_ns(x), ORIGIN_CHECK_NS))
        request_send(e, x)
    elif not x.request_done or o.out.head != NULL:
        request_pump(e, x)
    if c.exchange == x and x.origin == o:
        response_pump(e, x)
    if c.exchange == x and (x.response_done or c.out.head != NULL):
        client_step(e, c)


cdef void pool_update(Core* e, const OriginSpec* spec, uint64_t idle_ns) noexcept nogil:
    cdef OriginPool* pool = &e.origin_pools[spec.origin_id]
    pool.idle_ns = idle_ns
    if pool.address_bytes == spec.address_bytes and memcmp(pool.sockaddr, spec.sockaddr, spec.address_bytes) == 0:
        return
    pool.epoch += 1
    pool.address_bytes = spec.address_bytes
    memcpy(pool.sockaddr, spec.sockaddr, spec.address_bytes)
    while pool.idle != NULL:
        origin_close(e, pool.idle)


cdef void origin_pools_update(Core* e) noexcept nogil:
    cdef const Policy* p = e.policy.policy
    cdef const AreaSpec* area
    cdef const PoolSpec* pool
    cdef uint32_t i, k, n, last
    for i in range(p.header.areas.count):
        area = &p.areas[i]
        # An area's pools stand side by side, its own first.
        last = p.areas[i + 1].pool if i + 1 < p.header.areas.count else p.header.pools.count
        for n in range(area.pool, last):
            pool = &p.pools[n]
            for k in range(pool.origins.len):
                pool_update(e, &p.origins[pool.origins.off + k], area.origin_idle_ns)
