# Tunnels: see tunnel.pxd. Owns CLIENT_TUNNEL and ORIGIN_TUNNEL connections and how they end. Invariants: no byte passes before the 101
# that grants the upgrade; nothing is read from a side while the other has not taken what came before, so a way holds one window at
# most; a tunnel never holds an old policy longer than a second; each ends in one place, tunnel_end, or with its client.

cdef enum:
    TUNNEL_SALT = 0x74756e6e656c
    WEBSOCKET_KEY_BYTES = 24        # 16 bytes in base64


# --- asking ------------------------------------------------------------------------------------------------------------------------------

cdef bint protocol_find(const Policy* p, const TunnelSpec* t, const uint8_t* name, uint32_t length, Span* out) noexcept nogil:
    """The entry of the area's list that is this protocol, letters of any case."""
    cdef uint32_t at = t.upgrades.off
    cdef uint32_t end = at + t.upgrades.len
    cdef uint32_t start, i
    while at < end:
        start = at
        while at < end and p.text[at] != c",":
            at += 1
        if at - start == length and length:
            i = 0
            while i < length and fold(name[i]) == p.text[start + i]:
                i += 1
            if i == length:
                out.off = start
                out.len = length
                return True
        at += 1
    return False


cdef bint protocol_alone(const uint8_t* data, const Header* headers, uint16_t count, const int16_t* first, Span* out) noexcept nogil:
    """The one protocol that Upgrade names. False: there are several, or none."""
    cdef uint32_t at, end, found = 0
    cdef uint16_t i
    cdef Span protocol
    if first[HEADER_UPGRADE] < 0:
        return False
    for i in range(<uint16_t>first[HEADER_UPGRADE], count):
        if headers[i].id != HEADER_UPGRADE:
            continue
        at = headers[i].value_off
        end = at + headers[i].value_len
        while next_element(data, &at, end, &protocol):
            if protocol.len:
                found += 1
                out[0] = protocol
    return found == 1


cdef bint header_given(const Facts* f, const char* name, uint32_t bytes_min) noexcept nogil:
    cdef uint32_t length = <uint32_t>strlen(name)
    cdef int32_t i = http1_find(f.data, f.head.headers, f.head.header_count, 0, <const uint8_t*>name, length,
                                http1_name_hash(<const uint8_t*>name, length))
    return i >= 0 and f.head.headers[i].value_len >= bytes_min


cdef uint16_t tunnel_ask(Core* e, Exchange* x, const Facts* f) noexcept nogil:
    cdef const RequestHead* head = f.head
    cdef const TunnelSpec* t = &x.area.tunnel
    cdef const HashKey* secret = &e.shared.secret
    cdef Span protocol
    cdef uint32_t open_now
    cdef bint websocket
    if not head.upgrade or head.method != METHOD_GET or not x.request_done:
        return 0
    if not protocol_alone(f.data, head.headers, head.header_count, head.first, &protocol):
        return 0
    if not protocol_find(f.policy, t, f.data + protocol.off, protocol.len, &x.protocol):
        return 0
    websocket = folds_to(f.data + protocol.off, protocol.len, "websocket")
    # Without these no origin can open a WebSocket (RFC 6455 4.2.1): it is an ordinary GET, which the cache may answer.
    if websocket and not (header_given(f, b"sec-websocket-key", WEBSOCKET_KEY_BYTES) and header_given(f, b"sec-websocket-version", 1)):
        return 0
    x.tunnel.area_key = siphash_pair(secret, TUNNEL_SALT, x.area.area_id)
    x.tunnel.client_key = siphash_pair(secret, x.tunnel.area_key, x.client_key)
    # Counted before the origin is asked: many at once must not all find room.
    open_now = counts_add(e.shared, x.tunnel.client_key, 1)
    x.tunnel.client_counted = open_now != COUNTS_FULL
    if open_now != COUNTS_FULL and open_now > t.client_max:
        e.totals.tunnels_refused += 1
        return 429
    open_now = counts_add(e.shared, x.tunnel.area_key, 1)
    x.tunnel.area_counted = open_now != COUNTS_FULL
    if open_now != COUNTS_FULL and open_now > t.total_max:
        e.totals.tunnels_refused += 1
        return 503
    x.upgrade = 1
    x.tunnel.frames = websocket
    return 0


