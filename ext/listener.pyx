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
    if open_now != COUNTS_FULL and open_now > f.policy.header.connections_client_max and not trusted_peer(f):
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
    for i in range(e.listener_count):
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
