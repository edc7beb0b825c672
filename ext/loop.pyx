# The pass: events in, steps out, bounded in time and number. Owns the ready list, the timer wheel and the graveyard.
# Invariants: a handle is on the ready list at most once; nothing is given back to a pool while an event of this pass could name it;
# after a pass that returns False every socket has been read and written until it said EAGAIN or the owner waits for somebody else.


cdef void ready_add(Core* e, Handle* h) noexcept nogil:
    # What is closed stays closed: it waits in the graveyard, on the same links.
    if h.on_ready or h.fd < 0:
        return
    h.on_ready = 1
    h.ready_prev = e.ready.ready_prev
    h.ready_next = &e.ready
    e.ready.ready_prev.ready_next = h
    e.ready.ready_prev = h


cdef void ready_remove(Handle* h) noexcept nogil:
    if not h.on_ready:
        return
    h.on_ready = 0
    h.ready_prev.ready_next = h.ready_next
    h.ready_next.ready_prev = h.ready_prev


cdef inline void wheel_unlink(Core* e, Handle* h) noexcept nogil:
    if h.timer_slot < 0:
        return
    if h.timer_prev != NULL:
        h.timer_prev.timer_next = h.timer_next
    else:
        e.wheel[h.timer_slot] = h.timer_next
    if h.timer_next != NULL:
        h.timer_next.timer_prev = h.timer_prev
    h.timer_slot = -1


cdef inline void wheel_link(Core* e, Handle* h) noexcept nogil:
    cdef uint64_t tick = h.deadline_ns / TICK_NS + 1
    cdef uint32_t slot
    if tick <= e.tick:
        tick = e.tick + 1
    elif tick > e.tick + WHEEL_SLOTS - 1:
        tick = e.tick + WHEEL_SLOTS - 1
    slot = <uint32_t>(tick % WHEEL_SLOTS)
    h.timer_slot = <int32_t>slot
    h.timer_prev = NULL
    h.timer_next = e.wheel[slot]
    if h.timer_next != NULL:
        h.timer_next.timer_prev = h
    e.wheel[slot] = h


cdef void timer_set(Core* e, Handle* h, uint64_t deadline_ns) noexcept nogil:
    cdef uint64_t before = h.deadline_ns
    h.deadline_ns = deadline_ns
    # A later deadline needs no move: the wheel looks at the deadline when the slot comes up.
    if h.timer_slot >= 0 and deadline_ns >= before:
        return
    wheel_unlink(e, h)
    wheel_link(e, h)


cdef void timer_clear(Core* e, Handle* h) noexcept nogil:
    wheel_unlink(e, h)
    h.deadline_ns = 0


cdef void handle_bury(Core* e, Handle* h, bint reset) noexcept nogil:
    ready_remove(h)
    timer_clear(e, h)
    if h.kind == HANDLE_STREAM:
        h.fd = -1                   # its connection's
    elif h.fd >= 0:
        if reset:
            scrubber_reset(h.fd)
        else:
            close(h.fd)
        h.fd = -1
    h.events = 0
    h.ready_next = e.grave
    e.grave = h


cdef void graves_clear(Core* e) noexcept nogil:
    cdef Handle* h
    while e.grave != NULL:
        h = e.grave
        e.grave = h.ready_next
        if h.kind == HANDLE_CLIENT:
            h.kind = HANDLE_FREE
            pool_put(&e.clients, h)
        elif h.kind == HANDLE_STREAM:
            h.kind = HANDLE_FREE
            pool_put(&e.streams, h)
        else:
            h.kind = HANDLE_FREE
            pool_put(&e.origins, h)


cdef bint handle_watch(Core* e, Handle* h) noexcept nogil:
    cdef epoll_event event
    # One registration for the life of the descriptor; EPOLLOUT comes once, then only after EAGAIN.
    event.events = <uint32_t>EPOLLIN if h.kind == HANDLE_LISTENER or h.kind == HANDLE_TIMER else \
        <uint32_t>EPOLLIN | <uint32_t>EPOLLOUT | <uint32_t>EPOLLRDHUP | <uint32_t>EPOLLET
    event.data.ptr = h
    return epoll_ctl(e.epoll_fd, EPOLL_CTL_ADD, h.fd, &event) == 0


cdef inline void handle_step(Core* e, Handle* h) noexcept nogil:
    if h.fd < 0:
        return
    if h.kind == HANDLE_CLIENT or h.kind == HANDLE_STREAM:
        client_step(e, <Client*>h)
    elif h.kind == HANDLE_ORIGIN:
        origin_step(e, <Origin*>h)
    elif h.kind == HANDLE_LISTENER:
        listener_step(e, <ListenerHandle*>h)