cdef void tunnel_uncount(Core* e, Exchange* x) noexcept nogil:
    if x.tunnel.client_counted:
        counts_add(e.shared, x.tunnel.client_key, -1)
        x.tunnel.client_counted = 0
    if x.tunnel.area_counted:
        counts_add(e.shared, x.tunnel.area_key, -1)
        x.tunnel.area_counted = 0
    if x.tunnel.since_ns:
        e.gauges.tunnels -= 1
        x.tunnel.since_ns = 0


# --- granted -----------------------------------------------------------------------------------------------------------------------------

cdef bint tunnel_granted(Core* e, Exchange* x, const uint8_t* data) noexcept nogil:
    cdef const ResponseHead* r = &e.response
    cdef Span protocol
    cdef uint32_t i
    if not x.upgrade or not protocol_alone(data, r.headers, r.header_count, r.first, &protocol) or protocol.len != x.protocol.len:
        return False
    for i in range(protocol.len):
        if fold(data[protocol.off + i]) != x.policy.policy.text[x.protocol.off + i]:
            return False
    return True


cdef bint tunnel_early(Core* e, Exchange* x, const uint8_t* behind, uint32_t n) noexcept nogil:
    """What came early: behind the 101, and behind the request, where it was held back. False: no room for it."""
    cdef Client* c = x.client
    cdef Buffer* b = c.inbox
    if n:
        if not queue_append(e, &c.out, behind, n):
            return False
        x.bytes_out += n
        if x.tunnel.frames:
            frames_feed(&x.tunnel.down.frames, behind, n)
    if b != NULL:
        if not queue_append(e, &x.origin.out, b.data + b.start, b.end - b.start):
            return False
        x.bytes_in += b.end - b.start
        if x.tunnel.frames:
            frames_feed(&x.tunnel.up.frames, b.data + b.start, b.end - b.start)
        buffer_put(e, b)
        c.inbox = NULL
    return True


cdef void tunnel_begin(Core* e, Exchange* x, const uint8_t* data, uint32_t head_bytes, uint32_t n) noexcept nogil:
    cdef Client* c = x.client
    cdef Origin* o = x.origin
    if not forward_upgrade(e, x, data):
        origin_answer_bad(e, x)
        return
    x.first_ns = e.now_ns
    x.status = 101
    x.response_started = 1
    x.keep_alive = 0
    head_drop(e, x)
    if not tunnel_early(e, x, data + head_bytes, n - head_bytes):
        client_close(e, c, True)
        return
    x.tunnel.since_ns = e.now_ns
    x.tunnel.byte_ns = e.now_ns
    x.tunnel.message_ns = e.now_ns
    x.tunnel.up.window = WINDOW_MIN
    x.tunnel.down.window = WINDOW_MIN
    e.gauges.tunnels += 1
    e.totals.tunnels += 1
    c.state = CLIENT_TUNNEL
    c.blocked_ns = 0
    origin_tunnels(e, o)
    timer_clear(e, &o.h)
    timer_clear(e, &c.h)
    timer_set(e, &c.h, tunnel_due(e, x))
    ready_add(e, &c.h)


# --- flowing -----------------------------------------------------------------------------------------------------------------------------

