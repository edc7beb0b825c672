# Step 1, accept: see listener.pxd. A blocked source is closed with RST; so is a connection over a cap. Nothing is logged: it is counted.


cdef bint accept_refused(Core* e, const Facts* f) noexcept nogil:
    """Block table and connection-phase rules."""
    cdef Judgement j
    memset(&j, 0, sizeof(Judgement))
    judge_connection(e.shared, f, e.now_ns, &j)
    if j.verdict == VERDICT_PASS:
        return False
    if j.blocked:
        e.totals.dropped_blocked += 1
    else:
        e.totals.dropped_rule += 1
    return True


cdef bint connection_counted(Core* e, const Facts* f, uint64_t* count_key, bint* counted) noexcept nogil:
    """One more connection of the client. False: over its cap, and not counted."""
    cdef uint32_t open_now
    count_key[0] = siphash_pair(&e.shared.secret, KEY_CLIENT, f.client_key)
    open_now = counts_add(e.shared, count_key[0], 1)
    counted[0] = open_now != COUNTS_FULL
    if (open_now != COUNTS_FULL and open_now > f.policy.header.connections_client_max and not address_none(&f.client_full)
            and not trusted_peer(f)):
        counts_add(e.shared, count_key[0], -1)
        counted[0] = False
        e.totals.dropped_cap_client += 1
        return False
    return True


cdef void listener_pause(Core* e) noexcept nogil:
    # Out of descriptors: a level-triggered listener would spin. Tried again at the next tick.
    cdef epoll_event event
    cdef uint32_t i
    if e.accept_paused:
        return
    e.accept_paused = True
    e.totals.accept_shortages += 1
    for i in range(LISTENERS_MAX):
        if e.listeners[i].h.fd >= 0:
            epoll_ctl(e.epoll_fd, EPOLL_CTL_DEL, e.listeners[i].h.fd, &event)


cdef bint room_make(Core* e) noexcept nogil:
    """The pool is empty: the longest silent connection goes first; people send at once."""
    cdef Client* c = e.silent
    if c == NULL:
        return False
    e.totals.evicted_idle += 1
    client_close(e, c, True)
    graves_clear(e)
    return e.clients.free > 0


cdef bint accept_one(Core* e, ListenerHandle* l) noexcept nogil:
    """One connection; False: nothing more to accept now."""
    cdef Facts f
    cdef uint16_t port
    cdef uint64_t count_key = 0
    cdef bint counted = False
    cdef int error
    cdef const PolicyHeader* limits = e.policy.policy.header
    cdef int fd
    memset(&f, 0, sizeof(Facts))
    fd = scrubber_accept(l.h.fd, f.client_full.bytes, &port)
    if fd < 0:
        error = scrubber_errno()
        if error == EMFILE or error == ENFILE:
            listener_pause(e)
        return error == EINTR or error == ECONNABORTED
    e.totals.accepted += 1
    f.policy = e.policy.policy
    f.listener = &e.policy.policy.listeners[l.index]
    f.proof = PROOF_SOCKET
    facts_address(e, &f)
    # Of a listed peer only its header says who the client is: nothing is asked of the peer itself.
    if not proxy_listed(&f) and (accept_refused(e, &f) or not connection_counted(e, &f, &count_key, &counted)):
        scrubber_reset(fd)
        return True
    if (e.clients.free == 0 or e.gauges.connections >= limits.connections_max) and not room_make(e):
        if counted:
            counts_add(e.shared, count_key, -1)
        e.totals.dropped_cap_total += 1
        scrubber_reset(fd)
        return True
    client_open(e, l, fd, port, &f, count_key, counted)
    return True


cdef void listener_step(Core* e, ListenerHandle* l) noexcept nogil:
    l.h.events = 0                  # level-triggered: epoll tells again
    while e.accepts < PASS_ACCEPTS_MAX and not e.draining:
        e.accepts += 1
        if not accept_one(e, l):
            return


cdef bint listener_open(Core* e, int fd, uint32_t index) noexcept nogil:
    """Accept on a descriptor that is not ours to close. Connections that this listener had before it was retired stay."""
    cdef ListenerHandle* h = &e.listeners[index]
    if h.retired == 1:
        e.retiring -= 1
    memset(h, 0, sizeof(ListenerHandle))
    h.h.kind = HANDLE_LISTENER
    h.h.fd = fd
    h.h.timer_slot = -1
    h.index = index
    if e.accept_paused or handle_watch(e, &h.h):
        return True
    h.h.fd = -1
    return False


cdef void listener_close(Core* e, ListenerHandle* h, bint queued) noexcept nogil:
    """Accept no more. queued: but take what waits, nobody else will; the caller closes the descriptor right after."""
    cdef epoll_event event
    cdef uint32_t _
    if h.h.fd < 0:
        return
    if not e.accept_paused:
        epoll_ctl(e.epoll_fd, EPOLL_CTL_DEL, h.h.fd, &event)
    ready_remove(&h.h)
    if queued:
        for _ in range(QUEUE_ACCEPTS_MAX):
            if not accept_one(e, h):
                break
    h.h.fd = -1


cdef void listener_retire(Core* e, uint32_t index, uint64_t deadline_ns) noexcept nogil:
    """The listener is gone from the files: what waits is taken, requests end within the deadline."""
    cdef ListenerHandle* h = &e.listeners[index]
    e.now_ns = scrubber_clock(CLOCK_MONOTONIC)
    listener_close(e, h, True)
    if h.retired != 1:
        h.retired = 1
        e.retiring += 1
    h.deadline_ns = e.now_ns + deadline_ns


cdef bint client_leaving(Core* e, const Client* c) noexcept nogil:
    return e.draining or e.listeners[c.listener].retired != 0


cdef void drain_step(Core* e) noexcept nogil:
    """Connections that are to go: silent ones are closed, the others end with their request; all of them at the deadline."""
    cdef uint32_t i
    cdef Client* c
    cdef uint64_t deadline_ns
    cdef uint64_t left = 0           # bit by listener
    for i in range(e.clients.count):
        if not e.clients.taken[i]:
            continue
        c = <Client*>(e.clients.base + i * e.clients.object_bytes)
        if c.h.fd < 0 or not client_leaving(e, c):
            continue
        deadline_ns = e.drain_deadline_ns if e.draining else e.listeners[c.listener].deadline_ns
        if e.now_ns >= deadline_ns or (c.state == CLIENT_HTTP2 and http2_leave(e, c)) or (
                c.state == CLIENT_IDLE and not c.h.events & EVENT_READ and e.now_ns - c.since_ns >= DRAIN_IDLE_NS):
            client_close(e, c, False)
        else:
            left |= <uint64_t>1 << c.listener
    for i in range(LISTENERS_MAX):
        if e.listeners[i].retired == 1 and not left >> i & 1:
            e.listeners[i].retired = 2      # still no more accepting, but nobody left to look for
            e.retiring -= 1


cdef void core_drain(Core* e, uint64_t deadline_ns, bint queued) noexcept nogil:
    cdef uint32_t i
    e.now_ns = scrubber_clock(CLOCK_MONOTONIC)
    for i in range(LISTENERS_MAX):
        listener_close(e, &e.listeners[i], queued)
    e.draining = True
    e.drain_deadline_ns = e.now_ns + deadline_ns
    e.gauges.draining = 1