cdef void expire(Core* e) noexcept nogil:
    cdef uint64_t now_tick = e.now_ns / TICK_NS
    cdef Handle* h
    cdef uint64_t turns = 0
    while e.tick < now_tick and turns < WHEEL_SLOTS:
        e.tick += 1
        turns += 1
        # Moved aside first, into a slot of its own: what a time-out does may link and unlink any handle, these included.
        h = e.wheel[e.tick % WHEEL_SLOTS]
        e.wheel[e.tick % WHEEL_SLOTS] = NULL
        e.wheel[WHEEL_SLOTS] = h
        while h != NULL:
            h.timer_slot = WHEEL_SLOTS
            h = h.timer_next
        while e.wheel[WHEEL_SLOTS] != NULL:
            h = e.wheel[WHEEL_SLOTS]
            wheel_unlink(e, h)
            if h.deadline_ns > e.now_ns:
                wheel_link(e, h)
            elif h.deadline_ns != 0 and h.fd >= 0:
                h.deadline_ns = 0
                if h.kind == HANDLE_CLIENT or h.kind == HANDLE_STREAM:
                    client_timeout(e, <Client*>h)
                elif h.kind == HANDLE_ORIGIN:
                    origin_timeout(e, <Origin*>h)
    if e.tick < now_tick:
        e.tick = now_tick


cdef void tick(Core* e) noexcept nogil:
    cdef uint64_t expirations
    cdef uint32_t i
    while c_read(e.timer.h.fd, &expirations, sizeof(expirations)) > 0:
        pass
    e.wall_offset_ns = scrubber_clock(CLOCK_REALTIME) - e.now_ns
    expire(e)
    origins_look(e)
    if e.accept_paused:
        e.accept_paused = False
        for i in range(LISTENERS_MAX):
            if e.listeners[i].h.fd >= 0:
                handle_watch(e, &e.listeners[i].h)
    if e.starved:
        starved_wake(e)
    cache_tick(e)
    if e.draining or e.retiring:
        drain_step(e)


cdef int edges_note(Core* e, bint* ticked) noexcept nogil:
    """What came, as far as it fits into one look; how much that was."""
    cdef Handle* h
    cdef uint32_t flags
    cdef int i
    cdef int n = epoll_wait(e.epoll_fd, e.events, PASS_EVENTS_MAX, 0)
    for i in range(n):
        h = <Handle*>e.events[i].data.ptr
        flags = e.events[i].events
        if h.kind == HANDLE_TIMER:
            ticked[0] = True
            continue
        if flags & (<uint32_t>EPOLLIN | <uint32_t>EPOLLRDHUP | <uint32_t>EPOLLHUP | <uint32_t>EPOLLERR):
            h.events = <uint8_t>(h.events & ~EVENT_DRAINED | EVENT_READ)
        if flags & (<uint32_t>EPOLLOUT | <uint32_t>EPOLLHUP | <uint32_t>EPOLLERR):
            h.events |= EVENT_WRITE
        if flags & (<uint32_t>EPOLLRDHUP | <uint32_t>EPOLLHUP | <uint32_t>EPOLLERR):
            h.events |= EVENT_HANGUP
        if flags & (<uint32_t>EPOLLHUP | <uint32_t>EPOLLERR):
            h.events |= EVENT_BROKEN
        ready_add(e, h)
    return n


cdef bint core_pass(Core* e) noexcept nogil:
    cdef Handle* h
    cdef Handle* last
    cdef int served = 0
    cdef uint64_t began_ns
    cdef bint ticked = False
    cdef int _
    e.now_ns = scrubber_clock(CLOCK_MONOTONIC)
    began_ns = e.now_ns
    e.accepts = 0
    clock_refresh(e)
    # Edges come once: all of them are noted before anything is served, so that running out of time loses none; and before a tick all
    # that there are, so that nobody is late whose bytes have come.
    for _ in range(LOOKS_MAX):
        if edges_note(e, &ticked) < PASS_EVENTS_MAX or not ticked:
            break
    if ticked:
        tick(e)
    if e.cache_waiters != NULL:
        cache_look_through(e, False)
    # What becomes ready while this runs waits for the next pass.
    last = e.ready.ready_prev
    while e.ready.ready_next != &e.ready:
        h = e.ready.ready_next
        ready_remove(h)
        handle_step(e, h)
        served += 1
        if served % PASS_CLOCK_EVENTS == 0:
            e.now_ns = scrubber_clock(CLOCK_MONOTONIC)
            if e.now_ns - began_ns > PASS_NS_MAX:
                break
        if served >= PASS_EVENTS_MAX:
            break
        if h == last:
            break
    handshakes_serve(e)
    http2_serve(e)
    graves_clear(e)
    if ticked:
        pools_note(e)
    e.gauges.beat_ns = e.now_ns
    e.totals.passes += 1
    e.totals.pass_ns += scrubber_clock(CLOCK_MONOTONIC) - began_ns
    return e.ready.ready_next != &e.ready or handshakes_wait(e) or http2_waits(e)