cdef bint frames_feed(Frames* f, const uint8_t* data, uint64_t n) noexcept nogil:
    cdef bint message = False
    cdef uint64_t take
    cdef uint32_t need, length, i
    while n:
        if f.left:
            take = n if n < f.left else f.left
            f.left -= take
            data += take
            n -= take
            message = message or not f.control
            continue
        f.head[f.have] = data[0]
        f.have += 1
        data += 1
        n -= 1
        if f.have < 2:
            continue
        length = f.head[1] & 127
        need = 2 + (8 if length == 127 else 2 if length == 126 else 0)
        if f.have < need + (4 if f.head[1] & 128 else 0):
            continue
        f.control = f.head[0] & 8       # close, ping, pong
        f.have = 0
        message = message or not f.control
        if length < 126:
            f.left = length
            continue
        for i in range(2, need):
            f.left = f.left << 8 | f.head[i]
    return message


cdef void tunnel_end(Core* e, Exchange* x, uint8_t how, bint reset) noexcept nogil:
    x.tunnel.how = how
    if how >= TUNNEL_IDLE:
        e.totals.tunnels_cut += 1
    client_close(e, x.client, reset)


cdef inline void way_stuck(Core* e, TunnelWay* w, Handle* sink, uint64_t taken) noexcept nogil:
    sink.events &= <uint8_t>~EVENT_WRITE
    if taken or w.stuck_ns == 0:
        w.stuck_ns = e.now_ns
    if w.window > WINDOW_MIN:
        w.window /= 2


# --- the two ends: a client, or a stream of one, and an origin ---

cdef inline Tls* tls_of(Handle* h) noexcept nogil:
    return (<Origin*>h).tls if h.kind == HANDLE_ORIGIN else (<Client*>h).tls


cdef bint end_unsent(const Handle* h, const Queue* q) noexcept nogil:
    return q.head != NULL if h.kind == HANDLE_STREAM else socket_unsent(q, tls_of(<Handle*>h))


cdef int end_flush(Core* e, Handle* h, Queue* q, uint64_t* taken) noexcept nogil:
    cdef uint64_t before = q.bytes
    cdef int result
    if h.kind != HANDLE_STREAM:
        return socket_flush(e, h, tls_of(h), q, taken)
    result = stream_flush(e, <Stream*>h)
    taken[0] += before - q.bytes
    return result


cdef int end_send(Core* e, Handle* h, Queue* q, const uint8_t* data, uint64_t n) noexcept nogil:
    if h.kind == HANDLE_STREAM:
        return stream_send(e, <Stream*>h, data, n)
    return socket_send(e, h, tls_of(h), q, data, n, 0)


cdef ssize_t end_recv(Core* e, Handle* h, void* data, uint64_t n) noexcept nogil:
    return stream_recv(e, <Stream*>h, data, n) if h.kind == HANDLE_STREAM else socket_recv(e, h, tls_of(h), data, n)


cdef void end_close(Core* e, Handle* h) noexcept nogil:
    """Half-closed: the other way goes on."""
    if h.kind == HANDLE_STREAM:
        stream_end(e, <Stream*>h)
        return
    if tls_of(h) != NULL:
        tls_bye(e, tls_of(h))
    shutdown(h.fd, SHUT_WR)


cdef int way_drain(Core* e, TunnelWay* w, Handle* sink, Queue* q) noexcept nogil:
    """What is queued, as far as it goes: as queue_flush."""
    cdef uint64_t taken = 0
    cdef int result
    if not end_unsent(sink, q):
        w.stuck_ns = 0
        return 1
    if not sink.events & EVENT_WRITE:
        if w.stuck_ns == 0:
            w.stuck_ns = e.now_ns
        return 0
    result = end_flush(e, sink, q, &taken)
    if result == 0:
        way_stuck(e, w, sink, taken)
    elif result == 1:
        w.stuck_ns = 0
    return result


cdef int64_t way_read(Core* e, Exchange* x, TunnelWay* w, Handle* source, uint64_t moved) noexcept nogil:
    """Bytes in e.relay; 0: nothing now, or the end (w.ended); -1: broken."""
    cdef uint64_t ask = w.window
    cdef uint64_t room = <uint64_t>(e.buffers.free - BUFFERS_LOW / 2) * BUFFER_BYTES
    cdef uint64_t bytes_max = x.area.tunnel.bytes_max
    cdef ssize_t got
    if ask > room:
        ask = room
    # One byte more than may pass: so that the one too many is seen.
    if bytes_max and ask > bytes_max + 1 - (moved if moved < bytes_max else bytes_max):
        ask = bytes_max + 1 - (moved if moved < bytes_max else bytes_max)
    got = end_recv(e, source, e.relay, ask)
    if got < 0:
        return 0 if scrubber_errno() == EAGAIN or scrubber_errno() == EINTR else -1
    if got == 0:
        w.ended = 1
        source.events &= <uint8_t>~EVENT_READ
    return got


cdef bint way_flow(Core* e, Exchange* x, TunnelWay* w, Handle* source, Handle* sink, Queue* q, uint64_t* moved) noexcept nogil:
    """One way as far as both sides go along. False: the tunnel has ended."""
    cdef int64_t budget = STEP_BYTES_MAX
    cdef int64_t got = 0
    cdef int result
    while True:
        result = way_drain(e, w, sink, q)
        if result <= 0:
            if result < 0:
                tunnel_end(e, x, TUNNEL_BROKEN, True)
            return result == 0
        if got and w.window < RELAY_BYTES:
            w.window *= 2           # it took all of the last one
        if w.ended:
            if w.ended == 1:
                w.ended = 2
                end_close(e, sink)
            return True
        if not source.events & EVENT_READ:
            return True
        if e.buffers.free < BUFFERS_LOW:
            starve(e, source)
            return True
        if budget <= 0:
            ready_add(e, source)
            return True
        got = way_read(e, x, w, source, moved[0])
        if got < 0:
            tunnel_end(e, x, TUNNEL_BROKEN, True)
            return False
        if got == 0:
            if w.ended:
                continue
            return True
        budget -= got
        if x.area.tunnel.bytes_max and moved[0] + <uint64_t>got > x.area.tunnel.bytes_max:
            tunnel_end(e, x, TUNNEL_BYTES, True)
            return False
        moved[0] += <uint64_t>got
        x.tunnel.byte_ns = e.now_ns
        if not x.tunnel.frames or frames_feed(&w.frames, e.relay, <uint64_t>got):
            x.tunnel.message_ns = e.now_ns
        if end_send(e, sink, q, e.relay, <uint64_t>got) < 0:
            tunnel_end(e, x, TUNNEL_BROKEN, True)
            return False


cdef void tunnel_step(Core* e, Exchange* x) noexcept nogil:
    cdef Client* c = x.client
    cdef Origin* o = x.origin
    if not way_flow(e, x, &x.tunnel.up, &c.h, &o.h, &o.out, &x.bytes_in):
        return
    if not way_flow(e, x, &x.tunnel.down, &o.h, &c.h, &c.out, &x.bytes_out):
        return
    if x.tunnel.up.ended == 2 and x.tunnel.down.ended == 2:
        tunnel_end(e, x, TUNNEL_CLOSED, False)


# --- limits ------------------------------------------------------------------------------------------------------------------------------

cdef uint64_t tunnel_due(Core* e, const Exchange* x) noexcept nogil:
    """When to look next: a second at most, as blocks and reloads are seen then."""
    cdef const TunnelSpec* t = &x.area.tunnel
    cdef uint64_t due = earlier(e.now_ns + CHECK_NS, x.tunnel.byte_ns + t.idle_ns)
    if t.message_ns:
        due = earlier(due, x.tunnel.message_ns + t.message_ns)
    if t.lifetime_ns:
        due = earlier(due, x.tunnel.since_ns + t.lifetime_ns)
    return due if due > e.now_ns else e.now_ns + 1


cdef uint8_t tunnel_over(Core* e, const Exchange* x) noexcept nogil:
    """TUNNEL_* that ends it now; TUNNEL_OPEN: none."""
    cdef const TunnelSpec* t = &x.area.tunnel
    cdef const Tunnel* u = &x.tunnel
    if e.now_ns - u.byte_ns >= t.idle_ns:
        return TUNNEL_IDLE
    if t.message_ns and e.now_ns - u.message_ns >= t.message_ns:
        return TUNNEL_SILENT
    if t.lifetime_ns and e.now_ns - u.since_ns >= t.lifetime_ns:
        return TUNNEL_LIFETIME
    if u.up.stuck_ns and e.now_ns - u.up.stuck_ns >= x.area.write_ns:
        return TUNNEL_STUCK
    if u.down.stuck_ns and e.now_ns - u.down.stuck_ns >= x.area.write_ns:
        return TUNNEL_STUCK
    # No WebSocket is half closed (RFC 6455 7.1.1), but some browsers leave its stream so.
    if u.frames and u.down.ended == 2 and is_stream(x.client) and e.now_ns - u.byte_ns >= CHECK_NS:
        return TUNNEL_CLOSED
    return TUNNEL_OPEN


cdef bint tunnel_blocked(Core* e, const Exchange* x) noexcept nogil:
    cdef Facts f
    memset(&f, 0, sizeof(Facts))
    f.policy = x.policy.policy
    f.area = x.area
    f.client_full = x.client_address
    f.client_key = x.client_key
    f.fingerprint = x.fingerprint
    f.account_key = x.account_key
    return judge_standing(e.shared, &f, e.now_ns)


cdef bint tunnel_rebase(Core* e, Exchange* x) noexcept nogil:
    """A tunnel may outlive many policies: it goes over to the one in force, so that it holds none of them and has today's limits.
    False: its area is gone."""
    cdef const Policy* p = e.policy.policy
    cdef const AreaSpec* area = NULL
    cdef uint64_t rule_id = 0
    cdef uint32_t i
    if x.policy == e.policy:
        return True
    for i in range(p.header.areas.count):
        if p.areas[i].area_id == x.area.area_id:
            area = &p.areas[i]
    if area == NULL or not protocol_find(p, &area.tunnel, x.policy.policy.text + x.protocol.off, x.protocol.len, &x.protocol):
        return False
    if x.judgement.rule >= 0:
        rule_id = x.policy.policy.rules[x.judgement.rule].id
        x.judgement.rule = -1
        for i in range(p.header.rules.count):
            if p.rules[i].id == rule_id:
                x.judgement.rule = <int32_t>i
    x.area = area
    x.pool = &p.pools[area.pool]
    x.route = NULL
    x.spec = NULL               # it was the former policy's
    x.policy.refs -= 1
    x.policy = e.policy
    x.policy.refs += 1
    return True


cdef void tunnel_timeout(Core* e, Exchange* x) noexcept nogil:
    cdef uint8_t how = TUNNEL_OPEN
    if not tunnel_rebase(e, x):
        how = TUNNEL_REVOKED
    elif tunnel_blocked(e, x):
        how = TUNNEL_BLOCKED
    else:
        how = tunnel_over(e, x)
    if how != TUNNEL_OPEN:
        tunnel_end(e, x, how, how == TUNNEL_BLOCKED or how == TUNNEL_STUCK)
        return
    timer_set(e, &x.client.h, tunnel_due(e, x))


cdef const char* tunnel_end_text(uint8_t how) noexcept nogil:
    if how == TUNNEL_CLOSED:
        return b"closed"
    if how == TUNNEL_BROKEN:
        return b"broken"
    if how == TUNNEL_IDLE:
        return b"idle"
    if how == TUNNEL_SILENT:
        return b"no_message"
    if how == TUNNEL_LIFETIME:
        return b"lifetime"
    if how == TUNNEL_BYTES:
        return b"bytes"
    if how == TUNNEL_STUCK:
        return b"not_read"
    if how == TUNNEL_BLOCKED:
        return b"blocked"
    if how == TUNNEL_REVOKED:
        return b"revoked"
    return b"drained"
